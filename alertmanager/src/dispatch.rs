//! The dispatcher: sorts alerts into aggregation groups by route and group labels, and flushes each group in time.
//!
//! A group is a task with a timer. A new group flushes after `group_wait`, at once if the alert that opens it is older
//! than that; then every `group_interval`. The timer of the next flush starts with the flush, so a flush that overruns
//! is followed by the next at once. A group ends when a flush leaves it empty: its alerts have been notified as
//! resolved.
//!
//! Groups have a limit: a label with ever new values in `group_by` would otherwise make tasks without end. An alert
//! that would open one more is counted and left out; it finds its place when it is sent again and there is room.
//!
//! Lock order: the map of groups, then a group's state.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::alert::Fingerprint;
use model::{Clock, Labels, Timestamp};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error};

use crate::alert::{StoredAlert, notification_order};
use crate::matchers;
use crate::metrics::Metrics;
use crate::notify::FlushedAlert;
use crate::pipeline::{FLUSH_MIN, Flush, Pipeline};
use crate::route::Route;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GroupId {
    route: usize,
    labels: Labels,
}

/// A group as it is now, for the API.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Values of the labels it is grouped by.
    pub labels: Labels,
    /// The key in notifications and in the notification log.
    pub key: String,
    /// Its route.
    pub route: Arc<Route>,
    /// Its alerts in the order of notifications.
    pub alerts: Vec<Arc<StoredAlert>>,
    /// The intervals that suppressed its last flush.
    pub muted_by: Vec<String>,
    /// How long until the next flush.
    pub next_flush_in: Duration,
}

#[derive(Debug)]
struct GroupState {
    alerts: HashMap<Fingerprint, Arc<StoredAlert>>,
    muted_by: Vec<String>,
    next_flush: Instant,
}

#[derive(Debug)]
struct AggrGroup {
    id: GroupId,
    key: String,
    route: Arc<Route>,
    state: Mutex<GroupState>,
}

impl AggrGroup {
    fn insert(&self, alert: &Arc<StoredAlert>) {
        let mut state = self.state.lock();
        let known = state.alerts.get(&alert.fingerprint);
        // A refill after a reload may meet a newer message that came meanwhile.
        if known.is_none_or(|known| known.updated_at <= alert.updated_at) {
            state.alerts.insert(alert.fingerprint, Arc::clone(alert));
        }
    }
}

/// The dispatcher of one configuration.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    root: Arc<Route>,
    groups: Mutex<HashMap<GroupId, Arc<AggrGroup>>>,
    pipeline: Arc<Pipeline>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    metrics: Metrics,
    /// 0: no limit.
    groups_max: usize,
    /// Retries end; no flush begins.
    stop: CancellationToken,
    /// Attempts under way end too.
    abort: CancellationToken,
    stopped: AtomicBool,
    tasks: TaskTracker,
}

