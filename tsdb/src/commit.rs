//! Commits: checked, logged in one record, applied, published; one after another.
//!
//! The commit lock is held from the check to the publication. It orders the log and memory alike, and makes every writer
//! of series' samples the only one, so that page and window locks are for readers' sake alone. When the log cannot be
//! written nothing has been applied: plans of rows are taken back and series that were to be introduced stay unlogged,
//! so that the next commit that names them logs them.

use std::sync::Arc;

use hashbrown::HashSet;
use model::exemplar::Exemplar;
use model::metadata::Metadata;
use model::sample::Timestamp;
use model::storage::{ABSENT_BITS, AppendOptions, CommitSummary, StorageError};
use parking_lot::Mutex;

use crate::check::Checker;
use crate::chunk::HistogramValue;
use crate::exemplars::ExemplarVerdict;
use crate::head::Head;
use crate::head::layout::{Layout, PlannedRow};
use crate::head::series::{CommitMark, Series, Stored};
use crate::head::validate::{Limits, Verdict};
use crate::metrics::SampleKind;
use crate::wal::Wal;
use crate::wal::record::{
    FloatSample, KIND_COMMIT, put_exemplar, put_floats, put_histogram, put_layout, put_metadata, put_row,
    put_series,
};

/// What a transaction collected, in order.
#[derive(Debug)]
pub(crate) enum Op {
    Float(FloatSample),
    Histogram { series: u32, t: Timestamp, start: Timestamp, value: HistogramValue },
    Row { layout: Arc<Layout>, t: Timestamp, row: Arc<[u64]> },
}

/// A transaction's content.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) exemplars: Vec<(u32, Exemplar)>,
    pub(crate) metadata: Vec<(String, Metadata)>,
    /// Slots and layouts to let go of when all else is done.
    pub(crate) retired: Vec<(Arc<Layout>, u32)>,
    pub(crate) closed: Vec<Arc<Layout>>,
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
}

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
    /// Commits a transaction, then lets go of its layouts and slots whatever became of it.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn commit(
        &self,
        head: &Head,
        options: &AppendOptions,
        batch: Batch,
        series_created: u64,
    ) -> Result<CommitSummary, StorageError> {
        let mut wal = self.wal.lock();
        let Batch { ops, exemplars, metadata, retired, closed } = batch;
        let empty = ops.is_empty() && exemplars.is_empty() && metadata.is_empty();
        let result = if empty {
            Ok(CommitSummary { samples: 0, series_created })
        } else {
            Self::write(&mut wal, head, options, ops, exemplars, &metadata)
                .map(|samples| CommitSummary { samples, series_created })
        };
        release(head, &retired, &closed);
        result
    }

    fn write(
        wal: &mut Wal,
        head: &Head,
        options: &AppendOptions,
        ops: Vec<Op>,
        exemplars: Vec<(u32, Exemplar)>,
        metadata: &[(String, Metadata)],
    ) -> Result<u64, StorageError> {
        let segment = wal.prepare()?;
        let mut draft = Draft {
            head,
            limits: head.limits(options),
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
        let checked: Vec<Op> = ops.into_iter().flat_map(|op| draft.check(op)).collect();
        for op in checked {
            draft.resolve(op);
        }
        draft.flush_floats();
        draft.resolve_exemplars(exemplars);
        for (metric, metadata) in metadata {
            put_metadata(&mut draft.entries, metric, metadata);
        }
        if draft.entries.is_empty() {
            return Ok(0);
        }
        draft.definitions.append(&mut draft.entries);
        if let Err(error) = wal.append(KIND_COMMIT, &draft.definitions) {
            draft.undo();
            return Err(error);
        }
        for series in &draft.new_series {
            head.table.with_mut(*series, |series| series.logged = true);
        }
        let samples = draft.apply();
        for (metric, metadata) in metadata {
            head.set_metadata(metric, metadata);
        }
        Ok(samples)
    }
}

