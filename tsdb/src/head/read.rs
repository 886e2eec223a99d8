//! Reading one series of the head: its compressed bytes are copied under a lock and decoded outside of it.

use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;

use super::Head;
use super::compaction::HeadPart;
use super::series::{Snapshot, Stored};
use super::view::View;
use crate::chunk::{decode_floats, decode_histograms};
use crate::coding::DecodeError;
use crate::columns::Columns;

impl Head {
    /// Appends what `view` sees of a series within `range`: in-order samples first, then the others; not normalized.
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
        let range = TimeRange::new(range.min.max(view.floor), range.max);
        let Some(snapshot) = self.table.with(id, |series| series.snapshot(range, view.commit)) else {
            return Ok(());
        };
        decode(&snapshot, range, view, part, into).map_err(|what| StorageError::Corrupted {
            file: "(head in memory)".into(),
            offset: 0,
            what: what.to_string(),
        })
    }
}

fn decode(
    snapshot: &Snapshot,
    range: TimeRange,
    view: &View,
    part: HeadPart,
    into: &mut Columns,
) -> Result<(), DecodeError> {
    let window = snapshot.window.as_ref().map(|(window, slot)| (window.inner.read(), *slot));
    let in_window = window.as_ref().and_then(|(rows, _)| rows.steps.hidden_from(view.commit));
    let hidden_from = [snapshot.hidden_from, in_window].into_iter().flatten().min();
    let in_order = |t: Timestamp| {
        part != HeadPart::OutOfOrder
            && t >= view.in_order_floor
            && range.contains(t)
            && hidden_from.is_none_or(|hidden| t < hidden)
    };
    let out_of_order = |t: Timestamp| part != HeadPart::InOrder && range.contains(t);
    let starts = |times: &[Timestamp]| snapshot.starts.column(times);
    let (floats, histograms) = (into.times.len(), into.histogram_times.len());
    let had_starts = !into.starts.is_empty() || !into.histogram_starts.is_empty();
    for part in &snapshot.parts {
        let bytes = snapshot.bytes.get(part.at.clone()).unwrap_or_default();
        let take = |t: Timestamp| if part.out_of_order { out_of_order(t) } else { in_order(t) };
        if part.histogram {
            decode_histograms(bytes, |t, histogram| {
                if take(t) {
                    into.histogram_times.push(t);
                    into.histograms.push(histogram);
                }
            })?;
        } else {
            decode_floats(bytes, part.times.as_deref(), |t, bits| {
                if take(t) {
                    into.times.push(t);
                    into.values.push(f64::from_bits(bits));
                }
            })?;
        }
    }
    if let Some((rows, slot)) = window {
        rows.slot(slot, |t, bits| {
            if in_order(t) {
                into.times.push(t);
                into.values.push(f64::from_bits(bits));
            }
        });
    }
    for (t, histogram) in snapshot.histograms.iter().filter(|(t, _)| in_order(*t)) {
        into.histogram_times.push(*t);
        into.histograms.push(histogram.clone());
    }
    for (t, value) in snapshot.out_of_order.iter().filter(|(t, _)| out_of_order(*t)) {
        match value {
            Stored::Float(bits) => {
                into.times.push(*t);
                into.values.push(f64::from_bits(*bits));
            }
            Stored::Histogram(histogram) => {
                into.histogram_times.push(*t);
                into.histograms.push(histogram.clone());
            }
        }
    }
    if had_starts || !snapshot.starts.is_empty() {
        let add = |column: &mut Vec<Timestamp>, before: usize, times: &[Timestamp]| {
            let new = starts(&times[before..]);
            if !column.is_empty() || !new.is_empty() {
                column.resize(before, 0);
                column.extend(new);
                column.resize(times.len(), 0);
            }
        };
        add(&mut into.starts, floats, &into.times);
        add(&mut into.histogram_starts, histograms, &into.histogram_times);
    }
    Ok(())
}
