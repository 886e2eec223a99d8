//! Refreshing on a clock of the test's own: what is sent, when, and what stays when the source fails.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::Labels;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::time::Instant;

use super::refresh::{GROUPS_MAX, Known, Refresh, RefreshError, Refresher, TARGETS_MAX, bounded};
use super::testing::Running;
use super::{Discoverer, DiscoveryConfig, DiscoveryContext, SdMetrics, TargetGroup};

const INTERVAL: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// What the source says at each refresh, and how long it takes for it; then nothing new.
type Script = Vec<(Duration, Result<Vec<TargetGroup>, String>)>;

#[derive(Clone, Debug)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Scripted {
    fn new(mut script: Script) -> Self {
        script.reverse();
        Self { script: Arc::new(Mutex::new(script)), asked: Arc::default() }
    }
}

impl Refresh for Scripted {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(async {
            self.asked.lock().push(Instant::now());
            let Some((wait, result)) = self.script.lock().pop() else { return std::future::pending().await };
            tokio::time::sleep(wait).await;
            result.map_err(RefreshError::Other)
        })
    }
}

impl DiscoveryConfig for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        Box::new(Refresher::new("scripted", INTERVAL, context, self.clone()))
    }

    fn identity(&self) -> String {
        String::new()
    }
}

fn group(source: &str, addresses: &[&str]) -> TargetGroup {
    TargetGroup {
        source: source.into(),
        targets: addresses.iter().map(|address| Labels::from_pairs([("__address__", *address)])).collect(),
        labels: Labels::empty(),
    }
}

fn sources(update: &[TargetGroup]) -> Vec<(&str, usize)> {
    update.iter().map(|group| (group.source.as_str(), group.targets.len())).collect()
}

#[tokio::test(start_paused = true)]
async fn only_changes_are_sent_and_failures_keep_what_was_there() {
    let now = Duration::ZERO;
    let script = Scripted::new(vec![
        (now, Ok(vec![group("a", &["1", "2"]), group("b", &["3"])])),
        (now, Ok(vec![group("b", &["3"]), group("a", &["1", "2"])])),
        (now, Err("out of order".into())),
        (now, Ok(vec![group("a", &["1", "2"]), group("b", &["4"]), group("c", &[])])),
        (now, Ok(vec![group("b", &["4"])])),
        (now, Ok(vec![])),
    ]);
    let began = Instant::now();
    let mut running = Running::start(&script);
    assert_eq!(sources(&running.next_within(HOUR).await), [("a", 2), ("b", 1)]);
    assert_eq!(began.elapsed(), Duration::ZERO, "the first refresh is at once");
    // The second is the same, the third fails: the next word comes with the fourth.
    assert_eq!(sources(&running.next_within(HOUR).await), [("b", 1)]);
    assert_eq!(began.elapsed(), 3 * INTERVAL);
    assert_eq!(running.metrics.refresh_failures.with_label_values(&["scripted", "job"]).get(), 1);
    assert_eq!(sources(&running.next_within(HOUR).await), [("a", 0)]);
    assert_eq!(sources(&running.next_within(HOUR).await), [("b", 0)]);
    let asked: Vec<Duration> = script.asked.lock().iter().map(|at| *at - began).collect();
    assert_eq!(asked, (0..6).map(|n| n * INTERVAL).collect::<Vec<_>>(), "no jitter");
}

#[tokio::test(start_paused = true)]
async fn slow_refreshes_miss_ticks_and_end_at_a_bound() {
    let script = Scripted::new(vec![
        (INTERVAL + Duration::from_secs(1), Ok(vec![])),
        (Duration::from_secs(3600), Ok(vec![group("late", &["1"])])),
        (Duration::ZERO, Ok(vec![group("a", &["1"])])),
    ]);
    let began = Instant::now();
    let mut running = Running::start(&script);
    assert_eq!(sources(&running.next_within(HOUR).await), [], "the first word, even without targets");
    assert_eq!(sources(&running.next_within(HOUR).await), [("a", 1)]);
    // For 31 s, then at once for the tick it missed (as Go's tickers) and for the 60 s it may take, and again.
    let asked: Vec<u64> = script.asked.lock().iter().map(|at| (*at - began).as_secs()).collect();
    assert_eq!(asked, [0, 31, 91]);
    assert_eq!(running.metrics.refresh_failures.with_label_values(&["scripted", "job"]).get(), 1);
}

#[test]
fn answers_have_bounds() {
    let targets = vec![Labels::from_pairs([("__address__", "a")]); TARGETS_MAX];
    let full = TargetGroup { source: "s".into(), targets, labels: Labels::empty() };
    assert!(bounded(vec![full.clone()]).is_ok());
    let error = bounded(vec![full, group("one more", &["b"])]).unwrap_err();
    assert_eq!(error.to_string(), "200001 targets found, more than 200000");
    let error = bounded(vec![TargetGroup::default(); GROUPS_MAX + 1]).unwrap_err();
    assert_eq!(error.to_string(), "100001 target groups found, more than 100000");
}

#[test]
fn single_groups_are_compared_too() {
    let mut known = Known::default();
    assert_eq!(known.replace_one(group("a", &[])), Some(vec![]), "the first word");
    assert_eq!(known.replace_one(group("a", &[])), None);
    assert_eq!(known.replace_one(group("a", &["1"])), Some(vec![group("a", &["1"])]));
    assert_eq!(known.replace_one(group("a", &["1"])), None);
    assert_eq!(known.target_count(), 1);
    assert_eq!(known.replace_one(group("a", &[])), Some(vec![group("a", &[])]));
    assert_eq!(known.target_count(), 0);
}

#[test]
fn a_job_that_goes_takes_its_series_along() {
    let registry = Registry::new();
    let metrics = SdMetrics::new(&registry).unwrap();
    metrics.refreshed("http", "a", Duration::from_millis(50), true);
    metrics.refreshed("http", "b", Duration::from_secs(2), false);
    let lines = || {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("prometheus_sd_refresh_"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = lines();
    for line in [
        "prometheus_sd_refresh_failures_total{config=\"a\",mechanism=\"http\"} 0",
        "prometheus_sd_refresh_failures_total{config=\"b\",mechanism=\"http\"} 1",
        "prometheus_sd_refresh_duration_seconds{config=\"b\",mechanism=\"http\",quantile=\"0.5\"} 2",
        "prometheus_sd_refresh_duration_histogram_seconds_bucket{mechanism=\"http\",le=\"0.1\"} 1",
    ] {
        assert!(before.iter().any(|known| known == line), "{line} not in {before:#?}");
    }
    metrics.remove_job("b");
    assert!(lines().iter().all(|line| !line.contains("\"b\"")), "{:#?}", lines());
    assert!(lines().iter().any(|line| line.contains("config=\"a\"")));
}
