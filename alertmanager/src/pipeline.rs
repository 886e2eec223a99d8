//! From a flushed group to sent notifications: inhibition, time intervals, silences, then for each integration of the
//! receiver: waiting for peers, deduplication by the notification log, retries, and the log.
//!
//! The order of stages is Alertmanager's and matters: what is suppressed is dropped before the log is asked, so an
//! alert that resolves while suppressed leaves without a notification.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use model::{Clock, Labels, Timestamp};
use net::backoff::{Backoff, BackoffPolicy};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::inhibit::Inhibitor;
use crate::interval::TimeIntervals;
use crate::metrics::Metrics;
use crate::nflog::{IntegrationKey, LogEntry, NotificationLog};
use crate::notify::{
    FailureReason, FlushedAlert, Integration, Notification, NotificationReason, NotifyError,
};
use crate::random::Random;
use crate::route::Route;
use crate::silence::Silences;

/// What the pipeline needs to know of other replicas.
///
/// Implementers owe: neither method may wait for ever; a cluster that cannot decide says "go on" (a duplicate is
/// better than a lost notification).
pub trait Cluster: Send + Sync + std::fmt::Debug {
    /// Ready when the state of the peers is known, or not worth waiting for.
    fn settled(&self) -> BoxFuture<'_, ()>;
    /// How long this replica lets the others go first: its position times the peer time-out.
    fn wait(&self) -> Duration;
}

/// A server without peers.
#[derive(Debug, Default, Clone, Copy)]
pub struct Alone;

impl Cluster for Alone {
    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn wait(&self) -> Duration {
        Duration::ZERO
    }
}

/// One integration of a receiver, with what the pipeline needs to know of it.
#[derive(Debug)]
pub(crate) struct IntegrationSlot {
    pub(crate) key: IntegrationKey,
    pub(crate) send_resolved: bool,
    pub(crate) integration: Box<dyn Integration>,
    /// Of [`ATTEMPTS_MAX`]: one for each attempt under way.
    pub(crate) permits: Semaphore,
}

/// Attempts of one integration at the same time: a thousand groups that are due together would otherwise open a
/// thousand connections, which neither receivers nor file descriptors stand. More wait, within their flush.
pub(crate) const ATTEMPTS_MAX: usize = 256;

/// What a flush is about.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) route: Arc<Route>,
    pub(crate) group_key: String,
    pub(crate) group_labels: Labels,
    /// Wall-clock time of the flush.
    pub(crate) now: Timestamp,
    /// When the flush has to end.
    pub(crate) deadline: Instant,
    /// Asks retries to end.
    pub(crate) stop: CancellationToken,
    /// Ends attempts under way too.
    pub(crate) abort: CancellationToken,
}

/// What came of a flush.
#[derive(Debug)]
pub(crate) struct FlushOutcome {
    /// Whether all integrations are content: resolved alerts may be forgotten.
    pub(crate) complete: bool,
    /// The intervals that suppressed it; `None`: not asked.
    pub(crate) muted_by: Option<Vec<String>>,
}

/// The pipeline of one configuration.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) inhibitor: Arc<Inhibitor>,
    pub(crate) silences: Arc<Silences>,
    pub(crate) intervals: TimeIntervals,
    pub(crate) receivers: HashMap<String, Vec<Arc<IntegrationSlot>>>,
    pub(crate) log: Arc<NotificationLog>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: Metrics,
    pub(crate) retention_ms: i64,
}

impl Pipeline {
    /// Runs the stages for the alerts of a group, which are sorted already.
    pub(crate) async fn run(&self, flush: &Flush, mut alerts: Vec<FlushedAlert>) -> FlushOutcome {
        tokio::select! {
            () = self.cluster.settled() => {}
            () = flush.abort.cancelled() => return FlushOutcome { complete: false, muted_by: None },
        }
        let done = |muted_by| FlushOutcome { complete: true, muted_by };
        let before = alerts.len();
        alerts.retain(|flushed| self.inhibitor.inhibiting(&flushed.alert.labels, flush.now).is_none());
        self.count_suppressed("inhibition", before - alerts.len());
        if alerts.is_empty() {
            return done(None);
        }
        let active = &flush.route.active_time_intervals;
        if !active.is_empty() && self.intervals.holding(active, flush.now).is_empty() {
            debug!(group = %flush.group_key, "not sent: outside of the route's active time intervals");
            self.count_suppressed("active_time_interval", alerts.len());
            return done(Some(active.clone()));
        }
        let muting = self.intervals.holding(&flush.route.mute_time_intervals, flush.now);
        if !muting.is_empty() {
            debug!(group = %flush.group_key, "not sent: within a mute time interval of the route");
            self.count_suppressed("mute_time_interval", alerts.len());
            return done(Some(muting.into_iter().map(str::to_owned).collect()));
        }
        let before = alerts.len();
        alerts.retain(|flushed| self.silences.silencing(&flushed.alert.labels, flush.now).is_empty());
        self.count_suppressed("silence", before - alerts.len());
        if alerts.is_empty() {
            return done(Some(Vec::new()));
        }
        let Some(slots) = self.receivers.get(&flush.route.receiver) else { return done(Some(Vec::new())) };
        let results = join_all(slots.iter().map(|slot| self.integrate(flush, slot, &alerts))).await;
        FlushOutcome { complete: results.into_iter().all(|content| content), muted_by: Some(Vec::new()) }
    }

