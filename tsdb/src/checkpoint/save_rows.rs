//! Writing the rows of layouts: what a history is, its sealed windows, its open rows.
//!
//! In records of bounded size, however much of it is not in head chunk files: a layout may have a million slots, and a disk that
//! is full for hours keeps its windows in memory.

use std::sync::Arc;

use hashbrown::HashSet;
use model::storage::StorageError;

use super::save::{Output, put_bytes};
use super::{Counts, IN_FILE, IN_LINE, KIND_CHUNKS, KIND_HISTORY, KIND_ROWS, KIND_WINDOW};
use crate::coding::{put_uvarint, put_varint};
use crate::head::history::{History, HistoryState};
use crate::head::sealed::{Place, SealedWindow};

/// Bytes of rows or chunks after which a record is closed.
const PART_BYTES: usize = 1 << 20;

/// Writes the records of a history as it is now, and counts them.
pub(super) fn save_history(
    out: &mut Output,
    history: &History,
    files: &mut HashSet<u32>,
    counts: &mut Counts,
) -> Result<(), StorageError> {
    let mut newest = Vec::new();
    put_uvarint(&mut newest, history.id);
    // What changes is copied at one moment; nothing is written under the lock.
    let (windows, rows) = {
        let state = history.inner.read();
        put_newest(&mut newest, &state);
        (state.sealed.clone(), row_parts(history.id, &state))
    };
    out.record(KIND_HISTORY, &newest)?;
    for (number, window) in (0..).zip(&windows) {
        counts.windows += 1;
        save_window(out, (history.id, number), window, files)?;
    }
    for (payload, count) in rows {
        counts.rows += count;
        out.record(KIND_ROWS, &payload)?;
    }
    Ok(())
}

/// The newest sample of each slot: open rows need not have it.
fn put_newest(out: &mut Vec<u8>, state: &HistoryState) {
    put_uvarint(out, state.current.len() as u64);
    for value in &state.current {
        out.extend_from_slice(&value.to_le_bytes());
    }
    put_uvarint(out, state.covered.runs().len() as u64);
    for (slot, t) in state.covered.runs() {
        put_uvarint(out, u64::from(*slot));
        put_varint(out, *t);
    }
    put_uvarint(out, state.gone.len() as u64);
    let mut gone: Vec<_> = state.gone.iter().collect();
    gone.sort_unstable();
    for (slot, (t, bits)) in gone {
        put_uvarint(out, u64::from(*slot));
        put_varint(out, *t);
        out.extend_from_slice(&bits.to_le_bytes());
    }
}

/// Payloads of open rows, and how many are in each.
fn row_parts(id: u64, state: &HistoryState) -> Vec<(Vec<u8>, u64)> {
    let mut parts: Vec<(Vec<u8>, u64)> = Vec::new();
    for row in state.rows.parts() {
        if parts.last().is_none_or(|(part, _)| part.len() >= PART_BYTES) {
            let mut part = Vec::new();
            put_uvarint(&mut part, id);
            parts.push((part, 0));
        }
        let Some((part, count)) = parts.last_mut() else { break };
        *count += 1;
        put_varint(part, row.t);
        put_uvarint(part, u64::from(row.from));
        put_uvarint(part, u64::from(row.to - row.from));
        put_uvarint(part, row.values.len() as u64);
        for word in row.words.iter().chain(row.values) {
            part.extend_from_slice(&word.to_le_bytes());
        }
    }
    parts
}

fn save_window(
    out: &mut Output,
    (history, number): (u64, u64),
    window: &Arc<SealedWindow>,
    files: &mut HashSet<u32>,
) -> Result<(), StorageError> {
    let mut payload = Vec::new();
    put_uvarint(&mut payload, history);
    put_uvarint(&mut payload, number);
    put_varint(&mut payload, window.min_t);
    put_varint(&mut payload, window.max_t);
    put_uvarint(&mut payload, u64::from(window.rows));
    put_uvarint(&mut payload, window.chunks() as u64);
    put_bytes(&mut payload, &window.times);
    match &window.place {
        Place::Memory { bytes, ends } => {
            payload.push(IN_LINE);
            out.record(KIND_WINDOW, &payload)?;
            save_chunks(out, (history, number), bytes, ends)
        }
        Place::File { file, offset, frames } => {
            files.insert(file.number);
            payload.push(IN_FILE);
            put_uvarint(&mut payload, u64::from(file.number));
            put_uvarint(&mut payload, *offset);
            put_uvarint(&mut payload, frames.len() as u64);
            frames.iter().for_each(|len| put_uvarint(&mut payload, u64::from(*len)));
            out.record(KIND_WINDOW, &payload)
        }
    }
}

/// Writes the chunks of a window, in parts; none of slots behind the last one that has any.
fn save_chunks(
    out: &mut Output,
    (history, number): (u64, u64),
    bytes: &[u8],
    ends: &[u32],
) -> Result<(), StorageError> {
    let used = ends.partition_point(|end| (*end as usize) < bytes.len());
    // With the one that reaches the end.
    let mut rest = ends.get(..(used + 1).min(ends.len())).unwrap_or_default();
    let (mut slot, mut start) = (0u64, 0u32);
    let mut payload = Vec::new();
    while !rest.is_empty() && (start as usize) < bytes.len() {
        // At least one.
        let within = rest.partition_point(|end| ((end - start) as usize) < PART_BYTES);
        let (part, behind) = rest.split_at((within + 1).min(rest.len()));
        payload.clear();
        put_uvarint(&mut payload, history);
        put_uvarint(&mut payload, number);
        put_uvarint(&mut payload, slot);
        put_uvarint(&mut payload, part.len() as u64);
        let first = start;
        for end in part {
            put_uvarint(&mut payload, u64::from(end - start));
            start = *end;
        }
        payload.extend_from_slice(bytes.get(first as usize..start as usize).unwrap_or_default());
        out.record(KIND_CHUNKS, &payload)?;
        slot += part.len() as u64;
        rest = behind;
    }
    Ok(())
}
