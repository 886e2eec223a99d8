//! Makes blocks.
//!
//! Series come in order of labels; up to 64 of them are held as a batch, cut into chunks together ([`super::cut`]) and
//! written: first the columns of times that are new, then their frames of samples, then the directory that finds them. The
//! index learns of each series where its batch is. Everything is written below a temporary name and synced before that
//! name is changed, so a block is there as a whole or not at all; a writer that is dropped before that removes what it
//! wrote.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::labels::{BUCKET_LABEL, Labels};
use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;
use ulid::Ulid;

use super::buckets::Families;
use super::cut::{Piece, cut};
use super::directory::{ChunkEntry, DirectoryBuilder, InFrame, Place, SampleFrame};
use super::equal::{EqualChunks, Stored, may_be_repeated};
use super::files::ChunkFiles;
use super::index::IndexWriter;
use super::time_columns::{ColumnKey, Placed, TimeColumns};
use super::{
    BlockCompaction, BlockMeta, BlockOptions, BlockParent, BlockStats, CHUNKS_DIR, FORMAT, INDEX_FILE,
    TEMPORARY_SUFFIX, Tombstones, VERSION,
};
use crate::chunk::{Effort, encode_floats, encode_floats_against, encode_histograms};
use crate::columns::Columns;
use crate::frame::{Compression, FRAME_CHUNKS_MAX, FRAME_PLAIN_MAX, FrameBuilder};
use crate::fs::{FileSystem, WriteFile};

/// Samples after which a batch is closed before it has all its series: bounds memory, to some 64 MiB, however long a
/// span the block covers. One series alone may have more.
const BATCH_SAMPLES_MAX: usize = 4 << 20;
/// Series of a batch whose directory still is one frame.
const BATCH_SERIES_MAX: usize = FRAME_CHUNKS_MAX - 1;
/// What a histogram takes, in floats with their times: a kilobyte.
const HISTOGRAM_WEIGHT: usize = 64;
/// Bytes after which a frame is closed before it has all its chunks: bounds what is unpacked to read one.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What a finished block says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// First millisecond of its span, inclusive.
    pub(crate) min_time: Timestamp,
    /// Last one, exclusive.
    pub(crate) max_time: Timestamp,
    /// 1: straight from the head.
    pub(crate) level: u32,
    /// The level-1 blocks whose samples it holds. Empty: itself.
    pub(crate) sources: Vec<Ulid>,
    /// The blocks that it replaces.
    pub(crate) parents: Vec<BlockParent>,
    /// See [`BlockCompaction::hints`].
    pub(crate) hints: Vec<String>,
}

/// Bytes by part, for reports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BlockParts {
    pub(crate) samples: u64,
    pub(crate) times: u64,
    pub(crate) directories: u64,
    pub(crate) index: u64,
    pub(crate) other: u64,
    pub(crate) time_columns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    fs: Arc<dyn FileSystem>,
    data_dir: PathBuf,
    id: Ulid,
    temporary: PathBuf,
    options: BlockOptions,
    /// Series that are held, and their samples; vectors beyond `batch_len` are kept for their memory.
    labels: Vec<Labels>,
    batch: Vec<Columns>,
    batch_len: usize,
    batch_weight: usize,
    series: u32,
    files: Option<ChunkFiles>,
    columns: TimeColumns,
    equal: EqualChunks,
    index: Option<IndexFile>,
    frame: FrameBuilder,
    stats: BlockStats,
    /// From the first sample to the last.
    range: Option<TimeRange>,
    parts: BlockParts,
}

/// The index in the making. What of it is final is in the file already.
#[derive(Debug)]
struct IndexFile {
    writer: IndexWriter,
    file: Box<dyn WriteFile>,
    path: PathBuf,
}

impl IndexFile {
    fn io(&self, what: &'static str, source: std::io::Error) -> StorageError {
        StorageError::Io { what, path: self.path.clone(), source }
    }
}

