//! Layouts: what a row means. Slots name series; the state here is the writer's side of a [`Window`].
//!
//! A slot is *fresh* until its series first gets a value from this layout and the layout *joins* it: from then on the
//! series' newest samples are in the window. A slot is *lost* for the rest of a window when its series is written by
//! anybody else; its values then go the way of single samples. While a slot is joined and not lost, its series has no
//! newer sample than the layout's last row, which is why a row needs no look at its series.

use std::sync::Arc;

use model::sample::Timestamp;
use model::storage::ABSENT_BITS;
use parking_lot::Mutex;

use super::series::{CommitMark, Series, Stored};
use super::table::SeriesTable;
use super::window::{Rows, SlotSet, Window};
use crate::chunk::{CHUNK_SAMPLES_MAX, CHUNK_SPAN_MAX_MS, Chunk, TimeColumn};

/// Below this many slots a shared column of times costs more than times in each chunk.
const SHARED_TIMES_SLOTS_MIN: usize = 32;

/// A layout.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) id: u64,
    pub(crate) state: Mutex<LayoutState>,
}

/// Its state, under the lock.
#[derive(Debug, Default)]
pub(crate) struct LayoutState {
    /// Series by slot.
    pub(crate) slots: Vec<u32>,
    retired: SlotSet,
    joined: SlotSet,
    /// The last row.
    pub(crate) current: Vec<u64>,
    pub(crate) window: Arc<Window>,
    pub(crate) last_t: Option<Timestamp>,
    /// The log segment that holds the layout's definition, and how many slots it defines.
    pub(crate) defined_in: Option<u64>,
    pub(crate) defined_slots: usize,
}

/// A row that is ready to be logged and applied: its difference to the row before, already noted in the state.
#[derive(Debug)]
pub(crate) struct PlannedRow {
    pub(crate) layout: Arc<Layout>,
    pub(crate) t: Timestamp,
    /// The values by slot.
    row: Arc<[u64]>,
    /// Marks the changed slots.
    pub(crate) words: Vec<u64>,
    /// Their values.
    pub(crate) values: Vec<u64>,
    /// Their values before, to undo.
    old: Vec<u64>,
    old_t: Option<Timestamp>,
    /// Slots that get their first value.
    joins: Vec<u32>,
    /// Samples in the row.
    pub(crate) samples: u64,
}

