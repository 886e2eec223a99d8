//! From the syntax tree to the plan.

use model::labels::METRIC_NAME;
use model::regex::{RegexBudget, RegexMatcher};
use model::{Labels, LabelsBuilder, MatchOp, Matcher};

use super::repeated::Repeated;
use super::{
    AggregatePlan, BinaryPlan, DateFn, FractionPlan, Hints, HistogramStat, InfoPlan, InstantValue,
    LabelReplacePlan, MathFn, Plan, QuantilesPlan, RangeCall, RangeFn, RangePlan, ScalarPlan, Selector,
    SortOrder, SubqueryPlan, VectorPlan, WithScalarPlan,
};
use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Expr, ExprKind, ExtendedRange, MatrixSelector, Span,
    Subquery, TimeModifiers, ValueType, VectorSelector,
};
use crate::exec::error::QueryError;
use crate::exec::selector::HistogramView;
use crate::exec::steps::TimeRef;
use crate::parse::{PATTERNS_BYTES_MAX, QueryTimes, eval_duration, eval_positive_duration, value_type};

/// Functions that give meaning to `anchored` and `smoothed`, in order of names.
const ANCHORED_FUNCTIONS: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
const SMOOTHED_FUNCTIONS: [&str; 3] = ["delta", "increase", "rate"];

/// Plans `expr` for a query over `times`. `default_step_ms` gives the step of subqueries of a given range that name
/// none.
///
/// # Errors
/// What the type checker cannot see: durations out of range, labels that are no labels, functions that do not exist
/// yet.
pub(crate) fn build(
    expr: &Expr,
    times: &QueryTimes,
    default_step_ms: &dyn Fn(i64) -> i64,
) -> Result<Plan, QueryError> {
    let patterns = RegexBudget::new(PATTERNS_BYTES_MAX);
    let builder = Builder { times, default_step_ms, repeated: Repeated::of(expr), patterns };
    let top = Context::default();
    Ok(match value_type(expr) {
        ValueType::Vector => {
            let planned = builder.vector(expr, &top)?;
            Plan::Vector(planned.wrapped())
        }
        ValueType::Scalar => Plan::Scalar(builder.scalar(expr, &top)?.0),
        ValueType::Matrix => Plan::Range(builder.range(expr, &top)?.0),
        ValueType::String | ValueType::None => Plan::Text(text(expr)?.to_owned()),
    })
}

struct Builder<'a> {
    times: &'a QueryTimes,
    default_step_ms: &'a dyn Fn(i64) -> i64,
    repeated: Repeated,
    /// What the regular expressions of `label_replace` may take.
    patterns: RegexBudget,
}

/// What surrounds an expression.
#[derive(Clone, Debug, Default)]
struct Context {
    hints: Hints,
    /// Within `histogram_count` and its like.
    stats: bool,
    /// Within something that needs the buckets.
    buckets: bool,
}

impl Context {
    fn called(&self, func: &str) -> Self {
        Self { hints: Hints { func: func.to_owned(), ..Hints::default() }, ..self.clone() }
    }

    fn plain(&self) -> Self {
        Self { hints: Hints::default(), ..self.clone() }
    }

    fn view(&self) -> HistogramView {
        if self.stats && !self.buckets { HistogramView::Stats } else { HistogramView::Whole }
    }
}

/// A planned vector, and whether it is the same at each step.
struct Planned {
    plan: VectorPlan,
    invariant: bool,
}

impl Planned {
    fn changing(plan: VectorPlan) -> Self {
        Self { plan, invariant: false }
    }

    /// Marks what is the same at each step to be evaluated once.
    fn wrapped(self) -> VectorPlan {
        if self.invariant { VectorPlan::Invariant(Box::new(self.plan)) } else { self.plan }
    }
}

