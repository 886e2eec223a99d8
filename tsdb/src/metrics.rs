//! Our own metrics, under Prometheus' names where it has them.

use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

use model::sample::Timestamp;
use model::storage::AppendError;

use crate::cache::CacheStats;

/// All metrics of a store.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) series: IntGauge,
    pub(crate) series_references: IntGauge,
    pub(crate) chunks: IntGauge,
    pub(crate) samples_appended: IntCounterVec,
    pub(crate) out_of_order_appended: IntCounterVec,
    pub(crate) series_created: IntCounter,
    pub(crate) series_removed: IntCounter,
    pub(crate) active_appenders: IntGauge,
    pub(crate) min_time: IntGauge,
    pub(crate) max_time: IntGauge,
    pub(crate) lowest_timestamp: LowestTimestamp,
    pub(crate) block_cache: CacheMetrics,
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
    pub(crate) head_chunks_storage_bytes: IntGauge,
    pub(crate) head_chunks_damaged: IntCounter,
    pub(crate) head_flushes_failed: IntCounter,
    pub(crate) gc_duration: Histogram,
    pub(crate) clean_start: IntGauge,
    pub(crate) retention_seconds: Gauge,
    pub(crate) retention_bytes: IntGauge,
    pub(crate) time_retentions: IntCounter,
    pub(crate) size_retentions: IntCounter,
    pub(crate) head_truncations: IntCounter,
    pub(crate) blocks_loaded: IntGauge,
    pub(crate) blocks_bytes: IntGauge,
    pub(crate) blocks_unreadable: IntGauge,
    pub(crate) reloads: IntCounter,
    pub(crate) reloads_failed: IntCounter,
    pub(crate) compactions: IntCounter,
    pub(crate) compactions_panicked: IntCounter,
    /// Acknowledged, and not seen since: see [`crate::columns::Columns::close_seam`].
    pub(crate) duplicates_dropped: IntCounter,
    pub(crate) compactions_triggered: IntCounter,
    pub(crate) compactions_failed: IntCounter,
    pub(crate) vertical_compactions: IntCounter,
    /// See [`crate::compact`].
    pub(crate) compaction_progress: Gauge,
    pub(crate) compaction_duration: Histogram,
    pub(crate) compaction_chunk_samples: Histogram,
    pub(crate) compaction_chunk_bytes: Histogram,
    pub(crate) compaction_chunk_range: Histogram,
    pub(crate) tombstone_cleanup: Histogram,
    pub(crate) tombstone_cleanups_failed: IntCounter,
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

/// The lowest time in head and blocks.
#[derive(Debug)]
pub(crate) struct LowestTimestamp {
    gauge: IntGauge,
    /// `MAX`: no samples.
    head: AtomicI64,
    blocks: AtomicI64,
}

impl LowestTimestamp {
    pub(crate) fn set_of_head(&self, t: Timestamp) {
        self.head.store(t, Ordering::Relaxed);
        self.show();
    }

    pub(crate) fn set_of_blocks(&self, t: Option<Timestamp>) {
        self.blocks.store(t.unwrap_or(Timestamp::MAX), Ordering::Relaxed);
        self.show();
    }

    fn show(&self) {
        let lowest = self.head.load(Ordering::Relaxed).min(self.blocks.load(Ordering::Relaxed));
        if lowest < Timestamp::MAX {
            self.gauge.set(lowest);
        }
    }
}

/// What the cache of blocks does, as of the last look.
#[derive(Debug)]
pub(crate) struct CacheMetrics {
    hits: IntCounter,
    misses: IntCounter,
    evictions: IntCounter,
    bytes: IntGauge,
}

