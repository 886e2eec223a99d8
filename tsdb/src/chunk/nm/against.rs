//! A column of whole numbers as differences to another column of as many rows: the buckets of one histogram, each against
//! the next larger one, differ by what fell between the two bounds, which is less and moves less than their counts.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use super::decimal::whole;
use super::exceptions::{Exceptions, is_special};
use super::{Effort, integers, plan};
use crate::coding::{DecodeError, Reader};

/// Whole numbers beyond this are not tried: up to here, integers and floats are the same numbers.
const WHOLE_MAX: i64 = 1 << 53;

/// The whole number that `value` is; 0 for what is none.
#[inline]
fn base_of(value: f64) -> i64 {
    whole(value).filter(|number| number.abs() <= WHOLE_MAX).unwrap_or(0)
}

/// Appends `values` as differences to `base`; `false`, and nothing, if too many of them are no whole numbers.
pub(crate) fn encode_against(base: &[f64], values: &[f64], effort: Effort, out: &mut Vec<u8>) -> bool {
    let budget = values.len() / 16 + 2;
    let mut exceptions = Exceptions::default();
    let mut differences = Vec::with_capacity(values.len());
    let mut last = 0;
    for (row, (value, base)) in values.iter().zip(base).enumerate() {
        match whole(*value).filter(|number| !is_special(value.to_bits()) && number.abs() <= WHOLE_MAX) {
            Some(number) => last = number - base_of(*base),
            None => {
                exceptions.push(row, value.to_bits());
                if exceptions.runs() > budget {
                    return false;
                }
            }
        }
        differences.push(last);
    }
    exceptions.put(out);
    plan::encode(&mut differences, effort, out);
    true
}

/// Appends as many values as `base` has; the reverse of [`encode_against`].
///
/// # Errors
/// Whatever is wrong with the bytes; `out` is as long as before then.
pub(crate) fn decode_against(
    reader: &mut Reader<'_>,
    base: &[f64],
    out: &mut Vec<f64>,
) -> Result<(), DecodeError> {
    let before = out.len();
    let exceptions = Exceptions::get(reader, base.len())?;
    out.reserve(base.len());
    let mut rest = base.iter();
    let done = integers::decode(reader, base.len(), |part| {
        let pairs = part.iter().zip(rest.by_ref());
        out.extend(pairs.map(|(number, base)| number.wrapping_add(base_of(*base)) as f64));
    });
    match done {
        Ok(()) => exceptions.apply(out.get_mut(before..).unwrap_or_default()),
        Err(_) => out.truncate(before),
    }
    done
}
