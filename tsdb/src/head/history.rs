//! All rows that a layout has written: sealed windows, then the open one.
//!
//! A history is shared by the layout and by the series that the layout writes; a series names its place by history and slot,
//! and keeps that when the layout has gone. Sealing touches no series. What the rows say about a slot is true of the slot's
//! series as long as the series names it; after the series was written by others (the slot is *lost* then) rows repeat samples
//! that are stored with the series as well, which readers merge away.

use std::sync::Arc;

use hashbrown::HashMap;
use model::sample::{TimeRange, Timestamp};
use model::storage::{ABSENT_BITS, StorageError};
use parking_lot::RwLock;

use super::sealed::SealedWindow;
use super::window::{Coverage, RowPart, Rows, SlotSet};
use crate::head_chunks::FilePosition;

/// The rows of a layout.
#[derive(Debug)]
pub(crate) struct History {
    /// That of the layout it began with.
    pub(crate) id: u64,
    pub(crate) inner: RwLock<HistoryState>,
}

/// The rows, under the lock. Only commits and upkeep under the commit lock change it, but for the places of sealed windows.
#[derive(Debug, Default)]
pub(crate) struct HistoryState {
    /// Oldest first.
    pub(crate) sealed: Vec<Arc<SealedWindow>>,
    pub(crate) rows: Rows,
    /// The newest value of each slot.
    pub(crate) current: Vec<u64>,
    /// Slots whose `current` is a value.
    pub(crate) present: SlotSet,
    /// The newest row of each slot.
    pub(crate) covered: Coverage,
    /// The newest samples of slots that are absent now.
    pub(crate) gone: HashMap<u32, (Timestamp, u64)>,
    /// Slots whose series are written by others by now.
    pub(crate) lost: SlotSet,
    /// The layout is gone.
    pub(crate) closed: bool,
}

impl History {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, inner: RwLock::default() }
    }

    /// Turns the open rows into a sealed window of `slots` slots. Under the commit lock, or where no layout is.
    pub(crate) fn seal(&self, slots: usize, watermark: u64) -> Option<Arc<SealedWindow>> {
        let sealed = {
            // Readers go on meanwhile, and nobody writes.
            let state = self.inner.read();
            SealedWindow::of(&state.rows, slots, watermark).map(Arc::new)
        };
        let mut state = self.inner.write();
        state.rows = Rows::default();
        state.sealed.extend(sealed.clone());
        sealed
    }

    /// The value of `slot` at `t`; windows that are in files before `from` are not looked at.
    ///
    /// # Errors
    /// When a window cannot be read.
    pub(crate) fn value_behind(
        &self,
        from: FilePosition,
        slot: u32,
        t: Timestamp,
    ) -> Result<Option<u64>, StorageError> {
        let mut found = None;
        let sealed = {
            let state = self.inner.read();
            if state.rows.range().is_some_and(|(min, max)| min <= t && t <= max) {
                state.rows.slot(slot, u64::MAX, |sample, bits| {
                    if sample == t {
                        found = Some(bits);
                    }
                });
            }
            if found.is_some() {
                return Ok(found);
            }
            let at = TimeRange::new(t, t);
            let within =
                state.sealed.iter().filter(|window| window.range().overlaps(&at) && !window.is_before(from));
            within.cloned().collect::<Vec<_>>()
        };
        for window in sealed {
            if let Some(bits) = window.value_at(slot, t)? {
                return Ok(Some(bits));
            }
        }
        Ok(None)
    }

    /// The newest sample of `slot`.
    pub(crate) fn latest(&self, slot: u32) -> Option<(Timestamp, u64)> {
        self.inner.read().latest(slot)
    }

    /// Drops windows that end before `floor`. Answers how many chunks.
    pub(crate) fn trim(&self, floor: Timestamp) -> usize {
        let ends = self.inner.read().sealed.first().is_some_and(|window| window.max_t < floor);
        let mut dropped = 0;
        if ends || self.inner.read().gone.values().any(|last| last.0 < floor) {
            let mut state = self.inner.write();
            state.sealed.retain(|window| {
                let keep = window.max_t >= floor;
                dropped += if keep { 0 } else { window.chunks() };
                keep
            });
            state.gone.retain(|_, last| last.0 >= floor);
            state.gone.shrink_to_fit();
        }
        dropped
    }

    /// Puts a window in another place.
    pub(crate) fn replace(&self, old: &Arc<SealedWindow>, new: SealedWindow) {
        let mut state = self.inner.write();
        if let Some(window) = state.sealed.iter_mut().find(|window| Arc::ptr_eq(window, old)) {
            *window = Arc::new(new);
        }
    }
}

impl HistoryState {
    /// The newest sample of `slot`.
    pub(crate) fn latest(&self, slot: u32) -> Option<(Timestamp, u64)> {
        if self.present.contains(slot as usize) {
            return Some((self.covered.at(slot), self.current[slot as usize]));
        }
        self.gone.get(&slot).copied()
    }

    /// The value of `slot` in its newest row.
    pub(crate) fn current(&self, slot: usize) -> u64 {
        self.current.get(slot).copied().unwrap_or(ABSENT_BITS)
    }

    /// From the first to the last time.
    pub(crate) fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let sealed = self.sealed.iter().map(|window| (window.min_t, window.max_t));
        sealed.chain(self.rows.range()).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Appends a row, which is later than all rows of its slots.
    pub(crate) fn push(&mut self, row: &RowPart<'_>) {
        if row.to as usize > self.current.len() {
            // Layouts grow by little: doubling would waste memory for ever.
            let more = row.to as usize - self.current.len();
            self.current.reserve_exact(more);
            self.current.resize(row.to as usize, ABSENT_BITS);
        }
        for (slot, new) in row.changes() {
            let old = std::mem::replace(&mut self.current[slot as usize], new);
            if old == new {
                continue;
            }
            if new == ABSENT_BITS {
                self.gone.insert(slot, (self.covered.at(slot), old));
                self.present.remove(slot as usize);
            } else if old == ABSENT_BITS {
                self.present.insert(slot as usize);
                if !self.gone.is_empty() {
                    self.gone.remove(&slot);
                }
            }
        }
        self.covered.set(row.from, row.to, row.t);
        self.rows.push(row);
    }
}
