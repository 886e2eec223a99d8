//! What may happen to a store, and how it is drawn: steps, writes, values, the series and selectors they are about.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram, Span};
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::SampleValue;
use model::storage::ABSENT_BITS;
use proptest::prelude::*;
use proptest::sample::Index;

/// Series of floats, written one by one and by rows.
pub(crate) const FLOATS: usize = 6;
/// All series; the others are of histograms, and sometimes of floats.
pub(crate) const SERIES: usize = 8;

#[derive(Clone, Debug)]
pub(crate) enum Step {
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
pub(crate) enum Work {
    Checkpoint,
    Compact,
    Clean,
}

#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// Series, time since the newest, value; by reference where one is known.
    Sample(usize, i64, u64, bool),
    Histogram(usize, i64, u8),
    /// At a time at which the series was written before, whatever became of that: the same value again, or another one, which
    /// may be of the other kind. See [`other`].
    Again(usize, Index, Option<u64>),
    /// In layout 0 or 1.
    Row(usize, i64, Vec<Option<u64>>),
    /// The same, from a slot on.
    Part(usize, i64, usize, Vec<Option<u64>>),
}

pub(crate) fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0u8..3).prop_map(|v| f64::from(v).to_bits()),
        1 => Just(model::sample::STALE_NAN_BITS),
        1 => Just((-0.0f64).to_bits()),
        1 => Just(f64::NEG_INFINITY.to_bits()),
        1 => any::<u64>().prop_filter("reserved", |bits| *bits != ABSENT_BITS),
    ]
}

pub(crate) fn values(of: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<Option<u64>>> {
    prop::collection::vec(prop::option::weighted(0.8, value()), of)
}

pub(crate) fn write() -> impl Strategy<Value = Write> {
    let step = || prop_oneof![6 => 1i64..20, 2 => -60i64..1, 1 => 1000i64..9000, 1 => Just(3_000_000i64), 1 => Just(-4_000_000i64)];
    prop_oneof![
        (0..FLOATS, step(), value(), any::<bool>()).prop_map(|(s, t, v, r)| Write::Sample(s, t, v, r)),
        (FLOATS..SERIES, step(), any::<u8>()).prop_map(|(s, t, v)| Write::Histogram(s, t, v)),
        (0..SERIES, any::<Index>(), prop::option::of(value())).prop_map(|(s, i, v)| Write::Again(s, i, v)),
        (0usize..2, step(), values(FLOATS..=FLOATS)).prop_map(|(l, t, row)| Write::Row(l, t, row)),
        (0usize..2, step(), 0..FLOATS, values(1..=FLOATS))
            .prop_map(|(l, t, s, row)| Write::Part(l, t, s, row)),
    ]
}

pub(crate) fn work() -> impl Strategy<Value = Work> {
    prop_oneof![2 => Just(Work::Checkpoint), 3 => Just(Work::Compact), 1 => Just(Work::Clean)]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
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

pub(crate) fn name(series: usize) -> String {
    format!("{}{series}", if series < FLOATS { "s" } else { "h" })
}

pub(crate) fn labels(series: usize) -> Labels {
    let name = name(series);
    let parity = if series.is_multiple_of(2) { "even" } else { "odd" };
    // One without the label.
    if series == 3 {
        return Labels::from_pairs([("__name__", name.as_str()), ("job", "test")]);
    }
    Labels::from_pairs([("__name__", name.as_str()), ("job", "test"), ("parity", parity)])
}

pub(crate) const SELECTORS: usize = 7;

/// A selector, and whether it takes a series.
pub(crate) fn selector(number: usize) -> (Vec<Matcher>, fn(usize) -> bool) {
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
pub(crate) fn histogram(number: u8) -> SampleValue {
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
pub(crate) fn histogram_or_float(series: usize, number: u8) -> SampleValue {
    match number {
        0..=60 if series == SERIES - 1 => SampleValue::Float(f64::from(number)),
        _ => histogram(number),
    }
}

/// The other value of a [`Write::Again`].
pub(crate) fn other(series: usize, bits: u64) -> SampleValue {
    if series < FLOATS {
        return SampleValue::Float(f64::from_bits(bits));
    }
    histogram_or_float(series, (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
}

#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) window: i64,
    pub(crate) sync: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) retention_ms: u64,
    pub(crate) block_ms: u64,
}

pub(crate) fn setting() -> impl Strategy<Value = Setting> {
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
