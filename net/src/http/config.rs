//! The HTTP client block, as written and as valid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use model::{ConfigError, ConfigPath, Secret};
use serde::Deserialize;

use crate::tls::{RawTlsConfig, TlsConfig};

/// The block as written: `http_config:` of a receiver, or inlined in scrape jobs and discovery blocks.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawHttpClientConfig {
    /// HTTP Basic.
    pub basic_auth: Option<RawBasicAuth>,
    /// `Authorization` header.
    pub authorization: Option<RawAuthorization>,
    /// Client-credentials grant.
    pub oauth2: Option<RawOauth2>,
    /// Deprecated form of `authorization`.
    pub bearer_token: Option<Secret>,
    /// Deprecated form of `authorization`.
    pub bearer_token_file: Option<PathBuf>,
    /// TLS settings.
    pub tls_config: Option<RawTlsConfig>,
    /// Proxy to use.
    pub proxy_url: Option<String>,
    /// Hosts to reach without the proxy.
    pub no_proxy: Option<String>,
    /// Take the proxy from the environment.
    pub proxy_from_environment: bool,
    /// Headers for the proxy.
    pub proxy_connect_header: Option<BTreeMap<String, Vec<Secret>>>,
    /// Whether 3xx answers are followed.
    pub follow_redirects: bool,
    /// Whether HTTP/2 is offered over TLS.
    pub enable_http2: bool,
    /// Further headers.
    pub http_headers: BTreeMap<String, RawHttpHeader>,
}

impl Default for RawHttpClientConfig {
    fn default() -> Self {
        Self {
            basic_auth: None,
            authorization: None,
            oauth2: None,
            bearer_token: None,
            bearer_token_file: None,
            tls_config: None,
            proxy_url: None,
            no_proxy: None,
            proxy_from_environment: false,
            proxy_connect_header: None,
            follow_redirects: true,
            enable_http2: true,
            http_headers: BTreeMap::new(),
        }
    }
}

/// `basic_auth`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawBasicAuth {
    /// User name.
    pub username: Option<String>,
    /// File with the user name.
    pub username_file: Option<PathBuf>,
    /// Password.
    pub password: Option<Secret>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
}

/// `authorization`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawAuthorization {
    /// Scheme, `Bearer` if not given.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What follows the scheme.
    pub credentials: Option<Secret>,
    /// File with what follows the scheme.
    pub credentials_file: Option<PathBuf>,
}

/// `oauth2`: known keys; the grant itself is not spoken yet.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names are the configuration's keys")]
pub struct RawOauth2 {
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    pub client_secret_file: Option<PathBuf>,
    pub token_url: Option<String>,
    pub scopes: Vec<String>,
    pub endpoint_params: BTreeMap<String, String>,
    pub tls_config: Option<RawTlsConfig>,
    pub proxy_url: Option<String>,
    pub no_proxy: Option<String>,
    pub proxy_from_environment: bool,
    pub proxy_connect_header: Option<BTreeMap<String, Vec<Secret>>>,
    pub grant_type: Option<String>,
    pub client_certificate_key_id: Option<String>,
    pub client_certificate_key: Option<Secret>,
    pub client_certificate_key_file: Option<PathBuf>,
    pub signature_algorithm: Option<String>,
    pub iss: Option<String>,
    pub audience: Option<String>,
    pub claims: BTreeMap<String, String>,
}

/// One of `http_headers`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawHttpHeader {
    /// Values anybody may see.
    pub values: Vec<String>,
    /// Values nobody may see.
    pub secrets: Vec<Secret>,
    /// Files with values.
    pub files: Vec<PathBuf>,
}

/// A valid block.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpClientConfig {
    /// How requests authenticate.
    pub credentials: Credentials,
    /// TLS settings.
    pub tls: TlsConfig,
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
}

/// A secret, here or in a file that is read anew for each request.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretSource {
    /// The text.
    Inline(Secret),
    /// Where it is; white space around it does not count.
    File(PathBuf),
}

