//! A slow, plain evaluator of PromQL on floats: step by step, window by window, straight from the definitions. Nothing is
//! shared with the engine but the syntax tree. Durations are literals; what a query may choose freely is [`Failure::Unclear`].

mod functions;

use std::collections::BTreeMap;

use model::{Labels, Matcher, is_stale_nan};
use query::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, DurationExpr, DurationKind, Expr,
    ExprKind, TimeModifiers, ValueType, VectorSelector,
};
use query::parse::value_type;

/// Raw series: samples in order of time.
pub(crate) type Data = BTreeMap<Labels, Vec<(i64, f64)>>;
/// Value per series at one time.
pub(crate) type Vector = BTreeMap<Labels, f64>;

const LOOKBACK_MS: i64 = 300_000;
const SUBQUERY_STEP_MS: i64 = 60_000;

/// What a query is evaluated on.
pub(crate) struct Reference<'a> {
    pub(crate) data: &'a Data,
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// A series' samples in a window, with the window's ends.
type Window = (Labels, Vec<(i64, f64)>, i64, i64);

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The engine must fail too.
    Fails,
    /// More than one answer is right.
    Unclear,
}

fn milliseconds(expr: &DurationExpr) -> i64 {
    match expr.kind {
        DurationKind::Literal { seconds, .. } => (seconds * 1000.0).round() as i64,
        _ => panic!("durations are literals here"),
    }
}

fn same_name_dropped(labels: &Labels) -> Labels {
    labels.without_name()
}

