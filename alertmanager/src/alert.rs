//! Alerts as the Alertmanager keeps them, and how two messages about the same alert merge.
//!
//! Unlike [`model::Alert`], annotations may be empty strings (they stay), and an end always exists: either the
//! sender's, or the time-out after which silence means resolved.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use model::alert::Fingerprint;
use model::{Labels, Timestamp};

/// An alert as it comes in, before defaults are filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IncomingAlert {
    /// Labels as sent: empty values are dropped, empty names refused.
    pub labels: BTreeMap<String, String>,
    /// Annotations as sent.
    pub annotations: BTreeMap<String, String>,
    /// Since when; `None`: now, or the end if one is given.
    pub starts_at: Option<Timestamp>,
    /// Until when; `None`: until the resolve time-out has passed.
    pub ends_at: Option<Timestamp>,
    /// Where it comes from, or empty.
    pub generator_url: String,
}

/// An alert as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAlert {
    /// Identity.
    pub labels: Labels,
    /// The identity as a number.
    pub fingerprint: Fingerprint,
    /// Texts for people.
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it ended or will end.
    pub ends_at: Timestamp,
    /// Whether the end is only the time-out of a sender that gave none.
    pub timeout: bool,
    /// When it was last heard of.
    pub updated_at: Timestamp,
    /// Where it comes from, or empty.
    pub generator_url: String,
}

impl IncomingAlert {
    /// Fills in times and checks.
    ///
    /// # Errors
    /// With Alertmanager's message.
    pub fn into_stored(self, now: Timestamp, resolve_timeout_ms: i64) -> Result<StoredAlert, String> {
        let starts_at = self.starts_at.or(self.ends_at).unwrap_or(now);
        let timeout = self.ends_at.is_none();
        let ends_at = self.ends_at.unwrap_or_else(|| now.saturating_add(resolve_timeout_ms));
        if ends_at < starts_at {
            return Err("start time must be before end time".to_owned());
        }
        if self.labels.iter().any(|(name, value)| name.is_empty() && !value.is_empty()) {
            return Err("invalid label set: invalid name \"\"".to_owned());
        }
        let labels = Labels::from_pairs(self.labels);
        if labels.is_empty() {
            return Err("at least one label pair required".to_owned());
        }
        if self.annotations.contains_key("") {
            return Err("invalid annotations: invalid name \"\"".to_owned());
        }
        Ok(StoredAlert {
            fingerprint: Fingerprint::of(&labels),
            labels,
            annotations: self.annotations,
            starts_at,
            ends_at,
            timeout,
            updated_at: now,
            generator_url: self.generator_url,
        })
    }
}

impl From<&model::Alert> for IncomingAlert {
    fn from(alert: &model::Alert) -> Self {
        let owned = |labels: &Labels| labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        Self {
            labels: owned(&alert.labels),
            annotations: owned(&alert.annotations),
            starts_at: Some(alert.starts_at),
            ends_at: alert.ends_at,
            generator_url: alert.generator_url.clone(),
        }
    }
}

impl StoredAlert {
    /// Whether it has ended at `now`.
    pub fn is_resolved_at(&self, now: Timestamp) -> bool {
        self.ends_at <= now
    }

    /// The alert's name, or the empty string.
    pub fn name(&self) -> &str {
        self.labels.value(model::labels::ALERT_NAME)
    }

    /// What is kept when `newer` arrives and this is what was known (Alertmanager's rules): times merge only where
    /// the two ranges overlap.
    pub fn merged_with(&self, newer: Self) -> Self {
        let end_within = newer.ends_at > self.starts_at && newer.ends_at < self.ends_at;
        let start_within = newer.starts_at > self.starts_at && newer.starts_at < self.ends_at;
        if !end_within && !start_within {
            return newer;
        }
        let mut merged = newer;
        merged.starts_at = merged.starts_at.min(self.starts_at);
        let now = merged.updated_at;
        let keeps_old_end = if merged.is_resolved_at(now) {
            // Both ended: the later end is the true one.
            self.is_resolved_at(now)
        } else {
            // An end that a sender gave is not shortened by one that lies in the future too.
            !self.timeout
        };
        if keeps_old_end && self.ends_at > merged.ends_at {
            merged.ends_at = self.ends_at;
        }
        merged
    }
}

/// The order of alerts in a notification: by `job`, then `instance` (those without last), then fewer labels first,
/// then label by label; values compare as strings.
pub fn notification_order(a: &Labels, b: &Labels) -> Ordering {
    for name in [model::labels::JOB, model::labels::INSTANCE] {
        match (a.get(name), b.get(name)) {
            (None, None) => {}
            (None, Some(_)) => return Ordering::Greater,
            (Some(_), None) => return Ordering::Less,
            (Some(a), Some(b)) if a != b => return a.cmp(b),
            (Some(_), Some(_)) => {}
        }
    }
    label_set_order(a, b)
}

