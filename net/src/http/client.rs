//! The client: connections are kept and reused, secrets and certificates are read anew when their files change,
//! redirects are followed without taking credentials elsewhere, and every answer has a bound in time and bytes.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, COOKIE, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::config::{Credentials, HttpClientConfig, SecretSource};
use crate::error::NetError;

/// Most redirects followed for one request (as Go's client).
const REDIRECTS_MAX: usize = 10;
/// How often certificate files are looked at for changes.
const TLS_FILES_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long an idle connection is kept (as Prometheus' client).
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

type Inner = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What a client is, beside its configuration.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `User-Agent` of requests that do not bring their own.
    pub user_agent: String,
    /// Most idle connections kept per host.
    pub idle_connections_max: usize,
}

impl ClientOptions {
    /// The options everybody starts from.
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self { user_agent: user_agent.into(), idle_connections_max: 4 }
    }
}

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    /// For everything: connecting, redirects, the whole answer.
    pub timeout: Duration,
    /// Most bytes of the answer's body.
    pub body_max_bytes: u64,
}

/// An HTTP client. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

struct Shared {
    config: HttpClientConfig,
    options: ClientOptions,
    inner: ArcSwap<Inner>,
    /// When the TLS files were last looked at, and their times of change then.
    seen: Mutex<(Instant, Vec<Option<SystemTime>>)>,
}

impl HttpClient {
    /// A client for `config`. Reads certificate files; does not connect.
    ///
    /// # Errors
    /// When certificates or keys cannot be read or do not fit.
    pub fn new(config: &HttpClientConfig, options: ClientOptions) -> Result<Self, NetError> {
        let inner = build_inner(config, &options)?;
        Ok(Self {
            shared: Arc::new(Shared {
                inner: ArcSwap::from_pointee(inner),
                seen: Mutex::new((Instant::now(), change_times(config))),
                config: config.clone(),
                options,
            }),
        })
    }

