//! `*_over_time` of sums, means, variances, extremes; picks and counts; exponential smoothing.

use std::sync::Arc;

use model::FloatHistogram;
use model::float::kahan_add;

use super::histogram::{SumNotes, add_all};
use super::sliding::{Double, Join, Sliding};
use super::{Noted, Series, Window};
use crate::exec::column::Column;
use crate::exec::error::QueryError;
use crate::exec::notes::HistogramOperation;
use crate::plan::RangeFn;

/// Numbers that are not finite, counted apart from sums.
#[derive(Clone, Copy, Debug, Default)]
struct NonFinite {
    nan: usize,
    positive: usize,
    negative: usize,
}

impl NonFinite {
    fn count(values: &[f64]) -> Vec<Self> {
        let mut counts = Vec::with_capacity(values.len() + 1);
        let mut count = Self::default();
        counts.push(count);
        for value in values {
            if value.is_nan() {
                count.nan += 1;
            } else if *value == f64::INFINITY {
                count.positive += 1;
            } else if *value == f64::NEG_INFINITY {
                count.negative += 1;
            }
            counts.push(count);
        }
        counts
    }

    /// What a sum is that has such numbers; `None` when there are none between the two counts.
    fn sum(from: Self, to: Self) -> Option<f64> {
        let (nan, positive, negative) =
            (to.nan > from.nan, to.positive > from.positive, to.negative > from.negative);
        match (nan, positive, negative) {
            (false, false, false) => None,
            (false, true, false) => Some(f64::INFINITY),
            (false, false, true) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }
}

fn finite_or_zero(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

/// Prometheus' sum: compensated, in order.
fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut error) = (0.0, 0.0);
    for value in values {
        (sum, error) = kahan_add(*value, sum, error);
    }
    if sum.is_infinite() { sum } else { sum + error }
}

/// Prometheus' mean: sum over count, or a running mean from where the sum would overflow.
fn mean(values: &[f64]) -> f64 {
    let (mut sum, mut error, mut count) = (values[0], 0.0, 1.0);
    let mut running: Option<f64> = None;
    for value in &values[1..] {
        count += 1.0;
        if running.is_none() {
            let (next, next_error) = kahan_add(*value, sum, error);
            if !next.is_infinite() {
                (sum, error) = (next, next_error);
                continue;
            }
            running = Some(sum / (count - 1.0));
            error /= count - 1.0;
        }
        let weight = (count - 1.0) / count;
        let (next, next_error) =
            kahan_add(value / count, weight * running.unwrap_or_default(), weight * error);
        running = Some(next);
        error = next_error;
    }
    match running {
        Some(mean) => mean + error,
        None => sum / count + error / count,
    }
}

/// Prometheus' population variance: Welford's algorithm, compensated.
fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut mean_error, mut squares, mut squares_error) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean + mean_error);
        (mean, mean_error) = kahan_add(delta / count, mean, mean_error);
        let product = delta * (value - (mean + mean_error));
        (squares, squares_error) = kahan_add(product, squares, squares_error);
    }
    (squares + squares_error) / count
}

/// Count, mean and sum of squared deviations; joined as Chan, Golub and LeVeque do.
#[derive(Clone, Copy)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Join for Moments {
    fn join(self, next: Self) -> Self {
        let count = self.count + next.count;
        let delta = next.mean - self.mean;
        Self {
            count,
            mean: self.mean + delta * (next.count / count),
            squares: self.squares + next.squares + delta * delta * (self.count * next.count / count),
        }
    }
}

