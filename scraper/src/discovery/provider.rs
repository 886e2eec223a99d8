//! The discoverers of one job and what they have found so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::{DiscoveryConfig, DiscoveryContext, GroupSender, TargetGroup, UPDATE_INTERVAL, UPDATES_MAX};

/// Running discoverers; dropping this ends them.
pub(crate) struct Providers {
    configs: Vec<Arc<dyn DiscoveryConfig>>,
    tasks: Vec<JoinHandle<()>>,
    receiver: mpsc::Receiver<(usize, Vec<TargetGroup>)>,
    groups: GroupSet,
    /// Updates that were taken but not yet handed out.
    changed: bool,
    last_update: Option<Instant>,
}

/// All groups known of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupSet {
    groups: BTreeMap<(usize, String), Arc<TargetGroup>>,
}

impl GroupSet {
    fn update(&mut self, provider: usize, groups: Vec<TargetGroup>) {
        for group in groups {
            let key = (provider, group.source.clone());
            if group.targets.is_empty() {
                self.groups.remove(&key);
            } else {
                self.groups.insert(key, Arc::new(group));
            }
        }
    }

    /// The groups, in order of discoverers and sources.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TargetGroup> {
        self.groups.values().map(AsRef::as_ref)
    }

    /// Number of targets in all groups.
    pub(crate) fn target_count(&self) -> usize {
        self.iter().map(|group| group.targets.len()).sum()
    }
}

impl Providers {
    /// Starts the discoverers of a job.
    pub(crate) fn start(configs: Vec<Arc<dyn DiscoveryConfig>>, context: &DiscoveryContext) -> Self {
        let (sender, receiver) = mpsc::channel(UPDATES_MAX);
        let tasks = configs
            .iter()
            .enumerate()
            .map(|(provider, config)| {
                let groups = GroupSender { provider, sender: sender.clone() };
                let span = tracing::info_span!("discovery", job = %context.job_name, kind = config.kind());
                tokio::spawn(config.discoverer(context).run(groups).instrument(span))
            })
            .collect();
        Self { configs, tasks, receiver, groups: GroupSet::default(), changed: false, last_update: None }
    }

    /// Whether these discoverers do what `configs` asks for.
    pub(crate) fn serve(&self, configs: &[Arc<dyn DiscoveryConfig>]) -> bool {
        self.configs.len() == configs.len()
            && self.configs.iter().zip(configs).all(|(a, b)| a.same_as(b.as_ref()))
    }

    /// What is known at the moment.
    pub(crate) fn groups(&self) -> &GroupSet {
        &self.groups
    }

    /// Waits until each discoverer has spoken once, at most until `deadline`; says which kinds have not.
    pub(crate) async fn first_words(&mut self, deadline: Instant) -> Vec<&'static str> {
        let mut silent: Vec<usize> = (0..self.configs.len()).collect();
        while !silent.is_empty() {
            let Ok(Some((provider, groups))) = tokio::time::timeout_at(deadline, self.receiver.recv()).await
            else {
                break;
            };
            silent.retain(|index| *index != provider);
            self.groups.update(provider, groups);
        }
        silent.into_iter().map(|index| self.configs[index].kind()).collect()
    }

    /// Waits for the next change, which comes at once, but at most every [`UPDATE_INTERVAL`]. Safe to drop at any
    /// point. Never returns once all discoverers have ended.
    pub(crate) async fn next(&mut self) -> &GroupSet {
        loop {
            if self.changed {
                if let Some(last) = self.last_update {
                    let due = last + UPDATE_INTERVAL;
                    while Instant::now() < due {
                        tokio::select! {
                            () = tokio::time::sleep_until(due) => {}
                            Some((provider, groups)) = self.receiver.recv() => self.groups.update(provider, groups),
                        }
                    }
                }
                while let Ok((provider, groups)) = self.receiver.try_recv() {
                    self.groups.update(provider, groups);
                }
                self.changed = false;
                self.last_update = Some(Instant::now());
                return &self.groups;
            }
            match self.receiver.recv().await {
                Some((provider, groups)) => {
                    self.groups.update(provider, groups);
                    self.changed = true;
                }
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Providers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
