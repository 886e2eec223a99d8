//! The open rows of a layout: per row a time, the slots it covers, a bitmap of those whose value changed, and the changed
//! values.
//!
//! A slot's value in a row that covers it is the last one written for it in this or an earlier row of the window; before its
//! first write, and after a write of [`ABSENT_BITS`], the slot has no sample. The first row of a window that covers a slot
//! has its value, so a window can be read alone. Readers find a slot's values with one rank per row.
//!
//! A row is whole or a part: it covers slots from one to another. Times ascend for each slot, and not otherwise: parts may
//! come from several senders. Each row carries the number of its commit, which ascends, so that a view reads up to its own.

use model::sample::Timestamp;
use model::storage::ABSENT_BITS;

/// The rows.
#[derive(Debug)]
pub(crate) struct Rows {
    heads: Vec<RowHead>,
    words: Vec<u64>,
    values: Vec<u64>,
    /// Slots that some row covers.
    started: SlotSet,
    min_t: Timestamp,
    max_t: Timestamp,
    /// How often time went on: about the number of different times.
    turns: usize,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            heads: Vec::new(),
            words: Vec::new(),
            values: Vec::new(),
            started: SlotSet::default(),
            min_t: Timestamp::MAX,
            max_t: Timestamp::MIN,
            turns: 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct RowHead {
    t: Timestamp,
    commit: u64,
    words_at: u32,
    values_at: u32,
    from: u32,
    to: u32,
}

/// A row of slots `from..to`: `words` marks the changed ones, the first word being that of slot `from`; `values` has theirs
/// in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowPart<'a> {
    pub(crate) t: Timestamp,
    pub(crate) commit: u64,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) words: &'a [u64],
    pub(crate) values: &'a [u64],
}

impl<'a> RowPart<'a> {
    /// Number of words for these slots.
    pub(crate) fn words_of(from: u32, to: u32) -> usize {
        if from >= to { 0 } else { (to.div_ceil(64) - from / 64) as usize }
    }

    /// The changed slots and their values.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (u32, u64)> + use<'a> {
        let base = self.from / 64 * 64;
        let mut values = self.values.iter();
        let slots = (0u32..).zip(self.words).flat_map(move |(index, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(base + index * 64 + bit)
            })
        });
        slots.map_while(move |slot| values.next().map(|value| (slot, *value)))
    }
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

    pub(crate) fn clear(&mut self) {
        self.words.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Number of slots.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The 64 slots from `index` · 64 on.
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// The words that `from..to` touches, and which of their bits do.
    fn masks(from: u32, to: u32) -> impl Iterator<Item = (usize, u64)> {
        let words = from / 64..if from < to { to.div_ceil(64) } else { from / 64 };
        words.map(move |word| {
            let low = if word == from / 64 { from % 64 } else { 0 };
            let high = if word == to / 64 { to % 64 } else { 64 };
            let below = |bits: u32| if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            (word as usize, below(high) & !below(low))
        })
    }

    pub(crate) fn contains_range(&self, from: u32, to: u32) -> bool {
        Self::masks(from, to).all(|(word, mask)| self.word(word) & mask == mask)
    }

    pub(crate) fn insert_range(&mut self, from: u32, to: u32) {
        if from < to && (to as usize).div_ceil(64) > self.words.len() {
            self.words.resize((to as usize).div_ceil(64), 0);
        }
        for (word, mask) in Self::masks(from, to) {
            self.words[word] |= mask;
        }
    }
}

/// The time of the newest row of each slot, as runs of slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    /// (first slot, time), by slot; `MIN`: never. The last run goes on for ever.
    runs: Vec<(u32, Timestamp)>,
}

impl Coverage {
    fn run(&self, slot: u32) -> usize {
        self.runs.partition_point(|run| run.0 <= slot)
    }

