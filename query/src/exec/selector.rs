//! Instant and range selectors: from stored samples to columns.

use std::sync::Arc;

use model::histogram::CounterResetHint;
use model::storage::{SelectHints, SeriesColumns, SeriesSet, StorageError};
use model::{FloatHistogram, TimeRange, Timestamp, is_stale_nan};

use super::column::Column;
use super::error::QueryError;
use super::labels::label_bytes;
use super::state::{Scratch, State};
use super::steps::Steps;
use super::stream::{Head, Source, Stream};
use crate::plan::{InstantValue, Selector};

/// Series whose labels are asked for together.
const LABELS_AT_ONCE: usize = 1024;

/// Selects series whose samples in `range` matter.
fn select(
    state: &State<'_>,
    selector: &Selector,
    steps: Steps,
    range: TimeRange,
) -> Result<(Arc<dyn SeriesSet>, Vec<Head>), QueryError> {
    if selector.only_labels.is_some() {
        let set = select_set(state, selector, steps, range, selector.only_labels.clone())?;
        let found = heads(state, &*set)?;
        // Types and units go with the name, and then series that differ by these alone must not become one.
        if !found.iter().any(|head| head.labels.has("__type__") || head.labels.has("__unit__")) {
            state.limits.select(set.len())?;
            return Ok((set, found));
        }
    }
    let set = select_set(state, selector, steps, range, None)?;
    state.limits.select(set.len())?;
    let found = heads(state, &*set)?;
    Ok((set, found))
}

fn select_set(
    state: &State<'_>,
    selector: &Selector,
    steps: Steps,
    range: TimeRange,
    only_labels: Option<Vec<String>>,
) -> Result<Arc<dyn SeriesSet>, QueryError> {
    if let Some(set) = selector.shared.and_then(|id| state.kept.set(id, range)) {
        return Ok(set);
    }
    let hints = SelectHints {
        range: Some(range),
        step_ms: if steps.count > 1 { steps.interval } else { 0 },
        window_ms: selector.window_ms,
        func: selector.hints.func.clone(),
        grouping: selector.hints.grouping.clone(),
        grouping_is_by: selector.hints.by,
        only_labels,
        interrupt: Some(state.limits.interrupt()),
        ..SelectHints::default()
    };
    let set: Arc<dyn SeriesSet> = match state.querier.select(&selector.matchers, &hints) {
        Ok(set) => set.into(),
        Err(error) => {
            // Whether it was stopped, or out of time, is known here.
            if matches!(error, StorageError::Cancelled) {
                state.limits.check()?;
            }
            return Err(error.into());
        }
    };
    state.notes.merge_foreign(&set.annotations());
    if let Some(id) = selector.shared {
        state.kept.put_set(id, range, &set);
    }
    Ok(set)
}

fn heads(state: &State<'_>, set: &dyn SeriesSet) -> Result<Vec<Head>, QueryError> {
    let mut heads: Vec<Head> = Vec::with_capacity(set.len());
    state.limits.hold_bytes(set.len().saturating_mul(size_of::<Head>()))?;
    for from in (0..set.len()).step_by(LABELS_AT_ONCE) {
        state.limits.check()?;
        let mut bytes = 0;
        for labels in set.labels_of(from..set.len().min(from + LABELS_AT_ONCE)) {
            // Where few labels matter, neighbours mostly have the same.
            if heads.last().is_none_or(|last| !last.labels.is_same(&labels)) {
                bytes += label_bytes(&labels);
            }
            heads.push(Head::new(labels));
        }
        state.limits.hold_bytes(bytes)?;
    }
    Ok(heads)
}

/// What of a stored series a query sees: no staleness markers in range vectors; histograms without buckets where only
/// count and sum matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistogramView {
    Whole,
    /// Count, sum and schema only, with the hint that comparing whole neighbours gives.
    Stats,
}

fn strip_buckets(samples: &mut SeriesColumns) {
    let mut previous: Option<Arc<FloatHistogram>> = None;
    for histogram in &mut samples.histograms {
        if histogram.is_stale() {
            continue;
        }
        let hint = match (histogram.counter_reset_hint, &previous) {
            (CounterResetHint::Unknown, Some(previous)) if histogram.is_reset_after(previous) => {
                CounterResetHint::CounterReset
            }
            (CounterResetHint::Unknown, Some(_)) => CounterResetHint::NotCounterReset,
            (hint, _) => hint,
        };
        let stats = Arc::new(FloatHistogram {
            counter_reset_hint: hint,
            schema: histogram.schema,
            count: histogram.count,
            sum: histogram.sum,
            custom_values: Arc::clone(&histogram.custom_values),
            ..FloatHistogram::default()
        });
        previous = Some(std::mem::replace(histogram, stats));
    }
}

