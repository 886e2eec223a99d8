//! The store through its traits: kinds of samples, labels, exemplars, metadata, retention, churn, concurrency.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{content, open, open_with, options, series, write};
use model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::{SampleValue, TimeRange, is_stale_nan, stale_nan};
use model::storage::{
    Append, AppendError, AppendOptions, AppendSample, ExemplarQueryable, Interrupt, LabelHints, Queryable,
    Row, SelectHints, SeriesColumns, StorageAdmin, StorageError,
};
use model::{Exemplar, Metadata, MetricKind};
use tsdb::Db;
use tsdb::fs::FaultyFs;

const DAY: i64 = 86_400_000;

fn read(db: &Db, name: &str) -> SeriesColumns {
    let querier = db.querier(TimeRange::ALL).unwrap();
    let set = querier.select(&[Matcher::equal("__name__", name)], &SelectHints::default()).unwrap();
    assert_eq!(set.len(), 1, "{name}");
    let mut columns = SeriesColumns::default();
    set.read(0, &mut columns).unwrap();
    columns
}

fn histogram(count: u64) -> Histogram {
    Histogram {
        counter_reset_hint: CounterResetHint::NotCounterReset,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 1,
        count,
        sum: 2.5,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![(count - 1) as i64, 1 - count as i64],
        ..Histogram::default()
    }
}

/// The first sample of a range still tells whether it continues the one before the range, from memory, the log, and blocks.
#[test]
fn resets_of_histograms_are_known_beyond_the_range_that_is_read() {
    use CounterResetHint::{NotCounterReset, Unknown};
    let fs = FaultyFs::new();
    let db = open(&fs);
    for (t, count) in [(1000, 5), (2000, 6), (3000, 7), (4000, 2), (5000, 3)] {
        let mut appender = db.appender(AppendOptions::default());
        let value = SampleValue::Histogram(Arc::new(histogram(count)));
        appender.append(None, &series("h"), AppendSample { t, value, start: None }).unwrap();
        appender.commit().unwrap();
    }
    let hints = |db: &Db, from| {
        let querier = db.querier(TimeRange::new(from, 5000)).unwrap();
        let set = querier.select(&[Matcher::equal("__name__", "h")], &SelectHints::default()).unwrap();
        let mut columns = SeriesColumns::default();
        set.read(0, &mut columns).unwrap();
        columns.histograms.iter().map(|h| h.counter_reset_hint).collect::<Vec<_>>()
    };
    let restarted = open(&fs.after_kill());
    for db in [&db, &restarted] {
        let all = [Unknown, NotCounterReset, NotCounterReset, Unknown, NotCounterReset];
        assert_eq!(hints(db, 0), all);
        (1..5).for_each(|from| assert_eq!(hints(db, from * 1000 + 500), all[from as usize..]));
    }
}

#[test]
fn histograms_of_both_kinds_come_back_as_floats_after_any_restart() {
    let fs = FaultyFs::new();
    let db = open(&fs);
    let mut want = Vec::new();
    for i in 0..150u64 {
        let integer = Arc::new(histogram(i + 5));
        // What it continues is told, whatever was claimed: nothing, where the kind changes.
        let hint = if i % 20 == 0 { CounterResetHint::Unknown } else { CounterResetHint::NotCounterReset };
        let float =
            Arc::new(FloatHistogram { sum: f64::from_bits(0x7ff8_0000_0000_1234), ..integer.to_float() });
        let value = if i % 40 < 20 {
            want.push(FloatHistogram { counter_reset_hint: hint, ..integer.to_float() });
            SampleValue::Histogram(integer)
        } else {
            want.push(FloatHistogram { counter_reset_hint: hint, ..(*float).clone() });
            SampleValue::FloatHistogram(float)
        };
        let mut appender = db.appender(AppendOptions::default());
        let sample = AppendSample { t: i as i64 * 1000, value, start: Some(-7) };
        appender.append(None, &series("h"), sample.clone()).unwrap();
        appender.append(None, &series("h"), sample).expect("the same again is fine");
        appender.commit().unwrap();
    }
    let mut appender = db.appender(AppendOptions::default());
    let broken = Histogram { count: 1, ..histogram(9) };
    let broken = AppendSample { t: 200_000, value: SampleValue::Histogram(broken.into()), start: None };
    let fault = model::histogram::HistogramFault::CountMismatch { found: 9, count: 1 };
    assert_eq!(appender.append(None, &series("h"), broken), Err(AppendError::InvalidHistogram(fault)));
    let float = AppendSample::float(149_000, 1.0);
    assert_eq!(appender.append(None, &series("h"), float), Err(AppendError::Duplicate));
    appender.append(None, &series("h"), AppendSample::float(200_000, stale_nan())).unwrap();
    appender.commit().unwrap();
    db.checkpoint().unwrap();
    for db in [db, open(&fs.after_kill())] {
        let columns = read(&db, "h");
        assert!(columns.float_times.is_empty(), "the staleness marker of a histogram series is a histogram");
        assert_eq!(columns.histogram_times.len(), 151);
        assert!(is_stale_nan(columns.histograms[150].sum));
        for (want, got) in want.iter().zip(&columns.histograms) {
            assert_eq!(format!("{want:?}"), format!("{got:?}"));
            assert_eq!(want.sum.to_bits(), got.sum.to_bits());
        }
        assert_eq!(columns.histogram_starts[..150], [-7; 150]);
        assert_eq!(columns.histogram_starts[150], 0);
    }
}

