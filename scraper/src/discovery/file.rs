//! `file_sd_configs`: target groups in JSON or YAML files.
//!
//! Files are looked at every few seconds (time of change and size) and read anew when they changed, or when
//! `refresh_interval` has passed. A file that cannot be read or parsed keeps its last groups and is counted; a file
//! that has gone takes its groups away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use model::config::PromDuration;
use model::{ConfigError, ConfigPath, Labels, LabelsBuilder};
use serde::Deserialize;
use tokio::time::Instant;

use super::{Discoverer, DiscoveryConfig, DiscoveryContext, GroupSender, SdMetrics, TargetGroup};

/// How often files are looked at for changes.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 64 << 20;
/// Most files that the patterns of one entry may match.
const FILES_MAX: usize = 10_000;
/// The label that says which file a target is from.
const FILEPATH_LABEL: &str = "__meta_filepath";

/// An entry of `file_sd_configs` as written.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RawFileSdConfig {
    /// Patterns of file names.
    #[serde(default)]
    pub files: Vec<String>,
    /// How often files are read even without a change.
    #[serde(default = "default_refresh")]
    pub refresh_interval: PromDuration,
}

fn default_refresh() -> PromDuration {
    PromDuration::from_secs(300)
}

/// A valid entry of `file_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSdConfig {
    patterns: Vec<String>,
    refresh_interval: Duration,
    poll_interval: Duration,
}

impl RawFileSdConfig {
    /// Checks the entry; relative patterns start in `dir`.
    ///
    /// # Errors
    /// When there is no pattern, or one has another ending than `.json`, `.yml`, `.yaml`, or a `*` elsewhere than in
    /// its last part.
    pub fn build(self, path: &ConfigPath, dir: &Path) -> Result<FileSdConfig, ConfigError> {
        if self.files.is_empty() {
            return Err(ConfigError::new(
                path,
                "file service discovery config must contain at least one path name",
            ));
        }
        let mut patterns = Vec::with_capacity(self.files.len());
        for (index, name) in self.files.into_iter().enumerate() {
            let here = path.key("files").index(index);
            let lower = name.to_ascii_lowercase();
            let suffix = [".json", ".yml", ".yaml"].iter().any(|suffix| lower.ends_with(suffix));
            let folder_is_plain = Path::new(&name)
                .parent()
                .is_none_or(|parent| !parent.to_string_lossy().contains(['*', '?', '[']));
            if !suffix || !folder_is_plain {
                return Err(ConfigError::new(
                    &here,
                    format!("path name {name:?} is not valid for file discovery"),
                ));
            }
            let pattern = dir.join(&name).to_string_lossy().into_owned();
            glob::Pattern::new(&pattern)
                .map_err(|error| ConfigError::new(&here, format!("bad pattern: {error}")))?;
            patterns.push(pattern);
        }
        let refresh_interval = self.refresh_interval.0;
        if refresh_interval.is_zero() {
            return Err(ConfigError::new(
                &path.key("refresh_interval"),
                "refresh interval must be greater than 0",
            ));
        }
        Ok(FileSdConfig { patterns, refresh_interval, poll_interval: POLL_INTERVAL.min(refresh_interval) })
    }
}

impl DiscoveryConfig for FileSdConfig {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        Box::new(FileDiscoverer {
            config: self.clone(),
            metrics: Arc::clone(&context.metrics),
            known: BTreeMap::new(),
        })
    }

    fn identity(&self) -> String {
        format!("{:?} {:?}", self.patterns, self.refresh_interval)
    }
}

/// What was last seen of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    changed: Option<SystemTime>,
    size: u64,
}

#[derive(Debug)]
struct KnownFile {
    /// `None` when the last attempt failed: try again.
    seen: Option<Seen>,
    /// Number of groups that were sent.
    groups: usize,
}

struct FileDiscoverer {
    config: FileSdConfig,
    metrics: Arc<SdMetrics>,
    known: BTreeMap<PathBuf, KnownFile>,
}

