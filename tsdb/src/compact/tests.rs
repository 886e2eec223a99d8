//! Compaction of a whole store, against a plain map.

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

#[test]
fn weeks_pass_and_queries_see_everything_all_the_time() {
    let mut store = Store::new(|_| {});
    for day in 0..24 {
        store.live(DAY);
        if day % 3 == 0 {
            store.check();
        }
        if day % 7 == 3 {
            store.kill();
            store.check();
        }
        let held = store.db.shared.head.range().unwrap();
        assert!(held.max - held.min <= 13 * HOUR, "the head is let go: {held:?}");
    }
    store.check();
    let blocks = store.blocks();
    assert!(blocks.windows(2).all(|pair| pair[0].max_time <= pair[1].min_time), "{:?}", spans(&blocks));
    assert!(blocks.iter().any(|block| block.max_time - block.min_time == 486 * HOUR), "{:?}", spans(&blocks));
    assert!(blocks.len() < 24, "{:?}", spans(&blocks));
    // A part of time is that part.
    let range = TimeRange::new(START + 5 * DAY + 1, START + 9 * DAY);
    let got = content_of(&*store.db.querier(range).unwrap(), range);
    for (name, want) in &store.want {
        let want: BTreeMap<_, _> = want.range(range.min..=range.max).map(|(t, bits)| (*t, *bits)).collect();
        assert_eq!(got.get(name).cloned().unwrap_or_default(), want, "{name}");
    }
    assert!(store.metric("prometheus_tsdb_compactions_total") > 100.0);
    assert!(store.metric("prometheus_tsdb_vertical_compactions_total") > 0.0);
    assert_eq!(store.metric("prometheus_tsdb_compactions_failed_total"), 0.0);
    assert_eq!(store.metric("prometheus_tsdb_blocks_loaded"), blocks.len() as f64);
    let dirs: Vec<String> = blocks.iter().map(|block| block.id.clone()).collect();
    let mut names = store.names();
    names.sort();
    let mut dirs_sorted = dirs.clone();
    dirs_sorted.sort();
    assert_eq!(names, dirs_sorted, "replaced blocks are removed");
}

#[test]
fn levels_fill_as_time_goes() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(10 * HOUR);
    // The head keeps the last three hours at most, and the newest block is left alone.
    assert_eq!(spans(&store.blocks()), [(0, 6, 2), (6, 8, 1)]);
    store.live(12 * HOUR);
    assert_eq!(spans(&store.blocks()), [(0, 18, 3), (18, 20, 1)]);
    let blocks = store.blocks();
    assert_eq!(blocks[0].sources.len(), 9);
    assert_eq!(blocks[0].parents.len(), 3);
    store.check();
}

#[test]
fn series_limits_labels_and_values_are_those_of_all_sources() {
    let mut store = Store::new(|_| {});
    store.append(&[("old", START, 1.0), ("both", START, 1.0)]);
    store.live(8 * HOUR);
    store.append(&[("new", store.now(), 1.0), ("both", store.now(), 2.0)]);
    let querier = store.db.querier(TimeRange::ALL).unwrap();
    let values = querier.label_values("__name__", &[], &LabelHints::default()).unwrap();
    assert_eq!(values.items, store.want.keys().cloned().collect::<Vec<_>>());
    assert!(!values.truncated);
    let values = querier.label_values("__name__", &[], &LabelHints { limit: 2 }).unwrap();
    assert_eq!((values.items.len(), values.truncated), (2, true));
    let only = [Matcher::new(MatchOp::Regex, "__name__", "old|new").unwrap()];
    let values = querier.label_values("__name__", &only, &LabelHints::default()).unwrap();
    assert_eq!(values.items, ["new", "old"]);
    assert_eq!(querier.label_names(&only, &LabelHints::default()).unwrap().items, ["__name__", "job"]);
    assert_eq!(querier.label_names(&[], &LabelHints::default()).unwrap().items, ["__name__", "job"]);
    let all = Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap();
    let hints = SelectHints { limit: 3, ..SelectHints::default() };
    let set = querier.select(&[all], &hints).unwrap();
    let names: Vec<_> = (0..set.len()).map(|i| set.labels(i).metric_name().to_owned()).collect();
    assert_eq!(names, store.want.keys().take(3).cloned().collect::<Vec<_>>());
    let range = store.db.time_range().unwrap();
    let first = store.want.values().filter_map(|samples| samples.keys().next()).min().unwrap();
    assert!(range.min <= *first && range.max == store.now());
}

