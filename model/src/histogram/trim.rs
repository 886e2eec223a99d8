//! The trim operators `</` and `>/`: keep the observations below or above a value.
//!
//! A bucket that the value cuts is split as quantiles would be: exponentially in exponential buckets, linearly in
//! custom ones and in the zero bucket. The new sum is estimated from the middles of what is kept, unless nothing was
//! cut off. Of a bucket that is open towards infinity nothing but its finite bound (or the cutting value beyond it) is
//! known, so that it is kept or dropped as a whole.

use super::FloatHistogram;
use super::buckets::{Bucket, cells, pack};

/// Which observations stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those up to the value: `</`.
    Below,
    /// Those from the value on: `>/`.
    Above,
}

/// How values spread within a bucket.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    Linear,
    Exponential,
}

/// What stays of a bucket: how many observations, and a value that stands for them.
struct Kept {
    count: f64,
    middle: f64,
}

impl FloatHistogram {
    /// The histogram without the observations on the other side of `cut`.
    #[must_use]
    pub fn trimmed(&self, keep: Keep, cut: f64) -> Self {
        let custom = self.uses_custom_buckets();
        let spread = if custom { Spread::Linear } else { Spread::Exponential };
        let mut trimmed = self.clone();
        let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
        let mut keep_of = |bucket: Bucket, spread: Spread| {
            if bucket.count == 0.0 {
                return 0.0;
            }
            let kept = kept(bucket, keep, cut, spread);
            changed |= kept.count != bucket.count;
            count += kept.count;
            if kept.count != 0.0 {
                sum += kept.count * kept.middle;
            }
            kept.count
        };

        let positive: Vec<f64> = self.positive_bucket_iter().map(|b| keep_of(b, spread)).collect();
        let negative: Vec<f64> = self.negative_bucket_iter().map(|b| keep_of(b, spread)).collect();
        if !custom && self.zero_count > 0.0 {
            let mut zero = self.zero_bucket();
            // With observations on one side only, those near zero are taken to lie on that side too.
            let is_empty = |counts: &[f64]| counts.iter().all(|count| *count == 0.0);
            match (is_empty(&self.negative_buckets), is_empty(&self.positive_buckets)) {
                (true, false) => zero.lower = 0.0,
                (false, true) => zero.upper = 0.0,
                _ => {}
            }
            trimmed.zero_count = keep_of(zero, Spread::Linear);
        }
        if !changed {
            return trimmed;
        }
        let index = |(index, _): (i32, f64)| index;
        let repack = |spans: &[super::Span], old: &[f64], new: Vec<f64>| {
            pack(cells(spans, old).map(index).zip(new).filter(|(_, count)| *count != 0.0))
        };
        (trimmed.positive_spans, trimmed.positive_buckets) =
            repack(&self.positive_spans, &self.positive_buckets, positive);
        (trimmed.negative_spans, trimmed.negative_buckets) =
            repack(&self.negative_spans, &self.negative_buckets, negative);
        trimmed.count = count;
        trimmed.sum = sum;
        trimmed
    }
}

fn kept(bucket: Bucket, keep: Keep, cut: f64, spread: Spread) -> Kept {
    let Bucket { mut lower, upper, count, .. } = bucket;
    let all = |middle| Kept { count, middle };
    let none = Kept { count: 0.0, middle: 0.0 };
    if cut.is_nan() {
        return none;
    }
    if lower == f64::NEG_INFINITY {
        match keep {
            Keep::Above if cut == f64::NEG_INFINITY => return all(upper),
            Keep::Below if cut == f64::INFINITY => return all(upper),
            _ if upper == f64::INFINITY => return none,
            Keep::Above if upper <= 0.0 || cut < 0.0 => return none,
            Keep::Below if upper <= 0.0 && cut == f64::NEG_INFINITY => return none,
            Keep::Below if upper <= 0.0 => return all(upper.min(cut)),
            // The bucket is taken to begin at zero, as quantiles do.
            Keep::Above | Keep::Below => lower = 0.0,
        }
    } else if upper == f64::INFINITY {
        return match keep {
            Keep::Above if cut == f64::INFINITY => none,
            Keep::Above => all(lower.max(cut)),
            Keep::Below if cut == f64::INFINITY => all(lower),
            Keep::Below => none,
        };
    }
    // In this order: a zero bucket may have no width.
    let (from, to) = match keep {
        Keep::Below if cut <= lower => return none,
        Keep::Below if cut >= upper => return all(middle(lower, upper, spread)),
        Keep::Below => (lower, cut),
        Keep::Above if cut <= lower => return all(middle(lower, upper, spread)),
        Keep::Above if cut >= upper => return none,
        Keep::Above => (cut, upper),
    };
    let below = count * fraction_below(lower, upper, cut, spread);
    Kept { count: if keep == Keep::Below { below } else { count - below }, middle: middle(from, to, spread) }
}

fn fraction_below(lower: f64, upper: f64, cut: f64, spread: Spread) -> f64 {
    match spread {
        Spread::Linear => (cut - lower) / (upper - lower),
        Spread::Exponential => {
            let (log_lower, log_upper, log_cut) = (lower.abs().log2(), upper.abs().log2(), cut.abs().log2());
            if lower >= 0.0 {
                (log_cut - log_lower) / (log_upper - log_lower)
            } else {
                1.0 - (log_cut - log_upper) / (log_lower - log_upper)
            }
        }
    }
}

fn middle(from: f64, to: f64, spread: Spread) -> f64 {
    match spread {
        Spread::Linear => (from + to) / 2.0,
        Spread::Exponential if from < 0.0 => -(from * to).sqrt(),
        Spread::Exponential => (from * to).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

    #[test]
    fn both_sides_of_a_cut_make_the_whole() {
        let h = FloatHistogram {
            count: 12.0,
            sum: 20.0,
            zero_threshold: 0.1,
            zero_count: 2.0,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![1.0, 2.0, 4.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![3.0],
            ..FloatHistogram::default()
        };
        for cut in [-3.0, -1.5, -0.05, 0.0, 0.05, 0.7, 1.0, 3.0, 9.0] {
            let (below, above) = (h.trimmed(Keep::Below, cut), h.trimmed(Keep::Above, cut));
            assert!((below.count + above.count - h.count).abs() < 1e-9, "{cut}");
        }
        assert_eq!(h.trimmed(Keep::Below, f64::INFINITY).sum, 20.0);
        assert_eq!(h.trimmed(Keep::Above, f64::NAN).count, 0.0);
    }

    #[test]
    fn zero_buckets_without_width_go_or_stay_whole() {
        let h = FloatHistogram { count: 2.0, zero_count: 2.0, ..FloatHistogram::default() };
        let count = |keep, cut| h.trimmed(keep, cut).count;
        assert_eq!([-1.0, 0.0, 1.0].map(|cut| count(Keep::Below, cut)), [0.0, 0.0, 2.0]);
        assert_eq!([-1.0, 0.0, 1.0].map(|cut| count(Keep::Above, cut)), [2.0, 2.0, 0.0]);
    }

    #[test]
    fn infinite_buckets_go_or_stay_whole() {
        let h = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 6.0,
            sum: 1.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![2.0, 4.0],
            custom_values: vec![10.0].into(),
            ..FloatHistogram::default()
        };
        let below = h.trimmed(Keep::Below, 50.0);
        assert_eq!((below.count, below.sum), (2.0, 10.0));
        let above = h.trimmed(Keep::Above, 50.0);
        assert_eq!((above.count, above.sum), (4.0, 200.0));
    }
}
