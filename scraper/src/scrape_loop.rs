//! The loop of one target: on time, forever, one scrape at a time.
//!
//! The first scrape comes at a stable offset within the interval (hash of the target and a seed of this server), so that
//! targets spread evenly and keep their place over restarts. Timestamps are put on the schedule when the scrape
//! starts within 2 ms of it: equal distances store better.
//!
//! Asking the target is work for the reactor. Everything else that takes time (unpacking, parsing, storing, which may wait
//! for a lock or a disk) is one job a scrape on the CPU pool; but of small pages, where scrapes have a runtime of their own:
//! there it is done in place, in less time than giving it away takes.
//!
//! When the target goes, the loop waits for a bit more than two intervals (the target may be back under other labels)
//! and then ends its series by staleness markers at the time the next scrape would have been. At shutdown
//! it writes none: the target will be scraped again soon.

use std::sync::Arc;
use std::time::Duration;

use model::storage::Append;
use model::{Clock, Timestamp};
use net::CpuPool;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::Instrument;

use crate::body::NoBody;
use crate::collector::{CollectTarget, CollectorSession, Scrape};
use crate::config::ScrapeConfig;
use crate::error::ScrapeError;
use crate::exposition::{PageFormat, media_type};
use crate::failure_log::FailureLogSlot;
use crate::http::{Page, PageSource, effective_limit};
use crate::metrics::ScrapeMetrics;
use crate::state::{Input, PassConfig, PassCounts, ReportValues, ScrapeState, ScrapeTimes, Stored};
use crate::target::{Target, TargetHealth};
use crate::unpack::{Unpacker, Unpackers};

/// Scrapes that start so little late get the time of the schedule (Prometheus' `ScrapeTimestampTolerance`).
const TIMESTAMP_TOLERANCE: Duration = Duration::from_millis(2);
/// Bytes of a page, as received and as the last one was uncompressed, up to which it is read where it arrives: in the time of
/// one or two switches of threads.
const IN_PLACE_BODY_MAX: usize = 64 << 10;
const IN_PLACE_TEXT_MAX: usize = 512 << 10;

/// What all loops share.
pub(crate) struct Shared {
    pub(crate) append: Arc<dyn Append>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: ScrapeMetrics,
    pub(crate) cpu: CpuPool,
    /// Where jobs run; `None`: where the manager is told to run them. On a runtime of their own they may read small pages in
    /// place.
    pub(crate) runtime: Option<tokio::runtime::Handle>,
    pub(crate) unpackers: Unpackers,
    pub(crate) user_agent: String,
    /// Tells this server's offsets from those of others that scrape the same targets.
    pub(crate) offset_seed: u64,
    /// Scrape at once instead of at an offset (tests).
    pub(crate) no_offset: bool,
}

/// What a loop is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Scrape.
    Run,
    /// The target has gone: end its series.
    Retire,
    /// The job has changed: give the state to the next loop, without the scrape under way.
    HandOver,
    /// The server stops: end soon, write nothing more.
    Shutdown,
}

impl Command {
    /// Whether the scrape under way is no longer wanted. That of a target that has gone is: its last samples count.
    fn interrupts(self) -> bool {
        matches!(self, Self::HandOver | Self::Shutdown)
    }

    /// Whether nothing more is to be written.
    fn silences(self) -> bool {
        self == Self::Shutdown
    }
}

/// A running loop.
pub(crate) struct LoopHandle {
    command: watch::Sender<Command>,
    forced_error: Arc<Mutex<Option<(usize, u64)>>>,
    task: JoinHandle<Option<Box<ScrapeState>>>,
}

