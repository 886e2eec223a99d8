//! From objects to target groups, a role each. Names, addresses and corners are those of Prometheus.

use super::super::TargetGroup;
use super::super::client::{join_host_port, sanitize_label_name};
use super::labels::{Meta, containers};
use super::objects::{ContainerStatus, Ingress, Key, Node, ObjectMeta, Pod, Service};

/// Types of node addresses, best first.
const NODE_ADDRESSES: [&str; 6] =
    ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];

/// The group of an object has this source, also when the object has gone.
pub(super) fn source(role: &str, key: &Key) -> String {
    match role {
        "node" => format!("node/{}", key.1),
        "service" => format!("svc/{}/{}", key.0, key.1),
        _ => format!("{role}/{}/{}", key.0, key.1),
    }
}

/// A node: its kubelet. `None`: it has no address, and what was known of it before stays.
pub(super) fn node(node: &Node) -> Option<TargetGroup> {
    let of_kind = |kind: &str| node.status.addresses.iter().find(|address| address.kind == kind);
    let best = NODE_ADDRESSES.iter().find_map(|kind| of_kind(kind))?;
    let mut labels = Meta::default();
    labels.set("node_provider_id", &node.spec.provider_id).object(&node.metadata, "node");
    let mut target = Meta::default();
    target
        .address(join_host_port(&best.address, node.status.daemon_endpoints.kubelet_endpoint.port))
        .plain("instance", &node.metadata.name);
    // The first of each type.
    for address in node.status.addresses.iter().rev() {
        target.set(&format!("node_address_{}", sanitize_label_name(&address.kind)), &address.address);
    }
    Some(TargetGroup {
        source: source("node", &node.metadata.key()),
        targets: vec![target.build()],
        labels: labels.build(),
    })
}

/// A service: each of its ports.
pub(super) fn service(service: &Service, namespace: Option<&ObjectMeta>) -> TargetGroup {
    let mut labels = Meta::default();
    labels.service(service).namespace_of(namespace);
    let (meta, spec) = (&service.metadata, &service.spec);
    let targets = spec.ports.iter().map(|port| {
        let mut target = Meta::default();
        target
            .address(join_host_port(&format!("{}.{}.svc", meta.name, meta.namespace), port.port))
            .set("service_port_name", &port.name)
            .set("service_port_number", port.port.to_string())
            .set("service_port_protocol", &port.protocol)
            .set("service_type", &spec.kind);
        if spec.kind == "ExternalName" {
            target.set("service_external_name", &spec.external_name);
        } else {
            target.set("service_cluster_ip", &spec.cluster_ip);
        }
        if spec.kind == "LoadBalancer" {
            target.set("service_loadbalancer_ip", &spec.load_balancer_ip);
        }
        target.build()
    });
    TargetGroup { source: source("service", &meta.key()), targets: targets.collect(), labels: labels.build() }
}

/// What is known of a pod's surroundings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PodContext<'a> {
    pub(super) node: Option<&'a Node>,
    pub(super) namespace: Option<&'a ObjectMeta>,
    pub(super) deployment: Option<&'a str>,
    pub(super) job: Option<&'a str>,
    pub(super) cron_job: Option<&'a str>,
}

/// A pod: each port of each container, or the container where it has none.
pub(super) fn pod(pod: &Pod, context: PodContext<'_>) -> TargetGroup {
    let source = source("pod", &pod.metadata.key());
    let ip = &pod.status.pod_ip;
    if ip.is_empty() {
        // Not started yet, or evicted.
        return TargetGroup { source, ..TargetGroup::default() };
    }
    let mut labels = Meta::default();
    labels
        .pod(pod)
        .plain(super::labels::NAMESPACE, &pod.metadata.namespace)
        .set_some("pod_deployment_name", context.deployment)
        .set_some("pod_job_name", context.job)
        .set_some("pod_cronjob_name", context.cron_job)
        .node_of(context.node)
        .namespace_of(context.namespace);
    let mut targets = Vec::new();
    for (container, is_init) in containers(pod) {
        let statuses =
            if is_init { &pod.status.init_container_statuses } else { &pod.status.container_statuses };
        let mut base = Meta::default();
        base.container(container, is_init).set("pod_container_id", container_id(statuses, &container.name));
        if container.ports.is_empty() {
            targets.push(base.address(ip).build());
            continue;
        }
        for port in &container.ports {
            let mut target = base.clone();
            target.address(join_host_port(ip, port.container_port)).container_port(
                &port.name,
                port.container_port,
                &port.protocol,
            );
            targets.push(target.build());
        }
    }
    TargetGroup { source, targets, labels: labels.build() }
}

fn container_id<'a>(statuses: &'a [ContainerStatus], name: &str) -> &'a str {
    statuses.iter().find(|status| status.name == name).map_or("", |status| &status.container_id)
}

/// An ingress: each path of each host.
pub(super) fn ingress(ingress: &Ingress, namespace: Option<&ObjectMeta>) -> TargetGroup {
    let mut labels = Meta::default();
    labels
        .object(&ingress.metadata, "ingress")
        .plain(super::labels::NAMESPACE, &ingress.metadata.namespace)
        .set_some("ingress_class_name", ingress.spec.ingress_class_name.as_ref())
        .namespace_of(namespace);
    let mut targets = Vec::new();
    for rule in &ingress.spec.rules {
        let mut hosts = ingress.spec.tls.iter().flat_map(|tls| &tls.hosts);
        let scheme = if hosts.any(|pattern| host_matches(pattern, &rule.host)) { "https" } else { "http" };
        let paths: Vec<&str> = match &rule.http {
            None => vec!["/"],
            Some(http) => http.paths.iter().map(|path| path.path.as_str()).collect(),
        };
        for path in paths {
            let mut target = Meta::default();
            target
                .address(&rule.host)
                .set("ingress_scheme", scheme)
                .set("ingress_host", &rule.host)
                .set("ingress_path", if path.is_empty() { "/" } else { path });
            targets.push(target.build());
        }
    }
    TargetGroup { source: source("ingress", &ingress.metadata.key()), targets, labels: labels.build() }
}

/// Whether `pattern` (`*.example.com`: one name in place of the star) is the host or stands for it.
fn host_matches(pattern: &str, host: &str) -> bool {
    if pattern == host {
        return true;
    }
    match (pattern.split_once('.'), host.split_once('.')) {
        (Some(("*", pattern)), Some((_, host))) => pattern == host,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_name() {
        assert!(host_matches("a.example.com", "a.example.com"));
        assert!(host_matches("*.example.com", "a.example.com"));
        assert!(!host_matches("*.example.com", "example.com"));
        assert!(!host_matches("*.example.com", "a.b.example.com"));
        assert!(!host_matches("*.example.com", ""));
    }
}