    /// The newest row that covers `slot`; `MIN`: none.
    pub(crate) fn at(&self, slot: u32) -> Timestamp {
        self.run(slot).checked_sub(1).map_or(Timestamp::MIN, |index| self.runs[index].1)
    }

    /// The newest row that covers some of `from..to`; `MIN`: none.
    pub(crate) fn newest(&self, from: u32, to: u32) -> Timestamp {
        let rest = self.runs[self.run(from)..].iter().take_while(|run| run.0 < to);
        rest.map(|run| run.1).fold(self.at(from), Timestamp::max)
    }

    /// The newest row of all.
    pub(crate) fn max(&self) -> Timestamp {
        self.runs.iter().map(|run| run.1).max().unwrap_or(Timestamp::MIN)
    }

    /// Takes note of a row.
    pub(crate) fn set(&mut self, from: u32, to: u32, t: Timestamp) {
        if from >= to {
            return;
        }
        let after = self.at(to);
        let (first, last) = (self.runs.partition_point(|run| run.0 < from), self.run(to));
        let before = first.checked_sub(1).map_or(Timestamp::MIN, |index| self.runs[index].1);
        let new = [(before != t).then_some((from, t)), (after != t).then_some((to, after))];
        self.runs.splice(first..last, new.into_iter().flatten());
    }

    pub(crate) fn runs(&self) -> &[(u32, Timestamp)] {
        &self.runs
    }

