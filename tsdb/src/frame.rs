//! Frames: many chunks under one checksum and one compression.
//!
//! Chunks of neighbouring series repeat each other, so they are packed together; the price is that reading one unpacks all,
//! which is why a frame holds tens of chunks and not thousands. Blocks and the files of head chunks are made of frames. A chunk
//! here is any byte string, an empty one too: the frame knows nothing of its content. The layout is in
//! `docs/formats/frame.md`.
//!
//! Nothing is unpacked before its checksum was compared, and nothing is believed for that: every length is checked.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::cell::RefCell;
use std::path::Path;

use model::storage::StorageError;

use crate::coding::{DecodeError, Reader, put_uvarint};
use crate::fs::ReadAt;

/// The only version there is.
const VERSION: u8 = 1;
/// Bytes before the packed ones: tag, two lengths, checksum.
pub(crate) const FRAME_HEAD_LEN: usize = 13;
/// Most chunks of a frame.
pub(crate) const FRAME_CHUNKS_MAX: usize = 256;
/// Most bytes of a frame before compression. Writers aim far lower; this is what one chunk of one huge histogram may take.
pub(crate) const FRAME_PLAIN_MAX: usize = 64 << 20;
/// Bytes read at once where the length of a frame is not known before: most frames are smaller.
const READ_AHEAD: usize = 8 << 10;

/// How a frame is packed. A frame that would not get smaller is stored as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    #[cfg_attr(not(any(test, feature = "fuzzing")), expect(dead_code, reason = "tests look at plain frames"))]
    None,
    /// Fast.
    Lz4,
    /// Small; at this level (1–19).
    Zstd(i32),
}

const TAG_NONE: u8 = 0;
const TAG_LZ4: u8 = 1;
const TAG_ZSTD: u8 = 2;

/// Collects the chunks of a frame. Meant to be reused: its memory and compressor stay.
#[derive(Default)]
pub(crate) struct FrameBuilder {
    lens: Vec<usize>,
    bytes: Vec<u8>,
    plain: Vec<u8>,
    packed: Vec<u8>,
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
}

impl std::fmt::Debug for FrameBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameBuilder")
            .field("chunks", &self.lens.len())
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl FrameBuilder {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds what `write` appends to the buffer it is given as the next chunk.
    pub(crate) fn push_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let before = self.bytes.len();
        let result = write(&mut self.bytes);
        self.lens.push(self.bytes.len() - before);
        result
    }

    /// Adds a chunk.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.push_with(|out| out.extend_from_slice(chunk));
    }

    /// Number of chunks.
    pub(crate) fn len(&self) -> usize {
        self.lens.len()
    }

    /// Whether there is no chunk.
    pub(crate) fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// Bytes of all chunks.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets all chunks.
    pub(crate) fn clear(&mut self) {
        self.lens.clear();
        self.bytes.clear();
    }

    /// Appends the frame to `out` and is empty again. Answers its length.
    ///
    /// # Panics
    /// With more than [`FRAME_CHUNKS_MAX`] chunks, or more than [`FRAME_PLAIN_MAX`] bytes: callers check.
    pub(crate) fn finish(&mut self, compression: Compression, out: &mut Vec<u8>) -> usize {
        assert!(self.lens.len() <= FRAME_CHUNKS_MAX, "a frame of {} chunks", self.lens.len());
        self.plain.clear();
        let wide = self.lens.iter().any(|len| *len > usize::from(u16::MAX));
        put_uvarint(&mut self.plain, (self.lens.len() as u64) << 1 | u64::from(wide));
        for len in &self.lens {
            let len = u32::try_from(*len).expect("invariant: less than a frame has").to_le_bytes();
            self.plain.extend_from_slice(if wide { &len } else { &len[..2] });
        }
        self.plain.extend_from_slice(&self.bytes);
        assert!(self.plain.len() <= FRAME_PLAIN_MAX, "a frame of {} bytes", self.plain.len());
        self.clear();
        self.packed.clear();
        let tag = match compression {
            Compression::None => TAG_NONE,
            Compression::Lz4 => {
                self.packed = lz4_flex::block::compress(&self.plain);
                TAG_LZ4
            }
            Compression::Zstd(level) => {
                if self.pack_zstd(level) {
                    TAG_ZSTD
                } else {
                    TAG_NONE
                }
            }
        };
        let (tag, stored) = if tag != TAG_NONE && self.packed.len() < self.plain.len() {
            (tag, &self.packed)
        } else {
            (TAG_NONE, &self.plain)
        };
        put_frame(out, tag, stored, self.plain.len());
        FRAME_HEAD_LEN + stored.len()
    }

    /// Whether it worked; it can only fail for want of memory, and then the frame is stored unpacked.
    fn pack_zstd(&mut self, level: i32) -> bool {
        if self.zstd.as_ref().is_none_or(|(at, _)| *at != level) {
            self.zstd = zstd::bulk::Compressor::new(level).ok().map(|compressor| (level, compressor));
        }
        let Some((_, compressor)) = &mut self.zstd else { return false };
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.plain.len()));
        compressor.compress_to_buffer(&self.plain, &mut self.packed).is_ok()
    }
}

