//! The whole collector against a real `redis-server`, and against servers that misbehave.

use std::time::Duration;

use model::ManualClock;

use super::testing::{RealRedis, collect, free_port, scripted, session, session_at, value};
use super::*;
use crate::collector::resp::Reply;

const SCAN_ALL: &str = "{scan: {enabled: true}, db: all}";

fn orders<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("system", "redis"), ("vhost", "0"), ("queue", "orders")], more].concat()
}

#[tokio::test]
async fn known_messages_go_in_and_exactly_those_come_out() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    for n in 0..10 {
        redis.run(&[&format!("XADD orders * n {n}")]).await;
    }
    redis
        .run(&[
            "XGROUP CREATE orders billing 0",
            "XGROUP CREATE orders audit $",
            "XREADGROUP GROUP billing w1 COUNT 4 STREAMS orders >",
            "LPUSH mail a b c",
            "SELECT 3",
            "RPUSH jobs x",
            "RPUSH jobs-dlq x y",
            "SET no:queue 1",
        ])
        .await;
    let read = redis.run(&["XREADGROUP GROUP billing w1 COUNT 1 STREAMS orders 0"]).await;
    assert!(read[0].error().is_none(), "{read:?}");
    let first = redis.run(&["XREADGROUP GROUP billing w2 COUNT 1 STREAMS orders >"]).await;
    assert!(first[0].error().is_none(), "{first:?}");

    let mut session = session(&redis.address(), SCAN_ALL);
    let scrape = collect(&mut session).await.unwrap();
    assert_eq!(scrape.warnings, Vec::<String>::new());
    let get = |metric: &str, labels: &[(&str, &str)]| value(&scrape.samples, metric, labels);
    let billing = orders(&[("group", "billing")]);
    let audit = orders(&[("group", "audit")]);
    let mail = [("vhost", "0"), ("queue", "mail")];
    for (metric, labels, expected) in [
        ("queue_up", &[("system", "redis")][..], 1.0),
        ("queue_messages_ready", &billing, 5.0),
        ("queue_messages_in_flight", &billing, 5.0),
        ("queue_lag_messages", &billing, 10.0),
        ("queue_consumers", &billing, 2.0),
        ("queue_messages_enqueued_total", &billing, 10.0),
        ("queue_messages_delivered_total", &billing, 5.0),
        ("queue_messages_dequeued_total", &billing, 0.0),
        ("queue_slo_lag_seconds", &billing, 60.0),
        ("queue_messages_ready", &audit, 0.0),
        ("queue_lag_seconds", &audit, 0.0),
        ("queue_consumers", &audit, 0.0),
        ("queue_messages_retained", &orders(&[("group", "")]), 10.0),
        ("queue_info", &orders(&[("type", "stream"), ("lag_method", "head_time")]), 1.0),
        ("queue_messages_ready", &mail, 3.0),
        ("queue_messages_ready", &[("vhost", "3"), ("queue", "jobs")], 1.0),
        ("queue_messages_dead", &[("vhost", "3"), ("queue", "jobs-dlq")], 2.0),
        ("queue_node_info", &[("version", "7.0.15"), ("role", "master"), ("node", &redis.address())], 1.0),
        ("queue_node_alarm", &[("alarm", "eviction")], 0.0),
        ("queue_collector_partial", &[("reason", "permission")], 0.0),
        ("queue_collector_interval_seconds", &[], 15.0),
        ("queue_collector_queues_dropped", &[], 0.0),
    ] {
        // The version is whatever is installed.
        let labels: Vec<_> = labels.iter().copied().filter(|(name, _)| *name != "version").collect();
        assert_eq!(get(metric, &labels), Some(expected), "{metric} {labels:?}");
    }
    let lag = get("queue_lag_seconds", &billing).unwrap();
    assert!((0.0..30.0).contains(&lag), "{lag}");
    assert_eq!(get("queue_messages_ready", &[("queue", "jobs-dlq")]), None);
    assert!(!scrape.samples.iter().any(|sample| sample.labels.value("queue") == "no:queue"));
    assert!(scrape.body_bytes > 0);
    let known: Vec<&str> = scrape.metadata.iter().map(|(name, _)| name.as_str()).collect();
    for sample in &scrape.samples {
        assert!(known.contains(&sample.labels.metric_name()), "{} has no metadata", sample.labels);
    }
    let labels: std::collections::BTreeSet<_> = scrape.samples.iter().map(|sample| &sample.labels).collect();
    assert_eq!(labels.len(), scrape.samples.len(), "no series twice");
}

