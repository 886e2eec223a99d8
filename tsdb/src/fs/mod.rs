//! All file access of the store, behind one trait: [`RealFs`] for use, [`FaultyFs`] for tests.
//!
//! The trait offers just what the store needs: sequential reads and reads by place, appending writes with explicit syncs,
//! atomic renames, hard links, and syncs of directories. What we assume of a file system: written bytes are visible to later readers at
//! once; `sync` makes a file's bytes, `sync_dir` its name, survive a loss of power; `rename` replaces atomically.

mod faulty;
mod real;

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

pub use faulty::{Fault, FaultKind, FaultyFs};
pub use real::RealFs;

/// A place for files. Implementations are shared by threads.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Makes a directory and its parents, durably; an existing one is fine.
    ///
    /// # Errors
    /// The system's.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Names of the files in `dir`, sorted. Subdirectories are left out.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a file for writing; an old one of this name is emptied.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for reading from its beginning.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// Names of the directories in `dir`, sorted.
    ///
    /// # Errors
    /// The system's.
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a finished file for reading anywhere in it. The file may be removed meanwhile: its bytes stay readable.
    ///
    /// # Errors
    /// The system's.
    fn open_at(&self, path: &Path) -> io::Result<Box<dyn ReadAt>>;

    /// Gives a finished file a second name.
    ///
    /// # Errors
    /// The system's.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a directory with all files in it, and in directories in it. Not at once: who is interrupted leaves a part.
    ///
    /// # Errors
    /// The system's.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Length of a file in bytes.
    ///
    /// # Errors
    /// The system's.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Shortens a closed file to `len` bytes and syncs it.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;

    /// Renames a file, replacing what has the new name, or a directory to a name that is free.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in `dir` durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file `path` for this process, or says who holds it.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::WouldBlock`] when another process holds it, with its id in the message.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockFile>>;
}

/// A file that is read by place. Shared by threads.
pub trait ReadAt: Send + Sync + fmt::Debug {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::UnexpectedEof`] when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Length in bytes, as of the opening.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file being written. Dropped without [`WriteFile::sync`], its bytes are in the kernel's hands.
pub trait WriteFile: Send + fmt::Debug {
    /// Appends all of `bytes`. On an error some of them may have been written.
    ///
    /// # Errors
    /// The system's.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was appended survive a loss of power.
    ///
    /// # Errors
    /// The system's. What was appended since the last good sync may then be lost.
    fn sync(&mut self) -> io::Result<()>;

    /// What [`WriteFile::sync`] does, as something to do later and elsewhere, while appends go on.
    ///
    /// # Errors
    /// The system's.
    fn syncer(&self) -> io::Result<Syncer>;

    /// Cuts the file to `len` bytes; the next append goes there.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// A pending sync of a file.
pub type Syncer = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A lock that is held until dropped.
pub trait LockFile: Send + Sync + fmt::Debug {
    /// Whether whoever held the lock before released it in good order ([`LockFile::mark_clean`]).
    fn was_clean(&self) -> bool;

    /// Notes that the store was closed in good order.
    ///
    /// # Errors
    /// The system's.
    fn mark_clean(&self) -> io::Result<()>;
}
