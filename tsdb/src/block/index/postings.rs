//! Postings of a block on disk: lists of runs of series numbers, or roaring bitmaps, whichever is shorter.
//!
//! A list is, per run, varint `gap << 1 | more` (`gap`: numbers left out since the end of the run before), and where `more`
//! is set varint `length - 2`. Series of a block are numbered in order of their labels, so a metric name is one run.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use roaring::RoaringBitmap;

use crate::coding::{DecodeError, Reader, put_uvarint};
use crate::index::Postings;

/// Lists up to this length stand beside their value, so that they cost no second page.
const INLINE_MAX: usize = 16;
/// Lists of at most so many runs stay lists: below it nothing is gained by a bitmap.
const LIST_RUNS_MAX: u32 = 64;
/// Sets of at most so many ids are plain lists in memory.
const PLAIN_MAX: u32 = 64;

const PLACE_INLINE: u64 = 0;
const PLACE_LIST: u64 = 1;
const PLACE_BITMAP: u64 = 2;

/// Collects the series of one label pair, ascending. There is one for each pair of a block until the end, and where there are many
/// pairs most have one run: only others have more than that.
#[derive(Debug, Default)]
pub(super) struct ListBuilder {
    /// The run that is still growing.
    start: u32,
    len: u32,
    closed: Option<Box<ClosedRuns>>,
}

/// The runs of a list but for the last.
#[derive(Debug, Default)]
struct ClosedRuns {
    bytes: Vec<u8>,
    /// Series in them.
    count: u32,
    runs: u32,
    /// Behind the last of them.
    end: u32,
}

impl ListBuilder {
    /// Adds a series above all that were added.
    pub(super) fn push(&mut self, series: u32) {
        if self.len > 0 && self.start + self.len == series {
            self.len += 1;
            return;
        }
        self.close_run();
        self.start = series;
        self.len = 1;
    }

    fn close_run(&mut self) {
        if self.len == 0 {
            return;
        }
        let closed = self.closed.get_or_insert_default();
        let gap = u64::from(self.start - closed.end);
        put_uvarint(&mut closed.bytes, gap << 1 | u64::from(self.len > 1));
        if self.len > 1 {
            put_uvarint(&mut closed.bytes, u64::from(self.len - 2));
        }
        closed.count += self.len;
        closed.runs += 1;
        closed.end = self.start + self.len;
        self.len = 0;
    }

    /// Writes what [`PostingsRef::decode`] reads to `out`, and what does not fit there to `section`.
    pub(super) fn finish(mut self, out: &mut Vec<u8>, section: &mut Vec<u8>) {
        if self.closed.is_none() && self.len == 1 {
            put_uvarint(out, 1);
            put_uvarint(out, u64::from(self.start));
            return;
        }
        self.close_run();
        let closed = self.closed.unwrap_or_default();
        put_uvarint(out, u64::from(closed.count));
        if closed.bytes.len() <= INLINE_MAX {
            put_uvarint(out, (closed.bytes.len() as u64) << 2 | PLACE_INLINE);
            out.extend_from_slice(&closed.bytes);
            return;
        }
        let start = section.len();
        section.extend_from_slice(&closed.bytes);
        let mut place = PLACE_LIST;
        if closed.runs > LIST_RUNS_MAX
            && let Some(bitmap) = closed.as_bitmap()
        {
            section.truncate(start);
            bitmap.serialize_into(&mut *section).expect("memory takes all writes");
            place = PLACE_BITMAP;
        }
        put_uvarint(out, ((section.len() - start) as u64) << 2 | place);
    }
}

impl ClosedRuns {
    /// The bitmap, when it is not more than twice as long: it reads faster.
    fn as_bitmap(&self) -> Option<RoaringBitmap> {
        let mut bitmap = RoaringBitmap::new();
        for_each_run(&mut Reader::new(&self.bytes), |start, end| add_run(&mut bitmap, start, end)).ok()?;
        bitmap.optimize();
        (bitmap.serialized_size() <= self.bytes.len() * 2).then_some(bitmap)
    }
}

/// Calls `run` with the first and the last number of each run.
fn for_each_run(reader: &mut Reader<'_>, mut run: impl FnMut(u32, u32)) -> Result<(), DecodeError> {
    let mut next = 0u64;
    while !reader.is_empty() {
        let head = reader.uvarint()?;
        let len = if head & 1 == 1 { reader.uvarint()?.saturating_add(2) } else { 1 };
        let start = next.saturating_add(head >> 1);
        next = start.saturating_add(len);
        let last = u32::try_from(next - 1).map_err(|_| DecodeError::NumberRange)?;
        run(u32::try_from(start).map_err(|_| DecodeError::NumberRange)?, last);
    }
    Ok(())
}

fn add_run(bitmap: &mut RoaringBitmap, start: u32, last: u32) {
    if start == last {
        bitmap.insert(start);
    } else {
        bitmap.insert_range(start..=last);
    }
}

/// Where the postings of a label pair are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PostingsRef {
    /// Number of series.
    pub(super) count: u32,
    pub(super) place: Place,
}

/// See [`PostingsRef`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    One(u32),
    Inline([u8; INLINE_MAX], u8),
    /// In the section of postings, at this place of its plain bytes.
    Section {
        offset: u64,
        len: u64,
        bitmap: bool,
    },
}

