//! Which path goes where, and how parameters are read. What holds for all paths alike is in `serve`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{MethodFilter, MethodRouter, any, get, on};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use query::exec::QueryOrigin;

use crate::api;
use crate::app::{App, Parts};
use crate::assets;
use crate::caller;
use crate::envelope::{ApiError, ApiResult, ErrorType, respond, text_response};
use crate::lifecycle;
use crate::multipart;
use crate::params::Params;
use crate::serve::{note_handler, of_api, redirect};

/// Most bytes of a form body (as Go's `ParseForm`).
const FORM_BYTES_MAX: usize = 10 << 20;
/// Most bytes of a multipart body.
const MULTIPART_BYTES_MAX: usize = FORM_BYTES_MAX;
/// Paths that the UI handles itself.
const UI_PATHS: [&str; 8] = ["/", "/explore", "/graph", "/query", "/queue", "/alerts", "/targets", "/status"];
/// Paths of the Prometheus UI whose content is elsewhere now. (`/graph` and `/query` are rewritten in the browser, since
/// their parameters are.)
const UI_REDIRECTS: [(&str, &str); 4] =
    [("/tsdb-status", "/status"), ("/flags", "/status"), ("/config", "/status"), ("/rules", "/alerts")];

type AppState = State<Arc<App>>;

/// All routes below the prefix.
pub(crate) fn router(app: Arc<App>) -> Router {
    let prefix = app.options.route_prefix.clone();
    let mut routes = Router::new()
        .merge(with_slashes(vec![
            ("/-/reload", lifecycle_route(async |State(app): AppState| lifecycle::reload(&app).await)),
            ("/-/quit", lifecycle_route(async |State(app): AppState| lifecycle::quit(&app))),
            ("/-/healthy", get(async || lifecycle::healthy())),
            ("/-/ready", get(async |State(app): AppState| lifecycle::ready(&app))),
            ("/metrics", get(metrics_page)),
            ("/version", get(async |State(app): AppState| api::status::version(&app))),
        ]))
        .merge(with_slashes(api_v1()))
        .route("/api/v1/write", on(MethodFilter::POST, api::write::write))
        .merge(api::alertmanager::routes())
        .route("/assets/{*path}", get(asset))
        .route(
            "/third-party-licenses.txt",
            get(async |headers: HeaderMap| assets::file("third-party-licenses.txt", &headers)),
        );
    for path in UI_PATHS {
        routes = routes.route(path, get(index));
    }
    for (from, to) in UI_REDIRECTS {
        let to = format!("{prefix}{to}");
        let handler = async move |request: Request<Body>| {
            redirect(StatusCode::FOUND, request.method(), &to, request.uri().query())
        };
        routes = routes.route(from, get(handler));
    }
    let routes = routes
        .fallback(unknown)
        .method_not_allowed_fallback(async || {
            text_response(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(axum::middleware::from_fn(note_handler))
        .with_state(app);
    if prefix.is_empty() {
        return routes;
    }
    let home = format!("{prefix}/");
    Router::new().nest(&prefix, routes).route(&home, any(not_found)).fallback(not_found)
}

/// POST or PUT do something; GET says so.
fn lifecycle_route<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(AppState) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    on(MethodFilter::POST.or(MethodFilter::PUT), handler).get(async || lifecycle::only_post())
}

fn api_v1() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/api/v1/query", asked(api::query::instant)),
        ("/api/v1/query_range", asked(api::query::range)),
        ("/api/v1/explain", asked(api::explain::explain)),
        ("/api/v1/query_exemplars", form(api::query::exemplars)),
        ("/api/v1/format_query", form(api::query::format)),
        ("/api/v1/parse_query", form(api::query::parse)),
        ("/api/v1/series", form(api::metadata::series)),
        ("/api/v1/labels", form(api::metadata::labels)),
        ("/api/v1/label/{name}/values", get(label_values)),
        ("/api/v1/metadata", read(api::metadata::metadata)),
        ("/api/v1/targets", read(api::targets::targets)),
        ("/api/v1/targets/metadata", read(api::targets::metadata)),
        ("/api/v1/targets/relabel_steps", read(api::targets::relabel_steps)),
        ("/api/v1/targets/body", read(api::targets::body)),
        ("/api/v1/scrape_pools", read(api::targets::scrape_pools)),
        ("/api/v1/scrape_pools/config", read(api::targets::scrape_pool_config)),
        ("/api/ext/v1/brokers", read(api::targets::brokers)),
        ("/api/v1/rules", read(api::rules::rules)),
        ("/api/v1/alerts", read(api::rules::alerts)),
        ("/api/v1/alertmanagers", read(api::rules::alertmanagers)),
        ("/api/v1/status/config", read(api::status::config)),
        ("/api/v1/status/flags", read(api::status::flags)),
        ("/api/v1/status/buildinfo", read(api::status::buildinfo)),
        ("/api/v1/status/runtimeinfo", read(api::status::runtimeinfo)),
        ("/api/v1/status/queries", read(api::queries::queries)),
        ("/api/v1/status/queries/{id}/stop", on(MethodFilter::POST, stop_query)),
        ("/api/v1/status/tsdb", read(api::status::tsdb)),
        ("/api/v1/status/tsdb/blocks", read(api::status::blocks)),
        ("/api/v1/admin/tsdb/delete_series", change(api::admin::delete_series)),
        ("/api/v1/admin/tsdb/clean_tombstones", change(api::admin::clean_tombstones)),
        ("/api/v1/admin/tsdb/snapshot", change(api::admin::snapshot)),
        (
            "/api/v1/status/walreplay",
            get(async |State(app): AppState| of_api(respond(api::status::walreplay(&app)))),
        ),
    ]
}

