//! From a job as written to a valid one. Rules and texts are Prometheus'.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::config::PromDuration;
use model::relabel::{RawRelabelConfig, RelabelConfig};
use model::{Clock, ConfigError, ConfigPath};

use super::global::non_zero;
use super::{
    NameEscaping, NameValidation, Opaque, RawScrapeConfig, ScrapeConfig, ScrapeDefaults, ScrapeLimits,
    ScrapeProtocol, StartTimes,
};
use crate::collector::{Collector, CollectorFactory, JobSettings};
use crate::discovery::{DiscoveryConfig, StaticConfig};
use crate::exposition::PageFormat;
use crate::state::{HistogramSettings, schema_for_factor};

/// What jobs are built with.
pub struct BuildContext<'a> {
    /// The folder relative paths start from.
    pub dir: &'a Path,
    /// From the `global` section.
    pub defaults: &'a ScrapeDefaults,
    /// Collectors there are.
    pub collectors: &'a [Arc<dyn CollectorFactory>],
    /// Wall clock, for collectors.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for BuildContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildContext").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Says which jobs have a name that an earlier one has; `jobs` are all jobs with their paths.
///
/// # Errors
/// At the second job of the same name.
pub fn check_job_names<'a>(
    jobs: impl IntoIterator<Item = (&'a str, &'a ConfigPath)>,
) -> Result<(), ConfigError> {
    let mut seen = std::collections::HashSet::new();
    for (name, path) in jobs {
        if !seen.insert(name) {
            return Err(ConfigError::new(
                &path.key("job_name"),
                format!("found multiple scrape configs with job name {name:?}"),
            ));
        }
    }
    Ok(())
}

impl RawScrapeConfig {
    /// Checks the job and fills in defaults; `path` is that of the entry. Reads certificate files of the HTTP client not
    /// yet; the scrape manager does.
    ///
    /// # Errors
    /// At the key that is wrong.
    pub fn build(self, path: &ConfigPath, context: &BuildContext<'_>) -> Result<ScrapeConfig, ConfigError> {
        let defaults = context.defaults;
        if self.job_name.is_empty() {
            return Err(ConfigError::new(&path.key("job_name"), "job_name is empty"));
        }
        let (scrape_interval, scrape_timeout) = self.times(path, defaults)?;
        let name_validation =
            validation(self.metric_name_validation_scheme.as_deref(), defaults.name_validation, path)?;
        let name_escaping = escaping(
            self.metric_name_escaping_scheme.as_deref(),
            defaults.name_escaping,
            name_validation,
            path,
        )?;
        let histograms = self.histograms(defaults);
        let collector = self.build_collector(path, context, scrape_interval, scrape_timeout)?;
        let discovery = self.build_discovery(path, context.dir)?;
        let relabel_configs =
            relabel(self.relabel_configs.as_deref(), &path.key("relabel_configs"), name_validation)?;
        let metric_relabel_configs = relabel(
            self.metric_relabel_configs.as_deref(),
            &path.key("metric_relabel_configs"),
            name_validation,
        )?;
        let fallback_format = self.fallback(path)?;
        Ok(ScrapeConfig {
            scrape_interval,
            scrape_timeout,
            scrape_protocols: self.protocols(path, defaults)?,
            fallback_format,
            name_escaping,
            name_validation,
            honor_labels: self.honor_labels.unwrap_or(false),
            honor_timestamps: self.honor_timestamps.unwrap_or(true),
            track_timestamps_staleness: self.track_timestamps_staleness.unwrap_or(false),
            metrics_path: text_or(self.metrics_path.as_deref(), "/metrics"),
            scheme: self.scheme(path)?,
            params: self.params.clone().unwrap_or_default(),
            enable_compression: self.enable_compression.unwrap_or(true),
            extra_scrape_metrics: self.extra_scrape_metrics.unwrap_or(defaults.extra_scrape_metrics),
            limits: self.limits(&defaults.limits),
            failure_log: self.failure_log(defaults, context.dir),
            yaml: Arc::from(""),
            histograms,
            start_times: defaults.start_times,
            relabel_configs,
            metric_relabel_configs: metric_relabel_configs.into(),
            http: self.http_client().build(path, context.dir)?,
            discovery,
            collector,
            warnings: Vec::new(),
            job_name: self.job_name.clone(),
            source: Arc::new((self, defaults.clone(), context.dir.to_owned())),
        })
    }

