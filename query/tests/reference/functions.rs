//! Functions of instant vectors.

use std::collections::BTreeMap;

use model::regex::RegexMatcher;
use model::{Labels, MatchOp, Matcher};
use query::ast::{Call, Expr, ExprKind, ValueType};
use query::parse::value_type;

use super::estimates::{self, Doubt};
use super::notes::{for_metric, place};
use super::{Failure, Hist, Reference, Value, Vector, unique, without_name};

/// The innermost of parentheses.
fn bare(expr: &Expr) -> &Expr {
    match &expr.kind {
        ExprKind::Paren(inner) => bare(inner),
        _ => expr,
    }
}

fn text(expr: &Expr) -> &str {
    match &bare(expr).kind {
        ExprKind::String(text) => text,
        _ => panic!("a text: {expr:?}"),
    }
}

/// Buckets of classic histograms by their labels without `le`, name included, and native histograms.
struct Histograms {
    classic: BTreeMap<Labels, Vec<(f64, f64)>>,
    native: Vec<(Labels, Hist)>,
}

impl Reference {
    pub(super) fn call(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let name = call.func.name;
        let one = || [(Labels::empty(), Value::Float(1.0))];
        match name {
            "vector" => {
                return Ok([(Labels::empty(), Value::Float(self.scalar(&call.args[0], t)?))].into());
            }
            "timestamp" | "start_timestamp" => return self.times(name, &call.args[0], t),
            "absent" => {
                let matchers = match &bare(&call.args[0]).kind {
                    ExprKind::Vector(selector) => &selector.matchers[..],
                    _ => &[],
                };
                let there = !self.vector(&call.args[0], t)?.is_empty();
                let absent = one().map(|(_, v)| (labels_of(matchers), v));
                return Ok(if there { Vector::new() } else { absent.into() });
            }
            "absent_over_time" => {
                let matchers = match &bare(&call.args[0]).kind {
                    ExprKind::Matrix(matrix) => &matrix.vector.matchers[..],
                    _ => &[],
                };
                let there = self.windows(&call.args[0], t)?.iter().any(|window| !window.samples.is_empty());
                let absent = one().map(|(_, v)| (labels_of(matchers), v));
                return Ok(if there { Vector::new() } else { absent.into() });
            }
            // The order of a range query's result is that of its labels.
            "sort" | "sort_desc" => {
                let mut out = self.vector(&call.args[0], t)?;
                out.retain(|_, value| value.float().is_some());
                return Ok(out);
            }
            "sort_by_label" | "sort_by_label_desc" => return self.vector(&call.args[0], t),
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
            "histogram_quantiles" => return self.histogram_quantiles(call, t),
            "histogram_fraction" => return self.histogram_fraction(call, t),
            "histogram_count" | "histogram_sum" | "histogram_avg" | "histogram_stddev"
            | "histogram_stdvar" => return self.of_histograms(name, &call.args[0], t),
            "info" => return self.info_call(call, t),
            _ => {}
        }
        if call.args.iter().any(|arg| value_type(arg) == ValueType::Matrix) {
            return self.over_windows(call, t);
        }
        let params = call.args[1..].iter().map(|arg| self.scalar(arg, t));
        let params = params.collect::<Result<Vec<f64>, _>>()?;
        let inner = self.vector(&call.args[0], t)?;
        if name == "clamp" && params[0] > params[1] {
            return Ok(Vector::new());
        }
        let floats = inner.into_iter().filter_map(|(l, value)| Some((l, value.float()?)));
        unique(floats.map(|(l, v)| (without_name(&l), Value::Float(of_value(name, v, &params)))))
    }

