//! `/query`, `/query_range`, `/query_exemplars`, `/format_query`, `/parse_query`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Matcher, TimeRange};
use query::exec::{ParsedQuery, QueryError, QueryErrorKind, QueryOptions, QueryOrigin, QueryTicket, When};

use super::query_answer::answer;
use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, ErrorType, Success};
use crate::json::{self, Object};
use crate::params::Params;

/// Most points per series of a range query (Prometheus' bound).
const POINTS_MAX: i64 = 11_000;

/// `/query`
pub(crate) async fn instant(app: Arc<App>, parts: Parts, params: Params, origin: QueryOrigin) -> ApiResult {
    let limit = params.limit("limit")?;
    let when = When::At(params.time("time", app.clock.now_ms())?);
    answered(app, parts, params, origin, when, limit).await
}

/// `/query_range`
pub(crate) async fn range(app: Arc<App>, parts: Parts, params: Params, origin: QueryOrigin) -> ApiResult {
    let limit = params.limit("limit")?;
    let when = over(&params)?;
    answered(app, parts, params, origin, when, limit).await
}

/// `start`, `end`, `step`.
pub(super) fn over(params: &Params) -> Result<When, ApiError> {
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
    Ok(When::Over { start, end, step })
}

/// What all queries read from their parameters.
pub(super) struct Common {
    pub(super) timeout: Duration,
    pub(super) lookback_ms: Option<i64>,
    stats: bool,
    per_step: bool,
    /// What is wrong with the parameters, though not so wrong that they are refused.
    warning: Option<String>,
}

impl Common {
    pub(super) fn new(app: &App, params: &Params) -> Result<Self, ApiError> {
        let timeout = params.timeout(app.options.query_timeout)?;
        let lookback_ms =
            params.duration_ms("lookback_delta").map_err(|error| {
                ApiError::bad_data(error.text.replace(
                    "invalid parameter \"lookback_delta\": ",
                    "error parsing lookback delta duration: ",
                ))
            })?;
        let stats = params.get("stats");
        let warning = stats.and_then(stats_warning);
        Ok(Self {
            timeout,
            lookback_ms: lookback_ms.filter(|ms| *ms > 0),
            stats: stats.is_some(),
            per_step: app.options.per_step_stats && stats == Some("all"),
            warning,
        })
    }
}

/// Prometheus' warning at values of `stats` that it will refuse.
fn stats_warning(stats: &str) -> Option<String> {
    let known = matches!(stats, "true" | "all");
    (!known).then(|| {
        format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"",
            json::string(stats)
        )
    })
}

async fn answered(
    app: Arc<App>,
    parts: Parts,
    params: Params,
    origin: QueryOrigin,
    when: When,
    limit: usize,
) -> ApiResult {
    let common = Common::new(&app, &params)?;
    let query = parsed(&app, &parts, &params).await?;
    let (per_step, warning) = (common.per_step, common.warning.clone());
    let stats = common.stats.then_some(per_step);
    evaluated(&app, &parts, origin, query, when, &common, move |parts, query, options| {
        let options = QueryOptions { per_step_stats: per_step, ..options.clone() };
        let mut result = parts.engine.run(&*parts.storage, query, when, &options)?;
        if let Some(warning) = warning {
            result.annotations.warn(warning);
        }
        Ok(answer(result, limit, stats))
    })
    .await
}

/// Waits for a place, then evaluates on the pool; `evaluate` also writes the answer, or its beginning. The query is in the register all the
/// while. When the client goes, it leaves the queue, or evaluation is told to stop.
pub(super) async fn evaluated(
    app: &App,
    parts: &Parts,
    origin: QueryOrigin,
    query: ParsedQuery,
    when: When,
    common: &Common,
    evaluate: impl FnOnce(&Parts, &ParsedQuery, &QueryOptions) -> Result<Success, QueryError> + Send + 'static,
) -> ApiResult {
    let ticket = parts.engine.enter(query.text(), when, origin, Some(common.timeout));
    let place = match place(&app.queries, &ticket).await {
        Ok(place) => place,
        Err(error) => {
            parts.engine.gave_up(&query, &ticket, &error);
            return Err(error_of(&error));
        }
    };
    let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
    let options = QueryOptions {
        lookback_delta_ms: common.lookback_ms,
        cancel: Some(Arc::clone(&cancel.0)),
        ticket: Some(Arc::clone(&ticket)),
        ..QueryOptions::default()
    };
    let parts = parts.clone();
    let job = place.run(move || evaluate(&parts, &query, &options));
    // Evaluation ends by itself when time is up; this is for what cannot be interrupted (a read from a failing disk).
    let patience = ticket.deadline().map(|deadline| deadline + GRACE);
    let done = match patience {
        Some(patience) => tokio::time::timeout_at(patience, job).await,
        None => Ok(job.await),
    };
    match done {
        Ok(done) => done?.map_err(|error| error_of(&error)),
        Err(_) => Err(ApiError::new(ErrorType::Timeout, "query timed out in expression evaluation")),
    }
}

