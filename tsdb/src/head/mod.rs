//! The head: all series and samples in memory.
//!
//! Samples reach a series by two roads. A *layout* (a scrape target, a rule) appends rows into a [`history`] shared by its
//! series; everything else is appended series by series into an open column. In-order times ascend strictly per series
//! over both roads. Out-of-order samples have buffers of their own and are merged when read.
//!
//! # Locks
//! In this order, any of them may be skipped: the state of compaction ([`crate::compact`]), upkeep ([`crate::maintain`]), the
//! trim ([`Head::trim`]), the commit lock ([`crate::commit`]), the list of histories, a layout's state, the catalogue, the series
//! table, a page of series, a history. Those of the views, of exemplars, of metadata and of what is to be flushed or dropped
//! come last, and nothing is locked within them. Readers hold a page or a history only while they copy compressed bytes.

pub(crate) mod compaction;
pub(crate) mod flush;
mod hints;
pub(crate) mod history;
pub(crate) mod late;
pub(crate) mod layout;
pub(crate) mod read;
pub(crate) mod sealed;
pub(crate) mod series;
pub(crate) mod table;
pub(crate) mod validate;
pub(crate) mod view;
pub(crate) mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use model::labels::Labels;
use model::metadata::Metadata;
use model::sample::{TimeRange, Timestamp};
use model::storage::{AppendError, AppendOptions};
use parking_lot::{Mutex, RwLock};

use crate::exemplars::ExemplarRing;
use crate::head_chunks::{FilePosition, HeadFiles};
use crate::index::Catalogue;
use crate::metrics::Metrics;
use compaction::OutOfOrderMark;
use history::History;
use layout::{Layout, LayoutState};
use sealed::SealedWindow;
use series::Series;
use table::SeriesTable;
use validate::Limits;
use view::Views;

/// How far behind the newest sample of the store in-order samples may be: half of a block's two hours, as in Prometheus.
const IN_ORDER_SPAN_MS: i64 = 60 * 60 * 1000;
/// Most metrics that metadata are kept of.
const METADATA_MAX: usize = 100_000;

/// Bounds of the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadOptions {
    pub(crate) out_of_order_window_ms: i64,
    /// 0: no bound.
    pub(crate) series_max: u64,
    pub(crate) exemplars_max: usize,
}

/// All that is in memory.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) catalogue: RwLock<Catalogue>,
    /// As many as the catalogue has, to be read without waiting for whoever adds series: see [`Head::count_series`].
    series: AtomicUsize,
    pub(crate) table: SeriesTable,
    pub(crate) layouts: RwLock<HashMap<u64, Arc<Layout>>>,
    pub(crate) next_layout: AtomicU64,
    pub(crate) views: Arc<Views>,
    /// Open transactions: series are not taken from under them.
    pub(crate) writers: Arc<Views>,
    pub(crate) exemplars: Mutex<ExemplarRing>,
    pub(crate) metadata: RwLock<HashMap<String, Metadata>>,
    pub(crate) metrics: Arc<Metrics>,
    options: HeadOptions,
    /// `MAX` and `MIN` while there is no sample.
    min_time: AtomicI64,
    max_time: AtomicI64,
    /// The earliest sample since the last trim began: see [`Head::trim`].
    min_time_since_trim: AtomicI64,
    /// One trim at a time.
    trimming: Mutex<()>,
    /// Whether the log was not told what is in blocks: see [`compaction`].
    bounds_untold: AtomicBool,
    /// As `min_time`, of in-order samples.
    in_order_min_time: AtomicI64,
    /// What is older is out of order: see [`compaction`].
    in_order_from: AtomicI64,
    /// Out-of-order samples of commits up to this one are in blocks.
    late_through: AtomicU64,
    /// Histories by the id that they began with; none without rows or a layout.
    pub(crate) histories: Mutex<HashMap<u64, Arc<History>>>,
    /// Files of sealed chunks.
    pub(crate) files: HeadFiles,
    /// Sealed windows that are not in a file yet.
    pub(crate) unflushed_windows: Mutex<Vec<(Arc<History>, Arc<SealedWindow>)>>,
    /// Series that may have chunks that are not in a file yet.
    pub(crate) unflushed_series: Mutex<Vec<u32>>,
    /// Out-of-order samples that are in blocks, to be dropped when all views opened before a stamp are closed.
    late_drops: Mutex<Vec<(u64, OutOfOrderMark)>>,
}

