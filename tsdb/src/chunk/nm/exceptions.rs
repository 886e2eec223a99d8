//! Values that no integer stands for, kept beside the column: staleness markers and other NaNs, infinities, negative zero,
//! and the few that are not decimals in a column that is.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::sample::{NORMAL_NAN_BITS, STALE_NAN_BITS};

use crate::coding::{DecodeError, Reader, put_uvarint};

/// Values that need no bits of their own, by number in the low two bits of a run's length; 3: eight bytes follow.
const KNOWN: [u64; 3] = [STALE_NAN_BITS, NORMAL_NAN_BITS, 1 << 63];
const KNOWN_BITS: u32 = 2;

/// A run of one value in rows `at` to `at` + `len` - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    at: usize,
    len: usize,
    bits: u64,
}

/// Runs, ascending, not overlapping.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    runs: Vec<Run>,
}

/// Whether `bits` are written as a number of two bits.
pub(super) fn is_known(bits: u64) -> bool {
    KNOWN.contains(&bits)
}

/// Whether `bits` are never worth an integer: not finite, or negative zero.
#[inline]
pub(super) fn is_special(bits: u64) -> bool {
    const EXPONENT: u64 = 0x7ff0_0000_0000_0000;
    bits & EXPONENT == EXPONENT || bits == 1 << 63
}

impl Exceptions {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Number of runs.
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Adds the value of row `at`, which is behind all so far.
    pub(super) fn push(&mut self, at: usize, bits: u64) {
        match self.runs.last_mut() {
            Some(last) if last.at + last.len == at && last.bits == bits => last.len += 1,
            _ => self.runs.push(Run { at, len: 1, bits }),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_uvarint(out, self.runs.len() as u64);
        let mut end = 0;
        for run in &self.runs {
            put_uvarint(out, (run.at - end) as u64);
            let known = (0u64..).zip(KNOWN).find(|(_, bits)| *bits == run.bits);
            put_uvarint(out, (run.len as u64 - 1) << KNOWN_BITS | known.map_or(3, |(code, _)| code));
            if known.is_none() {
                out.extend_from_slice(&run.bits.to_le_bytes());
            }
            end = run.at + run.len;
        }
    }

    /// Reads the runs of a column of `count` rows.
    pub(super) fn get(reader: &mut Reader<'_>, count: usize) -> Result<Self, DecodeError> {
        const PLACE: DecodeError = DecodeError::Inconsistent("place of an exception");
        let number = reader.count(2)?;
        if number > count {
            return Err(PLACE);
        }
        let mut runs = Vec::with_capacity(number);
        let mut end = 0usize;
        for _ in 0..number {
            let gap = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
            let code = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
            let len = (code >> KNOWN_BITS) + 1;
            let bits = match KNOWN.get(code & 3) {
                Some(bits) => *bits,
                None => reader.u64_le()?,
            };
            let at = end.checked_add(gap).ok_or(PLACE)?;
            end = at.checked_add(len).filter(|end| *end <= count).ok_or(PLACE)?;
            runs.push(Run { at, len, bits });
        }
        Ok(Self { runs })
    }

    /// Writes the exceptions over what stands in their rows.
    pub(super) fn apply(&self, values: &mut [f64]) {
        for run in &self.runs {
            if let Some(rows) = values.get_mut(run.at..run.at + run.len) {
                rows.fill(f64::from_bits(run.bits));
            }
        }
    }
}
