//! A sealed window: the rows of a layout over some time, as one column of times and a chunk for each slot.
//!
//! Immutable. Chunks are in memory until they are written to a [`HeadFile`]; there, those of 64 neighbouring slots are one
//! frame. Memory keeps the times (a few bytes for regular ones) and the lengths of frames.

use std::sync::Arc;

use model::sample::{TimeRange, Timestamp};
use model::storage::{ABSENT_BITS, StorageError};

use super::window::Rows;
use crate::chunk::{Effort, decode_into, decode_times, encode_floats, encode_times};
use crate::coding::{DecodeError, Reader};
use crate::columns::Columns;
use crate::frame::{Compression, FrameBuilder, chunk_of};
use crate::head_chunks::{FilePosition, HeadFile};

/// Slots whose chunks are one frame.
pub(crate) const FRAME_SLOTS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct SealedWindow {
    pub(crate) min_t: Timestamp,
    pub(crate) max_t: Timestamp,
    /// Number of times.
    pub(crate) rows: u32,
    pub(crate) times: Box<[u8]>,
    chunks: u32,
    /// Rows that not every view saw when it was sealed.
    hidden: Box<[HiddenRow]>,
    pub(crate) place: Place,
}

/// Where chunks are.
#[derive(Debug)]
pub(crate) enum Place {
    /// All chunks, and where each slot's ends.
    Memory { bytes: Box<[u8]>, ends: Box<[u32]> },
    /// Frames behind each other from `offset` on, with their lengths; an empty one is not there.
    File { file: Arc<HeadFile>, offset: u64, frames: Box<[u32]> },
}

/// A row of `from..to` at `t` that views before `commit` do not see.
#[derive(Clone, Copy, Debug)]
struct HiddenRow {
    commit: u64,
    t: Timestamp,
    from: u32,
    to: u32,
}

impl SealedWindow {
    /// What `rows` hold of the slots below `slots`; `None` when that is nothing. Views of commits behind `watermark` and
    /// before the rows' do not see all of it.
    pub(crate) fn of(rows: &Rows, slots: usize, watermark: u64) -> Option<Self> {
        let (min_t, max_t) = rows.range()?;
        let (times, places) = rows.times();
        let mut column = Vec::new();
        encode_times(&times, &mut column);
        let (mut bytes, mut ends, mut chunks) = (Vec::new(), Vec::with_capacity(slots), 0);
        let (mut values, mut present) = (Vec::with_capacity(times.len()), Vec::with_capacity(times.len()));
        rows.for_each_column(slots, times.len(), &places, |_, column| {
            values.clear();
            values
                .extend(column.iter().filter(|bits| **bits != ABSENT_BITS).map(|bits| f64::from_bits(*bits)));
            if !values.is_empty() {
                chunks += 1;
                let all = values.len() == times.len();
                present.clear();
                if !all {
                    present.extend(column.iter().map(|bits| *bits != ABSENT_BITS));
                }
                encode_floats(
                    &times,
                    true,
                    (!all).then_some(&present),
                    &values,
                    &[],
                    Effort::Quick,
                    &mut bytes,
                );
            }
            ends.push(u32::try_from(bytes.len()).expect("a window is sealed long before it has 4 GiB"));
        });
        let hidden = rows.behind(watermark);
        let hidden = hidden.map(|row| HiddenRow { commit: row.commit, t: row.t, from: row.from, to: row.to });
        Some(Self {
            min_t,
            max_t,
            rows: u32::try_from(times.len()).expect("rows are numbered by u32"),
            times: column.into(),
            chunks,
            hidden: hidden.collect(),
            place: Place::Memory { bytes: bytes.into(), ends: ends.into() },
        })
    }

    /// A window that was written before.
    pub(crate) fn in_place(range: TimeRange, rows: u32, times: &[u8], chunks: u32, place: Place) -> Self {
        Self {
            min_t: range.min,
            max_t: range.max,
            rows,
            times: times.into(),
            chunks,
            hidden: Box::default(),
            place,
        }
    }

    pub(crate) fn range(&self) -> TimeRange {
        TimeRange::new(self.min_t, self.max_t)
    }

