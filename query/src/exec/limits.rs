//! When a query has to stop: cancelled, stopped by an operator, out of time, or holding more than it may.
//!
//! All counters are shared by the threads of a query, and read from outside by the register of running queries.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::storage::Interrupt;
use tokio::time::Instant;

use super::error::QueryError;
use super::memory::{MemoryBudget, MemoryHold};
use super::state::STEPS_PER_CHECK;

/// Bytes a query may hold without asking the shared budget: most queries are smaller, and never touch it.
const SMALL_CHANGE: u64 = 64 << 10;
/// Least number of bytes taken from the shared budget at once.
const RESERVE_BYTES_MIN: u64 = 1 << 20;

/// How far a query has come; written by its threads, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Series selected.
    pub(crate) series: AtomicU64,
    /// Samples looked at, counted anew for each step.
    pub(crate) samples: AtomicU64,
    /// Samples read from storage, each once.
    pub(crate) read: AtomicU64,
    /// Samples held in memory now, and at most.
    held: AtomicI64,
    held_peak: AtomicI64,
    /// Bytes held now, and at most.
    bytes: AtomicI64,
    bytes_peak: AtomicI64,
}

impl Progress {
    /// Most samples held at once.
    pub(crate) fn samples_peak(&self) -> u64 {
        self.held_peak.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// Most bytes held at once.
    pub(crate) fn bytes_peak(&self) -> u64 {
        self.bytes_peak.load(Ordering::Relaxed).max(0).unsigned_abs()
    }
}

/// What a query may take.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) deadline: Option<Instant>,
    /// Most samples held at once.
    pub(crate) samples_max: u64,
    /// Most series selected.
    pub(crate) series_max: u64,
    /// Most bytes held at once.
    pub(crate) bytes_max: u64,
    /// What it shares with all other queries.
    pub(crate) budget: MemoryBudget,
}

/// Flags that are set from outside: the caller went, an operator said stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops {
    pub(crate) caller: Option<Arc<AtomicBool>>,
    pub(crate) operator: Option<Arc<AtomicBool>>,
}

impl Stops {
    fn any(&self) -> bool {
        let set = |flag: &Option<Arc<AtomicBool>>| flag.as_ref().is_some_and(|f| f.load(Ordering::Relaxed));
        set(&self.caller) || set(&self.operator)
    }
}

/// Which bound on memory was passed where nobody could be told.
const FITS: u8 = 0;
const QUERY_TOO_BIG: u8 = 1;
const BUDGET_EXHAUSTED: u8 = 2;
const BUDGET_TOO_SMALL: u8 = 3;

/// The limits of one query.
#[derive(Debug)]
pub(crate) struct Limits {
    stops: Stops,
    bounds: Bounds,
    progress: Arc<Progress>,
    /// What is reserved of the shared budget; `None`: nothing yet.
    reservation: Mutex<Option<MemoryHold>>,
    /// Bytes up to which no more needs to be reserved.
    reserved: AtomicU64,
    overflow: AtomicU8,
}

