//! All series of a block in order of labels, for compaction.
//!
//! A frame of samples is read and unpacked once for a batch, as a rule. Memory holds frames that the batch uses, its own and
//! those of batches before that it leads to, up to a bound by their bytes, and some columns of times. Nothing goes through the
//! cache: what queries use stays there.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::Labels;
use model::sample::Timestamp;
use model::storage::StorageError;

use super::Tombstones;
use super::directory::{ChunkEntry, Directory, FrameRef, Place, SampleFrame};
use super::reader::{Block, ReadError, bury, check_batch, column_frame, directory_error, usize_of};
use super::time_columns::decode_column;
use crate::chunk::{self, Chains, ChunkInfo};
use crate::columns::Columns;
use crate::frame::chunk_of;

/// Times of columns that are kept for the next series: 8 MiB.
const COLUMN_TIMES_MAX: usize = 1 << 20;
/// Bytes of unpacked frames that are kept within a batch, one more apart. A batch may lead to a frame elsewhere for each chunk.
const FRAMES_BYTES_MAX: usize = 16 << 20;

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
    frames: Frames,
    chains: Chains<FrameRef>,
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

    /// How many series it has not read yet.
    pub(crate) fn left(&self) -> u64 {
        u64::from(self.block.index().series().saturating_sub(self.next))
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
                    let times = chunk_of(self.frames.get(block, key.0)?, key.1)
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
        let plain = self.frames.get(block, frame.at)?;
        let (seen, chains) = (&mut self.chunks, &mut self.chains);
        chunk_of(plain, entry.at.place)
            .and_then(|chunk| {
                if let Some(chunks) = seen {
                    let (kind, info) = (chunk::kind_name(chunk), chunk::info(chunk)?);
                    chunks.push(ScannedChunk { kind, info, bytes: chunk.len() });
                }
                chains.decode(frame.at, |place| chunk_of(plain, place), entry.at.place, column, into)
            })
            .map_err(|error| block.chunk_error(frame.at, entry.at.place, error))?;
        Ok(())
    }
}

/// Frames of the batch, unpacked when they are needed first.
#[derive(Debug, Default)]
struct Frames {
    /// With the time of their last use.
    kept: HashMap<FrameRef, (u64, Vec<u8>)>,
    bytes: usize,
    uses: u64,
}

impl Frames {
    fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    fn get(&mut self, block: &Block, at: FrameRef) -> Result<&[u8], StorageError> {
        self.get_or_load(at, FRAMES_BYTES_MAX, || block.file(at)?.read(at))
    }

    /// Of what takes more than `bytes_max`, what was not used for longest goes: a batch's own frames are used by all its series.
    fn get_or_load(
        &mut self,
        at: FrameRef,
        bytes_max: usize,
        load: impl FnOnce() -> Result<Vec<u8>, StorageError>,
    ) -> Result<&[u8], StorageError> {
        self.uses += 1;
        if !self.kept.contains_key(&at) {
            let plain = load()?;
            while self.bytes + plain.len() > bytes_max {
                let oldest = self.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(at, _)| *at);
                let Some((_, gone)) = oldest.and_then(|oldest| self.kept.remove(&oldest)) else { break };
                self.bytes -= gone.len();
            }
            self.bytes += plain.len();
            self.kept.insert(at, (0, plain));
        }
        let (used, plain) = self.kept.get_mut(&at).expect("invariant: it is there or was just put in");
        *used = self.uses;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_bounded_by_their_bytes() {
        let at = |offset: u64| FrameRef { file: 1, offset, len: 1 };
        let mut frames = Frames::default();
        let mut loads = 0;
        // The batch's own one is used again and again, the others once or twice.
        for foreign in 1..100 {
            for offset in [0, foreign, 0, foreign] {
                let load = || {
                    loads += 1;
                    Ok(vec![u8::try_from(offset).unwrap(); 10])
                };
                let plain = frames.get_or_load(at(offset), 35, load).unwrap();
                assert_eq!(plain, [u8::try_from(offset).unwrap(); 10]);
                assert!(frames.bytes <= 35 && frames.bytes == frames.kept.len() * 10);
            }
        }
        assert_eq!(loads, 100, "none is loaded twice while it is in use");
        // One that is larger than all may be is there alone.
        assert_eq!(frames.get_or_load(at(200), 35, || Ok(vec![1; 50])).unwrap().len(), 50);
        assert_eq!((frames.kept.len(), frames.bytes), (1, 50));
        let failed = frames.get_or_load(at(201), 35, || Err(StorageError::NotReady("test")));
        assert!(failed.is_err() && frames.kept.len() == 1);
        frames.clear();
        assert_eq!((frames.kept.len(), frames.bytes), (0, 0));
    }
}
