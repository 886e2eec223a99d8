//! `rate`, `increase`, `delta`, `irate`, `idelta`: differences between the ends of a window, resets made good,
//! extrapolated to the ends of the window as Prometheus does.

use std::ops::Range;
use std::sync::Arc;

use model::histogram::CounterResetHint;
use model::{FloatHistogram, Timestamp};

use super::histogram::{Growth, Misfit, growth};
use super::windows::reach;
use super::{Noted, Series, Window, WindowTable};
use crate::exec::column::Column;
use crate::exec::error::QueryError;
use crate::plan::RangeFn;

/// Resets in a window up to which they are added one by one, in Prometheus' order.
const RESETS_BY_ONE_MAX: usize = 32;

/// Whether the start timestamp of a sample says that its counter began anew after the previous sample.
///
/// A start that equals the previous sample's time marks a delta series, unless that sample's own start is not known:
/// then it is how OpenTelemetry marks a counter of unknown start.
pub(crate) fn is_start_reset(
    previous_start: Timestamp,
    previous: Timestamp,
    start: Timestamp,
    t: Timestamp,
) -> bool {
    if start == 0 || start >= t || start < previous {
        return false;
    }
    start > previous || (previous_start != 0 && previous_start < previous)
}

/// The value at `t` on the line between two samples; a counter that went down grew from zero.
pub(crate) fn interpolate(
    (t1, v1): (Timestamp, f64),
    (t2, v2): (Timestamp, f64),
    t: Timestamp,
    counter: bool,
) -> f64 {
    let from = if counter && v2 < v1 { 0.0 } else { v1 };
    from + (v2 - from) * (t - t1) as f64 / (t2 - t1) as f64
}

/// The resets of a series, and sums over them.
#[derive(Default)]
struct Resets {
    /// Indexes of samples that a reset precedes.
    at: Vec<usize>,
    /// Sums of the values before the first `i` resets, with their compensations; empty unless resets abound.
    sums: Vec<(f64, f64)>,
}

impl Resets {
    fn find(values: &[f64], mut is_reset: impl FnMut(usize) -> bool) -> Self {
        let at: Vec<usize> =
            (1..values.len()).filter(|&i| values[i] < values[i - 1] || is_reset(i)).collect();
        Self::at(at, values)
    }

    /// Where values fall.
    fn falls(values: &[f64]) -> Self {
        /// Values looked at together, without a branch for each: counters hardly ever fall.
        const RUN: usize = 32;
        let mut at = Vec::new();
        for from in (1..values.len()).step_by(RUN) {
            let to = values.len().min(from + RUN);
            let (before, after) = (&values[from - 1..to - 1], &values[from..to]);
            if before.iter().zip(after).fold(false, |any, (before, after)| any | (after < before)) {
                at.extend((from..to).filter(|&i| values[i] < values[i - 1]));
            }
        }
        Self::at(at, values)
    }

    fn at(at: Vec<usize>, values: &[f64]) -> Self {
        let mut sums = Vec::new();
        if at.len() > RESETS_BY_ONE_MAX {
            let (mut sum, mut error) = (0.0, 0.0);
            sums.push((sum, error));
            for &i in &at {
                (sum, error) = model::float::kahan_add(values[i - 1], sum, error);
                sums.push((sum, error));
            }
            // With infinities, differences of sums say nothing.
            if !sum.is_finite() {
                sums.clear();
            }
        }
        Self { at, sums }
    }

    /// Adds to `increase` what was lost at the resets with these numbers.
    fn correct(&self, mut increase: f64, which: Range<usize>, values: &[f64]) -> f64 {
        if which.len() > RESETS_BY_ONE_MAX
            && let (Some(first), Some(last)) = (self.sums.get(which.start), self.sums.get(which.end))
        {
            return increase + ((last.0 - first.0) + (last.1 - first.1));
        }
        for &i in &self.at[which] {
            increase += values[i - 1];
        }
        increase
    }
}

