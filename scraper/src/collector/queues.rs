//! From readings to samples: exclusions, dead-letter queues, the cardinality cap, objectives. The same for every
//! broker; collectors own a [`QueueSettings`] and hand it their [`QueueReading`]s.

use std::collections::BTreeMap;

use model::{ConfigError, ConfigPath};
use serde::Deserialize;

use super::ScrapedSample;
use super::glob::Glob;
use super::schema::{QueueMetric, QueueReading, SLO_DRAIN, SLO_LAG, SLO_READY};

/// The queue and group that stand for everything past the limits.
pub const OTHER: &str = "__other__";
/// Queues per target unless configured.
pub const MAX_QUEUES_DEFAULT: usize = 500;
/// Most queues per target that can be configured: each is about fifteen series.
pub const MAX_QUEUES_LIMIT: usize = 100_000;
/// Most groups of one queue that get series of their own.
pub const MAX_GROUPS: usize = 100;
/// Names that mark a dead-letter queue unless configured.
pub const DEAD_LETTER_PATTERNS: [&str; 7] = ["*.dlq", "*.DLQ", "*-dlq", "*-dlt", "*.DLT", "dlq.*", "*_dead"];

/// Objectives for the queues (and groups) that match; the first entry that matches and has the value wins.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSlo {
    /// Pattern of queue names.
    pub queue: String,
    /// Pattern of group names; absent: any, and none.
    #[serde(default)]
    pub group: Option<String>,
    /// `queue_slo_lag_seconds`.
    #[serde(default)]
    pub lag_seconds: Option<f64>,
    /// `queue_slo_drain_seconds`.
    #[serde(default)]
    pub drain_seconds: Option<f64>,
    /// `queue_slo_ready_messages`.
    #[serde(default)]
    pub ready_messages: Option<f64>,
}

/// One entry of objectives, checked.
#[derive(Clone, Debug)]
struct Slo {
    queue: Glob,
    group: Option<Glob>,
    lag_seconds: Option<f64>,
    drain_seconds: Option<f64>,
    ready_messages: Option<f64>,
}

/// The options that all collectors share, as written.
#[derive(Clone, Debug, Default)]
pub struct RawQueueSettings {
    /// Patterns of queues that always have series of their own.
    pub include: Vec<String>,
    /// Patterns of queues that are not looked at.
    pub exclude: Vec<String>,
    /// Queues with series of their own.
    pub max_queues: Option<usize>,
    /// Patterns of dead-letter queues.
    pub dead_letter_patterns: Option<Vec<String>>,
    /// Objectives.
    pub slo: Vec<RawSlo>,
}

/// The options that all collectors share.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    max_queues: usize,
    dead_letter: Vec<Glob>,
    slo: Vec<Slo>,
}

/// What the cap did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Queues summed into `queue="__other__"`.
    pub queues: usize,
    /// Groups summed into `group="__other__"` of their queue.
    pub groups: usize,
    /// Readings left out because their labels were taken: names that differ only in invalid UTF-8.
    pub duplicates: usize,
}

/// Compiles a list of patterns.
///
/// # Errors
/// At the first pattern that is none.
pub fn globs(texts: &[String], path: &ConfigPath) -> Result<Vec<Glob>, ConfigError> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| Glob::new(text).map_err(|message| ConfigError::new(&path.index(index), message)))
        .collect()
}

impl RawQueueSettings {
    /// Checks the options; `path` is where they stand.
    ///
    /// # Errors
    /// At the first wrong one.
    pub fn build(self, path: &ConfigPath) -> Result<QueueSettings, ConfigError> {
        let max_queues = self.max_queues.unwrap_or(MAX_QUEUES_DEFAULT);
        if !(1..=MAX_QUEUES_LIMIT).contains(&max_queues) {
            let message = format!("must be between 1 and {MAX_QUEUES_LIMIT}");
            return Err(ConfigError::new(&path.key("max_queues"), message));
        }
        let dead_letter_patterns = self
            .dead_letter_patterns
            .unwrap_or_else(|| DEAD_LETTER_PATTERNS.iter().map(|pattern| (*pattern).to_owned()).collect());
        let mut slo = Vec::new();
        for (index, raw) in self.slo.into_iter().enumerate() {
            slo.push(raw.build(&path.key("slo").index(index))?);
        }
        Ok(QueueSettings {
            include: globs(&self.include, &path.key("include"))?,
            exclude: globs(&self.exclude, &path.key("exclude"))?,
            max_queues,
            dead_letter: globs(&dead_letter_patterns, &path.key("dead_letter_patterns"))?,
            slo,
        })
    }
}

