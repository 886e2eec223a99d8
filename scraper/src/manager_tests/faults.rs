//! Targets, discovery and clocks that misbehave: the reason is shown, others keep their schedule.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::discovery::{Discoverer, DiscoveryConfig, DiscoveryContext, GroupSender, TargetGroup};

/// How late scrapes of an undisturbed target may be on a busy machine with two cores.
const LATE_MAX_MS: i64 = 400;

/// Longest distance of neighbouring samples.
fn longest_gap(samples: &[(i64, String)]) -> i64 {
    samples.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(0)
}

#[tokio::test]
async fn connections_that_break_and_names_that_nobody_knows() {
    let world = World::new().await;
    world.server.set("/good", page("good 1\n"));
    world.server.set("/closed", Behaviour::Raw(Vec::new()));
    world.server.set("/half", Behaviour::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()));
    world.server.set("/noise", Behaviour::Raw(vec![0xff; 4000]));
    world.server.set("/hang", Behaviour::Hang);
    // It resets the connection: what was asked is still unread when it closes.
    let resetting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reset_address = resetting.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = resetting.accept().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(stream);
        }
    });
    let group = |target: &str, instance: &str, more: &str| {
        format!(
            "{{targets: ['{target}'], labels: {{instance: {instance}, __metrics_path__: /{instance}{more}}}}}"
        )
    };
    let mut groups: Vec<String> =
        ["good", "closed", "half", "noise", "hang"].map(|path| group("$ADDR", path, "")).to_vec();
    groups.push(group(&reset_address.to_string(), "reset", ""));
    groups.push(group("no-such-host.invalid:80", "unknown", ""));
    // A server that speaks no TLS is as good as one with a certificate that nobody knows.
    groups.push(group("$ADDR", "tls", ", __scheme__: https"));
    let job = format!(
        "{{job_name: j, scrape_interval: 200ms, scrape_timeout: 200ms, static_configs: [{}]}}",
        groups.join(", ")
    );
    world.apply(&[&job]).await;
    for instance in ["closed", "half", "noise", "hang", "reset", "unknown", "tls"] {
        let error = world.error_of(instance).await;
        assert!(error.starts_with("Get \"http") || error == "unexpected EOF", "{instance}: {error}");
        assert!(!error.ends_with(": "), "{instance} has no reason: {error}");
    }
    world.until("good goes on", || world.store.values("good").len() >= 8).await;
    let gap = longest_gap(&world.store.samples("good"));
    assert!(gap <= 200 + LATE_MAX_MS, "one target waits for another: {gap} ms");
    world.manager.stop().await;
}

#[tokio::test]
async fn a_name_that_comes_and_goes() {
    let world = World::new().await;
    // What stands for a name that resolves now and then: nobody listens there for a while.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    world
        .apply(&[&format!(
            "{{job_name: j, {QUICK}, static_configs: [{{targets: ['{address}'], labels: {{instance: x}}}}]}}"
        )])
        .await;
    assert!(world.error_of("x").await.contains("connection refused"));
    let listener = TcpListener::bind(address).await.unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let Behaviour::Raw(bytes) = page("a 1\n") else { unreachable!() };
            let _ = stream.write_all(&bytes).await;
        }
    });
    world.until("up", || world.store.last("a").as_deref() == Some("1")).await;
    server.abort();
    world.until("down", || world.store.last("a").as_deref() == Some("S")).await;
    assert_eq!(world.store.last("up").as_deref(), Some("0"));
    world.manager.stop().await;
}

/// Finds what it is told to find.
#[derive(Clone, Debug)]
struct ToldDiscovery(tokio::sync::watch::Receiver<Vec<String>>);

impl DiscoveryConfig for ToldDiscovery {
    fn kind(&self) -> &'static str {
        "told"
    }

    fn discoverer(&self, _: &DiscoveryContext) -> Box<dyn Discoverer> {
        Box::new(self.clone())
    }

    fn identity(&self) -> String {
        "told".to_owned()
    }
}

