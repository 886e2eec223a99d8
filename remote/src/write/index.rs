//! Recognises series by their keys, and remembers in which order they come.
//!
//! A series is an entry of 32 bytes: its key, the storage's reference, and its *place*. A *member* has a slot in one of the
//! receiver's append layouts; a *loose* series knows which one came after it last time. Series are first looked for where
//! the one before leads (senders keep their order), then by hash.
//!
//! Requests share the index under a read lock; what they note there (who follows whom, what is used) is atomic and may be
//! lost to a race. Entries and places change under the write lock.

use std::sync::atomic::{AtomicBool, AtomicI8, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use hashbrown::HashTable;
use model::storage::{LayoutRef, SeriesRef};

use super::scan::{Item, Key};

/// No entry, no layout.
pub(super) const NONE: u32 = u32::MAX;
/// The request ended behind a loose series: whatever comes after it now may have come before.
pub(super) const CUT: u32 = u32::MAX - 1;
/// So many look-ups wait for memory together.
const WARMED: usize = 32;
/// Series that a request brings in another order must come this often in one order before they are layouts again.
const PENALTY: i8 = -16;

/// All series that are recognised, and the layouts of the receiver.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    by_key: HashTable<u32>,
    layouts: Vec<Option<KnownLayout>>,
    free_layouts: Vec<u32>,
    entries_max: usize,
    /// Counts upkeeps; its low bits stamp what is used.
    tick: u8,
    /// Whether the last request came in no order that is known.
    scattered: AtomicBool,
    /// Series that found no room.
    pub(super) refused_new: u64,
}

/// A recognised series.
#[derive(Debug)]
pub(super) struct Entry {
    key: Key,
    /// Layout and slot of a member; `NONE` and the next entry of a loose series.
    place: AtomicU64,
    series: AtomicU32,
    used: AtomicU8,
    /// How often it has come after the same one in turn, as far as that matters.
    stable: AtomicI8,
}

/// A layout in the storage, and what was written to it.
#[derive(Debug)]
pub(super) struct KnownLayout {
    pub(super) layout: LayoutRef,
    /// Entries by slot; `NONE` where a slot is retired.
    pub(super) slots: Vec<u32>,
    /// Samples that came in rows, and those that came in an order that made no row, lately.
    in_rows: AtomicU32,
    apart: AtomicU32,
    used: AtomicU8,
}

/// Where a series belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Slot of a layout.
    Member { layout: u32, slot: u32 },
    /// No layout; who came next.
    Loose { next: u32 },
}

impl Place {
    fn pack(self) -> u64 {
        match self {
            Self::Member { layout, slot } => u64::from(layout) << 32 | u64::from(slot),
            Self::Loose { next } => u64::from(NONE) << 32 | u64::from(next),
        }
    }

    fn unpack(packed: u64) -> Self {
        let (layout, rest) = ((packed >> 32) as u32, (packed & u64::from(u32::MAX)) as u32);
        if layout == NONE { Self::Loose { next: rest } } else { Self::Member { layout, slot: rest } }
    }
}

impl Entry {
    pub(super) fn place(&self) -> Place {
        Place::unpack(self.place.load(Relaxed))
    }

    /// The storage's reference.
    pub(super) fn series(&self) -> SeriesRef {
        SeriesRef(u64::from(self.series.load(Relaxed)))
    }

    /// Notes who comes behind a loose series; whether that is who came last time.
    pub(super) fn follow(&self, next: u32) -> bool {
        match self.place() {
            Place::Member { .. } => false,
            Place::Loose { next: known } => {
                if known != next {
                    self.place.store(Place::Loose { next }.pack(), Relaxed);
                }
                known == next || known == CUT
            }
        }
    }

    /// Notes whether the series came where it was expected; whether it may join a layout.
    pub(super) fn settle(&self, expected: bool) -> bool {
        let stable = self.stable.load(Relaxed);
        let now = if expected { stable.saturating_add(1) } else { stable.min(0) };
        if now != stable {
            self.stable.store(now, Relaxed);
        }
        now > 0
    }
}

