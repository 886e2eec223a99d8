//! The traits by which everybody reads and writes series, whatever engine is behind them.
//!
//! Storage hands out series and columns of timestamps and values; how they are encoded stays its own affair. Calls that
//! will grow take structs. All calls are synchronous and may be made from many threads at once.
//!
//! # Reading
//! [`Queryable::querier`] gives a [`Querier`]: a consistent view (whole commits or nothing) of a time range.
//! [`Querier::select`] gives a [`SeriesSet`]: the matching series are known, their samples not yet decoded; each is
//! read on its own, by whatever thread, into reusable [`SeriesColumns`].
//!
//! # Writing
//! [`Append::appender`] starts a transaction. Sources with a stable set of series (a scrape target, a rule) open a
//! *layout*, a list of series with a slot each, and append whole *rows*: one timestamp and a value per slot. Others
//! append sample by sample. Nothing is visible before [`Appender::commit`], and a commit that was acknowledged
//! survives a crash of the process.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::annotations::Annotations;
use crate::exemplar::Exemplar;
use crate::histogram::{FloatHistogram, HistogramFault};
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::metadata::Metadata;
use crate::sample::{SampleValue, TimeRange, Timestamp};

/// Trouble in storage, told apart by who can mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The system failed us (disk full, permission, I/O error): a retry may help.
    #[error("{what}: {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Stored bytes are damaged.
    #[error("{file}: damaged at byte {offset}: {what}", file = file.display())]
    Corrupted {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What was found wrong.
        what: String,
    },
    /// A bound was reached.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// What there was too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The request itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// Not ready: still replaying, or shutting down.
    #[error("storage is not ready: {0}")]
    NotReady(&'static str),
    /// Whoever asked has gone, or time is up.
    #[error("cancelled")]
    Cancelled,
    /// Another engine behind this one failed.
    #[error("{0}")]
    Remote(String),
}

/// Why one sample was refused. Texts are Prometheus'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Older than the newest sample of the series, and no out-of-order window covers it.
    #[error("out of order sample")]
    OutOfOrder,
    /// Outside of the time the store takes samples for.
    #[error("out of bounds")]
    OutOfBounds,
    /// Older than the out-of-order window.
    #[error("too old sample")]
    TooOld,
    /// The series has another value at this very time.
    #[error("duplicate sample for timestamp")]
    Duplicate,
    /// A label set without labels, with an invalid name, or with a repeated one.
    #[error("invalid labels")]
    InvalidLabels,
    /// A histogram that contradicts itself.
    #[error("{0}")]
    InvalidHistogram(HistogramFault),
    /// An exemplar that has no time, or is too long. One that is older than its series' newest is [`AppendError::OutOfOrder`].
    #[error("invalid exemplar")]
    InvalidExemplar,
    /// The reference or layout is not (or no longer) known: resolve the labels again.
    #[error("unknown series reference")]
    UnknownSeries,
    /// A bound on series was reached.
    #[error("too many series")]
    SeriesLimit,
}

/// A series within the head: valid until the store says [`AppendError::UnknownSeries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesRef(pub u64);

/// An append layout: a list of series that are written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayoutRef(pub u64);

/// A place in a layout, counted from 0, never renumbered while the layout lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayoutSlot(pub u32);

/// Gives consistent views of stored series.
pub trait Queryable: Send + Sync {
    /// A view of `range`; holds what it needs alive and unchanged until dropped.
    ///
    /// # Errors
    /// When storage is not ready.
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, StorageError>;
}

/// A consistent view of a span of time.
pub trait Querier: Send + Sync {
    /// The series that all of `matchers` accept and that may have samples in the view's range.
    ///
    /// # Errors
    /// When a bound is reached, data are damaged, or the work was cancelled.
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError>;

    /// Names of labels on series that all of `matchers` accept, sorted.
    ///
    /// # Errors
    /// As [`Querier::select`].
    fn label_names(&self, matchers: &[Matcher], hints: &LabelHints) -> Result<LabelList, StorageError>;

    /// Values of label `name` on series that all of `matchers` accept, sorted.
    ///
    /// # Errors
    /// As [`Querier::select`].
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelHints,
    ) -> Result<LabelList, StorageError>;
}

