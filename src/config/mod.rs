//! The configuration: one file (or the built-in defaults) and the files it names, checked as a whole.
//!
//! [`load`] reads everything and starts nothing: what it gives can be swapped in, or thrown away when it was only a check.
//! All mistakes of one stage are told together.

pub(crate) mod env;
mod error;
pub(crate) mod mask;
mod position;
mod raw;
mod rules;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alertmanager::config::{AlertmanagerConfig, BuildOptions, RawAlertmanagerConfig};
use model::relabel::{NameValidation, RelabelConfig};
use model::{Clock, ConfigError, ConfigPath, Labels};
use query::parse::ParseOptions;
use query::rules::{GroupConfig, RuleFileContext};
use scraper::collector::CollectorFactory;
use scraper::config::{
    BuildContext, RawScrapeConfigFile, ScrapeConfig, ScrapeDefaults, StartTimes, check_job_names,
    scrape_config_files,
};
use tsdb::RetentionRule;

pub(crate) use error::FileError;
use raw::{RawConfig, RawRetentionRule};
pub(crate) use rules::check_rule_file;

use crate::cli::Switch;

/// Name of the built-in defaults in messages.
const BUILT_IN: &str = "(built-in defaults)";
/// The built-in defaults.
const DEFAULT_CONFIG: &str = include_str!("../builtin/default.yml");
/// How often rules run when nothing is said (as Prometheus).
const EVALUATION_INTERVAL: Duration = Duration::from_secs(60);
/// Exemplars kept when nothing is said (as Prometheus).
const EXEMPLARS_MAX: usize = 100_000;

/// What is to be loaded.
#[derive(Clone)]
pub(crate) struct LoadRequest {
    /// The main file; `None`: the built-in defaults.
    pub file: Option<PathBuf>,
    /// `alertmanager.yml`, if given apart.
    pub alertmanager_file: Option<PathBuf>,
    /// Expand `${VAR}` everywhere.
    pub expand_env: bool,
    /// Whether rule files, scrape files and the like are read.
    pub follow_files: bool,
    /// Whether a rule file that is named and not there is a mistake, or only worth a warning (as for a server, where it may
    /// come later).
    pub strict: bool,
    /// When the built-in rules are loaded.
    pub builtin_rules: Switch,
    /// Collectors there are.
    pub collectors: Arc<[Arc<dyn CollectorFactory>]>,
    /// Wall clock, for collectors.
    pub clock: Arc<dyn Clock>,
    /// Language features of rules.
    pub parse_options: ParseOptions,
    /// What scrape jobs do with start times.
    pub start_times: StartTimes,
    /// Where the built-in defaults find ourselves.
    pub own_address: String,
}

/// A valid configuration.
pub(crate) struct Config {
    /// The main file's text as read (before `${VAR}` were expanded).
    pub text: String,
    /// What scrape jobs start from.
    pub scrape_defaults: ScrapeDefaults,
    /// Scrape jobs of all files.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// How often rules run; the default step of subqueries.
    pub evaluation_interval: Duration,
    /// Labels for everything that leaves.
    pub external_labels: Labels,
    /// Where a line for each query goes; `None`: nowhere.
    pub query_log_file: Option<PathBuf>,
    /// Rule groups of all files and the built-in ones.
    pub rules: Vec<GroupConfig>,
    /// What is done to alerts before they are sent.
    pub alert_relabel_configs: Arc<[RelabelConfig]>,
    /// Routes and receivers; `None`: nobody is told.
    pub alertmanager: Option<AlertmanagerConfig>,
    /// How far behind the newest sample others may be.
    pub out_of_order_window: Duration,
    /// How long samples are kept, if said.
    pub retention_time: Option<Duration>,
    /// How many bytes are kept, if said.
    pub retention_size: Option<u64>,
    /// Series that are kept for another time.
    pub retention_rules: Vec<RetentionRule>,
    /// Exemplars kept.
    pub exemplars_max: usize,
    /// What works but should be known.
    pub warnings: Vec<String>,
}

/// Reads and checks everything.
///
/// # Errors
/// All mistakes found, in order of files.
pub(crate) fn load(request: &LoadRequest) -> Result<Config, Vec<FileError>> {
    let main = Source::main(request).map_err(|error| vec![error])?;
    let raw: RawConfig = main.parse().map_err(|error| vec![error])?;
    let mut loader = Loader { request, main: &main, errors: Vec::new(), warnings: Vec::new() };
    let config = loader.config(raw);
    let Loader { errors, warnings, .. } = loader;
    match config {
        Some(config) if errors.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(errors),
    }
}

/// A file's text.
struct Source {
    file: PathBuf,
    /// The folder that relative paths in it start from.
    dir: PathBuf,
    /// As written.
    text: String,
    /// With variables expanded.
    expanded: String,
}

