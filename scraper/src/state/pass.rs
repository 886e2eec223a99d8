//! One page into one transaction: what holds for samples of every format.

use model::relabel::RelabelConfig;
use model::storage::{AppendError, Appender};
use model::{Exemplar, Labels, LabelsBuilder, SampleValue, Timestamp};
use std::sync::Arc;

use super::ScrapeState;
use super::limits::{BucketLimit, HistogramSettings};
use super::lines::Meaning;
use crate::collector::Scrape;
use crate::config::{NameValidation, ScrapeLimits, StartTimes};
use crate::error::ScrapeError;
use crate::exposition::protobuf::{self, MetricHistogram};
use crate::exposition::{PageFormat, RawExemplar, SeriesLabels, decode_exemplar};

/// What to do with the lines of a target's pages.
#[derive(Clone, Debug)]
pub(crate) struct PassConfig {
    pub(crate) target_labels: Labels,
    pub(crate) honor_labels: bool,
    pub(crate) honor_timestamps: bool,
    pub(crate) track_timestamps_staleness: bool,
    pub(crate) name_validation: NameValidation,
    pub(crate) relabel: Arc<[RelabelConfig]>,
    pub(crate) limits: ScrapeLimits,
    pub(crate) histograms: HistogramSettings,
    pub(crate) start_times: StartTimes,
}

/// What a scrape brought.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A page.
    Page(&'a [u8], PageFormat),
    /// Samples of a collector.
    Samples(&'a Scrape),
    /// Nothing: all series of the target end.
    Nothing,
}

impl Input<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Page(page, _) => page.is_empty(),
            Self::Samples(scrape) => scrape.samples.is_empty(),
            Self::Nothing => true,
        }
    }
}

/// Counts of one scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PassCounts {
    /// Samples on the page.
    pub(crate) total: u64,
    /// Samples that relabelling kept.
    pub(crate) added: u64,
    /// Series that the last page had not.
    pub(crate) series_added: u64,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    pub(crate) out_of_bounds: u64,
    pub(crate) exemplars_out_of_order: u64,
    /// Lines recognised by comparison.
    pub(crate) known_lines: u64,
    /// Lines that were parsed.
    pub(crate) parsed_lines: u64,
    pub(crate) label_limit_hit: bool,
    pub(crate) sample_limit_hit: bool,
    pub(crate) bucket_limit_hit: bool,
    pub(crate) cache_flushed: bool,
}

impl PassCounts {
    /// Counts a sample that the store refused.
    pub(super) fn refused(&mut self, error: AppendError) {
        match error {
            AppendError::Duplicate => self.duplicates += 1,
            AppendError::OutOfBounds | AppendError::TooOld => self.out_of_bounds += 1,
            _ => self.out_of_order += 1,
        }
    }
}

/// Most exemplars of a histogram that are kept of one page.
const EXEMPLARS_MAX: usize = 1000;

/// Errors that lose one sample, not the scrape.
fn is_of_one_sample(error: AppendError) -> bool {
    matches!(
        error,
        AppendError::OutOfOrder | AppendError::OutOfBounds | AppendError::TooOld | AppendError::Duplicate
    )
}

/// The work on one page.
pub(super) struct Pass<'a> {
    pub(super) state: &'a mut ScrapeState,
    pub(super) app: &'a mut dyn Appender,
    pub(super) config: &'a PassConfig,
    t: Timestamp,
    max_time: Timestamp,
    pub(super) counts: &'a mut PassCounts,
    /// Samples that count towards the limit.
    limited: u64,
    pub(super) scratch: SeriesLabels,
    pub(super) builder: LabelsBuilder,
    /// For keys of lines.
    pub(super) key: Vec<u8>,
}

impl ScrapeState {
    /// Appends `input` at `t`, and staleness markers for what it no longer has.
    pub(super) fn pass(
        &mut self,
        app: &mut dyn Appender,
        config: &PassConfig,
        input: &Input<'_>,
        t: Timestamp,
        max_time: Timestamp,
        counts: &mut PassCounts,
    ) -> Result<(), ScrapeError> {
        self.lines.rewind();
        self.series.begin_row();
        let mut pass = Pass {
            state: self,
            app,
            config,
            t,
            max_time,
            counts,
            limited: 0,
            scratch: SeriesLabels::default(),
            builder: LabelsBuilder::new(),
            key: Vec::new(),
        };
        match input {
            Input::Page(page, PageFormat::Text(format)) => pass.page(page, *format)?,
            Input::Page(page, PageFormat::Protobuf) => pass.families(page)?,
            Input::Samples(scrape) => pass.samples(scrape)?,
            Input::Nothing => {}
        }
        if pass.counts.sample_limit_hit {
            return Err(ScrapeError::SampleLimit);
        }
        if pass.counts.bucket_limit_hit {
            return Err(ScrapeError::BucketLimit);
        }
        let Pass { state, app, counts, .. } = pass;
        let iteration = state.iteration;
        state.series.mark_stale(app, iteration, t);
        state.series.append_row(app, t, iteration, counts);
        Ok(())
    }
}