/// How far an increase between samples reaches beyond them, as a factor.
struct Extrapolation {
    /// First and last sample.
    first: Timestamp,
    last: Timestamp,
    /// Samples less one.
    gaps: usize,
    /// When the counter began, if known and within the window.
    begin: Option<Timestamp>,
}

impl Extrapolation {
    /// `first_value` over `increase` tells when a counter that grew evenly was zero; `None` for gauges.
    fn factor(&self, window: &Window, counter: Option<(f64, f64)>) -> f64 {
        let seconds = |from: Timestamp, to: Timestamp| (to - from) as f64 / 1000.0;
        let sampled = seconds(self.first, self.last);
        let mean_gap = if self.gaps == 0 { 0.0 } else { sampled / self.gaps as f64 };
        let to_end = reach(seconds(self.last, window.end), mean_gap);
        if let Some(begin) = self.begin {
            let covered = seconds(begin, self.last);
            return (covered + to_end) / covered;
        }
        let mut to_start = reach(seconds(window.start, self.first), mean_gap);
        if let Some((first_value, increase)) = counter
            && increase > 0.0
            && first_value >= 0.0
        {
            let to_zero = sampled * (first_value / increase);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        (sampled + to_start + to_end) / sampled
    }
}

impl Series<'_, '_> {
    pub(super) fn rate(&self, into: &mut Column) -> Result<(), QueryError> {
        let function = self.evaluation.function;
        let counter = function != RangeFn::Delta;
        let per_second = function == RangeFn::Rate;
        let seconds = self.evaluation.window_ms as f64 / 1000.0;
        let samples = self.samples;
        let (times, values, starts) = (&samples.float_times, &samples.float_values, &samples.float_starts);
        let has_starts = counter && !starts.is_empty();
        let resets = if counter {
            Resets::find(values, |i| {
                has_starts && is_start_reset(starts[i - 1], times[i - 1], starts[i], times[i])
            })
        } else {
            Resets::default()
        };
        let (mut first_reset, mut end_reset) = (0, 0);
        self.for_windows(|window| {
            if window.floats() > 0 && window.histograms() > 0 {
                self.note_mixed_range();
                return Ok(());
            }
            if window.histograms() > 0 {
                if let Some(histogram) = self.histogram_rate(window, counter, per_second.then_some(seconds)) {
                    into.push_histogram(window.step, Arc::new(histogram));
                }
                return Ok(());
            }
            let Window { lo, hi, .. } = *window;
            let last = hi - 1;
            let begin = begin_of(has_starts.then(|| (starts[lo], times[lo])), window);
            if last == lo && begin.is_none() {
                return Ok(());
            }
            while resets.at.get(first_reset).is_some_and(|i| *i <= lo) {
                first_reset += 1;
            }
            end_reset = end_reset.max(first_reset);
            while resets.at.get(end_reset).is_some_and(|i| *i < hi) {
                end_reset += 1;
            }
            if has_starts {
                self.note_overlap(starts, times, lo..hi);
            }
            let mut increase = resets.correct(values[last] - values[lo], first_reset..end_reset, values);
            if begin.is_some() {
                increase += values[lo];
            }
            let extrapolation = Extrapolation { first: times[lo], last: times[last], gaps: last - lo, begin };
            let mut factor = extrapolation.factor(window, counter.then_some((values[lo], increase)));
            if per_second {
                factor /= seconds;
            }
            into.set(window.step, increase * factor);
            Ok(())
        })
    }

    /// [`Series::rate`] of floats without start timestamps whose windows are known.
    pub(super) fn rate_of_table(&self, table: &mut WindowTable, into: &mut Column) -> Result<(), QueryError> {
        let function = self.evaluation.function;
        let counter = function != RangeFn::Delta;
        let seconds = match function {
            RangeFn::Rate => self.window_seconds(),
            _ => 1.0,
        };
        let values = &self.samples.float_values;
        let resets = if counter { Resets::falls(values) } else { Resets::default() };
        if resets.at.is_empty() {
            table.gain(values, counter, seconds, into);
            return Ok(());
        }
        let (mut first_reset, mut end_reset) = (0, 0);
        for (step, ((lo, hi), span)) in table.spans().enumerate() {
            self.evaluation.state.limits.check_at(step)?;
            let (lo, hi) = (lo as usize, hi as usize);
            if hi - lo < 2 {
                continue;
            }
            while resets.at.get(first_reset).is_some_and(|i| *i <= lo) {
                first_reset += 1;
            }
            end_reset = end_reset.max(first_reset);
            while resets.at.get(end_reset).is_some_and(|i| *i < hi) {
                end_reset += 1;
            }
            let first = values[lo];
            let increase = resets.correct(values[hi - 1] - first, first_reset..end_reset, values);
            into.set(step, increase * span.factor(Some(first), increase, seconds));
        }
        Ok(())
    }

