//! Text pages of which lines belong together: classic histograms as native ones with custom buckets, and `_created` lines as
//! start times of others (OpenMetrics).
//!
//! The series of a classic histogram stand one after the other: [`Converter`] collects those of equal labels and gives the
//! histogram they make when something else comes. Which lines are alike, and what each says, is remembered with the line, so an unchanged
//! page costs no labels to be decoded. The rules are those of Prometheus' `NHCBParser` and `convertnhcb`: only families
//! whose type is said to be `histogram`, buckets in any order, of equal bounds the first, no histogram from counts that contradict each
//! other.

use std::collections::HashMap;
use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use model::labels::{BUCKET_LABEL, METRIC_NAME, QUANTILE_LABEL};
use model::{Exemplar, FloatHistogram, Histogram, MetricKind, SampleValue, Timestamp};

use super::lines::{Meaning, MetadataLine};
use super::pass::{Exemplars, Pass, Sample};
use crate::error::ScrapeError;
use crate::exposition::{Entry, Format, Parser, SeriesLabels, decode_exemplar, decode_series, parse_float};

/// Runs of empty buckets up to this length stay, as in Prometheus: fewer spans, and they change less often.
const GAP_MAX: u32 = 2;
/// Ends the key of a histogram's line. No line of text ends so.
const KEY_END: u8 = 0xff;
/// Ends the name of a series that tells a start time.
const CREATED: &[u8] = b"_created";
/// Most exemplars of one histogram.
const EXEMPLARS_MAX: usize = 1000;

/// The numbers of a classic histogram, as they come.
#[derive(Debug, Default)]
pub(super) struct ClassicHistogram {
    /// Bounds and counts, in the order of the page until they are converted.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    /// Whether a count of all was negative.
    broken: bool,
}

impl ClassicHistogram {
    fn clear(&mut self) {
        self.buckets.clear();
        (self.count, self.sum, self.broken) = (None, 0.0, false);
    }

    /// A bucket; its bound is a number.
    pub(super) fn set_bucket(&mut self, bound: f64, count: f64) {
        self.buckets.push((bound, count));
    }

    pub(super) fn set_count(&mut self, count: f64) {
        self.broken |= count < 0.0;
        self.count = Some(count);
    }

    pub(super) fn set_sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// Puts the buckets in ascending order, of equal bounds the first.
    ///
    /// All at once: were each put in its place as it comes, a page with its bounds in descending order would cost the square of
    /// their number.
    fn arrange(&mut self) {
        // Adding zero makes the two zeros, which are equal bounds, the same.
        self.buckets.sort_by(|(a, _), (b, _)| (a + 0.0).total_cmp(&(b + 0.0)));
        self.buckets.dedup_by(|(bound, _), (before, _)| bound == before);
    }

    /// Whether counts contradict each other. The buckets are arranged.
    fn is_broken(&self) -> bool {
        self.broken
            || self.buckets.iter().any(|(_, count)| *count < 0.0)
            || self.buckets.windows(2).any(|pair| matches!(pair, [(_, below), (_, above)] if above < below))
    }

    /// The histogram; `None` when the numbers make none.
    pub(super) fn convert(&mut self) -> Option<SampleValue> {
        self.arrange();
        if self.is_broken() {
            return None;
        }
        let count = self.count.or(self.buckets.last().map(|(_, count)| *count))?;
        if self.buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        if self.buckets.last().is_none_or(|(_, last)| *last != count) {
            return None;
        }
        let bounds: Arc<[f64]> =
            self.buckets.iter().map(|(bound, _)| *bound).filter(|bound| *bound != f64::INFINITY).collect();
        let length = u32::try_from(self.buckets.len()).ok()?;
        let spans = vec![Span { offset: 0, length }];
        let value = if self.buckets.iter().all(|(_, count)| is_whole(*count)) {
            self.integer(bounds, spans, count)
        } else {
            self.float(bounds, spans, count)
        };
        let valid = match &value {
            SampleValue::Float(_) => false,
            SampleValue::Histogram(h) => h.validate().is_ok(),
            SampleValue::FloatHistogram(h) => h.validate().is_ok(),
        };
        valid.then_some(value)
    }

