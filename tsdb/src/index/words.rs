//! Label names and label pairs as numbers, and what is known of each.
//!
//! A pair is found by its text through a hash table. The values of a name in order are made when somebody asks for them:
//! values that came since are sorted in then. Values that no series has any more stay, hidden, until there are many of
//! them; then they are swept out together, and their numbers are used again.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Postings;
use super::table::NumberTable;

/// No template.
const NONE: u32 = u32::MAX;
/// Dead values of a name that are kept in any case, and the part of all values that they may be.
const DEAD_MIN: usize = 64;
const DEAD_PART: usize = 4;
/// Users of postings from which on they are made as small as they can be whenever their number has doubled.
const TIDY_MIN: u32 = 128;

/// All names and pairs.
#[derive(Debug, Default)]
pub(super) struct Words {
    names: Vec<Name>,
    name_ids: HashMap<Box<str>, u32>,
    pairs: Vec<Pair>,
    free: Vec<u32>,
    by_text: NumberTable,
}

/// A label name.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) name: Box<str>,
    /// Series that have the label and can be found.
    pub(super) having: Postings,
    users: u32,
    /// Values that series name, unlinked ones included.
    pub(super) live: usize,
    dead: usize,
    values: Mutex<Values>,
}

#[derive(Debug, Default)]
struct Values {
    /// In order of their texts. Some may be dead.
    sorted: Arc<Vec<u32>>,
    /// In order of arrival.
    fresh: Vec<u32>,
}

/// A label pair.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: u32,
    /// Series that name the pair, unlinked ones included.
    users: u32,
    /// The template with this pair that was used last, or what has its number now, or [`NONE`].
    pub(super) template: u32,
    pub(super) value: Box<str>,
    /// Series that have the pair and can be found.
    pub(super) postings: Postings,
}

fn hash(name: u32, value: &str) -> u32 {
    (xxh3_64_with_seed(value.as_bytes(), u64::from(name)) >> 32) as u32
}

impl Words {
    pub(super) fn names(&self) -> &[Name] {
        &self.names
    }

    pub(super) fn name(&self, name: u32) -> &Name {
        &self.names[name as usize]
    }

    pub(super) fn name_id(&self, name: &str) -> Option<u32> {
        self.name_ids.get(name).copied()
    }

    pub(super) fn pair(&self, pair: u32) -> &Pair {
        &self.pairs[pair as usize]
    }

    /// All pairs that series name.
    pub(super) fn live_pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|pair| pair.users > 0)
    }

    /// The text of a pair.
    pub(super) fn text(&self, pair: u32) -> (&str, &str) {
        let pair = self.pair(pair);
        (&self.name(pair.name).name, &pair.value)
    }

    /// The pair of a name with this value, dead or alive.
    pub(super) fn find(&self, name: u32, value: &str) -> Option<u32> {
        self.by_text.find(hash(name, value), |pair| {
            let pair = self.pair(pair);
            pair.name == name && *pair.value == *value
        })
    }

    /// The number of a pair for one more series that names it and can be found.
    pub(super) fn take(&mut self, name: &str, value: &str, series: u32) -> u32 {
        let name_id = self.name_ids.get(name).copied().unwrap_or_else(|| self.add_name(name));
        let number = self.find(name_id, value).unwrap_or_else(|| self.add_pair(name_id, value));
        let (name, pair) = (&mut self.names[name_id as usize], &mut self.pairs[number as usize]);
        if pair.users == 0 {
            name.live += 1;
            name.dead = name.dead.saturating_sub(1);
        }
        for (users, postings) in [(&mut name.users, &mut name.having), (&mut pair.users, &mut pair.postings)]
        {
            *users += 1;
            postings.insert(series);
            if *users >= TIDY_MIN && users.is_power_of_two() {
                postings.tidy();
            }
        }
        number
    }

    fn add_name(&mut self, name: &str) -> u32 {
        let id = u32::try_from(self.names.len()).expect("fewer names than pairs");
        self.names.push(Name {
            name: name.into(),
            having: Postings::Empty,
            users: 0,
            live: 0,
            dead: 0,
            values: Mutex::default(),
        });
        self.name_ids.insert(name.into(), id);
        id
    }

    fn add_pair(&mut self, name: u32, value: &str) -> u32 {
        let pair = Pair { name, users: 0, template: NONE, value: value.into(), postings: Postings::Empty };
        let number = if let Some(number) = self.free.pop() {
            self.pairs[number as usize] = pair;
            number
        } else {
            self.pairs.push(pair);
            u32::try_from(self.pairs.len() - 1).expect("fewer than 2^32 label pairs fit in memory")
        };
        let pairs = &self.pairs;
        self.by_text.insert(hash(name, value), number, |pair| {
            let pair = &pairs[pair as usize];
            hash(pair.name, &pair.value)
        });
        let name = &mut self.names[name as usize];
        name.values.get_mut().fresh.push(number);
        // It is counted as alive when it gets its first user.
        name.dead += 1;
        number
    }

    /// Notes which template a series with the pair has.
    pub(super) fn set_template(&mut self, pair: u32, template: u32) {
        self.pairs[pair as usize].template = template;
    }

    /// Hides a series from those that look for a pair.
    pub(super) fn hide(&mut self, pair: u32, series: u32) {
        let pair = &mut self.pairs[pair as usize];
        pair.postings.remove(series);
        self.names[pair.name as usize].having.remove(series);
    }

    /// A series names the pair no more.
    pub(super) fn release(&mut self, number: u32) {
        let pair = &mut self.pairs[number as usize];
        let name = &mut self.names[pair.name as usize];
        pair.users -= 1;
        name.users -= 1;
        if pair.users > 0 {
            return;
        }
        name.live -= 1;
        name.dead += 1;
        if name.dead > DEAD_MIN + name.live / DEAD_PART {
            let name = pair.name;
            self.sweep(name);
        }
    }

    /// Takes the dead values of a name out. Names stay: there are few, and their numbers are in use.
    fn sweep(&mut self, number: u32) {
        let name = &mut self.names[number as usize];
        name.dead = 0;
        let values = name.values.get_mut();
        let mut gone = Vec::new();
        let mut keep = |pair: &u32| {
            let alive = self.pairs[*pair as usize].users > 0;
            if !alive {
                gone.push(*pair);
            }
            alive
        };
        Arc::make_mut(&mut values.sorted).retain(&mut keep);
        values.fresh.retain(&mut keep);
        for pair in gone {
            let pairs = &self.pairs;
            self.by_text.remove(hash(number, &pairs[pair as usize].value), pair, |pair| {
                let pair = &pairs[pair as usize];
                hash(pair.name, &pair.value)
            });
            self.pairs[pair as usize].value = Box::default();
            self.free.push(pair);
        }
    }

    /// The pairs of a name in order of values; dead ones, without postings, among them.
    pub(super) fn sorted(&self, name: u32) -> Arc<Vec<u32>> {
        let mut values = self.name(name).values.lock();
        let Values { sorted, fresh } = &mut *values;
        if !fresh.is_empty() {
            let text = |pair: &u32| &*self.pair(*pair).value;
            let sorted = Arc::make_mut(sorted);
            fresh.sort_unstable_by(|a, b| text(a).cmp(text(b)));
            merge(sorted, fresh, |a, b| text(a) < text(b));
            *fresh = Vec::new();
        }
        Arc::clone(sorted)
    }

    /// Bytes of all names and values, each counted once.
    pub(super) fn text_bytes(&self) -> u64 {
        let names = self.names.iter().map(|name| name.name.len() as u64);
        names.chain(self.live_pairs().map(|pair| pair.value.len() as u64)).sum()
    }
}

