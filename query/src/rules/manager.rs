//! The async shell: a task for each group, on its schedule; reload that leaves unchanged groups running.
//!
//! # Reload
//! Groups are told apart by file and name. One that did not change runs on. One that changed ends after the rule that
//! is at work, and its successor takes over the state of the rules that both have. Series of rules that a group lost
//! end with its next evaluation. Series of a lost *group* end two intervals later, as in Prometheus: the marker bears the
//! time of the reload, so whatever another group recorded meanwhile under the same labels (a renamed group, a rule that
//! moved) is newer, storage refuses the marker, and the series goes on without a gap.
//!
//! # Shutdown
//! No series end: they go on after the restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::alerting::millis;
use super::config::GroupConfig;
use super::group::{GroupDeps, RuleGroup};
use super::metrics::RuleMetrics;
use super::restore::{RestoreOptions, restore};
use super::schedule::{next_slot, slot};
use super::status::RuleGroupStatus;
use super::texts::AlertContext;

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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    deps: GroupDeps,
    metrics: RuleMetrics,
    options: ManagerOptions,
    permits: Arc<Semaphore>,
    /// Cancelled for good by [`RuleManager::stop`]; the tokens of groups are its children.
    stopping: CancellationToken,
    /// Locked for the length of a reload.
    running: tokio::sync::Mutex<Running>,
    /// What is shown, in the order of the configuration. Locked shortly.
    shown: Mutex<Vec<Arc<RuleGroup>>>,
    /// Groups that are gone and whose series have not ended yet. As many as reloads removed within two intervals.
    retired: TaskTracker,
}

#[derive(Debug, Default)]
struct Running {
    tasks: HashMap<String, Task>,
    external_labels: Labels,
    /// Whether groups were started before: later ones have no pending times to look for.
    started: bool,
}

#[derive(Debug)]
struct Task {
    group: Arc<RuleGroup>,
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
            shared: Arc::new(Shared {
                metrics: RuleMetrics::new(registry)?,
                permits: Arc::new(Semaphore::new(options.evaluations_max.max(1))),
                deps,
                options,
                stopping: CancellationToken::new(),
                running: tokio::sync::Mutex::default(),
                shown: Mutex::default(),
                retired: TaskTracker::new(),
            }),
        })
    }

    /// Runs `configs` and nothing else from now on. Groups that did not change go on undisturbed; changed ones keep the
    /// state of the rules they still have; series of groups that are gone end. Waits for rules under way in groups that
    /// change. Must be called within a tokio runtime; once begun it goes to its end, even when the caller goes away.
    ///
    /// # Panics
    /// When a configuration was not checked.
    pub async fn apply(&self, configs: Vec<GroupConfig>, external_labels: Labels) {
        let shared = Arc::clone(&self.shared);
        let applied = tokio::spawn(async move { shared.apply(configs, external_labels).await }).await;
        if let Err(error) = applied
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }

    /// All groups as they stand, in the order of the configuration.
    pub fn groups(&self) -> Vec<RuleGroupStatus> {
        let groups = self.shared.shown.lock().clone();
        groups.iter().map(|group| group.status()).collect()
    }

    /// Ends all groups and waits for rules under way. Series do not end: they go on after the restart.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        let mut running = self.shared.running.lock().await;
        for (_, task) in running.tasks.drain() {
            task.end().await;
        }
        self.shared.retired.close();
        self.shared.retired.wait().await;
    }
}

