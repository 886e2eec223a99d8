//! Lines of the last pages, by their bytes.
//!
//! A look-up first compares with the line that followed the previous one last time, then asks a hash table.

use hashbrown::HashTable;
use model::MetricKind;
use xxhash_rust::xxh3::xxh3_64;

use super::converted::HistogramPart;

/// No line.
pub(super) const NONE: u32 = u32::MAX;

/// What a line stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A series, by its place in the table.
    Series(u32),
    /// A series that relabelling drops.
    Dropped,
    /// A series that was only needed to make a histogram of, so far: its labels have not been worked out.
    Unresolved,
    /// Metadata of the family at that place.
    Metadata {
        /// Place of the family.
        family: u32,
        /// What the line says.
        what: MetadataLine,
    },
    /// A comment.
    Comment,
}

/// Which fact a metadata line states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetadataLine {
    Type(MetricKind),
    /// With a hash of the line.
    Help(u64),
    /// With a hash of the line.
    Unit(u64),
}

/// A line that is known.
#[derive(Debug)]
pub(super) struct Line {
    /// Series text, or the whole line with its break for metadata and comments.
    pub(super) text: Box<[u8]>,
    pub(super) meaning: Meaning,
    /// What it is of a classic histogram, when these are converted.
    pub(super) part: Option<Box<HistogramPart>>,
    /// Scrape that last had it.
    pub(super) last_seen: u64,
    /// The line that came next, last time.
    next: u32,
}

/// Lines that are known.
#[derive(Debug)]
pub(super) struct LineCache {
    lines: Vec<Line>,
    index: HashTable<u32>,
    /// The line pages begin with.
    first: u32,
    /// The line last looked up.
    previous: u32,
}

impl Default for LineCache {
    fn default() -> Self {
        Self { lines: Vec::new(), index: HashTable::new(), first: NONE, previous: NONE }
    }
}

impl LineCache {
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// A new page begins.
    pub(super) fn rewind(&mut self) {
        self.previous = NONE;
    }

    /// The line that is likely to come next.
    pub(super) fn predicted(&self) -> Option<(u32, &Line)> {
        let next = match self.lines.get(self.previous as usize) {
            Some(line) => line.next,
            None => self.first,
        };
        self.lines.get(next as usize).map(|line| (next, line))
    }

    /// The line with exactly this text.
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        self.index.find(xxh3_64(text), |index| self.lines[*index as usize].text.as_ref() == text).copied()
    }

    pub(super) fn line(&self, index: u32) -> &Line {
        &self.lines[index as usize]
    }

    pub(super) fn line_mut(&mut self, index: u32) -> &mut Line {
        &mut self.lines[index as usize]
    }

    /// Notes that `index` is the line that came now: next time it is expected here.
    pub(super) fn arrived(&mut self, index: u32) {
        match self.lines.get_mut(self.previous as usize) {
            Some(line) => line.next = index,
            None => self.first = index,
        }
        self.previous = index;
    }

    /// Adds a line that is not known. `None` when there is no number left for it.
    pub(super) fn insert(&mut self, text: &[u8], meaning: Meaning, iteration: u64) -> Option<u32> {
        let index = u32::try_from(self.lines.len()).ok().filter(|index| *index != NONE)?;
        self.lines.push(Line { text: text.into(), meaning, part: None, last_seen: iteration, next: NONE });
        let lines = &self.lines;
        self.index.insert_unique(xxh3_64(text), index, |index| xxh3_64(lines[*index as usize].text.as_ref()));
        Some(index)
    }

    /// Forgets lines that `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Line) -> bool) {
        if self.lines.iter().all(&mut keep) {
            return;
        }
        // Numbers change: translate what refers to them. `keep` has been asked above up to the first refusal; it is asked
        // again, so it must not count.
        let mut moved = vec![NONE; self.lines.len()];
        let mut kept = 0u32;
        for (index, line) in self.lines.iter().enumerate() {
            if keep(line) {
                moved[index] = kept;
                kept += 1;
            }
        }
        let translate = |index: u32| moved.get(index as usize).copied().unwrap_or(NONE);
        let mut position = 0;
        self.lines.retain(|_| {
            position += 1;
            moved[position - 1] != NONE
        });
        for line in &mut self.lines {
            line.next = translate(line.next);
        }
        self.first = translate(self.first);
        self.previous = translate(self.previous);
        self.index.clear();
        for (index, line) in self.lines.iter().enumerate() {
            let lines = &self.lines;
            self.index.insert_unique(xxh3_64(&line.text), index as u32, |index| {
                xxh3_64(lines[*index as usize].text.as_ref())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicts_the_order_of_the_last_page_and_survives_cuts() {
        let mut cache = LineCache::default();
        for text in ["a", "b", "c", "d"] {
            let index = cache.insert(text.as_bytes(), Meaning::Comment, 1).unwrap();
            cache.arrived(index);
        }
        let walk = |cache: &mut LineCache| {
            let mut seen = String::new();
            cache.rewind();
            while let Some((index, line)) = cache.predicted() {
                seen.push_str(std::str::from_utf8(&line.text).unwrap());
                cache.arrived(index);
            }
            seen
        };
        assert_eq!(walk(&mut cache), "abcd");
        cache.retain(|line| line.text.as_ref() != b"b");
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.find(b"b"), None);
        let c = cache.find(b"c").unwrap();
        cache.rewind();
        let (a, _) = cache.predicted().unwrap();
        cache.arrived(a);
        assert!(cache.predicted().is_none());
        cache.arrived(c);
        assert_eq!(walk(&mut cache), "acd");
    }
}
