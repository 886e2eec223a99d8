//! The store against a plain map: appends by sample, by reference, by row and by part of a row, floats and histograms, in and
//! out of order; queries, views held open, deletions, compactions, retention, checkpoints, faults in the middle of upkeep,
//! kills and losses of power, in random order.
//!
//! Cases that failed are kept in `model.proptest-regressions`; `PROPTEST_CASES` is the number of new ones.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{open_with, options};
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::{SampleValue, TimeRange};
use model::storage::{
    ABSENT_BITS, Append, AppendError, AppendOptions, AppendSample, Appender, LayoutRef, LayoutSlot, Querier,
    Queryable, Row, SelectHints, SeriesColumns, SeriesRef, StorageAdmin, StorageError,
};
use model::{Clock, ManualClock, Timestamp};
use proptest::prelude::*;
use proptest::sample::Index;
use tsdb::Db;
use tsdb::fs::{Fault, FaultKind, FaultyFs, FileSystem as _};

/// Series of floats, written one by one and by rows.
const FLOATS: usize = 6;
/// All series; the others are of histograms, and sometimes of floats.
const SERIES: usize = 8;

#[derive(Clone, Debug)]
enum Step {
    /// Samples of one transaction.
    Commit(Vec<Write>),
    /// The same, but given up.
    Rollback(Vec<Write>),
    Retire(usize, usize),
    Close(usize),
    Maintain,
    Checkpoint,
    /// With a clock that is so much ahead of the newest sample.
    Compact(i64),
    /// Copy the store, with or without the head, and open the copy.
    Snapshot(bool),
    /// From one distance before the newest sample to another, of the series that a selector takes.
    Delete(i64, i64, usize),
    Clean,
    /// Open a view and hold it.
    View,
    /// Compare a view that was held, and close it.
    Look(Index),
    /// Compare what a selector takes in a range.
    Select(usize, i64, i64),
    Kill,
    LosePower(u8),
    /// The disk fails for good so many operations into upkeep of a kind, and then the process dies.
    DieIn(Work, u64),
    /// The disk fails once, and recovers.
    FailIn(Work, u64, bool),
    CloseAndOpen,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Checkpoint,
    Compact,
    Clean,
}

