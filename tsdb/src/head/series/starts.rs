//! Start timestamps of a series' samples.

use model::sample::Timestamp;

/// Start timestamps as runs: they change once in the life of a counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts {
    /// (first time, last time, start), sorted, disjoint; samples in no run have no start.
    pub(crate) runs: Vec<(Timestamp, Timestamp, Timestamp)>,
    /// Whether the next in-order sample may lengthen the last run.
    growing: bool,
}

impl Starts {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn note(&mut self, t: Timestamp, start: Timestamp, in_order: bool) {
        if in_order {
            let lengthens = self.growing && self.runs.last().is_some_and(|run| run.2 == start);
            self.growing = start != 0;
            if lengthens && let Some(run) = self.runs.last_mut() {
                run.1 = t;
            } else if start != 0 {
                self.runs.push((t, t, start));
            }
            return;
        }
        self.cut_out(t);
        if start != 0 {
            let index = self.runs.partition_point(|run| run.0 < t);
            self.runs.insert(index, (t, t, start));
            self.growing &= index + 1 < self.runs.len();
        }
    }

    /// Splits the run that spans `t`.
    fn cut_out(&mut self, t: Timestamp) {
        let Some(index) = self.runs.iter().position(|run| run.0 <= t && t <= run.1) else { return };
        let (from, to, start) = self.runs.remove(index);
        let parts = [(from, t.saturating_sub(1)), (t.saturating_add(1), to)];
        let parts = parts.into_iter().filter(|part| part.0 <= part.1).map(|part| (part.0, part.1, start));
        self.runs.splice(index..index, parts);
    }

    pub(super) fn trim(&mut self, floor: Timestamp) {
        self.runs.retain(|run| run.1 >= floor);
    }

    pub(crate) fn of_runs(runs: Vec<(Timestamp, Timestamp, Timestamp)>) -> Self {
        Self { runs, growing: false }
    }

    /// The starts of samples at `times` (ascending), 0 where none is known; empty when none is known at all.
    pub(crate) fn column(&self, times: &[Timestamp]) -> Vec<Timestamp> {
        let mut any = false;
        let column: Vec<Timestamp> = times
            .iter()
            .map(|t| {
                let index = self.runs.partition_point(|run| run.1 < *t);
                let start = self.runs.get(index).filter(|run| run.0 <= *t).map_or(0, |run| run.2);
                any |= start != 0;
                start
            })
            .collect();
        if any { column } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_timestamps_belong_to_their_samples_only() {
        let mut starts = Starts::default();
        for (t, start) in [(10, 5), (20, 5), (30, 0), (40, 5)] {
            starts.note(t, start, true);
        }
        starts.note(15, 0, false);
        starts.note(16, 7, false);
        assert_eq!(starts.column(&[10, 15, 16, 20, 30, 40]), [5, 0, 7, 5, 0, 5]);
        assert!(starts.column(&[30]).is_empty());
    }
}
