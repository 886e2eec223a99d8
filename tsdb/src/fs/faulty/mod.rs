//! A file system in memory that fails on request, tears writes, and forgets what was not synced.
//!
//! Every call that changes something counts as one operation ([`FileSystem::remove_dir_all`] as one for each file and
//! directory), every call that reads as one read, counted apart. [`FaultyFs::fail_at`] and [`FaultyFs::fail_reads_at`] name
//! the operation that fails and how. [`FaultyFs::lose_power`] leaves what a disk would have: synced bytes under names whose
//! directory was synced, and of each unsynced tail a part that the caller's number picks. As in a real file system, only
//! what is in a directory that exists can be made or listed. Locks are not simulated.

mod disk;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::disk::{Disk, Id};
use super::{FileSystem, LockFile, ReadAt, Syncer, WriteFile};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// `EIO`, after half of a write's bytes went through.
    Io,
    /// `ENOSPC`, after half of a write's bytes went through. Reads do not know it: they fail with `EIO`.
    NoSpace,
    /// `EIO`, after so many 256ths of a write's bytes went through.
    Torn(u8),
}

/// When something goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The operation, counted from 0.
    pub at: u64,
    /// How many operations from there on fail.
    pub times: u64,
    /// How.
    pub kind: FaultKind,
}

/// The simulated file system. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct FaultyFs {
    state: Arc<Mutex<State>>,
    /// Held by whoever wants syncs to wait.
    syncs: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    disk: Disk,
    changes: Count,
    reads: Count,
    /// Most bytes of all files.
    capacity: Option<usize>,
    /// Most bytes that one call of `read` gives.
    read_max: Option<usize>,
}

/// Operations of one kind, and the fault they may run into.
#[derive(Debug, Default)]
struct Count {
    operations: u64,
    fault: Option<Fault>,
}

impl Count {
    /// Counts an operation; the fault to show, if it is due.
    fn operation(&mut self) -> Option<FaultKind> {
        let number = self.operations;
        self.operations += 1;
        let fault = self.fault?;
        (number >= fault.at && number - fault.at < fault.times).then_some(fault.kind)
    }

    fn check(&mut self) -> io::Result<()> {
        self.operation().map_or(Ok(()), |kind| Err(kind.error()))
    }
}

impl FaultKind {
    fn error(self) -> io::Error {
        match self {
            Self::Io | Self::Torn(_) => io::Error::other("input/output error (simulated)"),
            Self::NoSpace => io::Error::from(io::ErrorKind::StorageFull),
        }
    }

    /// How much of a failing write goes through.
    fn written(self, len: usize) -> usize {
        match self {
            Self::Io | Self::NoSpace => len / 2,
            Self::Torn(of_256) => len * usize::from(of_256) / 256,
        }
    }
}

impl FaultyFs {
    /// An empty, faultless one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arms one fault of an operation that changes something; `None` disarms.
    pub fn fail_at(&self, fault: Option<Fault>) {
        self.state.lock().changes.fault = fault;
    }

    /// Arms one fault of a read; `None` disarms.
    pub fn fail_reads_at(&self, fault: Option<Fault>) {
        self.state.lock().reads.fault = fault;
    }

    /// How many changing operations there have been.
    pub fn operations(&self) -> u64 {
        self.state.lock().changes.operations
    }

    /// How many reads there have been.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads.operations
    }

    /// Gives the disk an end: what is appended beyond so many bytes of all files is cut off, with `ENOSPC`.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state.lock().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> usize {
        self.state.lock().disk.used()
    }

    /// Lets every sequential read give at most so many bytes, as systems may.
    pub fn set_read_max(&self, bytes: Option<usize>) {
        self.state.lock().read_max = bytes;
    }

    /// An independent copy as it is now: what a new process sees after the old one was killed.
    pub fn after_kill(&self) -> Self {
        let disk = self.state.lock().disk.clone();
        let copy = State { disk, ..State::default() };
        Self { state: Arc::new(Mutex::new(copy)), syncs: Arc::default() }
    }

    /// Makes every sync wait until the guard is dropped.
    pub fn hold_syncs(&self) -> impl Drop + '_ {
        self.syncs.lock()
    }

    /// As [`FaultyFs::lose_power`], but the disk had got to some files and names and not to others, as `seed` says; of a tail
    /// the length may be there without the bytes.
    pub fn lose_power_unevenly(&self, seed: u64) -> Self {
        let copy = self.after_kill();
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pick = |of: usize| {
            random = random.wrapping_mul(0xd129_0243_1ff3_3f4d).wrapping_add(0x9e37_79b9_7f4a_7c15);
            usize::try_from((random >> 33) % of.max(1) as u64).unwrap_or(0)
        };
        copy.state.lock().disk.lose_power_unevenly(pick);
        copy
    }

    /// An independent copy as a disk would show it after a loss of power. Of every unsynced tail,
    /// `keep_of_256 / 256` of its bytes are kept.
    pub fn lose_power(&self, keep_of_256: u8) -> Self {
        let copy = self.after_kill();
        copy.state.lock().disk.lose_power(keep_of_256);
        copy
    }

    /// The bytes of a file, if it exists.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let id = state.disk.file_id(path).ok()?;
        Some(state.disk.file(id).bytes.clone())
    }

    /// Replaces the bytes of a file, synced: for flipping bits. Makes the file, and its directory, where there is none.
    ///
    /// # Panics
    /// When the path leads through a file, or to a directory.
    pub fn write(&self, path: &Path, bytes: Vec<u8>) {
        self.state.lock().disk.put(path, bytes).expect("a path of directories to a file");
    }

    /// All files, by path.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().disk.paths()
    }
}

