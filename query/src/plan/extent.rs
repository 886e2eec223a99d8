//! The span of stored time that a plan looks at.

use model::TimeRange;

use super::{Plan, RangePlan, ScalarPlan, Selector, VectorPlan};
use crate::ast::ExtendedRange;
use crate::exec::steps::TimeRef;

/// What all selectors of `plan` may look at when it is evaluated from `times.min` to `times.max`; `None` without
/// selectors.
pub(crate) fn extent(plan: &Plan, times: TimeRange, lookback_ms: i64) -> Option<TimeRange> {
    let mut extent = Extent { lookback_ms, found: None };
    match plan {
        Plan::Vector(plan) => extent.vector(plan, times),
        Plan::Scalar(plan) => extent.scalar(plan, times),
        Plan::Range(plan) => extent.range(plan, times),
        Plan::Text(_) => {}
    }
    extent.found
}

struct Extent {
    lookback_ms: i64,
    found: Option<TimeRange>,
}

impl Extent {
    fn add(&mut self, min: i64, max: i64) {
        let all = self.found.get_or_insert(TimeRange::new(min, max));
        all.min = all.min.min(min);
        all.max = all.max.max(max);
    }

    fn selector(&mut self, selector: &Selector, times: TimeRange) {
        let seen = shift(selector.time, times);
        let instant = selector.window_ms == 0;
        let before =
            if instant || selector.extended.is_some() { self.lookback_ms } else { 0 } + selector.window_ms;
        let after = if selector.extended == Some(ExtendedRange::Smoothed) { self.lookback_ms } else { 0 };
        self.add(seen.min.saturating_sub(before), seen.max.saturating_add(after));
    }

    fn range(&mut self, plan: &RangePlan, times: TimeRange) {
        match plan {
            RangePlan::Selector(selector) => self.selector(selector, times),
            RangePlan::Subquery(subquery) => {
                let seen = shift(subquery.time, times);
                let inner = TimeRange::new(seen.min.saturating_sub(subquery.window_ms), seen.max);
                self.vector(&subquery.inner, inner);
            }
        }
    }

    fn scalar(&mut self, plan: &ScalarPlan, times: TimeRange) {
        match plan {
            ScalarPlan::Number(_) | ScalarPlan::Time => {}
            ScalarPlan::OfVector(plan) => self.vector(plan, times),
            ScalarPlan::Negate(inner) => self.scalar(inner, times),
            ScalarPlan::Binary(_, a, b) | ScalarPlan::Extreme { a, b, .. } => {
                self.scalar(a, times);
                self.scalar(b, times);
            }
        }
    }

    fn vector(&mut self, plan: &VectorPlan, times: TimeRange) {
        match plan {
            VectorPlan::Selector(selector) => self.selector(selector, times),
            VectorPlan::Invariant(inner)
            | VectorPlan::Shared { inner, .. }
            | VectorPlan::Absent { arg: inner, .. }
            | VectorPlan::Date { arg: Some(inner), .. }
            | VectorPlan::StepTime { arg: inner }
            | VectorPlan::HistogramStat { arg: inner, .. }
            | VectorPlan::LabelJoin { arg: inner, .. }
            | VectorPlan::Sort { arg: inner, .. }
            | VectorPlan::Negate(inner) => self.vector(inner, times),
            VectorPlan::Date { arg: None, .. } => {}
            VectorPlan::OfScalar(plan) => self.scalar(plan, times),
            VectorPlan::Range(call) => {
                self.range(&call.arg, times);
                call.params.iter().for_each(|param| self.scalar(param, times));
            }
            VectorPlan::AbsentOverTime { arg, .. } => self.range(arg, times),
            VectorPlan::Math { arg, params, .. } => {
                self.vector(arg, times);
                params.iter().for_each(|param| self.scalar(param, times));
            }
            VectorPlan::Quantiles(plan) => {
                self.vector(&plan.arg, times);
                plan.quantiles.iter().for_each(|(quantile, _)| self.scalar(quantile, times));
            }
            VectorPlan::Fraction(plan) => {
                self.vector(&plan.arg, times);
                self.scalar(&plan.lower, times);
                self.scalar(&plan.upper, times);
            }
            VectorPlan::LabelReplace(plan) => self.vector(&plan.arg, times),
            VectorPlan::Info(plan) => {
                self.vector(&plan.arg, times);
                let seen = shift(plan.time, times);
                self.add(seen.min.saturating_sub(self.lookback_ms), seen.max);
            }
            VectorPlan::Aggregate(plan) => {
                self.vector(&plan.arg, times);
                if let Some((param, _)) = &plan.param {
                    self.scalar(param, times);
                }
            }
            VectorPlan::Binary(plan) => {
                self.vector(&plan.left, times);
                self.vector(&plan.right, times);
            }
            VectorPlan::WithScalar(plan) => {
                self.vector(&plan.vector, times);
                self.scalar(&plan.scalar, times);
            }
        }
    }
}

fn shift(time: TimeRef, times: TimeRange) -> TimeRange {
    TimeRange::new(time.resolve(times.min), time.resolve(times.max))
}
