//! Series a target has, their slots in its append layout, and the row of the present scrape.

use std::collections::HashMap;

use model::sample::stale_nan;
use model::storage::{
    ABSENT_BITS, AppendError, AppendSample, Appender, LayoutRef, LayoutSlot, Row, RowOutcome, SeriesRef,
};
use model::{Labels, SampleValue, Timestamp, is_stale_nan};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::lines::Meaning;
use super::pass::PassCounts;
use crate::exposition::RawExemplar;

/// Retired slots a layout may have, beside as many as live ones, before it is opened anew.
const RETIRED_MAX: usize = 64;

/// A series of the target.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    /// Place in the layout, once it had a sample at the time of a scrape.
    slot: Option<LayoutSlot>,
    /// Reference in the store, once it had a sample of its own time or an exemplar.
    pub(super) reference: Option<SeriesRef>,
    /// Scrape that last had it in a way that calls for a staleness marker when it goes.
    tracked: u64,
    /// Scrape in whose row it is, or in which it had a histogram at the same time beside the row.
    in_row: u64,
    /// Lines that mean it.
    lines: u32,
    /// The exemplar that came last, or a hash of several: the same ones are not decoded and offered at each scrape again.
    last_exemplar: Option<Box<LastExemplar>>,
    /// Whether the last sample was a histogram.
    histogram: bool,
    /// The start time for which there is a sample of zero; 0 is none.
    zero_at: Timestamp,
}

#[derive(Debug, PartialEq)]
enum LastExemplar {
    One { labels: Box<[u8]>, value_bits: u64, t: Option<Timestamp> },
    Several(u64),
}

/// The series of a target.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    series: Vec<Option<Series>>,
    free: Vec<u32>,
    by_labels: HashMap<Labels, u32>,
    layout: Option<LayoutRef>,
    /// Series in each slot.
    slots: Vec<Option<u32>>,
    retired: usize,
    /// The row of the present scrape, by slot.
    row: Vec<f64>,
    /// Whether the row has any value.
    row_used: bool,
    /// Number of series tracked in the last scrape, and of those how many came again; and how many in this one.
    tracked_before: usize,
    tracked_again: usize,
    tracked_now: usize,
}

impl SeriesTable {
    pub(super) fn get(&self, place: u32) -> &Series {
        self.series[place as usize].as_ref().expect("lines refer to series that are there")
    }

    fn get_mut(&mut self, place: u32) -> &mut Series {
        self.series[place as usize].as_mut().expect("lines refer to series that are there")
    }