/// What the reader is going to do, so that storage decodes no more than needed. Hints never change results.
#[derive(Clone, Debug, Default)]
pub struct SelectHints {
    /// The samples that will be looked at; `None` means the view's whole range.
    pub range: Option<TimeRange>,
    /// Distance of evaluation steps in milliseconds, 0 for instant queries.
    pub step_ms: i64,
    /// Length of the range selector in milliseconds, 0 for instant selectors.
    pub window_ms: i64,
    /// The function or aggregation around the selector (`rate`, `sum`), or empty; `series` when only labels matter.
    pub func: String,
    /// Labels of the aggregation around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` keeps (`by`) or drops (`without`) its labels.
    pub grouping_is_by: bool,
    /// The only labels that will be looked at, `None` for all: [`SeriesSet::labels_of`] may leave out others, so that many
    /// series need few label sets.
    pub only_labels: Option<Vec<String>>,
    /// Most series wanted, 0 for all.
    pub limit: usize,
    /// Whether series must come in order of their labels. Otherwise any order that is the same for the same data.
    pub sorted: bool,
    /// Asked now and then whether the selection may go on; `None`: it always may.
    pub interrupt: Option<Interrupt>,
}

/// Says to long work whether it should end: its caller has gone, or time is up. Then it ends with [`StorageError::Cancelled`].
///
/// Asked every few thousand series or values, from any thread, and perhaps from several at once: what it does should be cheap.
#[derive(Clone)]
pub struct Interrupt(Arc<dyn Fn() -> bool + Send + Sync>);

impl Interrupt {
    /// From what says whether work should end. Once it says so it should say so for ever.
    pub fn new(is_due: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_due))
    }

    /// Whether work should end now.
    pub fn is_due(&self) -> bool {
        (self.0)()
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupt")
    }
}

/// Bounds of label look-ups.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelHints {
    /// Most entries wanted, 0 for all.
    pub limit: usize,
}

/// Names or values of labels.
#[derive(Clone, Debug, Default)]
pub struct LabelList {
    /// Sorted, unique.
    pub items: Vec<String>,
    /// Whether `limit` cut the list.
    pub truncated: bool,
    /// Doubts about the list.
    pub annotations: Annotations,
}

/// Selected series. Random access, so that many threads can read different series.
pub trait SeriesSet: Send + Sync {
    /// Number of series.
    fn len(&self) -> usize;

    /// Whether nothing was found.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The labels of series `index`.
    ///
    /// # Panics
    /// When `index >= len()`.
    fn labels(&self, index: usize) -> Labels;

    /// The labels of neighbours; see [`SelectHints::only_labels`].
    ///
    /// # Panics
    /// When the range does not end before `len()`.
    fn labels_of(&self, range: Range<usize>) -> Vec<Labels> {
        range.map(|index| self.labels(index)).collect()
    }

    /// Replaces the content of `into` by the samples of series `index` within the hinted range, in order of time,
    /// staleness markers included.
    ///
    /// # Errors
    /// When data are damaged or the work was cancelled.
    ///
    /// # Panics
    /// When `index >= len()`.
    fn read(&self, index: usize, into: &mut SeriesColumns) -> Result<(), StorageError>;

    /// Doubts about the selection.
    fn annotations(&self) -> Annotations {
        Annotations::new()
    }
}

/// The samples of one series: columns of equal length per kind. Meant to be reused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesColumns {
    /// Times of float samples, ascending.
    pub float_times: Vec<Timestamp>,
    /// Values of float samples.
    pub float_values: Vec<f64>,
    /// Start timestamps of float samples (0: unknown); empty when none is known.
    pub float_starts: Vec<Timestamp>,
    /// Times of histogram samples, ascending.
    pub histogram_times: Vec<Timestamp>,
    /// Histogram samples.
    pub histograms: Vec<Arc<FloatHistogram>>,
    /// Start timestamps of histogram samples (0: unknown); empty when none is known.
    pub histogram_starts: Vec<Timestamp>,
}

impl SeriesColumns {
    /// Empties all columns, keeping their memory.
    pub fn clear(&mut self) {
        self.float_times.clear();
        self.float_values.clear();
        self.float_starts.clear();
        self.histogram_times.clear();
        self.histograms.clear();
        self.histogram_starts.clear();
    }

