//! Commits: checked, logged in one record, applied, published; one after another.
//!
//! The commit lock is held from the check to the publication. It orders the log and memory alike, and makes every writer
//! of series' samples the only one, so that page and window locks are for readers' sake alone. When the log cannot be
//! written nothing has been applied: plans of rows are taken back and series that were to be introduced stay unlogged,
//! so that the next commit that names them logs them.
//!
//! Where commits wait for the disk, those that come while it works wait together: the first of them to get the lock makes one
//! record of all, which is synced, applied and shown as a whole, or refused as a whole.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;
use model::exemplar::Exemplar;
use model::metadata::Metadata;
use model::sample::Timestamp;
use model::storage::{ABSENT_BITS, AppendOptions, CommitSummary, StorageError};
use parking_lot::{Mutex, MutexGuard};

use crate::check::Checker;
use crate::chunk::HistogramValue;
use crate::exemplars::ExemplarVerdict;
use crate::head::Head;
use crate::head::layout::{Layout, PlannedRow};
use crate::head::series::{Added, CommitMark, Series, Stored};
use crate::head::validate::{Limits, Verdict};
use crate::head_chunks::FilePosition;
use crate::metrics::SampleKind;
use crate::wal::Wal;
use crate::wal::record::{
    FloatSample, KIND_COMMIT, put_exemplar, put_floats, put_histogram, put_layout, put_metadata, put_row,
    put_row_part, put_series,
};

/// What a transaction collected, in order.
#[derive(Debug)]
pub(crate) enum Op {
    /// Never empty.
    Floats(Vec<FloatSample>),
    Histogram {
        series: u32,
        t: Timestamp,
        start: Timestamp,
        value: HistogramValue,
    },
    Row {
        layout: Arc<Layout>,
        t: Timestamp,
        /// The first slot of a part; `None`: all slots.
        from: Option<u32>,
        row: Arc<[u64]>,
    },
}

impl Op {
    /// About how many bytes the log takes beyond [`SAMPLE_BYTES`] for each sample.
    fn more_bytes(&self) -> usize {
        let Self::Histogram { value, .. } = self else { return 0 };
        let (spans, buckets, custom) = match value {
            HistogramValue::Integer(h) => (
                h.positive_spans.len() + h.negative_spans.len(),
                h.positive_buckets.len() + h.negative_buckets.len(),
                h.custom_values.len(),
            ),
            HistogramValue::Float(h) => (
                h.positive_spans.len() + h.negative_spans.len(),
                h.positive_buckets.len() + h.negative_buckets.len(),
                h.custom_values.len(),
            ),
        };
        // The longest that each can be.
        64 + 10 * spans + 10 * buckets + 8 * custom
    }

    /// How many samples there are.
    fn samples(&self) -> u64 {
        match self {
            Self::Floats(run) => run.len() as u64,
            Self::Histogram { .. } => 1,
            Self::Row { row, .. } => row.iter().filter(|bits| **bits != ABSENT_BITS).count() as u64,
        }
    }
}

/// The floats among `ops`, in order.
pub(crate) fn floats_of(ops: &[Op]) -> impl Iterator<Item = &FloatSample> {
    let runs = ops.iter().filter_map(|op| match op {
        Op::Floats(run) => Some(run),
        Op::Histogram { .. } | Op::Row { .. } => None,
    });
    runs.flatten()
}

/// A transaction's content.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) options: AppendOptions,
    /// The last commit before the first check.
    pub(crate) checked_after: u64,
    /// Where the files of the head ended then.
    pub(crate) files_end: FilePosition,
    /// Nothing but plain floats and sure rows: see [`Checker::is_plain`].
    pub(crate) plain: bool,
    pub(crate) ops: Vec<Op>,
    /// Series with floats in `ops` that the log may not have; all others with floats it has.
    pub(crate) undefined: Vec<u32>,
    pub(crate) exemplars: Vec<(u32, Exemplar)>,
    pub(crate) metadata: Vec<(String, Metadata)>,
    /// Slots and layouts to let go of when all else is done.
    pub(crate) retired: Vec<(Arc<Layout>, u32)>,
    pub(crate) closed: Vec<Arc<Layout>>,
}

