//! Configuration of scraping: `scrape_configs`, the scrape keys of `global`, `scrape_config_files`.
//!
//! Two stages, as everywhere: [`RawScrapeConfig`] and [`RawGlobalConfig`] are what is written (unknown keys refused with their
//! place), [`ScrapeConfig`] and [`ScrapeDefaults`] are what holds (defaults filled, regexes compiled, files found).

mod build;
mod files;
mod global;
mod opaque;
mod raw;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use model::relabel::NameValidation;
use model::relabel::RelabelConfig;
use net::http::HttpClientConfig;

use crate::collector::Collector;
use crate::discovery::DiscoveryConfig;
use crate::exposition::{Format, PageFormat};
use crate::state::HistogramSettings;

pub use build::{BuildContext, check_job_names};
pub(crate) use build::{duration_text, go_duration};
pub use files::{RawScrapeConfigFile, scrape_config_files};
pub use global::{RawGlobalConfig, ScrapeDefaults};
pub use opaque::Opaque;
pub use raw::{RawScrapeConfig, RawTargetGroup};

/// How a target is asked to write names that are not legacy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameEscaping {
    /// As they are, in quotes.
    AllowUtf8,
    /// Other characters become `_`.
    Underscores,
    /// Dots become `_dot_`.
    Dots,
    /// `U__` and code points.
    Values,
}

impl NameEscaping {
    /// The word in configuration and the `escaping` parameter of `Accept`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }
}

/// A format a target may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeProtocol {
    /// Delimited protobuf.
    Proto,
    /// OpenMetrics 1.0.0.
    OpenMetrics1_0_0,
    /// OpenMetrics 0.0.1.
    OpenMetrics0_0_1,
    /// Classic text 1.0.0.
    Text1_0_0,
    /// Classic text 0.0.4.
    Text0_0_4,
}

impl ScrapeProtocol {
    /// All of them, most wanted first.
    pub const ALL: [Self; 5] =
        [Self::Proto, Self::OpenMetrics1_0_0, Self::OpenMetrics0_0_1, Self::Text1_0_0, Self::Text0_0_4];
    /// What is asked for when nothing is configured.
    pub const DEFAULT: [Self; 4] =
        [Self::OpenMetrics1_0_0, Self::OpenMetrics0_0_1, Self::Text1_0_0, Self::Text0_0_4];

    /// The word in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proto => "PrometheusProto",
            Self::OpenMetrics1_0_0 => "OpenMetricsText1.0.0",
            Self::OpenMetrics0_0_1 => "OpenMetricsText0.0.1",
            Self::Text1_0_0 => "PrometheusText1.0.0",
            Self::Text0_0_4 => "PrometheusText0.0.4",
        }
    }

    /// The media type in `Accept`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Proto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::OpenMetrics1_0_0 => "application/openmetrics-text;version=1.0.0",
            Self::OpenMetrics0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::Text1_0_0 => "text/plain;version=1.0.0",
            Self::Text0_0_4 => "text/plain;version=0.0.4",
        }
    }

    /// Whether names may be escaped in this format.
    pub fn has_escaping(self) -> bool {
        matches!(self, Self::OpenMetrics1_0_0 | Self::Text1_0_0)
    }

    /// What is asked for when nothing is configured but that native histograms are wanted, which only protobuf has.
    pub const PROTO_FIRST: [Self; 5] = Self::ALL;

    /// The format of pages.
    pub fn format(self) -> PageFormat {
        match self {
            Self::Proto => PageFormat::Protobuf,
            Self::OpenMetrics1_0_0 | Self::OpenMetrics0_0_1 => PageFormat::Text(Format::OpenMetrics),
            Self::Text1_0_0 | Self::Text0_0_4 => PageFormat::Text(Format::Text),
        }
    }
}

/// What is done with the times since when counters, histograms and summaries count, where pages tell them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartTimes {
    /// Nothing; `_created` lines of OpenMetrics are series as any other.
    #[default]
    Ignored,
    /// A sample of 0 is stored at that time (`created-timestamp-zero-ingestion`).
    ZeroSamples,
    /// They are stored with each sample (`st-storage`).
    Stored,
}

/// Bounds of a scrape; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeLimits {
    /// Bytes of the uncompressed body.
    pub body_size: u64,
    /// Samples after relabelling.
    pub samples: u64,
    /// Targets of the job.
    pub targets: u64,
    /// Labels of a series, `__name__` and target labels included.
    pub labels: u64,
    /// Bytes of a label name.
    pub label_name_length: u64,
    /// Bytes of a label value.
    pub label_value_length: u64,
    /// Dropped targets that are remembered; 0 is all.
    pub keep_dropped_targets: u64,
}

