//! Quantiles and fractions: of sorted numbers, of classic buckets, of native histograms.

use model::FloatHistogram;
use model::histogram::Bucket as NativeBucket;

/// Relative differences of bucket counts up to which a decrease is taken for a rounding error.
const PRECISION_TOLERANCE: f64 = 1e-12;

/// Quantile `q` of numbers in ascending order (NaN first), between neighbours weighted by distance.
pub(crate) fn quantile_of_sorted(q: f64, values: &[f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = (rank.floor().max(0.0) as usize).min(last);
    let upper = (lower + 1).min(last);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// A classic bucket: observations up to a bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// Where counts had to be raised to be monotonic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forced {
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    pub(crate) max_diff: f64,
}

/// Sorts buckets and adds up equal bounds; `false` when the last one is not infinite.
fn prepare(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let equal = next.upper == kept.upper;
        if equal {
            kept.count += next.count;
        }
        equal
    });
    true
}

/// Removes decreases: small differences as rounding errors, others by raising the later count, which is reported.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if nearly_equal(previous, count) {
            bucket.count = previous;
        } else if count < previous {
            let diff = previous - count;
            let all = forced.get_or_insert(Forced {
                min_bucket: bucket.upper,
                max_bucket: bucket.upper,
                max_diff: diff,
            });
            all.min_bucket = all.min_bucket.min(bucket.upper);
            all.max_bucket = all.max_bucket.max(bucket.upper);
            all.max_diff = all.max_diff.max(diff);
            bucket.count = previous;
        } else {
            previous = count;
        }
    }
    forced
}

fn nearly_equal(a: f64, b: f64) -> bool {
    let (difference, sum) = ((a - b).abs(), a.abs() + b.abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < PRECISION_TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < PRECISION_TOLERANCE
}

/// Quantile `q` of classic buckets in any order, linear within a bucket.
pub(crate) fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let forced = make_monotonic(buckets);
    if buckets.len() < 2 {
        return (f64::NAN, None);
    }
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if observations == 0.0 {
        return (f64::NAN, None);
    }
    let mut rank = q * observations;
    // NaN counts compare as not reached.
    let b = buckets[..last].iter().position(|bucket| bucket.count >= rank).unwrap_or(last);
    if b == last {
        return (buckets[last - 1].upper, forced);
    }
    if b == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, forced);
    }
    let (mut start, end, mut count) = (0.0, buckets[b].upper, buckets[b].count);
    if b > 0 {
        start = buckets[b - 1].upper;
        count -= buckets[b - 1].count;
        rank -= buckets[b - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// The fraction of observations in classic buckets between `lower` and `upper`.
pub(crate) fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let total = buckets[buckets.len() - 1].count;
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let mut rank = 0.0;
    let mut ranks = RankPair::new(lower, upper);
    for i in 0..buckets.len() {
        let from = match i {
            0 if buckets[0].upper > 0.0 => 0.0,
            0 => f64::NEG_INFINITY,
            _ => buckets[i - 1].upper,
        };
        let Bucket { upper: to, count } = buckets[i];
        if ranks.pass(from, to, rank, |v| {
            if from == f64::NEG_INFINITY { count } else { rank + (count - rank) * (v - from) / (to - from) }
        }) {
            break;
        }
        rank = count;
    }
    ranks.fraction(total, total)
}

/// Finds the ranks of two values while passing over buckets.
struct RankPair {
    bounds: [f64; 2],
    ranks: [Option<f64>; 2],
}

impl RankPair {
    fn new(lower: f64, upper: f64) -> Self {
        Self { bounds: [lower, upper], ranks: [None, None] }
    }

    /// Passes over a bucket that `rank` observations precede; `true` when both ranks are known.
    fn pass(&mut self, from: f64, to: f64, rank: f64, within: impl Fn(f64) -> f64) -> bool {
        for (bound, found) in self.bounds.into_iter().zip(&mut self.ranks) {
            if found.is_none() {
                if from >= bound {
                    *found = Some(rank);
                } else if to > bound {
                    *found = Some(within(bound));
                }
            }
        }
        self.ranks.iter().all(Option::is_some)
    }

    /// The observations between, capped at `most`, per `total`.
    fn fraction(&self, most: f64, total: f64) -> f64 {
        let [lower, upper] =
            self.ranks.map(|rank| rank.map_or(most, |rank| if rank > most { most } else { rank }));
        (upper - lower) / total
    }
}

/// Doubts about a native quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanDoubt {
    /// The quantile falls among NaN observations.
    Result,
    /// NaN observations shift it upwards.
    Skew,
}

