//! The store as the outside sees it: opening, the traits of `model`, closing. What keeps it tidy is in [`crate::maintain`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use model::Clock;
use model::exemplar::Exemplar;
use model::labels::Labels;
use model::matcher::Matcher;
use model::metadata::Metadata;
use model::sample::{TimeRange, Timestamp};
use model::storage::{
    Append, AppendOptions, Appender, BlockInfo, ExemplarQueryable, HeadStats, Querier, Queryable,
    ReplayProgress, SeriesRef, StorageAdmin, StorageError,
};
use parking_lot::Mutex;

use crate::appender::Transaction;
use crate::cache::BlockCache;
use crate::commit::Committer;
use crate::compact::Compaction;
use crate::compact::rules::{Floors, Retention};
use crate::compact::set::BlockSet;
use crate::fs::{FileSystem, LockFile};
use crate::head::{Head, HeadOptions};
use crate::head_chunks::HeadFiles;
use crate::maintain::Upkeep;
use crate::metrics::Metrics;
use crate::options::DbOptions;
use crate::querier::HeadQuerier;
use crate::recover;
use crate::select::StoreQuerier;
use crate::wal::{Wal, WalOptions, io_error};

/// Start-up takes its progress from here when the store is not there yet.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<ReplayProgress>,
}

impl Progress {
    /// How far it has come.
    pub fn get(&self) -> ReplayProgress {
        *self.state.lock()
    }

    pub(crate) fn set(&self, progress: ReplayProgress) {
        *self.state.lock() = progress;
    }
}

/// What transactions and queries hold on to.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) head: Head,
    pub(crate) committer: Committer,
}

/// A store. See the crate's document for what it promises.
#[derive(Debug)]
pub struct Db {
    pub(crate) shared: Arc<Shared>,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: DbOptions,
    pub(crate) wal_dir: PathBuf,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) upkeep: Mutex<Upkeep>,
    pub(crate) blocks: BlockSet,
    pub(crate) compaction: Compaction,
    /// What rules of retention hide, as of the last compaction; `None`: there are no rules.
    pub(crate) floors: ArcSwapOption<Floors>,
    /// What `options` said at first.
    retention: Mutex<Retention>,
    progress: Arc<Progress>,
    lock: Mutex<Option<Box<dyn LockFile>>>,
}

impl Db {
    /// Opens the store in a directory: takes its lock, loads the checkpoint, replays the log. Blocks until all is in memory.
    ///
    /// A disk that can be read but not written does not keep it from opening: queries are answered, and commits fail until
    /// there is space.
    ///
    /// # Errors
    /// When another process has the directory (the message says which), a file has an unknown version, the system fails,
    /// or metrics of a store are registered already.
    pub fn open(
        options: DbOptions,
        registry: &prometheus::Registry,
        fs: Arc<dyn FileSystem>,
    ) -> Result<Arc<Self>, StorageError> {
        Self::open_with_progress(options, registry, fs, Arc::default())
    }