#[test]
fn start_timestamps_are_kept_where_given() {
    let fs = FaultyFs::new();
    let db = open(&fs);
    for (t, start) in [(10, Some(5)), (20, None), (30, Some(25))] {
        let mut appender = db.appender(AppendOptions::default());
        let sample = AppendSample { t, value: SampleValue::Float(1.0), start };
        appender.append(None, &series("c"), sample).unwrap();
        appender.commit().unwrap();
    }
    db.checkpoint().unwrap();
    write(&db, &[("plain", 10, 1.0)]).unwrap();
    for db in [db, open(&fs.after_kill())] {
        assert_eq!(read(&db, "c").float_starts, [5, 0, 25]);
        assert!(read(&db, "plain").float_starts.is_empty());
    }
}

#[test]
fn exemplars_and_metadata_survive() {
    let fs = FaultyFs::new();
    let mut options = options();
    options.exemplars_max = 3;
    let db = open_with(&fs, options.clone()).unwrap();
    let mut appender = db.appender(AppendOptions::default());
    let a = appender.append(None, &series("a"), AppendSample::float(100, 1.0)).unwrap();
    let b = appender.append(None, &series("b"), AppendSample::float(100, 1.0)).unwrap();
    let exemplar = |id: &str, t| Exemplar { labels: Labels::from_pairs([("trace_id", id)]), value: 0.5, t };
    appender.append_exemplar(a, &exemplar("gone", Some(50))).unwrap();
    appender.append_exemplar(b, &exemplar("x", Some(60))).unwrap();
    appender.append_exemplar(a, &exemplar("y", Some(70))).unwrap();
    appender.append_exemplar(a, &exemplar("z", None)).unwrap();
    let metadata = Metadata { kind: MetricKind::Counter, unit: "s".into(), help: "What it is".into() };
    appender.update_metadata(a, &metadata).unwrap();
    appender.commit().unwrap();
    let mut appender = db.appender(AppendOptions::default());
    assert_eq!(appender.append_exemplar(a, &exemplar("late", Some(80))), Err(AppendError::OutOfOrder));
    appender.append_exemplar(a, &exemplar("z", Some(100))).expect("the same again is fine");
    drop(appender);
    let again = open_with(&fs.after_kill(), options.clone()).unwrap();
    again.checkpoint().unwrap();
    let checkpointed = open_with(&fs.after_kill(), options).unwrap();
    for db in [db, again, checkpointed] {
        let all = vec![Matcher::equal("job", "test")];
        let found = db.exemplars(TimeRange::ALL, &[all.clone(), all.clone()]).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(labels, exemplars)| {
                let ids: Vec<_> = exemplars.iter().map(|e| e.labels.value("trace_id")).collect();
                (labels.metric_name(), ids)
            })
            .collect();
        assert_eq!(found, [("a", vec!["y", "z"]), ("b", vec!["x"])]);
        assert_eq!(db.exemplars(TimeRange::new(100, 100), &[all]).unwrap()[0].1[0].t, Some(100));
        assert_eq!(db.metadata("a"), Some(metadata.clone()));
        assert_eq!(db.all_metadata().len(), 1);
    }
}

