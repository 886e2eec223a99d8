//! One series in the head: its chunks, its open ends on both roads, its out-of-order samples.
//!
//! Kept small, since there may be millions: what only some series have hangs on a box. Labels live in the catalogue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::sample::{TimeRange, Timestamp};

use super::view::Steps;
use super::window::Window;
use crate::chunk::xor::SampleEncoder;
use crate::chunk::{
    CHUNK_SAMPLES_MAX, CHUNK_SPAN_MAX_MS, Chunk, HistogramValue, TimeColumn, decode_floats, decode_histograms,
};
use crate::coding::DecodeError;

/// Out-of-order samples after which they are compressed.
const OUT_OF_ORDER_SAMPLES_MAX: usize = 128;
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
    /// Whether kind and all bits agree.
    pub(crate) fn same_bits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Histogram(a), Self::Histogram(b)) => a.same_bits(b),
            (Self::Float(_), Self::Histogram(_)) | (Self::Histogram(_), Self::Float(_)) => false,
        }
    }
}

/// A series.
#[derive(Debug)]
pub(crate) struct Series {
    /// In-order chunks, ascending for each kind.
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) open: Option<Box<OpenFloats>>,
    pub(crate) rare: Option<Box<Rare>>,
    /// Where rows of a layout go on; the series is `slot` there.
    pub(crate) window: Option<Arc<Window>>,
    pub(crate) slot: u32,
    /// Layouts that name the series.
    pub(crate) pins: u32,
    /// Newest in-order sample but for those in `window`.
    last_t: Timestamp,
    last_bits: u64,
    last_kind: LastKind,
    /// Not later than any sample; `MAX` without samples.
    pub(crate) min_t: Timestamp,
    /// Whether the log has its labels.
    pub(crate) logged: bool,
    /// Gone from the catalogue; freed when no reader holds it.
    pub(crate) unlinked: bool,
    /// Found empty by the collector and not looked up since.
    idle: AtomicBool,
}

/// A series that must be looked at with more care: see [`Series::plain_last`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotPlain;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastKind {
    None,
    Float,
    /// The value is in [`Rare::last_histogram`].
    Histogram,
}

/// The open column of floats that came sample by sample.
#[derive(Debug, Default)]
pub(crate) struct OpenFloats {
    pub(crate) stream: SampleEncoder,
    pub(crate) steps: Steps,
}

/// What few series have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) histograms: Vec<(Timestamp, HistogramValue)>,
    last_histogram: Option<HistogramValue>,
    /// Sorted by time.
    pub(crate) out_of_order: Vec<OutOfOrderSample>,
    /// In any order, overlapping.
    pub(crate) out_of_order_chunks: Vec<OutOfOrderChunk>,
    pub(crate) starts: Starts,
}

/// Compressed out-of-order samples.
#[derive(Debug)]
pub(crate) struct OutOfOrderChunk {
    /// The newest commit of them.
    pub(crate) commit: u64,
    pub(crate) chunk: Chunk,
}

#[derive(Clone, Debug)]
pub(crate) struct OutOfOrderSample {
    pub(crate) t: Timestamp,
    pub(crate) commit: u64,
    pub(crate) value: Stored,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            open: None,
            rare: None,
            window: None,
            slot: 0,
            pins: 0,
            last_t: 0,
            last_bits: 0,
            last_kind: LastKind::None,
            min_t: Timestamp::MAX,
            logged: false,
            unlinked: false,
            idle: AtomicBool::new(false),
        }
    }
}

impl Series {
    /// An empty series that the log has.
    pub(crate) fn logged() -> Self {
        Self { logged: true, ..Self::default() }
    }

    /// The newest in-order sample.
    pub(crate) fn latest(&self) -> Option<(Timestamp, Stored)> {
        if let Some(window) = &self.window
            && let Some((t, bits)) = window.inner.read().latest(self.slot)
        {
            return Some((t, Stored::Float(bits)));
        }
        self.last_outside_window()
    }

