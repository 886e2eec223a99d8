//! Consul discovery against a server that speaks the part of Consul's API that is used, index and blocking included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{ConsulSdConfig, RawConsulSdConfig};
use crate::discovery::DiscoveryConfig;
use crate::discovery::testing::{Answer, ApiServer, Asked, Running, eventually, place};

/// A cluster: services, their instances, and the index of its state.
struct Consul {
    index: u64,
    services: BTreeMap<&'static str, (Vec<&'static str>, Value)>,
    /// Paths (their beginnings) that fail.
    broken: Vec<&'static str>,
}

impl Consul {
    fn answer(&self, asked: &Asked) -> Answer {
        if self.broken.iter().any(|path| asked.path.starts_with(path)) {
            return Answer::new(500, "No cluster leader");
        }
        let body = match asked.path.as_str() {
            "/v1/agent/self" => json!({"Config": {"Datacenter": "test-dc", "NodeName": "n"}, "Coord": null}),
            "/v1/catalog/services" => {
                self.services.iter().map(|(name, (tags, _))| ((*name).to_owned(), json!(tags))).collect()
            }
            path => match self.services.get(path.strip_prefix("/v1/health/service/").unwrap()) {
                Some((_, instances)) => instances.clone(),
                None => json!([]),
            },
        };
        let answer = Answer::json(body.to_string()).with("x-consul-index", &self.index.to_string());
        // Held back when there is nothing new: here only for a moment.
        let is_known = asked.param("index") == self.index.to_string();
        answer.late(if is_known { Duration::from_millis(30) } else { Duration::ZERO })
    }
}

async fn consul(services: &[(&'static str, &[&'static str], Value)]) -> (ApiServer, Arc<Mutex<Consul>>) {
    let services =
        services.iter().map(|(name, tags, value)| (*name, (tags.to_vec(), value.clone()))).collect();
    let state = Arc::new(Mutex::new(Consul { index: 10, services, broken: vec![] }));
    let now = Arc::clone(&state);
    (ApiServer::start(move |asked| now.lock().answer(asked)).await, state)
}

fn instance(node: &str, address: &str, port: u16) -> Value {
    json!({
        "Node": {"ID": "1", "Node": node, "Address": address, "Datacenter": "test-dc", "TaggedAddresses": null, "Meta": null},
        "Service": {"ID": format!("{node}-id"), "Service": "s", "Tags": null, "Address": "", "Meta": null, "Port": port},
        "Checks": [],
    })
}

fn build(yaml: &str) -> Result<ConsulSdConfig, String> {
    let raw: RawConsulSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    let (path, dir) = place();
    raw.build(&path, dir).map_err(|error| error.to_string())
}

fn config(server: &ApiServer, yaml: &str) -> ConsulSdConfig {
    let mut config =
        build(&format!("{{server: '{}', refresh_interval: 10ms, {yaml}}}", server.address)).unwrap();
    config.retry_interval = Duration::from_millis(10);
    config
}

/// What was asked with a path, in order.
fn asked(server: &ApiServer, path: &str) -> Vec<Asked> {
    server.asked().into_iter().filter(|asked| asked.path == path).collect()
}

