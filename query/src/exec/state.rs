//! What all operators of one running query share: the view of storage, limits, annotations, statistics, scratch memory.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::storage::{Querier, SeriesColumns};
use tokio::time::Instant;

use super::column::Column;
use super::error::QueryError;
use super::notes::Notes;
use super::steps::Steps;

/// Steps between two looks at the clock within the loops of one series.
pub(crate) const STEPS_PER_CHECK: usize = 256;

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
    pub(crate) series: AtomicU64,
    /// Worker threads to use; 1: none but the caller's.
    pub(crate) threads: usize,
    scratch: Mutex<Vec<Scratch>>,
}

impl<'q> State<'q> {
    pub(crate) fn new(
        querier: &'q dyn Querier,
        lookback_ms: i64,
        features: EvalFeatures,
        limits: Limits,
        samples: SampleCounter,
        threads: usize,
    ) -> Self {
        Self {
            querier,
            lookback_ms,
            features,
            notes: Notes::default(),
            limits,
            samples,
            series: AtomicU64::new(0),
            threads,
            scratch: Mutex::new(Vec::new()),
        }
    }

    /// Borrows scratch memory for the duration of `f`.
    pub(crate) fn with_scratch<T>(&self, f: impl FnOnce(&mut Scratch) -> T) -> T {
        let taken = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = taken.unwrap_or_default();
        let out = f(&mut scratch);
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        out
    }
}

/// When a query has to stop.
#[derive(Debug)]
pub(crate) struct Limits {
    cancel: Option<Arc<AtomicBool>>,
    deadline: Option<Instant>,
    samples_max: i64,
    /// Samples held in memory now.
    held: AtomicI64,
    peak: AtomicI64,
}

impl Limits {
    pub(crate) fn new(cancel: Option<Arc<AtomicBool>>, deadline: Option<Instant>, samples_max: u64) -> Self {
        Self {
            cancel,
            deadline,
            samples_max: i64::try_from(samples_max).unwrap_or(i64::MAX),
            held: AtomicI64::new(0),
            peak: AtomicI64::new(0),
        }
    }

    /// Fails once the query was cancelled or its time is up.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        if self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(QueryError::canceled());
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(QueryError::timeout());
        }
        Ok(())
    }

    /// [`Limits::check`] every so many steps.
    pub(crate) fn check_at(&self, step: usize) -> Result<(), QueryError> {
        if step % STEPS_PER_CHECK == STEPS_PER_CHECK - 1 { self.check() } else { Ok(()) }
    }

    /// Counts samples that are held from now on.
    pub(crate) fn hold(&self, samples: usize) -> Result<(), QueryError> {
        let samples = i64::try_from(samples).unwrap_or(i64::MAX / 2);
        let held = self.held.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        self.peak.fetch_max(held, Ordering::Relaxed);
        if held > self.samples_max { Err(QueryError::too_many_samples()) } else { Ok(()) }
    }

    /// Counts samples that are no longer held.
    pub(crate) fn release(&self, samples: usize) {
        self.held.fetch_sub(i64::try_from(samples).unwrap_or(i64::MAX / 2), Ordering::Relaxed);
    }

    /// Fails when `samples` could never be held.
    pub(crate) fn admit(&self, samples: usize) -> Result<(), QueryError> {
        let fits = i64::try_from(samples).is_ok_and(|samples| samples <= self.samples_max);
        if fits { Ok(()) } else { Err(QueryError::too_many_samples()) }
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed).max(0).unsigned_abs()
    }
}

/// Counts samples looked at, in all and for each step of the outermost evaluation.
#[derive(Debug)]
pub(crate) struct SampleCounter {
    total: AtomicU64,
    /// The steps of the query, with a counter each.
    per_step: Option<(Steps, Vec<AtomicU64>)>,
}

impl SampleCounter {
    pub(crate) fn new(per_step: Option<Steps>) -> Self {
        Self {
            total: AtomicU64::new(0),
            per_step: per_step.map(|steps| (steps, (0..steps.count).map(|_| AtomicU64::new(0)).collect())),
        }
    }

    /// Counts `samples` at each of `steps` that `of_step` has some for. Steps of subqueries count in all only.
    pub(crate) fn add(&self, steps: Steps, total: u64, of_step: impl Fn(usize) -> u64) {
        self.total.fetch_add(total, Ordering::Relaxed);
        if let Some((own, counters)) = &self.per_step
            && *own == steps
        {
            for (step, counter) in counters.iter().enumerate() {
                counter.fetch_add(of_step(step), Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn wants_steps(&self) -> bool {
        self.per_step.is_some()
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
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
}

impl Scratch {
    pub(crate) fn take_column(&mut self) -> Column {
        self.columns.pop().unwrap_or_default()
    }

    pub(crate) fn give_column(&mut self, column: Column) {
        self.columns.push(column);
    }

    pub(crate) fn take_samples(&mut self) -> SeriesColumns {
        self.samples.pop().unwrap_or_default()
    }

    pub(crate) fn give_samples(&mut self, samples: SeriesColumns) {
        self.samples.push(samples);
    }
}
