//! A group: its rules in order at one timestamp.
//!
//! Each rule's samples are committed before the next rule runs, so later rules see what earlier ones recorded. Series that
//! a rule yielded last time and no longer yields get staleness markers; none when the evaluation failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::storage::{Append, AppendError, AppendOptions, AppendSample, Appender, Queryable, SeriesRef};
use model::{AlertSink, Clock, Labels, SampleValue, Timestamp, stale_nan};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alerting::{AlertingRule, millis};
use super::config::{GroupConfig, RuleConfig, RuleKind};
use super::metrics::RuleMetrics;
use super::recording::record;
use super::status::{AlertState, Health, RuleGroupStatus, RuleStatus, RuleStatusKind};
use super::texts::{AlertContext, AlertTexts};
use super::{Evaluate, RuleSample};
use crate::exec::RuleOrigin;

/// What groups work with.
#[derive(Clone)]
pub struct GroupDeps {
    /// Evaluates expressions.
    pub evaluate: Arc<dyn Evaluate>,
    /// Takes samples.
    pub append: Arc<dyn Append>,
    /// Where pending times from before a restart are read.
    pub storage: Arc<dyn Queryable>,
    /// Takes alerts.
    pub sink: Arc<dyn AlertSink>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for GroupDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupDeps")
    }
}

/// A group and the state of its rules.
#[derive(Debug)]
pub struct RuleGroup {
    config: GroupConfig,
    key: String,
    deps: GroupDeps,
    metrics: RuleMetrics,
    alert_context: AlertContext,
    stop: CancellationToken,
    /// As in `config`.
    rules: Vec<Rule>,
    /// Locked for the length of an evaluation, hence one at a time, and before all other locks.
    written: Mutex<Written>,
    /// Locked last.
    summary: Mutex<Summary>,
}

#[derive(Debug)]
struct Rule {
    /// `None` for recording rules.
    texts: Option<AlertTexts>,
    /// Never locked while a query, a template or storage is at work, so that the API waits for none of them.
    state: Mutex<RuleState>,
}

/// Series by their labels, with the store's reference to each.
type WrittenSeries = HashMap<Labels, SeriesRef>;

/// What went into storage last time.
#[derive(Debug, Default)]
struct Written {
    /// By rule.
    rules: Vec<WrittenSeries>,
    /// Of rules that this group no longer has: the next evaluation ends them.
    orphans: Vec<(Labels, SeriesRef)>,
}

#[derive(Debug, Default)]
struct Summary {
    evaluation_time: Duration,
    last_evaluation: Option<Timestamp>,
}

#[derive(Debug)]
struct RuleState {
    /// `None` for recording rules.
    alerting: Option<AlertingRule>,
    health: Health,
    last_error: Option<String>,
    evaluation_time: Duration,
    last_evaluation: Option<Timestamp>,
}

impl RuleGroup {
    /// A group that was never evaluated. `restored`: no pending times are to be looked for. `stop` ends an evaluation
    /// after the rule that is at work.
    pub(super) fn new(
        config: GroupConfig,
        deps: GroupDeps,
        metrics: RuleMetrics,
        alert_context: AlertContext,
        stop: CancellationToken,
        restored: bool,
    ) -> Self {
        let rules = config.rules.iter().map(|rule| Rule::new(rule, &alert_context, restored)).collect();
        metrics.add_group(&config.key(), config.interval.as_secs_f64(), config.rules.len());
        let written = Written { rules: vec![HashMap::new(); config.rules.len()], orphans: Vec::new() };
        Self {
            key: config.key(),
            config,
            deps,
            metrics,
            alert_context,
            stop,
            rules,
            written: Mutex::new(written),
            summary: Mutex::default(),
        }
    }

    /// Its settings.
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// `file;name`
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn deps(&self) -> &GroupDeps {
        &self.deps
    }

