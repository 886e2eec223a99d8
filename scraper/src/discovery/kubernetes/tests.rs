use std::path::Path;

use model::{ConfigPath, Labels};
use serde_json::{Value, json};

use super::super::testing::{Running, context, eventually};
use super::access::ServiceAccount;
use super::fake_api::FakeApi;
use super::*;

fn config(api: &FakeApi, rest: &str) -> KubernetesSdConfig {
    let yaml = format!("{{api_server: 'http://{}', {rest}}}", api.address);
    let raw: RawKubernetesSdConfig = serde_yaml::from_str(&yaml).unwrap();
    raw.build(&ConfigPath::root(), Path::new("")).unwrap()
}

/// What keeps the job from its targets.
fn troubles(metrics: &SdMetrics) -> Vec<String> {
    let troubles = metrics.troubles("job");
    assert!(troubles.iter().all(|trouble| trouble.kind == "kubernetes"));
    troubles.into_iter().map(|trouble| trouble.error).collect()
}

/// `name=value` of all labels, without `__meta_kubernetes_`.
fn shown(labels: &Labels) -> Vec<String> {
    labels
        .iter()
        .map(|(name, value)| format!("{}={value}", name.strip_prefix("__meta_kubernetes_").unwrap_or(name)))
        .collect()
}

fn pod(namespace: &str, name: &str, ip: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": "u1",
            "labels": {"app.kubernetes.io/name": "web"}, "annotations": {"a": "b"},
            "managedFields": [{"x": 1}],
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true, "uid": "r"}],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [
                {"name": "main", "image": "web:1", "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ]},
                {"name": "side", "image": "side:1"},
            ],
            "initContainers": [{"name": "init", "image": "init:1", "ports": null}],
        },
        "status": {
            "podIP": ip, "hostIP": "10.0.0.1", "phase": "Running",
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "containerID": "docker://a"}],
            "initContainerStatuses": [{"name": "init", "containerID": "docker://b"}],
        },
    })
}

fn node(name: &str, zone: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"zone": zone}, "annotations": {"k": "v"}},
        "spec": {"providerID": "aws:///i-1"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "host"}, {"type": "ExternalIP", "address": "1.2.3.4"},
                {"type": "InternalIP", "address": "fd00::1"}, {"type": "InternalIP", "address": "10.0.0.1"},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    })
}

