//! Asking servers that know targets: one HTTP client for a discoverer, bounded answers, no credentials in errors.
//!
//! The client is made at the first request, not when the configuration is read: a certificate that is missing is a
//! refresh that failed, and the next one looks again.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use model::{ConfigError, ConfigPath};
use net::NetError;
use net::http::{ClientOptions, HttpClient, HttpClientConfig, SendLimits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::sync::OnceCell;
use url::Url;

use super::DiscoveryContext;
use super::refresh::RefreshError;

/// Most bytes of one answer.
pub(crate) const ANSWER_MAX_BYTES: u64 = 64 << 20;
/// How long one request may take when nothing else bounds it.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The client of a discoverer.
#[derive(Debug)]
pub(crate) struct ApiClient {
    config: HttpClientConfig,
    user_agent: String,
    client: OnceCell<HttpClient>,
}

impl ApiClient {
    /// A client that is made when first used.
    pub(crate) fn new(config: HttpClientConfig, context: &DiscoveryContext) -> Self {
        Self { config, user_agent: context.user_agent.clone(), client: OnceCell::new() }
    }

    /// Asks for JSON at `url`; credentials in the URL become a header. Any status is an answer.
    ///
    /// # Errors
    /// When no whole answer came.
    pub(crate) async fn get(
        &self,
        url: &Url,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<Response<Bytes>, RefreshError> {
        let mut request = Request::get(without_credentials(url).as_str())
            .body(Bytes::new())
            .map_err(|error| RefreshError::Other(format!("invalid url {:?}: {error}", shown(url))))?;
        *request.headers_mut() = headers;
        if let Some(basic) = basic_credentials(url) {
            request.headers_mut().entry(AUTHORIZATION).or_insert(basic);
        }
        self.send(request, &shown(url), SendLimits { timeout, body_max_bytes: ANSWER_MAX_BYTES }).await
    }

    /// Sends any request; `shown` stands for its URL in errors.
    ///
    /// # Errors
    /// When no whole answer came.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        shown: &str,
        limits: SendLimits,
    ) -> Result<Response<Bytes>, RefreshError> {
        let client = self.client.get_or_try_init(|| self.make()).await?;
        client
            .send(request, limits)
            .await
            .map_err(|source| RefreshError::Net { url: shown.to_owned(), source })
    }

    /// Reads certificates: on a blocking thread.
    async fn make(&self) -> Result<HttpClient, RefreshError> {
        let (config, agent) = (self.config.clone(), self.user_agent.clone());
        tokio::task::spawn_blocking(move || HttpClient::new(&config, ClientOptions::new(agent)))
            .await
            .unwrap_or_else(|error| Err(NetError::Tls(error.to_string())))
            .map_err(RefreshError::Client)
    }
}

/// `Accept: application/json`
pub(crate) fn accept_json() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))])
}

/// The answer when its status is 200.
///
/// # Errors
/// When it is another.
pub(crate) fn expect_ok(answer: Response<Bytes>) -> Result<Response<Bytes>, RefreshError> {
    if answer.status() == StatusCode::OK {
        Ok(answer)
    } else {
        Err(RefreshError::Status(status_text(answer.status())))
    }
}

/// `404 Not Found`, as Go writes it.
pub(crate) fn status_text(status: StatusCode) -> String {
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    format!("{}{reason}", status.as_u16())
}

/// The body as JSON.
///
/// # Errors
/// When it is none, or of another shape.
pub(crate) fn json<T: DeserializeOwned>(answer: &Response<Bytes>, from: &Url) -> Result<T, RefreshError> {
    serde_json::from_slice(answer.body())
        .map_err(|error| RefreshError::Decode { from: shown(from), reason: error.to_string() })
}

/// For JSON's `null`, which Go writes for lists and maps without entries: nothing.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The `Content-Type`, or nothing.
pub(crate) fn content_type(answer: &Response<Bytes>) -> String {
    answer
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}

/// The URL as it may be shown: a password in it is not (`xxxxx`, as Go's `URL.Redacted`).
pub(crate) fn shown(url: &Url) -> String {
    if url.password().is_none() {
        return url.to_string();
    }
    let mut shown = url.clone();
    // Fails only for URLs without a host, which have no password.
    let _ = shown.set_password(Some("xxxxx"));
    shown.to_string()
}

