//! The real wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use model::{Clock, Timestamp};

/// Shows the system's time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that touches the real clock")]
    fn now_ms(&self) -> Timestamp {
        let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        }
    }
}
