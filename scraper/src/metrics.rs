//! Our own metrics about scraping and discovery, under Prometheus' names.
//!
//! `prometheus_target_interval_length_seconds` and `prometheus_target_sync_length_seconds` are summaries there; the
//! client library has none, so `Summaries` keeps the last observations of each label value and computes quantiles
//! when asked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

pub use crate::discovery::SdMetrics;

/// Observations kept per summary: p99 over them is still made of tens of values.
const WINDOW: usize = 4096;
/// Quantiles of Prometheus' own summaries.
const QUANTILES: [f64; 5] = [0.01, 0.05, 0.5, 0.9, 0.99];
/// Most label values a summary has; further ones are not kept.
const SUMMARIES_MAX: usize = 4096;

/// What stands between the values of a key of [`Summaries`] with several labels.
const KEY_SEPARATOR: char = '\u{0}';

/// A family of summaries.
#[derive(Clone, Debug)]
pub(crate) struct Summaries {
    desc: Desc,
    /// In order.
    labels: Vec<&'static str>,
    series: Arc<Mutex<HashMap<String, Window>>>,
}

#[derive(Debug, Default)]
struct Window {
    last: VecDeque<f64>,
    count: u64,
    sum: f64,
}

impl Summaries {
    fn new(name: &str, help: &str, label: &'static str) -> prometheus::Result<Self> {
        Self::with_labels(name, help, &[label])
    }

    /// Summaries told apart by `labels`, in order of names.
    pub(crate) fn with_labels(name: &str, help: &str, labels: &[&'static str]) -> prometheus::Result<Self> {
        let names = labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), names, HashMap::new())?;
        Ok(Self { desc, labels: labels.to_vec(), series: Arc::default() })
    }

    /// The key of several label values, in the order of the labels.
    pub(crate) fn key(values: &[&str]) -> String {
        values.join(&KEY_SEPARATOR.to_string())
    }

    /// Counts `value` for `key`: the label's value, or what [`Summaries::key`] made of several.
    pub(crate) fn observe(&self, key: &str, value: f64) {
        let mut series = self.series.lock();
        if !series.contains_key(key) {
            if series.len() >= SUMMARIES_MAX {
                return;
            }
            series.insert(key.to_owned(), Window::default());
        }
        if let Some(window) = series.get_mut(key) {
            if window.last.len() == WINDOW {
                window.last.pop_front();
            }
            window.last.push_back(value);
            window.count += 1;
            window.sum += value;
        }
    }

    /// Forgets `key`.
    pub(crate) fn remove(&self, key: &str) {
        self.series.lock().remove(key);
    }
}

impl Collector for Summaries {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(proto::MetricType::SUMMARY);
        let metrics = self.series.lock().iter().map(|(key, window)| self.metric(key, window)).collect();
        family.set_metric(metrics);
        vec![family]
    }
}

impl Summaries {
    fn metric(&self, key: &str, window: &Window) -> proto::Metric {
        let mut sorted: Vec<f64> = window.last.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let quantiles = QUANTILES
            .iter()
            .map(|q| {
                let mut quantile = proto::Quantile::default();
                quantile.set_quantile(*q);
                // In range: q < 1 and the window is not empty.
                let rank = (q * sorted.len() as f64) as usize;
                quantile.set_value(sorted.get(rank).copied().unwrap_or(f64::NAN));
                quantile
            })
            .collect();
        let mut summary = proto::Summary::default();
        summary.set_sample_count(window.count);
        summary.set_sample_sum(window.sum);
        summary.set_quantile(quantiles);
        let pairs = self
            .labels
            .iter()
            .zip(key.split(KEY_SEPARATOR))
            .map(|(name, value)| {
                let mut pair = proto::LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value.to_owned());
                pair
            })
            .collect();
        let mut metric = proto::Metric::from_label(pairs);
        metric.set_summary(summary);
        metric
    }
}

/// Metrics of scrape pools, loops and targets.
#[derive(Clone, Debug)]
pub(crate) struct ScrapeMetrics {
    pub(crate) interval_length: Summaries,
    pub(crate) sync_length: Summaries,
    pub(crate) reload_length: Summaries,
    pub(crate) pools: IntCounter,
    pub(crate) pool_reloads: IntCounter,
    pub(crate) pool_syncs: IntCounterVec,
    pub(crate) pool_targets: IntGaugeVec,
    pub(crate) pool_target_limit: IntGaugeVec,
    pub(crate) exceeded_target_limit: IntCounter,
    pub(crate) exceeded_label_limits: IntCounter,
    pub(crate) exceeded_body_size_limit: IntCounter,
    pub(crate) exceeded_sample_limit: IntCounter,
    pub(crate) exceeded_bucket_limit: IntCounter,
    pub(crate) sync_failed: IntCounterVec,
    pub(crate) sample_duplicate: IntCounter,
    pub(crate) sample_out_of_order: IntCounter,
    pub(crate) sample_out_of_bounds: IntCounter,
    pub(crate) exemplar_out_of_order: IntCounter,
    pub(crate) cache_flush_forced: IntCounter,
    pub(crate) metadata_entries: IntGaugeVec,
    pub(crate) metadata_bytes: IntGaugeVec,
    pub(crate) scrape_duration: Histogram,
    pub(crate) fast_samples: IntCounter,
    pub(crate) slow_samples: IntCounter,
}

