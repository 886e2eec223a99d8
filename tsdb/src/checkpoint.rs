//! Checkpoints: everything in memory as of one commit, in one file, so that older log segments can go.
//!
//! The format is `docs/formats/checkpoint.md`. A checkpoint is written under a temporary name, synced and renamed, then the
//! directory is synced; only then segments before it are removed. It is written like any reader reads, from a view, while
//! commits go on: what they add is in the segments that the checkpoint does not cover.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;

use crate::chunk::histogram::{get_one, put_one};
use crate::chunk::{Chunk, TimeColumn};
use crate::coding::{DecodeError, Reader, put_uvarint, put_varint};
use crate::columns::Columns;
use crate::fs::{FileSystem, WriteFile};
use crate::head::Head;
use crate::head::compaction::HeadPart;
use crate::head::series::{OutOfOrderChunk, Series, Starts, Stored};
use crate::head::view::View;
use crate::wal::frame::{CHECKPOINT_MAGIC, Frame, FrameReader, Header, HeaderError, put_record};
use crate::wal::io_error;
use crate::wal::record::{Entry, KIND_COMMIT, decode, get_labels, put_exemplar, put_labels, put_metadata};
use crate::wal::replay::unknown_version;

const KIND_HEAD: u8 = 16;
const KIND_TIMES: u8 = 17;
const KIND_SERIES: u8 = 18;
const KIND_END: u8 = 31;

/// Bytes after which a batch of series is closed.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes after which what is collected is written.
const WRITE_BYTES: usize = 1 << 20;

const PREFIX: &str = "checkpoint.";
const TEMPORARY: &str = ".tmp";

/// The file name of the checkpoint that covers all segments before `number`.
pub(crate) fn checkpoint_name(number: u64) -> String {
    format!("{PREFIX}{number:08}")
}

/// The number in the name of a finished checkpoint.
pub(crate) fn checkpoint_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?;
    number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())?
}

/// Whether this is a checkpoint that was not finished.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(TEMPORARY)
}

/// Writes what `view` sees as the checkpoint `number`. Answers its size.
///
/// # Errors
/// When it cannot be written; then nothing has changed.
pub(crate) fn write(
    fs: &dyn FileSystem,
    dir: &Path,
    number: u64,
    head: &Head,
    view: &View,
) -> Result<u64, StorageError> {
    let path = dir.join(checkpoint_name(number));
    let temporary = dir.join(format!("{}{TEMPORARY}", checkpoint_name(number)));
    let result = write_file(fs, &temporary, number, head, view).and_then(|len| {
        fs.rename(&temporary, &path).map_err(io_error("rename checkpoint", &path))?;
        fs.sync_dir(dir).map_err(io_error("sync directory", dir))?;
        Ok(len)
    });
    if result.is_err() {
        let _ = fs.remove(&temporary);
    }
    result
}

fn write_file(
    fs: &dyn FileSystem,
    path: &Path,
    number: u64,
    head: &Head,
    view: &View,
) -> Result<u64, StorageError> {
    let file = fs.create(path).map_err(io_error("make checkpoint", path))?;
    let mut out = Output { path: path.to_owned(), file, bytes: Vec::new(), written: 0 };
    let header = Header { magic: CHECKPOINT_MAGIC, number, previous_len: 0 };
    out.bytes.extend_from_slice(&header.encode());
    let next_id = head.catalogue.read().next_id();
    let mut payload = Vec::new();
    put_uvarint(&mut payload, u64::from(next_id));
    put_uvarint(&mut payload, head.next_layout.load(Ordering::Relaxed));
    put_varint(&mut payload, view.floor);
    out.record(KIND_HEAD, &payload)?;
    let mut series = SeriesWriter { columns: HashMap::new(), batch: Vec::new(), series: 0, chunks: 0 };
    for id in 0..next_id {
        series.put(&mut out, head, view, id)?;
    }
    series.flush(&mut out)?;
    write_rest(&mut out, head)?;
    let mut end = Vec::new();
    put_uvarint(&mut end, series.series);
    put_uvarint(&mut end, series.chunks);
    out.record(KIND_END, &end)?;
    out.finish()
}

/// Exemplars and metadata, as entries of commits.
fn write_rest(out: &mut Output, head: &Head) -> Result<(), StorageError> {
    let mut payload = Vec::new();
    let metadata = head.metadata.read().clone();
    for (metric, metadata) in &metadata {
        put_metadata(&mut payload, metric, metadata);
        out.record_when_full(&mut payload)?;
    }
    let exemplars = head.exemplars.lock().all();
    for (series, exemplar) in &exemplars {
        put_exemplar(&mut payload, *series, exemplar);
        out.record_when_full(&mut payload)?;
    }
    if payload.is_empty() { Ok(()) } else { out.record(KIND_COMMIT, &payload) }
}

