//! Tree → text on one line: Prometheus' `String()` form, used in the rules API, in queries and in logs. Parsing it gives
//! the same tree, but for spans and the order of matchers, which are sorted here as there.

use std::fmt::{self, Display, Formatter, Write};

use model::duration::format_ms;
use model::float;
use model::labels::{METRIC_NAME, Quoted, is_legacy_label_name};
use model::{MatchOp, Matcher};

use crate::ast::{
    Aggregate, At, Binary, BinaryOp, Call, Cardinality, DurationExpr, DurationKind, DurationOp, Expr,
    ExprKind, ExtendedRange, MatrixSelector, Number, Subquery, TimeModifiers, Unary, VectorMatching,
    VectorSelector,
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_expr(&mut Readable(f), self)
    }
}

/// The lexer refuses U+FFFD, which stands for broken UTF-8, as Prometheus' does: an escape is what can be read again. It
/// occurs only within quotes. (Prometheus prints it as it is.)
struct Readable<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Readable<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, part) in text.split('\u{fffd}').enumerate() {
            if index > 0 {
                self.0.write_str("\\ufffd")?;
            }
            self.0.write_str(part)?;
        }
        Ok(())
    }
}

/// Writes `expr`. One small frame for each level of the tree.
pub(super) fn write_expr(out: &mut dyn Write, expr: &Expr) -> fmt::Result {
    match &expr.kind {
        ExprKind::Binary(binary) => {
            if is_infinite_base(binary) {
                out.write_str("Inf")?;
            } else {
                write_expr(out, &binary.lhs)?;
            }
            write_operator(out, binary)?;
            write_expr(out, &binary.rhs)
        }
        ExprKind::Paren(inner) => {
            out.write_char('(')?;
            write_expr(out, inner)?;
            out.write_char(')')
        }
        ExprKind::Unary(unary) => {
            out.write_str(sign(unary))?;
            write_expr(out, &unary.expr)
        }
        ExprKind::Call(call) => write_call(out, call),
        ExprKind::Aggregate(aggregate) => write_aggregate(out, aggregate),
        ExprKind::Subquery(subquery) => {
            write_expr(out, &subquery.expr)?;
            write_subquery_suffix(out, subquery)
        }
        ExprKind::Matrix(matrix) => write_matrix(out, matrix),
        ExprKind::Vector(vector) => write_vector(out, vector),
        ExprKind::Number(number) => write_number(out, *number),
        ExprKind::String(text) => write!(out, "{}", Quoted(text)),
    }
}

/// Whether the left side is infinity, whose sign would be that of the power. (Prometheus prints it all the same.)
pub(super) fn is_infinite_base(binary: &Binary) -> bool {
    matches!(binary.lhs.kind, ExprKind::Number(Number { value: f64::INFINITY, .. }))
        && binary.op == BinaryOp::Pow
}

/// The sign of `unary`.
pub(super) fn sign(unary: &Unary) -> &'static str {
    if unary.negative { "-" } else { "+" }
}

fn write_operator(out: &mut dyn Write, binary: &Binary) -> fmt::Result {
    out.write_char(' ')?;
    write_operator_words(out, binary)?;
    out.write_char(' ')
}

/// The operator with all its modifiers.
pub(super) fn write_operator_words(out: &mut dyn Write, binary: &Binary) -> fmt::Result {
    out.write_str(binary.op.as_str())?;
    if binary.return_bool {
        out.write_str(" bool")?;
    }
    binary.matching.as_ref().map_or(Ok(()), |matching| write_matching(out, matching))
}

