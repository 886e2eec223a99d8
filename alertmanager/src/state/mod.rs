//! The durable state: notification log and silences, in sled, with an export beside it.
//!
//! A write returns when it is on disk. Writes that wait at the same time share one flush. Each value carries a
//! checksum; the layout is told in `docs/formats/alertmanager-state.md`.
//!
//! sled has open reports of files that it does not open again after a hard kill, and a lost silence wakes people up:
//! so the whole state is also exported to `state.json.lz4` soon after each change, replaced atomically. When sled
//! refuses its files, or a value fails its checksum, the files are moved aside, a new database is filled from the
//! readable values and the export, and that is logged and counted. A locked database, a full disk or missing rights
//! are no damage: these are errors and nothing is moved.
//!
//! The state is small (thousands of entries), so a copy of it lives in memory and the export is made from that.

mod export;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::export::{EXPORT_FILE, read_export, seal, unseal, write_export};
use crate::metrics::StateMetrics;

/// How long changes are collected before the export is written again.
const EXPORT_DELAY: Duration = Duration::from_secs(2);
/// Writes that may wait for a flush; more wait for room.
const QUEUE_MAX: usize = 1024;
/// sled's page cache: the state is copied in memory anyway.
const CACHE_BYTES: u64 = 4 << 20;
const DATABASE_DIR: &str = "state.sled";

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
    /// The store has been stopped.
    #[error("state is closed")]
    Closed,
}

type Tables = BTreeMap<Table, BTreeMap<String, String>>;

struct Write {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), StateError>>,
}

/// The store. Clones share it.
#[derive(Clone, Debug)]
pub struct StateStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tables: Mutex<Tables>,
    /// `None`: in memory only.
    disk: Option<Disk>,
    metrics: StateMetrics,
}

#[derive(Debug)]
struct Disk {
    writes: mpsc::Sender<Write>,
    dir: PathBuf,
    dirty: AtomicBool,
    changed: Notify,
    stop: CancellationToken,
    stopped: tokio::sync::Semaphore,
}

impl StateStore {
    /// A store without a disk: for tests and for a server that is told to keep nothing.
    pub fn in_memory(metrics: StateMetrics) -> Self {
        Self { inner: Arc::new(Inner { tables: Mutex::default(), disk: None, metrics }) }
    }

    /// Opens or creates the store in `dir` and repairs it if it is damaged.
    ///
    /// # Errors
    /// When the directory cannot be used or another process has it; damage is no error.
    pub async fn open(dir: &Path, now_ms: i64, metrics: StateMetrics) -> Result<Self, StateError> {
        let (directory, counters) = (dir.to_owned(), metrics.clone());
        let opened = tokio::task::spawn_blocking(move || open_or_repair(&directory, now_ms, &counters));
        let (database, tables) = opened.await.map_err(|e| StateError::Database(e.to_string()))??;
        let (writes, queue) = mpsc::channel(QUEUE_MAX);
        let disk = Disk {
            writes,
            dir: dir.to_owned(),
            dirty: AtomicBool::new(true),
            changed: Notify::new(),
            stop: CancellationToken::new(),
            stopped: tokio::sync::Semaphore::new(0),
        };
        // The export may be missing or old: the first one is due without a change.
        disk.changed.notify_one();
        let inner = Arc::new(Inner { tables: Mutex::new(tables), disk: Some(disk), metrics });
        tokio::spawn(write_loop(database, queue, Arc::clone(&inner)));
        tokio::spawn(export_loop(Arc::clone(&inner)));
        Ok(Self { inner })
    }