impl Dispatcher {
    pub(crate) fn new(
        root: Arc<Route>,
        pipeline: Arc<Pipeline>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        metrics: Metrics,
        groups_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            root,
            groups: Mutex::default(),
            pipeline,
            clock,
            runtime,
            metrics,
            groups_max,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            stopped: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        })
    }

    /// Sorts alerts into their groups. In one batch the oldest comes first: it decides whether a new group waits.
    pub(crate) fn dispatch(self: &Arc<Self>, alerts: &[Arc<StoredAlert>]) {
        if alerts.is_empty() {
            return;
        }
        // Timers belong to the runtime, and rules call from their own threads.
        let _runtime = self.runtime.enter();
        let started = Instant::now();
        let now = self.clock.now_ms();
        let mut oldest_first: Vec<&Arc<StoredAlert>> = alerts.iter().collect();
        oldest_first.sort_by_key(|alert| alert.starts_at);
        let mut left_out = 0u64;
        for alert in oldest_first {
            for route in self.root.matching(&alert.labels) {
                left_out += u64::from(!self.insert(&route, alert, now));
            }
        }
        if left_out > 0 {
            self.metrics.aggregation_group_limit_reached.inc_by(left_out);
            // Once a batch, not once an alert.
            error!(left_out, limit = self.groups_max, "too many aggregation groups: alerts are not notified");
        }
        self.metrics.processing_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Whether the alert has found or opened its group. An end that opens none is no loss.
    fn insert(self: &Arc<Self>, route: &Arc<Route>, alert: &Arc<StoredAlert>, now: Timestamp) -> bool {
        let id = GroupId { route: route.id, labels: route.group_by.group_labels(&alert.labels) };
        let mut groups = self.groups.lock();
        if self.stopped.load(Ordering::Acquire) {
            return true;
        }
        if let Some(group) = groups.get(&id) {
            group.insert(alert);
            return true;
        }
        if self.groups_max > 0 && groups.len() >= self.groups_max {
            return alert.is_resolved_at(now);
        }
        let wait_ms = i64::try_from(route.group_wait.as_millis()).unwrap_or(i64::MAX);
        let is_old = alert.starts_at.saturating_add(wait_ms) < now;
        let wait = if is_old { Duration::ZERO } else { route.group_wait };
        let group = Arc::new(AggrGroup {
            key: format!("{}:{}", route.key, matchers::format_labels(&id.labels)),
            id: id.clone(),
            route: Arc::clone(route),
            state: Mutex::new(GroupState {
                alerts: HashMap::from([(alert.fingerprint, Arc::clone(alert))]),
                muted_by: Vec::new(),
                next_flush: later(Instant::now(), wait),
            }),
        });
        groups.insert(id, Arc::clone(&group));
        self.metrics.aggregation_groups.inc();
        let span = tracing::info_span!("aggregation_group", key = %group.key);
        let dispatcher = Arc::clone(self);
        self.tasks.spawn_on(async move { dispatcher.run(group).await }.instrument(span), &self.runtime);
        true
    }

    async fn run(self: Arc<Self>, group: Arc<AggrGroup>) {
        loop {
            let next_flush = group.state.lock().next_flush;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep_until(next_flush) => {}
            }
            let started = Instant::now();
            group.state.lock().next_flush = later(started, group.route.group_interval);
            self.flush(&group, started).await;
            let mut groups = self.groups.lock();
            if group.state.lock().alerts.is_empty() {
                groups.remove(&group.id);
                break;
            }
        }
        self.metrics.aggregation_groups.dec();
    }

    async fn flush(&self, group: &AggrGroup, started: Instant) {
        let now = self.clock.now_ms();
        let mut alerts: Vec<FlushedAlert> = {
            let state = group.state.lock();
            let flushed = |alert: &Arc<StoredAlert>| FlushedAlert {
                // Decided once: time goes on while the notification is under way.
                resolved: alert.is_resolved_at(now),
                alert: Arc::clone(alert),
            };
            state.alerts.values().map(flushed).collect()
        };
        if alerts.is_empty() {
            return;
        }
        alerts.sort_by(|a, b| notification_order(&a.alert.labels, &b.alert.labels));
        let flush = Flush {
            route: Arc::clone(&group.route),
            group_key: group.key.clone(),
            group_labels: group.id.labels.clone(),
            now,
            deadline: later(
                started,
                group.route.group_interval.max(FLUSH_MIN) + self.pipeline.cluster.wait(),
            ),
            stop: self.stop.clone(),
            abort: self.abort.clone(),
        };
        let resolved: Vec<Arc<StoredAlert>> = alerts
            .iter()
            .filter(|flushed| flushed.resolved)
            .map(|flushed| Arc::clone(&flushed.alert))
            .collect();
        let outcome = self.pipeline.run(&flush, alerts).await;
        let mut state = group.state.lock();
        if let Some(muted_by) = outcome.muted_by {
            state.muted_by = muted_by;
        }
        if outcome.complete {
            for alert in resolved {
                // One that was heard of during the flush may fire again: it stays for the next flush.
                let unchanged = |known: &Arc<StoredAlert>| Arc::ptr_eq(known, &alert);
                if state.alerts.get(&alert.fingerprint).is_some_and(unchanged) {
                    state.alerts.remove(&alert.fingerprint);
                }
            }
        }
    }

    /// The groups, those of routes before those of other routes in no particular order.
    pub(crate) fn groups(&self) -> Vec<GroupView> {
        let _runtime = self.runtime.enter();
        let groups: Vec<Arc<AggrGroup>> = self.groups.lock().values().cloned().collect();
        let now = Instant::now();
        let view = |group: Arc<AggrGroup>| {
            let state = group.state.lock();
            let mut alerts: Vec<Arc<StoredAlert>> = state.alerts.values().cloned().collect();
            alerts.sort_by(|a, b| notification_order(&a.labels, &b.labels));
            GroupView {
                labels: group.id.labels.clone(),
                key: group.key.clone(),
                route: Arc::clone(&group.route),
                alerts,
                muted_by: state.muted_by.clone(),
                next_flush_in: state.next_flush.saturating_duration_since(now),
            }
        };
        groups.into_iter().map(view).collect()
    }

    /// Ends all groups. Attempts under way get `grace` to finish, so that what was sent is also logged. Says whether
    /// all ended by themselves.
    pub(crate) async fn stop(&self, grace: Duration) -> bool {
        {
            // Under the lock of the map: no group begins after this.
            let _groups = self.groups.lock();
            self.stopped.store(true, Ordering::Release);
        }
        self.stop.cancel();
        self.tasks.close();
        let drained = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        if !drained {
            self.abort.cancel();
            self.tasks.wait().await;
        }
        drained
    }
}

/// `at + wait`, at the latest in a century: durations of a configuration may exceed what clocks count.
fn later(at: Instant, wait: Duration) -> Instant {
    at + wait.min(Duration::from_secs(100 * 365 * 86_400))
}
