//! Tokens as nom input, and the combinators made of them.
//!
//! A parser that meets a token it has no use for gives a soft error with that token ([`Fault::Unexpected`] in
//! `nom::Err::Error`); [`expect`] turns it into the final text with its context, as the `error` productions of
//! Prometheus' yacc grammar do. Meeting the lexer's fault is final at once.

use std::iter::{Copied, Enumerate};
use std::slice::Iter;

use nom::error::{ErrorKind, ParseError as NomError};
use nom::{Err, IResult, Input, Needed, Parser};

use super::error::Fault;
use super::lexer::Lexed;
use super::token::{Token, TokenKind};
use crate::ast::Span;

/// The tokens not yet read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens<'a> {
    pub(super) source: &'a Lexed<'a>,
    rest: &'a [Token],
}

/// What a token parser gives.
pub(super) type Parsed<'a, T> = IResult<Tokens<'a>, T, Fault>;

impl<'a> Tokens<'a> {
    pub(super) fn new(source: &'a Lexed<'a>) -> Self {
        Self { source, rest: &source.tokens }
    }

    /// The text all tokens come from.
    pub(super) fn text(&self) -> &'a str {
        self.source.text
    }

    /// The next token, which may be the lexer's fault.
    pub(super) fn first(&self) -> Token {
        let end = self.source.text.len();
        self.rest.first().copied().unwrap_or(Token { kind: TokenKind::End, span: Span::new(end, end) })
    }

    /// The token behind the next one.
    pub(super) fn second(&self) -> Option<TokenKind> {
        self.rest.get(1).map(|token| token.kind)
    }

    /// The next token.
    ///
    /// # Errors
    /// The lexer's fault, if that is what comes.
    pub(super) fn peek(&self) -> Result<Token, Fault> {
        let token = self.first();
        match (&token.kind, &self.source.fault) {
            (TokenKind::Fault, Some(fault)) => Err(fault.clone().into()),
            _ => Ok(token),
        }
    }

    /// The place of the last token read between here and `after`.
    pub(super) fn last_before(&self, after: Self) -> Span {
        let count = self.rest.len() - after.rest.len();
        self.rest.get(count.wrapping_sub(1)).map_or_else(Span::default, |token| token.span)
    }

    /// Without the next token.
    pub(super) fn advanced(self) -> Self {
        Self { rest: self.rest.get(1..).unwrap_or_default(), ..self }
    }
}

impl<'a> Input for Tokens<'a> {
    type Item = Token;
    type Iter = Copied<Iter<'a, Token>>;
    type IterIndices = Enumerate<Self::Iter>;

    fn input_len(&self) -> usize {
        self.rest.len()
    }

    fn take(&self, index: usize) -> Self {
        Self { rest: &self.rest[..index], ..*self }
    }

    fn take_from(&self, index: usize) -> Self {
        Self { rest: &self.rest[index..], ..*self }
    }

    fn take_split(&self, index: usize) -> (Self, Self) {
        (self.take_from(index), self.take(index))
    }

    fn position<P: Fn(Self::Item) -> bool>(&self, predicate: P) -> Option<usize> {
        self.rest.iter().position(|token| predicate(*token))
    }

    fn iter_elements(&self) -> Self::Iter {
        self.rest.iter().copied()
    }

    fn iter_indices(&self) -> Self::IterIndices {
        self.iter_elements().enumerate()
    }

    fn slice_index(&self, count: usize) -> Result<usize, Needed> {
        if count <= self.rest.len() { Ok(count) } else { Err(Needed::new(count - self.rest.len())) }
    }
}

impl<'a> NomError<Tokens<'a>> for Fault {
    fn from_error_kind(input: Tokens<'a>, _: ErrorKind) -> Self {
        Self::Unexpected(input.first())
    }

    fn append(_: Tokens<'a>, _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// One token that `accepted` takes.
pub(super) fn token<'a>(
    accepted: impl Fn(Token) -> bool,
) -> impl Parser<Tokens<'a>, Output = Token, Error = Fault> {
    move |input: Tokens<'a>| {
        let token = input.peek().map_err(Err::Failure)?;
        if accepted(token) {
            Ok((input.advanced(), token))
        } else {
            Err(Err::Error(Fault::Unexpected(token)))
        }
    }
}

/// One token of this kind.
pub(super) fn kind<'a>(wanted: TokenKind) -> impl Parser<Tokens<'a>, Output = Token, Error = Fault> {
    token(move |token| token.kind == wanted)
}

/// `parser`, whose soft error becomes `unexpected … in CONTEXT, expected EXPECTED`.
pub(super) fn expect<'a, T>(
    context: &'static str,
    expected: &'static str,
    mut parser: impl Parser<Tokens<'a>, Output = T, Error = Fault>,
) -> impl Parser<Tokens<'a>, Output = T, Error = Fault> {
    move |input: Tokens<'a>| {
        parser.parse(input).map_err(|error| match error {
            Err::Error(fault) => Err::Failure(fault.within(input.text(), context, expected)),
            other => other,
        })
    }
}
