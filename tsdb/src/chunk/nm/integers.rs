//! Columns of signed integers as bytes: the reading half and what it shares with [`super::plan`], the writing half.
//!
//! A column is its first number and a stream of differences to it, to the predecessor or of the differences (whichever is
//! smallest), divided by what all have in common, in blocks of 64: each block bit-packed at its own width from its own base,
//! with patches for the few that do not fit or with a bitmap of those that are not zero. A column whose blocks are alike has
//! one block head for all. Arithmetic is modulo 2^64, so any `i64` survives. Layout: `docs/formats/chunk.md`.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use super::coded::Coded;
use super::pack::{BLOCK, unpack};
use crate::coding::{DecodeError, Reader};

/// What the stream holds, in the low two bits of the head of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Differences to the first number.
    Plain = 0,
    /// Differences to the predecessor.
    Delta = 1,
    /// Differences of differences; the first difference is in the head.
    DeltaOfDelta = 2,
    /// Differences to the predecessor, less what the differences before let expect: see [`Trend`].
    Trend = 3,
}

/// In the head: one block head serves all blocks.
pub(super) const UNIFORM_FLAG: u8 = 4;
/// In the head: the stream is divided by a common divisor.
pub(super) const SCALED_FLAG: u8 = 8;
/// In the head: the stream is nothing but zeros and left out.
pub(super) const ZERO_FLAG: u8 = 16;

/// In the head: the stream is not in blocks of whole bits, see [`super::coded`].
pub(super) const CODED_FLAG: u8 = 32;

/// The difference to expect: the mean of those before, of which the last ones count most, each an eighth less than the next.
#[derive(Clone, Copy)]
pub(super) struct Trend {
    /// Eight times the mean.
    eightfold: i64,
}

impl Trend {
    pub(super) fn new(slope: i64) -> Self {
        Self { eightfold: slope.wrapping_mul(8) }
    }

    /// The difference that lies `beside` the expected one.
    #[inline]
    pub(super) fn difference(&mut self, beside: i64) -> i64 {
        let expected = self.eightfold >> 3;
        self.eightfold = self.eightfold.wrapping_add(beside);
        expected.wrapping_add(beside)
    }

    /// By how much `difference` lies beside the expected one.
    #[inline]
    pub(super) fn beside(&mut self, difference: i64) -> i64 {
        let beside = difference.wrapping_sub(self.eightfold >> 3);
        self.eightfold = self.eightfold.wrapping_add(beside);
        beside
    }
}

/// First code of each kind of block; the width is added to it.
pub(super) const CODE_BASE: u8 = 65;
pub(super) const CODE_PATCHED: u8 = 130;
pub(super) const CODE_SPARSE: u8 = 194;

/// How a block is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All numbers, none negative.
    FromZero,
    /// All numbers minus the base, which is written as steps from the one of the last block of this kind.
    FromBase,
    /// All numbers minus the base, which is written as it is; the high parts of some are apart.
    Patched,
    /// A bitmap and the numbers that are not zero.
    Sparse,
}

/// Step of the bases of [`Kind::FromBase`], as a shift: numbers seldom use the last sixteenth of what their width holds, so
/// a base can mostly be moved to the next step.
pub(super) fn base_step(width: u32) -> u32 {
    width.saturating_sub(4)
}

struct BlockHead {
    kind: Kind,
    width: u32,
    base: i64,
}

impl BlockHead {
    /// Reads the head of a block of `count` numbers; `last` is the base of the last block with one.
    fn read(
        reader: &mut Reader<'_>,
        count: usize,
        last: &mut i64,
        bitmap: &mut u64,
    ) -> Result<Self, DecodeError> {
        let code = reader.u8()?;
        let (kind, width) = match code {
            0..CODE_BASE => return Ok(Self { kind: Kind::FromZero, width: code.into(), base: 0 }),
            CODE_BASE..CODE_PATCHED => {
                let width = u32::from(code - CODE_BASE);
                *last = last.wrapping_add(reader.varint()?.wrapping_shl(base_step(width)));
                return Ok(Self { kind: Kind::FromBase, width, base: *last });
            }
            CODE_PATCHED..CODE_SPARSE => (Kind::Patched, code - CODE_PATCHED),
            CODE_SPARSE.. => {
                let bytes = reader.bytes(count.div_ceil(8))?;
                *bitmap = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                if count < BLOCK && *bitmap >> count != 0 {
                    return Err(DecodeError::Inconsistent("bitmap of a block"));
                }
                (Kind::Sparse, code - CODE_SPARSE)
            }
        };
        Ok(Self { kind, width: width.into(), base: reader.varint()? })
    }
}

