//! Alerts as rules send them and the Alertmanager receives them.

use crate::labels::Labels;
use crate::sample::Timestamp;

/// One alert at one moment. Two messages with equal labels are about the same alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Identity: what is wrong and where.
    pub labels: Labels,
    /// Texts for people; not part of the identity.
    pub annotations: Labels,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it ended, or until when it counts as firing if nothing more is heard; `None`: the receiver's
    /// resolve time-out applies.
    pub ends_at: Option<Timestamp>,
    /// Where it comes from (a link to the expression), or empty.
    pub generator_url: String,
}

impl Alert {
    /// The alert's name, or the empty string.
    pub fn name(&self) -> &str {
        self.labels.value(crate::labels::ALERT_NAME)
    }

    /// Whether it has ended at `now`.
    pub fn is_resolved_at(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| end <= now)
    }

    /// The identity as a number: FNV-1a over names and values, as Prometheus' `model.LabelSet.Fingerprint`.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.labels)
    }
}

/// 64-bit FNV-1a of a label set, compatible with Prometheus' and Alertmanager's fingerprints: names and
/// values in order of names, a `0xff` after each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of `labels`.
    pub fn of(labels: &Labels) -> Self {
        let mut hash: u64 = 14_695_981_039_346_656_037;
        let mut add = |bytes: &[u8]| {
            for byte in bytes.iter().chain(&[0xff]) {
                hash ^= u64::from(*byte);
                hash = hash.wrapping_mul(1_099_511_628_211);
            }
        };
        for (name, value) in labels {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        Self(hash)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Takes alerts: the embedded Alertmanager, the sender to external ones, or a test.
///
/// Implementers owe: never block for long and never lose an alert silently: a full queue drops the oldest and counts it.
/// Delivering the same alert again is normal (rules resend) and must be idempotent.
pub trait AlertSink: Send + Sync {
    /// Takes over `alerts`; firing and resolved ones mixed.
    fn send(&self, alerts: &[Alert]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_prometheus_fnv1a() {
        // The empty set gives FNV's offset basis.
        assert_eq!(Fingerprint::of(&Labels::empty()).to_string(), "cbf29ce484222325");
        let a = Fingerprint::of(&Labels::from_pairs([("a", "bc")]));
        let b = Fingerprint::of(&Labels::from_pairs([("ab", "c")]));
        assert_ne!(a, b);
    }
}