impl KnownLayout {
    /// Notes samples written in rows.
    pub(super) fn wrote(&self, samples: usize) {
        add(&self.in_rows, samples);
    }

    /// Notes samples of members that made no row; whether that is too often.
    pub(super) fn missed(&self, samples: usize) -> bool {
        add(&self.apart, samples);
        let (in_rows, apart) = (self.in_rows.load(Relaxed), self.apart.load(Relaxed));
        if in_rows > 1 << 24 {
            // What was long ago counts less.
            self.in_rows.store(in_rows / 2, Relaxed);
            self.apart.store(apart / 2, Relaxed);
        }
        apart as usize > self.slots.len().max(64) && apart > in_rows / 4
    }
}

fn add(counter: &AtomicU32, samples: usize) {
    counter.store(counter.load(Relaxed).saturating_add(u32::try_from(samples).unwrap_or(u32::MAX)), Relaxed);
}

/// What upkeep found to let go of.
#[derive(Debug, Default)]
pub(super) struct Idle {
    pub(super) layouts: Vec<LayoutRef>,
    /// Slots whose series no longer come.
    pub(super) slots: Vec<(LayoutRef, u32)>,
}

impl Index {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries: Vec::new(),
            by_key: HashTable::new(),
            layouts: Vec::new(),
            free_layouts: Vec::new(),
            entries_max: entries_max.min(CUT as usize - 1),
            tick: 0,
            scattered: AtomicBool::new(false),
            refused_new: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn layouts(&self) -> usize {
        self.layouts.len() - self.free_layouts.len()
    }

    /// Panics when there is no such entry: indexes come from this index under the same lock.
    pub(super) fn entry(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    pub(super) fn layout(&self, layout: u32) -> Option<&KnownLayout> {
        self.layouts.get(layout as usize)?.as_ref()
    }

    /// The entry of a key.
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        self.by_key.find(key.0[0], |index| self.entries[*index as usize].key == key).copied()
    }

    /// The entries of a request's series, in order; `NONE` for those that are not known.
    pub(super) fn recognise(&self, items: &[Item], found: &mut Vec<u32>) {
        found.clear();
        found.reserve(items.len());
        let mut expected = NONE;
        // Where the order is new each time a guess costs more than it gains: then only every eighth is tried.
        let mut misses = 0u32;
        let warmed = self.scattered.load(Relaxed);
        let (mut tried, mut guesses) = (0usize, 0usize);
        for (at, item) in items.iter().enumerate() {
            if warmed && at.is_multiple_of(WARMED) {
                self.warm(&items[at..items.len().min(at + WARMED)]);
            }
            let Some(key) = item.key else {
                found.push(NONE);
                continue;
            };
            let guess = expected < CUT && (misses < 8 || misses.is_multiple_of(8));
            let guessed = guess && self.entries.get(expected as usize).is_some_and(|entry| entry.key == key);
            tried += 1;
            let index = if guessed {
                misses = 0;
                guesses += 1;
                expected
            } else {
                misses = misses.saturating_add(1);
                self.find(key).unwrap_or(NONE)
            };
            found.push(index);
            let Some(entry) = self.entries.get(index as usize) else {
                expected = NONE;
                continue;
            };
            if entry.used.load(Relaxed) != self.tick {
                entry.used.store(self.tick, Relaxed);
            }
            expected = match entry.place() {
                Place::Loose { next } => next,
                Place::Member { layout, slot } => self.successor(layout, slot),
            };
        }
        let scattered = guesses < tried / 2;
        if scattered != warmed {
            self.scattered.store(scattered, Relaxed);
        }
    }

    /// Looks at what the look-up of each key looks at first: they wait for memory together.
    fn warm(&self, items: &[Item]) {
        let mut seen = 0;
        for key in items.iter().filter_map(|item| item.key) {
            let mut first = NONE;
            self.by_key.find(key.0[0], |index| {
                first = *index;
                true
            });
            seen ^= self.entries.get(first as usize).map_or(0, |entry| entry.key.0[1]);
        }
        std::hint::black_box(seen);
    }

