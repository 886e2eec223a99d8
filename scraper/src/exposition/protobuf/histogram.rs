//! `io.prometheus.client.Histogram`: classic buckets, native ones, or both.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Span};
use model::protobuf::{Field, Reader, WireError, zigzag};
use model::{FloatHistogram, Histogram, SampleValue, Timestamp};

use super::{FamilyType, RawExemplar, read_exemplar, read_time};

/// Most buckets of either sign and most spans of a native histogram, so that a page of bytes that are a bucket each does not
/// take eight times its size. Clients keep to hundreds.
const BUCKETS_MAX: usize = 1 << 20;

/// A histogram whose numbers have been read, but for its buckets.
#[derive(Clone, Copy, Debug)]
pub struct MetricHistogram<'a> {
    count_integer: u64,
    count_float: f64,
    /// Sum of observations, any bit pattern.
    pub sum: f64,
    /// Since when it counts.
    pub start: Option<Timestamp>,
    schema: i32,
    zero_threshold: f64,
    zero_count_integer: u64,
    zero_count_float: f64,
    has_buckets: bool,
    has_spans: bool,
    has_exemplars: bool,
    body: &'a [u8],
}

/// A classic bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket<'a> {
    /// Inclusive.
    pub upper_bound: f64,
    /// Observations up to the bound.
    pub count: f64,
    /// An example of them.
    pub exemplar: Option<RawExemplar<'a>>,
}

impl<'a> MetricHistogram<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let mut read = Self {
            count_integer: 0,
            count_float: 0.0,
            sum: 0.0,
            start: None,
            schema: 0,
            zero_threshold: 0.0,
            zero_count_integer: 0,
            zero_count_float: 0.0,
            has_buckets: false,
            has_spans: false,
            has_exemplars: false,
            body,
        };
        let mut reader = Reader::new(body);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => read.count_integer = field.varint()?,
                2 => read.sum = field.double()?,
                3 => {
                    read_bucket(field.bytes()?)?;
                    read.has_buckets = true;
                }
                4 => read.count_float = field.double()?,
                5 => read.schema = sint32(&field)?,
                6 => read.zero_threshold = field.double()?,
                7 => read.zero_count_integer = field.varint()?,
                8 => read.zero_count_float = field.double()?,
                9 | 12 => {
                    read_span(field.bytes()?)?;
                    read.has_spans = true;
                }
                10 | 13 => field.varints(|_| ())?,
                11 | 14 => field.doubles(|_| ())?,
                15 => read.start = Some(read_time(field.bytes()?)?),
                16 => {
                    read_exemplar(field.bytes()?)?;
                    read.has_exemplars = true;
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// All observations. A float other than 0 wins.
    pub fn count(&self) -> f64 {
        if self.count_float == 0.0 { self.count_integer as f64 } else { self.count_float }
    }

    /// Whether there are native buckets: spans, be they empty, or something about the zero bucket.
    pub fn is_native(&self) -> bool {
        self.has_spans || self.zero_threshold > 0.0 || self.zero_count_integer > 0
    }

    /// Whether there are classic buckets.
    pub fn has_buckets(&self) -> bool {
        self.has_buckets
    }

    /// The classic buckets as they come, up to the first with a bound of `+Inf`. One with that bound and [`Self::count`] comes
    /// last if there is none.
    pub fn buckets(&self) -> Buckets<'a> {
        Buckets { reader: Reader::new(self.body), count: self.count(), done: false }
    }

    /// The exemplars of a native histogram: its own or, if it has none, those of its classic buckets.
    pub fn exemplars(&self) -> impl Iterator<Item = RawExemplar<'a>> + 'a {
        let own = self.has_exemplars;
        let mut reader = Reader::new(self.body);
        std::iter::from_fn(move || {
            // All of it has been read before.
            while let Some(field) = reader.next_field().ok()? {
                match field.number {
                    16 if own => return read_exemplar(field.bytes().ok()?).ok(),
                    3 if !own => {
                        if let Some(exemplar) = read_bucket(field.bytes().ok()?).ok()?.exemplar {
                            return Some(exemplar);
                        }
                    }
                    _ => {}
                }
            }
            None
        })
    }

    /// The native histogram without empty buckets; with float counts if one of its counts is a float above 0. `None` when it has
    /// more buckets than anybody has.
    pub fn native(&self, family_type: FamilyType) -> Option<SampleValue> {
        let mut buckets = NativeBuckets::default();
        buckets.read(self.body).ok()?;
        let gauge = family_type == FamilyType::GaugeHistogram;
        let counter_reset_hint = if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
        let NativeBuckets { positive, negative } = buckets;
        Some(if self.count_float > 0.0 || self.zero_count_float > 0.0 {
            let mut histogram = FloatHistogram {
                counter_reset_hint,
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count_float,
                count: self.count_float,
                sum: self.sum,
                positive_spans: positive.spans,
                negative_spans: negative.spans,
                positive_buckets: positive.counts,
                negative_buckets: negative.counts,
                custom_values: Arc::default(),
            };
            // What does not fit together is refused by the store, with the reason.
            if histogram.validate().is_ok() {
                histogram.compact();
            }
            SampleValue::FloatHistogram(Arc::new(histogram))
        } else {
            let mut histogram = Histogram {
                counter_reset_hint,
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count_integer,
                count: self.count_integer,
                sum: self.sum,
                positive_spans: positive.spans,
                negative_spans: negative.spans,
                positive_buckets: positive.differences,
                negative_buckets: negative.differences,
                custom_values: Arc::default(),
            };
            histogram.compact(0);
            SampleValue::Histogram(Arc::new(histogram))
        })
    }
}

