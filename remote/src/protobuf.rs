//! Reading protobuf without copies: a cursor over borrowed bytes, bounds checked, never panicking.
//!
//! Only what remote write needs: varints, fixed 64-bit values, length-delimited fields, and skipping of the rest. Groups
//! (deprecated) are refused. Source: the Protocol Buffers encoding guide.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end within a value.
    #[error("unexpected end of message at byte {0}")]
    Truncated(usize),
    /// A varint of more than ten bytes.
    #[error("varint too long at byte {0}")]
    VarintTooLong(usize),
    /// A field number of 0, or a wire type that is unknown or not allowed here.
    #[error("invalid field tag at byte {0}")]
    InvalidTag(usize),
    /// A known field with another wire type than its schema says.
    #[error("field {field} has wire type {wire_type}")]
    WrongType {
        /// Field number.
        field: u32,
        /// What was found.
        wire_type: u8,
    },
    /// A string that is no UTF-8.
    #[error("invalid UTF-8 in field {0}")]
    InvalidUtf8(u32),
    /// A reference beyond the table of symbols (remote write 2.0).
    #[error("symbol reference {0} is out of range")]
    SymbolOutOfRange(u64),
    /// A label name without a value (remote write 2.0).
    #[error("label references do not come in pairs")]
    OddLabelReferences,
}

/// One field: its number and value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// Field number.
    pub number: u32,
    /// Value by wire type.
    pub value: Value<'a>,
}

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The value of a `uint64`, `int64`, `uint32`, `int32`, `bool` or enum field.
    ///
    /// # Errors
    /// [`DecodeError::WrongType`].
    pub fn varint(&self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            Value::Fixed64(_) | Value::Bytes(_) | Value::Fixed32(_) => Err(self.wrong_type()),
        }
    }

    /// The value of an `int64` field.
    ///
    /// # Errors
    /// [`DecodeError::WrongType`].
    pub fn int64(&self) -> Result<i64, DecodeError> {
        self.varint().map(u64::cast_signed)
    }

    /// The value of an `sint32` or `sint64` field.
    ///
    /// # Errors
    /// [`DecodeError::WrongType`].
    pub fn sint64(&self) -> Result<i64, DecodeError> {
        self.varint().map(zigzag)
    }

    /// The value of a `double` field.
    ///
    /// # Errors
    /// [`DecodeError::WrongType`].
    pub fn double(&self) -> Result<f64, DecodeError> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Value::Varint(_) | Value::Bytes(_) | Value::Fixed32(_) => Err(self.wrong_type()),
        }
    }

    /// The bytes of a `bytes`, message, or packed field.
    ///
    /// # Errors
    /// [`DecodeError::WrongType`].
    pub fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_) => Err(self.wrong_type()),
        }
    }

    /// The text of a `string` field.
    ///
    /// # Errors
    /// [`DecodeError::WrongType`], [`DecodeError::InvalidUtf8`].
    pub fn string(&self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::InvalidUtf8(self.number))
    }

    fn wrong_type(&self) -> DecodeError {
        let wire_type = match self.value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        DecodeError::WrongType { field: self.number, wire_type }
    }
}

/// `sint` decoding.
pub fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Iterates over the fields of one message.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How far it has come, in bytes.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next field, or `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no protobuf.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.position >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.position;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::InvalidTag(start))?;
        if number == 0 {
            return Err(DecodeError::InvalidTag(start));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(DecodeError::InvalidTag(start)),
        };
        Ok(Some(Field { number, value }))
    }

    /// A varint without tag, as in packed fields; `None` at the end.
    ///
    /// # Errors
    /// When it is cut short or too long.
    pub fn next_packed_varint(&mut self) -> Result<Option<u64>, DecodeError> {
        if self.position >= self.bytes.len() { Ok(None) } else { self.varint().map(Some) }
    }

    /// A double without tag, as in packed fields; `None` at the end.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn next_packed_double(&mut self) -> Result<Option<f64>, DecodeError> {
        if self.position >= self.bytes.len() {
            return Ok(None);
        }
        Ok(Some(f64::from_bits(u64::from_le_bytes(self.array()?))))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let start = self.position;
        let mut value = 0u64;
        for index in 0..10u32 {
            let byte = *self.bytes.get(self.position).ok_or(DecodeError::Truncated(self.position))?;
            self.position += 1;
            // The tenth byte may only add the topmost bit.
            if index == 9 && byte > 1 {
                return Err(DecodeError::VarintTooLong(start));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong(start))
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let truncated = DecodeError::Truncated(self.position);
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.position.checked_add(length))
            .ok_or(truncated)?;
        let bytes = self.bytes.get(self.position..end).ok_or(truncated)?;
        self.position = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let truncated = DecodeError::Truncated(self.position);
        self.take(N as u64)?.try_into().map_err(|_| truncated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_encoding_guides_examples() {
        let mut reader =
            Reader::new(&[0x08, 0x96, 0x01, 0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g']);
        let number = reader.next_field().unwrap().unwrap();
        assert_eq!((number.number, number.varint()), (1, Ok(150)));
        let text = reader.next_field().unwrap().unwrap();
        assert_eq!((text.number, text.string()), (2, Ok("testing")));
        assert_eq!(reader.next_field(), Ok(None));
        assert_eq!([zigzag(0), zigzag(1), zigzag(2), zigzag(u64::MAX)], [0, -1, 1, i64::MIN]);
    }

    #[test]
    fn refuses_what_is_cut_or_malformed() {
        let cases: [(&[u8], DecodeError); 6] = [
            (&[0x08], DecodeError::Truncated(1)),
            (&[0x0a, 0x05, 1], DecodeError::Truncated(2)),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], DecodeError::Truncated(11)),
            (&[0x09, 1, 2], DecodeError::Truncated(1)),
            (&[0x00], DecodeError::InvalidTag(0)),
            (&[0x0b], DecodeError::InvalidTag(0)),
        ];
        for (bytes, error) in cases {
            assert_eq!(Reader::new(bytes).next_field(), Err(error), "{bytes:02x?}");
        }
        assert_eq!(Reader::new(&[0xff; 11]).next_field(), Err(DecodeError::VarintTooLong(0)));
    }

    proptest! {
        #[test]
        fn never_panics_and_always_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(Some(_)) = reader.next_field() {}
            prop_assert!(reader.position() <= bytes.len());
        }
    }
}
