//! The manager against real sockets: a page server that can misbehave in every way, and a store in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::storage::Append;
use model::{Clock, ConfigError, ConfigPath, Labels, Timestamp};
use net::CpuPool;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::collector::{
    CollectError, CollectTarget, Collector, CollectorFactory, CollectorSession, JobSettings, Scrape,
    ScrapedSample,
};
use crate::config::{BuildContext, RawScrapeConfig, ScrapeConfig, ScrapeDefaults};
use crate::failure_log::FailureLogs;
use crate::fake_store::FakeStore;
use crate::manager::{ScrapeManager, ScrapeManagerOptions, TargetStatus};
use crate::target::TargetHealth;

mod asked;
mod faults;
mod gated;
mod in_place;
mod reload;

/// Wall clock that follows the runtime's.
#[derive(Debug)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now_ms(&self) -> Timestamp {
        1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

/// What the server does with a path.
#[derive(Clone)]
enum Behaviour {
    /// Sends these bytes and closes.
    Raw(Vec<u8>),
    /// Accepts and says nothing.
    Hang,
    /// Sends a byte every 20 ms, forever.
    Drip,
}

fn page(body: &str) -> Behaviour {
    answer("200 OK", "Content-Type: text/plain; version=0.0.4\r\n", body.as_bytes())
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Behaviour {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len())
            .into_bytes();
    bytes.extend_from_slice(body);
    Behaviour::Raw(bytes)
}

#[derive(Clone)]
struct PageServer {
    address: String,
    pages: Arc<Mutex<HashMap<String, Behaviour>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl PageServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            pages: Arc::default(),
            requests: Arc::default(),
        };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(this.clone().serve(stream));
            }
        });
        server
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        let request = String::from_utf8(request).unwrap();
        let path = request.split(' ').nth(1).unwrap().to_owned();
        self.requests.lock().push(request);
        let behaviour = self.pages.lock().get(&path).cloned();
        match behaviour {
            None => drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await),
            Some(Behaviour::Raw(bytes)) => drop(stream.write_all(&bytes).await),
            Some(Behaviour::Hang) => tokio::time::sleep(Duration::from_secs(60)).await,
            Some(Behaviour::Drip) => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n";
                drop(stream.write_all(head).await);
                while stream.write_all(b"#").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    fn set(&self, path: &str, behaviour: Behaviour) {
        self.pages.lock().insert(path.to_owned(), behaviour);
    }

    fn asked(&self, path: &str) -> usize {
        self.requests.lock().iter().filter(|request| request.starts_with(&format!("GET {path} "))).count()
    }
}

struct World {
    server: PageServer,
    store: FakeStore,
    manager: ScrapeManager,
    registry: prometheus::Registry,
    clock: Arc<dyn Clock>,
}

impl World {
    async fn new() -> Self {
        let store = FakeStore::default();
        Self::with(store.clone(), Arc::new(store), CpuPool::new(2)).await
    }

    async fn with_logs(failure_logs: FailureLogs) -> Self {
        let store = FakeStore::default();
        let clock = Arc::new(RuntimeClock(Instant::now()));
        Self::of(store.clone(), Arc::new(store), CpuPool::new(2), clock, failure_logs).await
    }

