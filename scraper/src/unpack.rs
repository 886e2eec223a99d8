//! Unpacking of compressed pages (RFC 1952) with memory that is used again: a page is unpacked every few milliseconds, and the
//! window and tables of a decoder take more than most pages do.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use parking_lot::Mutex;

use crate::error::ScrapeError;

/// Bytes of text that stay with an unpacker for the next page.
const KEPT_TEXT_MAX: usize = 4 << 20;
/// Least room for text, and by how much it grows.
const GROWTH: usize = 64 << 10;

const HEADER_LEN: usize = 10;
const TRAILER_LEN: usize = 8;
/// Flags of the header: its own checksum, extra fields, name, comment.
const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;

/// Decoder and text of one page after the other.
pub(crate) struct Unpacker {
    inflate: Decompress,
    text: Vec<u8>,
}

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new(false), text: Vec::new() }
    }

    /// The text of all members of `packed`, or its first `limit` bytes.
    pub(crate) fn gunzip(&mut self, packed: &[u8], limit: u64) -> Result<&[u8], ScrapeError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.text.clear();
        let mut rest = packed;
        loop {
            rest = self.member(skip_header(rest)?, limit)?;
            if rest.is_empty() || self.text.len() >= limit {
                return Ok(&self.text);
            }
        }
    }

    /// Unpacks one member behind its header; answers what follows.
    fn member<'a>(&mut self, mut rest: &'a [u8], limit: usize) -> Result<&'a [u8], ScrapeError> {
        self.inflate.reset(false);
        let from = self.text.len();
        loop {
            let room = limit - self.text.len();
            if self.text.capacity() - self.text.len() < GROWTH.min(room) {
                self.text.reserve(GROWTH.max(self.text.len()).min(room));
            }
            let (read, written) = (self.inflate.total_in(), self.text.len());
            let status = self.inflate.decompress_vec(rest, &mut self.text, FlushDecompress::None);
            let status = status.map_err(|_| ScrapeError::Gzip("corrupt deflate stream".to_owned()))?;
            let used = usize::try_from(self.inflate.total_in() - read).unwrap_or(rest.len());
            rest = rest.get(used..).unwrap_or_default();
            if self.text.len() >= limit {
                self.text.truncate(limit);
                return Ok(rest);
            }
            match status {
                Status::StreamEnd => break,
                // More room is what it lacks, unless there is enough.
                _ if used == 0 && self.text.len() == written && self.text.capacity() > written => {
                    return Err(ScrapeError::UnexpectedEof);
                }
                Status::Ok | Status::BufError => {}
            }
        }
        let (trailer, behind) = rest.split_first_chunk::<TRAILER_LEN>().ok_or(ScrapeError::UnexpectedEof)?;
        let [crc, len] = [0, 4].map(|at| {
            trailer.iter().skip(at).take(4).rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
        });
        let member = self.text.get(from..).unwrap_or_default();
        let mut own = Crc::new();
        own.update(member);
        if own.sum() != crc || own.amount() != len {
            let text = "corrupt gzip stream does not have a matching checksum";
            return Err(ScrapeError::Gzip(text.to_owned()));
        }
        Ok(behind)
    }
}

/// What follows the header of a member.
fn skip_header(bytes: &[u8]) -> Result<&[u8], ScrapeError> {
    const EOF: ScrapeError = ScrapeError::UnexpectedEof;
    let skip_text = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0).map(|end| end + 1);
    let magic = [0x1f, 0x8b, 8];
    if !bytes.iter().zip(magic).all(|(byte, own)| *byte == own) {
        return Err(ScrapeError::Gzip("invalid gzip header".to_owned()));
    }
    let (header, mut rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(EOF)?;
    let flags = header[3];
    if flags & FEXTRA != 0 {
        let (len, behind) = rest.split_first_chunk::<2>().ok_or(EOF)?;
        rest = behind.get(usize::from(u16::from_le_bytes(*len))..).ok_or(EOF)?;
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            rest = skip_text(rest).and_then(|len| rest.get(len..)).ok_or(EOF)?;
        }
    }
    if flags & FHCRC != 0 {
        rest = rest.get(2..).ok_or(EOF)?;
    }
    Ok(rest)
}

