//! Prints the HTTP client block, in Alertmanager's order of keys.

use std::collections::BTreeMap;

use model::Secret;
use model::config::SECRET_MASK;
use net::http::{RawHttpClientConfig, RawHttpHeader, RawOauth2};
use net::tls::RawTlsConfig;
use serde_yaml::Value;

use super::print::Printer;

/// The block as YAML.
pub(super) fn print_http(http: &RawHttpClientConfig) -> Value {
    let mut out = Printer::default();
    if let Some(basic) = &http.basic_auth {
        let mut inner = Printer::default();
        text(&mut inner, "username", &basic.username);
        inner.path("username_file", &basic.username_file);
        inner.secret("password", basic.password.is_some());
        inner.path("password_file", &basic.password_file);
        out.put("basic_auth", inner.done());
    }
    if let Some(authorization) = &http.authorization {
        let mut inner = Printer::default();
        let kind = authorization.kind.as_deref().map(str::trim).filter(|kind| !kind.is_empty());
        inner.put("type", kind.unwrap_or("Bearer"));
        inner.secret("credentials", authorization.credentials.is_some());
        inner.path("credentials_file", &authorization.credentials_file);
        out.put("authorization", inner.done());
    } else if http.bearer_token.is_some() || http.bearer_token_file.is_some() {
        let mut inner = Printer::default();
        inner.put("type", "Bearer");
        inner.secret("credentials", http.bearer_token.is_some());
        inner.path("credentials_file", &http.bearer_token_file);
        out.put("authorization", inner.done());
    }
    if let Some(oauth2) = &http.oauth2 {
        out.put("oauth2", print_oauth2(oauth2));
    }
    print_tls(&mut out, &http.tls_config);
    out.put("follow_redirects", http.follow_redirects);
    out.put("enable_http2", http.enable_http2);
    let header = &http.proxy_connect_header;
    print_proxy(&mut out, &http.proxy_url, &http.no_proxy, http.proxy_from_environment, header);
    if !http.http_headers.is_empty() {
        let mut inner = Printer::default();
        for (name, header) in &http.http_headers {
            inner.put(name, print_header(header));
        }
        out.put("http_headers", inner.done());
    }
    out.done()
}

fn print_oauth2(oauth2: &RawOauth2) -> Value {
    let mut out = Printer::default();
    out.put("client_id", oauth2.client_id.as_deref().unwrap_or_default());
    out.secret("client_secret", oauth2.client_secret.is_some());
    out.path("client_secret_file", &oauth2.client_secret_file);
    text(&mut out, "client_certificate_key_id", &oauth2.client_certificate_key_id);
    out.secret("client_certificate_key", oauth2.client_certificate_key.is_some());
    out.path("client_certificate_key_file", &oauth2.client_certificate_key_file);
    text(&mut out, "grant_type", &oauth2.grant_type);
    text(&mut out, "signature_algorithm", &oauth2.signature_algorithm);
    text(&mut out, "iss", &oauth2.iss);
    text(&mut out, "audience", &oauth2.audience);
    if !oauth2.claims.is_empty() {
        // What came from YAML has a YAML form.
        out.put("claims", serde_yaml::to_value(&oauth2.claims).unwrap_or_default());
    }
    if !oauth2.scopes.is_empty() {
        out.put("scopes", list(oauth2.scopes.iter().map(String::as_str)));
    }
    out.put("token_url", oauth2.token_url.as_deref().unwrap_or_default());
    if !oauth2.endpoint_params.is_empty() {
        let mut inner = Printer::default();
        for name in oauth2.endpoint_params.keys() {
            // Some servers take passwords here.
            inner.put(name, SECRET_MASK);
        }
        out.put("endpoint_params", inner.done());
    }
    print_tls(&mut out, &oauth2.tls_config);
    let header = &oauth2.proxy_connect_header;
    print_proxy(&mut out, &oauth2.proxy_url, &oauth2.no_proxy, oauth2.proxy_from_environment, header);
    out.done()
}

