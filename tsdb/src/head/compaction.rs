//! What compaction takes from the head: which time is ready, all series of it in order of labels, and the dropping of what is
//! in a block.
//!
//! The order of things, so that no sample is lost and none is seen by nobody:
//!
//! 1. [`Head::freeze`] under the commit lock: from now on samples before the range's end are out of order, whoever writes them.
//! 2. A view is opened, and [`Head::scan`] reads what it sees of the range. In-order samples of the range cannot change any
//!    more; out-of-order ones that come later stay behind the mark of the view.
//! 3. The block appears. A reader opens its view of the head first and takes the list of blocks after, so whatever it sees,
//!    a sample is in the head, in the block, or in both.
//! 4. [`Head::truncate`] and [`Head::drop_out_of_order`]: views opened from now on do not see the in-order samples; memory is
//!    freed as soon as no older view is open.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::Ordering as Atomic;

use hashbrown::HashMap;
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;

use super::Head;
use super::history::History;
use super::series::{Cut, Series};
use super::view::View;
use crate::columns::Columns;
use crate::commit::Committer;
use crate::db::Shared;
use crate::wal::record::{Bounds, put_bounds, put_deleted};

/// Comparisons of labels under one lock of the catalogue.
const SORT_BATCH: usize = 4096;

/// Which samples a scan reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadPart {
    /// Those that came in order.
    InOrder,
    /// The others.
    OutOfOrder,
    /// All of them.
    All,
}

/// The out-of-order samples of a view: what [`Head::drop_out_of_order`] may drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfOrderMark {
    pub(crate) commit: u64,
}

impl View {
    /// Marks the out-of-order samples that this view sees.
    pub(crate) fn out_of_order_mark(&self) -> OutOfOrderMark {
        OutOfOrderMark { commit: self.commit }
    }
}

