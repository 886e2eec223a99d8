//! Functions, one value or window at a time.

use std::collections::BTreeMap;

use model::regex::RegexMatcher;
use model::{Labels, MatchOp, Matcher};
use query::ast::{Call, Expr, ExprKind, ValueType};
use query::parse::value_type;

use super::{Failure, Reference, Vector, greatest, least, quantile, same_name_dropped, unique, variance};

fn text(expr: &Expr) -> &str {
    match &expr.kind {
        ExprKind::String(text) => text,
        _ => panic!("a text: {expr:?}"),
    }
}

impl Reference<'_> {
    pub(super) fn call(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let name = call.func.name;
        match name {
            "vector" => return Ok([(Labels::empty(), self.scalar(&call.args[0], t)?)].into()),
            "timestamp" => {
                if let ExprKind::Vector(selector) = &call.args[0].kind {
                    let found = self.instant(selector, t).into_iter();
                    return unique(found.map(|(l, (at, _))| (same_name_dropped(&l), at as f64 / 1000.0)));
                }
                let found = self.vector(&call.args[0], t)?.into_keys();
                return unique(found.map(|l| (same_name_dropped(&l), t as f64 / 1000.0)));
            }
            "absent" => {
                let matchers = match &call.args[0].kind {
                    ExprKind::Vector(selector) => &selector.matchers[..],
                    _ => &[],
                };
                let there = !self.vector(&call.args[0], t)?.is_empty();
                return Ok(if there { Vector::new() } else { [(labels_of(matchers), 1.0)].into() });
            }
            "absent_over_time" => {
                let matchers = match &call.args[0].kind {
                    ExprKind::Matrix(matrix) => &matrix.vector.matchers[..],
                    _ => &[],
                };
                let there = self.windows(&call.args[0], t)?.iter().any(|window| !window.1.is_empty());
                return Ok(if there { Vector::new() } else { [(labels_of(matchers), 1.0)].into() });
            }
            // The order of a range query's result is that of its labels.
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => {
                return self.vector(&call.args[0], t);
            }
            "label_join" => {
                let (into, separator) = (text(&call.args[1]), text(&call.args[2]));
                let joined = |labels: &Labels| {
                    let values: Vec<&str> =
                        call.args[3..].iter().map(|arg| labels.value(text(arg))).collect();
                    labels.with(into, &values.join(separator))
                };
                return unique(self.vector(&call.args[0], t)?.into_iter().map(|(l, v)| (joined(&l), v)));
            }
            "label_replace" => {
                let [into, to, from, pattern] = [1, 2, 3, 4].map(|arg| text(&call.args[arg]));
                let pattern = RegexMatcher::new_wrapped(pattern).expect("a regular expression");
                let replaced = |labels: &Labels| match pattern.replace(labels.value(from), to) {
                    Some(value) => labels.with(into, &value),
                    None => labels.clone(),
                };
                return unique(self.vector(&call.args[0], t)?.into_iter().map(|(l, v)| (replaced(&l), v)));
            }
            "histogram_quantile" => return self.histogram_quantile(call, t),
            _ => {}
        }
        if call.args.iter().any(|arg| value_type(arg) == ValueType::Matrix) {
            return self.over_windows(call, t);
        }
        let params = call.args[1..].iter().map(|arg| self.scalar(arg, t));
        let params = params.collect::<Result<Vec<f64>, _>>()?;
        if name == "clamp" && params[0] > params[1] {
            return Ok(Vector::new());
        }
        let inner = self.vector(&call.args[0], t)?;
        unique(inner.into_iter().map(|(l, v)| (same_name_dropped(&l), of_value(name, v, &params))))
    }

    /// Of classic histograms.
    fn histogram_quantile(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let q = self.scalar(&call.args[0], t)?;
        let mut histograms: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for (labels, count) in self.vector(&call.args[1], t)? {
            let Ok(bound) = labels.value("le").parse::<f64>() else { continue };
            let key = same_name_dropped(&labels).without(&["le".to_owned()]);
            histograms.entry(key).or_default().push((bound, count));
        }
        Ok(histograms.into_iter().map(|(labels, buckets)| (labels, bucket_quantile(q, buckets))).collect())
    }
}

