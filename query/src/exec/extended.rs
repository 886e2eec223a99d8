//! `anchored` and `smoothed` selectors: windows whose ends take the sample before, or lie on the line between
//! neighbours.

use std::sync::Arc;

use model::histogram::{CounterResetHint, IncompatibleSchemas};
use model::storage::SeriesColumns;
use model::{FloatHistogram, Labels, Sample, Timestamp};

use super::column::Column;
use super::error::QueryError;
use super::notes::HistogramOperation;
use super::range::{Series, Window, interpolate};
use super::state::State;
use super::steps::Steps;
use crate::ast::ExtendedRange;
use crate::plan::{RangeFn, Selector};

/// Evaluates the function of a series over extended windows: `rate`, `increase` or `delta`.
pub(crate) fn evaluate(
    series: &Series<'_, '_>,
    modifier: ExtendedRange,
    into: &mut Column,
) -> Result<(), QueryError> {
    series.for_windows(|window| {
        if window.floats() > 0 && window.histograms() > 0 {
            series.note_mixed_range();
            return Ok(());
        }
        let smoothed = modifier == ExtendedRange::Smoothed;
        if window.histograms() > 0 {
            match histogram_rate(series, window, smoothed) {
                Ok(Some(histogram)) => into.push_histogram(window.step, Arc::new(histogram)),
                Ok(None) => {}
                Err(IncompatibleSchemas) => series.note_mixed_schemas(),
            }
        } else if let Some(value) = float_rate(series, window, smoothed) {
            into.set(window.step, value);
        }
        Ok(())
    })
}

/// The part of a window's surroundings that counts: indexes of the samples at its ends.
fn ends(times: &[Timestamp], start: Timestamp, end: Timestamp, smoothed: bool) -> Option<(usize, usize)> {
    let last = times.len().checked_sub(1)?;
    let first = times[..last].partition_point(|t| *t <= start).saturating_sub(1);
    let last = if smoothed { times[..last].partition_point(|t| *t < end) } else { last };
    // All before the window, or all after it.
    if times[last] <= start || times[first] > end {
        return None;
    }
    Some((first, last))
}

/// A window as samples: one at each of its ends, and those between.
pub(crate) fn extend_floats(
    times: &[Timestamp],
    values: &[f64],
    start: Timestamp,
    end: Timestamp,
    smoothed: bool,
) -> Vec<Sample> {
    let Some((first, last)) = ends(times, start, end, smoothed) else { return Vec::new() };
    let at = |i: usize| (times[i], values[i]);
    let left = if smoothed && times[first] < start {
        interpolate(at(first), at(first + 1), start, false)
    } else {
        values[first]
    };
    let right = if smoothed && last > 0 && times[last] > end {
        interpolate(at(last - 1), at(last), end, false)
    } else {
        values[last]
    };
    let between = times.iter().zip(values).filter(|(t, _)| **t > start && **t < end);
    let mut samples = vec![Sample { t: start, v: left }];
    samples.extend(between.map(|(t, v)| Sample { t: *t, v: *v }));
    samples.push(Sample { t: end, v: right });
    samples
}

fn float_rate(series: &Series<'_, '_>, window: &Window, smoothed: bool) -> Option<f64> {
    let counter = series.function() != RangeFn::Delta;
    let samples = series.samples;
    let times = &samples.float_times[window.lo..window.hi];
    let values = &samples.float_values[window.lo..window.hi];
    let (mut first, mut last) = ends(times, window.start, window.end, smoothed)?;
    let at = |i: usize| (times[i], values[i]);
    let left = if smoothed && times[first] < window.start {
        interpolate(at(first), at(first + 1), window.start, counter)
    } else {
        values[first]
    };
    let right = if smoothed && last > 0 && times[last] > window.end {
        interpolate(at(last - 1), at(last), window.end, counter)
    } else {
        values[last]
    };
    let mut result = right - left;
    if counter {
        if times[first] <= window.start {
            first += 1;
        }
        let mut end = last + 1;
        if times[last] >= window.end {
            last = last.saturating_sub(1);
            end -= 1;
        }
        let _ = last;
        let mut previous = left;
        let mut correction = 0.0;
        for value in values.get(first..end).unwrap_or(&[]) {
            if *value < previous {
                correction += previous;
            }
            previous = *value;
        }
        if right < previous {
            correction += previous;
        }
        result += correction;
    }
    if series.function() == RangeFn::Rate {
        result /= series.window_seconds();
    }
    Some(result)
}

