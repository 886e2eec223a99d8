//! A store and its plain map, taken through steps together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{open_with, options};
use crate::plain::{Plain, Seen, Value, assert_same, read};
use crate::steps::{
    FLOATS, SERIES, Setting, Step, Work, Write, histogram_or_float, labels, name, other, selector,
};
use model::sample::{SampleValue, TimeRange};
use model::storage::{
    ABSENT_BITS, Append, AppendError, AppendOptions, AppendSample, Appender, LayoutRef, LayoutSlot, Querier,
    Queryable, Row, SeriesRef, StorageAdmin, StorageError,
};
use model::{Clock, ManualClock, Timestamp};
use tsdb::Db;
use tsdb::fs::{Fault, FaultKind, FaultyFs, FileSystem as _};

pub(crate) type Layout = (LayoutRef, Vec<Option<LayoutSlot>>);

pub(crate) struct World {
    pub(crate) fs: FaultyFs,
    pub(crate) options: tsdb::DbOptions,
    pub(crate) db: Arc<Db>,
    pub(crate) plain: Plain,
    pub(crate) layouts: [Option<Layout>; 2],
    pub(crate) references: BTreeMap<usize, SeriesRef>,
    pub(crate) views: Vec<(Box<dyn Querier>, Plain)>,
    /// What was given for each series so far, in rows or alone.
    pub(crate) given: BTreeMap<usize, Vec<(Timestamp, SampleValue)>>,
    /// The disk failed since it was opened.
    pub(crate) has_failed: bool,
    pub(crate) compactions: i64,
    pub(crate) clock: Arc<ManualClock>,
}

impl World {
    pub(crate) fn new(setting: &Setting) -> Self {
        let fs = FaultyFs::new();
        let clock = Arc::new(ManualClock::new(1_000_000));
        let mut options = options();
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        options.out_of_order_window_ms = setting.window;
        options.wal_segment_bytes = setting.segment_bytes;
        options.checkpoint_bytes = 1 << 14;
        options.block_duration_min = Duration::from_millis(setting.block_ms);
        options.block_duration_max = Some(Duration::from_millis(setting.block_ms * 9));
        options.retention = Duration::from_millis(setting.retention_ms);
        if setting.sync {
            options.wal_fsync_interval = Duration::ZERO;
        }
        let db = open_with(&fs, options.clone()).unwrap();
        let plain = Plain {
            window: setting.window,
            compacted: Timestamp::MIN,
            kept_from: Timestamp::MIN,
            ..Plain::default()
        };
        Self {
            fs,
            options,
            db,
            plain,
            layouts: [None, None],
            references: BTreeMap::new(),
            views: Vec::new(),
            given: BTreeMap::new(),
            has_failed: false,
            compactions: 0,
            clock,
        }
    }

    pub(crate) fn check(&self, context: &str) {
        let view = self.db.querier(TimeRange::ALL).unwrap();
        let got = read(&*view, &selector(0).0, TimeRange::ALL);
        assert_same(got, self.plain.seen(|_| true, TimeRange::ALL), &self.plain, context);
    }

    pub(crate) fn reopen(&mut self, fs: FaultyFs, context: &str) {
        self.views.clear();
        self.has_failed = false;
        self.layouts = [None, None];
        self.references.clear();
        self.fs = fs;
        self.db = open_with(&self.fs, self.options.clone()).unwrap();
        self.check(context);
    }

