//! Compressed runs of samples of one series, immutable once made.
//!
//! A chunk is a byte string that begins with its codec, so that new codecs can join old ones in memory and on disk; the
//! layout is in `docs/formats/chunk.md`. Series that are written together share a column of times, which is kept elsewhere; a chunk
//! without one carries its own times. Decoders check every bound: damaged bytes give a [`DecodeError`].
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod chains;
pub(crate) mod histogram;
mod histogram_columns;
#[cfg(test)]
mod measure;
mod nm;
mod old;
mod parts;
mod times;
pub(crate) mod xor;

use model::sample::{TimeRange, Timestamp};

use crate::coding::{DecodeError, Reader, put_uvarint};
use crate::columns::Columns;
pub(crate) use chains::{CHAIN_MAX, Chains};
pub(crate) use histogram::HistogramValue;
#[allow(unused_imports, reason = "the values of what is not a chunk")]
pub(crate) use nm::{Effort, decode_values, encode_values};
use old::Codec;
pub(crate) use times::{decode_times, encode_times};

/// Samples after which a chunk is closed, as in Prometheus; 120 rows were also measured as the best window of a layout.
pub(crate) const CHUNK_SAMPLES_MAX: usize = 120;
/// Span after which a chunk is closed, so that retention can drop it: the two hours of a block.
pub(crate) const CHUNK_SPAN_MAX_MS: i64 = 2 * 60 * 60 * 1000;

/// One immutable chunk.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) min_t: Timestamp,
    pub(crate) max_t: Timestamp,
}

/// Samples that a chunk may have: what a damaged number can make a reader allocate.
pub(crate) const CHUNK_SAMPLES_LIMIT: usize = 1 << 16;

/// Kinds of chunk in the high half of the first byte; below are flags. Numbers are on disk: never reuse one.
const KIND_FLOATS: u8 = 0x10;
const KIND_HISTOGRAM_ROWS: u8 = 0x20;
const KIND_HISTOGRAM_COLUMNS: u8 = 0x30;
const KIND_FLOATS_AGAINST: u8 = 0x40;
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
    /// The chunk can only be read with the values of its base: [`decode_against`].
    pub(crate) against: bool,
}

/// Looks at the head of a chunk.
///
/// # Errors
/// [`DecodeError`] for unknown kinds and impossible numbers.
pub(crate) fn info(bytes: &[u8]) -> Result<ChunkInfo, DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    let (histogram, against) = match tag & KIND_MASK {
        KIND_FLOATS => (false, false),
        KIND_FLOATS_AGAINST => (false, true),
        KIND_HISTOGRAM_ROWS | KIND_HISTOGRAM_COLUMNS => (true, false),
        _ => (Codec::from_byte(tag)? == Codec::Histograms, false),
    };
    Ok(ChunkInfo { histogram, count: sample_count(&mut reader)?, against })
}

/// How a chunk is encoded, in words.
pub(crate) fn kind_name(bytes: &[u8]) -> &'static str {
    let Some(tag) = bytes.first() else { return "nothing" };
    match (tag & KIND_MASK, tag & OWN_TIMES != 0) {
        (KIND_FLOATS, false) => "floats at shared times",
        (KIND_FLOATS, true) => "floats with own times",
        (KIND_FLOATS_AGAINST, _) => "floats against the bucket before",
        (KIND_HISTOGRAM_ROWS, _) => "histograms by rows",
        (KIND_HISTOGRAM_COLUMNS, _) => "histograms by columns",
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
    effort: Effort,
    out: &mut Vec<u8>,
) {
    let parts = FloatParts::of(times, shared, presence, values, starts);
    parts.put(KIND_FLOATS, out, |out| nm::encode_values(values, effort, out));
}

