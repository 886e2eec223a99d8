//! The checks of a transaction: done when a sample is given, to tell the caller, and again at the commit, to be sure.
//!
//! Rows are checked as a whole where that is possible: a slot that its layout owns and that had a value in the last row
//! needs no look at its series. Floats that come in order of series (or are brought into it) are *plain*: they need no look at
//! what is pending, and no note of it. Transactions that write the same series by rows and sample by sample, or in any
//! other order, pay for it: see [`Checker::mix`] and [`Checker::spill`].

use std::sync::Arc;

use hashbrown::HashMap;
use model::sample::Timestamp;
use model::storage::{ABSENT_BITS, AppendError, LayoutSlot};

use crate::head::Head;
use crate::head::layout::{Layout, LayoutState};
use crate::head::series::{Series, Stored};
use crate::head::validate::{Limits, Pending, Verdict};
use crate::wal::record::FloatSample;

/// Layout, time, first slot, values.
type RowOf = (Arc<Layout>, Timestamp, u32, Arc<[u64]>);

/// What a transaction has been given so far, as far as later samples of it are concerned.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) pending: Pending,
    /// With the first slot.
    rows: Vec<RowOf>,
    /// Pending rows by layout.
    newest_row: HashMap<u64, Vec<PendingRow>>,
    /// See [`Checker::first`].
    loads: bool,
    /// Whether rows are in `pending` too.
    mixed: bool,
    /// The last series of the plain floats, which ascend and are not in `pending`.
    plain_to: Option<u32>,
}

/// What is left of a run of floats after a check.
#[derive(Debug, Default)]
pub(crate) struct FloatCheck {
    /// Indexes of samples that are stored already, or refused: ascending.
    pub(crate) dropped: Vec<usize>,
    /// Indexes of samples that were refused, and why.
    pub(crate) refused: Vec<(usize, AppendError)>,
}

/// What became of a row.
#[derive(Debug, Default)]
pub(crate) struct RowCheck {
    /// The first slot of the row.
    first: usize,
    /// Samples that are stored, or are to be.
    pub(crate) taken: usize,
    pub(crate) refused: Vec<(LayoutSlot, AppendError)>,
    /// Slots that must be absent from the row: refused, known, or among `loose`.
    pub(crate) absent: Vec<usize>,
    /// Slots whose samples are stored already.
    known: Vec<usize>,
    /// Samples that are to be stored on their own.
    pub(crate) loose: Vec<FloatSample>,
}

impl RowCheck {
    fn refuse(&mut self, slot: usize, why: AppendError) {
        self.refused.push((LayoutSlot(u32::try_from(slot).unwrap_or(u32::MAX)), why));
        self.absent.push(slot);
    }

    /// The row without what must be absent.
    pub(crate) fn reduce(&self, row: &Arc<[u64]>) -> Arc<[u64]> {
        self.without(row, self.absent.iter().copied())
    }

    /// The row without what was refused or is stored already, which the commit does not look for once more: in files it would not
    /// find it. What is to be stored on its own stays.
    pub(crate) fn wanted(&self, row: &Arc<[u64]>) -> Arc<[u64]> {
        let refused = self.refused.iter().map(|(slot, _)| slot.0 as usize);
        self.without(row, refused.chain(self.known.iter().copied()))
    }

    fn without(&self, row: &Arc<[u64]>, slots: impl Iterator<Item = usize>) -> Arc<[u64]> {
        let mut slots = slots.peekable();
        if slots.peek().is_none() {
            return Arc::clone(row);
        }
        let mut reduced = row.to_vec();
        for slot in slots {
            if let Some(value) = slot.checked_sub(self.first).and_then(|index| reduced.get_mut(index)) {
                *value = ABSENT_BITS;
            }
        }
        reduced.into()
    }
}

impl Checker {
    /// One that reads what is in files before it takes locks: for the first check. At the commit what that read is in the cache.
    pub(crate) fn first() -> Self {
        Self { loads: true, ..Self::default() }
    }

