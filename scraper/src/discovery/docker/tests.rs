use std::time::Duration;

use model::Labels;
use serde_json::{Value, json};

use super::super::DiscoveryConfig;
use super::super::testing::{Answer, ApiServer, Asked, Running, eventually, place};
use super::*;

fn docker(yaml: &str) -> Result<DockerSdConfig, String> {
    let raw: RawDockerSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    raw.build(&place().0, place().1).map_err(|error| error.to_string())
}

fn swarm(yaml: &str) -> Result<DockerSwarmSdConfig, String> {
    let raw: RawDockerSwarmSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    raw.build(&place().0, place().1).map_err(|error| error.to_string())
}

/// `name=value` of all labels, without `prefix`.
fn shown(labels: &Labels, prefix: &str) -> Vec<String> {
    labels
        .iter()
        .map(|(name, value)| format!("{}={value}", name.strip_prefix(prefix).unwrap_or(name)))
        .collect()
}

fn networks() -> Value {
    json!([
        {"Id": "n1", "Name": "dev", "Scope": "local", "Internal": false, "Ingress": false,
         "Labels": {"com.docker/x": "y"}},
        {"Id": "n2", "Name": "other", "Scope": "swarm", "Internal": true, "Ingress": true, "Labels": null},
        {"Id": "nh", "Name": "host", "Scope": "local"},
    ])
}

fn containers() -> Value {
    let settings = |networks: Value| json!({"Networks": networks});
    let mode = |mode: &str| json!({"NetworkMode": mode});
    json!([
        {"Id": "c1", "Names": ["/web", "/alias"], "Labels": {"com.x/team": "a"}, "HostConfig": mode("dev"),
         "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 53, "Type": "udp"}, {"PrivatePort": 81, "Type": "tcp"}],
         "NetworkSettings": settings(json!({
            "b": {"NetworkID": "n2", "IPAddress": "10.0.1.2"}, "a": {"NetworkID": "n1", "IPAddress": "10.0.0.2"},
            "0": null}))},
        {"Id": "c2", "Names": ["/side"], "Labels": null, "Ports": null, "HostConfig": mode("container:c1"),
         "NetworkSettings": settings(json!({}))},
        {"Id": "c3", "Names": ["/onhost"], "Ports": [], "HostConfig": mode("host"),
         "NetworkSettings": settings(json!({"host": {"NetworkID": "nh", "IPAddress": ""}}))},
        {"Id": "c4", "Names": ["/six"], "Ports": [{"PrivatePort": 80, "Type": "tcp"}], "HostConfig": mode("dev"),
         "NetworkSettings": settings(json!({
            "dev": {"NetworkID": "n1", "IPAddress": "", "GlobalIPv6Address": "fc00::2"}}))},
        {"Id": "c5", "Names": [], "HostConfig": {}, "NetworkSettings": null},
        {"Id": "c6", "Names": ["/alone"], "HostConfig": mode("container:c7"), "NetworkSettings": {"Networks": null}},
        {"Id": "c7", "Names": ["/circle"], "HostConfig": mode("container:c6"), "NetworkSettings": {}},
    ])
}

fn daemon(asked: &Asked) -> Answer {
    match asked.path.as_str() {
        "/_ping" => Answer::new(200, "OK").with("api-version", "1.41"),
        "/v1.41/containers/json" => Answer::json(containers().to_string()),
        "/v1.41/networks" => Answer::json(networks().to_string()),
        path => Answer::new(404, format!("{{\"message\": \"page not found {path}\"}}")),
    }
}