#[test]
fn labels_with_matchers_limits_and_bounds_of_time() {
    let db = open(&FaultyFs::new());
    let mut appender = db.appender(AppendOptions::default());
    for (name, pod, t) in [("m", "a", 1000), ("m", "b", 1000), ("n", "c", 1000), ("n", "", 5000)] {
        let labels = Labels::from_pairs([("__name__", name), ("pod", pod)]);
        appender.append(None, &labels, AppendSample::float(t, 1.0)).unwrap();
    }
    assert_eq!(appender.commit().unwrap().series_created, 4);
    let querier = db.querier(TimeRange::ALL).unwrap();
    let values = |name: &str, matchers: &[Matcher], limit| {
        let list = querier.label_values(name, matchers, &LabelHints { limit }).unwrap();
        (list.items, list.truncated)
    };
    assert_eq!(values("pod", &[], 0), (vec!["a".into(), "b".into(), "c".into()], false));
    assert_eq!(values("pod", &[], 2), (vec!["a".into(), "b".into()], true));
    assert_eq!(values("pod", &[Matcher::equal("__name__", "n")], 0), (vec!["c".into()], false));
    assert_eq!(values("nothing", &[], 0), (vec![], false));
    let no_pod = [Matcher::equal("pod", "")];
    assert_eq!(querier.label_names(&no_pod, &LabelHints::default()).unwrap().items, ["__name__"]);
    assert_eq!(querier.label_names(&[], &LabelHints::default()).unwrap().items, ["__name__", "pod"]);
    let early = db.querier(TimeRange::new(0, 4000)).unwrap();
    let n = [Matcher::equal("__name__", "n")];
    assert_eq!(early.select(&n, &SelectHints::default()).unwrap().len(), 1, "no samples in time, no series");
    let before = db.querier(TimeRange::new(0, 999)).unwrap();
    assert!(before.label_values("pod", &[], &LabelHints::default()).unwrap().items.is_empty());
    let hints = SelectHints { sorted: true, limit: 2, ..SelectHints::default() };
    let any = [Matcher::new(MatchOp::Regex, "pod", ".*").unwrap()];
    let set = querier.select(&any, &hints).unwrap();
    let sorted: Vec<_> = (0..set.len()).map(|i| set.labels(i).value("pod").to_owned()).collect();
    assert_eq!(sorted, ["a", "b"]);
    let stats = db.head_stats(1);
    assert_eq!((stats.series, stats.label_pairs), (4, 5));
    assert_eq!(stats.series_by_metric, [("m".to_owned(), 2)]);
    assert_eq!(stats.values_by_label, [("pod".to_owned(), 3)]);
    assert_eq!(stats.range, Some(TimeRange::new(1000, 5000)));
    assert_eq!(db.time_range(), stats.range);
}

