//! Blocks against plain maps, against failing disks, and against flipped bits.

mod content;
mod damage;
mod deletions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::histogram::{FloatHistogram, Histogram, Span};
use model::labels::Labels;
use model::sample::{STALE_NAN_BITS, TimeRange};
use model::storage::StorageError;
use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::cache::BlockCache;
use crate::chunk::HistogramValue;
use crate::columns::Columns;
use crate::fs::{Fault, FaultKind, FaultyFs};

/// The bytes of the first block of a document that is marked `hex`; what follows `;` on a line is comment.
pub(super) fn example(document: &str) -> Vec<u8> {
    example_at(document, 0)
}

/// As [`example`], of a block that has so many before it.
fn example_at(document: &str, before: usize) -> Vec<u8> {
    let block = document.split("```hex\n").nth(before + 1).and_then(|rest| rest.split("```").next()).unwrap();
    let digits: String = block.lines().filter_map(|line| line.split(';').next()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

const ID: Ulid = Ulid(0x018b_cfe5_6800_0123_4567_89ab_cdef_0123);

fn data_dir() -> &'static Path {
    Path::new("/data")
}

fn dir() -> PathBuf {
    data_dir().join(ID.to_string())
}

fn labels(n: usize) -> Labels {
    Labels::from_pairs([("__name__", format!("metric_{:03}", n / 7)), ("pod", format!("{:03}", n % 7))])
}

fn options() -> BlockOptions {
    BlockOptions { batch_series: 4, chunk_samples: 20, chunk_histograms: 8, ..BlockOptions::for_level(1) }
}

fn made(min_time: i64, max_time: i64) -> Made {
    Made { min_time, max_time, level: 1, sources: Vec::new(), parents: Vec::new(), hints: Vec::new() }
}

fn write(
    fs: &FaultyFs,
    series: &[Columns],
    options: BlockOptions,
) -> Result<Option<BlockMeta>, StorageError> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let mut writer = BlockWriter::create(&fs, data_dir(), ID, options)?;
    for (n, columns) in series.iter().enumerate() {
        writer.add(&labels(n), columns)?;
    }
    writer.finish(made(-1_000_000, 10_000_000))
}

fn open(fs: &FaultyFs) -> Result<Block, StorageError> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Block::open(&fs, &dir(), &BlockCache::new(1 << 20))
}

/// All that can be told of samples, as text that is equal when every bit is.
fn text(columns: &Columns) -> Vec<String> {
    let start = |starts: &[i64], at: usize| starts.get(at).copied().unwrap_or(0);
    let floats = columns.times.iter().zip(&columns.values).enumerate();
    let floats = floats.map(|(at, (t, v))| format!("{t} {:x} {}", v.to_bits(), start(&columns.starts, at)));
    let histograms = columns.histogram_times.iter().zip(&columns.histograms).enumerate();
    let histograms = histograms.map(|(at, (t, h))| {
        let sum = match h {
            HistogramValue::Integer(h) => h.sum.to_bits(),
            HistogramValue::Float(h) => h.sum.to_bits(),
        };
        format!("{t} {h:?} {sum:x} {}", start(&columns.histogram_starts, at))
    });
    floats.chain(histograms).collect()
}

type Content = BTreeMap<String, Vec<String>>;

fn expected(series: &[Columns]) -> Content {
    let some = series.iter().enumerate().filter(|(_, columns)| !columns.is_empty());
    some.map(|(n, columns)| (labels(n).to_string(), text(columns))).collect()
}

fn scanned(block: &Block) -> Result<Content, StorageError> {
    let mut scan = block.scan();
    let (mut labels, mut columns) = (Labels::empty(), Columns::default());
    let mut content = Content::new();
    let mut last = Labels::empty();
    while scan.next(&mut labels, &mut columns)? {
        assert!(last < labels, "{last} before {labels}");
        last = labels.clone();
        content.insert(labels.to_string(), text(&columns));
    }
    Ok(content)
}

fn read(block: &Block, series: u32, range: TimeRange) -> Result<Vec<String>, StorageError> {
    let mut columns = Columns::default();
    block.read(series, range, &mut columns)?;
    Ok(text(&columns))
}

fn all_read(block: &Block) -> Result<Content, StorageError> {
    (0..block.index().series())
        .map(|series| Ok((block.index().labels(series)?.to_string(), read(block, series, TimeRange::ALL)?)))
        .collect()
}

fn histogram(n: i64) -> HistogramValue {
    let spans = vec![Span { offset: 1, length: 2 }];
    if n % 5 == 0 {
        return HistogramValue::Float(Arc::new(FloatHistogram {
            schema: 2,
            count: n as f64,
            sum: f64::from_bits(STALE_NAN_BITS),
            positive_spans: spans,
            positive_buckets: vec![0.5, n as f64],
            ..FloatHistogram::default()
        }));
    }
    HistogramValue::Integer(Arc::new(Histogram {
        schema: 2,
        count: n.cast_unsigned(),
        sum: -0.0,
        positive_spans: spans,
        positive_buckets: vec![n, -n],
        ..Histogram::default()
    }))
}

/// A few targets with common times, with gaps, odd bits, starts and histograms.
fn usual() -> Vec<Columns> {
    let mut all = Vec::new();
    for n in 0..30i64 {
        let mut columns = Columns::default();
        let target = n % 3;
        for i in 0..100i64 {
            let t = i * 1000 + target * 7 + (i * 37 + target) % 3;
            if n % 7 == 6 && i % 5 == 0 || n == 4 && i < 30 {
                continue;
            }
            let value = match n % 4 {
                0 => 1.0,
                1 => (i * n) as f64,
                2 => (i as f64).sin(),
                _ => f64::from_bits(if i == 50 {
                    STALE_NAN_BITS
                } else {
                    0x7ff0_0000_0000_0000 + i.cast_unsigned()
                }),
            };
            columns.push_float(t, value, if n == 8 { t - 500 } else { 0 });
            if n % 10 == 5 {
                columns.push_histogram(t + 1, histogram(i), if i > 50 { 3 } else { 0 });
            }
        }
        all.push(columns);
    }
    all.push(Columns::default());
    all
}
