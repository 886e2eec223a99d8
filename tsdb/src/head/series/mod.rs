//! One series in the head: the rows that a layout writes for it, its own chunks and open ends, its out-of-order samples.
//!
//! Kept small, since there may be millions: a series that a layout writes is a place in a [`History`] and nothing else; what is
//! written sample by sample hangs on a box, and what only some series have on another. Labels live in the catalogue.

mod look;
mod own_chunk;
mod rare;
mod starts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::sample::{TimeRange, Timestamp};

use super::history::History;
use super::view::Steps;
use crate::chunk::xor::SampleEncoder;
use crate::chunk::{CHUNK_SAMPLES_MAX, CHUNK_SPAN_MAX_MS, Chunk, HistogramValue};

pub(crate) use look::{Snapshot, hides};
pub(crate) use own_chunk::{ChunkBytes, FilePlace, OwnChunk};
pub(crate) use rare::{Cut, Dropped, OutOfOrderChunk, Rare};
pub(crate) use starts::Starts;

/// Histograms after which a chunk is closed: they take tens of bytes each, and decoding is all or nothing.
const HISTOGRAM_SAMPLES_MAX: usize = 60;

/// A stored value of any kind.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    /// The bits of a float.
    Float(u64),
    Histogram(HistogramValue),
}

impl Stored {
    /// Whether kind and all bits agree, but for what histograms say of their predecessors.
    pub(crate) fn same_bits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Histogram(a), Self::Histogram(b)) => a.same_but_hint(b),
            (Self::Float(_), Self::Histogram(_)) | (Self::Histogram(_), Self::Float(_)) => false,
        }
    }
}

/// A series.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// What a layout wrote, and writes as long as nobody else does; the series is `slot` there.
    history: Option<Arc<History>>,
    pub(crate) own: Option<Box<Own>>,
    slot: u32,
    /// Layouts that name the series; `MAX`: too many to count.
    pins: u16,
    /// Found empty by the collector and not looked up since.
    idle: AtomicBool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The log does not have its labels.
    #[default]
    New,
    Logged,
    /// Gone from the catalogue; freed when no reader holds it.
    Unlinked,
}

/// Rows of a layout, and the slot in them.
pub(crate) type PlaceInRows = (Arc<History>, u32);

/// What a series has that is not in the rows of a layout.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// In-order chunks, ascending for each kind.
    pub(crate) chunks: Vec<OwnChunk>,
    /// The open column of floats.
    pub(crate) open: SampleEncoder,
    /// Commits that not every view sees.
    steps: Steps,
    pub(crate) rare: Option<Box<Rare>>,
    /// Layouts that wrote the series before, and where.
    #[expect(clippy::box_collection, reason = "small where there are none")]
    past: Option<Box<Vec<PlaceInRows>>>,
    /// Newest in-order sample but for those in a history that still is the series'.
    last_t: Timestamp,
    last_bits: u64,
    last_kind: LastKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LastKind {
    #[default]
    None,
    Float,
    /// The value is in [`Rare::last_histogram`].
    Histogram,
}

/// A series that must be looked at with more care: see [`Series::plain_last`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotPlain;

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// Chunks that were closed.
    pub(crate) chunks: usize,
    pub(crate) in_order: bool,
}

impl Series {
    /// An empty series that the log has.
    pub(crate) fn logged() -> Self {
        Self { stage: Stage::Logged, ..Self::default() }
    }

    pub(crate) fn is_logged(&self) -> bool {
        self.stage != Stage::New
    }

    pub(crate) fn set_logged(&mut self) {
        if self.stage == Stage::New {
            self.stage = Stage::Logged;
        }
    }

    pub(crate) fn is_unlinked(&self) -> bool {
        self.stage == Stage::Unlinked
    }

    pub(crate) fn set_unlinked(&mut self) {
        self.stage = Stage::Unlinked;
    }

    /// A layout names the series.
    pub(crate) fn pin(&mut self) {
        self.pins = self.pins.saturating_add(1);
    }

