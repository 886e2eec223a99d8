//! Compressed runs of samples of one series, immutable once made.
//!
//! A chunk is a byte string that begins with its codec, so that new codecs can join old ones in memory and on disk; the
//! layout is in `docs/formats/chunk.md`. Series that are written together share one [`TimeColumn`]; a chunk without one
//! carries its own times. Decoders check every bound: damaged bytes give a [`DecodeError`].
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub(crate) mod histogram;
mod nm;
mod parts;
mod times;
pub(crate) mod xor;

use std::sync::Arc;

use model::sample::{TimeRange, Timestamp};

use crate::coding::{DecodeError, Reader, put_uvarint};
use crate::columns::Columns;
pub(crate) use histogram::HistogramValue;
#[allow(unused_imports, reason = "the values of what is not a chunk")]
pub(crate) use nm::{decode_values, encode_values};
pub(crate) use times::{decode_times, encode_times};
use xor::{BitReader, ValueDecoder};

/// Samples after which a chunk is closed, as in Prometheus; 120 rows were also measured as the best window of a layout.
pub(crate) const CHUNK_SAMPLES_MAX: usize = 120;
/// Span after which a chunk is closed, so that retention can drop it: the two hours of a block.
pub(crate) const CHUNK_SPAN_MAX_MS: i64 = 2 * 60 * 60 * 1000;

/// The codec byte of a chunk. Numbers are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    /// One float value for all samples; shared times.
    Constant = 1,
    /// Float values as XOR with their predecessors; shared times.
    XorValues = 2,
    /// Times as delta of delta and float values as XOR, interleaved (Gorilla).
    XorOwnTimes = 3,
    /// Native histograms with own times.
    Histograms = 4,
}

/// Set in the codec byte when a bitmap says in which rows of the shared times the series has a sample.
const PRESENCE_FLAG: u8 = 0x80;

impl Codec {
    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        match byte & !PRESENCE_FLAG {
            1 => Ok(Self::Constant),
            2 => Ok(Self::XorValues),
            3 => Ok(Self::XorOwnTimes),
            4 => Ok(Self::Histograms),
            _ => Err(DecodeError::Unknown("chunk codec")),
        }
    }
}

/// Times of rows, ascending, shared by the chunks of a layout's series.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TimeColumn {
    pub(crate) times: Box<[Timestamp]>,
}

/// One immutable chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) times: Option<Arc<TimeColumn>>,
    pub(crate) min_t: Timestamp,
    pub(crate) max_t: Timestamp,
}

/// Samples that a chunk may have: what a damaged number can make a reader allocate.
pub(crate) const CHUNK_SAMPLES_LIMIT: usize = 1 << 16;

/// Kinds of chunk in the high half of the first byte; below are flags. Numbers are on disk: never reuse one.
const KIND_FLOATS: u8 = 0x10;
const KIND_HISTOGRAM_ROWS: u8 = 0x20;
const KIND_MASK: u8 = 0xf0;
/// The chunk has its own times.
const OWN_TIMES: u8 = 1;
/// The chunk has start timestamps.
const STARTS: u8 = 8;

/// What can be told of a chunk without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkInfo {
    /// Of histograms, not of floats.
    pub(crate) histogram: bool,
    /// Number of samples.
    pub(crate) count: usize,
}

/// Looks at the head of a chunk.
///
/// # Errors
/// [`DecodeError`] for unknown kinds and impossible numbers.
pub(crate) fn info(bytes: &[u8]) -> Result<ChunkInfo, DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    let histogram = match tag & KIND_MASK {
        KIND_FLOATS => false,
        KIND_HISTOGRAM_ROWS => true,
        _ => Codec::from_byte(tag)? == Codec::Histograms,
    };
    Ok(ChunkInfo { histogram, count: sample_count(&mut reader)? })
}

