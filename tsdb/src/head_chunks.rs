//! Head chunk files: sealed chunks of the head, so that memory need not hold them and a restart need not replay them.
//!
//! The format is `docs/formats/head-chunks.md`: a header, then frames. Nothing in a file tells what its frames are: the
//! checkpoint does ([`crate::checkpoint`]), and what it does not name is in the log as well. Files are written by upkeep
//! alone, one at a time, and never appended to by another process; they are synced before a checkpoint that names them
//! appears, and removed after one that does not.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hashbrown::{HashMap, HashSet};
use model::sample::Timestamp;
use model::storage::StorageError;
use parking_lot::Mutex;

use crate::cache::{BlockCache, FileId};
use crate::coding::{DecodeError, Reader};
use crate::frame::read_frame;
use crate::fs::{FileSystem, ReadAt, WriteFile};
use crate::wal::io_error;

/// The directory in the data directory.
pub(crate) const DIR: &str = "head_chunks";
const MAGIC: [u8; 4] = *b"NILH";
const VERSION: u16 = 1;
/// Length of a file header.
pub(crate) const HEADER_LEN: usize = 16;
/// Times that reading may fail before it counts as damage for compaction, which tries again after seconds and then minutes.
const READ_FAILURES_MAX: u32 = 5;
/// Size at which a file is closed.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// A file that is read by place.
#[derive(Debug)]
pub(crate) struct HeadFile {
    pub(crate) number: u32,
    path: PathBuf,
    /// Opened again when a read goes beyond what it was when it was opened: the newest file grows.
    reader: Mutex<Arc<dyn ReadAt>>,
    fs: Arc<dyn FileSystem>,
    id: FileId,
    cache: Arc<BlockCache>,
    /// Damage was found in it and told.
    reported: AtomicBool,
    /// Times that compaction could not read something of it.
    failures: AtomicU32,
}

impl HeadFile {
    /// The unpacked frame of `len` bytes at `offset`.
    ///
    /// # Errors
    /// When it is damaged or the system fails.
    pub(crate) fn frame(&self, offset: u64, len: u32) -> Result<Arc<Vec<u8>>, StorageError> {
        self.cache.get_or_load(self.id, offset, || {
            let reader = self.reader(offset + u64::from(len))?;
            read_frame(&*reader, &self.path, offset, Some(len as usize))
        })
    }

    fn reader(&self, end: u64) -> Result<Arc<dyn ReadAt>, StorageError> {
        let mut reader = self.reader.lock();
        if reader.len() < end {
            let again = self.fs.open_at(&self.path).map_err(io_error("open head chunks", &self.path))?;
            *reader = Arc::from(again);
        }
        Ok(Arc::clone(&reader))
    }

    /// Decoded times of what is at `offset`.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn times(
        &self,
        offset: u64,
        load: impl FnOnce() -> Result<Vec<Timestamp>, StorageError>,
    ) -> Result<Arc<Vec<Timestamp>>, StorageError> {
        self.cache.times_or_load(self.id, offset, 0, load)
    }

    /// What to say of a frame whose content makes no sense.
    pub(crate) fn damaged(&self, offset: u64, what: DecodeError) -> StorageError {
        StorageError::Corrupted { file: self.path.clone(), offset, what: what.to_string() }
    }

    /// Says that the file should have bytes up to `end`.
    pub(crate) fn cut_off(&self, end: u64) {
        tracing::error!(
            file = %self.path.display(), bytes = self.len(), expected = end,
            "head chunks are cut off: samples behind the end are lost"
        );
        self.keep_aside();
    }

    /// Takes note that compaction could not read something of it; whether that is to count as damage. A bad sector and a file
    /// that is gone stay so; a lack of memory or of file handles does not.
    pub(crate) fn gives_up(&self, error: &std::io::Error) -> bool {
        use std::io::ErrorKind;
        let passing = matches!(
            error.kind(),
            ErrorKind::OutOfMemory
                | ErrorKind::Interrupted
                | ErrorKind::WouldBlock
                | ErrorKind::PermissionDenied
        );
        // ENFILE and EMFILE have no kind of their own.
        let passing = passing || matches!(error.raw_os_error(), Some(23 | 24));
        !passing && self.failures.fetch_add(1, Ordering::AcqRel) >= READ_FAILURES_MAX
    }

    /// Bytes of the file as of its last opening.
    pub(crate) fn len(&self) -> u64 {
        self.reader.lock().len()
    }

    /// Gives the file a second name by which its bytes stay when it is removed. True the first time.
    pub(crate) fn keep_aside(&self) -> bool {
        if self.reported.swap(true, Ordering::AcqRel) {
            return false;
        }
        let aside = crate::wal::replay::free_corrupt_path(&*self.fs, &self.path);
        if let Err(error) = self.fs.hard_link(&self.path, &aside) {
            tracing::warn!(path = %self.path.display(), %error, "damaged head chunks could not be kept aside");
        }
        true
    }
}

