//! Reads every byte of every file of a data directory and names all damage.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::storage::StorageError;

use super::{Damage, closed_block, frames};
use crate::block::{Block, parse_id};
use crate::cache::BlockCache;
use crate::checkpoint;
use crate::coding::DecodeError;
use crate::fs::FileSystem;
use crate::head_chunks;
use crate::wal::frame::{
    CHECKPOINT_MAGIC, Frame, FrameReader, HEADER_LEN, Header, HeaderError, SEGMENT_MAGIC,
};
use crate::wal::record::{KIND_COMMIT, decode};
use crate::wal::{io_error, segment_name, segment_number};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All that is wrong.
    pub damage: Vec<Damage>,
    /// What looks odd and is in order: a file and a remark.
    pub notes: Vec<(PathBuf, String)>,
}

/// Reads all of `dir`. `watch` is told of each file (or block), with its bytes, when it has been read; what it is told adds
/// up to `total_bytes`, as long as nobody changes the directory.
///
/// A server may be running on the directory. Files that it removes meanwhile are left out, and the unfinished end of a
/// log that is being written is no damage.
///
/// # Errors
/// When the directory cannot be listed. What cannot be read in it is damage.
pub fn verify(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    watch: &mut dyn FnMut(&Path, u64),
) -> Result<Report, StorageError> {
    let mut verifier = Verifier { fs, report: Report::default(), watch };
    let files = fs.list(dir).map_err(io_error("list data directory", dir))?;
    let dirs = fs.list_dirs(dir).map_err(io_error("list data directory", dir))?;
    let mut newest = None;
    for name in &files {
        let path = dir.join(name);
        if let Some(number) = checkpoint::checkpoint_number(name) {
            newest = newest.max(Some(number));
            verifier.checkpoint(&path);
        } else if checkpoint::is_temporary(name) {
            verifier.note(
                path,
                "an unfinished checkpoint: it is being written, or will be removed at the next start",
            );
        } else {
            verifier.aside(path, name);
        }
    }
    verifier.log(&dir.join("wal"), newest)?;
    verifier.head_chunks(&dir.join(head_chunks::DIR))?;
    for name in &dirs {
        let path = dir.join(name);
        if parse_id(name).is_some() {
            verifier.block(&path);
        } else if name.split_once('.').is_some_and(|(id, _)| parse_id(id).is_some()) {
            verifier.note(
                path,
                "an unfinished block: it is being written or removed, or will be removed at the next start",
            );
        }
    }
    Ok(verifier.report)
}

/// Bytes of all files that [`verify`] reads.
///
/// # Errors
/// When the directory cannot be listed.
pub fn total_bytes(fs: &dyn FileSystem, dir: &Path) -> Result<u64, StorageError> {
    let mut bytes = 0;
    let mut dirs = vec![dir.join("wal"), dir.join(head_chunks::DIR)];
    for name in fs.list_dirs(dir).map_err(io_error("list data directory", dir))? {
        if parse_id(&name).is_some() {
            bytes += super::size(fs, &dir.join(name)).unwrap_or(0);
        }
    }
    dirs.push(dir.to_owned());
    for dir in dirs {
        let is_ours = |name: &&String| {
            segment_number(name).is_some()
                || checkpoint::checkpoint_number(name).is_some()
                || head_chunks::file_number(name).is_some()
        };
        let names = fs.list(&dir).unwrap_or_default();
        bytes += names.iter().filter(is_ours).map(|name| fs.len(&dir.join(name)).unwrap_or(0)).sum::<u64>();
    }
    Ok(bytes)
}

/// Whether the content of a record makes sense.
type Check<'a> = dyn FnMut(u8, &[u8]) -> Result<(), DecodeError> + 'a;

struct Verifier<'a> {
    fs: &'a Arc<dyn FileSystem>,
    report: Report,
    watch: &'a mut dyn FnMut(&Path, u64),
}

