//! The engine: options, limits, metrics, and the way from a text to a result.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::storage::{Queryable, SeriesColumns};
use model::{Labels, Sample, TimeRange, Timestamp};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry};
use tokio::time::Instant;

use super::column::{Cell, Column};
use super::error::{QueryError, QueryErrorKind};
use super::eval::{ScalarColumn, range_stream, remove_metadata, scalar, vector};
use super::state::{EvalFeatures, Limits, SampleCounter, State};
use super::steps::Steps;
use super::stream::Stream;
use super::value::{MatrixSeries, PointValue, QueryResult, QueryStats, QueryValue, VectorSample};
use crate::ast::{Expr, ExtendedRange, ValueType};
use crate::parse::{ParseOptions, QueryTimes, parse, value_type};
use crate::plan::{self, Plan, RangePlan};

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
    /// Longest time a query may take.
    pub timeout: Duration,
    /// Step of subqueries that name none: the global evaluation interval.
    pub subquery_step: SubqueryStep,
    /// Which parts of the language are on.
    pub parse: ParseOptions,
    /// Which variants of meaning are on.
    pub features: EvalFeatures,
    /// Where the engine's own metrics go.
    pub registry: Option<Registry>,
}

impl Default for EngineOptions {
    /// Prometheus' defaults: 5 minutes, 50 million samples, 2 minutes, a step of 1 minute.
    fn default() -> Self {
        Self {
            lookback_delta_ms: 5 * 60_000,
            max_samples: 50_000_000,
            timeout: Duration::from_secs(120),
            subquery_step: SubqueryStep::fixed(60_000),
            parse: ParseOptions::default(),
            features: EvalFeatures::default(),
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
}

/// An expression with its text; to be evaluated any number of times.
#[derive(Clone, Debug)]
pub struct ParsedQuery {
    text: String,
    expr: Expr,
    /// Levels of the tree.
    depth: usize,
}

/// Levels of nesting up to which a query runs on the caller's stack: evaluation recurses, with up to some 10 KiB per
/// level in unoptimised builds, and worker threads have 2 MiB.
const DEPTH_ON_CALLERS_STACK: usize = 40;

/// Stack for deeper ones; the parser ends nesting at 500 levels. Memory is only touched as far as it is needed.
const DEEP_STACK_BYTES: usize = 64 << 20;

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

/// Runs queries. Cheap to share; all calls are synchronous and belong on a thread for calculations.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    metrics: Metrics,
}

#[derive(Debug)]
struct Metrics {
    queries: IntGauge,
    samples: IntCounter,
    durations: HistogramVec,
}

impl Metrics {
    fn new(registry: Option<&Registry>) -> Self {
        let queries = IntGauge::new(
            "prometheus_engine_queries",
            "The current number of queries being executed or waiting.",
        );
        let samples = IntCounter::new(
            "prometheus_engine_query_samples_total",
            "The total number of samples loaded by all queries.",
        );
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "prometheus_engine_query_duration_histogram_seconds",
                "The duration of various parts of PromQL query execution.",
            )
            .buckets(vec![0.01, 0.1, 1.0, 10.0]),
            &["slice"],
        );
        let metrics = Self {
            queries: queries.expect("the metric's name is valid"),
            samples: samples.expect("the metric's name is valid"),
            durations: durations.expect("the metric's name is valid"),
        };
        if let Some(registry) = registry {
            let all: [Box<dyn prometheus::core::Collector>; 3] = [
                Box::new(metrics.queries.clone()),
                Box::new(metrics.samples.clone()),
                Box::new(metrics.durations.clone()),
            ];
            for collector in all {
                if let Err(error) = registry.register(collector) {
                    tracing::warn!(%error, "engine metric not registered");
                }
            }
        }
        metrics
    }
}

/// Counts a running query for as long as it lives, also when it panics.
struct Counted<'a>(&'a IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// When an expression is evaluated.
#[derive(Clone, Copy)]
enum When {
    At(Timestamp),
    Over { start: Timestamp, end: Timestamp, step: i64 },
}

impl When {
    fn steps(self) -> Steps {
        match self {
            Self::At(t) => Steps::instant(t),
            Self::Over { start, end, step } => Steps::range(start, end, step),
        }
    }

    fn times(self) -> QueryTimes {
        match self {
            Self::At(t) => QueryTimes { start: t, end: t, step: 0 },
            Self::Over { start, end, step } => QueryTimes { start, end, step },
        }
    }

    fn is_instant(self) -> bool {
        matches!(self, Self::At(_))
    }
}

impl Engine {
    /// An engine; registers its metrics.
    pub fn new(options: EngineOptions) -> Self {
        let metrics = Metrics::new(options.registry.as_ref());
        Self { options, metrics }
    }

    /// The options it was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Parses a text.
    ///
    /// # Errors
    /// When it is no PromQL ([`QueryErrorKind::BadData`]).
    pub fn parse(&self, text: &str) -> Result<ParsedQuery, QueryError> {
        let expr =
            parse(text, &self.options.parse).map_err(|error| QueryError::bad_data(error.to_string()))?;
        let depth = depth(&expr);
        Ok(ParsedQuery { text: text.to_owned(), expr, depth })
    }

