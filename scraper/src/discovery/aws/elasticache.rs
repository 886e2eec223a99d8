//! Role `elasticache`: a target for each node of cache clusters and for each serverless cache.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use model::Labels;

use super::Gathered;
use super::api::{AwsApi, PAGES_MAX, param};
use super::xml::Element;
use crate::discovery::TargetGroup;
use crate::discovery::client::join_host_port;
use crate::discovery::refresh::{Refresh, RefreshError, TARGETS_MAX};

const PREFIX: &str = "__meta_elasticache_";

/// Labels of a cluster that are a text of the answer: label and element.
const CLUSTER_TEXTS: [(&str, &str); 32] = [
    ("arn", "ARN"),
    ("cache_cluster_id", "CacheClusterId"),
    ("cache_cluster_status", "CacheClusterStatus"),
    ("at_rest_encryption_enabled", "AtRestEncryptionEnabled"),
    ("auth_token_enabled", "AuthTokenEnabled"),
    ("auto_minor_version_upgrade", "AutoMinorVersionUpgrade"),
    ("cache_node_type", "CacheNodeType"),
    ("cache_parameter_group", "CacheParameterGroup/CacheParameterGroupName"),
    ("cache_subnet_group_name", "CacheSubnetGroupName"),
    ("client_download_landing_page", "ClientDownloadLandingPage"),
    ("configuration_endpoint_address", "ConfigurationEndpoint/Address"),
    ("configuration_endpoint_port", "ConfigurationEndpoint/Port"),
    ("engine", "Engine"),
    ("engine_version", "EngineVersion"),
    ("ip_discovery", "IpDiscovery"),
    ("network_type", "NetworkType"),
    ("notification_topic_arn", "NotificationConfiguration/TopicArn"),
    ("notification_topic_status", "NotificationConfiguration/TopicStatus"),
    ("num_cache_nodes", "NumCacheNodes"),
    ("preferred_availability_zone", "PreferredAvailabilityZone"),
    ("preferred_maintenance_window", "PreferredMaintenanceWindow"),
    ("preferred_outpost_arn", "PreferredOutpostArn"),
    ("replication_group_id", "ReplicationGroupId"),
    ("replication_group_log_delivery_enabled", "ReplicationGroupLogDeliveryEnabled"),
    ("snapshot_retention_limit", "SnapshotRetentionLimit"),
    ("snapshot_window", "SnapshotWindow"),
    ("transit_encryption_enabled", "TransitEncryptionEnabled"),
    ("transit_encryption_mode", "TransitEncryptionMode"),
    ("pending_modified_values_auth_token_status", "PendingModifiedValues/AuthTokenStatus"),
    ("pending_modified_values_cache_node_type", "PendingModifiedValues/CacheNodeType"),
    ("pending_modified_values_engine_version", "PendingModifiedValues/EngineVersion"),
    ("pending_modified_values_num_cache_nodes", "PendingModifiedValues/NumCacheNodes"),
];
const PENDING_TEXTS: [(&str, &str); 2] = [
    ("pending_modified_values_transit_encryption_enabled", "PendingModifiedValues/TransitEncryptionEnabled"),
    ("pending_modified_values_transit_encryption_mode", "PendingModifiedValues/TransitEncryptionMode"),
];
const CLUSTER_TIMES: [(&str, &str); 2] = [
    ("auth_token_last_modified", "AuthTokenLastModifiedDate"),
    ("cache_cluster_create_time", "CacheClusterCreateTime"),
];
/// Of each way logs are delivered; the label ends in its number.
const LOG_TEXTS: [(&str, &str); 7] = [
    ("destination_type", "DestinationType"),
    ("log_format", "LogFormat"),
    ("log_type", "LogType"),
    ("status", "Status"),
    ("message", "Message"),
    ("log_group", "DestinationDetails/CloudWatchLogsDetails/LogGroup"),
    ("delivery_stream", "DestinationDetails/KinesisFirehoseDetails/DeliveryStream"),
];
const NODE_TEXTS: [(&str, &str); 8] = [
    ("id", "CacheNodeId"),
    ("status", "CacheNodeStatus"),
    ("availability_zone", "CustomerAvailabilityZone"),
    ("customer_outpost_arn", "CustomerOutpostArn"),
    ("source_cache_node_id", "SourceCacheNodeId"),
    ("parameter_group_status", "ParameterGroupStatus"),
    ("endpoint_address", "Endpoint/Address"),
    ("endpoint_port", "Endpoint/Port"),
];
const SERVERLESS_TEXTS: [(&str, &str); 20] = [
    ("arn", "ARN"),
    ("name", "ServerlessCacheName"),
    ("status", "Status"),
    ("engine", "Engine"),
    ("full_engine_version", "FullEngineVersion"),
    ("major_engine_version", "MajorEngineVersion"),
    ("description", "Description"),
    ("kms_key_id", "KmsKeyId"),
    ("user_group_id", "UserGroupId"),
    ("daily_snapshot_time", "DailySnapshotTime"),
    ("snapshot_retention_limit", "SnapshotRetentionLimit"),
    ("endpoint_address", "Endpoint/Address"),
    ("endpoint_port", "Endpoint/Port"),
    ("endpoint_reader_address", "ReaderEndpoint/Address"),
    ("endpoint_reader_port", "ReaderEndpoint/Port"),
    ("cache_usage_limit_data_storage_maximum", "CacheUsageLimits/DataStorage/Maximum"),
    ("cache_usage_limit_data_storage_minimum", "CacheUsageLimits/DataStorage/Minimum"),
    ("cache_usage_limit_data_storage_unit", "CacheUsageLimits/DataStorage/Unit"),
    ("cache_usage_limit_ecpu_per_second_maximum", "CacheUsageLimits/ECPUPerSecond/Maximum"),
    ("cache_usage_limit_ecpu_per_second_minimum", "CacheUsageLimits/ECPUPerSecond/Minimum"),
];

