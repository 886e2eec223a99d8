//! What is deleted may be written again and is seen then, also where the head keeps the deleted samples in something that
//! straddles the time that is in blocks.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{open_with, options};
use model::histogram::{CounterResetHint, Histogram};
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::{SampleValue, TimeRange};
use model::storage::{
    Append, AppendOptions, AppendSample, Queryable, Row, SelectHints, SeriesColumns, StorageAdmin,
};
use model::{ManualClock, Timestamp};
use tsdb::Db;
use tsdb::fs::FaultyFs;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn labels(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name)])
}

fn open(fs: &FaultyFs) -> Arc<Db> {
    let mut options = options();
    options.clock = Arc::new(ManualClock::new(5 * HOUR));
    options.out_of_order_window_ms = 10 * HOUR;
    open_with(fs, options).unwrap()
}

fn append(db: &Db, name: &str, t: Timestamp, value: SampleValue) -> u64 {
    let mut appender = db.appender(AppendOptions::default());
    appender.append(None, &labels(name), AppendSample { t, value, start: None }).unwrap();
    appender.commit().unwrap().samples
}

fn read(db: &Db, name: &str, range: TimeRange) -> SeriesColumns {
    let querier = db.querier(range).unwrap();
    let set = querier.select(&[Matcher::equal("__name__", name)], &SelectHints::default()).unwrap();
    let mut columns = SeriesColumns::default();
    if !set.is_empty() {
        set.read(0, &mut columns).unwrap();
    }
    columns
}

fn delete(db: &Db, name: &str, from: Timestamp, to: Timestamp) {
    db.delete_series(TimeRange::new(from, to), &[vec![Matcher::equal("__name__", name)]]).unwrap();
}

/// How `a` is written, and what is deleted of it: minutes.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: bool,
    from: i64,
    to: i64,
    deleted: &'static [(i64, i64)],
}

const SHAPES: [Shape; 6] = [
    // Closed chunks and windows, one of which straddles the floor.
    Shape { rows: false, from: 10, to: 180, deleted: &[(30, 31), (70, 71), (112, 113), (119, 119)] },
    Shape { rows: true, from: 10, to: 180, deleted: &[(30, 31), (70, 71), (112, 113), (119, 119)] },
    // Open ends that straddle it.
    Shape { rows: false, from: 105, to: 122, deleted: &[(112, 113)] },
    Shape { rows: true, from: 105, to: 122, deleted: &[(112, 113)] },
    // The newest samples, of which nothing is left in memory but the last.
    Shape { rows: false, from: 105, to: 113, deleted: &[(112, 113)] },
    Shape { rows: true, from: 105, to: 113, deleted: &[(112, 113)] },
];