impl Drop for HeadFile {
    fn drop(&mut self) {
        self.cache.forget(self.id);
    }
}

/// A place in the files, which are written one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FilePosition(u64);

impl FilePosition {
    /// Before all files.
    pub(crate) const START: Self = Self(0);

    pub(crate) fn new(file: u32, offset: u64) -> Self {
        // Files have less than 2^32 bytes.
        Self(u64::from(file) << 32 | offset.min(u64::from(u32::MAX)))
    }
}

/// All files, and the one being written.
#[derive(Debug)]
pub(crate) struct HeadFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    cache: Arc<BlockCache>,
    /// See [`HeadFiles::end`].
    end: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    writer: Option<Writer>,
    /// Bytes of each file.
    sizes: HashMap<u32, u64>,
    /// The last number given out.
    newest: u32,
    /// Files whose bytes or names may not be on disk yet.
    unsynced: Vec<Unsynced>,
    unsynced_names: bool,
}

#[derive(Debug)]
struct Writer {
    file: Box<dyn WriteFile>,
    head: Arc<HeadFile>,
    len: u64,
    unsynced: bool,
}

struct Unsynced(Box<dyn WriteFile>);

impl std::fmt::Debug for Unsynced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Unsynced").finish_non_exhaustive()
    }
}

/// The name of a file.
fn name(number: u32) -> String {
    format!("{number:06}")
}

/// The number in a name.
pub(crate) fn file_number(name: &str) -> Option<u32> {
    (name.len() >= 6 && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok())?
}

