//! Label sets as keys: of whole series, and of the labels that grouping and matching clauses pick.

use hashbrown::HashTable;
use model::Labels;
use model::labels::METRIC_NAME;
use xxhash_rust::xxh3::Xxh3;

/// Labels that describe the metric itself; operations that make another metric of it drop them.
pub(crate) fn is_metadata_label(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// The labels without those of [`is_metadata_label`].
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.filtered(|name| !is_metadata_label(name))
}

/// Bytes of a label set with the counters of its owners.
pub(crate) fn label_bytes(labels: &Labels) -> usize {
    2 * size_of::<usize>() + labels.size_bytes()
}

/// Bytes of an entry of [`LabelMap`] or [`Grouper`] in a table that has just grown, without the label set.
pub(crate) const ENTRY_BYTES: usize = 2 * size_of::<(Labels, usize)>();

/// Maps label sets to numbers.
pub(crate) struct LabelMap {
    table: HashTable<(Labels, usize)>,
}

impl LabelMap {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { table: HashTable::with_capacity(capacity) }
    }

    /// The number of `labels`, and whether it is `new`, given now.
    pub(crate) fn insert(&mut self, labels: &Labels, new: usize) -> (usize, bool) {
        let entry = self.table.entry(labels.hash64(), |(own, _)| own == labels, |(own, _)| own.hash64());
        match entry {
            hashbrown::hash_table::Entry::Occupied(entry) => (entry.get().1, false),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert((labels.clone(), new));
                (new, true)
            }
        }
    }
}

/// Which labels count, as `by`, `without`, `on` and `ignoring` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    /// Sorted.
    names: Vec<String>,
    /// Whether `names` are kept, or dropped (and the metric name with them).
    keep: bool,
}

impl Pick {
    pub(crate) fn new(names: &[String], keep: bool) -> Self {
        let mut names = names.to_vec();
        if !keep {
            names.push(METRIC_NAME.to_owned());
        }
        names.sort_unstable();
        names.dedup();
        Self { names, keep }
    }

    pub(crate) fn picks(&self, name: &str) -> bool {
        self.names.binary_search_by(|own| own.as_str().cmp(name)).is_ok() == self.keep
    }

    /// The labels that count.
    pub(crate) fn of(&self, labels: &Labels) -> Labels {
        labels.filtered(|name| self.picks(name))
    }

    fn hash(&self, labels: &Labels) -> u64 {
        let mut hasher = Xxh3::new();
        for (name, value) in labels.iter().filter(|(name, _)| self.picks(name)) {
            hasher.update(name.as_bytes());
            hasher.update(&[0xff]);
            hasher.update(value.as_bytes());
            hasher.update(&[0xff]);
        }
        hasher.digest()
    }

    fn equal(&self, a: &Labels, b: &Labels) -> bool {
        let picked = |labels| Labels::iter(labels).filter(|(name, _)| self.picks(name));
        picked(a).eq(picked(b))
    }
}

/// Numbers label sets by the labels that count, in order of first appearance.
pub(crate) struct Grouper {
    pick: Pick,
    /// A member of each group, with the group's number.
    table: HashTable<(Labels, usize)>,
}

impl Grouper {
    pub(crate) fn new(pick: Pick) -> Self {
        Self { pick, table: HashTable::new() }
    }

    /// The group of `labels`, and whether it is a new one.
    pub(crate) fn group(&mut self, labels: &Labels) -> (usize, bool) {
        let new = self.table.len();
        if self.pick.keep && self.pick.names.is_empty() {
            // Everything is one group: no hashing.
            if new == 0 {
                self.table.insert_unique(0, (labels.clone(), 0), |_| 0);
            }
            return (0, new == 0);
        }
        let pick = &self.pick;
        let entry = self.table.entry(
            pick.hash(labels),
            |(member, _)| pick.equal(member, labels),
            |(member, _)| pick.hash(member),
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(entry) => (entry.get().1, false),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert((labels.clone(), new));
                (new, true)
            }
        }
    }

    /// The group of `labels`, when there is one.
    pub(crate) fn find(&self, labels: &Labels) -> Option<usize> {
        if self.pick.keep && self.pick.names.is_empty() {
            return (!self.table.is_empty()).then_some(0);
        }
        let found = self.table.find(self.pick.hash(labels), |(member, _)| self.pick.equal(member, labels));
        found.map(|(_, group)| *group)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn pick(&self) -> &Pick {
        &self.pick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn groups_are_numbered_as_they_come() {
        let a1 = labels(&[("__name__", "x"), ("job", "a"), ("instance", "1")]);
        let a2 = labels(&[("__name__", "y"), ("job", "a"), ("instance", "2")]);
        let b = labels(&[("job", "b")]);
        let mut by = Grouper::new(Pick::new(&["job".to_owned()], true));
        assert_eq!([&a1, &b, &a2].map(|l| by.group(l)), [(0, true), (1, true), (0, false)]);
        assert_eq!((by.find(&a2), by.find(&labels(&[("job", "c")]))), (Some(0), None));
        let mut without = Grouper::new(Pick::new(&["instance".to_owned()], false));
        assert_eq!([&a1, &b, &a2].map(|l| without.group(l).0), [0, 1, 0]);
        assert_eq!(without.pick().of(&a1), labels(&[("job", "a")]));
        let mut all = Grouper::new(Pick::new(&[], true));
        assert_eq!([&a1, &b].map(|l| all.group(l)), [(0, true), (0, false)]);
    }
}