/// Sorts a few into many, from behind: what is moved is moved once, and what is smaller than all of them not at all.
fn merge(many: &mut Vec<u32>, few: &[u32], less: impl Fn(&u32, &u32) -> bool) {
    let mut end = many.len();
    many.resize(end + few.len(), 0);
    for (before, new) in few.iter().enumerate().rev() {
        let place = many[..end].partition_point(|old| less(old, new));
        many.copy_within(place..end, place + before + 1);
        many[place + before] = *new;
        end = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merging_sorts(mut many in prop::collection::vec(0u32..50, 0..30), mut few in prop::collection::vec(0u32..50, 0..30)) {
            many.sort_unstable();
            few.sort_unstable();
            let mut want = [many.clone(), few.clone()].concat();
            want.sort_unstable();
            merge(&mut many, &few, |a, b| a < b);
            prop_assert_eq!(many, want);
        }
    }

    #[test]
    fn dead_values_are_hidden_swept_and_can_come_back() {
        let mut words = Words::default();
        let count = (DEAD_MIN * 4) as u32;
        let numbers: Vec<u32> =
            (0..count).map(|series| words.take("id", &format!("v{series:04}"), series)).collect();
        let name = words.name_id("id").unwrap();
        assert_eq!(words.sorted(name).len(), numbers.len());
        let end = |words: &mut Words, series: u32| {
            words.hide(numbers[series as usize], series);
            words.release(numbers[series as usize]);
        };
        end(&mut words, 7);
        assert_eq!(words.name(name).live, count as usize - 1);
        assert_eq!(words.take("id", "v0007", count), numbers[7], "it was still known");
        assert_eq!(words.name(name).live, count as usize);
        words.hide(numbers[7], count);
        words.release(numbers[7]);
        (8..count).for_each(|series| end(&mut words, series));
        assert!(words.sorted(name).len() < numbers.len() / 2, "most were swept");
        let text: Vec<&str> = words.sorted(name).iter().map(|pair| words.text(*pair).1).take(3).collect();
        assert_eq!(text, ["v0000", "v0001", "v0002"]);
        let pairs = words.pairs.len();
        words.take("id", "new", count + 1);
        assert_eq!(words.pairs.len(), pairs, "numbers are used again");
        assert_eq!(
            words.find(name, "v0200").map(|pair| words.pair(pair).postings.len()).unwrap_or_default(),
            0
        );
    }
}
