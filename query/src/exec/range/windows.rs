//! Where the windows of a range selector begin and end in a column of times: found once for all series that were sampled
//! together.
//!
//! The series of a target have the same times, and a query reads them one after the other. Comparing two columns of times costs
//! a fraction of what finding the windows costs, and what `rate` needs of times alone is found along with them.

use model::Timestamp;

use super::advance;
use crate::exec::error::QueryError;
use crate::exec::state::State;
use crate::exec::steps::{Steps, TimeRef};

/// Steps from which a table pays: fewer windows are found as they are needed.
const STEPS_MIN: usize = 8;
/// Samples up to which there is a table.
const SAMPLES_MAX: usize = 1 << 18;

/// Which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowKey {
    pub(crate) steps: Steps,
    pub(crate) time: TimeRef,
    pub(crate) window_ms: i64,
}

/// The windows of one column of times.
#[derive(Debug, Default)]
pub(crate) struct WindowTable {
    key: Option<WindowKey>,
    times: Vec<Timestamp>,
    /// By step: the samples of the window, from the first to before the second.
    pub(crate) bounds: Vec<(u32, u32)>,
    /// Samples in all windows; one in several windows counts as often.
    pub(crate) samples: u64,
    /// By step, once asked for.
    spans: Vec<Span>,
}

/// What `rate` needs of the times of a window with two samples or more; milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    /// From the first sample to the last.
    pub(crate) sampled: f64,
    /// How far the increase reaches back before the first sample, unless the counter was zero later than that.
    pub(crate) to_start: f64,
    /// How far it reaches beyond the last.
    pub(crate) to_end: f64,
}

impl WindowTable {
    /// Whether this is likely the table of `times`.
    pub(crate) fn may_be(&self, key: WindowKey, times: &[Timestamp]) -> bool {
        self.key == Some(key)
            && self.times.len() == times.len()
            && self.times.first() == times.first()
            && self.times.last() == times.last()
    }

    /// Makes the table that of `times`; answers whether it is one: it does not pay for everybody.
    pub(crate) fn fit(
        &mut self,
        state: &State<'_>,
        key: WindowKey,
        times: &[Timestamp],
    ) -> Result<bool, QueryError> {
        if key.steps.count < STEPS_MIN || times.len() > SAMPLES_MAX {
            return Ok(false);
        }
        if self.key == Some(key) && self.times == times {
            return Ok(true);
        }
        self.key = None;
        self.times.clear();
        self.times.extend_from_slice(times);
        self.bounds.clear();
        self.spans.clear();
        self.samples = 0;
        let (mut lo, mut hi) = (0, 0);
        for step in 0..key.steps.count {
            state.limits.check_at(step)?;
            let end = key.time.resolve(key.steps.at(step));
            advance(times, &mut lo, end.saturating_sub(key.window_ms));
            advance(times, &mut hi, end);
            // Windows never move back, but one may end before the samples that an earlier bound has passed.
            hi = hi.max(lo);
            self.samples += (hi - lo) as u64;
            self.bounds.push((index(lo), index(hi)));
        }
        self.key = Some(key);
        Ok(true)
    }

    /// The windows' bounds and spans.
    pub(crate) fn spans(&mut self) -> impl Iterator<Item = ((u32, u32), Span)> {
        if let Some(key) = self.key
            && self.spans.len() < self.bounds.len()
        {
            self.spans.clear();
            for (step, &(lo, hi)) in self.bounds.iter().enumerate() {
                let end = key.time.resolve(key.steps.at(step));
                let window = &self.times[lo as usize..hi as usize];
                self.spans.push(match window {
                    [first, .., last] => {
                        span(*first, *last, window.len() - 1, end.saturating_sub(key.window_ms), end)
                    }
                    _ => Span::default(),
                });
            }
        }
        self.bounds.iter().copied().zip(self.spans.iter().copied())
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Timestamp>() * self.times.capacity()
            + size_of::<(u32, u32)>() * self.bounds.capacity()
            + size_of::<Span>() * self.spans.capacity()
    }
}

/// Prometheus' extrapolation: to an end of the window that is nearer than 1.1 mean gaps, else by half a gap.
fn span(first: Timestamp, last: Timestamp, gaps: usize, start: Timestamp, end: Timestamp) -> Span {
    let sampled = (last - first) as f64;
    let mean_gap = sampled / gaps as f64;
    let reach = |distance: i64| {
        let distance = distance as f64;
        if distance >= mean_gap * 1.1 { mean_gap / 2.0 } else { distance }
    };
    Span { sampled, to_start: reach(first - start), to_end: reach(end - last) }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("invariant: a table has far less than 2^32 samples")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_reach_to_near_ends_only() {
        // Gaps of 10: ends nearer than 11 are reached, others by 5.
        let near = span(10, 50, 4, 0, 60);
        assert_eq!((near.sampled, near.to_start, near.to_end), (40.0, 10.0, 10.0));
        let far = span(11, 51, 4, 0, 62);
        assert_eq!((far.to_start, far.to_end), (5.0, 5.0));
    }
}
