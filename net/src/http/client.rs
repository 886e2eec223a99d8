//! The client: connections are kept and reused, secrets and certificates are read anew when their files change,
//! redirects are followed without taking credentials elsewhere, and every answer has a bound in time and bytes.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::config::{Credentials, HttpClientConfig};
use super::connect::{Answers, Connector, Settings, host_and_port};
use super::oauth2::TokenSource;
use super::proxy::{Proxies, ProxyKind};
use super::{redirect, trouble};
use crate::error::NetError;
use crate::tls::FileStamp;

/// Most requests made for one: what comes after so many redirects is not followed (as Go's client).
const REDIRECTS_MAX: usize = 10;
/// How long certificates in use stay so when the files that replace them do not fit (yet).
const TLS_FILES_GRACE: Duration = Duration::from_secs(10);
/// How long an idle connection is kept (as Prometheus' client).
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Most bytes of an answer's status line and headers.
const HEADERS_MAX_BYTES: u32 = 1 << 20;
/// How long nothing may come on an HTTP/2 connection before we ask whether the other side is still there, and how long
/// it may take to say so (as Prometheus' client).
const H2_PING_INTERVAL: Duration = Duration::from_secs(60);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(15);

type Inner = Client<Connector, Full<Bytes>>;

/// What a client is, beside its configuration.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `User-Agent` of requests that do not bring their own.
    pub user_agent: String,
    /// Most idle connections kept per host.
    pub idle_connections_max: usize,
    /// For looking up a name and connecting, and for what a proxy needs to do so.
    pub connect_timeout: Duration,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// From the request to the headers of the answer; `None`: only the bound of the whole holds.
    pub header_timeout: Option<Duration>,
    /// How often certificate files are looked at for changes, at most.
    pub tls_files_check_interval: Duration,
}

impl ClientOptions {
    /// The options everybody starts from.
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self {
            user_agent: user_agent.into(),
            idle_connections_max: 4,
            connect_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: None,
            tls_files_check_interval: Duration::from_secs(1),
        }
    }
}

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    /// For everything: connecting, tokens, redirects, the whole answer.
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
    proxies: Proxies,
    inner: ArcSwap<Inner>,
    has_tls_files: bool,
    tls_files: Mutex<TlsFiles>,
    tokens: Option<TokenSource>,
}

/// What is known of the files the connector was made of.
struct TlsFiles {
    looked: Instant,
    used: Vec<FileStamp>,
    /// Since when they cannot be used, and why.
    failing: Option<(Instant, NetError)>,
}

impl HttpClient {
    /// A client for `config`. Reads certificate files; does not connect.
    ///
    /// # Errors
    /// When certificates or keys cannot be read or do not fit.
    pub fn new(config: &HttpClientConfig, options: ClientOptions) -> Result<Self, NetError> {
        let proxies = config.proxy.resolve(|name| std::env::var(name).ok());
        let tokens = match &config.credentials {
            Credentials::Oauth2(oauth2) => Some(TokenSource::new(oauth2, &options)?),
            _ => None,
        };
        // Before the files are read: a change between the two is seen.
        let used = config.tls.stamps();
        let inner = build_inner(config, &options, &proxies)?;
        Ok(Self {
            shared: Arc::new(Shared {
                inner: ArcSwap::from_pointee(inner),
                has_tls_files: !used.is_empty(),
                tls_files: Mutex::new(TlsFiles { looked: Instant::now(), used, failing: None }),
                config: config.clone(),
                options,
                proxies,
                tokens,
            }),
        })
    }

    /// Sends `request` and reads the whole answer. Any status is an answer; the body is as received (still compressed).
    /// A user and a password in the URL become `Authorization: Basic`.
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

    /// [`HttpClient::send`] for those whom it calls itself.
    pub(super) fn send_boxed(
        &self,
        request: Request<Bytes>,
        limits: SendLimits,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, NetError>> + Send + '_>> {
        Box::pin(self.send(request, limits))
    }

    /// Sends `request`, and again to wherever it is redirected.
    async fn follow(&self, request: Request<Bytes>) -> Result<Response<Incoming>, NetError> {
        let inner = self.inner()?;
        let (mut parts, mut body) = request.into_parts();
        take_userinfo(&mut parts)?;
        let headers = &mut parts.headers;
        if !headers.contains_key(USER_AGENT)
            && let Ok(agent) = HeaderValue::from_str(&self.shared.options.user_agent)
        {
            headers.insert(USER_AGENT, agent);
        }
        self.add_configured_headers(headers).await?;
        let mut token = self.add_credentials(headers).await?;
        for _ in 0..REDIRECTS_MAX {
            let mut answer = self.round_trip(&inner, &parts, &body).await?;
            if answer.status() == StatusCode::UNAUTHORIZED
                && let Some(refused) = token.take()
                && let Some(tokens) = &self.shared.tokens
                && let Some(other) = tokens.replace(&refused).await?
            {
                drop(answer);
                parts.headers.insert(AUTHORIZATION, other);
                answer = self.round_trip(&inner, &parts, &body).await?;
            }
            let next = match self.shared.config.follow_redirects {
                true => redirect::target(&parts.uri, &answer)?,
                false => None,
            };
            let Some(next) = next else { return Ok(answer) };
            if !redirect::keeps_method(answer.status(), &parts.method) {
                parts.method = if parts.method == Method::HEAD { Method::HEAD } else { Method::GET };
                body = Bytes::new();
                for name in ["content-type", "content-length", "content-encoding", "transfer-encoding"] {
                    parts.headers.remove(name);
                }
            }
            if !redirect::keeps_credentials(&parts.uri, &next) {
                let configured = self.shared.config.headers.iter().map(|(name, _)| name);
                redirect::drop_credentials(&mut parts.headers, configured);
                token = None;
            }
            parts.headers.remove(HOST);
            parts.uri = next;
        }
        Err(NetError::TooManyRedirects(REDIRECTS_MAX))
    }