    async fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let store = FakeStore::default();
        Self::of(store.clone(), Arc::new(store), CpuPool::new(2), clock, FailureLogs::none()).await
    }

    /// `append` leads to `store`.
    async fn with(store: FakeStore, append: Arc<dyn Append>, cpu: CpuPool) -> Self {
        Self::of(store, append, cpu, Arc::new(RuntimeClock(Instant::now())), FailureLogs::none()).await
    }

    async fn of(
        store: FakeStore,
        append: Arc<dyn Append>,
        cpu: CpuPool,
        clock: Arc<dyn Clock>,
        failure_logs: FailureLogs,
    ) -> Self {
        Self::on(None, store, append, cpu, clock, failure_logs).await
    }

    /// Where small pages are read in place, and no job of the pool is ever done once `cpu` is busy.
    async fn in_place(cpu: CpuPool) -> Self {
        let (store, clock) = (FakeStore::default(), Arc::new(RuntimeClock(Instant::now())));
        let runtime = Some(tokio::runtime::Handle::current());
        Self::on(runtime, store.clone(), Arc::new(store), cpu, clock, FailureLogs::none()).await
    }

    async fn on(
        runtime: Option<tokio::runtime::Handle>,
        store: FakeStore,
        append: Arc<dyn Append>,
        cpu: CpuPool,
        clock: Arc<dyn Clock>,
        failure_logs: FailureLogs,
    ) -> Self {
        let registry = prometheus::Registry::new();
        let options = ScrapeManagerOptions {
            runtime,
            append,
            clock: Arc::clone(&clock),
            cpu,
            user_agent: "Nilometer/test".to_owned(),
            offset_seed: 7,
            no_offset: true,
            failure_logs,
        };
        let manager = ScrapeManager::new(options, &registry).unwrap();
        Self { server: PageServer::start().await, store, manager, registry, clock }
    }

    fn config(&self, job: &str) -> ScrapeConfig {
        let raw: RawScrapeConfig = serde_yaml::from_str(&job.replace("$ADDR", &self.server.address)).unwrap();
        let context = BuildContext {
            dir: Path::new("."),
            defaults: &ScrapeDefaults::default(),
            collectors: &[Arc::new(CountingFactory)],
            clock: Arc::clone(&self.clock),
        };
        raw.build(&ConfigPath::root(), &context).unwrap()
    }

    async fn apply(&self, jobs: &[&str]) {
        let configs = jobs.iter().map(|job| self.config(job)).collect();
        self.manager.apply(self.manager.prepare(configs).unwrap()).await;
    }

    fn target(&self, instance: &str) -> Option<TargetStatus> {
        self.manager
            .status()
            .into_iter()
            .flat_map(|pool| pool.active)
            .find(|target| target.labels.value("instance") == instance)
    }

    /// Waits until `done`, at most ten seconds.
    async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(10), "{what}; series: {:?}", self.store.series());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The last error of a target that is down.
    async fn error_of(&self, instance: &str) -> String {
        self.until(instance, || self.target(instance).is_some_and(|t| t.last.health == TargetHealth::Down))
            .await;
        self.target(instance).unwrap().last.error
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("{name}"));
        family
            .get_metric()
            .iter()
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

const QUICK: &str = "scrape_interval: 100ms, scrape_timeout: 100ms";

/// A job with one target that has the job's name as path and instance.
fn job(name: &str, settings: &str) -> String {
    format!(
        "{{job_name: {name}, {settings}, metrics_path: /{name}, \
          static_configs: [{{targets: ['$ADDR'], labels: {{instance: {name}}}}}]}}"
    )
}

#[tokio::test]
async fn scrapes_with_the_headers_of_prometheus_and_reports_what_it_got() {
    let world = World::new().await;
    world.server.set("/metrics?x=1", page("# TYPE a gauge\na 1\nb{c=\"d\"} 2\n"));
    world
        .apply(&[&format!(
            "{{job_name: j, {QUICK}, params: {{x: ['1']}}, extra_scrape_metrics: true, sample_limit: 10, \
              static_configs: [{{targets: ['$ADDR', '$ADDR'], labels: {{instance: i, env: t}}}}]}}"
        )])
        .await;
    world.until("three scrapes", || world.store.values("a").len() >= 3).await;
    let request = world.server.requests.lock()[0].to_ascii_lowercase();
    for header in [
        "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,",
        "accept-encoding: gzip\r\n",
        "user-agent: nilometer/test\r\n",
        "x-prometheus-scrape-timeout-seconds: 0.1\r\n",
    ] {
        assert!(request.contains(header), "{header} in {request}");
    }
    assert_eq!(
        world.store.series(),
        [
            r#"{__name__="a", env="t", instance="i", job="j"}"#,
            r#"{__name__="b", c="d", env="t", instance="i", job="j"}"#
        ]
    );
    assert_eq!(world.store.last("up").as_deref(), Some("1"));
    assert_eq!(world.store.values("scrape_series_added")[..2], ["2", "0"]);
    assert_eq!(world.store.last("scrape_timeout_seconds").as_deref(), Some("0.1"));
    assert_eq!(world.store.last("scrape_sample_limit").as_deref(), Some("10"));
    assert_eq!(world.store.last("scrape_body_size_bytes").as_deref(), Some("30"));
    let status = world.manager.status();
    assert_eq!(status[0].active.len(), 1, "the same target twice is scraped once");
    let target = &status[0].active[0];
    assert_eq!((target.last.health.as_str(), target.last.error.as_str()), ("up", ""));
    assert_eq!(target.scrape_url, format!("http://{}/metrics?x=1", world.server.address));
    let metadata = world.manager.metadata();
    assert_eq!(metadata[0].families[0].0, "a");
    world.manager.refresh_metrics();
    assert_eq!(world.metric("prometheus_target_metadata_cache_entries"), 1.0);
    assert_eq!(world.metric("prometheus_target_scrape_pool_targets"), 1.0);
    let summaries = world.registry.gather();
    let intervals =
        summaries.iter().find(|f| f.name() == "prometheus_target_interval_length_seconds").unwrap();
    let summary = intervals.get_metric()[0].get_summary();
    assert!(summary.sample_count() >= 2 && summary.get_quantile().len() == 5);
    world.manager.stop().await;
    let samples = world.store.samples("a");
    assert!(samples.iter().all(|(_, value)| value == "1"), "a server that stops ends no series: {samples:?}");
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(world.store.samples("a"), samples, "nothing is written after stop");
}

