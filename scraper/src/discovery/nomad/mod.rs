//! `nomad_sd_configs`: services registered with Nomad itself.
//!
//! The list of services is asked for at each refresh, the instances of each service only when the list's index says that
//! a registration changed: with N services an unchanged cluster costs one request, not N + 1. Now and then all is read
//! anyway, for what the index does not tell (rights of a rotated token).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use http::Response;
use model::config::PromDuration;
use model::{ConfigError, ConfigPath, Labels};
use net::http::HttpClientConfig;
use serde::Deserialize;
use url::Url;

use super::client::{self, ApiClient, accept_json, expect_ok, join_host_port, or_default, raw_sd_config};
use super::refresh::{Refresh, RefreshError, Refresher, TARGETS_MAX};
use super::{Discoverer, DiscoveryConfig, DiscoveryContext, SdMetrics, TargetGroup, is_equal};

const REFRESH_INTERVAL: PromDuration = PromDuration::from_secs(60);
const DEFAULT_SERVER: &str = "http://localhost:4646";
/// The one group.
const SOURCE: &str = "Nomad";
const INDEX_HEADER: &str = "x-nomad-index";
/// Most services that are asked for.
const SERVICES_MAX: usize = 10_000;
/// Services that are asked for at the same time.
const REQUESTS_AT_ONCE: usize = 8;
/// Every so many refreshes the index does not count.
const FULL_EVERY: u32 = 10;

raw_sd_config! {
    /// An entry of `nomad_sd_configs` as written.
    pub struct RawNomadSdConfig {
        pub server: Option<String>,
        pub namespace: Option<String>,
        pub region: Option<String>,
        pub tag_separator: Option<String>,
        pub allow_stale: Option<bool>,
        pub refresh_interval: Option<PromDuration>,
    }
}

/// A valid entry of `nomad_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct NomadSdConfig {
    server: Url,
    namespace: String,
    region: String,
    tag_separator: String,
    allow_stale: bool,
    refresh_interval: Duration,
    http: HttpClientConfig,
}

impl RawNomadSdConfig {
    /// Checks the entry; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When the server's address is none, or the HTTP client block is wrong.
    pub fn build(self, path: &ConfigPath, dir: &Path) -> Result<NomadSdConfig, ConfigError> {
        let http = self.http_client();
        let server = self.server.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        if server.trim().is_empty() {
            return Err(ConfigError::new(path, "nomad SD configuration requires a server address"));
        }
        let url = Url::parse(server.trim())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                ConfigError::new(&path.key("server"), "the nomad server must be a URL of http or https")
            })?;
        Ok(NomadSdConfig {
            server: url,
            namespace: self.namespace.unwrap_or_else(|| "default".to_owned()),
            region: self.region.unwrap_or_else(|| "global".to_owned()),
            tag_separator: self.tag_separator.unwrap_or_else(|| ",".to_owned()),
            allow_stale: self.allow_stale.unwrap_or(true),
            refresh_interval: client::refresh_interval(
                self.refresh_interval.unwrap_or(REFRESH_INTERVAL),
                path,
            )?,
            http: http.build(path, dir)?,
        })
    }
}

impl DiscoveryConfig for NomadSdConfig {
    fn kind(&self) -> &'static str {
        "nomad"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        let source = NomadServices {
            config: self.clone(),
            client: ApiClient::new(self.http.clone(), context),
            metrics: Arc::clone(&context.metrics),
            last: None,
        };
        Box::new(Refresher::new("nomad", self.refresh_interval, context, source))
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        format!("{} {} {}", client::shown(&self.server), self.region, self.namespace)
    }
}

struct NomadServices {
    config: NomadSdConfig,
    client: ApiClient,
    metrics: Arc<SdMetrics>,
    last: Option<Last>,
}

/// What was found, and at which index.
struct Last {
    index: u64,
    groups: Vec<TargetGroup>,
    /// How many refreshes have relied on it.
    uses: u32,
}

impl Refresh for NomadServices {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(async {
            let result = self.ask().await;
            if result.is_err() {
                self.metrics.nomad_failures.inc();
            }
            result
        })
    }
}

