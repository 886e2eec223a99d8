//! Rule groups: those of the files named under `rule_files`, and the built-in queue rules with what the user wants otherwise.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::config::PromDuration;
use model::{ConfigError, ConfigPath};
use query::rules::config::RawRule;
use query::rules::{GroupConfig, RawRuleFile, RuleFileContext};

use super::raw::{RawBuiltinRules, RawRuleOverride};
use super::{FileError, Loader, Source};
use crate::cli::Switch;

/// Name of the built-in rules' file in answers and metrics.
const BUILT_IN_FILE: &str = "(built-in)/queue_rules.yml";
/// The built-in rules.
const QUEUE_RULES: &str = include_str!("../builtin/queue_rules.yml");

impl Loader<'_> {
    /// All groups; `context` holds what groups start from, its file name does not count.
    pub(super) fn rules(
        &mut self,
        patterns: &[String],
        builtin: &RawBuiltinRules,
        has_collector: bool,
        context: &RuleFileContext,
    ) -> Vec<GroupConfig> {
        let mut groups = Vec::new();
        if self.request.follow_files {
            for file in self.rule_files(patterns) {
                match read_rule_file(&file, self.request.expand_env, context) {
                    Ok(found) => groups.extend(found),
                    Err(errors) => self.errors.extend(errors),
                }
            }
        }
        let wanted = match (self.request.builtin_rules, builtin.enabled) {
            (Switch::On, _) | (Switch::Auto, Some(true)) => true,
            (Switch::Off, _) | (Switch::Auto, Some(false)) => false,
            (Switch::Auto, None) => has_collector || self.request.file.is_none(),
        };
        // Built also when they are not wanted: what is said about them is checked all the same.
        let builtin = self.builtin_rules(builtin, context);
        if wanted {
            groups.extend(builtin);
        }
        groups
    }

    fn rule_files(&mut self, patterns: &[String]) -> Vec<PathBuf> {
        let path = ConfigPath::root().key("rule_files");
        let mut files = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let here = path.index(index);
            let whole = self.main.dir.join(pattern);
            let Ok(found) = glob::glob(&whole.to_string_lossy()) else {
                self.refuse(&here, format!("error parsing pattern {pattern:?}"));
                continue;
            };
            let before = files.len();
            for file in found {
                match file {
                    Ok(file) if files.contains(&file) => {}
                    Ok(file) => files.push(file),
                    Err(error) => self.refuse(&here, error.to_string()),
                }
            }
            // A file named outright and not there is a mistake; a pattern may match nothing yet.
            if files.len() == before && !pattern.contains(['*', '?', '[']) && !whole.exists() {
                let text = format!("{} does not exist", whole.display());
                if self.request.strict {
                    self.refuse(&here, text);
                } else {
                    self.warnings.push(format!("{here}: {text}"));
                }
            }
        }
        files
    }

    fn builtin_rules(&mut self, wanted: &RawBuiltinRules, context: &RuleFileContext) -> Vec<GroupConfig> {
        let mut raw: RawRuleFile = serde_yaml::from_str(QUEUE_RULES).expect("the built-in rules are tested");
        let mut unknown: BTreeSet<&String> = wanted.overrides.keys().collect();
        for group in raw.groups.iter_mut().flatten() {
            if let Some(interval) = wanted.interval {
                group.interval = Some(interval);
            }
            for rule in group.rules.iter_mut().flatten() {
                if let Some((name, change)) = wanted.overrides.get_key_value(rule_name(rule)) {
                    unknown.remove(name);
                    change_rule(rule, change);
                }
            }
            if let Some(rules) = &mut group.rules {
                rules.retain(|rule| {
                    wanted.overrides.get(rule_name(rule)).is_none_or(|change| change.enabled != Some(false))
                });
            }
        }
        let path = ConfigPath::root().key("builtin_rules").key("overrides");
        for name in unknown {
            self.refuse(&path.key(name), format!("there is no built-in rule {name:?}"));
        }
        let context = RuleFileContext { file: BUILT_IN_FILE.to_owned(), ..context.clone() };
        match raw.build(&ConfigPath::root(), &context) {
            Ok(groups) => groups,
            Err(errors) => {
                // Only what the user changed can be wrong.
                for error in errors {
                    self.refuse(&path, error.to_string());
                }
                Vec::new()
            }
        }
    }
}

fn rule_name(rule: &RawRule) -> &str {
    rule.alert.as_deref().or(rule.record.as_deref()).unwrap_or_default()
}

fn change_rule(rule: &mut RawRule, change: &RawRuleOverride) {
    let replace = |to: &mut Option<PromDuration>, from: Option<PromDuration>| *to = from.or(*to);
    replace(&mut rule.hold, change.hold);
    replace(&mut rule.keep_firing_for, change.keep_firing_for);
    if change.expr.is_some() {
        rule.expr.clone_from(&change.expr);
    }
    if !change.labels.is_empty() {
        rule.labels.get_or_insert_default().extend(change.labels.clone());
    }
    if !change.annotations.is_empty() {
        rule.annotations.get_or_insert_default().extend(change.annotations.clone());
    }
}

fn read_rule_file(
    file: &Path,
    expand_env: bool,
    context: &RuleFileContext,
) -> Result<Vec<GroupConfig>, Vec<FileError>> {
    let source = Source::read(file, expand_env).map_err(|error| vec![error])?;
    let raw: RawRuleFile = source.parse().map_err(|error| vec![error])?;
    let context = RuleFileContext { file: file.display().to_string(), ..context.clone() };
    raw.build(&ConfigPath::root(), &context)
        .map_err(|errors: Vec<ConfigError>| errors.iter().map(|error| source.error(error)).collect())
}

/// The groups of one rule file, for `check rules`.
///
/// # Errors
/// All mistakes found.
pub(crate) fn check_rule_file(
    file: &Path,
    context: &RuleFileContext,
) -> Result<Vec<GroupConfig>, Vec<FileError>> {
    read_rule_file(file, false, context)
}
