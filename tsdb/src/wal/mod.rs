//! The write-ahead log: numbered segments of commit records, the only place where an acknowledged commit must be.
//!
//! The format is `docs/formats/wal.md`. A commit is in the kernel when [`Wal::append`] returns, so it survives the death of
//! the process; it survives a loss of power after the next sync. A write that fails is taken back by cutting the segment;
//! where even that fails the segment is left behind and the next one says how much of it counts. Either way no record
//! ever follows torn bytes.

pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod replay;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Clock;
use model::storage::StorageError;

use crate::fs::{FileSystem, Syncer, WriteFile};
use crate::metrics::Metrics;
use frame::{HEADER_LEN, Header, PAYLOAD_MAX, SEGMENT_MAGIC, put_record};
use replay::{Repair, ReplayEnd};

/// The name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:08}")
}

/// The number of a segment by its file's name.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    (name.len() >= 8 && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok())?
}

/// Makes a [`StorageError`] of what the system said.
pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { what, path, source }
}

/// Most segments that a process may have left unsynced: two in a sync that is going on, one that waits, and the newest.
const UNSYNCED_MAX: u64 = 4;

/// How to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) compress: bool,
    /// Whether a commit waits for the disk.
    pub(crate) sync_commits: bool,
}

/// A sync that is due.
struct Late(Syncer);

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Late").finish_non_exhaustive()
    }
}

/// The writer. One at a time, under the commit lock.
#[derive(Debug)]
pub(crate) struct Wal {
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    dir: PathBuf,
    options: WalOptions,
    /// The newest segment; `None` before the first write.
    file: Option<Box<dyn WriteFile>>,
    /// Number of the newest segment, open or not.
    number: u64,
    /// Bytes of the newest segment that count.
    offset: u64,
    /// Older segments and their bytes; what start-up found is one entry.
    older: Vec<(u64, u64)>,
    /// The newest segment has bytes that are not synced.
    unsynced: bool,
    /// The newest segment's name is not synced.
    unsynced_name: bool,
    /// The sync that the segment before is still due; at most one.
    late: Option<Late>,
    /// Nothing may follow in the newest segment: it ends in refused bytes, or the next one may be there already, and its
    /// header says where this one ends.
    sealed: bool,
    /// The segment ends in refused bytes that could not be cut off yet.
    uncut: bool,
    /// Nothing may be written any more.
    pub(crate) closed: bool,
    /// A sync failed: bytes that were written may be lost when power is.
    pub(crate) sync_failed: bool,
    /// Bytes written since the last checkpoint.
    pub(crate) bytes_since_checkpoint: u64,
    /// What start-up found to mend and could not yet: nothing is written before.
    repairs: VecDeque<Repair>,
    scratch: Vec<u8>,
}