impl Source {
    fn main(request: &LoadRequest) -> Result<Self, FileError> {
        match &request.file {
            Some(file) => Self::read(file, request.expand_env),
            None => {
                let text = DEFAULT_CONFIG.replace("%OWN_ADDRESS%", &request.own_address);
                Ok(Self { file: PathBuf::from(BUILT_IN), dir: PathBuf::new(), expanded: text.clone(), text })
            }
        }
    }

    fn read(file: &Path, expand_env: bool) -> Result<Self, FileError> {
        let text =
            std::fs::read_to_string(file).map_err(|error| FileError::whole(file, error.to_string()))?;
        let expanded = if expand_env {
            env::expand_text(&text, &variable).map_err(|(position, message)| FileError {
                position: Some(position),
                ..FileError::whole(file, message)
            })?
        } else {
            text.clone()
        };
        let dir = file.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { file: file.to_owned(), dir, text, expanded })
    }

    fn parse<T: serde::de::DeserializeOwned + Default>(&self) -> Result<T, FileError> {
        // A file of comments only is an empty document: all defaults.
        let parsed: Result<Option<T>, _> = serde_yaml::from_str(&self.expanded);
        parsed.map(Option::unwrap_or_default).map_err(|error| FileError::from_yaml(&self.file, &error))
    }

    fn error(&self, error: &ConfigError) -> FileError {
        FileError::from_config(&self.file, &self.expanded, error)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Builds the sections, gathering what is wrong.
struct Loader<'a> {
    request: &'a LoadRequest,
    main: &'a Source,
    errors: Vec<FileError>,
    warnings: Vec<String>,
}