impl Head {
    pub(crate) fn new(options: HeadOptions, metrics: Arc<Metrics>, files: HeadFiles) -> Self {
        Self {
            catalogue: RwLock::default(),
            series: AtomicUsize::new(0),
            table: SeriesTable::default(),
            layouts: RwLock::default(),
            next_layout: AtomicU64::new(1),
            views: Arc::default(),
            writers: Arc::default(),
            exemplars: Mutex::new(ExemplarRing::new(options.exemplars_max)),
            metadata: RwLock::default(),
            metrics,
            options,
            min_time: AtomicI64::new(Timestamp::MAX),
            max_time: AtomicI64::new(Timestamp::MIN),
            min_time_since_trim: AtomicI64::new(Timestamp::MAX),
            trimming: Mutex::default(),
            bounds_untold: AtomicBool::new(false),
            in_order_min_time: AtomicI64::new(Timestamp::MAX),
            in_order_from: AtomicI64::new(Timestamp::MIN),
            late_through: AtomicU64::new(0),
            histories: Mutex::default(),
            files,
            unflushed_windows: Mutex::default(),
            unflushed_series: Mutex::default(),
            late_drops: Mutex::default(),
        }
    }

    /// From the first to the last sample; `None` when there is none.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        let range =
            TimeRange::new(self.min_time.load(Ordering::Acquire), self.max_time.load(Ordering::Acquire));
        (range.min <= range.max).then_some(range)
    }

    /// Widens the range of the head.
    pub(crate) fn saw(&self, min: Timestamp, max: Timestamp) {
        // In this order: see `set_min_time`.
        self.min_time_since_trim.fetch_min(min, Ordering::AcqRel);
        let min = self.min_time.fetch_min(min, Ordering::AcqRel).min(min);
        let max = self.max_time.fetch_max(max, Ordering::AcqRel).max(max);
        self.metrics.min_time.set(min);
        self.metrics.lowest_timestamp.set_of_head(min);
        self.metrics.max_time.set(max);
    }

    /// Takes note of an in-order sample.
    pub(crate) fn saw_in_order(&self, t: Timestamp) {
        self.in_order_min_time.fetch_min(t, Ordering::AcqRel);
    }

    /// Narrows the range of the head from below, after samples were dropped; not above those of commits since the trim began.
    fn set_min_time(&self, min: Timestamp) {
        // A swap, to see what a commit did that lowered the old value; one that comes behind lowers the new one.
        self.min_time.swap(min, Ordering::AcqRel);
        let since = self.min_time_since_trim.load(Ordering::Acquire);
        let min = self.min_time.fetch_min(since, Ordering::AcqRel).min(since);
        self.metrics.min_time.set(min);
        self.metrics.lowest_timestamp.set_of_head(min);
    }

    #[cfg(test)]
    pub(crate) fn is_trimming(&self) -> bool {
        self.trimming.is_locked()
    }

    /// What a transaction may append now.
    pub(crate) fn limits(&self, options: &AppendOptions) -> Limits {
        let newest = self.max_time.load(Ordering::Acquire);
        let window = self.options.out_of_order_window_ms;
        let in_order_from = self.in_order_from();
        Limits {
            max_time: options.max_time.unwrap_or(Timestamp::MAX),
            min_valid: newest.saturating_sub(IN_ORDER_SPAN_MS).max(in_order_from),
            in_order_from,
            out_of_order_from: (window > 0).then(|| newest.saturating_sub(window)),
            reject_out_of_order: options.reject_out_of_order,
            files_from: FilePosition::START,
        }
    }

    /// The series with these labels, made if need be; whether it is new. `pin` keeps it from the collector.
    pub(crate) fn series(&self, labels: &Labels, pin: bool) -> Result<(u32, bool), AppendError> {
        let hold = |id: u32| {
            self.table.with_mut(id, |series| {
                series.touch();
                if pin {
                    series.pin();
                }
            });
        };
        {
            let catalogue = self.catalogue.read();
            if let Some(id) = catalogue.find(labels) {
                // Under the catalogue's lock: the collector unlinks under it.
                if pin {
                    hold(id);
                } else {
                    self.table.with(id, Series::touch);
                }
                return Ok((id, false));
            }
        }
        check_labels(labels)?;
        let mut catalogue = self.catalogue.write();
        if let Some(id) = catalogue.find(labels) {
            hold(id);
            return Ok((id, false));
        }
        if self.options.series_max > 0 && catalogue.len() >= self.options.series_max {
            return Err(AppendError::SeriesLimit);
        }
        // The series exists before a selection can find it: that waits for the catalogue.
        let id = catalogue.add(labels).ok_or(AppendError::SeriesLimit)?;
        self.table.insert(id, Series::default());
        hold(id);
        self.metrics.series_created.inc();
        self.count_series(&catalogue);
        self.metrics.series_references.set(i64::from(catalogue.next_id()));
        Ok((id, true))
    }

    /// Whether the series is there and stays for this transaction.
    pub(crate) fn hold(&self, id: u32) -> bool {
        match self.table.with(id, |series| (series.is_unlinked(), series.is_idle())) {
            Some((false, false)) => true,
            Some((false, true)) => {
                // The collector may be about to take it.
                let _catalogue = self.catalogue.read();
                self.table.with(id, |series| {
                    series.touch();
                    !series.is_unlinked()
                }) == Some(true)
            }
            Some((true, _)) | None => false,
        }
    }

    /// Remembers what a metric is.
    pub(crate) fn set_metadata(&self, metric: &str, metadata: &Metadata) {
        let mut all = self.metadata.write();
        if let Some(known) = all.get_mut(metric) {
            known.clone_from(metadata);
        } else if all.len() < METADATA_MAX {
            all.insert(metric.to_owned(), metadata.clone());
        }
    }

    /// Makes a layout.
    pub(crate) fn open_layout(&self, id: u64) -> Arc<Layout> {
        let history =
            Arc::clone(self.histories.lock().entry(id).or_insert_with(|| Arc::new(History::new(id))));
        history.inner.write().closed = false;
        let layout = Arc::new(Layout::new(id, history));
        self.layouts.write().insert(id, Arc::clone(&layout));
        layout
    }

    /// Changed values for each slot after which windows are closed.
    pub(crate) fn changes_per_slot(&self) -> usize {
        layout::changes_per_slot(self.series.load(Ordering::Relaxed))
    }

    /// Takes note of how many series there are; whoever adds or removes one says so, with the catalogue still locked.
    pub(crate) fn count_series(&self, catalogue: &Catalogue) {
        let series = catalogue.len();
        self.series.store(usize::try_from(series).unwrap_or(usize::MAX), Ordering::Relaxed);
        self.metrics.series.set(series.cast_signed());
    }

    /// Seals a layout's rows. Under the commit lock.
    pub(crate) fn seal(&self, state: &mut LayoutState, watermark: u64) {
        let sealed = state.seal(watermark);
        self.sealed(&state.history, sealed);
    }

    /// Seals the rows that a layout left which is gone.
    pub(crate) fn seal_closed(&self, history: &Arc<History>, watermark: u64) {
        let slots = history.inner.read().current.len();
        let sealed = history.seal(slots, watermark);
        self.sealed(history, sealed);
    }

    fn sealed(&self, history: &Arc<History>, window: Option<Arc<SealedWindow>>) {
        if let Some(window) = window {
            self.add_chunks(window.chunks(), 0);
            self.unflushed_windows.lock().push((Arc::clone(history), window));
        }
    }

    pub(crate) fn layout(&self, id: u64) -> Option<Arc<Layout>> {
        self.layouts.read().get(&id).cloned()
    }

    /// Counts chunks that came or went.
    pub(crate) fn add_chunks(&self, made: usize, dropped: usize) {
        self.metrics.chunks.add(made as i64 - dropped as i64);
    }
}

