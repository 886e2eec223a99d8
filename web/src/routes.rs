//! Which path goes where, and what holds for all of them: CORS, compression, method errors, counting.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Path, State};
use axum::routing::{MethodFilter, MethodRouter, any, get, on, post};
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, LOCATION, ORIGIN, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::api;
use crate::app::{App, Parts};
use crate::assets;
use crate::compress::{Encoding, compress};
use crate::envelope::{ApiError, ApiResult, ErrorType, respond, text_response};
use crate::lifecycle;
use crate::params::Params;

/// Most bytes of a form body (as Go's `ParseForm`).
const FORM_BYTES_MAX: usize = 10 << 20;
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
        .route("/-/healthy", get(async || lifecycle::healthy()))
        .route("/-/ready", get(async |State(app): AppState| lifecycle::ready(&app)))
        .route("/-/reload", lifecycle_route(post(async |State(app): AppState| lifecycle::reload(&app).await)))
        .route("/-/quit", lifecycle_route(post(async |State(app): AppState| lifecycle::quit(&app))))
        .route("/metrics", get(metrics_page))
        .route("/version", get(async |State(app): AppState| api::status::version(&app)))
        .merge(api_v1())
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
        routes =
            routes.route(from, get(async move |request: Request<Body>| redirect(&to, request.uri().query())));
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
    Router::new()
        .nest(&prefix, routes)
        .route(&home, any(async || text_response(StatusCode::NOT_FOUND, "404 page not found")))
        .fallback(async || text_response(StatusCode::NOT_FOUND, "404 page not found"))
}

fn lifecycle_route(routes: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    let disabled_get =
        async || text_response(StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed");
    routes.get(disabled_get)
}

fn api_v1() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/query", form(api::query::instant))
        .route("/api/v1/query_range", form(api::query::range))
        .route("/api/v1/query_exemplars", form(api::query::exemplars))
        .route("/api/v1/format_query", form(api::query::format))
        .route("/api/v1/parse_query", form(api::query::parse))
        .route("/api/v1/series", form(api::metadata::series))
        .route("/api/v1/labels", form(api::metadata::labels))
        .route("/api/v1/label/{name}/values", get(label_values))
        .route("/api/v1/metadata", read(api::metadata::metadata))
        .route("/api/v1/targets", read(api::targets::targets))
        .route("/api/v1/targets/metadata", read(api::targets::metadata))
        .route("/api/v1/scrape_pools", read(api::targets::scrape_pools))
        .route("/api/v1/rules", read(api::rules::rules))
        .route("/api/v1/alerts", read(api::rules::alerts))
        .route("/api/v1/alertmanagers", read(api::rules::alertmanagers))
        .route("/api/v1/status/config", read(api::status::config))
        .route("/api/v1/status/flags", read(api::status::flags))
        .route("/api/v1/status/buildinfo", read(api::status::buildinfo))
        .route("/api/v1/status/runtimeinfo", read(api::status::runtimeinfo))
        .route("/api/v1/status/tsdb", read(api::status::tsdb))
        .route(
            "/api/v1/status/walreplay",
            get(async |State(app): AppState| respond(api::status::walreplay(&app))),
        )
        .route("/api/v1/write", post(api::write::write))
}

