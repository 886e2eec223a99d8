//! The content of a commit record: entries, applied in order.
//!
//! One commit is one record, so that its checksum makes it whole or absent. The layout is in `docs/formats/wal.md`.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::exemplar::Exemplar;
use model::labels::Labels;
use model::metadata::{Metadata, MetricKind};
use model::sample::{TimeRange, Timestamp};

use crate::chunk::HistogramValue;
use crate::chunk::histogram::{get_one, put_one};
use crate::coding::{DecodeError, Reader, put_str, put_uvarint, put_varint};
use crate::head::window::RowPart;

/// Record kind of a commit.
pub(crate) const KIND_COMMIT: u8 = 1;

const SERIES: u8 = 1;
const LAYOUT: u8 = 2;
const ROW: u8 = 3;
const FLOATS: u8 = 4;
const FLOATS_WITH_START: u8 = 5;
const HISTOGRAM: u8 = 6;
const EXEMPLAR: u8 = 7;
const METADATA: u8 = 8;
const ROW_PART: u8 = 9;
const BOUNDS: u8 = 10;
const DELETED: u8 = 11;

/// One float sample of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloatSample {
    pub(crate) series: u32,
    pub(crate) t: Timestamp,
    pub(crate) bits: u64,
    /// 0: unknown.
    pub(crate) start: Timestamp,
}

/// A decoded entry.
#[derive(Debug)]
pub(crate) enum Entry {
    Series {
        id: u32,
        labels: Labels,
    },
    Layout {
        layout: u64,
        from: usize,
        slots: Vec<u32>,
    },
    /// `part`: the slots it covers; `None`: all.
    Row {
        layout: u64,
        t: Timestamp,
        part: Option<(u32, u32)>,
        full: bool,
        words: Vec<u64>,
        values: Vec<u64>,
    },
    Floats(Vec<FloatSample>),
    Histogram {
        series: u32,
        t: Timestamp,
        start: Timestamp,
        value: HistogramValue,
    },
    Exemplar {
        series: u32,
        exemplar: Exemplar,
    },
    Metadata {
        metric: String,
        metadata: Metadata,
    },
    Bounds(Bounds),
    /// Samples of the series from `range.min` to `range.max` were deleted.
    Deleted {
        series: u32,
        range: TimeRange,
    },
}

/// What compaction has taken from the head so far: samples behind it in the log are judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Samples before it are out of order.
    pub(crate) in_order_from: Timestamp,
    /// In-order samples before it are in blocks.
    pub(crate) truncated_to: Timestamp,
    /// Out-of-order samples of commits up to this one are in blocks.
    pub(crate) late_through: u64,
}

pub(crate) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put_uvarint(out, labels.len() as u64);
    for (name, value) in labels {
        put_str(out, name);
        put_str(out, value);
    }
}

pub(crate) fn get_labels(reader: &mut Reader<'_>) -> Result<Labels, DecodeError> {
    let count = reader.count(2)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        pairs.push((reader.str()?, reader.str()?));
    }
    let ordered = pairs.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b));
    if !ordered || pairs.iter().any(|(_, value)| value.is_empty()) {
        return Err(DecodeError::Inconsistent("labels"));
    }
    Ok(Labels::from_sorted(pairs))
}

pub(crate) fn put_series(out: &mut Vec<u8>, id: u32, labels: &Labels) {
    out.push(SERIES);
    put_uvarint(out, u64::from(id));
    put_labels(out, labels);
}

/// The series of slots `from` on.
pub(crate) fn put_layout(out: &mut Vec<u8>, layout: u64, from: usize, slots: &[u32]) {
    out.push(LAYOUT);
    put_uvarint(out, layout);
    put_uvarint(out, from as u64);
    put_uvarint(out, slots.len() as u64);
    let mut previous = 0i64;
    for slot in slots {
        put_varint(out, i64::from(*slot) - previous);
        previous = i64::from(*slot);
    }
}