#[tokio::test]
async fn an_instance_has_all_its_labels() {
    let full = json!([{
        "Node": {
            "Node": "node1", "Address": "1.1.1.1",
            "TaggedAddresses": {"lan": "192.168.10.10", "wan": "10.0.10.10"},
            "Meta": {"rack-name": "2304"},
        },
        "Service": {
            "ID": "test", "Service": "test", "Tags": ["tag1", "tag2"], "Address": "2001:db8::7", "Port": 3341,
            "Meta": {"version.x": "1.0.0", "environment": "staging"}, "Namespace": "ns1", "Partition": "part1",
            "Weights": {"Passing": 1, "Warning": 1},
        },
        "Checks": [
            {"CheckID": "serfHealth", "Status": "passing"},
            {"CheckID": "service:test", "Status": "warning"},
        ],
    }]);
    let (server, _) = consul(&[("test", &["tag1"], full), ("consul", &[], json!([]))]).await;
    let mut running = Running::start(&config(&server, ""));
    running.until(|running| !running.groups.is_empty()).await;
    assert_eq!(
        running.targets()[0].to_string(),
        r#"{__address__="[2001:db8::7]:3341", __meta_consul_address="1.1.1.1", __meta_consul_dc="test-dc", "#
            .to_owned()
            + r#"__meta_consul_health="warning", __meta_consul_metadata_rack_name="2304", __meta_consul_namespace="ns1", "#
            + r#"__meta_consul_node="node1", __meta_consul_partition="part1", __meta_consul_service="test", "#
            + r#"__meta_consul_service_address="2001:db8::7", __meta_consul_service_id="test", "#
            + r#"__meta_consul_service_metadata_environment="staging", __meta_consul_service_metadata_version_x="1.0.0", "#
            + r#"__meta_consul_service_port="3341", __meta_consul_tagged_address_lan="192.168.10.10", "#
            + r#"__meta_consul_tagged_address_wan="10.0.10.10", __meta_consul_tags=",tag1,tag2,"}"#
    );
    assert_eq!(running.groups.keys().collect::<Vec<_>>(), ["test"]);
}

#[tokio::test]
async fn questions_carry_all_that_is_configured() {
    let (server, _) = consul(&[("web", &["a", "b", "c"], json!([instance("n1", "10.0.0.1", 80)]))]).await;
    let config = config(
        &server,
        "token: hunter2, datacenter: dc2, namespace: ns, partition: part, tags: [a, b], node_meta: {rack: '1', zone: x}, \
         filter: 'ServiceMeta.env == \"prod\"', health_filter: 'Service.Meta.env == \"prod\"', path_prefix: /consul/, \
         tag_separator: ';'",
    );
    assert_eq!(config.base.path(), "/consul/");
    assert!(!format!("{config:?}").contains("hunter2"));
    let mut plain = config.clone();
    plain.base.set_path("/");
    let mut running = Running::start(&plain);
    running.until(|running| !running.groups.is_empty()).await;
    assert_eq!(running.targets()[0].value("__meta_consul_dc"), "dc2");
    assert_eq!(running.targets()[0].value("__meta_consul_tags"), ";;");
    assert_eq!(running.targets()[0].value("__meta_consul_health"), "passing", "without any check");
    eventually("a second question", || asked(&server, "/v1/health/service/web").len() > 1).await;
    assert!(asked(&server, "/v1/agent/self").is_empty(), "the datacenter is known");
    let catalog = asked(&server, "/v1/catalog/services");
    let common = "dc=dc2&ns=ns&partition=part";
    let meta = "wait=120000ms&node-meta=rack%3A1&node-meta=zone%3Ax";
    assert_eq!(
        catalog[0].query_text,
        format!("{common}&stale=&{meta}&filter=ServiceMeta.env+%3D%3D+%22prod%22")
    );
    let health = asked(&server, "/v1/health/service/web");
    assert_eq!(
        health[1].query_text,
        format!("{common}&tag=a&tag=b&stale=&index=10&{meta}&filter=Service.Meta.env+%3D%3D+%22prod%22")
    );
    for asked in server.asked() {
        assert_eq!(asked.header("x-consul-token"), "hunter2");
    }
}

