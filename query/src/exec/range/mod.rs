//! Functions over windows of samples: `rate`, `*_over_time` and their like.
//!
//! A series is decoded once; its windows then slide over the columns with two pointers, so that the work is linear in
//! samples and steps wherever the function allows (`sliding`, `order`). Windows are open on the left. Where windows
//! overlap little, the sums of Prometheus are computed literally, in its order; the sliding forms agree with them
//! within the last bits.

mod histogram;
mod order;
mod over_time;
mod rate;
mod regression;
mod sliding;
mod windows;

use std::cell::Cell;

use model::Timestamp;
use model::storage::SeriesColumns;

pub(crate) use histogram::{Mean as HistogramMean, SumNotes};
pub(crate) use order::quantile_order;
pub(crate) use rate::{interpolate, is_start_reset};
pub(crate) use windows::{WindowKey, WindowTable};

use super::column::{Column, histogram_size};
use super::error::QueryError;
use super::eval::{ScalarColumn, drop_names};
use super::notes::HistogramOperation;
use super::selector::{RangeSource, RangeStream};
use super::state::{Scratch, State};
use super::steps::{Steps, TimeRef};
use super::stream::{Head, Source, Stream};
use crate::ast::{ExtendedRange, Span};
use crate::plan::{RangeCall, RangeFn};

/// Overlap (window length over distance of steps) from which sliding forms pay.
const SLIDING_OVERLAP_MIN: i64 = 8;
/// Samples in windows between two looks at the clock; even functions that sort each window take some milliseconds.
const SAMPLES_PER_CHECK: usize = 16 << 10;

/// A call as a stream.
pub(crate) fn call<'q>(
    state: &'q State<'q>,
    plan: &'q RangeCall,
    arg: RangeStream<'q>,
    params: Vec<ScalarColumn>,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let RangeStream { heads, source } = arg;
    let names = Names::of(&heads);
    let kinds = if state.features.type_and_unit_labels {
        heads.iter().map(|head| head.labels.value("__type__").to_owned()).collect()
    } else {
        Vec::new()
    };
    let evaluation = Evaluation {
        state,
        function: plan.function,
        window_ms: plan.arg.window_ms(),
        time: plan.arg.time(),
        extended: plan.arg.extended(),
        params,
        span: plan.span,
        steps,
        source,
        names,
        kinds,
    };
    if plan.function.keeps_name() {
        return Ok(Stream::new(steps, heads, evaluation));
    }
    drop_names(state, Stream::new(steps, heads, evaluation), true)
}

/// Whether any sample lies in the window: `absent_over_time` asks for nothing else.
pub(crate) fn presence<'q>(
    state: &'q State<'q>,
    arg: RangeStream<'q>,
    window_ms: i64,
    time: TimeRef,
    steps: Steps,
) -> Stream<'q> {
    let RangeStream { heads, source } = arg;
    let evaluation = Evaluation {
        state,
        function: RangeFn::Present,
        window_ms,
        time,
        extended: None,
        params: Vec::new(),
        span: Span::default(),
        steps,
        source,
        names: Names::One(String::new()),
        kinds: Vec::new(),
    };
    Stream::new(steps, heads, evaluation)
}

pub(crate) struct Evaluation<'q> {
    state: &'q State<'q>,
    function: RangeFn,
    window_ms: i64,
    time: TimeRef,
    extended: Option<ExtendedRange>,
    params: Vec<ScalarColumn>,
    span: Span,
    steps: Steps,
    source: Box<dyn RangeSource + 'q>,
    /// For annotations.
    names: Names,
    /// `__type__` of each series, when it counts.
    kinds: Vec<String>,
}

/// The metric names of series: mostly one for all.
enum Names {
    One(String),
    Each(Vec<String>),
}

