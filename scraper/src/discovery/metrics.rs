//! Our own metrics about discovery, under Prometheus' names.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::kubernetes::KubernetesMetrics;
use super::trouble::{DiscoveryTrouble, Trouble, Troubles};
use crate::metrics::Summaries;

/// Metrics of discovery.
#[derive(Clone, Debug)]
pub struct SdMetrics {
    /// Targets known per job (`name`, `config`).
    pub discovered_targets: IntGaugeVec,
    /// Updates received from discoverers.
    pub received_updates: IntCounterVec,
    /// Updates handed to scrape pools.
    pub updates: IntCounterVec,
    /// Attempts of a discoverer that failed (`mechanism`, `config`).
    pub refresh_failures: IntCounterVec,
    refresh_duration: Summaries,
    refresh_duration_histogram: HistogramVec,
    /// Mechanisms and jobs that have series.
    refreshing: Arc<Mutex<BTreeSet<(&'static str, String)>>>,
    troubles: Troubles,
    /// `http_sd_configs` that did not answer as they should.
    pub(crate) http_failures: IntCounter,
    /// Names asked for.
    pub(crate) dns_lookups: IntCounter,
    /// Names of which nobody knows whether there are targets.
    pub(crate) dns_lookup_failures: IntCounter,
    /// Questions to Consul without an answer.
    pub(crate) consul_failures: IntCounter,
    consul_duration: Summaries,
    /// Refreshes from Nomad that failed.
    pub(crate) nomad_failures: IntCounter,
    pub(crate) kubernetes: KubernetesMetrics,
    /// Target files that could not be read.
    pub file_read_errors: IntCounter,
    file_mtime: GaugeVec,
    /// Jobs whose discovery could not be started.
    pub failed_configs: Gauge,
}

impl SdMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            discovered_targets: IntGaugeVec::new(
                Opts::new("prometheus_sd_discovered_targets", "Current number of discovered targets."),
                &["name", "config"],
            )?,
            received_updates: IntCounterVec::new(
                Opts::new(
                    "prometheus_sd_received_updates_total",
                    "Total number of update events received from the SD providers.",
                ),
                &["name"],
            )?,
            updates: IntCounterVec::new(
                Opts::new(
                    "prometheus_sd_updates_total",
                    "Total number of update events sent to the SD consumers.",
                ),
                &["name"],
            )?,
            refresh_failures: IntCounterVec::new(
                Opts::new(
                    "prometheus_sd_refresh_failures_total",
                    "Number of refresh failures for the given SD mechanism.",
                ),
                &["mechanism", "config"],
            )?,
            refresh_duration: Summaries::with_labels(
                "prometheus_sd_refresh_duration_seconds",
                "The duration of a refresh in seconds for the given SD mechanism.",
                &["config", "mechanism"],
            )?,
            refresh_duration_histogram: HistogramVec::new(
                HistogramOpts::new(
                    "prometheus_sd_refresh_duration_histogram_seconds",
                    "The duration of a refresh for the given SD mechanism.",
                )
                .buckets(vec![0.01, 0.1, 1.0, 10.0]),
                &["mechanism"],
            )?,
            refreshing: Arc::default(),
            troubles: Troubles::default(),
            http_failures: IntCounter::new(
                "prometheus_sd_http_failures_total",
                "Number of HTTP service discovery refresh failures.",
            )?,
            dns_lookups: IntCounter::new("prometheus_sd_dns_lookups_total", "The number of DNS-SD lookups.")?,
            dns_lookup_failures: IntCounter::new(
                "prometheus_sd_dns_lookup_failures_total",
                "The number of DNS-SD lookup failures.",
            )?,
            consul_failures: IntCounter::new(
                "prometheus_sd_consul_rpc_failures_total",
                "The number of Consul RPC call failures.",
            )?,
            consul_duration: Summaries::with_labels(
                "prometheus_sd_consul_rpc_duration_seconds",
                "The duration of a Consul RPC call in seconds.",
                &["call", "endpoint"],
            )?,
            nomad_failures: IntCounter::new(
                "prometheus_sd_nomad_failures_total",
                "Number of nomad service discovery refresh failures.",
            )?,
            kubernetes: KubernetesMetrics::new(registry)?,
            file_read_errors: IntCounter::new(
                "prometheus_sd_file_read_errors_total",
                "The number of File-SD read errors.",
            )?,
            file_mtime: GaugeVec::new(
                Opts::new(
                    "prometheus_sd_file_mtime_seconds",
                    "Timestamp (mtime) of files read by FileSD. Timestamp is set at read time.",
                ),
                &["filename"],
            )?,
            failed_configs: Gauge::new(
                "prometheus_sd_failed_configs",
                "Current number of service discovery configurations that failed to load.",
            )?,
        };
        let collectors: [Box<dyn Collector>; 15] = [
            Box::new(metrics.discovered_targets.clone()),
            Box::new(metrics.received_updates.clone()),
            Box::new(metrics.updates.clone()),
            Box::new(metrics.refresh_failures.clone()),
            Box::new(metrics.refresh_duration.clone()),
            Box::new(metrics.refresh_duration_histogram.clone()),
            Box::new(metrics.http_failures.clone()),
            Box::new(metrics.dns_lookups.clone()),
            Box::new(metrics.dns_lookup_failures.clone()),
            Box::new(metrics.consul_failures.clone()),
            Box::new(metrics.consul_duration.clone()),
            Box::new(metrics.nomad_failures.clone()),
            Box::new(metrics.file_read_errors.clone()),
            Box::new(metrics.file_mtime.clone()),
            Box::new(metrics.failed_configs.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// What keeps discoverers of `job` from finding targets at the moment.
    pub fn troubles(&self, job: &str) -> Vec<DiscoveryTrouble> {
        self.troubles.now(job)
    }

    /// A place for the troubles of one discoverer of `job`.
    pub(crate) fn trouble(&self, job: &str, kind: &'static str) -> Trouble {
        self.troubles.of(job, kind)
    }

    /// Notes that a discoverer of `job` looked for targets.
    pub(crate) fn refreshed(&self, mechanism: &'static str, job: &str, took: Duration, worked: bool) {
        self.refreshing.lock().insert((mechanism, job.to_owned()));
        let failures = self.refresh_failures.with_label_values(&[mechanism, job]);
        if !worked {
            failures.inc();
        }
        let seconds = took.as_secs_f64();
        self.refresh_duration.observe(&Summaries::key(&[job, mechanism]), seconds);
        self.refresh_duration_histogram.with_label_values(&[mechanism]).observe(seconds);
    }

    /// Notes a question to Consul: `services` or `service` of the `catalog`.
    pub(crate) fn consul_asked(&self, call: &str, took: Duration) {
        self.consul_duration.observe(&Summaries::key(&[call, "catalog"]), took.as_secs_f64());
    }

    /// Forgets a job that has gone.
    pub(crate) fn remove_job(&self, job: &str) {
        let mut refreshing = self.refreshing.lock();
        for (mechanism, _) in refreshing.extract_if(.., |(_, name)| name == job) {
            // An error only says that there was nothing.
            let _ = self.refresh_failures.remove_label_values(&[mechanism, job]);
            self.refresh_duration.remove(&Summaries::key(&[job, mechanism]));
        }
        let _ = self.discovered_targets.remove_label_values(&["scrape", job]);
    }

    /// Notes that a target file was read.
    pub(crate) fn file_read(&self, file: &Path, changed: SystemTime) {
        let seconds = changed.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64());
        self.file_mtime.with_label_values(&[file.to_string_lossy()]).set(seconds);
    }

    /// Forgets a target file.
    pub(crate) fn file_gone(&self, file: &Path) {
        // An error only says that it was never read.
        let _ = self.file_mtime.remove_label_values(&[file.to_string_lossy()]);
    }
}