    /// Says so when a sample claims to count from before the previous one, but not since the same start.
    fn note_overlap(&self, starts: &[Timestamp], times: &[Timestamp], window: Range<usize>) {
        if self.noted.get() & Noted::Overlap as u32 != 0 {
            return;
        }
        let overlaps = (window.start + 1..window.end)
            .any(|i| starts[i] != 0 && starts[i] < times[i - 1] && starts[i] != starts[i - 1]);
        if overlaps {
            self.note(Noted::Overlap, |notes, name, span| notes.overlapping_start(name, span));
        }
    }

    fn histogram_rate(&self, window: &Window, counter: bool, seconds: Option<f64>) -> Option<FloatHistogram> {
        let Window { histogram_lo: lo, histogram_hi: hi, .. } = *window;
        let samples = self.samples;
        let (times, histograms) = (&samples.histogram_times[lo..hi], &samples.histograms[lo..hi]);
        let starts = if counter { samples.histogram_starts.get(lo..hi).unwrap_or(&[]) } else { &[] };
        let begin = begin_of(starts.first().map(|start| (*start, times[0])), window);
        if histograms.len() < 2 && begin.is_none() {
            return None;
        }
        let mut increase = self.histogram_growth(times, histograms, starts, counter, begin.is_some())?;
        let extrapolation =
            Extrapolation { first: times[0], last: times[times.len() - 1], gaps: times.len() - 1, begin };
        let zero_point = counter.then_some((histograms[0].count, increase.count));
        let mut factor = extrapolation.factor(window, zero_point);
        if let Some(seconds) = seconds {
            factor /= seconds;
        }
        increase.scale(factor);
        Some(increase)
    }

    fn histogram_growth(
        &self,
        times: &[Timestamp],
        histograms: &[Arc<FloatHistogram>],
        starts: &[Timestamp],
        counter: bool,
        from_zero: bool,
    ) -> Option<FloatHistogram> {
        let is_gauge = |h: &Arc<FloatHistogram>| h.counter_reset_hint == CounterResetHint::Gauge;
        let ends = [histograms.first(), histograms.last()];
        let is_reset = |i: usize| {
            starts.get(i).is_some_and(|start| is_start_reset(starts[i - 1], times[i - 1], *start, times[i]))
        };
        match growth(histograms, counter, is_reset) {
            Ok(Growth { mut histogram, mut reconciled }) => {
                if !starts.is_empty() {
                    self.note_overlap(starts, times, 0..times.len());
                }
                let mut fits = true;
                if from_zero && histograms.len() > 1 {
                    match histogram.plus(&histograms[0]) {
                        Ok((sum, how)) => {
                            histogram = sum;
                            reconciled.1 |= how.custom_bounds;
                        }
                        Err(_) => fits = false,
                    }
                }
                if reconciled.0 {
                    self.note_reconciled(true);
                }
                if reconciled.1 {
                    self.note_reconciled(false);
                }
                if counter && histograms.len() > 1 && histograms.iter().any(is_gauge) {
                    self.note_not_counter();
                }
                if !counter && !ends.into_iter().flatten().all(is_gauge) {
                    self.note_not_gauge();
                }
                if !fits {
                    self.note_mixed_schemas();
                }
                fits.then_some(histogram)
            }
            Err(misfit) => {
                // What is wrong inside is found after what is wrong at the ends, and instead of it.
                if counter && misfit == Misfit::Ends && ends.into_iter().flatten().any(is_gauge) {
                    self.note_not_counter();
                }
                self.note_mixed_schemas();
                None
            }
        }
    }