    /// Reads what a check of samples at `t` looks at, where that is in files: the check itself holds locks.
    fn load(&self, head: &Head, series: impl Iterator<Item = u32>, t: Timestamp) {
        if !self.loads {
            return;
        }
        for series in series {
            if let Some(filed) = head.table.with(series, |series| series.filed_at(t)).flatten() {
                filed.load();
            }
        }
    }

    /// Whether all that was taken are plain floats, or rows that were sure.
    pub(crate) fn is_plain(&self) -> bool {
        self.pending.is_empty() && !self.mixed
    }

    /// Whether a float of `series` needs no look at what is pending, if the series is plain itself.
    pub(crate) fn is_fresh(&self, series: u32) -> bool {
        self.is_plain() && self.plain_to.is_none_or(|last| series > last)
    }

    /// A plain float of `series`, or many that end there, were taken.
    pub(crate) fn took_plain(&mut self, series: u32) {
        self.plain_to = Some(series);
    }

    /// Whether plain floats must be noted before anything else is checked.
    pub(crate) fn must_spill(&self) -> bool {
        self.plain_to.is_some()
    }

    /// Notes the plain floats, which are all in `samples`.
    pub(crate) fn spill<'a>(&mut self, samples: impl Iterator<Item = &'a FloatSample>) {
        if self.plain_to.take().is_some() {
            for sample in samples {
                self.pending.note(sample.series, sample.t, Stored::Float(sample.bits));
            }
        }
    }

    /// Checks a run of floats again. `before`: all floats of the transaction before it.
    pub(crate) fn floats<'a>(
        &mut self,
        head: &Head,
        run: &'a [FloatSample],
        before: impl Iterator<Item = &'a FloatSample>,
        limits: &Limits,
    ) -> FloatCheck {
        let mut check = FloatCheck::default();
        let Some(last) = run.last() else { return check };
        let ascending = run.is_sorted_by(|a, b| a.series < b.series);
        let mut careful: Vec<usize> = Vec::new();
        if ascending && self.is_fresh(run[0].series) {
            head.table.with_each(run.iter().map(|sample| sample.series), |index, series| {
                let sample = &run[index];
                let last = series.and_then(|series| series.plain_last().ok());
                match last.and_then(|last| limits.plain(last, sample.t, sample.bits)) {
                    Some(Verdict::Store { .. }) => {}
                    Some(Verdict::Known) => check.dropped.push(index),
                    None => careful.push(index),
                }
            });
            if careful.is_empty() {
                self.took_plain(last.series);
                return check;
            }
            // A series occurs once: what was taken here does not matter to the rest, but to what comes later.
            self.took_plain(last.series);
            let dropped = |index: &usize| check.dropped.binary_search(index).is_ok();
            let taken =
                (0..run.len()).filter(|index| !dropped(index) && careful.binary_search(index).is_err());
            self.spill(before.chain(taken.map(|index| &run[index])));
        } else {
            self.spill(before);
            careful.extend(0..run.len());
        }
        for index in careful {
            let sample = &run[index];
            match self.sample(head, sample.series, sample.t, &Stored::Float(sample.bits), limits) {
                Ok(Verdict::Store { .. }) => continue,
                Ok(Verdict::Known) => {}
                Err(why) => check.refused.push((index, why)),
            }
            check.dropped.push(index);
        }
        check.dropped.sort_unstable();
        check
    }

    /// Checks a sample that comes alone. Plain floats were spilled.
    pub(crate) fn sample(
        &mut self,
        head: &Head,
        series: u32,
        t: Timestamp,
        value: &Stored,
        limits: &Limits,
    ) -> Result<Verdict, AppendError> {
        if !self.mixed && !self.rows.is_empty() {
            let owned = head.table.with(series, |series| series.history().is_some());
            if owned.ok_or(AppendError::UnknownSeries)? {
                self.mix();
            }
        }
        self.load(head, std::iter::once(series), t);
        let pending = &mut self.pending;
        let mut owned = false;
        let verdict = head.table.with(series, |stored| {
            owned = stored.history().is_some();
            pending.admit(series, stored, t, value, limits)
        });
        // From now on rows must look at what is pending.
        self.mixed |= owned;
        verdict.ok_or(AppendError::UnknownSeries)?
    }

    /// Notes all samples of pending rows one by one.
    fn mix(&mut self) {
        for (layout, t, first, row) in self.rows.drain(..) {
            let state = layout.state.lock();
            let slots = state.slots.iter().skip(first as usize);
            for (series, bits) in slots.zip(&*row).filter(|(_, bits)| **bits != ABSENT_BITS) {
                self.pending.note(*series, t, Stored::Float(*bits));
            }
        }
        self.mixed = true;
    }

    /// Checks a row, of all slots or of those from `from` on. Plain floats were spilled. The caller passes the layout's state
    /// lock by not holding it.
    pub(crate) fn row(
        &mut self,
        head: &Head,
        layout: &Arc<Layout>,
        t: Timestamp,
        from: Option<u32>,
        row: &Arc<[u64]>,
        limits: &Limits,
    ) -> RowCheck {
        if self.loads {
            let late: Vec<u32> = {
                let state = layout.state.lock();
                let (first, end) = state.covers(from, row.len());
                let slots = if t > state.newest(first, end) { &[] } else { state.slots.as_slice() };
                let values = slots.iter().skip(first as usize).zip(&**row);
                values.filter(|(_, bits)| **bits != ABSENT_BITS).map(|(series, _)| *series).collect()
            };
            self.load(head, late.into_iter(), t);
        }
        let state = layout.state.lock();
        let (first, end) = state.covers(from, row.len());
        let covers = PendingRow { t, from: first, to: end };
        let pending =
            self.newest_row.get(&layout.id).is_some_and(|rows| rows.iter().any(|row| !covers.follows(row)));
        // A layout that was closed after the row was appended gets no more rows: nobody would keep its history. What is in
        // the row is stored sample by sample.
        let goes_on =
            !pending && !state.is_closed() && t > state.newest(first, end) && t >= limits.in_order_from;
        let sure_slots = state.sure(first, end);
        let sure_slot = |slot: usize| {
            let word = (slot / 64).checked_sub(first as usize / 64).and_then(|index| sure_slots.get(index));
            word.is_some_and(|word| word >> (slot % 64) & 1 == 1)
        };
        let values = || (first as usize..).zip(&**row).filter(|(_, bits)| **bits != ABSENT_BITS);
        // Samples of a row that does not go on are pending one by one, and rows behind it must look at them.
        if !self.mixed
            && (!goes_on
                || owned_elsewhere(
                    head,
                    &state,
                    values().map(|value| value.0).filter(|slot| !sure_slot(*slot)),
                ))
        {
            drop(state);
            self.mix();
            return self.row(head, layout, t, from, row, limits);
        }
        let in_bounds = t <= limits.max_time
            && (t >= limits.min_valid || limits.out_of_order_from.is_some_and(|from| t >= from));
        let sure = goes_on && in_bounds && !self.mixed;
        let mut check = RowCheck { first: first as usize, ..RowCheck::default() };
        for (slot, &bits) in values() {
            if sure && sure_slot(slot) {
                check.taken += 1;
                continue;
            }
            let Some(&series) = state.slots.get(slot).filter(|_| !state.is_retired(slot)) else {
                check.refuse(slot, AppendError::UnknownSeries);
                continue;
            };
            let value = Stored::Float(bits);
            let pending = &mut self.pending;
            let verdict = head.table.with(series, |stored| pending.admit(series, stored, t, &value, limits));
            match verdict.unwrap_or(Err(AppendError::UnknownSeries)) {
                Ok(Verdict::Store { in_order }) => {
                    check.taken += 1;
                    if !(in_order && goes_on) {
                        check.absent.push(slot);
                        check.loose.push(FloatSample { series, t, bits, start: 0 });
                    }
                }
                Ok(Verdict::Known) => {
                    check.taken += 1;
                    check.absent.push(slot);
                    check.known.push(slot);
                }
                Err(why) => check.refuse(slot, why),
            }
        }
        drop(state);
        if goes_on {
            self.newest_row.entry(layout.id).or_default().push(covers);
            if !self.mixed {
                self.rows.push((Arc::clone(layout), t, first, check.reduce(row)));
            }
        }
        check
    }
}

