//! Configurations that must be accepted and refused, as the real Alertmanager does; errors name their place.

use std::path::Path;

use super::*;
use crate::route::GroupBy;

fn parse(yaml: &str) -> Result<AlertmanagerConfig, String> {
    AlertmanagerConfig::parse(yaml, Path::new("/etc/am")).map_err(|error| error.to_string())
}

fn with_receiver(receiver: &str) -> Result<AlertmanagerConfig, String> {
    parse(&format!("{{route: {{receiver: r}}, receivers: [{{name: r, {receiver}}}]}}"))
}

#[test]
fn accepts_the_edges() {
    let accepted = [
        "{route: {receiver: r}, receivers: [{name: r}]}",
        "{route: {receiver: r, group_by: []}, receivers: [{name: r}]}",
        "{route: {receiver: r, group_wait: 1m30s, group_interval: 1h5m, repeat_interval: 1d12h}, receivers: [{name: r}]}",
        "{route: {receiver: r, group_wait: 0}, receivers: [{name: r}]}",
        "{route: {receiver: r, routes: [{matchers: ['a=b', 'c=\"d\"', 'e=~f.*', 'g!=', 'h!~\"\"']}]}, receivers: [{name: r}]}",
        "{route: {receiver: r, group_by: ['with.dot', 'ключ'], routes: [{matchers: ['\"with.dot\"=\"1\"']}]}, receivers: [{name: r}]}",
        "{global: {resolve_timeout: 1m, http_config: {follow_redirects: false}}, route: {receiver: r}, receivers: [{name: r}]}",
        "{route: {receiver: r, continue: false}, receivers: [{name: r}, {name: unused}]}",
        "{route: {receiver: r}, receivers: [{name: r}], time_intervals: [{name: t, time_intervals: [{times: [{start_time: '00:00', end_time: '24:00'}], weekdays: ['monday:friday', 'Sunday'], days_of_month: ['1:5', '-3:-1', '1:-1'], months: ['1:3', 'may:august', 'december'], years: ['2020:2030', 2031], location: Europe/Berlin}]}]}",
        "{route: {receiver: r}, receivers: [{name: r}], inhibit_rules: [{equal: [a]}]}",
        "{route: {receiver: r}, receivers: [{name: r, webhook_configs: [{url: 'http://x.example/', send_resolved: false, max_alerts: 3, timeout: 10s, http_config: {tls_config: {insecure_skip_verify: true}}}]}]}",
        "{route: {receiver: r}, receivers: [{name: r, webhook_configs: [{url: '{{ .CommonLabels.url }}'}], labels: {team: 1}}]}",
        "{route: {receiver: r, group_interval: 5m, repeat_interval: 1m, labels: {a: '{{ .Status }}'}}, receivers: [{name: r}]}",
        "{route: {receiver: r, routes: [{match: {code: 500}, match_re: {e: 'f|g'}}]}, receivers: [{name: r}], templates: ['/nonexistent/*.tmpl']}",
        "{route: {receiver: r}, receivers: [{name: r, slack_configs: []}], mute_time_intervals: [{name: t}]}",
    ];
    for yaml in accepted {
        if let Err(error) = parse(yaml) {
            panic!("{error}: {yaml}");
        }
    }
}

