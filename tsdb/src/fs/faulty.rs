//! A file system in memory that fails on request, tears writes, and forgets what was not synced.
//!
//! Every call that changes something counts as one operation. [`FaultyFs::fail_at`] names the operation that fails and
//! how; [`FaultyFs::lose_power`] leaves what a disk would have: synced bytes of files whose names were synced, and of each
//! unsynced tail a part that the caller's number picks. Locks are not simulated.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{FileSystem, LockFile, ReadAt, Syncer, WriteFile};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// `EIO`.
    Io,
    /// `ENOSPC`, after half of a write's bytes went through.
    NoSpace,
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
    /// What programs see.
    names: BTreeMap<PathBuf, usize>,
    /// What survives a loss of power, by name.
    durable_names: BTreeMap<PathBuf, usize>,
    files: Vec<FileState>,
    /// Renames of directories whose parent was not synced since.
    renamed_dirs: Vec<(PathBuf, PathBuf)>,
    operations: u64,
    fault: Option<Fault>,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

impl FaultyFs {
    /// An empty, faultless one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arms one fault; `None` disarms.
    pub fn fail_at(&self, fault: Option<Fault>) {
        self.state.lock().fault = fault;
    }

    /// How many changing operations there have been.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// An independent copy as it is now: what a new process sees after the old one was killed.
    pub fn after_kill(&self) -> Self {
        let state = self.state.lock();
        let copy = State {
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            files: state.files.clone(),
            renamed_dirs: Vec::new(),
            operations: 0,
            fault: None,
        };
        Self { state: Arc::new(Mutex::new(copy)), syncs: Arc::default() }
    }

    /// Makes every sync wait until the guard is dropped.
    pub fn hold_syncs(&self) -> impl Drop + '_ {
        self.syncs.lock()
    }

    /// As [`FaultyFs::lose_power`], but the disk had got to some files and names and not to others, as `seed` says.
    pub fn lose_power_unevenly(&self, seed: u64) -> Self {
        let copy = self.after_kill();
        {
            let mut state = copy.state.lock();
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut pick = |of: u64| {
                random = random.wrapping_mul(0xd129_0243_1ff3_3f4d).wrapping_add(0x9e37_79b9_7f4a_7c15);
                (random >> 33) % of
            };
            let durable = state.durable_names.clone();
            state.names.retain(|path, _| durable.contains_key(path) || pick(2) == 0);
            for (path, id) in durable {
                // Removed, or replaced by another file, and that not synced.
                if pick(2) == 0 {
                    state.names.insert(path, id);
                } else {
                    state.names.entry(path).or_insert(id);
                }
            }
            for file in &mut state.files {
                if file.bytes.starts_with(&file.synced) {
                    let tail = (file.bytes.len() - file.synced.len()) as u64;
                    let kept = file.synced.len() as u64 + tail * pick(3) / 2;
                    file.bytes.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
                } else if pick(2) == 0 {
                    file.bytes.clone_from(&file.synced);
                }
                file.synced.clone_from(&file.bytes);
            }
            state.durable_names = state.names.clone();
        }
        copy
    }

    /// An independent copy as a disk would show it after a loss of power. Of every unsynced tail,
    /// `keep_of_256 / 256` of its bytes are kept.
    pub fn lose_power(&self, keep_of_256: u8) -> Self {
        let copy = self.after_kill();
        {
            let mut state = copy.state.lock();
            state.names = state.durable_names.clone();
            for file in &mut state.files {
                let appended = file.bytes.len() > file.synced.len() && file.bytes.starts_with(&file.synced);
                if appended {
                    let tail = file.bytes.len() - file.synced.len();
                    file.bytes.truncate(file.synced.len() + tail * usize::from(keep_of_256) / 256);
                } else {
                    file.bytes.clone_from(&file.synced);
                }
                file.synced.clone_from(&file.bytes);
            }
        }
        copy
    }

    /// The bytes of a file, if it exists.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(path).map(|&id| state.files[id].bytes.clone())
    }

    /// Replaces the bytes of a file, synced: for flipping bits.
    pub fn write(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let id = state.file(path);
        state.durable_names.insert(path.to_owned(), id);
        state.files[id] = FileState { synced: bytes.clone(), bytes };
    }

    /// All files, by path.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }
}

impl State {
    fn file(&mut self, path: &Path) -> usize {
        if let Some(&id) = self.names.get(path) {
            return id;
        }
        self.files.push(FileState::default());
        let id = self.files.len() - 1;
        self.names.insert(path.to_owned(), id);
        id
    }

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

    fn id(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl FaultKind {
    fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::other("input/output error (simulated)"),
            Self::NoSpace => io::Error::from(io::ErrorKind::StorageFull),
        }
    }
}

