//! Tokens, and how error texts name them.

use std::fmt::Write as _;

use model::labels::Quoted;

use crate::ast::{AggregateOp, BinaryOp, Span};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// End of the text.
    End,
    /// The lexer failed here; its fault is kept beside the tokens. Always the last token.
    Fault,
    /// A name without colon that is no keyword.
    Identifier,
    /// A name with a colon.
    MetricIdentifier,
    /// A string with its quotes.
    String,
    /// `1`, `0x1f`, `1e3`, `Inf`.
    Number,
    /// `5m`
    Duration,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Equal,
    /// `=~`
    EqualRegex,
    /// `!~`
    NotEqualRegex,
    At,
    /// A binary operator; `+` and `-` are also signs, `!=` also matches labels.
    Operator(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    /// `start`, `end`, `step`, `range`, `min_of`, `max_of`: names that mean something after `@` and in durations.
    Special(Special),
}

/// Words with a fixed role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Anchored,
    Bool,
    By,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Smoothed,
    Without,
}

/// Names with a meaning in time modifiers and durations; elsewhere they are functions or metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

/// A token with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Span,
}

impl Token {
    /// The token as written.
    pub(super) fn text(self, source: &str) -> &str {
        source.get(self.span.start as usize..self.span.end as usize).unwrap_or_default()
    }

    /// The token as error texts name it: `identifier "x"`, `<op:+>`, `end of input`.
    pub(super) fn describe(self, source: &str) -> String {
        let text = self.text(source);
        match self.kind {
            TokenKind::End | TokenKind::Fault => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier {}", Quoted(text)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", Quoted(text)),
            TokenKind::String => format!("string {}", shortened(text)),
            TokenKind::Number => format!("number {}", shortened(text)),
            TokenKind::Duration => format!("duration {}", shortened(text)),
            TokenKind::Operator(_) | TokenKind::EqualRegex | TokenKind::NotEqualRegex | TokenKind::At => {
                format!("<op:{text}>")
            }
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            TokenKind::Keyword(_) => format!("<{text}>"),
            TokenKind::Special(_)
            | TokenKind::LeftParen
            | TokenKind::RightParen
            | TokenKind::LeftBrace
            | TokenKind::RightBrace
            | TokenKind::LeftBracket
            | TokenKind::RightBracket
            | TokenKind::Comma
            | TokenKind::Colon
            | TokenKind::Equal => shortened(text),
        }
    }

    /// Whether the token may be a metric name outside braces.
    pub(super) fn is_metric_name(self) -> bool {
        match self.kind {
            TokenKind::Identifier
            | TokenKind::MetricIdentifier
            | TokenKind::Aggregate(_)
            | TokenKind::Special(_)
            | TokenKind::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => true,
            TokenKind::Keyword(keyword) => matches!(
                keyword,
                Keyword::By | Keyword::Offset | Keyword::Without | Keyword::Anchored | Keyword::Smoothed
            ),
            _ => false,
        }
    }

    /// Whether the token may be a label in `by (…)`, `on (…)` and their like, unquoted.
    pub(super) fn is_grouping_label(self) -> bool {
        match self.kind {
            TokenKind::Identifier
            | TokenKind::MetricIdentifier
            | TokenKind::Aggregate(_)
            | TokenKind::Special(_)
            | TokenKind::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2) => true,
            TokenKind::Keyword(keyword) => keyword != Keyword::Without,
            _ => false,
        }
    }

    /// Whether an expression can begin with the token.
    pub(super) fn starts_expression(self) -> bool {
        self.is_metric_name()
            || matches!(
                self.kind,
                TokenKind::Number
                    | TokenKind::Duration
                    | TokenKind::String
                    | TokenKind::LeftParen
                    | TokenKind::LeftBrace
                    | TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub)
            )
    }
}

