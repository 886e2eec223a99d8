//! Finding streams and lists by `SCAN … TYPE`, within a budget of keys per collection.
//!
//! Every database and type is a *track* with its own cursor. A collection goes on where the last one stopped and
//! gives each track at most one whole cycle; a keyspace larger than the budget takes several collections. What a cycle
//! found replaces what the one before found when it ends; until then both count.

use std::collections::BTreeSet;

use crate::collector::account::PartialReason;
use crate::collector::resp::{Command, Reply};

use super::options::RedisOptions;
use super::probe::{Intake, NAME_BYTES_MAX, Refusal, display_name};
use super::{STAGE_SCAN, list};

/// Keys looked at per command: about a quarter of a millisecond of the server.
const PAGE_KEYS: u64 = 1000;
/// Longest cursor a server may hand out; Redis' have up to 20 digits.
const CURSOR_BYTES_MAX: usize = 64;

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeyType {
    /// Lists.
    List,
    /// Streams.
    Stream,
}

impl KeyType {
    fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Stream => "stream",
        }
    }

    /// Most keys kept per track.
    fn keys_max(self) -> usize {
        match self {
            Self::List => list::REMEMBERED_MAX,
            // Each costs two commands and more per collection.
            Self::Stream => 10_000,
        }
    }
}

/// Cursors and finds of one target.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    tracks: Vec<Track>,
    /// The track to go on with.
    position: usize,
    /// Keys that may still be looked at in this collection.
    budget: u64,
    /// Tracks that had their cycle in this collection.
    finished: usize,
}

#[derive(Debug)]
struct Track {
    db: u32,
    kind: KeyType,
    /// `None` before the first page of a cycle.
    cursor: Option<Vec<u8>>,
    /// Found in the cycle so far.
    found: BTreeSet<Vec<u8>>,
    /// Found in the last whole cycle.
    known: BTreeSet<Vec<u8>>,
    /// Whether a cycle has ended, ever.
    is_complete: bool,
}

impl Scan {
    /// Starts a collection over `databases`.
    pub(crate) fn begin(&mut self, databases: &[u32], kinds: &[KeyType], budget: u64) {
        let wanted = |track: &Track| databases.contains(&track.db) && kinds.contains(&track.kind);
        let current = self.tracks.get(self.position).map(|track| (track.db, track.kind));
        self.tracks.retain(wanted);
        for db in databases {
            for kind in kinds {
                if !self.tracks.iter().any(|track| track.db == *db && track.kind == *kind) {
                    self.tracks.push(Track {
                        db: *db,
                        kind: *kind,
                        cursor: None,
                        found: BTreeSet::new(),
                        known: BTreeSet::new(),
                        is_complete: false,
                    });
                }
            }
        }
        // Order by database, so that few SELECTs are needed.
        self.tracks.sort_by_key(|track| (track.db, track.kind));
        self.position =
            self.tracks.iter().position(|track| Some((track.db, track.kind)) == current).unwrap_or_default();
        self.budget = budget;
        self.finished = 0;
    }

    /// The next command and the database to send it in; `None` when every track had its cycle or the budget is spent.
    pub(crate) fn next(&mut self) -> Option<(u32, Command)> {
        if self.finished >= self.tracks.len() || self.budget == 0 {
            return None;
        }
        let track = self.tracks.get(self.position)?;
        let count = self.budget.min(PAGE_KEYS);
        self.budget -= count;
        let cursor = track.cursor.as_deref().unwrap_or(b"0");
        let count = count.to_string();
        let arguments: [&[u8]; 5] =
            [cursor, b"COUNT", count.as_bytes(), b"TYPE", track.kind.name().as_bytes()];
        Some((track.db, Command::new("SCAN", &arguments)))
    }

    /// Takes the reply to that command.
    pub(crate) fn absorb(&mut self, reply: &Reply, options: &RedisOptions, intake: &mut Intake<'_>) {
        let Some(track) = self.tracks.get_mut(self.position) else { return };
        if let Some(error) = reply.error() {
            if intake.refused("SCAN", "", error) != Refusal::Permission {
                intake.account.error(STAGE_SCAN);
            }
            self.skip();
            return;
        }
        let page = reply.array().and_then(|parts| {
            let [cursor, keys] = parts else { return None };
            let cursor = cursor.bytes().filter(|cursor| cursor.len() <= CURSOR_BYTES_MAX)?;
            Some((cursor, keys.array()?))
        });
        let Some((cursor, keys)) = page else {
            intake.account.error(STAGE_SCAN);
            intake.unexpected("SCAN", "", reply);
            self.skip();
            return;
        };
        for key in keys {
            let Some(key) = key.bytes().filter(|key| key.len() <= NAME_BYTES_MAX) else {
                let text = format!("a key's name exceeds {NAME_BYTES_MAX} bytes");
                intake.doubts.partial(PartialReason::Limit, text);
                continue;
            };
            let name = display_name(key);
            let wanted = match track.kind {
                KeyType::List => options.list(&name).is_some(),
                KeyType::Stream => options.wants_stream(&name),
            };
            if !wanted || options.queues.is_excluded(&name) || track.found.contains(key) {
                continue;
            }
            if track.found.len() >= track.kind.keys_max() && !options.queues.is_included(&name) {
                let text = format!(
                    "db {}: more than {} keys of type {}",
                    track.db,
                    track.kind.keys_max(),
                    track.kind.name()
                );
                intake.doubts.partial(PartialReason::Limit, text);
                continue;
            }
            track.found.insert(key.to_vec());
        }
        if cursor == b"0" {
            track.known = std::mem::take(&mut track.found);
            track.cursor = None;
            track.is_complete = true;
            self.finished += 1;
            self.position = (self.position + 1) % self.tracks.len();
        } else {
            track.cursor = Some(cursor.to_vec());
        }
    }

    /// Gives up the present cycle: the server refused.
    fn skip(&mut self) {
        if let Some(track) = self.tracks.get_mut(self.position) {
            track.cursor = None;
            track.found.clear();
        }
        self.finished += 1;
        self.position = (self.position + 1) % self.tracks.len().max(1);
    }

    /// What is known of a database.
    pub(crate) fn keys(&self, db: u32, kind: KeyType) -> BTreeSet<Vec<u8>> {
        self.tracks
            .iter()
            .filter(|track| track.db == db && track.kind == kind)
            .flat_map(|track| track.known.union(&track.found))
            .cloned()
            .collect()
    }

    /// Whether every track has been walked to its end at least once.
    pub(crate) fn is_complete(&self) -> bool {
        self.tracks.iter().all(|track| track.is_complete)
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
