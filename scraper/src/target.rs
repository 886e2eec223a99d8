//! Targets: from what discovery found to what is scraped.
//!
//! Labels of group and target, the job's defaults as special labels (`__scheme__`, `__metrics_path__`, …), relabelling, checks, `instance`.
//! Rules and texts are Prometheus 3's (`PopulateLabels`); no default port is added.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::labels::{INSTANCE, JOB};
use model::relabel;
use model::{Labels, LabelsBuilder, Metadata, Timestamp, duration};
use parking_lot::Mutex;

use crate::body::BodyWatch;
use crate::config::{ScrapeConfig, duration_text};
use crate::discovery::TargetGroup;
use crate::state::HistogramSettings;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const NATIVE_HISTOGRAMS: &str = "__scrape_native_histograms__";
const CLASSIC_HISTOGRAMS: &str = "__always_scrape_classic_histograms__";
const CONVERT_HISTOGRAMS: &str = "__convert_classic_histograms_to_nhcb__";
const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";
const RESERVED_PREFIX: &str = "__";

/// Whether the last scrape worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetHealth {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// It did.
    Up,
    /// It did not.
    Down,
}

impl TargetHealth {
    /// The word in API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What the last scrape brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastScrape {
    /// Whether it worked.
    pub health: TargetHealth,
    /// Why not; empty when it did.
    pub error: String,
    /// Why it is incomplete (collectors).
    pub warnings: Vec<String>,
    /// When it began; `None` before the first.
    pub t: Option<Timestamp>,
    /// How long it took.
    pub duration: Duration,
    /// Lines or samples on the page.
    pub samples: u64,
}

/// Something to scrape.
#[derive(Debug)]
pub(crate) struct Target {
    /// Labels after relabelling, special ones included.
    pub(crate) labels: Labels,
    /// Labels that stored series carry.
    pub(crate) public_labels: Labels,
    /// What is asked for.
    pub(crate) url: String,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// What becomes of its histograms.
    pub(crate) histograms: HistogramSettings,
    /// Labels before relabelling; a reload may change them.
    pub(crate) discovered: Mutex<Labels>,
    pub(crate) last: Mutex<LastScrape>,
    /// Families on the last pages; replaced as a whole when something changes.
    pub(crate) metadata: Mutex<Arc<Vec<(String, Metadata)>>>,
    /// The last page, for who asks.
    pub(crate) body: BodyWatch,
}

/// What became of a discovered target.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Scrape it.
    Keep(Box<Target>),
    /// Relabelling dropped it; its labels before that.
    Drop(Labels),
}

impl Target {
    /// What makes a target the same one: labels (special ones too) and URL.
    pub(crate) fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(self.url.as_bytes(), self.labels.hash64())
    }

    /// `__address__`.
    pub(crate) fn address(&self) -> &str {
        self.labels.value(ADDRESS)
    }
}

/// The targets of a group, in order; errors name the target's position and the group.
pub(crate) fn targets_of(group: &TargetGroup, config: &ScrapeConfig) -> Vec<Result<Outcome, String>> {
    group
        .targets
        .iter()
        .enumerate()
        .map(|(index, target)| {
            build(target, &group.labels, config)
                .map_err(|error| format!("instance {index} in group {}: {error}", group.source))
        })
        .collect()
}

/// What a target is before relabelling: its own labels, those of its group, and the job's settings as special labels.
pub(crate) fn discovered_labels(own: &Labels, group: &Labels, config: &ScrapeConfig) -> LabelsBuilder {
    let mut labels = LabelsBuilder::from(group);
    for (name, value) in own {
        labels.set(name, value);
    }
    let defaults = [
        (JOB, config.job_name.clone()),
        (INTERVAL, duration_text(config.scrape_interval)),
        (TIMEOUT, duration_text(config.scrape_timeout)),
        (METRICS_PATH, config.metrics_path.clone()),
        (SCHEME, config.scheme.clone()),
        (NATIVE_HISTOGRAMS, config.histograms.native.to_string()),
        (CLASSIC_HISTOGRAMS, config.histograms.keep_classic.to_string()),
        (CONVERT_HISTOGRAMS, config.histograms.convert.to_string()),
    ];
    for (name, value) in defaults {
        if labels.value(name).is_empty() {
            labels.set(name, value);
        }
    }
    for (name, values) in &config.params {
        let name = format!("{PARAM_PREFIX}{name}");
        if let Some(first) = values.first()
            && labels.value(&name).is_empty()
        {
            labels.set(name, first.as_str());
        }
    }
    labels
}

