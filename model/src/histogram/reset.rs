//! Has the counter behind a histogram been reset since its previous sample?

use super::arithmetic::{common_bounds, target_bucket};
use super::bounds::{coarser_index, upper_bound};
use super::buckets::cells;
use super::{CounterResetHint, FloatHistogram, Span};

impl FloatHistogram {
    /// Whether a reset lies between `previous` and `self`: what the hint says or, without one, whether any component
    /// that can only grow has shrunk. (Prometheus' `FloatHistogram.DetectReset`.)
    pub fn is_reset_after(&self, previous: &Self) -> bool {
        match self.counter_reset_hint {
            CounterResetHint::CounterReset => true,
            CounterResetHint::NotCounterReset => false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => self.has_shrunk_since(previous),
        }
    }

    /// Whether any component that can only grow is less than in `previous`, or is not comparable; hints do not count.
    pub fn has_shrunk_since(&self, previous: &Self) -> bool {
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() != previous.uses_custom_buckets() {
            return true;
        }
        if self.uses_custom_buckets() {
            return self.custom_buckets_shrank(previous);
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (previous_zero_count, threshold) = previous.zero_count_for(self.zero_threshold);
        // A zero bucket that now ends within a populated bucket cannot come from counting on.
        if threshold != self.zero_threshold || self.zero_count < previous_zero_count {
            return true;
        }
        self.side_shrank(
            (&self.positive_spans, &self.positive_buckets),
            (&previous.positive_spans, &previous.positive_buckets),
            previous.schema,
        ) || self.side_shrank(
            (&self.negative_spans, &self.negative_buckets),
            (&previous.negative_spans, &previous.negative_buckets),
            previous.schema,
        )
    }

    fn side_shrank(&self, own: (&[Span], &[f64]), previous: (&[Span], &[f64]), from: i32) -> bool {
        let previous = cells(previous.0, previous.1)
            .map(|(index, count)| (coarser_index(index, from, self.schema), count))
            .filter(|(index, _)| upper_bound(*index, self.schema, &[]) > self.zero_threshold);
        shrank(cells(own.0, own.1), previous)
    }

    fn custom_buckets_shrank(&self, previous: &Self) -> bool {
        let own = cells(&self.positive_spans, &self.positive_buckets);
        let before = cells(&previous.positive_spans, &previous.positive_buckets);
        if self.custom_values == previous.custom_values {
            return shrank(own, before);
        }
        let common = common_bounds(&self.custom_values, &previous.custom_values);
        shrank(
            own.map(|(index, count)| (target_bucket(index, &self.custom_values, &common), count)),
            before.map(|(index, count)| (target_bucket(index, &previous.custom_values, &common), count)),
        )
    }
}

/// Whether some index has less in `now` than in `before`. Both sorted; counts of equal indexes add up.
fn shrank(now: impl Iterator<Item = (i32, f64)>, before: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut now = grouped(now);
    let mut current = now.next();
    for (index, count) in grouped(before) {
        while current.is_some_and(|(at, _)| at < index) {
            current = now.next();
        }
        let present = current.filter(|(at, _)| *at == index).map_or(0.0, |(_, count)| count);
        if present < count {
            return true;
        }
    }
    false
}

fn grouped(cells: impl Iterator<Item = (i32, f64)>) -> impl Iterator<Item = (i32, f64)> {
    let mut cells = cells.peekable();
    std::iter::from_fn(move || {
        let (index, mut total) = cells.next()?;
        while let Some((_, count)) = cells.next_if(|(next, _)| *next == index) {
            total += count;
        }
        Some((index, total))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(count: f64, buckets: &[f64]) -> FloatHistogram {
        FloatHistogram {
            count,
            positive_spans: vec![Span { offset: 0, length: buckets.len() as u32 }],
            positive_buckets: buckets.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn a_smaller_component_is_a_reset() {
        let before = histogram(3.0, &[1.0, 2.0]);
        assert!(!histogram(4.0, &[1.0, 3.0]).is_reset_after(&before));
        assert!(!histogram(4.0, &[1.0, 2.0, 1.0]).is_reset_after(&before));
        assert!(histogram(2.0, &[1.0, 2.0]).is_reset_after(&before));
        assert!(histogram(4.0, &[2.0, 1.0]).is_reset_after(&before));
        assert!(histogram(4.0, &[4.0]).is_reset_after(&before));
        let hinted = FloatHistogram {
            counter_reset_hint: CounterResetHint::NotCounterReset,
            ..histogram(1.0, &[1.0])
        };
        assert!(!hinted.is_reset_after(&before));
    }

    #[test]
    fn coarser_schema_is_no_reset_but_finer_is() {
        let fine = FloatHistogram { schema: 1, ..histogram(4.0, &[0.0, 2.0, 2.0]) };
        let coarse = histogram(5.0, &[0.0, 5.0]);
        assert!(!coarse.is_reset_after(&fine));
        assert!(FloatHistogram { schema: 1, ..histogram(5.0, &[0.0, 2.0, 3.0]) }.is_reset_after(&coarse));
    }
}
