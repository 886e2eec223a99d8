//! From matchers to series: the cheapest matcher first, negative ones as subtraction, regexes by their shape.
//!
//! A matcher that accepts the empty string accepts series without the label: it is turned round, and what it refuses is
//! subtracted. A regex is run over the values of its label, or, when that is less work, over the values that the
//! candidates left have; literal sets, prefixes, suffixes and substrings never reach an automaton, and no value is judged
//! twice by one matcher.
//!
//! The plan is the same for the catalogue in memory and for the index of a block: both are [`Searchable`].

use std::borrow::Cow;

use hashbrown::HashMap;
use model::matcher::{MatchOp, Matcher};
use model::regex::{RegexMatcher, RegexShape};
use roaring::RoaringBitmap;

use super::Postings;
use super::pace::{Interrupted, Pace};
use super::postings::{Ids, Union};

/// An inverted index that can be asked for series. Implementers owe: ids ascend; values of a name are unique; only series
/// that may be selected occur, in postings and in [`Searchable::all`] alike; a pair's number stands for one name and value.
pub(crate) trait Searchable {
    /// What may go wrong.
    type Error: From<Interrupted>;
    /// A label name.
    type Name: Copy;
    /// One label pair, and where its postings are.
    type Pair;
    /// What looking at the labels of several series in ascending order remembers.
    type Cursor: Default;
    /// What it costs to look at one series' labels, in comparisons of a value.
    const SERIES_COST: u64;
    /// Postings of more than this many series per candidate are not read: the candidates' own labels are looked at.
    const POSTINGS_PER_CANDIDATE: u64;

    /// All series.
    fn all(&self) -> RoaringBitmap;
    /// The label name, if any series has it.
    fn name(&self, name: &str) -> Option<Self::Name>;
    /// Number of values of a label.
    fn values(&self, name: Self::Name) -> u64;
    /// Number of series with a label.
    fn having_len(&self, name: Self::Name) -> u64;
    /// The series with a label.
    fn having(&self, name: Self::Name) -> Result<Cow<'_, Postings>, Self::Error>;
    /// A label pair, if any series has it.
    fn pair(&self, name: Self::Name, value: &str) -> Result<Option<Self::Pair>, Self::Error>;
    /// The name of a pair.
    fn name_of(&self, pair: &Self::Pair) -> Self::Name;
    /// The number of a pair.
    fn number(&self, pair: &Self::Pair) -> u32;
    /// Number of series with a pair.
    fn postings_len(&self, pair: &Self::Pair) -> u64;
    /// The series with a pair.
    fn postings(&self, pair: &Self::Pair) -> Result<Cow<'_, Postings>, Self::Error>;
    /// Adds the series with each value of a label that begins with `prefix` and that `accept` accepts. Each value is
    /// shown once, until there is an error.
    fn add_values(
        &self,
        name: Self::Name,
        prefix: &str,
        accept: &mut dyn FnMut(&str) -> Result<bool, Self::Error>,
        union: &mut Union,
    ) -> Result<(), Self::Error>;
    /// The number of the pair by which a series has a label.
    fn pair_of(
        &self,
        cursor: &mut Self::Cursor,
        series: u32,
        name: Self::Name,
    ) -> Result<Option<u32>, Self::Error>;
    /// The value of a pair, by its number.
    fn value(&self, pair: u32) -> Result<Cow<'_, str>, Self::Error>;
}

/// A step of narrowing.
enum Step<'a, I: Searchable> {
    /// Series with exactly this pair.
    Pair(I::Pair),
    /// Series without this pair.
    NotPair(I::Pair),
    /// Series that have the label.
    Has(I::Name),
    /// Series that have it not.
    HasNot(I::Name),
    /// Series whose value the matcher accepts (`negate`: all but those whose value it refuses).
    Values { matcher: &'a Matcher, name: I::Name, negate: bool },
}

/// What a matcher amounts to on an index.
enum Planned<'a, I: Searchable> {
    Everything,
    Nothing,
    Step(Step<'a, I>),
}

