//! Reading a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;

use super::load_rows::PartialWindow;
use super::{
    Counts, IN_FILE, IN_LINE, KIND_CHUNKS, KIND_END, KIND_HEAD, KIND_HISTORY, KIND_ROWS, KIND_SERIES,
    KIND_WINDOW, LAST_FLOAT, LAST_HISTOGRAM, LAST_NONE,
};
use crate::chunk::Chunk;
use crate::chunk::histogram::get_one;
use crate::coding::{DecodeError, Reader};
use crate::fs::FileSystem;
use crate::head::Head;
use crate::head::history::History;
use crate::head::series::{ChunkBytes, FilePlace, OutOfOrderChunk, OwnChunk, Series, Starts, Stored};
use crate::head_chunks::HeadFile;
use crate::wal::frame::{CHECKPOINT_MAGIC, Frame, FrameReader, HeaderError};
use crate::wal::io_error;
use crate::wal::record::{Bounds, Entry, KIND_COMMIT, decode, get_labels};
use crate::wal::replay::unknown_version;

/// What loading found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) bytes: u64,
    /// Records and files that could not be read.
    pub(crate) damaged: u64,
    /// Samples of commits up to this one may be stored already.
    pub(crate) through: u64,
}

/// Loads a checkpoint into an empty head. Damaged records are left out and counted.
///
/// # Errors
/// When the system fails, the version is unknown, or a sound record has unknown content.
pub(crate) fn load(fs: &dyn FileSystem, path: &Path, head: &Head) -> Result<Loaded, StorageError> {
    let read_error = || io_error("read checkpoint", path);
    let bytes = fs.len(path).map_err(read_error())?;
    let mut frames = FrameReader::new(fs.open(path).map_err(read_error())?, bytes);
    // Until the end has been read, all of the log may be stored.
    let mut loaded = Loaded { bytes, damaged: 0, through: u64::MAX };
    match frames.header(CHECKPOINT_MAGIC).map_err(read_error())? {
        Ok(_) => {}
        Err(HeaderError::Version(version)) => {
            return Err(unknown_version(path.to_owned(), version, CHECKPOINT_MAGIC));
        }
        Err(HeaderError::Short) => return Ok(Loaded { damaged: 1, ..loaded }),
        // The records have checksums of their own.
        Err(HeaderError::Damaged) => loaded.damaged += 1,
    }
    let mut loader = Loader {
        head,
        files: HashMap::new(),
        range: None,
        chunks: 0,
        lost: 0,
        window: None,
        read: Counts::default(),
        told: Counts::default(),
        through: None,
        error: None,
    };
    loop {
        match frames.next().map_err(read_error())? {
            Frame::End => break,
            Frame::Bad(bad) => {
                loaded.damaged += 1;
                tracing::error!(checkpoint = %path.display(), offset = bad.offset, what = bad.what, "checkpoint is damaged: a record is lost");
                if bad.next.is_none() {
                    break;
                }
            }
            Frame::Record { kind, payload, offset } => {
                let corrupted = |what: DecodeError| StorageError::Corrupted {
                    file: path.to_owned(),
                    offset,
                    what: what.to_string(),
                };
                let done = loader.record(kind, &payload);
                if let Some(error) = loader.error.take() {
                    return Err(error);
                }
                done.map_err(corrupted)?;
            }
        }
    }
    loader.close_window();
    match loader.through {
        Some(through) => loaded.through = through,
        None => {
            loaded.damaged += 1;
            tracing::error!(checkpoint = %path.display(), "checkpoint ends early: series are lost");
        }
    }
    // Where records are known to be lost this says nothing new.
    if loaded.damaged == 0 && loader.read != loader.told {
        loaded.damaged += 1;
        tracing::error!(
            checkpoint = %path.display(), read = ?loader.read, told = ?loader.told,
            "checkpoint does not have as many series, histories, windows and rows as it says"
        );
    }
    if loader.lost > 0 {
        loaded.damaged += 1;
        tracing::error!(checkpoint = %path.display(), chunks = loader.lost, "chunks are lost with head chunk files or records");
    }
    loaded.damaged += loader.files.values().filter(|file| !matches!(file, Some((_, true)))).count() as u64;
    head.add_chunks(loader.chunks, 0);
    if let Some(range) = loader.range {
        head.saw(range.min, range.max);
    }
    Ok(loaded)
}