    /// A layout that named it does so no more.
    pub(crate) fn unpin(&mut self) {
        if self.pins < u16::MAX {
            self.pins = self.pins.saturating_sub(1);
        }
    }

    /// The layout's rows that go on with the series' samples.
    pub(crate) fn history(&self) -> Option<(&Arc<History>, u32)> {
        self.history.as_ref().map(|history| (history, self.slot))
    }

    /// All rows that hold samples of the series, the oldest first.
    pub(crate) fn histories(&self) -> impl Iterator<Item = (&Arc<History>, u32)> {
        let past = self.own.iter().filter_map(|own| own.past.as_ref()).flat_map(|past| past.iter());
        past.map(|(history, slot)| (history, *slot)).chain(self.history())
    }

    /// Restores where rows are.
    pub(crate) fn set_histories(&mut self, past: Vec<(Arc<History>, u32)>, now: Option<(Arc<History>, u32)>) {
        if !past.is_empty() {
            self.own.get_or_insert_default().past = Some(Box::new(past));
        }
        if let Some((history, slot)) = now {
            (self.history, self.slot) = (Some(history), slot);
        }
    }

    fn rare(&self) -> Option<&Rare> {
        self.own.as_ref()?.rare.as_deref()
    }

    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.own.get_or_insert_default().rare.get_or_insert_default()
    }

    /// The newest in-order sample.
    pub(crate) fn latest(&self) -> Option<(Timestamp, Stored)> {
        let own = self.last_own();
        let row = self.history().and_then(|(history, slot)| history.latest(slot));
        match (own, row) {
            (Some(own), Some((t, _))) if own.0 >= t => Some(own),
            (_, Some((t, bits))) => Some((t, Stored::Float(bits))),
            (own, None) => own,
        }
    }

    /// The newest in-order sample that is not in the rows of its layout.
    pub(crate) fn last_own(&self) -> Option<(Timestamp, Stored)> {
        let own = self.own.as_ref()?;
        let value = match own.last_kind {
            LastKind::None => return None,
            LastKind::Float => Stored::Float(own.last_bits),
            LastKind::Histogram => {
                let last = own.rare.as_ref()?.last_histogram.clone();
                Stored::Histogram(last.expect("kept with the kind"))
            }
        };
        Some((own.last_t, value))
    }

    /// The newest sample of a series that is written sample by sample, with floats only so far: `Err` for any other.
    pub(crate) fn plain_last(&self) -> Result<Option<(Timestamp, u64)>, NotPlain> {
        if self.history.is_some() || self.is_unlinked() || self.is_idle() {
            return Err(NotPlain);
        }
        let Some(own) = &self.own else { return Ok(None) };
        match own.last_kind {
            LastKind::None => Ok(None),
            // One that is deleted may come again.
            LastKind::Float if !self.hides(own.last_t) => Ok(Some((own.last_t, own.last_bits))),
            LastKind::Float | LastKind::Histogram => Err(NotPlain),
        }
    }

    /// Looks at what writing the next float looks at, but for [`Series::warm_tail`]: many series at a time wait for memory
    /// together, and not one by one when they are written. The answer means nothing.
    #[inline]
    pub(crate) fn warm(&self) -> u8 {
        self.own.as_ref().map_or(0, |own| own.last_kind as u8 ^ own.steps.warm() ^ own.open.warm())
    }

    /// Looks at the place where the next float goes.
    #[inline]
    pub(crate) fn warm_tail(&self) -> u8 {
        self.own.as_ref().map_or(0, |own| own.open.warm_tail())
    }

    /// The newest in-order sample if it is a histogram.
    fn last_histogram(&self) -> Option<&HistogramValue> {
        let own = self.own.as_ref().filter(|own| own.last_kind == LastKind::Histogram)?;
        own.rare.as_ref()?.last_histogram.as_ref()
    }

    fn last_own_t(&self) -> Option<Timestamp> {
        self.own.as_ref().filter(|own| own.last_kind != LastKind::None).map(|own| own.last_t)
    }

    pub(crate) fn set_last(&mut self, t: Timestamp, value: &Stored) {
        let own = self.own.get_or_insert_default();
        own.last_t = t;
        match value {
            Stored::Float(bits) => {
                own.last_bits = *bits;
                own.last_kind = LastKind::Float;
            }
            Stored::Histogram(histogram) => {
                own.rare.get_or_insert_default().last_histogram = Some(histogram.clone());
                own.last_kind = LastKind::Histogram;
            }
        }
    }

    /// Whether the next look of the collector may take it; a look-up by a writer says no.
    pub(crate) fn touch(&self) {
        self.idle.store(false, Ordering::Relaxed);
    }

    /// Marks an empty series; says whether it was marked already.
    pub(crate) fn mark_idle(&self) -> bool {
        self.idle.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Whether nothing is stored and nobody is about to.
    pub(crate) fn is_empty(&self) -> bool {
        self.history.is_none()
            && self.pins == 0
            && self.own.as_ref().is_none_or(|own| {
                own.chunks.is_empty()
                    && own.open.len() == 0
                    && own.past.is_none()
                    && own.rare.as_ref().is_none_or(|rare| rare.is_empty())
            })
    }

    pub(crate) fn push_chunk(&mut self, chunk: impl Into<OwnChunk>) {
        let chunks = &mut self.own.get_or_insert_default().chunks;
        if chunks.len() == chunks.capacity() {
            // Doubling would waste half a chunk head per chunk on average over a million series.
            chunks.reserve_exact(chunks.len() / 4 + 1);
        }
        chunks.push(chunk.into());
    }

    /// Appends or inserts a sample that was admitted.
    pub(crate) fn add(&mut self, t: Timestamp, mut value: Stored, start: Timestamp, at: CommitMark) -> Added {
        self.touch();
        let row = self.history().and_then(|(history, slot)| history.latest(slot));
        let newest = self.last_own_t().max(row.map(|row| row.0));
        let in_order = t >= at.in_order_from && newest.is_none_or(|newest| t > newest);
        if start != 0 || self.rare().is_some_and(|rare| !rare.starts.is_empty()) {
            self.rare_mut().starts.note(t, start, in_order);
        }
        if !in_order {
            if let Stored::Histogram(histogram) = &mut value {
                // Another one may come before it at any time.
                histogram.forget_hint();
            }
            return Added { chunks: self.rare_mut().insert(t, value, at), in_order };
        }
        self.detach();
        if let Stored::Histogram(histogram) = &mut value {
            histogram.relate_to(self.last_histogram());
        }
        self.set_last(t, &value);
        let own = self.own.get_or_insert_default();
        own.steps.note(at.commit, t, at.watermark);
        let chunks = match value {
            Stored::Float(bits) => self.append_float(t, bits),
            Stored::Histogram(histogram) => self.append_histogram(t, histogram),
        };
        Added { chunks, in_order }
    }

    fn append_float(&mut self, t: Timestamp, bits: u64) -> usize {
        let stream = &self.own.get_or_insert_default().open;
        let full = stream.len() >= CHUNK_SAMPLES_MAX
            || stream.len() > 0 && t.saturating_sub(stream.range().0) >= CHUNK_SPAN_MAX_MS;
        let sealed = if full { self.seal_open() } else { 0 };
        self.own.get_or_insert_default().open.push(t, bits);
        sealed
    }

    fn append_histogram(&mut self, t: Timestamp, histogram: HistogramValue) -> usize {
        let rare = self.rare_mut();
        let full = rare.histograms.first().is_some_and(|first| {
            rare.histograms.len() >= HISTOGRAM_SAMPLES_MAX || t.saturating_sub(first.0) >= CHUNK_SPAN_MAX_MS
        });
        let sealed = if full { self.seal_histograms() } else { 0 };
        self.rare_mut().histograms.push((t, histogram));
        sealed
    }

    /// Makes a chunk of the open column.
    fn seal_open(&mut self) -> usize {
        let Some(own) = self.own.as_mut().filter(|own| own.open.len() > 0) else { return 0 };
        let stream = std::mem::take(&mut own.open);
        let (min_t, max_t) = stream.range();
        let bytes = ChunkBytes::Memory(stream.chunk_bytes().into());
        self.push_chunk(OwnChunk { min_t, max_t, bytes });
        1
    }

    fn seal_histograms(&mut self) -> usize {
        let samples = std::mem::take(&mut self.rare_mut().histograms);
        let Some(chunk) = Chunk::of_histograms(&samples) else { return 0 };
        self.push_chunk(chunk);
        1
    }

    /// Goes on in the rows of a layout, if the series has nothing newer than `t`, the time of the first one.
    pub(crate) fn join(&mut self, history: &Arc<History>, slot: u32, t: Timestamp) -> bool {
        if self.history().is_some_and(|(now, at)| Arc::ptr_eq(now, history) && at == slot) {
            return true;
        }
        self.touch();
        self.detach();
        if self.last_own_t().is_some_and(|last| last >= t) {
            return false;
        }
        if let Some(past) = self.own.as_mut().and_then(|own| own.past.as_mut()) {
            past.retain(|(past, at)| !(Arc::ptr_eq(past, history) && *at == slot));
        }
        (self.history, self.slot) = (Some(Arc::clone(history)), slot);
        true
    }

    /// Lets go of the layout that the series was written by; its rows remain the series'.
    fn detach(&mut self) {
        let Some(history) = self.history.take() else { return };
        let slot = self.slot;
        let last = {
            let mut rows = history.inner.write();
            rows.lost.insert(slot as usize);
            rows.latest(slot)
        };
        let Some((t, bits)) = last else { return };
        if self.last_own_t().is_none_or(|own| own < t) {
            self.set_last(t, &Stored::Float(bits));
        }
        self.own.get_or_insert_default().past.get_or_insert_default().push((history, slot));
    }

    /// Not later than any in-order sample; `MAX` without them.
    pub(crate) fn in_order_min(&self) -> Timestamp {
        let mut min = Timestamp::MAX;
        for (history, _) in self.histories() {
            min = history.inner.read().range().map_or(min, |range| min.min(range.0));
        }
        let Some(own) = &self.own else { return min };
        let chunks = own.chunks.iter().map(|chunk| chunk.min_t);
        let open = (own.open.len() > 0).then(|| own.open.range().0);
        let histogram = own.rare.as_ref().and_then(|rare| rare.histograms.first()).map(|sample| sample.0);
        chunks.chain(open).chain(histogram).fold(min, Timestamp::min)
    }

    /// Not later than any sample; `MAX` without them.
    pub(crate) fn min_t(&self) -> Timestamp {
        let mut min = self.in_order_min();
        self.out_of_order_spans(|from, _| min = min.min(from));
        min
    }

    /// Not earlier than any sample.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        let mut newest = self.in_order_newest();
        self.out_of_order_spans(|_, max| newest = newest.max(Some(max)));
        newest
    }

    /// The newest in-order sample, also one that is in a block only: it is remembered.
    pub(crate) fn in_order_newest(&self) -> Option<Timestamp> {
        let row = self.history().and_then(|(history, slot)| history.latest(slot)).map(|row| row.0);
        self.last_own_t().max(row)
    }

    /// Whether the newest in-order sample lies in `range`, be it stored here or not.
    pub(crate) fn remembers(&self, range: TimeRange) -> bool {
        self.in_order_newest().is_some_and(|newest| range.contains(newest))
    }

    /// Whether some sample may lie in `range`.
    pub(crate) fn may_overlap(&self, range: TimeRange) -> bool {
        // Samples that came after the head was frozen may be newer than all in-order ones, or the only ones.
        let mut late = false;
        self.out_of_order_spans(|min, max| late |= min <= range.max && max >= range.min);
        if late {
            return true;
        }
        self.in_order_newest().is_some_and(|last| last >= range.min) && self.in_order_min() <= range.max
    }

    /// Drops chunks that end before `floor`, and in-order ones that end before `in_order_floor`. Answers how many. Histories
    /// are trimmed by themselves.
    pub(crate) fn trim(&mut self, floor: Timestamp, in_order_floor: Timestamp) -> usize {
        if let Some((history, slot)) = self.history()
            && self.pins == 0
        {
            let last = history.latest(slot);
            if last.is_none_or(|(t, _)| t < in_order_floor) {
                self.history = None;
            }
        }
        let Some(own) = &mut self.own else { return 0 };
        let before = own.chunks.len();
        own.chunks.retain(|chunk| chunk.max_t >= in_order_floor);
        if own.open.len() > 0 && own.open.range().1 < in_order_floor {
            own.open = SampleEncoder::default();
        }
        if let Some(past) = &mut own.past {
            past.retain(|(history, slot)| {
                let state = history.inner.read();
                state.range().is_some_and(|range| range.1 >= in_order_floor)
                    && state.latest(*slot).is_none_or(|(t, _)| t >= in_order_floor)
            });
            if past.is_empty() {
                own.past = None;
            }
        }
        let dropped = before - own.chunks.len();
        let hidden_floor = self.hidden_floor(in_order_floor);
        let Some(rare) = self.own.as_mut().and_then(|own| own.rare.as_mut()) else { return dropped };
        let before = rare.out_of_order_chunks.len();
        rare.trim(floor, in_order_floor, hidden_floor);
        dropped + before - rare.out_of_order_chunks.len()
    }

    /// From where on deletions matter: chunks, windows and open ends that straddle the floor stay whole, and the newest sample is
    /// remembered. What is deleted there would be found again by whoever writes it once more, and not by readers.
    fn hidden_floor(&self, in_order_floor: Timestamp) -> Timestamp {
        if self.rare().is_none_or(|rare| rare.deleted.is_empty()) {
            return in_order_floor;
        }
        let newest = self.in_order_newest().unwrap_or(Timestamp::MAX);
        in_order_floor.min(self.in_order_min()).min(newest)
    }

    /// Hides the in-order samples in `range` for ever, and drops the others there. In-order samples that come later are later than
    /// `range`, and out-of-order ones are not concerned.
    /// `cuts`: see [`Cut`].
    pub(crate) fn delete(&mut self, range: TimeRange, cuts: &[Cut]) -> Dropped {
        let dropped = self.rare_mut().drop_within(range, cuts);
        let deleted = &mut self.rare_mut().deleted;
        let mut all = range;
        deleted.retain(|other| {
            let apart = other.max.saturating_add(1) < all.min || all.max.saturating_add(1) < other.min;
            if !apart {
                all = TimeRange::new(all.min.min(other.min), all.max.max(other.max));
            }
            apart
        });
        let index = deleted.partition_point(|other| other.min < all.min);
        deleted.insert(index, all);
        dropped
    }

    /// Whether an in-order sample at `t` is deleted.
    pub(crate) fn hides(&self, t: Timestamp) -> bool {
        self.rare().is_some_and(|rare| hides(&rare.deleted, t))
    }
}