impl BlockWriter {
    /// Begins the block `id` in `data_dir`.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub(crate) fn create(
        fs: &Arc<dyn FileSystem>,
        data_dir: &Path,
        id: Ulid,
        options: BlockOptions,
    ) -> Result<Self, StorageError> {
        let temporary = data_dir.join(format!("{id}{TEMPORARY_SUFFIX}"));
        let chunks = temporary.join(CHUNKS_DIR);
        let made = fs.create_dir_all(&chunks);
        // The random part of the id is known to nobody who sends samples.
        let seed = (id.0 ^ id.0 >> 64) as u64;
        let mut writer = Self {
            fs: Arc::clone(fs),
            data_dir: data_dir.to_owned(),
            id,
            temporary,
            options,
            labels: Vec::new(),
            batch: Vec::new(),
            batch_len: 0,
            batch_weight: 0,
            series: 0,
            files: Some(ChunkFiles::new(Arc::clone(fs), chunks.clone(), options.file_bytes_max)),
            columns: TimeColumns::new(seed),
            equal: EqualChunks::new(seed),
            index: None,
            frame: FrameBuilder::new(),
            stats: BlockStats::default(),
            range: None,
            parts: BlockParts::default(),
        };
        // An error drops the writer, which removes what there is.
        made.map_err(|source| StorageError::Io { what: "making", path: chunks, source })?;
        let path = writer.temporary.join(INDEX_FILE);
        match writer.fs.create(&path) {
            Ok(file) => writer.index = Some(IndexFile { writer: IndexWriter::new(), file, path }),
            Err(source) => return Err(StorageError::Io { what: "creating", path, source }),
        }
        Ok(writer)
    }

    /// Adds a series behind all others in the order of labels. `columns` are normalized. A series without samples is left
    /// out. After an error the writer is of no more use than to be dropped.
    ///
    /// # Errors
    /// When the system fails.
    ///
    /// # Panics
    /// When labels do not ascend.
    pub(crate) fn add(&mut self, labels: &Labels, columns: &Columns) -> Result<(), StorageError> {
        let Some(range) = columns.range() else { return Ok(()) };
        let samples = columns.len();
        let weight = columns.times.len() + columns.histogram_times.len() * HISTOGRAM_WEIGHT;
        if self.batch_len > 0
            && (self.batch_len >= self.options.batch_series.min(BATCH_SERIES_MAX)
                || self.batch_weight + weight > BATCH_SAMPLES_MAX)
        {
            self.write_batch()?;
        }
        if self.batch_len == self.batch.len() {
            self.batch.push(Columns::default());
        }
        let held = &mut self.batch[self.batch_len];
        held.clear();
        held.append(columns);
        self.batch_len += 1;
        self.batch_weight += weight;
        self.labels.push(labels.clone());
        self.stats.num_series += 1;
        self.stats.num_samples += samples as u64;
        self.stats.num_float_samples += columns.times.len() as u64;
        self.stats.num_histogram_samples += columns.histogram_times.len() as u64;
        let all = self.range.get_or_insert(range);
        *all = TimeRange::new(all.min.min(range.min), all.max.max(range.max));
        Ok(())
    }

    /// Writes what is held.
    fn write_batch(&mut self) -> Result<(), StorageError> {
        let files = self.files.as_mut().expect("invariant: files stay until the block is finished");
        let index = self.index.as_mut().expect("invariant: so does the index");
        let batch = &self.batch[..self.batch_len];
        let mut frames: Vec<Vec<Piece>> = Vec::new();
        let families = Families::of(&self.labels, self.options.bucket_chain);
        cut(batch, &self.options.limits(), &mut |pieces: &[Piece]| {
            let mut pieces = pieces.to_vec();
            pieces.sort_by_key(|piece| {
                let (histogram, bucket) = families.rank[piece.series];
                (histogram, piece.histogram, piece.times(batch).first().copied(), bucket)
            });
            frames.push(pieces);
        });
        let compression = self.options.compression;
        let places = place_columns(batch, &frames, &mut self.columns, files, compression)?;
        let mut sink = Sink {
            batch,
            files,
            frame: &mut self.frame,
            compression,
            effort: self.options.effort,
            directory: DirectoryBuilder {
                first: self.series,
                series: vec![Vec::new(); batch.len()],
                ..DirectoryBuilder::default()
            },
            column_frames: Vec::new(),
            columns: &self.columns,
            families: &families,
            equal: &mut self.equal,
            repeated: self.labels.iter().map(may_be_repeated).collect(),
            hashes: Vec::new(),
            elsewhere: Vec::new(),
            last: None,
            range: None,
            bytes: 0,
        };
        for (pieces, places) in frames.iter().zip(&places) {
            let mut of_series = vec![0usize; batch.len()];
            pieces.iter().for_each(|piece| of_series[piece.series] += 1);
            for (piece, placed) in pieces.iter().zip(places) {
                // Buckets are bases of others. Of several chunks, those elsewhere would be behind the others.
                let alone =
                    of_series[piece.series] == 1 && self.labels[piece.series].get(BUCKET_LABEL).is_none();
                sink.put(piece, placed.as_ref(), alone)?;
                self.stats.num_chunks += 1;
            }
            sink.close_frame()?;
        }
        self.parts.samples += sink.bytes;
        let directory = sink.directory;
        directory.encode(&mut self.frame);
        let at = files.put(&mut self.frame, compression)?;
        self.parts.directories += u64::from(at.len);
        let mut place = Vec::new();
        for (behind, labels) in (0u32..).zip(self.labels.drain(..)) {
            place.clear();
            if behind == 0 { Place::First(at) } else { Place::Behind(behind) }.encode(&mut place);
            index.writer.add(&labels, &place)?;
            self.series += 1;
        }
        index.writer.flush_some_to(&mut *index.file).map_err(|error| index.io("writing", error))?;
        self.batch_len = 0;
        self.batch_weight = 0;
        Ok(())
    }

    /// Makes the block appear: all files and names are synced when it does. `None` when there was no sample; then, and
    /// after an error, nothing is left.
    ///
    /// # Errors
    /// When the system fails.
    ///
    /// # Panics
    /// When a sample is outside of the span.
    pub(crate) fn finish(self, made: Made) -> Result<Option<BlockMeta>, StorageError> {
        Ok(self.finish_with_parts(made)?.map(|(meta, _)| meta))
    }

    /// As [`BlockWriter::finish`], and how large the parts are.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub(crate) fn finish_with_parts(
        mut self,
        made: Made,
    ) -> Result<Option<(BlockMeta, BlockParts)>, StorageError> {
        if self.batch_len > 0 {
            self.write_batch()?;
        }
        let Some(range) = self.range else { return Ok(None) };
        assert!(
            made.min_time <= range.min && range.max < made.max_time,
            "samples from {} to {} in a block from {} to before {}",
            range.min,
            range.max,
            made.min_time,
            made.max_time
        );
        let fs = Arc::clone(&self.fs);
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StorageError::Io { what, path, source }
        };
        if let Some(files) = self.files.take() {
            files.finish()?;
        }
        if let Some(index) = self.index.take() {
            let IndexFile { writer, mut file, path } = index;
            self.parts.index = writer.finish(&mut *file).map_err(io("writing", &path))?;
            file.sync().map_err(io("syncing", &path))?;
        }
        let tombstones = Tombstones::default().write(&*fs, &self.temporary)?;
        let sources = if made.sources.is_empty() { vec![self.id] } else { made.sources };
        let meta = BlockMeta {
            ulid: self.id,
            min_time: made.min_time,
            max_time: made.max_time,
            stats: self.stats,
            compaction: BlockCompaction {
                level: made.level,
                sources,
                parents: made.parents,
                hints: made.hints,
                ..BlockCompaction::default()
            },
            version: VERSION,
            format: FORMAT.to_owned(),
            extra: std::collections::BTreeMap::new(),
        };
        self.parts.other = tombstones + meta.write(&*fs, &self.temporary)?;
        self.parts.times = self.columns.bytes;
        self.parts.time_columns = self.columns.columns;
        fs.sync_dir(&self.temporary).map_err(io("syncing the directory", &self.temporary))?;
        let block = self.data_dir.join(self.id.to_string());
        fs.rename(&self.temporary, &block).map_err(io("renaming", &self.temporary))?;
        if let Err(error) = fs.sync_dir(&self.data_dir) {
            // It may be there after a loss of power, as a whole. Whoever made it must not count on that, nor on the
            // opposite: it goes under the name that is cleared away, and stays there as it is unless that is durable, for
            // else a loss of power might show what is left of it under the name of a block.
            let back = fs.rename(&block, &self.temporary).and_then(|()| fs.sync_dir(&self.data_dir));
            if back.is_err() {
                self.temporary = PathBuf::new();
            }
            return Err(io("syncing the directory", &self.data_dir)(error));
        }
        // Nothing is left under the temporary name.
        self.temporary = PathBuf::new();
        Ok(Some((meta, self.parts)))
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        if self.temporary.as_os_str().is_empty() {
            return;
        }
        // Files are closed first: some systems do not remove open ones.
        (self.files, self.index) = (None, None);
        if let Err(error) = self.fs.remove_dir_all(&self.temporary)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.temporary.display(), %error, "unfinished block could not be removed");
        }
    }
}