    /// Evaluates at one time.
    ///
    /// # Errors
    /// When the query cannot be evaluated, takes too long, needs too much memory, or was cancelled.
    pub fn instant(
        &self,
        storage: &dyn Queryable,
        query: &ParsedQuery,
        t: Timestamp,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        self.run(storage, query, When::At(t), options)
    }

    /// Evaluates from `start` to `end`, both included, every `step_ms` milliseconds.
    ///
    /// # Errors
    /// As [`Engine::instant`]; and when the expression is neither a scalar nor an instant vector, or `step_ms` is not
    /// positive.
    pub fn range(
        &self,
        storage: &dyn Queryable,
        query: &ParsedQuery,
        start: Timestamp,
        end: Timestamp,
        step_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let kind = value_type(&query.expr);
        if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            return Err(QueryError::bad_data(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                kind.documented()
            )));
        }
        if step_ms <= 0 {
            return Err(QueryError::bad_data(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        self.run(storage, query, When::Over { start, end, step: step_ms }, options)
    }

    fn run(
        &self,
        storage: &dyn Queryable,
        query: &ParsedQuery,
        when: When,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let _counted = Counted::new(&self.metrics.queries);
        if query.depth <= DEPTH_ON_CALLERS_STACK {
            self.run_here(storage, query, when, options, rayon::current_num_threads())
        } else {
            self.run_deep(storage, query, when, options)
        }
    }

    /// Runs a deeply nested query, alone, on a thread with a stack of its own.
    fn run_deep(
        &self,
        storage: &dyn Queryable,
        query: &ParsedQuery,
        when: When,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        std::thread::scope(|scope| {
            let deep = std::thread::Builder::new()
                .name("deep-query".to_owned())
                .stack_size(DEEP_STACK_BYTES)
                .spawn_scoped(scope, || self.run_here(storage, query, when, options, 1));
            let failed =
                |what: &str| QueryError::new(QueryErrorKind::Internal, format!("deep query: {what}"));
            match deep {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(failed("the thread panicked"))),
                Err(error) => Err(failed(&error.to_string())),
            }
        })
    }

    fn run_here(
        &self,
        storage: &dyn Queryable,
        query: &ParsedQuery,
        when: When,
        options: &QueryOptions,
        threads: usize,
    ) -> Result<QueryResult, QueryError> {
        let began = Instant::now();
        let steps = when.steps();
        let timeout =
            options.timeout.map_or(self.options.timeout, |timeout| timeout.min(self.options.timeout));
        let limits =
            Limits::new(options.cancel.clone(), began.checked_add(timeout), self.options.max_samples);
        limits.check()?;
        limits.admit(steps.count)?;
        let subquery_step = &self.options.subquery_step.0;
        let plan = plan::build(&query.expr, &when.times(), &|range_ms| subquery_step(range_ms))?;
        let lookback_ms = options.lookback_delta_ms.unwrap_or(self.options.lookback_delta_ms).max(1);
        let times = TimeRange::new(steps.start, steps.last());
        let extent = plan::extent(&plan, times, lookback_ms).unwrap_or(times);
        let querier = storage.querier(extent)?;
        let counter = SampleCounter::new(options.per_step_stats.then_some(steps));
        let state = State::new(&*querier, lookback_ms, self.options.features, limits, counter, threads);
        let prepared = Instant::now();
        let mut stats = QueryStats { prepare: prepared - began, ..QueryStats::default() };
        if !when.is_instant() {
            note_ineffective_sort(&state, &query.expr);
        }
        let mut value = evaluate(&state, &plan, steps, when.is_instant())?;
        let evaluated = Instant::now();
        stats.inner_eval = evaluated - prepared;
        if let QueryValue::Matrix(series) = &mut value {
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        stats.result_sort = evaluated.elapsed();
        stats.total_samples = state.samples.total();
        stats.samples_per_step = state.samples.steps();
        stats.peak_samples = state.limits.peak();
        stats.series = state.series.load(Ordering::Relaxed);
        self.metrics.samples.inc_by(stats.total_samples);
        for (slice, duration) in [
            ("prepare_time", stats.prepare),
            ("inner_eval", stats.inner_eval),
            ("result_sort", stats.result_sort),
        ] {
            self.metrics.durations.with_label_values(&[slice]).observe(duration.as_secs_f64());
        }
        let annotations = state.notes.finish(&query.text);
        Ok(QueryResult { value, annotations, stats })
    }
}

/// Sorting the outermost result of a range query does nothing.
fn note_ineffective_sort(state: &State<'_>, expr: &Expr) {
    use crate::ast::ExprKind;
    match &expr.kind {
        ExprKind::Paren(inner) => note_ineffective_sort(state, inner),
        ExprKind::Call(call) if call.func.name.starts_with("sort") => state.notes.sort_in_range_query(),
        _ => {}
    }
}

fn evaluate<'q>(
    state: &'q State<'q>,
    plan: &'q Plan,
    steps: Steps,
    instant: bool,
) -> Result<QueryValue, QueryError> {
    match plan {
        Plan::Text(text) => Ok(QueryValue::String { t: steps.start, value: text.clone() }),
        Plan::Scalar(plan) => {
            let values = scalar(state, plan, steps)?;
            Ok(scalar_value(&values, steps, instant))
        }
        Plan::Vector(plan) => {
            let stream = vector(state, plan, steps)?;
            let stream = remove_metadata(state, stream, false, |head| head.drop_name)?;
            if instant { vector_value(state, &stream) } else { matrix_value(state, &stream) }
        }
        Plan::Range(plan) => range_value(state, plan, steps),
    }
}

