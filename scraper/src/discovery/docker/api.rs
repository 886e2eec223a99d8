//! Asking a Docker daemon: over its Unix socket, TCP or HTTP(S), in a version of the API that both sides know.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use model::{ConfigError, ConfigPath};
use net::http::{HttpClientConfig, SendLimits, send_over_unix};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::super::DiscoveryContext;
use super::super::client::{ANSWER_MAX_BYTES, ApiClient, shown};
use super::super::refresh::RefreshError;

/// The newest version of the API whose answers are read here.
const VERSION: (u32, u32) = (1, 44);
/// How long the daemon may take to say its version.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Host {
    Unix(PathBuf),
    /// Whether the HTTP client block counts: only where the host is given as a URL of HTTP, as in Prometheus.
    Web {
        url: Url,
        has_client: bool,
    },
}

impl Host {
    /// `unix:///path`, `tcp://host:port`, `http://…`, `https://…`.
    ///
    /// # Errors
    /// When it is missing or of another form.
    pub(super) fn parse(text: &str, path: &ConfigPath) -> Result<Self, ConfigError> {
        if text.is_empty() {
            return Err(ConfigError::new(path, "host missing"));
        }
        let wrong = |reason: String| ConfigError::new(&path.key("host"), reason);
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong(
                "unable to parse docker host: use unix://, tcp://, http:// or https://".to_owned(),
            ));
        };
        match scheme {
            "unix" if rest.is_empty() => Err(wrong("no path to the Docker socket".to_owned())),
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" | "http" | "https" => {
                let web = if scheme == "tcp" { format!("http://{rest}") } else { text.to_owned() };
                // The text may hold a password: it is not repeated.
                let url = Url::parse(&web).map_err(|error| wrong(format!("invalid URL: {error}")))?;
                Ok(Self::Web { url, has_client: scheme != "tcp" })
            }
            other => Err(wrong(format!("docker hosts of scheme {other:?} are not supported"))),
        }
    }

    /// The place, without credentials.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Unix(socket) => format!("unix://{}", socket.display()),
            Self::Web { url, .. } => shown(url),
        }
    }
}

/// A daemon.
#[derive(Debug)]
pub(super) struct DockerApi {
    host: Host,
    client: ApiClient,
    user_agent: String,
    timeout: Duration,
    /// `/v1.44`, once the daemon has said what it speaks.
    prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Complaint {
    message: String,
}

impl DockerApi {
    pub(super) fn new(
        host: &Host,
        http: &HttpClientConfig,
        timeout: Duration,
        context: &DiscoveryContext,
    ) -> Self {
        let config = match host {
            Host::Web { has_client: true, .. } => http.clone(),
            _ => HttpClientConfig::default(),
        };
        Self {
            host: host.clone(),
            client: ApiClient::new(config, context),
            user_agent: context.user_agent.clone(),
            timeout,
            prefix: None,
        }
    }

    /// Agrees on a version, if not done yet.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub(super) async fn negotiate(&mut self) -> Result<(), RefreshError> {
        if self.prefix.is_none() {
            let answer = self.send("/_ping", "", PING_TIMEOUT.min(self.timeout)).await?;
            let theirs = answer.headers().get("api-version").and_then(|value| version(value.to_str().ok()?));
            // Who does not say is asked without a version, and answers in its own.
            self.prefix = Some(match theirs {
                Some(theirs) => {
                    let (major, minor) = theirs.min(VERSION);
                    format!("/v{major}.{minor}")
                }
                None => String::new(),
            });
        }
        Ok(())
    }

    /// Forgets the version: the daemon may be another now.
    pub(super) fn forget_version(&mut self) {
        self.prefix = None;
    }

