//! Binary operators on single values.

use std::sync::Arc;

use model::FloatHistogram;
use model::histogram::{CounterResetHint, Keep};

use super::column::Cell;
use super::notes::{HistogramOperation, Notes};
use crate::ast::{BinaryOp, Span};

/// An operator between two numbers of scalar type: comparisons give 0 and 1.
pub(crate) fn scalar(op: BinaryOp, a: f64, b: f64) -> f64 {
    if op.is_comparison() { f64::from(u8::from(compare(op, a, b))) } else { arithmetic(op, a, b) }
}

/// An arithmetic operator; NaN for operators that have no meaning on floats.
pub(crate) fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => f64::NAN,
    }
}

/// A comparison; false for other operators.
pub(crate) fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eq => a == b,
        BinaryOp::NotEq => a != b,
        BinaryOp::Less => a < b,
        BinaryOp::LessEq => a <= b,
        BinaryOp::Greater => a > b,
        BinaryOp::GreaterEq => a >= b,
        _ => false,
    }
}

/// Go's `math.Max`: infinity wins over NaN, NaN over numbers.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// Go's `math.Min`: negative infinity wins over NaN, NaN over numbers.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

/// What an operator makes of two elements of vectors.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// A number; for comparisons the left one, and whether they hold.
    Float(f64, bool),
    /// A histogram, and whether the comparison holds.
    Histogram(Arc<FloatHistogram>, bool),
    /// The operator has no meaning for these types.
    Nothing,
}

/// Where to note what, once per reader.
pub(crate) struct OpNotes<'a> {
    pub(crate) notes: &'a Notes,
    pub(crate) op: BinaryOp,
    pub(crate) span: Span,
}

impl OpNotes<'_> {
    fn incompatible(&self, left: &str, right: &str) -> Outcome {
        self.notes.incompatible_types(left, self.op.as_str(), right, self.span);
        Outcome::Nothing
    }
}

/// An operator (no set operator) between two elements of vectors.
pub(crate) fn elements(left: Cell<'_>, right: Cell<'_>, notes: &OpNotes<'_>) -> Outcome {
    let op = notes.op;
    let owned = |mut h: FloatHistogram| {
        h.compact();
        Outcome::Histogram(Arc::new(h), true)
    };
    match (left, right) {
        (Cell::Float(_), Cell::Float(_)) if matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower) => {
            notes.incompatible("float", "float")
        }
        (Cell::Float(a), Cell::Float(b)) => {
            if op.is_comparison() {
                Outcome::Float(a, compare(op, a, b))
            } else {
                Outcome::Float(arithmetic(op, a, b), true)
            }
        }
        (Cell::Float(factor), Cell::Histogram(h)) => match op {
            BinaryOp::Mul => owned(scaled(h, factor)),
            _ => notes.incompatible("float", "histogram"),
        },
        (Cell::Histogram(h), Cell::Float(value)) => match op {
            BinaryOp::Mul => owned(scaled(h, value)),
            BinaryOp::Div => {
                let mut quotient = FloatHistogram::clone(h);
                quotient.divide(value);
                owned(quotient)
            }
            BinaryOp::TrimUpper => owned(h.trimmed(Keep::Below, value)),
            BinaryOp::TrimLower => owned(h.trimmed(Keep::Above, value)),
            _ => notes.incompatible("histogram", "float"),
        },
        (Cell::Histogram(a), Cell::Histogram(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => add(a, b, notes),
            BinaryOp::Eq => Outcome::Histogram(Arc::clone(a), a.same_as(b)),
            BinaryOp::NotEq => Outcome::Histogram(Arc::clone(a), !a.same_as(b)),
            _ => notes.incompatible("histogram", "histogram"),
        },
    }
}

fn scaled(h: &FloatHistogram, factor: f64) -> FloatHistogram {
    let mut out = h.clone();
    out.scale(factor);
    out
}

fn add(a: &FloatHistogram, b: &FloatHistogram, notes: &OpNotes<'_>) -> Outcome {
    let subtract = notes.op == BinaryOp::Sub;
    let operation = if subtract { HistogramOperation::Subtraction } else { HistogramOperation::Addition };
    let Ok((mut out, reconciled)) = (if subtract { a.minus(b) } else { a.plus(b) }) else {
        notes.notes.incompatible_bucket_layout(notes.op.as_str(), notes.span);
        return Outcome::Nothing;
    };
    if subtract {
        out.counter_reset_hint = CounterResetHint::Gauge;
    }
    if reconciled.counter_reset_collision {
        notes.notes.counter_reset_collision(operation, notes.span);
    }
    if reconciled.custom_bounds {
        notes.notes.custom_buckets_reconciled(operation, notes.span);
    }
    out.compact();
    Outcome::Histogram(Arc::new(out), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_treat_infinity_and_nan_as_go_does() {
        assert_eq!(go_max(f64::NAN, f64::INFINITY), f64::INFINITY);
        assert!(go_max(f64::NAN, 1.0).is_nan());
        assert_eq!(go_min(f64::NAN, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert!(go_min(0.0, -0.0).is_sign_negative());
        assert!(go_max(0.0, -0.0).is_sign_positive());
        assert_eq!((go_min(1.0, 2.0), go_max(1.0, 2.0)), (1.0, 2.0));
    }
}
