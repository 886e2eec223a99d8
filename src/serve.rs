//! The server: what runs, in order of start, and how it ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use alertmanager::random::SystemRandom;
use alertmanager::{Alertmanager, Deps as AlertmanagerDeps, Options as AlertmanagerOptions};
use anyhow::{Context as _, anyhow};
use model::Clock;
use model::storage::Append;
use net::CpuPool;
use prometheus::Registry;
use query::exec::{Engine, EngineOptions, EvalFeatures, MemoryBudget, QueryTracker, SubqueryStep};
use query::parse::ParseOptions;
use query::rules::restore::RestoreOptions;
use query::rules::{GroupDeps, ManagerOptions, RuleManager};
use remote::write::{Receiver, ReceiverOptions};
use scraper::collector::CollectorFactory;
use scraper::collector::redis::RedisFactory;
use scraper::config::StartTimes;
use scraper::loopback::Loopback;
use scraper::{FailureLogs, ScrapeManager, ScrapeManagerOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tsdb::{Db, DbOptions, Progress};
use web::{App, BuildInfo, Options as WebOptions, Parts, Server};

use crate::active_queries::ActiveQueries;
use crate::alert_relay::AlertRelay;
use crate::cli::{Parsed, ServeArgs, Switch};
use crate::clock::SystemClock;
use crate::compactor::Compactor;
use crate::config::{Config, FileError, LoadRequest, load};
use crate::log_file::LogFile;
use crate::process_metrics::ProcessMetrics;
use crate::reload::{Engines, Process, ProcessControl, RetentionFlags, silent_alertmanager};
use crate::rule_engine::RuleEngine;

/// How long each part may take to end when the server stops: requests, scrapes, rules, notifications.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How often the store looks after itself.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Ticks of maintenance between two looks at gauges that are computed.
const GAUGES_EVERY: u32 = 5;
/// Version of Prometheus that the HTTP API follows.
const COMPATIBLE_VERSION: &str = "3.14.0";
/// Most bytes of a remote-write body, compressed.
const WRITE_BODY_BYTES_MAX: usize = 32 << 20;

/// Why the server did not run.
pub(crate) enum ServeError {
    /// The configuration is wrong.
    Config(Vec<FileError>),
    /// Something else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for ServeError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Collectors there are.
pub(crate) fn collectors() -> Arc<[Arc<dyn CollectorFactory>]> {
    Arc::from([Arc::new(RedisFactory) as Arc<dyn CollectorFactory>])
}

/// Serves until told to stop.
pub(crate) fn run(parsed: &Parsed) -> Result<(), ServeError> {
    let args = &parsed.cli.serve;
    for flag in &parsed.without_effect {
        tracing::warn!("--{flag} is accepted for compatibility and has no effect");
    }
    let features = Features::new(&args.enable_feature);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let request = LoadRequest {
        file: args.config_file.clone(),
        alertmanager_file: args.alertmanager_config_file.clone(),
        expand_env: args.config_expand_env,
        follow_files: true,
        strict: false,
        builtin_rules: args.rules_builtin,
        collectors: collectors(),
        clock: Arc::clone(&clock),
        parse_options: features.parse.clone(),
        start_times: features.start_times,
        own_address: own_address(args),
    };
    if request.file.is_none() && Path::new("prometheus.yml").exists() {
        tracing::info!("there is a prometheus.yml here; it is used with --config.file=prometheus.yml");
    }
    let config = load(&request).map_err(ServeError::Config)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("nilometer").build()?;
    // Of its own, as small pages are read and stored on its threads: the API must not wait for them, nor they for it.
    let scraping = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores())
        .enable_all()
        .thread_name("scrape")
        .build()?;
    let served = runtime.block_on(serve(parsed, features, request, config, scraping.handle().clone()));
    // Nothing of it is of use any more: scrapes were stopped, and a name that is being looked up may take its time.
    scraping.shutdown_background();
    served
}

/// Where the built-in defaults find ourselves.
fn own_address(args: &ServeArgs) -> String {
    args.listen.first().map_or_else(String::new, |address| {
        if address.ip().is_unspecified() {
            format!("127.0.0.1:{}", address.port())
        } else {
            address.to_string()
        }
    })
}

async fn serve(
    parsed: &Parsed,
    features: Features,
    request: LoadRequest,
    mut config: Config,
    scraping: tokio::runtime::Handle,
) -> Result<(), ServeError> {
    let args = &parsed.cli.serve;
    let registry = Registry::new();
    registry.register(Box::new(ProcessMetrics::new()?))?;
    register_build_info(&registry)?;
    let stop = CancellationToken::new();
    let clock = Arc::clone(&request.clock);
    let has_own_config = request.file.is_some();
    let process = Arc::new(Process::new(request, &config, stop.clone(), &registry)?);
    let options = web_options(parsed)?;
    let external_url = options.external_url.clone();
    let app = Arc::new(App::new(
        options,
        Arc::new(ProcessControl(Arc::clone(&process))),
        Arc::clone(&clock),
        registry.clone(),
        CpuPool::with_queue(args.query_concurrency_max, args.query_queue_max),
        CpuPool::new(2 * cores()),
    )?);
    let signals = tokio::spawn(handle_signals(Arc::clone(&process), stop.clone())?);

    // The server answers from the start: health, and how far the store has come.
    let server = Server::bind(Arc::clone(&app)).await?;
    for address in server.addresses() {
        tracing::info!(%address, url = external_url, "listening");
    }
    let server_stop = CancellationToken::new();
    let server = tokio::spawn(server.run(server_stop.clone(), STOP_GRACE));

    let db = open_store(args, &config, &clock, &registry, &app).await?;
    let evaluation_interval_ms = Arc::new(AtomicI64::new(60_000));
    let engine = Arc::new(engine(args, features, &evaluation_interval_ms, &clock, &registry).await);
    let receiver = Arc::new(Receiver::new(
        Arc::clone(&db) as _,
        Arc::clone(&clock),
        rand::random(),
        ReceiverOptions::default(),
        &registry,
    )?);
    let alertmanager = Alertmanager::start(
        config.alertmanager.take().unwrap_or_else(silent_alertmanager),
        AlertmanagerDeps {
            clock: Arc::clone(&clock),
            random: Arc::new(SystemRandom),
            registry: registry.clone(),
            state_dir: Some(args.storage_path.join("alertmanager")),
            external_url: external_url.clone(),
            cluster: None,
            integrations: None,
            options: AlertmanagerOptions::default(),
        },
    )
    .await
    .context("cannot start the Alertmanager")?;
    let relay = Arc::new(AlertRelay::new(Arc::clone(&alertmanager)));
    let cancel_rules = Arc::new(AtomicBool::new(false));
    let rule_engine = RuleEngine {
        engine: Arc::clone(&engine),
        storage: Arc::clone(&db) as _,
        cancel: Arc::clone(&cancel_rules),
    };
    let rule_deps = GroupDeps {
        evaluate: Arc::new(rule_engine),
        append: Arc::clone(&db) as _,
        storage: Arc::clone(&db) as _,
        sink: Arc::clone(&relay) as _,
        clock: Arc::clone(&clock),
    };
    let rules = Arc::new(rule_manager(args, rule_deps, &external_url, &registry)?);
    let scrape = Arc::new(ScrapeManager::new(
        ScrapeManagerOptions {
            append: Arc::clone(&db) as Arc<dyn Append>,
            clock: Arc::clone(&clock),
            // A pool of its own: slow queries must not make scrapes late.
            cpu: CpuPool::new(2 * cores()),
            runtime: Some(scraping),
            user_agent: format!("Nilometer/{}", env!("CARGO_PKG_VERSION")),
            offset_seed: offset_seed(&config),
            no_offset: false,
            failure_logs: FailureLogs::new(|path, lost| {
                Ok(Arc::new(LogFile::open(path, "scrape failure log", lost)?))
            }),
        },
        &registry,
    )?);
    let loopback =
        looks_at_loopback(args.discovery_loopback, has_own_config).then(|| Arc::new(Loopback::new(&[])));
    let compactor = Compactor::start(&db, &clock, args.compaction_interval, &stop)?;
    let upkeep = Upkeep::start(&db, &receiver, &scrape, &alertmanager, &clock, loopback.as_ref(), &stop);
    let engines = Engines {
        scrape: Arc::clone(&scrape),
        rules: Arc::clone(&rules),
        engine: Arc::clone(&engine),
        alertmanager: Arc::clone(&alertmanager),
        relay,
        loopback: loopback.clone(),
        db: Arc::clone(&db),
        retention_flags: retention_flags(args),
        evaluation_interval_ms,
    };
    process.start(engines, config).await.map_err(|error| anyhow!(error))?;
    let closing = Arc::clone(&engine);
    app.set_ready(Parts {
        storage: Arc::clone(&db) as _,
        exemplars: Arc::clone(&db) as _,
        admin: Arc::clone(&db) as _,
        receiver,
        engine,
        rules: Arc::clone(&rules),
        scrape: Arc::clone(&scrape),
        alertmanager: Arc::clone(&alertmanager),
        loopback,
    });
    tracing::info!("ready");

    stop.cancelled().await;
    tracing::info!("stopping");
    // Who feeds ends before who is fed; queries and requests under way do not hold the feeders up.
    server_stop.cancel();
    cancel_rules.store(true, Ordering::Relaxed);
    db.stop_compactions();
    let mut clean = ended("scraping", scrape.stop()).await.is_some();
    clean &= ended("rules", rules.stop()).await.is_some();
    clean &= ended("requests", server).await.is_some_and(|drained| drained.unwrap_or(false));
    clean &= ended("notifications", alertmanager.stop()).await.unwrap_or(false);
    let log_closed = tokio::task::spawn_blocking(move || closing.set_query_log(None));
    clean &= ended("query log", log_closed).await.is_some();
    clean &= ended("upkeep", upkeep.join()).await.is_some();
    clean &= ended("compaction", compactor.join()).await.is_some();
    let closed =
        tokio::task::spawn_blocking(move || db.close()).await.context("closing the store panicked")?;
    signals.abort();
    closed.context("cannot close the store")?;
    tracing::info!(clean, "stopped");
    Ok(())
}

/// Waits for a part to end; `None`, with a line in the log, when it takes longer than [`STOP_GRACE`].
async fn ended<T>(part: &str, ending: impl Future<Output = T>) -> Option<T> {
    let outcome = tokio::time::timeout(STOP_GRACE, ending).await.ok();
    if outcome.is_none() {
        tracing::warn!(part, grace = ?STOP_GRACE, "did not end in time: going on without it");
    }
    outcome
}

fn register_build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let opts = prometheus::Opts::new(
        "prometheus_build_info",
        "A metric with a constant '1' value labeled by version.",
    )
    .const_label("version", COMPATIBLE_VERSION)
    .const_label("revision", revision())
    .const_label("branch", format!("nilometer-{}", env!("CARGO_PKG_VERSION")))
    .const_label("goversion", "");
    let gauge = prometheus::IntGauge::with_opts(opts)?;
    gauge.set(1);
    registry.register(Box::new(gauge))
}

