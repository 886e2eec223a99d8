//! Churn: targets are replaced a tenth an hour for a simulated day, and what is in memory stays as it was after the first
//! hours. Small here; `NILOMETER_CHURN_SERIES=1000000` (with `--release`) is the long form, which prints a line an hour.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, and a measurement")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::labels::Labels;
use model::storage::{Append, AppendOptions, LayoutRef, Row, StorageAdmin};
use model::{Clock, ManualClock};
use tsdb::fs::RealFs;
use tsdb::{Db, DbOptions};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Time between rows.
const INTERVAL: i64 = 10 * MINUTE;
const SERIES_OF_TARGET: usize = 100;
const START: i64 = 1_400_000 * HOUR;

struct Target {
    layout: LayoutRef,
}

fn open_target(db: &Db, number: usize) -> Target {
    let mut appender = db.appender(AppendOptions::default());
    let layout = appender.open_layout();
    for series in 0..SERIES_OF_TARGET {
        let (pod, metric) = (format!("pod-{number:08}"), format!("metric_{:03}_total", series / 4));
        let pairs = [
            ("__name__", metric.as_str()),
            ("instance", pod.as_str()),
            ("job", "churn"),
            ("queue", ["a", "b", "c", "d"][series % 4]),
        ];
        appender.extend_layout(layout, &Labels::from_pairs(pairs)).unwrap();
    }
    appender.commit().unwrap();
    Target { layout }
}

fn write_row(db: &Db, target: &Target, t: i64, values: &mut [f64]) {
    for (series, value) in values.iter_mut().enumerate() {
        *value = (t / INTERVAL) as f64 * (series % 7) as f64;
    }
    let mut appender = db.appender(AppendOptions::default());
    let outcome = appender.append_row(&Row { layout: target.layout, t, values });
    assert_eq!(outcome.appended, SERIES_OF_TARGET, "{outcome:?}");
    appender.commit().unwrap();
}

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes in use, but for what the cache of blocks keeps: that fills up to a bound of its own.
fn bytes_in_use(registry: &prometheus::Registry) -> usize {
    let families = registry.gather();
    let cache = families.iter().find(|family| family.name() == "nilometer_tsdb_block_cache_bytes").unwrap();
    BYTES.load(Ordering::Relaxed).saturating_sub(cache.get_metric()[0].get_gauge().get_value() as usize)
}

#[test]
fn replaced_series_leave_memory() {
    let asked = std::env::var("NILOMETER_CHURN_SERIES").ok().and_then(|count| count.parse::<usize>().ok());
    let targets = asked.unwrap_or(2_000) / SERIES_OF_TARGET;
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let registry = prometheus::Registry::new();
    let mut options = DbOptions::new(dir.path(), Arc::clone(&clock) as Arc<dyn Clock>);
    options.wal_fsync_interval = Duration::from_secs(3600);
    let db = Db::open(options, &registry, Arc::new(RealFs)).unwrap();
    let mut live: Vec<Target> = (0..targets).map(|number| open_target(&db, number)).collect();
    let mut next = targets;
    let mut values = vec![0.0; SERIES_OF_TARGET];
    let mut hours = Vec::new();
    for hour in 0..24 {
        for step in 0..HOUR / INTERVAL {
            let t = START + hour * HOUR + step * INTERVAL;
            clock.set(t);
            live.iter().for_each(|target| write_row(&db, target, t, &mut values));
            db.maintain(t).unwrap();
            db.compact(t).unwrap();
        }
        for place in 0..targets / 10 {
            let place = (place * 10 + hour as usize) % targets;
            let old = std::mem::replace(&mut live[place], open_target(&db, next));
            next += 1;
            let mut appender = db.appender(AppendOptions::default());
            appender.close_layout(old.layout);
            appender.commit().unwrap();
        }
        let stats = db.head_stats(1);
        let (series, used) = (stats.series, bytes_in_use(&registry));
        if asked.is_some() {
            println!(
                "hour {hour:2}: {series} series in the head, {} blocks, {} MiB",
                db.blocks().len(),
                used >> 20
            );
        }
        hours.push((series, used));
    }
    let most = |hours: &[(u64, usize)]| hours.iter().map(|hour| hour.0).max().unwrap();
    let active = (targets * SERIES_OF_TARGET) as u64;
    // Three hours of samples in the head, an hour until a series without any is let go.
    assert!(most(&hours) <= active * 16 / 10, "of {active} active series: {hours:?}");
    assert!(most(&hours[12..]) <= most(&hours[..8]), "it grows: {hours:?}");
    let stored: u64 = db.blocks().iter().map(|block| block.samples).sum();
    assert!(stored >= active * 6 * 20, "blocks have the rest: {stored}");
    // The number of series goes up and down with the head's compactions, every second hour.
    let (early, late) = (hours[2].1.max(hours[3].1), hours[22].1.max(hours[23].1));
    assert!(late < early + early / 8, "memory grows: {early} to {late} bytes; {hours:?}");
}