/// Finds caches.
pub(super) struct Caches {
    pub(super) api: AwsApi,
    /// ARNs; none are all.
    pub(super) clusters: Vec<String>,
    pub(super) concurrency: usize,
}

type Tags = Vec<(String, String)>;

impl Refresh for Caches {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(self.ask())
    }
}

impl Caches {
    async fn ask(&self) -> Result<Vec<TargetGroup>, RefreshError> {
        let region = self.api.region().await?.to_owned();
        let (serverless, clusters) = self.wanted();
        let serverless = self.serverless(&serverless).await?;
        let clusters = self.cache_clusters(&clusters).await?;
        let all = || {
            let serverless = serverless.iter().flat_map(|answer| answer.list(SERVERLESS_LIST));
            let clusters = clusters.iter().flat_map(|answer| answer.list(CLUSTER_LIST));
            serverless.chain(clusters)
        };
        let tags = self.tags(all().filter_map(|cache| cache.get("ARN"))).await?;
        let mut targets = Vec::new();
        let tags_of = |cache: &Element| cache.get("ARN").and_then(|arn| tags.get(arn));
        for answer in &serverless {
            targets
                .extend(answer.list(SERVERLESS_LIST).map(|cache| serverless_target(cache, tags_of(cache))));
        }
        for answer in &clusters {
            for cluster in answer.list(CLUSTER_LIST) {
                add_nodes(cluster, tags_of(cluster), &mut targets);
            }
        }
        Ok(vec![TargetGroup { source: region, targets, labels: Labels::empty() }])
    }

    /// Names of serverless caches and of clusters that are asked for.
    fn wanted(&self) -> (Vec<String>, Vec<String>) {
        let (mut serverless, mut clusters) = (Vec::new(), Vec::new());
        for arn in self.clusters.iter().filter(|arn| !arn.is_empty()) {
            let parts: Vec<&str> = arn.split(':').collect();
            match (parts.get(5), parts.get(6)) {
                (Some(&"serverlesscache"), Some(name)) => serverless.push((*name).to_owned()),
                (Some(&"replicationgroup"), Some(name)) => clusters.push((*name).to_owned()),
                (Some(_), Some(_)) => {}
                _ => tracing::warn!(arn, "skipping invalid ElastiCache ARN"),
            }
        }
        (serverless, clusters)
    }

