//! The chunk files of a block: a header, then frames. Written one after another, read by place.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::storage::StorageError;

use super::directory::FrameRef;
use crate::cache::{BlockCache, FileId};
use crate::frame::{Compression, FrameBuilder, read_exact, read_frame};
use crate::fs::{FileSystem, ReadAt, WriteFile};

const MAGIC: [u8; 4] = *b"NILB";
const FILE_VERSION: u16 = 1;
/// Magic, version, two bytes for later, number of the file, checksum.
pub(crate) const HEAD_LEN: usize = 16;
/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 1 << 20;

fn head(number: u32) -> [u8; HEAD_LEN] {
    let mut out = [0; HEAD_LEN];
    let fields = [&MAGIC[..], &FILE_VERSION.to_le_bytes(), &[0; 2], &number.to_le_bytes()].concat();
    let crc = crc32c::crc32c(&fields).to_le_bytes();
    out.iter_mut().zip(fields.into_iter().chain(crc)).for_each(|(to, from)| *to = from);
    out
}

/// The name of a file.
pub(crate) fn name(number: u32) -> String {
    format!("{number:06}")
}

/// The number that a name is.
pub(crate) fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number| *number > 0 && self::name(*number) == name)
}

/// Writes frames.
#[derive(Debug)]
pub(super) struct ChunkFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    file: Option<Box<dyn WriteFile>>,
    number: u32,
    /// Length of the current file, what waits in the buffer included.
    len: u64,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    bytes_max: u64,
    /// Of all files before the current one.
    bytes_before: u64,
}

impl ChunkFiles {
    pub(super) fn new(fs: Arc<dyn FileSystem>, dir: PathBuf, bytes_max: u64) -> Self {
        Self {
            fs,
            dir,
            file: None,
            number: 0,
            len: 0,
            buffer: Vec::new(),
            scratch: Vec::new(),
            bytes_max,
            bytes_before: 0,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(name(self.number))
    }

    fn io(&self, source: std::io::Error) -> StorageError {
        StorageError::Io { what: "writing", path: self.path(), source }
    }

    /// Writes the frame, which is empty then, and tells where.
    pub(super) fn put(
        &mut self,
        frame: &mut FrameBuilder,
        compression: Compression,
    ) -> Result<FrameRef, StorageError> {
        self.scratch.clear();
        frame.finish(compression, &mut self.scratch);
        let len = u32::try_from(self.scratch.len()).expect("invariant: a frame's length is bounded");
        if self.file.is_none() || self.len + u64::from(len) > self.bytes_max {
            self.next_file()?;
        }
        let at = FrameRef { file: self.number, offset: self.len, len };
        self.buffer.append(&mut self.scratch);
        self.len += u64::from(len);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok(at)
    }

    fn next_file(&mut self) -> Result<(), StorageError> {
        self.close_file()?;
        self.number += 1;
        self.file = Some(self.fs.create(&self.path()).map_err(|error| self.io(error))?);
        self.buffer.extend_from_slice(&head(self.number));
        self.len = HEAD_LEN as u64;
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), StorageError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.append(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| self.io(error))
    }

    fn close_file(&mut self) -> Result<(), StorageError> {
        self.write_out()?;
        if let Some(mut file) = self.file.take() {
            file.sync().map_err(|error| self.io(error))?;
            self.bytes_before += self.len;
        }
        Ok(())
    }

    /// Syncs everything, the names too. Answers the bytes of all files.
    pub(super) fn finish(mut self) -> Result<u64, StorageError> {
        self.close_file()?;
        self.fs.sync_dir(&self.dir).map_err(|source| StorageError::Io {
            what: "syncing the directory",
            path: self.dir.clone(),
            source,
        })?;
        Ok(self.bytes_before)
    }
}

/// A chunk file, opened.
#[derive(Debug)]
pub(super) struct ChunkFile {
    pub(super) path: PathBuf,
    id: FileId,
    /// Or why it cannot be read.
    file: Result<Box<dyn ReadAt>, String>,
}

impl ChunkFile {
    /// Opens all files in `dir`, in order of their numbers. What is wrong with one shows when it is read.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file is of an unknown version.
    pub(super) fn open_all(
        fs: &dyn FileSystem,
        dir: &Path,
        cache: &BlockCache,
    ) -> Result<Vec<Self>, StorageError> {
        let names = fs.list(dir).map_err(|source| StorageError::Io {
            what: "listing",
            path: dir.to_owned(),
            source,
        })?;
        let last = names.iter().filter_map(|name| number(name)).max().unwrap_or(0);
        // A name may be anything; files of a block are numbered without a gap, but for one that got lost.
        let last = last.min(u32::try_from(names.len()).unwrap_or(u32::MAX).saturating_mul(2));
        (1..=last).map(|number| Self::open(fs, dir, number, cache)).collect()
    }

