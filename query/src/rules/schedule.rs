//! When groups are evaluated: spread by a hash, aligned with the interval, the same after every restart.

use model::Timestamp;

/// The slot at or before `now` of a group with this key and interval (both in milliseconds).
///
/// Slots are the multiples of the interval shifted by `hash(key) % interval`, so groups of one interval do not run at
/// once, and a restart does not move them. (Prometheus' `Group.EvalTimestamp`.)
pub(super) fn slot(key: &str, interval_ms: i64, now: Timestamp) -> Timestamp {
    let interval = interval_ms.max(1);
    let hash = xxhash_rust::xxh3::xxh3_64(key.as_bytes());
    // Below an i64, so in its range.
    let offset = (hash % interval.unsigned_abs()).cast_signed();
    let shifted = now - offset;
    shifted - shifted.rem_euclid(interval) + offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_stable_and_an_interval_apart() {
        for now in [0, 1, 999, 1_000, 1_700_000_000_123, -5] {
            let at = slot("f;g", 1_000, now);
            assert!(at <= now && now - at < 1_000, "{at} for {now}");
            assert_eq!(at, slot("f;g", 1_000, at));
            assert_eq!(at + 1_000, slot("f;g", 1_000, now + 1_000));
        }
        let offsets: std::collections::HashSet<_> =
            (0..20).map(|n| slot(&format!("f;{n}"), 60_000, 60_000)).collect();
        assert!(offsets.len() > 15, "groups must be spread: {offsets:?}");
    }
}
