//! `deriv` and `predict_linear`: the line of least squares through a window.

use model::Timestamp;
use model::float::kahan_add;

use super::sliding::{Double, Join, Sliding};
use super::{Series, Window};
use crate::exec::column::Column;
use crate::exec::error::QueryError;
use crate::plan::RangeFn;

/// Slope per second, and the value at the time from which seconds are counted.
#[derive(Clone, Copy, Debug)]
struct Line {
    slope: f64,
    intercept: f64,
}

impl Line {
    fn through(n: f64, x: f64, y: f64, xy: f64, xx: f64) -> Self {
        let covariance = xy - x * y / n;
        let variance = xx - x * x / n;
        let slope = covariance / variance;
        Self { slope, intercept: y / n - slope * x / n }
    }

    fn constant(y: f64) -> Self {
        if y.is_infinite() {
            Self { slope: f64::NAN, intercept: f64::NAN }
        } else {
            Self { slope: 0.0, intercept: y }
        }
    }
}

/// Prometheus' regression: compensated sums over times relative to `origin`.
fn line(times: &[Timestamp], values: &[f64], origin: Timestamp) -> Line {
    if values.iter().all(|value| *value == values[0]) {
        return Line::constant(values[0]);
    }
    let mut sums = [(0.0, 0.0); 4];
    for (t, y) in times.iter().zip(values) {
        let x = (t - origin) as f64 / 1000.0;
        for (sum, term) in sums.iter_mut().zip([x, *y, x * y, x * x]) {
            *sum = kahan_add(term, sum.0, sum.1);
        }
    }
    let [x, y, xy, xx] = sums.map(|(sum, error)| sum + error);
    Line::through(values.len() as f64, x, y, xy, xx)
}

/// Sums for a regression, times relative to the start of the series: exact enough to be moved to another origin.
#[derive(Clone, Copy)]
struct Sums {
    x: Double,
    y: Double,
    xy: Double,
    xx: Double,
}

impl Sums {
    fn of(x: f64, y: f64) -> Self {
        Self { x: Double::new(x), y: Double::new(y), xy: Double::product(x, y), xx: Double::product(x, x) }
    }

    /// The line when seconds are counted from `shift` later.
    fn line(self, n: f64, shift: f64) -> Line {
        let x = self.x.minus(Double::product(n, shift));
        let xy = self.xy.minus(self.y.times(shift));
        let xx = self.xx.minus(self.x.times(2.0 * shift)).join(Double::product(shift, shift).times(n));
        Line::through(n, x.value(), self.y.value(), xy.value(), xx.value())
    }
}

impl Join for Sums {
    fn join(self, next: Self) -> Self {
        Self {
            x: self.x.join(next.x),
            y: self.y.join(next.y),
            xy: self.xy.join(next.xy),
            xx: self.xx.join(next.xx),
        }
    }
}

impl Series<'_, '_> {
    pub(super) fn regression(&self, into: &mut Column) -> Result<(), QueryError> {
        let predict = self.evaluation.function == RangeFn::PredictLinear;
        let samples = self.samples;
        let (times, values) = (&samples.float_times, &samples.float_values);
        let slides = self.slides() && values.iter().all(|value| value.is_finite());
        let begin = times.first().copied().unwrap_or_default();
        // How often a value differs from the one before: none within a window means a level line.
        let mut changes = Vec::new();
        if slides {
            let mut count = 0u32;
            for (index, value) in values.iter().enumerate() {
                count += u32::from(index > 0 && values[index - 1] != *value);
                changes.push(count);
            }
        }
        let mut sliding = Sliding::new();
        self.for_windows(|window| {
            let Window { lo, hi, step, .. } = *window;
            if window.floats() > 0 && window.histograms() > 0 {
                self.note_ignored_histograms();
            }
            if window.floats() < 2 {
                return Ok(());
            }
            // Predictions count from the time of evaluation, slopes from a time that is near.
            let origin = if predict { self.evaluation.steps.at(step) } else { times[lo] };
            let line = if !slides {
                line(&times[lo..hi], &values[lo..hi], origin)
            } else {
                let seconds = |t: Timestamp| (t - begin) as f64 / 1000.0;
                let sums = sliding.advance(lo, hi, |i| Sums::of(seconds(times[i]), values[i]));
                match sums {
                    _ if changes[lo] == changes[hi - 1] => Line::constant(values[lo]),
                    Some(sums) if sums.xy.value().is_finite() => sums.line((hi - lo) as f64, seconds(origin)),
                    _ => line(&times[lo..hi], &values[lo..hi], origin),
                }
            };
            let value = if predict { line.slope * self.param(0, step) + line.intercept } else { line.slope };
            into.set(step, value);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shifted_sums_give_the_same_line(
            values in prop::collection::vec(-1e3f64..1e3, 3..40),
            begin in -1_000_000i64..1_000_000,
            origin in 0i64..10_000_000,
        ) {
            let times: Vec<i64> = (0..values.len()).map(|i| begin + 15_000 * i as i64).collect();
            let origin = begin + origin;
            let seconds = |t: i64| (t - begin) as f64 / 1000.0;
            let sums = times.iter().zip(&values).map(|(t, y)| Sums::of(seconds(*t), *y)).reduce(Join::join).unwrap();
            let sliding = sums.line(values.len() as f64, seconds(origin));
            let near = line(&times, &values, begin);
            prop_assert!((sliding.slope - near.slope).abs() <= 1e-6 * near.slope.abs().max(1e-3));
        }
    }
}
