//! `kubernetes_sd_configs`: nodes, services, pods, endpoints and ingresses of a Kubernetes cluster, kept up to date by
//! watches.
//!
//! - [`config`]: the entry as written and as valid; `access`: where the API server is.
//! - `objects`: what of the API's objects counts; `watch`: one list and its watch, a task each.
//! - `store`: all objects known, and which targets a change touches; `targets`, `endpoints`, `labels`: from objects to
//!   targets.
//!
//! A namespace has its first targets once all its lists are there, as in Prometheus; a namespace that cannot be read
//! holds back no other, and the job says what the trouble is. That there are no targets at all is said once all lists
//! of all namespaces are there.

mod access;
mod config;
mod endpoints;
#[cfg(test)]
mod fake_api;
mod labels;
mod metrics;
mod objects;
mod store;
mod targets;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::trouble::Trouble;
use super::{Discoverer, DiscoveryConfig, DiscoveryContext, GroupSender, SdMetrics, TargetGroup, is_equal};
use access::{Access, Connector};
use config::{Role, Selector};
use objects::Resource;
use store::{CLUSTER, Store};
use watch::{Message, Reflector};

pub use config::{AttachMetadata, RawKubernetesSdConfig, RawNamespaces, RawSelector};
pub(crate) use metrics::KubernetesMetrics;

/// Changes under way from the watches.
const CHANGES_MAX: usize = 256;
/// Most changes that are taken together.
const BATCH_MAX: usize = 1024;
/// How long the pod's own namespace is waited for before it is looked up again.
const NAMESPACE_RETRY: std::time::Duration = std::time::Duration::from_secs(30);

/// A valid entry of `kubernetes_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesSdConfig {
    role: Role,
    access: Access,
    /// Sorted; none are all.
    namespaces: Vec<String>,
    own_namespace: bool,
    selectors: Vec<Selector>,
    attach: AttachMetadata,
}

impl KubernetesSdConfig {
    /// What is watched in each namespace.
    fn namespaced(&self) -> Vec<Resource> {
        let attach = self.attach;
        match self.role {
            Role::Node => Vec::new(),
            Role::Service => vec![Resource::Service],
            Role::Ingress => vec![Resource::Ingress],
            Role::Endpoints => vec![Resource::Endpoints, Resource::Service, Resource::Pod],
            Role::EndpointSlice => vec![Resource::EndpointSlice, Resource::Service, Resource::Pod],
            Role::Pod => {
                let mut resources = vec![Resource::Pod];
                resources.extend(attach.deployment.then_some(Resource::ReplicaSet));
                resources.extend((attach.job || attach.cronjob).then_some(Resource::Job));
                resources
            }
        }
    }

    /// What is watched once for all namespaces.
    fn clusterwide(&self) -> Vec<Resource> {
        let has_node = matches!(self.role, Role::Pod | Role::Endpoints | Role::EndpointSlice);
        let mut resources = Vec::new();
        resources.extend((self.role == Role::Node || self.attach.node && has_node).then_some(Resource::Node));
        let has_namespace = self.role != Role::Node;
        resources.extend((self.attach.namespace && has_namespace).then_some(Resource::Namespace));
        resources
    }
}

impl DiscoveryConfig for KubernetesSdConfig {
    fn kind(&self) -> &'static str {
        "kubernetes"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        Box::new(KubernetesDiscoverer {
            config: self.clone(),
            metrics: Arc::clone(&context.metrics),
            job_name: context.job_name.clone(),
            connector: Arc::new(Connector::new(self.access.clone(), context.user_agent.clone())),
        })
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        format!("{} {:?}", self.role.resource().role(), self.namespaces)
    }
}

struct KubernetesDiscoverer {
    config: KubernetesSdConfig,
    metrics: Arc<SdMetrics>,
    job_name: String,
    connector: Arc<Connector>,
}

