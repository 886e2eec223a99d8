//! The reading half of the float codec.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use super::exceptions::Exceptions;
use super::{EXCEPTIONS_FLAG, EXPONENT_SHIFT, Mode, POWERS, integers, ordered};
use crate::coding::{DecodeError, Reader};

impl Mode {
    fn from_head(head: u8) -> Result<Self, DecodeError> {
        match head & 7 {
            0 => Ok(Self::ConstantDecimal),
            1 => Ok(Self::ConstantBits),
            2 => Ok(Self::Decimal),
            3 => Ok(Self::Residual),
            4 => Ok(Self::Bits),
            _ => Err(DecodeError::Unknown("mode of values")),
        }
    }
}

/// Appends `count` values that [`super::encode_values`] wrote.
///
/// Reads exactly the bytes that were written, and takes memory for `count` values and no more, whatever the bytes say.
///
/// # Errors
/// Whatever is wrong with the bytes; `out` is as long as before then.
pub(crate) fn decode_values(
    reader: &mut Reader<'_>,
    count: usize,
    out: &mut Vec<f64>,
) -> Result<(), DecodeError> {
    let before = out.len();
    let done = append(reader, count, out);
    if done.is_err() {
        out.truncate(before);
    }
    done
}

fn append(reader: &mut Reader<'_>, count: usize, out: &mut Vec<f64>) -> Result<(), DecodeError> {
    if count == 0 {
        return Ok(());
    }
    let before = out.len();
    let head = reader.u8()?;
    let exponent = head >> EXPONENT_SHIFT;
    let power = *POWERS.get(usize::from(exponent)).ok_or(DecodeError::NumberRange)?;
    let exceptions = match head & EXCEPTIONS_FLAG {
        0 => Exceptions::default(),
        _ => Exceptions::get(reader, count)?,
    };
    out.reserve(count);
    match Mode::from_head(head)? {
        Mode::ConstantDecimal => {
            let value = reader.varint()? as f64;
            out.resize(before + count, value / power);
        }
        Mode::ConstantBits => out.resize(before + count, reader.f64_le()?),
        Mode::Decimal if exponent == 0 => {
            integers::decode(reader, count, |part| out.extend(part.iter().map(|number| *number as f64)))?;
        }
        Mode::Decimal => {
            integers::decode(reader, count, |part| {
                out.extend(part.iter().map(|number| *number as f64 / power));
            })?;
        }
        Mode::Residual => {
            integers::decode(reader, count, |part| {
                out.extend(part.iter().map(|number| *number as f64 / power));
            })?;
            let mut rows = out.iter_mut().skip(before);
            integers::decode(reader, count, |part| {
                for (beside, row) in part.iter().zip(&mut rows) {
                    *row = from_ordered(ordered(row.to_bits().cast_signed()).wrapping_add(*beside));
                }
            })?;
        }
        Mode::Bits => {
            integers::decode(reader, count, |part| {
                out.extend(part.iter().map(|number| from_ordered(*number)));
            })?;
        }
    }
    exceptions.apply(out.get_mut(before..).unwrap_or_default());
    Ok(())
}

#[inline]
fn from_ordered(number: i64) -> f64 {
    f64::from_bits(ordered(number).cast_unsigned())
}