    pub(crate) fn transaction(&mut self, writes: &[Write], commit: bool) {
        let mut plain = self.plain.clone();
        let newest = self.plain.newest;
        let mut appender = self.db.appender(AppendOptions::default());
        let base = newest.unwrap_or(0);
        let mut sure = true;
        for write in writes {
            self.note(write, base);
            sure &= match write {
                Write::Sample(s, step, bits, by_reference) => {
                    let value = SampleValue::Float(f64::from_bits(*bits));
                    let reference = self.references.get(s).filter(|_| *by_reference).copied();
                    Self::sample(
                        &mut *appender,
                        &mut self.references,
                        &mut plain,
                        newest,
                        (*s, base + step, value),
                        reference,
                    )
                }
                Write::Histogram(s, step, number) => {
                    let value = histogram_or_float(*s, *number);
                    Self::sample(
                        &mut *appender,
                        &mut self.references,
                        &mut plain,
                        newest,
                        (*s, base + step, value),
                        None,
                    )
                }
                Write::Again(s, index, given_again) => {
                    let given = self.given.get(s).filter(|given| !given.is_empty());
                    let Some((t, value)) = given.map(|given| given[index.index(given.len())].clone()) else {
                        continue;
                    };
                    let value = given_again.map_or(value, |bits| other(*s, bits));
                    Self::sample(
                        &mut *appender,
                        &mut self.references,
                        &mut plain,
                        newest,
                        (*s, t, value),
                        None,
                    )
                }
                Write::Row(index, step, values) => {
                    let layout = Self::layout(&mut self.layouts[*index], &mut *appender);
                    Self::row(&mut *appender, layout, &mut plain, newest, base + step, None, values)
                }
                Write::Part(index, step, first, values) => {
                    let layout = Self::layout(&mut self.layouts[*index], &mut *appender);
                    let values = &values[..values.len().min(FLOATS - first)];
                    Self::row(&mut *appender, layout, &mut plain, newest, base + step, Some(*first), values)
                }
            };
        }
        if !commit {
            appender.rollback();
            return;
        }
        let summary = appender.commit().unwrap();
        if sure {
            assert_eq!(summary.samples, (plain.samples() - self.plain.samples()) as u64);
        }
        self.plain = plain;
        if !self.options.retention.is_zero() {
            let retention = i64::try_from(self.options.retention.as_millis()).unwrap();
            // Counted from the end of the newest block, where that is later.
            let block = i64::try_from(self.options.block_duration_min.as_millis()).unwrap();
            let end = self.plain.newest.map(|newest| (newest.div_euclid(block) + 1) * block);
            self.plain.kept_from = end.map_or(Timestamp::MIN, |end| end - retention);
        }
    }

    pub(crate) fn note(&mut self, write: &Write, base: Timestamp) {
        let mut note = |s: usize, step: i64, value| {
            self.given.entry(s).or_default().push((base + step, value));
        };
        let float = |bits: u64| SampleValue::Float(f64::from_bits(bits));
        match write {
            Write::Sample(s, step, bits, _) => note(*s, *step, float(*bits)),
            Write::Histogram(s, step, number) => note(*s, *step, histogram_or_float(*s, *number)),
            Write::Again(..) => {}
            Write::Row(_, step, values) | Write::Part(_, step, _, values) => {
                let first = if let Write::Part(_, _, first, _) = write { *first } else { 0 };
                for (s, bits) in (first..FLOATS).zip(values) {
                    bits.iter().for_each(|bits| note(s, *step, float(*bits)));
                }
            }
        }
    }

    pub(crate) fn sample(
        appender: &mut dyn Appender,
        references: &mut BTreeMap<usize, SeriesRef>,
        plain: &mut Plain,
        newest: Option<Timestamp>,
        (s, t, value): (usize, Timestamp, SampleValue),
        reference: Option<SeriesRef>,
    ) -> bool {
        if !plain.is_clear(t) {
            return true;
        }
        let seen = Value::of(&value);
        let want = plain.judge(s, t, &seen, newest);
        let got = appender.append(reference, &labels(s), AppendSample { t, value, start: None });
        if let Ok(reference) = got {
            references.insert(s, reference);
        }
        plain.heard((s, t, seen), want, got.map(|_| ()))
    }

