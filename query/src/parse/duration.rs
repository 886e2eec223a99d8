//! Duration expressions: grammar and evaluation.
//!
//! After `offset` a bare number, `step()`, `range()`, `min_of(…)` or `max_of(…)` ends the duration: `x offset 5m * 2`
//! is a product. A duration that begins with a parenthesis goes on. Within brackets all arithmetic belongs to the
//! duration. (Prometheus' grammar resolves its conflicts so.)

use super::error::{Fault, ParseError};
use super::grammar::{NESTING_MESSAGE, precedence};
use super::literal;
use super::pieces::{is_sign, literal_value};
use super::stream::Tokens;
use super::token::{Special, Token, TokenKind};
use crate::ast::{BinaryOp, DurationExpr, DurationKind, DurationOp, Span};
use model::Timestamp;

/// Most levels of a duration expression. Durations are parsed by recursion; nobody nests them by hand beyond a few.
const DURATION_NESTING_MAX: u32 = 100;

/// Seconds that fit 2^63 nanoseconds.
const SECONDS_MAX: f64 = 9_223_372_036.854_776;

/// Reads durations off `tokens`.
pub(super) struct DurationParser<'a> {
    pub(super) tokens: Tokens<'a>,
    /// Whether arithmetic is allowed.
    pub(super) arithmetic: bool,
}