/// Unpackers that wait for their next page: as many as pages were unpacked at once.
#[derive(Default)]
pub(crate) struct Unpackers(Mutex<Vec<Unpacker>>);

impl Unpackers {
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Unpacker) -> T) -> T {
        let waiting = self.0.lock().pop();
        let mut unpacker = waiting.unwrap_or_else(Unpacker::new);
        let done = f(&mut unpacker);
        if unpacker.text.capacity() <= KEPT_TEXT_MAX {
            self.0.lock().push(unpacker);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::Compression;
    use flate2::bufread::MultiGzDecoder;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_follow_each_other_and_headers_have_fields() {
        let mut builder =
            flate2::GzBuilder::new().filename("page").comment("of a target").extra(vec![1, 2, 3]);
        let mut encoder = builder.write(gzip(b"one "), Compression::best());
        builder = flate2::GzBuilder::new();
        encoder.write_all(b"two ").unwrap();
        let mut encoder = builder.write(encoder.finish().unwrap(), Compression::none());
        encoder.write_all(&[b'3'; 200_000]).unwrap();
        let packed = encoder.finish().unwrap();
        let mut unpacker = Unpacker::new();
        for _ in 0..2 {
            let text = unpacker.gunzip(&packed, u64::MAX).unwrap();
            assert_eq!((&text[..9], text.len()), (&b"one two 3"[..], 200_008));
            assert_eq!(unpacker.gunzip(&packed, 7).unwrap(), b"one two");
            assert_eq!(unpacker.gunzip(&gzip(b""), 7).unwrap(), b"");
        }
    }

    #[test]
    fn damage_is_found() {
        const TEXT: &[u8] = b"some text, some text, some text";
        let packed = gzip(TEXT);
        let mut unpacker = Unpacker::new();
        for cut in 0..packed.len() {
            let error = unpacker.gunzip(&packed[..cut], u64::MAX).err();
            assert!(matches!(error, Some(ScrapeError::UnexpectedEof)), "{cut}: {error:?}");
        }
        for at in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            // Not every bit says something of the text, but none says something else.
            assert!(unpacker.gunzip(&damaged, u64::MAX).map_or(true, |text| text == TEXT), "{at}");
        }
        assert_eq!(unpacker.gunzip(&packed, u64::MAX).unwrap().len(), 31);
    }

    #[test]
    fn bombs_end_at_the_limit() {
        let packed = gzip(&vec![0; 64 << 20]);
        let mut unpacker = Unpacker::new();
        assert_eq!(unpacker.gunzip(&packed, 100_000).unwrap().len(), 100_000);
        assert!(unpacker.text.capacity() < 300_000, "{}", unpacker.text.capacity());
    }

    proptest! {
        /// As the decoder that allocates anew each time.
        #[test]
        fn any_bytes_are_as_with_the_library(
            parts in prop::collection::vec(prop::collection::vec(0u8..4, 0..3000), 0..3),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut packed: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
            for (at, flip) in flips.iter().filter(|_| !packed.is_empty()).collect::<Vec<_>>() {
                let at = at.index(packed.len());
                packed[at] ^= flip;
            }
            if let Some(cut) = cut.filter(|_| !packed.is_empty()) {
                packed.truncate(cut.index(packed.len()));
            }
            let mut theirs = Vec::new();
            let want = MultiGzDecoder::new(&packed[..]).read_to_end(&mut theirs).is_ok();
            let mut unpacker = Unpacker::new();
            let ours = unpacker.gunzip(&packed, u64::MAX);
            // The library passes zeros between members, checksums of headers and reserved flags; nobody sends them.
            match ours {
                Ok(text) => prop_assert!(!want || text == theirs),
                Err(_) => prop_assert!(!want || packed.is_empty()),
            }
        }
    }
}