    /// The newest in-order sample that is not in the window.
    pub(crate) fn last_outside_window(&self) -> Option<(Timestamp, Stored)> {
        let value = match self.last_kind {
            LastKind::None => return None,
            LastKind::Float => Stored::Float(self.last_bits),
            LastKind::Histogram => {
                let last = self.rare.as_ref()?.last_histogram.clone();
                Stored::Histogram(last.expect("kept with the kind"))
            }
        };
        Some((self.last_t, value))
    }

    /// The newest sample of a series that is written sample by sample, with floats only so far: `Err` for any other.
    pub(crate) fn plain_last(&self) -> Result<Option<(Timestamp, u64)>, NotPlain> {
        if self.window.is_some() || self.unlinked || self.is_idle() {
            return Err(NotPlain);
        }
        match self.last_kind {
            LastKind::None => Ok(None),
            LastKind::Float => Ok(Some((self.last_t, self.last_bits))),
            LastKind::Histogram => Err(NotPlain),
        }
    }

    /// The time of the newest in-order sample that is not in the window.
    pub(crate) fn last_in_order(&self) -> Option<Timestamp> {
        (self.last_kind != LastKind::None).then_some(self.last_t)
    }

    pub(crate) fn set_last(&mut self, t: Timestamp, value: &Stored) {
        self.last_t = t;
        match value {
            Stored::Float(bits) => {
                self.last_bits = *bits;
                self.last_kind = LastKind::Float;
            }
            Stored::Histogram(histogram) => {
                self.rare.get_or_insert_default().last_histogram = Some(histogram.clone());
                self.last_kind = LastKind::Histogram;
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
        self.chunks.is_empty()
            && self.window.is_none()
            && self.pins == 0
            && self.open.as_ref().is_none_or(|open| open.stream.len() == 0)
            && self.rare.as_ref().is_none_or(|rare| rare.is_empty())
    }

    pub(crate) fn push_chunk(&mut self, chunk: Chunk) {
        if self.chunks.len() == self.chunks.capacity() {
            // Doubling would waste half a chunk head per chunk on average over a million series.
            self.chunks.reserve_exact(self.chunks.len() / 4 + 1);
        }
        self.min_t = self.min_t.min(chunk.min_t);
        self.chunks.push(chunk);
    }

    /// Appends or inserts a sample that was admitted. Answers by how many chunks there are more.
    pub(crate) fn add(&mut self, t: Timestamp, value: Stored, start: Timestamp, at: CommitMark) -> usize {
        self.touch();
        let detached = usize::from(self.window.is_some() && self.detach(at.watermark));
        let in_order = t >= at.in_order_from && self.last_outside_window().is_none_or(|(last, _)| t > last);
        self.min_t = self.min_t.min(t);
        if start != 0 || self.rare.as_ref().is_some_and(|rare| !rare.starts.is_empty()) {
            self.rare.get_or_insert_default().starts.note(t, start, in_order);
        }
        if !in_order {
            return detached + self.rare.get_or_insert_default().insert(t, value, at);
        }
        self.set_last(t, &value);
        let open = self.open.get_or_insert_default();
        open.steps.note(at.commit, t, at.watermark);
        detached
            + match value {
                Stored::Float(bits) => self.append_float(t, bits),
                Stored::Histogram(histogram) => self.append_histogram(t, histogram),
            }
    }

    fn append_float(&mut self, t: Timestamp, bits: u64) -> usize {
        let full = self.open.as_ref().is_some_and(|open| {
            let stream = &open.stream;
            stream.len() >= CHUNK_SAMPLES_MAX
                || stream.len() > 0 && t.saturating_sub(stream.range().0) >= CHUNK_SPAN_MAX_MS
        });
        let sealed = if full { self.seal_open() } else { 0 };
        self.open.get_or_insert_default().stream.push(t, bits);
        sealed
    }

    fn append_histogram(&mut self, t: Timestamp, histogram: HistogramValue) -> usize {
        let rare = self.rare.get_or_insert_default();
        let full = rare.histograms.first().is_some_and(|first| {
            rare.histograms.len() >= HISTOGRAM_SAMPLES_MAX || t.saturating_sub(first.0) >= CHUNK_SPAN_MAX_MS
        });
        let sealed = if full { self.seal_histograms() } else { 0 };
        self.rare.get_or_insert_default().histograms.push((t, histogram));
        sealed
    }

    /// Makes a chunk of the open column.
    pub(crate) fn seal_open(&mut self) -> usize {
        let Some(open) = self.open.as_mut().filter(|open| open.stream.len() > 0) else { return 0 };
        let stream = std::mem::take(&mut open.stream);
        let (min_t, max_t) = stream.range();
        self.push_chunk(Chunk { bytes: stream.chunk_bytes().into(), times: None, min_t, max_t });
        1
    }

    /// Frees an empty open column that hides nothing from any view.
    pub(crate) fn drop_settled_open(&mut self, watermark: u64) {
        if let Some(open) = self.open.as_mut().filter(|open| open.stream.len() == 0) {
            open.steps.prune(watermark);
            if open.steps.is_empty() {
                self.open = None;
            }
        }
    }

    fn seal_histograms(&mut self) -> usize {
        let Some(rare) = self.rare.as_mut() else { return 0 };
        let samples = std::mem::take(&mut rare.histograms);
        let Some(chunk) = Chunk::of_histograms(&samples) else { return 0 };
        self.push_chunk(chunk);
        1
    }

    /// Lets go of the layout that the series was written by: its rows so far become a chunk. Says whether there is one.
    pub(crate) fn detach(&mut self, watermark: u64) -> bool {
        let Some(window) = self.window.take() else { return false };
        let mut samples = Vec::new();
        let mut rows = window.inner.write();
        rows.slot(self.slot, |t, bits| samples.push((t, bits)));
        rows.set_lost(self.slot);
        if rows.steps.hidden_from(watermark).is_some() {
            self.open.get_or_insert_default().steps.merge(&rows.steps, watermark);
        }
        drop(rows);
        if let Some(&(t, bits)) = samples.last() {
            self.set_last(t, &Stored::Float(bits));
        }
        let Some(chunk) = Chunk::of_samples(&samples) else { return false };
        self.push_chunk(chunk);
        true
    }

    /// The value stored at `t`, wherever it is. Decodes the chunks that span `t`.
    pub(crate) fn value_at(&self, t: Timestamp) -> Result<Option<Stored>, DecodeError> {
        let mut found = None;
        let range = TimeRange::new(t, t);
        let mut look = |sample: Timestamp, value: Stored| {
            if sample == t && found.is_none() {
                found = Some(value);
            }
        };
        if let Some(window) = &self.window {
            window.inner.read().slot(self.slot, |t, bits| look(t, Stored::Float(bits)));
        }
        if let Some(open) = self.open.as_ref().filter(|open| open.stream.len() > 0) {
            let (min, max) = open.stream.range();
            if range.overlaps(&TimeRange::new(min, max)) {
                decode_floats(&open.stream.chunk_bytes(), None, |t, bits| look(t, Stored::Float(bits)))?;
            }
        }
        let rare_chunks = self.rare.iter().flat_map(|rare| &rare.out_of_order_chunks).map(|late| &late.chunk);
        for chunk in self.chunks.iter().chain(rare_chunks).filter(|chunk| chunk.range().overlaps(&range)) {
            if chunk.is_histogram() {
                decode_histograms(&chunk.bytes, |t, h| look(t, Stored::Histogram(h)))?;
            } else {
                decode_floats(&chunk.bytes, chunk.times.as_deref(), |t, bits| look(t, Stored::Float(bits)))?;
            }
        }
        if let Some(rare) = &self.rare {
            for (t, histogram) in rare.histograms.iter().filter(|sample| sample.0 == t) {
                look(*t, Stored::Histogram(histogram.clone()));
            }
            for sample in rare.out_of_order.iter().filter(|sample| sample.t == t) {
                look(sample.t, sample.value.clone());
            }
        }
        Ok(found)
    }

    /// Not later than any in-order sample; `MAX` without them.
    pub(crate) fn in_order_min(&self) -> Timestamp {
        let chunk = self.chunks.first().map(|chunk| chunk.min_t);
        let open = self.open.as_ref().filter(|open| open.stream.len() > 0).map(|open| open.stream.range().0);
        let histogram = self.rare.as_ref().and_then(|rare| rare.histograms.first()).map(|sample| sample.0);
        let window = self.window.as_ref().and_then(|window| window.inner.read().first_t());
        [chunk, open, histogram, window].into_iter().flatten().min().unwrap_or(Timestamp::MAX)
    }

    /// Whether some sample may lie in `range`.
    pub(crate) fn may_overlap(&self, range: TimeRange) -> bool {
        if self.min_t > range.max {
            return false;
        }
        let last = match self.last_kind {
            LastKind::None => None,
            LastKind::Float | LastKind::Histogram => Some(self.last_t),
        };
        // A series may have no others: those that came after the head was frozen.
        let mut late = false;
        self.out_of_order_spans(|_, max| late |= max >= range.min);
        late || last.is_some_and(|t| t >= range.min)
            || self
                .window
                .as_ref()
                .is_some_and(|window| window.inner.read().last_t().is_some_and(|t| t >= range.min))
    }

    /// Drops chunks that end before `floor`, and in-order ones that end before `in_order_floor`. Answers how many.
    pub(crate) fn trim(&mut self, floor: Timestamp, in_order_floor: Timestamp) -> usize {
        if self.min_t >= floor.max(in_order_floor) {
            return 0;
        }
        let before = self.chunk_count();
        self.chunks.retain(|chunk| chunk.max_t >= in_order_floor);
        let mut min_t = Timestamp::MAX;
        if let Some(open) = &mut self.open
            && open.stream.len() > 0
        {
            if open.stream.range().1 < in_order_floor {
                open.stream = SampleEncoder::default();
            } else {
                min_t = open.stream.range().0;
            }
        }
        if let Some(rare) = &mut self.rare {
            rare.trim(floor, in_order_floor);
            min_t = min_t.min(rare.min_t());
        }
        if let Some(window) = &self.window {
            min_t = min_t.min(window.inner.read().first_t().unwrap_or(Timestamp::MAX));
        }
        self.min_t = self.chunks.iter().map(|chunk| chunk.min_t).fold(min_t, Timestamp::min);
        before - self.chunk_count()
    }

    /// Drops out-of-order samples of commits up to `commit`: they are in a block. Answers how many chunks.
    pub(crate) fn drop_out_of_order(&mut self, commit: u64) -> usize {
        self.rare.as_mut().map_or(0, |rare| rare.drop_out_of_order(commit))
    }

    /// The times of out-of-order samples, chunks by their ends, to `take`.
    pub(crate) fn out_of_order_spans(&self, mut take: impl FnMut(Timestamp, Timestamp)) {
        let Some(rare) = &self.rare else { return };
        rare.out_of_order.iter().for_each(|sample| take(sample.t, sample.t));
        rare.out_of_order_chunks.iter().for_each(|late| take(late.chunk.min_t, late.chunk.max_t));
    }

    /// Closed chunks, out-of-order ones included.
    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len() + self.rare.as_ref().map_or(0, |rare| rare.out_of_order_chunks.len())
    }
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.out_of_order.is_empty() && self.out_of_order_chunks.is_empty()
    }

