//! Plain lists used as queues.
//!
//! Round 1 asks the length of every list, round 2 the head of those that have one and will have series of their own.
//! Where the payload has a time (`head_time: json:<field>`), lag is its age; otherwise the head is watched: lag is at
//! least the time since this head (its hash) was first seen. Which end is the head is configured, or learnt: when a
//! list grew and one end changed, that end is the producers'; when it shrank and one end changed, the consumers'. Until
//! then both ends are watched and the younger counts, so that lag is never overstated.
//!
//! An empty list has no key in Redis: lists named in the configuration are 0 then, others for `remember_empty` after
//! they were last seen with an element.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::collector::resp::{Command, Reply};
use crate::collector::schema::{QueueInfo, QueueMetric, QueueReading};

use super::options::{Head, RedisOptions};
use super::probe::{Intake, Probe, Refusal, age_seconds, display_name};
use super::{Memory, SYSTEM};

/// Lists remembered per target.
pub(crate) const REMEMBERED_MAX: usize = 20_000;
/// Larger numbers in a payload are milliseconds, smaller ones seconds: in seconds this is the year 5138.
const SECONDS_MAX: f64 = 1e11;
/// Larger numbers are microseconds.
const MILLISECONDS_MAX: f64 = 1e14;

/// What is remembered of lists between collections.
#[derive(Debug, Default)]
pub(crate) struct ListMemory {
    lists: BTreeMap<(u32, Vec<u8>), KnownList>,
}

#[derive(Clone, Debug, Default)]
struct KnownList {
    /// When it was last seen with an element.
    last_seen_ms: i64,
    len: u64,
    /// The end consumers take from, as learnt.
    learnt: Option<Side>,
    left: Option<Watch>,
    right: Option<Watch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// An element and since when it has been at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watch {
    hash: u64,
    since_ms: i64,
}

impl ListMemory {
    /// Forgets lists not seen with an element since `before_ms`.
    pub(crate) fn forget(&mut self, before_ms: i64) {
        self.lists.retain(|_, list| list.last_seen_ms >= before_ms);
    }

    /// The lists of a database that are remembered.
    pub(crate) fn names(&self, db: u32) -> impl Iterator<Item = &[u8]> {
        self.lists
            .range((db, Vec::new())..)
            .take_while(move |((number, _), _)| *number == db)
            .map(|((_, key), _)| key.as_slice())
    }

    /// The databases that have remembered lists.
    pub(crate) fn databases(&self) -> BTreeSet<u32> {
        self.lists.keys().map(|(db, _)| *db).collect()
    }

    fn remove(&mut self, db: u32, key: &[u8]) {
        self.lists.remove(&(db, key.to_vec()));
    }

    fn list(&mut self, db: u32, key: &[u8]) -> Option<&mut KnownList> {
        let key = (db, key.to_vec());
        if self.lists.len() >= REMEMBERED_MAX && !self.lists.contains_key(&key) {
            return None;
        }
        Some(self.lists.entry(key).or_default())
    }
}

impl KnownList {
    /// Takes over what was seen and says since when the head is the head.
    fn watch(
        &mut self,
        len: u64,
        head: Head,
        left: Option<u64>,
        right: Option<u64>,
        now_ms: i64,
    ) -> Option<i64> {
        let same = |watch: Option<Watch>, hash: Option<u64>| Some(watch?.hash == hash?);
        if let (Some(same_left), Some(same_right)) = (same(self.left, left), same(self.right, right)) {
            let changed = match (same_left, same_right) {
                (false, true) => Some(Side::Left),
                (true, false) => Some(Side::Right),
                _ => None,
            };
            match changed {
                Some(side) if len < self.len => self.learnt = Some(side),
                Some(side) if len > self.len => self.learnt = Some(side.other()),
                _ => {}
            }
        }
        // Something was taken and yet the same is there: equal elements, of which another is at the head now.
        let unchanged = same(self.left, left).unwrap_or(true) && same(self.right, right).unwrap_or(true);
        let restart = len < self.len && unchanged;
        let renew = |watch: Option<Watch>, hash: Option<u64>| {
            let hash = hash?;
            match watch {
                Some(watch) if watch.hash == hash && !restart => Some(watch),
                _ => Some(Watch { hash, since_ms: now_ms }),
            }
        };
        self.left = renew(self.left, left);
        self.right = renew(self.right, right);
        self.len = len;
        self.last_seen_ms = now_ms;
        let side = match head {
            Head::Left => Some(Side::Left),
            Head::Right => Some(Side::Right),
            Head::Auto => self.learnt,
        };
        match side {
            Some(Side::Left) => self.left.map(|watch| watch.since_ms),
            Some(Side::Right) => self.right.map(|watch| watch.since_ms),
            None => Some(self.left?.since_ms.max(self.right?.since_ms)),
        }
    }

