//! The series every scrape reports about itself: `up` and the others.

use model::labels::METRIC_NAME;
use model::sample::stale_nan;
use model::storage::{Appender, LayoutRef, LayoutSlot, Row};
use model::{Labels, LabelsBuilder, Timestamp};

/// Names, in the order of [`ReportValues::columns`]; the last three are extra.
const NAMES: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];
/// Columns without extra ones.
const PLAIN: usize = 5;

/// What a scrape says about itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ReportValues {
    pub(crate) up: bool,
    pub(crate) duration_seconds: f64,
    pub(crate) scraped: u64,
    pub(crate) post_relabeling: u64,
    pub(crate) series_added: u64,
    /// Timeout in seconds, sample limit, size of the body (-1: too large), when asked for.
    pub(crate) extra: Option<(f64, u64, i64)>,
}

impl ReportValues {
    fn columns(&self) -> ([f64; NAMES.len()], usize) {
        let (timeout, limit, size) = self.extra.unwrap_or_default();
        let columns = [
            if self.up { 1.0 } else { 0.0 },
            self.duration_seconds,
            self.scraped as f64,
            self.post_relabeling as f64,
            self.series_added as f64,
            timeout,
            limit as f64,
            size as f64,
        ];
        (columns, if self.extra.is_some() { NAMES.len() } else { PLAIN })
    }
}

/// The layout of the report series of one target.
#[derive(Debug, Default)]
pub(super) struct ReportLayout {
    layout: Option<(LayoutRef, Vec<LayoutSlot>)>,
    row: Vec<f64>,
}

impl ReportLayout {
    /// Appends the report. Refusals are expected when the target was scraped by another loop before: then they are
    /// out of order and the other's report stands.
    pub(super) fn append(
        &mut self,
        app: &mut dyn Appender,
        target: &Labels,
        t: Timestamp,
        values: &ReportValues,
    ) {
        let (columns, count) = values.columns();
        self.append_columns(app, target, t, &columns[..count]);
    }

    /// Ends the report series.
    pub(super) fn append_stale(&mut self, app: &mut dyn Appender, target: &Labels, t: Timestamp) {
        let count = self.layout.as_ref().map_or(0, |(_, slots)| slots.len());
        let columns = [stale_nan(); NAMES.len()];
        self.append_columns(app, target, t, &columns[..count.min(NAMES.len())]);
    }

    fn append_columns(&mut self, app: &mut dyn Appender, target: &Labels, t: Timestamp, columns: &[f64]) {
        if columns.is_empty() {
            return;
        }
        for attempt in 0..2 {
            if !self.open(app, target, columns.len()) {
                return;
            }
            let Some((layout, slots)) = &self.layout else { return };
            let absent = f64::from_bits(model::storage::ABSENT_BITS);
            self.row.fill(absent);
            for (slot, value) in slots.iter().zip(columns) {
                let index = slot.0 as usize;
                if self.row.len() <= index {
                    self.row.resize(index + 1, absent);
                }
                self.row[index] = *value;
            }
            let outcome = app.append_row(&Row { layout: *layout, t, values: &self.row });
            match outcome.error {
                // The store does not know the layout (any more): tell it again, once.
                Some(_) if attempt == 0 => self.layout = None,
                Some(error) => tracing::warn!(%error, "cannot store the report of a scrape"),
                None => return,
            }
        }
    }

    /// Makes sure that the layout has at least `count` series.
    fn open(&mut self, app: &mut dyn Appender, target: &Labels, count: usize) -> bool {
        let (layout, slots) = self.layout.get_or_insert_with(|| (app.open_layout(), Vec::new()));
        while slots.len() < count {
            let mut labels = LabelsBuilder::from(target);
            labels.set(METRIC_NAME, NAMES[slots.len()]);
            match app.extend_layout(*layout, &labels.build()) {
                Ok(slot) => slots.push(slot),
                Err(error) => {
                    tracing::warn!(%error, "cannot introduce the report series of a target");
                    self.layout = None;
                    return false;
                }
            }
        }
        true
    }

    /// Gives the layout back.
    pub(super) fn close(&mut self, app: &mut dyn Appender) {
        if let Some((layout, _)) = self.layout.take() {
            app.close_layout(layout);
        }
    }
}
