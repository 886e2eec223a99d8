//! What is known of a target between scrapes, and how a page becomes samples in the store.
//!
//! A page mostly has the lines of the last page, in the same order, with other numbers. [`LineCache`] knows each line's
//! series text and the line that came after it last time, so an unchanged line costs one comparison of bytes;
//! [`SeriesTable`] knows the labels a line ended up with (target labels added, relabelled) and its slot in the target's
//! append layout, so a sample is a number put into a row. Only new lines are decoded, relabelled, and introduced
//! to the store.
//!
//! The rules are Prometheus' (`scrapeLoop.append`): what counts as a duplicate, what a limit counts, which series get
//! staleness markers, also in scrapes that fail half way.

mod converted;
mod families;
mod labelling;
mod limits;
mod lines;
mod meta;
mod pass;
mod report;
mod series;
mod text;
mod zeros;

#[cfg(test)]
mod histogram_tests;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use limits::{HistogramSettings, schema_for_factor};
pub(crate) use meta::MetadataList;
pub(crate) use pass::{Input, PassConfig, PassCounts};
pub(crate) use report::ReportValues;

#[cfg(test)]
pub(crate) use tests::Bench;

use std::collections::BTreeMap;
use std::sync::Arc;

use converted::Converter;
use lines::LineCache;
use meta::MetadataCache;
use model::Timestamp;
use model::storage::{Append, AppendOptions, Appender, StorageError};
use report::ReportLayout;
use series::SeriesTable;
use zeros::Zeros;

use crate::error::ScrapeError;

/// How far into the future a sample may lie.
const AHEAD_MAX_MS: i64 = 10 * 60 * 1000;
/// Number of the first scrape. Marks start at 0, which must not look like "in the last scrape".
const FIRST_ITERATION: u64 = 2;
/// Lines a cache may grow by while scrapes fail, beside doubling, before it is cut back.
const GROWTH_MAX: usize = 1000;

/// Everything known of one target.
#[derive(Debug, Default)]
pub(crate) struct ScrapeState {
    lines: LineCache,
    series: SeriesTable,
    metadata: MetadataCache,
    converter: Converter,
    zeros: Zeros,
    report: ReportLayout,
    /// Number of the scrape; 0 means "never" in all the marks.
    iteration: u64,
    /// Lines and families after the last success.
    count_at_success: usize,
    /// Names of series that relabelling dropped, and how many; counted only for people who ask about one scrape.
    dropped: Option<BTreeMap<String, u64>>,
    /// Bytes of the last page, uncompressed; 0 before the first.
    pub(crate) text_bytes: usize,
}

/// When a scrape was and when it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScrapeTimes {
    /// Time of its samples.
    pub(crate) t: Timestamp,
    /// Wall clock.
    pub(crate) now_ms: Timestamp,
}

/// What came of storing one scrape.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) counts: PassCounts,
    /// Why the scrape failed, if it did.
    pub(crate) error: Option<ScrapeError>,
    /// The new list of families, if it changed.
    pub(crate) metadata: Option<Arc<MetadataList>>,
}

impl ScrapeState {
    pub(crate) fn new() -> Self {
        Self { iteration: FIRST_ITERATION, ..Self::default() }
    }

    /// For one scrape that somebody wants to know all about: counts by name what relabelling drops.
    pub(crate) fn noting_dropped() -> Self {
        Self { dropped: Some(BTreeMap::new()), ..Self::new() }
    }

    /// What relabelling dropped, by name.
    pub(crate) fn dropped(&self) -> BTreeMap<String, u64> {
        self.dropped.clone().unwrap_or_default()
    }

    /// Whether there ever was a scrape.
    pub(crate) fn has_stored(&self) -> bool {
        self.iteration > FIRST_ITERATION
    }

    /// Forgets what lines mean (relabelling has changed), but not which series there were: those that do not come
    /// again get staleness markers.
    pub(crate) fn forget_lines(&mut self) {
        self.lines = LineCache::default();
        self.series.forget_lines();
        self.converter = Converter::default();
    }