impl Series<'_, '_> {
    pub(super) fn sum_or_avg(&self, into: &mut Column) -> Result<(), QueryError> {
        let avg = self.evaluation.function == RangeFn::Avg;
        let values = &self.samples.float_values;
        let slides = self.slides();
        let non_finite = if slides { NonFinite::count(values) } else { Vec::new() };
        let mut sliding = Sliding::new();
        self.for_windows(|window| {
            let Window { lo, hi, .. } = *window;
            match (window.floats(), window.histograms()) {
                (_, 0) if !slides => {
                    let window_values = &values[lo..hi];
                    into.set(window.step, if avg { mean(window_values) } else { sum(window_values) });
                }
                (count, 0) => {
                    let total = sliding.advance(lo, hi, |i| Double::new(finite_or_zero(values[i])));
                    let total = total.unwrap_or_default();
                    let value = match NonFinite::sum(non_finite[lo], non_finite[hi]) {
                        Some(value) => value,
                        // The sum overflows: literally, then.
                        None if !total.value().is_finite() && avg => mean(&values[lo..hi]),
                        None if !total.value().is_finite() => sum(&values[lo..hi]),
                        None if avg => {
                            let count = count as f64;
                            total.hi / count + total.lo / count
                        }
                        None => total.value(),
                    };
                    into.set(window.step, value);
                }
                (0, _) => {
                    if let Some(total) = self.sum_histograms(window, avg) {
                        into.push_histogram(window.step, Arc::new(total));
                    }
                }
                _ => self.note_mixed_range(),
            }
            Ok(())
        })
    }

    fn sum_histograms(&self, window: &Window, mean: bool) -> Option<FloatHistogram> {
        let histograms = &self.samples.histograms[window.histogram_lo..window.histogram_hi];
        let mut seen = SumNotes::default();
        let total = add_all(histograms, mean, &mut seen);
        if seen.collision() {
            self.note(Noted::ResetCollision, |notes, _, span| {
                notes.counter_reset_collision(HistogramOperation::Aggregation, span);
            });
        }
        if seen.reconciled {
            self.note(Noted::Reconciled, |notes, _, span| {
                notes.custom_buckets_reconciled(HistogramOperation::Aggregation, span);
            });
        }
        match total {
            Ok(total) => Some(total),
            Err(_) => {
                self.note_mixed_schemas();
                None
            }
        }
    }

    pub(super) fn variance(&self, into: &mut Column) -> Result<(), QueryError> {
        let root = self.evaluation.function == RangeFn::Stddev;
        let values = &self.samples.float_values;
        let slides = self.slides();
        let non_finite = if slides { NonFinite::count(values) } else { Vec::new() };
        let mut sliding = Sliding::new();
        self.for_float_windows(|window| {
            let Window { lo, hi, .. } = *window;
            let variance = if slides {
                let item = |i: usize| Moments { count: 1.0, mean: finite_or_zero(values[i]), squares: 0.0 };
                let moments = sliding.advance(lo, hi, item);
                match (NonFinite::sum(non_finite[lo], non_finite[hi]), moments) {
                    (None, Some(moments)) if moments.squares.is_finite() => moments.squares / moments.count,
                    _ => variance(&values[lo..hi]),
                }
            } else {
                variance(&values[lo..hi])
            };
            into.set(window.step, if root { variance.sqrt() } else { variance });
            Ok(())
        })
    }

    /// Windows that hold floats; histograms beside them are ignored, with a note.
    pub(super) fn for_float_windows(
        &self,
        mut f: impl FnMut(&Window) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        self.for_windows(|window| {
            if window.floats() == 0 {
                return Ok(());
            }
            if window.histograms() > 0 {
                self.note_ignored_histograms();
            }
            f(window)
        })
    }

    /// Minimum and maximum, or their times: a queue of candidates, best first. Of equal values the first counts, of
    /// their times the last. NaN loses against everything.
    pub(super) fn extreme(&self, into: &mut Column) -> Result<(), QueryError> {
        let function = self.evaluation.function;
        let of_time = matches!(function, RangeFn::TsOfMin | RangeFn::TsOfMax);
        let maximum = matches!(function, RangeFn::Max | RangeFn::TsOfMax);
        let values = &self.samples.float_values;
        let beats = |new: f64, old: f64| match (maximum, of_time) {
            (true, false) => new > old,
            (true, true) => new >= old,
            (false, false) => new < old,
            (false, true) => new <= old,
        };
        let mut candidates = std::collections::VecDeque::new();
        let mut next = 0;
        self.for_float_windows(|window| {
            let Window { lo, hi, .. } = *window;
            next = next.max(lo);
            while next < hi {
                if !values[next].is_nan() {
                    while candidates.back().is_some_and(|back: &usize| beats(values[next], values[*back])) {
                        candidates.pop_back();
                    }
                    candidates.push_back(next);
                }
                next += 1;
            }
            while candidates.front().is_some_and(|front| *front < lo) {
                candidates.pop_front();
            }
            // Nothing but NaN: any will do, its time is the last one's.
            let best = candidates.front().copied().unwrap_or(hi - 1);
            let value = if of_time { self.samples.float_times[best] as f64 / 1000.0 } else { values[best] };
            into.set(window.step, value);
            Ok(())
        })
    }