impl Shared {
    /// From now on samples before `before` are out of order. Waits for the commit that is being written.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn freeze(&self, before: Timestamp) -> Result<(), StorageError> {
        let head = &self.head;
        let bounds = head.bounds();
        if before <= bounds.in_order_from {
            return Ok(());
        }
        // In the log, so that replay judges what comes behind as it was judged.
        self.log_bounds(Bounds { in_order_from: before, ..bounds }, || head.freeze(before))
    }

    /// Hides in-order samples before `before` from new views and drops them as soon as no older view is open: they are in
    /// blocks. [`Shared::freeze`] came before.
    pub(crate) fn truncate(&self, before: Timestamp) {
        let head = &self.head;
        head.freeze(before);
        head.views.raise_in_order_floor(before);
        head.trim(|_, _| {});
        self.tell_log();
    }

    /// Drops the out-of-order samples of a mark as soon as no view is open that may have been opened before they were in a
    /// block.
    pub(crate) fn drop_out_of_order(&self, mark: OutOfOrderMark) {
        self.head.note_late_drop(mark);
        self.head.trim(|_, _| {});
        self.tell_log();
    }

    /// Without it a restart has again in the head what is in blocks: a waste, and no harm as long as nothing of it is deleted.
    /// Upkeep tries again, and [`Shared::delete`] waits for it.
    fn tell_log(&self) {
        if let Err(error) = self.log_all_bounds() {
            self.head.bounds_untold.store(true, Atomic::Release);
            tracing::warn!(%error, "log could not be told what is in blocks: it is tried again");
        }
    }

    /// Tells the log what is in blocks, if that is still to be done.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn tell_log_again(&self) -> Result<(), StorageError> {
        if self.head.bounds_untold.load(Atomic::Acquire) { self.log_all_bounds() } else { Ok(()) }
    }

    fn log_all_bounds(&self) -> Result<(), StorageError> {
        let wal = self.committer.wal.lock();
        let mut entries = Vec::new();
        put_bounds(&mut entries, self.head.bounds());
        Committer::log_under(wal, &self.head, &entries, || {
            self.head.bounds_untold.store(false, Atomic::Release);
        })
    }

    fn log_bounds(&self, bounds: Bounds, apply: impl FnOnce()) -> Result<(), StorageError> {
        let mut entries = Vec::new();
        put_bounds(&mut entries, bounds);
        self.committer.log(&self.head, &entries, apply)
    }

    /// Deletes samples of the series that some of `selectors` (each a list of matchers) chooses, as far as the head has them.
    /// What comes later is not hidden, wherever it lies.
    ///
    /// # Errors
    /// When the log cannot be written: nothing is deleted then. When out-of-order samples cannot be decoded: they stay, all else is
    /// deleted.
    pub(crate) fn delete(&self, range: TimeRange, selectors: &[Vec<Matcher>]) -> Result<(), StorageError> {
        let head = &self.head;
        // What the head does not have any more a restart must not bring back from the log, without the deletion.
        self.tell_log_again()?;
        let mut ids: Vec<u32> = {
            let catalogue = head.catalogue.read();
            selectors.iter().flat_map(|matchers| catalogue.select(matchers)).collect()
        };
        ids.sort_unstable();
        ids.dedup();
        let Some(has) = head.range() else { return Ok(()) };
        let range = TimeRange::new(range.min, range.max.min(has.max));
        let cuts = head.cuts(&ids, TimeRange::new(range.min.max(has.min), range.max));
        // Commits wait, so that the newest sample of each series is the one that the log says.
        let wal = self.committer.wal.lock();
        let (mut entries, mut deleted) = (Vec::new(), Vec::new());
        for id in ids {
            let concerned = head.table.with(id, |series| {
                (series.may_overlap(range) || series.remembers(range))
                    .then(|| (series.in_order_newest(), series.newest()))
            });
            let Some((in_order_newest, Some(newest))) = concerned.flatten() else { continue };
            // Spans of all time would be longer than what there is and say no more.
            let min = range.min.max(in_order_newest.map_or(has.min, |newest| newest.min(has.min)));
            let range = TimeRange::new(min, range.max.min(newest));
            if range.min <= range.max {
                put_deleted(&mut entries, id, range);
                deleted.push((id, range));
            }
        }
        if deleted.is_empty() {
            return Ok(());
        }
        let mut unreadable = 0;
        Committer::log_under(wal, head, &entries, || {
            for (id, range) in deleted {
                let cuts = cuts.get(&id).map_or(&[][..], Vec::as_slice);
                let dropped =
                    head.table.with_mut(id, |series| series.delete(range, cuts)).unwrap_or_default();
                head.add_chunks(0, dropped.chunks);
                unreadable += dropped.unreadable;
            }
        })?;
        if unreadable == 0 {
            return Ok(());
        }
        Err(StorageError::Corrupted {
            file: "(head in memory)".into(),
            offset: 0,
            what: format!("deleted, but not from {unreadable} out-of-order chunks that cannot be decoded"),
        })
    }
}

impl Head {
    /// What a deletion will leave of compressed out-of-order samples, by series: nobody waits while they are decoded. Those that come
    /// into being meanwhile are left to the deletion.
    fn cuts(&self, ids: &[u32], range: TimeRange) -> HashMap<u32, Vec<Cut>> {
        let mut cuts = HashMap::new();
        for id in ids {
            let chunks = self.table.with(*id, |series| series.chunks_cut_by(range)).unwrap_or_default();
            if !chunks.is_empty() {
                cuts.insert(*id, chunks.into_iter().map(|chunk| Cut::new(chunk, range)).collect());
            }
        }
        cuts
    }

    /// The oldest range of `block_ms` (aligned; both ends included) when in-order samples span more than one and a half of
    /// it: then the range gets no more of them. [`Shared::freeze`] to `max + 1` makes sure of that.
    pub(crate) fn compactable(&self, block_ms: i64) -> Option<TimeRange> {
        // Older samples may be here while an old view is open; they are in blocks.
        let min = self.in_order_min_time.load(Atomic::Acquire).max(self.views.truncated_to());
        let max = self.max_time.load(Atomic::Acquire);
        if min > max || max.saturating_sub(min) <= block_ms.saturating_add(block_ms / 2) {
            return None;
        }
        Some(aligned(min, block_ms))
    }

