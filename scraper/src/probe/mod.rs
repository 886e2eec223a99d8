//! One discovery and one scrape of a job, for people who want to know what is found, kept, dropped and why
//! (`nilometer check target`). Nothing is stored, and nothing goes on afterwards.

mod null_store;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use model::relabel::{self, RelabelStep};
use model::{Clock, Labels, LabelsBuilder};
use net::http::{ClientOptions, HttpClient};
use tokio::time::Instant;

use crate::collector::Scrape;
use crate::config::ScrapeConfig;
use crate::discovery::{DiscoveryContext, DiscoveryTrouble, Providers, TargetGroup};
use crate::error::ScrapeError;
use crate::exposition::{Format, PageFormat, media_type};
use crate::http::{Page, PageSource, effective_limit};
use crate::metrics::SdMetrics;
use crate::scrape_loop::{collect_target, pass_config};
use crate::state::{Input, PassCounts, ReportValues, ScrapeState, ScrapeTimes, Stored};
use crate::target::{Outcome, Target, discovered_labels, targets_of};
use crate::unpack::Unpacker;
use null_store::NullStore;

/// How to probe.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Scrape only targets with this address, `instance` or URL.
    pub target: Option<String>,
    /// How long discoverers may take for their first word.
    pub discovery_wait: Duration,
    /// Most targets that are scraped.
    pub scrapes_max: usize,
    /// `User-Agent` of requests.
    pub user_agent: String,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

/// What came of probing a job.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Kinds of discovery that said nothing in time.
    pub silent: Vec<&'static str>,
    /// Discoverers that failed, and why.
    pub troubles: Vec<DiscoveryTrouble>,
    /// What was found, in order.
    pub targets: Vec<ProbedTarget>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct ProbedTarget {
    /// The group it is from.
    pub source: String,
    /// Labels before relabelling.
    pub discovered: Labels,
    /// What each rule made of them, up to one that drops.
    pub steps: Vec<RelabelStep>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a target.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Relabelling dropped it.
    Dropped,
    /// It makes no target.
    Invalid(String),
    /// Another one is the same after relabelling.
    Duplicate {
        /// What would be asked for.
        url: String,
    },
    /// It is scraped.
    Kept {
        /// What is asked for.
        url: String,
        /// Labels that series get.
        labels: Labels,
        /// What the scrape brought; `None`: it was not asked for.
        scrape: Option<Box<ProbedScrape>>,
    },
}

/// What one scrape brought.
#[derive(Clone, Debug)]
pub struct ProbedScrape {
    /// Why it failed, a limit for example.
    pub error: Option<String>,
    /// Why it is incomplete.
    pub warnings: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// `Content-Type` of the answer, as it came.
    pub content_type: String,
    /// What it is read as; `None`: nothing to read, or nobody knows.
    pub format: Option<&'static str>,
    /// Bytes of the page.
    pub bytes: usize,
    /// Bytes of the answer when it was compressed.
    pub compressed_bytes: Option<usize>,
    /// Samples on the page, up to where it breaks.
    pub samples: u64,
    /// Samples that metric relabelling leaves.
    pub kept: u64,
    /// Series that would be stored.
    pub series: u64,
    /// Metric names of which metric relabelling dropped series, and how many.
    pub dropped: BTreeMap<String, u64>,
    /// Samples of a series that had one already.
    pub duplicates: u64,
    /// Samples too far in the future.
    pub out_of_bounds: u64,
    /// Metric families the page tells about.
    pub families: usize,
}

/// Discovers, and scrapes each target once.
///
/// # Errors
/// When the job's HTTP client cannot be made.
pub async fn probe(
    config: &ScrapeConfig,
    options: &ProbeOptions,
) -> Result<Probe, Box<dyn std::error::Error + Send + Sync>> {
    let client = match &config.collector {
        Some(_) => None,
        None => Some(HttpClient::new(&config.http, ClientOptions::new(options.user_agent.clone()))?),
    };
    let metrics = Arc::new(SdMetrics::new(&prometheus::Registry::new())?);
    let context = DiscoveryContext {
        job_name: config.job_name.clone(),
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&options.clock),
        user_agent: options.user_agent.clone(),
    };
    let mut providers = Providers::start(config.discovery.clone(), &context);
    let silent = providers.first_words(Instant::now() + options.discovery_wait).await;
    let troubles = metrics.troubles(&config.job_name);
    let mut seen = HashSet::new();
    let mut scrapes = 0;
    let mut targets = Vec::new();
    for group in providers.groups().iter() {
        for (own, outcome) in group.targets.iter().zip(targets_of(group, config)) {
            let (fate, target) = judge(outcome, &mut seen);
            let mut probed = probed_target(group, own, config, fate);
            if let (Fate::Kept { scrape, .. }, Some(target)) = (&mut probed.fate, target)
                && scrapes < options.scrapes_max
                && is_meant(&target, options.target.as_deref())
            {
                scrapes += 1;
                *scrape = Some(Box::new(scrape_once(&target, config, client.as_ref(), options).await));
            }
            targets.push(probed);
        }
    }
    Ok(Probe { silent, troubles, targets })
}

fn judge(outcome: Result<Outcome, String>, seen: &mut HashSet<u64>) -> (Fate, Option<Box<Target>>) {
    match outcome {
        Err(error) => (Fate::Invalid(error), None),
        Ok(Outcome::Drop(_)) => (Fate::Dropped, None),
        Ok(Outcome::Keep(target)) if !seen.insert(target.hash()) => {
            (Fate::Duplicate { url: target.url.clone() }, None)
        }
        Ok(Outcome::Keep(target)) => {
            let (url, labels) = (target.url.clone(), target.public_labels.clone());
            (Fate::Kept { url, labels, scrape: None }, Some(target))
        }
    }
}

