//! Role `msk`: a target for each endpoint of the brokers and controllers of managed Kafka clusters.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use model::Labels;
use serde::Deserialize;

use super::api::{AwsApi, PAGES_MAX, param};
use super::sign::encoded;
use super::{Gathered, pairs};
use crate::discovery::TargetGroup;
use crate::discovery::client::join_host_port;
use crate::discovery::refresh::{Refresh, RefreshError, TARGETS_MAX};

const PREFIX: &str = "__meta_msk_";
const PROVISIONED: &str = "PROVISIONED";
const PAGE: &str = "100";

/// Finds brokers.
pub(super) struct Brokers {
    pub(super) api: AwsApi,
    pub(super) port: u16,
    /// ARNs; none are all.
    pub(super) clusters: Vec<String>,
    pub(super) concurrency: usize,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClusterPage {
    cluster_info_list: Vec<Cluster>,
    next_token: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Described {
    cluster_info: Cluster,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Cluster {
    cluster_arn: String,
    cluster_name: String,
    cluster_type: String,
    state: String,
    current_version: String,
    tags: Option<BTreeMap<String, String>>,
    provisioned: Option<Provisioned>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Provisioned {
    current_broker_software_info: Option<Software>,
    open_monitoring: Option<OpenMonitoring>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Software {
    kafka_version: Option<String>,
    configuration_arn: Option<String>,
    configuration_revision: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OpenMonitoring {
    prometheus: Option<Exporters>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Exporters {
    jmx_exporter: Option<Exporter>,
    node_exporter: Option<Exporter>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Exporter {
    enabled_in_broker: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodePage {
    node_info_list: Vec<Node>,
    next_token: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    #[serde(rename = "nodeARN")]
    arn: String,
    added_to_cluster_time: String,
    instance_type: String,
    broker_node_info: Option<Broker>,
    controller_node_info: Option<Controller>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Broker {
    #[serde(rename = "attachedENIId")]
    attached_eni: String,
    broker_id: f64,
    client_subnet: String,
    client_vpc_ip_address: String,
    endpoints: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Controller {
    endpoints: Vec<String>,
}

impl Refresh for Brokers {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(self.ask())
    }
}

impl Brokers {
    async fn ask(&self) -> Result<Vec<TargetGroup>, RefreshError> {
        let region = self.api.region().await?.to_owned();
        let clusters = if self.clusters.is_empty() { self.list().await? } else { self.describe().await? };
        let asked = clusters.into_iter().map(|cluster| async move {
            let nodes = self.nodes(&cluster.cluster_arn).await?;
            Ok::<_, RefreshError>((cluster, nodes))
        });
        // Boxed: the compiler cannot see through closures of futures that borrow.
        let asked: Vec<BoxFuture<'_, _>> = asked.map(|ask| Box::pin(ask) as BoxFuture<'_, _>).collect();
        let found: Vec<(Cluster, Vec<Node>)> =
            stream::iter(asked).buffered(self.concurrency).try_collect().await?;
        let targets = found.iter().flat_map(|(cluster, nodes)| {
            nodes.iter().flat_map(|node| targets(cluster, node, self.port)).collect::<Vec<_>>()
        });
        Ok(vec![TargetGroup { source: region, targets: targets.collect(), labels: Labels::empty() }])
    }

    async fn list(&self) -> Result<Vec<Cluster>, RefreshError> {
        let mut clusters = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = vec![param("clusterTypeFilter", PROVISIONED), param("maxResults", PAGE)];
            query.extend(next.take().map(|token| param("nextToken", token)));
            let page: ClusterPage = self
                .api
                .get("/api/v2/clusters".to_owned(), query)
                .await
                .map_err(|error| error.during("could not list clusters"))?;
            clusters.extend(page.cluster_info_list);
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(clusters);
            }
        }
        Err(RefreshError::TooMany { what: "clusters", found: clusters.len(), limit: clusters.len() })
    }

    async fn describe(&self) -> Result<Vec<Cluster>, RefreshError> {
        let asked = self.clusters.iter().map(|arn| {
            let ask = async move {
                let described: Described = self
                    .api
                    .get(format!("/api/v2/clusters/{}", encoded(arn, false)), Vec::new())
                    .await
                    .map_err(|error| error.during(&format!("could not describe cluster {arn}")))?;
                Ok::<_, RefreshError>(described.cluster_info)
            };
            Box::pin(ask) as BoxFuture<'_, _>
        });
        let asked: Vec<BoxFuture<'_, _>> = asked.collect();
        let clusters: Vec<Cluster> = stream::iter(asked).buffered(self.concurrency).try_collect().await?;
        let is_provisioned = |cluster: &Cluster| {
            let is = cluster.cluster_type == PROVISIONED;
            if !is {
                tracing::warn!(
                    cluster = cluster.cluster_arn,
                    kind = cluster.cluster_type,
                    "skipping MSK cluster: only provisioned clusters are supported"
                );
            }
            is
        };
        Ok(clusters.into_iter().filter(is_provisioned).collect())
    }

    async fn nodes(&self, cluster: &str) -> Result<Vec<Node>, RefreshError> {
        let mut nodes = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = vec![param("maxResults", PAGE)];
            query.extend(next.take().map(|token| param("nextToken", token)));
            let page: NodePage = self
                .api
                .get(format!("/v1/clusters/{}/nodes", encoded(cluster, false)), query)
                .await
                .map_err(|error| error.during(&format!("could not list nodes for cluster {cluster}")))?;
            nodes.extend(page.node_info_list);
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(nodes);
            }
        }
        Err(RefreshError::TooMany { what: "nodes", found: nodes.len(), limit: TARGETS_MAX })
    }
}

fn targets(cluster: &Cluster, node: &Node, port: u16) -> Vec<Labels> {
    let provisioned = cluster.provisioned.clone().unwrap_or_default();
    let software = provisioned.current_broker_software_info.unwrap_or_default();
    let exporters = provisioned.open_monitoring.and_then(|open| open.prometheus).unwrap_or_default();
    let enabled = |exporter: &Option<Exporter>| exporter.as_ref().map(|exporter| exporter.enabled_in_broker);
    let mut labels = Gathered::new(PREFIX);
    labels
        .set("cluster_name", &cluster.cluster_name)
        .set("cluster_arn", &cluster.cluster_arn)
        .set("cluster_state", &cluster.state)
        .set("cluster_type", &cluster.cluster_type)
        .set("cluster_version", &cluster.current_version)
        .set("node_arn", &node.arn)
        .set("node_added_time", &node.added_to_cluster_time)
        .set("node_instance_type", &node.instance_type)
        .set_some("cluster_kafka_version", software.kafka_version)
        .set_some("cluster_configuration_arn", software.configuration_arn)
        .set_some("cluster_configuration_revision", software.configuration_revision)
        .set_some("cluster_jmx_exporter_enabled", enabled(&exporters.jmx_exporter))
        .tags("cluster_tag_", cluster.tags.iter().flat_map(pairs));
    let (endpoints, index_label) = if let Some(broker) = &node.broker_node_info {
        labels
            .set("node_type", "BROKER")
            .set("node_attached_eni", &broker.attached_eni)
            .set("broker_id", format!("{:.0}", broker.broker_id))
            .set("broker_client_subnet", &broker.client_subnet)
            .set("broker_client_vpc_ip", &broker.client_vpc_ip_address)
            .set_some("broker_node_exporter_enabled", enabled(&exporters.node_exporter));
        (&broker.endpoints, "broker_endpoint_index")
    } else if let Some(controller) = &node.controller_node_info {
        labels.set("node_type", "CONTROLLER");
        (&controller.endpoints, "controller_endpoint_index")
    } else {
        return Vec::new();
    };
    let target = |(index, endpoint): (usize, &String)| {
        let mut target = labels.clone();
        target.set(index_label, index.to_string()).address(join_host_port(endpoint, port));
        target.build()
    };
    endpoints.iter().enumerate().map(target).collect()
}