/// Ids, ascending, of the series that all `matchers` accept, unless `pace` says to end.
pub(crate) fn select<I: Searchable>(
    index: &I,
    matchers: &[Matcher],
    pace: &Pace<'_>,
) -> Result<Vec<u32>, I::Error> {
    let mut steps = Vec::with_capacity(matchers.len());
    for matcher in matchers {
        match plan(index, matcher)? {
            Planned::Everything => {}
            Planned::Nothing => return Ok(Vec::new()),
            Planned::Step(step) => steps.push(step),
        }
    }
    steps.sort_by_key(|step| cost(index, step));
    let mut rest = steps.as_slice();
    let mut ids = match rest {
        [Step::Pair(a), Step::Pair(b), tail @ ..] => {
            rest = tail;
            Ids::of_both(index.postings(a)?, index.postings(b)?)
        }
        [Step::Pair(a), tail @ ..] => {
            rest = tail;
            Ids::of_cow(index.postings(a)?)
        }
        [Step::Has(name), tail @ ..] => {
            rest = tail;
            Ids::of_cow(index.having(*name)?)
        }
        [Step::Values { matcher, name, negate: false }, tail @ ..] => {
            rest = tail;
            Ids::Map(union(index, matcher, *name, true, pace)?)
        }
        _ => Ids::Map(index.all()),
    };
    for step in rest {
        if ids.is_empty() {
            break;
        }
        pace.look()?;
        narrow(index, &mut ids, step, pace)?;
    }
    Ok(ids.into_vec())
}

/// Order of execution: small results and cheap operations first.
fn cost<I: Searchable>(index: &I, step: &Step<'_, I>) -> (u8, u64) {
    match step {
        Step::Pair(pair) => (0, index.postings_len(pair)),
        // Most labels are on many series: what a regex leaves is less, and a regex over few values costs little.
        Step::Values { name, negate: false, .. } if index.values(*name) <= 256 => (1, index.values(*name)),
        Step::Has(name) => (2, index.having_len(*name)),
        Step::NotPair(pair) => (3, index.postings_len(pair)),
        Step::HasNot(name) => (4, index.having_len(*name)),
        Step::Values { name, negate, .. } => (5 + u8::from(*negate), index.values(*name)),
    }
}

fn narrow<I: Searchable>(
    index: &I,
    ids: &mut Ids,
    step: &Step<'_, I>,
    pace: &Pace<'_>,
) -> Result<(), I::Error> {
    let too_long = |len: u64, ids: &Ids| ids.len().saturating_mul(I::POSTINGS_PER_CANDIDATE) < len;
    match step {
        Step::Pair(pair) if too_long(index.postings_len(pair), ids) => {
            filter(index, ids, index.name_of(pair), pace, |found| found == Some(index.number(pair)))?;
        }
        Step::NotPair(pair) if too_long(index.postings_len(pair), ids) => {
            filter(index, ids, index.name_of(pair), pace, |found| found != Some(index.number(pair)))?;
        }
        Step::Has(name) if too_long(index.having_len(*name), ids) => {
            filter(index, ids, *name, pace, |found| found.is_some())?;
        }
        Step::HasNot(name) if too_long(index.having_len(*name), ids) => {
            filter(index, ids, *name, pace, |found| found.is_none())?;
        }
        Step::Pair(pair) => ids.intersect(&*index.postings(pair)?),
        Step::NotPair(pair) => ids.subtract(&*index.postings(pair)?),
        Step::Has(name) => ids.intersect(&*index.having(*name)?),
        Step::HasNot(name) => ids.subtract(&*index.having(*name)?),
        Step::Values { matcher, name, .. }
            if ids.len().saturating_mul(I::SERIES_COST) < index.values(*name) =>
        {
            filter_by_value(index, ids, matcher, *name, pace)?;
        }
        Step::Values { matcher, name, negate: false } => {
            ids.intersect_map(&union(index, matcher, *name, true, pace)?);
        }
        Step::Values { matcher, name, negate: true } => {
            ids.subtract_map(&union(index, matcher, *name, false, pace)?);
        }
    }
    Ok(())
}

/// Keeps the candidates whose pair of a name `keep` accepts.
fn filter<I: Searchable>(
    index: &I,
    ids: &mut Ids,
    name: I::Name,
    pace: &Pace<'_>,
    keep: impl Fn(Option<u32>) -> bool,
) -> Result<(), I::Error> {
    let mut cursor = I::Cursor::default();
    ids.try_retain(|id| {
        pace.step()?;
        Ok(keep(index.pair_of(&mut cursor, id, name)?))
    })
}

