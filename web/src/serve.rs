//! What holds for every request, whatever its path: the host header, clean paths, OPTIONS and HEAD, the headers of refused
//! methods, CORS, compression, counting. Observed on Prometheus 3.5.3, whose answers are those of Go's `net/http`, its
//! `ServeMux` and `julienschmidt/httprouter`.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HOST, LOCATION, ORIGIN, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::app::App;
use crate::compress::{Encoding, compress};
use crate::envelope::plain_response;
use crate::stream::{Means, stream};

/// Marks an answer of an API handler: it gets CORS headers and may be compressed. What the router itself refuses, and
/// remote write, does not.
#[derive(Clone, Copy, Debug)]
struct OfApi;

/// Marks `response` as the answer of an API handler.
pub(crate) fn of_api(mut response: Response<Body>) -> Response<Body> {
    response.extensions_mut().insert(OfApi);
    response
}

/// The pattern of the route that answered.
#[derive(Clone, Debug)]
struct Handler(String);

/// Middleware of every route: hands the pattern of the matched route to [`serve`].
pub(crate) async fn note_handler(request: Request<Body>, next: axum::middleware::Next) -> Response<Body> {
    let pattern = request.extensions().get::<MatchedPath>().map(|path| Handler(path.as_str().to_owned()));
    let mut response = next.run(request).await;
    if let Some(handler) = pattern {
        response.extensions_mut().insert(handler);
    }
    response
}

/// One request from head to answer.
pub(crate) async fn serve(app: Arc<App>, router: Router, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let encoding = Encoding::wanted(request.headers());
    let mut response = answer(&app, router, request, encoding).await;
    // Unknown paths are one series, however many there are.
    let handler = match response.extensions_mut().remove::<Handler>() {
        Some(Handler(pattern)) => handler_label(&pattern, &app.options.route_prefix).into_owned(),
        None => "/unknown".to_owned(),
    };
    let is_api = response.extensions_mut().remove::<OfApi>().is_some();
    let means =
        || Means { pool: app.pool.clone(), encoding, stalled: app.metrics.connections_stalled.clone() };
    let size = app.metrics.size_of(&handler);
    if stream(&mut response, means, move |bytes| size.observe(bytes as f64)) {
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    } else if is_api || handler == "/metrics" {
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
        if let Some(encoding) = encoding {
            response = compress(response, encoding, &app.pool).await;
        }
    }
    app.metrics.observe(&handler, response.status(), started.elapsed(), response.body().size_hint().exact());
    response
}

async fn answer(
    app: &App,
    router: Router,
    mut request: Request<Body>,
    encoding: Option<Encoding>,
) -> Response<Body> {
    if let Err(text) = check_host(&request) {
        let mut response = plain_response(StatusCode::BAD_REQUEST, text);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    if request.uri().path() == "*" && request.method() == Method::OPTIONS {
        return Response::new(Body::empty());
    }
    if let Some(clean) = cleaned(request.uri().path()) {
        return redirect(StatusCode::MOVED_PERMANENTLY, request.method(), &clean, request.uri().query());
    }
    let method = request.method().clone();
    let origin = request.headers().get(ORIGIN).cloned();
    let below =
        request.uri().path().strip_prefix(app.options.route_prefix.as_str()).unwrap_or_default().to_owned();
    if below.starts_with("/api/v1/") && method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        allow_origin(app, origin.as_ref(), response.headers_mut());
        if let Some(encoding) = encoding {
            // Names an encoding of nothing, as Prometheus does.
            encoding.name_in(response.headers_mut());
        }
        return response;
    }
    // HEAD is answered by probes' paths only, as Prometheus' router has it. axum would let GET handlers answer it; a method
    // that no route has makes it a 405.
    let is_probe = matches!(below.as_str(), "/-/healthy" | "/-/ready");
    if method == Method::HEAD && !is_probe {
        *request.method_mut() = Method::TRACE;
    }
    let mut response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    // Without the header it is a handler's own refusal, which stays as it is.
    if response.status() == StatusCode::METHOD_NOT_ALLOWED && response.headers().contains_key(ALLOW) {
        fix_allow(response.headers_mut(), is_probe);
        if method == Method::OPTIONS {
            *response.status_mut() = StatusCode::OK;
            *response.body_mut() = Body::empty();
            for name in [CONTENT_TYPE.as_str(), "x-content-type-options", "content-length"] {
                response.headers_mut().remove(name);
            }
        }
    }
    if response.status() == StatusCode::NOT_FOUND {
        // axum names the methods of routes that only say that there is nothing.
        response.headers_mut().remove(ALLOW);
    }
    if method == Method::HEAD && is_probe {
        response.headers_mut().remove(CONTENT_TYPE);
    }
    if response.extensions().get::<OfApi>().is_some() {
        allow_origin(app, origin.as_ref(), response.headers_mut());
    }
    response
}

/// Go's server refuses HTTP/1.1 without a host, or with two.
fn check_host(request: &Request<Body>) -> Result<(), &'static str> {
    if request.version() != Version::HTTP_11 || request.uri().authority().is_some() {
        return Ok(());
    }
    match request.headers().get_all(HOST).iter().count() {
        0 => Err("400 Bad Request: missing required Host header"),
        1 => Ok(()),
        _ => Err("400 Bad Request"),
    }
}

