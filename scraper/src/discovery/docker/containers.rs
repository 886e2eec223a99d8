//! `docker_sd_configs`: a target for each TCP port of a container in each of its networks.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::config::PromDuration;
use model::{ConfigError, ConfigPath, Labels};
use net::http::HttpClientConfig;
use serde::Deserialize;

use super::super::client::{join_host_port, raw_sd_config, refresh_interval};
use super::super::refresh::{Refresh, RefreshError, Refresher};
use super::super::{Discoverer, DiscoveryConfig, DiscoveryContext, TargetGroup, is_equal};
use super::api::{DockerApi, DockerFilter, Host, filter_text};
use super::network::network_labels;
use super::{Gathered, nullable};

const REFRESH_INTERVAL: PromDuration = PromDuration::from_secs(60);
const PREFIX: &str = "__meta_docker_";
/// How many containers' networks are looked through for one that shares another's.
const SHARED_MAX: usize = 16;

raw_sd_config! {
    /// An entry of `docker_sd_configs` as written.
    pub struct RawDockerSdConfig {
        #[serde(default)]
        pub host: String,
        pub port: Option<u16>,
        #[serde(default)]
        pub filters: Vec<DockerFilter>,
        pub host_networking_host: Option<String>,
        pub refresh_interval: Option<PromDuration>,
        pub match_first_network: Option<bool>,
    }
}

/// A valid entry of `docker_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct DockerSdConfig {
    host: Host,
    port: u16,
    filters: String,
    host_networking_host: String,
    refresh_interval: Duration,
    match_first_network: bool,
    http: HttpClientConfig,
}

impl RawDockerSdConfig {
    /// Checks the entry; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When there is no host that can be asked, or the HTTP client block is wrong.
    pub fn build(&self, path: &ConfigPath, dir: &Path) -> Result<DockerSdConfig, ConfigError> {
        Ok(DockerSdConfig {
            host: Host::parse(&self.host, path)?,
            port: self.port.unwrap_or(80),
            filters: filter_text(&self.filters),
            host_networking_host: self.host_networking_host.clone().unwrap_or_else(|| "localhost".to_owned()),
            refresh_interval: refresh_interval(self.refresh_interval.unwrap_or(REFRESH_INTERVAL), path)?,
            match_first_network: self.match_first_network.unwrap_or(true),
            http: self.http_client().build(path, dir)?,
        })
    }
}

impl DiscoveryConfig for DockerSdConfig {
    fn kind(&self) -> &'static str {
        "docker"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        let api = DockerApi::new(&self.host, &self.http, self.refresh_interval, context);
        let source = Containers { config: self.clone(), api };
        Box::new(Refresher::new("docker", self.refresh_interval, context, source))
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        self.host.shown()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Container {
    id: String,
    #[serde(deserialize_with = "nullable")]
    names: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<Port>,
    host_config: HostConfig,
    #[serde(deserialize_with = "nullable")]
    network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HostConfig {
    network_mode: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(deserialize_with = "nullable")]
    networks: BTreeMap<String, Option<Endpoint>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "GlobalIPv6Address")]
    ipv6_address: String,
}

impl Endpoint {
    /// Its address; that of a network without IPv4 is the other one.
    fn ip(&self) -> &str {
        if self.ip_address.is_empty() { &self.ipv6_address } else { &self.ip_address }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Port {
    #[serde(rename = "IP")]
    ip: String,
    private_port: u16,
    public_port: u16,
    #[serde(rename = "Type")]
    kind: String,
}

struct Containers {
    config: DockerSdConfig,
    api: DockerApi,
}

impl Refresh for Containers {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(async {
            let result = self.ask().await;
            if result.is_err() {
                self.api.forget_version();
            }
            result
        })
    }
}

impl Containers {
    async fn ask(&mut self) -> Result<Vec<TargetGroup>, RefreshError> {
        self.api.negotiate().await?;
        let containers: Vec<Container> = self.api.get("/containers/json", &self.config.filters).await?;
        let networks = network_labels(&self.api, PREFIX).await?;
        let targets = containers
            .iter()
            .filter(|container| !container.names.is_empty())
            .flat_map(|container| self.targets(container, &containers, &networks));
        Ok(vec![TargetGroup {
            source: "Docker".to_owned(),
            targets: targets.collect(),
            labels: Labels::empty(),
        }])
    }

    fn targets(
        &self,
        container: &Container,
        all: &[Container],
        labels_of: &BTreeMap<String, Labels>,
    ) -> Vec<Labels> {
        let mode = &container.host_config.network_mode;
        let mut common = Gathered::default();
        common
            .set(format!("{PREFIX}container_id"), &container.id)
            .set(format!("{PREFIX}container_name"), &container.names[0])
            .set(format!("{PREFIX}container_network_mode"), mode)
            .marks(&format!("{PREFIX}container_label_"), &container.labels);
        let mut networks: Vec<&Endpoint> = networks(container, all).collect();
        if self.config.match_first_network {
            // In order of names.
            networks.truncate(1);
        }
        let mut targets = Vec::new();
        for network in networks {
            let mut base = common.clone();
            base.set(format!("{PREFIX}network_ip"), network.ip()).all(labels_of.get(&network.network_id));
            let before = targets.len();
            for port in container.ports.iter().filter(|port| port.kind == "tcp") {
                let mut target = base.clone();
                target.set(format!("{PREFIX}port_private"), port.private_port.to_string());
                if port.public_port > 0 {
                    target
                        .set(format!("{PREFIX}port_public"), port.public_port.to_string())
                        .set(format!("{PREFIX}port_public_ip"), &port.ip);
                }
                target.set("__address__", join_host_port(network.ip(), port.private_port));
                targets.push(target.build());
            }
            if targets.len() == before {
                // No port of TCP is exposed. A container in the host's network has none of its own.
                let address = if mode == "host" {
                    self.config.host_networking_host.clone()
                } else {
                    join_host_port(network.ip(), self.config.port)
                };
                targets.push(base.set("__address__", address).build());
            }
        }
        targets
    }
}

/// Networks a container is in, or those of the container whose network it shares.
fn networks<'a>(container: &'a Container, all: &'a [Container]) -> impl Iterator<Item = &'a Endpoint> {
    let mut at = container;
    for _ in 0..SHARED_MAX {
        if !at.network_settings.networks.is_empty() {
            break;
        }
        let Some(id) = at.host_config.network_mode.strip_prefix("container:") else { break };
        let Some(next) = all.iter().find(|other| other.id == id) else { break };
        at = next;
    }
    at.network_settings.networks.values().flatten()
}