impl NomadServices {
    async fn ask(&mut self) -> Result<Vec<TargetGroup>, RefreshError> {
        let config = &self.config;
        let url = config.url(&["v1", "services"], &config.namespace);
        let answer = self.get(&url).await?;
        let index = index(&answer);
        if let Some(last) = &mut self.last
            && index != 0
            && index == last.index
            && last.uses + 1 < FULL_EVERY
        {
            last.uses += 1;
            return Ok(last.groups.clone());
        }
        let namespaces: Option<Vec<Namespace>> = client::json(&answer, &url)?;
        let services: BTreeSet<(String, String)> = namespaces
            .into_iter()
            .flatten()
            .flat_map(|namespace| {
                // All namespaces at once (`*`) can be listed, but not read.
                let name = if namespace.name.is_empty() { config.namespace.clone() } else { namespace.name };
                namespace.services.into_iter().map(move |service| (name.clone(), service.name))
            })
            .collect();
        if services.len() > SERVICES_MAX {
            return Err(RefreshError::TooMany {
                what: "services",
                found: services.len(),
                limit: SERVICES_MAX,
            });
        }
        let requests: Vec<BoxFuture<'_, _>> =
            services.iter().map(|(namespace, name)| self.instances(namespace, name).boxed()).collect();
        let mut answers = stream::iter(requests).buffered(REQUESTS_AT_ONCE);
        let mut targets = Vec::new();
        while let Some(instances) = answers.try_next().await? {
            targets.extend(instances.into_iter().map(|instance| config.target(instance)));
            if targets.len() > TARGETS_MAX {
                let found = targets.len();
                return Err(RefreshError::TooMany { what: "targets", found, limit: TARGETS_MAX });
            }
        }
        drop(answers);
        let groups = vec![TargetGroup { source: SOURCE.to_owned(), targets, labels: Labels::empty() }];
        self.last = Some(Last { index, groups: groups.clone(), uses: 0 });
        Ok(groups)
    }

    async fn instances(&self, namespace: &str, name: &str) -> Result<Vec<Instance>, RefreshError> {
        let url = self.config.url(&["v1", "service", name], namespace);
        let failed = |error: RefreshError| RefreshError::Other(format!("failed to fetch services: {error}"));
        let answer = self.get(&url).await.map_err(failed)?;
        let instances: Option<Vec<Instance>> = client::json(&answer, &url).map_err(failed)?;
        Ok(instances.unwrap_or_default())
    }

    async fn get(&self, url: &Url) -> Result<Response<Bytes>, RefreshError> {
        expect_ok(self.client.get(url, accept_json(), client::REQUEST_TIMEOUT).await?)
    }
}

fn index(answer: &Response<Bytes>) -> u64 {
    let header = answer.headers().get(INDEX_HEADER).and_then(|value| value.to_str().ok());
    header.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl NomadSdConfig {
    fn url(&self, parts: &[&str], namespace: &str) -> Url {
        let mut url = self.server.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        let mut pairs = url.query_pairs_mut();
        for (name, value) in [("region", self.region.as_str()), ("namespace", namespace)] {
            if !value.is_empty() {
                pairs.append_pair(name, value);
            }
        }
        if self.allow_stale {
            pairs.append_pair("stale", "");
        }
        drop(pairs);
        url
    }

    fn target(&self, instance: Instance) -> Labels {
        let separator = &self.tag_separator;
        let tags = match instance.tags.as_slice() {
            [] => String::new(),
            // The separator is on both ends too: who looks for a tag need not think of its place.
            tags => format!("{separator}{}{separator}", tags.join(separator)),
        };
        Labels::from_pairs([
            ("__address__", join_host_port(&instance.address, instance.port)),
            ("__meta_nomad_address", instance.address.clone()),
            ("__meta_nomad_dc", instance.datacenter),
            ("__meta_nomad_node_id", instance.node_id),
            ("__meta_nomad_namespace", instance.namespace),
            ("__meta_nomad_service", instance.service_name),
            ("__meta_nomad_service_address", instance.address),
            ("__meta_nomad_service_id", instance.id),
            ("__meta_nomad_service_port", instance.port.to_string()),
            ("__meta_nomad_tags", tags),
        ])
    }
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "Namespace", default)]
    name: String,
    #[serde(rename = "Services", default, deserialize_with = "or_default")]
    services: Vec<Stub>,
}

#[derive(Debug, Deserialize)]
struct Stub {
    #[serde(rename = "ServiceName")]
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Instance {
    #[serde(rename = "ID")]
    id: String,
    service_name: String,
    namespace: String,
    #[serde(rename = "NodeID")]
    node_id: String,
    datacenter: String,
    #[serde(deserialize_with = "or_default")]
    tags: Vec<String>,
    address: String,
    port: i64,
}
