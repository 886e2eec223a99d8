//! Servers that mean no good, or that are broken: what the client puts up with, and what it keeps.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use net::NetError;
use net::http::{ClientOptions, SendLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{client, client_with, get, limits, options, read_head, serve, serve_raw, text};

fn hasty() -> SendLimits {
    SendLimits { timeout: Duration::from_millis(150), ..limits() }
}

#[tokio::test]
async fn a_body_that_drips_ends_with_the_time() {
    let address = serve_raw(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let error = client("{}").send(get(&format!("http://{address}/")), hasty()).await.unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    for line in [format!("X-A: {}\r\n", "a".repeat(4000)), "a".repeat(4000)] {
        let address = serve_raw(move |mut stream| {
            let line = line.clone();
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while stream.write_all(line.as_bytes()).await.is_ok() {}
            }
        })
        .await;
        let error = client("{}").send(get(&format!("http://{address}/")), limits()).await.unwrap_err();
        assert!(matches!(error, NetError::HeadersTooLarge), "{error}");
    }
}

#[tokio::test]
async fn bodies_have_a_bound_whether_they_tell_their_length_or_not() {
    let server = serve(|_| text(200, "0123456789")).await;
    let small = SendLimits { body_max_bytes: 9, ..limits() };
    let error = client("{}").send(get(&server.url("/")), small).await.unwrap_err();
    assert!(matches!(error, NetError::BodyTooLarge { limit: 9 }), "{error}");
    let address = serve_raw(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    })
    .await;
    let error = client("{}").send(get(&format!("http://{address}/")), limits()).await.unwrap_err();
    assert!(matches!(error, NetError::BodyTooLarge { .. }), "{error}");
}

#[tokio::test]
async fn answers_that_break_off_are_told_apart_from_whole_ones() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12",
    ] {
        let address = serve_raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let error = client("{}").send(get(&format!("http://{address}/")), limits()).await.unwrap_err();
        assert_eq!(error.to_string(), "unexpected EOF", "{answer:?}");
    }
    let address = serve_raw(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let error = client("{}").send(get(&format!("http://{address}/")), limits()).await.unwrap_err();
    assert_eq!(error.to_string(), "EOF");
}

#[tokio::test]
async fn each_step_has_its_time() {
    // A listener that never accepts: the connection stands, nothing comes.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let error = client("{}").send(get(&format!("http://{address}/")), hasty()).await.unwrap_err();
    assert!(matches!(error, NetError::Timeout), "{error}");
    let short = Duration::from_millis(50);
    let headers = ClientOptions { header_timeout: Some(short), ..options() };
    let error =
        client_with("{}", headers).send(get(&format!("http://{address}/")), limits()).await.unwrap_err();
    assert_eq!(error.to_string(), "net/http: timeout awaiting response headers");
    let handshake = ClientOptions { handshake_timeout: short, ..options() };
    let error =
        client_with("{}", handshake).send(get(&format!("https://{address}/")), limits()).await.unwrap_err();
    assert_eq!(error.to_string(), "net/http: TLS handshake timeout");
    let connect = ClientOptions { connect_timeout: short, ..options() };
    let proxied = client_with(&format!("{{proxy_url: 'http://{address}'}}"), connect);
    let error = proxied.send(get("https://x.example/"), limits()).await.unwrap_err();
    assert_eq!(error.to_string(), "proxyconnect tcp: i/o timeout");
}

#[tokio::test]
async fn says_why_nobody_answered() {
    let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let error = client("{}").send(get(&format!("http://{gone}/")), limits()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("dial tcp {gone}: connect: connection refused"));
    assert!(error.is_transient());
    let error = client("{}").send(get("http://nobody.invalid/"), limits()).await.unwrap_err();
    assert!(error.to_string().starts_with("dial tcp: lookup nobody.invalid: "), "{error}");
}

#[tokio::test]
async fn connections_are_reused() {
    let server = serve(|_| text(200, "ok")).await;
    let client = client("{}");
    for _ in 0..5 {
        client.send(get(&server.url("/")), limits()).await.unwrap();
    }
    assert_eq!((server.seen().len(), server.connections()), (5, 1));
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_allowed() {
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(6));
    let open = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (gate, counted) = (barrier.clone(), open.clone());
    let address = serve_raw(move |mut stream| {
        let (barrier, open) = (gate.clone(), counted.clone());
        async move {
            use std::sync::atomic::Ordering::Relaxed;
            open.fetch_add(1, Relaxed);
            read_head(&mut stream).await;
            // All at once: each has its own connection.
            barrier.wait().await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = stream.read_u8().await;
            open.fetch_sub(1, Relaxed);
        }
    })
    .await;
    let client = client_with("{}", ClientOptions { idle_connections_max: 2, ..options() });
    let url = format!("http://{address}/");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (client, url) = (client.clone(), url.clone());
        requests.spawn(async move { client.send(get(&url), limits()).await.unwrap().status() });
    }
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let idle = || open.load(std::sync::atomic::Ordering::Relaxed);
    tokio::time::timeout(Duration::from_secs(5), async {
        while idle() > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(idle(), 2);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced_when_asking_twice_does_no_harm() {
    // Each connection answers once, then ends when the next request has come.
    let address = serve_raw(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        read_head(&mut stream).await;
    })
    .await;
    let url = format!("http://{address}/");
    let client = client("{}");
    for _ in 0..3 {
        assert_eq!(client.send(get(&url), limits()).await.unwrap().body().as_ref(), b"ok");
    }
    let post = Request::post(&url).body(Bytes::from("x")).unwrap();
    let error = client.send(post, limits()).await.unwrap_err().to_string();
    assert!(error == "EOF" || error.contains("reset by peer"), "{error}");
}