    fn integer(&self, custom_values: Arc<[f64]>, positive_spans: Vec<Span>, count: f64) -> SampleValue {
        let (mut before, mut previous) = (0i64, 0i64);
        let positive_buckets = self
            .buckets
            .iter()
            .map(|(_, cumulative)| {
                let own = (*cumulative as i64).wrapping_sub(before);
                before = *cumulative as i64;
                let difference = own.wrapping_sub(previous);
                previous = own;
                difference
            })
            .collect();
        let mut histogram = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: count as u64,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            custom_values,
            ..Histogram::default()
        };
        histogram.compact(GAP_MAX);
        SampleValue::Histogram(Arc::new(histogram))
    }

    fn float(&self, custom_values: Arc<[f64]>, positive_spans: Vec<Span>, count: f64) -> SampleValue {
        let mut before = 0.0;
        let positive_buckets = self
            .buckets
            .iter()
            .map(|(_, cumulative)| {
                let own = cumulative - before;
                before = *cumulative;
                own
            })
            .collect();
        let mut histogram = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            custom_values,
            ..FloatHistogram::default()
        };
        histogram.compact();
        SampleValue::FloatHistogram(Arc::new(histogram))
    }
}

/// Whether an integer histogram can count so many.
fn is_whole(count: f64) -> bool {
    count.fract() == 0.0 && count.abs() < 9e18
}

/// What a line says about a classic histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HistogramPart {
    group: u32,
    number: PartNumber,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum PartNumber {
    Count,
    Sum,
    /// With its bound.
    Bucket(f64),
    /// A bucket without a bound, or with one that is no number, or a series with the name of the family: it stays a series, and
    /// does not end the histogram.
    Odd,
    /// The time since when it counts (OpenMetrics): a converted histogram has no series of that.
    Created,
}

/// Series that make one histogram.
#[derive(Debug)]
struct Group {
    /// Name of the family.
    name: Box<str>,
    /// Labels without bound, name and value, the family's name as `__name__`.
    pairs: Vec<(String, String)>,
    /// Key of the histogram's line, and of the group.
    key: Box<[u8]>,
    last_seen: u64,
    /// Since when it counts, and which scrape said so.
    start: Option<(u64, Timestamp)>,
}

/// Puts classic histograms together.
#[derive(Debug, Default)]
pub(super) struct Converter {
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    index: HashMap<Box<[u8]>, u32>,
    /// The family that the last type line spoke of.
    family: Vec<u8>,
    kind: MetricKind,
    /// Whether histograms are converted, and whether start times are read.
    convert: bool,
    starts: bool,
    /// The group that is collected.
    current: Option<u32>,
    numbers: ClassicHistogram,
    exemplars: Vec<Exemplar>,
    t: Option<Timestamp>,
    start: Option<Timestamp>,
}

impl Converter {
    /// A page begins. What an earlier one left behind, which did not end well, is dropped.
    fn begin(&mut self, convert: bool, starts: bool) {
        (self.convert, self.starts) = (convert, starts);
        self.set_type(&[], MetricKind::Unknown);
        self.current = None;
        self.numbers.clear();
        self.exemplars.clear();
    }

    fn set_type(&mut self, family: &[u8], kind: MetricKind) {
        self.family.clear();
        self.family.extend_from_slice(family);
        self.kind = kind;
    }

    /// Whether the family is one whose metrics have a start.
    fn counts(&self) -> bool {
        matches!(self.kind, MetricKind::Counter | MetricKind::Histogram | MetricKind::Summary)
    }

