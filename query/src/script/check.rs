//! Evaluates a case and compares what comes out.

use std::collections::BTreeMap;

use model::{Annotations, FloatHistogram, Labels, Timestamp};

use super::ScriptValue;
use super::read::{Eval, EvalTime, Pattern};
use super::show::{DiffLine, Outcome, diff, metric, value as show};
use super::store::MemoryStorage;
use crate::exec::{Engine, MatrixSeries, PointValue, QueryOptions, QueryResult, QueryValue, VectorSample};

/// Relative difference up to which floats are equal.
const TOLERANCE: f64 = 1e-6;
/// Distance of steps when an instant is repeated within a range.
const RERUN_STEP_MS: i64 = 60_000;

/// What is wrong with the outcome of a case.
pub(super) struct Mismatch {
    /// The first thing that is.
    pub(super) message: String,
    pub(super) diff: Vec<DiffLine>,
}

/// Plays a case; says what differs.
pub(super) fn check(eval: &Eval, engine: &Engine, storage: &MemoryStorage) -> Result<(), Mismatch> {
    let result = engine.parse(&eval.expr).and_then(|query| {
        let options = QueryOptions::default();
        match eval.time {
            EvalTime::Instant(t) => engine.instant(storage, &query, t, &options),
            EvalTime::Range { start, end, step } => engine.range(storage, &query, start, end, step, &options),
        }
    });
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            let text = error.to_string();
            return expect_failure(eval, &text)
                .map_err(|message| Mismatch { message, diff: diff(eval, &Outcome::Failed(&text)) });
        }
    };
    check_result(eval, &result).map_err(|message| Mismatch {
        message,
        diff: diff(eval, &Outcome::Value(&result.value, &result.annotations)),
    })?;
    if let EvalTime::Instant(t) = eval.time {
        rerun(eval, engine, storage, t)?;
    }
    Ok(())
}

fn check_result(eval: &Eval, result: &QueryResult) -> Result<(), String> {
    if !eval.fail.is_empty() {
        return Err("expected a failure, but it passed".to_owned());
    }
    check_annotations(eval, &result.annotations)?;
    match (&result.value, eval.time) {
        (QueryValue::Scalar(sample), _) => check_scalar(eval, sample.v),
        (QueryValue::String { value, .. }, _) => check_string(eval, value),
        (QueryValue::Vector(samples), _) => check_vector(eval, samples),
        (QueryValue::Matrix(series), EvalTime::Instant(_)) => check_range_vector(eval, series),
        (QueryValue::Matrix(series), EvalTime::Range { start, end, step }) => {
            check_matrix(&eval.series, series, start, end, step)
        }
    }
}

fn expect_failure(eval: &Eval, message: &str) -> Result<(), String> {
    if eval.fail.is_empty() {
        return Err(format!("failed: {message}"));
    }
    match eval.fail.iter().find(|pattern| !pattern.accepts(message)) {
        Some(pattern) => Err(format!("failed otherwise than expected ({pattern:?}): {message}")),
        None => Ok(()),
    }
}

fn check_annotations(eval: &Eval, annotations: &Annotations) -> Result<(), String> {
    let warnings: Vec<&str> = annotations.warnings().collect();
    let infos: Vec<&str> = annotations.infos().collect();
    for (kind, expected, none, got) in
        [("warning", &eval.warn, eval.no_warn, &warnings), ("info", &eval.info, eval.no_info, &infos)]
    {
        if none && !got.is_empty() {
            return Err(format!("unexpected {kind}: {got:?}"));
        }
        for pattern in expected {
            if !got.iter().any(|text| pattern.accepts(text)) {
                return Err(format!("expected {kind} {pattern:?}, got {got:?}"));
            }
        }
        let all_accepted = |text: &&&str| !expected.iter().any(|pattern: &Pattern| pattern.accepts(text));
        if let (false, Some(text)) = (expected.is_empty(), got.iter().find(all_accepted)) {
            return Err(format!("unexpected {kind} {text:?}"));
        }
    }
    Ok(())
}

