//! What of Kubernetes' objects counts here: only the fields that become labels, so that a heartbeat in a node's status or
//! a change of somebody's managed fields is no change. Field names are those of the API (`v1`, `discovery.k8s.io/v1`,
//! `networking.k8s.io/v1`, `apps/v1`, `batch/v1`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The server writes `null` for empty lists and maps it knows.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Namespace (empty for objects of the cluster) and name.
pub(super) type Key = (String, String);

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ObjectMeta {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) owner_references: Vec<OwnerReference>,
    /// Taken out when the object is stored: it is different with every write.
    pub(super) resource_version: String,
}

impl ObjectMeta {
    pub(super) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// Who made it: a `ReplicaSet`, a `Job`, ….
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct OwnerReference {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) controller: Option<bool>,
}

/// A namespace, replica set or job: who it is and whose.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Other {
    pub(super) metadata: ObjectMeta,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Node {
    pub(super) metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub(super) spec: NodeSpec,
    #[serde(deserialize_with = "nullable")]
    pub(super) status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct NodeSpec {
    #[serde(rename = "providerID")]
    pub(super) provider_id: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub(super) addresses: Vec<NodeAddress>,
    #[serde(deserialize_with = "nullable")]
    pub(super) daemon_endpoints: DaemonEndpoints,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct NodeAddress {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) address: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct DaemonEndpoints {
    #[serde(deserialize_with = "nullable")]
    pub(super) kubelet_endpoint: KubeletEndpoint,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct KubeletEndpoint {
    #[serde(rename = "Port")]
    pub(super) port: i64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Service {
    pub(super) metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub(super) spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<ServicePort>,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: String,
    #[serde(rename = "externalName")]
    pub(super) external_name: String,
    #[serde(rename = "loadBalancerIP")]
    pub(super) load_balancer_ip: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct ServicePort {
    pub(super) name: String,
    pub(super) port: i64,
    pub(super) protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub(super) spec: PodSpec,
    #[serde(deserialize_with = "nullable")]
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(super) init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerPort {
    pub(super) name: String,
    pub(super) container_port: i64,
    pub(super) protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    #[serde(rename = "podIP")]
    pub(super) pod_ip: String,
    #[serde(rename = "hostIP")]
    pub(super) host_ip: String,
    pub(super) phase: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) conditions: Vec<PodCondition>,
    #[serde(deserialize_with = "nullable")]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct PodCondition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Endpoints {
    pub(super) metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub(super) subsets: Vec<EndpointSubset>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSubset {
    #[serde(deserialize_with = "nullable")]
    pub(super) addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "nullable")]
    pub(super) not_ready_addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointAddress {
    pub(super) ip: String,
    pub(super) hostname: String,
    pub(super) node_name: Option<String>,
    pub(super) target_ref: Option<ObjectReference>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct ObjectReference {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
}

impl ObjectReference {
    /// The pod it names, if it names one.
    pub(super) fn pod(&self) -> Option<Key> {
        (self.kind == "Pod").then(|| (self.namespace.clone(), self.name.clone()))
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    pub(super) metadata: ObjectMeta,
    pub(super) address_type: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) endpoints: Vec<SliceEndpoint>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<SlicePort>,
}

/// The label of slices that says whose they are.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl EndpointSlice {
    /// The service it belongs to.
    pub(super) fn service(&self) -> Option<&str> {
        self.metadata.labels.get(SERVICE_NAME_LABEL).map(String::as_str)
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SliceEndpoint {
    #[serde(deserialize_with = "nullable")]
    pub(super) addresses: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) conditions: SliceConditions,
    pub(super) hostname: Option<String>,
    pub(super) target_ref: Option<ObjectReference>,
    #[serde(deserialize_with = "nullable")]
    pub(super) deprecated_topology: BTreeMap<String, String>,
    pub(super) node_name: Option<String>,
    pub(super) zone: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct SliceConditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SlicePort {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) port: Option<i64>,
    pub(super) app_protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Ingress {
    pub(super) metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub(super) spec: IngressSpec,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct IngressSpec {
    pub(super) ingress_class_name: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) tls: Vec<IngressTls>,
    #[serde(deserialize_with = "nullable")]
    pub(super) rules: Vec<IngressRule>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct IngressTls {
    #[serde(deserialize_with = "nullable")]
    pub(super) hosts: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct IngressRule {
    pub(super) host: String,
    pub(super) http: Option<IngressHttp>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct IngressHttp {
    #[serde(deserialize_with = "nullable")]
    pub(super) paths: Vec<IngressPath>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct IngressPath {
    pub(super) path: String,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub(super) struct ListPage<T> {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    // An answer without it is no list.
    #[serde(deserialize_with = "nullable")]
    pub(super) items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    /// Where the next page starts.
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// A line of a watch, first look.
#[derive(Debug, Deserialize)]
pub(super) struct EventKind {
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Event<T> {
    pub(super) object: T,
}

/// What the server says when it refuses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) reason: String,
    pub(super) code: u16,
}

/// What is listed and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Resource {
    Node,
    Service,
    Pod,
    Endpoints,
    EndpointSlice,
    Ingress,
    Namespace,
    ReplicaSet,
    Job,
}

impl Resource {
    /// Group and version, as in paths.
    fn group(self) -> &'static str {
        match self {
            Self::Node | Self::Service | Self::Pod | Self::Endpoints | Self::Namespace => "api/v1",
            Self::EndpointSlice => "apis/discovery.k8s.io/v1",
            Self::Ingress => "apis/networking.k8s.io/v1",
            Self::ReplicaSet => "apis/apps/v1",
            Self::Job => "apis/batch/v1",
        }
    }

    /// The name of all of them, as in paths.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Service => "services",
            Self::Pod => "pods",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslices",
            Self::Ingress => "ingresses",
            Self::Namespace => "namespaces",
            Self::ReplicaSet => "replicasets",
            Self::Job => "jobs",
        }
    }

    /// The word in metrics and in `selectors`.
    pub(super) fn role(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Pod => "pod",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslice",
            Self::Ingress => "ingress",
            Self::Namespace => "namespace",
            Self::ReplicaSet => "replicaset",
            Self::Job => "job",
        }
    }

    /// Where it is listed: of one namespace, or of all with an empty one.
    pub(super) fn path(self, namespace: &str) -> String {
        if namespace.is_empty() || matches!(self, Self::Node | Self::Namespace) {
            format!("{}/{}", self.group(), self.plural())
        } else {
            format!("{}/namespaces/{namespace}/{}", self.group(), self.plural())
        }
    }

    /// A page of a list.
    pub(super) fn list(self, json: &[u8]) -> Result<(ListMeta, Vec<Object>), serde_json::Error> {
        fn page<T: for<'de> Deserialize<'de>>(
            json: &[u8],
            wrap: impl Fn(Box<T>) -> Object,
        ) -> Result<(ListMeta, Vec<Object>), serde_json::Error> {
            let page: ListPage<T> = serde_json::from_slice(json)?;
            let objects = page.items.into_iter().map(|item| wrap(Box::new(item)).stored().0).collect();
            Ok((page.metadata, objects))
        }
        match self {
            Self::Node => page(json, Object::Node),
            Self::Service => page(json, Object::Service),
            Self::Pod => page(json, Object::Pod),
            Self::Endpoints => page(json, Object::Endpoints),
            Self::EndpointSlice => page(json, Object::EndpointSlice),
            Self::Ingress => page(json, Object::Ingress),
            Self::Namespace | Self::ReplicaSet | Self::Job => page(json, Object::Other),
        }
    }

    /// The object of a line of a watch, and its version.
    pub(super) fn event(self, json: &[u8]) -> Result<(Object, String), serde_json::Error> {
        fn object<T: for<'de> Deserialize<'de>>(
            json: &[u8],
            wrap: impl Fn(Box<T>) -> Object,
        ) -> Result<(Object, String), serde_json::Error> {
            let event: Event<T> = serde_json::from_slice(json)?;
            Ok(wrap(Box::new(event.object)).stored())
        }
        match self {
            Self::Node => object(json, Object::Node),
            Self::Service => object(json, Object::Service),
            Self::Pod => object(json, Object::Pod),
            Self::Endpoints => object(json, Object::Endpoints),
            Self::EndpointSlice => object(json, Object::EndpointSlice),
            Self::Ingress => object(json, Object::Ingress),
            Self::Namespace | Self::ReplicaSet | Self::Job => object(json, Object::Other),
        }
    }
}

/// Any object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    Node(Box<Node>),
    Service(Box<Service>),
    Pod(Box<Pod>),
    Endpoints(Box<Endpoints>),
    EndpointSlice(Box<EndpointSlice>),
    Ingress(Box<Ingress>),
    Other(Box<Other>),
}

impl Object {
    pub(super) fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Node(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Endpoints(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Ingress(object) => &object.metadata,
            Self::Other(object) => &object.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Node(object) => &mut object.metadata,
            Self::Service(object) => &mut object.metadata,
            Self::Pod(object) => &mut object.metadata,
            Self::Endpoints(object) => &mut object.metadata,
            Self::EndpointSlice(object) => &mut object.metadata,
            Self::Ingress(object) => &mut object.metadata,
            Self::Other(object) => &mut object.metadata,
        }
    }

    /// The object as it is stored, and its version.
    fn stored(mut self) -> (Self, String) {
        let version = std::mem::take(&mut self.meta_mut().resource_version);
        (self, version)
    }

    /// Pods it speaks of.
    pub(super) fn pods(&self) -> Vec<Key> {
        let named = |target: &Option<ObjectReference>| target.as_ref().and_then(ObjectReference::pod);
        match self {
            Self::Endpoints(object) => {
                let addresses = |set: &EndpointSubset| {
                    set.addresses
                        .iter()
                        .chain(&set.not_ready_addresses)
                        .filter_map(|a| named(&a.target_ref))
                        .collect::<Vec<_>>()
                };
                object.subsets.iter().flat_map(addresses).collect()
            }
            Self::EndpointSlice(object) => {
                object.endpoints.iter().filter_map(|endpoint| named(&endpoint.target_ref)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Nodes it speaks of.
    pub(super) fn nodes(&self) -> Vec<String> {
        match self {
            Self::Pod(pod) => vec![pod.spec.node_name.clone()],
            Self::Endpoints(object) => {
                let addresses = object
                    .subsets
                    .iter()
                    .flat_map(|set| set.addresses.iter().chain(&set.not_ready_addresses));
                addresses.filter_map(|address| address.node_name.clone()).collect()
            }
            Self::EndpointSlice(object) => object.endpoints.iter().filter_map(slice_node).cloned().collect(),
            _ => Vec::new(),
        }
    }
}

/// The node an endpoint of a slice is on, or is.
pub(super) fn slice_node(endpoint: &SliceEndpoint) -> Option<&String> {
    match &endpoint.target_ref {
        Some(target) if target.kind == "Node" => Some(&target.name),
        _ => endpoint.node_name.as_ref(),
    }
}
