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

use super::alerting::{AlertContext, AlertingRule, millis};
use super::config::{GroupConfig, RuleConfig, RuleKind};
use super::metrics::RuleMetrics;
use super::recording::record;
use super::status::{AlertState, Health, RuleGroupStatus, RuleStatus, RuleStatusKind};
use super::{Evaluate, RuleSample};

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
    resend_delay: Duration,
    alert_context: AlertContext,
    /// One evaluation at a time; locked before any rule.
    evaluating: Mutex<()>,
    /// Each locked on its own and never while a query runs, so that the API does not wait for slow rules.
    rules: Vec<Mutex<RuleState>>,
    /// Locked last.
    summary: Mutex<Summary>,
}

#[derive(Debug, Default)]
struct Summary {
    evaluation_time: Duration,
    last_evaluation: Option<Timestamp>,
    /// Series of rules that this group no longer has: the next evaluation ends them.
    orphans: Vec<Labels>,
}

#[derive(Debug)]
struct RuleState {
    config: RuleConfig,
    alerting: Option<AlertingRule>,
    /// What the rule yielded last time.
    series: HashMap<Labels, SeriesRef>,
    health: Health,
    last_error: Option<String>,
    evaluation_time: Duration,
    last_evaluation: Option<Timestamp>,
}

impl RuleState {
    fn new(config: RuleConfig, restored: bool) -> Self {
        let alerting = match config.kind {
            RuleKind::Alerting { .. } => Some(AlertingRule::new(&config, restored)),
            RuleKind::Recording => None,
        };
        Self {
            config,
            alerting,
            series: HashMap::new(),
            health: Health::Unknown,
            last_error: None,
            evaluation_time: Duration::ZERO,
            last_evaluation: None,
        }
    }
}

