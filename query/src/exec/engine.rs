//! The engine: the way from a text to a result, with everything that is done beside it: register, limits, log, metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::storage::Queryable;
use model::{Clock, TimeRange, Timestamp};
use parking_lot::RwLock;
use prometheus::IntCounter;
use tokio::time::Instant;

use super::error::{QueryError, QueryErrorKind};
use super::explain::{self, Analysis, Explanation, PlanNode, Profile};
use super::limits::{Bounds, Limits, Stops};
use super::memory::{MemoryBudget, MemoryHold};
use super::metrics::Metrics;
use super::options::{EngineOptions, ParsedQuery, QueryOptions, When};
use super::output;
use super::query_log::{self, QueryLog};
use super::register::{Entry, LostQueries, QueryOrigin, QueryRegister, QueryTicket, QueryTracker};
use super::state::{SampleCounter, State};
use super::value::{QueryResult, QueryStats, QueryValue};
use crate::ast::ValueType;
use crate::parse::{parse, value_type};
use crate::plan;

/// Levels of nesting up to which a query runs on the caller's stack: evaluation recurses, with up to some 10 KiB per
/// level in unoptimised builds, and worker threads have 2 MiB.
const DEPTH_ON_CALLERS_STACK: usize = 40;

/// Stack for deeper ones; the parser ends nesting at 500 levels. Memory is only touched as far as it is needed.
const DEEP_STACK_BYTES: usize = 64 << 20;

/// Runs queries. Cheap to share; all calls are synchronous and belong on a thread for calculations.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    register: Arc<QueryRegister>,
    reports: Arc<Reports>,
}

/// Where the ends of queries are told.
#[derive(Debug)]
struct Reports {
    clock: Option<Arc<dyn Clock>>,
    metrics: Metrics,
    query_log: RwLock<Option<Arc<dyn QueryLog>>>,
}

/// A query that is remembered while it runs.
struct Tracked<'a> {
    tracker: &'a dyn QueryTracker,
    number: usize,
}

impl<'a> Tracked<'a> {
    fn begin(tracker: &'a dyn QueryTracker, text: &str) -> Option<Self> {
        Some(Self { number: tracker.begin(text)?, tracker })
    }
}

impl Drop for Tracked<'_> {
    fn drop(&mut self) {
        self.tracker.end(self.number);
    }
}

/// What running a query gave.
struct Outcome {
    value: QueryValue,
    annotations: model::Annotations,
    memory: Option<Arc<MemoryHold>>,
    /// The plan with its counters, when that was asked for.
    tree: Option<PlanNode>,
    lookback_ms: i64,
    extent: Option<TimeRange>,
    steps: usize,
}

/// A query on its way: what its evaluation needs to know, and the statistics it leaves, also when it fails.
struct Run<'a> {
    query: &'a ParsedQuery,
    when: When,
    options: &'a QueryOptions,
    ticket: &'a QueryTicket,
    analyze: bool,
    stats: QueryStats,
}

impl Engine {
    /// An engine; registers its metrics.
    pub fn new(options: EngineOptions) -> Self {
        let metrics = Metrics::new(options.registry.as_ref(), options.concurrency, &options.memory);
        let register =
            QueryRegister::new(options.clock.clone(), options.slow_threshold, metrics.of_register());
        let reports = Reports { clock: options.clock.clone(), metrics, query_log: RwLock::default() };
        Self { register: Arc::new(register), options, reports: Arc::new(reports) }
    }

    /// The options it was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Queries that run or wait, and those that were slow.
    pub fn register(&self) -> &Arc<QueryRegister> {
        &self.register
    }

    /// What all queries may hold together: answers on their way are counted there, too.
    pub fn memory(&self) -> &MemoryBudget {
        &self.options.memory
    }

    /// Where a line for each query goes from now on; `None`: nowhere.
    pub fn set_query_log(&self, log: Option<Arc<dyn QueryLog>>) {
        self.reports.metrics.log_enabled.set(i64::from(log.is_some()));
        let old = std::mem::replace(&mut *self.reports.query_log.write(), log);
        // Closing a log may wait for a disk: not while queries that end wait for the lock.
        drop(old);
    }

    /// Counts lines of the query log that are lost: for those who write them.
    pub fn query_log_failures(&self) -> IntCounter {
        self.reports.metrics.log_failures.clone()
    }

    /// Parses a text.
    ///
    /// # Errors
    /// When it is no PromQL ([`QueryErrorKind::BadData`]).
    pub fn parse(&self, text: &str) -> Result<ParsedQuery, QueryError> {
        let expr =
            parse(text, &self.options.parse).map_err(|error| QueryError::bad_data(error.to_string()))?;
        Ok(ParsedQuery::new(text, expr))
    }