fn print_tls(out: &mut Printer, tls: &Option<RawTlsConfig>) {
    let Some(tls) = tls.as_ref().filter(|tls| **tls != RawTlsConfig::default()) else { return };
    let mut inner = Printer::default();
    text(&mut inner, "ca", &tls.ca);
    text(&mut inner, "cert", &tls.cert);
    inner.secret("key", tls.key.is_some());
    inner.path("ca_file", &tls.ca_file);
    inner.path("cert_file", &tls.cert_file);
    inner.path("key_file", &tls.key_file);
    text(&mut inner, "server_name", &tls.server_name);
    inner.put("insecure_skip_verify", tls.insecure_skip_verify);
    text(&mut inner, "min_version", &tls.min_version);
    text(&mut inner, "max_version", &tls.max_version);
    out.put("tls_config", inner.done());
}

fn print_proxy(
    out: &mut Printer,
    url: &Option<Secret>,
    no_proxy: &Option<String>,
    from_environment: bool,
    connect_header: &Option<BTreeMap<String, Vec<Secret>>>,
) {
    if let Some(url) = url.as_ref().filter(|url| !url.is_empty()) {
        out.put("proxy_url", without_password(url));
    }
    text(out, "no_proxy", no_proxy);
    if from_environment {
        out.put("proxy_from_environment", true);
    }
    if let Some(headers) = connect_header.as_ref().filter(|headers| !headers.is_empty()) {
        let mut inner = Printer::default();
        for (name, values) in headers {
            inner.put(name, list(values.iter().map(|_| SECRET_MASK)));
        }
        out.put("proxy_connect_header", inner.done());
    }
}

/// The URL with `xxxxx` for the password, as Go shows it.
fn without_password(url: &Secret) -> String {
    let Ok(mut url) = url::Url::parse(url.expose()) else { return SECRET_MASK.to_owned() };
    if url.password().is_some() && url.set_password(Some("xxxxx")).is_err() {
        return SECRET_MASK.to_owned();
    }
    let text = url.as_str();
    text.strip_suffix('/').unwrap_or(text).to_owned()
}

fn print_header(header: &RawHttpHeader) -> Value {
    let mut out = Printer::default();
    let mut put = |key: &str, values: Vec<&str>| {
        if !values.is_empty() {
            out.put(key, list(values.into_iter()));
        }
    };
    put("values", header.values.iter().map(String::as_str).collect());
    put("secrets", header.secrets.iter().map(|_| SECRET_MASK).collect());
    let files: Vec<String> = header.files.iter().map(|file| file.display().to_string()).collect();
    put("files", files.iter().map(String::as_str).collect());
    out.done()
}

fn text(out: &mut Printer, key: &str, text: &Option<String>) {
    if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
        out.put(key, text);
    }
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> Value {
    Value::Sequence(items.map(Value::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_shown_but_secrets() {
        let written = "{oauth2: {client_id: i, client_secret: hunter2, token_url: 'http://t', scopes: [a], endpoint_params: \
                       {a: hunter2}, claims: {x: 1}}, tls_config: {insecure_skip_verify: true, min_version: TLS12, key: hunter2}, \
                       enable_http2: false, proxy_url: 'http://u:hunter2@p.example:1', no_proxy: 'a,b', proxy_connect_header: \
                       {A: [hunter2, hunter2]}, http_headers: {X-A: {values: [v], secrets: [hunter2], files: [f]}}}";
        let raw: RawHttpClientConfig = serde_yaml::from_str(written).unwrap();
        let expected = "oauth2:
  client_id: i
  client_secret: <secret>
  claims:
    x: 1
  scopes:
  - a
  token_url: http://t
  endpoint_params:
    a: <secret>
tls_config:
  key: <secret>
  insecure_skip_verify: true
  min_version: TLS12
follow_redirects: true
enable_http2: false
proxy_url: http://u:xxxxx@p.example:1
no_proxy: a,b
proxy_connect_header:
  A:
  - <secret>
  - <secret>
http_headers:
  X-A:
    values:
    - v
    secrets:
    - <secret>
    files:
    - f
";
        assert_eq!(serde_yaml::to_string(&print_http(&raw)).unwrap(), expected);
        let raw: RawHttpClientConfig = serde_yaml::from_str("{bearer_token: hunter2}").unwrap();
        let shown = serde_yaml::to_string(&print_http(&raw)).unwrap();
        assert!(shown.starts_with("authorization:\n  type: Bearer\n  credentials: <secret>\n"), "{shown}");
    }
}
