//! Reading protobuf without copies: a cursor over borrowed bytes, bounds checked, never panicking.
//!
//! The wire format only: varints, fixed values, length-delimited fields. What fields mean is the business of whoever reads a
//! message. Groups (deprecated) are refused, nothing recurses, nothing is allocated. Source: the Protocol Buffers
//! encoding guide.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
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
    /// A number that does not fit the type of its field.
    #[error("field {0} is out of range")]
    OutOfRange(u32),
    /// A string that is no UTF-8.
    #[error("invalid UTF-8 in field {0}")]
    InvalidUtf8(u32),
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
    /// [`WireError::WrongType`].
    #[inline]
    pub fn varint(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            Value::Fixed64(_) | Value::Bytes(_) | Value::Fixed32(_) => Err(self.wrong_type()),
        }
    }

    /// The value of an `int64` field.
    ///
    /// # Errors
    /// [`WireError::WrongType`].
    pub fn int64(&self) -> Result<i64, WireError> {
        self.varint().map(u64::cast_signed)
    }

    /// The value of an `sint32` or `sint64` field.
    ///
    /// # Errors
    /// [`WireError::WrongType`].
    pub fn sint64(&self) -> Result<i64, WireError> {
        self.varint().map(zigzag)
    }

    /// The value of a `double` field.
    ///
    /// # Errors
    /// [`WireError::WrongType`].
    #[inline]
    pub fn double(&self) -> Result<f64, WireError> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Value::Varint(_) | Value::Bytes(_) | Value::Fixed32(_) => Err(self.wrong_type()),
        }
    }

    /// Calls `each` for the numbers of a `repeated` field of varints: all of a packed one, or the one that stands here.
    ///
    /// # Errors
    /// [`WireError::WrongType`], and when a packed field is cut short.
    pub fn varints(&self, mut each: impl FnMut(u64)) -> Result<(), WireError> {
        match self.value {
            Value::Varint(value) => each(value),
            Value::Bytes(bytes) => {
                let mut reader = Reader::new(bytes);
                while let Some(value) = reader.next_packed_varint()? {
                    each(value);
                }
            }
            Value::Fixed64(_) | Value::Fixed32(_) => return Err(self.wrong_type()),
        }
        Ok(())
    }

    /// Calls `each` for the numbers of a `repeated double` field, packed or not.
    ///
    /// # Errors
    /// [`WireError::WrongType`], and when a packed field is cut short.
    pub fn doubles(&self, mut each: impl FnMut(f64)) -> Result<(), WireError> {
        match self.value {
            Value::Fixed64(bits) => each(f64::from_bits(bits)),
            Value::Bytes(bytes) => {
                let mut reader = Reader::new(bytes);
                while let Some(value) = reader.next_packed_double()? {
                    each(value);
                }
            }
            Value::Varint(_) | Value::Fixed32(_) => return Err(self.wrong_type()),
        }
        Ok(())
    }

    /// The bytes of a `bytes`, message, or packed field.
    ///
    /// # Errors
    /// [`WireError::WrongType`].
    #[inline]
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_) => Err(self.wrong_type()),
        }
    }

    /// The text of a `string` field.
    ///
    /// # Errors
    /// [`WireError::WrongType`], [`WireError::InvalidUtf8`].
    pub fn string(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::InvalidUtf8(self.number))
    }

    fn wrong_type(&self) -> WireError {
        let wire_type = match self.value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        WireError::WrongType { field: self.number, wire_type }
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
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How far it has come, in bytes.
    #[inline]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Reads a length and as many bytes, as before each message of a delimited stream; `None` at the end.
    ///
    /// # Errors
    /// When either is cut short.
    pub fn next_delimited(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        if self.position >= self.bytes.len() {
            return Ok(None);
        }
        let length = self.varint()?;
        self.take(length).map(Some)
    }

    /// The next field, or `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no protobuf.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.position >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.position;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::InvalidTag(start))?;
        if number == 0 {
            return Err(WireError::InvalidTag(start));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError::InvalidTag(start)),
        };
        Ok(Some(Field { number, value }))
    }

    /// A varint without tag, as in packed fields; `None` at the end.
    ///
    /// # Errors
    /// When it is cut short or too long.
    pub fn next_packed_varint(&mut self) -> Result<Option<u64>, WireError> {
        if self.position >= self.bytes.len() { Ok(None) } else { self.varint().map(Some) }
    }

    /// A double without tag, as in packed fields; `None` at the end.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn next_packed_double(&mut self) -> Result<Option<f64>, WireError> {
        if self.position >= self.bytes.len() {
            return Ok(None);
        }
        Ok(Some(f64::from_bits(u64::from_le_bytes(self.array()?))))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        let start = self.position;
        let mut value = 0u64;
        for index in 0..10u32 {
            let byte = *self.bytes.get(self.position).ok_or(WireError::Truncated(self.position))?;
            self.position += 1;
            // The tenth byte may only add the topmost bit.
            if index == 9 && byte > 1 {
                return Err(WireError::VarintTooLong(start));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::VarintTooLong(start))
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let truncated = WireError::Truncated(self.position);
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.position.checked_add(length))
            .ok_or(truncated)?;
        let bytes = self.bytes.get(self.position..end).ok_or(truncated)?;
        self.position = end;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let truncated = WireError::Truncated(self.position);
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
        let cases: [(&[u8], WireError); 6] = [
            (&[0x08], WireError::Truncated(1)),
            (&[0x0a, 0x05, 1], WireError::Truncated(2)),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], WireError::Truncated(11)),
            (&[0x09, 1, 2], WireError::Truncated(1)),
            (&[0x00], WireError::InvalidTag(0)),
            (&[0x0b], WireError::InvalidTag(0)),
        ];
        for (bytes, error) in cases {
            assert_eq!(Reader::new(bytes).next_field(), Err(error), "{bytes:02x?}");
        }
        assert_eq!(Reader::new(&[0xff; 11]).next_field(), Err(WireError::VarintTooLong(0)));
    }

    #[test]
    fn repeated_numbers_come_packed_or_one_by_one() {
        let mut reader = Reader::new(&[0x68, 0x03, 0x6a, 0x02, 0x04, 0x05, 0x6d, 0, 0, 0, 0]);
        let mut seen = Vec::new();
        for _ in 0..2 {
            let field = reader.next_field().unwrap().unwrap();
            field.varints(|value| seen.push(value)).unwrap();
        }
        assert_eq!(seen, [3, 4, 5]);
        let wrong = reader.next_field().unwrap().unwrap();
        let error = Err(WireError::WrongType { field: 13, wire_type: 5 });
        assert_eq!((wrong.varints(|_| ()), wrong.doubles(|_| ())), (error, error));
    }

    #[test]
    fn messages_of_a_stream_have_their_length_before_them() {
        let mut reader = Reader::new(&[2, 7, 8, 0, 3, 1]);
        assert_eq!(reader.next_delimited(), Ok(Some(&[7, 8][..])));
        assert_eq!(reader.next_delimited(), Ok(Some(&[][..])));
        assert_eq!(reader.next_delimited(), Err(WireError::Truncated(5)));
        assert_eq!(Reader::new(&[]).next_delimited(), Ok(None));
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
