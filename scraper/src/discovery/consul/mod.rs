//! `consul_sd_configs`: services of a Consul cluster.
//!
//! The catalog says which services there are, the health endpoint of each service its instances. Both are watched with
//! blocking queries ([`watch`]); `refresh_interval` bounds how often each is asked. Each service is a target group.

mod api;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use model::config::PromDuration;
use model::{ConfigError, ConfigPath, Secret};
use net::http::{HttpClientConfig, RawBasicAuth, RawHttpHeader};
use url::Url;

use super::client::{self, raw_sd_config};
use super::{Discoverer, DiscoveryConfig, DiscoveryContext, is_equal};

const REFRESH_INTERVAL: PromDuration = PromDuration::from_secs(30);
/// How long after a failure to ask again.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);
/// How long Consul holds a question back that has no new answer.
const WATCH_TIME: Duration = Duration::from_secs(120);
const TOKEN_HEADER: &str = "X-Consul-Token";

raw_sd_config! {
    /// An entry of `consul_sd_configs` as written.
    pub struct RawConsulSdConfig {
        pub server: Option<String>,
        pub path_prefix: Option<String>,
        pub token: Option<Secret>,
        pub datacenter: Option<String>,
        pub namespace: Option<String>,
        pub partition: Option<String>,
        pub tag_separator: Option<String>,
        pub scheme: Option<String>,
        pub username: Option<String>,
        pub password: Option<Secret>,
        pub allow_stale: Option<bool>,
        pub refresh_interval: Option<PromDuration>,
        pub services: Option<Vec<String>>,
        pub tags: Option<Vec<String>>,
        pub node_meta: Option<BTreeMap<String, String>>,
        pub filter: Option<String>,
        pub health_filter: Option<String>,
    }
}

/// A valid entry of `consul_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsulSdConfig {
    /// Ends with a slash; paths of the API are joined to it.
    base: Url,
    datacenter: String,
    namespace: String,
    partition: String,
    tag_separator: String,
    allow_stale: bool,
    refresh_interval: Duration,
    retry_interval: Duration,
    watch_time: Duration,
    services: Vec<String>,
    tags: Vec<String>,
    node_meta: BTreeMap<String, String>,
    filter: String,
    health_filter: String,
    /// With the token as a header: it goes to no other host.
    http: HttpClientConfig,
}

impl RawConsulSdConfig {
    /// Checks the entry; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When the server's address is none, or credentials are given in more than one way.
    pub fn build(self, path: &ConfigPath, dir: &Path) -> Result<ConsulSdConfig, ConfigError> {
        let error = |message: &str| Err(ConfigError::new(path, message));
        let mut http = self.http_client();
        let server = self.server.unwrap_or_else(|| "localhost:8500".to_owned());
        if server.trim().is_empty() {
            return error("consul SD configuration requires a server address");
        }
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let password = self.password.filter(|password| !password.is_empty());
        if given(&self.username) || password.is_some() {
            if http.basic_auth.is_some() {
                return error(
                    "at most one of consul SD configuration username and password and basic auth can be configured",
                );
            }
            http.basic_auth =
                Some(RawBasicAuth { username: self.username, password, ..RawBasicAuth::default() });
        }
        if let Some(token) = self.token.filter(|token| !token.is_empty()) {
            if http.authorization.is_some() || http.oauth2.is_some() {
                return error("at most one of consul SD token, authorization, or oauth2 can be configured");
            }
            let header = RawHttpHeader { secrets: vec![token], ..RawHttpHeader::default() };
            http.http_headers.insert(TOKEN_HEADER.to_owned(), header);
        }
        let scheme = self.scheme.filter(|scheme| !scheme.is_empty());
        let base =
            base_url(&server, scheme.as_deref(), self.path_prefix.as_deref().unwrap_or_default(), path)?;
        Ok(ConsulSdConfig {
            base,
            datacenter: self.datacenter.unwrap_or_default(),
            namespace: self.namespace.unwrap_or_default(),
            partition: self.partition.unwrap_or_default(),
            tag_separator: self.tag_separator.unwrap_or_else(|| ",".to_owned()),
            allow_stale: self.allow_stale.unwrap_or(true),
            refresh_interval: client::refresh_interval(
                self.refresh_interval.unwrap_or(REFRESH_INTERVAL),
                path,
            )?,
            retry_interval: RETRY_INTERVAL,
            watch_time: WATCH_TIME,
            services: self.services.unwrap_or_default(),
            tags: self.tags.unwrap_or_default(),
            node_meta: self.node_meta.unwrap_or_default(),
            filter: self.filter.unwrap_or_default(),
            health_filter: self.health_filter.unwrap_or_default(),
            http: http.build(path, dir)?,
        })
    }
}

/// Where the API is. The server may have a scheme and a path of its own, as Consul's client allows.
fn base_url(server: &str, scheme: Option<&str>, prefix: &str, path: &ConfigPath) -> Result<Url, ConfigError> {
    let (scheme, address) = match server.trim().split_once("://") {
        // Who asked for TLS does not lose it by an address of the other kind.
        Some(("http", address)) => (scheme.unwrap_or("http"), address),
        Some(("https", address)) => ("https", address),
        Some((other, _)) => {
            let message =
                format!("unknown protocol scheme {other:?} of the consul server, use http or https");
            return Err(ConfigError::new(&path.key("server"), message));
        }
        None => (scheme.unwrap_or("http"), server.trim()),
    };
    if !matches!(scheme, "http" | "https") {
        let message = format!("unknown scheme {scheme:?}: use http or https");
        return Err(ConfigError::new(&path.key("scheme"), message));
    }
    let (host, own_prefix) = address.split_once('/').unwrap_or((address, ""));
    let parts: Vec<&str> = [own_prefix, prefix]
        .iter()
        .flat_map(|part| part.split('/'))
        .filter(|part| !part.is_empty())
        .collect();
    let slash = if parts.is_empty() { "" } else { "/" };
    Url::parse(&format!("{scheme}://{host}/{}{slash}", parts.join("/")))
        .map_err(|error| ConfigError::new(&path.key("server"), format!("invalid server address: {error}")))
}

impl DiscoveryConfig for ConsulSdConfig {
    fn kind(&self) -> &'static str {
        "consul"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        Box::new(watch::Catalog::new(self.clone(), context))
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        format!("{} {:?}", client::shown(&self.base), self.services)
    }
}
