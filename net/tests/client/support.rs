//! Small servers on loopback: HTTP, TLS with certificates of any kind, raw bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use model::ConfigPath;
use net::http::{ClientOptions, HttpClient, RawHttpClientConfig, SendLimits};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What a server saw of a request.
#[derive(Clone, Debug)]
pub(crate) struct Saw {
    pub(crate) method: Method,
    /// As in the request line.
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) version: http::Version,
}

impl Saw {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    pub(crate) fn authorization(&self) -> Option<String> {
        self.header("authorization")
    }
}

/// A server and what it saw.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Saw>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Saw> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// An answer.
pub(crate) type Answer = Response<Full<Bytes>>;

pub(crate) async fn serve(handler: impl Fn(&Saw) -> Answer + Clone + Send + Sync + 'static) -> Server {
    serve_over(|stream| async move { Some(stream) }, handler).await
}

/// Serves over TLS; who fails the handshake gets nothing.
pub(crate) async fn serve_tls(
    tls: rustls::ServerConfig,
    handler: impl Fn(&Saw) -> Answer + Clone + Send + Sync + 'static,
) -> Server {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    serve_over(
        move |stream| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(stream).await.ok() }
        },
        handler,
    )
    .await
}

async fn serve_over<S, F>(
    wrap: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
    handler: impl Fn(&Saw) -> Answer + Clone + Send + Sync + 'static,
) -> Server
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = Option<S>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server { address, seen: Arc::default(), connections: Arc::default() };
    let own = server.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            own.connections.fetch_add(1, Ordering::Relaxed);
            let (handler, seen, wrap) = (handler.clone(), Arc::clone(&own.seen), wrap.clone());
            tokio::spawn(async move {
                let Some(stream) = wrap(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let (handler, seen) = (handler.clone(), Arc::clone(&seen));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        let saw = Saw {
                            method: parts.method,
                            uri: parts.uri.to_string(),
                            headers: parts.headers,
                            body: String::from_utf8_lossy(&body).into_owned(),
                            version: parts.version,
                        };
                        seen.lock().unwrap().push(saw.clone());
                        Ok::<_, Infallible>(handler(&saw))
                    }
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    server
}

/// A server that does with each connection whatever `handler` does.
pub(crate) async fn serve_raw<F: Future<Output = ()> + Send + 'static>(
    handler: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(handler(stream));
        }
    });
    address
}

/// Reads a request up to the end of its headers.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

pub(crate) fn client(yaml: &str) -> HttpClient {
    client_with(yaml, options())
}

pub(crate) fn client_with(yaml: &str, options: ClientOptions) -> HttpClient {
    let raw: RawHttpClientConfig = serde_yaml::from_str(yaml).unwrap();
    let config = raw.build(&ConfigPath::root(), Path::new("")).unwrap();
    HttpClient::new(&config, options).unwrap()
}

/// Certificate files are looked at for each request.
pub(crate) fn options() -> ClientOptions {
    ClientOptions { tls_files_check_interval: Duration::ZERO, ..ClientOptions::new("nilometer-test") }
}

pub(crate) fn limits() -> SendLimits {
    SendLimits { timeout: Duration::from_secs(5), body_max_bytes: 1 << 20 }
}

pub(crate) fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

pub(crate) fn text(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::from(body.into())).unwrap()
}

pub(crate) fn redirect(status: u16, to: &str) -> Answer {
    Response::builder().status(status).header("location", to).body(Full::default()).unwrap()
}

/// An authority that signs certificates.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn leaf(&self, name: &str) -> Leaf {
        self.leaf_with(name, |_| {})
    }

    pub(crate) fn leaf_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    /// Wants certificates of this authority from clients.
    pub(crate) fn client_verifier(&self) -> Arc<dyn rustls::server::danger::ClientCertVerifier> {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap()
    }
}

impl Leaf {
    pub(crate) fn server(&self) -> rustls::ServerConfig {
        self.server_with(rustls::ALL_VERSIONS, None)
    }

    pub(crate) fn server_with(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        verifier: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>,
    ) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        builder.with_single_cert(vec![self.der.clone()], self.key.clone_key()).unwrap()
    }
}
