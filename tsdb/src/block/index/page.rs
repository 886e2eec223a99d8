//! Pages: what is read, checked, unpacked and cached as one piece; and groups of items within them.
//!
//! On disk a page is `kind, [plain length], payload, CRC32C`; its place and length are known from a [`Directory`]. A
//! grouped page holds many items in groups of a fixed number; items are coded against their predecessor within the
//! group, and the groups' starts are listed, so that an item costs the decoding of less than a group.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::cell::RefCell;
use std::ops::Range;

use crate::coding::{DecodeError, Reader, put_uvarint};

/// Most bytes a compressed page may unpack to; larger ones are stored as they are.
pub(super) const PLAIN_MAX: usize = 16 << 20;
/// Pages shorter than this are not worth compressing.
const COMPRESS_MIN: usize = 64;
/// Pages are small: higher levels gain less than 2 % on label values and series.
const LEVEL: i32 = 6;

const KIND_PLAIN: u8 = 0;
const KIND_ZSTD: u8 = 1;

thread_local! {
    /// Contexts are large and their set-up costs more than the unpacking of a page.
    static UNPACK: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends `plain` as a page, compressed if asked and if that makes it smaller. Answers the bytes it took.
pub(super) fn put_page(out: &mut Vec<u8>, plain: &[u8], compress: bool) -> u64 {
    let start = out.len();
    let packed = (compress && plain.len() >= COMPRESS_MIN && plain.len() <= PLAIN_MAX)
        .then(|| zstd::bulk::compress(plain, LEVEL).ok())
        .flatten()
        // Unpacking costs time: it has to save something.
        .filter(|packed| packed.len() + packed.len() / 16 + 4 < plain.len());
    match packed {
        Some(packed) => {
            out.push(KIND_ZSTD);
            put_uvarint(out, plain.len() as u64);
            out.extend_from_slice(&packed);
        }
        None => {
            out.push(KIND_PLAIN);
            out.extend_from_slice(plain);
        }
    }
    let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
    (out.len() - start) as u64
}

/// Checks and unpacks a page.
pub(super) fn decode_page(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(DecodeError::UnexpectedEnd)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(DecodeError::Inconsistent("checksum"));
    }
    let mut reader = Reader::new(body);
    match reader.u8()? {
        KIND_PLAIN => Ok(reader.bytes(reader.remaining())?.to_vec()),
        KIND_ZSTD => {
            let len = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
            if len > PLAIN_MAX {
                return Err(DecodeError::NumberRange);
            }
            let plain = unpack(reader.bytes(reader.remaining())?, len)?;
            if plain.len() == len { Ok(plain) } else { Err(DecodeError::Inconsistent("length of a page")) }
        }
        _ => Err(DecodeError::Unknown("kind of page")),
    }
}

fn unpack(packed: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
    const BAD: DecodeError = DecodeError::Inconsistent("compression");
    UNPACK.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd::bulk::Decompressor::new().map_err(|_| BAD)?),
        };
        context.decompress(packed, len).map_err(|_| BAD)
    })
}

/// Where the pages of a section are, and which items each holds.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Number of the first item of each page, and one more: the number of items.
    firsts: Vec<u64>,
    /// Where each page begins in the file, and one more: where the section ends.
    offsets: Vec<u64>,
}

impl Directory {
    /// An empty section at `offset`.
    pub(super) fn new(offset: u64) -> Self {
        Self { firsts: vec![0], offsets: vec![offset] }
    }

    /// Notes the next page.
    pub(super) fn push(&mut self, items: u64, bytes: u64) {
        let (first, offset) = (self.items() + items, self.end() + bytes);
        self.firsts.push(first);
        self.offsets.push(offset);
    }

    /// As [`Directory::push`], for numbers that may be damaged.
    fn try_push(&mut self, items: u64, bytes: u64, items_max: u64) -> Result<(), DecodeError> {
        let fits = self.items().checked_add(items).is_some() && self.end().checked_add(bytes).is_some();
        if !fits || items == 0 || items > items_max {
            return Err(DecodeError::Inconsistent("page table"));
        }
        self.push(items, bytes);
        Ok(())
    }

