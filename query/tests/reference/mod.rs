//! A slow, plain evaluator of PromQL: step by step, window by window, straight from the definitions. Nothing is shared with
//! the engine but the syntax tree, and the form in which floats are printed. What a query may choose freely is
//! [`Failure::Unclear`].

mod aggregate;
mod binary;
mod estimates;
mod extended;
mod functions;
pub(crate) mod histogram;
mod info;
mod notes;
mod over_time;
mod rates;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use model::histogram::CounterResetHint;
use model::{Labels, Matcher, is_stale_nan};
use query::ast::{
    At, Call, DurationExpr, DurationKind, DurationOp, Expr, ExprKind, ExtendedRange, TimeModifiers,
    VectorSelector,
};

pub(crate) use histogram::Hist;
use notes::Notes;

/// A float or a histogram.
#[derive(Clone)]
pub(crate) enum Value {
    Float(f64),
    Histogram(Hist),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(_) if self.is_stale() => f.write_str("stale"),
            Self::Float(v) => write!(f, "{v}"),
            Self::Histogram(h) => write!(f, "{h:?}"),
        }
    }
}

impl Value {
    pub(crate) fn is_stale(&self) -> bool {
        match self {
            Self::Float(v) => is_stale_nan(*v),
            Self::Histogram(h) => is_stale_nan(h.sum),
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Float(v) => Some(*v),
            Self::Histogram(_) => None,
        }
    }

    fn histogram(&self) -> Option<&Hist> {
        match self {
            Self::Histogram(h) => Some(h),
            Self::Float(_) => None,
        }
    }
}

/// A sample, with the time from which its counter counts (0: unknown).
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) t: i64,
    pub(crate) start: i64,
    pub(crate) value: Value,
}

/// In one line, so that failing cases can be read.
impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {}): {:?}", self.t, self.start, self.value)
    }
}

impl Sample {
    pub(crate) fn new(t: i64, value: Value) -> Self {
        Self { t, start: 0, value }
    }
}

/// Series as they were written: in any order, of equal times the last holds.
pub(crate) type Data = BTreeMap<Labels, Vec<Sample>>;
/// Value per series at one time.
pub(crate) type Vector = BTreeMap<Labels, Value>;

const LOOKBACK_MS: i64 = 300_000;
const SUBQUERY_STEP_MS: i64 = 60_000;

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The engine must fail too.
    Fails,
    /// More than one answer is right.
    Unclear,
}

/// A series' samples in a window, with the window's ends. Of an extended one, the samples around it as well.
struct Window {
    labels: Labels,
    samples: Vec<Sample>,
    start: i64,
    end: i64,
    extended: Option<ExtendedRange>,
}

/// What a query is evaluated on.
pub(crate) struct Reference {
    series: Data,
    start: i64,
    end: i64,
    step: i64,
    /// Whether start timestamps are looked at.
    pub(crate) starts: bool,
    /// Whether only counts and sums may be looked at, so that buckets of gauges do not tell resets.
    pub(crate) thin: bool,
    notes: RefCell<Notes>,
}

/// What the store makes of hints: "no reset" where a histogram continues the one before it.
fn stored(samples: &[Sample]) -> Vec<Sample> {
    let by_time: BTreeMap<i64, &Sample> = samples.iter().map(|sample| (sample.t, sample)).collect();
    let mut before: Option<&Hist> = None;
    let mut out = Vec::new();
    for sample in by_time.into_values() {
        let mut kept = sample.clone();
        if let Value::Histogram(h) = &mut kept.value
            && !is_stale_nan(h.sum)
            && h.hint != CounterResetHint::Gauge
        {
            let continues = before.is_some_and(|before| {
                before.hint != CounterResetHint::Gauge
                    && !is_stale_nan(before.sum)
                    && !h.is_reset_after(before)
            });
            h.hint = if continues { CounterResetHint::NotCounterReset } else { CounterResetHint::Unknown };
        }
        before = sample.value.histogram();
        out.push(kept);
    }
    out
}

fn without_name(labels: &Labels) -> Labels {
    labels.without_name()
}

fn unique(items: impl IntoIterator<Item = (Labels, Value)>) -> Result<Vector, Failure> {
    let mut out = Vector::new();
    for (labels, value) in items {
        if out.insert(labels, value).is_some() {
            return Err(Failure::Fails);
        }
    }
    Ok(out)
}

