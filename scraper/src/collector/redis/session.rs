//! The I/O of the Redis collector: connecting, authenticating, and driving the probes; everything that reads answers
//! is elsewhere and pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::Clock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::info::{Info, push_cluster};
use super::list::ListProbe;
use super::options::{DATABASES_MAX, Databases, Password, RedisOptions};
use super::probe::{Intake, Probe, shorten};
use super::scan::KeyType;
use super::stream::StreamProbe;
use super::{
    DEFAULT_PORT, Memory, STAGE_AUTH, STAGE_CONNECT, STAGE_INFO, STAGE_NAME, STAGE_QUEUES, STAGE_SCAN,
    STAGES, SYSTEM,
};
use crate::collector::account::{Account, CollectionCost, Doubts, PartialReason};
use crate::collector::queues::{Folded, OTHER};
use crate::collector::resp::{
    Command, Connection, DecodeError, Limits, Pipelined, Reply, RespError, Traffic,
};
use crate::collector::schema::{self, QUEUE_UP, QueueReading, push_sample};
use crate::collector::{CollectError, CollectTarget, CollectorSession, Scrape, ScrapedSample};

/// Most bytes one collection may receive.
const BUDGET_BYTES: u64 = 64 << 20;
/// Once a collection has received this much, entries are no longer counted, so that the rest still fits.
const BULK_BYTES_MAX: u64 = BUDGET_BYTES / 2;
/// A kept connection must answer within this, or it counts as half open and a new one is made.
const KEPT_ANSWER_MAX: Duration = Duration::from_secs(1);
/// Longest password file.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;
/// More readings than this are turned into samples on a blocking thread.
const INLINE_READINGS_MAX: usize = 1000;

/// A byte stream to a Redis: TCP today; TLS is another implementation.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

type Wire = Connection<Box<dyn Transport>>;

/// What lives between the collections of one target.
pub(crate) struct RedisSession {
    options: Arc<RedisOptions>,
    address: String,
    interval: Duration,
    clock: Arc<dyn Clock>,
    wire: Option<Wire>,
    memory: Memory,
    account: Account,
}

/// Why a collection gave nothing.
struct Failure {
    stage: &'static str,
    message: String,
}

impl Failure {
    fn new(stage: &'static str, message: impl Into<String>) -> Self {
        Self { stage, message: message.into() }
    }
}

impl RedisSession {
    pub(crate) fn new(options: Arc<RedisOptions>, target: &CollectTarget, clock: Arc<dyn Clock>) -> Self {
        Self {
            options,
            address: with_default_port(&target.address),
            interval: target.interval,
            clock,
            wire: None,
            memory: Memory::default(),
            account: Account::new(&STAGES),
        }
    }

    async fn run(&mut self, deadline: Instant) -> Result<Scrape, CollectError> {
        let start = Instant::now();
        let until_deadline = deadline.saturating_duration_since(start);
        let cutoff = start + self.interval.mul_f64(0.8).min(until_deadline.mul_f64(0.9));
        let received_before = self.account.received_bytes;
        match self.collect_until(start, cutoff).await {
            Ok(mut scrape) => {
                scrape.body_bytes = self.account.received_bytes - received_before;
                Ok(scrape)
            }
            Err(failure) => {
                self.account.error(failure.stage);
                let mut samples = Vec::new();
                push_sample(&mut samples, &QUEUE_UP, &[("system", SYSTEM)], 0.0);
                self.push_account(&mut samples, &Doubts::default(), start, 0);
                Err(CollectError::new(failure.message).with_samples(samples))
            }
        }
    }