    fn times(
        &self,
        path: &ConfigPath,
        defaults: &ScrapeDefaults,
    ) -> Result<(Duration, Duration), ConfigError> {
        let interval = non_zero(self.scrape_interval).unwrap_or(defaults.scrape_interval);
        match non_zero(self.scrape_timeout) {
            Some(timeout) if timeout > interval => Err(ConfigError::new(
                &path.key("scrape_timeout"),
                format!(
                    "scrape timeout greater than scrape interval for scrape config with job name {:?}",
                    self.job_name
                ),
            )),
            Some(timeout) => Ok((interval, timeout)),
            // A default that does not fit is cut to the interval.
            None => Ok((interval, defaults.scrape_timeout.min(interval))),
        }
    }

    fn scheme(&self, path: &ConfigPath) -> Result<String, ConfigError> {
        let scheme = text_or(self.scheme.as_deref(), "http");
        if matches!(scheme.as_str(), "http" | "https") {
            Ok(scheme)
        } else {
            Err(ConfigError::new(
                &path.key("scheme"),
                format!("unknown scheme {scheme:?}: use http or https"),
            ))
        }
    }

    fn limits(&self, defaults: &ScrapeLimits) -> ScrapeLimits {
        // 0 and absent both mean "as in global", as in Prometheus.
        let limit = |own: Option<u64>, default: u64| own.filter(|own| *own > 0).unwrap_or(default);
        ScrapeLimits {
            body_size: limit(self.body_size_limit.map(|size| size.0), defaults.body_size),
            samples: limit(self.sample_limit, defaults.samples),
            targets: limit(self.target_limit, defaults.targets),
            labels: limit(self.label_limit, defaults.labels),
            label_name_length: limit(self.label_name_length_limit, defaults.label_name_length),
            label_value_length: limit(self.label_value_length_limit, defaults.label_value_length),
            keep_dropped_targets: limit(self.keep_dropped_targets, defaults.keep_dropped_targets),
        }
    }

    fn protocols(
        &self,
        path: &ConfigPath,
        defaults: &ScrapeDefaults,
    ) -> Result<Vec<ScrapeProtocol>, ConfigError> {
        if let Some(words) = &self.scrape_protocols {
            return protocols(words, &path.key("scrape_protocols"));
        }
        let native = self.scrape_native_histograms.unwrap_or(defaults.scrape_native_histograms);
        Ok(match &defaults.scrape_protocols {
            Some(protocols) => protocols.clone(),
            None if native || defaults.start_times != StartTimes::Ignored => {
                ScrapeProtocol::PROTO_FIRST.to_vec()
            }
            None => ScrapeProtocol::DEFAULT.to_vec(),
        })
    }

    fn histograms(&self, defaults: &ScrapeDefaults) -> HistogramSettings {
        HistogramSettings {
            native: self.scrape_native_histograms.unwrap_or(defaults.scrape_native_histograms),
            keep_classic: self
                .always_scrape_classic_histograms
                .unwrap_or(defaults.always_scrape_classic_histograms),
            convert: self
                .convert_classic_histograms_to_nhcb
                .unwrap_or(defaults.convert_classic_histograms_to_nhcb),
            buckets_max: self.native_histogram_bucket_limit.unwrap_or(0),
            schema_max: schema_for_factor(self.native_histogram_min_bucket_factor.unwrap_or(0.0)),
        }
    }

    fn fallback(&self, path: &ConfigPath) -> Result<Option<PageFormat>, ConfigError> {
        let Some(word) = self.fallback_scrape_protocol.as_deref().filter(|word| !word.is_empty()) else {
            return Ok(None);
        };
        let here = path.key("fallback_scrape_protocol");
        Ok(Some(protocol(word, &here)?.format()))
    }

    fn failure_log(&self, defaults: &ScrapeDefaults, dir: &Path) -> Option<PathBuf> {
        match self.scrape_failure_log_file.as_deref() {
            Some(file) if !file.as_os_str().is_empty() => Some(dir.join(file)),
            // An empty name means "as in global", as in Prometheus.
            _ => defaults.failure_log.clone(),
        }
    }

