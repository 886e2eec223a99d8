//! The scrape pool of one job: its discoverers, its targets, their loops.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use model::Labels;
use net::http::HttpClient;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::config::{ScrapeConfig, go_duration};
use crate::discovery::{DiscoveryContext, Providers};
use crate::failure_log::FailureLogSlot;
use crate::metrics::SdMetrics;
use crate::scrape_loop::{Command, LoopHandle, Shared};
use crate::target::{Outcome, Target, targets_of};

/// Commands under way to a pool.
const COMMANDS_MAX: usize = 4;
/// Discovered targets that are looked at in one piece before other tasks get their turn.
const SYNC_CHUNK: usize = 256;
/// How long a reload waits for the first word of new discoverers: static ones speak at once.
const FIRST_WORD_WAIT: Duration = Duration::from_millis(50);
/// How long targets found by former discoverers live on when the new ones say nothing.
const FORMER_TARGETS_KEEP: Duration = Duration::from_secs(10);

/// What can be seen of a pool from outside.
#[derive(Default)]
pub(crate) struct PoolView {
    /// By hash; sorted when shown.
    pub(crate) active: Vec<Arc<Target>>,
    /// Labels before relabelling, as many as are kept.
    pub(crate) dropped: Vec<Labels>,
    pub(crate) dropped_count: usize,
}

/// A running pool.
pub(crate) struct PoolHandle {
    pub(crate) config: Arc<ScrapeConfig>,
    pub(crate) view: Arc<Mutex<PoolView>>,
    /// Where its failed scrapes are noted.
    pub(crate) failures: FailureLogSlot,
    commands: mpsc::Sender<PoolCommand>,
    task: JoinHandle<()>,
}

enum PoolCommand {
    Reload {
        config: Arc<ScrapeConfig>,
        client: Option<HttpClient>,
        done: oneshot::Sender<()>,
    },
    /// End all series, then end.
    Retire,
    Shutdown,
}

impl PoolHandle {
    /// Starts a pool; `client` is there when the job has no collector.
    pub(crate) fn start(
        config: Arc<ScrapeConfig>,
        client: Option<HttpClient>,
        failures: FailureLogSlot,
        shared: &Arc<Shared>,
        sd_metrics: &Arc<SdMetrics>,
    ) -> Self {
        let view = Arc::new(Mutex::new(PoolView::default()));
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        shared.metrics.pools.inc();
        let span = tracing::info_span!("scrape_pool", job = %config.job_name);
        let context = DiscoveryContext {
            job_name: config.job_name.clone(),
            metrics: Arc::clone(sd_metrics),
            user_agent: shared.user_agent.clone(),
            clock: Arc::clone(&shared.clock),
        };
        let pool = Pool {
            providers: Providers::start(config.discovery.clone(), &context),
            config: Arc::clone(&config),
            client,
            failures: failures.clone(),
            shared: Arc::clone(shared),
            discovery: context,
            loops: HashMap::new(),
            ending: Vec::new(),
            view: Arc::clone(&view),
            sync_due: None,
        };
        let task = tokio::spawn(pool.run(receiver).instrument(span));
        Self { config, view, failures, commands, task }
    }

    /// Goes over to another configuration of the same job. Returns when the loops run with it.
    pub(crate) async fn reload(&mut self, config: Arc<ScrapeConfig>, client: Option<HttpClient>) {
        let (done, finished) = oneshot::channel();
        self.config = Arc::clone(&config);
        if self.commands.send(PoolCommand::Reload { config, client, done }).await.is_ok() {
            // An error says that the pool has gone; nothing to wait for then.
            let _ = finished.await;
        }
    }

    /// Ends the job: targets' series end as if the targets had gone. Does not wait for that; [`PoolHandle::shutdown`] cuts
    /// it short.
    pub(crate) async fn retire(&self) {
        let _ = self.commands.send(PoolCommand::Retire).await;
    }

    /// Whether the pool has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops everything at once; returns when nothing is written any more.
    pub(crate) async fn shutdown(self) {
        let _ = self.commands.send(PoolCommand::Shutdown).await;
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a scrape pool ended badly");
        }
    }
}