impl Reference {
    /// For a query from `start` to `end`.
    pub(crate) fn new(data: &Data, start: i64, end: i64, step: i64) -> Self {
        let series = data.iter().map(|(labels, samples)| (labels.clone(), stored(samples))).collect();
        Self { series, start, end, step, starts: false, thin: false, notes: RefCell::default() }
    }

    fn seconds(&self, expr: &DurationExpr) -> Result<f64, Failure> {
        Ok(match &expr.kind {
            DurationKind::Literal { seconds, .. } => *seconds,
            DurationKind::Step => self.step as f64 / 1000.0,
            DurationKind::Range => (self.end - self.start) as f64 / 1000.0,
            DurationKind::MinOf(a, b) => self.seconds(a)?.min(self.seconds(b)?),
            DurationKind::MaxOf(a, b) => self.seconds(a)?.max(self.seconds(b)?),
            DurationKind::Negate(inner) => -self.seconds(inner)?,
            DurationKind::Plus(inner) | DurationKind::Paren(inner) => self.seconds(inner)?,
            DurationKind::Binary(op, a, b) => {
                let (a, b) = (self.seconds(a)?, self.seconds(b)?);
                match op {
                    DurationOp::Add => a + b,
                    DurationOp::Sub => a - b,
                    DurationOp::Mul => a * b,
                    DurationOp::Div | DurationOp::Mod if b == 0.0 => return Err(Failure::Fails),
                    DurationOp::Div => a / b,
                    DurationOp::Mod => a % b,
                    DurationOp::Pow => a.powf(b),
                }
            }
        })
    }

    fn milliseconds(&self, expr: &DurationExpr) -> Result<i64, Failure> {
        let ms = self.seconds(expr)? * 1000.0;
        // Computed durations are cut, written ones are whole.
        Ok(if expr.literal().is_some() { ms.round() } else { ms.trunc() } as i64)
    }

    /// Of a range or a step.
    fn length(&self, expr: &DurationExpr) -> Result<i64, Failure> {
        match self.milliseconds(expr)? {
            ms if ms > 0 => Ok(ms),
            _ => Err(Failure::Fails),
        }
    }

    fn look_at(&self, time: &TimeModifiers, t: i64) -> Result<i64, Failure> {
        let t = match time.at {
            None => t,
            Some(At::Time(at)) => at,
            Some(At::Start) => self.start,
            Some(At::End) => self.end,
        };
        let offset = time.offset.as_ref().map(|offset| self.milliseconds(offset)).transpose()?;
        Ok(t - offset.unwrap_or(0))
    }

