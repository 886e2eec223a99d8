//! Buckets one by one, and the way between spans and plain lists of `(index, count)`.

use std::fmt;

use super::bounds::upper_bound;
use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Span};

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether `lower` itself belongs to the bucket.
    pub lower_inclusive: bool,
    /// Whether `upper` itself belongs to the bucket.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

/// Interval notation: `(1,2]:3`.
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{},{}{}:{}",
            if self.lower_inclusive { '[' } else { '(' },
            GoFloat(self.lower),
            GoFloat(self.upper),
            if self.upper_inclusive { ']' } else { ')' },
            GoFloat(self.count)
        )
    }
}

/// A float as Go's `%g` and `%v` print it: the fewest digits that read back the same, with an exponent below 1e-4 and
/// from 1e6 on (`123456`, `1e+06`).
#[derive(Clone, Copy, Debug)]
pub struct GoFloat(pub f64);

impl fmt::Display for GoFloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        if v.is_nan() {
            return f.write_str("NaN");
        }
        if v.is_infinite() {
            return f.write_str(if v > 0.0 { "+Inf" } else { "-Inf" });
        }
        let text = format!("{v:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let power: i32 = exponent.parse().unwrap_or(0);
        if v != 0.0 && !(-4..6).contains(&power) {
            let sign = if power < 0 { '-' } else { '+' };
            return write!(f, "{digits}e{sign}{:02}", power.unsigned_abs());
        }
        write!(f, "{v}")
    }
}

/// Walks over spans and counts; stops early when they do not fit together.
pub(super) fn cells<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0i32;
    let indexes = spans.iter().flat_map(move |span| {
        let first = next.saturating_add(span.offset);
        next = first.saturating_add(i32::try_from(span.length).unwrap_or(i32::MAX));
        first..next
    });
    indexes.zip(counts.iter().copied())
}

/// Packs sorted cells into spans and counts.
pub(super) fn pack(cells: impl IntoIterator<Item = (i32, f64)>) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts = Vec::new();
    let mut next = 0i32;
    for (index, count) in cells {
        match spans.last_mut() {
            Some(last) if index == next => last.length += 1,
            _ => spans.push(Span { offset: index.wrapping_sub(next), length: 1 }),
        }
        next = index.saturating_add(1);
        counts.push(count);
    }
    (spans, counts)
}

impl FloatHistogram {
    /// The zero bucket.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// Positive buckets, upwards; empty ones included where the layout has them. All buckets of custom bounds are here.
    pub fn positive_bucket_iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        cells(&self.positive_spans, &self.positive_buckets).map(|(index, count)| {
            let upper = upper_bound(index, self.schema, &self.custom_values);
            let lower = upper_bound(index.saturating_sub(1), self.schema, &self.custom_values);
            let custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
            Bucket {
                lower,
                upper,
                lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
                upper_inclusive: custom || upper > 0.0,
                count,
            }
        })
    }

    /// Negative buckets, from zero downwards.
    pub fn negative_bucket_iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        cells(&self.negative_spans, &self.negative_buckets).map(|(index, count)| {
            let lower = -upper_bound(index, self.schema, &self.custom_values);
            let upper = -upper_bound(index.saturating_sub(1), self.schema, &self.custom_values);
            Bucket { lower, upper, lower_inclusive: lower < 0.0, upper_inclusive: upper > 0.0, count }
        })
    }

    /// All buckets from the lowest to the highest, the zero bucket in its place when populated. One that reaches into
    /// the zero bucket, as coarser schemas make them, ends where that begins.
    pub fn all_buckets(&self) -> Vec<Bucket> {
        let outside = |mut bucket: Bucket| {
            if bucket.upper < 0.0 && bucket.upper > -self.zero_threshold {
                bucket.upper = -self.zero_threshold;
            } else if bucket.lower > 0.0 && bucket.lower < self.zero_threshold {
                bucket.lower = self.zero_threshold;
            }
            bucket
        };
        let mut all: Vec<Bucket> = self.negative_bucket_iter().map(outside).collect();
        all.reverse();
        if self.zero_count > 0.0 {
            all.push(self.zero_bucket());
        }
        all.extend(self.positive_bucket_iter().map(outside));
        all
    }
}

/// `{count:4, sum:5, (0.5,1]:1, (1,2]:3}`: populated buckets only, as Prometheus prints histograms.
impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", GoFloat(self.count), GoFloat(self.sum))?;
        let mut negative: Vec<Bucket> = self.negative_bucket_iter().filter(|b| b.count != 0.0).collect();
        negative.reverse();
        let zero = (self.zero_count != 0.0).then(|| self.zero_bucket());
        let positive = self.positive_bucket_iter().filter(|b| b.count != 0.0);
        for bucket in negative.into_iter().chain(zero).chain(positive) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_floats_change_form_at_six_digits() {
        let cases = [
            (0.0, "0"),
            (1.1, "1.1"),
            (123_456.0, "123456"),
            (1_000_000.0, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(GoFloat(value).to_string(), text);
        }
    }

    #[test]
    fn cells_pack_and_unpack() {
        let cells_in = [(-3, 1.0), (-2, 2.0), (1, 3.0), (7, 0.0), (8, 4.0)];
        let (spans, counts) = pack(cells_in);
        assert_eq!(
            spans,
            [Span { offset: -3, length: 2 }, Span { offset: 2, length: 1 }, Span { offset: 5, length: 2 }]
        );
        assert_eq!(cells(&spans, &counts).collect::<Vec<_>>(), cells_in);
    }

    #[test]
    fn prints_populated_buckets_from_low_to_high() {
        let histogram = FloatHistogram {
            count: 5.0,
            sum: 5.0,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![1.0, 0.0, 2.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        assert_eq!(
            histogram.to_string(),
            "{count:5, sum:5, [-2,-1):1, [-0.001,0.001]:1, (0.5,1]:1, (2,4]:2}"
        );
    }
}
