//! What can be told of the series of a block, for statistics.

use std::path::Path;
use std::sync::Arc;

use model::labels::Labels;
use model::sample::Timestamp;
use model::storage::{SeriesColumns, StorageError};

use crate::block::Block;
use crate::cache::BlockCache;
use crate::columns::Columns;
use crate::fs::FileSystem;

/// What matters of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesFacts {
    /// Time of the first sample.
    pub first: Timestamp,
    /// Time of the last one.
    pub last: Timestamp,
    /// Samples of all kinds.
    pub samples: u64,
    /// All samples are the same float, bit for bit.
    pub is_constant: bool,
    /// Its chunks; empty where samples do not come from a block.
    pub chunks: Vec<ChunkFacts>,
}

/// What matters of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkFacts {
    /// How it is encoded, for people.
    pub codec: &'static str,
    /// It holds histograms.
    pub is_histogram: bool,
    /// Number of samples.
    pub samples: u64,
    /// Its bytes before compression, without times that it shares with others.
    pub bytes: u64,
}

impl SeriesFacts {
    /// The facts of these samples; `None` when there are none.
    pub fn of(columns: &SeriesColumns) -> Option<Self> {
        Self::of_parts(&columns.float_times, &columns.float_values, &columns.histogram_times)
    }

    fn of_parts(float_times: &[Timestamp], values: &[f64], histogram_times: &[Timestamp]) -> Option<Self> {
        let times = || [float_times, histogram_times].into_iter();
        let first = *times().filter_map(|times| times.first()).min()?;
        let last = *times().filter_map(|times| times.last()).max()?;
        let is_constant = histogram_times.is_empty()
            && values
                .iter()
                .all(|value| Some(value.to_bits()) == values.first().map(|first| first.to_bits()));
        let samples = (float_times.len() + histogram_times.len()) as u64;
        Some(Self { first, last, samples, is_constant, chunks: Vec::new() })
    }
}

/// Reads all series of a block in order of labels. Those whose samples are all deleted are left out.
///
/// # Errors
/// When the block is damaged or gone, or the system fails.
pub fn scan_block(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    id: &str,
    each: &mut dyn FnMut(&Labels, &SeriesFacts),
) -> Result<(), StorageError> {
    // What a scan reads does not go through the cache.
    let cache = BlockCache::new(1 << 20);
    let block = Block::open(fs, &dir.join(id), &cache)?;
    let mut scan = block.scan().with_chunks();
    let mut labels = Labels::empty();
    let mut columns = Columns::default();
    while scan.next(&mut labels, &mut columns)? {
        if let Some(mut facts) =
            SeriesFacts::of_parts(&columns.times, &columns.values, &columns.histogram_times)
        {
            facts.chunks.extend(scan.chunks().iter().map(|chunk| ChunkFacts {
                codec: chunk.kind,
                is_histogram: chunk.info.histogram,
                samples: chunk.info.count as u64,
                bytes: chunk.bytes as u64,
            }));
            each(&labels, &facts);
        }
    }
    Ok(())
}