impl CacheMetrics {
    pub(crate) fn show(&self, stats: CacheStats) {
        for (counter, total) in
            [(&self.hits, stats.hits), (&self.misses, stats.misses), (&self.evictions, stats.evictions)]
        {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.bytes.set(stats.bytes.cast_signed());
    }
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
        let compaction_progress = registered(
            registry,
            Gauge::new(
                "nilometer_tsdb_compaction_progress_ratio",
                "Share of the series of the running compaction that are done; 1 when none runs.",
            ),
        )?;
        compaction_progress.set(1.0);
        Ok(Self {
            series: gauge("head_series", "Total number of series in the head.")?,
            series_references: registered(
                registry,
                IntGauge::new(
                    "nilometer_tsdb_series_references_given",
                    "Number of references that were ever given to series, of the 4294967295 there are.",
                ),
            )?,
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
            lowest_timestamp: LowestTimestamp {
                gauge: gauge("lowest_timestamp", "Lowest timestamp stored, in milliseconds.")?,
                head: AtomicI64::new(Timestamp::MAX),
                blocks: AtomicI64::new(Timestamp::MAX),
            },
            block_cache: CacheMetrics {
                hits: own("block_cache_hits_total", "Total number of reads of blocks from memory.")?,
                misses: own("block_cache_misses_total", "Total number of reads of blocks from files.")?,
                evictions: own(
                    "block_cache_evictions_total",
                    "Total number of parts of blocks that left memory for others.",
                )?,
                bytes: registered(
                    registry,
                    IntGauge::new("nilometer_tsdb_block_cache_bytes", "Bytes of blocks in memory."),
                )?,
            },
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
            head_chunks_storage_bytes: gauge(
                "head_chunks_storage_size_bytes",
                "Size of the head chunk files.",
            )?,
            head_chunks_damaged: counter(
                "mmap_chunk_corruptions_total",
                "Total number of damaged head chunks found.",
            )?,
            head_flushes_failed: own(
                "head_flushes_failed_total",
                "Total number of times that sealed chunks of the head could not be written to files.",
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
            retention_bytes: gauge("retention_limit_bytes", "Most bytes of storage, 0 for no limit.")?,
            time_retentions: counter(
                "time_retentions_total",
                "Number of blocks, and of sweeps of the head, that were dropped because of their age.",
            )?,
            size_retentions: counter(
                "size_retentions_total",
                "Number of blocks that were dropped because of the size limit.",
            )?,
            head_truncations: counter(
                "head_truncations_total",
                "Total number of times that a part of the head had become a block and was let go.",
            )?,
            blocks_loaded: gauge("blocks_loaded", "Number of blocks.")?,
            blocks_bytes: gauge("storage_blocks_bytes", "Bytes of all blocks.")?,
            blocks_unreadable: registered(
                registry,
                IntGauge::new("nilometer_tsdb_blocks_unreadable", "Number of blocks that cannot be opened."),
            )?,
            reloads: counter("reloads_total", "Number of times that the directory was searched for blocks.")?,
            reloads_failed: counter(
                "reloads_failures_total",
                "Number of searches of the directory that failed, or found a block that cannot be opened.",
            )?,
            compactions: counter("compactions_total", "Total number of compactions that were done.")?,
            compactions_panicked: registered(
                registry,
                IntCounter::new(
                    "nilometer_tsdb_compactions_panicked_total",
                    "Total number of compactions that ended with a panic, each a bug.",
                ),
            )?,
            duplicates_dropped: own(
                "compaction_duplicate_samples_dropped_total",
                "Total number of samples that compactions dropped because an older block has another one at their time.",
            )?,
            compactions_triggered: counter(
                "compactions_triggered_total",
                "Total number of compactions that were begun.",
            )?,
            compactions_failed: counter(
                "compactions_failed_total",
                "Total number of compactions that failed.",
            )?,
            vertical_compactions: counter(
                "vertical_compactions_total",
                "Total number of compactions of blocks that overlap.",
            )?,
            compaction_progress,
            compaction_duration: histogram(
                "compaction_duration_seconds",
                "Duration of compactions.",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0],
            )?,
            compaction_chunk_samples: histogram(
                "compaction_chunk_samples",
                "Samples in a chunk of a new block, on average.",
                &[
                    4.0,
                    6.0,
                    9.0,
                    13.5,
                    20.25,
                    30.375,
                    45.5625,
                    68.34375,
                    102.515625,
                    153.7734375,
                    230.66015625,
                    345.990234375,
                    518.9853515625,
                    778.47802734375,
                ],
            )?,
            compaction_chunk_bytes: histogram(
                "compaction_chunk_size_bytes",
                "Bytes of a chunk of a new block with its share of everything else, on average.",
                &[
                    32.0,
                    48.0,
                    72.0,
                    108.0,
                    162.0,
                    243.0,
                    364.5,
                    546.75,
                    820.125,
                    1230.1875,
                    1845.28125,
                    2767.921875,
                ],
            )?,
            compaction_chunk_range: histogram(
                "compaction_chunk_range_seconds",
                "Span of time of a chunk of a new block, on average.",
                &[
                    100.0,
                    400.0,
                    1600.0,
                    6400.0,
                    25_600.0,
                    102_400.0,
                    409_600.0,
                    1_638_400.0,
                    6_553_600.0,
                    26_214_400.0,
                ],
            )?,
            tombstone_cleanup: histogram(
                "tombstone_cleanup_seconds",
                "Duration of carrying out deletions when asked to.",
                &[0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0],
            )?,
            tombstone_cleanups_failed: own(
                "tombstone_cleanups_failed_total",
                "Total number of times that deletions could not be carried out when asked to.",
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

    /// How many out-of-order samples there have been.
    pub(crate) fn out_of_order_samples_appended(&self) -> u64 {
        let of = |kind: SampleKind| self.out_of_order_appended.with_label_values(&[kind.as_str()]).get();
        of(SampleKind::Float) + of(SampleKind::Histogram)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Who looks after a store finds all metrics of our own in the document, and none that is not there.
    #[test]
    fn the_document_names_all_of_our_own() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        let families = registry.gather();
        let own = families.iter().map(|family| family.name()).filter(|name| name.starts_with("nilometer_"));
        let own: BTreeSet<&str> = own.collect();
        let document = include_str!("../../docs/stored-data.md");
        let rows = document.lines().filter(|line| line.starts_with("| `nilometer_"));
        let names = rows.filter_map(|line| line.split('|').nth(1)).flat_map(|cell| cell.split(", "));
        let named: Vec<&str> = names.map(|name| name.trim().trim_matches('`')).collect();
        let listed: BTreeSet<&str> =
            named.iter().copied().filter(|name| name.starts_with("nilometer_tsdb_")).collect();
        assert_eq!(listed, own);
        assert_eq!(named.len(), listed.len(), "each once");
    }
}
