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

mod buckets;
mod cut;
mod directory;
mod equal;
mod files;
mod findings;
pub(crate) mod index;
mod meta;
mod reader;
mod scan;
mod time_columns;
mod tombstones;
mod verify;
mod writer;

use std::path::{Path, PathBuf};

use model::storage::StorageError;

use crate::chunk::Effort;
use crate::frame::Compression;
use crate::fs::FileSystem;

pub(crate) use files::{
    HEAD_LEN as CHUNK_HEAD_LEN, check_head as check_chunk_head, name as chunk_file_name,
    number as chunk_file_number,
};
pub(crate) use findings::Findings;
pub(crate) use meta::{BlockCompaction, BlockMeta, BlockParent, BlockStats, parse_id};
pub(crate) use reader::Block;
pub(crate) use scan::BlockScan;
pub(crate) use tombstones::Tombstones;
pub(crate) use writer::{BlockWriter, Made};

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

/// How a block is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockOptions {
    /// Float samples of a chunk, about: the most series are sampled often enough.
    pub(crate) chunk_samples: usize,
    /// Histograms of a chunk.
    pub(crate) chunk_histograms: usize,
    /// Series that are written together, at most 64.
    pub(crate) batch_series: usize,
    /// Buckets of a classic histogram that are counted against each other, so many in a chain. 1: none.
    pub(crate) bucket_chain: usize,
    /// Of chunks of floats.
    pub(crate) effort: Effort,
    /// Of all frames.
    pub(crate) compression: Compression,
    /// Bytes of a chunk file.
    pub(crate) file_bytes_max: u64,
}

impl BlockOptions {
    /// What was measured to be good. Blocks straight from the head are written often and soon compacted; later ones
    /// are read for months.
    pub(crate) fn for_level(level: u32) -> Self {
        let first = level <= 1;
        Self {
            chunk_samples: if first { 480 } else { 1920 },
            chunk_histograms: 120,
            batch_series: 64,
            bucket_chain: if first { 4 } else { 5 },
            effort: if first { Effort::Quick } else { Effort::Small },
            compression: Compression::Zstd(if first { 1 } else { 3 }),
            file_bytes_max: 512 << 20,
        }
    }

    fn limits(&self) -> cut::Limits {
        cut::Limits {
            // What readers take from one chunk is bounded, see `chunk::CHUNK_SAMPLES_LIMIT`.
            floats: self.chunk_samples.clamp(1, 1 << 15),
            histograms: self.chunk_histograms.clamp(1, 1 << 15),
            frame_chunks: self.batch_series * 3 / 2,
        }
    }
}

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
mod measure;
#[cfg(test)]
mod tests;
