//! The float codec: values only, their number known from outside, any bits given back bit for bit.
//!
//! Measured values are mostly integers, or decimals of few digits, or sums of such; written as the integers they are, and
//! these as small differences, they take a fraction of what the bits of their floats take. The rest is written as
//! integers that keep the order of the floats. [`encode_values`] estimates and writes the cheapest, [`decode_values`] reads
//! it in loops over blocks of 64; what is written once and read seldom can take some percent less, see [`Effort`]. Layout: `docs/formats/chunk.md`.

mod against;
mod coded;
mod coded_plan;
mod decimal;
mod decode;
mod encode;
mod exceptions;
pub(crate) mod integers;
mod pack;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

pub(crate) use against::{decode_against, encode_against};
pub(crate) use decode::decode_values;
pub(crate) use encode::encode_values;

/// How much a writer does for fewer bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Whole bits: quick to write and to read. For what is read often, or written anew soon.
    Quick,
    /// Fractions of bits too, where they pay.
    Small,
}

/// What the values of a column are, in the low three bits of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// One decimal for all rows.
    ConstantDecimal = 0,
    /// The bits of one value for all rows.
    ConstantBits = 1,
    /// A column of integers; values are these divided by a power of ten.
    Decimal = 2,
    /// The same, and a second column: by how many steps of the float the value lies beside the quotient.
    Residual = 3,
    /// A column of the floats' bits as integers in the same order as the floats.
    Bits = 4,
}

/// In the first byte: exceptions follow.
const EXCEPTIONS_FLAG: u8 = 8;
/// In the first byte above this: how often to divide by ten.
const EXPONENT_SHIFT: u32 = 4;
/// Largest exponent that the first byte holds.
const EXPONENT_MAX: u32 = 15;

/// Powers of ten, exact as floats.
const POWERS: [f64; EXPONENT_MAX as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Maps the bits of floats to integers that keep their order (NaNs outside of the infinities); its own inverse.
fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}