    /// All entries of a table.
    pub fn entries(&self, table: Table) -> Vec<(String, String)> {
        let tables = self.inner.tables.lock();
        tables.get(&table).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Makes `changes` durable, all or none. In memory they hold at once, also when the disk refuses: the caller is
    /// told, and later writes try to catch up through the export.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn write(&self, changes: Vec<Change>) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        {
            let mut tables = self.inner.tables.lock();
            for change in &changes {
                let table = tables.entry(change.table).or_default();
                match &change.value {
                    Some(value) => table.insert(change.key.clone(), value.clone()),
                    None => table.remove(&change.key),
                };
            }
        }
        let Some(disk) = &self.inner.disk else { return Ok(()) };
        disk.dirty.store(true, Ordering::Release);
        disk.changed.notify_one();
        let (done, result) = oneshot::channel();
        disk.writes.send(Write { changes, done }).await.map_err(|_| StateError::Closed)?;
        let result = result.await.map_err(|_| StateError::Closed)?;
        if result.is_err() {
            self.inner.metrics.write_errors.inc();
        }
        result
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

async fn write_loop(database: sled::Db, mut queue: mpsc::Receiver<Write>, inner: Arc<Inner>) {
    let Some(disk) = &inner.disk else { return };
    loop {
        let first = tokio::select! {
            biased;
            write = queue.recv() => write,
            () = disk.stop.cancelled() => None,
        };
        let Some(first) = first else { break };
        let mut writes = vec![first];
        while writes.len() < QUEUE_MAX
            && let Ok(write) = queue.try_recv()
        {
            writes.push(write);
        }
        let handle = database.clone();
        let applied = tokio::task::spawn_blocking(move || {
            let result = apply(&handle, writes.iter().flat_map(|write| &write.changes));
            (writes, result)
        });
        match applied.await {
            Ok((writes, result)) => {
                if let Err(error) = &result {
                    error!(%error, "alertmanager state could not be written");
                }
                let message = result.err().map(|error| error.to_string());
                for write in writes {
                    let result = message.clone().map_or(Ok(()), |m| Err(StateError::Database(m)));
                    // A caller that has gone away does not want the answer.
                    let _ = write.done.send(result);
                }
            }
            Err(error) => error!(%error, "writing the alertmanager state panicked"),
        }
    }
    queue.close();
    let closed = tokio::task::spawn_blocking(move || {
        let flushed = database.flush();
        drop(database);
        flushed
    });
    if let Ok(Err(error)) = closed.await {
        warn!(%error, "alertmanager state was not flushed when closed");
    }
    disk.stopped.add_permits(1);
}

fn apply<'a>(database: &sled::Db, changes: impl Iterator<Item = &'a Change>) -> Result<(), StateError> {
    let failed = |error: sled::Error| StateError::Database(error.to_string());
    for change in changes {
        let tree = database.open_tree(change.table.name()).map_err(failed)?;
        match &change.value {
            Some(value) => tree.insert(change.key.as_bytes(), seal(value)).map_err(failed)?,
            None => tree.remove(change.key.as_bytes()).map_err(failed)?,
        };
    }
    database.flush().map(|_| ()).map_err(failed)
}

