//! What the store costs: appends by row, by reference and in no order, flush, compaction, selection and reading in the head
//! and in a block, replay.
//!
//! `cargo bench -p tsdb` runs the small sizes; `NILOMETER_BENCH_SERIES=1000000 cargo bench -p tsdb -- select` a million series.
//! CI runs each once (`cargo test -p tsdb --bench storage`). Values are of the kinds of real scrapes: two thirds constant, the
//! rest counters and gauges. Codecs and indexes are measured against what they replace beside their code.

use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::TimeRange;
use model::storage::{
    Append, AppendOptions, AppendSample, LayoutRef, Queryable, Row, SelectHints, SeriesColumns, SeriesRef,
    StorageAdmin,
};
use model::{Clock, ManualClock};
use tsdb::fs::{FileSystem, RealFs};
use tsdb::{Db, DbOptions};

const PER_TARGET: usize = 1000;
/// Rows of a target in two hours.
const ROUNDS_OF_BLOCK: usize = 480;

fn main() {
    divan::main();
}

fn series_count() -> usize {
    std::env::var("NILOMETER_BENCH_SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

struct Store {
    db: Arc<Db>,
    dir: tempfile::TempDir,
    layouts: Vec<LayoutRef>,
    refs: Vec<SeriesRef>,
}

fn options(dir: &std::path::Path) -> DbOptions {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(0));
    let mut options = DbOptions::new(dir, clock);
    options.retention = Duration::ZERO;
    options.checkpoint_bytes = u64::MAX;
    options
}

fn open(dir: &std::path::Path) -> Arc<Db> {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    Db::open(options(dir), &prometheus::Registry::new(), fs).expect("opens")
}

fn labels(target: usize, index: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}_total", index / 4)),
        ("instance", format!("10.0.{}.{}:9100", target / 250, target % 250)),
        ("job", "bench".to_owned()),
        ("mode", ["user", "system", "idle", "wait"][index % 4].to_owned()),
    ])
}

fn value(index: usize, round: usize) -> f64 {
    match index % 10 {
        0 | 1 => (round * (index + 3)) as f64,
        2 => ((round * 7919 + index) % 1000) as f64 / 10.0,
        _ => index as f64,
    }
}

impl Store {
    fn new(series: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path());
        Self { db, dir, layouts: Vec::new(), refs: Vec::new() }.filled(series)
    }

    fn filled(mut self, series: usize) -> Self {
        for target in 0..series.div_ceil(PER_TARGET) {
            let mut appender = self.db.appender(AppendOptions::default());
            let layout = appender.open_layout();
            for index in 0..PER_TARGET {
                appender.extend_layout(layout, &labels(target, index)).expect("fits");
            }
            self.layouts.push(layout);
            appender.commit().expect("commits");
        }
        self
    }

    /// The same series, known by reference and not by layout.
    fn by_reference(series: usize) -> Self {
        let mut store = Self::new(0);
        let mut appender = store.db.appender(AppendOptions::default());
        for id in 0..series {
            let labels = labels(id / PER_TARGET, id % PER_TARGET);
            let id = appender.append(None, &labels, AppendSample::float(0, 0.0)).expect("fits");
            store.refs.push(id);
        }
        appender.commit().expect("commits");
        store
    }

    fn rows(&self, round: usize) {
        let values: Vec<f64> = (0..PER_TARGET).map(|index| value(index, round)).collect();
        for layout in &self.layouts {
            let mut appender = self.db.appender(AppendOptions::default());
            let outcome =
                appender.append_row(&Row { layout: *layout, t: round as i64 * 15_000, values: &values });
            assert_eq!(outcome.appended, PER_TARGET);
            appender.commit().expect("commits");
        }
    }

    /// Each request holds other series than the last one, in another order.
    fn shuffled(&self, round: usize) {
        let count = self.refs.len();
        // A step without a common divisor visits all.
        let step = (count / 3..)
            .find(|step| (2..=*step).all(|d| !step.is_multiple_of(d) || !count.is_multiple_of(d)))
            .unwrap_or(1);
        let mut at = round * 7919 % count;
        for chunk in 0..count.div_ceil(2000) {
            let mut appender = self.db.appender(AppendOptions::default());
            for _ in 0..2000.min(count - chunk * 2000) {
                at = (at + step) % count;
                let sample = AppendSample::float(round as i64 * 15_000, value(at, round));
                appender.append(Some(self.refs[at]), &Labels::empty(), sample).expect("in order");
            }
            appender.commit().expect("commits");
        }
    }

    /// Four hours of rows every fifteen seconds, of which the first two are in a block.
    fn with_block(series: usize) -> Self {
        let store = Self::new(series);
        (1..=ROUNDS_OF_BLOCK * 2).for_each(|round| store.rows(round));
        store.db.compact(ROUNDS_OF_BLOCK as i64 * 2 * 15_000).expect("compacts");
        assert_eq!(store.db.blocks().len(), 1);
        store
    }

    fn samples(&self, round: usize) {
        for chunk in self.refs.chunks(2000) {
            let mut appender = self.db.appender(AppendOptions::default());
            for (index, id) in chunk.iter().enumerate() {
                let sample = AppendSample::float(round as i64 * 15_000, value(index, round));
                appender.append(Some(*id), &Labels::empty(), sample).expect("in order");
            }
            appender.commit().expect("commits");
        }
    }
}

