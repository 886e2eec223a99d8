//! How small and how fast blocks are, on recorded scrapes. Not run with the other tests: it wants a recording, whose path
//! is in `NILOMETER_RECORDING`, and a release build:
//!
//! `NILOMETER_VARIANT` picks variants by a part of their names, `NILOMETER_PASSES` says how often reading is timed.
//!
//! `NILOMETER_RECORDING=… cargo test --release -p tsdb --lib block::measure -- --ignored --nocapture`
//!
//! The recording is one zstd stream: `TBREC1\n`, number of targets; per target a name, the times of its scrapes, and its
//! series: identity, type, runs of scrapes, and the bits of the values of all runs. Numbers are little-endian.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::labels::Labels;
use model::sample::TimeRange;
use ulid::Ulid;

use super::*;
use crate::cache::BlockCache;
use crate::columns::Columns;
use crate::fs::RealFs;

/// All series of a recording, in order of labels.
fn recording(path: &str) -> Vec<(Labels, Columns)> {
    let mut stream = zstd::stream::read::Decoder::new(std::fs::File::open(path).unwrap()).unwrap();
    stream.window_log_max(31).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut input = Input { rest: bytes.strip_prefix(b"TBREC1\n").unwrap() };
    let mut all = Vec::new();
    for _ in 0..input.u32() {
        let len = input.take(2);
        let target = input.text(usize::from(u16::from_le_bytes([len[0], len[1]])));
        let times: Vec<i64> = (0..input.u32()).map(|_| input.u64().cast_signed()).collect();
        for _ in 0..input.u32() {
            let len = input.u32() as usize;
            let labels = labels(&input.text(len), &target);
            input.take(1);
            let runs: Vec<(usize, usize)> =
                (0..input.u32()).map(|_| (input.u32() as usize, input.u32() as usize)).collect();
            let mut columns = Columns::default();
            for (first, len) in runs {
                for t in &times[first..first + len] {
                    columns.push_float(*t, f64::from_bits(input.u64()), 0);
                }
            }
            all.push((labels, columns));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.rest.split_at(len);
        self.rest = tail;
        head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self, len: usize) -> String {
        String::from_utf8(self.take(len).to_vec()).unwrap()
    }
}

/// From exposition notation, with the labels that a scrape adds.
fn labels(identity: &str, target: &str) -> Labels {
    let (name, rest) = identity.split_once('{').unwrap_or((identity, ""));
    let mut pairs = vec![
        ("__name__".to_owned(), name.to_owned()),
        ("instance".to_owned(), target.to_owned()),
        ("job".to_owned(), target.split(':').next().unwrap_or_default().to_owned()),
    ];
    let mut rest = rest;
    while let Some((label, tail)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = tail.char_indices();
        let mut end = tail.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => value.extend(chars.next().map(|(_, c)| if c == 'n' { '\n' } else { c })),
                '"' => {
                    end = at + 1;
                    break;
                }
                c => value.push(c),
            }
        }
        let label = label.trim_start_matches(',').trim();
        let label = if label == "instance" || label == "job" {
            format!("exported_{label}")
        } else {
            label.to_owned()
        };
        pairs.push((label, value));
        rest = &tail[end..];
    }
    Labels::from_pairs(pairs)
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn timed<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let start = std::time::Instant::now();
    let result = work();
    (start.elapsed(), result)
}

fn build(
    dir: &Path,
    series: &[(Labels, Columns)],
    options: BlockOptions,
) -> (Ulid, BlockMeta, writer::BlockParts) {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let id = Ulid::from_parts(1_700_000_000_000, 0x1234_5678_9abc_def0);
    let _ = std::fs::remove_dir_all(dir.join(id.to_string()));
    let mut writer = BlockWriter::create(&fs, dir, id, options).unwrap();
    let mut range = TimeRange::new(i64::MAX, i64::MIN);
    for (labels, columns) in series {
        writer.add(labels, columns).unwrap();
        let of = columns.range().unwrap();
        range = TimeRange::new(range.min.min(of.min), range.max.max(of.max));
    }
    let made = Made {
        min_time: range.min,
        max_time: range.max + 1,
        level: 1,
        sources: Vec::new(),
        parents: Vec::new(),
        hints: Vec::new(),
    };
    let (meta, parts) = writer.finish_with_parts(made).unwrap().unwrap();
    (id, meta, parts)
}