    fn count_suppressed(&self, reason: &str, count: usize) {
        if count > 0 {
            self.metrics.suppressed.with_label_values(&[reason]).inc_by(count as u64);
        }
    }

    /// One integration: whether it is content.
    async fn integrate(&self, flush: &Flush, slot: &IntegrationSlot, alerts: &[FlushedAlert]) -> bool {
        tokio::select! {
            () = tokio::time::sleep(self.cluster.wait()) => {}
            () = tokio::time::sleep_until(flush.deadline) => return false,
            () = flush.stop.cancelled() => return false,
        }
        let by_state = |resolved: bool| -> BTreeSet<u64> {
            let alerts = alerts.iter().filter(|flushed| flushed.resolved == resolved);
            alerts.map(|flushed| flushed.alert.fingerprint.0).collect()
        };
        let (firing, resolved) = (by_state(false), by_state(true));
        let last = self.log.get(&flush.group_key, &slot.key);
        let repeat_ms = millis(flush.route.repeat_interval);
        let asked =
            Asked { firing: &firing, resolved: &resolved, repeat_ms, send_resolved: slot.send_resolved };
        let now = self.clock.now_ms();
        let Some(reason) = needs_notification(last.as_ref(), &asked, now) else { return true };
        if slot.send_resolved || !firing.is_empty() {
            let sent: Vec<FlushedAlert> =
                alerts.iter().filter(|flushed| slot.send_resolved || !flushed.resolved).cloned().collect();
            let notification = Notification {
                receiver: flush.route.receiver.clone(),
                group_key: flush.group_key.clone(),
                group_labels: flush.group_labels.clone(),
                route_labels: flush.route.labels.clone(),
                alerts: sent,
                reason,
                now,
                deadline: flush.deadline,
            };
            if let Err(failure) = self.deliver(flush, slot, &notification).await {
                let IntegrationKey { receiver, kind, index } = &slot.key;
                self.metrics.notifications_failed.with_label_values(&[kind, failure.reason.as_str()]).inc();
                error!(%receiver, integration = %kind, index, group = %flush.group_key, attempts = failure.attempts,
                    reason = failure.reason.as_str(), error = %failure.message, "notification failed");
                return false;
            }
        }
        // Longer than two repetitions nobody asks for the entry; but it has to outlive the group's next flush.
        let lifetime_ms = (2 * repeat_ms).max(2 * millis(flush.route.group_interval.max(FLUSH_MIN)));
        let now = self.clock.now_ms();
        let entry = LogEntry {
            group_key: flush.group_key.clone(),
            integration: slot.key.clone(),
            timestamp: now,
            firing,
            resolved,
            expires_at: now.saturating_add(lifetime_ms.min(self.retention_ms)),
        };
        if let Err(error) = self.log.put(entry).await {
            // It was sent: sending again because a disk is full would be worse than a repetition after a restart.
            error!(group = %flush.group_key, %error, "notification log entry is not durable");
        }
        true
    }

    async fn deliver(
        &self,
        flush: &Flush,
        slot: &IntegrationSlot,
        notification: &Notification,
    ) -> Result<(), Failure> {
        let kind = slot.key.kind.as_str();
        self.metrics.notifications.with_label_values(&[kind]).inc();
        let mut backoff = Backoff::new(BackoffPolicy::NOTIFY);
        let mut attempts = 0u32;
        let mut last: Option<NotifyError> = None;
        loop {
            attempts += 1;
            let attempt = async {
                // Never closed; if it were, an attempt without a permit is better than none.
                let _permit = slot.permits.acquire().await;
                let started = Instant::now();
                (slot.integration.notify(notification).await, started.elapsed())
            };
            let (result, elapsed) = tokio::select! {
                biased;
                done = attempt => done,
                () = tokio::time::sleep_until(flush.deadline) => {
                    return Err(Failure::ended(attempts, last, FailureReason::DeadlineExceeded));
                }
                () = flush.abort.cancelled() => {
                    return Err(Failure::ended(attempts, last, FailureReason::Canceled));
                }
            };
            self.metrics.latency_seconds.with_label_values(&[kind]).observe(elapsed.as_secs_f64());
            self.metrics.requests.with_label_values(&[kind]).inc();
            let error = match result {
                Ok(()) => {
                    debug!(receiver = %slot.key.receiver, integration = kind, group = %flush.group_key, attempts,
                        reason = notification.reason.as_str(), alerts = notification.alerts.len(), "notified");
                    return Ok(());
                }
                Err(error) => error,
            };
            self.metrics.requests_failed.with_label_values(&[kind]).inc();
            if !error.retry {
                return Err(Failure { attempts, reason: error.reason, message: error.message });
            }
            if last.as_ref().is_none_or(|last| last.message != error.message) {
                warn!(receiver = %slot.key.receiver, integration = kind, group = %flush.group_key, attempts,
                    error = %error.message, "notification attempt failed, will be retried");
            }
            last = Some(error);
            let wait = backoff.next_wait_with(self.random.unit());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = tokio::time::sleep_until(flush.deadline) => {
                    return Err(Failure::ended(attempts, last, FailureReason::DeadlineExceeded));
                }
                () = flush.stop.cancelled() => {
                    return Err(Failure::ended(attempts, last, FailureReason::Canceled));
                }
            }
        }
    }
}

