//! Alerting rules: a state machine for each label set that the expression yields.
//!
//! inactive → pending (while `for` runs) → firing → resolved (kept and resent for 15 minutes). Follows Prometheus'
//! `rules/alerting.go`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use model::labels::METRIC_NAME;
use model::template::alerting::graph_link;
use model::{Alert, Labels, LabelsBuilder, Timestamp};

use super::RuleSample;
use super::config::{RuleConfig, RuleKind};
use super::status::{AlertState, AlertStatus};
use super::texts::SeenAlerts;

/// How long resolved alerts are kept and resent, so that the Alertmanager hears of the end even after an outage.
const RESOLVED_RETENTION_MS: i64 = 15 * 60 * 1000;
/// Name of the series that tell which alerts are active.
pub const ALERTS: &str = "ALERTS";
/// Name of the series that remember since when alerts are active.
pub const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
/// Label of [`ALERTS`] with the state.
const ALERT_STATE: &str = "alertstate";

/// The alerts of an alerting rule.
#[derive(Debug)]
pub struct AlertingRule {
    name: String,
    hold_ms: i64,
    keep_firing_ms: i64,
    generator_url: String,
    active: HashMap<Labels, ActiveAlert>,
    /// Whether pending times from before a restart have been looked for. Until then no series are written, or they
    /// would cover what is looked for.
    restored: bool,
}

/// One alert of a rule.
#[derive(Clone, Debug)]
pub(super) struct ActiveAlert {
    state: AlertState,
    annotations: Labels,
    value: f64,
    pub(super) active_at: Timestamp,
    fired_at: Option<Timestamp>,
    resolved_at: Option<Timestamp>,
    keep_firing_since: Option<Timestamp>,
    last_sent_at: Option<Timestamp>,
}

impl AlertingRule {
    /// A rule without alerts; `None` for recording rules. `restored`: no pending times are to be looked for.
    pub fn new(config: &RuleConfig, external_url: &str, restored: bool) -> Option<Self> {
        let RuleKind::Alerting { hold, keep_firing_for, .. } = &config.kind else { return None };
        Some(Self {
            name: config.name.clone(),
            hold_ms: millis(*hold),
            keep_firing_ms: millis(*keep_firing_for),
            generator_url: format!("{external_url}{}", graph_link(&config.query, 1)),
            active: HashMap::new(),
            restored,
        })
    }

    /// The alert's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `for` in milliseconds.
    pub fn hold_ms(&self) -> i64 {
        self.hold_ms
    }

    /// Takes over the alerts of the rule that this one replaces.
    pub fn take_state(&mut self, old: &mut Self) {
        self.active = std::mem::take(&mut old.active);
        self.restored = old.restored;
    }

    /// Whether [`Self::set_restored`] was called.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// From now on series are written.
    pub fn set_restored(&mut self) {
        self.restored = true;
    }

    /// Moves all alerts on to time `t`, at which the expression yields `seen`. `limit` bounds active alerts (0: no
    /// bound). Gives the samples of `ALERTS` and `ALERTS_FOR_STATE`.
    ///
    /// # Errors
    /// When there are too many alerts; then all are forgotten. The text is Prometheus'.
    pub fn advance(
        &mut self,
        t: Timestamp,
        seen: SeenAlerts,
        limit: usize,
    ) -> Result<Vec<RuleSample>, String> {
        let mut is_seen = HashSet::with_capacity(seen.len());
        for (labels, (annotations, value)) in seen {
            is_seen.insert(labels.clone());
            match self.active.get_mut(&labels) {
                Some(alert) if alert.state != AlertState::Inactive => {
                    alert.value = value;
                    alert.annotations = annotations;
                }
                _ => {
                    self.active.insert(labels, ActiveAlert::pending(annotations, value, t));
                }
            }
        }
        let mut active = 0;
        let mut samples = Vec::new();
        let (hold, keep, restored) = (self.hold_ms, self.keep_firing_ms, self.restored);
        self.active.retain(|labels, alert| {
            let (stays, counts) = alert.step(t, is_seen.contains(labels), hold, keep);
            if counts {
                active += 1;
                if restored {
                    samples.push(alerts_sample(labels, alert));
                    samples.push(state_sample(labels, alert));
                }
            }
            stays
        });
        if limit > 0 && active > limit {
            self.active.clear();
            return Err(format!("exceeded limit of {limit} with {active} alerts"));
        }
        Ok(samples)
    }

