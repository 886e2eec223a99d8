//! Results in the syntax of scripts, and the difference of a result from what a case expects. Only for people: what counts
//! as a difference is decided in `check`.

use std::collections::BTreeMap;
use std::fmt;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use model::{Annotations, FloatHistogram, Labels, Timestamp};

use super::ScriptValue;
use super::check::compare;
use super::read::{Eval, EvalTime, Pattern};
use crate::exec::{MatrixSeries, PointValue, QueryValue};

/// Lines that a difference may have; the rest is counted.
const LINES_MAX: usize = 100;
/// Buckets that are written out; gaps between populated ones may be millions wide.
const BUCKETS_MAX: i64 = 1000;
/// Steps that a line shows.
const STEPS_MAX: usize = 1000;

/// Which side a line of a difference belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffSide {
    /// Expected and got.
    Both,
    /// Expected only.
    Expected,
    /// Got only.
    Got,
}

/// A line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffLine {
    /// Where it comes from.
    pub side: DiffSide,
    /// The line in the syntax of scripts.
    pub text: String,
}

impl fmt::Display for DiffLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.side {
            DiffSide::Both => ' ',
            DiffSide::Expected => '-',
            DiffSide::Got => '+',
        };
        write!(f, "{sign} {}", self.text)
    }
}

/// What came out of a case.
pub(super) enum Outcome<'a> {
    Failed(&'a str),
    Value(&'a QueryValue, &'a Annotations),
}

/// A series at each step.
type Row<'a> = (&'a Labels, Vec<Option<PointValue>>);

/// The lines of a difference, bounded.
#[derive(Default)]
struct Diff {
    lines: Vec<DiffLine>,
    left_out: usize,
}

impl Diff {
    fn push(&mut self, side: DiffSide, text: String) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(DiffLine { side, text });
        } else {
            self.left_out += 1;
        }
    }

    /// Lines of one side each, or of both if they agree.
    fn pair(&mut self, agree: bool, expected: Option<String>, got: Option<String>) {
        match (expected, got) {
            (Some(expected), Some(_)) if agree => self.push(DiffSide::Both, expected),
            (expected, got) => {
                expected.into_iter().for_each(|text| self.push(DiffSide::Expected, text));
                got.into_iter().for_each(|text| self.push(DiffSide::Got, text));
            }
        }
    }
}

/// What differs between a case and its outcome.
pub(super) fn diff(eval: &Eval, outcome: &Outcome<'_>) -> Vec<DiffLine> {
    let mut diff = Diff::default();
    match outcome {
        Outcome::Failed(message) => {
            failure(eval, message, &mut diff);
            if eval.fail.is_empty() {
                expected_values(eval, &mut diff);
            }
        }
        Outcome::Value(value, annotations) => {
            for pattern in &eval.fail {
                diff.push(DiffSide::Expected, format!("expect fail{}", of_pattern(pattern)));
            }
            let warnings: Vec<&str> = annotations.warnings().collect();
            let infos: Vec<&str> = annotations.infos().collect();
            notes("warn", &eval.warn, eval.no_warn, &warnings, &mut diff);
            notes("info", &eval.info, eval.no_info, &infos, &mut diff);
            values(eval, value, &mut diff);
        }
    }
    if diff.left_out > 0 {
        diff.lines
            .push(DiffLine { side: DiffSide::Both, text: format!("… and {} more lines", diff.left_out) });
    }
    diff.lines
}

fn failure(eval: &Eval, message: &str, diff: &mut Diff) {
    let mut matched = false;
    for pattern in &eval.fail {
        let accepts = pattern.accepts(message);
        matched |= accepts;
        let side = if accepts { DiffSide::Both } else { DiffSide::Expected };
        diff.push(side, format!("expect fail{}", of_pattern(pattern)));
    }
    if !matched || eval.fail.iter().any(|pattern| !pattern.accepts(message)) {
        diff.push(DiffSide::Got, format!("expect fail msg: {message}"));
    }
}

fn of_pattern(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Any => String::new(),
        Pattern::Text(text) => format!(" msg: {text}"),
        Pattern::Regex(regex) => format!(" regex: {regex}"),
    }
}

fn notes(kind: &str, expected: &[Pattern], none: bool, got: &[&str], diff: &mut Diff) {
    for pattern in expected {
        let found = got.iter().any(|text| pattern.accepts(text));
        let side = if found { DiffSide::Both } else { DiffSide::Expected };
        diff.push(side, format!("expect {kind}{}", of_pattern(pattern)));
    }
    if none {
        let side = if got.is_empty() { DiffSide::Both } else { DiffSide::Expected };
        diff.push(side, format!("expect no_{kind}"));
    }
    for text in got.iter().filter(|text| !expected.iter().any(|pattern| pattern.accepts(text))) {
        diff.push(DiffSide::Got, format!("expect {kind} msg: {text}"));
    }
}