#[derive(Clone, Debug)]
enum Write {
    /// Series, time since the newest, value; by reference where one is known.
    Sample(usize, i64, u64, bool),
    Histogram(usize, i64, u8),
    /// At a time at which the series was written before, whatever became of that: the same value again, or another one.
    Again(usize, Index, Option<u64>),
    /// In layout 0 or 1.
    Row(usize, i64, Vec<Option<u64>>),
    /// The same, from a slot on.
    Part(usize, i64, usize, Vec<Option<u64>>),
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

fn values(of: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<Option<u64>>> {
    prop::collection::vec(prop::option::weighted(0.8, value()), of)
}

fn write() -> impl Strategy<Value = Write> {
    let step = || prop_oneof![6 => 1i64..20, 2 => -60i64..1, 1 => 1000i64..9000, 1 => Just(3_000_000i64), 1 => Just(-4_000_000i64)];
    prop_oneof![
        (0..FLOATS, step(), value(), any::<bool>()).prop_map(|(s, t, v, r)| Write::Sample(s, t, v, r)),
        (FLOATS..SERIES, step(), any::<u8>()).prop_map(|(s, t, v)| Write::Histogram(s, t, v)),
        // Not of the last one: of two kinds at a time in a block and behind it, the float stays.
        (0..SERIES - 1, any::<Index>(), prop::option::of(value())).prop_map(|(s, i, v)| Write::Again(
            s,
            i,
            v.filter(|_| s < FLOATS)
        )),
        (0usize..2, step(), values(FLOATS..=FLOATS)).prop_map(|(l, t, row)| Write::Row(l, t, row)),
        (0usize..2, step(), 0..FLOATS, values(1..=FLOATS))
            .prop_map(|(l, t, s, row)| Write::Part(l, t, s, row)),
    ]
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![2 => Just(Work::Checkpoint), 3 => Just(Work::Compact), 1 => Just(Work::Clean)]
}

fn step() -> impl Strategy<Value = Step> {
    let writes = || prop::collection::vec(write(), 1..6);
    prop_oneof![
        40 => writes().prop_map(Step::Commit),
        2 => writes().prop_map(Step::Rollback),
        1 => (0usize..2, 0..FLOATS).prop_map(|(l, s)| Step::Retire(l, s)),
        1 => (0usize..2).prop_map(Step::Close),
        2 => Just(Step::Maintain),
        2 => Just(Step::Checkpoint),
        4 => prop_oneof![6 => Just(0i64), 1 => Just(86_400_000), 1 => Just(-86_400_000)].prop_map(Step::Compact),
        1 => any::<bool>().prop_map(Step::Snapshot),
        2 => (-9000i64..10, 0i64..9000, 0..SELECTORS).prop_map(|(from, len, s)| Step::Delete(from, len, s)),
        1 => Just(Step::Clean),
        2 => Just(Step::View),
        2 => any::<Index>().prop_map(Step::Look),
        3 => (0..SELECTORS, -20_000i64..10, 0i64..20_000).prop_map(|(s, from, len)| Step::Select(s, from, len)),
        1 => Just(Step::Kill),
        1 => any::<u8>().prop_map(Step::LosePower),
        1 => (work(), 0u64..60).prop_map(|(work, at)| Step::DieIn(work, at)),
        1 => (work(), 0u64..60, any::<bool>()).prop_map(|(work, at, full)| Step::FailIn(work, at, full)),
        1 => Just(Step::CloseAndOpen),
    ]
}

fn name(series: usize) -> String {
    format!("{}{series}", if series < FLOATS { "s" } else { "h" })
}

fn labels(series: usize) -> Labels {
    let name = name(series);
    let parity = if series.is_multiple_of(2) { "even" } else { "odd" };
    // One without the label.
    if series == 3 {
        return Labels::from_pairs([("__name__", name.as_str()), ("job", "test")]);
    }
    Labels::from_pairs([("__name__", name.as_str()), ("job", "test"), ("parity", parity)])
}

const SELECTORS: usize = 7;

/// A selector, and whether it takes a series.
fn selector(number: usize) -> (Vec<Matcher>, fn(usize) -> bool) {
    let matcher = |op, name, value| Matcher::new(op, name, value).unwrap();
    match number {
        0 => (vec![Matcher::equal("job", "test")], |_| true),
        1 => (vec![Matcher::equal("__name__", "s1")], |s| s == 1),
        2 => (vec![matcher(MatchOp::Regex, "__name__", "s[0-3]|h6")], |s| s <= 3 || s == 6),
        3 => (vec![Matcher::equal("job", "test"), matcher(MatchOp::NotEqual, "parity", "odd")], |s| {
            s % 2 == 0 || s == 3
        }),
        4 => (vec![Matcher::equal("parity", ""), matcher(MatchOp::Regex, "__name__", "s.*")], |s| s == 3),
        5 => (vec![matcher(MatchOp::NotRegex, "__name__", "s.*"), Matcher::equal("job", "test")], |s| s >= 6),
        _ => (vec![Matcher::equal("job", "other")], |_| false),
    }
}

/// A histogram of some number: integer, float or gauge, exponential or with custom buckets.
fn histogram(number: u8) -> SampleValue {
    let n = u64::from(number % 16);
    let hint = if number & 64 == 0 { CounterResetHint::Unknown } else { CounterResetHint::Gauge };
    let integer = if number & 32 == 0 {
        Histogram {
            counter_reset_hint: hint,
            schema: 1,
            zero_threshold: 1e-9,
            zero_count: 1,
            count: n + 6,
            sum: n as f64 / 4.0,
            positive_spans: vec![
                Span { offset: 0, length: 2 },
                Span { offset: i32::from(number % 3), length: 1 },
            ],
            positive_buckets: vec![n as i64 + 1, -(n as i64), 0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![2],
            ..Histogram::default()
        }
    } else {
        Histogram {
            counter_reset_hint: hint,
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: n + 1,
            sum: -0.0,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![n as i64 + 1],
            custom_values: [0.5, 1.0, f64::from(number % 3) + 2.0].into(),
            ..Histogram::default()
        }
    };
    if number & 128 == 0 {
        SampleValue::Histogram(Arc::new(integer))
    } else {
        SampleValue::FloatHistogram(Arc::new(integer.to_float()))
    }
}

/// What the last series gets is sometimes a float.
fn histogram_or_float(series: usize, number: u8) -> SampleValue {
    match number {
        0..=60 if series == SERIES - 1 => SampleValue::Float(f64::from(number)),
        _ => histogram(number),
    }
}

/// What a reader sees of a histogram. Hints of counters depend on what came before, and are no part of it.
fn seen(histogram: &FloatHistogram) -> String {
    let mut histogram = histogram.clone();
    if histogram.counter_reset_hint != CounterResetHint::Gauge {
        histogram.counter_reset_hint = CounterResetHint::Unknown;
    }
    format!("{:x} {histogram:?}", histogram.sum.to_bits())
}

/// A sample as it was given and as it is read.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Float(u64),
    Histogram { given: String, seen: String },
}

impl Value {
    fn of(value: &SampleValue) -> Self {
        match value {
            SampleValue::Float(v) => Self::Float(v.to_bits()),
            SampleValue::Histogram(h) => {
                Self::Histogram { given: format!("{h:?}"), seen: seen(&h.to_float()) }
            }
            SampleValue::FloatHistogram(h) => Self::Histogram { given: format!("{h:?}"), seen: seen(h) },
        }
    }

    fn seen(&self) -> String {
        match self {
            Self::Float(bits) => format!("{bits:x}"),
            Self::Histogram { seen, .. } => seen.clone(),
        }
    }
}

/// What a reader sees: texts of samples by time, by series.
type Seen = BTreeMap<String, BTreeMap<Timestamp, String>>;

fn read(querier: &dyn Querier, matchers: &[Matcher], range: TimeRange) -> Seen {
    let hints = SelectHints { range: Some(range), sorted: true, ..SelectHints::default() };
    let set = querier.select(matchers, &hints).unwrap();
    let mut columns = SeriesColumns::default();
    let mut found = Seen::new();
    let mut last: Option<Labels> = None;
    for index in 0..set.len() {
        let labels = set.labels(index);
        assert!(last.as_ref().is_none_or(|last| last < &labels), "sorted and unique: {last:?} {labels:?}");
        set.read(index, &mut columns).unwrap();
        let ascends = |times: &[Timestamp]| times.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(ascends(&columns.float_times) && ascends(&columns.histogram_times), "times ascend");
        let floats = columns.float_values.iter().map(|v| format!("{:x}", v.to_bits()));
        let mut samples: BTreeMap<_, _> = columns.float_times.iter().copied().zip(floats).collect();
        let histograms = columns.histograms.iter().map(|histogram| seen(histogram));
        samples.extend(columns.histogram_times.iter().copied().zip(histograms));
        assert_eq!(samples.len(), columns.len(), "one sample at a time");
        assert!(samples.keys().all(|t| range.contains(*t)), "within the range");
        if !samples.is_empty() {
            found.insert(labels.metric_name().to_owned(), samples);
        }
        last = Some(labels);
    }
    found
}

/// What a transaction should say of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// It is stored.
    Store,
    /// It is taken, and was stored before.
    Known,
    Refuse(AppendError),
    /// The store may know less of the past than the map does; what it says holds.
    Either,
}

/// The map, and the rules of the documents in their plainest form.
#[derive(Clone, Debug, Default)]
struct Plain {
    content: BTreeMap<usize, BTreeMap<Timestamp, Value>>,
    /// Newest time of each series, deleted or not.
    latest: BTreeMap<usize, Timestamp>,
    /// Newest time of all commits, as the store's bounds see it.
    newest: Option<Timestamp>,
    window: i64,
    /// Deleted samples.
    deleted: Vec<(usize, TimeRange)>,
    /// Samples before may be in blocks.
    compacted: Timestamp,
    /// Samples before may be gone by age.
    kept_from: Timestamp,
    /// Values that were taken for times that had one in a block.
    hidden: Vec<(String, Timestamp, String)>,
}

impl Plain {
    /// Whether a write is one that the documents say everything about.
    fn is_clear(&self, t: Timestamp) -> bool {
        t >= self.kept_from
    }