impl Discoverer for ToldDiscovery {
    fn run(mut self: Box<Self>, groups: GroupSender) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            loop {
                let targets = self
                    .0
                    .borrow_and_update()
                    .iter()
                    .map(|address| Labels::from_pairs([("__address__", address.as_str())]))
                    .collect();
                let group = TargetGroup { source: "told".to_owned(), targets, labels: Labels::empty() };
                if groups.send(vec![group]).await.is_err() || self.0.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

#[tokio::test]
async fn discovery_that_finds_nothing_for_a_while_ends_series_which_come_back() {
    let world = World::new().await;
    world.server.set("/metrics", page("a 1\n"));
    let (tell, told) = tokio::sync::watch::channel(vec![world.server.address.clone()]);
    let config = world
        .config(&format!("{{job_name: j, {QUICK}, static_configs: []}}"))
        .with_discovery(Arc::new(ToldDiscovery(told)));
    world.manager.apply(world.manager.prepare(vec![config]).unwrap()).await;
    world.until("found", || world.store.last("a").as_deref() == Some("1")).await;
    tell.send(Vec::new()).unwrap();
    world.until("ended", || world.store.last("a").as_deref() == Some("S")).await;
    assert_eq!(world.store.last("up").as_deref(), Some("S"));
    assert!(world.manager.status()[0].active.is_empty());
    tell.send(vec![world.server.address.clone()]).unwrap();
    world.until("back", || world.store.last("a").as_deref() == Some("1")).await;
    let values = world.store.values("a");
    assert_eq!(values.iter().filter(|value| *value == "S").count(), 1, "{values:?}");
    assert!(world.store.series().iter().all(|series| series.contains("instance=")));
    world.manager.stop().await;
}

/// A clock that can be set.
#[derive(Debug)]
struct WrongClock {
    right: RuntimeClock,
    wrong_by: AtomicI64,
}

impl Clock for WrongClock {
    fn now_ms(&self) -> Timestamp {
        self.right.now_ms() + self.wrong_by.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_and_forth_breaks_nothing() {
    let clock = Arc::new(WrongClock { right: RuntimeClock(Instant::now()), wrong_by: AtomicI64::new(0) });
    let world = World::with_clock(Arc::clone(&clock) as _).await;
    world.server.set("/metrics", page("a 1\n"));
    world.apply(&[&format!("{{job_name: j, {QUICK}, static_configs: [{{targets: ['$ADDR']}}]}}")]).await;
    world.until("scraped", || world.store.values("a").len() >= 3).await;
    // An hour back: the store refuses what is older than what it has, and nothing ends.
    clock.wrong_by.store(-3_600_000, Ordering::Relaxed);
    let asked = world.server.asked("/metrics");
    world.until("asked on", || world.server.asked("/metrics") >= asked + 5).await;
    assert!(world.metric("prometheus_target_scrapes_sample_out_of_order_total") >= 3.0);
    assert_eq!(world.manager.status()[0].active[0].last.health, TargetHealth::Up);
    // And right again, then an hour ahead.
    for wrong_by in [0, 3_600_000] {
        clock.wrong_by.store(wrong_by, Ordering::Relaxed);
        let before = world.store.values("a").len();
        world.until("goes on", || world.store.values("a").len() >= before + 3).await;
    }
    assert!(world.store.values("a").iter().all(|value| value == "1"));
    let newest = world.store.samples("a").last().unwrap().0;
    assert!(newest > clock.right.now_ms() + 3_000_000, "{newest}");
    world.manager.stop().await;
}

#[tokio::test]
async fn extra_metrics_tell_the_size_of_the_body() {
    for (name, expected) in [("small", "4"), ("large", "-1"), ("gone", "0")] {
        let world = World::new().await;
        world.server.set("/small", page("a 1\n"));
        world.server.set("/large", page(&"# x\n".repeat(1000)));
        world
            .apply(&[&job(name, &format!("{QUICK}, extra_scrape_metrics: true, body_size_limit: 1KB"))])
            .await;
        world
            .until(expected, || world.store.last("scrape_body_size_bytes").as_deref() == Some(expected))
            .await;
        world.manager.stop().await;
    }
}