fn probed_target(group: &TargetGroup, own: &Labels, config: &ScrapeConfig, fate: Fate) -> ProbedTarget {
    let discovered = discovered_labels(own, &group.labels, config).build();
    let steps = relabel::process_steps(&discovered, &config.relabel_configs);
    ProbedTarget { source: group.source.clone(), discovered, steps, fate }
}

fn is_meant(target: &Target, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| {
        wanted == target.address() || wanted == target.public_labels.value("instance") || wanted == target.url
    })
}

/// What was read, and what is known of it.
#[derive(Default)]
struct Read {
    page: Option<Page>,
    samples: Scrape,
    error: Option<ScrapeError>,
}

async fn scrape_once(
    target: &Target,
    config: &ScrapeConfig,
    client: Option<&HttpClient>,
    options: &ProbeOptions,
) -> ProbedScrape {
    let started = Instant::now();
    let t = options.clock.now_ms();
    let read = match (&config.collector, client) {
        (Some(collector), _) => {
            let deadline = started + target.timeout;
            let mut session = collector.connect(&collect_target(target));
            match tokio::time::timeout_at(deadline, session.collect(deadline)).await {
                Ok(Ok(samples)) => Read { samples, ..Read::default() },
                Ok(Err(mut error)) => {
                    let samples = std::mem::take(&mut error.samples);
                    let samples = Scrape { samples, ..Scrape::default() };
                    Read { samples, error: Some(error.into()), ..Read::default() }
                }
                Err(_) => Read { error: Some(ScrapeError::CollectTimeout), ..Read::default() },
            }
        }
        (None, Some(client)) => {
            let source =
                PageSource::new(client.clone(), config, &target.url, target.timeout, &options.user_agent);
            match source.fetch().await {
                Ok(page) => Read { page: Some(page), ..Read::default() },
                Err(error) => Read { error: Some(error), ..Read::default() },
            }
        }
        (None, None) => unreachable!("jobs without collector have a client"),
    };
    let took = started.elapsed();
    let times = ScrapeTimes { t, now_ms: options.clock.now_ms() };
    examine(read, target, config, &times, took)
}

fn examine(
    mut read: Read,
    target: &Target,
    config: &ScrapeConfig,
    times: &ScrapeTimes,
    took: Duration,
) -> ProbedScrape {
    let mut unpacker = Unpacker::new();
    let mut format = None;
    let mut bytes = usize::try_from(read.samples.body_bytes).unwrap_or(usize::MAX);
    let input = match &read.page {
        None if read.samples.samples.is_empty() => Input::Nothing,
        None => {
            format = Some("samples of a collector");
            Input::Samples(&read.samples)
        }
        Some(page) => match page.text(&mut unpacker, effective_limit(config.limits.body_size)) {
            Err(error) => {
                read.error = Some(error);
                Input::Nothing
            }
            Ok(text) => {
                bytes = text.len();
                match media_type(&page.content_type, config.fallback_format) {
                    _ if text.is_empty() => Input::Nothing,
                    Err(error) => {
                        read.error = Some(error.into());
                        Input::Nothing
                    }
                    Ok(found) => {
                        format = Some(format_name(found));
                        Input::Page(text, found)
                    }
                }
            }
        },
    };
    let mut state = ScrapeState::noting_dropped();
    let report = |_: &PassCounts, error: Option<&ScrapeError>| ReportValues {
        up: error.is_none(),
        duration_seconds: 0.0,
        scraped: 0,
        post_relabeling: 0,
        series_added: 0,
        extra: None,
    };
    let pass = pass_config(target, config);
    let Stored { counts, error, metadata } =
        state.store(&NullStore, &pass, &input, read.error, times, report);
    ProbedScrape {
        error: error.map(|error| error.to_string()),
        warnings: read.samples.warnings.clone(),
        took,
        content_type: read.page.as_ref().map(|page| page.content_type.clone()).unwrap_or_default(),
        format,
        bytes,
        compressed_bytes: read.page.as_ref().filter(|page| page.gzip).map(|page| page.body.len()),
        samples: counts.total,
        kept: counts.added,
        series: counts.series_added,
        dropped: state.dropped(),
        duplicates: counts.duplicates,
        out_of_bounds: counts.out_of_bounds,
        families: metadata.map_or(0, |families| families.len()),
    }
}

fn format_name(format: PageFormat) -> &'static str {
    match format {
        PageFormat::Text(Format::Text) => "classic text",
        PageFormat::Text(Format::OpenMetrics) => "OpenMetrics",
        PageFormat::Protobuf => "protobuf",
    }
}

/// What differs between two label sets: names, with the value before and after.
pub fn changed_labels(before: &Labels, after: &Labels) -> Vec<(String, Option<String>, Option<String>)> {
    let mut names = LabelsBuilder::from(before);
    for (name, value) in after {
        names.set(name, value);
    }
    let value = |labels: &Labels, name: &str| labels.has(name).then(|| labels.value(name).to_owned());
    names
        .build()
        .iter()
        .map(|(name, _)| (name.to_owned(), value(before, name), value(after, name)))
        .filter(|(_, before, after)| before != after)
        .collect()
}
