//! Counters beside the operators of a running query. They exist only when a query is analysed: otherwise an operator
//! costs one look at an `Option` when it is built, and nothing when it is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::storage::SeriesColumns;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Measured;
use crate::exec::column::Column;
use crate::exec::error::QueryError;
use crate::exec::selector::{RangeSource, RangeStream};
use crate::exec::state::{Scratch, State};
use crate::exec::stream::{Source, Stream};
use crate::plan::{RangePlan, ScalarPlan, VectorPlan};

/// An operator of the plan under evaluation, by where it stands: plans do not move while they are evaluated. Kinds are
/// kept apart since a part may stand at the address of its whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Vector(usize),
    Range(usize),
    Scalar(usize),
}

impl Key {
    pub(crate) fn vector(plan: &VectorPlan) -> Self {
        Self::Vector(std::ptr::from_ref(plan).addr())
    }

    pub(crate) fn range(plan: &RangePlan) -> Self {
        Self::Range(std::ptr::from_ref(plan).addr())
    }

    pub(crate) fn scalar(plan: &ScalarPlan) -> Self {
        Self::Scalar(std::ptr::from_ref(plan).addr())
    }
}

#[derive(Debug, Default)]
struct Counters {
    series: AtomicU64,
    reads: AtomicU64,
    samples: AtomicU64,
    nanos: AtomicU64,
    bytes: AtomicU64,
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

fn nanos_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What the operators of a query took.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    operators: Mutex<HashMap<Key, Arc<Counters>>>,
}

impl Profile {
    fn of(&self, key: Key) -> Arc<Counters> {
        Arc::clone(self.operators.lock().entry(key).or_default())
    }

    /// Builds an operator, counting.
    fn build<'q, T>(
        &self,
        state: &State<'q>,
        key: Key,
        build: impl FnOnce() -> Result<T, QueryError>,
    ) -> Result<(T, Arc<Counters>), QueryError> {
        let counters = self.of(key);
        let before = state.limits.bytes();
        let began = Instant::now();
        let built = build();
        add(&counters.nanos, nanos_since(began));
        add(&counters.bytes, state.limits.bytes().saturating_sub(before));
        Ok((built?, counters))
    }

    /// Builds a stream that counts what is read from it.
    pub(crate) fn vector<'q>(
        &self,
        state: &'q State<'q>,
        plan: &VectorPlan,
        build: impl FnOnce() -> Result<Stream<'q>, QueryError>,
    ) -> Result<Stream<'q>, QueryError> {
        let (stream, counters) = self.build(state, Key::vector(plan), build)?;
        add(&counters.series, stream.heads.len() as u64);
        let Stream { steps, heads, source } = stream;
        Ok(Stream { steps, heads, source: Box::new(Counted { inner: source, counters }) })
    }

    /// The same of windows of samples.
    pub(crate) fn range<'q>(
        &self,
        state: &'q State<'q>,
        plan: &RangePlan,
        build: impl FnOnce() -> Result<RangeStream<'q>, QueryError>,
    ) -> Result<RangeStream<'q>, QueryError> {
        let (stream, counters) = self.build(state, Key::range(plan), build)?;
        add(&counters.series, stream.heads.len() as u64);
        let RangeStream { heads, source } = stream;
        Ok(RangeStream { heads, source: Box::new(CountedRange { inner: source, counters }) })
    }

    /// Evaluates a scalar, counting.
    pub(crate) fn scalar<T>(
        &self,
        state: &State<'_>,
        plan: &ScalarPlan,
        evaluate: impl FnOnce() -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        Ok(self.build(state, Key::scalar(plan), evaluate)?.0)
    }

    /// What an operator took; `None` when it was never reached.
    pub(super) fn measured(&self, key: Key) -> Option<Measured> {
        let operators = self.operators.lock();
        let counters = operators.get(&key)?;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(Measured {
            series: of(&counters.series),
            reads: of(&counters.reads),
            samples: of(&counters.samples),
            nanos: of(&counters.nanos),
            own_nanos: of(&counters.nanos),
            memory_bytes: of(&counters.bytes),
        })
    }
}

struct Counted<'q> {
    inner: Box<dyn Source + 'q>,
    counters: Arc<Counters>,
}

impl Source for Counted<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        let began = Instant::now();
        let outcome = self.inner.read(index, into, scratch);
        add(&self.counters.nanos, nanos_since(began));
        add(&self.counters.reads, 1);
        outcome?;
        add(&self.counters.samples, (into.float_count() + into.histograms().len()) as u64);
        Ok(())
    }
}

struct CountedRange<'q> {
    inner: Box<dyn RangeSource + 'q>,
    counters: Arc<Counters>,
}

impl RangeSource for CountedRange<'_> {
    fn read(&self, index: usize, into: &mut SeriesColumns, scratch: &mut Scratch) -> Result<(), QueryError> {
        let began = Instant::now();
        let outcome = self.inner.read(index, into, scratch);
        add(&self.counters.nanos, nanos_since(began));
        add(&self.counters.reads, 1);
        outcome?;
        add(&self.counters.samples, (into.float_times.len() + into.histogram_times.len()) as u64);
        Ok(())
    }
}