#[test]
fn old_blocks_go() {
    let mut store = Store::new(|options| {
        options.retention = Duration::from_hours(48);
        options.out_of_order_window_ms = 0;
    });
    store.live(6 * DAY);
    let oldest = store.blocks()[0].clone();
    let newest = store.db.time_range().unwrap().max;
    // Levels go up to a tenth of retention: 2 h here, so that whole blocks are small.
    assert!(
        oldest.max_time > newest - 2 * DAY && oldest.min_time <= newest - 2 * DAY,
        "{:?}",
        spans(&store.blocks())
    );
    assert!(store.metric("prometheus_tsdb_time_retentions_total") >= 40.0);
    for samples in store.want.values_mut() {
        samples.retain(|t, _| *t >= oldest.min_time);
    }
    store.check();
    assert_eq!(store.db.retention_text(), "2d");
    // A clock that jumps ahead drops nothing while samples do not follow; back, neither.
    let before = spans(&store.blocks());
    store.db.compact(store.now() + 10 * DAY).unwrap();
    store.db.compact(store.now() - 10 * DAY).unwrap();
    assert_eq!(spans(&store.blocks()), before);
    store.db.set_retention(Duration::ZERO);
    store.live(DAY);
    assert_eq!(store.blocks()[0].min_time, oldest.min_time);
}

#[test]
fn the_oldest_blocks_go_when_there_are_too_many_bytes() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(3 * DAY);
    let before = store.blocks();
    let blocks_bytes: u64 = before.iter().map(|block| block.size_bytes).sum();
    let all = store.fs.used() as u64;
    store.db.set_retention(Retention { size_bytes: all - blocks_bytes / 2, ..Retention::default() });
    store.compact();
    let after = store.blocks();
    assert!(after.len() < before.len() && !after.is_empty(), "{:?}", spans(&after));
    assert_eq!(after.last(), before.last());
    assert_eq!(
        store.metric("prometheus_tsdb_size_retentions_total"),
        (before.len() - after.len()) as f64,
        "{:?}",
        spans(&after)
    );
    store.db.set_retention(Retention {
        size_bytes: 10 << 30,
        time: Duration::from_hours(360),
        rules: Vec::new(),
    });
    assert_eq!(store.db.retention_text(), "15d or 10GiB");
    assert_eq!(store.metric("prometheus_tsdb_retention_limit_bytes"), (10u64 << 30) as f64);
}

#[test]
fn rules_keep_some_series_longer_and_some_shorter() {
    let rule = |name: &str, hours: u64| RetentionRule {
        matchers: vec![Matcher::equal("__name__", name)],
        duration: Duration::from_hours(hours),
    };
    let mut store = Store::new(|options| {
        options.out_of_order_window_ms = 0;
        options.retention = Duration::from_hours(72);
        options.retention_rules = vec![rule("a", 0), rule("b", 24)];
    });
    store.live(8 * DAY);
    store.want.remove("late");
    let newest = store.db.time_range().unwrap().max;
    for (name, samples) in &mut store.want {
        let floor = match name.as_str() {
            "a" => i64::MIN,
            "b" => newest - DAY,
            _ => newest - 3 * DAY,
        };
        samples.retain(|t, _| *t >= floor);
    }
    let mut got = store.content();
    got.remove("late");
    assert_eq!(got, store.want);
    // Not only hidden: the space is free, but for a day's leeway and what is not worth a rewrite.
    let old: Vec<_> = store.blocks().into_iter().filter(|block| block.max_time < newest - 5 * DAY).collect();
    assert!(!old.is_empty());
    assert!(old.iter().all(|block| block.series == 1), "{old:?}");
    store.kill();
    store.compact();
    let mut got = store.content();
    got.remove("late");
    assert_eq!(got, store.want);
}