impl Names {
    fn of(heads: &[Head]) -> Self {
        let name = |head: &Head| head.labels.metric_name().to_owned();
        match heads {
            [] => Self::One(String::new()),
            [first, rest @ ..] => {
                let one = first.labels.metric_name();
                match rest.iter().all(|head| head.labels.metric_name() == one) {
                    true => Self::One(one.to_owned()),
                    false => Self::Each(heads.iter().map(name).collect()),
                }
            }
        }
    }

    fn get(&self, index: usize) -> &str {
        match self {
            Self::One(name) => name,
            Self::Each(names) => names.get(index).map_or("", String::as_str),
        }
    }
}

impl Source for Evaluation<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        into.reset(self.steps.count);
        let mut samples = scratch.take_samples();
        self.source.read(index, &mut samples, scratch)?;
        let size =
            samples.float_times.len() + samples.histograms.iter().map(|h| histogram_size(h)).sum::<usize>();
        self.state.limits.hold(size)?;
        let key = WindowKey { steps: self.steps, time: self.time, window_ms: self.window_ms };
        let mut table = scratch.take_windows(key, &samples.float_times);
        let plain = self.extended.is_none() && samples.histograms.is_empty();
        let fits = plain && table.fit(self.state, key, &samples.float_times)?;
        let series =
            Series { evaluation: self, samples: &samples, name: self.names.get(index), noted: Cell::new(0) };
        let outcome = series.evaluate(into, fits.then_some(&mut table));
        self.state.limits.release(size);
        outcome?;
        series.count_samples(fits.then_some(&table));
        scratch.give_windows(table);
        if matches!(self.function, RangeFn::Rate | RangeFn::Increase) && into.float_count() > 0 {
            self.doubt_counter(index);
        }
        scratch.give_samples(samples);
        Ok(())
    }
}

impl Evaluation<'_> {
    /// Says so when the metric does not look like a counter.
    fn doubt_counter(&self, index: usize) {
        let name = self.names.get(index);
        if name.is_empty() {
            return;
        }
        if let Some(kind) = self.kinds.get(index) {
            if kind != "counter" && kind != "histogram" {
                self.state.notes.possible_non_counter_type(name, kind, self.span);
            }
        } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
            self.state.notes.possible_non_counter(name, self.span);
        }
    }
}

/// One window: indexes into the columns of floats and histograms, ends excluded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) step: usize,
    /// The window's own ends: `(start, end]`.
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) lo: usize,
    pub(crate) hi: usize,
    pub(crate) histogram_lo: usize,
    pub(crate) histogram_hi: usize,
}

impl Window {
    pub(crate) fn floats(&self) -> usize {
        self.hi - self.lo
    }

    pub(crate) fn histograms(&self) -> usize {
        self.histogram_hi - self.histogram_lo
    }

    fn is_empty(&self) -> bool {
        self.floats() + self.histograms() == 0
    }
}

/// What has been noted about a series: texts are not built anew at each step.
#[derive(Clone, Copy, Debug)]
enum Noted {
    MixedRange = 1,
    IgnoredHistograms = 2,
    InvalidQuantile = 4,
    NotCounter = 8,
    NotGauge = 16,
    MixedSchemas = 32,
    Reconciled = 64,
    Overlap = 128,
    ResetCollision = 256,
    ReconciledAddition = 512,
    ReconciledSubtraction = 1024,
}

/// A series while its windows are evaluated.
pub(crate) struct Series<'a, 'q> {
    evaluation: &'a Evaluation<'q>,
    pub(crate) samples: &'a SeriesColumns,
    name: &'a str,
    noted: Cell<u32>,
}

