//! How much memory a series takes, and how long a restart does. Small here, with bounds; the sizes that count:
//! `NILOMETER_BENCH_SERIES=1000000 cargo test -p tsdb --release --test memory -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "it measures")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::ManualClock;
use model::labels::Labels;
use model::storage::{Append, AppendOptions, LayoutRef, Row, SeriesRef, SeriesSample, StorageAdmin as _};
use tsdb::fs::RealFs;
use tsdb::{Db, DbOptions};

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(rounded(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(rounded(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What an allocator really takes for a small piece.
fn rounded(size: usize) -> usize {
    if size <= 1024 { size.next_multiple_of(16) } else { size }
}

const PER_TARGET: usize = 1000;
const STEP: i64 = 15_000;

fn count(default: usize) -> usize {
    std::env::var("NILOMETER_BENCH_SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn open(dir: &std::path::Path) -> Arc<Db> {
    let mut options = DbOptions::new(dir, Arc::new(ManualClock::new(0)));
    options.retention = Duration::ZERO;
    Db::open(options, &prometheus::Registry::new(), Arc::new(RealFs)).unwrap()
}

/// As node exporters and brokers have them: nine labels.
fn labels(target: usize, index: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("node_metric_{}_total", index / 4)),
        ("cluster", "eu-west-1".to_owned()),
        ("cpu", format!("{}", index % 64)),
        ("env", "production".to_owned()),
        ("instance", format!("10.{}.{}.{}:9100", target / 62_500, target / 250 % 250, target % 250)),
        ("job", "node".to_owned()),
        ("mode", ["user", "system", "idle", "wait"][index % 4].to_owned()),
        ("rack", format!("r{}", target % 40)),
        ("team", format!("t{}", target % 7)),
    ])
}

fn value(index: usize, round: usize) -> f64 {
    match index % 10 {
        0 | 1 => (round * (index + 3)) as f64,
        2 | 3 => ((round * 7919 + index * 31) % 100_000) as f64 / 100.0,
        4 => ((round * 131 + index) as f64 * 0.37).sin(),
        _ => index as f64,
    }
}

fn layouts(db: &Db, series: usize) -> Vec<LayoutRef> {
    let targets = 0..series / PER_TARGET;
    targets
        .map(|target| {
            let mut appender = db.appender(AppendOptions::default());
            let layout = appender.open_layout();
            for index in 0..PER_TARGET {
                appender.extend_layout(layout, &labels(target, index)).unwrap();
            }
            appender.commit().unwrap();
            layout
        })
        .collect()
}

fn row(db: &Db, layouts: &[LayoutRef], round: usize) {
    for (target, layout) in layouts.iter().enumerate() {
        let values: Vec<f64> = (0..PER_TARGET).map(|index| value(index + target, round)).collect();
        let mut appender = db.appender(AppendOptions::default());
        appender.append_row(&Row { layout: *layout, t: round as i64 * STEP, values: &values });
        appender.commit().unwrap();
    }
}

fn rss() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// One test at a time: what is counted is of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn report(what: &str, series: usize, before: usize) -> usize {
    let bytes = BYTES.load(Ordering::Relaxed) - before;
    println!("{what}: {} B/series, resident {} B/series", bytes / series, rss() / series);
    bytes / series
}

#[test]
fn bytes_of_a_series() {
    let _alone = ALONE.lock();
    let series = count(2_000);
    // Once and a half what it is with few series, when each has its largest share of open windows.
    for (road, most) in [("rows", 600), ("references", 1000)] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        let before = BYTES.load(Ordering::Relaxed);
        let (mut by_row, mut refs) = (Vec::new(), Vec::new());
        if road == "rows" {
            by_row = layouts(&db, series);
        } else {
            let mut appender = db.appender(AppendOptions::default());
            for id in 0..series {
                let labels = labels(id / PER_TARGET, id % PER_TARGET);
                let sample = model::storage::AppendSample::float(0, 0.0);
                refs.push(appender.append(None, &labels, sample).unwrap());
            }
            appender.commit().unwrap();
        }
        report(&format!("{road}, no samples"), series, before);
        for round in 1..=120 {
            if road == "rows" {
                row(&db, &by_row, round);
            } else {
                references(&db, &refs, round);
            }
            if round % 4 == 0 {
                db.maintain(round as i64 * STEP).unwrap();
            }
            if [12, 30, 60, 90, 120].contains(&round) {
                let bytes = report(&format!("{road}, {round} samples"), series, before);
                assert!(bytes <= most, "{road}, {round} samples: {bytes} B/series");
            }
        }
    }
}

fn references(db: &Db, refs: &[SeriesRef], round: usize) {
    for (at, run) in refs.chunks(5000).enumerate() {
        let sample = |(index, series): (usize, &SeriesRef)| SeriesSample {
            series: *series,
            t: round as i64 * STEP,
            v: value((at * 5000 + index) % PER_TARGET + at * 5, round),
        };
        let samples: Vec<SeriesSample> = run.iter().enumerate().map(sample).collect();
        let mut appender = db.appender(AppendOptions::default());
        assert!(appender.append_floats(&samples, false).is_empty());
        appender.commit().unwrap();
    }
}

#[test]
fn seconds_of_a_restart() {
    let _alone = ALONE.lock();
    let series = count(2_000);
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let targets = layouts(&db, series);
    for round in 1..=480 {
        row(&db, &targets, round);
        if round % 4 == 0 {
            db.maintain(round as i64 * STEP).unwrap();
        }
    }
    // Neither closed nor dropped in good order: the files are as a kill leaves them.
    let copy = tempfile::tempdir().unwrap();
    for dir_name in ["", "wal", "head_chunks"] {
        let (from, to) = (dir.path().join(dir_name), copy.path().join(dir_name));
        std::fs::create_dir_all(&to).unwrap();
        let (mut bytes, mut files) = (0, 0);
        for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            bytes += std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            files += 1;
        }
        println!("{dir_name:?}: {files} files, {bytes} bytes");
    }
    drop(db);
    let start = Instant::now();
    let db = open(copy.path());
    println!("{series} series × 480 samples are there after {:?}", start.elapsed());
    assert_eq!(db.head_stats(0).series, series as u64);
    let start = Instant::now();
    db.maintain(481 * STEP).unwrap();
    println!("first upkeep: {:?}", start.elapsed());
    let start = Instant::now();
    let targets = layouts(&db, series);
    row(&db, &targets, 481);
    println!("first rows: {:?}; resident {} B/series", start.elapsed(), rss() / series);
}
