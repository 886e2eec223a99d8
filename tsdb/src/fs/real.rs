//! The operating system's files.

use std::fs::{self, File, FileType, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{FileSystem, LockFile, ReadAt, Syncer, WriteFile};

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl FileSystem for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        // Innermost first: those that are missing, and the one that is to name them.
        let missing: Vec<&Path> =
            dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()).collect();
        fs::create_dir_all(dir)?;
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        entries(dir, |kind| kind.is_file())
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        entries(dir, |kind| kind.is_dir())
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

/// Names of what is wanted in a directory, sorted.
fn entries(dir: &Path, wanted: impl Fn(FileType) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if wanted(entry.file_type()?)
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
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

    fn write(path: &Path, bytes: &[u8]) {
        let mut file = RealFs.create(path).unwrap();
        file.append(bytes).unwrap();
        file.sync().unwrap();
    }

    #[test]
    fn files_are_read_by_place_even_when_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"content");
        let file = RealFs.open_at(&path).unwrap();
        RealFs.remove(&path).unwrap();
        write(&path, b"another file");
        let mut text = [0; 4];
        file.read_exact_at(&mut text, 3).unwrap();
        assert_eq!((&text, file.len(), file.is_empty()), (b"tent", 7, false));
        let end = file.read_exact_at(&mut text, 4).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        file.read_exact_at(&mut text, u64::MAX - 2).unwrap_err();
    }

    #[test]
    fn directories_are_made_listed_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b/c");
        RealFs.create_dir_all(&inner).unwrap();
        RealFs.create_dir_all(&inner).unwrap();
        write(&inner.join("file"), b"1");
        RealFs.create_dir_all(&dir.path().join("z")).unwrap();
        write(&dir.path().join("f"), b"2");
        assert_eq!(RealFs.list_dirs(dir.path()).unwrap(), ["a", "z"]);
        assert_eq!(RealFs.list(dir.path()).unwrap(), ["f"]);
        RealFs.sync_dir(&inner).unwrap();
        RealFs.rename(&dir.path().join("a"), &dir.path().join("renamed")).unwrap();
        assert_eq!(RealFs.len(&dir.path().join("renamed/b/c/file")).unwrap(), 1);
        let taken = RealFs.rename(&dir.path().join("z"), &dir.path().join("renamed")).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::DirectoryNotEmpty);
        RealFs.remove_dir_all(&dir.path().join("renamed")).unwrap();
        assert_eq!(RealFs.list_dirs(dir.path()).unwrap(), ["z"]);
        let gone = RealFs.remove_dir_all(&dir.path().join("renamed")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert_eq!(RealFs.list(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_share_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write(&a, b"shared");
        RealFs.hard_link(&a, &b).unwrap();
        assert_eq!(RealFs.hard_link(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        RealFs.truncate(&a, 3).unwrap();
        RealFs.remove(&a).unwrap();
        let mut text = String::new();
        RealFs.open(&b).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "sha");
    }

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