/// Whoever looks at few labels gets few label sets, from the head and from blocks; samples stay those of each series.
#[test]
fn label_sets_are_reduced_to_what_matters() {
    let db = open(&FaultyFs::new());
    let labels = |i: i64| {
        Labels::from_pairs([
            ("__name__", "m".to_owned()),
            ("a", (i % 3).to_string()),
            ("id", i.to_string()),
            ("job", if i % 7 == 0 { String::new() } else { format!("j{}", i % 2) }),
        ])
    };
    let hints = |only: &[&str]| SelectHints {
        only_labels: Some(only.iter().map(|name| (*name).to_owned()).collect()),
        ..SelectHints::default()
    };
    let check = |db: &Db| {
        let querier = db.querier(TimeRange::ALL).unwrap();
        let name = [Matcher::equal("__name__", "m")];
        let all = querier.select(&name, &SelectHints::default()).unwrap();
        for only in [&["a", "job"][..], &["none"], &["__name__", "job"], &[]] {
            let some = querier.select(&name, &hints(only)).unwrap();
            assert_eq!(some.len(), 20);
            let reduced = some.labels_of(0..20);
            let kept = |labels: &Labels| labels.filtered(|name| only.contains(&name));
            let (mut columns, mut others) = (SeriesColumns::default(), SeriesColumns::default());
            for (i, labels) in all.labels_of(0..20).iter().enumerate() {
                assert_eq!(reduced[i], kept(labels), "{only:?} {i}");
                all.read(i, &mut columns).unwrap();
                some.read(i, &mut others).unwrap();
                assert_eq!(columns, others);
            }
            let one = reduced.iter().find(|labels| **labels == reduced[0]).unwrap();
            assert!(reduced.iter().all(|labels| labels != one || labels.is_same(one)));
            assert_eq!(some.labels_of(3..5), reduced[3..5]);
        }
    };
    for t in 0..4 {
        let mut appender = db.appender(AppendOptions::default());
        for i in 0..20 {
            let sample = AppendSample::float(t * 3_600_000, (i * t) as f64);
            appender.append(None, &labels(i), sample).unwrap();
        }
        appender.commit().unwrap();
    }
    check(&db);
    db.compact(4 * 3_600_000).unwrap();
    check(&db);
}

#[test]
fn bounds_and_limits_of_a_transaction() {
    let mut options = options();
    options.series_max = 2;
    let db = open_with(&FaultyFs::new(), options).unwrap();
    let mut appender = db.appender(AppendOptions { max_time: Some(500), ..AppendOptions::default() });
    let mut append =
        |name: &str, t| appender.append(None, &series(name), AppendSample::float(t, 1.0)).map(|_| ());
    assert_eq!(append("a", 501), Err(AppendError::OutOfBounds));
    assert_eq!(append("a", -10 * DAY), Ok(()), "an empty store takes any time");
    assert_eq!(append("b", 500), Ok(()));
    assert_eq!(append("c", 1), Err(AppendError::SeriesLimit));
    let none = AppendSample::float(1, 1.0);
    assert_eq!(appender.append(None, &Labels::empty(), none.clone()), Err(AppendError::InvalidLabels));
    let unknown = Some(model::storage::SeriesRef(99));
    assert_eq!(appender.append(unknown, &Labels::empty(), none.clone()), Err(AppendError::UnknownSeries));
    assert!(appender.append(unknown, &series("a"), none).is_ok(), "labels help an old reference");
    appender.commit().unwrap();
    let row = Row { layout: model::storage::LayoutRef(77), t: 1, values: &[1.0] };
    let mut appender = db.appender(AppendOptions::default());
    assert_eq!(appender.append_row(&row).error, Some(AppendError::UnknownSeries));
}

#[test]
fn times_near_1970_with_a_window_of_a_century() {
    let mut options = options();
    options.out_of_order_window_ms = 100 * 365 * DAY;
    options.retention = Duration::from_secs(100 * 365 * 86_400);
    let fs = FaultyFs::new();
    let db = open_with(&fs, options.clone()).unwrap();
    for t in (0..500).rev().chain(500..3000).chain(-300..0) {
        write(&db, &[("x", t * 60_000, t as f64)]).unwrap();
    }
    db.maintain(1_790_000_000_000).unwrap();
    db.checkpoint().unwrap();
    for db in [db, open_with(&fs.after_kill(), options).unwrap()] {
        let columns = read(&db, "x");
        assert_eq!(columns.float_times.len(), 3300);
        assert!(columns.float_times.iter().zip(&columns.float_values).all(|(t, v)| *t == *v as i64 * 60_000));
    }
}

