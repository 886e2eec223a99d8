//! Text pages into one transaction: lines of the last page are stepped over by comparison, others are parsed.

use model::MetricKind;
use xxhash_rust::xxh3::xxh3_64;

use super::lines::{Meaning, MetadataLine};
use super::pass::{Exemplars, Pass, Sample};
use crate::config::StartTimes;
use crate::error::ScrapeError;
use crate::exposition::{Entry, Format, LineSample, Parser, decode_series, unescape_help};

impl<'a> From<LineSample<'a>> for Sample<'a> {
    fn from(sample: LineSample<'a>) -> Self {
        let exemplars = sample.exemplar.map_or(Exemplars::None, Exemplars::Text);
        Sample { t: sample.t, exemplars, ..Sample::float(sample.value) }
    }
}

impl Pass<'_> {
    /// Whether the page may say in lines of their own since when counters count, and that is wanted.
    pub(super) fn reads_starts(&self, format: Format) -> bool {
        self.config.start_times != StartTimes::Ignored && format == Format::OpenMetrics
    }

    pub(super) fn page(&mut self, page: &[u8], format: Format) -> Result<(), ScrapeError> {
        if page.is_empty() {
            return Ok(());
        }
        let mut parser = Parser::new(page, format);
        if self.config.histograms.convert || self.reads_starts(format) {
            return self.converted_page(&mut parser, format);
        }
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
    pub(super) fn predicted(&mut self, parser: &mut Parser<'_>) -> Result<bool, ScrapeError> {
        let Some((index, line)) = self.state.lines.predicted() else { return Ok(false) };
        match line.meaning {
            Meaning::Series(_) | Meaning::Dropped | Meaning::Unresolved => {
                let Some(sample) = parser.skip_known(&line.text) else { return Ok(false) };
                let sample = sample?;
                self.state.lines.arrived(index);
                self.known(index, &mut sample.into())?;
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

    pub(super) fn entry(
        &mut self,
        entry: Entry<'_>,
        line: &[u8],
        kind: MetricKind,
        format: Format,
    ) -> Result<(), ScrapeError> {
        let iteration = self.state.iteration;
        match entry {
            Entry::Series(series) => {
                let mut sample = Sample::from(series.sample);
                match self.state.lines.find(series.text) {
                    Some(index) => {
                        self.state.lines.arrived(index);
                        self.known(index, &mut sample)
                    }
                    None => {
                        decode_series(series.text, kind, &mut self.scratch)
                            .inspect_err(|_| self.counts.total += 1)?;
                        self.introduce(series.text, &mut sample)
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
}
