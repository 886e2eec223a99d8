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
            "scrape_configs:\n- job_name: a\n  azure_sd_configs: [{}]\n",
            "c.yml:3:3: scrape_configs[0].azure_sd_configs: discovery kind azure is not supported yet",
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

#[test]
fn promql_scripts_are_played_and_differences_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(
        dir,
        "good.test",
        "load 1m\n  m{a=\"b\"} 1 2 3\n\neval instant at 1m m\n  m{a=\"b\"} 2\n\neval instant at 1m max_of(1, 2)\n  2\n",
    );
    write(
        dir,
        "bad.test",
        "load 1m\n  m 1 2 3\n  n {{count:1 sum:2 buckets:[1]}}\n\neval range from 0 to 2m step 1m m * 2\n  {} 2 4 7\n\n\
         eval instant at 0 n\n  n {{count:1 sum:3 buckets:[1]}}\n\neval instant at 1m sum(\n  expect fail msg: no\n\n\
         eval instant at 0 quantile(2, m)\n  expect no_warn\n  {} Inf\n",
    );
    write(dir, "broken.test", "load 1m\n  m 1\n\nevil instant at 0 m\n");
    let test = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_nilometer"))
            .current_dir(dir)
            .args(["test", "promql"])
            .args(args)
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(test(&["good.test"]), (0, "good.test: 2/2\n2 passed, 0 failed\n".to_owned()));
    let (code, out) = test(&["good.test", "bad.test", "broken.test"]);
    let want = r#"good.test: 2/2
bad.test: 0/4
FAIL bad.test:5: m * 2
  {} at 120000 ms: expected 7, got 6
  - expected, + got:
    - {} 2 4 7
    + {} 2 4 6
FAIL bad.test:8: n
  n: expected {{count:1 sum:3 buckets:[1]}}, got {{count:1 sum:2 buckets:[1]}}
  - expected, + got:
    - n {{count:1 sum:3 buckets:[1]}}
    + n {{count:1 sum:2 buckets:[1]}}
FAIL bad.test:11: sum(
  failed otherwise than expected (Text("no")): 1:5: parse error: unclosed left parenthesis
  - expected, + got:
    - expect fail msg: no
    + expect fail msg: 1:5: parse error: unclosed left parenthesis
FAIL bad.test:14: quantile(2, m)
  unexpected warning: ["PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)"]
  - expected, + got:
    - expect no_warn
    + expect warn msg: PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)
      {} Inf
broken.test: FAILED
  broken.test:4: invalid command "evil instant at 0 m"
2 passed, 4 failed, 1 files not run
"#;
    assert_eq!((code, out.as_str()), (1, want));
    let (code, out) = test(&["--enable-feature=promql-duration-expr", "good.test"]);
    assert!(code == 1 && out.ends_with("1 passed, 1 failed\n") && out.contains("is not enabled"), "{out}");
}

#[test]
fn a_check_of_targets_says_what_is_found_kept_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "c.yml", "# nothing to scrape\n");
    let server = Nilometer::start(dir, &["--config.file=c.yml"]);
    let job = |more: &str| {
        format!(
            "scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['127.0.0.1:{}', 'drop:1']}}]\n  \
             relabel_configs: [{{source_labels: [__address__], regex: 'drop.*', action: drop}}]\n{more}",
            server.port
        )
    };
    write(
        dir,
        "t.yml",
        &job(
            "  metric_relabel_configs: [{source_labels: [__name__], regex: 'process_threads', action: drop}]\n",
        ),
    );
    let (code, output) = check(dir, "target", "t.yml");
    assert_eq!(code, 0, "{output}");
    for expected in [
        "job \"self\": 2 found, 1 kept, 1 dropped, 0 the same as others, 0 invalid\n",
        "rule 1: drop where [__address__] matches \"drop.*\": drops the target\n",
        ", classic text (text/plain; version=0.0.4",
        "    drops:  process_threads\n",
        "    up, in ",
    ] {
        assert!(output.contains(expected), "{expected}\n{output}");
    }
    write(dir, "t.yml", &job("  sample_limit: 5\n"));
    let (code, output) = check(dir, "target", "t.yml");
    assert!(
        code == 1 && output.contains("DOWN, after ") && output.contains("sample limit exceeded"),
        "{output}"
    );
    write(dir, "t.yml", "scrape_configs: [{job_name: j, static_configs: [{targets: [a/b]}]}]\n");
    let (code, output) = check(dir, "target", "t.yml");
    assert!(code == 1 && output.starts_with("t.yml: FAILED\n"), "{output}");
}

#[test]
fn scrape_files_and_failure_logs_follow_reloads() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("jobs")).unwrap();
    write(
        dir,
        "c.yml",
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms, scrape_failure_log_file: failed.log}\n\
         scrape_config_files: ['jobs/*.yml']\n",
    );
    let job = |name: &str| {
        format!(
            "scrape_configs: [{{job_name: {name}, static_configs: [{{targets: ['127.0.0.1:1']}}], \
             relabel_configs: [{{target_label: team, replacement: q}}]}}]\n"
        )
    };
    write(dir, "jobs/a.yml", &job("a"));
    let server = Nilometer::start(dir, &["--config.file=c.yml", "--web.enable-lifecycle"]);
    let lines = || std::fs::read_to_string(dir.join("failed.log")).unwrap_or_default();
    wait_for("a line", || lines().contains(r#""job_name":"a""#).then_some(()));
    assert_eq!(server.api("scrape_pools"), serde_json::json!({"scrapePools": ["a"]}));
    let yaml = server.api("scrape_pools/config?scrapePool=a")["yaml"].as_str().unwrap().to_owned();
    assert!(yaml.starts_with("job_name: a\nstatic_configs:\n"), "{yaml}");
    let steps = server.api("targets/relabel_steps?scrapePool=a&labels=%7B%22x%22:%22y%22%7D");
    assert_eq!(
        steps,
        serde_json::json!({"steps": [{
            "rule": {"separator": ";", "regex": "(.*)", "targetLabel": "team", "replacement": "q", "action": "replace"},
            "output": {"team": "q", "x": "y"},
            "keep": true,
        }]})
    );
    let body = server.get("/api/v1/targets/body?scrapePool=a&scrapeUrl=http://127.0.0.1:1/metrics");
    assert_eq!(body.status, 404, "{}", body.body);
    // Another file, and the log was moved away.
    write(dir, "jobs/b.yml", &job("b"));
    std::fs::rename(dir.join("failed.log"), dir.join("old.log")).unwrap();
    assert_eq!(send(server.port, "POST", "/-/reload", &[], b"").unwrap().status, 200);
    assert_eq!(server.api("scrape_pools"), serde_json::json!({"scrapePools": ["a", "b"]}));
    wait_for("both in the new log", || {
        let text = lines();
        (text.contains(r#""job_name":"a""#) && text.contains(r#""job_name":"b""#)).then_some(())
    });
    // A pattern that finds the same job twice is a mistake, and changes nothing.
    write(dir, "jobs/c.yml", &job("a"));
    let refused = send(server.port, "POST", "/-/reload", &[], b"").unwrap();
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("found multiple scrape configs with job name \"a\""), "{}", refused.body);
    assert_eq!(server.api("scrape_pools"), serde_json::json!({"scrapePools": ["a", "b"]}));
}