fn bucket_quantile(q: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut merged: Vec<(f64, f64)> = Vec::new();
    for (bound, count) in buckets {
        match merged.last_mut() {
            Some(last) if last.0 == bound => last.1 += count,
            _ => merged.push((bound, count)),
        }
    }
    for index in 1..merged.len() {
        merged[index].1 = merged[index].1.max(merged[index - 1].1);
    }
    let Some(&(bound, total)) = merged.last() else { return f64::NAN };
    if bound != f64::INFINITY || merged.len() < 2 || total == 0.0 || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let rank = q * total;
    let finite = merged.len() - 1;
    let bucket = merged[..finite].iter().position(|(_, count)| *count >= rank).unwrap_or(finite);
    if bucket == finite {
        return merged[finite - 1].0;
    }
    let (upper, count) = merged[bucket];
    let (lower, below) = match bucket {
        0 if upper <= 0.0 => return upper,
        0 => (0.0, 0.0),
        _ => merged[bucket - 1],
    };
    lower + (upper - lower) * ((rank - below) / (count - below))
}

/// What a selector's matchers say about series that are not there.
fn labels_of(matchers: &[Matcher]) -> Labels {
    let fixed = matchers.iter().filter(|m| m.op == MatchOp::Equal && m.name != "__name__");
    let alone = fixed.filter(|m| matchers.iter().filter(|other| other.name == m.name).count() == 1);
    alone.fold(Labels::empty(), |labels, m| labels.with(&m.name, &m.value))
}

fn of_value(name: &str, v: f64, params: &[f64]) -> f64 {
    let clamp_min = |v: f64, least: f64| if v.is_nan() || least.is_nan() { f64::NAN } else { v.max(least) };
    let clamp_max = |v: f64, most: f64| if v.is_nan() || most.is_nan() { f64::NAN } else { v.min(most) };
    match name {
        "abs" => v.abs(),
        "ceil" => v.ceil(),
        "floor" => v.floor(),
        "sgn" if v.is_nan() => v,
        "sgn" if v == 0.0 => 0.0,
        "sgn" => v.signum(),
        "sqrt" => v.sqrt(),
        "ln" => v.ln(),
        "exp" => v.exp(),
        "atan" => v.atan(),
        "tanh" => v.tanh(),
        "deg" => v.to_degrees(),
        "rad" => v.to_radians(),
        "round" => {
            let to = params.first().copied().unwrap_or(1.0);
            let inverse = 1.0 / to;
            (v * inverse + 0.5).floor() / inverse
        }
        "clamp" => clamp_min(clamp_max(v, params[1]), params[0]),
        "clamp_min" => clamp_min(v, params[0]),
        "clamp_max" => clamp_max(v, params[0]),
        "minute" => v.div_euclid(60.0).rem_euclid(60.0),
        "hour" => v.div_euclid(3600.0).rem_euclid(24.0),
        "day_of_week" => (v.div_euclid(86_400.0) + 4.0).rem_euclid(7.0),
        _ => panic!("not covered by the reference: {name}"),
    }
}

/// A function of one window; `None`: no value.
pub(super) fn over_window(
    name: &str,
    samples: &[(i64, f64)],
    start: i64,
    end: i64,
    t: i64,
    params: &[f64],
) -> Option<f64> {
    let param = params.first().copied().unwrap_or(0.0);
    let values: Vec<f64> = samples.iter().map(|(_, v)| *v).collect();
    let (first, last) = (*samples.first()?, *samples.last()?);
    let pairs = || values.windows(2).map(|pair| (pair[0], pair[1]));
    Some(match name {
        "count_over_time" => values.len() as f64,
        "present_over_time" => 1.0,
        "sum_over_time" => values.iter().sum(),
        "avg_over_time" => values.iter().sum::<f64>() / values.len() as f64,
        "min_over_time" => least(&values),
        "max_over_time" => greatest(&values),
        "last_over_time" => last.1,
        "first_over_time" => first.1,
        "stddev_over_time" => variance(&values).sqrt(),
        "stdvar_over_time" => variance(&values),
        "quantile_over_time" => quantile(param, values),
        "ts_of_first_over_time" => first.0 as f64 / 1000.0,
        "ts_of_last_over_time" => last.0 as f64 / 1000.0,
        "ts_of_min_over_time" | "ts_of_max_over_time" => {
            let best = if name == "ts_of_min_over_time" { least(&values) } else { greatest(&values) };
            // The newest of equal ones; of nothing but NaN, the last.
            let newest = samples.iter().rev().find(|(_, v)| *v == best).unwrap_or(&last);
            newest.0 as f64 / 1000.0
        }
        "double_exponential_smoothing" => {
            let [factor, trend_factor] = params else { return None };
            let [first, second, rest @ ..] = &values[..] else { return None };
            let (mut level, mut trend) = (*first, second - first);
            for value in [second].into_iter().chain(rest) {
                let before = level;
                level = factor * value + (1.0 - factor) * (level + trend);
                trend = trend_factor * (level - before) + (1.0 - trend_factor) * trend;
            }
            level
        }
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
