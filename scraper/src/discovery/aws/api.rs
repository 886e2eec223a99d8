//! Asking AWS' services: signed requests in their two dialects (forms answered in XML, REST answered in JSON), with
//! repeats where AWS asks for patience.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use model::Clock;
use net::Backoff;
use net::backoff::BackoffPolicy;
use net::http::{HttpClientConfig, SendLimits};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use url::Url;

use super::credentials::{CredentialSource, Wanted};
use super::environment::Environment;
use super::sign::{Credentials, Unsigned, encoded, sign};
use super::xml::Element;
use crate::discovery::DiscoveryContext;
use crate::discovery::client::{ANSWER_MAX_BYTES, ApiClient, REQUEST_TIMEOUT};
use crate::discovery::refresh::RefreshError;

/// Attempts at one request (as AWS' SDKs).
const ATTEMPTS_MAX: u32 = 3;
/// Waits between them. Tests have no patience.
const RETRY: BackoffPolicy = BackoffPolicy {
    initial: Duration::from_millis(if cfg!(test) { 5 } else { 500 }),
    factor: 2.0,
    max: Duration::from_secs(20),
    jitter: 0.5,
};
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// Most pages of one list.
pub(super) const PAGES_MAX: usize = 2_000;

/// A service and the version of its form dialect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// The name in host names and signatures.
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

pub(super) const EC2: Service = Service { name: "ec2", version: "2016-11-15" };
pub(super) const ELASTICACHE: Service = Service { name: "elasticache", version: "2015-02-02" };
pub(super) const KAFKA: Service = Service { name: "kafka", version: "" };
pub(super) const STS: Service = Service { name: "sts", version: "2011-06-15" };

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// AWS said no.
    #[error("api error {code}: {message}")]
    Refused { status: u16, code: String, message: String },
    #[error(transparent)]
    Other(#[from] RefreshError),
}

impl Failure {
    /// Whether asking again may help.
    fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => {
                matches!(status, 429 | 500 | 502 | 503 | 504)
                    || code.starts_with("Throttl")
                    || matches!(code.as_str(), "RequestLimitExceeded" | "TooManyRequestsException")
            }
            Self::Other(RefreshError::Net { source, .. }) => source.is_transient(),
            Self::Other(_) => false,
        }
    }

    /// Whether the credentials are at fault.
    fn is_refused_credentials(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. })
            || matches!(self, Self::Refused { code, .. } if code.contains("Expired") || code == "AuthFailure")
    }

    /// What was being done when it happened.
    pub(super) fn during(self, what: &str) -> RefreshError {
        RefreshError::Other(format!("{what}: {self}"))
    }
}

/// Sends requests that are signed with given credentials.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) client: ApiClient,
    pub(super) clock: Arc<dyn Clock>,
}

/// Where and what to ask.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) service: Service,
    pub(super) region: &'a str,
    /// Instead of AWS' own.
    pub(super) endpoint: Option<&'a Url>,
    pub(super) method: Method,
    /// As it is sent.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: String,
}

impl Sender {
    /// Sends a call until it is answered or hopeless. Without credentials it is not signed.
    pub(super) async fn send(
        &self,
        call: &Call<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<Bytes, Failure> {
        let mut backoff = Backoff::new(RETRY);
        let mut attempt = 1;
        loop {
            match self.send_once(call, credentials).await {
                Err(error) if attempt < ATTEMPTS_MAX && error.is_transient() => {
                    tracing::debug!(%error, service = call.service.name, attempt, "asking AWS again");
                    attempt += 1;
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                result => return result,
            }
        }
    }

    async fn send_once(&self, call: &Call<'_>, credentials: Option<&Credentials>) -> Result<Bytes, Failure> {
        let invalid = |reason: String| RefreshError::Other(format!("invalid AWS endpoint: {reason}"));
        let url = match call.endpoint {
            Some(url) => url.clone(),
            None => endpoint(call.service, call.region).map_err(|error| invalid(error.to_string()))?,
        };
        let host = url.host_str().ok_or_else(|| invalid("no host".to_owned()))?;
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let path = format!("{}{}", url.path().trim_end_matches('/'), call.path);
        let query: Vec<String> = call
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name, false), encoded(value, false)))
            .collect();
        let separator = if query.is_empty() { "" } else { "?" };
        let whole = format!("{}://{host}{path}{separator}{}", url.scheme(), query.join("&"));
        let shown = format!("{}://{host}{path}", url.scheme());
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(whole)
            .body(Bytes::from(call.body.clone()))
            .map_err(|error| invalid(error.to_string()))?;
        let mut signed = vec![("host", host.as_str())];
        if !call.body.is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
            signed.push(("content-type", FORM));
        }
        let value = HeaderValue::from_str(&host).map_err(|error| invalid(error.to_string()))?;
        request.headers_mut().insert(HOST, value);
        if let Some(credentials) = credentials {
            let unsigned = Unsigned {
                method: call.method.as_str(),
                path: &path,
                query: &call.query,
                headers: &signed,
                body: call.body.as_bytes(),
                region: call.region,
                service: call.service.name,
            };
            for (name, text) in sign(&unsigned, credentials, self.clock.now_ms()) {
                let mut value = HeaderValue::from_str(text.expose()).map_err(|_| {
                    RefreshError::Other("AWS credentials hold characters not allowed in a header".to_owned())
                })?;
                value.set_sensitive(true);
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        let limits = SendLimits { timeout: REQUEST_TIMEOUT, body_max_bytes: ANSWER_MAX_BYTES };
        let answer = self.client.send(request, &shown, limits).await?;
        if answer.status().is_success() { Ok(answer.into_body()) } else { Err(refusal(&answer)) }
    }
}