impl RawHttpClientConfig {
    /// Checks the block; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When settings exclude each other or are not supported.
    pub fn build(self, path: &ConfigPath, dir: &Path) -> Result<HttpClientConfig, ConfigError> {
        let error = |key: &str, text: &str| Err(ConfigError::new(&path.key(key), text));
        let ways = [
            self.basic_auth.is_some(),
            self.authorization.is_some(),
            self.oauth2.is_some(),
            self.bearer_token.is_some() || self.bearer_token_file.is_some(),
        ];
        if ways.iter().filter(|given| **given).count() > 1 {
            return Err(ConfigError::new(
                path,
                "at most one of basic_auth, oauth2, authorization & bearer_token must be configured",
            ));
        }
        if self.oauth2.is_some() {
            return error("oauth2", "oauth2 is not supported yet");
        }
        if self.proxy_url.as_deref().is_some_and(|url| !url.is_empty()) {
            return error("proxy_url", "proxies are not supported yet");
        }
        if self.proxy_from_environment {
            return error("proxy_from_environment", "proxies are not supported yet");
        }
        if self.no_proxy.is_some() || self.proxy_connect_header.is_some() {
            return Err(ConfigError::new(path, "no_proxy and proxy_connect_header need proxy_url"));
        }
        let credentials = if let Some(basic) = self.basic_auth {
            basic.build(&path.key("basic_auth"), dir)?
        } else if let Some(authorization) = self.authorization {
            authorization.build(&path.key("authorization"), dir)?
        } else if self.bearer_token.is_some() || self.bearer_token_file.is_some() {
            let raw = RawAuthorization {
                kind: None,
                credentials: self.bearer_token,
                credentials_file: self.bearer_token_file,
            };
            raw.build(path, dir)?
        } else {
            Credentials::None
        };
        Ok(HttpClientConfig {
            credentials,
            tls: self.tls_config.unwrap_or_default().build(&path.key("tls_config"), dir)?,
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
        Ok(Credentials::Basic {
            username: one_source(self.username.map(Secret::new), self.username_file, "username", path, dir)?,
            password: one_source(self.password, self.password_file, "password", path, dir)?,
        })
    }
}

impl RawAuthorization {
    fn build(self, path: &ConfigPath, dir: &Path) -> Result<Credentials, ConfigError> {
        let scheme = self.kind.unwrap_or_else(|| "Bearer".to_owned());
        let scheme = scheme.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            return Err(ConfigError::new(
                &path.key("type"),
                "authorization type cannot be set to \"basic\", use \"basic_auth\" instead",
            ));
        }
        let credentials = one_source(self.credentials, self.credentials_file, "credentials", path, dir)?;
        Ok(Credentials::Authorization { scheme: scheme.to_owned(), credentials })
    }
}

fn one_source(
    inline: Option<Secret>,
    file: Option<PathBuf>,
    name: &str,
    path: &ConfigPath,
    dir: &Path,
) -> Result<SecretSource, ConfigError> {
    match (inline, file) {
        (Some(text), Some(_)) if !text.is_empty() => {
            Err(ConfigError::new(path, format!("at most one of {name} & {name}_file must be configured")))
        }
        (_, Some(file)) => Ok(SecretSource::File(dir.join(file))),
        (text, None) => Ok(SecretSource::Inline(text.unwrap_or_default())),
    }
}

/// Headers that the client sets itself.
const RESERVED_HEADERS: [&str; 15] = [
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
            return invalid(format!("setting header {name:?} is not allowed"));
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
    }

    #[test]
    fn contradictions_are_refused_with_their_place() {
        let cases = [
            ("{basic_auth: {}, authorization: {}}", "at most one of basic_auth, oauth2, authorization"),
            ("{authorization: {type: Basic}}", "http_config.authorization.type: authorization type cannot"),
            (
                "{basic_auth: {password: a, password_file: b}}",
                "http_config.basic_auth: at most one of password & password_file",
            ),
            ("{tls_config: {cert_file: a}}", "http_config.tls_config: exactly one of key or key_file"),
            ("{tls_config: {min_version: SSL3}}", "http_config.tls_config.min_version: unknown"),
            (
                "{http_headers: {Authorization: {values: [x]}}}",
                "setting header \"Authorization\" is not allowed",
            ),
            ("{http_headers: {X-A: {values: [\"a\\nb\"]}}}", "not allowed in a header"),
            ("{proxy_url: \"http://p:1\"}", "not supported yet"),
            ("{pasword: x}", "unknown field `pasword`"),
        ];
        for (yaml, expected) in cases {
            let error = build(yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }
}
