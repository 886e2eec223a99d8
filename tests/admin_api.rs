//! What changes stored data over HTTP, on the built program: shut unless asked for, Prometheus' answers, effects that stay.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use support::http::{Answer, encoded, send};
use support::nilometer::Nilometer;
use support::remote_write::{Series, write};

const DELETE: &str = "/api/v1/admin/tsdb/delete_series";
const CLEAN: &str = "/api/v1/admin/tsdb/clean_tombstones";
const SNAPSHOT: &str = "/api/v1/admin/tsdb/snapshot";

#[expect(clippy::disallowed_methods, reason = "samples lie around the real present")]
fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn server(dir: &std::path::Path, more: &[&str]) -> Nilometer {
    std::fs::write(dir.join("c.yml"), "# nothing to scrape\n").unwrap();
    Nilometer::start(dir, &[&["--config.file=c.yml", "--web.enable-remote-write-receiver"], more].concat())
}

fn form(server: &Nilometer, method: &str, path: &str, body: &str) -> Answer {
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    send(server.port, method, path, &kind, body.as_bytes()).unwrap()
}

#[test]
fn the_admin_api_is_shut_unless_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    for (method, path) in [("POST", DELETE), ("PUT", DELETE), ("POST", CLEAN), ("PUT", SNAPSHOT)] {
        let answer = form(&server, method, path, "match[]=x");
        let body = json!({"status": "error", "errorType": "unavailable", "error": "admin APIs disabled"});
        assert_eq!((answer.status, answer.json()), (500, body), "{method} {path}");
    }
    let get = send(server.port, "GET", CLEAN, &[], b"").unwrap();
    assert_eq!((get.status, get.body.as_str()), (405, "Method Not Allowed\n"));
    assert!(get.head.contains("allow: OPTIONS, POST, PUT"), "{}", get.head);
    assert_eq!(server.api("status/tsdb/blocks"), json!({"blocks": []}));
    assert_eq!(server.api("status/flags")["web.enable-admin-api"], "false");
}

#[test]
fn wrong_requests_change_nothing_and_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &["--web.enable-admin-api"]);
    let cases = [
        (DELETE, String::new(), "no match[] parameter provided"),
        (DELETE, "match[]=a&x=%zz".to_owned(), r#"error parsing form values: invalid URL escape "%zz""#),
        (
            DELETE,
            "match[]=a&start=x".to_owned(),
            r#"invalid parameter "start": invalid time value for 'start': cannot parse "x" to a valid timestamp"#,
        ),
        (
            DELETE,
            "match[]=a&start=10&end=5".to_owned(),
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        ),
        (
            DELETE,
            format!("match[]=a&match[]={}", encoded("sum(")),
            r#"invalid parameter "match[]": 1:4: parse error: unexpected "(""#,
        ),
        (
            SNAPSHOT,
            "skip_head=x".to_owned(),
            r#"invalid parameter "skip_head": unable to parse boolean: strconv.ParseBool: parsing "x": invalid syntax"#,
        ),
    ];
    for (path, body, text) in cases {
        let answer = form(&server, "PUT", path, &body);
        let json = answer.json();
        assert_eq!(answer.status, 400, "{path} {body}: {json}");
        assert_eq!((&json["errorType"], &json["error"]), (&json!("bad_data"), &json!(text)), "{path} {body}");
    }
    assert!(!dir.path().join("data/snapshots").exists());
}

/// Names with sixty samples each, the last one at the answer.
fn fill(server: &Nilometer, names: &[&str]) -> i64 {
    let t = now_ms() / 1000 * 1000;
    let series = |name: &&str| {
        Series::new(&[("__name__", *name)], (0..60).map(move |n| (t - (59 - n) * 1000, n as f64)))
    };
    let series: Vec<Series> = names.iter().map(series).collect();
    assert_eq!(write(server.port, &series).unwrap().status, 204);
    t / 1000
}

/// How many samples a series has.
fn count(server: &Nilometer, name: &str, t: i64) -> Option<f64> {
    server.value(&format!("count_over_time({name}[10m] @ {t})"))
}

#[test]
fn a_snapshot_is_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(dir.path(), &["--web.enable-admin-api"]);
    let t = fill(&first, &["a"]);
    let make = |query: &str| {
        let made = form(&first, "POST", &format!("{SNAPSHOT}{query}"), "");
        let name = made.json()["data"]["name"].as_str().unwrap_or_default().to_owned();
        assert!(made.status == 200 && name.len() == "20261122T235341Z-2818bf6624e8baa1".len(), "{made:?}");
        name
    };
    let (whole, blocks) = (make(""), make("?skip_head=true"));
    assert!(first.stop());
    for (name, expected) in [(whole, Some(60.0)), (blocks, None)] {
        let path = format!("--storage.tsdb.path=data/snapshots/{name}");
        let copy = server(dir.path(), &[&path]);
        assert_eq!(count(&copy, "a", t), expected, "{name}");
        assert!(copy.stop());
    }
}

#[test]
fn deleted_samples_are_gone_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(dir.path(), &["--web.enable-admin-api"]);
    let t = fill(&first, &["kept", "gone", "part"]);
    let counts = |server: &Nilometer| ["kept", "gone", "part"].map(|name| count(server, name, t));
    assert_eq!(counts(&first), [Some(60.0); 3]);
    // Both ends are included.
    let some = format!("match[]=part&start={}&end={t}", t - 9);
    for (method, body) in [("POST", "match[]=gone&match[]=absent"), ("PUT", &some)] {
        let answer = form(&first, method, DELETE, body);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{answer:?}");
    }
    let after = [Some(60.0), None, Some(50.0)];
    assert_eq!(counts(&first), after);
    assert_eq!(form(&first, "POST", CLEAN, "").status, 204);
    assert_eq!(counts(&first), after);
    first.kill();
    let again = server(dir.path(), &["--web.enable-admin-api"]);
    assert_eq!(counts(&again), after);
}