#[tokio::test]
async fn pods_have_their_labels_and_those_around_them() {
    let api = FakeApi::start().await;
    api.put("pods", pod("ns", "web-1-x", "10.1.0.1"));
    api.put("pods", pod("ns", "starting", ""));
    api.put("nodes", node("n1", "a"));
    api.put("namespaces", json!({"metadata": {"name": "ns", "labels": {"team": "t"}}}));
    let owned = json!([{"kind": "Deployment", "name": "web", "controller": true}]);
    api.put(
        "replicasets",
        json!({"metadata": {"name": "web-1", "namespace": "ns", "ownerReferences": owned}}),
    );
    let attach = "{node: true, namespace: true, deployment: true, job: true, cronjob: true}";
    let mut running = Running::start(&config(&api, &format!("role: pod, attach_metadata: {attach}")));
    running.until(|running| !running.groups.is_empty()).await;
    let targets = running.targets();
    assert_eq!(targets.len(), 4);
    let common = [
        "namespace=ns",
        "namespace_label_team=t",
        "namespace_labelpresent_team=true",
        "node_label_zone=a",
        "node_labelpresent_zone=true",
        "node_name=n1",
        "pod_annotation_a=b",
        "pod_annotationpresent_a=true",
    ];
    let after = [
        "pod_controller_kind=ReplicaSet",
        "pod_controller_name=web-1",
        "pod_deployment_name=web",
        "pod_host_ip=10.0.0.1",
        "pod_ip=10.1.0.1",
        "pod_label_app_kubernetes_io_name=web",
        "pod_labelpresent_app_kubernetes_io_name=true",
        "pod_name=web-1-x",
        "pod_node_name=n1",
        "pod_phase=Running",
        "pod_ready=true",
        "pod_uid=u1",
    ];
    let containers: [&[&str]; 4] = [
        &[
            "pod_container_id=docker://a",
            "pod_container_image=web:1",
            "pod_container_init=false",
            "pod_container_name=main",
            "pod_container_port_name=http",
            "pod_container_port_number=8080",
            "pod_container_port_protocol=TCP",
        ],
        &[
            "pod_container_id=docker://a",
            "pod_container_image=web:1",
            "pod_container_init=false",
            "pod_container_name=main",
            "pod_container_port_name=dns",
            "pod_container_port_number=53",
            "pod_container_port_protocol=UDP",
        ],
        &["pod_container_image=side:1", "pod_container_init=false", "pod_container_name=side"],
        &[
            "pod_container_id=docker://b",
            "pod_container_image=init:1",
            "pod_container_init=true",
            "pod_container_name=init",
        ],
    ];
    let addresses = ["10.1.0.1:8080", "10.1.0.1:53", "10.1.0.1", "10.1.0.1"];
    for ((target, container), address) in targets.iter().zip(containers).zip(addresses) {
        let mut expected = vec![format!("__address__={address}")];
        expected.extend(common.iter().chain(container).chain(&after).map(|text| (*text).to_owned()));
        assert_eq!(shown(target), expected);
    }
    assert_eq!(running.groups.keys().next().unwrap(), "pod/ns/web-1-x");

    // What is around a pod changes.
    api.put("nodes", node("n1", "b"));
    running.until(|running| running.targets()[0].value("__meta_kubernetes_node_label_zone") == "b").await;
    api.put("namespaces", json!({"metadata": {"name": "ns", "labels": {"team": "u"}}}));
    running
        .until(|running| running.targets()[0].value("__meta_kubernetes_namespace_label_team") == "u")
        .await;
    let owned = json!([{"kind": "CronJob", "name": "nightly", "controller": true}]);
    api.put("jobs", json!({"metadata": {"name": "nightly-1", "namespace": "ns", "ownerReferences": owned}}));
    let mut of_job = pod("ns", "web-1-x", "10.1.0.1");
    of_job["metadata"]["ownerReferences"] = json!([{"kind": "Job", "name": "nightly-1", "controller": true}]);
    api.put("pods", of_job);
    running
        .until(|running| running.targets()[0].value("__meta_kubernetes_pod_cronjob_name") == "nightly")
        .await;
    assert_eq!(running.targets()[0].value("__meta_kubernetes_pod_job_name"), "nightly-1");
    assert!(!running.targets()[0].has("__meta_kubernetes_pod_deployment_name"));
}

#[tokio::test]
async fn pods_come_change_and_go_and_what_does_not_count_is_silent() {
    let api = FakeApi::start().await;
    for index in 0..5 {
        api.put("pods", pod("ns", &format!("p{index}"), &format!("10.1.0.{index}")));
    }
    let mut running = Running::start(&config(&api, "role: pod"));
    running.until(|running| running.groups.len() == 5).await;
    eventually("a watch", || api.watches("pods") == 1).await;
    let first = &api.asked()[0];
    assert_eq!((first.path.as_str(), first.query["limit"].as_str()), ("/api/v1/pods", "500"));
    assert_eq!(first.agent, "Nilometer/test");
    assert_eq!(api.asked().len(), 4, "three pages and a watch");

    let mut same = pod("ns", "p1", "10.1.0.1");
    same["metadata"]["managedFields"] = json!([{"x": 2}]);
    api.put("pods", same);
    api.put("pods", pod("ns", "p2", "10.1.0.22"));
    let update = running.next().await;
    assert_eq!(update.len(), 1, "the first change was none: {update:?}");
    assert_eq!(update[0].source, "pod/ns/p2");
    api.put("pods", pod("ns", "p3", ""));
    api.delete("pods", "ns", "p4");
    running.until(|running| running.groups.len() == 3).await;
    let events = |event: &str| running.metrics.kubernetes.events.with_label_values(&["pod", event]).get();
    assert_eq!((events("add"), events("update"), events("delete")), (5, 3, 1));
    assert_eq!(running.metrics.kubernetes.failures.get(), 0);
    assert_eq!(running.metrics.kubernetes.requests.with_label_values(&["200"]).get(), 4);
}

