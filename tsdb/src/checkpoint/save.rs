//! Writing a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::{HashMap, HashSet};
use model::storage::StorageError;
use roaring::RoaringBitmap;

use super::save_rows::save_history;
use super::{
    Counts, IN_FILE, IN_LINE, KIND_END, KIND_HEAD, KIND_SERIES, LAST_FLOAT, LAST_HISTOGRAM, LAST_NONE,
    TEMPORARY, checkpoint_name,
};
use crate::chunk::Chunk;
use crate::chunk::histogram::put_one;
use crate::coding::{put_uvarint, put_varint};
use crate::fs::{FileSystem, WriteFile};
use crate::head::Head;
use crate::head::history::History;
use crate::head::series::{ChunkBytes, Own, OwnChunk, Series, Stored};
use crate::wal::frame::{CHECKPOINT_MAGIC, Header, PAYLOAD_MAX, put_record};
use crate::wal::io_error;
use crate::wal::record::{KIND_COMMIT, put_exemplar, put_labels, put_metadata};

/// Bytes after which a batch of series is closed.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes after which what is collected is written.
const WRITE_BYTES: usize = 1 << 20;

/// What was written.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) bytes: u64,
    /// The head chunk files that it names.
    pub(crate) files: HashSet<u32>,
}

/// Writes the head as the checkpoint `number`, which covers all commits up to `commit`. `sync` makes the log durable, and is
/// called when nothing more is taken from memory.
///
/// # Errors
/// When it cannot be written; then nothing has changed.
pub(crate) fn write(
    fs: &dyn FileSystem,
    dir: &Path,
    number: u64,
    commit: u64,
    head: &Head,
    sync: impl FnOnce() -> Result<(), StorageError>,
) -> Result<Saved, StorageError> {
    let path = dir.join(checkpoint_name(number));
    let temporary = dir.join(format!("{}{TEMPORARY}", checkpoint_name(number)));
    let result = write_file(fs, &temporary, number, commit, head, sync).and_then(|saved| {
        fs.rename(&temporary, &path).map_err(io_error("rename checkpoint", &path))?;
        fs.sync_dir(dir).map_err(io_error("sync directory", dir))?;
        Ok(saved)
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
    commit: u64,
    head: &Head,
    sync: impl FnOnce() -> Result<(), StorageError>,
) -> Result<Saved, StorageError> {
    let file = fs.create(path).map_err(io_error("make checkpoint", path))?;
    let mut out = Output { path: path.to_owned(), file, bytes: Vec::new(), written: 0 };
    let header = Header { magic: CHECKPOINT_MAGIC, number, previous_len: 0 };
    out.bytes.extend_from_slice(&header.encode());
    let mut files = HashSet::new();
    let mut payload = Vec::new();
    put_uvarint(&mut payload, u64::from(head.catalogue.read().next_id()));
    put_uvarint(&mut payload, head.next_layout.load(Ordering::Relaxed));
    put_uvarint(&mut payload, commit);
    put_varint(&mut payload, head.views.newest_floor());
    let bounds = head.bounds();
    put_varint(&mut payload, bounds.in_order_from);
    put_varint(&mut payload, bounds.truncated_to);
    put_uvarint(&mut payload, bounds.late_through);
    out.record(KIND_HEAD, &payload)?;
    // Histories come before the series that name them: what a series is told to be in is there, or comes with the log.
    let histories: Vec<Arc<History>> = head.histories.lock().values().cloned().collect();
    let mut counts = Counts { histories: histories.len() as u64, ..Counts::default() };
    for history in &histories {
        save_history(&mut out, history, &mut files, &mut counts)?;
    }
    let saved: HashMap<u64, ()> = histories.iter().map(|history| (history.id, ())).collect();
    drop(histories);
    let mut series = SeriesWriter { batch: Vec::new(), series: 0 };
    let next_id = head.catalogue.read().next_id();
    // Nearly all references may be of series that are gone. Noted first: nothing is written under a lock.
    let mut ids = RoaringBitmap::new();
    head.table.for_each(next_id, |id, _| {
        ids.insert(id);
    });
    for id in ids {
        series.put(&mut out, head, id, &saved, &mut files)?;
    }
    series.flush(&mut out)?;
    write_rest(&mut out, head)?;
    // The commit that is being applied may be in it.
    let through = head.views.published() + 1;
    let mut end = Vec::new();
    counts.series = series.series;
    for count in [counts.series, counts.histories, counts.windows, counts.rows, through] {
        put_uvarint(&mut end, count);
    }
    out.record(KIND_END, &end)?;
    sync()?;
    head.files.sync()?;
    Ok(Saved { bytes: out.finish()?, files })
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
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

pub(super) struct Output {
    path: PathBuf,
    file: Box<dyn WriteFile>,
    bytes: Vec<u8>,
    written: u64,
}

impl Output {
    pub(super) fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), StorageError> {
        if payload.len() > PAYLOAD_MAX {
            // Only what does not come in parts can be as large as that: one series, one row, one chunk, the newest samples of a
            // layout's slots, the head of a window.
            let what = "bytes of one record of a checkpoint";
            return Err(StorageError::Limit { what, limit: PAYLOAD_MAX as u64 });
        }
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

/// Collects series into batches.
struct SeriesWriter {
    batch: Vec<u8>,
    series: u64,
}

impl SeriesWriter {
    fn put(
        &mut self,
        out: &mut Output,
        head: &Head,
        id: u32,
        histories: &HashMap<u64, ()>,
        files: &mut HashSet<u32>,
    ) -> Result<(), StorageError> {
        let Some(labels) = head.catalogue.read().labels(id) else { return Ok(()) };
        let batch = &mut self.batch;
        let put = head.table.with(id, |series| {
            // What the log has not seen will be logged with its first sample, behind this checkpoint.
            if !series.is_logged() || series.is_unlinked() {
                return false;
            }
            put_uvarint(batch, u64::from(id));
            put_labels(batch, &labels);
            put_series(batch, series, histories, files);
            true
        });
        self.series += u64::from(put == Some(true));
        if self.batch.len() >= BATCH_BYTES { self.flush(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut Output) -> Result<(), StorageError> {
        if !self.batch.is_empty() {
            out.record(KIND_SERIES, &self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }
}

fn put_series(out: &mut Vec<u8>, series: &Series, histories: &HashMap<u64, ()>, files: &mut HashSet<u32>) {
    // One that came meanwhile is in the log from its first row on.
    let known: Vec<_> =
        series.histories().filter(|(history, _)| histories.contains_key(&history.id)).collect();
    let now = series.history().filter(|(history, _)| histories.contains_key(&history.id));
    match now {
        None => put_uvarint(out, 0),
        Some((history, slot)) => {
            // Layouts are numbered from 1.
            put_uvarint(out, history.id);
            put_uvarint(out, u64::from(slot));
        }
    }
    let past = known.len() - usize::from(now.is_some());
    put_uvarint(out, past as u64);
    for (history, slot) in known.iter().take(past) {
        put_uvarint(out, history.id);
        put_uvarint(out, u64::from(*slot));
    }
    match series.last_own() {
        None => out.push(LAST_NONE),
        Some((t, Stored::Float(bits))) => {
            out.push(LAST_FLOAT);
            put_varint(out, t);
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Some((t, Stored::Histogram(histogram))) => {
            out.push(LAST_HISTOGRAM);
            put_varint(out, t);
            put_one(out, &histogram, None);
        }
    }
    let Some(own) = &series.own else {
        out.extend_from_slice(&[0, 0, 0, 0]);
        return;
    };
    put_own(out, own, files);
}

fn put_own(out: &mut Vec<u8>, own: &Own, files: &mut HashSet<u32>) {
    let rare = own.rare.as_deref();
    let starts = rare.map_or(&[][..], |rare| &rare.starts.runs);
    put_uvarint(out, starts.len() as u64);
    for (from, to, start) in starts {
        put_varint(out, *from);
        put_varint(out, *to);
        put_varint(out, *start);
    }
    let deleted = rare.map_or(&[][..], |rare| &rare.deleted);
    put_uvarint(out, deleted.len() as u64);
    for range in deleted {
        put_varint(out, range.min);
        put_varint(out, range.max);
    }
    let open = own.open_chunk();
    let histograms = rare.and_then(|rare| Chunk::of_histograms(&rare.histograms)).map(OwnChunk::from);
    let chunks: Vec<&OwnChunk> = own.chunks.iter().chain(&open).chain(&histograms).collect();
    put_uvarint(out, chunks.len() as u64);
    for chunk in chunks {
        put_varint(out, chunk.min_t);
        put_varint(out, chunk.max_t);
        match &chunk.bytes {
            ChunkBytes::Memory(bytes) => {
                out.push(IN_LINE);
                put_bytes(out, bytes);
            }
            ChunkBytes::File(place) => {
                files.insert(place.file.number);
                out.push(IN_FILE);
                put_uvarint(out, u64::from(place.file.number));
                put_uvarint(out, u64::from(place.offset));
                put_uvarint(out, u64::from(place.len_and_index));
            }
        }
    }
    let (mut late, mut floats, mut histograms, mut commit) = (Vec::new(), Vec::new(), Vec::new(), 0);
    if let Some(rare) = rare {
        late.extend(rare.out_of_order_chunks.iter().map(|late| (late.commit, &late.chunk)));
        for sample in &rare.out_of_order {
            commit = commit.max(sample.commit);
            match &sample.value {
                Stored::Float(bits) => floats.push((sample.t, *bits)),
                Stored::Histogram(histogram) => histograms.push((sample.t, histogram.clone())),
            }
        }
    }
    let open: Vec<Chunk> =
        [Chunk::of_samples(&floats), Chunk::of_histograms(&histograms)].into_iter().flatten().collect();
    late.extend(open.iter().map(|chunk| (commit, chunk)));
    put_uvarint(out, late.len() as u64);
    for (commit, chunk) in late {
        put_uvarint(out, commit);
        put_varint(out, chunk.min_t);
        put_varint(out, chunk.max_t);
        put_bytes(out, &chunk.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FaultyFs;

    #[test]
    fn too_long_a_record_is_an_error() {
        let path = PathBuf::from("/checkpoint");
        let file = FaultyFs::new().create(&path).unwrap();
        let mut out = Output { path, file, bytes: Vec::new(), written: 0 };
        // Zeros that nobody reads take no memory.
        let result = out.record(KIND_SERIES, &vec![0; PAYLOAD_MAX + 1]);
        assert!(matches!(result, Err(StorageError::Limit { .. })));
        out.record(KIND_SERIES, &[1]).unwrap();
    }
}