#[tokio::test]
async fn lag_rises_a_second_per_second_and_series_go_with_the_queue() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    redis.run(&["XADD orders * n 1", "XGROUP CREATE orders g 0", "LPUSH mail a"]).await;
    let mut session = session(&redis.address(), "{streams: [orders], lists: [mail]}");
    let group = orders(&[("group", "g")]);
    let mut before: Option<(f64, f64, tokio::time::Instant)> = None;
    for _ in 0..2 {
        let scrape = collect(&mut session).await.unwrap();
        let lag = value(&scrape.samples, "queue_lag_seconds", &group).unwrap();
        let watched = value(&scrape.samples, "queue_lag_seconds", &[("queue", "mail")]).unwrap();
        let now = tokio::time::Instant::now();
        if let Some((lag_before, watched_before, then)) = before {
            let elapsed = now.duration_since(then).as_secs_f64();
            for rise in [lag - lag_before, watched - watched_before] {
                assert!((rise - elapsed).abs() < 0.1, "rose {rise} s in {elapsed} s");
            }
        }
        before = Some((lag, watched, now));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Read but not acknowledged still lags; acknowledged does not.
    redis.run(&["XREADGROUP GROUP g w1 STREAMS orders >"]).await;
    let scrape = collect(&mut session).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &group), Some(0.0));
    assert!(value(&scrape.samples, "queue_lag_seconds", &group).unwrap() > 0.5);
    redis.run(&["DEL orders", "RPOP mail"]).await;
    let scrape = collect(&mut session).await.unwrap();
    assert!(!scrape.samples.iter().any(|sample| sample.labels.value("queue") == "orders"));
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "mail")]), Some(0.0), "configured");
    assert_eq!(value(&scrape.samples, "queue_up", &[]), Some(1.0));
}

#[tokio::test]
async fn a_list_that_was_the_only_key_of_its_database_is_zero_when_empty() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    redis.run(&["SELECT 5", "LPUSH mail a"]).await;
    let mut session = session(&redis.address(), SCAN_ALL);
    let mail = [("vhost", "5"), ("queue", "mail")];
    let scrape = collect(&mut session).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &mail), Some(1.0));
    redis.run(&["SELECT 5", "RPOP mail"]).await;
    let scrape = collect(&mut session).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &mail), Some(0.0));
}

#[tokio::test]
async fn a_cluster_node_leaves_what_is_elsewhere_to_others() {
    let Some(redis) = RealRedis::start(&["--cluster-enabled", "yes"]).await else { return };
    // "foo" is in slot 12182, "bar" in 5061, which nobody serves.
    redis.run(&["CLUSTER ADDSLOTS 12182", "CONFIG SET cluster-require-full-coverage no"]).await;
    let mut session = session(&redis.address(), "{lists: [foo, bar], db: [0, 3]}");
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    let scrape = loop {
        let scrape = collect(&mut session).await.unwrap();
        if value(&scrape.samples, "queue_messages_ready", &[("queue", "foo")]).is_some() {
            break scrape;
        }
        assert!(tokio::time::Instant::now() < end, "{:?}", scrape.warnings);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(value(&scrape.samples, "queue_cluster_nodes", &[]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_node_alarm", &[("alarm", "cluster_state")]), Some(0.0));
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "bar")]), None);
    assert!(scrape.warnings[0].starts_with("LLEN \"bar\": CLUSTERDOWN"), "{:?}", scrape.warnings);
}

#[tokio::test]
async fn an_unknown_lag_is_counted_on_the_real_server() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    let commands: Vec<String> = (1..=700).map(|n| format!("XADD orders {n}-0 n {n}")).collect();
    redis.run(&commands.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // A group at an arbitrary id, and a hole behind it.
    redis.run(&["XGROUP CREATE orders g 100-0", "XDEL orders 400-0"]).await;
    let mut session = session(&redis.address(), "{streams: [orders]}");
    let scrape = collect(&mut session).await.unwrap();
    let group = orders(&[("group", "g")]);
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &group), Some(599.0));
    assert_eq!(value(&scrape.samples, "queue_lag_seconds", &group), Some(0.0), "ids are no times: watched");
}

