//! Through proxies: HTTP, HTTPS, SOCKS 5.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Ca, client, get, limits, redirect, serve, serve_tls, text};

/// What a proxy was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// Lets connections through to `target`, whatever they ask for; each ask is remembered. Others get `refusal`.
async fn tunnel(
    target: SocketAddr,
    refusal: Option<&'static str>,
    tls: Option<TlsAcceptor>,
) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (log, tls) = (Arc::clone(&log), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer_connect(stream, target, refusal, &log).await;
                        }
                    }
                    None => answer_connect(stream, target, refusal, &log).await,
                }
            });
        }
    });
    (address, asked)
}

async fn answer_connect(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    target: SocketAddr,
    refusal: Option<&str>,
    log: &Asked,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    log.lock().unwrap().push(String::from_utf8(head).unwrap());
    if let Some(refusal) = refusal {
        let _ = stream.write_all(refusal.as_bytes()).await;
        return;
    }
    let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await;
    let mut other = TcpStream::connect(target).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
}

/// A SOCKS 5 proxy that wants `user:password`, if any, and connects to `target`.
async fn socks(target: SocketAddr, wants: Option<&'static str>, reply: u8) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let _ = answer_socks(stream, target, wants, reply, &log).await;
            });
        }
    });
    (address, asked)
}

async fn read_sized(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8(text).unwrap())
}

async fn answer_socks(
    mut stream: TcpStream,
    target: SocketAddr,
    wants: Option<&str>,
    reply: u8,
    log: &Asked,
) -> std::io::Result<()> {
    assert_eq!(stream.read_u8().await?, 5);
    let mut methods = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut methods).await?;
    match wants {
        None => stream.write_all(&[5, 0]).await?,
        Some(_) if !methods.contains(&2) => return stream.write_all(&[5, 0xff]).await,
        Some(wanted) => {
            stream.write_all(&[5, 2]).await?;
            assert_eq!(stream.read_u8().await?, 1);
            let got = format!("{}:{}", read_sized(&mut stream).await?, read_sized(&mut stream).await?);
            stream.write_all(&[1, u8::from(got != wanted)]).await?;
            if got != wanted {
                return Ok(());
            }
        }
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match head[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
        3 => read_sized(&mut stream).await?,
        _ => std::net::Ipv6Addr::from(stream.read_u128().await?).to_string(),
    };
    let port = stream.read_u16().await?;
    log.lock().unwrap().push(format!("{host} {port}"));
    stream.write_all(&[5, reply, 0, 3, 2, b'm', b'e', 0, 1]).await?;
    if reply == 0 {
        let mut other = TcpStream::connect(target).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut other).await?;
    }
    Ok(())
}

