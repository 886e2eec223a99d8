//! The catalogue: which series there are, their labels as interned pairs, and the inverted index over them.
//!
//! A label pair (name and value) is stored once and has a number; a series' labels are a list of such numbers. Each
//! pair knows its postings, each name its values in order. Ids of series ascend in order of arrival and are never given
//! out twice; numbers of pairs are reused once no series names them.
//!
//! A series leaves in two steps: [`Catalogue::unlink`] hides it from new selections, [`Catalogue::forget`] frees its labels
//! when no reader can hold it any more.

pub(crate) mod plan;
mod postings;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use model::labels::{Labels, METRIC_NAME};
use model::matcher::Matcher;
use roaring::RoaringBitmap;

use crate::head::table::Paged;
pub(crate) use plan::Searchable;
pub(crate) use postings::{Postings, Union};

/// All series by their labels.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    names: Vec<Name>,
    name_ids: HashMap<Arc<str>, u32>,
    pairs: Vec<Option<Pair>>,
    free_pairs: Vec<u32>,
    series: Paged<Entry>,
    by_hash: HashTable<(u32, u32)>,
    live: RoaringBitmap,
    next_id: u32,
}

#[derive(Debug)]
struct Name {
    name: Arc<str>,
    values: BTreeMap<Arc<str>, u32>,
    /// Series that have the label.
    all: Postings,
}

#[derive(Debug)]
struct Pair {
    name: u32,
    value: Arc<str>,
    postings: Postings,
    /// Series that name the pair, unlinked ones included.
    users: u32,
}

#[derive(Debug)]
struct Entry {
    hash: u32,
    /// In order of names.
    pairs: Box<[u32]>,
}

/// The bits of a label hash that the table keeps; the bits above feed the table's own choice of buckets.
fn short_hash(labels: &Labels) -> u32 {
    (labels.hash64() >> 32) as u32
}

