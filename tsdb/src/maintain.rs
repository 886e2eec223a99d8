//! Upkeep: what the owner of the store calls every few seconds, on a thread that may block.
//!
//! In this order: sync the log when its interval is over; drop chunks that retention has passed; take series that are
//! empty and of no interest to anybody; move sealed chunks to files; write a checkpoint when the log has grown enough. The store has no thread and no
//! timer of its own.

use std::sync::Arc;

use model::sample::Timestamp;
use model::storage::StorageError;

use crate::checkpoint::{self, checkpoint_name, checkpoint_number};
use crate::chunk::CHUNK_SPAN_MAX_MS;
use crate::db::{Db, millis};
use crate::head::history::History;
use crate::wal::replay::free_corrupt_path;
use crate::wal::{segment_number, timed};

/// How often old chunks and empty series are looked for: a walk over all series.
const SWEEP_INTERVAL_MS: i64 = 60 * 1000;
/// Series that are taken from the catalogue under one hold of its lock.
const UNLINK_BATCH: usize = 1000;

/// What upkeep remembers from call to call.
#[derive(Debug)]
pub(crate) struct Upkeep {
    last_sync: Option<Timestamp>,
    last_sweep: Option<Timestamp>,
    /// Writers older than this may hold series that the last sweep found empty.
    swept_at: Option<u64>,
    /// Series out of the catalogue, to be freed when all views opened before the stamp are closed.
    unlinked: Vec<(u64, Vec<u32>)>,
    /// Size of the newest checkpoint.
    checkpoint_bytes: u64,
    /// Checkpoints that are damaged, to be kept aside when there is a new one.
    damaged: Vec<u64>,
    /// Bytes of log that a failed checkpoint waits for.
    retry_at_bytes: u64,
    /// What the head was truncated to at the newest checkpoint.
    truncated_to: Timestamp,
}

impl Upkeep {
    pub(crate) fn new(checkpoint_bytes: u64, damaged: Vec<u64>, truncated_to: Timestamp) -> Self {
        Self {
            last_sync: None,
            last_sweep: None,
            swept_at: None,
            unlinked: Vec::new(),
            checkpoint_bytes,
            damaged,
            retry_at_bytes: 0,
            truncated_to,
        }
    }
}

/// Whether what was done last at `last` is to be done again.
pub(crate) fn is_due(last: Option<Timestamp>, now: Timestamp, interval_ms: i64) -> bool {
    // A clock that jumped back makes it due as well: better once too often.
    last.is_none_or(|last| now < last || now.saturating_sub(last) >= interval_ms)
}

impl Db {
    /// Does what is due at `now` (milliseconds since the epoch). Call it every few seconds, from a blocking thread; calls
    /// of several threads wait for each other.
    ///
    /// # Errors
    /// When a checkpoint could not be written: nothing is lost, the log goes on growing, and it is tried again.
    pub fn maintain(&self, now: Timestamp) -> Result<(), StorageError> {
        let mut upkeep = self.upkeep.lock();
        {
            let mut wal = self.shared.committer.wal.lock();
            if wal.closed {
                return Ok(());
            }
            wal.cut_refused();
        }
        if is_due(upkeep.last_sync, now, millis(self.options.wal_fsync_interval)) {
            upkeep.last_sync = Some(now);
            self.sync();
        }
        if is_due(upkeep.last_sweep, now, SWEEP_INTERVAL_MS) {
            upkeep.last_sweep = Some(now);
            let start = self.clock.now_ms();
            self.sweep(&mut upkeep, now);
            let took = self.clock.now_ms().saturating_sub(start).max(0);
            self.metrics.gc_duration.observe(took as f64 / 1000.0);
        }
        if let Err(error) = self.shared.tell_log_again() {
            tracing::debug!(%error, "log could not be told what is in blocks");
        }
        if let Err(error) = self.shared.head.flush() {
            // Memory and the log have it all.
            tracing::warn!(%error, "sealed chunks could not be written: they stay in memory");
        }
        let wal = self.shared.committer.wal.lock();
        let (bytes, sync_failed) = (wal.bytes_since_checkpoint, wal.sync_failed);
        drop(wal);
        let enough = self.options.checkpoint_bytes.max(upkeep.checkpoint_bytes).max(upkeep.retry_at_bytes);
        // After a truncation the log is of no use, nor are head chunk files.
        let truncated = self.shared.head.views.truncated_to() > upkeep.truncated_to;
        let urgent =
            (sync_failed || truncated || !upkeep.damaged.is_empty()) && bytes >= upkeep.retry_at_bytes;
        if bytes >= enough || urgent { self.write_checkpoint(&mut upkeep) } else { Ok(()) }
    }

