//! `/status/queries`: which queries run, wait, or were slow; and how to stop one.

use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use query::exec::{HttpOrigin, QueryOrigin, RunningQuery, SlowQuery};
use query::parse::QueryTimes;

use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, ErrorType, Success};
use crate::json::{self, Object};
use crate::params::Params;

/// `GET /status/queries`
pub(crate) async fn queries(app: Arc<App>, parts: Parts, _: Params) -> ApiResult {
    let (register, memory) = (parts.engine.register(), parts.engine.memory());
    let mut data = String::with_capacity(1024);
    let mut object = Object::begin(&mut data);
    json::write_list(object.key("running"), &register.running(), write_running);
    json::write_list(object.key("slow"), &register.slow(), write_slow);
    object
        .number("slowThresholdSeconds", register.slow_threshold().as_secs_f64())
        .raw("waiting", app.queries.waiting())
        .raw("memoryBytes", memory.used_bytes())
        .raw("memoryMaxBytes", memory.max_bytes());
    object.end();
    Ok(Success::new(data))
}

/// `POST /status/queries/ID/stop`
pub(crate) fn stop(parts: &Parts, id: &str, origin: &QueryOrigin) -> ApiResult {
    let number: u64 = id.parse().map_err(|_| ApiError::parameter("id", format!("{id:?} is no number")))?;
    let (QueryOrigin::Api(by) | QueryOrigin::Ui(by)) = origin else {
        return Err(ApiError::new(ErrorType::Internal, "who asks is no client"));
    };
    if !parts.engine.register().stop(number, by) {
        return Err(ApiError::new(ErrorType::NotFound, format!("there is no query {number} now")));
    }
    Ok(Success::empty())
}

/// What running and slow queries have in common.
fn write_common(
    object: &mut Object<'_>,
    id: u64,
    text: &str,
    origin: &QueryOrigin,
    times: QueryTimes,
    entered: Timestamp,
) {
    // A text, as numbers beyond 2^53 are none in browsers.
    object.text("id", &id.to_string()).text("query", text).text("origin", origin.as_str());
    match origin {
        QueryOrigin::Api(http) | QueryOrigin::Ui(http) => write_http(object, http),
        QueryOrigin::Rule(rule) => {
            let mut group = Object::begin(object.key("ruleGroup"));
            group.text("file", &rule.file).text("name", &rule.group).text("rule", &rule.rule);
            group.end();
        }
        _ => {}
    }
    let mut params = Object::begin(object.key("params"));
    model::float::write_timestamp(params.key("start"), times.start);
    model::float::write_timestamp(params.key("end"), times.end);
    params.number("step", times.step as f64 / 1000.0);
    params.end();
    model::float::write_timestamp(object.key("entered"), entered);
}

fn write_http(object: &mut Object<'_>, http: &HttpOrigin) {
    let mut request = Object::begin(object.key("httpRequest"));
    request
        .text("clientIP", &http.client)
        .text("method", &http.method)
        .text("path", &http.path)
        .text("userAgent", &http.user_agent);
    request.end();
}

fn seconds(object: &mut Object<'_>, key: &str, duration: Duration) {
    object.number(key, duration.as_secs_f64());
}

fn write_running(out: &mut String, query: &RunningQuery) {
    let mut object = Object::begin(out);
    write_common(&mut object, query.id, &query.text, &query.origin, query.times, query.entered);
    object.text("state", query.state.as_str());
    seconds(&mut object, "elapsedSeconds", query.elapsed);
    seconds(&mut object, "timeoutSeconds", query.timeout);
    object.raw("series", query.series).raw("samples", query.samples).raw("memoryBytes", query.memory_bytes);
    object.end();
}

fn write_slow(out: &mut String, query: &SlowQuery) {
    let mut object = Object::begin(out);
    write_common(&mut object, query.id, &query.text, &query.origin, query.times, query.entered);
    seconds(&mut object, "queuedSeconds", query.queued);
    seconds(&mut object, "elapsedSeconds", query.elapsed);
    object
        .raw("series", query.series)
        .raw("samples", query.samples)
        .raw("peakSamples", query.peak_samples)
        .raw("peakMemoryBytes", query.peak_memory_bytes);
    if let Some((kind, message)) = &query.error {
        object.text("errorType", kind.as_str()).text("error", message);
    }
    object.end();
}