impl Discoverer for FileDiscoverer {
    fn run(mut self: Box<Self>, sender: GroupSender) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut last_full: Option<Instant> = None;
            loop {
                let full = last_full.is_none_or(|last| last.elapsed() >= self.config.refresh_interval);
                if full {
                    last_full = Some(Instant::now());
                }
                // File work belongs on blocking threads; the discoverer travels there and back.
                let Ok((back, updates)) = tokio::task::spawn_blocking(move || {
                    let updates = self.look(full);
                    (self, updates)
                })
                .await
                else {
                    tracing::error!("file discovery ended by a panic");
                    return;
                };
                self = back;
                if !updates.is_empty() && sender.send(updates).await.is_err() {
                    return;
                }
                tokio::time::sleep(self.config.poll_interval).await;
            }
        })
    }
}

impl FileDiscoverer {
    /// Looks at all files and returns the groups that changed.
    fn look(&mut self, full: bool) -> Vec<TargetGroup> {
        let files = self.matching_files();
        let mut updates = Vec::new();
        for file in &files {
            let seen = std::fs::metadata(file)
                .map(|meta| Seen { changed: meta.modified().ok(), size: meta.len() })
                .ok();
            let before = self.known.get(file);
            if !full && before.is_some_and(|known| known.seen.is_some() && known.seen == seen) {
                continue;
            }
            let groups_before = before.map_or(0, |known| known.groups);
            // A broken file that has not changed is not worth a second complaint before the next full refresh.
            match read_groups(file) {
                Ok(groups) => {
                    let count = groups.len();
                    updates.extend(groups);
                    updates.extend((count..groups_before).map(|index| empty_group(file, index)));
                    self.known.insert(file.clone(), KnownFile { seen, groups: count });
                    if let Some(changed) = seen.and_then(|seen| seen.changed) {
                        self.metrics.file_read(file, changed);
                    }
                }
                Err(error) => {
                    self.metrics.file_read_errors.inc();
                    tracing::error!(file = %file.display(), %error, "cannot read target file, keeping its last targets");
                    self.known.insert(file.clone(), KnownFile { seen, groups: groups_before });
                }
            }
        }
        let gone: Vec<PathBuf> = self.known.keys().filter(|file| !files.contains(*file)).cloned().collect();
        for file in gone {
            let known = self.known.remove(&file);
            self.metrics.file_gone(&file);
            updates.extend((0..known.map_or(0, |known| known.groups)).map(|index| empty_group(&file, index)));
        }
        updates
    }

    fn matching_files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        for pattern in &self.config.patterns {
            let Ok(matches) = glob::glob(pattern) else { continue };
            for file in matches {
                match file {
                    Ok(file) if files.len() < FILES_MAX => {
                        files.insert(file);
                    }
                    Ok(file) => {
                        self.metrics.file_read_errors.inc();
                        tracing::error!(file = %file.display(), limit = FILES_MAX, "too many target files, leaving out the rest");
                        return files;
                    }
                    Err(error) => {
                        self.metrics.file_read_errors.inc();
                        tracing::error!(%error, "cannot look into folder of target files");
                    }
                }
            }
        }
        files
    }
}

fn source_of(file: &Path, index: usize) -> String {
    format!("{}:{index}", file.display())
}

fn empty_group(file: &Path, index: usize) -> TargetGroup {
    TargetGroup { source: source_of(file, index), ..TargetGroup::default() }
}

/// A group as written in a file or in `static_configs`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawTargetGroup {
    /// Addresses.
    pub targets: Option<Vec<String>>,
    /// Labels for all of them.
    pub labels: Option<BTreeMap<String, String>>,
}

impl RawTargetGroup {
    /// The group, with labels checked.
    pub(crate) fn build(self, source: String) -> Result<TargetGroup, String> {
        let targets = self.targets.unwrap_or_default();
        let labels = self.labels.unwrap_or_default();
        if let Some(name) = labels.keys().find(|name| name.is_empty()) {
            return Err(format!("{name:?} is not a valid label name"));
        }
        Ok(TargetGroup {
            source,
            targets: targets.iter().map(|address| Labels::from_pairs([("__address__", address)])).collect(),
            labels: Labels::from_pairs(labels),
        })
    }
}