/// The slots and the time of a pending row.
#[derive(Clone, Copy, Debug)]
struct PendingRow {
    t: Timestamp,
    from: u32,
    to: u32,
}

impl PendingRow {
    /// Whether it may come after `row`.
    fn follows(&self, row: &Self) -> bool {
        self.t > row.t || self.from >= row.to || row.from >= self.to
    }
}

/// Whether a row writes to series that are joined by another layout, whose own rows would not look at what is pending.
fn owned_elsewhere(head: &Head, state: &LayoutState, mut unsure: impl Iterator<Item = usize>) -> bool {
    unsure.any(|slot| {
        let foreign = |series: &Series| {
            series.history().is_some_and(|(history, _)| !Arc::ptr_eq(history, &state.history))
        };
        state.slots.get(slot).is_some_and(|series| head.table.with(*series, foreign) == Some(true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FaultyFs;
    use crate::{Db, DbOptions};
    use model::labels::Labels;
    use model::storage::{Append, AppendOptions, AppendSample};

    /// What a check looks at under locks is in the cache by then.
    #[test]
    fn files_are_read_before_locks_are_taken() {
        let fs = FaultyFs::new();
        let options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
        let db = Db::open(options, &prometheus::Registry::new(), Arc::new(fs.clone())).unwrap();
        for t in 0..130 {
            let mut appender = db.appender(AppendOptions::default());
            let labels = Labels::from_pairs([("__name__", "a")]);
            appender.append(None, &labels, AppendSample::float(t, 1.0)).unwrap();
            appender.commit().unwrap();
        }
        db.maintain(0).unwrap();
        let head = &db.shared.head;
        Checker::default().load(head, std::iter::once(0), 5);
        Checker::first().load(head, std::iter::once(0), 130);
        let before = fs.reads();
        Checker::first().load(head, std::iter::once(0), 5);
        let loaded = fs.reads();
        assert!(loaded > before);
        let limits = head.limits(&AppendOptions::default());
        let value = Stored::Float(1f64.to_bits());
        let verdict = Checker::default().sample(head, 0, 5, &value, &limits);
        assert_eq!((verdict, fs.reads()), (Ok(Verdict::Known), loaded));
    }

    /// A commit does not read under its lock what the first check has read, wherever its bytes have gone meanwhile; what came into
    /// files since is looked at.
    #[test]
    fn a_commit_reads_no_file_twice() {
        let fs = FaultyFs::new();
        let mut options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
        options.out_of_order_window_ms = 1_000_000;
        // No room for anything.
        options.block_cache_bytes = 0;
        let db = Db::open(options, &prometheus::Registry::new(), Arc::new(fs.clone())).unwrap();
        let labels = Labels::from_pairs([("__name__", "a")]);
        let write = |t: i64, v: f64| {
            let mut appender = db.appender(AppendOptions::default());
            appender.append(None, &labels, AppendSample::float(t, v)).unwrap();
            appender
        };
        for t in 0..130 {
            write(t * 10, 1.0).commit().unwrap();
        }
        db.maintain(0).unwrap();
        let appender = write(55, 2.0);
        let before = fs.reads();
        assert_eq!(appender.commit().unwrap().samples, 1);
        assert_eq!(fs.reads(), before);

        // In order at the first check; by the commit it has been written by another, and is in a file.
        let appender = write(1305, 3.0);
        write(1305, 4.0).commit().unwrap();
        for t in 131..260 {
            write(t * 10, 1.0).commit().unwrap();
        }
        db.maintain(0).unwrap();
        let before = fs.reads();
        assert_eq!(appender.commit().unwrap().samples, 0, "a duplicate");
        assert!(fs.reads() > before);
    }
}