    /// Number of samples of all kinds.
    pub fn len(&self) -> usize {
        self.float_times.len() + self.histogram_times.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes samples.
pub trait Append: Send + Sync {
    /// Starts a transaction.
    fn appender(&self, options: AppendOptions) -> Box<dyn Appender>;
}

/// How a transaction treats what it is given.
#[derive(Clone, Debug, Default)]
pub struct AppendOptions {
    /// Refuse samples later than this; `None`: no bound.
    pub max_time: Option<Timestamp>,
    /// Refuse out-of-order samples even where a window would take them (rules, scrapes without own timestamps).
    pub reject_out_of_order: bool,
}

/// One transaction. Dropped without [`Appender::commit`], nothing of it stays (series that were introduced may).
pub trait Appender: Send {
    /// Opens an empty layout. It lives until [`Appender::close_layout`], over many transactions.
    fn open_layout(&mut self) -> LayoutRef;

    /// Adds a series to a layout and says its slot.
    ///
    /// # Errors
    /// [`AppendError::InvalidLabels`], [`AppendError::SeriesLimit`], [`AppendError::UnknownSeries`] (no such layout).
    fn extend_layout(&mut self, layout: LayoutRef, labels: &Labels) -> Result<LayoutSlot, AppendError>;

    /// The reference of the series in a slot, to write it by other roads too; `None` where the storage has none to give.
    fn slot_series(&self, layout: LayoutRef, slot: LayoutSlot) -> Option<SeriesRef> {
        let _ = (layout, slot);
        None
    }

    /// Frees a slot: rows must leave it absent from now on. Slots of other series keep their numbers.
    fn retire_slot(&mut self, layout: LayoutRef, slot: LayoutSlot);

    /// Forgets a layout.
    fn close_layout(&mut self, layout: LayoutRef);

    /// Appends one row. Samples that are refused are reported one by one; the others stay.
    fn append_row(&mut self, row: &Row<'_>) -> RowOutcome;

    /// Appends a part of a row: `row.values` are those of the slots from `first` on, one each, and nothing is said of other
    /// slots (where [`Appender::append_row`] says that they have no sample). For senders whose messages cut a layout's
    /// series anywhere; parts of one row may come in several transactions, in order of slots.
    fn append_row_part(&mut self, first: LayoutSlot, row: &Row<'_>) -> RowOutcome;

    /// Appends one sample. `series`, when given, saves the look-up by labels; the answer is the reference to use next time.
    ///
    /// # Errors
    /// Why the sample was refused; the transaction goes on.
    fn append(
        &mut self,
        series: Option<SeriesRef>,
        labels: &Labels,
        sample: AppendSample,
    ) -> Result<SeriesRef, AppendError>;

    /// Appends float samples of known series, which is cheaper than one call for each. Samples of one series are taken in the
    /// order given. Answers which were refused, by their index here, ascending, and why; the others are taken. `stop`: whether
    /// a refusal, but for [`AppendError::UnknownSeries`], makes all the others useless, so that none need be tried after it.
    fn append_floats(&mut self, samples: &[SeriesSample], stop: bool) -> Vec<(usize, AppendError)> {
        let labels = Labels::empty();
        let mut refused = Vec::new();
        for (index, sample) in samples.iter().enumerate() {
            let float = AppendSample::float(sample.t, sample.v);
            if let Err(why) = self.append(Some(sample.series), &labels, float) {
                refused.push((index, why));
                if stop && why != AppendError::UnknownSeries {
                    break;
                }
            }
        }
        refused
    }

    /// Appends an exemplar to a series.
    ///
    /// # Errors
    /// Why it was refused.
    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError>;

    /// Records what a series' metric is.
    ///
    /// # Errors
    /// [`AppendError::UnknownSeries`].
    fn update_metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError>;

    /// Makes all of the transaction durable (against a crash of the process) and visible, or nothing of it.
    ///
    /// # Errors
    /// When the log cannot be written: then nothing of the transaction is visible, now or after a restart.
    fn commit(self: Box<Self>) -> Result<CommitSummary, StorageError>;

    /// Drops the transaction.
    fn rollback(self: Box<Self>);
}

/// One sample to append.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendSample {
    /// When it was taken.
    pub t: Timestamp,
    /// Its value.
    pub value: SampleValue,
    /// Since when the counter counts, if known.
    pub start: Option<Timestamp>,
}

impl AppendSample {
    /// A float sample.
    pub fn float(t: Timestamp, v: f64) -> Self {
        Self { t, value: SampleValue::Float(v), start: None }
    }
}

/// A float sample of a known series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesSample {
    /// The series.
    pub series: SeriesRef,
    /// When it was taken.
    pub t: Timestamp,
    /// Its value.
    pub v: f64,
}

/// Bits of the NaN that marks an absent slot in a [`Row`]; no page and no request can produce it as a value, since
/// parsers normalise NaNs to [`crate::sample::NORMAL_NAN_BITS`] or the staleness marker.
pub const ABSENT_BITS: u64 = 0x7ff0_0000_0000_ab5e;

/// One timestamp and a value for each slot of a layout.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The layout.
    pub layout: LayoutRef,
    /// When all samples of the row were taken.
    pub t: Timestamp,
    /// A value per slot; [`ABSENT_BITS`] where the series has no sample now. Slots beyond the end are absent.
    pub values: &'a [f64],
}

/// What became of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowOutcome {
    /// Number of samples taken.
    pub appended: usize,
    /// Samples that were refused and why.
    pub refused: Vec<(LayoutSlot, AppendError)>,
    /// The whole row was refused (an unknown layout).
    pub error: Option<AppendError>,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSummary {
    /// Samples made durable and visible.
    pub samples: u64,
    /// Series seen for the first time.
    pub series_created: u64,
}

/// Reads exemplars.
pub trait ExemplarQueryable: Send + Sync {
    /// Exemplars within `range` of series accepted by any of the matcher lists, grouped by series, in order of labels
    /// and time.
    ///
    /// # Errors
    /// As [`Querier::select`].
    fn exemplars(
        &self,
        range: TimeRange,
        selectors: &[Vec<Matcher>],
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, StorageError>;
}

/// What operators ask of a store.
pub trait StorageAdmin: Send + Sync {
    /// Numbers about the head, with top lists of `limit` entries.
    fn head_stats(&self, limit: usize) -> HeadStats;

