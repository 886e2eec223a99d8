//! Protobuf pages into one transaction.
//!
//! A series is known again by the bytes of its labels on the wire, the name of its family, and which part of the metric it
//! is. These make its line's key, see [`Part`]; a metric whose series come where they came last time costs comparisons of
//! these bytes and the reading of its numbers.

use std::sync::Arc;

use model::labels::{BUCKET_LABEL, QUANTILE_LABEL};
use model::sample::{STALE_NAN_BITS, normal_nan};
use model::{FloatHistogram, Histogram, SampleValue};

use super::converted::ClassicHistogram;
use super::pass::{Exemplars, Pass, Sample};
use crate::error::ScrapeError;
use crate::exposition::format_bound;
use crate::exposition::protobuf::{Families, Family, FamilyType, LabelsError, Metric, MetricHistogram};

/// Which series of a metric. A key is: labels as on the wire, bits of the bound (buckets and quantiles), name of the family, tag
/// of the part, length of the labels. Its end says where its other pieces end, so no two series have the same one.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// The only one, or the native histogram.
    Whole,
    Count,
    Sum,
    Bucket(f64),
    Quantile(f64),
}

/// Bytes at the end of a key: tag and length.
const KEY_END: usize = 5;

impl Part {
    fn tag(self) -> u8 {
        match self {
            Self::Whole => 0,
            Self::Count => 1,
            Self::Sum => 2,
            Self::Bucket(_) => 3,
            Self::Quantile(_) => 4,
        }
    }

    fn bound_bits(self) -> Option<[u8; 8]> {
        match self {
            Self::Bucket(bound) | Self::Quantile(bound) => Some(bound.to_bits().to_le_bytes()),
            Self::Whole | Self::Count | Self::Sum => None,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Whole | Self::Quantile(_) => "",
            Self::Count => "_count",
            Self::Sum => "_sum",
            Self::Bucket(_) => "_bucket",
        }
    }

    fn label(self) -> Option<(&'static str, String)> {
        match self {
            Self::Bucket(bound) => Some((BUCKET_LABEL, format_bound(bound))),
            Self::Quantile(quantile) => Some((QUANTILE_LABEL, format_bound(quantile))),
            Self::Whole | Self::Count | Self::Sum => None,
        }
    }

    fn end(self, labels: &[u8]) -> [u8; KEY_END] {
        // Pages are shorter than 4 GiB.
        let [a, b, c, d] = (labels.len() as u32).to_le_bytes();
        [self.tag(), a, b, c, d]
    }

    /// Whether `key` is that of this part.
    fn is_key(self, key: &[u8], labels: &[u8], name: &str) -> bool {
        let Some(rest) = key.strip_suffix(&self.end(labels)).and_then(|rest| rest.strip_prefix(labels))
        else {
            return false;
        };
        match self.bound_bits() {
            Some(bits) => rest.strip_prefix(&bits) == Some(name.as_bytes()),
            None => rest == name.as_bytes(),
        }
    }

    fn write_key(self, labels: &[u8], name: &str, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(labels);
        into.extend_from_slice(self.bound_bits().as_ref().map_or(&[][..], |bits| bits));
        into.extend_from_slice(name.as_bytes());
        into.extend_from_slice(&self.end(labels));
    }
}

/// The labels in a key; none when it is no key of this format.
fn labels_of(key: &[u8]) -> &[u8] {
    let length = key.last_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    key.get(..length).unwrap_or_default()
}

/// A value as it may be stored: of all NaNs only the staleness marker is told from the others.
fn float(value: f64) -> f64 {
    if value.is_nan() && value.to_bits() != STALE_NAN_BITS { normal_nan() } else { value }
}