    /// Stores a scrape: `input` and the report series. When the scrape failed (`failure` says so, or `input` turns out to
    /// be broken), what it had is not stored, but staleness markers for its series and a report with `up 0` are. A
    /// failed collection may give samples all the same; those are stored.
    pub(crate) fn store(
        &mut self,
        store: &dyn Append,
        config: &PassConfig,
        input: &Input<'_>,
        failure: Option<ScrapeError>,
        times: &ScrapeTimes,
        report: impl FnOnce(&PassCounts, Option<&ScrapeError>) -> ReportValues,
    ) -> Stored {
        let max_time = times.now_ms.saturating_add(AHEAD_MAX_MS);
        let options = AppendOptions { max_time: Some(max_time), reject_out_of_order: false };
        let t = times.t;
        let mut app = store.appender(options.clone());
        let mut error = failure;
        let mut counts = PassCounts::default();
        let success = error.is_none() && !input.is_empty();
        match self.pass(app.as_mut(), config, input, t, max_time, &mut counts) {
            Ok(()) => {
                self.zeros.store(&mut self.series, store, max_time);
                self.end_iteration(app.as_mut(), success, &mut counts);
            }
            Err(failure) => {
                error = error.or(Some(failure));
                self.zeros.clear();
                app.rollback();
                app = store.appender(options);
                self.series.forget_offered();
                self.mark_stale_only(app.as_mut(), t);
                self.end_iteration(app.as_mut(), false, &mut counts);
            }
        }
        let values = report(&counts, error.as_ref());
        self.report.append(app.as_mut(), &config.target_labels, t, &values);
        if let Err(failure) = app.commit() {
            self.series.forget_offered();
            error = Some(ScrapeError::Storage(Arc::new(failure)));
        }
        Stored { counts, error, metadata: self.metadata.take_changed() }
    }

    /// Staleness markers for everything, report series included: the target has gone. `t` should lie between the last
    /// scrape and now; where another loop has taken over the series since, the store refuses the markers as out of
    /// order, which is right.
    pub(crate) fn store_end(
        &mut self,
        store: &dyn Append,
        config: &PassConfig,
        t: Timestamp,
    ) -> Result<(), Arc<StorageError>> {
        let mut app = store.appender(AppendOptions { max_time: None, reject_out_of_order: true });
        self.mark_stale_only(app.as_mut(), t);
        self.report.append_stale(app.as_mut(), &config.target_labels, t);
        self.series.close(app.as_mut());
        self.report.close(app.as_mut());
        app.commit().map(|_| ()).map_err(Arc::new)
    }

    /// Gives the layouts back to the store: nobody will scrape this target any more.
    pub(crate) fn close(&mut self, store: &dyn Append) {
        let mut app = store.appender(AppendOptions::default());
        self.series.close(app.as_mut());
        self.report.close(app.as_mut());
        if let Err(error) = app.commit() {
            tracing::debug!(%error, "cannot close append layouts");
        }
    }

    fn mark_stale_only(&mut self, app: &mut dyn Appender, t: Timestamp) {
        self.series.begin_row();
        self.series.mark_stale(app, self.iteration, t);
        self.series.append_row(app, t, self.iteration, &mut PassCounts::default());
    }

    /// Swaps "this scrape" and "the last one"; after a success also forgets what the page no longer has.
    fn end_iteration(&mut self, app: &mut dyn Appender, success: bool, counts: &mut PassCounts) {
        let count = self.lines.len() + self.metadata.len();
        let mut flush = success;
        if success {
            self.count_at_success = count;
        } else if count > self.count_at_success * 2 + GROWTH_MAX {
            flush = true;
            counts.cache_flushed = true;
        }
        if flush {
            let iteration = self.iteration;
            let series = &mut self.series;
            self.lines.retain(|line| {
                let keep = line.last_seen == iteration;
                if !keep {
                    series.line_gone(line.meaning);
                }
                keep
            });
            self.converter.flush(iteration);
            self.metadata.flush(iteration);
            self.series.flush(app, iteration);
        }
        self.series.end_iteration();
        self.iteration += 1;
    }

    /// Labels of the series that would get staleness markers if the target went now (tests).
    #[cfg(test)]
    pub(crate) fn live_series(&self) -> Vec<model::Labels> {
        self.series.tracked_at(self.iteration - 1)
    }
}