    /// Sends `request` and reads the whole answer. Any status is an answer; the body is as received (still compressed).
    ///
    /// # Errors
    /// When no whole answer came within the bounds.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        limits: SendLimits,
    ) -> Result<Response<Bytes>, NetError> {
        tokio::time::timeout(limits.timeout, async {
            let answer = self.follow(request).await?;
            read_body(answer, limits.body_max_bytes).await
        })
        .await
        .map_err(|_| NetError::Timeout)?
    }

    /// Sends `request` and returns as soon as the answer's head is there; its body is read piece by piece, for answers
    /// that end only with the connection (a watch). `timeout` bounds the head alone: who reads bounds the rest.
    ///
    /// # Errors
    /// When no head came in time.
    pub async fn open(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<AnswerBody>, NetError> {
        let answer =
            tokio::time::timeout(timeout, self.follow(request)).await.map_err(|_| NetError::Timeout)??;
        Ok(answer.map(|body| AnswerBody { body }))
    }

    /// Sends `request`, and again to wherever it is redirected.
    async fn follow(&self, mut request: Request<Bytes>) -> Result<Response<hyper::body::Incoming>, NetError> {
        self.reload_certificates()?;
        let headers = request.headers_mut();
        if !headers.contains_key(USER_AGENT)
            && let Ok(agent) = HeaderValue::from_str(&self.shared.options.user_agent)
        {
            headers.insert(USER_AGENT, agent);
        }
        self.add_configured_headers(headers).await?;
        self.add_credentials(headers).await?;
        let (mut parts, mut body) = request.into_parts();
        for _ in 0..=REDIRECTS_MAX {
            let mut hop = Request::new(Full::new(body.clone()));
            *hop.method_mut() = parts.method.clone();
            *hop.uri_mut() = parts.uri.clone();
            *hop.headers_mut() = parts.headers.clone();
            let address = address_of(&parts.uri)?;
            let inner = self.shared.inner.load_full();
            let answer = inner.request(hop).await.map_err(|error| describe(&error, &address))?;
            let Some(next) = self.redirect(&parts.uri, &answer)? else {
                return Ok(answer);
            };
            if !keeps_method(answer.status(), &parts.method) {
                parts.method = if parts.method == Method::HEAD { Method::HEAD } else { Method::GET };
                body = Bytes::new();
                for name in ["content-type", "content-length", "content-encoding", "transfer-encoding"] {
                    parts.headers.remove(name);
                }
            }
            // Another host, or the same without encryption.
            if (next.scheme(), next.authority()) != (parts.uri.scheme(), parts.uri.authority()) {
                self.drop_credentials(&mut parts.headers);
            }
            parts.headers.remove(HOST);
            parts.uri = next;
        }
        Err(NetError::TooManyRedirects(REDIRECTS_MAX))
    }

    /// Where `answer` sends us, if it does and we go.
    fn redirect<B>(&self, from: &Uri, answer: &Response<B>) -> Result<Option<Uri>, NetError> {
        let is_redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) =
            answer.headers().get(LOCATION).filter(|_| is_redirect && self.shared.config.follow_redirects)
        else {
            return Ok(None);
        };
        let invalid = |reason: String| NetError::InvalidUrl(format!("redirect: {reason}"));
        let location = location.to_str().map_err(|error| invalid(error.to_string()))?;
        let base = url::Url::parse(&from.to_string()).map_err(|error| invalid(error.to_string()))?;
        let next = base.join(location).map_err(|error| invalid(error.to_string()))?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(invalid(format!("unsupported protocol scheme {:?}", next.scheme())));
        }
        next.as_str().parse().map(Some).map_err(|error: http::uri::InvalidUri| invalid(error.to_string()))
    }

    async fn add_configured_headers(&self, headers: &mut HeaderMap) -> Result<(), NetError> {
        for (name, source) in &self.shared.config.headers {
            headers.append(name, sensitive(&read_secret(source).await?)?);
        }
        Ok(())
    }

    async fn add_credentials(&self, headers: &mut HeaderMap) -> Result<(), NetError> {
        let text = match &self.shared.config.credentials {
            Credentials::None => return Ok(()),
            Credentials::Basic { username, password } => {
                let pair = format!("{}:{}", read_secret(username).await?, read_secret(password).await?);
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            Credentials::Authorization { scheme, credentials } => {
                format!("{scheme} {}", read_secret(credentials).await?)
            }
        };
        if !headers.contains_key(AUTHORIZATION) {
            headers.insert(AUTHORIZATION, sensitive(&text)?);
        }
        Ok(())
    }

    /// Another host gets neither credentials nor the headers that may carry them.
    fn drop_credentials(&self, headers: &mut HeaderMap) {
        for name in [AUTHORIZATION, COOKIE, WWW_AUTHENTICATE] {
            headers.remove(name);
        }
        for (name, _) in &self.shared.config.headers {
            headers.remove(name);
        }
    }

    /// Builds the connector anew when a certificate file has changed. Looks at most every few seconds.
    fn reload_certificates(&self) -> Result<(), NetError> {
        let shared = &self.shared;
        if shared.config.tls.files().is_empty() {
            return Ok(());
        }
        let mut seen = shared.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.0.elapsed() < TLS_FILES_CHECK_INTERVAL {
            return Ok(());
        }
        seen.0 = Instant::now();
        let times = change_times(&shared.config);
        if times != seen.1 {
            let inner = build_inner(&shared.config, &shared.options)?;
            shared.inner.store(Arc::new(inner));
            seen.1 = times;
            tracing::info!("certificate files changed: reloaded");
        }
        Ok(())
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// The body of an answer that is still coming in.
#[derive(Debug)]
pub struct AnswerBody {
    body: hyper::body::Incoming,
}

impl AnswerBody {
    /// The next piece, `None` at the end. Safe to drop at any point.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, NetError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| NetError::Protocol(root_cause(&error)))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

fn build_inner(config: &HttpClientConfig, options: &ClientOptions) -> Result<Inner, NetError> {
    let tls = config.tls.client_config()?;
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let builder = match &config.tls.server_name {
        Some(name) => {
            let name =
                ServerName::try_from(name.clone()).map_err(|error| NetError::Tls(error.to_string()))?;
            builder.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => builder,
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let connector = if config.enable_http2 {
        builder.enable_all_versions().wrap_connector(tcp)
    } else {
        builder.enable_http1().wrap_connector(tcp)
    };
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(options.idle_connections_max)
        .http1_max_buf_size(1 << 20)
        // `X-Token`, not `x-token`: as Go writes names, for receivers that compare them by case.
        .http1_title_case_headers(true)
        .build(connector))
}

fn change_times(config: &HttpClientConfig) -> Vec<Option<SystemTime>> {
    let changed = |path: &std::path::Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    config.tls.files().into_iter().map(changed).collect()
}

async fn read_secret(source: &SecretSource) -> Result<String, NetError> {
    match source {
        SecretSource::Inline(secret) => Ok(secret.expose().to_owned()),
        SecretSource::File(path) => {
            let error = |path: &PathBuf, error: std::io::Error| NetError::File {
                path: path.clone(),
                reason: error.to_string(),
            };
            let text = tokio::fs::read_to_string(path).await.map_err(|e| error(path, e))?;
            Ok(text.trim().to_owned())
        }
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, NetError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        NetError::Protocol("a configured secret holds characters not allowed in a header".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn address_of(uri: &Uri) -> Result<String, NetError> {
    let host = uri.host().ok_or_else(|| NetError::InvalidUrl(format!("{uri} has no host")))?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    Ok(format!("{host}:{port}"))
}

/// 307 and 308 repeat the request as it was; the others turn into a GET (RFC 9110, 15.4, and what clients do).
fn keeps_method(status: StatusCode, method: &Method) -> bool {
    matches!(status.as_u16(), 307 | 308) || matches!(*method, Method::GET | Method::HEAD)
}

/// Bytes that are made ready for a body because the server says it is so long.
const ANNOUNCED_MAX: u64 = 1 << 20;

pub(super) async fn read_body(
    answer: Response<hyper::body::Incoming>,
    max: u64,
) -> Result<Response<Bytes>, NetError> {
    let (parts, mut body) = answer.into_parts();
    // What the server announces is believed up to a point: growing step by step copies everything several times.
    let announced = hyper::body::Body::size_hint(&body).exact().unwrap_or(0).min(max).min(ANNOUNCED_MAX);
    let mut buffer = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NetError::Protocol(root_cause(&error)))?;
        if let Ok(data) = frame.into_data() {
            if buffer.len() as u64 + data.len() as u64 > max {
                return Err(NetError::BodyTooLarge { limit: max });
            }
            buffer.extend_from_slice(&data);
        }
    }
    Ok(Response::from_parts(parts, buffer.freeze()))
}

fn describe(error: &hyper_util::client::legacy::Error, address: &str) -> NetError {
    if error.is_connect() {
        return NetError::Connect { address: address.to_owned(), reason: connect_reason(error) };
    }
    NetError::Protocol(root_cause(error))
}

/// The system's word for a failed connection, in Go's form.
fn connect_reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return "connect: connection refused".to_owned(),
                std::io::ErrorKind::ConnectionReset => return "connect: connection reset by peer".to_owned(),
                std::io::ErrorKind::TimedOut => return "i/o timeout".to_owned(),
                _ => {}
            }
        }
        source = cause.source();
    }
    root_cause(error)
}

pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
