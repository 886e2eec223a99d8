//! Floats that are appended many at a time are judged and stored as those that come one by one.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{cases, content, open_with, options, series};
use model::labels::Labels;
use model::storage::{
    Append, AppendError, AppendOptions, AppendSample, Appender, LayoutRef, Row, SeriesRef, SeriesSample,
};
use proptest::prelude::*;
use tsdb::Db;
use tsdb::fs::{Fault, FaultKind, FaultyFs};

const SERIES: usize = 6;

/// One step of a transaction.
#[derive(Clone, Debug)]
enum Step {
    /// Floats of series, some by rows too.
    Floats(Vec<(usize, i64, u8)>),
    /// A row of the first half of the series.
    Row(i64, Vec<u8>),
}

struct Store {
    fs: FaultyFs,
    db: Arc<Db>,
    layout: LayoutRef,
    refs: Vec<SeriesRef>,
}

impl Store {
    fn new(window: i64) -> Self {
        let fs = FaultyFs::new();
        let mut options = options();
        options.out_of_order_window_ms = window;
        let db = open_with(&fs, options).unwrap();
        let mut appender = db.appender(AppendOptions::default());
        let name = |index: usize| series(&format!("s{index}"));
        let refs = (0..SERIES)
            .map(|index| appender.append(None, &name(index), AppendSample::float(0, 0.5)).unwrap())
            .collect();
        let layout = appender.open_layout();
        for index in 0..SERIES / 2 {
            appender.extend_layout(layout, &name(index)).unwrap();
        }
        appender.commit().unwrap();
        Self { fs, db, layout, refs }
    }

