//! Reading the index of a block: labels, values and chunk lists, page by page through the cache.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::labels::Labels;
use model::storage::StorageError;

use super::page::{Grouped, decode_page};
use super::postings::{Place, PostingsRef};
use super::table::Table;
use super::{
    CHUNKS_GROUP, FOOTER_LEN, HEADER_LEN, MAGIC, SERIES_GROUP, Section, VALUES_GROUP, VERSION, series,
};
use crate::block::Damage;
use crate::cache::{BlockCache, FileId};
use crate::coding::{DecodeError, Reader};
use crate::fs::{FileSystem, ReadAt};
use crate::index::pace::Pace;
use crate::index::{Postings, Searchable, plan};

/// Most bytes of a table: what a damaged footer can make us allocate is also bounded by the length of the file.
const TABLE_MAX: u64 = 1 << 30;
/// Values that a cursor remembers: 24 bytes each, and their texts.
const TEXTS_MAX: usize = 4096;

/// An index file, open. Shared by threads.
#[derive(Debug)]
pub(crate) struct IndexReader {
    file: Box<dyn ReadAt>,
    path: PathBuf,
    id: FileId,
    cache: Arc<BlockCache>,
    pub(super) table: Table,
    table_at: Range<u64>,
}

impl Drop for IndexReader {
    fn drop(&mut self) {
        self.cache.forget(self.id);
    }
}

