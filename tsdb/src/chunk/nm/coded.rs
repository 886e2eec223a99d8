//! Streams of integers in two parts: the high bits of each number as one of a few classes, in as many bits as the class is
//! rare (a range asymmetric numeral system), and the low bits as they are. What [`super::coded_plan`] writes.
//!
//! Whole bits at one width for 64 numbers waste what the largest of them needs and the others do not; measured noise is
//! peaked, or fills its range only in part. The price is time: one step after the other, some nanoseconds each. Layout:
//! `docs/formats/chunk.md`.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use super::integers::{PATCH_PLACE, Patch};
use super::pack::{BLOCK, packed_len, unpack};
use crate::coding::{DecodeError, Reader};

/// Frequencies of classes add up to two to this.
pub(super) const SCALE_BITS: u32 = 9;
/// What frequencies add up to.
pub(super) const SCALE: u32 = 1 << SCALE_BITS;
/// Most classes.
pub(super) const CLASSES_MAX: usize = 64;
/// The state never falls below; it is below 2^16 times this between two steps.
pub(super) const STATE_MIN: u32 = 1 << 10;
/// Bits that the state takes from the words at once.
pub(super) const WORD_BITS: u32 = 16;
/// In the byte of low bits: patches follow.
pub(super) const PATCHES_FLAG: u8 = 64;
/// Weights of the sixteen codes of a class: none, then in steps of the square root of two.
pub(super) const WEIGHTS: [u32; 16] = [0, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256];

/// Frequencies from weights: in proportion, at least one for what occurs; what rounding leaves is the first largest one's.
pub(super) fn frequencies(codes: &[u8]) -> Option<[u32; CLASSES_MAX]> {
    let weight = |code: &u8| WEIGHTS.get(usize::from(*code)).copied().unwrap_or(0);
    let total: u32 = codes.iter().map(weight).sum();
    let mut frequencies = [0u32; CLASSES_MAX];
    let (mut sum, mut largest, mut at) = (0, 0, 0);
    for (index, (frequency, code)) in frequencies.iter_mut().zip(codes).enumerate() {
        let weight = weight(code);
        if weight > 0 {
            *frequency = (weight * SCALE / total).max(1);
            sum += *frequency;
        }
        if *frequency > largest {
            (largest, at) = (*frequency, index);
        }
    }
    let fitting = (largest + SCALE).checked_sub(sum).filter(|frequency| largest > 0 && *frequency > 0)?;
    *frequencies.get_mut(at)? = fitting;
    Some(frequencies)
}

/// What the low bits of a state say: the class, how often it occurs, and the place among its slots, in one word, as tables
/// of these are made for each column.
#[derive(Clone, Copy, Default)]
struct Slot(u32);

impl Slot {
    const FREQUENCY_AT: u32 = 6;
    const PLACE_AT: u32 = 16;

    /// The class, and the state without it.
    #[inline(always)]
    fn step(self, state: u32) -> (u64, u32) {
        let class = u64::from(self.0) % (1 << Self::FREQUENCY_AT);
        let frequency = self.0 >> Self::FREQUENCY_AT & (2 * SCALE - 1);
        (class, frequency * (state >> SCALE_BITS) + (self.0 >> Self::PLACE_AT))
    }
}

/// A stream, block by block.
pub(super) struct Coded<'a> {
    slots: [Slot; SCALE as usize],
    low: Reader<'a>,
    low_bits: u32,
    base: i64,
    patches: std::iter::Peekable<std::vec::IntoIter<Patch>>,
    at: usize,
    /// Of numbers at even places, and at odd ones: two, because a processor can do steps of both at once.
    states: [u32; 2],
    words: &'a [u8],
    word: usize,
}

impl<'a> Coded<'a> {
    /// Reads the head of a stream of `count` numbers.
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Result<Self, DecodeError> {
        let head = reader.u8()?;
        let low_bits = u32::from(head & (PATCHES_FLAG - 1));
        if head & !(2 * PATCHES_FLAG - 1) != 0 {
            return Err(DecodeError::Unknown("flag of classes"));
        }
        let base = reader.varint()?.wrapping_shl(low_bits);
        let mut patches = Vec::new();
        if head & PATCHES_FLAG != 0 {
            let number = reader.count(2)?;
            if number > count {
                return Err(DecodeError::Inconsistent("number of patches"));
            }
            patches.reserve_exact(number);
            let mut at = 0usize;
            for _ in 0..number {
                let gap = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
                at = at.checked_add(gap).filter(|at| *at < count).ok_or(PATCH_PLACE)?;
                patches.push(Patch { at, high: reader.varint()? });
            }
        }
        let slots = slots(reader)?;
        let states = [reader.uvarint32()?, reader.uvarint32()?];
        if states.iter().any(|state| !(STATE_MIN..STATE_MIN << WORD_BITS).contains(state)) {
            return Err(DecodeError::NumberRange);
        }
        let low_len = count / BLOCK * packed_len(BLOCK, low_bits) + packed_len(count % BLOCK, low_bits);
        // Unpacking is quicker when more follows: the low bits are read from all that is left.
        let low = *reader;
        reader.bytes(low_len)?;
        let mut rest = *reader;
        let words = rest.bytes(rest.remaining())?;
        let patches = patches.into_iter().peekable();
        Ok(Self { slots, low, low_bits, base, patches, at: 0, states, words, word: 0 })
    }