    /// Counts, firsts and lasts.
    pub(super) fn pick(&self, into: &mut Column) -> Result<(), QueryError> {
        let samples = self.samples;
        let function = self.evaluation.function;
        self.for_windows(|window| {
            let Window { lo, hi, histogram_lo, histogram_hi, .. } = *window;
            let seconds = |t: i64| t as f64 / 1000.0;
            let value = match function {
                RangeFn::Count => (window.floats() + window.histograms()) as f64,
                RangeFn::Present => 1.0,
                RangeFn::First | RangeFn::TsOfFirst => {
                    let float = (lo < hi).then(|| samples.float_times[lo]);
                    let histogram =
                        (histogram_lo < histogram_hi).then(|| samples.histogram_times[histogram_lo]);
                    let float_first = float.is_some_and(|t| histogram.is_none_or(|other| t < other));
                    match (function, float_first) {
                        (RangeFn::TsOfFirst, _) => {
                            seconds(float.into_iter().chain(histogram).min().unwrap_or_default())
                        }
                        (_, true) => samples.float_values[lo],
                        (_, false) => {
                            into.push_histogram(window.step, Arc::clone(&samples.histograms[histogram_lo]));
                            return Ok(());
                        }
                    }
                }
                _ => {
                    let float = (lo < hi).then(|| samples.float_times[hi - 1]);
                    let histogram =
                        (histogram_lo < histogram_hi).then(|| samples.histogram_times[histogram_hi - 1]);
                    let float_last = float.is_some_and(|t| histogram.is_none_or(|other| t > other));
                    match (function, float_last) {
                        (RangeFn::TsOfLast, _) => {
                            seconds(float.into_iter().chain(histogram).max().unwrap_or_default())
                        }
                        (_, true) => samples.float_values[hi - 1],
                        (_, false) => {
                            let last = Arc::clone(&samples.histograms[histogram_hi - 1]);
                            into.push_histogram(window.step, last);
                            return Ok(());
                        }
                    }
                }
            };
            into.set(window.step, value);
            Ok(())
        })
    }

    /// `changes` and `resets`: events between neighbours, counted once and for all.
    pub(super) fn count_events(&self, into: &mut Column) -> Result<(), QueryError> {
        let resets = self.evaluation.function == RangeFn::Resets;
        let samples = self.samples;
        let merged = merge_order(&samples.float_times, &samples.histogram_times);
        let mut events = Vec::with_capacity(merged.len());
        let mut count = 0u64;
        for (position, &at) in merged.iter().enumerate() {
            if position > 0 && self.is_event(merged[position - 1], at, resets) {
                count += 1;
            }
            events.push(count);
        }
        self.for_windows(|window| {
            // Windows of both kinds together are windows of the merged sequence.
            let mut from = window.lo + window.histogram_lo;
            let to = window.hi + window.histogram_hi;
            if self.evaluation.extended.is_some() {
                // Anchored: at the newest sample before the window, of whatever kind.
                let before = |times: &[i64]| times.partition_point(|t| *t <= window.start);
                let outside = before(&samples.float_times[window.lo..window.hi])
                    + before(&samples.histogram_times[window.histogram_lo..window.histogram_hi]);
                if outside == to - from {
                    return Ok(());
                }
                from += outside.saturating_sub(1);
            }
            into.set(window.step, (events[to - 1] - events[from]) as f64);
            Ok(())
        })
    }