/// How a chunk is encoded, in words.
pub(crate) fn kind_name(bytes: &[u8]) -> &'static str {
    let Some(tag) = bytes.first() else { return "nothing" };
    match (tag & KIND_MASK, tag & OWN_TIMES != 0) {
        (KIND_FLOATS, false) => "floats at shared times",
        (KIND_FLOATS, true) => "floats with own times",
        (KIND_HISTOGRAM_ROWS, _) => "histograms",
        _ => "chunks of an older format",
    }
}

fn sample_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let count = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
    if count > CHUNK_SAMPLES_LIMIT { Err(DecodeError::Inconsistent("number of samples")) } else { Ok(count) }
}

/// Appends a chunk of floats.
///
/// With `shared`, `times` is a whole column that the reader will have, and `presence` tells which of its rows the samples
/// are in (`None`: all); `values` and `starts` are of these samples only. Else `times` are the samples' own and become part
/// of the chunk. `starts` are empty when none is known.
///
/// # Panics
/// If the columns do not fit each other, or there are more than [`CHUNK_SAMPLES_LIMIT`] samples.
pub(crate) fn encode_floats(
    times: &[Timestamp],
    shared: bool,
    presence: Option<&[bool]>,
    values: &[f64],
    starts: &[Timestamp],
    out: &mut Vec<u8>,
) {
    let presence = presence.filter(|_| shared);
    assert!(presence.is_none_or(|presence| presence.len() == times.len()), "presence of other rows");
    let rows = presence.map_or(times.len(), |p| p.iter().filter(|present| **present).count());
    assert!(rows == values.len() && rows <= CHUNK_SAMPLES_LIMIT, "{} values in {rows} rows", values.len());
    let tag_at = put_chunk_head(KIND_FLOATS, values.len(), starts, out);
    if !shared {
        raise_flag(out, tag_at, OWN_TIMES);
        encode_times(times, out);
    } else if let Some(presence) = presence {
        let flag = parts::put_presence(presence, out);
        raise_flag(out, tag_at, flag);
    }
    nm::encode_values(values, out);
    if has_starts(starts) {
        let first = times.iter().zip(presence.unwrap_or(&[])).find(|(_, present)| **present).map(|(t, _)| *t);
        let base = first.or(times.first().copied()).unwrap_or(0);
        parts::put_starts(starts, base, out);
    }
}

/// Appends a chunk of histograms with times of their own; `starts` are empty when none is known.
///
/// # Panics
/// If the columns do not fit each other, or there are more than [`CHUNK_SAMPLES_LIMIT`] samples.
pub(crate) fn encode_histograms(
    times: &[Timestamp],
    values: &[HistogramValue],
    starts: &[Timestamp],
    out: &mut Vec<u8>,
) {
    assert!(times.len() == values.len() && times.len() <= CHUNK_SAMPLES_LIMIT, "columns of a chunk");
    let tag_at = put_chunk_head(KIND_HISTOGRAM_ROWS, values.len(), starts, out);
    raise_flag(out, tag_at, OWN_TIMES);
    encode_times(times, out);
    let mut previous = None;
    for value in values {
        histogram::put_one(out, value, previous);
        previous = Some(value);
    }
    if has_starts(starts) {
        parts::put_starts(starts, times.first().copied().unwrap_or(0), out);
    }
}

fn has_starts(starts: &[Timestamp]) -> bool {
    starts.iter().any(|start| *start != 0)
}

/// Appends kind and number; answers where the kind is.
fn put_chunk_head(kind: u8, count: usize, starts: &[Timestamp], out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.push(kind | if has_starts(starts) { STARTS } else { 0 });
    put_uvarint(out, count as u64);
    at
}

fn raise_flag(out: &mut [u8], at: usize, flag: u8) {
    if let Some(tag) = out.get_mut(at) {
        *tag |= flag;
    }
}