    /// What the series with these labels is of a histogram or another metric of several lines; `None` when it is nothing.
    fn part_of(&mut self, labels: &SeriesLabels, format: Format, iteration: u64) -> Option<HistogramPart> {
        let value = |name: &str| labels.pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str());
        let metric = value(METRIC_NAME)?;
        let (name, number) = if let Some(name) = metric.strip_suffix("_bucket") {
            let bound = value(BUCKET_LABEL).and_then(|bound| parse_float(bound.as_bytes()).ok());
            (name, bound.filter(|bound| !bound.is_nan()).map_or(PartNumber::Odd, PartNumber::Bucket))
        } else if let Some(name) = metric.strip_suffix("_count") {
            (name, PartNumber::Count)
        } else if let Some(name) = metric.strip_suffix("_sum") {
            (name, PartNumber::Sum)
        } else if let Some(name) = metric.strip_suffix("_created").filter(|_| format == Format::OpenMetrics) {
            (name, PartNumber::Created)
        } else if let Some(name) = metric.strip_suffix("_total").filter(|_| self.starts) {
            (name, PartNumber::Odd)
        } else if self.family == metric.as_bytes() {
            (metric, PartNumber::Odd)
        } else {
            return None;
        };
        let pairs: Vec<(String, String)> = labels
            .pairs
            .iter()
            .filter(|pair| {
                pair.0 != BUCKET_LABEL && !(self.kind == MetricKind::Summary && pair.0 == QUANTILE_LABEL)
            })
            .map(|(label, value)| {
                let value = if label == METRIC_NAME { name } else { value.as_str() };
                (label.clone(), value.to_owned())
            })
            .collect();
        let mut key = Vec::new();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            key.extend_from_slice(&(text.len() as u64).to_le_bytes());
            key.extend_from_slice(text.as_bytes());
        }
        key.push(KEY_END);
        if let Some(group) = self.index.get(key.as_slice()) {
            return Some(HistogramPart { group: *group, number });
        }
        let key = key.into_boxed_slice();
        let group = Group { name: name.into(), pairs, key: key.clone(), last_seen: iteration, start: None };
        let place = match self.free.pop() {
            Some(place) => {
                self.groups[place as usize] = Some(group);
                place
            }
            None => {
                let place = u32::try_from(self.groups.len()).ok()?;
                self.groups.push(Some(group));
                place
            }
        };
        self.index.insert(key, place);
        Some(HistogramPart { group: place, number })
    }

    fn group_mut(&mut self, place: u32) -> &mut Group {
        self.groups[place as usize].as_mut().expect("lines refer to groups that are there")
    }

    /// Whether a series with this part ends what is being collected.
    fn ends(&self, part: Option<HistogramPart>) -> bool {
        self.current.is_some()
            && (self.kind != MetricKind::Histogram || part.map(|part| part.group) != self.current)
    }

    /// Takes what a line says. `false`: it says nothing about a histogram here, and is a series as any other.
    fn take(&mut self, part: HistogramPart, sample: &Sample<'_>, iteration: u64) -> bool {
        let SampleValue::Float(value) = sample.value else { return false };
        let counts = self.counts();
        let group = self.groups[part.group as usize].as_mut().expect("lines refer to groups that are there");
        group.last_seen = iteration;
        if self.family != group.name.as_bytes() {
            return false;
        }
        let histogram = self.convert && self.kind == MetricKind::Histogram;
        if part.number == PartNumber::Created {
            return histogram || (self.starts && counts);
        }
        if !histogram || part.number == PartNumber::Odd {
            return false;
        }
        if self.current.is_none() {
            self.current = Some(part.group);
            self.numbers.clear();
            self.exemplars.clear();
        }
        (self.t, self.start) = (sample.t, sample.start);
        match part.number {
            PartNumber::Count => self.numbers.set_count(value),
            PartNumber::Sum => self.numbers.set_sum(value),
            PartNumber::Bucket(bound) => self.numbers.set_bucket(bound, value),
            PartNumber::Odd | PartNumber::Created => {}
        }
        if let Exemplars::Text(raw) = &sample.exemplars
            && raw.t.is_some()
            && self.exemplars.len() < EXEMPLARS_MAX
        {
            self.exemplars.push(Exemplar { labels: decode_exemplar(raw.labels), value: raw.value, t: raw.t });
        }
        true
    }

    /// Since when the metric counts that a line is of.
    fn start_of(&self, part: HistogramPart, iteration: u64) -> Option<Timestamp> {
        let group = self.groups[part.group as usize].as_ref()?;
        let known = self.starts && self.counts() && self.family == group.name.as_bytes();
        group.start.filter(|(scrape, _)| known && *scrape == iteration).map(|(_, start)| start)
    }

    /// Forgets groups that the scrape had nothing of.
    pub(super) fn flush(&mut self, iteration: u64) {
        for (place, slot) in self.groups.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|group| group.last_seen != iteration)
                && let Some(group) = slot.take()
            {
                self.index.remove(&group.key);
                self.free.push(place as u32);
            }
        }
    }
}

