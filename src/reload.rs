//! Reload: the whole configuration anew, or nothing of it.
//!
//! Everything that can fail is done first: reading and checking all files, making HTTP clients, building the
//! Alertmanager's parts. Then the swaps follow, in a fixed order.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alertmanager::{Alertmanager, AlertmanagerConfig};
use model::{Clock, Timestamp};
use parking_lot::RwLock;
use prometheus::{Gauge, IntGauge, Registry};
use query::exec::{Engine, QueryLog};
use query::rules::RuleManager;
use scraper::ScrapeManager;
use scraper::config::{BuildContext, RawScrapeConfig, ScrapeConfig, ScrapeDefaults};
use scraper::loopback::{BrokerKind, Loopback};
use tokio_util::sync::CancellationToken;
use tsdb::{Db, Retention};
use web::{Control, ReloadStatus};

use crate::alert_relay::{AlertRelay, RelaySettings};
use crate::config::{Config, FileError, LoadRequest, load, mask};
use crate::log_file::LogFile;

/// What takes configurations.
pub(crate) struct Engines {
    pub scrape: Arc<ScrapeManager>,
    pub rules: Arc<RuleManager>,
    /// Takes another query log.
    pub engine: Arc<Engine>,
    pub alertmanager: Arc<Alertmanager>,
    pub relay: Arc<AlertRelay>,
    /// Brokers of this machine; `None`: not looked for.
    pub loopback: Option<Arc<Loopback>>,
    /// Takes another retention.
    pub db: Arc<Db>,
    /// Retention where the configuration says nothing.
    pub retention_flags: RetentionFlags,
    /// Default step of subqueries, in milliseconds.
    pub evaluation_interval_ms: Arc<AtomicI64>,
}

/// How long samples are kept when nothing is said (as Prometheus).
const RETENTION: Duration = Duration::from_hours(15 * 24);

/// Retention as the command line says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetentionFlags {
    pub time: Option<Duration>,
    pub size_bytes: Option<u64>,
}

impl RetentionFlags {
    /// Retention in force. The configuration beats flags, and a limit of size alone means no limit of time: as in
    /// Prometheus.
    pub(crate) fn with(self, config: &Config) -> Retention {
        let size = config.retention_size.or(self.size_bytes);
        let time = config.retention_time.or(self.time);
        let time = time.unwrap_or(if size.is_some() { Duration::ZERO } else { RETENTION });
        Retention { time, size_bytes: size.unwrap_or(0), rules: config.retention_rules.clone() }
    }
}

/// The process as the API steers it.
pub(crate) struct Process {
    request: LoadRequest,
    clock: Arc<dyn Clock>,
    quit: CancellationToken,
    engines: OnceLock<Engines>,
    /// What the store was opened with.
    at_start: StoreSettings,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    state: RwLock<State>,
    successful: IntGauge,
    success_time: Gauge,
}

/// Settings of the store, which is opened once.
#[derive(Clone, Copy, PartialEq, Eq)]
struct StoreSettings {
    out_of_order_window: Duration,
    exemplars_max: usize,
}

impl StoreSettings {
    fn of(config: &Config) -> Self {
        Self { out_of_order_window: config.out_of_order_window, exemplars_max: config.exemplars_max }
    }

    /// Keys whose values differ.
    fn changed_in(&self, config: &Config) -> Vec<&'static str> {
        let new = Self::of(config);
        [
            ("storage.tsdb.out_of_order_time_window", self.out_of_order_window != new.out_of_order_window),
            ("storage.exemplars.max_exemplars", self.exemplars_max != new.exemplars_max),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect()
    }
}

struct State {
    yaml: String,
    status: ReloadStatus,
}

