//! What parsing can complain of: kind of fault, place, and Prometheus' words.

use std::fmt;

use super::token::Token;
use crate::ast::Span;

/// Why a text is no PromQL. Displays as Prometheus does: `1:5: parse error: unexpected …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: parse error: {message}", Place(*line, *column))]
#[non_exhaustive]
pub struct ParseError {
    /// Where in the text.
    pub span: Span,
    /// Line of the span's start, from 1; 0 when the text is empty.
    pub line: u32,
    /// Column of the span's start in bytes, from 1.
    pub column: u32,
    /// What is wrong, in Prometheus' words.
    pub message: String,
}

impl ParseError {
    /// A fault at `span` of `text`.
    pub(super) fn new(text: &str, span: Span, message: impl Into<String>) -> Self {
        let (line, column) = place(text, span.start as usize);
        Self { span, line, column, message: message.into() }
    }

    /// `unexpected TOKEN in CONTEXT, expected EXPECTED`; empty parts are left out.
    pub(super) fn unexpected(text: &str, token: Token, context: &str, expected: &str) -> Self {
        let mut message = format!("unexpected {}", token.describe(text));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        Self::new(text, token.span, message)
    }
}

/// Line and column as Prometheus prints them.
struct Place(u32, u32);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("unknown position") } else { write!(f, "{}:{}", self.0, self.1) }
    }
}

fn place(text: &str, position: usize) -> (u32, u32) {
    if text.is_empty() {
        return (0, 0);
    }
    let before = &text.as_bytes()[..position.min(text.len())];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    let clamp = |number| u32::try_from(number).unwrap_or(u32::MAX);
    (clamp(line), clamp(column))
}

/// How a part of the grammar fails.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The token does not fit here; whoever knows the context says what was expected.
    Unexpected(Token),
    /// Said and done. Boxed: results are passed by the million, errors once.
    Final(Box<ParseError>),
}

impl From<ParseError> for Fault {
    fn from(error: ParseError) -> Self {
        Self::Final(Box::new(error))
    }
}

impl Fault {
    /// Gives an unexpected token its context.
    pub(super) fn within(self, text: &str, context: &str, expected: &str) -> Self {
        match self {
            Self::Unexpected(token) => ParseError::unexpected(text, token, context, expected).into(),
            Self::Final(_) => self,
        }
    }
}