impl Batch {
    pub(crate) fn new(options: AppendOptions, checked_after: u64, files_end: FilePosition) -> Self {
        Self {
            options,
            checked_after,
            files_end,
            plain: true,
            ops: Vec::new(),
            undefined: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
            retired: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// Adds a float to the run that goes on, or to a new one.
    pub(crate) fn push_float(&mut self, sample: FloatSample) {
        match self.ops.last_mut() {
            Some(Op::Floats(run)) => run.push(sample),
            _ => self.ops.push(Op::Floats(vec![sample])),
        }
    }

    /// How much there is, in samples: what takes more bytes than a sample counts as more of them.
    fn size(&self) -> usize {
        let samples = self.ops.iter().map(Op::samples).sum::<u64>() as usize;
        let exemplars = self.exemplars.iter().flat_map(|(_, exemplar)| exemplar.labels.iter());
        let exemplars = exemplars.map(|(name, value)| 16 + name.len() + value.len()).sum::<usize>();
        let metadata = self
            .metadata
            .iter()
            .map(|(metric, metadata)| 64 + metric.len() + metadata.help.len() + metadata.unit.len());
        let bytes = self.ops.iter().map(Op::more_bytes).sum::<usize>() + exemplars + metadata.sum::<usize>();
        samples + self.undefined.len() + self.exemplars.len() + bytes / SAMPLE_BYTES
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.exemplars.is_empty() && self.metadata.is_empty()
    }
}

/// What will be applied.
enum Resolved {
    Floats(Vec<FloatSample>),
    Histogram { series: u32, t: Timestamp, start: Timestamp, value: HistogramValue },
    Row(PlannedRow),
}

/// Everything that commits share, under their lock.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) wal: Mutex<Wal>,
    /// Transactions that the next commit takes along; only where commits wait for the disk. Locked within the commit lock.
    queue: Mutex<VecDeque<Waiting>>,
    grouped: bool,
}

/// A transaction in the queue, and where its outcome is told, under the commit lock.
#[derive(Debug)]
struct Waiting {
    batch: Batch,
    outcome: Arc<Mutex<Option<Result<u64, StorageError>>>>,
}

/// Most samples of transactions that share a record, which has a bound of bytes: 32 MiB of floats, or as much of what is larger.
const GROUP_SAMPLES_MAX: usize = 1 << 20;
/// About what a float takes in the log at most.
const SAMPLE_BYTES: usize = 32;

/// A commit in the making.
struct Draft<'a> {
    head: &'a Head,
    limits: Limits,
    segment: u64,
    watermark: u64,
    checker: Checker,
    /// Series that the log does not have, and their definitions.
    new_series: HashSet<u32>,
    definitions: Vec<u8>,
    entries: Vec<u8>,
    resolved: Vec<Resolved>,
    planned: HashSet<u64>,
    exemplars: Vec<(u32, Exemplar)>,
}

impl Committer {
    /// `grouped`: commits wait for the disk, together.
    pub(crate) fn new(wal: Wal, grouped: bool) -> Self {
        Self { wal: Mutex::new(wal), queue: Mutex::default(), grouped }
    }