/// Tells the selector below that only the labels of a grouping matter: where all series have one name, so that those that
/// lose it stay apart, and nothing below looks at other labels.
fn only_labels(plan: &mut VectorPlan, grouping: &[String]) {
    let selector = match plan {
        VectorPlan::Selector(selector) => selector,
        VectorPlan::Range(call) => match &mut call.arg {
            RangePlan::Selector(selector) => selector,
            RangePlan::Subquery(_) => return,
        },
        VectorPlan::Invariant(inner)
        | VectorPlan::Math { arg: inner, .. }
        | VectorPlan::HistogramStat { arg: inner, .. }
        | VectorPlan::Negate(inner) => return only_labels(inner, grouping),
        VectorPlan::WithScalar(plan) => return only_labels(&mut plan.vector, grouping),
        _ => return,
    };
    let has_name = |matcher: &Matcher| matcher.name == METRIC_NAME && matcher.op == MatchOp::Equal;
    // An equal selector elsewhere may need all.
    if selector.shared.is_none() && selector.matchers.iter().any(has_name) {
        let mut names = grouping.to_vec();
        names.extend(["__name__", "__type__", "__unit__"].map(str::to_owned));
        selector.only_labels = Some(names);
    }
}

fn without_parens(mut expr: &Expr) -> &Expr {
    while let ExprKind::Paren(inner) = &expr.kind {
        expr = inner;
    }
    expr
}

fn text(expr: &Expr) -> Result<&str, QueryError> {
    match &without_parens(expr).kind {
        ExprKind::String(value) => Ok(value),
        _ => Err(QueryError::bad_data("expected a string literal")),
    }
}

fn arg(call: &Call, index: usize) -> Result<&Expr, QueryError> {
    let missing = || {
        QueryError::bad_data(format!("expected an argument {} in call to \"{}\"", index + 1, call.func.name))
    };
    call.args.get(index).map(without_parens).ok_or_else(missing)
}

fn label_name(name: &str, function: &str, role: &str) -> Result<String, QueryError> {
    if name.is_empty() {
        return Err(QueryError::execution(format!("invalid {role} label name in {function}(): {name}")));
    }
    Ok(name.to_owned())
}

