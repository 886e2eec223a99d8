//! Head chunk files: sealed chunks of the head, so that memory need not hold them and a restart need not replay them.
//!
//! The format is `docs/formats/head-chunks.md`: a header, then frames. Nothing in a file tells what its frames are: the
//! checkpoint does ([`crate::checkpoint`]), and what it does not name is in the log as well. Files are written by upkeep
//! alone, one at a time, and never appended to by another process; they are synced before a checkpoint that names them
//! appears, and removed after one that does not.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
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

/// All files, and the one being written.
#[derive(Debug)]
pub(crate) struct HeadFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    cache: Arc<BlockCache>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u32, Arc<HeadFile>>,
    writer: Option<Writer>,
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
fn number(name: &str) -> Option<u32> {
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

/// What a header says.
fn check_header(bytes: &[u8]) -> Result<u32, (bool, String)> {
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
        Self { fs, dir: data_dir.join(DIR), cache, state: Mutex::default() }
    }

    /// Gives numbers out behind all that are there.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub(crate) fn start(&self) -> Result<(), StorageError> {
        self.fs.create_dir_all(&self.dir).map_err(io_error("make directory of head chunks", &self.dir))?;
        let names = self.fs.list(&self.dir).map_err(io_error("list head chunks", &self.dir))?;
        let newest = names.iter().filter_map(|name| number(name)).max().unwrap_or(0);
        self.state.lock().newest = newest;
        Ok(())
    }

    /// A file that a checkpoint names, of which `len` bytes count. `None`: it is damaged or not there, which is logged; what
    /// is in the part that is there can be read all the same.
    ///
    /// # Errors
    /// When its version is unknown or the system fails.
    pub(crate) fn open(&self, number: u32, len: u64) -> Result<(Option<Arc<HeadFile>>, bool), StorageError> {
        let path = self.dir.join(name(number));
        let reader = match self.fs.open_at(&path) {
            Ok(reader) => reader,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::error!(file = %path.display(), "head chunks are gone: their samples are lost");
                return Ok((None, false));
            }
            Err(error) => return Err(io_error("open head chunks", &path)(error)),
        };
        let mut bytes = vec![0; HEADER_LEN.min(usize::try_from(reader.len()).unwrap_or(HEADER_LEN))];
        reader.read_exact_at(&mut bytes, 0).map_err(io_error("read head chunks", &path))?;
        let mut sound = true;
        match check_header(&bytes) {
            Ok(found) if found == number => {}
            Err((true, what)) => return Err(StorageError::Corrupted { file: path, offset: 4, what }),
            Ok(_) | Err(_) => {
                // Frames have checksums of their own.
                tracing::error!(file = %path.display(), "head chunks have a damaged header");
                sound = false;
            }
        }
        if reader.len() < len {
            tracing::error!(
                file = %path.display(), bytes = reader.len(), expected = len,
                "head chunks are cut off: samples behind the end are lost"
            );
            sound = false;
        }
        let file = self.file(number, path, Arc::from(reader));
        if !sound {
            file.keep_aside();
        }
        self.state.lock().files.insert(number, Arc::clone(&file));
        Ok((Some(file), sound))
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
        Ok((Arc::clone(&writer.head), offset))
    }

    fn next_file(&self, state: &mut State) -> Result<(), StorageError> {
        let number = state
            .newest
            .checked_add(1)
            .ok_or(StorageError::Limit { what: "head chunk files", limit: u64::from(u32::MAX) })?;
        let path = self.dir.join(name(number));
        let make = || {
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
        state.files.insert(number, Arc::clone(&head));
        let writer = Writer { file, head, len: HEADER_LEN as u64, unsynced: true };
        if let Some(old) = state.writer.replace(writer).filter(|old| old.unsynced) {
            state.unsynced.push(Unsynced(old.file));
        }
        Ok(())
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
            state.unsynced_names = false;
        }
        Ok(())
    }

    /// Removes all files but those that `named` has and the newest: a checkpoint has appeared that does not name them.
    pub(crate) fn retain(&self, named: &hashbrown::HashSet<u32>) {
        let mut state = self.state.lock();
        let writing = state.writer.as_ref().map(|writer| writer.head.number);
        let names = self.fs.list(&self.dir).unwrap_or_default();
        for number in names.iter().filter_map(|name| number(name)) {
            if named.contains(&number) || writing == Some(number) {
                continue;
            }
            let path = self.dir.join(name(number));
            match self.fs.remove(&path) {
                Ok(()) => {
                    state.files.remove(&number);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "head chunks could not be removed")
                }
            }
        }
    }

    /// Bytes of the file being written that count, or `None` for any other.
    pub(crate) fn written(&self, number: u32) -> Option<u64> {
        let state = self.state.lock();
        state.writer.as_ref().filter(|writer| writer.head.number == number).map(|writer| writer.len)
    }
}

impl HeadFile {
    /// Bytes of the file as of its last opening.
    pub(crate) fn len(&self) -> u64 {
        self.reader.lock().len()
    }
}