    /// Enters a query in the register, to be handed over in [`QueryOptions::ticket`]. Its time runs from now on.
    pub fn enter(
        &self,
        text: &str,
        when: When,
        origin: QueryOrigin,
        timeout: Option<Duration>,
    ) -> Arc<QueryTicket> {
        let longest = self.options.timeout;
        let timeout = timeout.map_or(longest, |timeout| timeout.min(longest));
        let mut ticket = self.register.enter(Entry { text, origin, times: when.times(), timeout });
        ticket.tell(Arc::clone(&self.reports) as Arc<dyn LostQueries>);
        Arc::new(ticket)
    }

    /// A query ends without having been evaluated: it is counted and logged as failed.
    pub fn gave_up(&self, query: &ParsedQuery, ticket: &QueryTicket, error: &QueryError) {
        self.reports.lost(&query.text, ticket, error);
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
        self.run(storage, query, When::Over { start, end, step: step_ms }, options)
    }

    /// Evaluates.
    ///
    /// # Errors
    /// As [`Engine::instant`] or [`Engine::range`].
    pub fn run(
        &self,
        storage: &dyn Queryable,
        query: &ParsedQuery,
        when: When,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let (outcome, stats) = self.go(storage, query, when, options, false)?;
        let Outcome { value, annotations, memory, .. } = outcome;
        Ok(QueryResult { value, annotations, stats, memory })
    }

    /// Evaluates a query to see what each operator of its plan takes.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn analyze(
        &self,
        storage: &dyn Queryable,
        query: &ParsedQuery,
        when: When,
        options: &QueryOptions,
    ) -> Result<Explanation, QueryError> {
        let (outcome, stats) = self.go(storage, query, when, options, true)?;
        let (result_series, result_points) = size_of_value(&outcome.value);
        Ok(Explanation {
            text: query.text.clone(),
            times: when.times(),
            steps: outcome.steps,
            lookback_ms: outcome.lookback_ms,
            extent: outcome.extent,
            value_type: value_type(&query.expr),
            root: outcome.tree.unwrap_or_default(),
            analysis: Some(Analysis { stats, result_series, result_points }),
        })
    }

    /// The plan of a query; nothing is read.
    ///
    /// # Errors
    /// When there is no plan for it.
    pub fn explain(
        &self,
        query: &ParsedQuery,
        when: When,
        lookback_delta_ms: Option<i64>,
    ) -> Result<Explanation, QueryError> {
        check_when(query, when)?;
        let explain = || {
            let (plan, lookback_ms, extent) = self.plan(query, when, lookback_delta_ms)?;
            Ok(Explanation {
                text: query.text.clone(),
                times: when.times(),
                steps: when.steps().count,
                lookback_ms,
                extent,
                value_type: value_type(&query.expr),
                root: explain::tree(&plan, None),
                analysis: None,
            })
        };
        if query.depth <= DEPTH_ON_CALLERS_STACK { explain() } else { on_deep_stack(explain) }
    }

    /// The plan, the lookback delta, and the stored time that selectors look at.
    fn plan(
        &self,
        query: &ParsedQuery,
        when: When,
        lookback_delta_ms: Option<i64>,
    ) -> Result<(plan::Plan, i64, Option<TimeRange>), QueryError> {
        let subquery_step = &self.options.subquery_step.0;
        let plan = plan::build(&query.expr, &when.times(), &|range_ms| subquery_step(range_ms))?;
        let lookback_ms = lookback_delta_ms.unwrap_or(self.options.lookback_delta_ms).max(1);
        let steps = when.steps();
        let times = TimeRange::new(steps.start, steps.last());
        let extent = plan::extent(&plan, times, lookback_ms);
        Ok((plan, lookback_ms, extent))
    }

    fn go(
        &self,
        storage: &dyn Queryable,
        query: &ParsedQuery,
        when: When,
        options: &QueryOptions,
        analyze: bool,
    ) -> Result<(Outcome, QueryStats), QueryError> {
        let ticket = match &options.ticket {
            Some(ticket) => Arc::clone(ticket),
            None => self.enter(&query.text, when, QueryOrigin::Internal, options.timeout),
        };
        let stats = QueryStats { queued: ticket.start(), ..QueryStats::default() };
        let mut run = Run { query, when, options, ticket: &ticket, analyze, stats };
        let _tracked =
            self.options.tracker.as_deref().and_then(|tracker| Tracked::begin(tracker, &query.text));
        let outcome = if let Err(error) = check_when(query, when) {
            Err(error)
        } else if query.depth <= DEPTH_ON_CALLERS_STACK {
            self.evaluate(storage, &mut run, rayon::current_num_threads())
        } else {
            // Alone, without helpers: their stacks are small, too.
            on_deep_stack(|| self.evaluate(storage, &mut run, 1))
        };
        let progress = ticket.progress();
        run.stats.total_samples = progress.samples.load(Ordering::Relaxed);
        run.stats.samples_read = progress.read.load(Ordering::Relaxed);
        run.stats.peak_samples = progress.samples_peak();
        run.stats.peak_memory_bytes = progress.bytes_peak();
        run.stats.series = progress.series.load(Ordering::Relaxed);
        let stats = run.stats;
        self.reports.ended(&query.text, &ticket, &stats, outcome.as_ref().err());
        Ok((outcome?, stats))
    }

    fn evaluate(
        &self,
        storage: &dyn Queryable,
        run: &mut Run<'_>,
        threads: usize,
    ) -> Result<Outcome, QueryError> {
        let began = Instant::now();
        let Run { query, when, options, ticket, .. } = *run;
        let steps = when.steps();
        let bounds = Bounds {
            deadline: ticket.deadline(),
            samples_max: self.options.max_samples,
            series_max: self.options.max_series,
            bytes_max: self.options.max_query_bytes,
            budget: match ticket.origin() {
                QueryOrigin::Api(_) | QueryOrigin::Ui(_) => self.options.memory.without_reserve(),
                QueryOrigin::Rule(_) | QueryOrigin::Internal => self.options.memory.clone(),
            },
        };
        let stops = Stops { caller: options.cancel.clone(), operator: Some(ticket.stop_flag()) };
        let progress = ticket.progress();
        let limits = Limits::new(stops, bounds, Arc::clone(progress));
        limits.check()?;
        limits.admit(steps.count)?;
        let (plan, lookback_ms, extent) = self.plan(query, when, options.lookback_delta_ms)?;
        let querier = storage.querier(extent.unwrap_or(TimeRange::new(steps.start, steps.last())))?;
        let counter = SampleCounter::new(Arc::clone(progress), options.per_step_stats.then_some(steps));
        let profile = run.analyze.then(Profile::default);
        let state =
            State::new(&*querier, lookback_ms, self.options.features, limits, counter, profile, threads);
        let is_instant = when.is_instant();
        if !is_instant {
            output::note_ineffective_sort(&state, &query.expr);
        }
        let prepared = Instant::now();
        run.stats.prepare = prepared - began;
        let evaluated = output::evaluate(&state, &plan, steps, is_instant);
        run.stats.inner_eval = prepared.elapsed();
        run.stats.samples_per_step = state.samples.steps();
        let (mut value, bytes) = evaluated?;
        // What was only noted on the way, after the last look.
        state.limits.check()?;
        let sorting = Instant::now();
        if let QueryValue::Matrix(series) = &mut value {
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        run.stats.result_sort = sorting.elapsed();
        Ok(Outcome {
            value,
            tree: run.analyze.then(|| explain::tree(&plan, state.profile.as_ref())),
            annotations: state.notes.finish(&query.text),
            memory: state.limits.keep(bytes).map(Arc::new),
            lookback_ms,
            extent,
            steps: steps.count,
        })
    }
}

