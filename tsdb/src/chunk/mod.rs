//! Compressed runs of samples of one series, immutable once made.
//!
//! A chunk is a byte string that begins with its codec, so that new codecs can join old ones in memory and on disk; the
//! layout is in `docs/formats/chunk.md`. Series that are written together share one [`TimeColumn`]; a chunk without one
//! carries its own times. Decoders check every bound: damaged bytes give a [`DecodeError`].
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub(crate) mod histogram;
pub(crate) mod xor;

use std::sync::Arc;

use model::sample::{TimeRange, Timestamp};

use crate::coding::{DecodeError, Reader, put_uvarint};
pub(crate) use histogram::HistogramValue;
use xor::{BitReader, BitWriter, ValueDecoder, ValueEncoder};

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

impl Chunk {
    pub(crate) fn range(&self) -> TimeRange {
        TimeRange::new(self.min_t, self.max_t)
    }

    pub(crate) fn is_histogram(&self) -> bool {
        self.bytes.first().is_some_and(|byte| *byte == Codec::Histograms as u8)
    }

    /// Values at `times`, one per row; `present` tells which rows count (`None`: all). `None` when no row counts.
    pub(crate) fn of_rows(times: &Arc<TimeColumn>, values: &[u64], present: Option<&[bool]>) -> Option<Self> {
        let rows = times.times.iter().zip(values).enumerate();
        let mut kept = rows.filter(|(row, _)| present.is_none_or(|p| p.get(*row).copied().unwrap_or(false)));
        let (_, (&min_t, &first)) = kept.next()?;
        let (mut max_t, mut count, mut constant) = (min_t, 1u64, true);
        let mut encoder = ValueEncoder::new();
        let mut bits = BitWriter::default();
        encoder.push(&mut bits, first);
        for (_, (&t, &value)) in kept {
            constant &= value == first;
            encoder.push(&mut bits, value);
            max_t = t;
            count += 1;
        }
        let partial = present.filter(|_| count != times.times.len() as u64);
        let codec = if constant { Codec::Constant } else { Codec::XorValues };
        let mut bytes = Vec::with_capacity(16 + bits.len_bytes());
        bytes.push(codec as u8 | if partial.is_some() { PRESENCE_FLAG } else { 0 });
        put_uvarint(&mut bytes, count);
        if let Some(present) = partial {
            put_presence(&mut bytes, present, times.times.len());
        }
        if constant {
            bytes.extend_from_slice(&first.to_le_bytes());
        } else {
            bytes.extend_from_slice(&bits.into_bytes());
        }
        Some(Self { bytes: bytes.into(), times: Some(Arc::clone(times)), min_t, max_t })
    }

    /// Samples with times of their own, ascending. `None` without samples.
    pub(crate) fn of_samples(samples: &[(Timestamp, u64)]) -> Option<Self> {
        let (&(min_t, _), &(max_t, _)) = (samples.first()?, samples.last()?);
        let mut stream = xor::SampleEncoder::default();
        for &(t, value) in samples {
            stream.push(t, value);
        }
        Some(Self { bytes: stream.chunk_bytes().into(), times: None, min_t, max_t })
    }

    /// Histograms with times of their own, ascending. `None` without samples.
    pub(crate) fn of_histograms(samples: &[(Timestamp, HistogramValue)]) -> Option<Self> {
        let ((min_t, _), (max_t, _)) = (samples.first()?, samples.last()?);
        let (min_t, max_t) = (*min_t, *max_t);
        let mut bytes = vec![Codec::Histograms as u8];
        put_uvarint(&mut bytes, samples.len() as u64);
        histogram::put_samples(&mut bytes, samples);
        Some(Self { bytes: bytes.into(), times: None, min_t, max_t })
    }
}

fn put_presence(bytes: &mut Vec<u8>, present: &[bool], rows: usize) {
    let start = bytes.len();
    bytes.resize(start + rows.div_ceil(8), 0);
    for (row, _) in present.iter().take(rows).enumerate().filter(|(_, present)| **present) {
        if let Some(byte) = bytes.get_mut(start + row / 8) {
            *byte |= 1 << (row % 8);
        }
    }
}

/// Hands all float samples of a chunk's bytes to `take`, in order of time.
pub(crate) fn decode_floats(
    bytes: &[u8],
    times: Option<&TimeColumn>,
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
    let times = &times.ok_or(DecodeError::Inconsistent("chunk without times"))?.times;
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
    take: impl FnMut(Timestamp, HistogramValue),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    if Codec::from_byte(reader.u8()?)? != Codec::Histograms {
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
        assert_eq!(chunk.bytes.len(), 10);
        assert_eq!(floats(&chunk).len(), 120);
    }

    #[test]
    fn truncated_and_foreign_bytes_are_errors() {
        let times = Arc::new(TimeColumn { times: (0..50).collect() });
        let values: Vec<u64> = (0..50).map(|i| f64::from(i * i).to_bits()).collect();
        let chunk = Chunk::of_rows(&times, &values, None).unwrap();
        for len in 0..chunk.bytes.len() - 1 {
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