impl Verifier<'_> {
    fn damage(&mut self, file: &Path, offset: u64, what: impl Into<String>) {
        self.report.damage.push(Damage { file: file.to_owned(), offset, what: what.into() });
    }

    fn note(&mut self, file: PathBuf, what: impl Into<String>) {
        self.report.notes.push((file, what.into()));
    }

    /// A file that an earlier start kept aside.
    fn aside(&mut self, path: PathBuf, name: &str) {
        if name.contains(".corrupt") {
            self.note(path, "kept aside by an earlier start, which found damage in it");
        }
    }

    fn read(&mut self, path: &Path, files: u64, bytes: u64) {
        self.report.files += files;
        self.report.bytes += bytes;
        (self.watch)(path, bytes);
    }

    /// Opens a file of frames; `None` when it is gone or cannot be opened, which is said.
    fn open(&mut self, path: &Path, counts: Option<u64>) -> Option<(FrameReader, u64)> {
        let opened = self.fs.len(path).and_then(|len| Ok((self.fs.open(path)?, len)));
        match opened {
            Ok((input, len)) => {
                Some((FrameReader::new(input, counts.map_or(len, |counts| counts.min(len))), len))
            }
            Err(error) => {
                self.unreadable(path, 0, &error);
                None
            }
        }
    }

    fn unreadable(&mut self, path: &Path, offset: u64, error: &io::Error) {
        // A server at work removes files.
        if error.kind() != io::ErrorKind::NotFound {
            self.damage(path, offset, format!("cannot be read: {error}"));
        }
    }

    fn checkpoint(&mut self, path: &Path) {
        let Some((mut frames, len)) = self.open(path, None) else { return };
        let found = self.report.damage.len();
        match frames.header(CHECKPOINT_MAGIC) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.bad_header(path, error),
            Err(error) => self.unreadable(path, 0, &error),
        }
        self.frames(path, &mut frames, len, &mut |_, _| Ok(()));
        if self.report.damage.len() == found && matches!(checkpoint::is_sound(&**self.fs, path), Ok(false)) {
            self.damage(path, len, "ends early: series are missing");
        }
        self.read(path, 1, len);
    }

    fn bad_header(&mut self, path: &Path, error: HeaderError) {
        match error {
            HeaderError::Short => self.damage(path, 0, "cut off within its header"),
            HeaderError::Damaged => self.damage(path, 0, "its header is damaged"),
            HeaderError::Version(version) => {
                self.damage(path, 4, format!("format version {version} is not known to this program"));
            }
        }
    }

    /// Reads records to the end. Answers the last bad place if nothing could be read behind it, and whether there was
    /// something that could have been.
    fn frames(
        &mut self,
        path: &Path,
        frames: &mut FrameReader,
        len: u64,
        check: &mut Check<'_>,
    ) -> Option<(u64, bool)> {
        let mut at = HEADER_LEN as u64;
        loop {
            match frames.next() {
                Ok(Frame::End) => return None,
                Ok(Frame::Record { kind, payload, offset }) => {
                    at = offset;
                    if let Err(what) = check(kind, &payload) {
                        self.damage(
                            path,
                            offset,
                            format!("a record with a good checksum makes no sense: {what}"),
                        );
                    }
                }
                Ok(Frame::Bad(bad)) => {
                    at = bad.offset;
                    self.damage(path, bad.offset, bad.what);
                    if bad.next.is_none() || bad.next == Some(len) {
                        return Some((bad.offset, bad.more_follows));
                    }
                }
                Err(error) => {
                    self.unreadable(path, at, &error);
                    return Some((at, true));
                }
            }
        }
    }

    /// The segments of the log.
    fn log(&mut self, dir: &Path, checkpoint: Option<u64>) -> Result<(), StorageError> {
        let names = match self.fs.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names.map_err(io_error("list the log", dir))?,
        };
        let mut numbers = Vec::new();
        for name in &names {
            match segment_number(name) {
                Some(number) => numbers.push(number),
                None => self.aside(dir.join(name), name),
            }
        }
        numbers.sort_unstable();
        // What a checkpoint covers is on its way out, whole or not.
        let needed: Vec<u64> = numbers
            .iter()
            .copied()
            .filter(|number| checkpoint.is_none_or(|first| *number >= first))
            .collect();
        if let (Some(first), Some(found)) = (checkpoint, needed.first())
            && *found > first
        {
            self.missing(dir, first, found - 1);
        }
        for pair in needed.windows(2) {
            if let [before, after] = pair
                && *after > before + 1
            {
                self.missing(dir, before + 1, after - 1);
            }
        }
        for (index, number) in numbers.iter().enumerate() {
            self.segment(dir, *number, numbers.get(index + 1).copied());
        }
        Ok(())
    }

    fn missing(&mut self, dir: &Path, first: u64, last: u64) {
        let what = if first == last {
            "the segment is missing".to_owned()
        } else {
            format!("the segments from here to {} are missing", segment_name(last))
        };
        let path = dir.join(segment_name(first));
        // A server may have removed it after the directory was listed; then the newest checkpoint covers it.
        self.damage(&path, 0, what);
    }

    fn segment(&mut self, dir: &Path, number: u64, next: Option<u64>) {
        let path = dir.join(segment_name(number));
        let counts = next.and_then(|next| self.previous_len(&dir.join(segment_name(next))));
        let Some((mut frames, len)) = self.open(&path, counts) else { return };
        let found = self.report.damage.len();
        match frames.header(SEGMENT_MAGIC) {
            Ok(Ok(Header { number: named, .. })) if named != number => {
                self.damage(&path, 8, format!("its header says that it is segment {named}"));
            }
            Ok(Ok(_)) => {}
            Ok(Err(HeaderError::Short | HeaderError::Damaged))
                if next.is_none() && len <= HEADER_LEN as u64 =>
            {
                self.note(path.clone(), "just begun: it has no header yet");
                self.read(&path, 1, len);
                return;
            }
            Ok(Err(HeaderError::Short)) => {
                self.bad_header(&path, HeaderError::Short);
                self.read(&path, 1, len);
                return;
            }
            Ok(Err(error)) => self.bad_header(&path, error),
            Err(error) => self.unreadable(&path, 0, &error),
        }
        let mut check = |kind: u8, payload: &[u8]| {
            if kind != KIND_COMMIT {
                return Err(DecodeError::Unknown("record of the log"));
            }
            decode(payload, |_| Ok::<_, DecodeError>(()))
        };
        let stop = self.frames(&path, &mut frames, counts.unwrap_or(len), &mut check);
        if let Some(counts) = counts.filter(|counts| *counts > len) {
            let what = format!("ends {} bytes early: the next segment says how long it was", counts - len);
            self.damage(&path, len, what);
        }
        // The one bad place is the end of the last segment: what was being written, or is.
        if next.is_none() && matches!(stop, Some((_, false))) && self.report.damage.len() == found + 1 {
            let torn = self.report.damage.pop().expect("one was counted");
            let what = format!(
                "ends in an unfinished record of {} bytes at byte {}, which was not acknowledged",
                len - torn.offset,
                torn.offset
            );
            self.note(path.clone(), what);
        }
        self.read(&path, 1, len);
    }

    /// What the header of a segment says about the one before, if it can be read.
    fn previous_len(&self, path: &Path) -> Option<u64> {
        let len = self.fs.len(path).ok()?;
        let mut frames = FrameReader::new(self.fs.open(path).ok()?, len);
        let header = frames.header(SEGMENT_MAGIC).ok()?.ok()?;
        (header.previous_len > 0).then_some(header.previous_len)
    }

    /// The files of sealed chunks.
    fn head_chunks(&mut self, dir: &Path) -> Result<(), StorageError> {
        let names = match self.fs.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names.map_err(io_error("list head chunks", dir))?,
        };
        for name in &names {
            let path = dir.join(name);
            match head_chunks::file_number(name) {
                Some(number) => self.head_file(&path, number),
                None => self.aside(path, name),
            }
        }
        Ok(())
    }

    fn head_file(&mut self, path: &Path, number: u32) {
        let header_len = head_chunks::HEADER_LEN;
        let opened = self.fs.open_at(path).and_then(|file| {
            let mut header = vec![0; header_len.min(usize::try_from(file.len()).unwrap_or(header_len))];
            file.read_exact_at(&mut header, 0)?;
            Ok((file, header))
        });
        let (file, header) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.unreadable(path, 0, &error),
        };
        match head_chunks::check_header(&header) {
            Ok(found) if found == number => {}
            Ok(found) => self.damage(path, 8, format!("its header says that it is file {found}")),
            Err((_, what)) => self.damage(path, 0, what),
        }
        let walk = frames::walk(&*file, path, header_len as u64);
        for (offset, what) in walk.damage {
            self.damage(path, offset, what);
        }
        if let Some(offset) = walk.unfinished {
            let what = format!(
                "ends in an unfinished frame of {} bytes at byte {offset}: what is in it is in the log",
                file.len() - offset
            );
            self.note(path.to_owned(), what);
        }
        self.read(path, 1, file.len());
    }

    fn block(&mut self, dir: &Path) {
        let bytes = super::size(&**self.fs, dir).unwrap_or(0);
        // What is read once need not be kept.
        let cache = BlockCache::new(1 << 20);
        match Block::open(self.fs, dir, &cache) {
            Ok(block) => self.report.damage.extend(block.verify().into_iter().map(Damage::from)),
            // A server at work removes blocks.
            Err(_) if self.fs.list(dir).is_err() => return,
            Err(why) => self.report.damage.extend(closed_block::verify(&**self.fs, dir, &cache, why)),
        }
        let files = count_files(&**self.fs, dir);
        self.read(dir, files, bytes);
    }
}

fn count_files(fs: &dyn FileSystem, dir: &Path) -> u64 {
    let inner = fs.list_dirs(dir).unwrap_or_default();
    let dirs = inner.iter().map(|name| dir.join(name)).chain([dir.to_owned()]);
    dirs.map(|dir| fs.list(&dir).unwrap_or_default().len() as u64).sum()
}
