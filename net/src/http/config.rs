//! The HTTP client block as valid. Messages are those of Prometheus, which tools and people look for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use model::{ConfigError, ConfigPath, Secret};

use super::oauth2::Oauth2Config;
use super::proxy::{ProxyConfig, RawProxy};
use super::raw::{RawAuthorization, RawBasicAuth, RawHttpClientConfig, RawHttpHeader};
use crate::error::NetError;
use crate::tls::TlsConfig;

/// A valid block.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpClientConfig {
    /// How requests authenticate.
    pub credentials: Credentials,
    /// TLS settings.
    pub tls: TlsConfig,
    /// Through whom requests go.
    pub proxy: ProxyConfig,
    /// Whether 3xx answers are followed.
    pub follow_redirects: bool,
    /// Whether HTTP/2 is offered over TLS.
    pub enable_http2: bool,
    /// Further headers.
    pub headers: Vec<(HeaderName, SecretSource)>,
}

/// How requests authenticate.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Credentials {
    /// Not at all.
    None,
    /// HTTP Basic.
    Basic {
        /// User.
        username: SecretSource,
        /// Password.
        password: SecretSource,
    },
    /// `Authorization: SCHEME TEXT`
    Authorization {
        /// The scheme.
        scheme: String,
        /// The text.
        credentials: SecretSource,
    },
    /// Tokens of an authorization server.
    Oauth2(Box<Oauth2Config>),
}

/// A secret, here or in a file that is read anew for each request.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretSource {
    /// The text.
    Inline(Secret),
    /// Where it is; white space around it does not count.
    File(PathBuf),
}

impl SecretSource {
    /// The text, or that of the file `dir/file`; neither is an empty text.
    pub(super) fn of(inline: Option<Secret>, file: Option<PathBuf>, dir: &Path) -> Self {
        match (inline.filter(|text| !text.is_empty()), given(file)) {
            (None, Some(file)) => Self::File(dir.join(file)),
            (text, _) => Self::Inline(text.unwrap_or_default()),
        }
    }

    /// The secret as of now.
    pub(super) async fn read(&self) -> Result<Secret, NetError> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(text) => Ok(Secret::new(text.trim())),
                Err(error) => Err(NetError::File { path: path.clone(), reason: error.to_string() }),
            },
        }
    }
}

/// A file that is named: an empty name is none.
fn given(file: Option<PathBuf>) -> Option<PathBuf> {
    file.filter(|file| !file.as_os_str().is_empty())
}

/// Whether both forms of one setting are given.
pub(super) fn both(inline: Option<&Secret>, file: Option<&PathBuf>) -> bool {
    inline.is_some_and(|text| !text.is_empty()) && file.is_some_and(|file| !file.as_os_str().is_empty())
}

impl RawHttpClientConfig {
    /// Checks the block; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When settings exclude each other or cannot be used.
    pub fn build(self, path: &ConfigPath, dir: &Path) -> Result<HttpClientConfig, ConfigError> {
        let refuse = |text: &str| Err(ConfigError::new(path, text));
        let token = self.bearer_token.filter(|token| !token.is_empty());
        let token_file = given(self.bearer_token_file);
        let bearer = token.is_some() || token_file.is_some();
        if token.is_some() && token_file.is_some() {
            return refuse("at most one of bearer_token & bearer_token_file must be configured");
        }
        if bearer && (self.basic_auth.is_some() || self.oauth2.is_some()) {
            return refuse(
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured",
            );
        }
        if bearer && self.authorization.is_some() {
            return refuse("authorization is not compatible with bearer_token & bearer_token_file");
        }
        let ways = [self.basic_auth.is_some(), self.authorization.is_some(), self.oauth2.is_some()];
        if ways.into_iter().filter(|given| *given).count() > 1 {
            return refuse("at most one of basic_auth, oauth2 & authorization must be configured");
        }
        let credentials = if let Some(basic) = self.basic_auth {
            basic.build(&path.key("basic_auth"), dir)?
        } else if let Some(authorization) = self.authorization {
            authorization.build(&path.key("authorization"), dir)?
        } else if let Some(oauth2) = self.oauth2 {
            Credentials::Oauth2(Box::new(oauth2.build(&path.key("oauth2"), dir)?))
        } else if bearer {
            let credentials = SecretSource::of(token, token_file, dir);
            Credentials::Authorization { scheme: "Bearer".to_owned(), credentials }
        } else {
            Credentials::None
        };
        let proxy = RawProxy {
            url: self.proxy_url,
            no_proxy: self.no_proxy,
            from_environment: self.proxy_from_environment,
            connect_header: self.proxy_connect_header,
        };
        Ok(HttpClientConfig {
            credentials,
            tls: self.tls_config.unwrap_or_default().build(&path.key("tls_config"), dir)?,
            proxy: proxy.build(path)?,
            follow_redirects: self.follow_redirects,
            enable_http2: self.enable_http2,
            headers: headers(self.http_headers, &path.key("http_headers"), dir)?,
        })
    }
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        RawHttpClientConfig::default()
            .build(&ConfigPath::root(), Path::new(""))
            .expect("the default block is valid")
    }
}

