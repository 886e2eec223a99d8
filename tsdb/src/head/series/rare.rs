//! What only some series have: histograms, out-of-order samples, start timestamps, deletions.
//!
//! Out-of-order samples are kept sorted until there are many that all views see; those are compressed into chunks that
//! overlap each other and everything else, and readers merge them.

use model::sample::{TimeRange, Timestamp};

use super::super::late::LateTimes;
use super::starts::Starts;
use super::{CommitMark, Series, Stored};
use crate::chunk::{Chunk, HistogramValue, decode_into};
use crate::coding::DecodeError;
use crate::columns::Columns;

/// Out-of-order samples after which they are compressed.
const OUT_OF_ORDER_SAMPLES_MAX: usize = 128;

/// What few series have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) histograms: Vec<(Timestamp, HistogramValue)>,
    pub(super) last_histogram: Option<HistogramValue>,
    /// Sorted by time.
    pub(crate) out_of_order: Vec<OutOfOrderSample>,
    /// In any order, overlapping.
    pub(crate) out_of_order_chunks: Vec<OutOfOrderChunk>,
    late_times: LateTimes,
    pub(crate) starts: Starts,
    /// Where in-order samples were deleted: sorted, apart from each other. Out-of-order ones are dropped instead, so that those
    /// that come after a deletion are seen.
    pub(crate) deleted: Vec<TimeRange>,
}

/// Compressed out-of-order samples.
#[derive(Debug)]
pub(crate) struct OutOfOrderChunk {
    /// The newest commit of them.
    pub(crate) commit: u64,
    pub(crate) chunk: Chunk,
}

/// What a deletion came to in out-of-order chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Those that are gone.
    pub(crate) chunks: usize,
    /// Those that cannot be decoded, and stay as they are.
    pub(crate) unreadable: usize,
    /// Those that had to be decoded for it: there was no [`Cut`] of them.
    pub(crate) decoded: usize,
}

/// What a deletion will leave of a chunk that it cuts: made without a lock, for chunks take their time.
#[derive(Debug)]
pub(crate) struct Cut {
    whole: Chunk,
    range: TimeRange,
    rest: Result<Option<Chunk>, DecodeError>,
}

impl Cut {
    pub(crate) fn new(whole: Chunk, range: TimeRange) -> Self {
        let rest = rest_of(&whole, range);
        Self { whole, range, rest }
    }

    /// Whether it says what the deletion of `range` leaves of `chunk`.
    fn is_of(&self, chunk: &Chunk, range: TimeRange) -> bool {
        let within = |range: TimeRange| (range.min.max(chunk.min_t), range.max.min(chunk.max_t));
        (self.whole.min_t, self.whole.max_t) == (chunk.min_t, chunk.max_t)
            && within(self.range) == within(range)
            && self.whole.bytes == chunk.bytes
    }
}

fn is_within(inner: TimeRange, outer: TimeRange) -> bool {
    outer.min <= inner.min && inner.max <= outer.max
}

/// What is left of a chunk of one kind without the samples in `range`.
fn rest_of(chunk: &Chunk, range: TimeRange) -> Result<Option<Chunk>, DecodeError> {
    let mut columns = Columns::default();
    decode_into(&chunk.bytes, None, &mut columns)?;
    columns.retain(|t| !range.contains(t));
    let bits = columns.values.iter().map(|value| value.to_bits());
    let floats: Vec<_> = columns.times.iter().copied().zip(bits).collect();
    let histograms: Vec<_> = columns.histogram_times.into_iter().zip(columns.histograms).collect();
    Ok(Chunk::of_samples(&floats).or_else(|| Chunk::of_histograms(&histograms)))
}

#[derive(Clone, Debug)]
pub(crate) struct OutOfOrderSample {
    pub(crate) t: Timestamp,
    pub(crate) commit: u64,
    pub(crate) value: Stored,
}

impl Series {
    /// Drops out-of-order samples of commits up to `commit`: they are in a block. Answers how many chunks.
    pub(crate) fn drop_out_of_order(&mut self, commit: u64) -> usize {
        let rare = self.own.as_mut().and_then(|own| own.rare.as_mut());
        rare.map_or(0, |rare| rare.drop_out_of_order(commit))
    }

    /// The compressed out-of-order samples that a deletion of `range` cuts, for [`Cut::new`].
    pub(crate) fn chunks_cut_by(&self, range: TimeRange) -> Vec<Chunk> {
        let chunks = self.rare().into_iter().flat_map(|rare| &rare.out_of_order_chunks);
        let chunks = chunks.map(|late| &late.chunk);
        let cut = |chunk: &&Chunk| chunk.range().overlaps(&range) && !is_within(chunk.range(), range);
        chunks.filter(cut).cloned().collect()
    }

    /// The times of out-of-order samples, chunks by their ends, to `take`.
    pub(crate) fn out_of_order_spans(&self, mut take: impl FnMut(Timestamp, Timestamp)) {
        let Some(rare) = self.rare() else { return };
        rare.out_of_order.iter().for_each(|sample| take(sample.t, sample.t));
        rare.out_of_order_chunks.iter().for_each(|late| take(late.chunk.min_t, late.chunk.max_t));
    }

    /// The times of out-of-order samples to `take`: of a chunk the ends, where `within` says that nothing between them
    /// matters.
    pub(crate) fn out_of_order_times(
        &self,
        within: impl Fn(Timestamp, Timestamp) -> bool,
        mut take: impl FnMut(Timestamp),
    ) {
        let Some(rare) = self.rare() else { return };
        rare.out_of_order.iter().for_each(|sample| take(sample.t));
        let mut columns = Columns::default();
        for OutOfOrderChunk { chunk, .. } in &rare.out_of_order_chunks {
            take(chunk.min_t);
            take(chunk.max_t);
            columns.clear();
            // One that cannot be read in memory is not written either.
            if !within(chunk.min_t, chunk.max_t) && decode_into(&chunk.bytes, None, &mut columns).is_ok() {
                columns.times.iter().chain(&columns.histogram_times).for_each(|t| take(*t));
            }
        }
    }
}

