//! `oauth2`: tokens of an authorization server, by the `client_credentials` grant (RFC 6749) or by signed assertions
//! (RFC 7523).
//!
//! A token is kept until shortly before it expires. Only one request for a token is under way at a time: who comes
//! meanwhile waits for it and shares what comes out, failures too. A token the target refuses is replaced, but not more
//! often than every half a minute: a target that refuses everybody must not make us flood the authorization server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use model::{ConfigError, ConfigPath, Secret};
use rand::RngExt as _;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded;

use super::client::{ClientOptions, HttpClient, SendLimits};
use super::config::{Credentials, HttpClientConfig, SecretSource, both};
use super::jwt::{self, Algorithm};
use super::proxy::{ProxyConfig, RawProxy};
use super::raw::RawOauth2;
use crate::error::NetError;
use crate::tls::TlsConfig;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// A token is used until so long before it expires.
const EXPIRES_EARLY: Duration = Duration::from_secs(10);
/// Longest time between tokens a target refused.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(30);
/// For one request to the authorization server; whoever waits may have less time.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_MAX_BYTES: u64 = 1 << 20;
/// Most of an authorization server's words that are shown.
const WORDS_MAX_CHARS: usize = 200;

/// A valid `oauth2`.
#[derive(Clone, Debug, PartialEq)]
pub struct Oauth2Config {
    client_id: String,
    grant: Grant,
    token_url: String,
    scopes: Vec<String>,
    endpoint_params: BTreeMap<String, Secret>,
    tls: TlsConfig,
    proxy: ProxyConfig,
}

#[derive(Clone, Debug, PartialEq)]
enum Grant {
    ClientCredentials { secret: SecretSource },
    JwtBearer(Box<JwtBearer>),
}

#[derive(Clone, PartialEq)]
struct JwtBearer {
    key: SecretSource,
    key_id: String,
    algorithm: Algorithm,
    issuer: String,
    audience: String,
    claims: BTreeMap<String, Value>,
}

impl std::fmt::Debug for JwtBearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtBearer").field("key", &self.key).finish_non_exhaustive()
    }
}

impl RawOauth2 {
    /// Checks the settings; relative files are looked for in `dir`.
    pub(super) fn build(self, path: &ConfigPath, dir: &Path) -> Result<Oauth2Config, ConfigError> {
        let refuse = |text: &str| Err(ConfigError::new(path, text));
        let client_id = self.client_id.unwrap_or_default();
        let token_url = self.token_url.unwrap_or_default();
        if client_id.is_empty() {
            return refuse("oauth2 client_id must be configured");
        }
        if token_url.is_empty() {
            return refuse("oauth2 token_url must be configured");
        }
        let grant = if self.grant_type.as_deref() == Some(JWT_BEARER) {
            if both(self.client_certificate_key.as_ref(), self.client_certificate_key_file.as_ref()) {
                return refuse(
                    "at most one of oauth2 client_certificate_key, client_certificate_key_file & \
                     client_certificate_key_ref must be configured using grant-type=urn:ietf:params:oauth:grant-type:jwt-bearer",
                );
            }
            let Some(algorithm) = Algorithm::parse(self.signature_algorithm.as_deref().unwrap_or_default())
            else {
                return Err(ConfigError::new(
                    &path.key("signature_algorithm"),
                    "valid signature algorithms are RS256, RS384 and RS512",
                ));
            };
            let or_client = |text: Option<String>| text.filter(|text| !text.is_empty());
            Grant::JwtBearer(Box::new(JwtBearer {
                key: SecretSource::of(self.client_certificate_key, self.client_certificate_key_file, dir),
                key_id: self.client_certificate_key_id.unwrap_or_default(),
                algorithm,
                issuer: or_client(self.iss).unwrap_or_else(|| client_id.clone()),
                audience: or_client(self.audience).unwrap_or_else(|| token_url.clone()),
                claims: self.claims,
            }))
        } else {
            if both(self.client_secret.as_ref(), self.client_secret_file.as_ref()) {
                return refuse(
                    "at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be configured using \
                     grant-type=client_credentials",
                );
            }
            let secret = SecretSource::of(self.client_secret, self.client_secret_file, dir);
            Grant::ClientCredentials { secret }
        };
        let proxy = RawProxy {
            url: self.proxy_url,
            no_proxy: self.no_proxy,
            from_environment: self.proxy_from_environment,
            connect_header: self.proxy_connect_header,
        };
        Ok(Oauth2Config {
            client_id,
            grant,
            token_url,
            scopes: self.scopes,
            endpoint_params: self.endpoint_params,
            tls: self.tls_config.unwrap_or_default().build(&path.key("tls_config"), dir)?,
            proxy: proxy.build(path)?,
        })
    }
}