    /// Aligned ranges of `block_ms` (both ends included), ascending, that may hold out-of-order samples. Open the view whose
    /// mark will drop them before: it must not see more than these ranges hold.
    pub(crate) fn out_of_order_ranges(&self, block_ms: i64) -> Vec<TimeRange> {
        let mut starts = std::collections::BTreeSet::new();
        let floor = self.views.floor();
        let next_id = self.catalogue.read().next_id();
        let start_of = |t: Timestamp| aligned(t.max(floor), block_ms).min;
        self.table.for_each(next_id, |_, series| {
            let within = |min, max| start_of(min) == start_of(max);
            series.out_of_order_times(within, |t| _ = starts.insert(start_of(t)));
        });
        starts.into_iter().map(|start| aligned(start, block_ms)).collect()
    }

    /// Samples before this time are out of order whatever their series has.
    pub(crate) fn in_order_from(&self) -> Timestamp {
        self.in_order_from.load(Atomic::Acquire)
    }

    /// See [`Shared::freeze`]; under the commit lock, or where nobody commits.
    pub(crate) fn freeze(&self, before: Timestamp) {
        self.in_order_from.fetch_max(before, Atomic::AcqRel);
    }

    /// What was taken from the head so far.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            in_order_from: self.in_order_from(),
            truncated_to: self.views.truncated_to(),
            late_through: self.late_through.load(Atomic::Acquire),
        }
    }

    /// Sets what an earlier process had taken, where nobody reads yet.
    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        self.freeze(bounds.in_order_from);
        let truncated = bounds.truncated_to > self.views.truncated_to();
        let late = bounds.late_through > self.late_through.load(Atomic::Acquire);
        if late {
            self.note_late_drop(OutOfOrderMark { commit: bounds.late_through });
        }
        if truncated {
            self.views.raise_in_order_floor(bounds.truncated_to);
        }
        if truncated || late {
            self.trim(|_, _| {});
        }
    }

    fn note_late_drop(&self, mark: OutOfOrderMark) {
        self.late_through.fetch_max(mark.commit, Atomic::AcqRel);
        self.late_drops.lock().push((self.views.stamp(), mark));
    }

    /// Reads what `view` sees of `range`.
    pub(crate) fn scan<'a>(&'a self, view: &'a View, range: TimeRange, part: HeadPart) -> HeadScan<'a> {
        let next_id = self.catalogue.read().next_id();
        let mut ids = Vec::new();
        self.table.for_each(next_id, |id, series| {
            if !series.is_unlinked() && series.may_overlap(range) {
                ids.push(id);
            }
        });
        self.sort(&mut ids);
        HeadScan { head: self, view, range, part, ids: ids.into_iter() }
    }

    /// Sorts by labels, with short holds of the catalogue's lock. Series that the view may see keep their labels meanwhile.
    fn sort(&self, ids: &mut Vec<u32>) {
        for batch in ids.chunks_mut(SORT_BATCH) {
            self.catalogue.read().sort_by_labels(batch);
        }
        let mut width = SORT_BATCH;
        let mut merged = Vec::with_capacity(ids.len());
        while width < ids.len() {
            for pair in ids.chunks(width * 2) {
                let (mut a, mut b) = pair.split_at(width.min(pair.len()));
                while let (Some(_), Some(_)) = (a.first(), b.first()) {
                    let catalogue = self.catalogue.read();
                    for _ in 0..SORT_BATCH {
                        let (Some(&x), Some(&y)) = (a.first(), b.first()) else { break };
                        if catalogue.compare(x, y) == Ordering::Greater {
                            merged.push(y);
                            b = &b[1..];
                        } else {
                            merged.push(x);
                            a = &a[1..];
                        }
                    }
                }
                merged.extend_from_slice(a);
                merged.extend_from_slice(b);
            }
            std::mem::swap(ids, &mut merged);
            merged.clear();
            width *= 2;
        }
    }

    /// Drops what no view, open or to come, sees, and shows every series to `look`. Answers the number of chunks dropped.
    pub(crate) fn trim(&self, mut look: impl FnMut(u32, &mut Series)) -> usize {
        let _trimming = self.trimming.lock();
        let floor = self.views.floor();
        let in_order_floor = self.views.in_order_floor();
        let late = {
            let mut drops = self.late_drops.lock();
            let (due, wait): (Vec<_>, Vec<_>) =
                std::mem::take(&mut *drops).into_iter().partition(|(stamp, _)| self.views.all_since(*stamp));
            *drops = wait;
            due.into_iter().map(|(_, mark)| mark.commit).max()
        };
        let (mut dropped, mut min_time, mut in_order_min) = (0, Timestamp::MAX, Timestamp::MAX);
        // Commits that come meanwhile lower it; those before are seen by the walk.
        self.in_order_min_time.store(Timestamp::MAX, Atomic::Release);
        self.min_time_since_trim.store(Timestamp::MAX, Atomic::Release);
        let histories: Vec<Arc<History>> = self.histories.lock().values().cloned().collect();
        dropped += histories.iter().map(|history| history.trim(in_order_floor)).sum::<usize>();
        let next_id = self.catalogue.read().next_id();
        self.table.for_each_mut(next_id, |id, series| {
            dropped += series.trim(floor, in_order_floor);
            if let Some(commit) = late {
                dropped += series.drop_out_of_order(commit);
            }
            min_time = min_time.min(series.min_t());
            in_order_min = in_order_min.min(series.in_order_min().max(in_order_floor));
            look(id, series);
        });
        drop(histories);
        self.histories.lock().retain(|_, history| {
            let state = history.inner.read();
            !state.closed || state.range().is_some()
        });
        self.add_chunks(0, dropped);
        self.saw_in_order(in_order_min);
        if min_time < Timestamp::MAX
            && self.range().is_some_and(|range| range.min < floor.max(in_order_floor))
        {
            // Not earlier than what queries may see.
            self.set_min_time(min_time.max(floor));
        }
        dropped
    }
}