/// A sample of a line.
#[derive(Clone, Debug)]
pub(super) struct Sample<'a> {
    pub(super) value: SampleValue,
    pub(super) t: Option<Timestamp>,
    pub(super) exemplars: Exemplars<'a>,
    /// Since when it counts, if the page says so.
    pub(super) start: Option<Timestamp>,
}

impl Sample<'_> {
    pub(super) fn float(value: f64) -> Self {
        Self { value: SampleValue::Float(value), t: None, exemplars: Exemplars::None, start: None }
    }
}

/// Exemplars of a sample, in the form in which they were found.
#[derive(Clone, Debug)]
pub(super) enum Exemplars<'a> {
    None,
    /// Of a line of text.
    Text(RawExemplar<'a>),
    /// Of a protobuf message.
    Protobuf(RawExemplar<'a>),
    /// All of a native histogram.
    Native(MetricHistogram<'a>),
    /// Of the series that a histogram was made of.
    Collected(Vec<Exemplar>),
}

impl Pass<'_> {
    fn samples(&mut self, scrape: &Scrape) -> Result<(), ScrapeError> {
        let iteration = self.state.iteration;
        for (family, metadata) in &scrape.metadata {
            if let Some(place) = self.state.metadata.family(family.as_bytes(), iteration) {
                self.state.metadata.set_kind(place, metadata.kind);
                self.state.metadata.set_help(place, &metadata.help, 0);
                self.state.metadata.set_unit(place, &metadata.unit, 0);
            }
        }
        let mut key = Vec::new();
        for sample in &scrape.samples {
            // Labels as a "line": no name or value can be confused, since lengths go along.
            key.clear();
            for (name, value) in &sample.labels {
                key.extend_from_slice(&(name.len() as u64).to_le_bytes());
                key.extend_from_slice(name.as_bytes());
                key.extend_from_slice(&(value.len() as u64).to_le_bytes());
                key.extend_from_slice(value.as_bytes());
            }
            let value = if sample.value.is_nan() { model::sample::normal_nan() } else { sample.value };
            let mut line = Sample { t: sample.t, ..Sample::float(value) };
            match self.find_line(&key) {
                Some(index) => {
                    self.counts.known_lines += 1;
                    self.state.lines.arrived(index);
                    self.known(index, &mut line)?;
                }
                None => {
                    self.counts.parsed_lines += 1;
                    self.scratch.pairs.clear();
                    self.scratch.pairs.extend(
                        sample.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())),
                    );
                    self.introduce(&key, &mut line)?;
                }
            }
        }
        Ok(())
    }

    /// The line with this key, if it is known.
    pub(super) fn find_line(&self, key: &[u8]) -> Option<u32> {
        match self.state.lines.predicted() {
            Some((index, line)) if line.text.as_ref() == key => Some(index),
            _ => self.state.lines.find(key),
        }
    }

    /// A sample of a line that is known.
    pub(super) fn known(&mut self, index: u32, sample: &mut Sample<'_>) -> Result<(), ScrapeError> {
        self.counts.total += 1;
        let iteration = self.state.iteration;
        let line = self.state.lines.line_mut(index);
        let seen_before = std::mem::replace(&mut line.last_seen, iteration) == iteration;
        let Meaning::Series(place) = line.meaning else { return Ok(()) };
        let t = sample.t.filter(|_| self.config.honor_timestamps);
        if seen_before && t.is_none() {
            self.counts.duplicates += 1;
            self.counts.added += 1;
            return Ok(());
        }
        if self.over_limit(sample) {
            return Ok(());
        }
        self.append(place, t, sample)?;
        Ok(())
    }

    /// A sample of a line that is not known, whose labels are in `scratch`.
    pub(super) fn introduce(&mut self, text: &[u8], sample: &mut Sample<'_>) -> Result<(), ScrapeError> {
        if let Some(meaning) = self.meaning_of(sample)?
            && let Some(index) = self.state.lines.insert(text, meaning, self.state.iteration)
        {
            if let Meaning::Series(place) = meaning {
                self.state.series.add_line(place);
            }
            self.state.lines.arrived(index);
        }
        Ok(())
    }

    /// Appends a sample whose labels are in `scratch`, and says what its line means; `None` when that is not to be remembered.
    pub(super) fn meaning_of(&mut self, sample: &mut Sample<'_>) -> Result<Option<Meaning>, ScrapeError> {
        self.counts.total += 1;
        let Some(labels) = self.final_labels()? else { return Ok(Some(Meaning::Dropped)) };
        let t = sample.t.filter(|_| self.config.honor_timestamps);
        if self.over_limit(sample) {
            return Ok(None);
        }
        let Some(place) = self.state.series.find_or_insert(&labels) else {
            return Err(ScrapeError::Append(AppendError::SeriesLimit));
        };
        if !self.append(place, t, sample)? {
            return Ok(None);
        }
        if !self.counts.sample_limit_hit && !self.counts.bucket_limit_hit {
            self.counts.series_added += 1;
        }
        Ok(Some(Meaning::Series(place)))
    }

    /// Counts one more sample towards the limit; beyond it, samples are counted but not kept. So are histograms with too many
    /// buckets.
    fn over_limit(&mut self, sample: &mut Sample<'_>) -> bool {
        if self.config.histograms.fit(&mut sample.value) == BucketLimit::Exceeded {
            self.counts.bucket_limit_hit = true;
            self.counts.added += 1;
            return true;
        }
        self.limited += 1;
        let limit = self.config.limits.samples;
        let over = limit > 0 && self.limited > limit;
        if over {
            self.counts.sample_limit_hit = true;
            self.counts.added += 1;
        }
        over
    }

    /// Puts a sample into the row, or appends it alone when it has its own time or is a histogram. Says whether it was
    /// taken.
    fn append(&mut self, place: u32, t: Option<Timestamp>, sample: &Sample<'_>) -> Result<bool, ScrapeError> {
        self.counts.added += 1;
        let iteration = self.state.iteration;
        let in_row = self.state.series.is_in_row(place, iteration);
        let at = t.unwrap_or(self.t);
        let start = match self.config.start_times {
            StartTimes::Ignored => None,
            StartTimes::ZeroSamples | StartTimes::Stored => {
                sample.start.filter(|start| (1..at).contains(start))
            }
        };
        let stored_start = start.filter(|_| self.config.start_times == StartTimes::Stored);
        if let (None, SampleValue::Float(value), None) = (t, &sample.value, stored_start) {
            // Another spelling of the same series, or the same after relabelling: the first one counts.
            if in_row {
                self.counts.duplicates += 1;
                return Ok(true);
            }
            self.state.series.set(self.app, place, *value, iteration)?;
            self.state.series.track(place, iteration);
            self.state.zeros.note(&mut self.state.series, place, start, &sample.value);
            self.append_exemplars(place, at, &sample.exemplars);
            return Ok(true);
        }
        // The row goes to the store last, but this line came later than the one in the row: it counts as later.
        let result = match t {
            Some(_) if at <= self.t && in_row => Err(AppendError::OutOfOrder),
            None if in_row => {
                self.counts.duplicates += 1;
                return Ok(true);
            }
            _ if at > self.max_time => Err(AppendError::OutOfBounds),
            _ => self.state.series.append_single(self.app, place, at, &sample.value, stored_start),
        };
        match result {
            Ok(()) => {
                if t.is_none() {
                    self.state.series.at_scrape_time(place, iteration);
                }
                if t.is_none() || self.config.track_timestamps_staleness {
                    self.state.series.track(place, iteration);
                }
                if stored_start.is_none() {
                    self.state.zeros.note(&mut self.state.series, place, start, &sample.value);
                }
                self.append_exemplars(place, at, &sample.exemplars);
                Ok(true)
            }
            Err(error) if is_of_one_sample(error) => {
                self.counts.refused(error);
                Ok(false)
            }
            Err(error) => {
                self.counts.added -= 1;
                Err(error.into())
            }
        }
    }

    /// Appends exemplars of a sample at `at`, unless they are those that came last.
    fn append_exemplars(&mut self, place: u32, at: Timestamp, exemplars: &Exemplars<'_>) {
        let series = &mut self.state.series;
        let mut decoded: Vec<Exemplar> = match exemplars {
            Exemplars::None => return,
            Exemplars::Text(raw) | Exemplars::Protobuf(raw) if series.is_last_exemplar(place, raw) => return,
            Exemplars::Text(raw) => {
                vec![Exemplar {
                    labels: decode_exemplar(raw.labels),
                    value: raw.value,
                    t: raw.t.or(Some(at)),
                }]
            }
            Exemplars::Protobuf(raw) => {
                let exemplar = protobuf::decode_exemplar(raw);
                vec![Exemplar { t: exemplar.t.or(Some(at)), ..exemplar }]
            }
            // An exemplar of a native histogram needs a time of its own, or nobody could tell whether it is new.
            Exemplars::Native(histogram) => {
                let raw = || histogram.exemplars().filter(|raw| raw.t.is_some()).take(EXEMPLARS_MAX);
                if series.are_last_exemplars(place, raw()) {
                    return;
                }
                raw().map(|raw| protobuf::decode_exemplar(&raw)).collect()
            }
            Exemplars::Collected(exemplars) => exemplars.clone(),
        };
        let Some(reference) = series.reference(self.app, place) else { return };
        decoded.sort_by(|a, b| (a.t, a.value).partial_cmp(&(b.t, b.value)).unwrap_or(a.t.cmp(&b.t)));
        let (mut taken, mut late) = (0, 0);
        for exemplar in &decoded {
            match self.app.append_exemplar(reference, exemplar) {
                Ok(()) => taken += 1,
                Err(AppendError::OutOfOrder) => late += 1,
                Err(error) => tracing::debug!(%error, "exemplar not stored"),
            }
        }
        // Where some are new, the others are those of the last page.
        if taken == 0 && late > 0 {
            self.counts.exemplars_out_of_order += late;
            // They are late, and count, on the next page too.
            self.state.series.forget_exemplar(place);
        }
    }
}
