//! Tokens of an authorization server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use http::{Response, StatusCode};
use http_body_util::Full;
use net::http::HttpClient;

use crate::support::{Answer, Ca, Saw, Server, client, get, limits, serve, serve_tls, text};

fn json(status: u16, body: impl Into<bytes::Bytes>) -> Answer {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::from(body.into()))
        .unwrap()
}

/// An authorization server whose tokens are `t1`, `t2`, …, good for so many seconds.
async fn issuer(seconds: u64) -> Server {
    let count = Arc::new(AtomicUsize::new(0));
    serve(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        json(200, format!(r#"{{"access_token":"t{number}","token_type":"bearer","expires_in":{seconds}}}"#))
    })
    .await
}

fn with(issuer: &Server, more: &str) -> HttpClient {
    client(&format!(
        "{{oauth2: {{client_id: me, client_secret: 's:+', token_url: '{}', {more}}}}}",
        issuer.url("/token")
    ))
}

async fn ask(client: &HttpClient, server: &Server) -> Result<StatusCode, String> {
    let answer = client.send(get(&server.url("/")), limits()).await;
    answer.map(|answer| answer.status()).map_err(|error| error.to_string())
}

fn form(saw: &Saw) -> Vec<(String, String)> {
    url::form_urlencoded::parse(saw.body.as_bytes()).into_owned().collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_kept() {
    let (issuer, server) = (issuer(3600).await, serve(|_| text(200, "")).await);
    let client = with(&issuer, "scopes: [a, b], endpoint_params: {audience: x}");
    // All at once: one of them asks, the others wait for it.
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, server) = (client.clone(), server.clone());
        requests.spawn(async move { ask(&client, &server).await });
    }
    while let Some(outcome) = requests.join_next().await {
        assert_eq!(outcome.unwrap(), Ok(StatusCode::OK));
    }
    assert!(server.seen().iter().all(|saw| saw.authorization().as_deref() == Some("Bearer t1")));
    let asked = issuer.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].uri.as_str()), ("POST", "/token"));
    assert_eq!(
        form(&asked[0]),
        pairs(&[("audience", "x"), ("grant_type", "client_credentials"), ("scope", "a b")])
    );
    // "me:s%3A%2B": both parts are escaped first.
    assert_eq!(asked[0].authorization().as_deref(), Some("Basic bWU6cyUzQSUyQg=="));
    assert_eq!(asked[0].header("user-agent").as_deref(), Some("nilometer-test"));
    assert!(!format!("{client:?}").contains("s:+"));
}

#[tokio::test]
async fn a_token_is_replaced_before_it_expires() {
    let (issuer, server) = (issuer(10).await, serve(|_| text(200, "")).await);
    let client = with(&issuer, "");
    for _ in 0..2 {
        ask(&client, &server).await.unwrap();
    }
    let sent: Vec<_> = server.seen().iter().map(|saw| saw.authorization().unwrap()).collect();
    assert_eq!(sent, ["Bearer t1", "Bearer t2"]);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let issuer = issuer(3600).await;
    let server = serve(|saw| match saw.authorization().as_deref() {
        Some("Bearer t2") => text(200, ""),
        _ => text(401, ""),
    })
    .await;
    let client = with(&issuer, "");
    assert_eq!(ask(&client, &server).await, Ok(StatusCode::OK));
    assert_eq!((issuer.seen().len(), server.seen().len()), (2, 2));
    // Who refuses everybody gets no more of them, and the authorization server is left in peace.
    let closed = serve(|_| text(401, "")).await;
    for _ in 0..3 {
        assert_eq!(ask(&client, &closed).await, Ok(StatusCode::UNAUTHORIZED));
    }
    assert_eq!((issuer.seen().len(), closed.seen().len()), (2, 3));
}

