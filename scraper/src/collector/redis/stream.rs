//! Streams and their groups.
//!
//! Round 1 asks `XINFO STREAM` and `XINFO GROUPS` of every stream. Round 2 asks, per group, for the oldest pending
//! entry and for the first entry not delivered; where Redis does not know a group's lag (before 7.0, groups made at an
//! arbitrary id, after `XDEL`), rounds from 2 on count the entries behind it instead, page by page up to
//! [`COUNT_MAX`]. Of entries only ids are kept: the decoder drops their fields.
//!
//! Lag in seconds is the age of the oldest entry that is pending or not delivered, by its id (head time). Streams whose
//! ids are no times are watched instead (head watch).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use crate::collector::account::PartialReason;
use crate::collector::queues::MAX_GROUPS;
use crate::collector::resp::{Command, Reply};
use crate::collector::schema::{QueueInfo, QueueMetric, QueueReading};

use super::probe::{Intake, NAME_BYTES_MAX, Probe, age_seconds, display_name};
use super::{Memory, SYSTEM};

/// Most entries counted behind one group.
const COUNT_MAX: u64 = 10_000;
/// Entries per page when counting: each comes with its payload over the wire.
const COUNT_PAGE: u64 = 250;
/// Most groups of one stream that are asked about.
const GROUPS_MAX: usize = 10 * MAX_GROUPS;
/// Groups remembered over all streams of a target.
const REMEMBERED_MAX: usize = 100_000;
/// A group that was not seen for so many collections is forgotten.
const FORGET_AFTER: u64 = 20;
/// Ids before 2010 are no times.
const EARLIEST_ID_MS: u64 = 1_262_304_000_000;
/// Ids more than a day ahead of the server's clock are no times.
const AHEAD_MS_MAX: u64 = 24 * 3600 * 1000;

/// `<milliseconds>-<sequence>`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId {
    ms: u64,
    seq: u64,
}

impl StreamId {
    fn of(reply: &Reply) -> Option<Self> {
        let (ms, seq) = reply.text()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }

    /// The id after this one: the start of an exclusive range, in a form that servers before 6.2 understand too.
    fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { ms: self.ms, seq },
            None => Self { ms: self.ms.saturating_add(1), seq: 0 },
        }
    }

    fn time_ms(self) -> i64 {
        i64::try_from(self.ms).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// What is remembered of groups between collections.
#[derive(Debug, Default)]
pub(crate) struct StreamMemory {
    groups: HashMap<(u32, Vec<u8>, Vec<u8>), GroupMemory>,
    collection: u64,
}

#[derive(Debug)]
struct GroupMemory {
    seen_in: u64,
    entries_added: Option<u64>,
    /// Position minus pending, as last seen, and the counter made of its increases.
    finished: Option<(u64, u64)>,
    /// The oldest unfinished entry and since when it is that.
    head: Option<(StreamId, i64)>,
}

impl StreamMemory {
    /// Starts a collection and forgets groups that were not seen for long.
    pub(crate) fn begin(&mut self) {
        self.collection += 1;
        let oldest = self.collection.saturating_sub(FORGET_AFTER);
        self.groups.retain(|_, group| group.seen_in >= oldest);
    }

    fn group(&mut self, db: u32, key: &[u8], group: &[u8]) -> Option<&mut GroupMemory> {
        let room = self.groups.len() < REMEMBERED_MAX;
        let seen_in = self.collection;
        let memory = match self.groups.entry((db, key.to_vec(), group.to_vec())) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if room => {
                entry.insert(GroupMemory { seen_in, entries_added: None, finished: None, head: None })
            }
            Entry::Vacant(_) => return None,
        };
        memory.seen_in = seen_in;
        Some(memory)
    }
}

