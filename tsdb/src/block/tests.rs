//! Blocks against plain maps, against failing disks, and against flipped bits.

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
    let block = document.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
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

#[test]
fn a_block_of_a_later_level_gives_back_what_it_was_given() {
    let series = usual();
    for options in [
        BlockOptions::for_level(2),
        BlockOptions {
            batch_series: 4,
            chunk_samples: 20,
            chunk_histograms: 8,
            ..BlockOptions::for_level(2)
        },
    ] {
        let fs = FaultyFs::new();
        write(&fs, &series, options).unwrap().unwrap();
        let block = open(&fs).unwrap();
        assert_eq!(block.verify(), []);
        assert_eq!(scanned(&block).unwrap(), expected(&series));
        assert_eq!(all_read(&block).unwrap(), expected(&series));
    }
}

#[test]
fn a_block_gives_back_what_it_was_given() {
    let fs = FaultyFs::new();
    let series = usual();
    let meta = write(&fs, &series, options()).unwrap().unwrap();
    let block = open(&fs).unwrap();
    assert_eq!(block.meta(), &meta);
    assert_eq!(meta.stats.num_series, 30);
    assert_eq!(meta.stats.num_samples, series.iter().map(|columns| columns.len() as u64).sum::<u64>());
    assert_eq!(meta.compaction.sources, [ID]);
    let size: usize = fs.paths().iter().filter_map(|path| fs.read(path)).map(|bytes| bytes.len()).sum();
    assert_eq!(block.size_bytes(), size as u64);
    assert_eq!(scanned(&block).unwrap(), expected(&series));
    assert_eq!(all_read(&block).unwrap(), expected(&series));
    assert_eq!(block.verify(), []);
    let found = block.index().select(&[model::matcher::Matcher::equal("pod", "003")]).unwrap();
    assert_eq!(found.len(), 4);
}