    /// `timestamp` and `start_timestamp`; only those of samples are told.
    fn times(&self, name: &str, arg: &Expr, t: i64) -> Result<Vector, Failure> {
        let seconds = |t: i64| Value::Float(t as f64 / 1000.0);
        if let ExprKind::Vector(selector) = &bare(arg).kind {
            if selector.extended.is_some() {
                // Times of samples, or of values between them?
                return Err(Failure::Unclear);
            }
            let found = self.newest(selector, t)?.into_iter();
            let found = found.filter(|_| name == "timestamp" || self.starts);
            let time = |s: &super::Sample| if name == "timestamp" { s.t } else { s.start };
            return unique(found.map(|(l, sample)| (without_name(&l), seconds(time(&sample)))));
        }
        let found = self.vector(arg, t)?.into_keys().filter(|_| name == "timestamp");
        unique(found.map(|l| (without_name(&l), seconds(t))))
    }

    /// Numbers of histograms; floats are passed over.
    fn of_histograms(&self, name: &str, arg: &Expr, t: i64) -> Result<Vector, Failure> {
        let of = |h: &Hist| match name {
            "histogram_count" => h.count,
            "histogram_sum" => h.sum,
            "histogram_avg" => h.sum / h.count,
            "histogram_stdvar" => estimates::variance(h),
            _ => estimates::variance(h).sqrt(),
        };
        let found = self.vector(arg, t)?.into_iter();
        let found =
            found.filter_map(|(l, value)| Some((without_name(&l), Value::Float(of(value.histogram()?)))));
        unique(found)
    }

    /// Classic and native histograms of an argument. Where both have the same name and labels, neither counts.
    fn histograms(&self, arg: &Expr, t: i64) -> Result<Histograms, Failure> {
        let place = place(arg);
        let mut out = Histograms { classic: BTreeMap::new(), native: Vec::new() };
        for (labels, value) in self.vector(arg, t)? {
            let count = match value {
                Value::Histogram(h) => {
                    out.native.push((labels, h));
                    continue;
                }
                Value::Float(count) => count,
            };
            let le = labels.value("le");
            let Ok(bound) = le.parse::<f64>() else {
                let name = for_metric(labels.metric_name());
                self.warn(
                    place,
                    format!("bucket label \"le\" is missing or has a malformed value of {le:?}{name}"),
                );
                continue;
            };
            out.classic.entry(labels.without(&["le"])).or_default().push((bound, count));
        }
        let Histograms { classic, native } = &mut out;
        native.retain(|(labels, _)| {
            let both = classic.remove(labels).is_some();
            if both {
                let name = for_metric(labels.metric_name());
                self.warn(place, format!("vector contains a mix of classic and native histograms{name}"));
            }
            !both
        });
        Ok(out)
    }

    /// Notes what a guess suffers from.
    fn doubt(&self, place: u32, what: &str, doubt: Doubt) -> Result<(), Failure> {
        match (doubt, what) {
            (Doubt::Fine, _) => {}
            (Doubt::Unclear, _) => return Err(Failure::Unclear),
            (_, "fraction") => self.info(
                place,
                "input to histogram_fraction has NaN observations, which are excluded from all fractions",
            ),
            (Doubt::NanResult, _) => {
                self.info(place, "input to histogram_quantile has NaN observations, result is NaN");
            }
            (Doubt::NanSkew, _) => {
                self.info(place, "input to histogram_quantile has NaN observations, result is skewed higher");
            }
        }
        Ok(())
    }

    fn histogram_quantile(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let q = self.scalar(&call.args[0], t)?;
        let at = place(&call.args[0]);
        self.check_quantile(at, q);
        let Histograms { classic, native } = self.histograms(&call.args[1], t)?;
        let mut out = Vec::new();
        for (labels, h) in native {
            let (value, doubt) = estimates::quantile(q, &h);
            self.doubt(at, "quantile", doubt)?;
            out.push((without_name(&labels), Value::Float(value)));
        }
        for (labels, buckets) in classic {
            out.push((without_name(&labels), Value::Float(bucket_quantile(q, buckets)?)));
        }
        unique(out)
    }

