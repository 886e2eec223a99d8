//! The store against a plain map: appends by sample and by row, queries, views held open, checkpoints, kills and losses of
//! power, in random order.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Content, content, content_of, open_with, options, series};
use model::Timestamp;
use model::sample::TimeRange;
use model::storage::{
    ABSENT_BITS, Append, AppendError, AppendOptions, AppendSample, LayoutRef, LayoutSlot, Querier, Queryable,
    Row,
};
use proptest::prelude::*;
use proptest::sample::Index;
use tsdb::Db;
use tsdb::fs::FaultyFs;

const SERIES: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    /// Samples of one transaction: series, time since the newest, value, whether by row in layout 0 or 1.
    Commit(Vec<Write>),
    /// The same, but given up.
    Rollback(Vec<Write>),
    Retire(usize, usize),
    Close(usize),
    Maintain,
    Checkpoint,
    /// Open a view and hold it.
    View,
    /// Compare a view that was held, and close it.
    Look(Index),
    Kill,
    LosePower(u8),
    CloseAndOpen,
}

#[derive(Clone, Debug)]
enum Write {
    Sample(usize, i64, u64),
    Row(usize, i64, Vec<Option<u64>>),
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0u8..3).prop_map(|v| f64::from(v).to_bits()),
        1 => Just(model::sample::STALE_NAN_BITS),
        1 => Just((-0.0f64).to_bits()),
        1 => Just(f64::NEG_INFINITY.to_bits()),
        1 => any::<u64>().prop_filter("reserved", |bits| *bits != ABSENT_BITS),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let step =
        || prop_oneof![6 => 1i64..20, 2 => -60i64..1, 1 => Just(3_000_000i64), 1 => Just(-4_000_000i64)];
    prop_oneof![
        (0..SERIES, step(), value()).prop_map(|(s, t, v)| Write::Sample(s, t, v)),
        (0usize..2, step(), prop::collection::vec(prop::option::weighted(0.8, value()), SERIES))
            .prop_map(|(l, t, row)| Write::Row(l, t, row)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => prop::collection::vec(write(), 1..6).prop_map(Step::Commit),
        2 => prop::collection::vec(write(), 1..6).prop_map(Step::Rollback),
        1 => (0usize..2, 0..SERIES).prop_map(|(l, s)| Step::Retire(l, s)),
        1 => (0usize..2).prop_map(Step::Close),
        1 => Just(Step::Maintain),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::View),
        2 => any::<Index>().prop_map(Step::Look),
        1 => Just(Step::Kill),
        1 => any::<u8>().prop_map(Step::LosePower),
        1 => Just(Step::CloseAndOpen),
    ]
}

/// The map, and the rules of `docs` in their plainest form.
#[derive(Clone, Debug, Default)]
struct Plain {
    content: Content,
    /// Newest time of all commits, as the store's bounds see it.
    newest: Option<Timestamp>,
    window: i64,
}

impl Plain {
    fn judge(
        &self,
        series: &str,
        t: Timestamp,
        bits: u64,
        newest: Option<Timestamp>,
    ) -> Result<bool, AppendError> {
        let newest = newest.unwrap_or(Timestamp::MIN);
        let in_window = self.window > 0 && t >= newest.saturating_sub(self.window);
        let in_bounds = t >= newest.saturating_sub(3_600_000);
        let samples = self.content.get(series);
        let latest = samples.and_then(|samples| samples.keys().next_back().copied());
        let known = samples.and_then(|samples| samples.get(&t).copied());
        match (known, latest) {
            (Some(known), _) if known == bits => Ok(false),
            (Some(_), Some(latest)) if latest == t => Err(AppendError::Duplicate),
            (Some(_), _) if in_window => Err(AppendError::Duplicate),
            (None, latest) if in_window || in_bounds && latest.is_none_or(|latest| t > latest) => Ok(true),
            _ if self.window > 0 => Err(AppendError::TooOld),
            _ if in_bounds => Err(AppendError::OutOfOrder),
            _ => Err(AppendError::OutOfBounds),
        }
    }

    fn store(&mut self, series: &str, t: Timestamp, bits: u64) {
        self.content.entry(series.to_owned()).or_default().insert(t, bits);
        self.newest = self.newest.max(Some(t));
    }
}

struct World {
    fs: FaultyFs,
    options: tsdb::DbOptions,
    db: Arc<Db>,
    plain: Plain,
    layouts: [Option<(LayoutRef, Vec<Option<LayoutSlot>>)>; 2],
    views: Vec<(Box<dyn Querier>, Content)>,
}

fn name(series: usize) -> String {
    format!("s{series}")
}

impl World {
    fn new(window: i64, sync: bool, segment_bytes: u64) -> Self {
        let fs = FaultyFs::new();
        let mut options = options();
        options.out_of_order_window_ms = window;
        options.wal_segment_bytes = segment_bytes;
        options.checkpoint_bytes = 1 << 14;
        if sync {
            options.wal_fsync_interval = std::time::Duration::ZERO;
        }
        let db = open_with(&fs, options.clone()).unwrap();
        let plain = Plain { window, ..Plain::default() };
        Self { fs, options, db, plain, layouts: [None, None], views: Vec::new() }
    }

    fn reopen(&mut self, fs: FaultyFs) {
        self.views.clear();
        self.layouts = [None, None];
        self.fs = fs;
        self.db = open_with(&self.fs, self.options.clone()).unwrap();
        assert_eq!(content(&self.db), self.plain.content, "after a restart");
    }

