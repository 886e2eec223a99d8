//! Labels that several roles share.

use std::collections::BTreeMap;

use model::{Labels, LabelsBuilder};

use super::super::client::sanitize_label_name;
use super::objects::{Container, Node, ObjectMeta, Pod, Service};

pub(super) const NAMESPACE: &str = "__meta_kubernetes_namespace";
pub(super) const ADDRESS: &str = "__address__";
const PREFIX: &str = "__meta_kubernetes_";

/// Labels being gathered; `set` takes the name without `__meta_kubernetes_`.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta(LabelsBuilder);

impl Meta {
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.0.set(format!("{PREFIX}{name}"), value);
        self
    }

    pub(super) fn set_some(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.set(name, value.to_string());
        }
        self
    }

    pub(super) fn address(&mut self, address: impl Into<String>) -> &mut Self {
        self.0.set(ADDRESS, address);
        self
    }

    pub(super) fn plain(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.set(name, value);
        self
    }

    /// Name, labels and annotations of an object.
    pub(super) fn object(&mut self, meta: &ObjectMeta, role: &str) -> &mut Self {
        self.set(&format!("{role}_name"), &meta.name);
        self.marks(role, "label", &meta.labels).marks(role, "annotation", &meta.annotations)
    }

    /// Labels or annotations of an object, and for each that it is there.
    pub(super) fn marks(&mut self, role: &str, what: &str, marks: &BTreeMap<String, String>) -> &mut Self {
        for (name, value) in marks {
            let name = sanitize_label_name(name);
            self.set(&format!("{role}_{what}_{name}"), value);
            self.set(&format!("{role}_{what}present_{name}"), "true");
        }
        self
    }

    /// What `attach_metadata: {namespace: true}` adds.
    pub(super) fn namespace_of(&mut self, namespace: Option<&ObjectMeta>) -> &mut Self {
        if let Some(meta) = namespace {
            self.marks("namespace", "label", &meta.labels).marks(
                "namespace",
                "annotation",
                &meta.annotations,
            );
        }
        self
    }

    /// What `attach_metadata: {node: true}` adds.
    pub(super) fn node_of(&mut self, node: Option<&Node>) -> &mut Self {
        if let Some(node) = node {
            self.set("node_name", &node.metadata.name).marks("node", "label", &node.metadata.labels);
        }
        self
    }

    pub(super) fn service(&mut self, service: &Service) -> &mut Self {
        self.plain(NAMESPACE, &service.metadata.namespace).object(&service.metadata, "service")
    }

    pub(super) fn pod(&mut self, pod: &Pod) -> &mut Self {
        let ready = pod.status.conditions.iter().find(|condition| condition.kind == "Ready");
        self.set("pod_ip", &pod.status.pod_ip)
            .set("pod_ready", ready.map_or_else(|| "unknown".to_owned(), |ready| ready.status.to_lowercase()))
            .set("pod_phase", &pod.status.phase)
            .set("pod_node_name", &pod.spec.node_name)
            .set("pod_host_ip", &pod.status.host_ip)
            .set("pod_uid", &pod.metadata.uid)
            .object(&pod.metadata, "pod");
        if let Some(owner) = pod.metadata.controller() {
            self.set("pod_controller_kind", &owner.kind).set("pod_controller_name", &owner.name);
        }
        self
    }

    /// Name and image of a container.
    pub(super) fn container(&mut self, container: &Container, is_init: bool) -> &mut Self {
        self.set("pod_container_name", &container.name)
            .set("pod_container_image", &container.image)
            .set("pod_container_init", is_init.to_string())
    }

    /// A port of a container.
    pub(super) fn container_port(&mut self, name: &str, number: i64, protocol: &str) -> &mut Self {
        self.set("pod_container_port_name", name)
            .set("pod_container_port_number", number.to_string())
            .set("pod_container_port_protocol", protocol)
    }

    pub(super) fn build(&self) -> Labels {
        self.0.build()
    }
}

/// All containers of a pod, with whether they are init containers (sidecars among them).
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let plain = pod.spec.containers.iter().map(|container| (container, false));
    plain.chain(pod.spec.init_containers.iter().map(|container| (container, true)))
}