pub(crate) fn put_row(
    out: &mut Vec<u8>,
    layout: u64,
    t: Timestamp,
    full: bool,
    words: &[u64],
    values: &[u64],
) {
    out.push(ROW);
    put_uvarint(out, layout);
    put_varint(out, t);
    out.push(u8::from(full));
    put_uvarint(out, words.len() as u64);
    for word in words.iter().chain(values) {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// A row of the slots `from..to`; `words` begin with that of slot `from`.
pub(crate) fn put_row_part(
    out: &mut Vec<u8>,
    layout: u64,
    t: Timestamp,
    (from, to): (u32, u32),
    full: bool,
    words: &[u64],
    values: &[u64],
) {
    out.push(ROW_PART);
    put_uvarint(out, layout);
    put_varint(out, t);
    put_uvarint(out, u64::from(from));
    put_uvarint(out, u64::from(to - from));
    out.push(u8::from(full));
    for word in words.iter().chain(values) {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

pub(crate) fn put_bounds(out: &mut Vec<u8>, bounds: Bounds) {
    out.push(BOUNDS);
    put_varint(out, bounds.in_order_from);
    put_varint(out, bounds.truncated_to);
    put_uvarint(out, bounds.late_through);
}

pub(crate) fn put_deleted(out: &mut Vec<u8>, series: u32, range: TimeRange) {
    out.push(DELETED);
    put_uvarint(out, u64::from(series));
    put_varint(out, range.min);
    put_varint(out, range.max);
}

/// Column by column, values byte by byte: that is what LZ4 finds repetitions in.
pub(crate) fn put_floats(out: &mut Vec<u8>, samples: &[FloatSample]) {
    let starts = samples.iter().any(|sample| sample.start != 0);
    out.push(if starts { FLOATS_WITH_START } else { FLOATS });
    out.reserve(samples.len() * 14);
    put_uvarint(out, samples.len() as u64);
    let mut series = 0i64;
    for sample in samples {
        put_varint(out, i64::from(sample.series) - series);
        series = i64::from(sample.series);
    }
    let mut t = 0i64;
    for sample in samples {
        put_varint(out, sample.t.wrapping_sub(t));
        t = sample.t;
    }
    for byte in 0..8 {
        out.extend(samples.iter().map(|sample| ((sample.bits >> (8 * byte)) & 0xff) as u8));
    }
    if starts {
        for sample in samples {
            put_varint(out, sample.start);
        }
    }
}

pub(crate) fn put_histogram(
    out: &mut Vec<u8>,
    series: u32,
    t: Timestamp,
    start: Timestamp,
    value: &HistogramValue,
) {
    out.push(HISTOGRAM);
    put_uvarint(out, u64::from(series));
    put_varint(out, t);
    put_varint(out, start);
    put_one(out, value, None);
}

pub(crate) fn put_exemplar(out: &mut Vec<u8>, series: u32, exemplar: &Exemplar) {
    out.push(EXEMPLAR);
    put_uvarint(out, u64::from(series));
    put_varint(out, exemplar.t.unwrap_or_default());
    out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
    put_labels(out, &exemplar.labels);
}

pub(crate) fn put_metadata(out: &mut Vec<u8>, metric: &str, metadata: &Metadata) {
    out.push(METADATA);
    put_str(out, metric);
    out.push(kind_code(metadata.kind));
    put_str(out, &metadata.unit);
    put_str(out, &metadata.help);
}

const KINDS: [MetricKind; 8] = [
    MetricKind::Unknown,
    MetricKind::Counter,
    MetricKind::Gauge,
    MetricKind::Histogram,
    MetricKind::GaugeHistogram,
    MetricKind::Summary,
    MetricKind::Info,
    MetricKind::StateSet,
];

fn kind_code(kind: MetricKind) -> u8 {
    (0u8..).zip(KINDS).find(|(_, other)| *other == kind).map_or(0, |(code, _)| code)
}

/// Decodes a commit's entries and hands them on in order.
pub(crate) fn decode<E: From<DecodeError>>(
    payload: &[u8],
    mut take: impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        take(entry(&mut reader)?)?;
    }
    Ok(())
}

fn entry(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    Ok(match reader.u8()? {
        SERIES => Entry::Series { id: reader.uvarint32()?, labels: get_labels(reader)? },
        LAYOUT => {
            let layout = reader.uvarint()?;
            let from = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
            let count = reader.count(1)?;
            let mut slots = Vec::with_capacity(count);
            let mut previous = 0i64;
            for _ in 0..count {
                previous = previous.wrapping_add(reader.varint()?);
                slots.push(u32::try_from(previous).map_err(|_| DecodeError::NumberRange)?);
            }
            Entry::Layout { layout, from, slots }
        }
        ROW => row(reader, false)?,
        ROW_PART => row(reader, true)?,
        BOUNDS => Entry::Bounds(Bounds {
            in_order_from: reader.varint()?,
            truncated_to: reader.varint()?,
            late_through: reader.uvarint()?,
        }),
        DELETED => {
            let series = reader.uvarint32()?;
            let range = TimeRange::new(reader.varint()?, reader.varint()?);
            if range.min > range.max {
                return Err(DecodeError::Inconsistent("deleted range"));
            }
            Entry::Deleted { series, range }
        }
        FLOATS => floats(reader, false)?,
        FLOATS_WITH_START => floats(reader, true)?,
        HISTOGRAM => Entry::Histogram {
            series: reader.uvarint32()?,
            t: reader.varint()?,
            start: reader.varint()?,
            value: get_one(reader, None)?,
        },
        EXEMPLAR => {
            let series = reader.uvarint32()?;
            let (t, value) = (reader.varint()?, reader.f64_le()?);
            Entry::Exemplar { series, exemplar: Exemplar { labels: get_labels(reader)?, value, t: Some(t) } }
        }
        METADATA => {
            let metric = reader.str()?.to_owned();
            let kind = usize::from(reader.u8()?);
            let kind = *KINDS.get(kind).ok_or(DecodeError::Unknown("metric type"))?;
            let (unit, help) = (reader.str()?.to_owned(), reader.str()?.to_owned());
            Entry::Metadata { metric, metadata: Metadata { kind, unit, help } }
        }
        _ => return Err(DecodeError::Unknown("entry of a commit")),
    })
}

fn row(reader: &mut Reader<'_>, is_part: bool) -> Result<Entry, DecodeError> {
    let layout = reader.uvarint()?;
    let t = reader.varint()?;
    let part = if is_part {
        let (from, len) = (reader.uvarint32()?, reader.uvarint32()?);
        Some((from, from.checked_add(len).ok_or(DecodeError::NumberRange)?))
    } else {
        None
    };
    let full = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Unknown("row flag")),
    };
    let count = match part {
        Some((from, to)) => RowPart::words_of(from, to),
        None => reader.count(8)?,
    };
    if count.saturating_mul(8) > reader.remaining() {
        return Err(DecodeError::UnexpectedEnd);
    }
    let words = (0..count).map(|_| reader.u64_le()).collect::<Result<Vec<_>, _>>()?;
    let changed: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
    if changed.saturating_mul(8) > reader.remaining() as u64 {
        return Err(DecodeError::UnexpectedEnd);
    }
    let values = (0..changed).map(|_| reader.u64_le()).collect::<Result<Vec<_>, _>>()?;
    Ok(Entry::Row { layout, t, part, full, words, values })
}

fn floats(reader: &mut Reader<'_>, starts: bool) -> Result<Entry, DecodeError> {
    let count = reader.count(10)?;
    let mut samples = Vec::with_capacity(count);
    let mut series = 0i64;
    for _ in 0..count {
        series = series.wrapping_add(reader.varint()?);
        let series = u32::try_from(series).map_err(|_| DecodeError::NumberRange)?;
        samples.push(FloatSample { series, t: 0, bits: 0, start: 0 });
    }
    let mut t = 0i64;
    for sample in &mut samples {
        t = t.wrapping_add(reader.varint()?);
        sample.t = t;
    }
    for byte in 0..8 {
        for (sample, bits) in samples.iter_mut().zip(reader.bytes(count)?) {
            sample.bits |= u64::from(*bits) << (8 * byte);
        }
    }
    if starts {
        for sample in &mut samples {
            sample.start = reader.varint()?;
        }
    }
    Ok(Entry::Floats(samples))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(payload: &[u8]) -> Result<Vec<String>, DecodeError> {
        let mut out = Vec::new();
        decode::<DecodeError>(payload, |entry| {
            out.push(format!("{entry:?}"));
            Ok(())
        })?;
        Ok(out)
    }

    proptest! {
        #[test]
        fn floats_survive(samples in prop::collection::vec((any::<u32>(), any::<i64>(), any::<u64>(), any::<i64>()), 1..20)) {
            let samples: Vec<FloatSample> =
                samples.into_iter().map(|(series, t, bits, start)| FloatSample { series, t, bits, start }).collect();
            let mut out = Vec::new();
            put_floats(&mut out, &samples);
            decode::<DecodeError>(&out, |entry| {
                assert!(matches!(entry, Entry::Floats(got) if got == samples));
                Ok(())
            }).unwrap();
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = entries(&bytes);
        }
    }

    #[test]
    fn a_row_that_promises_more_values_than_there_are_is_refused() {
        let mut out = Vec::new();
        put_row(&mut out, 1, 5, false, &[3], &[1, 2]);
        assert_eq!(entries(&out).unwrap().len(), 1);
        out.pop();
        assert_eq!(entries(&out), Err(DecodeError::UnexpectedEnd));
    }
}
