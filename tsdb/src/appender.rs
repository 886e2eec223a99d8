//! Transactions as the outside sees them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::exemplar::Exemplar;
use model::labels::{Labels, METRIC_NAME};
use model::metadata::Metadata;
use model::sample::{STALE_NAN_BITS, SampleValue, stale_nan};
use model::storage::{
    AppendError, AppendOptions, AppendSample, Appender, CommitSummary, LayoutRef, LayoutSlot, Row,
    RowOutcome, SeriesRef, SeriesSample, StorageError,
};

use crate::check::Checker;
use crate::chunk::HistogramValue;
use crate::commit::{Batch, Op, floats_of};
use crate::db::Shared;
use crate::head::series::{Series, Stored};
use crate::head::validate::{Limits, Verdict, check_histogram};
use crate::head::view::View;
use crate::head_chunks::FilePosition;
use crate::metrics::SampleKind;
use crate::wal::record::FloatSample;

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    shared: Arc<Shared>,
    options: AppendOptions,
    /// The limits when the first sample came; the commit takes them anew.
    limits: Option<Limits>,
    checker: Checker,
    batch: Batch,
    created: u64,
    done: bool,
    /// Keeps the collector from series that were looked up here.
    _writing: View,
}

impl Transaction {
    pub(crate) fn new(shared: Arc<Shared>, options: AppendOptions) -> Self {
        shared.head.metrics.active_appenders.inc();
        let writing = shared.head.writers.open();
        let batch = Batch::new(options.clone(), shared.head.views.published(), shared.head.files.end());
        Self {
            shared,
            options,
            limits: None,
            checker: Checker::first(),
            batch,
            created: 0,
            done: false,
            _writing: writing,
        }
    }

    fn resolve(&mut self, series: Option<SeriesRef>, labels: &Labels) -> Result<u32, AppendError> {
        let head = &self.shared.head;
        if let Some(SeriesRef(id)) = series
            && let Ok(id) = u32::try_from(id)
            && head.hold(id)
        {
            return Ok(id);
        }
        if series.is_some() && labels.is_empty() {
            return Err(AppendError::UnknownSeries);
        }
        let (id, created) = head.series(labels, false)?;
        self.created += u64::from(created);
        Ok(id)
    }

    fn known(&self, SeriesRef(id): SeriesRef) -> Result<u32, AppendError> {
        let id = u32::try_from(id).ok().filter(|id| self.shared.head.hold(*id));
        id.ok_or(AppendError::UnknownSeries)
    }

    fn append_value(
        &mut self,
        series: Option<SeriesRef>,
        labels: &Labels,
        sample: AppendSample,
    ) -> Result<SeriesRef, AppendError> {
        let AppendSample { t, value, start } = sample;
        let start = start.unwrap_or(0);
        if let (Some(SeriesRef(id)), SampleValue::Float(v)) = (series, &value)
            && let Some(taken) = self.append_plain(id, FloatSample { series: 0, t, bits: v.to_bits(), start })
        {
            return Ok(taken);
        }
        let value = match value {
            SampleValue::Float(v) => Stored::Float(v.to_bits()),
            SampleValue::Histogram(h) => Stored::Histogram(HistogramValue::Integer(h)),
            SampleValue::FloatHistogram(h) => Stored::Histogram(HistogramValue::Float(h)),
        };
        if let Stored::Histogram(histogram) = &value {
            check_histogram(histogram)?;
        }
        let series = self.resolve(series, labels)?;
        self.spill();
        let value = self.stale_alike(series, value);
        let limits = self.limits();
        match self.checker.sample(&self.shared.head, series, t, &value, &limits)? {
            Verdict::Known => {}
            Verdict::Store { .. } => match value {
                Stored::Float(bits) => {
                    self.batch.undefined.push(series);
                    self.batch.push_float(FloatSample { series, t, bits, start });
                }
                Stored::Histogram(value) => self.batch.ops.push(Op::Histogram { series, t, start, value }),
            },
        }
        Ok(SeriesRef(u64::from(series)))
    }

    fn limits(&mut self) -> Limits {
        *self.limits.get_or_insert_with(|| self.shared.head.limits(&self.options))
    }

    /// Notes floats that were taken without a note.
    fn spill(&mut self) {
        if self.checker.must_spill() {
            self.checker.spill(floats_of(&self.batch.ops));
        }
    }

    /// Takes a float of a known series the cheap way, if that suffices for it.
    fn append_plain(&mut self, id: u64, mut sample: FloatSample) -> Option<SeriesRef> {
        let series = u32::try_from(id).ok().filter(|id| self.checker.is_fresh(*id))?;
        sample.series = series;
        let limits = self.limits();
        let seen = self.shared.head.table.with(series, |series| (series.plain_last(), series.is_logged()));
        let (last, logged) = seen?;
        if let Verdict::Store { .. } = limits.plain(last.ok()?, sample.t, sample.bits)? {
            self.checker.took_plain(series);
            self.batch.undefined.extend((!logged).then_some(series));
            self.batch.push_float(sample);
        }
        Some(SeriesRef(id))
    }