    /// Alerts that must be sent at `t`: firing and resolved ones, not more often than every `resend_delay`.
    pub fn alerts_to_send(&mut self, t: Timestamp, resend_delay: Duration, interval: Duration) -> Vec<Alert> {
        let resend_ms = millis(resend_delay);
        // Two evaluations or sendings may fail before the alert counts as resolved.
        let validity_ms = millis(interval.max(resend_delay)).saturating_mul(4);
        let mut alerts: Vec<Alert> = self
            .active
            .iter_mut()
            .filter(|(_, alert)| alert.needs_sending(t, resend_ms))
            .map(|(labels, alert)| {
                alert.last_sent_at = Some(t);
                Alert {
                    labels: labels.clone(),
                    annotations: alert.annotations.clone(),
                    starts_at: alert.fired_at.unwrap_or(alert.active_at),
                    ends_at: Some(alert.resolved_at.unwrap_or(t.saturating_add(validity_ms))),
                    generator_url: self.generator_url.clone(),
                }
            })
            .collect();
        alerts.sort_by(|a, b| a.labels.cmp(&b.labels));
        alerts
    }

    /// Pending and firing alerts in order of labels.
    pub fn status(&self) -> Vec<AlertStatus> {
        let mut alerts: Vec<AlertStatus> = self
            .active
            .iter()
            .filter(|(_, alert)| alert.state != AlertState::Inactive)
            .map(|(labels, alert)| AlertStatus {
                labels: labels.clone(),
                annotations: alert.annotations.clone(),
                state: alert.state,
                active_at: alert.active_at,
                keep_firing_since: alert.keep_firing_since,
                value: alert.value,
            })
            .collect();
        alerts.sort_by(|a, b| a.labels.cmp(&b.labels));
        alerts
    }

    /// The most severe state of all alerts.
    pub fn state(&self) -> AlertState {
        self.active.values().map(|alert| alert.state).max().unwrap_or(AlertState::Inactive)
    }

    /// Active alerts, for restoration.
    pub(super) fn active_mut(&mut self) -> impl Iterator<Item = (&Labels, &mut ActiveAlert)> {
        self.active.iter_mut().filter(|(_, alert)| alert.state != AlertState::Inactive)
    }

    /// Whether any alert is active.
    pub(super) fn has_active(&self) -> bool {
        self.active.values().any(|alert| alert.state != AlertState::Inactive)
    }
}

impl ActiveAlert {
    fn pending(annotations: Labels, value: f64, t: Timestamp) -> Self {
        Self {
            state: AlertState::Pending,
            annotations,
            value,
            active_at: t,
            fired_at: None,
            resolved_at: None,
            keep_firing_since: None,
            last_sent_at: None,
        }
    }

    /// One evaluation later; says whether the alert is kept, and whether it is active.
    fn step(&mut self, t: Timestamp, is_seen: bool, hold_ms: i64, keep_firing_ms: i64) -> (bool, bool) {
        if is_seen {
            self.keep_firing_since = None;
        } else {
            let keeps_firing = self.state == AlertState::Firing && keep_firing_ms > 0 && {
                let since = *self.keep_firing_since.get_or_insert(t);
                t - since < keep_firing_ms
            };
            let was_pending = self.state == AlertState::Pending;
            let is_old = self.resolved_at.is_some_and(|resolved| t - resolved > RESOLVED_RETENTION_MS);
            if !keeps_firing {
                if self.state != AlertState::Inactive {
                    self.state = AlertState::Inactive;
                    self.resolved_at = Some(t);
                }
                return (!was_pending && !is_old, false);
            }
        }
        if self.state == AlertState::Pending && t - self.active_at >= hold_ms {
            self.state = AlertState::Firing;
            self.fired_at = Some(t);
        }
        (true, true)
    }

    fn needs_sending(&self, t: Timestamp, resend_ms: i64) -> bool {
        if self.state == AlertState::Pending {
            return false;
        }
        match (self.resolved_at, self.last_sent_at) {
            (_, None) => true,
            (Some(resolved), Some(sent)) if resolved > sent => true,
            (_, Some(sent)) => sent + resend_ms < t,
        }
    }
}

fn alerts_sample(labels: &Labels, alert: &ActiveAlert) -> RuleSample {
    let mut builder = LabelsBuilder::from(labels);
    builder.set(METRIC_NAME, ALERTS).set(ALERT_STATE, alert.state.as_str());
    RuleSample::float(builder.build(), 1.0)
}

fn state_sample(labels: &Labels, alert: &ActiveAlert) -> RuleSample {
    let mut builder = LabelsBuilder::from(labels);
    builder.set(METRIC_NAME, ALERTS_FOR_STATE);
    RuleSample::float(builder.build(), alert.active_at.div_euclid(1000) as f64)
}

/// A duration in milliseconds.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 8)
}