#[tokio::test]
async fn each_way_to_fail_has_its_words_and_leaves_the_others_alone() {
    let world = World::new().await;
    let gzip = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'\n'; 4 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let text = "Content-Type: text/plain\r\n";
    let server = &world.server;
    server.set("/good", page("good 1\n"));
    server.set("/redirected", answer("302 Found", "Location: /good2\r\n", b""));
    server.set("/good2", page("good2 1\n"));
    server.set("/500", answer("500 Internal Server Error", text, b"a 1\n"));
    server.set("/odd", answer("418 Short and Stout", text, b""));
    server.set("/201", answer("201 Created", text, b"a 1\n"));
    server.set("/401", answer("401 Unauthorized", text, b""));
    server.set("/loop", answer("302 Found", "Location: /loop\r\n", b""));
    server.set("/broken", page("a 1\nthis is no metric at all\n"));
    server.set("/binary", answer("200 OK", text, &[0xff, 0xfe, 0x00, 0x01]));
    server.set("/html", answer("200 OK", "Content-Type: text/html\r\n", b"<html>"));
    server.set("/untyped", answer("200 OK", "", b"a 1\n"));
    server.set("/bomb", answer("200 OK", &format!("{text}Content-Encoding: gzip\r\n"), &gzip));
    server.set(
        "/nogzip",
        answer("200 OK", &format!("{text}Content-Encoding: gzip\r\n"), b"a 1 but not compressed\n"),
    );
    server.set("/large", page(&"# x\n".repeat(100_000)));
    server.set(
        "/cut",
        Behaviour::Raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\na 1\n".to_vec(),
        ),
    );
    server.set("/hang", Behaviour::Hang);
    server.set("/drip", Behaviour::Drip);
    server.set("/many", page(&(0..20).map(|i| format!("m{{i=\"{i}\"}} 1\n")).collect::<String>()));
    server.set("/labels", page("l{a=\"1\",b=\"2\",c=\"3\",d=\"4\",e=\"5\"} 1\n"));
    let paths = [
        "good",
        "redirected",
        "500",
        "odd",
        "201",
        "401",
        "loop",
        "broken",
        "binary",
        "html",
        "untyped",
        "bomb",
        "nogzip",
        "large",
        "cut",
        "hang",
        "drip",
        "many",
        "labels",
        "gone",
    ];
    let mut groups: Vec<String> = paths
        .iter()
        .map(|path| {
            format!("{{targets: ['$ADDR'], labels: {{instance: {path}, __metrics_path__: /{path}}}}}")
        })
        .collect();
    groups.push("{targets: ['127.0.0.1:1'], labels: {instance: refused}}".to_owned());
    groups.push("{targets: ['bad host'], labels: {instance: badhost}}".to_owned());
    let job = format!(
        "{{job_name: j, {QUICK}, sample_limit: 10, label_limit: 7, body_size_limit: 100KB, \
          basic_auth: {{username: u, password: hunter2}}, static_configs: [{}]}}",
        groups.join(", ")
    );
    world.apply(&[&job]).await;
    let expected = [
        ("500", "server returned HTTP status 500 Internal Server Error"),
        ("odd", "server returned HTTP status 418 Short and Stout"),
        ("201", "server returned HTTP status 201 Created"),
        ("401", "server returned HTTP status 401 Unauthorized"),
        ("gone", "server returned HTTP status 404 Not Found"),
        ("loop", "redirects"),
        ("broken", "while parsing: \"this is"),
        ("binary", "expected a valid start token"),
        ("html", "received unsupported Content-Type \"text/html\""),
        ("untyped", "non-compliant scrape target sending blank Content-Type"),
        ("bomb", "body size limit exceeded"),
        ("large", "body size limit exceeded"),
        ("nogzip", "gzip: "),
        ("cut", "unexpected EOF"),
        ("hang", "context deadline exceeded"),
        ("drip", "context deadline exceeded"),
        ("many", "sample limit exceeded"),
        ("labels", "label_limit exceeded (metric: l, number of labels: 8, limit: 7)"),
        ("refused", "refused"),
        ("badhost", "invalid target url"),
    ];
    for (instance, words) in expected {
        let error = || world.target(instance).map(|target| target.last.error).unwrap_or_default();
        // Its first error may be another one: on a busy machine any scrape may take too long.
        world
            .until(&format!("{instance}: {words}"), || {
                assert!(!error().contains("hunter2"), "{}", error());
                error().contains(words)
            })
            .await;
    }
    world
        .until("good targets go on", || {
            world.store.values("good").len() >= 5 && !world.store.values("good2").is_empty()
        })
        .await;
    world
        .until("good is up", || world.target("good").is_some_and(|t| t.last.health == TargetHealth::Up))
        .await;
    assert_eq!(
        world.store.series(),
        [
            r#"{__name__="good", instance="good", job="j"}"#,
            r#"{__name__="good2", instance="redirected", job="j"}"#
        ]
    );
    for metric in [
        "prometheus_target_scrapes_exceeded_body_size_limit_total",
        "prometheus_target_scrapes_exceeded_sample_limit_total",
        "prometheus_target_scrape_pool_exceeded_label_limits_total",
    ] {
        assert!(world.metric(metric) >= 1.0, "{metric}");
    }
    world.manager.stop().await;
}

