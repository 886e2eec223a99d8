//! The user interface in a real browser, on the real server, with a real Redis and an hour of past.
//!
//! What is looked at is in `web/ui/e2e`: every page loads in both themes and on narrow screens without console errors,
//! failed requests, violations of the content security policy, or serious findings of axe.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use support::nilometer::Nilometer;
use support::redis::RedisServer;
use support::remote_write::{Series, write};
use support::{available, wait_for};

const CONFIG: &str = r#"
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
scrape_configs:
  - job_name: self
    static_configs: [{targets: ["127.0.0.1:OWN"]}]
  - job_name: shop
    collector: redis
    collector_options: {streams: [orders], lists: [mail]}
    static_configs: [{targets: ["127.0.0.1:REDIS"]}]
# The past is written after the present has begun to be scraped.
storage: {tsdb: {out_of_order_time_window: 2h}}
builtin_rules: {interval: 1s, overrides: {QueueNoConsumers: {for: 1s}}}
"#;

#[expect(clippy::disallowed_methods, reason = "the past lies before the real present")]
fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// An hour of a queue that rises and falls and lags most of all (so it is the first row), up to a quarter of a minute ago, and of `up`.
fn past(redis: u16) -> Vec<Series> {
    let now = now_ms();
    let times: Vec<i64> = (1..240).rev().map(|n| now - n * 15_000).collect();
    let reader = |name: &'static str| {
        [
            ("__name__", name),
            ("job", "shop"),
            ("system", "redis"),
            ("vhost", "0"),
            ("queue", "invoices"),
            ("group", "billing"),
        ]
    };
    let wave = |t: &i64| 500.0 + 400.0 * (*t as f64 / 600_000.0).sin();
    let counted = |t: &i64| (*t - times[0]) as f64 / 250.0;
    let instance = format!("127.0.0.1:{redis}");
    vec![
        Series::new(&reader("queue_messages_ready"), times.iter().map(|t| (*t, wave(t).round()))),
        Series::new(&reader("queue_messages_enqueued_total"), times.iter().map(|t| (*t, counted(t)))),
        Series::new(&reader("queue_messages_dequeued_total"), times.iter().map(|t| (*t, counted(t)))),
        Series::new(&reader("queue_lag_seconds"), times.iter().map(|t| (*t, 4000.0 + wave(t)))),
        Series::new(&reader("queue_consumers"), times.iter().map(|t| (*t, 3.0))),
        Series::new(
            &[("__name__", "up"), ("job", "shop"), ("instance", &instance)],
            times.iter().map(|t| (*t, 1.0)),
        ),
    ]
}

#[test]
fn every_page_works_in_a_browser() {
    if !(available("redis-server") && available("chromium") && available("node")) {
        return;
    }
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/ui");
    if !ui.join("node_modules/puppeteer-core").is_dir() {
        assert!(std::env::var_os("CI").is_none(), "web/ui/node_modules is missing: npm ci");
        eprintln!("SKIPPED: web/ui/node_modules is missing, npm ci brings it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let redis = RedisServer::start(dir.path(), &[]);
    let mut client = redis.client();
    client.command(&["XGROUP", "CREATE", "orders", "billing", "$", "MKSTREAM"]);
    for _ in 0..50 {
        client.command(&["XADD", "orders", "*", "sku", "4711"]);
        client.command(&["RPUSH", "mail", "x"]);
    }
    let port = support::free_port();
    let config = CONFIG.replace("OWN", &port.to_string()).replace("REDIS", &redis.port.to_string());
    std::fs::write(dir.path().join("nilometer.yml"), config).unwrap();
    let args = ["--config.file=nilometer.yml", "--web.enable-remote-write-receiver"];
    let server = Nilometer::start_at(port, dir.path(), &args);
    let answer = write(port, &past(redis.port)).unwrap();
    assert_eq!(answer.status, 204, "{answer:?}");
    wait_for("an alert to fire", || {
        server.alert("QueueNoConsumers").filter(|alert| alert["state"] == "firing")
    });

    let shots = std::env::var("NILOMETER_SHOTS").ok();
    let mut command = Command::new("node");
    command.current_dir(&ui).args(["e2e/run.mjs", "--url", &format!("http://127.0.0.1:{port}")]);
    if let Some(shots) = &shots {
        command.args(["--shots", shots]);
    }
    let output = command.output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
}