impl Process {
    /// A process with `config` in force, but nothing yet that it could be swapped in.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub(crate) fn new(
        request: LoadRequest,
        config: &Config,
        quit: CancellationToken,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let successful = IntGauge::new(
            "prometheus_config_last_reload_successful",
            "Whether the last configuration reload attempt was successful.",
        )?;
        let success_time = Gauge::new(
            "prometheus_config_last_reload_success_timestamp_seconds",
            "Timestamp of the last successful configuration reload.",
        )?;
        registry.register(Box::new(successful.clone()))?;
        registry.register(Box::new(success_time.clone()))?;
        let process = Self {
            clock: Arc::clone(&request.clock),
            request,
            quit,
            engines: OnceLock::new(),
            at_start: StoreSettings::of(config),
            reloading: tokio::sync::Mutex::new(()),
            state: RwLock::new(State {
                yaml: String::new(),
                status: ReloadStatus { success: true, last_success: Timestamp::default() },
            }),
            successful,
            success_time,
        };
        process.succeeded(config);
        Ok(process)
    }

    /// The engines are there: `config` is swapped in for the first time. Their Alertmanager was started with it.
    ///
    /// # Errors
    /// When a scrape job's HTTP client cannot be made.
    pub(crate) async fn start(&self, engines: Engines, config: Config) -> Result<(), String> {
        let _reloading = self.reloading.lock().await;
        let jobs = engines.scrape.prepare(self.jobs(&engines, &config)).map_err(|error| error.to_string())?;
        let query_log = open_query_log(&engines.engine, &config).await?;
        swap(&engines, jobs, query_log, config).await;
        // Only start-up calls this, and once.
        let _ = self.engines.set(engines);
        Ok(())
    }

    /// Reads the configuration anew and swaps it in. Goes on to its end when the caller stops waiting: half a reload would
    /// be worse than either configuration.
    ///
    /// # Errors
    /// What is wrong; the old configuration goes on then.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<(), String> {
        let process = Arc::clone(self);
        let reloading = tokio::spawn(async move { process.reload_to_the_end().await });
        reloading.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn reload_to_the_end(&self) -> Result<(), String> {
        let _reloading = self.reloading.lock().await;
        let result = self.try_reload().await;
        match &result {
            Ok(()) => tracing::info!("configuration loaded"),
            Err(error) => {
                tracing::error!(error, "configuration not loaded: the old one goes on");
                self.successful.set(0);
                self.state.write().status.success = false;
            }
        }
        result
    }

    async fn try_reload(&self) -> Result<(), String> {
        let engines = self.engines.get().ok_or("still starting")?;
        let request = self.request.clone();
        let loaded =
            tokio::task::spawn_blocking(move || load(&request)).await.map_err(|error| error.to_string())?;
        let mut config = loaded.map_err(|errors| joined(&errors))?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let jobs = engines.scrape.prepare(self.jobs(engines, &config)).map_err(|error| error.to_string())?;
        // Opened anew at every reload, so that the file may have been moved away.
        let query_log = open_query_log(&engines.engine, &config).await?;
        for key in self.at_start.changed_in(&config) {
            tracing::warn!("{key} has changed: the new value holds after a restart");
        }
        let alertmanager = config.alertmanager.take().unwrap_or_else(silent_alertmanager);
        engines.alertmanager.reload(alertmanager).await.map_err(|error| error.to_string())?;
        // Nothing fails from here on.
        self.succeeded(&config);
        swap(engines, jobs, query_log, config).await;
        Ok(())
    }

    fn succeeded(&self, config: &Config) {
        let now = self.clock.now_ms();
        self.successful.set(1);
        self.success_time.set(now as f64 / 1000.0);
        *self.state.write() = State {
            yaml: mask::mask(&config.text),
            status: ReloadStatus { success: true, last_success: now },
        };
    }

    /// The configured jobs, and those of brokers on loopback.
    fn jobs(&self, engines: &Engines, config: &Config) -> Vec<ScrapeConfig> {
        let mut jobs = config.scrape_configs.clone();
        let Some(loopback) = &engines.loopback else { return jobs };
        for kind in BrokerKind::ALL {
            let Some(job) = self.loopback_job(kind, loopback, &config.scrape_defaults) else { continue };
            if jobs.iter().any(|other| other.job_name == job.job_name) {
                tracing::warn!(
                    job = job.job_name,
                    "a configured job has the name of a loopback job: the latter is left out"
                );
            } else {
                jobs.push(job);
            }
        }
        jobs
    }

    fn loopback_job(
        &self,
        kind: BrokerKind,
        loopback: &Arc<Loopback>,
        defaults: &ScrapeDefaults,
    ) -> Option<ScrapeConfig> {
        let job = kind.job()?;
        let mut yaml = format!("job_name: {}\nmetrics_path: {}\n", job.job_name, job.metrics_path);
        if let Some(collector) = job.collector {
            yaml.push_str(&format!("collector: {collector}\ncollector_options: {}\n", job.collector_options));
        }
        let raw: RawScrapeConfig = serde_yaml::from_str(&yaml).expect("built-in jobs are tested");
        let context = BuildContext {
            dir: std::path::Path::new(""),
            defaults,
            collectors: &self.request.collectors,
            clock: Arc::clone(&self.clock),
        };
        let built = raw.build(&model::ConfigPath::root(), &context).expect("built-in jobs are tested");
        Some(built.with_discovery(Arc::new(loopback.discovery(kind))))
    }
}

