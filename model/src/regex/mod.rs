//! Regular expressions as Prometheus has them: Go's RE2 syntax, anchored, `.` matches newlines.
//!
//! The `regex` crate has nearly the same syntax, but not quite: `translate` reads Go's, refuses what Go refuses with
//! Go's words, and writes what means the same to the crate. `shape` finds out what an anchored expression amounts to
//! (a list of literals, a prefix, …), so that storage can plan with it and most matches need no automaton.
//!
//! Memory is bounded: a compiled expression takes at most 10 MiB, its lazy automaton per thread at most
//! 1 MiB. Expressions above that are refused ("expression too large"); Go takes a few of them. Expressions that come
//! together, as those of a query, can be bounded in sum ([`RegexBudget`]).

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use ::regex::{Captures, Regex, RegexBuilder};

mod expand;
mod shape;
mod translate;

pub use expand::expand;

/// Most bytes of memory a compiled expression may take: a pathological one is refused, not built.
const COMPILED_SIZE_MAX: usize = 10 << 20;
/// Most bytes of memory of the lazily built automaton; beyond, states are built anew.
const LAZY_DFA_SIZE_MAX: usize = 1 << 20;

/// What compiled expressions are charged with: the least of these that they fit in, as the crate does not say what they take.
const SIZES: [usize; 5] = [4 << 10, 32 << 10, 256 << 10, 2 << 20, COMPILED_SIZE_MAX];
/// Least bytes that a compiled expression takes for each of its text: sizes that cannot do are not tried.
const BYTES_PER_CHARACTER_MIN: usize = 8;

/// What expressions that come together may take in sum: each alone may be large, but there may be thousands.
#[derive(Debug)]
pub struct RegexBudget {
    max_bytes: usize,
    left: Cell<usize>,
}

impl RegexBudget {
    /// A budget of so many bytes. Small expressions are charged with 4 KiB.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, left: Cell::new(max_bytes) }
    }

    /// Without a bound, but that on each expression.
    fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.left.get()
    }
}

/// Why a pattern is refused, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(pub String);

impl RegexError {
    /// Whether the pattern is sound, and only too large.
    pub fn is_too_large(&self) -> bool {
        self.0.starts_with(TOO_LARGE)
    }
}

const TOO_LARGE: &str = "expression too large";

/// A compiled, fully anchored expression, with what storage can use instead of running it.
pub struct RegexMatcher {
    pattern: String,
    regex: Regex,
    shape: RegexShape,
}

/// What an anchored expression amounts to. Storage plans with it; [`RegexMatcher::is_match`] uses it first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegexShape {
    /// Exactly these strings (sorted, unique; the empty string may be one).
    Literals(Vec<String>),
    /// Any string, also the empty one: `.*`.
    Any,
    /// Any string but the empty one: `.+`.
    NonEmpty,
    /// Strings that begin so: `abc.*`.
    Prefix(String),
    /// Strings that end so: `.*abc`.
    Suffix(String),
    /// Strings that hold this: `.*abc.*`.
    Contains(String),
    /// All else; every match begins with `prefix` (may be empty).
    Automaton {
        /// Literal beginning of every match.
        prefix: String,
    },
}

impl RegexShape {
    /// The answer without an automaton, where there is one.
    fn decide(&self, text: &str) -> Option<bool> {
        match self {
            Self::Literals(literals) => {
                Some(literals.binary_search_by(|literal| literal.as_str().cmp(text)).is_ok())
            }
            Self::Any => Some(true),
            Self::NonEmpty => Some(!text.is_empty()),
            Self::Prefix(prefix) => Some(text.starts_with(prefix)),
            Self::Suffix(suffix) => Some(text.ends_with(suffix)),
            Self::Contains(part) => Some(text.contains(part)),
            Self::Automaton { prefix } => (!text.starts_with(prefix)).then_some(false),
        }
    }
}

