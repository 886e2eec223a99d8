//! The configuration file as written. Sections belong to the crates that use them; here they are only joined.

use std::collections::BTreeMap;

use alertmanager::config::RawAlertmanagerConfig;
use model::config::{ByteSize, PromDuration};
use model::relabel::RawRelabelConfig;
use scraper::config::{RawGlobalConfig, RawScrapeConfig};
use serde::Deserialize;

/// `prometheus.yml`, and the keys that are ours.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawConfig {
    pub global: Option<RawGlobalConfig>,
    pub runtime: Option<RawRuntime>,
    pub rule_files: Option<Vec<String>>,
    pub scrape_config_files: Option<Vec<String>>,
    pub scrape_configs: Option<Vec<RawScrapeConfig>>,
    pub alerting: Option<RawAlerting>,
    pub storage: Option<RawStorage>,
    // Known, not built yet: refused with their place when they hold something.
    pub remote_write: Option<serde_yaml::Value>,
    pub remote_read: Option<serde_yaml::Value>,
    pub tracing: Option<serde_yaml::Value>,
    pub otlp: Option<serde_yaml::Value>,
    pub dashboards: Option<serde_yaml::Value>,
    // Ours.
    pub alertmanager: Option<RawAlertmanagerConfig>,
    pub builtin_rules: Option<RawBuiltinRules>,
}

/// `runtime`: settings of Go's runtime, accepted and without effect.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRuntime {
    // accepted so that files need no change; there is no Go runtime here
    pub gogc: Option<i64>,
}

/// `alerting`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawAlerting {
    pub alert_relabel_configs: Option<Vec<RawRelabelConfig>>,
    pub alertmanagers: Option<Vec<serde_yaml::Value>>,
}

/// `storage`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawStorage {
    pub tsdb: Option<RawTsdb>,
    pub exemplars: Option<RawExemplars>,
}

/// `storage.tsdb`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTsdb {
    pub out_of_order_time_window: Option<PromDuration>,
    pub retention: Option<RawRetention>,
    // Ours.
    pub retention_rules: Option<Vec<RawRetentionRule>>,
    // accepted; it tunes a compaction that is not built yet
    pub stale_series_compaction_threshold: Option<f64>,
    // accepted; chunk encodings here are our own
    pub chunk_encoding: Option<serde_yaml::Value>,
}

/// `storage.tsdb.retention`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRetention {
    pub time: Option<PromDuration>,
    pub size: Option<ByteSize>,
    pub percentage: Option<f64>,
}

/// One of `storage.tsdb.retention_rules`: series that are kept for another time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRetentionRule {
    /// Such as `job="rabbitmq"` or `__name__=~"queue_.+"`; all must accept a series.
    pub matchers: Vec<String>,
    /// 0s: for ever.
    pub duration: PromDuration,
}

/// `storage.exemplars`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawExemplars {
    pub max_exemplars: Option<usize>,
}

/// `builtin_rules`: the built-in queue rules, and what is otherwise about them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawBuiltinRules {
    /// On or off; by itself on when a job has a collector.
    pub enabled: Option<bool>,
    /// Interval of all groups.
    pub interval: Option<PromDuration>,
    /// By name of the alert or recorded series.
    pub overrides: BTreeMap<String, RawRuleOverride>,
}

/// What is otherwise about one rule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRuleOverride {
    /// Whether it is loaded at all.
    pub enabled: Option<bool>,
    /// How long before it fires.
    #[serde(rename = "for")]
    pub hold: Option<PromDuration>,
    /// How long it fires on.
    pub keep_firing_for: Option<PromDuration>,
    /// Another expression.
    pub expr: Option<String>,
    /// Labels to add or replace.
    pub labels: BTreeMap<String, String>,
    /// Annotations to add or replace.
    pub annotations: BTreeMap<String, String>,
}
