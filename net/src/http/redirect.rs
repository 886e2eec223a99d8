//! Where answers send us, and what may come along.

use http::header::{AUTHORIZATION, COOKIE, LOCATION, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri};

use super::connect::host_and_port;
use crate::error::NetError;

/// Where `answer` to a request to `from` sends us, if it does.
pub(super) fn target<B>(from: &Uri, answer: &Response<B>) -> Result<Option<Uri>, NetError> {
    let is_redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = answer.headers().get(LOCATION).filter(|_| is_redirect) else { return Ok(None) };
    let invalid = |reason: String| NetError::InvalidUrl(format!("redirect: {reason}"));
    let location = location.to_str().map_err(|error| invalid(error.to_string()))?;
    let base = url::Url::parse(&from.to_string()).map_err(|error| invalid(error.to_string()))?;
    let mut next = base.join(location).map_err(|error| invalid(error.to_string()))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(invalid(format!("unsupported protocol scheme {:?}", next.scheme())));
    }
    // Whoever sends us does not choose as whom we come. Both fail only for URLs that have no host.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    next.as_str().parse().map(Some).map_err(|error: http::uri::InvalidUri| invalid(error.to_string()))
}

/// 307 and 308 repeat the request as it was; the others turn into a GET (RFC 9110, 15.4, and what clients do).
pub(super) fn keeps_method(status: StatusCode, method: &Method) -> bool {
    matches!(status.as_u16(), 307 | 308) || matches!(*method, Method::GET | Method::HEAD)
}

/// Credentials stay with scheme, host and port; from the usual port for plain text they may move to that for TLS.
pub(super) fn keeps_credentials(from: &Uri, to: &Uri) -> bool {
    let (Ok((from_host, from_port)), Ok((to_host, to_port))) = (host_and_port(from), host_and_port(to))
    else {
        return false;
    };
    let schemes = (from.scheme_str(), to.scheme_str());
    let upgrade = schemes == (Some("http"), Some("https")) && (from_port, to_port) == (80, 443);
    from_host.eq_ignore_ascii_case(&to_host) && (upgrade || (schemes.0 == schemes.1 && from_port == to_port))
}

/// Another host gets neither credentials nor the headers that may carry them: those configured, and those whose values whoever
/// asks has marked as sensitive.
pub(super) fn drop_credentials<'a>(
    headers: &mut HeaderMap,
    configured: impl Iterator<Item = &'a HeaderName>,
) {
    for name in [AUTHORIZATION, COOKIE, WWW_AUTHENTICATE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    for name in configured {
        headers.remove(name);
    }
    let sensitive = headers.iter().filter(|(_, value)| value.is_sensitive());
    let names: Vec<HeaderName> = sensitive.map(|(name, _)| name.clone()).collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_where_they_belong() {
        let keeps = |from: &str, to: &str| keeps_credentials(&from.parse().unwrap(), &to.parse().unwrap());
        assert!(keeps("http://a/x", "http://A:80/y"));
        assert!(keeps("https://a:443/x", "https://a/y"));
        assert!(keeps("http://a/x", "https://a/x"));
        assert!(!keeps("https://a/x", "http://a/x"));
        assert!(!keeps("http://a/x", "http://b/x"));
        assert!(!keeps("http://a/x", "http://sub.a/x"));
        assert!(!keeps("http://a:9090/x", "http://a:9091/x"));
        assert!(!keeps("http://a:9090/x", "https://a:9090/x"));
    }

    #[test]
    fn what_is_marked_as_sensitive_goes() {
        let mut headers = HeaderMap::new();
        let mut token = http::HeaderValue::from_static("token");
        token.set_sensitive(true);
        headers.insert("x-amz-security-token", token);
        headers.insert("x-plain", http::HeaderValue::from_static("1"));
        headers.insert("x-configured", http::HeaderValue::from_static("1"));
        drop_credentials(&mut headers, [HeaderName::from_static("x-configured")].iter());
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-plain"]);
    }

    #[test]
    fn the_target_has_no_credentials_of_its_own() {
        let answer =
            |location: &str| Response::builder().status(302).header(LOCATION, location).body(()).unwrap();
        let from = "http://a/b/c".parse().unwrap();
        assert_eq!(target(&from, &answer("http://u:p@x/y")).unwrap().unwrap(), "http://x/y");
        assert_eq!(target(&from, &answer("d?e")).unwrap().unwrap(), "http://a/b/d?e");
        assert!(target(&from, &answer("ftp://x/")).is_err());
        assert!(target(&from, &Response::new(())).unwrap().is_none());
    }
}