fn build(own: &Labels, group: &Labels, config: &ScrapeConfig) -> Result<Outcome, String> {
    let mut labels = discovered_labels(own, group, config);
    let discovered = labels.build();
    if !relabel::process(&mut labels, &config.relabel_configs) || labels.is_empty() {
        return Ok(Outcome::Drop(discovered));
    }
    let address = labels.value(ADDRESS).to_owned();
    if address.is_empty() {
        return Err("no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("{address:?} is not a valid hostname"));
    }
    if config.collector.is_some() && labels.value(SCHEME) == "https" {
        // As with `scheme` in the job: what was meant to be secret would go over the wire in the open.
        return Err("the job's collector speaks plain TCP: __scheme__ \"https\" has no effect".to_owned());
    }
    let (interval, timeout) = times(&labels)?;
    let histograms = histograms(&labels, config.histograms)?;
    labels.retain(|name, _| !name.starts_with(META_PREFIX));
    if labels.value(INSTANCE).is_empty() {
        labels.set(INSTANCE, address);
    }
    let labels = labels.build();
    Ok(Outcome::Keep(Box::new(Target {
        public_labels: labels.filtered(|name| !name.starts_with(RESERVED_PREFIX)),
        // A broker has no page: what is shown is where it is reached and how.
        url: match config.collector_kind() {
            Some(kind) => format!("{kind}://{}", labels.value("__address__")),
            None => url(&labels, &config.params),
        },
        labels,
        interval,
        timeout,
        histograms,
        discovered: Mutex::new(discovered),
        last: Mutex::default(),
        metadata: Mutex::default(),
        body: BodyWatch::default(),
    })))
}

fn times(labels: &LabelsBuilder) -> Result<(Duration, Duration), String> {
    let read = |name: &str, word: &str| {
        let text = labels.value(name);
        let time = duration::parse(text).map_err(|error| format!("error parsing scrape {word}: {error}"))?;
        if time.is_zero() { Err(format!("scrape {word} cannot be 0")) } else { Ok(time) }
    };
    let interval = read(INTERVAL, "interval")?;
    let timeout = read(TIMEOUT, "timeout")?;
    if timeout > interval {
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({:?} > {:?})",
            labels.value(TIMEOUT),
            labels.value(INTERVAL)
        ));
    }
    Ok((interval, timeout))
}

/// What the job says about histograms, or labels of the target.
fn histograms(labels: &LabelsBuilder, job: HistogramSettings) -> Result<HistogramSettings, String> {
    let read = |name: &str, default: bool| match labels.value(name) {
        "" => Ok(default),
        // The words of Go's `strconv.ParseBool`.
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("error parsing {name}: {other:?} is neither true nor false")),
    };
    Ok(HistogramSettings {
        native: read(NATIVE_HISTOGRAMS, job.native)?,
        keep_classic: read(CLASSIC_HISTOGRAMS, job.keep_classic)?,
        convert: read(CONVERT_HISTOGRAMS, job.convert)?,
        ..job
    })
}

/// The URL as Go's `net/url` writes it: path escaped, parameters sorted.
fn url(labels: &Labels, params: &BTreeMap<String, Vec<String>>) -> String {
    let mut query: BTreeMap<&str, Vec<&str>> = params
        .iter()
        .map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect()))
        .collect();
    for (name, value) in labels {
        let Some(name) = name.strip_prefix(PARAM_PREFIX) else { continue };
        let values = query.entry(name).or_default();
        match values.first_mut() {
            Some(first) => *first = value,
            None => values.push(value),
        }
    }
    let mut encoded = url::form_urlencoded::Serializer::new(String::new());
    for (name, values) in &query {
        for value in values {
            encoded.append_pair(name, value);
        }
    }
    let encoded = encoded.finish();
    let mut out = format!("{}://{}", labels.value(SCHEME), labels.value(ADDRESS));
    let path = labels.value(METRICS_PATH);
    if !path.is_empty() && !path.starts_with('/') {
        out.push('/');
    }
    escape_path(path, &mut out);
    if !encoded.is_empty() {
        out.push('?');
        out.push_str(&encoded);
    }
    out
}