impl IndexReader {
    /// Opens an index file: reads its head, its end and its table.
    ///
    /// # Errors
    /// The system's; [`StorageError::Corrupted`] when one of these is damaged or of an unknown version.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        path: PathBuf,
        cache: Arc<BlockCache>,
    ) -> Result<Self, StorageError> {
        let file = fs.open_at(&path).map_err(|source| StorageError::Io {
            what: "opening the index",
            path: path.clone(),
            source,
        })?;
        let (table, table_at) = read_frame(&*file, &path)?;
        let id = cache.file_id();
        Ok(Self { file, path, id, cache, table, table_at })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file.
    #[cfg(test)]
    pub(crate) fn size_bytes(&self) -> u64 {
        self.file.len()
    }

    /// Bytes of memory, without the cache.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.table.memory()
    }

    /// Bytes of the parts of the file, for operators.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> String {
        let sections = [Section::Chunks, Section::Postings, Section::Values, Section::Series];
        let parts = sections.map(|section| {
            let directory = self.table.directory(section);
            let bytes = directory.end() - directory.start();
            format!("{} {bytes} bytes in {} pages", section.name(), directory.pages())
        });
        format!("{}, table {} bytes", parts.join(", "), self.table_at.end - self.table_at.start)
    }

    /// Number of series.
    pub(crate) fn series(&self) -> u32 {
        self.table.series
    }

    /// Number of label pairs.
    pub(crate) fn pairs(&self) -> u32 {
        self.table.pairs()
    }

    /// Numbers, ascending, of the series that all `matchers` accept: in order of labels.
    ///
    /// # Errors
    /// The system's, and damage.
    pub(crate) fn select(&self, matchers: &[model::matcher::Matcher]) -> Result<Vec<u32>, StorageError> {
        self.select_at(&Pace::free(), matchers)
    }

    /// As [`IndexReader::select`], unless `pace` says to end.
    ///
    /// # Errors
    /// The system's, and damage; [`StorageError::Cancelled`].
    pub(crate) fn select_at(
        &self,
        pace: &Pace<'_>,
        matchers: &[model::matcher::Matcher],
    ) -> Result<Vec<u32>, StorageError> {
        plan::select(self, matchers, pace)
    }

    /// The labels of a series.
    ///
    /// # Errors
    /// The system's, and damage.
    #[cfg(test)]
    pub(crate) fn labels(&self, series: u32) -> Result<Labels, StorageError> {
        SeriesCursor::default().labels(self, series)
    }

    /// The labels of several series; ascending numbers cost the least.
    ///
    /// # Errors
    /// The system's, and damage.
    pub(crate) fn labels_of(&self, series: &[u32]) -> Result<Vec<Labels>, StorageError> {
        let mut cursor = SeriesCursor::new();
        series.iter().map(|series| cursor.labels(self, *series)).collect()
    }

    /// Into `chunks` the chunk list of a series as the writer got it.
    ///
    /// # Errors
    /// The system's, and damage.
    pub(crate) fn chunks(&self, series: u32, chunks: &mut Vec<u8>) -> Result<(), StorageError> {
        chunks.clear();
        let mut walk = Walk::default();
        walk.to(self, Section::Chunks, series, |reader, _| chunk_list(reader, chunks))
    }

    /// All label names, sorted.
    pub(crate) fn label_names(&self) -> Vec<String> {
        self.table.names.iter().map(|name| name.name.to_string()).collect()
    }

    /// All values of a label, sorted.
    ///
    /// # Errors
    /// The system's, and damage.
    pub(crate) fn label_values(&self, name: &str) -> Result<Vec<String>, StorageError> {
        let Some(name) = self.table.name(name) else { return Ok(Vec::new()) };
        let mut values = Vec::new();
        self.each_value(name, "", |_, value, _| {
            values.push(value.to_owned());
            Ok(())
        })?;
        Ok(values)
    }

    /// Names of the labels that `series` (ascending) have, sorted.
    ///
    /// # Errors
    /// The system's, and damage.
    pub(crate) fn label_names_of(&self, series: &[u32]) -> Result<Vec<String>, StorageError> {
        let mut seen = vec![false; self.table.names.len()];
        let mut left = seen.len();
        let mut cursor = SeriesCursor::new();
        for series in series {
            for pair in cursor.pairs(self, *series)? {
                let name = self.name_of(*pair, *series)?;
                if let Some(seen) = seen.get_mut(name).filter(|seen| !**seen) {
                    *seen = true;
                    left -= 1;
                }
            }
            if left == 0 {
                break;
            }
        }
        let seen = self.table.names.iter().zip(seen).filter(|(_, seen)| *seen);
        Ok(seen.map(|(name, _)| name.name.to_string()).collect())
    }

    /// Values of label `name` on `series` (ascending), sorted.
    ///
    /// # Errors
    /// The system's, and damage.
    pub(crate) fn label_values_of(&self, name: &str, series: &[u32]) -> Result<Vec<String>, StorageError> {
        let Some(name) = self.table.name(name) else { return Ok(Vec::new()) };
        if series.len() as u64 >= u64::from(self.series()) {
            let all = self.table.names.get(name).map(|name| name.name.to_string()).unwrap_or_default();
            return self.label_values(&all);
        }
        let mut cursor = SeriesCursor::new();
        let mut pairs = Vec::new();
        for series in series {
            if let Some(pair) = self.pair_of(&mut cursor, *series, name)?
                && pairs.last() != Some(&pair)
            {
                pairs.push(pair);
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let mut walk = Walk::default();
        let mut values = ValueText::default();
        let texts = pairs.into_iter().map(|pair| {
            walk.to(self, Section::Values, pair, |reader, first| values.next(reader, first).map(drop))?;
            values.text().map(str::to_owned).map_err(|error| self.damage(Section::Values, pair, error))
        });
        texts.collect()
    }

    /// Reads every byte, past the cache, and adds to `damage` all that is wrong.
    pub(crate) fn verify(&self, damage: &mut Vec<Damage>) {
        super::verify::verify(self, damage);
    }

    /// Checks head, end and table once more.
    pub(super) fn check_frame(&self) -> Result<(), StorageError> {
        read_frame(&*self.file, &self.path).map(drop)
    }

    /// The plain bytes of a page.
    pub(super) fn page(&self, section: Section, page: usize) -> Result<Arc<Vec<u8>>, StorageError> {
        let Some(bytes) = self.table.directory(section).bytes_of(page) else {
            return Err(self.outside(section));
        };
        self.cache.get_or_load(self.id, bytes.start, || self.page_uncached(section, bytes.clone()))
    }

    /// As [`IndexReader::page`], from the file in any case.
    pub(super) fn page_uncached(&self, section: Section, bytes: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let start = bytes.start;
        let stored = read(&*self.file, &self.path, bytes)?;
        decode_page(&stored)
            .map_err(|error| corrupted(&self.path, start, format!("page of {}: {error}", section.name())))
    }

    /// Something refers to what is not there.
    fn outside(&self, section: Section) -> StorageError {
        let what = format!("reference to {} that are not there", section.name());
        corrupted(&self.path, self.table_at.start, what)
    }

    /// Damage in the page that holds `item`.
    pub(super) fn damage(&self, section: Section, item: u32, error: DecodeError) -> StorageError {
        let directory = self.table.directory(section);
        let page = directory.page_of(item.into()).and_then(|page| directory.bytes_of(page));
        let offset = page.map_or(self.table_at.start, |bytes| bytes.start);
        corrupted(&self.path, offset, format!("{} {item}: {error}", section.name()))
    }

    /// The place of a pair's name, for a pair named by `series`.
    pub(super) fn name_of(&self, pair: u32, series: u32) -> Result<usize, StorageError> {
        let unknown = DecodeError::Inconsistent("number of a label pair");
        self.table.name_of(pair).ok_or_else(|| self.damage(Section::Series, series, unknown))
    }

    /// The value of a pair.
    pub(super) fn value_of(&self, pair: u32) -> Result<String, StorageError> {
        let mut text = ValueText::default();
        let walked = Walk::default()
            .to(self, Section::Values, pair, |reader, first| text.next(reader, first).map(drop));
        walked?;
        text.into_text().map_err(|error| self.damage(Section::Values, pair, error))
    }

    /// Calls `each` with the values of a name that begin with `prefix`, in order.
    pub(super) fn each_value(
        &self,
        name: usize,
        prefix: &str,
        mut each: impl FnMut(u32, &str, &PostingsRef) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let Some(entry) = self.table.names.get(name) else { return Ok(()) };
        let pairs = entry.pairs();
        let directory = self.table.directory(Section::Values);
        let mut at = self.seek_value(pairs.clone(), prefix.as_bytes())?;
        let mut text = ValueText::default();
        while at < pairs.end {
            let Some(number) = directory.page_of(at.into()) else {
                return Err(self.outside(Section::Values));
            };
            let items = directory.items_of(number).unwrap_or_default();
            let page = self.page(Section::Values, number)?;
            let bad = |error| self.damage(Section::Values, at, error);
            let page = Grouped::parse(&page, VALUES_GROUP).map_err(bad)?;
            if page.count() as u64 != items.end - items.start {
                return Err(bad(DecodeError::Inconsistent("number of items in a page")));
            }
            let inside = usize::try_from(u64::from(at) - items.start).unwrap_or(usize::MAX);
            let start = u32::try_from(items.start).unwrap_or(u32::MAX);
            let mut pair = pair_of_group(start, inside / VALUES_GROUP);
            for group in inside / VALUES_GROUP..page.groups() {
                let mut reader = Reader::new(page.group(group).map_err(bad)?);
                let mut first = true;
                while !reader.is_empty() && pair < pairs.end {
                    let found = text.next(&mut reader, first).map_err(bad)?;
                    first = false;
                    if pair >= at {
                        let value = text.text().map_err(bad)?;
                        if value.starts_with(prefix) {
                            each(pair, value, &found)?;
                        } else if value > prefix {
                            return Ok(());
                        }
                    }
                    pair += 1;
                }
                if pair >= pairs.end {
                    return Ok(());
                }
                let done = pair - pair_of_group(start, group);
                if done as usize != VALUES_GROUP.min(page.count() - group * VALUES_GROUP) {
                    return Err(bad(DecodeError::Inconsistent("number of items in a group")));
                }
            }
            at = u32::try_from(items.end).unwrap_or(u32::MAX);
        }
        Ok(())
    }

    /// A pair at or before the first of `pairs` (all of one name) whose value is not less than `value`, less than a group
    /// before it.
    fn seek_value(&self, pairs: Range<u32>, value: &[u8]) -> Result<u32, StorageError> {
        if value.is_empty() {
            return Ok(pairs.start);
        }
        let directory = self.table.directory(Section::Values);
        let (Some(low), Some(high)) =
            (directory.page_of(pairs.start.into()), directory.page_of(u64::from(pairs.end) - 1))
        else {
            return Err(self.outside(Section::Values));
        };
        // The first page may begin with other names; of the others, the last whose separator is not beyond.
        let mut number = low;
        let (mut from, mut to) = (low + 1, high + 1);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.table.separators.get(middle) <= value {
                number = middle;
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        let items = directory.items_of(number).unwrap_or_default();
        let start = u32::try_from(items.start).unwrap_or(u32::MAX);
        let page = self.page(Section::Values, number)?;
        let bad = |error| self.damage(Section::Values, start, error);
        let page = Grouped::parse(&page, VALUES_GROUP).map_err(bad)?;
        // Groups that begin within the name.
        let inside = |pair: u32| pair.saturating_sub(start) as usize;
        let first = inside(pairs.start).div_ceil(VALUES_GROUP);
        let (mut from, mut to) = (first, page.groups().min(inside(pairs.end).div_ceil(VALUES_GROUP)));
        while from < to {
            let middle = from + (to - from) / 2;
            let mut text = ValueText::default();
            text.next(&mut Reader::new(page.group(middle).map_err(bad)?), true).map_err(bad)?;
            if text.bytes.as_slice() <= value {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        Ok(pair_of_group(start, from.saturating_sub(1)).max(pairs.start))
    }

    /// The pair of a name with this value.
    pub(super) fn find_pair(
        &self,
        name: usize,
        value: &str,
    ) -> Result<Option<(u32, PostingsRef)>, StorageError> {
        let Some(entry) = self.table.names.get(name) else { return Ok(None) };
        let pairs = entry.pairs();
        let start = self.seek_value(pairs.clone(), value.as_bytes())?;
        let mut walk = Walk::default();
        let mut text = ValueText::default();
        // The value is in the group that was found, or there is none.
        for pair in (start..pairs.end).take(VALUES_GROUP) {
            let mut found = None;
            walk.to(self, Section::Values, pair, |reader, first| {
                found = Some(text.next(reader, first)?);
                Ok(())
            })?;
            match text.bytes.as_slice().cmp(value.as_bytes()) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(found.map(|found| (pair, found))),
                std::cmp::Ordering::Greater => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The postings that `found` tells of.
    pub(super) fn postings_at(&self, found: &PostingsRef) -> Result<Postings, StorageError> {
        self.postings_from(found, |page| self.page(Section::Postings, page))
    }

    /// As [`IndexReader::postings_at`], with pages of postings from `page`.
    pub(super) fn postings_from(
        &self,
        found: &PostingsRef,
        page: impl FnOnce(usize) -> Result<Arc<Vec<u8>>, StorageError>,
    ) -> Result<Postings, StorageError> {
        let Place::Section { offset, len, .. } = found.place else {
            let postings = found.postings(&[], self.series());
            return postings
                .map_err(|error| corrupted(&self.path, self.table_at.start, format!("postings: {error}")));
        };
        let directory = self.table.directory(Section::Postings);
        let place = directory.page_of(offset).and_then(|number| {
            let items = directory.items_of(number)?;
            let start = usize::try_from(offset - items.start).ok()?;
            let end = start.checked_add(usize::try_from(len).ok()?)?;
            Some((number, start..end, directory.bytes_of(number)?.start))
        });
        let Some((number, range, at)) = place else { return Err(self.outside(Section::Postings)) };
        let page = page(number)?;
        let Some(bytes) = page.get(range) else { return Err(self.outside(Section::Postings)) };
        found
            .postings(bytes, self.series())
            .map_err(|error| corrupted(&self.path, at, format!("postings at {offset}: {error}")))
    }
}

/// Head, end and table of an index file; and where the table is.
fn read_frame(file: &dyn ReadAt, path: &Path) -> Result<(Table, Range<u64>), StorageError> {
    let damaged = |offset, what: &str| corrupted(path, offset, what.to_owned());
    let len = file.len();
    if len < (HEADER_LEN + FOOTER_LEN) as u64 {
        return Err(damaged(0, "shorter than an empty index"));
    }
    let header = read(file, path, 0..HEADER_LEN as u64)?;
    let mut reader = Reader::new(&header);
    let magic = reader.bytes(4).unwrap_or_default();
    if magic != MAGIC {
        return Err(damaged(0, "not an index"));
    }
    let version = reader.u16_le().unwrap_or_default();
    if version != VERSION {
        let what = format!("version {version} of the format is not known, only {VERSION}");
        return Err(corrupted(path, 4, what));
    }
    let footer_at = len - FOOTER_LEN as u64;
    let footer = read(file, path, footer_at..len)?;
    let mut reader = Reader::new(&footer);
    let mut number = || reader.u64_le().unwrap_or_default();
    let (offset, table_len) = (number(), number());
    let crc = reader.u32_le().unwrap_or_default();
    let covered = [&header[..], footer.get(..16).unwrap_or_default()].concat();
    if reader.bytes(4).unwrap_or_default() != MAGIC {
        return Err(damaged(footer_at, "the end of the file is not that of an index"));
    }
    if crc32c::crc32c(&covered) != crc {
        return Err(damaged(footer_at, "checksum of head and end"));
    }
    if table_len > TABLE_MAX || offset.checked_add(table_len) != Some(footer_at) {
        return Err(damaged(footer_at, "place of the table"));
    }
    let table_at = offset..footer_at;
    let at = |error: DecodeError| corrupted(path, offset, format!("table: {error}"));
    let bytes = read(file, path, table_at.clone())?;
    let table = Table::decode(&decode_page(&bytes).map_err(at)?).map_err(at)?;
    if table.directory(Section::Series).end() != offset {
        return Err(at(DecodeError::Inconsistent("length of the sections")));
    }
    Ok((table, table_at))
}

fn corrupted(path: &Path, offset: u64, what: String) -> StorageError {
    StorageError::Corrupted { file: path.to_owned(), offset, what }
}

fn read(file: &dyn ReadAt, path: &Path, bytes: Range<u64>) -> Result<Vec<u8>, StorageError> {
    let cut_off = || corrupted(path, bytes.start, "the file ends before".to_owned());
    // The length is checked first, so that no damaged number makes us allocate more than there is.
    if bytes.end > file.len() || bytes.start > bytes.end {
        return Err(cut_off());
    }
    let len = usize::try_from(bytes.end - bytes.start).map_err(|_| cut_off())?;
    let mut buffer = vec![0; len];
    file.read_exact_at(&mut buffer, bytes.start).map_err(|source| {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return cut_off();
        }
        StorageError::Io { what: "reading the index", path: path.to_owned(), source }
    })?;
    Ok(buffer)
}

/// The first pair of a group of the page that begins with `start`.
fn pair_of_group(start: u32, group: usize) -> u32 {
    start.saturating_add(u32::try_from(group * VALUES_GROUP).unwrap_or(u32::MAX))
}

/// Reads one chunk list.
pub(super) fn chunk_list(reader: &mut Reader<'_>, into: &mut Vec<u8>) -> Result<(), DecodeError> {
    let len = reader.count(1)?;
    into.clear();
    into.extend_from_slice(reader.bytes(len)?);
    Ok(())
}

/// Front-coded values, one after the other.
#[derive(Debug, Default)]
pub(super) struct ValueText {
    pub(super) bytes: Vec<u8>,
    offset: u64,
}

impl ValueText {
    /// Reads the next value and where its postings are.
    pub(super) fn next(&mut self, reader: &mut Reader<'_>, first: bool) -> Result<PostingsRef, DecodeError> {
        let head = reader.uvarint()?;
        if first {
            self.offset = head;
            self.bytes.clear();
        } else {
            let shared = usize::try_from(head).ok().filter(|shared| *shared <= self.bytes.len());
            self.bytes.truncate(shared.ok_or(DecodeError::Inconsistent("shared part of a value"))?);
        }
        let len = reader.count(1)?;
        self.bytes.extend_from_slice(reader.bytes(len)?);
        PostingsRef::decode(reader, &mut self.offset)
    }

    pub(super) fn text(&self) -> Result<&str, DecodeError> {
        std::str::from_utf8(&self.bytes).map_err(|_| DecodeError::Utf8)
    }

    fn into_text(self) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes).map_err(|_| DecodeError::Utf8)
    }
}

/// A place within grouped pages: going on from item to item costs one item, anything else at most a group.
#[derive(Debug, Default)]
pub(super) struct Walk {
    page: Option<(usize, Range<u64>, Arc<Vec<u8>>)>,
    group: usize,
    /// The item after the one decoded last, within its group; 0: none is.
    next: usize,
    /// Where it begins, in the bytes of the group.
    offset: usize,
}

impl Walk {
    /// Decodes items up to `item`: `decode` is called for each of its group that was not decoded yet, and told which one
    /// begins the group. Called again for the same item, it decodes nothing.
    pub(super) fn to(
        &mut self,
        reader: &IndexReader,
        section: Section,
        item: u32,
        mut decode: impl FnMut(&mut Reader<'_>, bool) -> Result<(), DecodeError>,
    ) -> Result<(), StorageError> {
        let size = match section {
            Section::Values => VALUES_GROUP,
            Section::Series => SERIES_GROUP,
            Section::Chunks | Section::Postings => CHUNKS_GROUP,
        };
        let wanted = u64::from(item);
        if !self.page.as_ref().is_some_and(|(_, items, _)| items.contains(&wanted)) {
            let directory = reader.table.directory(section);
            let number = directory.page_of(wanted).ok_or_else(|| reader.outside(section))?;
            let items = directory.items_of(number).ok_or_else(|| reader.outside(section))?;
            let page = reader.page(section, number)?;
            self.page = Some((number, items, page));
            self.next = 0;
        }
        let Some((_, items, page)) = &self.page else { return Err(reader.outside(section)) };
        let bad = |error| reader.damage(section, item, error);
        let place = usize::try_from(wanted - items.start).unwrap_or(usize::MAX);
        let (group, inside) = (place / size, place % size);
        if self.group != group || self.next > inside + 1 {
            self.next = 0;
        }
        if self.next == 0 {
            (self.group, self.offset) = (group, 0);
        }
        if self.next == inside + 1 {
            return Ok(());
        }
        let grouped = Grouped::parse(page, size).map_err(bad)?;
        if grouped.count() as u64 != items.end - items.start {
            return Err(bad(DecodeError::Inconsistent("number of items in a page")));
        }
        let bytes = grouped.group(group).map_err(bad)?;
        let mut items = Reader::new(bytes.get(self.offset..).unwrap_or_default());
        let mut at = std::mem::take(&mut self.next);
        while at <= inside {
            decode(&mut items, at == 0).map_err(bad)?;
            at += 1;
        }
        self.next = at;
        self.offset = bytes.len() - items.remaining();
        Ok(())
    }
}

/// Looks at the series of one index, best in ascending order: what neighbours share is decoded once.
///
/// It belongs to one reader: another one's series look as if they were damaged.
#[derive(Debug, Default)]
pub(crate) struct SeriesCursor {
    series: Walk,
    pairs: Vec<u32>,
    /// Values seen lately, by number of the pair; none when the cursor is for one series.
    texts: Vec<(u32, Arc<str>)>,
    /// Names and values of the series that is being put together.
    labels: Vec<(usize, Arc<str>)>,
    remembers: bool,
}

impl SeriesCursor {
    /// A cursor for many series.
    pub(crate) fn new() -> Self {
        Self { remembers: true, ..Self::default() }
    }

    /// Numbers of the label pairs of a series, ascending.
    pub(super) fn pairs(&mut self, reader: &IndexReader, series: u32) -> Result<&[u32], StorageError> {
        let pairs = &mut self.pairs;
        self.series
            .to(reader, Section::Series, series, |items, first| series::decode(items, first, pairs))?;
        Ok(&self.pairs)
    }

    /// The labels of a series.
    ///
    /// # Errors
    /// The system's, and damage.
    pub(crate) fn labels(&mut self, reader: &IndexReader, series: u32) -> Result<Labels, StorageError> {
        self.pairs(reader, series)?;
        if self.remembers && self.texts.is_empty() {
            let slots = (reader.pairs() as usize).next_power_of_two().min(TEXTS_MAX);
            self.texts.resize(slots, (u32::MAX, Arc::from("")));
        }
        self.labels.clear();
        for pair in &self.pairs {
            let name = reader.name_of(*pair, series)?;
            if self.labels.last().is_some_and(|last| last.0 >= name) {
                let twice = DecodeError::Inconsistent("labels of a series");
                return Err(reader.damage(Section::Series, series, twice));
            }
            let place = *pair as usize % self.texts.len().max(1);
            let value = match self.texts.get_mut(place) {
                Some((known, value)) if *known == *pair => Arc::clone(value),
                slot => {
                    let value: Arc<str> = reader.value_of(*pair)?.into();
                    if let Some(slot) = slot {
                        *slot = (*pair, Arc::clone(&value));
                    }
                    value
                }
            };
            if value.is_empty() {
                let empty = DecodeError::Inconsistent("value of a label");
                return Err(reader.damage(Section::Values, *pair, empty));
            }
            self.labels.push((name, value));
        }
        let name_of = |name: usize| reader.table.names.get(name).map_or("", |name| &*name.name);
        let labels = Labels::from_sorted(self.labels.iter().map(|(name, value)| (name_of(*name), &**value)));
        self.labels.clear();
        Ok(labels)
    }
}
