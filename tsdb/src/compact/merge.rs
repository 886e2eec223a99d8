//! Merging: sources of series in order of labels become one.
//!
//! Streaming: of each source one series is in memory, and what the source itself reads ahead. Of samples at one time that of
//! the earlier source in the list stays: callers list sources by age ([`super::set::age`]), oldest first.

use model::labels::Labels;
use model::storage::StorageError;

use super::Cancel;
use super::rules::Floors;
use crate::columns::Columns;

/// How many series are taken between two looks at whether to go on, and two words about progress.
const CANCEL_EVERY: u32 = 64;

/// Series in order of labels, each with its samples in order of time.
pub(crate) trait Source {
    /// Replaces `labels` and `columns` by the next series with samples; `false`: there is none, and they are undefined.
    ///
    /// # Errors
    /// When it cannot be read.
    fn next(&mut self, labels: &mut Labels, columns: &mut Columns) -> Result<bool, StorageError>;

    /// How many series it has not looked at yet; some of them may have no samples.
    fn left(&self) -> u64;
}

/// A source and the series it is at.
struct Cursor<S> {
    source: S,
    labels: Labels,
    columns: Columns,
    live: bool,
}

impl<S: Source> Cursor<S> {
    fn advance(&mut self) -> Result<(), StorageError> {
        self.live = self.source.next(&mut self.labels, &mut self.columns)?;
        Ok(())
    }
}

