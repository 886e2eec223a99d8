//! What an anchored expression amounts to, from its structure.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use super::RegexShape;
use super::translate::Translated;

/// Most literals that take the place of an expression.
const LITERALS_MAX: usize = 1000;
/// The same when letter case is ignored: `(?i)abcdefgh` alone would be 256.
const FOLDED_LITERALS_MAX: usize = 64;
/// Most bytes of all literals together.
const LITERAL_BYTES_MAX: usize = 64 << 10;

/// The shape of `^(?s:translated)$`.
pub(super) fn analyse(translated: &Translated) -> RegexShape {
    let automaton = || RegexShape::Automaton { prefix: String::new() };
    let parsed =
        regex_syntax::ParserBuilder::new().dot_matches_new_line(true).build().parse(&translated.pattern);
    let Ok(hir) = parsed else { return automaton() };
    let mut parts = Vec::new();
    flatten(&hir, &mut parts);
    // The expression is anchored: anchors of its own at its ends say nothing new.
    while parts.first().is_some_and(|part| matches!(part.kind(), HirKind::Look(Look::Start))) {
        parts.remove(0);
    }
    while parts.last().is_some_and(|part| matches!(part.kind(), HirKind::Look(Look::End))) {
        parts.pop();
    }
    let limit = if translated.folds_case { FOLDED_LITERALS_MAX } else { LITERALS_MAX };
    if let Some(mut literals) = concat_literals(&parts, limit) {
        literals.sort_unstable();
        literals.dedup();
        return RegexShape::Literals(literals);
    }
    if let [only] = parts.as_slice()
        && let HirKind::Alternation(branches) = only.kind()
        && let Some(shape) = alternation(branches)
    {
        return shape;
    }
    around(&parts).unwrap_or_else(|| {
        let (prefix, _) = concat_prefix(&parts);
        RegexShape::Automaton { prefix }
    })
}

/// The parts of a concatenation, groups opened.
fn flatten<'h>(hir: &'h Hir, parts: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        HirKind::Concat(subs) => subs.iter().for_each(|sub| flatten(sub, parts)),
        HirKind::Empty => {}
        _ => parts.push(hir),
    }
}

/// Whether `hir` is any string of at least 0 or 1 characters.
fn any(hir: &Hir) -> Option<u32> {
    let HirKind::Repetition(Repetition { min, max: None, sub, .. }) = hir.kind() else { return None };
    let mut sub = sub.as_ref();
    while let HirKind::Capture(capture) = sub.kind() {
        sub = &capture.sub;
    }
    let HirKind::Class(Class::Unicode(class)) = sub.kind() else { return None };
    let every = class.ranges().len() == 1
        && class.ranges()[0].start() == '\0'
        && class.ranges()[0].end() == char::MAX;
    (every && *min <= 1).then_some(*min)
}

/// `.*`, `.+`, `abc.*`, `.*abc`, `.*abc.*`.
fn around(parts: &[&Hir]) -> Option<RegexShape> {
    if parts.is_empty() {
        return None;
    }
    let least: Vec<Option<u32>> = parts.iter().map(|part| any(part)).collect();
    // `.*.+` has at least one character, `.+.+` two.
    if let Some(least) = least.iter().copied().sum::<Option<u32>>() {
        return match least {
            0 => Some(RegexShape::Any),
            1 => Some(RegexShape::NonEmpty),
            _ => None,
        };
    }
    let open_start = least[0] == Some(0);
    let open_end = least.len() > 1 && least[least.len() - 1] == Some(0);
    let inner = &parts[usize::from(open_start)..parts.len() - usize::from(open_end)];
    let mut literals = concat_literals(inner, 1)?;
    let literal = literals.pop()?;
    match (open_start, open_end) {
        (false, true) => Some(RegexShape::Prefix(literal)),
        (true, false) => Some(RegexShape::Suffix(literal)),
        (true, true) => Some(RegexShape::Contains(literal)),
        (false, false) => None,
    }
}

