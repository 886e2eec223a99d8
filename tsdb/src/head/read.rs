//! Reading one series of the head: compressed bytes are copied under a lock and decoded outside of it.

use std::sync::Arc;

use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;

use super::Head;
use super::compaction::HeadPart;
use super::series::{OwnChunk, Snapshot, Stored, hides};
use super::view::View;
use crate::columns::Columns;
use crate::head_chunks::HeadFile;
use crate::metrics::Metrics;

impl Head {
    /// Appends what `view` sees of a series within `range`: in-order samples first, then the others, as a later source; not
    /// normalized.
    ///
    /// # Errors
    /// When a chunk cannot be read.
    pub(crate) fn read(
        &self,
        id: u32,
        view: &View,
        range: TimeRange,
        part: HeadPart,
        into: &mut Columns,
    ) -> Result<(), StorageError> {
        self.read_as(id, view, range, part, None, into)
    }

    /// As [`Head::read`], but leaves out chunks that are damaged, which it counts and keeps aside; those that could not be read
    /// several times count as damaged. For compaction: what cannot be read would hold it up for ever.
    ///
    /// # Errors
    /// When the system fails.
    pub(crate) fn read_sound(
        &self,
        id: u32,
        view: &View,
        range: TimeRange,
        part: HeadPart,
        into: &mut Columns,
    ) -> Result<(), StorageError> {
        self.read_as(id, view, range, part, Some(&self.metrics), into)
    }

    fn read_as(
        &self,
        id: u32,
        view: &View,
        range: TimeRange,
        part: HeadPart,
        lenient: Lenient<'_>,
        into: &mut Columns,
    ) -> Result<(), StorageError> {
        let range = TimeRange::new(range.min.max(view.floor), range.max);
        let in_order = TimeRange::new(range.min.max(view.in_order_floor), range.max);
        let Some(snapshot) = self.table.with(id, |series| series.snapshot(range, view.commit)) else {
            return Ok(());
        };
        let start = (into.times.len(), into.histogram_times.len());
        if part != HeadPart::OutOfOrder {
            if snapshot.deleted.is_empty() {
                read_in_order(&snapshot, in_order, view.commit, lenient, into)?;
            } else {
                // Apart from what `into` has, and from out-of-order samples, which came later.
                let mut all = Columns::default();
                read_in_order(&snapshot, in_order, view.commit, lenient, &mut all)?;
                all.retain(|t| !hides(&snapshot.deleted, t));
                into.append(&all);
            }
        }
        let seam = into.seam();
        if part != HeadPart::InOrder {
            read_out_of_order(&snapshot, range, lenient, into)?;
        }
        put_starts(&snapshot, start, into);
        // A time may have both where the in-order one waits to be in a block: late samples are not held against it any more.
        into.close_seam(seam);
        Ok(())
    }
}

/// Where damage is counted that is not to be an error.
type Lenient<'a> = Option<&'a Metrics>;

/// Makes an error of damage, or takes note of it.
fn forgive(
    result: Result<(), StorageError>,
    file: Option<&Arc<HeadFile>>,
    lenient: Lenient<'_>,
) -> Result<(), StorageError> {
    let is_damage = |error: &StorageError| match error {
        StorageError::Corrupted { .. } => true,
        StorageError::Io { source, .. } => file.is_some_and(|file| file.gives_up(source)),
        _ => false,
    };
    match (result, lenient) {
        (Err(error), Some(metrics)) if is_damage(&error) => {
            metrics.head_chunks_damaged.inc();
            if file.is_some_and(|file| file.keep_aside()) {
                tracing::error!(%error, "chunks of the head are damaged: their samples are lost, the file is kept aside");
            }
            Ok(())
        }
        (result, _) => result,
    }
}

