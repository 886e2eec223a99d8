//! The road of CPU work: evaluation, large decodes, compaction never run on the reactor's threads.
//!
//! A thin layer over tokio's blocking threads with a bound on how many jobs run at once; further ones wait in order. A
//! job whose caller has gone before it started is skipped. (After Quickwit's `thread_pool`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

/// A bounded pool for CPU work.
#[derive(Clone, Debug)]
pub struct CpuPool {
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicU64>,
}

/// The job panicked or the pool is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job did not finish")]
pub struct JobLost;

impl CpuPool {
    /// A pool that runs at most `jobs_max` jobs at once (at least 1).
    pub fn new(jobs_max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(jobs_max.max(1))), waiting: Arc::default() }
    }

    /// Runs `job` on a thread of its own kind and waits for it. Dropping the future before the job has started skips it.
    ///
    /// # Errors
    /// [`JobLost`] when the job panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let waiting = Waiting::new(&self.waiting);
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| JobLost)?;
        drop(waiting);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if !sender.is_closed() {
                // The receiver may have gone meanwhile: then nobody wants the result.
                let _ = sender.send(job());
            }
        });
        receiver.await.map_err(|_| JobLost)
    }

    /// Number of jobs that wait for a place.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Counts one waiting job for as long as it lives.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_jobs_and_survives_panics() {
        let pool = CpuPool::new(1);
        assert_eq!(pool.run(|| 6 * 7).await, Ok(42));
        assert_eq!(pool.run(|| -> u32 { panic!("expected in this test") }).await, Err(JobLost));
        assert_eq!(pool.run(|| 1).await, Ok(1));
        assert_eq!(pool.waiting(), 0);
    }
}
