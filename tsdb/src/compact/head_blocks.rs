//! From the head to blocks.
//!
//! The order of things is that of [`crate::head::compaction`]: freeze, view, scan, appearance of the block, truncation.

use std::path::Path;

use model::labels::Labels;
use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;
use ulid::Ulid;

use super::merge::Source;
use super::{State, Target, is_due};
use crate::block::Made;
use crate::columns::Columns;
use crate::db::Db;
use crate::head::compaction::{HeadPart, HeadScan};
use crate::head::view::View;

/// Out-of-order samples since the last time from which on they become blocks without waiting: tens of bytes each in memory.
const OUT_OF_ORDER_SAMPLES: u64 = 4 << 20;

impl Source for HeadScan<'_> {
    fn next(&mut self, labels: &mut Labels, columns: &mut Columns) -> Result<bool, StorageError> {
        HeadScan::next(self, labels, columns)
    }

    fn left(&self) -> u64 {
        HeadScan::left(self)
    }
}

/// A span of the head as a block.
fn made(id: Ulid, range: TimeRange, hints: &[&str]) -> Made {
    Made {
        min_time: range.min,
        max_time: range.max.saturating_add(1),
        level: 1,
        sources: vec![id],
        parents: Vec::new(),
        hints: hints.iter().map(|hint| (*hint).to_owned()).collect(),
    }
}

impl Db {
    /// Makes blocks of what is ready in the head; whether there was something.
    pub(super) fn compact_head(&self, state: &mut State, now: Timestamp) -> Result<bool, StorageError> {
        if !state.head.is_due(now) {
            return Ok(false);
        }
        let result = self.caught(|| {
            let in_order = self.compact_in_order(state)?;
            let late = self.is_out_of_order_due(state, now, in_order);
            Ok(in_order | (late && self.compact_out_of_order(state, now)?))
        });
        match &result {
            Ok(moved) => {
                state.head.succeeded();
                if *moved && let Err(error) = self.checkpoint() {
                    // Nothing is lost: a start finds samples in the log that are in blocks already, and joins them.
                    tracing::warn!(%error, "the log could not be cut behind what is in blocks; it is tried again");
                }
            }
            Err(StorageError::Cancelled) => {}
            Err(error) => {
                self.metrics.compactions_failed.inc();
                if state.head.failed(now, error) {
                    tracing::error!(%error, "the head could not become a block: it stays in memory, it is tried again");
                }
            }
        }
        result
    }

    fn compact_in_order(&self, state: &mut State) -> Result<bool, StorageError> {
        let head = &self.shared.head;
        let mut any = false;
        while let Some(range) = head.compactable(self.block_ms()) {
            self.compaction.patient().check()?;
            self.metrics.compactions_triggered.inc();
            let end = range.max.saturating_add(1);
            self.shared.freeze(end)?;
            let view = head.views.open();
            let written = self.publish_part(state, &view, range, HeadPart::InOrder)?;
            let end = if written.is_some() { end } else { self.end_of_gap(&view, end)? };
            drop(view);
            self.shared.freeze(end).inspect_err(|_| self.take_back(written.as_slice()))?;
            self.shared.truncate(end);
            self.metrics.head_truncations.inc();
            any = true;
        }
        Ok(any)
    }

    /// Where the block begins that has the first in-order sample from `from` on, so that spans without any are not walked
    /// through one by one; not later than where the head would go on taking samples.
    fn end_of_gap(&self, view: &View, from: Timestamp) -> Result<Timestamp, StorageError> {
        let block_ms = self.block_ms();
        let start_of = |t: Timestamp| t.saturating_sub(t.rem_euclid(block_ms));
        let head = &self.shared.head;
        let newest = head.range().map_or(from, |range| range.max);
        let mut first = start_of(newest.saturating_sub(block_ms.saturating_add(block_ms / 2)));
        let mut scan = head.scan(view, TimeRange::new(from, newest), HeadPart::InOrder);
        let (mut labels, mut columns) = (Labels::empty(), Columns::default());
        while first > from && scan.next(&mut labels, &mut columns)? {
            self.compaction.patient().check()?;
            first = columns.range().map_or(first, |range| first.min(start_of(range.min)));
        }
        Ok(first.max(from))
    }

    fn is_out_of_order_due(&self, state: &mut State, now: Timestamp, head_moved: bool) -> bool {
        let appended = self.metrics.out_of_order_samples_appended();
        let last = *state.last_out_of_order.get_or_insert((now, appended));
        // Small blocks are costly to merge: they wait for company, but not for long.
        head_moved
            || is_due(Some(last.0), now, self.block_ms())
            || appended.saturating_sub(last.1) >= OUT_OF_ORDER_SAMPLES
    }

    fn compact_out_of_order(&self, state: &mut State, now: Timestamp) -> Result<bool, StorageError> {
        let head = &self.shared.head;
        let appended = self.metrics.out_of_order_samples_appended();
        let view = head.views.open();
        // After the view: no sample that it sees lies elsewhere.
        let ranges = head.out_of_order_ranges(self.block_ms());
        let mut published = Vec::new();
        let all = ranges.iter().try_for_each(|range| {
            self.compaction.patient().check()?;
            published.extend(self.publish_part(state, &view, *range, HeadPart::OutOfOrder)?);
            Ok(())
        });
        all.inspect_err(|_: &StorageError| self.take_back(&published))?;
        state.last_out_of_order = Some((now, appended));
        if ranges.is_empty() {
            return Ok(false);
        }
        let mark = view.out_of_order_mark();
        drop(view);
        self.shared.drop_out_of_order(mark);
        Ok(true)
    }

    /// Takes blocks out whose samples stay in the head, where the next try finds them: else each try would add them again.
    fn take_back(&self, published: &[Ulid]) {
        if !published.is_empty() {
            self.blocks.replace(None, published).expect("taking blocks out opens none");
        }
    }

    /// Writes what a view sees of a span, and makes the block appear; its id if there was anything.
    fn publish_part(
        &self,
        state: &mut State,
        view: &View,
        range: TimeRange,
        part: HeadPart,
    ) -> Result<Option<Ulid>, StorageError> {
        let (hints, reason): (&[&str], _) = match part {
            HeadPart::OutOfOrder => (&["from-out-of-order"], "out-of-order samples"),
            HeadPart::InOrder | HeadPart::All => (&[], "head"),
        };
        let id = self.next_id(state);
        let target = Target { dir: self.blocks.dir(), id, made: made(id, range, hints) };
        let scan = self.shared.head.scan(view, range, part);
        let written = self.write_block(target, vec![scan], reason, &self.compaction.patient());
        // It may have its name already when the last step fails.
        let written = written.inspect_err(|_| self.blocks.give_up(id))?;
        self.blocks.replace(written.as_ref(), &[])?;
        Ok(written.map(|meta| meta.ulid))
    }

    /// Writes all of the head as one block into `dir`.
    pub(super) fn copy_head(&self, state: &mut State, dir: &Path) -> Result<(), StorageError> {
        let view = self.shared.head.views.open();
        let Some(range) = self.shared.head.range() else { return Ok(()) };
        let id = self.next_id(state);
        let target = Target { dir, id, made: made(id, range, &[]) };
        let scan = self.shared.head.scan(&view, range, HeadPart::All);
        self.write_block(target, vec![scan], "snapshot of the head", &self.compaction.patient()).map(|_| ())
    }
}
