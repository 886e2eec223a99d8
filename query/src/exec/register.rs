//! The register of queries: which run or wait, where they come from, how far they are; and which were slow.
//!
//! Who runs a query enters it first ([`QueryRegister::enter`]) and gets a ticket. The ticket goes with the query; when it
//! is dropped, the query is off the list. An operator stops a query by its number.
//!
//! How many can be on the list is bounded by who enters: HTTP by its places and its queue, rules by the number of groups
//! that evaluate at once. The list of slow queries is a ring.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{Clock, Timestamp};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{QueryError, QueryErrorKind};
use super::limits::Progress;
use super::value::QueryStats;
use crate::parse::QueryTimes;

/// Slow queries that are remembered.
const SLOW_MAX: usize = 100;
/// Most bytes of a query's text, or of an error's, that are kept.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Hears of evaluations while they run, to remember them beyond the process.
pub trait QueryTracker: Send + Sync + fmt::Debug {
    /// A query begins; `None`: it is not remembered.
    fn begin(&self, text: &str) -> Option<usize>;
    /// What `begin` gave a number has ended.
    fn end(&self, number: usize);
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryOrigin {
    /// A program, over HTTP.
    Api(HttpOrigin),
    /// A browser that shows our own pages.
    Ui(HttpOrigin),
    /// A rule.
    Rule(RuleOrigin),
    /// The process itself.
    #[default]
    Internal,
}

impl QueryOrigin {
    /// A word for it: `api`, `ui`, `rule`, `internal`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Api(_) => "api",
            Self::Ui(_) => "ui",
            Self::Rule(_) => "rule",
            Self::Internal => "internal",
        }
    }
}

/// A request that brought a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpOrigin {
    /// Address of the client, without port.
    pub client: String,
    /// `GET` or `POST`.
    pub method: String,
    /// Path without parameters.
    pub path: String,
    /// What the client calls itself; may be empty.
    pub user_agent: String,
}

/// A rule that evaluates a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleOrigin {
    /// The file of its group.
    pub file: String,
    /// Name of its group.
    pub group: String,
    /// Name of the alert or of the recorded series.
    pub rule: String,
}

/// A query that asks to be entered.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its text.
    pub text: &'a str,
    /// Who asks.
    pub origin: QueryOrigin,
    /// What times it is evaluated at; of instant queries, a step of 0.
    pub times: QueryTimes,
    /// How long it may take, waiting included.
    pub timeout: Duration,
}

/// What a query is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryState {
    /// It waits for a place.
    Queued,
    /// It is evaluated.
    Running,
    /// It was told to stop and has not ended yet.
    Stopping,
}

impl QueryState {
    /// `queued`, `running` or `stopping`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}

/// A query on the list, as it is now.
#[derive(Clone, Debug)]
pub struct RunningQuery {
    /// Its number, which no other query of this process has had.
    pub id: u64,
    /// Its text, cut when it is very long.
    pub text: Arc<str>,
    /// Who asks.
    pub origin: QueryOrigin,
    /// What times it is evaluated at.
    pub times: QueryTimes,
    /// What it is doing.
    pub state: QueryState,
    /// When it came, by the wall clock.
    pub entered: Timestamp,
    /// How long it has been here.
    pub elapsed: Duration,
    /// How long it may stay.
    pub timeout: Duration,
    /// Series selected so far.
    pub series: u64,
    /// Samples looked at so far, counted anew for each step.
    pub samples: u64,
    /// Bytes held now.
    pub memory_bytes: u64,
}

/// A query that took long.
#[derive(Clone, Debug)]
pub struct SlowQuery {
    /// Its number.
    pub id: u64,
    /// Its text, cut when it is very long.
    pub text: Arc<str>,
    /// Who asked.
    pub origin: QueryOrigin,
    /// What times it was evaluated at.
    pub times: QueryTimes,
    /// When it came, by the wall clock.
    pub entered: Timestamp,
    /// How long it waited for a place.
    pub queued: Duration,
    /// How long it took, waiting included.
    pub elapsed: Duration,
    /// Series selected.
    pub series: u64,
    /// Samples looked at, counted anew for each step.
    pub samples: u64,
    /// Most samples held at once.
    pub peak_samples: u64,
    /// Most bytes held at once.
    pub peak_memory_bytes: u64,
    /// How it failed, if it did.
    pub error: Option<(QueryErrorKind, String)>,
}

/// All queries of an engine. Cheap to share.
#[derive(Debug)]
pub struct QueryRegister {
    clock: Option<Arc<dyn Clock>>,
    slow_threshold: Duration,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Arc<Entered>>>,
    slow: Mutex<VecDeque<SlowQuery>>,
    queries: IntGauge,
    slow_total: IntCounter,
    stopped_total: IntCounter,
}

/// The register's own metrics.
#[derive(Debug)]
pub(crate) struct RegisterMetrics {
    pub(crate) queries: IntGauge,
    pub(crate) slow: IntCounter,
    pub(crate) stopped: IntCounter,
}

/// What is known of a query while it is on the list.
#[derive(Debug)]
struct Entered {
    text: Arc<str>,
    origin: QueryOrigin,
    times: QueryTimes,
    timeout: Duration,
    at: Timestamp,
    since: Instant,
    started: OnceLock<Instant>,
    stop: Arc<AtomicBool>,
    /// Wakes whoever waits for a place.
    stopped: CancellationToken,
    progress: Arc<Progress>,
    /// Whether its end was told.
    ended: AtomicBool,
}

impl QueryRegister {
    pub(crate) fn new(
        clock: Option<Arc<dyn Clock>>,
        slow_threshold: Duration,
        metrics: RegisterMetrics,
    ) -> Self {
        let RegisterMetrics { queries, slow, stopped } = metrics;
        Self {
            clock,
            slow_threshold,
            next: AtomicU64::new(1),
            running: Mutex::default(),
            slow: Mutex::default(),
            queries,
            slow_total: slow,
            stopped_total: stopped,
        }
    }

