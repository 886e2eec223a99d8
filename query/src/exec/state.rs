//! What all operators of one running query share: the view of storage, limits, annotations, statistics, scratch memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::storage::{Querier, SeriesColumns, SeriesSet};
use model::{TimeRange, Timestamp};

use super::column::{Column, histogram_size};
use super::error::QueryError;
use super::explain::Profile;
use super::limits::{Limits, Progress};
use super::notes::Notes;
use super::range::{WindowKey, WindowTable};
use super::steps::Steps;
use super::stream::Head;

/// Steps between two looks at the clock within the loops of one series.
pub(crate) const STEPS_PER_CHECK: usize = 256;
/// Tables of windows that a thread keeps: for so many targets in turn.
const WINDOW_TABLES_MAX: usize = 16;

/// Language features that change what queries mean. Prometheus' feature flags of the same names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvalFeatures {
    /// `promql-delayed-name-removal`: metric names are dropped at the very end, not by each function.
    pub delayed_name_removal: bool,
    /// `type-and-unit-labels`: `__type__` tells counters.
    pub type_and_unit_labels: bool,
    /// `use-start-timestamps`: start timestamps tell resets and where series begin.
    pub use_start_timestamps: bool,
}

/// Shared state of a running query.
pub(crate) struct State<'q> {
    pub(crate) querier: &'q dyn Querier,
    pub(crate) lookback_ms: i64,
    pub(crate) features: EvalFeatures,
    pub(crate) notes: Notes,
    pub(crate) limits: Limits,
    pub(crate) samples: SampleCounter,
    /// Counters beside operators, when the query is analysed.
    pub(crate) profile: Option<Profile>,
    /// Worker threads to use; 1: none but the caller's.
    pub(crate) threads: usize,
    /// Of expressions and selectors that the query has more than once.
    pub(crate) kept: KeptOnes,
    scratch: Mutex<Vec<Scratch>>,
}

impl<'q> State<'q> {
    pub(crate) fn new(
        querier: &'q dyn Querier,
        lookback_ms: i64,
        features: EvalFeatures,
        limits: Limits,
        samples: SampleCounter,
        profile: Option<Profile>,
        threads: usize,
    ) -> Self {
        Self {
            querier,
            lookback_ms,
            features,
            notes: Notes::default(),
            limits,
            samples,
            profile,
            threads,
            kept: KeptOnes::default(),
            scratch: Mutex::new(Vec::new()),
        }
    }

    /// Borrows scratch memory for the duration of `f`.
    pub(crate) fn with_scratch<T>(&self, f: impl FnOnce(&mut Scratch) -> T) -> T {
        let taken = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = taken.unwrap_or_default();
        let out = f(&mut scratch);
        scratch.settle(&self.limits);
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        out
    }
}

/// What was evaluated for several equal expressions.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) steps: Steps,
    pub(crate) heads: Vec<Head>,
    pub(crate) columns: Vec<Column>,
    /// What each of them looks at.
    pub(crate) samples: CountedSamples,
}

/// The series of a selector, and the range they were selected for.
type SelectedSet = (TimeRange, Arc<dyn SeriesSet>);

/// By the number that equal expressions have in common.
#[derive(Default)]
pub(crate) struct KeptOnes {
    /// Few, as the text of a query has few expressions; uses of other steps, within subqueries, are others.
    vectors: Mutex<Vec<(usize, Arc<Kept>)>>,
    sets: Mutex<HashMap<usize, SelectedSet>>,
}

impl KeptOnes {
    pub(crate) fn get(&self, id: usize, steps: Steps) -> Option<Arc<Kept>> {
        let vectors = self.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let found = vectors.iter().find(|(of, kept)| *of == id && kept.steps == steps);
        found.map(|(_, kept)| Arc::clone(kept))
    }

    pub(crate) fn put(&self, id: usize, kept: Kept) -> Arc<Kept> {
        let kept = Arc::new(kept);
        let mut vectors = self.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        vectors.push((id, Arc::clone(&kept)));
        kept
    }

    /// The series of a selector over a range, if they were put here.
    pub(crate) fn set(&self, id: usize, range: TimeRange) -> Option<Arc<dyn SeriesSet>> {
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.get(&id).filter(|(of, _)| *of == range).map(|(_, set)| Arc::clone(set))
    }

    pub(crate) fn put_set(&self, id: usize, range: TimeRange, set: &Arc<dyn SeriesSet>) {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (range, Arc::clone(set)));
    }
}

/// Samples looked at between two moments.
#[derive(Debug)]
pub(crate) struct CountedSamples {
    total: u64,
    per_step: Vec<u64>,
}

/// Counts samples looked at, in all and for each step of the outermost evaluation.
#[derive(Debug)]
pub(crate) struct SampleCounter {
    progress: Arc<Progress>,
    /// The steps of the query, with a counter each.
    per_step: Option<(Steps, Vec<AtomicU64>)>,
}

impl SampleCounter {
    pub(crate) fn new(progress: Arc<Progress>, per_step: Option<Steps>) -> Self {
        Self {
            progress,
            per_step: per_step.map(|steps| (steps, (0..steps.count).map(|_| AtomicU64::new(0)).collect())),
        }
    }

