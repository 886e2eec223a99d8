//! `dockerswarm_sd_configs`: nodes, services and tasks of a swarm.

use std::collections::BTreeMap;
use std::net::IpAddr;
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
const PREFIX: &str = "__meta_dockerswarm_";
/// Most containers that are looked into for labels in one refresh.
const INSPECTED_MAX: usize = 2000;

raw_sd_config! {
    /// An entry of `dockerswarm_sd_configs` as written.
    pub struct RawDockerSwarmSdConfig {
        #[serde(default)]
        pub host: String,
        #[serde(default)]
        pub role: String,
        pub port: Option<u16>,
        #[serde(default)]
        pub filters: Vec<DockerFilter>,
        pub refresh_interval: Option<PromDuration>,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Services,
    Nodes,
    Tasks,
}

/// A valid entry of `dockerswarm_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct DockerSwarmSdConfig {
    host: Host,
    role: Role,
    port: u16,
    filters: String,
    refresh_interval: Duration,
    http: HttpClientConfig,
}

impl RawDockerSwarmSdConfig {
    /// Checks the entry; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When there is no host that can be asked, no role, or the HTTP client block is wrong.
    pub fn build(&self, path: &ConfigPath, dir: &Path) -> Result<DockerSwarmSdConfig, ConfigError> {
        let host = Host::parse(&self.host, path)?;
        let role = match self.role.as_str() {
            "services" => Role::Services,
            "nodes" => Role::Nodes,
            "tasks" => Role::Tasks,
            "" => return Err(ConfigError::new(path, "role missing (one of: tasks, services, nodes)")),
            other => {
                return Err(ConfigError::new(
                    &path.key("role"),
                    format!("invalid role {other}, expected tasks, services, or nodes"),
                ));
            }
        };
        Ok(DockerSwarmSdConfig {
            host,
            role,
            port: self.port.unwrap_or(80),
            filters: filter_text(&self.filters),
            refresh_interval: refresh_interval(self.refresh_interval.unwrap_or(REFRESH_INTERVAL), path)?,
            http: self.http_client().build(path, dir)?,
        })
    }
}