/// The commit this was built from, when the build says so.
fn revision() -> &'static str {
    option_env!("NILOMETER_REVISION").unwrap_or("unknown")
}

fn web_options(parsed: &Parsed) -> anyhow::Result<WebOptions> {
    let args = &parsed.cli.serve;
    let hostname =
        hostname::get().map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned());
    let external_url = match &args.external_url {
        Some(url) => {
            let parsed =
                url::Url::parse(url).with_context(|| format!("--web.external-url: {url:?} is no URL"))?;
            anyhow::ensure!(parsed.has_host(), "--web.external-url: {url:?} has no host");
            url.trim_end_matches('/').to_owned()
        }
        None => {
            let address = args.listen.first().context("no address to listen on")?;
            if address.ip().is_unspecified() {
                format!("http://{hostname}:{}", address.port())
            } else {
                format!("http://{address}")
            }
        }
    };
    let prefix = match &args.route_prefix {
        Some(prefix) => prefix.clone(),
        None => url::Url::parse(&external_url).map(|url| url.path().to_owned()).unwrap_or_default(),
    };
    let prefix = prefix.trim_matches('/');
    let mut flags = parsed.flags.clone();
    flags.insert("web.route-prefix".to_owned(), format!("/{prefix}"));
    flags.insert("web.external-url".to_owned(), args.external_url.clone().unwrap_or_default());
    Ok(WebOptions {
        listen: args.listen.clone(),
        external_url,
        route_prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
        cors_origin: regex::Regex::new(&format!("^(?:{})$", args.cors_origin))
            .context("--web.cors.origin")?,
        page_title: args.page_title.clone(),
        enable_lifecycle: args.enable_lifecycle,
        enable_admin_api: args.enable_admin_api,
        enable_remote_write_receiver: args.enable_remote_write_receiver,
        connections_max: args.connections_max,
        read_timeout: args.read_timeout,
        query_timeout: args.query_timeout,
        per_step_stats: args
            .enable_feature
            .iter()
            .any(|name| matches!(name.trim(), "all" | "promql-per-step-stats")),
        write_body_bytes_max: WRITE_BODY_BYTES_MAX,
        build: BuildInfo {
            compatible_version: COMPATIBLE_VERSION.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision().to_owned(),
            rustc: concat!("rustc ", env!("CARGO_PKG_RUST_VERSION")).to_owned(),
        },
        flags,
        working_directory: std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default(),
        hostname,
    })
}

