//! Finds targets, scrapes them on time, reads brokers, and appends what it got.
//!
//! - [`config`]: scrape jobs as written and as valid.
//! - [`discovery`]: where targets come from; [`loopback`] looks for brokers on this machine.
//! - `target`, `pool`, `scrape_loop`: relabelling, one pool a job, one task a target; [`ScrapeManager`] runs them all.
//! - [`exposition`]: the formats of pages; `state`: what is known of a target between scrapes, so that an unchanged
//!   line costs a comparison.
//! - [`collector`]: brokers in their own protocols; their samples take the same road.
//!
//! Not here: storage (behind `model::storage::Append`), the HTTP client (`net`), the API (`web`).
#![forbid(unsafe_code)]

mod body;
pub mod collector;
pub mod config;
pub mod discovery;
pub mod error;
pub mod exposition;
mod failure_log;
#[cfg(any(test, feature = "fuzzing"))]
mod fake_store;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod http;
pub mod loopback;
mod manager;
#[cfg(test)]
mod manager_tests;
pub mod metrics;
mod pool;
pub mod probe;
#[cfg(test)]
mod proto_pages;
mod scrape_loop;
mod state;
mod target;
mod unpack;

pub use body::{KeptBody, NoBody};
pub use config::{BuildContext, RawGlobalConfig, RawScrapeConfig, ScrapeConfig, ScrapeDefaults};
pub use error::ScrapeError;
pub use failure_log::{FailureLog, FailureLogs};
pub use manager::{
    JobError, PoolStatus, PreparedJobs, ScrapeManager, ScrapeManagerOptions, TargetMetadata, TargetStatus,
};
pub use target::{LastScrape, TargetHealth};
