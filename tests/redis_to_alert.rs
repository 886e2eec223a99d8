//! From a real broker to a delivered alert: the whole road on real parts. Only the intervals are short.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use support::nilometer::Nilometer;
use support::redis::{Client, RedisServer};
use support::sinks::{HttpSink, SmtpSink};
use support::{available, free_port, pause, wait_for};

const PASSWORD: &str = "s3cr3t-of-redis";
const ALERT: &str = "QueueNoConsumers";
const READY: &str = r#"queue_messages_ready{queue="orders",group="billing"}"#;

/// A thread that works until told to stop.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(port: u16, mut work: impl FnMut(&mut Client) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut client = Client::connect(port);
            client.command(&["AUTH", PASSWORD]);
            while !told.load(Ordering::Relaxed) {
                work(&mut client);
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn producer(port: u16) -> Self {
        Self::start(port, |client| {
            client.command(&["XADD", "orders", "*", "sku", "4711"]);
            pause(Duration::from_millis(100));
        })
    }

    /// Reads for the group and acknowledges what it read.
    fn consumer(port: u16) -> Self {
        Self::start(port, |client| {
            let read = [
                "XREADGROUP",
                "GROUP",
                "billing",
                "c1",
                "COUNT",
                "100",
                "BLOCK",
                "100",
                "STREAMS",
                "orders",
                ">",
            ];
            for stream in client.command(&read).list() {
                for entry in stream.list()[1].list() {
                    client.command(&["XACK", "orders", "billing", entry.list()[0].text()]);
                }
            }
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn write_config(dir: &Path, redis: u16, http: u16, smtp: u16) {
    let config = format!(
        r#"
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
scrape_configs:
  - job_name: shop
    collector: redis
    collector_options: {{streams: [orders], password: {PASSWORD}}}
    static_configs: [{{targets: ["127.0.0.1:{redis}"]}}]
builtin_rules:
  interval: 500ms
  overrides:
    QueueNoConsumers: {{for: 12s}}
alertmanager:
  route:
    receiver: ops
    group_by: [alertname, queue]
    group_wait: 500ms
    group_interval: 1s
    repeat_interval: 1h
    routes:
      - matchers: ['alertname!="QueueNoConsumers"']
        receiver: nobody
  receivers:
    - name: nobody
    - name: ops
      webhook_configs: [{{url: "http://127.0.0.1:{http}/hook"}}]
      email_configs:
        - to: ops@example.org
          from: nilometer@example.org
          smarthost: "127.0.0.1:{smtp}"
          require_tls: false
          send_resolved: true
"#
    );
    std::fs::write(dir.join("nilometer.yml"), config).unwrap();
}

/// All stored samples of a selector over the last ten minutes, as (time, value) texts.
fn samples(server: &Nilometer, selector: &str) -> Vec<(String, String)> {
    let series = server.query(&format!("{selector}[10m]"));
    let values =
        series.first().map(|series| series["values"].as_array().unwrap().clone()).unwrap_or_default();
    values.iter().map(|point| (point[0].to_string(), point[1].as_str().unwrap().to_owned())).collect()
}

fn has_status(post: &Value, status: &str) -> bool {
    post["status"] == status && post["commonLabels"]["alertname"] == ALERT
}

/// Seconds within the hour of a time in RFC 3339: enough to tell times apart that are seconds apart.
fn seconds(time: &Value) -> f64 {
    let text = time.as_str().unwrap();
    let clock: Vec<f64> =
        text[14..].trim_end_matches('Z').split(':').map(|part| part.parse().unwrap()).collect();
    clock[0] * 60.0 + clock[1]
}

#[test]
fn a_stopped_consumer_becomes_a_webhook_and_a_mail_even_across_a_kill() {
    if !available("redis-server") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let redis = RedisServer::start(dir.path(), &["--requirepass", PASSWORD]);
    let (http, smtp) = (HttpSink::start(), SmtpSink::start());
    write_config(dir.path(), redis.port, http.port, smtp.port);
    let mut admin = redis.client();
    admin.command(&["AUTH", PASSWORD]);
    admin.command(&["XGROUP", "CREATE", "orders", "billing", "$", "MKSTREAM"]);
    let _producer = Worker::producer(redis.port);
    let consumer = Worker::consumer(redis.port);

    let args = ["--config.file=nilometer.yml", "--rules.alert.for-grace-period=1s"];
    let port = free_port();
    let server = Nilometer::start_at(port, dir.path(), &args);
    wait_for("messages to be counted", || {
        server.value("queue_messages_dequeued_total").filter(|n| *n > 10.0)
    });
    assert_eq!(server.value(r#"queue_consumers{queue="orders"}"#), Some(1.0));
    assert_eq!(server.value("queue_up"), Some(1.0));
    assert!(server.alert(ALERT).is_none(), "nothing is wrong yet");

    // The consumer says goodbye; messages pile up.
    drop(consumer);
    admin.command(&["XGROUP", "DELCONSUMER", "orders", "billing", "c1"]);
    let pending = wait_for("the alert to be pending", || server.alert(ALERT));
    assert_eq!(pending["state"], "pending");
    assert_eq!(pending["labels"]["system"], "redis");
    let since = pending["activeAt"].clone();
    pause(Duration::from_secs(6));

    // In the middle of `for`, the process dies. (Were the six seconds lost, the start would move by more than the outage.)
    let before = samples(&server, READY);
    let died = support::now();
    assert!(before.len() >= 3, "{before:?}");
    server.kill();
    let server = Nilometer::start_at(port, dir.path(), &args);
    let restarted = died.elapsed();
    let after = samples(&server, READY);
    let missing: Vec<_> = before.iter().filter(|sample| !after.contains(sample)).collect();
    assert!(missing.is_empty(), "samples are gone after kill -9: {missing:?}");

    let firing =
        wait_for("the alert to fire", || server.alert(ALERT).filter(|alert| alert["state"] == "firing"));
    // Time down does not count towards `for`, time spent pending before does: the start moves by the outage at most.
    let moved = (seconds(&firing["activeAt"]) - seconds(&since)).rem_euclid(3600.0);
    let outage = restarted.as_secs_f64() + 2.0;
    assert!(
        moved < outage || moved > 3599.0,
        "active since {since}, after the restart since {}, outage {outage} s",
        firing["activeAt"]
    );
    wait_for("the lag to show", || {
        server.value(r#"queue_lag_seconds{queue="orders"}"#).filter(|lag| *lag > 3.0)
    });

    let post = wait_for("the webhook", || http.posts().into_iter().find(|post| has_status(post, "firing")));
    assert_eq!(post["version"], "4");
    assert_eq!(post["receiver"], "ops");
    assert_eq!(post["groupLabels"]["queue"], "orders");
    assert!(post["alerts"][0]["annotations"]["summary"].as_str().unwrap().contains("no consumer"), "{post}");
    let mail = wait_for("the mail", || smtp.mails().into_iter().find(|mail| mail.contains("FIRING")));
    assert!(mail.contains("To: ops@example.org") && mail.contains("multipart/alternative"), "{mail}");

    // The consumer returns: resolved, by both roads.
    let _consumer = Worker::consumer(redis.port);
    wait_for("the alert to be gone", || server.alert(ALERT).is_none().then_some(()));
    wait_for("the resolved webhook", || http.posts().into_iter().find(|post| has_status(post, "resolved")));
    wait_for("the resolved mail", || smtp.mails().into_iter().find(|mail| mail.contains("RESOLVED")));
    let firing_posts = http.posts().iter().filter(|post| has_status(post, "firing")).count();
    assert_eq!(firing_posts, 1, "one group, told once: {:?}", http.posts());

    assert!(!server.log().contains(PASSWORD), "a secret is in the log");
    assert!(!server.get("/api/v1/status/config").body.contains(PASSWORD), "a secret is shown");
    assert!(server.stop(), "SIGTERM must end it in good order");
}
