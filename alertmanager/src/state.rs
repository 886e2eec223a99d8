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

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::metrics::StateMetrics;

/// How long changes are collected before the export is written again.
const EXPORT_DELAY: Duration = Duration::from_secs(2);
/// Writes that may wait for a flush; more wait for room.
const QUEUE_MAX: usize = 1024;
/// sled's page cache: the state is copied in memory anyway.
const CACHE_BYTES: u64 = 4 << 20;
/// Largest export that is read back: more than any real state, less than memory.
const EXPORT_BYTES_MAX: usize = 1 << 30;

const EXPORT_MAGIC: &[u8; 8] = b"NILOAMS1";
const EXPORT_FILE: &str = "state.json.lz4";
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

// ---- values ----

/// CRC-32C of the text, little endian, before the text.
fn seal(value: &str) -> Vec<u8> {
    let mut out = crc32c::crc32c(value.as_bytes()).to_le_bytes().to_vec();
    out.extend_from_slice(value.as_bytes());
    out
}

fn unseal(bytes: &[u8]) -> Option<String> {
    let (crc, value) = bytes.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == crc32c::crc32c(value)).then(|| String::from_utf8(value.to_vec()).ok())?
}

// ---- export ----

fn write_export(dir: &Path, tables: &Tables) -> Result<usize, StateError> {
    let named: BTreeMap<&str, &BTreeMap<String, String>> =
        tables.iter().map(|(table, entries)| (table.name(), entries)).collect();
    let json = serde_json::to_vec(&named).map_err(|error| StateError::Database(error.to_string()))?;
    let packed = lz4_flex::compress_prepend_size(&json);
    let mut bytes = EXPORT_MAGIC.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&packed).to_le_bytes());
    bytes.extend_from_slice(&packed);

    let (path, temporary) = (dir.join(EXPORT_FILE), dir.join(format!("{EXPORT_FILE}.tmp")));
    let io = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Io { what, path, source }
    };
    let mut file = std::fs::File::create(&temporary).map_err(io("could not create", &temporary))?;
    file.write_all(&bytes).map_err(io("could not write", &temporary))?;
    file.sync_all().map_err(io("could not sync", &temporary))?;
    drop(file);
    std::fs::rename(&temporary, &path).map_err(io("could not replace", &path))?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("could not sync", dir))?;
    Ok(bytes.len())
}

/// The export, or why it is of no use.
fn read_export(dir: &Path) -> Result<Option<Tables>, String> {
    let path = dir.join(EXPORT_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("could not read {}: {error}", path.display())),
    };
    let damaged = |what: &str| format!("{}: {what}", path.display());
    let rest =
        bytes.strip_prefix(EXPORT_MAGIC).ok_or_else(|| damaged("not a state export of this version"))?;
    let (crc, packed) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("cut off"))?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(packed) {
        return Err(damaged("checksum mismatch"));
    }
    let (size, body) = lz4_flex::block::uncompressed_size(packed).map_err(|e| damaged(&e.to_string()))?;
    if size > EXPORT_BYTES_MAX {
        return Err(damaged("declares an impossible size"));
    }
    let json = lz4_flex::decompress(body, size).map_err(|error| damaged(&error.to_string()))?;
    let mut named: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&json).map_err(|error| damaged(&error.to_string()))?;
    Ok(Some(
        Table::ALL.into_iter().map(|table| (table, named.remove(table.name()).unwrap_or_default())).collect(),
    ))
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
mod tests {
    use super::*;

    fn metrics() -> StateMetrics {
        crate::metrics::Metrics::new(&prometheus::Registry::new()).unwrap().state
    }

    fn change(key: &str, value: Option<&str>) -> Change {
        Change { table: Table::Silences, key: key.to_owned(), value: value.map(str::to_owned) }
    }

    async fn filled(dir: &Path) {
        let store = StateStore::open(dir, 0, metrics()).await.unwrap();
        store.write(vec![change("a", Some("1")), change("b", Some("2"))]).await.unwrap();
        store.write(vec![change("b", None), change("c", Some("3"))]).await.unwrap();
        store.close().await;
    }

    fn silences(store: &StateStore) -> Vec<(String, String)> {
        store.entries(Table::Silences)
    }

    fn expected() -> Vec<(String, String)> {
        vec![("a".to_owned(), "1".to_owned()), ("c".to_owned(), "3".to_owned())]
    }

