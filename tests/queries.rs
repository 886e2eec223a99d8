//! Running queries from outside: limits, the queue, what happens when a client goes, the register, the query log, plans.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::http::{Answer, encoded, send};
use support::nilometer::Nilometer;
use support::remote_write::{Series, write};
use support::{now, wait_for};

/// Takes minutes when nothing stops it, and needs no data: each of a million steps sorts an hour of seconds.
const HEAVY: &str = "max_over_time(quantile_over_time(0.5, vector(time() % 7919)[1h:1s])[10d:1s])";

#[expect(clippy::disallowed_methods, reason = "samples lie around the real present")]
fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn server(dir: &Path, more: &[&str]) -> Nilometer {
    if !dir.join("c.yml").exists() {
        std::fs::write(dir.join("c.yml"), "# nothing to scrape\n").unwrap();
    }
    let mut args =
        vec!["--config.file=c.yml", "--web.enable-remote-write-receiver", "--web.enable-lifecycle"];
    args.extend(more);
    Nilometer::start(dir, &args)
}

/// Asks without waiting for the answer.
fn ask(server: &Nilometer, query: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let path = format!("/api/v1/query?query={}", encoded(query));
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: tester\r\nConnection: close\r\n\r\n")
        .unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn running(server: &Nilometer) -> Vec<Value> {
    server.api("status/queries")["running"].as_array().unwrap().clone()
}

fn wait_for_state(server: &Nilometer, state: &str) -> Value {
    wait_for(state, || running(server).into_iter().find(|query| query["state"] == state))
}

fn stop(server: &Nilometer, id: &str, headers: &[(&str, &str)]) -> Answer {
    send(server.port, "POST", &format!("/api/v1/status/queries/{id}/stop"), headers, b"").unwrap()
}

/// Processor time of the server so far, in clock ticks (a hundredth of a second).
fn cpu_ticks(server: &Nilometer) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn when_the_client_goes_the_query_ends_and_the_processor_rests() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let client = ask(&server, HEAVY);
    let query = wait_for_state(&server, "running");
    assert_eq!(query["query"], HEAVY);
    assert_eq!((&query["origin"], &query["httpRequest"]["userAgent"]), (&json!("api"), &json!("tester")));
    let began = now();
    drop(client);
    wait_for("the query to end", || running(&server).is_empty().then_some(()));
    // Mostly some milliseconds; a second for machines that do much else.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let before = cpu_ticks(&server);
    support::pause(Duration::from_millis(500));
    let used = cpu_ticks(&server) - before;
    assert!(used < 25, "{used} hundredths of a second within half a second");
}

/// What a crash ends is told at the next start, and only then.
#[test]
fn queries_that_a_crash_ends_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(dir.path(), &[]);
    assert_eq!(first.api("query?query=4")["result"][1], "4");
    let _client = ask(&first, HEAVY);
    wait_for_state(&first, "running");
    let file = dir.path().join("data/queries.active");
    wait_for("the query to be in the file", || {
        let text = std::fs::read_to_string(&file).unwrap();
        text.starts_with("[{\"query\":\"max_over_time(").then_some(())
    });
    first.kill();
    let told = || {
        let log = std::fs::read_to_string(dir.path().join("nilometer.log")).unwrap();
        log.lines().filter(|line| line.contains("These queries didn't run to completion")).count()
    };
    assert_eq!(told(), 0);
    let second = server(dir.path(), &[]);
    assert_eq!(told(), 1);
    assert!(second.log().contains("quantile_over_time(0.5, vector(time() % 7919)"));
    assert!(second.stop());
    let third = server(dir.path(), &[]);
    assert_eq!(told(), 1);
    let metrics = third.get("/metrics").body;
    assert!(metrics.contains("nilometer_query_places_abandoned 0\n"), "{metrics}");
}

