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
            r#"invalid parameter "time": cannot parse "x" to a valid timestamp"#,
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
        if path.starts_with("/api/v1/") && status != 404 {
            assert!(answer.head.contains("access-control-allow-origin: http://x"), "{}", answer.head);
        }
    }
    let answer = send(server.port, "PUT", "/api/v1/query", &[], b"").unwrap();
    assert!(answer.head.contains("allow: GET, OPTIONS, POST"), "{}", answer.head);
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