#[tokio::test]
async fn a_target_that_fails_ends_its_series_and_comes_back() {
    let world = World::new().await;
    world.server.set("/metrics", page("a 1\n"));
    world.apply(&[&format!("{{job_name: j, {QUICK}, static_configs: [{{targets: ['$ADDR']}}]}}")]).await;
    world.until("scraped", || world.store.last("a").as_deref() == Some("1")).await;
    world.server.set("/metrics", answer("503 Service Unavailable", "", b""));
    world.until("ended", || world.store.last("a").as_deref() == Some("S")).await;
    assert_eq!(world.store.last("up").as_deref(), Some("0"));
    world.server.set("/metrics", page("a 2\n"));
    world.until("back", || world.store.last("a").as_deref() == Some("2")).await;
    world.manager.stop().await;
}

#[tokio::test]
async fn a_target_that_goes_ends_all_its_series_and_only_its() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("targets.yml");
    world.server.set("/a", page("a 1\n"));
    world.server.set("/b", page("b 1\n"));
    let group = |name: &str| {
        format!(
            "- {{targets: ['{}'], labels: {{instance: {name}, __metrics_path__: /{name}}}}}\n",
            world.server.address
        )
    };
    std::fs::write(&file, group("a") + &group("b")).unwrap();
    let job = format!(
        "{{job_name: j, {QUICK}, file_sd_configs: [{{files: ['{}'], refresh_interval: 100ms}}]}}",
        file.display()
    );
    world.apply(&[&job]).await;
    world.until("both", || world.store.last("a").is_some() && world.store.last("b").is_some()).await;
    assert_eq!(world.target("a").unwrap().discovered_labels.value("__meta_filepath"), file.to_string_lossy());
    std::fs::write(&file, group("b")).unwrap();
    world.until("a ended", || world.store.last("a").as_deref() == Some("S")).await;
    assert!(world.target("a").is_none());
    let ups = world.manager.status()[0].active.len();
    assert_eq!((ups, world.store.last("b").as_deref()), (1, Some("1")));
    // Broken discovery keeps its targets.
    std::fs::write(&file, "- targets: {").unwrap();
    world.until("error counted", || world.metric("prometheus_sd_file_read_errors_total") >= 1.0).await;
    let before = world.store.values("b").len();
    world.until("b goes on", || world.store.values("b").len() > before + 2).await;
    world.manager.stop().await;
}