#[test]
fn a_query_is_stopped_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &["--query.slow-log-threshold=0s"]);
    let client = ask(&server, HEAVY);
    let id = wait_for_state(&server, "running")["id"].as_str().unwrap().to_owned();
    assert_eq!(stop(&server, &id, &[("Origin", "http://evil.example")]).status, 403);
    assert_eq!(stop(&server, &id, &[("Sec-Fetch-Site", "cross-site")]).status, 403);
    assert_eq!(stop(&server, "999999", &[]).status, 404);
    assert_eq!(stop(&server, "x", &[]).status, 400);
    assert_eq!(server.get(&format!("/api/v1/status/queries/{id}/stop")).status, 405);
    assert_eq!(stop(&server, &id, &[("User-Agent", "stopper")]).status, 204);
    let log = server.log();
    let told = log.lines().find(|line| line.contains("query told to stop")).unwrap();
    assert!(told.contains("client=\"127.0.0.1\" user_agent=\"stopper\""), "{told}");
    let text = answer(client);
    assert!(text.starts_with("HTTP/1.1 499"), "{text}");
    assert!(text.contains(r#""errorType":"canceled","error":"query was canceled in expression evaluation""#));
    let slow = server.api("status/queries")["slow"].take();
    assert_eq!((&slow[0]["id"], &slow[0]["errorType"]), (&json!(id), &json!("canceled")));
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("nilometer_queries_stopped_total 1\n"), "{metrics}");
    assert!(metrics.contains("nilometer_queries_failed_total{type=\"canceled\"} 1\n"));
}

#[test]
fn the_queue_is_bounded_and_waiting_counts() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &["--query.max-concurrency=1", "--query.max-queue=1"]);
    let first = ask(&server, HEAVY);
    wait_for_state(&server, "running");
    let late = server.get("/api/v1/query?query=1&timeout=200ms");
    assert_eq!((late.status, &late.json()["errorType"]), (503, &json!("timeout")));
    assert_eq!(late.json()["error"], "query timed out in query queue");
    let second = ask(&server, "2");
    let waiting = wait_for_state(&server, "queued");
    let refused = server.get("/api/v1/query?query=3");
    assert_eq!((refused.status, &refused.json()["errorType"]), (503, &json!("unavailable")));
    let text = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(text.contains("too many queries") && text.contains("1 wait already"), "{text}");
    assert_eq!(stop(&server, waiting["id"].as_str().unwrap(), &[]).status, 204);
    assert!(answer(second).contains("query was canceled in query queue"));
    // Other work goes on, and so do queries once there is a place.
    assert_eq!(server.get("/-/healthy").status, 200);
    drop(first);
    assert_eq!(server.value("4"), None);
    assert_eq!(server.api("query?query=4")["result"][1], "4");
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("prometheus_engine_queries_concurrent_max 1\n"));
    assert!(metrics.contains("prometheus_engine_query_duration_seconds_count{slice=\"queue_time\"}"));
}