impl Builder<'_> {
    fn time(&self, modifiers: &TimeModifiers) -> Result<TimeRef, QueryError> {
        let offset = match &modifiers.offset {
            Some(expr) => eval_duration(expr, self.times).map_err(|e| QueryError::bad_data(e.to_string()))?,
            None => 0,
        };
        let at = modifiers.at.map(|at| match at {
            At::Time(t) => t,
            At::Start => self.times.start,
            At::End => self.times.end,
        });
        Ok(TimeRef { at, offset })
    }

    fn selector(
        &self,
        vector: &VectorSelector,
        span: Span,
        window_ms: i64,
        context: &Context,
    ) -> Result<Selector, QueryError> {
        Ok(Selector {
            matchers: vector.matchers.clone(),
            time: self.time(&vector.time)?,
            window_ms,
            extended: vector.extended,
            value: InstantValue::Sample,
            histograms: context.view(),
            hints: context.hints.clone(),
            only_labels: None,
            shared: None,
            span,
        })
    }

    fn vector(&self, expr: &Expr, context: &Context) -> Result<Planned, QueryError> {
        let planned = self.unshared(expr, context)?;
        Ok(match self.repeated.id(expr, context.view()) {
            Some(id) => {
                let plan = VectorPlan::Shared { id, inner: Box::new(planned.plan) };
                Planned { plan, ..planned }
            }
            None => planned,
        })
    }

    fn unshared(&self, expr: &Expr, context: &Context) -> Result<Planned, QueryError> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.vector(inner, context),
            ExprKind::Vector(vector) => {
                let selector = self.selector(vector, expr.span, 0, context)?;
                let invariant = selector.time.is_fixed();
                Ok(Planned { plan: VectorPlan::Selector(selector), invariant })
            }
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, expr.span, context),
            ExprKind::Binary(binary) => self.binary(binary, expr.span, context),
            ExprKind::Call(call) => self.call(call, context),
            ExprKind::Unary(unary) => {
                let inner = self.vector(&unary.expr, context)?;
                Ok(match unary.negative {
                    true => {
                        Planned { plan: VectorPlan::Negate(Box::new(inner.plan)), invariant: inner.invariant }
                    }
                    false => inner,
                })
            }
            ExprKind::Matrix(_) | ExprKind::Subquery(_) | ExprKind::Number(_) | ExprKind::String(_) => {
                Err(QueryError::bad_data("expected type instant vector"))
            }
        }
    }

    /// A scalar, and whether it is the same at each step.
    fn scalar(&self, expr: &Expr, context: &Context) -> Result<(ScalarPlan, bool), QueryError> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.scalar(inner, context),
            ExprKind::Number(number) => Ok((ScalarPlan::Number(number.value), true)),
            ExprKind::Unary(unary) => {
                let (inner, invariant) = self.scalar(&unary.expr, context)?;
                Ok(match (unary.negative, inner) {
                    (false, inner) => (inner, invariant),
                    (true, ScalarPlan::Number(value)) => (ScalarPlan::Number(-value), true),
                    (true, inner) => (ScalarPlan::Negate(Box::new(inner)), invariant),
                })
            }
            ExprKind::Binary(binary) => {
                let (left, left_invariant) = self.scalar(&binary.lhs, context)?;
                let (right, right_invariant) = self.scalar(&binary.rhs, context)?;
                if let (ScalarPlan::Number(a), ScalarPlan::Number(b)) = (&left, &right) {
                    return Ok((ScalarPlan::Number(crate::exec::arith::scalar(binary.op, *a, *b)), true));
                }
                let plan = ScalarPlan::Binary(binary.op, Box::new(left), Box::new(right));
                Ok((plan, left_invariant && right_invariant))
            }
            ExprKind::Call(call) => self.scalar_call(call, context),
            _ => Err(QueryError::bad_data("expected type scalar")),
        }
    }

    fn scalar_call(&self, call: &Call, context: &Context) -> Result<(ScalarPlan, bool), QueryError> {
        let seconds = |ms: i64| (ScalarPlan::Number(ms as f64 / 1000.0), true);
        Ok(match call.func.name {
            "time" => (ScalarPlan::Time, false),
            "pi" => (ScalarPlan::Number(std::f64::consts::PI), true),
            "start" => seconds(self.times.start),
            "end" => seconds(self.times.end),
            "step" => seconds(self.times.step),
            "range" => seconds(self.times.end.saturating_sub(self.times.start)),
            "scalar" => {
                let inner = self.vector(arg(call, 0)?, &context.called("scalar"))?;
                let invariant = inner.invariant;
                (ScalarPlan::OfVector(Box::new(inner.wrapped())), invariant)
            }
            name @ ("min_of" | "max_of") => {
                let (a, a_invariant) = self.scalar(arg(call, 0)?, context)?;
                let (b, b_invariant) = self.scalar(arg(call, 1)?, context)?;
                let plan = ScalarPlan::Extreme { max: name == "max_of", a: Box::new(a), b: Box::new(b) };
                (plan, a_invariant && b_invariant)
            }
            name => return Err(unsupported(name)),
        })
    }

    /// A range vector, whether it is the same at each step, and the place that annotations about it point to.
    fn range(&self, expr: &Expr, context: &Context) -> Result<(RangePlan, bool, Span), QueryError> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.range(inner, context),
            ExprKind::Matrix(matrix) => {
                let shared = self.repeated.id(expr, context.view());
                let selector = Selector { shared, ..self.matrix(matrix, context)? };
                let fixed = selector.time.is_fixed();
                Ok((RangePlan::Selector(selector), fixed, expr.span))
            }
            ExprKind::Subquery(subquery) => {
                let (plan, fixed) = self.subquery(subquery, context)?;
                // Prometheus evaluates subqueries by standing in a selector that has no place.
                Ok((plan, fixed, Span::default()))
            }
            _ => Err(QueryError::bad_data("expected type range vector")),
        }
    }

    fn matrix(&self, matrix: &MatrixSelector, context: &Context) -> Result<Selector, QueryError> {
        let window_ms = eval_positive_duration(&matrix.range, self.times)
            .map_err(|e| QueryError::bad_data(e.to_string()))?;
        self.selector(&matrix.vector, matrix.vector_span, window_ms, context)
    }

    fn subquery(&self, subquery: &Subquery, context: &Context) -> Result<(RangePlan, bool), QueryError> {
        let positive =
            |expr| eval_positive_duration(expr, self.times).map_err(|e| QueryError::bad_data(e.to_string()));
        let window_ms = positive(&subquery.range)?;
        let step_ms = match &subquery.step {
            Some(step) => positive(step)?,
            None => (self.default_step_ms)(window_ms),
        };
        let context = Context { buckets: true, ..context.plain() };
        let inner = self.vector(&subquery.expr, &context)?.wrapped();
        let time = self.time(&subquery.time)?;
        let plan = SubqueryPlan { inner, window_ms, step_ms: step_ms.max(1), time };
        Ok((RangePlan::Subquery(Box::new(plan)), time.is_fixed()))
    }

    fn aggregate(&self, aggregate: &Aggregate, span: Span, context: &Context) -> Result<Planned, QueryError> {
        let hints = Hints {
            func: aggregate.op.as_str().to_owned(),
            grouping: aggregate.grouping.clone(),
            by: !aggregate.without,
        };
        let inner_context = Context { hints, ..context.clone() };
        let expr = without_parens(&aggregate.expr);
        let arg = self.vector(expr, &inner_context)?;
        let mut invariant = arg.invariant;
        let (mut param, mut label) = (None, None);
        if let Some(expr) = aggregate.param.as_deref().map(without_parens) {
            if aggregate.op == AggregateOp::CountValues {
                let name = text(expr)?;
                if name.is_empty() {
                    return Err(QueryError::execution(format!("invalid label name {name}")));
                }
                label = Some(name.to_owned());
            } else {
                let (plan, param_invariant) = self.scalar(expr, &context.plain())?;
                invariant &= param_invariant;
                param = Some((plan, expr.span));
            }
        }
        let arg_span = expr.span;
        let mut arg = if invariant { arg.plan } else { arg.wrapped() };
        if aggregate.op.folds() && !aggregate.without {
            only_labels(&mut arg, &aggregate.grouping);
        }
        let plan = AggregatePlan {
            op: aggregate.op,
            arg,
            arg_span,
            param,
            label,
            grouping: aggregate.grouping.clone(),
            without: aggregate.without,
            span,
        };
        Ok(Planned { plan: VectorPlan::Aggregate(Box::new(plan)), invariant })
    }

    fn binary(&self, binary: &Binary, span: Span, context: &Context) -> Result<Planned, QueryError> {
        let needs_buckets =
            matches!(binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::Eq | BinaryOp::NotEq);
        let context = Context { buckets: context.buckets || needs_buckets, ..context.plain() };
        if let Some(matching) = &binary.matching {
            let left = self.vector(&binary.lhs, &context)?;
            let right = self.vector(&binary.rhs, &context)?;
            let invariant = left.invariant && right.invariant;
            let unwrap = |planned: Planned| if invariant { planned.plan } else { planned.wrapped() };
            let plan = BinaryPlan {
                op: binary.op,
                left: unwrap(left),
                right: unwrap(right),
                matching: matching.clone(),
                return_bool: binary.return_bool,
                span,
            };
            return Ok(Planned { plan: VectorPlan::Binary(Box::new(plan)), invariant });
        }
        let scalar_left = value_type(&binary.lhs) == ValueType::Scalar;
        let (scalar, vector) =
            if scalar_left { (&binary.lhs, &binary.rhs) } else { (&binary.rhs, &binary.lhs) };
        let (scalar, scalar_invariant) = self.scalar(scalar, &context)?;
        let vector = self.vector(vector, &context)?;
        let invariant = scalar_invariant && vector.invariant;
        let plan = WithScalarPlan {
            op: binary.op,
            vector: if invariant { vector.plan } else { vector.wrapped() },
            scalar,
            scalar_left,
            return_bool: binary.return_bool,
            span,
        };
        Ok(Planned { plan: VectorPlan::WithScalar(Box::new(plan)), invariant })
    }

    fn call(&self, call: &Call, context: &Context) -> Result<Planned, QueryError> {
        let name = call.func.name;
        let inner = context.called(name);
        if let Some(function) = RangeFn::from_name(name) {
            return self.range_call(call, function, &inner);
        }
        if let Some(function) = MathFn::from_name(name) {
            let vector = self.vector(arg(call, 0)?, &inner)?;
            let mut invariant = vector.invariant;
            let mut params = Vec::new();
            for index in 1..call.args.len() {
                let (param, param_invariant) = self.scalar(arg(call, index)?, &inner)?;
                invariant &= param_invariant;
                params.push(param);
            }
            let vector = if invariant { vector.plan } else { vector.wrapped() };
            return Ok(Planned {
                plan: VectorPlan::Math { arg: Box::new(vector), function, params },
                invariant,
            });
        }
        if let Some(function) = DateFn::from_name(name) {
            let arg = match call.args.is_empty() {
                true => None,
                false => Some(Box::new(self.vector(arg(call, 0)?, &inner)?.wrapped())),
            };
            return Ok(Planned::changing(VectorPlan::Date { arg, function }));
        }
        let stat = match name {
            "histogram_count" => Some(HistogramStat::Count),
            "histogram_sum" => Some(HistogramStat::Sum),
            "histogram_avg" => Some(HistogramStat::Avg),
            "histogram_stddev" => Some(HistogramStat::Stddev),
            "histogram_stdvar" => Some(HistogramStat::Stdvar),
            _ => None,
        };
        if let Some(stat) = stat {
            let spread = matches!(stat, HistogramStat::Stddev | HistogramStat::Stdvar);
            let inner = Context { stats: true, buckets: inner.buckets || spread, ..inner };
            let Planned { plan, invariant } = self.vector(arg(call, 0)?, &inner)?;
            return Ok(Planned { plan: VectorPlan::HistogramStat { arg: Box::new(plan), stat }, invariant });
        }
        self.other_call(call, inner)
    }

    fn other_call(&self, call: &Call, inner: Context) -> Result<Planned, QueryError> {
        let name = call.func.name;
        match name {
            "vector" => {
                let (scalar, invariant) = self.scalar(arg(call, 0)?, &inner)?;
                Ok(Planned { plan: VectorPlan::OfScalar(Box::new(scalar)), invariant })
            }
            "timestamp" | "start_timestamp" => self.timestamp(call, &inner),
            "absent" => {
                let expr = arg(call, 0)?;
                let labels = absent_labels(expr);
                let Planned { plan, invariant } = self.vector(expr, &inner)?;
                Ok(Planned { plan: VectorPlan::Absent { arg: Box::new(plan), labels }, invariant })
            }
            "absent_over_time" => {
                let expr = arg(call, 0)?;
                let labels = absent_labels(expr);
                let (arg, invariant, _) = self.range(expr, &inner)?;
                check_extended(&arg, name)?;
                Ok(Planned { plan: VectorPlan::AbsentOverTime { arg, labels }, invariant })
            }
            "histogram_quantile" | "histogram_quantiles" => {
                self.quantiles(call, &Context { buckets: true, ..inner })
            }
            "histogram_fraction" => self.fraction(call, &Context { buckets: true, ..inner }),
            "label_replace" => self.label_replace(call, &inner),
            "label_join" => {
                let destination = text(arg(call, 1)?)?;
                let sources = call.args[3.min(call.args.len())..]
                    .iter()
                    .map(|source| label_name(text(source)?, name, "source"))
                    .collect::<Result<_, _>>()?;
                let destination = label_name(destination, name, "destination")?;
                let separator = text(arg(call, 2)?)?.to_owned();
                let Planned { plan, invariant } = self.vector(arg(call, 0)?, &inner)?;
                let plan = VectorPlan::LabelJoin { arg: Box::new(plan), destination, separator, sources };
                Ok(Planned { plan, invariant })
            }
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => {
                let Planned { plan, invariant } = self.vector(arg(call, 0)?, &inner)?;
                let descending = name.ends_with("_desc");
                let order = if name.starts_with("sort_by_label") {
                    let names = call.args[1..].iter().map(|name| text(name).map(str::to_owned));
                    SortOrder::Labels { names: names.collect::<Result<_, _>>()?, descending }
                } else {
                    SortOrder::Value { descending }
                };
                Ok(Planned { plan: VectorPlan::Sort { arg: Box::new(plan), order }, invariant })
            }
            "info" => self.info(call, &inner),
            name => Err(unsupported(name)),
        }
    }

    fn range_call(&self, call: &Call, function: RangeFn, inner: &Context) -> Result<Planned, QueryError> {
        let range_index = usize::from(function == RangeFn::Quantile);
        let (range, mut invariant, range_span) = self.range(arg(call, range_index)?, inner)?;
        check_extended(&range, call.func.name)?;
        let mut params = Vec::new();
        for index in (0..call.args.len()).filter(|index| *index != range_index) {
            let (param, param_invariant) = self.scalar(arg(call, index)?, &inner.plain())?;
            invariant &= param_invariant;
            params.push(param);
        }
        // Predictions start at the time of evaluation, whatever the window.
        invariant &= function != RangeFn::PredictLinear;
        let span = if range_index == 0 { range_span } else { arg(call, 0)?.span };
        let plan = RangeCall { function, arg: range, params, span };
        Ok(Planned { plan: VectorPlan::Range(Box::new(plan)), invariant })
    }

    fn timestamp(&self, call: &Call, inner: &Context) -> Result<Planned, QueryError> {
        let value = match call.func.name {
            "timestamp" => InstantValue::Time,
            _ => InstantValue::Start,
        };
        let planned = self.unshared(arg(call, 0)?, inner)?;
        // `+x` is an expression: only samples of a selector itself have times of their own.
        let is_selector = matches!(arg(call, 0)?.kind, ExprKind::Vector(_));
        match planned.plan {
            VectorPlan::Selector(selector) if is_selector && !selector.is_smoothed() => {
                let fixed = selector.time.is_fixed();
                let plan = VectorPlan::Selector(Selector { value, ..selector });
                let plan = Planned { plan, invariant: fixed }.wrapped();
                // The value is a float of its own, no longer the metric.
                let plan =
                    VectorPlan::Math { arg: Box::new(plan), function: MathFn::Identity, params: vec![] };
                Ok(Planned::changing(plan))
            }
            plan if value == InstantValue::Time => {
                let arg = Planned { plan, invariant: planned.invariant }.wrapped();
                Ok(Planned::changing(VectorPlan::StepTime { arg: Box::new(arg) }))
            }
            _ => Err(QueryError::bad_data("start_timestamp() takes an instant vector selector only")),
        }
    }

    fn quantiles(&self, call: &Call, inner: &Context) -> Result<Planned, QueryError> {
        let many = call.func.name == "histogram_quantiles";
        let (vector_index, first_quantile) = if many { (0, 2) } else { (1, 0) };
        let label = if many { Some(text(arg(call, 1)?)?.to_owned()) } else { None };
        let expr = arg(call, vector_index)?;
        let vector = self.vector(expr, inner)?;
        let mut invariant = vector.invariant;
        let mut quantiles = Vec::new();
        let last = if many { call.args.len() } else { 1 };
        for index in first_quantile..last {
            let quantile = arg(call, index)?;
            let (plan, quantile_invariant) = self.scalar(quantile, &inner.plain())?;
            invariant &= quantile_invariant;
            quantiles.push((plan, quantile.span));
        }
        let plan = QuantilesPlan {
            arg: if invariant { vector.plan } else { vector.wrapped() },
            arg_span: expr.span,
            quantiles,
            label,
            native_span: arg(call, 0)?.span,
            classic_span: expr.span,
        };
        Ok(Planned { plan: VectorPlan::Quantiles(Box::new(plan)), invariant })
    }

    fn fraction(&self, call: &Call, inner: &Context) -> Result<Planned, QueryError> {
        let (lower, lower_invariant) = self.scalar(arg(call, 0)?, &inner.plain())?;
        let (upper, upper_invariant) = self.scalar(arg(call, 1)?, &inner.plain())?;
        let expr = arg(call, 2)?;
        let vector = self.vector(expr, inner)?;
        let invariant = lower_invariant && upper_invariant && vector.invariant;
        let plan = FractionPlan {
            lower,
            upper,
            arg: if invariant { vector.plan } else { vector.wrapped() },
            arg_span: expr.span,
            first_span: arg(call, 0)?.span,
        };
        Ok(Planned { plan: VectorPlan::Fraction(Box::new(plan)), invariant })
    }

    fn label_replace(&self, call: &Call, inner: &Context) -> Result<Planned, QueryError> {
        let (destination, replacement) = (text(arg(call, 1)?)?, text(arg(call, 2)?)?);
        let (source, pattern) = (text(arg(call, 3)?)?, text(arg(call, 4)?)?);
        let regex = RegexMatcher::new_wrapped_within(pattern, &self.patterns).map_err(|error| {
            QueryError::execution(if error.is_too_large() {
                format!("label_replace(): {error}")
            } else {
                format!("invalid regular expression in label_replace(): {pattern}")
            })
        })?;
        let Planned { plan, invariant } = self.vector(arg(call, 0)?, inner)?;
        let plan = LabelReplacePlan {
            arg: plan,
            destination: label_name(destination, "label_replace", "destination")?,
            replacement: replacement.to_owned(),
            source: source.to_owned(),
            regex,
        };
        Ok(Planned { plan: VectorPlan::LabelReplace(Box::new(plan)), invariant })
    }

    fn info(&self, call: &Call, inner: &Context) -> Result<Planned, QueryError> {
        let expr = arg(call, 0)?;
        let vector = self.vector(expr, inner)?;
        let matchers = match call.args.get(1).map(without_parens) {
            None => vec![Matcher::equal(METRIC_NAME, "target_info")],
            Some(Expr { kind: ExprKind::Vector(selector), .. }) => selector.matchers.clone(),
            Some(_) => {
                return Err(QueryError::bad_data(
                    "expected label selectors as the second argument to info function",
                ));
            }
        };
        let time = match first_selector(expr) {
            Some(selector) => self.time(&selector.time)?,
            None => TimeRef::default(),
        };
        let invariant = vector.invariant && time.is_fixed();
        let arg = if invariant { vector.plan } else { vector.wrapped() };
        Ok(Planned { plan: VectorPlan::Info(Box::new(InfoPlan { arg, matchers, time })), invariant })
    }
}

