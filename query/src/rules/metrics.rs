//! What rules count, under Prometheus' names.

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// Counters of all groups.
#[derive(Clone, Debug)]
pub(super) struct RuleMetrics {
    pub(super) evaluations: IntCounterVec,
    pub(super) failures: IntCounterVec,
    pub(super) evaluation_seconds: Histogram,
    pub(super) group_seconds: Histogram,
    pub(super) iterations: IntCounterVec,
    pub(super) missed: IntCounterVec,
    pub(super) interval: GaugeVec,
    pub(super) last_duration: GaugeVec,
    pub(super) last_rule_duration: GaugeVec,
    pub(super) last_evaluation: GaugeVec,
    pub(super) last_samples: IntGaugeVec,
    pub(super) rules: IntGaugeVec,
    pub(super) expansions: IntCounter,
    pub(super) expansion_failures: IntCounter,
    pub(super) samples_refused: IntCounterVec,
}

/// Evaluations take from microseconds to minutes.
const SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

impl RuleMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When they are registered already.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["rule_group"]);
        let int_gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["rule_group"]);
        let histogram = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
        };
        let group = "rule_group";
        let metrics = Self {
            evaluations: counter(
                "prometheus_rule_evaluations_total",
                "The total number of rule evaluations.",
                group,
            )?,
            failures: counter(
                "prometheus_rule_evaluation_failures_total",
                "The total number of rule evaluation failures.",
                group,
            )?,
            evaluation_seconds: histogram(
                "prometheus_rule_evaluation_duration_seconds",
                "The duration for a rule to execute.",
            )?,
            group_seconds: histogram(
                "prometheus_rule_group_duration_seconds",
                "The duration of rule group evaluations.",
            )?,
            iterations: counter(
                "prometheus_rule_group_iterations_total",
                "The total number of scheduled rule group evaluations, whether executed or missed.",
                group,
            )?,
            missed: counter(
                "prometheus_rule_group_iterations_missed_total",
                "The total number of rule group evaluations missed due to slow rule group evaluation.",
                group,
            )?,
            interval: gauge("prometheus_rule_group_interval_seconds", "The interval of a rule group.")?,
            last_duration: gauge(
                "prometheus_rule_group_last_duration_seconds",
                "The duration of the last rule group evaluation.",
            )?,
            last_rule_duration: gauge(
                "prometheus_rule_group_last_rule_duration_sum_seconds",
                "The sum of time in seconds it took to evaluate each rule in the group.",
            )?,
            last_evaluation: gauge(
                "prometheus_rule_group_last_evaluation_timestamp_seconds",
                "The timestamp of the last rule group evaluation in seconds.",
            )?,
            last_samples: int_gauge(
                "prometheus_rule_group_last_evaluation_samples",
                "The number of samples returned during the last rule group evaluation.",
            )?,
            rules: int_gauge("prometheus_rule_group_rules", "The number of rules.")?,
            expansions: IntCounter::new(
                "prometheus_template_text_expansions_total",
                "The total number of template text expansions.",
            )?,
            expansion_failures: IntCounter::new(
                "prometheus_template_text_expansion_failures_total",
                "The total number of template text expansion failures.",
            )?,
            samples_refused: counter(
                "nilometer_rule_samples_refused_total",
                "Samples of rules that storage refused.",
                "reason",
            )?,
        };
        registry.register(Box::new(metrics.evaluations.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.evaluation_seconds.clone()))?;
        registry.register(Box::new(metrics.group_seconds.clone()))?;
        registry.register(Box::new(metrics.iterations.clone()))?;
        registry.register(Box::new(metrics.missed.clone()))?;
        registry.register(Box::new(metrics.interval.clone()))?;
        registry.register(Box::new(metrics.last_duration.clone()))?;
        registry.register(Box::new(metrics.last_rule_duration.clone()))?;
        registry.register(Box::new(metrics.last_evaluation.clone()))?;
        registry.register(Box::new(metrics.last_samples.clone()))?;
        registry.register(Box::new(metrics.rules.clone()))?;
        registry.register(Box::new(metrics.expansions.clone()))?;
        registry.register(Box::new(metrics.expansion_failures.clone()))?;
        registry.register(Box::new(metrics.samples_refused.clone()))?;
        Ok(metrics)
    }

    /// Makes the series of a group, so that they are there before anything happens.
    pub(super) fn add_group(&self, key: &str, interval_seconds: f64, rules: usize) {
        let labels = &[key];
        self.interval.with_label_values(labels).set(interval_seconds);
        self.rules.with_label_values(labels).set(i64::try_from(rules).unwrap_or(i64::MAX));
        for counter in [&self.evaluations, &self.failures, &self.iterations, &self.missed] {
            counter.with_label_values(labels).inc_by(0);
        }
    }

    /// Forgets the series of a group that has gone.
    pub(super) fn remove_group(&self, key: &str) {
        let labels = &[key];
        for counter in [&self.evaluations, &self.failures, &self.iterations, &self.missed] {
            // A series that was never made is gone already.
            let _ = counter.remove_label_values(labels);
        }
        for gauge in [&self.interval, &self.last_duration, &self.last_rule_duration, &self.last_evaluation] {
            let _ = gauge.remove_label_values(labels);
        }
        for gauge in [&self.last_samples, &self.rules] {
            let _ = gauge.remove_label_values(labels);
        }
    }
}