#[tokio::test]
async fn a_reload_leaves_unchanged_jobs_alone_and_series_of_changed_ones_whole() {
    let world = World::new().await;
    world.server.set("/same", page("same 1\n"));
    world.server.set("/changed", page("changed 1\nleft_out 1\n"));
    world.server.set("/removed", page("removed 1\n"));
    let job = |name: &str, more: &str| {
        format!(
            "{{job_name: {name}, {QUICK}, metrics_path: /{name}, {more} static_configs: [{{targets: ['$ADDR']}}]}}"
        )
    };
    world.apply(&[&job("same", ""), &job("changed", ""), &job("removed", "")]).await;
    world.until("all", || world.store.series().len() == 4).await;
    let relabelled = job(
        "changed",
        "metric_relabel_configs: [{source_labels: [__name__], regex: left_out, action: drop}],",
    );
    world.apply(&[&job("same", ""), &relabelled]).await;
    assert_eq!(world.manager.scrape_pools(), ["changed", "same"]);
    world.until("removed ended", || world.store.last("removed").as_deref() == Some("S")).await;
    world.until("left out ended", || world.store.last("left_out").as_deref() == Some("S")).await;
    let before = world.store.values("changed").len();
    world.until("goes on", || world.store.values("changed").len() > before + 2).await;
    for name in ["same", "changed"] {
        assert!(world.store.values(name).iter().all(|value| value == "1"), "{name}: no marker over a reload");
        let times: Vec<i64> = world.store.samples(name).iter().map(|(t, _)| *t).collect();
        // A loop that starts anew may come early once; two loops would do so all the time.
        let early = times.windows(2).filter(|pair| pair[1] - pair[0] < 50).count();
        assert!(early <= 1, "{name}: one loop only: {times:?}");
    }
    assert!(world.metric("prometheus_target_scrape_pool_reloads_total") == 1.0);
    let asked = world.server.asked("/removed");
    world.manager.stop().await;
    assert_eq!(world.server.asked("/removed"), asked);
}

#[tokio::test]
async fn a_reload_to_discovery_that_finds_nothing_ends() {
    let world = World::new().await;
    world.server.set("/metrics", page("a 1\n"));
    world.apply(&[&format!("{{job_name: j, {QUICK}, static_configs: [{{targets: ['$ADDR']}}]}}")]).await;
    world.until("scraped", || world.store.last("a").is_some()).await;
    let nothing = format!("{{job_name: j, {QUICK}, file_sd_configs: [{{files: ['/nonexistent/*.yml']}}]}}");
    let started = Instant::now();
    world.apply(&[&nothing]).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    // Back before the former targets were given up: their series go on.
    world.apply(&[&format!("{{job_name: j, {QUICK}, static_configs: [{{targets: ['$ADDR']}}]}}")]).await;
    let before = world.store.values("a").len();
    world.until("goes on", || world.store.values("a").len() > before + 2).await;
    assert!(world.store.values("a").iter().all(|value| value == "1"));
    // No target at all.
    world.apply(&[&format!("{{job_name: j, {QUICK}, static_configs: []}}")]).await;
    world.until("ended", || world.store.last("a").as_deref() == Some("S")).await;
    world.manager.stop().await;
}

#[tokio::test]
async fn target_limits_and_dropped_targets() {
    let world = World::new().await;
    world.server.set("/metrics", page("a 1\n"));
    let job = |limit: u32| {
        format!(
            "{{job_name: j, {QUICK}, target_limit: {limit}, keep_dropped_targets: 2, \
              relabel_configs: [{{source_labels: [keep], regex: 'no', action: drop}}], \
              static_configs: [{{targets: ['$ADDR'], labels: {{instance: x}}}}, {{targets: ['$ADDR'], labels: {{instance: y}}}}, \
                {{targets: ['a:1', 'b:1', 'c:1'], labels: {{keep: 'no'}}}}]}}"
        )
    };
    world.apply(&[&job(1)]).await;
    let error = world.error_of("x").await;
    assert_eq!(error, "target_limit exceeded (number of targets: 2, limit: 1)");
    assert!(world.store.series().is_empty());
    assert!(world.metric("prometheus_target_scrape_pool_exceeded_target_limit_total") >= 1.0);
    let pool = world.manager.status().remove(0);
    assert_eq!((pool.dropped.len(), pool.dropped_count), (2, 3));
    world.apply(&[&job(2)]).await;
    world.until("scraped", || world.store.series().len() == 2).await;
    world.manager.stop().await;
}