fn unsupported(name: &str) -> QueryError {
    QueryError::execution(format!("function \"{name}\" is not supported yet"))
}

fn check_extended(range: &RangePlan, function: &str) -> Result<(), QueryError> {
    let (modifier, functions): (_, &[&str]) = match range.extended() {
        None => return Ok(()),
        Some(ExtendedRange::Anchored) => ("anchored", &ANCHORED_FUNCTIONS),
        Some(ExtendedRange::Smoothed) => ("smoothed", &SMOOTHED_FUNCTIONS),
    };
    if functions.contains(&function) {
        return Ok(());
    }
    Err(QueryError::execution(format!(
        "{modifier} modifier can only be used with: {} - not with {function}",
        functions.join(", ")
    )))
}

/// The labels of what `absent` finds missing: those that the selector fixes by equality, each once.
fn absent_labels(expr: &Expr) -> Labels {
    let matchers = match &without_parens(expr).kind {
        ExprKind::Vector(vector) => &vector.matchers,
        ExprKind::Matrix(matrix) => &matrix.vector.matchers,
        _ => return Labels::empty(),
    };
    let mut labels = LabelsBuilder::new();
    let mut seen = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
        if matcher.op == MatchOp::Equal && !seen.contains(&&matcher.name) {
            labels.set(&*matcher.name, &*matcher.value);
            seen.push(&matcher.name);
        } else {
            labels.remove(&matcher.name);
        }
    }
    labels.build()
}

/// The first instant or range selector in order of text.
fn first_selector(expr: &Expr) -> Option<&VectorSelector> {
    match &expr.kind {
        ExprKind::Vector(vector) => Some(vector),
        ExprKind::Matrix(matrix) => Some(&matrix.vector),
        ExprKind::Paren(inner) => first_selector(inner),
        ExprKind::Unary(unary) => first_selector(&unary.expr),
        ExprKind::Subquery(subquery) => first_selector(&subquery.expr),
        ExprKind::Aggregate(aggregate) => first_selector(&aggregate.expr),
        ExprKind::Binary(binary) => first_selector(&binary.lhs).or_else(|| first_selector(&binary.rhs)),
        ExprKind::Call(call) => call.args.iter().find_map(first_selector),
        ExprKind::Number(_) | ExprKind::String(_) => None,
    }
}
