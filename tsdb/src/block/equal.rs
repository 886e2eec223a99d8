//! Chunks of floats that are stored once for several series: the count of a classic histogram is its last bucket, and exporters
//! tell many a number twice. The second series' directory leads to the chunk of the first.
//!
//! An equal chunk has the same times, values and starts, bit for bit. It is found by a hash of these; 128 bits with a seed that
//! nobody outside knows, so chunks with equal hashes are equal.
//!
//! What is remembered is bounded, by generations: what came longest ago is forgotten first, and then stored again when it
//! comes again. A bucket is never looked for, and of those only the last one is what others repeat: the rest is not remembered,
//! so that the last buckets of many histograms still are when their counts come.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use hashbrown::HashMap;
use model::labels::{BUCKET_LABEL, Labels};
use model::sample::{TimeRange, Timestamp};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::directory::FrameRef;
use super::time_columns::ColumnKey;

/// Samples from which a chunk is remembered: a reference takes some bytes itself.
const SAMPLES_MIN: usize = 32;
/// Chunks of a generation, of which the last two are remembered: each is a table of 65 536 places of 65 bytes, 8.5 MB together.
const GENERATION_MAX: usize = 57_344;

/// Where a chunk is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) frame: FrameRef,
    pub(super) range: TimeRange,
    pub(super) place: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct EqualChunks {
    seed: u64,
    young: HashMap<u128, Stored>,
    old: HashMap<u128, Stored>,
    scratch: Vec<u8>,
}

impl EqualChunks {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, young: HashMap::new(), old: HashMap::new(), scratch: Vec::new() }
    }

    /// The hash of a chunk at all times of a column; `None` where looking does not pay: few samples, or all the same.
    pub(super) fn hash(&mut self, column: ColumnKey, values: &[f64], starts: &[Timestamp]) -> Option<u128> {
        let first = values.first().filter(|_| values.len() >= SAMPLES_MIN)?.to_bits();
        if values.iter().all(|value| value.to_bits() == first) {
            return None;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&(column.frame as u64).to_le_bytes());
        self.scratch.extend_from_slice(&(column.place as u64).to_le_bytes());
        self.scratch.extend(values.iter().flat_map(|value| value.to_bits().to_le_bytes()));
        self.scratch.extend(starts.iter().flat_map(|start| start.to_le_bytes()));
        Some(xxh3_128_with_seed(&self.scratch, self.seed))
    }

    /// Where such a chunk is. What is found is remembered anew.
    pub(super) fn get(&mut self, hash: u128) -> Option<Stored> {
        if let Some(stored) = self.young.get(&hash) {
            return Some(*stored);
        }
        let stored = *self.old.get(&hash)?;
        self.remember(hash, stored);
        Some(stored)
    }

    /// Remembers a chunk of a frame that was written.
    pub(super) fn remember(&mut self, hash: u128, stored: Stored) {
        if self.young.len() >= GENERATION_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(hash, stored);
    }
}

/// Whether others may repeat a series with these labels: all but the buckets below the last.
pub(super) fn may_be_repeated(labels: &Labels) -> bool {
    labels.get(BUCKET_LABEL).is_none_or(|bound| bound.parse() == Ok(f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_first() {
        let stored = |n: usize| Stored {
            frame: FrameRef { file: 1, offset: n as u64, len: 1 },
            range: TimeRange::new(0, 1),
            place: n,
        };
        let mut equal = EqualChunks::new(7);
        for n in 0..4 * GENERATION_MAX {
            equal.remember(n as u128, stored(n));
            // Full or not, what came a generation ago is there: with one table it was none, now and then.
            let before = n.saturating_sub(GENERATION_MAX - 1);
            assert_eq!(
                equal.young.get(&(before as u128)).or(equal.old.get(&(before as u128))).unwrap().place,
                before
            );
            if n % 10_000 == 0 {
                assert_eq!(equal.get(5).map(|stored| stored.place), (n > 0).then_some(5), "it is in use");
            }
            assert!(equal.young.len() <= GENERATION_MAX && equal.old.len() <= GENERATION_MAX);
        }
        assert!(equal.get(0).is_none() && equal.get(GENERATION_MAX as u128).is_none());
        let bytes = 2 * (equal.old.capacity() * 8 / 7) * (size_of::<(u128, Stored)>() + 1);
        assert!((8_000_000..9_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn buckets_are_not_repeated_but_the_last_one() {
        let of = |le: &str| may_be_repeated(&Labels::from_pairs([("__name__", "h_bucket"), ("le", le)]));
        assert!(of("+Inf") && !of("1") && !of("-Inf") && !of("x"));
        assert!(may_be_repeated(&Labels::from_pairs([("__name__", "h_count")])));
    }
}
