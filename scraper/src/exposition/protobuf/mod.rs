//! Delimited protobuf: a page is a run of `io.prometheus.client.MetricFamily` messages, each after its length.
//!
//! [`Families`] walks over the families of a page, [`Family::metrics`] over the metrics of a family. A [`Metric`] borrows its
//! labels as they stand on the wire, which is what callers know it again by from page to page: one comparison of bytes, then
//! its numbers are read in place. Nothing recurses (messages nest to a fixed depth), and nothing is
//! allocated but for native histograms and for messages that come in several pieces (which the encoding
//! allows and nobody does).
//!
//! Field numbers are those of `io/prometheus/client/metrics.proto`. What is accepted and refused is what Prometheus' parser accepts
//! and refuses, but messages that are not needed for a family's type are not looked into. A value that is absent is 0, as the
//! encoding has it.

mod histogram;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use model::protobuf::{Reader, WireError};
use model::{Exemplar, Labels, MetricKind, Timestamp};

use super::labels::SeriesLabels;
use super::{ParseError, RawExemplar};

pub use histogram::{Bucket, Buckets, MetricHistogram};

/// Tag of a label in `Metric` and in `Exemplar`.
const LABEL_TAG: u8 = 0x0a;

/// Walks over the families of a page.
#[derive(Clone, Debug)]
pub struct Families<'a> {
    reader: Reader<'a>,
}

impl<'a> Families<'a> {
    /// At the start of `page`.
    pub fn new(page: &'a [u8]) -> Self {
        Self { reader: Reader::new(page) }
    }

