//! How long samples are kept: for all, and for the series that selectors name.
//!
//! Durations become *floors*, times before which samples are not wanted any more, once for each compaction. With rules,
//! queries do not show what is below a series' floor, merging leaves it out, and a block goes when it is below all floors.
//! Without rules only whole blocks go, as in Prometheus, and there is nothing to hide.

use std::time::Duration;

use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::Timestamp;

use crate::db::millis;

/// How long the series that a selector accepts are kept.
#[derive(Clone, Debug)]
pub struct RetentionRule {
    /// All of them must accept a series.
    pub matchers: Vec<Matcher>,
    /// How long; zero: for ever.
    pub duration: Duration,
}

/// How long samples are kept, and how much of them.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// For series that no rule names; zero: for ever. Whole blocks go, when all of their samples are older.
    pub time: Duration,
    /// Most bytes of all files together; 0: no bound. The oldest blocks go first, the head never.
    pub size_bytes: u64,
    /// The first that accepts a series decides.
    pub rules: Vec<RetentionRule>,
}

impl From<Duration> for Retention {
    fn from(time: Duration) -> Self {
        Self { time, ..Self::default() }
    }
}

impl Retention {
    /// The longest time that anything is kept; zero: for ever.
    pub(crate) fn longest(&self) -> Duration {
        let times = || std::iter::once(self.time).chain(self.rules.iter().map(|rule| rule.duration));
        if times().any(|time| time.is_zero()) { Duration::ZERO } else { times().max().unwrap_or_default() }
    }

    /// Floors when the newest sample that counts is at `newest`.
    pub(crate) fn floors(&self, newest: Timestamp) -> Floors {
        let floor = |time: Duration| {
            if time.is_zero() { Timestamp::MIN } else { newest.saturating_sub(millis(time)) }
        };
        let rules = self.rules.iter().map(|rule| (rule.matchers.clone(), floor(rule.duration))).collect();
        Floors { rules, others: floor(self.time) }
    }
}

/// The times before which samples are not wanted.
#[derive(Clone, Debug)]
pub(crate) struct Floors {
    rules: Vec<(Vec<Matcher>, Timestamp)>,
    others: Timestamp,
}

impl Floors {
    /// Everything is wanted.
    pub(crate) fn none() -> Self {
        Self::all(Timestamp::MIN)
    }

    /// The same for all series.
    pub(crate) fn all(floor: Timestamp) -> Self {
        Self { rules: Vec::new(), others: floor }
    }

    /// Whether there are rules.
    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    pub(crate) fn rules(&self) -> &[(Vec<Matcher>, Timestamp)] {
        &self.rules
    }

    /// The floor of series that no rule names.
    pub(crate) fn others(&self) -> Timestamp {
        self.others
    }

    /// The floor of a series.
    pub(crate) fn of(&self, labels: &Labels) -> Timestamp {
        let rule = self.rules.iter().find(|(matchers, _)| Matcher::all_match(matchers, labels));
        rule.map_or(self.others, |(_, floor)| *floor)
    }

    /// What is older than this, nobody wants.
    pub(crate) fn lowest(&self) -> Timestamp {
        self.rules.iter().map(|(_, floor)| *floor).fold(self.others, Timestamp::min)
    }

    /// All that is newer than this, everybody wants.
    pub(crate) fn highest(&self) -> Timestamp {
        self.rules.iter().map(|(_, floor)| *floor).fold(self.others, Timestamp::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, seconds: u64) -> RetentionRule {
        RetentionRule { matchers: vec![Matcher::equal("job", name)], duration: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_first_rule_that_accepts_decides() {
        let rules = vec![rule("a", 10), rule("a", 20), rule("b", 0)];
        let mut retention = Retention { time: Duration::from_secs(30), size_bytes: 0, rules };
        let floors = retention.floors(100_000);
        let of = |job: &str| floors.of(&Labels::from_pairs([("job", job)]));
        assert_eq!((of("a"), of("b"), of("c")), (90_000, Timestamp::MIN, 70_000));
        assert_eq!((floors.lowest(), floors.highest()), (Timestamp::MIN, 90_000));
        assert!(floors.has_rules() && !Floors::none().has_rules());
        assert_eq!(retention.longest(), Duration::ZERO);
        retention.rules.pop();
        assert_eq!(retention.longest(), Duration::from_secs(30));
        assert_eq!(retention.floors(100_000).lowest(), 70_000);
        let forever = Retention::default();
        assert_eq!((forever.longest(), forever.floors(5).lowest()), (Duration::ZERO, Timestamp::MIN));
    }
}