impl GroupMemory {
    /// The counter of finished entries. It follows increases of `finished` only: moving a group back in the stream, or
    /// entries that become pending again, is no restart. A stream that was made anew is one.
    fn advance(&mut self, finished: u64, entries_added: Option<u64>) -> u64 {
        let made_anew =
            matches!((self.entries_added, entries_added), (Some(before), Some(now)) if now < before);
        self.entries_added = entries_added;
        let counter = match self.finished {
            Some((before, counter)) if !made_anew => counter.saturating_add(finished.saturating_sub(before)),
            _ => finished,
        };
        self.finished = Some((finished, counter));
        counter
    }

    /// Since when `head` is the oldest unfinished entry, as far as seen.
    fn watch(&mut self, head: StreamId, now_ms: i64) -> i64 {
        match self.head {
            Some((id, since)) if id == head => since,
            _ => {
                self.head = Some((head, now_ms));
                now_ms
            }
        }
    }
}

/// Reads streams of one database.
#[derive(Debug)]
pub(crate) struct StreamProbe {
    db: u32,
    streams: Vec<StreamState>,
    stage: Stage,
    /// What the commands of the round in flight ask for.
    asked: Vec<Question>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    Details,
    Counting,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Stream(usize),
    Groups(usize),
    OldestPending(usize, usize),
    FirstUnread(usize, usize),
    Page(usize, usize),
}

#[derive(Debug, Default)]
struct StreamState {
    key: Vec<u8>,
    name: String,
    facts: Option<StreamFacts>,
    groups: Vec<GroupState>,
    groups_known: bool,
}

#[derive(Clone, Copy, Debug)]
struct StreamFacts {
    length: u64,
    last_id: StreamId,
    entries_added: Option<u64>,
}

#[derive(Debug)]
struct GroupState {
    key: Vec<u8>,
    consumers: u64,
    pending: u64,
    last_delivered: StreamId,
    entries_read: Option<u64>,
    ready: Ready,
    /// Oldest pending entry and how often it was delivered; outer `None`: not told yet.
    oldest_pending: Option<Option<(StreamId, u64)>>,
    /// First entry not delivered; outer `None`: not told yet.
    first_unread: Option<Option<StreamId>>,
}

#[derive(Clone, Copy, Debug)]
enum Ready {
    /// As Redis says.
    Told(u64),
    /// Counted so far, up to and with the id.
    Counting { count: u64, until: StreamId },
    /// Counted to the end, or to the bound.
    Counted(u64),
}

impl StreamProbe {
    pub(crate) fn new(db: u32, keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let streams = keys
            .into_iter()
            .map(|key| StreamState { name: display_name(&key), key, ..StreamState::default() })
            .collect();
        Self { db, streams, stage: Stage::Start, asked: Vec::new() }
    }

    fn start(&mut self) -> Vec<Command> {
        let mut commands = Vec::with_capacity(2 * self.streams.len());
        for (index, stream) in self.streams.iter().enumerate() {
            commands.push(Command::new("XINFO STREAM", &[&stream.key]));
            commands.push(Command::new("XINFO GROUPS", &[&stream.key]));
            self.asked.extend([Question::Stream(index), Question::Groups(index)]);
        }
        commands
    }