fn header(number: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0u16.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// What a header says: the number of the file, or what is wrong with it, and whether that is its version.
pub(crate) fn check_header(bytes: &[u8]) -> Result<u32, (bool, String)> {
    let damaged = |what: &str| (false, what.to_owned());
    let body = bytes.get(..HEADER_LEN - 4).ok_or_else(|| damaged("cut off within its header"))?;
    let mut reader = Reader::new(bytes);
    let mut read = || {
        let magic = reader.bytes(4)?;
        let version = reader.u16_le()?;
        let _flags = reader.u16_le()?;
        Ok::<_, DecodeError>((magic, version, reader.u32_le()?, reader.u32_le()?))
    };
    let (magic, version, number, crc) = read().map_err(|_| damaged("cut off within its header"))?;
    if magic != MAGIC || crc32c::crc32c(body) != crc {
        return Err(damaged("its header is damaged"));
    }
    if version != VERSION {
        let what = format!("format version {version} is not known (this program reads version {VERSION})");
        return Err((true, what));
    }
    Ok(number)
}

impl HeadFiles {
    /// The files in `dir`. Opens none of them: [`HeadFiles::open`] does.
    pub(crate) fn new(fs: Arc<dyn FileSystem>, data_dir: &Path, cache: Arc<BlockCache>) -> Self {
        Self { fs, dir: data_dir.join(DIR), cache, end: AtomicU64::new(0), state: Mutex::default() }
    }

    /// Gives numbers out behind all that are there.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(crate) fn start(&self) -> Result<(), StorageError> {
        let names = match self.fs.list(&self.dir) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error("list head chunks", &self.dir)(error)),
        };
        let mut state = self.state.lock();
        for number in names.iter().filter_map(|name| file_number(name)) {
            state.newest = state.newest.max(number);
            let size = self.fs.len(&self.dir.join(name(number))).unwrap_or(0);
            state.sizes.insert(number, size);
        }
        self.end.store(FilePosition::new(state.newest.saturating_add(1), 0).0, Ordering::Release);
        Ok(())
    }

    /// A file that a checkpoint names, and whether its header is sound. `None`: it is not there. Damage is logged; frames have
    /// checksums of their own, and what is there can be read.
    ///
    /// # Errors
    /// When its version is unknown or the system fails.
    pub(crate) fn open(&self, number: u32) -> Result<Option<(Arc<HeadFile>, bool)>, StorageError> {
        let path = self.dir.join(name(number));
        let reader = match self.fs.open_at(&path) {
            Ok(reader) => reader,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::error!(file = %path.display(), "head chunks are gone: their samples are lost");
                return Ok(None);
            }
            Err(error) => return Err(io_error("open head chunks", &path)(error)),
        };
        let mut bytes = vec![0; HEADER_LEN.min(usize::try_from(reader.len()).unwrap_or(HEADER_LEN))];
        reader.read_exact_at(&mut bytes, 0).map_err(io_error("read head chunks", &path))?;
        let sound = match check_header(&bytes) {
            Ok(found) => found == number,
            Err((true, what)) => return Err(StorageError::Corrupted { file: path, offset: 4, what }),
            Err((false, _)) => false,
        };
        let file = self.file(number, path, Arc::from(reader));
        if !sound {
            tracing::error!(file = %file.path.display(), "head chunks have a damaged header");
            file.keep_aside();
        }
        Ok(Some((file, sound)))
    }

    fn file(&self, number: u32, path: PathBuf, reader: Arc<dyn ReadAt>) -> Arc<HeadFile> {
        Arc::new(HeadFile {
            number,
            path,
            reader: Mutex::new(reader),
            fs: Arc::clone(&self.fs),
            id: self.cache.file_id(),
            cache: Arc::clone(&self.cache),
            reported: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        })
    }

    /// Appends frames. Answers where they are.
    ///
    /// # Errors
    /// When they cannot be written: none of them counts, and the next call tries a new file.
    pub(crate) fn append(&self, frames: &[u8]) -> Result<(Arc<HeadFile>, u64), StorageError> {
        let mut state = self.state.lock();
        if state.writer.as_ref().is_none_or(|writer| writer.len >= FILE_BYTES_MAX) {
            self.next_file(&mut state)?;
        }
        let writer = state.writer.as_mut().expect("just opened");
        let path = self.dir.join(name(writer.head.number));
        if let Err(error) = writer.file.append(frames) {
            // What is behind its end counts for nobody; a new file is simpler than to mend it.
            if let Some(writer) = state.writer.take().filter(|writer| writer.unsynced) {
                state.unsynced.push(Unsynced(writer.file));
            }
            return Err(io_error("write head chunks", &path)(error));
        }
        let offset = writer.len;
        writer.len += frames.len() as u64;
        writer.unsynced = true;
        let (head, len) = (Arc::clone(&writer.head), writer.len);
        state.sizes.insert(head.number, len);
        self.end.store(FilePosition::new(head.number, len).0, Ordering::Release);
        Ok((head, offset))
    }

    /// What is appended from now on is not before this place.
    pub(crate) fn end(&self) -> FilePosition {
        FilePosition(self.end.load(Ordering::Acquire))
    }

    fn next_file(&self, state: &mut State) -> Result<(), StorageError> {
        let number = state
            .newest
            .checked_add(1)
            .ok_or(StorageError::Limit { what: "head chunk files", limit: u64::from(u32::MAX) })?;
        let path = self.dir.join(name(number));
        let make = || {
            // Not at start: a disk that is full then may have space now.
            self.fs.create_dir_all(&self.dir)?;
            let mut file = self.fs.create(&path)?;
            file.append(&header(number))?;
            let reader = self.fs.open_at(&path)?;
            Ok((file, reader))
        };
        let (file, reader) = match make() {
            Ok(made) => made,
            Err(error) => {
                let _ = self.fs.remove(&path);
                return Err(io_error("make head chunks", &path)(error));
            }
        };
        state.newest = number;
        state.unsynced_names = true;
        let head = self.file(number, path, Arc::from(reader));
        let writer = Writer { file, head, len: HEADER_LEN as u64, unsynced: true };
        if let Some(old) = state.writer.replace(writer).filter(|old| old.unsynced) {
            state.unsynced.push(Unsynced(old.file));
        }
        Ok(())
    }

    /// Bytes of all files.
    pub(crate) fn storage_bytes(&self) -> u64 {
        self.state.lock().sizes.values().sum()
    }

    /// Makes all that was written survive a loss of power.
    ///
    /// # Errors
    /// When it could not: it is tried again by the next call.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        while let Some(Unsynced(file)) = state.unsynced.last_mut() {
            file.sync().map_err(io_error("sync head chunks", &self.dir))?;
            state.unsynced.pop();
        }
        if let Some(writer) = state.writer.as_mut().filter(|writer| writer.unsynced) {
            writer.file.sync().map_err(io_error("sync head chunks", &self.dir))?;
            writer.unsynced = false;
        }
        if state.unsynced_names {
            self.fs.sync_dir(&self.dir).map_err(io_error("sync directory", &self.dir))?;
            if let Some(parent) = self.dir.parent() {
                self.fs.sync_dir(parent).map_err(io_error("sync directory", parent))?;
            }
            state.unsynced_names = false;
        }
        Ok(())
    }

    /// Removes all files but those that `named` has and the newest: a checkpoint has appeared that does not name them.
    pub(crate) fn retain(&self, named: &HashSet<u32>) {
        let mut state = self.state.lock();
        let writing = state.writer.as_ref().map(|writer| writer.head.number);
        let names = self.fs.list(&self.dir).unwrap_or_default();
        for number in names.iter().filter_map(|name| file_number(name)) {
            if named.contains(&number) || writing == Some(number) {
                continue;
            }
            let path = self.dir.join(name(number));
            match self.fs.remove(&path) {
                Ok(()) => {
                    state.sizes.remove(&number);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "head chunks could not be removed")
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::frame::{Compression, chunk_of, encode_frame};
    use crate::fs::{Fault, FaultKind, FaultyFs};

    fn files(fs: &FaultyFs) -> HeadFiles {
        let files = HeadFiles::new(Arc::new(fs.clone()), Path::new("/data"), BlockCache::new(1 << 20));
        files.start().unwrap();
        files
    }

    fn frame(chunks: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(chunks, Compression::None, &mut out);
        out
    }

    /// The document's example is what we write and read.
    #[test]
    fn the_example_of_the_document_is_true() {
        let document = include_str!("../../docs/formats/head-chunks.md");
        let block = document.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let digits: String = block.lines().filter_map(|line| line.split(';').next()).collect();
        let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let example: Vec<u8> = digits.chunks(2).map(byte).collect();
        let fs = FaultyFs::new();
        let frame = frame(&[b"nil", b"", b"ometer"]);
        let (file, offset) = files(&fs).append(&frame).unwrap();
        assert_eq!(fs.read(Path::new("/data/head_chunks/000001")).unwrap(), example);
        let plain = file.frame(offset, u32::try_from(frame.len()).unwrap()).unwrap();
        assert_eq!(chunk_of(&plain, 2).unwrap(), b"ometer");
        let mut newer = example[..HEADER_LEN].to_vec();
        newer[4] = 9;
        let crc = crc32c::crc32c(&newer[..12]);
        newer[12..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(check_header(&newer), Err((true, what)) if what.contains("version 9")));
    }

    /// What was appended before and behind a failure is read; a failed file is left; files that nobody names go.
    #[test]
    fn failures_cost_nothing() {
        let fs = FaultyFs::new();
        let files = files(&fs);
        let (one, two) = (frame(&[b"one"]), frame(&[b"two"]));
        let len = |frame: &[u8]| u32::try_from(frame.len()).unwrap();
        let (first, at_first) = files.append(&one).unwrap();
        fs.fail_at(Some(Fault { at: fs.operations(), times: 1, kind: FaultKind::NoSpace }));
        assert!(files.append(&two).is_err());
        let (second, at_second) = files.append(&two).unwrap();
        assert_eq!((first.number, second.number), (1, 2));
        files.sync().unwrap();
        assert_eq!(*first.frame(at_first, len(&one)).unwrap(), decode(&one));
        assert_eq!(*second.frame(at_second, len(&two)).unwrap(), decode(&two));
        assert!(matches!(
            second.frame(at_second + 1, len(&two) - 1),
            Err(StorageError::Corrupted { offset, .. }) if offset == at_second + 1
        ));
        files.retain(&HashSet::from_iter([2]));
        assert!(fs.read(Path::new("/data/head_chunks/000001")).is_none());
        drop((first, second));
        let again = super::tests::files(&fs.after_kill());
        let (file, sound) = again.open(2).unwrap().unwrap();
        assert!(sound && again.open(1).unwrap().is_none());
        assert_eq!(*file.frame(at_second, len(&two)).unwrap(), decode(&two));
        assert_eq!(again.append(&one).unwrap().0.number, 3, "old files are not written to");
    }

    fn decode(frame: &[u8]) -> Vec<u8> {
        crate::frame::decode_frame(frame).unwrap()
    }
}
