//! Functions and operators that look at one sample at a time: mathematics, rounding and bounds, a vector and a scalar. They
//! change columns on their way and hold nothing.

use super::arith::{self, OpNotes, Outcome, go_max, go_min};
use super::column::{Cell, Column};
use super::error::QueryError;
use super::eval::{ScalarColumn, drop_names, scalar, vector};
use super::state::{Scratch, State};
use super::steps::Steps;
use super::stream::{Source, Stream};
use crate::ast::BinaryOp;
use crate::plan::{MathFn, WithScalarPlan};

/// A stream whose columns are changed one by one.
pub(crate) fn mapped<'q>(mut inner: Stream<'q>, f: impl Fn(&mut Column) + Send + Sync + 'q) -> Stream<'q> {
    let heads = std::mem::take(&mut inner.heads);
    Stream::new(inner.steps, heads, Mapped { inner, f })
}

struct Mapped<'q, F> {
    inner: Stream<'q>,
    f: F,
}

impl<F: Fn(&mut Column) + Send + Sync> Source for Mapped<'_, F> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        self.inner.source.read(index, into, scratch)?;
        (self.f)(into);
        Ok(())
    }
}

pub(super) fn map_floats<'q>(
    state: &'q State<'q>,
    inner: Stream<'q>,
    f: impl Fn(f64) -> f64 + Send + Sync + 'q,
) -> Result<Stream<'q>, QueryError> {
    let mapped = mapped(inner, move |column| {
        column.drop_histograms();
        column.map_floats(&f);
    });
    drop_names(state, mapped, false)
}

pub(super) fn math<'q>(
    state: &'q State<'q>,
    inner: Stream<'q>,
    function: MathFn,
    params: Vec<ScalarColumn>,
) -> Result<Stream<'q>, QueryError> {
    let plain: fn(f64) -> f64 = match function {
        MathFn::Round | MathFn::Clamp | MathFn::ClampMin | MathFn::ClampMax => {
            return with_params(state, inner, function, params);
        }
        MathFn::Identity => |v| v,
        MathFn::Abs => f64::abs,
        MathFn::Ceil => f64::ceil,
        MathFn::Floor => f64::floor,
        MathFn::Exp => f64::exp,
        MathFn::Ln => f64::ln,
        MathFn::Log2 => f64::log2,
        MathFn::Log10 => f64::log10,
        MathFn::Sqrt => f64::sqrt,
        MathFn::Sgn => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        MathFn::Sin => f64::sin,
        MathFn::Cos => f64::cos,
        MathFn::Tan => f64::tan,
        MathFn::Asin => f64::asin,
        MathFn::Acos => f64::acos,
        MathFn::Atan => f64::atan,
        MathFn::Sinh => f64::sinh,
        MathFn::Cosh => f64::cosh,
        MathFn::Tanh => f64::tanh,
        MathFn::Asinh => f64::asinh,
        MathFn::Acosh => f64::acosh,
        MathFn::Atanh => f64::atanh,
        MathFn::Deg => |v| v * 180.0 / std::f64::consts::PI,
        MathFn::Rad => |v| v * std::f64::consts::PI / 180.0,
    };
    map_floats(state, inner, plain)
}

fn with_params<'q>(
    state: &'q State<'q>,
    inner: Stream<'q>,
    function: MathFn,
    params: Vec<ScalarColumn>,
) -> Result<Stream<'q>, QueryError> {
    let param = move |index: usize, step: usize| params.get(index).map(|param| param.at(step));
    let mapped = mapped(inner, move |column| {
        column.drop_histograms();
        column.filter_map_floats(|step, value| {
            let first = param(0, step);
            match function {
                MathFn::Round => {
                    let inverse = 1.0 / first.unwrap_or(1.0);
                    Some((value * inverse + 0.5).floor() / inverse)
                }
                MathFn::ClampMin => Some(clamped(value, first?, f64::INFINITY)),
                MathFn::ClampMax => Some(clamped(value, f64::NEG_INFINITY, first?)),
                _ => {
                    let (min, max) = (first?, param(1, step)?);
                    if max < min { None } else { Some(clamped(value, min, max)) }
                }
            }
        });
    });
    drop_names(state, mapped, false)
}

fn clamped(value: f64, min: f64, max: f64) -> f64 {
    go_max(min, go_min(max, value))
}

/// A vector and a scalar, in either order.
pub(super) fn with_scalar<'q>(
    state: &'q State<'q>,
    plan: &'q WithScalarPlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let numbers = scalar(state, &plan.scalar, steps)?;
    let mut inner = vector(state, &plan.vector, steps)?;
    let heads = std::mem::take(&mut inner.heads);
    let stream = Stream::new(steps, heads, WithScalar { state, plan, numbers, inner });
    if plan.op.is_comparison() && !plan.return_bool || is_trim(plan.op) {
        return Ok(stream);
    }
    drop_names(state, stream, false)
}

/// Operators that leave a histogram the metric it is.
pub(crate) fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower)
}

struct WithScalar<'q> {
    state: &'q State<'q>,
    plan: &'q WithScalarPlan,
    numbers: ScalarColumn,
    inner: Stream<'q>,
}

impl Source for WithScalar<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        self.inner.source.read(index, into, scratch)?;
        let op = self.plan.op;
        let notes = OpNotes { notes: &self.state.notes, op, span: self.plan.span };
        if !into.histograms().is_empty() {
            self.histograms(into, &notes);
        }
        let left = self.plan.scalar_left;
        if is_trim(op) {
            into.filter_map_floats(|step, value| {
                arith::elements(Cell::Float(value), Cell::Float(self.numbers.at(step)), &notes);
                None
            });
        } else if op.is_comparison() {
            into.filter_map_floats(|step, value| {
                let number = self.numbers.at(step);
                let holds =
                    if left { arith::compare(op, number, value) } else { arith::compare(op, value, number) };
                match (self.plan.return_bool, holds) {
                    (true, holds) => Some(f64::from(u8::from(holds))),
                    // The vector's value stays, on whichever side it stands.
                    (false, true) => Some(value),
                    (false, false) => None,
                }
            });
        } else if let ScalarColumn::Constant(number) = self.numbers {
            match (op, left) {
                (BinaryOp::Add, _) => into.map_floats(|value| value + number),
                (BinaryOp::Mul, _) => into.map_floats(|value| value * number),
                (BinaryOp::Div, false) => into.map_floats(|value| value / number),
                (_, true) => into.map_floats(|value| arith::arithmetic(op, number, value)),
                (_, false) => into.map_floats(|value| arith::arithmetic(op, value, number)),
            }
        } else {
            into.filter_map_floats(|step, value| {
                let number = self.numbers.at(step);
                Some(if left {
                    arith::arithmetic(op, number, value)
                } else {
                    arith::arithmetic(op, value, number)
                })
            });
        }
        Ok(())
    }
}

impl WithScalar<'_> {
    /// Histograms of the column; with `bool` they never give a number, since no comparison with a float holds.
    fn histograms(&self, into: &mut Column, notes: &OpNotes<'_>) {
        into.filter_map_histograms(|step, histogram| {
            let number = Cell::Float(self.numbers.at(step));
            let vector = Cell::Histogram(histogram);
            let (a, b) = if self.plan.scalar_left { (number, vector) } else { (vector, number) };
            match arith::elements(a, b, notes) {
                Outcome::Histogram(histogram, true) => Some(histogram),
                Outcome::Histogram(..) | Outcome::Float(..) | Outcome::Nothing => None,
            }
        });
    }
}