    fn histogram_quantiles(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let label = text(&call.args[1]);
        let mut qs = Vec::new();
        for arg in &call.args[2..] {
            let q = self.scalar(arg, t)?;
            self.check_quantile(place(arg), q);
            qs.push(q);
        }
        let at = place(&call.args[0]);
        let Histograms { classic, native } = self.histograms(&call.args[0], t)?;
        let mut out = Vec::new();
        for q in qs {
            // As OpenMetrics writes floats.
            let written = if q.fract() == 0.0 { format!("{q}.0") } else { q.to_string() };
            let named = |labels: &Labels| without_name(labels).with(label, &written);
            for (labels, h) in &native {
                let (value, doubt) = estimates::quantile(q, h);
                self.doubt(at, "quantile", doubt)?;
                out.push((named(labels), Value::Float(value)));
            }
            for (labels, buckets) in &classic {
                out.push((named(labels), Value::Float(bucket_quantile(q, buckets.clone())?)));
            }
        }
        unique(out)
    }

    fn histogram_fraction(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let (lower, upper) = (self.scalar(&call.args[0], t)?, self.scalar(&call.args[1], t)?);
        let at = place(&call.args[0]);
        let Histograms { classic, native } = self.histograms(&call.args[2], t)?;
        let mut out = Vec::new();
        for (labels, h) in native {
            let (value, doubt) = estimates::fraction(lower, upper, &h);
            self.doubt(at, "fraction", doubt)?;
            out.push((without_name(&labels), Value::Float(value)));
        }
        for (labels, buckets) in classic {
            out.push((without_name(&labels), Value::Float(bucket_fraction(lower, upper, buckets))));
        }
        unique(out)
    }
}

/// Cumulative buckets in order, equal bounds as one.
fn in_order(mut buckets: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut merged: Vec<(f64, f64)> = Vec::new();
    for (bound, count) in buckets {
        match merged.last_mut() {
            Some(last) if last.0 == bound => last.1 += count,
            _ => merged.push((bound, count)),
        }
    }
    merged
}

fn bucket_quantile(q: f64, buckets: Vec<(f64, f64)>) -> Result<f64, Failure> {
    let mut merged = in_order(buckets);
    let Some(&(bound, _)) = merged.last() else { return Ok(f64::NAN) };
    if q.is_nan() {
        return Ok(q);
    }
    if !(0.0..=1.0).contains(&q) {
        return Ok(if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    if bound != f64::INFINITY {
        return Ok(f64::NAN);
    }
    for index in 1..merged.len() {
        merged[index].1 = merged[index].1.max(merged[index - 1].1);
    }
    let total = merged[merged.len() - 1].1;
    if merged.len() < 2 || total == 0.0 {
        return Ok(f64::NAN);
    }
    let rank = q * total;
    let finite = merged.len() - 1;
    let bucket = merged[..finite].iter().position(|(_, count)| *count >= rank).unwrap_or(finite);
    if bucket == finite {
        return Ok(merged[finite - 1].0);
    }
    let (upper, count) = merged[bucket];
    let (lower, below) = match bucket {
        0 if upper <= 0.0 => return Ok(upper),
        0 => (0.0, 0.0),
        _ => merged[bucket - 1],
    };
    Ok(lower + (upper - lower) * ((rank - below) / (count - below)))
}

fn bucket_fraction(lower: f64, upper: f64, buckets: Vec<(f64, f64)>) -> f64 {
    let buckets = in_order(buckets);
    let Some(&(bound, all)) = buckets.last() else { return f64::NAN };
    if bound != f64::INFINITY || all == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let below = |value: f64| {
        let mut rank = 0.0;
        let mut from = if buckets[0].0 <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
        for (bound, count) in &buckets {
            if from >= value {
                return rank;
            }
            if *bound > value {
                if from == f64::NEG_INFINITY {
                    return *count;
                }
                return rank + (count - rank) * (value - from) / (bound - from);
            }
            (rank, from) = (*count, *bound);
        }
        all
    };
    (below(upper).min(all) - below(lower).min(all)) / all
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
