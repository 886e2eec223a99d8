//! The HTTP API of the built program: shapes, status codes and texts that tools rely on.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::http::{encoded, send};
use support::nilometer::Nilometer;
use support::remote_write::{Series, write};

#[expect(clippy::disallowed_methods, reason = "samples lie around the real present")]
fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn server(dir: &std::path::Path) -> Nilometer {
    std::fs::write(dir.join("c.yml"), "# nothing to scrape\n").unwrap();
    Nilometer::start(dir, &["--config.file=c.yml", "--web.enable-remote-write-receiver"])
}

#[test]
fn written_samples_come_back_through_every_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let t = now_ms() / 1000 * 1000;
    let series = [
        Series::new(
            &[("__name__", "requests_total"), ("job", "a")],
            (0..10).map(|n| (t - (9 - n) * 1000, n as f64)),
        ),
        Series::new(&[("__name__", "odd"), ("job", "<b>\"é")], [(t, f64::INFINITY)]),
    ];
    assert_eq!(write(server.port, &series).unwrap().status, 204);

    let at = format!("time={}", t / 1000);
    let vector = server.api(&format!("query?query=requests_total&{at}"));
    let expected = json!({"resultType": "vector", "result": [
        {"metric": {"__name__": "requests_total", "job": "a"}, "value": [t / 1000, "9"]}]});
    assert_eq!(vector, expected);
    let range = server.api(&format!(
        "query_range?query=rate(requests_total[5s])&start={}&end={}&step=1",
        t / 1000 - 1,
        t / 1000
    ));
    assert_eq!(range["result"][0]["values"], json!([[t / 1000 - 1, "1"], [t / 1000, "1"]]));
    assert_eq!(server.api(&format!("query?query=odd&{at}"))["result"][0]["value"][1], "+Inf");
    assert_eq!(
        server.api(&format!("query?query=1%2B1&{at}")),
        json!({"resultType": "scalar", "result": [t / 1000, "2"]})
    );
    assert_eq!(server.api("labels"), json!(["__name__", "job"]));
    assert_eq!(server.api("label/job/values"), json!(["<b>\"é", "a"]));
    let found = server.api(&format!("series?match[]={}", encoded(r#"{job="a"}"#)));
    assert_eq!(found, json!([{"__name__": "requests_total", "job": "a"}]));
    assert_eq!(server.api("status/tsdb")["headStats"]["numSeries"], 2);
    assert_eq!(server.api("format_query?query=a%2Bb"), "a + b");
    let stats = server.api(&format!("query?query=requests_total&stats=true&{at}"));
    assert_eq!(stats["stats"]["samples"]["totalQueryableSamples"], 1);
    let limited =
        server.get(&format!("/api/v1/query?query={}&limit=1&{at}", encoded(r#"{job=~".+"}"#))).json();
    assert_eq!(limited["warnings"], json!(["results truncated due to limit"]));
}

#[test]
fn errors_have_prometheus_types_codes_and_texts() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let cases = [
        (
            "query?query=sum(",
            400,
            "bad_data",
            r#"invalid parameter "query": 1:5: parse error: unclosed left parenthesis"#,
        ),
        (
            "query?query=up&time=x",
            400,
            "bad_data",
            r#"invalid parameter "time": invalid time value for 'time': cannot parse "x" to a valid timestamp"#,
        ),
        (
            "query?query=up&timeout=1ns",
            400,
            "bad_data",
            r#"invalid parameter "timeout": cannot parse "1ns" to a valid duration"#,
        ),
        (
            "query_range?query=up&start=2&end=1&step=1",
            400,
            "bad_data",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        ),
        (
            "query_range?query=up&start=1&end=2&step=0",
            400,
            "bad_data",
            r#"invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            "query_range?query=up&start=0&end=11001&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        ("series", 400, "bad_data", "no match[] parameter provided"),
        ("rules?type=x", 400, "bad_data", r#"invalid parameter "type": not supported value "x""#),
    ];
    for (path, status, kind, text) in cases {
        let answer = server.get(&format!("/api/v1/{path}"));
        let body = answer.json();
        assert_eq!(answer.status, status, "{path}: {body}");
        assert_eq!((&body["errorType"], &body["error"]), (&Value::from(kind), &Value::from(text)), "{path}");
    }
    for (method, path, status) in [
        ("GET", "/api/v1/unknown", 404),
        ("PUT", "/api/v1/query", 405),
        ("HEAD", "/api/v1/query", 405),
        ("OPTIONS", "/api/v1/unknown", 204),
        ("HEAD", "/-/healthy", 200),
        ("POST", "/-/reload", 403),
        ("GET", "/-/reload", 405),
        ("POST", "/-/quit", 403),
    ] {
        let answer = send(server.port, method, path, &[("Origin", "http://x")], b"").unwrap();
        assert_eq!(answer.status, status, "{method} {path}");
        // What the router itself refuses has no CORS headers.
        let is_api = path.starts_with("/api/v1/") && !matches!(status, 404 | 405);
        assert_eq!(answer.head.contains("access-control-allow-origin: http://x"), is_api, "{}", answer.head);
    }
}

#[test]
fn methods_and_paths_are_answered_as_by_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    // Method, path, status, a line of the head, the body.
    let cases = [
        ("PUT", "/api/v1/query", 405, "allow: GET, OPTIONS, POST", "Method Not Allowed\n"),
        ("POST", "/-/healthy", 405, "allow: GET, HEAD, OPTIONS", "Method Not Allowed\n"),
        ("PATCH", "/-/reload", 405, "allow: GET, OPTIONS, POST, PUT", "Method Not Allowed\n"),
        (
            "GET",
            "/-/reload",
            405,
            "content-type: text/plain; charset=utf-8",
            "Only POST or PUT requests allowed",
        ),
        ("PUT", "/-/reload", 403, "x-content-type-options: nosniff", "Lifecycle API is not enabled.\n"),
        ("OPTIONS", "/version", 200, "allow: GET, OPTIONS", ""),
        ("OPTIONS", "/x", 404, "content-type: text/plain; charset=utf-8", "404 page not found\n"),
        (
            "GET",
            "/api/v1//query",
            301,
            "location: /api/v1/query",
            "<a href=\"/api/v1/query\">Moved Permanently</a>.\n\n",
        ),
        (
            "GET",
            "/-/healthy/?a=b",
            301,
            "location: /-/healthy?a=b",
            "<a href=\"/-/healthy?a=b\">Moved Permanently</a>.\n\n",
        ),
        ("POST", "/api/v1/labels/", 307, "location: /labels", ""),
        ("GET", "/api/v1/labels?start=1&end=2", 200, "vary: Origin", r#"{"status":"success","data":[]}"#),
        ("GET", "/api/v1/query_exemplars?query=1", 204, "vary: Origin", ""),
        (
            "GET",
            "/api/v1/query?query=1;2&time=3",
            400,
            "",
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": unknown position: parse error: no expression found in input"}"#,
        ),
        (
            "GET",
            "/api/v1/query?query=1e-7&time=3&x=%zz",
            200,
            "",
            r#"{"status":"success","data":{"resultType":"scalar","result":[3,"0.0000001"]}}"#,
        ),
        (
            "GET",
            "/api/v1/label/%FF/values",
            400,
            "",
            r#"{"status":"error","errorType":"bad_data","error":"invalid label name: \"\\xff\""}"#,
        ),
        ("GET", "/api/v1/label/a%2Fb/values", 404, "", "404 page not found\n"),
    ];
    for (method, path, status, line, body) in cases {
        let answer = send(server.port, method, path, &[], b"").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{method} {path}");
        assert!(
            line.is_empty() || answer.head.lines().any(|found| found == line),
            "{method} {path}: {}",
            answer.head
        );
    }
    let form = b"--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n7\r\n--b--\r\n";
    let kind = [("Content-Type", "multipart/form-data; boundary=b")];
    let answer = send(server.port, "POST", "/api/v1/query?time=5", &kind, form).unwrap();
    assert_eq!(answer.json()["data"]["result"], json!([5, "7"]));
}

#[test]
fn rule_groups_are_sorted_and_come_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("rules.yml"),
        "groups:\n- name: zwei\n  rules: [{record: a, expr: '1'}]\n- name: eins\n  rules: [{alert: B, expr: vector(1)}]\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("c.yml"), "rule_files: [rules.yml]\n").unwrap();
    let server = Nilometer::start(dir.path(), &["--config.file=c.yml"]);
    let names = |data: &Value| -> Vec<String> {
        let groups = data["groups"].as_array().unwrap();
        groups
            .iter()
            .map(|group| group["name"].as_str().unwrap().to_owned())
            .filter(|name| name.len() == 4)
            .collect()
    };
    let mine = format!("rules?file[]={}", encoded(&rules_file(&server)));
    assert_eq!(names(&server.api(&mine)), ["eins", "zwei"]);
    let first = server.api(&format!("{mine}&group_limit=1"));
    assert_eq!(names(&first), ["eins"]);
    let token = first["groupNextToken"].as_str().unwrap();
    let second = server.api(&format!("{mine}&group_limit=1&group_next_token={token}"));
    assert_eq!((names(&second), &second["groupNextToken"]), (vec!["zwei".to_owned()], &Value::Null));
    let without = server.api(&format!("{mine}&exclude_alerts=true&type=alert"));
    assert_eq!(without["groups"][0]["rules"][0]["alerts"], Value::Null);
}

/// How the server names the rule file of the configuration.
fn rules_file(server: &Nilometer) -> String {
    let groups = server.api("rules")["groups"].take();
    let found = groups.as_array().unwrap().iter().find(|group| group["name"] == "eins").unwrap();
    found["file"].as_str().unwrap().to_owned()
}

#[test]
fn connections_beyond_the_bound_wait_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.yml"), "# nothing to scrape\n").unwrap();
    let server = Nilometer::start(dir.path(), &["--config.file=c.yml", "--web.max-connections=2"]);
    let connect = || std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let port = server.port;
    let idle = [connect(), connect()];
    let waiting = std::thread::spawn(move || send(port, "GET", "/-/healthy", &[], b"").unwrap().status);
    // Nothing can be asked while all places are taken; a moment later the third is still waiting.
    std::thread::park_timeout(std::time::Duration::from_millis(300));
    assert!(!waiting.is_finished());
    drop(idle);
    assert_eq!(waiting.join().unwrap(), 200);
    let page = server.get("/metrics").body;
    let value = |name: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    assert!(value("nilometer_http_connections_full_total ") >= 1.0, "{page}");
    assert!(value("nilometer_http_connections ") >= 1.0, "{page}");
    assert!(page.contains(r#"handler="/-/healthy""#), "{page}");
}

#[test]
fn refused_writes_say_why_and_store_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let t = now_ms();
    let write_one = |samples: &[(i64, f64)]| {
        write(server.port, &[Series::new(&[("__name__", "m")], samples.iter().copied())]).unwrap()
    };
    assert_eq!(write_one(&[(t, 1.0)]).status, 204);
    let old = write_one(&[(t - 1000, 1.0)]);
    assert!(old.status == 400 && old.body.contains("out of order sample"), "{old:?}");
    let future = write_one(&[(t + 3_600_000, 1.0)]);
    assert!(future.status == 400 && future.body.contains("out of bounds"), "{future:?}");
    let gzip = send(server.port, "POST", "/api/v1/write", &[("Content-Encoding", "gzip")], b"x").unwrap();
    assert_eq!(gzip.status, 415);
    let bomb = send(
        server.port,
        "POST",
        "/api/v1/write",
        &[("Content-Encoding", "snappy")],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
    )
    .unwrap();
    assert_eq!(bomb.status, 400);
    assert_eq!(server.query("count_over_time(m[1h])")[0]["value"][1], "1");
}

#[test]
fn the_embedded_alertmanager_answers_amtools_api() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let headers = [("Content-Type", "application/json")];
    let posted = send(
        server.port,
        "POST",
        "/api/v2/alerts",
        &headers,
        br#"[{"labels":{"alertname":"A","queue":"q"}}]"#,
    )
    .unwrap();
    assert_eq!(posted.status, 200, "{posted:?}");
    let silence = br#"{"matchers":[{"name":"queue","value":"q","isRegex":false}],"startsAt":"2020-01-01T00:00:00Z","endsAt":"2099-01-01T00:00:00Z","createdBy":"me","comment":"test"}"#;
    let made = send(server.port, "POST", "/api/v2/silences", &headers, silence).unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let id = made.json()["silenceID"].as_str().unwrap().to_owned();
    let alerts = server.get("/api/v2/alerts").json();
    assert_eq!(alerts[0]["status"]["state"], "suppressed", "{alerts}");
    assert_eq!(alerts[0]["status"]["silencedBy"][0], id.as_str());
    assert_eq!(server.get("/api/v2/alerts?silenced=false").json(), json!([]));
    assert_eq!(send(server.port, "DELETE", &format!("/api/v2/silence/{id}"), &[], b"").unwrap().status, 200);
    assert_eq!(server.get("/api/v2/alerts").json()[0]["status"]["state"], "active");
}