/// Appends the samples of a chunk of any kind to `out`; `times` is the shared column, for chunks without times.
///
/// # Errors
/// Whatever is wrong with the bytes; `out` is as before then.
pub(crate) fn decode_into(
    bytes: &[u8],
    times: Option<&[Timestamp]>,
    out: &mut Columns,
) -> Result<(), DecodeError> {
    let before = (out.times.len(), out.starts.len(), out.histogram_times.len(), out.histogram_starts.len());
    let done = append_chunk(bytes, times, out);
    if done.is_err() {
        out.times.truncate(before.0);
        out.values.truncate(before.0);
        out.starts.truncate(before.1);
        out.histogram_times.truncate(before.2);
        out.histograms.truncate(before.2);
        out.histogram_starts.truncate(before.3);
    }
    done
}

fn append_chunk(bytes: &[u8], times: Option<&[Timestamp]>, out: &mut Columns) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    let kind = tag & KIND_MASK;
    if kind != KIND_FLOATS && kind != KIND_HISTOGRAM_ROWS {
        return append_old(bytes, times, out);
    }
    let count = sample_count(&mut reader)?;
    let (into, starts) = match kind {
        KIND_FLOATS => (&mut out.times, &mut out.starts),
        _ => (&mut out.histogram_times, &mut out.histogram_starts),
    };
    let before = into.len();
    if tag & OWN_TIMES != 0 {
        decode_times(&mut reader, count, into)?;
    } else {
        let times = times.ok_or(DecodeError::Inconsistent("chunk without times"))?;
        parts::get_presence(tag, &mut reader, times, into)?;
    }
    if into.len() != before + count {
        return Err(DecodeError::Inconsistent("number of samples"));
    }
    if kind == KIND_FLOATS {
        nm::decode_values(&mut reader, count, &mut out.values)?;
    } else {
        for row in 0..count {
            let previous = if row == 0 { None } else { out.histograms.last() };
            let value = histogram::get_one(&mut reader, previous)?;
            out.histograms.push(value);
        }
    }
    if tag & STARTS != 0 {
        let base = into.get(before).copied().unwrap_or(0);
        parts::get_starts(&mut reader, base, before, count, starts)?;
    } else if !starts.is_empty() {
        starts.resize(before + count, 0);
    }
    if reader.is_empty() { Ok(()) } else { Err(DecodeError::Inconsistent("end of a chunk")) }
}

/// Chunks of the codecs before these.
fn append_old(bytes: &[u8], times: Option<&[Timestamp]>, out: &mut Columns) -> Result<(), DecodeError> {
    if info(bytes)?.histogram {
        decode_histograms(bytes, |t, histogram| out.push_histogram(t, histogram, 0))
    } else {
        decode_old_floats(bytes, times, |t, bits| out.push_float(t, f64::from_bits(bits), 0))
    }
}

impl Chunk {
    pub(crate) fn range(&self) -> TimeRange {
        TimeRange::new(self.min_t, self.max_t)
    }

    pub(crate) fn is_histogram(&self) -> bool {
        info(&self.bytes).is_ok_and(|info| info.histogram)
    }

    /// Values at `times`, one per row; `present` tells which rows count (`None`: all). `None` when no row counts.
    pub(crate) fn of_rows(times: &Arc<TimeColumn>, values: &[u64], present: Option<&[bool]>) -> Option<Self> {
        let is_present = |row: usize| present.is_none_or(|p| p.get(row).copied().unwrap_or(false));
        let rows = times.times.iter().zip(values).enumerate().filter(|(row, _)| is_present(*row));
        let (mut kept, mut range) = (Vec::with_capacity(values.len()), None);
        for (_, (&t, &value)) in rows {
            let (min_t, _) = *range.get_or_insert((t, t));
            range = Some((min_t, t));
            kept.push(f64::from_bits(value));
        }
        let (min_t, max_t) = range?;
        let mut bytes = Vec::new();
        encode_floats(&times.times, true, present, &kept, &[], &mut bytes);
        Some(Self { bytes: bytes.into(), times: Some(Arc::clone(times)), min_t, max_t })
    }