    pub(super) fn metrics(&self) -> &RuleMetrics {
        &self.metrics
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Takes over the state of rules that both groups have; what only `old` has ends at the next evaluation. Neither
    /// group may be under evaluation: then no lock is waited for.
    pub(super) fn take_state(&self, old: &Self) {
        let mut written = self.written.lock();
        let mut old_written = old.written.lock();
        let old_written = &mut *old_written;
        // Rules that say the same twice are matched in order.
        let mut by_identity: HashMap<_, Vec<usize>> = HashMap::with_capacity(old.rules.len());
        for (index, rule) in old.config.rules.iter().enumerate().rev() {
            by_identity.entry(rule.identity()).or_default().push(index);
        }
        for (index, rule) in self.config.rules.iter().enumerate() {
            let Some(old_index) = by_identity.get_mut(&rule.identity()).and_then(Vec::pop) else { continue };
            written.rules[index] = std::mem::take(&mut old_written.rules[old_index]);
            let mut state = self.rules[index].state.lock();
            let mut old_state = old.rules[old_index].state.lock();
            if let (Some(new), Some(old)) = (&mut state.alerting, &mut old_state.alerting) {
                new.take_state(old);
            }
        }
        written.orphans = std::mem::take(&mut old_written.orphans);
        // What was taken over left an empty map behind.
        written.orphans.extend(old_written.rules.iter_mut().flat_map(HashMap::drain));
        let old_summary = old.summary.lock();
        *self.summary.lock() = Summary { ..*old_summary };
    }

    /// Evaluates all rules at `t`. Blocks for as long as the queries take.
    pub fn evaluate(&self, t: Timestamp) {
        let mut written = self.written.lock();
        let written = &mut *written;
        let began_at = self.deps.clock.now_ms();
        let started = Instant::now();
        let sample_time = t.saturating_sub(millis(self.config.query_offset));
        let mut samples = 0;
        let mut rule_time = Duration::ZERO;
        for (index, series) in written.rules.iter_mut().enumerate() {
            if self.stop.is_cancelled() {
                return;
            }
            let (count, took) = self.evaluate_rule(index, t, sample_time, series);
            samples += count;
            rule_time += took;
        }
        // After the rules: a series that another rule yields now has a sample at this time and goes on.
        self.end_series(&mut written.orphans, sample_time);
        let took = started.elapsed();
        *self.summary.lock() = Summary { evaluation_time: took, last_evaluation: Some(began_at) };
        let labels = &[self.key.as_str()];
        self.metrics.group_seconds.observe(took.as_secs_f64());
        self.metrics.last_duration.with_label_values(labels).set(took.as_secs_f64());
        self.metrics.last_rule_duration.with_label_values(labels).set(rule_time.as_secs_f64());
        self.metrics.last_evaluation.with_label_values(labels).set(began_at as f64 / 1000.0);
        self.metrics.last_samples.with_label_values(labels).set(i64::try_from(samples).unwrap_or(i64::MAX));
    }

    /// Number of samples the rule yielded, and how long it took.
    fn evaluate_rule(
        &self,
        index: usize,
        t: Timestamp,
        sample_time: Timestamp,
        series: &mut WrittenSeries,
    ) -> (usize, Duration) {
        let config = &self.config.rules[index];
        let began_at = self.deps.clock.now_ms();
        let started = Instant::now();
        let mut count = 0;
        let origin = self.origin(index);
        let outcome = self
            .deps
            .evaluate
            .instant(&config.expr, sample_time, origin)
            .and_then(|result| self.apply(index, t, result))
            .and_then(|samples| {
                count = samples.len();
                self.write(config, series, sample_time, samples)
            });
        let labels = &[self.key.as_str()];
        self.metrics.evaluations.with_label_values(labels).inc();
        let took = started.elapsed();
        self.metrics.evaluation_seconds.observe(took.as_secs_f64());
        let last_error = match outcome {
            // As in Prometheus, a refused sample is shown but is no failed evaluation: the others were written.
            Ok(refused) => refused.map(|error| error.to_string()),
            Err(error) => {
                tracing::warn!(group = self.key, rule = config.name, error, "evaluating rule failed");
                self.metrics.failures.with_label_values(labels).inc();
                Some(error)
            }
        };
        let mut state = self.rules[index].state.lock();
        state.health = if last_error.is_none() { Health::Good } else { Health::Bad };
        state.last_error = last_error;
        state.evaluation_time = took;
        state.last_evaluation = Some(began_at);
        (count, took)
    }

    /// Who asks when a rule does.
    fn origin(&self, index: usize) -> RuleOrigin {
        RuleOrigin {
            file: self.config.file.clone(),
            group: self.config.name.clone(),
            rule: self.config.rules[index].name.clone(),
        }
    }

    /// What the rule makes of its expression's result; sends alerts.
    fn apply(&self, index: usize, t: Timestamp, result: Vec<RuleSample>) -> Result<Vec<RuleSample>, String> {
        let (rule, config) = (&self.rules[index], &self.config.rules[index]);
        let Some(texts) = &rule.texts else {
            return record(&config.name, &config.labels, self.config.limit, result);
        };
        let expansion = texts.expand(t, &result, &self.alert_context, &self.origin(index));
        self.metrics.expansions.inc_by(expansion.expanded);
        self.metrics.expansion_failures.inc_by(expansion.failures.len() as u64);
        if let Some(error) = expansion.failures.first() {
            let failed = expansion.failures.len();
            tracing::warn!(group = self.key, rule = config.name, failed, error, "expanding templates failed");
        }
        let seen = expansion.alerts?;
        let (samples, alerts) = {
            let mut state = rule.state.lock();
            let alerting = state.alerting.as_mut().expect("a rule with texts is an alerting rule");
            let samples = alerting.advance(t, seen, self.config.limit)?;
            let resend_delay = self.alert_context.resend_delay;
            (samples, alerting.alerts_to_send(t, resend_delay, self.config.interval))
        };
        // Before anything is written: a full disk must not keep alerts from leaving.
        if !alerts.is_empty() {
            self.deps.sink.send(&alerts);
        }
        Ok(samples)
    }

    /// Commits `samples` and the ends of series that are no longer among them; then they replace `series`. Says why
    /// storage refused a sample, if it did.
    fn write(
        &self,
        rule: &RuleConfig,
        series: &mut WrittenSeries,
        t: Timestamp,
        samples: Vec<RuleSample>,
    ) -> Result<Option<AppendError>, String> {
        if samples.is_empty() && series.is_empty() {
            return Ok(None);
        }
        let mut appender = self.appender();
        let mut written = HashMap::with_capacity(samples.len());
        let mut refused: Vec<AppendError> = Vec::new();
        for sample in samples {
            let known = series.get(&sample.labels).copied();
            match append(&mut *appender, known, &sample.labels, t, sample.value) {
                Ok(reference) => {
                    written.insert(sample.labels, reference);
                }
                Err(error) => {
                    self.refused(error, &rule.name, &sample.labels);
                    refused.push(error);
                    // The series goes on in storage: it ends when the rule stops to yield it, not now.
                    if goes_on(error)
                        && let Some(reference) = known
                    {
                        written.insert(sample.labels, reference);
                    }
                }
            }
        }
        for (labels, reference) in series.iter().filter(|(labels, _)| !written.contains_key(*labels)) {
            self.append_end(&mut *appender, labels, *reference, t);
        }
        appender.commit().map_err(|error| error.to_string())?;
        *series = written;
        if let Some(error) = refused.first() {
            let dropped = refused.len();
            tracing::warn!(group = self.key, rule = rule.name, dropped, %error, "storage refused samples of a rule");
        }
        Ok(refused.first().copied())
    }

    /// Writes staleness markers at `t` for all series, when the group has gone for good. Blocks.
    pub(super) fn end_all(&self, t: Timestamp) {
        let mut written = self.written.lock();
        let written = &mut *written;
        let mut ended = std::mem::take(&mut written.orphans);
        ended.extend(written.rules.iter_mut().flat_map(HashMap::drain));
        self.end_series(&mut ended, t.saturating_sub(millis(self.config.query_offset)));
    }

    /// Ends `series` and empties it, or leaves it as it is when storage fails, for the next time.
    fn end_series(&self, series: &mut Vec<(Labels, SeriesRef)>, t: Timestamp) {
        if series.is_empty() {
            return;
        }
        let mut appender = self.appender();
        for (labels, reference) in series.iter() {
            self.append_end(&mut *appender, labels, *reference, t);
        }
        match appender.commit() {
            Ok(_) => series.clear(),
            Err(error) => {
                tracing::warn!(group = self.key, %error, "cannot end series of a previous configuration");
            }
        }
    }

    fn append_end(&self, appender: &mut dyn Appender, labels: &Labels, reference: SeriesRef, t: Timestamp) {
        let marker = SampleValue::Float(stale_nan());
        match append(appender, Some(reference), labels, t, marker) {
            Ok(_) => {}
            // Another rule yields the series.
            Err(error) if goes_on(error) => {}
            Err(error) => self.refused(error, "", labels),
        }
    }

    fn appender(&self) -> Box<dyn Appender> {
        self.deps.append.appender(AppendOptions { max_time: None, reject_out_of_order: true })
    }

    fn refused(&self, error: AppendError, rule: &str, labels: &Labels) {
        let reason = error.to_string();
        self.metrics.samples_refused.with_label_values(&[reason.as_str()]).inc();
        tracing::debug!(group = self.key, rule, %labels, reason, "storage refused a sample of a rule");
    }

    /// Calls `look` with the alerts of rule `index`; `None` when it is a recording rule.
    pub(super) fn with_alerting<R>(
        &self,
        index: usize,
        look: impl FnOnce(&mut AlertingRule) -> R,
    ) -> Option<R> {
        self.rules[index].state.lock().alerting.as_mut().map(look)
    }

    /// The group as it stands.
    pub fn status(&self) -> RuleGroupStatus {
        let rules =
            self.config.rules.iter().zip(&self.rules).map(|(config, rule)| rule.state.lock().status(config));
        let rules = rules.collect();
        let summary = self.summary.lock();
        RuleGroupStatus {
            name: self.config.name.clone(),
            file: self.config.file.clone(),
            interval: self.config.interval,
            limit: self.config.limit,
            evaluation_time: summary.evaluation_time,
            last_evaluation: summary.last_evaluation,
            rules,
        }
    }
}

impl Rule {
    fn new(config: &RuleConfig, context: &AlertContext, restored: bool) -> Self {
        let state = RuleState {
            alerting: AlertingRule::new(config, &context.external_url, restored),
            health: Health::Unknown,
            last_error: None,
            evaluation_time: Duration::ZERO,
            last_evaluation: None,
        };
        Self { texts: AlertTexts::new(config), state: Mutex::new(state) }
    }
}

impl RuleState {
    fn status(&self, config: &RuleConfig) -> RuleStatus {
        let kind = match (&config.kind, &self.alerting) {
            (RuleKind::Alerting { hold, keep_firing_for, annotations }, Some(alerting)) => {
                RuleStatusKind::Alerting {
                    state: if self.last_evaluation.is_some() {
                        alerting.state()
                    } else {
                        AlertState::Unknown
                    },
                    hold: *hold,
                    keep_firing_for: *keep_firing_for,
                    annotations: annotations
                        .iter()
                        .map(|(name, text)| (name.clone(), text.clone()))
                        .collect(),
                    alerts: alerting.status(),
                }
            }
            _ => RuleStatusKind::Recording,
        };
        RuleStatus {
            name: config.name.clone(),
            query: config.query.clone(),
            labels: config.label_set(),
            health: self.health,
            last_error: self.last_error.clone(),
            evaluation_time: self.evaluation_time,
            last_evaluation: self.last_evaluation,
            kind,
        }
    }
}

/// Whether a refusal says that the store has the series at this time or later already.
fn goes_on(error: AppendError) -> bool {
    matches!(
        error,
        AppendError::OutOfOrder | AppendError::OutOfBounds | AppendError::TooOld | AppendError::Duplicate
    )
}

/// Appends by reference, or by labels when the store has forgotten the reference.
fn append(
    appender: &mut dyn Appender,
    known: Option<SeriesRef>,
    labels: &Labels,
    t: Timestamp,
    value: SampleValue,
) -> Result<SeriesRef, AppendError> {
    let sample = AppendSample { t, value, start: None };
    match appender.append(known, labels, sample.clone()) {
        Err(AppendError::UnknownSeries) if known.is_some() => appender.append(None, labels, sample),
        other => other,
    }
}