fn check_scalar(eval: &Eval, got: f64) -> Result<(), String> {
    let expected = eval.scalar.ok_or_else(|| format!("got the scalar {got}"))?;
    if equal(expected, got) { Ok(()) } else { Err(format!("expected {expected}, got {got}")) }
}

fn check_string(eval: &Eval, got: &str) -> Result<(), String> {
    match &eval.string {
        Some(expected) if expected == got => Ok(()),
        other => Err(format!("expected {other:?}, got the string {got:?}")),
    }
}

fn check_vector(eval: &Eval, samples: &[VectorSample]) -> Result<(), String> {
    let mut expected: BTreeMap<&Labels, (usize, Option<&ScriptValue>)> = BTreeMap::new();
    for (position, (labels, values)) in eval.series.iter().enumerate() {
        expected.insert(labels, (position, values.first().and_then(Option::as_ref)));
    }
    if let Some(scalar) = eval.scalar {
        return Err(format!("expected the scalar {scalar}, got a vector"));
    }
    for (position, sample) in samples.iter().enumerate() {
        let Some((wanted, value)) = expected.remove(&sample.labels) else {
            return Err(format!("unexpected series {}: {}", metric(&sample.labels), show(&sample.value)));
        };
        if eval.ordered && wanted != position {
            return Err(format!("{} at position {position} instead of {wanted}", metric(&sample.labels)));
        }
        match value {
            Some(value) => {
                compare(value, &sample.value).map_err(|m| format!("{}: {m}", metric(&sample.labels)))?
            }
            None => return Err(format!("unexpected value of {}", metric(&sample.labels))),
        }
    }
    match expected.into_iter().find(|(_, (_, value))| value.is_some()) {
        Some((labels, _)) => Err(format!("missing series {}", metric(labels))),
        None => Ok(()),
    }
}

fn check_range_vector(eval: &Eval, series: &[MatrixSeries]) -> Result<(), String> {
    let (start, end, step) = eval.range_vector.ok_or("got a range vector")?;
    check_matrix(&eval.series, series, start, end, step)
}

fn points(series: &MatrixSeries) -> BTreeMap<Timestamp, PointValue> {
    let floats = series.floats.iter().map(|sample| (sample.t, PointValue::Float(sample.v)));
    let histograms = series.histograms.iter().map(|(t, h)| (*t, PointValue::Histogram(h.clone())));
    floats.chain(histograms).collect()
}

fn check_matrix(
    expected: &[(Labels, Vec<Option<ScriptValue>>)],
    got: &[MatrixSeries],
    start: Timestamp,
    end: Timestamp,
    step: i64,
) -> Result<(), String> {
    if !got.is_sorted_by(|a, b| a.labels < b.labels) {
        return Err("series are not in order of labels".to_owned());
    }
    let mut by_labels: BTreeMap<&Labels, &MatrixSeries> =
        got.iter().map(|series| (&series.labels, series)).collect();
    for (labels, values) in expected {
        let mut points = match by_labels.remove(labels) {
            Some(series) => points(series),
            None if values.iter().all(Option::is_none) => continue,
            None => return Err(format!("missing series {}", metric(labels))),
        };
        for (index, value) in values.iter().enumerate() {
            let t = start + step * i64::try_from(index).unwrap_or(i64::MAX);
            if t > end {
                return Err(format!("more values than steps for {}", metric(labels)));
            }
            match (value, points.remove(&t)) {
                (None, None) => {}
                (Some(value), Some(point)) => {
                    compare(value, &point).map_err(|m| format!("{} at {t} ms: {m}", metric(labels)))?;
                }
                (Some(_), None) => {
                    return Err(format!("{} at {t} ms: got nothing", metric(labels)));
                }
                (None, Some(point)) => {
                    return Err(format!("{} at {t} ms: unexpected {}", metric(labels), show(&point)));
                }
            }
        }
        if let Some((t, point)) = points.into_iter().next() {
            return Err(format!("{} at {t} ms: unexpected {}", metric(labels), show(&point)));
        }
    }
    match by_labels.into_iter().next() {
        Some((labels, _)) => Err(format!("unexpected series {}", metric(labels))),
        None => Ok(()),
    }
}