#[tokio::test]
async fn containers_have_their_labels_networks_and_ports() {
    let server = ApiServer::start(daemon).await;
    let yaml =
        format!("{{host: 'tcp://{}', filters: [{{name: label, values: [x]}}], port: 9}}", server.address);
    let mut running = Running::start(&docker(&yaml).unwrap());
    running.next().await;
    assert_eq!(running.groups.keys().collect::<Vec<_>>(), ["Docker"]);
    assert_eq!(
        running.addresses(),
        ["10.0.0.2:80", "10.0.0.2:81", "10.0.0.2:9", "localhost", "[fc00::2]:80",]
    );
    let targets = running.targets();
    assert_eq!(
        shown(&targets[0], "__meta_docker_"),
        [
            "__address__=10.0.0.2:80",
            "container_id=c1",
            "container_label_com_x_team=a",
            "container_name=/web",
            "container_network_mode=dev",
            "network_id=n1",
            "network_ingress=false",
            "network_internal=false",
            "network_ip=10.0.0.2",
            "network_label_com_docker_x=y",
            "network_name=dev",
            "network_scope=local",
            "port_private=80",
            "port_public=8080",
            "port_public_ip=0.0.0.0",
        ]
    );
    assert!(!targets[1].has("__meta_docker_port_public"));
    assert_eq!(
        shown(&targets[3], "__meta_docker_"),
        [
            "__address__=localhost",
            "container_id=c3",
            "container_name=/onhost",
            "container_network_mode=host",
            "network_id=nh",
            "network_ingress=false",
            "network_internal=false",
            "network_name=host",
            "network_scope=local",
        ]
    );
    let asked = server.asked();
    assert_eq!(asked[1].param("filters"), r#"{"label":{"x":true}}"#);
    assert_eq!(asked[1].header("user-agent"), "Nilometer/test");
    assert_eq!(asked.len(), 3);

    let yaml =
        format!("{{host: 'http://{}', match_first_network: false, host_networking_host: h}}", server.address);
    let mut running = Running::start(&docker(&yaml).unwrap());
    running.next().await;
    assert_eq!(
        running.addresses(),
        [
            "10.0.0.2:80",
            "10.0.0.2:81",
            "10.0.1.2:80",
            "10.0.1.2:81",
            "10.0.0.2:80",
            "10.0.1.2:80",
            "h",
            "[fc00::2]:80",
        ]
    );
}

#[tokio::test]
async fn a_daemon_at_a_unix_socket_is_asked_and_may_go_and_come() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let serve = || {
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service =
                    hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        let body = match request.uri().path() {
                            "/_ping" => String::new(),
                            "/containers/json" => containers().to_string(),
                            "/networks" => networks().to_string(),
                            path => panic!("{path}: no version was agreed on"),
                        };
                        Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::new(
                            bytes::Bytes::from(body),
                        )))
                    });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
                );
            }
        })
    };
    let server = serve();
    let yaml = format!("{{host: 'unix://{}', refresh_interval: 20ms}}", socket.display());
    let mut running = Running::start(&docker(&yaml).unwrap());
    running.next().await;
    assert_eq!(running.addresses().len(), 5);

    server.abort();
    std::fs::remove_file(&socket).unwrap();
    let failures = running.metrics.refresh_failures.with_label_values(&["docker", "job"]);
    eventually("failures", || failures.get() > 1).await;
    assert!(!running.has_spoken(), "the last targets stay");
    let _server = serve();
    let before = failures.get();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(failures.get() <= before + 1, "it works again");
    assert!(!running.has_spoken(), "and nothing has changed");
}

