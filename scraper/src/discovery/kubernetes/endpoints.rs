//! Targets of the roles `endpoints` and `endpointslice`: addresses behind services, with what is known of the pods, nodes
//! and services around them, and the ports of those pods that no service names.

use std::collections::BTreeMap;

use super::super::TargetGroup;
use super::super::client::join_host_port;
use super::labels::{Meta, NAMESPACE, containers};
use super::objects::{
    EndpointAddress, EndpointSlice, Endpoints, Key, Node, ObjectMeta, Pod, Service, ServicePort,
    SliceEndpoint, SlicePort, slice_node,
};
use super::targets::source;

/// Looks up what an endpoint refers to.
pub(super) trait Surroundings {
    /// A pod.
    fn pod(&self, key: &Key) -> Option<&Pod>;
    /// A service.
    fn service(&self, key: &Key) -> Option<&Service>;
    /// A node, when nodes are attached.
    fn node(&self, name: &str) -> Option<&Node>;
    /// A namespace, when namespaces are attached.
    fn namespace(&self, name: &str) -> Option<&ObjectMeta>;
}

/// Pods met so far and which of their ports have targets.
type Seen<'a> = BTreeMap<Key, (&'a Pod, Vec<i64>)>;

/// Targets of an `Endpoints` object.
pub(super) fn endpoints(endpoints: &Endpoints, around: &impl Surroundings) -> TargetGroup {
    let key = endpoints.metadata.key();
    let mut labels = Meta::default();
    labels.plain(NAMESPACE, &key.0);
    if let Some(service) = around.service(&key) {
        labels.service(service);
    }
    labels.object(&endpoints.metadata, "endpoints").namespace_of(around.namespace(&key.0));
    let mut seen = Seen::new();
    let mut targets = Vec::new();
    for subset in &endpoints.subsets {
        for port in &subset.ports {
            let ready = subset.addresses.iter().map(|address| (address, true));
            for (address, ready) in ready.chain(subset.not_ready_addresses.iter().map(|a| (a, false))) {
                targets.push(endpoint(address, port, ready, around, &mut seen));
            }
        }
    }
    leftover_ports(&seen, |_| true, &mut targets);
    TargetGroup {
        source: source("endpoints", &key),
        targets: targets.iter().map(Meta::build).collect(),
        labels: labels.build(),
    }
}

fn endpoint<'a>(
    address: &EndpointAddress,
    port: &ServicePort,
    ready: bool,
    around: &'a impl Surroundings,
    seen: &mut Seen<'a>,
) -> Meta {
    let mut target = Meta::default();
    target
        .address(join_host_port(&address.ip, port.port))
        .set("endpoint_port_name", &port.name)
        .set("endpoint_port_protocol", &port.protocol)
        .set("endpoint_ready", ready.to_string())
        .set_some("endpoint_address_target_kind", address.target_ref.as_ref().map(|target| &target.kind))
        .set_some("endpoint_address_target_name", address.target_ref.as_ref().map(|target| &target.name))
        .set_some("endpoint_node_name", address.node_name.as_ref())
        .set("endpoint_hostname", &address.hostname)
        .node_of(address.node_name.as_deref().and_then(|name| around.node(name)));
    let pod = address.target_ref.as_ref().and_then(|target| around.pod(&target.pod()?));
    if let Some(pod) = pod {
        add_pod(&mut target, pod, Some((port.port, Some(&port.protocol))), seen);
    }
    target
}

/// Targets of an `EndpointSlice` object.
pub(super) fn endpoint_slice(slice: &EndpointSlice, around: &impl Surroundings) -> TargetGroup {
    let key = slice.metadata.key();
    let mut labels = Meta::default();
    labels
        .plain(NAMESPACE, &key.0)
        .set("endpointslice_address_type", &slice.address_type)
        .object(&slice.metadata, "endpointslice");
    if let Some(service) = slice.service().and_then(|name| around.service(&(key.0.clone(), name.to_owned())))
    {
        labels.service(service);
    }
    labels.namespace_of(around.namespace(&key.0));
    let mut seen = Seen::new();
    let mut targets = Vec::new();
    for endpoint in &slice.endpoints {
        for port in &slice.ports {
            for address in &endpoint.addresses {
                targets.push(slice_endpoint(address, endpoint, port, around, &mut seen));
            }
        }
    }
    // A service with addresses of both families has a slice for each: only one of them may have the pod's other ports.
    let is_family = |pod: &Pod| match slice.address_type.as_str() {
        "IPv4" => !pod.status.pod_ip.contains(':'),
        "IPv6" => pod.status.pod_ip.contains(':'),
        _ => true,
    };
    leftover_ports(&seen, is_family, &mut targets);
    TargetGroup {
        source: source("endpointslice", &key),
        targets: targets.iter().map(Meta::build).collect(),
        labels: labels.build(),
    }
}