impl Rare {
    pub(super) fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.out_of_order.is_empty() && self.out_of_order_chunks.is_empty()
    }

    /// Drops out-of-order samples of commits up to `commit`. Answers how many chunks.
    fn drop_out_of_order(&mut self, commit: u64) -> usize {
        let before = self.out_of_order_chunks.len();
        self.out_of_order_chunks.retain(|late| late.commit > commit);
        self.out_of_order.retain(|sample| sample.commit > commit);
        before - self.out_of_order_chunks.len()
    }

    /// Drops out-of-order samples in `range`. Of `cuts`, in the order of the chunks, is taken what is about chunks as they are now;
    /// others are decoded.
    pub(super) fn drop_within(&mut self, range: TimeRange, cuts: &[Cut]) -> Dropped {
        let mut dropped = Dropped::default();
        let before = self.out_of_order_chunks.len();
        let mut cuts = cuts.iter();
        self.out_of_order.retain(|sample| !range.contains(sample.t));
        self.out_of_order_chunks.retain_mut(|late| {
            let has = late.chunk.range();
            if !has.overlaps(&range) {
                return true;
            }
            if is_within(has, range) {
                return false;
            }
            // New chunks are behind all others.
            let rest = match cuts.find(|cut| cut.is_of(&late.chunk, range)) {
                Some(cut) => cut.rest.clone(),
                None => {
                    dropped.decoded += 1;
                    rest_of(&late.chunk, range)
                }
            };
            match rest {
                Ok(Some(rest)) => late.chunk = rest,
                Ok(None) => return false,
                // Whoever reads it is told, and so is whoever deletes.
                Err(_) => dropped.unreadable += 1,
            }
            true
        });
        dropped.chunks = before - self.out_of_order_chunks.len();
        dropped
    }

    pub(super) fn insert(&mut self, t: Timestamp, value: Stored, at: CommitMark) -> usize {
        // Behind one of the same time, which is here again after a restart that was not told of the block that has it.
        let index = self.out_of_order.partition_point(|sample| sample.t <= t);
        let sample = OutOfOrderSample { t, commit: at.commit, value };
        self.out_of_order.insert(index, sample);
        // Compressed samples carry no commit: only what every view sees may be compressed, the others wait. While a reader is
        // long about it not every sample looks.
        let len = self.out_of_order.len();
        let looks = len >= OUT_OF_ORDER_SAMPLES_MAX && len.is_multiple_of(OUT_OF_ORDER_SAMPLES_MAX / 4);
        let settled = |sample: &&OutOfOrderSample| sample.commit <= at.watermark;
        let seals = looks && self.out_of_order.iter().filter(settled).count() >= OUT_OF_ORDER_SAMPLES_MAX / 2;
        if seals { self.seal(at.watermark) } else { 0 }
    }

    /// Compresses what all views of a watermark see.
    fn seal(&mut self, watermark: u64) -> usize {
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        let all = std::mem::take(&mut self.out_of_order);
        let (settled, wait): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|sample| sample.commit <= watermark);
        self.out_of_order = wait;
        let times: Vec<Timestamp> = settled.iter().map(|sample| sample.t).collect();
        let commit = settled.iter().map(|sample| sample.commit).max().unwrap_or(0);
        for sample in settled {
            match sample.value {
                Stored::Float(bits) => floats.push((sample.t, bits)),
                Stored::Histogram(histogram) => histograms.push((sample.t, histogram)),
            }
        }
        let chunks = [Chunk::of_samples(&floats), Chunk::of_histograms(&histograms)];
        let before = self.out_of_order_chunks.len();
        let chunks = chunks.into_iter().flatten().map(|chunk| OutOfOrderChunk { commit, chunk });
        self.out_of_order_chunks.extend(chunks);
        let after = self.out_of_order_chunks.len();
        if !self.late_times.add(&times, before, after) {
            self.late_times = self.all_late_times();
        }
        after - before
    }

    /// Whether a compressed out-of-order sample may be at `t`.
    pub(super) fn may_be_late(&self, t: Timestamp) -> bool {
        self.late_times.may_hold(self.out_of_order_chunks.len(), t)
    }

    /// The times of all compressed out-of-order samples; of no use when one cannot be decoded.
    fn all_late_times(&self) -> LateTimes {
        let mut columns = Columns::default();
        for late in &self.out_of_order_chunks {
            if decode_into(&late.chunk.bytes, None, &mut columns).is_err() {
                return LateTimes::default();
            }
        }
        columns.times.append(&mut columns.histogram_times);
        LateTimes::of(&columns.times, self.out_of_order_chunks.len())
    }

    /// `hidden_floor`: no in-order sample before it is left, hidden or not.
    pub(super) fn trim(&mut self, floor: Timestamp, in_order_floor: Timestamp, hidden_floor: Timestamp) {
        self.out_of_order_chunks.retain(|late| late.chunk.max_t >= floor);
        self.out_of_order.retain(|sample| sample.t >= floor);
        self.histograms.retain(|sample| sample.0 >= in_order_floor);
        let late = self.out_of_order_chunks.iter().map(|late| late.chunk.min_t);
        let late = late.chain(self.out_of_order.first().map(|sample| sample.t)).min();
        let oldest = late.unwrap_or(Timestamp::MAX).min(in_order_floor);
        self.starts.trim(oldest);
        self.deleted.retain(|range| range.max >= hidden_floor);
    }
}