impl LoopHandle {
    /// Starts a loop; `state` is what an earlier loop of the target knew.
    pub(crate) fn start(
        target: Arc<Target>,
        config: &ScrapeConfig,
        client: Option<&net::http::HttpClient>,
        failures: &FailureLogSlot,
        shared: &Arc<Shared>,
        state: Option<Box<ScrapeState>>,
    ) -> Self {
        let (command, commands) = watch::channel(Command::Run);
        let forced_error = Arc::new(Mutex::new(None));
        let source = match (&config.collector, client) {
            (Some(collector), _) => Source::Session(collector.connect(&collect_target(&target))),
            (None, Some(client)) => Source::Page(Box::new(PageSource::new(
                client.clone(),
                config,
                &target.url,
                target.timeout,
                &shared.user_agent,
            ))),
            (None, None) => unreachable!("jobs without collector have a client"),
        };
        let span = tracing::info_span!("scrape", job = %config.job_name, target = %target.url);
        let context = Arc::new(LoopContext {
            pass: pass_config(&target, config),
            fallback_format: config.fallback_format,
            extra_metrics: config.extra_scrape_metrics,
            timeout: target.timeout,
            job_name: config.job_name.clone(),
            failures: failures.clone(),
            target: Arc::clone(&target),
            shared: Arc::clone(shared),
        });
        let scrape_loop = ScrapeLoop {
            source,
            context,
            target,
            commands,
            forced_error: Arc::clone(&forced_error),
            state: state.unwrap_or_else(|| Box::new(ScrapeState::new())),
        };
        let task = tokio::spawn(scrape_loop.run().instrument(span));
        Self { command, forced_error, task }
    }

    /// Tells the loop what to do.
    pub(crate) fn command(&self, command: Command) {
        self.command.send_replace(command);
    }

    /// Makes all scrapes fail (`target_limit`: targets there are, and may be), or no longer.
    pub(crate) fn set_forced_error(&self, error: Option<(usize, u64)>) {
        *self.forced_error.lock() = error;
    }

    /// Tells the loop what to do while somebody else waits for its end.
    pub(crate) fn commander(&self) -> watch::Sender<Command> {
        self.command.clone()
    }

    /// Whether the loop has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for the end; gives the state when the command was [`Command::HandOver`].
    pub(crate) async fn join(self) -> Option<Box<ScrapeState>> {
        match self.task.await {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(%error, "a scrape loop ended badly");
                None
            }
        }
    }
}

/// What is done with the lines of a target's pages.
pub(crate) fn pass_config(target: &Target, config: &ScrapeConfig) -> PassConfig {
    PassConfig {
        target_labels: target.public_labels.clone(),
        honor_labels: config.honor_labels,
        honor_timestamps: config.honor_timestamps,
        track_timestamps_staleness: config.track_timestamps_staleness,
        name_validation: config.name_validation,
        relabel: Arc::clone(&config.metric_relabel_configs),
        limits: config.limits,
        histograms: target.histograms,
        start_times: config.start_times,
    }
}

/// The target as collectors see it.
pub(crate) fn collect_target(target: &Target) -> CollectTarget {
    CollectTarget {
        address: target.address().to_owned(),
        labels: target.public_labels.clone(),
        discovered: target.labels.clone(),
        interval: target.interval,
        timeout: target.timeout,
    }
}

/// How a target is read.
enum Source {
    Page(Box<PageSource>),
    Session(Box<dyn CollectorSession>),
}

/// What was read.
enum Fetched {
    Page(Page),
    Scrape(Scrape),
    Failed(ScrapeError, Scrape),
}

/// What does not change while the loop runs.
struct LoopContext {
    pass: PassConfig,
    fallback_format: Option<PageFormat>,
    extra_metrics: bool,
    timeout: Duration,
    job_name: String,
    failures: FailureLogSlot,
    target: Arc<Target>,
    shared: Arc<Shared>,
}

struct ScrapeLoop {
    source: Source,
    context: Arc<LoopContext>,
    target: Arc<Target>,
    commands: watch::Receiver<Command>,
    forced_error: Arc<Mutex<Option<(usize, u64)>>>,
    state: Box<ScrapeState>,
}

/// A scrape was given up because the loop is to end.
struct Interrupted;