    /// Commits a transaction, then lets go of its layouts and slots whatever became of it.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn commit(
        &self,
        head: &Head,
        mut batch: Batch,
        series_created: u64,
    ) -> Result<CommitSummary, StorageError> {
        let (retired, closed) = (std::mem::take(&mut batch.retired), std::mem::take(&mut batch.closed));
        let (_wal, result) = if batch.is_empty() {
            (self.wal.lock(), Ok(0))
        } else if self.grouped {
            self.write_together(head, batch)
        } else {
            let mut wal = self.wal.lock();
            let written = Self::write(&mut wal, head, vec![batch]);
            (wal, written.map(|samples| samples.into_iter().sum()))
        };
        release(head, &retired, &closed);
        result.map(|samples| CommitSummary { samples, series_created })
    }

    /// Logs entries that are no samples, as a commit, then has them applied.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn log(&self, head: &Head, entries: &[u8], apply: impl FnOnce()) -> Result<(), StorageError> {
        Self::log_under(self.wal.lock(), head, entries, apply)
    }

    /// As [`Committer::log`], by whoever has the lock.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn log_under(
        mut wal: MutexGuard<'_, Wal>,
        head: &Head,
        entries: &[u8],
        apply: impl FnOnce(),
    ) -> Result<(), StorageError> {
        wal.prepare()?;
        wal.append(KIND_COMMIT, entries)?;
        apply();
        head.views.publish(head.views.published() + 1);
        Ok(())
    }

    /// Waits for the lock with all others. Whoever gets it finds itself written, or writes all that wait. Answers the number of
    /// samples, and the lock.
    fn write_together(&self, head: &Head, batch: Batch) -> (MutexGuard<'_, Wal>, Result<u64, StorageError>) {
        let outcome = Arc::new(Mutex::new(None));
        self.queue.lock().push_back(Waiting { batch, outcome: Arc::clone(&outcome) });
        let mut wal = self.wal.lock();
        loop {
            if let Some(result) = outcome.lock().take() {
                return (wal, result);
            }
            let (mut batches, mut outcomes) = (Vec::new(), Vec::new());
            {
                let mut queue = self.queue.lock();
                let mut room = GROUP_SAMPLES_MAX;
                while let Some(next) = queue.pop_front() {
                    let size = next.batch.size();
                    if size > room && !batches.is_empty() {
                        queue.push_front(next);
                        break;
                    }
                    room = room.saturating_sub(size);
                    batches.push(next.batch);
                    outcomes.push(next.outcome);
                }
            }
            match Self::write(&mut wal, head, batches) {
                Ok(samples) => {
                    for (outcome, samples) in outcomes.iter().zip(samples) {
                        *outcome.lock() = Some(Ok(samples));
                    }
                }
                Err(error) => {
                    for outcome in &outcomes {
                        *outcome.lock() = Some(Err(same_error(&error)));
                    }
                }
            }
        }
    }

    /// Writes transactions as one commit. Answers the number of samples of each.
    fn write(wal: &mut Wal, head: &Head, batches: Vec<Batch>) -> Result<Vec<u64>, StorageError> {
        let segment = wal.prepare()?;
        let alone = batches.len() == 1;
        let published = head.views.published();
        let mut draft = Draft {
            head,
            limits: head.limits(&AppendOptions::default()),
            segment,
            watermark: head.views.watermark(),
            checker: Checker::default(),
            new_series: HashSet::new(),
            definitions: Vec::new(),
            entries: Vec::new(),
            resolved: Vec::new(),
            planned: HashSet::new(),
            exemplars: Vec::new(),
        };
        // All checks come before the first plan: plans change what checks look at.
        let (mut checked, mut samples) = (Vec::new(), Vec::new());
        let (mut undefined, mut exemplars, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
        for mut batch in batches {
            // The first check has looked at what was in files by then, and nothing of that changes: under the lock files are read
            // only where chunks were moved there since.
            draft.limits = Limits { files_from: batch.files_end, ..head.limits(&batch.options) };
            let still_true = alone && batch.plain && batch.checked_after == published;
            let before = checked.len();
            draft.check(batch.ops, still_true, &mut checked);
            samples.push(checked[before..].iter().map(Op::samples).sum());
            undefined.append(&mut batch.undefined);
            exemplars.append(&mut batch.exemplars);
            metadata.append(&mut batch.metadata);
        }
        for op in checked {
            draft.resolve(op);
        }
        for series in undefined {
            draft.define(series);
        }
        draft.resolve_exemplars(exemplars);
        for (metric, metadata) in &metadata {
            put_metadata(&mut draft.entries, metric, metadata);
        }
        if draft.entries.is_empty() {
            return Ok(samples);
        }
        draft.definitions.append(&mut draft.entries);
        if let Err(error) = wal.append(KIND_COMMIT, &draft.definitions) {
            draft.undo();
            return Err(error);
        }
        for series in &draft.new_series {
            head.table.with_mut(*series, Series::set_logged);
        }
        draft.apply();
        for (metric, metadata) in &metadata {
            head.set_metadata(metric, metadata);
        }
        Ok(samples)
    }
}