    /// How far start-up has come.
    fn replay_progress(&self) -> ReplayProgress;

    /// First and last stored timestamps, `None` while there is none.
    fn time_range(&self) -> Option<TimeRange>;

    /// How long samples are kept, and the limit in bytes (`15d`, `15d or 10GiB`), for people.
    fn retention_text(&self) -> String;

    /// The blocks on disk, oldest first.
    fn blocks(&self) -> Vec<BlockInfo> {
        Vec::new()
    }

    /// Hides the samples within `range` of series accepted by any of the matcher lists, for good; their space comes back
    /// at a compaction.
    ///
    /// # Errors
    /// When the deletion could not be made durable: then it may hold for a part of the series.
    fn delete_series(&self, range: TimeRange, selectors: &[Vec<Matcher>]) -> Result<(), StorageError> {
        let _ = (range, selectors);
        Err(StorageError::BadRequest("this storage cannot delete".to_owned()))
    }

    /// Frees the space of deleted samples now.
    ///
    /// # Errors
    /// When the system fails; what was rewritten stays so.
    fn clean_tombstones(&self) -> Result<(), StorageError> {
        Err(StorageError::BadRequest("this storage cannot delete".to_owned()))
    }

    /// Makes a copy of all blocks (hard links) and, unless `skip_head`, of the head as a block, in a new directory below
    /// `snapshots`. Answers its name.
    ///
    /// # Errors
    /// When the system fails; nothing is left of the copy then.
    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        let _ = skip_head;
        Err(StorageError::BadRequest("this storage has no snapshots".to_owned()))
    }
}

/// A block on disk, for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockInfo {
    /// Its ULID.
    pub id: String,
    /// Its samples are from `min_time`, inclusive, to `max_time`, exclusive.
    pub min_time: Timestamp,
    /// See `min_time`.
    pub max_time: Timestamp,
    /// Samples of all kinds.
    pub samples: u64,
    /// Float samples among them.
    pub float_samples: u64,
    /// Histogram samples among them.
    pub histogram_samples: u64,
    /// Series.
    pub series: u64,
    /// Chunks.
    pub chunks: u64,
    /// Intervals that are deleted and not yet rewritten.
    pub tombstones: u64,
    /// Bytes of all its files.
    pub size_bytes: u64,
    /// How often its samples were compacted; 1: straight from the head.
    pub level: u32,
    /// The level-1 blocks that it is made of.
    pub sources: Vec<String>,
    /// The blocks that it was made of.
    pub parents: Vec<BlockParent>,
}

/// A block that another was made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockParent {
    /// Its ULID.
    pub id: String,
    /// As [`BlockInfo::min_time`].
    pub min_time: Timestamp,
    /// As [`BlockInfo::max_time`].
    pub max_time: Timestamp,
}

/// The content of `/api/v1/status/tsdb`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadStats {
    /// Series in the head.
    pub series: u64,
    /// Distinct label pairs.
    pub label_pairs: u64,
    /// Chunks in the head.
    pub chunks: u64,
    /// Span of the head; `None` when empty.
    pub range: Option<TimeRange>,
    /// Series per metric name, largest first.
    pub series_by_metric: Vec<(String, u64)>,
    /// Distinct values per label name, largest first.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of values per label name, largest first.
    pub memory_by_label: Vec<(String, u64)>,
    /// Series per `name=value`, largest first.
    pub series_by_pair: Vec<(String, u64)>,
}

/// Segments of the write-ahead log while starting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayProgress {
    /// First segment to read.
    pub min: u64,
    /// Last segment to read.
    pub max: u64,
    /// Segment being read.
    pub current: u64,
    /// Whether replay is over.
    pub done: bool,
}
