//! Our own metrics, under Prometheus' names where it has them.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

use model::storage::AppendError;

/// All metrics of a store.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) series: IntGauge,
    pub(crate) chunks: IntGauge,
    pub(crate) samples_appended: IntCounterVec,
    pub(crate) out_of_order_appended: IntCounterVec,
    pub(crate) series_created: IntCounter,
    pub(crate) series_removed: IntCounter,
    pub(crate) active_appenders: IntGauge,
    pub(crate) min_time: IntGauge,
    pub(crate) max_time: IntGauge,
    pub(crate) lowest_timestamp: IntGauge,
    pub(crate) symbol_table_bytes: IntGauge,
    pub(crate) wal_segment_current: IntGauge,
    pub(crate) wal_storage_bytes: IntGauge,
    pub(crate) wal_corruptions: IntCounter,
    pub(crate) wal_torn_tails: IntCounter,
    pub(crate) wal_replay_lost: IntCounter,
    pub(crate) wal_writes_failed: IntCounter,
    pub(crate) wal_syncs_failed: IntCounter,
    pub(crate) wal_truncations_failed: IntCounter,
    pub(crate) wal_fsync_duration: Histogram,
    pub(crate) checkpoints: IntCounter,
    pub(crate) checkpoints_failed: IntCounter,
    pub(crate) gc_duration: Histogram,
    pub(crate) clean_start: IntGauge,
    pub(crate) retention_seconds: Gauge,
    pub(crate) time_retentions: IntCounter,
    pub(crate) exemplars_appended: IntCounter,
    pub(crate) exemplars_refused: IntCounter,
    pub(crate) exemplars_stored: IntGauge,
    pub(crate) exemplars_max: IntGauge,
    out_of_order: IntCounterVec,
    too_old: IntCounterVec,
    out_of_bounds: IntCounterVec,
    duplicates: IntCounterVec,
    refused_otherwise: IntCounterVec,
}

/// The kinds of samples, as in Prometheus' label `type`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SampleKind {
    Float,
    Histogram,
}