/// Walks over classic buckets.
#[derive(Clone, Debug)]
pub struct Buckets<'a> {
    reader: Reader<'a>,
    count: f64,
    done: bool,
}

impl<'a> Iterator for Buckets<'a> {
    type Item = Bucket<'a>;

    fn next(&mut self) -> Option<Bucket<'a>> {
        if self.done {
            return None;
        }
        // All of it has been read before.
        while let Some(field) = self.reader.next_field().ok()? {
            if field.number == 3 {
                let bucket = read_bucket(field.bytes().ok()?).ok()?;
                self.done = bucket.upper_bound == f64::INFINITY;
                return Some(bucket);
            }
        }
        self.done = true;
        Some(Bucket { upper_bound: f64::INFINITY, count: self.count, exemplar: None })
    }
}

fn read_bucket(bytes: &[u8]) -> Result<Bucket<'_>, WireError> {
    let mut bucket = Bucket { upper_bound: 0.0, count: 0.0, exemplar: None };
    let mut integer = 0;
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => integer = field.varint()?,
            2 => bucket.upper_bound = field.double()?,
            3 => bucket.exemplar = Some(read_exemplar(field.bytes()?)?),
            4 => bucket.count = field.double()?,
            _ => {}
        }
    }
    if bucket.count == 0.0 {
        bucket.count = integer as f64;
    }
    Ok(bucket)
}

/// The buckets of one sign.
#[derive(Debug, Default)]
struct Side {
    spans: Vec<Span>,
    differences: Vec<i64>,
    counts: Vec<f64>,
}

#[derive(Debug, Default)]
struct NativeBuckets {
    positive: Side,
    negative: Side,
}

/// Too many buckets, or bytes that are no histogram (which [`MetricHistogram::read`] has excluded).
struct Refused;

impl From<WireError> for Refused {
    fn from(_: WireError) -> Self {
        Self
    }
}

impl NativeBuckets {
    fn read(&mut self, body: &[u8]) -> Result<(), Refused> {
        let mut reader = Reader::new(body);
        while let Some(field) = reader.next_field()? {
            let side = match field.number {
                9..=11 => &mut self.negative,
                12..=14 => &mut self.positive,
                _ => continue,
            };
            match field.number {
                9 | 12 => side.spans.push(read_span(field.bytes()?)?),
                10 | 13 => field.varints(|value| {
                    if side.differences.len() <= BUCKETS_MAX {
                        side.differences.push(zigzag(value));
                    }
                })?,
                _ => field.doubles(|value| {
                    if side.counts.len() <= BUCKETS_MAX {
                        side.counts.push(value);
                    }
                })?,
            }
            if side.spans.len().max(side.differences.len()).max(side.counts.len()) > BUCKETS_MAX {
                return Err(Refused);
            }
        }
        Ok(())
    }
}

fn read_span(bytes: &[u8]) -> Result<Span, WireError> {
    let mut span = Span { offset: 0, length: 0 };
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => span.offset = sint32(&field)?,
            2 => {
                span.length =
                    u32::try_from(field.varint()?).map_err(|_| WireError::OutOfRange(field.number))?;
            }
            _ => {}
        }
    }
    Ok(span)
}

fn sint32(field: &Field<'_>) -> Result<i32, WireError> {
    i32::try_from(field.sint64()?).map_err(|_| WireError::OutOfRange(field.number))
}