    /// Number of items in all pages.
    pub(super) fn items(&self) -> u64 {
        self.firsts.last().copied().unwrap_or_default()
    }

    /// Where the section begins.
    #[cfg(test)]
    pub(super) fn start(&self) -> u64 {
        self.offsets.first().copied().unwrap_or_default()
    }

    /// Where the section ends.
    pub(super) fn end(&self) -> u64 {
        self.offsets.last().copied().unwrap_or_default()
    }

    /// Number of pages.
    pub(super) fn pages(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The page that holds an item.
    pub(super) fn page_of(&self, item: u64) -> Option<usize> {
        let after = self.firsts.partition_point(|first| *first <= item);
        after.checked_sub(1).filter(|page| *page < self.pages())
    }

    /// The items of a page.
    pub(super) fn items_of(&self, page: usize) -> Option<Range<u64>> {
        Some(*self.firsts.get(page)?..*self.firsts.get(page + 1)?)
    }

    /// The bytes of a page in the file.
    pub(super) fn bytes_of(&self, page: usize) -> Option<Range<u64>> {
        Some(*self.offsets.get(page)?..*self.offsets.get(page + 1)?)
    }

    /// Appends, per page, what [`Directory::try_push`] takes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_uvarint(out, self.pages() as u64);
        for page in 0..self.pages() {
            let items = self.items_of(page).unwrap_or_default();
            let bytes = self.bytes_of(page).unwrap_or_default();
            put_uvarint(out, items.end - items.start);
            put_uvarint(out, bytes.end - bytes.start);
        }
    }

    /// Reads a directory of a section that begins at `offset`, with up to `items_max` items in a page: what a damaged
    /// count can make us believe is bounded by the length of the table.
    pub(super) fn decode(reader: &mut Reader<'_>, offset: u64, items_max: u64) -> Result<Self, DecodeError> {
        let pages = reader.count(2)?;
        let mut directory =
            Self { firsts: Vec::with_capacity(pages + 1), offsets: Vec::with_capacity(pages + 1) };
        directory.firsts.push(0);
        directory.offsets.push(offset);
        for _ in 0..pages {
            directory.try_push(reader.uvarint()?, reader.uvarint()?, items_max)?;
        }
        Ok(directory)
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        (self.firsts.capacity() + self.offsets.capacity()) * size_of::<u64>()
    }
}

/// Collects the items of a grouped page.
#[derive(Debug)]
pub(super) struct PageBuilder {
    group: usize,
    count: usize,
    starts: Vec<u32>,
    items: Vec<u8>,
}

impl PageBuilder {
    /// A page with `group` items in each group.
    pub(super) fn new(group: usize) -> Self {
        Self { group, count: 0, starts: Vec::new(), items: Vec::new() }
    }

    /// Adds what `write` appends as the next item; it is told whether the item begins a group.
    pub(super) fn item(&mut self, write: impl FnOnce(&mut Vec<u8>, bool)) {
        let first = self.count.is_multiple_of(self.group);
        if first {
            // A page ends soon after some KiB; one item alone is below 4 GiB because a label set is.
            self.starts.push(u32::try_from(self.items.len()).unwrap_or(u32::MAX));
        }
        write(&mut self.items, first);
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() + 2 * self.starts.len()
    }

    /// The plain bytes of the page; the builder begins the next one.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() + 8);
        let narrow = self.items.len() <= usize::from(u16::MAX);
        put_uvarint(&mut out, (self.count as u64) << 1 | u64::from(!narrow));
        for start in self.starts.iter().skip(1) {
            match u16::try_from(*start) {
                Ok(start) if narrow => out.extend_from_slice(&start.to_le_bytes()),
                _ => out.extend_from_slice(&start.to_le_bytes()),
            }
        }
        out.extend_from_slice(&self.items);
        self.count = 0;
        self.starts.clear();
        self.items.clear();
        out
    }
}

