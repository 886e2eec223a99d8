//! The index file of a block: its series in order of labels, what their chunks are, and the inverted index over them.
//!
//! Written once by [`IndexWriter`], never changed, read by place through the cache of blocks by [`IndexReader`]. The format
//! is in `docs/formats/index.md`. In short: label pairs are numbered in order of name and value, series in order of labels.
//! Values (front-coded, each with the place of its postings), series (lists of pairs, coded against their predecessor) and
//! chunk lists are items of small pages with a checksum each; a table of pages and names, read when the file is opened, is
//! all that stays in memory: some 16 bytes per page of some hundred items, and a few more per page of values.
//!
//! Every page is checked before it is used, and everything in it is bounds-checked after that: damage is an error with file
//! and offset, costs only what needs the page, and never a wrong answer.

mod page;
mod postings;
mod reader;
mod select;
mod series;
mod table;
mod verify;
mod writer;

pub(crate) use reader::{IndexReader, SeriesCursor};
pub(crate) use writer::IndexWriter;

/// Begins the file; the last bytes of the file are the same.
const MAGIC: [u8; 4] = *b"NILI";
/// The only version there is.
const VERSION: u16 = 1;
/// Magic, version, flags.
const HEADER_LEN: usize = 8;
/// Offset and length of the table, checksum, magic.
const FOOTER_LEN: usize = 24;

/// Values in a group of a page: what a look-up decodes at most.
const VALUES_GROUP: usize = 16;
/// Series in a group of a page.
const SERIES_GROUP: usize = 32;
/// Chunk lists in a group of a page.
const CHUNKS_GROUP: usize = 16;

/// Most values, series or chunk lists of a page.
const PAGE_ITEMS: usize = 2048;

/// What verification calls the parts of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Chunks,
    Postings,
    Values,
    Series,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Self::Chunks => "chunk lists",
            Self::Postings => "postings",
            Self::Values => "label values",
            Self::Series => "series",
        }
    }
}

#[cfg(test)]
mod tests;