/// Removes staleness markers, and start timestamps unless they count.
fn clean(samples: &mut SeriesColumns, keep_starts: bool) {
    if !keep_starts {
        samples.float_starts.clear();
        samples.histogram_starts.clear();
    }
    // Without a branch for each value: there is hardly ever one.
    let runs = samples.float_values.chunks(32);
    if runs.into_iter().any(|run| run.iter().fold(false, |any, value| any | is_stale_nan(*value))) {
        let starts = !samples.float_starts.is_empty();
        let mut kept = 0;
        for index in 0..samples.float_values.len() {
            if is_stale_nan(samples.float_values[index]) {
                continue;
            }
            samples.float_times[kept] = samples.float_times[index];
            samples.float_values[kept] = samples.float_values[index];
            if starts {
                samples.float_starts[kept] = samples.float_starts[index];
            }
            kept += 1;
        }
        samples.float_times.truncate(kept);
        samples.float_values.truncate(kept);
        samples.float_starts.truncate(kept);
    }
    if samples.histograms.iter().any(|histogram| histogram.is_stale()) {
        let keep: Vec<bool> = samples.histograms.iter().map(|histogram| !histogram.is_stale()).collect();
        retain_by(&mut samples.histogram_times, &keep);
        retain_by(&mut samples.histogram_starts, &keep);
        retain_by(&mut samples.histograms, &keep);
    }
}

fn retain_by<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut flags = keep.iter();
    items.retain(|_| flags.next().copied().unwrap_or(true));
}

/// The instant selector as a stream: at each step the newest sample that is not older than the lookback delta.
pub(crate) fn instant<'q>(
    state: &'q State<'q>,
    selector: &'q Selector,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    if steps.count == 0 {
        return Ok(Stream::empty(steps));
    }
    let (first, last) = selector.time.span(steps);
    let after = if selector.is_smoothed() { state.lookback_ms } else { 0 };
    let range =
        TimeRange::new(first.saturating_sub(state.lookback_ms).saturating_add(1), last.saturating_add(after));
    let (set, heads) = select(state, selector, steps, range)?;
    Ok(Stream::new(steps, heads, Instant { state, selector, steps, set }))
}

struct Instant<'q> {
    state: &'q State<'q>,
    selector: &'q Selector,
    steps: Steps,
    set: Arc<dyn SeriesSet>,
}

impl Source for Instant<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        into.reset(self.steps.count);
        let mut samples = scratch.take_samples();
        self.set.read(index, &mut samples)?;
        self.state.samples.read(samples.float_times.len() + samples.histogram_times.len());
        if self.selector.histograms == HistogramView::Stats {
            strip_buckets(&mut samples);
        }
        let outcome = if self.selector.is_smoothed() {
            clean(&mut samples, false);
            super::extended::smooth_instant(
                self.state,
                self.selector,
                &self.set.labels(index),
                self.steps,
                &samples,
                into,
            )
        } else {
            self.look_back(&samples, into)
        };
        scratch.give_samples(samples);
        outcome?;
        let size = into.sample_size() as u64;
        self.state.samples.add(self.steps, size, |step| into.size_at(step) as u64);
        Ok(())
    }
}

