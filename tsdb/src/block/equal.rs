//! Chunks of floats that are stored once for several series: the count of a classic histogram is its last bucket, and exporters
//! tell many a number twice. The second series' directory leads to the chunk of the first.
//!
//! An equal chunk has the same times, values and starts, bit for bit. It is found by a hash of these; 128 bits with a seed that
//! nobody outside knows, so chunks with equal hashes are equal. What is remembered is bounded; what was forgotten is stored
//! again.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use hashbrown::HashMap;
use model::sample::{TimeRange, Timestamp};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::directory::FrameRef;
use super::time_columns::ColumnKey;

/// Samples from which a chunk is remembered: a reference takes some bytes itself.
const SAMPLES_MIN: usize = 32;
/// Chunks that are remembered: 5 MiB.
const KNOWN_MAX: usize = 1 << 16;

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
    known: HashMap<u128, Stored>,
    scratch: Vec<u8>,
}

impl EqualChunks {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, known: HashMap::new(), scratch: Vec::new() }
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

    /// Where such a chunk is.
    pub(super) fn get(&self, hash: u128) -> Option<Stored> {
        self.known.get(&hash).copied()
    }

    /// Remembers a chunk of a frame that was written.
    pub(super) fn remember(&mut self, hash: u128, stored: Stored) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(hash, stored);
    }
}
