//! Frames of log segments and checkpoints: a file header, then records with length, kind and CRC32C.
//!
//! The layout is in `docs/formats/wal.md`. Reading never trusts a length further than the file goes, and tells a record
//! that was cut off from one that was damaged.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::io::{self, Read};

use crate::coding::{DecodeError, Reader, put_uvarint};

/// Begins a log segment.
pub(crate) const SEGMENT_MAGIC: [u8; 4] = *b"NILW";
/// Begins a checkpoint.
pub(crate) const CHECKPOINT_MAGIC: [u8; 4] = *b"NILC";
/// The version of the files that begin with `magic`.
pub(crate) fn version_of(magic: [u8; 4]) -> u16 {
    if magic == CHECKPOINT_MAGIC { 3 } else { 1 }
}

/// Length of a file header.
pub(crate) const HEADER_LEN: usize = 28;
/// Length of what precedes a record's payload.
pub(crate) const RECORD_HEAD_LEN: usize = 9;
/// Set in the kind of a record whose payload is compressed.
const COMPRESSED: u8 = 0x80;
/// Payloads below this are not worth compressing.
const COMPRESS_MIN: usize = 256;
/// Most bytes of a payload, before and after compression: what one record may make us allocate.
pub(crate) const PAYLOAD_MAX: usize = 1 << 30;
/// Most bytes to look through for a sound record behind a bad one.
const SCAN_MAX: usize = 256 << 20;

/// A file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 4],
    /// The segment's number; for a checkpoint, the first segment it does not cover.
    pub(crate) number: u64,
    /// Bytes of the segment before that count; what lies behind was refused.
    pub(crate) previous_len: u64,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Shorter than a header.
    Short,
    /// Checksum or magic do not fit.
    Damaged,
    /// Written by another program version.
    Version(u16),
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&version_of(self.magic).to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.previous_len.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8], magic: [u8; 4]) -> Result<Self, HeaderError> {
        let body = bytes.get(..HEADER_LEN - 4).ok_or(HeaderError::Short)?;
        let mut reader = Reader::new(bytes);
        let mut read = || {
            let found = reader.bytes(4)?.first_chunk::<4>().copied().ok_or(DecodeError::UnexpectedEnd)?;
            let version = reader.u16_le()?;
            let _flags = reader.u16_le()?;
            let header = Self { magic: found, number: reader.u64_le()?, previous_len: reader.u64_le()? };
            Ok::<_, DecodeError>((header, version, reader.u32_le()?))
        };
        let (header, version, crc) = read().map_err(|_| HeaderError::Short)?;
        if header.magic != magic || crc32c::crc32c(body) != crc {
            return Err(HeaderError::Damaged);
        }
        if version != version_of(magic) { Err(HeaderError::Version(version)) } else { Ok(header) }
    }
}

/// Appends a record to `out`; compresses the payload when asked and when it pays.
///
/// # Panics
/// When the payload is longer than [`PAYLOAD_MAX`]: callers check.
pub(crate) fn put_record(out: &mut Vec<u8>, kind: u8, payload: &[u8], compress: bool) {
    let mut packed = Vec::new();
    let (kind, payload) = if compress && payload.len() >= COMPRESS_MIN {
        put_uvarint(&mut packed, payload.len() as u64);
        packed.extend_from_slice(&lz4_flex::block::compress(payload));
        if packed.len() < payload.len() { (kind | COMPRESSED, packed.as_slice()) } else { (kind, payload) }
    } else {
        (kind, payload)
    };
    let len = u32::try_from(payload.len()).expect("payloads are bounded by PAYLOAD_MAX");
    out.extend_from_slice(&len.to_le_bytes());
    out.push(kind);
    let crc = record_crc(len, kind, payload);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
}

fn record_crc(len: u32, kind: u8, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&len.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &[kind]);
    crc32c::crc32c_append(crc, payload)
}

/// Undoes the compression of a payload.
fn unpack(payload: Vec<u8>, kind: u8) -> Result<(u8, Vec<u8>), DecodeError> {
    if kind & COMPRESSED == 0 {
        return Ok((kind, payload));
    }
    let mut reader = Reader::new(&payload);
    let len = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
    let packed = reader.bytes(reader.remaining())?;
    // LZ4 gains at most a factor of 255.
    if len > PAYLOAD_MAX || len > packed.len().saturating_mul(255).saturating_add(64) {
        return Err(DecodeError::Inconsistent("length of a compressed record"));
    }
    let plain = lz4_flex::block::decompress(packed, len)
        .map_err(|_| DecodeError::Inconsistent("compressed record"))?;
    if plain.len() == len {
        Ok((kind & !COMPRESSED, plain))
    } else {
        Err(DecodeError::Inconsistent("length of a compressed record"))
    }
}

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Frame {
    /// A sound record.
    Record { kind: u8, payload: Vec<u8>, offset: u64 },
    /// The end, right behind the last record.
    End,
    /// No sound record here.
    Bad(BadFrame),
}

/// A record that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadFrame {
    pub(crate) offset: u64,
    pub(crate) what: &'static str,
    /// Whether sound records follow: then it is damage and not the end of what was written.
    pub(crate) more_follows: bool,
    /// Where the next record begins, if the length can be believed.
    pub(crate) next: Option<u64>,
}

