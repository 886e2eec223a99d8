//! Aggregations over series.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use model::Labels;
use model::histogram::CounterResetHint;
use query::ast::{Aggregate, AggregateOp, ExprKind};

use super::notes::place;
use super::over_time::{greatest, least, quantile, variance};
use super::{Failure, Hist, Reference, Value, Vector};

impl Reference {
    pub(super) fn aggregate(&self, aggregate: &Aggregate, at: u32, t: i64) -> Result<Vector, Failure> {
        let text = match aggregate.param.as_deref().map(|param| &param.kind) {
            Some(ExprKind::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let param = match (&aggregate.param, text) {
            (Some(param), None) => self.scalar(param, t)?,
            _ => 0.0,
        };
        let param_place = aggregate.param.as_deref().map_or(0, place);
        let op = aggregate.op;
        if op == AggregateOp::Quantile {
            self.check_quantile(param_place, param);
        }
        if op == AggregateOp::LimitRatio && !(-1.0..=1.0).contains(&param) {
            let capped = param.signum();
            self.warn(
                param_place,
                format!("ratio value should be between -1 and 1, got {param}, capping to {capped}"),
            );
        }
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
        let mut out = Vector::new();
        let inner = place(&aggregate.expr);
        let selects = matches!(aggregate.expr.kind, ExprKind::Vector(_));
        for (key, members) in groups {
            match op {
                AggregateOp::Topk | AggregateOp::Bottomk if param >= 1.0 => {
                    out.extend(chosen(op, param, self.floats(op, members, at))?);
                }
                AggregateOp::Topk | AggregateOp::Bottomk => {}
                AggregateOp::Limitk => {
                    let k = param.max(0.0) as usize;
                    // Of selected series the first ones; of others, whichever come first.
                    if (1..members.len()).contains(&k) && !selects {
                        return Err(Failure::Unclear);
                    }
                    out.extend(members.into_iter().take(k));
                }
                AggregateOp::LimitRatio if param.abs() >= 1.0 => out.extend(members),
                AggregateOp::LimitRatio if param == 0.0 => {}
                AggregateOp::LimitRatio => return Err(Failure::Unclear),
                AggregateOp::CountValues => {
                    let label = text.expect("the parameter of count_values is a text");
                    for value in members.into_values() {
                        let written = match value {
                            Value::Float(v) => v.to_string(),
                            Value::Histogram(h) => h.text(),
                        };
                        let count = out.entry(key.with(label, &written)).or_insert(Value::Float(0.0));
                        *count = Value::Float(count.float().unwrap_or(0.0) + 1.0);
                    }
                }
                AggregateOp::Count => {
                    out.insert(key, Value::Float(members.len() as f64));
                }
                AggregateOp::Group => {
                    out.insert(key, Value::Float(1.0));
                }
                AggregateOp::Sum | AggregateOp::Avg => {
                    out.extend(self.total(op, &members, inner)?.map(|total| (key, total)));
                }
                _ => {
                    let floats: Vec<f64> = self.floats(op, members, inner).into_values().collect();
                    if floats.is_empty() {
                        continue;
                    }
                    let value = match op {
                        AggregateOp::Min => least(&floats),
                        AggregateOp::Max => greatest(&floats),
                        AggregateOp::Stddev => variance(&floats).sqrt(),
                        AggregateOp::Stdvar => variance(&floats),
                        AggregateOp::Quantile => quantile(param, floats),
                        op => panic!("not covered by the reference: {op}"),
                    };
                    out.insert(key, Value::Float(value));
                }
            }
        }
        Ok(out)
    }

    /// The floats; histograms are told of.
    fn floats(&self, op: AggregateOp, members: Vector, place: u32) -> BTreeMap<Labels, f64> {
        let mut out = BTreeMap::new();
        for (labels, value) in members {
            match value {
                Value::Float(v) => drop(out.insert(labels, v)),
                Value::Histogram(_) => self.info(place, format!("ignored histogram in {op} aggregation")),
            }
        }
        out
    }

    /// Sum or mean. `None`: the members do not go together.
    fn total(&self, op: AggregateOp, members: &Vector, place: u32) -> Result<Option<Value>, Failure> {
        let count = members.len() as f64;
        let floats: Vec<f64> = members.values().filter_map(Value::float).collect();
        let histograms: Vec<(&Labels, &Hist)> =
            members.iter().filter_map(|(labels, value)| Some((labels, value.histogram()?))).collect();
        let mean = op == AggregateOp::Avg;
        let Some((_, first)) = histograms.first() else {
            let sum: f64 = floats.iter().sum();
            return Ok(Some(Value::Float(if mean { sum / count } else { sum })));
        };
        let custom = histograms.iter().filter(|(_, h)| h.is_custom()).count();
        if custom != 0 && custom != histograms.len() {
            // Which of them is named, and whether floats or bounds are told of too, is a matter of order.
            let names = histograms.iter().all(|(l, _)| l.metric_name() == histograms[0].0.metric_name());
            let bounds = histograms.iter().filter(|(_, h)| h.is_custom()).map(|(_, h)| &h.bounds);
            let mut bounds: Vec<_> = bounds.collect();
            bounds.dedup();
            if !floats.is_empty() || !names || bounds.len() > 1 {
                return Err(Failure::Unclear);
            }
            self.mixed_schemas(place, histograms[0].0.metric_name());
            return Ok(None);
        }
        let mut sum = (*first).clone();
        let mut reconciled = false;
        for (_, h) in &histograms[1..] {
            reconciled |= sum.add(h, 1.0).expect("of one kind").reconciled;
        }
        if !floats.is_empty() {
            // Histograms before the first float are looked at, those behind it are not.
            if reconciled {
                return Err(Failure::Unclear);
            }
            self.warn(place, "encountered a mix of histograms and floats for aggregation");
            return Ok(None);
        }
        if reconciled {
            self.reconciled(place, "aggregation");
        }
        let has = |hint| histograms.iter().any(|(_, h)| h.hint == hint);
        if has(CounterResetHint::CounterReset) && has(CounterResetHint::NotCounterReset) {
            self.collision(place, "aggregation");
        }
        if mean {
            sum.divide(count);
        }
        Ok(Some(Value::Histogram(sum.compact())))
    }
}

/// The series that `topk` or `bottomk` take of a group.
fn chosen(op: AggregateOp, k: f64, members: BTreeMap<Labels, f64>) -> Result<Vector, Failure> {
    let k = k as usize;
    // NaN comes last, whatever is asked for.
    let rank = |value: f64| if op == AggregateOp::Topk { -value } else { value };
    let mut members: Vec<(Labels, f64)> = members.into_iter().collect();
    members.sort_by(|a, b| {
        let nan = a.1.is_nan().cmp(&b.1.is_nan());
        nan.then(rank(a.1).partial_cmp(&rank(b.1)).unwrap_or(Ordering::Equal))
    });
    if k < members.len() {
        let (last, next) = (members[k - 1].1, members[k].1);
        if last == next || (last.is_nan() && next.is_nan()) {
            return Err(Failure::Unclear);
        }
    }
    Ok(members.into_iter().take(k).map(|(labels, v)| (labels, Value::Float(v))).collect())
}
