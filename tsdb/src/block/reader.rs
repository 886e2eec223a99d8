//! Reads blocks.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;
use parking_lot::{Mutex, RwLock};

use super::directory::{ChunkEntry, Directory, FrameRef, InFrame, Place, SampleFrame};
use super::files::ChunkFile;
use super::index::IndexReader;
use super::scan::BlockScan;
use super::time_columns::decode_column;
use super::{BlockMeta, CHUNKS_DIR, INDEX_FILE, META_FILE, TOMBSTONES_FILE, Tombstones};
use crate::cache::{BlockCache, FileId};
use crate::chunk::Chains;
use crate::coding::DecodeError;
use crate::columns::Columns;
use crate::frame::chunk_of;
use crate::fs::FileSystem;

thread_local! {
    /// Bases of the bucket that a thread read last. Files are named by what no other file ever has.
    static CHAINS: RefCell<Chains<(FileId, u64)>> = RefCell::default();
}

/// A block, open for reading by any number of threads. Its files stay readable when its directory is removed.
#[derive(Debug)]
pub(crate) struct Block {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    meta: BlockMeta,
    index: IndexReader,
    pub(super) files: Vec<ChunkFile>,
    cache: Arc<BlockCache>,
    tombstones: RwLock<Arc<Tombstones>>,
    /// Held while the tombstones are rewritten.
    deleting: Mutex<()>,
    size_bytes: u64,
}

impl Block {
    /// Opens the block in `dir`: reads its meta, its tombstones, the ends of its index and the heads of its chunk files.
    ///
    /// # Errors
    /// [`StorageError::Corrupted`] when one of these is damaged or of an unknown version, [`StorageError::Io`] when the
    /// system fails. Damaged chunks show when they are read.
    pub(crate) fn open(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        cache: &Arc<BlockCache>,
    ) -> Result<Self, StorageError> {
        let meta = BlockMeta::read(&**fs, dir)?;
        let tombstones = Tombstones::read(&**fs, dir)?;
        let index = IndexReader::open(&**fs, dir.join(INDEX_FILE), Arc::clone(cache))?;
        if u64::from(index.series()) != meta.stats.num_series {
            return Err(StorageError::Corrupted {
                file: dir.join(INDEX_FILE),
                offset: 0,
                what: format!("{} series instead of {}", index.series(), meta.stats.num_series),
            });
        }
        let files = ChunkFile::open_all(&**fs, &dir.join(CHUNKS_DIR), cache)?;
        let len = |name: &str| {
            let path = dir.join(name);
            fs.len(&path).map_err(|source| StorageError::Io { what: "measuring", path, source })
        };
        let size_bytes = len(META_FILE)?
            + len(INDEX_FILE)?
            + len(TOMBSTONES_FILE)?
            + files.iter().map(ChunkFile::len).sum::<u64>();
        Ok(Self {
            fs: Arc::clone(fs),
            dir: dir.to_owned(),
            meta,
            index,
            files,
            cache: Arc::clone(cache),
            tombstones: RwLock::new(Arc::new(tombstones)),
            deleting: Mutex::new(()),
            size_bytes,
        })
    }

    /// What it says of itself.
    pub(crate) fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Its series.
    pub(crate) fn index(&self) -> &IndexReader {
        &self.index
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn fs_of(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs)
    }

    /// Bytes of all its files, as of the opening.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What is deleted from it, as of now.
    pub(crate) fn tombstones(&self) -> Arc<Tombstones> {
        Arc::clone(&self.tombstones.read())
    }

    /// Whether anything is deleted from it.
    pub(crate) fn has_tombstones(&self) -> bool {
        !self.tombstones.read().is_empty()
    }