impl Draft<'_> {
    /// What is left of an operation, in order.
    fn check(&mut self, op: Op) -> Vec<Op> {
        match op {
            Op::Float(sample) => {
                let value = Stored::Float(sample.bits);
                let admitted = self.admit(sample.series, sample.t, &value, SampleKind::Float);
                if admitted { vec![op] } else { Vec::new() }
            }
            Op::Histogram { series, t, start, value } => {
                let stored = Stored::Histogram(value.clone());
                let admitted = self.admit(series, t, &stored, SampleKind::Histogram);
                if admitted { vec![Op::Histogram { series, t, start, value }] } else { Vec::new() }
            }
            Op::Row { layout, t, row } => {
                let check = self.checker.row(self.head, &layout, t, &row, &self.limits);
                for (_, why) in &check.refused {
                    self.head.metrics.refused(*why, SampleKind::Float);
                }
                let row = check.reduce(&row);
                let mut left: Vec<Op> = check.loose.into_iter().map(Op::Float).collect();
                // A row without samples says nothing.
                if row.iter().any(|bits| *bits != ABSENT_BITS) {
                    left.push(Op::Row { layout, t, row });
                }
                left
            }
        }
    }

    /// Plans and logs an operation that was checked.
    fn resolve(&mut self, op: Op) {
        match op {
            Op::Float(sample) => self.float(sample),
            Op::Histogram { series, t, start, value } => {
                self.flush_floats();
                self.define(series);
                put_histogram(&mut self.entries, series, t, start, &value);
                self.resolved.push(Resolved::Histogram { series, t, start, value });
            }
            Op::Row { layout, t, row } => self.row(&layout, t, row),
        }
    }

    fn admit(&mut self, series: u32, t: Timestamp, value: &Stored, kind: SampleKind) -> bool {
        match self.checker.sample(self.head, series, t, value, &self.limits) {
            Ok(Verdict::Store { .. }) => true,
            Ok(Verdict::Known) => false,
            Err(why) => {
                self.head.metrics.refused(why, kind);
                false
            }
        }
    }

    fn float(&mut self, sample: FloatSample) {
        self.define(sample.series);
        match self.resolved.last_mut() {
            Some(Resolved::Floats(run)) => run.push(sample),
            _ => self.resolved.push(Resolved::Floats(vec![sample])),
        }
    }

    /// Logs the run of floats that ends here.
    fn flush_floats(&mut self) {
        if let Some(Resolved::Floats(run)) = self.resolved.last()
            && !run.is_empty()
        {
            put_floats(&mut self.entries, run);
            // An empty run ends the last one, so that it is logged once.
            self.resolved.push(Resolved::Floats(Vec::new()));
        }
    }

    fn row(&mut self, layout: &Arc<Layout>, t: Timestamp, row: Arc<[u64]>) {
        self.flush_floats();
        let mut state = layout.state.lock();
        if self.planned.insert(layout.id) && state.must_seal(t) {
            let made = state.seal(&self.head.table, self.watermark, false);
            self.head.add_chunks(made, 0);
        }
        let defined = if state.defined_in == Some(self.segment) { state.defined_slots } else { 0 };
        if defined < state.slots.len() {
            let slots = state.slots[defined..].to_vec();
            for series in &slots {
                self.define(*series);
            }
            put_layout(&mut self.entries, layout.id, defined, &slots);
        }
        let full = state.defined_in != Some(self.segment) || state.window.inner.read().is_empty();
        state.defined_in = Some(self.segment);
        state.defined_slots = state.slots.len();
        let plan = state.plan(layout, t, row, full);
        put_row(&mut self.entries, layout.id, t, full, &plan.words, &plan.values);
        self.resolved.push(Resolved::Row(plan));
    }

    /// Makes sure that the log has a series before it is named.
    fn define(&mut self, series: u32) {
        let logged = self.head.table.with(series, |series| series.logged);
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
        for resolved in self.resolved.iter().rev() {
            if let Resolved::Row(plan) = resolved {
                plan.layout.state.lock().undo(plan);
            }
        }
    }

    fn apply(self) -> u64 {
        let commit = self.head.views.published() + 1;
        let at = CommitMark { commit, watermark: self.watermark };
        let mut applied = Applied::new(self.head, at);
        for resolved in self.resolved {
            match resolved {
                Resolved::Floats(run) => {
                    for sample in run {
                        applied.add(sample.series, sample.t, Stored::Float(sample.bits), sample.start);
                    }
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
    min_t: Timestamp,
    max_t: Timestamp,
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
            min_t: Timestamp::MAX,
            max_t: Timestamp::MIN,
        }
    }

    /// Adds one sample; whether the series is there.
    pub(crate) fn add(&mut self, series: u32, t: Timestamp, value: Stored, start: Timestamp) -> bool {
        let histogram = matches!(value, Stored::Histogram(_));
        let at = self.at;
        let added = self.head.table.with_mut(series, |series: &mut Series| {
            let chunks = series.add(t, value, start, at);
            let in_order = series.last_outside_window().is_some_and(|(last, _)| last == t);
            (chunks, in_order)
        });
        let Some((chunks, in_order)) = added else { return false };
        self.chunks += chunks;
        self.saw(t);
        let kind = usize::from(histogram);
        self.out_of_order[kind] += u64::from(!in_order);
        if histogram {
            self.histograms += 1;
        } else {
            self.floats += 1;
        }
        true
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
        self.chunks += plan.apply(&self.head.table, self.at);
        self.floats += plan.samples;
        if plan.samples > 0 {
            self.saw(plan.t);
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
        if self.min_t <= self.max_t {
            self.head.saw(self.min_t, self.max_t);
        }
        self.floats + self.histograms
    }
}

/// Retires slots and closes layouts. Under the commit lock.
fn release(head: &Head, retired: &[(Arc<Layout>, u32)], closed: &[Arc<Layout>]) {
    let unpin = |series: u32| {
        head.table.with_mut(series, |series| series.pins = series.pins.saturating_sub(1));
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
        let made = state.seal(&head.table, watermark, true);
        head.add_chunks(made, 0);
        let live = state.slots.iter().enumerate().filter(|(slot, _)| !state.is_retired(*slot));
        live.map(|(_, series)| *series).for_each(unpin);
    }
}
