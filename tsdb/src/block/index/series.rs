//! The labels of one series as numbers of pairs, coded against the series before.
//!
//! The first varint's two lowest bits say how: 0, the same names: the bits above say which labels (by place) have another
//! pair, then per such label svarint difference of the pair's number. 1, other names: two bits per old label (0 keep, 1
//! another value: as before, 2 gone), then varint number of new labels, their pairs' numbers. 2, whole: the bits above
//! are the number of labels; then pairs ascending, varint differences.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use crate::coding::{DecodeError, Reader, put_uvarint, put_varint};

const SAME_NAMES: u64 = 0;
const OTHER_NAMES: u64 = 1;
const WHOLE: u64 = 2;

const KEEP: u64 = 0;
const REPLACE: u64 = 1;
const GONE: u64 = 2;

/// Most labels that a mask has bits for.
const MASK_MAX: usize = 31;

/// A label pair as the writer knows it: number of the name, number of the pair. Pairs of a series ascend in both.
pub(super) type Pair = (u32, u32);

/// Appends `pairs`, coded against `before`; whole when that is `None`.
pub(super) fn encode(before: Option<&[Pair]>, pairs: &[Pair], out: &mut Vec<u8>) {
    let Some(before) = before.filter(|before| before.len() <= MASK_MAX && pairs.len() <= MASK_MAX) else {
        put_uvarint(out, (pairs.len() as u64) << 2 | WHOLE);
        let mut last = 0;
        for (_, pair) in pairs {
            put_uvarint(out, u64::from(pair - last));
            last = *pair;
        }
        return;
    };
    let difference = |old: &Pair, new: &Pair, out: &mut Vec<u8>| {
        put_varint(out, i64::from(new.1) - i64::from(old.1));
    };
    let same_names = before.len() == pairs.len() && before.iter().zip(pairs).all(|(a, b)| a.0 == b.0);
    if same_names {
        let changed = || before.iter().zip(pairs).enumerate().filter(|(_, (old, new))| old != new);
        let mask = changed().fold(0u64, |mask, (place, _)| mask | 1 << place);
        put_uvarint(out, mask << 2 | SAME_NAMES);
        changed().for_each(|(_, (old, new))| difference(old, new, out));
        return;
    }
    let now = |name: u32| pairs.binary_search_by_key(&name, |pair| pair.0).ok().and_then(|at| pairs.get(at));
    let mut mask = 0;
    for (place, old) in before.iter().enumerate() {
        let what = match now(old.0) {
            None => GONE,
            Some(new) if new == old => KEEP,
            Some(_) => REPLACE,
        };
        mask |= what << (2 * place);
    }
    // 62 bits of mask at most and two of kind.
    put_uvarint(out, mask << 2 | OTHER_NAMES);
    for old in before {
        if let Some(new) = now(old.0).filter(|new| *new != old) {
            difference(old, new, out);
        }
    }
    let is_new = |pair: &&Pair| before.binary_search_by_key(&pair.0, |old| old.0).is_err();
    put_uvarint(out, pairs.iter().filter(is_new).count() as u64);
    pairs.iter().filter(is_new).for_each(|pair| put_uvarint(out, u64::from(pair.1)));
}

/// Turns `pairs` from the series before into the next; `first` tells that there is none before. On an error `pairs` is of
/// no use.
pub(super) fn decode(reader: &mut Reader<'_>, first: bool, pairs: &mut Vec<u32>) -> Result<(), DecodeError> {
    const BAD: DecodeError = DecodeError::Inconsistent("labels of a series");
    let head = reader.uvarint()?;
    let rest = head >> 2;
    match head & 3 {
        SAME_NAMES if !first => {
            if pairs.len() < 64 && rest >> pairs.len() != 0 {
                return Err(BAD);
            }
            for (place, pair) in pairs.iter_mut().enumerate().take(64) {
                if rest >> place & 1 == 1 {
                    *pair = moved(*pair, reader.varint()?)?;
                }
            }
        }
        OTHER_NAMES if !first => {
            if pairs.len() > MASK_MAX || rest >> (2 * pairs.len()) != 0 {
                return Err(BAD);
            }
            let (mut kept, mut mask) = (0, rest);
            for place in 0..pairs.len() {
                let pair = *pairs.get(place).ok_or(BAD)?;
                let pair = match mask & 3 {
                    KEEP => Some(pair),
                    REPLACE => Some(moved(pair, reader.varint()?)?),
                    GONE => None,
                    _ => return Err(BAD),
                };
                mask >>= 2;
                if let (Some(pair), Some(slot)) = (pair, pairs.get_mut(kept)) {
                    *slot = pair;
                    kept += 1;
                }
            }
            pairs.truncate(kept);
            for _ in 0..reader.count(1)? {
                pairs.push(reader.uvarint32()?);
            }
            pairs.sort_unstable();
        }
        WHOLE => {
            pairs.clear();
            let count = usize::try_from(rest).ok().filter(|count| *count <= reader.remaining());
            let mut last = 0u32;
            for _ in 0..count.ok_or(DecodeError::UnexpectedEnd)? {
                last = last.checked_add(reader.uvarint32()?).ok_or(DecodeError::NumberRange)?;
                pairs.push(last);
            }
        }
        _ => return Err(DecodeError::Unknown("kind of series")),
    }
    if pairs.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(BAD) }
}

fn moved(pair: u32, by: i64) -> Result<u32, DecodeError> {
    let to = i64::from(pair).checked_add(by).and_then(|to| u32::try_from(to).ok());
    to.ok_or(DecodeError::NumberRange)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Names in order, each with a hundred pairs.
    fn sets() -> impl Strategy<Value = Vec<Vec<Pair>>> {
        let set = prop::collection::btree_map(0u32..40, 0u32..100, 0..36);
        let list = |set: BTreeMap<u32, u32>| {
            set.into_iter().map(|(name, value)| (name, name * 100 + value)).collect()
        };
        prop::collection::vec(set.prop_map(list), 1..6)
    }

    proptest! {
        #[test]
        fn series_survive(sets in sets()) {
            let mut out = Vec::new();
            for (place, set) in sets.iter().enumerate() {
                encode(place.checked_sub(1).map(|before| &*sets[before]), set, &mut out);
            }
            let mut reader = Reader::new(&out);
            let mut pairs = Vec::new();
            for (place, set) in sets.iter().enumerate() {
                decode(&mut reader, place == 0, &mut pairs).unwrap();
                prop_assert!(pairs.iter().copied().eq(set.iter().map(|pair| pair.1)));
            }
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn anything_may_come(bytes in prop::collection::vec(any::<u8>(), 0..40), before in prop::collection::btree_set(0u32..1000, 0..40)) {
            let mut pairs: Vec<u32> = before.into_iter().collect();
            let _ = decode(&mut Reader::new(&bytes), false, &mut pairs);
        }
    }
}
