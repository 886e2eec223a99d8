//! The open rows of a layout: per row a time, a bitmap of the slots whose value changed, and the changed values.
//!
//! A slot's value in a row is the last one written for it in this or an earlier row of the window; before its first
//! write, and after a write of [`ABSENT_BITS`], the slot has no sample. The first row of a window is written whole, so
//! a window can be read alone. Readers find a slot's values with one rank per row.
//!
//! A window is filled until it is sealed into chunks; then its series point to the next one. Readers that still hold the
//! sealed one go on reading it unchanged.

use model::sample::Timestamp;
use model::storage::ABSENT_BITS;
use parking_lot::RwLock;

use super::view::Steps;

/// A window under its lock.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) inner: RwLock<Rows>,
}

/// The rows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    heads: Vec<RowHead>,
    words: Vec<u64>,
    values: Vec<u64>,
    /// Slots whose series are written on the other road by now: what rows say about them is not theirs.
    lost: SlotSet,
    pub(crate) steps: Steps,
}

#[derive(Clone, Copy, Debug)]
struct RowHead {
    t: Timestamp,
    words_at: u32,
    words_len: u32,
    values_at: u32,
}

/// A growing set of slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    pub(crate) fn contains(&self, slot: usize) -> bool {
        self.words.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let marked = (0..64).filter(move |bit| word >> bit & 1 == 1);
            marked.map(move |bit| index * 64 + bit)
        })
    }

    pub(crate) fn insert(&mut self, slot: usize) {
        if slot / 64 >= self.words.len() {
            self.words.resize(slot / 64 + 1, 0);
        }
        self.words[slot / 64] |= 1 << (slot % 64);
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(word) = self.words.get_mut(slot / 64) {
            *word &= !(1 << (slot % 64));
        }
    }
}

