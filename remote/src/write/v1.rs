//! `prometheus.WriteRequest` (remote write 1.0), read in place: what its series hold. Module `scan` finds them.
//!
//! Field numbers are those of Prometheus' `prompb/remote.proto` and `prompb/types.proto`.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::sync::Arc;

use model::histogram::{CounterResetHint, Span};
use model::{Exemplar, FloatHistogram, Histogram, Labels, Metadata, MetricKind, SampleValue, Timestamp};

use crate::protobuf::{DecodeError, Reader, WireError};

/// One `TimeSeries`, its parts not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct TimeSeries<'a> {
    message: &'a [u8],
    /// The labels as they stand on the wire: equal bytes mean equal labels. `None` when other fields stand between the labels.
    pub raw_labels: Option<&'a [u8]>,
}

impl<'a> TimeSeries<'a> {
    pub(super) fn new(message: &'a [u8]) -> Result<Self, DecodeError> {
        // Senders write all labels first: then they are one run of bytes at the start of the message. The message is
        // scanned to its end all the same, or labels further on would be missed and two series taken for one.
        let mut reader = Reader::new(message);
        let mut labels_end = 0;
        let mut contiguous = true;
        let mut others = false;
        while let Some(field) = reader.next_field()? {
            if field.number == 1 {
                contiguous &= !others;
                labels_end = reader.position();
            } else {
                others = true;
            }
        }
        Ok(Self { message, raw_labels: message.get(..labels_end).filter(|_| contiguous) })
    }

    /// The pairs as sent.
    ///
    /// # Errors
    /// When the message is malformed or a string is no UTF-8.
    pub fn label_pairs(&self) -> Result<Vec<(&'a str, &'a str)>, DecodeError> {
        let mut pairs = Vec::with_capacity(16);
        let mut reader = Reader::new(self.message);
        while let Some(field) = reader.next_field()? {
            if field.number == 1 {
                pairs.push(read_pair(field.bytes()?)?);
            }
        }
        Ok(pairs)
    }

    /// Calls `each` for every sample: floats first, then histograms, as they come.
    ///
    /// # Errors
    /// When the message is malformed, or `each` fails.
    pub fn samples<E: From<DecodeError>>(
        &self,
        mut each: impl FnMut(Timestamp, SampleValue) -> Result<(), E>,
    ) -> Result<(), E> {
        let skip = self.raw_labels.map_or(0, <[u8]>::len);
        let mut reader = Reader::new(self.message.get(skip..).unwrap_or_default());
        while let Some(field) = reader.next_field().map_err(DecodeError::from)? {
            match field.number {
                2 => {
                    let (t, v) = read_sample(field.bytes().map_err(DecodeError::from)?)?;
                    each(t, SampleValue::Float(v))?;
                }
                4 => {
                    let (t, _, value) = read_histogram(field.bytes().map_err(DecodeError::from)?)?;
                    each(t, value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The exemplars.
    ///
    /// # Errors
    /// When the message is malformed.
    pub fn exemplars(&self) -> Result<Vec<Exemplar>, DecodeError> {
        let mut exemplars = Vec::new();
        let mut reader = Reader::new(self.message);
        while let Some(field) = reader.next_field()? {
            if field.number == 3 {
                exemplars.push(read_exemplar(field.bytes()?)?);
            }
        }
        Ok(exemplars)
    }
}

fn read_pair(bytes: &[u8]) -> Result<(&str, &str), DecodeError> {
    let (mut name, mut value) = ("", "");
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => name = field.string()?,
            2 => value = field.string()?,
            _ => {}
        }
    }
    Ok((name, value))
}

pub(super) fn read_sample(bytes: &[u8]) -> Result<(Timestamp, f64), DecodeError> {
    let (mut t, mut v) = (0, 0.0);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => v = field.double()?,
            2 => t = field.int64()?,
            _ => {}
        }
    }
    Ok((t, v))
}

fn read_exemplar(bytes: &[u8]) -> Result<Exemplar, DecodeError> {
    let mut pairs = Vec::new();
    let mut exemplar = Exemplar { labels: Labels::empty(), value: 0.0, t: None };
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => pairs.push(read_pair(field.bytes()?)?),
            2 => exemplar.value = field.double()?,
            3 => exemplar.t = Some(field.int64()?),
            _ => {}
        }
    }
    exemplar.labels = Labels::from_pairs(pairs);
    Ok(exemplar)
}

pub(super) fn read_metadata(bytes: &[u8]) -> Result<(&str, Metadata), DecodeError> {
    let mut name = "";
    let mut metadata = Metadata::default();
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => metadata.kind = metric_kind(field.varint()?),
            2 => name = field.string()?,
            4 => metadata.help = field.string()?.to_owned(),
            5 => metadata.unit = field.string()?.to_owned(),
            _ => {}
        }
    }
    Ok((name, metadata))
}