    /// From runs, of which nothing is believed but that they are sorted.
    pub(crate) fn of_runs(mut runs: Vec<(u32, Timestamp)>) -> Self {
        runs.sort_by_key(|run| run.0);
        runs.dedup_by_key(|run| run.0);
        Self { runs }
    }
}

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// From the first to the last time; `None` without rows.
    pub(crate) fn range(&self) -> Option<(Timestamp, Timestamp)> {
        (!self.is_empty()).then_some((self.min_t, self.max_t))
    }

    /// About the number of different times.
    pub(crate) fn turns(&self) -> usize {
        self.turns
    }

    /// Number of changed values.
    pub(crate) fn changes(&self) -> usize {
        self.values.len()
    }

    /// Whether rows cover all of `from..to`.
    pub(crate) fn has_started(&self, from: u32, to: u32) -> bool {
        self.started.contains_range(from, to)
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, row: &RowPart<'_>) {
        self.started.insert_range(row.from, row.to);
        self.turns += usize::from(row.t > self.max_t || self.heads.is_empty());
        self.min_t = self.min_t.min(row.t);
        self.max_t = self.max_t.max(row.t);
        self.heads.push(RowHead {
            t: row.t,
            commit: row.commit,
            words_at: index32(self.words.len()),
            values_at: index32(self.values.len()),
            from: row.from,
            to: row.to,
        });
        grow(&mut self.words, row.words.len());
        self.words.extend_from_slice(row.words);
        grow(&mut self.values, row.values.len());
        self.values.extend_from_slice(row.values);
    }

    /// Whether another row of `words` and `values` fits the 32-bit indexes.
    pub(crate) fn has_room(&self, words: usize, values: usize) -> bool {
        self.words.len() + words < u32::MAX as usize && self.values.len() + values < u32::MAX as usize
    }

    fn part(&self, index: usize) -> RowPart<'_> {
        let head = self.heads[index];
        let next = self.heads.get(index + 1);
        let words_end = next.map_or(self.words.len(), |next| next.words_at as usize);
        let values_end = next.map_or(self.values.len(), |next| next.values_at as usize);
        RowPart {
            t: head.t,
            commit: head.commit,
            from: head.from,
            to: head.to,
            words: &self.words[head.words_at as usize..words_end],
            values: &self.values[head.values_at as usize..values_end],
        }
    }

    /// All rows in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = RowPart<'_>> {
        (0..self.heads.len()).map(|index| self.part(index))
    }

    fn change(&self, head: RowHead, slot: u32) -> Option<u64> {
        let index = (slot / 64 - head.from / 64) as usize;
        let words = &self.words[head.words_at as usize..][..=index];
        let bit = 1u64 << (slot % 64);
        if words[index] & bit == 0 {
            return None;
        }
        let before: u32 = words[..index].iter().map(|word| word.count_ones()).sum();
        let rank = before + (words[index] & (bit - 1)).count_ones();
        Some(self.values[head.values_at as usize + rank as usize])
    }

    /// Hands the samples of one slot of commits up to `commit` to `take`, in order of time.
    pub(crate) fn slot(&self, slot: u32, commit: u64, mut take: impl FnMut(Timestamp, u64)) {
        let mut value = ABSENT_BITS;
        for head in self.heads.iter().take_while(|head| head.commit <= commit) {
            if slot < head.from || slot >= head.to {
                continue;
            }
            if let Some(changed) = self.change(*head, slot) {
                value = changed;
            }
            if value != ABSENT_BITS {
                take(head.t, value);
            }
        }
    }

    /// The different times, ascending, and for each row which of them is its own.
    pub(crate) fn times(&self) -> (Vec<Timestamp>, Vec<usize>) {
        let mut times: Vec<Timestamp> = self.heads.iter().map(|head| head.t).collect();
        if !times.is_sorted() {
            times.sort_unstable();
        }
        times.dedup();
        let place = |head: &RowHead| times.partition_point(|t| *t < head.t);
        let places = self.heads.iter().map(place).collect();
        (times, places)
    }

    /// Hands every slot below `slots` to `take`, in order: a value per time of [`Rows::times`], [`ABSENT_BITS`] where there is
    /// none. Slots of which no row of their 64 has anything come as empty.
    pub(crate) fn for_each_column(
        &self,
        slots: usize,
        times: usize,
        places: &[usize],
        mut take: impl FnMut(usize, &[u64]),
    ) {
        let mut columns = vec![ABSENT_BITS; 64 * times];
        let mut cursors: Vec<usize> = self.heads.iter().map(|head| head.values_at as usize).collect();
        for word_index in 0..slots.div_ceil(64) {
            columns.fill(ABSENT_BITS);
            let mut current = [ABSENT_BITS; 64];
            let mut any = false;
            for (row, head) in self.heads.iter().enumerate() {
                let (first, end) = ((head.from / 64) as usize, (head.to as usize).div_ceil(64));
                if word_index < first || word_index >= end {
                    continue;
                }
                let mut word = self.words[head.words_at as usize + word_index - first];
                any |= word != 0;
                while word != 0 {
                    current[word.trailing_zeros() as usize] = self.values[cursors[row]];
                    cursors[row] += 1;
                    word &= word - 1;
                }
                let low = if word_index == first { head.from as usize % 64 } else { 0 };
                let high = (head.to as usize - word_index * 64).min(64);
                for (bit, value) in current.iter().enumerate().take(high).skip(low) {
                    columns[bit * times + places[row]] = *value;
                }
            }
            for bit in 0..64.min(slots - word_index * 64) {
                let column = if any { &columns[bit * times..][..times] } else { &[] };
                take(word_index * 64 + bit, column);
            }
        }
    }

    /// Rows of commits behind `commit`.
    pub(crate) fn behind(&self, commit: u64) -> impl Iterator<Item = RowPart<'_>> {
        let first = self.heads.partition_point(|head| head.commit <= commit);
        (first..self.heads.len()).map(|index| self.part(index))
    }
}

/// Makes room by quarters: doubling would leave a quarter of all open rows unused on average, and half at worst.
fn grow(column: &mut Vec<u64>, extra: usize) {
    if column.capacity() - column.len() < extra {
        column.reserve_exact(extra.max(column.len() / 4));
    }
}

