//! The async shell: a task for each group, on its schedule; reload that leaves unchanged groups running.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::alerting::{AlertContext, millis};
use super::config::GroupConfig;
use super::group::{GroupDeps, RuleGroup};
use super::metrics::RuleMetrics;
use super::restore::{RestoreOptions, restore};
use super::schedule::slot;
use super::status::RuleGroupStatus;

/// Settings that outlive reloads.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// Least time between two sendings of one alert.
    pub resend_delay: Duration,
    /// How pending times are restored after a restart.
    pub restore: RestoreOptions,
    /// Most groups evaluated at once; more wait, and may miss an iteration.
    pub evaluations_max: usize,
    /// How the server is reached from outside, without a slash at the end.
    pub external_url: String,
}

/// Runs groups. Made once; told of configurations by [`RuleManager::apply`].
#[derive(Debug)]
pub struct RuleManager {
    deps: GroupDeps,
    metrics: RuleMetrics,
    options: ManagerOptions,
    permits: Arc<Semaphore>,
    /// Locked for the length of a reload.
    applying: tokio::sync::Mutex<()>,
    /// In the order of the configuration. Never held across an await.
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    groups: Vec<Task>,
    external_labels: Labels,
    stopped: bool,
    /// Whether groups were started before: later ones have no pending times to look for.
    started: bool,
}

#[derive(Debug)]
struct Task {
    group: Arc<RuleGroup>,
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl RuleManager {
    /// A manager without groups.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub fn new(
        deps: GroupDeps,
        options: ManagerOptions,
        registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            metrics: RuleMetrics::new(registry)?,
            permits: Arc::new(Semaphore::new(options.evaluations_max.max(1))),
            deps,
            options,
            applying: tokio::sync::Mutex::new(()),
            running: Mutex::default(),
        })
    }

    /// Runs `configs` and nothing else from now on. Groups that did not change go on undisturbed; changed ones keep the
    /// state of the rules they still have; series of groups that are gone end. Must be called within a tokio runtime.
    pub async fn apply(&self, configs: Vec<GroupConfig>, external_labels: Labels) {
        let _applying = self.applying.lock().await;
        let (mut old, unchanged_labels, first) = {
            let mut running = self.running.lock();
            if running.stopped {
                return;
            }
            let unchanged = running.external_labels == external_labels;
            running.external_labels = external_labels.clone();
            let first = !std::mem::replace(&mut running.started, true);
            (std::mem::take(&mut running.groups), unchanged, first)
        };
        let mut by_key: HashMap<String, Task> =
            old.drain(..).map(|task| (task.group.key().to_owned(), task)).collect();
        let mut groups = Vec::with_capacity(configs.len());
        for config in configs {
            match by_key.remove(&config.key()) {
                Some(task) if unchanged_labels && *task.group.config() == config => groups.push(task),
                Some(task) => {
                    task.end().await;
                    let group = self.group(config, &external_labels, true);
                    group.take_state(&task.group);
                    groups.push(self.spawn(group, false));
                }
                None => groups.push(self.spawn(self.group(config, &external_labels, !first), first)),
            }
        }
        let now = self.deps.clock.now_ms();
        for (key, task) in by_key {
            task.end().await;
            let group = task.group;
            // Joined so that a reload that returned has had its effect.
            let ended = tokio::task::spawn_blocking(move || group.end_all(now)).await;
            if let Err(error) = ended {
                tracing::error!(group = key, %error, "ending a rule group failed");
            }
            self.metrics.remove_group(&key);
        }
        self.running.lock().groups = groups;
    }

    fn group(&self, config: GroupConfig, external_labels: &Labels, restored: bool) -> Arc<RuleGroup> {
        let context = AlertContext {
            external_labels: external_labels.clone(),
            external_url: Arc::from(self.options.external_url.as_str()),
            evaluate: Arc::clone(&self.deps.evaluate),
        };
        let (deps, metrics) = (self.deps.clone(), self.metrics.clone());
        Arc::new(RuleGroup::new(config, deps, metrics, self.options.resend_delay, context, restored))
    }

    fn spawn(&self, group: Arc<RuleGroup>, restores: bool) -> Task {
        let stop = CancellationToken::new();
        let runner = Runner {
            group: Arc::clone(&group),
            permits: Arc::clone(&self.permits),
            stop: stop.clone(),
            restore: restores.then_some(self.options.restore),
        };
        Task { group, stop, handle: tokio::spawn(runner.run()) }
    }

    /// All groups as they stand, in the order of the configuration.
    pub fn groups(&self) -> Vec<RuleGroupStatus> {
        let groups: Vec<_> = self.running.lock().groups.iter().map(|task| Arc::clone(&task.group)).collect();
        groups.iter().map(|group| group.status()).collect()
    }

    /// Ends all groups and waits for evaluations under way. Series do not end: they go on after the restart.
    pub async fn stop(&self) {
        let _applying = self.applying.lock().await;
        let groups = {
            let mut running = self.running.lock();
            running.stopped = true;
            std::mem::take(&mut running.groups)
        };
        for task in &groups {
            task.stop.cancel();
        }
        for task in groups {
            task.end().await;
        }
    }
}