    fn build_collector(
        &self,
        path: &ConfigPath,
        context: &BuildContext<'_>,
        scrape_interval: Duration,
        scrape_timeout: Duration,
    ) -> Result<Option<Arc<dyn Collector>>, ConfigError> {
        let Some(kind) = self.collector.as_deref() else {
            return match &self.collector_options {
                Some(_) => Err(ConfigError::new(
                    &path.key("collector_options"),
                    "collector_options need a collector",
                )),
                None => Ok(None),
            };
        };
        let Some(factory) = context.collectors.iter().find(|factory| factory.kind() == kind) else {
            let known: Vec<&str> = context.collectors.iter().map(|factory| factory.kind()).collect();
            return Err(ConfigError::new(
                &path.key("collector"),
                format!("unknown collector {kind:?}, known are: {}", known.join(", ")),
            ));
        };
        self.refuse_http_keys(kind, path)?;
        let settings = JobSettings {
            job_name: self.job_name.clone(),
            scrape_interval,
            scrape_timeout,
            base_dir: context.dir.to_owned(),
            clock: Arc::clone(&context.clock),
        };
        let options = self.collector_options.as_ref().map_or(&serde_yaml::Value::Null, Opaque::value);
        factory.build(&settings, options, &path.key("collector_options")).map(Some)
    }

    /// A job with a collector says nothing about HTTP: who writes `tls_config` would believe that the password is safe.
    fn refuse_http_keys(&self, kind: &str, path: &ConfigPath) -> Result<(), ConfigError> {
        let tcp = "plain TCP";
        let other = "no HTTP";
        let keys = [
            ("tls_config", self.tls_config.is_some(), tcp),
            ("scheme", self.scheme.as_deref() == Some("https"), tcp),
            ("basic_auth", self.basic_auth.is_some(), other),
            ("authorization", self.authorization.is_some(), other),
            ("oauth2", self.oauth2.is_some(), other),
            ("bearer_token", self.bearer_token.is_some(), other),
            ("bearer_token_file", self.bearer_token_file.is_some(), other),
            ("http_headers", self.http_headers.is_some(), other),
            ("proxy_url", self.proxy_url.is_some(), other),
            ("no_proxy", self.no_proxy.is_some(), other),
            ("proxy_from_environment", self.proxy_from_environment == Some(true), other),
            ("proxy_connect_header", self.proxy_connect_header.is_some(), other),
            ("body_size_limit", self.body_size_limit.is_some(), other),
        ];
        match keys.into_iter().find(|(_, is_set, _)| *is_set) {
            Some((key, _, speaks)) => Err(ConfigError::new(
                &path.key(key),
                format!("the {kind} collector speaks {speaks}: {key} has no effect here"),
            )),
            None => Ok(()),
        }
    }

    fn build_discovery(
        &self,
        path: &ConfigPath,
        dir: &Path,
    ) -> Result<Vec<Arc<dyn DiscoveryConfig>>, ConfigError> {
        if let Some(key) = self.unsupported_discovery() {
            let kind = key.trim_end_matches("_sd_configs");
            return Err(ConfigError::new(
                &path.key(key),
                format!("discovery kind {kind} is not supported yet"),
            ));
        }
        let mut discovery: Vec<Arc<dyn DiscoveryConfig>> = Vec::new();
        if let Some(groups) = &self.static_configs {
            discovery.push(Arc::new(self.build_static(groups, &path.key("static_configs"))?));
        }
        macro_rules! add {
            ($($key:ident),*) => {
                $(for (index, raw) in self.$key.iter().flatten().enumerate() {
                    let here = path.key(stringify!($key)).index(index);
                    discovery.push(Arc::new(raw.clone().build(&here, dir)?));
                })*
            };
        }
        add!(
            aws_sd_configs,
            consul_sd_configs,
            dns_sd_configs,
            docker_sd_configs,
            dockerswarm_sd_configs,
            ec2_sd_configs,
            eureka_sd_configs,
            file_sd_configs,
            http_sd_configs,
            kubernetes_sd_configs,
            nomad_sd_configs
        );
        Ok(discovery)
    }

