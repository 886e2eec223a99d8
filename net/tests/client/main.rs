//! The client against small servers on loopback: what it sends, follows, refuses and bounds.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod bounds;
mod oauth2;
mod proxy;
mod support;
mod tls;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use net::NetError;

use support::{client, get, limits, redirect, serve, text};

#[tokio::test]
async fn sends_credentials_and_keeps_the_password_to_itself() {
    let server = serve(|_| text(200, "ok")).await;
    let client = client("{basic_auth: {username: user, password: hunter2}}");
    let answer = client.send(get(&server.url("/x")), limits()).await.unwrap();
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, b"ok".as_slice()));
    assert_eq!(server.seen()[0].authorization().as_deref(), Some("Basic dXNlcjpodW50ZXIy"));
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[tokio::test]
async fn credentials_of_the_url_win_over_configured_ones_and_leave_the_url() {
    let server = serve(|_| text(200, "")).await;
    let url = format!("http://us%40er:pw@{}/x?y", server.address);
    client("{authorization: {credentials: t}}").send(get(&url), limits()).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.authorization().as_deref(), Some("Basic dXNAZXI6cHc="));
    assert_eq!((seen.uri.as_str(), seen.header("host")), ("/x?y", Some(server.address.to_string())));
}

#[tokio::test]
async fn reads_rotated_secrets_without_a_reload() {
    let server = serve(|_| text(200, "")).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let token = client(&format!("{{authorization: {{credentials_file: {}}}}}", file("a")));
    let basic =
        client(&format!("{{basic_auth: {{username_file: {}, password_file: {}}}}}", file("a"), file("b")));
    let header = client(&format!("{{http_headers: {{X-A: {{values: [v], files: [{}]}}}}}}", file("a")));
    for text in ["one\n", "two\n"] {
        std::fs::write(file("a"), text).unwrap();
        std::fs::write(file("b"), text).unwrap();
        for client in [&token, &basic, &header] {
            client.send(get(&server.url("/")), limits()).await.unwrap();
        }
    }
    let seen = server.seen();
    let sent: Vec<_> = seen.iter().filter_map(|saw| saw.authorization()).collect();
    assert_eq!(sent, ["Bearer one", "Basic b25lOm9uZQ==", "Bearer two", "Basic dHdvOnR3bw=="]);
    let values = |saw: &support::Saw| -> Vec<String> {
        saw.headers.get_all("x-a").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (values(&seen[2]), values(&seen[5])),
        (vec!["v".into(), "one".into()], vec!["v".into(), "two".into()])
    );

    std::fs::remove_file(file("a")).unwrap();
    let error = token.send(get(&server.url("/")), limits()).await.unwrap_err();
    assert!(matches!(error, NetError::File { .. }), "{error}");
}

#[tokio::test]
async fn redirects_keep_credentials_on_the_host_only_and_turn_posts_into_gets() {
    let other = serve(|_| text(200, "there")).await;
    let elsewhere = other.url("/there");
    let server = serve(move |saw| match saw.uri.as_str() {
        "/same" => redirect(302, "/moved"),
        "/moved" => text(200, "moved"),
        "/away" => redirect(307, &elsewhere),
        "/circle" => redirect(302, "/circle"),
        _ => redirect(302, "file:///etc/passwd"),
    })
    .await;
    let with_token = client("{authorization: {credentials: t0ken}, http_headers: {X-Key: {secrets: [k]}}}");
    let post = |path: &str| Request::post(server.url(path)).body(Bytes::from("body")).unwrap();

    assert_eq!(with_token.send(post("/same"), limits()).await.unwrap().body().as_ref(), b"moved");
    assert_eq!(with_token.send(post("/away"), limits()).await.unwrap().body().as_ref(), b"there");
    let moved = &server.seen()[1];
    assert_eq!((moved.method.clone(), moved.uri.as_str(), moved.body.as_str()), (Method::GET, "/moved", ""));
    assert_eq!(
        (moved.authorization().as_deref(), moved.header("x-key").as_deref()),
        (Some("Bearer t0ken"), Some("k"))
    );
    let away = &other.seen()[0];
    assert_eq!((away.method.clone(), away.body.as_str()), (Method::POST, "body"));
    assert_eq!((away.authorization(), away.header("x-key")), (None, None));

    let before = server.seen().len();
    let circle = with_token.send(post("/circle"), limits()).await.unwrap_err();
    assert_eq!(circle.to_string(), "stopped after 10 redirects");
    assert_eq!(server.seen().len() - before, 10);
    let scheme = with_token.send(post("/file"), limits()).await.unwrap_err();
    assert!(matches!(scheme, NetError::InvalidUrl(_)), "{scheme}");

    let stays = client("{follow_redirects: false}");
    assert_eq!(stays.send(post("/same"), limits()).await.unwrap().status(), StatusCode::FOUND);
}