    fn transaction(&mut self, writes: &[Write], commit: bool) {
        let mut plain = self.plain.clone();
        let before = self.plain.newest;
        let mut appender = self.db.appender(AppendOptions::default());
        let base = before.unwrap_or(0);
        for write in writes {
            match write {
                Write::Sample(s, step, bits) => {
                    let (t, name) = (base + step, name(*s));
                    let want = plain.judge(&name, t, *bits, before);
                    let got =
                        appender.append(None, &series(&name), AppendSample::float(t, f64::from_bits(*bits)));
                    assert_eq!(got.map(|_| ()), want.map(|_| ()), "{name} {t} {bits:x}");
                    if want == Ok(true) {
                        plain.store(&name, t, *bits);
                    }
                }
                Write::Row(index, step, values) => {
                    let t = base + step;
                    let (layout, slots) = self.layouts[*index].get_or_insert_with(|| {
                        let layout = appender.open_layout();
                        let extend = |s| appender.extend_layout(layout, &series(&name(s))).unwrap();
                        (layout, (0..SERIES).map(extend).map(Some).collect())
                    });
                    let mut row = vec![f64::from_bits(ABSENT_BITS); slots.len()];
                    let mut refused = Vec::new();
                    let mut appended = 0;
                    let mut accepted = Vec::new();
                    for (s, bits) in values.iter().enumerate() {
                        let (Some(slot), Some(bits)) = (slots[s], bits) else { continue };
                        row[slot.0 as usize] = f64::from_bits(*bits);
                        match plain.judge(&name(s), t, *bits, before) {
                            Ok(new) => {
                                appended += 1;
                                if new {
                                    accepted.push((s, *bits));
                                }
                            }
                            Err(why) => refused.push((slot, why)),
                        }
                    }
                    let outcome = appender.append_row(&Row { layout: *layout, t, values: &row });
                    assert_eq!((outcome.refused, outcome.error), (refused, None), "row at {t}");
                    assert_eq!(outcome.appended, appended);
                    for (s, bits) in accepted {
                        plain.store(&name(s), t, bits);
                    }
                }
            }
        }
        if commit {
            let samples: usize = plain.content.values().map(BTreeMap::len).sum();
            let had: usize = self.plain.content.values().map(BTreeMap::len).sum();
            let summary = appender.commit().unwrap();
            assert_eq!(summary.samples, (samples - had) as u64);
            self.plain = plain;
        } else {
            appender.rollback();
        }
    }

    fn step(&mut self, step: &Step) {
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
            Step::Maintain => self.db.maintain(self.plain.newest.unwrap_or(0)).unwrap(),
            Step::Checkpoint => self.db.checkpoint().unwrap(),
            Step::View => {
                let view = self.db.querier(TimeRange::ALL).unwrap();
                self.views.push((view, self.plain.content.clone()));
            }
            Step::Look(index) => {
                if !self.views.is_empty() {
                    let (view, want) = self.views.swap_remove(index.index(self.views.len()));
                    assert_eq!(content_of(&*view, TimeRange::ALL), want, "a view that was held");
                }
            }
            Step::Kill => self.reopen(self.fs.after_kill()),
            Step::LosePower(keep) => {
                // Without a sync of every commit the newest ones may go.
                if self.options.wal_fsync_interval.is_zero() {
                    self.reopen(self.fs.lose_power(*keep));
                }
            }
            Step::CloseAndOpen => {
                self.db.close().unwrap();
                self.reopen(self.fs.clone());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::cases(100), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_plain_map(
        steps in prop::collection::vec(step(), 1..150),
        window in prop_oneof![Just(0i64), Just(40), Just(5_000_000), Just(i64::MAX)],
        sync in any::<bool>(),
        segment_bytes in prop_oneof![Just(300u64), Just(1 << 20)],
        range in (-100i64..3000, 0i64..2000),
    ) {
        let mut world = World::new(window, sync, segment_bytes);
        for step in &steps {
            world.step(step);
        }
        assert_eq!(content(&world.db), world.plain.content);
        for (view, want) in &world.views {
            assert_eq!(&content_of(&**view, TimeRange::ALL), want, "a view that was held to the end");
        }
        let range = TimeRange::new(range.0, range.0 + range.1);
        let mut want = world.plain.content.clone();
        for samples in want.values_mut() {
            samples.retain(|t, _| range.contains(*t));
        }
        want.retain(|_, samples| !samples.is_empty());
        let view = world.db.querier(TimeRange::ALL).unwrap();
        assert_eq!(content_of(&*view, range), want, "cut to a range");
        world.reopen(world.fs.after_kill());
    }
}

/// Enough rows and samples to seal windows and chunks, with readers that hold old views across it.
#[test]
fn views_hold_across_sealed_windows_and_checkpoints() {
    let mut world = World::new(0, false, 1 << 14);
    for round in 0..500u64 {
        if round % 100 == 50 {
            world.step(&Step::View);
        }
        let row = (0..SERIES).map(|s| Some(((round / (s as u64 + 1)) as f64).to_bits())).collect();
        world.transaction(&[Write::Row(0, 5, row)], true);
        world.transaction(&[Write::Sample(0, 3, round)], true);
        if round % 170 == 0 {
            world.step(&Step::Checkpoint);
        }
    }
    for (view, want) in std::mem::take(&mut world.views) {
        assert_eq!(content_of(&*view, TimeRange::ALL), want);
    }
    world.reopen(world.fs.after_kill());
}