/// Reads a file's records one after another.
pub(crate) struct FrameReader {
    input: io::BufReader<Box<dyn Read + Send>>,
    offset: u64,
    /// Bytes that count.
    len: u64,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader")
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl FrameReader {
    /// Reads a file of `len` bytes from its beginning.
    pub(crate) fn new(input: Box<dyn Read + Send>, len: u64) -> Self {
        Self { input: io::BufReader::with_capacity(1 << 20, input), offset: 0, len }
    }

    /// The header.
    pub(crate) fn header(&mut self, magic: [u8; 4]) -> io::Result<Result<Header, HeaderError>> {
        if self.len < HEADER_LEN as u64 {
            return Ok(Err(HeaderError::Short));
        }
        let bytes = self.take(HEADER_LEN)?;
        Ok(Header::decode(&bytes, magic))
    }

    fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.input.read_exact(&mut bytes)?;
        self.offset += len as u64;
        Ok(bytes)
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> io::Result<Frame> {
        let offset = self.offset;
        let left = self.len - offset;
        if left == 0 {
            return Ok(Frame::End);
        }
        if left < RECORD_HEAD_LEN as u64 {
            return Ok(Frame::Bad(BadFrame {
                offset,
                what: "cut off within a record's head",
                more_follows: false,
                next: None,
            }));
        }
        let head = self.take(RECORD_HEAD_LEN)?;
        let mut reader = Reader::new(&head);
        let fields = (reader.u32_le(), reader.u8(), reader.u32_le());
        let (Ok(len), Ok(kind), Ok(crc)) = fields else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let payload_len = u64::from(len);
        if payload_len > left - RECORD_HEAD_LEN as u64 || len as usize > PAYLOAD_MAX {
            let more_follows = self.sound_record_follows(&head)?;
            let what = "a record is longer than the file";
            return Ok(Frame::Bad(BadFrame { offset, what, more_follows, next: None }));
        }
        let payload = self.take(len as usize)?;
        let next = self.offset;
        let what = if record_crc(len, kind, &payload) == crc {
            match unpack(payload, kind) {
                Ok((kind, payload)) => return Ok(Frame::Record { kind, payload, offset }),
                Err(_) => "a record's compression is broken",
            }
        } else {
            "checksum mismatch"
        };
        Ok(Frame::Bad(BadFrame { offset, what, more_follows: next < self.len, next: Some(next) }))
    }

    /// Whether a sound record begins anywhere behind a head that makes no sense.
    fn sound_record_follows(&mut self, head: &[u8]) -> io::Result<bool> {
        let mut rest = head.get(1..).unwrap_or_default().to_vec();
        let left = usize::try_from(self.len - self.offset).unwrap_or(usize::MAX).min(SCAN_MAX);
        rest.extend_from_slice(&self.take(left)?);
        let mut work = SCAN_MAX;
        let mut at = rest.as_slice();
        while at.len() >= RECORD_HEAD_LEN {
            let mut reader = Reader::new(at);
            if let (Ok(len), Ok(kind), Ok(crc)) = (reader.u32_le(), reader.u8(), reader.u32_le())
                && kind & !COMPRESSED != 0
                && kind & !COMPRESSED < 32
                && let Ok(payload) = reader.bytes(len as usize)
            {
                let Some(left) = work.checked_sub(payload.len()) else { return Ok(true) };
                work = left;
                if record_crc(len, kind, payload) == crc {
                    return Ok(true);
                }
            }
            at = at.get(1..).unwrap_or_default();
        }
        Ok(false)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn frames(bytes: &[u8]) -> FrameReader {
        FrameReader::new(Box::new(io::Cursor::new(bytes.to_vec())), bytes.len() as u64)
    }

    #[test]
    fn a_header_of_another_version_says_so() {
        let header = Header { magic: SEGMENT_MAGIC, number: 7, previous_len: 9 };
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes, SEGMENT_MAGIC), Ok(header));
        assert_eq!(Header::decode(&bytes, CHECKPOINT_MAGIC), Err(HeaderError::Damaged));
        bytes[4] = 9;
        assert_eq!(Header::decode(&bytes, SEGMENT_MAGIC), Err(HeaderError::Damaged));
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes, SEGMENT_MAGIC), Err(HeaderError::Version(9)));
        assert_eq!(Header::decode(&bytes[..20], SEGMENT_MAGIC), Err(HeaderError::Short));
    }

    #[test]
    fn every_flipped_bit_is_found_and_damage_is_no_torn_tail() {
        let mut bytes = Vec::new();
        put_record(&mut bytes, 1, b"first", true);
        let first = bytes.len();
        put_record(&mut bytes, 1, &[b'x'; 300], true);
        assert!(bytes.len() < first + 200, "compressed");
        for bit in 0..first * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match frames(&bytes).next().unwrap() {
                Frame::Bad(bad) => assert!(bad.offset == 0 && bad.more_follows, "{bit}: {bad:?}"),
                other => panic!("{bit}: {other:?}"),
            }
        }
        for len in 1..first {
            match frames(&bytes[..len]).next().unwrap() {
                Frame::Bad(bad) => assert!(!bad.more_follows, "{len}: {bad:?}"),
                other => panic!("{len}: {other:?}"),
            }
        }
        let mut reader = frames(&bytes);
        assert!(
            matches!(reader.next().unwrap(), Frame::Record { kind: 1, offset: 0, payload } if payload == b"first")
        );
        assert!(matches!(reader.next().unwrap(), Frame::Record { payload, .. } if payload == [b'x'; 300]));
        assert!(matches!(reader.next().unwrap(), Frame::End));
    }
}
