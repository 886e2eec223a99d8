//! Native histograms as bytes: in chunks (each against its predecessor) and in the log (each alone).
//!
//! Integers are written as differences to the same field of the predecessor when both have the same shape; floats as XOR
//! with it, bytes reversed, so that few significant bytes make a short varint. Every bit of every field survives.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::sync::Arc;

use model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use model::sample::Timestamp;

use crate::coding::{DecodeError, Reader, put_uvarint, put_varint};

/// A stored histogram of either kind.
#[derive(Clone, Debug)]
pub(crate) enum HistogramValue {
    Integer(Arc<Histogram>),
    Float(Arc<FloatHistogram>),
}

impl HistogramValue {
    /// As queries see it.
    pub(crate) fn to_float(&self) -> Arc<FloatHistogram> {
        match self {
            Self::Integer(h) => Arc::new(h.to_float()),
            Self::Float(h) => Arc::clone(h),
        }
    }

    /// Whether all bits are the same (NaNs included). Compares encoded forms, which hold every bit.
    pub(crate) fn same_bits(&self, other: &Self) -> bool {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        put_one(&mut a, self, None);
        put_one(&mut b, other, None);
        a == b
    }

    /// Buckets and spans.
    pub(super) fn cells(&self) -> usize {
        let shape = self.shape();
        shape.positive + shape.negative + shape.positive_spans.len() + shape.negative_spans.len()
    }

    pub(super) fn shape(&self) -> Shape<'_> {
        match self {
            Self::Integer(h) => Shape {
                float: false,
                schema: h.schema,
                zero_threshold: h.zero_threshold.to_bits(),
                positive_spans: &h.positive_spans,
                negative_spans: &h.negative_spans,
                custom_values: &h.custom_values,
                positive: h.positive_buckets.len(),
                negative: h.negative_buckets.len(),
            },
            Self::Float(h) => Shape {
                float: true,
                schema: h.schema,
                zero_threshold: h.zero_threshold.to_bits(),
                positive_spans: &h.positive_spans,
                negative_spans: &h.negative_spans,
                custom_values: &h.custom_values,
                positive: h.positive_buckets.len(),
                negative: h.negative_buckets.len(),
            },
        }
    }

    pub(crate) fn hint(&self) -> CounterResetHint {
        match self {
            Self::Integer(h) => h.counter_reset_hint,
            Self::Float(h) => h.counter_reset_hint,
        }
    }
}

/// All that consecutive histograms of a series mostly share.
pub(super) struct Shape<'a> {
    pub(super) float: bool,
    pub(super) schema: i32,
    pub(super) zero_threshold: u64,
    pub(super) positive_spans: &'a [Span],
    pub(super) negative_spans: &'a [Span],
    pub(super) custom_values: &'a [f64],
    pub(super) positive: usize,
    pub(super) negative: usize,
}

