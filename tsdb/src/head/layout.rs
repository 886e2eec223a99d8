//! Layouts: what a row means. Slots name series; the state here is the writer's side of a [`History`].
//!
//! A slot is *fresh* until its series first gets a value from this layout and the layout *joins* it: from then on the
//! series' newest samples are in the history. A slot is *lost* for the rest of a window when its series is written by
//! anybody else; its values then go the way of single samples. While a slot is joined and not lost, its series has no
//! newer sample than the last row of the slot, which is why a row needs no look at its series.
//!
//! A row covers all slots or some neighbouring ones, and *goes on* when it is later than the last row of each of them. Planning a
//! row changes nothing but what the log is thought to have; applying it does.

use std::sync::Arc;

use model::sample::Timestamp;
use model::storage::ABSENT_BITS;
use parking_lot::Mutex;

use super::history::History;
use super::sealed::SealedWindow;
use super::series::{CommitMark, Stored};
use super::table::SeriesTable;
use super::window::{RowPart, SlotSet};
use crate::chunk::{CHUNK_SAMPLES_MAX, CHUNK_SPAN_MAX_MS};

/// Bytes that changed values of all open windows may take together, before they are closed earlier than they would be: half
/// of that on average. Long windows make few chunks, and a query reads those faster than many. Above 393 216 series the lower
/// bound of [`CHANGES_PER_SLOT`] wins, and they take up to 128 bytes each: 122 MiB with a million.
const OPEN_BYTES: usize = 48 << 20;
/// Bounds of changed values for each slot after which a window is closed: below the first, chunks cost more than they save.
pub(super) const CHANGES_PER_SLOT: std::ops::RangeInclusive<usize> = 16..=64;

/// Changed values for each slot after which windows are closed, with so many series in the head.
pub(crate) fn changes_per_slot(series: usize) -> usize {
    let share = OPEN_BYTES / (series.max(1) * size_of::<u64>());
    share.clamp(*CHANGES_PER_SLOT.start(), *CHANGES_PER_SLOT.end())
}

/// A layout.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) id: u64,
    pub(crate) state: Mutex<LayoutState>,
}

/// Its state, under the lock.
#[derive(Debug)]
pub(crate) struct LayoutState {
    /// Series by slot.
    pub(crate) slots: Vec<u32>,
    retired: SlotSet,
    joined: SlotSet,
    pub(crate) history: Arc<History>,
    /// The log segment that holds the layout's definition, and how many slots it defines.
    pub(crate) defined_in: Option<u64>,
    pub(crate) defined_slots: usize,
    /// Slots that have a row in that segment.
    logged: SlotSet,
    /// Sixteenths of a full window after which the first one is closed: layouts that begin together do not seal together.
    first_part: usize,
}

/// A row that is ready to be logged and applied.
#[derive(Debug)]
pub(crate) struct PlannedRow {
    pub(crate) layout: Arc<Layout>,
    pub(crate) t: Timestamp,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// The values of slots from `from` on.
    row: Arc<[u64]>,
    /// Whether `words` mark all values.
    pub(crate) full: bool,
    /// Marks the changed slots.
    pub(crate) words: Vec<u64>,
    /// Their values.
    pub(crate) values: Vec<u64>,
    /// Slots that get their first value.
    joins: Vec<u32>,
    /// Samples in the row.
    pub(crate) samples: u64,
}

impl Layout {
    /// A layout that goes on with a history, if that has rows.
    pub(crate) fn new(id: u64, history: Arc<History>) -> Self {
        let state = LayoutState {
            slots: Vec::new(),
            retired: SlotSet::default(),
            joined: SlotSet::default(),
            history,
            defined_in: None,
            defined_slots: 0,
            logged: SlotSet::default(),
            first_part: 4 + (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize * 3 / 4,
        };
        Self { id, state: Mutex::new(state) }
    }
}

impl LayoutState {
    pub(crate) fn push_slot(&mut self, series: u32) -> u32 {
        let slot = slot32(self.slots.len());
        self.slots.push(series);
        slot
    }

    pub(crate) fn retire(&mut self, slot: u32) -> Option<u32> {
        let series = *self.slots.get(slot as usize)?;
        if self.retired.contains(slot as usize) {
            return None;
        }
        self.retired.insert(slot as usize);
        Some(series)
    }

    pub(crate) fn is_retired(&self, slot: usize) -> bool {
        self.retired.contains(slot)
    }

    /// The newest row of some of `from..to`; `MIN`: none.
    pub(crate) fn newest(&self, from: u32, to: u32) -> Timestamp {
        self.history.inner.read().covered.newest(from, to)
    }

    /// The slots that a row of `len` values covers: see [`LayoutState::plan`]. Those beyond the end of a whole row are absent.
    pub(crate) fn covers(&self, from: Option<u32>, len: usize) -> (u32, u32) {
        let all = slot32(self.slots.len());
        let Some(from) = from else { return (0, all) };
        let end = from.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        (from, end.min(all).max(from))
    }

    /// Slots whose value can be taken without a look at their series, if time goes on: by word, from that of slot `from` on. A
    /// copy: no page may be locked under a history.
    pub(crate) fn sure(&self, from: u32, to: u32) -> Vec<u64> {
        let rows = self.history.inner.read();
        let words = from as usize / 64..(to as usize).div_ceil(64).max(from as usize / 64);
        let sure = |word| {
            let (joined, present) = (self.joined.word(word), rows.present.word(word));
            joined & present & !rows.lost.word(word) & !self.retired.word(word)
        };
        words.map(sure).collect()
    }