impl Reference<'_> {
    fn look_at(&self, time: &TimeModifiers, t: i64) -> i64 {
        let t = match time.at {
            None => t,
            Some(At::Time(at)) => at,
            Some(At::Start) => self.start,
            Some(At::End) => self.end,
        };
        t - time.offset.as_ref().map_or(0, milliseconds)
    }

    fn selected<'a>(
        &'a self,
        selector: &'a VectorSelector,
    ) -> impl Iterator<Item = (&'a Labels, &'a [(i64, f64)])> {
        self.data
            .iter()
            .filter(|(labels, _)| Matcher::all_match(&selector.matchers, labels))
            .map(|(labels, samples)| (labels, &samples[..]))
    }

    /// The value of a vector expression at `t`.
    pub(crate) fn vector(&self, expr: &Expr, t: i64) -> Result<Vector, Failure> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.vector(inner, t),
            ExprKind::Vector(selector) => Ok(self
                .instant(selector, t)
                .into_iter()
                .map(|(labels, (_, value))| (labels, value))
                .collect()),
            ExprKind::Call(call) => self.call(call, t),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, t),
            ExprKind::Binary(binary) => self.binary(binary, t),
            ExprKind::Unary(unary) if unary.negative => {
                unique(self.vector(&unary.expr, t)?.into_iter().map(|(l, v)| (same_name_dropped(&l), -v)))
            }
            ExprKind::Unary(unary) => self.vector(&unary.expr, t),
            _ => panic!("not covered by the reference: {expr:?}"),
        }
    }

    /// The newest samples of a selector, with their times.
    fn instant(&self, selector: &VectorSelector, t: i64) -> BTreeMap<Labels, (i64, f64)> {
        let at = self.look_at(&selector.time, t);
        let newest = |samples: &[(i64, f64)]| {
            let newest = *samples.iter().rev().find(|(time, _)| *time <= at)?;
            (newest.0 > at - LOOKBACK_MS && !is_stale_nan(newest.1)).then_some(newest)
        };
        let series = self.selected(selector);
        series.filter_map(|(labels, samples)| Some((labels.clone(), newest(samples)?))).collect()
    }

    /// The value of a scalar expression at `t`.
    fn scalar(&self, expr: &Expr, t: i64) -> Result<f64, Failure> {
        Ok(match &expr.kind {
            ExprKind::Number(number) => number.value,
            ExprKind::Paren(inner) => self.scalar(inner, t)?,
            ExprKind::Unary(unary) if unary.negative => -self.scalar(&unary.expr, t)?,
            ExprKind::Unary(unary) => self.scalar(&unary.expr, t)?,
            ExprKind::Binary(binary) => {
                match operate(binary.op, self.scalar(&binary.lhs, t)?, self.scalar(&binary.rhs, t)?) {
                    Operated::Number(value) => value,
                    Operated::Holds(holds) => f64::from(u8::from(holds)),
                }
            }
            ExprKind::Call(call) if call.func.name == "time" => t as f64 / 1000.0,
            ExprKind::Call(call) if call.func.name == "pi" => std::f64::consts::PI,
            ExprKind::Call(call) if call.func.name == "scalar" => {
                let vector = self.vector(&call.args[0], t)?;
                match vector.values().collect::<Vec<_>>()[..] {
                    [only] => *only,
                    _ => f64::NAN,
                }
            }
            _ => panic!("not covered by the reference: {expr:?}"),
        })
    }

    /// Windows of samples, with their ends.
    fn windows(&self, expr: &Expr, t: i64) -> Result<Vec<Window>, Failure> {
        match &expr.kind {
            ExprKind::Matrix(matrix) => {
                let end = self.look_at(&matrix.vector.time, t);
                let start = end - milliseconds(&matrix.range);
                let within = |samples: &[(i64, f64)]| {
                    let kept = samples.iter().filter(|(t, v)| *t > start && *t <= end && !is_stale_nan(*v));
                    kept.copied().collect::<Vec<_>>()
                };
                let all = self.selected(&matrix.vector);
                Ok(all.map(|(labels, samples)| (labels.clone(), within(samples), start, end)).collect())
            }
            ExprKind::Subquery(subquery) => {
                let end = self.look_at(&subquery.time, t);
                let start = end - milliseconds(&subquery.range);
                let step = subquery.step.as_ref().map_or(SUBQUERY_STEP_MS, milliseconds);
                let mut series: BTreeMap<Labels, Vec<(i64, f64)>> = BTreeMap::new();
                let first = (start.div_euclid(step) + 1) * step;
                for at in (0..).map(|i| first + i * step).take_while(|at| *at <= end) {
                    for (labels, value) in self.vector(&subquery.expr, at)? {
                        series.entry(labels).or_default().push((at, value));
                    }
                }
                Ok(series.into_iter().map(|(labels, samples)| (labels, samples, start, end)).collect())
            }
            _ => panic!("not a range vector: {expr:?}"),
        }
    }

    /// A function of windows.
    fn over_windows(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let name = call.func.name;
        let is_range = |arg: &&Expr| matches!(arg.kind, ExprKind::Matrix(_) | ExprKind::Subquery(_));
        let range = call.args.iter().find(is_range).expect("a range vector");
        let params = call.args.iter().filter(|arg| !is_range(arg));
        let params = params.map(|arg| self.scalar(arg, t)).collect::<Result<Vec<f64>, _>>()?;
        let mut out = Vec::new();
        for (labels, samples, start, end) in self.windows(range, t)? {
            if let Some(value) = functions::over_window(name, &samples, start, end, t, &params) {
                let labels = if matches!(name, "last_over_time" | "first_over_time") {
                    labels
                } else {
                    same_name_dropped(&labels)
                };
                out.push((labels, value));
            }
        }
        unique(out)
    }

    fn aggregate(&self, aggregate: &Aggregate, t: i64) -> Result<Vector, Failure> {
        let input = self.vector(&aggregate.expr, t)?;
        let mut groups: BTreeMap<Labels, Vector> = BTreeMap::new();
        for (labels, value) in input {
            let key = if aggregate.without {
                labels.without(&aggregate.grouping).without_name()
            } else {
                labels.only(&aggregate.grouping)
            };
            groups.entry(key).or_default().insert(labels, value);
        }
        let text = match aggregate.param.as_deref().map(|param| &param.kind) {
            Some(ExprKind::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let param = match (&aggregate.param, text) {
            (Some(param), None) => self.scalar(param, t)?,
            _ => 0.0,
        };
        match aggregate.op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
                let mut out = Vector::new();
                for members in groups.into_values() {
                    out.extend(chosen(aggregate.op, param, members)?);
                }
                return Ok(out);
            }
            AggregateOp::CountValues => {
                let label = text.expect("the parameter of count_values is a text");
                let mut counts = Vector::new();
                for (key, members) in groups {
                    for value in members.into_values() {
                        *counts.entry(key.with(label, &value.to_string())).or_default() += 1.0;
                    }
                }
                return Ok(counts);
            }
            _ => {}
        }
        let fold = |values: Vec<f64>| match aggregate.op {
            AggregateOp::Sum => values.iter().sum(),
            AggregateOp::Avg => values.iter().sum::<f64>() / values.len() as f64,
            AggregateOp::Min => least(&values),
            AggregateOp::Max => greatest(&values),
            AggregateOp::Count => values.len() as f64,
            AggregateOp::Group => 1.0,
            AggregateOp::Stddev => variance(&values).sqrt(),
            AggregateOp::Stdvar => variance(&values),
            AggregateOp::Quantile => quantile(param, values),
            op => panic!("not covered by the reference: {op}"),
        };
        let fold = |(labels, members): (Labels, Vector)| (labels, fold(members.into_values().collect()));
        Ok(groups.into_iter().map(fold).collect())
    }

    fn binary(&self, binary: &Binary, t: i64) -> Result<Vector, Failure> {
        let Some(matching) = &binary.matching else {
            return self.with_number(binary, t);
        };
        let (left, right) = (self.vector(&binary.lhs, t)?, self.vector(&binary.rhs, t)?);
        let key = |labels: &Labels| {
            if matching.on {
                labels.only(&matching.labels)
            } else {
                labels.without(&matching.labels).without_name()
            }
        };
        let has = |side: &Vector, labels: &Labels| side.keys().any(|other| key(other) == key(labels));
        match binary.op {
            BinaryOp::And => return Ok(left.into_iter().filter(|(l, _)| has(&right, l)).collect()),
            BinaryOp::Unless => return Ok(left.into_iter().filter(|(l, _)| !has(&right, l)).collect()),
            BinaryOp::Or => {
                let extra: Vector = right.into_iter().filter(|(l, _)| !has(&left, l)).collect();
                return Ok(left.into_iter().chain(extra).collect());
            }
            _ => {}
        }
        let fills = (matching.fill.lhs, matching.fill.rhs);
        if (left.is_empty() && right.is_empty())
            || ((left.is_empty() || right.is_empty()) && fills == (None, None))
        {
            return Ok(Vector::new());
        }
        // With group_right the sides are swapped, but not what stands in for them.
        let swapped = matching.card == Cardinality::OneToMany;
        let (many, one) = if swapped { (&right, &left) } else { (&left, &right) };
        let mut by_key: BTreeMap<Labels, (&Labels, f64)> = BTreeMap::new();
        for (labels, value) in one {
            if by_key.insert(key(labels), (labels, *value)).is_some() {
                return Err(Failure::Fails);
            }
        }
        let mut pairs: Vec<(Labels, f64, Labels, f64)> = Vec::new();
        for (labels, value) in many {
            match (by_key.get(&key(labels)), fills.1) {
                (Some((other_labels, other)), _) => {
                    pairs.push((labels.clone(), *value, (*other_labels).clone(), *other));
                }
                (None, Some(fill)) => pairs.push((labels.clone(), *value, key(labels), fill)),
                (None, None) => {}
            }
        }
        if let Some(fill) = fills.0 {
            let matched: Vec<Labels> = many.keys().map(key).collect();
            let missing = one.iter().filter(|(labels, _)| !matched.contains(&key(labels)));
            pairs.extend(missing.map(|(labels, value)| (key(labels), fill, labels.clone(), *value)));
        }
        let mut matched = Vec::new();
        let mut out = Vec::new();
        for (labels, value, other_labels, other) in pairs {
            let (a, b) = if swapped { (other, value) } else { (value, other) };
            let arithmetic = !binary.op.is_comparison();
            let mut result = labels.clone();
            if arithmetic || binary.return_bool {
                result = same_name_dropped(&result);
            }
            if matching.card == Cardinality::OneToOne {
                result = if matching.on {
                    result.only(&matching.labels)
                } else {
                    result.without(&matching.labels)
                };
            }
            for name in &matching.include {
                result = result.with(name, other_labels.value(name));
            }
            let unique_by =
                if matching.card == Cardinality::OneToOne { key(&labels) } else { result.clone() };
            if matched.contains(&(key(&labels), unique_by.clone())) {
                return Err(Failure::Fails);
            }
            matched.push((key(&labels), unique_by));
            match operate(binary.op, a, b) {
                Operated::Number(value) => out.push((result, value)),
                Operated::Holds(holds) if binary.return_bool => {
                    out.push((result, f64::from(u8::from(holds))))
                }
                Operated::Holds(true) => out.push((result, a)),
                Operated::Holds(false) => {}
            }
        }
        unique(out)
    }

    fn with_number(&self, binary: &Binary, t: i64) -> Result<Vector, Failure> {
        let number_left = value_type(&binary.lhs) == ValueType::Scalar;
        let (vector, number) =
            if number_left { (&binary.rhs, &binary.lhs) } else { (&binary.lhs, &binary.rhs) };
        let number = self.scalar(number, t)?;
        let mut out = Vec::new();
        for (labels, value) in self.vector(vector, t)? {
            let (a, b) = if number_left { (number, value) } else { (value, number) };
            match operate(binary.op, a, b) {
                Operated::Number(result) => out.push((same_name_dropped(&labels), result)),
                Operated::Holds(holds) if binary.return_bool => {
                    out.push((same_name_dropped(&labels), f64::from(u8::from(holds))));
                }
                Operated::Holds(true) => out.push((labels, value)),
                Operated::Holds(false) => {}
            }
        }
        unique(out)
    }
}

