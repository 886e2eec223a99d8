//! The columns of times of a block being written: equal ones are stored once.
//!
//! Series of a target are sampled at the same milliseconds, in all batches. A column is found again by a hash of its
//! content; 128 bits with a seed that nobody outside knows, so columns with equal hashes are equal. Times that are some
//! of a column's, as of a series with gaps, are stored as the rows of that one; candidates are those that begin or end at the
//! same time, compared in full.
//!
//! What is remembered is bounded; what was forgotten is stored again when it comes again.

use std::sync::Arc;

use hashbrown::HashMap;
use model::sample::Timestamp;
use model::storage::StorageError;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::directory::FrameRef;
use super::files::ChunkFiles;
use crate::chunk::{decode_times, encode_times};
use crate::coding::{DecodeError, Reader, put_uvarint};
use crate::frame::{Compression, FrameBuilder};

/// Columns of a frame: what a target's series have in a block, or a batch of targets in one window.
const FRAME_COLUMNS_MAX: usize = 64;
/// Bytes after which a frame of columns is closed.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Columns found again by their hash: 32 bytes each.
const KNOWN_MAX: usize = 1 << 20;
/// Times of columns that are kept to look for gaps in them: 16 MiB.
const RECENT_TIMES_MAX: usize = 2 << 20;
/// Most times of a column, for readers.
const COLUMN_TIMES_MAX: usize = 1 << 16;

/// A column in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ColumnKey {
    /// Number of its frame among those of columns, see [`TimeColumns::frame`].
    pub(super) frame: usize,
    pub(super) place: usize,
}

/// Where the times of a chunk are.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) column: ColumnKey,
    /// The column and which of its rows; `None`: all.
    pub(super) rows: Option<(Arc<[Timestamp]>, Vec<bool>)>,
}

#[derive(Debug)]
pub(super) struct TimeColumns {
    seed: u64,
    known: HashMap<u128, ColumnKey>,
    recent: Vec<(Arc<[Timestamp]>, ColumnKey)>,
    recent_times: usize,
    by_first: HashMap<Timestamp, usize>,
    by_last: HashMap<Timestamp, usize>,
    frames: Vec<FrameRef>,
    frame: FrameBuilder,
    scratch: Vec<u8>,
    /// Of all frames, for reports.
    pub(super) bytes: u64,
    /// Columns stored.
    pub(super) columns: u64,
}

impl TimeColumns {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            known: HashMap::new(),
            recent: Vec::new(),
            recent_times: 0,
            by_first: HashMap::new(),
            by_last: HashMap::new(),
            frames: Vec::new(),
            frame: FrameBuilder::new(),
            scratch: Vec::new(),
            bytes: 0,
            columns: 0,
        }
    }

    /// A place for these times, which ascend and are not none. New columns wait for [`TimeColumns::flush`].
    pub(super) fn place(
        &mut self,
        times: &[Timestamp],
        files: &mut ChunkFiles,
        compression: Compression,
    ) -> Result<Placed, StorageError> {
        self.scratch.clear();
        self.scratch.extend(times.iter().flat_map(|t| t.to_le_bytes()));
        let hash = xxh3_128_with_seed(&self.scratch, self.seed);
        if let Some(column) = self.known.get(&hash) {
            return Ok(Placed { column: *column, rows: None });
        }
        if let Some(placed) = self.rows_of_another(times) {
            return Ok(placed);
        }
        let column = ColumnKey { frame: self.frames.len(), place: self.frame.len() };
        self.frame.push_with(|out| {
            put_uvarint(out, times.len() as u64);
            encode_times(times, out);
        });
        self.columns += 1;
        self.remember(hash, times, column);
        if self.frame.len() >= FRAME_COLUMNS_MAX || self.frame.bytes() >= FRAME_BYTES_MAX {
            self.flush(files, compression)?;
        }
        Ok(Placed { column, rows: None })
    }

    fn remember(&mut self, hash: u128, times: &[Timestamp], column: ColumnKey) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(hash, column);
        if self.recent_times + times.len() > RECENT_TIMES_MAX {
            self.recent.clear();
            self.by_first.clear();
            self.by_last.clear();
            self.recent_times = 0;
        }
        if let [first, .., last] = times {
            self.by_first.insert(*first, self.recent.len());
            self.by_last.insert(*last, self.recent.len());
            self.recent.push((times.into(), column));
            self.recent_times += times.len();
        }
    }

    /// The rows of a column that is known, if these times are some of its.
    fn rows_of_another(&self, times: &[Timestamp]) -> Option<Placed> {
        let (first, last) = (times.first()?, times.last()?);
        let candidates = [self.by_last.get(last), self.by_first.get(first)];
        candidates.into_iter().flatten().find_map(|slot| {
            let (of, column) = self.recent.get(*slot)?;
            let rows = rows_of(times, of)?;
            Some(Placed { column: *column, rows: Some((Arc::clone(of), rows)) })
        })
    }

    /// Writes the columns that wait.
    pub(super) fn flush(
        &mut self,
        files: &mut ChunkFiles,
        compression: Compression,
    ) -> Result<(), StorageError> {
        if !self.frame.is_empty() {
            let at = files.put(&mut self.frame, compression)?;
            self.bytes += u64::from(at.len);
            self.frames.push(at);
        }
        Ok(())
    }

    /// Where a frame of columns is; it was flushed.
    pub(super) fn frame(&self, number: usize) -> FrameRef {
        self.frames[number]
    }
}