    /// The series with these labels, made if need be. `None` when there is no number left.
    pub(super) fn find_or_insert(&mut self, labels: &Labels) -> Option<u32> {
        if let Some(place) = self.by_labels.get(labels) {
            return Some(*place);
        }
        let series = Series {
            labels: labels.clone(),
            slot: None,
            reference: None,
            tracked: 0,
            in_row: 0,
            lines: 0,
            last_exemplar: None,
            histogram: false,
            zero_at: 0,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.series[place as usize] = Some(series);
                place
            }
            None => {
                let place = u32::try_from(self.series.len()).ok()?;
                self.series.push(Some(series));
                place
            }
        };
        self.by_labels.insert(labels.clone(), place);
        Some(place)
    }

    /// Whether an exemplar is the one that came last; remembers it if not.
    pub(super) fn is_last_exemplar(&mut self, place: u32, raw: &RawExemplar<'_>) -> bool {
        let last = &mut self.get_mut(place).last_exemplar;
        let value_bits = raw.value.to_bits();
        if let Some(LastExemplar::One { labels, value_bits: bits, t }) = last.as_deref()
            && (labels.as_ref(), *bits, *t) == (raw.labels, value_bits, raw.t)
        {
            return true;
        }
        *last = Some(Box::new(LastExemplar::One { labels: raw.labels.into(), value_bits, t: raw.t }));
        false
    }

    /// Whether several exemplars are those that came last; remembers them if not.
    pub(super) fn are_last_exemplars<'a>(
        &mut self,
        place: u32,
        raw: impl Iterator<Item = RawExemplar<'a>>,
    ) -> bool {
        let hash = raw.fold(0, |hash, raw| {
            let seed = hash ^ raw.value.to_bits().rotate_left(32) ^ raw.t.unwrap_or(0).unsigned_abs();
            xxh3_64_with_seed(raw.labels, seed)
        });
        let last = &mut self.get_mut(place).last_exemplar;
        if last.as_deref() == Some(&LastExemplar::Several(hash)) {
            return true;
        }
        *last = Some(Box::new(LastExemplar::Several(hash)));
        false
    }

    /// Forgets which exemplar of a series came last.
    pub(super) fn forget_exemplar(&mut self, place: u32) {
        self.get_mut(place).last_exemplar = None;
    }

    /// Forgets which exemplars and start times came last: they may not have been stored.
    pub(super) fn forget_offered(&mut self) {
        for series in self.series.iter_mut().flatten() {
            series.last_exemplar = None;
            series.zero_at = 0;
        }
    }

    /// Whether the series begins at another time than the one that was noted last; notes it.
    pub(super) fn starts_anew(&mut self, place: u32, start: Timestamp) -> bool {
        std::mem::replace(&mut self.get_mut(place).zero_at, start) != start
    }

    /// The reference of the series, which has a slot or had a sample beside the row.
    pub(super) fn reference(&self, app: &dyn Appender, place: u32) -> Option<SeriesRef> {
        let series = self.get(place);
        match (self.layout, series.slot) {
            (Some(layout), Some(slot)) => app.slot_series(layout, slot),
            _ => None,
        }
        .or(series.reference)
    }

    /// One more line means the series.
    pub(super) fn add_line(&mut self, place: u32) {
        self.get_mut(place).lines += 1;
    }

    /// A line has been forgotten.
    pub(super) fn line_gone(&mut self, meaning: Meaning) {
        if let Meaning::Series(place) = meaning {
            let series = self.get_mut(place);
            series.lines = series.lines.saturating_sub(1);
        }
    }

    /// All lines have been forgotten.
    pub(super) fn forget_lines(&mut self) {
        for series in self.series.iter_mut().flatten() {
            series.lines = 0;
        }
    }

    /// A new row begins.
    pub(super) fn begin_row(&mut self) {
        self.row.fill(f64::from_bits(ABSENT_BITS));
        self.row_used = false;
    }

    /// Notes that the series has a sample at the time of scrape `iteration` that is not in the row.
    pub(super) fn at_scrape_time(&mut self, place: u32, iteration: u64) {
        self.get_mut(place).in_row = iteration;
    }

    /// Whether the series has a sample at the time of scrape `iteration` already.
    pub(super) fn is_in_row(&self, place: u32, iteration: u64) -> bool {
        self.get(place).in_row == iteration
    }

    /// Puts a value into the row.
    pub(super) fn set(
        &mut self,
        app: &mut dyn Appender,
        place: u32,
        value: f64,
        iteration: u64,
    ) -> Result<(), AppendError> {
        let series = self.series[place as usize].as_mut().expect("lines refer to series that are there");
        let slot = match series.slot {
            Some(slot) => slot,
            None => self.introduce(app, place)?,
        };
        let series = self.get_mut(place);
        series.in_row = iteration;
        series.histogram = false;
        self.row[slot.0 as usize] = value;
        self.row_used = true;
        Ok(())
    }

    fn introduce(&mut self, app: &mut dyn Appender, place: u32) -> Result<LayoutSlot, AppendError> {
        let layout = *self.layout.get_or_insert_with(|| app.open_layout());
        let labels = self.get(place).labels.clone();
        let slot = app.extend_layout(layout, &labels)?;
        let index = slot.0 as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
            self.row.resize(index + 1, f64::from_bits(ABSENT_BITS));
        }
        self.slots[index] = Some(place);
        self.get_mut(place).slot = Some(slot);
        Ok(slot)
    }

    /// Appends a sample outside of the row.
    pub(super) fn append_single(
        &mut self,
        app: &mut dyn Appender,
        place: u32,
        t: Timestamp,
        value: &SampleValue,
        start: Option<Timestamp>,
    ) -> Result<(), AppendError> {
        let series = self.get_mut(place);
        let sample = AppendSample { t, value: value.clone(), start };
        let appended = match app.append(series.reference, &series.labels, sample.clone()) {
            // The store has dropped the series meanwhile.
            Err(AppendError::UnknownSeries) => app.append(None, &series.labels, sample),
            other => other,
        };
        series.reference = Some(appended?);
        if !value.is_stale() {
            series.histogram = !matches!(value, SampleValue::Float(_));
        }
        Ok(())
    }

    /// Notes that the series came in scrape `iteration` and gets a staleness marker when it does not come again.
    pub(super) fn track(&mut self, place: u32, iteration: u64) {
        let series = self.series[place as usize].as_mut().expect("lines refer to series that are there");
        if series.tracked == iteration {
            return;
        }
        if series.tracked + 1 == iteration {
            self.tracked_again += 1;
        }
        series.tracked = iteration;
        self.tracked_now += 1;
    }

    /// Staleness markers for series that the last scrape had and this one has not.
    pub(super) fn mark_stale(&mut self, app: &mut dyn Appender, iteration: u64, t: Timestamp) {
        if self.tracked_again == self.tracked_before {
            return;
        }
        let gone: Vec<u32> = (0u32..)
            .zip(&self.series)
            .filter(|(_, series)| series.as_ref().is_some_and(|series| series.tracked + 1 == iteration))
            .map(|(place, _)| place)
            .collect();
        for place in gone {
            // The marker of a histogram is a histogram, which a row cannot hold. The store makes one of it.
            let slot = self.get(place).slot.filter(|_| !self.get(place).histogram);
            match slot {
                // A row has one value per series; one that came in this scrape (without being tracked) wins.
                Some(slot) if self.get(place).in_row != iteration => {
                    self.row[slot.0 as usize] = stale_nan();
                    self.row_used = true;
                }
                Some(_) => {}
                None => {
                    // Refusals are expected where another loop has taken over.
                    let _ = self.append_single(app, place, t, &SampleValue::Float(stale_nan()), None);
                }
            }
        }
    }

    /// Appends the row. Refused samples are counted, and their series count as not seen.
    pub(super) fn append_row(
        &mut self,
        app: &mut dyn Appender,
        t: Timestamp,
        iteration: u64,
        counts: &mut PassCounts,
    ) {
        if !self.row_used {
            return;
        }
        let Some(layout) = self.layout else { return };
        let mut outcome = app.append_row(&Row { layout, t, values: &self.row });
        if outcome.error.is_some() {
            // The store does not know the layout (any more): tell it again, once.
            outcome = self.reopen(app, t);
        }
        if let Some(error) = outcome.error {
            tracing::warn!(%error, "the store refused a whole scrape");
        }
        for (slot, error) in outcome.refused {
            let Some(place) = self.slots.get(slot.0 as usize).copied().flatten() else { continue };
            if is_stale_nan(self.row[slot.0 as usize]) && self.get(place).in_row != iteration {
                continue;
            }
            counts.refused(error);
            let series = self.get_mut(place);
            if series.tracked == iteration {
                series.tracked = 0;
                self.tracked_now -= 1;
            }
        }
    }

    /// Opens the layout anew with the series of the row, and appends that.
    fn reopen(&mut self, app: &mut dyn Appender, t: Timestamp) -> RowOutcome {
        let values: Vec<(u32, f64)> = self
            .slots
            .iter()
            .zip(&self.row)
            .filter(|(_, value)| value.to_bits() != ABSENT_BITS)
            .filter_map(|(place, value)| place.map(|place| (place, *value)))
            .collect();
        self.drop_layout();
        for (place, value) in values {
            if let Ok(slot) = self.introduce(app, place) {
                self.row[slot.0 as usize] = value;
            }
        }
        match self.layout {
            Some(layout) => app.append_row(&Row { layout, t, values: &self.row }),
            None => RowOutcome::default(),
        }
    }

    fn drop_layout(&mut self) {
        self.layout = None;
        self.slots.clear();
        self.row.clear();
        self.retired = 0;
        for series in self.series.iter_mut().flatten() {
            series.slot = None;
        }
    }

    /// Forgets series that no line means and that are not on the page of scrape `iteration`.
    pub(super) fn flush(&mut self, app: &mut dyn Appender, iteration: u64) {
        for place in 0..self.series.len() {
            let forget = self.series[place]
                .as_ref()
                .is_some_and(|series| series.lines == 0 && series.tracked != iteration);
            if !forget {
                continue;
            }
            if let Some(series) = self.series[place].take() {
                self.by_labels.remove(&series.labels);
                self.free.push(place as u32);
                if let (Some(layout), Some(slot)) = (self.layout, series.slot) {
                    app.retire_slot(layout, slot);
                    self.slots[slot.0 as usize] = None;
                    self.retired += 1;
                }
            }
        }
        if self.retired > self.by_labels.len() + RETIRED_MAX {
            self.close(app);
        }
    }

    /// Gives the layout back; the next row opens another.
    pub(super) fn close(&mut self, app: &mut dyn Appender) {
        if let Some(layout) = self.layout {
            app.close_layout(layout);
        }
        self.drop_layout();
    }

    /// What was now becomes what was before.
    pub(super) fn end_iteration(&mut self) {
        self.tracked_before = self.tracked_now;
        self.tracked_now = 0;
        self.tracked_again = 0;
    }

    #[cfg(test)]
    pub(super) fn tracked_at(&self, iteration: u64) -> Vec<Labels> {
        self.series
            .iter()
            .flatten()
            .filter(|series| series.tracked == iteration)
            .map(|series| series.labels.clone())
            .collect()
    }
}