fn fill(db: &Db, shape: Shape) {
    let mut appender = db.appender(AppendOptions::default());
    let layout = appender.open_layout();
    appender.extend_layout(layout, &labels("a")).unwrap();
    for t in (shape.from * MINUTE..=shape.to * MINUTE).step_by(15_000) {
        if shape.rows {
            assert_eq!(appender.append_row(&Row { layout, t, values: &[t as f64] }).appended, 1);
        } else {
            appender.append(None, &labels("a"), AppendSample::float(t, t as f64)).unwrap();
        }
        appender.commit().unwrap();
        appender = db.appender(AppendOptions::default());
    }
    drop(appender);
    append(db, "b", 5 * HOUR, SampleValue::Float(1.0));
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Restart {
    Never,
    BeforeCompaction,
    AfterCompaction,
    AfterCheckpoint,
}

/// (Was acknowledged and lost, when a deletion was forgotten as soon as the time was in a block.)
#[test]
fn what_is_deleted_and_written_again_is_seen() {
    use Restart::{AfterCheckpoint, AfterCompaction, BeforeCompaction, Never};
    for shape in SHAPES {
        for restart in [Never, BeforeCompaction, AfterCompaction, AfterCheckpoint] {
            for delete_first in [true, false] {
                for add in [0.0, 1.0] {
                    write_again(shape, restart, delete_first, add);
                }
            }
        }
    }
}

fn write_again(shape: Shape, restart: Restart, delete_first: bool, add: f64) {
    let context = format!("{shape:?}, {restart:?}, deleted first: {delete_first}, {add} more");
    let mut fs = FaultyFs::new();
    let mut db = open(&fs);
    fill(&db, shape);
    let delete_all = |db: &Db| {
        shape.deleted.iter().for_each(|(from, to)| delete(db, "a", from * MINUTE, to * MINUTE));
    };
    let reopen = |fs: &mut FaultyFs, db: &mut Arc<Db>| {
        *fs = fs.after_kill();
        *db = open(fs);
    };
    if delete_first {
        delete_all(&db);
    }
    if restart == Restart::BeforeCompaction {
        reopen(&mut fs, &mut db);
    }
    db.compact(5 * HOUR).unwrap();
    assert_eq!(db.blocks().len(), 1, "{context}");
    if !delete_first {
        delete_all(&db);
        // Trims again.
        db.maintain(5 * HOUR).unwrap();
    }
    if restart == Restart::AfterCheckpoint {
        db.checkpoint().unwrap();
    }
    if matches!(restart, Restart::AfterCompaction | Restart::AfterCheckpoint) {
        reopen(&mut fs, &mut db);
    }
    let mut want: Vec<(Timestamp, f64)> = Vec::new();
    for t in (shape.from * MINUTE..=shape.to * MINUTE).step_by(15_000) {
        if !shape.deleted.iter().any(|(from, to)| (from * MINUTE..=to * MINUTE).contains(&t)) {
            want.push((t, t as f64));
        }
    }
    let seen = |db: &Db| -> Vec<(Timestamp, f64)> {
        let columns = read(db, "a", TimeRange::ALL);
        columns.float_times.into_iter().zip(columns.float_values).collect()
    };
    assert_eq!(seen(&db), want, "{context}");
    for (from, to) in shape.deleted {
        for t in (from * MINUTE..=to * MINUTE).step_by(15_000) {
            assert_eq!(append(&db, "a", t, SampleValue::Float(t as f64 + add)), 1, "{t}: {context}");
            want.push((t, t as f64 + add));
        }
    }
    want.sort_by_key(|sample| sample.0);
    assert_eq!(seen(&db), want, "{context}");
    reopen(&mut fs, &mut db);
    assert_eq!(seen(&db), want, "{context}");
}

fn histogram(count: u64, counter_reset_hint: CounterResetHint) -> SampleValue {
    let histogram = Histogram { counter_reset_hint, count, zero_count: count, ..Histogram::default() };
    SampleValue::Histogram(Arc::new(histogram))
}

/// Counter reset hints as a reader of all sees them, of counts.
fn hints(db: &Db) -> Vec<(f64, CounterResetHint)> {
    let histograms = read(db, "h", TimeRange::ALL).histograms;
    histograms.iter().map(|histogram| (histogram.count, histogram.counter_reset_hint)).collect()
}

/// 10 in a block, then 3, which is a reset, then 5 in the head: nobody may say that 5 is no reset when 3 is gone.
#[test]
fn a_hint_does_not_outlive_the_sample_that_it_speaks_of() {
    use CounterResetHint::{NotCounterReset, Unknown};
    let mut fs = FaultyFs::new();
    let mut db = open(&fs);
    for (minute, count) in [(100, 9), (110, 10), (121, 3), (122, 5), (123, 6)] {
        append(&db, "h", minute * MINUTE, histogram(count, Unknown));
    }
    append(&db, "b", 5 * HOUR + MINUTE, SampleValue::Float(1.0));
    let before = hints(&db);
    assert_eq!(before[2..], [(3.0, Unknown), (5.0, NotCounterReset), (6.0, NotCounterReset)]);
    db.compact(5 * HOUR + MINUTE).unwrap();
    assert_eq!(db.blocks().len(), 1);
    // At the seam of block and head.
    assert_eq!(hints(&db)[2], (3.0, Unknown));
    delete(&db, "h", 121 * MINUTE, 121 * MINUTE);
    let want = [(5.0, Unknown), (6.0, NotCounterReset)];
    assert_eq!(hints(&db)[2..], want);
    append(&db, "b", 8 * HOUR, SampleValue::Float(1.0));
    db.compact(8 * HOUR).unwrap();
    assert!(db.blocks().iter().any(|block| block.min_time >= 2 * HOUR));
    assert_eq!(hints(&db)[2..], want);
    fs = fs.after_kill();
    db = open(&fs);
    assert_eq!(hints(&db)[2..], want);
}