#[test]
fn refuses_with_the_place() {
    let refused = [
        ("{receivers: [{name: r}]}", "no route provided"),
        ("{route: {receiver: r}}", "route.receiver: undefined receiver \"r\" used in route"),
        ("{route: {}, receivers: [{name: r}]}", "route: root route must specify a default receiver"),
        (
            "{route: {receiver: r, matchers: [a=b]}, receivers: [{name: r}]}",
            "route.matchers: root route must not have any matchers",
        ),
        (
            "{route: {receiver: r, match: {a: b}}, receivers: [{name: r}]}",
            "route.match: root route must not have any matchers",
        ),
        (
            "{route: {receiver: r, mute_time_intervals: [t]}, receivers: [{name: r}], time_intervals: [{name: t}]}",
            "route.mute_time_intervals: root route must not have any mute time intervals",
        ),
        (
            "{route: {receiver: r, continue: true}, receivers: [{name: r}]}",
            "route.continue: cannot have continue in root route",
        ),
        (
            "{route: {receiver: r, routes: [{receiver: x}]}, receivers: [{name: r}]}",
            "route.routes[0].receiver: undefined receiver \"x\" used in route",
        ),
        (
            "{route: {receiver: r, group_by: [a, a]}, receivers: [{name: r}]}",
            "route.group_by[1]: duplicated label \"a\" in group_by",
        ),
        (
            "{route: {receiver: r, group_by: [a, '...']}, receivers: [{name: r}]}",
            "route.group_by: cannot have wildcard group_by (`...`) and other labels at the same time",
        ),
        (
            "{route: {receiver: r, group_interval: 0s}, receivers: [{name: r}]}",
            "route.group_interval: group_interval cannot be zero",
        ),
        (
            "{route: {receiver: r, repeat_interval: 0s}, receivers: [{name: r}]}",
            "route.repeat_interval: repeat_interval cannot be zero",
        ),
        (
            "{route: {receiver: r, routes: [{matchers: ['a']}]}, receivers: [{name: r}]}",
            "route.routes[0].matchers[0]: bad matcher format: a",
        ),
        (
            "{route: {receiver: r, routes: [{active_time_intervals: [t]}]}, receivers: [{name: r}]}",
            "route.routes[0].active_time_intervals[0]: undefined time interval \"t\" used in route",
        ),
        (
            "{route: {receiver: r}, receivers: [{name: r}, {name: r}]}",
            "receivers[1].name: notification config name \"r\" is not unique",
        ),
        ("{route: {receiver: r}, receivers: [{name: r}, {}]}", "receivers[1]: missing name in receiver"),
        (
            "{route: {receiver: r}, receivers: [{name: r}], time_intervals: [{name: t}, {name: t}]}",
            "time_intervals[1].name: time interval \"t\" is not unique",
        ),
        (
            "{route: {receiver: r}, receivers: [{name: r}], time_intervals: [{name: t, time_intervals: [{times: [{start_time: '10:00'}]}]}]}",
            "time_intervals[0].time_intervals[0].times[0]: both start and end times must be provided",
        ),
        (
            "{route: {receiver: r}, receivers: [{name: r}], time_intervals: [{name: t, time_intervals: [{location: X/Y}]}]}",
            "time_intervals[0].time_intervals[0].location: unknown time zone X/Y",
        ),
        (
            "{route: {receiver: r}, receivers: [{name: r}], tracing: {endpoint: x}}",
            "tracing: tracing is not supported yet",
        ),
        (
            "{global: {slack_api_url: a, slack_api_url_file: b}, route: {receiver: r}, receivers: [{name: r}]}",
            "global.slack_api_url_file: at most one of slack_api_url & slack_api_url_file must be configured",
        ),
        (
            "{global: {opsgenie_api_url: 'ftp://x'}, route: {receiver: r}, receivers: [{name: r}]}",
            "global.opsgenie_api_url: unsupported scheme \"ftp\" for URL",
        ),
    ];
    for (yaml, want) in refused {
        assert_eq!(parse(yaml).map(|_| ()).unwrap_err(), want, "{yaml}");
    }
    let unknown = parse("{route: {receiver: r, grup_by: [a]}, receivers: [{name: r}]}").unwrap_err();
    assert!(unknown.contains("unknown field `grup_by`"), "{unknown}");
}

#[test]
fn receivers_are_checked() {
    let email = "email_configs: [{to: x@y.example";
    let refused = [
        (
            "webhook_configs: [{}]".to_owned(),
            "receivers[0].webhook_configs[0]: one of url or url_file must be configured",
        ),
        (
            "webhook_configs: [{url: 'http://x', url_file: f}]".to_owned(),
            "receivers[0].webhook_configs[0].url_file: at most one of url & url_file must be configured",
        ),
        (
            "webhook_configs: [{url: 'ftp://x'}]".to_owned(),
            "receivers[0].webhook_configs[0].url: unsupported scheme \"ftp\" for URL",
        ),
        (
            "slack_configs: [{channel: x}]".to_owned(),
            "receivers[0].slack_configs: receiver kind slack is not supported yet",
        ),
        (
            "email_configs: [{}]".to_owned(),
            "receivers[0].email_configs[0]: missing to address in email config",
        ),
        (format!("{email}}}]"), "receivers[0].email_configs[0]: no global SMTP smarthost set"),
        (format!("{email}, smarthost: 'h:25'}}]"), "receivers[0].email_configs[0]: no global SMTP from set"),
        (
            format!("{email}, smarthost: h, from: a@b.example}}]"),
            "receivers[0].email_configs[0].smarthost: address \"h\": missing port in address",
        ),
        (
            format!("{email}, smarthost: 'h:25', from: a@b.example, headers: {{subject: a, Subject: b}}}}]"),
            "receivers[0].email_configs[0].headers.subject: duplicate header \"Subject\" in email config",
        ),
    ];
    for (receiver, want) in refused {
        assert_eq!(with_receiver(&receiver).map(|_| ()).unwrap_err(), want, "{receiver}");
    }
    let broken = with_receiver("webhook_configs: [{url: 'http://x/{{ .Foo'}]").unwrap_err();
    assert!(broken.starts_with("receivers[0].webhook_configs[0].url: template: "), "{broken}");
}

