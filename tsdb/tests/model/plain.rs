//! The plain map: what a store must have, what it should say of a write, and the comparison with what is read.

use std::collections::{BTreeMap, BTreeSet};

use crate::steps::{SERIES, name};
use model::Timestamp;
use model::histogram::{CounterResetHint, FloatHistogram};
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::{SampleValue, TimeRange};
use model::storage::{AppendError, Querier, SelectHints, SeriesColumns};

/// What a reader sees of a histogram. Hints of counters depend on what came before, and are no part of it.
pub(crate) fn seen(histogram: &FloatHistogram) -> String {
    let mut histogram = histogram.clone();
    if histogram.counter_reset_hint != CounterResetHint::Gauge {
        histogram.counter_reset_hint = CounterResetHint::Unknown;
    }
    format!("{:x} {histogram:?}", histogram.sum.to_bits())
}

/// A sample as it was given and as it is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Float(u64),
    Histogram { given: String, seen: String },
}

impl Value {
    pub(crate) fn of(value: &SampleValue) -> Self {
        match value {
            SampleValue::Float(v) => Self::Float(v.to_bits()),
            SampleValue::Histogram(h) => {
                Self::Histogram { given: format!("{h:?}"), seen: seen(&h.to_float()) }
            }
            SampleValue::FloatHistogram(h) => Self::Histogram { given: format!("{h:?}"), seen: seen(h) },
        }
    }

    pub(crate) fn seen(&self) -> String {
        match self {
            Self::Float(bits) => format!("{bits:x}"),
            Self::Histogram { seen, .. } => seen.clone(),
        }
    }
}

/// What a reader sees: texts of samples by time, by series.
pub(crate) type Seen = BTreeMap<String, BTreeMap<Timestamp, String>>;

pub(crate) fn read(querier: &dyn Querier, matchers: &[Matcher], range: TimeRange) -> Seen {
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
pub(crate) enum Expect {
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
pub(crate) struct Plain {
    pub(crate) content: BTreeMap<usize, BTreeMap<Timestamp, Value>>,
    /// Newest time of each series, deleted or not.
    pub(crate) latest: BTreeMap<usize, Timestamp>,
    /// Samples that came out of order.
    pub(crate) late: BTreeSet<(usize, Timestamp)>,
    /// Newest time of all commits, as the store's bounds see it.
    pub(crate) newest: Option<Timestamp>,
    pub(crate) window: i64,
    /// Deleted samples.
    pub(crate) deleted: Vec<(usize, TimeRange)>,
    /// Samples before may be in blocks.
    pub(crate) compacted: Timestamp,
    /// Samples before may be gone by age.
    pub(crate) kept_from: Timestamp,
    /// Values that were taken for times that had one in a block.
    pub(crate) hidden: Vec<(String, Timestamp, String)>,
}

impl Plain {
    /// Whether a write is one that the documents say everything about.
    pub(crate) fn is_clear(&self, t: Timestamp) -> bool {
        t >= self.kept_from
    }

    pub(crate) fn judge(
        &self,
        series: usize,
        t: Timestamp,
        value: &Value,
        newest: Option<Timestamp>,
    ) -> Expect {
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
            // One that came again after its deletion is a late one.
            (Some(_), Some(latest)) if latest == t && !self.late.contains(&(series, t)) => {
                Expect::Refuse(AppendError::Duplicate)
            }
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
    pub(crate) fn heard(
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

    pub(crate) fn store(&mut self, series: usize, t: Timestamp, value: Value) {
        self.content.entry(series).or_default().insert(t, value);
        self.newest = self.newest.max(Some(t));
        if self.latest.get(&series).is_some_and(|latest| t <= *latest) {
            self.late.insert((series, t));
        }
        let latest = self.latest.entry(series).or_insert(t);
        *latest = t.max(*latest);
    }

    pub(crate) fn delete(&mut self, range: TimeRange, takes: fn(usize) -> bool) {
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

    pub(crate) fn seen(&self, takes: impl Fn(usize) -> bool, range: TimeRange) -> Seen {
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

    pub(crate) fn samples(&self) -> usize {
        self.content.values().map(BTreeMap::len).sum()
    }
}

/// All that must be there is, and nothing that may not; samples before `kept_from` may have gone.
pub(crate) fn assert_same(mut got: Seen, mut want: Seen, plain: &Plain, context: &str) {
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