/// What combining two histograms met.
#[derive(Clone, Copy, Debug, Default)]
struct Reconciled {
    addition: bool,
    subtraction: bool,
}

/// The histogram at `t` between two samples; a counter that was reset grew from nothing.
fn between(
    a: (Timestamp, &FloatHistogram),
    b: (Timestamp, &FloatHistogram),
    t: Timestamp,
    counter: bool,
    reconciled: &mut Reconciled,
) -> Result<FloatHistogram, IncompatibleSchemas> {
    let ((from, a), (to, b)) = (a, b);
    if t == from || t == to {
        return Ok(if t == from { a.clone() } else { b.clone() });
    }
    if a.uses_custom_buckets() != b.uses_custom_buckets() {
        return Err(IncompatibleSchemas);
    }
    let fraction = (t - from) as f64 / (to - from) as f64;
    if counter && b.is_reset_after(a) {
        let mut grown = b.clone();
        grown.scale(fraction);
        return Ok(grown);
    }
    let (mut growth, how) = b.minus(a)?;
    reconciled.subtraction |= how.custom_bounds;
    growth.scale(fraction);
    let (sum, how) = growth.plus(a)?;
    reconciled.addition |= how.custom_bounds;
    Ok(sum)
}

fn histogram_rate(
    series: &Series<'_, '_>,
    window: &Window,
    smoothed: bool,
) -> Result<Option<FloatHistogram>, IncompatibleSchemas> {
    let counter = series.function() != RangeFn::Delta;
    let samples = series.samples;
    let times = &samples.histogram_times[window.histogram_lo..window.histogram_hi];
    let histograms = &samples.histograms[window.histogram_lo..window.histogram_hi];
    let Some((first, last)) = ends(times, window.start, window.end, smoothed) else { return Ok(None) };
    let is_gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
    for histogram in &histograms[first..=last] {
        if histogram.uses_custom_buckets() != histograms[first].uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        if counter && is_gauge(histogram) {
            series.note_not_counter();
        }
    }
    let mut reconciled = Reconciled::default();
    let at = |i: usize| (times[i], &*histograms[i]);
    let left_between = smoothed && times[first] < window.start;
    let left = if left_between {
        between(at(first), at(first + 1), window.start, counter, &mut reconciled)?
    } else {
        FloatHistogram::clone(&histograms[first])
    };
    let right = if smoothed && last > 0 && times[last] > window.end {
        between(at(last - 1), at(last), window.end, counter, &mut reconciled)?
    } else {
        FloatHistogram::clone(&histograms[last])
    };
    let are_gauges = is_gauge(&left) && is_gauge(&right);
    if !counter && !are_gauges {
        series.note_not_gauge();
    }
    let (mut result, how) = right.minus(&left)?;
    reconciled.subtraction |= how.custom_bounds;
    if counter
        && let Some(lost) = lost(&histograms[first..=last], &left, &right, left_between, &mut reconciled)?
    {
        let (sum, how) = result.plus(&lost)?;
        result = sum;
        reconciled.addition |= how.custom_bounds;
    }
    if reconciled.subtraction {
        series.note_reconciled(true);
    }
    if reconciled.addition {
        series.note_reconciled(false);
    }
    if series.function() == RangeFn::Rate {
        result.divide(series.window_seconds());
    }
    result.counter_reset_hint = CounterResetHint::Gauge;
    result.compact();
    Ok(Some(result))
}

