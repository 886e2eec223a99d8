//! Discovery by asking again and again: the seam of all kinds that have no watch.
//!
//! A [`Refresh`] finds all targets anew; [`Refresher`] asks it at a fixed interval (no jitter: as Prometheus), measures
//! it, keeps the last targets when it fails and sends only what changed ([`Known`]). An unchanged answer sends nothing.
//! The interval is the back-off: a server that fails is asked no more often than one that works.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use net::NetError;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Discoverer, DiscoveryContext, GroupSender, SdMetrics, TargetGroup};

/// Most targets one discoverer may find; an answer with more is refused as a whole.
pub(crate) const TARGETS_MAX: usize = 200_000;
/// Most groups one discoverer may find.
pub(crate) const GROUPS_MAX: usize = 100_000;
/// The least time a refresh may take, however short the interval: many requests may be needed for one.
const REFRESH_TIMEOUT_MIN: Duration = Duration::from_secs(60);

/// Why targets could not be found. The last ones stay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// No whole answer came.
    #[error("Get {}: {source}", model::labels::Quoted(.url))]
    Net {
        /// What was asked for, without credentials.
        url: String,
        /// What happened.
        source: NetError,
    },
    /// The client cannot be made of its settings.
    #[error("unable to make the HTTP client: {0}")]
    Client(NetError),
    /// A status that is no success.
    #[error("server returned HTTP status {0}")]
    Status(String),
    /// An answer of another kind than asked for.
    #[error("unsupported content type {0:?}")]
    ContentType(String),
    /// An answer that cannot be read.
    #[error("cannot read the answer of {from}: {reason}")]
    Decode {
        /// Who answered.
        from: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than is kept.
    #[error("{found} {what} found, more than {limit}")]
    TooMany {
        /// Targets, groups, services.
        what: &'static str,
        /// How many there are, or how many were seen before giving up.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// It took longer than it may in all.
    #[error("refresh took longer than {0:?}")]
    Timeout(Duration),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// Finds all targets anew.
pub(crate) trait Refresh: Send + 'static {
    /// All groups there are now. Groups that were there before and are not among them go. May be dropped at any await
    /// point.
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>>;
}

/// A [`Discoverer`] that refreshes at an interval.
pub(crate) struct Refresher<R> {
    mechanism: &'static str,
    interval: Duration,
    job_name: String,
    metrics: Arc<SdMetrics>,
    source: R,
}

impl<R: Refresh> Refresher<R> {
    /// `mechanism` is the kind (`http`), for metrics; `interval` must not be zero.
    pub(crate) fn new(
        mechanism: &'static str,
        interval: Duration,
        context: &DiscoveryContext,
        source: R,
    ) -> Self {
        Self {
            mechanism,
            interval,
            job_name: context.job_name.clone(),
            metrics: Arc::clone(&context.metrics),
            source,
        }
    }

    async fn attempt(&mut self) -> Result<Vec<TargetGroup>, RefreshError> {
        let limit = self.interval.max(REFRESH_TIMEOUT_MIN);
        let started = Instant::now();
        let result = tokio::time::timeout(limit, self.source.refresh())
            .await
            .unwrap_or(Err(RefreshError::Timeout(limit)))
            .and_then(bounded);
        self.metrics.refreshed(self.mechanism, &self.job_name, started.elapsed(), result.is_ok());
        result
    }
}

/// Refuses answers that are larger than what is kept.
pub(crate) fn bounded(groups: Vec<TargetGroup>) -> Result<Vec<TargetGroup>, RefreshError> {
    let too_many = |what, found, limit| Err(RefreshError::TooMany { what, found, limit });
    let targets: usize = groups.iter().map(|group| group.targets.len()).sum();
    if groups.len() > GROUPS_MAX {
        too_many("target groups", groups.len(), GROUPS_MAX)
    } else if targets > TARGETS_MAX {
        too_many("targets", targets, TARGETS_MAX)
    } else {
        Ok(groups)
    }
}

impl<R: Refresh> Discoverer for Refresher<R> {
    fn run(mut self: Box<Self>, sender: GroupSender) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut ticks = tokio::time::interval(self.interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut known = Known::default();
            let mut failures = 0_u64;
            let trouble = self.metrics.trouble(&self.job_name, self.mechanism);
            loop {
                ticks.tick().await;
                match self.attempt().await {
                    Ok(groups) => {
                        if failures > 0 {
                            tracing::info!(failures, "refreshing targets works again");
                            trouble.ends();
                            failures = 0;
                        }
                        if let Some(updates) = known.replace(groups)
                            && sender.send(updates).await.is_err()
                        {
                            return;
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        trouble.begins(&error);
                        tracing::warn!(%error, failures, "unable to refresh target groups, keeping the last ones");
                    }
                }
            }
        })
    }
}

/// What a discoverer has sent so far, so that it sends only what changed.
#[derive(Debug, Default)]
pub(crate) struct Known {
    groups: BTreeMap<String, TargetGroup>,
    has_spoken: bool,
}

impl Known {
    /// Makes `groups` all there are and gives what to send for that: changed groups, and empty ones for those that have
    /// gone. `None`: nothing changed. The first answer is always worth sending, also without any targets: whoever waits
    /// for the first word learns that it came. Of groups with the same source the last one holds.
    pub(crate) fn replace(&mut self, groups: Vec<TargetGroup>) -> Option<Vec<TargetGroup>> {
        let now: BTreeMap<String, TargetGroup> = groups
            .into_iter()
            .filter(|group| !group.targets.is_empty())
            .map(|group| (group.source.clone(), group))
            .collect();
        let gone = self.groups.keys().filter(|source| !now.contains_key(*source)).map(|s| empty_group(s));
        let changed = now.values().filter(|group| self.groups.get(&group.source) != Some(group)).cloned();
        let updates: Vec<TargetGroup> = changed.chain(gone).collect();
        self.groups = now;
        self.word(updates)
    }

    /// Replaces one group; without targets it goes. As [`Known::replace`] otherwise.
    pub(crate) fn replace_one(&mut self, group: TargetGroup) -> Option<Vec<TargetGroup>> {
        let before = self.groups.get(&group.source);
        let same = match before {
            Some(before) => *before == group,
            None => group.targets.is_empty(),
        };
        if same {
            return self.word(Vec::new());
        }
        if group.targets.is_empty() {
            self.groups.remove(&group.source);
            return self.word(vec![empty_group(&group.source)]);
        }
        self.groups.insert(group.source.clone(), group.clone());
        self.word(vec![group])
    }

    /// Targets in all groups.
    #[cfg(test)]
    pub(crate) fn target_count(&self) -> usize {
        self.groups.values().map(|group| group.targets.len()).sum()
    }

    fn word(&mut self, updates: Vec<TargetGroup>) -> Option<Vec<TargetGroup>> {
        let first = !std::mem::replace(&mut self.has_spoken, true);
        (first || !updates.is_empty()).then_some(updates)
    }
}

fn empty_group(source: &str) -> TargetGroup {
    TargetGroup { source: source.to_owned(), ..TargetGroup::default() }
}
