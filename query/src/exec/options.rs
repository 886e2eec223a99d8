//! What engines and queries are told: options, parsed texts, times.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::{Clock, Timestamp};
use prometheus::Registry;

use super::memory::MemoryBudget;
use super::register::{QueryTicket, QueryTracker};
use super::state::EvalFeatures;
use super::steps::Steps;
use crate::ast::Expr;
use crate::parse::{ParseOptions, QueryTimes};

/// The default step of subqueries, in milliseconds, for a subquery of so many milliseconds.
#[derive(Clone)]
pub struct SubqueryStep(pub Arc<dyn Fn(i64) -> i64 + Send + Sync>);

impl SubqueryStep {
    /// The same step for all subqueries.
    pub fn fixed(step_ms: i64) -> Self {
        Self(Arc::new(move |_| step_ms))
    }
}

impl fmt::Debug for SubqueryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubqueryStep")
    }
}

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How old the newest sample of a series may be to count as current, in milliseconds.
    pub lookback_delta_ms: i64,
    /// Most samples a query may hold in memory.
    pub max_samples: u64,
    /// Most series a query may select.
    pub max_series: u64,
    /// Most bytes of memory a query may hold.
    pub max_query_bytes: u64,
    /// What all queries may hold together.
    pub memory: MemoryBudget,
    /// Longest time a query may take, waiting for a place included.
    pub timeout: Duration,
    /// Queries that run at once, for the metric of that name: who calls sees to it.
    pub concurrency: usize,
    /// Queries that take as long are remembered, and logged.
    pub slow_threshold: Duration,
    /// Wall clock, for what is shown and logged; without one that is 1970.
    pub clock: Option<Arc<dyn Clock>>,
    /// Step of subqueries that name none: the global evaluation interval.
    pub subquery_step: SubqueryStep,
    /// Which parts of the language are on.
    pub parse: ParseOptions,
    /// Which variants of meaning are on.
    pub features: EvalFeatures,
    /// Hears of evaluations.
    pub tracker: Option<Arc<dyn QueryTracker>>,
    /// Where the engine's own metrics go.
    pub registry: Option<Registry>,
}

impl Default for EngineOptions {
    /// Prometheus' defaults: 5 minutes, 50 million samples, 2 minutes, a step of 1 minute. Memory and series are not
    /// bounded.
    fn default() -> Self {
        Self {
            lookback_delta_ms: 5 * 60_000,
            max_samples: 50_000_000,
            max_series: u64::MAX,
            max_query_bytes: u64::MAX,
            memory: MemoryBudget::unlimited(),
            timeout: Duration::from_secs(120),
            concurrency: 20,
            slow_threshold: Duration::from_secs(5),
            clock: None,
            subquery_step: SubqueryStep::fixed(60_000),
            parse: ParseOptions::default(),
            features: EvalFeatures::default(),
            tracker: None,
            registry: None,
        }
    }
}

/// What one query wants differently.
#[derive(Clone, Debug, Default)]
pub struct QueryOptions {
    /// Another lookback delta, in milliseconds.
    pub lookback_delta_ms: Option<i64>,
    /// A shorter time limit; never longer than the engine's.
    pub timeout: Option<Duration>,
    /// Set from outside to stop the query.
    pub cancel: Option<Arc<AtomicBool>>,
    /// Whether samples are counted per step.
    pub per_step_stats: bool,
    /// The query's place in the register; without one it is entered as the process' own. Its deadline is the query's.
    pub ticket: Option<Arc<QueryTicket>>,
}

/// An expression with its text; to be evaluated any number of times.
#[derive(Clone, Debug)]
pub struct ParsedQuery {
    pub(super) text: String,
    pub(super) expr: Expr,
    /// Levels of the tree.
    pub(super) depth: usize,
}

fn depth(expr: &Expr) -> usize {
    let mut deepest = 0;
    let mut open = vec![(expr, 1)];
    while let Some((expr, depth)) = open.pop() {
        deepest = deepest.max(depth);
        open.extend(expr.children().into_iter().map(|child| (child, depth + 1)));
    }
    deepest
}

impl ParsedQuery {
    pub(super) fn new(text: &str, expr: Expr) -> Self {
        Self { text: text.to_owned(), depth: depth(&expr), expr }
    }

    /// The text as given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expression.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }
}

/// A query made of a tree; its text is the tree printed.
impl From<Expr> for ParsedQuery {
    fn from(expr: Expr) -> Self {
        Self { text: expr.to_string(), depth: depth(&expr), expr }
    }
}

/// When an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Once.
    At(Timestamp),
    /// From `start` to `end`, both included.
    Over {
        /// First time.
        start: Timestamp,
        /// Last time, if steps meet it.
        end: Timestamp,
        /// Milliseconds between two.
        step: i64,
    },
}

impl When {
    pub(super) fn steps(self) -> Steps {
        match self {
            Self::At(t) => Steps::instant(t),
            Self::Over { start, end, step } => Steps::range(start, end, step),
        }
    }

    /// The same as `step()` and `range()` see it.
    pub fn times(self) -> QueryTimes {
        match self {
            Self::At(t) => QueryTimes { start: t, end: t, step: 0 },
            Self::Over { start, end, step } => QueryTimes { start, end, step },
        }
    }

    pub(super) fn is_instant(self) -> bool {
        matches!(self, Self::At(_))
    }
}