    /// Drops out-of-order samples of commits up to `commit`. Answers how many chunks.
    fn drop_out_of_order(&mut self, commit: u64) -> usize {
        let before = self.out_of_order_chunks.len();
        self.out_of_order_chunks.retain(|late| late.commit > commit);
        self.out_of_order.retain(|sample| sample.commit > commit);
        before - self.out_of_order_chunks.len()
    }

    fn insert(&mut self, t: Timestamp, value: Stored, at: CommitMark) -> usize {
        let index = self.out_of_order.partition_point(|sample| sample.t < t);
        let sample = OutOfOrderSample { t, commit: at.commit, value };
        self.out_of_order.insert(index, sample);
        // Compressed samples carry no commit: only what every view sees may be compressed.
        let settled = self.out_of_order.len() >= OUT_OF_ORDER_SAMPLES_MAX
            && self.out_of_order.iter().all(|sample| sample.commit <= at.watermark);
        if settled { self.seal() } else { 0 }
    }

    fn seal(&mut self) -> usize {
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        let commit = self.out_of_order.iter().map(|sample| sample.commit).max().unwrap_or(0);
        for sample in self.out_of_order.drain(..) {
            match sample.value {
                Stored::Float(bits) => floats.push((sample.t, bits)),
                Stored::Histogram(histogram) => histograms.push((sample.t, histogram)),
            }
        }
        let chunks = [Chunk::of_samples(&floats), Chunk::of_histograms(&histograms)];
        let before = self.out_of_order_chunks.len();
        let chunks = chunks.into_iter().flatten().map(|chunk| OutOfOrderChunk { commit, chunk });
        self.out_of_order_chunks.extend(chunks);
        self.out_of_order_chunks.len() - before
    }