    #[tokio::test]
    async fn survives_closing_and_is_locked_while_open() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
        assert_eq!(silences(&store), expected());
        let second = StateStore::open(dir.path(), 0, metrics()).await;
        assert!(matches!(second, Err(StateError::Locked { .. })), "{second:?}");
        store.close().await;
        assert!(store.write(vec![change("z", None)]).await.is_err());
    }

    #[tokio::test]
    async fn acknowledged_writes_survive_without_a_clean_close() {
        let dir = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
        store.write(vec![change("a", Some("1"))]).await.unwrap();
        store.write(vec![change("c", Some("3"))]).await.unwrap();
        // What a kill leaves: the files as they are now, without the export.
        copy_dir(&dir.path().join(DATABASE_DIR), &copy.path().join(DATABASE_DIR));
        let again = StateStore::open(copy.path(), 0, metrics()).await.unwrap();
        assert_eq!(silences(&again), expected());
        again.close().await;
        store.close().await;
    }

    fn copy_dir(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy_dir(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn rebuilds_from_the_export_when_sled_refuses() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let file = dir.path().join(DATABASE_DIR).join("conf");
        std::fs::write(&file, b"this is no configuration of sled").unwrap();
        let counters = metrics();
        let store = StateStore::open(dir.path(), 77, counters.clone()).await.unwrap();
        assert_eq!(silences(&store), expected());
        assert_eq!(counters.rebuilds.get(), 1);
        assert!(dir.path().join(format!("{DATABASE_DIR}.damaged-77")).exists());
        store.close().await;
        // And the rebuilt database is a good one.
        let store = StateStore::open(dir.path(), 78, counters.clone()).await.unwrap();
        assert_eq!((silences(&store), counters.rebuilds.get()), (expected(), 1));
        store.close().await;
    }

    #[tokio::test]
    async fn values_that_fail_their_checksum_come_from_the_export() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        {
            let database = sled::open(dir.path().join(DATABASE_DIR)).unwrap();
            let tree = database.open_tree("silences").unwrap();
            tree.insert("a", b"xxxx1").unwrap();
            tree.insert("new", seal("4")).unwrap();
            database.flush().unwrap();
        }
        let counters = metrics();
        let store = StateStore::open(dir.path(), 5, counters.clone()).await.unwrap();
        let mut want = expected();
        want.push(("new".to_owned(), "4".to_owned()));
        assert_eq!((silences(&store), counters.rebuilds.get()), (want, 1));
        store.close().await;
    }

    /// The document's own example is what the code reads and writes.
    #[test]
    fn the_documented_export_is_read_and_written() {
        let document = include_str!("../../docs/formats/alertmanager-state.md");
        let hex = document.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let byte = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
        let bytes: Vec<u8> = hex.split_whitespace().map(byte).collect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(EXPORT_FILE), &bytes).unwrap();
        let tables = read_export(dir.path()).unwrap().unwrap();
        assert_eq!(tables[&Table::Silences]["a"], "1");
        assert!(tables[&Table::NotificationLog].is_empty());
        write_export(dir.path(), &tables).unwrap();
        assert_eq!(std::fs::read(dir.path().join(EXPORT_FILE)).unwrap(), bytes);
        let (crc, value) = (&seal("1")[..4], &seal("1")[4..]);
        let shown = format!(
            "{} {:02x}",
            crc.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "),
            value[0]
        );
        assert!(document.contains(&shown), "{shown}");
    }

    #[test]
    fn a_cut_or_changed_export_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::from([(Table::Silences, BTreeMap::from([("k".repeat(50), "v".repeat(500))]))]);
        write_export(dir.path(), &tables).unwrap();
        let file = dir.path().join(EXPORT_FILE);
        let whole = std::fs::read(&file).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert!(read_export(dir.path()).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x20;
            std::fs::write(&file, changed).unwrap();
            assert!(read_export(dir.path()).is_err(), "changed at {at}");
        }
    }

    #[tokio::test]
    async fn a_removed_database_is_filled_from_the_export_and_a_bad_export_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        std::fs::remove_dir_all(dir.path().join(DATABASE_DIR)).unwrap();
        let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
        assert_eq!(silences(&store), expected());
        store.close().await;
        std::fs::remove_dir_all(dir.path().join(DATABASE_DIR)).unwrap();
        let export = dir.path().join(EXPORT_FILE);
        let mut bytes = std::fs::read(&export).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&export, bytes).unwrap();
        let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
        assert_eq!(silences(&store), []);
        store.close().await;
    }
}
