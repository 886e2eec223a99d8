//! The database: opening, repair and writes in one transaction. Everything here blocks.
//!
//! Each write carries the generation of the state, so that after trouble the newer of database and export is known.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use sled::Transactional as _;
use sled::transaction::{ConflictableTransactionError, TransactionError};
use tracing::{error, info, warn};

use super::export::{EXPORT_FILE, read_export, seal, unseal};
use super::{Change, State, StateError, Table, Tables};
use crate::metrics::StateMetrics;

/// sled's page cache: the state is copied in memory anyway.
const CACHE_BYTES: u64 = 4 << 20;
pub(super) const DATABASE_DIR: &str = "state.sled";
/// Tree of what is said of the state as a whole.
pub(super) const META: &str = "meta";
pub(super) const GENERATION: &str = "generation";

/// Makes `changes` durable as state `generation`, all or none.
pub(super) fn apply<'a>(
    database: &sled::Db,
    changes: impl Iterator<Item = &'a Change>,
    generation: u64,
) -> Result<(), StateError> {
    let failed = |error: sled::Error| StateError::Database(error.to_string());
    let mut batches = [sled::Batch::default(), sled::Batch::default()];
    for change in changes {
        let batch = &mut batches[change.table as usize];
        match &change.value {
            Some(value) => batch.insert(change.key.as_bytes(), seal(value)),
            None => batch.remove(change.key.as_bytes()),
        }
    }
    let meta = database.open_tree(META).map_err(failed)?;
    let [first, second] = Table::ALL.map(|table| database.open_tree(table.name()));
    let (first, second) = (first.map_err(failed)?, second.map_err(failed)?);
    let stamp = seal(&generation.to_string());
    let written = (&meta, &first, &second).transaction(|(meta, first, second)| {
        meta.insert(GENERATION.as_bytes(), stamp.as_slice())?;
        first.apply_batch(&batches[0])?;
        second.apply_batch(&batches[1])?;
        Ok::<_, ConflictableTransactionError<()>>(())
    });
    match written {
        Ok(()) => database.flush().map(|_| ()).map_err(failed),
        Err(TransactionError::Storage(error)) => Err(failed(error)),
        Err(TransactionError::Abort(())) => Err(StateError::Database("transaction aborted".to_owned())),
    }
}

/// What makes `now` into `wanted`.
pub(super) fn difference(now: &Tables, wanted: &Tables) -> Vec<Change> {
    let mut changes = Vec::new();
    for table in Table::ALL {
        let none = BTreeMap::new();
        let (now, wanted) = (now.get(&table).unwrap_or(&none), wanted.get(&table).unwrap_or(&none));
        for (key, value) in wanted.iter().filter(|(key, value)| now.get(*key) != Some(value)) {
            changes.push(Change { table, key: key.clone(), value: Some(value.clone()) });
        }
        for key in now.keys().filter(|key| !wanted.contains_key(*key)) {
            changes.push(Change { table, key: key.clone(), value: None });
        }
    }
    changes
}

enum Opened {
    Good(sled::Db, State),
    /// What is wrong, and what could be read nevertheless; whether it is older than the export may not be known.
    Damaged(String, Tables, Option<u64>),
}

/// Opens or creates the database in `dir`, repairs it if it is damaged, and takes over a newer export.
pub(super) fn open_or_repair(
    dir: &Path,
    now_ms: i64,
    metrics: &StateMetrics,
) -> Result<(sled::Db, State), StateError> {
    std::fs::create_dir_all(dir).map_err(|source| StateError::Io {
        what: "could not create",
        path: dir.to_owned(),
        source,
    })?;
    let database_dir = dir.join(DATABASE_DIR);
    let is_new = !database_dir.exists();
    let opened = open_database(&database_dir).inspect_err(|error| {
        if is_new && !matches!(error, StateError::Locked { .. }) {
            // Half of a new database would pass for a damaged one in the next attempt.
            let _ = std::fs::remove_dir_all(&database_dir);
        }
    })?;
    let (damage, tables, generation) = match opened {
        Opened::Good(database, found) if !is_new || !dir.join(EXPORT_FILE).exists() => {
            return take_newer_export(dir, database, found);
        }
        // Somebody removed the database and left the export: that is a wish to start from the export.
        Opened::Good(database, found) => {
            drop(database);
            ("the database is missing".to_owned(), found.tables, None)
        }
        Opened::Damaged(what, tables, generation) => (what, tables, generation),
    };
    let readable: usize = tables.values().map(BTreeMap::len).sum();
    let exported = usable_export(dir);
    let from_export: usize = exported.tables.values().map(BTreeMap::len).sum();
    let is_older = generation.is_some_and(|generation| generation < exported.generation);
    let mut rebuilt =
        State { generation: generation.unwrap_or(0).max(exported.generation) + 1, tables: exported.tables };
    if !is_older {
        for (table, entries) in tables {
            // What the database still had is newer than the export.
            rebuilt.tables.entry(table).or_default().extend(entries);
        }
    }
    let aside = dir.join(format!("{DATABASE_DIR}.damaged-{now_ms}"));
    let is_moved = !is_new && database_dir.exists();
    if is_moved {
        std::fs::rename(&database_dir, &aside).map_err(|source| StateError::Io {
            what: "could not move aside",
            path: database_dir.clone(),
            source,
        })?;
    }
    let database = match create_database(&database_dir, &rebuilt) {
        Ok(database) => database,
        Err(error) => {
            // A full disk: the next attempt is to find what this one found.
            let _ = std::fs::remove_dir_all(&database_dir);
            if is_moved && let Err(error) = std::fs::rename(&aside, &database_dir) {
                warn!(%error, moved_to = %aside.display(), "a damaged alertmanager state could not be moved back");
            }
            return Err(error);
        }
    };
    metrics.rebuilds.inc();
    if is_moved {
        error!(%damage, moved_to = %aside.display(), readable, from_export, "alertmanager state was damaged and is rebuilt");
    } else {
        info!(from_export, "alertmanager state is restored from its export");
    }
    Ok((database, rebuilt))
}