impl DurationParser<'_> {
    fn advance(&mut self) -> Result<Token, Fault> {
        let token = self.tokens.peek()?;
        self.tokens = self.tokens.advanced();
        Ok(token)
    }

    fn take(&mut self, wanted: TokenKind) -> Result<Token, Fault> {
        let token = self.tokens.peek()?;
        if token.kind != wanted {
            return Err(Fault::Unexpected(token));
        }
        self.tokens = self.tokens.advanced();
        Ok(token)
    }

    fn error(&self, span: Span, message: &str) -> Fault {
        ParseError::new(self.tokens.text(), span, message).into()
    }

    fn arithmetic_used(&self, at: Span) -> Result<(), Fault> {
        if self.arithmetic {
            Ok(())
        } else {
            Err(self.error(at, "experimental duration expression is not enabled"))
        }
    }

    /// A range or a step: all arithmetic, greater than zero where that can be seen already.
    pub(super) fn positive(&mut self) -> Result<DurationExpr, Fault> {
        let expr = without_parens(self.expression(0, 0)?.0);
        // What follows decides whether the expression is at its end, so its fault comes first.
        self.tokens.peek()?;
        match expr.kind {
            DurationKind::Literal { seconds, .. } if seconds <= 0.0 => {
                Err(self.error(expr.span, "duration must be greater than 0"))
            }
            _ => Ok(whole_literal(expr)),
        }
    }

    /// The operand of `offset`. A plain zero is `None`.
    pub(super) fn offset(&mut self) -> Result<Option<DurationExpr>, Fault> {
        let first = self.tokens.peek()?;
        let expr = if is_sign(first) {
            self.tokens = self.tokens.advanced();
            let operand = if is_sign(self.tokens.peek()?) { self.operand(0)?.0 } else { self.primary(0)?.0 };
            self.signed(first, operand)?
        } else if first.kind == TokenKind::LeftParen {
            self.expression(0, 0)?.0
        } else {
            self.primary(0)?.0
        };
        let expr = whole_literal(without_parens(expr));
        Ok(match expr.kind {
            DurationKind::Literal { seconds: 0.0, .. } => None,
            _ => Some(expr),
        })
    }

    /// An expression of operators that bind at least as strongly as `binding`, and its depth.
    fn expression(&mut self, binding: u8, level: u32) -> Result<(DurationExpr, u32), Fault> {
        if level >= DURATION_NESTING_MAX {
            return Err(self.error(self.tokens.peek()?.span, NESTING_MESSAGE));
        }
        let (mut lhs, mut depth) = self.operand(level)?;
        loop {
            let next = self.tokens.peek()?;
            let Some((op, op_binding)) = operator(next) else {
                return Ok((lhs, depth));
            };
            if op_binding < binding {
                return Ok((lhs, depth));
            }
            self.tokens = self.tokens.advanced();
            let rhs_binding = if op == DurationOp::Pow { op_binding } else { op_binding + 1 };
            let (rhs, rhs_depth) = self.expression(rhs_binding, level + 1)?;
            depth = depth.max(rhs_depth) + 1;
            if level + depth > DURATION_NESTING_MAX {
                return Err(self.error(next.span, NESTING_MESSAGE));
            }
            self.arithmetic_used(lhs.span)?;
            let zero = matches!(rhs.kind, DurationKind::Literal { seconds: 0.0, .. });
            match op {
                DurationOp::Div if zero => return Err(self.error(next.span, "division by zero")),
                DurationOp::Mod if zero => return Err(self.error(next.span, "modulo by zero")),
                _ => {}
            }
            let span = lhs.span.to(rhs.span);
            lhs = DurationExpr { kind: DurationKind::Binary(op, Box::new(lhs), Box::new(rhs)), span };
        }
    }

    /// A sign with what it governs, or a primary.
    fn operand(&mut self, level: u32) -> Result<(DurationExpr, u32), Fault> {
        let first = self.tokens.peek()?;
        if !is_sign(first) {
            return self.primary(level);
        }
        self.tokens = self.tokens.advanced();
        // As strong as multiplication: only powers bind before the sign.
        let (operand, depth) = self.expression(POWER, level + 1)?;
        Ok((self.signed(first, operand)?, depth + 1))
    }

    fn signed(&self, sign: Token, operand: DurationExpr) -> Result<DurationExpr, Fault> {
        let negative = sign.kind == TokenKind::Operator(BinaryOp::Sub);
        let span = sign.span.to(operand.span);
        let kind = match operand.kind {
            DurationKind::Literal { seconds, is_number } => {
                let seconds = if negative { -seconds } else { seconds };
                self.in_range(seconds, sign.span)?;
                DurationKind::Literal { seconds, is_number }
            }
            _ if negative => DurationKind::Negate(Box::new(operand)),
            kind => kind,
        };
        Ok(DurationExpr { kind, span })
    }

    fn in_range(&self, seconds: f64, span: Span) -> Result<(), Fault> {
        // Also refuses NaN, which Prometheus turns into the smallest duration.
        if seconds.abs() <= SECONDS_MAX { Ok(()) } else { Err(self.error(span, "duration out of range")) }
    }

    fn primary(&mut self, level: u32) -> Result<(DurationExpr, u32), Fault> {
        let first = self.tokens.peek()?;
        match first.kind {
            TokenKind::Number | TokenKind::Duration => {
                self.tokens = self.tokens.advanced();
                let seconds = literal_value(self.tokens.text(), first)?;
                self.in_range(seconds, first.span)?;
                let kind = DurationKind::Literal { seconds, is_number: first.kind == TokenKind::Number };
                Ok((DurationExpr { kind, span: first.span }, 1))
            }
            TokenKind::Special(which @ (Special::Step | Special::Range)) => {
                self.tokens = self.tokens.advanced();
                self.take(TokenKind::LeftParen)?;
                let right = self.take(TokenKind::RightParen)?;
                let kind = if which == Special::Step { DurationKind::Step } else { DurationKind::Range };
                let span = first.span.to(right.span);
                self.arithmetic_used(span)?;
                Ok((DurationExpr { kind, span }, 1))
            }
            TokenKind::Special(which @ (Special::MinOf | Special::MaxOf)) => {
                self.tokens = self.tokens.advanced();
                self.take(TokenKind::LeftParen)?;
                let (a, a_depth) = self.expression(0, level + 1)?;
                self.take(TokenKind::Comma)?;
                let (b, b_depth) = self.expression(0, level + 1)?;
                let right = self.take(TokenKind::RightParen)?;
                let (a, b) = (Box::new(a), Box::new(b));
                let kind = if which == Special::MinOf {
                    DurationKind::MinOf(a, b)
                } else {
                    DurationKind::MaxOf(a, b)
                };
                let span = first.span.to(right.span);
                self.arithmetic_used(span)?;
                Ok((DurationExpr { kind, span }, a_depth.max(b_depth) + 1))
            }
            TokenKind::LeftParen => {
                self.advance()?;
                let (inner, depth) = self.expression(0, level + 1)?;
                let right = self.take(TokenKind::RightParen)?;
                self.arithmetic_used(inner.span)?;
                // Parentheses matter around what an operator could take apart: not around plain literals.
                let kind = match inner.kind {
                    DurationKind::Literal { seconds, .. } if seconds >= 0.0 => inner.kind,
                    _ => DurationKind::Paren(Box::new(inner)),
                };
                Ok((DurationExpr { kind, span: first.span.to(right.span) }, depth + 1))
            }
            _ => Err(Fault::Unexpected(first)),
        }
    }
}

const POWER: u8 = precedence(BinaryOp::Pow);

fn operator(token: Token) -> Option<(DurationOp, u8)> {
    let TokenKind::Operator(op) = token.kind else {
        return None;
    };
    let duration_op = match op {
        BinaryOp::Add => DurationOp::Add,
        BinaryOp::Sub => DurationOp::Sub,
        BinaryOp::Mul => DurationOp::Mul,
        BinaryOp::Div => DurationOp::Div,
        BinaryOp::Mod => DurationOp::Mod,
        BinaryOp::Pow => DurationOp::Pow,
        _ => return None,
    };
    Some((duration_op, precedence(op)))
}

