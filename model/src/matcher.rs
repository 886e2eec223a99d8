//! Label matchers: `=`, `!=`, `=~`, `!~`.
//!
//! An absent label counts as the empty string. Regular expressions are Go's RE2 syntax, anchored at both ends, `.`
//! matches newlines (see [`crate::regex`]).

use std::fmt;
use std::sync::Arc;

use crate::labels::{Labels, METRIC_NAME, Quoted, is_legacy_label_name};
use crate::regex::{RegexBudget, RegexError, RegexMatcher};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }

    /// Whether the operator accepts what its counterpart refuses.
    pub fn is_negative(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotRegex)
    }
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One condition on one label. Cheap to clone: the compiled expression is shared.
#[derive(Clone)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How it is compared.
    pub op: MatchOp,
    /// With what.
    pub value: String,
    regex: Option<Arc<RegexMatcher>>,
}

impl Matcher {
    /// A matcher; compiles `value` for the regex operators.
    ///
    /// # Errors
    /// When `value` is no valid regular expression, or one too large.
    pub fn new(op: MatchOp, name: impl Into<String>, value: impl Into<String>) -> Result<Self, RegexError> {
        let (name, value) = (name.into(), value.into());
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(RegexMatcher::new(&value)?)),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name, op, value, regex })
    }

    /// As [`Matcher::new`], with the expression out of a budget.
    ///
    /// # Errors
    /// When `value` is no valid regular expression, or one too large.
    pub fn new_within(
        op: MatchOp,
        name: impl Into<String>,
        value: impl Into<String>,
        budget: &RegexBudget,
    ) -> Result<Self, RegexError> {
        let (name, value) = (name.into(), value.into());
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(RegexMatcher::new_within(&value, budget)?)),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name, op, value, regex })
    }

    /// `name="value"`
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// `name!="value"`
    pub fn not_equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::NotEqual, value: value.into(), regex: None }
    }

    /// Whether a label with this value (empty: absent) is accepted.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => value == self.value,
            (MatchOp::NotEqual, _) => value != self.value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => {
                unreachable!("regex matchers are compiled when made")
            }
        }
    }

    /// Whether series without the label are accepted.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Whether the label set is accepted.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.value(&self.name))
    }

    /// The compiled expression of a regex matcher, for planning.
    pub fn regex(&self) -> Option<&RegexMatcher> {
        self.regex.as_deref()
    }

    /// Whether all of `matchers` accept `labels`.
    pub fn all_match(matchers: &[Self], labels: &Labels) -> bool {
        matchers.iter().all(|matcher| matcher.matches_labels(labels))
    }

    /// The metric name that `matchers` fix by equality, if they do.
    pub fn metric_name(matchers: &[Self]) -> Option<&str> {
        matchers.iter().find(|m| m.op == MatchOp::Equal && m.name == METRIC_NAME).map(|m| m.value.as_str())
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.op, &self.name, &self.value).hash(state);
    }
}

/// `name=~"value"`, the name quoted when PromQL needs it.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "{}", Quoted(&self.name))?;
        }
        write!(f, "{}{}", self.op, Quoted(&self.value))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regexes_are_anchored_and_absent_is_empty() {
        let labels = Labels::from_pairs([("job", "api-server")]);
        let cases = [
            (MatchOp::Regex, "job", "api", false),
            (MatchOp::Regex, "job", "api.*", true),
            (MatchOp::Regex, "job", "api|api-server", true),
            (MatchOp::NotRegex, "job", "api", true),
            (MatchOp::Regex, "absent", "", true),
            (MatchOp::Regex, "absent", ".+", false),
            (MatchOp::NotEqual, "absent", "x", true),
            (MatchOp::Equal, "absent", "", true),
        ];
        for (op, name, value, accepted) in cases {
            let matcher = Matcher::new(op, name, value).unwrap();
            assert_eq!(matcher.matches_labels(&labels), accepted, "{matcher}");
        }
    }

    #[test]
    fn prints_like_promql() {
        let matcher = Matcher::new(MatchOp::NotRegex, "label.x", "a\"b").unwrap();
        assert_eq!(matcher.to_string(), r#""label.x"!~"a\"b""#);
    }
}