    async fn collect_until(&mut self, start: Instant, cutoff: Instant) -> Result<Scrape, Failure> {
        let mut doubts = Doubts::default();
        let (mut wire, replies) = self.open(cutoff, &mut doubts).await?;
        let info = node_info(&replies[0], &mut doubts)?;
        let now_ms = server_time_ms(&replies[1])
            .or_else(|| info.server_time_ms())
            .unwrap_or_else(|| self.clock.now_ms());

        let mut samples = Vec::new();
        push_sample(&mut samples, &QUEUE_UP, &[("system", SYSTEM)], 1.0);
        if info.is_plausible() {
            info.push(&mut samples, &self.address, &mut self.memory.node, now_ms);
        }
        let before = wire.traffic();
        let mut intake = Intake { doubts: &mut doubts, account: &mut self.account, now_ms };
        let mut driver =
            Driver { wire: &mut wire, intake: &mut intake, cutoff, selected: None, is_cut: false };
        if info.is_clustered() {
            driver.cluster(&mut samples, &self.address).await;
        }
        let readings = driver.queues(&info, &self.options, &mut self.memory).await;
        let is_cut = driver.is_cut;
        self.count(wire.traffic(), before);
        if wire.is_usable() && !is_cut {
            self.wire = Some(wire);
        }

        let (folded, mut samples) = self.finish(readings, samples).await;
        if folded.duplicates > 0 {
            self.account.error(STAGE_NAME);
            doubts.warn(format!(
                "{} queues left out: their names differ in invalid UTF-8 only",
                folded.duplicates
            ));
        }
        if folded.queues + folded.groups > 0 {
            doubts.warn(format!(
                "{} queues and {} groups past the limits are summed into {OTHER}",
                folded.queues, folded.groups
            ));
        }
        self.push_account(&mut samples, &doubts, start, folded.queues + folded.groups);
        Ok(Scrape { samples, metadata: schema::metadata(), body_bytes: 0, warnings: doubts.into_warnings() })
    }