impl Loader<'_> {
    fn config(&mut self, raw: RawConfig) -> Option<Config> {
        let root = ConfigPath::root();
        self.refuse_unsupported(&raw, &root);
        let global = raw.global.unwrap_or_default();
        let mut scrape_defaults = self.keep(global.scrape_defaults(&root.key("global")))?;
        scrape_defaults.start_times = self.request.start_times;
        scrape_defaults.failure_log = global.failure_log(&self.main.dir);
        let scrape_configs =
            self.scrape_configs(raw.scrape_configs, raw.scrape_config_files, &scrape_defaults);
        let query_log_file = global
            .query_log_file
            .filter(|file| !file.as_os_str().is_empty())
            .map(|file| self.main.dir.join(file));
        let external_labels = self.external_labels(global.external_labels.unwrap_or_default());
        let has_collector = scrape_configs.iter().any(|job| job.collector.is_some());
        let builtin = raw.builtin_rules.unwrap_or_default();
        let evaluation_interval = global
            .evaluation_interval
            .map(|interval| interval.0)
            .filter(|interval| !interval.is_zero())
            .unwrap_or(EVALUATION_INTERVAL);
        let context = RuleFileContext {
            file: String::new(),
            evaluation_interval,
            query_offset: global.rule_query_offset.map(|offset| offset.0).unwrap_or_default(),
            parse_options: self.request.parse_options.clone(),
        };
        let rules = self.rules(&raw.rule_files.unwrap_or_default(), &builtin, has_collector, &context);
        let relabel = raw.alerting.and_then(|alerting| alerting.alert_relabel_configs).unwrap_or_default();
        let relabel_path = root.key("alerting").key("alert_relabel_configs");
        let alert_relabel_configs = relabel
            .iter()
            .enumerate()
            .filter_map(|(i, raw)| self.keep(raw.build(&relabel_path.index(i), NameValidation::Utf8)))
            .collect();
        let alertmanager = self.alertmanager(raw.alertmanager);
        let storage = raw.storage.unwrap_or_default();
        let tsdb = storage.tsdb.unwrap_or_default();
        let retention = tsdb.retention.unwrap_or_default();
        if retention.percentage.is_some() {
            self.warnings.push("storage.tsdb.retention.percentage has no effect: give a size".to_owned());
        }
        let retention_rules = self.retention_rules(tsdb.retention_rules.unwrap_or_default());
        for job in &scrape_configs {
            self.warnings.extend(job.warnings.iter().map(|text| format!("job {:?}: {text}", job.job_name)));
        }
        Some(Config {
            text: self.main.text.clone(),
            scrape_defaults,
            scrape_configs,
            evaluation_interval,
            external_labels,
            query_log_file,
            rules,
            alert_relabel_configs,
            alertmanager,
            out_of_order_window: tsdb.out_of_order_time_window.map(|window| window.0).unwrap_or_default(),
            retention_time: retention.time.map(|time| time.0).filter(|time| !time.is_zero()),
            retention_size: retention.size.map(|size| size.0).filter(|size| *size > 0),
            retention_rules,
            exemplars_max: storage.exemplars.and_then(|e| e.max_exemplars).unwrap_or(EXEMPLARS_MAX),
            warnings: Vec::new(),
        })
    }

    fn retention_rules(&mut self, raw: Vec<RawRetentionRule>) -> Vec<RetentionRule> {
        let path = ConfigPath::root().key("storage").key("tsdb").key("retention_rules");
        let mut rules = Vec::with_capacity(raw.len());
        for (index, raw) in raw.into_iter().enumerate() {
            let path = path.index(index).key("matchers");
            if raw.matchers.is_empty() {
                self.refuse(
                    &path,
                    "at least one matcher is needed: storage.tsdb.retention.time is for all".to_owned(),
                );
                continue;
            }
            let mut matchers = Vec::new();
            for (index, text) in raw.matchers.iter().enumerate() {
                match query::parse::parse_selector(&format!("{{{text}}}")) {
                    Ok(parsed) => matchers.extend(parsed),
                    Err(error) => self.refuse(&path.index(index), format!("{text:?} is no matcher: {error}")),
                }
            }
            rules.push(RetentionRule { matchers, duration: raw.duration.0 });
        }
        rules
    }

    /// What a user relies on and is not there must not be left out in silence.
    fn refuse_unsupported(&mut self, raw: &RawConfig, root: &ConfigPath) {
        let sections = [
            ("remote_write", &raw.remote_write),
            ("remote_read", &raw.remote_read),
            ("tracing", &raw.tracing),
            ("dashboards", &raw.dashboards),
        ];
        for (key, value) in sections {
            if value.as_ref().is_some_and(holds_something) {
                self.refuse(&root.key(key), format!("{key} is not supported yet"));
            }
        }
        if raw.otlp.as_ref().is_some_and(holds_something) {
            self.warnings.push("otlp has no effect: there is no OTLP receiver yet".to_owned());
        }
        let alertmanagers = raw.alerting.as_ref().and_then(|alerting| alerting.alertmanagers.as_deref());
        if let Some(index) = alertmanagers.unwrap_or_default().iter().position(finds_targets) {
            let path = root.key("alerting").key("alertmanagers").index(index);
            let text = "external Alertmanagers are not supported yet: the embedded one takes all alerts (configure it under \
                        `alertmanager`, or by --alertmanager.config.file)";
            self.refuse(&path, text.to_owned());
        }
    }

    fn refuse(&mut self, path: &ConfigPath, message: String) {
        self.errors.push(self.main.error(&ConfigError::new(path, message)));
    }

    fn keep<T>(&mut self, built: Result<T, ConfigError>) -> Option<T> {
        built.map_err(|error| self.errors.push(self.main.error(&error))).ok()
    }

    fn scrape_configs(
        &mut self,
        own: Option<Vec<scraper::config::RawScrapeConfig>>,
        patterns: Option<Vec<String>>,
        defaults: &ScrapeDefaults,
    ) -> Vec<ScrapeConfig> {
        let root = ConfigPath::root().key("scrape_configs");
        let mut jobs = Vec::new();
        let own: Vec<_> =
            own.unwrap_or_default().into_iter().enumerate().map(|(i, raw)| (root.index(i), raw)).collect();
        let names: Vec<(String, ConfigPath)> =
            own.iter().map(|(path, raw)| (raw.job_name.clone(), path.clone())).collect();
        self.keep(check_job_names(names.iter().map(|(name, path)| (name.as_str(), path))));
        let mut shown = shown_jobs(self.main).into_iter();
        for (path, raw) in own {
            let built = raw.build(&path, &self.build_context(&self.main.dir, defaults));
            let built = built.and_then(|job| self.with_readable_certificates(job, &path));
            let yaml = shown.next().unwrap_or_default();
            jobs.extend(self.keep(built).map(|job| job.with_yaml(&yaml)));
        }
        let patterns = patterns.unwrap_or_default();
        let path = ConfigPath::root().key("scrape_config_files");
        let files = if self.request.follow_files {
            self.keep(scrape_config_files(&patterns, &self.main.dir, &path)).unwrap_or_default()
        } else {
            Vec::new()
        };
        for file in files {
            self.scrape_file(&file, defaults, &mut jobs);
        }
        jobs
    }

    fn scrape_file(&mut self, file: &Path, defaults: &ScrapeDefaults, jobs: &mut Vec<ScrapeConfig>) {
        let source = match Source::read(file, self.request.expand_env) {
            Ok(source) => source,
            Err(error) => return self.errors.push(error),
        };
        let raw: RawScrapeConfigFile = match source.parse() {
            Ok(raw) => raw,
            Err(error) => return self.errors.push(error),
        };
        let root = ConfigPath::root().key("scrape_configs");
        let mut shown = shown_jobs(&source).into_iter();
        for (index, raw) in raw.scrape_configs.unwrap_or_default().into_iter().enumerate() {
            let path = root.index(index);
            let yaml = shown.next().unwrap_or_default();
            if jobs.iter().any(|job: &ScrapeConfig| job.job_name == raw.job_name) {
                let text = format!("found multiple scrape configs with job name {:?}", raw.job_name);
                self.errors.push(source.error(&ConfigError::new(&path.key("job_name"), text)));
                continue;
            }
            let built = raw.build(&path, &self.build_context(&source.dir, defaults));
            match built.and_then(|job| self.with_readable_certificates(job, &path)) {
                Ok(job) => jobs.push(job.with_yaml(&yaml)),
                Err(error) => self.errors.push(source.error(&error)),
            }
        }
    }

    /// Reads certificates and keys while the place that names them is known.
    fn with_readable_certificates(
        &self,
        job: ScrapeConfig,
        path: &ConfigPath,
    ) -> Result<ScrapeConfig, ConfigError> {
        if self.request.follow_files && !job.http.tls.files().is_empty() {
            job.http
                .tls
                .client_config()
                .map_err(|error| ConfigError::new(&path.key("tls_config"), error.to_string()))?;
        }
        Ok(job)
    }

    fn build_context<'b>(&'b self, dir: &'b Path, defaults: &'b ScrapeDefaults) -> BuildContext<'b> {
        BuildContext {
            dir,
            defaults,
            collectors: &self.request.collectors,
            clock: Arc::clone(&self.request.clock),
        }
    }

    fn external_labels(&mut self, raw: std::collections::BTreeMap<String, String>) -> Labels {
        let path = ConfigPath::root().key("global").key("external_labels");
        let mut pairs = Vec::new();
        for (name, value) in raw {
            if name.is_empty() {
                self.refuse(&path, format!("{name:?} is not a valid label name"));
                continue;
            }
            let (value, unknown) = env::expand_label(&value, &variable);
            for variable in unknown {
                self.warnings
                    .push(format!("external label {name}: environment variable {variable} is not set"));
            }
            pairs.push((name, value));
        }
        Labels::from_pairs(pairs)
    }

    fn alertmanager(&mut self, inline: Option<RawAlertmanagerConfig>) -> Option<AlertmanagerConfig> {
        let options = BuildOptions::default();
        match (inline, &self.request.alertmanager_file) {
            (Some(_), Some(file)) => {
                let text = format!(
                    "given here and by --alertmanager.config.file={}: only one of them can hold",
                    file.display()
                );
                self.refuse(&ConfigPath::root().key("alertmanager"), text);
                None
            }
            (Some(raw), None) => {
                let built = raw.build(&ConfigPath::root().key("alertmanager"), &self.main.dir, options);
                self.keep(built)
            }
            (None, Some(file)) => {
                let loaded = Source::read(file, self.request.expand_env).and_then(|source| {
                    let raw: RawAlertmanagerConfig = serde_yaml::from_str(&source.expanded)
                        .map_err(|error| FileError::from_yaml(&source.file, &error))?;
                    raw.build(&ConfigPath::root(), &source.dir, options).map_err(|error| source.error(&error))
                });
                loaded.map_err(|error| self.errors.push(error)).ok()
            }
            (None, None) => None,
        }
    }
}