    /// Number of slots with samples.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks as usize
    }

    /// The times of its rows.
    fn times(&self) -> Result<Arc<Vec<Timestamp>>, StorageError> {
        let decode = || {
            let mut times = Vec::new();
            decode_times(&mut Reader::new(&self.times), self.rows as usize, &mut times).map_err(in_memory)?;
            Ok(times)
        };
        match &self.place {
            Place::Memory { .. } => decode().map(Arc::new),
            Place::File { file, offset, .. } => file.times(*offset, decode),
        }
    }

    /// Hands the chunk of `slot` to `take`, unless there is none.
    fn with_chunk<R>(
        &self,
        slot: u32,
        take: impl FnOnce(&[u8]) -> Result<R, DecodeError>,
    ) -> Result<Option<R>, StorageError> {
        let slot = slot as usize;
        match &self.place {
            Place::Memory { bytes, ends } => {
                let Some(&end) = ends.get(slot) else { return Ok(None) };
                let start = slot.checked_sub(1).map_or(0, |before| ends[before]);
                let chunk = &bytes[start as usize..end as usize];
                if chunk.is_empty() { Ok(None) } else { take(chunk).map(Some).map_err(in_memory) }
            }
            Place::File { file, offset, frames } => {
                let (index, within) = (slot / FRAME_SLOTS, slot % FRAME_SLOTS);
                let Some(&len) = frames.get(index).filter(|len| **len > 0) else { return Ok(None) };
                let at = offset + frames[..index].iter().map(|len| u64::from(*len)).sum::<u64>();
                let plain = file.frame(at, len)?;
                let chunk = chunk_of(&plain, within).map_err(|error| file.damaged(at, error))?;
                if chunk.is_empty() {
                    return Ok(None);
                }
                take(chunk).map(Some).map_err(|error| file.damaged(at, error))
            }
        }
    }

    /// Appends the samples of `slot` that a view of `commit` sees, in order of time.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn read(&self, slot: u32, commit: u64, into: &mut Columns) -> Result<(), StorageError> {
        let times = self.times()?;
        let before = into.times.len();
        self.with_chunk(slot, |chunk| decode_into(chunk, Some(&times), into))?;
        let hides = |row: &&HiddenRow| row.commit > commit && row.from <= slot && slot < row.to;
        if let Some(from) = self.hidden.iter().filter(hides).map(|row| row.t).min() {
            let keep = before + into.times[before..].partition_point(|t| *t < from);
            into.times.truncate(keep);
            into.values.truncate(keep);
            into.starts.truncate(keep);
        }
        Ok(())
    }

    /// The value of `slot` at `t`. Reads the chunk only where the window has a row at that time.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn value_at(&self, slot: u32, t: Timestamp) -> Result<Option<u64>, StorageError> {
        if self.times()?.binary_search(&t).is_err() {
            return Ok(None);
        }
        let mut columns = Columns::default();
        self.read(slot, u64::MAX, &mut columns)?;
        Ok(columns.times.binary_search(&t).ok().map(|index| columns.values[index].to_bits()))
    }

    /// Appends the frames of its chunks; answers their lengths. `None` when they are in a file already.
    pub(crate) fn frames(&self, builder: &mut FrameBuilder, out: &mut Vec<u8>) -> Option<Box<[u32]>> {
        let Place::Memory { bytes, ends } = &self.place else { return None };
        let (mut start, mut frames) = (0, Vec::with_capacity(ends.len().div_ceil(FRAME_SLOTS)));
        for group in ends.chunks(FRAME_SLOTS) {
            let end = group.last().copied().unwrap_or(start);
            if end == start {
                frames.push(0);
                continue;
            }
            builder.clear();
            for slot_end in group {
                builder.push(&bytes[start as usize..*slot_end as usize]);
                start = *slot_end;
            }
            let len = builder.finish(Compression::Lz4, out);
            frames.push(u32::try_from(len).expect("frames are bounded"));
        }
        Some(frames.into())
    }

    /// The same, in a file.
    pub(crate) fn moved(&self, file: &Arc<HeadFile>, offset: u64, frames: Box<[u32]>) -> Self {
        Self {
            times: self.times.clone(),
            hidden: self.hidden.clone(),
            place: Place::File { file: Arc::clone(file), offset, frames },
            ..*self
        }
    }

    /// The file that its chunks are in.
    pub(crate) fn file(&self) -> Option<&Arc<HeadFile>> {
        match &self.place {
            Place::Memory { .. } => None,
            Place::File { file, .. } => Some(file),
        }
    }

    /// Whether its chunks are in a file, before this place.
    pub(crate) fn is_before(&self, place: FilePosition) -> bool {
        matches!(&self.place, Place::File { file, offset, .. } if FilePosition::new(file.number, *offset) < place)
    }

    /// Whether its chunks are not in a file.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.place, Place::Memory { .. })
    }
}

fn in_memory(what: DecodeError) -> StorageError {
    StorageError::Corrupted { file: "(head in memory)".into(), offset: 0, what: what.to_string() }
}