impl Shared {
    async fn apply(self: &Arc<Self>, configs: Vec<GroupConfig>, external_labels: Labels) {
        let mut running = self.running.lock().await;
        let running = &mut *running;
        if self.stopping.is_cancelled() {
            return;
        }
        let same_labels = running.external_labels == external_labels;
        // Everything is built before anything is touched.
        let mut planned = Vec::with_capacity(configs.len());
        let mut keys = HashSet::with_capacity(configs.len());
        for config in configs {
            let key = config.key();
            if !keys.insert(key.clone()) {
                tracing::warn!(group = key, "rule group is there twice: the first one runs");
                continue;
            }
            let unchanged =
                running.tasks.get(&key).filter(|task| same_labels && *task.group.config() == config);
            let next = match unchanged {
                Some(_) => None,
                None => Some(self.group(config, &external_labels, running.started)),
            };
            planned.push((key, next));
        }
        let mut old = std::mem::take(&mut running.tasks);
        let mut groups = Vec::with_capacity(planned.len());
        // All that end are told at once; each successor starts as soon as its own predecessor has ended.
        let mut starting = JoinSet::new();
        for (key, next) in planned {
            match (old.remove(&key), next) {
                (Some(task), None) => {
                    groups.push(Arc::clone(&task.group));
                    running.tasks.insert(key, task);
                }
                (Some(task), Some(group)) => {
                    groups.push(Arc::clone(&group));
                    task.group.stop().cancel();
                    let shared = Arc::clone(self);
                    starting.spawn(async move { shared.succeed(task, group).await });
                }
                (None, Some(group)) => {
                    groups.push(Arc::clone(&group));
                    running.tasks.insert(key, self.spawn(group));
                }
                (None, None) => unreachable!("a group that goes on has a task"),
            }
        }
        running.started = true;
        running.external_labels = external_labels;
        let mut ending = JoinSet::new();
        for task in old.into_values() {
            task.group.stop().cancel();
            let shared = Arc::clone(self);
            ending.spawn(async move { shared.retire(task).await });
        }
        while let Some(started) = starting.join_next().await {
            match started {
                Ok(task) => {
                    running.tasks.insert(task.group.key().to_owned(), task);
                }
                Err(error) => tracing::error!(%error, "starting a rule group failed"),
            }
        }
        // A reload that returned has had its effect: the removed groups are silent.
        while let Some(ended) = ending.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "ending a rule group failed");
            }
        }
        *self.shown.lock() = groups;
    }

    fn group(&self, config: GroupConfig, external_labels: &Labels, restored: bool) -> Arc<RuleGroup> {
        let context = AlertContext {
            external_labels: external_labels.clone(),
            external_url: Arc::from(self.options.external_url.as_str()),
            evaluate: Arc::clone(&self.deps.evaluate),
            resend_delay: self.options.resend_delay,
        };
        let (deps, metrics) = (self.deps.clone(), self.metrics.clone());
        Arc::new(RuleGroup::new(config, deps, metrics, context, self.stopping.child_token(), restored))
    }

    fn spawn(&self, group: Arc<RuleGroup>) -> Task {
        let runner = Runner {
            group: Arc::clone(&group),
            permits: Arc::clone(&self.permits),
            restore: self.options.restore,
        };
        Task { group, handle: tokio::spawn(runner.run()) }
    }

    /// Puts `group` in the place of `old`.
    async fn succeed(&self, old: Task, group: Arc<RuleGroup>) -> Task {
        let old = old.end().await;
        group.take_state(&old);
        self.spawn(group)
    }

    /// Ends a group that is gone, and its series later.
    async fn retire(&self, task: Task) {
        let group = task.end().await;
        self.metrics.remove_group(group.key());
        let ended_at = self.deps.clock.now_ms();
        let stopping = self.stopping.clone();
        self.retired.spawn(async move {
            let wait = group.config().interval.saturating_mul(2);
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let key = group.key().to_owned();
            let ended = tokio::task::spawn_blocking(move || group.end_all(ended_at)).await;
            if let Err(error) = ended {
                tracing::error!(group = key, %error, "ending the series of a rule group panicked");
            }
        });
    }
}

impl Task {
    /// Stops the task and waits for it.
    async fn end(self) -> Arc<RuleGroup> {
        self.group.stop().cancel();
        if let Err(error) = self.handle.await {
            tracing::error!(group = self.group.key(), %error, "task of a rule group failed");
        }
        self.group
    }
}

/// The life of one group's task.
struct Runner {
    group: Arc<RuleGroup>,
    permits: Arc<Semaphore>,
    restore: RestoreOptions,
}

impl Runner {
    async fn run(self) {
        let interval = millis(self.group.config().interval).max(1);
        let mut at = slot(self.group.key(), interval, self.now()) + interval;
        let mut evaluations = 0u32;
        while self.sleep_until(at).await {
            if !self.evaluate(at).await {
                return;
            }
            evaluations = evaluations.saturating_add(1);
            // After the second evaluation, as in Prometheus: after the first one recorded series may still be missing.
            // Not only in groups of the first configuration: a reload may have come between their evaluations.
            if evaluations == 2 {
                self.restore_state().await;
            }
            at = self.next(at, interval);
        }
    }

    fn now(&self) -> Timestamp {
        self.group.deps().clock.now_ms()
    }

    /// `false`: told to stop.
    async fn sleep_until(&self, at: Timestamp) -> bool {
        let wait = Duration::from_millis(u64::try_from(at - self.now()).unwrap_or(0));
        tokio::select! {
            biased;
            () = self.group.stop().cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// `false`: told to stop while waiting for a place.
    async fn evaluate(&self, at: Timestamp) -> bool {
        let permit = tokio::select! {
            biased;
            () = self.group.stop().cancelled() => return false,
            permit = Arc::clone(&self.permits).acquire_owned() => permit,
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

    async fn restore_state(&self) {
        let (group, options, now) = (Arc::clone(&self.group), self.restore, self.now());
        let done = tokio::task::spawn_blocking(move || restore(&group, options, now));
        if let Err(error) = done.await {
            tracing::error!(group = self.group.key(), %error, "restoring a rule group panicked");
        }
    }

    /// The slot after `at`; counts those that were missed.
    fn next(&self, at: Timestamp, interval: i64) -> Timestamp {
        let (next, missed) = next_slot(self.group.key(), interval, at, self.now());
        if missed > 0 {
            let labels = &[self.group.key()];
            self.group.metrics().missed.with_label_values(labels).inc_by(missed);
            self.group.metrics().iterations.with_label_values(labels).inc_by(missed);
        }
        next
    }
}