/// The high part of number `at` of the stream.
#[derive(Clone, Copy)]
pub(super) struct Patch {
    pub(super) at: usize,
    pub(super) high: i64,
}

/// Reads a column of `count` numbers that [`super::plan::encode`] wrote and hands it to `take` in pieces, in order.
///
/// # Errors
/// Whatever is wrong with the bytes; `take` may have had a part by then, never more than `count` numbers.
#[inline]
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    count: usize,
    mut take: impl FnMut(&[i64]),
) -> Result<(), DecodeError> {
    if count == 0 {
        return Ok(());
    }
    let head = reader.u8()?;
    let order = match head & 3 {
        0 => Order::Plain,
        1 => Order::Delta,
        2 => Order::DeltaOfDelta,
        _ => Order::Trend,
    };
    if head & !(3 | UNIFORM_FLAG | SCALED_FLAG | ZERO_FLAG | CODED_FLAG) != 0
        || head & CODED_FLAG != 0 && head & (UNIFORM_FLAG | ZERO_FLAG) != 0
    {
        return Err(DecodeError::Unknown("flag of integers"));
    }
    let scale = if head & SCALED_FLAG == 0 { 1 } else { reader.uvarint()?.cast_signed() };
    let mut value = reader.varint()?;
    take(&[value]);
    let mut left = count - 1;
    let mut slope = 0i64;
    if order == Order::DeltaOfDelta {
        slope = reader.varint()?.wrapping_mul(scale);
        value = value.wrapping_add(slope);
        left = left.checked_sub(1).ok_or(DecodeError::Inconsistent("order of integers"))?;
        take(&[value]);
    }
    if order == Order::Trend {
        slope = reader.varint()?;
    }
    let mut sums = Sums { order, scale, value, slope, trend: Trend::new(slope) };
    let mut numbers = [0u64; BLOCK];
    let mut out = [0i64; BLOCK];
    if head & CODED_FLAG != 0 {
        let mut coded = Coded::read(reader, left)?;
        while left > 0 {
            let count = left.min(BLOCK);
            let base = coded.next(count, &mut numbers)?;
            sums.add(base, &mut numbers, &mut out);
            take(out.get(..count).unwrap_or(&out));
            left -= count;
        }
        return coded.finish(reader);
    }
    let mut blocks = Blocks::new(reader, left, head)?;
    while left > 0 {
        let count = left.min(BLOCK);
        let base = blocks.next(reader, count, &mut numbers)?;
        sums.add(base, &mut numbers, &mut out);
        take(out.get(..count).unwrap_or(&out));
        left -= count;
    }
    Ok(())
}

/// From the numbers of a stream to those of the column.
struct Sums {
    order: Order,
    scale: i64,
    value: i64,
    slope: i64,
    trend: Trend,
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, base: i64, numbers: &mut [u64; BLOCK], out: &mut [i64; BLOCK]) {
        let Self { order, scale, mut value, mut slope, mut trend } = *self;
        let mut base = base;
        if scale != 1 && order != Order::Trend {
            base = base.wrapping_mul(scale);
            numbers.iter_mut().for_each(|number| *number = number.wrapping_mul(scale.cast_unsigned()));
        }
        let pairs = out.iter_mut().zip(&*numbers);
        match order {
            Order::Plain => {
                let base = base.wrapping_add(value);
                pairs.for_each(|(out, number)| *out = base.wrapping_add(number.cast_signed()));
            }
            Order::Delta => pairs.for_each(|(out, number)| {
                value = value.wrapping_add(base.wrapping_add(number.cast_signed()));
                *out = value;
            }),
            Order::DeltaOfDelta => pairs.for_each(|(out, number)| {
                slope = slope.wrapping_add(base.wrapping_add(number.cast_signed()));
                value = value.wrapping_add(slope);
                *out = value;
            }),
            Order::Trend => pairs.for_each(|(out, number)| {
                let difference = trend.difference(base.wrapping_add(number.cast_signed()));
                value = value.wrapping_add(difference.wrapping_mul(scale));
                *out = value;
            }),
        }
        (self.value, self.slope, self.trend) = (value, slope, trend);
    }
}

