//! Memory that queries may use: one budget for all of them, and holds on it that give back when they are dropped.
//!
//! What is counted is what grows with data: columns, tables, accumulators, label sets, results, decode buffers. It is an
//! estimate from lengths, not a look into the allocator; small change (a plan, a few kilobytes a query) is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that all queries may hold together. Clones share the count.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
    /// How far this clone may fill it.
    reach: u64,
}

/// The part of the budget that only rules may take: dashboards that fill the rest do not stop alerting.
const RESERVE_DIVISOR: u64 = 8;

#[derive(Debug)]
struct Shared {
    max: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub fn new(max_bytes: u64) -> Self {
        Self { shared: Arc::new(Shared { max: max_bytes, used: AtomicU64::new(0) }), reach: max_bytes }
    }

    /// Without a bound.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// The same budget for those who leave an eighth of it to rules.
    pub fn without_reserve(&self) -> Self {
        let max = self.shared.max;
        Self { shared: Arc::clone(&self.shared), reach: max - max / RESERVE_DIVISOR }
    }

    /// The bound in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.shared.max
    }

    /// Most bytes that this clone may take.
    pub fn reach_bytes(&self) -> u64 {
        self.reach
    }

    /// Whether so many bytes were there if nobody else had any.
    pub fn could_hold(&self, bytes: u64) -> bool {
        bytes <= self.reach
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` until the hold is dropped; `None` when they are not there.
    pub fn hold(&self, bytes: u64) -> Option<MemoryHold> {
        let mut hold = MemoryHold { budget: self.clone(), bytes: 0 };
        hold.grow_to(bytes).then_some(hold)
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self.shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            // Nothing is always there.
            used.checked_add(bytes).filter(|sum| *sum <= self.reach || bytes == 0)
        });
        taken.is_ok()
    }

    fn give(&self, bytes: u64) {
        self.shared.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes of a budget in use; given back on drop.
#[derive(Debug)]
pub struct MemoryHold {
    budget: MemoryBudget,
    bytes: u64,
}

impl MemoryHold {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes what is missing to `bytes`; false, and nothing taken, when it is not there.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let missing = bytes.saturating_sub(self.bytes);
        if !self.budget.take(missing) {
            return false;
        }
        self.bytes += missing;
        true
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give(surplus);
    }
}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_there_again() {
        let budget = MemoryBudget::new(100);
        let mut hold = budget.hold(60).unwrap();
        assert!(budget.hold(41).is_none());
        assert_eq!(budget.used_bytes(), 60);
        assert!(hold.grow_to(100) && !hold.grow_to(101));
        hold.shrink_to(10);
        assert_eq!((hold.bytes(), budget.used_bytes()), (10, 10));
        drop(hold);
        assert_eq!(budget.used_bytes(), 0);
        // The last eighth is for rules.
        let others = budget.without_reserve();
        let most = others.hold(88).unwrap();
        assert!(others.hold(1).is_none() && others.max_bytes() == 100);
        assert!(others.could_hold(88) && !others.could_hold(89) && budget.could_hold(100));
        let rules = budget.hold(12).unwrap();
        assert!(budget.hold(1).is_none());
        drop((most, rules));
        assert_eq!(others.used_bytes(), 0);
        // Sums that overflow are more than there is.
        let all = MemoryBudget::unlimited();
        let _some = all.hold(10).unwrap();
        assert!(all.hold(u64::MAX - 5).is_none());
    }
}