async fn outcome(yaml: &str, url: &str) -> String {
    match client(yaml).send(get(url), limits()).await {
        Ok(answer) => String::from_utf8_lossy(answer.body()).into_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn plain_requests_are_handed_to_the_proxy_with_its_password() {
    let proxy = serve(|saw| match saw.uri.as_str() {
        "http://x.example/away" => redirect(302, "http://y.example/there"),
        _ => text(200, "through"),
    })
    .await;
    let yaml = format!(
        "{{proxy_url: 'http://us%65r:pw@{}', proxy_connect_header: {{X-C: [c]}}, authorization: {{credentials: t}}}}",
        proxy.address
    );
    assert_eq!(outcome(&yaml, "http://x.example/a?b").await, "through");
    assert_eq!(outcome(&yaml, "http://x.example/away").await, "through");
    let seen = proxy.seen();
    let uris: Vec<&str> = seen.iter().map(|saw| saw.uri.as_str()).collect();
    assert_eq!(uris, ["http://x.example/a?b", "http://x.example/away", "http://y.example/there"]);
    for saw in &seen {
        assert_eq!(saw.header("proxy-authorization").as_deref(), Some("Basic dXNlcjpwdw=="));
        assert_eq!(saw.header("x-c"), None, "only for CONNECT");
    }
    assert_eq!(seen[0].header("host").as_deref(), Some("x.example"));
    assert_eq!((seen[1].authorization().as_deref(), seen[2].authorization()), (Some("Bearer t"), None));
}

#[tokio::test]
async fn hosts_of_no_proxy_are_asked_directly() {
    let proxy = serve(|_| text(200, "proxy")).await;
    let server = serve(|_| text(200, "server")).await;
    let url = server.url("/");
    let with = |no_proxy: &str| format!("{{proxy_url: 'http://{}', no_proxy: '{no_proxy}'}}", proxy.address);
    assert_eq!(outcome(&format!("{{proxy_url: 'http://{}'}}", proxy.address), &url).await, "proxy");
    // Loopback addresses never go through a proxy that has exceptions.
    assert_eq!(outcome(&with("x.example"), &url).await, "server");
    assert_eq!(outcome(&with("x.example"), "http://y.example/").await, "proxy");
    assert!(server.seen()[0].header("proxy-authorization").is_none());
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_of_http_proxies() {
    let ca = Ca::new();
    let mut tls = ca.leaf("x.example").server();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let server = serve_tls(tls, |_| text(200, "page")).await;
    let acceptor = TlsAcceptor::from(Arc::new(ca.leaf("127.0.0.1").server()));
    for (scheme, tls) in [("http", None), ("https", Some(acceptor))] {
        let (proxy, asked) = tunnel(server.address, None, tls).await;
        let yaml = format!(
            "{{proxy_url: '{scheme}://u:p@{proxy}', proxy_connect_header: {{X-A: [b, c]}}, tls_config: {{ca: {:?}}}, \
             authorization: {{credentials: t}}}}",
            ca.pem
        );
        let client = client(&yaml);
        for _ in 0..2 {
            let answer = client.send(get("https://x.example/page"), limits()).await.unwrap();
            assert_eq!(answer.body().as_ref(), b"page");
        }
        assert_eq!(
            *asked.lock().unwrap(),
            ["CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\nUser-Agent: nilometer-test\r\n\
              Proxy-Authorization: Basic dTpw\r\nX-A: b\r\nX-A: c\r\n\r\n"]
        );
    }
    for saw in server.seen() {
        assert_eq!((saw.version, saw.header("proxy-authorization")), (http::Version::HTTP_2, None));
        assert_eq!(saw.authorization().as_deref(), Some("Bearer t"));
    }
}

#[tokio::test]
async fn what_a_proxy_refuses_is_told() {
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    for (answer, expected) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Authentication Required"),
        ("HTTP/1.0 503 Go \x1b[1maway\r\n\r\n", "503 Go [1maway"),
        ("SSH-2.0-x\r\n\r\n", "malformed HTTP response"),
        ("HTTP/1.1 200 OK\r\n", "unexpected EOF"),
    ] {
        let (proxy, _) = tunnel(nobody, Some(answer), None).await;
        let error =
            outcome(&format!("{{proxy_url: 'http://u:hunter2@{proxy}'}}"), "https://x.example/").await;
        assert_eq!(error, format!("proxyconnect tcp: {expected}"));
    }
    let endless: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(1 << 20)).into_boxed_str());
    let (proxy, _) = tunnel(nobody, Some(endless), None).await;
    let error = outcome(&format!("{{proxy_url: 'http://{proxy}'}}"), "https://x.example/").await;
    assert_eq!(error, "proxyconnect tcp: the answer to CONNECT is too long");
    let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let error = outcome(&format!("{{proxy_url: 'http://u:hunter2@{gone}'}}"), "http://x.example/").await;
    assert_eq!(error, format!("proxyconnect tcp: dial tcp {gone}: connect: connection refused"));
    // A proxy whose certificate nobody vouches for.
    let acceptor = TlsAcceptor::from(Arc::new(Ca::new().leaf("127.0.0.1").server()));
    let (proxy, asked) = tunnel(nobody, None, Some(acceptor)).await;
    let error = outcome(&format!("{{proxy_url: 'https://{proxy}'}}"), "http://x.example/").await;
    assert!(error.starts_with("proxyconnect tcp: tls: failed to verify certificate"), "{error}");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn socks_proxies_look_names_up_themselves() {
    let server = serve(|_| text(200, "page")).await;
    let ca = Ca::new();
    let secure = serve_tls(ca.leaf("x.example").server(), |_| text(200, "secure")).await;
    let (open, asked) = socks(server.address, None, 0).await;
    assert_eq!(outcome(&format!("{{proxy_url: 'socks5://{open}'}}"), "http://x.example/a").await, "page");
    assert_eq!(
        outcome(&format!("{{proxy_url: 'socks5h://u:p@{open}'}}"), "http://192.0.2.1:81/").await,
        "page"
    );
    assert_eq!(outcome(&format!("{{proxy_url: 'socks5://{open}'}}"), "http://[2001:db8::1]/").await, "page");
    assert_eq!(*asked.lock().unwrap(), ["x.example 80", "192.0.2.1 81", "2001:db8::1 80"]);
    // The server is spoken to as if there were no proxy.
    assert_eq!((server.seen()[0].uri.as_str(), server.seen()[1].header("proxy-authorization")), ("/a", None));

    let (locked, _) = socks(secure.address, Some("u:p"), 0).await;
    let tls = format!("tls_config: {{ca: {:?}}}", ca.pem);
    let url = "https://x.example/";
    assert_eq!(outcome(&format!("{{proxy_url: 'socks5://u:p@{locked}', {tls}}}"), url).await, "secure");
    let prefix = format!("socks connect tcp {locked}->x.example:443: ");
    assert_eq!(
        outcome(&format!("{{proxy_url: 'socks5://u:hunter2@{locked}'}}"), url).await,
        format!("{prefix}username/password authentication failed")
    );
    assert_eq!(
        outcome(&format!("{{proxy_url: 'socks5://{locked}'}}"), url).await,
        format!("{prefix}no acceptable authentication methods")
    );
    let (refusing, _) = socks(secure.address, None, 5).await;
    assert_eq!(
        outcome(&format!("{{proxy_url: 'socks5://{refusing}'}}"), url).await,
        format!("socks connect tcp {refusing}->x.example:443: connection refused")
    );
}