    fn emptied(&mut self) {
        self.len = 0;
        self.left = None;
        self.right = None;
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// Reads lists of one database.
#[derive(Debug)]
pub(crate) struct ListProbe {
    db: u32,
    options: Arc<RedisOptions>,
    lists: Vec<ListState>,
    stage: Stage,
    asked: Vec<(usize, Question)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Lengths,
    Heads,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Length,
    Left,
    Right,
}

#[derive(Debug)]
struct ListState {
    key: Vec<u8>,
    name: String,
    /// Named in the configuration, so that it exists even when it is empty.
    is_configured: bool,
    head: Head,
    head_time: Option<String>,
    len: Option<u64>,
    is_no_list: bool,
    left: Option<u64>,
    right: Option<u64>,
    /// When the head was enqueued; inner `None`: its payload does not tell.
    enqueued_ms: Option<Option<i64>>,
}

impl ListProbe {
    /// `keys` are the lists to ask, with whether the configuration names them.
    pub(crate) fn new(db: u32, options: Arc<RedisOptions>, keys: BTreeMap<Vec<u8>, bool>) -> Self {
        let lists = keys
            .into_iter()
            .map(|(key, is_configured)| {
                let name = display_name(&key);
                let pattern = options.list(&name);
                ListState {
                    key,
                    is_configured,
                    head: pattern.map(|pattern| pattern.head).unwrap_or_default(),
                    head_time: pattern.and_then(|pattern| pattern.head_time.clone()),
                    name,
                    len: None,
                    is_no_list: false,
                    left: None,
                    right: None,
                    enqueued_ms: None,
                }
            })
            .collect();
        Self { db, options, lists, stage: Stage::Lengths, asked: Vec::new() }
    }

    fn heads(&mut self) -> Vec<Command> {
        let queues = &self.options.queues;
        let mut longest: Vec<(u64, usize)> = self
            .lists
            .iter()
            .enumerate()
            .filter_map(|(index, list)| Some((list.len.filter(|len| *len > 0)?, index)))
            .collect();
        longest.sort_unstable_by(|a, b| b.cmp(a));
        let chosen: BTreeSet<usize> = longest
            .iter()
            .enumerate()
            .filter(|(rank, (_, index))| {
                *rank < queues.max_queues() || queues.is_included(&self.lists[*index].name)
            })
            .map(|(_, (_, index))| *index)
            .collect();
        let mut commands = Vec::new();
        for index in chosen {
            let list = &self.lists[index];
            let mut ask = |question, position: &[u8]| {
                commands.push(Command::new("LINDEX", &[&list.key, position]));
                self.asked.push((index, question));
            };
            if list.head != Head::Right {
                ask(Question::Left, b"0");
            }
            if list.head != Head::Left {
                ask(Question::Right, b"-1");
            }
        }
        commands
    }
}

impl ListState {
    fn reading(&self, db: u32, memory: &mut ListMemory, intake: &mut Intake<'_>) -> Option<QueueReading> {
        if self.is_no_list {
            memory.remove(db, &self.key);
            return None;
        }
        let len = self.len?;
        let now_ms = intake.now_ms;
        let lag_seconds = if len == 0 {
            let known = memory.lists.get_mut(&(db, self.key.clone()));
            if known.is_none() && !self.is_configured {
                return None;
            }
            if let Some(known) = known {
                known.emptied();
            }
            Some(0.0)
        } else {
            let since = memory
                .list(db, &self.key)
                .and_then(|known| known.watch(len, self.head, self.left, self.right, now_ms));
            match (&self.head_time, self.enqueued_ms) {
                (None, _) => since.map(|since| age_seconds(now_ms, since)),
                (Some(_), Some(Some(enqueued))) => Some(age_seconds(now_ms, enqueued)),
                (Some(field), Some(None)) => {
                    intake.account.error(super::STAGE_HEAD);
                    let text = format!("list {:?}: no time in field {field:?} of the head", self.name);
                    intake.doubts.warn(text);
                    None
                }
                (Some(_), None) => None,
            }
        };
        let mut reading = QueueReading::new(SYSTEM, db.to_string(), self.name.clone(), "");
        let lag_method = if self.head_time.is_some() { "head_time" } else { "head_watch" };
        reading.info = Some(QueueInfo { kind: "list", lag_method, ..QueueInfo::default() });
        reading.set(QueueMetric::Ready, len as f64).set(QueueMetric::LagMessages, len as f64);
        reading.set_optional(QueueMetric::LagSeconds, lag_seconds);
        if self.head_time.is_some() {
            reading.set_optional(QueueMetric::OldestAge, lag_seconds);
        }
        Some(reading)
    }
}

impl Probe for ListProbe {
    fn next(&mut self, _may_read_bulk: bool) -> Vec<Command> {
        self.asked.clear();
        match self.stage {
            Stage::Lengths => {
                self.stage = Stage::Heads;
                self.asked = (0..self.lists.len()).map(|index| (index, Question::Length)).collect();
                self.lists.iter().map(|list| Command::new("LLEN", &[&list.key])).collect()
            }
            Stage::Heads => {
                self.stage = Stage::Done;
                self.heads()
            }
            Stage::Done => Vec::new(),
        }
    }

    fn absorb(&mut self, replies: &[Reply], intake: &mut Intake<'_>) {
        for ((index, question), reply) in std::mem::take(&mut self.asked).into_iter().zip(replies) {
            let list = &mut self.lists[index];
            let command = if question == Question::Length { "LLEN" } else { "LINDEX" };
            if let Some(error) = reply.error() {
                let refusal = intake.refused(command, &list.name, error);
                list.is_no_list |= matches!(refusal, Refusal::WrongType | Refusal::Elsewhere);
                continue;
            }
            match question {
                Question::Length => {
                    list.len = reply.integer().and_then(|len| u64::try_from(len).ok());
                    if list.len.is_none() {
                        intake.unexpected(command, &list.name, reply);
                    }
                }
                Question::Left | Question::Right => {
                    // Nil: emptied since its length was asked.
                    let hash = reply.hash();
                    if hash.is_none() && *reply != Reply::Nil {
                        intake.unexpected(command, &list.name, reply);
                        continue;
                    }
                    if question == Question::Left {
                        list.left = hash;
                    } else {
                        list.right = hash;
                    }
                    if let Some(field) = &list.head_time {
                        list.enqueued_ms =
                            Some(reply.bytes().and_then(|payload| payload_time_ms(payload, field)));
                    }
                }
            }
        }
    }

    fn finish(self: Box<Self>, memory: &mut Memory, intake: &mut Intake<'_>) -> Vec<QueueReading> {
        self.lists.iter().filter_map(|list| list.reading(self.db, &mut memory.lists, intake)).collect()
    }
}

/// The time in `field` of a JSON payload: a number (seconds, milliseconds or microseconds since the epoch, by its size),
/// such a number as text, or RFC 3339.
pub(crate) fn payload_time_ms(payload: &[u8], field: &str) -> Option<i64> {
    let payload: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let value = payload.get(field)?;
    let number = match value {
        serde_json::Value::Number(number) => number.as_f64()?,
        serde_json::Value::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => return text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond()),
        },
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => return None,
    };
    let ms = match number {
        n if !n.is_finite() || n <= 0.0 => return None,
        n if n < SECONDS_MAX => n * 1000.0,
        n if n < MILLISECONDS_MAX => n,
        n => n / 1000.0,
    };
    // Saturates, which an age takes for the future: 0.
    Some(ms as i64)
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