fn scalar_value(values: &ScalarColumn, steps: Steps, instant: bool) -> QueryValue {
    if instant {
        return QueryValue::Scalar(Sample { t: steps.start, v: values.at(0) });
    }
    let floats = (0..steps.count).map(|step| Sample { t: steps.at(step), v: values.at(step) }).collect();
    QueryValue::Matrix(vec![MatrixSeries { labels: Labels::empty(), floats, histograms: Vec::new() }])
}

fn vector_value(state: &State<'_>, stream: &Stream<'_>) -> Result<QueryValue, QueryError> {
    let t = stream.steps.start;
    let mut samples = Vec::with_capacity(stream.len());
    stream.for_each(state, |index, column| {
        let value = match column.cell(0) {
            None => return Ok(()),
            Some(Cell::Float(value)) => PointValue::Float(value),
            Some(Cell::Histogram(histogram)) => PointValue::Histogram(Arc::clone(histogram)),
        };
        samples.push(VectorSample { labels: stream.heads[index].labels.clone(), t, value });
        state.limits.hold(column.sample_size())
    })?;
    Ok(QueryValue::Vector(samples))
}

fn matrix_value(state: &State<'_>, stream: &Stream<'_>) -> Result<QueryValue, QueryError> {
    let mut series = Vec::new();
    stream.for_each(state, |index, column| {
        if column.is_empty() {
            return Ok(());
        }
        state.limits.hold(column.sample_size())?;
        series.push(points(stream.heads[index].labels.clone(), column, stream.steps));
        Ok(())
    })?;
    Ok(QueryValue::Matrix(series))
}

fn points(labels: Labels, column: &Column, steps: Steps) -> MatrixSeries {
    let mut floats = Vec::with_capacity(column.float_count());
    column.for_each_float(|step, v| floats.push(Sample { t: steps.at(step), v }));
    let histograms = column
        .histograms()
        .iter()
        .map(|(step, histogram)| (steps.at(*step as usize), Arc::clone(histogram)))
        .collect();
    MatrixSeries { labels, floats, histograms }
}

/// The samples of a range vector as they are stored.
fn range_value<'q>(
    state: &'q State<'q>,
    plan: &'q RangePlan,
    steps: Steps,
) -> Result<QueryValue, QueryError> {
    let end = plan.time().resolve(steps.start);
    let start = end.saturating_sub(plan.window_ms());
    let stream = range_stream(state, plan, steps)?;
    let mut series = Vec::new();
    state.with_scratch(|scratch| -> Result<(), QueryError> {
        let mut samples = SeriesColumns::default();
        for (index, head) in stream.heads.iter().enumerate() {
            state.limits.check()?;
            stream.source.read(index, &mut samples, scratch)?;
            let labels = if head.drop_name {
                super::labels::without_metadata(&head.labels)
            } else {
                head.labels.clone()
            };
            let one = match plan.extended() {
                None => raw_points(labels, &samples, start, end),
                Some(modifier) => extended_points(labels, &samples, start, end, modifier)?,
            };
            let size = one.floats.len() + one.histograms.len();
            if size > 0 {
                state.limits.hold(size)?;
                state.samples.add(steps, size as u64, |_| size as u64);
                series.push(one);
            }
        }
        Ok(())
    })?;
    Ok(QueryValue::Matrix(series))
}

fn raw_points(labels: Labels, samples: &SeriesColumns, start: Timestamp, end: Timestamp) -> MatrixSeries {
    let within = |t: Timestamp| t > start && t <= end;
    let floats = samples.float_times.iter().zip(&samples.float_values);
    let histograms = samples.histogram_times.iter().zip(&samples.histograms);
    MatrixSeries {
        labels,
        floats: floats.filter(|(t, _)| within(**t)).map(|(t, v)| Sample { t: *t, v: *v }).collect(),
        histograms: histograms.filter(|(t, _)| within(**t)).map(|(t, h)| (*t, Arc::clone(h))).collect(),
    }
}

fn extended_points(
    labels: Labels,
    samples: &SeriesColumns,
    start: Timestamp,
    end: Timestamp,
    modifier: ExtendedRange,
) -> Result<MatrixSeries, QueryError> {
    if !samples.histograms.is_empty() {
        return Err(QueryError::new(
            QueryErrorKind::Execution,
            "anchored modifier is not supported with histograms",
        ));
    }
    let smoothed = modifier == ExtendedRange::Smoothed;
    let floats =
        super::extended::extend_floats(&samples.float_times, &samples.float_values, start, end, smoothed);
    Ok(MatrixSeries { labels, floats, histograms: Vec::new() })
}
