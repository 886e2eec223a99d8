//! The UI: files of `web/ui/dist`, embedded in the binary, compressed beforehand.
//!
//! `index.html` answers every UI path; `%NM_BASE%` in it becomes the external path prefix. Other files have their content's
//! hash in the name and may be kept for ever.

use axum::body::Body;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use rust_embed::Embed;

/// No script or style but our own files, no request to anybody else.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'";

#[derive(Embed)]
#[folder = "ui/dist"]
struct Dist;

/// The page for all UI paths.
pub fn index(prefix: &str, title: &str) -> Response<Body> {
    let Some(file) = Dist::get("index.html") else {
        return crate::envelope::text_response(StatusCode::NOT_FOUND, "this build has no user interface");
    };
    let page = String::from_utf8_lossy(&file.data)
        .replace("%NM_BASE%", prefix)
        .replace("%NM_TITLE%", &html_escaped(title));
    let mut response = Response::new(Body::from(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    secure(headers);
    response
}

/// One file of the bundle, by its path below `dist`.
pub fn file(path: &str, request: &HeaderMap) -> Response<Body> {
    let Some(plain) = Dist::get(path).filter(|_| path != "index.html") else {
        return crate::envelope::text_response(StatusCode::NOT_FOUND, "404 page not found");
    };
    let etag = format!("\"{}\"", hex(&plain.metadata.sha256_hash()[..12]));
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    // Only names with a hash in them are final.
    let hashed = path.starts_with("assets/");
    let keep = if hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(HeaderName::from_static("vary"), HeaderValue::from_static("Accept-Encoding"));
    secure(headers);
    if request.get(IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == etag.as_bytes()) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let accepts = |encoding: &str| {
        let listed = request.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        listed.split(',').any(|token| token.split(';').next().unwrap_or_default().trim() == encoding)
    };
    for (encoding, suffix) in [("br", ".br"), ("gzip", ".gz")] {
        if accepts(encoding)
            && let Some(packed) = Dist::get(&format!("{path}{suffix}"))
        {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            *response.body_mut() = Body::from(packed.data.into_owned());
            return response;
        }
    }
    *response.body_mut() = Body::from(plain.data.into_owned());
    response
}

fn secure(headers: &mut HeaderMap) {
    let pairs = [
        ("content-security-policy", CONTENT_SECURITY_POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
    ];
    for (name, value) in pairs {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("json" | "webmanifest") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text for a page or an attribute.
pub(crate) fn html_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_knows_its_prefix_and_forbids_strangers() {
        let response = index("/prom", "T");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["cache-control"], "no-cache");
        assert!(
            response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'self'")
        );
    }

    #[test]
    fn files_outside_of_the_bundle_are_not_there() {
        for path in ["../Cargo.toml", "/etc/passwd", "index.html", ""] {
            assert_eq!(file(path, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn bundled_files_come_compressed_and_are_not_sent_twice() {
        let name = Dist::iter().find(|name| name.ends_with(".js")).expect("the bundle has a script");
        let mut request = HeaderMap::new();
        request.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
        let response = file(&name, &request);
        assert_eq!(response.headers()["content-encoding"], "br");
        request.insert(IF_NONE_MATCH, response.headers()[ETAG].clone());
        assert_eq!(file(&name, &request).status(), StatusCode::NOT_MODIFIED);
    }
}