    fn judge(&self, series: usize, t: Timestamp, value: &Value, newest: Option<Timestamp>) -> Expect {
        let newest = newest.unwrap_or(Timestamp::MIN);
        let in_window = self.window > 0 && t >= newest.saturating_sub(self.window);
        let in_bounds = t >= newest.saturating_sub(3_600_000);
        let latest = self.latest.get(&series).copied();
        let known = self.content.get(&series).and_then(|samples| samples.get(&t));
        let is_vague = t < self.compacted;
        if is_vague && (latest.is_some_and(|latest| t <= latest) || !in_window) {
            return match known {
                Some(known) if known == value => Expect::Known,
                None if in_window => Expect::Store,
                Some(_) | None => Expect::Either,
            };
        }
        match (known, latest) {
            (Some(known), _) if known == value => Expect::Known,
            (Some(_), Some(latest)) if latest == t => Expect::Refuse(AppendError::Duplicate),
            (Some(_), _) if in_window => Expect::Refuse(AppendError::Duplicate),
            (None, latest) if in_window || in_bounds && latest.is_none_or(|latest| t > latest) => {
                Expect::Store
            }
            _ if self.window > 0 => Expect::Refuse(AppendError::TooOld),
            _ if in_bounds => Expect::Refuse(AppendError::OutOfOrder),
            _ => Expect::Refuse(AppendError::OutOfBounds),
        }
    }