    /// Enters a query; it is on the list until the ticket is dropped.
    pub fn enter(self: &Arc<Self>, entry: Entry<'_>) -> QueryTicket {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entered = Arc::new(Entered {
            text: cut(entry.text, TEXT_BYTES_MAX).into(),
            origin: entry.origin,
            times: entry.times,
            timeout: entry.timeout,
            at: self.clock.as_ref().map_or(0, |clock| clock.now_ms()),
            since: Instant::now(),
            started: OnceLock::new(),
            stop: Arc::default(),
            stopped: CancellationToken::new(),
            progress: Arc::default(),
            ended: AtomicBool::new(false),
        });
        self.running.lock().insert(id, Arc::clone(&entered));
        self.queries.inc();
        QueryTicket { id, register: Arc::clone(self), entered, lost: None }
    }

    /// Queries that run or wait, the oldest first.
    pub fn running(&self) -> Vec<RunningQuery> {
        self.running.lock().iter().map(|(id, entered)| entered.shown(*id)).collect()
    }

    /// Slow queries, the newest first.
    pub fn slow(&self) -> Vec<SlowQuery> {
        self.slow.lock().iter().rev().cloned().collect()
    }

    /// From what time on a query is slow.
    pub fn slow_threshold(&self) -> Duration {
        self.slow_threshold
    }

    /// Tells a query to stop, and the log who wants it; false when there is none of this number.
    pub fn stop(&self, id: u64, by: &HttpOrigin) -> bool {
        let Some(entered) = self.running.lock().get(&id).cloned() else { return false };
        if !entered.stop.swap(true, Ordering::Relaxed) {
            self.stopped_total.inc();
            tracing::info!(
                id,
                query = &*entered.text,
                origin = entered.origin.as_str(),
                client = by.client,
                user_agent = by.user_agent,
                "query told to stop"
            );
        }
        entered.stopped.cancel();
        true
    }

    fn remember(&self, slow: SlowQuery) {
        self.slow_total.inc();
        tracing::info!(
            id = slow.id,
            query = &*slow.text,
            origin = slow.origin.as_str(),
            seconds = slow.elapsed.as_secs_f64(),
            series = slow.series,
            samples = slow.samples,
            "slow query"
        );
        let mut ring = self.slow.lock();
        if ring.len() == SLOW_MAX {
            ring.pop_front();
        }
        ring.push_back(slow);
    }
}

impl Entered {
    fn shown(&self, id: u64) -> RunningQuery {
        let state = if self.stop.load(Ordering::Relaxed) {
            QueryState::Stopping
        } else if self.started.get().is_some() {
            QueryState::Running
        } else {
            QueryState::Queued
        };
        RunningQuery {
            id,
            text: Arc::clone(&self.text),
            origin: self.origin.clone(),
            times: self.times,
            state,
            entered: self.at,
            elapsed: self.since.elapsed(),
            timeout: self.timeout,
            series: self.progress.series.load(Ordering::Relaxed),
            samples: self.progress.samples.load(Ordering::Relaxed),
            memory_bytes: self.progress.bytes(),
        }
    }
}

/// A query's place on the list.
pub struct QueryTicket {
    id: u64,
    register: Arc<QueryRegister>,
    entered: Arc<Entered>,
    /// Is told when the ticket goes without the query having ended.
    lost: Option<Arc<dyn LostQueries>>,
}

/// Hears of queries that never came to an end: their clients left the queue, or their jobs panicked.
pub(crate) trait LostQueries: Send + Sync {
    fn lost(&self, text: &str, ticket: &QueryTicket, error: &QueryError);
}

impl fmt::Debug for QueryTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryTicket").field("id", &self.id).finish_non_exhaustive()
    }
}

impl QueryTicket {
    /// The query's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// When the query's time is up; `None`: never.
    pub fn deadline(&self) -> Option<Instant> {
        self.entered.since.checked_add(self.entered.timeout)
    }