impl RuleGroup {
    /// A group that was never evaluated. `restored`: no pending times are to be looked for.
    pub(super) fn new(
        config: GroupConfig,
        deps: GroupDeps,
        metrics: RuleMetrics,
        resend_delay: Duration,
        alert_context: AlertContext,
        restored: bool,
    ) -> Self {
        let rules =
            config.rules.iter().map(|rule| Mutex::new(RuleState::new(rule.clone(), restored))).collect();
        metrics.add_group(&config.key(), config.interval.as_secs_f64(), config.rules.len());
        Self {
            key: config.key(),
            config,
            deps,
            metrics,
            resend_delay,
            alert_context,
            evaluating: Mutex::new(()),
            rules,
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

    /// Takes over the state of rules that both groups have; what only `old` has gets staleness markers next time.
    pub(super) fn take_state(&self, old: &Self) {
        let _evaluating = old.evaluating.lock();
        let mut taken = vec![false; old.rules.len()];
        for rule in &self.rules {
            let mut rule = rule.lock();
            let same = |(index, other): &(usize, &Mutex<RuleState>)| {
                !taken[*index] && other.lock().config.identity() == rule.config.identity()
            };
            let Some((index, other)) = old.rules.iter().enumerate().find(same) else { continue };
            taken[index] = true;
            let mut other = other.lock();
            rule.series = std::mem::take(&mut other.series);
            if let (Some(new), Some(old)) = (&mut rule.alerting, &mut other.alerting) {
                new.take_state(old);
            }
        }
        let mut summary = self.summary.lock();
        summary.orphans = old.summary.lock().orphans.clone();
        for (other, _) in old.rules.iter().zip(&taken).filter(|(_, taken)| !**taken) {
            summary.orphans.extend(other.lock().series.drain().map(|(labels, _)| labels));
        }
    }

    /// Evaluates all rules at `t`. Blocks for as long as the queries take.
    pub fn evaluate(&self, t: Timestamp) {
        let _evaluating = self.evaluating.lock();
        let started = Instant::now();
        let sample_time = t - millis(self.config.query_offset);
        let mut samples = 0;
        for rule in &self.rules {
            samples += self.evaluate_rule(rule, t, sample_time);
        }
        let mut summary = self.summary.lock();
        self.end_series(std::mem::take(&mut summary.orphans), sample_time);
        let took = started.elapsed();
        summary.evaluation_time = took;
        summary.last_evaluation = Some(t);
        drop(summary);
        let labels = &[self.key.as_str()];
        self.metrics.group_seconds.observe(took.as_secs_f64());
        self.metrics.last_duration.with_label_values(labels).set(took.as_secs_f64());
        self.metrics.last_evaluation.with_label_values(labels).set(t as f64 / 1000.0);
        self.metrics.last_samples.with_label_values(labels).set(i64::try_from(samples).unwrap_or(i64::MAX));
    }

    fn evaluate_rule(&self, rule: &Mutex<RuleState>, t: Timestamp, sample_time: Timestamp) -> usize {
        let started = Instant::now();
        let expr = rule.lock().config.expr.clone();
        let result = self.deps.evaluate.instant(&expr, sample_time);
        let mut rule = rule.lock();
        let outcome = result.and_then(|result| self.apply(&mut rule, t, result));
        let outcome = outcome.and_then(|samples| self.write(&mut rule, sample_time, samples));
        let labels = &[self.key.as_str()];
        self.metrics.evaluations.with_label_values(labels).inc();
        let took = started.elapsed();
        self.metrics.evaluation_seconds.observe(took.as_secs_f64());
        rule.evaluation_time = took;
        rule.last_evaluation = Some(t);
        match outcome {
            Ok(samples) => {
                rule.health = Health::Good;
                rule.last_error = None;
                samples
            }
            Err(error) => {
                tracing::warn!(group = self.key, rule = rule.config.name, error, "evaluating rule failed");
                self.metrics.failures.with_label_values(labels).inc();
                rule.health = Health::Bad;
                rule.last_error = Some(error);
                0
            }
        }
    }

    /// What the rule makes of its expression's result; sends alerts.
    fn apply(
        &self,
        rule: &mut RuleState,
        t: Timestamp,
        result: Vec<RuleSample>,
    ) -> Result<Vec<RuleSample>, String> {
        let Some(alerting) = &mut rule.alerting else {
            return record(&rule.config.name, &rule.config.labels, self.config.limit, result);
        };
        self.metrics.expansions.inc_by(result.len() as u64);
        let outcome = alerting.evaluate(t, &result, &self.alert_context, self.config.limit)?;
        for error in &outcome.template_errors {
            self.metrics.expansion_failures.inc();
            tracing::warn!(group = self.key, rule = rule.config.name, error, "expanding a template failed");
        }
        let url = &self.alert_context.external_url;
        let alerts = alerting.alerts_to_send(t, self.resend_delay, self.config.interval, url);
        if !alerts.is_empty() {
            self.deps.sink.send(&alerts);
        }
        Ok(outcome.samples)
    }

    /// Commits `samples` and the ends of series that are no longer among them.
    fn write(&self, rule: &mut RuleState, t: Timestamp, samples: Vec<RuleSample>) -> Result<usize, String> {
        if samples.is_empty() && rule.series.is_empty() {
            return Ok(0);
        }
        let mut appender = self.appender();
        let mut series = HashMap::with_capacity(samples.len());
        let count = samples.len();
        for sample in samples {
            let known = rule.series.get(&sample.labels).copied();
            match append(&mut *appender, known, &sample.labels, t, sample.value) {
                Ok(reference) => {
                    series.insert(sample.labels, reference);
                }
                Err(error) => {
                    self.refused(&error, &rule.config.name, &sample.labels);
                    // It was yielded all the same: no staleness marker now, and one when it stops.
                    if let Some(reference) = known {
                        series.insert(sample.labels, reference);
                    }
                }
            }
        }
        for (labels, reference) in &rule.series {
            if !series.contains_key(labels)
                && let Err(error) =
                    append(&mut *appender, Some(*reference), labels, t, SampleValue::Float(stale_nan()))
            {
                self.refused(&error, &rule.config.name, labels);
            }
        }
        appender.commit().map_err(|error| error.to_string())?;
        rule.series = series;
        Ok(count)
    }

    /// Writes staleness markers for all series, when the group has gone for good.
    pub(super) fn end_all(&self, t: Timestamp) {
        let _evaluating = self.evaluating.lock();
        let mut ended = std::mem::take(&mut self.summary.lock().orphans);
        for rule in &self.rules {
            ended.extend(rule.lock().series.drain().map(|(labels, _)| labels));
        }
        self.end_series(ended, t - millis(self.config.query_offset));
    }

    fn end_series(&self, ended: Vec<Labels>, t: Timestamp) {
        if ended.is_empty() {
            return;
        }
        let mut appender = self.appender();
        for labels in &ended {
            if let Err(error) = append(&mut *appender, None, labels, t, SampleValue::Float(stale_nan())) {
                self.refused(&error, "", labels);
            }
        }
        if let Err(error) = appender.commit() {
            tracing::error!(group = self.key, %error, "cannot write staleness markers");
        }
    }

    fn appender(&self) -> Box<dyn Appender> {
        self.deps.append.appender(AppendOptions { max_time: None, reject_out_of_order: true })
    }

    fn refused(&self, error: &AppendError, rule: &str, labels: &Labels) {
        let reason = error.to_string();
        self.metrics.samples_refused.with_label_values(&[reason.as_str()]).inc();
        tracing::debug!(group = self.key, rule, %labels, reason, "storage refused a sample of a rule");
    }

    /// Calls `each` for every alerting rule.
    pub(super) fn for_each_alerting(&self, mut each: impl FnMut(&mut AlertingRule)) {
        for rule in &self.rules {
            if let Some(alerting) = &mut rule.lock().alerting {
                each(alerting);
            }
        }
    }

    /// The group as it stands.
    pub fn status(&self) -> RuleGroupStatus {
        let rules = self.rules.iter().map(|rule| rule.lock().status()).collect();
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

impl RuleState {
    fn status(&self) -> RuleStatus {
        let kind = match (&self.config.kind, &self.alerting) {
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
            name: self.config.name.clone(),
            query: self.config.query.clone(),
            labels: self.config.label_set(),
            health: self.health,
            last_error: self.last_error.clone(),
            evaluation_time: self.evaluation_time,
            last_evaluation: self.last_evaluation,
            kind,
        }
    }
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
