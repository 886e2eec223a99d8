//! Regular expressions as Prometheus has them: Go's RE2 syntax, anchored, `.` matches newlines.

use std::fmt;

/// Most bytes of memory a compiled expression may take: a pathological one is refused, not built.
const COMPILED_SIZE_MAX: usize = 10 << 20;

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(pub String);

/// A compiled, fully anchored expression, with what storage can use instead of running it.
pub struct RegexMatcher {
    regex: regex::Regex,
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

impl RegexMatcher {
    /// Compiles `^(?s:pattern)$`.
    ///
    /// # Errors
    /// When the pattern is malformed or its automaton too large.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(COMPILED_SIZE_MAX)
            .build()
            .map_err(|error| RegexError(error.to_string()))?;
        Ok(Self { regex, shape: RegexShape::Automaton { prefix: String::new() } })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// What the expression amounts to.
    pub fn shape(&self) -> &RegexShape {
        &self.shape
    }

    /// The compiled, anchored expression, for captures (relabelling, `label_replace`).
    pub fn regex(&self) -> &regex::Regex {
        &self.regex
    }
}

impl fmt::Debug for RegexMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegexMatcher({})", self.regex.as_str())
    }
}

/// Compiles `pattern` for searching: not anchored, `.` does not match newlines.
pub fn compile_search(pattern: &str) -> Result<regex::Regex, RegexError> {
    regex::RegexBuilder::new(pattern).size_limit(COMPILED_SIZE_MAX).build().map_err(|e| RegexError(e.to_string()))
}

/// Go's `Regexp.Expand`.
pub fn expand(template: &str, captures: &regex::Captures<'_>, out: &mut String) {
    captures.expand(template, out);
}
