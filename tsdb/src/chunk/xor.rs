//! The XOR codec of floats and the delta-of-delta codec of times, over streams of bits (most significant first).
//!
//! After "Gorilla: A Fast, Scalable, In-Memory Time Series Database" (Pelkonen et al., VLDB 2015), with the bucket widths
//! of Prometheus' `tsdb/chunkenc/xor.go`. Arithmetic on times wraps, so any `i64` survives.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::sample::Timestamp;

use super::Codec;
use crate::coding::{DecodeError, put_uvarint};

/// Bits written so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Unused low bits of the last byte.
    free: u32,
}

impl BitWriter {
    /// Appends the low `count` bits of `value` (at most 64), highest first.
    #[inline]
    pub(crate) fn put(&mut self, value: u64, count: u32) {
        if count == 0 {
            return;
        }
        let mut left = count;
        let mut aligned = value << (64 - count);
        if self.free > 0 {
            if let Some(last) = self.bytes.last_mut() {
                let [first, ..] = (aligned >> (8 - self.free)).to_be_bytes();
                *last |= first;
            }
            if left <= self.free {
                self.free -= left;
                return;
            }
            aligned <<= self.free;
            left -= self.free;
        }
        let bytes = left.div_ceil(8);
        self.bytes.extend_from_slice(aligned.to_be_bytes().get(..bytes as usize).unwrap_or_default());
        self.free = 8 * bytes - left;
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads what [`BitWriter`] wrote; never past the end.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits (at most 64).
    #[inline]
    pub(crate) fn get(&mut self, count: u32) -> Result<u64, DecodeError> {
        if count == 0 {
            return Ok(0);
        }
        let byte = self.at / 8;
        let offset = u32::try_from(self.at % 8).unwrap_or(0);
        if self.at + count as usize > self.bytes.len() * 8 {
            return Err(DecodeError::UnexpectedEnd);
        }
        self.at += count as usize;
        let rest = self.bytes.get(byte..).ok_or(DecodeError::UnexpectedEnd)?;
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_be_bytes(*word),
            None => rest.iter().enumerate().fold(0u64, |word, (i, b)| word | u64::from(*b) << (56 - 8 * i)),
        };
        let value = (word << offset) >> (64 - count);
        let available = 64 - offset;
        if count <= available {
            return Ok(value);
        }
        let missing = count - available;
        let next = rest.get(8).copied().ok_or(DecodeError::UnexpectedEnd)?;
        Ok(value | u64::from(next) >> (8 - missing))
    }

    #[inline]
    fn bit(&mut self) -> Result<bool, DecodeError> {
        let byte = *self.bytes.get(self.at / 8).ok_or(DecodeError::UnexpectedEnd)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }
}

/// Says that there is no window of significant bits yet.
const NO_WINDOW: u8 = 0xff;

/// State of encoding a column of floats.
#[derive(Clone, Debug)]
pub(crate) struct ValueEncoder {
    previous: u64,
    leading: u8,
    trailing: u8,
    started: bool,
}

impl ValueEncoder {
    pub(crate) fn new() -> Self {
        Self { previous: 0, leading: NO_WINDOW, trailing: 0, started: false }
    }

    pub(crate) fn push(&mut self, bits: &mut BitWriter, value: u64) {
        if !self.started {
            self.started = true;
            self.previous = value;
            bits.put(value, 64);
            return;
        }
        let xor = value ^ self.previous;
        self.previous = value;
        if xor == 0 {
            bits.put(0, 1);
            return;
        }
        // Five bits hold the number of leading zeros.
        let leading = xor.leading_zeros().min(31);
        let trailing = xor.trailing_zeros();
        let fits = self.leading != NO_WINDOW
            && leading >= u32::from(self.leading)
            && trailing >= u32::from(self.trailing);
        if fits {
            bits.put(0b10, 2);
        } else {
            self.leading = leading.to_le_bytes().first().copied().unwrap_or_default();
            self.trailing = trailing.to_le_bytes().first().copied().unwrap_or_default();
            let significant = 64 - leading - trailing;
            bits.put(0b11, 2);
            bits.put(u64::from(leading), 5);
            // 64 significant bits are written as 0.
            bits.put(u64::from(significant & 63), 6);
        }
        let significant = 64 - u32::from(self.leading) - u32::from(self.trailing);
        bits.put(xor >> self.trailing, significant);
    }
}

/// State of decoding a column of floats.
#[derive(Clone, Debug)]
pub(crate) struct ValueDecoder {
    previous: u64,
    leading: u32,
    significant: u32,
    started: bool,
}

impl ValueDecoder {
    pub(crate) fn new() -> Self {
        Self { previous: 0, leading: 0, significant: 0, started: false }
    }

