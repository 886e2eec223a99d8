//! Plan → tree of operators.

use model::Matcher;
use model::histogram::GoFloat;
use model::{Timestamp, duration};
use serde_json::{Value, json};

use super::profile::{Key, Profile};
use super::{Measured, PlanNode};
use crate::ast::{ExtendedRange, Span, VectorMatching};
use crate::exec::selector::HistogramView;
use crate::exec::steps::TimeRef;
use crate::plan::{
    AggregatePlan, BinaryPlan, InstantValue, Plan, RangeFn, RangePlan, ScalarPlan, Selector, SortOrder,
    VectorPlan, WithScalarPlan,
};

/// The tree of `plan`, with what `profile` has counted.
pub(crate) fn tree(plan: &Plan, profile: Option<&Profile>) -> PlanNode {
    let trees = Trees { profile };
    match plan {
        Plan::Vector(plan) => trees.vector(plan),
        Plan::Scalar(plan) => trees.scalar(plan),
        Plan::Range(plan) => trees.range(plan),
        Plan::Text(text) => PlanNode::new("text").with("value", text.as_str()),
    }
}

impl PlanNode {
    fn new(operator: &'static str) -> Self {
        Self { operator, ..Self::default() }
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.properties.push((name, value.into()));
        self
    }

    fn with_if(self, wanted: bool, name: &'static str, value: impl Into<Value>) -> Self {
        if wanted { self.with(name, value) } else { self }
    }

    fn at(mut self, span: Span) -> Self {
        self.span = (span.end > span.start).then_some(span);
        self
    }

    fn over(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    fn measured(mut self, measured: Option<Measured>) -> Self {
        let below: u64 = self.children.iter().filter_map(|child| child.measured).map(|m| m.nanos).sum();
        self.measured = measured.map(|own| Measured { own_nanos: own.nanos.saturating_sub(below), ..own });
        self
    }

    fn time(self, time: TimeRef) -> Self {
        let at = time.at.map(seconds).unwrap_or_default();
        self.with_if(time.at.is_some(), "at", at).with_if(
            time.offset != 0,
            "offset",
            duration_text(time.offset),
        )
    }
}

fn seconds(t: Timestamp) -> f64 {
    t as f64 / 1000.0
}

/// A duration that may be negative.
fn duration_text(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}", duration::format_ms(ms.saturating_abs()))
}

/// `CamelCase` of a variant as the function's name.
fn snake(variant: impl std::fmt::Debug) -> String {
    let mut out = String::new();
    for letter in format!("{variant:?}").chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn range_function(function: RangeFn) -> String {
    use RangeFn::{Changes, Delta, Deriv, Idelta, Increase, Irate, PredictLinear, Rate, Resets, Smooth};
    match function {
        Smooth => "double_exponential_smoothing".to_owned(),
        Rate | Increase | Delta | Irate | Idelta | Deriv | PredictLinear | Changes | Resets => {
            snake(function)
        }
        other => format!("{}_over_time", snake(other)),
    }
}

fn matchers_text(matchers: &[Matcher]) -> String {
    let texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", texts.join(","))
}

struct Trees<'a> {
    profile: Option<&'a Profile>,
}