impl PostingsRef {
    /// Reads what [`ListBuilder::finish`] wrote. `offset` is where the next postings are in the section, and is moved on.
    pub(super) fn decode(reader: &mut Reader<'_>, offset: &mut u64) -> Result<Self, DecodeError> {
        let count = reader.uvarint32()?;
        if count == 0 {
            return Err(DecodeError::Inconsistent("number of series"));
        }
        if count == 1 {
            return Ok(Self { count, place: Place::One(reader.uvarint32()?) });
        }
        let head = reader.uvarint()?;
        let len = head >> 2;
        let place = match head & 3 {
            PLACE_INLINE => {
                let small = usize::try_from(len).ok().filter(|len| *len <= INLINE_MAX);
                let bytes = reader.bytes(small.ok_or(DecodeError::NumberRange)?)?;
                let mut inline = [0; INLINE_MAX];
                inline.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                Place::Inline(inline, bytes.len().try_into().unwrap_or_default())
            }
            place @ (PLACE_LIST | PLACE_BITMAP) => {
                let at = *offset;
                *offset = at.checked_add(len).ok_or(DecodeError::NumberRange)?;
                Place::Section { offset: at, len, bitmap: place == PLACE_BITMAP }
            }
            _ => return Err(DecodeError::Unknown("place of postings")),
        };
        Ok(Self { count, place })
    }

    /// The postings; `bytes` are those of the section where they are there. `series` bounds the numbers.
    pub(super) fn postings(&self, bytes: &[u8], series: u32) -> Result<Postings, DecodeError> {
        const BAD: DecodeError = DecodeError::Inconsistent("postings");
        let postings = match &self.place {
            Place::One(one) => Postings::One(*one),
            Place::Inline(bytes, len) => self.list(bytes.get(..usize::from(*len)).unwrap_or_default())?,
            Place::Section { bitmap: false, .. } => self.list(bytes)?,
            Place::Section { bitmap: true, .. } => {
                let mut rest = bytes;
                let bitmap = RoaringBitmap::deserialize_from(&mut rest).map_err(|_| BAD)?;
                if !rest.is_empty() {
                    return Err(BAD);
                }
                Postings::of_bitmap(bitmap)
            }
        };
        let fits =
            postings.len() == u64::from(self.count) && postings.last().is_some_and(|last| last < series);
        if fits { Ok(postings) } else { Err(BAD) }
    }

    fn list(&self, bytes: &[u8]) -> Result<Postings, DecodeError> {
        let mut reader = Reader::new(bytes);
        if self.count > PLAIN_MAX {
            let mut bitmap = RoaringBitmap::new();
            for_each_run(&mut reader, |start, last| add_run(&mut bitmap, start, last))?;
            return Ok(Postings::of_bitmap(bitmap));
        }
        let mut ids = Vec::with_capacity(self.count as usize);
        // A run too long would be a lot of numbers: what is too much is found out by the count.
        for_each_run(&mut reader, |start, last| ids.extend((start..=last).take(self.count as usize + 1)))?;
        Ok(Postings::of_sorted(ids))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn round_trip(ids: &BTreeSet<u32>, series: u32) -> Result<Postings, DecodeError> {
        let mut list = ListBuilder::default();
        ids.iter().for_each(|id| list.push(*id));
        let (mut out, mut section) = (Vec::new(), vec![9; 3]);
        list.finish(&mut out, &mut section);
        let mut reader = Reader::new(&out);
        let mut offset = 3;
        let found = PostingsRef::decode(&mut reader, &mut offset)?;
        assert!(reader.is_empty());
        assert_eq!(offset, section.len() as u64);
        assert_eq!(found.count as usize, ids.len());
        let bytes = match found.place {
            Place::Section { offset, len, .. } => &section[offset as usize..(offset + len) as usize],
            Place::One(_) | Place::Inline(..) => &[],
        };
        found.postings(bytes, series)
    }

    fn ids() -> impl Strategy<Value = BTreeSet<u32>> {
        prop_oneof![
            prop::collection::btree_set(0u32..200_000, 1..300),
            (0u32..1000, 1u32..3000).prop_map(|(start, len)| (start..start + len).collect()),
            (1u32..5, 1u32..70_000).prop_map(|(step, len)| (0..len).step_by(step as usize).collect()),
        ]
    }

    proptest! {
        #[test]
        fn postings_survive(ids in ids()) {
            let last = *ids.last().unwrap();
            let mut got = Vec::new();
            round_trip(&ids, last + 1).unwrap().for_each(|id| got.push(id));
            prop_assert!(got.iter().eq(&ids));
            prop_assert_eq!(round_trip(&ids, last).err(), Some(DecodeError::Inconsistent("postings")));
        }

        #[test]
        fn anything_may_come(bytes in prop::collection::vec(any::<u8>(), 0..40), bitmap: bool, count in 2u32..100) {
            let _ = PostingsRef::decode(&mut Reader::new(&bytes), &mut 5);
            let place = Place::Section { offset: 0, len: bytes.len() as u64, bitmap };
            let _ = PostingsRef { count, place }.postings(&bytes, 1000);
        }
    }
}