    /// Writes a checkpoint now.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn checkpoint(&self) -> Result<(), StorageError> {
        let mut upkeep = self.upkeep.lock();
        if self.shared.committer.wal.lock().closed {
            return Err(StorageError::NotReady("it is closed"));
        }
        self.write_checkpoint(&mut upkeep)
    }

    /// Syncs the log; whether that worked.
    fn sync(&self) -> bool {
        let syncer = self.shared.committer.wal.lock().begin_sync();
        let Some(syncer) = syncer else { return true };
        // Commits go on meanwhile.
        let result = timed(&*self.clock, &self.metrics, syncer);
        let synced = result.is_ok();
        self.shared.committer.wal.lock().synced(result);
        synced
    }

    fn write_checkpoint(&self, upkeep: &mut Upkeep) -> Result<(), StorageError> {
        self.metrics.checkpoints.inc();
        let head = &self.shared.head;
        // What cannot be moved to files goes into the checkpoint.
        let _ = head.flush();
        let truncated_to = head.views.truncated_to();
        let (number, commit, before, sync_failed) = {
            let mut wal = self.shared.committer.wal.lock();
            let number = wal.rotate();
            // Within the lock: all commits of older segments and none of the new one.
            // A failure from here on may be one of the new segment, which this checkpoint does not cover.
            let sync_failed = std::mem::take(&mut wal.sync_failed);
            (number, head.views.published(), wal.bytes_since_checkpoint, sync_failed)
        };
        // The closed segment, and the new one's name: commits go on meanwhile.
        self.sync();
        let sync = || match self.sync() {
            true => Ok(()),
            false => Err(StorageError::Io {
                what: "sync the log behind a checkpoint",
                path: self.wal_dir.clone(),
                source: std::io::Error::other("see the log"),
            }),
        };
        let written = number.and_then(|number| {
            let saved = checkpoint::write(&*self.fs, &self.options.dir, number, commit, head, sync)?;
            Ok((number, saved))
        });
        let (number, saved) = match written {
            Ok(written) => written,
            Err(error) => {
                self.metrics.checkpoints_failed.inc();
                self.shared.committer.wal.lock().sync_failed |= sync_failed;
                upkeep.retry_at_bytes = before.saturating_add(self.options.checkpoint_bytes / 4).max(1);
                return Err(error);
            }
        };
        let mut wal = self.shared.committer.wal.lock();
        wal.bytes_since_checkpoint = wal.bytes_since_checkpoint.saturating_sub(before);
        drop(wal);
        self.remove_segments_before(number);
        self.remove_checkpoints_before(number, &std::mem::take(&mut upkeep.damaged));
        head.files.retain(&saved.files);
        upkeep.checkpoint_bytes = saved.bytes;
        upkeep.retry_at_bytes = 0;
        upkeep.truncated_to = truncated_to;
        tracing::info!(number, bytes = saved.bytes, "checkpoint written");
        Ok(())
    }

    /// Removes the segments that a checkpoint covers.
    fn remove_segments_before(&self, number: u64) {
        let names = self.fs.list(&self.wal_dir).unwrap_or_default();
        for name in names.iter().filter(|name| segment_number(name).is_some_and(|other| other < number)) {
            if let Err(error) = self.fs.remove(&self.wal_dir.join(name)) {
                tracing::warn!(segment = name, %error, "covered log segment could not be removed");
                self.metrics.wal_truncations_failed.inc();
            }
        }
        self.shared.committer.wal.lock().removed_before(number);
    }

    /// Removes older checkpoints; damaged ones are kept aside instead.
    fn remove_checkpoints_before(&self, number: u64, damaged: &[u64]) {
        let names = self.fs.list(&self.options.dir).unwrap_or_default();
        for older in names.iter().filter_map(|name| checkpoint_number(name)).filter(|other| *other < number) {
            let path = self.options.dir.join(checkpoint_name(older));
            let gone = if damaged.contains(&older) {
                self.fs.rename(&path, &free_corrupt_path(&*self.fs, &path))
            } else {
                self.fs.remove(&path)
            };
            if let Err(error) = gone {
                tracing::warn!(path = %path.display(), %error, "older checkpoint could not be removed");
            }
        }
    }

    /// Drops what retention has passed, and series of which nothing is left.
    fn sweep(&self, upkeep: &mut Upkeep, now: Timestamp) {
        let head = &self.shared.head;
        let retention = millis(self.retention().longest());
        let newest = head.range().map(|range| range.max);
        if retention > 0
            && let Some(newest) = newest
        {
            // Neither a clock that jumped ahead nor samples from the future drop anything.
            head.views.raise_floor(newest.min(now).saturating_sub(retention));
        }
        self.seal_idle_windows(newest);
        let settled = upkeep.swept_at.is_some_and(|stamp| head.writers.all_since(stamp));
        let mut empty = Vec::new();
        let dropped = head.trim(|id, series| {
            if series.is_empty() && !series.is_unlinked() && series.mark_idle() && settled {
                empty.push(id);
            }
        });
        // After the walk: whoever looked a series up before the walk found it empty is older than this, and is waited for.
        upkeep.swept_at = Some(head.writers.stamp());
        if dropped > 0 {
            self.metrics.time_retentions.inc();
        }
        self.unlink(upkeep, &empty);
        self.free(upkeep);
        self.metrics.symbol_table_bytes.set(head.catalogue.read().symbols_bytes().cast_signed());
    }

    /// Rows that came to a stop are sealed, so that retention can drop them.
    fn seal_idle_windows(&self, newest: Option<Timestamp>) {
        let Some(newest) = newest else { return };
        let head = &self.shared.head;
        let histories: Vec<_> = head.histories.lock().values().cloned().collect();
        for history in histories {
            let left = {
                let state = history.inner.read();
                state.closed && !state.rows.is_empty()
            };
            if left {
                let _commits = self.shared.committer.wal.lock();
                head.seal_closed(&history, head.views.watermark());
            }
        }
        let layouts: Vec<_> = head.layouts.read().values().cloned().collect();
        let is_idle = |history: &History| {
            let idle = history.inner.read().rows.range();
            idle.is_some_and(|(_, last)| newest.saturating_sub(last) >= CHUNK_SPAN_MAX_MS)
        };
        for layout in layouts {
            if !is_idle(&layout.state.lock().history) {
                continue;
            }
            // For each anew: commits wait for the encoding of one window and not of all.
            let _commits = self.shared.committer.wal.lock();
            let mut state = layout.state.lock();
            if is_idle(&state.history) {
                head.seal(&mut state, head.views.watermark());
            }
        }
    }

    fn unlink(&self, upkeep: &mut Upkeep, empty: &[u32]) {
        // Commits and look-ups wait for a part of them and not for all.
        for batch in empty.chunks(UNLINK_BATCH) {
            self.unlink_some(upkeep, batch);
        }
        if !empty.is_empty() {
            let head = &self.shared.head;
            let catalogue = head.catalogue.read();
            head.metadata.write().retain(|metric, _| catalogue.has_metric(metric));
        }
    }

    fn unlink_some(&self, upkeep: &mut Upkeep, empty: &[u32]) {
        let head = &self.shared.head;
        // The commit lock keeps samples away, the catalogue's lock look-ups.
        let _commits = self.shared.committer.wal.lock();
        let mut catalogue = head.catalogue.write();
        let mut gone = Vec::new();
        for &id in empty {
            let taken = head.table.with_mut(id, |series| {
                let free = series.is_idle() && series.is_empty();
                if free {
                    series.set_unlinked();
                }
                free
            });
            if taken == Some(true) {
                catalogue.unlink(id);
                gone.push(id);
            }
        }
        self.metrics.series_removed.inc_by(gone.len() as u64);
        head.count_series(&catalogue);
        drop(catalogue);
        if !gone.is_empty() {
            upkeep.unlinked.push((head.views.stamp(), gone));
        }
    }

    fn free(&self, upkeep: &mut Upkeep) {
        let head = &self.shared.head;
        let ready = |stamp: u64| head.views.all_since(stamp);
        let (free, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut upkeep.unlinked).into_iter().partition(|(stamp, _)| ready(*stamp));
        upkeep.unlinked = wait;
        for (_, ids) in free {
            // No more than a batch of `unlink`.
            let mut catalogue = head.catalogue.write();
            let next_id = catalogue.next_id();
            for id in ids {
                catalogue.forget(id);
                head.table.remove(id, next_id);
            }
        }
    }
}

