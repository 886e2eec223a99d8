//! A store for tests: a map of series, with the layouts, order rules and transactions of `model::storage::Append`.
#![cfg_attr(not(test), expect(dead_code, reason = "fuzzers only write"))]

use std::collections::BTreeMap;
use std::sync::Arc;

use model::storage::{
    ABSENT_BITS, Append, AppendError, AppendOptions, AppendSample, Appender, CommitSummary, LayoutRef,
    LayoutSlot, Row, RowOutcome, SeriesRef, StorageError,
};
use model::{Exemplar, Histogram, Labels, Metadata, SampleValue, Timestamp, is_stale_nan};
use parking_lot::Mutex;

#[derive(Debug, Default)]
struct Inner {
    series: BTreeMap<Labels, Vec<(Timestamp, SampleValue)>>,
    refs: Vec<Labels>,
    exemplars: Vec<(Labels, Exemplar)>,
    layouts: BTreeMap<u64, Vec<Option<Labels>>>,
    layouts_opened: u64,
    rows: usize,
    refuse_commits: bool,
    starts: Vec<Timestamp>,
}

/// The store; clones share their content.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeStore {
    inner: Arc<Mutex<Inner>>,
}

impl FakeStore {
    /// Samples of the only series with this name, `S` for staleness markers.
    pub(crate) fn samples(&self, name: &str) -> Vec<(Timestamp, String)> {
        let inner = self.inner.lock();
        let mut found = inner.series.iter().filter(|(labels, _)| labels.metric_name() == name);
        let samples = found.next().map(|(_, samples)| samples.clone()).unwrap_or_default();
        assert!(found.next().is_none(), "several series {name}: {:?}", inner.series.keys());
        samples.iter().map(|(t, v)| (*t, show(v))).collect()
    }

    /// Values of the only series with this name.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        self.samples(name).into_iter().map(|(_, value)| value).collect()
    }

    /// Last value of the only series with this name.
    pub(crate) fn last(&self, name: &str) -> Option<String> {
        self.values(name).pop()
    }

    /// All series with samples but those of the report, as text.
    pub(crate) fn series(&self) -> Vec<String> {
        let inner = self.inner.lock();
        inner
            .series
            .iter()
            .filter(|(labels, samples)| {
                let name = labels.metric_name();
                !samples.is_empty() && name != "up" && !name.starts_with("scrape_")
            })
            .map(|(labels, _)| labels.to_string())
            .collect()
    }

    /// Samples at `t` but those of the report, and staleness markers.
    pub(crate) fn at(&self, t: Timestamp) -> Vec<(String, String)> {
        let inner = self.inner.lock();
        let all = inner.series.iter().filter(|(labels, _)| !labels.metric_name().starts_with("scrape_"));
        let found = all.flat_map(|(labels, samples)| samples.iter().map(move |sample| (labels, sample)));
        found
            .filter(|(_, (at, value))| *at == t && !value.is_stale())
            .map(|(labels, (_, value))| (labels.to_string(), show(value)))
            .collect()
    }

    /// Start times that came with samples.
    pub(crate) fn starts(&self) -> Vec<Timestamp> {
        self.inner.lock().starts.clone()
    }

    pub(crate) fn exemplars(&self) -> Vec<(String, Exemplar)> {
        self.inner.lock().exemplars.iter().map(|(labels, e)| (labels.to_string(), e.clone())).collect()
    }

    /// Layouts that are open, and slots they have.
    pub(crate) fn layouts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.layouts.len(), inner.layouts.values().map(|slots| slots.iter().flatten().count()).sum())
    }

    /// Layouts that were ever opened.
    pub(crate) fn layouts_opened(&self) -> u64 {
        self.inner.lock().layouts_opened
    }

    pub(crate) fn rows(&self) -> usize {
        self.inner.lock().rows
    }

    /// Forgets all layouts, as a store that was restarted.
    pub(crate) fn forget_layouts(&self) {
        self.inner.lock().layouts.clear();
    }

    /// Makes commits fail.
    pub(crate) fn refuse_commits(&self, refuse: bool) {
        self.inner.lock().refuse_commits = refuse;
    }
}

/// Staleness markers are `S` or, of histograms, `HS`.
fn show(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(v) if is_stale_nan(*v) => "S".to_owned(),
        SampleValue::Float(v) => model::float::format_fixed(*v),
        histogram if histogram.is_stale() => "HS".to_owned(),
        SampleValue::Histogram(h) => format!("{} {}", h.schema, h.to_float()),
        SampleValue::FloatHistogram(h) => format!("float {} {h}", h.schema),
    }
}

