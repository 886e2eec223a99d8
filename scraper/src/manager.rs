//! The scrape manager: all jobs, their reload, and what the API asks about them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use model::storage::Append;
use model::{Clock, Labels, Metadata};
use net::CpuPool;
use net::http::{ClientOptions, HttpClient};
use parking_lot::RwLock;
use prometheus::IntCounter;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::Instrument;

use crate::body::{self, KeptBody, NoBody};
use crate::config::ScrapeConfig;
use crate::discovery::DiscoveryTrouble;
use crate::failure_log::{self, FailureLog, FailureLogSlot, FailureLogs, OpenedLogs};
use crate::metrics::{ScrapeMetrics, SdMetrics};
use crate::pool::{PoolHandle, PoolView};
use crate::scrape_loop::Shared;
use crate::target::{LastScrape, Target};
use crate::unpack::Unpackers;

/// What the manager works with.
pub struct ScrapeManagerOptions {
    /// Where samples go.
    pub append: Arc<dyn Append>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where pages are read and stored: one job a scrape. Best a pool for this alone, or scrapes wait for other work.
    pub cpu: CpuPool,
    /// A runtime for scrapes alone: then small pages are read where they arrive, without a switch of threads. `None`: scrapes
    /// run where the manager is used, and all pages are read in the pool.
    pub runtime: Option<Handle>,
    /// `User-Agent` of requests, e.g. `Nilometer/1.0`.
    pub user_agent: String,
    /// Tells this server's scrape offsets from those of others: a hash of host name and external labels.
    pub offset_seed: u64,
    /// Whether targets are scraped at once when they appear, not at their place in the interval. For tests.
    pub no_offset: bool,
    /// Opens the logs of failed scrapes.
    pub failure_logs: FailureLogs,
}

impl std::fmt::Debug for ScrapeManagerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrapeManagerOptions").field("user_agent", &self.user_agent).finish_non_exhaustive()
    }
}

/// A job whose settings cannot be put to use.
#[derive(Debug, thiserror::Error)]
#[error("scrape job {job_name:?}: {source}")]
pub struct JobError {
    /// The job.
    pub job_name: String,
    /// Why its HTTP client cannot be made, or its failure log not be opened.
    pub source: JobErrorSource,
}

/// Why a job cannot be put to use.
type JobErrorSource = Box<dyn std::error::Error + Send + Sync>;
/// What a job needs beside its settings.
type Parts = (Option<HttpClient>, Option<Arc<dyn FailureLog>>);

/// Jobs that are ready to run, made by [`ScrapeManager::prepare`].
#[derive(Debug)]
pub struct PreparedJobs {
    jobs: Vec<PreparedJob>,
}

struct PreparedJob {
    config: ScrapeConfig,
    client: Option<HttpClient>,
    failure_log: Option<Arc<dyn FailureLog>>,
}

impl std::fmt::Debug for PreparedJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedJob").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Runs scrape jobs.
pub struct ScrapeManager {
    state: Arc<ManagerState>,
}

/// Shared with the tasks that carry out reloads and the stop: they go on when the one who asked has gone.
struct ManagerState {
    shared: Arc<Shared>,
    sd_metrics: Arc<SdMetrics>,
    failure_logs: FailureLogs,
    failure_lines_lost: IntCounter,
    pools: Mutex<Pools>,
    /// What the API sees, by job name.
    views: RwLock<BTreeMap<String, JobView>>,
}

impl std::fmt::Debug for ScrapeManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrapeManager").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Pools {
    running: BTreeMap<String, PoolHandle>,
    /// Pools of removed jobs that still end their series.
    retiring: Vec<PoolHandle>,
    stopped: bool,
}

#[derive(Clone)]
struct JobView {
    config: Arc<ScrapeConfig>,
    view: Arc<parking_lot::Mutex<PoolView>>,
}