#[tokio::test]
async fn the_documented_rights_suffice_and_missing_ones_are_named() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    redis.run(&["XADD orders * n 1", "XGROUP CREATE orders g 0", "LPUSH mail a"]).await;
    redis.run(&[&format!("ACL SETUSER mon on >pw {RIGHTS}"), "ACL SETUSER default off"]).await;
    let options =
        |password: &str| format!("{{username: mon, password: {password}, scan: {{enabled: true}}}}");
    let mut good = session(&redis.address(), &options("pw"));
    let scrape = collect(&mut good).await.unwrap();
    assert_eq!(scrape.warnings, Vec::<String>::new());
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &orders(&[("group", "g")])), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "mail")]), Some(1.0));

    for (options, expected) in [
        (options("wrong-pw-hunter2"), "AUTH: WRONGPASS"),
        ("{}".to_owned(), "set username and password: NOAUTH"),
    ] {
        let error = collect(&mut session(&redis.address(), &options)).await.unwrap_err();
        assert!(error.message.starts_with(expected), "{}", error.message);
        assert!(!error.message.contains("hunter2"));
        assert_eq!(value(&error.samples, "queue_up", &[("system", "redis")]), Some(0.0));
        assert_eq!(value(&error.samples, "queue_collector_errors_total", &[("stage", "auth")]), Some(1.0));
    }
}

#[tokio::test]
async fn a_missing_optional_right_leaves_the_rest() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    redis.run(&["XADD orders * n 1", "XGROUP CREATE orders g 0", "LPUSH mail a"]).await;
    let rights = RIGHTS.replace(" +xrange", "").replace(" +time", "").replace(" +info", "");
    redis.run(&[&format!("ACL SETUSER mon on >pw {rights}")]).await;
    let options = "{username: mon, password: pw, streams: [orders], lists: [mail]}";
    let scrape = collect(&mut session(&redis.address(), options)).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_up", &[]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_collector_partial", &[("reason", "permission")]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &orders(&[("group", "g")])), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_lag_seconds", &orders(&[("group", "g")])), None);
    for command in ["INFO", "XRANGE"] {
        let found = scrape.warnings.iter().any(|warning| {
            warning.starts_with(command) && warning.contains(&format!("'{}'", command.to_lowercase()))
        });
        assert!(found, "{command} is not named in {:?}", scrape.warnings);
    }
}

#[tokio::test]
async fn a_password_file_is_read_at_each_connecting() {
    let Some(redis) = RealRedis::start(&["--requirepass", "one"]).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    let mut session = session(&redis.address(), &format!("{{password_file: {}}}", file.display()));
    let error = collect(&mut session).await.unwrap_err();
    assert!(error.message.starts_with("read password file"), "{}", error.message);
    std::fs::write(&file, "two\n").unwrap();
    assert!(collect(&mut session).await.unwrap_err().message.starts_with("AUTH: WRONGPASS"));
    std::fs::write(&file, "one\n").unwrap();
    assert!(collect(&mut session).await.is_ok());
}

#[tokio::test]
async fn a_password_nobody_asks_for_is_only_a_warning() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    let scrape = collect(&mut session(&redis.address(), "{password: pw}")).await.unwrap();
    assert_eq!(scrape.warnings, ["a password is configured but the server asks for none"]);
}

#[tokio::test]
async fn a_restarted_broker_is_back_at_the_next_collection() {
    let Some(mut redis) = RealRedis::start(&[]).await else { return };
    redis.run(&["LPUSH mail a"]).await;
    let clock = Arc::new(ManualClock::new(0));
    let mut session = session_at(&redis.address(), SCAN_ALL, clock);
    let scrape = collect(&mut session).await.unwrap();
    let start = value(&scrape.samples, "queue_node_start_time_seconds", &[]).unwrap();
    let again = collect(&mut session).await.unwrap();
    assert_eq!(value(&again.samples, "queue_node_start_time_seconds", &[]), Some(start));
    redis.kill();
    let error = collect(&mut session).await.unwrap_err();
    assert!(error.message.starts_with("connect to 127.0.0.1:"), "{}", error.message);
    assert_eq!(value(&error.samples, "queue_up", &[]), Some(0.0));
    redis.restart().await;
    redis.run(&["LPUSH other a b"]).await;
    let scrape = collect(&mut session).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_up", &[]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "other")]), Some(2.0));
    // Remembered as empty: nobody said that it is gone for good.
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "mail")]), Some(0.0));
    assert_eq!(value(&scrape.samples, "queue_collector_errors_total", &[("stage", "connect")]), Some(1.0));
}