impl FileSystem for FaultyFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.check();
        // Nothing is to be done where it exists.
        if state.names.keys().any(|path| path.starts_with(dir)) { Ok(()) } else { fault }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let in_dir = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(in_dir.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let below = state.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let mut names: Vec<String> = below
            .filter(|rest| rest.components().count() > 1)
            .filter_map(|rest| Some(rest.components().next()?.as_os_str().to_str()?.to_owned()))
            .collect();
        names.dedup();
        Ok(names)
    }

    fn open_at(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        let state = self.state.lock();
        let id = state.id(path)?;
        let len = state.files[id].bytes.len() as u64;
        Ok(Box::new(FaultyReadAt { state: Arc::clone(&self.state), id, len }))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let id = state.id(from)?;
        if state.names.contains_key(to) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        state.names.retain(|path, _| !path.starts_with(dir));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.state.lock();
        state.check()?;
        let id = state.file(path);
        state.files[id].bytes.clear();
        Ok(Box::new(FaultyFile { state: Arc::clone(&self.state), syncs: Arc::clone(&self.syncs), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let state = self.state.lock();
        let id = state.id(path)?;
        Ok(Box::new(io::Cursor::new(state.files[id].bytes.clone())))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        let id = state.id(path)?;
        Ok(state.files[id].bytes.len() as u64)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let id = state.id(path)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let file = &mut state.files[id];
        file.bytes.truncate(len);
        file.synced = file.bytes.clone();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        if let Ok(id) = state.id(from) {
            state.names.remove(from);
            state.names.insert(to.to_owned(), id);
            return Ok(());
        }
        let moved: Vec<PathBuf> = state.names.keys().filter(|path| path.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        for path in moved {
            let rest = path.strip_prefix(from).map_err(io::Error::other)?;
            let renamed = to.join(rest);
            if let Some(id) = state.names.remove(&path) {
                state.names.insert(renamed, id);
            }
        }
        state.renamed_dirs.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        state.id(path)?;
        state.names.remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        drop(self.syncs.lock());
        let mut state = self.state.lock();
        let fault = state.check();
        // A failing sync may have done a part: new names are there, and removed ones still are.
        if fault.is_ok() {
            state.durable_names.retain(|path, _| path.parent() != Some(dir));
        }
        // A directory's new name takes along what is durable in it.
        let renamed = std::mem::take(&mut state.renamed_dirs);
        for (from, to) in renamed {
            if to.parent() != Some(dir) {
                state.renamed_dirs.push((from, to));
                continue;
            }
            let inside: Vec<PathBuf> =
                state.durable_names.keys().filter(|path| path.starts_with(&from)).cloned().collect();
            for path in inside {
                if let (Some(id), Ok(rest)) = (state.durable_names.remove(&path), path.strip_prefix(&from)) {
                    state.durable_names.insert(to.join(rest), id);
                }
            }
        }
        let now: Vec<_> = state
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir))
            .map(|(path, id)| (path.clone(), *id))
            .collect();
        state.durable_names.extend(now);
        fault
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn LockFile>> {
        // It is held without space too.
        match self.state.lock().operation() {
            Some(FaultKind::Io) => Err(FaultKind::Io.error()),
            Some(FaultKind::NoSpace) | None => Ok(Box::new(NoLock)),
        }
    }
}

#[derive(Debug)]
struct FaultyReadAt {
    state: Arc<Mutex<State>>,
    id: usize,
    len: u64,
}

impl ReadAt for FaultyReadAt {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state.lock();
        let bytes = &state.files[self.id].bytes;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(buffer.len()).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(&bytes[start..end]);
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
    id: usize,
}

impl WriteFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.operation();
        // A failing write is a torn one: half of it went through.
        let written = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        state.files[self.id].bytes.extend_from_slice(written);
        fault.map_or(Ok(()), |kind| Err(kind.error()))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncer()?()
    }

    fn syncer(&self) -> io::Result<Syncer> {
        let (state, syncs, id) = (Arc::clone(&self.state), Arc::clone(&self.syncs), self.id);
        Ok(Box::new(move || {
            drop(syncs.lock());
            let mut state = state.lock();
            state.check()?;
            let file = &mut state.files[id];
            file.synced = file.bytes.clone();
            Ok(())
        }))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        state.files[self.id].bytes.truncate(len);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_loss_keeps_only_what_was_synced() {
        let fs = FaultyFs::new();
        let (dir, path) = (Path::new("/d"), Path::new("/d/a"));
        let mut file = fs.create(path).unwrap();
        file.append(b"kept").unwrap();
        file.sync().unwrap();
        assert!(fs.lose_power(0).read(path).is_none(), "the name was not synced");
        fs.sync_dir(dir).unwrap();
        file.append(b"lost").unwrap();
        assert_eq!(fs.lose_power(0).read(path).unwrap(), b"kept");
        assert_eq!(fs.lose_power(128).read(path).unwrap(), b"keptlo");
        assert_eq!(fs.after_kill().read(path).unwrap(), b"keptlost");
    }

    #[test]
    fn a_failing_write_is_torn() {
        let fs = FaultyFs::new();
        let mut file = fs.create(Path::new("/a")).unwrap();
        fs.fail_at(Some(Fault { at: fs.operations(), times: 1, kind: FaultKind::NoSpace }));
        assert_eq!(file.append(b"1234").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs.read(Path::new("/a")).unwrap(), b"12");
        file.append(b"5").unwrap();
    }
}