/// Evaluates an instant once more as the middle step of a range.
fn rerun(eval: &Eval, engine: &Engine, storage: &MemoryStorage, t: Timestamp) -> Result<(), Mismatch> {
    let depends = ["range()", "start()", "end()", "step()"]
        .iter()
        .any(|call| eval.expr.to_ascii_lowercase().contains(call));
    if depends || eval.string.is_some() || eval.range_vector.is_some() {
        return Ok(());
    }
    let mismatch = |message: String, outcome: &Outcome<'_>| Mismatch {
        message: format!("as step of a range: {message}"),
        diff: diff(eval, outcome),
    };
    let (start, end) = (t - RERUN_STEP_MS, t + RERUN_STEP_MS);
    let result = engine
        .parse(&eval.expr)
        .and_then(|query| engine.range(storage, &query, start, end, RERUN_STEP_MS, &QueryOptions::default()));
    let result = result.map_err(|error| {
        let text = error.to_string();
        mismatch(text.clone(), &Outcome::Failed(&text))
    })?;
    let samples: Vec<VectorSample> = match &result.value {
        QueryValue::Matrix(series) => series
            .iter()
            .filter_map(|series| {
                let value = points(series).remove(&t)?;
                Some(VectorSample { labels: series.labels.clone(), t, value })
            })
            .collect(),
        _ => Vec::new(),
    };
    let checked = match (eval.scalar, &samples[..]) {
        (Some(_), [VectorSample { value: PointValue::Float(value), .. }]) => check_scalar(eval, *value),
        (Some(_), _) => Err("expected a single number".to_owned()),
        (None, samples) => check_vector(&Eval { ordered: false, ..clone_expectation(eval) }, samples),
    };
    checked.map_err(|message| {
        mismatch(message, &Outcome::Value(&QueryValue::Vector(samples), &Annotations::default()))
    })
}

fn clone_expectation(eval: &Eval) -> Eval {
    Eval {
        line: eval.line,
        expr: eval.expr.clone(),
        time: eval.time,
        range_vector: None,
        ordered: eval.ordered,
        fail: Vec::new(),
        warn: Vec::new(),
        info: Vec::new(),
        no_warn: false,
        no_info: false,
        scalar: None,
        string: None,
        series: eval.series.clone(),
    }
}

pub(super) fn compare(expected: &ScriptValue, got: &PointValue) -> Result<(), String> {
    let equal = match (expected, got) {
        (ScriptValue::Float(expected), PointValue::Float(got)) => equal(*expected, *got),
        (ScriptValue::Histogram { histogram, hint_given }, PointValue::Histogram(got)) => {
            histograms_equal(histogram, got)
                && (!hint_given || histogram.counter_reset_hint == got.counter_reset_hint)
        }
        _ => false,
    };
    if equal {
        return Ok(());
    }
    let expected = show(&match expected {
        ScriptValue::Float(value) => PointValue::Float(*value),
        ScriptValue::Histogram { histogram, .. } => PointValue::Histogram(histogram.clone()),
    });
    Err(format!("expected {expected}, got {}", show(got)))
}

/// Prometheus' `almost.Equal`.
fn equal(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

fn histograms_equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let compacted = |h: &FloatHistogram| {
        let mut compact = h.clone();
        compact.compact();
        compact
    };
    let (a, b) = (compacted(a), compacted(b));
    let all = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(*a, *b));
    a.schema == b.schema
        && equal(a.count, b.count)
        && equal(a.sum, b.sum)
        && equal(a.zero_count, b.zero_count)
        && (a.uses_custom_buckets() || equal(a.zero_threshold, b.zero_threshold))
        && all(&a.custom_values, &b.custom_values)
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && all(&a.positive_buckets, &b.positive_buckets)
        && all(&a.negative_buckets, &b.negative_buckets)
}
