//! The catalogue: which series there are, their labels as interned pairs, and the inverted index over them.
//!
//! A label pair (name and value) is stored once and has a number; a series' labels are a list of such numbers, most of it
//! shared with the other series of its target. Each pair knows its postings, each name its values in order. Ids of series
//! ascend in order of arrival and are never given out twice; numbers of pairs are reused once no series names them.
//!
//! A series leaves in two steps: [`Catalogue::unlink`] hides it from new selections, [`Catalogue::forget`] frees its labels
//! when no reader can hold it any more.
//!
//! Memory is what it is about: a million series with eight to ten labels each take some 35 MB, all in.

mod entries;
pub(crate) mod pace;
pub(crate) mod plan;
mod postings;
mod table;
mod templates;
mod words;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::slice;

use hashbrown::HashMap;
use model::labels::{Labels, METRIC_NAME};
use model::matcher::Matcher;
use roaring::RoaringBitmap;

use entries::{Entries, Entry, OwnPairs};
use pace::{Interrupted, Pace};
pub(crate) use plan::Searchable;
pub(crate) use postings::{Postings, Union};
use table::NumberTable;
use templates::Templates;
use words::Words;

/// All series by their labels.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    words: Words,
    templates: Templates,
    entries: Entries,
    by_labels: NumberTable,
    live: RoaringBitmap,
    next_id: u32,
}

/// The part of a label hash that series keep.
fn short_hash(labels: &Labels) -> u32 {
    (labels.hash64() >> 32) as u32
}

/// The pairs of a series in order of names: those of its template and its own.
struct Pairs<'a> {
    mask: u64,
    template: slice::Iter<'a, u32>,
    own: OwnPairs<'a>,
}

impl Iterator for Pairs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let shared = self.mask & 1 == 1;
        self.mask >>= 1;
        if shared { self.template.next().copied() } else { self.own.next() }
    }
}

impl Catalogue {
    /// Number of series that selections find.
    pub(crate) fn len(&self) -> u64 {
        self.live.len()
    }

    /// The id that the next series gets.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// Keeps ids below `next_id` from being given out.
    pub(crate) fn reserve_ids(&mut self, next_id: u32) {
        self.next_id = self.next_id.max(next_id);
    }

    /// The series with these labels.
    pub(crate) fn find(&self, labels: &Labels) -> Option<u32> {
        let hash = short_hash(labels);
        self.by_labels.find(hash, |id| {
            self.entries.get(id).is_some_and(|entry| entry.hash == hash && self.has_labels(&entry, labels))
        })
    }

    fn has_labels(&self, entry: &Entry<'_>, labels: &Labels) -> bool {
        self.pairs(entry).map(|pair| self.words.text(pair)).eq(labels)
    }

    fn pairs<'a>(&'a self, entry: &Entry<'a>) -> Pairs<'a> {
        Pairs { mask: entry.mask, template: self.templates.pairs(entry.template).iter(), own: entry.own() }
    }

    /// Adds a series that is not there yet. Answers its id; `None` when ids have run out.
    pub(crate) fn add(&mut self, labels: &Labels) -> Option<u32> {
        let id = self.next_id;
        self.next_id = id.checked_add(1)?;
        self.insert(id, labels);
        Some(id)
    }

    /// Adds a series under an id that it had before, and that no series has now.
    pub(crate) fn insert(&mut self, id: u32, labels: &Labels) {
        self.reserve_ids(id.saturating_add(1));
        let mut pairs: Vec<u32> = Vec::with_capacity(16);
        pairs.extend(labels.iter().map(|(name, value)| self.words.take(name, value, id)));
        let template = self.template(&pairs);
        let mut shared = self.templates.pairs(template).iter().peekable();
        let mut mask = 0;
        let mut own: Vec<u32> = Vec::with_capacity(16);
        for (label, pair) in pairs.iter().enumerate() {
            if shared.next_if_eq(&pair).is_some() {
                // A template is of at most 64 labels of a series.
                mask |= 1 << label;
            } else {
                own.push(*pair);
            }
        }
        let hash = short_hash(labels);
        let template = match template {
            Some(template) if !Entries::fits(pairs.len(), own.len()) => {
                self.templates.release(template);
                own = pairs;
                None
            }
            template => template.map(|template| (template, mask)),
        };
        self.entries.insert(id, hash, template, &own);
        let entries = &self.entries;
        self.by_labels.insert(hash, id, |id| entries.hash(id).unwrap_or_default());
        self.live.insert(id);
    }