    async fn serverless(&self, names: &[String]) -> Result<Vec<Element>, RefreshError> {
        let base = vec![param("MaxResults", "50")];
        if names.is_empty() {
            return self
                .pages("DescribeServerlessCaches", base, "NextToken")
                .await
                .map_err(|error| within("failed to describe serverless caches", &error));
        }
        let asked = names.iter().map(|name| {
            let mut params = base.clone();
            params.push(param("ServerlessCacheName", name));
            self.one(
                "DescribeServerlessCaches",
                params,
                format!("failed to describe serverless cache {name}"),
            )
        });
        self.together(asked.collect()).await
    }

    async fn cache_clusters(&self, names: &[String]) -> Result<Vec<Element>, RefreshError> {
        let mut answers = Vec::new();
        for alone in ["false", "true"] {
            let base = vec![
                param("MaxRecords", "100"),
                param("ShowCacheNodeInfo", "true"),
                param("ShowCacheClustersNotInReplicationGroups", alone),
            ];
            if names.is_empty() {
                let pages = self.pages("DescribeCacheClusters", base, "Marker").await;
                answers.extend(pages.map_err(|error| within("failed to describe cache clusters", &error))?);
                continue;
            }
            let asked = names.iter().map(|name| {
                let mut params = base.clone();
                params.push(param("CacheClusterId", name));
                self.one("DescribeCacheClusters", params, format!("failed to describe cache cluster {name}"))
            });
            answers.extend(self.together(asked.collect()).await?);
        }
        Ok(answers)
    }

    /// All pages of a list whose next page is asked for with `token`.
    async fn pages(
        &self,
        action: &str,
        base: Vec<(String, String)>,
        token: &str,
    ) -> Result<Vec<Element>, RefreshError> {
        let mut pages = Vec::new();
        let mut next: Option<String> = None;
        while pages.len() < PAGES_MAX {
            let mut params = base.clone();
            params.extend(next.take().map(|value| param(token, value)));
            let page = self.api.action(action, params).await.map_err(|error| error.during(action))?;
            next = page
                .get(&format!("{action}Result/{token}"))
                .filter(|value| !value.is_empty())
                .map(str::to_owned);
            pages.push(page);
            if next.is_none() {
                return Ok(pages);
            }
        }
        Err(RefreshError::TooMany { what: "pages", found: pages.len(), limit: PAGES_MAX })
    }

    fn one<'a>(
        &'a self,
        action: &'static str,
        params: Vec<(String, String)>,
        doing: String,
    ) -> BoxFuture<'a, Result<Element, RefreshError>> {
        Box::pin(async move { self.api.action(action, params).await.map_err(|error| error.during(&doing)) })
    }

    /// Answers in the order of the questions, so many at once as may be.
    async fn together<'a, T>(
        &self,
        asked: Vec<BoxFuture<'a, Result<T, RefreshError>>>,
    ) -> Result<Vec<T>, RefreshError> {
        stream::iter(asked).buffered(self.concurrency).try_collect().await
    }

    /// Tags by ARN.
    async fn tags<'a>(
        &self,
        arns: impl Iterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, Tags>, RefreshError> {
        let mut arns: Vec<String> = arns.map(str::to_owned).collect();
        arns.sort();
        arns.dedup();
        if arns.len() > TARGETS_MAX {
            return Err(RefreshError::TooMany { what: "caches", found: arns.len(), limit: TARGETS_MAX });
        }
        let asked = arns.iter().map(|arn| {
            let params = vec![param("ResourceName", arn)];
            self.one("ListTagsForResource", params, format!("failed to list tags for resource {arn}"))
        });
        let answers = self.together(asked.collect()).await?;
        let tags = |answer: &Element| -> Tags {
            let list = answer.list("ListTagsForResourceResult/TagList");
            list.filter_map(|tag| Some((tag.get("Key")?.to_owned(), tag.get("Value")?.to_owned()))).collect()
        };
        Ok(arns.iter().cloned().zip(answers.iter().map(tags)).collect())
    }
}

