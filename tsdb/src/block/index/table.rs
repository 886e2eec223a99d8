//! The table of an index: where its pages are, its label names, and the first value of each page of values.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::ops::Range;

use super::page::Directory;
use super::postings::PostingsRef;
use super::{HEADER_LEN, PAGE_ITEMS, Section};
use crate::coding::{DecodeError, Reader, put_str, put_uvarint};

/// A label name. Its values are the pairs `first..first + values`.
#[derive(Debug)]
pub(super) struct NameEntry {
    pub(super) name: Box<str>,
    pub(super) first: u32,
    pub(super) values: u32,
    /// The series that have the label.
    pub(super) having: PostingsRef,
}

impl NameEntry {
    /// Numbers of its pairs.
    pub(super) fn pairs(&self) -> Range<u32> {
        // Checked when the table was read.
        self.first..self.first + self.values
    }
}

/// Strings one behind the other.
#[derive(Debug, Default)]
pub(super) struct Separators {
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl Separators {
    pub(super) fn push(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
        // Separators are as long as label values at most; their sum stays below the length of the table.
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(place).copied().unwrap_or(start);
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) series: u32,
    /// In order.
    pub(super) names: Vec<NameEntry>,
    sections: [Directory; 4],
    /// Per page of values: more than every value of the page before, and not more than any of the page.
    pub(super) separators: Separators,
}

impl Table {
    /// The pages of a section.
    pub(super) fn directory(&self, section: Section) -> &Directory {
        let [chunks, postings, values, series] = &self.sections;
        match section {
            Section::Chunks => chunks,
            Section::Postings => postings,
            Section::Values => values,
            Section::Series => series,
        }
    }

    /// Number of label pairs.
    pub(super) fn pairs(&self) -> u32 {
        self.names.last().map_or(0, |name| name.pairs().end)
    }

    /// The place of a name in [`Table::names`].
    pub(super) fn name(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|entry| (*entry.name).cmp(name)).ok()
    }

    /// The place of a pair's name in [`Table::names`].
    pub(super) fn name_of(&self, pair: u32) -> Option<usize> {
        let after = self.names.partition_point(|name| name.first <= pair);
        after
            .checked_sub(1)
            .filter(|place| self.names.get(*place).is_some_and(|name| name.pairs().contains(&pair)))
    }

    /// Bytes of memory, in all.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let names: usize = self.names.iter().map(|name| size_of::<NameEntry>() + name.name.len() + 16).sum();
        let pages: usize = self.sections.iter().map(Directory::memory).sum();
        names + pages + self.separators.text.capacity() + self.separators.ends.capacity() * 4
    }

    /// Reads the plain bytes of a table.
    pub(super) fn decode(plain: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(plain);
        let series = reader.uvarint32()?;
        let count = reader.count(4)?;
        let mut names: Vec<NameEntry> = Vec::with_capacity(count);
        let (mut first, mut offset) = (0u32, 0u64);
        for _ in 0..count {
            let name: Box<str> = reader.str()?.into();
            let values = reader.uvarint32()?;
            offset = offset.checked_add(reader.uvarint()?).ok_or(DecodeError::NumberRange)?;
            let having = PostingsRef::decode(&mut reader, &mut offset)?;
            let unordered = names.last().is_some_and(|last| last.name >= name);
            if unordered || values == 0 {
                return Err(DecodeError::Inconsistent("label names"));
            }
            names.push(NameEntry { name, first, values, having });
            first = first.checked_add(values).ok_or(DecodeError::NumberRange)?;
        }
        let mut end = HEADER_LEN as u64;
        let mut section = |reader: &mut Reader<'_>, items_max| {
            let directory = Directory::decode(reader, end, items_max)?;
            end = directory.end();
            Ok::<_, DecodeError>(directory)
        };
        let items = PAGE_ITEMS as u64;
        let sections = [
            section(&mut reader, items)?,
            // Its items are bytes.
            section(&mut reader, u64::MAX)?,
            section(&mut reader, items)?,
            section(&mut reader, items)?,
        ];
        let mut separators = Separators::default();
        let mut last = Vec::new();
        for _ in 0..sections.get(2).map_or(0, Directory::pages) {
            let shared = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
            if shared > last.len() {
                return Err(DecodeError::Inconsistent("first value of a page"));
            }
            last.truncate(shared);
            let len = reader.count(1)?;
            last.extend_from_slice(reader.bytes(len)?);
            if separators.text.len() + last.len() > u32::MAX as usize {
                return Err(DecodeError::NumberRange);
            }
            separators.push(&last);
        }
        let table = Self { series, names, sections, separators };
        let items = |section| table.directory(section).items();
        let fits = items(Section::Chunks) == u64::from(series)
            && items(Section::Series) == u64::from(series)
            && items(Section::Values) == u64::from(table.pairs())
            && reader.is_empty();
        if fits { Ok(table) } else { Err(DecodeError::Inconsistent("counts of the table")) }
    }
}

/// What the writer knows of a name when it writes the table: as in [`NameEntry`], with the postings as they stand in the
/// table, and the place in the section of postings where theirs are.
#[derive(Debug)]
pub(super) struct WrittenName {
    pub(super) name: Box<str>,
    pub(super) values: u32,
    pub(super) having: Vec<u8>,
    pub(super) offset: u64,
}

/// The plain bytes that [`Table::decode`] reads. Names in order; sections in order of the file.
pub(super) fn encode(
    series: u32,
    names: &[WrittenName],
    sections: [&Directory; 4],
    separators: &Separators,
) -> Vec<u8> {
    let mut out = Vec::new();
    put_uvarint(&mut out, u64::from(series));
    put_uvarint(&mut out, names.len() as u64);
    let mut offset = 0;
    for name in names {
        put_str(&mut out, &name.name);
        put_uvarint(&mut out, u64::from(name.values));
        put_uvarint(&mut out, name.offset - offset);
        out.extend_from_slice(&name.having);
        // Where the reader will be.
        offset = name.offset;
        PostingsRef::decode(&mut Reader::new(&name.having), &mut offset).expect("just written");
    }
    for section in sections {
        section.encode(&mut out);
    }
    let mut last: &[u8] = &[];
    for place in 0..separators.len() {
        let text = separators.get(place);
        let shared = last.iter().zip(text).take_while(|(a, b)| a == b).count();
        put_uvarint(&mut out, shared as u64);
        let rest = text.get(shared..).unwrap_or_default();
        put_uvarint(&mut out, rest.len() as u64);
        out.extend_from_slice(rest);
        last = text;
    }
    out
}