/// Which rows of `of` are these times; `None` when they are not its, or so few that a column of their own is smaller.
fn rows_of(times: &[Timestamp], of: &[Timestamp]) -> Option<Vec<bool>> {
    let from = of.binary_search(times.first()?).ok()?;
    let to = of.binary_search(times.last()?).ok()?;
    // A run is told by two numbers, scattered rows by a bit each, a column by about two bits for a time.
    let run = to - from + 1 == times.len();
    if !run && times.len() * 4 < of.len() {
        return None;
    }
    let mut rows = vec![false; of.len()];
    let mut left = times.iter().peekable();
    for (row, t) in rows[from..=to].iter_mut().zip(&of[from..=to]) {
        *row = left.next_if_eq(&t).is_some();
    }
    left.peek().is_none().then_some(rows)
}

/// The times of a column's chunk.
pub(super) fn decode_column(chunk: &[u8]) -> Result<Vec<Timestamp>, DecodeError> {
    let mut reader = Reader::new(chunk);
    let count = usize::try_from(reader.uvarint()?).ok().filter(|count| *count <= COLUMN_TIMES_MAX);
    let count = count.ok_or(DecodeError::Inconsistent("number of times"))?;
    let mut times = Vec::new();
    decode_times(&mut reader, count, &mut times)?;
    if !reader.is_empty() {
        return Err(DecodeError::Inconsistent("end of a column"));
    }
    if times.is_sorted_by(|a, b| a < b) {
        Ok(times)
    } else {
        Err(DecodeError::Inconsistent("order of times"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_by_the_column_that_has_them() {
        let of: Vec<i64> = (0..100).map(|i| i * 10).collect();
        let rows = |times: &[i64]| {
            rows_of(times, &of)
                .map(|rows| of.iter().zip(rows).filter(|(_, row)| *row).map(|(t, _)| *t).collect::<Vec<_>>())
        };
        assert_eq!(rows(&of[90..]), Some(of[90..].to_vec()), "a run");
        let gaps: Vec<i64> = of.iter().copied().filter(|t| t % 30 != 0).collect();
        assert_eq!(rows(&gaps), Some(gaps.clone()));
        assert_eq!(rows(&[0, 500, 990]), None, "a few here and there");
        assert_eq!(rows(&[0, 10, 25, 30]), None, "one is not in it");
        assert_eq!(rows(&[0, 10, 1000]), None);
    }

    #[test]
    fn columns_of_disorder_are_refused() {
        let column = |times: &[i64]| {
            let mut out = Vec::new();
            put_uvarint(&mut out, times.len() as u64);
            encode_times(times, &mut out);
            decode_column(&out)
        };
        assert_eq!(column(&[1, 2, 5]), Ok(vec![1, 2, 5]));
        assert!(column(&[1, 2, 2]).is_err());
        assert!(decode_column(&[0xff, 0xff, 0xff, 0x7f, 1]).is_err());
    }
}
