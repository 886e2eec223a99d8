//! What handlers work with: options, the parts of the process, and the gate that opens when the parts are ready.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::storage::{ExemplarQueryable, Queryable, ReplayProgress, StorageAdmin};
use model::{Clock, Timestamp};
use net::CpuPool;
use prometheus::Registry;
use regex::Regex;

use crate::metrics::HttpMetrics;

/// What the server is told at start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// How the server is reached from outside, without a slash at the end.
    pub external_url: String,
    /// Prefix of all paths: empty, or `/prefix`.
    pub route_prefix: String,
    /// Origins that browsers may call from; anchored.
    pub cors_origin: Regex,
    /// Title of the UI.
    pub page_title: String,
    /// Whether `/-/reload` and `/-/quit` work.
    pub enable_lifecycle: bool,
    /// Whether `/api/v1/admin/…` works.
    pub enable_admin_api: bool,
    /// Whether `/api/v1/write` works.
    pub enable_remote_write_receiver: bool,
    /// Most connections at once.
    pub connections_max: usize,
    /// Longest time for reading a request.
    pub read_timeout: Duration,
    /// Longest time of a query.
    pub query_timeout: Duration,
    /// Whether `stats=all` tells the samples of each step (feature `promql-per-step-stats`).
    pub per_step_stats: bool,
    /// Most bytes of a remote-write body (compressed).
    pub write_body_bytes_max: usize,
    /// Who built what.
    pub build: BuildInfo,
    /// Flags as given or by default, for `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
    /// Working directory, for `/api/v1/status/runtimeinfo`.
    pub working_directory: String,
    /// Host name, for `/api/v1/status/runtimeinfo`.
    pub hostname: String,
}

/// Who built what.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// Version of Prometheus that the API follows: Grafana gates features on it.
    pub compatible_version: String,
    /// Our own version.
    pub version: String,
    /// Commit, or `unknown`.
    pub revision: String,
    /// Compiler.
    pub rustc: String,
}

/// Steers the process; implemented by the binary.
pub trait Control: Send + Sync {
    /// Reads the configuration anew and swaps it in whole, or nothing of it.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;

    /// Ends the process in good order.
    fn quit(&self);

    /// The configuration in force as YAML, secrets masked.
    fn config_yaml(&self) -> String;

    /// How the last reload went.
    fn reload_status(&self) -> ReloadStatus;
}

/// How the last reload went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadStatus {
    /// Whether the configuration in force is the one on disk then.
    pub success: bool,
    /// When a reload last succeeded.
    pub last_success: Timestamp,
}

/// The engines behind the API.
#[derive(Clone)]
pub struct Parts {
    /// Stored series.
    pub storage: Arc<dyn Queryable>,
    /// Stored exemplars.
    pub exemplars: Arc<dyn ExemplarQueryable>,
    /// The store's own numbers.
    pub admin: Arc<dyn StorageAdmin>,
    /// Remote write.
    pub receiver: Arc<remote::write::Receiver>,
    /// PromQL.
    pub engine: Arc<query::exec::Engine>,
    /// Rules.
    pub rules: Arc<query::rules::RuleManager>,
    /// Targets.
    pub scrape: Arc<scraper::ScrapeManager>,
    /// The embedded Alertmanager.
    pub alertmanager: Arc<alertmanager::Alertmanager>,
    /// Brokers on loopback; `None`: not looked for.
    pub loopback: Option<Arc<scraper::loopback::Loopback>>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts")
    }
}

/// Everything handlers need.
pub struct App {
    /// What the server was told at start.
    pub options: Options,
    /// The process.
    pub control: Arc<dyn Control>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// When the process started.
    pub started: Timestamp,
    /// Metrics of all parts.
    pub registry: Registry,
    /// Where queries run: bounded by `--query.max-concurrency`, apart from all else, so that slow ones stop nobody.
    pub queries: CpuPool,
    /// Where writes, look-ups and large encodings run.
    pub pool: CpuPool,
    /// Counts requests.
    pub metrics: HttpMetrics,
    /// Held by the one operation on the store that is going on (delete, clean, snapshot): more would only wait for the
    /// same disk.
    pub store_operation: Arc<tokio::sync::Mutex<()>>,
    parts: OnceLock<Parts>,
    /// The store while it replays, for the progress page.
    replaying: OnceLock<Arc<dyn Fn() -> ReplayProgress + Send + Sync>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("options", &self.options).finish_non_exhaustive()
    }
}

impl App {
    /// An app that is not ready yet.
    ///
    /// # Errors
    /// When metrics of the same names are registered already.
    pub fn new(
        options: Options,
        control: Arc<dyn Control>,
        clock: Arc<dyn Clock>,
        registry: Registry,
        queries: CpuPool,
        pool: CpuPool,
    ) -> Result<Self, prometheus::Error> {
        let pool_of_queries = queries.clone();
        registry.register(Box::new(prometheus::PullingGauge::new(
            "nilometer_query_places_abandoned",
            "Places of --query.max-concurrency held by queries that nobody waits for any more and that have not ended yet.",
            Box::new(move || pool_of_queries.abandoned() as f64),
        )?))?;
        Ok(Self {
            started: clock.now_ms(),
            metrics: HttpMetrics::new(&registry)?,
            options,
            control,
            clock,
            registry,
            queries,
            pool,
            store_operation: Arc::default(),
            parts: OnceLock::new(),
            replaying: OnceLock::new(),
        })
    }

    /// Shows the store's replay while there are no parts yet. Only the first call counts.
    pub fn show_replay(&self, progress: Arc<dyn Fn() -> ReplayProgress + Send + Sync>) {
        // Set once by the start-up sequence; a second call would be a second start-up.
        let _ = self.replaying.set(progress);
    }

    /// Opens the gate. Only the first call counts.
    pub fn set_ready(&self, parts: Parts) {
        let _ = self.parts.set(parts);
        self.metrics.ready.set(1);
    }

    /// The parts, once they are ready.
    pub fn parts(&self) -> Option<&Parts> {
        self.parts.get()
    }

    /// How far replay has come.
    pub fn replay_progress(&self) -> ReplayProgress {
        match (self.parts(), self.replaying.get()) {
            (Some(parts), _) => parts.admin.replay_progress(),
            (None, Some(progress)) => progress(),
            (None, None) => ReplayProgress::default(),
        }
    }
}