/// The same trouble, to be told to another transaction.
fn same_error(error: &StorageError) -> StorageError {
    match error {
        StorageError::Io { what, path, source } => {
            let source = match source.raw_os_error() {
                Some(code) => std::io::Error::from_raw_os_error(code),
                None => std::io::Error::new(source.kind(), source.to_string()),
            };
            StorageError::Io { what, path: path.clone(), source }
        }
        StorageError::Limit { what, limit } => StorageError::Limit { what, limit: *limit },
        StorageError::NotReady(why) => StorageError::NotReady(why),
        other => StorageError::Remote(other.to_string()),
    }
}

impl Draft<'_> {
    /// Adds what is left of the operations to those that were checked before. `still_true`: nothing was committed since they
    /// were, and they come alone.
    fn check(&mut self, ops: Vec<Op>, still_true: bool, checked: &mut Vec<Op>) {
        let only_floats = ops.iter().all(|op| matches!(op, Op::Floats(_)));
        if still_true && only_floats {
            *checked = ops;
            return;
        }
        for op in ops {
            if !matches!(op, Op::Floats(_)) && self.checker.must_spill() {
                self.checker.spill(floats_of(checked));
            }
            match op {
                Op::Floats(run) => self.check_floats(run, checked),
                Op::Histogram { series, t, start, value } => {
                    let stored = Stored::Histogram(value.clone());
                    match self.checker.sample(self.head, series, t, &stored, &self.limits) {
                        Ok(Verdict::Store { .. }) => checked.push(Op::Histogram { series, t, start, value }),
                        Ok(Verdict::Known) => {}
                        Err(why) => self.head.metrics.refused(why, SampleKind::Histogram),
                    }
                }
                Op::Row { layout, t, from, row } => {
                    let check = self.checker.row(self.head, &layout, t, from, &row, &self.limits);
                    for (_, why) in &check.refused {
                        self.head.metrics.refused(*why, SampleKind::Float);
                    }
                    let row = check.reduce(&row);
                    if !check.loose.is_empty() {
                        for sample in &check.loose {
                            self.define(sample.series);
                        }
                        checked.push(Op::Floats(check.loose));
                    }
                    // A row without samples says nothing.
                    if row.iter().any(|bits| *bits != ABSENT_BITS) {
                        checked.push(Op::Row { layout, t, from, row });
                    }
                }
            }
        }
    }

    fn check_floats(&mut self, mut run: Vec<FloatSample>, checked: &mut Vec<Op>) {
        let check = self.checker.floats(self.head, &run, floats_of(checked), &self.limits);
        for (_, why) in &check.refused {
            self.head.metrics.refused(*why, SampleKind::Float);
        }
        if !check.dropped.is_empty() {
            let mut index = 0;
            run.retain(|_| {
                index += 1;
                check.dropped.binary_search(&(index - 1)).is_err()
            });
        }
        if !run.is_empty() {
            checked.push(Op::Floats(run));
        }
    }

    /// Plans and logs an operation that was checked.
    fn resolve(&mut self, op: Op) {
        match op {
            Op::Floats(run) => {
                put_floats(&mut self.entries, &run);
                self.resolved.push(Resolved::Floats(run));
            }
            Op::Histogram { series, t, start, value } => {
                self.define(series);
                put_histogram(&mut self.entries, series, t, start, &value);
                self.resolved.push(Resolved::Histogram { series, t, start, value });
            }
            Op::Row { layout, t, from, row } => self.row(&layout, t, from, row),
        }
    }

    fn row(&mut self, layout: &Arc<Layout>, t: Timestamp, from: Option<u32>, row: Arc<[u64]>) {
        let mut state = layout.state.lock();
        let first = self.planned.insert(layout.id);
        if first && state.must_seal(t, self.head.changes_per_slot()) {
            self.head.seal(&mut state, self.watermark);
        }
        let defined = state.define(self.segment);
        if !defined.is_empty() {
            let slots = state.slots[defined.clone()].to_vec();
            for series in &slots {
                self.define(*series);
            }
            put_layout(&mut self.entries, layout.id, defined.start, &slots);
        }
        let plan = state.plan(layout, t, from, row, !first);
        if from.is_some() {
            let part = (plan.from, plan.to);
            put_row_part(&mut self.entries, layout.id, t, part, plan.full, &plan.words, &plan.values);
        } else {
            put_row(&mut self.entries, layout.id, t, plan.full, &plan.words, &plan.values);
        }
        self.resolved.push(Resolved::Row(plan));
    }

    /// Makes sure that the log has a series before it is named.
    fn define(&mut self, series: u32) {
        let logged = self.head.table.with(series, Series::is_logged);
        if logged == Some(false)
            && self.new_series.insert(series)
            && let Some(labels) = self.head.catalogue.read().labels(series)
        {
            put_series(&mut self.definitions, series, &labels);
        }
    }

    fn resolve_exemplars(&mut self, exemplars: Vec<(u32, Exemplar)>) {
        for (series, exemplar) in exemplars {
            let verdict = self.head.exemplars.lock().check(series, &exemplar);
            match verdict {
                Ok(ExemplarVerdict::Store) => {
                    self.define(series);
                    put_exemplar(&mut self.entries, series, &exemplar);
                    self.exemplars.push((series, exemplar));
                }
                Ok(ExemplarVerdict::Known) => {}
                Err(_) => self.head.metrics.exemplars_refused.inc(),
            }
        }
    }

    fn undo(self) {
        for resolved in &self.resolved {
            if let Resolved::Row(plan) = resolved {
                plan.layout.state.lock().forget_logged();
            }
        }
    }

    fn apply(self) -> u64 {
        let commit = self.head.views.published() + 1;
        let at = CommitMark { commit, watermark: self.watermark, in_order_from: self.limits.in_order_from };
        let mut applied = Applied::new(self.head, at);
        for resolved in self.resolved {
            match resolved {
                Resolved::Floats(run) => {
                    applied.floats(&run);
                }
                Resolved::Histogram { series, t, start, value } => {
                    applied.add(series, t, Stored::Histogram(value), start);
                }
                Resolved::Row(plan) => applied.row(&plan),
            }
        }
        for (series, exemplar) in self.exemplars {
            applied.exemplar(series, exemplar);
        }
        let samples = applied.finish();
        self.head.views.publish(commit);
        samples
    }
}

