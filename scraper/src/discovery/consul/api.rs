//! What is asked of Consul's HTTP API, and what of the answers matters.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use model::Labels;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::ConsulSdConfig;
use crate::discovery::client::{
    self, ApiClient, accept_json, expect_ok, join_host_port, or_default, sanitize_label_name,
};
use crate::discovery::refresh::RefreshError;
use crate::discovery::{DiscoveryContext, TargetGroup};

/// How much longer than the watch time an answer may take: Consul adds up to a sixteenth of it by chance.
const WATCH_EXTRA: Duration = Duration::from_secs(15);
const INDEX_HEADER: &str = "x-consul-index";

/// Asks Consul.
#[derive(Debug)]
pub(super) struct ConsulApi {
    pub(super) config: ConsulSdConfig,
    client: ApiClient,
}

/// An answer and the state of Consul it shows: ask with it for the next. 0 when Consul does not say.
#[derive(Debug)]
pub(super) struct Indexed<T> {
    pub(super) value: T,
    pub(super) index: u64,
}

impl ConsulApi {
    pub(super) fn new(config: ConsulSdConfig, context: &DiscoveryContext) -> Self {
        let client = ApiClient::new(config.http.clone(), context);
        Self { config, client }
    }

    /// The datacenter of the agent we talk to.
    pub(super) async fn datacenter(&self) -> Result<String, RefreshError> {
        #[derive(Deserialize)]
        struct Agent {
            #[serde(rename = "Config")]
            config: AgentConfig,
        }
        #[derive(Deserialize)]
        struct AgentConfig {
            #[serde(rename = "Datacenter")]
            datacenter: String,
        }
        let url = self.url(&["v1", "agent", "self"]);
        let agent: Agent = client::json(&self.get(&url, client::REQUEST_TIMEOUT).await?, &url)?;
        Ok(agent.config.datacenter)
    }

    /// Services and their tags, once there is something newer than `index`.
    pub(super) async fn services(
        &self,
        index: u64,
    ) -> Result<Indexed<BTreeMap<String, Option<Vec<String>>>>, RefreshError> {
        let mut url = self.url(&["v1", "catalog", "services"]);
        self.add_options(&mut url, index, &self.config.filter);
        self.watch(&url).await
    }

    /// Instances of a service, once there is something newer than `index`.
    pub(super) async fn instances(
        &self,
        service: &str,
        index: u64,
    ) -> Result<Indexed<Vec<ServiceEntry>>, RefreshError> {
        let mut url = self.url(&["v1", "health", "service", service]);
        for tag in &self.config.tags {
            url.query_pairs_mut().append_pair("tag", tag);
        }
        self.add_options(&mut url, index, &self.config.health_filter);
        self.watch(&url).await
    }

    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.config.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        let pairs = [
            ("dc", &self.config.datacenter),
            ("ns", &self.config.namespace),
            ("partition", &self.config.partition),
        ];
        for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            url.query_pairs_mut().append_pair(name, value);
        }
        url
    }

    fn add_options(&self, url: &mut Url, index: u64, filter: &str) {
        let config = &self.config;
        let mut pairs = url.query_pairs_mut();
        if config.allow_stale {
            pairs.append_pair("stale", "");
        }
        if index > 0 {
            pairs.append_pair("index", &index.to_string());
        }
        pairs.append_pair("wait", &format!("{}ms", config.watch_time.as_millis()));
        for (name, value) in &config.node_meta {
            pairs.append_pair("node-meta", &format!("{name}:{value}"));
        }
        if !filter.is_empty() {
            pairs.append_pair("filter", filter);
        }
    }

    async fn watch<T: DeserializeOwned>(&self, url: &Url) -> Result<Indexed<T>, RefreshError> {
        let answer = self.get(url, self.config.watch_time + WATCH_EXTRA).await?;
        let index = answer
            .headers()
            .get(INDEX_HEADER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        Ok(Indexed { value: client::json(&answer, url)?, index })
    }

    async fn get(&self, url: &Url, timeout: Duration) -> Result<Response<Bytes>, RefreshError> {
        expect_ok(self.client.get(url, accept_json(), timeout).await?)
    }

    /// The group of a service. `datacenter` is the agent's.
    pub(super) fn group(&self, service: &str, datacenter: &str, entries: Vec<ServiceEntry>) -> TargetGroup {
        TargetGroup {
            source: service.to_owned(),
            targets: entries.into_iter().map(|entry| self.target(entry)).collect(),
            labels: Labels::from_pairs([
                ("__meta_consul_service", service),
                ("__meta_consul_dc", datacenter),
            ]),
        }
    }

    fn target(&self, entry: ServiceEntry) -> Labels {
        let ServiceEntry { node, service, checks } = entry;
        let separator = &self.config.tag_separator;
        // A service may run elsewhere than on the node that registered it.
        let host = if service.address.is_empty() { &node.address } else { &service.address };
        let mut labels = BTreeMap::from(
            [
                ("__address__", join_host_port(host, service.port)),
                ("__meta_consul_address", node.address),
                ("__meta_consul_node", node.node),
                ("__meta_consul_namespace", service.namespace),
                ("__meta_consul_partition", service.partition),
                // The separator is on both ends too: who looks for a tag need not think of its place.
                ("__meta_consul_tags", format!("{separator}{}{separator}", service.tags.join(separator))),
                ("__meta_consul_service_address", service.address),
                ("__meta_consul_service_port", service.port.to_string()),
                ("__meta_consul_service_id", service.id),
                ("__meta_consul_health", aggregated(&checks).to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let maps = [
            ("__meta_consul_metadata_", node.meta),
            ("__meta_consul_service_metadata_", service.meta),
            ("__meta_consul_tagged_address_", node.tagged_addresses),
        ];
        for (prefix, map) in maps {
            for (name, value) in map {
                labels.insert(format!("{prefix}{}", sanitize_label_name(&name)), value);
            }
        }
        Labels::from_pairs(labels)
    }
}

/// One instance of a service.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ServiceEntry {
    #[serde(default, deserialize_with = "or_default")]
    node: Node,
    #[serde(default, deserialize_with = "or_default")]
    service: Service,
    #[serde(default, deserialize_with = "or_default")]
    checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    node: String,
    address: String,
    #[serde(deserialize_with = "or_default")]
    meta: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    tagged_addresses: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: i64,
    namespace: String,
    partition: String,
    #[serde(deserialize_with = "or_default")]
    tags: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    meta: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Check {
    #[serde(rename = "CheckID")]
    id: String,
    status: String,
}

/// The worst of an instance's checks, and of its node's: `maintenance`, `critical`, `warning`, `passing`. Nothing when
/// a check is in a state nobody knows (Consul's `HealthChecks.AggregatedStatus`).
pub(super) fn aggregated(checks: &[Check]) -> &'static str {
    const STATES: [&str; 4] = ["passing", "warning", "critical", "maintenance"];
    let mut worst = 0;
    for check in checks {
        let is_maintenance = check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance:");
        let state = match check.status.as_str() {
            _ if is_maintenance => 3,
            "passing" => 0,
            "warning" => 1,
            "critical" => 2,
            _ => return "",
        };
        worst = worst.max(state);
    }
    STATES.get(worst).copied().unwrap_or_default()
}
