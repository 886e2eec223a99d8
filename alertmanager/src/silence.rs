//! Silences: matchers and a time range in which alerts that match are not notified.
//!
//! A silence is never deleted by its owner but expired, and forgotten after the retention. Changes are durable before
//! they are acknowledged. Semantics are Alertmanager's: end and comment of a silence change in place; other changes
//! expire it and make a new one, so that what once held stays visible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{Clock, Labels, MatchOp, Matcher, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::matchers;
use crate::metrics::Metrics;
use crate::random::Random;
use crate::state::{Change, StateError, StateStore, Table};

/// Where a silence is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SilenceState {
    /// Holds now.
    Active,
    /// Will hold.
    Pending,
    /// Held.
    Expired,
}

/// A silence.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// UUID.
    pub id: String,
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// First moment.
    pub starts_at: Timestamp,
    /// First moment after.
    pub ends_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// Anything else.
    pub annotations: BTreeMap<String, String>,
}

impl Silence {
    /// Its state at `now`.
    pub fn state(&self, now: Timestamp) -> SilenceState {
        if now < self.starts_at {
            SilenceState::Pending
        } else if now >= self.ends_at {
            SilenceState::Expired
        } else {
            SilenceState::Active
        }
    }
}

/// What a user asks for.
#[derive(Clone, Debug)]
pub struct SilenceRequest {
    /// Empty: a new one.
    pub id: String,
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// First moment; `None` or past: now.
    pub starts_at: Option<Timestamp>,
    /// First moment after.
    pub ends_at: Timestamp,
    /// Who.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// Anything else.
    pub annotations: BTreeMap<String, String>,
}