#[test]
fn retention_hides_and_drops_but_not_under_a_reader_nor_by_a_jumping_clock() {
    let mut options = options();
    options.retention = Duration::from_secs(2 * 86_400);
    let fs = FaultyFs::new();
    let db = open_with(&fs, options.clone()).unwrap();
    for hour in 0..72 {
        write(&db, &[("x", hour * 3_600_000, 1.0)]).unwrap();
        if hour < 3 {
            write(&db, &[("short", hour * 3_600_000, 1.0)]).unwrap();
        }
    }
    let newest = 71 * 3_600_000;
    let old = db.querier(TimeRange::ALL).unwrap();
    let before = common::content_of(&*old, TimeRange::ALL);
    // A clock a year ahead counts no more than the newest sample.
    let mut now = newest + 365 * DAY;
    db.maintain(now).unwrap();
    assert_eq!(read(&db, "x").float_times[0], newest - 2 * DAY);
    assert_eq!(common::content_of(&*old, TimeRange::ALL), before, "an open view keeps what it saw");
    assert_eq!(db.head_stats(9).series, 2);
    drop(old);
    for _ in 0..4 {
        now += 61_000;
        db.maintain(now).unwrap();
    }
    assert_eq!(db.head_stats(9).series, 1, "a series without samples leaves");
    assert!(db.time_range().unwrap().min >= newest - 2 * DAY);
    assert_eq!(content(&db).len(), 1);
    let labels = db.querier(TimeRange::ALL).unwrap().label_values("__name__", &[], &LabelHints::default());
    assert_eq!(labels.unwrap().items, ["x"]);
    // It may come back, as another one.
    write(&db, &[("short", newest, 2.0)]).unwrap();
    let want = content(&db);
    assert_eq!(want["short"].len(), 1);
    let again = open_with(&fs.after_kill(), options).unwrap();
    again.maintain(newest).unwrap();
    assert_eq!(content(&again), want);
}

#[test]
fn retention_can_be_changed_while_it_runs() {
    let registry = prometheus::Registry::new();
    let db = tsdb::Db::open(options(), &registry, std::sync::Arc::new(FaultyFs::new())).unwrap();
    let limit = || {
        let families = registry.gather();
        let name = "prometheus_tsdb_retention_limit_seconds";
        families.iter().find(|family| family.name() == name).unwrap().get_metric()[0].get_gauge().get_value()
    };
    for hour in 0..10 {
        write(&db, &[("x", hour * 3_600_000, 1.0)]).unwrap();
    }
    db.maintain(9 * 3_600_000).unwrap();
    assert_eq!((read(&db, "x").float_times.len(), limit()), (10, 0.0));
    db.set_retention(Duration::from_hours(3));
    db.maintain(9 * 3_600_000 + 61_000).unwrap();
    assert_eq!((read(&db, "x").float_times.len(), limit()), (4, 10_800.0));
    assert_eq!(db.retention_text(), "3h");
    // Longer again: nothing more goes, and nothing comes back.
    db.set_retention(Duration::from_hours(24));
    write(&db, &[("x", 10 * 3_600_000, 1.0)]).unwrap();
    db.maintain(10 * 3_600_000).unwrap();
    assert_eq!(read(&db, "x").float_times.len(), 5);
}

#[test]
fn churn_leaves_nothing_behind() {
    let mut options = options();
    options.retention = Duration::from_secs(3600);
    let db = open_with(&FaultyFs::new(), options).unwrap();
    let mut now = 0;
    for round in 0..60i64 {
        let mut appender = db.appender(AppendOptions::default());
        let layout = appender.open_layout();
        for i in 0..50 {
            let labels = Labels::from_pairs([("__name__", "m"), ("pod", &format!("{round}-{i}"))]);
            appender.extend_layout(layout, &labels).unwrap();
        }
        now = round * 300_000;
        appender.append_row(&Row { layout, t: now, values: &[1.0; 50] });
        appender.close_layout(layout);
        appender.commit().unwrap();
        db.maintain(now).unwrap();
    }
    let stats = db.head_stats(5);
    // An hour, what waits for the next two sweeps, and the pairs of those alone.
    assert!(stats.series <= 50 * 18, "{}", stats.series);
    assert!(stats.label_pairs <= stats.series + 1);
    assert!(stats.chunks <= stats.series);
    assert!(db.time_range().unwrap().min >= now - 3_600_000);
}

