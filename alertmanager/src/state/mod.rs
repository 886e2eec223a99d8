//! The durable state: notification log and silences, in sled, with an export beside it.
//!
//! A write returns when it is on disk. Writes that wait at the same time share one transaction and one flush. Each
//! value carries a checksum; the layout is told in `docs/formats/alertmanager-state.md`.
//!
//! sled has open reports of files that it does not open again after a hard kill, and a lost silence wakes people up:
//! so the whole state is also exported to `state.json.lz4` soon after each change, replaced atomically. When sled
//! refuses its files, or a value fails its checksum, the files are moved aside, a new database is filled from the
//! readable values and the export, and that is logged and counted.
//!
//! A full or failing disk is no damage. sled keeps its first I/O error until it is opened again: so a failed write
//! closes the database, opens it again, brings it up to the state in memory and tries once more; when that fails too
//! it is tried again later, and meanwhile the store is not durable, which a gauge says. A store that cannot be opened
//! at the start begins with the export in the same way. Generations tell which of database and export is newer.
//!
//! The state is small (thousands of entries), so a copy of it lives in memory and the export is made from that.

mod database;
mod export;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::database::{apply, difference, open_or_repair, usable_export};
use self::export::write_export;
use crate::metrics::StateMetrics;

/// How long changes are collected before the export is written again.
const EXPORT_DELAY: Duration = Duration::from_secs(2);
/// Writes that may wait for a flush; more wait for room.
const QUEUE_MAX: usize = 1024;
/// Waits between attempts to open a database whose disk failed: doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// sled's threads let go of the lock a moment after the database is dropped.
const UNLOCK_WAIT: Duration = Duration::from_millis(20);
const UNLOCK_TRIES: u32 = 25;

/// A keyed collection within the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Last notification by group and integration.
    NotificationLog,
    /// Silences by id.
    Silences,
}

impl Table {
    const ALL: [Self; 2] = [Self::NotificationLog, Self::Silences];

    fn name(self) -> &'static str {
        match self {
            Self::NotificationLog => "nflog",
            Self::Silences => "silences",
        }
    }
}

/// One change: a new value for a key, or its removal.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Unique within the table.
    pub key: String,
    /// JSON; `None` removes the key.
    pub value: Option<String>,
}

/// Why the state cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process has it.
    #[error("state in {path} is locked by another process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The database failed in another way.
    #[error("state database: {0}")]
    Database(String),
    /// Not written: the disk failed before and is not usable yet.
    #[error("state is not durable at present: {0}")]
    NotDurable(String),
    /// The store has been stopped.
    #[error("state is closed")]
    Closed,
}

impl StateError {
    /// Whether it may pass by itself: the room on a disk, the mood of one. A wrong path or missing rights do not.
    fn may_pass(&self) -> bool {
        use std::io::ErrorKind::{AlreadyExists, InvalidInput, NotADirectory, PermissionDenied};
        match self {
            Self::Io { source, .. } => {
                !matches!(source.kind(), AlreadyExists | InvalidInput | NotADirectory | PermissionDenied)
            }
            Self::Database(_) => true,
            Self::Locked { .. } | Self::NotDurable(_) | Self::Closed => false,
        }
    }
}

type Tables = BTreeMap<Table, BTreeMap<String, String>>;
/// New values by key; `None` is a removal.
type Overlay = BTreeMap<(Table, String), Option<String>>;

/// The state as of a generation. A later one has a higher number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    generation: u64,
    tables: Tables,
}

impl State {
    fn change(&mut self, change: &Change) {
        let table = self.tables.entry(change.table).or_default();
        match &change.value {
            Some(value) => table.insert(change.key.clone(), value.clone()),
            None => table.remove(&change.key),
        };
    }
}

struct Write {
    changes: Vec<Change>,
    /// Holds in memory although the disk refuses, and follows to disk later.
    keep: bool,
    done: oneshot::Sender<Result<(), StateError>>,
}

/// The store. Clones share it.
#[derive(Clone, Debug)]
pub struct StateStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// `None`: in memory only.
    disk: Option<Disk>,
    metrics: StateMetrics,
}

