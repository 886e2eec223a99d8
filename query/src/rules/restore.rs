//! Gives pending alerts their time back after a restart, from the series `ALERTS_FOR_STATE`.
//!
//! Follows Prometheus' `Group.RestoreForState`: time down does not count towards `for`; at least the grace period remains,
//! so that an alert whose cause has gone meanwhile does not fire at once; rules with a `for` shorter than the grace period
//! are not restored.

use std::collections::HashMap;
use std::time::Duration;

use model::labels::{ALERT_NAME, METRIC_NAME};
use model::storage::{SelectHints, SeriesColumns, StorageError};
use model::{Labels, Matcher, TimeRange, Timestamp, is_stale_nan};

use super::alerting::{ALERTS_FOR_STATE, millis};
use super::group::RuleGroup;

/// Bounds of restoration.
#[derive(Clone, Copy, Debug)]
pub struct RestoreOptions {
    /// Longest outage over which pending times are restored.
    pub outage_tolerance: Duration,
    /// Least time that remains of a restored `for`.
    pub grace_period: Duration,
}

/// What was stored of an alert.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Remembered {
    active_at: Timestamp,
    /// When that was last true, as far as we know.
    down_at: Timestamp,
}

/// Restores the rules of `group` that were not yet, at `now`. A rule whose series cannot be read starts anew. Reads
/// storage; must not run beside an evaluation of the group.
pub fn restore(group: &RuleGroup, options: RestoreOptions, now: Timestamp) {
    let (outage, grace) = (millis(options.outage_tolerance), millis(options.grace_period));
    for index in 0..group.config().rules.len() {
        let wanted = group.with_alerting(index, |rule| {
            let is_wanted = !rule.is_restored() && rule.hold_ms() >= grace && rule.has_active();
            is_wanted.then(|| rule.name().to_owned())
        });
        let remembered = wanted.flatten().map(|name| {
            // Not under the rule's lock: whoever looks at alerts does not wait for storage.
            remembered(group, &name, TimeRange::new(now.saturating_sub(outage), now)).unwrap_or_else(|error| {
                tracing::error!(group = group.key(), rule = name, %error, "cannot restore the `for` state");
                HashMap::new()
            })
        });
        group.with_alerting(index, |rule| {
            let hold = rule.hold_ms();
            for (labels, alert) in rule.active_mut() {
                if let Some(found) = remembered.as_ref().and_then(|remembered| remembered.get(labels)) {
                    alert.active_at = restored_active_at(*found, now, hold, grace);
                }
            }
            rule.set_restored();
        });
    }
}

/// The alerts of rule `name` that were active at their last sample in `range`, by their labels.
fn remembered(
    group: &RuleGroup,
    name: &str,
    range: TimeRange,
) -> Result<HashMap<Labels, Remembered>, StorageError> {
    // Not the rule's labels too, as in Prometheus: they may be templates. Alerts are told apart by all their labels.
    let matchers = [Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE), Matcher::equal(ALERT_NAME, name)];
    let querier = group.deps().storage.querier(range)?;
    let set = querier.select(&matchers, &SelectHints { range: Some(range), ..SelectHints::default() })?;
    let offset = millis(group.config().query_offset);
    let mut found = HashMap::with_capacity(set.len());
    let mut columns = SeriesColumns::default();
    for index in 0..set.len() {
        set.read(index, &mut columns)?;
        let (Some(at), Some(since)) = (columns.float_times.last(), columns.float_values.last()) else {
            continue;
        };
        if is_stale_nan(*since) || !since.is_finite() {
            // It was not active any more.
            continue;
        }
        let alert = Remembered {
            // Seconds since the epoch. The cast saturates, and so do all sums with the result.
            active_at: (*since as i64).saturating_mul(1000),
            // Samples are written `query_offset` before the time they are about. Whole seconds, like `active_at`: both
            // come from evaluations, whose parts of a second are the same, so their difference is exact.
            down_at: at.saturating_add(offset).div_euclid(1000) * 1000,
        };
        found.insert(set.labels(index).without_name(), alert);
    }
    Ok(found)
}

/// Since when an alert counts as active, given what was stored of it.
fn restored_active_at(found: Remembered, now: Timestamp, hold: i64, grace: i64) -> Timestamp {
    let Remembered { active_at, down_at } = found;
    let remaining = hold.saturating_sub(down_at.saturating_sub(active_at));
    if remaining <= 0 {
        // It was firing: it fires again at the next evaluation.
        active_at
    } else if remaining < grace {
        now.saturating_add(grace).saturating_sub(hold)
    } else {
        active_at.saturating_add(now.saturating_sub(down_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_down_does_not_count_and_the_grace_period_remains() {
        let minute = 60_000;
        let restored = |pending_for: i64, down_for: i64| {
            let active_at = 1_000_000;
            let down_at = active_at + pending_for;
            let now = down_at + down_for;
            let since = restored_active_at(Remembered { active_at, down_at }, now, 20 * minute, 10 * minute);
            // Time left until it fires.
            since + 20 * minute - now
        };
        assert_eq!(restored(5 * minute, 30 * minute), 15 * minute, "fifteen of twenty minutes were left");
        assert_eq!(restored(15 * minute, minute), 10 * minute, "five were left: the grace period is longer");
        assert_eq!(restored(10 * minute, minute), 10 * minute, "exactly the grace period is left");
        assert_eq!(restored(20 * minute, minute), -minute, "it was firing");
        assert_eq!(restored(25 * minute, minute), -6 * minute, "it was firing for long");
    }
}