/// The scrape jobs of a file as they may be shown, each as a YAML text, in order.
fn shown_jobs(source: &Source) -> Vec<String> {
    let masked = mask::mask(&source.expanded);
    let parsed: Result<serde_yaml::Value, _> = serde_yaml::from_str(&masked);
    let jobs = parsed.ok().and_then(|file| file.get("scrape_configs")?.as_sequence().cloned());
    let shown = |job| serde_yaml::to_string(job).unwrap_or_default();
    jobs.unwrap_or_default().iter().map(shown).collect()
}

/// Whether an entry of `alertmanagers` leads anywhere: the one in the stock prometheus.yml does not.
fn finds_targets(entry: &serde_yaml::Value) -> bool {
    let serde_yaml::Value::Mapping(entry) = entry else { return true };
    let names_targets = |group: &serde_yaml::Value| group.get("targets").is_some_and(holds_something);
    entry.iter().any(|(key, value)| match key.as_str() {
        Some("static_configs") => value.as_sequence().is_some_and(|groups| groups.iter().any(names_targets)),
        Some(key) => key.ends_with("_sd_configs") && holds_something(value),
        None => true,
    })
}

fn holds_something(value: &serde_yaml::Value) -> bool {
    match value {
        serde_yaml::Value::Null => false,
        serde_yaml::Value::Sequence(items) => !items.is_empty(),
        serde_yaml::Value::Mapping(map) => !map.is_empty(),
        _ => true,
    }
}