    fn step(&self, appender: &mut dyn Appender, step: &Step, at_once: bool) -> Vec<(usize, AppendError)> {
        match step {
            Step::Floats(samples) => {
                let sample = |&(index, t, v): &(usize, i64, u8)| SeriesSample {
                    series: self.refs[index],
                    t,
                    v: f64::from(v),
                };
                let samples: Vec<SeriesSample> = samples.iter().map(sample).collect();
                if at_once {
                    return appender.append_floats(&samples, false);
                }
                let mut refused = Vec::new();
                for (index, sample) in samples.iter().enumerate() {
                    // By labels: never the cheap way.
                    let labels = series(&format!("s{}", sample.series.0));
                    let float = AppendSample::float(sample.t, sample.v);
                    refused.extend(appender.append(None, &labels, float).err().map(|why| (index, why)));
                }
                refused
            }
            Step::Row(t, values) => {
                let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
                let outcome = appender.append_row(&Row { layout: self.layout, t: *t, values: &values });
                outcome.refused.into_iter().map(|(slot, why)| (slot.0 as usize, why)).collect()
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let t = || (0i64..12).prop_map(|t| t * 100);
    prop_oneof![
        4 => prop::collection::vec((0..SERIES, t(), 0u8..3), 1..12).prop_map(Step::Floats),
        1 => (t(), prop::collection::vec(0u8..3, SERIES / 2)).prop_map(|(t, values)| Step::Row(t, values)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(100)))]

    /// Two transactions at a time, whose steps alternate: the first to commit changes what the second may.
    #[test]
    fn at_once_is_as_one_by_one(
        rounds in prop::collection::vec((prop::collection::vec((any::<bool>(), step()), 1..6), any::<bool>()), 1..6),
        window in prop_oneof![Just(0i64), Just(400)],
    ) {
        let (fast, slow) = (Store::new(window), Store::new(window));
        for (steps, first) in rounds {
            let mut outcomes = Vec::new();
            let mut summaries = Vec::new();
            for (store, at_once) in [(&fast, true), (&slow, false)] {
                let mut appenders: [Box<dyn Appender>; 2] =
                    [store.db.appender(AppendOptions::default()), store.db.appender(AppendOptions::default())];
                let refused: Vec<_> = steps
                    .iter()
                    .map(|(which, step)| store.step(&mut *appenders[usize::from(*which)], step, at_once))
                    .collect();
                outcomes.push(refused);
                let [a, b] = appenders;
                let (a, b) = if first { (a, b) } else { (b, a) };
                summaries.push((a.commit().unwrap().samples, b.commit().unwrap().samples));
            }
            prop_assert_eq!(&outcomes[0], &outcomes[1]);
            prop_assert_eq!(&summaries[0], &summaries[1]);
            prop_assert_eq!(content(&fast.db), content(&slow.db));
        }
        let before = content(&fast.db);
        drop(fast.db);
        let mut options = options();
        options.lock = false;
        prop_assert_eq!(content(&open_with(&fast.fs, options).unwrap()), before);
    }
}

#[test]
fn unknown_series_are_refused_by_index() {
    let store = Store::new(0);
    let mut appender = store.db.appender(AppendOptions::default());
    let samples = [(3, 100), (900, 100), (1, 100), (3, 50), (u64::MAX, 100), (2, 100)];
    let samples = samples.map(|(id, t)| SeriesSample { series: SeriesRef(id), t, v: 1.0 });
    let unknown = AppendError::UnknownSeries;
    // The one that no series can have sends all the careful way, with the same answers.
    assert_eq!(
        appender.append_floats(&samples, false),
        [(1, unknown), (3, AppendError::OutOfOrder), (4, unknown)]
    );
    assert_eq!(appender.append_floats(&samples[..2], true), [(1, unknown)]);
    assert_eq!(
        appender.append(None, &Labels::empty(), AppendSample::float(1, 1.0)),
        Err(AppendError::InvalidLabels)
    );
    assert_eq!(appender.commit().unwrap().samples, 3);
}

/// Thousands of samples of one series in no order: the first value of each time stays, and others are told apart from
/// repetitions, wherever they are stored by then.
#[test]
fn a_flood_of_late_samples() {
    let store = Store::new(10_000_000);
    let series = store.refs[5];
    let mut want = std::collections::BTreeMap::from([(0, 0.5f64.to_bits()), (9_999_999, 0.0f64.to_bits())]);
    let mut appender = store.db.appender(AppendOptions::default());
    assert!(appender.append_floats(&[SeriesSample { series, t: 9_999_999, v: 0.0 }], true).is_empty());
    appender.commit().unwrap();
    let mut random = 7u64;
    for _ in 0..100 {
        let mut appender = store.db.appender(AppendOptions::default());
        let (mut samples, mut refused) = (Vec::new(), Vec::new());
        for index in 0..50 {
            random = random.wrapping_mul(0xd129_0243_1ff3_3f4d).wrapping_add(0x9e37_79b9_7f4a_7c15);
            let (t, v) = ((random >> 40) as i64 % 4000 * 1000, (random >> 33 & 1) as f64);
            samples.push(SeriesSample { series, t, v });
            if *want.entry(t).or_insert(v.to_bits()) != v.to_bits() {
                refused.push((index, AppendError::Duplicate));
            }
        }
        assert_eq!(appender.append_floats(&samples, false), refused);
        appender.commit().unwrap();
    }
    assert!(want.len() > 2000);
    assert_eq!(content(&store.db)["s5"], want);
}

/// Starts one commit, which the disk holds up, and more while it waits. Answers how many operations of the disk all took, and
/// what became of each.
fn commits_at_once(fs: &FaultyFs, db: &Arc<Db>, fault: Option<u64>) -> (u64, Vec<bool>) {
    const COMMITS: i64 = 9;
    let before = fs.operations();
    let commit =
        |n: i64| common::write(db, &[(&format!("s{n}"), 1000, n as f64), ("all", 1000 + n, 1.0)]).is_ok();
    let outcomes = std::thread::scope(|scope| {
        let held = fs.hold_syncs();
        let first = scope.spawn(|| commit(0));
        while fs.operations() == before {
            std::thread::yield_now();
        }
        if let Some(after) = fault {
            fs.fail_at(Some(Fault { at: before + after, times: 1, kind: FaultKind::Io }));
        }
        let others: Vec<_> = (1..COMMITS).map(|n| scope.spawn(move || commit(n))).collect();
        // They only have to get as far as the queue.
        wait(Duration::from_millis(100));
        drop(held);
        std::iter::once(first).chain(others).map(|commit| commit.join().unwrap()).collect()
    });
    fs.fail_at(None);
    (fs.operations() - before, outcomes)
}

fn synced() -> (FaultyFs, Arc<Db>) {
    let fs = FaultyFs::new();
    let mut options = options();
    options.wal_fsync_interval = Duration::ZERO;
    options.out_of_order_window_ms = 10_000;
    let db = open_with(&fs, options).unwrap();
    common::write(&db, &[("all", 1, 1.0)]).unwrap();
    (fs, db)
}

#[test]
fn commits_that_wait_for_the_disk_share_a_sync() {
    let (fs, db) = synced();
    let (operations, outcomes) = commits_at_once(&fs, &db, None);
    assert_eq!(outcomes, [true; 9]);
    // A write and a sync each would be 18.
    assert!(operations < 12, "{operations} operations");
    let want = content(&db);
    assert_eq!((want.len(), want["all"].len()), (10, 10));
    assert_eq!(content(&open_with(&fs.lose_power(0), options()).unwrap()), want);
}

#[test]
fn commits_that_share_a_sync_fail_together() {
    let (fs, db) = synced();
    // The first has written already; its sync goes well, and the next write fails.
    let (_, outcomes) = commits_at_once(&fs, &db, Some(2));
    assert!(outcomes[0]);
    assert!(outcomes.iter().filter(|taken| !**taken).count() > 1, "{outcomes:?}");
    let want = content(&db);
    for (n, taken) in outcomes.iter().enumerate() {
        assert_eq!(want.contains_key(&format!("s{n}")), *taken, "{outcomes:?}");
    }
    assert_eq!(want["all"].len(), 1 + outcomes.iter().filter(|taken| **taken).count());
    assert_eq!(content(&open_with(&fs.lose_power(0), options()).unwrap()), want);
    common::write(&db, &[("all", 5000, 1.0)]).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a queue that nobody can look into")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
