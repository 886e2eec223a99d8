//! One page into one transaction.

use model::labels::{METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};
use model::relabel::{self, RelabelConfig};
use model::storage::{AppendError, Appender};
use model::{Exemplar, Labels, LabelsBuilder, MetricKind, Timestamp};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use super::ScrapeState;
use super::lines::{Meaning, MetadataLine};
use crate::collector::Scrape;
use crate::config::{NameValidation, ScrapeLimits};
use crate::error::ScrapeError;
use crate::exposition::{
    Entry, Format, LineSample, Parser, RawExemplar, SeriesLabels, decode_exemplar, decode_series,
    unescape_help,
};

/// Prefix of labels on the page that target labels push aside.
const EXPORTED_PREFIX: &str = "exported_";
/// Names and values in error texts are cut to so many characters.
const SHOWN_MAX: usize = 50;

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
}

/// What a scrape brought.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A page.
    Page(&'a [u8], Format),
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

/// Errors that lose one sample, not the scrape.
fn is_of_one_sample(error: AppendError) -> bool {
    matches!(
        error,
        AppendError::OutOfOrder | AppendError::OutOfBounds | AppendError::TooOld | AppendError::Duplicate
    )
}

/// The work on one page.
struct Pass<'a> {
    state: &'a mut ScrapeState,
    app: &'a mut dyn Appender,
    config: &'a PassConfig,
    t: Timestamp,
    max_time: Timestamp,
    counts: &'a mut PassCounts,
    /// Samples that count towards the limit.
    limited: u64,
    scratch: SeriesLabels,
    builder: LabelsBuilder,
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
        };
        match input {
            Input::Page(page, format) => pass.page(page, *format)?,
            Input::Samples(scrape) => pass.samples(scrape)?,
            Input::Nothing => {}
        }
        if pass.counts.sample_limit_hit {
            return Err(ScrapeError::SampleLimit);
        }
        let Pass { state, app, counts, .. } = pass;
        let iteration = state.iteration;
        state.series.mark_stale(app, iteration, t);
        state.series.append_row(app, t, iteration, counts);
        Ok(())
    }
}

/// A sample of a line.
struct Sample<'a> {
    value: f64,
    t: Option<Timestamp>,
    exemplar: Option<RawExemplar<'a>>,
}

impl<'a> From<LineSample<'a>> for Sample<'a> {
    fn from(sample: LineSample<'a>) -> Self {
        Self { value: sample.value, t: sample.t, exemplar: sample.exemplar }
    }
}