#[tokio::test]
async fn servers_that_want_the_secret_in_the_form_get_it_there() {
    let count = Arc::new(AtomicUsize::new(0));
    let issuer = serve(move |saw| match saw.authorization() {
        Some(_) => json(401, r#"{"error":"invalid_client"}"#),
        None => {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            json(200, format!(r#"{{"access_token":"t{number}","expires_in":1}}"#))
        }
    })
    .await;
    let server = serve(|_| text(200, "")).await;
    let client = with(&issuer, "endpoint_params: {grant_type: password}");
    for _ in 0..2 {
        ask(&client, &server).await.unwrap();
    }
    let asked = issuer.seen();
    // The way is tried out once.
    assert_eq!(asked.iter().filter(|saw| saw.authorization().is_some()).count(), 1);
    assert_eq!(
        form(&asked[2]),
        pairs(&[("client_id", "me"), ("client_secret", "s:+"), ("grant_type", "password")])
    );
    assert_eq!(server.seen()[1].authorization().as_deref(), Some("Bearer t2"));
}

#[tokio::test]
async fn failures_are_told_and_shared_and_the_next_request_asks_again() {
    let server = serve(|_| text(200, "")).await;
    let issuer =
        serve(|_| json(400, r#"{"error":"invalid_scope","error_description":"no such scope"}"#)).await;
    let client = with(&issuer, "");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (client, server) = (client.clone(), server.clone());
        requests.spawn(async move { ask(&client, &server).await });
    }
    while let Some(outcome) = requests.join_next().await {
        assert_eq!(outcome.unwrap(), Err(r#"oauth2: "invalid_scope" "no such scope""#.to_owned()));
    }
    // Both ways of showing the secret.
    assert_eq!(issuer.seen().len(), 2);
    ask(&client, &server).await.unwrap_err();
    assert_eq!((issuer.seen().len(), server.seen().len()), (4, 0));

    let clash = with(&issuer, "scopes: [a], endpoint_params: {scope: b}");
    assert_eq!(ask(&clash, &server).await, Err(r#"oauth2: cannot overwrite parameter "scope""#.to_owned()));
    let huge = serve(|_| json(200, vec![b' '; (1 << 20) + 1])).await;
    assert_eq!(ask(&with(&huge, ""), &server).await, Err("response body exceeds 1048576 bytes".to_owned()));
    let away = serve(|_| crate::support::redirect(307, "http://127.0.0.1:1/")).await;
    let error = ask(&with(&away, ""), &server).await.unwrap_err();
    assert_eq!(error, "oauth2: cannot fetch token: 307 Temporary Redirect", "the secret goes nowhere else");
}

#[tokio::test]
async fn a_rotated_secret_gets_another_token() {
    let (issuer, server) = (issuer(3600).await, serve(|_| text(200, "")).await);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one\n").unwrap();
    let yaml = format!(
        "{{oauth2: {{client_id: me, client_secret_file: {}, token_url: '{}'}}}}",
        file.path().display(),
        issuer.url("/")
    );
    let client = client(&yaml);
    ask(&client, &server).await.unwrap();
    ask(&client, &server).await.unwrap();
    std::fs::write(file.path(), "two\n").unwrap();
    ask(&client, &server).await.unwrap();
    let sent: Vec<_> = issuer.seen().iter().map(|saw| saw.authorization().unwrap()).collect();
    // me:one, me:two
    assert_eq!(sent, ["Basic bWU6b25l", "Basic bWU6dHdv"]);
}

#[tokio::test]
async fn the_issuer_has_its_own_tls_and_proxy() {
    let ca = Ca::new();
    let issuer = serve_tls(ca.leaf("localhost").server(), |_| json(200, r#"{"access_token":"t"}"#)).await;
    let server = serve(|_| text(200, "")).await;
    let url = format!("https://{}/", issuer.address);
    let yaml = |more: &str| format!("{{oauth2: {{client_id: a, token_url: '{url}', {more}}}}}");
    let own = client(&yaml(&format!("tls_config: {{ca: {:?}, server_name: localhost}}", ca.pem)));
    assert_eq!(ask(&own, &server).await, Ok(StatusCode::OK));
    assert!(ask(&client(&yaml("")), &server).await.unwrap_err().contains("failed to verify certificate"));

    let proxy = serve(|_| json(200, r#"{"access_token":"p"}"#)).await;
    let proxied = format!(
        "{{oauth2: {{client_id: a, token_url: 'http://issuer.example/t', proxy_url: 'http://{}'}}}}",
        proxy.address
    );
    assert_eq!(ask(&client(&proxied), &server).await, Ok(StatusCode::OK));
    assert_eq!(proxy.seen()[0].uri, "http://issuer.example/t");
    assert_eq!(server.seen()[1].authorization().as_deref(), Some("Bearer p"));
}

#[tokio::test]
async fn assertions_are_exchanged_for_tokens() {
    let (issuer, server) = (issuer(3600).await, serve(|_| text(200, "")).await);
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rsa-for-tests-only.pem");
    let yaml = format!(
        "{{oauth2: {{client_id: me, token_url: '{}', grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', \
         client_certificate_key_file: {key}, client_certificate_key_id: k, claims: {{role: [reader]}}, scopes: [s], \
         endpoint_params: {{tenant: x}}}}}}",
        issuer.url("/token")
    );
    let client = client(&yaml);
    assert_eq!(ask(&client, &server).await, Ok(StatusCode::OK));
    assert_eq!(server.seen()[0].authorization().as_deref(), Some("Bearer t1"));
    let sent = form(&issuer.seen()[0]);
    let value =
        |name: &str| sent.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone()).unwrap();
    assert_eq!(value("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert_eq!((value("tenant").as_str(), sent.len()), ("x", 3));
    let assertion = value("assertion");
    let claims = assertion.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some("me"), Some("me")));
    assert_eq!(
        (claims["aud"].as_str(), claims["scope"].as_str()),
        (Some(issuer.url("/token").as_str()), Some("s"))
    );
    assert_eq!(
        (&claims["role"][0], claims["exp"].as_u64()),
        (&"reader".into(), claims["iat"].as_u64().map(|at| at + 600))
    );
    assert_eq!(issuer.seen()[0].authorization(), None);
}

#[tokio::test]
async fn an_issuer_that_hangs_costs_no_more_than_the_time_allowed() {
    let issuer = crate::support::serve_raw(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let server = serve(|_| text(200, "")).await;
    let client = client(&format!("{{oauth2: {{client_id: a, token_url: 'http://{issuer}/'}}}}"));
    let hasty = net::http::SendLimits { timeout: Duration::from_millis(50), ..limits() };
    let error = client.send(get(&server.url("/")), hasty).await.unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
}