#[tokio::test]
async fn services_come_change_and_go() {
    let (server, state) = consul(&[("web", &["x"], json!([instance("n1", "10.0.0.1", 80)]))]).await;
    let mut running = Running::start(&config(&server, "allow_stale: false"));
    running.until(|running| running.addresses() == ["10.0.0.1:80"]).await;
    eventually("several blocked questions", || asked(&server, "/v1/catalog/services").len() > 3).await;
    assert!(!running.has_spoken());
    assert!(!server.asked()[1].query.contains_key("stale"));
    {
        let mut state = state.lock();
        state.index = 11;
        state.services.insert("db", (vec![], json!([instance("n2", "10.0.0.2", 5432)])));
        state.services.insert("empty", (vec![], json!([])));
    }
    running.until(|running| running.addresses() == ["10.0.0.2:5432", "10.0.0.1:80"]).await;
    {
        let mut state = state.lock();
        state.index = 12;
        state.services.insert(
            "db",
            (vec![], json!([instance("n2", "10.0.0.2", 5432), instance("n3", "10.0.0.3", 5432)])),
        );
    }
    running.until(|running| running.addresses().len() == 3).await;
    // Consul is restored from a snapshot: the index goes back.
    {
        let mut state = state.lock();
        state.index = 5;
        state.services.remove("web");
    }
    running.until(|running| running.addresses() == ["10.0.0.2:5432", "10.0.0.3:5432"]).await;
    // The index known is worth nothing then: one question without it, the next ones with the new one.
    eventually("questions from the start", || {
        let indexes: Vec<String> = asked(&server, "/v1/health/service/db")
            .iter()
            .map(|asked| asked.param("index").to_owned())
            .skip_while(|index| index != "12")
            .skip_while(|index| index == "12")
            .collect();
        indexes.first().is_some_and(String::is_empty) && indexes.last().is_some_and(|index| index == "5")
    })
    .await;
    let count = asked(&server, "/v1/health/service/web").len();
    {
        let mut state = state.lock();
        state.index = 6;
        state.services.clear();
    }
    running.until(|running| running.groups.is_empty()).await;
    assert_eq!(asked(&server, "/v1/health/service/web").len(), count, "what has gone is watched no more");
}

#[tokio::test]
async fn failures_keep_targets_and_are_counted() {
    let (server, state) = consul(&[("web", &[], json!([instance("n1", "10.0.0.1", 80)]))]).await;
    state.lock().broken = vec!["/v1/agent"];
    let mut running = Running::start(&config(&server, ""));
    let metrics = Arc::clone(&running.metrics);
    let failures = move |more: u64| {
        let goal = metrics.consul_failures.get() + more;
        let metrics = Arc::clone(&metrics);
        async move { eventually("failures", || metrics.consul_failures.get() >= goal).await }
    };
    failures(2).await;
    assert!(!running.has_spoken());
    state.lock().broken = vec![];
    running.until(|running| running.addresses() == ["10.0.0.1:80"]).await;
    {
        let mut state = state.lock();
        state.index = 11;
        state.broken = vec!["/v1/health", "/v1/catalog"];
        state.services.clear();
    }
    failures(4).await;
    assert!(!running.has_spoken(), "nothing is known, so nothing is said");
    let troubles = running.metrics.troubles("job");
    let errors: Vec<&str> = troubles.iter().map(|trouble| trouble.error.as_str()).collect();
    assert_eq!(
        errors,
        [
            "cannot refresh the list of Consul services, keeping the last one: server returned HTTP status 500 Internal Server Error",
            "cannot refresh Consul service \"web\", keeping its targets: server returned HTTP status 500 Internal Server Error",
        ]
    );
    {
        let mut state = state.lock();
        state.services.insert("web", (vec![], json!({"not": "a list"})));
        state.broken = vec![];
    }
    failures(3).await;
    assert!(!running.has_spoken());
    {
        let mut state = state.lock();
        state.index = 12;
        state.services.insert("web", (vec![], json!([instance("n1", "10.0.0.9", 80)])));
    }
    running.until(|running| running.addresses() == ["10.0.0.9:80"]).await;
    eventually("the end of all troubles", || running.metrics.troubles("job").is_empty()).await;
}

#[tokio::test]
async fn named_services_are_watched_without_the_catalog_unless_it_filters() {
    let services: [(&'static str, &[&'static str], Value); 3] = [
        ("web", &["prod"], json!([instance("n1", "10.0.0.1", 80)])),
        ("db", &["test"], json!([instance("n2", "10.0.0.2", 80)])),
        ("other", &["prod"], json!([instance("n3", "10.0.0.3", 80)])),
    ];
    let (server, _) = consul(&services).await;
    let mut running = Running::start(&config(&server, "services: [web, db, web]"));
    running.until(|running| running.addresses() == ["10.0.0.2:80", "10.0.0.1:80"]).await;
    assert!(asked(&server, "/v1/catalog/services").is_empty());

    let (server, _) = consul(&services).await;
    let mut running = Running::start(&config(&server, "services: [web, db], tags: [prod]"));
    running.until(|running| running.addresses() == ["10.0.0.1:80"]).await;
    assert!(!asked(&server, "/v1/catalog/services").is_empty());
    assert!(asked(&server, "/v1/health/service/db").is_empty());

    let (server, _) = consul(&services).await;
    let mut running = Running::start(&config(&server, "services: [web], filter: 'true'"));
    running.until(|running| running.addresses() == ["10.0.0.1:80"]).await;
    assert!(!asked(&server, "/v1/catalog/services").is_empty());

    let (server, _) = consul(&[]).await;
    let mut running = Running::start(&config(&server, ""));
    assert!(running.next().await.is_empty(), "that there is nothing is said");
}