    /// Samples with times of their own, ascending. `None` without samples.
    pub(crate) fn of_samples(samples: &[(Timestamp, u64)]) -> Option<Self> {
        let (&(min_t, _), &(max_t, _)) = (samples.first()?, samples.last()?);
        let times: Vec<Timestamp> = samples.iter().map(|sample| sample.0).collect();
        let values: Vec<f64> = samples.iter().map(|sample| f64::from_bits(sample.1)).collect();
        let mut bytes = Vec::new();
        encode_floats(&times, false, None, &values, &[], &mut bytes);
        Some(Self { bytes: bytes.into(), times: None, min_t, max_t })
    }

    /// Histograms with times of their own, ascending. `None` without samples.
    pub(crate) fn of_histograms(samples: &[(Timestamp, HistogramValue)]) -> Option<Self> {
        let ((min_t, _), (max_t, _)) = (samples.first()?, samples.last()?);
        let (min_t, max_t) = (*min_t, *max_t);
        let (times, values): (Vec<_>, Vec<_>) = samples.iter().cloned().unzip();
        let mut bytes = Vec::new();
        encode_histograms(&times, &values, &[], &mut bytes);
        Some(Self { bytes: bytes.into(), times: None, min_t, max_t })
    }
}

/// Hands all float samples of a chunk's bytes to `take`, in order of time.
pub(crate) fn decode_floats(
    bytes: &[u8],
    times: Option<&TimeColumn>,
    mut take: impl FnMut(Timestamp, u64),
) -> Result<(), DecodeError> {
    let times = times.map(|column| &*column.times);
    if bytes.first().is_none_or(|tag| tag & KIND_MASK != KIND_FLOATS) {
        return decode_old_floats(bytes, times, take);
    }
    let mut columns = Columns::default();
    decode_into(bytes, times, &mut columns)?;
    columns.times.iter().zip(&columns.values).for_each(|(t, value)| take(*t, value.to_bits()));
    Ok(())
}

/// The float codecs before [`encode_floats`].
fn decode_old_floats(
    bytes: &[u8],
    times: Option<&[Timestamp]>,
    mut take: impl FnMut(Timestamp, u64),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    let codec = Codec::from_byte(tag)?;
    let count = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
    if codec == Codec::XorOwnTimes {
        let rest = reader.bytes(reader.remaining())?;
        return xor::decode_samples(rest, count, take);
    }
    let times = times.ok_or(DecodeError::Inconsistent("chunk without times"))?;
    let presence = match tag & PRESENCE_FLAG {
        0 if count != times.len() => return Err(DecodeError::Inconsistent("number of samples")),
        0 => None,
        _ => Some(reader.bytes(times.len().div_ceil(8))?),
    };
    let present = |row: usize| {
        presence.is_none_or(|bits| bits.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1))
    };
    let mut taken = 0usize;
    match codec {
        Codec::Constant => {
            let value = reader.u64_le()?;
            for (_, &t) in times.iter().enumerate().filter(|(row, _)| present(*row)) {
                take(t, value);
                taken += 1;
            }
        }
        Codec::XorValues => {
            let mut bits = BitReader::new(reader.bytes(reader.remaining())?);
            let mut decoder = ValueDecoder::new();
            for (_, &t) in times.iter().enumerate().filter(|(row, _)| present(*row)) {
                take(t, decoder.next(&mut bits)?);
                taken += 1;
            }
        }
        Codec::XorOwnTimes | Codec::Histograms => return Err(DecodeError::Inconsistent("kind of chunk")),
    }
    if taken == count { Ok(()) } else { Err(DecodeError::Inconsistent("number of samples")) }
}