#[test]
#[ignore = "wants a recording and a release build"]
fn sizes_and_speeds() {
    let Ok(path) = std::env::var("NILOMETER_RECORDING") else { panic!("NILOMETER_RECORDING is not set") };
    let series = recording(&path);
    let dir = tempfile::tempdir().unwrap();
    let samples: usize = series.iter().map(|(_, columns)| columns.len()).sum();
    println!("{} series, {samples} samples", series.len());
    let level = BlockOptions::for_level;
    let variants = [
        ("level 1", level(1)),
        ("level 2", level(2)),
        ("480 lz4", BlockOptions { compression: Compression::Lz4, ..level(1) }),
        ("480 none", BlockOptions { compression: Compression::None, ..level(1) }),
        ("480 chain 1", BlockOptions { bucket_chain: 1, ..level(1) }),
        ("480 chain 2", BlockOptions { bucket_chain: 2, ..level(1) }),
        ("480 chain 8", BlockOptions { bucket_chain: 8, ..level(1) }),
        ("480 chain 16", BlockOptions { bucket_chain: 16, ..level(1) }),
        ("level 2, 960", BlockOptions { chunk_samples: 960, ..level(2) }),
        ("level 2, chain 4", BlockOptions { bucket_chain: 4, ..level(2) }),
        ("level 2 quick", BlockOptions { effort: crate::chunk::Effort::Quick, ..level(2) }),
        ("1920 zstd 1", BlockOptions { compression: Compression::Zstd(1), ..level(2) }),
        (
            "1920 zstd 9, 128",
            BlockOptions { batch_series: 128, compression: Compression::Zstd(9), ..level(2) },
        ),
    ];
    let only = std::env::var("NILOMETER_VARIANT").unwrap_or_default();
    for (name, options) in variants.into_iter().filter(|(name, _)| name.contains(&only)) {
        let (write, (id, meta, parts)) = timed(|| build(dir.path(), &series, options));
        let per = |bytes: u64| bytes as f64 / samples as f64;
        let total = parts.samples + parts.times + parts.directories + parts.index + parts.other;
        println!(
            "{name:16} {:.4} B/sample: samples {:.4}, times {:.4} ({} columns), directories {:.4}, index {:.4} ({:.1} B/series), \
             other {} B; {} chunks; write {:.1} ns/sample",
            per(total),
            per(parts.samples),
            per(parts.times),
            parts.time_columns,
            per(parts.directories),
            per(parts.index),
            parts.index as f64 / series.len() as f64,
            parts.other,
            meta.stats.num_chunks,
            write.as_nanos() as f64 / samples as f64,
        );
        speeds(&dir.path().join(id.to_string()), samples);
    }
}

fn speeds(dir: &Path, samples: usize) {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let cache = BlockCache::new(64 << 20);
    let (open, block) = timed(|| Block::open(&fs, dir, &cache).unwrap());
    let read_all = || {
        let mut columns = Columns::default();
        for n in 0..block.index().series() {
            columns.clear();
            block.read(n, TimeRange::ALL, &mut columns).unwrap();
        }
    };
    let scan_all = || {
        let (mut labels, mut columns) = (Labels::empty(), Columns::default());
        let mut scan = block.scan();
        while scan.next(&mut labels, &mut columns).unwrap() {}
    };
    let (cold, ()) = timed(read_all);
    let passes = std::env::var("NILOMETER_PASSES").ok().and_then(|passes| passes.parse().ok()).unwrap_or(3);
    let warm = (0..passes).map(|_| timed(read_all).0).min().unwrap();
    let scan = (0..3).map(|_| timed(scan_all).0).min().unwrap();
    // One series out of all, as a query would.
    let mut columns = Columns::default();
    let wanted: Vec<_> =
        (0..block.index().series()).step_by(97).map(|n| block.index().labels(n).unwrap()).collect();
    let mut select_read = || {
        for labels in &wanted {
            let matchers: Vec<_> =
                labels.iter().map(|(name, value)| model::matcher::Matcher::equal(name, value)).collect();
            for n in block.index().select(&matchers).unwrap() {
                columns.clear();
                block.read(n, TimeRange::ALL, &mut columns).unwrap();
            }
        }
    };
    let (first, ()) = timed(&mut select_read);
    let again = (0..3).map(|_| timed(&mut select_read).0).min().unwrap();
    let (verify, damage) = timed(|| block.verify());
    assert_eq!(damage, []);
    let per = |time: Duration, of: usize| time.as_nanos() as f64 / of as f64;
    println!(
        "    open {open:?}; read {:.2} ns/sample cold, {:.2} warm; scan {:.2}; verify {:.2}; select and read one series {:.1} us \
         ({:.1} again)",
        per(cold, samples),
        per(warm, samples),
        per(scan, samples),
        per(verify, samples),
        per(first, wanted.len()) / 1000.0,
        per(again, wanted.len()) / 1000.0,
    );
}