#[derive(Debug)]
struct Disk {
    writes: mpsc::Sender<Write>,
    dir: PathBuf,
    opened_ms: i64,
    opened_at: Instant,
    /// The database could not be read yet: what is changed meanwhile, to be laid over what it has. As long as this
    /// is there, no export is written: it would pass for newer than a database that nobody has read.
    unread: Mutex<Option<Overlay>>,
    adopted: Notify,
    dirty: AtomicBool,
    changed: Notify,
    stop: CancellationToken,
    writes_ended: CancellationToken,
    stopped: tokio::sync::Semaphore,
}

impl StateStore {
    /// A store without a disk: for tests and for a server that is told to keep nothing.
    pub fn in_memory(metrics: StateMetrics) -> Self {
        Self { inner: Arc::new(Inner { state: Mutex::default(), disk: None, metrics }) }
    }

    /// Opens or creates the store in `dir` and repairs it if it is damaged. On a disk that is full or fails, the store
    /// begins with what the export has, is not durable, and goes on trying.
    ///
    /// # Errors
    /// When the directory cannot be used or another process has it; damage and a full disk are no errors.
    pub async fn open(dir: &Path, now_ms: i64, metrics: StateMetrics) -> Result<Self, StateError> {
        let (directory, counters) = (dir.to_owned(), metrics.clone());
        let opened = tokio::task::spawn_blocking(move || {
            match open_or_repair(&directory, now_ms, &counters) {
                Ok((database, state)) => Ok((Some(database), state)),
                Err(error) if error.may_pass() => {
                    error!(%error, "alertmanager state cannot be opened: it begins with the export and is not durable");
                    Ok((None, usable_export(&directory)))
                }
                Err(error) => Err(error),
            }
        });
        let (database, state) = opened.await.map_err(|e| StateError::Database(e.to_string()))??;
        metrics.durable.set(i64::from(database.is_some()));
        let (writes, queue) = mpsc::channel(QUEUE_MAX);
        let disk = Disk {
            writes,
            dir: dir.to_owned(),
            opened_ms: now_ms,
            opened_at: Instant::now(),
            unread: Mutex::new(database.is_none().then(BTreeMap::new)),
            adopted: Notify::new(),
            dirty: AtomicBool::new(true),
            changed: Notify::new(),
            stop: CancellationToken::new(),
            writes_ended: CancellationToken::new(),
            stopped: tokio::sync::Semaphore::new(0),
        };
        // The export may be missing or old: the first one is due without a change.
        disk.changed.notify_one();
        let inner = Arc::new(Inner { state: Mutex::new(state), disk: Some(disk), metrics });
        tokio::spawn(write_loop(database, queue, Arc::clone(&inner)));
        tokio::spawn(export_loop(Arc::clone(&inner)));
        Ok(Self { inner })
    }

    /// All entries of a table.
    pub fn entries(&self, table: Table) -> Vec<(String, String)> {
        let state = self.inner.state.lock();
        state.tables.get(&table).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Makes `changes` durable, all or none. What the disk refuses does not hold, now or after a restart.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn write(&self, changes: Vec<Change>) -> Result<(), StateError> {
        self.enqueue(changes, false).await
    }

    /// Makes `changes` durable. What the disk refuses holds in memory nevertheless, and follows to disk as soon as that
    /// takes it: the caller is told.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn keep(&self, changes: Vec<Change>) -> Result<(), StateError> {
        self.enqueue(changes, true).await
    }

