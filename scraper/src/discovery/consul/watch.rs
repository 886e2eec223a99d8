//! Watching Consul: one task for the list of services, one for each service.
//!
//! A blocking query is held back by Consul until something is newer than the index we know, at most for the watch
//! time. An index that goes backwards starts anew (Consul was restored), as its documents ask for. After a failure the
//! targets stay and the question is asked again after a pause.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::Instrument as _;

use super::ConsulSdConfig;
use super::api::ConsulApi;
use crate::discovery::refresh::{Known, RefreshError, TARGETS_MAX};
use crate::discovery::trouble::Trouble;
use crate::discovery::{Discoverer, DiscoveryContext, GroupSender, NobodyListens, SdMetrics, TargetGroup};

/// Most services that are watched: each holds a connection.
const SERVICES_MAX: usize = 10_000;

/// Watches the list of services.
pub(super) struct Catalog {
    shared: Arc<Shared>,
    watches: BTreeMap<String, Watch>,
    /// Whether a list with too many services was complained about.
    is_crowded: bool,
    trouble: Trouble,
}

struct Shared {
    api: ConsulApi,
    metrics: Arc<SdMetrics>,
    /// Targets of all services.
    targets: AtomicUsize,
    job_name: String,
}

/// The task of a service; ends when dropped.
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Discoverer for Catalog {
    fn run(mut self: Box<Self>, sender: GroupSender) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let datacenter: Arc<str> = self.shared.datacenter(&self.trouble).await.into();
            let config = &self.shared.api.config;
            let names_all = !config.services.is_empty() && config.tags.is_empty() && config.filter.is_empty();
            if names_all {
                let names: BTreeSet<String> = config.services.iter().take(SERVICES_MAX).cloned().collect();
                for name in names {
                    self.start(name, &datacenter, &sender);
                }
                // The services speak for themselves.
                std::future::pending::<()>().await;
            }
            let mut ticks = self.shared.ticks();
            let mut index = 0;
            loop {
                ticks.tick().await;
                if self.look(&mut index, &datacenter, &sender).await.is_err() {
                    return;
                }
            }
        })
    }
}

impl Catalog {
    pub(super) fn new(config: ConsulSdConfig, context: &DiscoveryContext) -> Self {
        let shared = Shared {
            api: ConsulApi::new(config, context),
            metrics: Arc::clone(&context.metrics),
            targets: AtomicUsize::new(0),
            job_name: context.job_name.clone(),
        };
        let trouble = shared.trouble();
        Self { shared: Arc::new(shared), watches: BTreeMap::new(), is_crowded: false, trouble }
    }

    /// Asks for the list of services once and makes the watches fit it.
    async fn look(
        &mut self,
        index: &mut u64,
        datacenter: &Arc<str>,
        sender: &GroupSender,
    ) -> Result<(), NobodyListens> {
        let started = Instant::now();
        let answer = self.shared.api.services(*index).await;
        self.shared.metrics.consul_asked("services", started.elapsed());
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.shared
                    .failed(
                        "cannot refresh the list of Consul services, keeping the last one",
                        &error,
                        &self.trouble,
                    )
                    .await;
                return Ok(());
            }
        };
        self.trouble.ends();
        if !advance(index, answer.index) {
            return Ok(());
        }
        let mut wanted: BTreeSet<String> = answer
            .value
            .into_iter()
            .filter(|(name, tags)| self.shared.api.config.wants(name, tags.as_deref().unwrap_or_default()))
            .map(|(name, _)| name)
            .collect();
        self.bound(&mut wanted);
        let gone: Vec<String> = self.watches.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in gone {
            if let Some(mut watch) = self.watches.remove(&name) {
                watch.0.abort();
                // Whatever it was sending comes before its end.
                let _ = (&mut watch.0).await;
            }
            sender.send(vec![TargetGroup { source: name, ..TargetGroup::default() }]).await?;
        }
        for name in wanted {
            if !self.watches.contains_key(&name) {
                self.start(name, datacenter, sender);
            }
        }
        if self.watches.is_empty() {
            // That there is nothing is worth knowing too.
            sender.send(Vec::new()).await?;
        }
        Ok(())
    }

    /// Leaves out services beyond what is watched.
    fn bound(&mut self, wanted: &mut BTreeSet<String>) {
        let found = wanted.len();
        while wanted.len() > SERVICES_MAX {
            wanted.pop_last();
        }
        let is_crowded = found > SERVICES_MAX;
        if is_crowded && !self.is_crowded {
            self.shared.metrics.consul_failures.inc();
            tracing::error!(found, limit = SERVICES_MAX, "too many Consul services, leaving out the rest");
        }
        self.is_crowded = is_crowded;
    }

    fn start(&mut self, name: String, datacenter: &Arc<str>, sender: &GroupSender) {
        let service = Service {
            shared: Arc::clone(&self.shared),
            name: name.clone(),
            datacenter: Arc::clone(datacenter),
            counted: 0,
        };
        let task = tokio::spawn(service.run(sender.clone()).in_current_span());
        self.watches.insert(name, Watch(task));
    }
}

