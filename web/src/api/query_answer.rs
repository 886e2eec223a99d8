//! The answer to a query as text, written piece by piece: it may stop after any point and go on later, and what it has
//! written it no longer holds.

use std::sync::Arc;
use std::vec::IntoIter;

use model::{Annotations, FloatHistogram, Sample, Timestamp};
use query::exec::{MatrixSeries, MemoryHold, PointValue, QueryResult, QueryValue, VectorSample, stats_json};

use crate::envelope::{Success, write_annotations};
use crate::json::{self, Object};
use crate::stream::{CHUNK_BYTES, Chunks, IN_FLIGHT_BYTES, Large};

/// Warning when `limit` cut the answer.
const TRUNCATED: &str = "results truncated due to limit";

/// An answer that is being written.
pub(super) struct Answer {
    head: &'static str,
    rest: Rest,
    /// What follows the result: statistics, and what annotations say.
    tail: String,
    /// Counts what is left of the result.
    memory: Option<Arc<MemoryHold>>,
    is_begun: bool,
}

/// What is still to be written of the result.
enum Rest {
    /// Short, and written already.
    Whole(String),
    Vector(Items<VectorSample>),
    Matrix(Items<MatrixSeries>, Option<OpenSeries>),
    Ended,
}

/// What is left of a list.
struct Items<T> {
    left: IntoIter<T>,
    is_first: bool,
}

impl<T> Items<T> {
    fn new(items: Vec<T>) -> Self {
        Self { left: items.into_iter(), is_first: true }
    }

    /// The next one, with a comma before it where there must be one.
    fn next(&mut self, out: &mut String) -> Option<T> {
        let item = self.left.next()?;
        if !std::mem::take(&mut self.is_first) {
            out.push(',');
        }
        Some(item)
    }
}

/// A series of which the points are being written.
struct OpenSeries {
    floats: Option<Items<Sample>>,
    histograms: Option<Items<(Timestamp, Arc<FloatHistogram>)>>,
    /// What is free once it is done.
    bytes: u64,
}

/// The answer: whole when it is short, otherwise its beginning, and what writes the rest. `stats`: with statistics, and with
/// those of each step if so.
pub(super) fn answer(mut result: QueryResult, limit: usize, stats: Option<bool>) -> Success {
    if limit > 0 && truncate(&mut result, limit) {
        result.annotations.warn(TRUNCATED);
    }
    let mut answer = Answer::new(result, stats);
    let mut text = String::with_capacity(256);
    text.push_str(Success::HEAD);
    if !answer.fill(&mut text, CHUNK_BYTES) {
        return Success::whole(text);
    }
    // What is on its way counts, too, but is no reason to refuse what has been worked out.
    if let Some(memory) = answer.memory.as_mut().and_then(Arc::get_mut) {
        let _ = memory.grow_to(memory.bytes().saturating_add(IN_FLIGHT_BYTES as u64));
    }
    Success::large(Large { first: text, more: Box::new(answer) })
}

/// Cuts a vector or matrix to `limit` series; says whether something was cut.
fn truncate(result: &mut QueryResult, limit: usize) -> bool {
    let freed = match &mut result.value {
        QueryValue::Vector(samples) if samples.len() > limit => {
            let freed = samples[limit..].iter().map(VectorSample::size_bytes).sum();
            samples.truncate(limit);
            freed
        }
        QueryValue::Matrix(series) if series.len() > limit => {
            let freed = series[limit..].iter().map(MatrixSeries::size_bytes).sum();
            series.truncate(limit);
            freed
        }
        _ => return false,
    };
    release(&mut result.memory, freed);
    true
}

/// Gives back bytes of what was written or cut.
fn release(memory: &mut Option<Arc<MemoryHold>>, freed: u64) {
    if let Some(memory) = memory.as_mut().and_then(Arc::get_mut) {
        memory.shrink_to(memory.bytes().saturating_sub(freed));
    }
}

impl Answer {
    fn new(result: QueryResult, stats: Option<bool>) -> Self {
        let QueryResult { value, annotations, stats: taken, memory } = result;
        let head = value.value_type().as_str();
        let mut tail = String::new();
        if let Some(per_step) = stats {
            tail.push_str(",\"stats\":");
            tail.push_str(&stats_json(&taken, per_step).to_string());
        }
        tail.push('}');
        end(&mut tail, &annotations);
        let rest = match value {
            // Scalars never have an exponent: Prometheus writes them by other means than samples.
            QueryValue::Scalar(sample) => {
                let mut out = String::from("[");
                model::float::write_timestamp(&mut out, sample.t);
                out.push_str(",\"");
                model::float::write_fixed(&mut out, sample.v);
                out.push_str("\"]");
                Rest::Whole(out)
            }
            QueryValue::String { t, value } => {
                let mut out = String::from("[");
                model::float::write_timestamp(&mut out, t);
                out.push(',');
                json::write_string(&mut out, &value);
                out.push(']');
                Rest::Whole(out)
            }
            QueryValue::Vector(samples) => Rest::Vector(Items::new(samples)),
            QueryValue::Matrix(series) => Rest::Matrix(Items::new(series), None),
            // The enum may grow; an unknown kind has no points.
            _ => Rest::Whole("[]".to_owned()),
        };
        Self { head, rest, tail, memory, is_begun: false }
    }

