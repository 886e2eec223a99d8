//! Where the windows of a range selector begin and end in a column of times: found once for all series that were sampled
//! together.
//!
//! The series of a target have the same times, and a query reads them one after the other. Comparing two columns of times costs
//! a fraction of what finding the windows costs, and what `rate` needs of times alone is found along with them.

use model::Timestamp;

use super::advance;
use crate::exec::column::Column;
use crate::exec::error::QueryError;
use crate::exec::state::State;
use crate::exec::steps::{Steps, TimeRef};

/// Steps from which a table pays: fewer windows are found as they are needed.
const STEPS_MIN: usize = 8;
/// What one table may take: of more steps or samples there is none, since its threads would each have it.
const TABLE_BYTES_MAX: usize = 1 << 20;
/// Bytes for each step: bounds, span, and gain with its bit of presence.
const STEP_BYTES: usize = size_of::<(u32, u32)>() + size_of::<Span>() + size_of::<Gain>() + 1;

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
    gains: Vec<Gain>,
    /// Which windows have two samples or more.
    gaining: Vec<u64>,
    /// What gains are divided by.
    divisor: f64,
}

/// What `rate` needs of the times of a window with two samples or more; seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    /// From the first sample to the last.
    pub(crate) sampled: f64,
    /// How far the increase reaches back before the first sample, unless the counter was zero later than that.
    pub(crate) to_start: f64,
    /// How far it reaches beyond the last.
    pub(crate) to_end: f64,
}

/// What `rate` does with a window whose counter was not zero shortly before: the difference between two samples, times a
/// factor of their times.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gain {
    first: u32,
    last: u32,
    factor: f64,
    /// A counter whose first value is below its gain times this was zero after the window's start, or where the increase
    /// would reach to.
    zero_below: f64,
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
        if !pays(key.steps.count, times.len()) {
            return Ok(false);
        }
        if self.key == Some(key) && self.times == times {
            return Ok(true);
        }
        self.key = None;
        // Exactly what is needed: gain in leaps would pass the bound.
        self.times.clear();
        self.times.reserve_exact(times.len());
        self.times.extend_from_slice(times);
        self.bounds.clear();
        self.bounds.reserve_exact(key.steps.count);
        self.spans.clear();
        self.gains.clear();
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
        self.find_spans();
        self.bounds.iter().copied().zip(self.spans.iter().copied())
    }

    fn find_spans(&mut self) {
        let Some(key) = self.key.filter(|_| self.spans.len() < self.bounds.len()) else { return };
        self.spans.clear();
        self.spans.reserve_exact(self.bounds.len());
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

    /// How much `values` grew in the windows, extrapolated and divided by `divisor`; resets are not made good. With
    /// `counter`, values do not come from below zero.
    pub(crate) fn gain(&mut self, values: &[f64], counter: bool, divisor: f64, into: &mut Column) {
        self.find_spans();
        if self.gains.len() < self.bounds.len() || self.divisor != divisor {
            self.find_gains(divisor);
        }
        if values.is_empty() {
            return;
        }
        let spans = &self.spans;
        into.set_marked(
            &self.gaining,
            self.gains.iter().enumerate().map(|(step, gain)| {
                // The condition holds for first values below zero too, and is false for NaN; what it lets through is computed
                // in full.
                let first = values[gain.first as usize];
                let increase = values[gain.last as usize] - first;
                if counter && first < gain.zero_below * increase {
                    return increase * spans[step].factor(Some(first), increase, divisor);
                }
                increase * gain.factor
            }),
        );
    }

    fn find_gains(&mut self, divisor: f64) {
        self.divisor = divisor;
        self.gains.clear();
        self.gains.reserve_exact(self.bounds.len());
        self.gaining.clear();
        self.gaining.resize(self.bounds.len().div_ceil(64), 0);
        for (step, (&(lo, hi), span)) in self.bounds.iter().zip(&self.spans).enumerate() {
            if hi - lo < 2 {
                self.gains.push(Gain::default());
                continue;
            }
            self.gaining[step / 64] |= 1 << (step % 64);
            self.gains.push(Gain {
                first: lo,
                last: hi - 1,
                factor: span.factor(None, 0.0, divisor),
                zero_below: span.to_start / span.sampled,
            });
        }
    }

    /// Whether it is small enough to be kept.
    pub(crate) fn is_small(&self) -> bool {
        self.bytes() <= TABLE_BYTES_MAX
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Timestamp>() * self.times.capacity()
            + size_of::<(u32, u32)>() * self.bounds.capacity()
            + size_of::<Span>() * self.spans.capacity()
            + size_of::<Gain>() * self.gains.capacity()
            + size_of::<u64>() * self.gaining.capacity()
    }
}

impl Span {
    /// What an increase between the samples is multiplied by to reach as far as it does, divided by `divisor`. `first`: the
    /// first value of a counter, which was not below zero before.
    pub(super) fn factor(&self, first: Option<f64>, increase: f64, divisor: f64) -> f64 {
        let mut to_start = self.to_start;
        if let Some(first) = first
            && increase > 0.0
            && first >= 0.0
        {
            to_start = to_start.min(self.sampled * (first / increase));
        }
        (self.sampled + to_start + self.to_end) / (self.sampled * divisor)
    }
}

/// Whether so many windows over so many samples get a table.
fn pays(steps: usize, samples: usize) -> bool {
    let bytes =
        steps.saturating_mul(STEP_BYTES).saturating_add(samples.saturating_mul(size_of::<Timestamp>()));
    steps >= STEPS_MIN && bytes <= TABLE_BYTES_MAX
}

/// How far an increase reaches towards an end of the window, in seconds, as Prometheus has it: to an end that is nearer than
/// 1.1 mean gaps, else by half a gap. (Seconds matter: of gaps of 13 s, an end that is 14.3 s away is far, though
/// 14300 < 13000 * 1.1.)
pub(super) fn reach(distance: f64, mean_gap: f64) -> f64 {
    if distance >= mean_gap * 1.1 { mean_gap / 2.0 } else { distance }
}

fn span(first: Timestamp, last: Timestamp, gaps: usize, start: Timestamp, end: Timestamp) -> Span {
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = seconds(last - first);
    let mean_gap = sampled / gaps as f64;
    Span {
        sampled,
        to_start: reach(seconds(first - start), mean_gap),
        to_end: reach(seconds(end - last), mean_gap),
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("invariant: a table has far less than 2^32 samples")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_reach_to_near_ends_only() {
        // Gaps of 10 s: ends nearer than 11 s are reached, others by 5 s.
        let near = span(10_000, 50_000, 4, 0, 60_000);
        assert_eq!((near.sampled, near.to_start, near.to_end), (40.0, 10.0, 10.0));
        let far = span(11_001, 51_001, 4, 0, 62_002);
        assert_eq!((far.to_start, far.to_end), (5.0, 5.0));
        // What is near is decided in seconds: 14.3 >= 13.0 * 1.1, but 14300 < 13000 * 1.1.
        let thirteen = span(14_300, 66_300, 4, 0, 80_600);
        assert_eq!((thirteen.to_start, thirteen.to_end), (6.5, 6.5));
    }

    /// A table of millions of steps, or of samples, would be a multiple of what is counted for the query.
    #[test]
    fn there_are_no_large_tables() {
        assert!(pays(11_000, 20_000) && pays(STEPS_MIN, 100_000));
        assert!(!pays(STEPS_MIN - 1, 10) && !pays(40_000, 10) && !pays(10, 200_000) && !pays(usize::MAX, 10));
    }
}