    /// Takes note of what was said, which must be what was expected. Answers whether it is sure how many samples are new.
    fn heard(
        &mut self,
        (series, t, value): (usize, Timestamp, Value),
        want: Expect,
        got: Result<(), AppendError>,
    ) -> bool {
        let known = self.content.get(&series).is_some_and(|samples| samples.contains_key(&t));
        match (want, got) {
            (Expect::Store, Ok(())) => self.store(series, t, value),
            // Of two values the first stays.
            (Expect::Either, Ok(())) if !known => self.store(series, t, value),
            // It shows when age has taken the first.
            (Expect::Either, Ok(())) => self.hidden.push((name(series), t, value.seen())),
            (Expect::Either, _) => {}
            // What is in a block only is not looked for: too old, or a duplicate that a reader never sees.
            (Expect::Known, got) => {
                assert!(got.is_ok() || t < self.compacted, "{} {t}: {got:?}", name(series))
            }
            (want, got) => {
                let same = matches!((want, got), (Expect::Refuse(want), Err(got)) if want == got);
                assert!(same, "{} at {t}: expected {want:?}, got {got:?}", name(series));
            }
        }
        !(want == Expect::Either || want == Expect::Known && t < self.compacted)
    }

    fn store(&mut self, series: usize, t: Timestamp, value: Value) {
        self.content.entry(series).or_default().insert(t, value);
        self.newest = self.newest.max(Some(t));
        let latest = self.latest.entry(series).or_insert(t);
        *latest = t.max(*latest);
    }

    fn delete(&mut self, range: TimeRange, takes: fn(usize) -> bool) {
        for series in (0..SERIES).filter(|series| takes(*series)) {
            if let Some(samples) = self.content.get_mut(&series) {
                samples.retain(|t, _| !range.contains(*t));
            }
            // Samples that come later than all there are now are not meant.
            if let Some(latest) = self.latest.get(&series).filter(|latest| **latest >= range.min) {
                self.deleted.push((series, TimeRange::new(range.min, range.max.min(*latest))));
            }
        }
    }

    fn seen(&self, takes: impl Fn(usize) -> bool, range: TimeRange) -> Seen {
        let mut seen = Seen::new();
        for (series, samples) in self.content.iter().filter(|(series, _)| takes(**series)) {
            let samples = samples.iter().filter(|(t, _)| range.contains(**t));
            let samples: BTreeMap<_, _> = samples.map(|(t, value)| (*t, value.seen())).collect();
            if !samples.is_empty() {
                seen.insert(name(*series), samples);
            }
        }
        seen
    }