/// A job and its targets, for `/api/v1/targets` and `/scrape_pools`.
#[derive(Clone, Debug)]
pub struct PoolStatus {
    /// Name of the job.
    pub name: String,
    /// Targets that are scraped, in order of URL.
    pub active: Vec<TargetStatus>,
    /// Labels before relabelling of targets that relabelling dropped, as many as are kept.
    pub dropped: Vec<Labels>,
    /// How many relabelling dropped.
    pub dropped_count: usize,
    /// Why targets may be others than those there are: discoverers that fail keep the last ones.
    pub discovery_troubles: Vec<DiscoveryTrouble>,
}

/// A target, for `/api/v1/targets`.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Labels that stored series carry.
    pub labels: Labels,
    /// Name of the job.
    pub scrape_pool: String,
    /// What is asked for.
    pub scrape_url: String,
    /// Interval of this target.
    pub scrape_interval: Duration,
    /// Timeout of this target.
    pub scrape_timeout: Duration,
    /// What the last scrape brought.
    pub last: LastScrape,
}

/// Metric families of a target, for `/api/v1/metadata` and `/targets/metadata`.
#[derive(Clone, Debug)]
pub struct TargetMetadata {
    /// Labels that stored series carry.
    pub labels: Labels,
    /// Families in order of names.
    pub families: Arc<Vec<(String, Metadata)>>,
}