#[tokio::test]
async fn a_watch_goes_on_where_it_ended_and_lists_anew_when_it_cannot() {
    let api = FakeApi::start().await;
    api.put(
        "services",
        json!({"metadata": {"name": "a", "namespace": "ns"}, "spec": {"ports": [{"port": 1}]}}),
    );
    let mut running = Running::start(&config(&api, "role: service"));
    running.until(|running| running.groups.len() == 1).await;
    eventually("a watch", || api.watches("services") == 1).await;

    api.end_watches();
    api.put(
        "services",
        json!({"metadata": {"name": "b", "namespace": "ns"}, "spec": {"ports": [{"port": 1}]}}),
    );
    running.until(|running| running.groups.len() == 2).await;
    assert_eq!((api.lists("services"), api.watches("services")), (1, 2), "nothing was listed anew");

    // While nobody watches, things happen that the server forgets.
    api.refuse(Some((503, "ServiceUnavailable")));
    api.end_watches();
    let failures = || running.metrics.kubernetes.failures.get();
    eventually("a failure", || failures() > 0).await;
    assert_eq!(running.groups.len(), 2);
    api.delete("services", "ns", "a");
    api.forget();
    api.refuse(None);
    running.until(|running| running.groups.len() == 1).await;
    assert_eq!(running.addresses(), ["b.ns.svc:1"]);
    assert_eq!(api.lists("services"), 2);
    assert!(running.metrics.kubernetes.requests.with_label_values(&["410"]).get() > 0);

    // The server may also say so in the watch.
    eventually("a watch", || api.watches("services") >= 4).await;
    let gone =
        json!({"kind": "Status", "metadata": {}, "status": "Failure", "message": "too old", "code": 410});
    api.say("services", &json!({"type": "ERROR", "object": gone}).to_string());
    eventually("a third list", || api.lists("services") == 3).await;
    assert!(!running.has_spoken(), "nothing had changed");
}

#[tokio::test]
async fn that_there_is_nothing_is_said_once_all_is_read() {
    let api = FakeApi::start().await;
    let mut running = Running::start(&config(&api, "role: node"));
    assert!(running.next().await.is_empty(), "no nodes");
    // Known, yet without a target.
    api.put("pods", pod("a", "starting", ""));
    api.forbid("b");
    let rest = "role: pod, namespaces: {names: [a, b]}, attach_metadata: {node: true}";
    let mut running = Running::start(&config(&api, rest));
    eventually("a refusal", || running.metrics.kubernetes.failures.get() > 1).await;
    eventually("a watch of the nodes", || api.watches("nodes") == 2).await;
    assert!(!running.has_spoken(), "who knows what is in b");
    api.forbid("");
    assert!(running.next().await.is_empty(), "no targets");
    api.put("pods", pod("a", "starting", ""));
    api.put("pods", pod("b", "p", "10.1.0.1"));
    let update = running.next().await;
    assert_eq!(update.len(), 1, "nothing is said once only: {update:?}");
    assert_eq!(running.addresses()[0], "10.1.0.1:8080");
}