fn without_credentials(url: &Url) -> Url {
    let mut bare = url.clone();
    // Fail only for URLs without a host, which have no credentials.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_fragment(None);
    bare
}

/// What Go's client makes of `http://user:password@host/`.
fn basic_credentials(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut pair = plain(url.username());
    pair.push(b':');
    pair.extend(plain(url.password().unwrap_or_default()));
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `host:port`, in brackets when the host is an IPv6 address (Go's `net.JoinHostPort`).
pub(crate) fn join_host_port(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Characters that may not stand in a label name become `_`, as in Prometheus' `strutil.SanitizeLabelName`.
pub(crate) fn sanitize_label_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// A `refresh_interval` that can be used.
///
/// # Errors
/// When it is zero.
pub(crate) fn refresh_interval(
    interval: model::config::PromDuration,
    path: &ConfigPath,
) -> Result<Duration, ConfigError> {
    if interval.0.is_zero() {
        return Err(ConfigError::new(
            &path.key("refresh_interval"),
            "refresh interval must be greater than 0",
        ));
    }
    Ok(interval.0)
}

/// Declares an entry of `…_sd_configs` as written: its own keys and, because flattening would lose unknown keys and
/// places, each of the HTTP client block. Gives it `http_client()`.
macro_rules! raw_sd_config {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $kind:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "each field is the configuration key of its name")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $kind,)*
            pub basic_auth: Option<net::http::RawBasicAuth>,
            pub authorization: Option<net::http::RawAuthorization>,
            pub oauth2: Option<net::http::RawOauth2>,
            pub bearer_token: Option<model::Secret>,
            pub bearer_token_file: Option<std::path::PathBuf>,
            pub tls_config: Option<net::tls::RawTlsConfig>,
            pub proxy_url: Option<model::Secret>,
            pub no_proxy: Option<String>,
            pub proxy_from_environment: Option<bool>,
            pub proxy_connect_header: Option<std::collections::BTreeMap<String, Vec<model::Secret>>>,
            pub follow_redirects: Option<bool>,
            pub enable_http2: Option<bool>,
            pub http_headers: Option<std::collections::BTreeMap<String, net::http::RawHttpHeader>>,
        }

        impl $name {
            /// The HTTP client block.
            fn http_client(&self) -> net::http::RawHttpClientConfig {
                let defaults = net::http::RawHttpClientConfig::default();
                net::http::RawHttpClientConfig {
                    basic_auth: self.basic_auth.clone(),
                    authorization: self.authorization.clone(),
                    oauth2: self.oauth2.clone(),
                    bearer_token: self.bearer_token.clone(),
                    bearer_token_file: self.bearer_token_file.clone(),
                    tls_config: self.tls_config.clone(),
                    proxy_url: self.proxy_url.clone(),
                    no_proxy: self.no_proxy.clone(),
                    proxy_from_environment: self
                        .proxy_from_environment
                        .unwrap_or(defaults.proxy_from_environment),
                    proxy_connect_header: self.proxy_connect_header.clone(),
                    follow_redirects: self.follow_redirects.unwrap_or(defaults.follow_redirects),
                    enable_http2: self.enable_http2.unwrap_or(defaults.enable_http2),
                    http_headers: self.http_headers.clone().unwrap_or_default(),
                }
            }
        }
    };
}
pub(crate) use raw_sd_config;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_sent_and_not_shown() {
        let url = Url::parse("http://us%40er:p%3Aw@host:1/a?b=c").unwrap();
        assert_eq!(shown(&url), "http://us%40er:xxxxx@host:1/a?b=c");
        assert_eq!(without_credentials(&url).as_str(), "http://host:1/a?b=c");
        let header = basic_credentials(&url).unwrap();
        assert!(header.is_sensitive());
        // us@er:p:w
        assert_eq!(header, "Basic dXNAZXI6cDp3");
        assert_eq!(basic_credentials(&Url::parse("http://host/").unwrap()), None);
    }

    #[test]
    fn names_and_addresses_are_written_as_go_does() {
        assert_eq!(sanitize_label_name("fü-b.ar_1"), "f__b_ar_1");
        assert_eq!(join_host_port("a", 1), "a:1");
        assert_eq!(join_host_port("::1", 80), "[::1]:80");
        assert_eq!(status_text(StatusCode::NOT_FOUND), "404 Not Found");
    }
}