async fn open_store(
    args: &ServeArgs,
    config: &Config,
    clock: &Arc<dyn Clock>,
    registry: &Registry,
    app: &App,
) -> anyhow::Result<Arc<Db>> {
    let mut options = DbOptions::new(&args.storage_path, Arc::clone(clock));
    options.wal_fsync_interval = args.wal_fsync_interval;
    options.lock = !args.no_lockfile;
    options.out_of_order_window_ms =
        i64::try_from(config.out_of_order_window.as_millis()).unwrap_or(i64::MAX);
    options.exemplars_max = config.exemplars_max;
    let retention = retention_flags(args).with(config);
    options.retention = retention.time;
    options.retention_size_bytes = retention.size_bytes;
    options.retention_rules = retention.rules;
    options.block_duration_min = args.min_block_duration;
    options.block_duration_max = args.max_block_duration;
    options.wal_compression = !args.no_wal_compression;
    if let Some(bytes) = args.block_cache_size {
        options.block_cache_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    if let Some(bytes) = args.wal_segment_size {
        options.wal_segment_bytes = bytes;
    }
    if let Some(bytes) = args.checkpoint_size {
        options.checkpoint_bytes = bytes;
    }
    let progress = Arc::new(Progress::default());
    let shown = Arc::clone(&progress);
    app.show_replay(Arc::new(move || shown.get()));
    let registry = registry.clone();
    let path = args.storage_path.display().to_string();
    tokio::task::spawn_blocking(move || {
        Db::open_with_progress(options, &registry, Arc::new(tsdb::fs::RealFs), progress)
    })
    .await
    .context("opening the store panicked")?
    .with_context(|| format!("cannot open the store in {path}"))
}

fn retention_flags(args: &ServeArgs) -> RetentionFlags {
    RetentionFlags { time: args.retention_time, size_bytes: args.retention_size }
}

/// The file of running queries; without it all else works. (The store is open: its directory is there, and ours alone.)
async fn active_queries(args: &ServeArgs, clock: &Arc<dyn Clock>) -> Option<Arc<dyn QueryTracker>> {
    let (dir, clock) = (args.storage_path.clone(), Arc::clone(clock));
    let places = args.query_concurrency_max + rule_evaluations_max();
    let opened = tokio::task::spawn_blocking(move || ActiveQueries::open(&dir, places, clock)).await;
    match opened.unwrap_or_else(|lost| Err(std::io::Error::other(lost))) {
        Ok(active) => Some(Arc::new(active)),
        Err(error) => {
            tracing::warn!(%error, "no file of running queries: a crash will not tell what ran");
            None
        }
    }
}

async fn engine(
    args: &ServeArgs,
    features: Features,
    interval_ms: &Arc<AtomicI64>,
    clock: &Arc<dyn Clock>,
    registry: &Registry,
) -> Engine {
    let interval = Arc::clone(interval_ms);
    // A quarter: the head and the page cache want the rest. VictoriaMetrics gives queries and caches 60 % together.
    let memory = args.query_memory_max.unwrap_or_else(|| crate::machine::memory_bytes() / 4);
    let each = args.query_memory_each_max.unwrap_or(memory / 2).min(memory);
    Engine::new(EngineOptions {
        lookback_delta_ms: i64::try_from(args.lookback_delta.as_millis()).unwrap_or(i64::MAX),
        max_samples: args.query_samples_max as u64,
        max_series: if args.query_series_max == 0 { u64::MAX } else { args.query_series_max },
        max_query_bytes: each,
        memory: MemoryBudget::new(memory),
        timeout: args.query_timeout,
        concurrency: args.query_concurrency_max,
        slow_threshold: args.slow_query_threshold,
        clock: Some(Arc::clone(clock)),
        subquery_step: SubqueryStep(Arc::new(move |_| interval.load(Ordering::Relaxed))),
        parse: features.parse,
        features: features.eval,
        tracker: active_queries(args, clock).await,
        registry: Some(registry.clone()),
    })
}

fn rule_manager(
    args: &ServeArgs,
    deps: GroupDeps,
    external_url: &str,
    registry: &Registry,
) -> Result<RuleManager, prometheus::Error> {
    let options = ManagerOptions {
        resend_delay: args.resend_delay,
        restore: RestoreOptions {
            outage_tolerance: args.for_outage_tolerance,
            grace_period: args.for_grace_period,
        },
        evaluations_max: rule_evaluations_max(),
        external_url: external_url.to_owned(),
    };
    RuleManager::new(deps, options, registry)
}

/// Groups that wait miss iterations; more at once than cores only take them from queries.
fn rule_evaluations_max() -> usize {
    2 * cores()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Tells this server's scrape offsets from those of others.
fn offset_seed(config: &Config) -> u64 {
    let hostname = hostname::get().unwrap_or_default();
    let labels = config.external_labels.with("__host__", &hostname.to_string_lossy());
    labels.hash64()
}

fn looks_at_loopback(switch: Switch, has_own_config: bool) -> bool {
    match switch {
        Switch::On => true,
        Switch::Off => false,
        Switch::Auto => !has_own_config,
    }
}

/// SIGHUP reloads, SIGTERM and SIGINT stop; a second one of the latter ends at once.
fn handle_signals(
    process: Arc<Process>,
    stop: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    // In a task of its own, so that a stop is heard meanwhile. What went wrong is logged and counted there.
                    let process = Arc::clone(&process);
                    tokio::spawn(async move { process.reload().await });
                    continue;
                }
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("told to stop a second time: ending at once");
                std::process::exit(1);
            }
            stop.cancel();
        }
    })
}

