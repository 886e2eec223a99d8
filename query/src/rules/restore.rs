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

use super::alerting::{ALERTS_FOR_STATE, AlertingRule, millis};
use super::group::RuleGroup;

/// Bounds of restoration.
#[derive(Clone, Copy, Debug)]
pub struct RestoreOptions {
    /// Longest outage over which pending times are restored.
    pub outage_tolerance: Duration,
    /// Least time that remains of a restored `for`.
    pub grace_period: Duration,
}

/// Restores all rules of `group` at `now`. A rule whose series cannot be read starts anew.
pub fn restore(group: &RuleGroup, options: RestoreOptions, now: Timestamp) {
    group.for_each_alerting(|rule| {
        if rule.hold_ms() >= millis(options.grace_period)
            && rule.has_active()
            && let Err(error) = restore_rule(group, rule, options, now)
        {
            tracing::error!(group = group.key(), rule = rule.name(), %error, "cannot restore the `for` state");
        }
        rule.set_restored();
    });
}

fn restore_rule(
    group: &RuleGroup,
    rule: &mut AlertingRule,
    options: RestoreOptions,
    now: Timestamp,
) -> Result<(), StorageError> {
    let range = TimeRange::new(now - millis(options.outage_tolerance), now);
    let matchers = [Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE), Matcher::equal(ALERT_NAME, rule.name())];
    let querier = group.deps().storage.querier(range)?;
    let set = querier.select(&matchers, &SelectHints { range: Some(range), ..SelectHints::default() })?;
    let mut found: HashMap<Labels, usize> = HashMap::with_capacity(set.len());
    found.extend((0..set.len()).map(|index| (set.labels(index).without_name(), index)));
    let (hold, grace) = (rule.hold_ms(), millis(options.grace_period));
    let mut columns = SeriesColumns::default();
    for (labels, alert) in rule.active_mut() {
        let Some(index) = found.get(labels) else { continue };
        set.read(*index, &mut columns)?;
        let (Some(down_at), Some(since)) = (columns.float_times.last(), columns.float_values.last()) else {
            continue;
        };
        if is_stale_nan(*since) || !since.is_finite() {
            // It was not active any more.
            continue;
        }
        // Seconds since the epoch; far within the range of milliseconds in i64 for all that we ever write.
        let active_at = (*since as i64).saturating_mul(1000);
        if let Some(restored) = restored_active_at(active_at, *down_at, now, hold, grace) {
            alert.active_at = restored;
        }
    }
    Ok(())
}

/// Since when an alert counts as active, that was active since `active_at` when the process went down at `down_at`.
fn restored_active_at(
    active_at: Timestamp,
    down_at: Timestamp,
    now: Timestamp,
    hold: i64,
    grace: i64,
) -> Option<Timestamp> {
    let remaining = hold - (down_at - active_at);
    Some(if remaining <= 0 {
        // It was firing: it fires again at the next evaluation.
        active_at
    } else if remaining < grace {
        now + grace - hold
    } else {
        active_at + (now - down_at)
    })
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
            let since = restored_active_at(active_at, down_at, now, 20 * minute, 10 * minute).unwrap();
            // Time left until it fires.
            since + 20 * minute - now
        };
        assert_eq!(restored(5 * minute, 30 * minute), 15 * minute, "fifteen of twenty minutes were left");
        assert_eq!(restored(15 * minute, minute), 10 * minute, "five were left: the grace period is longer");
        assert!(restored(25 * minute, minute) < 0, "it was firing");
    }
}