/// A flush lasts at least this long if it must, however short the group interval is (Alertmanager's `MinTimeout`).
pub(crate) const FLUSH_MIN: Duration = Duration::from_secs(10);

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

struct Failure {
    attempts: u32,
    reason: FailureReason,
    message: String,
}

impl Failure {
    /// The end came from outside; the last error says more than "too late".
    fn ended(attempts: u32, last: Option<NotifyError>, reason: FailureReason) -> Self {
        match last {
            Some(error) => Self { attempts, reason: error.reason, message: error.message },
            None => Self { attempts, reason, message: reason.as_str().to_owned() },
        }
    }
}

struct Asked<'a> {
    firing: &'a BTreeSet<u64>,
    resolved: &'a BTreeSet<u64>,
    repeat_ms: i64,
    send_resolved: bool,
}

/// Whether and why to notify, given what was last said: Alertmanager's `DedupStage.needsUpdate`.
fn needs_notification(
    last: Option<&LogEntry>,
    asked: &Asked<'_>,
    now: Timestamp,
) -> Option<NotificationReason> {
    let nothing_fires = asked.firing.is_empty();
    // An entry past its retention is as good as none, except that the receiver still has to hear of the end.
    let last = last.filter(|entry| entry.expires_at > now || nothing_fires);
    let Some(last) = last else {
        return (!nothing_fires).then_some(NotificationReason::First);
    };
    if !asked.firing.is_subset(&last.firing) {
        // Nothing fired when last said: for the receiver this is a first notification again.
        return Some(if last.firing.is_empty() {
            NotificationReason::First
        } else {
            NotificationReason::NewAlerts
        });
    }
    if nothing_fires {
        // Irrespective of send_resolved: the log has to forget the firing alerts.
        return (!last.firing.is_empty()).then_some(NotificationReason::AllResolved);
    }
    if asked.send_resolved && !asked.resolved.is_subset(&last.resolved) {
        return Some(NotificationReason::SomeResolved);
    }
    (last.timestamp < now.saturating_sub(asked.repeat_ms)).then_some(NotificationReason::Repeat)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(firing: &[u64], resolved: &[u64]) -> LogEntry {
        LogEntry {
            group_key: "g".to_owned(),
            integration: IntegrationKey { receiver: "r".to_owned(), kind: "webhook".to_owned(), index: 0 },
            timestamp: 1000,
            firing: firing.iter().copied().collect(),
            resolved: resolved.iter().copied().collect(),
            expires_at: 100_000,
        }
    }

    #[test]
    fn notifies_for_five_reasons() {
        use NotificationReason::{AllResolved, First, NewAlerts, Repeat, SomeResolved};
        let ask = |last: Option<LogEntry>, firing: &[u64], resolved: &[u64], send_resolved, now| {
            let (firing, resolved) = (firing.iter().copied().collect(), resolved.iter().copied().collect());
            let asked = Asked { firing: &firing, resolved: &resolved, repeat_ms: 5000, send_resolved };
            needs_notification(last.as_ref(), &asked, now)
        };
        assert_eq!(ask(None, &[1], &[], true, 0), Some(First));
        assert_eq!(ask(None, &[], &[1], true, 0), None, "nothing was ever said about it");
        assert_eq!(ask(Some(entry(&[1], &[])), &[1, 2], &[], true, 1001), Some(NewAlerts));
        assert_eq!(ask(Some(entry(&[], &[1])), &[1], &[], true, 1001), Some(First));
        assert_eq!(ask(Some(entry(&[1], &[])), &[], &[1], false, 1001), Some(AllResolved));
        assert_eq!(ask(Some(entry(&[], &[1])), &[], &[1], true, 1001), None);
        assert_eq!(ask(Some(entry(&[1, 2], &[])), &[1], &[2], true, 1001), Some(SomeResolved));
        assert_eq!(ask(Some(entry(&[1, 2], &[])), &[1], &[2], false, 1001), None);
        assert_eq!(ask(Some(entry(&[1, 2], &[3])), &[1], &[3], true, 1001), None);
        assert_eq!(
            ask(Some(entry(&[1], &[])), &[1], &[], true, 6000),
            None,
            "not before the interval is over"
        );
        assert_eq!(ask(Some(entry(&[1], &[])), &[1], &[], true, 6001), Some(Repeat));
        assert_eq!(ask(Some(entry(&[1], &[])), &[1], &[], true, 100_000), Some(First), "past retention");
        assert_eq!(ask(Some(entry(&[1], &[])), &[], &[1], true, 100_000), Some(AllResolved));
    }
}
