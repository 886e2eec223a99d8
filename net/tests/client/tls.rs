//! Certificates: whom the client trusts, who trusts it, and what happens when files change.

use http::Version;
use net::http::{ClientOptions, HttpClient};

use crate::support::{
    Ca, Server, client, client_with, get, limits, options, serve, serve_raw, serve_tls, text,
};

fn https(server: &Server) -> String {
    format!("https://{}/", server.address)
}

/// A folder with files of these names and contents; gives their paths.
fn files<const N: usize>(dir: &tempfile::TempDir, contents: [(&str, &str); N]) -> [String; N] {
    contents.map(|(name, text)| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    })
}

async fn outcome(client: &HttpClient, url: &str) -> String {
    match client.send(get(url), limits()).await {
        Ok(answer) => String::from_utf8_lossy(answer.body()).into_owned(),
        Err(error) => error.to_string(),
    }
}

fn inline(pem: &str) -> String {
    format!("{pem:?}")
}

#[tokio::test]
async fn verifies_certificates_unless_told_not_to() {
    let ca = Ca::new();
    let server = serve_tls(ca.leaf("localhost").server(), |_| text(200, "page")).await;
    let url = https(&server);
    let dir = tempfile::tempdir().unwrap();
    let [ca_file] = files(&dir, [("ca", &ca.pem)]);
    let trusting = client(&format!("{{tls_config: {{ca_file: {ca_file}, server_name: localhost}}}}"));
    assert_eq!(outcome(&trusting, &url).await, "page");
    let trusting = client(&format!("{{tls_config: {{ca: {}, server_name: localhost}}}}", inline(&ca.pem)));
    assert_eq!(outcome(&trusting, &url).await, "page");
    assert_eq!(outcome(&client("{tls_config: {insecure_skip_verify: true}}"), &url).await, "page");
    let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!(outcome(&client("{tls_config: {server_name: localhost}}"), &url).await, unknown);
    let other =
        client(&format!("{{tls_config: {{ca: {}, server_name: localhost}}}}", inline(&Ca::new().pem)));
    // Both authorities have the same name, so that it is the signature that does not fit.
    assert!(outcome(&other, &url).await.starts_with("tls: failed to verify certificate: x509: "));
}

#[tokio::test]
async fn refuses_other_hosts_expired_ones_and_those_of_the_future() {
    let ca = Ca::new();
    let trusting =
        |name: &str| client(&format!("{{tls_config: {{ca: {}, server_name: {name}}}}}", inline(&ca.pem)));
    let server = serve_tls(ca.leaf("localhost").server(), |_| text(200, "page")).await;
    assert_eq!(
        outcome(&trusting("other.example"), &https(&server)).await,
        "tls: failed to verify certificate: x509: certificate is valid for localhost, not other.example"
    );
    for (years, why) in [((2001, 2002), "it expired "), ((4000, 4001), "it becomes valid in ")] {
        let leaf = ca.leaf_with("localhost", |params| {
            params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
            params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        });
        let server = serve_tls(leaf.server(), |_| text(200, "page")).await;
        let error = outcome(&trusting("localhost"), &https(&server)).await;
        let words = "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: ";
        assert!(error.starts_with(&format!("{words}{why}")), "{error}");
    }
}

#[tokio::test]
async fn versions_have_bounds() {
    let ca = Ca::new();
    let leaf = ca.leaf("localhost");
    let trusting = |bounds: &str| {
        client(&format!("{{tls_config: {{ca: {}, server_name: localhost, {bounds}}}}}", inline(&ca.pem)))
    };
    let old = serve_tls(leaf.server_with(&[&rustls::version::TLS12], None), |_| text(200, "old")).await;
    let new = serve_tls(leaf.server_with(&[&rustls::version::TLS13], None), |_| text(200, "new")).await;
    assert_eq!(outcome(&trusting("min_version: TLS12"), &https(&old)).await, "old");
    assert_eq!(outcome(&trusting("max_version: TLS12"), &https(&old)).await, "old");
    assert_eq!(outcome(&trusting("min_version: TLS13"), &https(&new)).await, "new");
    let unsupported = "remote error: tls: protocol version not supported";
    assert_eq!(outcome(&trusting("min_version: TLS13"), &https(&old)).await, unsupported);
    assert_eq!(outcome(&trusting("max_version: TLS12"), &https(&new)).await, unsupported);
}

#[tokio::test]
async fn http2_is_spoken_where_both_want_it() {
    let ca = Ca::new();
    let mut tls = ca.leaf("localhost").server();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = serve_tls(tls, |_| text(200, "page")).await;
    let with = |more: &str| {
        client(&format!("{{tls_config: {{ca: {}, server_name: localhost}}, {more}}}", inline(&ca.pem)))
    };
    let (new, old) = (with(""), with("enable_http2: false"));
    for client in [&new, &new, &old] {
        assert_eq!(outcome(client, &https(&server)).await, "page");
    }
    let versions: Vec<Version> = server.seen().iter().map(|saw| saw.version).collect();
    assert_eq!(versions, [Version::HTTP_2, Version::HTTP_2, Version::HTTP_11]);
    assert_eq!(server.connections(), 2);
    // Plain text has no way to agree on it.
    let plain = serve(|_| text(200, "page")).await;
    outcome(&client("{}"), &plain.url("/")).await;
    assert_eq!(plain.seen()[0].version, Version::HTTP_11);
}