impl SampleKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Histogram => "histogram",
        }
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let collector = made?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When one is registered already: a registry serves one store.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            registered(registry, IntCounter::new(format!("prometheus_tsdb_{name}"), help))
        };
        let own = |name: &str, help: &str| {
            registered(registry, IntCounter::new(format!("nilometer_tsdb_{name}"), help))
        };
        let gauge = |name: &str, help: &str| {
            registered(registry, IntGauge::new(format!("prometheus_tsdb_{name}"), help))
        };
        let by_type = |name: &str, help: &str| {
            let vec: IntCounterVec =
                registered(registry, IntCounterVec::new(Opts::new(name, help), &["type"]))?;
            for kind in [SampleKind::Float, SampleKind::Histogram] {
                vec.with_label_values(&[kind.as_str()]);
            }
            Ok::<_, prometheus::Error>(vec)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(format!("prometheus_tsdb_{name}"), help).buckets(buckets.to_vec());
            registered(registry, Histogram::with_opts(opts))
        };
        Ok(Self {
            series: gauge("head_series", "Total number of series in the head.")?,
            chunks: gauge("head_chunks", "Total number of closed chunks in the head.")?,
            samples_appended: by_type(
                "prometheus_tsdb_head_samples_appended_total",
                "Total number of appended samples.",
            )?,
            out_of_order_appended: by_type(
                "prometheus_tsdb_head_out_of_order_samples_appended_total",
                "Total number of appended out-of-order samples.",
            )?,
            series_created: counter(
                "head_series_created_total",
                "Total number of series created in the head.",
            )?,
            series_removed: counter(
                "head_series_removed_total",
                "Total number of series removed from the head.",
            )?,
            active_appenders: gauge("head_active_appenders", "Number of open append transactions.")?,
            min_time: gauge("head_min_time", "Minimum time of the head, in milliseconds.")?,
            max_time: gauge("head_max_time", "Maximum time of the head, in milliseconds.")?,
            lowest_timestamp: gauge("lowest_timestamp", "Lowest timestamp stored, in milliseconds.")?,
            symbol_table_bytes: gauge(
                "symbol_table_size_bytes",
                "Size of label names and values in memory.",
            )?,
            wal_segment_current: gauge("wal_segment_current", "Log segment that is being written.")?,
            wal_storage_bytes: gauge("wal_storage_size_bytes", "Size of the write-ahead log.")?,
            wal_corruptions: counter("wal_corruptions_total", "Total number of damages found in the log.")?,
            wal_torn_tails: own(
                "wal_torn_tails_total",
                "Total number of unfinished records cut off the end of the log at start.",
            )?,
            wal_replay_lost: own(
                "wal_replay_lost_entries_total",
                "Total number of log entries at start that named a series or layout lost to damage.",
            )?,
            wal_writes_failed: counter(
                "wal_writes_failed_total",
                "Total number of failed writes to the log.",
            )?,
            wal_syncs_failed: own("wal_syncs_failed_total", "Total number of failed syncs of the log.")?,
            wal_truncations_failed: counter(
                "wal_truncations_failed_total",
                "Total number of covered log segments that could not be removed.",
            )?,
            wal_fsync_duration: histogram(
                "wal_fsync_duration_seconds",
                "Duration of syncs of the log.",
                &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0],
            )?,
            checkpoints: counter("checkpoint_creations_total", "Total number of checkpoints begun.")?,
            checkpoints_failed: counter(
                "checkpoint_creations_failed_total",
                "Total number of checkpoints that failed.",
            )?,
            gc_duration: histogram(
                "head_gc_duration_seconds",
                "Duration of dropping old chunks and series.",
                &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0],
            )?,
            clean_start: gauge(
                "clean_start",
                "-1: lock file is disabled. 0: the lock file was left behind. 1: the last stop was clean.",
            )?,
            retention_seconds: registered(
                registry,
                Gauge::new(
                    "prometheus_tsdb_retention_limit_seconds",
                    "How long to retain samples, in seconds.",
                ),
            )?,
            time_retentions: counter(
                "time_retentions_total",
                "Number of times that samples were dropped because of their age.",
            )?,
            exemplars_appended: counter(
                "exemplar_exemplars_appended_total",
                "Total number of appended exemplars.",
            )?,
            exemplars_refused: counter(
                "exemplar_out_of_order_exemplars_total",
                "Total number of exemplars refused as out of order or too long.",
            )?,
            exemplars_stored: gauge("exemplar_exemplars_in_storage", "Number of exemplars stored.")?,
            exemplars_max: gauge("exemplar_max_exemplars", "Most exemplars that are stored.")?,
            out_of_order: by_type(
                "prometheus_tsdb_out_of_order_samples_total",
                "Total number of out of order samples refused.",
            )?,
            too_old: by_type(
                "prometheus_tsdb_too_old_samples_total",
                "Total number of samples refused as older than the out-of-order window.",
            )?,
            out_of_bounds: by_type(
                "prometheus_tsdb_out_of_bound_samples_total",
                "Total number of samples refused as out of bounds.",
            )?,
            duplicates: by_type(
                "nilometer_tsdb_duplicate_samples_total",
                "Total number of samples refused because the series has another value at their time.",
            )?,
            refused_otherwise: by_type(
                "nilometer_tsdb_invalid_samples_total",
                "Total number of samples refused for other reasons (labels, limits, invalid histograms).",
            )?,
        })
    }

    /// Counts a refused sample.
    pub(crate) fn refused(&self, why: AppendError, kind: SampleKind) {
        let counter = match why {
            AppendError::OutOfOrder => &self.out_of_order,
            AppendError::TooOld => &self.too_old,
            AppendError::OutOfBounds => &self.out_of_bounds,
            AppendError::Duplicate => &self.duplicates,
            _ => &self.refused_otherwise,
        };
        counter.with_label_values(&[kind.as_str()]).inc();
    }
}