#[tokio::test]
async fn a_token_goes_to_no_other_host() {
    let (other, _) = consul(&[("web", &[], json!([instance("n1", "10.0.0.1", 80)]))]).await;
    let elsewhere = other.url("");
    let server = ApiServer::start(move |asked| {
        Answer::new(307, "").with("location", &format!("{elsewhere}{}", asked.path))
    })
    .await;
    let mut running = Running::start(&config(&server, "token: hunter2"));
    running.until(|running| running.addresses() == ["10.0.0.1:80"]).await;
    assert!(server.asked().iter().all(|asked| asked.header("x-consul-token") == "hunter2"));
    assert!(
        other.asked().len() > 2
            && other.asked().iter().all(|asked| asked.header("x-consul-token").is_empty())
    );
}

#[test]
fn the_worst_check_counts() {
    let check = |id: &str, status: &str| json!({"CheckID": id, "Status": status});
    let cases = [
        (vec![], "passing"),
        (vec![check("a", "passing"), check("b", "warning")], "warning"),
        (vec![check("a", "critical"), check("b", "warning")], "critical"),
        (vec![check("_node_maintenance", "critical"), check("b", "critical")], "maintenance"),
        (vec![check("_service_maintenance:web", "passing")], "maintenance"),
        (vec![check("a", "unknown"), check("b", "critical")], ""),
    ];
    for (checks, expected) in cases {
        let checks: Vec<super::api::Check> = serde_json::from_value(json!(checks)).unwrap();
        assert_eq!(super::api::aggregated(&checks), expected);
    }
}

#[test]
fn settings_are_checked_with_the_words_of_prometheus() {
    let config = build("{}").unwrap();
    assert_eq!(config.base.as_str(), "http://localhost:8500/");
    assert_eq!(config.refresh_interval, Duration::from_secs(30));
    assert!(config.allow_stale);
    assert_eq!(config.tag_separator, ",");
    let base = |yaml: &str| build(yaml).unwrap().base.to_string();
    assert_eq!(base("{server: 'https://c:1/p/q'}"), "https://c:1/p/q/");
    assert_eq!(base("{server: 'http://c', scheme: https}"), "https://c/");
    assert_eq!(base("{server: 'c:2', scheme: https, path_prefix: p}"), "https://c:2/p/");
    let cases = [
        ("{server: ' '}", "sd[0]: consul SD configuration requires a server address"),
        (
            "{username: u, password: p, basic_auth: {username: x}}",
            "sd[0]: at most one of consul SD configuration username and password and basic auth can be configured",
        ),
        (
            "{token: t, authorization: {credentials: x}}",
            "sd[0]: at most one of consul SD token, authorization, or oauth2 can be configured",
        ),
        ("{server: 'unix:///run/consul.sock'}", "sd[0].server: unknown protocol scheme \"unix\""),
        ("{scheme: ftp}", "sd[0].scheme: unknown scheme \"ftp\""),
        ("{server: 'a b'}", "sd[0].server: invalid server address"),
        ("{refresh_interval: 0s}", "sd[0].refresh_interval: refresh interval must be greater than 0"),
        ("{service: [a]}", "unknown field `service`"),
    ];
    for (yaml, expected) in cases {
        let error = build(yaml).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
    let token = |token: &str| build(&format!("{{token: {token}}}")).unwrap();
    assert!(token("a").same_as(&token("a")) && !token("a").same_as(&token("b")));
}