async fn export_loop(inner: Arc<Inner>) {
    let Some(disk) = &inner.disk else { return };
    loop {
        let stopping = tokio::select! {
            () = disk.stop.cancelled() => true,
            () = async {
                disk.changed.notified().await;
                tokio::time::sleep(EXPORT_DELAY).await;
            } => false,
        };
        if disk.dirty.swap(false, Ordering::AcqRel) {
            let tables = inner.tables.lock().clone();
            let dir = disk.dir.clone();
            let written = tokio::task::spawn_blocking(move || write_export(&dir, &tables)).await;
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

// ---- opening ----

enum Opened {
    Good(sled::Db, Tables),
    /// What is wrong, and what could be read nevertheless.
    Damaged(String, Tables),
}

fn open_or_repair(dir: &Path, now_ms: i64, metrics: &StateMetrics) -> Result<(sled::Db, Tables), StateError> {
    std::fs::create_dir_all(dir).map_err(|source| StateError::Io {
        what: "could not create",
        path: dir.to_owned(),
        source,
    })?;
    let database_dir = dir.join(DATABASE_DIR);
    let is_new = !database_dir.exists();
    let (damage, mut tables) = match open_database(&database_dir)? {
        Opened::Good(database, tables) if !is_new || !dir.join(EXPORT_FILE).exists() => {
            return Ok((database, tables));
        }
        // Somebody removed the database and left the export: that is a wish to start from the export.
        Opened::Good(database, tables) => {
            drop(database);
            ("the database is missing".to_owned(), tables)
        }
        Opened::Damaged(what, tables) => (what, tables),
    };
    metrics.rebuilds.inc();
    let readable: usize = tables.values().map(BTreeMap::len).sum();
    let exported = match read_export(dir) {
        Ok(exported) => exported.unwrap_or_default(),
        Err(error) => {
            error!(%error, "the export of the alertmanager state is of no use");
            Tables::default()
        }
    };
    let from_export: usize = exported.values().map(BTreeMap::len).sum();
    for (table, entries) in exported {
        let kept = tables.entry(table).or_default();
        for (key, value) in entries {
            // What the database still had is newer than the export.
            kept.entry(key).or_insert(value);
        }
    }
    if database_dir.exists() && !is_new {
        let aside = dir.join(format!("{DATABASE_DIR}.damaged-{now_ms}"));
        std::fs::rename(&database_dir, &aside).map_err(|source| StateError::Io {
            what: "could not move aside",
            path: database_dir.clone(),
            source,
        })?;
        error!(%damage, moved_to = %aside.display(), readable, from_export, "alertmanager state was damaged and is rebuilt");
    } else {
        info!(from_export, "alertmanager state is restored from its export");
    }
    let Opened::Good(database, _) = open_database(&database_dir)? else {
        return Err(StateError::Database("a new database cannot be read".to_owned()));
    };
    let changes: Vec<Change> = tables
        .iter()
        .flat_map(|(table, entries)| entries.iter().map(|(k, v)| (*table, k.clone(), v.clone())))
        .map(|(table, key, value)| Change { table, key, value: Some(value) })
        .collect();
    apply(&database, changes.iter())?;
    Ok((database, tables))
}

/// Opens sled and reads everything. sled reports damage as an error or as a panic; both are caught here.
fn open_database(path: &Path) -> Result<Opened, StateError> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(sled::Error::Io(source))) => {
            // sled gives its lock's failure as an I/O error of kind "other" with this text.
            if source.to_string().contains("could not acquire lock") {
                return Err(StateError::Locked { path: path.to_owned() });
            }
            if matches!(source.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData) {
                return Ok(Opened::Damaged(source.to_string(), Tables::default()));
            }
            return Err(StateError::Io { what: "could not open", path: path.to_owned(), source });
        }
        Ok(Err(error)) => return Ok(Opened::Damaged(error.to_string(), Tables::default())),
        Err(_) => return Ok(Opened::Damaged("sled panicked while opening".to_owned(), Tables::default())),
    };
    let mut tables = Tables::default();
    let mut damage = None;
    let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
        for table in Table::ALL {
            let entries: &mut BTreeMap<String, String> = tables.entry(table).or_default();
            let tree = match database.open_tree(table.name()) {
                Ok(tree) => tree,
                Err(error) => {
                    damage = Some(error.to_string());
                    continue;
                }
            };
            for item in &tree {
                let Ok((key, value)) = item else {
                    damage = Some(format!("table {} ends unreadable", table.name()));
                    break;
                };
                match (String::from_utf8(key.to_vec()), unseal(&value)) {
                    (Ok(key), Some(value)) => {
                        entries.insert(key, value);
                    }
                    _ => damage = Some(format!("an entry of table {} fails its checksum", table.name())),
                }
            }
        }
    }));
    if read.is_err() {
        damage = Some("sled panicked while reading".to_owned());
    }
    match damage {
        None => Ok(Opened::Good(database, tables)),
        Some(what) => {
            drop(database);
            Ok(Opened::Damaged(what, tables))
        }
    }
}

#[cfg(test)]
mod tests;