/// Why a silence is not made or expired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SilenceError {
    /// No such id.
    #[error("silence not found")]
    NotFound,
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It could not be made durable.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Limits on silences; 0 means none.
#[derive(Clone, Copy, Debug, Default)]
pub struct SilenceLimits {
    /// Most silences, expired ones included until they are forgotten.
    pub silences_max: usize,
    /// Most bytes of one silence as stored.
    pub size_bytes_max: usize,
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct StoredSilence {
    matchers: Vec<StoredMatcher>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    updated_at: Timestamp,
    created_by: String,
    comment: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct StoredMatcher {
    name: String,
    op: String,
    value: String,
}

fn encode(silence: &Silence) -> Result<String, StateError> {
    let matchers = silence.matchers.iter().map(|matcher| StoredMatcher {
        name: matcher.name.clone(),
        op: matcher.op.as_str().to_owned(),
        value: matcher.value.clone(),
    });
    let stored = StoredSilence {
        matchers: matchers.collect(),
        starts_at: silence.starts_at,
        ends_at: silence.ends_at,
        updated_at: silence.updated_at,
        created_by: silence.created_by.clone(),
        comment: silence.comment.clone(),
        annotations: silence.annotations.clone(),
    };
    serde_json::to_string(&stored).map_err(|error| StateError::Database(error.to_string()))
}

fn decode(id: &str, text: &str) -> Result<Silence, String> {
    let stored: StoredSilence = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut matchers = Vec::with_capacity(stored.matchers.len());
    for matcher in stored.matchers {
        let op = match matcher.op.as_str() {
            "=" => MatchOp::Equal,
            "!=" => MatchOp::NotEqual,
            "=~" => MatchOp::Regex,
            "!~" => MatchOp::NotRegex,
            other => return Err(format!("unknown operator {other:?}")),
        };
        matchers.push(matchers::compile(op, &matcher.name, &matcher.value)?);
    }
    Ok(Silence {
        id: id.to_owned(),
        matchers,
        starts_at: stored.starts_at,
        ends_at: stored.ends_at,
        updated_at: stored.updated_at,
        created_by: stored.created_by,
        comment: stored.comment,
        annotations: stored.annotations,
    })
}

/// All silences.
#[derive(Debug)]
pub(crate) struct Silences {
    by_id: Mutex<HashMap<String, Arc<Silence>>>,
    /// One change at a time: a change reads, decides and writes to disk. Never taken with `by_id` held.
    changing: tokio::sync::Mutex<()>,
    store: StateStore,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Metrics,
    retention_ms: i64,
    limits: SilenceLimits,
}

impl Silences {
    /// Loads what the store has.
    pub(crate) fn load(
        store: StateStore,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Metrics,
        retention_ms: i64,
        limits: SilenceLimits,
    ) -> Self {
        let mut by_id = HashMap::new();
        for (id, text) in store.entries(Table::Silences) {
            match decode(&id, &text) {
                Ok(silence) => {
                    by_id.insert(id, Arc::new(silence));
                }
                Err(error) => tracing::error!(%id, %error, "a silence is unreadable and left out"),
            }
        }
        let changing = tokio::sync::Mutex::new(());
        Self { by_id: Mutex::new(by_id), changing, store, clock, random, metrics, retention_ms, limits }
    }

    /// The ids of the silences that hold for `labels` at `now`, sorted.
    pub(crate) fn silencing(&self, labels: &Labels, now: Timestamp) -> Vec<String> {
        self.metrics.silences_queries.inc();
        let by_id = self.by_id.lock();
        let holds = |silence: &&Arc<Silence>| {
            silence.state(now) == SilenceState::Active && Matcher::all_match(&silence.matchers, labels)
        };
        let mut ids: Vec<String> = by_id.values().filter(holds).map(|silence| silence.id.clone()).collect();
        ids.sort_unstable();
        ids
    }

    /// All, in the order of the API: active by end, pending by start, expired by end, newest first.
    pub(crate) fn list(&self) -> Vec<Arc<Silence>> {
        let now = self.clock.now_ms();
        let mut all: Vec<Arc<Silence>> = self.by_id.lock().values().cloned().collect();
        all.sort_by_cached_key(|silence| {
            let state = silence.state(now);
            let time = match state {
                SilenceState::Active => silence.ends_at,
                SilenceState::Pending => silence.starts_at,
                SilenceState::Expired => -silence.ends_at,
            };
            (state, time, silence.id.clone())
        });
        all
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Silence>> {
        self.by_id.lock().get(id).cloned()
    }

    /// Makes or changes a silence; gives its id.
    pub(crate) async fn set(&self, request: SilenceRequest) -> Result<String, SilenceError> {
        let _changing = self.changing.lock().await;
        let now = self.clock.now_ms();
        check(&request)?;
        let starts_at = request.starts_at.unwrap_or(now);
        if request.ends_at < starts_at {
            return Err(invalid("end time must not be before start time"));
        }
        let old = match request.id.as_str() {
            "" => None,
            id => Some(self.get(id).ok_or(SilenceError::NotFound)?),
        };
        let mut silence = Silence {
            id: request.id,
            matchers: request.matchers,
            starts_at,
            ends_at: request.ends_at,
            updated_at: now,
            created_by: request.created_by,
            comment: request.comment,
            annotations: request.annotations,
        };
        let mut changed = Vec::new();
        match &old {
            Some(old) if changes_in_place(old, &silence, now) => {}
            _ => {
                let count = self.by_id.lock().len();
                if self.limits.silences_max > 0 && count >= self.limits.silences_max {
                    let limit = self.limits.silences_max;
                    return Err(invalid(format!(
                        "exceeded maximum number of silences: {count} (limit: {limit})"
                    )));
                }
                silence.id = self.random.uuid();
                silence.starts_at = silence.starts_at.max(now);
                if let Some(old) = old.filter(|old| old.state(now) != SilenceState::Expired) {
                    changed.push(expired(&old, now));
                }
            }
        }
        let size = encode(&silence)?.len();
        if self.limits.size_bytes_max > 0 && size > self.limits.size_bytes_max {
            let limit = self.limits.size_bytes_max;
            return Err(invalid(format!(
                "silence exceeded maximum size: {size} bytes (limit: {limit} bytes)"
            )));
        }
        let id = silence.id.clone();
        changed.push(silence);
        self.put(changed).await?;
        Ok(id)
    }

    /// Ends a silence now; one that has ended already stays as it is.
    pub(crate) async fn expire(&self, id: &str) -> Result<(), SilenceError> {
        let _changing = self.changing.lock().await;
        let now = self.clock.now_ms();
        let old = self.get(id).ok_or(SilenceError::NotFound)?;
        if old.state(now) == SilenceState::Expired {
            return Ok(());
        }
        self.put(vec![expired(&old, now)]).await
    }

    /// Durable first, then in force: what is acknowledged is on disk, what is refused never held.
    async fn put(&self, silences: Vec<Silence>) -> Result<(), SilenceError> {
        let mut changes = Vec::new();
        for silence in &silences {
            changes.push(Change {
                table: Table::Silences,
                key: silence.id.clone(),
                value: Some(encode(silence)?),
            });
        }
        self.store.write(changes).await?;
        let mut by_id = self.by_id.lock();
        for silence in silences {
            by_id.insert(silence.id.clone(), Arc::new(silence));
        }
        Ok(())
    }

    /// Forgets silences that expired longer ago than the retention, and counts the rest.
    pub(crate) async fn maintain(&self) -> Result<usize, StateError> {
        let _changing = self.changing.lock().await;
        let now = self.clock.now_ms();
        let forgotten: Vec<String> = {
            let mut by_id = self.by_id.lock();
            let old = |silence: &&Arc<Silence>| silence.ends_at.saturating_add(self.retention_ms) <= now;
            let ids: Vec<String> = by_id.values().filter(old).map(|silence| silence.id.clone()).collect();
            for id in &ids {
                by_id.remove(id);
            }
            ids
        };
        self.count();
        let count = forgotten.len();
        let remove = |key| Change { table: Table::Silences, key, value: None };
        self.store.keep(forgotten.into_iter().map(remove).collect()).await?;
        Ok(count)
    }

    /// Takes over what the store came to know after it was loaded.
    pub(crate) async fn adopt(&self) {
        let _changing = self.changing.lock().await;
        for (id, text) in self.store.entries(Table::Silences) {
            let Ok(silence) = decode(&id, &text) else { continue };
            let mut by_id = self.by_id.lock();
            if by_id.get(&id).is_none_or(|known| known.updated_at < silence.updated_at) {
                by_id.insert(id, Arc::new(silence));
            }
        }
    }

    /// Brings the gauge of silences up to date.
    pub(crate) fn count(&self) {
        let now = self.clock.now_ms();
        let mut counts = [0i64; 3];
        for silence in self.by_id.lock().values() {
            counts[silence.state(now) as usize] += 1;
        }
        for (state, count) in ["active", "pending", "expired"].into_iter().zip(counts) {
            self.metrics.silences.with_label_values(&[state]).set(count);
        }
    }
}

fn invalid(message: impl Into<String>) -> SilenceError {
    SilenceError::Invalid(message.into())
}

fn check(request: &SilenceRequest) -> Result<(), SilenceError> {
    if request.matchers.is_empty() {
        return Err(invalid("invalid silence: at least one matcher required"));
    }
    for (index, matcher) in request.matchers.iter().enumerate() {
        if matcher.name.is_empty() {
            let message =
                format!("invalid silence: invalid label matcher {index} in set 0: invalid label name \"\"");
            return Err(invalid(message));
        }
    }
    if request.matchers.iter().all(Matcher::matches_empty) {
        let message = "invalid silence: matcher set 0: at least one matcher must not match the empty string";
        return Err(invalid(message));
    }
    Ok(())
}

/// Whether `new` may replace `old` under the same id.
fn changes_in_place(old: &Silence, new: &Silence, now: Timestamp) -> bool {
    // Starts compare as whole seconds: clients send back what they were shown.
    let same_second = |a: Timestamp, b: Timestamp| a.div_euclid(1000) == b.div_euclid(1000);
    old.matchers == new.matchers
        && match old.state(now) {
            SilenceState::Active => same_second(old.starts_at, new.starts_at) && new.ends_at >= now,
            SilenceState::Pending => new.starts_at >= now,
            SilenceState::Expired => false,
        }
}

fn expired(old: &Silence, now: Timestamp) -> Silence {
    let mut silence = old.clone();
    // A pending one never held: both ends move to now.
    silence.starts_at = silence.starts_at.min(now);
    silence.ends_at = now;
    silence.updated_at = now;
    silence
}