impl Reports {
    /// Counts, remembers and logs a query.
    fn ended(&self, text: &str, ticket: &QueryTicket, stats: &QueryStats, error: Option<&QueryError>) {
        self.metrics.observe(stats, error);
        ticket.finish(stats, error);
        let Some(log) = self.query_log.read().clone() else { return };
        let line = query_log::line(&query_log::Ended {
            now: self.clock.as_ref().map_or(0, |clock| clock.now_ms()),
            text,
            times: ticket.times(),
            origin: ticket.origin(),
            stats,
            error,
        });
        if !log.write(line) {
            self.metrics.log_failures.inc();
        }
    }
}

impl LostQueries for Reports {
    fn lost(&self, text: &str, ticket: &QueryTicket, error: &QueryError) {
        self.ended(text, ticket, &QueryStats { queued: ticket.age(), ..QueryStats::default() }, Some(error));
    }
}

/// Runs `f` on a thread with a stack of its own, for deeply nested queries.
fn on_deep_stack<T: Send>(f: impl FnOnce() -> Result<T, QueryError> + Send) -> Result<T, QueryError> {
    std::thread::scope(|scope| {
        let deep = std::thread::Builder::new()
            .name("deep-query".to_owned())
            .stack_size(DEEP_STACK_BYTES)
            .spawn_scoped(scope, f);
        let failed = |what: &str| QueryError::new(QueryErrorKind::Internal, format!("deep query: {what}"));
        match deep {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(failed("the thread panicked"))),
            Err(error) => Err(failed(&error.to_string())),
        }
    })
}

/// Range queries take scalars and instant vectors, and a positive step.
fn check_when(query: &ParsedQuery, when: When) -> Result<(), QueryError> {
    let When::Over { step, .. } = when else { return Ok(()) };
    let kind = value_type(&query.expr);
    if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
        return Err(QueryError::bad_data(format!(
            "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
            kind.documented()
        )));
    }
    if step <= 0 {
        return Err(QueryError::bad_data(
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    Ok(())
}

/// Series and points.
fn size_of_value(value: &QueryValue) -> (u64, u64) {
    match value {
        QueryValue::Scalar(_) | QueryValue::String { .. } => (1, 1),
        QueryValue::Vector(samples) => (samples.len() as u64, samples.len() as u64),
        QueryValue::Matrix(series) => {
            let points = series.iter().map(|one| one.floats.len() + one.histograms.len()).sum::<usize>();
            (series.len() as u64, points as u64)
        }
    }
}