/// Finds a place for the times of every piece of floats, series by series, so that the columns of one series are neighbours;
/// and writes the new ones. By frame and piece.
fn place_columns(
    batch: &[Columns],
    frames: &[Vec<Piece>],
    columns: &mut TimeColumns,
    files: &mut ChunkFiles,
    compression: Compression,
) -> Result<Vec<Vec<Option<Placed>>>, StorageError> {
    let mut places: Vec<Vec<Option<Placed>>> = frames.iter().map(|pieces| vec![None; pieces.len()]).collect();
    let mut of_series: Vec<Vec<(usize, usize)>> = vec![Vec::new(); batch.len()];
    for (frame, pieces) in frames.iter().enumerate() {
        for (place, piece) in pieces.iter().enumerate().filter(|(_, piece)| !piece.histogram) {
            of_series[piece.series].push((frame, place));
        }
    }
    for (frame, place) in of_series.into_iter().flatten() {
        let times = frames[frame][place].times(batch);
        places[frame][place] = Some(columns.place(times, files, compression)?);
    }
    columns.flush(files, compression)?;
    Ok(places)
}

/// Writes the frames of a batch and notes in the directory what is where.
struct Sink<'a> {
    batch: &'a [Columns],
    files: &'a mut ChunkFiles,
    frame: &'a mut FrameBuilder,
    compression: Compression,
    effort: Effort,
    directory: DirectoryBuilder,
    /// Numbers of the frames of columns that the directory lists.
    column_frames: Vec<usize>,
    columns: &'a TimeColumns,
    families: &'a Families,
    equal: &'a mut EqualChunks,
    /// By series: whether another may be equal.
    repeated: Vec<bool>,
    /// Of the chunks in the frame, with their places.
    hashes: Vec<(u128, usize, TimeRange)>,
    /// Chunks of this span of time that are in frames of others: series, where, column.
    elsewhere: Vec<(usize, Stored, Option<InFrame>)>,
    /// The last chunk of the frame, if it has all rows of a column: series, column, samples.
    last: Option<(usize, ColumnKey, Range<usize>)>,
    /// Of the samples in the frame.
    range: Option<TimeRange>,
    bytes: u64,
}

