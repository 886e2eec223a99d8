//! What is guessed from buckets: quantiles, fractions, deviations, and what is left of a histogram that is cut.

use super::histogram::{Bucket, Hist};

/// What a guess suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// None.
    Fine,
    /// The result is NaN since observations are.
    NanResult,
    /// Observations that are NaN count as very large.
    NanSkew,
    /// Which of those cannot be told: rounding decides.
    Unclear,
}

/// Whether buckets have fewer observations than there are; `None`: rounding decides.
fn some_missing(h: &Hist) -> Option<bool> {
    let total: f64 = h.buckets().iter().map(|bucket| bucket.count).sum();
    let near = (total - h.count).abs() <= 1e-9 * h.count.abs();
    if near && total != h.count { None } else { Some(total < h.count) }
}

/// Of the zero bucket only the side where the histogram has others counts.
fn one_sided(h: &Hist, bucket: &mut Bucket) {
    match (h.negative.is_empty(), h.positive.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
}

pub(super) fn quantile(q: f64, h: &Hist) -> (f64, Doubt) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, Doubt::Fine);
    }
    if q > 1.0 {
        return (f64::INFINITY, Doubt::Fine);
    }
    if q.is_nan() || h.count == 0.0 {
        return (f64::NAN, Doubt::Fine);
    }
    let forward = h.sum.is_nan() || q < 0.5;
    let mut buckets = h.buckets();
    if !forward {
        buckets.reverse();
    }
    let mut rank = if forward { q * h.count } else { (1.0 - q) * h.count };
    let mut bucket = Bucket { lower: 0.0, upper: 0.0, count: 0.0 };
    let mut seen = 0.0;
    for next in &buckets {
        bucket = *next;
        seen += bucket.count;
        if bucket.count != 0.0 && seen >= rank {
            break;
        }
    }
    if h.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, Doubt::Fine);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, Doubt::Fine);
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        one_sided(h, &mut bucket);
    }
    seen = seen.min(h.count);
    if seen < rank {
        let nan = h.sum.is_nan();
        return if nan { (f64::NAN, Doubt::NanResult) } else { (bucket.upper, Doubt::Fine) };
    }
    rank = if forward { rank - (seen - bucket.count) } else { seen - rank };
    let doubt = match (h.sum.is_nan(), some_missing(h)) {
        (false, _) | (true, Some(false)) => Doubt::Fine,
        (true, Some(true)) => Doubt::NanSkew,
        (true, None) => Doubt::Unclear,
    };
    let fraction = rank / bucket.count;
    if h.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return (bucket.lower + (bucket.upper - bucket.lower) * fraction, doubt);
    }
    let between = |a: f64, b: f64, fraction: f64| (a.log2() + (b.log2() - a.log2()) * fraction).exp2();
    if bucket.lower > 0.0 {
        (between(bucket.lower, bucket.upper, fraction), doubt)
    } else {
        (-between(-bucket.upper, -bucket.lower, 1.0 - fraction), doubt)
    }
}

/// The share of observations from `lower` to `upper`; NaN observations are in no share.
pub(super) fn fraction(lower: f64, upper: f64, h: &Hist) -> (f64, Doubt) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, Doubt::Fine);
    }
    if lower >= upper {
        return (0.0, Doubt::Fine);
    }
    let total: f64 = h.buckets().iter().map(|bucket| bucket.count).sum();
    let doubt = match (h.sum.is_nan(), some_missing(h)) {
        (false, _) | (true, Some(false)) => Doubt::Fine,
        (true, Some(true)) => Doubt::NanSkew,
        (true, None) => Doubt::Unclear,
    };
    let all = if h.sum.is_nan() { total } else { h.count };
    let below = |value: f64| {
        let mut rank = 0.0;
        for mut bucket in h.buckets() {
            let zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
            if zero {
                one_sided(h, &mut bucket);
            }
            if bucket.lower >= value {
                return rank;
            }
            if bucket.upper > value {
                if h.is_custom() || zero {
                    if bucket.lower == f64::NEG_INFINITY {
                        return bucket.count;
                    }
                    return rank + bucket.count * (value - bucket.lower) / (bucket.upper - bucket.lower);
                }
                let (near, far) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
                let part = (value.abs().log2() - near) / (far - near);
                return rank + bucket.count * part;
            }
            rank += bucket.count;
        }
        all
    };
    ((below(upper).min(all) - below(lower).min(all)) / h.count, doubt)
}