    /// Completes when an operator stops the query.
    pub async fn stopped(&self) {
        self.entered.stopped.cancelled().await;
    }

    /// How long the query has been here.
    pub(crate) fn age(&self) -> Duration {
        self.entered.since.elapsed()
    }

    /// Tells `lost` when the query goes without an end.
    pub(crate) fn tell(&mut self, lost: Arc<dyn LostQueries>) {
        self.lost = Some(lost);
    }

    /// Who asks.
    pub(crate) fn origin(&self) -> &QueryOrigin {
        &self.entered.origin
    }

    pub(crate) fn times(&self) -> &QueryTimes {
        &self.entered.times
    }

    pub(crate) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.entered.stop)
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.entered.progress
    }

    /// Evaluation begins; answers how long the query has waited.
    pub(crate) fn start(&self) -> Duration {
        let now = *self.entered.started.get_or_init(Instant::now);
        now - self.entered.since
    }

    /// The query is done: remembered when it was slow.
    pub(crate) fn finish(&self, stats: &QueryStats, error: Option<&QueryError>) {
        self.entered.ended.store(true, Ordering::Relaxed);
        let elapsed = self.entered.since.elapsed();
        if elapsed < self.register.slow_threshold {
            return;
        }
        let Entered { text, origin, times, at, progress, .. } = &*self.entered;
        self.register.remember(SlowQuery {
            id: self.id,
            text: Arc::clone(text),
            origin: origin.clone(),
            times: *times,
            entered: *at,
            queued: stats.queued,
            elapsed,
            series: progress.series.load(Ordering::Relaxed),
            samples: progress.samples.load(Ordering::Relaxed),
            peak_samples: progress.samples_peak(),
            peak_memory_bytes: progress.bytes_peak(),
            error: error.map(|error| (error.kind, cut(&error.message, TEXT_BYTES_MAX))),
        });
    }
}

impl Drop for QueryTicket {
    fn drop(&mut self) {
        if let Some(lost) = self.lost.take()
            && !self.entered.ended.load(Ordering::Relaxed)
        {
            let error = match self.entered.started.get() {
                None => QueryError::new(QueryErrorKind::Canceled, "query was canceled in query queue"),
                Some(_) => QueryError::new(QueryErrorKind::Internal, "the query's job did not finish"),
            };
            lost.lost(&self.entered.text, self, &error);
        }
        self.register.running.lock().remove(&self.id);
        self.register.queries.dec();
    }
}

/// At most `max` bytes of `text`, marked when there was more.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(slow_threshold: Duration) -> Arc<QueryRegister> {
        let metrics = RegisterMetrics {
            queries: IntGauge::new("a", "b").unwrap(),
            slow: IntCounter::new("a", "b").unwrap(),
            stopped: IntCounter::new("a", "b").unwrap(),
        };
        Arc::new(QueryRegister::new(None, slow_threshold, metrics))
    }

    fn entry(text: &str) -> Entry<'_> {
        Entry {
            text,
            origin: QueryOrigin::default(),
            times: QueryTimes { start: 0, end: 0, step: 0 },
            timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn a_query_is_listed_until_its_ticket_is_gone() {
        let register = register(Duration::from_secs(5));
        let ticket = register.enter(entry("up"));
        assert_eq!(register.running()[0].state, QueryState::Queued);
        ticket.start();
        assert_eq!(register.running()[0].state, QueryState::Running);
        let by = HttpOrigin::default();
        assert!(!register.stop(ticket.id() + 1, &by));
        assert!(register.stop(ticket.id(), &by) && ticket.stop_flag().load(Ordering::Relaxed));
        assert_eq!(register.running()[0].state, QueryState::Stopping);
        // A second time is no second stop.
        assert!(register.stop(ticket.id(), &by));
        assert_eq!((register.stopped_total.get(), register.queries.get()), (1, 1));
        drop(ticket);
        assert!(register.running().is_empty());
        assert_eq!(register.queries.get(), 0);
        assert!(register.slow().is_empty());
    }

    #[test]
    fn slow_queries_are_a_ring() {
        let register = register(Duration::ZERO);
        for number in 0..SLOW_MAX + 5 {
            let text = format!("q{number}");
            let ticket = register.enter(entry(&text));
            ticket.finish(&QueryStats::default(), Some(&QueryError::timeout()));
        }
        let ticket = register.enter(entry("q104"));
        ticket.finish(&QueryStats::default(), Some(&QueryError::execution("e".repeat(1 << 20))));
        let slow = register.slow();
        assert!(slow[0].error.as_ref().is_some_and(|(_, text)| text.len() < 2 * TEXT_BYTES_MAX));
        let slow = &slow[1..];
        assert_eq!(slow.len(), SLOW_MAX - 1);
        assert_eq!(&*slow[0].text, format!("q{}", SLOW_MAX + 4));
        assert_eq!(slow[0].error.as_ref().map(|(kind, _)| *kind), Some(QueryErrorKind::Timeout));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöü", 5), "äö…");
    }
}
