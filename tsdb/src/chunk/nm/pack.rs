//! Unsigned numbers of up to 64 bits, packed side by side at one width: value *i* begins at bit *i* × width, least
//! significant bit first, bytes in order.
//!
//! Eight values fill exactly `width` bytes, so a group of eight is unpacked with shifts and byte offsets that the compiler
//! knows: one unaligned load, shift and mask for each value. Any processor does; no feature is needed.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use crate::coding::{DecodeError, Reader};

/// Numbers of a block.
pub(crate) const BLOCK: usize = 64;

/// Appends `values`, each below 2^`width`, in ⌈len × width / 8⌉ bytes.
pub(crate) fn pack(values: &[u64], width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let (mut word, mut filled) = (0u64, 0u32);
    for &value in values {
        word |= value << filled;
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= 64;
            word = if filled == 0 { 0 } else { value >> (width - filled) };
        }
    }
    out.extend(word.to_le_bytes().iter().take(filled.div_ceil(8) as usize));
}

/// Bytes of `count` numbers.
pub(crate) fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Reads `count` numbers, at most [`BLOCK`], into the front of `out`; what lies behind them is left in any state.
///
/// # Errors
/// [`DecodeError::UnexpectedEnd`]; [`DecodeError::NumberRange`] for a width above 64.
#[inline]
pub(crate) fn unpack(
    reader: &mut Reader<'_>,
    count: usize,
    width: u32,
    out: &mut [u64; BLOCK],
) -> Result<(), DecodeError> {
    let len = packed_len(count, width);
    let mut ahead = *reader;
    let bytes = reader.bytes(len)?;
    // A group reads up to eight bytes past its end; near the end of the data it reads from a copy.
    if count == BLOCK
        && let Ok(padded) = ahead.bytes(len + 8)
    {
        return unpack_padded(padded, width, out);
    }
    let mut copy = [0u8; BLOCK * 8 + 8];
    copy.get_mut(..len).ok_or(DecodeError::NumberRange)?.copy_from_slice(bytes);
    unpack_padded(&copy, width, out)
}

/// The word at byte `at` of a group's bytes.
#[inline(always)]
#[expect(
    clippy::indexing_slicing,
    reason = "offsets are constants below the length, which is checked for each group"
)]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0u8; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// A whole block from bytes that go on for at least eight behind it.
#[inline]
fn unpack_width<const WIDTH: usize>(bytes: &[u8], out: &mut [u64; BLOCK]) -> Result<(), DecodeError> {
    let mask = if WIDTH == 64 { u64::MAX } else { (1u64 << (WIDTH % 64)) - 1 };
    let (groups, _) = out.as_chunks_mut::<8>();
    for (index, group) in groups.iter_mut().enumerate() {
        let from = index * WIDTH;
        let bytes = bytes.get(from..from + WIDTH + 8).ok_or(DecodeError::UnexpectedEnd)?;
        for (place, value) in group.iter_mut().enumerate() {
            let (at, shift) = (place * WIDTH / 8, place * WIDTH % 8);
            let mut word = word_at(bytes, at) >> shift;
            if shift + WIDTH > 64 {
                word |= u64::from(bytes.get(at + 8).copied().unwrap_or(0)) << (64 - shift);
            }
            *value = word & mask;
        }
    }
    Ok(())
}

macro_rules! by_width {
    ($width:expr, $bytes:expr, $out:expr; $($known:literal)*) => {
        match $width {
            0 => { $out.fill(0); Ok(()) }
            $($known => unpack_width::<$known>($bytes, $out),)*
            _ => Err(DecodeError::NumberRange),
        }
    };
}

fn unpack_padded(bytes: &[u8], width: u32, out: &mut [u64; BLOCK]) -> Result<(), DecodeError> {
    by_width!(width, bytes, out;
        1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every width and length, at the end of the data and before more of it.
        #[test]
        fn numbers_survive(
            raw in prop::collection::vec(any::<u64>(), 0..=64),
            width in 0u32..=64,
            behind in 0usize..20,
        ) {
            let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
            let values: Vec<u64> = raw.iter().map(|v| v & mask).collect();
            let mut bytes = Vec::new();
            pack(&values, width, &mut bytes);
            prop_assert_eq!(bytes.len(), packed_len(values.len(), width));
            bytes.extend(std::iter::repeat_n(0xff, behind));
            let mut reader = Reader::new(&bytes);
            let mut out = [7; BLOCK];
            unpack(&mut reader, values.len(), width, &mut out).unwrap();
            prop_assert_eq!(&out[..values.len()], &values[..]);
            prop_assert_eq!(reader.remaining(), behind);
        }
    }

    #[test]
    fn short_data_and_wide_numbers_are_refused() {
        let mut out = [0; BLOCK];
        assert_eq!(unpack(&mut Reader::new(&[0; 7]), 64, 1, &mut out), Err(DecodeError::UnexpectedEnd));
        assert_eq!(unpack(&mut Reader::new(&[0; 600]), 64, 65, &mut out), Err(DecodeError::NumberRange));
    }
}