    fn details(&mut self, may_read_bulk: bool) -> Vec<Command> {
        let mut commands = Vec::new();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let Some(facts) = stream.facts else { continue };
            for (number, group) in stream.groups.iter_mut().enumerate() {
                if group.pending == 0 {
                    group.oldest_pending = Some(None);
                } else {
                    commands.push(Command::new("XPENDING", &[&stream.key, &group.key, b"-", b"+", b"1"]));
                    self.asked.push(Question::OldestPending(index, number));
                }
                match group.ready {
                    // Nothing is behind the last id, whatever the counters say.
                    _ if group.last_delivered >= facts.last_id => {
                        group.ready = Ready::Told(0);
                        group.first_unread = Some(None);
                    }
                    Ready::Told(0) => group.first_unread = Some(None),
                    Ready::Counting { .. } if may_read_bulk => {
                        commands.push(range(&stream.key, group.last_delivered, COUNT_PAGE));
                        self.asked.push(Question::Page(index, number));
                    }
                    Ready::Told(_) | Ready::Counting { .. } | Ready::Counted(_) => {
                        commands.push(range(&stream.key, group.last_delivered, 1));
                        self.asked.push(Question::FirstUnread(index, number));
                    }
                }
            }
        }
        commands
    }

    fn more_pages(&mut self, may_read_bulk: bool) -> Vec<Command> {
        let mut commands = Vec::new();
        if !may_read_bulk {
            return commands;
        }
        for (index, stream) in self.streams.iter().enumerate() {
            for (number, group) in stream.groups.iter().enumerate() {
                if let Ready::Counting { until, .. } = group.ready {
                    commands.push(range(&stream.key, until, COUNT_PAGE));
                    self.asked.push(Question::Page(index, number));
                }
            }
        }
        commands
    }

    fn answer(&mut self, question: Question, reply: &Reply, intake: &mut Intake<'_>) {
        let (Question::Stream(index)
        | Question::Groups(index)
        | Question::OldestPending(index, _)
        | Question::FirstUnread(index, _)
        | Question::Page(index, _)) = question;
        let stream = &mut self.streams[index];
        let command = match question {
            Question::Stream(_) => "XINFO STREAM",
            Question::Groups(_) => "XINFO GROUPS",
            Question::OldestPending(..) => "XPENDING",
            Question::FirstUnread(..) | Question::Page(..) => "XRANGE",
        };
        if let Some(error) = reply.error() {
            intake.refused(command, &stream.name, error);
            return;
        }
        let understood = match question {
            Question::Stream(_) => {
                stream.facts = StreamFacts::of(reply);
                stream.facts.is_some()
            }
            Question::Groups(_) => stream.take_groups(reply, intake),
            Question::OldestPending(_, number) => {
                let oldest = oldest_pending(reply);
                stream.groups[number].oldest_pending = oldest;
                oldest.is_some()
            }
            Question::FirstUnread(_, number) => {
                let first = ids(reply).map(|ids| ids.first().copied());
                stream.groups[number].first_unread = first;
                first.is_some()
            }
            Question::Page(_, number) => stream.groups[number].take_page(reply),
        };
        if !understood {
            intake.unexpected(command, &self.streams[index].name, reply);
        }
    }
}

impl StreamFacts {
    fn of(reply: &Reply) -> Option<Self> {
        Some(Self {
            length: unsigned(reply.field("length")?)?,
            last_id: StreamId::of(reply.field("last-generated-id")?)?,
            entries_added: reply.field("entries-added").and_then(unsigned),
        })
    }

    /// Whether ids are times.
    fn has_time_ids(&self, now_ms: i64) -> bool {
        let latest = u64::try_from(now_ms).unwrap_or_default().saturating_add(AHEAD_MS_MAX);
        self.last_id == StreamId::default() || (EARLIEST_ID_MS..=latest).contains(&self.last_id.ms)
    }
}

impl StreamState {
    fn take_groups(&mut self, reply: &Reply, intake: &mut Intake<'_>) -> bool {
        let Some(groups) = reply.array() else { return false };
        let mut understood = true;
        for group in groups.iter().take(GROUPS_MAX) {
            match GroupState::of(group) {
                Some(group) if group.key.len() <= NAME_BYTES_MAX => self.groups.push(group),
                Some(_) => {
                    let text =
                        format!("stream {:?}: a group's name exceeds {NAME_BYTES_MAX} bytes", self.name);
                    intake.doubts.partial(PartialReason::Limit, text);
                }
                None => understood = false,
            }
        }
        if groups.len() > GROUPS_MAX {
            let text = format!("stream {:?}: {} groups, {GROUPS_MAX} are read", self.name, groups.len());
            intake.doubts.partial(PartialReason::Limit, text);
        }
        self.groups_known = understood;
        understood
    }