/// Shared state may be sent to and used from any thread.
const _: fn() = || {
    fn check<T: Send + Sync>() {}
    check::<Arc<Db>>();
};

#[cfg(test)]
mod tests {
    use model::labels::Labels;
    use model::matcher::Matcher;
    use model::sample::TimeRange;
    use model::storage::{
        Append, AppendOptions, AppendSample, Appender, LayoutRef, Queryable, Row, SelectHints, SeriesColumns,
        StorageAdmin,
    };

    use super::*;
    use crate::DbOptions;
    use crate::fs::{Fault, FaultKind, FaultyFs};

    const HOUR: i64 = 3_600_000;

    fn open(fs: &FaultyFs) -> Arc<Db> {
        let mut options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
        options.retention = std::time::Duration::ZERO;
        Db::open(options, &prometheus::Registry::new(), Arc::new(fs.clone())).unwrap()
    }

    fn labels(name: &str) -> Labels {
        Labels::from_pairs([("__name__", name)])
    }

    fn appender(db: &Db) -> Box<dyn Appender> {
        db.appender(AppendOptions::default())
    }

    fn append(db: &Db, name: &str, t: i64) {
        let mut appender = appender(db);
        appender.append(None, &labels(name), AppendSample::float(t, 1.0)).unwrap();
        appender.commit().unwrap();
    }