    fn trim(&mut self, floor: Timestamp, in_order_floor: Timestamp) {
        self.out_of_order_chunks.retain(|late| late.chunk.max_t >= floor);
        self.out_of_order.retain(|sample| sample.t >= floor);
        self.histograms.retain(|sample| sample.0 >= in_order_floor);
        let late = self.out_of_order_chunks.iter().map(|late| late.chunk.min_t);
        let late = late.chain(self.out_of_order.first().map(|sample| sample.t)).min();
        self.starts.trim(late.unwrap_or(Timestamp::MAX).min(in_order_floor));
    }

    fn min_t(&self) -> Timestamp {
        let chunks = self.out_of_order_chunks.iter().map(|late| late.chunk.min_t);
        let loose = self.out_of_order.first().map(|sample| sample.t);
        let histograms = self.histograms.first().map(|sample| sample.0);
        chunks.chain(loose).chain(histograms).min().unwrap_or(Timestamp::MAX)
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

/// Start timestamps as runs: they change once in the life of a counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts {
    /// (first time, last time, start), sorted, disjoint; samples in no run have no start.
    pub(crate) runs: Vec<(Timestamp, Timestamp, Timestamp)>,
    /// Whether the next in-order sample may lengthen the last run.
    growing: bool,
}

impl Starts {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    fn note(&mut self, t: Timestamp, start: Timestamp, in_order: bool) {
        if in_order {
            let lengthens = self.growing && self.runs.last().is_some_and(|run| run.2 == start);
            self.growing = start != 0;
            if lengthens && let Some(run) = self.runs.last_mut() {
                run.1 = t;
            } else if start != 0 {
                self.runs.push((t, t, start));
            }
            return;
        }
        self.cut_out(t);
        if start != 0 {
            let index = self.runs.partition_point(|run| run.0 < t);
            self.runs.insert(index, (t, t, start));
            self.growing &= index + 1 < self.runs.len();
        }
    }