impl Task {
    /// Stops the task and waits for it.
    async fn end(&self) -> () {
        self.stop.cancel();
        while !self.handle.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The life of one group's task.
struct Runner {
    group: Arc<RuleGroup>,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    restore: Option<RestoreOptions>,
}

impl Runner {
    async fn run(mut self) {
        let interval = millis(self.group.config().interval).max(1);
        let mut at = slot(self.group.key(), interval, self.now()) + interval;
        let mut evaluations = 0u32;
        while self.sleep_until(at).await {
            if !self.evaluate(at).await {
                return;
            }
            evaluations = evaluations.saturating_add(1);
            // After the second evaluation, as in Prometheus: after the first one recorded series may still be missing.
            if evaluations == 2
                && let Some(options) = self.restore.take()
            {
                self.restore_state(options).await;
            }
            at = self.next_slot(at, interval);
        }
    }

    fn now(&self) -> Timestamp {
        self.group.deps().clock.now_ms()
    }

    /// `false`: told to stop.
    async fn sleep_until(&self, at: Timestamp) -> bool {
        let wait = Duration::from_millis(u64::try_from(at - self.now()).unwrap_or(0));
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// `false`: told to stop while waiting for a place.
    async fn evaluate(&self, at: Timestamp) -> bool {
        let permit = tokio::select! {
            permit = Arc::clone(&self.permits).acquire_owned() => permit,
            () = self.stop.cancelled() => return false,
        };
        let Ok(permit) = permit else { return false };
        self.group.metrics().iterations.with_label_values(&[self.group.key()]).inc();
        let group = Arc::clone(&self.group);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            group.evaluate(at);
        });
        if let Err(error) = done.await {
            tracing::error!(group = self.group.key(), %error, "evaluation of a rule group panicked");
        }
        true
    }

    async fn restore_state(&self, options: RestoreOptions) {
        let group = Arc::clone(&self.group);
        let now = self.now();
        let done = tokio::task::spawn_blocking(move || restore(&group, options, now));
        if let Err(error) = done.await {
            tracing::error!(group = self.group.key(), %error, "restoring a rule group panicked");
        }
    }

    /// The next slot in the future; those that passed meanwhile are missed and counted, none is caught up. A clock that
    /// jumped back starts a new schedule.
    fn next_slot(&self, at: Timestamp, interval: i64) -> Timestamp {
        let now = self.now();
        if now < at - interval {
            return slot(self.group.key(), interval, now) + interval;
        }
        let missed = ((now - at) / interval).max(0);
        if missed > 0 {
            let labels = &[self.group.key()];
            self.group.metrics().missed.with_label_values(labels).inc_by(missed.unsigned_abs());
            self.group.metrics().iterations.with_label_values(labels).inc_by(missed.unsigned_abs());
        }
        at + (missed + 1) * interval
    }
}