    /// Caps, sorts and prints readings; many of them away from the reactor.
    async fn finish(
        &self,
        readings: Vec<QueueReading>,
        mut samples: Vec<ScrapedSample>,
    ) -> (Folded, Vec<ScrapedSample>) {
        if readings.len() <= INLINE_READINGS_MAX {
            let folded = self.options.queues.finish(readings, &mut samples);
            return (folded, samples);
        }
        let options = self.options.clone();
        let work = move || (options.queues.finish(readings, &mut samples), samples);
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// A connection that has answered `INFO` and `TIME`, and these two answers.
    async fn open(&mut self, cutoff: Instant, doubts: &mut Doubts) -> Result<(Wire, Vec<Reply>), Failure> {
        let hello = [Command::new("INFO", &[]), Command::new("TIME", &[])];
        if let Some(mut wire) = self.wire.take() {
            wire.set_budget(BUDGET_BYTES);
            let before = wire.traffic();
            let patience = cutoff.min(Instant::now() + KEPT_ANSWER_MAX);
            let Pipelined { replies, error } = wire.pipeline(&hello, patience).await;
            self.count(wire.traffic(), before);
            if error.is_none() {
                return Ok((wire, replies));
            }
            tracing::debug!(address = %self.address, error = ?error, "connection lost, connecting again");
        }
        let mut wire = self.dial(cutoff).await?;
        wire.set_budget(BUDGET_BYTES);
        let outcome = self.greet(&mut wire, &hello, cutoff, doubts).await;
        self.count(wire.traffic(), Traffic::default());
        outcome.map(|replies| (wire, replies))
    }

    async fn dial(&self, cutoff: Instant) -> Result<Wire, Failure> {
        let failure = |error: &dyn std::fmt::Display| {
            Failure::new(STAGE_CONNECT, format!("connect to {}: {error}", self.address))
        };
        match timeout_at(cutoff, TcpStream::connect(&self.address)).await {
            Ok(Ok(stream)) => {
                // Batches are written whole; waiting for more would only add a delay.
                stream.set_nodelay(true).map_err(|error| failure(&error))?;
                Ok(Connection::new(Box::new(stream), Limits::default()))
            }
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(failure(&"no answer in time")),
        }
    }

    async fn greet(
        &self,
        wire: &mut Wire,
        hello: &[Command],
        cutoff: Instant,
        doubts: &mut Doubts,
    ) -> Result<Vec<Reply>, Failure> {
        if let Some(auth) = self.auth_command().await? {
            let Pipelined { replies, error } = wire.pipeline(&[auth], cutoff).await;
            if let Some(error) = error {
                return Err(Failure::new(STAGE_AUTH, format!("AUTH: {error}")));
            }
            match replies.first().and_then(Reply::error) {
                None => {}
                Some(refusal) if refusal.contains("without any password configured") => {
                    doubts.warn("a password is configured but the server asks for none");
                }
                Some(refusal) => {
                    return Err(Failure::new(STAGE_AUTH, format!("AUTH: {}", shorten(refusal))));
                }
            }
        }
        let Pipelined { replies, error } = wire.pipeline(hello, cutoff).await;
        match error {
            None => Ok(replies),
            // A refusal that closes the connection (protected mode, too many clients) says why first.
            Some(error) => Err(match replies.first().and_then(Reply::error) {
                Some(refusal) => Failure::new(STAGE_INFO, shorten(refusal)),
                None => Failure::new(STAGE_INFO, format!("INFO: {error}")),
            }),
        }
    }

    async fn auth_command(&self) -> Result<Option<Command>, Failure> {
        let password = match &self.options.password {
            Password::None => return Ok(None),
            Password::Inline(password) => password.expose().to_owned(),
            Password::File(file) => {
                let failure = |error: &dyn std::fmt::Display| {
                    Failure::new(STAGE_AUTH, format!("read password file {}: {error}", file.display()))
                };
                let mut text = String::new();
                let opened = tokio::fs::File::open(file).await.map_err(|error| failure(&error))?;
                let mut bounded = opened.take(PASSWORD_BYTES_MAX);
                bounded.read_to_string(&mut text).await.map_err(|error| failure(&error))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        Ok(Some(match &self.options.username {
            Some(username) => Command::new("AUTH", &[username.as_bytes(), password.as_bytes()]),
            None => Command::new("AUTH", &[password.as_bytes()]),
        }))
    }

    fn push_account(
        &self,
        samples: &mut Vec<ScrapedSample>,
        doubts: &Doubts,
        start: Instant,
        dropped: usize,
    ) {
        let cost = CollectionCost { duration: start.elapsed(), interval: self.interval, dropped };
        self.account.push(samples, SYSTEM, doubts, cost);
    }

    fn count(&mut self, now: Traffic, before: Traffic) {
        self.account.commands += now.commands - before.commands;
        self.account.sent_bytes += now.sent_bytes - before.sent_bytes;
        self.account.received_bytes += now.received_bytes - before.received_bytes;
    }
}

/// Sends what the probes ask for, until they are done or something cuts the collection.
struct Driver<'a, 'b> {
    wire: &'a mut Wire,
    intake: &'a mut Intake<'b>,
    cutoff: Instant,
    selected: Option<u32>,
    is_cut: bool,
}

impl Driver<'_, '_> {
    /// Replies to `commands`: fewer when the collection was cut, which is noted.
    async fn ask(&mut self, stage: &'static str, commands: &[Command]) -> Vec<Reply> {
        if self.is_cut || commands.is_empty() {
            return Vec::new();
        }
        let Pipelined { replies, error } = self.wire.pipeline(commands, self.cutoff).await;
        if let Some(error) = error {
            self.is_cut = true;
            self.intake.account.error(stage);
            let reason = match &error {
                RespError::Deadline => PartialReason::Timeout,
                RespError::Budget { .. }
                | RespError::Decode(
                    DecodeError::TooLarge { .. }
                    | DecodeError::TooManyElements { .. }
                    | DecodeError::TooDeep { .. }
                    | DecodeError::LineTooLong { .. },
                ) => PartialReason::Limit,
                RespError::Decode(_) => PartialReason::Answer,
                _ => PartialReason::Connection,
            };
            let at = commands.get(replies.len()).map_or("", Command::name);
            self.intake.doubts.partial(reason, format!("cut at {at}: {error}"));
        }
        replies
    }

    /// Makes `db` the current database; `false` when that cannot be.
    async fn select(&mut self, db: u32) -> bool {
        if self.selected == Some(db) {
            return true;
        }
        let number = db.to_string();
        let replies = self.ask(STAGE_QUEUES, &[Command::new("SELECT", &[number.as_bytes()])]).await;
        match replies.first() {
            None => false,
            Some(Reply::Error(error)) => {
                self.intake.refused("SELECT", &number, error);
                false
            }
            Some(_) => {
                self.selected = Some(db);
                true
            }
        }
    }

    async fn cluster(&mut self, samples: &mut Vec<ScrapedSample>, node: &str) {
        let replies = self.ask(STAGE_INFO, &[Command::new("CLUSTER INFO", &[])]).await;
        match replies.first() {
            None => {}
            Some(Reply::Error(error)) => {
                self.intake.refused("CLUSTER INFO", "", error);
            }
            Some(reply) => match reply.bytes() {
                Some(text) => push_cluster(samples, node, &Info::parse(&String::from_utf8_lossy(text))),
                None => self.intake.unexpected("CLUSTER INFO", "", reply),
            },
        }
    }

    async fn queues(
        &mut self,
        info: &Info,
        options: &Arc<RedisOptions>,
        memory: &mut Memory,
    ) -> Vec<QueueReading> {
        if options.streams.is_empty() && options.lists.is_empty() || info.is_sentinel() {
            return Vec::new();
        }
        if info.is_replica() {
            self.intake.doubts.warn("a replica: its queues are reported by its master's target");
            return Vec::new();
        }
        if info.is_loading() {
            let text = "the server is loading its data";
            self.intake.doubts.partial(PartialReason::Answer, text);
            return Vec::new();
        }
        let remember_ms = i64::try_from(options.remember_empty.as_millis()).unwrap_or(i64::MAX);
        memory.lists.forget(self.intake.now_ms.saturating_sub(remember_ms));
        memory.streams.begin();
        let databases = self.databases(info, options, memory.lists.databases());
        if let Some(budget) = options.scan_budget {
            self.scan(&databases, budget, options, memory).await;
        }
        let mut readings = Vec::new();
        for db in databases {
            let mut probes = probes(db, options, memory);
            if !probes.is_empty() && self.select(db).await {
                self.rounds(&mut probes).await;
            }
            for probe in probes {
                readings.extend(probe.finish(memory, self.intake));
            }
        }
        readings
    }

    fn databases(&mut self, info: &Info, options: &RedisOptions, remembered: BTreeSet<u32>) -> Vec<u32> {
        match &options.databases {
            // A cluster has one database.
            _ if info.is_clustered() => vec![0],
            Databases::These(numbers) => numbers.clone(),
            Databases::All if info.is_plausible() => {
                // A database without keys is not listed, but its lists may only be empty for now.
                let mut databases = remembered;
                databases.extend(info.databases().into_iter().map(|(db, _)| db));
                let mut databases: Vec<u32> = databases.into_iter().collect();
                if databases.len() > DATABASES_MAX {
                    let text = format!("{} databases, {DATABASES_MAX} are read", databases.len());
                    self.intake.doubts.partial(PartialReason::Limit, text);
                    databases.truncate(DATABASES_MAX);
                }
                databases
            }
            Databases::All => vec![0],
        }
    }

    async fn scan(&mut self, databases: &[u32], budget: u64, options: &RedisOptions, memory: &mut Memory) {
        let mut kinds = Vec::new();
        if options.lists.iter().any(|list| list.name.literal().is_none()) {
            kinds.push(KeyType::List);
        }
        if options.streams.iter().any(|glob| glob.literal().is_none()) {
            kinds.push(KeyType::Stream);
        }
        memory.scan.begin(databases, &kinds, budget);
        while let Some((db, command)) = memory.scan.next() {
            if !self.select(db).await {
                return;
            }
            match self.ask(STAGE_SCAN, &[command]).await.first() {
                Some(reply) => memory.scan.absorb(reply, options, self.intake),
                None => return,
            }
        }
        if !memory.scan.is_complete() {
            let text = format!("still looking for queues, {budget} keys per collection");
            self.intake.doubts.warn(text);
        }
    }

    /// Asks all probes round by round.
    async fn rounds(&mut self, probes: &mut [Box<dyn Probe>]) {
        let received_before = self.wire.traffic().received_bytes;
        loop {
            let received = self.wire.traffic().received_bytes - received_before;
            let mut commands = Vec::new();
            let mut counts = Vec::with_capacity(probes.len());
            for probe in probes.iter_mut() {
                let asked = probe.next(received < BULK_BYTES_MAX);
                counts.push(asked.len());
                commands.extend(asked);
            }
            if commands.is_empty() || self.is_cut {
                return;
            }
            let replies = self.ask(STAGE_QUEUES, &commands).await;
            let mut rest = replies.as_slice();
            for (probe, count) in probes.iter_mut().zip(counts) {
                let (mine, others) = rest.split_at(count.min(rest.len()));
                rest = others;
                probe.absorb(mine, self.intake);
            }
        }
    }
}

/// The probes of a database: what is configured by name, found by scanning, or remembered.
fn probes(db: u32, options: &Arc<RedisOptions>, memory: &Memory) -> Vec<Box<dyn Probe>> {
    let mut probes: Vec<Box<dyn Probe>> = Vec::new();
    let mut streams = memory.scan.keys(db, KeyType::Stream);
    streams.extend(options.streams.iter().filter_map(|glob| glob.literal().map(String::into_bytes)));
    if !streams.is_empty() {
        probes.push(Box::new(StreamProbe::new(db, streams)));
    }
    let mut lists: BTreeMap<Vec<u8>, bool> =
        memory.lists.names(db).map(|key| (key.to_vec(), false)).collect();
    lists.extend(memory.scan.keys(db, KeyType::List).into_iter().map(|key| (key, false)));
    let configured = options.lists.iter().filter_map(|list| list.name.literal());
    lists.extend(configured.map(|name| (name.into_bytes(), true)));
    if !lists.is_empty() {
        probes.push(Box::new(ListProbe::new(db, options.clone(), lists)));
    }
    probes
}

/// Reads the answer to `INFO`; an empty one when the right is missing.
fn node_info(reply: &Reply, doubts: &mut Doubts) -> Result<Info, Failure> {
    match reply {
        Reply::Error(error) if error.starts_with("NOPERM") => {
            doubts.partial(PartialReason::Permission, format!("INFO: {}", shorten(error)));
            Ok(Info::default())
        }
        Reply::Error(error) if error.starts_with("NOAUTH") => {
            let message = format!("set username and password: {}", shorten(error));
            Err(Failure::new(STAGE_AUTH, message))
        }
        Reply::Error(error) => Err(Failure::new(STAGE_INFO, format!("INFO: {}", shorten(error)))),
        reply => match reply.bytes().map(|bytes| Info::parse(&String::from_utf8_lossy(bytes))) {
            Some(info) if info.is_plausible() => Ok(info),
            Some(_) => Err(Failure::new(STAGE_INFO, "INFO: not the answer of a Redis")),
            None => Err(Failure::new(STAGE_INFO, format!("INFO: unexpected answer ({})", reply.kind()))),
        },
    }
}

/// Reads the answer to `TIME`. A missing right is no loss: `INFO` has the time too, except in old versions.
fn server_time_ms(reply: &Reply) -> Option<i64> {
    let [seconds, micros] = reply.array()? else { return None };
    seconds.integer()?.checked_mul(1000)?.checked_add(micros.integer()? / 1000)
}

fn with_default_port(address: &str) -> String {
    let has_port = match address.rsplit_once(':') {
        Some((host, port)) => port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')),
        None => false,
    };
    match (has_port, address.contains(':') && !address.starts_with('[')) {
        (true, _) => address.to_owned(),
        (false, true) if !address.ends_with(':') => format!("[{address}]:{DEFAULT_PORT}"),
        (false, _) => format!("{}:{DEFAULT_PORT}", address.trim_end_matches(':')),
    }
}

impl CollectorSession for RedisSession {
    fn collect(&mut self, deadline: Instant) -> BoxFuture<'_, Result<Scrape, CollectError>> {
        Box::pin(self.run(deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_usual_port() {
        for (address, expected) in [
            ("h:1", "h:1"),
            ("h", "h:6379"),
            ("[::1]:7", "[::1]:7"),
            ("[::1]", "[::1]:6379"),
            ("::1", "[::1]:6379"),
            ("127.0.0.1", "127.0.0.1:6379"),
        ] {
            assert_eq!(with_default_port(address), expected);
        }
    }
}