impl Pass<'_> {
    fn page(&mut self, page: &[u8], format: Format) -> Result<(), ScrapeError> {
        if page.is_empty() {
            return Ok(());
        }
        let mut parser = Parser::new(page, format);
        loop {
            if self.predicted(&mut parser)? {
                self.counts.known_lines += 1;
                continue;
            }
            let start = parser.position();
            match parser.next() {
                None => return Ok(()),
                Some(entry) => {
                    self.counts.parsed_lines += 1;
                    let entry = entry?;
                    self.entry(entry, parser.since(start), parser.kind(), format)?;
                }
            }
        }
    }

    /// Whether the page goes on with the line that came here last time; then that line has been dealt with.
    fn predicted(&mut self, parser: &mut Parser<'_>) -> Result<bool, ScrapeError> {
        let Some((index, line)) = self.state.lines.predicted() else { return Ok(false) };
        match line.meaning {
            Meaning::Series(_) | Meaning::Dropped => {
                let Some(sample) = parser.skip_known(&line.text) else { return Ok(false) };
                let sample = sample?;
                self.state.lines.arrived(index);
                self.known(index, &sample.into())?;
            }
            Meaning::Metadata { family, what } => {
                let kind = match what {
                    MetadataLine::Type(kind) => Some(kind),
                    MetadataLine::Help(_) | MetadataLine::Unit(_) => None,
                };
                // Where several lines speak of a family, each has to be read so that the last one wins.
                if !self.state.metadata.is_from(family, what) || !parser.skip_known_line(&line.text, kind) {
                    return Ok(false);
                }
                let iteration = self.state.iteration;
                self.state.lines.arrived(index);
                self.state.lines.line_mut(index).last_seen = iteration;
                self.state.metadata.seen(family, iteration);
                if let Some(kind) = kind {
                    self.state.metadata.set_kind(family, kind);
                }
            }
            Meaning::Comment => {
                if !parser.skip_known_line(&line.text, None) {
                    return Ok(false);
                }
                let iteration = self.state.iteration;
                self.state.lines.arrived(index);
                self.state.lines.line_mut(index).last_seen = iteration;
            }
        }
        Ok(true)
    }

    fn entry(
        &mut self,
        entry: Entry<'_>,
        line: &[u8],
        kind: MetricKind,
        format: Format,
    ) -> Result<(), ScrapeError> {
        let iteration = self.state.iteration;
        match entry {
            Entry::Series(series) => {
                let sample = Sample::from(series.sample);
                match self.state.lines.find(series.text) {
                    Some(index) => {
                        self.state.lines.arrived(index);
                        self.known(index, &sample)
                    }
                    None => {
                        decode_series(series.text, kind, &mut self.scratch)
                            .inspect_err(|_| self.counts.total += 1)?;
                        self.introduce(series.text, &sample)
                    }
                }
            }
            Entry::Type { family, kind } => {
                let place = self.state.metadata.family(family, iteration);
                if let Some(place) = place {
                    self.state.metadata.set_kind(place, kind);
                }
                self.remember_line(line, place, MetadataLine::Type(kind));
                Ok(())
            }
            Entry::Help { family, text } => {
                let id = xxh3_64(line);
                let place = self.state.metadata.family(family, iteration);
                if let Some(place) = place {
                    self.state.metadata.set_help(place, &unescape_help(text, format), id);
                }
                self.remember_line(line, place, MetadataLine::Help(id));
                Ok(())
            }
            Entry::Unit { family, unit } => {
                let id = xxh3_64(line);
                let place = self.state.metadata.family(family, iteration);
                if let Some(place) = place {
                    self.state.metadata.set_unit(place, &String::from_utf8_lossy(unit), id);
                }
                self.remember_line(line, place, MetadataLine::Unit(id));
                Ok(())
            }
            Entry::Comment => {
                self.remember(line, Meaning::Comment);
                Ok(())
            }
        }
    }

    fn remember_line(&mut self, line: &[u8], family: Option<u32>, what: MetadataLine) {
        if let Some(family) = family {
            self.remember(line, Meaning::Metadata { family, what });
        }
    }

    /// Notes a line that is no sample, for next time.
    fn remember(&mut self, line: &[u8], meaning: Meaning) {
        // A line without break, at the end of the page, could be the beginning of another.
        if line.last() != Some(&b'\n') {
            return;
        }
        let iteration = self.state.iteration;
        let index = match self.state.lines.find(line) {
            Some(index) => {
                let line = self.state.lines.line_mut(index);
                line.last_seen = iteration;
                // A help text that came back, or the family's place that changed.
                line.meaning = meaning;
                Some(index)
            }
            None => self.state.lines.insert(line, meaning, iteration),
        };
        if let Some(index) = index {
            self.state.lines.arrived(index);
        }
    }

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
            let line = Sample { value, t: sample.t, exemplar: None };
            let index = match self.state.lines.predicted() {
                Some((index, line)) if line.text.as_ref() == key.as_slice() => Some(index),
                _ => self.state.lines.find(&key),
            };
            match index {
                Some(index) => {
                    self.counts.known_lines += 1;
                    self.state.lines.arrived(index);
                    self.known(index, &line)?;
                }
                None => {
                    self.counts.parsed_lines += 1;
                    self.scratch.pairs.clear();
                    self.scratch.pairs.extend(
                        sample.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())),
                    );
                    self.introduce(&key, &line)?;
                }
            }
        }
        Ok(())
    }

    /// A sample of a line that is known.
    fn known(&mut self, index: u32, sample: &Sample<'_>) -> Result<(), ScrapeError> {
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
        if self.over_limit() {
            return Ok(());
        }
        self.append(place, t, sample)?;
        Ok(())
    }

    /// A sample of a line that is not known, whose labels are in `scratch`.
    fn introduce(&mut self, text: &[u8], sample: &Sample<'_>) -> Result<(), ScrapeError> {
        self.counts.total += 1;
        let iteration = self.state.iteration;
        let Some(labels) = self.final_labels()? else {
            if let Some(index) = self.state.lines.insert(text, Meaning::Dropped, iteration) {
                self.state.lines.arrived(index);
            }
            return Ok(());
        };
        let t = sample.t.filter(|_| self.config.honor_timestamps);
        if self.over_limit() {
            return Ok(());
        }
        let Some(place) = self.state.series.find_or_insert(&labels) else {
            return Err(ScrapeError::Append(AppendError::SeriesLimit));
        };
        if self.append(place, t, sample)? {
            if let Some(index) = self.state.lines.insert(text, Meaning::Series(place), iteration) {
                self.state.series.add_line(place);
                self.state.lines.arrived(index);
            }
            if !self.counts.sample_limit_hit {
                self.counts.series_added += 1;
            }
        }
        Ok(())
    }

    /// Counts one more sample towards the limit; beyond it, samples are counted but not kept.
    fn over_limit(&mut self) -> bool {
        self.limited += 1;
        let limit = self.config.limits.samples;
        let over = limit > 0 && self.limited > limit;
        if over {
            self.counts.sample_limit_hit = true;
            self.counts.added += 1;
        }
        over
    }

    /// Puts a sample into the row, or appends it alone when it has its own time or an exemplar. Says whether it was
    /// taken.
    fn append(&mut self, place: u32, t: Option<Timestamp>, sample: &Sample<'_>) -> Result<bool, ScrapeError> {
        self.counts.added += 1;
        let iteration = self.state.iteration;
        let at = t.unwrap_or(self.t);
        if t.is_none() && sample.exemplar.is_none() {
            // Another spelling of the same series, or the same after relabelling: the first one counts.
            if self.state.series.is_in_row(place, iteration) {
                self.counts.duplicates += 1;
                return Ok(true);
            }
            self.state.series.set(self.app, place, sample.value, iteration)?;
            self.state.series.track(place, iteration);
            return Ok(true);
        }
        // The row goes to the store last, but this line came later than the one in the row: it counts as later.
        let result = if t.is_some() && at <= self.t && self.state.series.is_in_row(place, iteration) {
            Err(AppendError::OutOfOrder)
        } else if at > self.max_time {
            Err(AppendError::OutOfBounds)
        } else {
            self.state.series.append_single(self.app, place, at, sample.value)
        };
        match result {
            Ok(reference) => {
                if t.is_none() || self.config.track_timestamps_staleness {
                    self.state.series.track(place, iteration);
                }
                if let Some(exemplar) = &sample.exemplar
                    && (exemplar.t.is_some()
                        || !self.state.series.is_last_exemplar(place, exemplar.labels, exemplar.value))
                {
                    let exemplar = Exemplar {
                        labels: decode_exemplar(exemplar.labels),
                        value: exemplar.value,
                        t: Some(exemplar.t.unwrap_or(at)),
                    };
                    match self.app.append_exemplar(reference, &exemplar) {
                        Ok(()) => {}
                        Err(AppendError::OutOfOrder) => self.counts.exemplars_out_of_order += 1,
                        Err(error) => tracing::debug!(%error, "exemplar not stored"),
                    }
                }
                Ok(true)
            }
            Err(error) if is_of_one_sample(error) => {
                self.counts.refused(error);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The labels in `scratch` with target labels, relabelled and checked; `None` when relabelling drops them.
    fn final_labels(&mut self) -> Result<Option<Labels>, ScrapeError> {
        self.add_target_labels();
        if !relabel::process(&mut self.builder, &self.config.relabel) || self.builder.is_empty() {
            return Ok(None);
        }
        let labels = self.builder.build();
        if !labels.has(METRIC_NAME) {
            return Err(crate::exposition::DecodeError::NoName.into());
        }
        if !names_are_valid(&labels, self.config.name_validation) {
            return Err(ScrapeError::InvalidNames(labels.to_string()));
        }
        if let Some(error) = over_label_limits(&labels, &self.config.limits) {
            self.counts.label_limit_hit = true;
            return Err(ScrapeError::LabelLimit(error));
        }
        Ok(Some(labels))
    }

    fn add_target_labels(&mut self) {
        let builder = &mut self.builder;
        builder.retain(|_, _| false);
        for (name, value) in &self.scratch.pairs {
            builder.set(name.as_str(), value.as_str());
        }
        let mut pushed_aside: Vec<(&str, String)> = Vec::new();
        for (name, value) in &self.config.target_labels {
            // With `honor_labels` even an empty label on the page wins.
            if self.config.honor_labels && self.scratch.pairs.iter().any(|(own, _)| own == name) {
                continue;
            }
            let own = builder.value(name);
            if !own.is_empty() {
                pushed_aside.push((name, own.to_owned()));
            }
            builder.set(name, value);
        }
        pushed_aside.sort_by_key(|(name, _)| name.len());
        for (name, value) in pushed_aside {
            let mut name = format!("{EXPORTED_PREFIX}{name}");
            while !builder.value(&name).is_empty() {
                name.insert_str(0, EXPORTED_PREFIX);
            }
            builder.set(name, value);
        }
    }
}

fn names_are_valid(labels: &Labels, validation: NameValidation) -> bool {
    labels.iter().all(|(name, value)| match (validation, name) {
        (NameValidation::Utf8, _) => !name.is_empty(),
        (NameValidation::Legacy, METRIC_NAME) => is_legacy_metric_name(value),
        (NameValidation::Legacy, _) => is_legacy_label_name(name),
    })
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(SHOWN_MAX).map_or(text, |(end, _)| &text[..end])
}

/// Which label limit a series breaks, in Prometheus' words.
fn over_label_limits(labels: &Labels, limits: &ScrapeLimits) -> Option<String> {
    let metric = || shown(labels.metric_name());
    let count = labels.len() as u64;
    if limits.labels > 0 && count > limits.labels {
        return Some(format!(
            "label_limit exceeded (metric: {}, number of labels: {count}, limit: {})",
            metric(),
            limits.labels
        ));
    }
    if limits.label_name_length == 0 && limits.label_value_length == 0 {
        return None;
    }
    labels.iter().find_map(|(name, value)| {
        if limits.label_name_length > 0 && name.len() as u64 > limits.label_name_length {
            return Some(format!(
                "label_name_length_limit exceeded (metric: {}, label name: {}, length: {}, limit: {})",
                metric(),
                shown(name),
                name.len(),
                limits.label_name_length
            ));
        }
        if limits.label_value_length > 0 && value.len() as u64 > limits.label_value_length {
            return Some(format!(
                "label_value_length_limit exceeded (metric: {}, label name: {}, value: {}, length: {}, limit: {})",
                metric(),
                shown(name),
                model::labels::Quoted(shown(value)),
                value.len(),
                limits.label_value_length
            ));
        }
        None
    })
}