struct Pool {
    config: Arc<ScrapeConfig>,
    client: Option<HttpClient>,
    failures: FailureLogSlot,
    shared: Arc<Shared>,
    discovery: DiscoveryContext,
    providers: Providers,
    loops: HashMap<u64, (Arc<Target>, LoopHandle)>,
    /// Loops of targets that have gone and whose series are still to be ended.
    ending: Vec<LoopHandle>,
    view: Arc<Mutex<PoolView>>,
    /// When targets of former discoverers go, unless the new ones speak before.
    sync_due: Option<Instant>,
}

impl Pool {
    async fn run(mut self, mut commands: mpsc::Receiver<PoolCommand>) {
        self.sync().await;
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                _ = self.providers.next() => {
                    self.discovery.metrics.received_updates.with_label_values(&["scrape"]).inc();
                    self.sync().await;
                    continue;
                }
                () = until(self.sync_due) => {
                    self.sync().await;
                    continue;
                }
            };
            match command {
                Some(PoolCommand::Reload { config, client, done }) => {
                    self.reload(config, client).await;
                    // Nobody waits: fine.
                    let _ = done.send(());
                }
                Some(PoolCommand::Retire) => return self.retire(commands).await,
                Some(PoolCommand::Shutdown) | None => return self.shutdown().await,
            }
        }
    }

    /// Makes the running loops fit what discovery knows.
    async fn sync(&mut self) {
        let started = Instant::now();
        self.sync_due = None;
        let config = Arc::clone(&self.config);
        let mut found: HashMap<u64, Arc<Target>> = HashMap::new();
        let mut dropped = Vec::new();
        let mut dropped_count = 0;
        let mut failures = 0;
        let groups = self.providers.groups().clone();
        let mut looked_at = 0;
        for group in groups.iter() {
            for outcome in targets_of(group, &config) {
                match outcome {
                    Ok(Outcome::Keep(target)) => {
                        found.entry(target.hash()).or_insert_with(|| Arc::from(target));
                    }
                    Ok(Outcome::Drop(labels)) => {
                        dropped_count += 1;
                        let keep = config.limits.keep_dropped_targets;
                        if keep == 0 || (dropped.len() as u64) < keep {
                            dropped.push(labels);
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        tracing::error!(%error, "creating target failed");
                    }
                }
            }
            looked_at += group.targets.len();
            if looked_at >= SYNC_CHUNK {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
        }
        self.retire_missing(&found);
        for (hash, target) in found {
            match self.loops.get(&hash) {
                // What discovery said about it may have changed although the outcome is the same.
                Some((known, _)) => {
                    let discovered = target.discovered.lock().clone();
                    *known.discovered.lock() = discovered;
                }
                None => {
                    let handle = LoopHandle::start(
                        Arc::clone(&target),
                        &config,
                        self.client.as_ref(),
                        &self.failures,
                        &self.shared,
                        None,
                    );
                    self.loops.insert(hash, (target, handle));
                }
            }
        }
        self.apply_target_limit();
        self.show(dropped, dropped_count);
        let metrics = &self.shared.metrics;
        let job = config.job_name.as_str();
        metrics.sync_failed.with_label_values(&[job]).inc_by(failures);
        metrics.pool_syncs.with_label_values(&[job]).inc();
        metrics.sync_length.observe(job, started.elapsed().as_secs_f64());
        let sd = &self.discovery.metrics;
        sd.updates.with_label_values(&["scrape"]).inc();
        sd.discovered_targets.with_label_values(&["scrape", job]).set(groups.target_count() as i64);
    }

    fn retire_missing(&mut self, found: &HashMap<u64, Arc<Target>>) {
        let gone: Vec<u64> = self.loops.keys().filter(|hash| !found.contains_key(hash)).copied().collect();
        for hash in gone {
            if let Some((_, handle)) = self.loops.remove(&hash) {
                handle.command(Command::Retire);
                self.ending.push(handle);
            }
        }
        self.ending.retain(|handle| !handle.is_finished());
    }

    fn apply_target_limit(&self) {
        let limit = self.config.limits.targets;
        let count = self.loops.len();
        let error = (limit > 0 && count as u64 > limit).then_some((count, limit));
        if error.is_some() {
            self.shared.metrics.exceeded_target_limit.inc();
        }
        for (_, handle) in self.loops.values() {
            handle.set_forced_error(error);
        }
        let metrics = &self.shared.metrics;
        let job = self.config.job_name.as_str();
        metrics.pool_targets.with_label_values(&[job]).set(count as i64);
        metrics.pool_target_limit.with_label_values(&[job]).set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    fn show(&self, dropped: Vec<Labels>, dropped_count: usize) {
        let mut active: Vec<Arc<Target>> =
            self.loops.values().map(|(target, _)| Arc::clone(target)).collect();
        active.sort_by(|a, b| (&a.url, &a.labels).cmp(&(&b.url, &b.labels)));
        *self.view.lock() = PoolView { active, dropped, dropped_count };
    }

    /// Goes over to another configuration: targets that stay hand their state over, so their series go on.
    async fn reload(&mut self, config: Arc<ScrapeConfig>, client: Option<HttpClient>) {
        let started = Instant::now();
        let same_series = self.config.same_series_as(&config);
        let same_discovery = self.providers.serve(&config.discovery);
        for (_, handle) in self.loops.values() {
            handle.command(Command::HandOver);
        }
        let running = std::mem::take(&mut self.loops);
        let states = join_all(
            running
                .into_iter()
                .map(|(hash, (target, handle))| async move { (hash, target, handle.join().await) }),
        )
        .await;
        self.config = Arc::clone(&config);
        self.client = client;
        if !same_discovery {
            self.providers = Providers::start(config.discovery.clone(), &self.discovery);
        }
        // Start the loops anew with the targets there were; the sync below (or the one that follows the new discoverers'
        // first word) retires those that are no more.
        for (hash, target, state) in states {
            let state = state.map(|mut state| {
                if !same_series {
                    state.forget_lines();
                }
                state
            });
            let handle = LoopHandle::start(
                Arc::clone(&target),
                &config,
                self.client.as_ref(),
                &self.failures,
                &self.shared,
                state,
            );
            self.loops.insert(hash, (target, handle));
        }
        let speaks = same_discovery || timeout(FIRST_WORD_WAIT, self.providers.next()).await.is_ok();
        if speaks {
            self.sync().await;
        } else {
            self.sync_due = Some(Instant::now() + FORMER_TARGETS_KEEP);
            let (dropped, dropped_count) = {
                let view = self.view.lock();
                (view.dropped.clone(), view.dropped_count)
            };
            self.show(dropped, dropped_count);
        }
        let metrics = &self.shared.metrics;
        metrics.pool_reloads.inc();
        metrics.reload_length.observe(&go_duration(config.scrape_interval), started.elapsed().as_secs_f64());
    }

    async fn retire(mut self, mut commands: mpsc::Receiver<PoolCommand>) {
        drop(self.providers);
        self.discovery.metrics.remove_job(&self.config.job_name);
        self.shared.metrics.remove_job(&self.config.job_name);
        for (_, (_, handle)) in self.loops.drain() {
            handle.command(Command::Retire);
            self.ending.push(handle);
        }
        *self.view.lock() = PoolView::default();
        let loops: Vec<_> = self.ending.iter().map(LoopHandle::commander).collect();
        let mut ended = std::pin::pin!(join_all(self.ending.drain(..).map(LoopHandle::join)));
        tokio::select! {
            _ = &mut ended => return,
            // Nothing but a shutdown can come, or nothing at all when the manager has gone.
            _ = commands.recv() => {}
        }
        for command in loops {
            command.send_replace(Command::Shutdown);
        }
        ended.await;
    }

    async fn shutdown(mut self) {
        let handles: Vec<LoopHandle> =
            self.loops.drain().map(|(_, (_, handle))| handle).chain(self.ending.drain(..)).collect();
        for handle in &handles {
            handle.command(Command::Shutdown);
        }
        join_all(handles.into_iter().map(LoopHandle::join)).await;
    }
}

/// Waits for a point in time, or for ever.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