    /// Splits the run that spans `t`.
    fn cut_out(&mut self, t: Timestamp) {
        let Some(index) = self.runs.iter().position(|run| run.0 <= t && t <= run.1) else { return };
        let (from, to, start) = self.runs.remove(index);
        let parts = [(from, t.saturating_sub(1)), (t.saturating_add(1), to)];
        let parts = parts.into_iter().filter(|part| part.0 <= part.1).map(|part| (part.0, part.1, start));
        self.runs.splice(index..index, parts);
    }

    fn trim(&mut self, floor: Timestamp) {
        self.runs.retain(|run| run.1 >= floor);
    }

    pub(crate) fn of_runs(runs: Vec<(Timestamp, Timestamp, Timestamp)>) -> Self {
        Self { runs, growing: false }
    }

    /// The starts of samples at `times` (ascending), 0 where none is known; empty when none is known at all.
    pub(crate) fn column(&self, times: &[Timestamp]) -> Vec<Timestamp> {
        let mut any = false;
        let column: Vec<Timestamp> = times
            .iter()
            .map(|t| {
                let index = self.runs.partition_point(|run| run.1 < *t);
                let start = self.runs.get(index).filter(|run| run.0 <= *t).map_or(0, |run| run.2);
                any |= start != 0;
                start
            })
            .collect();
        if any { column } else { Vec::new() }
    }
}

/// All of a series that a reader needs, copied under the page's lock; compressed parts stay compressed.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) bytes: Vec<u8>,
    pub(crate) parts: Vec<Part>,
    pub(crate) window: Option<(Arc<Window>, u32)>,
    pub(crate) hidden_from: Option<Timestamp>,
    pub(crate) histograms: Vec<(Timestamp, HistogramValue)>,
    pub(crate) out_of_order: Vec<(Timestamp, Stored)>,
    pub(crate) starts: Starts,
}

