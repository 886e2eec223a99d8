//! HTTP discovery against a server that behaves well, badly, and not at all.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::http::{HttpSdConfig, RawHttpSdConfig};
use super::testing::{Answer, ApiServer, Running, eventually, place};
use super::{DiscoveryConfig, StaticConfig};

fn build(yaml: &str) -> Result<HttpSdConfig, String> {
    let raw: RawHttpSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    let (path, dir) = place();
    raw.build(&path, dir).map_err(|error| error.to_string())
}

/// A server whose answer can be changed.
async fn server(first: Answer) -> (ApiServer, Arc<Mutex<Answer>>) {
    let answer = Arc::new(Mutex::new(first));
    let now = Arc::clone(&answer);
    (ApiServer::start(move |_| now.lock().clone()).await, answer)
}

const TWO_GROUPS: &str = r#"[
    {"targets": ["10.0.10.2:9100", "10.0.10.3:9100"], "labels": {"__meta_datacenter": "london", "env": "prod"}},
    {"targets": ["10.0.40.2:9100"]}
]"#;

#[tokio::test]
async fn groups_come_change_and_go() {
    let (server, answer) = server(Answer::json(TWO_GROUPS)).await;
    let url = server.url("/targets?team=a");
    let config =
        build(&format!("{{url: '{url}', refresh_interval: 20ms, authorization: {{credentials: hunter2}}}}"))
            .unwrap();
    let mut running = Running::start(&config);
    running.next().await;
    assert_eq!(running.groups.keys().cloned().collect::<Vec<_>>(), [format!("{url}:0"), format!("{url}:1")]);
    let targets = running.targets();
    assert_eq!(running.addresses(), ["10.0.10.2:9100", "10.0.10.3:9100", "10.0.40.2:9100"]);
    assert_eq!(
        targets[0].to_string(),
        format!(
            r#"{{__address__="10.0.10.2:9100", __meta_datacenter="london", __meta_url="{url}", env="prod"}}"#
        )
    );
    assert_eq!(targets[2].value("__meta_url"), url);
    let asked = server.asked().remove(0);
    assert_eq!((asked.path.as_str(), asked.query_text.as_str()), ("/targets", "team=a"));
    assert_eq!((asked.method.as_str(), asked.body.len()), ("GET", 0));
    assert_eq!(asked.header("accept"), "application/json");
    assert_eq!(asked.header("x-prometheus-refresh-interval-seconds"), "0.02");
    assert_eq!(asked.header("user-agent"), "Nilometer/test");
    assert_eq!(asked.header("authorization"), "Bearer hunter2");

    let count = server.asked().len();
    eventually("three more refreshes", || server.asked().len() > count + 3).await;
    assert!(!running.has_spoken(), "an unchanged answer sends nothing");

    *answer.lock() = Answer::json(r#"[{"targets": ["10.0.10.2:9100"]}]"#)
        .with("content-type", "Application/JSON; charset=\"utf-8\"");
    running.next().await;
    assert_eq!(running.addresses(), ["10.0.10.2:9100"]);
    *answer.lock() = Answer::json("[]");
    running.next().await;
    assert_eq!(running.addresses(), [] as [&str; 0]);
    assert_eq!(running.metrics.http_failures.get(), 0);
}

#[tokio::test]
async fn whatever_goes_wrong_the_targets_stay() {
    let (server, answer) = server(Answer::json(TWO_GROUPS)).await;
    let config = build(&format!("{{url: '{}', refresh_interval: 20ms}}", server.url("/"))).unwrap();
    let mut running = Running::start(&config);
    running.next().await;
    let huge = format!("[{}]", " ".repeat((64 << 20) + 1));
    let bad = [
        Answer::new(500, "[]").with("content-type", "application/json"),
        Answer::new(204, ""),
        Answer::json("[]").with("content-type", "text/html"),
        Answer::json("[]").with("content-type", "application/json; charset=latin1"),
        Answer::new(200, "[]"),
        Answer::json("[{]"),
        Answer::json("[null]"),
        Answer::json(r#"{"targets": []}"#),
        Answer::json(r#"[{"targets": [1]}]"#),
        Answer::json(r#"[{"targets": [], "lables": {}}]"#),
        Answer::json(r#"[{"labels": {"": "x"}}]"#),
        Answer::json("[]").late(Duration::from_secs(5)),
        Answer::json(huge),
    ];
    for bad in bad {
        let what = format!("{bad:?}").chars().take(200).collect::<String>();
        let failures = running.metrics.http_failures.get();
        *answer.lock() = bad;
        eventually(&what, || running.metrics.http_failures.get() > failures + 1).await;
        assert!(!running.has_spoken(), "{what}");
        assert_eq!(running.metrics.troubles("job").len(), 1, "{what}");
    }
    // It flaps back to what it was: nothing to say. Then something new.
    *answer.lock() = Answer::json(TWO_GROUPS);
    let count = server.asked().len();
    eventually("good answers", || server.asked().len() > count + 2).await;
    assert!(!running.has_spoken() && running.metrics.troubles("job").is_empty());
    *answer.lock() = Answer::json(r#"[{"targets": ["a:1"]}]"#);
    running.next().await;
    assert_eq!(running.addresses(), ["a:1"]);
    let failures = running.metrics.refresh_failures.with_label_values(&["http", "job"]).get();
    assert_eq!(failures, running.metrics.http_failures.get());
}

#[tokio::test]
async fn a_password_in_the_url_is_sent_and_not_shown() {
    let (server, _) = server(Answer::json(r#"[{"targets": ["a:1"]}]"#)).await;
    let url = server.url("/t").replace("http://", "http://me:hunter2@");
    let config = build(&format!("{{url: '{url}'}}")).unwrap();
    let mut running = Running::start(&config);
    running.next().await;
    assert_eq!(server.asked()[0].header("authorization"), "Basic bWU6aHVudGVyMg==");
    let shown = format!("{:?} {:?} {}", running.groups, running.targets(), config.identity());
    assert!(shown.contains("me:xxxxx@") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn settings_are_checked_with_the_words_of_prometheus() {
    let cases = [
        ("{}", "sd[0]: URL is missing"),
        ("{url: 'ftp://a/'}", "sd[0].url: URL scheme must be 'http' or 'https'"),
        ("{url: localhost}", "sd[0].url: URL scheme must be 'http' or 'https'"),
        ("{url: 'http://'}", "sd[0].url: host is missing in URL"),
        ("{url: 'http://a:pass word@b:x'}", "sd[0].url: invalid URL: invalid port number"),
        ("{url: 'http://a', refresh_interval: 0s}", "refresh interval must be greater than 0"),
        ("{url: 'http://a', basic_auth: {}, bearer_token: x}", "sd[0]: at most one of basic_auth"),
        ("{url: 'http://a', urls: []}", "unknown field `urls`"),
    ];
    for (yaml, expected) in cases {
        let error = build(yaml).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}

#[test]
fn a_reload_with_another_secret_is_another_discovery() {
    let config = |secret: &str| build(&format!("{{url: 'http://a', bearer_token: {secret}}}")).unwrap();
    assert!(config("one").same_as(&config("one")));
    assert!(!config("one").same_as(&config("two")));
    assert!(!config("one").same_as(&StaticConfig { groups: vec![] }));
}