    fn open(fs: &dyn FileSystem, dir: &Path, number: u32, cache: &BlockCache) -> Result<Self, StorageError> {
        let path = dir.join(name(number));
        let file = match fs.open_at(&path) {
            Ok(file) => check_head(&*file, &path, number)?.map(|()| file),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err("missing".to_owned()),
            Err(source) => return Err(StorageError::Io { what: "opening", path, source }),
        };
        Ok(Self { path, id: cache.file_id(), file })
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Its length in bytes; 0 when it cannot be read.
    pub(super) fn len(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.len())
    }

    /// An error about the bytes at `offset`.
    pub(super) fn corrupted(&self, offset: u64, what: impl std::fmt::Display) -> StorageError {
        StorageError::Corrupted { file: self.path.clone(), offset, what: what.to_string() }
    }

    /// The file, if its head is sound.
    pub(super) fn file(&self) -> Result<&dyn ReadAt, StorageError> {
        match &self.file {
            Ok(file) => Ok(&**file),
            Err(what) => Err(self.corrupted(0, what)),
        }
    }

    /// Reads and unpacks a frame, not through the cache.
    pub(super) fn read(&self, at: FrameRef) -> Result<Vec<u8>, StorageError> {
        read_frame(self.file()?, &self.path, at.offset, usize::try_from(at.len).ok())
    }
}

/// Whether the head is sound; an unknown version is an error of its own, for nothing in the file can be used.
pub(crate) fn check_head(
    file: &dyn ReadAt,
    path: &Path,
    number: u32,
) -> Result<Result<(), String>, StorageError> {
    let mut found = [0; HEAD_LEN];
    match read_exact(file, path, &mut found, 0) {
        Ok(()) => {}
        Err(StorageError::Corrupted { what, .. }) => return Ok(Err(what)),
        Err(error) => return Err(error),
    }
    if found == head(number) {
        return Ok(Ok(()));
    }
    let [m0, m1, m2, m3, v0, v1, .., c0, c1, c2, c3] = found;
    let version = u16::from_le_bytes([v0, v1]);
    let sound = found
        .first_chunk::<12>()
        .is_some_and(|fields| crc32c::crc32c(fields) == u32::from_le_bytes([c0, c1, c2, c3]));
    if sound && [m0, m1, m2, m3] == MAGIC && version != FILE_VERSION {
        return Err(StorageError::Corrupted {
            file: path.to_owned(),
            offset: 4,
            what: format!("format version {version} is unknown to this program"),
        });
    }
    Ok(Err(if sound { "the head is of another file".to_owned() } else { "the head is damaged".to_owned() }))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;
    use crate::fs::FaultyFs;

    fn written(bytes_max: u64) -> (FaultyFs, Vec<FrameRef>) {
        let fs = FaultyFs::new();
        fs.create_dir_all(Path::new("/c")).unwrap();
        let mut files = ChunkFiles::new(Arc::new(fs.clone()), PathBuf::from("/c"), bytes_max);
        let mut frame = FrameBuilder::new();
        let mut refs = Vec::new();
        for n in 0..20u8 {
            frame.push(&[n; 10]);
            refs.push(files.put(&mut frame, Compression::None).unwrap());
        }
        files.finish().unwrap();
        (fs, refs)
    }

    #[test]
    fn files_are_cut_and_read() {
        let (fs, refs) = written(200);
        let files = ChunkFile::open_all(&fs, Path::new("/c"), &BlockCache::new(0)).unwrap();
        assert!(files.len() > 2);
        for (n, at) in refs.iter().enumerate() {
            let file = files.get(at.file as usize - 1).unwrap();
            assert!(file.len() <= 200);
            assert_eq!(crate::frame::chunk_of(&file.read(*at).unwrap(), 0).unwrap(), [n as u8; 10]);
        }
    }

    #[test]
    fn a_file_of_another_version_is_named_and_a_damaged_one_fails_when_read() {
        let (fs, refs) = written(200);
        let path = Path::new("/c/000002");
        let sound = fs.read(path).unwrap();
        let mut bytes = sound.clone();
        bytes[9] ^= 1;
        fs.write(path, bytes.clone());
        let open = || ChunkFile::open_all(&fs, Path::new("/c"), &BlockCache::new(0));
        let files = open().unwrap();
        let read = |files: &[ChunkFile], file: u32| {
            let at = refs.iter().find(|at| at.file == file).unwrap();
            files[file as usize - 1].read(*at).map(drop)
        };
        assert!(read(&files, 1).is_ok());
        assert!(read(&files, 2).unwrap_err().to_string().contains("/c/000002: damaged at byte 0"));
        bytes = sound;
        bytes[4] = 3;
        let crc = crc32c::crc32c(&bytes[..12]).to_le_bytes();
        bytes[12..16].copy_from_slice(&crc);
        fs.write(path, bytes);
        let error = open().unwrap_err().to_string();
        assert!(error.contains("/c/000002") && error.contains("version 3"), "{error}");
        fs.remove(path).unwrap();
        assert!(read(&open().unwrap(), 2).unwrap_err().to_string().contains("missing"));
    }
}