/// What a case expects, when there is nothing to compare it with.
fn expected_values(eval: &Eval, diff: &mut Diff) {
    let scalar = eval.scalar.map(float);
    let string = eval.string.as_ref().map(|text| format!("expect string {text:?}"));
    let series = eval.series.iter().map(|(labels, values)| line(labels, &expected_points(values)));
    for text in scalar.into_iter().chain(string).chain(series) {
        diff.push(DiffSide::Expected, text);
    }
}

fn values(eval: &Eval, got: &QueryValue, diff: &mut Diff) {
    match got {
        QueryValue::Scalar(sample) => {
            let agree = eval.scalar.is_some_and(|expected| agree(&ScriptValue::Float(expected), sample.v));
            if !agree {
                expected_values(eval, diff);
            }
            diff.push(if agree { DiffSide::Both } else { DiffSide::Got }, float(sample.v));
        }
        QueryValue::String { value, .. } => {
            let agree = eval.string.as_ref() == Some(value);
            if !agree {
                expected_values(eval, diff);
            }
            let side = if agree { DiffSide::Both } else { DiffSide::Got };
            diff.push(side, format!("expect string {value:?}"));
        }
        QueryValue::Vector(samples) => {
            let rows = samples.iter().map(|sample| (&sample.labels, vec![Some(sample.value.clone())]));
            rows_differ(eval, rows.collect(), diff);
        }
        QueryValue::Matrix(series) => {
            let grid = match (eval.range_vector, eval.time) {
                (Some(grid), _) => grid,
                (None, EvalTime::Range { start, end, step }) => (start, end, step),
                (None, EvalTime::Instant(t)) => (t, t, 1),
            };
            let rows = series.iter().map(|series| (&series.labels, on_grid(series, grid)));
            rows_differ(eval, rows.collect(), diff);
        }
    }
}

fn agree(expected: &ScriptValue, got: f64) -> bool {
    compare(expected, &PointValue::Float(got)).is_ok()
}

/// The points of a series by step; what lies between steps is not shown.
fn on_grid(
    series: &MatrixSeries,
    (start, end, step): (Timestamp, Timestamp, i64),
) -> Vec<Option<PointValue>> {
    let floats = series.floats.iter().map(|sample| (sample.t, PointValue::Float(sample.v)));
    let histograms = series.histograms.iter().map(|(t, h)| (*t, PointValue::Histogram(h.clone())));
    let points: BTreeMap<Timestamp, PointValue> = floats.chain(histograms).collect();
    let steps = (0..).map(|index| start.saturating_add(step.saturating_mul(index)));
    steps.take_while(|t| *t <= end).take(STEPS_MAX).map(|t| points.get(&t).cloned()).collect()
}

fn rows_differ(eval: &Eval, got: Vec<Row<'_>>, diff: &mut Diff) {
    if eval.scalar.is_some() || eval.string.is_some() {
        expected_values(eval, diff);
    }
    if eval.ordered {
        for index in 0..eval.series.len().max(got.len()) {
            let expected = eval.series.get(index);
            let got = got.get(index);
            let same = expected.zip(got).is_some_and(|(a, b)| a.0 == *b.0 && rows_agree(&a.1, &b.1));
            let expected = expected.map(|(labels, values)| line(labels, &expected_points(values)));
            diff.pair(same, expected, got.map(|(labels, points)| line(labels, points)));
        }
        return;
    }
    let mut got: BTreeMap<&Labels, Vec<Option<PointValue>>> = got.into_iter().collect();
    for (labels, values) in &eval.series {
        let points = got.remove(labels);
        let same = match &points {
            Some(points) => rows_agree(values, points),
            None => values.iter().all(Option::is_none),
        };
        if points.is_some() || !same {
            let got = points.map(|points| line(labels, &points));
            diff.pair(same, Some(line(labels, &expected_points(values))), got);
        }
    }
    got.iter().for_each(|(labels, points)| diff.push(DiffSide::Got, line(labels, points)));
}

/// Whether a series came out as expected; steps that are not written are expected to be empty.
fn rows_agree(expected: &[Option<ScriptValue>], got: &[Option<PointValue>]) -> bool {
    (0..expected.len().max(got.len())).all(|step| {
        let expected = expected.get(step).and_then(Option::as_ref);
        match (expected, got.get(step).and_then(Option::as_ref)) {
            (None, None) => true,
            (Some(expected), Some(got)) => compare(expected, got).is_ok(),
            (Some(_), None) | (None, Some(_)) => false,
        }
    })
}

fn expected_points(values: &[Option<ScriptValue>]) -> Vec<Option<PointValue>> {
    let point = |value: &ScriptValue| match value {
        ScriptValue::Float(value) => PointValue::Float(*value),
        ScriptValue::Histogram { histogram, .. } => PointValue::Histogram(histogram.clone()),
    };
    values.iter().take(STEPS_MAX).map(|value| value.as_ref().map(point)).collect()
}

/// A label set as scripts write it, the metric name in front where it may stand there.
pub(super) fn metric(labels: &Labels) -> String {
    let name = labels.metric_name();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return labels.to_string();
    }
    let others = labels.without_name();
    if others.iter().next().is_none() { name.to_owned() } else { format!("{name}{others}") }
}

