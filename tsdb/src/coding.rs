//! Little building blocks of all our formats: varints, zigzag, and a reader that cannot run over its end.
//!
//! Numbers are LEB128 varints (at most ten bytes), signed ones zigzag; fixed-width ones are little-endian.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

/// What a decoder found wrong; the caller adds file and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DecodeError {
    /// The bytes end within a value.
    #[error("unexpected end of data")]
    UnexpectedEnd,
    /// A varint of more than 64 bits.
    #[error("number out of range")]
    NumberRange,
    /// Text that is not UTF-8.
    #[error("text is not valid UTF-8")]
    Utf8,
    /// A tag, codec or flag that this program does not know.
    #[error("unknown {0}")]
    Unknown(&'static str),
    /// Values that contradict each other.
    #[error("inconsistent {0}")]
    Inconsistent(&'static str),
}

/// Appends a varint.
pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a signed varint (zigzag).
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, zigzag(value));
}

/// Appends a text with its length before it.
pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Maps small negative numbers to small unsigned ones.
pub(crate) fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Reads what the `put_` functions wrote; never past the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the beginning.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (first, tail) = self.rest.split_first().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(*first)
    }

    /// A fixed-width number of eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub(crate) fn u64_le(&mut self) -> Result<u64, DecodeError> {
        let (head, tail) = self.rest.split_first_chunk::<8>().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(u64::from_le_bytes(*head))
    }

    /// A fixed-width number of four bytes.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub(crate) fn u32_le(&mut self) -> Result<u32, DecodeError> {
        let (head, tail) = self.rest.split_first_chunk::<4>().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(u32::from_le_bytes(*head))
    }

    /// A fixed-width number of two bytes.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub(crate) fn u16_le(&mut self) -> Result<u16, DecodeError> {
        let (head, tail) = self.rest.split_first_chunk::<2>().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(u16::from_le_bytes(*head))
    }

    /// A float of eight bytes, any bits.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub(crate) fn f64_le(&mut self) -> Result<f64, DecodeError> {
        self.u64_le().map(f64::from_bits)
    }

    /// A varint.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::NumberRange`].
    pub(crate) fn uvarint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        let mut shift = 0u32;
        loop {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(DecodeError::NumberRange);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A varint that must fit 32 bits.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::NumberRange`].
    pub(crate) fn uvarint32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.uvarint()?).map_err(|_| DecodeError::NumberRange)
    }

    /// A signed varint.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::NumberRange`].
    pub(crate) fn varint(&mut self) -> Result<i64, DecodeError> {
        self.uvarint().map(unzigzag)
    }

    /// A number of things that take at least `bytes_each` of the remaining bytes each: what a damaged length can make us
    /// allocate is bounded by what is there.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::NumberRange`].
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
        if count.saturating_mul(bytes_each) > self.rest.len() {
            return Err(DecodeError::UnexpectedEnd);
        }
        Ok(count)
    }

    /// A text.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::Utf8`].
    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.count(1)?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| DecodeError::Utf8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlong_numbers_and_lengths_are_refused() {
        assert_eq!(Reader::new(&[0xff; 10]).uvarint(), Err(DecodeError::NumberRange));
        assert_eq!(Reader::new(&[0x80; 3]).uvarint(), Err(DecodeError::UnexpectedEnd));
        assert_eq!(Reader::new(&[0xff, 0xff, 0x7f, 1]).count(1), Err(DecodeError::UnexpectedEnd));
        assert_eq!(Reader::new(&[2, 0xff, 0xfe]).str(), Err(DecodeError::Utf8));
    }

    proptest! {
        #[test]
        fn numbers_survive(unsigned in any::<u64>(), signed in any::<i64>(), text in "\\PC{0,20}") {
            let mut out = Vec::new();
            put_uvarint(&mut out, unsigned);
            put_varint(&mut out, signed);
            put_str(&mut out, &text);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.uvarint(), Ok(unsigned));
            prop_assert_eq!(reader.varint(), Ok(signed));
            prop_assert_eq!(reader.str(), Ok(text.as_str()));
            prop_assert!(reader.is_empty());
        }
    }
}