    async fn enqueue(&self, changes: Vec<Change>, keep: bool) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        let Some(disk) = &self.inner.disk else {
            let mut state = self.inner.state.lock();
            changes.iter().for_each(|change| state.change(change));
            return Ok(());
        };
        let (done, result) = oneshot::channel();
        disk.writes.send(Write { changes, keep, done }).await.map_err(|_| StateError::Closed)?;
        let result = result.await.map_err(|_| StateError::Closed)?;
        if result.is_err() {
            self.inner.metrics.write_errors.inc();
        }
        result
    }

    /// Waits until a database that could not be read at the start has been read after all: [`StateStore::entries`] may
    /// have more then.
    pub async fn adopted(&self) {
        match &self.inner.disk {
            Some(disk) => disk.adopted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Writes the export and closes the database. Writes after this fail.
    pub async fn close(&self) {
        let Some(disk) = &self.inner.disk else { return };
        disk.stop.cancel();
        // Both loops release one permit when they are done.
        if let Ok(permits) = disk.stopped.acquire_many(2).await {
            permits.forget();
            disk.stopped.add_permits(2);
        }
    }
}

// ---- the two tasks ----

async fn write_loop(mut database: Option<sled::Db>, mut queue: mpsc::Receiver<Write>, inner: Arc<Inner>) {
    let Some(disk) = &inner.disk else { return };
    let mut wait = RETRY_FIRST;
    let mut retry_at = Instant::now() + wait;
    let mut last_error = "it could not be opened".to_owned();
    loop {
        let first = tokio::select! {
            biased;
            write = queue.recv() => match write {
                Some(write) => Some(write),
                None => break,
            },
            () = tokio::time::sleep_until(retry_at), if database.is_none() => None,
            () = disk.stop.cancelled() => break,
        };
        let mut writes = Vec::from_iter(first);
        while writes.len() < QUEUE_MAX
            && let Ok(write) = queue.try_recv()
        {
            writes.push(write);
        }
        // What has to be durable is worth an attempt at any time: users make it. The rest waits for its turn.
        let is_due =
            database.is_some() || Instant::now() >= retry_at || writes.iter().any(|write| !write.keep);
        let (handle, shared) = (database.take(), Arc::clone(&inner));
        let committed = tokio::task::spawn_blocking(move || {
            let (handle, result) = if is_due {
                shared.commit(handle, &writes)
            } else {
                shared.remember(&writes);
                (handle, None)
            };
            (writes, handle, result)
        });
        let (writes, result) = match committed.await {
            Ok((writes, handle, result)) => {
                database = handle;
                (writes, result)
            }
            Err(error) => {
                error!(%error, "writing the alertmanager state panicked");
                (Vec::new(), Some(Err(StateError::Database("writing panicked".to_owned()))))
            }
        };
        let message = match result {
            Some(Ok(())) => {
                wait = RETRY_FIRST;
                None
            }
            Some(Err(error)) => {
                last_error = error.to_string();
                error!(error = %last_error, retry_in = ?wait, "alertmanager state could not be written");
                retry_at = Instant::now() + wait;
                wait = (wait * 2).min(RETRY_MAX);
                Some(last_error.clone())
            }
            None => Some(last_error.clone()),
        };
        inner.metrics.durable.set(i64::from(database.is_some()));
        disk.dirty.store(true, Ordering::Release);
        disk.changed.notify_one();
        for write in writes {
            let result = message.clone().map_or(Ok(()), |m| Err(StateError::NotDurable(m)));
            // A caller that has gone away does not want the answer.
            let _ = write.done.send(result);
        }
    }
    queue.close();
    let last = Arc::clone(&inner);
    let closed = tokio::task::spawn_blocking(move || {
        // Behind the memory: the last chance to catch up.
        let handle = if database.is_none() { last.commit(None, &[]).0 } else { database };
        match handle {
            Some(handle) => handle.flush().map(|_| ()).map_err(|error| error.to_string()),
            None => Err("the disk refuses".to_owned()),
        }
    });
    if let Ok(Err(error)) = closed.await {
        warn!(%error, "alertmanager state was not flushed when closed");
    }
    disk.writes_ended.cancel();
    disk.stopped.add_permits(1);
}

type Committed = (Option<sled::Db>, Option<Result<(), StateError>>);

impl Inner {
    /// Writes to the database, opened again if need be, and then to memory. Blocks.
    fn commit(&self, database: Option<sled::Db>, writes: &[Write]) -> Committed {
        let changes = || writes.iter().flat_map(|write| &write.changes);
        let generation = self.state.lock().generation + 1;
        if let Some(database) = database {
            match guarded(|| apply(&database, changes(), generation)) {
                Ok(()) => {
                    let mut state = self.state.lock();
                    state.generation = generation;
                    changes().for_each(|change| state.change(change));
                    return (Some(database), Some(Ok(())));
                }
                Err(error) => {
                    warn!(%error, "alertmanager state could not be written: the database is opened again");
                }
            }
            drop(database);
        }
        match guarded(|| self.reopen(writes)) {
            Ok(database) => (Some(database), Some(Ok(()))),
            Err(error) => {
                self.remember(writes);
                (None, Some(Err(error)))
            }
        }
    }

    /// Opens the database and brings it up to memory and `writes`.
    fn reopen(&self, writes: &[Write]) -> Result<sled::Db, StateError> {
        let Some(disk) = &self.disk else { return Err(StateError::Closed) };
        self.metrics.reopens.inc();
        let elapsed_ms = i64::try_from(disk.opened_at.elapsed().as_millis()).unwrap_or(i64::MAX);
        let now_ms = disk.opened_ms.saturating_add(elapsed_ms);
        let mut tries = 0;
        let (database, found) = loop {
            match open_or_repair(&disk.dir, now_ms, &self.metrics) {
                Err(StateError::Locked { .. }) if tries < UNLOCK_TRIES => {
                    tries += 1;
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a blocking thread, and a lock without a signal"
                    )]
                    std::thread::sleep(UNLOCK_WAIT);
                }
                opened => break opened?,
            }
        };
        let mut wanted = self.state.lock().clone();
        // Not locked over what blocks: the export looks at it too. Only this task changes it.
        let unread = disk.unread.lock().clone();
        if let Some(overlay) = &unread {
            wanted.tables.clone_from(&found.tables);
            for ((table, key), value) in overlay {
                wanted.change(&Change { table: *table, key: key.clone(), value: value.clone() });
            }
        }
        wanted.generation = wanted.generation.max(found.generation) + 1;
        for change in writes.iter().flat_map(|write| &write.changes) {
            wanted.change(change);
        }
        let missing = difference(&found.tables, &wanted.tables);
        apply(&database, missing.iter(), wanted.generation)?;
        info!(
            caught_up = missing.len(),
            generation = wanted.generation,
            "alertmanager state is durable again"
        );
        *self.state.lock() = wanted;
        self.metrics.durable.set(1);
        *disk.unread.lock() = None;
        if unread.is_some() {
            disk.adopted.notify_one();
        }
        Ok(database)
    }

    /// Takes over what holds although the disk refused. The generation passes over the refused one: parts of that
    /// may have come to the disk, and the export is to win over them.
    fn remember(&self, writes: &[Write]) {
        let mut overlay = self.disk.as_ref().map(|disk| disk.unread.lock());
        let mut state = self.state.lock();
        state.generation += 2;
        for change in writes.iter().filter(|write| write.keep).flat_map(|write| &write.changes) {
            state.change(change);
            if let Some(overlay) = overlay.as_mut().and_then(|overlay| overlay.as_mut()) {
                overlay.insert((change.table, change.key.clone()), change.value.clone());
            }
        }
    }
}