fn endpoint(service: Service, region: &str) -> Result<Url, url::ParseError> {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    Url::parse(&format!("https://{}.{region}.{suffix}", service.name))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JsonRefusal {
    #[serde(alias = "Message")]
    message: String,
    #[serde(rename = "__type")]
    kind: String,
    code: String,
}

/// What a refusal says, in XML or JSON.
fn refusal(answer: &Response<Bytes>) -> Failure {
    let status = answer.status();
    let (mut code, mut message) = (String::new(), String::new());
    if let Ok(root) = Element::parse(answer.body()) {
        let error = root.find("Errors/Error").or_else(|| root.find("Error"));
        if let Some(error) = error {
            code = error.get("Code").unwrap_or_default().to_owned();
            message = error.get("Message").unwrap_or_default().to_owned();
        }
    } else if let Ok(json) = serde_json::from_slice::<JsonRefusal>(answer.body()) {
        let header = answer.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let kind = header.unwrap_or(if json.kind.is_empty() { &json.code } else { &json.kind });
        code = kind.split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default().to_owned();
        message = json.message;
    }
    if code.is_empty() {
        code = crate::discovery::client::status_text(status);
    }
    Failure::Refused { status: status.as_u16(), code, message }
}

/// What all kinds of AWS discovery are configured with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Account {
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<Url>,
    pub(super) wanted: Wanted,
    pub(super) http: HttpClientConfig,
    pub(super) environment: Environment,
}

/// A service in a region, as an account.
#[derive(Debug)]
pub(super) struct AwsApi {
    service: Service,
    configured_region: Option<String>,
    endpoint: Option<Url>,
    sender: Sender,
    credentials: CredentialSource,
    region: OnceCell<String>,
}

impl AwsApi {
    pub(super) fn new(service: Service, account: &Account, context: &DiscoveryContext) -> Self {
        Self {
            service,
            configured_region: account.region.clone(),
            endpoint: account.endpoint.clone(),
            sender: Sender {
                client: ApiClient::new(account.http.clone(), context),
                clock: Arc::clone(&context.clock),
            },
            credentials: CredentialSource::new(account, context),
            region: OnceCell::new(),
        }
    }

    /// The region: as configured, or as the environment, the profile or the machine says.
    ///
    /// # Errors
    /// When none of them does.
    pub(super) async fn region(&self) -> Result<&str, RefreshError> {
        let find = || async {
            match &self.configured_region {
                Some(region) => Ok(region.clone()),
                None => self.credentials.region().await,
            }
        };
        self.region.get_or_try_init(find).await.map(String::as_str)
    }

    /// An action of the form dialect.
    pub(super) async fn action(
        &self,
        action: &str,
        params: Vec<(String, String)>,
    ) -> Result<Element, Failure> {
        let body = form(action, self.service, &params);
        let body = self.send(Method::POST, "/".to_owned(), Vec::new(), body).await?;
        Element::parse(&body).map_err(|reason| {
            Failure::Other(RefreshError::Decode { from: format!("{} {action}", self.service.name), reason })
        })
    }

    /// A resource of the REST dialect. `path` is as it is sent.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: String,
        query: Vec<(String, String)>,
    ) -> Result<T, Failure> {
        let shown = format!("{} {path}", self.service.name);
        let body = self.send(Method::GET, path, query, String::new()).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Failure::Other(RefreshError::Decode { from: shown, reason: error.to_string() }))
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        query: Vec<(String, String)>,
        body: String,
    ) -> Result<Bytes, Failure> {
        let region = self.region().await?;
        let credentials = self.credentials.get(region).await?;
        let call = Call {
            service: self.service,
            region,
            endpoint: self.endpoint.as_ref(),
            method,
            path,
            query,
            body,
        };
        let result = self.sender.send(&call, Some(&credentials)).await;
        if let Err(error) = &result
            && error.is_refused_credentials()
        {
            self.credentials.forget().await;
        }
        result
    }
}

/// The body of an action.
pub(super) fn form(action: &str, service: Service, params: &[(String, String)]) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.append_pair("Action", action).append_pair("Version", service.version);
    for (name, value) in params {
        text.append_pair(name, value);
    }
    text.finish()
}

/// A parameter.
pub(super) fn param(name: impl Into<String>, value: impl Into<String>) -> (String, String) {
    (name.into(), value.into())
}
