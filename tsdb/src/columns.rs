//! Samples of one series as columns: what travels between head, blocks, compaction and readers.

use std::sync::Arc;

use model::histogram::CounterResetHint;
use model::sample::{TimeRange, Timestamp};
use model::storage::SeriesColumns;

use crate::chunk::HistogramValue;

/// The samples of one series, by kind. Meant to be reused: [`Columns::clear`] keeps the memory.
///
/// Whoever fills it may append runs in any order; [`Columns::normalize`] brings them into order of time. Values are kept as
/// `f64` whose bits nobody touches: NaN payloads and negative zero come through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    /// Times of floats.
    pub(crate) times: Vec<Timestamp>,
    /// Their values.
    pub(crate) values: Vec<f64>,
    /// Their start timestamps (0: unknown); empty when none is known, else as long as `times`.
    pub(crate) starts: Vec<Timestamp>,
    /// Times of histograms.
    pub(crate) histogram_times: Vec<Timestamp>,
    /// Their values.
    pub(crate) histograms: Vec<HistogramValue>,
    /// Their start timestamps, as `starts`.
    pub(crate) histogram_starts: Vec<Timestamp>,
}

impl Columns {
    /// Empties all columns, keeping their memory.
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.starts.clear();
        self.histogram_times.clear();
        self.histograms.clear();
        self.histogram_starts.clear();
    }

    /// Number of samples of all kinds.
    pub(crate) fn len(&self) -> usize {
        self.times.len() + self.histogram_times.len()
    }

    /// Whether there is no sample.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From the first to the last sample of a normalized series.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        let ends = |times: &[Timestamp]| Some((*times.first()?, *times.last()?));
        match (ends(&self.times), ends(&self.histogram_times)) {
            (Some((a, b)), Some((c, d))) => Some(TimeRange::new(a.min(c), b.max(d))),
            (Some((a, b)), None) | (None, Some((a, b))) => Some(TimeRange::new(a, b)),
            (None, None) => None,
        }
    }

    /// Appends a float sample; `start` 0 is unknown.
    pub(crate) fn push_float(&mut self, t: Timestamp, value: f64, start: Timestamp) {
        if start != 0 && self.starts.is_empty() {
            self.starts.resize(self.times.len(), 0);
        }
        if start != 0 || !self.starts.is_empty() {
            self.starts.push(start);
        }
        self.times.push(t);
        self.values.push(value);
    }

    /// Appends a histogram; `start` 0 is unknown.
    pub(crate) fn push_histogram(&mut self, t: Timestamp, value: HistogramValue, start: Timestamp) {
        if start != 0 && self.histogram_starts.is_empty() {
            self.histogram_starts.resize(self.histogram_times.len(), 0);
        }
        if start != 0 || !self.histogram_starts.is_empty() {
            self.histogram_starts.push(start);
        }
        self.histogram_times.push(t);
        self.histograms.push(value);
    }

    /// Appends all of `other`, which keeps its memory.
    pub(crate) fn append(&mut self, other: &Self) {
        fn starts(to: &mut Vec<Timestamp>, before: usize, from: &[Timestamp], count: usize) {
            if to.is_empty() && from.is_empty() {
                return;
            }
            to.resize(before, 0);
            to.extend_from_slice(from);
            to.resize(before + count, 0);
        }
        starts(&mut self.starts, self.times.len(), &other.starts, other.times.len());
        starts(
            &mut self.histogram_starts,
            self.histogram_times.len(),
            &other.histogram_starts,
            other.histogram_times.len(),
        );
        self.times.extend_from_slice(&other.times);
        self.values.extend_from_slice(&other.values);
        self.histogram_times.extend_from_slice(&other.histogram_times);
        self.histograms.extend(other.histograms.iter().cloned());
    }

    /// Brings samples of each kind into order of time. Of several at one time the one that was appended first stays; of two kinds
    /// the one of the earlier source, which [`Columns::close_seam`] saw to. Within a source there is one sample at a time, so that
    /// which kind came first is not kept there; should damage have made two of it, the float stays.
    ///
    /// Histograms that came out of order lose their counter reset hints but for gauges: a hint speaks of the predecessor
    /// that the sender knew.
    ///
    /// Answers how many samples went that another value at their time had come before.
    pub(crate) fn normalize(&mut self) -> usize {
        let mut dropped = 0;
        if !ascend(&self.times) {
            let values = &self.values;
            let (order, others) = order(&self.times, |a, b| values[a].to_bits() == values[b].to_bits());
            dropped += others;
            permute(&mut self.times, &order);
            permute(&mut self.values, &order);
            permute(&mut self.starts, &order);
        }
        if !ascend(&self.histogram_times) {
            let values = &self.histograms;
            let (order, others) = order(&self.histogram_times, |a, b| values[a].same_but_hint(&values[b]));
            dropped += others;
            permute(&mut self.histogram_times, &order);
            permute(&mut self.histograms, &order);
            permute(&mut self.histogram_starts, &order);
            self.histograms.iter_mut().for_each(HistogramValue::forget_hint);
        }
        dropped + self.drop_histograms_beside_floats()
    }

    /// Both in order of time.
    fn drop_histograms_beside_floats(&mut self) -> usize {
        if self.times.is_empty() || self.histogram_times.is_empty() {
            return 0;
        }
        let is_beside = |t: &Timestamp| self.times.binary_search(t).is_ok();
        let order: Vec<usize> = (0..self.histogram_times.len())
            .filter(|place| !is_beside(&self.histogram_times[*place]))
            .collect();
        let dropped = self.histogram_times.len() - order.len();
        if dropped > 0 {
            permute(&mut self.histogram_times, &order);
            permute(&mut self.histograms, &order);
            permute(&mut self.histogram_starts, &order);
            // Some have lost the predecessor that they speak of.
            self.histograms.iter_mut().for_each(HistogramValue::forget_hint);
        }
        dropped
    }

    /// Appends what a later source has of the same series: at times at which there is a sample already, that one stays. Its first
    /// histogram loses its counter reset hint: what came before it there need not be what comes before it here.
    /// Answers how many of the later source went since the other kind has their time.
    pub(crate) fn append_part(&mut self, other: &Self) -> usize {
        let seam = self.seam();
        self.append(other);
        self.close_seam(seam)
    }

    /// Where a later source's samples will begin, for [`Columns::close_seam`].
    pub(crate) fn seam(&self) -> Seam {
        Seam { floats: self.times.len(), histograms: self.histogram_times.len() }
    }

    /// As [`Columns::append_part`], when what was appended since [`Columns::seam`] is the later source's. Samples of one kind are
    /// left to [`Columns::normalize`], which knows by their order which of them was first.
    pub(crate) fn close_seam(&mut self, seam: Seam) -> usize {
        if seam.floats == 0 && seam.histograms == 0 {
            return 0;
        }
        let before = self.len();
        if let Some(first) = self.histograms.get_mut(seam.histograms) {
            first.forget_hint();
        }
        let (times, histogram_times) = (&self.times, &self.histogram_times);
        let floats = not_among(&histogram_times[..seam.histograms], &times[seam.floats..]);
        let histograms = not_among(&times[..seam.floats], &histogram_times[seam.histograms..]);
        if let Some(marks) = floats {
            keep_from(&mut self.times, seam.floats, &marks);
            keep_from(&mut self.values, seam.floats, &marks);
            keep_from(&mut self.starts, seam.floats, &marks);
        }
        if let Some(marks) = histograms {
            self.forget_behind_gaps(seam.histograms, &marks);
            keep_from(&mut self.histogram_times, seam.histograms, &marks);
            keep_from(&mut self.histograms, seam.histograms, &marks);
            keep_from(&mut self.histogram_starts, seam.histograms, &marks);
        }
        before - self.len()
    }

    /// Histograms from place `from` on lose what they say of a predecessor that goes.
    fn forget_behind_gaps(&mut self, from: usize, marks: &[bool]) {
        for place in 1..marks.len() {
            if marks[place] && !marks[place - 1] {
                self.histograms[from + place].forget_hint();
            }
        }
    }

    /// Deletes all samples but those that `keep` accepts by their times. A histogram whose predecessor goes loses its counter
    /// reset hint; also one that becomes the first, since other sources may have something before it.
    pub(crate) fn retain(&mut self, keep: impl FnMut(Timestamp) -> bool) {
        self.filter(keep, true);
    }

    /// Keeps the samples of a span of time, which `within` accepts: nothing is deleted, the others are only not asked for.
    pub(crate) fn clip(&mut self, within: impl FnMut(Timestamp) -> bool) {
        self.filter(within, false);
    }

    fn filter(&mut self, mut keep: impl FnMut(Timestamp) -> bool, deletes: bool) {
        let marks: Vec<bool> = self.times.iter().map(|t| keep(*t)).collect();
        if marks.contains(&false) {
            keep_from(&mut self.times, 0, &marks);
            keep_from(&mut self.values, 0, &marks);
            keep_from(&mut self.starts, 0, &marks);
        }
        let marks: Vec<bool> = self.histogram_times.iter().map(|t| keep(*t)).collect();
        if marks.contains(&false) {
            if deletes {
                self.forget_behind_gaps(0, &marks);
            }
            keep_from(&mut self.histogram_times, 0, &marks);
            keep_from(&mut self.histograms, 0, &marks);
            keep_from(&mut self.histogram_starts, 0, &marks);
        }
    }

    /// Hands the samples to a reader of the store, histograms as floats; what the reader had is gone.
    pub(crate) fn hand_over(&mut self, into: &mut SeriesColumns) {
        into.clear();
        std::mem::swap(&mut self.times, &mut into.float_times);
        std::mem::swap(&mut self.values, &mut into.float_values);
        std::mem::swap(&mut self.starts, &mut into.float_starts);
        std::mem::swap(&mut self.histogram_times, &mut into.histogram_times);
        std::mem::swap(&mut self.histogram_starts, &mut into.histogram_starts);
        into.histograms.extend(self.histograms.drain(..).map(|histogram| histogram.to_float()));
        if into.float_starts.iter().all(|start| *start == 0) {
            into.float_starts.clear();
        }
        if into.histogram_starts.iter().all(|start| *start == 0) {
            into.histogram_starts.clear();
        }
    }
}