fn read_groups(file: &Path) -> Result<Vec<TargetGroup>, String> {
    let size = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > FILE_MAX_BYTES {
        return Err(format!("larger than {FILE_MAX_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let is_json = file.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("json"));
    let raw: Vec<Option<RawTargetGroup>> = if is_json {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else if text.trim().is_empty() {
        Vec::new()
    } else {
        serde_yaml::from_str(&text).map_err(|error| error.to_string())?
    };
    let mut groups = Vec::with_capacity(raw.len());
    for (index, group) in raw.into_iter().enumerate() {
        let Some(group) = group else {
            return Err(format!("nil target group item found (index {index})"));
        };
        let mut group = group.build(source_of(file, index))?;
        let mut labels = LabelsBuilder::from(&group.labels);
        labels.set(FILEPATH_LABEL, file.to_string_lossy());
        group.labels = labels.build();
        groups.push(group);
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discoverer(dir: &Path, pattern: &str) -> FileDiscoverer {
        let raw = RawFileSdConfig { files: vec![pattern.to_owned()], refresh_interval: default_refresh() };
        FileDiscoverer {
            config: raw.build(&ConfigPath::root(), dir).unwrap(),
            metrics: Arc::new(SdMetrics::new(&prometheus::Registry::new()).unwrap()),
            known: BTreeMap::new(),
        }
    }

    fn addresses(groups: &[TargetGroup]) -> Vec<String> {
        groups
            .iter()
            .flat_map(|group| group.targets.iter().map(|labels| labels.value("__address__").to_owned()))
            .collect()
    }

    #[test]
    fn json_and_yaml_files_come_change_break_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let (yaml, json) = (dir.path().join("a.yml"), dir.path().join("b.json"));
        std::fs::write(&yaml, "- targets: [a:1, b:2]\n  labels: {env: x}\n- targets: [c:3]\n").unwrap();
        std::fs::write(&json, r#"[{"targets": ["d:4"], "labels": {"n": "1"}}]"#).unwrap();
        let mut files = discoverer(dir.path(), "*.yml");
        let mut json_files = discoverer(dir.path(), "*.json");

        let groups = files.look(true);
        assert_eq!(addresses(&groups), ["a:1", "b:2", "c:3"]);
        assert_eq!(groups[0].labels.value(FILEPATH_LABEL), yaml.to_string_lossy());
        assert_eq!(groups[0].labels.value("env"), "x");
        assert_eq!(groups[0].source, format!("{}:0", yaml.display()));
        assert_eq!(addresses(&json_files.look(true)), ["d:4"]);
        assert!(files.look(false).is_empty(), "an unchanged file gives nothing");

        std::fs::write(&yaml, "- targets: [a:1]\n  lables: {}\n").unwrap();
        assert!(files.look(false).is_empty(), "a broken file keeps its targets");
        assert_eq!(files.metrics.file_read_errors.get(), 1);
        assert!(files.look(false).is_empty());
        assert_eq!(files.metrics.file_read_errors.get(), 1, "one complaint per change");

        std::fs::write(&yaml, "- targets: [only:1]\n").unwrap();
        let groups = files.look(false);
        assert_eq!(addresses(&groups), ["only:1"]);
        assert!(groups[1].targets.is_empty() && groups[1].source.ends_with(":1"), "the second group goes");

        std::fs::remove_file(&yaml).unwrap();
        let groups = files.look(false);
        assert_eq!(groups.len(), 1);
        assert!(groups[0].targets.is_empty());
    }

    #[test]
    fn patterns_must_name_json_or_yaml_files() {
        for bad in ["targets", "targets.txt", "*/x.json"] {
            let raw = RawFileSdConfig { files: vec![bad.to_owned()], refresh_interval: default_refresh() };
            let error = raw.build(&ConfigPath::root(), Path::new("/")).unwrap_err();
            assert!(error.to_string().contains("not valid for file discovery"), "{error}");
        }
        let raw = RawFileSdConfig { files: vec![], refresh_interval: default_refresh() };
        assert!(raw.build(&ConfigPath::root(), Path::new("/")).is_err());
    }
}