/// At least one label, names that are there and ascend.
fn check_labels(labels: &Labels) -> Result<(), AppendError> {
    let mut last = "";
    for (name, value) in labels {
        if name <= last || value.is_empty() {
            return Err(AppendError::InvalidLabels);
        }
        last = name;
    }
    if last.is_empty() { Err(AppendError::InvalidLabels) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FaultyFs;
    use crate::{Db, DbOptions};
    use model::storage::{Append, AppendSample};

    /// While a checkpoint is loaded and the log replayed, too: windows that are closed then depend on it.
    #[test]
    fn series_are_counted_from_the_first_on() {
        let mut fs = FaultyFs::new();
        let open = |fs: &FaultyFs| {
            let options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
            Db::open(options, &prometheus::Registry::new(), Arc::new(fs.clone())).unwrap()
        };
        let mut db = open(&fs);
        let mut appender = db.appender(AppendOptions::default());
        for i in 0..300 {
            let labels = Labels::from_pairs([("__name__", format!("m{i}").as_str())]);
            appender.append(None, &labels, AppendSample::float(1, 1.0)).unwrap();
        }
        appender.commit().unwrap();
        for what in ["live", "from the log", "from a checkpoint"] {
            let head = &db.shared.head;
            assert_eq!(head.series.load(Ordering::Relaxed), 300, "{what}");
            assert_eq!(db.metrics.series.get(), 300, "{what}");
            if what == "from the log" {
                db.checkpoint().unwrap();
            }
            fs = fs.after_kill();
            db = open(&fs);
        }
        let head = &db.shared.head;
        assert_eq!(head.changes_per_slot(), *layout::CHANGES_PER_SLOT.end());
        head.series.store(1_000_000, Ordering::Relaxed);
        assert_eq!(head.changes_per_slot(), *layout::CHANGES_PER_SLOT.start());
    }

    /// A series that gets no reference leaves nothing behind, and those that there are go on.
    #[test]
    fn references_run_out() {
        let options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
        let db = Db::open(options, &prometheus::Registry::new(), Arc::new(FaultyFs::new())).unwrap();
        let head = &db.shared.head;
        let labels = |name: &str| Labels::from_pairs([("__name__", name)]);
        let append = |name: &str, t| {
            let mut appender = db.appender(AppendOptions::default());
            let appended = appender.append(None, &labels(name), AppendSample::float(t, 1.0)).map(|_| ());
            appender.commit().unwrap();
            appended
        };
        append("first", 1).unwrap();
        head.catalogue.write().reserve_ids(u32::MAX - 1);
        append("last", 1).unwrap();
        for _ in 0..2 {
            assert_eq!(append("none", 1), Err(AppendError::SeriesLimit));
        }
        assert_eq!((append("first", 2), append("last", 2)), (Ok(()), Ok(())));
        assert!(head.table.with(u32::MAX, |_| ()).is_none(), "nothing is left behind");
        assert!(head.catalogue.read().find(&labels("none")).is_none());
        assert_eq!(head.catalogue.read().len(), 2);
        let created = db.metrics.series_created.get();
        assert_eq!((created, db.metrics.series_references.get()), (2, i64::from(u32::MAX)));
    }
}