    /// As [`Db::open`], with start-up to be watched from another thread.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_with_progress(
        options: DbOptions,
        registry: &prometheus::Registry,
        fs: Arc<dyn FileSystem>,
        progress: Arc<Progress>,
    ) -> Result<Arc<Self>, StorageError> {
        let metrics = Metrics::register(registry)
            .map_err(|error| StorageError::BadRequest(format!("metrics of the store: {error}")))?;
        let metrics = Arc::new(metrics);
        let wal_dir = options.dir.join("wal");
        fs.create_dir_all(&wal_dir).map_err(io_error("make data directory", &wal_dir))?;
        let lock = if options.lock {
            let lock = fs.lock(&options.dir.join("lock"));
            Some(lock.map_err(io_error("lock data directory", &options.dir))?)
        } else {
            None
        };
        metrics.clean_start.set(lock.as_ref().map_or(-1, |lock| i64::from(lock.was_clean())));
        metrics.exemplars_max.set(options.exemplars_max as i64);

        let head_options = HeadOptions {
            out_of_order_window_ms: options.out_of_order_window_ms,
            series_max: options.series_max,
            exemplars_max: options.exemplars_max,
        };
        let cache = BlockCache::new(options.block_cache_bytes);
        let blocks =
            BlockSet::open(Arc::clone(&fs), options.dir.clone(), Arc::clone(&cache), Arc::clone(&metrics))?;
        let files = HeadFiles::new(Arc::clone(&fs), &options.dir, cache);
        let head = Head::new(head_options, Arc::clone(&metrics), files);
        let recovered = recover::recover(&fs, &options.dir, &wal_dir, &head, &progress)?;
        let wal_options = WalOptions {
            segment_bytes: options.wal_segment_bytes,
            compress: options.wal_compression,
            sync_commits: options.wal_fsync_interval.is_zero(),
        };
        let wal = Wal::new(
            Arc::clone(&fs),
            Arc::clone(&options.clock),
            Arc::clone(&metrics),
            wal_dir.clone(),
            wal_options,
            recovered.end,
        );
        let committer = Committer::new(wal, options.wal_fsync_interval.is_zero());
        let upkeep = Upkeep::new(recovered.checkpoint_bytes, recovered.damaged, recovered.truncated_to);
        let retention = Retention {
            time: options.retention,
            size_bytes: options.retention_size_bytes,
            rules: options.retention_rules.clone(),
        };
        let db = Self {
            shared: Arc::new(Shared { head, committer }),
            fs,
            clock: Arc::clone(&options.clock),
            wal_dir,
            metrics,
            upkeep: Mutex::new(upkeep),
            blocks,
            compaction: Compaction::new(),
            floors: ArcSwapOption::empty(),
            retention: Mutex::default(),
            progress,
            lock: Mutex::new(lock),
            options,
        };
        db.remove_unfinished_snapshots();
        db.set_retention(retention);
        Ok(Arc::new(db))
    }

    /// Syncs the log and marks the directory as left in good order. Commits fail from here on; reading goes on.
    ///
    /// # Errors
    /// When the log could not be synced, or the lock file not be written.
    pub fn close(&self) -> Result<(), StorageError> {
        self.compaction.close();
        self.blocks.remove_retired();
        // Under the maintenance lock, so that no checkpoint is being written.
        let _upkeep = self.upkeep.lock();
        let mut wal = self.shared.committer.wal.lock();
        if std::mem::replace(&mut wal.closed, true) {
            return Ok(());
        }
        wal.cut_refused();
        wal.sync();
        let failed = wal.sync_failed;
        drop(wal);
        // Released even when it cannot be marked.
        let lock = self.lock.lock().take();
        if failed {
            let source = std::io::Error::other("the log could not be synced");
            return Err(StorageError::Io { what: "close the store", path: self.wal_dir.clone(), source });
        }
        match lock {
            Some(lock) => lock.mark_clean().map_err(io_error("mark a clean stop", &self.options.dir)),
            None => Ok(()),
        }
    }

    /// Ends the compaction that runs, soon, and lets none begin: for an owner that is about to close the store. Does not wait.
    pub fn stop_compactions(&self) {
        self.compaction.stop();
    }

    /// Changes how long samples are kept and how much of them (a duration changes the time, and no more is said of the
    /// rest), from the next upkeep and compaction on. What is hidden by its age already does not come back when it grows.
    pub fn set_retention(&self, retention: impl Into<Retention>) {
        let retention = retention.into();
        self.metrics.retention_seconds.set(retention.time.as_secs_f64());
        self.metrics.retention_bytes.set(i64::try_from(retention.size_bytes).unwrap_or(i64::MAX));
        *self.retention.lock() = retention;
    }

    pub(crate) fn retention(&self) -> Retention {
        self.retention.lock().clone()
    }

    /// What is known about a metric.
    pub fn metadata(&self, metric: &str) -> Option<Metadata> {
        self.shared.head.metadata.read().get(metric).cloned()
    }

    /// What is known about all metrics, by name.
    pub fn all_metadata(&self) -> Vec<(String, Metadata)> {
        let metadata = self.shared.head.metadata.read();
        let mut all: Vec<_> =
            metadata.iter().map(|(metric, metadata)| (metric.clone(), metadata.clone())).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// The labels of a series in the head, while it is there.
    pub fn series_labels(&self, series: SeriesRef) -> Option<Labels> {
        self.shared.head.catalogue.read().labels(u32::try_from(series.0).ok()?)
    }
}

impl Append for Db {
    fn appender(&self, options: AppendOptions) -> Box<dyn Appender> {
        Box::new(Transaction::new(Arc::clone(&self.shared), options))
    }
}

impl Queryable for Db {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, StorageError> {
        // The head's view first: what becomes a block meanwhile is then in both rather than in neither.
        let head = HeadQuerier::new(Arc::clone(&self.shared), range);
        Ok(Box::new(StoreQuerier::new(head, &self.blocks.current(), self.floors.load_full(), range)))
    }
}