    /// Asks for `path` and reads the answer.
    ///
    /// # Errors
    /// When there is none, or it is a refusal, or of another shape.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        filters: &str,
    ) -> Result<T, RefreshError> {
        let path = format!("{}{path}", self.prefix.as_deref().unwrap_or_default());
        let answer = self.send(&path, filters, self.timeout).await?;
        let status = answer.status();
        if status != StatusCode::OK {
            let complaint: Complaint = serde_json::from_slice(answer.body()).unwrap_or_default();
            let text = match complaint.message.as_str() {
                "" => super::super::client::status_text(status),
                message => message.to_owned(),
            };
            return Err(RefreshError::Other(format!("error response from daemon: {text}")));
        }
        serde_json::from_slice(answer.body()).map_err(|error| RefreshError::Decode {
            from: format!("{}{path}", self.host.shown()),
            reason: error.to_string(),
        })
    }

    async fn send(
        &self,
        path: &str,
        filters: &str,
        timeout: Duration,
    ) -> Result<Response<Bytes>, RefreshError> {
        let mut query = String::new();
        if !filters.is_empty() {
            let encoded: String = url::form_urlencoded::byte_serialize(filters.as_bytes()).collect();
            query = format!("?filters={encoded}");
        }
        let limits = SendLimits { timeout, body_max_bytes: ANSWER_MAX_BYTES };
        let invalid = |error: http::Error| RefreshError::Other(format!("invalid docker host: {error}"));
        match &self.host {
            Host::Unix(socket) => {
                let mut request =
                    Request::get(format!("{path}{query}")).body(Bytes::new()).map_err(invalid)?;
                if let Ok(agent) = HeaderValue::from_str(&self.user_agent) {
                    request.headers_mut().insert(USER_AGENT, agent);
                }
                let shown = format!("{}{path}", self.host.shown());
                send_over_unix(socket, request, limits)
                    .await
                    .map_err(|source| RefreshError::Net { url: shown, source })
            }
            Host::Web { url, .. } => {
                let mut url = url.clone();
                let whole = format!("{}{path}", url.path().trim_end_matches('/'));
                url.set_path(&whole);
                url.set_query(query.strip_prefix('?'));
                self.client.get(&url, http::HeaderMap::new(), timeout).await
            }
        }
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// One of `filters`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct DockerFilter {
    /// What is looked at.
    pub name: String,
    /// Any of these will do.
    pub values: Vec<String>,
}

/// The filters as the API takes them: `{"label":{"a":true,"b":true}}`, or nothing.
pub(super) fn filter_text(filters: &[DockerFilter]) -> String {
    let mut by_name = serde_json::Map::new();
    for filter in filters.iter().filter(|filter| !filter.values.is_empty()) {
        let entry = by_name.entry(filter.name.clone()).or_insert_with(|| serde_json::json!({}));
        for value in &filter.values {
            entry[value.as_str()] = serde_json::Value::Bool(true);
        }
    }
    if by_name.is_empty() { String::new() } else { serde_json::Value::Object(by_name).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_four_forms() {
        let parse = |text: &str| Host::parse(text, &ConfigPath::root()).map_err(|error| error.to_string());
        assert_eq!(parse("unix:///run/d.sock").unwrap(), Host::Unix(PathBuf::from("/run/d.sock")));
        let web = |url: &str, has_client| Host::Web { url: Url::parse(url).unwrap(), has_client };
        assert_eq!(parse("tcp://a:2375").unwrap(), web("http://a:2375", false));
        assert_eq!(parse("https://a:2376/x").unwrap(), web("https://a:2376/x", true));
        for (bad, expected) in [
            ("", "host missing"),
            ("/run/d.sock", "unable to parse docker host"),
            ("unix://", "no path"),
            ("ssh://a", "\"ssh\" are not supported"),
            ("http://", "invalid URL"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn filters_are_written_as_the_daemon_reads_them() {
        let filter = |name: &str, values: &[&str]| DockerFilter {
            name: name.into(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert_eq!(filter_text(&[]), "");
        assert_eq!(
            filter_text(&[filter("label", &["b", "a"]), filter("name", &["c"]), filter("label", &["d"])]),
            r#"{"label":{"a":true,"b":true,"d":true},"name":{"c":true}}"#
        );
    }
}
