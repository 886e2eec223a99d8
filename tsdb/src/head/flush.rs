//! Moving sealed chunks from memory to head chunk files. Upkeep alone does it.

use std::sync::Arc;

use hashbrown::HashMap;
use model::sample::Timestamp;
use model::storage::StorageError;

use super::Head;
use super::history::History;
use super::sealed::SealedWindow;
use super::series::{ChunkBytes, FilePlace, OwnChunk};
use crate::frame::{Compression, FrameBuilder};
use crate::head_chunks::HeadFile;

/// Bytes written at once.
const WRITE_BYTES: usize = 4 << 20;
/// Chunks of a frame: its index has six bits in [`FilePlace`].
const FRAME_CHUNKS: usize = 64;
/// Bytes of chunks after which a frame is closed.
const FRAME_BYTES: usize = 256 << 10;
/// Chunks larger than this stay in memory: the length of a frame has 26 bits.
const CHUNK_BYTES_MAX: usize = 16 << 20;

/// First time, last time, bytes.
type ClosedChunk = (Timestamp, Timestamp, Box<[u8]>);
type Window = (Arc<History>, Arc<SealedWindow>);

/// A chunk on its way: series, times, and its place once it is known: frame and index.
struct Moving {
    series: u32,
    min_t: Timestamp,
    max_t: Timestamp,
    frame: usize,
    index: u32,
}

impl Head {
    /// Writes what was sealed. What cannot be written stays in memory for the next call.
    ///
    /// # Errors
    /// When something could not be written; nothing is lost.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        let result = self.flush_windows().and_then(|()| self.flush_series());
        if result.is_err() {
            self.metrics.head_flushes_failed.inc();
        }
        self.metrics.head_chunks_storage_bytes.set(self.files.storage_bytes().cast_signed());
        result
    }

    fn flush_windows(&self) -> Result<(), StorageError> {
        let mut windows = std::mem::take(&mut *self.unflushed_windows.lock()).into_iter();
        let (mut builder, mut out) = (FrameBuilder::new(), Vec::new());
        let mut batch: Vec<(Window, usize, Box<[u32]>)> = Vec::new();
        loop {
            let next = windows.next();
            if let Some((history, window)) = &next {
                // One that was dropped meanwhile is nowhere else.
                if Arc::strong_count(window) > 1 {
                    let start = out.len();
                    if let Some(frames) = window.frames(&mut builder, &mut out) {
                        batch.push(((Arc::clone(history), Arc::clone(window)), start, frames));
                    }
                }
            }
            if !batch.is_empty() && (out.len() >= WRITE_BYTES || next.is_none()) {
                match self.files.append(&out) {
                    Ok((file, offset)) => {
                        for ((history, window), start, frames) in batch.drain(..) {
                            history.replace(&window, window.moved(&file, offset + start as u64, frames));
                        }
                        out.clear();
                    }
                    Err(error) => {
                        let mut waiting = self.unflushed_windows.lock();
                        waiting.extend(batch.into_iter().map(|entry| entry.0));
                        waiting.extend(windows);
                        return Err(error);
                    }
                }
            }
            if next.is_none() {
                return Ok(());
            }
        }
    }

    fn flush_series(&self) -> Result<(), StorageError> {
        let mut ids = std::mem::take(&mut *self.unflushed_series.lock());
        ids.sort_unstable();
        ids.dedup();
        let mut rest = ids.as_slice();
        while !rest.is_empty() {
            let taken = match self.flush_some(rest) {
                Ok(taken) => taken,
                Err(error) => {
                    self.unflushed_series.lock().extend_from_slice(rest);
                    return Err(error);
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes the chunks of the first of `ids`; answers how many series that were.
    fn flush_some(&self, ids: &[u32]) -> Result<usize, StorageError> {
        let (mut builder, mut out) = (FrameBuilder::new(), Vec::new());
        let (mut moving, mut frames): (Vec<Moving>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        let mut taken = 0;
        let close = |builder: &mut FrameBuilder, out: &mut Vec<u8>, frames: &mut Vec<(usize, usize)>| {
            if !builder.is_empty() {
                let start = out.len();
                let len = builder.finish(Compression::Lz4, out);
                frames.push((start, len));
            }
        };
        for &series in ids {
            if out.len() >= WRITE_BYTES {
                break;
            }
            taken += 1;
            let chunks: Option<Vec<ClosedChunk>> = self.table.with(series, |series| {
                let chunks = series.own.iter().flat_map(|own| &own.chunks);
                let in_memory = chunks.filter_map(|chunk| match &chunk.bytes {
                    ChunkBytes::Memory(bytes) if bytes.len() <= CHUNK_BYTES_MAX => {
                        Some((chunk.min_t, chunk.max_t, bytes.clone()))
                    }
                    ChunkBytes::Memory(_) | ChunkBytes::File(_) => None,
                });
                in_memory.collect()
            });
            for (min_t, max_t, bytes) in chunks.unwrap_or_default() {
                if builder.len() >= FRAME_CHUNKS || builder.bytes() + bytes.len() > FRAME_BYTES {
                    close(&mut builder, &mut out, &mut frames);
                }
                let index = u32::try_from(builder.len()).expect("frames have 64 chunks at most");
                builder.push(&bytes);
                moving.push(Moving { series, min_t, max_t, frame: frames.len(), index });
            }
        }
        close(&mut builder, &mut out, &mut frames);
        if moving.is_empty() {
            return Ok(taken);
        }
        let (file, offset) = self.files.append(&out)?;
        let mut by_series: HashMap<u32, Vec<&Moving>> = HashMap::new();
        for chunk in &moving {
            by_series.entry(chunk.series).or_default().push(chunk);
        }
        for (series, moved) in by_series {
            self.table.with_mut(series, |series| {
                for chunk in series.own.iter_mut().flat_map(|own| &mut own.chunks) {
                    place(chunk, &moved, &frames, &file, offset);
                }
            });
        }
        Ok(taken)
    }
}

/// Points a chunk to its place, if it is one of those that moved.
fn place(
    chunk: &mut OwnChunk,
    moved: &[&Moving],
    frames: &[(usize, usize)],
    file: &Arc<HeadFile>,
    offset: u64,
) {
    let ChunkBytes::Memory(bytes) = &chunk.bytes else { return };
    // Chunks of one kind do not overlap; a float and a histogram chunk that agree in both times stay in memory.
    let mut same = moved.iter().filter(|moved| (moved.min_t, moved.max_t) == (chunk.min_t, chunk.max_t));
    let (Some(found), None) = (same.next(), same.next()) else { return };
    if bytes.len() > CHUNK_BYTES_MAX {
        return;
    }
    let Some(&(start, len)) = frames.get(found.frame) else { return };
    let (Ok(at), Ok(len)) = (u32::try_from(offset + start as u64), u32::try_from(len)) else { return };
    if len < 1 << 26 {
        let len_and_index = len << 6 | found.index;
        chunk.bytes = ChunkBytes::File(FilePlace { file: Arc::clone(file), offset: at, len_and_index });
    }
}