/// Counts what is being applied; used by commits and by replay.
#[derive(Debug)]
pub(crate) struct Applied<'a> {
    head: &'a Head,
    at: CommitMark,
    floats: u64,
    histograms: u64,
    out_of_order: [u64; 2],
    chunks: usize,
    /// Whether samples may be stored already: a checkpoint has a part of what was committed when it was written.
    pub(crate) may_know: bool,
    /// Series of which chunks were closed.
    closed: Vec<u32>,
    min_t: Timestamp,
    max_t: Timestamp,
    /// The earliest that came in order.
    in_order_min_t: Timestamp,
}

impl<'a> Applied<'a> {
    pub(crate) fn new(head: &'a Head, at: CommitMark) -> Self {
        Self {
            head,
            at,
            floats: 0,
            histograms: 0,
            out_of_order: [0; 2],
            chunks: 0,
            may_know: false,
            closed: Vec::new(),
            min_t: Timestamp::MAX,
            max_t: Timestamp::MIN,
            in_order_min_t: Timestamp::MAX,
        }
    }

    /// Adds one sample; whether the series is there.
    pub(crate) fn add(&mut self, series: u32, t: Timestamp, value: Stored, start: Timestamp) -> bool {
        let histogram = matches!(value, Stored::Histogram(_));
        let at = self.at;
        let may_know = self.may_know;
        let added = self.head.table.with_mut(series, |series: &mut Series| {
            (!may_know || !knows(series, t, at)).then(|| series.add(t, value, start, at))
        });
        let Some(Added { chunks, in_order }) = added.flatten() else { return added.is_some() };
        if chunks > 0 {
            self.chunks += chunks;
            self.closed.push(series);
        }
        self.saw(t);
        if in_order {
            self.in_order_min_t = self.in_order_min_t.min(t);
        }
        let kind = usize::from(histogram);
        self.out_of_order[kind] += u64::from(!in_order);
        if histogram {
            self.histograms += 1;
        } else {
            self.floats += 1;
        }
        true
    }