#[test]
fn routes_inherit_and_have_keys() {
    let config = parse(
        "route:\n  receiver: r\n  group_by: [b, a]\n  group_wait: 1s\n  labels: {x: '1'}\n  routes:\n  \
         - matchers: [z=1, 'a=~\"x.*\"']\n    receiver: s\n    labels: {y: '2'}\n    routes:\n    - match_re: {e: f|g}\n      match: {d: c}\n      group_by: []\n  \
         - group_by: ['...']\n\
         receivers: [{name: r}, {name: s}]\n",
    )
    .unwrap();
    let root = &config.route;
    let labels = |names: &[&str]| GroupBy::Labels(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!((root.key.as_str(), &root.group_by), ("{}", &labels(&["a", "b"])));
    assert_eq!(
        (root.group_wait.as_secs(), root.group_interval.as_secs(), root.repeat_interval.as_secs()),
        (1, 300, 14_400)
    );
    let child = &root.routes[0];
    assert_eq!(child.key, r#"{}/{a=~"x.*",z="1"}"#, "matchers are sorted");
    assert_eq!(
        (child.receiver.as_str(), child.group_wait.as_secs(), &child.group_by),
        ("s", 1, &labels(&["a", "b"]))
    );
    let grandchild = &child.routes[0];
    assert_eq!(grandchild.key, r#"{}/{a=~"x.*",z="1"}/{d="c",e=~"^(?:f|g)$"}"#);
    assert_eq!(
        (grandchild.receiver.as_str(), &grandchild.group_by),
        ("s", &labels(&[])),
        "an empty list is a list"
    );
    assert_eq!(grandchild.labels.len(), 2);
    assert_eq!(root.routes[1].group_by, GroupBy::All);
    let ids: Vec<usize> = root.walk().iter().map(|route| route.id).collect();
    assert_eq!(ids, [3, 1, 2, 0], "children before parents");
}

#[test]
fn the_configuration_prints_back_without_secrets() {
    let yaml = "global: {smtp_smarthost: 'h:25', smtp_from: a@b.example, smtp_auth_password: hunter2}\n\
        route: {receiver: r, routes: [{match: {c: d}, matchers: ['a=1'], continue: true, group_wait: 90s}]}\n\
        receivers: [{name: r, webhook_configs: [{url: 'http://u:hunter2@x.example/hunter2', http_config: {basic_auth: {username: u, password: hunter2}}, payload: {token: hunter2}}], email_configs: [{to: c@d.example, auth_secret: hunter2}]}]\n";
    let config = parse(yaml).unwrap();
    assert!(!config.original.contains("hunter2"), "{}", config.original);
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    let raw: RawAlertmanagerConfig = serde_yaml::from_str(yaml).unwrap();
    assert!(!format!("{raw:?}").contains("hunter2"), "{raw:?}");
    let again: serde_yaml::Value = serde_yaml::from_str(&config.original).unwrap();
    let route = &again["route"]["routes"][0];
    assert_eq!(route["matchers"][0].as_str(), Some("a=\"1\""));
    assert_eq!((route["group_wait"].as_str(), route["continue"].as_bool()), (Some("1m30s"), Some(true)));
    assert_eq!(again["receivers"][0]["webhook_configs"][0]["url"].as_str(), Some("<secret>"));
    assert_eq!(again["receivers"][0]["email_configs"][0]["headers"]["From"].as_str(), Some("a@b.example"));
}