    /// Compares a row (already checked, refused samples absent) with what its slots had before. `from`: the first slot of a
    /// part; `None` for a whole row. `blind`: another row of the same commit comes before it, so that nothing is known of that.
    pub(crate) fn plan(
        &mut self,
        layout: &Arc<Layout>,
        t: Timestamp,
        from: Option<u32>,
        row: Arc<[u64]>,
        blind: bool,
    ) -> PlannedRow {
        let (from, to) = self.covers(from, row.len());
        let rows = self.history.inner.read();
        let full = blind || !self.logged.contains_range(from, to) || !rows.rows.has_started(from, to);
        let mut words = vec![0; RowPart::words_of(from, to)];
        let (mut values, mut joins) = (Vec::new(), Vec::new());
        let mut samples = 0;
        for (index, changed) in words.iter_mut().enumerate() {
            let word = from as usize / 64 + index;
            let (joined, first) = (self.joined.word(word), word * 64);
            for slot in first.max(from as usize)..(first + 64).min(to as usize) {
                let new = row.get(slot - from as usize).copied().unwrap_or(ABSENT_BITS);
                let there = new != ABSENT_BITS;
                if there {
                    samples += 1;
                    if joined >> (slot - first) & 1 == 0 {
                        joins.push(slot32(slot));
                    }
                }
                if blind || full && there || new != rows.current(slot) {
                    *changed |= 1 << (slot - first);
                    values.push(new);
                }
            }
        }
        drop(rows);
        self.logged.insert_range(from, to);
        PlannedRow { layout: Arc::clone(layout), t, from, to, row, full, words, values, joins, samples }
    }

    /// The log may not have what was planned last.
    pub(crate) fn forget_logged(&mut self) {
        self.defined_in = None;
        self.logged.clear();
    }

    /// Takes note that the layout is defined in the log segment `segment`. Answers the slots that are not there yet.
    pub(crate) fn define(&mut self, segment: u64) -> std::ops::Range<usize> {
        if self.defined_in != Some(segment) {
            self.defined_in = Some(segment);
            self.defined_slots = 0;
            self.logged.clear();
        }
        let defined = self.defined_slots..self.slots.len();
        self.defined_slots = self.slots.len();
        defined
    }

    /// Whether the window must be sealed before a row at `t`; `changes_max` is for each slot.
    pub(crate) fn must_seal(&self, t: Timestamp, changes_max: usize) -> bool {
        let state = self.history.inner.read();
        let rows = &state.rows;
        let Some((min_t, max_t)) = rows.range() else { return false };
        if !rows.has_room(self.slots.len().div_ceil(64), self.slots.len()) {
            return true;
        }
        // Parts of one time stay together.
        if t <= max_t {
            return false;
        }
        let part = if state.sealed.is_empty() { self.first_part } else { 16 };
        rows.turns() * 16 >= CHUNK_SAMPLES_MAX * part
            || rows.changes() * 16 >= changes_max * self.slots.len() * part && rows.turns() >= 8
            || t.saturating_sub(min_t) >= CHUNK_SPAN_MAX_MS
    }

    /// Turns the open rows into a sealed window, which they leave for a new one. Lost slots may join again. Under the commit
    /// lock.
    pub(crate) fn seal(&mut self, watermark: u64) -> Option<Arc<SealedWindow>> {
        let sealed = self.history.seal(self.slots.len(), watermark);
        for slot in std::mem::take(&mut self.history.inner.write().lost).iter() {
            self.joined.remove(slot);
        }
        sealed
    }

    /// Whether the layout is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.history.inner.read().closed
    }

    /// The layout is gone: its rows remain.
    pub(crate) fn close(&mut self) {
        self.history.inner.write().closed = true;
    }
}

impl PlannedRow {
    /// Makes the row part of the history. Joining and lost slots touch their series; the rest costs nothing. Answers the number
    /// of chunks closed.
    pub(crate) fn apply(&self, table: &SeriesTable, at: CommitMark, closed: &mut Vec<u32>) -> usize {
        let mut state = self.layout.state.lock();
        let history = Arc::clone(&state.history);
        for &slot in &self.joins {
            let series = state.slots[slot as usize];
            let joined = table.with_mut(series, |series| series.join(&history, slot, self.t));
            state.joined.insert(slot as usize);
            if joined != Some(true) {
                history.inner.write().lost.insert(slot as usize);
            }
        }
        let lost: Vec<usize> = {
            let mut rows = history.inner.write();
            rows.push(&RowPart {
                t: self.t,
                commit: at.commit,
                from: self.from,
                to: self.to,
                words: &self.words,
                values: &self.values,
            });
            // Those of the part: a layout of many parts has as many rows at a time.
            let words = self.from as usize / 64..(self.to as usize).div_ceil(64);
            let lost = |word: usize| {
                let bits = rows.lost.word(word);
                (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
            };
            if rows.lost.is_empty() { Vec::new() } else { words.flat_map(lost).collect() }
        };
        let mut chunks = 0;
        for slot in lost {
            let value = slot.checked_sub(self.from as usize).and_then(|index| self.row.get(index));
            let Some(&bits) = value.filter(|bits| **bits != ABSENT_BITS) else { continue };
            let id = state.slots[slot];
            let added = table.with_mut(id, |series| series.add(self.t, Stored::Float(bits), 0, at));
            if let Some(added) = added.filter(|added| added.chunks > 0) {
                chunks += added.chunks;
                closed.push(id);
            }
        }
        chunks
    }
}

fn slot32(slot: usize) -> u32 {
    u32::try_from(slot).expect("slots are numbered by u32")
}
