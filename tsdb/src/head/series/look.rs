//! What readers take of a series: a snapshot for a view, or the value at a time.

use std::sync::Arc;

use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;

use super::own_chunk::{ChunkBytes, OwnChunk, in_memory};
use super::starts::Starts;
use super::{Series, Stored};
use crate::chunk::{HistogramValue, decode_into};
use crate::columns::Columns;
use crate::head::history::History;
use crate::head_chunks::FilePosition;

/// All of a series that a reader needs, copied under the page's lock; compressed parts stay compressed.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) histories: Vec<(Arc<History>, u32)>,
    /// In-order chunks, the open one included.
    pub(crate) chunks: Vec<OwnChunk>,
    /// Time from which the series' own in-order samples are hidden.
    pub(crate) hidden_from: Option<Timestamp>,
    pub(crate) histograms: Vec<(Timestamp, HistogramValue)>,
    pub(crate) late_chunks: Vec<OwnChunk>,
    pub(crate) out_of_order: Vec<(Timestamp, Stored)>,
    pub(crate) starts: Starts,
    /// Ranges without in-order samples: see [`hides`].
    pub(crate) deleted: Vec<TimeRange>,
}

/// Chunks of a series that are in files.
#[derive(Debug)]
pub(crate) struct FiledChunks {
    t: Timestamp,
    chunks: Vec<OwnChunk>,
    histories: Vec<(Arc<History>, u32)>,
}

impl FiledChunks {
    /// Brings them into the cache. Whoever needs them is told what is wrong with them.
    pub(crate) fn load(&self) {
        for chunk in &self.chunks {
            let _ = chunk.read(&mut Columns::default());
        }
        for (history, slot) in &self.histories {
            let _ = history.value_behind(FilePosition::START, *slot, self.t);
        }
    }
}

/// Whether one of `ranges`, which ascend and are apart from each other, holds `t`.
pub(crate) fn hides(ranges: &[TimeRange], t: Timestamp) -> bool {
    let next = ranges.partition_point(|range| range.max < t);
    ranges.get(next).is_some_and(|range| range.min <= t)
}

/// The sample at `t`; of two kinds the float.
fn value_in(columns: &Columns, t: Timestamp) -> Option<Stored> {
    let float = columns.times.iter().position(|time| *time == t);
    let histogram = || columns.histogram_times.iter().position(|time| *time == t);
    match float {
        Some(index) => Some(Stored::Float(columns.values[index].to_bits())),
        None => histogram().map(|index| Stored::Histogram(columns.histograms[index].clone())),
    }
}

impl Series {
    /// Copies what may hold samples of `range` for a view of `commit`.
    pub(crate) fn snapshot(&self, range: TimeRange, commit: u64) -> Snapshot {
        let histories = self.histories().map(|(history, slot)| (Arc::clone(history), slot)).collect();
        let mut snapshot = Snapshot { histories, ..Snapshot::default() };
        let Some(own) = &self.own else { return snapshot };
        snapshot.hidden_from = own.steps.hidden_from(commit);
        snapshot.chunks = own.chunks.iter().filter(|chunk| chunk.range().overlaps(&range)).cloned().collect();
        if TimeRange::new(own.open.range().0, own.open.range().1).overlaps(&range) {
            snapshot.chunks.extend(own.open_chunk());
        }
        let Some(rare) = &own.rare else { return snapshot };
        for late in
            rare.out_of_order_chunks.iter().map(|late| &late.chunk).filter(|c| c.range().overlaps(&range))
        {
            let bytes = ChunkBytes::Memory(late.bytes.clone());
            snapshot.late_chunks.push(OwnChunk { min_t: late.min_t, max_t: late.max_t, bytes });
        }
        let open = rare.histograms.iter().filter(|sample| range.contains(sample.0));
        snapshot.histograms = open.cloned().collect();
        let loose = rare.out_of_order.iter().filter(|s| s.commit <= commit && range.contains(s.t));
        snapshot.out_of_order = loose.map(|sample| (sample.t, sample.value.clone())).collect();
        snapshot.starts = rare.starts.clone();
        snapshot.deleted.clone_from(&rare.deleted);
        snapshot
    }

