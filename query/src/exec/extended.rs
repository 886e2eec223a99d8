//! `anchored` and `smoothed` selectors: windows whose ends take the sample before, or lie on the line between
//! neighbours.

use std::sync::Arc;

use model::histogram::{CounterResetHint, IncompatibleSchemas};
use model::storage::SeriesColumns;
use model::{FloatHistogram, Labels, Sample, Timestamp};

use super::column::Column;
use super::error::QueryError;
use super::range::{Series, Window, interpolate};
use super::state::State;
use super::steps::Steps;
use crate::ast::ExtendedRange;
use crate::plan::{RangeFn, Selector};

/// Evaluates the function of a series over extended windows.
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
            if matches!(series.function(), RangeFn::Changes | RangeFn::Resets) {
                histogram_events(series, window, into);
                return Ok(());
            }
            match histogram_rate(series, window, smoothed) {
                Ok(Some(histogram)) => into.push_histogram(window.step, Arc::new(histogram)),
                Ok(None) => {}
                Err(IncompatibleSchemas) => series.note_mixed_schemas(),
            }
            return Ok(());
        }
        let value = match series.function() {
            RangeFn::Changes | RangeFn::Resets => float_events(series, window),
            _ => float_rate(series, window, smoothed),
        };
        if let Some(value) = value {
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

fn float_events(series: &Series<'_, '_>, window: &Window) -> Option<f64> {
    let samples = series.samples;
    let times = &samples.float_times[window.lo..window.hi];
    let values = &samples.float_values[window.lo..window.hi];
    let (first, _) = ends(times, window.start, window.end, false)?;
    let resets = series.function() == RangeFn::Resets;
    let events = values[first..].windows(2).filter(|pair| {
        let (a, b) = (pair[0], pair[1]);
        if resets { b < a } else { a != b && !(a.is_nan() && b.is_nan()) }
    });
    Some(events.count() as f64)
}

fn histogram_events(series: &Series<'_, '_>, window: &Window, into: &mut Column) {
    let samples = series.samples;
    let times = &samples.histogram_times[window.histogram_lo..window.histogram_hi];
    let histograms = &samples.histograms[window.histogram_lo..window.histogram_hi];
    let Some((first, _)) = ends(times, window.start, window.end, false) else { return };
    let resets = series.function() == RangeFn::Resets;
    let events = histograms[first..]
        .windows(2)
        .filter(|pair| if resets { pair[1].is_reset_after(&pair[0]) } else { !pair[1].same_as(&pair[0]) });
    into.set(window.step, events.count() as f64);
}

/// The histogram at `fraction` of the way from `a` to `b`; a counter that was reset grew from nothing.
fn between(
    a: &FloatHistogram,
    b: &FloatHistogram,
    fraction: f64,
    counter: bool,
) -> Result<FloatHistogram, IncompatibleSchemas> {
    if a.uses_custom_buckets() != b.uses_custom_buckets() {
        return Err(IncompatibleSchemas);
    }
    let mut out = if counter && b.is_reset_after(a) {
        let mut grown = b.clone();
        grown.scale(fraction);
        grown
    } else {
        let (mut growth, _) = b.minus(a)?;
        growth.scale(fraction);
        a.plus(&growth)?.0
    };
    out.counter_reset_hint = CounterResetHint::Unknown;
    Ok(out)
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
    let is_gauge = |h: &Arc<FloatHistogram>| h.counter_reset_hint == CounterResetHint::Gauge;
    let involved = &histograms[first..=last];
    if counter && involved.iter().any(is_gauge) {
        series.note_not_counter();
    }
    if !counter && (!is_gauge(&involved[0]) || !is_gauge(&involved[involved.len() - 1])) {
        series.note_not_gauge();
    }
    let custom = involved[0].uses_custom_buckets();
    if involved.iter().any(|histogram| histogram.uses_custom_buckets() != custom) {
        return Err(IncompatibleSchemas);
    }
    let fraction = |i: usize, t: Timestamp| (t - times[i]) as f64 / (times[i + 1] - times[i]) as f64;
    let left_between = smoothed && times[first] < window.start;
    let left = if left_between {
        between(&histograms[first], &histograms[first + 1], fraction(first, window.start), counter)?
    } else {
        FloatHistogram::clone(&histograms[first])
    };
    let right_between = smoothed && last > 0 && times[last] > window.end;
    let right = if right_between {
        between(&histograms[last - 1], &histograms[last], fraction(last - 1, window.end), counter)?
    } else {
        FloatHistogram::clone(&histograms[last])
    };
    let mut result = right.minus(&left)?.0;
    if counter {
        let from = if times[first] <= window.start { first + 1 } else { first };
        let to = if times[last] >= window.end { last } else { last + 1 };
        let mut previous = &left;
        for (offset, histogram) in histograms.get(from..to).unwrap_or(&[]).iter().enumerate() {
            // A left end between samples has a reset behind it already: only a decrease counts, not the hint.
            let reset = if offset == 0 && left_between {
                unhinted(histogram).is_reset_after(previous)
            } else {
                histogram.is_reset_after(previous)
            };
            if reset {
                result = result.plus(previous)?.0;
            }
            previous = histogram;
        }
        // A last sample within the window was looked at already.
        let right_resets = if times[last] < window.end {
            false
        } else if right_between || left_between && from >= to {
            unhinted(&right).is_reset_after(previous)
        } else {
            first != last && right.is_reset_after(previous)
        };
        if right_resets {
            result = result.plus(previous)?.0;
        }
    }
    if series.function() == RangeFn::Rate {
        result.divide(series.window_seconds());
    }
    result.counter_reset_hint = CounterResetHint::Gauge;
    result.compact();
    Ok(Some(result))
}

fn unhinted(histogram: &FloatHistogram) -> FloatHistogram {
    FloatHistogram { counter_reset_hint: CounterResetHint::Unknown, ..histogram.clone() }
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
    let mut noted = false;
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
            if !noted {
                state.notes.mixed_floats_histograms(labels.metric_name(), selector.span);
                noted = true;
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
            let (a, b) = (&samples.histograms[next - 1], &samples.histograms[next]);
            let fraction = (t - times[next - 1]) as f64 / (times[next] - times[next - 1]) as f64;
            let counter = b.counter_reset_hint != CounterResetHint::Gauge;
            match between(a, b, fraction, counter) {
                Ok(histogram) => into.push_histogram(step, Arc::new(histogram)),
                Err(IncompatibleSchemas) if noted => {}
                Err(IncompatibleSchemas) => {
                    state.notes.mixed_exponential_custom(labels.metric_name(), selector.span);
                    noted = true;
                }
            }
        } else if next > lo {
            into.push_histogram(step, Arc::clone(&samples.histograms[next - 1]));
        }
    }
    Ok(())
}