    /// Takes those of `samples` that the cheap way suffices for, in order of series. Answers the indexes of the others, in the
    /// order to append them in.
    fn append_plain_floats(&mut self, samples: &[SeriesSample]) -> Vec<usize> {
        let key = |sample: &SeriesSample| u32::try_from(sample.series.0).ok();
        // In order of series, then as they came.
        let mut order: Vec<u64> = Vec::with_capacity(samples.len());
        for (index, sample) in (0u64..).zip(samples) {
            match key(sample) {
                Some(series) if index <= u64::from(u32::MAX) => order.push(u64::from(series) << 32 | index),
                Some(_) | None => return (0..samples.len()).collect(),
            }
        }
        if !order.is_sorted() {
            order.sort_unstable();
        }
        let (series_of, index_of) = (|entry: u64| (entry >> 32) as u32, |entry: u64| entry as u32 as usize);
        if order.first().is_none_or(|first| !self.checker.is_fresh(series_of(*first))) {
            return (0..samples.len()).collect();
        }
        let limits = self.limits();
        let mut careful = Vec::new();
        let mut run: Vec<FloatSample> = Vec::with_capacity(samples.len());
        let mut newest = None;
        let mut warm = 0u8;
        // Loops of a few instructions, so that many of their turns are on their way at a time.
        let ids = || order.iter().map(|entry| series_of(*entry));
        let table = &self.shared.head.table;
        table.with_each(ids(), |_, series| warm ^= series.map_or(0, Series::warm));
        table.with_each(ids(), |_, series| warm ^= series.map_or(0, Series::warm_tail));
        let undefined = &mut self.batch.undefined;
        table.with_each(ids(), |at, series| {
            let (id, index) = (series_of(order[at]), index_of(order[at]));
            let sample = &samples[index];
            let bits = sample.v.to_bits();
            let plain = series.and_then(|series| Some((series.plain_last().ok()?, series.is_logged())));
            let repeated = newest.replace(id) == Some(id);
            let verdict = plain.filter(|_| !repeated).and_then(|(last, logged)| {
                undefined.extend((!logged).then_some(id));
                limits.plain(last, sample.t, bits)
            });
            match verdict {
                Some(Verdict::Store { .. }) => {
                    run.push(FloatSample { series: id, t: sample.t, bits, start: 0 })
                }
                Some(Verdict::Known) => {}
                None => careful.push(index),
            }
        });
        std::hint::black_box(warm);
        if let Some(last) = run.last() {
            self.checker.took_plain(last.series);
            self.batch.ops.push(Op::Floats(run));
        }
        careful.sort_unstable();
        careful
    }

    /// A staleness marker of a series of histograms is a histogram: whoever writes it need not know.
    fn stale_alike(&self, series: u32, value: Stored) -> Stored {
        if !matches!(value, Stored::Float(STALE_NAN_BITS)) {
            return value;
        }
        let pending = self.checker.pending.latest(series).map(|latest| latest.1.clone());
        let latest = pending.or_else(|| {
            let stored = self.shared.head.table.with(series, |series| series.latest());
            stored.flatten().map(|latest| latest.1)
        });
        match latest {
            Some(Stored::Histogram(HistogramValue::Integer(_))) => {
                let stale = model::Histogram { sum: stale_nan(), ..model::Histogram::default() };
                Stored::Histogram(HistogramValue::Integer(Arc::new(stale)))
            }
            Some(Stored::Histogram(HistogramValue::Float(_))) => {
                let stale = model::FloatHistogram { sum: stale_nan(), ..model::FloatHistogram::default() };
                Stored::Histogram(HistogramValue::Float(Arc::new(stale)))
            }
            Some(Stored::Float(_)) | None => value,
        }
    }

    fn row(&mut self, from: Option<u32>, row: &Row<'_>) -> RowOutcome {
        let head = &self.shared.head;
        let Some(layout) = head.layout(row.layout.0) else {
            return RowOutcome { error: Some(AppendError::UnknownSeries), ..RowOutcome::default() };
        };
        let values: Arc<[u64]> = row.values.iter().map(|value| value.to_bits()).collect();
        let limits = head.limits(&self.options);
        if self.checker.must_spill() {
            self.checker.spill(floats_of(&self.batch.ops));
        }
        let check = self.checker.row(head, &layout, row.t, from, &values, &limits);
        for (_, why) in &check.refused {
            head.metrics.refused(*why, SampleKind::Float);
        }
        let values = check.wanted(&values);
        self.batch.ops.push(Op::Row { layout, t: row.t, from, row: values });
        RowOutcome { appended: check.taken, refused: check.refused, error: None }
    }

    fn finish(&mut self) -> Result<CommitSummary, StorageError> {
        self.done = true;
        let empty = Batch::new(AppendOptions::default(), 0, FilePosition::START);
        let mut batch = std::mem::replace(&mut self.batch, empty);
        batch.plain = self.checker.is_plain();
        self.shared.committer.commit(&self.shared.head, batch, self.created)
    }