impl RawBasicAuth {
    fn build(self, path: &ConfigPath, dir: &Path) -> Result<Credentials, ConfigError> {
        let username = self.username.map(Secret::new);
        if both(username.as_ref(), self.username_file.as_ref()) {
            return Err(ConfigError::new(
                path,
                "at most one of basic_auth username, username_file & username_ref must be configured",
            ));
        }
        if both(self.password.as_ref(), self.password_file.as_ref()) {
            return Err(ConfigError::new(
                path,
                "at most one of basic_auth password, password_file & password_ref must be configured",
            ));
        }
        Ok(Credentials::Basic {
            username: SecretSource::of(username, self.username_file, dir),
            password: SecretSource::of(self.password, self.password_file, dir),
        })
    }
}

impl RawAuthorization {
    fn build(self, path: &ConfigPath, dir: &Path) -> Result<Credentials, ConfigError> {
        if both(self.credentials.as_ref(), self.credentials_file.as_ref()) {
            return Err(ConfigError::new(
                path,
                "at most one of authorization credentials & credentials_file must be configured",
            ));
        }
        let scheme = match self.kind.as_deref().map(str::trim) {
            None | Some("") => "Bearer",
            Some(scheme) => scheme,
        };
        if scheme.eq_ignore_ascii_case("basic") {
            return Err(ConfigError::new(
                &path.key("type"),
                "authorization type cannot be set to \"basic\", use \"basic_auth\" instead",
            ));
        }
        if HeaderValue::from_str(scheme).is_err() {
            return Err(ConfigError::new(&path.key("type"), "not allowed in a header"));
        }
        let credentials = SecretSource::of(self.credentials, self.credentials_file, dir);
        Ok(Credentials::Authorization { scheme: scheme.to_owned(), credentials })
    }
}

/// Headers that the client sets itself.
const RESERVED_HEADERS: [&str; 18] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

fn headers(
    raw: BTreeMap<String, RawHttpHeader>,
    path: &ConfigPath,
    dir: &Path,
) -> Result<Vec<(HeaderName, SecretSource)>, ConfigError> {
    let mut headers = Vec::new();
    for (name, raw) in raw {
        let path = path.key(&name);
        let invalid = |text: String| Err(ConfigError::new(&path, text));
        let Ok(header) = HeaderName::try_from(name.as_str()) else {
            return invalid(format!("{name:?} is no header name"));
        };
        if RESERVED_HEADERS.contains(&header.as_str()) {
            return invalid(format!("setting header {:?} is not allowed", canonical(&header)));
        }
        for value in raw.values {
            if HeaderValue::from_str(&value).is_err() {
                return invalid("a value is not allowed in a header".to_owned());
            }
            headers.push((header.clone(), SecretSource::Inline(Secret::new(value))));
        }
        for secret in raw.secrets {
            if HeaderValue::from_str(secret.expose()).is_err() {
                return invalid("a secret is not allowed in a header".to_owned());
            }
            headers.push((header.clone(), SecretSource::Inline(secret)));
        }
        headers
            .extend(raw.files.into_iter().map(|file| (header.clone(), SecretSource::File(dir.join(file)))));
    }
    Ok(headers)
}

