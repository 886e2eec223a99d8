//! Series in memory, as a store: for scripts, tests and benches.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use model::histogram::CounterResetHint;
use model::storage::{
    LabelHints, LabelList, Querier, Queryable, SelectHints, SeriesColumns, SeriesSet, StorageError,
};
use model::{FloatHistogram, Labels, Matcher, TimeRange, Timestamp};

/// A sample with all that can be known of it.
#[derive(Clone, Debug)]
pub enum MemorySample {
    /// A float (the staleness marker is one).
    Float {
        /// Its value.
        value: f64,
        /// Its start timestamp, 0 when unknown.
        start: Timestamp,
    },
    /// A native histogram.
    Histogram {
        /// The histogram.
        histogram: Arc<FloatHistogram>,
        /// Its start timestamp, 0 when unknown.
        start: Timestamp,
    },
}

type Series = BTreeMap<Timestamp, MemorySample>;

/// Series in memory. A view sees what was there when it was made.
///
/// Histograms come back with the hints that a store of chunks would give: "no reset" where a histogram continues the
/// one before, "unknown" where it begins anew.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    series: Arc<BTreeMap<Labels, Arc<Series>>>,
}

impl MemoryStorage {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample, replacing one at the same time.
    pub fn add(&mut self, labels: &Labels, t: Timestamp, sample: MemorySample) {
        let series = Arc::make_mut(&mut self.series).entry(labels.clone()).or_default();
        Arc::make_mut(series).insert(t, sample);
    }

    /// Adds a float sample.
    pub fn add_float(&mut self, labels: &Labels, t: Timestamp, value: f64) {
        self.add(labels, t, MemorySample::Float { value, start: 0 });
    }
}

impl Queryable for MemoryStorage {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(View { series: Arc::clone(&self.series), range }))
    }
}

struct View {
    series: Arc<BTreeMap<Labels, Arc<Series>>>,
    range: TimeRange,
}

impl View {
    fn matching<'a>(&'a self, matchers: &'a [Matcher]) -> impl Iterator<Item = &'a Labels> {
        self.series.keys().filter(|labels| Matcher::all_match(matchers, labels))
    }
}

impl Querier for View {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let range = hints.range.unwrap_or(self.range);
        let range = TimeRange::new(range.min.max(self.range.min), range.max.min(self.range.max));
        let series = self
            .series
            .iter()
            .filter(|(labels, _)| Matcher::all_match(matchers, labels))
            .map(|(labels, samples)| (labels.clone(), Arc::clone(samples)))
            .collect();
        Ok(Box::new(Selected { series, only_labels: hints.only_labels.clone(), range }))
    }

    fn label_names(&self, matchers: &[Matcher], _: &LabelHints) -> Result<LabelList, StorageError> {
        let names = self.matching(matchers).flat_map(|labels| labels.iter().map(|(name, _)| name.to_owned()));
        Ok(list(names.collect()))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        _: &LabelHints,
    ) -> Result<LabelList, StorageError> {
        let values = self.matching(matchers).filter_map(|labels| labels.get(name).map(str::to_owned));
        Ok(list(values.collect()))
    }
}

fn list(mut items: Vec<String>) -> LabelList {
    items.sort_unstable();
    items.dedup();
    LabelList { items, ..LabelList::default() }
}

struct Selected {
    series: Vec<(Labels, Arc<Series>)>,
    only_labels: Option<Vec<String>>,
    range: TimeRange,
}

impl SeriesSet for Selected {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.series[index].0.clone()
    }

    fn labels_of(&self, range: Range<usize>) -> Vec<Labels> {
        let wanted = |name: &str| self.only_labels.iter().flatten().any(|own| own == name);
        let labels = self.series[range].iter().map(|(labels, _)| match self.only_labels {
            Some(_) => labels.filtered(wanted),
            None => labels.clone(),
        });
        labels.collect()
    }

    fn read(&self, index: usize, into: &mut SeriesColumns) -> Result<(), StorageError> {
        into.clear();
        if self.range.min > self.range.max {
            return Ok(());
        }
        let samples = &self.series[index].1;
        // The histogram right before, whatever the range: it decides on the first hint.
        let mut previous = match samples.range(..self.range.min).next_back() {
            Some((_, MemorySample::Histogram { histogram, .. })) => Some(Arc::clone(histogram)),
            _ => None,
        };
        let (mut float_starts, mut histogram_starts) = (false, false);
        for (t, sample) in samples.range(self.range.min..=self.range.max) {
            match sample {
                MemorySample::Float { value, start } => {
                    into.float_times.push(*t);
                    into.float_values.push(*value);
                    into.float_starts.push(*start);
                    float_starts |= *start != 0;
                    previous = None;
                }
                MemorySample::Histogram { histogram, start } => {
                    into.histogram_times.push(*t);
                    into.histograms.push(as_stored(histogram, previous.as_deref()));
                    into.histogram_starts.push(*start);
                    histogram_starts |= *start != 0;
                    previous = Some(Arc::clone(histogram));
                }
            }
        }
        if !float_starts {
            into.float_starts.clear();
        }
        if !histogram_starts {
            into.histogram_starts.clear();
        }
        Ok(())
    }
}

fn as_stored(histogram: &Arc<FloatHistogram>, previous: Option<&FloatHistogram>) -> Arc<FloatHistogram> {
    use CounterResetHint::{Gauge, NotCounterReset, Unknown};
    if histogram.counter_reset_hint == Gauge || histogram.is_stale() {
        return Arc::clone(histogram);
    }
    let continues = previous.is_some_and(|previous| {
        previous.counter_reset_hint != Gauge && !previous.is_stale() && !histogram.is_reset_after(previous)
    });
    let hint = if continues { NotCounterReset } else { Unknown };
    if histogram.counter_reset_hint == hint {
        return Arc::clone(histogram);
    }
    Arc::new(FloatHistogram { counter_reset_hint: hint, ..FloatHistogram::clone(histogram) })
}