fn create_database(path: &Path, state: &State) -> Result<sled::Db, StateError> {
    let Opened::Good(database, found) = open_database(path)? else {
        return Err(StateError::Database("a new database cannot be read".to_owned()));
    };
    apply(&database, difference(&found.tables, &state.tables).iter(), state.generation)?;
    Ok(database)
}

/// After writes that the disk refused, the export may have what the database has not.
fn take_newer_export(dir: &Path, database: sled::Db, found: State) -> Result<(sled::Db, State), StateError> {
    let exported = usable_export(dir);
    if exported.generation <= found.generation {
        return Ok((database, found));
    }
    warn!(
        database = found.generation,
        export = exported.generation,
        "the export of the alertmanager state is newer than the database and is taken over"
    );
    let newer = State { generation: exported.generation + 1, tables: exported.tables };
    apply(&database, difference(&found.tables, &newer.tables).iter(), newer.generation)?;
    Ok((database, newer))
}

/// The export; nothing if there is none or it is damaged.
pub(super) fn usable_export(dir: &Path) -> State {
    match read_export(dir) {
        Ok(exported) => exported.unwrap_or_default(),
        Err(error) => {
            error!(%error, "the export of the alertmanager state is of no use");
            State::default()
        }
    }
}

/// Opens sled and reads everything. sled reports damage as an error or as a panic; both are caught here.
fn open_database(path: &Path) -> Result<Opened, StateError> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let damaged = |what: String| Ok(Opened::Damaged(what, Tables::default(), None));
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
    let opened = match opened {
        Ok(Err(sled::Error::Corruption { .. })) if drop_unfinished_snapshots(path) => {
            std::panic::catch_unwind(AssertUnwindSafe(|| config.open()))
        }
        opened => opened,
    };
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(sled::Error::Io(source))) => {
            // sled gives its lock's failure as an I/O error of kind "other" with this text.
            if source.to_string().contains("could not acquire lock") {
                return Err(StateError::Locked { path: path.to_owned() });
            }
            if is_damage(&source) {
                return damaged(source.to_string());
            }
            return Err(StateError::Io { what: "could not open", path: path.to_owned(), source });
        }
        Ok(Err(error)) => return damaged(error.to_string()),
        Err(_) => return damaged("sled panicked while opening".to_owned()),
    };
    let mut tables = Tables::default();
    let mut generation = None;
    let mut damage = None;
    // A disk that is full or fails now is no damage.
    let mut trouble = None;
    let mut judge = |error: sled::Error, damage: &mut Option<String>| match error {
        sled::Error::Io(source) if !is_damage(&source) => trouble = Some(source),
        error => *damage = Some(error.to_string()),
    };
    let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
        match database.open_tree(META).and_then(|meta| meta.get(GENERATION.as_bytes())) {
            Ok(None) => generation = Some(0),
            Ok(Some(value)) => {
                generation = unseal(&value).and_then(|text| text.parse().ok());
                if generation.is_none() {
                    damage = Some("the generation fails its checksum".to_owned());
                }
            }
            Err(error) => judge(error, &mut damage),
        }
        for table in Table::ALL {
            let entries: &mut BTreeMap<String, String> = tables.entry(table).or_default();
            let tree = match database.open_tree(table.name()) {
                Ok(tree) => tree,
                Err(error) => {
                    judge(error, &mut damage);
                    continue;
                }
            };
            for item in &tree {
                let (key, value) = match item {
                    Ok(item) => item,
                    Err(error) => {
                        judge(error, &mut damage);
                        break;
                    }
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
    if let Some(source) = trouble {
        return Err(StateError::Io { what: "could not read", path: path.to_owned(), source });
    }
    match damage {
        None => Ok(Opened::Good(database, State { generation: generation.unwrap_or(0), tables })),
        Some(what) => {
            drop(database);
            Ok(Opened::Damaged(what, tables, generation))
        }
    }
}

/// Whether an I/O error says that the files are not what sled wrote.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData)
}

/// sled writes a snapshot under a temporary name, and takes what a full disk or a kill left of it for a damaged
/// snapshot. It has no part in the data: says whether there was one. Only to be called when sled had the lock.
fn drop_unfinished_snapshots(path: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(path) else { return false };
    let mut found = false;
    for file in files.flatten() {
        let name = file.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            warn!(file = %file.path().display(), "an unfinished snapshot of the alertmanager state is removed");
            found |= std::fs::remove_file(file.path()).is_ok();
        }
    }
    found
}