impl ScrapeManager {
    /// A manager without jobs. Must be called within a tokio runtime, as all else here.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn new(options: ScrapeManagerOptions, registry: &prometheus::Registry) -> prometheus::Result<Self> {
        let shared = Shared {
            append: options.append,
            clock: options.clock,
            metrics: ScrapeMetrics::new(registry)?,
            cpu: options.cpu,
            runtime: options.runtime,
            unpackers: Unpackers::default(),
            user_agent: options.user_agent,
            offset_seed: options.offset_seed,
            no_offset: options.no_offset,
        };
        let state = ManagerState {
            shared: Arc::new(shared),
            sd_metrics: Arc::new(SdMetrics::new(registry)?),
            failure_logs: options.failure_logs,
            failure_lines_lost: failure_log::lost_counter(registry)?,
            pools: Mutex::default(),
            views: RwLock::default(),
        };
        Ok(Self { state: Arc::new(state) })
    }

    /// Makes the HTTP clients of jobs, which reads certificate files, and opens their failure logs. Changes nothing yet.
    ///
    /// # Errors
    /// When certificates or keys are missing or do not fit, or a log cannot be opened.
    pub fn prepare(&self, configs: Vec<ScrapeConfig>) -> Result<PreparedJobs, JobError> {
        let mut opened = OpenedLogs::default();
        let jobs = configs
            .into_iter()
            .map(|config| match self.prepare_job(&config, &mut opened) {
                Ok((client, failure_log)) => Ok(PreparedJob { config, client, failure_log }),
                Err(source) => Err(JobError { job_name: config.job_name, source }),
            })
            .collect::<Result<_, _>>()?;
        Ok(PreparedJobs { jobs })
    }

    fn prepare_job(&self, config: &ScrapeConfig, opened: &mut OpenedLogs) -> Result<Parts, JobErrorSource> {
        let state = &self.state;
        let client = match &config.collector {
            Some(_) => None,
            None => Some(HttpClient::new(&config.http, ClientOptions::new(state.shared.user_agent.clone()))?),
        };
        let open = |path: &std::path::PathBuf| {
            let log = opened.open(path, &state.failure_logs, &state.failure_lines_lost);
            log.map_err(|error| format!("cannot open scrape_failure_log_file {}: {error}", path.display()))
        };
        Ok((client, config.failure_log.as_ref().map(open).transpose()?))
    }

    /// Makes exactly these jobs run. Jobs that are as before are not touched; changed ones keep the series of the
    /// targets that stay; removed ones end their series. Returns when all run with their new configuration.
    ///
    /// Once begun it goes to its end, even when the caller goes away.
    ///
    /// # Panics
    /// When carrying it out panicked.
    pub async fn apply(&self, prepared: PreparedJobs) {
        let state = Arc::clone(&self.state);
        carry_out(self.state.shared.runtime.as_ref(), async move { state.apply(prepared).await }).await;
    }

    /// Stops scraping: requests under way are given up, what is being stored is stored. Nothing is written once this
    /// returns. No series is ended: the server is expected back.
    ///
    /// Once begun it goes to its end, even when the caller goes away.
    ///
    /// # Panics
    /// When carrying it out panicked.
    pub async fn stop(&self) {
        let state = Arc::clone(&self.state);
        carry_out(self.state.shared.runtime.as_ref(), async move { state.stop().await }).await;
    }

    /// All jobs with their targets, in order of names.
    pub fn status(&self) -> Vec<PoolStatus> {
        let views = self.state.views.read().clone();
        views
            .into_iter()
            .map(|(name, job)| {
                let (active, dropped, dropped_count) = {
                    let view = job.view.lock();
                    (view.active.clone(), view.dropped.clone(), view.dropped_count)
                };
                let active = active.iter().map(|target| target_status(&name, target)).collect();
                let discovery_troubles = self.state.sd_metrics.troubles(&name);
                PoolStatus { name, active, dropped, dropped_count, discovery_troubles }
            })
            .collect()
    }

    /// Names of jobs, in order.
    pub fn scrape_pools(&self) -> Vec<String> {
        self.state.views.read().keys().cloned().collect()
    }

    /// What keeps the discoverers of a job from finding targets at the moment.
    pub fn discovery_troubles(&self, name: &str) -> Vec<DiscoveryTrouble> {
        self.state.sd_metrics.troubles(name)
    }

    /// The configuration of a job that runs.
    pub fn job(&self, name: &str) -> Option<Arc<ScrapeConfig>> {
        self.state.views.read().get(name).map(|job| Arc::clone(&job.config))
    }

    /// The body of the last page of the target of job `pool` at `url`: that of the next scrape, waited for until `deadline`,
    /// when nobody asked lately.
    ///
    /// # Errors
    /// When there is none to show.
    pub async fn body(&self, pool: &str, url: &str, deadline: Instant) -> Result<Arc<KeptBody>, NoBody> {
        let views = self.state.views.read().clone();
        let job = views.get(pool).ok_or_else(|| NoBody::Pool(pool.to_owned()))?;
        if job.config.collector.is_some() {
            return Err(NoBody::Collector(pool.to_owned()));
        }
        let target = job.view.lock().active.iter().find(|target| target.url == url).cloned();
        let target = target.ok_or_else(|| NoBody::Target(pool.to_owned(), url.to_owned()))?;
        let now = self.state.shared.clock.now_ms();
        if !target.body.is_wanted(now) {
            let wanted = |job: &JobView| {
                job.view.lock().active.iter().filter(|target| target.body.is_wanted(now)).count()
            };
            if views.values().map(wanted).sum::<usize>() >= body::TARGETS_MAX {
                return Err(NoBody::TooMany);
            }
        }
        target.body.get(now, deadline).await
    }

    /// Metric families of all targets that are scraped.
    pub fn metadata(&self) -> Vec<TargetMetadata> {
        let views = self.state.views.read().clone();
        views
            .into_values()
            .flat_map(|job| job.view.lock().active.clone())
            .map(|target| TargetMetadata {
                labels: target.public_labels.clone(),
                families: Arc::clone(&target.metadata.lock()),
            })
            .collect()
    }

    /// Brings gauges up to date that are computed only when asked for (size of the metadata cache). Call before
    /// gathering metrics.
    pub fn refresh_metrics(&self) {
        let views = self.state.views.read().clone();
        for (name, job) in views {
            let (mut entries, mut bytes) = (0, 0);
            for target in job.view.lock().active.clone() {
                let families = Arc::clone(&target.metadata.lock());
                entries += families.len();
                bytes += families
                    .iter()
                    .map(|(_, meta)| meta.help.len() + meta.unit.len() + meta.kind.as_str().len())
                    .sum::<usize>();
            }
            let metrics = &self.state.shared.metrics;
            metrics.metadata_entries.with_label_values(&[&name]).set(entries as i64);
            metrics.metadata_bytes.with_label_values(&[&name]).set(bytes as i64);
        }
    }
}