#[divan::bench]
fn append_rows(bencher: Bencher<'_, '_>) {
    let store = Store::new(series_count());
    let mut round = 0;
    bencher.counter(ItemsCount::new(store.layouts.len() * PER_TARGET)).bench_local(|| {
        round += 1;
        store.rows(round);
    });
}

#[divan::bench]
fn append_by_reference(bencher: Bencher<'_, '_>) {
    let store = Store::by_reference(series_count());
    let mut round = 0;
    bencher.counter(ItemsCount::new(store.refs.len())).bench_local(|| {
        round += 1;
        store.samples(round);
    });
}

#[divan::bench]
fn append_shuffled(bencher: Bencher<'_, '_>) {
    let store = Store::by_reference(series_count());
    let mut round = 0;
    bencher.counter(ItemsCount::new(store.refs.len())).bench_local(|| {
        round += 1;
        store.shuffled(round);
    });
}

/// Upkeep after half an hour of rows: windows are written to head chunk files.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn flush(bencher: Bencher<'_, '_>) {
    let series = series_count().min(20_000);
    let filled = || {
        let store = Store::new(series);
        (1..=130).for_each(|round| store.rows(round));
        store
    };
    bencher.counter(ItemsCount::new(series * 130)).with_inputs(filled).bench_local_values(|store| {
        store.db.maintain(130 * 15_000).expect("writes");
        store
    });
}

/// Two hours of the head become a block.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn compact_head(bencher: Bencher<'_, '_>) {
    let series = series_count().min(5000);
    let filled = || {
        let store = Store::new(series);
        (1..=ROUNDS_OF_BLOCK * 2).for_each(|round| store.rows(round));
        store
    };
    let size = std::cell::Cell::new(0.0);
    bencher.counter(ItemsCount::new(series * ROUNDS_OF_BLOCK)).with_inputs(filled).bench_local_values(
        |store| {
            store.db.compact(ROUNDS_OF_BLOCK as i64 * 2 * 15_000).expect("compacts");
            let blocks = store.db.blocks();
            let (bytes, samples) = (blocks[0].size_bytes, blocks[0].samples);
            size.set(bytes as f64 / samples as f64);
            store
        },
    );
    eprintln!("compact_head: {:.3} bytes a sample", size.get());
}

#[divan::bench(sample_count = 5)]
fn create_series(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(series_count())).bench_local(|| Store::new(series_count()));
}

#[divan::bench]
fn select_one(bencher: Bencher<'_, '_>) {
    let store = Store::new(series_count());
    store.rows(1);
    let querier = store.db.querier(TimeRange::ALL).expect("open");
    let matchers = [
        Matcher::equal("__name__", "metric_7_total"),
        Matcher::equal("instance", "10.0.0.1:9100"),
        Matcher::equal("mode", "idle"),
    ];
    bencher.bench_local(|| {
        let set = querier.select(&matchers, &SelectHints::default()).expect("selects");
        assert_eq!(set.len(), 1);
        set.labels(0)
    });
}

