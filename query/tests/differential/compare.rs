//! One query by both evaluators, and how they may differ; a tally of what was compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use model::{Labels, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{FailurePersistence, FileFailurePersistence, TestRunner};
use query::ast::{AggregateOp, Expr, ExprKind};
use query::exec::{
    Engine, EngineOptions, EvalFeatures, MatrixSeries, PointValue, QueryOptions, QueryValue, VectorSample,
};
use query::parse::ParseOptions;
use query::script::{MemorySample, MemoryStorage};

use crate::reference::{Data, Failure, Hist, Reference, Value};

/// When a query is evaluated, and how. Once, and with no step, it is an instant query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) count: i64,
    /// Whether start timestamps are looked at.
    pub(crate) starts: bool,
}

/// What a comparison saw. Where evaluators differ it fails instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// So many points, and so many annotations.
    Points(usize, usize),
    /// Both say that there is no answer.
    Error,
    /// There is more than one answer.
    Unclear,
}

type Points = BTreeMap<Labels, BTreeMap<Timestamp, Value>>;

/// `a` and `b` are as near as rounding allows.
fn close(a: f64, b: f64, scale: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(scale)
}

fn close_histograms(a: &Hist, b: &Hist) -> bool {
    let scale = a.count.abs().max(1.0);
    let near = |a: f64, b: f64| close(a, b, scale);
    let at = |buckets: &BTreeMap<i32, f64>, index: &i32| buckets.get(index).copied().unwrap_or(0.0);
    (a.hint, a.schema, &a.bounds) == (b.hint, b.schema, &b.bounds)
        && near(a.threshold, b.threshold)
        && near(a.zero, b.zero)
        && near(a.count, b.count)
        && close(a.sum, b.sum, 100.0 * scale)
        // Where counts are no numbers, empty buckets may have become none either, or be left out.
        && (a.count.is_nan() || a.indices(b).iter().all(|index| {
            near(at(&a.positive, index), at(&b.positive, index))
                && near(at(&a.negative, index), at(&b.negative, index))
        }))
}

fn agree(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => close(*a, *b, 1.0),
        (Value::Histogram(a), Value::Histogram(b)) => close_histograms(a, b),
        _ => false,
    }
}

pub(crate) fn engine(starts: bool) -> Engine {
    let features = EvalFeatures { use_start_timestamps: starts, ..EvalFeatures::default() };
    Engine::new(EngineOptions { parse: ParseOptions::all(), features, ..EngineOptions::default() })
}

pub(crate) fn stored(data: &Data) -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    for (labels, samples) in data {
        for sample in samples {
            let start = sample.start;
            let kept = match &sample.value {
                Value::Float(value) => MemorySample::Float { value: *value, start },
                Value::Histogram(h) => MemorySample::Histogram { histogram: Arc::new(h.written()), start },
            };
            storage.add(labels, sample.t, kept);
        }
    }
    storage
}

/// Whether buckets may be left out of what is read.
fn is_thin(text: &str) -> bool {
    ["histogram_count", "histogram_sum", "histogram_avg"].iter().any(|name| text.contains(name))
}

/// Annotations that both must give alike. Those of numbers about buckets are not in the reference; sorting speaks of the
/// query's outside only. Under `histogram_count` and its like, hints and bounds are found on the way, as far as a store
/// shows them.
fn comparable(text: &str, notes: impl Iterator<Item = String>) -> BTreeSet<String> {
    let thin = is_thin(text);
    notes
        .filter(|note| !note.contains("needed to be fixed for monotonicity"))
        .filter(|note| !note.contains("sort is ineffective"))
        .filter(|note| {
            !(thin
                && (note.contains("conflicting counter resets")
                    || note.contains("mismatched custom buckets")))
        })
        .collect()
}

/// Whether the engine may pass over samples of series: of those that meet no other in a join, or that are in nobody's
/// choice.
fn passes_over(expr: &Expr) -> bool {
    let none = |param: &Option<Box<Expr>>| matches!(param.as_deref().map(|param| &param.kind), Some(ExprKind::Number(k)) if k.value < 1.0);
    let here = match &expr.kind {
        ExprKind::Binary(binary) => binary.matching.is_some(),
        ExprKind::Aggregate(aggregate) => match aggregate.op {
            AggregateOp::Limitk | AggregateOp::LimitRatio => true,
            AggregateOp::Topk | AggregateOp::Bottomk => none(&aggregate.param),
            _ => false,
        },
        _ => false,
    };
    here || expr.children().into_iter().any(passes_over)
}

fn points(series: MatrixSeries) -> (Labels, BTreeMap<Timestamp, Value>) {
    let floats = series.floats.into_iter().map(|s| (s.t, Value::Float(s.v)));
    let histograms = series.histograms.into_iter().map(|(t, h)| (t, Value::Histogram(Hist::read(&h))));
    (series.labels, floats.chain(histograms).collect())
}

fn point(sample: VectorSample) -> (Labels, BTreeMap<Timestamp, Value>) {
    let value = match sample.value {
        PointValue::Float(v) => Value::Float(v),
        PointValue::Histogram(h) => Value::Histogram(Hist::read(&h)),
    };
    (sample.labels, [(sample.t, value)].into())
}

