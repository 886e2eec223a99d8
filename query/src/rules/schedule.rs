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

/// The slot to evaluate after `at`, given that it is `now`; and how many slots between them are missed.
///
/// A late group goes on at once with the newest slot that has passed, so one that takes a little longer than its interval
/// runs without pause instead of leaving out every second slot. Older slots are not caught up. (Prometheus' `Group.run`.)
/// A clock that jumped back by more than an interval starts a new schedule.
pub(super) fn next_slot(key: &str, interval_ms: i64, at: Timestamp, now: Timestamp) -> (Timestamp, u64) {
    let interval = interval_ms.max(1);
    if now < at - interval {
        return (slot(key, interval, now) + interval, 0);
    }
    let passed = ((now - at) / interval).max(1);
    (at + passed * interval, (passed - 1).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_groups_go_on_with_the_newest_slot_and_miss_those_before() {
        let next = |now| next_slot("f;g", 1_000, 10_000, now);
        assert_eq!(next(10_000), (11_000, 0));
        assert_eq!(next(10_999), (11_000, 0));
        assert_eq!(next(11_200), (11_000, 0), "at once");
        assert_eq!(next(12_000), (12_000, 1));
        assert_eq!(next(15_900), (15_000, 4));
        assert_eq!(next(9_500), (11_000, 0), "the clock was slowed down a little");
        let (after, missed) = next(3_000);
        assert!((3_001..=4_000).contains(&after) && missed == 0, "the clock was put back: {after} {missed}");
    }

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