    pub(crate) fn layout<'a>(layout: &'a mut Option<Layout>, appender: &mut dyn Appender) -> &'a Layout {
        layout.get_or_insert_with(|| {
            let layout = appender.open_layout();
            let extend = |s| appender.extend_layout(layout, &labels(s)).unwrap();
            (layout, (0..FLOATS).map(extend).map(Some).collect())
        })
    }

    /// A row, or a part of one from a slot on.
    pub(crate) fn row(
        appender: &mut dyn Appender,
        (layout, slots): &Layout,
        plain: &mut Plain,
        newest: Option<Timestamp>,
        t: Timestamp,
        first: Option<usize>,
        values: &[Option<u64>],
    ) -> bool {
        let mut row = vec![f64::from_bits(ABSENT_BITS); values.len()];
        let mut given = Vec::new();
        for (place, bits) in values.iter().enumerate() {
            let s = first.unwrap_or(0) + place;
            let (Some(slot), Some(bits)) = (slots[s], bits) else { continue };
            if !plain.is_clear(t) {
                continue;
            }
            row[place] = f64::from_bits(*bits);
            let value = Value::Float(*bits);
            let want = plain.judge(s, t, &value, newest);
            given.push((slot, (s, t, value), want));
        }
        let row = Row { layout: *layout, t, values: &row };
        let outcome = match first {
            None => appender.append_row(&row),
            Some(first) => appender.append_row_part(LayoutSlot(u32::try_from(first).unwrap()), &row),
        };
        assert_eq!(outcome.error, None);
        assert_eq!(outcome.appended + outcome.refused.len(), given.len(), "row at {t}");
        let mut refused: BTreeMap<LayoutSlot, AppendError> = outcome.refused.into_iter().collect();
        let mut sure = true;
        for (slot, sample, want) in given {
            sure &= plain.heard(sample, want, refused.remove(&slot).map_or(Ok(()), Err));
        }
        assert!(refused.is_empty(), "nobody wrote {refused:?}");
        sure
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.plain.newest.unwrap_or(0)
    }

    pub(crate) fn work(&mut self, work: Work) -> Result<(), StorageError> {
        match work {
            Work::Checkpoint => self.db.checkpoint(),
            Work::Compact => self.compact(0),
            Work::Clean => self.db.clean_tombstones(),
        }
    }

    pub(crate) fn compact(&mut self, ahead_ms: i64) -> Result<(), StorageError> {
        // Later every time, so that what failed is tried again.
        self.compactions += 1;
        self.clock.advance(1000);
        let now = self.now().saturating_add(ahead_ms) + self.compactions * 3_600_000;
        let done = self.db.compact(now);
        let end = match done {
            // Behind the last block the head may have had nothing for some blocks' time, which is over as well.
            Ok(()) => {
                let block = i64::try_from(self.options.block_duration_min.as_millis()).unwrap();
                let over = self.plain.newest.map(|newest| newest - block / 2);
                self.db.blocks().iter().map(|block| block.max_time).max().max(over)
            }
            // It may have been about to make a block of anything.
            Err(_) => self.plain.newest,
        };
        self.plain.compacted = self.plain.compacted.max(end.unwrap_or(Timestamp::MIN));
        done
    }

    /// A copy of the store is a store.
    pub(crate) fn snapshot(&self, skip_head: bool) {
        self.clock.advance(1000);
        let name = self.db.snapshot(skip_head).unwrap();
        let mut options = self.options.clone();
        options.dir = options.dir.join("snapshots").join(&name);
        let db = open_with(&self.fs.after_kill(), options).unwrap();
        let view = db.querier(TimeRange::ALL).unwrap();
        let got = read(&*view, &selector(0).0, TimeRange::ALL);
        let mut want = self.plain.seen(|_| true, TimeRange::ALL);
        if skip_head {
            for (name, samples) in &mut want {
                samples.retain(|t, _| got.get(name).is_some_and(|got| got.contains_key(t)));
            }
            want.retain(|_, samples| !samples.is_empty());
        }
        assert_same(got, want, &self.plain, "a snapshot");
        self.fs.remove_dir_all(Path::new(&format!("/data/snapshots/{name}"))).unwrap();
        self.fs.sync_dir(Path::new("/data/snapshots")).unwrap();
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Commit(writes) => self.transaction(writes, true),
            Step::Rollback(writes) => self.transaction(writes, false),
            Step::Retire(index, s) => {
                if let Some((layout, slots)) = &mut self.layouts[*index]
                    && let Some(slot) = slots[*s].take()
                {
                    let mut appender = self.db.appender(AppendOptions::default());
                    appender.retire_slot(*layout, slot);
                    appender.commit().unwrap();
                }
            }
            Step::Close(index) => {
                if let Some((layout, _)) = self.layouts[*index].take() {
                    let mut appender = self.db.appender(AppendOptions::default());
                    appender.close_layout(layout);
                    appender.commit().unwrap();
                }
            }
            Step::Maintain => self.db.maintain(self.now()).unwrap(),
            Step::Checkpoint => self.work(Work::Checkpoint).unwrap(),
            Step::Compact(ahead_ms) => self.compact(*ahead_ms).unwrap(),
            Step::Snapshot(skip_head) => self.snapshot(*skip_head),
            Step::Clean => self.work(Work::Clean).unwrap(),
            Step::Delete(from, len, which) => {
                let range = TimeRange::new(self.now() + from, self.now() + from + len);
                let (matchers, takes) = selector(*which);
                self.db.delete_series(range, &[matchers]).unwrap();
                self.plain.delete(range, takes);
            }
            Step::View => {
                let view = self.db.querier(TimeRange::ALL).unwrap();
                self.views.push((view, self.plain.clone()));
            }
            Step::Look(index) => {
                if !self.views.is_empty() {
                    let (view, plain) = self.views.swap_remove(index.index(self.views.len()));
                    self.look(&*view, &plain, "a view that was held");
                }
            }
            Step::Select(which, from, len) => {
                let range = TimeRange::new(self.now() + from, self.now() + from + len);
                let (matchers, takes) = selector(*which);
                let view = self.db.querier(range).unwrap();
                let got = read(&*view, &matchers, range);
                assert_same(got, self.plain.seen(takes, range), &self.plain, "selected");
                let names = view.label_values("__name__", &matchers, &Default::default()).unwrap().items;
                let stored: BTreeSet<String> = self.plain.seen(takes, range).into_keys().collect();
                // Series that may have samples in the range; those that have must be there.
                let names: BTreeSet<String> = names.into_iter().collect();
                let kept = |name: &String| {
                    let series = self.plain.seen(|s| &self::name(s) == name, range);
                    series.values().flatten().any(|(t, _)| *t >= self.plain.kept_from)
                };
                assert!(
                    stored.iter().filter(|name| kept(name)).all(|name| names.contains(name)),
                    "{stored:?} in {names:?}"
                );
                assert!((0..SERIES).filter(|s| !takes(*s)).all(|s| !names.contains(&name(s))), "{names:?}");
            }
            Step::Kill => self.reopen(self.fs.after_kill(), "killed"),
            Step::LosePower(keep) => {
                // Without a sync of every commit the newest ones may go.
                if self.options.wal_fsync_interval.is_zero() {
                    self.reopen(self.fs.lose_power(*keep), "power lost");
                }
            }
            Step::DieIn(work, at) => {
                let at = self.fs.operations() + at;
                self.fs.fail_at(Some(Fault { at, times: u64::MAX, kind: FaultKind::Io }));
                let _ = self.work(*work);
                self.check("while the disk is away");
                self.fs.fail_at(None);
                if self.options.wal_fsync_interval.is_zero() {
                    self.reopen(self.fs.lose_power_unevenly(at), &format!("power lost in {work:?}"));
                } else {
                    self.reopen(self.fs.after_kill(), &format!("killed in {work:?}"));
                }
            }
            Step::FailIn(work, at, full) => {
                let at = self.fs.operations() + at;
                let kind = if *full { FaultKind::NoSpace } else { FaultKind::Io };
                self.fs.fail_at(Some(Fault { at, times: 1, kind }));
                let _ = self.work(*work);
                self.fs.fail_at(None);
                self.has_failed = true;
                self.check(&format!("after a failure in {work:?}"));
            }
            Step::CloseAndOpen => {
                // It says so when a sync failed, and nothing has made up for it.
                let closed = self.db.close();
                assert!(closed.is_ok() || self.has_failed, "{closed:?}");
                self.reopen(self.fs.clone(), "closed and opened");
            }
        }
    }

    pub(crate) fn look(&self, view: &dyn Querier, plain: &Plain, context: &str) {
        let got = read(view, &selector(0).0, TimeRange::ALL);
        // Deletions hold for views that are open, too.
        let deleted = &self.plain.deleted[plain.deleted.len()..];
        let without = |mut seen: Seen| {
            for (series, range) in deleted {
                if let Some(samples) = seen.get_mut(&name(*series)) {
                    samples.retain(|t, _| !range.contains(*t));
                }
            }
            seen.retain(|_, samples| !samples.is_empty());
            seen
        };
        let want = plain.seen(|_| true, TimeRange::ALL);
        assert_same(without(got), without(want), &self.plain, context);
    }
}
