//! Patterns for names of queues: `*` any run, `?` any character, `[a-c]`, `[^x]`, `\` takes the next character as it
//! is: the notation of Redis' own `MATCH`. Not for file names (no special `/`, no `**`).
//!
//! Matching is iterative and at worst pattern × name steps; both are bounded ([`Glob::LENGTH_MAX`], name bounds of
//! the collectors).

use std::fmt;

/// A compiled pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    AnyChar,
    AnyRun,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Longest pattern, in bytes.
    pub const LENGTH_MAX: usize = 1024;

    /// Compiles `text`.
    ///
    /// # Errors
    /// A message when `text` is empty, too long, ends in a lone `\` or leaves a `[` open.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty pattern".to_owned());
        }
        if text.len() > Self::LENGTH_MAX {
            return Err(format!("pattern exceeds {} bytes", Self::LENGTH_MAX));
        }
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' if tokens.last() == Some(&Token::AnyRun) => {}
                '*' => tokens.push(Token::AnyRun),
                '?' => tokens.push(Token::AnyChar),
                '\\' => {
                    let next = chars.next().ok_or_else(|| format!("pattern {text:?} ends in a lone \\"))?;
                    tokens.push(Token::Char(next));
                }
                '[' => tokens.push(
                    parse_class(&mut chars).ok_or_else(|| format!("pattern {text:?} leaves a [ open"))?,
                ),
                c => tokens.push(Token::Char(c)),
            }
        }
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The one name it stands for, if it has no wildcard.
    pub fn literal(&self) -> Option<String> {
        self.tokens
            .iter()
            .map(|token| match token {
                Token::Char(c) => Some(*c),
                Token::AnyChar | Token::AnyRun | Token::Class { .. } => None,
            })
            .collect()
    }

    /// Whether it accepts all of `name`.
    pub fn matches(&self, name: &str) -> bool {
        let mut token = 0;
        let mut rest = name.chars();
        // Where to go on when what follows the last `*` does not fit: one character later.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::AnyRun) => {
                    token += 1;
                    retry = Some((token, rest.clone()));
                    continue;
                }
                Some(other) => {
                    let mut ahead = rest.clone();
                    if ahead.next().is_some_and(|c| other.accepts(c)) {
                        rest = ahead;
                        token += 1;
                        continue;
                    }
                }
                None if rest.as_str().is_empty() => return true,
                None => {}
            }
            let Some((after_run, from)) = &mut retry else { return false };
            if from.next().is_none() {
                return false;
            }
            rest = from.clone();
            token = *after_run;
        }
    }
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Char(expected) => *expected == c,
            Self::AnyChar | Self::AnyRun => true,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

fn parse_class(chars: &mut std::str::Chars<'_>) -> Option<Token> {
    let mut ranges = Vec::new();
    let negated = chars.as_str().starts_with('^');
    if negated {
        chars.next();
    }
    loop {
        let low = match chars.next()? {
            ']' => return Some(Token::Class { negated, ranges }),
            '\\' => chars.next()?,
            c => c,
        };
        let mut high = low;
        if chars.as_str().starts_with('-') && !chars.as_str().starts_with("-]") {
            chars.next();
            high = chars.next()?;
        }
        ranges.push((low.min(high), low.max(high)));
    }
}

/// Prints as it was written.
impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_classes_and_escapes() {
        for (pattern, yes, no) in [
            ("*", &["", "a", "a\nb", "é"][..], &[][..]),
            ("mail", &["mail"], &["mail2", "Mail", ""]),
            ("*.dlq", &["a.dlq", ".dlq", "a.b.dlq"], &["dlq", "a.dlq2"]),
            ("a*b*c", &["abc", "axxbyyc", "abbc", "abcbc"], &["ab", "abcd"]),
            ("?x", &["ax", "éx"], &["x", "aax"]),
            ("[a-c]1", &["a1", "c1"], &["d1", "1"]),
            ("[^a-c]1", &["d1", "é1"], &["a1"]),
            ("[a-]", &["a", "-"], &["b"]),
            (r"\*\[", &["*["], &["a["]),
        ] {
            let glob = Glob::new(pattern).unwrap();
            for name in yes {
                assert!(glob.matches(name), "{pattern} should accept {name:?}");
            }
            for name in no {
                assert!(!glob.matches(name), "{pattern} should refuse {name:?}");
            }
        }
        for pattern in ["", "a\\", "[a", "[", "[a-"] {
            assert!(Glob::new(pattern).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn only_patterns_without_wildcards_are_names() {
        assert_eq!(Glob::new(r"a\*b").unwrap().literal().as_deref(), Some("a*b"));
        assert_eq!(Glob::new("a?").unwrap().literal(), None);
    }

    #[test]
    fn many_stars_stay_cheap() {
        let glob = Glob::new(&"*a".repeat(200)).unwrap();
        assert!(!glob.matches(&"a".repeat(1000).replace('a', "ab")[..900]));
    }

    proptest! {
        /// Against the obvious recursive definition.
        #[test]
        fn stars_agree_with_recursion(pattern in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|skip| plain(rest, &name[skip..])),
                    Some((c, rest)) => {
                        name.split_first().is_some_and(|(n, after)| (*c == b'?' || c == n) && plain(rest, after))
                    }
                }
            }
            prop_assert_eq!(Glob::new(&pattern).unwrap().matches(&name), plain(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