    /// Drops what was collected, but for layouts that were given up.
    fn abandon(&mut self) {
        if self.done {
            return;
        }
        self.batch.ops.clear();
        self.batch.exemplars.clear();
        self.batch.metadata.clear();
        if !self.batch.retired.is_empty() || !self.batch.closed.is_empty() {
            // Nothing is written: this cannot fail.
            let _ = self.finish();
        }
        self.done = true;
    }
}

impl Appender for Transaction {
    fn open_layout(&mut self) -> LayoutRef {
        let head = &self.shared.head;
        let id = head.next_layout.fetch_add(1, Ordering::Relaxed);
        head.open_layout(id);
        LayoutRef(id)
    }

    fn extend_layout(&mut self, layout: LayoutRef, labels: &Labels) -> Result<LayoutSlot, AppendError> {
        let head = &self.shared.head;
        let layout = head.layout(layout.0).ok_or(AppendError::UnknownSeries)?;
        let (id, created) = head.series(labels, true)?;
        self.created += u64::from(created);
        let slot = layout.state.lock().push_slot(id);
        Ok(LayoutSlot(slot))
    }

    fn slot_series(&self, layout: LayoutRef, slot: LayoutSlot) -> Option<SeriesRef> {
        let layout = self.shared.head.layout(layout.0)?;
        let series = layout.state.lock().slots.get(slot.0 as usize).copied()?;
        Some(SeriesRef(u64::from(series)))
    }

    fn retire_slot(&mut self, layout: LayoutRef, slot: LayoutSlot) {
        if let Some(layout) = self.shared.head.layout(layout.0) {
            self.batch.retired.push((layout, slot.0));
        }
    }

    fn close_layout(&mut self, layout: LayoutRef) {
        if let Some(layout) = self.shared.head.layout(layout.0) {
            self.batch.closed.push(layout);
        }
    }

    fn append_row(&mut self, row: &Row<'_>) -> RowOutcome {
        self.row(None, row)
    }

    fn append_row_part(&mut self, first: LayoutSlot, row: &Row<'_>) -> RowOutcome {
        self.row(Some(first.0), row)
    }

    fn append(
        &mut self,
        series: Option<SeriesRef>,
        labels: &Labels,
        sample: AppendSample,
    ) -> Result<SeriesRef, AppendError> {
        let kind = match &sample.value {
            SampleValue::Float(_) => SampleKind::Float,
            SampleValue::Histogram(_) | SampleValue::FloatHistogram(_) => SampleKind::Histogram,
        };
        let result = self.append_value(series, labels, sample);
        if let Err(why) = result {
            self.shared.head.metrics.refused(why, kind);
        }
        result
    }

    fn append_floats(&mut self, samples: &[SeriesSample], stop: bool) -> Vec<(usize, AppendError)> {
        let labels = Labels::empty();
        let mut refused = Vec::new();
        for index in self.append_plain_floats(samples) {
            let SeriesSample { series, t, v } = samples[index];
            if let Err(why) = self.append(Some(series), &labels, AppendSample::float(t, v)) {
                refused.push((index, why));
                if stop && why != AppendError::UnknownSeries {
                    break;
                }
            }
        }
        refused
    }

    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        let id = self.known(series)?;
        let mut exemplar = exemplar.clone();
        if exemplar.t.is_none() {
            self.spill();
            let pending = self.checker.pending.latest(id).map(|latest| latest.0);
            let stored = || self.shared.head.table.with(id, |series| series.latest()).flatten().map(|l| l.0);
            exemplar.t = Some(pending.or_else(stored).ok_or(AppendError::InvalidExemplar)?);
        }
        let verdict = self.shared.head.exemplars.lock().check(id, &exemplar);
        match verdict {
            Ok(crate::exemplars::ExemplarVerdict::Store) => self.batch.exemplars.push((id, exemplar)),
            Ok(crate::exemplars::ExemplarVerdict::Known) => {}
            Err(why) => {
                self.shared.head.metrics.exemplars_refused.inc();
                return Err(why);
            }
        }
        Ok(())
    }

    fn update_metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError> {
        let id = self.known(series)?;
        let labels = self.shared.head.catalogue.read().labels(id).ok_or(AppendError::UnknownSeries)?;
        let metric = labels.value(METRIC_NAME);
        let known = self.shared.head.metadata.read().get(metric) == Some(metadata);
        let pending = self.batch.metadata.last().is_some_and(|(m, last)| m == metric && last == metadata);
        if !metric.is_empty() && !known && !pending {
            self.batch.metadata.push((metric.to_owned(), metadata.clone()));
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<CommitSummary, StorageError> {
        self.finish()
    }

    fn rollback(mut self: Box<Self>) {
        self.abandon();
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.abandon();
        self.shared.head.metrics.active_appenders.dec();
    }
}