impl ScrapeLoop {
    async fn run(mut self) -> Option<Box<ScrapeState>> {
        if !self.context.shared.no_offset {
            let offset = self.offset();
            tokio::select! {
                () = tokio::time::sleep(offset) => {}
                _ = self.commands.changed() => {}
            }
        }
        let interval = self.target.interval;
        let mut ticker = tokio::time::interval(interval);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first tick is due at once.
        ticker.tick().await;
        let mut schedule = self.context.shared.clock.now_ms();
        let mut last: Option<Instant> = None;
        loop {
            match self.command() {
                Command::Run => {}
                Command::Retire => {
                    self.end_of_run(&mut ticker).await;
                    return None;
                }
                Command::HandOver => return Some(self.state),
                Command::Shutdown => return None,
            }
            let t = align(self.context.shared.clock.now_ms(), &mut schedule, interval);
            let started = Instant::now();
            if let Some(last) = last {
                let length = started.duration_since(last).as_secs_f64();
                self.context
                    .shared
                    .metrics
                    .interval_length
                    .observe(&crate::config::go_duration(interval), length);
            }
            last = Some(started);
            if self.scrape(t, started).await.is_err() {
                // The command that interrupted it is still there.
                continue;
            }
            tokio::select! {
                _ = ticker.tick() => {}
                _ = self.commands.changed() => {}
            }
        }
    }

    /// What to do now. A pool that has gone without a word is a server that stops.
    fn command(&self) -> Command {
        if self.commands.has_changed().is_err() { Command::Shutdown } else { *self.commands.borrow() }
    }

    fn offset(&self) -> Duration {
        let shared = &self.context.shared;
        offset(self.target.hash() ^ shared.offset_seed, self.target.interval, shared.clock.now_ms())
    }

    async fn scrape(&mut self, t: Timestamp, started: Instant) -> Result<(), Interrupted> {
        let forced = *self.forced_error.lock();
        let fetched = match forced {
            Some((targets, limit)) => {
                Fetched::Failed(ScrapeError::TargetLimit { targets, limit }, Scrape::default())
            }
            None => self.fetch(started).await?,
        };
        let warnings = match &fetched {
            Fetched::Scrape(scrape) => scrape.warnings.clone(),
            Fetched::Page(_) | Fetched::Failed(..) => Vec::new(),
        };
        let stored = self.store(fetched, t, started).await?;
        self.publish(stored, warnings, t, started);
        Ok(())
    }

    async fn fetch(&mut self, started: Instant) -> Result<Fetched, Interrupted> {
        let deadline = started + self.context.timeout;
        let commands = self.commands.clone();
        let read = async {
            match &mut self.source {
                Source::Page(source) => match source.fetch().await {
                    Ok(page) => Fetched::Page(page),
                    Err(error) => Fetched::Failed(error, Scrape::default()),
                },
                Source::Session(session) => {
                    match tokio::time::timeout_at(deadline, session.collect(deadline)).await {
                        Ok(Ok(scrape)) => Fetched::Scrape(scrape),
                        Ok(Err(mut error)) => {
                            let samples = std::mem::take(&mut error.samples);
                            Fetched::Failed(error.into(), Scrape { samples, ..Scrape::default() })
                        }
                        Err(_) => Fetched::Failed(ScrapeError::CollectTimeout, Scrape::default()),
                    }
                }
            }
        };
        tokio::select! {
            fetched = read => Ok(fetched),
            () = told(commands, Command::interrupts) => Err(Interrupted),
        }
    }

    /// Parses and stores.
    async fn store(
        &mut self,
        fetched: Fetched,
        t: Timestamp,
        started: Instant,
    ) -> Result<Stored, Interrupted> {
        let mut fetched = fetched;
        if self.is_small(&fetched)
            && let Some(stored) = self.in_place(&mut fetched, t, started)
        {
            return Ok(stored);
        }
        let context = Arc::clone(&self.context);
        let job = move |state: &mut ScrapeState| store(state, &context, fetched, t, started);
        if let Some(stored) = self.on_pool(job, Command::interrupts).await? {
            return Ok(stored);
        }
        tracing::error!("reading a page ended badly; starting anew with this target");
        let context = Arc::clone(&self.context);
        let failed = Fetched::Failed(ScrapeError::Lost, Scrape::default());
        let job = move |state: &mut ScrapeState| store(state, &context, failed, t, started);
        let stored = self.on_pool(job, Command::interrupts).await?;
        Ok(stored.unwrap_or_else(|| Stored {
            counts: PassCounts::default(),
            error: Some(ScrapeError::Lost),
            metadata: None,
        }))
    }