fn put_frame(out: &mut Vec<u8>, tag: u8, stored: &[u8], plain_len: usize) {
    let start = out.len();
    out.push(VERSION << 4 | tag);
    let len = |len: usize| u32::try_from(len).expect("invariant: a frame's length is bounded").to_le_bytes();
    out.extend_from_slice(&len(stored.len()));
    out.extend_from_slice(&len(plain_len));
    let head = out.get(start..).unwrap_or_default();
    let crc = crc32c::crc32c_append(crc32c::crc32c(head), stored);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(stored);
}

/// Appends a frame of these chunks to `out`. Answers its length. Whoever writes many keeps a [`FrameBuilder`].
///
/// # Panics
/// As [`FrameBuilder::finish`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn encode_frame(chunks: &[&[u8]], compression: Compression, out: &mut Vec<u8>) -> usize {
    let mut builder = FrameBuilder::new();
    chunks.iter().for_each(|chunk| builder.push(chunk));
    builder.finish(compression, out)
}

/// What a frame's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    tag: u8,
    stored_len: usize,
    plain_len: usize,
    crc: u32,
}

impl Head {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let first = reader.u8()?;
        let (version, tag) = (first >> 4, first & 0xf);
        let len = |len: u32| usize::try_from(len).map_err(|_| DecodeError::NumberRange);
        let head = Self {
            tag,
            stored_len: len(reader.u32_le()?)?,
            plain_len: len(reader.u32_le()?)?,
            crc: reader.u32_le()?,
        };
        if version != VERSION {
            return Err(DecodeError::Unknown("frame version"));
        }
        if tag > TAG_ZSTD {
            return Err(DecodeError::Unknown("frame compression"));
        }
        if head.plain_len > FRAME_PLAIN_MAX || head.stored_len > head.plain_len {
            return Err(DecodeError::NumberRange);
        }
        Ok(head)
    }

    fn frame_len(&self) -> usize {
        FRAME_HEAD_LEN + self.stored_len
    }
}

/// The length of the frame that `bytes` begin with, as far as its head can be believed before its checksum is compared.
///
/// # Errors
/// When no frame begins so.
pub(crate) fn frame_len(bytes: &[u8]) -> Result<usize, DecodeError> {
    Head::decode(bytes).map(|head| head.frame_len())
}

thread_local! {
    /// A decompressor takes more time to make than to use.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Checks and unpacks a frame; `bytes` are all of it and nothing else. For [`chunk_of`].
///
/// # Errors
/// When anything is wrong with it.
pub(crate) fn decode_frame(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let head = Head::decode(bytes)?;
    let (head_bytes, stored) = bytes.split_at_checked(FRAME_HEAD_LEN).ok_or(DecodeError::UnexpectedEnd)?;
    if stored.len() != head.stored_len {
        return Err(DecodeError::Inconsistent("frame length"));
    }
    let head_bytes = head_bytes.get(..FRAME_HEAD_LEN - 4).ok_or(DecodeError::UnexpectedEnd)?;
    if crc32c::crc32c_append(crc32c::crc32c(head_bytes), stored) != head.crc {
        return Err(DecodeError::Inconsistent("checksum"));
    }
    let broken = DecodeError::Inconsistent("compression");
    let plain = match head.tag {
        TAG_NONE => stored.to_vec(),
        TAG_LZ4 => lz4_flex::block::decompress(stored, head.plain_len).map_err(|_| broken)?,
        _ => ZSTD.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = zstd::bulk::Decompressor::new().ok();
            }
            let unpacker = slot.as_mut().ok_or(broken)?;
            unpacker.decompress(stored, head.plain_len).map_err(|_| broken)
        })?,
    };
    if plain.len() == head.plain_len { Ok(plain) } else { Err(DecodeError::Inconsistent("frame length")) }
}

/// The lengths of an unpacked frame's chunks, and the chunks.
struct Parts<'a> {
    wide: bool,
    lens: &'a [u8],
    chunks: &'a [u8],
}

impl<'a> Parts<'a> {
    fn new(plain: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(plain);
        let head = reader.uvarint()?;
        let wide = head & 1 == 1;
        let count = usize::try_from(head >> 1).ok().filter(|count| *count <= FRAME_CHUNKS_MAX);
        let count = count.ok_or(DecodeError::NumberRange)?;
        let lens = reader.bytes(if wide { count * 4 } else { count * 2 })?;
        Ok(Self { wide, lens, chunks: reader.bytes(reader.remaining())? })
    }