impl Shape<'_> {
    pub(super) fn same(&self, other: &Shape<'_>) -> bool {
        self.float == other.float
            && self.schema == other.schema
            && self.zero_threshold == other.zero_threshold
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && self.positive == other.positive
            && self.negative == other.negative
            && self.custom_values.len() == other.custom_values.len()
            && self.custom_values.iter().zip(other.custom_values).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

const FLOAT_FLAG: u8 = 1;
const SAME_SHAPE_FLAG: u8 = 8;

pub(super) fn hint_code(hint: CounterResetHint) -> u8 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::NotCounterReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

pub(super) fn hint_of(code: u8) -> CounterResetHint {
    match code & 3 {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::CounterReset,
        2 => CounterResetHint::NotCounterReset,
        _ => CounterResetHint::Gauge,
    }
}

/// Reads the samples of the first histogram codec: each is against its predecessor, its time too.
pub(crate) fn get_samples(
    reader: &mut Reader<'_>,
    count: usize,
    mut take: impl FnMut(Timestamp, HistogramValue),
) -> Result<(), DecodeError> {
    let mut t = 0i64;
    let mut previous: Option<HistogramValue> = None;
    for _ in 0..count {
        t = t.wrapping_add(reader.varint()?);
        let value = get_one(reader, previous.as_ref())?;
        take(t, value.clone());
        previous = Some(value);
    }
    Ok(())
}

/// Appends one histogram, as difference to `previous` where they have the same shape.
pub(crate) fn put_one(out: &mut Vec<u8>, value: &HistogramValue, previous: Option<&HistogramValue>) {
    let shape = value.shape();
    let base = previous.filter(|p| p.shape().same(&shape));
    let float = if shape.float { FLOAT_FLAG } else { 0 };
    let same = if base.is_some() { SAME_SHAPE_FLAG } else { 0 };
    out.push(float | hint_code(value.hint()) << 1 | same);
    if base.is_none() {
        put_shape(out, &shape);
    }
    match (value, base) {
        (HistogramValue::Integer(h), base) => {
            let base = base.and_then(|b| match b {
                HistogramValue::Integer(b) => Some(b),
                HistogramValue::Float(_) => None,
            });
            let zero = Histogram::default();
            let b = base.map_or(&zero, |b| b);
            put_varint(out, h.count.wrapping_sub(b.count).cast_signed());
            put_varint(out, h.zero_count.wrapping_sub(b.zero_count).cast_signed());
            put_xor(out, h.sum, b.sum);
            for (now, before) in
                [(&h.positive_buckets, &b.positive_buckets), (&h.negative_buckets, &b.negative_buckets)]
            {
                for (index, bucket) in now.iter().enumerate() {
                    put_varint(out, bucket.wrapping_sub(before.get(index).copied().unwrap_or(0)));
                }
            }
        }
        (HistogramValue::Float(h), base) => {
            let base = base.and_then(|b| match b {
                HistogramValue::Float(b) => Some(b),
                HistogramValue::Integer(_) => None,
            });
            let zero = FloatHistogram::default();
            let b = base.map_or(&zero, |b| b);
            put_xor(out, h.count, b.count);
            put_xor(out, h.zero_count, b.zero_count);
            put_xor(out, h.sum, b.sum);
            for (now, before) in
                [(&h.positive_buckets, &b.positive_buckets), (&h.negative_buckets, &b.negative_buckets)]
            {
                for (index, bucket) in now.iter().enumerate() {
                    put_xor(out, *bucket, before.get(index).copied().unwrap_or(0.0));
                }
            }
        }
    }
}

fn put_xor(out: &mut Vec<u8>, value: f64, base: f64) {
    put_uvarint(out, (value.to_bits() ^ base.to_bits()).swap_bytes());
}

fn get_xor(reader: &mut Reader<'_>, base: f64) -> Result<f64, DecodeError> {
    Ok(f64::from_bits(reader.uvarint()?.swap_bytes() ^ base.to_bits()))
}

pub(super) fn put_shape(out: &mut Vec<u8>, shape: &Shape<'_>) {
    put_varint(out, i64::from(shape.schema));
    out.extend_from_slice(&shape.zero_threshold.to_le_bytes());
    for (spans, buckets) in [(shape.positive_spans, shape.positive), (shape.negative_spans, shape.negative)] {
        put_uvarint(out, spans.len() as u64);
        for span in spans {
            put_varint(out, i64::from(span.offset));
            put_uvarint(out, u64::from(span.length));
        }
        put_uvarint(out, buckets as u64);
    }
    put_uvarint(out, shape.custom_values.len() as u64);
    for bound in shape.custom_values {
        out.extend_from_slice(&bound.to_bits().to_le_bytes());
    }
}

/// A decoded shape, or the one of the predecessor.
pub(super) struct OwnedShape {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) positive_spans: Vec<Span>,
    pub(super) negative_spans: Vec<Span>,
    pub(super) positive: usize,
    pub(super) negative: usize,
    pub(super) custom_values: Arc<[f64]>,
}

fn get_spans(reader: &mut Reader<'_>) -> Result<(Vec<Span>, usize), DecodeError> {
    let count = reader.count(2)?;
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = i32::try_from(reader.varint()?).map_err(|_| DecodeError::NumberRange)?;
        spans.push(Span { offset, length: reader.uvarint32()? });
    }
    Ok((spans, reader.count(1)?))
}

pub(super) fn get_shape(reader: &mut Reader<'_>) -> Result<OwnedShape, DecodeError> {
    let schema = i32::try_from(reader.varint()?).map_err(|_| DecodeError::NumberRange)?;
    let zero_threshold = reader.f64_le()?;
    let (positive_spans, positive) = get_spans(reader)?;
    let (negative_spans, negative) = get_spans(reader)?;
    let bounds = reader.count(8)?;
    let custom_values = (0..bounds).map(|_| reader.f64_le()).collect::<Result<Arc<[f64]>, _>>()?;
    Ok(OwnedShape {
        schema,
        zero_threshold,
        positive_spans,
        negative_spans,
        positive,
        negative,
        custom_values,
    })
}

