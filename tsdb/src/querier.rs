//! Reading: views, selections, and the decoding of one series.

use std::sync::Arc;

use model::annotations::Annotations;
use model::histogram::{CounterResetHint, FloatHistogram};
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::{TimeRange, Timestamp};
use model::storage::{LabelHints, LabelList, Querier, SelectHints, SeriesColumns, SeriesSet, StorageError};

use crate::chunk::{HistogramValue, decode_floats, decode_histograms};
use crate::coding::DecodeError;
use crate::db::Shared;
use crate::head::series::{Snapshot, Stored};
use crate::head::view::View;

/// A view of a span of time.
#[derive(Debug)]
pub(crate) struct HeadQuerier {
    shared: Arc<Shared>,
    range: TimeRange,
    view: Arc<View>,
}

impl HeadQuerier {
    pub(crate) fn new(shared: Arc<Shared>, range: TimeRange) -> Self {
        let view = Arc::new(shared.head.views.open());
        Self { shared, range, view }
    }

    /// Whether the view may see anything at all.
    fn sees_something(&self) -> bool {
        self.shared.head.range().is_some_and(|range| range.overlaps(&self.range))
    }

    fn ids(&self, matchers: &[Matcher], range: TimeRange) -> Vec<u32> {
        let mut ids = self.shared.head.catalogue.read().select(matchers);
        self.shared.head.table.filter(&mut ids, |series| series.may_overlap(range));
        ids
    }

    fn clamped(&self, hinted: Option<TimeRange>) -> TimeRange {
        let hinted = hinted.unwrap_or(self.range);
        TimeRange::new(self.range.min.max(hinted.min).max(self.view.floor), self.range.max.min(hinted.max))
    }
}

impl Querier for HeadQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let range = self.clamped(hints.range);
        let mut ids = if range.min <= range.max { self.ids(matchers, range) } else { Vec::new() };
        if hints.sorted {
            self.shared.head.catalogue.read().sort_by_labels(&mut ids);
        }
        if hints.limit > 0 {
            ids.truncate(hints.limit);
        }
        let (shared, view) = (Arc::clone(&self.shared), Arc::clone(&self.view));
        Ok(Box::new(Selection { shared, view, ids, range }))
    }

    fn label_names(&self, matchers: &[Matcher], hints: &LabelHints) -> Result<LabelList, StorageError> {
        if !self.sees_something() {
            return Ok(LabelList::default());
        }
        if matchers.is_empty() {
            let catalogue = self.shared.head.catalogue.read();
            return Ok(list(catalogue.label_names(), hints.limit));
        }
        let ids = self.ids(matchers, self.clamped(None));
        let catalogue = self.shared.head.catalogue.read();
        Ok(list(catalogue.label_names_of(&ids), hints.limit))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelHints,
    ) -> Result<LabelList, StorageError> {
        if !self.sees_something() {
            return Ok(LabelList::default());
        }
        if matchers.is_empty() {
            let catalogue = self.shared.head.catalogue.read();
            return Ok(list(catalogue.label_values(name), hints.limit));
        }
        let ids = self.ids(matchers, self.clamped(None));
        let catalogue = self.shared.head.catalogue.read();
        Ok(list(catalogue.label_values_of(name, &ids), hints.limit))
    }
}

fn list<'a>(items: impl IntoIterator<Item = &'a str>, limit: usize) -> LabelList {
    let most = if limit == 0 { usize::MAX } else { limit };
    let mut items = items.into_iter();
    let taken: Vec<String> = items.by_ref().take(most).map(str::to_owned).collect();
    LabelList { items: taken, truncated: items.next().is_some(), annotations: Annotations::new() }
}

/// Selected series. Reading one copies its compressed bytes under a lock and decodes them outside of it.
#[derive(Debug)]
struct Selection {
    shared: Arc<Shared>,
    view: Arc<View>,
    ids: Vec<u32>,
    range: TimeRange,
}

impl SeriesSet for Selection {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn labels(&self, index: usize) -> Labels {
        let labels = self.shared.head.catalogue.read().labels(self.ids[index]);
        labels.expect("labels are kept while a view is open that may have found the series")
    }

