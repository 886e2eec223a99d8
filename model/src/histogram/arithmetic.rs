//! Scaling, adding and subtracting histograms, and what has to be made equal before: zero buckets, schemas, custom
//! bounds. Rules and their order are those of Prometheus' `model/histogram/float_histogram.go` (3.14).
//!
//! Additions can carry a compensation (Neumaier's variant of Kahan summation) per component: see [`HistogramSum`].

use std::sync::Arc;

use super::bounds::{coarser_index, upper_bound};
use super::buckets::{cells, pack};
use super::{CounterResetHint, FloatHistogram, Span};
use crate::float::kahan_add;

/// Exponential and custom buckets cannot be brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
pub struct IncompatibleSchemas;

/// What an addition or subtraction met on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// One side said that its counter was reset, the other that it was not.
    pub counter_reset_collision: bool,
    /// Custom bounds differed; the result has the bounds that both know.
    pub custom_bounds: bool,
}

/// A bucket count with its compensation.
#[derive(Clone, Copy, Debug, Default)]
struct Compensated {
    value: f64,
    error: f64,
}

impl Compensated {
    fn add(&mut self, value: f64) {
        (self.value, self.error) = kahan_add(value, self.value, self.error);
    }

    fn total(self) -> f64 {
        if self.value.is_infinite() { self.value } else { self.value + self.error }
    }
}

type Cells = Vec<(i32, Compensated)>;

/// A sum of histograms with a compensation for the rounding errors of every component.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    hint: CounterResetHint,
    schema: i32,
    zero_threshold: f64,
    custom_values: Arc<[f64]>,
    zero_count: Compensated,
    count: Compensated,
    sum: Compensated,
    positive: Cells,
    negative: Cells,
}

fn exact(spans: &[Span], counts: &[f64]) -> Cells {
    cells(spans, counts).map(|(index, value)| (index, Compensated { value, error: 0.0 })).collect()
}

impl From<&FloatHistogram> for HistogramSum {
    fn from(h: &FloatHistogram) -> Self {
        let plain = |value| Compensated { value, error: 0.0 };
        Self {
            hint: h.counter_reset_hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: Arc::clone(&h.custom_values),
            zero_count: plain(h.zero_count),
            count: plain(h.count),
            sum: plain(h.sum),
            positive: exact(&h.positive_spans, &h.positive_buckets),
            negative: exact(&h.negative_spans, &h.negative_buckets),
        }
    }
}