fn spread(hash: u32) -> u64 {
    // The table looks at the highest and the lowest bits; a multiplication moves all of ours to both.
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
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
        let found =
            self.by_hash.find(spread(hash), |entry| entry.0 == hash && self.has_labels(entry.1, labels));
        found.map(|entry| entry.1)
    }

    fn has_labels(&self, id: u32, labels: &Labels) -> bool {
        let Some(entry) = self.series.get(id) else { return false };
        let mut pairs = entry.pairs.iter();
        let agree = labels.iter().all(|(name, value)| {
            pairs.next().is_some_and(|pair| {
                let pair = self.pair(*pair);
                &*pair.value == value && &*self.names[pair.name as usize].name == name
            })
        });
        agree && pairs.next().is_none()
    }

    fn pair(&self, id: u32) -> &Pair {
        self.pairs[id as usize].as_ref().expect("pairs live as long as series name them")
    }

    /// Adds a series that is not there yet. Answers its id; `None` when ids have run out.
    pub(crate) fn add(&mut self, labels: &Labels) -> Option<u32> {
        let id = self.next_id;
        self.next_id = id.checked_add(1)?;
        self.insert(id, labels);
        Some(id)
    }

    /// Adds a series under an id that it had before.
    pub(crate) fn insert(&mut self, id: u32, labels: &Labels) {
        self.reserve_ids(id.saturating_add(1));
        let pairs: Box<[u32]> = labels.iter().map(|(name, value)| self.intern(name, value, id)).collect();
        let hash = short_hash(labels);
        self.series.insert(id, Entry { hash, pairs });
        self.by_hash.insert_unique(spread(hash), (hash, id), |entry| spread(entry.0));
        self.live.insert(id);
    }

    fn intern(&mut self, name: &str, value: &str, series: u32) -> u32 {
        let name_id = self.name_ids.get(name).copied().unwrap_or_else(|| {
            let shared: Arc<str> = Arc::from(name);
            let id = u32::try_from(self.names.len()).expect("fewer names than pairs");
            self.names.push(Name {
                name: Arc::clone(&shared),
                values: BTreeMap::new(),
                all: Postings::Empty,
            });
            self.name_ids.insert(shared, id);
            id
        });
        let entry = &mut self.names[name_id as usize];
        entry.all.insert(series);
        let pair_id = match entry.values.get(value) {
            Some(pair) => *pair,
            None => {
                let value: Arc<str> = Arc::from(value);
                let pair =
                    Pair { name: name_id, value: Arc::clone(&value), postings: Postings::Empty, users: 0 };
                let id = if let Some(id) = self.free_pairs.pop() {
                    self.pairs[id as usize] = Some(pair);
                    id
                } else {
                    self.pairs.push(Some(pair));
                    u32::try_from(self.pairs.len() - 1).expect("fewer than 2^32 label pairs fit in memory")
                };
                entry.values.insert(value, id);
                id
            }
        };
        let pair = self.pairs[pair_id as usize].as_mut().expect("just found");
        pair.postings.insert(series);
        pair.users += 1;
        pair_id
    }

    /// Hides a series from selections and from [`Catalogue::find`].
    pub(crate) fn unlink(&mut self, id: u32) {
        let Some(entry) = self.series.get(id) else { return };
        if !self.live.remove(id) {
            return;
        }
        if let Ok(found) = self.by_hash.find_entry(spread(entry.hash), |other| other.1 == id) {
            found.remove();
        }
        for pair in &entry.pairs {
            let pair = self.pairs[*pair as usize].as_mut().expect("named by the series");
            pair.postings.remove(id);
            self.names[pair.name as usize].all.remove(id);
        }
    }

    /// Frees the labels of an unlinked series.
    pub(crate) fn forget(&mut self, id: u32) {
        let Some(entry) = self.series.remove(id) else { return };
        for pair_id in &entry.pairs {
            let slot = &mut self.pairs[*pair_id as usize];
            let pair = slot.as_mut().expect("named by the series");
            pair.users -= 1;
            if pair.users == 0 {
                // Names stay: there are few, and their numbers are in use.
                self.names[pair.name as usize].values.remove(&pair.value);
                *slot = None;
                self.free_pairs.push(*pair_id);
            }
        }
    }

    /// The labels of a series, unlinked ones included.
    pub(crate) fn labels(&self, id: u32) -> Option<Labels> {
        let entry = self.series.get(id)?;
        Some(Labels::from_sorted(self.pairs_of(entry)))
    }

    fn pairs_of<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = (&'a str, &'a str)> {
        entry.pairs.iter().map(|pair| {
            let pair = self.pair(*pair);
            (&*self.names[pair.name as usize].name, &*pair.value)
        })
    }

    /// Sorts ids by the labels of their series.
    pub(crate) fn sort_by_labels(&self, ids: &mut [u32]) {
        ids.sort_by(|a, b| {
            let (Some(a), Some(b)) = (self.series.get(*a), self.series.get(*b)) else {
                return a.cmp(b);
            };
            // Equal pairs are equal numbers: skip them without looking at text.
            let different = a.pairs.iter().zip(&b.pairs).position(|(a, b)| a != b);
            let Some(at) = different else { return a.pairs.len().cmp(&b.pairs.len()) };
            let (a, b) = (self.pair(a.pairs[at]), self.pair(b.pairs[at]));
            let names = |pair: &Pair| Arc::clone(&self.names[pair.name as usize].name);
            if a.name == b.name { a.value.cmp(&b.value) } else { names(a).cmp(&names(b)) }
        });
    }

    /// Compares two series by their labels.
    pub(crate) fn compare(&self, a: u32, b: u32) -> std::cmp::Ordering {
        let mut ids = [a, b];
        if a == b {
            return std::cmp::Ordering::Equal;
        }
        self.sort_by_labels(&mut ids);
        if ids[0] == a { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
    }

    /// All label names in use, sorted.
    pub(crate) fn label_names(&self) -> Vec<&str> {
        let used = self.names.iter().filter(|name| !name.all.is_empty());
        let mut names: Vec<&str> = used.map(|name| &*name.name).collect();
        names.sort_unstable();
        names
    }

    /// The values of a label in use, sorted.
    pub(crate) fn label_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let values = self.named(name).map(|name| &name.values).into_iter().flatten();
        values.filter(|(_, pair)| !self.pair(**pair).postings.is_empty()).map(|(value, _)| &**value)
    }

    fn named(&self, name: &str) -> Option<&Name> {
        self.name_ids.get(name).map(|id| &self.names[*id as usize])
    }

    /// Ids, ascending, of the series that all `matchers` accept.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Vec<u32> {
        match plan::select(self, matchers) {
            Ok(ids) => ids,
            Err(never) => match never {},
        }
    }

    /// Names of the labels that the series `ids` have, sorted.
    pub(crate) fn label_names_of(&self, ids: &[u32]) -> Vec<&str> {
        let mut seen = vec![false; self.names.len()];
        for entry in ids.iter().filter_map(|id| self.series.get(*id)) {
            for pair in &entry.pairs {
                seen[self.pair(*pair).name as usize] = true;
            }
        }
        let seen = self.names.iter().zip(seen).filter(|(_, seen)| *seen);
        let mut names: Vec<&str> = seen.map(|(name, _)| &*name.name).collect();
        names.sort_unstable();
        names
    }

    /// Values of label `name` on the series `ids`, sorted.
    pub(crate) fn label_values_of(&self, name: &str, ids: &[u32]) -> Vec<&str> {
        let Some(&name) = self.name_ids.get(name) else { return Vec::new() };
        let mut pairs: Vec<u32> = ids
            .iter()
            .filter_map(|id| self.series.get(*id))
            .filter_map(|entry| entry.pairs.iter().copied().find(|pair| self.pair(*pair).name == name))
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        let mut values: Vec<&str> = pairs.iter().map(|pair| &*self.pair(*pair).value).collect();
        values.sort_unstable();
        values
    }

    /// Whether some series has this metric name.
    pub(crate) fn has_metric(&self, metric: &str) -> bool {
        let pair = self.named(METRIC_NAME).and_then(|name| name.values.get(metric));
        pair.is_some_and(|pair| !self.pair(*pair).postings.is_empty())
    }

    /// Numbers for operators; lists are cut to `limit`.
    pub(crate) fn stats(&self, limit: usize) -> CatalogueStats {
        let mut stats = CatalogueStats::default();
        for name in &self.names {
            let (mut values, mut bytes) = (0u64, 0u64);
            for (value, pair) in &name.values {
                let series = self.pair(*pair).postings.len();
                if series == 0 {
                    continue;
                }
                values += 1;
                bytes += value.len() as u64;
                if &*name.name == METRIC_NAME {
                    stats.by_metric.push((value.to_string(), series));
                }
                stats.by_pair.push((format!("{}={value}", name.name), series));
                // Keep the list of pairs bounded: there may be millions.
                if stats.by_pair.len() > limit.saturating_mul(4).max(1024) {
                    top(&mut stats.by_pair, limit);
                }
            }
            if values > 0 {
                stats.pairs += values;
                stats.values.push((name.name.to_string(), values));
                stats.bytes.push((name.name.to_string(), bytes));
            }
        }
        for list in [&mut stats.by_metric, &mut stats.by_pair, &mut stats.values, &mut stats.bytes] {
            top(list, limit);
        }
        stats
    }

    /// Bytes of all names and values, each counted once.
    pub(crate) fn symbols_bytes(&self) -> u64 {
        let names = self.names.iter().map(|name| name.name.len() as u64);
        names.chain(self.pairs.iter().flatten().map(|pair| pair.value.len() as u64)).sum()
    }
}

