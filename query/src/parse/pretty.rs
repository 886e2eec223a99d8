//! Tree → text on many lines: `/api/v1/format_query`, Prometheus' `Prettify`. What fits 100 columns stays on one line;
//! what does not is split at its outermost operator, call, aggregation or parentheses, two spaces deeper each level.

use std::fmt::{self, Write};

use super::print::{
    is_infinite_base, sign, write_aggregate_words, write_expr, write_operator_words, write_subquery_suffix,
};
use crate::ast::{Aggregate, Call, Expr, ExprKind};

/// Longest text kept on one line, in bytes; indentation does not count.
const LINE_BYTES_MAX: usize = 100;

/// `expr` as an operator would lay it out.
pub fn pretty(expr: &Expr) -> String {
    let mut out = String::new();
    write_pretty(&mut out, expr, 0, true).expect("writing to a string cannot fail");
    // As in the form on one line.
    if out.contains('\u{fffd}') { out.replace('\u{fffd}', "\\ufffd") } else { out }
}

/// Writes `expr` at `level`. Without `indented` the first line has its indentation already, behind a sign.
fn write_pretty(out: &mut String, expr: &Expr, level: usize, indented: bool) -> fmt::Result {
    let level_before = if indented { level } else { 0 };
    if let ExprKind::Unary(unary) = &expr.kind {
        indent(out, level_before);
        out.push_str(sign(unary));
        return write_pretty(out, &unary.expr, level, false);
    }
    if fits(expr) {
        // Prometheus forgets the indentation of subqueries that fit.
        if !matches!(expr.kind, ExprKind::Subquery(_)) {
            indent(out, level_before);
        }
        return write_expr(out, expr);
    }
    match &expr.kind {
        ExprKind::Binary(binary) => {
            if is_infinite_base(binary) {
                indent(out, if indented { level + 1 } else { 0 });
                out.push_str("Inf");
            } else {
                write_pretty(out, &binary.lhs, level + 1, indented)?;
            }
            out.push('\n');
            indent(out, level);
            write_operator_words(out, binary)?;
            out.push('\n');
            write_pretty(out, &binary.rhs, level + 1, true)
        }
        ExprKind::Paren(inner) => {
            indent(out, level_before);
            out.push_str("(\n");
            write_pretty(out, inner, level + 1, true)?;
            close(out, level);
            Ok(())
        }
        ExprKind::Call(call) => {
            indent(out, level_before);
            pretty_call(out, call, level)
        }
        ExprKind::Aggregate(aggregate) => {
            indent(out, level_before);
            pretty_aggregate(out, aggregate, level)
        }
        ExprKind::Subquery(subquery) => {
            write_pretty(out, &subquery.expr, level, indented)?;
            write_subquery_suffix(out, subquery)
        }
        ExprKind::Unary(_)
        | ExprKind::Matrix(_)
        | ExprKind::Vector(_)
        | ExprKind::Number(_)
        | ExprKind::String(_) => {
            indent(out, level_before);
            write_expr(out, expr)
        }
    }
}

fn pretty_call(out: &mut String, call: &Call, level: usize) -> fmt::Result {
    out.push_str(call.func.name);
    out.push_str("(\n");
    for (index, arg) in call.args.iter().enumerate() {
        if index > 0 {
            out.push_str(",\n");
        }
        write_pretty(out, arg, level + 1, true)?;
    }
    close(out, level);
    Ok(())
}

fn pretty_aggregate(out: &mut String, aggregate: &Aggregate, level: usize) -> fmt::Result {
    write_aggregate_words(out, aggregate)?;
    out.push_str("(\n");
    if let Some(param) = &aggregate.param {
        write_pretty(out, param, level + 1, true)?;
        out.push_str(",\n");
    }
    write_pretty(out, &aggregate.expr, level + 1, true)?;
    close(out, level);
    Ok(())
}

fn close(out: &mut String, level: usize) {
    out.push('\n');
    indent(out, level);
    out.push(')');
}

fn indent(out: &mut String, level: usize) {
    for _ in 0..level {
        out.push_str("  ");
    }
}

/// Whether `expr` fits a line. Stops counting when it does not, so that the whole of [`pretty`] stays linear.
fn fits(expr: &Expr) -> bool {
    write_expr(&mut Room(LINE_BYTES_MAX), expr).is_ok()
}

/// Accepts so many bytes and no more.
struct Room(usize);

impl Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}
