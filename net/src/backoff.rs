//! Exponential back-off with jitter.

use std::time::Duration;

use rand::RngExt as _;

/// Settings of a back-off: the n-th wait is `initial × factor^n`, at most `max`, spread by ± `jitter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffPolicy {
    /// The first wait.
    pub initial: Duration,
    /// By what each wait is longer than the one before.
    pub factor: f64,
    /// The longest wait before jitter.
    pub max: Duration,
    /// Share of the wait by which it may be shorter or longer, 0 to 1.
    pub jitter: f64,
}

impl BackoffPolicy {
    /// Alertmanager's: 500 ms, × 1.5, at most a minute, ± 50 %.
    pub const NOTIFY: Self =
        Self { initial: Duration::from_millis(500), factor: 1.5, max: Duration::from_secs(60), jitter: 0.5 };
}

/// The waits of one run of attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    attempt: u32,
}

impl Backoff {
    /// Starts at the first wait.
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, attempt: 0 }
    }

    /// Back to the first wait: after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        self.next_wait_with(rand::rng().random::<f64>())
    }

    /// [`Backoff::next_wait`] with the random number given, `0.0 <= unit < 1.0`.
    pub fn next_wait_with(&mut self, unit: f64) -> Duration {
        let exponent = i32::try_from(self.attempt).unwrap_or(i32::MAX);
        self.attempt = self.attempt.saturating_add(1);
        let wait = (self.policy.initial.as_secs_f64() * self.policy.factor.powi(exponent))
            .min(self.policy.max.as_secs_f64());
        let spread = 1.0 + self.policy.jitter * (2.0 * unit - 1.0);
        Duration::from_secs_f64(wait * spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_jitter_spreads_them() {
        let mut backoff = Backoff::new(BackoffPolicy { jitter: 0.0, ..BackoffPolicy::NOTIFY });
        let waits: Vec<u128> = (0..14).map(|_| backoff.next_wait_with(0.9).as_millis()).collect();
        assert_eq!(&waits[..4], [500, 750, 1125, 1687]);
        assert_eq!(waits[13], 60_000);
        backoff.reset();
        assert_eq!(backoff.next_wait_with(0.0).as_millis(), 500);

        let mut jittered = Backoff::new(BackoffPolicy::NOTIFY);
        assert_eq!(jittered.next_wait_with(0.0).as_millis(), 250);
        assert!(jittered.next_wait().as_millis() < 1_126);
    }
}