    fn len(&self) -> usize {
        self.lens.len() / if self.wide { 4 } else { 2 }
    }

    /// The sum of the lengths before `index`, and that at `index`. Fixed widths, so that the sum is one of vectors: it is
    /// a part of each read.
    fn span(&self, index: usize) -> Option<(usize, usize)> {
        let (before, len): (u64, u64) = if self.wide {
            let (lens, _) = self.lens.as_chunks::<4>();
            let of = |len: &[u8; 4]| u64::from(u32::from_le_bytes(*len));
            (lens.get(..index)?.iter().map(of).sum(), of(lens.get(index)?))
        } else {
            let (lens, _) = self.lens.as_chunks::<2>();
            let sum: u32 = lens.get(..index)?.iter().map(|len| u32::from(u16::from_le_bytes(*len))).sum();
            (u64::from(sum), u64::from(u16::from_le_bytes(*lens.get(index)?)))
        };
        Some((usize::try_from(before).ok()?, usize::try_from(len).ok()?))
    }
}

/// The number of chunks of an unpacked frame.
///
/// # Errors
/// When it is not one.
pub(crate) fn chunks_of(plain: &[u8]) -> Result<usize, DecodeError> {
    Parts::new(plain).map(|parts| parts.len())
}

/// The chunk at `index` of an unpacked frame.
///
/// # Errors
/// When there is none, or the frame's directory makes no sense.
pub(crate) fn chunk_of(plain: &[u8], index: usize) -> Result<&[u8], DecodeError> {
    let parts = Parts::new(plain)?;
    let (before, len) = parts.span(index).ok_or(DecodeError::Inconsistent("place in a frame"))?;
    let mut reader = Reader::new(parts.chunks);
    reader.bytes(before)?;
    reader.bytes(len)
}

/// Reads, checks and unpacks the frame at `offset` of a file; `len` is its length where the caller knows it.
///
/// # Errors
/// [`StorageError::Corrupted`] with `path` and `offset` when it is damaged or cut off, [`StorageError::Io`] when the
/// system fails.
pub(crate) fn read_frame(
    file: &dyn ReadAt,
    path: &Path,
    offset: u64,
    len: Option<usize>,
) -> Result<Vec<u8>, StorageError> {
    let damaged = |error: DecodeError| corrupted(path, offset, &format!("frame: {error}"));
    let left = usize::try_from(file.len().saturating_sub(offset)).unwrap_or(usize::MAX);
    if len.unwrap_or(FRAME_HEAD_LEN) > left {
        return Err(damaged(DecodeError::UnexpectedEnd));
    }
    let mut bytes = vec![0; len.unwrap_or(READ_AHEAD).min(left).min(FRAME_PLAIN_MAX + FRAME_HEAD_LEN)];
    read_exact(file, path, &mut bytes, offset)?;
    let whole = frame_len(&bytes).map_err(damaged)?;
    if len.is_some_and(|len| len != whole) {
        return Err(damaged(DecodeError::Inconsistent("frame length")));
    }
    if whole > left {
        return Err(damaged(DecodeError::UnexpectedEnd));
    }
    let have = bytes.len();
    bytes.resize(whole, 0);
    if let Some(rest) = bytes.get_mut(have..)
        && !rest.is_empty()
    {
        read_exact(file, path, rest, offset + have as u64)?;
    }
    decode_frame(&bytes).map_err(damaged)
}

/// Fills `buffer`; that a file ends too early is damage and not the system's failure.
///
/// # Errors
/// As [`read_frame`].
pub(crate) fn read_exact(
    file: &dyn ReadAt,
    path: &Path,
    buffer: &mut [u8],
    offset: u64,
) -> Result<(), StorageError> {
    file.read_exact_at(buffer, offset).map_err(|source| {
        if source.kind() == std::io::ErrorKind::UnexpectedEof {
            corrupted(path, offset, "the file ends too early")
        } else {
            StorageError::Io { what: "reading", path: path.to_owned(), source }
        }
    })
}

