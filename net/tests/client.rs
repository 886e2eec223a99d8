//! The client against small servers on loopback: what it sends, follows, refuses and bounds.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::ConfigPath;
use net::NetError;
use net::http::{ClientOptions, HttpClient, RawHttpClientConfig, SendLimits};
use tokio::net::TcpListener;

/// What a server saw of each request: method, path, and the `authorization` header.
type Seen = Arc<Mutex<Vec<(Method, String, Option<String>)>>>;

async fn serve(
    handler: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (handler, log) = (handler.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let authorization =
                        request.headers().get("authorization").map(|v| v.to_str().unwrap().to_owned());
                    log.lock().unwrap().push((
                        request.method().clone(),
                        request.uri().path().to_owned(),
                        authorization,
                    ));
                    let answer = handler(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (address, seen)
}

fn client(yaml: &str) -> HttpClient {
    let raw: RawHttpClientConfig = serde_yaml::from_str(yaml).unwrap();
    let config = raw.build(&ConfigPath::root(), Path::new("")).unwrap();
    HttpClient::new(&config, ClientOptions::new("nilometer-test")).unwrap()
}

fn limits() -> SendLimits {
    SendLimits { timeout: Duration::from_secs(5), body_max_bytes: 1 << 20 }
}

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

fn text(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(body)).unwrap()
}

fn redirect(status: u16, to: &str) -> Response<Full<Bytes>> {
    Response::builder().status(status).header("location", to).body(Full::default()).unwrap()
}

#[tokio::test]
async fn sends_credentials_and_keeps_the_password_to_itself() {
    let (address, seen) = serve(|_| text(200, "ok")).await;
    let client = client("{basic_auth: {username: user, password: hunter2}}");
    let answer = client.send(get(&format!("http://{address}/x")), limits()).await.unwrap();
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, b"ok".as_slice()));
    assert_eq!(seen.lock().unwrap()[0].2.as_deref(), Some("Basic dXNlcjpodW50ZXIy"));
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[tokio::test]
async fn reads_a_rotated_token_without_a_reload() {
    let (address, seen) = serve(|_| text(200, "")).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let client = client(&format!("{{authorization: {{credentials_file: {}}}}}", file.path().display()));
    for token in ["one\n", "two\n"] {
        std::fs::write(file.path(), token).unwrap();
        client.send(get(&format!("http://{address}/")), limits()).await.unwrap();
    }
    let tokens: Vec<_> = seen.lock().unwrap().iter().map(|(_, _, token)| token.clone().unwrap()).collect();
    assert_eq!(tokens, ["Bearer one", "Bearer two"]);
}

#[tokio::test]
async fn redirects_keep_credentials_on_the_host_only_and_turn_posts_into_gets() {
    let (other, other_seen) = serve(|_| text(200, "there")).await;
    let elsewhere = format!("http://{other}/there");
    let (address, seen) = serve(move |request| match request.uri().path() {
        "/same" => redirect(302, "/moved"),
        "/moved" => text(200, "moved"),
        "/away" => redirect(307, &elsewhere),
        "/circle" => redirect(302, "/circle"),
        _ => redirect(302, "file:///etc/passwd"),
    })
    .await;
    let with_token = client("{authorization: {credentials: t0ken}}");
    let post =
        |path: &str| Request::post(format!("http://{address}{path}")).body(Bytes::from("body")).unwrap();

    assert_eq!(with_token.send(post("/same"), limits()).await.unwrap().body().as_ref(), b"moved");
    assert_eq!(with_token.send(post("/away"), limits()).await.unwrap().body().as_ref(), b"there");
    {
        let seen = seen.lock().unwrap();
        assert_eq!(seen[1], (Method::GET, "/moved".to_owned(), Some("Bearer t0ken".to_owned())));
        assert_eq!(other_seen.lock().unwrap()[0], (Method::POST, "/there".to_owned(), None));
    }
    let circle = with_token.send(post("/circle"), limits()).await.unwrap_err();
    assert!(matches!(circle, NetError::TooManyRedirects(10)), "{circle}");
    let scheme = with_token.send(post("/file"), limits()).await.unwrap_err();
    assert!(matches!(scheme, NetError::InvalidUrl(_)), "{scheme}");

    let stays = client("{follow_redirects: false}");
    assert_eq!(stays.send(post("/same"), limits()).await.unwrap().status(), StatusCode::FOUND);
}

#[tokio::test]
async fn bounds_time_and_bytes_and_says_why_nobody_answered() {
    let (address, _) = serve(|_| text(200, "0123456789")).await;
    let plain = client("{}");
    let small = SendLimits { body_max_bytes: 9, ..limits() };
    let error = plain.send(get(&format!("http://{address}/")), small).await.unwrap_err();
    assert!(matches!(error, NetError::BodyTooLarge { limit: 9 }), "{error}");

    // A listener that never accepts: the connection stands, no answer comes.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let hasty = SendLimits { timeout: Duration::from_millis(50), ..limits() };
    assert!(matches!(plain.send(get(&url), hasty).await.unwrap_err(), NetError::Timeout));

    let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let error = plain.send(get(&format!("http://{gone}/")), limits()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("dial tcp {gone}: connect: connection refused"));
    assert!(error.is_transient());
}

#[tokio::test]
async fn verifies_certificates_unless_told_not_to() {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![signed.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into()),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|_| async { Ok::<_, Infallible>(text(200, "secret page")) });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), signed.cert.pem()).unwrap();
    let url = format!("https://{address}/");

    let trusting =
        client(&format!("{{tls_config: {{ca_file: {}, server_name: localhost}}}}", ca.path().display()));
    assert_eq!(trusting.send(get(&url), limits()).await.unwrap().body().as_ref(), b"secret page");
    let careless = client("{tls_config: {insecure_skip_verify: true}}");
    assert_eq!(careless.send(get(&url), limits()).await.unwrap().status(), StatusCode::OK);
    let careful = client("{tls_config: {server_name: localhost}}");
    let error = careful.send(get(&url), limits()).await.unwrap_err();
    assert!(
        matches!(error, NetError::Connect { .. }) && error.to_string().contains("certificate"),
        "{error}"
    );
}