    /// The next `count` numbers minus the base, which is the answer.
    #[inline]
    pub(super) fn next(&mut self, count: usize, out: &mut [u64; BLOCK]) -> Result<i64, DecodeError> {
        unpack(&mut self.low, count, self.low_bits, out)?;
        let [mut even, mut odd] = self.states;
        let mut word = self.word;
        let low_bits = self.low_bits;
        let slot = |state: u32| self.slots.get((state % SCALE) as usize).copied().unwrap_or_default();
        let (pairs, _) = out.as_chunks_mut::<2>();
        for pair in pairs.iter_mut().take(count / 2) {
            // Both words that the two may need.
            let next = match self.words.get(word..).and_then(|words| words.first_chunk()) {
                Some(words) => u32::from_le_bytes(*words),
                None => last_words(self.words, word),
            };
            let (class_even, state_even) = slot(even).step(even);
            let (class_odd, state_odd) = slot(odd).step(odd);
            let [first, second] = pair;
            *first |= class_even << low_bits;
            *second |= class_odd << low_bits;
            let (low_even, low_odd) = (state_even < STATE_MIN, state_odd < STATE_MIN);
            even = if low_even { state_even << WORD_BITS | next & 0xffff } else { state_even };
            let next = if low_even { next >> WORD_BITS } else { next };
            odd = if low_odd { state_odd << WORD_BITS | next & 0xffff } else { state_odd };
            word += 2 * (usize::from(low_even) + usize::from(low_odd));
        }
        if count % 2 == 1 {
            let (class, state) = slot(even).step(even);
            if let Some(number) = out.get_mut(count - 1) {
                *number |= class << low_bits;
            }
            even = state;
            if state < STATE_MIN {
                even = state << WORD_BITS | last_words(self.words, word) & 0xffff;
                word += 2;
            }
        }
        if word > self.words.len() {
            return Err(DecodeError::UnexpectedEnd);
        }
        (self.states, self.word) = ([even, odd], word);
        let (from, to) = (self.at, self.at + count);
        while let Some(patch) = self.patches.next_if(|patch| patch.at < to) {
            let number = out.get_mut(patch.at - from).ok_or(PATCH_PLACE)?;
            *number = number.wrapping_add(patch.high.cast_unsigned().wrapping_shl(self.low_bits));
        }
        self.at = to;
        Ok(self.base)
    }

    /// Passes what was read.
    pub(super) fn finish(&self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        reader.bytes(self.word)?;
        if self.states == [STATE_MIN; 2] { Ok(()) } else { Err(DecodeError::Inconsistent("end of classes")) }
    }
}

/// Two words near the end; what is behind it is read as zero, and noticed when it was used.
#[cold]
fn last_words(words: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    for (byte, word) in bytes.iter_mut().zip(words.iter().skip(at)) {
        *byte = *word;
    }
    u32::from_le_bytes(bytes)
}

/// Reads the codes of the classes: their number less one; the first code in four bits; each further one as the difference
/// to the one before, its amount in ones with a zero behind, and a bit for less.
fn slots(reader: &mut Reader<'_>) -> Result<[Slot; SCALE as usize], DecodeError> {
    const CODE: DecodeError = DecodeError::Inconsistent("code of a class");
    let number = usize::from(reader.u8()?) + 1;
    if number > CLASSES_MAX {
        return Err(DecodeError::NumberRange);
    }
    let mut codes = [0u8; CLASSES_MAX];
    let mut bits = Bits { reader, byte: 0, left: 0 };
    let mut last = 0i8;
    for (index, code) in codes.iter_mut().take(number).enumerate() {
        if index == 0 {
            for bit in 0..4 {
                last |= i8::from(bits.next()?) << bit;
            }
        } else {
            let mut amount = 0i8;
            while bits.next()? {
                amount += 1;
                if amount > 15 {
                    return Err(CODE);
                }
            }
            if amount > 0 && bits.next()? {
                amount = -amount;
            }
            last += amount;
        }
        *code = u8::try_from(last).ok().filter(|code| *code < 16).ok_or(CODE)?;
    }
    let frequencies = frequencies(codes.get(..number).unwrap_or_default()).ok_or(CODE)?;
    let mut slots = [Slot::default(); SCALE as usize];
    let mut rest = slots.as_mut_slice();
    for (class, frequency) in (0u32..).zip(frequencies).take(number) {
        let (own, behind) = rest.split_at_mut_checked(frequency as usize).ok_or(CODE)?;
        let head = class | frequency << Slot::FREQUENCY_AT;
        for (place, slot) in (0u32..).zip(own) {
            *slot = Slot(head | place << Slot::PLACE_AT);
        }
        rest = behind;
    }
    Ok(slots)
}

/// Single bits, lowest first.
struct Bits<'a, 'b> {
    reader: &'a mut Reader<'b>,
    byte: u8,
    left: u32,
}

impl Bits<'_, '_> {
    fn next(&mut self) -> Result<bool, DecodeError> {
        if self.left == 0 {
            self.byte = self.reader.u8()?;
            self.left = 8;
        }
        let bit = self.byte & 1 == 1;
        self.byte >>= 1;
        self.left -= 1;
        Ok(bit)
    }
}