const SERVERLESS_LIST: &str = "DescribeServerlessCachesResult/ServerlessCaches";
const CLUSTER_LIST: &str = "DescribeCacheClustersResult/CacheClusters";

fn within(doing: &str, error: &RefreshError) -> RefreshError {
    RefreshError::Other(format!("{doing}: {error}"))
}

fn set_texts(labels: &mut Gathered, prefix: &str, from: &Element, texts: &[(&str, &str)]) {
    for (label, path) in texts {
        labels.set_some(&format!("{prefix}{label}"), from.get(path));
    }
}

/// `2015-02-02T18:58:13Z`: without parts of a second.
fn time(text: &str) -> String {
    match text.split_once('.') {
        Some((seconds, rest)) => {
            format!("{seconds}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => text.to_owned(),
    }
}

/// `host:port`, where both are known.
fn endpoint(from: &Element) -> Option<String> {
    Some(join_host_port(from.get("Endpoint/Address")?, from.get("Endpoint/Port")?))
}

fn add_tags(labels: &mut Gathered, prefix: &str, tags: Option<&Tags>) {
    labels.tags(prefix, tags.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())));
}

fn serverless_target(cache: &Element, tags: Option<&Tags>) -> Labels {
    let mut labels = Gathered::new(PREFIX);
    labels
        .set("deployment_option", "serverless")
        .set_some("serverless_cache_create_time", cache.get("CreateTime").map(time));
    set_texts(&mut labels, "serverless_cache_", cache, &SERVERLESS_TEXTS);
    for (label, list) in [("security_group_id", "SecurityGroupIds"), ("subnet_id", "SubnetIds")] {
        for (index, id) in cache.list(list).enumerate() {
            labels.set(&format!("serverless_cache_{label}_{index}"), id.value());
        }
    }
    add_tags(&mut labels, "serverless_cache_tag_", tags);
    if let Some(address) = endpoint(cache) {
        labels.address(address);
    }
    labels.build()
}

fn add_nodes(cluster: &Element, tags: Option<&Tags>, targets: &mut Vec<Labels>) {
    let mut common = Gathered::new(PREFIX);
    common.set("deployment_option", "node");
    set_texts(&mut common, "cache_cluster_", cluster, &CLUSTER_TEXTS);
    set_texts(&mut common, "cache_cluster_", cluster, &PENDING_TEXTS);
    for (label, path) in CLUSTER_TIMES {
        common.set_some(&format!("cache_cluster_{label}"), cluster.get(path).map(time));
    }
    let to_go: Vec<&str> =
        cluster.list("PendingModifiedValues/CacheNodeIdsToRemove").map(Element::value).collect();
    common.set("cache_cluster_pending_modified_values_cache_node_ids_to_remove", to_go.join(","));
    for (index, delivery) in cluster.list("LogDeliveryConfigurations").enumerate() {
        for (label, path) in LOG_TEXTS {
            let label = format!("cache_cluster_log_delivery_configuration_{label}_{index}");
            common.set_some(&label, delivery.get(path));
        }
    }
    for (index, group) in cluster.list("SecurityGroups").enumerate() {
        for (label, path) in [("id", "SecurityGroupId"), ("status", "Status")] {
            let label = format!("cache_cluster_security_group_membership_{label}_{index}");
            common.set_some(&label, group.get(path));
        }
    }
    add_tags(&mut common, "cache_cluster_tag_", tags);
    for node in cluster.list("CacheNodes") {
        let mut labels = common.clone();
        set_texts(&mut labels, "cache_cluster_node_", node, &NODE_TEXTS);
        labels.set_some("cache_cluster_node_create_time", node.get("CacheNodeCreateTime").map(time));
        if let Some(address) = endpoint(node) {
            labels.address(address);
        }
        targets.push(labels.build());
    }
}
