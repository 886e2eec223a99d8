//! `quantile_over_time` and `mad_over_time`: the window as a sorted list that samples enter and leave.

use super::{Noted, Series, Window};
use crate::exec::column::Column;
use crate::exec::error::QueryError;
use crate::exec::quantile::quantile_of_sorted;
use crate::plan::RangeFn;

/// Numbers in ascending order, NaN before all.
#[derive(Debug, Default)]
struct Sorted {
    values: Vec<f64>,
}

/// Order of quantiles: NaN counts as the smallest number; both zeros are equal.
pub(crate) fn quantile_order(a: &f64, b: &f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal),
    }
}

impl Sorted {
    fn insert(&mut self, value: f64) {
        let at = self.values.partition_point(|other| quantile_order(other, &value).is_lt());
        self.values.insert(at, value);
    }

    fn remove(&mut self, value: f64) {
        let at = self.values.partition_point(|other| quantile_order(other, &value).is_lt());
        self.values.remove(at);
    }

    /// The distances of all values from `center`, in ascending order: a merge of both sides.
    fn distances(&self, center: f64, into: &mut Vec<f64>) {
        into.clear();
        if center.is_nan() {
            into.resize(self.values.len(), f64::NAN);
            return;
        }
        let nans = self.values.partition_point(|value| value.is_nan());
        into.resize(nans, f64::NAN);
        let values = &self.values[nans..];
        let mut right = values.partition_point(|value| *value < center);
        let mut left = right;
        while left > 0 || right < values.len() {
            let below = left.checked_sub(1).map(|i| (values[i] - center).abs());
            let above = values.get(right).map(|value| (value - center).abs());
            match (below, above) {
                // Infinities less infinity are no numbers and sort first.
                (Some(a), b) if a.is_nan() || b.is_none_or(|b| a <= b) => {
                    left -= 1;
                    into.push(a);
                }
                (_, Some(b)) => {
                    right += 1;
                    into.push(b);
                }
                (_, None) => break,
            }
        }
        if into[nans..].iter().any(|value| value.is_nan()) {
            into.sort_by(quantile_order);
        }
    }
}

impl Series<'_, '_> {
    pub(super) fn order_statistic(&self, into: &mut Column) -> Result<(), QueryError> {
        let mad = self.evaluation.function == RangeFn::Mad;
        let values = &self.samples.float_values;
        let mut sorted = Sorted::default();
        let mut distances = Vec::new();
        let (mut from, mut to) = (0, 0);
        self.for_float_windows(|window| {
            let Window { lo, hi, .. } = *window;
            if hi - lo > 2 * (hi.saturating_sub(to)) && lo < to {
                values[from..lo].iter().for_each(|value| sorted.remove(*value));
                values[to..hi].iter().for_each(|value| sorted.insert(*value));
            } else {
                // Few samples stay: sorting anew is cheaper than moving each.
                sorted.values.clear();
                sorted.values.extend_from_slice(&values[lo..hi]);
                sorted.values.sort_by(quantile_order);
            }
            (from, to) = (lo, hi);
            let value = if mad {
                let median = quantile_of_sorted(0.5, &sorted.values);
                sorted.distances(median, &mut distances);
                quantile_of_sorted(0.5, &distances)
            } else {
                let q = self.param(0, window.step);
                if q.is_nan() || !(0.0..=1.0).contains(&q) {
                    self.note(Noted::InvalidQuantile, |notes, _, span| notes.invalid_quantile(q, span));
                }
                quantile_of_sorted(q, &sorted.values)
            };
            into.set(window.step, value);
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
        fn distances_are_sorted_distances(mut values in prop::collection::vec(-50f64..50.0, 1..40), center in -60f64..60.0) {
            let mut sorted = Sorted::default();
            values.iter().for_each(|value| sorted.insert(*value));
            let mut got = Vec::new();
            sorted.distances(center, &mut got);
            values.iter_mut().for_each(|value| *value = (*value - center).abs());
            values.sort_by(quantile_order);
            prop_assert_eq!(got, values);
        }
    }
}