/// What was counted before the resets within a window. `histograms` are those from one end to the other, of which the
/// ends are as in `left` and `right`.
fn lost(
    histograms: &[Arc<FloatHistogram>],
    left: &FloatHistogram,
    right: &FloatHistogram,
    left_between: bool,
    reconciled: &mut Reconciled,
) -> Result<Option<FloatHistogram>, IncompatibleSchemas> {
    let (mut previous, mut next) = (left, 1);
    // A left end that lies beyond a reset has it behind it.
    if left_between && histograms[1].is_reset_after(&histograms[0]) {
        (previous, next) = (&histograms[1], 2);
    }
    // Nothing between the ends: they are the same sample, or on the way from one to the next.
    let Some(inner) = histograms.get(next..histograms.len() - 1) else { return Ok(None) };
    let mut lost: Option<FloatHistogram> = None;
    for histogram in inner.iter().map(|histogram| &**histogram).chain([right]) {
        if histogram.is_reset_after(previous) {
            lost = Some(match lost {
                None => previous.clone(),
                Some(lost) => {
                    let (sum, how) = lost.plus(previous)?;
                    reconciled.addition |= how.custom_bounds;
                    sum
                }
            });
        }
        previous = histogram;
    }
    Ok(lost)
}

/// A `smoothed` instant selector: at each step the value on the line between the neighbours, or the last one when
/// there is none after it.
pub(crate) fn smooth_instant(
    state: &State<'_>,
    selector: &Selector,
    labels: &Labels,
    steps: Steps,
    samples: &SeriesColumns,
    into: &mut Column,
) -> Result<(), QueryError> {
    let lookback = state.lookback_ms;
    let (mut noted_kinds, mut noted_schemas) = (false, false);
    let mut reconciled = Reconciled::default();
    let around = |times: &[Timestamp], t: Timestamp| {
        let lo = times.partition_point(|time| *time <= t.saturating_sub(lookback));
        let hi = times.partition_point(|time| *time <= t.saturating_add(lookback));
        (lo, hi.max(lo), times.partition_point(|time| *time < t))
    };
    for step in 0..steps.count {
        state.limits.check_at(step)?;
        let t = selector.time.resolve(steps.at(step));
        let floats = around(&samples.float_times, t);
        let histograms = around(&samples.histogram_times, t);
        if floats.0 < floats.1 && histograms.0 < histograms.1 {
            if !noted_kinds {
                state.notes.mixed_floats_histograms(labels.metric_name(), selector.span);
                noted_kinds = true;
            }
            continue;
        }
        let (lo, hi, next) = floats;
        let times = &samples.float_times;
        if lo < hi {
            if next < hi && times[next] == t {
                into.set(step, samples.float_values[next]);
            } else if next > lo && next < hi {
                let at = |i: usize| (times[i], samples.float_values[i]);
                into.set(step, interpolate(at(next - 1), at(next), t, false));
            } else if next > lo {
                into.set(step, samples.float_values[next - 1]);
            }
            continue;
        }
        let (lo, hi, next) = histograms;
        let times = &samples.histogram_times;
        if next < hi && times[next] == t {
            into.push_histogram(step, Arc::clone(&samples.histograms[next]));
        } else if next > lo && next < hi {
            let at = |i: usize| (times[i], &*samples.histograms[i]);
            let pair = [next - 1, next].map(|i| samples.histograms[i].counter_reset_hint);
            let counter = pair != [CounterResetHint::Gauge; 2];
            match between(at(next - 1), at(next), t, counter, &mut reconciled) {
                Ok(histogram) => into.push_histogram(step, Arc::new(histogram)),
                Err(IncompatibleSchemas) if noted_schemas => {}
                Err(IncompatibleSchemas) => {
                    state.notes.mixed_exponential_custom(labels.metric_name(), selector.span);
                    noted_schemas = true;
                }
            }
        } else if next > lo {
            // The hint is about the sample before it, not about what it is.
            let mut carried = FloatHistogram::clone(&samples.histograms[next - 1]);
            carried.counter_reset_hint = CounterResetHint::Unknown;
            into.push_histogram(step, Arc::new(carried));
        }
    }
    if reconciled.subtraction {
        state.notes.custom_buckets_reconciled(HistogramOperation::Subtraction, selector.span);
    }
    if reconciled.addition {
        state.notes.custom_buckets_reconciled(HistogramOperation::Addition, selector.span);
    }
    Ok(())
}