/// A valid scrape job.
#[derive(Clone)]
pub struct ScrapeConfig {
    /// Its name, unique among jobs.
    pub job_name: String,
    /// Time between scrapes.
    pub scrape_interval: Duration,
    /// Time a scrape may take, at most the interval.
    pub scrape_timeout: Duration,
    /// Formats to ask for, most wanted first.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Format of pages that do not say.
    pub fallback_format: Option<PageFormat>,
    /// How names are written by targets.
    pub name_escaping: NameEscaping,
    /// How names must look.
    pub name_validation: NameValidation,
    /// Whether labels on the page win over target labels.
    pub honor_labels: bool,
    /// Whether timestamps on the page count.
    pub honor_timestamps: bool,
    /// Whether series with own timestamps get staleness markers.
    pub track_timestamps_staleness: bool,
    /// Path of the page.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Query parameters.
    pub params: BTreeMap<String, Vec<String>>,
    /// Whether gzip is asked for.
    pub enable_compression: bool,
    /// Whether limits and sizes are stored as series too.
    pub extra_scrape_metrics: bool,
    /// Bounds.
    pub limits: ScrapeLimits,
    /// What becomes of histograms, unless labels of a target say otherwise.
    pub(crate) histograms: HistogramSettings,
    /// What becomes of start times.
    pub(crate) start_times: StartTimes,
    /// Relabelling of targets.
    pub relabel_configs: Vec<RelabelConfig>,
    /// Relabelling of series.
    pub metric_relabel_configs: Arc<[RelabelConfig]>,
    /// Client settings.
    pub http: HttpClientConfig,
    /// Ways of finding targets.
    pub discovery: Vec<Arc<dyn DiscoveryConfig>>,
    /// Reads targets in another way than by HTTP pages.
    pub collector: Option<Arc<dyn Collector>>,
    /// Where failed scrapes are noted.
    pub failure_log: Option<PathBuf>,
    /// The job as written, without secrets, for people; empty for built-in jobs.
    pub yaml: Arc<str>,
    /// Settings that are accepted but do nothing yet, for the log.
    pub warnings: Vec<String>,
    /// What all of this was made of, to tell a changed job from an unchanged one.
    source: Arc<(RawScrapeConfig, ScrapeDefaults, std::path::PathBuf)>,
}

impl std::fmt::Debug for ScrapeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrapeConfig").field("job_name", &self.job_name).finish_non_exhaustive()
    }
}

impl ScrapeConfig {
    /// Whether `other` asks for the same in every respect. Contents of files named in the configuration do not count.
    pub fn same_as(&self, other: &Self) -> bool {
        self.source == other.source && self.same_discovery(other)
    }

    /// Which collector reads the job's targets; `None`: they are pages.
    pub(crate) fn collector_kind(&self) -> Option<&str> {
        self.source.0.collector.as_deref()
    }

    /// Whether both jobs look for targets in the same way.
    pub(crate) fn same_discovery(&self, other: &Self) -> bool {
        self.discovery.len() == other.discovery.len()
            && self.discovery.iter().zip(&other.discovery).all(|(a, b)| a.same_as(b.as_ref()))
    }

    /// Whether both jobs make the same series of the same page, so that what is known of a target's lines stays true.
    pub(crate) fn same_series_as(&self, other: &Self) -> bool {
        let (a, b) = (&self.source.0, &other.source.0);
        self.honor_labels == other.honor_labels
            && self.name_validation == other.name_validation
            && self.collector.is_some() == other.collector.is_some()
            && a.metric_relabel_configs == b.metric_relabel_configs
            && (self.histograms, self.start_times) == (other.histograms, other.start_times)
            && (self.limits.labels, self.limits.label_name_length, self.limits.label_value_length)
                == (other.limits.labels, other.limits.label_name_length, other.limits.label_value_length)
    }

    /// The same job with what it was written as, for people: `yaml` must have no secrets.
    #[must_use]
    pub fn with_yaml(mut self, yaml: &str) -> Self {
        self.yaml = yaml.into();
        self
    }

    /// The same job with one more way of finding targets, for built-in jobs.
    #[must_use]
    pub fn with_discovery(mut self, discovery: Arc<dyn DiscoveryConfig>) -> Self {
        self.discovery.push(discovery);
        self
    }
}