    /// Takes a template for a new series.
    fn template(&mut self, pairs: &[u32]) -> Option<u32> {
        let known = pairs.iter().map(|pair| self.words.pair(*pair).template);
        let series = usize::try_from(self.next_id).unwrap_or(usize::MAX);
        let (template, new) = self.templates.choose(pairs, known, series)?;
        self.templates.take(template);
        if new {
            for pair in self.templates.pairs(Some(template)) {
                self.words.set_template(*pair, template);
            }
        }
        Some(template)
    }

    /// Hides a series from selections and from [`Catalogue::find`].
    pub(crate) fn unlink(&mut self, id: u32) {
        let Some(entry) = self.entries.get(id) else { return };
        if !self.live.remove(id) {
            return;
        }
        let entries = &self.entries;
        self.by_labels.remove(entry.hash, id, |id| entries.hash(id).unwrap_or_default());
        let pairs = self.templates.pairs(entry.template).iter().copied().chain(entry.own());
        pairs.for_each(|pair| self.words.hide(pair, id));
    }

    /// Frees the labels of an unlinked series.
    pub(crate) fn forget(&mut self, id: u32) {
        let Some(entry) = self.entries.get(id) else { return };
        let template = entry.template;
        let pairs = self.templates.pairs(template).iter().copied().chain(entry.own());
        pairs.for_each(|pair| self.words.release(pair));
        if let Some(template) = template {
            self.templates.release(template);
        }
        self.entries.remove(id);
    }

    /// The labels of a series, unlinked ones included.
    pub(crate) fn labels(&self, id: u32) -> Option<Labels> {
        let entry = self.entries.get(id)?;
        Some(Labels::from_sorted(self.pairs(&entry).map(|pair| self.words.text(pair))))
    }

    /// The labels of several series; `None` for those that are not there.
    #[allow(dead_code, reason = "for readers that want the labels of many series under one lock")]
    pub(crate) fn labels_of(&self, ids: &[u32]) -> Vec<Option<Labels>> {
        ids.iter().map(|id| self.labels(*id)).collect()
    }

    /// The labels of series reduced to those named in `only`; `None` for series that are not there. Equal ones are the same.
    pub(crate) fn some_labels_of(&self, ids: &[u32], only: &[String]) -> Vec<Option<Labels>> {
        let wanted: Vec<u32> = only.iter().filter_map(|name| self.words.name_id(name)).collect();
        let mut known: HashMap<Vec<u32>, Labels> = HashMap::new();
        let mut picked = Vec::new();
        let mut labels_of = |id: &u32| {
            let entry = self.entries.get(*id)?;
            picked.clear();
            picked.extend(self.pairs(&entry).filter(|pair| wanted.contains(&self.words.pair(*pair).name)));
            if let Some(labels) = known.get(&picked) {
                return Some(labels.clone());
            }
            let labels = Labels::from_sorted(picked.iter().map(|pair| self.words.text(*pair)));
            known.insert(picked.clone(), labels.clone());
            Some(labels)
        };
        ids.iter().map(&mut labels_of).collect()
    }

    /// Sorts ids by the labels of their series. Takes four bytes per label for the time.
    pub(crate) fn sort_by_labels(&self, ids: &mut [u32]) {
        // Put together once: comparing would do it again and again.
        let mut pairs: Vec<u32> = Vec::new();
        let mut keys: Vec<(u32, usize, usize)> = Vec::with_capacity(ids.len());
        for id in ids.iter() {
            let start = pairs.len();
            if let Some(entry) = self.entries.get(*id) {
                pairs.extend(self.pairs(&entry));
            }
            keys.push((*id, start, pairs.len()));
        }
        keys.sort_by(|a, b| self.compare_pairs(&pairs[a.1..a.2], &pairs[b.1..b.2]).then(a.0.cmp(&b.0)));
        ids.iter_mut().zip(keys).for_each(|(id, key)| *id = key.0);
    }

    /// Compares two series by their labels.
    pub(crate) fn compare(&self, a: u32, b: u32) -> Ordering {
        let (Some(first), Some(second)) = (self.entries.get(a), self.entries.get(b)) else {
            return a.cmp(&b);
        };
        let (first, second) = (self.pairs(&first), self.pairs(&second));
        let differ = |(a, b): (u32, u32)| Some(self.compare_pair(a, b)).filter(|order| order.is_ne());
        let (mut first, mut second) = (first, second);
        loop {
            match (first.next(), second.next()) {
                (Some(a), Some(b)) => {
                    if let Some(order) = differ((a, b)) {
                        return order;
                    }
                }
                (a, b) => return a.is_some().cmp(&b.is_some()),
            }
        }
    }