    /// Adds floats; the number of those whose series is not there.
    pub(crate) fn floats(&mut self, run: &[FloatSample]) -> u64 {
        let at = self.at;
        let may_know = self.may_know;
        let (mut chunks, mut late, mut lost) = (0, 0, 0);
        self.head.table.with_each_mut(run.iter().map(|sample| sample.series), |index, series| {
            let FloatSample { t, bits, start, .. } = run[index];
            let Some(series) = series else {
                lost += 1;
                return;
            };
            if may_know && knows(series, t, at) {
                return;
            }
            let added = series.add(t, Stored::Float(bits), start, at);
            if added.chunks > 0 {
                chunks += added.chunks;
                self.closed.push(run[index].series);
            }
            if added.in_order {
                self.in_order_min_t = self.in_order_min_t.min(t);
            } else {
                late += 1;
            }
            self.min_t = self.min_t.min(t);
            self.max_t = self.max_t.max(t);
        });
        self.chunks += chunks;
        self.floats += run.len() as u64 - lost;
        self.out_of_order[0] += late;
        lost
    }

    /// Adds an exemplar, unless the ring has it or a newer one of the series.
    pub(crate) fn exemplar(&mut self, series: u32, exemplar: Exemplar) {
        let mut ring = self.head.exemplars.lock();
        if ring.check(series, &exemplar) == Ok(ExemplarVerdict::Store) {
            self.head.metrics.exemplars_appended.inc();
            ring.push(series, exemplar);
            self.head.metrics.exemplars_stored.set(ring.len() as i64);
        }
    }

    pub(crate) fn row(&mut self, plan: &PlannedRow) {
        self.chunks += plan.apply(&self.head.table, self.at, &mut self.closed);
        self.floats += plan.samples;
        if plan.samples > 0 {
            self.saw(plan.t);
            self.in_order_min_t = self.in_order_min_t.min(plan.t);
        }
    }

    fn saw(&mut self, t: Timestamp) {
        self.min_t = self.min_t.min(t);
        self.max_t = self.max_t.max(t);
    }

    /// Reports to the head and its metrics. Answers the number of samples.
    pub(crate) fn finish(self) -> u64 {
        let metrics = &self.head.metrics;
        for (kind, count, late) in [
            (SampleKind::Float, self.floats, self.out_of_order[0]),
            (SampleKind::Histogram, self.histograms, self.out_of_order[1]),
        ] {
            metrics.samples_appended.with_label_values(&[kind.as_str()]).inc_by(count);
            metrics.out_of_order_appended.with_label_values(&[kind.as_str()]).inc_by(late);
        }
        self.head.add_chunks(self.chunks, 0);
        if !self.closed.is_empty() {
            self.head.unflushed_series.lock().extend(self.closed);
        }
        if self.min_t <= self.max_t {
            self.head.saw(self.min_t, self.max_t);
            self.head.saw_in_order(self.in_order_min_t);
        }
        self.floats + self.histograms
    }
}

/// Whether a series has a sample at `t`. Damage shows when it is read.
fn knows(series: &Series, t: Timestamp, at: CommitMark) -> bool {
    let found = series.value_behind(FilePosition::START, at.in_order_from, t);
    found.unwrap_or_default().is_some()
}

/// Retires slots and closes layouts. Under the commit lock.
fn release(head: &Head, retired: &[(Arc<Layout>, u32)], closed: &[Arc<Layout>]) {
    let unpin = |series: u32| {
        head.table.with_mut(series, Series::unpin);
    };
    for (layout, slot) in retired {
        let series = layout.state.lock().retire(*slot);
        series.into_iter().for_each(unpin);
    }
    let watermark = if closed.is_empty() { 0 } else { head.views.watermark() };
    for layout in closed {
        if head.layouts.write().remove(&layout.id).is_none() {
            continue;
        }
        let mut state = layout.state.lock();
        head.seal(&mut state, watermark);
        state.close();
        let live = state.slots.iter().enumerate().filter(|(slot, _)| !state.is_retired(*slot));
        live.map(|(_, series)| *series).for_each(unpin);
    }
}
