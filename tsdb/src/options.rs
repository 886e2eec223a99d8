//! How to open a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::Clock;

use crate::compact::rules::RetentionRule;

/// Where and how to store. Made by [`DbOptions::new`] with defaults, then changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DbOptions {
    /// The data directory; made when it is not there.
    pub dir: PathBuf,
    /// The wall clock, for measuring durations only: [`crate::Db::maintain`] is told the time.
    pub clock: Arc<dyn Clock>,
    /// Size at which a log segment is closed. Default 128 MiB.
    pub wal_segment_bytes: u64,
    /// Whether log records are compressed (LZ4). Default true.
    pub wal_compression: bool,
    /// How often the log is synced to disk; zero: before every commit is acknowledged. Default 1 s.
    ///
    /// Whatever it is, an acknowledged commit survives the death of the process; this is about loss of power.
    pub wal_fsync_interval: Duration,
    /// Bytes of log after which a checkpoint is written and older segments are removed. Default 64 MiB. A checkpoint also
    /// waits until the log is as large as the last one, so that no more than half of what is written is checkpoints.
    pub checkpoint_bytes: u64,
    /// How far behind the newest sample of the store out-of-order samples are taken; 0 or less: not at all. Default 0.
    pub out_of_order_window_ms: i64,
    /// How long samples are kept; zero: for ever. Default 15 days. Counted from the newest sample, but never from a time
    /// later than now, so that a clock that jumps cannot drop anything.
    pub retention: Duration,
    /// Most bytes of all files together; 0: no bound. Default 0. See [`Retention::size_bytes`](crate::Retention).
    pub retention_size_bytes: u64,
    /// Other times for the series of selectors: the first rule that accepts a series decides. Default none.
    pub retention_rules: Vec<RetentionRule>,
    /// Span of time of the blocks that come from the head, aligned to it. Default 2 h. The head holds up to one and a half
    /// of it.
    pub block_duration_min: Duration,
    /// Longest span of a block; `None`: a tenth of retention, 31 days at most. Default `None`.
    pub block_duration_max: Option<Duration>,
    /// Most bytes of blocks that are kept in memory, unpacked. Default 64 MiB.
    pub block_cache_bytes: usize,
    /// Most series; 0: no bound. Default 0.
    pub series_max: u64,
    /// Most exemplars; 0: none are kept. Default 100 000.
    pub exemplars_max: usize,
    /// Whether the directory is locked against other processes. Default true.
    pub lock: bool,
}

impl DbOptions {
    /// The defaults, for the store in `dir`.
    pub fn new(dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir: dir.into(),
            clock,
            wal_segment_bytes: 128 << 20,
            wal_compression: true,
            wal_fsync_interval: Duration::from_secs(1),
            checkpoint_bytes: 64 << 20,
            out_of_order_window_ms: 0,
            retention: Duration::from_hours(15 * 24),
            retention_size_bytes: 0,
            retention_rules: Vec::new(),
            block_duration_min: Duration::from_hours(2),
            block_duration_max: None,
            block_cache_bytes: 64 << 20,
            series_max: 0,
            exemplars_max: 100_000,
            lock: true,
        }
    }
}
