//! Does a histogram contradict itself? What a store refuses, in Prometheus' words (`Histogram.Validate`).

use std::fmt;

use super::{
    CUSTOM_BUCKETS_SCHEMA, CounterResetHint, EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN, FloatHistogram,
    GoFloat, Histogram, Span,
};

/// What is wrong with a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HistogramFault {
    /// A span that does not lie behind the one before.
    SpanOffset {
        /// Which buckets.
        side: Side,
        /// Number of the span, from 1.
        span: usize,
        /// Its offset.
        offset: i32,
    },
    /// Spans for more or fewer buckets than there are.
    SpansBuckets {
        /// Which buckets.
        side: Side,
        /// As the spans say.
        need: u64,
        /// As there are.
        have: u64,
    },
    /// A bucket with less than nothing in it.
    NegativeBucket {
        /// Which buckets.
        side: Side,
        /// Number of the bucket, from 1.
        bucket: usize,
        /// What is in it.
        count: Count,
    },
    /// The same of the zero bucket.
    NegativeZeroBucket(Count),
    /// The same of all observations.
    NegativeCount(Count),
    /// More observations in buckets than there are at all.
    CountTooSmall {
        /// In buckets.
        found: u64,
        /// As the histogram says.
        count: u64,
    },
    /// As many must be in buckets as there are, unless some are NaN.
    CountMismatch {
        /// In buckets.
        found: u64,
        /// As the histogram says.
        count: u64,
    },
    /// Custom bounds that do not ascend.
    BoundsOrder {
        /// A bound.
        previous: Count,
        /// The next one.
        current: Count,
    },
    /// A custom bound that is infinite.
    InfiniteBound,
    /// A custom bound that is no number.
    NanBound,
    /// Too few custom bounds for the buckets.
    TooFewBounds {
        /// Bounds.
        bounds: u64,
        /// Buckets from the first possible to the last one used.
        length: i64,
    },
    /// Custom buckets beside a zero bucket.
    CustomZeroCount,
    /// The same, be it empty.
    CustomZeroThreshold,
    /// Custom buckets beside spans of negative ones.
    CustomNegativeSpans,
    /// Custom buckets beside negative ones.
    CustomNegativeBuckets,
    /// Custom bounds of a histogram that has no custom buckets.
    BoundsWithoutCustom,
    /// A schema that nobody knows.
    Schema(i32),
}

/// A group of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Side {
    Positive,
    Negative,
    Custom,
}

/// A number of either kind of histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// A whole number.
    Integer(i64),
    /// The bits of a float.
    Float(u64),
}

impl Count {
    fn float(value: f64) -> Self {
        Self::Float(value.to_bits())
    }

    fn value(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(bits) => f64::from_bits(bits),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Float(bits) => GoFloat(f64::from_bits(*bits)).fmt(f),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Positive => "positive side",
            Self::Negative => "negative side",
            Self::Custom => "custom buckets",
        })
    }
}

impl std::error::Error for HistogramFault {}