#[test]
fn an_idle_layout_lets_its_samples_go_and_goes_on() {
    let mut options = options();
    options.retention = Duration::from_secs(6 * 3600);
    let db = open_with(&FaultyFs::new(), options).unwrap();
    let mut appender = db.appender(AppendOptions::default());
    let layout = appender.open_layout();
    appender.extend_layout(layout, &series("idle")).unwrap();
    appender.append_row(&Row { layout, t: 0, values: &[1.0] });
    appender.commit().unwrap();
    for hour in 1..10 {
        write(&db, &[("busy", hour * 3_600_000, 1.0)]).unwrap();
        db.maintain(hour * 3_600_000).unwrap();
    }
    assert_eq!(content(&db).len(), 1);
    let mut appender = db.appender(AppendOptions::default());
    let outcome = appender.append_row(&Row { layout, t: 9 * 3_600_000, values: &[2.0] });
    assert_eq!((outcome.appended, outcome.refused), (1, vec![]));
    appender.commit().unwrap();
    assert_eq!(read(&db, "idle").float_values, [2.0]);
}

/// Writers, readers, upkeep and checkpoints at once: every view is whole commits, always.
#[test]
fn readers_see_whole_commits_while_everybody_works() {
    let db = open(&FaultyFs::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2i64 {
            let db = &db;
            scope.spawn(move || {
                let mut layout = None;
                for round in 0..400i64 {
                    let mut appender = db.appender(AppendOptions::default());
                    let layout = *layout.get_or_insert_with(|| {
                        let layout = appender.open_layout();
                        for i in 0..3 {
                            appender.extend_layout(layout, &series(&format!("row{writer}-{i}"))).unwrap();
                        }
                        layout
                    });
                    appender.append_row(&Row { layout, t: round * 10, values: &[round as f64; 3] });
                    let labels = series(&format!("single{writer}"));
                    appender.append(None, &labels, AppendSample::float(round * 10, round as f64)).unwrap();
                    appender.commit().unwrap();
                }
            });
        }
        let reader = |matcher: Matcher| {
            let (db, done) = (&db, &done);
            move || {
                let mut columns = SeriesColumns::default();
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) || looks == 0 {
                    let view = db.querier(TimeRange::ALL).unwrap();
                    let set = view.select(std::slice::from_ref(&matcher), &SelectHints::default()).unwrap();
                    let mut lengths = Vec::new();
                    for index in 0..set.len() {
                        set.read(index, &mut columns).unwrap();
                        assert!(columns.float_times.windows(2).all(|pair| pair[0] + 10 == pair[1]));
                        lengths.push(columns.len());
                    }
                    lengths.dedup();
                    assert!(lengths.len() <= 1, "half a commit: {lengths:?}");
                    looks += 1;
                }
            }
        };
        let readers = [0, 1].map(|writer| {
            let regex = format!("(row|single){writer}.*");
            scope.spawn(reader(Matcher::new(MatchOp::Regex, "__name__", regex).unwrap()))
        });
        for round in 0..5 {
            db.maintain(round * 100_000).unwrap();
            db.checkpoint().unwrap();
        }
        while content(&db).values().map(std::collections::BTreeMap::len).sum::<usize>() < 8 * 400 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// What is acknowledged after a deletion is seen, the same in the head and in blocks, over restarts and compactions.
#[test]
fn samples_that_come_after_a_deletion_are_seen() {
    const HOUR: i64 = 3_600_000;
    let mut fs = FaultyFs::new();
    let mut options = options();
    options.out_of_order_window_ms = 10 * DAY;
    let mut db = open_with(&fs, options.clone()).unwrap();
    // In order 0, 2, …, 498, then out of order 1, 3, …, 399: as many of those as are compressed.
    for t in (0..500).step_by(2).chain((1..400).step_by(2)) {
        write(&db, &[("a", t, t as f64)]).unwrap();
    }
    let a = vec![Matcher::equal("__name__", "a")];
    db.delete_series(TimeRange::new(100, 300), std::slice::from_ref(&a)).unwrap();
    db.delete_series(TimeRange::new(450, 10_000), std::slice::from_ref(&a)).unwrap();
    // Repeated as they were, with other values, and where nothing was before; the newest that there was as well.
    let again = [(100, 100.0), (101, 7.0), (200, 8.0), (450, 450.0), (451, 9.0), (498, 498.0)];
    for (t, v) in again {
        write(&db, &[("a", t, v)]).unwrap();
        let mut appender = db.appender(AppendOptions::default());
        let sample = |v| AppendSample::float(t, v);
        assert!(appender.append(None, &series("a"), sample(v)).is_ok(), "{t} is known");
        let other = appender.append(None, &series("a"), sample(v + 1.0));
        assert_eq!(other, Err(AppendError::Duplicate), "{t}");
        assert_eq!(appender.commit().unwrap().samples, 0);
    }
    let mut want: std::collections::BTreeMap<i64, u64> =
        (0..450).filter(|t| *t < 400 || t % 2 == 0).map(|t| (t, (t as f64).to_bits())).collect();
    want.retain(|t, _| !(100..=300).contains(t));
    want.extend(again.map(|(t, v)| (t, v.to_bits())));
    let check = |db: &Db, what: &str| assert_eq!(content(db)["a"], want, "{what}");
    for what in ["live", "from the log", "from a checkpoint"] {
        check(&db, what);
        if what == "from the log" {
            db.checkpoint().unwrap();
        }
        fs = fs.after_kill();
        db = open_with(&fs, options.clone()).unwrap();
    }
    write(&db, &[("b", 5 * HOUR, 1.0)]).unwrap();
    for round in 0..4 {
        db.compact(6 * HOUR + round).unwrap();
        check(&db, "compacted");
    }
    // The deletion has been carried out, or is a tombstone of a block: neither concerns what comes now.
    db.delete_series(TimeRange::new(0, 50), &[a]).unwrap();
    want.retain(|t, _| *t > 50);
    write(&db, &[("a", 30, 30.0), ("a", 31, -1.0)]).unwrap();
    want.extend([(30, 30f64.to_bits()), (31, (-1f64).to_bits())]);
    let check = |db: &Db, what: &str| assert_eq!(content(db)["a"], want, "{what}");
    check(&db, "beside a block");
    let db = open_with(&fs.after_kill(), options).unwrap();
    check(&db, "beside a block, started again");
    write(&db, &[("b", 9 * HOUR, 1.0)]).unwrap();
    for round in 0..4 {
        db.compact(20 * HOUR + round).unwrap();
        check(&db, "compacted again");
    }
    db.clean_tombstones().unwrap();
    check(&db, "cleaned");
}

/// In the head, in blocks and where they are joined: whoever has gone is not waited for.
#[test]
fn a_selection_ends_when_it_is_interrupted() {
    let fs = FaultyFs::new();
    let mut options = options();
    options.block_duration_min = Duration::from_secs(100);
    let db = open_with(&fs, options).unwrap();
    let names: Vec<String> = (0..9000).map(|n| format!("m{n:04}")).collect();
    for t in [0, 90_000, 180_000] {
        let samples: Vec<_> = names.iter().map(|name| (name.as_str(), t, 1.0)).collect();
        write(&db, &samples).unwrap();
    }
    let matcher = |op, value: &str| Matcher::new(op, "__name__", value).unwrap();
    let job = || Matcher::equal("job", "test");
    let selectors = [
        (vec![job()], 9000, 2),
        (vec![job(), matcher(MatchOp::Regex, ".*[05]")], 1800, 4),
        (vec![job(), matcher(MatchOp::NotRegex, ".*[05]")], 7200, 4),
        (vec![matcher(MatchOp::Equal, "m0001")], 1, 1),
    ];
    for blocks in [0, 1] {
        assert_eq!(db.blocks().len(), blocks);
        let querier = db.querier(TimeRange::ALL).unwrap();
        for (matchers, count, least) in &selectors {
            // It says when to end at every look: none is too late to be of use.
            let mut looks = 0;
            loop {
                let asked = Arc::new(AtomicU64::new(0));
                let counted = Arc::clone(&asked);
                let interrupt = Interrupt::new(move || counted.fetch_add(1, Ordering::Relaxed) >= looks);
                let hints =
                    SelectHints { sorted: true, interrupt: Some(interrupt), ..SelectHints::default() };
                match querier.select(matchers, &hints) {
                    Ok(set) => {
                        assert_eq!(set.len(), *count);
                        break;
                    }
                    Err(error) => assert!(matches!(error, StorageError::Cancelled), "{error}"),
                }
                looks += 1;
            }
            assert!(looks >= *least, "{matchers:?}: {looks} looks with {blocks} blocks");
        }
        db.compact(200_000).unwrap();
    }
}