/// Compares the answers to a query.
pub(crate) fn compare(text: &str, data: &Data, setting: Setting) -> Result<Seen, TestCaseError> {
    let Setting { start, step, count, starts } = setting;
    let engine = engine(starts);
    let query = engine.parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let end = start + step * (count - 1);
    let mut reference = Reference::new(data, start, end, step);
    reference.starts = starts;
    reference.thin = is_thin(text);
    let mut expected = Some(Points::new());
    for t in (0..count).map(|i| start + i * step) {
        match (reference.vector(query.expr(), t), &mut expected) {
            (Err(Failure::Unclear), _) => return Ok(Seen::Unclear),
            (Ok(vector), Some(points)) => {
                vector.into_iter().for_each(|(labels, v)| {
                    points.entry(labels).or_default().insert(t, v);
                });
            }
            _ => expected = None,
        }
    }
    let (storage, options) = (stored(data), QueryOptions::default());
    let got = match step {
        0 => engine.instant(&storage, &query, start, &options),
        _ => engine.range(&storage, &query, start, end, step, &options),
    };
    let (got, expected) = match (got, expected) {
        (Err(_), None) => return Ok(Seen::Error),
        (Ok(result), Some(expected)) => (result, expected),
        // Range functions refuse series that become equal even when they share no step.
        (Err(error), Some(_)) => {
            prop_assert!(error.to_string().contains("same labelset"), "{}: {}", text, error);
            return Ok(Seen::Error);
        }
        (Ok(_), None) => {
            return Err(TestCaseError::fail(format!("{text}: the reference fails, the engine does not")));
        }
    };
    let notes = got.annotations.warnings().chain(got.annotations.infos()).map(str::to_owned);
    let notes = comparable(text, notes);
    let got: Points = match got.value {
        QueryValue::Matrix(series) => series.into_iter().map(points).collect(),
        QueryValue::Vector(samples) => samples.into_iter().map(point).collect(),
        other => return Err(TestCaseError::fail(format!("{text}: neither matrix nor vector: {other:?}"))),
    };
    let names = |points: &Points| points.keys().cloned().collect::<Vec<_>>();
    prop_assert_eq!(names(&got), names(&expected), "series of {}", text);
    let mut total = 0;
    for (labels, points) in &expected {
        let other = &got[labels];
        let times = |points: &BTreeMap<Timestamp, Value>| points.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(times(other), times(points), "steps of {} {}", text, labels);
        for (t, value) in points {
            total += 1;
            let other = &other[t];
            prop_assert!(agree(value, other), "{text} {labels} at {t}:\n expected {value:?}\n got {other:?}");
        }
    }
    let wanted = comparable(text, reference.texts().into_iter());
    if passes_over(query.expr()) {
        // What samples that nobody needs would say is not said.
        let placeless = |notes: &BTreeSet<String>| -> BTreeSet<String> {
            notes.iter().map(|note| note.split(" (1:").next().unwrap_or_default().to_owned()).collect()
        };
        let (notes, wanted) = (placeless(&notes), placeless(&wanted));
        let missing = notes.difference(&wanted).collect::<Vec<_>>();
        prop_assert!(missing.is_empty(), "{missing:?} is not expected of {text}: {wanted:?}");
    } else {
        prop_assert_eq!(&notes, &wanted, "annotations of {}", text);
    }
    Ok(Seen::Points(total, notes.len()))
}

/// The short form of CI; `PROPTEST_CASES` is for the long one. A failure names its seed and keeps it beside the tests.
pub(crate) fn cases(short: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(short);
    ProptestConfig { failure_persistence: kept(), ..ProptestConfig::with_cases(cases) }
}

fn kept() -> Option<Box<dyn FailurePersistence>> {
    Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions")))
}

#[derive(Debug, Default)]
struct Tally {
    cases: u32,
    compared: u32,
    annotated: u32,
    errors: u32,
    unclear: u32,
    /// Compared cases in which a word occurs.
    words: BTreeMap<String, u32>,
}

/// Runs generated cases, and sees to it that enough of them had points, with each of `words` among them.
pub(crate) fn run(
    short: u32,
    file: &'static str,
    words: &[&str],
    strategy: impl Strategy<Value = (String, Data, Setting)>,
) {
    let config = ProptestConfig { source_file: Some(file), ..cases(short) };
    let wanted = config.cases;
    let tally = Mutex::new(Tally::default());
    let outcome = TestRunner::new(config).run(&strategy, |(text, data, setting)| {
        let seen = compare(&text, &data, setting)?;
        let mut tally = tally.lock().expect("nobody panics");
        tally.cases += 1;
        match seen {
            Seen::Error => tally.errors += 1,
            Seen::Unclear => tally.unclear += 1,
            Seen::Points(0, 0) => {}
            Seen::Points(_, notes) => {
                tally.compared += 1;
                tally.annotated += u32::from(notes > 0);
                for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                    *tally.words.entry(word.to_owned()).or_default() += 1;
                }
                for op in ["</", ">/", "==", "!=", " + ", " - ", " * ", " / "] {
                    *tally.words.entry(op.to_owned()).or_default() += u32::from(text.contains(op));
                }
            }
        }
        Ok(())
    });
    let tally = tally.into_inner().expect("nobody panics");
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(tally.compared * 2 >= wanted, "half of the cases have points: {tally:?}");
    // A quarter, and some more where chance weighs.
    let few = wanted / 4 + 10;
    assert!(tally.errors <= few && tally.unclear <= few, "few are errors or unclear: {tally:?}");
    // Most words come in a short run; in a long one each does, once in a thousand cases.
    let (least, lacking) = if wanted < 1000 { (1, words.len() / 3) } else { (wanted / 1000, 0) };
    let missing: Vec<_> =
        words.iter().filter(|word| tally.words.get(**word).copied().unwrap_or(0) < least).collect();
    assert!(missing.len() <= lacking, "{missing:?} come less than {least} times: {tally:?}");
}