    fn times(db: &Db, name: &str) -> Vec<i64> {
        let querier = db.querier(TimeRange::ALL).unwrap();
        let set = querier.select(&[Matcher::equal("__name__", name)], &SelectHints::default()).unwrap();
        let mut columns = SeriesColumns::default();
        if !set.is_empty() {
            set.read(0, &mut columns).unwrap();
        }
        columns.float_times
    }

    fn sweep(db: &Db) {
        db.sweep(&mut db.upkeep.lock(), 0);
    }

    /// A transaction that opens within a sweep, before the walk comes to its series, is waited for.
    #[test]
    fn series_are_not_taken_from_under_a_transaction_that_opened_within_a_sweep() {
        let fs = FaultyFs::new();
        let db = open(&fs);
        let mut before = appender(&db);
        before.append(None, &labels("x"), AppendSample::float(1, 1.0)).unwrap();
        before.rollback();
        sweep(&db);
        let mut transaction = std::thread::scope(|scope| {
            // The walk waits here.
            let histories = db.shared.head.histories.lock();
            let sweeping = scope.spawn(|| sweep(&db));
            while !db.shared.head.is_trimming() {
                std::thread::yield_now();
            }
            let mut transaction = appender(&db);
            transaction.append(None, &labels("x"), AppendSample::float(2, 1.0)).unwrap();
            drop(histories);
            sweeping.join().unwrap();
            transaction
        });
        sweep(&db);
        sweep(&db);
        assert!(db.series_labels(model::storage::SeriesRef(0)).is_some());
        transaction.append(None, &labels("y"), AppendSample::float(2, 1.0)).unwrap();
        transaction.commit().unwrap();
        assert_eq!(times(&db, "x"), [2]);
        drop(db);
        assert_eq!(times(&open(&fs.after_kill()), "x"), [2]);
    }

