//! The times at which an expression is evaluated, and the times its selectors look at.

use model::Timestamp;

/// Evenly spaced times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// First time.
    pub(crate) start: Timestamp,
    /// Distance in milliseconds, at least 1.
    pub(crate) interval: i64,
    /// How many; may be 0 in subqueries.
    pub(crate) count: usize,
    /// How often a sample looked at here counts in statistics: 0 within subqueries, whose samples count where their
    /// windows are evaluated; once for each step outside what is evaluated once. (As Prometheus counts.)
    pub(crate) weight: u64,
}

impl Steps {
    /// One time only.
    pub(crate) fn instant(t: Timestamp) -> Self {
        Self { start: t, interval: 1, count: 1, weight: 1 }
    }

    /// From `start` up to at most `end`.
    pub(crate) fn range(start: Timestamp, end: Timestamp, interval: i64) -> Self {
        let interval = interval.max(1);
        let count = if end < start {
            0
        } else {
            usize::try_from(end.saturating_sub(start) / interval).unwrap_or(usize::MAX).saturating_add(1)
        };
        Self { start, interval, count, weight: 1 }
    }

    /// Time of step `index`.
    pub(crate) fn at(self, index: usize) -> Timestamp {
        self.start.saturating_add(self.interval.saturating_mul(i64::try_from(index).unwrap_or(i64::MAX)))
    }

    /// Time of the last step; `start` when there is none.
    pub(crate) fn last(self) -> Timestamp {
        self.at(self.count.saturating_sub(1))
    }

    /// Only the first step, which stands for all.
    pub(crate) fn first_only(self) -> Self {
        Self { count: self.count.min(1), weight: self.weight.saturating_mul(self.count as u64), ..self }
    }
}

/// Where a selector looks, seen from the time of evaluation: `@` and `offset` resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeRef {
    /// The fixed time of `@`.
    pub(crate) at: Option<Timestamp>,
    /// Milliseconds to go back.
    pub(crate) offset: i64,
}

impl TimeRef {
    /// The time looked at when evaluating at `t`.
    pub(crate) fn resolve(self, t: Timestamp) -> Timestamp {
        self.at.unwrap_or(t).saturating_sub(self.offset)
    }

    /// Whether all steps look at the same time.
    pub(crate) fn is_fixed(self) -> bool {
        self.at.is_some()
    }

    /// First and last time looked at.
    pub(crate) fn span(self, steps: Steps) -> (Timestamp, Timestamp) {
        (self.resolve(steps.start), self.resolve(steps.last()))
    }
}
