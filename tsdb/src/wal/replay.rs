//! Reading the log back: what to trust, what to cut, what to keep aside.
//!
//! * The last segment may end in a record that was being written: it is cut off at the last sound record, and counted.
//! * Any other unsound record is damage. Reading stops there; the whole damaged segment is copied to `*.corrupt` before it
//!   is cut, and the segments behind it are renamed to `*.corrupt`: their records may rest on lost ones.
//! * A header of an unknown version is an error, and nothing is touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::storage::StorageError;

use super::frame::{BadFrame, Frame, FrameReader, HEADER_LEN, Header, HeaderError, SEGMENT_MAGIC};
use super::{io_error, segment_name, segment_number};
use crate::coding::DecodeError;
use crate::fs::FileSystem;
use crate::metrics::Metrics;

/// Something to do to the files before anything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Copies a damaged segment.
    Copy {
        from: PathBuf,
        to: PathBuf,
    },
    Cut {
        path: PathBuf,
        len: u64,
    },
    Remove {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
}

impl Repair {
    /// Does it. May be done again after a failure.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn run(&self, fs: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
        let (what, path, done) = match self {
            Self::Copy { from, to } => ("keep damaged log segment aside", to, copy(fs, from, to)),
            Self::Cut { path, len } => ("cut log segment", path, fs.truncate(path, *len)),
            Self::Remove { path } => ("remove log segment", path, fs.remove(path)),
            Self::Rename { from, to } => ("keep log segment aside", from, fs.rename(from, to)),
        };
        done.map_err(io_error(what, path))?;
        fs.sync_dir(dir).map_err(io_error("sync directory", dir))
    }
}

fn copy(fs: &dyn FileSystem, from: &Path, to: &Path) -> std::io::Result<()> {
    let mut input = fs.open(from)?;
    let mut output = fs.create(to)?;
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let read = std::io::Read::read(&mut input, &mut buffer)?;
        if read == 0 {
            return output.sync();
        }
        output.append(&buffer[..read])?;
    }
}

/// Where writing goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplayEnd {
    /// The newest segment (0: none) and how many of its bytes count.
    pub(crate) last: (u64, u64),
    /// Bytes of all segments before it.
    pub(crate) older_bytes: u64,
    /// Bytes of all that was read.
    pub(crate) bytes: u64,
    /// What must be done first, in this order.
    pub(crate) repairs: Vec<Repair>,
}

/// Takes the records; told of each segment.
pub(crate) trait ReplayTarget {
    /// Segment `number` of up to `last` is next.
    fn segment(&mut self, number: u64, last: u64);

    /// One record.
    ///
    /// # Errors
    /// When its content makes no sense.
    fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), DecodeError>;
}

/// One reading of a log directory.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    pub(crate) fs: &'a Arc<dyn FileSystem>,
    pub(crate) dir: &'a Path,
    pub(crate) metrics: &'a Metrics,
}