/// With observations on one side of zero only, the zero bucket is taken to lie on that side too.
fn bias_zero_bucket(h: &FloatHistogram, bucket: &mut NativeBucket) {
    match (h.negative_buckets.is_empty(), h.positive_buckets.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
}

/// Quantile `q` of a native histogram: exponential within exponential buckets, linear within others.
pub(crate) fn histogram_quantile(q: f64, h: &FloatHistogram) -> (f64, Option<NanDoubt>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    // NaN observations are counted, but in no bucket: then only counting from below is right.
    let has_nan = h.sum.is_nan();
    let forward = has_nan || q < 0.5;
    let mut rank = if forward { q * h.count } else { (1.0 - q) * h.count };
    let mut buckets = h.all_buckets();
    let in_buckets: f64 = buckets.iter().map(|bucket| bucket.count).sum();
    if !forward {
        buckets.reverse();
    }
    let mut count = 0.0;
    // Without any bucket, as intermediate results may be: an empty one at zero.
    let mut bucket =
        NativeBucket { lower: 0.0, upper: 0.0, lower_inclusive: true, upper_inclusive: true, count: 0.0 };
    for next in &buckets {
        bucket = *next;
        count += bucket.count;
        if bucket.count != 0.0 && count >= rank {
            break;
        }
    }
    if h.uses_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, None);
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        bias_zero_bucket(h, &mut bucket);
    }
    // Rounding may add up to more than there is.
    if count > h.count {
        count = h.count;
    }
    if count < rank {
        if has_nan {
            return (f64::NAN, Some(NanDoubt::Result));
        }
        return (bucket.upper, None);
    }
    rank = if forward { rank - (count - bucket.count) } else { count - rank };
    // A sum of opposite infinities is no number either, but its observations are all in buckets.
    let doubt = (has_nan && in_buckets < h.count).then_some(NanDoubt::Skew);
    let fraction = rank / bucket.count;
    let linear = h.uses_custom_buckets() || (bucket.lower <= 0.0 && bucket.upper >= 0.0);
    let value = if linear {
        bucket.lower + (bucket.upper - bucket.lower) * fraction
    } else {
        let (log_lower, log_upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
        if bucket.lower > 0.0 {
            (log_lower + (log_upper - log_lower) * fraction).exp2()
        } else {
            -(log_upper + (log_lower - log_upper) * (1.0 - fraction)).exp2()
        }
    };
    (value, doubt)
}

/// The fraction of observations of a native histogram between `lower` and `upper`, and whether some are in no bucket,
/// being NaN.
pub(crate) fn histogram_fraction(lower: f64, upper: f64, h: &FloatHistogram) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let custom = h.uses_custom_buckets();
    let mut rank = 0.0;
    let mut in_buckets = 0.0;
    let mut ranks = RankPair::new(lower, upper);
    let buckets = h.all_buckets();
    for bucket in &buckets {
        in_buckets += bucket.count;
    }
    for mut bucket in buckets {
        let mut linear = custom;
        // Prometheus takes every bucket around zero for the zero bucket, custom ones with negative bounds too.
        if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            linear = true;
            bias_zero_bucket(h, &mut bucket);
        }
        let NativeBucket { lower: from, upper: to, count, .. } = bucket;
        let within = |v: f64| {
            if linear {
                // Nothing is known of how values spread in an infinite bucket.
                if from == f64::NEG_INFINITY { count } else { rank + count * (v - from) / (to - from) }
            } else {
                let (log_from, log_to, log_v) = (from.abs().log2(), to.abs().log2(), v.abs().log2());
                let fraction = if v > 0.0 {
                    (log_v - log_from) / (log_to - log_from)
                } else {
                    1.0 - (log_v - log_to) / (log_from - log_to)
                };
                rank + count * fraction
            }
        };
        if ranks.pass(from, to, rank, within) {
            break;
        }
        rank += count;
    }
    // NaN observations are in no bucket, hence in no interval.
    let has_nan = h.sum.is_nan();
    let most = if has_nan { in_buckets } else { h.count };
    (ranks.fraction(most, h.count), has_nan && in_buckets < h.count)
}

/// Population variance of a native histogram, each observation taken to lie in the middle of its bucket.
pub(crate) fn histogram_variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut sum, mut error) = (0.0, 0.0);
    for bucket in h.all_buckets().into_iter().filter(|bucket| bucket.count != 0.0) {
        let middle = if h.uses_custom_buckets() {
            f64::midpoint(bucket.upper, bucket.lower)
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let middle = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        let delta = middle - mean;
        (sum, error) = model::float::kahan_add(bucket.count * delta * delta, sum, error);
    }
    (sum + error) / h.count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|&(upper, count)| Bucket { upper, count }).collect()
    }

    #[test]
    fn classic_quantiles_interpolate_linearly() {
        let all = [(f64::INFINITY, 4.0), (1.0, 1.0), (2.0, 3.0)];
        let quantile = |q| bucket_quantile(q, &mut buckets(&all)).0;
        assert_eq!(quantile(0.25), 1.0);
        assert_eq!(quantile(0.5), 1.5);
        assert_eq!(quantile(0.99), 2.0);
        assert_eq!(quantile(-1.0), f64::NEG_INFINITY);
        assert!(bucket_quantile(0.5, &mut buckets(&all[1..])).0.is_nan());
    }

    #[test]
    fn decreasing_counts_are_raised_and_reported() {
        let mut all = buckets(&[
            (0.1, 2.0),
            (1.0, 1.0),
            (10.0, 5.0),
            (100.0, 4.0),
            (1000.0, 9.0),
            (f64::INFINITY, 8.0),
        ]);
        let (value, forced) = bucket_quantile(0.5, &mut all);
        assert!((value - 8.5).abs() < 1e-9);
        let forced = forced.unwrap();
        assert_eq!((forced.min_bucket, forced.max_bucket, forced.max_diff), (1.0, f64::INFINITY, 1.0));
    }

    #[test]
    fn quantiles_of_numbers_weigh_neighbours() {
        assert_eq!(
            quantile_of_sorted(0.8, &[0.0, 1.0, 4.0]),
            1.0 * (1.0 - 0.6000000000000001) + 4.0 * 0.6000000000000001
        );
        assert_eq!(quantile_of_sorted(1.0, &[f64::NAN, 2.0]), 2.0);
        assert!(quantile_of_sorted(0.0, &[f64::NAN, 2.0]).is_nan());
    }
}