/// The same for the sum of a histogram.
fn with_plain_sum(value: SampleValue) -> SampleValue {
    match value {
        SampleValue::Float(value) => SampleValue::Float(float(value)),
        SampleValue::Histogram(h) if h.sum.is_nan() => {
            SampleValue::Histogram(Arc::new(Histogram { sum: float(h.sum), ..Arc::unwrap_or_clone(h) }))
        }
        SampleValue::FloatHistogram(h) if h.sum.is_nan() => {
            SampleValue::FloatHistogram(Arc::new(FloatHistogram {
                sum: float(h.sum),
                ..Arc::unwrap_or_clone(h)
            }))
        }
        SampleValue::Histogram(_) | SampleValue::FloatHistogram(_) => value,
    }
}

impl Pass<'_> {
    pub(super) fn families(&mut self, page: &[u8]) -> Result<(), ScrapeError> {
        let mut families = Families::new(page);
        while let Some(family) = families.next() {
            self.family(&family?)?;
        }
        Ok(())
    }

    fn family(&mut self, family: &Family<'_>) -> Result<(), ScrapeError> {
        let iteration = self.state.iteration;
        let metadata = &mut self.state.metadata;
        if let Some(place) = metadata.family(family.name.as_bytes(), iteration) {
            metadata.set_help(place, family.help, 0);
            if !family.unit.is_empty() {
                metadata.set_unit(place, family.unit, 0);
            }
            metadata.set_kind(place, family.family_type.kind());
        }
        let mut metrics = family.metrics();
        // Prometheus tells the form of a histogram by the first one of the family, then by the one before.
        let mut native = None;
        loop {
            let likely = self.state.lines.predicted().map_or(&[][..], |(_, line)| labels_of(&line.text));
            let Some(metric) = metrics.next(likely) else { return Ok(()) };
            let metric = metric?;
            match family.family_type {
                FamilyType::Counter | FamilyType::Gauge | FamilyType::Untyped => {
                    self.value(family, &metric)?
                }
                FamilyType::Summary => self.summary(family, &metric)?,
                FamilyType::Histogram | FamilyType::GaugeHistogram => {
                    let histogram = metric.histogram(family)?;
                    let is_native = self.config.histograms.native && histogram.is_native();
                    let native = native.get_or_insert(is_native);
                    if *native {
                        self.native_histogram(family, &metric, &histogram)?;
                        if self.config.histograms.keep_classic && histogram.has_buckets() {
                            self.classic_histogram(family, &metric, &histogram, true)?;
                            *native = is_native;
                        }
                    } else {
                        self.classic_or_converted(family, &metric, &histogram)?;
                        *native = is_native;
                    }
                }
            }
        }
    }

    fn value(&mut self, family: &Family<'_>, metric: &Metric<'_>) -> Result<(), ScrapeError> {
        let value = metric.value(family)?;
        let exemplars = value.exemplar.map_or(Exemplars::None, Exemplars::Protobuf);
        let sample = Sample { exemplars, start: value.start, ..Sample::float(float(value.value)) };
        self.part(family, metric, Part::Whole, sample)
    }

    fn summary(&mut self, family: &Family<'_>, metric: &Metric<'_>) -> Result<(), ScrapeError> {
        let summary = metric.summary(family)?;
        let of = |value| Sample { start: summary.start, ..Sample::float(value) };
        self.part(family, metric, Part::Count, of(summary.count as f64))?;
        self.part(family, metric, Part::Sum, of(float(summary.sum)))?;
        for (quantile, value) in summary.quantiles() {
            self.part(family, metric, Part::Quantile(quantile), of(float(value)))?;
        }
        Ok(())
    }

    fn classic_histogram(
        &mut self,
        family: &Family<'_>,
        metric: &Metric<'_>,
        histogram: &MetricHistogram<'_>,
        with_exemplars: bool,
    ) -> Result<(), ScrapeError> {
        let of = |value| Sample { start: histogram.start, ..Sample::float(float(value)) };
        self.part(family, metric, Part::Count, of(histogram.count()))?;
        self.part(family, metric, Part::Sum, of(histogram.sum))?;
        for bucket in histogram.buckets() {
            let exemplar = bucket.exemplar.filter(|_| with_exemplars);
            let exemplars = exemplar.map_or(Exemplars::None, Exemplars::Protobuf);
            let sample = Sample { exemplars, ..of(bucket.count) };
            self.part(family, metric, Part::Bucket(bucket.upper_bound), sample)?;
        }
        Ok(())
    }

    fn native_histogram(
        &mut self,
        family: &Family<'_>,
        metric: &Metric<'_>,
        histogram: &MetricHistogram<'_>,
    ) -> Result<(), ScrapeError> {
        let Some(value) = histogram.native(family.family_type) else {
            self.counts.total += 1;
            return Err(ScrapeError::BucketLimit);
        };
        let exemplars = Exemplars::Native(*histogram);
        self.part(
            family,
            metric,
            Part::Whole,
            Sample { value: with_plain_sum(value), t: None, exemplars, start: histogram.start },
        )
    }

    /// A histogram that has only the classic form, as it is or with custom buckets. Those of gauges stay as they are.
    fn classic_or_converted(
        &mut self,
        family: &Family<'_>,
        metric: &Metric<'_>,
        histogram: &MetricHistogram<'_>,
    ) -> Result<(), ScrapeError> {
        let settings = &self.config.histograms;
        if !settings.convert || family.family_type == FamilyType::GaugeHistogram {
            return self.classic_histogram(family, metric, histogram, true);
        }
        let mut classic = ClassicHistogram::default();
        classic.set_count(histogram.count());
        classic.set_sum(float(histogram.sum));
        let mut odd = Vec::new();
        for bucket in histogram.buckets() {
            if bucket.upper_bound.is_nan() {
                odd.push(bucket);
            } else {
                classic.set_bucket(bucket.upper_bound, bucket.count);
            }
        }
        if settings.keep_classic {
            // The exemplars are the converted histogram's.
            self.classic_histogram(family, metric, histogram, false)?;
        } else {
            for bucket in odd {
                let exemplars = bucket.exemplar.map_or(Exemplars::None, Exemplars::Protobuf);
                let sample = Sample { exemplars, ..Sample::float(float(bucket.count)) };
                self.part(family, metric, Part::Bucket(bucket.upper_bound), sample)?;
            }
        }
        match classic.convert() {
            Some(value) => {
                let exemplars = Exemplars::Native(*histogram);
                self.part(
                    family,
                    metric,
                    Part::Whole,
                    Sample { value, t: None, exemplars, start: histogram.start },
                )
            }
            None => Ok(()),
        }
    }

    /// One series of a metric.
    fn part(
        &mut self,
        family: &Family<'_>,
        metric: &Metric<'_>,
        part: Part,
        mut sample: Sample<'_>,
    ) -> Result<(), ScrapeError> {
        sample.t = metric.t;
        let predicted = self.state.lines.predicted();
        if let Some((index, _)) =
            predicted.filter(|(_, line)| part.is_key(&line.text, &metric.labels, family.name))
        {
            self.counts.known_lines += 1;
            self.state.lines.arrived(index);
            return self.known(index, &mut sample);
        }
        self.counts.parsed_lines += 1;
        let mut key = std::mem::take(&mut self.key);
        part.write_key(&metric.labels, family.name, &mut key);
        let done = match self.state.lines.find(&key) {
            Some(index) => {
                self.state.lines.arrived(index);
                self.known(index, &mut sample)
            }
            None => match metric.decode_labels((family.name, part.suffix()), part.label(), &mut self.scratch)
            {
                Ok(()) => self.introduce(&key, &mut sample),
                Err(error) => {
                    // A label that breaks the format ends the page before its sample counts.
                    self.counts.total += u64::from(matches!(error, LabelsError::Series(_)));
                    Err(error.into())
                }
            },
        };
        self.key = key;
        done
    }
}