/// Counts its collections; the second one takes too long, the fourth fails with samples.
struct CountingFactory;
struct CountingCollector;
struct CountingSession {
    address: String,
    collections: u32,
}

impl CollectorFactory for CountingFactory {
    fn kind(&self) -> &'static str {
        "counting"
    }

    fn build(
        &self,
        _job: &JobSettings,
        _options: &serde_yaml::Value,
        _path: &ConfigPath,
    ) -> Result<Arc<dyn Collector>, ConfigError> {
        Ok(Arc::new(CountingCollector))
    }
}

impl Collector for CountingCollector {
    fn connect(&self, target: &CollectTarget) -> Box<dyn CollectorSession> {
        Box::new(CountingSession { address: target.address.clone(), collections: 0 })
    }
}

impl CollectorSession for CountingSession {
    fn collect(&mut self, _deadline: Instant) -> BoxFuture<'_, Result<Scrape, CollectError>> {
        Box::pin(async move {
            self.collections += 1;
            let sample = |name: &str, value: f64| {
                let labels = Labels::from_pairs([("__name__", name), ("address", &self.address)]);
                ScrapedSample::new(labels, value)
            };
            match self.collections {
                2 => std::future::pending().await,
                4 => Err(CollectError::new("broker is away").with_samples(vec![sample("queue_up", 0.0)])),
                n => Ok(Scrape {
                    samples: vec![sample("queue_up", 1.0), sample("collections", f64::from(n))],
                    warnings: vec!["no right to look".to_owned()],
                    ..Scrape::default()
                }),
            }
        })
    }
}

#[tokio::test]
async fn collectors_keep_state_time_out_and_fail_with_samples() {
    let world = World::new().await;
    world
        .apply(&[&format!(
            "{{job_name: j, {QUICK}, collector: counting, static_configs: [{{targets: ['broker:1'], labels: {{instance: c}}}}]}}"
        )])
        .await;
    world.until("five collections", || world.store.last("collections").as_deref() == Some("5")).await;
    assert_eq!(world.store.values("collections"), ["1", "S", "3", "S", "5"]);
    assert_eq!(world.store.values("queue_up")[..4], ["1", "S", "1", "0"]);
    assert_eq!(world.store.values("up")[..5], ["1", "0", "1", "0", "1"]);
    // What was stored is shown a moment later.
    world
        .until("warnings", || world.target("c").is_some_and(|t| t.last.warnings == ["no right to look"]))
        .await;
    assert_eq!(
        world.store.series()[0],
        r#"{__name__="collections", address="broker:1", instance="c", job="j"}"#
    );
    world.manager.stop().await;
}

#[tokio::test]
async fn a_collector_has_no_targets_that_ask_for_tls() {
    let world = World::new().await;
    world
        .apply(&[&format!(
            "{{job_name: j, {QUICK}, collector: counting, static_configs: [{{targets: ['open:1']}}, \
              {{targets: ['tls:1'], labels: {{__scheme__: https}}}}]}}"
        )])
        .await;
    world.until("collected", || world.store.last("collections").is_some()).await;
    let active = world.manager.status().remove(0).active;
    let instances: Vec<_> = active.iter().map(|target| target.labels.value("instance")).collect();
    assert_eq!(instances, ["open:1"]);
    assert_eq!(world.metric("prometheus_target_sync_failed_total"), 1.0);
    world.manager.stop().await;
}

#[tokio::test]
async fn large_pages_are_read_on_the_pool() {
    let world = World::new().await;
    let body: String = (0..20_000).map(|i| format!("large{{i=\"{i}\"}} {i}\n")).collect();
    world.server.set("/metrics", page(&body));
    world
        .apply(&[
            "{job_name: j, scrape_interval: 2s, scrape_timeout: 2s, static_configs: [{targets: ['$ADDR']}]}",
        ])
        .await;
    world.until("scraped", || world.store.last("scrape_samples_scraped").is_some()).await;
    assert_eq!(world.store.last("scrape_samples_scraped").as_deref(), Some("20000"));
    assert_eq!(world.store.series().len(), 20_000);
    world.manager.stop().await;
}