impl HistogramValue {
    /// Forgets what is said of the predecessor.
    pub(crate) fn forget_hint(&mut self) {
        let unsure =
            |hint| matches!(hint, CounterResetHint::CounterReset | CounterResetHint::NotCounterReset);
        match self {
            Self::Integer(h) if unsure(h.counter_reset_hint) => {
                Arc::make_mut(h).counter_reset_hint = CounterResetHint::Unknown;
            }
            Self::Float(h) if unsure(h.counter_reset_hint) => {
                Arc::make_mut(h).counter_reset_hint = CounterResetHint::Unknown;
            }
            Self::Integer(_) | Self::Float(_) => {}
        }
    }
}

/// Where the samples of one source end and those of a later one begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seam {
    floats: usize,
    histograms: usize,
}

/// Which of `later` are at no time of `earlier`; `None`: all of them.
fn not_among(earlier: &[Timestamp], later: &[Timestamp]) -> Option<Vec<bool>> {
    // Mostly a series has samples of one kind only.
    if earlier.is_empty() {
        return None;
    }
    let (first, last) = (later.iter().min()?, later.iter().max()?);
    let mut taken: Vec<Timestamp> = earlier.iter().filter(|t| (first..=last).contains(t)).copied().collect();
    if !taken.is_sorted() {
        taken.sort_unstable();
    }
    let marks: Vec<bool> = later.iter().map(|t| taken.binary_search(t).is_err()).collect();
    marks.contains(&false).then_some(marks)
}