/// A handler of parameters that may come by GET or as a form by POST.
fn form<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Arc<App>, Parts, Params) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ApiResult> + Send + 'static,
{
    on(MethodFilter::GET.or(MethodFilter::POST), async move |State(app): AppState, request: Request<Body>| {
        let Some(parts) = app.parts().cloned() else { return not_ready() };
        match read_params(request, app.options.read_timeout).await {
            Ok(params) => respond(handler(app, parts, params).await),
            Err(error) => error.response(),
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
        respond(handler(app, parts, params).await)
    })
}

async fn label_values(
    State(app): AppState,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let Some(parts) = app.parts().cloned() else { return not_ready() };
    let params = Params::new(request.uri().query(), None);
    respond(api::metadata::label_values(app, parts, name, params).await)
}

fn not_ready() -> Response<Body> {
    text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
}

async fn read_params(request: Request<Body>, timeout: Duration) -> Result<Params, ApiError> {
    let (parts, body) = request.into_parts();
    let is_form = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| {
        kind.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let body = if parts.method == Method::POST && is_form {
        Some(read_body(body, FORM_BYTES_MAX, timeout).await?)
    } else {
        None
    };
    Ok(Params::new(parts.uri.query(), body.as_deref()))
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
    match crate::metrics::page(&app.registry) {
        Ok(page) => {
            let mut response = Response::new(Body::from(page));
            let kind =
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
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
    text_response(StatusCode::NOT_FOUND, "404 page not found")
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response<Body> {
    assets::file(&format!("assets/{path}"), &headers)
}

fn redirect(to: &str, query: Option<&str>) -> Response<Body> {
    let target = query.map_or_else(|| to.to_owned(), |query| format!("{to}?{query}"));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    if let Ok(target) = HeaderValue::from_str(&target) {
        response.headers_mut().insert(LOCATION, target);
    }
    response
}

/// One request from head to answer.
pub(crate) async fn serve(app: Arc<App>, router: Router, mut request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let method = request.method().clone();
    let origin = request.headers().get(ORIGIN).cloned();
    let encoding = Encoding::wanted(request.headers());
    let below =
        request.uri().path().strip_prefix(app.options.route_prefix.as_str()).unwrap_or_default().to_owned();
    let is_api = below.starts_with("/api/v1/") || below == "/federate";
    if is_api && method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        allow_origin(&app, origin.as_ref(), response.headers_mut());
        return response;
    }
    // HEAD is answered by probes' paths only, as Prometheus' router has it. axum would let GET handlers answer it; a method
    // that no route has makes it a 405.
    if method == Method::HEAD && !matches!(below.as_str(), "/-/healthy" | "/-/ready") {
        *request.method_mut() = Method::TRACE;
    }
    let mut handler = below.clone();
    let mut response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    match response.extensions_mut().remove::<Handler>() {
        Some(Handler(pattern)) => handler = pattern,
        // Unknown paths are one series, however many there are.
        None => "/unknown".clone_into(&mut handler),
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        fix_allow(response.headers_mut(), is_api);
    }
    if is_api {
        allow_origin(&app, origin.as_ref(), response.headers_mut());
    }
    let compressible = is_api || matches!(below.as_str(), "/metrics" | "/federate");
    if compressible {
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
        if let Some(encoding) = encoding {
            response = compress(response, encoding, &app.pool).await;
        }
    }
    app.metrics.observe(&handler, response.status(), started.elapsed(), response.body().size_hint().exact());
    response
}

/// The pattern of the route that answered.
#[derive(Clone, Debug)]
struct Handler(String);

/// Middleware of every route: hands the pattern of the matched route to [`serve`].
async fn note_handler(request: Request<Body>, next: axum::middleware::Next) -> Response<Body> {
    let pattern = request.extensions().get::<MatchedPath>().map(|path| Handler(path.as_str().to_owned()));
    let mut response = next.run(request).await;
    if let Some(handler) = pattern {
        response.extensions_mut().insert(handler);
    }
    response
}

/// `Allow` in order of the alphabet, with OPTIONS where we answer it.
fn fix_allow(headers: &mut HeaderMap, is_api: bool) {
    let listed = headers.get(ALLOW).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut methods: Vec<&str> =
        listed.split(',').map(str::trim).filter(|method| !method.is_empty() && *method != "HEAD").collect();
    if is_api || !methods.is_empty() {
        methods.push("OPTIONS");
    }
    methods.sort_unstable();
    methods.dedup();
    if let Ok(value) = HeaderValue::from_str(&methods.join(", ")) {
        headers.insert(ALLOW, value);
    }
}

fn allow_origin(app: &App, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    if !origin.to_str().is_ok_and(|text| app.options.cors_origin.is_match(text)) {
        return;
    }
    let pairs = [
        ("access-control-allow-headers", "Accept, Authorization, Content-Type, Origin"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-expose-headers", "Date"),
    ];
    for (name, value) in pairs {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("access-control-allow-origin", origin.clone());
}