impl Series<'_, '_> {
    /// Calls `f` for each window that holds samples.
    pub(crate) fn for_windows(
        &self,
        mut f: impl FnMut(&Window) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let (before, after) = match self.evaluation.extended {
            None => (0, 0),
            Some(ExtendedRange::Anchored) => (self.evaluation.state.lookback_ms, 0),
            Some(ExtendedRange::Smoothed) => {
                (self.evaluation.state.lookback_ms, self.evaluation.state.lookback_ms)
            }
        };
        let Evaluation { state, steps, time, window_ms, .. } = *self.evaluation;
        let floats = &self.samples.float_times;
        let histograms = &self.samples.histogram_times;
        let mut window = Window { step: 0, start: 0, end: 0, lo: 0, hi: 0, histogram_lo: 0, histogram_hi: 0 };
        // Some functions look at a whole window at each step: the clock is asked after so many samples, not steps.
        let mut unchecked = 0;
        for step in 0..steps.count {
            if unchecked > SAMPLES_PER_CHECK {
                state.limits.check()?;
                unchecked = 0;
            }
            window.step = step;
            window.end = time.resolve(steps.at(step));
            window.start = window.end.saturating_sub(window_ms);
            let first = window.start.saturating_sub(before);
            let last = window.end.saturating_add(after);
            advance(floats, &mut window.lo, first);
            advance(floats, &mut window.hi, last);
            advance(histograms, &mut window.histogram_lo, first);
            advance(histograms, &mut window.histogram_hi, last);
            // Windows never move back, but one may end before the samples that an earlier bound has passed.
            window.hi = window.hi.max(window.lo);
            window.histogram_hi = window.histogram_hi.max(window.histogram_lo);
            unchecked += 16 + window.floats() + window.histograms();
            if !window.is_empty() {
                f(&window)?;
            }
        }
        Ok(())
    }

    /// Whether windows overlap so much that sliding forms pay.
    fn slides(&self) -> bool {
        let Evaluation { steps, window_ms, .. } = *self.evaluation;
        steps.count > 1
            && window_ms / steps.interval >= SLIDING_OVERLAP_MIN
            && !self.evaluation.time.is_fixed()
    }

    /// `table`: the windows, where they are known.
    fn evaluate(&self, into: &mut Column, table: Option<&mut WindowTable>) -> Result<(), QueryError> {
        let counts_events = matches!(self.evaluation.function, RangeFn::Changes | RangeFn::Resets);
        if let Some(modifier) = self.evaluation.extended.filter(|_| !counts_events) {
            return super::extended::evaluate(self, modifier, into);
        }
        match self.evaluation.function {
            RangeFn::Rate | RangeFn::Increase | RangeFn::Delta => match table {
                Some(table) if self.samples.float_starts.is_empty() => self.rate_of_table(table, into),
                _ => self.rate(into),
            },
            RangeFn::Irate | RangeFn::Idelta => self.instant_rate(into),
            RangeFn::Avg | RangeFn::Sum => self.sum_or_avg(into),
            RangeFn::Stddev | RangeFn::Stdvar => self.variance(into),
            RangeFn::Min | RangeFn::Max | RangeFn::TsOfMin | RangeFn::TsOfMax => self.extreme(into),
            RangeFn::Quantile | RangeFn::Mad => self.order_statistic(into),
            RangeFn::Deriv | RangeFn::PredictLinear => self.regression(into),
            RangeFn::Smooth => self.smooth(into),
            RangeFn::Changes | RangeFn::Resets => self.count_events(into),
            RangeFn::Count
            | RangeFn::Present
            | RangeFn::First
            | RangeFn::Last
            | RangeFn::TsOfFirst
            | RangeFn::TsOfLast => self.pick(into),
        }
    }

    /// Calls `note` once per series.
    fn note(&self, what: Noted, note: impl FnOnce(&super::notes::Notes, &str, Span)) {
        let bit = what as u32;
        if self.noted.get() & bit == 0 {
            self.noted.set(self.noted.get() | bit);
            note(&self.evaluation.state.notes, self.name, self.evaluation.span);
        }
    }

    fn note_ignored_histograms(&self) {
        self.note(Noted::IgnoredHistograms, |notes, name, span| {
            notes.histogram_ignored_in_mixed_range(name, span);
        });
    }

    pub(crate) fn function(&self) -> RangeFn {
        self.evaluation.function
    }