    fn begin(&mut self, out: &mut String) {
        out.push_str("{\"resultType\":\"");
        out.push_str(self.head);
        out.push_str("\",\"result\":");
        match &mut self.rest {
            Rest::Whole(text) => {
                out.push_str(text);
                self.rest = Rest::Ended;
            }
            Rest::Vector(_) | Rest::Matrix(..) => out.push('['),
            Rest::Ended => {}
        }
        self.is_begun = true;
    }
}

/// The end of an answer after its data.
fn end(out: &mut String, annotations: &Annotations) {
    write_annotations(out, annotations);
    out.push('}');
}

impl Chunks for Answer {
    fn fill(&mut self, out: &mut String, room: usize) -> bool {
        if !self.is_begun {
            self.begin(out);
        }
        let mut freed = 0;
        let has_more = match &mut self.rest {
            Rest::Whole(_) | Rest::Ended => false,
            Rest::Vector(samples) => loop {
                if out.len() >= room {
                    break true;
                }
                let Some(sample) = samples.next(out) else { break false };
                freed += sample.size_bytes();
                write_sample(out, &sample);
            },
            Rest::Matrix(series, open) => loop {
                if let Some(now) = open {
                    if now.fill(out, room) {
                        break true;
                    }
                    freed += now.bytes;
                    *open = None;
                }
                if out.len() >= room {
                    break true;
                }
                let Some(next) = series.next(out) else { break false };
                *open = Some(OpenSeries::begin(next, out));
            },
        };
        if has_more {
            release(&mut self.memory, freed);
            return true;
        }
        if !matches!(self.rest, Rest::Ended) {
            out.push(']');
            self.rest = Rest::Ended;
        }
        out.push_str(&std::mem::take(&mut self.tail));
        self.memory = None;
        false
    }
}

impl OpenSeries {
    fn begin(series: MatrixSeries, out: &mut String) -> Self {
        let bytes = series.size_bytes();
        let MatrixSeries { labels, floats, histograms } = series;
        out.push_str("{\"metric\":");
        json::write_labels(out, &labels);
        let floats = (!floats.is_empty()).then(|| {
            out.push_str(",\"values\":[");
            Items::new(floats)
        });
        Self { floats, histograms: (!histograms.is_empty()).then(|| Items::new(histograms)), bytes }
    }

    /// Writes points; whether there is more to come.
    fn fill(&mut self, out: &mut String, room: usize) -> bool {
        if let Some(points) = &mut self.floats {
            loop {
                if out.len() >= room {
                    return true;
                }
                let Some(point) = points.next(out) else { break };
                json::write_point(out, point.t, point.v);
            }
            out.push(']');
            self.floats = None;
        }
        if let Some(points) = &mut self.histograms {
            if points.is_first {
                out.push_str(",\"histograms\":[");
            }
            while let Some((t, histogram)) = points.next(out) {
                json::write_histogram_point(out, t, &histogram);
                // After a point, as what stands before the first is written once.
                if out.len() >= room {
                    return true;
                }
            }
            out.push(']');
            self.histograms = None;
        }
        out.push('}');
        false
    }
}

fn write_sample(out: &mut String, sample: &VectorSample) {
    let mut object = Object::begin(out);
    object.labels("metric", &sample.labels);
    match &sample.value {
        PointValue::Float(v) => json::write_point(object.key("value"), sample.t, *v),
        PointValue::Histogram(h) => json::write_histogram_point(object.key("histogram"), sample.t, h),
    }
    object.end();
}

#[cfg(test)]
mod tests {
    use model::Labels;
    use query::exec::{MemoryBudget, QueryStats};
    use serde_json::{Value, json};

    use super::*;

    fn labels(i: usize) -> Labels {
        Labels::from_pairs([("__name__", "x".to_owned()), ("i", i.to_string())])
    }

    fn histogram(count: f64) -> Arc<FloatHistogram> {
        Arc::new(FloatHistogram { count, sum: 2.5, ..FloatHistogram::default() })
    }

    fn result(value: QueryValue) -> QueryResult {
        let mut annotations = Annotations::default();
        annotations.warn("w");
        QueryResult { value, annotations, stats: QueryStats::default(), memory: None }
    }