    /// Whether reading what was fetched takes less time than giving it to another thread.
    fn is_small(&self, fetched: &Fetched) -> bool {
        let size = |page: &Page| page.body.len();
        self.context.shared.runtime.is_some()
            && (1..=IN_PLACE_TEXT_MAX).contains(&self.state.text_bytes)
            && matches!(fetched, Fetched::Page(page) if size(page) <= IN_PLACE_BODY_MAX)
    }

    /// Parses and stores here and now; `None`, and nothing done, when the text is longer than it looked. After a panic the
    /// state is a new one.
    fn in_place(&mut self, fetched: &mut Fetched, t: Timestamp, started: Instant) -> Option<Stored> {
        let (state, context) = (&mut self.state, &self.context);
        let job = || {
            context.shared.unpackers.with(|unpacker| {
                store_with(unpacker, state, context, fetched, t, started, IN_PLACE_TEXT_MAX as u64)
            })
        };
        // What a panic leaves half done goes with the state.
        if let Ok(stored) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)) {
            return stored;
        }
        tracing::error!("reading a page ended badly; starting anew with this target");
        *self.state = ScrapeState::new();
        Some(Stored { counts: PassCounts::default(), error: Some(ScrapeError::Lost), metadata: None })
    }

    /// Does `job` on the pool. When a command comes that `gives_up` accepts, a job that has not begun is given up, with
    /// the state as it was; one that has begun is waited for. `None`: the job panicked, and the state is a new one.
    async fn on_pool<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut ScrapeState) -> T + Send + 'static,
        gives_up: fn(Command) -> bool,
    ) -> Result<Option<T>, Interrupted> {
        // Whoever takes it out has it: the pool to do it or the loop to give it up.
        let work = Arc::new(Mutex::new(Some((std::mem::take(&mut self.state), job))));
        let taken = Arc::clone(&work);
        let span = tracing::Span::current();
        let run = self.context.shared.cpu.run(move || {
            let (mut state, job) = taken.lock().take()?;
            let done = span.in_scope(|| job(&mut state));
            Some((state, done))
        });
        let mut run = std::pin::pin!(run);
        let commands = self.commands.clone();
        let ended = tokio::select! {
            biased;
            ended = &mut run => ended,
            () = told(commands, gives_up) => {
                // Bound to a name first: the lock must not be held while waiting.
                let given_up = work.lock().take();
                if let Some((state, _)) = given_up {
                    self.state = state;
                    return Err(Interrupted);
                }
                run.await
            }
        };
        if let Ok(Some((state, done))) = ended {
            self.state = state;
            Ok(Some(done))
        } else {
            *self.state = ScrapeState::new();
            Ok(None)
        }
    }

    /// Tells the world: counters, the targets page, the log when things turn.
    fn publish(&self, stored: Stored, warnings: Vec<String>, t: Timestamp, started: Instant) {
        let Stored { counts, error, metadata } = stored;
        let metrics = &self.context.shared.metrics;
        metrics.sample_duplicate.inc_by(counts.duplicates);
        metrics.sample_out_of_order.inc_by(counts.out_of_order);
        metrics.sample_out_of_bounds.inc_by(counts.out_of_bounds);
        metrics.exemplar_out_of_order.inc_by(counts.exemplars_out_of_order);
        metrics.fast_samples.inc_by(counts.known_lines);
        metrics.slow_samples.inc_by(counts.parsed_lines);
        metrics.exceeded_label_limits.inc_by(u64::from(counts.label_limit_hit));
        metrics.exceeded_sample_limit.inc_by(u64::from(counts.sample_limit_hit));
        metrics.exceeded_bucket_limit.inc_by(u64::from(counts.bucket_limit_hit));
        metrics.cache_flush_forced.inc_by(u64::from(counts.cache_flushed));
        if matches!(error, Some(ScrapeError::BodySizeLimit)) {
            metrics.exceeded_body_size_limit.inc();
        }
        let duration = started.elapsed();
        metrics.scrape_duration.observe(duration.as_secs_f64());
        if let Some(metadata) = metadata {
            *self.target.metadata.lock() = metadata;
        }
        if counts.out_of_order + counts.out_of_bounds + counts.duplicates > 0 {
            tracing::debug!(
                out_of_order = counts.out_of_order,
                out_of_bounds = counts.out_of_bounds,
                duplicates = counts.duplicates,
                "samples of a scrape were not stored"
            );
        }
        if let Some(error) = &error {
            let now = self.context.shared.clock.now_ms();
            self.context.failures.note(now, &error.to_string(), &self.context.job_name, &self.target.url);
        }
        let health = if error.is_none() { TargetHealth::Up } else { TargetHealth::Down };
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        let mut last = self.target.last.lock();
        match (last.health, health) {
            (TargetHealth::Unknown | TargetHealth::Up, TargetHealth::Down) => {
                tracing::warn!(%error, "scrape failed");
            }
            (TargetHealth::Down, TargetHealth::Up) => tracing::info!("scrape works again"),
            _ => tracing::debug!(%error, samples = counts.total, "scraped"),
        }
        last.health = health;
        last.error = error;
        last.warnings = warnings;
        last.t = Some(t);
        last.duration = duration;
        last.samples = counts.total;
    }

    /// The target has gone: ends its series, unless the server stops before that is done.
    async fn end_of_run(mut self, ticker: &mut Interval) {
        let context = Arc::clone(&self.context);
        // Also when the scrapes were those of a loop that handed over to this one.
        let ended = if self.state.has_stored() {
            let wait = async {
                ticker.tick().await;
                let t = context.shared.clock.now_ms();
                ticker.tick().await;
                tokio::time::sleep(self.target.interval / 10).await;
                t
            };
            let t = tokio::select! {
                t = wait => t,
                () = told(self.commands.clone(), Command::silences) => return,
            };
            self.on_pool(
                move |state| state.store_end(context.shared.append.as_ref(), &context.pass, t),
                Command::silences,
            )
            .await
        } else {
            let close = move |state: &mut ScrapeState| {
                state.close(context.shared.append.as_ref());
                Ok(())
            };
            self.on_pool(close, Command::silences).await
        };
        match ended {
            Ok(Some(Ok(()))) | Err(Interrupted) => {}
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "cannot store staleness markers of a target that has gone");
            }
            Ok(None) => tracing::error!("ending the series of a target that has gone ended badly"),
        }
    }
}