/// Gives the merged series to `sink`, in order of labels, without samples below their floor and never without any. `left` is
/// told now and then how many series the sources still have. Answers how many samples went because an earlier source has another
/// one at their time.
///
/// # Errors
/// Those of sources and sink; [`StorageError::Cancelled`].
pub(crate) fn merge<S: Source>(
    sources: Vec<S>,
    floors: &Floors,
    cancel: &Cancel<'_>,
    mut left: impl FnMut(u64),
    mut sink: impl FnMut(&Labels, &Columns) -> Result<(), StorageError>,
) -> Result<u64, StorageError> {
    let mut cursors = Vec::with_capacity(sources.len());
    for source in sources {
        let mut cursor = Cursor { source, labels: Labels::empty(), columns: Columns::default(), live: false };
        cursor.advance()?;
        cursors.push(cursor);
    }
    let mut joined = Columns::default();
    let mut taken = 0u32;
    let mut dropped = 0;
    // A handful of sources: looking at all of them for each series is cheaper than a heap, and most agree anyway.
    while let Some(labels) =
        cursors.iter().filter(|cursor| cursor.live).map(|cursor| &cursor.labels).min().cloned()
    {
        if taken.is_multiple_of(CANCEL_EVERY) {
            cancel.check()?;
            left(cursors.iter().map(|cursor| cursor.source.left()).sum());
        }
        taken = taken.wrapping_add(1);
        let mut at: Vec<&mut Cursor<S>> =
            cursors.iter_mut().filter(|cursor| cursor.live && cursor.labels == labels).collect();
        let columns = if let [only] = &mut at[..] {
            &mut only.columns
        } else {
            joined.clear();
            dropped += at.iter().map(|cursor| joined.append_part(&cursor.columns) as u64).sum::<u64>();
            dropped += joined.normalize() as u64;
            &mut joined
        };
        let floor = floors.of(&labels);
        if columns.range().is_some_and(|range| range.min < floor) {
            columns.retain(|t| t >= floor);
        }
        if !columns.is_empty() {
            sink(&labels, columns)?;
        }
        for cursor in at {
            cursor.advance()?;
        }
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::sample::Timestamp;
    use proptest::prelude::*;

    use super::*;

    struct Listed(std::vec::IntoIter<(Labels, Columns)>);

    impl Source for Listed {
        fn next(&mut self, labels: &mut Labels, columns: &mut Columns) -> Result<bool, StorageError> {
            let Some((next_labels, next_columns)) = self.0.next() else { return Ok(false) };
            (*labels, *columns) = (next_labels, next_columns);
            Ok(true)
        }

        fn left(&self) -> u64 {
            self.0.len() as u64
        }
    }

    type Samples = BTreeMap<u8, BTreeMap<Timestamp, (u64, Timestamp)>>;

    fn listed(samples: &Samples) -> Listed {
        let columns = |samples: &BTreeMap<Timestamp, (u64, Timestamp)>| {
            let mut columns = Columns::default();
            samples
                .iter()
                .for_each(|(t, (bits, start))| columns.push_float(*t, f64::from_bits(*bits), *start));
            columns
        };
        let series: Vec<_> = samples
            .iter()
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(name, samples)| (labels(*name), columns(samples)))
            .collect();
        Listed(series.into_iter())
    }

    fn labels(name: u8) -> Labels {
        // Ten and more sort by text.
        let text = format!("{name:03}");
        Labels::from_pairs([("__name__", "m"), ("n", text.as_str())])
    }

    fn samples() -> impl Strategy<Value = Samples> {
        let of_one = prop::collection::btree_map(0i64..60, (0u64..3, 0i64..3), 0..12);
        prop::collection::btree_map(0u8..12, of_one, 0..8)
    }

    proptest! {
        /// Against a map: the first source wins, floors hold, labels ascend, other values that went are counted.
        #[test]
        fn merges_like_a_map(sources in prop::collection::vec(samples(), 0..6), floor in 0i64..30) {
            let mut want = Samples::new();
            let (mut first, mut others) = (BTreeMap::new(), 0);
            for source in &sources {
                for (name, samples) in source {
                    for (t, (bits, _)) in samples {
                        others += u64::from(*first.entry((name, t)).or_insert(bits) != bits);
                    }
                    for (t, sample) in samples.iter().filter(|(t, _)| **t >= floor) {
                        want.entry(*name).or_default().entry(*t).or_insert(*sample);
                    }
                }
            }
            let listed: Vec<_> = sources.iter().map(listed).collect();
            let mut got = Samples::new();
            let mut last = None;
            let dropped = merge(listed, &Floors::all(floor), &Cancel::never(), |_| {}, |labels, columns| {
                assert!(last.replace(labels.clone()).is_none_or(|last| last < *labels));
                assert!(!columns.is_empty() && columns.times.is_sorted());
                let name = labels.get("n").unwrap().parse().unwrap();
                let start = |i: usize| columns.starts.get(i).copied().unwrap_or(0);
                let samples = columns.times.iter().enumerate();
                let samples = samples.map(|(i, t)| (*t, (columns.values[i].to_bits(), start(i)))).collect();
                got.insert(name, samples);
                Ok(())
            })
            .unwrap();
            prop_assert_eq!((got, dropped), (want, others));
        }
    }

    #[test]
    fn what_is_left_becomes_less() {
        let one = |n: u8| (n, BTreeMap::from([(1, (1, 0))]));
        let (many, few): (Samples, Samples) = ((0..200).map(one).collect(), (0..50).map(one).collect());
        let mut told = Vec::new();
        let sources = vec![listed(&many), listed(&few)];
        merge(sources, &Floors::none(), &Cancel::never(), |left| told.push(left), |_, _| Ok(())).unwrap();
        assert_eq!(told, [248, 135, 71, 7]);
    }

    #[test]
    fn errors_and_cancellation_come_through() {
        struct Failing;
        impl Source for Failing {
            fn next(&mut self, _: &mut Labels, _: &mut Columns) -> Result<bool, StorageError> {
                Err(StorageError::NotReady("test"))
            }

            fn left(&self) -> u64 {
                1
            }
        }
        let failed = merge(vec![Failing], &Floors::none(), &Cancel::never(), |_| {}, |_, _| Ok(()));
        assert!(matches!(failed, Err(StorageError::NotReady(_))));
        let one = Samples::from([(1, BTreeMap::from([(1, (1, 0))]))]);
        let stop = std::sync::atomic::AtomicBool::new(true);
        let cancelled =
            merge(vec![listed(&one)], &Floors::none(), &Cancel::on(&stop), |_| {}, |_, _| panic!("given"));
        assert!(matches!(cancelled, Err(StorageError::Cancelled)));
    }
}