impl RawSlo {
    fn build(self, path: &ConfigPath) -> Result<Slo, ConfigError> {
        let values = [
            ("lag_seconds", self.lag_seconds),
            ("drain_seconds", self.drain_seconds),
            ("ready_messages", self.ready_messages),
        ];
        if values.iter().all(|(_, value)| value.is_none()) {
            let message = "sets none of lag_seconds, drain_seconds, ready_messages";
            return Err(ConfigError::new(path, message));
        }
        for (key, value) in values {
            if value.is_some_and(|value| !value.is_finite() || value < 0.0) {
                return Err(ConfigError::new(&path.key(key), "must be a number of at least 0"));
            }
        }
        let glob = |text: &str, key: &str| {
            Glob::new(text).map_err(|message| ConfigError::new(&path.key(key), message))
        };
        Ok(Slo {
            queue: glob(&self.queue, "queue")?,
            group: self.group.as_deref().map(|text| glob(text, "group")).transpose()?,
            lag_seconds: self.lag_seconds,
            drain_seconds: self.drain_seconds,
            ready_messages: self.ready_messages,
        })
    }
}

impl Slo {
    fn matches(&self, reading: &QueueReading) -> bool {
        self.queue.matches(&reading.queue)
            && self.group.as_ref().is_none_or(|group| group.matches(&reading.group))
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        RawQueueSettings::default().build(&ConfigPath::root()).expect("invariant: defaults are valid")
    }
}

impl QueueSettings {
    /// Queues that get series of their own.
    pub fn max_queues(&self) -> usize {
        self.max_queues
    }

    /// Whether `queue` is not to be looked at.
    pub fn is_excluded(&self, queue: &str) -> bool {
        self.exclude.iter().any(|glob| glob.matches(queue))
    }

    /// Whether `queue` always has series of its own.
    pub fn is_included(&self, queue: &str) -> bool {
        self.include.iter().any(|glob| glob.matches(queue))
    }

    /// Whether `queue` is a dead-letter queue by its name.
    pub fn is_dead_letter(&self, queue: &str) -> bool {
        self.dead_letter.iter().any(|glob| glob.matches(queue))
    }

    /// Turns `readings` into samples, in order of vhost, queue and group.
    pub fn finish(&self, mut readings: Vec<QueueReading>, out: &mut Vec<ScrapedSample>) -> Folded {
        let mut folded = Folded::default();
        readings.retain(|reading| !self.is_excluded(&reading.queue));
        self.bury_dead_letter_queues(&mut readings);
        readings.sort_by(|a, b| key(a).cmp(&key(b)));
        let before = readings.len();
        readings.dedup_by(|later, earlier| key(later) == key(earlier));
        folded.duplicates = before - readings.len();
        let readings = self.cap(readings, &mut folded);
        for reading in &readings {
            reading.push_all(out);
            self.push_objectives(reading, out);
        }
        folded
    }

    /// A dead-letter queue has dead messages only, so that no backlog rule looks at it.
    fn bury_dead_letter_queues(&self, readings: &mut Vec<QueueReading>) {
        readings.retain_mut(|reading| {
            if !reading.is_dead_letter && !self.is_dead_letter(&reading.queue) {
                return true;
            }
            let known = |metric| reading.get(metric);
            let waiting = known(QueueMetric::Ready).map(|n| n + known(QueueMetric::InFlight).unwrap_or(0.0));
            let dead = known(QueueMetric::Dead).or_else(|| known(QueueMetric::Retained)).or(waiting);
            // A log's readers see the same messages: its own reading counts them once.
            if !reading.group.is_empty() {
                return false;
            }
            reading.clear_values();
            reading.set_optional(QueueMetric::Dead, dead);
            true
        });
    }