fn unique(items: impl IntoIterator<Item = (Labels, f64)>) -> Result<Vector, Failure> {
    let mut out = Vector::new();
    for (labels, value) in items {
        if out.insert(labels, value).is_some() {
            return Err(Failure::Fails);
        }
    }
    Ok(out)
}

enum Operated {
    Number(f64),
    Holds(bool),
}

fn operate(op: BinaryOp, a: f64, b: f64) -> Operated {
    match op {
        BinaryOp::Add => Operated::Number(a + b),
        BinaryOp::Sub => Operated::Number(a - b),
        BinaryOp::Mul => Operated::Number(a * b),
        BinaryOp::Div => Operated::Number(a / b),
        BinaryOp::Mod => Operated::Number(a % b),
        BinaryOp::Pow => Operated::Number(a.powf(b)),
        BinaryOp::Atan2 => Operated::Number(a.atan2(b)),
        BinaryOp::Eq => Operated::Holds(a == b),
        BinaryOp::NotEq => Operated::Holds(a != b),
        BinaryOp::Less => Operated::Holds(a < b),
        BinaryOp::LessEq => Operated::Holds(a <= b),
        BinaryOp::Greater => Operated::Holds(a > b),
        BinaryOp::GreaterEq => Operated::Holds(a >= b),
        op => panic!("not covered by the reference: {op}"),
    }
}

