//! Writing the index of a block.
//!
//! Numbers of pairs are known only when all series are: until then the writer keeps the series as lists of provisional
//! numbers, some 5 to 10 bytes each, the text of each pair once, and postings as lists of runs, one to three bytes per
//! label of a series and none where a run goes on. A million series of a thousand targets take some 15 MB, with two values of their
//! own each (25 characters together) 127 MB. Chunk lists are packed and final at once; [`IndexWriter::flush_some_to`] lets them go to
//! the file before the end.

use std::io;

use hashbrown::{HashMap, HashTable};
use model::labels::Labels;
use model::storage::StorageError;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::page::{Directory, PageBuilder, put_page};
use super::postings::ListBuilder;
use super::series::{self, Pair};
use super::table::{Separators, WrittenName, encode};
use super::{CHUNKS_GROUP, FOOTER_LEN, HEADER_LEN, MAGIC, PAGE_ITEMS, SERIES_GROUP, VALUES_GROUP, VERSION};
use crate::coding::{Reader, put_uvarint};
use crate::fs::WriteFile;

/// Plain bytes after which a page of values, series or chunk lists is closed. Measured on recorded scrapes: 4 KiB take
/// 8 % more room, 16 KiB double the time of a look-up.
const PAGE_BYTES: usize = 8 << 10;
/// Plain bytes after which a page of postings is closed.
const POSTINGS_PAGE_BYTES: usize = 8 << 10;
/// Bytes written to the file at once.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes of a piece of an [`Arena`].
const ARENA_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct IndexWriter {
    names: Vec<WriterName>,
    name_ids: HashMap<Box<str>, u32>,
    pairs: Vec<WriterPair>,
    by_text: HashTable<u32>,
    text: Arena,
    series: u32,
    last: Labels,
    last_pairs: Vec<u32>,
    entries: Arena,
    chunk_page: PageBuilder,
    chunks: Directory,
    /// Bytes that are not in the file yet.
    ready: Vec<u8>,
    /// Bytes that are.
    written: u64,
    compress: bool,
}

#[derive(Debug)]
struct WriterName {
    name: Box<str>,
    values: u32,
    having: ListBuilder,
}

#[derive(Debug)]
struct WriterPair {
    name: u32,
    /// Length and place of the value.
    len: u32,
    at: u64,
    postings: ListBuilder,
}

/// Bytes in pieces, so that growing never copies them. What was put in together stays together.
#[derive(Debug, Default)]
struct Arena {
    pieces: Vec<Vec<u8>>,
}

impl Arena {
    fn push(&mut self, bytes: &[u8]) -> u64 {
        let fits = |piece: &Vec<u8>| piece.capacity() - piece.len() >= bytes.len();
        if !self.pieces.last().is_some_and(fits) {
            self.pieces.push(Vec::with_capacity(ARENA_BYTES.max(bytes.len())));
        }
        let piece = self.pieces.len() - 1;
        let place = self.pieces[piece].len();
        self.pieces[piece].extend_from_slice(bytes);
        (piece as u64) << 32 | place as u64
    }

    fn get(&self, at: u64, len: u32) -> &[u8] {
        let start = (at & u64::from(u32::MAX)) as usize;
        &self.pieces[(at >> 32) as usize][start..start + len as usize]
    }
}

impl Default for IndexWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl IndexWriter {
    /// A writer without series.
    pub(crate) fn new() -> Self {
        let mut ready = Vec::new();
        ready.extend_from_slice(&MAGIC);
        ready.extend_from_slice(&VERSION.to_le_bytes());
        ready.extend_from_slice(&0u16.to_le_bytes());
        Self {
            names: Vec::new(),
            name_ids: HashMap::new(),
            pairs: Vec::new(),
            by_text: HashTable::new(),
            text: Arena::default(),
            series: 0,
            last: Labels::empty(),
            last_pairs: Vec::new(),
            entries: Arena::default(),
            chunk_page: PageBuilder::new(CHUNKS_GROUP),
            chunks: Directory::new(HEADER_LEN as u64),
            ready,
            written: 0,
            compress: true,
        }
    }