/// Whether a checkpoint is whole by its checksums.
///
/// # Errors
/// When the system fails or the version is unknown.
pub(crate) fn is_sound(fs: &dyn FileSystem, path: &Path) -> Result<bool, StorageError> {
    let read_error = || io_error("read checkpoint", path);
    let bytes = fs.len(path).map_err(read_error())?;
    let mut frames = FrameReader::new(fs.open(path).map_err(read_error())?, bytes);
    match frames.header(CHECKPOINT_MAGIC).map_err(read_error())? {
        Ok(_) => {}
        Err(HeaderError::Version(version)) => {
            return Err(unknown_version(path.to_owned(), version, CHECKPOINT_MAGIC));
        }
        Err(HeaderError::Short | HeaderError::Damaged) => return Ok(false),
    }
    let mut complete = false;
    loop {
        match frames.next().map_err(read_error())? {
            Frame::End => return Ok(complete),
            Frame::Bad(_) => return Ok(false),
            Frame::Record { kind, .. } => complete |= kind == KIND_END,
        }
    }
}

pub(super) struct Loader<'a> {
    pub(super) head: &'a Head,
    /// Head chunk files by number, and whether they are sound; `None`: gone.
    files: HashMap<u32, Option<(Arc<HeadFile>, bool)>>,
    range: Option<TimeRange>,
    pub(super) chunks: usize,
    /// Chunks that are not where they should be.
    pub(super) lost: u64,
    /// A window of which more chunks may come.
    pub(super) window: Option<PartialWindow>,
    /// As read, and as the end says.
    pub(super) read: Counts,
    told: Counts,
    through: Option<u64>,
    /// The system's, or an unknown version.
    error: Option<StorageError>,
}