impl ManagerState {
    async fn apply(&self, prepared: PreparedJobs) {
        let mut pools = self.pools.lock().await;
        if pools.stopped {
            return;
        }
        let mut before = std::mem::take(&mut pools.running);
        pools.retiring.retain(|pool| !pool.is_finished());
        let mut reloads = Vec::new();
        // Closing a log may wait for its disk.
        let mut replaced_logs = Vec::new();
        for PreparedJob { config, client, failure_log } in prepared.jobs {
            let config = Arc::new(config);
            let name = config.job_name.clone();
            for warning in &config.warnings {
                tracing::warn!(job = %name, "{warning}");
            }
            match before.remove(&name) {
                Some(mut pool) => {
                    replaced_logs.extend(pool.failures.set(failure_log));
                    if pool.config.same_as(&config) {
                        pools.running.insert(name, pool);
                    } else {
                        reloads.push(async move {
                            pool.reload(config, client).await;
                            (name, pool)
                        });
                    }
                }
                None => {
                    let failures = FailureLogSlot::new(self.failure_lines_lost.clone());
                    // It was empty.
                    let _ = failures.set(failure_log);
                    let pool = PoolHandle::start(config, client, failures, &self.shared, &self.sd_metrics);
                    pools.running.insert(name, pool);
                }
            }
        }
        // All at once: each waits for what its targets are storing.
        pools.running.extend(join_all(reloads).await);
        for (_, pool) in before {
            replaced_logs.extend(pool.failures.set(None));
            pool.retire().await;
            pools.retiring.push(pool);
        }
        close(replaced_logs).await;
        *self.views.write() = pools
            .running
            .iter()
            .map(|(name, pool)| {
                let view = JobView { config: Arc::clone(&pool.config), view: Arc::clone(&pool.view) };
                (name.clone(), view)
            })
            .collect();
    }

    async fn stop(&self) {
        let mut pools = self.pools.lock().await;
        pools.stopped = true;
        let running = std::mem::take(&mut pools.running);
        let logs = running.values().filter_map(|pool| pool.failures.set(None)).collect();
        join_all(running.into_values().chain(pools.retiring.drain(..)).map(PoolHandle::shutdown)).await;
        close(logs).await;
    }
}

/// Closes logs where waiting does no harm.
async fn close(logs: Vec<Arc<dyn FailureLog>>) {
    if logs.is_empty() {
        return;
    }
    if let Err(error) = tokio::task::spawn_blocking(move || drop(logs)).await {
        tracing::error!(%error, "closing failure logs panicked");
    }
}

/// Runs `work` to its end in a task of its own and waits for it: dropped halfway, it would leave jobs behind that nobody
/// runs.
async fn carry_out(runtime: Option<&Handle>, work: impl Future<Output = ()> + Send + 'static) {
    let work = work.in_current_span();
    let task = match runtime {
        Some(runtime) => runtime.spawn(work),
        None => tokio::spawn(work),
    };
    if let Err(error) = task.await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

fn target_status(pool: &str, target: &Target) -> TargetStatus {
    TargetStatus {
        discovered_labels: target.discovered.lock().clone(),
        labels: target.public_labels.clone(),
        scrape_pool: pool.to_owned(),
        scrape_url: target.url.clone(),
        scrape_interval: target.interval,
        scrape_timeout: target.timeout,
        last: target.last.lock().clone(),
    }
}