#[test]
fn a_snapshot_is_a_store() {
    let mut store = Store::new(|_| {});
    store.live(20 * HOUR);
    store.run(HOUR);
    let name = store.db.snapshot(false).unwrap();
    let blocks_only = store.db.snapshot(true).unwrap();
    assert_ne!(name, blocks_only);
    assert!(
        name.starts_with(&format!("{}T", &name[..8]))
            && name.len() == "20060102T150405Z-0123456789abcdef".len()
    );
    let mut copy = store.options.clone();
    copy.dir = format!("/data/snapshots/{name}").into();
    let (db, _) = Store::open(&store.fs.lose_power(0), &copy).unwrap();
    let copied = content_of(&*db.querier(TimeRange::ALL).unwrap(), TimeRange::ALL);
    assert_eq!(copied, store.want);
    copy.dir = format!("/data/snapshots/{blocks_only}").into();
    let (db, _) = Store::open(&store.fs.lose_power(0), &copy).unwrap();
    assert_eq!(db.blocks().len(), store.blocks().len());
    // What is removed here stays there.
    store.live(3 * DAY);
    store.check();
    assert_eq!(content_of(&*db.querier(TimeRange::ALL).unwrap(), TimeRange::ALL).len(), store.want.len());
    // A crash leaves nothing that looks like one.
    store.fs.write(std::path::Path::new("/data/snapshots/x.tmp/y/z"), vec![1]);
    store.kill();
    let snapshots = store.fs.list_dirs(std::path::Path::new("/data/snapshots")).unwrap();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
}

/// Every operation of an hour's compactions fails once: nothing is lost, nothing appears, and it is made good later.
#[test]
fn compaction_fails_anywhere_and_goes_on() {
    let mut store = Store::new(|options| options.wal_fsync_interval = Duration::ZERO);
    store.live(7 * HOUR);
    store.run(2 * HOUR);
    let before = store.fs.after_kill();
    let count = {
        let mut twin = twin_of(&store, &before);
        let from = twin.fs.operations();
        twin.compact();
        twin.check();
        let levels: Vec<_> = twin.blocks().iter().map(|block| block.level).collect();
        assert!(levels.iter().any(|level| *level > 1), "there is a merge in it: {:?}", spans(&twin.blocks()));
        twin.want.clear();
        twin.fs.operations() - from
    };
    assert!(count > 20);
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
        for at in 0..count {
            let mut twin = twin_of(&store, &before);
            twin.fs.fail_at(Some(Fault { at: twin.fs.operations() + at, times: 1, kind }));
            let now = twin.now();
            // Whether it says so depends on what failed: a left-over directory is no error.
            let _ = twin.db.maintain(now);
            let _ = twin.db.compact(now);
            twin.fs.fail_at(None);
            twin.check();
            twin.append(&[("a", now, 1.0)]);
            twin.clock.advance(HOUR);
            twin.compact();
            twin.check();
            twin.clock.advance(HOUR);
            twin.compact();
            twin.reopen_on(twin.fs.lose_power(0));
            twin.check();
            let blocks = twin.blocks();
            assert!(
                blocks.windows(2).all(|pair| pair[0].max_time <= pair[1].min_time),
                "{:?}",
                spans(&blocks)
            );
            assert_eq!(twin.names().len(), blocks.len(), "{kind:?} at {at} left {:?}", twin.names());
        }
    }
}