fn escape_path(path: &str, out: &mut String) {
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BuildContext, RawScrapeConfig, ScrapeDefaults};
    use model::{ConfigPath, ManualClock};

    fn config(yaml: &str) -> ScrapeConfig {
        let raw: RawScrapeConfig = serde_yaml::from_str(yaml).unwrap();
        let context = BuildContext {
            dir: std::path::Path::new("."),
            defaults: &ScrapeDefaults::default(),
            collectors: &[],
            clock: Arc::new(ManualClock::new(0)),
        };
        raw.build(&ConfigPath::root(), &context).unwrap()
    }

    fn target(config: &ScrapeConfig, labels: &[(&str, &str)]) -> Result<Outcome, String> {
        let group = TargetGroup {
            source: "g".to_owned(),
            targets: vec![Labels::from_pairs(labels.iter().copied())],
            labels: Labels::from_pairs([("group", "yes"), ("own", "no")]),
        };
        targets_of(&group, config).remove(0)
    }

    fn kept(config: &ScrapeConfig, labels: &[(&str, &str)]) -> Box<Target> {
        match target(config, labels).unwrap() {
            Outcome::Keep(target) => target,
            Outcome::Drop(labels) => panic!("dropped {labels}"),
        }
    }

    #[test]
    fn special_labels_make_the_url_and_do_not_show() {
        let config = config(
            "{job_name: j, params: {a: ['1', '2'], q: ['x y']}, metrics_path: /m, \
              relabel_configs: [{source_labels: [__meta_name], target_label: name}]}",
        );
        let target =
            kept(&config, &[("__address__", "h:1"), ("own", "o"), ("__meta_name", "n"), ("__param_a", "0")]);
        // A discovered parameter takes the place of the job's first one.
        assert_eq!(target.url, "http://h:1/m?a=0&a=2&q=x+y");
        assert_eq!(
            target.public_labels.to_string(),
            r#"{group="yes", instance="h:1", job="j", name="n", own="o"}"#
        );
        assert!(!target.labels.has("__meta_name") && target.labels.has("__scheme__"));
        assert!(target.discovered.lock().has("__meta_name"));
        let target = kept(
            &config,
            &[
                ("__address__", "h"),
                ("__scheme__", "https"),
                ("__metrics_path__", "a b?c/é"),
                ("instance", "i"),
            ],
        );
        assert_eq!(target.url, "https://h/a%20b%3Fc/%C3%A9?a=1&a=2&q=x+y", "no port is added");
        assert_eq!(target.public_labels.value("instance"), "i");
    }

    #[test]
    fn intervals_come_from_labels_and_are_checked() {
        let config = config("{job_name: j, scrape_interval: 30s, scrape_timeout: 10s}");
        let target = kept(&config, &[("__address__", "h:1"), ("__scrape_interval__", "20s")]);
        assert_eq!((target.interval, target.timeout), (Duration::from_secs(20), Duration::from_secs(10)));
        let bad = [
            (vec![("x", "y")], "no address"),
            (vec![("__address__", "a/b")], "\"a/b\" is not a valid hostname"),
            (
                vec![("__address__", "h"), ("__scrape_interval__", "5s")],
                "scrape timeout cannot be greater than scrape interval",
            ),
            (vec![("__address__", "h"), ("__scrape_interval__", "0s")], "scrape interval cannot be 0"),
            (vec![("__address__", "h"), ("__scrape_timeout__", "x")], "error parsing scrape timeout"),
        ];
        for (labels, expected) in bad {
            let error = match target_error(&config, &labels) {
                Some(error) => error,
                None => panic!("{labels:?} is fine"),
            };
            assert!(error.contains(expected) && error.starts_with("instance 0 in group g: "), "{error}");
        }
    }

    #[test]
    fn histograms_are_treated_as_labels_say() {
        let config = config("{job_name: j, scrape_native_histograms: true}");
        let target = kept(
            &config,
            &[
                ("__address__", "h"),
                ("__scrape_native_histograms__", "false"),
                ("__convert_classic_histograms_to_nhcb__", "T"),
            ],
        );
        assert_eq!(
            (target.histograms.native, target.histograms.keep_classic, target.histograms.convert),
            (false, false, true)
        );
        assert!(kept(&config, &[("__address__", "h")]).histograms.native);
        let error =
            target_error(&config, &[("__address__", "h"), ("__always_scrape_classic_histograms__", "yes")]);
        assert_eq!(
            error.unwrap(),
            "instance 0 in group g: error parsing __always_scrape_classic_histograms__: \"yes\" is neither true nor false"
        );
    }

    fn target_error(config: &ScrapeConfig, labels: &[(&str, &str)]) -> Option<String> {
        target(config, labels).err()
    }

    #[test]
    fn the_same_target_is_the_same_and_dropped_ones_are_shown() {
        let config = config(
            "{job_name: j, relabel_configs: [{source_labels: [__address__], regex: 'bad.*', action: drop}]}",
        );
        let a = kept(&config, &[("__address__", "h:1"), ("__meta_x", "1")]);
        let b = kept(&config, &[("__address__", "h:1"), ("__meta_x", "2")]);
        let c = kept(&config, &[("__address__", "h:2")]);
        assert_eq!(a.hash(), b.hash());
        assert_ne!(a.hash(), c.hash());
        match target(&config, &[("__address__", "bad:1")]).unwrap() {
            Outcome::Drop(labels) => assert_eq!(labels.value("job"), "j"),
            Outcome::Keep(target) => panic!("kept {target:?}"),
        }
    }
}