/// The word's meaning outside braces, if it has one. Case does not count.
pub(super) fn keyword(word: &str) -> Option<TokenKind> {
    let lower = word.to_ascii_lowercase();
    if let Some(op) = AggregateOp::ALL.into_iter().find(|op| op.as_str() == lower) {
        return Some(TokenKind::Aggregate(op));
    }
    Some(match lower.as_str() {
        "and" => TokenKind::Operator(BinaryOp::And),
        "or" => TokenKind::Operator(BinaryOp::Or),
        "unless" => TokenKind::Operator(BinaryOp::Unless),
        "atan2" => TokenKind::Operator(BinaryOp::Atan2),
        "anchored" => TokenKind::Keyword(Keyword::Anchored),
        "bool" => TokenKind::Keyword(Keyword::Bool),
        "by" => TokenKind::Keyword(Keyword::By),
        "fill" => TokenKind::Keyword(Keyword::Fill),
        "fill_left" => TokenKind::Keyword(Keyword::FillLeft),
        "fill_right" => TokenKind::Keyword(Keyword::FillRight),
        "group_left" => TokenKind::Keyword(Keyword::GroupLeft),
        "group_right" => TokenKind::Keyword(Keyword::GroupRight),
        "ignoring" => TokenKind::Keyword(Keyword::Ignoring),
        "offset" => TokenKind::Keyword(Keyword::Offset),
        "on" => TokenKind::Keyword(Keyword::On),
        "smoothed" => TokenKind::Keyword(Keyword::Smoothed),
        "without" => TokenKind::Keyword(Keyword::Without),
        "inf" | "nan" => TokenKind::Number,
        _ => TokenKind::Special(special(&lower)?),
    })
}

/// The name's meaning in durations and after `@`. `lower` is in lower case.
pub(super) fn special(lower: &str) -> Option<Special> {
    Some(match lower {
        "start" => Special::Start,
        "end" => Special::End,
        "step" => Special::Step,
        "range" => Special::Range,
        "min_of" => Special::MinOf,
        "max_of" => Special::MaxOf,
        _ => return None,
    })
}

/// Quoted, cut after ten characters: Go's `%.10q...` that Prometheus uses for tokens.
fn shortened(text: &str) -> String {
    if text.len() <= 10 {
        return Quoted(text).to_string();
    }
    let end = text.char_indices().nth(10).map_or(text.len(), |(index, _)| index);
    format!("{}...", Quoted(&text[..end]))
}

/// A character as Go's `%q` writes it: `'x'`, `'\n'`; `None` (end of text) as `'�'`.
pub(super) fn quoted_char(c: Option<char>) -> String {
    let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
    match c {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        // Debug escapes what cannot be printed, as Go does, but also marks that combine: those only at the start.
        c if !c.is_ascii() && format!("{:?}", ["a", c.encode_utf8(&mut [0; 4])].concat()).contains('\\') => {
            let code = c as u32;
            if code > 0xffff { format!("'\\U{code:08x}'") } else { format!("'\\u{code:04x}'") }
        }
        _ => {
            let mut buffer = [0; 4];
            let quoted = Quoted(c.encode_utf8(&mut buffer)).to_string();
            format!("'{}'", quoted.trim_start_matches('"').trim_end_matches('"'))
        }
    }
}

/// A character as Go's `%#U` writes it: `U+0078 'x'`, without the second half when it cannot be printed.
pub(super) fn unicode_char(c: char) -> String {
    let mut out = format!("U+{:04X}", c as u32);
    if !c.is_control() {
        write!(out, " '{c}'").expect("writing to a string cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_print_like_go() {
        assert_eq!(quoted_char(Some('x')), "'x'");
        assert_eq!(quoted_char(Some('\n')), r"'\n'");
        assert_eq!(quoted_char(Some('\'')), r"'\''");
        assert_eq!(quoted_char(Some('"')), "'\"'");
        assert_eq!(quoted_char(Some('\\')), r"'\\'");
        assert_eq!(quoted_char(Some('\u{2028}')), r"'\u2028'");
        assert_eq!(quoted_char(Some('é')), "'é'");
        assert_eq!(quoted_char(None), "'\u{fffd}'");
        assert_eq!(unicode_char('x'), "U+0078 'x'");
        assert_eq!(unicode_char('\n'), "U+000A");
    }

    #[test]
    fn long_tokens_are_cut() {
        let token = |kind, len| Token { kind, span: Span::new(0, len) };
        assert_eq!(token(TokenKind::String, 5).describe("\"abc\""), r#"string "\"abc\"""#);
        assert_eq!(token(TokenKind::String, 14).describe("\"abcdefghijkl\""), r#"string "\"abcdefghi"..."#);
        assert_eq!(
            token(TokenKind::Identifier, 14).describe("abcdefghijklmn"),
            r#"identifier "abcdefghijklmn""#
        );
    }
}