/// `.*|…` is anything; so is `.+|` with an empty branch.
fn alternation(branches: &[Hir]) -> Option<RegexShape> {
    let mut non_empty = false;
    let mut empty = false;
    for branch in branches {
        let mut parts = Vec::new();
        flatten(branch, &mut parts);
        match around(&parts) {
            Some(RegexShape::Any) => return Some(RegexShape::Any),
            Some(RegexShape::NonEmpty) => non_empty = true,
            _ => {
                empty |= concat_literals(&parts, LITERALS_MAX)
                    .is_some_and(|literals| literals.contains(&String::new()))
            }
        }
    }
    (non_empty && empty).then_some(RegexShape::Any)
}

/// All strings that the parts can be, when these are at most `limit`.
fn concat_literals(parts: &[&Hir], limit: usize) -> Option<Vec<String>> {
    let mut product = vec![String::new()];
    for part in parts {
        product = join(&product, &literals(part, limit)?, limit)?;
    }
    Some(product)
}

fn join(heads: &[String], tails: &[String], limit: usize) -> Option<Vec<String>> {
    let count = heads.len().checked_mul(tails.len()).filter(|count| *count <= limit)?;
    let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    if bytes(heads) * tails.len() + bytes(tails) * heads.len() > LITERAL_BYTES_MAX {
        return None;
    }
    let mut joined = Vec::with_capacity(count);
    for head in heads {
        joined.extend(tails.iter().map(|tail| format!("{head}{tail}")));
    }
    Some(joined)
}

fn literals(hir: &Hir, limit: usize) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(literal) => Some(vec![std::str::from_utf8(&literal.0).ok()?.to_owned()]),
        HirKind::Capture(capture) => literals(&capture.sub, limit),
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.ranges().iter().map(|range| range.len()).sum();
            if count > limit {
                return None;
            }
            Some(
                class
                    .ranges()
                    .iter()
                    .flat_map(|range| range.start()..=range.end())
                    .map(String::from)
                    .collect(),
            )
        }
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => None,
        HirKind::Concat(subs) => concat_literals(&subs.iter().collect::<Vec<_>>(), limit),
        HirKind::Alternation(subs) => {
            let mut all = Vec::new();
            for sub in subs {
                all.extend(literals(sub, limit)?);
                if all.len() > limit {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Repetition(Repetition { min, max: Some(max), sub, .. }) if *max <= 8 => {
            let once = literals(sub, limit)?;
            let mut power = vec![String::new()];
            let mut all = Vec::new();
            for times in 0..=*max {
                if times > 0 {
                    power = join(&power, &once, limit)?;
                }
                if times >= *min {
                    all.extend(power.iter().cloned());
                }
                if all.len() > limit {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Repetition(_) => None,
    }
}

/// The literal that every match of the parts begins with, and whether it is the whole of each match.
fn concat_prefix(parts: &[&Hir]) -> (String, bool) {
    let mut prefix = String::new();
    for part in parts {
        let (next, whole) = prefix_of(part);
        prefix.push_str(&next);
        if !whole || prefix.len() > LITERAL_BYTES_MAX {
            return (prefix, false);
        }
    }
    (prefix, true)
}

fn prefix_of(hir: &Hir) -> (String, bool) {
    match hir.kind() {
        HirKind::Empty => (String::new(), true),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => (text.to_owned(), true),
            Err(_) => (String::new(), false),
        },
        HirKind::Capture(capture) => prefix_of(&capture.sub),
        HirKind::Concat(subs) => concat_prefix(&subs.iter().collect::<Vec<_>>()),
        HirKind::Alternation(subs) => {
            let mut branches = subs.iter().map(prefix_of);
            let Some((mut common, mut whole)) = branches.next() else { return (String::new(), false) };
            for (prefix, branch_whole) in branches {
                let shared = common.chars().zip(prefix.chars()).take_while(|(a, b)| a == b);
                let len = shared.map(|(a, _)| a.len_utf8()).sum::<usize>();
                whole &= branch_whole && len == common.len() && len == prefix.len();
                common.truncate(len);
            }
            (common, whole)
        }
        HirKind::Repetition(Repetition { min, sub, .. }) if *min > 0 => (prefix_of(sub).0, false),
        HirKind::Repetition(_) | HirKind::Class(_) | HirKind::Look(_) => (String::new(), false),
    }
}