#[divan::bench]
fn select_one_in_block(bencher: Bencher<'_, '_>) {
    let store = Store::with_block(series_count().min(5000));
    let range = TimeRange::new(0, 3_600_000);
    let querier = store.db.querier(range).expect("open");
    let matchers =
        [Matcher::equal("__name__", "metric_7_total"), Matcher::equal("instance", "10.0.0.1:9100")];
    bencher.bench_local(|| {
        let set = querier.select(&matchers, &SelectHints::default()).expect("selects");
        assert!(!set.is_empty());
        set.labels(0)
    });
}

/// Planning and postings alone: nothing is read, no labels are made.
#[divan::bench(args = ["equal", "two equal", "prefix", "set", "not equal", "absent label"])]
fn postings(bencher: Bencher<'_, '_>, what: &str) {
    let store = Store::new(series_count());
    store.rows(1);
    let querier = store.db.querier(TimeRange::ALL).expect("open");
    let matcher = |op, name, value| Matcher::new(op, name, value).expect("compiles");
    let job = Matcher::equal("job", "bench");
    let matchers = match what {
        "equal" => vec![Matcher::equal("__name__", "metric_7_total")],
        "two equal" => vec![Matcher::equal("__name__", "metric_7_total"), Matcher::equal("mode", "idle")],
        "prefix" => vec![job, matcher(MatchOp::Regex, "__name__", "metric_1.*")],
        "set" => vec![job, matcher(MatchOp::Regex, "mode", "idle|user")],
        "not equal" => vec![job, matcher(MatchOp::NotEqual, "mode", "idle")],
        _ => vec![job, Matcher::equal("zone", "")],
    };
    bencher.bench_local(|| {
        let found = querier.select(&matchers, &SelectHints::default()).expect("selects").len();
        assert!(found > 0);
        found
    });
}

#[divan::bench]
fn select_by_regex(bencher: Bencher<'_, '_>) {
    let store = Store::new(series_count());
    store.rows(1);
    let querier = store.db.querier(TimeRange::ALL).expect("open");
    let regex = |name, op, value| Matcher::new(op, name, value).expect("compiles");
    let matchers = [
        regex("__name__", MatchOp::Regex, "metric_1.*_total"),
        regex("mode", MatchOp::NotRegex, "idle|wait"),
    ];
    bencher.bench_local(|| querier.select(&matchers, &SelectHints::default()).expect("selects").len());
}

#[divan::bench]
fn read(bencher: Bencher<'_, '_>) {
    const ROUNDS: usize = 300;
    let store = Store::new(PER_TARGET);
    (1..=ROUNDS).for_each(|round| store.rows(round));
    let querier = store.db.querier(TimeRange::ALL).expect("open");
    let set = querier.select(&[Matcher::equal("job", "bench")], &SelectHints::default()).expect("selects");
    let mut columns = SeriesColumns::default();
    bencher.counter(ItemsCount::new(ROUNDS * PER_TARGET)).bench_local(|| {
        for index in 0..set.len() {
            set.read(index, &mut columns).expect("decodes");
            assert_eq!(columns.len(), ROUNDS);
        }
    });
}

#[divan::bench]
fn read_block(bencher: Bencher<'_, '_>) {
    let store = Store::with_block(PER_TARGET);
    let range = TimeRange::new(0, 2 * 3_600_000 - 1);
    let querier = store.db.querier(range).expect("open");
    let set = querier.select(&[Matcher::equal("job", "bench")], &SelectHints::default()).expect("selects");
    let mut columns = SeriesColumns::default();
    bencher.counter(ItemsCount::new((ROUNDS_OF_BLOCK - 1) * PER_TARGET)).bench_local(|| {
        for index in 0..set.len() {
            set.read(index, &mut columns).expect("decodes");
            assert_eq!(columns.len(), ROUNDS_OF_BLOCK - 1);
        }
    });
}

#[divan::bench(args = ["log", "checkpoint"], sample_count = 5)]
fn replay(bencher: Bencher<'_, '_>, from: &str) {
    const ROUNDS: usize = 240;
    let store = Store::new(series_count());
    (1..=ROUNDS).for_each(|round| store.rows(round));
    if from == "checkpoint" {
        store.db.checkpoint().expect("writes");
    }
    let Store { db, dir, .. } = store;
    db.close().expect("closes");
    drop(db);
    bencher.counter(ItemsCount::new(ROUNDS * series_count())).bench_local(|| {
        let db = open(dir.path());
        db.close().expect("closes");
    });
}
