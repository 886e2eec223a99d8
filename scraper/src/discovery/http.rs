//! `http_sd_configs`: target groups in JSON from an HTTP server.
//!
//! The server is told how often it is asked (`X-Prometheus-Refresh-Interval-Seconds`) and must answer 200 with
//! `application/json`: the groups of `static_configs`. Anything else is a failure as a whole.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Response};
use model::config::PromDuration;
use model::{ConfigError, ConfigPath, LabelsBuilder};
use net::http::HttpClientConfig;
use url::Url;

use super::client::{self, ApiClient, raw_sd_config};
use super::file::RawTargetGroup;
use super::refresh::{Refresh, RefreshError, Refresher};
use super::{Discoverer, DiscoveryConfig, DiscoveryContext, SdMetrics, TargetGroup, is_equal};

const REFRESH_INTERVAL: PromDuration = PromDuration::from_secs(60);
const INTERVAL_HEADER: HeaderName = HeaderName::from_static("x-prometheus-refresh-interval-seconds");
/// The label that says which URL a target is from.
const URL_LABEL: &str = "__meta_url";

raw_sd_config! {
    /// An entry of `http_sd_configs` as written.
    pub struct RawHttpSdConfig {
        pub url: Option<String>,
        pub refresh_interval: Option<PromDuration>,
    }
}

/// A valid entry of `http_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSdConfig {
    url: Url,
    /// As written: what `__meta_url` says, unless it holds a password.
    url_text: String,
    refresh_interval: Duration,
    http: HttpClientConfig,
}

impl RawHttpSdConfig {
    /// Checks the entry; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When there is no URL of HTTP with a host, or the HTTP client block is wrong.
    pub fn build(self, path: &ConfigPath, dir: &Path) -> Result<HttpSdConfig, ConfigError> {
        let here = path.key("url");
        let http = self.http_client();
        let text = self.url.unwrap_or_default();
        if text.is_empty() {
            return Err(ConfigError::new(path, "URL is missing"));
        }
        let url = web_url(&text, &here)?;
        let url_text = if url.password().is_some() { client::shown(&url) } else { text };
        Ok(HttpSdConfig {
            url,
            url_text,
            refresh_interval: client::refresh_interval(
                self.refresh_interval.unwrap_or(REFRESH_INTERVAL),
                path,
            )?,
            http: http.build(path, dir)?,
        })
    }
}

/// A URL of HTTP with a host; texts are Prometheus'.
fn web_url(text: &str, path: &ConfigPath) -> Result<Url, ConfigError> {
    let error = |message: String| ConfigError::new(path, message);
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(error("URL scheme must be 'http' or 'https'".to_owned()));
    }
    match Url::parse(text) {
        Ok(url) if url.has_host() => Ok(url),
        Ok(_) | Err(url::ParseError::EmptyHost) => Err(error("host is missing in URL".to_owned())),
        // The text may hold a password: it is not repeated.
        Err(reason) => Err(error(format!("invalid URL: {reason}"))),
    }
}

impl DiscoveryConfig for HttpSdConfig {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        let source = HttpTargets {
            config: self.clone(),
            client: ApiClient::new(self.http.clone(), context),
            metrics: Arc::clone(&context.metrics),
        };
        Box::new(Refresher::new("http", self.refresh_interval, context, source))
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        self.url_text.clone()
    }
}

struct HttpTargets {
    config: HttpSdConfig,
    client: ApiClient,
    metrics: Arc<SdMetrics>,
}

impl Refresh for HttpTargets {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(async {
            let result = self.ask().await;
            if result.is_err() {
                self.metrics.http_failures.inc();
            }
            result
        })
    }
}

impl HttpTargets {
    async fn ask(&self) -> Result<Vec<TargetGroup>, RefreshError> {
        let config = &self.config;
        let mut headers = client::accept_json();
        let seconds = model::float::format_fixed(config.refresh_interval.as_secs_f64());
        if let Ok(seconds) = HeaderValue::from_str(&seconds) {
            headers.insert(INTERVAL_HEADER, seconds);
        }
        // A refresh may take as long as the next one is away.
        let answer = self.client.get(&config.url, headers, config.refresh_interval).await?;
        config.groups(&client::expect_ok(answer)?)
    }
}

impl HttpSdConfig {
    fn groups(&self, answer: &Response<Bytes>) -> Result<Vec<TargetGroup>, RefreshError> {
        let content_type = client::content_type(answer);
        if !is_json(content_type.trim()) {
            return Err(RefreshError::ContentType(content_type));
        }
        let broken = |reason: String| RefreshError::Decode { from: self.url_text.clone(), reason };
        // `null` is no groups, as in Go.
        let raw: Option<Vec<Option<RawTargetGroup>>> = client::json(answer, &self.url)?;
        let mut groups = Vec::new();
        for (index, raw) in raw.into_iter().flatten().enumerate() {
            let raw = raw.ok_or_else(|| broken("nil target group item found".to_owned()))?;
            let mut group = raw.build(format!("{}:{index}", self.url_text)).map_err(broken)?;
            let mut labels = LabelsBuilder::from(&group.labels);
            labels.set(URL_LABEL, self.url_text.as_str());
            group.labels = labels.build();
            groups.push(group);
        }
        Ok(groups)
    }
}

/// `application/json`, at most with the character set UTF-8; in any case of letters.
fn is_json(content_type: &str) -> bool {
    let text = content_type.to_ascii_lowercase();
    let Some(rest) = text.strip_prefix("application/json") else { return false };
    rest.is_empty()
        || rest
            .strip_prefix(';')
            .is_some_and(|rest| matches!(rest.trim_start(), "charset=utf-8" | "charset=\"utf-8\""))
}