/// The buckets of classic histograms, whose order of labels is not that of their bounds, with gaps and restarts.
#[test]
fn buckets_are_counted_against_each_other() {
    let bounds = ["+Inf", "0.1", "1", "10", "2", "5", "7"];
    let mut all: Vec<(Labels, Columns)> = Vec::new();
    for (place, le) in bounds.iter().enumerate() {
        for (m, method) in ["GET", "PUT", "x"].iter().enumerate() {
            let mut columns = Columns::default();
            let rank = if place == 0 { 9 } else { place as i64 };
            let mut common = 0;
            for i in 0..300i64 {
                // Most of what is observed is below the smallest bound, and comes by chance; then it starts again.
                common = if i == 200 { 0 } else { common + ((i * 2_654_435_761 + m as i64) >> 7) % 5000 };
                if m == 1 && place == 3 && i % 11 == 0 {
                    continue;
                }
                columns.push_float(i * 1000, (common + rank * (i % 200 / 10)) as f64, 0);
            }
            let labels = Labels::from_pairs([("__name__", "d_bucket"), ("le", *le), ("method", *method)]);
            all.push((labels, columns));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let build = |bucket_chain: usize| {
        let fs = FaultyFs::new();
        let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
        let options = BlockOptions { bucket_chain, ..BlockOptions::for_level(1) };
        let mut writer = BlockWriter::create(&shared, data_dir(), ID, options).unwrap();
        all.iter().for_each(|(labels, columns)| writer.add(labels, columns).unwrap());
        let (_, parts) = writer.finish_with_parts(made(0, 1_000_000)).unwrap().unwrap();
        let block = open(&fs).unwrap();
        assert_eq!(block.verify(), []);
        let want: Content = all.iter().map(|(labels, columns)| (labels.to_string(), text(columns))).collect();
        assert_eq!(scanned(&block).unwrap(), want);
        assert_eq!(all_read(&block).unwrap(), want);
        parts.samples
    };
    let (alone, against) = (build(1), build(4));
    assert!(against * 10 < alone * 9, "{against} of {alone}");
}

/// A series that repeats another one, batches away, refers to its chunks; tombstones and times stay its own.
#[test]
fn equal_chunks_are_stored_once() {
    let count = |rank: i64| {
        let mut columns = Columns::default();
        (0..200i64).for_each(|i| columns.push_float(i * 1000, (i * i * (rank + 3) % 1009) as f64, 0));
        columns
    };
    let name = |name: &str, extra: &[(&str, String)]| {
        let pairs = extra.iter().map(|(k, v)| (*k, v.clone())).chain([("__name__", name.to_owned())]);
        Labels::from_pairs(pairs)
    };
    let mut all: Vec<(Labels, Columns)> = Vec::new();
    for n in 0..20i64 {
        for le in ["1", "2", "+Inf"] {
            let extra = [("n", format!("{n:02}")), ("le", le.to_owned())];
            all.push((
                name("h_bucket", &extra),
                count(if le == "+Inf" { n } else { 100 + n * le.len() as i64 }),
            ));
        }
        all.push((name("h_count", &[("n", format!("{n:02}"))]), count(n)));
        // The same values at other times.
        let mut shifted = Columns::default();
        count(n).values.iter().zip(0..).for_each(|(v, i)| shifted.push_float(i * 1000 + 7, *v, 0));
        all.push((name("i_count", &[("n", format!("{n:02}"))]), shifted));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let size = |all: &[(Labels, Columns)]| {
        let fs = FaultyFs::new();
        let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
        let options = BlockOptions { chunk_samples: 60, ..options() };
        let mut writer = BlockWriter::create(&shared, data_dir(), ID, options).unwrap();
        all.iter().for_each(|(labels, columns)| writer.add(labels, columns).unwrap());
        let (meta, parts) = writer.finish_with_parts(made(0, 1_000_000)).unwrap().unwrap();
        let block = open(&fs).unwrap();
        assert_eq!(block.verify(), []);
        assert_eq!(meta.stats.num_samples as usize, all.len() * 200);
        let want: Content = all.iter().map(|(labels, columns)| (labels.to_string(), text(columns))).collect();
        assert_eq!(scanned(&block).unwrap(), want);
        assert_eq!(all_read(&block).unwrap(), want);
        let series = all.iter().position(|(labels, _)| labels.get("__name__") == Some("h_count")).unwrap();
        let mut part = Columns::default();
        block.read(series as u32, TimeRange::new(70_000, 90_000), &mut part).unwrap();
        assert_eq!((part.times.len(), part.times[0], part.values[0]), (21, 70_000, all[series].1.values[70]));
        block.delete([(series as u32, TimeRange::new(0, 100_000))]).unwrap();
        let mut rest = Columns::default();
        block.read(series as u32, TimeRange::ALL, &mut rest).unwrap();
        assert_eq!(rest.times.first(), Some(&101_000));
        // The chunks are still there for whoever else has them.
        let other = all.iter().position(|(_, columns)| columns.values == all[series].1.values).unwrap();
        rest.clear();
        block.read(other as u32, TimeRange::ALL, &mut rest).unwrap();
        assert_eq!(rest.times.len(), if other == series { 99 } else { 200 });
        parts.samples
    };
    let equal = size(&all);
    for (labels, columns) in &mut all {
        if labels.get("__name__") == Some("h_count") {
            columns.values.iter_mut().for_each(|value| *value = 1009.0 - *value);
        }
    }
    let other = size(&all);
    assert!(equal * 10 < other * 9, "{equal} and {other}");
}

/// Series with equal times have one column between them, and those with gaps use it.
#[test]
fn equal_times_are_stored_once() {
    let fs: Arc<dyn FileSystem> = Arc::new(FaultyFs::new());
    let mut writer = BlockWriter::create(&fs, data_dir(), ID, options()).unwrap();
    for n in 0..50 {
        let mut columns = Columns::default();
        for i in (0..20i64).filter(|i| n % 5 != 3 || i % 7 != 2) {
            columns.push_float(i * 1000 + (i * i) % 13, n as f64, 0);
        }
        writer.add(&labels(n), &columns).unwrap();
    }
    let (_, parts) = writer.finish_with_parts(made(0, 100_000)).unwrap().unwrap();
    assert_eq!(parts.time_columns, 1, "{parts:?}");
}

#[test]
fn nothing_makes_no_block() {
    let fs = FaultyFs::new();
    assert_eq!(write(&fs, &[Columns::default(), Columns::default()], options()).unwrap(), None);
    assert_eq!(fs.paths(), Vec::<PathBuf>::new());
    assert_eq!(fs.list_dirs(data_dir()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let fs = FaultyFs::new();
    let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let mut writer = BlockWriter::create(&shared, data_dir(), ID, options()).unwrap();
    for (n, columns) in usual().iter().enumerate() {
        writer.add(&labels(n), columns).unwrap();
    }
    drop(writer);
    assert_eq!(fs.paths(), Vec::<PathBuf>::new());
}

#[test]
fn many_files_are_one_block() {
    let fs = FaultyFs::new();
    let series = usual();
    write(&fs, &series, BlockOptions { file_bytes_max: 1500, ..options() }).unwrap();
    assert!(fs.list(&dir().join(CHUNKS_DIR)).unwrap().len() > 5);
    let block = open(&fs).unwrap();
    assert_eq!(scanned(&block).unwrap(), expected(&series));
    assert_eq!(block.verify(), []);
}

#[test]
fn every_operation_may_fail_once_and_nothing_is_left() {
    let series = usual();
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
        let mut failed = 0;
        for at in 0.. {
            let fs = FaultyFs::new();
            fs.create_dir_all(data_dir()).unwrap();
            fs.fail_at(Some(Fault { at: fs.operations() + at, times: 1, kind }));
            let done = write(&fs, &series, BlockOptions { file_bytes_max: 4000, ..options() });
            if let Ok(meta) = done {
                // The fault was never met.
                assert!(meta.is_some());
                break;
            }
            failed += 1;
            assert_eq!(fs.paths(), Vec::<PathBuf>::new(), "{kind:?} at {at}");
            assert_eq!(fs.list_dirs(data_dir()).unwrap(), Vec::<String>::new(), "{kind:?} at {at}");
        }
        assert!(failed > 10, "{failed}");
    }
}

/// The process and the machine die at every operation: the block is there as a whole, or not.
#[test]
fn after_a_loss_of_power_it_is_whole_or_absent() {
    let series = usual();
    let (mut absent, mut whole) = (0, 0);
    for at in 0.. {
        let fs = FaultyFs::new();
        fs.create_dir_all(data_dir()).unwrap();
        let first = fs.operations();
        fs.fail_at(Some(Fault { at: first + at, times: u64::MAX, kind: FaultKind::Io }));
        let done = write(&fs, &series, BlockOptions { file_bytes_max: 4000, ..options() });
        for seed in 0..6 {
            let after = if seed < 5 { fs.lose_power_unevenly(seed) } else { fs.lose_power(128) };
            after.fail_at(None);
            if after.paths().iter().any(|path| path.starts_with(dir())) {
                whole += 1;
                let block = open(&after).unwrap();
                assert_eq!(block.verify(), [], "at {at}, seed {seed}");
                assert_eq!(scanned(&block).unwrap(), expected(&series));
            } else {
                assert!(done.is_err(), "acknowledged and lost: at {at}, seed {seed}");
                absent += 1;
            }
        }
        if done.is_ok() {
            break;
        }
    }
    assert!(absent > 50 && whole > 5, "{absent} {whole}");
}

#[test]
fn reads_that_fail_are_errors_and_no_more() {
    let fs = FaultyFs::new();
    let series = usual();
    write(&fs, &series, options()).unwrap();
    for at in 0.. {
        fs.fail_reads_at(None);
        let block = open(&fs).unwrap();
        fs.fail_reads_at(Some(Fault { at: fs.reads() + at, times: 1, kind: FaultKind::Io }));
        let got = scanned(&block);
        fs.fail_reads_at(None);
        match got {
            Ok(content) => {
                assert_eq!(content, expected(&series));
                assert!(at > 20, "{at}");
                break;
            }
            Err(error) => assert!(matches!(error, StorageError::Io { .. }), "{error}"),
        }
        assert_eq!(all_read(&block).unwrap(), expected(&series), "a failed read is not remembered");
    }
}

/// Each byte of each file (a few bits of it): found by verification, and never a wrong answer.
#[test]
fn flipped_bits_are_found_and_give_no_wrong_answers() {
    let fs = FaultyFs::new();
    let series: Vec<Columns> = usual().into_iter().take(12).collect();
    write(&fs, &series, options()).unwrap();
    let want = expected(&series);
    let ranges = [TimeRange::new(20_000, 40_000)];
    let part = read(&open(&fs).unwrap(), 5, ranges[0]).unwrap();
    let mut flips = 0usize;
    for path in fs.paths() {
        let bytes = fs.read(&path).unwrap();
        for place in 0..bytes.len() {
            // In large files, some bytes.
            if bytes.len() > 600 && place % 7 != 0 && place > 64 && place + 64 < bytes.len() {
                continue;
            }
            let mut bytes = bytes.clone();
            bytes[place] ^= 1 << ((place * 5 + flips) % 8);
            flips += 1;
            fs.write(&path, bytes);
            let at = format!("{} byte {place}", path.display());
            let block = match open(&fs) {
                Ok(block) => block,
                Err(StorageError::Corrupted { file, .. }) => {
                    assert!(file == path || file.starts_with(dir()), "{at}");
                    continue;
                }
                Err(error) => panic!("{at}: {error}"),
            };
            let damage = block.verify();
            assert!(damage.iter().any(|damage| damage.file == path), "{at}: {damage:?}");
            match scanned(&block) {
                Ok(content) => assert_eq!(content, want, "{at}"),
                Err(StorageError::Corrupted { file, .. }) => assert_eq!(file, path, "{at}"),
                Err(error) => panic!("{at}: {error}"),
            }
            for n in 0..block.index().series() {
                match read(&block, n, TimeRange::ALL) {
                    Ok(samples) => assert_eq!(samples, want[&labels(n as usize).to_string()], "{at}"),
                    Err(StorageError::Corrupted { file, .. }) => assert_eq!(file, path, "{at}"),
                    Err(error) => panic!("{at}: {error}"),
                }
            }
            if let Ok(samples) = read(&block, 5, ranges[0]) {
                assert_eq!(samples, part, "{at}");
            }
        }
        fs.write(&path, bytes);
    }
    assert!(flips > 800, "{flips}");
    assert_eq!(open(&fs).unwrap().verify(), []);
}

/// A damaged frame costs the reads that need it, and they name it.
#[test]
fn damage_is_contained() {
    let fs = FaultyFs::new();
    let series = usual();
    write(&fs, &series, options()).unwrap();
    let path = dir().join(CHUNKS_DIR).join("000001");
    let mut bytes = fs.read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs.write(&path, bytes);
    let block = open(&fs).unwrap();
    let damage = block.verify();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(damage[0].file == path && damage[0].offset <= middle as u64, "{damage:?}");
    let want = expected(&series);
    let (mut good, mut bad) = (0, 0);
    for n in 0..30 {
        match read(&block, n, TimeRange::ALL) {
            Ok(samples) => {
                assert_eq!(samples, want[&labels(n as usize).to_string()]);
                good += 1;
            }
            Err(StorageError::Corrupted { file, offset, .. }) => {
                assert_eq!((file, offset), (path.clone(), damage[0].offset));
                bad += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..=4).contains(&bad), "one batch at most: {good} {bad}");
    // A scan goes on behind it.
    let mut scan = block.scan();
    let (mut labels, mut columns) = (Labels::empty(), Columns::default());
    let (mut scanned, mut failed) = (0, 0);
    loop {
        match scan.next(&mut labels, &mut columns) {
            Ok(true) => scanned += 1,
            Ok(false) => break,
            Err(_) => failed += 1,
        }
    }
    assert_eq!((scanned, failed), (good, bad));
}

#[test]
fn files_that_are_cut_or_missing_are_named() {
    let fs = FaultyFs::new();
    write(&fs, &usual(), BlockOptions { file_bytes_max: 4000, ..options() }).unwrap();
    for path in fs.paths() {
        let bytes = fs.read(&path).unwrap();
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            fs.write(&path, bytes[..len].to_vec());
            let named = match open(&fs) {
                Ok(block) => block.verify().iter().any(|damage| damage.file == path),
                Err(StorageError::Corrupted { file, .. }) => file == path,
                Err(error) => panic!("{error}"),
            };
            assert!(named, "{} cut to {len}", path.display());
        }
        fs.remove(&path).unwrap();
        let named = match open(&fs) {
            Ok(block) => block.verify().iter().any(|damage| damage.file == path),
            Err(StorageError::Corrupted { file, .. }) => file == path,
            Err(StorageError::Io { path: file, .. }) => file == path,
            Err(error) => panic!("{error}"),
        };
        assert!(named, "{} removed", path.display());
        fs.write(&path, bytes);
    }
    assert_eq!(open(&fs).unwrap().verify(), []);
}

#[test]
fn bytes_that_belong_to_nobody_are_named() {
    let fs = FaultyFs::new();
    write(&fs, &usual(), options()).unwrap();
    let path = dir().join(CHUNKS_DIR).join("000001");
    let mut bytes = fs.read(&path).unwrap();
    let end = bytes.len() as u64;
    crate::frame::encode_frame(&[b"stray"], Compression::None, &mut bytes);
    bytes.extend_from_slice(b"rubbish");
    fs.write(&path, bytes);
    let damage = open(&fs).unwrap().verify();
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert!(damage[0].offset == end && damage[0].what.contains("no directory"), "{damage:?}");
}

#[test]
fn deletions_hide_and_stay() {
    let fs = FaultyFs::new();
    let mut series = usual();
    write(&fs, &series, options()).unwrap();
    let block = open(&fs).unwrap();
    assert!(!block.has_tombstones());
    let scan_before = block.scan();
    block.delete([(3, TimeRange::new(10_000, 60_000)), (5, TimeRange::ALL)]).unwrap();
    block.delete([(3, TimeRange::new(55_000, 70_000)), (3, TimeRange::new(0, 0))]).unwrap();
    assert!(block.has_tombstones());
    drop(scan_before);
    series[3].retain(|t| !(10_000..=70_000).contains(&t) && t != 0);
    series[5].clear();
    let mut want = expected(&series);
    want.insert(labels(5).to_string(), Vec::new());
    for block in [&block, &open(&fs).unwrap()] {
        assert_eq!(block.tombstones().len(), 3);
        assert_eq!(scanned(block).unwrap(), want);
        assert_eq!(all_read(block).unwrap(), want);
        assert_eq!(block.verify(), []);
    }
    block.delete([(30, TimeRange::ALL)]).unwrap();
    assert!(block.verify()[0].what.contains("tombstone of series 30"));
}

#[test]
fn a_failed_deletion_hides_nothing() {
    let fs = FaultyFs::new();
    let series = usual();
    write(&fs, &series, options()).unwrap();
    let block = open(&fs).unwrap();
    for at in 0..4 {
        fs.fail_at(Some(Fault { at: fs.operations() + at, times: 1, kind: FaultKind::NoSpace }));
        assert!(block.delete([(3, TimeRange::ALL)]).is_err(), "{at}");
        assert_eq!(all_read(&block).unwrap(), expected(&series));
    }
    fs.fail_at(None);
    block.delete([(3, TimeRange::ALL)]).unwrap();
    assert_eq!(read(&block, 3, TimeRange::ALL).unwrap(), Vec::<String>::new());
    assert!(!fs.paths().iter().any(|path| path.ends_with("tombstones.tmp")));
}

#[test]
fn reads_go_through_the_cache_and_scans_do_not() {
    let fs = FaultyFs::new();
    write(&fs, &usual(), options()).unwrap();
    let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let cache = BlockCache::new(1 << 20);
    let block = Block::open(&shared, &dir(), &cache).unwrap();
    read(&block, 3, TimeRange::ALL).unwrap();
    let before = fs.reads();
    read(&block, 3, TimeRange::ALL).unwrap();
    assert_eq!(fs.reads(), before, "all of it is in the cache");
    drop(block);
    assert_eq!(cache.stats().entries, 0, "nothing of a closed block stays");
}

#[test]
fn blocks_of_another_version_are_refused_by_name() {
    let fs = FaultyFs::new();
    let mut meta = write(&fs, &usual(), options()).unwrap().unwrap();
    meta.version = 2;
    meta.format = "nilometer-block/2".to_owned();
    fs.write(&dir().join(META_FILE), meta.encode());
    let error = open(&fs).unwrap_err().to_string();
    assert!(error.contains("meta.json") && error.contains("version 2"), "{error}");
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-50i64..50).prop_map(|v| v as f64),
        (0i64..1000).prop_map(|v| v as f64 / 100.0),
        Just(f64::from_bits(STALE_NAN_BITS)),
        Just(-0.0),
    ]
}

prop_compose! {
    /// Times of a few targets; each series takes those of one, all or some.
    fn any_series()(
        targets in prop::collection::vec(prop::collection::btree_set(0i64..2000, 1..120), 1..4),
        series in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u8..6, prop::collection::vec(value(), 1..20), prop::collection::btree_set(0i64..2000, 0..10)),
            0..60,
        ),
        scale in prop_oneof![Just(1i64), Just(15), Just(1000)],
    ) -> Vec<Columns> {
        series.into_iter().map(|(target, kind, values, histograms)| {
            let times = &targets[target.index(targets.len())];
            let mut columns = Columns::default();
            for (i, t) in times.iter().enumerate() {
                if kind == 1 && i % 3 == 0 || kind == 2 && i < 10 {
                    continue;
                }
                let start = if kind == 3 && i > 5 { t - 1 } else { 0 };
                columns.push_float(t * scale, values[i % values.len()], start);
            }
            for t in histograms.iter().filter(|_| kind >= 4) {
                columns.push_histogram(t * scale, histogram(*t), if kind == 5 { *t } else { 0 });
            }
            columns
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_agree_with_what_they_were_given(
        series in any_series(),
        batch_series in 1usize..10,
        chunk_samples in 1usize..60,
        lz4 in any::<bool>(),
        asked in prop::collection::vec((any::<prop::sample::Index>(), -10i64..2_100_000, 0i64..1_000_000), 0..20),
        dead in prop::collection::vec((any::<prop::sample::Index>(), -10i64..2_100_000, 0i64..300_000), 0..4),
    ) {
        let fs = FaultyFs::new();
        let compression = if lz4 { Compression::Lz4 } else { Compression::Zstd(1) };
        let options = BlockOptions { batch_series, chunk_samples, compression, ..options() };
        let meta = write(&fs, &series, options).unwrap();
        let mut stored: Vec<(Labels, Columns)> =
            series.into_iter().enumerate().map(|(n, columns)| (labels(n), columns)).filter(|(_, columns)| !columns.is_empty()).collect();
        prop_assert_eq!(meta.is_some(), !stored.is_empty());
        if stored.is_empty() {
            return Ok(());
        }
        let block = open(&fs).unwrap();
        prop_assert_eq!(block.verify(), []);
        let content = |stored: &[(Labels, Columns)]| -> Content {
            stored.iter().map(|(labels, columns)| (labels.to_string(), text(columns))).collect()
        };
        prop_assert_eq!(scanned(&block).unwrap(), content(&stored));
        let dead: Vec<(u32, TimeRange)> = dead.iter().map(|(n, from, len)| {
            (n.index(stored.len()) as u32, TimeRange::new(*from, from + len))
        }).collect();
        block.delete(dead.iter().copied()).unwrap();
        for (series, range) in &dead {
            stored[*series as usize].1.retain(|t| !range.contains(t));
        }
        prop_assert_eq!(scanned(&block).unwrap(), content(&stored));
        for (n, from, len) in asked {
            let n = n.index(stored.len());
            let range = TimeRange::new(from, from + len);
            let mut want = stored[n].1.clone();
            want.clip(|t| range.contains(t));
            prop_assert_eq!(read(&block, n as u32, range).unwrap(), text(&want));
        }
    }
}

/// The document's example is what we write, and we read it.
#[test]
fn the_example_of_the_document_is_true() {
    let mut columns = Columns::default();
    columns.push_float(1000, 1.0, 0);
    columns.push_float(2000, 2.0, 0);
    columns.push_float(3000, 3.0, 0);
    let fs = FaultyFs::new();
    let series = [columns.clone(), columns];
    write(&fs, &series, BlockOptions { compression: Compression::None, ..options() }).unwrap();
    let path = dir().join(CHUNKS_DIR).join("000001");
    let written = fs.read(&path).unwrap();
    let hex: String = written.iter().map(|b| format!("{b:02x} ")).collect();
    let example = example(include_str!("../../../docs/formats/block.md"));
    assert_eq!(example, written, "written: {hex}");
    fs.write(&path, example);
    assert_eq!(scanned(&open(&fs).unwrap()).unwrap(), expected(&series));
}