/// The routes, and a redirect from each path with a slash at its end.
///
/// Observed: below `/api/v1` Prometheus' redirect loses that prefix (its router sees paths without it), and other
/// methods than GET keep theirs with 307.
fn with_slashes(routes: Vec<(&'static str, MethodRouter<Arc<App>>)>) -> Router<Arc<App>> {
    let mut router = Router::new();
    for (path, methods) in routes {
        let handler = async |State(app): AppState, request: Request<Body>| {
            let path = request.uri().path().trim_end_matches('/');
            let target = match path.strip_prefix("/api/v1") {
                Some(below) => below.to_owned(),
                None => format!("{}{path}", app.options.route_prefix),
            };
            let is_get = request.method() == Method::GET;
            let status = if is_get { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
            redirect(status, request.method(), &target, request.uri().query())
        };
        let slashed = on(MethodFilter::GET.or(MethodFilter::POST), handler).fallback(not_found);
        router = router.route(path, methods).route(&format!("{path}/"), slashed);
    }
    router
}

async fn not_found() -> Response<Body> {
    text_response(StatusCode::NOT_FOUND, "404 page not found")
}

/// A handler of parameters that may come by GET or as a form by POST.
fn form<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Arc<App>, Parts, Params) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ApiResult> + Send + 'static,
{
    with_params(MethodFilter::GET.or(MethodFilter::POST), handler)
}

/// A handler of queries: the same, and it is told who asks.
fn asked<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Arc<App>, Parts, Params, QueryOrigin) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ApiResult> + Send + 'static,
{
    on(MethodFilter::GET.or(MethodFilter::POST), async move |State(app): AppState, request: Request<Body>| {
        let Some(parts) = app.parts().cloned() else { return not_ready() };
        let origin = caller::origin(&request);
        match read_params(request, app.options.read_timeout).await {
            Ok(params) => of_api(respond(handler(app, parts, params, origin).await)),
            Err(error) => of_api(error.response()),
        }
    })
}

/// Stops a query. Other sites' pages may not: a browser would send this without asking first.
async fn stop_query(State(app): AppState, Path(id): Path<String>, request: Request<Body>) -> Response<Body> {
    let Some(parts) = app.parts() else { return not_ready() };
    if caller::is_from_elsewhere(request.headers(), &app.options.external_url) {
        return text_response(StatusCode::FORBIDDEN, "this may not be done by pages of other sites");
    }
    of_api(respond(api::queries::stop(parts, &id, &caller::origin(&request))))
}