    /// A writer of pages that tests can tamper with.
    #[cfg(test)]
    pub(super) fn uncompressed() -> Self {
        Self { compress: false, ..Self::new() }
    }

    /// Adds the next series; `chunks` is what [`super::IndexReader::chunks`] will answer.
    ///
    /// # Errors
    /// [`StorageError::Limit`] when numbers of series run out.
    ///
    /// # Panics
    /// When its labels do not follow those of the series before: blocks are written in order.
    pub(crate) fn add(&mut self, labels: &Labels, chunks: &[u8]) -> Result<(), StorageError> {
        assert!(self.series == 0 || self.last < *labels, "{labels} after {}", self.last);
        let series = self.series;
        self.series = series
            .checked_add(1)
            .ok_or(StorageError::Limit { what: "number of series in a block", limit: u32::MAX.into() })?;
        let mut pairs = Vec::with_capacity(labels.len());
        for (name, value) in labels {
            let pair = self.intern(name, value);
            let entry = &mut self.pairs[pair as usize];
            entry.postings.push(series);
            self.names[entry.name as usize].having.push(series);
            pairs.push(pair);
        }
        let shared = self.last_pairs.iter().zip(&pairs).take_while(|(a, b)| a == b).count();
        let mut entry = Vec::with_capacity(2 + 3 * pairs.len());
        put_uvarint(&mut entry, shared as u64);
        put_uvarint(&mut entry, (pairs.len() - shared) as u64);
        pairs[shared..].iter().for_each(|pair| put_uvarint(&mut entry, u64::from(*pair)));
        self.entries.push(&entry);
        self.last = labels.clone();
        self.last_pairs = pairs;
        self.chunk_page.item(|out, _| {
            put_uvarint(out, chunks.len() as u64);
            out.extend_from_slice(chunks);
        });
        if self.chunk_page.len() >= PAGE_BYTES || self.chunk_page.count() >= PAGE_ITEMS {
            close_page(&mut self.chunk_page, &mut self.chunks, &mut self.ready, self.compress);
        }
        Ok(())
    }

    fn intern(&mut self, name: &str, value: &str) -> u32 {
        let name_id = match self.name_ids.get(name) {
            Some(id) => *id,
            None => {
                let id = self.names.len() as u32;
                self.names.push(WriterName { name: name.into(), values: 0, having: ListBuilder::default() });
                self.name_ids.insert(name.into(), id);
                id
            }
        };
        let hash = |name: u32, value: &[u8]| xxh3_64_with_seed(value, u64::from(name));
        let (pairs, text) = (&self.pairs, &self.text);
        let value_of = |pair: &u32| {
            let pair = &pairs[*pair as usize];
            (pair.name, text.get(pair.at, pair.len))
        };
        let wanted = hash(name_id, value.as_bytes());
        if let Some(pair) = self.by_text.find(wanted, |pair| value_of(pair) == (name_id, value.as_bytes())) {
            return *pair;
        }
        let pair = u32::try_from(pairs.len()).expect("fewer pairs than fit in memory");
        let rehash = |pair: &u32| {
            let (name, value) = value_of(pair);
            hash(name, value)
        };
        self.by_text.insert_unique(wanted, pair, rehash);
        let at = self.text.push(value.as_bytes());
        let len = u32::try_from(value.len()).expect("label values are shorter than 4 GiB");
        self.pairs.push(WriterPair { name: name_id, len, at, postings: ListBuilder::default() });
        self.names[name_id as usize].values += 1;
        pair
    }

    /// Writes what is final once there is enough of it, so that it leaves memory. May be called at any time, or never.
    ///
    /// # Errors
    /// The system's; the file is of no use then.
    pub(crate) fn flush_some_to(&mut self, file: &mut dyn WriteFile) -> io::Result<()> {
        if self.ready.len() >= WRITE_BYTES { self.flush_to(file) } else { Ok(()) }
    }

    /// Writes all that is final.
    ///
    /// # Errors
    /// The system's; the file is of no use then.
    pub(super) fn flush_to(&mut self, file: &mut dyn WriteFile) -> io::Result<()> {
        file.append(&self.ready)?;
        self.written += self.ready.len() as u64;
        self.ready.clear();
        Ok(())
    }