impl HistogramSum {
    /// Adds `other`.
    ///
    /// # Errors
    /// When only one of the two has custom buckets; the sum is unchanged then.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Reconciled, IncompatibleSchemas> {
        self.combine(other, 1.0)
    }

    /// Adds `sign * other`, `sign` being 1 or -1.
    fn combine(&mut self, other: &FloatHistogram, sign: f64) -> Result<Reconciled, IncompatibleSchemas> {
        let custom = self.schema == super::CUSTOM_BUCKETS_SCHEMA;
        if custom != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let mut reconciled = Reconciled::default();
        (self.hint, reconciled.counter_reset_collision) = combine_hints(self.hint, other.counter_reset_hint);
        self.count.add(sign * other.count);
        self.sum.add(sign * other.sum);
        if custom {
            reconciled.custom_bounds = self.combine_custom(other, sign);
            return Ok(reconciled);
        }
        let other_zero_count = self.reconcile_zero_buckets(other);
        self.zero_count.add(sign * other_zero_count);
        if other.schema < self.schema {
            self.reduce_to(other.schema);
        }
        let (schema, threshold) = (self.schema, self.zero_threshold);
        for (own, spans, counts) in [
            (&mut self.positive, &other.positive_spans, &other.positive_buckets),
            (&mut self.negative, &other.negative_spans, &other.negative_buckets),
        ] {
            let theirs = cells(spans, counts)
                .map(|(index, count)| (coarser_index(index, other.schema, schema), sign * count))
                .filter(|(index, _)| upper_bound(*index, schema, &[]) > threshold);
            merge(own, theirs);
        }
        Ok(reconciled)
    }

    /// Adds the buckets of `other`, both with custom bounds. Says whether bounds had to be dropped.
    fn combine_custom(&mut self, other: &FloatHistogram, sign: f64) -> bool {
        let theirs = cells(&other.positive_spans, &other.positive_buckets).map(|(i, c)| (i, sign * c));
        if self.custom_values == other.custom_values {
            merge(&mut self.positive, theirs);
            return false;
        }
        let common: Arc<[f64]> = common_bounds(&self.custom_values, &other.custom_values).into();
        let own = std::mem::take(&mut self.positive);
        for (index, cell) in own {
            let target = target_bucket(index, &self.custom_values, &common);
            match self.positive.last_mut() {
                Some((last, total)) if *last == target => {
                    total.add(cell.value);
                    total.add(cell.error);
                }
                _ => self.positive.push((target, cell)),
            }
        }
        let theirs =
            theirs.map(|(index, count)| (target_bucket(index, &other.custom_values, &common), count));
        merge(&mut self.positive, theirs);
        self.custom_values = common;
        true
    }

    /// Widens the own zero bucket as needed and says what the zero bucket of `other` holds at that width.
    fn reconcile_zero_buckets(&mut self, other: &FloatHistogram) -> f64 {
        let (mut count, mut threshold) = (other.zero_count, other.zero_threshold);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (count, threshold) = other.zero_count_for(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                self.widen_zero_bucket(threshold);
            }
            if threshold.is_nan() || self.zero_threshold.is_nan() {
                break;
            }
        }
        count
    }

    fn widen_zero_bucket(&mut self, threshold: f64) {
        let threshold = zero_threshold_for(threshold, |threshold| {
            [&self.positive, &self.negative].into_iter().find_map(|side| {
                side.iter()
                    .find(|(index, cell)| straddles(*index, self.schema, threshold) && cell.value != 0.0)
                    .map(|(index, _)| upper_bound(*index, self.schema, &[]))
            })
        });
        let schema = self.schema;
        for side in [&mut self.positive, &mut self.negative] {
            side.retain(|(index, cell)| {
                let inside = upper_bound(index.saturating_sub(1), schema, &[]) < threshold;
                if inside {
                    self.zero_count.add(cell.value);
                    self.zero_count.add(cell.error);
                }
                !inside
            });
        }
        self.zero_threshold = threshold;
    }

    fn reduce_to(&mut self, schema: i32) {
        let from = self.schema;
        for side in [&mut self.positive, &mut self.negative] {
            let fine = std::mem::take(side);
            for (index, cell) in fine {
                let index = coarser_index(index, from, schema);
                match side.last_mut() {
                    Some((last, total)) if *last == index => {
                        total.add(cell.value);
                        total.add(cell.error);
                    }
                    _ => side.push((index, cell)),
                }
            }
        }
        self.schema = schema;
    }

    /// Multiplies all counts and the sum, compensations included.
    pub fn scale(&mut self, factor: f64) {
        self.map(|value| value * factor);
    }

    /// Divides all counts and the sum, compensations included.
    pub fn divide(&mut self, divisor: f64) {
        self.map(|value| value / divisor);
    }

    fn map(&mut self, f: impl Fn(f64) -> f64) {
        let all = [&mut self.zero_count, &mut self.count, &mut self.sum].into_iter();
        let buckets = self.positive.iter_mut().chain(&mut self.negative).map(|(_, cell)| cell);
        for cell in all.chain(buckets) {
            cell.value = f(cell.value);
            cell.error = f(cell.error);
        }
    }

    /// Whether some component has become infinite.
    pub fn has_overflow(&self) -> bool {
        let all = [&self.zero_count, &self.count, &self.sum].into_iter();
        all.chain(self.positive.iter().chain(&self.negative).map(|(_, cell)| cell))
            .any(|cell| cell.value.is_infinite())
    }

    /// The sum with its compensations added; empty buckets stay.
    pub fn total(&self) -> FloatHistogram {
        let side = |cells: &Cells| pack(cells.iter().map(|(index, cell)| (*index, cell.total())));
        let (positive_spans, positive_buckets) = side(&self.positive);
        let (negative_spans, negative_buckets) = side(&self.negative);
        FloatHistogram {
            counter_reset_hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count.total(),
            count: self.count.total(),
            sum: self.sum.total(),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: Arc::clone(&self.custom_values),
        }
    }

    /// As [`HistogramSum::total`], but without the compensations: plain addition.
    fn uncompensated(&self) -> FloatHistogram {
        let mut plain = self.clone();
        for cell in [&mut plain.zero_count, &mut plain.count, &mut plain.sum] {
            cell.error = 0.0;
        }
        for (_, cell) in plain.positive.iter_mut().chain(&mut plain.negative) {
            cell.error = 0.0;
        }
        plain.total()
    }
}

