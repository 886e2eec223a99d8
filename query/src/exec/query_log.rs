//! The query log: a line of JSON for each query, in the fields and words of Prometheus' (3.x) log.
//!
//! Here lines are made; where they go is up to a [`QueryLog`].

use std::fmt;
use std::time::Duration;

use model::Timestamp;
use serde_json::{Map, Value, json};

use super::date::rfc3339_millis;
use super::error::QueryError;
use super::register::{QueryOrigin, cut};
use super::value::QueryStats;
use crate::parse::QueryTimes;

/// Most bytes of a query's text in a line.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Most bytes of an error's text, which may show a pattern of any length.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// Takes the lines of the query log.
pub trait QueryLog: Send + Sync + fmt::Debug {
    /// Takes a line (without an end of line) and never waits for a disk. False: the line is lost.
    fn write(&self, line: String) -> bool;
}

/// The statistics of a query as `/api/v1/query` shows them with `stats`; `per_step`: with those of each step.
pub fn stats_json(stats: &QueryStats, per_step: bool) -> Value {
    let eval = stats.prepare + stats.inner_eval + stats.result_sort;
    let mut samples = Map::new();
    if let (true, Some(steps)) = (per_step, &stats.samples_per_step) {
        let steps = steps.iter().map(|(t, samples)| json!([timestamp(*t), samples]));
        samples.insert("totalQueryableSamplesPerStep".to_owned(), steps.collect());
    }
    samples.insert("totalQueryableSamples".to_owned(), stats.total_samples.into());
    samples.insert("samplesRead".to_owned(), stats.samples_read.into());
    samples.insert("peakSamples".to_owned(), stats.peak_samples.into());
    json!({
        "timings": {
            "evalTotalTime": seconds(eval),
            "resultSortTime": seconds(stats.result_sort),
            "queryPreparationTime": seconds(stats.prepare),
            "innerEvalTime": seconds(stats.inner_eval),
            "execQueueTime": seconds(stats.queued),
            "execTotalTime": seconds(eval + stats.queued),
        },
        "samples": samples,
    })
}

/// Whole seconds without a point, as Go writes them.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 { duration.as_secs().into() } else { duration.as_secs_f64().into() }
}

fn timestamp(t: Timestamp) -> Value {
    if t % 1000 == 0 { (t / 1000).into() } else { (t as f64 / 1000.0).into() }
}

/// A query that has ended.
#[derive(Clone, Copy)]
pub(crate) struct Ended<'a> {
    pub(crate) now: Timestamp,
    pub(crate) text: &'a str,
    pub(crate) times: &'a QueryTimes,
    pub(crate) origin: &'a QueryOrigin,
    pub(crate) stats: &'a QueryStats,
    pub(crate) error: Option<&'a QueryError>,
}

/// Its line.
pub(crate) fn line(ended: &Ended<'_>) -> String {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
    put("time", rfc3339_millis(ended.now).into());
    put("level", "INFO".into());
    put("msg", "promql query logged".into());
    put(
        "params",
        json!({
            "end": rfc3339_millis(ended.times.end),
            "query": cut(ended.text, TEXT_BYTES_MAX),
            "start": rfc3339_millis(ended.times.start),
            "step": ended.times.step / 1000,
        }),
    );
    if let Some(error) = ended.error {
        put("error", cut(&error.message, ERROR_BYTES_MAX).into());
    }
    put("stats", stats_json(ended.stats, true));
    match ended.origin {
        QueryOrigin::Api(http) | QueryOrigin::Ui(http) => {
            put("httpRequest", json!({"clientIP": http.client, "method": http.method, "path": http.path}))
        }
        QueryOrigin::Rule(rule) => put("ruleGroup", json!({"file": rule.file, "name": rule.group})),
        QueryOrigin::Internal => None,
    };
    Value::Object(line).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::register::{HttpOrigin, RuleOrigin};
    use super::*;

    /// A line of Prometheus 3.5.3, but for the source file, the identifier of a span, and the numbers.
    #[test]
    fn lines_have_prometheus_fields() {
        let stats = QueryStats {
            total_samples: 6,
            samples_read: 7,
            peak_samples: 8,
            samples_per_step: Some(vec![(1_700_001_200_000, 6)]),
            inner_eval: Duration::from_millis(250),
            queued: Duration::from_secs(1),
            ..QueryStats::default()
        };
        let times = QueryTimes { start: 1_700_001_200_000, end: 1_700_001_200_000, step: 0 };
        let origin = QueryOrigin::Api(HttpOrigin {
            client: "127.0.0.1".to_owned(),
            method: "GET".to_owned(),
            path: "/api/v1/query".to_owned(),
            user_agent: "x".to_owned(),
        });
        let error = QueryError::execution("no \"way\"");
        let ended = Ended {
            now: 1_700_000_000_001,
            text: "sum(x_total)",
            times: &times,
            origin: &origin,
            stats: &stats,
            error: Some(&error),
        };
        let parsed: Value = serde_json::from_str(&line(&ended)).unwrap();
        let expected = json!({
            "time": "2023-11-14T22:13:20.001Z",
            "level": "INFO",
            "msg": "promql query logged",
            "params": {
                "end": "2023-11-14T22:33:20.000Z", "query": "sum(x_total)",
                "start": "2023-11-14T22:33:20.000Z", "step": 0
            },
            "error": "no \"way\"",
            "stats": {
                "timings": {
                    "evalTotalTime": 0.25, "resultSortTime": 0, "queryPreparationTime": 0,
                    "innerEvalTime": 0.25, "execQueueTime": 1, "execTotalTime": 1.25
                },
                "samples": {
                    "totalQueryableSamplesPerStep": [[1_700_001_200, 6]],
                    "totalQueryableSamples": 6, "samplesRead": 7, "peakSamples": 8
                }
            },
            "httpRequest": {"clientIP": "127.0.0.1", "method": "GET", "path": "/api/v1/query"}
        });
        assert_eq!(parsed, expected);
        let long = QueryError::execution("e".repeat(10 << 20));
        assert!(line(&Ended { error: Some(&long), ..ended }).len() < 2 * ERROR_BYTES_MAX);
        let rule = RuleOrigin { file: "r.yml".to_owned(), group: "g".to_owned(), rule: "a".to_owned() };
        let ended = Ended { error: None, origin: &QueryOrigin::Rule(rule), ..ended };
        let parsed: Value = serde_json::from_str(&line(&ended)).unwrap();
        assert_eq!(parsed["ruleGroup"], json!({"file": "r.yml", "name": "g"}));
        assert!(parsed.get("error").is_none() && parsed.get("httpRequest").is_none());
    }
}