/// A grouped page, read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grouped<'a> {
    group: usize,
    count: usize,
    wide: bool,
    starts: &'a [u8],
    items: &'a [u8],
}

impl<'a> Grouped<'a> {
    pub(super) fn parse(plain: &'a [u8], group: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(plain);
        let head = reader.uvarint()?;
        let count = usize::try_from(head >> 1).map_err(|_| DecodeError::NumberRange)?;
        let wide = head & 1 == 1;
        let groups = count.div_ceil(group);
        let starts = groups.saturating_sub(1).saturating_mul(if wide { 4 } else { 2 });
        let starts = reader.bytes(starts)?;
        Ok(Self { group, count, wide, starts, items: reader.bytes(reader.remaining())? })
    }

    /// Number of items.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Number of groups.
    pub(super) fn groups(&self) -> usize {
        self.count.div_ceil(self.group)
    }

    /// Bytes of the items of a group.
    pub(super) fn group(&self, group: usize) -> Result<&'a [u8], DecodeError> {
        if group >= self.groups() {
            return Err(DecodeError::Inconsistent("number of items in a page"));
        }
        let (start, end) = (self.start(group)?, self.start(group + 1)?);
        self.items.get(start..end).ok_or(DecodeError::Inconsistent("start of a group"))
    }

    fn start(&self, group: usize) -> Result<usize, DecodeError> {
        let Some(place) = group.checked_sub(1) else { return Ok(0) };
        if group == self.groups() {
            return Ok(self.items.len());
        }
        let start = if self.wide {
            let bytes = self.starts.get(place * 4..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map(|bytes| u32::from_le_bytes(*bytes))
        } else {
            let bytes = self.starts.get(place * 2..).and_then(|rest| rest.first_chunk::<2>());
            bytes.map(|bytes| u32::from(u16::from_le_bytes(*bytes)))
        };
        start.map(|start| start as usize).ok_or(DecodeError::UnexpectedEnd)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_survive_and_flipped_bits_are_found(
            plain in prop::collection::vec(prop_oneof![Just(7u8), any::<u8>()], 0..600),
            flip in any::<prop::sample::Index>(),
        ) {
            let mut out = vec![1, 2, 3];
            let bytes = put_page(&mut out, &plain, true);
            prop_assert_eq!(out.len() as u64, bytes + 3);
            let mut page = out.split_off(3);
            prop_assert_eq!(decode_page(&page), Ok(plain));
            let bit = flip.index(page.len() * 8);
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode_page(&page), Err(DecodeError::Inconsistent("checksum")));
        }

        #[test]
        fn groups_hold_their_items(items in prop::collection::vec((0u8..4, 0usize..20_000), 0..12), group in 1usize..5) {
            let items: Vec<Vec<u8>> = items.into_iter().map(|(byte, len)| vec![byte; len]).collect();
            let mut builder = PageBuilder::new(group);
            for item in &items {
                builder.item(|out, _| {
                    put_uvarint(out, item.len() as u64);
                    out.extend_from_slice(item);
                });
            }
            let plain = builder.take();
            let page = Grouped::parse(&plain, group).unwrap();
            prop_assert_eq!(page.count(), items.len());
            let mut got = Vec::new();
            for number in 0..page.groups() {
                let mut reader = Reader::new(page.group(number).unwrap());
                while !reader.is_empty() {
                    let len = reader.count(1).unwrap();
                    got.push(reader.bytes(len).unwrap().to_vec());
                }
            }
            prop_assert_eq!(got, items);
            prop_assert!(page.group(page.groups()).is_err());
        }

        #[test]
        fn anything_may_come_as_a_page(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode_page(&bytes);
            if let Ok(page) = Grouped::parse(&bytes, 2) {
                for group in 0..page.groups().min(100) {
                    let _ = page.group(group);
                }
            }
        }
    }
}