/// Adds sorted `theirs` (equal indexes may repeat) into sorted `own`.
fn merge(own: &mut Cells, theirs: impl Iterator<Item = (i32, f64)>) {
    let mut at = 0;
    for (index, count) in theirs {
        while at < own.len() && own[at].0 < index {
            at += 1;
        }
        if at < own.len() && own[at].0 == index {
            own[at].1.add(count);
        } else {
            own.insert(at, (index, Compensated { value: count, error: 0.0 }));
        }
    }
}

/// What is known of the sum's counter resets, and whether the two sides contradict each other.
fn combine_hints(own: CounterResetHint, other: CounterResetHint) -> (CounterResetHint, bool) {
    use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
    match (own, other) {
        (own, other) if own == other => (own, false),
        (Gauge, _) | (_, Gauge) => (Gauge, false),
        (Unknown, _) | (_, Unknown) => (Unknown, false),
        (CounterReset | NotCounterReset, _) => (Unknown, true),
    }
}

/// Bounds that both sorted lists have.
pub(super) fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (mut i, mut j) = (0, 0);
    let mut common = Vec::new();
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            common.push(a[i]);
            i += 1;
            j += 1;
        } else if a[i] < b[j] {
            i += 1;
        } else {
            j += 1;
        }
    }
    common
}

/// The bucket over `common` that holds bucket `index` over `bounds`.
pub(super) fn target_bucket(index: i32, bounds: &[f64], common: &[f64]) -> i32 {
    let upper = upper_bound(index, super::CUSTOM_BUCKETS_SCHEMA, bounds);
    i32::try_from(common.partition_point(|bound| *bound < upper)).unwrap_or(i32::MAX)
}

/// Whether a zero bucket of this width ends within the bucket.
fn straddles(index: i32, schema: i32, threshold: f64) -> bool {
    upper_bound(index.saturating_sub(1), schema, &[]) < threshold
        && upper_bound(index, schema, &[]) > threshold
}

/// The least width from `threshold` on that cuts no populated bucket; `cut` gives the end of one that is cut.
fn zero_threshold_for(mut threshold: f64, cut: impl Fn(f64) -> Option<f64>) -> f64 {
    while let Some(end) = cut(threshold) {
        threshold = end;
    }
    threshold
}

impl FloatHistogram {
    /// What the zero bucket would hold if it were at least `threshold` wide, and its width then: it never ends within a
    /// populated bucket.
    pub(super) fn zero_count_for(&self, threshold: f64) -> (f64, f64) {
        // A bucket that reaches into the zero bucket, as coarser schemas make them, is not in it.
        if threshold == self.zero_threshold {
            return (self.zero_count, threshold);
        }
        let sides =
            [(&self.positive_spans, &self.positive_buckets), (&self.negative_spans, &self.negative_buckets)];
        let threshold = zero_threshold_for(threshold, |threshold| {
            sides.into_iter().find_map(|(spans, counts)| {
                cells(spans, counts)
                    .find(|(index, count)| straddles(*index, self.schema, threshold) && *count != 0.0)
                    .map(|(index, _)| upper_bound(index, self.schema, &[]))
            })
        });
        let mut count = self.zero_count;
        for (spans, counts) in sides {
            for (index, bucket) in cells(spans, counts) {
                if upper_bound(index.saturating_sub(1), self.schema, &[]) >= threshold {
                    break;
                }
                count += bucket;
            }
        }
        (count, threshold)
    }

    /// `self + other`.
    ///
    /// # Errors
    /// When only one of the two has custom buckets.
    pub fn plus(&self, other: &Self) -> Result<(Self, Reconciled), IncompatibleSchemas> {
        let mut sum = HistogramSum::from(self);
        let reconciled = sum.combine(other, 1.0)?;
        Ok((sum.uncompensated(), reconciled))
    }

