//! What is stored about counter resets: whether a histogram continues the one before it in its series, as its counts say,
//! whatever the sender claimed. Not the detection itself, which is `model`'s, and nothing about floats.
//!
//! Readers see what Prometheus' chunks show, which begin anew at every reset: "no reset" where a histogram continues its
//! predecessor, "unknown" where it does not or has none, so that a window's first sample still knows of the one before the
//! window. A sender that claims a reset is believed; one that denies it is not. Gauges stay gauges.

use std::sync::Arc;

use model::Histogram;
use model::histogram::CounterResetHint;

use crate::chunk::HistogramValue;

impl HistogramValue {
    /// Gives it the hint to store behind `previous`, the newest sample of its series, if that is a histogram.
    pub(super) fn relate_to(&mut self, previous: Option<&Self>) {
        if self.is_gauge() || self.is_stale() {
            return;
        }
        let continues = previous.is_some_and(|previous| self.continues(previous));
        self.set_hint(if continues { CounterResetHint::NotCounterReset } else { CounterResetHint::Unknown });
    }

    /// Whether all but what is said of the predecessor is the same, bit by bit: a sample that is sent again need not claim
    /// the same.
    pub(crate) fn same_but_hint(&self, other: &Self) -> bool {
        let bare = |histogram: &Self| {
            let mut bare = histogram.clone();
            bare.forget_hint();
            bare
        };
        bare(self).same_bits(&bare(other))
    }

    fn set_hint(&mut self, hint: CounterResetHint) {
        if self.hint() == hint {
            return;
        }
        match self {
            Self::Integer(h) => Arc::make_mut(h).counter_reset_hint = hint,
            Self::Float(h) => Arc::make_mut(h).counter_reset_hint = hint,
        }
    }

    fn is_gauge(&self) -> bool {
        self.hint() == CounterResetHint::Gauge
    }

    fn is_stale(&self) -> bool {
        match self {
            Self::Integer(h) => h.is_stale(),
            Self::Float(h) => h.is_stale(),
        }
    }

    /// Whether it could be in one chunk with `previous`: of the same resolution, and nothing has shrunk.
    fn continues(&self, previous: &Self) -> bool {
        if previous.is_gauge() || previous.is_stale() || self.hint() == CounterResetHint::CounterReset {
            return false;
        }
        match (self, previous) {
            (Self::Integer(now), Self::Integer(before)) => {
                now.schema == before.schema
                    && now.zero_threshold == before.zero_threshold
                    && now.custom_values == before.custom_values
                    && !integers_shrank(now, before)
            }
            (Self::Float(now), Self::Float(before)) => {
                now.schema == before.schema
                    && now.zero_threshold == before.zero_threshold
                    && now.custom_values == before.custom_values
                    && !now.has_shrunk_since(before)
            }
            (Self::Integer(_), Self::Float(_)) | (Self::Float(_), Self::Integer(_)) => false,
        }
    }
}

/// As [`model::FloatHistogram::has_shrunk_since`], without a copy where the buckets are the same ones.
fn integers_shrank(now: &Histogram, before: &Histogram) -> bool {
    if now.positive_spans != before.positive_spans || now.negative_spans != before.negative_spans {
        return now.to_float().has_shrunk_since(&before.to_float());
    }
    let shrank = |now: &[i64], before: &[i64]| {
        // Buckets hold differences to their neighbours: their differences add up to the growth of each count.
        let mut growth = 0i64;
        now.iter().zip(before).any(|(now, before)| {
            growth = growth.wrapping_add(now.wrapping_sub(*before));
            growth < 0
        })
    };
    now.count < before.count
        || now.zero_count < before.zero_count
        || shrank(&now.positive_buckets, &before.positive_buckets)
        || shrank(&now.negative_buckets, &before.negative_buckets)
}

#[cfg(test)]
mod tests {
    use model::FloatHistogram;
    use model::histogram::Span;
    use model::stale_nan;
    use proptest::prelude::*;

    use super::*;

    fn integer(offset: i32, counts: &[i64]) -> Histogram {
        let mut before = 0;
        let mut difference = |count: &i64| *count - std::mem::replace(&mut before, *count);
        Histogram {
            count: counts.iter().sum::<i64>().cast_unsigned(),
            positive_spans: vec![Span { offset, length: counts.len() as u32 }],
            positive_buckets: counts.iter().map(&mut difference).collect(),
            ..Histogram::default()
        }
    }

    fn stored(values: Vec<HistogramValue>) -> Vec<CounterResetHint> {
        let mut previous: Option<HistogramValue> = None;
        let hint = |mut value: HistogramValue| {
            value.relate_to(previous.as_ref());
            previous = Some(value.clone());
            value.hint()
        };
        values.into_iter().map(hint).collect()
    }

    #[test]
    fn hints_tell_what_the_counts_say() {
        use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
        let value = |hint, counts: &[i64]| {
            HistogramValue::Integer(Arc::new(Histogram { counter_reset_hint: hint, ..integer(0, counts) }))
        };
        let stale = HistogramValue::Integer(Arc::new(Histogram { sum: stale_nan(), ..Histogram::default() }));
        let got = stored(vec![
            value(Unknown, &[1, 2]),
            value(Unknown, &[1, 2]),
            value(NotCounterReset, &[1, 1]),
            value(CounterReset, &[5, 5]),
            value(CounterReset, &[6, 6]),
            value(Gauge, &[6, 6]),
            value(NotCounterReset, &[7, 7]),
            value(Unknown, &[7, 8]),
            stale,
            value(Unknown, &[7, 8]),
            HistogramValue::Float(Arc::new(integer(0, &[9, 9]).to_float())),
        ]);
        assert_eq!(
            got,
            [
                Unknown,
                NotCounterReset,
                Unknown,
                Unknown,
                Unknown,
                Gauge,
                Unknown,
                NotCounterReset,
                Unknown,
                Unknown,
                Unknown
            ]
        );
    }

    #[test]
    fn another_resolution_begins_anew() {
        let fine = HistogramValue::Float(Arc::new(integer(0, &[1]).to_float()));
        let with = |change: fn(&mut FloatHistogram)| {
            let mut other = integer(0, &[9]).to_float();
            change(&mut other);
            HistogramValue::Float(Arc::new(other))
        };
        assert!(with(|_| {}).continues(&fine));
        assert!(!with(|h| h.schema = -1).continues(&fine));
        assert!(!with(|h| h.zero_threshold = 1.0).continues(&fine));
        assert!(!with(|h| h.custom_values = [1.0].into()).continues(&fine));
    }

    proptest! {
        /// Counting in whole numbers or in floats makes no difference, nor do other spans.
        #[test]
        fn integers_and_floats_agree(
            (a, b) in (1usize..6).prop_flat_map(|n| {
                let counts = || prop::collection::vec(0i64..4, n);
                (counts(), counts())
            }),
            offset in 0i32..2,
        ) {
            let (before, now) = (integer(0, &a), integer(offset, &b));
            prop_assert_eq!(integers_shrank(&now, &before), now.to_float().has_shrunk_since(&before.to_float()));
        }
    }
}