fn write_matching(out: &mut dyn Write, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.card {
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if matching.on || !matching.labels.is_empty() || group.is_some() {
        out.write_str(if matching.on { " on (" } else { " ignoring (" })?;
        write_labels(out, &matching.labels)?;
        out.write_char(')')?;
    }
    if let Some(side) = group {
        write!(out, " group_{side} (")?;
        write_labels(out, &matching.include)?;
        out.write_char(')')?;
    }
    let number = float::format_general;
    match (matching.fill.lhs, matching.fill.rhs) {
        (Some(lhs), Some(rhs)) if lhs.to_bits() == rhs.to_bits() => write!(out, " fill ({})", number(lhs)),
        (lhs, rhs) => {
            if let Some(lhs) = lhs {
                write!(out, " fill_left ({})", number(lhs))?;
            }
            if let Some(rhs) = rhs {
                write!(out, " fill_right ({})", number(rhs))?;
            }
            Ok(())
        }
    }
}

fn write_labels(out: &mut dyn Write, labels: &[String]) -> fmt::Result {
    for (index, label) in labels.iter().enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        if is_legacy_label_name(label) && !is_number_word(label) {
            out.write_str(label)?;
        } else {
            write!(out, "{}", Quoted(label))?;
        }
    }
    Ok(())
}

/// Words that the lexer takes for numbers, unless they are quoted. (Prometheus prints them bare.)
fn is_number_word(label: &str) -> bool {
    label.eq_ignore_ascii_case("inf") || label.eq_ignore_ascii_case("nan")
}

fn write_call(out: &mut dyn Write, call: &Call) -> fmt::Result {
    out.write_str(call.func.name)?;
    out.write_char('(')?;
    for (index, arg) in call.args.iter().enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        write_expr(out, arg)?;
    }
    out.write_char(')')
}

fn write_aggregate(out: &mut dyn Write, aggregate: &Aggregate) -> fmt::Result {
    write_aggregate_words(out, aggregate)?;
    out.write_char('(')?;
    if let Some(param) = &aggregate.param {
        write_expr(out, param)?;
        out.write_str(", ")?;
    }
    write_expr(out, &aggregate.expr)?;
    out.write_char(')')
}

/// The operator and its clause, with a space behind the clause.
pub(super) fn write_aggregate_words(out: &mut dyn Write, aggregate: &Aggregate) -> fmt::Result {
    out.write_str(aggregate.op.as_str())?;
    let clause = match (aggregate.without, aggregate.grouping.is_empty()) {
        (true, _) => " without (",
        (false, false) => " by (",
        (false, true) => return Ok(()),
    };
    out.write_str(clause)?;
    write_labels(out, &aggregate.grouping)?;
    out.write_str(") ")
}

/// `[range:step] @ time offset duration`
pub(super) fn write_subquery_suffix(out: &mut dyn Write, subquery: &Subquery) -> fmt::Result {
    out.write_char('[')?;
    write_duration(out, &subquery.range)?;
    out.write_char(':')?;
    if let Some(step) = &subquery.step {
        write_duration(out, step)?;
    }
    out.write_char(']')?;
    write_time(out, &subquery.time, None)
}

fn write_matrix(out: &mut dyn Write, matrix: &MatrixSelector) -> fmt::Result {
    write_series(out, &matrix.vector)?;
    out.write_char('[')?;
    write_duration(out, &matrix.range)?;
    out.write_char(']')?;
    write_extended(out, matrix.vector.extended)?;
    write_time(out, &matrix.vector.time, None)
}

fn write_vector(out: &mut dyn Write, vector: &VectorSelector) -> fmt::Result {
    write_series(out, vector)?;
    write_time(out, &vector.time, vector.extended)
}

/// Name and matchers. Matchers are sorted by their text.
fn write_series(out: &mut dyn Write, vector: &VectorSelector) -> fmt::Result {
    let name = vector.name.as_deref().unwrap_or_default();
    out.write_str(name)?;
    let says_name = |matcher: &Matcher| {
        matcher.name == METRIC_NAME
            && matcher.op == MatchOp::Equal
            && matcher.value == name
            && !matcher.value.is_empty()
    };
    let mut matchers: Vec<String> =
        vector.matchers.iter().filter(|matcher| !says_name(matcher)).map(Matcher::to_string).collect();
    if matchers.is_empty() && !name.is_empty() {
        return Ok(());
    }
    matchers.sort_unstable();
    write!(out, "{{{}}}", matchers.join(","))
}

