//! The embedded time series store.
//!
//! [`Db`] implements the storage traits of [`model::storage`]: transactions that become durable and visible as a whole,
//! layouts for sources with a stable set of series, and consistent views for queries.
//!
//! # How it is made
//! A commit goes to the write-ahead log and into the head: rows of layouts into histories, other samples into columns of their
//! series. What is closed there moves to head chunk files; a checkpoint has the rest, so that the log stays short and a restart
//! replays minutes. Compaction makes blocks of what is old in the head, and larger blocks of blocks.
//!
//! # What it promises
//! * A commit that was acknowledged is in the kernel and survives the death of the process; it survives a loss of power
//!   after the next sync ([`DbOptions::wal_fsync_interval`]; zero: before it is acknowledged).
//! * A commit that failed has left nothing behind, and the next one works as soon as the disk does.
//! * Values come back bit for bit: NaN payloads, negative zero, staleness markers.
//! * A view sees whole commits: those acknowledged before it was opened, and none after, however long it is used.
//! * Damage is found by checksum, named in the log, counted, contained, and its bytes are kept aside.
//!
//! # Which samples are taken
//! As in Prometheus, see [`model::storage::AppendError`]: per series in order of time; the same value at the same time
//! again is taken silently wherever the head has it; another value at a time that the head has is a duplicate. Of samples
//! that are in blocks already nobody looks at the value: without an out-of-order window what comes at their times is refused
//! as too old; within one it is stored again, and readers and compaction keep the older. Without an
//! out-of-order window, samples may be up to one hour older than the newest of the store; with one, up to that window
//! or one hour, whichever is more, for series without newer samples, and up to the window for those that have. An empty
//! store takes any time.
//!
//! Formats: `docs/formats/*.md`.
#![forbid(unsafe_code)]

mod appender;
mod block;
mod cache;
mod check;
mod checkpoint;
mod chunk;
mod coding;
mod columns;
mod commit;
mod compact;
mod db;
mod exemplars;
mod frame;
pub mod fs;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod head;
mod head_chunks;
mod index;
pub mod inspect;
mod maintain;
mod metrics;
mod options;
mod querier;
mod recover;
mod select;
mod wal;

pub use compact::rules::{Retention, RetentionRule};
pub use db::{Db, Progress};
pub use options::DbOptions;