impl Trees<'_> {
    fn measured(&self, key: Key) -> Option<Measured> {
        self.profile?.measured(key)
    }

    fn vector(&self, plan: &VectorPlan) -> PlanNode {
        let call = |name: String| PlanNode::new("call").with("function", name);
        let node = match plan {
            VectorPlan::Selector(one) => selector(one),
            VectorPlan::Invariant(inner) => PlanNode::new("evaluate_once").over([self.vector(inner)]),
            VectorPlan::Shared { id, inner } => {
                PlanNode::new("share").with("number", *id).over([self.vector(inner)])
            }
            VectorPlan::OfScalar(scalar) => call("vector".to_owned()).over([self.scalar(scalar)]),
            VectorPlan::Range(range) => PlanNode::new("slide")
                .with("function", range_function(range.function))
                .at(range.span)
                .over([self.range(&range.arg)])
                .over(range.params.iter().map(|param| self.scalar(param))),
            VectorPlan::AbsentOverTime { arg, labels } => {
                call("absent_over_time".to_owned()).with("labels", labels.to_string()).over([self.range(arg)])
            }
            VectorPlan::Absent { arg, labels } => {
                call("absent".to_owned()).with("labels", labels.to_string()).over([self.vector(arg)])
            }
            VectorPlan::Math { arg, function, params } => call(snake(function))
                .over([self.vector(arg)])
                .over(params.iter().map(|param| self.scalar(param))),
            VectorPlan::Date { arg, function } => {
                call(snake(function)).over(arg.as_deref().map(|arg| self.vector(arg)))
            }
            VectorPlan::StepTime { arg } => call("timestamp".to_owned()).over([self.vector(arg)]),
            VectorPlan::HistogramStat { arg, stat } => {
                call(format!("histogram_{}", snake(stat))).over([self.vector(arg)])
            }
            VectorPlan::Quantiles(plan) => {
                let name = if plan.label.is_some() { "histogram_quantiles" } else { "histogram_quantile" };
                call(name.to_owned())
                    .with_if(plan.label.is_some(), "label", plan.label.clone())
                    .over([self.vector(&plan.arg)])
                    .over(plan.quantiles.iter().map(|(quantile, _)| self.scalar(quantile)))
            }
            VectorPlan::Fraction(plan) => call("histogram_fraction".to_owned()).over([
                self.vector(&plan.arg),
                self.scalar(&plan.lower),
                self.scalar(&plan.upper),
            ]),
            VectorPlan::LabelReplace(plan) => call("label_replace".to_owned())
                .with("destination", plan.destination.as_str())
                .with("source", plan.source.as_str())
                .over([self.vector(&plan.arg)]),
            VectorPlan::LabelJoin { arg, destination, sources, .. } => call("label_join".to_owned())
                .with("destination", destination.as_str())
                .with("sources", sources.clone())
                .over([self.vector(arg)]),
            VectorPlan::Sort { arg, order } => sort(order).over([self.vector(arg)]),
            VectorPlan::Info(plan) => call("info".to_owned())
                .with("matchers", matchers_text(&plan.matchers))
                .time(plan.time)
                .over([self.vector(&plan.arg)]),
            VectorPlan::Negate(inner) => PlanNode::new("negate").over([self.vector(inner)]),
            VectorPlan::Aggregate(plan) => self.aggregate(plan),
            VectorPlan::Binary(plan) => self.binary(plan),
            VectorPlan::WithScalar(plan) => self.with_scalar(plan),
        };
        node.measured(self.measured(Key::vector(plan)))
    }

    fn aggregate(&self, plan: &AggregatePlan) -> PlanNode {
        PlanNode::new("aggregate")
            .with("op", plan.op.as_str())
            .with(if plan.without { "without" } else { "by" }, plan.grouping.clone())
            .with_if(plan.label.is_some(), "label", plan.label.clone())
            .at(plan.span)
            .over([self.vector(&plan.arg)])
            .over(plan.param.iter().map(|(param, _)| self.scalar(param)))
    }

    fn binary(&self, plan: &BinaryPlan) -> PlanNode {
        let VectorMatching { card, labels, on, include, fill } = &plan.matching;
        PlanNode::new(if plan.op.is_set() { "set" } else { "join" })
            .with("op", plan.op.as_str())
            .with("card", card.as_str())
            .with(if *on { "on" } else { "ignoring" }, labels.clone())
            .with_if(!include.is_empty(), "include", include.clone())
            .with_if(fill.lhs.is_some(), "fill_left", fill.lhs)
            .with_if(fill.rhs.is_some(), "fill_right", fill.rhs)
            .with_if(plan.return_bool, "bool", true)
            .at(plan.span)
            .over([self.vector(&plan.left), self.vector(&plan.right)])
    }

    fn with_scalar(&self, plan: &WithScalarPlan) -> PlanNode {
        let (vector, scalar) = (self.vector(&plan.vector), self.scalar(&plan.scalar));
        let operands = if plan.scalar_left { [scalar, vector] } else { [vector, scalar] };
        PlanNode::new("with_scalar")
            .with("op", plan.op.as_str())
            .with_if(plan.return_bool, "bool", true)
            .at(plan.span)
            .over(operands)
    }

    fn scalar(&self, plan: &ScalarPlan) -> PlanNode {
        let node = match plan {
            ScalarPlan::Number(value) => PlanNode::new("number").with("value", GoFloat(*value).to_string()),
            ScalarPlan::Time => PlanNode::new("scalar").with("function", "time"),
            ScalarPlan::OfVector(vector) => {
                PlanNode::new("scalar").with("function", "scalar").over([self.vector(vector)])
            }
            ScalarPlan::Binary(op, a, b) => {
                PlanNode::new("scalar").with("op", op.as_str()).over([self.scalar(a), self.scalar(b)])
            }
            ScalarPlan::Negate(inner) => PlanNode::new("scalar").with("op", "-").over([self.scalar(inner)]),
            ScalarPlan::Extreme { max, a, b } => PlanNode::new("scalar")
                .with("function", if *max { "max_of" } else { "min_of" })
                .over([self.scalar(a), self.scalar(b)]),
        };
        node.measured(self.measured(Key::scalar(plan)))
    }

    fn range(&self, plan: &RangePlan) -> PlanNode {
        let node = match plan {
            RangePlan::Selector(one) => selector(one),
            RangePlan::Subquery(subquery) => PlanNode::new("subquery")
                .with("window", duration_text(subquery.window_ms))
                .with("step", duration_text(subquery.step_ms))
                .time(subquery.time)
                .over([self.vector(&subquery.inner)]),
        };
        node.measured(self.measured(Key::range(plan)))
    }
}

