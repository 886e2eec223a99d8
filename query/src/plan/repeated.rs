//! Expressions that a query has more than once: what is evaluated once for all of them.
//!
//! `hits / (hits + misses)` names `hits` twice. Of equal expressions the largest count: within the second `rate(x[5m])` nothing
//! is looked for, as it will not be evaluated. Equal are those of equal canonical texts.

use std::collections::HashMap;

use crate::ast::{Expr, ExprKind, ValueType};
use crate::exec::selector::HistogramView;
use crate::parse::value_type;

/// Bytes of text up to which repetitions are looked for: each expression is printed, with all within.
const TEXT_BYTES_MAX: u32 = 16 << 10;

/// The texts that occur more than once.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    texts: HashMap<String, usize>,
}

impl Repeated {
    /// Of a whole query.
    pub(super) fn of(query: &Expr) -> Self {
        let mut counts = HashMap::new();
        if query.span.end.saturating_sub(query.span.start) <= TEXT_BYTES_MAX {
            count(query, &mut counts);
        }
        let repeated = counts.into_iter().filter(|(_, count)| *count > 1);
        Self { texts: repeated.enumerate().map(|(id, (text, _))| (text, id)).collect() }
    }

    /// A number that equal expressions have in common, if there is another one. What sees less of histograms is another.
    pub(super) fn id(&self, expr: &Expr, view: HistogramView) -> Option<usize> {
        if self.texts.is_empty() || !may_be_shared(expr) {
            return None;
        }
        let id = *self.texts.get(&expr.to_string())?;
        Some(2 * id + usize::from(view == HistogramView::Stats))
    }
}

/// Vectors from storage, or made by some work; selectors of range vectors too, whose series are selected once.
fn may_be_shared(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Aggregate(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => true,
        ExprKind::Call(_) => value_type(expr) == ValueType::Vector,
        _ => false,
    }
}

fn count(expr: &Expr, counts: &mut HashMap<String, usize>) {
    if may_be_shared(expr) {
        let count = counts.entry(expr.to_string()).or_default();
        *count += 1;
        if *count > 1 {
            return;
        }
    }
    expr.children().into_iter().for_each(|child| self::count(child, counts));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{ParseOptions, parse};

    #[test]
    fn the_largest_equal_expressions_are_shared() {
        let shared = |text: &str| {
            let query = parse(text, &ParseOptions::default()).unwrap();
            let mut texts: Vec<String> = Repeated::of(&query).texts.into_keys().collect();
            texts.sort();
            texts
        };
        assert_eq!(shared("rate(a[5m]) / (rate(a[5m]) + rate(b[5m]))"), ["rate(a[5m])"]);
        assert_eq!(shared("sum(rate(a[5m])) / sum (rate( a[5m] ))"), ["sum(rate(a[5m]))"]);
        assert_eq!(shared("max_over_time(a[1h]) - min_over_time(a[1h])"), ["a[1h]"]);
        assert_eq!(shared("a > 1 and a < 5 or sum(a)"), ["a"]);
        assert!(shared("sum(a) + sum(a offset 1m) + time() - time()").is_empty());
    }
}
