//! Our own metrics, with Alertmanager's names where it has them.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// The kinds that exist in Alertmanager: dashboards expect a series of each from the start.
const KINDS: [&str; 18] = [
    "discord",
    "email",
    "incidentio",
    "jira",
    "mattermost",
    "msteams",
    "msteamsv2",
    "opsgenie",
    "pagerduty",
    "pushover",
    "rocketchat",
    "slack",
    "sns",
    "telegram",
    "victorops",
    "webex",
    "webhook",
    "wechat",
];
/// Reasons of failed notifications.
const REASONS: [&str; 5] =
    ["clientError", "contextCanceled", "contextDeadlineExceeded", "other", "serverError"];

/// Counters of the state on disk.
#[derive(Clone, Debug)]
pub struct StateMetrics {
    /// Writes that failed.
    pub write_errors: IntCounter,
    /// Exports that failed.
    pub export_errors: IntCounter,
    /// Size of the last export.
    pub export_bytes: IntGauge,
    /// How often the database was damaged and rebuilt.
    pub rebuilds: IntCounter,
    /// Attempts to open the database again after the disk refused.
    pub reopens: IntCounter,
    /// Whether writes reach the disk.
    pub durable: IntGauge,
}

/// All metrics of the Alertmanager.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) state: StateMetrics,
    pub(crate) alerts: IntGaugeVec,
    pub(crate) alerts_received: IntCounterVec,
    pub(crate) alerts_invalid: IntCounterVec,
    pub(crate) alerts_dropped: IntCounter,
    pub(crate) aggregation_groups: IntGauge,
    pub(crate) aggregation_group_limit_reached: IntCounter,
    pub(crate) processing_seconds: Histogram,
    pub(crate) notifications: IntCounterVec,
    pub(crate) notifications_failed: IntCounterVec,
    pub(crate) requests: IntCounterVec,
    pub(crate) requests_failed: IntCounterVec,
    pub(crate) latency_seconds: HistogramVec,
    pub(crate) suppressed: IntCounterVec,
    pub(crate) silences: IntGaugeVec,
    pub(crate) nflog_entries: IntGauge,
    pub(crate) nflog_queries: IntCounter,
    pub(crate) silences_queries: IntCounter,
    pub(crate) nflog_maintenance: IntCounter,
    pub(crate) nflog_maintenance_errors: IntCounter,
    pub(crate) silences_maintenance: IntCounter,
    pub(crate) silences_maintenance_errors: IntCounter,
    pub(crate) cluster_enabled: IntGauge,
    pub(crate) per_alert_limit: IntGauge,
    pub(crate) receivers: IntGauge,
    pub(crate) integrations: IntGauge,
    pub(crate) inhibition_rules: IntGauge,
    pub(crate) config_hash: Gauge,
    pub(crate) reload_successful: IntGauge,
    pub(crate) reload_timestamp: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let r = Registrar { registry };
        let state = StateMetrics {
            write_errors: r
                .counter("state_write_errors_total", "Writes of the durable state that failed.")?,
            export_errors: r
                .counter("state_export_errors_total", "Exports of the durable state that failed.")?,
            export_bytes: r
                .gauge("state_export_size_bytes", "Size of the last export of the durable state.")?,
            rebuilds: r
                .counter("state_rebuilds_total", "How often the durable state was damaged and rebuilt.")?,
            reopens: r.counter(
                "state_reopens_total",
                "Attempts to open the durable state again after the disk refused.",
            )?,
            durable: r.gauge(
                "state_durable",
                "Whether silences and the notification log reach the disk; 0 without a disk or while it refuses.",
            )?,
        };
        let metrics = Self {
            state,
            alerts: r.gauges("alerts", "How many alerts by state.", &["state"])?,
            alerts_received: r.counters(
                "alerts_received_total",
                "The total number of received alerts.",
                &["status", "version"],
            )?,
            alerts_invalid: r.counters(
                "alerts_invalid_total",
                "The total number of received alerts that were invalid.",
                &["version"],
            )?,
            alerts_dropped: r
                .counter("alerts_dropped_total", "Alerts that were not taken because a limit was reached.")?,
            aggregation_groups: r
                .gauge("dispatcher_aggregation_groups", "Number of active aggregation groups")?,
            aggregation_group_limit_reached: r.counter(
                "dispatcher_aggregation_group_limit_reached_total",
                "Number of times an alert found no aggregation group because there are too many.",
            )?,
            processing_seconds: r.histogram(
                "dispatcher_alert_processing_duration_seconds",
                "Latencies for the processing of alerts.",
            )?,
            notifications: r.counters(
                "notifications_total",
                "The total number of attempted notifications.",
                &["integration"],
            )?,
            notifications_failed: r.counters(
                "notifications_failed_total",
                "The total number of failed notifications.",
                &["integration", "reason"],
            )?,
            requests: r.counters(
                "notification_requests_total",
                "The total number of attempted notification requests.",
                &["integration"],
            )?,
            requests_failed: r.counters(
                "notification_requests_failed_total",
                "The total number of failed notification requests.",
                &["integration"],
            )?,
            latency_seconds: r.histograms(
                "notification_latency_seconds",
                "The latency of notifications in seconds.",
                &["integration"],
            )?,
            suppressed: r.counters(
                "notifications_suppressed_total",
                "The total number of suppressed notifications by reason.",
                &["reason"],
            )?,
            silences: r.gauges("silences", "How many silences by state.", &["state"])?,
            nflog_entries: r.gauge("nflog_entries", "Entries of the notification log.")?,
            nflog_queries: r
                .counter("nflog_queries_total", "Number of notification log queries were received.")?,
            silences_queries: r
                .counter("silences_queries_total", "How many silence queries were received.")?,
            nflog_maintenance: r
                .counter("nflog_maintenance_total", "Maintenances of the notification log.")?,
            nflog_maintenance_errors: r.counter(
                "nflog_maintenance_errors_total",
                "Maintenances of the notification log that failed.",
            )?,
            silences_maintenance: r.counter("silences_maintenance_total", "Maintenances of silences.")?,
            silences_maintenance_errors: r
                .counter("silences_maintenance_errors_total", "Maintenances of silences that failed.")?,
            cluster_enabled: r
                .gauge("cluster_enabled", "Indicates whether the clustering is enabled or not.")?,
            per_alert_limit: r
                .gauge("alerts_per_alert_limit", "Current limit on number of alerts per alert name")?,
            receivers: r.gauge("receivers", "Number of configured receivers.")?,
            integrations: r.gauge("integrations", "Number of configured integrations.")?,
            inhibition_rules: r.gauge("inhibition_rules", "Number of configured inhibition rules.")?,
            config_hash: r
                .float("config_hash", "Hash of the currently loaded configuration, not cryptographic.")?,
            reload_successful: r.gauge(
                "config_last_reload_successful",
                "Whether the last configuration reload attempt was successful.",
            )?,
            reload_timestamp: r.float(
                "config_last_reload_success_timestamp_seconds",
                "Timestamp of the last successful configuration reload.",
            )?,
        };
        for kind in KINDS {
            for counter in [&metrics.notifications, &metrics.requests, &metrics.requests_failed] {
                counter.with_label_values(&[kind]);
            }
            metrics.latency_seconds.with_label_values(&[kind]);
            for reason in REASONS {
                metrics.notifications_failed.with_label_values(&[kind, reason]);
            }
        }
        for status in ["firing", "resolved"] {
            metrics.alerts_received.with_label_values(&[status, "v2"]);
        }
        metrics.alerts_invalid.with_label_values(&["v2"]);
        for reason in ["silence", "inhibition", "mute_time_interval", "active_time_interval"] {
            metrics.suppressed.with_label_values(&[reason]);
        }
        Ok(metrics)
    }
}

struct Registrar<'a> {
    registry: &'a Registry,
}

impl Registrar<'_> {
    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("alertmanager_{name}"), help)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::with_opts(Self::opts(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Self::opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::with_opts(Self::opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Self::opts(name, help), labels)?)
    }

    fn float(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.add(Gauge::with_opts(Self::opts(name, help))?)
    }

    fn histogram(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        let buckets = vec![1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0];
        self.add(Histogram::with_opts(HistogramOpts::from(Self::opts(name, help)).buckets(buckets))?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        // Alertmanager's buckets.
        let buckets = vec![1.0, 5.0, 10.0, 15.0, 20.0];
        self.add(HistogramVec::new(HistogramOpts::from(Self::opts(name, help)).buckets(buckets), labels)?)
    }
}
