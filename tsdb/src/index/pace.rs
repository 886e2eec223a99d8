//! Whether a long selection may go on: asked every few thousand steps, so that asking costs nothing.

use std::cell::Cell;

use model::storage::{Interrupt, StorageError};

/// Steps between two looks. A step is some ten to a hundred nanoseconds.
const STEPS: u32 = 4096;

/// A selection was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted;

impl From<Interrupted> for StorageError {
    fn from(_: Interrupted) -> Self {
        Self::Cancelled
    }
}

/// Counts the steps of one thread's selection, and asks now and then.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    interrupt: Option<&'a Interrupt>,
    steps: Cell<u32>,
}

impl<'a> Pace<'a> {
    /// One that asks `interrupt`, if there is one.
    pub(crate) fn new(interrupt: Option<&'a Interrupt>) -> Self {
        Self { interrupt, steps: Cell::new(0) }
    }

    /// One that always goes on.
    pub(crate) fn free() -> Self {
        Self::new(None)
    }

    /// A small step.
    pub(crate) fn step(&self) -> Result<(), Interrupted> {
        let steps = self.steps.get() + 1;
        self.steps.set(steps % STEPS);
        if steps == STEPS { self.look() } else { Ok(()) }
    }

    /// A step that may have been long.
    pub(crate) fn look(&self) -> Result<(), Interrupted> {
        let is_due = self.interrupt.is_some_and(Interrupt::is_due);
        if is_due { Err(Interrupted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn asks_now_and_then() {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let interrupt = Interrupt::new(move || counted.fetch_add(1, Ordering::Relaxed) == 2);
        let pace = Pace::new(Some(&interrupt));
        let taken = (0..1_000_000).take_while(|_| pace.step().is_ok()).count();
        assert_eq!((taken, asked.load(Ordering::Relaxed)), (3 * STEPS as usize - 1, 3));
        assert!((0..1_000_000).all(|_| Pace::free().step().is_ok()));
    }
}