/// The usual way to write a header's name: `X-Amz-Date`.
pub(super) fn canonical(name: &HeaderName) -> String {
    let mut begins = true;
    let letters = name.as_str().chars().map(|letter| {
        let written = if begins { letter.to_ascii_uppercase() } else { letter };
        begins = letter == '-';
        written
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(yaml: &str) -> Result<HttpClientConfig, String> {
        let raw: RawHttpClientConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
        raw.build(&ConfigPath::root().key("http_config"), Path::new("/etc/nm"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_relative_to_the_configuration() {
        let config = build("{basic_auth: {username: u, password_file: pw}}").unwrap();
        let Credentials::Basic { username, password } = config.credentials else { panic!("basic expected") };
        assert_eq!(username, SecretSource::Inline(Secret::new("u")));
        assert_eq!(password, SecretSource::File(PathBuf::from("/etc/nm/pw")));
        assert!(config.follow_redirects && config.enable_http2);
        let config = build("{bearer_token_file: /abs}").unwrap();
        let credentials = SecretSource::File(PathBuf::from("/abs"));
        assert_eq!(
            config.credentials,
            Credentials::Authorization { scheme: "Bearer".to_owned(), credentials }
        );
    }

    #[test]
    fn what_prometheus_takes_is_taken() {
        for yaml in [
            "{}",
            "{basic_auth: {}}",
            "{basic_auth: {username: u, username_file: '', password: '', password_file: f}}",
            "{authorization: {type: '', credentials: x}}",
            "{authorization: {type: Custom, credentials_file: f}}",
            "{bearer_token: ''}",
            "{oauth2: {client_id: a, token_url: b}}",
            "{oauth2: {client_id: a, token_url: b, grant_type: else, signature_algorithm: ES256}}",
            "{oauth2: {client_id: a, token_url: b, claims: {a: 1, b: [x], c: {d: e}}}}",
            "{proxy_url: 'http://u:p@p:1', no_proxy: 'a,10.0.0.0/8', proxy_connect_header: {A: [b]}}",
            "{proxy_url: 'socks5h://p'}",
            "{proxy_url: '', no_proxy: a}",
            "{proxy_from_environment: true, proxy_connect_header: {A: [b]}}",
            "{proxy_connect_header: {}}",
            "{tls_config: {ca_file: '', server_name: '', min_version: TLS10, max_version: TLS13}}",
            "{http_headers: {Accept: {values: [x]}}}",
        ] {
            build(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        }
    }

    #[test]
    fn contradictions_are_refused_in_prometheus_words_with_their_place() {
        const JWT: &str = "grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer'";
        let jwt = |rest: &str| format!("{{oauth2: {{client_id: a, token_url: b, {JWT}, {rest}}}}}");
        let exactly_one = "at most one of basic_auth, oauth2 & authorization must be configured";
        let connect = "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured";
        let cases = [
            ("{basic_auth: {}, authorization: {}}", format!("http_config: {exactly_one}")),
            ("{basic_auth: {}, oauth2: {}}", format!("http_config: {exactly_one}")),
            ("{authorization: {}, oauth2: {client_id: a}}", format!("http_config: {exactly_one}")),
            (
                "{basic_auth: {}, bearer_token: x}",
                "http_config: at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured".into(),
            ),
            (
                "{authorization: {}, bearer_token: x}",
                "http_config: authorization is not compatible with bearer_token & bearer_token_file".into(),
            ),
            (
                "{bearer_token: x, bearer_token_file: y}",
                "http_config: at most one of bearer_token & bearer_token_file must be configured".into(),
            ),
            (
                "{authorization: {type: ' BASIC '}}",
                "http_config.authorization.type: authorization type cannot be set to \"basic\", use \"basic_auth\" instead".into(),
            ),
            (
                "{authorization: {credentials: a, credentials_file: b}}",
                "http_config.authorization: at most one of authorization credentials & credentials_file must be configured".into(),
            ),
            (
                "{basic_auth: {username: a, username_file: b}}",
                "http_config.basic_auth: at most one of basic_auth username, username_file & username_ref must be configured".into(),
            ),
            (
                "{basic_auth: {password: a, password_file: b}}",
                "http_config.basic_auth: at most one of basic_auth password, password_file & password_ref must be configured".into(),
            ),
            ("{oauth2: {}}", "http_config.oauth2: oauth2 client_id must be configured".into()),
            ("{oauth2: {client_id: a}}", "http_config.oauth2: oauth2 token_url must be configured".into()),
            (
                "{oauth2: {client_id: a, token_url: b, client_secret: a, client_secret_file: b}}",
                "http_config.oauth2: at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be configured using grant-type=client_credentials".into(),
            ),
            (
                &jwt("client_certificate_key: a, client_certificate_key_file: b"),
                "http_config.oauth2: at most one of oauth2 client_certificate_key, client_certificate_key_file & client_certificate_key_ref must be configured using grant-type=urn:ietf:params:oauth:grant-type:jwt-bearer".into(),
            ),
            (
                &jwt("signature_algorithm: ES256"),
                "http_config.oauth2.signature_algorithm: valid signature algorithms are RS256, RS384 and RS512".into(),
            ),
            (
                "{oauth2: {client_id: a, token_url: b, no_proxy: c}}",
                "http_config.oauth2: if no_proxy is configured, proxy_url must also be configured".into(),
            ),
            (
                "{oauth2: {client_id: a, token_url: b, tls_config: {cert: x}}}",
                "http_config.oauth2.tls_config: exactly one of key or key_file must be configured when a client certificate is configured".into(),
            ),
            ("{tls_config: {ca: a, ca_file: b}}", "http_config.tls_config: at most one of ca, ca_file & ca_ref must be configured".into()),
            ("{tls_config: {cert: a, cert_file: b}}", "http_config.tls_config: at most one of cert, cert_file & cert_ref must be configured".into()),
            ("{tls_config: {key: a, key_file: b}}", "http_config.tls_config: at most one of key and key_file must be configured".into()),
            (
                "{tls_config: {key_file: a}}",
                "http_config.tls_config: exactly one of cert or cert_file must be configured when a client key is configured".into(),
            ),
            ("{tls_config: {min_version: SSL3}}", "http_config.tls_config.min_version: unknown TLS version: SSL3".into()),
            (
                "{tls_config: {min_version: TLS13, max_version: TLS12}}",
                "http_config.tls_config: tls_config.max_version must be greater than or equal to tls_config.min_version if both are specified".into(),
            ),
            ("{proxy_connect_header: {A: [b]}}", format!("http_config: {connect}")),
            (
                "{proxy_url: 'http://p:1', proxy_from_environment: true}",
                "http_config: if proxy_from_environment is configured, proxy_url must not be configured".into(),
            ),
            (
                "{proxy_from_environment: true, no_proxy: a}",
                "http_config: if proxy_from_environment is configured, no_proxy must not be configured".into(),
            ),
            ("{no_proxy: a}", "http_config: if no_proxy is configured, proxy_url must also be configured".into()),
            (
                "{proxy_url: '://u:hunter2@p'}",
                "http_config.proxy_url: parse \"<secret>\": missing protocol scheme".into(),
            ),
            (
                "{http_headers: {authorization: {values: [x]}}}",
                "http_config.http_headers.authorization: setting header \"Authorization\" is not allowed".into(),
            ),
            (
                "{http_headers: {X-AMZ-date: {values: [x]}}}",
                "http_config.http_headers.X-AMZ-date: setting header \"X-Amz-Date\" is not allowed".into(),
            ),
        ];
        for (yaml, expected) in cases {
            assert_eq!(build(yaml).unwrap_err(), expected, "{yaml}");
        }
        for (yaml, expected) in [
            ("{http_headers: {X-A: {values: [\"a\\nb\"]}}}", "not allowed in a header"),
            ("{http_headers: {X-A: {foo: []}}}", "unknown field `foo`"),
            ("{pasword: x}", "unknown field `pasword`"),
            ("{oauth2: {client_id: a, token_url: b, nope: 1}}", "unknown field `nope`"),
            ("{proxy_url: 'ftp://u:hunter2@p:1'}", "unsupported proxy scheme \"ftp\""),
            ("{tls_config: {max_version: TLS11}}", "TLS 1.2 and 1.3 are spoken"),
        ] {
            let error = build(yaml).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{yaml}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let yaml = "{proxy_url: 'http://u:hunter2@p:1', proxy_connect_header: {A: [hunter2]}, http_headers: {X-A: {secrets: \
                    [hunter2]}}, oauth2: {client_id: a, token_url: b, client_secret: hunter2, endpoint_params: {password: hunter2}, \
                    proxy_url: 'socks5://u:hunter2@p'}}";
        let raw: RawHttpClientConfig = serde_yaml::from_str(yaml).unwrap();
        let shown = format!("{raw:?} {:?}", build(yaml).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