/// A handler that changes what is stored.
fn change<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Arc<App>, Parts, Params) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ApiResult> + Send + 'static,
{
    with_params(MethodFilter::POST.or(MethodFilter::PUT), handler)
}

fn with_params<H, F>(methods: MethodFilter, handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Arc<App>, Parts, Params) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ApiResult> + Send + 'static,
{
    on(methods, async move |State(app): AppState, request: Request<Body>| {
        let Some(parts) = app.parts().cloned() else { return not_ready() };
        match read_params(request, app.options.read_timeout).await {
            Ok(params) => of_api(respond(handler(app, parts, params).await)),
            Err(error) => of_api(error.response()),
        }
    })
}

/// A handler of parameters of the URL.
fn read<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Arc<App>, Parts, Params) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ApiResult> + Send + 'static,
{
    get(async move |State(app): AppState, request: Request<Body>| {
        let Some(parts) = app.parts().cloned() else { return not_ready() };
        let params = Params::new(request.uri().query(), None);
        of_api(respond(handler(app, parts, params).await))
    })
}

/// The name is taken from the path as it came: it may be no UTF-8, which axum would refuse in words of its own.
async fn label_values(State(app): AppState, request: Request<Body>) -> Response<Body> {
    let Some(parts) = app.parts().cloned() else { return not_ready() };
    let path = request.uri().path();
    let name = path.rsplit('/').nth(1).unwrap_or_default();
    let name: Vec<u8> = percent_encoding::percent_decode_str(name).collect();
    if name.contains(&b'/') {
        // Prometheus routes by the decoded path, where this would be a part of its own.
        return not_found().await;
    }
    let params = Params::new(request.uri().query(), None);
    of_api(respond(api::metadata::label_values(app, parts, name, params).await))
}

fn not_ready() -> Response<Body> {
    text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
}

async fn read_params(request: Request<Body>, timeout: Duration) -> Result<Params, ApiError> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    if !matches!(parts.method, Method::POST | Method::PUT) {
        return Ok(Params::new(query, None));
    }
    if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let body = read_body(body, FORM_BYTES_MAX, timeout).await?;
        return Ok(Params::new(query, Some(&body)));
    }
    let mut params = Params::new(query, None);
    if media.eq_ignore_ascii_case("multipart/form-data")
        && let Some(boundary) = multipart::boundary(kind)
    {
        let body = read_body(body, MULTIPART_BYTES_MAX, timeout).await?;
        params.extend(multipart::fields(&body, &boundary));
    }
    Ok(params)
}

/// The whole body within a bound of bytes and time.
pub(crate) async fn read_body(body: Body, max: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(timeout, Limited::new(body, max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ApiError::bad_data("http: request body too large"))
        }
        Ok(Err(error)) => Err(ApiError::bad_data(format!("cannot read the request body: {error}"))),
        Err(_) => Err(ApiError::new(ErrorType::Timeout, "reading the request body took too long")),
    }
}

async fn metrics_page(State(app): AppState) -> Response<Body> {
    // Gathering reads files of the system and asks every part.
    let registry = app.registry.clone();
    let page = app.pool.run(move || crate::metrics::page(&registry)).await;
    match page.map_err(|error| error.to_string()).and_then(|page| page.map_err(|error| error.to_string())) {
        Ok(page) => {
            let mut response = Response::new(Body::from(page));
            let kind =
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn index(State(app): AppState) -> Response<Body> {
    assets::index(&app.options.route_prefix, &app.options.page_title)
}

/// Browsers get the UI, which says that there is no such page; programs get a plain 404.
async fn unknown(State(app): AppState, request: Request<Body>) -> Response<Body> {
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = request.uri().path();
    let is_ours = ["/api/", "/-/", "/assets/", "/metrics"].iter().any(|prefix| path.starts_with(prefix));
    if request.method() == Method::GET && !is_ours && accepts.contains("text/html") {
        return assets::index(&app.options.route_prefix, &app.options.page_title);
    }
    not_found().await
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response<Body> {
    assets::file(&format!("assets/{path}"), &headers)
}