#[tokio::test]
async fn refusals_and_nonsense_are_failures() {
    for body in [(500, r#"{"message": "no"}"#), (200, "[{]"), (200, r#"{"a": 1}"#)] {
        let server = ApiServer::start(move |asked: &Asked| match asked.path.as_str() {
            "/_ping" => Answer::new(200, "OK").with("api-version", "1.99"),
            "/v1.44/nodes" => Answer::new(body.0, body.1),
            other => panic!("{other}"),
        })
        .await;
        let running =
            Running::start(&swarm(&format!("{{host: 'http://{}', role: nodes}}", server.address)).unwrap());
        let failures = running.metrics.refresh_failures.with_label_values(&["dockerswarm", "job"]);
        eventually("a failure", || failures.get() == 1).await;
        assert!(!running.has_spoken());
    }
}

fn manager(asked: &Asked) -> Answer {
    let nodes = json!([
        {"ID": "nd1", "Spec": {"Role": "manager", "Availability": "active", "Labels": {"a.b": "c"}},
         "Description": {"Hostname": "h1", "Platform": {"Architecture": "x86_64", "OS": "linux"},
                         "Engine": {"EngineVersion": "27.0"}},
         "Status": {"State": "ready", "Addr": "192.168.0.1"},
         "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "192.168.0.1:2377"}},
        {"ID": "nd2", "Spec": {"Role": "worker", "Availability": "drain", "Labels": null},
         "Description": {}, "Status": {"State": "down", "Addr": "fd00::2"}},
    ]);
    let port = |name: &str, protocol: &str, number: u32| json!({"Name": name, "Protocol": protocol, "TargetPort": 1, "PublishedPort": number, "PublishMode": "ingress"});
    let services = json!([
        {"ID": "s1", "Spec": {"Name": "web", "Labels": {"l": "1"}, "Mode": {"Replicated": {"Replicas": 2}},
            "TaskTemplate": {"ContainerSpec": {"Image": "web:1", "Hostname": "wh"}}},
         "Endpoint": {"Ports": [port("http", "tcp", 8080), port("dns", "udp", 53)],
                      "VirtualIPs": [{"NetworkID": "n1", "Addr": "10.0.0.9/24"}, {"NetworkID": "n2"}]},
         "UpdateStatus": {"State": "completed"}},
        {"ID": "s2", "Spec": {"Name": "plug", "Mode": {"Global": {}}, "TaskTemplate": {"Runtime": "plugin"}},
         "Endpoint": {"VirtualIPs": [{"NetworkID": "n2", "Addr": "10.0.1.9/24"}]}},
    ]);
    let tasks = json!([
        {"ID": "t1", "ServiceID": "s1", "NodeID": "nd1", "Slot": 2, "DesiredState": "running",
         "Spec": {"ContainerSpec": {"Labels": {"both": "spec"}}},
         "Status": {"State": "running", "ContainerStatus": {"ContainerID": "c1"},
                    "PortStatus": {"Ports": [port("", "tcp", 9000), port("", "udp", 9001)]}},
         "NetworksAttachments": [{"Network": {"ID": "n1"}, "Addresses": ["10.0.0.3/24"]}]},
        {"ID": "t2", "ServiceID": "s2", "NodeID": "nd2", "DesiredState": "shutdown", "Spec": {},
         "Status": {"State": "failed", "ContainerStatus": {"ContainerID": "../c2"}, "PortStatus": null},
         "NetworksAttachments": [{"Network": {"ID": "n2"}, "Addresses": ["10.0.1.3/24"]}]},
    ]);
    let inspected = json!({"Config": {"Labels": {"both": "image", "image": "i"}}});
    match asked.path.as_str() {
        "/_ping" => Answer::new(200, "OK").with("api-version", "1.40"),
        "/v1.40/nodes" => Answer::json(nodes.to_string()),
        "/v1.40/services" => Answer::json(services.to_string()),
        "/v1.40/tasks" => Answer::json(tasks.to_string()),
        "/v1.40/networks" => Answer::json(networks().to_string()),
        "/v1.40/containers/c1/json" => Answer::json(inspected.to_string()),
        _ => Answer::new(404, "{}"),
    }
}

#[tokio::test]
async fn a_swarm_has_nodes_services_and_tasks() {
    let server = ApiServer::start(manager).await;
    let start = |role: &str| {
        let yaml = format!(
            "{{host: 'http://{}', role: {role}, port: 7, filters: [{{name: a, values: [b]}}]}}",
            server.address
        );
        Running::start(&swarm(&yaml).unwrap())
    };
    let mut running = start("nodes");
    running.next().await;
    assert_eq!(running.addresses(), ["192.168.0.1:7", "[fd00::2]:7"]);
    assert_eq!(
        shown(&running.targets()[0], "__meta_dockerswarm_"),
        [
            "__address__=192.168.0.1:7",
            "node_address=192.168.0.1",
            "node_availability=active",
            "node_engine_version=27.0",
            "node_hostname=h1",
            "node_id=nd1",
            "node_label_a_b=c",
            "node_manager_address=192.168.0.1:2377",
            "node_manager_leader=true",
            "node_manager_reachability=reachable",
            "node_platform_architecture=x86_64",
            "node_platform_os=linux",
            "node_role=manager",
            "node_status=ready",
        ]
    );

    let mut running = start("services");
    running.next().await;
    assert_eq!(running.addresses(), ["10.0.0.9:8080", "10.0.1.9:7"]);
    assert_eq!(
        shown(&running.targets()[0], "__meta_dockerswarm_"),
        [
            "__address__=10.0.0.9:8080",
            "network_id=n1",
            "network_ingress=false",
            "network_internal=false",
            "network_label_com_docker_x=y",
            "network_name=dev",
            "network_scope=local",
            "service_endpoint_port_name=http",
            "service_endpoint_port_publish_mode=ingress",
            "service_id=s1",
            "service_label_l=1",
            "service_mode=replicated",
            "service_name=web",
            "service_task_container_hostname=wh",
            "service_task_container_image=web:1",
            "service_updating_status=completed",
        ]
    );
    assert_eq!(running.targets()[1].value("__meta_dockerswarm_service_mode"), "global");

    let mut running = start("tasks");
    running.next().await;
    assert_eq!(running.addresses(), ["192.168.0.1:9000", "10.0.0.3:8080", "10.0.1.3:7"]);
    assert_eq!(
        shown(&running.targets()[1], "__meta_dockerswarm_"),
        [
            "__address__=10.0.0.3:8080",
            "container_label_both=spec",
            "container_label_image=i",
            "network_id=n1",
            "network_ingress=false",
            "network_internal=false",
            "network_label_com_docker_x=y",
            "network_name=dev",
            "network_scope=local",
            "node_address=192.168.0.1",
            "node_availability=active",
            "node_hostname=h1",
            "node_id=nd1",
            "node_label_a_b=c",
            "node_platform_architecture=x86_64",
            "node_platform_os=linux",
            "node_role=manager",
            "node_status=ready",
            "service_id=s1",
            "service_label_l=1",
            "service_mode=replicated",
            "service_name=web",
            "task_container_id=c1",
            "task_desired_state=running",
            "task_id=t1",
            "task_port_publish_mode=ingress",
            "task_slot=2",
            "task_state=running",
        ]
    );
    assert_eq!(running.groups.keys().collect::<Vec<_>>(), ["DockerSwarm"]);
    let filtered: Vec<String> = server
        .asked()
        .iter()
        .filter(|asked| !asked.query.is_empty())
        .map(|asked| asked.path.clone())
        .collect();
    assert_eq!(
        filtered,
        ["/v1.40/nodes", "/v1.40/services", "/v1.40/tasks"],
        "only what is discovered is filtered"
    );
    assert!(!server.asked().iter().any(|asked| asked.path.contains("..")));
}

#[test]
fn mistakes_are_refused_in_the_words_of_prometheus() {
    for (yaml, expected) in [
        ("{}", "sd[0]: host missing"),
        ("{host: 'npipe://x'}", "sd[0].host: docker hosts of scheme \"npipe\""),
        ("{host: 'tcp://x', refresh_interval: 0s}", "refresh interval must be greater than 0"),
        ("{host: 'tcp://x', hots: 1}", "unknown field `hots`"),
        ("{host: 'tcp://x', filters: [{nam: 1}]}", "unknown field `nam`"),
    ] {
        let error = docker(yaml).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
    for (yaml, expected) in [
        ("{role: nodes}", "host missing"),
        ("{host: 'tcp://x'}", "role missing (one of: tasks, services, nodes)"),
        (
            "{host: 'tcp://x', role: pods}",
            "sd[0].role: invalid role pods, expected tasks, services, or nodes",
        ),
    ] {
        let error = swarm(yaml).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
    let (a, b) = (swarm("{host: 'tcp://x', role: nodes}"), swarm("{host: 'tcp://x', role: tasks}"));
    assert!(!a.unwrap().same_as(&b.unwrap()));
}