    #[inline]
    pub(crate) fn next(&mut self, bits: &mut BitReader<'_>) -> Result<u64, DecodeError> {
        if !self.started {
            self.started = true;
            self.previous = bits.get(64)?;
            return Ok(self.previous);
        }
        if !bits.bit()? {
            return Ok(self.previous);
        }
        if bits.bit()? {
            let head = bits.get(11)?;
            self.leading = ((head >> 6) & 31) as u32;
            self.significant = match (head & 63) as u32 {
                0 => 64,
                count => count,
            };
            if self.leading + self.significant > 64 {
                return Err(DecodeError::Inconsistent("width of a value"));
            }
        } else if self.significant == 0 {
            return Err(DecodeError::Inconsistent("width of a value"));
        }
        let xor = bits.get(self.significant)? << (64 - self.leading - self.significant);
        self.previous ^= xor;
        Ok(self.previous)
    }
}

/// An open stream of samples with times of their own; its bytes so far are always a whole chunk body.
#[derive(Clone, Debug)]
pub(crate) struct SampleEncoder {
    bits: BitWriter,
    values: ValueEncoder,
    count: u32,
    first_t: Timestamp,
    last_t: Timestamp,
    delta: i64,
}

impl Default for SampleEncoder {
    fn default() -> Self {
        Self {
            bits: BitWriter::default(),
            values: ValueEncoder::new(),
            count: 0,
            first_t: 0,
            last_t: 0,
            delta: 0,
        }
    }
}

/// Widths of the buckets of delta-of-delta, after the prefixes `10`, `110`, `1110`; `1111` is followed by 64 bits.
const DOD_WIDTHS: [u32; 3] = [14, 17, 20];

impl SampleEncoder {
    /// Looks at the encoder, so that it is in the processor's cache when a sample comes.
    #[inline]
    pub(crate) fn warm(&self) -> u8 {
        u8::from(self.bits.bytes.is_empty()) ^ u8::from(self.len() == 0)
    }

    /// Looks at the place where the next sample goes.
    #[inline]
    pub(crate) fn warm_tail(&self) -> u8 {
        self.bits.bytes.last().copied().unwrap_or_default()
    }

    pub(crate) fn push(&mut self, t: Timestamp, value: u64) {
        if self.count == 0 {
            self.first_t = t;
            self.bits.put(t.cast_unsigned(), 64);
        } else {
            let delta = t.wrapping_sub(self.last_t);
            self.put_dod(delta.wrapping_sub(self.delta));
            self.delta = delta;
        }
        self.last_t = t;
        self.values.push(&mut self.bits, value);
        self.count += 1;
    }

    fn put_dod(&mut self, dod: i64) {
        if dod == 0 {
            self.bits.put(0, 1);
            return;
        }
        let mut prefix = 0b10;
        for (step, width) in (2..).zip(DOD_WIDTHS) {
            let half = 1i64 << (width - 1);
            if (-half..half).contains(&dod) {
                self.bits.put(prefix, step);
                self.bits.put(dod.cast_unsigned(), width);
                return;
            }
            prefix = prefix << 1 | 0b10;
        }
        self.bits.put(0b1111, 4);
        self.bits.put(dod.cast_unsigned(), 64);
    }

    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn range(&self) -> (Timestamp, Timestamp) {
        (self.first_t, self.last_t)
    }

    /// The samples so far as the bytes of a chunk.
    pub(crate) fn chunk_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bits.len_bytes() + 3);
        out.push(Codec::XorOwnTimes as u8);
        put_uvarint(&mut out, u64::from(self.count));
        out.extend_from_slice(self.bits.as_bytes());
        out
    }
}

/// Hands `count` samples to `take`.
pub(crate) fn decode_samples(
    bytes: &[u8],
    count: usize,
    mut take: impl FnMut(Timestamp, u64),
) -> Result<(), DecodeError> {
    let mut bits = BitReader::new(bytes);
    let mut values = ValueDecoder::new();
    let (mut t, mut delta) = (0i64, 0i64);
    for index in 0..count {
        if index == 0 {
            t = bits.get(64)?.cast_signed();
        } else {
            delta = delta.wrapping_add(get_dod(&mut bits)?);
            t = t.wrapping_add(delta);
        }
        take(t, values.next(&mut bits)?);
    }
    Ok(())
}

#[inline]
fn get_dod(bits: &mut BitReader<'_>) -> Result<i64, DecodeError> {
    if !bits.bit()? {
        return Ok(0);
    }
    for width in DOD_WIDTHS {
        if !bits.bit()? {
            let raw = bits.get(width)?;
            let shift = 64 - width;
            return Ok((raw << shift).cast_signed() >> shift);
        }
    }
    Ok(bits.get(64)?.cast_signed())
}