/// The path without repeated slashes and dot segments, if it has any (Go's `ServeMux`).
fn cleaned(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        // `*` of OPTIONS, and what CONNECT names.
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path[1..].split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let mut clean = String::with_capacity(path.len());
    for part in parts {
        clean.push('/');
        clean.push_str(part);
    }
    if path.ends_with('/') || clean.is_empty() {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// A redirect with the query kept, as Go's `http.Redirect` writes it.
pub(crate) fn redirect(status: StatusCode, method: &Method, to: &str, query: Option<&str>) -> Response<Body> {
    let target = query.map_or_else(|| to.to_owned(), |query| format!("{to}?{query}"));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    // HEAD reaches here only before it is renamed.
    if matches!(*method, Method::GET | Method::HEAD) {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    if *method == Method::GET {
        let reason = status.canonical_reason().unwrap_or_default();
        let href = crate::assets::html_escaped(&target);
        *response.body_mut() = Body::from(format!("<a href=\"{href}\">{reason}</a>.\n\n"));
    }
    if let Ok(target) = HeaderValue::from_str(&target) {
        response.headers_mut().insert(LOCATION, target);
    }
    response
}

/// `Allow` in order of the alphabet, with OPTIONS, which every path answers; HEAD where it is answered.
fn fix_allow(headers: &mut HeaderMap, has_head: bool) {
    let listed = headers.get(ALLOW).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut methods: Vec<&str> = listed
        .split(',')
        .map(str::trim)
        .filter(|method| !method.is_empty() && (has_head || *method != "HEAD"))
        .collect();
    methods.push("OPTIONS");
    methods.sort_unstable();
    methods.dedup();
    if let Ok(value) = HeaderValue::from_str(&methods.join(", ")) {
        headers.insert(ALLOW, value);
    }
}

fn allow_origin(app: &App, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin.filter(|origin| !origin.is_empty()) else { return };
    // Bytes that are no UTF-8 match no letter, but `.*`, as in Go.
    if !app.options.cors_origin.is_match(&String::from_utf8_lossy(origin.as_bytes())) {
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

/// The `handler` label: the route's pattern without the prefix, with parameters as Prometheus writes them (`:name`).
fn handler_label<'a>(pattern: &'a str, prefix: &str) -> Cow<'a, str> {
    let pattern = pattern.strip_prefix(prefix).unwrap_or(pattern);
    if !pattern.contains('{') {
        return Cow::Borrowed(pattern);
    }
    Cow::Owned(pattern.replace("{*", "*").replace('{', ":").replace('}', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unclean_paths_are_cleaned() {
        let cases = [
            ("/", None),
            ("/a/b/", None),
            ("*", None),
            ("//evil.example/", Some("/evil.example/")),
            ("/a//b", Some("/a/b")),
            ("/a/./b", Some("/a/b")),
            ("/a/../../b", Some("/b")),
            ("/..", Some("/")),
            ("/a/.", Some("/a")),
        ];
        for (path, clean) in cases {
            assert_eq!(cleaned(path).as_deref(), clean, "{path}");
        }
    }

    #[test]
    fn allowed_methods_are_in_order() {
        let allow = |listed: &'static str, has_head| {
            let mut headers = HeaderMap::new();
            headers.insert(ALLOW, HeaderValue::from_static(listed));
            fix_allow(&mut headers, has_head);
            headers[ALLOW].to_str().unwrap().to_owned()
        };
        assert_eq!(allow("GET,HEAD,POST", false), "GET, OPTIONS, POST");
        assert_eq!(allow("GET,HEAD", true), "GET, HEAD, OPTIONS");
        assert_eq!(allow("PUT,POST,GET", false), "GET, OPTIONS, POST, PUT");
    }

    #[test]
    fn redirects_keep_the_query_and_escape_the_page() {
        let response = redirect(StatusCode::FOUND, &Method::GET, "/status", Some("a=\"&b"));
        assert_eq!(response.headers()[LOCATION], "/status?a=\"&b");
        assert!(response.body().size_hint().exact() > Some(0));
        let post = redirect(StatusCode::TEMPORARY_REDIRECT, &Method::POST, "/x", None);
        assert!(!post.headers().contains_key(CONTENT_TYPE));
        assert_eq!(post.body().size_hint().exact(), Some(0));
    }

    #[test]
    fn handlers_are_named_as_in_prometheus() {
        assert_eq!(handler_label("/p/api/v1/label/{name}/values", "/p"), "/api/v1/label/:name/values");
        assert_eq!(handler_label("/assets/{*path}", ""), "/assets/*path");
        assert_eq!(handler_label("/metrics", ""), "/metrics");
    }

    #[test]
    fn one_host_is_needed() {
        let check = |version, hosts: &[&str]| {
            let mut request = Request::builder().version(version).uri("/");
            for host in hosts {
                request = request.header(HOST, *host);
            }
            check_host(&request.body(Body::empty()).unwrap())
        };
        assert_eq!(check(Version::HTTP_11, &["x"]), Ok(()));
        assert_eq!(check(Version::HTTP_11, &[""]), Ok(()));
        assert_eq!(check(Version::HTTP_10, &[]), Ok(()));
        assert_eq!(check(Version::HTTP_11, &[]), Err("400 Bad Request: missing required Host header"));
        assert_eq!(check(Version::HTTP_11, &["x", "y"]), Err("400 Bad Request"));
    }
}