/// Appends a chunk of floats like [`encode_floats`], or one of the whole numbers by which `values` differ from `base`, the
/// values of another chunk with the same rows, if that is smaller. Says whether it is; then [`decode_against`] needs `base`.
///
/// For the buckets of one classic histogram, each against the one before; see [`Chains`].
///
/// # Panics
/// As [`encode_floats`].
#[expect(clippy::too_many_arguments, reason = "a base beside what every chunk takes")]
pub(crate) fn encode_floats_against(
    base: &[f64],
    times: &[Timestamp],
    shared: bool,
    presence: Option<&[bool]>,
    values: &[f64],
    starts: &[Timestamp],
    effort: Effort,
    out: &mut Vec<u8>,
) -> bool {
    let mut against = Vec::new();
    if base.len() != values.len() || !nm::encode_against(base, values, effort, &mut against) {
        encode_floats(times, shared, presence, values, starts, effort, out);
        return false;
    }
    let mut alone = Vec::with_capacity(against.len());
    nm::encode_values(values, effort, &mut alone);
    let pays = against.len() < alone.len();
    let (kind, body) = if pays { (KIND_FLOATS_AGAINST, against) } else { (KIND_FLOATS, alone) };
    let parts = FloatParts::of(times, shared, presence, values, starts);
    parts.put(kind, out, |out| out.extend_from_slice(&body));
    pays
}

/// What float chunks are made of besides their values.
struct FloatParts<'a> {
    times: &'a [Timestamp],
    shared: bool,
    presence: Option<&'a [bool]>,
    count: usize,
    starts: &'a [Timestamp],
}

impl<'a> FloatParts<'a> {
    fn of(
        times: &'a [Timestamp],
        shared: bool,
        presence: Option<&'a [bool]>,
        values: &[f64],
        starts: &'a [Timestamp],
    ) -> Self {
        let presence = presence.filter(|_| shared);
        assert!(presence.is_none_or(|presence| presence.len() == times.len()), "presence of other rows");
        let rows = presence.map_or(times.len(), |p| p.iter().filter(|present| **present).count());
        let count = values.len();
        assert!(rows == count && rows <= CHUNK_SAMPLES_LIMIT, "{count} values in {rows} rows");
        assert!(starts.is_empty() || starts.len() == count, "{} starts of {count} values", starts.len());
        Self { times, shared, presence, count, starts }
    }

    fn put(&self, kind: u8, out: &mut Vec<u8>, values: impl FnOnce(&mut Vec<u8>)) {
        let tag_at = put_chunk_head(kind, self.count, self.starts, out);
        if !self.shared {
            raise_flag(out, tag_at, OWN_TIMES);
            encode_times(self.times, out);
        } else if let Some(presence) = self.presence {
            let flag = parts::put_presence(presence, out);
            raise_flag(out, tag_at, flag);
        }
        values(out);
        if has_starts(self.starts) {
            let first = match self.presence {
                Some(presence) => {
                    self.times.iter().zip(presence).find(|(_, present)| **present).map(|(t, _)| t)
                }
                None => self.times.first(),
            };
            parts::put_starts(self.starts, first.copied().unwrap_or(0), out);
        }
    }
}

/// Appends a chunk of histograms with times of their own, by columns or by rows, whichever is smaller; `starts` are empty
/// when none is known.
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
    let mut columns = Vec::new();
    let by_columns = histogram_columns::put(values, &mut columns);
    let mut rows = Vec::new();
    let mut previous = None;
    for value in values {
        histogram::put_one(&mut rows, value, previous);
        previous = Some(value);
        if by_columns && rows.len() >= columns.len() {
            break;
        }
    }
    let by_columns = by_columns && rows.len() >= columns.len();
    let (kind, body) =
        if by_columns { (KIND_HISTOGRAM_COLUMNS, columns) } else { (KIND_HISTOGRAM_ROWS, rows) };
    let tag_at = put_chunk_head(kind, values.len(), starts, out);
    raise_flag(out, tag_at, OWN_TIMES);
    encode_times(times, out);
    out.extend_from_slice(&body);
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
/// Whatever is wrong with the bytes, or a chunk [against][`ChunkInfo::against`] another; `out` is as before then.
pub(crate) fn decode_into(
    bytes: &[u8],
    times: Option<&[Timestamp]>,
    out: &mut Columns,
) -> Result<(), DecodeError> {
    decode_against(bytes, times, None, out)
}