impl Replay<'_> {
    /// Reads all segments from `first` on (`None`: whatever is there) into `target`. Changes nothing: what is to be mended
    /// is in the answer, since a disk may be readable and full.
    ///
    /// # Errors
    /// When the system fails, a version is unknown, or a sound record has unknown content.
    pub(crate) fn run(
        &self,
        first: Option<u64>,
        target: &mut dyn ReplayTarget,
    ) -> Result<ReplayEnd, StorageError> {
        let mut numbers = self.segments(first)?;
        let mut end = ReplayEnd::default();
        if let Some(&unfinished) = numbers.last()
            && self.is_unfinished(unfinished)?
        {
            // The one before it is the last then, and may have a torn tail.
            numbers.pop();
            let path = self.dir.join(segment_name(unfinished));
            let len = self.fs.len(&path).map_err(io_error("measure log segment", &path))?;
            let what = "cut off within its header";
            let bad = BadFrame { offset: 0, what, more_follows: false, next: None };
            self.mend(&path, bad, len, true, &mut end.repairs);
            end.last = (unfinished.saturating_sub(1), 0);
        }
        let last = numbers.last().copied().unwrap_or(0);
        for (index, &number) in numbers.iter().enumerate() {
            let expected = if index == 0 { first.unwrap_or(number) } else { numbers[index - 1] + 1 };
            if number != expected {
                let what = "a log segment is missing: those behind it cannot be used";
                tracing::error!(missing = expected, found = number, "{what}");
                self.metrics.wal_corruptions.inc();
                self.set_aside(&numbers[index..], &mut end.repairs);
                break;
            }
            target.segment(number, last);
            let next = numbers.get(index + 1).copied();
            let counts = match next {
                Some(next) => self.previous_len(next)?,
                None => None,
            };
            let len = self.read(number, counts, next.is_none(), target, &mut end.repairs)?;
            if len.kept > 0 {
                end.older_bytes += end.last.1;
                end.last = (number, len.kept);
                end.bytes += len.kept;
            } else if index == 0 {
                end.last = (number.saturating_sub(1), 0);
            }
            if len.damaged {
                self.set_aside(&numbers[index + 1..], &mut end.repairs);
                break;
            }
        }
        Ok(end)
    }

    fn segments(&self, first: Option<u64>) -> Result<Vec<u64>, StorageError> {
        let names = self.fs.list(self.dir).map_err(io_error("list the log", self.dir))?;
        let numbers = names.iter().filter_map(|name| segment_number(name));
        Ok(numbers.filter(|number| first.is_none_or(|first| *number >= first)).collect())
    }

    fn open(&self, number: u64) -> Result<(PathBuf, FrameReader, u64), StorageError> {
        let path = self.dir.join(segment_name(number));
        let len = self.fs.len(&path).map_err(io_error("measure log segment", &path))?;
        let input = self.fs.open(&path).map_err(io_error("open log segment", &path))?;
        Ok((path, FrameReader::new(input, len), len))
    }

    /// Whether segment `number` is no longer than a header and has none: it was being made.
    fn is_unfinished(&self, number: u64) -> Result<bool, StorageError> {
        let (path, mut frames, len) = self.open(number)?;
        let header = frames.header(SEGMENT_MAGIC).map_err(io_error("read log segment", &path))?;
        Ok(len <= HEADER_LEN as u64 && matches!(header, Err(HeaderError::Short | HeaderError::Damaged)))
    }

    /// What the header of segment `number` says about the one before, if it can be read.
    fn previous_len(&self, number: u64) -> Result<Option<u64>, StorageError> {
        let (path, mut frames, _) = self.open(number)?;
        let header = frames.header(SEGMENT_MAGIC).map_err(io_error("read log segment", &path))?;
        match header {
            Ok(Header { previous_len, .. }) if previous_len > 0 => Ok(Some(previous_len)),
            Err(HeaderError::Version(version)) => Err(unknown_version(path, version, SEGMENT_MAGIC)),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    fn read(
        &self,
        number: u64,
        counts: Option<u64>,
        is_last: bool,
        target: &mut dyn ReplayTarget,
        repairs: &mut Vec<Repair>,
    ) -> Result<Kept, StorageError> {
        let (path, _, len) = self.open(number)?;
        let short = counts.is_some_and(|counts| counts > len);
        let counts = counts.map_or(len, |counts| counts.min(len));
        let input = self.fs.open(&path).map_err(io_error("open log segment", &path))?;
        let mut frames = FrameReader::new(input, counts);
        let bad = match frames.header(SEGMENT_MAGIC).map_err(io_error("read log segment", &path))? {
            Ok(header) if header.number == number => loop {
                match frames.next().map_err(io_error("read log segment", &path))? {
                    Frame::Record { kind, payload, offset } => {
                        target.record(kind, &payload).map_err(|what| StorageError::Corrupted {
                            file: path.clone(),
                            offset,
                            what: what.to_string(),
                        })?;
                    }
                    Frame::End if short => {
                        self.metrics.wal_corruptions.inc();
                        tracing::error!(
                            segment = %path.display(), bytes = len,
                            "log segment is shorter than the next one says: its end was lost with power, and what follows rests on it"
                        );
                        return Ok(Kept { kept: counts, damaged: true });
                    }
                    Frame::End => return Ok(Kept { kept: counts, damaged: false }),
                    Frame::Bad(bad) => break bad,
                }
            },
            Err(HeaderError::Version(version)) => return Err(unknown_version(path, version, SEGMENT_MAGIC)),
            Err(HeaderError::Short) => {
                BadFrame { offset: 0, what: "cut off within its header", more_follows: false, next: None }
            }
            Ok(_) | Err(HeaderError::Damaged) => {
                let more_follows = len > HEADER_LEN as u64;
                BadFrame { offset: 0, what: "its header is damaged", more_follows, next: None }
            }
        };
        Ok(self.mend(&path, bad, len, is_last, repairs))
    }

    /// Cuts a segment behind its last sound record; keeps a copy where it is not just a torn tail.
    fn mend(&self, path: &Path, bad: BadFrame, len: u64, is_last: bool, repairs: &mut Vec<Repair>) -> Kept {
        let damaged = !is_last || bad.more_follows;
        let lost = len - bad.offset;
        if damaged {
            self.metrics.wal_corruptions.inc();
            let copy = free_corrupt_path(&**self.fs, path);
            tracing::error!(
                segment = %path.display(), offset = bad.offset, what = bad.what, bytes = lost, kept_as = %copy.display(),
                "log is damaged: everything from here on is lost to queries and kept aside"
            );
            repairs.push(Repair::Copy { from: path.to_owned(), to: copy });
        } else {
            self.metrics.wal_torn_tails.inc();
            tracing::warn!(
                segment = %path.display(), offset = bad.offset, what = bad.what, bytes = lost,
                "log ends in an unfinished record, which was not acknowledged: cut off"
            );
        }
        // Without its header a segment holds nothing.
        let path = path.to_owned();
        repairs.push(match bad.offset {
            0 => Repair::Remove { path },
            len => Repair::Cut { path, len },
        });
        Kept { kept: bad.offset, damaged }
    }

    /// Renames segments, the newest first: an interruption leaves a log that ends at the same place.
    fn set_aside(&self, numbers: &[u64], repairs: &mut Vec<Repair>) {
        for number in numbers.iter().rev() {
            let path = self.dir.join(segment_name(*number));
            let aside = free_corrupt_path(&**self.fs, &path);
            let bytes = self.fs.len(&path).unwrap_or_default();
            tracing::error!(segment = %path.display(), bytes, kept_as = %aside.display(), "log segment behind damage is kept aside");
            repairs.push(Repair::Rename { from: path, to: aside });
        }
    }
}

struct Kept {
    kept: u64,
    damaged: bool,
}

/// A name beside `path` that is not in use: evidence of earlier damage is not overwritten.
pub(crate) fn free_corrupt_path(fs: &dyn FileSystem, path: &Path) -> PathBuf {
    let name = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let first = std::iter::once(name(".corrupt"));
    let mut names = first.chain((1..1000).map(|number| name(&format!(".corrupt.{number}"))));
    names.find(|path| fs.len(path).is_err()).unwrap_or_else(|| name(".corrupt"))
}

pub(crate) fn unknown_version(file: PathBuf, version: u16, magic: [u8; 4]) -> StorageError {
    let what = format!(
        "format version {version} is not known (this program reads version {})",
        super::frame::version_of(magic)
    );
    StorageError::Corrupted { file, offset: 4, what }
}