/// Gets tokens and keeps them.
pub(super) struct TokenSource {
    config: Oauth2Config,
    client: HttpClient,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// The last request for a token, when it failed: those who waited for it fail alike.
    failed: Option<(Instant, NetError)>,
    /// When the target's refusal last made us ask for another.
    replaced: Option<Instant>,
    /// How the authorization server wants to see the secret, once known.
    style: Option<Style>,
}

struct Token {
    header: HeaderValue,
    /// What it was given for: another secret means another token.
    credential: Secret,
    expires: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// `Authorization: Basic`
    Header,
    /// `client_id` and `client_secret` in the form.
    Form,
}

impl TokenSource {
    pub(super) fn new(config: &Oauth2Config, options: &ClientOptions) -> Result<Self, NetError> {
        let client = HttpClientConfig {
            credentials: Credentials::None,
            tls: config.tls.clone(),
            proxy: config.proxy.clone(),
            // A redirect would take the secret in the form elsewhere.
            follow_redirects: false,
            enable_http2: false,
            headers: Vec::new(),
        };
        let options = ClientOptions { idle_connections_max: 1, ..options.clone() };
        let client = HttpClient::new(&client, options)?;
        Ok(Self { config: config.clone(), client, state: Mutex::default() })
    }

    /// The `Authorization` header of now.
    ///
    /// # Errors
    /// When no token can be had.
    pub(super) async fn header(&self) -> Result<HeaderValue, NetError> {
        let came = Instant::now();
        let credential = self.credential().await?;
        let mut state = self.state.lock().await;
        if let Some(token) = &state.token
            && token.credential == credential
            && token.expires.is_none_or(|expires| Instant::now() + EXPIRES_EARLY < expires)
        {
            return Ok(token.header.clone());
        }
        self.fetch(&mut state, credential, came).await
    }

    /// Another header when the target has refused `refused`; `None` when there is no other.
    ///
    /// # Errors
    /// When no other token can be had.
    pub(super) async fn replace(&self, refused: &HeaderValue) -> Result<Option<HeaderValue>, NetError> {
        let came = Instant::now();
        let credential = self.credential().await?;
        let mut state = self.state.lock().await;
        match &state.token {
            // Somebody else was faster.
            Some(token) if token.header != refused => return Ok(Some(token.header.clone())),
            _ => {}
        }
        if state.replaced.is_some_and(|last| last.elapsed() < REFUSALS_INTERVAL) {
            return Ok(None);
        }
        state.replaced = Some(Instant::now());
        let header = self.fetch(&mut state, credential, came).await?;
        Ok((header != refused).then_some(header))
    }

    async fn credential(&self) -> Result<Secret, NetError> {
        match &self.config.grant {
            Grant::ClientCredentials { secret } => secret.read().await,
            Grant::JwtBearer(jwt) => jwt.key.read().await,
        }
    }