async fn open_query_log(engine: &Engine, config: &Config) -> Result<Option<Arc<dyn QueryLog>>, String> {
    let Some(path) = config.query_log_file.clone() else { return Ok(None) };
    let failures = engine.query_log_failures();
    let opening = tokio::task::spawn_blocking(move || {
        let log = LogFile::open(&path, "query log", failures);
        log.map_err(|error| format!("cannot open the query log {}: {error}", path.display()))
    });
    let log = opening.await.map_err(|error| error.to_string())??;
    Ok(Some(Arc::new(log)))
}

/// The swaps, in order: who is fed comes before who feeds.
async fn swap(
    engines: &Engines,
    jobs: scraper::PreparedJobs,
    query_log: Option<Arc<dyn QueryLog>>,
    config: Config,
) {
    let interval = i64::try_from(config.evaluation_interval.as_millis()).unwrap_or(i64::MAX);
    engines.evaluation_interval_ms.store(interval, Ordering::Relaxed);
    engines.db.set_retention(engines.retention_flags.with(&config));
    engines.relay.set(RelaySettings {
        external_labels: config.external_labels.clone(),
        relabel_configs: Arc::clone(&config.alert_relabel_configs),
    });
    let engine = Arc::clone(&engines.engine);
    // Closing the old log waits for its last lines.
    let swapped = tokio::task::spawn_blocking(move || engine.set_query_log(query_log)).await;
    if let Err(error) = swapped {
        tracing::error!(%error, "swapping the query log panicked");
    }
    engines.rules.apply(config.rules, config.external_labels).await;
    engines.scrape.apply(jobs).await;
}

/// Without a configuration alerts are shown, and nobody is told.
pub(crate) fn silent_alertmanager() -> AlertmanagerConfig {
    AlertmanagerConfig::parse(
        "{route: {receiver: nobody}, receivers: [{name: nobody}]}",
        std::path::Path::new(""),
    )
    .expect("a route to nobody is valid")
}

/// All mistakes, one a line.
pub(crate) fn joined(errors: &[FileError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The process in the hands of the API.
pub(crate) struct ProcessControl(pub Arc<Process>);

impl Control for ProcessControl {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(self.0.reload())
    }

    fn quit(&self) {
        self.0.quit.cancel();
    }

    fn config_yaml(&self) -> String {
        self.0.state.read().yaml.clone()
    }

    fn reload_status(&self) -> ReloadStatus {
        self.0.state.read().status.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_configuration_nobody_is_told() {
        assert_eq!(silent_alertmanager().receivers.len(), 1);
        assert!(silent_alertmanager().receivers[0].integrations.is_empty());
    }
}