    fn is_event(&self, before: Kind, after: Kind, resets: bool) -> bool {
        let samples = self.samples;
        let starts = |starts: &[i64], i: usize| starts.get(i).copied().unwrap_or(0);
        let start_reset = || {
            let of = |kind| match kind {
                Kind::Float(i) => (starts(&samples.float_starts, i), samples.float_times[i]),
                Kind::Histogram(i) => (starts(&samples.histogram_starts, i), samples.histogram_times[i]),
            };
            let ((before_start, before_t), (start, t)) = (of(before), of(after));
            resets && super::is_start_reset(before_start, before_t, start, t)
        };
        match (before, after) {
            (Kind::Float(i), Kind::Float(j)) => {
                let (a, b) = (samples.float_values[i], samples.float_values[j]);
                if resets { b < a || start_reset() } else { a != b && !(a.is_nan() && b.is_nan()) }
            }
            (Kind::Histogram(i), Kind::Histogram(j)) => {
                let (a, b) = (&samples.histograms[i], &samples.histograms[j]);
                if resets { b.is_reset_after(a) || start_reset() } else { !b.same_as(a) }
            }
            _ => true,
        }
    }

    /// Double exponential smoothing: sequential by nature.
    pub(super) fn smooth(&self, into: &mut Column) -> Result<(), QueryError> {
        let values = &self.samples.float_values;
        self.for_windows(|window| {
            let smoothing = self.param(0, window.step);
            let trend = self.param(1, window.step);
            for (factor, name) in [(smoothing, "smoothing"), (trend, "trend")] {
                if factor <= 0.0 || factor >= 1.0 {
                    let short = if name == "smoothing" { "sf" } else { "tf" };
                    return Err(QueryError::execution(format!(
                        "invalid {name} factor. Expected: 0 < {short} < 1, got: {factor:.6}"
                    )));
                }
            }
            if window.floats() > 0 && window.histograms() > 0 {
                self.note_ignored_histograms();
            }
            let [first, second, ..] = values[window.lo..window.hi] else { return Ok(()) };
            let (mut previous, mut level, mut slope) = (0.0, first, second - first);
            for (index, value) in values[window.lo + 1..window.hi].iter().enumerate() {
                self.evaluation.state.limits.check_at(index)?;
                let raw = smoothing * value;
                if index > 0 {
                    slope = trend * (level - previous) + (1.0 - trend) * slope;
                }
                let smoothed = raw + (1.0 - smoothing) * (level + slope);
                (previous, level) = (level, smoothed);
            }
            into.set(window.step, level);
            Ok(())
        })
    }
}

/// A sample by its column.
#[derive(Clone, Copy)]
enum Kind {
    Float(usize),
    Histogram(usize),
}

fn merge_order(floats: &[i64], histograms: &[i64]) -> Vec<Kind> {
    let mut merged = Vec::with_capacity(floats.len() + histograms.len());
    let (mut i, mut j) = (0, 0);
    while i < floats.len() || j < histograms.len() {
        let float = j == histograms.len() || (i < floats.len() && floats[i] < histograms[j]);
        if float {
            merged.push(Kind::Float(i));
            i += 1;
        } else {
            merged.push(Kind::Histogram(j));
            j += 1;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn means_do_not_overflow() {
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert_eq!(mean(&[f64::INFINITY, f64::MAX]), f64::INFINITY);
        assert!(mean(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(sum(&[1e20, 1.0, -1e20]), 1.0);
    }

    proptest! {
        #[test]
        fn joined_moments_are_the_variance(values in prop::collection::vec(-1e6f64..1e6, 1..50)) {
            let moments = values
                .iter()
                .map(|v| Moments { count: 1.0, mean: *v, squares: 0.0 })
                .reduce(Join::join)
                .unwrap();
            let (a, b) = (moments.squares / moments.count, variance(&values));
            prop_assert!((a - b).abs() <= 1e-9 * b.abs().max(1e-3), "{} {}", a, b);
        }
    }
}