impl Sink<'_> {
    /// Writes a chunk; if `movable`, one that another frame has already is only noted.
    fn put(&mut self, piece: &Piece, placed: Option<&Placed>, movable: bool) -> Result<(), StorageError> {
        if self.frame.len() == FRAME_CHUNKS_MAX || self.frame.bytes() >= FRAME_BYTES_MAX {
            self.close_frame()?;
        }
        let columns = &self.batch[piece.series];
        let times = piece.times(self.batch);
        let span = piece.from..piece.to;
        let before = self.frame.bytes();
        let place = self.frame.len();
        // A base has a sample at just the same times: it has the same column, and both have all of it.
        let whole = placed.filter(|placed| placed.rows.is_none() && !piece.histogram);
        let starts = columns.starts.get(span.clone()).unwrap_or_default();
        let hashed = whole.filter(|_| self.repeated[piece.series]);
        let hash =
            hashed.and_then(|placed| self.equal.hash(placed.column, &columns.values[span.clone()], starts));
        if let Some(stored) = hash.filter(|_| movable).and_then(|hash| self.equal.get(hash)) {
            let column = placed.map(|placed| self.column(placed.column));
            self.elsewhere.push((piece.series, stored, column));
            return Ok(());
        }
        let of = whole.zip(self.families.base[piece.series]);
        let last = std::mem::replace(
            &mut self.last,
            whole.map(|placed| (piece.series, placed.column, span.clone())),
        );
        let base = of.zip(last).and_then(|((placed, base), (series, column, span))| {
            (series == base && column == placed.column).then(|| &self.batch[base].values[span])
        });
        let effort = self.effort;
        self.frame.push_with(|out| {
            if piece.histogram {
                let starts = columns.histogram_starts.get(span.clone()).unwrap_or_default();
                encode_histograms(times, &columns.histograms[span], starts, out);
                return;
            }
            let values = &columns.values[span];
            if let Some(base) = base {
                encode_floats_against(base, times, true, None, values, starts, effort, out);
                return;
            }
            let (column, rows) = match placed.and_then(|placed| placed.rows.as_ref()) {
                Some((column, rows)) => (&**column, Some(rows.as_slice())),
                None => (times, None),
            };
            encode_floats(column, placed.is_some(), rows, values, starts, effort, out);
        });
        // Lengths and number of chunks come on top.
        let limit = FRAME_PLAIN_MAX / 2;
        if self.frame.bytes() - before > limit {
            return Err(StorageError::Limit { what: "size of a chunk", limit: limit as u64 });
        }
        let at = InFrame { frame: self.directory.samples.len(), place };
        let column = placed.map(|placed| self.column(placed.column));
        self.directory.series[piece.series].push(ChunkEntry { at, column });
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            self.hashes.extend(hash.map(|hash| (hash, place, TimeRange::new(*first, *last))));
            let range = self.range.get_or_insert(TimeRange::new(*first, *last));
            *range = TimeRange::new(range.min.min(*first), range.max.max(*last));
        }
        Ok(())
    }

    /// The column as the directory names it.
    fn column(&mut self, key: ColumnKey) -> InFrame {
        // Neighbours use the same few frames: the last ones are looked at first.
        let known = self.column_frames.iter().rposition(|frame| *frame == key.frame);
        let frame = known.unwrap_or_else(|| {
            self.column_frames.push(key.frame);
            self.directory.columns.push(self.columns.frame(key.frame));
            self.column_frames.len() - 1
        });
        InFrame { frame, place: key.place }
    }

    fn close_frame(&mut self) -> Result<(), StorageError> {
        self.last = None;
        if let Some(range) = self.range.take() {
            let at = self.files.put(self.frame, self.compression)?;
            self.bytes += u64::from(at.len);
            self.directory.samples.push(SampleFrame { at, range });
            for (hash, place, range) in self.hashes.drain(..) {
                self.equal.remember(hash, Stored { frame: at, range, place });
            }
        }
        let others = self.directory.samples.len();
        for (series, stored, column) in self.elsewhere.drain(..) {
            let listed = &mut self.directory.samples;
            let known = listed[others..].iter().position(|frame| frame.at == stored.frame);
            let frame = others + known.unwrap_or(listed.len() - others);
            if frame == listed.len() {
                listed.push(SampleFrame { at: stored.frame, range: stored.range });
            }
            let range = &mut listed[frame].range;
            *range = TimeRange::new(range.min.min(stored.range.min), range.max.max(stored.range.max));
            let at = InFrame { frame, place: stored.place };
            self.directory.series[series].push(ChunkEntry { at, column });
        }
        Ok(())
    }
}