    /// Writes all of the index that is not in `file` yet, and answers the length of the file. Does not sync.
    ///
    /// # Errors
    /// The system's; the file is of no use then.
    pub(crate) fn finish(mut self, file: &mut dyn WriteFile) -> io::Result<u64> {
        close_page(&mut self.chunk_page, &mut self.chunks, &mut self.ready, self.compress);
        self.by_text = HashTable::new();
        let names = self.names_in_order();
        let mut rank = vec![0u32; names.len()];
        for (place, name) in names.iter().enumerate() {
            rank[*name] = place as u32;
        }
        let order = self.order(&rank);
        let mut postings = PostingsSection::new(self.chunks.end(), self.compress);
        let mut values = ValuesSection::new(self.compress);
        let mut last_name = None;
        for pair in &order {
            let pair = &mut self.pairs[*pair as usize];
            if last_name.replace(pair.name) != Some(pair.name) {
                values.begin_name();
            }
            let list = std::mem::take(&mut pair.postings);
            values.add(self.text.get(pair.at, pair.len), list, &mut postings);
            postings.close_if(POSTINGS_PAGE_BYTES, &mut self.ready);
            if self.ready.len() >= WRITE_BYTES {
                self.flush_to(file)?;
            }
        }
        let names: Vec<WrittenName> = names
            .into_iter()
            .map(|name| {
                let name = &mut self.names[name];
                let (offset, mut having) = (postings.offset(), Vec::new());
                std::mem::take(&mut name.having).finish(&mut having, &mut postings.page);
                postings.close_if(POSTINGS_PAGE_BYTES, &mut self.ready);
                WrittenName { name: name.name.clone(), values: name.values, having, offset }
            })
            .collect();
        postings.close_if(1, &mut self.ready);
        let postings = postings.directory;
        let (values, separators) = values.finish(postings.end(), &mut self.ready);
        self.flush_to(file)?;
        let series = self.write_series(file, &order, &rank, values.end())?;
        let table = encode(self.series, &names, [&self.chunks, &postings, &values, &series], &separators);
        let table_len = put_page(&mut self.ready, &table, self.compress);
        let mut footer = Vec::with_capacity(FOOTER_LEN);
        footer.extend_from_slice(&series.end().to_le_bytes());
        footer.extend_from_slice(&table_len.to_le_bytes());
        let crc = crc32c::crc32c(&[&header()[..], &footer].concat());
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(&MAGIC);
        self.ready.extend_from_slice(&footer);
        self.flush_to(file)?;
        Ok(self.written)
    }

    fn names_in_order(&self) -> Vec<usize> {
        let mut names: Vec<usize> = (0..self.names.len()).collect();
        names.sort_unstable_by(|a, b| self.names[*a].name.cmp(&self.names[*b].name));
        names
    }

    /// Provisional numbers of the pairs in their final order.
    fn order(&self, rank: &[u32]) -> Vec<u32> {
        let key = |pair: &u32| {
            let pair = &self.pairs[*pair as usize];
            (rank[pair.name as usize], self.text.get(pair.at, pair.len))
        };
        let mut order: Vec<u32> = (0..self.pairs.len() as u32).collect();
        order.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        order
    }

    fn write_series(
        &mut self,
        file: &mut dyn WriteFile,
        order: &[u32],
        rank: &[u32],
        start: u64,
    ) -> io::Result<Directory> {
        let mut final_of = vec![0u32; order.len()];
        for (place, pair) in order.iter().enumerate() {
            final_of[*pair as usize] = place as u32;
        }
        let mut directory = Directory::new(start);
        let mut page = PageBuilder::new(SERIES_GROUP);
        let mut provisional: Vec<u32> = Vec::new();
        let mut before: Vec<Pair> = Vec::new();
        for piece in std::mem::take(&mut self.entries.pieces) {
            let mut reader = Reader::new(&piece);
            while !reader.is_empty() {
                let mut next = || reader.uvarint32().expect("written by add");
                provisional.truncate(next() as usize);
                for _ in 0..next() {
                    provisional.push(next());
                }
                let pairs: Vec<Pair> = provisional
                    .iter()
                    .map(|pair| (rank[self.pairs[*pair as usize].name as usize], final_of[*pair as usize]))
                    .collect();
                page.item(|out, first| series::encode((!first).then_some(&*before), &pairs, out));
                before = pairs;
                if page.len() >= PAGE_BYTES || page.count() >= PAGE_ITEMS {
                    close_page(&mut page, &mut directory, &mut self.ready, self.compress);
                    if self.ready.len() >= WRITE_BYTES {
                        self.flush_to(file)?;
                    }
                }
            }
        }
        close_page(&mut page, &mut directory, &mut self.ready, self.compress);
        Ok(directory)
    }
}