#[tokio::test]
async fn a_replica_reports_its_node_only() {
    let Some(master) = RealRedis::start(&[]).await else { return };
    let Some(replica) = RealRedis::start(&[]).await else { return };
    master.run(&["LPUSH mail a"]).await;
    replica.run(&[&format!("REPLICAOF {}", master.address().replace(':', " "))]).await;
    let scrape = collect(&mut session(&replica.address(), SCAN_ALL)).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_node_info", &[("role", "slave")]), Some(1.0));
    assert!(value(&scrape.samples, "queue_node_alarm", &[("alarm", "replica_link")]).is_some());
    assert!(!scrape.samples.iter().any(|sample| sample.labels.has("queue")));
    assert!(scrape.warnings[0].starts_with("a replica"), "{:?}", scrape.warnings);
}

#[tokio::test]
async fn evictions_raise_the_alarm() {
    let Some(redis) = RealRedis::start(&["--maxmemory", "2mb", "--maxmemory-policy", "allkeys-lru"]).await
    else {
        return;
    };
    let payload = "x".repeat(10_000);
    let commands: Vec<String> = (0..400).map(|n| format!("SET key:{n} {payload}")).collect();
    redis.run(&commands.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let scrape = collect(&mut session(&redis.address(), "{}")).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_node_alarm", &[("alarm", "eviction")]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_node_memory_limit_bytes", &[]), Some(2_097_152.0));
    assert!(value(&scrape.samples, "queue_node_evicted_keys_total", &[]).unwrap() > 0.0);
}

#[tokio::test]
async fn hostile_names_come_through() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    let names: [&[u8]; 6] =
        ["schön \"q\"\n\\{}".as_bytes(), b"\r\n+OK\r\n", b"\xff\xfe", b"__other__", b"\xf0\x28", b" "];
    for name in names {
        redis.send(&[vec![b"LPUSH", name, b"a"]]).await;
    }
    // Two names that look the same once their invalid bytes are replaced.
    redis.send(&[vec![b"LPUSH", b"same\xff", b"a"], vec![b"LPUSH", b"same\xfe", b"a"]]).await;
    redis.send(&[vec![b"LPUSH", &[b'x'; 2000], b"a"]]).await;
    redis
        .send(&[vec![b"XADD", b"s", b"*", b"k", b"v"], vec![b"XGROUP", b"CREATE", b"s", b"g\n\xff\"", b"0"]])
        .await;
    let scrape = collect(&mut session(&redis.address(), SCAN_ALL)).await.unwrap();
    for name in names {
        let name = String::from_utf8_lossy(name);
        let ready = value(&scrape.samples, "queue_messages_ready", &[("queue", &name)]);
        assert_eq!(ready, Some(1.0), "{name:?}");
    }
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "same\u{fffd}")]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("group", "g\n\u{fffd}\"")]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_collector_partial", &[("reason", "limit")]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_collector_errors_total", &[("stage", "name")]), Some(1.0));
}

#[tokio::test]
async fn payloads_are_not_kept_however_large() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    let payload = vec![b'p'; 3 << 20];
    redis.send(&[vec![b"LPUSH", b"mail", &payload], vec![b"XADD", b"orders", b"*", b"k", &payload]]).await;
    redis.run(&["XGROUP CREATE orders g 0"]).await;
    let mut session = session(&redis.address(), SCAN_ALL);
    for _ in 0..2 {
        let scrape = collect(&mut session).await.unwrap();
        assert_eq!(scrape.warnings, Vec::<String>::new());
        assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "mail")]), Some(1.0));
        assert_eq!(value(&scrape.samples, "queue_messages_ready", &orders(&[("group", "g")])), Some(1.0));
        assert!(!format!("{scrape:?}").contains("ppp"));
    }
}