/// What runs beside everything else.
struct Upkeep {
    tasks: Vec<JoinHandle<()>>,
}

impl Upkeep {
    fn start(
        db: &Arc<Db>,
        receiver: &Arc<Receiver>,
        scrape: &Arc<ScrapeManager>,
        alertmanager: &Arc<Alertmanager>,
        clock: &Arc<dyn Clock>,
        loopback: Option<&Arc<Loopback>>,
        stop: &CancellationToken,
    ) -> Self {
        let (store, clock) = (Arc::clone(db), Arc::clone(clock));
        let (scrape, alertmanager) = (Arc::clone(scrape), Arc::clone(alertmanager));
        let receiver = Arc::clone(receiver);
        let stopped = stop.clone();
        let mut tasks = vec![tokio::spawn(async move {
            let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut tick = 0u32;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stopped.cancelled() => return,
                }
                let (store, now) = (Arc::clone(&store), clock.now_ms());
                let (scrape, alertmanager) = (Arc::clone(&scrape), Arc::clone(&alertmanager));
                let receiver = Arc::clone(&receiver);
                tick = tick.wrapping_add(1);
                let upkeep = tokio::task::spawn_blocking(move || {
                    // Gauges that cost something to compute, off the reactor and not at every tick.
                    if tick.is_multiple_of(GAUGES_EVERY) {
                        scrape.refresh_metrics();
                        alertmanager.update_metrics();
                    }
                    receiver.maintain();
                    store.maintain(now)
                });
                match upkeep.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(%error, "maintenance of the store failed; it is tried again");
                    }
                    Err(error) => tracing::error!(%error, "maintenance panicked"),
                }
            }
        })];
        if let Some(loopback) = loopback {
            let (loopback, stopped) = (Arc::clone(loopback), stop.clone());
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = loopback.run() => {}
                    () = stopped.cancelled() => {}
                }
            }));
        }
        Self { tasks }
    }

    async fn join(self) {
        for task in self.tasks {
            // Panics within are logged where they happen.
            let _ = task.await;
        }
    }
}