#[tokio::test]
async fn troubles_last_until_a_list_or_a_watch_works() {
    let api = FakeApi::start().await;
    let ports = json!({"ports": [{"port": 1}]});
    let service = |name: &str| json!({"metadata": {"name": name, "namespace": "ns"}, "spec": ports});
    api.put("services", service("a"));
    let mut running = Running::start(&config(&api, "role: service"));
    running.until(|running| running.groups.len() == 1).await;
    eventually("a watch", || api.watches("services") == 1).await;
    let metrics = Arc::clone(&running.metrics);
    let shown = || troubles(&metrics);
    assert_eq!(shown(), [""; 0]);
    let refused = "cannot read the services, keeping the last targets: 503 ServiceUnavailable: no way";

    // A watch that tells something.
    api.refuse(Some((503, "ServiceUnavailable")));
    api.end_watches();
    eventually("a trouble", || shown() == [refused]).await;
    assert_eq!(running.addresses(), ["a.ns.svc:1"]);
    api.put("services", service("b"));
    api.refuse(None);
    running.until(|running| running.groups.len() == 2).await;
    eventually("no trouble", || shown().is_empty()).await;

    // A watch that has nothing to tell.
    let watches = api.watches("services");
    api.refuse(Some((503, "ServiceUnavailable")));
    api.end_watches();
    eventually("a trouble", || shown() == [refused]).await;
    api.refuse(None);
    eventually("no trouble", || shown().is_empty()).await;
    assert!(api.watches("services") > watches);
    assert!(!running.has_spoken());

    // A list, as the watch's version is forgotten.
    let lists = api.lists("services");
    api.refuse(Some((503, "ServiceUnavailable")));
    api.end_watches();
    eventually("a trouble", || shown() == [refused]).await;
    api.delete("services", "ns", "a");
    api.forget();
    api.refuse(None);
    running.until(|running| running.groups.len() == 1).await;
    assert!(api.lists("services") > lists);
    assert_eq!(shown(), [""; 0]);

    api.refuse(Some((503, "ServiceUnavailable")));
    api.end_watches();
    eventually("a trouble", || shown() == [refused]).await;
    drop(running);
    eventually("no trouble of a job that has gone", || shown().is_empty()).await;
}

#[tokio::test]
async fn lines_that_are_no_events_do_no_harm() {
    let api = FakeApi::start().await;
    let ports = json!({"ports": [{"port": 1}]});
    api.put("services", json!({"metadata": {"name": "a", "namespace": "ns"}, "spec": ports}));
    let mut running = Running::start(&config(&api, "role: service"));
    running.until(|running| running.groups.len() == 1).await;
    eventually("a watch", || api.watches("services") == 1).await;
    let bookmark = json!({"kind": "Service", "metadata": {"resourceVersion": "99", "creationTimestamp": null}, "spec": {}});
    api.say("services", &json!({"type": "BOOKMARK", "object": bookmark}).to_string());
    api.say("services", "\n{\"type\": \"ADDED\", \"object\": 7}");
    eventually("a failure", || running.metrics.kubernetes.failures.get() == 1).await;
    eventually("another watch", || api.watches("services") == 2).await;
    let last = api.asked().pop().unwrap();
    assert_eq!(last.query["resourceVersion"], "99", "the bookmark's version");
    assert_eq!(running.groups.len(), 1);
}