impl Instant<'_> {
    fn look_back(&self, samples: &SeriesColumns, into: &mut Column) -> Result<(), QueryError> {
        let lookback = self.state.lookback_ms;
        let (mut next_float, mut next_histogram) = (0, 0);
        if self.selector.time.is_fixed() || self.steps.count == 1 {
            // One look for all steps, by bisection.
            let time = self.selector.time.resolve(self.steps.start);
            next_float = samples.float_times.partition_point(|t| *t <= time);
            next_histogram = samples.histogram_times.partition_point(|t| *t <= time);
        }
        let value = self.selector.value;
        for step in 0..self.steps.count {
            self.state.limits.check_at(step)?;
            let time = self.selector.time.resolve(self.steps.at(step));
            while samples.float_times.get(next_float).is_some_and(|t| *t <= time) {
                next_float += 1;
            }
            while samples.histogram_times.get(next_histogram).is_some_and(|t| *t <= time) {
                next_histogram += 1;
            }
            let oldest = time.saturating_sub(lookback);
            let float = next_float.checked_sub(1).map(|index| (samples.float_times[index], index));
            let histogram =
                next_histogram.checked_sub(1).map(|index| (samples.histogram_times[index], index));
            match (float, histogram) {
                (Some((t, index)), other) if t > oldest && other.is_none_or(|(other, _)| other <= t) => {
                    let sample = samples.float_values[index];
                    if !is_stale_nan(sample) {
                        into.set(step, value.of_float(t, sample, || start_of(&samples.float_starts, index)));
                    }
                }
                (_, Some((t, index))) if t > oldest => {
                    let sample = &samples.histograms[index];
                    if sample.is_stale() {
                        continue;
                    }
                    match value {
                        InstantValue::Sample => into.push_histogram(step, Arc::clone(sample)),
                        InstantValue::Time => into.set(step, t as f64 / 1000.0),
                        InstantValue::Start => {
                            into.set(step, start_of(&samples.histogram_starts, index) as f64 / 1000.0);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The start timestamp of sample `index`, 0 when unknown.
fn start_of(starts: &[Timestamp], index: usize) -> Timestamp {
    starts.get(index).copied().unwrap_or(0)
}

impl InstantValue {
    fn of_float(self, t: Timestamp, value: f64, start: impl Fn() -> Timestamp) -> f64 {
        match self {
            Self::Sample => value,
            Self::Time => t as f64 / 1000.0,
            Self::Start => start() as f64 / 1000.0,
        }
    }
}

/// Series of raw samples, as range functions take them.
pub(crate) struct RangeStream<'q> {
    pub(crate) heads: Vec<Head>,
    pub(crate) source: Box<dyn RangeSource + 'q>,
}

/// Gives the samples of one series, staleness markers left out.
pub(crate) trait RangeSource: Send + Sync {
    /// Replaces the content of `into` by the samples of series `index`.
    fn read(&self, index: usize, into: &mut SeriesColumns, scratch: &mut Scratch) -> Result<(), QueryError>;
}

/// The samples that the windows of a range selector may hold.
pub(crate) fn range<'q>(
    state: &'q State<'q>,
    selector: &'q Selector,
    steps: Steps,
) -> Result<RangeStream<'q>, QueryError> {
    let (first, last) = selector.time.span(steps);
    let (before, after) = match selector.extended {
        None => (0, 0),
        Some(crate::ast::ExtendedRange::Anchored) => (state.lookback_ms, 0),
        Some(crate::ast::ExtendedRange::Smoothed) => (state.lookback_ms, state.lookback_ms),
    };
    // Windows are open on the left.
    let range = TimeRange::new(
        first.saturating_sub(selector.window_ms).saturating_sub(before).saturating_add(1),
        last.saturating_add(after),
    );
    if steps.count == 0 {
        return Ok(RangeStream { heads: Vec::new(), source: Box::new(NoSamples) });
    }
    let (set, heads) = select(state, selector, steps, range)?;
    let keep_starts = state.features.use_start_timestamps;
    Ok(RangeStream {
        heads,
        source: Box::new(Stored { state, set, keep_starts, histograms: selector.histograms }),
    })
}

struct NoSamples;

impl RangeSource for NoSamples {
    fn read(&self, _: usize, _: &mut SeriesColumns, _: &mut Scratch) -> Result<(), QueryError> {
        unreachable!("an empty stream has no series to read")
    }
}

struct Stored<'q> {
    state: &'q State<'q>,
    set: Arc<dyn SeriesSet>,
    keep_starts: bool,
    histograms: HistogramView,
}

impl RangeSource for Stored<'_> {
    fn read(&self, index: usize, into: &mut SeriesColumns, _: &mut Scratch) -> Result<(), QueryError> {
        self.set.read(index, into)?;
        self.state.samples.read(into.float_times.len() + into.histogram_times.len());
        if self.histograms == HistogramView::Stats {
            strip_buckets(into);
        }
        clean(into, self.keep_starts);
        Ok(())
    }
}

/// The series of an inner stream as samples: subqueries.
pub(crate) struct Resampled<'q> {
    pub(crate) state: &'q State<'q>,
    pub(crate) inner: Stream<'q>,
}

impl RangeSource for Resampled<'_> {
    fn read(&self, index: usize, into: &mut SeriesColumns, scratch: &mut Scratch) -> Result<(), QueryError> {
        let (steps, limits) = (self.inner.steps, &self.state.limits);
        let mut column = scratch.take_column(limits, steps.count)?;
        self.inner.source.read(index, &mut column, scratch)?;
        into.clear();
        let floats = column.float_count();
        let more = floats.saturating_sub(into.float_times.capacity().min(into.float_values.capacity()));
        scratch.grow(limits, more * (size_of::<Timestamp>() + size_of::<f64>()))?;
        into.float_times.reserve_exact(floats);
        into.float_values.reserve_exact(floats);
        column.for_each_float(|step, value| {
            into.float_times.push(steps.at(step));
            into.float_values.push(value);
        });
        for (step, histogram) in column.histograms() {
            into.histogram_times.push(steps.at(*step as usize));
            into.histograms.push(without_reset_hint(histogram));
        }
        scratch.give_column(column);
        Ok(())
    }
}

/// Resets between the samples of a subquery are not those between stored ones: hints would mislead.
fn without_reset_hint(histogram: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match histogram.counter_reset_hint {
        CounterResetHint::CounterReset | CounterResetHint::NotCounterReset => Arc::new(FloatHistogram {
            counter_reset_hint: CounterResetHint::Unknown,
            ..FloatHistogram::clone(histogram)
        }),
        CounterResetHint::Unknown | CounterResetHint::Gauge => Arc::clone(histogram),
    }
}