fn read_in_order(
    snapshot: &Snapshot,
    range: TimeRange,
    commit: u64,
    lenient: Lenient<'_>,
    into: &mut Columns,
) -> Result<(), StorageError> {
    let own_first = snapshot.chunks.iter().map(|chunk| chunk.min_t).min();
    let rows_first = snapshot.histories.first().and_then(|(history, _)| history.inner.read().range());
    // Whichever is older comes first, so that there is nothing to sort as a rule.
    let own_is_older = own_first.is_some_and(|own| rows_first.is_none_or(|rows| own < rows.0));
    if own_is_older {
        read_own(snapshot, range, lenient, into)?;
    }
    for (history, slot) in &snapshot.histories {
        let before = into.times.len();
        let sealed = {
            let state = history.inner.read();
            let sealed = state.sealed.iter().filter(|window| window.range().overlaps(&range));
            let sealed: Vec<_> = sealed.cloned().collect();
            if sealed.is_empty() {
                state.rows.slot(*slot, commit, |t, bits| push(into, range, t, bits));
                continue;
            }
            // Behind the sealed ones, when they are read.
            let mut open = Columns::default();
            state.rows.slot(*slot, commit, |t, bits| push(&mut open, range, t, bits));
            (sealed, open)
        };
        for window in &sealed.0 {
            forgive(window.read(*slot, commit, into), window.file(), lenient)?;
        }
        clip(into, before, range);
        into.append(&sealed.1);
    }
    if !own_is_older {
        read_own(snapshot, range, lenient, into)?;
    }
    Ok(())
}

fn push(into: &mut Columns, range: TimeRange, t: Timestamp, bits: u64) {
    if range.contains(t) {
        into.push_float(t, f64::from_bits(bits), 0);
    }
}

/// Cuts the floats from place `before` on, which ascend, to a range.
fn clip(into: &mut Columns, before: usize, range: TimeRange) {
    let times = &into.times[before..];
    let end = before + times.partition_point(|t| *t <= range.max);
    let start = before + times.partition_point(|t| *t < range.min);
    into.times.truncate(end);
    into.values.truncate(end);
    into.starts.truncate(end);
    if start > before {
        into.times.drain(before..start.min(end));
        into.values.drain(before..start.min(end));
        if !into.starts.is_empty() {
            into.starts.drain(before..start.min(end));
        }
    }
}

fn read_own(
    snapshot: &Snapshot,
    range: TimeRange,
    lenient: Lenient<'_>,
    into: &mut Columns,
) -> Result<(), StorageError> {
    let seen = |t: Timestamp| range.contains(t) && snapshot.hidden_from.is_none_or(|hidden| t < hidden);
    read_chunks(&snapshot.chunks, seen, lenient, into)?;
    for (t, histogram) in snapshot.histograms.iter().filter(|(t, _)| seen(*t)) {
        into.push_histogram(*t, histogram.clone(), 0);
    }
    Ok(())
}

fn read_out_of_order(
    snapshot: &Snapshot,
    range: TimeRange,
    lenient: Lenient<'_>,
    into: &mut Columns,
) -> Result<(), StorageError> {
    read_chunks(&snapshot.late_chunks, |t| range.contains(t), lenient, into)?;
    for (t, value) in snapshot.out_of_order.iter().filter(|(t, _)| range.contains(*t)) {
        match value {
            Stored::Float(bits) => into.push_float(*t, f64::from_bits(*bits), 0),
            Stored::Histogram(histogram) => into.push_histogram(*t, histogram.clone(), 0),
        }
    }
    Ok(())
}

fn read_chunks(
    chunks: &[OwnChunk],
    take: impl Fn(Timestamp) -> bool,
    lenient: Lenient<'_>,
    into: &mut Columns,
) -> Result<(), StorageError> {
    let mut scratch = Columns::default();
    for chunk in chunks {
        if take(chunk.min_t) && take(chunk.max_t) {
            forgive(chunk.read(into), chunk.file(), lenient)?;
        } else {
            scratch.clear();
            forgive(chunk.read(&mut scratch), chunk.file(), lenient)?;
            scratch.clip(&take);
            into.append(&scratch);
        }
    }
    Ok(())
}

/// Chunks of the head have no start timestamps: the series keeps them as runs.
fn put_starts(snapshot: &Snapshot, from: (usize, usize), into: &mut Columns) {
    if snapshot.starts.is_empty() {
        return;
    }
    let add = |column: &mut Vec<Timestamp>, before: usize, times: &[Timestamp]| {
        let new = snapshot.starts.column(&times[before..]);
        if !column.is_empty() || !new.is_empty() {
            column.resize(before, 0);
            column.extend(new);
            column.resize(times.len(), 0);
        }
    };
    add(&mut into.starts, from.0, &into.times);
    add(&mut into.histogram_starts, from.1, &into.histogram_times);
}