/// The fields of `Histogram` before it is known whether counts are integers or floats.
#[derive(Default)]
struct RawHistogram {
    count_int: u64,
    count_float: Option<f64>,
    sum: f64,
    schema: i64,
    zero_threshold: f64,
    zero_int: u64,
    zero_float: f64,
    negative_spans: Vec<Span>,
    negative_deltas: Vec<i64>,
    negative_counts: Vec<f64>,
    positive_spans: Vec<Span>,
    positive_deltas: Vec<i64>,
    positive_counts: Vec<f64>,
    reset_hint: CounterResetHint,
    t: Timestamp,
    start: Option<Timestamp>,
    custom_values: Vec<f64>,
}

/// A `Histogram` message, the same in both versions but for the start timestamp of 2.0.
pub(super) fn read_histogram(
    bytes: &[u8],
) -> Result<(Timestamp, Option<Timestamp>, SampleValue), DecodeError> {
    let mut raw = RawHistogram::default();
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => raw.count_int = field.varint()?,
            2 => raw.count_float = Some(field.double()?),
            3 => raw.sum = field.double()?,
            4 => raw.schema = field.sint64()?,
            5 => raw.zero_threshold = field.double()?,
            6 => raw.zero_int = field.varint()?,
            7 => raw.zero_float = field.double()?,
            8 => raw.negative_spans.push(read_span(field.bytes()?)?),
            9 => read_packed_sint(field.bytes()?, &mut raw.negative_deltas)?,
            10 => read_packed_double(field.bytes()?, &mut raw.negative_counts)?,
            11 => raw.positive_spans.push(read_span(field.bytes()?)?),
            12 => read_packed_sint(field.bytes()?, &mut raw.positive_deltas)?,
            13 => read_packed_double(field.bytes()?, &mut raw.positive_counts)?,
            14 => {
                raw.reset_hint = match field.varint()? {
                    1 => CounterResetHint::CounterReset,
                    2 => CounterResetHint::NotCounterReset,
                    3 => CounterResetHint::Gauge,
                    _ => CounterResetHint::Unknown,
                }
            }
            15 => raw.t = field.int64()?,
            16 => read_packed_double(field.bytes()?, &mut raw.custom_values)?,
            17 => raw.start = Some(field.int64()?).filter(|start| *start != 0),
            _ => {}
        }
    }
    // A schema out of i32 is no schema; the validation of histograms refuses it by its number.
    let schema = i32::try_from(raw.schema).unwrap_or(i32::MAX);
    let custom_values: Arc<[f64]> = raw.custom_values.into();
    let value = match raw.count_float {
        Some(count) => SampleValue::FloatHistogram(Arc::new(FloatHistogram {
            counter_reset_hint: raw.reset_hint,
            schema,
            zero_threshold: raw.zero_threshold,
            zero_count: raw.zero_float,
            count,
            sum: raw.sum,
            positive_spans: raw.positive_spans,
            negative_spans: raw.negative_spans,
            positive_buckets: raw.positive_counts,
            negative_buckets: raw.negative_counts,
            custom_values,
        })),
        None => SampleValue::Histogram(Arc::new(Histogram {
            counter_reset_hint: raw.reset_hint,
            schema,
            zero_threshold: raw.zero_threshold,
            zero_count: raw.zero_int,
            count: raw.count_int,
            sum: raw.sum,
            positive_spans: raw.positive_spans,
            negative_spans: raw.negative_spans,
            positive_buckets: raw.positive_deltas,
            negative_buckets: raw.negative_deltas,
            custom_values,
        })),
    };
    Ok((raw.t, raw.start, value))
}

fn read_span(bytes: &[u8]) -> Result<Span, DecodeError> {
    let mut span = Span { offset: 0, length: 0 };
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        let out_of_range = |_| WireError::WrongType { field: field.number, wire_type: 0 };
        match field.number {
            1 => span.offset = i32::try_from(field.sint64()?).map_err(out_of_range)?,
            2 => span.length = u32::try_from(field.varint()?).map_err(out_of_range)?,
            _ => {}
        }
    }
    Ok(span)
}

fn read_packed_sint(bytes: &[u8], into: &mut Vec<i64>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while let Some(value) = reader.next_packed_varint()? {
        into.push(crate::protobuf::zigzag(value));
    }
    Ok(())
}

fn read_packed_double(bytes: &[u8], into: &mut Vec<f64>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while let Some(value) = reader.next_packed_double()? {
        into.push(value);
    }
    Ok(())
}

/// The metric type of a metadata message; both versions number them alike.
pub(super) fn metric_kind(number: u64) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}