impl Pass<'_> {
    /// A text page, its classic histograms converted.
    pub(super) fn converted_page(
        &mut self,
        parser: &mut Parser<'_>,
        format: Format,
    ) -> Result<(), ScrapeError> {
        let starts = self.reads_starts(format);
        self.state.converter.begin(self.config.histograms.convert, starts);
        if starts {
            self.read_starts(parser.clone())?;
            self.state.converter.set_type(&[], MetricKind::Unknown);
        }
        loop {
            if self.predicted_converted(parser)? {
                self.counts.known_lines += 1;
                continue;
            }
            let start = parser.position();
            let Some(entry) = parser.next() else { return self.end_histogram() };
            self.counts.parsed_lines += 1;
            match entry? {
                Entry::Series(series) => {
                    let mut sample = Sample::from(series.sample);
                    let index = match self.state.lines.find(series.text) {
                        Some(index) => Some(index),
                        None => self.insert_unresolved(series.text, parser.kind(), format)?,
                    };
                    if let Some(index) = index {
                        self.series_line(index, parser.kind(), &mut sample)?;
                    }
                }
                entry => {
                    if let Entry::Type { family, kind } = entry {
                        self.state.converter.set_type(family, kind);
                    }
                    self.entry(entry, parser.since(start), parser.kind(), format)?;
                    self.end_histogram()?;
                }
            }
        }
    }

    /// Reads `_created` lines ahead: they stand behind the samples whose start they tell. An error is left for the proper pass.
    fn read_starts(&mut self, mut parser: Parser<'_>) -> Result<(), ScrapeError> {
        let iteration = self.state.iteration;
        while let Some(Ok(entry)) = parser.next() {
            match entry {
                Entry::Type { family, kind } => self.state.converter.set_type(family, kind),
                Entry::Series(series) if memchr::memmem::find(series.text, CREATED).is_some() => {
                    let index = match self.state.lines.find(series.text) {
                        Some(index) => Some(index),
                        None => self.insert_unresolved(series.text, parser.kind(), Format::OpenMetrics)?,
                    };
                    let part = index.and_then(|index| self.state.lines.line(index).part.as_deref().copied());
                    if let Some(part) = part.filter(|part| part.number == PartNumber::Created) {
                        // Whole milliseconds, as with other times in OpenMetrics; saturates.
                        let start = (series.sample.value * 1000.0) as Timestamp;
                        self.state.converter.group_mut(part.group).start = Some((iteration, start));
                    }
                }
                Entry::Series(_) | Entry::Help { .. } | Entry::Unit { .. } | Entry::Comment => {}
            }
        }
        Ok(())
    }

    /// As [`Pass::predicted`].
    fn predicted_converted(&mut self, parser: &mut Parser<'_>) -> Result<bool, ScrapeError> {
        let Some((index, line)) = self.state.lines.predicted() else { return Ok(false) };
        match line.meaning {
            Meaning::Series(_) | Meaning::Dropped | Meaning::Unresolved => {
                let Some(sample) = parser.skip_known(&line.text) else { return Ok(false) };
                self.series_line(index, parser.kind(), &mut sample?.into())?;
            }
            Meaning::Metadata { family, what } => {
                if !self.predicted(parser)? {
                    return Ok(false);
                }
                if let MetadataLine::Type(kind) = what {
                    self.state.converter.set_type(self.state.metadata.name(family).as_bytes(), kind);
                }
                self.end_histogram()?;
            }
            Meaning::Comment => {
                if !self.predicted(parser)? {
                    return Ok(false);
                }
                self.end_histogram()?;
            }
        }
        Ok(true)
    }

    /// Remembers a new line of a series, without working out what it means.
    fn insert_unresolved(
        &mut self,
        text: &[u8],
        kind: MetricKind,
        format: Format,
    ) -> Result<Option<u32>, ScrapeError> {
        let iteration = self.state.iteration;
        decode_series(text, kind, &mut self.scratch).inspect_err(|_| self.counts.total += 1)?;
        // A scrape before the present one: the line's sample is still to come.
        let index = self.state.lines.insert(text, Meaning::Unresolved, iteration - 1);
        if let Some(index) = index {
            let part = self.state.converter.part_of(&self.scratch, format, iteration);
            self.state.lines.line_mut(index).part = part.map(Box::new);
        }
        Ok(index)
    }

    /// A sample of a line in the cache.
    fn series_line(
        &mut self,
        index: u32,
        kind: MetricKind,
        sample: &mut Sample<'_>,
    ) -> Result<(), ScrapeError> {
        let iteration = self.state.iteration;
        // First this line, then the histogram that it ends: next time they are expected in the order in which they are needed.
        self.state.lines.arrived(index);
        let part = self.state.lines.line(index).part.as_deref().copied();
        if self.state.converter.ends(part) {
            self.end_histogram()?;
        }
        sample.start = part.and_then(|part| self.state.converter.start_of(part, iteration));
        if let Some(part) = part
            && self.state.converter.take(part, sample, iteration)
        {
            if !self.config.histograms.keep_classic || part.number == PartNumber::Created {
                self.state.lines.line_mut(index).last_seen = iteration;
                return Ok(());
            }
            // They are the histogram's.
            sample.exemplars = Exemplars::None;
        }
        if self.state.lines.line(index).meaning != Meaning::Unresolved {
            return self.known(index, sample);
        }
        let text = std::mem::take(&mut self.state.lines.line_mut(index).text);
        let decoded = decode_series(&text, kind, &mut self.scratch);
        let line = self.state.lines.line_mut(index);
        line.text = text;
        line.last_seen = iteration;
        decoded?;
        if let Some(meaning) = self.meaning_of(sample)? {
            self.state.lines.line_mut(index).meaning = meaning;
            if let Meaning::Series(place) = meaning {
                self.state.series.add_line(place);
            }
        }
        Ok(())
    }

    /// Stores the histogram that was collected, if its numbers make one.
    fn end_histogram(&mut self) -> Result<(), ScrapeError> {
        let converter = &mut self.state.converter;
        let Some(place) = converter.current.take() else { return Ok(()) };
        let Some(value) = converter.numbers.convert() else { return Ok(()) };
        let exemplars = match std::mem::take(&mut converter.exemplars) {
            none if none.is_empty() => Exemplars::None,
            exemplars => Exemplars::Collected(exemplars),
        };
        let start = converter.start;
        let mut sample = Sample { value, t: converter.t, exemplars, start };
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(&self.state.converter.group_mut(place).key);
        let done = match self.find_line(&key) {
            Some(index) => {
                self.state.lines.arrived(index);
                self.known(index, &mut sample)
            }
            None => {
                self.scratch.pairs.clone_from(&self.state.converter.group_mut(place).pairs);
                self.introduce(&key, &mut sample)
            }
        };
        self.key = key;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds and counts, the count of all, and the histogram.
    type Case<'a> = (&'a [(f64, f64)], Option<f64>, Option<&'a str>);

    fn convert(buckets: &[(f64, f64)], count: Option<f64>) -> Option<String> {
        let mut classic = ClassicHistogram::default();
        for (bound, count) in buckets {
            classic.set_bucket(*bound, *count);
        }
        if let Some(count) = count {
            classic.set_count(count);
        }
        classic.set_sum(1.5);
        match classic.convert()? {
            SampleValue::Histogram(h) => Some(format!("{:?} {}", h.custom_values, h.to_float())),
            SampleValue::FloatHistogram(h) => Some(format!("float {:?} {h}", h.custom_values)),
            SampleValue::Float(_) => None,
        }
    }

    #[test]
    fn histograms_from_what_there_is() {
        let inf = f64::INFINITY;
        let cases: [Case<'_>; 13] = [
            (
                &[(0.1, 1.0), (1.0, 3.0), (inf, 6.0)],
                Some(6.0),
                Some("[0.1, 1.0] {count:6, sum:1.5, [-Inf,0.1]:1, (0.1,1]:2, (1,+Inf]:3}"),
            ),
            (
                &[(0.1, 1.0), (1.0, 3.0)],
                Some(6.0),
                Some("[0.1, 1.0] {count:6, sum:1.5, [-Inf,0.1]:1, (0.1,1]:2, (1,+Inf]:3}"),
            ),
            (&[(0.1, 1.0), (1.0, 3.0)], None, Some("[0.1, 1.0] {count:3, sum:1.5, [-Inf,0.1]:1, (0.1,1]:2}")),
            (
                &[(1.0, 3.0), (inf, 6.0), (0.1, 1.0), (1.0, 4.0)],
                None,
                Some("[0.1, 1.0] {count:6, sum:1.5, [-Inf,0.1]:1, (0.1,1]:2, (1,+Inf]:3}"),
            ),
            (&[], Some(2.0), Some("[] {count:2, sum:1.5, [-Inf,+Inf]:2}")),
            (
                &[(1.0, 0.5), (inf, 2.5)],
                Some(2.5),
                Some("float [1.0] {count:2.5, sum:1.5, [-Inf,1]:0.5, (1,+Inf]:2}"),
            ),
            (&[], None, None),
            (&[(1.0, 3.0), (inf, 2.0)], Some(2.0), None),
            (&[(inf, 2.0), (1.0, 3.0)], Some(2.0), None),
            (&[(1.0, -3.0)], None, None),
            (&[(1.0, 3.0)], Some(-1.0), None),
            (&[(1.0, 3.0), (inf, 4.0)], Some(5.0), None),
            (&[(1.0, 3.0)], Some(2.0), None),
        ];
        for (buckets, count, expected) in cases {
            assert_eq!(convert(buckets, count).as_deref(), expected, "{buckets:?} {count:?}");
        }
    }

    #[test]
    fn of_equal_bounds_in_any_order_the_first_counts() {
        let first = [(2.0, 4.0), (0.0, 1.0), (-0.0, 2.0), (1.0, 3.0), (2.0, 1.0), (0.0, -1.0), (1.0, 9.0)];
        assert_eq!(
            convert(&first, Some(4.0)).as_deref(),
            Some("[0.0, 1.0, 2.0] {count:4, sum:1.5, [-Inf,0]:1, (0,1]:2, (1,2]:1}")
        );
        assert_eq!(convert(&[(3.0, 1.0), (2.0, 2.0), (1.0, 3.0)], Some(3.0)), None, "descending counts");
        assert_eq!(convert(&[(3.0, 2.0), (1.0, 1.0), (2.0, 3.0)], None), None, "one too high between two");
    }

    #[test]
    fn many_buckets_in_descending_order() {
        const BUCKETS: u32 = 200_000;
        let mut classic = ClassicHistogram::default();
        for bound in (1..=BUCKETS).rev().map(f64::from) {
            classic.set_bucket(bound, bound);
        }
        classic.set_count(f64::from(BUCKETS));
        let Some(SampleValue::Histogram(h)) = classic.convert() else { panic!("no histogram") };
        assert!(h.custom_values.iter().copied().eq((1..=BUCKETS).map(f64::from)));
        assert_eq!((h.schema, h.count), (CUSTOM_BUCKETS_SCHEMA, u64::from(BUCKETS)));
        // One observation in each but the last, which has no bound.
        assert_eq!(h.positive_spans, [Span { offset: 0, length: BUCKETS }]);
        assert!(h.positive_buckets.iter().copied().eq((0..BUCKETS).map(|index| i64::from(index == 0))));
    }
}
