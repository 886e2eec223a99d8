//! Discovery: where targets come from.
//!
//! A [`DiscoveryConfig`] (one entry of a job's `…_sd_configs`, or something built in such as the loopback discovery) starts
//! a [`Discoverer`]. It runs in a task of its own for as long as the job is configured and sends *target groups*
//! over a bounded channel. A group is known by its `source`; sending a group again replaces it, sending it without
//! targets takes it away. What was sent stays until replaced: a discoverer that fails says so ([`SdMetrics`], its
//! [`DiscoveryTrouble`], log) and
//! sends nothing, so the last targets stay.
//!
//! The task is dropped at any await point when the job goes.

mod aws;
mod client;
mod consul;
mod dns;
mod docker;
mod eureka;
mod file;
mod http;
#[cfg(test)]
mod http_tests;
mod kubernetes;
mod metrics;
mod nomad;
mod provider;
mod refresh;
#[cfg(test)]
mod refresh_tests;
#[cfg(test)]
mod testing;
mod trouble;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::{Clock, Labels};
use tokio::sync::mpsc;

pub use aws::{AwsSdConfig, Ec2Filter, Ec2SdConfig, RawAwsSdConfig, RawEc2SdConfig};
pub use consul::{ConsulSdConfig, RawConsulSdConfig};
pub use dns::{DnsSdConfig, RawDnsSdConfig};
pub use docker::{
    DockerFilter, DockerSdConfig, DockerSwarmSdConfig, RawDockerSdConfig, RawDockerSwarmSdConfig,
};
pub use eureka::{EurekaSdConfig, RawEurekaSdConfig};
pub use file::{FileSdConfig, RawFileSdConfig, RawTargetGroup};
pub use http::{HttpSdConfig, RawHttpSdConfig};
pub use kubernetes::{AttachMetadata, KubernetesSdConfig, RawKubernetesSdConfig, RawNamespaces, RawSelector};
pub use metrics::SdMetrics;
pub use nomad::{NomadSdConfig, RawNomadSdConfig};
pub(crate) use provider::Providers;
pub use refresh::RefreshError;
pub use trouble::DiscoveryTrouble;

/// Most updates under way from one discoverer; more make it wait.
pub const UPDATES_MAX: usize = 4;

/// Targets that share labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetGroup {
    /// What tells the group from others of the same discoverer (`file.yml:0`, an index, an id).
    pub source: String,
    /// Labels of each target; `__address__` among them.
    pub targets: Vec<Labels>,
    /// Labels for all targets; a target's own labels win.
    pub labels: Labels,
}

/// What a discoverer may use.
#[derive(Clone, Debug)]
pub struct DiscoveryContext {
    /// The job it works for.
    pub job_name: String,
    /// Counters of all discoverers.
    pub metrics: Arc<SdMetrics>,
    /// `User-Agent` of requests.
    pub user_agent: String,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

/// Sends the groups a discoverer found.
#[derive(Clone, Debug)]
pub struct GroupSender {
    /// Which discoverer of the job sends.
    provider: usize,
    sender: mpsc::Sender<(usize, Vec<TargetGroup>)>,
}

impl GroupSender {
    /// Replaces the named groups; waits when the job is behind. An error says that nobody listens any more.
    ///
    /// # Errors
    /// When the job has gone.
    pub async fn send(&self, groups: Vec<TargetGroup>) -> Result<(), NobodyListens> {
        self.sender.send((self.provider, groups)).await.map_err(|_| NobodyListens)
    }
}

/// The job of a discoverer has gone: it should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody listens to this discoverer any more")]
pub struct NobodyListens;

/// Finds targets until dropped.
pub trait Discoverer: Send {
    /// Finds targets and sends them, again and again. Returns only when there is nothing more to find ever (static
    /// targets) or nobody listens.
    fn run(self: Box<Self>, groups: GroupSender) -> BoxFuture<'static, ()>;
}

/// A configured way of finding targets.
pub trait DiscoveryConfig: Any + fmt::Debug + Send + Sync {
    /// The kind, as in `…_sd_configs` (`static`, `file`, `loopback`), for logs and metrics.
    fn kind(&self) -> &'static str;

    /// A discoverer for a job. No I/O yet.
    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer>;

    /// Whether `other` finds the same targets in the same way: then a reload need not start anew. Compares
    /// [`DiscoveryConfig::identity`] strings by default; kinds with secrets compare themselves (`is_equal`), for no
    /// text may hold those.
    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        self.kind() == other.kind() && self.identity() == other.identity()
    }

    /// A text that is equal for equal settings.
    fn identity(&self) -> String;
}

/// Whether `other` is of the same kind as `config` and equal to it, secrets included.
pub(crate) fn is_equal<T: DiscoveryConfig + PartialEq>(config: &T, other: &dyn DiscoveryConfig) -> bool {
    let other: &dyn Any = other;
    other.downcast_ref::<T>() == Some(config)
}

/// `static_configs` of one job.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticConfig {
    /// The groups, sources `0`, `1`, ….
    pub groups: Vec<TargetGroup>,
}

impl DiscoveryConfig for StaticConfig {
    fn kind(&self) -> &'static str {
        "static"
    }

    fn discoverer(&self, _context: &DiscoveryContext) -> Box<dyn Discoverer> {
        Box::new(StaticDiscoverer { groups: self.groups.clone() })
    }

    fn identity(&self) -> String {
        format!("{:?}", self.groups)
    }
}

struct StaticDiscoverer {
    groups: Vec<TargetGroup>,
}

impl Discoverer for StaticDiscoverer {
    fn run(self: Box<Self>, sender: GroupSender) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // An error means that nobody wants the targets: nothing to do then.
            let _ = sender.send(self.groups).await;
        })
    }
}

/// How long updates are gathered before targets change again (Prometheus: 5 s).
pub const UPDATE_INTERVAL: Duration = Duration::from_secs(5);