/// Looks at each candidate's own value; equal values are judged once.
fn filter_by_value<I: Searchable>(
    index: &I,
    ids: &mut Ids,
    matcher: &Matcher,
    name: I::Name,
    pace: &Pace<'_>,
) -> Result<(), I::Error> {
    let mut judged: HashMap<u32, bool> = HashMap::new();
    let empty = matcher.matches_empty();
    let mut cursor = I::Cursor::default();
    ids.try_retain(|id| {
        pace.step()?;
        let Some(pair) = index.pair_of(&mut cursor, id, name)? else { return Ok(empty) };
        if let Some(known) = judged.get(&pair) {
            return Ok(*known);
        }
        let accepted = matcher.matches(&index.value(pair)?);
        judged.insert(pair, accepted);
        Ok(accepted)
    })
}

fn plan<'a, I: Searchable>(index: &I, matcher: &'a Matcher) -> Result<Planned<'a, I>, I::Error> {
    let empty = matcher.matches_empty();
    let Some(name) = index.name(&matcher.name) else {
        return Ok(if empty { Planned::Everything } else { Planned::Nothing });
    };
    let shape = matcher.regex().map(RegexMatcher::shape);
    Ok(Planned::Step(match (matcher.op, shape) {
        (MatchOp::Equal, _) if empty => Step::HasNot(name),
        (MatchOp::Equal, _) => match index.pair(name, &matcher.value)? {
            None => return Ok(Planned::Nothing),
            Some(pair) => Step::Pair(pair),
        },
        (MatchOp::NotEqual, _) if !empty => Step::Has(name),
        (MatchOp::NotEqual, _) => match index.pair(name, &matcher.value)? {
            None => return Ok(Planned::Everything),
            Some(pair) => Step::NotPair(pair),
        },
        (MatchOp::Regex, Some(RegexShape::Any)) => return Ok(Planned::Everything),
        (MatchOp::NotRegex, Some(RegexShape::Any)) => return Ok(Planned::Nothing),
        (MatchOp::Regex, Some(RegexShape::NonEmpty)) => Step::Has(name),
        (MatchOp::NotRegex, Some(RegexShape::NonEmpty)) => Step::HasNot(name),
        (MatchOp::Regex | MatchOp::NotRegex, _) => Step::Values { matcher, name, negate: empty },
    }))
}

/// Series with a value that the matcher accepts (or refuses, when `accepted` is false).
fn union<I: Searchable>(
    index: &I,
    matcher: &Matcher,
    name: I::Name,
    accepted: bool,
    pace: &Pace<'_>,
) -> Result<RoaringBitmap, I::Error> {
    let mut union = Union::default();
    let add = |prefix: &str, accept: &dyn Fn(&str) -> bool, union: &mut Union| {
        let mut accept = |value: &str| {
            pace.step()?;
            Ok(accept(value))
        };
        index.add_values(name, prefix, &mut accept, union)
    };
    // Values for which the bare expression is true are wanted when this is true, those for which it is false else.
    let positive = (matcher.op == MatchOp::Regex) == accepted;
    let Some(regex) = matcher.regex().filter(|_| positive) else {
        add("", &|value| matcher.matches(value) == accepted, &mut union)?;
        return Ok(union.finish());
    };
    match regex.shape() {
        RegexShape::Literals(literals) => {
            for literal in literals {
                pace.step()?;
                if let Some(pair) = index.pair(name, literal)? {
                    union.add(&*index.postings(&pair)?);
                }
            }
        }
        RegexShape::Prefix(prefix) => add(prefix, &|_| true, &mut union)?,
        RegexShape::Suffix(suffix) => {
            add("", &|value| value.ends_with(suffix.as_str()), &mut union)?;
        }
        RegexShape::Contains(part) => {
            let finder = memchr::memmem::Finder::new(part);
            add("", &|value| finder.find(value.as_bytes()).is_some(), &mut union)?;
        }
        RegexShape::Automaton { prefix } => {
            add(prefix, &|value| regex.is_match(value), &mut union)?;
        }
        _ => add("", &|value| regex.is_match(value), &mut union)?,
    }
    Ok(union.finish())
}
