//! The logical plan: an expression made ready for evaluation at given steps.
//!
//! What the tree leaves open is resolved here: `@`, offsets and duration expressions become absolute, functions become
//! operators with typed operands, selectors learn what storage may leave out ([`Hints`]), and sub-expressions that are
//! the same at every step are wrapped so that they are evaluated once ([`VectorPlan::Invariant`]), as are those that occur
//! more than once ([`VectorPlan::Shared`]).
//!
//! Nothing here touches data.

mod build;
mod extent;
mod functions;
mod repeated;

pub(crate) use build::build;
pub(crate) use extent::extent;
pub(crate) use functions::{DateFn, MathFn, RangeFn};

use model::regex::RegexMatcher;
use model::{Labels, Matcher};

use crate::ast::{AggregateOp, BinaryOp, ExtendedRange, Span, VectorMatching};
use crate::exec::selector::HistogramView;
use crate::exec::steps::TimeRef;

/// A whole query.
#[derive(Debug)]
pub(crate) enum Plan {
    Vector(VectorPlan),
    Scalar(ScalarPlan),
    /// A range vector as result, of instant queries only.
    Range(RangePlan),
    Text(String),
}

/// Gives an instant vector at each step.
#[derive(Debug)]
pub(crate) enum VectorPlan {
    /// `x`
    Selector(Selector),
    /// Evaluated once, the same at each step.
    Invariant(Box<VectorPlan>),
    /// One of several equal expressions, which have the number in common.
    Shared { id: usize, inner: Box<VectorPlan> },
    /// `vector(s)`
    OfScalar(Box<ScalarPlan>),
    /// `rate(x[5m])` and its like.
    Range(Box<RangeCall>),
    /// `absent_over_time(x[5m])`
    AbsentOverTime { arg: RangePlan, labels: Labels },
    /// `absent(x)`
    Absent { arg: Box<VectorPlan>, labels: Labels },
    /// A function of each value alone.
    Math { arg: Box<VectorPlan>, function: MathFn, params: Vec<ScalarPlan> },
    /// `hour(x)`; without operand of the time of the step.
    Date { arg: Option<Box<VectorPlan>>, function: DateFn },
    /// `timestamp(x)` of what is no selector: the time of the step.
    StepTime { arg: Box<VectorPlan> },
    /// A number drawn from each histogram.
    HistogramStat { arg: Box<VectorPlan>, stat: HistogramStat },
    /// `histogram_quantile(s)`
    Quantiles(Box<QuantilesPlan>),
    /// `histogram_fraction`
    Fraction(Box<FractionPlan>),
    /// `label_replace`
    LabelReplace(Box<LabelReplacePlan>),
    /// `label_join`
    LabelJoin { arg: Box<VectorPlan>, destination: String, separator: String, sources: Vec<String> },
    /// `sort` and its like.
    Sort { arg: Box<VectorPlan>, order: SortOrder },
    /// `info`
    Info(Box<InfoPlan>),
    /// `-x`
    Negate(Box<VectorPlan>),
    /// `sum by (a) (x)` and its like.
    Aggregate(Box<AggregatePlan>),
    /// `a + b` of two vectors.
    Binary(Box<BinaryPlan>),
    /// `a + 1`, `1 + a`.
    WithScalar(Box<WithScalarPlan>),
}

/// Gives a number at each step.
#[derive(Debug)]
pub(crate) enum ScalarPlan {
    Number(f64),
    /// `time()`
    Time,
    /// `scalar(x)`
    OfVector(Box<VectorPlan>),
    Binary(BinaryOp, Box<ScalarPlan>, Box<ScalarPlan>),
    Negate(Box<ScalarPlan>),
    /// `min_of(a, b)` or `max_of(a, b)`
    Extreme {
        max: bool,
        a: Box<ScalarPlan>,
        b: Box<ScalarPlan>,
    },
}

/// Gives windows of samples at each step.
#[derive(Debug)]
pub(crate) enum RangePlan {
    Selector(Selector),
    Subquery(Box<SubqueryPlan>),
}

impl RangePlan {
    /// Length of the window in milliseconds.
    pub(crate) fn window_ms(&self) -> i64 {
        match self {
            Self::Selector(selector) => selector.window_ms,
            Self::Subquery(subquery) => subquery.window_ms,
        }
    }

    /// Where windows end.
    pub(crate) fn time(&self) -> TimeRef {
        match self {
            Self::Selector(selector) => selector.time,
            Self::Subquery(subquery) => subquery.time,
        }
    }