impl fmt::Display for HistogramFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NEGATIVE: &str = "histogram has a bucket whose observation count is negative";
        const FOUND: &str = "observations found in buckets, but the Count field is";
        match self {
            Self::SpanOffset { side, span, offset } => write!(
                f,
                "{side}: span number {span} with offset {offset}: histogram has a span whose offset is negative"
            ),
            Self::SpansBuckets { side, need, have } => write!(
                f,
                "{side}: spans need {need} buckets, have {have} buckets: histogram spans specify different number of \
                 buckets than provided"
            ),
            Self::NegativeBucket { side, bucket, count } => {
                // Only the bounds of custom buckets have words of their own.
                let side = if *side == Side::Custom { &Side::Positive } else { side };
                write!(f, "{side}: bucket number {bucket} has observation count of {count}: {NEGATIVE}")
            }
            Self::NegativeZeroBucket(count) => {
                write!(f, "zero bucket has observation count of {count}: {NEGATIVE}")
            }
            Self::NegativeCount(count) => {
                write!(f, "observation count is {count}: histogram's observation count is negative")
            }
            Self::CountTooSmall { found, count } => write!(
                f,
                "{found} {FOUND} {count}: histogram's observation count should be at least the number of \
                 observations found in the buckets"
            ),
            Self::CountMismatch { found, count } => write!(
                f,
                "{found} {FOUND} {count}: histogram's observation count should equal the number of observations \
                 found in the buckets (in absence of NaN)"
            ),
            Self::BoundsOrder { previous, current } => write!(
                f,
                "custom buckets: previous bound is {} and current is {}: histogram custom bounds must be in \
                 strictly increasing order",
                six_decimals(previous.value()),
                six_decimals(current.value())
            ),
            Self::InfiniteBound => f.write_str(
                "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite",
            ),
            Self::NanBound => f.write_str("custom buckets: histogram custom bounds must not be NaN"),
            Self::TooFewBounds { bounds, length } => write!(
                f,
                "custom buckets: only {bounds} custom bounds defined which is insufficient to cover total span length \
                 of {length}: histogram custom bounds are too few"
            ),
            Self::CustomZeroCount => f.write_str("custom buckets: must have zero count of 0"),
            Self::CustomZeroThreshold => f.write_str("custom buckets: must have zero threshold of 0"),
            Self::CustomNegativeSpans => f.write_str("custom buckets: must not have negative spans"),
            Self::CustomNegativeBuckets => f.write_str("custom buckets: must not have negative buckets"),
            Self::BoundsWithoutCustom => {
                f.write_str("histogram with exponential schema must not have custom bounds")
            }
            Self::Schema(schema) => write!(
                f,
                "histogram has an invalid schema, which must be between {EXPONENTIAL_SCHEMA_MIN} and \
                 {EXPONENTIAL_SCHEMA_MAX} for exponential buckets, or {CUSTOM_BUCKETS_SCHEMA} for custom buckets, got \
                 schema {schema}"
            ),
        }
    }
}

/// Go's `%f`.
fn six_decimals(value: f64) -> String {
    if value.is_infinite() { GoFloat(value).to_string() } else { format!("{value:.6}") }
}

/// All but counts.
struct Shape<'a> {
    schema: i32,
    zero_count_is_zero: bool,
    zero_threshold: f64,
    positive: (&'a [Span], usize),
    negative: (&'a [Span], usize),
    bounds: &'a [f64],
}

impl Shape<'_> {
    /// Which buckets the positive ones are.
    fn validate(&self) -> Result<Side, HistogramFault> {
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            self.validate_bounds()?;
            return if !self.zero_count_is_zero {
                Err(HistogramFault::CustomZeroCount)
            } else if self.zero_threshold != 0.0 {
                Err(HistogramFault::CustomZeroThreshold)
            } else if !self.negative.0.is_empty() {
                Err(HistogramFault::CustomNegativeSpans)
            } else if self.negative.1 > 0 {
                Err(HistogramFault::CustomNegativeBuckets)
            } else {
                Ok(Side::Custom)
            };
        }
        if !(EXPONENTIAL_SCHEMA_MIN..=EXPONENTIAL_SCHEMA_MAX).contains(&self.schema) {
            return Err(HistogramFault::Schema(self.schema));
        }
        validate_spans(Side::Positive, self.positive)?;
        validate_spans(Side::Negative, self.negative)?;
        if self.bounds.is_empty() { Ok(Side::Positive) } else { Err(HistogramFault::BoundsWithoutCustom) }
    }

    fn validate_bounds(&self) -> Result<(), HistogramFault> {
        if self.bounds.iter().any(|bound| bound.is_nan()) {
            return Err(HistogramFault::NanBound);
        }
        // Nothing lies below the first bound but minus infinity.
        let mut previous = f64::NEG_INFINITY;
        for current in self.bounds {
            if *current <= previous {
                let (previous, current) = (Count::float(previous), Count::float(*current));
                return Err(HistogramFault::BoundsOrder { previous, current });
            }
            previous = *current;
        }
        if self.bounds.last() == Some(&f64::INFINITY) {
            return Err(HistogramFault::InfiniteBound);
        }
        if let Some((index, span)) = self.positive.0.iter().enumerate().find(|(_, span)| span.offset < 0) {
            let (span, offset) = (index + 1, span.offset);
            return Err(HistogramFault::SpanOffset { side: Side::Custom, span, offset });
        }
        validate_spans(Side::Custom, self.positive)?;
        let length: i64 =
            self.positive.0.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
        if length > self.bounds.len() as i64 + 1 {
            return Err(HistogramFault::TooFewBounds { bounds: self.bounds.len() as u64, length });
        }
        Ok(())
    }
}