    fn readings(self, db: u32, memory: &mut Memory, intake: &mut Intake<'_>, out: &mut Vec<QueueReading>) {
        let Some(facts) = self.facts else { return };
        let vhost = db.to_string();
        let has_time_ids = facts.has_time_ids(intake.now_ms);
        let lag_method = if has_time_ids { "head_time" } else { "head_watch" };
        let mut log = QueueReading::new(SYSTEM, vhost.clone(), self.name.clone(), "");
        log.info = Some(QueueInfo { kind: "stream", lag_method, ..QueueInfo::default() });
        log.set(QueueMetric::Retained, facts.length as f64);
        if self.groups.is_empty() && self.groups_known {
            log.set_optional(QueueMetric::Enqueued, facts.entries_added.map(|count| count as f64));
        }
        out.push(log);
        for group in self.groups {
            let mut reading =
                QueueReading::new(SYSTEM, vhost.clone(), self.name.clone(), display_name(&group.key));
            let memory = memory.streams.group(db, &self.key, &group.key);
            group.fill(&mut reading, facts, has_time_ids, memory, intake);
            out.push(reading);
        }
    }
}

impl GroupState {
    fn of(reply: &Reply) -> Option<Self> {
        let last_delivered = StreamId::of(reply.field("last-delivered-id")?)?;
        // A negative lag is a fault of some servers: as good as not told.
        let ready = match reply.field("lag").and_then(unsigned) {
            Some(lag) => Ready::Told(lag),
            None => Ready::Counting { count: 0, until: last_delivered },
        };
        Some(Self {
            key: reply.field("name")?.bytes()?.to_vec(),
            consumers: unsigned(reply.field("consumers")?)?,
            pending: unsigned(reply.field("pending")?)?,
            last_delivered,
            entries_read: reply.field("entries-read").and_then(unsigned),
            ready,
            oldest_pending: None,
            first_unread: None,
        })
    }

    fn take_page(&mut self, reply: &Reply) -> bool {
        let (Some(page), Ready::Counting { count, .. }) = (ids(reply), self.ready) else { return false };
        if self.first_unread.is_none() {
            self.first_unread = Some(page.first().copied());
        }
        let count = count + page.len() as u64;
        self.ready = match page.last() {
            Some(until) if page.len() as u64 >= COUNT_PAGE && count < COUNT_MAX => {
                Ready::Counting { count, until: *until }
            }
            _ => Ready::Counted(count),
        };
        true
    }

