//! Tombstones: what is deleted from a block and not yet cut out of it.
//!
//! A small file, wholly in memory, rewritten as a whole. A block without deletions has an empty one: a missing file is
//! damage, for else deleted samples would come back when it gets lost. The document is `docs/formats/tombstones.md`.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;

use super::{TOMBSTONES_FILE, create_synced};
use crate::coding::{DecodeError, Reader, put_uvarint, put_varint};
use crate::fs::FileSystem;

const MAGIC: [u8; 4] = *b"NILT";
const TOMBSTONES_VERSION: u16 = 1;
const HEAD_LEN: usize = 6;
/// Most bytes of the file that are read.
const BYTES_MAX: u64 = 1 << 30;

/// Deleted spans by series of a block: ascending, disjoint and not touching each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tombstones {
    series: BTreeMap<u32, Vec<TimeRange>>,
}

impl Tombstones {
    /// Adds a span; spans that touch become one.
    pub(crate) fn add(&mut self, series: u32, range: TimeRange) {
        if range.max < range.min {
            return;
        }
        let spans = self.series.entry(series).or_default();
        // Those that overlap or touch the new one are neighbours in the list.
        let from = spans.partition_point(|span| span.max < range.min.saturating_sub(1));
        let to = spans.partition_point(|span| span.min <= range.max.saturating_add(1));
        let mut joined = range;
        for span in spans.get(from..to).unwrap_or_default() {
            joined = TimeRange::new(joined.min.min(span.min), joined.max.max(span.max));
        }
        spans.splice(from..to.max(from), [joined]);
    }

    /// What is deleted of a series, ascending.
    pub(crate) fn of(&self, series: u32) -> &[TimeRange] {
        self.series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing is deleted.
    pub(crate) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Number of spans.
    pub(crate) fn len(&self) -> usize {
        self.series.values().map(Vec::len).sum()
    }

    /// Series with spans, ascending.
    pub(crate) fn series(&self) -> impl Iterator<Item = u32> + '_ {
        self.series.keys().copied()
    }