fn header() -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header
}

fn close_page(page: &mut PageBuilder, directory: &mut Directory, out: &mut Vec<u8>, compress: bool) {
    let items = page.count() as u64;
    if items > 0 {
        let bytes = put_page(out, &page.take(), compress);
        directory.push(items, bytes);
    }
}

/// Postings that have no place beside their value.
struct PostingsSection {
    directory: Directory,
    page: Vec<u8>,
    compress: bool,
}

impl PostingsSection {
    fn new(start: u64, compress: bool) -> Self {
        Self { directory: Directory::new(start), page: Vec::new(), compress }
    }

    /// Where the next postings will be, in the section's plain bytes.
    fn offset(&self) -> u64 {
        self.directory.items() + self.page.len() as u64
    }

    fn close_if(&mut self, bytes: usize, out: &mut Vec<u8>) {
        if self.page.len() >= bytes {
            let len = put_page(out, &self.page, self.compress);
            self.directory.push(self.page.len() as u64, len);
            self.page.clear();
        }
    }
}

/// Pages of values: kept until the postings are written.
struct ValuesSection {
    page: PageBuilder,
    /// Items and bytes of the pages.
    pages: Vec<(u64, u64)>,
    bytes: Vec<u8>,
    separators: Separators,
    last: Vec<u8>,
    /// The next value is the first of its name.
    new_name: bool,
    compress: bool,
}

impl ValuesSection {
    fn new(compress: bool) -> Self {
        Self {
            page: PageBuilder::new(VALUES_GROUP),
            pages: Vec::new(),
            bytes: Vec::new(),
            separators: Separators::default(),
            last: Vec::new(),
            new_name: true,
            compress,
        }
    }

    fn begin_name(&mut self) {
        self.new_name = true;
    }

    fn add(&mut self, value: &[u8], list: ListBuilder, postings: &mut PostingsSection) {
        let shared = self.last.iter().zip(value).take_while(|(a, b)| a == b).count();
        if self.page.count() == 0 {
            // Values of a name ascend, so one byte more than the shared ones tells them apart.
            let separator = if self.new_name { 0 } else { shared + 1 };
            self.separators.push(&value[..separator]);
        }
        self.new_name = false;
        let offset = postings.offset();
        self.page.item(|out, first| {
            let shared = if first { 0 } else { shared };
            if first {
                put_uvarint(out, offset);
            } else {
                put_uvarint(out, shared as u64);
            }
            put_uvarint(out, (value.len() - shared) as u64);
            out.extend_from_slice(&value[shared..]);
            list.finish(out, &mut postings.page);
        });
        self.last.clear();
        self.last.extend_from_slice(value);
        if self.page.len() >= PAGE_BYTES || self.page.count() >= PAGE_ITEMS {
            self.close();
        }
    }

    fn close(&mut self) {
        let items = self.page.count() as u64;
        if items > 0 {
            let bytes = put_page(&mut self.bytes, &self.page.take(), self.compress);
            self.pages.push((items, bytes));
        }
    }

    fn finish(mut self, start: u64, out: &mut Vec<u8>) -> (Directory, Separators) {
        self.close();
        let mut directory = Directory::new(start);
        self.pages.iter().for_each(|(items, bytes)| directory.push(*items, *bytes));
        out.extend_from_slice(&self.bytes);
        (directory, self.separators)
    }
}