/// The stream of a column, block by block.
struct Blocks {
    /// The head of all blocks.
    uniform: Option<BlockHead>,
    /// Patches of a uniform column, ascending.
    patches: std::iter::Peekable<std::vec::IntoIter<Patch>>,
    at: usize,
    /// Base of the last block with one on a step.
    last: i64,
}

impl Blocks {
    fn new(reader: &mut Reader<'_>, count: usize, flags: u8) -> Result<Self, DecodeError> {
        let mut patches = Vec::new();
        let mut head = None;
        if flags & ZERO_FLAG != 0 {
            head = Some(BlockHead { kind: Kind::FromZero, width: 0, base: 0 });
        } else if flags & UNIFORM_FLAG != 0 && count > 0 {
            let found = BlockHead::read(reader, 0, &mut 0, &mut 0)?;
            match found.kind {
                Kind::Sparse => return Err(DecodeError::Unknown("kind of block")),
                Kind::FromZero | Kind::FromBase => {}
                Kind::Patched => {
                    let patched = reader.count(2)?;
                    if patched > count {
                        return Err(DecodeError::Inconsistent("number of patches"));
                    }
                    patches.reserve_exact(patched);
                    let mut at = 0usize;
                    for _ in 0..patched {
                        let gap = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
                        at = at.checked_add(gap).filter(|at| *at < count).ok_or(PATCH_PLACE)?;
                        patches.push(Patch { at, high: reader.varint()? });
                    }
                }
            }
            head = Some(found);
        }
        Ok(Self { uniform: head, patches: patches.into_iter().peekable(), at: 0, last: 0 })
    }

    /// The next `count` numbers minus the base, which is the answer.
    #[inline]
    fn next(
        &mut self,
        reader: &mut Reader<'_>,
        count: usize,
        out: &mut [u64; BLOCK],
    ) -> Result<i64, DecodeError> {
        if let Some(head) = &self.uniform {
            unpack(reader, count, head.width, out)?;
            let (from, to) = (self.at, self.at + count);
            while let Some(patch) = self.patches.next_if(|patch| patch.at < to) {
                raise(out, patch.at - from, patch.high, head.width)?;
            }
            self.at = to;
            return Ok(head.base);
        }
        let mut bitmap = 0u64;
        let head = BlockHead::read(reader, count, &mut self.last, &mut bitmap)?;
        match head.kind {
            Kind::FromZero | Kind::FromBase => unpack(reader, count, head.width, out)?,
            Kind::Patched => {
                let mut patches = *reader;
                let patched = reader.count(2)?;
                if patched > count {
                    return Err(DecodeError::Inconsistent("number of patches"));
                }
                for _ in 0..patched {
                    reader.u8()?;
                    reader.varint()?;
                }
                unpack(reader, count, head.width, out)?;
                patches.uvarint()?;
                for _ in 0..patched {
                    let at = usize::from(patches.u8()?);
                    if at >= count {
                        return Err(PATCH_PLACE);
                    }
                    raise(out, at, patches.varint()?, head.width)?;
                }
            }
            Kind::Sparse => {
                unpack(reader, bitmap.count_ones() as usize, head.width, out)?;
                let packed = *out;
                let mut packed = packed.iter();
                for (at, out) in out.iter_mut().enumerate() {
                    *out = 0;
                    if bitmap >> at & 1 == 1 {
                        let number = packed.next().map_or(0, |number| number.cast_signed());
                        let number = head.base.wrapping_add(number);
                        // Zero is not among them, so what is not negative moved down by one.
                        *out = number.wrapping_add(i64::from(number >= 0)).cast_unsigned();
                    }
                }
                return Ok(0);
            }
        }
        Ok(head.base)
    }
}

pub(super) const PATCH_PLACE: DecodeError = DecodeError::Inconsistent("place of a patch");

fn raise(out: &mut [u64; BLOCK], at: usize, high: i64, width: u32) -> Result<(), DecodeError> {
    let number = out.get_mut(at).ok_or(PATCH_PLACE)?;
    *number = number.wrapping_add(high.cast_unsigned().wrapping_shl(width));
    Ok(())
}