fn validate_spans(side: Side, (spans, buckets): (&[Span], usize)) -> Result<(), HistogramFault> {
    let backwards = spans.iter().enumerate().skip(1).find(|(_, span)| span.offset < 0);
    if let Some((index, span)) = backwards {
        return Err(HistogramFault::SpanOffset { side, span: index + 1, offset: span.offset });
    }
    let need: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if need != buckets as u64 {
        return Err(HistogramFault::SpansBuckets { side, need, have: buckets as u64 });
    }
    Ok(())
}

impl Histogram {
    /// Whether its parts fit each other.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), HistogramFault> {
        let side = Shape {
            schema: self.schema,
            zero_count_is_zero: self.zero_count == 0,
            zero_threshold: self.zero_threshold,
            positive: (&self.positive_spans, self.positive_buckets.len()),
            negative: (&self.negative_spans, self.negative_buckets.len()),
            bounds: &self.custom_values,
        }
        .validate()?;
        let mut found = u128::from(self.zero_count);
        for (side, differences) in [(Side::Negative, &self.negative_buckets), (side, &self.positive_buckets)]
        {
            let mut count = 0i64;
            for (index, difference) in differences.iter().enumerate() {
                count = count.wrapping_add(*difference);
                if count < 0 {
                    let (bucket, count) = (index + 1, Count::Integer(count));
                    return Err(HistogramFault::NegativeBucket { side, bucket, count });
                }
                found += u128::from(count.unsigned_abs());
            }
        }
        let (count, exact) = (self.count, u128::from(self.count));
        let shown = u64::try_from(found).unwrap_or(u64::MAX);
        // Observations of NaN are counted but fall in no bucket.
        match self.sum.is_nan() {
            true if found > exact => Err(HistogramFault::CountTooSmall { found: shown, count }),
            false if found != exact => Err(HistogramFault::CountMismatch { found: shown, count }),
            _ => Ok(()),
        }
    }
}