#[tokio::test]
async fn a_hundred_thousand_keys_stay_within_the_budget() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    let names: Vec<String> = (0..100_000).map(|n| format!("key:{n}")).collect();
    let commands: Vec<Vec<&[u8]>> =
        names.iter().map(|name| vec![&b"SET"[..], name.as_bytes(), &b"1"[..]]).collect();
    redis.send(&commands).await;
    redis.run(&["LPUSH mail a", "XADD orders * n 1"]).await;
    let mut session = session(&redis.address(), SCAN_ALL);
    let mut collections = 0;
    let mut commands_before = 0.0;
    loop {
        let scrape = collect(&mut session).await.unwrap();
        collections += 1;
        let commands = value(&scrape.samples, "queue_collector_commands_total", &[]).unwrap();
        assert!(commands - commands_before <= 20.0, "{commands} commands");
        commands_before = commands;
        let found = |queue: &str| scrape.samples.iter().any(|sample| sample.labels.value("queue") == queue);
        if found("mail") && found("orders") {
            break;
        }
        assert!(scrape.warnings[0].starts_with("still looking for queues"), "{:?}", scrape.warnings);
        assert!(collections < 30, "not found in {collections} collections");
    }
    assert!(collections > 1, "a budget of 10000 cannot cover them at once");
}

#[tokio::test]
async fn a_hundred_thousand_lists_are_folded_and_marked() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    let names: Vec<String> = (0..100_000).map(|n| format!("q{n}")).collect();
    let commands: Vec<Vec<&[u8]>> =
        names.iter().map(|name| vec![&b"RPUSH"[..], name.as_bytes(), &b"1"[..]]).collect();
    redis.send(&commands).await;
    redis.run(&["RPUSH biggest 1 2 3 4 5", "RPUSH keep 1"]).await;
    let options = "{scan: {enabled: true, budget: 1000000}, include: [keep], max_queues: 100}";
    let scrape = collect(&mut session(&redis.address(), options)).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_collector_partial", &[("reason", "limit")]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "keep")]), Some(1.0));
    let folded = value(&scrape.samples, "queue_messages_ready", &[("queue", "__other__")]).unwrap();
    let dropped = value(&scrape.samples, "queue_collector_queues_dropped", &[]).unwrap();
    assert!(folded >= 19_000.0 && dropped >= 19_000.0, "{folded} {dropped}");
    let kept = scrape.samples.iter().filter(|s| s.labels.metric_name() == "queue_messages_ready").count();
    assert_eq!(kept, 101);
}

/// CPU of a collection of 500 queues; printed, not asserted: a shared machine is no measuring bench.
#[tokio::test]
async fn five_hundred_queues() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    for n in 0..250 {
        redis
            .run(&[
                &format!("XADD s{n} * a 1"),
                &format!("XADD s{n} * a 2"),
                &format!("XGROUP CREATE s{n} g 0"),
                &format!("XREADGROUP GROUP g w COUNT 1 STREAMS s{n} >"),
                &format!("LPUSH l{n} a b"),
            ])
            .await;
    }
    let mut session = session(&redis.address(), SCAN_ALL);
    collect(&mut session).await.unwrap();
    let (rounds, start, cpu) = (10, tokio::time::Instant::now(), cpu_ms());
    let mut samples = 0;
    for _ in 0..rounds {
        samples = collect(&mut session).await.unwrap().samples.len();
    }
    eprintln!(
        "500 queues, {samples} samples: {:.1} ms CPU, {:.1} ms wall per collection",
        (cpu_ms() - cpu) / f64::from(rounds),
        start.elapsed().as_secs_f64() * 1000.0 / f64::from(rounds)
    );
    assert!(samples > 500 * 6, "{samples}");
}

/// User and system time of this process.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |index: usize| {
        after_name.split_whitespace().nth(index).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) * 10.0
}

#[tokio::test]
async fn servers_that_are_no_redis_or_refuse_say_so() {
    for (answer, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "INFO: invalid answer: reply starts with byte 0x48"),
        (b"", "INFO: connection closed by the server"),
        (b"-DENIED Redis is running in protected mode\r\n", "DENIED Redis is running in protected mode"),
        (b":1\r\n*0\r\n", "INFO: unexpected answer (an integer)"),
        (b"$5\r\nhello\r\n*0\r\n", "INFO: not the answer of a Redis"),
        (b"$99999999999\r\n", "INFO: invalid answer: reply exceeds 67108864 bytes"),
    ] {
        let address = scripted(vec![answer], Duration::ZERO).await;
        let error = collect(&mut session(&address, SCAN_ALL)).await.unwrap_err();
        assert!(error.message.starts_with(expected), "{}", error.message);
        assert_eq!(value(&error.samples, "queue_up", &[]), Some(0.0));
    }
    let address = format!("127.0.0.1:{}", free_port());
    let error = collect(&mut session(&address, "{}")).await.unwrap_err();
    assert!(error.message.starts_with(&format!("connect to {address}: ")), "{}", error.message);
}