impl Loader<'_> {
    fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), DecodeError> {
        if kind != KIND_CHUNKS {
            self.close_window();
        }
        let mut reader = Reader::new(payload);
        match kind {
            KIND_HEAD => {
                self.head.catalogue.write().reserve_ids(reader.uvarint32()?);
                self.head.next_layout.fetch_max(reader.uvarint()?, Ordering::Relaxed);
                self.head.views.publish(reader.uvarint()?);
                self.head.views.raise_floor(reader.varint()?);
                self.head.set_bounds(Bounds {
                    in_order_from: reader.varint()?,
                    truncated_to: reader.varint()?,
                    late_through: reader.uvarint()?,
                });
                Ok(())
            }
            KIND_HISTORY => self.history(&mut reader),
            KIND_WINDOW => self.window(&mut reader),
            KIND_CHUNKS => self.chunks(&mut reader),
            KIND_ROWS => self.rows(&mut reader),
            KIND_SERIES => {
                while !reader.is_empty() {
                    self.read.series += 1;
                    self.series(&mut reader)?;
                }
                Ok(())
            }
            KIND_COMMIT => decode(payload, |entry| {
                match entry {
                    Entry::Exemplar { series, exemplar } => self.head.exemplars.lock().push(series, exemplar),
                    Entry::Metadata { metric, metadata } => self.head.set_metadata(&metric, &metadata),
                    Entry::Series { .. }
                    | Entry::Layout { .. }
                    | Entry::Row { .. }
                    | Entry::Floats(_)
                    | Entry::Histogram { .. }
                    | Entry::Bounds(_)
                    | Entry::Deleted { .. } => return Err(DecodeError::Unknown("entry of a checkpoint")),
                }
                Ok(())
            }),
            KIND_END => {
                self.told = Counts {
                    series: reader.uvarint()?,
                    histories: reader.uvarint()?,
                    windows: reader.uvarint()?,
                    rows: reader.uvarint()?,
                };
                self.through = Some(reader.uvarint()?);
                Ok(())
            }
            _ => Err(DecodeError::Unknown("record of a checkpoint")),
        }
    }

    /// File `number`, if it is there and has bytes up to `end`.
    pub(super) fn file(&mut self, number: u32, end: u64) -> Option<Arc<HeadFile>> {
        if !self.files.contains_key(&number) {
            match self.head.files.open(number) {
                Ok(found) => {
                    self.files.insert(number, found);
                }
                Err(error) => {
                    self.error.get_or_insert(error);
                    self.files.insert(number, None);
                }
            }
        }
        let (file, sound) = self.files.get_mut(&number)?.as_mut()?;
        if end > file.len() {
            if std::mem::take(sound) {
                file.cut_off(end);
            }
            return None;
        }
        Some(Arc::clone(file))
    }

    fn histories_of(&self, reader: &mut Reader<'_>) -> Result<Option<(Arc<History>, u32)>, DecodeError> {
        let (id, slot) = (reader.uvarint()?, reader.uvarint32()?);
        // One that damage took.
        Ok(self.head.histories.lock().get(&id).map(|history| (Arc::clone(history), slot)))
    }

    fn series(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let id = reader.uvarint32()?;
        let labels = get_labels(reader)?;
        let mut series = Series::logged();
        let now = {
            let mut ahead = *reader;
            if ahead.uvarint()? == 0 {
                *reader = ahead;
                None
            } else {
                self.histories_of(reader)?
            }
        };
        let count = reader.count(2)?;
        let mut past = Vec::new();
        for _ in 0..count {
            past.extend(self.histories_of(reader)?);
        }
        series.set_histories(past, now);
        let last = match reader.u8()? {
            LAST_NONE => None,
            LAST_FLOAT => Some((reader.varint()?, Stored::Float(reader.u64_le()?))),
            LAST_HISTOGRAM => Some((reader.varint()?, Stored::Histogram(get_one(reader, None)?))),
            _ => return Err(DecodeError::Unknown("kind of sample")),
        };
        if let Some((t, value)) = &last {
            series.set_last(*t, value);
            self.see(*t);
        }
        let runs = reader.count(3)?;
        let runs = (0..runs).map(|_| Ok((reader.varint()?, reader.varint()?, reader.varint()?)));
        let runs = runs.collect::<Result<Vec<_>, DecodeError>>()?;
        if !runs.is_empty() {
            series.rare_mut().starts = Starts::of_runs(runs);
        }
        for _ in 0..reader.count(2)? {
            series.delete(TimeRange::new(reader.varint()?, reader.varint()?), &[]);
        }
        self.chunks_of(&mut series, id, reader)?;
        let mut catalogue = self.head.catalogue.write();
        if catalogue.find(&labels).is_some() || self.head.table.with(id, |_| ()).is_some() {
            return Err(DecodeError::Inconsistent("series: two of them have the same labels or reference"));
        }
        self.head.table.insert(id, series);
        catalogue.insert(id, &labels);
        self.head.count_series(&catalogue);
        Ok(())
    }

    fn chunks_of(
        &mut self,
        series: &mut Series,
        id: u32,
        reader: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        let mut in_memory = false;
        for _ in 0..reader.count(4)? {
            let (min_t, max_t) = (reader.varint()?, reader.varint()?);
            let bytes = match reader.u8()? {
                IN_LINE => {
                    let len = reader.count(1)?;
                    in_memory = true;
                    Some(ChunkBytes::Memory(reader.bytes(len)?.into()))
                }
                IN_FILE => {
                    let (number, offset) = (reader.uvarint32()?, reader.uvarint32()?);
                    let len_and_index = reader.uvarint32()?;
                    let end = u64::from(offset) + u64::from(len_and_index >> 6);
                    let place = |file| ChunkBytes::File(FilePlace { file, offset, len_and_index });
                    self.file(number, end).map(place)
                }
                _ => return Err(DecodeError::Unknown("place of chunks")),
            };
            let Some(bytes) = bytes.filter(|_| min_t <= max_t) else {
                self.lost += 1;
                continue;
            };
            self.see(min_t);
            self.see(max_t);
            self.head.saw_in_order(min_t);
            self.chunks += 1;
            series.push_chunk(OwnChunk { min_t, max_t, bytes });
        }
        if in_memory {
            self.head.unflushed_series.lock().push(id);
        }
        for _ in 0..reader.count(4)? {
            let commit = reader.uvarint()?;
            let (min_t, max_t) = (reader.varint()?, reader.varint()?);
            let len = reader.count(1)?;
            let chunk = Chunk { bytes: reader.bytes(len)?.into(), min_t, max_t };
            self.see(min_t);
            self.see(max_t);
            self.chunks += 1;
            series.rare_mut().out_of_order_chunks.push(OutOfOrderChunk { commit, chunk });
        }
        Ok(())
    }

    pub(super) fn see(&mut self, t: Timestamp) {
        let range = self.range.get_or_insert(TimeRange::new(t, t));
        range.min = range.min.min(t);
        range.max = range.max.max(t);
    }
}
