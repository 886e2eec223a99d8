//! Reading a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use model::sample::{TimeRange, Timestamp};
use model::storage::{ABSENT_BITS, StorageError};

use super::{
    IN_FILE, IN_LINE, KIND_END, KIND_HEAD, KIND_HISTORY, KIND_SERIES, LAST_FLOAT, LAST_HISTOGRAM, LAST_NONE,
};
use crate::chunk::Chunk;
use crate::chunk::histogram::get_one;
use crate::coding::{DecodeError, Reader};
use crate::fs::FileSystem;
use crate::head::Head;
use crate::head::history::{History, HistoryState};
use crate::head::sealed::{Place, SealedWindow};
use crate::head::series::{ChunkBytes, FilePlace, OutOfOrderChunk, OwnChunk, Series, Starts, Stored};
use crate::head::window::{Coverage, RowPart};
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
        read: (0, 0),
        told: (0, 0),
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
            "checkpoint does not have as many series and histories as it says"
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

struct Loader<'a> {
    head: &'a Head,
    /// Head chunk files by number, and whether they are sound; `None`: gone.
    files: HashMap<u32, Option<(Arc<HeadFile>, bool)>>,
    range: Option<TimeRange>,
    chunks: usize,
    /// Chunks that are not where they should be.
    lost: u64,
    /// Series and histories, as read and as the end says.
    read: (u64, u64),
    told: (u64, u64),
    through: Option<u64>,
    /// The system's, or an unknown version.
    error: Option<StorageError>,
}

impl Loader<'_> {
    fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), DecodeError> {
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
            KIND_HISTORY => {
                self.read.1 += 1;
                self.history(&mut reader)
            }
            KIND_SERIES => {
                while !reader.is_empty() {
                    self.read.0 += 1;
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
                self.told = (reader.uvarint()?, reader.uvarint()?);
                self.through = Some(reader.uvarint()?);
                Ok(())
            }
            _ => Err(DecodeError::Unknown("record of a checkpoint")),
        }
    }

    fn history(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let history = Arc::new(History::new(reader.uvarint()?));
        let mut state = HistoryState { closed: true, ..HistoryState::default() };
        for _ in 0..reader.count(6)? {
            if let Some(window) = self.window(reader)? {
                self.see(window.min_t);
                self.see(window.max_t);
                self.head.saw_in_order(window.min_t);
                self.chunks += window.chunks();
                let window = Arc::new(window);
                if window.is_in_memory() {
                    self.head.unflushed_windows.lock().push((Arc::clone(&history), Arc::clone(&window)));
                }
                state.sealed.push(window);
            }
        }
        let slots = reader.count(8)?;
        let current = (0..slots).map(|_| reader.u64_le()).collect::<Result<Vec<_>, _>>()?;
        let runs = reader.count(2)?;
        let runs = (0..runs).map(|_| Ok((reader.uvarint32()?, reader.varint()?)));
        let covered = Coverage::of_runs(runs.collect::<Result<Vec<_>, DecodeError>>()?);
        let gone = reader.count(10)?;
        let gone = (0..gone).map(|_| Ok((reader.uvarint32()?, (reader.varint()?, reader.u64_le()?))));
        let gone = gone.collect::<Result<HashMap<_, _>, DecodeError>>()?;
        let rows = reader.count(4)?;
        for _ in 0..rows {
            let t = reader.varint()?;
            let from = reader.uvarint32()?;
            let to = from.checked_add(reader.uvarint32()?).ok_or(DecodeError::NumberRange)?;
            if to as usize > slots {
                return Err(DecodeError::Inconsistent("slots of a row"));
            }
            let values = reader.count(8)?;
            let words = RowPart::words_of(from, to);
            if words.saturating_add(values).saturating_mul(8) > reader.remaining() {
                return Err(DecodeError::UnexpectedEnd);
            }
            let words = (0..words).map(|_| reader.u64_le()).collect::<Result<Vec<_>, _>>()?;
            let values = (0..values).map(|_| reader.u64_le()).collect::<Result<Vec<_>, _>>()?;
            let marked: usize = words.iter().map(|word| word.count_ones() as usize).sum();
            if marked != values.len() {
                return Err(DecodeError::Inconsistent("values of a row"));
            }
            let row = RowPart { t, commit: 0, from, to, words: &words, values: &values };
            if row.changes().any(|(slot, _)| slot < from || slot >= to) {
                return Err(DecodeError::Inconsistent("slots of a row"));
            }
            self.see(t);
            self.head.saw_in_order(t);
            state.push(&row);
        }
        // Open rows need not have the newest sample of each slot.
        (state.current, state.covered, state.gone) = (current, covered, gone);
        state.present.clear();
        for slot in state.current.iter().enumerate().filter(|(_, value)| **value != ABSENT_BITS) {
            state.present.insert(slot.0);
        }
        if let Some(newest) = Some(state.covered.max()).filter(|newest| *newest > Timestamp::MIN) {
            self.see(newest);
        }
        *history.inner.write() = state;
        self.head.histories.lock().insert(history.id, history);
        Ok(())
    }

    /// `None`: its file is gone or cut off.
    fn window(&mut self, reader: &mut Reader<'_>) -> Result<Option<SealedWindow>, DecodeError> {
        let range = TimeRange::new(reader.varint()?, reader.varint()?);
        let rows = reader.uvarint32()?;
        let chunks = reader.uvarint32()?;
        let len = reader.count(1)?;
        let times = reader.bytes(len)?;
        let place = match reader.u8()? {
            IN_LINE => {
                let slots = reader.count(1)?;
                let (mut ends, mut end) = (Vec::with_capacity(slots), 0u32);
                for _ in 0..slots {
                    end = end.checked_add(reader.uvarint32()?).ok_or(DecodeError::NumberRange)?;
                    ends.push(end);
                }
                Some(Place::Memory { bytes: reader.bytes(end as usize)?.into(), ends: ends.into() })
            }
            IN_FILE => {
                let (number, offset) = (reader.uvarint32()?, reader.uvarint()?);
                let frames = reader.count(1)?;
                let frames = (0..frames).map(|_| reader.uvarint32()).collect::<Result<Box<[u32]>, _>>()?;
                let end = frames.iter().fold(offset, |end, len| end.saturating_add(u64::from(*len)));
                self.file(number, end).map(|file| Place::File { file, offset, frames })
            }
            _ => return Err(DecodeError::Unknown("place of chunks")),
        };
        if place.is_none() {
            self.lost += u64::from(chunks);
        }
        Ok(place.map(|place| SealedWindow::in_place(range, rows, times, chunks, place)))
    }

    /// File `number`, if it is there and has bytes up to `end`.
    fn file(&mut self, number: u32, end: u64) -> Option<Arc<HeadFile>> {
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
            series.delete(TimeRange::new(reader.varint()?, reader.varint()?));
        }
        self.chunks_of(&mut series, id, reader)?;
        let mut catalogue = self.head.catalogue.write();
        if catalogue.find(&labels).is_some() || self.head.table.with(id, |_| ()).is_some() {
            return Err(DecodeError::Inconsistent("series: two of them have the same labels or reference"));
        }
        self.head.table.insert(id, series);
        catalogue.insert(id, &labels);
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

    fn see(&mut self, t: Timestamp) {
        let range = self.range.get_or_insert(TimeRange::new(t, t));
        range.min = range.min.min(t);
        range.max = range.max.max(t);
    }
}