    fn fill(
        &self,
        reading: &mut QueueReading,
        facts: StreamFacts,
        has_time_ids: bool,
        memory: Option<&mut GroupMemory>,
        intake: &mut Intake<'_>,
    ) {
        let now_ms = intake.now_ms;
        let ready = match self.ready {
            // Told and found nothing: entries were deleted, or delivered in the meantime.
            _ if self.first_unread == Some(None) => Some(0),
            Ready::Told(lag) => Some(lag.min(facts.length)),
            Ready::Counted(count) => {
                if count >= COUNT_MAX {
                    let text = format!(
                        "stream {:?} group {:?}: lag unknown to the server, counted to {COUNT_MAX} entries",
                        reading.queue, reading.group
                    );
                    intake.doubts.partial(PartialReason::Limit, text);
                }
                Some(count)
            }
            Ready::Counting { .. } => {
                let text = format!(
                    "stream {:?} group {:?}: lag unknown to the server and not counted to the end",
                    reading.queue, reading.group
                );
                intake.doubts.partial(PartialReason::Limit, text);
                None
            }
        };
        let number = |count: u64| count as f64;
        reading.set(QueueMetric::Consumers, number(self.consumers));
        reading.set(QueueMetric::InFlight, number(self.pending));
        reading.set_optional(QueueMetric::Ready, ready.map(number));
        reading.set_optional(QueueMetric::LagMessages, ready.map(|ready| number(ready + self.pending)));
        reading.set_optional(QueueMetric::Enqueued, facts.entries_added.map(number));
        // Where the server does not tell how many entries the group has read, its place in the stream does.
        let position = self.entries_read.or_else(|| facts.entries_added?.checked_sub(ready?));
        reading.set_optional(QueueMetric::Delivered, position.map(number));
        let deliveries = self.oldest_pending.map(|oldest| oldest.map_or(0, |(_, deliveries)| deliveries));
        reading.set_optional(QueueMetric::OldestPendingDeliveries, deliveries.map(number));

        let head = match (self.oldest_pending, self.first_unread) {
            (Some(pending), Some(unread)) => Some(pending.map(|(id, _)| id).into_iter().chain(unread).min()),
            _ => None,
        };
        let finished = position.map(|position| position.saturating_sub(self.pending));
        let (dequeued, watched_since) = match memory {
            Some(memory) => (
                finished.map(|finished| memory.advance(finished, facts.entries_added)),
                head.flatten().map(|head| memory.watch(head, now_ms)),
            ),
            None => (finished, None),
        };
        reading.set_optional(QueueMetric::Dequeued, dequeued.map(number));
        let lag_seconds = match head {
            None => None,
            Some(None) => Some(0.0),
            Some(Some(head)) if has_time_ids => Some(age_seconds(now_ms, head.time_ms())),
            Some(Some(_)) => watched_since.map(|since| age_seconds(now_ms, since)),
        };
        reading.set_optional(QueueMetric::LagSeconds, lag_seconds);
        if has_time_ids {
            let oldest = self.first_unread.map(|id| id.map_or(0.0, |id| age_seconds(now_ms, id.time_ms())));
            reading.set_optional(QueueMetric::OldestAge, oldest);
        }
    }
}

impl Probe for StreamProbe {
    fn next(&mut self, may_read_bulk: bool) -> Vec<Command> {
        self.asked.clear();
        match self.stage {
            Stage::Start => {
                self.stage = Stage::Details;
                self.start()
            }
            Stage::Details => {
                self.stage = Stage::Counting;
                self.details(may_read_bulk)
            }
            Stage::Counting => self.more_pages(may_read_bulk),
        }
    }

    fn absorb(&mut self, replies: &[Reply], intake: &mut Intake<'_>) {
        for (question, reply) in std::mem::take(&mut self.asked).into_iter().zip(replies) {
            self.answer(question, reply, intake);
        }
    }

    fn finish(self: Box<Self>, memory: &mut Memory, intake: &mut Intake<'_>) -> Vec<QueueReading> {
        let mut readings = Vec::with_capacity(2 * self.streams.len());
        for stream in self.streams {
            stream.readings(self.db, memory, intake, &mut readings);
        }
        readings
    }
}

fn range(key: &[u8], after: StreamId, count: u64) -> Command {
    let (from, count) = (after.next().to_string(), count.to_string());
    Command::new("XRANGE", &[key, from.as_bytes(), b"+", b"COUNT", count.as_bytes()])
}

fn unsigned(reply: &Reply) -> Option<u64> {
    reply.integer().and_then(|number| u64::try_from(number).ok())
}

/// The ids of a list of entries.
fn ids(reply: &Reply) -> Option<Vec<StreamId>> {
    reply.array()?.iter().map(|entry| StreamId::of(entry.array()?.first()?)).collect()
}

/// Id and delivery count of the first entry of an `XPENDING … - + 1` answer.
fn oldest_pending(reply: &Reply) -> Option<Option<(StreamId, u64)>> {
    let Some(entry) = reply.array()?.first() else { return Some(None) };
    let [id, _consumer, _idle, deliveries] = entry.array()? else { return None };
    Some(Some((StreamId::of(id)?, unsigned(deliveries)?)))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