    /// All series in order of labels, read from begin to end.
    pub(crate) fn scan(&self) -> BlockScan<'_> {
        BlockScan::new(self)
    }

    /// Appends the samples of a series within `range`, in order of time by kind, without those deleted.
    ///
    /// # Errors
    /// [`StorageError::Corrupted`] with file and offset when what is needed is damaged; `into` may have got a part then.
    pub(crate) fn read(&self, series: u32, range: TimeRange, into: &mut Columns) -> Result<(), StorageError> {
        if !range.overlaps(&self.meta.range()) {
            return Ok(());
        }
        let tombstones = self.tombstones();
        let dead = tombstones.of(series);
        if dead.is_empty() {
            return self.read_stored(series, range, into);
        }
        let mut alive = Columns::default();
        self.read_stored(series, range, &mut alive)?;
        bury(&mut alive, dead);
        into.append(&alive);
        Ok(())
    }

    fn read_stored(&self, series: u32, range: TimeRange, into: &mut Columns) -> Result<(), StorageError> {
        let (at, place) = self.locate(series)?;
        let plain = self.cached(at)?;
        let file = self.file(at)?;
        let directory = Directory::decode(&plain).map_err(|error| directory_error(file, at, error))?;
        check_batch(&directory, series, place).map_err(|error| directory_error(file, at, error))?;
        directory
            .series(usize_of(place), |entry, frame| {
                if !frame.range.overlaps(&range) {
                    return Ok(());
                }
                self.read_chunk(&directory, entry, frame, range, into)
            })
            .map_err(|error| error.at(file, at))
    }

    fn read_chunk(
        &self,
        directory: &Directory<'_>,
        entry: &ChunkEntry,
        frame: &SampleFrame,
        range: TimeRange,
        into: &mut Columns,
    ) -> Result<(), ReadError> {
        let times = match entry.column {
            None => None,
            Some(column) => Some(self.cached_column(directory, column)?),
        };
        let plain = self.cached(frame.at)?;
        let before = (into.times.len(), into.histogram_times.len());
        let times = times.as_ref().map(|times| times.as_slice());
        let frame_id = (self.file(frame.at)?.id(), frame.at.offset);
        CHAINS
            .with_borrow_mut(|chains| {
                chains.decode(frame_id, |place| chunk_of(&plain, place), entry.at.place, times, into)
            })
            .map_err(|error| self.chunk_error(frame.at, entry.at.place, error))?;
        if frame.range.min < range.min || frame.range.max > range.max {
            keep_within(into, before, range);
        }
        Ok(())
    }

    /// Where the directory of a series' batch is, and the series' place in it.
    pub(super) fn locate(&self, series: u32) -> Result<(FrameRef, u32), StorageError> {
        let mut blob = Vec::with_capacity(16);
        match self.place(series, &mut blob)? {
            Place::First(at) => Ok((at, 0)),
            Place::Behind(behind) => {
                let first = series.checked_sub(behind).ok_or_else(|| self.index_error(series))?;
                match self.place(first, &mut blob)? {
                    Place::First(at) => Ok((at, behind)),
                    Place::Behind(_) => Err(self.index_error(series)),
                }
            }
        }
    }

    /// What the index keeps for a series.
    pub(super) fn place(&self, series: u32, blob: &mut Vec<u8>) -> Result<Place, StorageError> {
        blob.clear();
        self.index.chunks(series, blob)?;
        Place::decode(blob).map_err(|_| self.index_error(series))
    }

    pub(super) fn index_error(&self, series: u32) -> StorageError {
        StorageError::Corrupted {
            file: self.dir.join(INDEX_FILE),
            offset: 0,
            what: format!("place of series {series}"),
        }
    }

    pub(super) fn file(&self, at: FrameRef) -> Result<&ChunkFile, StorageError> {
        let place = usize_of(at.file).checked_sub(1);
        place.and_then(|place| self.files.get(place)).ok_or_else(|| StorageError::Corrupted {
            file: self.dir.join(CHUNKS_DIR).join(super::files::name(at.file)),
            offset: at.offset,
            what: "missing".to_owned(),
        })
    }

    fn cached(&self, at: FrameRef) -> Result<Arc<Vec<u8>>, StorageError> {
        let file = self.file(at)?;
        self.cache.get_or_load(file.id(), at.offset, || file.read(at))
    }

    fn cached_column(
        &self,
        directory: &Directory<'_>,
        column: InFrame,
    ) -> Result<Arc<Vec<Timestamp>>, StorageError> {
        let at = column_frame(directory, column).map_err(|error| StorageError::Corrupted {
            file: self.dir.clone(),
            offset: 0,
            what: error.to_string(),
        })?;
        let file = self.file(at)?;
        let part = u32::try_from(column.place).unwrap_or(u32::MAX);
        self.cache.times_or_load(file.id(), at.offset, part, || {
            let plain = self.cached(at)?;
            chunk_of(&plain, column.place)
                .and_then(decode_column)
                .map_err(|error| self.chunk_error(at, column.place, error))
        })
    }

    pub(super) fn chunk_error(&self, at: FrameRef, place: usize, error: DecodeError) -> StorageError {
        match self.file(at) {
            Ok(file) => file.corrupted(at.offset, format_args!("chunk {place} of a frame: {error}")),
            Err(error) => error,
        }
    }

    /// Deletes spans of series, for good: the samples are gone for every read that begins afterwards.
    ///
    /// # Errors
    /// When the system fails: then nothing is deleted for readers, and maybe all of it after the next opening.
    pub(crate) fn delete(
        &self,
        spans: impl IntoIterator<Item = (u32, TimeRange)>,
    ) -> Result<(), StorageError> {
        let _deleting = self.deleting.lock();
        let old = self.tombstones();
        let mut new = Tombstones::clone(&old);
        let range = self.meta.range();
        for (series, span) in spans {
            // Spans of all time would be longer than the block and say no more.
            new.add(series, TimeRange::new(span.min.max(range.min), span.max.min(range.max)));
        }
        if new != *old {
            new.replace(&*self.fs, &self.dir)?;
            *self.tombstones.write() = Arc::new(new);
        }
        Ok(())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.files.iter().for_each(|file| self.cache.forget(file.id()));
    }
}