/// Appends the samples of a chunk like [`decode_into`]; `base` has the values of the chunk that this one was encoded
/// against, if it was.
///
/// # Errors
/// Whatever is wrong with the bytes, or a missing base; `out` is as before then.
pub(crate) fn decode_against(
    bytes: &[u8],
    times: Option<&[Timestamp]>,
    base: Option<&[f64]>,
    out: &mut Columns,
) -> Result<(), DecodeError> {
    let before = (out.times.len(), out.starts.len(), out.histogram_times.len(), out.histogram_starts.len());
    let done = append_chunk(bytes, times, base, out);
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

/// Spans and buckets of histograms by rows: what a damaged chunk can make a reader allocate.
const CELLS_MAX: usize = 1 << 26;

fn append_chunk(
    bytes: &[u8],
    times: Option<&[Timestamp]>,
    base: Option<&[f64]>,
    out: &mut Columns,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    let kind = tag & KIND_MASK;
    if !(KIND_FLOATS..=KIND_FLOATS_AGAINST).contains(&kind) {
        return old::append(bytes, times, out);
    }
    let count = sample_count(&mut reader)?;
    let (into, starts) = match kind {
        KIND_FLOATS | KIND_FLOATS_AGAINST => (&mut out.times, &mut out.starts),
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
    match kind {
        KIND_FLOATS => nm::decode_values(&mut reader, count, &mut out.values)?,
        KIND_FLOATS_AGAINST => {
            nm::decode_against(&mut reader, fitting_base(base, count)?, &mut out.values)?;
        }
        KIND_HISTOGRAM_COLUMNS => histogram_columns::get(&mut reader, count, &mut out.histograms)?,
        _ => {
            let mut cells = 0;
            for row in 0..count {
                let previous = if row == 0 { None } else { out.histograms.last() };
                let value = histogram::get_one(&mut reader, previous)?;
                cells += value.cells();
                out.histograms.push(value);
                if cells > CELLS_MAX {
                    return Err(DecodeError::Inconsistent("number of buckets"));
                }
            }
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

fn fitting_base(base: Option<&[f64]>, count: usize) -> Result<&[f64], DecodeError> {
    base.filter(|base| base.len() == count).ok_or(DecodeError::Inconsistent("chunk without its base"))
}

impl Chunk {
    pub(crate) fn range(&self) -> TimeRange {
        TimeRange::new(self.min_t, self.max_t)
    }

    /// Samples with times of their own, ascending. `None` without samples.
    pub(crate) fn of_samples(samples: &[(Timestamp, u64)]) -> Option<Self> {
        let (&(min_t, _), &(max_t, _)) = (samples.first()?, samples.last()?);
        let times: Vec<Timestamp> = samples.iter().map(|sample| sample.0).collect();
        let values: Vec<f64> = samples.iter().map(|sample| f64::from_bits(sample.1)).collect();
        let mut bytes = Vec::new();
        encode_floats(&times, false, None, &values, &[], Effort::Quick, &mut bytes);
        Some(Self { bytes: bytes.into(), min_t, max_t })
    }

    /// Histograms with times of their own, ascending. `None` without samples.
    pub(crate) fn of_histograms(samples: &[(Timestamp, HistogramValue)]) -> Option<Self> {
        let ((min_t, _), (max_t, _)) = (samples.first()?, samples.last()?);
        let (min_t, max_t) = (*min_t, *max_t);
        let (times, values): (Vec<_>, Vec<_>) = samples.iter().cloned().unzip();
        let mut bytes = Vec::new();
        encode_histograms(&times, &values, &[], &mut bytes);
        Some(Self { bytes: bytes.into(), min_t, max_t })
    }
}

#[cfg(test)]
mod tests;