/// Time from `now` to a place in the interval that depends on `hash` alone.
fn offset(hash: u64, interval: Duration, now: Timestamp) -> Duration {
    let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let next = interval - now.unsigned_abs() % interval + hash % interval;
    Duration::from_millis(if next > interval { next - interval } else { next })
}

/// Waits for a command that `is_meant` accepts.
async fn told(mut commands: watch::Receiver<Command>, is_meant: fn(Command) -> bool) {
    // An error says that the pool has gone without a word: a server that stops.
    let _ = commands.wait_for(|command| is_meant(*command)).await;
}

/// The time of samples of a scrape that starts at `now`: that of the schedule when it is hardly late.
fn align(now: Timestamp, schedule: &mut Timestamp, interval: Duration) -> Timestamp {
    let step = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    if now < *schedule {
        // The clock was set back: start over.
        *schedule = now;
    }
    *schedule += (now - *schedule) / step * step;
    let tolerance = (interval / 100).min(TIMESTAMP_TOLERANCE).as_millis();
    if u128::from((now - *schedule).unsigned_abs()) <= tolerance { *schedule } else { now }
}

/// Parses and stores one scrape.
fn store(
    state: &mut ScrapeState,
    context: &LoopContext,
    mut fetched: Fetched,
    t: Timestamp,
    started: Instant,
) -> Stored {
    let stored = context
        .shared
        .unpackers
        .with(|unpacker| store_with(unpacker, state, context, &mut fetched, t, started, u64::MAX));
    stored.expect("invariant: no text is as long")
}