/// How much longer than its time a query may take to notice.
const GRACE: Duration = Duration::from_secs(1);

/// A place to run in. Waiting counts for the time a query may take, and can be stopped like evaluation.
async fn place(pool: &net::CpuPool, ticket: &QueryTicket) -> Result<net::pool::Place, QueryError> {
    let too_late = async {
        match ticket.deadline() {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        place = pool.place() => place.map_err(|full| {
            let text = format!(
                "too many queries: all places are taken (--query.max-concurrency) and {} wait already (--query.max-queue)",
                full.waiting_max
            );
            QueryError::new(QueryErrorKind::Unavailable, text)
        }),
        () = ticket.stopped() => {
            Err(QueryError::new(QueryErrorKind::Canceled, "query was canceled in query queue"))
        }
        () = too_late => Err(QueryError::new(QueryErrorKind::Timeout, "query timed out in query queue")),
    }
}

/// Texts longer than this are parsed on the pool: a megabyte takes longer than the reactor may be held up.
const PARSE_INLINE_BYTES_MAX: usize = 16 << 10;

/// Whether a text may be parsed on the reactor. Regular expressions are compiled along, and a short one may take long.
fn is_parsed_at_once(text: &str) -> bool {
    text.len() <= PARSE_INLINE_BYTES_MAX && !text.contains("=~") && !text.contains("!~")
}

/// The parameter `query`, parsed.
pub(super) async fn parsed(app: &App, parts: &Parts, params: &Params) -> Result<ParsedQuery, ApiError> {
    let text = params.get("query").unwrap_or_default();
    if is_parsed_at_once(text) {
        return parts.engine.parse(text).map_err(|error| ApiError::parameter("query", error));
    }
    parsed_on_pool(app, parts, params, |query| query).await
}

/// What `f` makes of the parameter `query`, parsed; both on the pool.
async fn parsed_on_pool<T: Send + 'static>(
    app: &App,
    parts: &Parts,
    params: &Params,
    f: impl FnOnce(ParsedQuery) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (engine, text) = (Arc::clone(&parts.engine), params.get("query").unwrap_or_default().to_owned());
    let made = app.pool.run(move || engine.parse(&text).map(f)).await?;
    made.map_err(|error| ApiError::parameter("query", error))
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
    let data =
        parsed_on_pool(&app, &parts, &params, |it| json::string(&query::parse::pretty(it.expr()))).await?;
    Ok(Success::new(data))
}

/// `/parse_query`
pub(crate) async fn parse(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let data =
        parsed_on_pool(&app, &parts, &params, |it| query::parse::to_json(it.expr()).to_string()).await?;
    Ok(Success::new(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_of_other_values_are_warned_of() {
        assert_eq!([stats_warning("true"), stats_warning("all")], [None, None]);
        let text = r#"value "foo" for parameter "stats" is deprecated and will be rejected in the next major release, use "true" or "all""#;
        assert_eq!(stats_warning("foo").as_deref(), Some(text));
    }

    #[test]
    fn patterns_are_not_compiled_on_the_reactor() {
        assert!(is_parsed_at_once("sum by (job) (rate(x{a=\"b\"}[5m]))"));
        assert!(!is_parsed_at_once("x{a=~\".{500}\"}") && !is_parsed_at_once("x{a!~\"b\"}"));
        assert!(!is_parsed_at_once(&" ".repeat(PARSE_INLINE_BYTES_MAX + 1)));
    }
}
