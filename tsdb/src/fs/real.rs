//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{FileSystem, LockFile, ReadAt, Syncer, WriteFile};

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl FileSystem for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open_at(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Box::new(RealReadAt { file, len }))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(RealFile { file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path)?))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut owner = Vec::new();
        // A lock file holds one number; more is none of ours.
        (&file).take(64).read_to_end(&mut owner)?;
        let was_clean = owner.is_empty();
        let owner = String::from_utf8_lossy(&owner);
        let owner = owner.trim();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let known = !owner.is_empty() && owner.bytes().all(|b| b.is_ascii_digit());
                let owner = if known { owner } else { "unknown" };
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    format!("held by another process (pid {owner})"),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let lock = RealLock { file, was_clean };
        if let Err(error) = lock.name_owner() {
            // It is held all the same. A hole of one byte needs no space and tells that there was no clean stop.
            let _ = lock.file.set_len(0).and_then(|()| lock.file.set_len(1));
            tracing::warn!(path = %path.display(), %error, "process id could not be written into the lock file");
        }
        Ok(Box::new(lock))
    }
}

#[derive(Debug)]
struct RealReadAt {
    file: File,
    len: u64,
}

impl ReadAt for RealReadAt {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    fn len(&self) -> u64 {
        self.len
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl WriteFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn syncer(&self) -> io::Result<Syncer> {
        let file = self.file.try_clone()?;
        Ok(Box::new(move || file.sync_data()))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.seek(SeekFrom::Start(len))?;
        Ok(())
    }
}

/// The file stays when the lock is released (removing it would race with the next holder); it is empty after a clean
/// stop and names the process otherwise.
#[derive(Debug)]
struct RealLock {
    file: File,
    was_clean: bool,
}

impl RealLock {
    fn name_owner(&self) -> io::Result<()> {
        let text = format!("{}\n", std::process::id());
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        // Over what is there: its space may be all that is left.
        file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)?;
        self.file.sync_all()
    }
}

impl LockFile for RealLock {
    fn was_clean(&self) -> bool {
        self.was_clean
    }

    fn mark_clean(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = RealFs.lock(&path).unwrap();
        assert!(lock.was_clean());
        let refused = RealFs.lock(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(lock);
        let lock = RealFs.lock(&path).unwrap();
        assert!(!lock.was_clean(), "it was not marked");
        lock.mark_clean().unwrap();
        drop(lock);
        assert!(RealFs.lock(&path).unwrap().was_clean());
    }

    /// `/dev/full` takes locks and no bytes.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_does_not_keep_from_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let lock = RealFs.lock(&path).unwrap();
        let refused = RealFs.lock(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock, "it is held");
        assert!(refused.to_string().contains("unknown"), "{refused}");
        drop(lock);
    }
}