#[test]
fn memory_and_series_are_bounded_per_query() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &["--query.max-memory-per-query=1MB", "--query.max-series=500"]);
    let t = now_ms() / 1000 * 1000;
    let series: Vec<Series> = (0..600)
        .map(|i| {
            let (name, i) = (if i < 400 { "a" } else { "b" }, i.to_string());
            Series::new(&[("__name__", name), ("i", &i)], [(t - 1000, 1.0)])
        })
        .collect();
    assert_eq!(write(server.port, &series).unwrap().status, 204);
    let range = |query: &str| {
        let (start, end) = (t / 1000 - 3000, t / 1000 + 3000);
        let query = encoded(query);
        server.get(&format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=1"))
    };
    let large = range("last_over_time(a[1h])");
    assert_eq!((large.status, &large.json()["errorType"]), (422, &json!("execution")), "{}", large.body);
    assert_eq!(large.json()["error"], "query needs more than 1 MiB of memory (--query.max-memory-per-query)");
    assert_eq!(range("sum(last_over_time(a[1h]))").status, 200);
    let many = range(r#"count({__name__=~"a|b"})"#);
    assert_eq!(many.json()["error"], "query selects more than 500 series (--query.max-series)");
    // Everything was given back.
    wait_for("memory to be free", || {
        server.get("/metrics").body.contains("nilometer_query_memory_bytes 0\n").then_some(())
    });
}

/// Answers that clients do not take count as memory of queries, until they are taken or the client goes.
#[test]
fn answers_on_their_way_count() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &["--query.max-memory=32MB", "--query.max-memory-per-query=32MB"]);
    let t = now_ms() / 1000 * 1000;
    let series: Vec<Series> = (0..100)
        .map(|i| Series::new(&[("__name__", "a"), ("i", &i.to_string())], [(t - 1000, 1.0 / 3.0)]))
        .collect();
    assert_eq!(write(server.port, &series).unwrap().status, 204);
    let held = || server.api("status/queries")["memoryBytes"].as_u64().unwrap();
    // A million points: more than sockets' buffers take.
    let (start, end) = (t / 1000, t / 1000 + 10_000);
    let query = encoded("last_over_time(a[1d])");
    let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=1");
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut first = [0; 500];
    let length = stream.read(&mut first).unwrap();
    let text = String::from_utf8_lossy(&first[..length]);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(running(&server).is_empty() && held() > 12 << 20, "{}", held());
    // There is no room for a second one.
    let refused = server.get(&path);
    assert_eq!((refused.status, &refused.json()["errorType"]), (503, &json!("unavailable")));
    assert!(refused.body.contains("(--query.max-memory); try again"), "{}", refused.body);
    // What the client has read is no longer held.
    let before = held();
    std::io::copy(&mut Read::by_ref(&mut stream).take(16 << 20), &mut std::io::sink()).unwrap();
    wait_for("memory to go down", || (held() + (4 << 20) < before).then_some(()));
    drop(stream);
    wait_for("memory to be free", || (held() == 0).then_some(()));
    // Large answers come in pieces, small ones at once.
    let answer = server.get(&path);
    assert!(answer.status == 200 && !answer.head.contains("content-length"), "{}", answer.head);
    let answer = answer.json();
    let result = answer["data"]["result"].as_array().unwrap();
    assert!(
        result.len() == 100 && result.iter().all(|one| one["values"].as_array().unwrap().len() == 10_001)
    );
    let small = server.get("/api/v1/query?query=a&limit=2");
    assert!(small.head.contains("content-length: "), "{}", small.head);
    assert_eq!(small.json()["warnings"], json!(["results truncated due to limit"]));
    let sizes = "prometheus_http_response_size_bytes_sum{handler=\"/api/v1/query_range\"} ";
    wait_for("the size to be counted", || {
        let metrics = server.get("/metrics").body;
        let sum = metrics.lines().find_map(|line| line.strip_prefix(sizes))?.parse::<f64>().unwrap();
        (sum > 30e6).then_some(())
    });
}

