//! What there is to say about a result: texts with the place they speak of. Of equal texts the last place counts.

use std::collections::{BTreeMap, BTreeSet};

use query::ast::{Expr, ExprKind};

use super::Reference;

/// Whether a text is a warning, the text, and the byte of the query it speaks of.
pub(super) type Notes = BTreeMap<(bool, String), u32>;

/// Where an argument stands: within its parentheses. Subqueries, being evaluated first, have no place.
pub(super) fn place(expr: &Expr) -> u32 {
    match &expr.kind {
        ExprKind::Paren(inner) => place(inner),
        ExprKind::Subquery(_) => 0,
        _ => expr.span.start,
    }
}

/// ` for metric name "x"`, or nothing without a name.
pub(super) fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {name:?}") }
}

impl Reference {
    fn note(&self, is_warning: bool, at: u32, text: String) {
        let mut notes = self.notes.borrow_mut();
        let place = notes.entry((is_warning, text)).or_insert(at);
        *place = at.max(*place);
    }

    pub(super) fn warn(&self, at: u32, text: impl Into<String>) {
        self.note(true, at, text.into());
    }

    pub(super) fn info(&self, at: u32, text: impl Into<String>) {
        self.note(false, at, text.into());
    }

    /// All texts as users see them. The query has one line.
    pub(crate) fn texts(&self) -> BTreeSet<String> {
        let notes = self.notes.borrow();
        let text = |((is_warning, text), at): (&(bool, String), &u32)| {
            let level = if *is_warning { "warning" } else { "info" };
            format!("PromQL {level}: {text} (1:{})", at + 1)
        };
        notes.iter().map(text).collect()
    }

    pub(super) fn mixed_schemas(&self, at: u32, name: &str) {
        self.warn(
            at,
            format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {name:?}"
            ),
        );
    }

    pub(super) fn mixed_kinds(&self, at: u32, name: &str) {
        self.warn(at, format!("encountered a mix of histograms and floats for metric name {name:?}"));
    }

    pub(super) fn not_a_counter(&self, at: u32, name: &str) {
        self.warn(at, format!("this native histogram metric is not a counter: {name:?}"));
    }

    pub(super) fn not_a_gauge(&self, at: u32, name: &str) {
        self.warn(at, format!("this native histogram metric is not a gauge: {name:?}"));
    }

    pub(super) fn reconciled(&self, at: u32, operation: &str) {
        self.info(at, format!("mismatched custom buckets were reconciled during {operation}"));
    }

    pub(super) fn collision(&self, at: u32, operation: &str) {
        self.warn(at, format!("conflicting counter resets during histogram {operation}"));
    }

    pub(super) fn ignored_in_range(&self, at: u32, name: &str) {
        self.info(
            at,
            format!(
                "ignored histograms in a range containing both floats and histograms for metric name {name:?}"
            ),
        );
    }

    pub(super) fn check_quantile(&self, at: u32, q: f64) {
        if !(0.0..=1.0).contains(&q) {
            let q = model::histogram::GoFloat(q);
            self.warn(at, format!("quantile value should be between 0 and 1, got {q}"));
        }
    }
}