fn shape_of(value: &HistogramValue) -> OwnedShape {
    let shape = value.shape();
    let custom_values = match value {
        HistogramValue::Integer(h) => Arc::clone(&h.custom_values),
        HistogramValue::Float(h) => Arc::clone(&h.custom_values),
    };
    OwnedShape {
        schema: shape.schema,
        zero_threshold: f64::from_bits(shape.zero_threshold),
        positive_spans: shape.positive_spans.to_vec(),
        negative_spans: shape.negative_spans.to_vec(),
        positive: shape.positive,
        negative: shape.negative,
        custom_values,
    }
}

/// Reads one histogram that [`put_one`] wrote against the same `previous`.
pub(crate) fn get_one(
    reader: &mut Reader<'_>,
    previous: Option<&HistogramValue>,
) -> Result<HistogramValue, DecodeError> {
    let flags = reader.u8()?;
    if flags & !(FLOAT_FLAG | 6 | SAME_SHAPE_FLAG) != 0 {
        return Err(DecodeError::Unknown("histogram flag"));
    }
    let float = flags & FLOAT_FLAG != 0;
    let base = previous.filter(|_| flags & SAME_SHAPE_FLAG != 0);
    let shape = match (flags & SAME_SHAPE_FLAG != 0, base) {
        (true, None) => return Err(DecodeError::Inconsistent("histogram without predecessor")),
        (true, Some(previous)) => shape_of(previous),
        (false, _) => get_shape(reader)?,
    };
    if float { get_float(reader, shape, flags, base) } else { get_integer(reader, shape, flags, base) }
}

fn get_integer(
    reader: &mut Reader<'_>,
    shape: OwnedShape,
    flags: u8,
    base: Option<&HistogramValue>,
) -> Result<HistogramValue, DecodeError> {
    let zero = Histogram::default();
    let b = match base {
        None => &zero,
        Some(HistogramValue::Integer(b)) => b,
        Some(HistogramValue::Float(_)) => return Err(DecodeError::Inconsistent("kind of histogram")),
    };
    let count = b.count.wrapping_add(reader.varint()?.cast_unsigned());
    let zero_count = b.zero_count.wrapping_add(reader.varint()?.cast_unsigned());
    let sum = get_xor(reader, b.sum)?;
    let mut buckets = |len: usize, before: &[i64]| {
        (0..len)
            .map(|i| Ok(before.get(i).copied().unwrap_or(0).wrapping_add(reader.varint()?)))
            .collect::<Result<Vec<i64>, DecodeError>>()
    };
    let positive_buckets = buckets(shape.positive, &b.positive_buckets)?;
    let negative_buckets = buckets(shape.negative, &b.negative_buckets)?;
    Ok(HistogramValue::Integer(Arc::new(Histogram {
        counter_reset_hint: hint_of(flags >> 1),
        schema: shape.schema,
        zero_threshold: shape.zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans: shape.positive_spans,
        negative_spans: shape.negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values: shape.custom_values,
    })))
}

fn get_float(
    reader: &mut Reader<'_>,
    shape: OwnedShape,
    flags: u8,
    base: Option<&HistogramValue>,
) -> Result<HistogramValue, DecodeError> {
    let zero = FloatHistogram::default();
    let b = match base {
        None => &zero,
        Some(HistogramValue::Float(b)) => b,
        Some(HistogramValue::Integer(_)) => return Err(DecodeError::Inconsistent("kind of histogram")),
    };
    let count = get_xor(reader, b.count)?;
    let zero_count = get_xor(reader, b.zero_count)?;
    let sum = get_xor(reader, b.sum)?;
    let mut buckets = |len: usize, before: &[f64]| {
        (0..len)
            .map(|i| get_xor(reader, before.get(i).copied().unwrap_or(0.0)))
            .collect::<Result<Vec<f64>, DecodeError>>()
    };
    let positive_buckets = buckets(shape.positive, &b.positive_buckets)?;
    let negative_buckets = buckets(shape.negative, &b.negative_buckets)?;
    Ok(HistogramValue::Float(Arc::new(FloatHistogram {
        counter_reset_hint: hint_of(flags >> 1),
        schema: shape.schema,
        zero_threshold: shape.zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans: shape.positive_spans,
        negative_spans: shape.negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values: shape.custom_values,
    })))
}
