//! The writing half of the float codec: which mode a column takes.
#![expect(clippy::indexing_slicing, reason = "writes: sizes are its own")]

use super::decimal::{self, decimal_of, with_residual};
use super::exceptions::{Exceptions, is_known, is_special};
use super::{EXCEPTIONS_FLAG, EXPONENT_MAX, EXPONENT_SHIFT, Effort, Mode, ordered, plan};
use crate::coding::{put_varint, zigzag};

/// Pairs of neighbours that the modes for full mantissas are compared by.
const PAIRS: usize = 8;
/// Bits by which integers with residuals must beat bits over all pairs: they have two columns.
const RESIDUAL_GAIN_MIN: u32 = 16;

/// Appends a column of values, whose number the reader must know. Nothing for an empty column.
pub(crate) fn encode_values(values: &[f64], effort: Effort, out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    if !is_known(first.to_bits()) && values.iter().all(|value| value.to_bits() == first.to_bits()) {
        return put_constant(*first, &Exceptions::default(), out);
    }
    let (specials, regular) = specials(values);
    // Adversaries and broken exporters: many runs of NaNs cost more than bits.
    if specials.runs() > values.len() / 4 + 2 {
        return put_bits(values, &Exceptions::default(), effort, out);
    }
    if let Some(only) = only_value(values, regular.unwrap_or(0.0)).filter(|_| !specials.is_empty()) {
        return put_constant(only, &specials, out);
    }
    let mut integers = Vec::with_capacity(values.len());
    let mut exceptions = Exceptions::default();
    if let Some(exponent) = decimal::of_column(values, &mut integers, &mut exceptions) {
        put_head(Mode::Decimal, exponent, &exceptions, out);
        plan::encode(&mut integers, effort, out);
        return;
    }
    match residual_exponent(values) {
        Some(exponent) if put_residual(values, exponent, &mut integers, &specials, effort, out) => {}
        _ => put_bits(values, &specials, effort, out),
    }
}

/// The values that no mode but bits has integers for, and the first of the others.
fn specials(values: &[f64]) -> (Exceptions, Option<f64>) {
    let mut specials = Exceptions::default();
    let mut regular = None;
    for (row, value) in values.iter().enumerate() {
        if is_special(value.to_bits()) {
            specials.push(row, value.to_bits());
        } else if regular.is_none() {
            regular = Some(*value);
        }
    }
    (specials, regular)
}

/// `first`, if all values are that or special.
fn only_value(values: &[f64], first: f64) -> Option<f64> {
    values.iter().all(|v| v.to_bits() == first.to_bits() || is_special(v.to_bits())).then_some(first)
}

fn put_head(mode: Mode, exponent: u32, exceptions: &Exceptions, out: &mut Vec<u8>) {
    let flag = if exceptions.is_empty() { 0 } else { EXCEPTIONS_FLAG };
    out.push(mode as u8 | flag | (exponent << EXPONENT_SHIFT).to_le_bytes()[0]);
    if !exceptions.is_empty() {
        exceptions.put(out);
    }
}

fn put_constant(value: f64, exceptions: &Exceptions, out: &mut Vec<u8>) {
    // Longer varints than bits are of no use.
    match decimal_of(value).filter(|(_, number)| zigzag(*number) < 1 << 56) {
        Some((exponent, number)) => {
            put_head(Mode::ConstantDecimal, exponent, exceptions, out);
            put_varint(out, number);
        }
        None => {
            put_head(Mode::ConstantBits, 0, exceptions, out);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

fn put_bits(values: &[f64], exceptions: &Exceptions, effort: Effort, out: &mut Vec<u8>) {
    put_head(Mode::Bits, 0, exceptions, out);
    let mut last = values.iter().map(|v| v.to_bits()).find(|bits| !is_special(*bits)).unwrap_or(0);
    let skip = !exceptions.is_empty();
    let mut integers: Vec<i64> = values
        .iter()
        .map(|value| {
            if !skip || !is_special(value.to_bits()) {
                last = value.to_bits();
            }
            ordered(last.cast_signed())
        })
        .collect();
    plan::encode(&mut integers, effort, out);
}

fn put_residual(
    values: &[f64],
    exponent: u32,
    integers: &mut Vec<i64>,
    exceptions: &Exceptions,
    effort: Effort,
    out: &mut Vec<u8>,
) -> bool {
    let regular = |value: &&f64| !is_special(value.to_bits());
    let Some(&first) = values.iter().find(regular) else { return false };
    let Some(mut last) = with_residual(first, exponent) else { return false };
    let mut residuals = Vec::with_capacity(values.len());
    integers.clear();
    for value in values {
        if regular(&value) {
            match with_residual(*value, exponent) {
                Some(found) => last = found,
                None => return false,
            }
        }
        integers.push(last.0);
        residuals.push(last.1);
    }
    put_head(Mode::Residual, exponent, exceptions, out);
    plan::encode(integers, effort, out);
    plan::encode(&mut residuals, effort, out);
    true
}

fn bit_len(number: i64) -> u32 {
    64 - zigzag(number).leading_zeros()
}

/// The exponent at which integers and residuals are shorter than differences of bits, by a few pairs of neighbours.
fn residual_exponent(values: &[f64]) -> Option<u32> {
    let mut pairs = [(0f64, 0f64); PAIRS];
    let step = (values.len() / PAIRS).max(1);
    let differ = |pair: &&[f64]| {
        pair[0].to_bits() != pair[1].to_bits() && pair.iter().all(|value| !is_special(value.to_bits()))
    };
    let mut count = 0;
    for window in values.chunks(step) {
        if let Some(pair) = window.windows(2).find(differ).filter(|_| count < PAIRS) {
            pairs[count] = (pair[0], pair[1]);
            count += 1;
        }
    }
    let pairs = &pairs[..count];
    let bits = |value: f64| ordered(value.to_bits().cast_signed());
    let cost: u32 = pairs.iter().map(|(a, b)| bit_len(bits(*b).wrapping_sub(bits(*a)))).sum();
    let mut best = (cost.saturating_sub(RESIDUAL_GAIN_MIN), None);
    for exponent in 1..=EXPONENT_MAX {
        let mut cost = 0;
        for (a, b) in pairs {
            let (Some(a), Some(b)) = (with_residual(*a, exponent), with_residual(*b, exponent)) else {
                return best.1;
            };
            // A residual is coded whole or as a difference; count it whole.
            cost += bit_len(b.0.wrapping_sub(a.0)) + bit_len(b.1);
        }
        if cost < best.0 {
            best = (cost, Some(exponent));
        }
    }
    best.1
}
