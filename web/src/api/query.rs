//! `/query`, `/query_range`, `/query_exemplars`, `/format_query`, `/parse_query`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Matcher, TimeRange};
use query::exec::{
    MatrixSeries, ParsedQuery, PointValue, QueryError, QueryErrorKind, QueryOptions, QueryResult, QueryStats,
    QueryValue,
};

use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, ErrorType, Success};
use crate::json::{self, Object};
use crate::params::Params;

/// Most points per series of a range query (Prometheus' bound).
const POINTS_MAX: i64 = 11_000;
/// Warning when `limit` cut the answer.
const TRUNCATED: &str = "results truncated due to limit";

/// `/query`
pub(crate) async fn instant(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let limit = params.limit("limit")?;
    let t = params.time("time", app.clock.now_ms())?;
    let common = Common::new(&app, &params)?;
    run(app, parts, params, common, limit, move |engine, storage, expr, options| {
        engine.instant(storage, expr, t, options)
    })
    .await
}

/// `/query_range`
pub(crate) async fn range(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let limit = params.limit("limit")?;
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_text = params.get("step").unwrap_or_default();
    let step =
        crate::params::parse_duration_ms(step_text).map_err(|error| ApiError::parameter("step", error))?;
    if step <= 0 {
        let text = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", text));
    }
    if end.saturating_sub(start) / step > POINTS_MAX {
        let text = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(ApiError::bad_data(text));
    }
    let common = Common::new(&app, &params)?;
    run(app, parts, params, common, limit, move |engine, storage, expr, options| {
        engine.range(storage, expr, start, end, step, options)
    })
    .await
}

/// What both kinds of query read from their parameters.
struct Common {
    timeout: Duration,
    lookback_ms: Option<i64>,
    stats: bool,
}

impl Common {
    fn new(app: &App, params: &Params) -> Result<Self, ApiError> {
        let timeout = params.timeout(app.options.query_timeout)?;
        let lookback_ms =
            params.duration_ms("lookback_delta").map_err(|error| {
                ApiError::bad_data(error.text.replace(
                    "invalid parameter \"lookback_delta\": ",
                    "error parsing lookback delta duration: ",
                ))
            })?;
        Ok(Self {
            timeout,
            lookback_ms: lookback_ms.filter(|ms| *ms > 0),
            stats: params.get("stats").is_some(),
        })
    }
}

/// Parses the query, evaluates it on the pool, writes the answer. When the client goes, evaluation is told to stop.
async fn run(
    app: Arc<App>,
    parts: Parts,
    params: Params,
    common: Common,
    limit: usize,
    evaluate: impl FnOnce(
        &query::exec::Engine,
        &dyn model::storage::Queryable,
        &ParsedQuery,
        &QueryOptions,
    ) -> Result<QueryResult, QueryError>
    + Send
    + 'static,
) -> ApiResult {
    let expr = parsed(&app, &parts, &params).await?;
    let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
    let options = QueryOptions {
        timeout: Some(common.timeout),
        lookback_delta_ms: common.lookback_ms,
        cancel: Some(Arc::clone(&cancel.0)),
        ..QueryOptions::default()
    };
    let queued = tokio::time::Instant::now();
    let job = app.queries.run(move || {
        let waited = queued.elapsed();
        let result = evaluate(&parts.engine, &*parts.storage, &expr, &options)?;
        Ok(answer(result, limit, common.stats.then_some(waited)))
    });
    // Queries that wait for a place are told when their time is up, too.
    match tokio::time::timeout(common.timeout + Duration::from_secs(1), job).await {
        Ok(done) => done?.map_err(|error: QueryError| error_of(&error)),
        Err(_) => Err(ApiError::new(ErrorType::Timeout, "query timed out in query queue")),
    }
}

/// Texts longer than this are parsed on the pool: a megabyte takes longer than the reactor may be held up.
const PARSE_INLINE_BYTES_MAX: usize = 64 << 10;

/// The parameter `query`, parsed.
async fn parsed(app: &App, parts: &Parts, params: &Params) -> Result<ParsedQuery, ApiError> {
    let text = params.get("query").unwrap_or_default();
    let query = if text.len() <= PARSE_INLINE_BYTES_MAX {
        parts.engine.parse(text)
    } else {
        let (engine, text) = (Arc::clone(&parts.engine), text.to_owned());
        app.pool.run(move || engine.parse(&text)).await?
    };
    query.map_err(|error| ApiError::parameter("query", error))
}

/// Tells an evaluation that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn error_of(error: &QueryError) -> ApiError {
    let kind = match error.kind {
        QueryErrorKind::BadData => ErrorType::BadData,
        QueryErrorKind::Execution => ErrorType::Execution,
        QueryErrorKind::Timeout => ErrorType::Timeout,
        QueryErrorKind::Canceled => ErrorType::Canceled,
        QueryErrorKind::Unavailable => ErrorType::Busy,
        _ => ErrorType::Internal,
    };
    if kind == ErrorType::BadData {
        // What evaluation finds wrong with the request is wrong with the query.
        return ApiError::parameter("query", &error.message);
    }
    ApiError::new(kind, &error.message)
}