/// `@`, then `anchored` or `smoothed`, then `offset`.
///
/// An offset that begins with a parenthesis goes first if there is anything to follow: at the end it would swallow a
/// `+` or `^` behind the selector when parsed again. (Prometheus prints it last all the same.)
fn write_time(out: &mut dyn Write, time: &TimeModifiers, extended: Option<ExtendedRange>) -> fmt::Result {
    let offset_first = time.offset.as_ref().is_some_and(begins_with_paren);
    if offset_first {
        write_offset(out, time)?;
    }
    write_at(out, time)?;
    write_extended(out, extended)?;
    if offset_first { Ok(()) } else { write_offset(out, time) }
}

fn begins_with_paren(mut duration: &DurationExpr) -> bool {
    while let DurationKind::Binary(_, lhs, _) = &duration.kind {
        duration = lhs;
    }
    matches!(duration.kind, DurationKind::Paren(_))
}

fn write_extended(out: &mut dyn Write, extended: Option<ExtendedRange>) -> fmt::Result {
    extended.map_or(Ok(()), |extended| write!(out, " {}", extended.as_str()))
}

fn write_at(out: &mut dyn Write, time: &TimeModifiers) -> fmt::Result {
    match time.at {
        None => Ok(()),
        Some(At::Start) => out.write_str(" @ start()"),
        Some(At::End) => out.write_str(" @ end()"),
        Some(At::Time(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let ms = ms.unsigned_abs();
            write!(out, " @ {sign}{}.{:03}", ms / 1000, ms % 1000)
        }
    }
}

fn write_offset(out: &mut dyn Write, time: &TimeModifiers) -> fmt::Result {
    let Some(offset) = &time.offset else {
        return Ok(());
    };
    out.write_str(" offset ")?;
    write_duration(out, offset)
}

fn write_number(out: &mut dyn Write, number: Number) -> fmt::Result {
    if number.is_duration {
        if number.value == 0.0 && number.value.is_sign_negative() {
            // A zero has a sign, too.
            out.write_str("-")?;
        }
        return out.write_str(&format_ms(printed_ms(number.value)));
    }
    out.write_str(&float::format_fixed(number.value))
}

/// Milliseconds of a literal, to the nearest: nanoseconds of hundreds of years, which count elsewhere, are not exact.
#[expect(
    clippy::cast_possible_truncation,
    reason = "literals are within 2^63 nanoseconds; the cast saturates"
)]
fn printed_ms(seconds: f64) -> i64 {
    (seconds * 1e3).round() as i64
}

fn write_duration(out: &mut dyn Write, duration: &DurationExpr) -> fmt::Result {
    match &duration.kind {
        DurationKind::Literal { seconds, is_number: true } => out.write_str(&float::format_fixed(*seconds)),
        DurationKind::Literal { seconds, is_number: false } => {
            out.write_str(&format_ms(printed_ms(*seconds)))
        }
        DurationKind::Step => out.write_str("step()"),
        DurationKind::Range => out.write_str("range()"),
        DurationKind::MinOf(a, b) => write_duration_pair(out, "min_of(", a, ", ", b, ")"),
        DurationKind::MaxOf(a, b) => write_duration_pair(out, "max_of(", a, ", ", b, ")"),
        DurationKind::Binary(op, lhs, rhs) => {
            write_duration_pair(out, "", lhs, duration_operator(*op), rhs, "")
        }
        DurationKind::Negate(inner) => {
            out.write_char('-')?;
            write_duration(out, inner)
        }
        DurationKind::Plus(inner) => write_duration(out, inner),
        DurationKind::Paren(inner) => {
            out.write_char('(')?;
            write_duration(out, inner)?;
            out.write_char(')')
        }
    }
}

fn write_duration_pair(
    out: &mut dyn Write,
    before: &str,
    a: &DurationExpr,
    between: &str,
    b: &DurationExpr,
    after: &str,
) -> fmt::Result {
    out.write_str(before)?;
    write_duration(out, a)?;
    out.write_str(between)?;
    write_duration(out, b)?;
    out.write_str(after)
}

/// The operator between its operands, spaces included.
pub(super) fn duration_operator(op: DurationOp) -> &'static str {
    match op {
        DurationOp::Add => " + ",
        DurationOp::Sub => " - ",
        DurationOp::Mul => " * ",
        DurationOp::Div => " / ",
        DurationOp::Mod => " % ",
        DurationOp::Pow => " ^ ",
    }
}