    fn compare_pairs(&self, a: &[u32], b: &[u32]) -> Ordering {
        // Equal pairs are equal numbers: skip them without looking at text.
        match a.iter().zip(b).find(|(a, b)| a != b) {
            Some((a, b)) => self.compare_pair(*a, *b),
            None => a.len().cmp(&b.len()),
        }
    }

    fn compare_pair(&self, a: u32, b: u32) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        let (first, second) = (self.words.pair(a), self.words.pair(b));
        if first.name == second.name {
            return first.value.cmp(&second.value);
        }
        self.words.text(a).cmp(&self.words.text(b))
    }

    /// All label names in use, sorted.
    pub(crate) fn label_names(&self) -> Vec<&str> {
        let used = self.words.names().iter().filter(|name| !name.having.is_empty());
        let mut names: Vec<&str> = used.map(|name| &*name.name).collect();
        names.sort_unstable();
        names
    }

    /// The values of a label in use, sorted.
    pub(crate) fn label_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let sorted = self.words.name_id(name).map(|name| self.words.sorted(name)).unwrap_or_default();
        let pairs = (0..sorted.len()).map(move |place| self.words.pair(sorted[place]));
        pairs.filter(|pair| !pair.postings.is_empty()).map(|pair| &*pair.value)
    }

    /// Ids, ascending, of the series that all `matchers` accept.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Vec<u32> {
        self.select_at(&Pace::free(), matchers).expect("nobody interrupts it")
    }

    /// As [`Catalogue::select`], unless `pace` says to end.
    pub(crate) fn select_at(&self, pace: &Pace<'_>, matchers: &[Matcher]) -> Result<Vec<u32>, Interrupted> {
        plan::select(self, matchers, pace)
    }

    /// Names of the labels that the series `ids` have, sorted.
    pub(crate) fn label_names_of(&self, ids: &[u32]) -> Vec<&str> {
        let all = self.words.names();
        let mut seen = vec![false; all.len()];
        let mut last_template = None;
        for entry in ids.iter().filter_map(|id| self.entries.get(*id)) {
            let mut see = |pair: u32| seen[self.words.pair(pair).name as usize] = true;
            entry.own().for_each(&mut see);
            if last_template.replace(entry.template) != Some(entry.template) {
                self.templates.pairs(entry.template).iter().copied().for_each(see);
            }
        }
        let seen = all.iter().zip(seen).filter(|(_, seen)| *seen);
        let mut names: Vec<&str> = seen.map(|(name, _)| &*name.name).collect();
        names.sort_unstable();
        names
    }

    /// Values of label `name` on the series `ids`, sorted.
    pub(crate) fn label_values_of(&self, name: &str, ids: &[u32]) -> Vec<&str> {
        let Some(name) = self.words.name_id(name) else { return Vec::new() };
        let mut pairs: Vec<u32> = Vec::new();
        for id in ids {
            if let Some(pair) = self.pair_with(*id, name)
                && pairs.last() != Some(&pair)
            {
                pairs.push(pair);
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let mut values: Vec<&str> = pairs.iter().map(|pair| &*self.words.pair(*pair).value).collect();
        values.sort_unstable();
        values
    }

    /// The pair of a name that a series has.
    fn pair_with(&self, series: u32, name: u32) -> Option<u32> {
        let entry = self.entries.get(series)?;
        let mut pairs = entry.own().chain(self.templates.pairs(entry.template).iter().copied());
        pairs.find(|pair| self.words.pair(*pair).name == name)
    }

    /// Whether some series has this metric name.
    pub(crate) fn has_metric(&self, metric: &str) -> bool {
        let pair = self.words.name_id(METRIC_NAME).and_then(|name| self.words.find(name, metric));
        pair.is_some_and(|pair| !self.words.pair(pair).postings.is_empty())
    }

    /// Numbers for operators; lists are cut to `limit`.
    pub(crate) fn stats(&self, limit: usize) -> CatalogueStats {
        let mut stats = CatalogueStats::default();
        let names = self.words.names();
        let mut by_name = vec![(0u64, 0u64); names.len()];
        for pair in self.words.live_pairs() {
            let series = pair.postings.len();
            if series == 0 {
                continue;
            }
            let (values, bytes) = &mut by_name[pair.name as usize];
            *values += 1;
            *bytes += pair.value.len() as u64;
            let name = &*names[pair.name as usize].name;
            if name == METRIC_NAME {
                add_top(&mut stats.by_metric, limit, || pair.value.to_string(), series);
            }
            add_top(&mut stats.by_pair, limit, || format!("{name}={}", pair.value), series);
        }
        for (name, (values, bytes)) in names.iter().zip(by_name).filter(|(_, (values, _))| *values > 0) {
            stats.pairs += values;
            stats.values.push((name.name.to_string(), values));
            stats.bytes.push((name.name.to_string(), bytes));
        }
        for list in [&mut stats.by_metric, &mut stats.by_pair, &mut stats.values, &mut stats.bytes] {
            top(list, limit);
        }
        stats
    }

    /// Bytes of all names and values, each counted once.
    pub(crate) fn symbols_bytes(&self) -> u64 {
        self.words.text_bytes()
    }
}

impl Searchable for Catalogue {
    type Error = Interrupted;
    type Name = u32;
    type Pair = u32;
    type Cursor = ();
    const SERIES_COST: u64 = 1;
    /// All are in memory, and asking them for an id costs less than a series' labels do.
    const POSTINGS_PER_CANDIDATE: u64 = u64::MAX;

    fn all(&self) -> RoaringBitmap {
        self.live.clone()
    }

    fn name(&self, name: &str) -> Option<u32> {
        self.words.name_id(name)
    }

    fn values(&self, name: u32) -> u64 {
        self.words.name(name).live as u64
    }

    fn having_len(&self, name: u32) -> u64 {
        self.words.name(name).having.len()
    }

    fn having(&self, name: u32) -> Result<Cow<'_, Postings>, Interrupted> {
        Ok(Cow::Borrowed(&self.words.name(name).having))
    }

    fn pair(&self, name: u32, value: &str) -> Result<Option<u32>, Interrupted> {
        let found = self.words.find(name, value);
        Ok(found.filter(|pair| !self.words.pair(*pair).postings.is_empty()))
    }

    fn name_of(&self, pair: &u32) -> u32 {
        self.words.pair(*pair).name
    }

    fn number(&self, pair: &u32) -> u32 {
        *pair
    }

    fn postings_len(&self, pair: &u32) -> u64 {
        self.words.pair(*pair).postings.len()
    }

    fn postings(&self, pair: &u32) -> Result<Cow<'_, Postings>, Interrupted> {
        Ok(Cow::Borrowed(&self.words.pair(*pair).postings))
    }

    fn add_values(
        &self,
        name: u32,
        prefix: &str,
        accept: &mut dyn FnMut(&str) -> Result<bool, Interrupted>,
        union: &mut Union,
    ) -> Result<(), Interrupted> {
        let sorted = self.words.sorted(name);
        let start = sorted.partition_point(|pair| &*self.words.pair(*pair).value < prefix);
        for pair in &sorted[start..] {
            let pair = self.words.pair(*pair);
            if !pair.value.starts_with(prefix) {
                break;
            }
            if !pair.postings.is_empty() && accept(&pair.value)? {
                union.add(&pair.postings);
            }
        }
        Ok(())
    }

    fn pair_of(&self, _: &mut (), series: u32, name: u32) -> Result<Option<u32>, Interrupted> {
        Ok(self.pair_with(series, name))
    }

    fn value(&self, pair: u32) -> Result<Cow<'_, str>, Interrupted> {
        Ok(Cow::Borrowed(&self.words.pair(pair).value))
    }
}

/// Adds to a list of which only the largest count. Kept bounded: there may be millions.
fn add_top(list: &mut Vec<(String, u64)>, limit: usize, name: impl FnOnce() -> String, count: u64) {
    list.push((name(), count));
    if list.len() > limit.saturating_mul(4).max(1024) {
        top(list, limit);
    }
}

fn top(list: &mut Vec<(String, u64)>, limit: usize) {
    list.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    list.truncate(limit);
}

/// What [`Catalogue::stats`] found: lists are sorted, largest first.
#[derive(Debug, Default)]
pub(crate) struct CatalogueStats {
    pub(crate) pairs: u64,
    pub(crate) by_metric: Vec<(String, u64)>,
    pub(crate) by_pair: Vec<(String, u64)>,
    pub(crate) values: Vec<(String, u64)>,
    pub(crate) bytes: Vec<(String, u64)>,
}

#[cfg(test)]
mod measure;
#[cfg(test)]
pub(crate) mod tests;
