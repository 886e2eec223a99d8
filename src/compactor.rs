//! The thread that compacts the store: from the head to blocks, from blocks to larger ones.
//!
//! It has a low priority, also for the disk (Linux derives the priority of I/O from it where the scheduler knows one): what
//! it does can wait, appends and queries cannot.

use std::sync::Arc;
use std::time::Duration;

use model::Clock;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tsdb::Db;

/// How often the store is asked whether something is due, at most.
const INTERVAL: Duration = Duration::from_secs(10);
/// How much nicer than the rest of the process.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// The running thread.
pub(crate) struct Compactor {
    ended: oneshot::Receiver<()>,
}

impl Compactor {
    /// Starts it; it ends when `stop` is cancelled and the store lets it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        db: &Arc<Db>,
        clock: &Arc<dyn Clock>,
        interval: Option<Duration>,
        stop: &CancellationToken,
    ) -> std::io::Result<Self> {
        let (db, clock, stop) = (Arc::clone(db), Arc::clone(clock), stop.clone());
        let runtime = tokio::runtime::Handle::current();
        let interval = interval.unwrap_or(INTERVAL);
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("compaction".to_owned()).spawn(move || {
            // On Linux this is about the calling thread.
            #[cfg(target_os = "linux")]
            if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                tracing::warn!(%error, "compaction runs with the priority of everything else");
            }
            let stopped = || async { tokio::time::timeout(interval, stop.cancelled()).await.is_ok() };
            while !runtime.block_on(stopped()) {
                // What failed is logged and counted there, and put off; panics, too.
                let _ = db.compact(clock.now_ms());
            }
            // Nobody waits where the start failed.
            let _ = end.send(());
        })?;
        Ok(Self { ended })
    }

    /// Waits for its end.
    pub(crate) async fn join(self) {
        // An error tells of a panic, which was logged where it happened.
        let _ = self.ended.await;
    }
}