/// Hands all histograms of a chunk's bytes to `take`, in order of time.
pub(crate) fn decode_histograms(
    bytes: &[u8],
    mut take: impl FnMut(Timestamp, HistogramValue),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    if tag & KIND_MASK == KIND_HISTOGRAM_ROWS {
        let mut columns = Columns::default();
        decode_into(bytes, None, &mut columns)?;
        columns.histogram_times.iter().zip(columns.histograms).for_each(|(t, value)| take(*t, value));
        return Ok(());
    }
    if Codec::from_byte(tag)? != Codec::Histograms {
        return Err(DecodeError::Inconsistent("kind of chunk"));
    }
    let count = reader.count(1)?;
    histogram::get_samples(&mut reader, count, take)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn floats(chunk: &Chunk) -> Vec<(Timestamp, u64)> {
        let mut out = Vec::new();
        decode_floats(&chunk.bytes, chunk.times.as_deref(), |t, v| out.push((t, v))).unwrap();
        out
    }

    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            (-5i64..5).prop_map(|v| (v as f64).to_bits()),
            Just(model::sample::STALE_NAN_BITS),
            Just((-0.0f64).to_bits()),
            Just(f64::INFINITY.to_bits()),
        ]
    }

    #[test]
    fn a_constant_takes_a_handful_of_bytes() {
        let times = Arc::new(TimeColumn { times: (0..120).map(|i| i * 1000).collect() });
        let chunk = Chunk::of_rows(&times, &[7f64.to_bits(); 120], None).unwrap();
        assert_eq!(chunk.bytes.len(), 4);
        assert_eq!(floats(&chunk).len(), 120);
    }

    #[test]
    fn truncated_and_foreign_bytes_are_errors() {
        let times = Arc::new(TimeColumn { times: (0..50).collect() });
        let values: Vec<u64> = (0..50).map(|i| f64::from(i * i).to_bits()).collect();
        let chunk = Chunk::of_rows(&times, &values, None).unwrap();
        for len in 0..chunk.bytes.len() {
            assert!(decode_floats(&chunk.bytes[..len], Some(&times), |_, _| {}).is_err(), "{len}");
        }
        assert_eq!(decode_floats(&[9, 0], None, |_, _| {}), Err(DecodeError::Unknown("chunk codec")));
    }

    proptest! {
        #[test]
        fn rows_survive_bit_for_bit(
            rows in prop::collection::vec((1i64..100_000, value(), any::<bool>()), 1..130),
            start in any::<i32>(),
            all in any::<bool>(),
        ) {
            let mut t = i64::from(start);
            let times: Vec<i64> = rows.iter().map(|row| { t += row.0; t }).collect();
            let values: Vec<u64> = rows.iter().map(|row| row.1).collect();
            let present: Vec<bool> = rows.iter().map(|row| all || row.2).collect();
            let column = Arc::new(TimeColumn { times: times.clone().into() });
            let want: Vec<_> = (0..rows.len()).filter(|i| present[*i]).map(|i| (times[i], values[i])).collect();
            match Chunk::of_rows(&column, &values, Some(&present)) {
                None => prop_assert!(want.is_empty()),
                Some(chunk) => {
                    prop_assert_eq!(floats(&chunk), want.clone());
                    prop_assert_eq!((chunk.min_t, chunk.max_t), (want[0].0, want[want.len() - 1].0));
                }
            }
        }

        #[test]
        fn own_times_survive_extremes(samples in prop::collection::btree_map(any::<i64>(), value(), 1..200)) {
            let samples: Vec<_> = samples.into_iter().collect();
            let chunk = Chunk::of_samples(&samples).unwrap();
            prop_assert_eq!(floats(&chunk), samples);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), rows in 0i64..130) {
            let times = TimeColumn { times: (0..rows).collect() };
            let _ = decode_floats(&bytes, Some(&times), |_, _| {});
            let _ = decode_floats(&bytes, None, |_, _| {});
            let _ = decode_histograms(&bytes, |_, _| {});
        }
    }
}