    fn matrix() -> QueryValue {
        let series = (0..5).map(|i| MatrixSeries {
            labels: labels(i),
            floats: (0..i as i64 * 3).map(|k| Sample { t: k * 1000, v: k as f64 / 3.0 }).collect(),
            histograms: (0..(5 - i as i64) % 4).map(|k| (k * 1500, histogram(k as f64))).collect(),
        });
        QueryValue::Matrix(series.collect())
    }

    fn vector() -> QueryValue {
        let value =
            |i| if i % 2 == 0 { PointValue::Float(1.5) } else { PointValue::Histogram(histogram(3.0)) };
        QueryValue::Vector(
            (0..5).map(|i| VectorSample { labels: labels(i), t: 1, value: value(i) }).collect(),
        )
    }

    fn written(value: QueryValue, room: usize) -> String {
        let mut answer = Answer::new(result(value), Some(false));
        let (mut out, mut chunk) = (String::new(), String::from("{\"data\":"));
        while answer.fill(&mut chunk, room) {
            assert!(chunk.len() >= room && chunk.len() < room + 200, "{chunk}");
            out.push_str(&std::mem::take(&mut chunk));
        }
        out + &chunk
    }

    #[test]
    fn pieces_of_any_size_make_the_same_answer() {
        for value in [
            matrix(),
            vector(),
            QueryValue::Matrix(Vec::new()),
            QueryValue::Vector(Vec::new()),
            QueryValue::Scalar(Sample { t: 1, v: 1e30 }),
            QueryValue::String { t: 1500, value: "a\"b".to_owned() },
        ] {
            let whole = written(value.clone(), usize::MAX);
            let parsed: Value =
                serde_json::from_str(&whole).unwrap_or_else(|error| panic!("{error}: {whole}"));
            assert_eq!(parsed["warnings"], json!(["w"]));
            assert!(parsed["data"]["stats"]["samples"].is_object());
            for room in [1, 2, 7, 40, 100, 333] {
                assert_eq!(written(value.clone(), room), whole, "{room}");
            }
        }
    }

    #[test]
    fn answers_have_prometheus_form() {
        let parsed: Value = serde_json::from_str(&written(matrix(), 50)).unwrap();
        assert_eq!(parsed["data"]["resultType"], "matrix");
        let series = &parsed["data"]["result"][2];
        assert_eq!(series["metric"], json!({"__name__": "x", "i": "2"}));
        assert_eq!(series["values"][1], json!([1, "0.3333333333333333"]));
        assert_eq!(series["histograms"][1], json!([1.5, {"count": "1", "sum": "2.5"}]));
        assert_eq!(parsed["data"]["result"][0]["values"], Value::Null);
        let parsed: Value = serde_json::from_str(&written(vector(), 50)).unwrap();
        assert_eq!(parsed["data"]["result"][0]["value"], json!([0.001, "1.5"]));
        assert_eq!(parsed["data"]["result"][1]["histogram"][1]["count"], "3");
        let text = written(QueryValue::Scalar(Sample { t: 1, v: 1e22 }), 1);
        assert!(
            text.contains(r#""resultType":"scalar","result":[0.001,"10000000000000000000000"]"#),
            "{text}"
        );
    }

    /// Series of which the answer was written, or cut, are no longer held.
    #[test]
    fn memory_goes_down_as_series_are_written() {
        let budget = MemoryBudget::new(100 << 20);
        let series: Vec<MatrixSeries> = (0..100)
            .map(|i| MatrixSeries {
                labels: labels(i),
                floats: vec![Sample { t: 0, v: 1.0 / 3.0 }; 1000],
                histograms: Vec::new(),
            })
            .collect();
        let bytes = series.iter().map(MatrixSeries::size_bytes).sum();
        let held = || budget.hold(bytes).map(Arc::new);
        let mut one = result(QueryValue::Matrix(series));
        one.memory = held();
        let mut answer = Answer::new(one.clone(), None);
        drop(one.memory.take());
        let mut out = String::new();
        let mut before = budget.used_bytes();
        assert_eq!(before, bytes);
        let mut pieces = 0;
        loop {
            out.clear();
            let more = answer.fill(&mut out, 20_000);
            let now = budget.used_bytes();
            assert!(now <= before);
            before = now;
            pieces += 1;
            if pieces == 50 {
                assert!((bytes / 4..bytes * 3 / 4).contains(&now), "{now} of {bytes}");
            }
            if !more {
                break;
            }
        }
        assert!(pieces > 60 && budget.used_bytes() == 0);
        // Cut, and then small enough for one piece.
        one.memory = held();
        assert!(truncate(&mut one, 25));
        assert!((bytes / 4 - 100..=bytes / 4).contains(&budget.used_bytes()), "{}", budget.used_bytes());
        one.memory = None;
        assert!(!truncate(&mut one, 25));
    }
}
