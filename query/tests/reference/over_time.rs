//! Functions of one window.

use model::histogram::CounterResetHint;
use query::ast::{Call, Expr, ExprKind};

use super::notes::place;
use super::{Failure, Hist, Reference, Value, Vector, Window, unique, without_name};

pub(super) fn greatest(values: &[f64]) -> f64 {
    -least(&values.iter().map(|v| -v).collect::<Vec<_>>())
}

pub(super) fn least(values: &[f64]) -> f64 {
    values.iter().copied().filter(|v| !v.is_nan()).reduce(f64::min).unwrap_or(f64::NAN)
}

pub(super) fn variance(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64
}

pub(super) fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if q.is_nan() {
        return q;
    }
    if !(0.0..=1.0).contains(&q) {
        return q.signum() * f64::INFINITY;
    }
    values.sort_by(|a, b| {
        b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
    });
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

fn is_range(arg: &Expr) -> bool {
    match &arg.kind {
        ExprKind::Paren(inner) => is_range(inner),
        kind => matches!(kind, ExprKind::Matrix(_) | ExprKind::Subquery(_)),
    }
}

impl Reference {
    /// A function of windows.
    pub(super) fn over_windows(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let name = call.func.name;
        let range = call.args.iter().find(|arg| is_range(arg)).expect("a range vector");
        let params = call.args.iter().filter(|arg| !is_range(arg));
        let params = params.map(|arg| self.scalar(arg, t)).collect::<Result<Vec<f64>, _>>()?;
        let place = place(&call.args[0]);
        let mut out = Vec::new();
        for window in self.windows(range, t)? {
            if let Some(value) = self.of_window(name, &window, t, &params, place)? {
                let labels = match name {
                    "last_over_time" | "first_over_time" => window.labels,
                    _ => without_name(&window.labels),
                };
                out.push((labels, value));
            }
        }
        unique(out)
    }

    fn of_window(
        &self,
        name: &str,
        window: &Window,
        t: i64,
        params: &[f64],
        place: u32,
    ) -> Result<Option<Value>, Failure> {
        let samples = &window.samples;
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(None) };
        let seconds = |t: i64| Ok(Some(Value::Float(t as f64 / 1000.0)));
        let is_gauge = |value: &Value| value.histogram().is_some_and(|h| h.hint == CounterResetHint::Gauge);
        let looks_for_resets = matches!(name, "rate" | "increase" | "irate" | "resets");
        if self.thin && looks_for_resets && samples.iter().any(|s| is_gauge(&s.value)) {
            return Err(Failure::Unclear);
        }
        match name {
            "rate" | "increase" | "delta" => return Ok(self.rate(name, window, place)),
            "irate" | "idelta" => return Ok(self.of_last_two(name, window, place)),
            "resets" | "changes" => return Ok(self.jumps(name, window)?.map(Value::Float)),
            "count_over_time" => return Ok(Some(Value::Float(samples.len() as f64))),
            "present_over_time" => return Ok(Some(Value::Float(1.0))),
            "ts_of_first_over_time" => return seconds(first.t),
            "ts_of_last_over_time" => return seconds(last.t),
            "first_over_time" => return Ok(Some(first.value.clone())),
            "last_over_time" => return Ok(Some(last.value.clone())),
            _ => {}
        }
        let metric = window.labels.metric_name();
        let histograms: Vec<&Hist> = samples.iter().filter_map(|s| s.value.histogram()).collect();
        let floats: Vec<(i64, f64)> = samples.iter().filter_map(|s| Some((s.t, s.value.float()?))).collect();
        if matches!(name, "sum_over_time" | "avg_over_time") && !histograms.is_empty() {
            if !floats.is_empty() {
                self.mixed_kinds(place, metric);
                return Ok(None);
            }
            return Ok(self.histograms_over_time(name, &histograms, metric, place).map(Value::Histogram));
        }
        if floats.is_empty() {
            return Ok(None);
        }
        if name == "quantile_over_time" {
            self.check_quantile(place, params[0]);
        }
        if !histograms.is_empty() {
            self.ignored_in_range(place, metric);
        }
        if let ("predict_linear", [first, .., last]) = (name, &floats[..])
            && (t - first.0).abs() > 100 * (last.0 - first.0)
        {
            // Far from samples that lie close together the formula itself loses digits.
            return Err(Failure::Unclear);
        }
        Ok(over_floats(name, &floats, t, params).map(Value::Float))
    }

    fn histograms_over_time(&self, name: &str, all: &[&Hist], metric: &str, place: u32) -> Option<Hist> {
        let has = |hint| all.iter().any(|h| h.hint == hint);
        if has(CounterResetHint::CounterReset) && has(CounterResetHint::NotCounterReset) {
            self.collision(place, "aggregation");
        }
        let mut sum = all[0].clone();
        for h in &all[1..] {
            match sum.add(h, 1.0) {
                Ok(found) if found.reconciled => self.reconciled(place, "aggregation"),
                Ok(_) => {}
                Err(_) => {
                    self.mixed_schemas(place, metric);
                    return None;
                }
            }
        }
        if name == "avg_over_time" {
            sum.divide(all.len() as f64);
        }
        Some(sum)
    }
}

fn over_floats(name: &str, samples: &[(i64, f64)], t: i64, params: &[f64]) -> Option<f64> {
    let param = params.first().copied().unwrap_or(0.0);
    let values: Vec<f64> = samples.iter().map(|(_, v)| *v).collect();
    let (first, last) = (*samples.first()?, *samples.last()?);
    Some(match name {
        "sum_over_time" => values.iter().sum(),
        "avg_over_time" => values.iter().sum::<f64>() / values.len() as f64,
        "min_over_time" => least(&values),
        "max_over_time" => greatest(&values),
        "stddev_over_time" => variance(&values).sqrt(),
        "stdvar_over_time" => variance(&values),
        "quantile_over_time" => quantile(param, values),
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