impl FloatHistogram {
    /// Whether its parts fit each other. Counts of gauges may be negative; those of buckets are not compared with the count
    /// of all: rounding makes them differ.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), HistogramFault> {
        let side = Shape {
            schema: self.schema,
            zero_count_is_zero: self.zero_count == 0.0,
            zero_threshold: self.zero_threshold,
            positive: (&self.positive_spans, self.positive_buckets.len()),
            negative: (&self.negative_spans, self.negative_buckets.len()),
            bounds: &self.custom_values,
        }
        .validate()?;
        if self.counter_reset_hint == CounterResetHint::Gauge {
            return Ok(());
        }
        let bad = |count: f64| count.is_nan() || count < 0.0;
        for (side, buckets) in [(Side::Negative, &self.negative_buckets), (side, &self.positive_buckets)] {
            if let Some((index, count)) = buckets.iter().enumerate().find(|(_, count)| bad(**count)) {
                let (bucket, count) = (index + 1, Count::float(*count));
                return Err(HistogramFault::NegativeBucket { side, bucket, count });
            }
        }
        if self.is_stale() {
            Ok(())
        } else if bad(self.zero_count) {
            Err(HistogramFault::NegativeZeroBucket(Count::float(self.zero_count)))
        } else if bad(self.count) {
            Err(HistogramFault::NegativeCount(Count::float(self.count)))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Histogram {
        Histogram {
            count: 6,
            zero_count: 1,
            sum: 3.0,
            positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![1, 1],
            negative_spans: vec![Span { offset: -2, length: 1 }],
            negative_buckets: vec![2],
            ..Histogram::default()
        }
    }

    fn custom() -> Histogram {
        Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 3,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1, 1],
            custom_values: [5.0, 10.0].into(),
            ..Histogram::default()
        }
    }

    #[test]
    fn faults_are_told_in_prometheus_words() {
        let spans = |spans: &[(i32, u32)]| {
            spans.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect::<Vec<_>>()
        };
        assert_eq!(good().validate(), Ok(()));
        assert_eq!(custom().validate(), Ok(()));
        let cases = [
            (
                Histogram { positive_spans: spans(&[(0, 1), (-1, 1)]), ..good() },
                "positive side: span number 2 with offset -1: histogram has a span whose offset is negative",
            ),
            (
                Histogram { negative_buckets: vec![], ..good() },
                "negative side: spans need 1 buckets, have 0 buckets: histogram spans specify different number of \
                 buckets than provided",
            ),
            (
                Histogram { positive_buckets: vec![1, -2], ..good() },
                "positive side: bucket number 2 has observation count of -1: histogram has a bucket whose observation \
                 count is negative",
            ),
            (
                Histogram { negative_buckets: vec![-2], ..good() },
                "negative side: bucket number 1 has observation count of -2: histogram has a bucket whose observation \
                 count is negative",
            ),
            (
                Histogram { count: 7, ..good() },
                "6 observations found in buckets, but the Count field is 7: histogram's observation count should equal \
                 the number of observations found in the buckets (in absence of NaN)",
            ),
            (
                Histogram { count: 5, sum: f64::NAN, ..good() },
                "6 observations found in buckets, but the Count field is 5: histogram's observation count should be at \
                 least the number of observations found in the buckets",
            ),
            (
                Histogram { schema: 9, ..good() },
                "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for \
                 custom buckets, got schema 9",
            ),
            (
                Histogram { custom_values: [1.0].into(), ..good() },
                "histogram with exponential schema must not have custom bounds",
            ),
            (
                Histogram { custom_values: [5.0, 5.0].into(), ..custom() },
                "custom buckets: previous bound is 5.000000 and current is 5.000000: histogram custom bounds must be in \
                 strictly increasing order",
            ),
            (
                Histogram { custom_values: [5.0, f64::INFINITY].into(), ..custom() },
                "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite",
            ),
            (
                Histogram { custom_values: [f64::NEG_INFINITY, 1.0].into(), ..custom() },
                "custom buckets: previous bound is -Inf and current is -Inf: histogram custom bounds must be in strictly \
                 increasing order",
            ),
            (
                Histogram { custom_values: [f64::NAN].into(), ..custom() },
                "custom buckets: histogram custom bounds must not be NaN",
            ),
            (
                Histogram { custom_values: [].into(), ..custom() },
                "custom buckets: only 0 custom bounds defined which is insufficient to cover total span length of 2: \
                 histogram custom bounds are too few",
            ),
            (
                Histogram { positive_spans: spans(&[(-1, 2)]), ..custom() },
                "custom buckets: span number 1 with offset -1: histogram has a span whose offset is negative",
            ),
            (Histogram { zero_count: 1, ..custom() }, "custom buckets: must have zero count of 0"),
            (Histogram { zero_threshold: 1.0, ..custom() }, "custom buckets: must have zero threshold of 0"),
            (
                Histogram { negative_spans: spans(&[(0, 1)]), negative_buckets: vec![1], ..custom() },
                "custom buckets: must not have negative spans",
            ),
            (
                Histogram { negative_buckets: vec![1], ..custom() },
                "custom buckets: must not have negative buckets",
            ),
        ];
        for (histogram, text) in cases {
            assert_eq!(histogram.validate().unwrap_err().to_string(), text);
        }
        assert_eq!(Histogram { count: 7, sum: f64::NAN, ..good() }.validate(), Ok(()));
    }

    #[test]
    fn floats_need_not_add_up_but_are_not_negative() {
        let good = good().to_float();
        let text = |h: FloatHistogram| h.validate().unwrap_err().to_string();
        assert_eq!(FloatHistogram { count: 9.5, ..good.clone() }.validate(), Ok(()));
        assert_eq!(
            text(FloatHistogram { positive_buckets: vec![1.0, -0.5], ..good.clone() }),
            "positive side: bucket number 2 has observation count of -0.5: histogram has a bucket whose observation count \
             is negative"
        );
        assert_eq!(
            text(FloatHistogram { zero_count: -1.0, ..good.clone() }),
            "zero bucket has observation count of -1: histogram has a bucket whose observation count is negative"
        );
        assert_eq!(
            text(FloatHistogram { count: -2.0, ..good.clone() }),
            "observation count is -2: histogram's observation count is negative"
        );
        let gauge = CounterResetHint::Gauge;
        assert_eq!(FloatHistogram { count: -2.0, counter_reset_hint: gauge, ..good }.validate(), Ok(()));
    }
}