/// Power is lost after every operation of an hour's compactions.
#[test]
fn compaction_may_end_anywhere() {
    let mut store = Store::new(|options| options.wal_fsync_interval = Duration::ZERO);
    store.live(7 * HOUR);
    store.run(2 * HOUR);
    let before = store.fs.after_kill();
    for at in 0.. {
        let twin = twin_of(&store, &before);
        // From one operation on nothing is done any more.
        let last = twin.fs.operations() + at;
        twin.fs.fail_at(Some(Fault { at: last, times: u64::MAX, kind: FaultKind::Io }));
        let now = twin.now();
        let _ = twin.db.maintain(now);
        let _ = twin.db.compact(now);
        let done = twin.fs.operations() <= last;
        for (how, after) in
            [twin.fs.after_kill(), twin.fs.lose_power(0), twin.fs.lose_power_unevenly(at)].iter().enumerate()
        {
            after.fail_at(None);
            let twin = twin_of(&store, after);
            twin.check();
            twin.clock.advance(HOUR);
            twin.compact();
            twin.check();
            let blocks = twin.blocks();
            assert!(
                blocks.windows(2).all(|pair| pair[0].max_time <= pair[1].min_time),
                "{:?}",
                spans(&blocks)
            );
            assert_eq!(
                twin.names().len(),
                blocks.len(),
                "{at} {how}: {:?} {:?}",
                twin.names(),
                twin.blocks()
            );
        }
        if done {
            assert!(at > 20);
            break;
        }
    }
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

#[test]
fn a_view_keeps_what_it_saw_while_blocks_come_and_go() {
    let mut store = Store::new(|options| options.retention = Duration::from_hours(24));
    store.live(20 * HOUR);
    let view = store.db.querier(TimeRange::ALL).unwrap();
    let seen = store.want.clone();
    store.live(3 * DAY);
    assert_eq!(content_of(&*view, TimeRange::ALL), seen);
    assert_eq!(store.names().len(), store.blocks().len(), "what it reads is removed all the same");
}

/// Blocks that a query holds are merged, and what they became is merged again: a start must not take the first for blocks
/// that nobody replaced.
#[test]
fn what_is_deleted_stays_so_whatever_a_query_holds_at_the_end() {
    let mut store = Store::new(|options| {
        options.out_of_order_window_ms = 0;
        options.wal_fsync_interval = Duration::ZERO;
    });
    store.live(5 * HOUR);
    let first = store.blocks()[0].clone();
    assert_eq!((first.level, store.blocks().len()), (1, 1), "{:?}", spans(&store.blocks()));
    let prefix = format!("/data/{}/", first.id);
    let paths = store.fs.paths();
    let files: Vec<_> = paths.iter().filter(|path| path.to_str().unwrap().starts_with(&prefix)).collect();
    let files: Vec<_> = files.into_iter().map(|path| (path.clone(), store.fs.read(path).unwrap())).collect();
    let held = store.db.querier(TimeRange::ALL).unwrap();
    store.live(17 * HOUR);
    assert_eq!(spans(&store.blocks())[0], (0, 18, 3));
    let range = TimeRange::new(START, START + HOUR);
    store.db.delete_series(range, &[vec![Matcher::equal("__name__", "a")]]).unwrap();
    store.want.get_mut("a").unwrap().retain(|t, _| !range.contains(*t));
    store.check();
    let mut dead = twin_of(&store, &store.fs);
    dead.check();
    // The same when it is there since it could not be removed.
    for (path, bytes) in files {
        dead.fs.write(&path, bytes);
    }
    dead.kill();
    dead.check();
    assert_eq!(dead.names().len(), dead.blocks().len());
    assert!(content_of(&*held, range)["a"].len() > 10, "the query goes on");
}

/// Every reading of an hour's compactions fails once, that of the new block's files too.
#[test]
fn what_is_deleted_stays_so_when_reading_has_failed() {
    let mut store = Store::new(|options| {
        options.out_of_order_window_ms = 0;
        options.wal_fsync_interval = Duration::ZERO;
    });
    store.live(7 * HOUR);
    store.run(3 * HOUR);
    let before = store.fs.after_kill();
    let twin = twin_of(&store, &before);
    let from = twin.fs.reads();
    twin.db.compact(twin.now()).unwrap();
    let count = twin.fs.reads() - from;
    assert_eq!(spans(&twin.blocks()), [(0, 6, 2), (6, 8, 1)], "there is a merge in it");
    assert!(count > 5);
    for at in 0..count {
        let mut twin = twin_of(&store, &before);
        twin.fs.fail_reads_at(Some(Fault { at: twin.fs.reads() + at, times: 1, kind: FaultKind::Io }));
        let _ = twin.db.compact(twin.now());
        twin.fs.fail_reads_at(None);
        let range = TimeRange::new(START, START + 6 * HOUR);
        twin.db.delete_series(range, &[vec![Matcher::equal("__name__", "a")]]).unwrap();
        twin.want.get_mut("a").unwrap().retain(|t, _| !range.contains(*t));
        twin.check();
        twin.clock.advance(2 * MINUTE);
        twin.compact();
        twin.check();
        twin.kill();
        twin.check();
        assert_eq!(twin.names().len(), twin.blocks().len());
    }
}

#[test]
fn a_deletion_names_the_blocks_that_it_does_not_reach() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(10 * HOUR);
    let victim = store.blocks()[0].id.clone();
    let meta = std::path::PathBuf::from(format!("/data/{victim}/meta.json"));
    let bytes = store.fs.read(&meta).unwrap();
    store.fs.write(&meta, b"{}".to_vec());
    store.kill();
    let selectors = [vec![Matcher::equal("__name__", "a")]];
    let error = store.db.delete_series(TimeRange::ALL, &selectors).unwrap_err().to_string();
    assert!(error.contains(&victim), "{error}");
    assert!(!store.content().contains_key("a"), "what is in reach is deleted");
    // Mended, it is found at once.
    store.fs.write(&meta, bytes);
    store.db.delete_series(TimeRange::ALL, &selectors).unwrap();
    store.want.remove("a");
    store.check();
}

