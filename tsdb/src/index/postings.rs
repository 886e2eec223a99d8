//! Postings: the series that have one label pair.
//!
//! Plain sorted ids up to [`PLAIN_MAX`], a roaring bitmap above: measured on real label sets, the two cross near 64 ids.
//! Most pairs of a store with unique label values have one series, which needs no allocation.

use std::borrow::Cow;
use std::cmp::Ordering;

use roaring::RoaringBitmap;

/// Most ids kept as a plain list.
const PLAIN_MAX: usize = 64;

/// A set of series ids.
#[derive(Clone, Debug, Default)]
pub(crate) enum Postings {
    #[default]
    Empty,
    One(u32),
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

impl Postings {
    /// A set of ids that ascend.
    pub(crate) fn of_sorted(ids: Vec<u32>) -> Self {
        match ids.as_slice() {
            [] => Self::Empty,
            [one] => Self::One(*one),
            _ if ids.len() <= PLAIN_MAX => Self::Few(ids),
            _ => Self::Many(Box::new(ids.into_iter().collect())),
        }
    }

    pub(crate) fn of_bitmap(ids: RoaringBitmap) -> Self {
        if ids.len() <= PLAIN_MAX as u64 {
            Self::of_sorted(ids.into_iter().collect())
        } else {
            Self::Many(Box::new(ids))
        }
    }

