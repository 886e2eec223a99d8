//! Makes blocks of samples from elsewhere.
//!
//! A block appears in the directory at once and whole; a server that is running there finds it by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::labels::Labels;
use model::sample::Timestamp;
use model::storage::{BlockInfo, StorageError};
use ulid::Ulid;

use crate::block::{BlockOptions, BlockWriter, Made};
use crate::columns::Columns;
use crate::fs::FileSystem;
use crate::wal::io_error;

/// A block that is being made. Dropped without [`NewBlock::finish`], nothing of it stays.
#[derive(Debug)]
pub struct NewBlock {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    id: Ulid,
    writer: BlockWriter,
    columns: Columns,
    duplicates: u64,
    /// First and last time.
    range: Option<(Timestamp, Timestamp)>,
}

impl NewBlock {
    /// Begins a block in the data directory `dir`, which is made when it is not there. `now` is the time in milliseconds and
    /// `random` anything that no other block has, for its name.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        now: Timestamp,
        random: u128,
    ) -> Result<Self, StorageError> {
        fs.create_dir_all(dir).map_err(io_error("make data directory", dir))?;
        let id = Ulid::from_parts(u64::try_from(now).unwrap_or(0), random);
        Ok(Self {
            fs: Arc::clone(fs),
            dir: dir.to_owned(),
            id,
            writer: BlockWriter::create(fs, dir, id, BlockOptions::for_level(1))?,
            columns: Columns::default(),
            duplicates: 0,
            range: None,
        })
    }

    /// Adds a series with its samples in any order; of several at one time the first one is kept. Series must come in order
    /// of their labels, each once.
    ///
    /// # Errors
    /// The system's. The block cannot be finished then.
    ///
    /// # Panics
    /// When series do not come in order, or when there are not as many times as values.
    pub fn add(&mut self, labels: &Labels, times: &[Timestamp], values: &[f64]) -> Result<(), StorageError> {
        assert_eq!(times.len(), values.len(), "each sample has a time and a value");
        self.columns.clear();
        self.columns.times.extend_from_slice(times);
        self.columns.values.extend_from_slice(values);
        self.columns.normalize();
        self.duplicates += (times.len() - self.columns.times.len()) as u64;
        if let (Some(first), Some(last)) = (self.columns.times.first(), self.columns.times.last()) {
            let (min, max) = self.range.get_or_insert((*first, *last));
            *min = (*min).min(*first);
            *max = (*max).max(*last);
        }
        self.writer.add(labels, &self.columns)
    }

    /// Number of samples so far whose series had one at their time already: they are left out.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Makes the block appear, durably. `None` when there are no samples: then there is no block.
    ///
    /// # Errors
    /// The system's; then there is no block.
    pub fn finish(self) -> Result<Option<BlockInfo>, StorageError> {
        let Some((min, max)) = self.range else { return Ok(None) };
        let made = Made {
            min_time: min,
            max_time: max.saturating_add(1),
            level: 1,
            sources: vec![self.id],
            parents: Vec::new(),
            hints: Vec::new(),
        };
        let Some(meta) = self.writer.finish(made)? else { return Ok(None) };
        let size = super::size(&*self.fs, &self.dir.join(self.id.to_string()))?;
        Ok(Some(super::block_info(&meta, size)))
    }
}