    /// Counts samples read from storage.
    pub(crate) fn read(&self, samples: usize) {
        self.progress.read.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// Counts samples looked at, at each of `steps` that `of_step` has some for; as often as the steps weigh.
    pub(crate) fn add(&self, steps: Steps, total: u64, of_step: impl Fn(usize) -> u64) {
        if steps.weight == 0 {
            return;
        }
        self.progress.samples.fetch_add(total.saturating_mul(steps.weight), Ordering::Relaxed);
        let Some((own, counters)) = &self.per_step else { return };
        for (step, counter) in counters.iter().enumerate() {
            // What is evaluated once counts at each step; what counts once is evaluated at the query's own steps.
            let samples = if own.count == steps.count { of_step(step) } else { total };
            counter.fetch_add(samples, Ordering::Relaxed);
        }
    }

    /// All that was counted up to now.
    pub(crate) fn mark(&self) -> CountedSamples {
        let steps = self.per_step.iter().flat_map(|(_, counters)| counters);
        CountedSamples {
            total: self.progress.samples.load(Ordering::Relaxed),
            per_step: steps.map(|counter| counter.load(Ordering::Relaxed)).collect(),
        }
    }

    /// What was counted since.
    pub(crate) fn since(&self, mark: CountedSamples) -> CountedSamples {
        let mut now = self.mark();
        now.total = now.total.saturating_sub(mark.total);
        now.per_step.iter_mut().zip(mark.per_step).for_each(|(now, then)| *now = now.saturating_sub(then));
        now
    }

    /// Counts what an equal expression would have looked at.
    pub(crate) fn count_again(&self, counted: &CountedSamples) {
        self.progress.samples.fetch_add(counted.total, Ordering::Relaxed);
        let counters = self.per_step.iter().flat_map(|(_, counters)| counters);
        counters.zip(&counted.per_step).for_each(|(counter, more)| {
            counter.fetch_add(*more, Ordering::Relaxed);
        });
    }

    pub(crate) fn wants_steps(&self) -> bool {
        self.per_step.is_some()
    }

    pub(crate) fn steps(&self) -> Option<Vec<(i64, u64)>> {
        let (steps, counters) = self.per_step.as_ref()?;
        let counted = counters.iter().enumerate();
        Some(counted.map(|(step, counter)| (steps.at(step), counter.load(Ordering::Relaxed))).collect())
    }
}

/// Memory that operators reuse from series to series. One thread at a time has it.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    columns: Vec<Column>,
    samples: Vec<SeriesColumns>,
    windows: Vec<WindowTable>,
    /// Bytes that the query's limits know of.
    counted: usize,
}

impl Scratch {
    /// Bytes of the memory that waits for its next use. (It only grows: what was needed once is needed again.)
    fn bytes(&self) -> usize {
        let samples = self.samples.iter().map(|samples| {
            let times = samples.float_times.capacity() + samples.histogram_times.capacity();
            let starts = samples.float_starts.capacity() + samples.histogram_starts.capacity();
            let histograms: usize = samples.histograms.iter().map(|h| 16 * histogram_size(h)).sum();
            8 * (times + starts + samples.float_values.capacity() + samples.histograms.capacity())
                + histograms
        });
        let windows = self.windows.iter().map(WindowTable::bytes);
        self.columns.iter().map(Column::bytes).chain(samples).chain(windows).sum()
    }

    /// Counts what has grown. What is too much is told by the next look at `limits`.
    pub(crate) fn settle(&mut self, limits: &Limits) {
        let bytes = self.bytes();
        if bytes > self.counted {
            limits.note_bytes(bytes - self.counted);
            self.counted = bytes;
        }
    }

    /// Counts bytes of what is taken from here before they are allocated.
    pub(crate) fn grow(&mut self, limits: &Limits, bytes: usize) -> Result<(), QueryError> {
        self.counted += bytes;
        limits.hold_bytes(bytes)
    }

    /// A column that may be given so many steps: counted before it grows, since one of a subquery may have millions.
    pub(crate) fn take_column(&mut self, limits: &Limits, steps: usize) -> Result<Column, QueryError> {
        let column = self.columns.pop().unwrap_or_default();
        let more = Column::bytes_of(steps).saturating_sub(column.float_bytes());
        if more > 0 {
            self.grow(limits, more)?;
        }
        Ok(column)
    }

    pub(crate) fn give_column(&mut self, column: Column) {
        self.columns.push(column);
    }

    /// The table of `key` and `times`, if it is here, or any other.
    pub(crate) fn take_windows(&mut self, key: WindowKey, times: &[Timestamp]) -> WindowTable {
        // Neighbours in order of labels often belong to several targets in turn.
        match self.windows.iter().rposition(|table| table.may_be(key, times)) {
            Some(index) => self.windows.remove(index),
            None if self.windows.len() < WINDOW_TABLES_MAX => WindowTable::default(),
            None => self.windows.remove(0),
        }
    }

    pub(crate) fn give_windows(&mut self, table: WindowTable) {
        if table.is_small() {
            self.windows.push(table);
        }
    }

    pub(crate) fn take_samples(&mut self) -> SeriesColumns {
        self.samples.pop().unwrap_or_default()
    }

    pub(crate) fn give_samples(&mut self, samples: SeriesColumns) {
        self.samples.push(samples);
    }
}