/// The variance, every observation taken for the middle of its bucket.
pub(super) fn variance(h: &Hist) -> f64 {
    let mean = h.sum / h.count;
    let squares = h.buckets().into_iter().filter(|bucket| bucket.count != 0.0).map(|bucket| {
        let middle = if h.is_custom() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        bucket.count * (middle - mean) * (middle - mean)
    });
    squares.sum::<f64>() / h.count
}

/// The middle of what is left of a bucket.
fn middle(lower: f64, upper: f64, custom: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        _ if custom => (lower + upper) / 2.0,
        _ => (lower * upper).abs().sqrt().copysign(upper + lower),
    }
}

/// How many observations of a bucket are on the kept side of a cut within it, and their middle.
fn part(bucket: Bucket, cut: f64, keep_below: bool, custom: bool) -> (f64, f64) {
    let Bucket { lower, upper, count } = bucket;
    if lower == f64::NEG_INFINITY {
        // Only custom buckets reach so far. Above zero they are taken to begin there.
        let from_zero = upper.is_finite() && upper > 0.0;
        return match keep_below {
            true if from_zero && cut > 0.0 => (count * cut / upper, cut / 2.0),
            true if upper <= 0.0 => (count, cut),
            false if from_zero && cut >= 0.0 => (count * (1.0 - cut / upper), (cut + upper) / 2.0),
            _ => (0.0, 0.0),
        };
    }
    if upper == f64::INFINITY {
        return if keep_below { (0.0, 0.0) } else { (count, cut) };
    }
    let below = if custom {
        (cut - lower) / (upper - lower)
    } else {
        let (near, far) = (lower.abs().log2(), upper.abs().log2());
        (cut.abs().log2() - near) / (far - near)
    };
    if keep_below {
        (count * below, middle(lower, cut, custom))
    } else {
        (count - count * below, middle(cut, upper, custom))
    }
}

/// Observations on one side of `cut`, which is a number. Sum and count are those of what is left, and as they were if nothing went.
pub(super) fn trimmed(h: &Hist, cut: f64, keep_below: bool) -> Hist {
    let mut out = h.clone();
    let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
    let custom = h.is_custom();
    for (sign, buckets) in [(1.0, &mut out.positive), (-1.0, &mut out.negative)] {
        for (index, n) in buckets.iter_mut().filter(|(_, n)| **n != 0.0) {
            let (near, far) = (sign * h.lower(*index), sign * h.upper(*index));
            let (lower, upper) = if sign > 0.0 { (near, far) } else { (far, near) };
            let whole = if keep_below { upper <= cut } else { lower >= cut };
            let within = lower < cut && cut < upper;
            let (kept, at) = if whole {
                (*n, middle(lower, upper, custom))
            } else if within {
                part(Bucket { lower, upper, count: *n }, cut, keep_below, custom)
            } else {
                (0.0, 0.0)
            };
            changed |= kept != *n;
            count += kept;
            sum += kept * at;
            *n = kept;
        }
    }
    if h.zero > 0.0 {
        let mut zero = Bucket { lower: -h.threshold, upper: h.threshold, count: h.zero };
        let has = |buckets: &super::histogram::Buckets| buckets.values().any(|n| *n != 0.0);
        match (has(&h.negative), has(&h.positive)) {
            (true, false) => zero.upper = 0.0,
            (false, true) => zero.lower = 0.0,
            _ => {}
        }
        let Bucket { lower, upper, .. } = zero;
        let (from, to) = if keep_below { (lower, cut.min(upper)) } else { (cut.max(lower), upper) };
        // An end that the cut meets is as if the cut were beyond it; below comes first.
        let kept = if keep_below && cut <= lower {
            0.0
        } else if (keep_below && cut >= upper) || (!keep_below && cut <= lower) {
            h.zero
        } else if !keep_below && cut >= upper {
            0.0
        } else {
            h.zero * (to - from) / (upper - lower)
        };
        changed |= kept != h.zero;
        out.zero = kept;
        count += kept;
        if kept != 0.0 {
            sum += kept * (from + to) / 2.0;
        }
    }
    if !changed {
        return out;
    }
    (out.count, out.sum) = (count, sum);
    out.compact()
}