    fn build_static(
        &self,
        groups: &[super::RawTargetGroup],
        path: &ConfigPath,
    ) -> Result<StaticConfig, ConfigError> {
        let has_relabelling = self.relabel_configs.as_ref().is_some_and(|configs| !configs.is_empty());
        let mut built = Vec::with_capacity(groups.len());
        for (index, group) in groups.iter().enumerate() {
            let here = path.index(index);
            if !has_relabelling {
                for (position, address) in group.targets.iter().flatten().enumerate() {
                    if address.contains('/') {
                        return Err(ConfigError::new(
                            &here.key("targets").index(position),
                            format!("{address:?} is not a valid hostname"),
                        ));
                    }
                }
            }
            built.push(
                group
                    .clone()
                    .build(index.to_string())
                    .map_err(|message| ConfigError::new(&here.key("labels"), message))?,
            );
        }
        Ok(StaticConfig { groups: built })
    }
}

fn relabel(
    raw: Option<&[RawRelabelConfig]>,
    path: &ConfigPath,
    names: NameValidation,
) -> Result<Vec<RelabelConfig>, ConfigError> {
    raw.unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, raw)| raw.build(&path.index(index), names))
        .collect()
}

fn text_or(text: Option<&str>, default: &str) -> String {
    match text {
        None | Some("") => default.to_owned(),
        Some(text) => text.to_owned(),
    }
}

fn protocol(word: &str, path: &ConfigPath) -> Result<ScrapeProtocol, ConfigError> {
    ScrapeProtocol::ALL.into_iter().find(|protocol| protocol.as_str() == word).ok_or_else(|| {
        let known: Vec<&str> = ScrapeProtocol::ALL.iter().map(|protocol| protocol.as_str()).collect();
        ConfigError::new(path, format!("unknown scrape protocol {word}, supported: {}", known.join(", ")))
    })
}

pub(super) fn protocols(words: &[String], path: &ConfigPath) -> Result<Vec<ScrapeProtocol>, ConfigError> {
    if words.is_empty() {
        return Err(ConfigError::new(path, "scrape_protocols cannot be empty"));
    }
    let mut found = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        let here = path.index(index);
        let protocol = protocol(word, &here)?;
        if found.contains(&protocol) {
            return Err(ConfigError::new(
                &here,
                format!("duplicated protocol in scrape_protocols, got {word}"),
            ));
        }
        found.push(protocol);
    }
    Ok(found)
}

pub(super) fn validation(
    word: Option<&str>,
    default: NameValidation,
    path: &ConfigPath,
) -> Result<NameValidation, ConfigError> {
    match word {
        None | Some("") => Ok(default),
        Some("utf8") => Ok(NameValidation::Utf8),
        Some("legacy") => Ok(NameValidation::Legacy),
        Some(other) => Err(ConfigError::new(
            &path.key("metric_name_validation_scheme"),
            format!("unrecognized validation scheme: {other:?}, use utf8 or legacy"),
        )),
    }
}

pub(super) fn escaping(
    word: Option<&str>,
    default: Option<NameEscaping>,
    validation: NameValidation,
    path: &ConfigPath,
) -> Result<NameEscaping, ConfigError> {
    let here = path.key("metric_name_escaping_scheme");
    let chosen = match word {
        None | Some("") => default,
        Some("allow-utf-8") => Some(NameEscaping::AllowUtf8),
        Some("underscores") => Some(NameEscaping::Underscores),
        Some("dots") => Some(NameEscaping::Dots),
        Some("values") => Some(NameEscaping::Values),
        Some(other) => {
            return Err(ConfigError::new(
                &here,
                format!(
                    "unknown global name escaping method {other:?}, must be one of \"allow-utf-8\", \"underscores\", \
                     \"dots\", or \"values\""
                ),
            ));
        }
    };
    match (chosen, validation) {
        (None, NameValidation::Utf8) => Ok(NameEscaping::AllowUtf8),
        (None, NameValidation::Legacy) => Ok(NameEscaping::Underscores),
        (Some(NameEscaping::AllowUtf8), NameValidation::Legacy) => Err(ConfigError::new(
            &here,
            "utf8 metric names requested but validation scheme is not set to UTF8",
        )),
        (Some(chosen), _) => Ok(chosen),
    }
}

/// Prometheus' way of writing a duration, for special labels.
pub(crate) fn duration_text(duration: Duration) -> String {
    PromDuration(duration).to_string()
}

/// Go's way of writing a duration (`1m0s`), for labels of our own metrics.
pub(crate) fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = (millis % 60_000) as f64 / 1000.0;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}
