//! Nomad discovery against a server that speaks the part of Nomad's API that is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{NomadSdConfig, RawNomadSdConfig};
use crate::discovery::DiscoveryConfig;
use crate::discovery::testing::{Answer, ApiServer, Running, eventually, place};

fn build(yaml: &str) -> Result<NomadSdConfig, String> {
    let raw: RawNomadSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    let (path, dir) = place();
    raw.build(&path, dir).map_err(|error| error.to_string())
}

fn instance(id: &str, namespace: &str, port: u16) -> Value {
    json!({
        "Address": "127.0.0.1", "AllocID": "177160af", "CreateIndex": 14, "Datacenter": "dc1", "ID": id, "JobID": "example",
        "ModifyIndex": 14, "Namespace": namespace, "NodeID": "7406e90b", "Port": port,
        "ServiceName": "hello-world", "Tags": ["metrics", "x"],
    })
}

type Cluster = Arc<Mutex<Vec<(&'static str, &'static str, Value)>>>;

/// A cluster: namespaces, services, instances; and its index.
async fn nomad(services: &[(&'static str, &'static str, Value)]) -> (ApiServer, Cluster, Arc<AtomicU64>) {
    let (state, index) = (Arc::new(Mutex::new(services.to_vec())), Arc::new(AtomicU64::new(7)));
    let (now, at) = (Arc::clone(&state), Arc::clone(&index));
    let server = ApiServer::start(move |asked| {
        let services = now.lock();
        let wanted = asked.param("namespace");
        let body = if asked.path == "/v1/services" {
            services
                .iter()
                .filter(|(namespace, _, _)| wanted == "*" || *namespace == wanted)
                .map(|(namespace, name, _)| json!({"Namespace": namespace, "Services": [{"ServiceName": name, "Tags": []}]}))
                .collect()
        } else {
            services
                .iter()
                .find(|(namespace, name, _)| *namespace == wanted && asked.path == format!("/v1/service/{name}"))
                .map_or_else(|| json!([]), |(_, _, instances)| instances.clone())
        };
        let index = at.load(Ordering::Relaxed);
        if index == 500 {
            return Answer::new(500, "No cluster leader");
        }
        Answer::json(body.to_string()).with("x-nomad-index", &index.to_string())
    })
    .await;
    (server, state, index)
}

#[tokio::test]
async fn services_come_change_and_go_and_an_unchanged_index_costs_one_request() {
    let hello = ("default", "hello-world", json!([instance("id1", "default", 30456)]));
    let (server, state, index) = nomad(std::slice::from_ref(&hello)).await;
    let config = build(&format!(
        "{{server: '{}', refresh_interval: 10ms, http_headers: {{X-Nomad-Token: {{secrets: [hunter2]}}}}}}",
        server.url("")
    ))
    .unwrap();
    let mut running = Running::start(&config);
    running.next().await;
    assert_eq!(
        running.targets()[0].to_string(),
        r#"{__address__="127.0.0.1:30456", __meta_nomad_address="127.0.0.1", __meta_nomad_dc="dc1", "#
            .to_owned()
            + r#"__meta_nomad_namespace="default", __meta_nomad_node_id="7406e90b", __meta_nomad_service="hello-world", "#
            + r#"__meta_nomad_service_address="127.0.0.1", __meta_nomad_service_id="id1", __meta_nomad_service_port="30456", "#
            + r#"__meta_nomad_tags=",metrics,x,"}"#
    );
    assert_eq!(running.groups.keys().collect::<Vec<_>>(), ["Nomad"]);
    eventually("several refreshes", || server.asked().len() > 24).await;
    assert!(!running.has_spoken());
    let asked = server.asked();
    assert_eq!(asked[0].query_text, "region=global&namespace=default&stale=");
    assert_eq!(asked[0].header("x-nomad-token"), "hunter2");
    let services = asked.iter().take(24).filter(|asked| asked.path == "/v1/service/hello-world").count();
    assert_eq!(services, 3, "every tenth refresh is a whole one");

    *state.lock() = vec![(
        "default",
        "hello-world",
        json!([instance("id2", "default", 1), instance("id3", "default", 2)]),
    )];
    index.store(8, Ordering::Relaxed);
    running.next().await;
    assert_eq!(running.addresses(), ["127.0.0.1:1", "127.0.0.1:2"]);

    index.store(500, Ordering::Relaxed);
    eventually("failures", || running.metrics.nomad_failures.get() > 2).await;
    assert!(!running.has_spoken());
    *state.lock() = vec![("default", "hello-world", json!("nonsense"))];
    index.store(9, Ordering::Relaxed);
    let failures = running.metrics.nomad_failures.get();
    eventually("failures", || running.metrics.nomad_failures.get() > failures + 2).await;
    assert!(!running.has_spoken(), "one broken service keeps all");
    state.lock().clear();
    index.store(10, Ordering::Relaxed);
    running.next().await;
    assert!(running.targets().is_empty());
}

#[tokio::test]
async fn all_namespaces_are_listed_and_then_read_one_by_one() {
    let (server, _, _) = nomad(&[
        ("a", "web", json!([instance("ida", "a", 1)])),
        ("b", "web", json!([instance("idb", "b", 2)])),
    ])
    .await;
    let config = build(&format!(
        "{{server: '{}', namespace: '*', region: eu, allow_stale: false, tag_separator: '|'}}",
        server.url("/")
    ))
    .unwrap();
    let mut running = Running::start(&config);
    running.next().await;
    let ids: Vec<String> =
        running.targets().iter().map(|labels| labels.value("__meta_nomad_service_id").to_owned()).collect();
    assert_eq!(ids, ["ida", "idb"]);
    assert_eq!(running.targets()[0].value("__meta_nomad_tags"), "|metrics|x|");
    assert_eq!(server.asked()[0].query_text, "region=eu&namespace=*");
}

#[test]
fn settings_are_checked_with_the_words_of_prometheus() {
    let config = build("{}").unwrap();
    assert_eq!(config.server.as_str(), "http://localhost:4646/");
    assert_eq!((config.namespace.as_str(), config.region.as_str()), ("default", "global"));
    assert_eq!(config.refresh_interval, Duration::from_secs(60));
    let cases = [
        ("{server: ''}", "sd[0]: nomad SD configuration requires a server address"),
        ("{server: 'localhost:4646'}", "sd[0].server: the nomad server must be a URL"),
        ("{refresh_interval: 0s}", "sd[0].refresh_interval: refresh interval must be greater than 0"),
        ("{token: x}", "unknown field `token`"),
    ];
    for (yaml, expected) in cases {
        let error = build(yaml).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
    assert!(config.same_as(&build("{}").unwrap()) && !config.same_as(&build("{region: eu}").unwrap()));
}
