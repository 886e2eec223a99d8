//! Floats as decimals: the integer and the power of ten whose quotient is the float, bit for bit.
//!
//! Division is correctly rounded, so `integer / 10^exponent` is the float nearest to the decimal, which is what a parser
//! makes of its text; multiplication by a negative power would not be. Each result is checked by the division that the
//! decoder does.
#![expect(clippy::indexing_slicing, reason = "exponents are at most EXPONENT_MAX")]
#![expect(clippy::cast_possible_truncation, reason = "floats are checked or below 2^53; casts saturate")]

use super::exceptions::{Exceptions, is_special};
use super::{EXPONENT_MAX, POWERS, ordered};

/// Integers of fractions stay below this (14 digits): with one more, random bits too would often look like decimals.
const FRACTION_MAX: f64 = (1u64 << 46) as f64;
/// Integers that a residual goes with stay below this, so that rounding is exact.
const RESIDUAL_MAX: f64 = (1u64 << 51) as f64;
/// Values looked at before a column is tried as decimals.
const LOOKED_AT: usize = 8;

/// The nearest integer of a number below 2^51: adding 1.5 × 2^52 leaves no bits for a fraction.
#[inline]
fn nearest(number: f64) -> f64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    (number + SHIFT) - SHIFT
}

/// The integer that `value` is, if it is one.
#[inline]
pub(super) fn whole(value: f64) -> Option<i64> {
    let number = value as i64;
    ((number as f64).to_bits() == value.to_bits()).then_some(number)
}

/// The integer of `value` at an exponent above zero.
#[inline]
fn fraction(value: f64, power: f64) -> Option<i64> {
    let scaled = value * power;
    if scaled.abs() >= FRACTION_MAX {
        return None;
    }
    let number = nearest(scaled);
    ((number / power).to_bits() == value.to_bits()).then_some(number as i64)
}

fn integer(value: f64, exponent: u32) -> Option<i64> {
    if exponent == 0 { whole(value) } else { fraction(value, POWERS[exponent as usize]) }
}

/// The smallest exponent from `from` on at which `value` is a decimal.
fn exponent_of(value: f64, from: u32) -> Option<u32> {
    (from..=EXPONENT_MAX).find(|exponent| integer(value, *exponent).is_some())
}

/// The one decimal that `value` is.
pub(super) fn decimal_of(value: f64) -> Option<(u32, i64)> {
    if is_special(value.to_bits()) {
        return None;
    }
    let exponent = exponent_of(value, 0)?;
    integer(value, exponent).map(|number| (exponent, number))
}

/// Fills `integers` and `exceptions` with a column as decimals and answers the exponent; `None` if it is not worth it.
pub(super) fn of_column(values: &[f64], integers: &mut Vec<i64>, exceptions: &mut Exceptions) -> Option<u32> {
    let mut exponent = usual_exponent(values)?;
    let budget = values.len() / 16 + 2;
    loop {
        integers.clear();
        *exceptions = Exceptions::default();
        let (mut odd, mut higher) = (0, None);
        // Rows without an integer repeat the one before; leading ones take the first that comes.
        let mut last = 0i64;
        let mut leading = 0;
        for (row, &value) in values.iter().enumerate() {
            if !is_special(value.to_bits()) {
                if let Some(number) = integer(value, exponent) {
                    last = number;
                    integers.push(number);
                    if leading + 1 == integers.len() {
                        integers.fill(number);
                        leading = usize::MAX - 1;
                    }
                    continue;
                }
                higher = exponent_of(value, exponent + 1);
                if higher.is_some() {
                    break;
                }
                odd += 1;
                if odd > budget {
                    return None;
                }
            }
            if leading == integers.len() {
                leading += 1;
            }
            integers.push(last);
            exceptions.push(row, value.to_bits());
        }
        match higher {
            Some(higher) => exponent = higher,
            None => return Some(exponent),
        }
    }
}

/// The exponent that serves most values, looking at few.
fn usual_exponent(values: &[f64]) -> Option<u32> {
    let step = values.len().div_ceil(LOOKED_AT).max(1);
    let (mut exponent, mut odd, mut seen) = (0, 0, 0);
    for value in values.iter().step_by(step).filter(|value| !is_special(value.to_bits())) {
        seen += 1;
        if integer(*value, exponent).is_none() {
            match exponent_of(*value, exponent + 1) {
                Some(higher) => exponent = higher,
                None => odd += 1,
            }
        }
    }
    (odd * 2 <= seen).then_some(exponent)
}

/// The integer near `value` and by how many floats the value lies beside the quotient.
#[inline]
pub(super) fn with_residual(value: f64, exponent: u32) -> Option<(i64, i64)> {
    let power = POWERS[exponent as usize];
    let scaled = value * power;
    if scaled.abs() >= RESIDUAL_MAX || scaled.is_nan() {
        return None;
    }
    let number = nearest(scaled);
    let beside = ordered(value.to_bits().cast_signed())
        .wrapping_sub(ordered((number / power).to_bits().cast_signed()));
    Some((number as i64, beside))
}
