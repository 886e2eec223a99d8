//! The Redis collector: nodes, streams with their groups, and lists, on the common schema.
//!
//! A *node target*: each instance reports the keys it holds itself. A replica reports its node only, since its queues
//! are its master's; in cluster mode every master is a target and a key that lives elsewhere is left to its own.
//!
//! One collection is: `INFO` and `TIME`; `SCAN` within its budget, if asked for; then per database the rounds of the
//! probes, each one pipeline. It ends at 0.8 × interval (and before the scrape timeout); what came until then is the
//! answer, and `queue_collector_partial` says why it is not all. The connection is kept between collections and made
//! anew when it broke. Only reading commands are sent; payloads are hashed or read for a time and dropped.
//!
//! Minimum rights: see [`RIGHTS`].

mod info;
mod list;
mod options;
mod probe;
mod scan;
mod session;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use model::{ConfigError, ConfigPath};

pub use options::{
    REMEMBER_EMPTY_DEFAULT, RawDatabases, RawList, RawRedisOptions, RawScan, SCAN_BUDGET_DEFAULT,
};

use self::options::RedisOptions;
use self::session::RedisSession;
use super::{CollectTarget, Collector, CollectorFactory, CollectorSession, JobSettings};

/// The value of label `system`.
pub(crate) const SYSTEM: &str = "redis";
/// The port of an address without one.
pub const DEFAULT_PORT: u16 = 6379;
/// The ACL rule of a user that may do what the collector does and nothing else.
pub const RIGHTS: &str = "~* -@all +ping +info +time +select +scan +llen +lindex +xinfo|stream +xinfo|groups \
                          +xpending +xrange +cluster|info";

pub(crate) const STAGE_CONNECT: &str = "connect";
pub(crate) const STAGE_AUTH: &str = "auth";
pub(crate) const STAGE_INFO: &str = "info";
pub(crate) const STAGE_SCAN: &str = "scan";
pub(crate) const STAGE_QUEUES: &str = "queues";
pub(crate) const STAGE_HEAD: &str = "head";
pub(crate) const STAGE_NAME: &str = "name";
const STAGES: [&str; 7] =
    [STAGE_CONNECT, STAGE_AUTH, STAGE_INFO, STAGE_SCAN, STAGE_QUEUES, STAGE_HEAD, STAGE_NAME];

/// What is remembered between the collections of a target.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) node: info::NodeMemory,
    pub(crate) streams: stream::StreamMemory,
    pub(crate) lists: list::ListMemory,
    pub(crate) scan: scan::Scan,
}

/// Makes Redis collectors: `collector: redis`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisFactory;

impl CollectorFactory for RedisFactory {
    fn kind(&self) -> &'static str {
        SYSTEM
    }

    fn build(
        &self,
        job: &JobSettings,
        options: &serde_yaml::Value,
        path: &ConfigPath,
    ) -> Result<Arc<dyn Collector>, ConfigError> {
        let raw: RawRedisOptions = if options.is_null() {
            RawRedisOptions::default()
        } else {
            serde_yaml::from_value(options.clone())
                .map_err(|error| ConfigError::new(path, error.to_string()))?
        };
        let options = Arc::new(raw.build(path, &job.base_dir)?);
        Ok(Arc::new(RedisCollector { options, job: job.clone() }))
    }
}

/// The collector of one job.
#[derive(Debug)]
struct RedisCollector {
    options: Arc<RedisOptions>,
    job: JobSettings,
}

impl Collector for RedisCollector {
    fn connect(&self, target: &CollectTarget) -> Box<dyn CollectorSession> {
        Box::new(RedisSession::new(self.options.clone(), target, self.job.clock.clone()))
    }
}