/// Whether both are the same, NaNs by their bits.
fn same(a: &SampleValue, b: &SampleValue) -> bool {
    match (a, b) {
        (SampleValue::Float(a), SampleValue::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

impl Append for FakeStore {
    fn appender(&self, options: AppendOptions) -> Box<dyn Appender> {
        Box::new(FakeAppender { store: self.clone(), options, pending: Vec::new(), exemplars: Vec::new() })
    }
}

struct FakeAppender {
    store: FakeStore,
    options: AppendOptions,
    pending: Vec<(Labels, Timestamp, SampleValue)>,
    exemplars: Vec<(Labels, Exemplar)>,
}

/// Oldest time the store takes.
const T_MIN: Timestamp = 1000;

impl FakeAppender {
    fn check(
        &self,
        inner: &Inner,
        labels: &Labels,
        t: Timestamp,
        v: &SampleValue,
    ) -> Result<(), AppendError> {
        if t < T_MIN || self.options.max_time.is_some_and(|max| t > max) {
            return Err(AppendError::OutOfBounds);
        }
        match inner.series.get(labels).and_then(|samples| samples.last()) {
            Some((last, _)) if t < *last => Err(AppendError::OutOfOrder),
            Some((last, value)) if t == *last && !same(value, v) => Err(AppendError::Duplicate),
            _ => Ok(()),
        }
    }
}

impl Appender for FakeAppender {
    fn open_layout(&mut self) -> LayoutRef {
        let mut inner = self.store.inner.lock();
        inner.layouts_opened += 1;
        let id = inner.layouts_opened;
        inner.layouts.insert(id, Vec::new());
        LayoutRef(id)
    }

    fn extend_layout(&mut self, layout: LayoutRef, labels: &Labels) -> Result<LayoutSlot, AppendError> {
        let mut inner = self.store.inner.lock();
        let slots = inner.layouts.get_mut(&layout.0).ok_or(AppendError::UnknownSeries)?;
        slots.push(Some(labels.clone()));
        Ok(LayoutSlot(u32::try_from(slots.len() - 1).expect("few slots")))
    }

    fn slot_series(&self, layout: LayoutRef, slot: LayoutSlot) -> Option<SeriesRef> {
        let mut inner = self.store.inner.lock();
        let labels = inner.layouts.get(&layout.0)?.get(slot.0 as usize)?.clone()?;
        inner.refs.push(labels);
        Some(SeriesRef(inner.refs.len() as u64 - 1))
    }

    fn retire_slot(&mut self, layout: LayoutRef, slot: LayoutSlot) {
        let mut inner = self.store.inner.lock();
        let gone = inner.layouts.get_mut(&layout.0).map(|slots| slots[slot.0 as usize].take());
        assert!(matches!(gone, None | Some(Some(_))), "a slot is retired once");
    }

    fn close_layout(&mut self, layout: LayoutRef) {
        self.store.inner.lock().layouts.remove(&layout.0);
    }

    fn append_row_part(&mut self, _: LayoutSlot, _: &Row<'_>) -> RowOutcome {
        unreachable!("nobody here writes parts of rows")
    }

    fn append_row(&mut self, row: &Row<'_>) -> RowOutcome {
        let mut inner = self.store.inner.lock();
        inner.rows += 1;
        let mut outcome = RowOutcome::default();
        let Some(slots) = inner.layouts.get(&row.layout.0) else {
            outcome.error = Some(AppendError::UnknownSeries);
            return outcome;
        };
        for (index, value) in row.values.iter().enumerate() {
            if value.to_bits() == ABSENT_BITS {
                continue;
            }
            let labels = slots[index].as_ref().expect("values only for slots in use");
            let value = SampleValue::Float(*value);
            match self.check(&inner, labels, row.t, &value) {
                Ok(()) => {
                    self.pending.push((labels.clone(), row.t, value));
                    outcome.appended += 1;
                }
                Err(error) => {
                    outcome.refused.push((LayoutSlot(u32::try_from(index).expect("few slots")), error))
                }
            }
        }
        outcome
    }

    fn append(
        &mut self,
        series: Option<SeriesRef>,
        labels: &Labels,
        sample: AppendSample,
    ) -> Result<SeriesRef, AppendError> {
        let mut inner = self.store.inner.lock();
        let last = inner.series.get(labels).and_then(|samples| samples.last());
        let value = match sample.value {
            // As the real store does it.
            value
                if value.is_stale()
                    && last.is_some_and(|(_, last)| !matches!(last, SampleValue::Float(_))) =>
            {
                let stale = Histogram { sum: model::stale_nan(), ..Histogram::default() };
                if let SampleValue::Float(_) = value {
                    SampleValue::Histogram(Arc::new(stale))
                } else {
                    value
                }
            }
            value => value,
        };
        inner.starts.extend(sample.start);
        match &value {
            SampleValue::Float(_) => {}
            SampleValue::Histogram(h) => h.validate().map_err(AppendError::InvalidHistogram)?,
            SampleValue::FloatHistogram(h) => h.validate().map_err(AppendError::InvalidHistogram)?,
        }
        self.check(&inner, labels, sample.t, &value)?;
        let reference = match series {
            Some(reference) => {
                assert_eq!(&inner.refs[usize::try_from(reference.0).expect("few series")], labels);
                reference
            }
            None => {
                inner.refs.push(labels.clone());
                SeriesRef(inner.refs.len() as u64 - 1)
            }
        };
        self.pending.push((labels.clone(), sample.t, value));
        Ok(reference)
    }

    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        let inner = self.store.inner.lock();
        let labels = inner.refs[usize::try_from(series.0).expect("few series")].clone();
        let newest = inner.exemplars.iter().filter(|(of, _)| *of == labels).map(|(_, e)| e.t).max();
        if newest.is_some_and(|newest| exemplar.t < newest) {
            return Err(AppendError::OutOfOrder);
        }
        drop(inner);
        self.exemplars.push((labels, exemplar.clone()));
        Ok(())
    }

    fn update_metadata(&mut self, _series: SeriesRef, _metadata: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<CommitSummary, StorageError> {
        let mut inner = self.store.inner.lock();
        if inner.refuse_commits {
            return Err(StorageError::NotReady("a test"));
        }
        let samples = self.pending.len() as u64;
        for (labels, t, v) in self.pending {
            let column = inner.series.entry(labels).or_default();
            // Within a transaction the first sample of a time wins, and none goes back.
            if column.last().is_none_or(|(last, _)| *last < t) {
                column.push((t, v));
            }
        }
        inner.exemplars.extend(self.exemplars);
        Ok(CommitSummary { samples, series_created: 0 })
    }

    fn rollback(self: Box<Self>) {}
}