/// sled reports some trouble as a panic.
fn guarded<T>(what: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
    std::panic::catch_unwind(AssertUnwindSafe(what))
        .unwrap_or_else(|_| Err(StateError::Database("sled panicked".to_owned())))
}

async fn export_loop(inner: Arc<Inner>) {
    let Some(disk) = &inner.disk else { return };
    loop {
        let stopping = tokio::select! {
            // The last export has the last writes.
            () = disk.writes_ended.cancelled() => true,
            () = async {
                disk.changed.notified().await;
                tokio::time::sleep(EXPORT_DELAY).await;
            } => false,
        };
        if disk.unread.lock().is_none() && disk.dirty.swap(false, Ordering::AcqRel) {
            let state = inner.state.lock().clone();
            let dir = disk.dir.clone();
            let written = tokio::task::spawn_blocking(move || write_export(&dir, &state)).await;
            match written {
                Ok(Ok(bytes)) => inner.metrics.export_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX)),
                Ok(Err(error)) => {
                    inner.metrics.export_errors.inc();
                    disk.dirty.store(true, Ordering::Release);
                    warn!(%error, "export of the alertmanager state failed");
                }
                Err(error) => error!(%error, "export of the alertmanager state panicked"),
            }
        }
        if stopping {
            break;
        }
    }
    disk.stopped.add_permits(1);
}

#[cfg(test)]
mod tests;