    /// `self - other`. The counter reset hint is treated as in an addition.
    ///
    /// # Errors
    /// When only one of the two has custom buckets.
    pub fn minus(&self, other: &Self) -> Result<(Self, Reconciled), IncompatibleSchemas> {
        let mut sum = HistogramSum::from(self);
        let reconciled = sum.combine(other, -1.0)?;
        Ok((sum.uncompensated(), reconciled))
    }

    /// Multiplies all counts and the sum. What is less than nothing is a gauge.
    pub fn scale(&mut self, factor: f64) {
        if factor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
        self.map_counts(|value| value * factor);
    }

    /// Divides all counts and the sum; by less than zero, that is a gauge. By zero, exponential and custom buckets vanish: their counts are no numbers or
    /// infinite, count, sum and zero bucket say so.
    pub fn divide(&mut self, divisor: f64) {
        if divisor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
        self.map_counts(|value| value / divisor);
        if divisor == 0.0 {
            self.positive_spans.clear();
            self.positive_buckets.clear();
            self.negative_spans.clear();
            self.negative_buckets.clear();
        }
    }

    fn map_counts(&mut self, f: impl Fn(f64) -> f64) {
        let all = [&mut self.zero_count, &mut self.count, &mut self.sum].into_iter();
        for value in all.chain(&mut self.positive_buckets).chain(&mut self.negative_buckets) {
            *value = f(*value);
        }
    }

