//! Who calls: what a request says about its client, and whether a browser sends it on behalf of another site.

use std::net::IpAddr;

use axum::body::Body;
use http::header::{HOST, ORIGIN, REFERER, USER_AGENT};
use http::{HeaderMap, Request};
use query::exec::{HttpOrigin, QueryOrigin};

/// Most bytes of a client's own name that are kept.
const USER_AGENT_BYTES_MAX: usize = 128;

/// The other end of the connection; an extension of each request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

fn text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Where a query comes from. Our own pages are told by what browsers say: `Sec-Fetch-Site`, which they send to addresses
/// they trust only, or else the page that is shown.
pub(crate) fn origin(request: &Request<Body>) -> QueryOrigin {
    let headers = request.headers();
    let mut user_agent = text(headers, USER_AGENT).unwrap_or_default();
    user_agent = &user_agent[..user_agent.floor_char_boundary(USER_AGENT_BYTES_MAX)];
    let http = HttpOrigin {
        client: request.extensions().get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default(),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        user_agent: user_agent.to_owned(),
    };
    let own_page = match text(headers, "sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => text(headers, REFERER).is_some_and(|page| is_own(page, headers)),
    };
    if own_page { QueryOrigin::Ui(http) } else { QueryOrigin::Api(http) }
}

/// Whether a URL leads to the host that was asked.
fn is_own(url: &str, headers: &HeaderMap) -> bool {
    let authority = url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    authority.is_some() && authority == text(headers, HOST)
}

/// Whether a request that changes something may do so: not when a browser sends it for a page of another site. Programs
/// other than browsers send none of these headers.
pub(crate) fn is_from_elsewhere(headers: &HeaderMap, external_url: &str) -> bool {
    if let Some(site) = text(headers, "sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    // What is no text is no origin of ours.
    let Ok(origin) = origin.to_str() else { return true };
    let external = external_url.split('/').take(3).collect::<Vec<_>>().join("/");
    !(is_own(origin, headers) || origin.eq_ignore_ascii_case(&external))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<Body> {
        let builder = Request::builder().uri("/api/v1/query?query=up").header("host", "h:9090");
        headers
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(*name, *value))
            .body(Body::empty())
            .unwrap()
    }

    #[test]
    fn pages_of_our_own_are_told_from_programs() {
        let kind = |headers: &[(&str, &str)]| origin(&request(headers)).as_str();
        assert_eq!(kind(&[]), "api");
        assert_eq!(kind(&[("sec-fetch-site", "same-origin")]), "ui");
        assert_eq!(kind(&[("sec-fetch-site", "cross-site"), ("referer", "http://h:9090/explore")]), "api");
        assert_eq!(kind(&[("referer", "http://h:9090/explore")]), "ui");
        assert_eq!(kind(&[("referer", "http://other/h:9090")]), "api");
        let QueryOrigin::Api(http) = origin(&request(&[("user-agent", &"ü".repeat(200))])) else { panic!() };
        assert_eq!((http.path.as_str(), http.method.as_str()), ("/api/v1/query", "GET"));
        assert!(http.user_agent.len() <= USER_AGENT_BYTES_MAX);
    }

    #[test]
    fn other_sites_are_told_by_what_browsers_send() {
        let elsewhere = |headers: &[(&str, &str)]| {
            is_from_elsewhere(request(headers).headers(), "https://mon.example/prefix")
        };
        assert!(!elsewhere(&[]));
        assert!(
            !elsewhere(&[("origin", "http://h:9090")]) && !elsewhere(&[("origin", "https://mon.example")])
        );
        assert!(!elsewhere(&[("sec-fetch-site", "same-origin"), ("origin", "http://proxied")]));
        for bad in [
            ("origin", "http://evil"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(elsewhere(&[bad]), "{bad:?}");
        }
    }
}
