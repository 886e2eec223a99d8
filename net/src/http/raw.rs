//! The HTTP client block as written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::Secret;
use serde::Deserialize;

use crate::tls::RawTlsConfig;

/// The block as written: `http_config:` of a receiver, or inlined in scrape jobs and discovery blocks.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawHttpClientConfig {
    /// HTTP Basic.
    pub basic_auth: Option<RawBasicAuth>,
    /// `Authorization` header.
    pub authorization: Option<RawAuthorization>,
    /// Tokens of an authorization server.
    pub oauth2: Option<RawOauth2>,
    /// Deprecated form of `authorization`.
    pub bearer_token: Option<Secret>,
    /// Deprecated form of `authorization`.
    pub bearer_token_file: Option<PathBuf>,
    /// TLS settings.
    pub tls_config: Option<RawTlsConfig>,
    /// Proxy to use: `http`, `https` or `socks5`, with user and password where it wants them.
    pub proxy_url: Option<Secret>,
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

/// `oauth2`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names are the configuration's keys")]
pub struct RawOauth2 {
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    pub client_secret_file: Option<PathBuf>,
    pub token_url: Option<String>,
    pub scopes: Vec<String>,
    /// Some servers take passwords as parameters.
    pub endpoint_params: BTreeMap<String, Secret>,
    pub tls_config: Option<RawTlsConfig>,
    pub proxy_url: Option<Secret>,
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
    pub claims: BTreeMap<String, serde_json::Value>,
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