/// A series as scripts write it; the same value over and over is written once.
fn line(labels: &Labels, points: &[Option<PointValue>]) -> String {
    let mut out = metric(labels);
    let texts: Vec<String> =
        points.iter().map(|point| point.as_ref().map_or("_".to_owned(), value)).collect();
    for run in texts.chunk_by(|a, b| a == b) {
        out.push(' ');
        out.push_str(&run[0]);
        match run.len() {
            1 => {}
            // `_x3` are three gaps, but `1x3` four ones.
            count if run[0] == "_" => out.push_str(&format!("x{count}")),
            count => out.push_str(&format!("x{}", count - 1)),
        }
    }
    out
}

/// A value as scripts write it.
pub(super) fn value(value: &PointValue) -> String {
    match value {
        PointValue::Float(value) => float(*value),
        PointValue::Histogram(histogram) => of_histogram(histogram),
    }
}

fn float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Inf" } else { "-Inf" }.to_owned()
    } else if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

fn of_histogram(histogram: &FloatHistogram) -> String {
    let mut h = histogram.clone();
    h.compact();
    let mut fields = Vec::new();
    if h.schema != 0 {
        fields.push(format!("schema:{}", h.schema));
    }
    for (name, field) in
        [("count", h.count), ("sum", h.sum), ("z_bucket", h.zero_count), ("z_bucket_w", h.zero_threshold)]
    {
        if field != 0.0 && !(h.schema == CUSTOM_BUCKETS_SCHEMA && name == "z_bucket_w") {
            fields.push(format!("{name}:{}", float(field)));
        }
    }
    let list = |values: &[f64]| values.iter().map(|value| float(*value)).collect::<Vec<_>>().join(" ");
    if !h.custom_values.is_empty() {
        fields.push(format!("custom_values:[{}]", list(&h.custom_values)));
    }
    match h.counter_reset_hint {
        CounterResetHint::Unknown => {}
        CounterResetHint::CounterReset => fields.push("counter_reset_hint:reset".to_owned()),
        CounterResetHint::NotCounterReset => fields.push("counter_reset_hint:not_reset".to_owned()),
        CounterResetHint::Gauge => fields.push("counter_reset_hint:gauge".to_owned()),
    }
    for (prefix, spans, buckets) in
        [("", &h.positive_spans, &h.positive_buckets), ("n_", &h.negative_spans, &h.negative_buckets)]
    {
        let Some(first) = spans.first() else { continue };
        let Some(counts) = dense(spans, buckets) else { return h.to_string() };
        if first.offset != 0 {
            fields.push(format!("{prefix}offset:{}", first.offset));
        }
        fields.push(format!("{prefix}buckets:[{}]", list(&counts)));
    }
    format!("{{{{{}}}}}", fields.join(" "))
}

/// The counts from the first to the last populated bucket; `None`: too many.
fn dense(spans: &[Span], buckets: &[f64]) -> Option<Vec<f64>> {
    let width: i64 = spans.iter().skip(1).map(|span| i64::from(span.offset)).sum::<i64>()
        + spans.iter().map(|span| i64::from(span.length)).sum::<i64>();
    if width > BUCKETS_MAX {
        return None;
    }
    let mut out = Vec::new();
    let mut counts = buckets.iter();
    for (index, span) in spans.iter().enumerate() {
        if index > 0 {
            out.extend((0..span.offset).map(|_| 0.0));
        }
        out.extend(counts.by_ref().take(span.length as usize));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::values::sequence;
    use super::*;

    /// What is printed is read again as the same.
    #[test]
    fn values_are_written_as_scripts_have_them() {
        for text in [
            "1 _x2 3x4 NaN Inf -Inf 1e300 -2.5e-7 0.00001 -0",
            "{{count:3 sum:1.5 offset:1 buckets:[1 0 2]}}",
            "{{schema:3 count:7 sum:-4 z_bucket:2 z_bucket_w:0.001 buckets:[1 1] n_offset:-3 n_buckets:[1 0 0 2]}}",
            "{{schema:-53 count:3 sum:9 custom_values:[5 10] counter_reset_hint:gauge buckets:[1 2]}}x2",
            "{{counter_reset_hint:not_reset}} {{counter_reset_hint:reset}}",
        ] {
            let labels = Labels::from_pairs([("__name__", "m"), ("a", "b\"")]);
            let points = expected_points(&sequence(text).unwrap());
            let shown = line(&labels, &points);
            let again = expected_points(&sequence(shown.strip_prefix("m{a=\"b\\\"\"}").unwrap()).unwrap());
            assert_eq!(format!("{points:?}"), format!("{again:?}"), "{text} → {shown}");
        }
    }

    #[test]
    fn wide_gaps_are_not_written_out() {
        let far = FloatHistogram {
            count: 2.0,
            positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1 << 30, length: 1 }],
            positive_buckets: vec![1.0, 1.0],
            ..FloatHistogram::default()
        };
        assert!(of_histogram(&far).len() < 200);
    }
}
