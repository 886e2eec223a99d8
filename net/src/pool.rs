//! The road of CPU work: evaluation, large decodes, compaction never run on the reactor's threads.
//!
//! A thin layer over tokio's blocking threads with a bound on how many jobs run at once; further ones wait in order. A
//! job whose caller has gone before it started is skipped. (After Quickwit's `thread_pool`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded pool for CPU work.
#[derive(Clone, Debug)]
pub struct CpuPool {
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicU64>,
    waiting_max: u64,
    abandoned: Arc<AtomicI64>,
}

/// All places are taken, and as many jobs wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all places are taken, and {waiting_max} wait already")]
pub struct PoolFull {
    /// How many may wait.
    pub waiting_max: u64,
}

/// The job panicked or the pool is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job did not finish")]
pub struct JobLost;

impl CpuPool {
    /// A pool that runs at most `jobs_max` jobs at once (at least 1).
    pub fn new(jobs_max: usize) -> Self {
        Self::with_queue(jobs_max, u64::MAX)
    }

    /// The same, with a bound on how many wait for a [`CpuPool::place`].
    pub fn with_queue(jobs_max: usize, waiting_max: u64) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(jobs_max.max(1))),
            waiting: Arc::default(),
            waiting_max,
            abandoned: Arc::default(),
        }
    }

    /// Waits for a place to run a job in; dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`PoolFull`] at once when the queue is full.
    pub async fn place(&self) -> Result<Place, PoolFull> {
        let full = PoolFull { waiting_max: self.waiting_max };
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(self.with(permit));
        }
        let one_more = |waiting: u64| waiting.checked_add(1).filter(|sum| *sum <= self.waiting_max);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).map_err(|_| full)?;
        let _waiting = Waiting(&self.waiting);
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        // Nobody closes the semaphore.
        permit.map(|permit| self.with(permit)).map_err(|_| full)
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
        self.with(permit).run(job).await
    }

    fn with(&self, permit: OwnedSemaphorePermit) -> Place {
        Place { permit, abandoned: Arc::clone(&self.abandoned) }
    }

    /// Number of places held by jobs that nobody waits for any more: they have not noticed yet, or cannot.
    pub fn abandoned(&self) -> u64 {
        // The two ends of a job count on their own, in whichever order.
        self.abandoned.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// Number of jobs that wait for a place.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A place in a pool.
#[derive(Debug)]
pub struct Place {
    permit: OwnedSemaphorePermit,
    abandoned: Arc<AtomicI64>,
}

impl Place {
    /// Runs `job` here and waits for it; the place is free again when the job has ended, whether or not somebody waits.
    ///
    /// # Errors
    /// [`JobLost`] when the job panicked.
    pub async fn run<T: Send + 'static>(
        self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let caller = End { other_has_ended: Arc::default(), abandoned: self.abandoned, is_caller: true };
        let job_end = caller.of_job();
        tokio::task::spawn_blocking(move || {
            let _permit = self.permit;
            if !sender.is_closed() {
                let result = job();
                // Before the caller can go: it has been served.
                drop(job_end);
                // The receiver may have gone meanwhile: then nobody wants the result.
                let _ = sender.send(result);
            }
        });
        let outcome = receiver.await.map_err(|_| JobLost);
        drop(caller);
        outcome
    }
}

/// One of two ends of a job, its caller's and its own: while only the caller's is gone, the job is abandoned.
struct End {
    other_has_ended: Arc<AtomicBool>,
    abandoned: Arc<AtomicI64>,
    is_caller: bool,
}

impl End {
    fn of_job(&self) -> Self {
        Self {
            other_has_ended: Arc::clone(&self.other_has_ended),
            abandoned: Arc::clone(&self.abandoned),
            is_caller: false,
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        match (self.other_has_ended.swap(true, Ordering::AcqRel), self.is_caller) {
            (false, true) => {
                self.abandoned.fetch_add(1, Ordering::Relaxed);
            }
            // The caller had gone before.
            (true, false) => {
                self.abandoned.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
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

    #[tokio::test]
    async fn queues_are_bounded_and_those_who_leave_make_room() {
        let pool = CpuPool::with_queue(1, 1);
        let first = pool.place().await.unwrap();
        let mut second = Box::pin(pool.place());
        assert!(futures_poll(&mut second).await.is_none());
        assert_eq!((pool.waiting(), pool.place().await.unwrap_err()), (1, PoolFull { waiting_max: 1 }));
        drop(second);
        assert_eq!(pool.waiting(), 0);
        let mut third = Box::pin(pool.place());
        assert!(futures_poll(&mut third).await.is_none());
        assert_eq!(first.run(|| 1).await, Ok(1));
        assert_eq!(third.await.unwrap().run(|| 3).await, Ok(3));
    }

    #[tokio::test]
    async fn jobs_whose_callers_have_gone_are_counted() {
        let pool = CpuPool::new(1);
        assert_eq!((pool.run(|| 1).await, pool.abandoned()), (Ok(1), 0));
        let (go, gone) = std::sync::mpsc::sync_channel::<()>(1);
        let (begun, begins) = std::sync::mpsc::sync_channel::<()>(1);
        let mut job = Box::pin(pool.run(move || {
            begun.send(()).unwrap();
            gone.recv().is_err()
        }));
        // The place of the first job may take a moment to become free.
        loop {
            assert!(futures_poll(&mut job).await.is_none());
            if begins.try_recv().is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.abandoned(), 0);
        drop(job);
        assert_eq!(pool.abandoned(), 1);
        drop(go);
        // The place is free when the job has ended.
        assert_eq!(pool.run(|| 2).await, Ok(2));
        assert_eq!(pool.abandoned(), 0);
    }

    /// Polls once.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
