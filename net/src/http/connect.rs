//! Connections: TCP, through a proxy where one is asked for, and TLS over it. Each step has its own bound in time, so
//! that what nobody waits for any more ends too.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower::Service;

use super::proxy::{Proxies, ProxyKind, join_host_port};
use super::{trouble, tunnel};
use crate::error::NetError;

/// Makes the connections of one client.
#[derive(Clone)]
pub(super) struct Connector {
    settings: Arc<Settings>,
    tcp: HttpConnector,
}

pub(super) struct Settings {
    /// With ALPN, for targets.
    pub(super) tls: Arc<ClientConfig>,
    /// Without, for proxies that speak TLS.
    pub(super) proxy_tls: Arc<ClientConfig>,
    /// Name to verify instead of the target's.
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) proxies: Proxies,
    pub(super) user_agent: String,
    pub(super) connect_timeout: Duration,
    pub(super) handshake_timeout: Duration,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    is_h2: bool,
    /// The other side is a proxy that wants whole URLs.
    is_proxied: bool,
    answers: Answers,
}

/// How many answers a connection has brought: one that has brought some may have been closed since.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<AtomicU32>);

impl Answers {
    pub(super) fn count_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Connector {
    pub(super) fn new(settings: Settings) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_connect_timeout(Some(settings.connect_timeout));
        Self { settings: Arc::new(settings), tcp }
    }

    async fn connect(mut self, target: Uri) -> Result<Stream, NetError> {
        let settings = Arc::clone(&self.settings);
        let (host, port) = host_and_port(&target)?;
        let is_https = target.scheme_str() == Some("https");
        let Some(proxy) = settings.proxies.of(&target) else {
            let tcp = self.dial(&host, port).await?;
            return if is_https { settings.secure(tcp, &host).await } else { Ok(Stream::plain(tcp, false)) };
        };
        let through = |error: NetError| NetError::Proxy(format!("proxyconnect tcp: {error}"));
        let mut io = self.dial(&proxy.host, proxy.port).await.map_err(through)?;
        if proxy.kind == ProxyKind::Https {
            let name = server_name(&proxy.host).map_err(through)?;
            let tls = TlsConnector::from(Arc::clone(&settings.proxy_tls));
            io = Box::new(settings.handshake(tls.connect(name, io)).await.map_err(through)?);
        }
        let asking = async {
            match proxy.kind {
                ProxyKind::Socks5 => tunnel::socks5(&mut io, proxy, (&host, port)).await.map_err(|reason| {
                    let target = join_host_port(&host, port);
                    NetError::Proxy(format!("socks connect tcp {}->{target}: {reason}", proxy.address()))
                }),
                ProxyKind::Http | ProxyKind::Https if is_https => {
                    let headers = &settings.proxies.connect_headers;
                    tunnel::connect(&mut io, proxy, headers, (&host, port), &settings.user_agent)
                        .await
                        .map_err(|reason| NetError::Proxy(format!("proxyconnect tcp: {reason}")))
                }
                ProxyKind::Http | ProxyKind::Https => Ok(()),
            }
        };
        tokio::time::timeout(settings.connect_timeout, asking)
            .await
            .map_err(|_| NetError::Proxy("proxyconnect tcp: i/o timeout".to_owned()))??;
        if is_https {
            settings.secure(io, &host).await
        } else {
            Ok(Stream::plain(io, proxy.kind != ProxyKind::Socks5))
        }
    }

    async fn dial(&mut self, host: &str, port: u16) -> Result<Box<dyn Io>, NetError> {
        let address = join_host_port(host, port);
        let uri = Uri::builder().scheme("http").authority(address.as_str()).path_and_query("/").build();
        let uri = uri.map_err(|error| NetError::InvalidUrl(format!("{address}: {error}")))?;
        let dialling = async {
            std::future::poll_fn(|context| self.tcp.poll_ready(context)).await?;
            self.tcp.call(uri).await
        };
        match tokio::time::timeout(self.settings.connect_timeout, dialling).await {
            Ok(Ok(stream)) => Ok(Box::new(stream.into_inner())),
            Ok(Err(error)) => Err(trouble::dialling(&error, host, address)),
            Err(_) => Err(NetError::Connect { address, reason: "i/o timeout".to_owned() }),
        }
    }
}

impl Settings {
    async fn secure(&self, io: Box<dyn Io>, host: &str) -> Result<Stream, NetError> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let stream = self.handshake(TlsConnector::from(Arc::clone(&self.tls)).connect(name, io)).await?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { is_h2, ..Stream::plain(Box::new(stream), false) })
    }

    async fn handshake<T>(
        &self,
        shaking: impl Future<Output = Result<T, std::io::Error>>,
    ) -> Result<T, NetError> {
        match tokio::time::timeout(self.handshake_timeout, shaking).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(trouble::handshake(&error)),
            Err(_) => Err(NetError::Handshake("net/http: TLS handshake timeout".to_owned())),
        }
    }
}

/// Host (without brackets) and port of a URL.
pub(super) fn host_and_port(uri: &Uri) -> Result<(String, u16), NetError> {
    let host = uri.host().ok_or_else(|| NetError::InvalidUrl("no Host in request URL".to_owned()))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    Ok((host.to_owned(), port))
}

fn server_name(host: &str) -> Result<ServerName<'static>, NetError> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| NetError::InvalidUrl(format!("{host:?} cannot be the name of a TLS server")))
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = NetError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NetError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(self.clone().connect(target))
    }
}

impl Stream {
    fn plain(io: Box<dyn Io>, is_proxied: bool) -> Self {
        Self { io: TokioIo::new(io), is_h2: false, is_proxied, answers: Answers::default() }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_proxied).extra(self.answers.clone());
        if self.is_h2 { connected.negotiated_h2() } else { connected }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }
}