impl ExemplarQueryable for Db {
    fn exemplars(
        &self,
        range: TimeRange,
        selectors: &[Vec<Matcher>],
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, StorageError> {
        let head = &self.shared.head;
        let mut ids: Vec<u32> = {
            let catalogue = head.catalogue.read();
            selectors.iter().flat_map(|matchers| catalogue.select(matchers)).collect()
        };
        ids.sort_unstable();
        ids.dedup();
        let mut found = head.exemplars.lock().select(range, |id| ids.binary_search(&id).is_ok());
        found.sort_by_key(|(id, exemplar)| (*id, exemplar.t));
        let catalogue = head.catalogue.read();
        let mut grouped: Vec<(Labels, Vec<Exemplar>)> = Vec::new();
        let mut last = None;
        for (id, exemplar) in found {
            if last != Some(id) {
                let Some(labels) = catalogue.labels(id) else { continue };
                grouped.push((labels, Vec::new()));
                last = Some(id);
            }
            if let Some(group) = grouped.last_mut() {
                group.1.push(exemplar);
            }
        }
        grouped.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(grouped)
    }
}

impl StorageAdmin for Db {
    fn head_stats(&self, limit: usize) -> HeadStats {
        let head = &self.shared.head;
        let catalogue = head.catalogue.read();
        let stats = catalogue.stats(limit);
        HeadStats {
            series: catalogue.len(),
            label_pairs: stats.pairs,
            chunks: u64::try_from(self.metrics.chunks.get()).unwrap_or(0),
            range: head.range(),
            series_by_metric: stats.by_metric,
            values_by_label: stats.values,
            memory_by_label: stats.bytes,
            series_by_pair: stats.by_pair,
        }
    }

    fn replay_progress(&self) -> ReplayProgress {
        self.progress.get()
    }

    fn time_range(&self) -> Option<TimeRange> {
        let (head, blocks) = (self.shared.head.range(), self.blocks.current().range());
        let both = head.zip(blocks).map(|(a, b)| TimeRange::new(a.min.min(b.min), a.max.max(b.max)));
        both.or(head).or(blocks)
    }

    fn retention_text(&self) -> String {
        let Retention { time, size_bytes, .. } = self.retention();
        let time = duration_text(time.as_millis());
        match size_bytes {
            0 => time,
            bytes if time == "0s" => bytes_text(bytes),
            bytes => format!("{time} or {}", bytes_text(bytes)),
        }
    }

    fn blocks(&self) -> Vec<BlockInfo> {
        self.block_infos()
    }

    fn delete_series(&self, range: TimeRange, selectors: &[Vec<Matcher>]) -> Result<(), StorageError> {
        self.delete(range, selectors)
    }

    fn clean_tombstones(&self) -> Result<(), StorageError> {
        self.clean()
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        self.copy(skip_head)
    }
}

/// As Prometheus writes sizes: `10GiB`, `1GiB512MiB`.
fn bytes_text(mut bytes: u64) -> String {
    let mut text = String::new();
    for (power, unit) in ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().enumerate().rev() {
        let size = 1u64 << (10 * power);
        if bytes >= size {
            text.push_str(&format!("{}{unit}", bytes / size));
            bytes %= size;
        }
    }
    text
}

/// As Prometheus writes durations: `15d`, `1d12h`, `0s`.
fn duration_text(mut millis: u128) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let units: [(&str, u128); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    for (unit, size) in units {
        // Years and weeks only where nothing is left over, so that 15d stays 15d.
        let exact_only = matches!(unit, "y" | "w");
        if millis < size || exact_only && !millis.is_multiple_of(size) {
            continue;
        }
        text.push_str(&format!("{}{unit}", millis / size));
        millis %= size;
    }
    text
}

/// Millis of a duration, saturating.
pub(crate) fn millis(duration: Duration) -> Timestamp {
    Timestamp::try_from(duration.as_millis()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_prometheus() {
        for (millis, text) in [
            (0, "0s"),
            (15 * 86_400_000, "15d"),
            (36 * 3_600_000, "1d12h"),
            (365 * 86_400_000, "1y"),
            (1500, "1s500ms"),
        ] {
            assert_eq!(duration_text(millis), text);
        }
        for (bytes, text) in [(512, "512B"), (10 << 30, "10GiB"), ((3 << 29) + 1, "1GiB512MiB1B")] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