/// The range of `block_ms` that `t` lies in.
fn aligned(t: Timestamp, block_ms: i64) -> TimeRange {
    let start = t.saturating_sub(t.rem_euclid(block_ms));
    TimeRange::new(start, start.saturating_add(block_ms - 1))
}

/// Series after series in order of labels.
#[derive(Debug)]
pub(crate) struct HeadScan<'a> {
    head: &'a Head,
    view: &'a View,
    range: TimeRange,
    part: HeadPart,
    ids: std::vec::IntoIter<u32>,
}

impl HeadScan<'_> {
    /// How many series it has not looked at yet.
    pub(crate) fn left(&self) -> u64 {
        self.ids.len() as u64
    }

    /// The next series that has samples, normalized; false at the end.
    ///
    /// # Errors
    /// When a chunk cannot be read.
    pub(crate) fn next(&mut self, labels: &mut Labels, columns: &mut Columns) -> Result<bool, StorageError> {
        for id in self.ids.by_ref() {
            columns.clear();
            self.head.read_sound(id, self.view, self.range, self.part, columns)?;
            if columns.is_empty() {
                continue;
            }
            columns.normalize();
            let Some(found) = self.head.catalogue.read().labels(id) else { continue };
            *labels = found;
            return Ok(true);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FaultyFs;
    use crate::{Db, DbOptions};
    use model::storage::{
        Append, AppendError, AppendOptions, AppendSample, Queryable, Row, SelectHints, SeriesColumns,
    };
    use std::sync::Arc;

    const HOUR: i64 = 3_600_000;

    fn open() -> Arc<Db> {
        let clock = Arc::new(model::ManualClock::new(0));
        let mut options = DbOptions::new("/data", clock);
        options.out_of_order_window_ms = 10 * HOUR;
        Db::open(options, &prometheus::Registry::new(), Arc::new(FaultyFs::new())).unwrap()
    }

    fn labels(name: &str) -> Labels {
        Labels::from_pairs([("__name__", name)])
    }

    fn append(db: &Db, name: &str, t: i64, v: f64) -> Result<(), AppendError> {
        let mut appender = db.appender(AppendOptions::default());
        appender.append(None, &labels(name), AppendSample::float(t, v))?;
        appender.commit().unwrap();
        Ok(())
    }

    fn times(db: &Db, name: &str) -> Vec<i64> {
        let querier = db.querier(TimeRange::ALL).unwrap();
        let set =
            querier.select(&[model::Matcher::equal("__name__", name)], &SelectHints::default()).unwrap();
        let mut columns = SeriesColumns::default();
        if !set.is_empty() {
            set.read(0, &mut columns).unwrap();
        }
        columns.float_times
    }

    fn scanned(scan: &mut HeadScan<'_>) -> Vec<(String, Vec<i64>)> {
        let (mut labels, mut columns, mut all) = (Labels::empty(), Columns::default(), Vec::new());
        while scan.next(&mut labels, &mut columns).unwrap() {
            all.push((labels.value("__name__").to_owned(), columns.times.clone()));
        }
        all
    }

    /// A range is scanned, late samples come, the range is dropped: the late ones stay until they are dropped by their mark.
    #[test]
    fn what_a_block_has_leaves_the_head_and_nothing_else() {
        let db = open();
        let mut appender = db.appender(AppendOptions::default());
        let layout = appender.open_layout();
        appender.extend_layout(layout, &labels("row")).unwrap();
        for i in 0..19 {
            let outcome = appender.append_row(&Row { layout, t: i * HOUR / 4, values: &[i as f64] });
            assert_eq!(outcome.appended, 1);
        }
        appender.commit().unwrap();
        for t in [10, HOUR, 4 * HOUR] {
            append(&db, "single", t, 1.0).unwrap();
        }
        append(&db, "late", HOUR, 1.0).unwrap();
        append(&db, "late", HOUR - 1, 1.0).unwrap();

        let head = &db.shared.head;
        let range = head.compactable(2 * HOUR).unwrap();
        assert_eq!(range, TimeRange::new(0, 2 * HOUR - 1));
        db.shared.freeze(range.max + 1).unwrap();
        let view = head.views.open();
        append(&db, "late", HOUR + 1, 1.0).unwrap();
        append(&db, "later", HOUR, 1.0).unwrap();
        let mut scan = head.scan(&view, range, HeadPart::InOrder);
        let rows: Vec<i64> = (0..8).map(|i| i * HOUR / 4).collect();
        let want = [("late", vec![HOUR]), ("row", rows.clone()), ("single", vec![10, HOUR])];
        assert_eq!(scanned(&mut scan), want.map(|(name, times)| (name.to_owned(), times)));
        assert_eq!(head.out_of_order_ranges(2 * HOUR), [range]);
        let mut scan = head.scan(&view, range, HeadPart::OutOfOrder);
        assert_eq!(scanned(&mut scan), [("late".to_owned(), vec![HOUR - 1])]);
        let mark = view.out_of_order_mark();

        let old = db.querier(TimeRange::ALL).unwrap();
        db.shared.truncate(range.max + 1);
        assert_eq!(times(&db, "single"), [4 * HOUR]);
        assert_eq!(times(&db, "row"), (8..19).map(|i| i * HOUR / 4).collect::<Vec<_>>());
        assert_eq!(times(&db, "late"), [HOUR - 1, HOUR + 1]);
        db.shared.drop_out_of_order(mark);
        let set = old.select(&[model::Matcher::equal("__name__", "late")], &SelectHints::default()).unwrap();
        let mut columns = SeriesColumns::default();
        set.read(0, &mut columns).unwrap();
        assert_eq!(columns.float_times, [HOUR - 1, HOUR, HOUR + 1], "a view that was open keeps what it saw");
        drop((set, old, view));
        db.shared.truncate(range.max + 1);
        assert_eq!(times(&db, "late"), [HOUR + 1]);
        assert_eq!(times(&db, "later"), [HOUR]);
        assert_eq!(append(&db, "later", HOUR, 2.0), Err(AppendError::Duplicate));
        assert_eq!(append(&db, "newer", HOUR / 2, 1.0), Ok(()));
        assert_eq!(head.in_order_min_time.load(Atomic::Acquire), 2 * HOUR);
        assert_eq!(head.compactable(2 * HOUR), None);
    }

    /// Rows behind a truncation in the log were lost: replay took the series out of the layout's rows, and never put it back.
    #[test]
    fn rows_behind_a_truncation_are_replayed() {
        let fs = FaultyFs::new();
        let reopen = |fs: &FaultyFs| {
            let options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
            Db::open(options, &prometheus::Registry::new(), Arc::new(fs.clone())).unwrap()
        };
        let db = reopen(&fs);
        let mut layout = None;
        for t in [0, HOUR, 5 * HOUR, 6 * HOUR] {
            if t == 5 * HOUR {
                db.shared.freeze(2 * HOUR).unwrap();
                db.shared.truncate(2 * HOUR);
            }
            let mut appender = db.appender(AppendOptions::default());
            let layout = *layout.get_or_insert_with(|| {
                let layout = appender.open_layout();
                appender.extend_layout(layout, &labels("row")).unwrap();
                layout
            });
            assert_eq!(appender.append_row(&Row { layout, t, values: &[t as f64] }).appended, 1);
            appender.commit().unwrap();
        }
        let want = vec![5 * HOUR, 6 * HOUR];
        assert_eq!(times(&db, "row"), want);
        let db = reopen(&fs.after_kill());
        assert_eq!(times(&db, "row"), want);
        db.maintain(7 * HOUR).unwrap();
        db.checkpoint().unwrap();
        assert_eq!(times(&db, "row"), want);
    }

    /// Deletions hold over restarts, and hide nothing that comes later.
    #[test]
    fn what_is_deleted_stays_away() {
        let mut fs = FaultyFs::new();
        let reopen = |fs: &FaultyFs| {
            let options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
            Db::open(options, &prometheus::Registry::new(), Arc::new(fs.clone())).unwrap()
        };
        let mut db = reopen(&fs);
        for t in 0..10 {
            append(&db, "a", t, 1.0).unwrap();
            append(&db, "b", t, 1.0).unwrap();
        }
        append(&db, "b", 100, 1.0).unwrap();
        let a = vec![model::Matcher::equal("__name__", "a")];
        db.shared.delete(TimeRange::new(3, 4), std::slice::from_ref(&a)).unwrap();
        db.shared.delete(TimeRange::new(8, 50), &[a]).unwrap();
        append(&db, "a", 20, 1.0).unwrap();
        for what in ["live", "from the log", "from a checkpoint"] {
            assert_eq!(times(&db, "a"), [0, 1, 2, 5, 6, 7, 20], "{what}");
            assert_eq!(times(&db, "b").len(), 11, "{what}");
            if what == "from the log" {
                db.checkpoint().unwrap();
            }
            fs = fs.after_kill();
            db = reopen(&fs);
        }
    }

    /// Samples that cannot be decoded cannot be deleted, and nobody is told that they were.
    #[test]
    fn a_deletion_names_chunks_that_it_does_not_reach() {
        let db = open();
        append(&db, "a", HOUR, 1.0).unwrap();
        for t in 0..200 {
            append(&db, "a", t, 1.0).unwrap();
        }
        let id = db.shared.head.catalogue.read().find(&labels("a")).unwrap();
        let damage = |bytes: &[u8]| {
            let change = |series: &mut Series| {
                let chunk = &mut series.rare_mut().out_of_order_chunks[0].chunk;
                std::mem::replace(&mut chunk.bytes, bytes.into())
            };
            db.shared.head.table.with_mut(id, change).unwrap()
        };
        let sound = damage(&[0xff; 9]);
        let a = [vec![model::Matcher::equal("__name__", "a")]];
        let error = db.shared.delete(TimeRange::new(100, 2 * HOUR), &a).unwrap_err().to_string();
        assert!(error.contains("1 out-of-order chunk"), "{error}");
        damage(&sound);
        let rest = times(&db, "a");
        assert!(!rest.contains(&HOUR) && !rest.contains(&199), "what can be read is deleted: {rest:?}");
        db.shared.delete(TimeRange::new(100, 2 * HOUR), &a).unwrap();
        assert_eq!(times(&db, "a"), (0..100).collect::<Vec<_>>());
    }

    /// Chunks that a deletion cuts are decoded before it takes locks; what has changed by then is decoded once more.
    #[test]
    fn a_deletion_decodes_nothing_under_locks() {
        let db = open();
        append(&db, "a", HOUR, 1.0).unwrap();
        for t in 0..800 {
            append(&db, "a", t, 1.0).unwrap();
        }
        let head = &db.shared.head;
        let id = head.catalogue.read().find(&labels("a")).unwrap();
        let mut before = Vec::new();
        head.table
            .with(id, |series| series.out_of_order_spans(|min, max| before.push(TimeRange::new(min, max))));
        before.retain(|range| range.min < range.max);
        assert!(before.len() > 3, "{before:?}");
        let delete = |range, cuts: &HashMap<u32, Vec<Cut>>| {
            let cuts = cuts.get(&id).map_or(&[][..], Vec::as_slice);
            head.table.with_mut(id, |series| series.delete(range, cuts)).unwrap()
        };
        // From the middle of one chunk to the middle of another.
        let middle = |range: &TimeRange| (range.min + range.max) / 2;
        let range = TimeRange::new(middle(&before[0]), middle(&before[2]));
        let cuts = head.cuts(&[id, 77], range);
        assert_eq!((cuts.len(), cuts[&id].len()), (1, 2));
        let dropped = delete(range, &cuts);
        assert_eq!((dropped.chunks, dropped.unreadable, dropped.decoded), (1, 0, 0));
        let all: Vec<i64> = (0..800).filter(|t| !range.contains(*t)).chain([HOUR]).collect();
        assert_eq!(times(&db, "a"), all);

        // Chunks have changed since: what was made of them says nothing.
        let range = TimeRange::new(range.min - 3, range.min - 2);
        let stale = head.cuts(&[id], range);
        assert_eq!(delete(TimeRange::new(range.min - 1, range.max), &stale).decoded, 1, "another range");
        assert_eq!(delete(range, &stale).decoded, 1, "another chunk");
        assert_eq!(delete(TimeRange::new(i64::MIN, i64::MAX), &HashMap::new()).decoded, 0, "whole chunks");
        assert_eq!(times(&db, "a"), [0i64; 0]);
    }

    /// A late sample that is committed behind the walk of a trim stays within the range of the head.
    #[test]
    fn the_range_of_the_head_keeps_what_comes_during_a_trim() {
        let db = open();
        append(&db, "old", 0, 1.0).unwrap();
        let mut appender = db.appender(AppendOptions::default());
        for i in 1..300 {
            appender.append(None, &labels(&format!("m{i}")), AppendSample::float(4 * HOUR, 1.0)).unwrap();
        }
        appender.commit().unwrap();
        let head = &db.shared.head;
        db.shared.freeze(2 * HOUR).unwrap();
        head.views.raise_in_order_floor(2 * HOUR);
        head.trim(|id, _| {
            // The walk has passed the page of this series.
            if id == 299 {
                append(&db, "m1", HOUR, 2.0).unwrap();
            }
        });
        assert_eq!(head.range(), Some(TimeRange::new(HOUR, 4 * HOUR)));
    }

    /// A bad sector holds compaction up for some tries and not for ever; queries are told of it each time.
    #[test]
    fn what_cannot_be_read_again_and_again_is_left_out() {
        use crate::fs::{Fault, FaultKind};
        let fs = FaultyFs::new();
        let options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
        let db = Db::open(options, &prometheus::Registry::new(), Arc::new(fs.clone())).unwrap();
        for t in 0..130 {
            append(&db, "a", t, 1.0).unwrap();
        }
        db.maintain(0).unwrap();
        fs.fail_reads_at(Some(Fault { at: fs.reads(), times: u64::MAX, kind: FaultKind::Io }));
        let view = db.shared.head.views.open();
        let read = |columns: &mut Columns| {
            let mut scan = db.shared.head.scan(&view, TimeRange::ALL, HeadPart::InOrder);
            scan.next(&mut Labels::empty(), columns)
        };
        let mut columns = Columns::default();
        for _ in 0..5 {
            assert!(read(&mut columns).is_err());
        }
        assert!(read(&mut columns).unwrap());
        assert_eq!(columns.times, (120..130).collect::<Vec<_>>());
        assert_eq!(db.metrics.head_chunks_damaged.get(), 1);
        columns.clear();
        assert!(db.shared.head.read(0, &view, TimeRange::ALL, HeadPart::All, &mut columns).is_err());
    }

    #[test]
    fn many_series_come_in_order_of_labels() {
        let db = open();
        let mut appender = db.appender(AppendOptions::default());
        let mut names: Vec<String> =
            (0..20_000u32).map(|i| format!("m{}", i.wrapping_mul(2_654_435_761) % 1_000_003)).collect();
        for name in &names {
            appender.append(None, &labels(name), AppendSample::float(5, 1.0)).unwrap();
        }
        appender.commit().unwrap();
        names.sort_unstable();
        names.dedup();
        let view = db.shared.head.views.open();
        let mut scan = db.shared.head.scan(&view, TimeRange::ALL, HeadPart::All);
        let got: Vec<String> = scanned(&mut scan).into_iter().map(|(name, _)| name).collect();
        assert_eq!(got, names);
    }
}