#[tokio::test]
async fn nodes_services_and_ingresses_have_their_labels() {
    let api = FakeApi::start().await;
    api.put("nodes", node("n1", "a"));
    api.put("nodes", json!({"metadata": {"name": "bare"}}));
    let mut running = Running::start(&config(&api, "role: node"));
    running.until(|running| running.groups.len() == 1).await;
    assert_eq!(
        shown(&running.targets()[0]),
        [
            "__address__=[fd00::1]:10250",
            "node_address_ExternalIP=1.2.3.4",
            "node_address_Hostname=host",
            "node_address_InternalIP=fd00::1",
            "node_annotation_k=v",
            "node_annotationpresent_k=true",
            "node_label_zone=a",
            "node_labelpresent_zone=true",
            "node_name=n1",
            "node_provider_id=aws:///i-1",
            "instance=n1",
        ]
    );

    api.put(
        "services",
        json!({
            "metadata": {"name": "lb", "namespace": "ns", "labels": {"l": "1"}},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.2.0.1", "loadBalancerIP": "9.9.9.9",
                     "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        }),
    );
    api.put("services", json!({
        "metadata": {"name": "out", "namespace": "ns"},
        "spec": {"type": "ExternalName", "externalName": "x.org", "ports": [{"port": 1, "protocol": "TCP"}]},
    }));
    let mut running = Running::start(&config(&api, "role: service"));
    running.until(|running| running.groups.len() == 2).await;
    assert_eq!(
        shown(&running.targets()[0]),
        [
            "__address__=lb.ns.svc:80",
            "namespace=ns",
            "service_cluster_ip=10.2.0.1",
            "service_label_l=1",
            "service_labelpresent_l=true",
            "service_loadbalancer_ip=9.9.9.9",
            "service_name=lb",
            "service_port_name=http",
            "service_port_number=80",
            "service_port_protocol=TCP",
            "service_type=LoadBalancer",
        ]
    );
    assert_eq!(
        shown(&running.targets()[1]),
        [
            "__address__=out.ns.svc:1",
            "namespace=ns",
            "service_external_name=x.org",
            "service_name=out",
            "service_port_number=1",
            "service_port_protocol=TCP",
            "service_type=ExternalName",
        ]
    );
    assert_eq!(running.groups.keys().next().unwrap(), "svc/ns/lb");

    api.put(
        "ingresses",
        json!({
            "metadata": {"name": "i", "namespace": "ns"},
            "spec": {
                "ingressClassName": "nginx", "tls": [{"hosts": ["*.a.org"]}, {"hosts": null}],
                "rules": [
                    {"host": "x.a.org", "http": {"paths": [{"path": "/p"}, {}]}}, {"host": "b.org"},
                ],
            },
        }),
    );
    let mut running = Running::start(&config(&api, "role: ingress"));
    running.until(|running| running.groups.len() == 1).await;
    assert_eq!(
        shown(&running.targets()[0]),
        [
            "__address__=x.a.org",
            "ingress_class_name=nginx",
            "ingress_host=x.a.org",
            "ingress_name=i",
            "ingress_path=/p",
            "ingress_scheme=https",
            "namespace=ns",
        ]
    );
    let urls: Vec<String> = running
        .targets()
        .iter()
        .map(|target| {
            let part = |name: &str| target.value(&format!("__meta_kubernetes_ingress_{name}")).to_owned();
            format!("{}://{}{}", part("scheme"), part("host"), part("path"))
        })
        .collect();
    assert_eq!(urls, ["https://x.a.org/p", "https://x.a.org/", "http://b.org/"]);
}

#[tokio::test]
async fn endpoints_know_their_service_pods_and_nodes() {
    let api = FakeApi::start().await;
    let mut running =
        Running::start(&config(&api, "role: endpoints, attach_metadata: {node: true, namespace: true}"));
    api.put("nodes", node("n1", "a"));
    api.put("pods", pod("ns", "web", "10.1.0.1"));
    let target = json!({"kind": "Pod", "name": "web", "namespace": "ns"});
    api.put(
        "endpoints",
        json!({
            "metadata": {"name": "svc", "namespace": "ns", "labels": {"e": "1"}},
            "subsets": [
                {"addresses": [{"ip": "10.1.0.1", "nodeName": "n1", "targetRef": target}],
                 "notReadyAddresses": [{"ip": "10.1.0.2", "hostname": "h"}],
                 "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}]},
                {"addresses": null, "ports": null},
            ],
        }),
    );
    running
        .until(|running| {
            running.addresses().len() == 3 && running.targets()[0].has("__meta_kubernetes_pod_ip")
        })
        .await;
    assert_eq!(running.addresses(), ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.1:53"]);
    let targets = running.targets();
    let of =
        |target: usize, name: &str| targets[target].value(&format!("__meta_kubernetes_{name}")).to_owned();
    for (name, value) in [
        ("namespace", "ns"),
        ("endpoints_name", "svc"),
        ("endpoints_label_e", "1"),
        ("endpoint_ready", "true"),
        ("endpoint_port_name", "web"),
        ("endpoint_port_protocol", "TCP"),
        ("endpoint_node_name", "n1"),
        ("endpoint_address_target_kind", "Pod"),
        ("endpoint_address_target_name", "web"),
        ("node_label_zone", "a"),
        ("pod_name", "web"),
        ("pod_container_name", "main"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_number", "8080"),
        ("pod_container_image", "web:1"),
        ("pod_container_init", "false"),
        ("service_name", ""),
    ] {
        assert_eq!(of(0, name), value, "{name}");
    }
    assert_eq!((of(1, "endpoint_ready").as_str(), of(1, "endpoint_hostname").as_str()), ("false", "h"));
    assert_eq!((of(2, "pod_container_port_name").as_str(), of(2, "endpoint_ready").as_str()), ("dns", ""));
    assert_eq!(of(2, "pod_name"), "web");

    api.put("services", json!({"metadata": {"name": "svc", "namespace": "ns", "labels": {"s": "2"}}}));
    running.until(|running| running.targets()[0].value("__meta_kubernetes_service_label_s") == "2").await;
    let mut sick = pod("ns", "web", "10.1.0.1");
    sick["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
    api.put("pods", sick);
    running.until(|running| running.targets()[0].value("__meta_kubernetes_pod_ready") == "false").await;
    api.delete("pods", "ns", "web");
    running.until(|running| running.targets().len() == 2).await;
    api.delete("endpoints", "ns", "svc");
    running.until(|running| running.groups.is_empty()).await;
}

#[tokio::test]
async fn slices_of_both_families_share_a_pod() {
    let api = FakeApi::start().await;
    api.put("services", json!({"metadata": {"name": "svc", "namespace": "ns", "labels": {"s": "2"}}}));
    api.put("pods", pod("ns", "web", "10.1.0.1"));
    let target = json!({"kind": "Pod", "name": "web", "namespace": "ns"});
    for (name, family, address) in [("svc-4", "IPv4", "10.1.0.1"), ("svc-6", "IPv6", "fd00::1")] {
        api.put("endpointslices", json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "svc"}},
            "addressType": family,
            "endpoints": [{
                "addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
                "hostname": "h", "nodeName": "n1", "zone": "z", "targetRef": target,
                "deprecatedTopology": {"topology.kubernetes.io/region": "r"},
            }],
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
        }));
    }
    let mut running = Running::start(&config(&api, "role: endpointslice, attach_metadata: {node: true}"));
    running.until(|running| running.groups.len() == 2).await;
    assert_eq!(running.addresses(), ["10.1.0.1:8080", "10.1.0.1:53", "[fd00::1]:8080"]);
    let targets = running.targets();
    for (name, value) in [
        ("namespace", "ns"),
        ("endpointslice_name", "svc-4"),
        ("endpointslice_address_type", "IPv4"),
        ("endpointslice_label_kubernetes_io_service_name", "svc"),
        ("endpointslice_port", "8080"),
        ("endpointslice_port_name", "web"),
        ("endpointslice_port_protocol", "TCP"),
        ("endpointslice_port_app_protocol", "http"),
        ("endpointslice_endpoint_conditions_ready", "true"),
        ("endpointslice_endpoint_conditions_serving", "true"),
        ("endpointslice_endpoint_conditions_terminating", "false"),
        ("endpointslice_endpoint_hostname", "h"),
        ("endpointslice_endpoint_node_name", "n1"),
        ("endpointslice_endpoint_zone", "z"),
        ("endpointslice_address_target_kind", "Pod"),
        ("endpointslice_address_target_name", "web"),
        ("endpointslice_endpoint_topology_topology_kubernetes_io_region", "r"),
        ("endpointslice_endpoint_topology_present_topology_kubernetes_io_region", "true"),
        ("service_label_s", "2"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_protocol", "TCP"),
    ] {
        assert_eq!(targets[0].value(&format!("__meta_kubernetes_{name}")), value, "{name}");
    }
    api.put("nodes", node("n1", "a"));
    running.until(|running| running.targets()[0].has("__meta_kubernetes_node_label_zone")).await;
    api.put("services", json!({"metadata": {"name": "svc", "namespace": "ns", "labels": {"s": "3"}}}));
    running.until(|running| running.targets()[2].value("__meta_kubernetes_service_label_s") == "3").await;
}

#[tokio::test]
async fn namespaces_and_selectors_are_asked_for_and_one_refused_holds_back_no_other() {
    let api = FakeApi::start().await;
    api.put("pods", pod("a", "p", "10.1.0.1"));
    api.put("pods", pod("b", "p", "10.1.0.2"));
    api.put("pods", pod("c", "p", "10.1.0.3"));
    api.forbid("b");
    let rest = "role: pod, namespaces: {names: [b, a, b]}, selectors: [{role: pod, label: 'x in (y)', field: 'a=b'}]";
    let mut running = Running::start(&config(&api, rest));
    running.until(|running| running.groups.len() == 1).await;
    assert_eq!(running.addresses()[0], "10.1.0.1:8080");
    eventually("a refusal", || running.metrics.kubernetes.failures.get() > 1).await;
    assert_eq!(
        troubles(&running.metrics),
        ["cannot read the pods of the namespace b, keeping the last targets: 403 Forbidden: no way"]
    );
    api.forbid("");
    running.until(|running| running.groups.len() == 2).await;
    assert_eq!(troubles(&running.metrics), [""; 0]);
    for asked in api.asked() {
        assert!(
            asked.path == "/api/v1/namespaces/a/pods" || asked.path == "/api/v1/namespaces/b/pods",
            "{asked:?}"
        );
        assert_eq!(
            (asked.query["labelSelector"].as_str(), asked.query["fieldSelector"].as_str()),
            ("x in (y)", "a=b")
        );
    }
}

#[tokio::test]
async fn a_kubeconfig_is_read_anew_when_its_token_is_refused_and_targets_stay() {
    let api = FakeApi::start().await;
    api.admit("new");
    api.put("pods", pod("a", "p", "10.1.0.1"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    let raw: RawKubernetesSdConfig =
        serde_yaml::from_str(&format!("{{role: pod, kubeconfig_file: '{}'}}", file.display())).unwrap();
    let config = raw.build(&ConfigPath::root(), Path::new("")).unwrap();
    let context = context();
    let mut running = Running::start_with(&config, &context);
    let failures = context.metrics.kubernetes.failures.clone();
    eventually("a missing file is a failure", || failures.get() > 0).await;
    let kubeconfig = format!(
        "{{current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}], users: [{{name: u, user: {{token: new}}}}]}}",
        api.address
    );
    std::fs::write(&file, kubeconfig.replace("token: new", "token: old")).unwrap();
    eventually("the old token is refused", || {
        context.metrics.kubernetes.requests.with_label_values(&["401"]).get() > 0
    })
    .await;
    std::fs::write(&file, kubeconfig).unwrap();
    running.until(|running| running.groups.len() == 1).await;
    assert_eq!(api.asked().last().unwrap().authorization, "Bearer new");
}

#[tokio::test]
async fn the_own_namespace_is_that_of_the_pod() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("namespace"), "mine\n").unwrap();
    let account = ServiceAccount { dir: dir.path().to_owned(), host: None, port: None };
    let raw: RawKubernetesSdConfig =
        serde_yaml::from_str("{role: pod, namespaces: {own_namespace: true, names: [other]}}").unwrap();
    let config = raw.build_in(&ConfigPath::root(), Path::new(""), account).unwrap();
    let context = context();
    let discoverer = KubernetesDiscoverer {
        connector: Arc::new(Connector::new(config.access.clone(), String::new())),
        metrics: Arc::clone(&context.metrics),
        job_name: context.job_name.clone(),
        config,
    };
    assert_eq!(discoverer.namespaces().await, ["other", "mine"]);

    std::fs::remove_file(dir.path().join("namespace")).unwrap();
    let looking = tokio::spawn(async move { discoverer.namespaces().await });
    eventually("a trouble", || !troubles(&context.metrics).is_empty()).await;
    let shown = troubles(&context.metrics);
    assert!(
        shown[0].starts_with(
            "cannot look for targets in the own namespace: could not determine the pod's namespace: "
        ),
        "{shown:?}"
    );
    assert_eq!((shown.len(), context.metrics.kubernetes.failures.get()), (1, 1));
    looking.abort();
    eventually("its end", || troubles(&context.metrics).is_empty()).await;
}

#[test]
fn entries_with_other_secrets_are_not_the_same() {
    let build = |token: &str| {
        let yaml = format!("{{api_server: 'http://a', role: pod, authorization: {{credentials: {token}}}}}");
        let raw: RawKubernetesSdConfig = serde_yaml::from_str(&yaml).unwrap();
        raw.build(&ConfigPath::root(), Path::new("")).unwrap()
    };
    assert!(build("a").same_as(&build("a")));
    assert!(!build("a").same_as(&build("b")));
    assert!(!build("a").identity().contains('a') || !format!("{:?}", build("s3cret")).contains("s3cret"));
}