impl Searchable for Catalogue {
    type Error = Infallible;
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
        self.name_ids.get(name).copied()
    }

    fn values(&self, name: u32) -> u64 {
        self.names[name as usize].values.len() as u64
    }

    fn having_len(&self, name: u32) -> u64 {
        self.names[name as usize].all.len()
    }

    fn having(&self, name: u32) -> Result<Cow<'_, Postings>, Infallible> {
        Ok(Cow::Borrowed(&self.names[name as usize].all))
    }

    fn pair(&self, name: u32, value: &str) -> Result<Option<u32>, Infallible> {
        let pair = self.names[name as usize].values.get(value).copied();
        Ok(pair.filter(|pair| !self.pair(*pair).postings.is_empty()))
    }

    fn name_of(&self, pair: &u32) -> u32 {
        self.pair(*pair).name
    }

    fn number(&self, pair: &u32) -> u32 {
        *pair
    }

    fn postings_len(&self, pair: &u32) -> u64 {
        self.pair(*pair).postings.len()
    }

    fn postings(&self, pair: &u32) -> Result<Cow<'_, Postings>, Infallible> {
        Ok(Cow::Borrowed(&self.pair(*pair).postings))
    }

    fn add_values(
        &self,
        name: u32,
        prefix: &str,
        accept: &mut dyn FnMut(&str) -> bool,
        union: &mut Union,
    ) -> Result<(), Infallible> {
        let values = &self.names[name as usize].values;
        let values = values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        for (value, pair) in values.take_while(|(value, _)| value.starts_with(prefix)) {
            if accept(value) {
                union.add(&self.pair(*pair).postings);
            }
        }
        Ok(())
    }

    fn pair_of(&self, _: &mut (), series: u32, name: u32) -> Result<Option<u32>, Infallible> {
        let pairs = self.series.get(series).map_or(&[][..], |entry| &entry.pairs);
        Ok(pairs.iter().copied().find(|pair| self.pair(*pair).name == name))
    }

    fn value(&self, pair: u32) -> Result<Cow<'_, str>, Infallible> {
        Ok(Cow::Borrowed(&self.pair(pair).value))
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