    fn read(&self, index: usize, into: &mut SeriesColumns) -> Result<(), StorageError> {
        into.clear();
        let commit = self.view.commit;
        let copy = self.shared.head.table.with(self.ids[index], |series| series.snapshot(self.range, commit));
        let Some(snapshot) = copy else { return Ok(()) };
        decode(&snapshot, self.range, commit, into).map_err(|what| StorageError::Corrupted {
            file: "(head in memory)".into(),
            offset: 0,
            what: what.to_string(),
        })
    }
}

/// Decodes what `snapshot` holds of `range` for a view of `commit`.
pub(crate) fn decode(
    snapshot: &Snapshot,
    range: TimeRange,
    commit: u64,
    into: &mut SeriesColumns,
) -> Result<(), DecodeError> {
    let mut rows: Vec<(Timestamp, u64)> = Vec::new();
    let mut hidden_from = snapshot.hidden_from;
    if let Some((window, slot)) = &snapshot.window {
        let window = window.inner.read();
        hidden_from = [hidden_from, window.steps.hidden_from(commit)].into_iter().flatten().min();
        window.slot(*slot, |t, bits| {
            if range.contains(t) {
                rows.push((t, bits));
            }
        });
    }
    let visible = |t: Timestamp| hidden_from.is_none_or(|hidden| t < hidden);
    let mut histograms: Vec<(Timestamp, HistogramValue)> = Vec::new();
    for part in &snapshot.parts {
        let bytes = &snapshot.bytes[part.at.clone()];
        let take = |t: Timestamp| range.contains(t) && (part.out_of_order || visible(t));
        if part.histogram {
            decode_histograms(bytes, |t, histogram| {
                if take(t) {
                    histograms.push((t, histogram));
                }
            })?;
        } else {
            decode_floats(bytes, part.times.as_deref(), |t, bits| {
                if take(t) {
                    into.float_times.push(t);
                    into.float_values.push(f64::from_bits(bits));
                }
            })?;
        }
    }
    for (t, bits) in rows.into_iter().filter(|(t, _)| visible(*t)) {
        into.float_times.push(t);
        into.float_values.push(f64::from_bits(bits));
    }
    histograms.extend(snapshot.histograms.iter().filter(|(t, _)| visible(*t)).cloned());
    for (t, value) in &snapshot.out_of_order {
        match value {
            Stored::Float(bits) => {
                into.float_times.push(*t);
                into.float_values.push(f64::from_bits(*bits));
            }
            Stored::Histogram(histogram) => histograms.push((*t, histogram.clone())),
        }
    }
    merge_floats(into);
    merge_histograms(histograms, into);
    if !snapshot.starts.is_empty() {
        into.float_starts = snapshot.starts.column(&into.float_times);
        into.histogram_starts = snapshot.starts.column(&into.histogram_times);
    }
    Ok(())
}

fn ascend(times: &[Timestamp]) -> bool {
    times.windows(2).all(|pair| pair[0] < pair[1])
}

/// Brings out-of-order samples to their places. Parts in order of time come first and win over repetitions.
fn merge_floats(into: &mut SeriesColumns) {
    if ascend(&into.float_times) {
        return;
    }
    let mut samples: Vec<(Timestamp, f64)> =
        into.float_times.drain(..).zip(into.float_values.drain(..)).collect();
    samples.sort_by_key(|sample| sample.0);
    samples.dedup_by_key(|sample| sample.0);
    (into.float_times, into.float_values) = samples.into_iter().unzip();
}

fn merge_histograms(mut histograms: Vec<(Timestamp, HistogramValue)>, into: &mut SeriesColumns) {
    let merged = !histograms.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if merged {
        histograms.sort_by_key(|sample| sample.0);
        histograms.dedup_by_key(|sample| sample.0);
    }
    for (t, histogram) in histograms {
        into.histogram_times.push(t);
        let mut histogram: Arc<FloatHistogram> = histogram.to_float();
        // A hint speaks of the predecessor that the sender knew; with others in between it may be wrong.
        let hint = histogram.counter_reset_hint;
        if merged && !matches!(hint, CounterResetHint::Gauge | CounterResetHint::Unknown) {
            Arc::make_mut(&mut histogram).counter_reset_hint = CounterResetHint::Unknown;
        }
        into.histograms.push(histogram);
    }
}
