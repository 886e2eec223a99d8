//! A slow, plain evaluator of core PromQL: step by step, window by window, straight from the definitions. Nothing is
//! shared with the engine but the syntax tree.

use std::collections::BTreeMap;

use model::{Labels, Matcher, is_stale_nan};
use query::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, DurationExpr, DurationKind, Expr,
    ExprKind, TimeModifiers, VectorSelector,
};

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

/// Why there is no value: the engine must fail too.
#[derive(Debug)]
pub(crate) struct Failure;

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
            ExprKind::Vector(selector) => {
                let at = self.look_at(&selector.time, t);
                let mut out = Vector::new();
                for (labels, samples) in self.selected(selector) {
                    let newest = samples.iter().rev().find(|(time, _)| *time <= at);
                    if let Some((time, value)) = newest
                        && *time > at - LOOKBACK_MS
                        && !is_stale_nan(*value)
                    {
                        out.insert(labels.clone(), *value);
                    }
                }
                Ok(out)
            }
            ExprKind::Call(call) => self.call(call, t),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, t),
            ExprKind::Binary(binary) => self.binary(binary, t),
            ExprKind::Unary(unary) if unary.negative => {
                unique(self.vector(&unary.expr, t)?.into_iter().map(|(l, v)| (same_name_dropped(&l), -v)))
            }
            _ => panic!("not covered by the reference: {expr:?}"),
        }
    }

    fn number(expr: &Expr) -> f64 {
        match &expr.kind {
            ExprKind::Number(number) => number.value,
            ExprKind::Paren(inner) => Self::number(inner),
            ExprKind::Unary(unary) if unary.negative => -Self::number(&unary.expr),
            _ => panic!("scalars are numbers here"),
        }
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

    fn call(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let name = call.func.name;
        let (range, param) = match name {
            "quantile_over_time" => (&call.args[1], Self::number(&call.args[0])),
            "predict_linear" => (&call.args[0], Self::number(&call.args[1])),
            "abs" => {
                let inner = self.vector(&call.args[0], t)?;
                return unique(inner.into_iter().map(|(l, v)| (same_name_dropped(&l), v.abs())));
            }
            _ => (&call.args[0], 0.0),
        };
        let mut out = Vec::new();
        for (labels, samples, start, end) in self.windows(range, t)? {
            if let Some(value) = over_window(name, &samples, start, end, t, param) {
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
        let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
        for (labels, value) in input {
            let key = if aggregate.without {
                labels.without(&aggregate.grouping).without_name()
            } else {
                labels.only(&aggregate.grouping)
            };
            groups.entry(key).or_default().push(value);
        }
        let param = aggregate.param.as_deref().map_or(0.0, Self::number);
        let fold = |values: Vec<f64>| match aggregate.op {
            AggregateOp::Sum => values.iter().sum(),
            AggregateOp::Avg => values.iter().sum::<f64>() / values.len() as f64,
            AggregateOp::Min => least(&values),
            AggregateOp::Max => -least(&values.iter().map(|v| -v).collect::<Vec<_>>()),
            AggregateOp::Count => values.len() as f64,
            AggregateOp::Group => 1.0,
            AggregateOp::Stddev => variance(&values).sqrt(),
            AggregateOp::Stdvar => variance(&values),
            AggregateOp::Quantile => quantile(param, values),
            op => panic!("not covered by the reference: {op}"),
        };
        Ok(groups.into_iter().map(|(labels, values)| (labels, fold(values))).collect())
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
        if left.is_empty() || right.is_empty() {
            return Ok(Vector::new());
        }
        let swapped = matching.card == Cardinality::OneToMany;
        let (many, one) = if swapped { (&right, &left) } else { (&left, &right) };
        let mut by_key: BTreeMap<Labels, (&Labels, f64)> = BTreeMap::new();
        for (labels, value) in one {
            if by_key.insert(key(labels), (labels, *value)).is_some() {
                return Err(Failure);
            }
        }
        let mut matched = Vec::new();
        let mut out = Vec::new();
        for (labels, value) in many {
            let Some((other_labels, other)) = by_key.get(&key(labels)) else { continue };
            let (a, b) = if swapped { (*other, *value) } else { (*value, *other) };
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
            let unique_by = if matching.card == Cardinality::OneToOne { key(labels) } else { result.clone() };
            if matched.contains(&(key(labels), unique_by.clone())) {
                return Err(Failure);
            }
            matched.push((key(labels), unique_by));
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
        let number_left = matches!(&binary.lhs.kind, ExprKind::Number(_));
        let (vector, number) =
            if number_left { (&binary.rhs, &binary.lhs) } else { (&binary.lhs, &binary.rhs) };
        let number = Self::number(number);
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
            return Err(Failure);
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
        BinaryOp::Eq => Operated::Holds(a == b),
        BinaryOp::NotEq => Operated::Holds(a != b),
        BinaryOp::Less => Operated::Holds(a < b),
        BinaryOp::LessEq => Operated::Holds(a <= b),
        BinaryOp::Greater => Operated::Holds(a > b),
        BinaryOp::GreaterEq => Operated::Holds(a >= b),
        op => panic!("not covered by the reference: {op}"),
    }
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

fn over_window(name: &str, samples: &[(i64, f64)], start: i64, end: i64, t: i64, param: f64) -> Option<f64> {
    let values: Vec<f64> = samples.iter().map(|(_, v)| *v).collect();
    let (first, last) = (*samples.first()?, *samples.last()?);
    let pairs = || values.windows(2).map(|pair| (pair[0], pair[1]));
    Some(match name {
        "count_over_time" => values.len() as f64,
        "present_over_time" => 1.0,
        "sum_over_time" => values.iter().sum(),
        "avg_over_time" => values.iter().sum::<f64>() / values.len() as f64,
        "min_over_time" => least(&values),
        "max_over_time" => -least(&values.iter().map(|v| -v).collect::<Vec<_>>()),
        "last_over_time" => last.1,
        "first_over_time" => first.1,
        "stddev_over_time" => variance(&values).sqrt(),
        "stdvar_over_time" => variance(&values),
        "quantile_over_time" => quantile(param, values),
        "mad_over_time" => {
            let median = quantile(0.5, values.clone());
            quantile(0.5, values.iter().map(|v| (v - median).abs()).collect())
        }
        "changes" => pairs().filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as f64,
        "resets" => pairs().filter(|(a, b)| b < a).count() as f64,
        "irate" | "idelta" => {
            let [.., before, last] = samples else { return None };
            let seconds = (last.0 - before.0) as f64 / 1000.0;
            match name {
                "irate" if last.1 < before.1 => last.1 / seconds,
                "irate" => (last.1 - before.1) / seconds,
                _ => last.1 - before.1,
            }
        }
        "rate" | "increase" | "delta" => {
            if samples.len() < 2 {
                return None;
            }
            let counter = name != "delta";
            let mut increase = last.1 - first.1;
            if counter {
                increase += pairs().filter(|(a, b)| b < a).map(|(a, _)| a).sum::<f64>();
            }
            let sampled = (last.0 - first.0) as f64 / 1000.0;
            let gap = sampled / (samples.len() - 1) as f64;
            let mut before = (first.0 - start) as f64 / 1000.0;
            let mut after = (end - last.0) as f64 / 1000.0;
            if before >= gap * 1.1 {
                before = gap / 2.0;
            }
            if counter && increase > 0.0 && first.1 >= 0.0 {
                before = before.min(sampled * (first.1 / increase));
            }
            if after >= gap * 1.1 {
                after = gap / 2.0;
            }
            let total = increase * ((sampled + before + after) / sampled);
            if name == "rate" { total / ((end - start) as f64 / 1000.0) } else { total }
        }
        "deriv" | "predict_linear" => {
            if samples.len() < 2 {
                return None;
            }
            let origin = if name == "deriv" { first.0 } else { t };
            if values.iter().all(|v| *v == values[0]) {
                let level = values[0];
                return Some(if level.is_infinite() {
                    f64::NAN
                } else if name == "deriv" {
                    0.0
                } else {
                    level
                });
            }
            let n = values.len() as f64;
            let xs: Vec<f64> = samples.iter().map(|(t, _)| (t - origin) as f64 / 1000.0).collect();
            let (mx, my) = (xs.iter().sum::<f64>() / n, values.iter().sum::<f64>() / n);
            // What infinities give depends on the formula: that of plain sums, then.
            let finite = values.iter().all(|v| v.is_finite());
            let centred = |v: f64, mean: f64| if finite { v - mean } else { v };
            let sxy: f64 = xs.iter().zip(&values).map(|(x, y)| centred(*x, mx) * centred(*y, my)).sum();
            let sxx: f64 = xs.iter().map(|x| centred(*x, mx) * centred(*x, mx)).sum();
            let slope = if finite { sxy / sxx } else { (sxy - n * mx * my) / (sxx - n * mx * mx) };
            if name == "deriv" { slope } else { slope * param + (my - slope * mx) }
        }
        _ => panic!("not covered by the reference: {name}"),
    })
}
