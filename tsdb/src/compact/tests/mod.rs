//! Compaction of a whole store, against a plain map.

mod deletions;
mod faults;
mod retention;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::{TimeRange, Timestamp};
use model::storage::{
    Append, AppendOptions, AppendSample, BlockInfo, LabelHints, Querier, Queryable, SelectHints,
    SeriesColumns, StorageAdmin, StorageError,
};
use model::{Clock, ManualClock};

use super::rules::{Retention, RetentionRule};
use crate::fs::{Fault, FaultKind, FaultyFs, FileSystem};
use crate::{Db, DbOptions};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Aligned to every level, so that tests may count blocks.
const START: i64 = 486 * HOUR * 800;

type Content = BTreeMap<String, BTreeMap<Timestamp, u64>>;

/// A store, and what should be in it.
struct Store {
    fs: FaultyFs,
    clock: Arc<ManualClock>,
    options: DbOptions,
    registry: prometheus::Registry,
    db: Arc<Db>,
    want: Content,
    seed: u64,
}

fn labels(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", "test")])
}

fn options(clock: &Arc<ManualClock>) -> DbOptions {
    let mut options = DbOptions::new("/data", Arc::clone(clock) as Arc<dyn Clock>);
    options.retention = Duration::ZERO;
    options.out_of_order_window_ms = 12 * HOUR;
    options
}

impl Store {
    fn new(change: impl FnOnce(&mut DbOptions)) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let mut options = options(&clock);
        change(&mut options);
        let fs = FaultyFs::new();
        let (db, registry) = Self::open(&fs, &options).unwrap();
        Self { fs, clock, options, registry, db, want: Content::new(), seed: 1 }
    }

    fn open(fs: &FaultyFs, options: &DbOptions) -> Result<(Arc<Db>, prometheus::Registry), StorageError> {
        let registry = prometheus::Registry::new();
        let db = Db::open(options.clone(), &registry, Arc::new(fs.clone()) as Arc<dyn FileSystem>)?;
        Ok((db, registry))
    }

    fn reopen_on(&mut self, fs: FaultyFs) {
        (self.db, self.registry) = Self::open(&fs, &self.options).unwrap();
        self.fs = fs;
    }

    fn kill(&mut self) {
        self.reopen_on(self.fs.after_kill());
    }

    fn random(&mut self, below: u64) -> u64 {
        // Numerical Recipes' generator; its high bits are good enough.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn now(&self) -> Timestamp {
        self.clock.now_ms()
    }

    /// Commits samples of one time, and remembers those that were taken.
    fn append(&mut self, samples: &[(&str, Timestamp, f64)]) {
        let mut appender = self.db.appender(AppendOptions::default());
        let mut taken = Vec::new();
        for (name, t, v) in samples {
            if appender.append(None, &labels(name), AppendSample::float(*t, *v)).is_ok() {
                taken.push((*name, *t, v.to_bits()));
            }
        }
        if appender.commit().is_ok() {
            for (name, t, bits) in taken {
                self.want.entry(name.to_owned()).or_default().entry(t).or_insert(bits);
            }
        }
    }

    /// Five-minutely samples of some series for so long, and now and then a late one; no upkeep.
    fn run(&mut self, span: i64) {
        for _ in 0..span / (5 * MINUTE) {
            let now = self.now();
            let names = ["a", "b", "c", "d"];
            let v = self.random(1000) as f64;
            let samples: Vec<_> = names.iter().map(|name| (*name, now, v)).collect();
            self.append(&samples);
            if self.random(20) == 0 {
                let t = now - i64::try_from(self.random(10 * 3_600_000)).unwrap();
                let name = ["a", "c", "late"][self.random(3) as usize];
                self.append(&[(name, t, -1.0)]);
            }
            self.clock.advance(5 * MINUTE);
        }
    }

    fn compact(&self) {
        self.db.maintain(self.now()).unwrap();
        self.db.compact(self.now()).unwrap();
    }

    /// As [`Store::run`], with hourly upkeep.
    fn live(&mut self, span: i64) {
        for _ in 0..span / HOUR {
            self.run(HOUR);
            self.compact();
        }
    }

    fn content(&self) -> Content {
        content_of(&*self.db.querier(TimeRange::ALL).unwrap(), TimeRange::ALL)
    }

    #[track_caller]
    fn check(&self) {
        let got = self.content();
        for (name, want) in &self.want {
            let got = got.get(name).cloned().unwrap_or_default();
            let lost: Vec<_> = want.iter().filter(|(t, bits)| got.get(t) != Some(bits)).collect();
            assert!(lost.is_empty(), "{name} lacks {} samples, such as {:?}", lost.len(), lost.first());
            assert_eq!(got.len(), want.len(), "{name} has samples too many");
        }
        assert_eq!(got.len(), self.want.len());
    }

    fn blocks(&self) -> Vec<BlockInfo> {
        self.db.blocks()
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect(name);
        let metric = &family.get_metric()[0];
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    /// Names of directories and files of the data directory, but for the log and what belongs to the head.
    fn names(&self) -> Vec<String> {
        let dir = std::path::Path::new("/data");
        let mut names = self.fs.list_dirs(dir).unwrap();
        names.retain(|name| !["wal", "head_chunks"].contains(&name.as_str()));
        names
    }
}

fn content_of(querier: &dyn Querier, range: TimeRange) -> Content {
    let all = Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap();
    let hints = SelectHints { range: Some(range), sorted: true, ..SelectHints::default() };
    let set = querier.select(&[all], &hints).unwrap();
    let mut columns = SeriesColumns::default();
    let mut content = Content::new();
    let mut last = None;
    for index in 0..set.len() {
        set.read(index, &mut columns).unwrap();
        assert!(columns.float_times.windows(2).all(|pair| pair[0] < pair[1]));
        let found = set.labels(index);
        assert!(last.replace(found.clone()).is_none_or(|last| last < found), "sorted and unique");
        let bits = columns.float_values.iter().map(|v| v.to_bits());
        let samples: BTreeMap<_, _> = columns.float_times.iter().copied().zip(bits).collect();
        if !samples.is_empty() {
            content.insert(found.metric_name().to_owned(), samples);
        }
    }
    content
}

fn spans(blocks: &[BlockInfo]) -> Vec<(i64, i64, u32)> {
    blocks.iter().map(|b| ((b.min_time - START) / HOUR, (b.max_time - START) / HOUR, b.level)).collect()
}

/// The same store on a copy of a disk.
fn twin_of(store: &Store, fs: &FaultyFs) -> Store {
    let clock = Arc::new(ManualClock::new(store.now()));
    let mut options = store.options.clone();
    options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let fs = fs.after_kill();
    let (db, registry) = Store::open(&fs, &options).unwrap();
    Store { fs, clock, options, registry, db, want: store.want.clone(), seed: store.seed }
}
