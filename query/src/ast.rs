//! The syntax tree of PromQL, as parsed: spans kept, nothing rewritten.
//!
//! Shapes and names follow Prometheus' `promql/parser/ast.go` (3.14), so that error texts, printing, and the answer of
//! `/api/v1/parse_query` can be the same.

use std::fmt;

use model::{Matcher, Timestamp};

/// A range of bytes in the query text, end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// From `start` up to, but without, `end`.
    pub fn new(start: usize, end: usize) -> Self {
        let clamp = |position| u32::try_from(position).unwrap_or(u32::MAX);
        Self { start: clamp(start), end: clamp(end) }
    }

    /// From the start of `self` to the end of `other`.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }
}

/// The type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number per step.
    Scalar,
    /// One sample per series and step.
    Vector,
    /// A window of samples per series and step.
    Matrix,
    /// A text.
    String,
    /// No value: only in signatures.
    None,
}

impl ValueType {
    /// The name in API answers (`resultType`, `valueType`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::String => "string",
            Self::None => "none",
        }
    }

    /// The name in error texts (`instant vector`, `range vector`).
    pub fn documented(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An expression with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

impl Expr {
    /// The expressions directly within this one, in order of the text.
    pub fn children(&self) -> Vec<&Self> {
        match &self.kind {
            ExprKind::Aggregate(aggregate) => {
                aggregate.param.iter().chain([&aggregate.expr]).map(|e| &**e).collect()
            }
            ExprKind::Binary(binary) => vec![&binary.lhs, &binary.rhs],
            ExprKind::Call(call) => call.args.iter().collect(),
            ExprKind::Subquery(subquery) => vec![&subquery.expr],
            ExprKind::Paren(inner) => vec![inner],
            ExprKind::Unary(unary) => vec![&unary.expr],
            ExprKind::Matrix(_) | ExprKind::Vector(_) | ExprKind::Number(_) | ExprKind::String(_) => {
                Vec::new()
            }
        }
    }

    /// The matchers of every selector within, in order of the text.
    pub fn selectors(&self) -> Vec<&[Matcher]> {
        let mut found = Vec::new();
        let mut pending = vec![self];
        while let Some(expr) = pending.pop() {
            match &expr.kind {
                ExprKind::Vector(vector) => found.push(vector.matchers.as_slice()),
                ExprKind::Matrix(matrix) => found.push(matrix.vector.matchers.as_slice()),
                _ => pending.extend(expr.children().into_iter().rev()),
            }
        }
        found
    }
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ExprKind {
    /// `sum by (job) (x)`
    Aggregate(Aggregate),
    /// `a + b`
    Binary(Binary),
    /// `rate(x[5m])`
    Call(Call),
    /// `x[5m]`
    Matrix(MatrixSelector),
    /// `x`
    Vector(VectorSelector),
    /// `expr[1h:5m]`
    Subquery(Subquery),
    /// `1.5`, `5m`
    Number(Number),
    /// `"text"`
    String(String),
    /// `(x)`
    Paren(Box<Expr>),
    /// `-x`, `+x`
    Unary(Unary),
}

/// An aggregation over series.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Box<Expr>,
    /// The first argument of `topk`, `quantile`, `count_values` and their like.
    pub param: Option<Box<Expr>>,
    /// Labels of the grouping clause.
    pub grouping: Vec<String>,
    /// Whether the clause drops its labels (`without`) instead of keeping them (`by`).
    pub without: bool,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are PromQL's own")]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    /// Whether each group becomes one series, of which nothing but the grouping labels is known.
    pub(crate) fn folds(self) -> bool {
        !matches!(self, Self::Topk | Self::Bottomk | Self::Limitk | Self::LimitRatio | Self::CountValues)
    }

    /// All operators.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::CountValues,
        Self::Quantile,
        Self::Limitk,
        Self::LimitRatio,
    ];

    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// Whether it takes a parameter before the vector.
    pub fn has_param(self) -> bool {
        matches!(
            self,
            Self::Topk | Self::Bottomk | Self::CountValues | Self::Quantile | Self::Limitk | Self::LimitRatio
        )
    }

    /// Whether it needs `promql-experimental-functions`.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::Limitk | Self::LimitRatio)
    }
}

impl fmt::Display for AggregateOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An operation on two sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// Which.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Box<Expr>,
    /// Right side.
    pub rhs: Box<Expr>,
    /// How series pair up; `None` unless both sides are vectors.
    pub matching: Option<VectorMatching>,
    /// Whether a comparison gives 0 and 1 instead of filtering.
    pub return_bool: bool,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the operators' own")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    NotEq,
    Less,
    LessEq,
    Greater,
    GreaterEq,
    And,
    Or,
    Unless,
    /// `</`: keeps observations below.
    TrimUpper,
    /// `>/`: keeps observations above.
    TrimLower,
}

impl BinaryOp {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::NotEq => "!=",
            Self::Less => "<",
            Self::LessEq => "<=",
            Self::Greater => ">",
            Self::GreaterEq => ">=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// `== != < <= > >=`
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::NotEq | Self::Less | Self::LessEq | Self::Greater | Self::GreaterEq)
    }

    /// `and or unless`
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many series of each side may pair up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One with one.
    OneToOne,
    /// `group_left`: many on the left.
    ManyToOne,
    /// `group_right`: many on the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Cardinality {
    /// The name in API answers and error texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::ManyToOne => "many-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