fn slice_endpoint<'a>(
    address: &str,
    endpoint: &SliceEndpoint,
    port: &SlicePort,
    around: &'a impl Surroundings,
    seen: &mut Seen<'a>,
) -> Meta {
    let mut target = Meta::default();
    target
        .address(port.port.map_or_else(|| address.to_owned(), |port| join_host_port(address, port)))
        .set_some("endpointslice_port_name", port.name.as_ref())
        .set_some("endpointslice_port_protocol", port.protocol.as_ref())
        .set_some("endpointslice_port", port.port)
        .set_some("endpointslice_port_app_protocol", port.app_protocol.as_ref())
        .set_some("endpointslice_endpoint_conditions_ready", endpoint.conditions.ready)
        .set_some("endpointslice_endpoint_conditions_serving", endpoint.conditions.serving)
        .set_some("endpointslice_endpoint_conditions_terminating", endpoint.conditions.terminating)
        .set_some("endpointslice_endpoint_hostname", endpoint.hostname.as_ref())
        .set_some(
            "endpointslice_address_target_kind",
            endpoint.target_ref.as_ref().map(|target| &target.kind),
        )
        .set_some(
            "endpointslice_address_target_name",
            endpoint.target_ref.as_ref().map(|target| &target.name),
        )
        .set_some("endpointslice_endpoint_node_name", endpoint.node_name.as_ref())
        .set_some("endpointslice_endpoint_zone", endpoint.zone.as_ref());
    for (name, value) in &endpoint.deprecated_topology {
        let name = super::super::client::sanitize_label_name(name);
        target
            .set(&format!("endpointslice_endpoint_topology_{name}"), value)
            .set(&format!("endpointslice_endpoint_topology_present_{name}"), "true");
    }
    target.node_of(slice_node(endpoint).and_then(|name| around.node(name)));
    let pod = endpoint.target_ref.as_ref().and_then(|target| around.pod(&target.pod()?));
    if let Some(pod) = pod {
        add_pod(&mut target, pod, port.port.map(|port| (port, None)), seen);
    }
    target
}

/// Adds what is known of the pod behind an endpoint, and of its container that has the endpoint's port. `port` is its
/// number, and its protocol where the endpoint's counts, not the container's.
fn add_pod<'a>(target: &mut Meta, pod: &'a Pod, port: Option<(i64, Option<&str>)>, seen: &mut Seen<'a>) {
    let (_, ports) = seen.entry(pod.metadata.key()).or_insert_with(|| (pod, Vec::new()));
    target.pod(pod);
    let Some((number, protocol)) = port else { return };
    ports.push(number);
    for (container, is_init) in containers(pod) {
        if let Some(port) = container.ports.iter().find(|port| port.container_port == number) {
            target.container(container, is_init).container_port(
                &port.name,
                number,
                protocol.unwrap_or(&port.protocol),
            );
        }
    }
}

/// Targets for the ports of pods met that no endpoint has.
fn leftover_ports(seen: &Seen<'_>, wanted: impl Fn(&Pod) -> bool, targets: &mut Vec<Meta>) {
    for (pod, known) in seen.values() {
        if pod.status.pod_ip.is_empty() || !wanted(pod) {
            continue;
        }
        for (container, is_init) in containers(pod) {
            for port in container.ports.iter().filter(|port| !known.contains(&port.container_port)) {
                let mut target = Meta::default();
                target
                    .address(join_host_port(&pod.status.pod_ip, port.container_port))
                    .container(container, is_init)
                    .container_port(&port.name, port.container_port, &port.protocol)
                    .pod(pod);
                targets.push(target);
            }
        }
    }
}