/// Out-of-order samples of several blocks' spans become several blocks, and every operation of that fails once: all of them
/// come or none, so that tries do not pile up.
#[test]
fn late_samples_become_blocks_all_or_none() {
    let mut store = Store::new(|options| options.wal_fsync_interval = Duration::ZERO);
    store.live(10 * HOUR);
    store.db.maintain(store.now()).unwrap();
    let late = [1, 3, 5].map(|hour| ("a", START + hour * HOUR + 1, -1.0));
    store.append(&late);
    let samples = |store: &Store| store.blocks().iter().map(|block| block.samples).sum::<u64>();
    let before = (store.fs.after_kill(), samples(&store));
    let twin_of_now = |store: &Store| {
        let twin = twin_of(store, &before.0);
        // The first look at the clock, then the time for blocks of late samples.
        twin.db.compact(twin.now()).unwrap();
        twin.clock.advance(2 * HOUR);
        twin
    };
    let twin = twin_of_now(&store);
    assert_eq!(samples(&twin), before.1);
    let from = twin.fs.operations();
    twin.db.compact(twin.now()).unwrap();
    let count = twin.fs.operations() - from;
    let added = samples(&twin) - before.1;
    assert!(added >= 3);
    for at in 0..count {
        let twin = twin_of_now(&store);
        let fault = Fault { at: twin.fs.operations() + at, times: 1, kind: FaultKind::NoSpace };
        twin.fs.fail_at(Some(fault));
        let _ = twin.db.compact(twin.now());
        twin.fs.fail_at(None);
        let got = samples(&twin) - before.1;
        assert!(got == 0 || got == added, "at {at}: {got} of {added}");
        twin.check();
        twin.clock.advance(HOUR);
        twin.db.compact(twin.now()).unwrap();
        assert_eq!(samples(&twin), before.1 + added);
        twin.check();
        assert_eq!(twin.names().len(), twin.blocks().len());
    }
}

#[test]
fn references_are_counted_also_after_a_restart() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.append(&[("gone", START, 1.0)]);
    store.live(20 * HOUR);
    let metrics = |store: &Store| {
        ["prometheus_tsdb_head_series", "nilometer_tsdb_series_references_given"]
            .map(|name| store.metric(name))
    };
    let before = metrics(&store);
    store.kill();
    for [series, given] in [before, metrics(&store)] {
        assert!(series == 4.0 && given > series, "{given} of {series}");
    }
}

#[test]
fn a_panic_is_an_error_and_is_counted() {
    let store = Store::new(|_| {});
    let result = store.db.caught(|| -> Result<(), StorageError> { panic!("at {}", 7) });
    assert!(result.unwrap_err().to_string().ends_with("at 7"));
    assert_eq!(store.metric("nilometer_tsdb_compactions_panicked_total"), 1.0);
    assert!(store.db.caught(|| Ok(1)).is_ok());
    store.db.compact(store.now()).unwrap();
}

#[test]
fn a_block_that_cannot_be_opened_is_left_alone() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(10 * HOUR);
    let victim = store.blocks()[1].clone();
    let meta = std::path::PathBuf::from(format!("/data/{}/meta.json", victim.id));
    let bytes = store.fs.read(&meta).unwrap();
    store.fs.write(&meta, b"{}".to_vec());
    store.kill();
    assert_eq!(store.blocks().len(), 1);
    assert_eq!(store.metric("nilometer_tsdb_blocks_unreadable"), 1.0);
    assert!(store.metric("prometheus_tsdb_reloads_failures_total") >= 1.0);
    let whole = store.want.clone();
    for samples in store.want.values_mut() {
        samples.retain(|t, _| *t < victim.min_time || *t >= victim.max_time);
    }
    store.check();
    store.live(2 * HOUR);
    assert!(store.names().contains(&victim.id), "it stays");
    // Mended, it is found while running.
    store.fs.write(&meta, bytes);
    store.live(HOUR);
    assert_eq!(store.metric("nilometer_tsdb_blocks_unreadable"), 0.0);
    for (name, samples) in whole {
        store.want.entry(name).or_default().extend(samples);
    }
    store.check();
}