fn selector(selector: &Selector) -> PlanNode {
    let hints = &selector.hints;
    let mut pushed = serde_json::Map::new();
    if !hints.func.is_empty() {
        pushed.insert("function".to_owned(), hints.func.as_str().into());
    }
    if !hints.grouping.is_empty() || hints.by {
        let key = if hints.by { "by" } else { "without" };
        pushed.insert(key.to_owned(), json!(hints.grouping));
    }
    if let Some(labels) = &selector.only_labels {
        pushed.insert("labels".to_owned(), json!(labels));
    }
    let modifier = match selector.extended {
        None => "",
        Some(ExtendedRange::Anchored) => "anchored",
        Some(ExtendedRange::Smoothed) => "smoothed",
    };
    let value = match selector.value {
        InstantValue::Sample => "",
        InstantValue::Time => "time",
        InstantValue::Start => "start time",
    };
    PlanNode::new("select")
        .with("matchers", matchers_text(&selector.matchers))
        .with_if(selector.window_ms != 0, "window", duration_text(selector.window_ms))
        .with_if(!modifier.is_empty(), "modifier", modifier)
        .time(selector.time)
        .with_if(!value.is_empty(), "gives", value)
        .with_if(selector.histograms == HistogramView::Stats, "histograms", "count and sum only")
        .with_if(!pushed.is_empty(), "pushed_down", Value::Object(pushed))
        .at(selector.span)
}

fn sort(order: &SortOrder) -> PlanNode {
    match order {
        SortOrder::Value { descending } => {
            PlanNode::new("sort").with("by", "value").with_if(*descending, "descending", true)
        }
        SortOrder::Labels { names, descending } => {
            PlanNode::new("sort").with("by", names.clone()).with_if(*descending, "descending", true)
        }
    }
}