impl LayoutState {
    pub(crate) fn push_slot(&mut self, series: u32) -> u32 {
        let slot = slot32(self.slots.len());
        self.slots.push(series);
        self.current.push(ABSENT_BITS);
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

    /// Whether the slot's value can be taken without a look at its series, if time goes on.
    pub(crate) fn is_sure(&self, lost: &SlotSet, slot: usize) -> bool {
        self.current[slot] != ABSENT_BITS && self.joined.contains(slot) && !lost.contains(slot)
    }

    /// Slots that the window has lost. A copy: no page may be locked under a window.
    pub(crate) fn lost(&self) -> SlotSet {
        self.window.inner.read().lost()
    }

    /// Compares a row (already checked, refused samples absent) with the one before and takes note of it.
    pub(crate) fn plan(
        &mut self,
        layout: &Arc<Layout>,
        t: Timestamp,
        row: Arc<[u64]>,
        full: bool,
    ) -> PlannedRow {
        let mut words = vec![0; self.slots.len().div_ceil(64)];
        let (mut values, mut old, mut joins) = (Vec::new(), Vec::new(), Vec::new());
        let mut samples = 0;
        // Slots beyond the end of the row are absent.
        let new = row.iter().copied().chain(std::iter::repeat(ABSENT_BITS));
        for (slot, (current, new)) in self.current.iter_mut().zip(new).enumerate() {
            samples += u64::from(new != ABSENT_BITS);
            if new != ABSENT_BITS && !self.joined.contains(slot) {
                joins.push(slot32(slot));
                self.joined.insert(slot);
            }
            if new != *current || full && new != ABSENT_BITS {
                words[slot / 64] |= 1 << (slot % 64);
                values.push(new);
                old.push(*current);
                *current = new;
            }
        }
        let old_t = self.last_t.replace(t);
        PlannedRow { layout: Arc::clone(layout), t, row, words, values, old, old_t, joins, samples }
    }

    /// Takes back the newest plan, which was not applied.
    pub(crate) fn undo(&mut self, plan: &PlannedRow) {
        let mut old = plan.old.iter();
        for (index, word) in plan.words.iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                if let Some(old) = old.next() {
                    self.current[slot] = *old;
                }
                word &= word - 1;
            }
        }
        for slot in &plan.joins {
            self.joined.remove(*slot as usize);
        }
        self.last_t = plan.old_t;
        self.defined_in = None;
    }

    /// Whether the window must be sealed before a row at `t`.
    pub(crate) fn must_seal(&self, t: Timestamp) -> bool {
        let rows = self.window.inner.read();
        rows.len() >= CHUNK_SAMPLES_MAX
            || rows.first_t().is_some_and(|first| t.saturating_sub(first) >= CHUNK_SPAN_MAX_MS)
            || !rows.has_room(self.slots.len().div_ceil(64), self.slots.len())
    }

    /// Turns the window into a chunk for each of its series; these go on in a new window, or in none when the layout is
    /// `closing`. Answers the number of chunks.
    pub(crate) fn seal(&mut self, table: &SeriesTable, watermark: u64, closing: bool) -> usize {
        let old = Arc::clone(&self.window);
        let rows = old.inner.read();
        let next = Arc::new(Window { inner: Rows::after(&rows, watermark).into() });
        let times = Arc::new(TimeColumn { times: rows.times() });
        let shared = self.slots.len() >= SHARED_TIMES_SLOTS_MIN;
        let mut chunks: Vec<Option<(Chunk, Timestamp, u64)>> = Vec::new();
        chunks.resize_with(self.slots.len(), || None);
        rows.for_each_column(self.slots.len(), |slot, values, present| {
            let Some(last) = present.iter().rposition(|present| *present) else { return };
            let chunk = if shared {
                Chunk::of_rows(&times, values, Some(present))
            } else {
                let samples = times.times.iter().zip(values).zip(present).filter(|(_, present)| **present);
                Chunk::of_samples(&samples.map(|((t, value), _)| (*t, *value)).collect::<Vec<_>>())
            };
            chunks[slot as usize] = chunk.map(|chunk| (chunk, times.times[last], values[last]));
        });
        let hidden = rows.steps.hidden_from(watermark).is_some();
        let steps = rows.steps.clone();
        drop(rows);
        let mut made = 0;
        for (slot, (series, chunk)) in self.slots.iter().zip(chunks).enumerate() {
            if !self.joined.contains(slot) {
                continue;
            }
            if old.inner.read().is_lost(slot) {
                // It may join again with the next window.
                self.joined.remove(slot);
                continue;
            }
            let keep = !closing && !self.retired.contains(slot);
            table.with_mut(*series, |series: &mut Series| {
                if !series.window.as_ref().is_some_and(|window| Arc::ptr_eq(window, &old)) {
                    return;
                }
                if let Some((chunk, t, bits)) = chunk {
                    series.set_last(t, &Stored::Float(bits));
                    series.push_chunk(chunk);
                    made += 1;
                }
                series.window = keep.then(|| Arc::clone(&next));
                if !keep && hidden {
                    series.open.get_or_insert_default().steps.merge(&steps, watermark);
                }
            });
        }
        self.window = next;
        made
    }
}

impl PlannedRow {
    /// Makes the row part of the window. Joining and lost slots touch their series; the rest costs nothing.
    pub(crate) fn apply(&self, table: &SeriesTable, at: CommitMark) -> usize {
        let state = self.layout.state.lock();
        let window = &state.window;
        let hides_from = window.inner.read().steps.hidden_from(at.watermark).unwrap_or(self.t).min(self.t);
        let mut chunks = 0;
        for &slot in &self.joins {
            let joined = table.with_mut(state.slots[slot as usize], |series| {
                chunks += usize::from(series.detach(at.watermark));
                // Steps of the window must not hide samples that the series has already, and none of them may be newer
                // than the row.
                let joins = series.last_outside_window().is_none_or(|(t, _)| t < hides_from);
                if joins {
                    chunks += series.seal_open();
                    series.drop_settled_open(at.watermark);
                    series.window = Some(Arc::clone(window));
                    series.slot = slot;
                    series.min_t = series.min_t.min(self.t);
                    series.touch();
                }
                joins
            });
            if joined != Some(true) {
                window.inner.write().set_lost(slot);
            }
        }
        let lost: Vec<usize> = window.inner.read().lost_slots().collect();
        for slot in lost {
            let Some(&bits) = self.row.get(slot).filter(|bits| **bits != ABSENT_BITS) else { continue };
            let series = state.slots[slot];
            chunks +=
                table.with_mut(series, |series| series.add(self.t, Stored::Float(bits), 0, at)).unwrap_or(0);
        }
        window.inner.write().push(self.t, &self.words, &self.values, at.commit, at.watermark);
        chunks
    }
}

fn slot32(slot: usize) -> u32 {
    u32::try_from(slot).expect("slots are numbered by u32")
}