#[test]
fn blocks_may_be_dropped_in_and_taken_away() {
    let mut other = Store::new(|options| options.out_of_order_window_ms = 0);
    other.live(10 * HOUR);
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.clock.advance(30 * DAY);
    store.live(2 * HOUR);
    for path in other.fs.paths() {
        let name = path.strip_prefix("/data").unwrap().to_str().unwrap().to_owned();
        if other.blocks().iter().any(|block| name.starts_with(&block.id)) {
            store.fs.write(&path, other.fs.read(&path).unwrap());
        }
    }
    store.live(HOUR);
    let end = other.blocks().last().unwrap().max_time;
    for (name, samples) in &other.want {
        let samples = samples.iter().filter(|(t, _)| **t < end).map(|(t, bits)| (*t, *bits));
        store.want.entry(name.clone()).or_default().extend(samples);
    }
    store.check();
    let gone = store.blocks()[0].clone();
    store.fs.remove_dir_all(std::path::Path::new(&format!("/data/{}", gone.id))).unwrap();
    store.live(HOUR);
    assert!(store.blocks().iter().all(|block| block.id != gone.id));
}

#[test]
fn closing_ends_compaction() {
    let mut store = Store::new(|_| {});
    store.run(10 * HOUR);
    store.db.compaction.close();
    store.db.compact(store.now()).unwrap();
    assert!(store.blocks().is_empty());
    assert!(matches!(store.db.snapshot(true), Err(StorageError::NotReady(_))));
}

#[test]
fn deleted_samples_are_gone_and_their_space_comes_back() {
    let mut store = Store::new(|options| options.wal_fsync_interval = Duration::ZERO);
    store.live(12 * HOUR);
    store.run(HOUR / 2);
    let delete = |store: &mut Store, name: &str, range: TimeRange| {
        store.db.delete_series(range, &[vec![Matcher::equal("__name__", name)]]).unwrap();
        store.want.get_mut(name).unwrap().retain(|t, _| !range.contains(*t));
    };
    // In blocks, in the head, and over their border.
    delete(&mut store, "a", TimeRange::new(START + HOUR, START + 3 * HOUR));
    delete(&mut store, "b", TimeRange::new(START + 12 * HOUR, i64::MAX));
    delete(&mut store, "c", TimeRange::new(START + 5 * HOUR, START + 12 * HOUR));
    store.check();
    assert!(store.blocks().iter().any(|block| block.tombstones > 0));
    store.reopen_on(store.fs.lose_power(0));
    store.check();
    let (late, t) = ("a", START + 2 * HOUR + 1);
    store.append(&[(late, t, 7.0)]);
    store.check();
    assert!(store.want[late].contains_key(&t), "what comes later is not hidden");
    store.live(12 * HOUR);
    store.check();
    // Of the oldest block, everything.
    let oldest = store.blocks()[0].clone();
    let range = TimeRange::new(oldest.min_time, oldest.max_time - 1);
    for name in store.want.keys().cloned().collect::<Vec<_>>() {
        delete(&mut store, &name, range);
    }
    store.check();
    let before: u64 = store.blocks().iter().map(|block| block.samples).sum();
    store.db.clean_tombstones().unwrap();
    store.check();
    let blocks = store.blocks();
    assert!(blocks.iter().all(|block| block.tombstones == 0 && block.id != oldest.id), "{blocks:?}");
    let after: u64 = blocks.iter().map(|block| block.samples).sum();
    assert_eq!(before - after, oldest.samples, "{:?}", spans(&blocks));
    store.kill();
    store.check();
}

#[test]
fn a_gap_of_years_is_passed_at_once() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(4 * HOUR);
    store.clock.advance(3 * 365 * DAY);
    store.run(HOUR);
    // While an old view is open, the head keeps what it sees.
    let view = store.db.querier(TimeRange::ALL).unwrap();
    let before = store.metric("prometheus_tsdb_head_truncations_total");
    store.compact();
    assert!(store.metric("prometheus_tsdb_head_truncations_total") - before < 10.0);
    store.check();
    drop(view);
    store.live(6 * HOUR);
    store.check();
}

/// A clock that stands still or goes back gives ids that are used already.
#[test]
fn ids_differ_from_all_names_there_are() {
    let mut store = Store::new(|_| {});
    store.live(12 * HOUR);
    let far = "/data/7ZZZZZZZZZ0000000000000000";
    store.fs.write(std::path::Path::new(&format!("{far}/no-block")), vec![1]);
    store.fs.write(std::path::Path::new(&format!("{far}.x/no-block")), vec![1]);
    store.kill();
    store.live(6 * HOUR);
    store.check();
    assert!(store.blocks().iter().any(|block| block.id.starts_with("7ZZZZZZZZZ")), "{:?}", store.blocks());
    assert_eq!(store.metric("prometheus_tsdb_compactions_failed_total"), 0.0);
}