    /// Keeps the queues with the most ready messages (and all included ones), within each the groups with the most,
    /// and folds the rest. `readings` are sorted by [`key`]; so is the result, what was folded at its end.
    fn cap(&self, readings: Vec<QueueReading>, folded: &mut Folded) -> Vec<QueueReading> {
        let queues: Vec<&[QueueReading]> = readings.chunk_by(|a, b| queue_key(a) == queue_key(b)).collect();
        if queues.len() <= self.max_queues && queues.iter().all(|queue| queue.len() <= MAX_GROUPS) {
            return readings;
        }
        let mut order: Vec<usize> = (0..queues.len()).collect();
        order.sort_by(|a, b| {
            let rank = |index: usize| {
                let included = queues[index].first().is_some_and(|reading| self.is_included(&reading.queue));
                (included, queues[index].iter().map(weight).fold(0.0, f64::max))
            };
            let ((included_a, weight_a), (included_b, weight_b)) = (rank(*a), rank(*b));
            included_b.cmp(&included_a).then(weight_b.total_cmp(&weight_a)).then(a.cmp(b))
        });
        let mut keep = vec![false; queues.len()];
        for (position, index) in order.iter().enumerate() {
            let included = || queues[*index].first().is_some_and(|reading| self.is_included(&reading.queue));
            keep[*index] = position < self.max_queues || included();
        }
        let mut kept = Vec::with_capacity(readings.len());
        let mut others: BTreeMap<(&'static str, &str, &str), QueueReading> = BTreeMap::new();
        for (index, queue) in queues.iter().enumerate() {
            if keep[index] {
                let keep_group = biggest_groups(queue);
                for (reading, keep) in queue.iter().zip(keep_group) {
                    if keep {
                        kept.push(reading.clone());
                    } else {
                        folded.groups += 1;
                        fold_into(&mut others, &reading.queue, OTHER, reading);
                    }
                }
            } else {
                folded.queues += 1;
                for reading in *queue {
                    fold_into(&mut others, OTHER, "", reading);
                }
            }
        }
        kept.extend(others.into_values());
        kept
    }

    fn push_objectives(&self, reading: &QueueReading, out: &mut Vec<ScrapedSample>) {
        if reading.get(QueueMetric::Ready).is_none() || reading.queue == OTHER {
            return;
        }
        let find = |pick: fn(&Slo) -> Option<f64>, default: f64| {
            self.slo.iter().filter(|slo| slo.matches(reading)).find_map(pick).unwrap_or(default)
        };
        reading.push(out, &SLO_LAG, find(|slo| slo.lag_seconds, 60.0));
        reading.push(out, &SLO_DRAIN, find(|slo| slo.drain_seconds, 3600.0));
        reading.push(out, &SLO_READY, find(|slo| slo.ready_messages, 1000.0));
    }
}

fn key(reading: &QueueReading) -> (&str, &str, &str, &str) {
    (reading.system, &reading.vhost, &reading.queue, &reading.group)
}

fn queue_key(reading: &QueueReading) -> (&str, &str, &str) {
    (reading.system, &reading.vhost, &reading.queue)
}

fn weight(reading: &QueueReading) -> f64 {
    reading.get(QueueMetric::Ready).or_else(|| reading.get(QueueMetric::Dead)).unwrap_or(0.0)
}

/// Which readings of one queue stay: the one without group and the [`MAX_GROUPS`] groups with the most ready messages.
fn biggest_groups(queue: &[QueueReading]) -> Vec<bool> {
    let mut keep: Vec<bool> = queue.iter().map(|reading| reading.group.is_empty()).collect();
    let mut groups: Vec<usize> = (0..queue.len()).filter(|index| !keep[*index]).collect();
    groups.sort_by(|a, b| weight(&queue[*b]).total_cmp(&weight(&queue[*a])).then(a.cmp(b)));
    for index in groups.into_iter().take(MAX_GROUPS) {
        keep[index] = true;
    }
    keep
}

fn fold_into<'a>(
    others: &mut BTreeMap<(&'static str, &'a str, &'a str), QueueReading>,
    queue: &'a str,
    group: &str,
    reading: &'a QueueReading,
) {
    others
        .entry((reading.system, &reading.vhost, queue))
        .or_insert_with(|| QueueReading::new(reading.system, reading.vhost.clone(), queue, group))
        .fold(reading);
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