fn index32(index: usize) -> u32 {
    u32::try_from(index).expect("a window has far less than 2^32 words: has_room is asked first")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The difference of a row to the values before: what a layout does.
    fn push(rows: &mut Rows, current: &mut Vec<u64>, t: i64, from: u32, row: &[u64]) {
        let to = from + row.len() as u32;
        current.resize(current.len().max(to as usize), ABSENT_BITS);
        let mut words = vec![0u64; RowPart::words_of(from, to)];
        let mut values = Vec::new();
        for (slot, value) in (from as usize..).zip(row) {
            let first = !rows.started.contains(slot) && *value != ABSENT_BITS;
            if *value != current[slot] || first {
                words[slot / 64 - from as usize / 64] |= 1 << (slot % 64);
                values.push(*value);
                current[slot] = *value;
            }
        }
        rows.push(&RowPart { t, commit: t.cast_unsigned(), from, to, words: &words, values: &values });
    }

    proptest! {
        /// Reading by slot, by commit and by column agrees with plain rows.
        #[test]
        fn reads_what_was_written(
            rows in prop::collection::vec(
                (0u32..100, prop::collection::vec(prop_oneof![Just(ABSENT_BITS), 0u64..3], 1..150)), 1..20),
            upto in 0u64..20,
        ) {
            let slots = rows.iter().map(|(from, row)| *from as usize + row.len()).max().unwrap();
            let mut window = Rows::default();
            let mut current = Vec::new();
            let mut want: Vec<Vec<(i64, u64)>> = vec![Vec::new(); slots];
            for (t, (from, row)) in (0i64..).zip(&rows) {
                push(&mut window, &mut current, t, *from, row);
                for (slot, value) in (*from as usize..).zip(row).filter(|(_, value)| **value != ABSENT_BITS) {
                    want[slot].push((t, *value));
                }
            }
            for (slot, want) in (0u32..).zip(&want) {
                let mut got = Vec::new();
                window.slot(slot, u64::MAX, |t, v| got.push((t, v)));
                prop_assert_eq!(&got, want);
                got.retain(|sample| sample.0.cast_unsigned() <= upto);
                let mut seen = Vec::new();
                window.slot(slot, upto, |t, v| seen.push((t, v)));
                prop_assert_eq!(&got, &seen);
            }
            let (times, places) = window.times();
            let mut columns = vec![Vec::new(); slots];
            window.for_each_column(slots, times.len(), &places, |slot, values| {
                let samples = times.iter().copied().zip(values.iter().copied());
                columns[slot] = samples.filter(|sample| sample.1 != ABSENT_BITS).collect();
            });
            prop_assert_eq!(columns, want);
            prop_assert_eq!(window.behind(upto).count(), rows.len().saturating_sub(upto as usize + 1));
        }

        /// Coverage agrees with an array.
        #[test]
        fn coverage_is_by_slot(rows in prop::collection::vec((0u32..40, 0u32..40, 0i64..6), 0..30)) {
            let mut coverage = Coverage::default();
            let mut plain = [i64::MIN; 50];
            for (a, b, t) in rows {
                let (from, to) = (a.min(b), a.max(b));
                prop_assert_eq!(coverage.newest(from, to.max(from + 1)), plain[from as usize..to.max(from + 1) as usize].iter().copied().max().unwrap());
                coverage.set(from, to, t);
                plain[from as usize..to as usize].fill(t);
                for (slot, want) in (0u32..).zip(&plain) {
                    prop_assert_eq!(coverage.at(slot), *want);
                }
                prop_assert!(coverage.runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
            }
        }
    }

    #[test]
    fn ranges_of_slots() {
        let mut set = SlotSet::default();
        set.insert_range(60, 130);
        assert!(set.contains_range(60, 130) && !set.contains_range(59, 61) && !set.contains_range(129, 131));
        assert!(set.contains_range(64, 128) && set.contains_range(5, 5));
        assert_eq!((set.len(), set.iter().next(), set.iter().last()), (70, Some(60), Some(129)));
        set.insert_range(128, 192);
        assert_eq!(set.len(), 132);
    }
}