    pub(crate) fn extended(&self) -> Option<ExtendedRange> {
        match self {
            Self::Selector(selector) => selector.extended,
            Self::Subquery(_) => None,
        }
    }
}

/// `expr[1h:5m]`
#[derive(Debug)]
pub(crate) struct SubqueryPlan {
    pub(crate) inner: VectorPlan,
    pub(crate) window_ms: i64,
    /// Always positive.
    pub(crate) step_ms: i64,
    pub(crate) time: TimeRef,
}

/// Stored series.
#[derive(Debug)]
pub(crate) struct Selector {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) time: TimeRef,
    /// Length of the window in milliseconds, 0 for instant selectors.
    pub(crate) window_ms: i64,
    pub(crate) extended: Option<ExtendedRange>,
    pub(crate) value: InstantValue,
    pub(crate) histograms: HistogramView,
    pub(crate) hints: Hints,
    /// The labels that anybody will look at; `None`: all.
    pub(crate) only_labels: Option<Vec<String>>,
    /// The number that equal selectors of range vectors have in common, if there is another one.
    pub(crate) shared: Option<usize>,
    pub(crate) span: Span,
}

impl Selector {
    pub(crate) fn is_smoothed(&self) -> bool {
        self.extended == Some(ExtendedRange::Smoothed)
    }
}

/// What an instant selector gives of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstantValue {
    Sample,
    /// `timestamp(x)`
    Time,
    /// `start_timestamp(x)`
    Start,
}

/// What is done with selected series, for storage to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    pub(crate) func: String,
    pub(crate) grouping: Vec<String>,
    pub(crate) by: bool,
}

#[derive(Debug)]
pub(crate) struct RangeCall {
    pub(crate) function: RangeFn,
    pub(crate) arg: RangePlan,
    pub(crate) params: Vec<ScalarPlan>,
    /// Place of the first argument, as written; annotations point there.
    pub(crate) span: Span,
}

/// Numbers drawn from histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistogramStat {
    Count,
    Sum,
    Avg,
    Stddev,
    Stdvar,
}

#[derive(Debug)]
pub(crate) struct QuantilesPlan {
    pub(crate) arg: VectorPlan,
    pub(crate) arg_span: Span,
    pub(crate) quantiles: Vec<(ScalarPlan, Span)>,
    /// The label that tells quantiles apart, of `histogram_quantiles`.
    pub(crate) label: Option<String>,
    /// Places that annotations about the histograms point to.
    pub(crate) native_span: Span,
    pub(crate) classic_span: Span,
}

#[derive(Debug)]
pub(crate) struct FractionPlan {
    pub(crate) lower: ScalarPlan,
    pub(crate) upper: ScalarPlan,
    pub(crate) arg: VectorPlan,
    pub(crate) arg_span: Span,
    pub(crate) first_span: Span,
}

#[derive(Debug)]
pub(crate) struct LabelReplacePlan {
    pub(crate) arg: VectorPlan,
    pub(crate) destination: String,
    pub(crate) replacement: String,
    pub(crate) source: String,
    pub(crate) regex: RegexMatcher,
}

/// Orders of instant query results.
#[derive(Debug)]
pub(crate) enum SortOrder {
    Value { descending: bool },
    Labels { names: Vec<String>, descending: bool },
}

#[derive(Debug)]
pub(crate) struct InfoPlan {
    pub(crate) arg: VectorPlan,
    /// Matchers of the second argument.
    pub(crate) matchers: Vec<Matcher>,
    /// Where info series are looked at: as the first selector of `arg`.
    pub(crate) time: TimeRef,
}

#[derive(Debug)]
pub(crate) struct AggregatePlan {
    pub(crate) op: AggregateOp,
    pub(crate) arg: VectorPlan,
    pub(crate) arg_span: Span,
    pub(crate) param: Option<(ScalarPlan, Span)>,
    /// The label of `count_values`.
    pub(crate) label: Option<String>,
    pub(crate) grouping: Vec<String>,
    pub(crate) without: bool,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct BinaryPlan {
    pub(crate) op: BinaryOp,
    pub(crate) left: VectorPlan,
    pub(crate) right: VectorPlan,
    pub(crate) matching: VectorMatching,
    pub(crate) return_bool: bool,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct WithScalarPlan {
    pub(crate) op: BinaryOp,
    pub(crate) vector: VectorPlan,
    pub(crate) scalar: ScalarPlan,
    /// Whether the scalar stands on the left.
    pub(crate) scalar_left: bool,
    pub(crate) return_bool: bool,
    pub(crate) span: Span,
}