impl RegexMatcher {
    /// Compiles `^(?s:pattern)$`.
    ///
    /// # Errors
    /// When the pattern is malformed or its automaton too large.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let bare = translate::translate(pattern)?;
        let regex = build(&format!("^(?s:{})$", bare.pattern), pattern, COMPILED_SIZE_MAX)?;
        Ok(Self { pattern: pattern.to_owned(), regex, shape: shape::analyse(&bare) })
    }

    /// As [`RegexMatcher::new`], out of a budget.
    ///
    /// # Errors
    /// When the pattern is malformed, its automaton too large, or larger than what is left of the budget.
    pub fn new_within(pattern: &str, budget: &RegexBudget) -> Result<Self, RegexError> {
        let bare = translate::translate(pattern)?;
        let regex = build_within(&format!("^(?s:{})$", bare.pattern), pattern, budget)?;
        Ok(Self { pattern: pattern.to_owned(), regex, shape: shape::analyse(&bare) })
    }

    /// As [`RegexMatcher::new`], but as relabelling and `label_replace` compile it: the anchors are put around before
    /// anything is checked. Errors show them, and `a)|(b` is accepted.
    ///
    /// # Errors
    /// When the pattern is malformed or its automaton too large.
    pub fn new_wrapped(pattern: &str) -> Result<Self, RegexError> {
        Self::new_wrapped_within(pattern, &RegexBudget::unlimited())
    }

    /// As [`RegexMatcher::new_wrapped`], out of a budget.
    ///
    /// # Errors
    /// When the pattern is malformed, its automaton too large, or larger than what is left of the budget.
    pub fn new_wrapped_within(pattern: &str, budget: &RegexBudget) -> Result<Self, RegexError> {
        let wrapped = format!("^(?s:{pattern})$");
        let whole = translate::translate(&wrapped)?;
        let regex = build_within(&whole.pattern, &wrapped, budget)?;
        let shape = match translate::translate(pattern) {
            Ok(bare) => shape::analyse(&bare),
            Err(_) => RegexShape::Automaton { prefix: String::new() },
        };
        Ok(Self { pattern: pattern.to_owned(), regex, shape })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.shape.decide(text).unwrap_or_else(|| self.regex.is_match(text))
    }

    /// What the expression amounts to.
    pub fn shape(&self) -> &RegexShape {
        &self.shape
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The compiled, anchored expression. Prefer [`RegexMatcher::replace`] for captures: Go's templates differ from the
    /// crate's.
    pub fn regex(&self) -> &Regex {
        &self.regex
    }

    /// `template` with `$1`, `${1}`, `$name`, `${name}` and `$$` replaced by what `text` has there (Go's
    /// `Regexp.Expand`), or `None` when `text` does not match. What relabelling and `label_replace` do.
    pub fn replace(&self, text: &str, template: &str) -> Option<String> {
        if !template.contains('$') {
            return self.is_match(text).then(|| template.to_owned());
        }
        if self.shape.decide(text) == Some(false) {
            return None;
        }
        let captures = self.regex.captures(text)?;
        let mut out = String::with_capacity(template.len() + text.len());
        expand(template, &captures, &mut out);
        Some(out)
    }
}

/// The expression as written.
impl fmt::Debug for RegexMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegexMatcher({:?})", self.pattern)
    }
}

/// Compiles `pattern`, in Go's syntax, for searching: not anchored, and `.` does not match newlines.
///
/// # Errors
/// When the pattern is malformed or its automaton too large.
pub fn compile_search(pattern: &str) -> Result<Regex, RegexError> {
    build(&translate::translate(pattern)?.pattern, pattern, COMPILED_SIZE_MAX)
}

/// All matches of `regex` in `text` replaced by `template` (Go's `Regexp.ReplaceAllString`).
pub fn replace_all<'t>(regex: &Regex, text: &'t str, template: &str) -> Cow<'t, str> {
    regex.replace_all(text, |captures: &Captures<'_>| {
        let mut out = String::new();
        expand(template, captures, &mut out);
        out
    })
}

/// [`build`] with what it takes charged to a budget.
fn build_within(translated: &str, shown: &str, budget: &RegexBudget) -> Result<Regex, RegexError> {
    let left = budget.left.get();
    let least = translated.len().saturating_mul(BYTES_PER_CHARACTER_MIN).min(COMPILED_SIZE_MAX);
    let mut refused = too_large();
    for size in SIZES.into_iter().filter(|size| *size >= least) {
        if size > left {
            let max = budget.max_bytes >> 20;
            return Err(RegexError(format!("{TOO_LARGE}: all in a query may take {max} MiB")));
        }
        match build(translated, shown, size) {
            Err(error) if error == too_large() => refused = error,
            Err(error) => return Err(error),
            Ok(regex) => {
                budget.left.set(left - size);
                return Ok(regex);
            }
        }
    }
    Err(refused)
}

fn too_large() -> RegexError {
    RegexError(TOO_LARGE.to_owned())
}

fn build(translated: &str, shown: &str, size_max: usize) -> Result<Regex, RegexError> {
    RegexBuilder::new(translated).size_limit(size_max).dfa_size_limit(LAZY_DFA_SIZE_MAX).build().map_err(
        |error| match error {
            ::regex::Error::CompiledTooBig(_) => too_large(),
            // Only the depth of nesting is left to be refused by the crate: the translation is well-formed.
            _ => RegexError(format!("expression nests too deeply: `{shown}`")),
        },
    )
}

#[cfg(test)]
mod tests;
