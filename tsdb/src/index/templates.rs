//! Sets of label pairs that many series share: see [`super::entries`].
//!
//! They are found, not declared: what a new series has in common with the one before is a template, unless one that is
//! nearly as large is known already. Series of one scrape or one sender come together, so this finds what their
//! target adds to each of them. A template lives as long as series use it.

use hashbrown::HashTable;
use xxhash_rust::xxh3::Xxh3;

/// Smaller sets are not worth a template.
const PAIRS_MIN: usize = 2;
/// A template with so many pairs less than the best one possible will do: neighbours also share what is theirs only, and
/// every such combination would be one more template.
const PAIRS_MISSED_MAX: usize = 3;
/// Series with more labels go without: comparing them would be quadratic, and which labels are a template's is told by 64
/// bits.
const LABELS_MAX: usize = 64;
/// Templates there may be in any case, and one more per so many series: unrelated series must not make a template each.
const COUNT_MIN: usize = 64;
const SERIES_EACH: usize = 16;

/// All templates by number.
#[derive(Debug, Default)]
pub(super) struct Templates {
    list: Vec<Template>,
    free: Vec<u32>,
    by_pairs: HashTable<u32>,
    /// The pairs of the series that came last.
    last: Vec<u32>,
}

#[derive(Debug, Default)]
struct Template {
    /// In order of names.
    pairs: Box<[u32]>,
    users: u32,
}

fn hash(pairs: &[u32]) -> u64 {
    let mut hash = Xxh3::new();
    pairs.iter().for_each(|pair| hash.update(&pair.to_le_bytes()));
    hash.digest()
}

/// Whether all of `part` are in `whole`; both in order of names.
fn is_part(part: &[u32], whole: &[u32]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|pair| whole.any(|other| other == pair))
}

impl Templates {
    /// Pairs of a template; of number `None`, none.
    pub(super) fn pairs(&self, template: Option<u32>) -> &[u32] {
        template.map_or(&[], |template| &self.list[template as usize].pairs)
    }

    /// A template for a new series with these pairs (in order of names), and whether it was made just now. `known` are
    /// templates that may fit, valid or not; `series` is the number of series there are.
    pub(super) fn choose(
        &mut self,
        pairs: &[u32],
        known: impl Iterator<Item = u32>,
        series: usize,
    ) -> Option<(u32, bool)> {
        if pairs.len() > LABELS_MAX {
            return None;
        }
        let mut best: Option<(u32, usize)> = None;
        for template in known {
            let Some(Template { pairs: its, .. }) = self.list.get(template as usize) else { continue };
            if its.len() > best.map_or(0, |best| best.1) && is_part(its, pairs) {
                best = Some((template, its.len()));
            }
        }
        let mut shared: Vec<u32> = Vec::with_capacity(pairs.len());
        shared.extend(pairs.iter().filter(|pair| self.last.contains(pair)));
        self.last.clear();
        self.last.extend_from_slice(pairs);
        let enough = best.map_or(0, |best| best.1) + PAIRS_MISSED_MAX.min(shared.len().saturating_sub(1))
            >= shared.len();
        if best.is_some() && enough {
            return best.map(|best| (best.0, false));
        }
        let count = self.list.len() - self.free.len();
        let room = count < COUNT_MIN + series / SERIES_EACH;
        if shared.len() < PAIRS_MIN || shared.len() == pairs.len() && best.is_some() || !room {
            return best.map(|best| (best.0, false));
        }
        Some(self.intern(shared))
    }

    fn intern(&mut self, pairs: Vec<u32>) -> (u32, bool) {
        let wanted = hash(&pairs);
        let same = |template: &u32| *self.list[*template as usize].pairs == *pairs;
        if let Some(found) = self.by_pairs.find(wanted, same) {
            return (*found, false);
        }
        let template = Template { pairs: pairs.into(), users: 0 };
        let number = match self.free.pop() {
            Some(number) => {
                self.list[number as usize] = template;
                number
            }
            None => {
                self.list.push(template);
                u32::try_from(self.list.len() - 1).expect("fewer than series")
            }
        };
        let list = &self.list;
        self.by_pairs.insert_unique(wanted, number, |template| hash(&list[*template as usize].pairs));
        (number, true)
    }

    /// One more series uses it.
    pub(super) fn take(&mut self, template: u32) {
        self.list[template as usize].users += 1;
    }

    /// A series uses it no more.
    pub(super) fn release(&mut self, template: u32) {
        let entry = &mut self.list[template as usize];
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let pairs = std::mem::take(&mut entry.pairs);
        if let Ok(found) = self.by_pairs.find_entry(hash(&pairs), |other| *other == template) {
            found.remove();
        }
        self.free.push(template);
    }

    /// Number of templates in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len() - self.free.len()
    }
}
