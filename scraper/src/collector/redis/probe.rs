//! The seam between what is asked of a Redis and how: probes name commands and read replies, they do no I/O.
//!
//! The session asks all probes of a database round by round, in one pipeline per round. Plain streams and lists are
//! probes; job libraries (Sidekiq, BullMQ, Celery, RQ, Resque) are further ones.

use crate::collector::account::{Account, Doubts, PartialReason};
use crate::collector::resp::{Command, Reply};
use crate::collector::schema::QueueReading;

use super::{Memory, STAGE_QUEUES};

/// Longest name of a key or group that is looked at, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// Reads one kind of queue in one database.
pub(crate) trait Probe: Send {
    /// The commands of the next round; none when there is nothing more to ask. `may_read_bulk` is false once most of
    /// the collection's byte budget is spent: then no entries are to be counted any more.
    fn next(&mut self, may_read_bulk: bool) -> Vec<Command>;

    /// Takes the replies of the round: in order, fewer than commands when the connection was cut (then no round
    /// follows).
    fn absorb(&mut self, replies: &[Reply], intake: &mut Intake<'_>);

    /// What is known now. A number whose parts did not all come is left out.
    fn finish(self: Box<Self>, memory: &mut Memory, intake: &mut Intake<'_>) -> Vec<QueueReading>;
}

/// Where probes put doubts.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    pub(crate) doubts: &'a mut Doubts,
    pub(crate) account: &'a mut Account,
    /// The time by the server's clock, in milliseconds.
    pub(crate) now_ms: i64,
}

/// What an error reply means for a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The key (or group) is not there (any more).
    Gone,
    /// The key is of another type.
    WrongType,
    /// Another node of the cluster has the key: its own target reports it.
    Elsewhere,
    /// The user lacks a right.
    Permission,
    /// Anything else.
    Other,
}

impl Refusal {
    pub(crate) fn of(error: &str) -> Self {
        match error.split(' ').next().unwrap_or_default() {
            "NOPERM" => Self::Permission,
            "WRONGTYPE" => Self::WrongType,
            "NOGROUP" => Self::Gone,
            "MOVED" | "ASK" => Self::Elsewhere,
            "ERR" if error.starts_with("ERR no such key") => Self::Gone,
            _ => Self::Other,
        }
    }
}

impl Intake<'_> {
    /// Notes an error reply to `command` about `key`, and says what it means. What is gone or elsewhere is normal.
    pub(crate) fn refused(&mut self, command: &str, key: &str, error: &str) -> Refusal {
        let refusal = Refusal::of(error);
        let about = if key.is_empty() { String::new() } else { format!(" {key:?}") };
        match refusal {
            Refusal::Gone | Refusal::Elsewhere => {}
            Refusal::WrongType => self.doubts.warn(format!("{command}{about}: {}", shorten(error))),
            Refusal::Permission => {
                self.doubts
                    .partial(PartialReason::Permission, format!("{command}{about}: {}", shorten(error)));
            }
            Refusal::Other => {
                self.account.error(STAGE_QUEUES);
                self.doubts.partial(PartialReason::Answer, format!("{command}{about}: {}", shorten(error)));
            }
        }
        refusal
    }

    /// Notes a reply to `command` about `key` that is none of those the command can have.
    pub(crate) fn unexpected(&mut self, command: &str, key: &str, reply: &Reply) {
        self.account.error(STAGE_QUEUES);
        self.doubts.partial(
            PartialReason::Answer,
            format!("{command} {key:?}: unexpected answer ({})", reply.kind()),
        );
    }
}

/// The label value for a key: UTF-8 with the invalid parts replaced.
pub(crate) fn display_name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// Bounds a text from the server for messages.
pub(crate) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Seconds from `then_ms` to `now_ms`, never negative.
pub(crate) fn age_seconds(now_ms: i64, then_ms: i64) -> f64 {
    now_ms.saturating_sub(then_ms).max(0) as f64 / 1000.0
}