/// A literal out of its parentheses; all else stays.
fn without_parens(expr: DurationExpr) -> DurationExpr {
    match expr.kind {
        DurationKind::Paren(inner) if matches!(inner.kind, DurationKind::Literal { .. }) => *inner,
        _ => expr,
    }
}

/// A literal that is the whole duration counts in full milliseconds, however it was written.
fn whole_literal(expr: DurationExpr) -> DurationExpr {
    let DurationKind::Literal { seconds, .. } = expr.kind else {
        return expr;
    };
    let ms = literal_ms(seconds);
    if ms == 0 && seconds != 0.0 {
        return expr;
    }
    DurationExpr {
        kind: DurationKind::Literal { seconds: literal::ms_to_seconds(ms), is_number: false },
        ..expr
    }
}

/// Milliseconds of a literal: rounded to nanoseconds, then cut, as Prometheus does.
#[expect(
    clippy::cast_possible_truncation,
    reason = "literals are within 2^63 nanoseconds; the cast saturates"
)]
pub(super) fn literal_ms(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64 / 1_000_000
}

/// The times of a query, which `step()` and `range()` speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryTimes {
    /// First evaluation.
    pub start: Timestamp,
    /// Last evaluation; `start` for instant queries.
    pub end: Timestamp,
    /// Milliseconds between evaluations; 0 for instant queries.
    pub step: i64,
}

/// Why a duration expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationEvalError {
    /// A range or step of zero or less.
    #[error("duration must be greater than 0")]
    NotPositive,
    /// More than 2^63 nanoseconds either way, or not a number.
    #[error("duration is out of range")]
    OutOfRange,
    /// `/` with zero on the right.
    #[error("division by zero")]
    DivisionByZero,
    /// `%` with zero on the right.
    #[error("modulo by zero")]
    ModuloByZero,
}

/// Milliseconds of an offset; may be negative.
///
/// # Errors
/// When the value does not fit, or a divisor is zero.
pub fn eval_duration(expr: &DurationExpr, times: &QueryTimes) -> Result<i64, DurationEvalError> {
    let seconds = match expr.kind {
        DurationKind::Literal { seconds, .. } => return Ok(literal_ms(seconds)),
        _ => seconds(expr, times)?,
    };
    if seconds.is_nan() || seconds.abs() > SECONDS_MAX {
        return Err(DurationEvalError::OutOfRange);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cut on purpose, as Prometheus does; the range is checked"
    )]
    Ok((seconds * 1000.0) as i64)
}

/// Milliseconds of a range or step.
///
/// # Errors
/// As [`eval_duration`], and when the value is not positive.
pub fn eval_positive_duration(expr: &DurationExpr, times: &QueryTimes) -> Result<i64, DurationEvalError> {
    if matches!(expr.kind, DurationKind::Literal { .. }) {
        return eval_duration(expr, times);
    }
    if seconds(expr, times)? <= 0.0 {
        return Err(DurationEvalError::NotPositive);
    }
    eval_duration(expr, times)
}

#[expect(clippy::cast_precision_loss, reason = "times of queries are far below 2^53 milliseconds")]
fn seconds(expr: &DurationExpr, times: &QueryTimes) -> Result<f64, DurationEvalError> {
    Ok(match &expr.kind {
        DurationKind::Literal { seconds, .. } => *seconds,
        DurationKind::Step => times.step as f64 / 1000.0,
        DurationKind::Range => times.end.saturating_sub(times.start) as f64 / 1000.0,
        DurationKind::MinOf(a, b) => extreme(seconds(a, times)?, seconds(b, times)?, f64::min),
        DurationKind::MaxOf(a, b) => extreme(seconds(a, times)?, seconds(b, times)?, f64::max),
        DurationKind::Negate(inner) => -seconds(inner, times)?,
        DurationKind::Plus(inner) | DurationKind::Paren(inner) => seconds(inner, times)?,
        DurationKind::Binary(op, lhs, rhs) => {
            let (lhs, rhs) = (seconds(lhs, times)?, seconds(rhs, times)?);
            match op {
                DurationOp::Add => lhs + rhs,
                DurationOp::Sub => lhs - rhs,
                DurationOp::Mul => lhs * rhs,
                DurationOp::Div if rhs == 0.0 => return Err(DurationEvalError::DivisionByZero),
                DurationOp::Div => lhs / rhs,
                DurationOp::Mod if rhs == 0.0 => return Err(DurationEvalError::ModuloByZero),
                DurationOp::Mod => lhs % rhs,
                DurationOp::Pow => lhs.powf(rhs),
            }
        }
    })
}

/// NaN wins, as in Go's `math.Min` and `math.Max`.
fn extreme(a: f64, b: f64, choose: fn(f64, f64) -> f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { choose(a, b) }
}
