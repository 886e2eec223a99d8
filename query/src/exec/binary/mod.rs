//! Operators between two vectors: matching of series (`join`) and set operators (`set`).
//!
//! Which series may pair up is known from labels, before any sample: a *match group* holds the series of both sides
//! that agree on the labels that count. Almost all groups have one pair, read when its result is; only groups in which
//! several series take turns over time are worked out beforehand.

mod join;
mod set;

use super::arith::{self, OpNotes, Outcome};
use super::column::{Cell, Column};
use super::error::QueryError;
use super::eval::vector;
use super::state::State;
use super::steps::Steps;
use super::stream::Stream;
use crate::plan::BinaryPlan;

/// Evaluates an operator between vectors.
pub(crate) fn binary<'q>(
    state: &'q State<'q>,
    plan: &'q BinaryPlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let left = vector(state, &plan.left, steps)?;
    let right = vector(state, &plan.right, steps)?;
    if plan.op.is_set() { set::set(state, plan, left, right) } else { join::join(state, plan, left, right) }
}

/// What the operator makes of one step; `None`: it has no meaning for these types.
fn element(plan: &BinaryPlan, left: Cell<'_>, right: Cell<'_>, notes: &OpNotes<'_>) -> Option<Element> {
    Some(match arith::elements(left, right, notes) {
        Outcome::Nothing => return None,
        Outcome::Float(_, holds) | Outcome::Histogram(_, holds) if plan.return_bool => {
            Element::Float(f64::from(u8::from(holds)))
        }
        Outcome::Float(value, true) => Element::Float(value),
        Outcome::Histogram(histogram, true) => Element::Histogram(histogram),
        Outcome::Float(_, false) | Outcome::Histogram(_, false) => Element::Filtered,
    })
}

enum Element {
    Float(f64),
    Histogram(std::sync::Arc<model::FloatHistogram>),
    /// A comparison that does not hold.
    Filtered,
}

impl Element {
    fn store(self, step: usize, column: &mut Column) {
        match self {
            Self::Float(value) => column.set(step, value),
            Self::Histogram(histogram) => column.push_histogram(step, histogram),
            Self::Filtered => {}
        }
    }
}

/// The operator over two whole columns.
fn columns(plan: &BinaryPlan, left: &Column, right: &Column, into: &mut Column, notes: &OpNotes<'_>) {
    into.reset(left.steps());
    let op = plan.op;
    if left.histograms().is_empty() && right.histograms().is_empty() && !super::elementwise::is_trim(op) {
        left.for_each_float(|step, a| {
            let Some(b) = right.float(step) else { return };
            if !op.is_comparison() {
                into.set(step, arith::arithmetic(op, a, b));
            } else {
                let holds = arith::compare(op, a, b);
                if plan.return_bool {
                    into.set(step, f64::from(u8::from(holds)));
                } else if holds {
                    into.set(step, a);
                }
            }
        });
        return;
    }
    left.for_each(|step, a| {
        if let Some(b) = right.cell(step)
            && let Some(element) = element(plan, a, b, notes)
        {
            element.store(step, into);
        }
    });
}