    /// The value stored at `t`, wherever it is, unless it is deleted. Decodes the chunks that span `t`.
    ///
    /// # Errors
    /// When a chunk cannot be read.
    #[cfg(test)]
    pub(crate) fn value_at(&self, t: Timestamp) -> Result<Option<Stored>, StorageError> {
        self.value_behind(FilePosition::START, Timestamp::MIN, t)
    }

    /// As [`Series::value_at`], but for chunks that are in files before `from`, which are not looked at, and in-order samples
    /// before `in_order_from`: what windows that reach behind it still have there is in blocks by now, and may be deleted.
    ///
    /// # Errors
    /// When a chunk cannot be read.
    pub(crate) fn value_behind(
        &self,
        from: FilePosition,
        in_order_from: Timestamp,
        t: Timestamp,
    ) -> Result<Option<Stored>, StorageError> {
        let at = TimeRange::new(t, t);
        let mut columns = Columns::default();
        if let Some(rare) = self.rare() {
            if let Ok(index) = rare.out_of_order.binary_search_by_key(&t, |sample| sample.t) {
                return Ok(Some(rare.out_of_order[index].value.clone()));
            }
            let late =
                rare.out_of_order_chunks.iter().filter(|_| rare.may_be_late(t)).map(|late| &late.chunk);
            for chunk in late.filter(|chunk| chunk.range().overlaps(&at)) {
                decode_into(&chunk.bytes, None, &mut columns).map_err(in_memory)?;
            }
            let found = value_in(&columns, t);
            if found.is_some() || hides(&rare.deleted, t) {
                return Ok(found);
            }
        }
        if t < in_order_from {
            return Ok(None);
        }
        if let Some(rare) = self.rare()
            && let Ok(index) = rare.histograms.binary_search_by_key(&t, |sample| sample.0)
        {
            return Ok(Some(Stored::Histogram(rare.histograms[index].1.clone())));
        }
        for (history, slot) in self.histories() {
            if let Some(bits) = history.value_behind(from, slot, t)? {
                return Ok(Some(Stored::Float(bits)));
            }
        }
        let Some(own) = &self.own else { return Ok(None) };
        columns.clear();
        let (min, max) = own.open.range();
        if own.open.len() > 0 && TimeRange::new(min, max).overlaps(&at) {
            decode_into(&own.open.chunk_bytes(), None, &mut columns).map_err(in_memory)?;
        }
        for chunk in own.chunks.iter().filter(|chunk| chunk.range().overlaps(&at) && !chunk.is_before(from)) {
            chunk.read(&mut columns)?;
        }
        Ok(value_in(&columns, t))
    }

    /// The chunks in files that [`Series::value_at`] would read, to be read without a lock before; `None`: there are none, as
    /// for a sample that is newer than all others.
    pub(crate) fn filed_at(&self, t: Timestamp) -> Option<FiledChunks> {
        let row = self.history().and_then(|(history, slot)| history.latest(slot)).map(|row| row.0);
        if self.last_own_t().max(row).is_none_or(|newest| t >= newest) {
            return None;
        }
        let at = TimeRange::new(t, t);
        let chunks = self.own.iter().flat_map(|own| &own.chunks);
        let chunks: Vec<OwnChunk> =
            chunks.filter(|chunk| chunk.file().is_some() && chunk.range().overlaps(&at)).cloned().collect();
        let histories: Vec<_> = self.histories().map(|(history, slot)| (Arc::clone(history), slot)).collect();
        (!chunks.is_empty() || !histories.is_empty()).then_some(FiledChunks { t, chunks, histories })
    }
}
