//! `scrape_config_files`: further files with scrape jobs.

use std::path::{Path, PathBuf};

use model::{ConfigError, ConfigPath};
use serde::Deserialize;

use super::RawScrapeConfig;

/// Content of such a file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RawScrapeConfigFile {
    /// Further jobs; paths in them start at this file's folder.
    #[serde(default)]
    pub scrape_configs: Option<Vec<RawScrapeConfig>>,
}

/// The files that `patterns` (relative to `dir`) name, in order, each once. `path` is that of the list.
///
/// # Errors
/// When a pattern is malformed.
pub fn scrape_config_files(
    patterns: &[String],
    dir: &Path,
    path: &ConfigPath,
) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files: Vec<PathBuf> = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let here = path.index(index);
        let pattern = dir.join(pattern);
        let matches = glob::glob(&pattern.to_string_lossy())
            .map_err(|error| ConfigError::new(&here, format!("invalid scrape config file path: {error}")))?;
        for file in matches {
            let file =
                file.map_err(|error| ConfigError::new(&here, format!("cannot look for files: {error}")))?;
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}
