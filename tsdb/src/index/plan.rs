//! From matchers to series: the cheapest matcher first, negative ones as subtraction, regexes by their shape.
//!
//! A matcher that accepts the empty string accepts series without the label: it is turned round, and what it refuses is
//! subtracted. A regex is run over the values of its label, or, when fewer candidates than values are left, over the
//! candidates' own values; literal sets, prefixes, suffixes and substrings never reach an automaton.

use std::ops::Bound;

use hashbrown::HashMap;
use model::matcher::{MatchOp, Matcher};
use model::regex::RegexShape;
use roaring::RoaringBitmap;

use super::postings::Ids;
use super::{Catalogue, Name, Postings};

/// A step of narrowing, cheapest first.
enum Step<'a> {
    /// Series with exactly this pair.
    Pair(&'a Postings),
    /// Series without this pair.
    NotPair(&'a Postings),
    /// Series that have the label.
    Has(&'a Name),
    /// Series that have it not.
    HasNot(&'a Name),
    /// Series whose value the matcher accepts (`negate`: all but those whose value it refuses).
    Values { matcher: &'a Matcher, name: &'a Name, negate: bool },
}

impl Step<'_> {
    /// Order of execution: small results and cheap operations first.
    fn cost(&self) -> (u8, u64) {
        match self {
            Self::Pair(postings) => (0, postings.len()),
            Self::Has(name) => (1, name.all.len()),
            Self::NotPair(postings) => (2, postings.len()),
            Self::HasNot(name) => (3, name.all.len()),
            Self::Values { name, negate, .. } => (4 + u8::from(*negate), name.values.len() as u64),
        }
    }
}

impl Catalogue {
    /// Ids, ascending, of the series that all `matchers` accept.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Vec<u32> {
        let mut steps = Vec::with_capacity(matchers.len());
        for matcher in matchers {
            match self.step(matcher) {
                Planned::Everything => {}
                Planned::Nothing => return Vec::new(),
                Planned::Step(step) => steps.push(step),
            }
        }
        steps.sort_by_key(Step::cost);
        let mut rest = steps.as_slice();
        let mut ids = match rest {
            [Step::Pair(a), Step::Pair(b), tail @ ..] => {
                rest = tail;
                Ids::of_both(a, b)
            }
            [Step::Pair(a), tail @ ..] => {
                rest = tail;
                Ids::of(a)
            }
            [Step::Values { matcher, name, negate: false }, tail @ ..] => {
                rest = tail;
                Ids::Map(self.union(matcher, name, true))
            }
            _ => Ids::Map(self.live.clone()),
        };
        for step in rest {
            if ids.is_empty() {
                break;
            }
            self.narrow(&mut ids, step);
        }
        ids.into_vec()
    }

    fn narrow(&self, ids: &mut Ids, step: &Step<'_>) {
        match step {
            Step::Pair(postings) => ids.intersect(postings),
            Step::NotPair(postings) => ids.subtract(postings),
            Step::Has(name) => ids.intersect_map(&name.all),
            Step::HasNot(name) => ids.subtract_map(&name.all),
            Step::Values { matcher, name, .. } if ids.len() < name.values.len() as u64 => {
                self.filter_by_value(ids, matcher, name);
            }
            Step::Values { matcher, name, negate: false } => {
                ids.intersect_map(&self.union(matcher, name, true))
            }
            Step::Values { matcher, name, negate: true } => {
                ids.subtract_map(&self.union(matcher, name, false))
            }
        }
    }

    /// Looks at each candidate's own value; equal values are judged once.
    fn filter_by_value(&self, ids: &mut Ids, matcher: &Matcher, name: &Name) {
        let mut judged: HashMap<u32, bool> = HashMap::new();
        let empty = matcher.matches_empty();
        ids.retain(|id| {
            let Some(entry) = self.series.get(id) else { return false };
            let same_name = |pair: &&u32| self.names[self.pair(**pair).name as usize].name == name.name;
            match entry.pairs.iter().find(same_name) {
                None => empty,
                Some(pair) => {
                    *judged.entry(*pair).or_insert_with(|| matcher.matches(&self.pair(*pair).value))
                }
            }
        });
    }

    fn step<'a>(&'a self, matcher: &'a Matcher) -> Planned<'a> {
        let empty = matcher.matches_empty();
        let Some(name) = self.name(&matcher.name) else {
            return if empty { Planned::Everything } else { Planned::Nothing };
        };
        let pair = || self.postings(&matcher.name, &matcher.value);
        let shape = matcher.regex().map(model::regex::RegexMatcher::shape);
        Planned::Step(match (matcher.op, shape) {
            (MatchOp::Equal, _) if empty => Step::HasNot(name),
            (MatchOp::Equal, _) => match pair() {
                Postings::Empty => return Planned::Nothing,
                postings => Step::Pair(postings),
            },
            (MatchOp::NotEqual, _) if !empty => Step::Has(name),
            (MatchOp::NotEqual, _) => match pair() {
                Postings::Empty => return Planned::Everything,
                postings => Step::NotPair(postings),
            },
            (MatchOp::Regex, Some(RegexShape::Any)) => return Planned::Everything,
            (MatchOp::NotRegex, Some(RegexShape::Any)) => return Planned::Nothing,
            (MatchOp::Regex, Some(RegexShape::NonEmpty)) => Step::Has(name),
            (MatchOp::NotRegex, Some(RegexShape::NonEmpty)) => Step::HasNot(name),
            (MatchOp::Regex | MatchOp::NotRegex, _) => Step::Values { matcher, name, negate: empty },
        })
    }

    /// Series with a value that the matcher accepts (or refuses, when `accepted` is false).
    fn union(&self, matcher: &Matcher, name: &Name, accepted: bool) -> RoaringBitmap {
        let mut union = RoaringBitmap::new();
        let mut add = |pair: &u32| self.pair(*pair).postings.add_to(&mut union);
        // Values for which the bare expression is true are wanted when this is true, those for which it is false else.
        let positive = (matcher.op == MatchOp::Regex) == accepted;
        let Some(regex) = matcher.regex().filter(|_| positive) else {
            for (_, pair) in name.values.iter().filter(|(value, _)| matcher.matches(value) == accepted) {
                add(pair);
            }
            return union;
        };
        let from = |prefix: &'_ str| {
            let prefix = prefix.to_owned();
            let range = name.values.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
            range.take_while(move |(value, _)| value.starts_with(prefix.as_str()))
        };
        match regex.shape() {
            RegexShape::Literals(literals) => {
                for pair in literals.iter().filter_map(|literal| name.values.get(literal.as_str())) {
                    add(pair);
                }
            }
            RegexShape::Prefix(prefix) => from(prefix).for_each(|(_, pair)| add(pair)),
            RegexShape::Suffix(suffix) => {
                let matching = name.values.iter().filter(|(value, _)| value.ends_with(suffix.as_str()));
                matching.for_each(|(_, pair)| add(pair));
            }
            RegexShape::Contains(part) => {
                let matching = name.values.iter().filter(|(value, _)| value.contains(part.as_str()));
                matching.for_each(|(_, pair)| add(pair));
            }
            RegexShape::Automaton { prefix } => {
                let matching = from(prefix).filter(|(value, _)| regex.is_match(value));
                matching.for_each(|(_, pair)| add(pair));
            }
            _ => {
                let matching = name.values.iter().filter(|(value, _)| regex.is_match(value));
                matching.for_each(|(_, pair)| add(pair));
            }
        }
        union
    }
}

/// What a matcher amounts to on this catalogue.
enum Planned<'a> {
    Everything,
    Nothing,
    Step(Step<'a>),
}
