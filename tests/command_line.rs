//! The built program: what it says about mistakes, and that a bad file changes nothing.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::path::Path;
use std::process::Command;

use support::http::send;
use support::nilometer::Nilometer;
use support::wait_for;

/// Exit code and standard output of `nilometer check config`, run in `dir`.
fn check(dir: &Path, what: &str, file: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nilometer"))
        .current_dir(dir)
        .args(["check", what, file])
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn write(dir: &Path, file: &str, text: &str) {
    std::fs::write(dir.join(file), text).unwrap();
}

#[test]
fn mistakes_come_with_file_line_column_and_the_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "rules.yml", "groups:\n- name: g\n  rules:\n  - {alert: A, expr: 'sum('}\n");
    let cases = [
        (
            "global:\n  scrape_intervall: 5s\n",
            "c.yml:2:3: global: unknown field `scrape_intervall`; did you mean `scrape_interval`?",
        ),
        (
            "global:\n  scrape_interval: five\n",
            "c.yml:2:20: global.scrape_interval: not a valid duration string: \"five\"",
        ),
        (
            "scrape_configs:\n- job_name: a\n- job_name: a\n",
            "c.yml:3:3: scrape_configs[1].job_name: found multiple scrape configs with job name \"a\"",
        ),
        (
            "scrape_configs:\n- job_name: a\n  consul_sd_configs: [{}]\n",
            "c.yml:3:3: scrape_configs[0].consul_sd_configs: discovery kind consul is not supported yet",
        ),
        ("scrape_configs:\n- job_name: a\n  collector: kafkaa\n", "c.yml:3:3: scrape_configs[0].collector: "),
        (
            "storage:\n  tsdb:\n    retention_rules:\n    - matchers: ['job=x']\n      duration: 1d\n",
            "c.yml:4:18: storage.tsdb.retention_rules[0].matchers[0]: \"job=x\" is no matcher: ",
        ),
        (
            "storage: {tsdb: {retention_rules: [{matchers: [], duration: 1d}]}}\n",
            "c.yml:1:37: storage.tsdb.retention_rules[0].matchers: at least one matcher is needed",
        ),
        ("remote_write: [{url: x}]\n", "c.yml:1:1: remote_write: remote_write is not supported yet"),
        (
            "alertmanager:\n  route: {receiver: nope}\n  receivers: [{name: a}]\n",
            "c.yml:2:11: alertmanager.route.receiver: undefined receiver \"nope\" used in route",
        ),
        (
            "rule_files: [rules.yml]\n",
            "rules.yml:4:16: groups[0].rules[0].expr: could not parse expression: 1:5: parse error: unclosed left parenthesis",
        ),
        ("rule_files: [absent.yml]\n", "c.yml:1:14: rule_files[0]: absent.yml does not exist"),
        (
            "builtin_rules: {overrides: {QueueNoConsumer: {for: 1m}}}\n",
            "there is no built-in rule \"QueueNoConsumer\"",
        ),
        ("rule_files: [a, b\nglobal: {}\n", "c.yml:2:7: "),
    ];
    for (text, expected) in cases {
        write(dir, "c.yml", text);
        let (code, output) = check(dir, "config", "c.yml");
        assert!(
            code == 1 && output.starts_with("c.yml: FAILED\n") && output.contains(expected),
            "{text}\n{output}"
        );
    }
    let (code, output) = check(dir, "rules", "rules.yml");
    assert!(code == 1 && output.contains("unclosed left parenthesis"), "{output}");
    write(dir, "c.yml", "scrape_configs: [{job_name: a, static_configs: [{targets: ['h:1']}]}]\n");
    assert_eq!(check(dir, "config", "c.yml"), (0, "c.yml: OK, 1 scrape jobs, 0 rules\n".to_owned()));
    assert_eq!(check(dir, "config", "absent.yml").0, 1);
}

#[test]
fn a_server_with_a_wrong_configuration_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "c.yml", "globall: {}\n");
    let output = Command::new(env!("CARGO_BIN_EXE_nilometer"))
        .current_dir(dir.path())
        .args(["--config.file=c.yml", "--web.listen-address=127.0.0.1:0"])
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("c.yml:1:1: unknown field `globall`; did you mean `global`?"), "{log}");
    assert!(!dir.path().join("data").exists(), "nothing may be touched");
}

#[test]
fn a_bad_reload_changes_nothing_and_a_good_one_everything() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let config = |job: &str| {
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: {job}\n  basic_auth: {{username: u, password: hunter2}}\n  static_configs: [{{targets: ['127.0.0.1:1']}}]\n"
        )
    };
    write(dir, "c.yml", &config("one"));
    let server = Nilometer::start(dir, &["--config.file=c.yml", "--web.enable-lifecycle"]);
    let pools = || server.api("scrape_pools")["scrapePools"].to_string();
    assert_eq!(pools(), r#"["one"]"#);

    write(dir, "c.yml", "scrape_configs: [{job_name: two, sample_limit: many}]\n");
    let answer = send(server.port, "POST", "/-/reload", &[], b"").unwrap();
    assert!(answer.status == 500 && answer.body.contains("c.yml:1:"), "{answer:?}");
    assert_eq!(pools(), r#"["one"]"#);
    assert!(server.get("/metrics").body.contains("prometheus_config_last_reload_successful 0"));
    assert_eq!(server.api("status/runtimeinfo")["reloadConfigSuccess"], false);

    write(dir, "c.yml", &config("three"));
    server.signal("HUP");
    wait_for("the reload", || (pools() == r#"["three"]"#).then_some(()));
    let yaml = server.api("status/config")["yaml"].to_string();
    assert!(yaml.contains("three") && yaml.contains("<secret>") && !yaml.contains("hunter2"), "{yaml}");
    assert!(!server.log().contains("hunter2"));
    assert!(server.stop());
}

#[test]
fn two_servers_do_not_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = Nilometer::start(dir.path(), &["--discovery.loopback=off"]);
    let output = Command::new(env!("CARGO_BIN_EXE_nilometer"))
        .current_dir(dir.path())
        .args(["--web.listen-address=127.0.0.1:0", "--discovery.loopback=off"])
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && log.contains(&first.pid().to_string()), "{log}");
}