/// How series of two vectors pair up.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorMatching {
    /// How many of each side.
    pub card: Cardinality,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether `labels` are those compared (`on`) or those left out (`ignoring` and default).
    pub on: bool,
    /// Labels of `group_left` or `group_right`, taken from the "one" side.
    pub include: Vec<String>,
    /// `fill_left`, `fill_right`, `fill`.
    pub fill: FillValues,
}

/// Values that stand in for series missing on one side (flag `promql-binop-fill-modifiers`).
#[derive(Clone, Copy, Debug, Default)]
pub struct FillValues {
    /// For a missing left side; with `group_right`, for a missing right one: the "many".
    pub lhs: Option<f64>,
    /// For a missing right side; with `group_right`, for a missing left one: the "one".
    pub rhs: Option<f64>,
}

/// Bits are compared, so that NaN equals itself.
impl PartialEq for FillValues {
    fn eq(&self, other: &Self) -> bool {
        let bits = |fill: &Self| (fill.lhs.map(f64::to_bits), fill.rhs.map(f64::to_bits));
        bits(self) == bits(other)
    }
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which.
    pub func: &'static Function,
    /// Arguments as written.
    pub args: Vec<Expr>,
}

/// The signature of a function. The table is in [`crate::parse`].
#[derive(Debug, PartialEq)]
pub struct Function {
    /// As written.
    pub name: &'static str,
    /// Types of the arguments; the last may repeat or be left out, see `variadic`.
    pub args: &'static [ValueType],
    /// 0: exactly `args`; n > 0: up to n further arguments of the last type may follow `args` less the last; -1: any number.
    /// (Prometheus' `Function.Variadic`.)
    pub variadic: i32,
    /// Type of the result.
    pub returns: ValueType,
    /// Whether it needs `promql-experimental-functions`.
    pub experimental: bool,
}

/// A selector of instant vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric name before the braces, if given there.
    pub name: Option<String>,
    /// All matchers, the one for the name included (last when `name` is given).
    pub matchers: Vec<Matcher>,
    /// `offset` and `@`.
    pub time: TimeModifiers,
    /// `anchored` or `smoothed` (flag `promql-extended-range-selectors`).
    pub extended: Option<ExtendedRange>,
}

/// Extended range selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtendedRange {
    /// Window borders take the samples at or before them.
    Anchored,
    /// Window borders are interpolated.
    Smoothed,
}

impl ExtendedRange {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}

/// `offset` and `@` of a selector or subquery.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeModifiers {
    /// The offset as written.
    pub offset: Option<DurationExpr>,
    /// The fixed time.
    pub at: Option<At>,
}

/// The operand of `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// A time in milliseconds.
    Time(Timestamp),
    /// `start()`
    Start,
    /// `end()`
    End,
}

/// A selector of range vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// The series; carries `offset` and `@`.
    pub vector: VectorSelector,
    /// Where the instant selector within stands.
    pub vector_span: Span,
    /// Length of the window.
    pub range: DurationExpr,
}

/// An expression evaluated over a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Box<Expr>,
    /// Length of the window.
    pub range: DurationExpr,
    /// Distance of steps; `None`: the default evaluation interval.
    pub step: Option<DurationExpr>,
    /// `offset` and `@`.
    pub time: TimeModifiers,
}

/// A number.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// Its value; seconds when written as a duration.
    pub value: f64,
    /// Whether it was written as a duration.
    pub is_duration: bool,
}

/// Bits are compared, so that NaN equals itself.
impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits() && self.is_duration == other.is_duration
    }
}

/// A sign before an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Whether it is `-` (else `+`).
    pub negative: bool,
    /// The operand.
    pub expr: Box<Expr>,
}

/// An arithmetic expression of durations, in ranges, steps and offsets.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// What it is.
    pub kind: DurationKind,
    /// Where it stands.
    pub span: Span,
}

impl DurationExpr {
    /// The seconds of a plain literal.
    pub fn literal(&self) -> Option<f64> {
        match self.kind {
            DurationKind::Literal { seconds, .. } => Some(seconds),
            _ => None,
        }
    }
}

/// The kinds of duration expression.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// A literal (may be negative). One that is the whole of a range, step or offset counts in full milliseconds.
    Literal {
        /// Seconds.
        seconds: f64,
        /// Whether it was written as a plain number; false where the literal is the whole duration.
        is_number: bool,
    },
    /// `step()`: the step of the query.
    Step,
    /// `range()`: the length of the query.
    Range,
    /// `min_of(a, b)`
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `a + b` and its like.
    Binary(DurationOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `-a`
    Negate(Box<DurationExpr>),
    /// `+a`
    Plus(Box<DurationExpr>),
    /// `(a)`
    Paren(Box<DurationExpr>),
}

/// Operators on durations; both sides count in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the operators' own")]
pub enum DurationOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}
