//! How far a compaction is: in the log every half a minute, in a metric all the time. By series of all sources: their samples
//! are alike, as a rule, and nobody counts them before.

use model::Clock;
use model::sample::Timestamp;
use prometheus::Gauge;

/// Time between two lines in the log.
const LOG_EVERY_MS: i64 = 30_000;

/// See the module. The metric is 1 again when it goes, however the compaction ended.
pub(crate) struct Progress<'a> {
    clock: &'a dyn Clock,
    gauge: &'a Gauge,
    reason: &'static str,
    total: u64,
    next_log: Timestamp,
}

impl<'a> Progress<'a> {
    /// Of a compaction that begins now, with so many series.
    pub(crate) fn begin(clock: &'a dyn Clock, gauge: &'a Gauge, reason: &'static str, total: u64) -> Self {
        tracing::info!(reason, series = total, "compaction begins");
        gauge.set(0.0);
        Self { clock, gauge, reason, total, next_log: clock.now_ms().saturating_add(LOG_EVERY_MS) }
    }

    /// So many series are left. Whether that was worth a line in the log.
    pub(crate) fn left(&mut self, left: u64) -> bool {
        let done = self.total.saturating_sub(left);
        self.gauge.set(if self.total == 0 { 1.0 } else { done as f64 / self.total as f64 });
        let now = self.clock.now_ms();
        let is_due = now >= self.next_log;
        if is_due {
            self.next_log = now.saturating_add(LOG_EVERY_MS);
            tracing::info!(reason = self.reason, done, of = self.total, "compaction goes on");
        }
        is_due
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.gauge.set(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_every_half_a_minute() {
        let clock = model::ManualClock::new(1000);
        let gauge = Gauge::new("progress", "How far.").unwrap();
        let mut progress = Progress::begin(&clock, &gauge, "test", 200);
        let told: Vec<bool> = (0..=10)
            .map(|round| {
                let told = progress.left(200 - round * 20);
                assert!((gauge.get() - round as f64 / 10.0).abs() < 1e-9);
                clock.advance(10_000);
                told
            })
            .collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 3, "{told:?}");
        assert!(told[3] && told[6] && told[9]);
        // More than there should be.
        progress.left(300);
        assert!(gauge.get().abs() < 1e-9);
        drop(progress);
        assert!((gauge.get() - 1.0).abs() < 1e-9);
        let mut empty = Progress::begin(&clock, &gauge, "test", 0);
        empty.left(0);
        assert!((gauge.get() - 1.0).abs() < 1e-9);
    }
}