fn answer(mut result: QueryResult, limit: usize, stats_waited: Option<Duration>) -> Success {
    if limit > 0 && truncate(&mut result.value, limit) {
        result.annotations.warn(TRUNCATED);
    }
    let mut data = String::with_capacity(256);
    let mut object = Object::begin(&mut data);
    object.text("resultType", result.value.value_type().as_str());
    write_value(object.key("result"), &result.value);
    if let Some(waited) = stats_waited {
        write_stats(object.key("stats"), &result.stats, waited);
    }
    object.end();
    Success { data, annotations: result.annotations, is_empty: false }
}

/// Cuts a vector or matrix to `limit` series; says whether something was cut.
fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    match value {
        QueryValue::Vector(samples) if samples.len() > limit => {
            samples.truncate(limit);
            true
        }
        QueryValue::Matrix(series) if series.len() > limit => {
            series.truncate(limit);
            true
        }
        _ => false,
    }
}

fn write_value(out: &mut String, value: &QueryValue) {
    match value {
        // Scalars never have an exponent: Prometheus writes them by other means than samples.
        QueryValue::Scalar(sample) => {
            out.push('[');
            model::float::write_timestamp(out, sample.t);
            out.push_str(",\"");
            model::float::write_fixed(out, sample.v);
            out.push_str("\"]");
        }
        QueryValue::String { t, value } => {
            out.push('[');
            model::float::write_timestamp(out, *t);
            out.push(',');
            json::write_string(out, value);
            out.push(']');
        }
        QueryValue::Vector(samples) => json::write_list(out, samples, |out, sample| {
            let mut object = Object::begin(out);
            object.labels("metric", &sample.labels);
            match &sample.value {
                PointValue::Float(v) => json::write_point(object.key("value"), sample.t, *v),
                PointValue::Histogram(h) => json::write_histogram_point(object.key("histogram"), sample.t, h),
            }
            object.end();
        }),
        QueryValue::Matrix(series) => json::write_list(out, series, write_series),
        // The enum may grow; an unknown kind has no points.
        _ => out.push_str("[]"),
    }
}

fn write_series(out: &mut String, series: &MatrixSeries) {
    let mut object = Object::begin(out);
    object.labels("metric", &series.labels);
    if !series.floats.is_empty() {
        json::write_list(object.key("values"), &series.floats, |out, point| {
            json::write_point(out, point.t, point.v)
        });
    }
    if !series.histograms.is_empty() {
        json::write_list(object.key("histograms"), &series.histograms, |out, (t, h)| {
            json::write_histogram_point(out, *t, h)
        });
    }
    object.end();
}

fn write_stats(out: &mut String, stats: &QueryStats, waited: Duration) {
    let mut object = Object::begin(out);
    let mut timings = Object::begin(object.key("timings"));
    let eval = stats.prepare + stats.inner_eval + stats.result_sort;
    timings
        .number("evalTotalTime", eval.as_secs_f64())
        .number("resultSortTime", stats.result_sort.as_secs_f64())
        .number("queryPreparationTime", stats.prepare.as_secs_f64())
        .number("innerEvalTime", stats.inner_eval.as_secs_f64())
        .number("execQueueTime", waited.as_secs_f64())
        .number("execTotalTime", (eval + waited).as_secs_f64());
    timings.end();
    let mut samples = Object::begin(object.key("samples"));
    samples.raw("totalQueryableSamples", stats.total_samples).raw("peakSamples", stats.peak_samples);
    samples.end();
    object.end();
}

/// `/query_exemplars`
pub(crate) async fn exemplars(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let start = params.time("start", crate::params::TIME_MIN)?;
    let end = params.time("end", crate::params::TIME_MAX)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let expr = parsed(&app, &parts, &params).await?;
    let selectors: Vec<Vec<Matcher>> = expr.expr().selectors().into_iter().map(<[Matcher]>::to_vec).collect();
    if selectors.is_empty() {
        return Ok(Success::empty());
    }
    let found =
        app.pool.run(move || parts.exemplars.exemplars(TimeRange::new(start, end), &selectors)).await??;
    let mut data = String::new();
    json::write_list(&mut data, &found, |out, (labels, exemplars)| {
        let mut object = Object::begin(out);
        object.labels("seriesLabels", labels);
        json::write_list(object.key("exemplars"), exemplars, |out, exemplar| {
            let mut object = Object::begin(out);
            object.labels("labels", &exemplar.labels);
            object.text("value", &model::float::format_api(exemplar.value));
            model::float::write_timestamp(object.key("timestamp"), exemplar.t.unwrap_or_default());
            object.end();
        });
        object.end();
    });
    Ok(Success::new(data))
}

/// `/format_query`
pub(crate) async fn format(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let expr = parsed(&app, &parts, &params).await?;
    Ok(Success::new(json::string(&query::parse::pretty(expr.expr()))))
}

/// `/parse_query`
pub(crate) async fn parse(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let expr = parsed(&app, &parts, &params).await?;
    Ok(Success::new(query::parse::to_json(expr.expr()).to_string()))
}