impl Rows {
    /// Rows that continue after a sealed window.
    pub(crate) fn after(sealed: &Self, watermark: u64) -> Self {
        let mut steps = sealed.steps.clone();
        steps.prune(watermark);
        Self { steps, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    pub(crate) fn first_t(&self) -> Option<Timestamp> {
        self.heads.first().map(|head| head.t)
    }

    pub(crate) fn last_t(&self) -> Option<Timestamp> {
        self.heads.last().map(|head| head.t)
    }

    /// Appends a row: `words` marks the changed slots, `values` has theirs in order.
    pub(crate) fn push(&mut self, t: Timestamp, words: &[u64], values: &[u64], commit: u64, watermark: u64) {
        self.steps.note(commit, t, watermark);
        self.heads.push(RowHead {
            t,
            words_at: index32(self.words.len()),
            words_len: index32(words.len()),
            values_at: index32(self.values.len()),
        });
        self.words.extend_from_slice(words);
        self.values.extend_from_slice(values);
    }

    /// Whether another row of `words` and `values` fits the 32-bit indexes.
    pub(crate) fn has_room(&self, words: usize, values: usize) -> bool {
        self.words.len() + words < u32::MAX as usize && self.values.len() + values < u32::MAX as usize
    }

    pub(crate) fn is_lost(&self, slot: usize) -> bool {
        self.lost.contains(slot)
    }

    pub(crate) fn lost(&self) -> SlotSet {
        self.lost.clone()
    }

    pub(crate) fn lost_slots(&self) -> impl Iterator<Item = usize> + '_ {
        self.lost.iter()
    }

    pub(crate) fn set_lost(&mut self, slot: u32) {
        self.lost.insert(slot as usize);
    }

    fn change(&self, head: RowHead, slot: usize) -> Option<u64> {
        let words = &self.words[head.words_at as usize..][..head.words_len as usize];
        let word = *words.get(slot / 64)?;
        let bit = 1u64 << (slot % 64);
        if word & bit == 0 {
            return None;
        }
        let before: u32 = words[..slot / 64].iter().map(|word| word.count_ones()).sum();
        let rank = before + (word & (bit - 1)).count_ones();
        Some(self.values[head.values_at as usize + rank as usize])
    }

    /// Hands the samples of one slot to `take`, in order of time.
    pub(crate) fn slot(&self, slot: u32, mut take: impl FnMut(Timestamp, u64)) {
        let mut value = ABSENT_BITS;
        for head in &self.heads {
            if let Some(changed) = self.change(*head, slot as usize) {
                value = changed;
            }
            if value != ABSENT_BITS {
                take(head.t, value);
            }
        }
    }

    /// The newest sample of one slot.
    pub(crate) fn latest(&self, slot: u32) -> Option<(Timestamp, u64)> {
        // Backwards to the last change; rows after it repeat it.
        for (index, head) in self.heads.iter().enumerate().rev() {
            match self.change(*head, slot as usize) {
                None => {}
                Some(ABSENT_BITS) if index == 0 => return None,
                Some(ABSENT_BITS) => {
                    let mut latest = None;
                    self.slot(slot, |t, value| latest = Some((t, value)));
                    return latest;
                }
                Some(value) => return self.last_t().map(|t| (t, value)),
            }
        }
        None
    }

    /// The times of all rows.
    pub(crate) fn times(&self) -> Box<[Timestamp]> {
        self.heads.iter().map(|head| head.t).collect()
    }

    /// Hands every slot below `slots` that has a sample to `take`: a value per row, and whether it counts.
    pub(crate) fn for_each_column(&self, slots: usize, mut take: impl FnMut(u32, &[u64], &[bool])) {
        let rows = self.heads.len();
        let mut columns = vec![ABSENT_BITS; 64 * rows];
        let mut present = vec![false; rows];
        let mut cursors: Vec<usize> = self.heads.iter().map(|head| head.values_at as usize).collect();
        for word_index in 0..slots.div_ceil(64) {
            let mut current = [ABSENT_BITS; 64];
            for (row, head) in self.heads.iter().enumerate() {
                if word_index < head.words_len as usize {
                    let mut word = self.words[head.words_at as usize + word_index];
                    while word != 0 {
                        current[word.trailing_zeros() as usize] = self.values[cursors[row]];
                        cursors[row] += 1;
                        word &= word - 1;
                    }
                }
                for (bit, value) in current.iter().enumerate() {
                    columns[bit * rows + row] = *value;
                }
            }
            for bit in 0..64.min(slots - word_index * 64) {
                let values = &columns[bit * rows..][..rows];
                let mut any = false;
                for (present, value) in present.iter_mut().zip(values) {
                    *present = *value != ABSENT_BITS;
                    any |= *present;
                }
                if any {
                    take(index32(word_index * 64 + bit), values, &present);
                }
            }
        }
    }
}

fn index32(index: usize) -> u32 {
    u32::try_from(index).expect("a window has far less than 2^32 words: has_room is asked first")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Reading by slot, by column and the newest sample agree with plain rows.
        #[test]
        fn reads_what_was_written(
            rows in prop::collection::vec(prop::collection::vec(prop_oneof![Just(ABSENT_BITS), 0u64..3], 1..150), 1..20),
        ) {
            let slots = rows.iter().map(Vec::len).max().unwrap();
            let mut window = Rows::default();
            let mut current = vec![ABSENT_BITS; slots];
            let mut want: Vec<Vec<(i64, u64)>> = vec![Vec::new(); slots];
            for (t, row) in (0i64..).zip(&rows) {
                let mut words = vec![0u64; slots.div_ceil(64)];
                let mut values = Vec::new();
                for slot in 0..slots {
                    let value = row.get(slot).copied().unwrap_or(ABSENT_BITS);
                    if value != current[slot] {
                        words[slot / 64] |= 1 << (slot % 64);
                        values.push(value);
                        current[slot] = value;
                    }
                    if value != ABSENT_BITS {
                        want[slot].push((t, value));
                    }
                }
                window.push(t, &words, &values, 1, 1);
            }
            for (slot, want) in (0u32..).zip(&want) {
                let mut got = Vec::new();
                window.slot(slot, |t, v| got.push((t, v)));
                prop_assert_eq!(&got, want);
                prop_assert_eq!(window.latest(slot), want.last().copied());
            }
            let mut columns = vec![Vec::new(); slots];
            let times = window.times();
            window.for_each_column(slots, |slot, values, present| {
                columns[slot as usize] =
                    (0..times.len()).filter(|r| present[*r]).map(|r| (times[r], values[r])).collect();
            });
            prop_assert_eq!(columns, want);
        }
    }
}
