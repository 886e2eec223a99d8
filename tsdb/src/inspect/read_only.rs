//! A store opened without touching its directory.
//!
//! The files are read as at every start; what start-up would mend or remove stays as it is, since the file system below
//! only seems to do it. A server may be running on the same directory: when it has replaced a checkpoint or removed blocks
//! meanwhile, reading begins anew.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Clock;
use model::storage::StorageError;

use crate::checkpoint::checkpoint_number;
use crate::fs::{FileSystem, LockFile, ReadAt, WriteFile};
use crate::wal::io_error;
use crate::{Db, DbOptions};

/// How often to begin anew before what was read is taken as it is.
const ATTEMPTS: usize = 10;

/// A store as of its opening.
#[derive(Debug)]
pub struct ReadOnly {
    /// The store. Commits to it fail, and upkeep must not be called.
    pub db: Arc<Db>,
    /// Number of damaged places that start-up found, and of entries that rested on them; what could be read is there.
    pub damage: u64,
}

/// Reads the store in `dir` into memory, as a start does, without the lock and without changing anything.
///
/// # Errors
/// When there is no such directory, a file has an unknown version, or the system fails.
pub fn open(fs: &Arc<dyn FileSystem>, dir: &Path, clock: &Arc<dyn Clock>) -> Result<ReadOnly, StorageError> {
    let mut attempt = 0;
    let seeming: Arc<dyn FileSystem> = Arc::new(ReadOnlyFs { below: Arc::clone(fs) });
    loop {
        attempt += 1;
        let before = layout(&**fs, dir)?;
        let mut options = DbOptions::new(dir, Arc::clone(clock));
        options.lock = false;
        options.retention = Duration::ZERO;
        let opened = Db::open(options, &prometheus::Registry::new(), Arc::clone(&seeming));
        let is_last = attempt == ATTEMPTS;
        match opened {
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && !is_last => {}
            Err(error) => return Err(error),
            Ok(db) if is_last || layout(&**fs, dir)? == before => {
                let blocks = u64::try_from(db.metrics.blocks_unreadable.get()).unwrap_or(0);
                let damage = blocks + db.metrics.wal_corruptions.get() + db.metrics.wal_replay_lost.get();
                return Ok(ReadOnly { db, damage });
            }
            Ok(_) => {}
        }
    }
}

/// What must not change while it is read: checkpoints and blocks that are there. (Segments of the log only go when a
/// checkpoint comes.)
fn layout(fs: &dyn FileSystem, dir: &Path) -> Result<HashSet<String>, StorageError> {
    let files = fs.list(dir).map_err(io_error("list data directory", dir))?;
    let dirs = fs.list_dirs(dir).map_err(io_error("list data directory", dir))?;
    let checkpoints = files.into_iter().filter(|name| checkpoint_number(name).is_some());
    Ok(checkpoints.chain(dirs.into_iter().filter(|name| crate::block::parse_id(name).is_some())).collect())
}

/// Reads from `below`. What would change files seems to work and does nothing, but for making files, which fails.
#[derive(Debug)]
struct ReadOnlyFs {
    below: Arc<dyn FileSystem>,
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened for reading only")
}

/// A directory that seems to have been made is empty.
fn empty_if_absent(names: io::Result<Vec<String>>) -> io::Result<Vec<String>> {
    match names {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

impl FileSystem for ReadOnlyFs {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        empty_if_absent(self.below.list(dir))
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        empty_if_absent(self.below.list_dirs(dir))
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        Err(refused())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        self.below.open(path)
    }

    fn open_at(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        self.below.open_at(path)
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.below.len(path)
    }

    fn truncate(&self, _: &Path, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn LockFile>> {
        Err(refused())
    }
}