/// Go's `model.LabelSet.Before` as an order: fewer labels first; then, over the names of both in order, a set that
/// lacks the name comes first, then the smaller value.
pub fn label_set_order(a: &Labels, b: &Labels) -> Ordering {
    let by_len = a.len().cmp(&b.len());
    if by_len.is_ne() {
        return by_len;
    }
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    while let (Some((a_name, a_value)), Some((b_name, b_value))) = (left.peek(), right.peek()) {
        match a_name.cmp(b_name) {
            // `a` has a name that `b` lacks.
            Ordering::Less => return Ordering::Greater,
            Ordering::Greater => return Ordering::Less,
            Ordering::Equal => match a_value.cmp(b_value) {
                Ordering::Equal => {}
                different => return different,
            },
        }
        left.next();
        right.next();
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(start: i64, end: Option<i64>, now: i64) -> StoredAlert {
        let incoming = IncomingAlert {
            labels: BTreeMap::from([("alertname".to_owned(), "A".to_owned())]),
            starts_at: Some(start),
            ends_at: end,
            ..IncomingAlert::default()
        };
        incoming.into_stored(now, 300).unwrap()
    }

    #[test]
    fn defaults_and_checks() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let store = |labels, starts_at, ends_at| {
            IncomingAlert { labels, starts_at, ends_at, ..IncomingAlert::default() }.into_stored(100, 300)
        };
        let a = store(labels(&[("a", "b"), ("c", "")]), None, None).unwrap();
        assert_eq!((a.starts_at, a.ends_at, a.timeout, a.labels.len()), (100, 400, true, 1));
        let a = store(labels(&[("a", "b")]), None, Some(50)).unwrap();
        assert_eq!((a.starts_at, a.ends_at, a.timeout), (50, 50, false));
        assert_eq!(store(labels(&[("a", "")]), None, None).unwrap_err(), "at least one label pair required");
        assert_eq!(
            store(labels(&[("a", "b")]), Some(9), Some(8)).unwrap_err(),
            "start time must be before end time"
        );
        assert_eq!(
            store(labels(&[("", "b")]), None, None).unwrap_err(),
            "invalid label set: invalid name \"\""
        );
    }

    #[test]
    fn merging_follows_alertmanager() {
        // An explicit end is not shortened by an earlier one still in the future.
        let merged = alert(0, Some(1000), 10).merged_with(alert(0, Some(500), 20));
        assert_eq!(merged.ends_at, 1000);
        // One in the past ends the alert.
        let merged = alert(0, Some(1000), 10).merged_with(alert(0, Some(15), 20));
        assert_eq!(merged.ends_at, 15);
        // A time-out is replaced by any explicit end.
        let merged = alert(0, None, 10).merged_with(alert(0, Some(200), 20));
        assert_eq!((merged.ends_at, merged.timeout), (200, false));
        // The earlier start stays while ranges overlap, and only then.
        assert_eq!(alert(0, Some(100), 10).merged_with(alert(50, Some(150), 20)).starts_at, 0);
        assert_eq!(alert(0, Some(100), 10).merged_with(alert(200, Some(250), 20)).starts_at, 200);
        // Both resolved: the later end wins.
        let merged = alert(0, Some(90), 200).merged_with(alert(0, Some(50), 201));
        assert_eq!(merged.ends_at, 90);
    }

    #[test]
    fn notifications_are_sorted_by_job_instance_and_size() {
        let labels =
            |text: &str| Labels::from_pairs(text.split(',').map(|pair| pair.split_once('=').unwrap()));
        let mut sets = [
            "z=1",
            "job=b,instance=1",
            "job=a,instance=2,x=1",
            "job=a,instance=2",
            "job=a,instance=10",
            "instance=1",
            "a=2,b=1",
            "a=1,c=9",
            "a=1,b=2",
            "job=a",
        ]
        .map(labels);
        sets.sort_by(notification_order);
        let sorted: Vec<String> = sets.iter().map(crate::matchers::format_labels).collect();
        assert_eq!(
            sorted,
            [
                r#"{instance="10", job="a"}"#,
                r#"{instance="2", job="a"}"#,
                r#"{instance="2", job="a", x="1"}"#,
                r#"{job="a"}"#,
                r#"{instance="1", job="b"}"#,
                r#"{instance="1"}"#,
                r#"{z="1"}"#,
                // `a="1",c="9"` lacks `b`, so it comes before the one that has it.
                r#"{a="1", c="9"}"#,
                r#"{a="1", b="2"}"#,
                r#"{a="2", b="1"}"#,
            ]
            .map(str::to_owned)
        );
    }
}