struct Output {
    path: PathBuf,
    file: Box<dyn WriteFile>,
    bytes: Vec<u8>,
    written: u64,
}

impl Output {
    fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), StorageError> {
        put_record(&mut self.bytes, kind, payload, true);
        if self.bytes.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn record_when_full(&mut self, payload: &mut Vec<u8>) -> Result<(), StorageError> {
        if payload.len() < BATCH_BYTES {
            return Ok(());
        }
        self.record(KIND_COMMIT, payload)?;
        payload.clear();
        Ok(())
    }

    fn write(&mut self) -> Result<(), StorageError> {
        self.file.append(&self.bytes).map_err(io_error("write checkpoint", &self.path))?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<u64, StorageError> {
        self.write()?;
        self.file.sync().map_err(io_error("sync checkpoint", &self.path))?;
        Ok(self.written)
    }
}

/// Collects series into batches; shared columns of times go before the first batch that names them.
struct SeriesWriter {
    /// By address: the columns are held by the snapshots that name them, and by the entry itself.
    columns: HashMap<usize, (u64, Arc<TimeColumn>)>,
    batch: Vec<u8>,
    series: u64,
    chunks: u64,
}

const CHUNK_SHARED_TIMES: u8 = 1;
const CHUNK_OUT_OF_ORDER: u8 = 2;
const LAST_NONE: u8 = 0;
const LAST_FLOAT: u8 = 1;
const LAST_HISTOGRAM: u8 = 2;

impl SeriesWriter {
    fn put(&mut self, out: &mut Output, head: &Head, view: &View, id: u32) -> Result<(), StorageError> {
        let range = TimeRange::new(view.floor, Timestamp::MAX);
        let copy = head.table.with(id, |series| {
            // What the log has not seen will be logged with its first sample, behind this checkpoint.
            (series.is_logged() && !series.is_unlinked()).then(|| series.snapshot(range, view.commit))
        });
        let Some(snapshot) = copy.flatten() else { return Ok(()) };
        let Some(labels) = head.catalogue.read().labels(id) else { return Ok(()) };
        let content = Content::of(head, view, id)?;
        let mut batch = std::mem::take(&mut self.batch);
        put_uvarint(&mut batch, u64::from(id));
        put_labels(&mut batch, &labels);
        match &content.last {
            None => batch.push(LAST_NONE),
            Some((t, Stored::Float(bits))) => {
                batch.push(LAST_FLOAT);
                put_varint(&mut batch, *t);
                batch.extend_from_slice(&bits.to_le_bytes());
            }
            Some((t, Stored::Histogram(histogram))) => {
                batch.push(LAST_HISTOGRAM);
                put_varint(&mut batch, *t);
                put_one(&mut batch, histogram, None);
            }
        }
        put_uvarint(&mut batch, snapshot.starts.runs.len() as u64);
        for (from, to, start) in &snapshot.starts.runs {
            put_varint(&mut batch, *from);
            put_varint(&mut batch, *to);
            put_varint(&mut batch, *start);
        }
        put_uvarint(&mut batch, content.chunks.len() as u64);
        for (chunk, out_of_order) in &content.chunks {
            let shared = if chunk.times.is_some() { CHUNK_SHARED_TIMES } else { 0 };
            batch.push(shared | if *out_of_order { CHUNK_OUT_OF_ORDER } else { 0 });
            if let Some(times) = &chunk.times {
                let column = self.column(out, times)?;
                put_uvarint(&mut batch, column);
            }
            put_varint(&mut batch, chunk.min_t);
            put_varint(&mut batch, chunk.max_t);
            put_uvarint(&mut batch, chunk.bytes.len() as u64);
            batch.extend_from_slice(&chunk.bytes);
        }
        self.series += 1;
        self.chunks += content.chunks.len() as u64;
        self.batch = batch;
        if self.batch.len() >= BATCH_BYTES { self.flush(out) } else { Ok(()) }
    }

    fn column(&mut self, out: &mut Output, times: &Arc<TimeColumn>) -> Result<u64, StorageError> {
        let next = self.columns.len() as u64;
        let key = Arc::as_ptr(times).addr();
        if let Some((column, _)) = self.columns.get(&key) {
            return Ok(*column);
        }
        self.columns.insert(key, (next, Arc::clone(times)));
        let mut payload = Vec::new();
        put_uvarint(&mut payload, next);
        put_uvarint(&mut payload, times.times.len() as u64);
        let (mut previous, mut delta) = (0i64, 0i64);
        for &t in &times.times {
            let new = t.wrapping_sub(previous);
            put_varint(&mut payload, new.wrapping_sub(delta));
            (previous, delta) = (t, new);
        }
        out.record(KIND_TIMES, &payload)?;
        Ok(next)
    }

    fn flush(&mut self, out: &mut Output) -> Result<(), StorageError> {
        if !self.batch.is_empty() {
            out.record(KIND_SERIES, &self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }
}

/// What is visible of a series, as chunks.
struct Content {
    /// With whether it is an out-of-order one.
    chunks: Vec<(Chunk, bool)>,
    /// The newest in-order sample.
    last: Option<(Timestamp, Stored)>,
}

impl Content {
    fn of(head: &Head, view: &View, id: u32) -> Result<Self, StorageError> {
        let mut content = Self { chunks: Vec::new(), last: None };
        for (part, late) in [(HeadPart::InOrder, false), (HeadPart::OutOfOrder, true)] {
            let mut columns = Columns::default();
            head.read(id, view, TimeRange::ALL, part, &mut columns)?;
            columns.normalize();
            let floats: Vec<_> =
                columns.times.iter().zip(&columns.values).map(|(t, value)| (*t, value.to_bits())).collect();
            let histograms: Vec<_> =
                columns.histogram_times.iter().copied().zip(columns.histograms.iter().cloned()).collect();
            let chunks = floats
                .chunks(120)
                .map(Chunk::of_samples)
                .chain(histograms.chunks(60).map(Chunk::of_histograms));
            content.chunks.extend(chunks.flatten().map(|chunk| (chunk, late)));
            if !late {
                let float = floats.last().map(|(t, bits)| (*t, Stored::Float(*bits)));
                let histogram =
                    histograms.last().map(|(t, histogram)| (*t, Stored::Histogram(histogram.clone())));
                content.last = [float, histogram].into_iter().flatten().max_by_key(|last| last.0);
            }
        }
        Ok(content)
    }
}

/// What loading found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) bytes: u64,
    /// Records that could not be read.
    pub(crate) damaged: u64,
}

/// Loads a checkpoint into an empty head. Damaged records are left out and counted.
///
/// # Errors
/// When the system fails, the version is unknown, or a sound record has unknown content.
pub(crate) fn load(fs: &dyn FileSystem, path: &Path, head: &Head) -> Result<Loaded, StorageError> {
    let read_error = || io_error("read checkpoint", path);
    let bytes = fs.len(path).map_err(read_error())?;
    let mut frames = FrameReader::new(fs.open(path).map_err(read_error())?, bytes);
    let mut loaded = Loaded { bytes, damaged: 0 };
    match frames.header(CHECKPOINT_MAGIC).map_err(read_error())? {
        Ok(_) => {}
        Err(HeaderError::Version(version)) => return Err(unknown_version(path.to_owned(), version)),
        Err(HeaderError::Short) => return Ok(Loaded { damaged: 1, ..loaded }),
        // The records have checksums of their own.
        Err(HeaderError::Damaged) => loaded.damaged += 1,
    }
    let mut loader = Loader { head, columns: HashMap::new(), range: None, chunks: 0 };
    let mut complete = false;
    loop {
        match frames.next().map_err(read_error())? {
            Frame::End => break,
            Frame::Bad(bad) => {
                loaded.damaged += 1;
                tracing::error!(checkpoint = %path.display(), offset = bad.offset, what = bad.what, "checkpoint is damaged: a record is lost");
                if bad.next.is_none() {
                    break;
                }
            }
            Frame::Record { kind, payload, offset } => {
                let corrupted = |what: DecodeError| StorageError::Corrupted {
                    file: path.to_owned(),
                    offset,
                    what: what.to_string(),
                };
                complete |= kind == KIND_END;
                loader.record(kind, &payload).map_err(corrupted)?;
            }
        }
    }
    if !complete {
        loaded.damaged += 1;
        tracing::error!(checkpoint = %path.display(), "checkpoint ends early: series are lost");
    }
    head.add_chunks(loader.chunks, 0);
    if let Some(range) = loader.range {
        head.saw(range.min, range.max);
    }
    Ok(loaded)
}

/// Whether a checkpoint is whole by its checksums.
///
/// # Errors
/// When the system fails or the version is unknown.
pub(crate) fn is_sound(fs: &dyn FileSystem, path: &Path) -> Result<bool, StorageError> {
    let read_error = || io_error("read checkpoint", path);
    let bytes = fs.len(path).map_err(read_error())?;
    let mut frames = FrameReader::new(fs.open(path).map_err(read_error())?, bytes);
    match frames.header(CHECKPOINT_MAGIC).map_err(read_error())? {
        Ok(_) => {}
        Err(HeaderError::Version(version)) => return Err(unknown_version(path.to_owned(), version)),
        Err(HeaderError::Short | HeaderError::Damaged) => return Ok(false),
    }
    let mut complete = false;
    loop {
        match frames.next().map_err(read_error())? {
            Frame::End => return Ok(complete),
            Frame::Bad(_) => return Ok(false),
            Frame::Record { kind, .. } => complete |= kind == KIND_END,
        }
    }
}

struct Loader<'a> {
    head: &'a Head,
    columns: HashMap<u64, Arc<TimeColumn>>,
    range: Option<TimeRange>,
    chunks: usize,
}

impl Loader<'_> {
    fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(payload);
        match kind {
            KIND_HEAD => {
                self.head.catalogue.write().reserve_ids(reader.uvarint32()?);
                self.head.next_layout.fetch_max(reader.uvarint()?, Ordering::Relaxed);
                self.head.views.raise_floor(reader.varint()?);
                Ok(())
            }
            KIND_TIMES => self.times(&mut reader),
            KIND_SERIES => {
                while !reader.is_empty() {
                    self.series(&mut reader)?;
                }
                Ok(())
            }
            KIND_COMMIT => decode(payload, |entry| {
                match entry {
                    Entry::Exemplar { series, exemplar } => self.head.exemplars.lock().push(series, exemplar),
                    Entry::Metadata { metric, metadata } => self.head.set_metadata(&metric, &metadata),
                    Entry::Series { .. }
                    | Entry::Layout { .. }
                    | Entry::Row { .. }
                    | Entry::Floats(_)
                    | Entry::Histogram { .. }
                    | Entry::Bounds(_)
                    | Entry::Deleted { .. } => return Err(DecodeError::Unknown("entry of a checkpoint")),
                }
                Ok(())
            }),
            KIND_END => Ok(()),
            _ => Err(DecodeError::Unknown("record of a checkpoint")),
        }
    }

    fn times(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let column = reader.uvarint()?;
        let count = reader.count(1)?;
        let mut times = Vec::with_capacity(count);
        let (mut t, mut delta) = (0i64, 0i64);
        for _ in 0..count {
            delta = delta.wrapping_add(reader.varint()?);
            t = t.wrapping_add(delta);
            times.push(t);
        }
        self.columns.insert(column, Arc::new(TimeColumn { times: times.into() }));
        Ok(())
    }

    fn series(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let id = reader.uvarint32()?;
        let labels = get_labels(reader)?;
        let mut series = Series::logged();
        let last = match reader.u8()? {
            LAST_NONE => None,
            LAST_FLOAT => Some((reader.varint()?, Stored::Float(reader.u64_le()?))),
            LAST_HISTOGRAM => Some((reader.varint()?, Stored::Histogram(get_one(reader, None)?))),
            _ => return Err(DecodeError::Unknown("kind of sample")),
        };
        if let Some((t, value)) = &last {
            series.set_last(*t, value);
            self.see(*t);
        }
        let runs = reader.count(3)?;
        let runs = (0..runs).map(|_| Ok((reader.varint()?, reader.varint()?, reader.varint()?)));
        let runs = runs.collect::<Result<Vec<_>, DecodeError>>()?;
        if !runs.is_empty() {
            series.rare_mut().starts = Starts::of_runs(runs);
        }
        for _ in 0..reader.count(4)? {
            let flags = reader.u8()?;
            if flags & !(CHUNK_SHARED_TIMES | CHUNK_OUT_OF_ORDER) != 0 {
                return Err(DecodeError::Unknown("chunk flag"));
            }
            let mut lost = false;
            let times = if flags & CHUNK_SHARED_TIMES == 0 {
                None
            } else {
                let times = self.columns.get(&reader.uvarint()?).cloned();
                lost = times.is_none();
                times
            };
            let (min_t, max_t) = (reader.varint()?, reader.varint()?);
            let len = reader.count(1)?;
            let chunk = Chunk { bytes: reader.bytes(len)?.into(), times, min_t, max_t };
            // Its times were in a damaged record.
            if lost || min_t > max_t {
                continue;
            }
            self.see(min_t);
            self.see(max_t);
            self.chunks += 1;
            if flags & CHUNK_OUT_OF_ORDER == 0 {
                self.head.saw_in_order(min_t);
                series.push_chunk(chunk);
            } else {
                let late = OutOfOrderChunk { commit: 0, chunk };
                series.rare_mut().out_of_order_chunks.push(late);
            }
        }
        let mut catalogue = self.head.catalogue.write();
        if catalogue.find(&labels).is_some() || self.head.table.with(id, |_| ()).is_some() {
            return Err(DecodeError::Inconsistent("series: two of them have the same labels or reference"));
        }
        self.head.table.insert(id, series);
        catalogue.insert(id, &labels);
        Ok(())
    }

    fn see(&mut self, t: Timestamp) {
        let range = self.range.get_or_insert(TimeRange::new(t, t));
        range.min = range.min.min(t);
        range.max = range.max.max(t);
    }
}