/// [`store`] of a page with less than `text_max` bytes of text, else nothing.
fn store_with(
    unpacker: &mut Unpacker,
    state: &mut ScrapeState,
    context: &LoopContext,
    fetched: &mut Fetched,
    t: Timestamp,
    started: Instant,
    text_max: u64,
) -> Option<Stored> {
    let limits = &context.pass.limits;
    let limit = effective_limit(limits.body_size);
    let mut body_size = 0;
    let failure = match fetched {
        Fetched::Failed(error, _) => Some(std::mem::replace(error, ScrapeError::Lost)),
        Fetched::Page(_) | Fetched::Scrape(_) => None,
    };
    let now_ms = context.shared.clock.now_ms();
    let no_page = |error: Option<&ScrapeError>| {
        let text = error.map(ToString::to_string).unwrap_or_default();
        context.target.body.note(now_ms, t, Err(|| NoBody::Failed(text)));
    };
    let (input, failure) = match &*fetched {
        Fetched::Page(page) => match page.text(unpacker, limit.min(text_max)) {
            Ok(text) => {
                let shown = if page.has_credentials {
                    Err(|| NoBody::Credentials)
                } else {
                    Ok((page.content_type.as_str(), text))
                };
                context.target.body.note(now_ms, t, shown);
                body_size = text.len() as i64;
                state.text_bytes = text.len();
                // An empty page is good whatever its type.
                if text.is_empty() {
                    (Input::Nothing, None)
                } else {
                    match media_type(&page.content_type, context.fallback_format) {
                        Ok(format) => (Input::Page(text, format), None),
                        Err(error) => (Input::Nothing, Some(error.into())),
                    }
                }
            }
            Err(ScrapeError::BodySizeLimit) if text_max < limit => return None,
            Err(error) => {
                no_page(Some(&error));
                (Input::Nothing, Some(error))
            }
        },
        Fetched::Scrape(scrape) => {
            body_size = scrape.body_bytes as i64;
            (Input::Samples(scrape), None)
        }
        Fetched::Failed(_, scrape) if scrape.samples.is_empty() => {
            no_page(failure.as_ref());
            (Input::Nothing, failure)
        }
        Fetched::Failed(_, scrape) => (Input::Samples(scrape), failure),
    };
    let times = ScrapeTimes { t, now_ms };
    let report = |counts: &PassCounts, error: Option<&ScrapeError>| ReportValues {
        up: error.is_none(),
        duration_seconds: started.elapsed().as_secs_f64(),
        scraped: counts.total,
        post_relabeling: counts.added,
        series_added: counts.series_added,
        extra: context.extra_metrics.then(|| {
            let size = if matches!(error, Some(ScrapeError::BodySizeLimit)) { -1 } else { body_size };
            (context.timeout.as_secs_f64(), limits.samples, size)
        }),
    };
    Some(state.store(context.shared.append.as_ref(), &context.pass, &input, failure, &times, report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_interval_stay_and_spread() {
        let interval = Duration::from_secs(15);
        let place =
            |hash, now: i64| (now + i64::try_from(offset(hash, interval, now).as_millis()).unwrap()) % 15_000;
        for hash in (0..1000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let first = place(hash, 1_700_000_000_000);
            for now in [1_700_000_000_001, 1_700_000_014_999, 1_712_345_678_901] {
                assert_eq!(place(hash, now), first, "{hash}: the same after a restart");
                assert!(offset(hash, interval, now) <= interval);
            }
        }
        // In each of fifteen seconds about as many of a thousand targets.
        let mut seconds = [0; 15];
        for n in 0..1000_u64 {
            let hash = xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
            seconds[usize::try_from(place(hash, 1_700_000_000_000)).unwrap() / 1000] += 1;
        }
        assert!(seconds.iter().all(|count| (40..100).contains(count)), "{seconds:?}");
    }

    #[test]
    fn hardly_late_scrapes_get_the_time_of_the_schedule() {
        let second = Duration::from_secs(1);
        let mut schedule = 5_000;
        let mut at = |now| align(now, &mut schedule, second);
        assert_eq!(at(5_000), 5_000);
        assert_eq!(at(6_002), 6_000);
        assert_eq!(at(7_003), 7_003);
        assert_eq!(at(8_001), 8_000, "lateness does not add up");
        assert_eq!(at(11_500), 11_500);
        assert_eq!(at(12_001), 12_000, "missed ticks are stepped over");
        assert_eq!(at(3_000), 3_000, "a clock that was set back starts over");
        assert_eq!(at(4_001), 4_000);
        let mut schedule = 0;
        assert_eq!(align(101, &mut schedule, Duration::from_millis(100)), 100, "1 % of the interval at most");
        assert_eq!(align(202, &mut schedule, Duration::from_millis(100)), 202);
    }
}