    fn successor(&self, layout: u32, slot: u32) -> u32 {
        let known = self.layouts.get(layout as usize).and_then(Option::as_ref);
        let Some(known) = known else { return NONE };
        let behind = known.slots.get(slot as usize + 1..).unwrap_or_default();
        behind.iter().copied().find(|entry| *entry != NONE).unwrap_or(NONE)
    }

    /// Remembers or renames a series. `None`: there is no room, or the reference is none that can be kept.
    pub(super) fn insert(&mut self, key: Key, series: SeriesRef) -> Option<u32> {
        let series = u32::try_from(series.0).ok()?;
        if let Some(index) = self.find(key) {
            self.entries[index as usize].series.store(series, Relaxed);
            return Some(index);
        }
        if self.entries.len() >= self.entries_max {
            self.refused_new += 1;
            return None;
        }
        if self.entries.len() == self.entries.capacity() {
            // Doubling would waste as much as is used.
            self.entries.reserve_exact(self.entries.len() / 8 + 1024);
        }
        let index = self.entries.len() as u32;
        self.entries.push(Entry {
            key,
            place: AtomicU64::new(Place::Loose { next: NONE }.pack()),
            series: AtomicU32::new(series),
            used: AtomicU8::new(self.tick),
            stable: AtomicI8::new(0),
        });
        let entries = &self.entries;
        self.by_key.insert_unique(key.0[0], index, |index| entries[*index as usize].key.0[0]);
        Some(index)
    }

    /// Takes up a new layout.
    pub(super) fn add_layout(&mut self, layout: LayoutRef) -> u32 {
        let known = KnownLayout {
            layout,
            slots: Vec::new(),
            in_rows: AtomicU32::new(0),
            apart: AtomicU32::new(0),
            used: AtomicU8::new(self.tick),
        };
        if let Some(index) = self.free_layouts.pop() {
            self.layouts[index as usize] = Some(known);
            return index;
        }
        self.layouts.push(Some(known));
        self.layouts.len() as u32 - 1
    }

    /// Gives a loose series a slot.
    pub(super) fn join(&mut self, entry: u32, layout: u32, slot: u32) {
        let Some(known) = self.layouts[layout as usize].as_mut() else { return };
        if known.slots.len() <= slot as usize {
            if known.slots.len() == known.slots.capacity() {
                known.slots.reserve_exact(known.slots.len() / 8 + 64);
            }
            known.slots.resize(slot as usize + 1, NONE);
        }
        known.slots[slot as usize] = entry;
        self.entries[entry as usize].place.store(Place::Member { layout, slot }.pack(), Relaxed);
    }

    /// Gives a layout up: its members are loose. `disorder`: they came in other orders, and shall wait.
    pub(super) fn close_layout(&mut self, layout: u32, disorder: bool) -> Option<LayoutRef> {
        let known = self.layouts.get_mut(layout as usize)?.take()?;
        self.free_layouts.push(layout);
        for pair in known.slots.iter().zip(known.slots.iter().skip(1).chain([&NONE])) {
            let (&member, &next) = pair;
            if let Some(entry) = self.entries.get(member as usize) {
                let next = if disorder { NONE } else { next };
                entry.place.store(Place::Loose { next }.pack(), Relaxed);
                entry.stable.store(if disorder { PENALTY } else { 0 }, Relaxed);
            }
        }
        Some(known.layout)
    }

