//! The codecs of the first version: XOR values with a bitmap of present rows, XOR with interleaved times, histograms each
//! against its predecessor with its time. Still read; of them only XOR with own times is still written, by open columns.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::sample::Timestamp;

use super::histogram::{self, HistogramValue};
use super::xor::{self, BitReader, ValueDecoder};
use crate::coding::{DecodeError, Reader};
use crate::columns::Columns;

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
    pub(super) fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        match byte & !PRESENCE_FLAG {
            1 => Ok(Self::Constant),
            2 => Ok(Self::XorValues),
            3 => Ok(Self::XorOwnTimes),
            4 => Ok(Self::Histograms),
            _ => Err(DecodeError::Unknown("chunk codec")),
        }
    }
}

/// Appends the samples of a chunk.
pub(super) fn append(
    bytes: &[u8],
    times: Option<&[Timestamp]>,
    out: &mut Columns,
) -> Result<(), DecodeError> {
    let tag = bytes.first().copied().ok_or(DecodeError::UnexpectedEnd)?;
    if Codec::from_byte(tag)? == Codec::Histograms {
        decode_histograms(bytes, |t, histogram| out.push_histogram(t, histogram, 0))
    } else {
        decode_floats(bytes, times, |t, bits| out.push_float(t, f64::from_bits(bits), 0))
    }
}

/// Hands all samples of a chunk of floats to `take`.
fn decode_floats(
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

/// Hands all samples of a chunk of histograms to `take`.
fn decode_histograms(bytes: &[u8], take: impl FnMut(Timestamp, HistogramValue)) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    if Codec::from_byte(reader.u8()?)? != Codec::Histograms {
        return Err(DecodeError::Inconsistent("kind of chunk"));
    }
    let count = reader.count(1)?;
    histogram::get_samples(&mut reader, count, take)
}