/// The series that `topk`, `bottomk` or `limitk` take of a group.
fn chosen(op: AggregateOp, k: f64, members: Vector) -> Result<Vector, Failure> {
    let k = k.max(0.0) as usize;
    if op == AggregateOp::Limitk {
        return Ok(members.into_iter().take(k).collect());
    }
    // NaN comes last, whatever is asked for.
    let rank = |value: f64| if op == AggregateOp::Topk { -value } else { value };
    let mut members: Vec<(Labels, f64)> = members.into_iter().collect();
    members.sort_by(|a, b| {
        let nan = a.1.is_nan().cmp(&b.1.is_nan());
        nan.then(rank(a.1).partial_cmp(&rank(b.1)).unwrap_or(std::cmp::Ordering::Equal))
    });
    if 0 < k && k < members.len() {
        let (last, next) = (members[k - 1].1, members[k].1);
        if last == next || (last.is_nan() && next.is_nan()) {
            return Err(Failure::Unclear);
        }
    }
    Ok(members.into_iter().take(k).collect())
}

fn greatest(values: &[f64]) -> f64 {
    -least(&values.iter().map(|v| -v).collect::<Vec<_>>())
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().filter(|v| !v.is_nan()).reduce(f64::min).unwrap_or(f64::NAN)
}

fn variance(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64
}

fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    values.sort_by(|a, b| {
        b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
    });
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}