    /// One request, up to the headers of the answer. A kept connection that turns out to be closed is replaced, if
    /// asking twice does no harm.
    async fn round_trip(
        &self,
        inner: &Inner,
        parts: &request::Parts,
        body: &Bytes,
    ) -> Result<Response<Incoming>, NetError> {
        host_and_port(&parts.uri)?;
        for attempt in 0.. {
            let mut hop = Request::new(Full::new(body.clone()));
            *hop.method_mut() = parts.method.clone();
            *hop.uri_mut() = parts.uri.clone();
            *hop.headers_mut() = parts.headers.clone();
            if parts.uri.scheme_str() == Some("http")
                && let Some(proxy) = self.shared.proxies.of(&parts.uri)
                && proxy.kind != ProxyKind::Socks5
                && let Some(authorization) = proxy.authorization()
            {
                hop.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
            }
            let asking = inner.request(hop);
            let answered = match self.shared.options.header_timeout {
                None => asking.await,
                Some(timeout) => tokio::time::timeout(timeout, asking).await.map_err(|_| {
                    NetError::Protocol("net/http: timeout awaiting response headers".to_owned())
                })?,
            };
            match answered {
                Ok(answer) => {
                    if let Some(answers) = answer.extensions().get::<Answers>() {
                        answers.count_one();
                    }
                    return Ok(answer);
                }
                Err(error)
                    if attempt <= self.shared.options.idle_connections_max
                        && matches!(parts.method, Method::GET | Method::HEAD)
                        && was_kept(&error)
                        && trouble::broke_off(&error) => {}
                Err(error) => return Err(trouble::request(&error)),
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn add_configured_headers(&self, headers: &mut HeaderMap) -> Result<(), NetError> {
        for (name, source) in &self.shared.config.headers {
            headers.append(name, sensitive(source.read().await?.expose())?);
        }
        Ok(())
    }

    /// Adds credentials unless the request has some. Gives the token that was used, if one was.
    async fn add_credentials(&self, headers: &mut HeaderMap) -> Result<Option<HeaderValue>, NetError> {
        if headers.contains_key(AUTHORIZATION) {
            return Ok(None);
        }
        let text = match &self.shared.config.credentials {
            Credentials::None => return Ok(None),
            Credentials::Basic { username, password } => {
                basic(username.read().await?.expose(), password.read().await?.expose())
            }
            Credentials::Authorization { scheme, credentials } => {
                format!("{scheme} {}", credentials.read().await?.expose())
            }
            Credentials::Oauth2(_) => {
                let Some(tokens) = &self.shared.tokens else { return Ok(None) };
                let token = tokens.header().await?;
                headers.insert(AUTHORIZATION, token.clone());
                return Ok(Some(token));
            }
        };
        headers.insert(AUTHORIZATION, sensitive(&text)?);
        Ok(None)
    }

    /// The connector, made anew when a certificate file has changed: connections made with the old ones are not used
    /// again. Files of which some are replaced and some are not have a little time to become consistent.
    fn inner(&self) -> Result<Arc<Inner>, NetError> {
        let shared = &self.shared;
        if !shared.has_tls_files {
            return Ok(shared.inner.load_full());
        }
        let mut files = shared.tls_files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.looked.elapsed() >= shared.options.tls_files_check_interval {
            files.looked = Instant::now();
            let stamps = shared.config.tls.stamps();
            if stamps == files.used {
                files.failing = None;
            } else {
                match build_inner(&shared.config, &shared.options, &shared.proxies) {
                    Ok(inner) => {
                        shared.inner.store(Arc::new(inner));
                        (files.used, files.failing) = (stamps, None);
                        tracing::info!("certificate files changed: reloaded");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "certificate files changed, but cannot be used");
                        let since = files.failing.as_ref().map_or(files.looked, |(since, _)| *since);
                        files.failing = Some((since, error));
                    }
                }
            }
        }
        match &files.failing {
            Some((since, error)) if since.elapsed() >= TLS_FILES_GRACE => Err(error.clone()),
            _ => Ok(shared.inner.load_full()),
        }
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
    body: Incoming,
}

impl AnswerBody {
    /// The next piece, `None` at the end. Safe to drop at any point.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, NetError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| trouble::body(&error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

fn build_inner(
    config: &HttpClientConfig,
    options: &ClientOptions,
    proxies: &Proxies,
) -> Result<Inner, NetError> {
    let proxy_tls = config.tls.client_config()?;
    let mut tls = proxy_tls.clone();
    if config.enable_http2 {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    let server_name = match &config.tls.server_name {
        Some(name) => Some(
            ServerName::try_from(name.clone())
                .map_err(|_| NetError::Tls(format!("server_name {name:?} is no name")))?,
        ),
        None => None,
    };
    let connector = Connector::new(Settings {
        tls: Arc::new(tls),
        proxy_tls: Arc::new(proxy_tls),
        server_name,
        proxies: proxies.clone(),
        user_agent: options.user_agent.clone(),
        connect_timeout: options.connect_timeout,
        handshake_timeout: options.handshake_timeout,
    });
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(options.idle_connections_max)
        .http1_max_buf_size(HEADERS_MAX_BYTES as usize)
        .http2_max_header_list_size(HEADERS_MAX_BYTES)
        .http2_keep_alive_interval(H2_PING_INTERVAL)
        .http2_keep_alive_timeout(H2_PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        // `X-Token`, not `x-token`: as Go writes names, for receivers that compare them by case.
        .http1_title_case_headers(true)
        .build(connector))
}

/// Whether the request went over a connection that had brought answers before.
fn was_kept(error: &ClientError) -> bool {
    let mut extensions = http::Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extensions);
    }
    extensions.get::<Answers>().is_some_and(Answers::any)
}

/// Turns `user:password@` of the URL into a header.
fn take_userinfo(parts: &mut request::Parts) -> Result<(), NetError> {
    let Some((userinfo, host)) = parts.uri.authority().and_then(|all| all.as_str().rsplit_once('@')) else {
        return Ok(());
    };
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let authorization = sensitive(&basic(&decoded(user), &decoded(password)))?;
    let invalid = || NetError::InvalidUrl("invalid authority".to_owned());
    let host = host.parse().map_err(|_| invalid())?;
    let mut uri = parts.uri.clone().into_parts();
    uri.authority = Some(host);
    parts.uri = Uri::from_parts(uri).map_err(|_| invalid())?;
    parts.headers.entry(AUTHORIZATION).or_insert(authorization);
    Ok(())
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

fn sensitive(text: &str) -> Result<HeaderValue, NetError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        NetError::Protocol("a configured secret holds characters not allowed in a header".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Bytes that are made ready for a body because the server says it is so long.
const ANNOUNCED_MAX: u64 = 1 << 20;

pub(super) async fn read_body(answer: Response<Incoming>, max: u64) -> Result<Response<Bytes>, NetError> {
    let (parts, mut body) = answer.into_parts();
    // What the server announces is believed up to a point: growing step by step copies everything several times.
    let announced = hyper::body::Body::size_hint(&body).exact().unwrap_or(0).min(max).min(ANNOUNCED_MAX);
    let mut buffer = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| trouble::body(&error))?;
        if let Ok(data) = frame.into_data() {
            if buffer.len() as u64 + data.len() as u64 > max {
                return Err(NetError::BodyTooLarge { limit: max });
            }
            buffer.extend_from_slice(&data);
        }
    }
    Ok(Response::from_parts(parts, buffer.freeze()))
}

#[cfg(test)]
mod tests {
    use model::ConfigPath;

    use super::*;
    use crate::http::RawHttpClientConfig;

    #[tokio::test(start_paused = true)]
    async fn certificates_that_cannot_be_used_fail_requests_after_a_while() {
        let pem = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap().cert.pem();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, pem("a")).unwrap();
        let yaml = "{tls_config: {ca_file: ca.pem}}";
        let raw: RawHttpClientConfig = serde_yaml::from_str(yaml).unwrap();
        let config = raw.build(&ConfigPath::root(), dir.path()).unwrap();
        let client = HttpClient::new(&config, ClientOptions::new("test")).unwrap();
        let wait = |millis| tokio::time::advance(Duration::from_millis(millis));
        let first = client.inner().unwrap();

        std::fs::write(&file, "half of a certifi").unwrap();
        assert!(Arc::ptr_eq(&client.inner().unwrap(), &first), "not looked at yet");
        for _ in 0..9 {
            wait(1000).await;
            assert!(Arc::ptr_eq(&client.inner().unwrap(), &first));
        }
        wait(2000).await;
        for _ in 0..2 {
            let error = client.inner().unwrap_err();
            assert!(matches!(&error, NetError::File { path, .. } if *path == file), "{error}");
            wait(5000).await;
        }
        std::fs::write(&file, pem("b.example")).unwrap();
        let second = client.inner().unwrap();
        assert!(!Arc::ptr_eq(&second, &first));
        wait(60_000).await;
        assert!(Arc::ptr_eq(&client.inner().unwrap(), &second), "nothing changed");
    }
}