/// One compressed part of a snapshot.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) at: std::ops::Range<usize>,
    pub(crate) times: Option<Arc<TimeColumn>>,
    pub(crate) histogram: bool,
    pub(crate) out_of_order: bool,
}

impl Series {
    /// Copies what may hold samples of `range` for a view of `commit`.
    pub(crate) fn snapshot(&self, range: TimeRange, commit: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let overlapping = |chunk: &&Chunk| chunk.range().overlaps(&range);
        for chunk in self.chunks.iter().filter(overlapping) {
            snapshot.push(&chunk.bytes, chunk.times.as_ref(), chunk.is_histogram(), false);
        }
        if let Some(open) = &self.open {
            snapshot.hidden_from = open.steps.hidden_from(commit);
            let (min, max) = open.stream.range();
            if open.stream.len() > 0 && range.overlaps(&TimeRange::new(min, max)) {
                snapshot.push(&open.stream.chunk_bytes(), None, false, false);
            }
        }
        snapshot.window = self.window.as_ref().map(|window| (Arc::clone(window), self.slot));
        let Some(rare) = &self.rare else { return snapshot };
        for chunk in rare.out_of_order_chunks.iter().map(|late| &late.chunk).filter(overlapping) {
            snapshot.push(&chunk.bytes, chunk.times.as_ref(), chunk.is_histogram(), true);
        }
        let open = rare.histograms.iter().filter(|sample| range.contains(sample.0));
        snapshot.histograms = open.cloned().collect();
        let loose = rare.out_of_order.iter().filter(|s| s.commit <= commit && range.contains(s.t));
        snapshot.out_of_order = loose.map(|sample| (sample.t, sample.value.clone())).collect();
        snapshot.starts = rare.starts.clone();
        snapshot
    }
}

impl Snapshot {
    fn push(&mut self, bytes: &[u8], times: Option<&Arc<TimeColumn>>, histogram: bool, out_of_order: bool) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.parts.push(Part { at: start..self.bytes.len(), times: times.cloned(), histogram, out_of_order });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED: CommitMark = CommitMark { commit: 1, watermark: 1, in_order_from: i64::MIN };

    #[test]
    fn a_series_stays_small() {
        assert!(size_of::<Series>() <= 104, "{}", size_of::<Series>());
        assert!(size_of::<Chunk>() <= 40, "{}", size_of::<Chunk>());
    }

    #[test]
    fn start_timestamps_belong_to_their_samples_only() {
        let mut starts = Starts::default();
        for (t, start) in [(10, 5), (20, 5), (30, 0), (40, 5)] {
            starts.note(t, start, true);
        }
        starts.note(15, 0, false);
        starts.note(16, 7, false);
        assert_eq!(starts.column(&[10, 15, 16, 20, 30, 40]), [5, 0, 7, 5, 0, 5]);
        assert!(starts.column(&[30]).is_empty());
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
        assert!(series.chunks.len() == 2 && series.rare.as_ref().unwrap().out_of_order_chunks.len() == 1);
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
}
