//! Blocks: the samples of a span of time, written once.
//!
//! A block is a directory named by its ULID: `meta.json` says what it is, `index` which series it has, `chunks/` holds their
//! samples, `tombstones` what was deleted from it since. It appears at once, by a rename, when all of it is on the disk; from
//! then on only the tombstones change. The layout is in `docs/formats/block.md`.
//!
//! * [`BlockWriter`] takes series in order of labels and makes one.
//! * [`Block`] reads: single series through the cache, or all of them in order ([`BlockScan`]).
//! * [`Block::verify`] reads every byte.
//!
//! Series of a block are numbered in order of their labels. Neighbours (up to 64) are written together as a *batch*: their
//! samples are cut into chunks by spans of time that are the same for all series, so that series which are sampled together
//! have equal columns of times, of which a block keeps one each.
//! Files are read by position and never mapped: a failing disk is an error that names file and offset, not a signal.

pub(crate) mod index;
mod meta;
mod tombstones;

use std::path::{Path, PathBuf};

use model::storage::StorageError;

use crate::fs::FileSystem;

#[allow(unused_imports, reason = "being built")]
pub(crate) use meta::{BlockCompaction, BlockMeta, BlockParent, BlockStats, parse_id};
#[allow(unused_imports, reason = "being built")]
pub(crate) use tombstones::Tombstones;

/// What `meta.json` calls this format.
pub(crate) const FORMAT: &str = "nilometer-block/1";
/// Its number.
pub(crate) const VERSION: u32 = 1;
/// Name of the file that says what a block is.
pub(crate) const META_FILE: &str = "meta.json";
/// Name of the file of series.
pub(crate) const INDEX_FILE: &str = "index";
/// Name of the file of deletions.
pub(crate) const TOMBSTONES_FILE: &str = "tombstones";
/// Name of the directory of samples.
pub(crate) const CHUNKS_DIR: &str = "chunks";
/// Behind the name of a block that is not whole yet.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The file.
    pub(crate) file: PathBuf,
    /// Where in it.
    pub(crate) offset: u64,
    /// What.
    pub(crate) what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: damaged at byte {}: {}", self.file.display(), self.offset, self.what)
    }
}

/// Makes a file of these bytes and syncs it, but not its name.
fn create_synced(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let io = |source| StorageError::Io { what: "writing", path: path.to_owned(), source };
    let mut file = fs.create(path).map_err(io)?;
    file.append(bytes).map_err(io)?;
    file.sync().map_err(io)
}

#[cfg(test)]
mod tests {
    /// The bytes of the first block of a document that is marked `hex`; what follows `;` on a line is comment.
    pub(super) fn example(document: &str) -> Vec<u8> {
        let block = document.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let digits: String = block.lines().filter_map(|line| line.split(';').next()).collect();
        let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }
}