impl Wal {
    /// Continues where reading ended.
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        dir: PathBuf,
        options: WalOptions,
        end: ReplayEnd,
    ) -> Self {
        // What an earlier process wrote and did not sync comes before what this one will.
        let unsynced = end.last.0.saturating_sub(UNSYNCED_MAX - 1)..=end.last.0;
        let mut wal = Self {
            fs,
            clock,
            metrics,
            dir,
            options,
            file: None,
            number: end.last.0,
            offset: end.last.1,
            older: vec![(end.last.0.saturating_sub(1), end.older_bytes)],
            unsynced: false,
            unsynced_name: false,
            late: None,
            sealed: false,
            uncut: false,
            closed: false,
            sync_failed: false,
            bytes_since_checkpoint: end.bytes,
            repairs: end.repairs.into(),
            scratch: Vec::new(),
        };
        if let Err(error) = wal.mend() {
            tracing::error!(%error, "log cannot be mended yet: queries are answered, commits fail until it can");
        }
        for number in unsynced.filter(|number| *number > 0) {
            let path = wal.dir.join(segment_name(number));
            let Ok(len) = wal.fs.len(&path) else { continue };
            // Which syncs it, and cuts nothing.
            let result = wal.fs.truncate(&path, len).and_then(|()| wal.fs.sync_dir(&wal.dir));
            wal.synced(result);
        }
        wal
    }

    /// Does what start-up has left to do.
    fn mend(&mut self) -> Result<(), StorageError> {
        while let Some(repair) = self.repairs.front() {
            repair.run(&*self.fs, &self.dir)?;
            self.repairs.pop_front();
        }
        Ok(())
    }

    /// Number of the segment that the next record goes to, opened if need be.
    ///
    /// # Errors
    /// When a new segment cannot be made.
    pub(crate) fn prepare(&mut self) -> Result<u64, StorageError> {
        if self.closed {
            return Err(StorageError::NotReady("it is closed"));
        }
        if self.file.is_none() || self.sealed || self.offset >= self.options.segment_bytes {
            self.rotate()?;
        }
        Ok(self.number)
    }

    /// Closes the segment and opens the next.
    ///
    /// # Errors
    /// When it cannot be made; the old one stays.
    pub(crate) fn rotate(&mut self) -> Result<u64, StorageError> {
        self.mend()?;
        let number = self.number + 1;
        let path = self.dir.join(segment_name(number));
        let header = Header { magic: SEGMENT_MAGIC, number, previous_len: self.offset };
        let create = || {
            let mut file = self.fs.create(&path)?;
            file.append(&header.encode())?;
            // Else the next sync does both, and the old segment, without the commit lock.
            if self.options.sync_commits {
                file.sync()?;
                self.fs.sync_dir(&self.dir)?;
            }
            Ok(file)
        };
        let file = match create() {
            Ok(file) => file,
            Err(error) => {
                // What was made of it would cut off whatever comes to the old segment from now on.
                let gone = match self.fs.remove(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    Ok(()) | Err(_) => self.fs.sync_dir(&self.dir),
                };
                self.sealed |= gone.is_err();
                return Err(io_error("make log segment", &path)(error));
            }
        };
        if let Some(Late(late)) = self.late.take() {
            // Rotated twice between two syncs: it cannot wait any longer.
            let result = timed(&*self.clock, &self.metrics, late);
            self.synced(result);
        }
        if self.unsynced
            && let Some(old) = &self.file
        {
            match old.syncer() {
                Ok(late) => self.late = Some(Late(late)),
                Err(error) => self.synced(Err(error)),
            }
        }
        self.unsynced = !self.options.sync_commits;
        self.unsynced_name = self.unsynced;
        self.file = Some(file);
        // The header of the new segment says where the old one ends.
        self.uncut = false;
        self.sealed = false;
        self.older.push((self.number, self.offset));
        self.number = number;
        self.offset = HEADER_LEN as u64;
        self.report();
        Ok(number)
    }

    /// Writes one record, whole or not at all. [`Wal::prepare`] comes first.
    ///
    /// # Errors
    /// When it cannot be written, or synced where commits are.
    pub(crate) fn append(&mut self, kind: u8, payload: &[u8]) -> Result<(), StorageError> {
        if payload.len() > PAYLOAD_MAX {
            return Err(StorageError::Limit { what: "bytes of one commit", limit: PAYLOAD_MAX as u64 });
        }
        let path = self.dir.join(segment_name(self.number));
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        put_record(&mut bytes, kind, payload, self.options.compress);
        let Some(file) = self.file.as_mut() else {
            return Err(StorageError::NotReady("no log segment is open"));
        };
        let mut written = file.append(&bytes);
        if written.is_ok() && self.options.sync_commits {
            written = timed_sync(file.as_mut(), &*self.clock, &self.metrics);
        }
        let len = bytes.len() as u64;
        // Do not keep the memory of one huge commit.
        if bytes.capacity() <= 4 << 20 {
            self.scratch = bytes;
        }
        if let Err(error) = written {
            self.metrics.wal_writes_failed.inc();
            if file.truncate(self.offset).is_err() {
                self.sealed = true;
                self.uncut = true;
            }
            return Err(io_error("write to the log", &path)(error));
        }
        self.offset += len;
        self.bytes_since_checkpoint += len;
        self.unsynced = !self.options.sync_commits;
        self.report();
        Ok(())
    }

    /// Syncs what was written. A failure is logged and counted, and asks for a checkpoint.
    pub(crate) fn sync(&mut self) {
        if let Some(syncer) = self.begin_sync() {
            let result = timed(&*self.clock, &self.metrics, syncer);
            self.synced(result);
        }
    }

    /// Tries again to cut off refused bytes: until then, or the next commit, a restart might take them for acknowledged.
    pub(crate) fn cut_refused(&mut self) {
        // Told at start and by every commit.
        let _ = self.mend();
        if self.uncut && self.fs.truncate(&self.dir.join(segment_name(self.number)), self.offset).is_ok() {
            self.uncut = false;
        }
    }

    /// A sync to be done without the commit lock; [`Wal::synced`] is told how it went.
    pub(crate) fn begin_sync(&mut self) -> Option<Syncer> {
        let late = self.late.take();
        if !self.unsynced && !self.unsynced_name && late.is_none() {
            return None;
        }
        self.unsynced = false;
        let name = std::mem::take(&mut self.unsynced_name).then(|| (Arc::clone(&self.fs), self.dir.clone()));
        let newest = self.file.as_ref().map(|file| file.syncer());
        Some(Box::new(move || {
            // The old segment first; all of them even if one fails.
            let late = late.map_or(Ok(()), |Late(late)| late());
            let newest = newest.map_or(Ok(()), |newest| newest.and_then(|newest| newest()));
            let name = name.map_or(Ok(()), |(fs, dir)| fs.sync_dir(&dir));
            late.and(newest).and(name)
        }))
    }

    /// Takes note of a sync's result.
    pub(crate) fn synced(&mut self, result: std::io::Result<()>) {
        let Err(error) = result else { return };
        tracing::error!(segment = self.number, %error, "log could not be synced: a loss of power would lose samples");
        self.metrics.wal_syncs_failed.inc();
        // Another sync would not bring back what the system dropped: the next checkpoint writes it anew from memory.
        self.sync_failed = true;
    }

    /// Takes note that segments before `number` are gone: a checkpoint covers them.
    pub(crate) fn removed_before(&mut self, number: u64) {
        self.older.retain(|(older, _)| *older >= number);
        self.report();
    }

    fn report(&self) {
        let older: u64 = self.older.iter().map(|(_, bytes)| bytes).sum();
        self.metrics.wal_segment_current.set(self.number.cast_signed());
        self.metrics.wal_storage_bytes.set((older + self.offset).cast_signed());
    }
}

fn timed_sync(file: &mut dyn WriteFile, clock: &dyn Clock, metrics: &Metrics) -> std::io::Result<()> {
    timed(clock, metrics, || file.sync())
}

/// Does a sync and takes its time.
pub(crate) fn timed(
    clock: &dyn Clock,
    metrics: &Metrics,
    sync: impl FnOnce() -> std::io::Result<()>,
) -> std::io::Result<()> {
    let start = clock.now_ms();
    let synced = sync();
    // The clock may jump; a negative duration is none.
    let millis = clock.now_ms().saturating_sub(start).max(0);
    metrics.wal_fsync_duration.observe(millis as f64 / 1000.0);
    synced
}