impl ConsulSdConfig {
    /// Whether a service of the catalog is one of those looked for.
    fn wants(&self, name: &str, tags: &[String]) -> bool {
        (self.services.is_empty() || self.services.iter().any(|service| service == name))
            && self.tags.iter().all(|tag| tags.contains(tag))
    }
}

impl Shared {
    /// The datacenter targets are labelled with; asks until somebody says.
    async fn datacenter(&self, trouble: &Trouble) -> String {
        let config = &self.api.config;
        if !config.datacenter.is_empty() {
            return config.datacenter.clone();
        }
        loop {
            match self.api.datacenter().await {
                Ok(datacenter) => return datacenter,
                Err(error) => self.failed("cannot learn the datacenter of Consul", &error, trouble).await,
            }
        }
    }

    /// Counts and tells a failure, and waits before the next attempt.
    async fn failed(&self, what: &str, error: &RefreshError, trouble: &Trouble) {
        self.metrics.consul_failures.inc();
        trouble.begins(&format_args!("{what}: {error}"));
        tracing::warn!(%error, "{what}");
        tokio::time::sleep(self.api.config.retry_interval).await;
    }

    fn trouble(&self) -> Trouble {
        self.metrics.trouble(&self.job_name, "consul")
    }

    fn ticks(&self) -> Interval {
        let mut ticks = tokio::time::interval(self.api.config.refresh_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }
}

/// Whether `new` shows another state than `index`, which it then replaces.
fn advance(index: &mut u64, new: u64) -> bool {
    if new != 0 && new == *index {
        // The watch time passed with no update.
        return false;
    }
    *index = if new < *index { 0 } else { new };
    true
}

/// Watches the instances of one service.
struct Service {
    shared: Arc<Shared>,
    name: String,
    datacenter: Arc<str>,
    /// Targets of this service in `Shared::targets`.
    counted: usize,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.targets.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl Service {
    async fn run(mut self, sender: GroupSender) {
        let shared = Arc::clone(&self.shared);
        let mut ticks = shared.ticks();
        let mut known = Known::default();
        let trouble = shared.trouble();
        let mut index = 0;
        loop {
            ticks.tick().await;
            let started = Instant::now();
            let answer = shared.api.instances(&self.name, index).await;
            shared.metrics.consul_asked("service", started.elapsed());
            let group = match answer {
                Ok(answer) if !advance(&mut index, answer.index) => {
                    trouble.ends();
                    continue;
                }
                Ok(answer) => self.count(shared.api.group(&self.name, &self.datacenter, answer.value)),
                Err(error) => Err(error),
            };
            match group {
                Ok(group) => {
                    trouble.ends();
                    if let Some(update) = known.replace_one(group)
                        && sender.send(update).await.is_err()
                    {
                        return;
                    }
                }
                Err(error) => {
                    let what = format!("cannot refresh Consul service {:?}, keeping its targets", self.name);
                    shared.failed(&what, &error, &trouble).await;
                }
            }
        }
    }

    /// Takes the targets into account, unless all services together have too many.
    fn count(&mut self, group: TargetGroup) -> Result<TargetGroup, RefreshError> {
        let new = group.targets.len();
        let others = self.shared.targets.load(Ordering::Relaxed).saturating_sub(self.counted);
        if others + new > TARGETS_MAX {
            return Err(RefreshError::TooMany { what: "targets", found: others + new, limit: TARGETS_MAX });
        }
        self.shared.targets.fetch_add(new, Ordering::Relaxed);
        self.shared.targets.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = new;
        Ok(group)
    }
}