/// Trouble while a directory is walked: in it, or in what it leads to.
#[derive(Debug)]
pub(super) enum ReadError {
    Directory(DecodeError),
    Storage(StorageError),
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        Self::Directory(error)
    }
}

impl From<StorageError> for ReadError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl ReadError {
    /// The directory is in this frame.
    pub(super) fn at(self, file: &ChunkFile, at: FrameRef) -> StorageError {
        match self {
            Self::Directory(error) => directory_error(file, at, error),
            Self::Storage(error) => error,
        }
    }
}

pub(super) fn directory_error(file: &ChunkFile, at: FrameRef, error: DecodeError) -> StorageError {
    file.corrupted(at.offset, format_args!("directory: {error}"))
}

/// Whether the directory is the one that the index meant.
pub(super) fn check_batch(directory: &Directory<'_>, series: u32, place: u32) -> Result<(), DecodeError> {
    let fits = directory.first().checked_add(place) == Some(series) && usize_of(place) < directory.len();
    if fits { Ok(()) } else { Err(DecodeError::Inconsistent("series of a directory")) }
}

pub(super) fn column_frame(directory: &Directory<'_>, column: InFrame) -> Result<FrameRef, DecodeError> {
    directory.columns().get(column.frame).copied().ok_or(DecodeError::Inconsistent("frame of a column"))
}

pub(super) fn usize_of(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Takes the samples out that are within a tombstone.
pub(super) fn bury(columns: &mut Columns, dead: &[TimeRange]) {
    columns.retain(|t| {
        let at = dead.partition_point(|span| span.max < t);
        !dead.get(at).is_some_and(|span| span.contains(t))
    });
}

/// Of what was appended behind `before` (floats, histograms), keeps what is within `range`.
fn keep_within(columns: &mut Columns, before: (usize, usize), range: TimeRange) {
    fn cut(times: &[Timestamp], before: usize, range: TimeRange) -> (usize, usize) {
        let added = times.get(before..).unwrap_or_default();
        let from = before + added.partition_point(|t| *t < range.min);
        let to = before + added.partition_point(|t| *t <= range.max);
        (from, to.max(from))
    }
    fn keep<T>(column: &mut Vec<T>, before: usize, (from, to): (usize, usize)) {
        column.truncate(to);
        if before < from && from <= column.len() {
            column.drain(before..from);
        }
    }
    let span = cut(&columns.times, before.0, range);
    keep(&mut columns.times, before.0, span);
    keep(&mut columns.values, before.0, span);
    keep(&mut columns.starts, before.0, span);
    let span = cut(&columns.histogram_times, before.1, range);
    keep(&mut columns.histogram_times, before.1, span);
    keep(&mut columns.histograms, before.1, span);
    keep(&mut columns.histogram_starts, before.1, span);
}