impl Own {
    /// The open column as a chunk.
    pub(crate) fn open_chunk(&self) -> Option<OwnChunk> {
        let (min_t, max_t) = self.open.range();
        let bytes = (self.open.len() > 0).then(|| ChunkBytes::Memory(self.open.chunk_bytes().into()));
        bytes.map(|bytes| OwnChunk { min_t, max_t, bytes })
    }
}

/// The commit that writes, and the newest one that all views see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitMark {
    pub(crate) commit: u64,
    pub(crate) watermark: u64,
    /// Samples before this time are out of order in any case.
    pub(crate) in_order_from: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED: CommitMark = CommitMark { commit: 1, watermark: 1, in_order_from: i64::MIN };

    #[test]
    fn a_series_stays_small() {
        assert_eq!(size_of::<Option<Series>>(), 24);
        assert!(size_of::<Own>() <= 176, "{}", size_of::<Own>());
        assert!(size_of::<OwnChunk>() <= 40, "{}", size_of::<OwnChunk>());
    }

    #[test]
    fn values_are_found_wherever_they_are() {
        let mut series = Series::default();
        for t in 0..300 {
            series.add(t * 10, Stored::Float(t.cast_unsigned()), 0, SETTLED);
        }
        for t in 0..200 {
            series.add(t * 10 + 5, Stored::Float(7), 0, SETTLED);
        }
        let own = series.own.as_ref().unwrap();
        assert!(own.chunks.len() == 2 && own.rare.as_ref().unwrap().out_of_order_chunks.len() == 1);
        for (t, want) in [(0, Some(0)), (2990, Some(299)), (15, Some(7)), (1995, Some(7)), (2005, None)] {
            let found = series.value_at(t).unwrap();
            assert!(
                matches!((&found, want), (Some(Stored::Float(v)), Some(w)) if *v == w)
                    || found.is_none() && want.is_none(),
                "{t}: {found:?}"
            );
        }
        assert_eq!(series.trim(10_000, 10_000), 3);
        assert!(series.value_at(0).unwrap().is_none());
    }

    /// While a view is open, what it sees is compressed, and what it does not see waits.
    #[test]
    fn out_of_order_samples_that_all_views_see_are_compressed() {
        let mut series = Series::default();
        series.add(1000, Stored::Float(1), 0, SETTLED);
        let later = CommitMark { commit: 2, ..SETTLED };
        for t in 0..128 {
            series.add(t, Stored::Float(t.cast_unsigned()), 0, if t < 100 { SETTLED } else { later });
        }
        let rare = series.own.as_ref().unwrap().rare.as_ref().unwrap();
        assert_eq!((rare.out_of_order.len(), rare.out_of_order_chunks.len()), (28, 1));
        let snapshot = series.snapshot(TimeRange::ALL, 1);
        assert!(snapshot.out_of_order.is_empty() && snapshot.late_chunks.len() == 1);
        assert_eq!(series.snapshot(TimeRange::ALL, 2).out_of_order.len(), 28);
        for t in 0..128 {
            assert!(matches!(series.value_at(t).unwrap(), Some(Stored::Float(v)) if v == t.cast_unsigned()));
        }
    }

    /// By rows, alone, by rows again: everything is found, and nothing twice.
    #[test]
    fn a_series_leaves_its_layout_and_comes_back() {
        use super::super::window::RowPart;
        let history = Arc::new(History::new(1));
        let row = |t: i64, v: u64| {
            let row = RowPart { t, commit: 1, from: 0, to: 1, words: &[1], values: &[v] };
            history.inner.write().push(&row);
        };
        let mut series = Series::default();
        assert!(series.join(&history, 0, 10));
        row(10, 1);
        assert!(series.add(5, Stored::Float(9), 0, SETTLED).in_order.eq(&false), "stays joined");
        assert!(series.history().is_some());
        assert!(series.add(20, Stored::Float(2), 0, SETTLED).in_order);
        assert!(history.inner.read().lost.contains(0) && series.history().is_none());
        assert!(!series.join(&history, 0, 20) && series.join(&history, 0, 30));
        row(30, 3);
        assert_eq!(series.histories().count(), 1);
        for (t, want) in [(5, 9), (10, 1), (20, 2), (30, 3)] {
            assert!(matches!(series.value_at(t).unwrap(), Some(Stored::Float(v)) if v == want), "{t}");
        }
        assert!(matches!(series.latest(), Some((30, Stored::Float(3)))));
        assert!(series.may_overlap(TimeRange::new(12, 14)) && !series.may_overlap(TimeRange::new(31, 40)));
    }
}
