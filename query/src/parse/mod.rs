//! PromQL's grammar: text → [`Expr`] and back.
//!
//! Text → tokens (`lexer`) → tree (`grammar` for what nests, `pieces` and `duration` for what does not) → types
//! (`check`). Back: one line (`print`), many lines (`pretty`), JSON (`json`). The language, the texts of errors and the
//! printed forms are those of Prometheus 3.14; `testdata/{parse_errors,print,pretty}.txt` hold what the real one says.
//!
//! Not here: limits on the length of texts, and what only an evaluation can find (`anchored` with the wrong function,
//! an empty duration expression).

mod check;
mod duration;
mod error;
pub mod functions;
mod grammar;
mod json;
mod lexer;
mod literal;
mod pieces;
mod pretty;
mod print;
mod series;
mod stream;
mod token;

pub use duration::{DurationEvalError, QueryTimes, eval_duration, eval_positive_duration};
pub use error::ParseError;
pub use functions::lookup;
pub use json::to_json;
pub(crate) use lexer::PATTERNS_BYTES_MAX;
pub use pretty::pretty;
pub use series::{Increment, SeriesDesc, SeriesRun, SeriesValue, parse_series_desc};

use model::{Labels, Matcher};

use crate::ast::{Expr, ExprKind, ValueType};

/// Which parts of the language are on. Prometheus' feature flags of the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseOptions {
    /// `promql-experimental-functions`
    pub experimental_functions: bool,
    /// `promql-binop-fill-modifiers`
    pub binop_fill_modifiers: bool,
    /// `promql-extended-range-selectors`
    pub extended_range_selectors: bool,
    /// Arithmetic in durations; stable, so on by default.
    pub duration_expressions: bool,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            experimental_functions: false,
            binop_fill_modifiers: false,
            extended_range_selectors: false,
            duration_expressions: true,
        }
    }
}

impl ParseOptions {
    /// Everything on.
    pub fn all() -> Self {
        Self {
            experimental_functions: true,
            binop_fill_modifiers: true,
            extended_range_selectors: true,
            duration_expressions: true,
        }
    }
}

/// Parses and type-checks an expression. Cost is linear in the text.
///
/// # Errors
/// The first fault, in Prometheus' words; also when the tree is deeper than 500 levels. The caller limits the length
/// of the text.
pub fn parse(text: &str, options: &ParseOptions) -> Result<Expr, ParseError> {
    let lexed = lexer::lex(text);
    let mut expr = grammar::expression(&lexed, options)?;
    check::check(text, &mut expr)?;
    Ok(expr)
}

/// Parses a series selector, as in `match[]`. Whether it selects everything is for the caller to judge.
///
/// # Errors
/// The first fault, in Prometheus' words.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    grammar::selector(&lexer::lex(text))
}

/// Parses a metric: `name{label="value"}`, either part alone, or nothing.
///
/// # Errors
/// The first fault, in Prometheus' words.
pub fn parse_metric(text: &str) -> Result<Labels, ParseError> {
    grammar::metric(&lexer::lex(text))
}

/// The type of an expression's value. Looks into operators until a vector is found; constant for all else.
pub fn value_type(expr: &Expr) -> ValueType {
    let mut open = vec![expr];
    let mut within_operator = false;
    while let Some(expr) = open.pop() {
        let found = match &expr.kind {
            ExprKind::Aggregate(_) | ExprKind::Vector(_) => ValueType::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Call(call) => call.func.returns,
            ExprKind::Paren(inner) => {
                open.push(inner);
                continue;
            }
            ExprKind::Unary(unary) => {
                open.push(&unary.expr);
                continue;
            }
            ExprKind::Binary(binary) => {
                within_operator = true;
                open.extend([&*binary.rhs, &*binary.lhs]);
                continue;
            }
        };
        match (within_operator, found) {
            (true, ValueType::Scalar) => {}
            (true, _) => return ValueType::Vector,
            (false, found) => return found,
        }
    }
    ValueType::Scalar
}

#[cfg(test)]
mod tests;