#[tokio::test]
async fn shows_its_certificate_where_one_is_wanted() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let tls = ca.leaf("localhost").server_with(rustls::ALL_VERSIONS, Some(clients.client_verifier()));
    let server = serve_tls(tls, |_| text(200, "page")).await;
    let own = clients.leaf("client");
    let with = |more: &str| {
        client(&format!("{{tls_config: {{ca: {}, server_name: localhost, {more}}}}}", inline(&ca.pem)))
    };
    let welcome = with(&format!("cert: {}, key: {}", inline(&own.pem), inline(&own.key_pem)));
    assert_eq!(outcome(&welcome, &https(&server)).await, "page");
    assert_eq!(outcome(&with(""), &https(&server)).await, "remote error: tls: certificate required");
}

#[tokio::test]
async fn a_server_without_tls_is_recognised() {
    let server = serve(|_| text(200, "page")).await;
    assert_eq!(
        outcome(&client("{}"), &https(&server)).await,
        "tls: first record does not look like a TLS handshake"
    );
    let address = serve_raw(|stream| async move { drop(stream) }).await;
    let error = outcome(&client("{}"), &format!("https://{address}/")).await;
    assert!(error == "EOF" || error.contains("reset"), "{error}");
}

#[tokio::test]
async fn a_replaced_authority_is_trusted_at_once_and_the_old_one_no_more() {
    let (old, new) = (Ca::new(), Ca::new());
    let old_server = serve_tls(old.leaf("localhost").server(), |_| text(200, "old")).await;
    let new_server = serve_tls(new.leaf("localhost").server(), |_| text(200, "new")).await;
    let dir = tempfile::tempdir().unwrap();
    let [ca_file] = files(&dir, [("ca", &old.pem)]);
    let client = client(&format!("{{tls_config: {{ca_file: {ca_file}, server_name: localhost}}}}"));
    assert_eq!(outcome(&client, &https(&old_server)).await, "old");
    assert!(outcome(&client, &https(&new_server)).await.contains("failed to verify"));
    // As orchestrators do it: another file takes the name.
    let [next] = files(&dir, [("next", &new.pem)]);
    std::fs::rename(next, &ca_file).unwrap();
    assert_eq!(outcome(&client, &https(&new_server)).await, "new");
    // Not even over the connection that was open.
    assert!(outcome(&client, &https(&old_server)).await.contains("failed to verify"));
}

#[tokio::test]
async fn rotated_client_certificates_are_shown_and_halves_of_a_rotation_do_no_harm() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let tls = ca.leaf("localhost").server_with(rustls::ALL_VERSIONS, Some(clients.client_verifier()));
    let server = serve_tls(tls, |_| text(200, "page")).await;
    let expired = clients.leaf_with("client", |params| params.not_after = rcgen::date_time_ymd(2002, 1, 1));
    let good = clients.leaf("client");
    let dir = tempfile::tempdir().unwrap();
    let [ca_file, cert, key] =
        files(&dir, [("ca", &ca.pem), ("cert", &expired.pem), ("key", &expired.key_pem)]);
    let yaml = format!(
        "{{tls_config: {{ca_file: {ca_file}, server_name: localhost, cert_file: {cert}, key_file: {key}}}}}"
    );
    let client = client(&yaml);
    assert_eq!(outcome(&client, &https(&server)).await, "remote error: tls: expired certificate");
    files(&dir, [("cert", &good.pem), ("key", &good.key_pem)]);
    assert_eq!(outcome(&client, &https(&server)).await, "page");
    // The key does not fit the certificate yet: what was good stays in use for a while.
    files(&dir, [("cert", &clients.leaf("client").pem)]);
    assert_eq!(outcome(&client, &https(&server)).await, "page");
    // A new client has nothing to go on with.
    let raw: net::http::RawHttpClientConfig = serde_yaml::from_str(&yaml).unwrap();
    let config = raw.build(&model::ConfigPath::root(), std::path::Path::new("")).unwrap();
    assert!(HttpClient::new(&config, options()).is_err());
}

#[tokio::test]
async fn files_are_not_looked_at_more_often_than_needed() {
    let (old, new) = (Ca::new(), Ca::new());
    let server = serve_tls(old.leaf("localhost").server(), |_| text(200, "page")).await;
    let dir = tempfile::tempdir().unwrap();
    let [ca_file] = files(&dir, [("ca", &old.pem)]);
    let slow = ClientOptions { tls_files_check_interval: std::time::Duration::from_secs(3600), ..options() };
    let client =
        client_with(&format!("{{tls_config: {{ca_file: {ca_file}, server_name: localhost}}}}"), slow);
    files(&dir, [("ca", &new.pem)]);
    assert_eq!(outcome(&client, &https(&server)).await, "page");
}
