//! Samples of zero at the times since when counters count.
//!
//! With `created-timestamp-zero-ingestion` a counter that is new, or was reset, gets a sample of 0 at the time that the page says it
//! began at, so that what it counted up to its first scrape is seen as an increase. Such a sample comes before those of the
//! scrape and only at the end of the series as stored: a start that is already covered by samples is none.

use std::sync::Arc;

use model::histogram::CounterResetHint;
use model::storage::{Append, AppendOptions};
use model::{FloatHistogram, Histogram, SampleValue, Timestamp};

use super::series::SeriesTable;

/// Zeros to store before the scrape that told their times.
#[derive(Debug, Default)]
pub(super) struct Zeros {
    /// Place of the series, the time, and a sample of the kind it is to be.
    pending: Vec<(u32, Timestamp, SampleValue)>,
}

impl Zeros {
    /// Notes that the series of a sample began at `start`.
    pub(super) fn note(
        &mut self,
        series: &mut SeriesTable,
        place: u32,
        start: Option<Timestamp>,
        value: &SampleValue,
    ) {
        if let Some(start) = start
            && series.starts_anew(place, start)
        {
            self.pending.push((place, start, zero_like(value)));
        }
    }

    /// Forgets what was noted.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    /// Stores what was noted, in a transaction of its own: late samples are refused here even where a window would take them.
    pub(super) fn store(&mut self, series: &mut SeriesTable, store: &dyn Append, max_time: Timestamp) {
        if self.pending.is_empty() {
            return;
        }
        let options = AppendOptions { max_time: Some(max_time), reject_out_of_order: true };
        let mut app = store.appender(options);
        for (place, start, value) in self.pending.drain(..) {
            // Refusals are the rule: the series has samples from after its start.
            let _ = series.append_single(app.as_mut(), place, start, &value, None);
        }
        if let Err(error) = app.commit() {
            tracing::warn!(%error, "cannot store the start times of counters");
        }
    }
}

/// What a series of such samples began with.
fn zero_like(value: &SampleValue) -> SampleValue {
    let counter_reset_hint = CounterResetHint::CounterReset;
    match value {
        SampleValue::Float(_) => SampleValue::Float(0.0),
        SampleValue::Histogram(h) => SampleValue::Histogram(Arc::new(Histogram {
            counter_reset_hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: Arc::clone(&h.custom_values),
            ..Histogram::default()
        })),
        SampleValue::FloatHistogram(h) => SampleValue::FloatHistogram(Arc::new(FloatHistogram {
            counter_reset_hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: Arc::clone(&h.custom_values),
            ..FloatHistogram::default()
        })),
    }
}