    /// The bytes of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&TOMBSTONES_VERSION.to_le_bytes());
        put_uvarint(&mut out, self.series.len() as u64);
        let mut before = 0;
        for (series, spans) in &self.series {
            put_uvarint(&mut out, u64::from(series - before));
            before = *series;
            put_uvarint(&mut out, spans.len() as u64);
            let mut at: Timestamp = 0;
            for span in spans {
                put_varint(&mut out, span.min.wrapping_sub(at));
                put_uvarint(&mut out, span.max.wrapping_sub(span.min).cast_unsigned());
                at = span.max;
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The inverse of [`Tombstones::encode`].
    ///
    /// # Errors
    /// When anything is wrong with the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(DecodeError::UnexpectedEnd)?;
        if body.get(..4) != Some(&MAGIC) {
            return Err(DecodeError::Inconsistent("magic"));
        }
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Inconsistent("checksum"));
        }
        let mut reader = Reader::new(body.get(4..).unwrap_or_default());
        if reader.u16_le()? != TOMBSTONES_VERSION {
            return Err(DecodeError::Unknown("version of tombstones"));
        }
        let mut tombstones = Self::default();
        let mut series = 0u32;
        for place in 0..reader.count(4)? {
            let step = reader.uvarint32()?;
            if place > 0 && step == 0 {
                return Err(DecodeError::Inconsistent("order of series"));
            }
            series = series.checked_add(step).ok_or(DecodeError::NumberRange)?;
            let count = reader.count(2)?;
            let mut spans: Vec<TimeRange> = Vec::with_capacity(count);
            let mut at: Timestamp = 0;
            for _ in 0..count {
                let min = at.wrapping_add(reader.varint()?);
                let max = min.wrapping_add(reader.uvarint()?.cast_signed());
                if max < min
                    || spans.last().is_some_and(|last| min.checked_sub(1).is_none_or(|at| at <= last.max))
                {
                    return Err(DecodeError::Inconsistent("order of intervals"));
                }
                spans.push(TimeRange::new(min, max));
                at = max;
            }
            if spans.is_empty() {
                return Err(DecodeError::Inconsistent("number of intervals"));
            }
            tombstones.series.insert(series, spans);
        }
        if reader.is_empty() { Ok(tombstones) } else { Err(DecodeError::Inconsistent("length")) }
    }

    /// Reads `dir/tombstones`.
    ///
    /// # Errors
    /// [`StorageError::Corrupted`] when it is damaged or of an unknown version.
    pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(TOMBSTONES_FILE);
        let io = |source| StorageError::Io { what: "reading", path: path.clone(), source };
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        fs.open(&path).map_err(io)?.take(BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
        Self::decode(&bytes).map_err(|error| StorageError::Corrupted {
            file: path.clone(),
            offset: 0,
            what: format!("tombstones: {error}"),
        })
    }

    /// Writes `dir/tombstones` and syncs it; for a directory that is not in use yet.
    pub(super) fn write(&self, fs: &dyn FileSystem, dir: &Path) -> Result<u64, StorageError> {
        let bytes = self.encode();
        create_synced(fs, &dir.join(TOMBSTONES_FILE), &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Replaces `dir/tombstones`: old or new, whatever happens. On an error it is either.
    pub(super) fn replace(&self, fs: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
        let path = dir.join(TOMBSTONES_FILE);
        let temporary = path.with_extension("tmp");
        let io = |what| {
            let path = path.clone();
            move |source| StorageError::Io { what, path, source }
        };
        let written = create_synced(fs, &temporary, &self.encode())
            .and_then(|()| fs.rename(&temporary, &path).map_err(io("replacing")));
        if written.is_err() {
            // What is left would be overwritten by the next one.
            let _ = fs.remove(&temporary);
        }
        written?;
        fs.sync_dir(dir).map_err(io("syncing the directory of"))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The document's example is a file that we write and read.
    #[test]
    fn the_example_of_the_document_is_true() {
        let example = super::super::tests::example(include_str!("../../../docs/formats/tombstones.md"));
        let mut tombstones = Tombstones::default();
        tombstones.add(2, TimeRange::new(1000, 1999));
        tombstones.add(2, TimeRange::new(5000, 5000));
        tombstones.add(300, TimeRange::ALL);
        let written = tombstones.encode();
        let hex: String = written.iter().map(|b| format!("{b:02x} ")).collect();
        assert_eq!(example, written, "written: {hex}");
        assert_eq!(Tombstones::decode(&example), Ok(tombstones));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut tombstones = Tombstones::default();
        for series in [1, 2, 70_000] {
            tombstones.add(series, TimeRange::new(-5, 9));
        }
        let bytes = tombstones.encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Tombstones::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Tombstones::decode(&bytes[..len]).is_err(), "{len}");
        }
        let mut other = bytes[..bytes.len() - 4].to_vec();
        other[4] = 9;
        let crc = crc32c::crc32c(&other);
        other.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(Tombstones::decode(&other), Err(DecodeError::Unknown("version of tombstones")));
    }

    #[test]
    fn replacing_is_all_or_nothing() {
        use crate::fs::{Fault, FaultKind, FaultyFs};
        let dir = Path::new("/b");
        let mut old = Tombstones::default();
        old.add(1, TimeRange::new(0, 5));
        let mut new = old.clone();
        new.add(3, TimeRange::new(7, 9));
        for at in 0.. {
            let fs = FaultyFs::new();
            fs.create_dir_all(dir).unwrap();
            old.write(&fs, dir).unwrap();
            fs.sync_dir(dir).unwrap();
            let before = fs.operations();
            fs.fail_at(Some(Fault { at: before + at, times: 1, kind: FaultKind::Io }));
            let done = new.replace(&fs, dir);
            fs.fail_at(None);
            let found = Tombstones::read(&fs, dir).unwrap();
            assert!(found == old || found == new);
            let after = Tombstones::read(&fs.lose_power(128), dir).unwrap();
            assert!(after == old || after == new);
            if done.is_ok() {
                assert_eq!((&found, &after), (&new, &new));
                if fs.operations() <= before + at {
                    break;
                }
            }
        }
    }

    proptest! {
        /// Against a set of milliseconds.
        #[test]
        fn spans_are_a_set_of_times(adds in prop::collection::vec((0u32..3, 0i64..60, 0i64..10), 0..30)) {
            let mut tombstones = Tombstones::default();
            let mut set = std::collections::BTreeSet::new();
            for (series, min, len) in &adds {
                tombstones.add(*series, TimeRange::new(*min, min + len));
                set.extend((*min..=min + len).map(|t| (*series, t)));
            }
            for series in 0..3 {
                for t in -1..80 {
                    let dead = tombstones.of(series).iter().any(|span| span.contains(t));
                    prop_assert_eq!(dead, set.contains(&(series, t)));
                }
            }
            prop_assert_eq!(Tombstones::decode(&tombstones.encode()), Ok(tombstones));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut sealed = MAGIC.to_vec();
            sealed.extend_from_slice(&[1, 0]);
            sealed.extend_from_slice(&bytes);
            let crc = crc32c::crc32c(&sealed);
            sealed.extend_from_slice(&crc.to_le_bytes());
            if let Ok(tombstones) = Tombstones::decode(&sealed) {
                prop_assert_eq!(Tombstones::decode(&tombstones.encode()), Ok(tombstones));
            }
        }
    }
}