    fn selected<'a>(
        &'a self,
        matchers: &'a [Matcher],
    ) -> impl Iterator<Item = (&'a Labels, &'a [Sample])> + use<'a> {
        self.series
            .iter()
            .filter(|(labels, _)| Matcher::all_match(matchers, labels))
            .map(|(labels, samples)| (labels, &samples[..]))
    }

    /// The value of a vector expression at `t`.
    pub(crate) fn vector(&self, expr: &Expr, t: i64) -> Result<Vector, Failure> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.vector(inner, t),
            ExprKind::Vector(selector) if selector.extended.is_some() => self.smoothed(expr, selector, t),
            ExprKind::Vector(selector) => {
                let newest = self.newest(selector, t)?.into_iter();
                Ok(newest.map(|(labels, sample)| (labels, sample.value)).collect())
            }
            ExprKind::Call(call) => self.call(call, t),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, expr.span.start, t),
            ExprKind::Binary(binary) => self.binary(binary, expr.span.start, t),
            ExprKind::Unary(unary) if unary.negative => {
                unique(self.vector(&unary.expr, t)?.into_iter().map(|(labels, value)| {
                    let negative = match value {
                        Value::Float(v) => Value::Float(-v),
                        Value::Histogram(mut h) => {
                            h.scale(-1.0);
                            Value::Histogram(h)
                        }
                    };
                    (without_name(&labels), negative)
                }))
            }
            ExprKind::Unary(unary) => self.vector(&unary.expr, t),
            _ => panic!("not covered by the reference: {expr:?}"),
        }
    }

    /// The newest sample at or before `at`, unless it is too old or says that the series ended.
    fn newest_at(samples: &[Sample], at: i64) -> Option<&Sample> {
        let newest = samples.iter().rev().find(|sample| sample.t <= at)?;
        (newest.t > at - LOOKBACK_MS && !newest.value.is_stale()).then_some(newest)
    }

    /// The newest samples of a selector.
    fn newest(&self, selector: &VectorSelector, t: i64) -> Result<BTreeMap<Labels, Sample>, Failure> {
        let at = self.look_at(&selector.time, t)?;
        let series = self.selected(&selector.matchers);
        Ok(series
            .filter_map(|(labels, samples)| Some((labels.clone(), Self::newest_at(samples, at)?.clone())))
            .collect())
    }

    /// The value of a scalar expression at `t`.
    fn scalar(&self, expr: &Expr, t: i64) -> Result<f64, Failure> {
        Ok(match &expr.kind {
            ExprKind::Number(number) => number.value,
            ExprKind::Paren(inner) => self.scalar(inner, t)?,
            ExprKind::Unary(unary) if unary.negative => -self.scalar(&unary.expr, t)?,
            ExprKind::Unary(unary) => self.scalar(&unary.expr, t)?,
            ExprKind::Binary(binary) => {
                binary::of_numbers(binary.op, self.scalar(&binary.lhs, t)?, self.scalar(&binary.rhs, t)?)
            }
            ExprKind::Call(call) => self.scalar_call(call, t)?,
            _ => panic!("not covered by the reference: {expr:?}"),
        })
    }

    fn scalar_call(&self, call: &Call, t: i64) -> Result<f64, Failure> {
        Ok(match call.func.name {
            "time" => t as f64 / 1000.0,
            "pi" => std::f64::consts::PI,
            "start" => self.start as f64 / 1000.0,
            "end" => self.end as f64 / 1000.0,
            "step" => self.step as f64 / 1000.0,
            "range" => (self.end - self.start) as f64 / 1000.0,
            "min_of" => self.scalar(&call.args[0], t)?.min(self.scalar(&call.args[1], t)?),
            "max_of" => self.scalar(&call.args[0], t)?.max(self.scalar(&call.args[1], t)?),
            "scalar" => {
                let vector = self.vector(&call.args[0], t)?;
                match vector.values().filter_map(Value::float).collect::<Vec<_>>()[..] {
                    [only] => only,
                    _ => f64::NAN,
                }
            }
            name => panic!("not covered by the reference: {name}"),
        })
    }

    /// Windows of samples, with their ends.
    fn windows(&self, expr: &Expr, t: i64) -> Result<Vec<Window>, Failure> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.windows(inner, t),
            ExprKind::Matrix(matrix) => {
                let end = self.look_at(&matrix.vector.time, t)?;
                let start = end - self.length(&matrix.range)?;
                let extended = matrix.vector.extended;
                let (from, to) = match extended {
                    None => (start, end),
                    Some(ExtendedRange::Anchored) => (start - LOOKBACK_MS, end),
                    Some(ExtendedRange::Smoothed) => (start - LOOKBACK_MS, end + LOOKBACK_MS),
                };
                let within = |s: &&Sample| s.t > from && s.t <= to && !s.value.is_stale();
                let all = self.selected(&matrix.vector.matchers);
                Ok(all
                    .map(|(labels, samples)| Window {
                        labels: labels.clone(),
                        samples: samples.iter().filter(within).cloned().collect(),
                        start,
                        end,
                        extended,
                    })
                    .collect())
            }
            ExprKind::Subquery(subquery) => {
                let end = self.look_at(&subquery.time, t)?;
                let start = end - self.length(&subquery.range)?;
                let step = subquery.step.as_ref().map(|step| self.length(step)).transpose()?;
                let step = step.unwrap_or(SUBQUERY_STEP_MS);
                let mut series: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
                let first = (start.div_euclid(step) + 1) * step;
                for at in (0..).map(|i| first + i * step).take_while(|at| *at <= end) {
                    for (labels, mut value) in self.vector(&subquery.expr, at)? {
                        // Neighbours in storage are not neighbours here.
                        if let Value::Histogram(h) = &mut value
                            && h.hint != CounterResetHint::Gauge
                        {
                            h.hint = CounterResetHint::Unknown;
                        }
                        series.entry(labels).or_default().push(Sample::new(at, value));
                    }
                }
                let window = |(labels, samples)| Window { labels, samples, start, end, extended: None };
                Ok(series.into_iter().map(window).collect())
            }
            _ => panic!("not a range vector: {expr:?}"),
        }
    }
}