impl DiscoveryConfig for DockerSwarmSdConfig {
    fn kind(&self) -> &'static str {
        "dockerswarm"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        let api = DockerApi::new(&self.host, &self.http, self.refresh_interval, context);
        let source = Swarm { role: self.role, port: self.port, filters: self.filters.clone(), api };
        Box::new(Refresher::new("dockerswarm", self.refresh_interval, context, source))
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        format!("{} {:?}", self.host.shown(), self.role)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    spec: NodeSpec,
    description: NodeDescription,
    status: NodeStatus,
    manager_status: Option<ManagerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NodeSpec {
    role: String,
    availability: String,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NodeDescription {
    hostname: String,
    platform: Platform,
    engine: Engine,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    #[serde(rename = "Architecture")]
    architecture: String,
    #[serde(rename = "OS")]
    os: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Engine {
    engine_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NodeStatus {
    state: String,
    addr: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ManagerStatus {
    leader: bool,
    reachability: String,
    addr: String,
}

impl Node {
    /// What tasks and node targets both have.
    fn labels(&self) -> Gathered {
        let mut labels = Gathered::default();
        let platform = &self.description.platform;
        for (name, value) in [
            ("id", &self.id),
            ("role", &self.spec.role),
            ("address", &self.status.addr),
            ("availability", &self.spec.availability),
            ("hostname", &self.description.hostname),
            ("platform_architecture", &platform.architecture),
            ("platform_os", &platform.os),
            ("status", &self.status.state),
        ] {
            labels.set(format!("{PREFIX}node_{name}"), value);
        }
        labels.marks(&format!("{PREFIX}node_label_"), &self.spec.labels);
        labels
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    spec: ServiceSpec,
    endpoint: ServiceEndpoint,
    update_status: Option<UpdateStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ServiceSpec {
    name: String,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    mode: ServiceMode,
    task_template: TaskSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ServiceMode {
    global: Option<serde::de::IgnoredAny>,
    replicated: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct TaskSpec {
    container_spec: Option<ContainerSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ContainerSpec {
    image: String,
    hostname: String,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceEndpoint {
    #[serde(rename = "Ports", deserialize_with = "nullable")]
    ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", deserialize_with = "nullable")]
    virtual_ips: Vec<VirtualIp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct PortConfig {
    name: String,
    protocol: String,
    published_port: u32,
    publish_mode: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VirtualIp {
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "Addr")]
    addr: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UpdateStatus {
    state: String,
}

impl Service {
    /// What tasks and service targets both have.
    fn labels(&self) -> Gathered {
        let mode = match &self.spec.mode {
            ServiceMode { global: Some(_), .. } => "global",
            ServiceMode { replicated: Some(_), .. } => "replicated",
            _ => "",
        };
        let mut labels = Gathered::default();
        labels
            .set(format!("{PREFIX}service_id"), &self.id)
            .set(format!("{PREFIX}service_name"), &self.spec.name)
            .set(format!("{PREFIX}service_mode"), mode)
            .marks(&format!("{PREFIX}service_label_"), &self.spec.labels);
        labels
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    #[serde(rename = "NodeID")]
    node_id: String,
    #[serde(rename = "Slot")]
    slot: i64,
    #[serde(rename = "DesiredState")]
    desired_state: String,
    #[serde(rename = "Spec")]
    spec: TaskSpec,
    #[serde(rename = "Status")]
    status: TaskStatus,
    #[serde(rename = "NetworksAttachments", deserialize_with = "nullable")]
    networks: Vec<NetworkAttachment>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct TaskStatus {
    state: String,
    container_status: Option<ContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    port_status: PortStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    container_id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct PortStatus {
    #[serde(deserialize_with = "nullable")]
    ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkAttachment {
    network: AttachedNetwork,
    #[serde(deserialize_with = "nullable")]
    addresses: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct AttachedNetwork {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inspected {
    config: Option<InspectedConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InspectedConfig {
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

struct Swarm {
    role: Role,
    port: u16,
    filters: String,
    api: DockerApi,
}

impl Refresh for Swarm {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(async {
            let result = self.ask().await;
            if result.is_err() {
                self.api.forget_version();
            }
            let targets = result?;
            Ok(vec![TargetGroup { source: "DockerSwarm".to_owned(), targets, labels: Labels::empty() }])
        })
    }
}

impl Swarm {
    async fn ask(&mut self) -> Result<Vec<Labels>, RefreshError> {
        self.api.negotiate().await?;
        match self.role {
            Role::Nodes => self.nodes().await,
            Role::Services => self.services().await,
            Role::Tasks => self.tasks().await,
        }
    }

    async fn nodes(&self) -> Result<Vec<Labels>, RefreshError> {
        let nodes: Vec<Node> = self.api.get("/nodes", &self.filters).await?;
        let target = |node: &Node| {
            let mut labels = node.labels();
            labels
                .set(format!("{PREFIX}node_engine_version"), &node.description.engine.engine_version)
                .set("__address__", join_host_port(&node.status.addr, self.port));
            if let Some(manager) = &node.manager_status {
                labels
                    .set(format!("{PREFIX}node_manager_leader"), manager.leader.to_string())
                    .set(format!("{PREFIX}node_manager_reachability"), &manager.reachability)
                    .set(format!("{PREFIX}node_manager_address"), &manager.addr);
            }
            labels.build()
        };
        Ok(nodes.iter().map(target).collect())
    }

    async fn services(&self) -> Result<Vec<Labels>, RefreshError> {
        let services: Vec<Service> = self.api.get("/services", &self.filters).await?;
        let networks = network_labels(&self.api, PREFIX).await?;
        let mut targets = Vec::new();
        for service in &services {
            let mut common = service.labels();
            if let Some(container) = &service.spec.task_template.container_spec {
                common
                    .set(format!("{PREFIX}service_task_container_hostname"), &container.hostname)
                    .set(format!("{PREFIX}service_task_container_image"), &container.image);
            }
            if let Some(update) = &service.update_status {
                common.set(format!("{PREFIX}service_updating_status"), &update.state);
            }
            for virtual_ip in service.endpoint.virtual_ips.iter().filter(|ip| !ip.addr.is_empty()) {
                let ip = address(&virtual_ip.addr)?;
                let mut base = common.clone();
                base.all(networks.get(&virtual_ip.network_id));
                let ports = tcp(&service.endpoint.ports).map(|port| {
                    let mut target = base.clone();
                    target
                        .set(format!("{PREFIX}service_endpoint_port_name"), &port.name)
                        .set(format!("{PREFIX}service_endpoint_port_publish_mode"), &port.publish_mode)
                        .set("__address__", join_host_port(&ip, port.published_port));
                    target.build()
                });
                self.add(&mut targets, ports, &base, &ip);
            }
        }
        Ok(targets)
    }

    async fn tasks(&self) -> Result<Vec<Labels>, RefreshError> {
        let tasks: Vec<Task> = self.api.get("/tasks", &self.filters).await?;
        let services: Vec<Service> = self.api.get("/services", "").await?;
        let services: BTreeMap<&str, (Labels, &[PortConfig])> = services
            .iter()
            .map(|service| {
                (service.id.as_str(), (service.labels().build(), service.endpoint.ports.as_slice()))
            })
            .collect();
        let nodes: Vec<Node> = self.api.get("/nodes", "").await?;
        let nodes: BTreeMap<&str, (Labels, &str)> = nodes
            .iter()
            .map(|node| (node.id.as_str(), (node.labels().build(), node.status.addr.as_str())))
            .collect();
        let networks = network_labels(&self.api, PREFIX).await?;
        let containers = self.container_labels(&tasks).await;
        let mut targets = Vec::new();
        for task in &tasks {
            let service = services.get(task.service_id.as_str());
            let node = nodes.get(task.node_id.as_str());
            let mut common = Gathered::default();
            common
                .set(format!("{PREFIX}task_id"), &task.id)
                .set(format!("{PREFIX}task_desired_state"), &task.desired_state)
                .set(format!("{PREFIX}task_state"), &task.status.state)
                .set(format!("{PREFIX}task_slot"), task.slot.to_string());
            let container = task.status.container_status.as_ref().map(|status| status.container_id.as_str());
            if let Some(id) = container {
                common.set(format!("{PREFIX}task_container_id"), id);
            }
            if let Some(spec) = &task.spec.container_spec {
                let prefix = format!("{PREFIX}container_label_");
                // What the service says wins over what the image says.
                if let Some(labels) = container.and_then(|id| containers.get(id)) {
                    common.marks(&prefix, labels);
                }
                common.marks(&prefix, &spec.labels);
            }
            common.all(service.map(|(labels, _)| labels)).all(node.map(|(labels, _)| labels));
            for port in tcp(&task.status.port_status.ports) {
                let mut target = common.clone();
                let address = node.map_or("", |(_, address)| address);
                target
                    .set(format!("{PREFIX}task_port_publish_mode"), &port.publish_mode)
                    .set("__address__", join_host_port(address, port.published_port));
                targets.push(target.build());
            }
            for attachment in &task.networks {
                let mut base = common.clone();
                base.all(networks.get(&attachment.network.id));
                for text in &attachment.addresses {
                    let ip = address(text)?;
                    let ports = tcp(service.map_or(&[], |(_, ports)| ports)).map(|port| {
                        let mut target = base.clone();
                        target
                            .set(format!("{PREFIX}task_port_publish_mode"), &port.publish_mode)
                            .set("__address__", join_host_port(&ip, port.published_port));
                        target.build()
                    });
                    self.add(&mut targets, ports, &base, &ip);
                }
            }
        }
        Ok(targets)
    }

    /// Adds a target for each of `ports`, or where there is none, one at the configured port.
    fn add(&self, targets: &mut Vec<Labels>, ports: impl Iterator<Item = Labels>, base: &Gathered, ip: &str) {
        let before = targets.len();
        targets.extend(ports);
        if targets.len() == before {
            let mut target = base.clone();
            target.set("__address__", join_host_port(ip, self.port));
            targets.push(target.build());
        }
    }

    /// Labels of the containers of tasks, image labels included. Only those on the daemon's own node can be looked into:
    /// one that cannot has none.
    async fn container_labels(&self, tasks: &[Task]) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        let ids = tasks
            .iter()
            .filter_map(|task| Some(task.status.container_status.as_ref()?.container_id.as_str()))
            .filter(|id| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric()));
        for id in ids.take(INSPECTED_MAX) {
            if found.contains_key(id) {
                continue;
            }
            let inspected: Result<Inspected, _> = self.api.get(&format!("/containers/{id}/json"), "").await;
            let labels = inspected.ok().and_then(|inspected| inspected.config).unwrap_or_default().labels;
            found.insert(id.to_owned(), labels);
        }
        found
    }
}

fn tcp(ports: &[PortConfig]) -> impl Iterator<Item = &PortConfig> {
    ports.iter().filter(|port| port.protocol == "tcp")
}

/// The address of `10.0.0.1/24`.
fn address(text: &str) -> Result<String, RefreshError> {
    let ip = text.split_once('/').and_then(|(ip, bits)| {
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        (bits.parse::<u8>().ok()? <= most).then(|| ip.to_string())
    });
    ip.ok_or_else(|| {
        RefreshError::Other(format!("error while parsing address {text}: invalid CIDR address: {text}"))
    })
}