    pub(super) fn instant_rate(&self, into: &mut Column) -> Result<(), QueryError> {
        let per_second = self.evaluation.function == RangeFn::Irate;
        self.for_windows(|window| {
            let [Some(before), Some(last)] = self.last_two(window) else { return Ok(()) };
            let interval = last.t - before.t;
            if interval == 0 {
                return Ok(());
            }
            let seconds = interval as f64 / 1000.0;
            let by_start = is_start_reset(before.start, before.t, last.start, last.t);
            match (before.value, last.value) {
                (Point::Float(previous), Point::Float(value)) => {
                    let reset = per_second && (value < previous || by_start);
                    let difference = if reset { value } else { value - previous };
                    into.set(window.step, if per_second { difference / seconds } else { difference });
                }
                (Point::Histogram(previous), Point::Histogram(histogram)) => {
                    let difference = self.histogram_difference(previous, histogram, per_second, by_start);
                    if let Some(mut difference) = difference {
                        if per_second {
                            difference.divide(seconds);
                        }
                        into.push_histogram(window.step, Arc::new(difference));
                    }
                }
                _ => self.note_mixed_range(),
            }
            Ok(())
        })
    }

    fn histogram_difference(
        &self,
        previous: &FloatHistogram,
        histogram: &FloatHistogram,
        counter: bool,
        reset_by_start: bool,
    ) -> Option<FloatHistogram> {
        let gauges = [previous, histogram].map(|h| h.counter_reset_hint == CounterResetHint::Gauge);
        if counter && gauges.contains(&true) {
            self.note_not_counter();
        }
        if !counter && gauges.contains(&false) {
            self.note_not_gauge();
        }
        let reset = counter && (reset_by_start || histogram.is_reset_after(previous));
        let mut difference = if reset {
            histogram.clone()
        } else {
            let Ok((difference, reconciled)) = histogram.minus(previous) else {
                self.note_mixed_schemas();
                return None;
            };
            if reconciled.custom_bounds {
                self.note_reconciled(true);
            }
            difference
        };
        difference.counter_reset_hint = CounterResetHint::Gauge;
        difference.compact();
        Some(difference)
    }

    /// The newest two samples of a window, older first.
    fn last_two(&self, window: &Window) -> [Option<Sample<'_>>; 2] {
        let samples = self.samples;
        let start = |starts: &[Timestamp], index: usize| starts.get(index).copied().unwrap_or(0);
        let mut newest = [None, None];
        let floats = (window.lo.max(window.hi.saturating_sub(2))..window.hi).map(|index| Sample {
            t: samples.float_times[index],
            start: start(&samples.float_starts, index),
            value: Point::Float(samples.float_values[index]),
        });
        let histograms = (window.histogram_lo.max(window.histogram_hi.saturating_sub(2))
            ..window.histogram_hi)
            .map(|index| Sample {
                t: samples.histogram_times[index],
                start: start(&samples.histogram_starts, index),
                value: Point::Histogram(&samples.histograms[index]),
            });
        for sample in floats.chain(histograms) {
            let newer = |slot: &Option<Sample<'_>>| slot.as_ref().is_none_or(|slot| sample.t >= slot.t);
            if newer(&newest[1]) {
                newest[0] = newest[1].take();
                newest[1] = Some(sample);
            } else if newer(&newest[0]) {
                newest[0] = Some(sample);
            }
        }
        newest
    }
}

/// When the counter began, if that is after the window's start and before its first sample.
fn begin_of(first: Option<(Timestamp, Timestamp)>, window: &Window) -> Option<Timestamp> {
    first.filter(|(start, t)| *start != 0 && *start > window.start && start < t).map(|(start, _)| start)
}

struct Sample<'a> {
    t: Timestamp,
    start: Timestamp,
    value: Point<'a>,
}

#[derive(Clone, Copy)]
enum Point<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}