fn signed(count: usize) -> i64 {
    // Half the range, so that a sum of two does not wrap.
    i64::try_from(count).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

impl Limits {
    pub(crate) fn new(stops: Stops, bounds: Bounds, progress: Arc<Progress>) -> Self {
        Self {
            stops,
            bounds,
            progress,
            reservation: Mutex::new(None),
            reserved: AtomicU64::new(SMALL_CHANGE),
            overflow: AtomicU8::new(FITS),
        }
    }

    /// Fails once the query was cancelled, its time is up, or it holds too much.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        if self.stops.any() {
            return Err(QueryError::canceled());
        }
        if self.bounds.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(QueryError::timeout());
        }
        match self.overflow.load(Ordering::Relaxed) {
            FITS => Ok(()),
            overflow => Err(self.overflow_error(overflow)),
        }
    }

    /// What tells storage that [`Limits::check`] fails, by flags and time.
    pub(crate) fn interrupt(&self) -> Interrupt {
        let (stops, deadline) = (self.stops.clone(), self.bounds.deadline);
        Interrupt::new(move || stops.any() || deadline.is_some_and(|deadline| Instant::now() >= deadline))
    }

    fn overflow_error(&self, overflow: u8) -> QueryError {
        let Bounds { bytes_max, budget, .. } = &self.bounds;
        match overflow {
            QUERY_TOO_BIG => QueryError::too_much_memory(*bytes_max),
            BUDGET_TOO_SMALL => QueryError::memory_too_small(budget.reach_bytes()),
            _ => QueryError::memory_exhausted(budget.max_bytes()),
        }
    }

    fn overflows(&self, overflow: u8) -> QueryError {
        self.overflow.store(overflow, Ordering::Relaxed);
        self.overflow_error(overflow)
    }

    /// [`Limits::check`] every so many steps.
    pub(crate) fn check_at(&self, step: usize) -> Result<(), QueryError> {
        if step % STEPS_PER_CHECK == STEPS_PER_CHECK - 1 { self.check() } else { Ok(()) }
    }

    /// Counts samples that are held from now on.
    pub(crate) fn hold(&self, samples: usize) -> Result<(), QueryError> {
        let samples = signed(samples);
        let held = self.progress.held.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        self.progress.held_peak.fetch_max(held, Ordering::Relaxed);
        if held.max(0).unsigned_abs() > self.bounds.samples_max {
            Err(QueryError::too_many_samples())
        } else {
            Ok(())
        }
    }

    /// Counts samples that are no longer held.
    pub(crate) fn release(&self, samples: usize) {
        self.progress.held.fetch_sub(signed(samples), Ordering::Relaxed);
    }

    /// Fails when `samples` could never be held.
    pub(crate) fn admit(&self, samples: usize) -> Result<(), QueryError> {
        if samples as u64 > self.bounds.samples_max { Err(QueryError::too_many_samples()) } else { Ok(()) }
    }

    /// Counts selected series.
    pub(crate) fn select(&self, series: usize) -> Result<(), QueryError> {
        let series = series as u64;
        let all = self.progress.series.fetch_add(series, Ordering::Relaxed).saturating_add(series);
        if all > self.bounds.series_max {
            return Err(QueryError::too_many_series(self.bounds.series_max));
        }
        Ok(())
    }

    /// Counts bytes that are held from now on.
    pub(crate) fn hold_bytes(&self, bytes: usize) -> Result<(), QueryError> {
        let bytes = signed(bytes);
        let held = self.progress.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.progress.bytes_peak.fetch_max(held, Ordering::Relaxed);
        let held = held.max(0).unsigned_abs();
        if held > self.bounds.bytes_max {
            return Err(self.overflows(QUERY_TOO_BIG));
        }
        if held > self.reserved.load(Ordering::Relaxed) { self.reserve(held) } else { Ok(()) }
    }

    /// The same where there is nobody to tell: the next [`Limits::check`] fails then.
    pub(crate) fn note_bytes(&self, bytes: usize) {
        // The failure is kept in `overflow`.
        let _ = self.hold_bytes(bytes);
    }

    /// Counts bytes that are no longer held.
    pub(crate) fn release_bytes(&self, bytes: usize) {
        self.progress.bytes.fetch_sub(signed(bytes), Ordering::Relaxed);
    }

    fn reserve(&self, held: u64) -> Result<(), QueryError> {
        let mut reservation = self.reservation.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = self.reserved.load(Ordering::Relaxed);
        if held <= reserved {
            return Ok(());
        }
        let budget = &self.bounds.budget;
        // Ahead of need by a quarter, so that a growing query asks seldom; by less when there is no more.
        let ahead = held.saturating_add((held / 4).max(RESERVE_BYTES_MIN)).min(self.bounds.bytes_max);
        for wanted in [ahead, held] {
            let grown = match reservation.as_mut() {
                Some(hold) => hold.grow_to(wanted),
                None => {
                    *reservation = budget.hold(wanted);
                    reservation.is_some()
                }
            };
            if grown {
                self.reserved.store(wanted, Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(self.overflows(if budget.could_hold(held) { BUDGET_EXHAUSTED } else { BUDGET_TOO_SMALL }))
    }

    /// Most bytes the query may hold, as far as it depends on limits alone.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bounds.bytes_max.min(self.bounds.budget.reach_bytes())
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> u64 {
        self.progress.bytes()
    }

    /// The query is done but for its result of so many bytes: what that keeps of the budget. `None`: small change.
    pub(crate) fn keep(self, bytes: u64) -> Option<MemoryHold> {
        let mut hold = self.reservation.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        if bytes <= SMALL_CHANGE {
            return None;
        }
        hold.shrink_to(bytes);
        Some(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::QueryErrorKind;
    use super::*;

    fn limits(bytes_max: u64, budget: &MemoryBudget) -> Limits {
        let bounds =
            Bounds { deadline: None, samples_max: 100, series_max: 10, bytes_max, budget: budget.clone() };
        Limits::new(Stops::default(), bounds, Arc::default())
    }

    #[test]
    fn small_queries_do_not_touch_the_budget() {
        let budget = MemoryBudget::new(0);
        let limits = limits(1 << 30, &budget);
        limits.hold_bytes(SMALL_CHANGE as usize).unwrap();
        limits.check().unwrap();
        // To try again would be no use.
        let error = limits.hold_bytes(1).unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::Execution);
        assert!(error.message.contains("0 B of memory that all queries may use"), "{error}");
    }

    #[test]
    fn bytes_are_bounded_per_query_and_over_all() {
        let budget = MemoryBudget::new(10 << 20);
        let (a, b) = (limits(8 << 20, &budget), limits(8 << 20, &budget));
        a.hold_bytes(7 << 20).unwrap();
        assert!(budget.used_bytes() >= 7 << 20);
        assert_eq!(b.hold_bytes(4 << 20).unwrap_err().kind, QueryErrorKind::Unavailable);
        // Once refused, a query does not go on.
        b.release_bytes(4 << 20);
        assert_eq!(b.check().unwrap_err().kind, QueryErrorKind::Unavailable);
        drop(b);
        let error = a.hold_bytes(2 << 20).unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::Execution);
        let hold = a.keep(1 << 20).unwrap();
        assert_eq!(budget.used_bytes(), 1 << 20);
        drop(hold);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn what_nobody_could_be_told_is_found_at_the_next_check() {
        let limits = limits(100, &MemoryBudget::unlimited());
        limits.check().unwrap();
        limits.note_bytes(101);
        assert!(limits.check().unwrap_err().message.contains("memory"));
    }

    #[test]
    fn series_and_samples_are_bounded() {
        let limits = limits(100, &MemoryBudget::unlimited());
        limits.select(10).unwrap();
        assert!(limits.select(1).unwrap_err().message.contains("series"));
        limits.hold(100).unwrap();
        limits.release(50);
        limits.hold(50).unwrap();
        assert!(limits.hold(1).is_err() && limits.admit(101).is_err());
        // Absurd numbers saturate.
        assert!(limits.hold(usize::MAX).is_err() && limits.admit(usize::MAX).is_err());
    }
}