const INFO_AND_TIME: &[u8] =
    b"$35\r\nredis_version:7.0.15\r\nrole:master\r\n\r\n*2\r\n$10\r\n1795372240\r\n$1\r\n0\r\n";
const INFO_TIME_AND_A_HALF: &[u8] = b"$35\r\nredis_version:7.0.15\r\nrole:master\r\n\r\n*2\r\n$10\r\n1795372240\r\n$1\r\n0\r\n+OK\r\n:3\r\n*2\r\n$5\r\nhe";

#[tokio::test]
async fn an_answer_cut_in_the_middle_is_partial() {
    // INFO and TIME come with the first portion; what follows was sent before it was asked for, which is out of step.
    let address = scripted(vec![INFO_TIME_AND_A_HALF], Duration::ZERO).await;
    let error = collect(&mut session(&address, "{lists: [mail]}")).await.unwrap_err();
    assert!(error.message.contains("out of step"), "{}", error.message);

    let address = scripted(vec![INFO_AND_TIME], Duration::ZERO).await;
    let scrape = collect(&mut session(&address, "{lists: [mail]}")).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_up", &[]), Some(1.0));
    assert_eq!(value(&scrape.samples, "queue_collector_partial", &[("reason", "connection")]), Some(1.0));
    assert!(!scrape.samples.iter().any(|sample| sample.labels.has("queue")));
}

#[tokio::test]
async fn a_server_that_falls_silent_costs_the_deadline_and_no_more() {
    let address = scripted(vec![INFO_AND_TIME], Duration::from_secs(60)).await;
    let mut session = session(&address, "{lists: [mail]}");
    let start = tokio::time::Instant::now();
    let scrape = session.collect(start + Duration::from_millis(500)).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(value(&scrape.samples, "queue_collector_partial", &[("reason", "timeout")]), Some(1.0));
    assert_eq!(scrape.warnings, ["cut at SELECT: deadline exceeded"]);
}

#[tokio::test]
async fn a_half_open_connection_is_replaced_within_the_collection() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    // A proxy that forwards the first connection for one collection and then swallows everything on it.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let upstream = redis.address();
    let (swallow, swallowing) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let mut is_first = true;
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(&upstream).await.unwrap();
            let mut swallowing = swallowing.clone();
            let mortal = std::mem::take(&mut is_first);
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    () = async { drop(swallowing.wait_for(|on| *on && mortal).await) } => {
                        tokio::time::sleep(Duration::from_secs(60)).await;
                    }
                }
            });
        }
    });
    let mut session = session(&address, "{}");
    collect(&mut session).await.unwrap();
    swallow.send(true).unwrap();
    tokio::task::yield_now().await;
    let scrape = collect(&mut session).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_up", &[]), Some(1.0));
}

#[tokio::test]
async fn a_collection_dropped_in_the_middle_does_not_harm_the_next() {
    let Some(redis) = RealRedis::start(&[]).await else { return };
    redis.run(&["LPUSH mail a b"]).await;
    let mut session = session(&redis.address(), SCAN_ALL);
    for millis in [0, 1, 2, 3] {
        let soon = Duration::from_millis(millis);
        let _ = tokio::time::timeout(soon, collect(&mut session)).await;
    }
    let scrape = collect(&mut session).await.unwrap();
    assert_eq!(value(&scrape.samples, "queue_messages_ready", &[("queue", "mail")]), Some(2.0));
    assert_eq!(scrape.warnings, Vec::<String>::new());
}

#[test]
fn the_fixture_replies_have_the_length_they_say() {
    let reply = super::testing::decode(INFO_AND_TIME);
    assert!(matches!(reply, Reply::Bulk(text) if text.ends_with(b"role:master\r\n")));
}