    async fn fetch(
        &self,
        state: &mut State,
        credential: Secret,
        came: Instant,
    ) -> Result<HeaderValue, NetError> {
        if let Some((when, error)) = &state.failed
            && *when > came
        {
            return Err(error.clone());
        }
        let style = state.style;
        let asked = match (&self.config.grant, style) {
            (Grant::JwtBearer(jwt), _) => self.ask_with_assertion(jwt, &credential).await,
            (_, Some(style)) => self.ask_with_secret(&credential, style).await,
            (_, None) => match self.ask_with_secret(&credential, Style::Header).await {
                Ok(answer) => {
                    state.style = Some(Style::Header);
                    Ok(answer)
                }
                // Some know only the other way, and say so in many ways.
                Err(NetError::Token(_)) => {
                    let asked = self.ask_with_secret(&credential, Style::Form).await;
                    if asked.is_ok() {
                        state.style = Some(Style::Form);
                    }
                    asked
                }
                Err(error) => Err(error),
            },
        };
        match asked {
            Ok((header, lifetime)) => {
                let expires = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
                state.token = Some(Token { header: header.clone(), credential, expires });
                state.failed = None;
                Ok(header)
            }
            Err(error) => {
                state.token = None;
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn ask_with_secret(&self, secret: &Secret, style: Style) -> Answer {
        let mut form = BTreeMap::from([("grant_type", "client_credentials")]);
        let scopes = self.config.scopes.join(" ");
        if !scopes.is_empty() {
            form.insert("scope", &scopes);
        }
        for (name, value) in &self.config.endpoint_params {
            if form.insert(name, value.expose()).is_some() && name != "grant_type" {
                return Err(NetError::Token(format!("oauth2: cannot overwrite parameter {name:?}")));
            }
        }
        let id = self.config.client_id.as_str();
        let authorization = match style {
            Style::Header => {
                let escaped =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", escaped(id), escaped(secret.expose()));
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
            }
            Style::Form => {
                form.insert("client_id", id);
                if !secret.is_empty() {
                    form.insert("client_secret", secret.expose());
                }
                None
            }
        };
        self.ask(&form, authorization).await
    }

    async fn ask_with_assertion(&self, grant: &JwtBearer, key: &Secret) -> Answer {
        let claims = jwt::Claims {
            issuer: &grant.issuer,
            subject: &self.config.client_id,
            audience: &grant.audience,
            scopes: &self.config.scopes,
            own: &grant.claims,
            id: unique_id(rand::rng().random()),
            // The clock that certificates are verified by.
            now_secs: rustls::pki_types::UnixTime::now().as_secs(),
        };
        let assertion = jwt::sign(&claims, key, grant.algorithm, &grant.key_id)?;
        let mut form: BTreeMap<&str, &str> =
            self.config.endpoint_params.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        form.insert("grant_type", JWT_BEARER);
        form.insert("assertion", assertion.expose());
        self.ask(&form, None).await
    }

    async fn ask(&self, form: &BTreeMap<&str, &str>, authorization: Option<String>) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request =
            Request::post(&self.config.token_url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Bytes::from(body))
            .map_err(|_| NetError::InvalidUrl("oauth2 token_url is no URL".to_owned()))?;
        let limits = SendLimits { timeout: TOKEN_TIMEOUT, body_max_bytes: ANSWER_MAX_BYTES };
        let answer = self.client.send_boxed(request, limits).await?;
        read_answer(&answer)
    }
}

/// The header and how long it is good for.
type Answer = Result<(HeaderValue, Option<Duration>), NetError>;

fn read_answer(answer: &http::Response<Bytes>) -> Answer {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let fields: BTreeMap<String, Value> = match kind {
        "application/x-www-form-urlencoded" | "text/plain" => form_urlencoded::parse(answer.body())
            .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
            .collect(),
        _ => serde_json::from_slice(answer.body()).unwrap_or_default(),
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let words =
        |text: &str| text.chars().filter(|c| !c.is_control()).take(WORDS_MAX_CHARS).collect::<String>();
    let status = answer.status();
    if !status.is_success() || !text("error").is_empty() {
        let mut message = if text("error").is_empty() {
            // The whole answer is not shown: some quote what they were sent.
            let reason = status.canonical_reason().unwrap_or_default();
            format!("oauth2: cannot fetch token: {} {reason}", status.as_u16())
        } else {
            format!("oauth2: {:?}", words(text("error")))
        };
        if !text("error_description").is_empty() {
            message.push_str(&format!(" {:?}", words(text("error_description"))));
        }
        return Err(NetError::Token(message));
    }
    if text("access_token").is_empty() {
        return Err(NetError::Token("oauth2: server response missing access_token".to_owned()));
    }
    let kind = match text("token_type") {
        kind if kind.is_empty() || kind.eq_ignore_ascii_case("bearer") => "Bearer",
        kind if kind.eq_ignore_ascii_case("mac") => "MAC",
        kind if kind.eq_ignore_ascii_case("basic") => "Basic",
        other => other,
    };
    let mut header = HeaderValue::from_str(&format!("{kind} {}", text("access_token")))
        .map_err(|_| NetError::Token("oauth2: the token is not allowed in a header".to_owned()))?;
    header.set_sensitive(true);
    let seconds = match fields.get("expires_in") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let lifetime =
        seconds.filter(|seconds| *seconds > 0.0).map(|seconds| Duration::from_secs_f64(seconds.min(1e9)));
    Ok((header, lifetime))
}

/// A random UUID.
fn unique_id(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, kind: &str, body: &'static str) -> http::Response<Bytes> {
        http::Response::builder().status(status).header(CONTENT_TYPE, kind).body(Bytes::from(body)).unwrap()
    }

    #[test]
    fn reads_what_authorization_servers_answer() {
        let read = |kind: &str, body: &'static str| {
            let (header, lifetime) = read_answer(&answer(200, kind, body)).unwrap();
            (header.to_str().unwrap().to_owned(), lifetime.map(|lifetime| lifetime.as_secs()))
        };
        let json = "application/json; charset=utf-8";
        assert_eq!(read(json, r#"{"access_token":"a","expires_in":3600}"#), ("Bearer a".into(), Some(3600)));
        assert_eq!(
            read(json, r#"{"access_token":"a","token_type":"bearer","expires_in":"60"}"#),
            ("Bearer a".into(), Some(60))
        );
        assert_eq!(
            read(json, r#"{"access_token":"a","token_type":"Own","expires_in":0}"#),
            ("Own a".into(), None)
        );
        assert_eq!(
            read("text/plain", "access_token=a%2Bb&token_type=mac&expires_in=5"),
            ("MAC a+b".into(), Some(5))
        );
        assert_eq!(
            read(json, r#"{"access_token":"a","expires_in":1e300}"#),
            ("Bearer a".into(), Some(1_000_000_000))
        );
    }

    #[test]
    fn refusals_are_told_without_the_whole_answer() {
        let told = |status: u16, body: &'static str| {
            read_answer(&answer(status, "application/json", body)).unwrap_err().to_string()
        };
        assert_eq!(
            told(401, "client_secret=hunter2 is wrong"),
            "oauth2: cannot fetch token: 401 Unauthorized"
        );
        assert_eq!(
            told(400, r#"{"error":"invalid_client","error_description":"no\nsuch"}"#),
            r#"oauth2: "invalid_client" "nosuch""#
        );
        assert_eq!(told(200, r#"{"error":"invalid_scope"}"#), r#"oauth2: "invalid_scope""#);
        assert_eq!(told(200, "{}"), "oauth2: server response missing access_token");
        assert_eq!(told(200, r#"{"access_token":"a\nb"}"#), "oauth2: the token is not allowed in a header");
    }

    #[test]
    fn ids_have_the_form_of_random_uuids() {
        assert_eq!(unique_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(unique_id(0), "00000000-0000-4000-8000-000000000000");
    }
}
