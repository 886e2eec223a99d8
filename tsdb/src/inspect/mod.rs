//! Looking into a data directory from outside: what `nilometer tsdb …` is made of.
//!
//! Nothing here takes the lock or changes a file, so all of it works on the directory of a running server and on a damaged
//! one; only [`import`] adds blocks, each of which appears at once and whole. A server that is at work may remove files while
//! they are being looked at; what that means is said at each function.

mod closed_block;
mod facts;
mod frames;
pub mod import;
mod read_only;
mod verify;

use std::io;
use std::path::{Path, PathBuf};

use model::storage::{BlockInfo, BlockParent, StorageError};

use crate::block::{BlockMeta, parse_id};
use crate::fs::FileSystem;
use crate::wal::io_error;

pub use facts::{ChunkFacts, SeriesFacts, scan_block};
pub use read_only::{ReadOnly, open};
pub use verify::{Report, total_bytes, verify};

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: damaged at byte {}: {}", self.file.display(), self.offset, self.what)
    }
}

impl From<crate::block::Damage> for Damage {
    fn from(damage: crate::block::Damage) -> Self {
        Self { file: damage.file, offset: damage.offset, what: damage.what }
    }
}

/// A block of a directory, or why it cannot be read.
#[derive(Debug)]
pub struct BlockEntry {
    /// Its directory.
    pub dir: PathBuf,
    /// What it says of itself.
    pub info: Result<BlockInfo, StorageError>,
}

/// The blocks in a data directory, oldest first, those that cannot be read at the end. Blocks that a server removes
/// meanwhile may be left out.
///
/// # Errors
/// When the directory cannot be listed.
pub fn blocks(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<BlockEntry>, StorageError> {
    let names = fs.list_dirs(dir).map_err(io_error("list data directory", dir))?;
    let mut entries = Vec::new();
    for name in names.iter().filter(|name| parse_id(name).is_some()) {
        let dir = dir.join(name);
        let info = BlockMeta::read(fs, &dir).and_then(|meta| Ok(block_info(&meta, size(fs, &dir)?)));
        match info {
            Err(StorageError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && fs.list(&dir).is_err() => {}
            info => entries.push(BlockEntry { dir, info }),
        }
    }
    entries.sort_by_key(|entry| match &entry.info {
        Ok(info) => (false, info.min_time, info.max_time),
        Err(_) => (true, 0, 0),
    });
    Ok(entries)
}

/// Bytes of all files of a block.
fn size(fs: &dyn FileSystem, dir: &Path) -> Result<u64, StorageError> {
    let mut bytes = 0;
    let inner = fs.list_dirs(dir).map_err(io_error("list block", dir))?;
    let dirs = inner.iter().map(|name| dir.join(name)).chain([dir.to_owned()]);
    for dir in dirs {
        for name in fs.list(&dir).map_err(io_error("list block", &dir))? {
            let path = dir.join(name);
            bytes += fs.len(&path).map_err(io_error("measure", &path))?;
        }
    }
    Ok(bytes)
}

/// A block's meta file for people.
pub(crate) fn block_info(meta: &BlockMeta, size_bytes: u64) -> BlockInfo {
    let parents = meta.compaction.parents.iter().map(|parent| BlockParent {
        id: parent.ulid.to_string(),
        min_time: parent.min_time,
        max_time: parent.max_time,
    });
    BlockInfo {
        id: meta.ulid.to_string(),
        min_time: meta.min_time,
        max_time: meta.max_time,
        samples: meta.stats.num_samples,
        float_samples: meta.stats.num_float_samples,
        histogram_samples: meta.stats.num_histogram_samples,
        series: meta.stats.num_series,
        chunks: meta.stats.num_chunks,
        tombstones: meta.stats.num_tombstones,
        size_bytes,
        level: meta.compaction.level,
        sources: meta.compaction.sources.iter().map(ToString::to_string).collect(),
        parents: parents.collect(),
    }
}