    fn layout_of(db: &Db, name: &str) -> LayoutRef {
        let mut appender = appender(db);
        let layout = appender.open_layout();
        appender.extend_layout(layout, &labels(name)).unwrap();
        appender.commit().unwrap();
        layout
    }

    /// A layout is closed while another transaction has rows for it: with rows before, and without.
    #[test]
    fn rows_into_a_closed_layout_are_stored() {
        for rows_before in [false, true] {
            let fs = FaultyFs::new();
            let db = open(&fs);
            let layout = layout_of(&db, "x");
            let mut want = Vec::new();
            if rows_before {
                let mut appender = appender(&db);
                assert_eq!(appender.append_row(&Row { layout, t: 5, values: &[1.0] }).appended, 1);
                appender.commit().unwrap();
                want.push(5);
            }
            let mut late = appender(&db);
            assert_eq!(late.append_row(&Row { layout, t: 10, values: &[1.0] }).appended, 1);
            let mut closing = appender(&db);
            closing.close_layout(layout);
            closing.commit().unwrap();
            // Sealed, and taken from the histories if it is empty.
            sweep(&db);
            late.commit().unwrap();
            want.push(10);
            sweep(&db);
            assert_eq!(times(&db, "x"), want);
            db.checkpoint().unwrap();
            assert_eq!(times(&db, "x"), want);
            drop(db);
            assert_eq!(times(&open(&fs.after_kill()), "x"), want, "rows before: {rows_before}");
        }
    }

    /// The log is full when it should be told what is in blocks: a deletion is refused until it is, and what is deleted does
    /// not come back with the log.
    #[test]
    fn deletions_wait_for_the_log_to_know_what_is_in_blocks() {
        let fs = FaultyFs::new();
        let db = open(&fs);
        for t in [0, HOUR, 4 * HOUR] {
            append(&db, "x", t);
        }
        db.shared.freeze(2 * HOUR).unwrap();
        fs.fail_at(Some(Fault { at: fs.operations(), times: u64::MAX, kind: FaultKind::NoSpace }));
        db.shared.truncate(2 * HOUR);
        assert_eq!(times(&db, "x"), [4 * HOUR]);
        let all = [vec![Matcher::equal("__name__", "x")]];
        let deleted = TimeRange::new(0, 2 * HOUR);
        assert!(db.delete_series(deleted, &all).is_err());
        fs.fail_at(None);
        db.delete_series(deleted, &all).unwrap();
        drop(db);
        assert_eq!(times(&open(&fs.after_kill()), "x"), [4 * HOUR]);
    }

    /// Many empty series at once go in parts.
    #[test]
    fn all_of_many_empty_series_go() {
        let fs = FaultyFs::new();
        let db = open(&fs);
        let mut gone = appender(&db);
        for i in 0..2 * UNLINK_BATCH + 1 {
            gone.append(None, &labels(&format!("m{i}")), AppendSample::float(1, 1.0)).unwrap();
        }
        gone.rollback();
        for _ in 0..3 {
            sweep(&db);
        }
        assert_eq!(db.shared.head.catalogue.read().len(), 0);
        assert!(db.upkeep.lock().unlinked.is_empty());
        assert_eq!(db.metrics.series_removed.get(), 2 * UNLINK_BATCH as u64 + 1);
    }
}