fn corrupted(path: &Path, offset: u64, what: &str) -> StorageError {
    StorageError::Corrupted { file: path.to_owned(), offset, what: what.to_owned() }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;
    use crate::fs::{FaultyFs, FileSystem};
    use proptest::prelude::*;

    const ALL: [Compression; 4] =
        [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(3)];

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(
            &[b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", b"", b"bc"],
            Compression::Zstd(1),
            &mut out,
        );
        out
    }

    /// The document's example is a frame that we write and read.
    #[test]
    fn the_example_of_the_document_is_true() {
        let document = include_str!("../../docs/formats/frame.md");
        let block = document.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let digits: String = block.lines().filter_map(|line| line.split(';').next()).collect();
        let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let example: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let mut written = Vec::new();
        encode_frame(&[b"nil", b"", b"ometer"], Compression::None, &mut written);
        let hex: String = written.iter().map(|b| format!("{b:02x} ")).collect();
        assert_eq!(example, written, "written: {hex}");
        let plain = decode_frame(&example).unwrap();
        assert_eq!(chunk_of(&plain, 2).unwrap(), b"ometer");
    }

    #[test]
    fn repetition_is_packed_and_noise_is_not() {
        let chunk: Vec<u8> = (0..100u8).collect();
        let chunks = vec![chunk.as_slice(); 64];
        for compression in [Compression::Lz4, Compression::Zstd(1)] {
            let mut out = Vec::new();
            assert!(encode_frame(&chunks, compression, &mut out) < 400, "{compression:?}: {}", out.len());
            let mut out = Vec::new();
            assert_eq!(encode_frame(&[b"x"], compression, &mut out), FRAME_HEAD_LEN + 4);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = sample();
        assert!(decode_frame(&bytes).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode_frame(&bytes[..len]).is_err(), "{len}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(decode_frame(&longer).is_err());
    }

    /// A length in a head with a good checksum is still no reason to allocate or to fail otherwise than by an error.
    #[test]
    fn lengths_that_lie_are_refused() {
        for (tag, plain_len) in
            [(TAG_NONE, 5), (TAG_LZ4, 100), (TAG_ZSTD, 100), (TAG_ZSTD, FRAME_PLAIN_MAX + 1)]
        {
            let mut out = Vec::new();
            put_frame(&mut out, tag, b"abcd", plain_len);
            assert!(decode_frame(&out).is_err(), "{tag} {plain_len}");
        }
        let mut out = Vec::new();
        put_frame(&mut out, 9, b"abcd", 4);
        assert_eq!(decode_frame(&out), Err(DecodeError::Unknown("frame compression")));
        out[0] = 0x20;
        assert_eq!(decode_frame(&out), Err(DecodeError::Unknown("frame version")));
    }

    #[test]
    fn frames_are_read_by_place() {
        let fs = FaultyFs::new();
        let path = Path::new("/frames");
        let big: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut bytes = b"head".to_vec();
        let first = encode_frame(&[b"one", b"two"], Compression::Zstd(1), &mut bytes);
        encode_frame(&[&big], Compression::Zstd(1), &mut bytes);
        fs.write(path, bytes.clone());
        let file = fs.open_at(path).unwrap();
        for len in [None, Some(first)] {
            let plain = read_frame(&*file, path, 4, len).unwrap();
            assert_eq!(chunk_of(&plain, 1).unwrap(), b"two");
        }
        let second = 4 + first as u64;
        let plain = read_frame(&*file, path, second, None).unwrap();
        assert_eq!(chunk_of(&plain, 0).unwrap(), big);
        for (offset, len) in [(3, None), (4, Some(first + 1)), (u64::MAX, None), (second, Some(usize::MAX))] {
            let error = read_frame(&*file, path, offset, len).unwrap_err();
            assert!(
                matches!(&error, StorageError::Corrupted { file, offset: at, .. } if file == path && *at == offset),
                "{error}"
            );
        }
        bytes.pop();
        fs.write(path, bytes);
        let file = fs.open_at(path).unwrap();
        assert!(read_frame(&*file, path, second, None).is_err());
    }

    proptest! {
        #[test]
        fn chunks_come_back(
            chunks in prop::collection::vec(prop::collection::vec(0u8..4, 0..300), 0..80),
            which in 0usize..4,
        ) {
            let mut builder = FrameBuilder::new();
            let mut out = vec![7];
            // Twice: a builder is used again.
            for _ in 0..2 {
                out.truncate(1);
                chunks.iter().for_each(|chunk| builder.push(chunk));
                prop_assert_eq!(builder.finish(ALL[which], &mut out), out.len() - 1);
                prop_assert!(builder.is_empty());
            }
            prop_assert_eq!(frame_len(&out[1..]), Ok(out.len() - 1));
            let plain = decode_frame(&out[1..]).unwrap();
            prop_assert_eq!(chunks_of(&plain), Ok(chunks.len()));
            for (index, chunk) in chunks.iter().enumerate() {
                prop_assert_eq!(chunk_of(&plain, index), Ok(chunk.as_slice()));
            }
            prop_assert!(chunk_of(&plain, chunks.len()).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0u8..3, index in 0usize..300) {
            let _ = decode_frame(&bytes);
            let _ = chunks_of(&bytes);
            let _ = chunk_of(&bytes, index);
            let mut sealed = Vec::new();
            put_frame(&mut sealed, tag, &bytes, bytes.len() * 2);
            if let Ok(plain) = decode_frame(&sealed) {
                let _ = chunk_of(&plain, index);
            }
        }
    }
}