impl FileSystem for FaultyFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.changes.check();
        // Nothing is to be done where it exists.
        if state.disk.list(dir, true).is_err() {
            fault?;
        }
        state.disk.make_dirs(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.reads.check()?;
        state.disk.list(dir, true)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.reads.check()?;
        state.disk.list(dir, false)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.state.lock();
        state.changes.check()?;
        let id = state.disk.create(path)?;
        Ok(Box::new(FaultyFile { state: Arc::clone(&self.state), syncs: Arc::clone(&self.syncs), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let mut state = self.state.lock();
        state.reads.check()?;
        let id = state.disk.file_id(path)?;
        Ok(Box::new(FaultyRead { state: Arc::clone(&self.state), id, at: 0 }))
    }

    fn open_at(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        let mut state = self.state.lock();
        state.reads.check()?;
        let id = state.disk.file_id(path)?;
        let len = state.disk.file(id).bytes.len() as u64;
        Ok(Box::new(FaultyReadAt { state: Arc::clone(&self.state), id, len }))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.changes.check()?;
        state.disk.link(from, to)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        // Without the lock in between: others see a half-removed directory.
        loop {
            let mut state = self.state.lock();
            let mut at = dir.to_owned();
            while let Some(inner) = state.disk.list(&at, false)?.pop() {
                at.push(inner);
            }
            let file = state.disk.list(&at, true)?.into_iter().next();
            state.changes.check()?;
            match file {
                Some(file) => state.disk.remove_file(&at.join(file))?,
                None => state.disk.remove_dir(&at)?,
            }
            if at == dir && state.disk.node(dir).is_err() {
                return Ok(());
            }
        }
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.reads.check()?;
        let id = state.disk.file_id(path)?;
        Ok(state.disk.file(id).bytes.len() as u64)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.changes.check()?;
        let id = state.disk.file_id(path)?;
        let file = state.disk.file_mut(id);
        file.truncate(usize::try_from(len).map_err(io::Error::other)?);
        file.sync();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.changes.check()?;
        state.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.changes.check()?;
        state.disk.remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        drop(self.syncs.lock());
        let mut state = self.state.lock();
        let fault = state.changes.check();
        state.disk.sync_dir(dir, fault.is_err())?;
        fault
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockFile>> {
        let mut state = self.state.lock();
        // It is held without space too.
        match state.changes.operation() {
            None | Some(FaultKind::NoSpace) => {}
            Some(kind) => return Err(kind.error()),
        }
        // Its directory must be there.
        state.disk.list(path.parent().unwrap_or(Path::new("/")), true)?;
        Ok(Box::new(NoLock))
    }
}

#[derive(Debug)]
struct FaultyRead {
    state: Arc<Mutex<State>>,
    id: Id,
    at: usize,
}

impl Read for FaultyRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.reads.check()?;
        let rest = state.disk.file(self.id).bytes.get(self.at..).unwrap_or_default();
        let len = rest.len().min(buffer.len()).min(state.read_max.unwrap_or(usize::MAX));
        buffer[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}

#[derive(Debug)]
struct FaultyReadAt {
    state: Arc<Mutex<State>>,
    id: Id,
    len: u64,
}

impl ReadAt for FaultyReadAt {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.reads.check()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = &state.disk.file(self.id).bytes;
        let wanted = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
        buffer.copy_from_slice(wanted.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}

#[derive(Debug)]
struct FaultyFile {
    state: Arc<Mutex<State>>,
    syncs: Arc<Mutex<()>>,
    id: Id,
}

impl WriteFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.changes.operation();
        // A failing write is a torn one.
        let mut written = fault.map_or(bytes.len(), |kind| kind.written(bytes.len()));
        let mut error = fault.map(FaultKind::error);
        if let Some(capacity) = state.capacity {
            let free = capacity.saturating_sub(state.disk.used());
            if free < written {
                written = free;
                error = Some(FaultKind::NoSpace.error());
            }
        }
        state.disk.file_mut(self.id).bytes.extend_from_slice(&bytes[..written]);
        error.map_or(Ok(()), Err)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncer()?()
    }

    fn syncer(&self) -> io::Result<Syncer> {
        let (state, syncs, id) = (Arc::clone(&self.state), Arc::clone(&self.syncs), self.id);
        Ok(Box::new(move || {
            drop(syncs.lock());
            let mut state = state.lock();
            state.changes.check()?;
            state.disk.file_mut(id).sync();
            Ok(())
        }))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.changes.check()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        state.disk.file_mut(self.id).truncate(len);
        Ok(())
    }
}

#[derive(Debug)]
struct NoLock;

impl LockFile for NoLock {
    fn was_clean(&self) -> bool {
        true
    }

    fn mark_clean(&self) -> io::Result<()> {
        Ok(())
    }
}