/// Language features by their flags.
pub(crate) struct Features {
    /// The parser's.
    pub parse: ParseOptions,
    /// The engine's.
    pub eval: EvalFeatures,
    /// Those of scraping.
    pub start_times: StartTimes,
}

impl Features {
    /// Reads `--enable-feature`. Unknown ones are logged, as in Prometheus.
    pub(crate) fn new(names: &[String]) -> Self {
        let mut features = Self {
            parse: ParseOptions::default(),
            eval: EvalFeatures::default(),
            start_times: StartTimes::default(),
        };
        for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            match name {
                "all" => {
                    features.parse = ParseOptions::all();
                    features.eval.delayed_name_removal = true;
                    features.eval.use_start_timestamps = true;
                }
                "promql-experimental-functions" => features.parse.experimental_functions = true,
                "promql-binop-fill-modifiers" => features.parse.binop_fill_modifiers = true,
                "promql-extended-range-selectors" => features.parse.extended_range_selectors = true,
                "promql-duration-expr" => features.parse.duration_expressions = true,
                "promql-delayed-name-removal" => features.eval.delayed_name_removal = true,
                // Of both, the one that keeps more.
                "created-timestamp-zero-ingestion" if features.start_times == StartTimes::Stored => {}
                "created-timestamp-zero-ingestion" => features.start_times = StartTimes::ZeroSamples,
                "st-storage" => features.start_times = StartTimes::Stored,
                // Read where the API is set up.
                "promql-per-step-stats" => {}
                "type-and-unit-labels" => features.eval.type_and_unit_labels = true,
                "use-start-timestamps" => features.eval.use_start_timestamps = true,
                other if KNOWN_FEATURES.contains(&other) => {
                    tracing::info!(
                        feature = other,
                        "this feature is always on here, or has nothing to switch"
                    );
                }
                other => tracing::warn!(feature = other, "unknown feature"),
            }
        }
        features
    }
}

/// Features of Prometheus that need no switch here.
const KNOWN_FEATURES: [&str; 17] = [
    "auto-gomaxprocs",
    "auto-gomemlimit",
    "auto-reload-config",
    "concurrent-rule-eval",
    "delayed-compaction",
    "exemplar-storage",
    "expand-external-labels",
    "extra-scrape-metrics",
    "histograms-st-encoding",
    "memory-snapshot-on-shutdown",
    "metadata-wal-records",
    "native-histograms",
    "old-ui",
    "otlp-deltatocumulative",
    "search-api",
    "use-uncached-io",
    "xor2-encoding",
];