#[test]
fn the_query_log_has_prometheus_fields_and_follows_reloads() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("queries.log");
    std::fs::write(
        dir.path().join("c.yml"),
        "global: {query_log_file: queries.log, evaluation_interval: 1s}\nrule_files: [r.yml]\n",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("r.yml"),
        "groups: [{name: g, rules: [{record: one, expr: vector(1)}]}]\n",
    )
    .unwrap();
    let server = server(dir.path(), &["--enable-feature=promql-per-step-stats"]);
    let lines = |path: &Path| -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let find = |what: &str, path: &Path, test: &dyn Fn(&Value) -> bool| -> Value {
        wait_for(what, || lines(path).into_iter().find(test))
    };
    server.api("query?query=1%2B1&time=1700001200");
    let query = find("a query", &log, &|line| line["params"]["query"] == "1+1");
    assert_eq!(query["params"]["start"], "2023-11-14T22:33:20.000Z");
    assert_eq!(
        query["httpRequest"],
        json!({"clientIP": "127.0.0.1", "method": "GET", "path": "/api/v1/query"})
    );
    assert!(query["stats"]["timings"]["execTotalTime"].is_number());
    let rule = find("a rule", &log, &|line| line["ruleGroup"]["name"] == "g");
    assert!(rule["ruleGroup"]["file"].as_str().unwrap().ends_with("r.yml"), "{rule}");
    server.get("/api/v1/query?query=label_replace(vector(1),%22a%22,%22b%22,%22c%22,%22(%22)");
    let failed = find("a failure", &log, &|line| line.get("error").is_some());
    assert!(failed["error"].as_str().unwrap().contains("invalid regular expression"), "{failed}");
    // Rotation: moved away, a reload opens it anew.
    std::fs::rename(&log, dir.path().join("old.log")).unwrap();
    server.signal("HUP");
    find("the new file", &log, &|line| line["ruleGroup"]["name"] == "g");
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("prometheus_engine_query_log_enabled 1\n"));
    assert!(metrics.contains("prometheus_engine_query_log_failures_total 0\n"));
    // A log that cannot be opened is a reload that changes nothing.
    std::fs::write(dir.path().join("c.yml"), "global: {query_log_file: no/such/folder/q.log}\n").unwrap();
    let refused = send(server.port, "POST", "/-/reload", &[], b"").unwrap();
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("cannot open the query log"), "{}", refused.body);
    std::fs::write(dir.path().join("c.yml"), "global: {}\n").unwrap();
    assert_eq!(send(server.port, "POST", "/-/reload", &[], b"").unwrap().status, 200);
    assert!(server.get("/metrics").body.contains("prometheus_engine_query_log_enabled 0\n"));
}

#[test]
fn plans_are_explained_and_analyzed() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let t = now_ms() / 1000 * 1000;
    let series: Vec<Series> = (0..4)
        .map(|i| {
            let i = i.to_string();
            Series::new(
                &[("__name__", "r_total"), ("i", &i)],
                (0..60).map(|n| (t - (59 - n) * 1000, n as f64)),
            )
        })
        .collect();
    assert_eq!(write(server.port, &series).unwrap().status, 204);
    let query = encoded("sum by (j) (rate(r_total[10s])) + on() group_left () vector(1 + 2)");
    let (start, end) = (t / 1000 - 20, t / 1000);
    let plain = server.api(&format!("explain?query={query}&start={start}&end={end}&step=10"));
    assert_eq!(plain["plan"]["operator"], "join");
    let aggregate = &plain["plan"]["children"][0];
    assert_eq!((&aggregate["operator"], &aggregate["by"]), (&json!("aggregate"), &json!(["j"])));
    let select = &aggregate["children"][0]["children"][0];
    assert_eq!((&select["operator"], &select["window"]), (&json!("select"), &json!("10s")));
    assert_eq!(select["pushed_down"]["function"], "rate");
    assert_eq!(plain["plan"]["children"][1]["operator"], "evaluate_once");
    assert!(plain.get("analysis").is_none() && select.get("measured").is_none());
    let text = plain["text"].as_str().unwrap();
    assert!(text.contains("├─ aggregate op=sum by=[\"j\"]\n│  └─ slide function=rate\n"), "{text}");
    let analyzed = server.api(&format!("explain?query={query}&start={start}&end={end}&step=10&analyze=true"));
    let select = &analyzed["plan"]["children"][0]["children"][0]["children"][0]["measured"];
    assert_eq!((&select["series"], &select["reads"]), (&json!(4), &json!(4)));
    assert!(select["samples"].as_u64().unwrap() >= 4 * 20, "{select}");
    assert_eq!(analyzed["analysis"]["resultSeries"], 1);
    assert_eq!(analyzed["analysis"]["resultPoints"], 3);
    assert_eq!(analyzed["plan"]["measured"]["samples"], 3);
    assert_eq!(server.get("/api/v1/explain?query=sum(").status, 400);
    // As deep as the parser lets it be.
    let deep = encoded(&format!("{}1{}", "-(".repeat(120), ")".repeat(120)));
    assert_eq!(server.get(&format!("/api/v1/explain?query={deep}&analyze=1")).status, 200);
}