impl Discoverer for KubernetesDiscoverer {
    fn run(self: Box<Self>, sender: GroupSender) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let namespaces = self.namespaces().await;
            let (out, changes) = mpsc::channel(CHANGES_MAX);
            // Dropped with this task, and ends them then.
            let mut tasks = JoinSet::new();
            for (scope, namespace) in namespaces.iter().enumerate() {
                for resource in self.config.namespaced() {
                    self.watch(resource, scope, namespace, &out, &mut tasks);
                }
            }
            let shared = self.shared(&out, &mut tasks);
            drop(out);
            let store = Store::new(&self.config, namespaces.len(), shared);
            self.follow(store, changes, &sender).await;
        })
    }
}

impl KubernetesDiscoverer {
    /// Names of namespaces to watch; an empty one is all.
    async fn namespaces(&self) -> Vec<String> {
        let mut names = self.config.namespaces.clone();
        if let (true, Access::InCluster(account)) = (self.config.own_namespace, &self.config.access) {
            let trouble = self.trouble();
            loop {
                let account = account.clone();
                let own = tokio::task::spawn_blocking(move || account.namespace()).await;
                match own.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(own) => {
                        if !names.contains(&own) {
                            names.push(own);
                        }
                        break;
                    }
                    Err(error) => {
                        self.metrics.kubernetes.failures.inc();
                        trouble
                            .begins(&format_args!("cannot look for targets in the own namespace: {error}"));
                        tracing::error!(%error, "cannot look for targets in the own namespace");
                        tokio::time::sleep(NAMESPACE_RETRY).await;
                    }
                }
            }
        }
        if names.is_empty() {
            names.push(String::new());
        }
        names
    }

    /// A place for what keeps one of the watches from its work.
    fn trouble(&self) -> Trouble {
        self.metrics.trouble(&self.job_name, "kubernetes")
    }

    /// Starts the watches for all namespaces together.
    fn shared(&self, out: &mpsc::Sender<Message>, tasks: &mut JoinSet<()>) -> Vec<Resource> {
        let resources = self.config.clusterwide();
        for &resource in &resources {
            self.watch(resource, CLUSTER, "", out, tasks);
        }
        resources
    }

    fn watch(
        &self,
        resource: Resource,
        scope: usize,
        namespace: &str,
        out: &mpsc::Sender<Message>,
        tasks: &mut JoinSet<()>,
    ) {
        let selector = self.config.selectors.iter().find(|selector| selector.resource == resource);
        let reflector = Reflector {
            connector: Arc::clone(&self.connector),
            resource,
            scope,
            namespace: namespace.to_owned(),
            label_selector: selector.map(|selector| selector.label.clone()).unwrap_or_default(),
            field_selector: selector.map(|selector| selector.field.clone()).unwrap_or_default(),
            metrics: self.metrics.kubernetes.clone(),
            trouble: self.trouble(),
            out: out.clone(),
        };
        tasks.spawn(reflector.run().in_current_span());
    }

    /// Takes in changes and sends what they make of the targets.
    async fn follow(&self, mut store: Store, mut changes: mpsc::Receiver<Message>, sender: &GroupSender) {
        // What was sent, by source: an object may change without its targets.
        let mut sent: BTreeMap<String, u64> = BTreeMap::new();
        let mut batch = Vec::new();
        let mut has_spoken = false;
        while changes.recv_many(&mut batch, BATCH_MAX).await > 0 {
            for message in batch.drain(..) {
                store.apply(message, &self.metrics.kubernetes);
            }
            let groups: Vec<TargetGroup> =
                store.touched().into_iter().filter(|group| is_news(group, &mut sent)).collect();
            // That there is nothing is worth knowing too, once.
            if groups.is_empty() && (has_spoken || !store.is_complete()) {
                continue;
            }
            has_spoken = true;
            if sender.send(groups).await.is_err() {
                return;
            }
        }
    }
}

/// Whether `group` differs from what was sent before; notes it.
fn is_news(group: &TargetGroup, sent: &mut BTreeMap<String, u64>) -> bool {
    if group.targets.is_empty() {
        return sent.remove(&group.source).is_some();
    }
    let mut hashes = vec![group.labels.hash64()];
    hashes.extend(group.targets.iter().map(model::Labels::hash64));
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
    sent.insert(group.source.clone(), hash) != Some(hash)
}