    /// The largest id.
    pub(crate) fn last(&self) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::One(id) => Some(*id),
            Self::Few(ids) => ids.last().copied(),
            Self::Many(ids) => ids.max(),
        }
    }

    /// Calls `each` with every id, ascending.
    pub(crate) fn for_each(&self, mut each: impl FnMut(u32)) {
        match self {
            Self::Empty => {}
            Self::One(id) => each(*id),
            Self::Few(ids) => ids.iter().copied().for_each(each),
            Self::Many(ids) => ids.iter().for_each(each),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Few(ids) => ids.len() as u64,
            Self::Many(ids) => ids.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        match self {
            Self::Empty => false,
            Self::One(one) => *one == id,
            Self::Few(ids) => ids.binary_search(&id).is_ok(),
            Self::Many(ids) => ids.contains(id),
        }
    }

    pub(crate) fn insert(&mut self, id: u32) {
        match self {
            Self::Empty => *self = Self::One(id),
            Self::One(one) => match id.cmp(one) {
                Ordering::Equal => {}
                Ordering::Less => *self = Self::Few(vec![id, *one]),
                Ordering::Greater => *self = Self::Few(vec![*one, id]),
            },
            Self::Few(ids) => {
                match ids.last() {
                    Some(last) if *last < id => ids.push(id),
                    _ => {
                        if let Err(index) = ids.binary_search(&id) {
                            ids.insert(index, id);
                        }
                    }
                }
                if ids.len() > PLAIN_MAX {
                    *self = Self::Many(Box::new(ids.iter().copied().collect()));
                }
            }
            Self::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    /// Makes the set as small as it can be: ids of one target are neighbours, and a run of them is four bytes.
    pub(crate) fn tidy(&mut self) {
        if let Self::Many(ids) = self {
            ids.optimize();
        }
    }

    pub(crate) fn remove(&mut self, id: u32) {
        match self {
            Self::Empty => {}
            Self::One(one) if *one == id => *self = Self::Empty,
            Self::One(_) => {}
            Self::Few(ids) => {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    *self = Self::Empty;
                }
            }
            Self::Many(ids) => {
                ids.remove(id);
                // Half of the bound, so that a set at the bound does not flap.
                if ids.len() <= PLAIN_MAX as u64 / 2 {
                    let ids: Vec<u32> = ids.iter().collect();
                    *self = if ids.is_empty() { Self::Empty } else { Self::Few(ids) };
                }
            }
        }
    }
}

/// A union of postings in the making. Small ones are collected and sorted: a hundred thousand insertions into a bitmap
/// in no order cost ten times that.
#[derive(Debug, Default)]
pub(crate) struct Union {
    map: RoaringBitmap,
    list: Vec<u32>,
}

impl Union {
    /// Most ids collected before they are sorted in.
    const LIST_MAX: usize = 1 << 16;

    pub(crate) fn add(&mut self, postings: &Postings) {
        match postings {
            Postings::Empty => {}
            Postings::One(id) => self.list.push(*id),
            Postings::Few(ids) => self.list.extend_from_slice(ids),
            Postings::Many(ids) => self.map |= &**ids,
        }
        if self.list.len() >= Self::LIST_MAX {
            self.sort_in();
        }
    }

    fn sort_in(&mut self) {
        self.list.sort_unstable();
        self.list.dedup();
        let sorted = RoaringBitmap::from_sorted_iter(self.list.drain(..)).expect("just sorted");
        self.map |= sorted;
    }

    pub(crate) fn finish(mut self) -> RoaringBitmap {
        self.sort_in();
        self.map
    }
}

/// Candidates while a selection is narrowed.
#[derive(Debug)]
pub(crate) enum Ids {
    /// Sorted.
    List(Vec<u32>),
    Map(RoaringBitmap),
}

impl Ids {
    pub(crate) fn of(postings: &Postings) -> Self {
        match postings {
            Postings::Empty => Self::List(Vec::new()),
            Postings::One(id) => Self::List(vec![*id]),
            Postings::Few(ids) => Self::List(ids.clone()),
            Postings::Many(ids) => Self::Map((**ids).clone()),
        }
    }

    pub(crate) fn of_cow(postings: Cow<'_, Postings>) -> Self {
        match postings {
            Cow::Borrowed(postings) => Self::of(postings),
            Cow::Owned(Postings::Few(ids)) => Self::List(ids),
            Cow::Owned(Postings::Many(ids)) => Self::Map(*ids),
            Cow::Owned(few) => Self::of(&few),
        }
    }

    /// A bitmap, unless it is so small that asking for each of its ids is faster.
    fn of_map(ids: RoaringBitmap) -> Self {
        if ids.len() <= 4 * PLAIN_MAX as u64 { Self::List(ids.iter().collect()) } else { Self::Map(ids) }
    }

    /// The common ids of two sets, without a copy of the larger one.
    pub(crate) fn of_both(a: Cow<'_, Postings>, b: Cow<'_, Postings>) -> Self {
        if let (Postings::Many(a), Postings::Many(b)) = (&*a, &*b) {
            return Self::of_map(&**a & &**b);
        }
        let (small, large) = if a.len() <= b.len() { (a, b) } else { (b, a) };
        let mut ids = Self::of_cow(small);
        ids.intersect(&large);
        ids
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::List(ids) => ids.len() as u64,
            Self::Map(ids) => ids.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::List(ids) => ids.is_empty(),
            Self::Map(ids) => ids.is_empty(),
        }
    }

    pub(crate) fn intersect(&mut self, postings: &Postings) {
        match (&mut *self, postings) {
            (Self::List(ids), postings) => ids.retain(|id| postings.contains(*id)),
            (Self::Map(ids), Postings::Many(other)) => {
                *ids &= &**other;
                *self = Self::of_map(std::mem::take(ids));
            }
            (Self::Map(ids), few) => {
                let mut list = Vec::new();
                match few {
                    Postings::Empty | Postings::Many(_) => {}
                    Postings::One(id) => list.push(*id),
                    Postings::Few(few) => list.clone_from(few),
                }
                list.retain(|id| ids.contains(*id));
                *self = Self::List(list);
            }
        }
    }

    pub(crate) fn intersect_map(&mut self, other: &RoaringBitmap) {
        match self {
            Self::List(ids) => ids.retain(|id| other.contains(*id)),
            Self::Map(ids) => *ids &= other,
        }
    }

    pub(crate) fn subtract_map(&mut self, other: &RoaringBitmap) {
        match self {
            Self::List(ids) => ids.retain(|id| !other.contains(*id)),
            Self::Map(ids) => *ids -= other,
        }
    }

    pub(crate) fn subtract(&mut self, postings: &Postings) {
        match (&mut *self, postings) {
            (Self::List(ids), postings) => ids.retain(|id| !postings.contains(*id)),
            (Self::Map(ids), Postings::Many(other)) => *ids -= &**other,
            (Self::Map(_), Postings::Empty) => {}
            (Self::Map(ids), Postings::One(id)) => {
                ids.remove(*id);
            }
            (Self::Map(ids), Postings::Few(few)) => {
                for id in few {
                    ids.remove(*id);
                }
            }
        }
    }

    /// Keeps the ids for which `keep` says so; shown in ascending order.
    pub(crate) fn try_retain<E>(&mut self, mut keep: impl FnMut(u32) -> Result<bool, E>) -> Result<(), E> {
        let mut kept = Vec::new();
        let mut look = |id: u32| {
            if keep(id)? {
                kept.push(id);
            }
            Ok(())
        };
        match self {
            Self::List(ids) => ids.iter().try_for_each(|id| look(*id))?,
            Self::Map(ids) => ids.iter().try_for_each(look)?,
        }
        *self = Self::List(kept);
        Ok(())
    }

    /// The ids, ascending.
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::List(ids) => ids,
            Self::Map(ids) => ids.iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn bitmap(postings: &Postings) -> RoaringBitmap {
        let mut union = Union::default();
        union.add(postings);
        union.finish()
    }

    fn postings(ids: &BTreeSet<u32>) -> Postings {
        let mut postings = Postings::default();
        for id in ids {
            postings.insert(*id);
        }
        postings
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(
            a in prop::collection::btree_set(0u32..300, 0..150),
            b in prop::collection::btree_set(0u32..300, 0..150),
            gone in prop::collection::vec(0u32..300, 0..150),
        ) {
            let (mut set, mut pa, pb) = (a.clone(), postings(&a), postings(&b));
            for id in gone {
                set.remove(&id);
                pa.remove(id);
            }
            prop_assert_eq!(pa.is_empty(), set.is_empty());
            prop_assert_eq!(pa.len(), set.len() as u64);
            prop_assert!((0..300).all(|id| pa.contains(id) == set.contains(&id)));
            let both: Vec<u32> = set.intersection(&b).copied().collect();
            let only: Vec<u32> = set.difference(&b).copied().collect();
            prop_assert_eq!(Ids::of_both(Cow::Borrowed(&pa), Cow::Owned(pb.clone())).into_vec(), both.clone());
            for start in [Ids::of(&pa), Ids::Map(bitmap(&pa))] {
                let mut ids = start;
                ids.intersect(&pb);
                prop_assert_eq!(ids.into_vec(), both.clone());
            }
            let mut ids = Ids::of(&pa);
            ids.intersect_map(&bitmap(&pb));
            prop_assert_eq!(ids.into_vec(), both);
            for start in [Ids::of(&pa), Ids::Map(bitmap(&pa))] {
                let mut ids = start;
                ids.subtract(&pb);
                prop_assert_eq!(ids.into_vec(), only.clone());
            }
            let mut ids = Ids::of(&pa);
            ids.subtract_map(&bitmap(&pb));
            prop_assert_eq!(ids.into_vec(), only);
        }
    }
}