    pub(crate) fn window_seconds(&self) -> f64 {
        self.evaluation.window_ms as f64 / 1000.0
    }

    pub(crate) fn note_not_counter(&self) {
        self.note(Noted::NotCounter, |notes, name, span| notes.histogram_not_counter(name, span));
    }

    pub(crate) fn note_not_gauge(&self) {
        self.note(Noted::NotGauge, |notes, name, span| notes.histogram_not_gauge(name, span));
    }

    pub(crate) fn note_mixed_range(&self) {
        self.note(Noted::MixedRange, |notes, name, span| notes.mixed_floats_histograms(name, span));
    }

    pub(crate) fn note_mixed_schemas(&self) {
        self.note(Noted::MixedSchemas, |notes, name, span| notes.mixed_exponential_custom(name, span));
    }

    /// Custom bounds of histograms that were added, or subtracted, were not the same.
    pub(crate) fn note_reconciled(&self, subtraction: bool) {
        let (what, operation) = match subtraction {
            true => (Noted::ReconciledSubtraction, HistogramOperation::Subtraction),
            false => (Noted::ReconciledAddition, HistogramOperation::Addition),
        };
        self.note(what, |notes, _, span| notes.custom_buckets_reconciled(operation, span));
    }

    /// Parameter `index` at a step.
    fn param(&self, index: usize, step: usize) -> f64 {
        self.evaluation.params.get(index).map_or(f64::NAN, |param| param.at(step))
    }

    /// Adds up the samples that windows looked at.
    fn count_samples(&self, table: Option<&WindowTable>) {
        let Evaluation { state, steps, time, window_ms, .. } = *self.evaluation;
        if let Some(table) = table {
            let of_step = |step| table.bounds.get(step).map_or(0, |(lo, hi)| u64::from(hi - lo));
            state.samples.add(steps, table.samples, of_step);
            return;
        }
        let times = &self.samples.float_times;
        let mut prefix = Vec::new();
        if !self.samples.histograms.is_empty() {
            prefix.push(0u64);
            for histogram in &self.samples.histograms {
                prefix.push(prefix[prefix.len() - 1] + histogram_size(histogram) as u64);
            }
        }
        let per_step = state.samples.wants_steps();
        let mut counted = Vec::with_capacity(if per_step { steps.count } else { 0 });
        let (mut total, mut lo, mut hi, mut histogram_lo, mut histogram_hi) = (0u64, 0, 0, 0, 0);
        for step in 0..steps.count {
            let end = time.resolve(steps.at(step));
            let start = end.saturating_sub(window_ms);
            advance(times, &mut lo, start);
            advance(times, &mut hi, end);
            let mut samples = hi.saturating_sub(lo) as u64;
            if !prefix.is_empty() {
                advance(&self.samples.histogram_times, &mut histogram_lo, start);
                advance(&self.samples.histogram_times, &mut histogram_hi, end);
                samples += prefix[histogram_hi.max(histogram_lo)] - prefix[histogram_lo];
            }
            total += samples;
            if per_step {
                counted.push(samples);
            }
        }
        state.samples.add(steps, total, |step| counted.get(step).copied().unwrap_or(0));
    }
}

/// Moves `index` behind the last time that is not after `t`.
fn advance(times: &[Timestamp], index: &mut usize, t: Timestamp) {
    // Mostly a few samples per step; far jumps bisect.
    let near = times.len().min(*index + 8);
    while *index < near && times[*index] <= t {
        *index += 1;
    }
    if *index == near && near < times.len() && times[near] <= t {
        *index += times[near..].partition_point(|time| *time <= t);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advancing_jumps_far_and_near() {
        let times: Vec<i64> = (0..100).map(|t| t * 10).collect();
        let mut index = 0;
        for (t, expected) in [(-1, 0), (0, 1), (35, 4), (35, 4), (640, 65), (645, 65), (5000, 100)] {
            advance(&times, &mut index, t);
            assert_eq!(index, expected, "{t}");
        }
    }
}
