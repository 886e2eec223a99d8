//! The exemplars: one ring over all series; the newest push out the oldest.

use std::collections::VecDeque;

use hashbrown::HashMap;
use model::exemplar::{EXEMPLAR_LABELS_MAX_CHARS, Exemplar};
use model::sample::{TimeRange, Timestamp};
use model::storage::AppendError;

/// The ring. Exemplars in it always have a time.
#[derive(Debug, Default)]
pub(crate) struct ExemplarRing {
    max: usize,
    ring: VecDeque<(u32, Exemplar)>,
    /// Of each series in the ring: how many there are, and the newest.
    newest: HashMap<u32, (usize, Exemplar)>,
}

/// Whether an exemplar goes into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExemplarVerdict {
    Store,
    Known,
}

impl ExemplarRing {
    /// A ring of at most `max` exemplars; 0: none are kept.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Judges an exemplar by the newest one of its series.
    pub(crate) fn check(&self, series: u32, exemplar: &Exemplar) -> Result<ExemplarVerdict, AppendError> {
        let chars: usize = exemplar.labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        if chars > EXEMPLAR_LABELS_MAX_CHARS {
            return Err(AppendError::InvalidExemplar);
        }
        let Some((_, newest)) = self.newest.get(&series) else { return Ok(ExemplarVerdict::Store) };
        let same_value = newest.value.to_bits() == exemplar.value.to_bits();
        if newest.t == exemplar.t && same_value && newest.labels == exemplar.labels {
            return Ok(ExemplarVerdict::Known);
        }
        // Of one time (buckets of a histogram) they come in order of values, as in Prometheus.
        if exemplar.t < newest.t || (exemplar.t == newest.t && exemplar.value < newest.value) {
            return Err(AppendError::OutOfOrder);
        }
        Ok(ExemplarVerdict::Store)
    }

    pub(crate) fn push(&mut self, series: u32, exemplar: Exemplar) {
        if self.max == 0 {
            return;
        }
        if self.ring.len() >= self.max {
            self.pop();
        }
        let newest = self.newest.entry(series).or_insert_with(|| (0, exemplar.clone()));
        newest.0 += 1;
        newest.1 = exemplar.clone();
        self.ring.push_back((series, exemplar));
    }

    fn pop(&mut self) {
        let Some((series, _)) = self.ring.pop_front() else { return };
        if let Some(newest) = self.newest.get_mut(&series) {
            newest.0 -= 1;
            if newest.0 == 0 {
                self.newest.remove(&series);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Exemplars within `range` of series that `wanted` accepts, oldest first.
    pub(crate) fn select(&self, range: TimeRange, wanted: impl Fn(u32) -> bool) -> Vec<(u32, Exemplar)> {
        let in_range = |t: Option<Timestamp>| t.is_some_and(|t| range.contains(t));
        let found = self.ring.iter().filter(|(series, exemplar)| in_range(exemplar.t) && wanted(*series));
        found.cloned().collect()
    }

    pub(crate) fn all(&self) -> Vec<(u32, Exemplar)> {
        self.ring.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Labels;

    fn exemplar(t: i64, value: f64) -> Exemplar {
        Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), value, t: Some(t) }
    }

    #[test]
    fn the_newest_push_out_the_oldest() {
        let mut ring = ExemplarRing::new(2);
        for (series, t) in [(1, 10), (2, 20), (1, 30)] {
            assert_eq!(ring.check(series, &exemplar(t, 1.0)), Ok(ExemplarVerdict::Store));
            ring.push(series, exemplar(t, 1.0));
        }
        let times: Vec<_> = ring.select(TimeRange::ALL, |_| true).iter().map(|e| e.1.t).collect();
        assert_eq!(times, [Some(20), Some(30)]);
        assert_eq!(ring.check(1, &exemplar(30, 1.0)), Ok(ExemplarVerdict::Known));
        assert_eq!(ring.check(1, &exemplar(29, 1.0)), Err(AppendError::OutOfOrder));
        assert_eq!(ring.check(1, &exemplar(30, 0.5)), Err(AppendError::OutOfOrder));
        assert_eq!(ring.check(1, &exemplar(30, 2.0)), Ok(ExemplarVerdict::Store));
        let long = Exemplar { labels: Labels::from_pairs([("x", "y".repeat(128))]), value: 1.0, t: Some(99) };
        assert_eq!(ring.check(1, &long), Err(AppendError::InvalidExemplar));
    }
}
