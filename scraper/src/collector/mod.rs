//! Collectors: what reads a broker in its own protocol and yields the same samples a scraped page would.
//!
//! # How the pieces meet
//! - A [`CollectorFactory`] is registered once per kind (`redis`) with the scrape manager. At reload its
//!   [`CollectorFactory::build`] turns the `collector_options` of one job into a [`Collector`]: settings only, no I/O.
//! - For each target of the job the scrape loop calls [`Collector::connect`] once, when the target starts, and keeps
//!   the returned [`CollectorSession`] until the target goes or its job changes. All state that lives between
//!   collections (connection, shadow timelines, known queues) belongs into the session. `connect` must not wait: the
//!   connection is made in the first `collect`.
//! - [`CollectorSession::collect`] is called once an interval, never twice at the same time (`&mut self`). The loop
//!   drops the future when `deadline` has passed, so a session must survive being cut at any await point: typically
//!   it takes its connection out, and puts it back only after a complete answer.
//!
//! # What a collector owes
//! - Samples without target labels: the loop adds `job`, `instance` and the others, applies `honor_labels`,
//!   `metric_relabel_configs`, limits, and staleness markers for series that are no longer given. A series given
//!   twice in one collection counts as a duplicate: the first wins.
//! - An answer that is incomplete (a missing permission, a limit, time running out) is a success with
//!   `queue_collector_partial` samples and texts in [`Scrape::warnings`]. `Err` means nothing useful was learnt:
//!   then `up` is 0 and all series of the target get staleness markers. To keep series such as `queue_up 0` visible
//!   while the broker is away, set [`CollectError::samples`]: they are stored although `up` is 0.
//! - Bounds on everything read from the wire, and no secrets in errors.
//! - CPU work above about 1 ms goes to `tokio::task::spawn_blocking`.
//!
//! # What is shared
//! [`schema`] has the metric names and labels of every broker, [`queues`] the rules for queues (caps, dead letters,
//! objectives), [`account`] what a collector says about itself, [`resp`] the protocol of Redis and Disque.

pub mod account;
pub mod glob;
pub mod queues;
pub mod redis;
pub mod resp;
pub mod schema;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::{Clock, ConfigError, ConfigPath, Labels, Metadata, Timestamp};

/// What one collection gives: the same for an HTTP page and a broker.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// The samples, in an order that is stable from collection to collection where possible (that is what makes
    /// storing them cheap).
    pub samples: Vec<ScrapedSample>,
    /// What metric families are, by family name.
    pub metadata: Vec<(String, Metadata)>,
    /// Bytes read from the wire, for `scrape_body_size_bytes`.
    pub body_bytes: u64,
    /// Why the collection is incomplete, for people (log, targets page): lower case, no secrets. Empty when complete.
    pub warnings: Vec<String>,
}

/// One sample of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapedSample {
    /// All labels, `__name__` included, target labels excluded.
    pub labels: Labels,
    /// The value.
    pub value: f64,
    /// Its own time; `None` for the time of the collection (nearly always right).
    pub t: Option<Timestamp>,
}

impl ScrapedSample {
    /// A sample at the time of the collection.
    pub fn new(labels: Labels, value: f64) -> Self {
        Self { labels, value, t: None }
    }
}

/// Facts about a job that a collector may need.
#[derive(Clone)]
pub struct JobSettings {
    /// `job_name`.
    pub job_name: String,
    /// Configured interval (a target may override it by `__scrape_interval__`).
    pub scrape_interval: Duration,
    /// Configured timeout, at most the interval.
    pub scrape_timeout: Duration,
    /// The folder relative paths in options start from.
    pub base_dir: PathBuf,
    /// Wall clock, for ages.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for JobSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSettings")
            .field("job_name", &self.job_name)
            .field("scrape_interval", &self.scrape_interval)
            .field("scrape_timeout", &self.scrape_timeout)
            .finish_non_exhaustive()
    }
}

/// The target of a session.
#[derive(Clone, Debug)]
pub struct CollectTarget {
    /// `__address__` after relabelling: `host:port`, or whatever the collector documents.
    pub address: String,
    /// The labels that stored series will carry (`job`, `instance`, …).
    pub labels: Labels,
    /// The labels the target had after relabelling, `__param_…` and other special ones included.
    pub discovered: Labels,
    /// This target's interval.
    pub interval: Duration,
    /// This target's timeout.
    pub timeout: Duration,
}

/// Why a collection gave nothing useful. The text is shown as the target's last error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CollectError {
    /// What failed, on what: lower case, no full stop, no secrets.
    pub message: String,
    /// What is known all the same and shall be stored, e.g. `queue_up 0`.
    pub samples: Vec<ScrapedSample>,
}

impl CollectError {
    /// An error without samples.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), samples: Vec::new() }
    }

    /// The same error with samples that shall be stored all the same.
    #[must_use]
    pub fn with_samples(mut self, samples: Vec<ScrapedSample>) -> Self {
        self.samples = samples;
        self
    }
}

/// Makes the collectors of one kind from configuration.
pub trait CollectorFactory: Send + Sync {
    /// The value of a job's `collector` key.
    fn kind(&self) -> &'static str;

    /// Checks `options` (the job's `collector_options`; `Null` when absent) and builds the collector of a job. Does
    /// no I/O but reading files that options name.
    ///
    /// # Errors
    /// At `path` or below it, when options are wrong.
    fn build(
        &self,
        job: &JobSettings,
        options: &serde_yaml::Value,
        path: &ConfigPath,
    ) -> Result<Arc<dyn Collector>, ConfigError>;
}

/// The collector of one job.
pub trait Collector: Send + Sync {
    /// Starts a session with one target. Must not wait or do I/O.
    fn connect(&self, target: &CollectTarget) -> Box<dyn CollectorSession>;
}

/// What lives between the collections of one target.
pub trait CollectorSession: Send {
    /// Collects once. The future is dropped unfinished when `deadline` has passed.
    fn collect(&mut self, deadline: tokio::time::Instant) -> BoxFuture<'_, Result<Scrape, CollectError>>;
}
