//! What a collector tells about itself: how complete a collection is, errors by stage, and its cost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ScrapedSample;
use super::schema::{
    COLLECTOR_COMMANDS, COLLECTOR_DROPPED, COLLECTOR_DURATION, COLLECTOR_ERRORS, COLLECTOR_INTERVAL,
    COLLECTOR_PARTIAL, COLLECTOR_RECEIVED, COLLECTOR_SENT, push_sample,
};

/// Most texts kept for one collection; the rest is only counted.
const WARNINGS_MAX: usize = 20;

/// Why a collection is incomplete: the values of label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum PartialReason {
    /// An answer was not what the protocol promises.
    Answer,
    /// The connection broke on the way.
    Connection,
    /// A bound of ours was reached.
    Limit,
    /// The broker refused a command.
    Permission,
    /// Time was up.
    Timeout,
}

impl PartialReason {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Answer, "answer"),
        (Self::Connection, "connection"),
        (Self::Limit, "limit"),
        (Self::Permission, "permission"),
        (Self::Timeout, "timeout"),
    ];
}

/// Doubts about one collection.
#[derive(Clone, Debug, Default)]
pub struct Doubts {
    partial: [bool; PartialReason::ALL.len()],
    warnings: Vec<String>,
    suppressed: usize,
}

impl Doubts {
    /// The collection is incomplete, and why. Equal texts count once.
    pub fn partial(&mut self, reason: PartialReason, text: impl Into<String>) {
        self.partial[reason as usize] = true;
        self.warn(text);
    }

    /// Something people should know that leaves the collection complete.
    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.warnings.contains(&text) {
            return;
        }
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(text);
        } else {
            self.suppressed += 1;
        }
    }

    /// Whether it is incomplete for `reason`.
    pub fn is_partial(&self, reason: PartialReason) -> bool {
        self.partial[reason as usize]
    }

    /// The texts, with a last one that counts those left out.
    pub fn into_warnings(mut self) -> Vec<String> {
        if self.suppressed > 0 {
            self.warnings.push(format!("{} more warnings", self.suppressed));
        }
        self.warnings
    }
}

/// What one collector session has counted since it started.
#[derive(Clone, Debug)]
pub struct Account {
    errors: BTreeMap<&'static str, u64>,
    /// Requests sent.
    pub commands: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

impl Account {
    /// Counters at zero, for a collector with these `stages`.
    pub fn new(stages: &[&'static str]) -> Self {
        Self {
            errors: stages.iter().map(|stage| (*stage, 0)).collect(),
            commands: 0,
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    /// Counts an error.
    pub fn error(&mut self, stage: &'static str) {
        *self.errors.entry(stage).or_default() += 1;
    }

    /// Errors so far.
    pub fn errors(&self, stage: &str) -> u64 {
        self.errors.get(stage).copied().unwrap_or_default()
    }

    /// Appends the samples about the collection itself.
    pub fn push(
        &self,
        out: &mut Vec<ScrapedSample>,
        system: &'static str,
        doubts: &Doubts,
        cost: CollectionCost,
    ) {
        let system = ("system", system);
        push_sample(out, &COLLECTOR_DURATION, &[system], cost.duration.as_secs_f64());
        push_sample(out, &COLLECTOR_INTERVAL, &[system], cost.interval.as_secs_f64());
        for (reason, name) in PartialReason::ALL {
            let value = f64::from(u8::from(doubts.is_partial(reason)));
            push_sample(out, &COLLECTOR_PARTIAL, &[system, ("reason", name)], value);
        }
        for (stage, count) in &self.errors {
            push_sample(out, &COLLECTOR_ERRORS, &[system, ("stage", stage)], *count as f64);
        }
        push_sample(out, &COLLECTOR_DROPPED, &[system], cost.dropped as f64);
        push_sample(out, &COLLECTOR_COMMANDS, &[system], self.commands as f64);
        push_sample(out, &COLLECTOR_SENT, &[system], self.sent_bytes as f64);
        push_sample(out, &COLLECTOR_RECEIVED, &[system], self.received_bytes as f64);
    }
}

/// The cost of one collection.
#[derive(Clone, Copy, Debug, Default)]
pub struct CollectionCost {
    /// Time from its start.
    pub duration: Duration,
    /// The target's interval.
    pub interval: Duration,
    /// Queues and groups without series of their own.
    pub dropped: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_unique_and_bounded() {
        let mut doubts = Doubts::default();
        for n in 0..50 {
            doubts.partial(PartialReason::Limit, format!("text {}", n / 2));
        }
        assert!(doubts.is_partial(PartialReason::Limit) && !doubts.is_partial(PartialReason::Timeout));
        let warnings = doubts.into_warnings();
        assert_eq!(warnings.len(), WARNINGS_MAX + 1);
        assert_eq!(warnings.last().map(String::as_str), Some("10 more warnings"));
    }

    #[test]
    fn reasons_are_always_there_so_that_alerts_resolve() {
        let mut account = Account::new(&["connect"]);
        account.error("connect");
        let mut doubts = Doubts::default();
        doubts.partial(PartialReason::Permission, "no right");
        let mut out = Vec::new();
        account.push(&mut out, "redis", &doubts, CollectionCost::default());
        let printed: Vec<String> = out.iter().map(|s| format!("{} {}", s.labels, s.value)).collect();
        assert!(printed.contains(
            &r#"{__name__="queue_collector_partial", reason="permission", system="redis"} 1"#.to_owned()
        ));
        assert!(printed.contains(
            &r#"{__name__="queue_collector_partial", reason="timeout", system="redis"} 0"#.to_owned()
        ));
        assert!(printed.contains(
            &r#"{__name__="queue_collector_errors_total", stage="connect", system="redis"} 1"#.to_owned()
        ));
    }
}