impl ScrapeMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &["scrape_job"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauges = |name: &str, help: &str| -> prometheus::Result<IntGaugeVec> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["scrape_job"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let summaries = |name: &str, help: &str, label| -> prometheus::Result<Summaries> {
            let summaries = Summaries::new(name, help, label)?;
            registry.register(Box::new(summaries.clone()))?;
            Ok(summaries)
        };
        let scrape_duration = Histogram::with_opts(HistogramOpts::new(
            "prometheus_target_scrape_duration_seconds",
            "Total duration of the scrape from start to commit completion in seconds.",
        ))?;
        registry.register(Box::new(scrape_duration.clone()))?;
        Ok(Self {
            interval_length: summaries(
                "prometheus_target_interval_length_seconds",
                "Actual intervals between scrapes.",
                "interval",
            )?,
            sync_length: summaries(
                "prometheus_target_sync_length_seconds",
                "Actual interval to sync the scrape pool.",
                "scrape_job",
            )?,
            reload_length: summaries(
                "prometheus_target_reload_length_seconds",
                "Actual interval to reload the scrape pool with a given configuration.",
                "interval",
            )?,
            pools: counter(
                "prometheus_target_scrape_pools_total",
                "Total number of scrape pool creation attempts.",
            )?,
            pool_reloads: counter(
                "prometheus_target_scrape_pool_reloads_total",
                "Total number of scrape pool reloads.",
            )?,
            pool_syncs: counters(
                "prometheus_target_scrape_pool_sync_total",
                "Total number of syncs that were executed on a scrape pool.",
            )?,
            pool_targets: gauges(
                "prometheus_target_scrape_pool_targets",
                "Current number of targets in this scrape pool.",
            )?,
            pool_target_limit: gauges(
                "prometheus_target_scrape_pool_target_limit",
                "Maximum number of targets allowed in this scrape pool.",
            )?,
            exceeded_target_limit: counter(
                "prometheus_target_scrape_pool_exceeded_target_limit_total",
                "Total number of times scrape pools hit the target limit, during sync or config reload.",
            )?,
            exceeded_label_limits: counter(
                "prometheus_target_scrape_pool_exceeded_label_limits_total",
                "Total number of times scrape pools hit the label limits, during sync or config reload.",
            )?,
            exceeded_body_size_limit: counter(
                "prometheus_target_scrapes_exceeded_body_size_limit_total",
                "Total number of scrapes that hit the body size limit",
            )?,
            exceeded_sample_limit: counter(
                "prometheus_target_scrapes_exceeded_sample_limit_total",
                "Total number of scrapes that hit the sample limit and were rejected.",
            )?,
            exceeded_bucket_limit: counter(
                "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total",
                "Total number of scrapes that hit the native histogram bucket limit and were rejected.",
            )?,
            sync_failed: counters(
                "prometheus_target_sync_failed_total",
                "Total number of target sync failures.",
            )?,
            sample_duplicate: counter(
                "prometheus_target_scrapes_sample_duplicate_timestamp_total",
                "Total number of samples rejected due to duplicate timestamps but different values.",
            )?,
            sample_out_of_order: counter(
                "prometheus_target_scrapes_sample_out_of_order_total",
                "Total number of samples rejected due to not being out of the expected order.",
            )?,
            sample_out_of_bounds: counter(
                "prometheus_target_scrapes_sample_out_of_bounds_total",
                "Total number of samples rejected due to timestamp falling outside of the time bounds.",
            )?,
            exemplar_out_of_order: counter(
                "prometheus_target_scrapes_exemplar_out_of_order_total",
                "Total number of exemplar rejected due to not being out of the expected order.",
            )?,
            cache_flush_forced: counter(
                "prometheus_target_scrapes_cache_flush_forced_total",
                "How many times a scrape cache was flushed due to getting big while scrapes are failing.",
            )?,
            metadata_entries: gauges(
                "prometheus_target_metadata_cache_entries",
                "Total number of metric metadata entries in the cache",
            )?,
            metadata_bytes: gauges(
                "prometheus_target_metadata_cache_bytes",
                "The number of bytes that are currently used for storing metric metadata in the cache",
            )?,
            scrape_duration,
            fast_samples: counter(
                "nilometer_scrape_lines_known_total",
                "Lines of pages whose series was recognised by comparing its text with the last page's.",
            )?,
            slow_samples: counter(
                "nilometer_scrape_lines_parsed_total",
                "Lines of pages whose series text was parsed.",
            )?,
        })
    }

    /// Forgets what is known of a job.
    pub(crate) fn remove_job(&self, job: &str) {
        // An error only says that there was nothing yet.
        let _ = self.pool_syncs.remove_label_values(&[job]);
        let _ = self.pool_targets.remove_label_values(&[job]);
        let _ = self.pool_target_limit.remove_label_values(&[job]);
        let _ = self.sync_failed.remove_label_values(&[job]);
        let _ = self.metadata_entries.remove_label_values(&[job]);
        let _ = self.metadata_bytes.remove_label_values(&[job]);
        self.sync_length.remove(job);
    }
}
