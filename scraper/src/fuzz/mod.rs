//! Entry points for fuzzers: pages of every format, by themselves and as scrapes of one target.
//!
//! Besides not to panic, each checks what must hold of any page. `tests` runs all of them over mutations of sound pages; the
//! workspace `fuzz/` has a libFuzzer target for each.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use model::{Labels, SampleValue};

use crate::config::{NameValidation, ScrapeLimits, StartTimes};
use crate::exposition::protobuf::{
    Families, Family, FamilyType, Metric, decode_exemplar as decode_proto_exemplar,
};
use crate::exposition::{
    Entry, Format, PageFormat, ParseError, Parser, SeriesLabels, decode_exemplar, decode_series,
    unescape_help,
};
use crate::fake_store::FakeStore;
use crate::state::{HistogramSettings, Input, PassConfig, ReportValues, ScrapeState, ScrapeTimes};

/// A text page in either format: what is stepped over as known reads as what is parsed. Answers the number of samples.
///
/// # Panics
/// When it does not.
pub fn text(bytes: &[u8]) -> usize {
    text_as(bytes, Format::Text) + text_as(bytes, Format::OpenMetrics)
}

fn text_as(bytes: &[u8], format: Format) -> usize {
    let mut parser = Parser::new(bytes, format);
    let mut again = Parser::new(bytes, format);
    let mut labels = SeriesLabels::default();
    let mut samples = 0;
    while let Some(entry) = parser.next() {
        let known = match &entry {
            Ok(Entry::Series(series)) => again.skip_known(series.text),
            _ => None,
        };
        match (entry, known) {
            (Ok(Entry::Series(series)), Some(known)) => {
                let known = known.expect("the rest of the line is the same");
                assert!(same(known.value, series.sample.value), "a value");
                assert_eq!(known.t, series.sample.t);
                // By their text: NaN is not equal to itself.
                assert_eq!(format!("{:?}", known.exemplar), format!("{:?}", series.sample.exemplar));
                let _ = decode_series(series.text, parser.kind(), &mut labels);
                if let Some(exemplar) = &known.exemplar {
                    decode_exemplar(exemplar.labels);
                }
                samples += 1;
            }
            (entry, _) => {
                assert_eq!(again.next().is_some_and(|entry| entry.is_ok()), entry.is_ok());
                if let Ok(Entry::Help { text, .. }) = entry {
                    let _ = unescape_help(text, format);
                }
            }
        }
        assert_eq!(parser.position(), again.position());
    }
    samples
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

/// A page of delimited protobuf: labels are the same whether they are expected or not, and native histograms that are valid stay
/// so when they are made coarser. Answers the number of metrics.
///
/// # Panics
/// When it is not so.
pub fn protobuf(bytes: &[u8]) -> usize {
    let mut metrics = 0;
    let _ = read_protobuf(bytes, &mut metrics);
    metrics
}

fn read_protobuf(bytes: &[u8], count: &mut usize) -> Result<(), ParseError> {
    let mut families = Families::new(bytes);
    while let Some(family) = families.next() {
        let family = family?;
        let mut metrics = family.metrics();
        let mut expected = Vec::new();
        loop {
            let mut again = metrics.clone();
            let Some(metric) = metrics.next(&expected) else { break };
            let metric = metric?;
            *count += 1;
            for likely in [&[][..], &metric.labels] {
                let same = again.clone().next(likely).expect("it is there")?;
                assert_eq!((&same.labels, same.t), (&metric.labels, metric.t));
            }
            again.next(&[]);
            read_metric(&family, &metric)?;
            expected.clone_from(&metric.labels.to_vec());
        }
    }
    Ok(())
}

fn read_metric(family: &Family<'_>, metric: &Metric<'_>) -> Result<(), ParseError> {
    let _ = metric.decode_labels((family.name, ""), None, &mut SeriesLabels::default());
    match family.family_type {
        FamilyType::Counter | FamilyType::Gauge | FamilyType::Untyped => {
            if let Some(exemplar) = metric.value(family)?.exemplar {
                decode_proto_exemplar(&exemplar);
            }
        }
        FamilyType::Summary => drop(metric.summary(family)?.quantiles().count()),
        FamilyType::Histogram | FamilyType::GaugeHistogram => {
            let histogram = metric.histogram(family)?;
            let buckets: Vec<_> = histogram.buckets().collect();
            assert!(!buckets.is_empty(), "one of +Inf at least");
            histogram.exemplars().for_each(|exemplar| drop(decode_proto_exemplar(&exemplar)));
            match histogram.native(family.family_type) {
                Some(SampleValue::Histogram(h)) if h.validate().is_ok() => {
                    let coarse = h.to_schema(-4);
                    assert_eq!(coarse.validate(), Ok(()), "{h:?}");
                    assert!(coarse.bucket_count() <= h.bucket_count());
                }
                Some(SampleValue::FloatHistogram(h)) if h.validate().is_ok() => {
                    assert_eq!(h.to_schema(-4).validate(), Ok(()), "{h:?}");
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Three scrapes of one target, whose two pages are parts of the input: what is known of the first page does not change how many samples
/// the second has, and a page that is scraped again is as good as it was. The first byte picks settings, the second where
/// the second page begins. Answers the number of samples.
///
/// # Panics
/// When it is not so.
pub fn scrapes(bytes: &[u8]) -> usize {
    let [settings, cut, rest @ ..] = bytes else { return 0 };
    let (first, second) = rest.split_at(rest.len() * usize::from(*cut) / 256);
    let bit = |number: u8| settings >> number & 1 == 1;
    let format = match settings & 3 {
        0 => PageFormat::Text(Format::Text),
        1 => PageFormat::Text(Format::OpenMetrics),
        _ => PageFormat::Protobuf,
    };
    let convert = bit(2);
    let start_times = if bit(3) { StartTimes::ZeroSamples } else { StartTimes::Ignored };
    let config = PassConfig {
        target_labels: Labels::from_pairs([("job", "j")]),
        honor_labels: false,
        honor_timestamps: bit(4),
        track_timestamps_staleness: bit(5),
        name_validation: NameValidation::Utf8,
        relabel: Arc::new([]),
        limits: ScrapeLimits::default(),
        histograms: HistogramSettings {
            native: bit(6),
            keep_classic: bit(7),
            convert,
            // Protobuf has two of the four numbers of formats: one with a limit.
            buckets_max: if settings & 3 == 3 { 4 } else { 0 },
            ..HistogramSettings::default()
        },
        start_times,
    };
    let mut warm = Target::new(&config);
    let verdicts = [first, second, first].map(|page| warm.scrape(page, format));
    // What a line is to a histogram may depend on the type that was said when it first came, as its spelling of bounds does.
    let compared = !convert && start_times == StartTimes::Ignored && !config.honor_timestamps;
    if compared {
        for (page, verdict) in [first, second].into_iter().zip(verdicts) {
            assert_eq!(Target::new(&config).scrape(page, format), verdict);
        }
        assert_eq!(verdicts[0], verdicts[2]);
    }
    verdicts.iter().map(|verdict| verdict.1 as usize).sum()
}

struct Target<'a> {
    config: &'a PassConfig,
    store: FakeStore,
    state: ScrapeState,
    t: i64,
}

impl<'a> Target<'a> {
    fn new(config: &'a PassConfig) -> Self {
        Self { config, store: FakeStore::default(), state: ScrapeState::new(), t: 1_000_000 }
    }

    /// Whether it went well, and samples on the page.
    fn scrape(&mut self, page: &[u8], format: PageFormat) -> (bool, u64) {
        self.t += 1000;
        let times = ScrapeTimes { t: self.t, now_ms: self.t };
        let input = Input::Page(page, format);
        let report = |_: &_, error: Option<&_>| ReportValues {
            up: error.is_none(),
            duration_seconds: 0.0,
            scraped: 0,
            post_relabeling: 0,
            series_added: 0,
            extra: None,
        };
        let stored = self.state.store(&self.store, self.config, &input, None, &times, report);
        (stored.error.is_none(), stored.counts.total)
    }
}