/// Keeps of what is in a column from place `from` on what is marked. A column that has nothing there is one that is not kept.
fn keep_from<T>(column: &mut Vec<T>, from: usize, marks: &[bool]) {
    let mut place: usize = 0;
    column.retain(|_| {
        let mark = place.checked_sub(from).and_then(|place| marks.get(place)).copied();
        place += 1;
        mark.unwrap_or(true)
    });
}

fn ascend(times: &[Timestamp]) -> bool {
    /// Compared together, without a branch for each: nearly all columns ascend.
    const RUN: usize = 64;
    let later = times.get(1..).unwrap_or_default();
    let runs = times.chunks(RUN).zip(later.chunks(RUN));
    runs.into_iter().all(|(before, after)| before.iter().zip(after).fold(true, |all, (a, b)| all & (a < b)))
}

/// Places in order of time, of equal times the first; and how many of the others do not have the same value.
fn order(times: &[Timestamp], is_same: impl Fn(usize, usize) -> bool) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by_key(|place| times[*place]);
    let mut others = 0;
    order.dedup_by(|later, first| {
        let at_once = times[*later] == times[*first];
        others += usize::from(at_once && !is_same(*first, *later));
        at_once
    });
    (order, others)
}

fn permute<T: Clone>(column: &mut Vec<T>, order: &[usize]) {
    if !column.is_empty() {
        *column = order.iter().map(|place| column[*place].clone()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn within_a_source_a_float_stays_where_a_histogram_is_at_the_same_time() {
        let histogram = |hint| {
            let histogram = model::histogram::Histogram { counter_reset_hint: hint, ..Default::default() };
            HistogramValue::Integer(Arc::new(histogram))
        };
        let mut all = Columns::default();
        for t in [1, 2, 3, 5] {
            all.push_histogram(t, histogram(CounterResetHint::NotCounterReset), t);
        }
        for t in [4, 2, 0] {
            all.push_float(t, 1.0, 0);
        }
        let mut apart = all.clone();
        all.normalize();
        assert_eq!((&all.times[..], &all.histogram_times[..]), (&[0, 2, 4][..], &[1, 3, 5][..]));
        assert_eq!((&all.histogram_starts[..], all.histograms.len()), (&[1, 3, 5][..], 3));
        let hint = |h: &HistogramValue| h.to_float().counter_reset_hint;
        assert!(all.histograms.iter().all(|h| hint(h) == CounterResetHint::Unknown));
        apart.times = vec![10, 11, 12];
        apart.normalize();
        assert_eq!(apart.histogram_times.len(), 4);
        assert!(apart.histograms.iter().all(|h| hint(h) == CounterResetHint::NotCounterReset));
    }

    /// The hint of a histogram whose predecessor is deleted, or is another source's.
    #[test]
    fn hints_end_at_seams() {
        use CounterResetHint::{Gauge, NotCounterReset, Unknown};
        let part = |times: &[i64], hint| {
            let mut part = Columns::default();
            for t in times {
                let histogram =
                    model::histogram::Histogram { counter_reset_hint: hint, ..Default::default() };
                part.push_histogram(*t, HistogramValue::Integer(Arc::new(histogram)), 0);
            }
            part
        };
        let hints = |columns: &Columns| -> Vec<CounterResetHint> {
            columns.histograms.iter().map(|h| h.to_float().counter_reset_hint).collect()
        };
        let mut deleted = part(&[1, 2, 3, 4, 5, 6], NotCounterReset);
        let mut clipped = deleted.clone();
        deleted.retain(|t| t != 1 && t != 4);
        assert_eq!(hints(&deleted), [Unknown, NotCounterReset, Unknown, NotCounterReset]);
        clipped.clip(|t| (2..5).contains(&t));
        assert_eq!(hints(&clipped), [NotCounterReset; 3]);
        let mut joined = Columns::default();
        for times in [[1, 2], [3, 4]] {
            joined.append_part(&part(&times, NotCounterReset));
        }
        joined.append_part(&part(&[5], Gauge));
        joined.normalize();
        assert_eq!(hints(&joined), [NotCounterReset, NotCounterReset, Unknown, NotCounterReset, Gauge]);
    }

    proptest! {
        /// Against a map: of several sources the first that has a time keeps it, of whatever kind.
        #[test]
        fn the_first_source_stays(parts in prop::collection::vec(
            prop::collection::btree_map(0i64..30, (any::<bool>(), 0i64..3), 0..20), 0..5,
        )) {
            let mut want: BTreeMap<i64, (bool, usize, i64)> = BTreeMap::new();
            let mut all = Columns::default();
            for (number, samples) in parts.iter().enumerate() {
                let mut part = Columns::default();
                for (t, (is_float, start)) in samples {
                    if *is_float {
                        part.push_float(*t, number as f64, *start);
                    } else {
                        let histogram = model::histogram::Histogram {
                            sum: number as f64,
                            counter_reset_hint: CounterResetHint::NotCounterReset,
                            ..Default::default()
                        };
                        part.push_histogram(*t, HistogramValue::Integer(Arc::new(histogram)), *start);
                    }
                    want.entry(*t).or_insert((*is_float, number, *start));
                }
                all.append_part(&part);
            }
            all.normalize();
            let start = |starts: &[i64], place: usize| starts.get(place).copied().unwrap_or(0);
            let mut got = BTreeMap::new();
            for (place, t) in all.times.iter().enumerate() {
                got.insert(*t, (true, all.values[place] as usize, start(&all.starts, place)));
            }
            let mut before = None;
            for (place, t) in all.histogram_times.iter().enumerate() {
                let histogram = all.histograms[place].to_float();
                got.insert(*t, (false, histogram.sum as usize, start(&all.histogram_starts, place)));
                // A hint that is left speaks of the histogram before, and that is the one before it in its own source, too.
                if place > 0 && histogram.counter_reset_hint == CounterResetHint::NotCounterReset {
                    let own = &parts[histogram.sum as usize];
                    let known = own.range(..*t).rev().find(|(_, (is_float, _))| !is_float).map(|(t, _)| *t);
                    prop_assert_eq!(known, before);
                }
                before = Some(*t);
            }
            prop_assert_eq!(got.len(), all.len());
            prop_assert_eq!(got, want);
        }

        /// Against a map: the first of equal times stays, starts stay with their samples.
        #[test]
        fn order_is_that_of_time(runs in prop::collection::vec(prop::collection::vec((0i64..50, any::<u64>(), 0i64..3), 0..20), 0..4)) {
            let mut want: BTreeMap<i64, (u64, i64)> = BTreeMap::new();
            let mut all = Columns::default();
            for run in &runs {
                let mut columns = Columns::default();
                for (t, bits, start) in run {
                    columns.push_float(*t, f64::from_bits(*bits), *start);
                    want.entry(*t).or_insert((*bits, *start));
                }
                all.append(&columns);
            }
            all.normalize();
            let starts = |i: usize| all.starts.get(i).copied().unwrap_or(0);
            let got: BTreeMap<_, _> =
                all.times.iter().enumerate().map(|(i, t)| (*t, (all.values[i].to_bits(), starts(i)))).collect();
            prop_assert_eq!(all.times.len(), got.len());
            prop_assert!(ascend(&all.times));
            prop_assert_eq!(got, want);
            all.retain(|t| t % 2 == 0);
            prop_assert!(all.times.iter().all(|t| t % 2 == 0));
            prop_assert!(all.times.len() == all.values.len());
        }
    }
}
