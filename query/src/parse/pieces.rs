//! The parts of the grammar that do not nest: label lists, matchers, selectors' braces, operands of `@`, modifiers of
//! binary operators. Token parsers in nom style; error texts are Prometheus'.

use model::labels::METRIC_NAME;
use model::{MatchOp, Matcher};
use nom::branch::alt;
use nom::combinator::{cut, map, opt, value};
use nom::sequence::{delimited, pair, preceded};
use nom::{Err, Parser};

use super::error::{Fault, ParseError};
use super::literal;
use super::stream::{Parsed, Tokens, expect, kind, token};
use super::token::{Keyword, Special, Token, TokenKind};
use crate::ast::{At, BinaryOp, Cardinality, FillValues, Span, VectorMatching};

/// What may stand between a binary operator and its right side.
#[derive(Clone, Debug)]
pub(super) struct BinaryModifiers {
    pub(super) return_bool: bool,
    pub(super) matching: VectorMatching,
}

/// `bool`, `on`/`ignoring`, `group_left`/`group_right`, `fill…`; each may be absent.
pub(super) fn binary_modifiers(input: Tokens<'_>) -> Parsed<'_, BinaryModifiers> {
    let (input, return_bool) = opt(keyword(Keyword::Bool)).parse(input)?;
    let (input, labels) = opt(alt((
        map(preceded(keyword(Keyword::Ignoring), label_list), |labels| (false, labels)),
        map(preceded(keyword(Keyword::On), label_list), |labels| (true, labels)),
    )))
    .parse(input)?;
    let mut matching = VectorMatching {
        card: Cardinality::OneToOne,
        labels: Vec::new(),
        on: false,
        include: Vec::new(),
        fill: FillValues::default(),
    };
    let mut input = input;
    if let Some((on, labels)) = labels {
        (matching.on, matching.labels) = (on, labels);
        let group = opt(alt((
            value(Cardinality::ManyToOne, keyword(Keyword::GroupLeft)),
            value(Cardinality::OneToMany, keyword(Keyword::GroupRight)),
        )))
        .parse(input)?;
        input = group.0;
        if let Some(card) = group.1 {
            matching.card = card;
            (input, matching.include) = included_labels(input)?;
        }
    }
    let (input, fill) = fill_values(input)?;
    matching.fill = fill;
    Ok((input, BinaryModifiers { return_bool: return_bool.is_some(), matching }))
}

/// The labels behind `group_left` or `group_right`: none if an expression begins there instead.
fn included_labels(input: Tokens<'_>) -> Parsed<'_, Vec<String>> {
    let next = input.peek().map_err(Err::Failure)?;
    let is_fill =
        matches!(next.kind, TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight));
    if next.kind != TokenKind::LeftParen && (next.starts_expression() || is_fill) {
        return Ok((input, Vec::new()));
    }
    label_list(input)
}

/// `fill(1)`, or `fill_left(1)` and `fill_right(2)` in either order.
fn fill_values(input: Tokens<'_>) -> Parsed<'_, FillValues> {
    let one = |which| preceded(keyword(which), fill_value);
    opt(alt((
        map(one(Keyword::Fill), |v| FillValues { lhs: Some(v), rhs: Some(v) }),
        map(pair(one(Keyword::FillLeft), opt(one(Keyword::FillRight))), |(l, r)| FillValues {
            lhs: Some(l),
            rhs: r,
        }),
        map(pair(one(Keyword::FillRight), opt(one(Keyword::FillLeft))), |(r, l)| FillValues {
            lhs: l,
            rhs: Some(r),
        }),
    )))
    .map(Option::unwrap_or_default)
    .parse(input)
}

fn fill_value(input: Tokens<'_>) -> Parsed<'_, f64> {
    cut(delimited(kind(TokenKind::LeftParen), signed_number, kind(TokenKind::RightParen))).parse(input)
}

/// `(a, "b.c", by)`: labels in parentheses.
pub(super) fn label_list(input: Tokens<'_>) -> Parsed<'_, Vec<String>> {
    const CONTEXT: &str = "grouping opts";
    let (mut input, _) = expect(CONTEXT, "\"(\"", kind(TokenKind::LeftParen)).parse(input)?;
    let mut labels = Vec::new();
    loop {
        if let (rest, Some(_)) = opt(kind(TokenKind::RightParen)).parse(input)? {
            return Ok((rest, labels));
        }
        let (rest, label) = expect(CONTEXT, "label", grouping_label).parse(input)?;
        labels.push(label);
        let separator = alt((kind(TokenKind::Comma), kind(TokenKind::RightParen)));
        let (rest, separator) = expect(CONTEXT, "\",\" or \")\"", separator).parse(rest)?;
        input = rest;
        if separator.kind == TokenKind::RightParen {
            return Ok((input, labels));
        }
    }
}

fn grouping_label(input: Tokens<'_>) -> Parsed<'_, String> {
    let text = input.text();
    let (rest, found) = token(|t| t.is_grouping_label() || t.kind == TokenKind::String).parse(input)?;
    if found.kind != TokenKind::String {
        return Ok((rest, found.text(text).to_owned()));
    }
    let label = literal::unquote(found.text(text));
    if label.is_empty() {
        return fail(text, found.span, "invalid label name for grouping: \"\"");
    }
    Ok((rest, label))
}

/// The matchers of a selector with their braces, and the span of all.
pub(super) fn braces(input: Tokens<'_>) -> Parsed<'_, (Vec<Matcher>, Span)> {
    let (mut input, left) = kind(TokenKind::LeftBrace).parse(input)?;
    let mut matchers = Vec::new();
    loop {
        if let (rest, Some(right)) = opt(kind(TokenKind::RightBrace)).parse(input)? {
            return Ok((rest, (matchers, left.span.to(right.span))));
        }
        let (rest, matcher) = label_matcher(input)?;
        matchers.push(matcher);
        let separator = alt((kind(TokenKind::Comma), kind(TokenKind::RightBrace)));
        let (rest, separator) = expect("label matching", "\",\" or \"}\"", separator).parse(rest)?;
        input = rest;
        if separator.kind == TokenKind::RightBrace {
            return Ok((input, (matchers, left.span.to(separator.span))));
        }
    }
}

/// `label="value"`, `"quoted.label"=~"value"`, or `"metric name"`.
fn label_matcher(input: Tokens<'_>) -> Parsed<'_, Matcher> {
    const CONTEXT: &str = "label matching";
    let text = input.text();
    let name = token(|t| matches!(t.kind, TokenKind::Identifier | TokenKind::String));
    let (rest, label) = expect(CONTEXT, "identifier or \"}\"", name).parse(input)?;
    let (rest, op, name) = if label.kind == TokenKind::String {
        let name = literal::unquote(label.text(text));
        match opt(match_op).parse(rest)? {
            (rest, Some(op)) => (rest, op, name),
            (rest, None) => return Ok((rest, Matcher::equal(METRIC_NAME, name))),
        }
    } else {
        let (rest, op) = expect(CONTEXT, "label matching operator", match_op).parse(rest)?;
        (rest, op, label.text(text).to_owned())
    };
    let (rest, found) = expect(CONTEXT, "string", kind(TokenKind::String)).parse(rest)?;
    let value = literal::unquote(found.text(text));
    match Matcher::new_within(op, name, value, &input.source.patterns) {
        Ok(matcher) => Ok((rest, matcher)),
        Err(error) => fail(text, label.span.to(found.span), error.to_string()),
    }
}

fn match_op(input: Tokens<'_>) -> Parsed<'_, MatchOp> {
    alt((
        value(MatchOp::Equal, kind(TokenKind::Equal)),
        value(MatchOp::NotEqual, kind(TokenKind::Operator(BinaryOp::NotEq))),
        value(MatchOp::Regex, kind(TokenKind::EqualRegex)),
        value(MatchOp::NotRegex, kind(TokenKind::NotEqualRegex)),
    ))
    .parse(input)
}

/// The labels of a metric with their braces: `{a="b", "c.d"="e", "metric name"}`.
pub(super) fn label_set(input: Tokens<'_>) -> Parsed<'_, Vec<(String, String)>> {
    let (mut input, _) = kind(TokenKind::LeftBrace).parse(input)?;
    let mut labels = Vec::new();
    loop {
        if let (rest, Some(_)) = opt(kind(TokenKind::RightBrace)).parse(input)? {
            return Ok((rest, labels));
        }
        let (rest, label) = label_set_item(input)?;
        labels.push(label);
        let separator = alt((kind(TokenKind::Comma), kind(TokenKind::RightBrace)));
        let (rest, separator) = expect("label set", "\",\" or \"}\"", separator).parse(rest)?;
        input = rest;
        if separator.kind == TokenKind::RightBrace {
            return Ok((input, labels));
        }
    }
}

fn label_set_item(input: Tokens<'_>) -> Parsed<'_, (String, String)> {
    const CONTEXT: &str = "label set";
    let text = input.text();
    let name = token(|t| matches!(t.kind, TokenKind::Identifier | TokenKind::String));
    let (rest, label) = expect(CONTEXT, "identifier or \"}\"", name).parse(input)?;
    let (rest, name) = if label.kind == TokenKind::String {
        let name = literal::unquote(label.text(text));
        match opt(kind(TokenKind::Equal)).parse(rest)? {
            (rest, Some(_)) => (rest, name),
            (rest, None) => return Ok((rest, (METRIC_NAME.to_owned(), name))),
        }
    } else {
        let (rest, _) = expect(CONTEXT, "\"=\"", kind(TokenKind::Equal)).parse(rest)?;
        (rest, label.text(text).to_owned())
    };
    let (rest, found) = expect(CONTEXT, "string", kind(TokenKind::String)).parse(rest)?;
    Ok((rest, (name, literal::unquote(found.text(text)))))
}

/// The operand of `@`.
#[derive(Clone, Copy, Debug)]
pub(super) enum AtOperand {
    /// Seconds, not yet checked.
    Seconds(f64),
    /// `start()` or `end()`.
    Bound(At),
}

/// What stands behind `@`, and where it ends.
pub(super) fn at_operand(input: Tokens<'_>) -> Parsed<'_, (AtOperand, u32)> {
    let bound = |which, at| {
        let parens = pair(kind(TokenKind::LeftParen), kind(TokenKind::RightParen));
        map(preceded(kind(TokenKind::Special(which)), expect("@", "timestamp", parens)), move |(_, right)| {
            (AtOperand::Bound(at), right.span.end)
        })
    };
    expect(
        "@",
        "timestamp",
        alt((bound(Special::Start, At::Start), bound(Special::End, At::End), at_seconds)),
    )
    .parse(input)
}

fn at_seconds(input: Tokens<'_>) -> Parsed<'_, (AtOperand, u32)> {
    let (rest, seconds) = signed_number(input)?;
    Ok((rest, (AtOperand::Seconds(seconds), input.last_before(rest).end)))
}

/// A number or duration in seconds, with or without sign.
fn signed_number(input: Tokens<'_>) -> Parsed<'_, f64> {
    let (input, sign) = opt(token(is_sign)).parse(input)?;
    let negative = sign.is_some_and(|sign| sign.kind == TokenKind::Operator(BinaryOp::Sub));
    let (rest, found) = token(|t| matches!(t.kind, TokenKind::Number | TokenKind::Duration)).parse(input)?;
    let number = literal_value(input.text(), found).map_err(|error| Err::Failure(error.into()))?;
    Ok((rest, if negative { -number } else { number }))
}

/// Value of a number or duration token, in seconds.
pub(super) fn literal_value(text: &str, token: Token) -> Result<f64, ParseError> {
    let found = token.text(text);
    let value = if token.kind == TokenKind::Duration {
        literal::duration_seconds(found)
    } else {
        literal::number(found).map_err(|error| format!("error parsing number: {error}"))
    };
    value.map_err(|message| ParseError::new(text, token.span, message))
}

/// Whether the token is `+` or `-`.
pub(super) fn is_sign(token: Token) -> bool {
    matches!(token.kind, TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub))
}

fn keyword<'a>(wanted: Keyword) -> impl Parser<Tokens<'a>, Output = Token, Error = Fault> {
    kind(TokenKind::Keyword(wanted))
}

/// `by (…)` or `without (…)`; the flag is true for `without`.
pub(super) fn aggregate_modifier(input: Tokens<'_>) -> Parsed<'_, (Vec<String>, bool)> {
    alt((
        map(preceded(keyword(Keyword::By), label_list), |labels| (labels, false)),
        map(preceded(keyword(Keyword::Without), label_list), |labels| (labels, true)),
    ))
    .parse(input)
}

/// A name that may stand before braces.
pub(super) fn metric_name(input: Tokens<'_>) -> Parsed<'_, Token> {
    token(Token::is_metric_name).parse(input)
}

fn fail<T>(text: &str, span: Span, message: impl Into<String>) -> Result<T, Err<Fault>> {
    Err(Err::Failure(ParseError::new(text, span, message).into()))
}