    /// Lets time pass: finds what has not been used for `ticks`.
    pub(super) fn upkeep(&mut self, ticks: u8) -> Idle {
        self.tick = self.tick.wrapping_add(1);
        let tick = self.tick;
        let stale = |used: &AtomicU8| tick.wrapping_sub(used.load(Relaxed)) > ticks;
        let mut idle = Idle::default();
        for index in 0..self.layouts.len() as u32 {
            let Some(known) = &self.layouts[index as usize] else { continue };
            let gone = |entry: &u32| {
                let entry = self.entries.get(*entry as usize);
                entry.is_none_or(|entry| stale(&entry.used))
            };
            let all = known.slots.len();
            let lost: Vec<u32> =
                (0u32..).zip(&known.slots).filter(|(_, entry)| gone(entry)).map(|(slot, _)| slot).collect();
            if lost.len() * 4 > all || all == 0 && stale(&known.used) {
                // What is left finds together again.
                idle.layouts.extend(self.close_layout(index, false));
                continue;
            }
            let layout = known.layout;
            for slot in lost {
                let Some(known) = self.layouts[index as usize].as_mut() else { continue };
                let entry = std::mem::replace(&mut known.slots[slot as usize], NONE);
                if let Some(entry) = self.entries.get(entry as usize) {
                    entry.place.store(Place::Loose { next: NONE }.pack(), Relaxed);
                    idle.slots.push((layout, slot));
                }
            }
        }
        let unused = self.entries.iter().filter(|entry| stale(&entry.used)).count();
        let full = self.entries.len() >= self.entries_max;
        if unused > 1024.max(self.entries.len() / 8) || full && unused > 0 {
            self.forget(|entry| stale(&entry.used));
        }
        idle
    }

    /// Drops loose entries.
    fn forget(&mut self, drop: impl Fn(&Entry) -> bool) {
        let mut moved = vec![NONE; self.entries.len()];
        let mut kept: u32 = 0;
        let mut index = 0;
        self.entries.retain(|entry| {
            let keep = matches!(entry.place(), Place::Member { .. }) || !drop(entry);
            if keep {
                moved[index] = kept;
                kept += 1;
            }
            index += 1;
            keep
        });
        let capacity = self.entries.len() + self.entries.len() / 8;
        self.entries.shrink_to(capacity);
        for entry in &self.entries {
            if let Place::Loose { next } = entry.place()
                && next < CUT
            {
                let next = moved[next as usize];
                entry.place.store(Place::Loose { next }.pack(), Relaxed);
            }
        }
        for known in self.layouts.iter_mut().flatten() {
            for slot in known.slots.iter_mut().filter(|slot| **slot != NONE) {
                *slot = moved[*slot as usize];
            }
        }
        let entries = &self.entries;
        self.by_key.clear();
        self.by_key.shrink_to(entries.len(), |index| entries[*index as usize].key.0[0]);
        for (index, entry) in (0u32..).zip(entries) {
            self.by_key.insert_unique(entry.key.0[0], index, |index| entries[*index as usize].key.0[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key([n, n])
    }

    #[test]
    fn an_entry_stays_small() {
        assert_eq!(size_of::<Entry>(), 32);
    }

    /// Who is forgotten leaves the others where they were: members with their slots, the loose with whom they precede.
    #[test]
    fn forgetting_keeps_members_and_order() {
        let mut index = Index::new(5000);
        for n in 0..5000 {
            assert_eq!(index.insert(key(n), SeriesRef(n + 7)), Some(n as u32));
        }
        assert_eq!((index.insert(key(9999), SeriesRef(1)), index.refused_new), (None, 1));
        let layout = index.add_layout(LayoutRef(3));
        for n in (0..200u32).rev() {
            index.join(n * 2, layout, 199 - n);
        }
        index.entry(4997).follow(4999);
        for _ in 0..5 {
            index.upkeep(2);
            for used in [4997, 4999].into_iter().chain((0..200).map(|n| n * 2)) {
                let Some(entry) = index.find(key(used)) else { continue };
                index.entry(entry).used.store(index.tick, Relaxed);
            }
        }
        assert_eq!(index.len(), 202);
        for n in 0..200 {
            let entry = index.entry(index.find(key(n * 2)).unwrap());
            assert_eq!(entry.place(), Place::Member { layout, slot: 199 - n as u32 });
            assert_eq!(entry.series(), SeriesRef(n * 2 + 7));
        }
        let next = index.find(key(4999)).unwrap();
        assert_eq!(index.entry(index.find(key(4997)).unwrap()).place(), Place::Loose { next });
        assert_eq!(index.close_layout(layout, false), Some(LayoutRef(3)));
        assert_eq!(index.layouts(), 0);
        let first = index.entry(index.find(key(398)).unwrap());
        assert_eq!(first.place(), Place::Loose { next: index.find(key(396)).unwrap() });
    }
}
