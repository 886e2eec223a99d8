//! All series of a block in order of labels, for compaction.
//!
//! Each frame of samples is read and unpacked once; memory holds the frames of one batch and some columns of times, so it is
//! bounded by the batch. Nothing goes through the cache: what queries use stays there.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::Labels;
use model::sample::Timestamp;
use model::storage::StorageError;

use super::Tombstones;
use super::buckets::decode_chunk;
use super::directory::{ChunkEntry, Directory, FrameRef, Place, SampleFrame};
use super::reader::{Block, ReadError, bury, check_batch, column_frame, directory_error, usize_of};
use super::time_columns::decode_column;
use crate::chunk::{self, ChunkInfo};
use crate::columns::Columns;
use crate::frame::chunk_of;

/// Times of columns that are kept for the next series: 8 MiB.
const COLUMN_TIMES_MAX: usize = 1 << 20;

/// See the module. It sees the tombstones as of its beginning.
#[derive(Debug)]
pub(crate) struct BlockScan<'a> {
    block: &'a Block,
    tombstones: Arc<Tombstones>,
    next: u32,
    cursor: super::index::SeriesCursor,
    blob: Vec<u8>,
    batch: Batch,
}

/// What is unpacked of the current batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Where the directory is, and its bytes.
    at: Option<FrameRef>,
    directory: Arc<Vec<u8>>,
    first: u32,
    frames: HashMap<FrameRef, Vec<u8>>,
    columns: HashMap<(FrameRef, usize), Vec<Timestamp>>,
    column_times: usize,
    /// Of the chunks read since it was emptied, where somebody wants to know.
    chunks: Option<Vec<ScannedChunk>>,
}

/// A chunk as a scan passes it, for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScannedChunk {
    /// How it is encoded, for people.
    pub(crate) kind: &'static str,
    pub(crate) info: ChunkInfo,
    /// Unpacked, without shared times.
    pub(crate) bytes: usize,
}

impl<'a> BlockScan<'a> {
    pub(super) fn new(block: &'a Block) -> Self {
        Self {
            block,
            tombstones: block.tombstones(),
            next: 0,
            cursor: super::index::SeriesCursor::new(),
            blob: Vec::new(),
            batch: Batch::default(),
        }
    }

    /// The same scan, but keeping what [`BlockScan::chunks`] tells.
    pub(crate) fn with_chunks(mut self) -> Self {
        self.batch.chunks = Some(Vec::new());
        self
    }

    /// The chunks of the series that was read last; empty without [`BlockScan::with_chunks`].
    pub(crate) fn chunks(&self) -> &[ScannedChunk] {
        self.batch.chunks.as_deref().unwrap_or_default()
    }

    /// The next series: replaces `labels` and `columns`, which may be empty when all samples are deleted. Whether there was
    /// one.
    ///
    /// # Errors
    /// As [`Block::read`]; the series counts as read, and the next call goes on behind it.
    pub(crate) fn next(&mut self, labels: &mut Labels, columns: &mut Columns) -> Result<bool, StorageError> {
        if self.next >= self.block.index().series() {
            return Ok(false);
        }
        let series = self.next;
        self.next += 1;
        columns.clear();
        if let Some(chunks) = &mut self.batch.chunks {
            chunks.clear();
        }
        *labels = self.cursor.labels(self.block.index(), series)?;
        let place = self.block.place(series, &mut self.blob)?;
        self.batch.read(self.block, series, place, columns)?;
        let dead = self.tombstones.of(series);
        if !dead.is_empty() {
            bury(columns, dead);
        }
        Ok(true)
    }
}

impl Batch {
    /// Appends all samples of a series; its batch becomes the current one.
    pub(super) fn read(
        &mut self,
        block: &Block,
        series: u32,
        place: Place,
        columns: &mut Columns,
    ) -> Result<(), StorageError> {
        let behind = match place {
            Place::First(at) => {
                self.begin(block, series, at)?;
                0
            }
            Place::Behind(behind) => behind,
        };
        if self.first.checked_add(behind) != Some(series) || self.at.is_none() {
            // After an error the batch is not the current one, or the scan of it began in its middle.
            let (at, behind) = block.locate(series)?;
            self.begin(block, series - behind, at)?;
        }
        let Some(at) = self.at else { return Err(block.index_error(series)) };
        let file = block.file(at)?;
        let plain = Arc::clone(&self.directory);
        let directory = Directory::decode(&plain).map_err(|error| directory_error(file, at, error))?;
        check_batch(&directory, series, behind).map_err(|error| directory_error(file, at, error))?;
        directory
            .series(usize_of(behind), |entry, frame| self.chunk(block, &directory, entry, frame, columns))
            .map_err(|error: ReadError| error.at(file, at))
    }

    fn begin(&mut self, block: &Block, first: u32, at: FrameRef) -> Result<(), StorageError> {
        self.at = None;
        self.frames.clear();
        self.directory = Arc::new(block.file(at)?.read(at)?);
        self.first = first;
        self.at = Some(at);
        Ok(())
    }

    fn chunk(
        &mut self,
        block: &Block,
        directory: &Directory<'_>,
        entry: &ChunkEntry,
        frame: &SampleFrame,
        into: &mut Columns,
    ) -> Result<(), ReadError> {
        let column = match entry.column {
            None => None,
            Some(column) => {
                let key = (column_frame(directory, column)?, column.place);
                if !self.columns.contains_key(&key) {
                    let times = chunk_of(frame_of(&mut self.frames, block, key.0)?, key.1)
                        .and_then(decode_column)
                        .map_err(|error| block.chunk_error(key.0, key.1, error))?;
                    if self.column_times + times.len() > COLUMN_TIMES_MAX {
                        self.columns.clear();
                        self.column_times = 0;
                    }
                    self.column_times += times.len();
                    self.columns.insert(key, times);
                }
                self.columns.get(&key).map(Vec::as_slice)
            }
        };
        let plain = frame_of(&mut self.frames, block, frame.at)?;
        let seen = &mut self.chunks;
        chunk_of(plain, entry.at.place)
            .and_then(|chunk| {
                if let Some(chunks) = seen {
                    let (kind, info) = (chunk::kind_name(chunk), chunk::info(chunk)?);
                    chunks.push(ScannedChunk { kind, info, bytes: chunk.len() });
                }
                decode_chunk(plain, entry.at.place, column, into)
            })
            .map_err(|error| block.chunk_error(frame.at, entry.at.place, error))?;
        Ok(())
    }
}

/// A frame of the batch, unpacked when it is needed first.
fn frame_of<'a>(
    frames: &'a mut HashMap<FrameRef, Vec<u8>>,
    block: &Block,
    at: FrameRef,
) -> Result<&'a [u8], StorageError> {
    match frames.entry(at) {
        hashbrown::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
        hashbrown::hash_map::Entry::Vacant(entry) => Ok(entry.insert(block.file(at)?.read(at)?)),
    }
}
