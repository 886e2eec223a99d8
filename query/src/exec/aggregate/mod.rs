//! Aggregations over series: folded as series arrive, into one accumulator per group and step.

mod fold;
mod ranked;
mod values;

use super::error::QueryError;
use super::eval::{ScalarColumn, check_every, scalar, vector};
use super::labels::{ENTRY_BYTES, Grouper, Pick, label_bytes};
use super::state::State;
use super::steps::Steps;
use super::stream::{Head, Stream};
use crate::ast::AggregateOp;
use crate::plan::AggregatePlan;

/// Evaluates an aggregation.
pub(crate) fn aggregate<'q>(
    state: &'q State<'q>,
    plan: &'q AggregatePlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let param = match &plan.param {
        Some((plan, _)) => Some(scalar(state, plan, steps)?),
        None => None,
    };
    let inner = vector(state, &plan.arg, steps)?;
    if plan.op == AggregateOp::CountValues {
        return values::count_values(state, plan, inner);
    }
    let param = param.unwrap_or(ScalarColumn::Constant(f64::NAN));
    let groups = Groups::new(state, plan, &inner.heads)?;
    match plan.op {
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
            ranked::ranked(state, plan, inner, &groups, &param)
        }
        _ => fold::fold(state, plan, inner, groups, &param),
    }
}

/// Which group each series belongs to.
struct Groups {
    of_series: Vec<usize>,
    /// A head per group, in order of first appearance.
    heads: Vec<Head>,
}

impl Groups {
    fn new(state: &State<'_>, plan: &AggregatePlan, series: &[Head]) -> Result<Self, QueryError> {
        let mut grouper = Grouper::new(Pick::new(&plan.grouping, !plan.without));
        state.limits.hold_bytes(size_of::<usize>() * series.len())?;
        let mut of_series = Vec::with_capacity(series.len());
        let mut heads: Vec<Head> = Vec::new();
        for (index, head) in series.iter().enumerate() {
            check_every(state, index)?;
            let (group, is_new) = grouper.group(&head.labels);
            if is_new {
                let labels = grouper.pick().of(&head.labels);
                state.limits.hold_bytes(2 * size_of::<Head>() + ENTRY_BYTES + label_bytes(&labels))?;
                heads.push(Head::new(labels));
            }
            // What the group is called must go when the name of any member has to.
            heads[group].drop_name |= head.drop_name;
            of_series.push(group);
        }
        Ok(Self { of_series, heads })
    }
}
