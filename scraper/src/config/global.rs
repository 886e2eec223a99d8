//! The `global` section.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::config::{ByteSize, PromDuration};
use model::{ConfigError, ConfigPath};
use serde::Deserialize;

use super::build::{escaping, protocols, validation};
use super::{NameEscaping, NameValidation, ScrapeLimits, ScrapeProtocol, StartTimes};

/// `global` as written: all of its keys, since unknown ones are refused; those that are not about scraping are for
/// others to use.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field is the configuration key of its name")]
pub struct RawGlobalConfig {
    pub scrape_interval: Option<PromDuration>,
    pub scrape_timeout: Option<PromDuration>,
    pub scrape_protocols: Option<Vec<String>>,
    pub scrape_failure_log_file: Option<PathBuf>,
    pub body_size_limit: Option<ByteSize>,
    pub sample_limit: Option<u64>,
    pub target_limit: Option<u64>,
    pub label_limit: Option<u64>,
    pub label_name_length_limit: Option<u64>,
    pub label_value_length_limit: Option<u64>,
    pub keep_dropped_targets: Option<u64>,
    pub metric_name_validation_scheme: Option<String>,
    pub metric_name_escaping_scheme: Option<String>,
    pub scrape_native_histograms: Option<bool>,
    pub convert_classic_histograms_to_nhcb: Option<bool>,
    pub always_scrape_classic_histograms: Option<bool>,
    pub extra_scrape_metrics: Option<bool>,

    // Not about scraping.
    pub evaluation_interval: Option<PromDuration>,
    pub rule_query_offset: Option<PromDuration>,
    pub external_labels: Option<BTreeMap<String, String>>,
    pub query_log_file: Option<PathBuf>,
}

/// What jobs that do not say otherwise do.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeDefaults {
    /// Time between scrapes.
    pub scrape_interval: Duration,
    /// Time a scrape may take.
    pub scrape_timeout: Duration,
    /// Formats to ask for.
    pub scrape_protocols: Option<Vec<ScrapeProtocol>>,
    /// Bounds.
    pub limits: ScrapeLimits,
    /// How names must look.
    pub name_validation: NameValidation,
    /// How names are written by targets.
    pub name_escaping: Option<NameEscaping>,
    /// Whether native histograms are asked for.
    pub scrape_native_histograms: bool,
    /// Whether classic histograms become native ones.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Whether classic histograms are kept beside native ones.
    pub always_scrape_classic_histograms: bool,
    /// What is done with start times. No key says this: features are switched on at the start.
    pub start_times: StartTimes,
    /// Whether limits and sizes are stored as series too.
    pub extra_scrape_metrics: bool,
    /// Where failed scrapes are noted. Whoever knows the folder of the file sets it: see [`RawGlobalConfig::failure_log`].
    pub failure_log: Option<PathBuf>,
}

impl Default for ScrapeDefaults {
    fn default() -> Self {
        Self {
            scrape_interval: Duration::from_secs(60),
            scrape_timeout: Duration::from_secs(10),
            scrape_protocols: None,
            limits: ScrapeLimits::default(),
            name_validation: NameValidation::Utf8,
            name_escaping: None,
            scrape_native_histograms: false,
            convert_classic_histograms_to_nhcb: false,
            always_scrape_classic_histograms: false,
            start_times: StartTimes::Ignored,
            extra_scrape_metrics: false,
            failure_log: None,
        }
    }
}

impl RawGlobalConfig {
    /// Checks the keys that are about scraping; `path` is that of the section.
    ///
    /// # Errors
    /// When the timeout exceeds the interval, or a word is unknown.
    pub fn scrape_defaults(&self, path: &ConfigPath) -> Result<ScrapeDefaults, ConfigError> {
        let base = ScrapeDefaults::default();
        // An interval of 0 means the default, as in Prometheus.
        let interval = non_zero(self.scrape_interval).unwrap_or(base.scrape_interval);
        let timeout = match non_zero(self.scrape_timeout) {
            Some(timeout) if timeout > interval => {
                return Err(ConfigError::new(
                    &path.key("scrape_timeout"),
                    "global scrape timeout greater than scrape interval",
                ));
            }
            Some(timeout) => timeout,
            None => base.scrape_timeout.min(interval),
        };
        let name_validation =
            validation(self.metric_name_validation_scheme.as_deref(), NameValidation::Utf8, path)?;
        let name_escaping = match self.metric_name_escaping_scheme.as_deref() {
            None | Some("") => None,
            text => Some(escaping(text, None, name_validation, path)?),
        };
        Ok(ScrapeDefaults {
            scrape_interval: interval,
            scrape_timeout: timeout,
            scrape_protocols: self
                .scrape_protocols
                .as_deref()
                .map(|words| protocols(words, &path.key("scrape_protocols")))
                .transpose()?,
            limits: ScrapeLimits {
                body_size: self.body_size_limit.unwrap_or_default().0,
                samples: self.sample_limit.unwrap_or(0),
                targets: self.target_limit.unwrap_or(0),
                labels: self.label_limit.unwrap_or(0),
                label_name_length: self.label_name_length_limit.unwrap_or(0),
                label_value_length: self.label_value_length_limit.unwrap_or(0),
                keep_dropped_targets: self.keep_dropped_targets.unwrap_or(0),
            },
            name_validation,
            name_escaping,
            scrape_native_histograms: self.scrape_native_histograms.unwrap_or(false),
            convert_classic_histograms_to_nhcb: self.convert_classic_histograms_to_nhcb.unwrap_or(false),
            always_scrape_classic_histograms: self.always_scrape_classic_histograms.unwrap_or(false),
            start_times: base.start_times,
            extra_scrape_metrics: self.extra_scrape_metrics.unwrap_or(false),
            failure_log: None,
        })
    }

    /// Where failed scrapes of all jobs are noted, if the section of a file in `dir` says so.
    pub fn failure_log(&self, dir: &Path) -> Option<PathBuf> {
        let file = self.scrape_failure_log_file.as_deref()?;
        (!file.as_os_str().is_empty()).then(|| dir.join(file))
    }
}

pub(super) fn non_zero(duration: Option<PromDuration>) -> Option<Duration> {
    duration.map(|duration| duration.0).filter(|duration| !duration.is_zero())
}
