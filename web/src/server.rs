//! Listening sockets and connections: bounded in number and time, drained on shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::caller::Peer;
use crate::stall::WriteStall;
use crate::{routes, serve};

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of its answer: as long as Prometheus lets a connection idle (`--web.read-timeout`).
const WRITE_PATIENCE: Duration = Duration::from_secs(300);
/// How long to wait before accepting again after the system refused (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A server that listens but does not accept yet.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    router: axum::Router,
    listeners: Vec<TcpListener>,
}

impl Server {
    /// Listens on all addresses of the app's options.
    ///
    /// # Errors
    /// When one of them is taken or not ours.
    pub async fn bind(app: Arc<App>) -> Result<Self, ServerError> {
        let mut listeners = Vec::new();
        for address in &app.options.listen {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| ServerError::Listen { address: *address, source })?;
            listeners.push(listener);
        }
        Ok(Self { router: routes::router(Arc::clone(&app)), app, listeners })
    }

    /// The addresses in use: with port 0 the system has chosen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `stop` is cancelled, then lets requests under way finish within `grace`. Says whether all did.
    pub async fn run(self, stop: CancellationToken, grace: Duration) -> bool {
        let permits = Arc::new(Semaphore::new(self.app.options.connections_max));
        let mut acceptors = tokio::task::JoinSet::new();
        for listener in self.listeners {
            let acceptor = Acceptor {
                app: Arc::clone(&self.app),
                router: self.router.clone(),
                permits: Arc::clone(&permits),
                stop: stop.clone(),
                grace,
            };
            acceptors.spawn(acceptor.run(listener));
        }
        let mut drained = true;
        while let Some(result) = acceptors.join_next().await {
            drained &= result.unwrap_or(false);
        }
        drained
    }
}

struct Acceptor {
    app: Arc<App>,
    router: axum::Router,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    grace: Duration,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) -> bool {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Beyond the bound one connection waits here, the others in the system's backlog. (The permit before
                    // the connection would let each further listener take a place for nobody.)
                    let Some(permit) = self.permit().await else { break };
                    let connection = connection(Arc::clone(&self.app), self.router.clone(), stream, peer);
                    let watched = graceful.watch(connection);
                    let open = OpenConnection::new(&self.app.metrics.connections, permit);
                    tokio::spawn(async move {
                        if let Err(error) = watched.await {
                            tracing::debug!(%peer, error = %error, "connection ended");
                        }
                        drop(open);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        tokio::time::timeout(self.grace, graceful.shutdown()).await.is_ok()
    }

    /// A place among the allowed connections; `None` when the server stops.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        self.app.metrics.connections_full.inc();
        tracing::warn!(connections = self.app.options.connections_max, "all connections are in use");
        tokio::select! {
            permit = Arc::clone(&self.permits).acquire_owned() => permit.ok(),
            () = self.stop.cancelled() => None,
        }
    }
}

/// Counts a connection while it lives, however its task ends.
struct OpenConnection {
    gauge: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl OpenConnection {
    fn new(gauge: &IntGauge, permit: OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self { gauge: gauge.clone(), _permit: permit }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

fn connection(
    app: Arc<App>,
    router: axum::Router,
    stream: TcpStream,
    peer: SocketAddr,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + Send
{
    // Answers are written whole; waiting to fill packets only adds latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot switch off Nagle's algorithm");
    }
    let stream = WriteStall::new(stream, WRITE_PATIENCE, app.metrics.connections_stalled.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let (app, router) = (Arc::clone(&app), router.clone());
        async move { Ok::<_, std::convert::Infallible>(serve::serve(app, router, request.map(Body::new)).await) }
    });
    builder().serve_connection(TokioIo::new(stream), service).into_owned()
}

/// HTTP/1 only, as Go's server speaks without TLS. (Finding out which version a client speaks has no time-out in hyper:
/// clients that never say anything would hold their places for ever. `serve_connection_with_upgrades` does that always.)
fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(true);
    builder
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    /// Seconds until the server closes a connection on which a client says `words` and no more.
    async fn closed_after(words: &[u8]) -> u64 {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        client.write_all(words).await.unwrap();
        let service = service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new(Body::empty())));
        let begun = Instant::now();
        let builder = builder();
        let connection = builder.serve_connection(TokioIo::new(server), service);
        let patience = HEADER_TIMEOUT * 10;
        // Whether it ends well or with an error is one; that it ends is what counts.
        let _ = tokio::time::timeout(patience, connection).await;
        client.read_to_end(&mut Vec::new()).await.unwrap();
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_fall_silent_are_closed() {
        let texts: [&[u8]; 3] = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"];
        for words in texts {
            let text = String::from_utf8_lossy(words);
            assert_eq!(closed_after(words).await, HEADER_TIMEOUT.as_secs(), "{text}");
        }
        // The preface of HTTP/2 is refused at once.
        assert_eq!(closed_after(b"PRI * HTTP/2").await, 0);
    }
}