    fn samples(&self) -> usize {
        self.content.values().map(BTreeMap::len).sum()
    }
}

/// All that must be there is, and nothing that may not; samples before `kept_from` may have gone.
fn assert_same(mut got: Seen, mut want: Seen, plain: &Plain, context: &str) {
    let kept_from = plain.kept_from;
    if kept_from > Timestamp::MIN {
        for (name, samples) in &mut got {
            let of = want.get(name);
            samples.retain(|t, value| {
                let hidden = (name.clone(), *t, value.clone());
                let known = of.and_then(|samples| samples.get(t)) == Some(value);
                let known = known || *t < kept_from && plain.hidden.contains(&hidden);
                assert!(known, "{context}: {name} at {t} was never stored like that");
                *t >= kept_from
            });
        }
        want.values_mut().for_each(|samples| samples.retain(|t, _| *t >= kept_from));
        want.retain(|_, samples| !samples.is_empty());
        got.retain(|_, samples| !samples.is_empty());
    }
    if got == want {
        return;
    }
    let flat = |seen: &Seen| -> BTreeSet<(String, Timestamp, String)> {
        let of = |(name, samples): (&String, &BTreeMap<Timestamp, String>)| {
            samples.iter().map(|(t, value)| (name.clone(), *t, value.clone())).collect::<Vec<_>>()
        };
        seen.iter().flat_map(of).collect()
    };
    let (got, want) = (flat(&got), flat(&want));
    let some = |list: Vec<_>| (list.len(), list.into_iter().take(5).cloned().collect::<Vec<_>>());
    let missing = some(want.difference(&got).collect());
    let surplus = some(got.difference(&want).collect());
    panic!("{context}: of {} samples missing: {missing:?}, not expected: {surplus:?}", want.len());
}

type Layout = (LayoutRef, Vec<Option<LayoutSlot>>);

struct World {
    fs: FaultyFs,
    options: tsdb::DbOptions,
    db: Arc<Db>,
    plain: Plain,
    layouts: [Option<Layout>; 2],
    references: BTreeMap<usize, SeriesRef>,
    views: Vec<(Box<dyn Querier>, Plain)>,
    /// What was given for each series so far, in rows or alone.
    given: BTreeMap<usize, Vec<(Timestamp, SampleValue)>>,
    /// The disk failed since it was opened.
    has_failed: bool,
    compactions: i64,
    clock: Arc<ManualClock>,
}

impl World {
    fn new(setting: &Setting) -> Self {
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

    fn check(&self, context: &str) {
        let view = self.db.querier(TimeRange::ALL).unwrap();
        let got = read(&*view, &selector(0).0, TimeRange::ALL);
        assert_same(got, self.plain.seen(|_| true, TimeRange::ALL), &self.plain, context);
    }

    fn reopen(&mut self, fs: FaultyFs, context: &str) {
        self.views.clear();
        self.has_failed = false;
        self.layouts = [None, None];
        self.references.clear();
        self.fs = fs;
        self.db = open_with(&self.fs, self.options.clone()).unwrap();
        self.check(context);
    }

    fn transaction(&mut self, writes: &[Write], commit: bool) {
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
                Write::Again(s, index, other) => {
                    let given = self.given.get(s).filter(|given| !given.is_empty());
                    let Some((t, value)) = given.map(|given| given[index.index(given.len())].clone()) else {
                        continue;
                    };
                    let value = other.map_or(value, |bits| SampleValue::Float(f64::from_bits(bits)));
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

    fn note(&mut self, write: &Write, base: Timestamp) {
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

    fn sample(
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

    fn layout<'a>(layout: &'a mut Option<Layout>, appender: &mut dyn Appender) -> &'a Layout {
        layout.get_or_insert_with(|| {
            let layout = appender.open_layout();
            let extend = |s| appender.extend_layout(layout, &labels(s)).unwrap();
            (layout, (0..FLOATS).map(extend).map(Some).collect())
        })
    }

    /// A row, or a part of one from a slot on.
    fn row(
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

    fn now(&self) -> Timestamp {
        self.plain.newest.unwrap_or(0)
    }

    fn work(&mut self, work: Work) -> Result<(), StorageError> {
        match work {
            Work::Checkpoint => self.db.checkpoint(),
            Work::Compact => self.compact(0),
            Work::Clean => self.db.clean_tombstones(),
        }
    }

    fn compact(&mut self, ahead_ms: i64) -> Result<(), StorageError> {
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
    fn snapshot(&self, skip_head: bool) {
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

    fn look(&self, view: &dyn Querier, plain: &Plain, context: &str) {
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

#[derive(Clone, Debug)]
struct Setting {
    window: i64,
    sync: bool,
    segment_bytes: u64,
    retention_ms: u64,
    block_ms: u64,
}

fn setting() -> impl Strategy<Value = Setting> {
    let window = prop_oneof![Just(0i64), Just(40), Just(5_000_000), Just(i64::MAX)];
    let retention = prop_oneof![3 => Just(0u64), 1 => Just(200_000), 1 => Just(4_000_000)];
    let segment_bytes = prop_oneof![Just(300u64), Just(1 << 20)];
    let block_ms = prop_oneof![Just(30_000u64), Just(100_000), Just(7_200_000)];
    (window, any::<bool>(), segment_bytes, retention, block_ms).prop_map(
        |(window, sync, segment_bytes, retention_ms, block_ms)| Setting {
            window,
            sync,
            segment_bytes,
            retention_ms,
            block_ms,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::cases(100), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_plain_map(steps in prop::collection::vec(step(), 1..150), setting in setting()) {
        let mut world = World::new(&setting);
        for step in &steps {
            world.step(step);
        }
        world.check("at the end");
        for (view, plain) in std::mem::take(&mut world.views) {
            world.look(&*view, &plain, "a view that was held to the end");
        }
        world.reopen(world.fs.after_kill(), "killed at the end");
    }
}

/// Enough rows and samples to seal windows and chunks, with readers that hold old views across it.
#[test]
fn views_hold_across_sealed_windows_and_checkpoints() {
    let mut world = World::new(&Setting {
        window: 0,
        sync: false,
        segment_bytes: 1 << 14,
        retention_ms: 0,
        block_ms: 1000,
    });
    for round in 0..500u64 {
        if round % 100 == 50 {
            world.step(&Step::View);
        }
        let row = (0..FLOATS).map(|s| Some(((round / (s as u64 + 1)) as f64).to_bits())).collect();
        world.transaction(&[Write::Row(0, 5, row)], true);
        world.transaction(&[Write::Sample(0, 3, round, round % 2 == 0)], true);
        world.transaction(&[Write::Histogram(6, 2, (round % 256) as u8)], true);
        if round % 170 == 0 {
            world.step(&Step::Checkpoint);
        }
    }
    for (view, plain) in std::mem::take(&mut world.views) {
        world.look(&*view, &plain, "a view that was held");
    }
    world.reopen(world.fs.after_kill(), "killed");
}

/// A block is there, and the checkpoint behind it failed: rows that come then are in the log behind what it truncates. (They
/// were lost at the next start.)
#[test]
fn a_row_behind_a_failed_checkpoint_survives() {
    let setting = Setting { window: 0, sync: false, segment_bytes: 300, retention_ms: 0, block_ms: 30_000 };
    for at in 0..60 {
        let mut world = World::new(&setting);
        let steps = [
            Step::Commit(vec![
                Write::Part(0, 3, 3, vec![None, Some(0)]),
                Write::Row(1, 1, vec![None, None, Some(0), None, Some(0), None]),
                Write::Sample(0, 3_000_000, 0, false),
            ]),
            Step::FailIn(Work::Compact, at, false),
            Step::Commit(vec![Write::Row(0, 1, vec![None, None, None, None, Some(0), None])]),
        ];
        for step in &steps {
            world.step(step);
        }
        world.reopen(world.fs.after_kill(), &format!("operation {at} failed, killed"));
    }
}