    /// The next family with a metric; `None` at the end of the page.
    ///
    /// # Errors
    /// When the page breaks the format; call no further then.
    #[expect(clippy::should_implement_trait, reason = "an error ends the page")]
    pub fn next(&mut self) -> Option<Result<Family<'a>, ParseError>> {
        loop {
            let start = self.reader.position();
            let message = match self.reader.next_delimited() {
                Ok(message) => message?,
                Err(error) => return Some(Err(wire_error(None, start, error))),
            };
            match Family::read(message, self.reader.position() - message.len()) {
                // What is said of a family without metrics is not even checked.
                Ok(None) => {}
                Ok(Some(family)) => return Some(family.check().map(|()| family)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The types of `MetricType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyType {
    /// `COUNTER`.
    Counter,
    /// `GAUGE`.
    Gauge,
    /// `SUMMARY`.
    Summary,
    /// `UNTYPED`.
    Untyped,
    /// `HISTOGRAM`.
    Histogram,
    /// `GAUGE_HISTOGRAM`.
    GaugeHistogram,
}

impl FamilyType {
    fn of(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Counter,
            1 => Self::Gauge,
            2 => Self::Summary,
            3 => Self::Untyped,
            4 => Self::Histogram,
            5 => Self::GaugeHistogram,
            _ => return None,
        })
    }

    /// As metadata.
    pub fn kind(self) -> MetricKind {
        match self {
            Self::Counter => MetricKind::Counter,
            Self::Gauge => MetricKind::Gauge,
            Self::Summary => MetricKind::Summary,
            Self::Untyped => MetricKind::Unknown,
            Self::Histogram => MetricKind::Histogram,
            Self::GaugeHistogram => MetricKind::GaugeHistogram,
        }
    }

    /// Number of the field of `Metric` that holds the values.
    fn field(self) -> u32 {
        match self {
            Self::Gauge => 2,
            Self::Counter => 3,
            Self::Summary => 4,
            Self::Untyped => 5,
            Self::Histogram | Self::GaugeHistogram => 7,
        }
    }
}

/// A family of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Family<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its description.
    pub help: &'a str,
    /// Its unit, or empty.
    pub unit: &'a str,
    /// What its metrics are.
    pub family_type: FamilyType,
    message: &'a [u8],
    /// Where `message` begins on the page.
    offset: usize,
}

impl<'a> Family<'a> {
    /// `None` when the family has no metrics.
    fn read(message: &'a [u8], offset: usize) -> Result<Option<Self>, ParseError> {
        let (mut name, mut help, mut unit) = (&[][..], &[][..], &[][..]);
        let mut number = 0;
        let mut has_metrics = false;
        let mut reader = Reader::new(message);
        loop {
            let at = offset + reader.position();
            let mut read = || -> Result<bool, WireError> {
                let Some(field) = reader.next_field()? else { return Ok(false) };
                match field.number {
                    1 => name = field.bytes()?,
                    2 => help = field.bytes()?,
                    3 => number = field.varint()?,
                    4 => {
                        field.bytes()?;
                        has_metrics = true;
                    }
                    5 => unit = field.bytes()?,
                    _ => {}
                }
                Ok(true)
            };
            match read() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(wire_error(std::str::from_utf8(name).ok(), at, error)),
            }
        }
        if !has_metrics {
            return Ok(None);
        }
        let error = |what: String| ParseError { what: what.into(), excerpt: String::new(), offset };
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()) else {
            return Err(error(format!("invalid metric name: {}", String::from_utf8_lossy(name))));
        };
        let shown = model::labels::Quoted(name);
        let text = |bytes: &'a [u8], what: &str| {
            std::str::from_utf8(bytes).map_err(|_| {
                error(format!("invalid {what} for metric {shown}: {}", String::from_utf8_lossy(bytes)))
            })
        };
        let family_type = FamilyType::of(number)
            .ok_or_else(|| error(format!("unknown metric type for metric {shown}: {number}")))?;
        Ok(Some(Self {
            name,
            help: text(help, "help")?,
            unit: text(unit, "unit")?,
            family_type,
            message,
            offset,
        }))
    }

    /// A unit must be the end of the name, or of what a counter's name is without `_total`.
    fn check(&self) -> Result<(), ParseError> {
        let counter = self.family_type == FamilyType::Counter;
        let (stem, word) = match self.name.strip_suffix("_total").filter(|_| counter) {
            Some(stem) => (stem, "counter"),
            None => (self.name, "metric"),
        };
        let fits =
            self.unit.is_empty() || stem.strip_suffix(self.unit).is_some_and(|stem| stem.ends_with('_'));
        if fits {
            return Ok(());
        }
        let quoted = model::labels::Quoted;
        Err(ParseError {
            what: format!("unit {} not a suffix of {word} {}", quoted(self.unit), quoted(self.name)).into(),
            excerpt: String::new(),
            offset: self.offset,
        })
    }

    /// Its metrics in order.
    pub fn metrics(&self) -> Metrics<'a> {
        Metrics { family: *self, reader: Reader::new(self.message) }
    }

    fn error(&self, offset: usize, error: WireError) -> ParseError {
        wire_error(Some(self.name), offset, error)
    }
}

fn wire_error(family: Option<&str>, offset: usize, error: WireError) -> ParseError {
    let family = family.map(|name| format!(" in metric family {}", model::labels::Quoted(name)));
    ParseError {
        what: format!("invalid protobuf{} at byte {offset}: {error}", family.unwrap_or_default()).into(),
        excerpt: String::new(),
        offset,
    }
}

/// Walks over the metrics of a family.
#[derive(Clone, Debug)]
pub struct Metrics<'a> {
    family: Family<'a>,
    reader: Reader<'a>,
}

impl<'a> Metrics<'a> {
    /// The next metric. `likely` are labels as they stand on the wire ([`Metric::labels`] of an earlier page): if the metric has
    /// just these, finding that out is one comparison.
    ///
    /// # Errors
    /// When the metric breaks the format; call no further then.
    pub fn next(&mut self, likely: &[u8]) -> Option<Result<Metric<'a>, ParseError>> {
        loop {
            // The family's own fields have been read before, so these cannot fail.
            let field = self.reader.next_field().ok()??;
            if field.number != 4 {
                continue;
            }
            let message = field.bytes().ok()?;
            let offset = self.family.offset + self.reader.position() - message.len();
            let metric = Metric::read(message, self.family.family_type.field(), likely, offset);
            return Some(metric.map_err(|error| self.family.error(offset, error)));
        }
    }
}

/// One metric: its labels and its values, not yet decoded.
#[derive(Clone, Debug)]
pub struct Metric<'a> {
    /// The labels as they stand on the wire. Equal bytes are equal labels.
    pub labels: Cow<'a, [u8]>,
    /// Its own time; 0 on the wire is none.
    pub t: Option<Timestamp>,
    body: Cow<'a, [u8]>,
    offset: usize,
}

impl<'a> Metric<'a> {
    fn read(message: &'a [u8], wanted: u32, likely: &[u8], offset: usize) -> Result<Self, WireError> {
        // Labels mostly come first, one after the other.
        let known = message.starts_with(likely) && message.get(likely.len()) != Some(&LABEL_TAG);
        let mut run = if known { likely.len() } else { 0 };
        let mut reader = Reader::new(message.get(run..).unwrap_or_default());
        let skipped = run;
        let mut metric = Self { labels: Cow::Borrowed(&[]), t: None, body: Cow::Borrowed(&[]), offset };
        let mut scattered: Option<Vec<u8>> = None;
        let mut has_body = false;
        loop {
            let start = skipped + reader.position();
            let Some(field) = reader.next_field()? else { break };
            let end = skipped + reader.position();
            match field.number {
                1 => {
                    field.bytes()?;
                    if start == run && scattered.is_none() {
                        run = end;
                    } else {
                        let own = message.get(start..end).unwrap_or_default();
                        scattered
                            .get_or_insert_with(|| message.get(..run).unwrap_or_default().to_vec())
                            .extend_from_slice(own);
                    }
                }
                6 => metric.t = Some(field.int64()?).filter(|t| *t != 0),
                number if number == wanted => {
                    let bytes = field.bytes()?;
                    // Messages that come twice are one: concatenated they say what both say.
                    if has_body {
                        metric.body.to_mut().extend_from_slice(bytes);
                    } else {
                        metric.body = Cow::Borrowed(bytes);
                        has_body = true;
                    }
                }
                _ => {}
            }
        }
        metric.labels = match scattered {
            None => Cow::Borrowed(message.get(..run).unwrap_or_default()),
            Some(labels) => Cow::Owned(labels),
        };
        Ok(metric)
    }

    /// Value, exemplar and start of a counter, gauge, or untyped metric.
    ///
    /// # Errors
    /// When the message breaks the format.
    pub fn value(&self, family: &Family<'_>) -> Result<MetricValue<'_>, ParseError> {
        self.read_value(family.family_type).map_err(|error| family.error(self.offset, error))
    }

    fn read_value(&self, family_type: FamilyType) -> Result<MetricValue<'_>, WireError> {
        let counter = family_type == FamilyType::Counter;
        let mut read = MetricValue { value: 0.0, exemplar: None, start: None };
        let mut reader = Reader::new(&self.body);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => read.value = field.double()?,
                2 if counter => read.exemplar = Some(read_exemplar(field.bytes()?)?),
                3 if counter => read.start = Some(read_time(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(read)
    }

    /// Numbers of a summary.
    ///
    /// # Errors
    /// When the message breaks the format.
    pub fn summary(&self, family: &Family<'_>) -> Result<MetricSummary<'_>, ParseError> {
        self.read_summary().map_err(|error| family.error(self.offset, error))
    }

    fn read_summary(&self) -> Result<MetricSummary<'_>, WireError> {
        let mut read = MetricSummary { count: 0, sum: 0.0, start: None, body: &self.body };
        let mut reader = Reader::new(&self.body);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => read.count = field.varint()?,
                2 => read.sum = field.double()?,
                3 => {
                    read_pair_of_doubles(field.bytes()?)?;
                }
                4 => read.start = Some(read_time(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(read)
    }

    /// Numbers of a histogram, classic, native, or both.
    ///
    /// # Errors
    /// When the message breaks the format.
    pub fn histogram(&self, family: &Family<'_>) -> Result<MetricHistogram<'_>, ParseError> {
        MetricHistogram::read(&self.body).map_err(|error| family.error(self.offset, error))
    }

    /// Puts the labels into `into`, after the metric name `name` and `suffix`, and `extra` if given.
    ///
    /// # Errors
    /// When a name is empty, or a name or value is not UTF-8, or a name comes twice.
    pub fn decode_labels(
        &self,
        (name, suffix): (&str, &str),
        extra: Option<(&str, String)>,
        into: &mut SeriesLabels,
    ) -> Result<(), LabelsError> {
        into.pairs.clear();
        into.pairs.push((model::labels::METRIC_NAME.to_owned(), [name, suffix].concat()));
        let mut reader = Reader::new(&self.labels);
        while let Some(field) = reader.next_field()? {
            let (name, value) = read_label(field.bytes()?)?;
            let Some(name) = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()) else {
                return Err(LabelsError::Name(String::from_utf8_lossy(name).into_owned()));
            };
            let value = std::str::from_utf8(value)
                .map_err(|_| LabelsError::Value(String::from_utf8_lossy(value).into_owned()))?;
            into.pairs.push((name.to_owned(), value.to_owned()));
        }
        into.pairs.extend(extra.map(|(name, value)| (name.to_owned(), value)));
        into.finish().map_err(LabelsError::Series)
    }
}

/// Why the labels of a metric make no series. Texts are Prometheus'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// A label is no message.
    #[error("invalid protobuf in a label: {0}")]
    Wire(#[from] WireError),
    /// A name that is empty or not UTF-8.
    #[error("invalid label name: {0}")]
    Name(String),
    /// A value that is not UTF-8.
    #[error("invalid label value: {0}")]
    Value(String),
    /// Names that do not go together.
    #[error(transparent)]
    Series(super::DecodeError),
}

/// A counter, gauge, or untyped metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricValue<'a> {
    /// Its value, any bit pattern.
    pub value: f64,
    /// A counter's exemplar; its labels as they stand on the wire.
    pub exemplar: Option<RawExemplar<'a>>,
    /// Since when a counter counts.
    pub start: Option<Timestamp>,
}

/// A summary.
#[derive(Clone, Copy, Debug)]
pub struct MetricSummary<'a> {
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Since when it counts.
    pub start: Option<Timestamp>,
    body: &'a [u8],
}

impl<'a> MetricSummary<'a> {
    /// Each quantile and its value, as they come.
    pub fn quantiles(&self) -> impl Iterator<Item = (f64, f64)> + 'a {
        let mut reader = Reader::new(self.body);
        std::iter::from_fn(move || {
            // All of it has been read before.
            while let Some(field) = reader.next_field().ok()? {
                if field.number == 3 {
                    return read_pair_of_doubles(field.bytes().ok()?).ok();
                }
            }
            None
        })
    }
}

fn read_pair_of_doubles(bytes: &[u8]) -> Result<(f64, f64), WireError> {
    let mut pair = (0.0, 0.0);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => pair.0 = field.double()?,
            2 => pair.1 = field.double()?,
            _ => {}
        }
    }
    Ok(pair)
}

/// A `google.protobuf.Timestamp` in milliseconds.
fn read_time(bytes: &[u8]) -> Result<Timestamp, WireError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => seconds = field.int64()?,
            2 => nanos = field.int64()?,
            _ => {}
        }
    }
    Ok(i64::saturating_mul(seconds, 1000).saturating_add(nanos / 1_000_000))
}

fn read_label(bytes: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut name, mut value) = (&[][..], &[][..]);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// An exemplar; its labels stay the whole message, which [`decode_exemplar`] reads.
fn read_exemplar(bytes: &[u8]) -> Result<RawExemplar<'_>, WireError> {
    let mut exemplar = RawExemplar { labels: bytes, value: 0.0, t: None };
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => {
                read_label(field.bytes()?)?;
            }
            2 => exemplar.value = field.double()?,
            3 => exemplar.t = Some(read_time(field.bytes()?)?),
            _ => {}
        }
    }
    Ok(exemplar)
}

/// An exemplar of this format with its labels decoded. Bytes that are not UTF-8 are replaced.
pub fn decode_exemplar(raw: &RawExemplar<'_>) -> Exemplar {
    let mut pairs = Vec::new();
    let mut reader = Reader::new(raw.labels);
    while let Ok(Some(field)) = reader.next_field() {
        if let (1, Ok(Ok((name, value)))) = (field.number, field.bytes().map(read_label)) {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            pairs.push((text(name), text(value)));
        }
    }
    Exemplar { labels: Labels::from_pairs(pairs), value: raw.value, t: raw.t }
}
