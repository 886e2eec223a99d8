//! Inhibition: while a source alert fires, target alerts with equal values of certain labels are not notified.
//!
//! An alert that matches both sides of a rule is not inhibited by another one that does. Sources are indexed by their
//! values of the rule's `equal` labels, *all* of them: Alertmanager 0.33 keeps only the one that ends last, so there
//! inhibition stops when that one resolves although others still fire, and a source that is also a target can hide a
//! plain one. Neither is so here.

use std::collections::HashMap;
use std::sync::Arc;

use model::alert::Fingerprint;
use model::{Labels, Matcher, Timestamp};
use parking_lot::Mutex;

use crate::alert::StoredAlert;
use crate::config::InhibitRuleConfig;

#[derive(Clone, Copy, Debug)]
struct Source {
    ends_at: Timestamp,
    /// It matches the target side too.
    is_target: bool,
}

#[derive(Debug)]
struct Rule {
    config: InhibitRuleConfig,
    /// By the values of the `equal` labels (absent ones are left out: absent equals empty).
    sources: Mutex<HashMap<Labels, HashMap<Fingerprint, Source>>>,
}

/// All rules with what they have seen.
#[derive(Debug)]
pub(crate) struct Inhibitor {
    rules: Vec<Rule>,
}

impl Inhibitor {
    pub(crate) fn new(configs: &[InhibitRuleConfig]) -> Self {
        let rule = |config: &InhibitRuleConfig| Rule { config: config.clone(), sources: Mutex::default() };
        Self { rules: configs.iter().map(rule).collect() }
    }

    /// Learns of an alert's present state.
    pub(crate) fn update(&self, alert: &Arc<StoredAlert>) {
        for rule in &self.rules {
            if !Matcher::all_match(&rule.config.source, &alert.labels) {
                continue;
            }
            let is_target = Matcher::all_match(&rule.config.target, &alert.labels);
            let source = Source { ends_at: alert.ends_at, is_target };
            let key = alert.labels.only(&rule.config.equal);
            rule.sources.lock().entry(key).or_default().insert(alert.fingerprint, source);
        }
    }

    /// The alert that inhibits `labels` at `now`: of several the one that ends last, then the largest fingerprint.
    pub(crate) fn inhibiting(&self, labels: &Labels, now: Timestamp) -> Option<Fingerprint> {
        self.rules.iter().find_map(|rule| {
            if !Matcher::all_match(&rule.config.target, labels) {
                return None;
            }
            let is_source = Matcher::all_match(&rule.config.source, labels);
            let sources = rule.sources.lock();
            let candidates = sources.get(&labels.only(&rule.config.equal))?;
            let inhibits = |source: &Source| source.ends_at > now && !(is_source && source.is_target);
            let firing = candidates.iter().filter(|(_, source)| inhibits(source));
            firing.map(|(fingerprint, source)| (source.ends_at, *fingerprint)).max().map(|(_, fp)| fp)
        })
    }

    /// Forgets sources that have ended.
    pub(crate) fn maintain(&self, now: Timestamp) {
        for rule in &self.rules {
            rule.sources.lock().retain(|_, sources| {
                sources.retain(|_, source| source.ends_at > now);
                !sources.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::IncomingAlert;
    use crate::matchers::MatcherMode;

    fn rule(source: &str, target: &str, equal: &[&str]) -> InhibitRuleConfig {
        let parse = |text| MatcherMode::Fallback.parse_list(text).unwrap();
        let equal = equal.iter().map(|name| (*name).to_owned()).collect();
        InhibitRuleConfig { name: String::new(), source: parse(source), target: parse(target), equal }
    }

    fn alert(labels: &[(&str, &str)], ends_at: i64) -> Arc<StoredAlert> {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let incoming =
            IncomingAlert { labels, starts_at: Some(0), ends_at: Some(ends_at), ..IncomingAlert::default() };
        Arc::new(incoming.into_stored(0, 1).unwrap())
    }

    #[test]
    fn another_source_keeps_inhibiting_when_the_longest_resolves() {
        let inhibitor = Inhibitor::new(&[rule("s=1", "t=1", &["c"])]);
        let (short, long) = (
            alert(&[("s", "1"), ("c", "x"), ("i", "1")], 100),
            alert(&[("s", "1"), ("c", "x"), ("i", "2")], 200),
        );
        inhibitor.update(&short);
        inhibitor.update(&long);
        let target = Labels::from_pairs([("t", "1"), ("c", "x")]);
        assert_eq!(inhibitor.inhibiting(&target, 10), Some(long.fingerprint));
        inhibitor.update(&alert(&[("s", "1"), ("c", "x"), ("i", "2")], 20));
        assert_eq!(inhibitor.inhibiting(&target, 30), Some(short.fingerprint));
        assert_eq!(inhibitor.inhibiting(&target, 100), None, "ended");
        assert_eq!(inhibitor.inhibiting(&Labels::from_pairs([("t", "1"), ("c", "y")]), 10), None);
        inhibitor.maintain(150);
        assert!(inhibitor.rules[0].sources.lock().is_empty());
    }

    #[test]
    fn alerts_on_both_sides_do_not_inhibit_each_other_and_hide_no_plain_source() {
        let inhibitor = Inhibitor::new(&[rule("s=1", "t=1", &[])]);
        let both = alert(&[("s", "1"), ("t", "1")], 500);
        let plain = alert(&[("s", "1")], 100);
        inhibitor.update(&both);
        assert_eq!(inhibitor.inhibiting(&both.labels, 10), None, "not itself");
        let other = Labels::from_pairs([("s", "1"), ("t", "1"), ("x", "2")]);
        assert_eq!(inhibitor.inhibiting(&other, 10), None);
        assert_eq!(inhibitor.inhibiting(&Labels::from_pairs([("t", "1")]), 10), Some(both.fingerprint));
        inhibitor.update(&plain);
        assert_eq!(inhibitor.inhibiting(&other, 10), Some(plain.fingerprint));
    }

    #[test]
    fn absent_labels_equal_empty_ones() {
        let inhibitor = Inhibitor::new(&[rule("s=1", "t=1", &["c", "d"])]);
        let source = alert(&[("s", "1"), ("c", "")], 100);
        inhibitor.update(&source);
        assert_eq!(inhibitor.inhibiting(&Labels::from_pairs([("t", "1")]), 10), Some(source.fingerprint));
        assert_eq!(inhibitor.inhibiting(&Labels::from_pairs([("t", "1"), ("d", "1")]), 10), None);
    }
}