    /// Removes empty buckets.
    pub fn compact(&mut self) {
        for (spans, counts) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            if counts.contains(&0.0) || spans.iter().skip(1).any(|span| span.offset == 0) {
                let kept: Vec<(i32, f64)> = cells(spans, counts).filter(|(_, count)| *count != 0.0).collect();
                (*spans, *counts) = pack(kept);
            }
        }
    }

    /// The same observations at the coarser `schema`; itself when that is not coarser.
    #[must_use]
    pub fn to_schema(&self, schema: i32) -> Self {
        if self.uses_custom_buckets() || schema >= self.schema {
            return self.clone();
        }
        let mut sum = HistogramSum::from(self);
        sum.reduce_to(schema);
        sum.uncompensated()
    }

    /// Whether both say the same: equal numbers (a NaN equals itself) and layouts, empty spans aside, hints ignored.
    pub fn same_as(&self, other: &Self) -> bool {
        let bits = |a: f64, b: f64| a.to_bits() == b.to_bits() || a == b;
        let sides = |spans_a: &[Span], a: &[f64], spans_b: &[Span], b: &[f64]| {
            a.len() == b.len()
                && cells(spans_a, a).zip(cells(spans_b, b)).all(|(a, b)| a.0 == b.0 && bits(a.1, b.1))
        };
        self.schema == other.schema
            && bits(self.count, other.count)
            && bits(self.sum, other.sum)
            && (self.uses_custom_buckets()
                || (self.zero_threshold == other.zero_threshold && bits(self.zero_count, other.zero_count)))
            && self.custom_values == other.custom_values
            && sides(
                &self.positive_spans,
                &self.positive_buckets,
                &other.positive_spans,
                &other.positive_buckets,
            )
            && sides(
                &self.negative_spans,
                &self.negative_buckets,
                &other.negative_spans,
                &other.negative_buckets,
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::CUSTOM_BUCKETS_SCHEMA;
    use proptest::prelude::*;

    fn histogram(schema: i32, offset: i32, buckets: &[f64]) -> FloatHistogram {
        FloatHistogram {
            schema,
            count: buckets.iter().sum(),
            sum: 1.0,
            positive_spans: vec![Span { offset, length: buckets.len() as u32 }],
            positive_buckets: buckets.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn sums_take_the_coarser_schema() {
        let fine = histogram(1, 1, &[1.0, 2.0, 3.0]);
        let coarse = histogram(0, 1, &[10.0, 20.0]);
        for (sum, _) in [fine.plus(&coarse).unwrap(), coarse.plus(&fine).unwrap()] {
            assert_eq!(sum.schema, 0);
            assert_eq!(
                cells(&sum.positive_spans, &sum.positive_buckets).collect::<Vec<_>>(),
                [(1, 13.0), (2, 23.0)]
            );
        }
    }

    #[test]
    fn zero_buckets_grow_until_they_cut_nothing() {
        // Buckets (0.5, 1] and (1, 2]; the other zero bucket reaches into the first.
        let narrow = histogram(0, 0, &[4.0, 5.0]);
        let wide =
            FloatHistogram { zero_threshold: 0.75, zero_count: 2.0, count: 2.0, ..FloatHistogram::default() };
        let (sum, _) = narrow.plus(&wide).unwrap();
        assert_eq!((sum.zero_threshold, sum.zero_count, sum.count), (1.0, 6.0, 11.0));
        assert_eq!(cells(&sum.positive_spans, &sum.positive_buckets).collect::<Vec<_>>(), [(1, 5.0)]);
        let (difference, _) = wide.minus(&narrow).unwrap();
        assert_eq!((difference.zero_threshold, difference.zero_count), (1.0, -2.0));
    }

    #[test]
    fn custom_bounds_are_reduced_to_common_ones() {
        let custom = |bounds: &[f64], buckets: &[f64]| FloatHistogram {
            custom_values: bounds.into(),
            ..histogram(CUSTOM_BUCKETS_SCHEMA, 0, buckets)
        };
        let a = custom(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]);
        let b = custom(&[2.0, 5.0, 9.0], &[10.0, 20.0, 30.0, 40.0]);
        let (sum, reconciled) = a.plus(&b).unwrap();
        assert!(reconciled.custom_bounds);
        assert_eq!(
            (&*sum.custom_values, &sum.positive_buckets[..]),
            (&[2.0, 5.0][..], &[13.0, 23.0, 74.0][..])
        );
        assert!(!a.plus(&a).unwrap().1.custom_bounds);
        assert_eq!(a.plus(&histogram(0, 0, &[1.0])).unwrap_err(), IncompatibleSchemas);
    }

    #[test]
    fn hints_combine_and_collide() {
        use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
        let hint = |a, b| {
            let with = |hint| FloatHistogram { counter_reset_hint: hint, ..histogram(0, 0, &[1.0]) };
            let (sum, reconciled) = with(a).plus(&with(b)).unwrap();
            (sum.counter_reset_hint, reconciled.counter_reset_collision)
        };
        assert_eq!(hint(Gauge, CounterReset), (Gauge, false));
        assert_eq!(hint(NotCounterReset, Unknown), (Unknown, false));
        assert_eq!(hint(NotCounterReset, NotCounterReset), (NotCounterReset, false));
        assert_eq!(hint(CounterReset, NotCounterReset), (Unknown, true));
    }

    #[test]
    fn compensated_sums_keep_small_summands() {
        let mut sum = HistogramSum::from(&histogram(0, 0, &[1e17]));
        for value in [1.0, -1e17, 1.0] {
            sum.add(&histogram(0, 0, &[value])).unwrap();
        }
        assert_eq!(sum.total().positive_buckets, [2.0]);
        assert!(!sum.has_overflow());
    }

    proptest! {
        #[test]
        fn subtracting_takes_back_what_was_added(
            a in prop::collection::vec(0u32..100, 1..12),
            b in prop::collection::vec(0u32..100, 1..12),
            schemas in (0i32..4, 0i32..4),
            offsets in (-8i32..8, -8i32..8),
        ) {
            let floats = |v: &[u32]| v.iter().map(|c| f64::from(*c)).collect::<Vec<_>>();
            let a = histogram(schemas.0, offsets.0, &floats(&a));
            let b = histogram(schemas.1, offsets.1, &floats(&b));
            let (sum, _) = a.plus(&b).unwrap();
            prop_assert_eq!(sum.count, a.count + b.count);
            prop_assert_eq!(sum.positive_buckets.iter().sum::<f64>(), sum.count);
            let (mut back, _) = sum.minus(&b).unwrap();
            let mut expected = a.to_schema(sum.schema);
            back.compact();
            expected.compact();
            prop_assert!(back.same_as(&expected), "{} {}", back, expected);
            prop_assert!(!sum.is_reset_after(&a) || schemas.0 < schemas.1);
        }
    }
}
