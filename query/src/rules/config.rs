//! Rule files: `groups[]{name, interval, query_offset, limit, labels, rules[]}`.
//!
//! Checks and texts follow Prometheus' `model/rulefmt`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use model::config::PromDuration;
use model::labels::METRIC_NAME;
use model::template::alerting::AlertTemplate;
use model::{ConfigError, ConfigPath, Labels};
use serde::Deserialize;

use crate::ast::Expr;
use crate::parse::{ParseOptions, parse};

/// A rule file as written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RawRuleFile {
    /// The groups.
    #[serde(default)]
    pub groups: Option<Vec<RawRuleGroup>>,
}

/// A group as written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field is the configuration key of its name")]
pub struct RawRuleGroup {
    pub name: String,
    pub interval: Option<PromDuration>,
    pub query_offset: Option<PromDuration>,
    pub limit: Option<i64>,
    pub labels: Option<BTreeMap<String, String>>,
    pub rules: Option<Vec<RawRule>>,
}

/// A rule as written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field is the configuration key of its name")]
pub struct RawRule {
    pub record: Option<String>,
    pub alert: Option<String>,
    pub expr: Option<String>,
    #[serde(rename = "for")]
    pub hold: Option<PromDuration>,
    pub keep_firing_for: Option<PromDuration>,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What groups are built with.
#[derive(Clone, Debug)]
pub struct RuleFileContext {
    /// The file's name in answers and metrics.
    pub file: String,
    /// Interval of groups that do not say.
    pub evaluation_interval: Duration,
    /// `query_offset` of groups that do not say.
    pub query_offset: Duration,
    /// Language features.
    pub parse_options: ParseOptions,
}

/// A valid group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// Unique within its file.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Time between evaluations.
    pub interval: Duration,
    /// How far before the evaluation's time expressions are evaluated.
    pub query_offset: Duration,
    /// Most alerts or series of one rule; 0 is none.
    pub limit: usize,
    /// The rules in order.
    pub rules: Vec<RuleConfig>,
}

/// A valid rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleConfig {
    /// Name of the recorded series or of the alert.
    pub name: String,
    /// The expression.
    pub expr: Expr,
    /// The expression in normal form, as the API shows it.
    pub query: String,
    /// Labels to add, templates in alerting rules; those of the group are among them.
    pub labels: BTreeMap<String, String>,
    /// Which kind.
    pub kind: RuleKind,
}

/// Kinds of rule.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// Writes series.
    Recording,
    /// Raises alerts.
    Alerting {
        /// `for`
        hold: Duration,
        /// `keep_firing_for`
        keep_firing_for: Duration,
        /// Templates of texts for people.
        annotations: BTreeMap<String, String>,
    },
}

impl RawRuleFile {
    /// Checks all groups; `path` is that of the document.
    ///
    /// # Errors
    /// Every mistake with its place.
    pub fn build(
        &self,
        path: &ConfigPath,
        context: &RuleFileContext,
    ) -> Result<Vec<GroupConfig>, Vec<ConfigError>> {
        let path = path.key("groups");
        let mut errors = Vec::new();
        let mut groups = Vec::new();
        let mut names = HashSet::new();
        for (index, raw) in self.groups.iter().flatten().enumerate() {
            let path = path.index(index);
            if raw.name.is_empty() {
                errors.push(ConfigError::new(&path, "Groupname must not be empty"));
            } else if !names.insert(&raw.name) {
                let text = format!("groupname: {:?} is repeated in the same file", raw.name);
                errors.push(ConfigError::new(&path.key("name"), text));
            }
            groups.push(raw.build(&path, context, &mut errors));
        }
        if errors.is_empty() { Ok(groups) } else { Err(errors) }
    }
}

impl RawRuleGroup {
    fn build(
        &self,
        path: &ConfigPath,
        context: &RuleFileContext,
        errors: &mut Vec<ConfigError>,
    ) -> GroupConfig {
        let group_labels = self.labels.clone().unwrap_or_default();
        check_label_names(&group_labels, &path.key("labels"), errors);
        let limit = usize::try_from(self.limit.unwrap_or(0)).unwrap_or_else(|_| {
            errors.push(ConfigError::new(&path.key("limit"), "limit must not be negative"));
            0
        });
        let mut rules = Vec::new();
        let mut seen = HashSet::new();
        for (index, raw) in self.rules.iter().flatten().enumerate() {
            let path = path.key("rules").index(index);
            let Some(rule) = raw.build(&path, &group_labels, context, errors) else { continue };
            // Prometheus' check: the same name and labels, and for alerts the same expression do not matter.
            if !seen.insert((
                rule.name.clone(),
                rule.labels.clone(),
                matches!(rule.kind, RuleKind::Recording),
            )) {
                tracing::debug!(
                    group = self.name,
                    rule = rule.name,
                    "rule is there twice with the same labels"
                );
            }
            rules.push(rule);
        }
        let interval = self.interval.map(|interval| interval.0).filter(|interval| !interval.is_zero());
        GroupConfig {
            name: self.name.clone(),
            file: context.file.clone(),
            interval: interval.unwrap_or(context.evaluation_interval),
            query_offset: self.query_offset.map_or(context.query_offset, |offset| offset.0),
            limit,
            rules,
        }
    }
}

impl RawRule {
    fn build(
        &self,
        path: &ConfigPath,
        group_labels: &BTreeMap<String, String>,
        context: &RuleFileContext,
        errors: &mut Vec<ConfigError>,
    ) -> Option<RuleConfig> {
        let before = errors.len();
        let mut wrong = |path: &ConfigPath, text: String| errors.push(ConfigError::new(path, text));
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (name, is_alert) = match (filled(&self.record), filled(&self.alert)) {
            (Some(_), Some(_)) => {
                wrong(path, "only one of 'record' and 'alert' must be set".to_owned());
                return None;
            }
            (None, None) => {
                wrong(path, "one of 'record' or 'alert' must be set".to_owned());
                return None;
            }
            (Some(name), None) => (name, false),
            (None, Some(name)) => (name, true),
        };
        let expr = match filled(&self.expr) {
            None => {
                wrong(path, "field 'expr' must be set in rule".to_owned());
                None
            }
            Some(text) => parse(&text, &context.parse_options)
                .map_err(|error| wrong(&path.key("expr"), format!("could not parse expression: {error}")))
                .ok(),
        };
        let mut labels = group_labels.clone();
        labels.extend(self.labels.clone().unwrap_or_default());
        let annotations = self.annotations.clone().unwrap_or_default();
        if is_alert {
            check_templates(&name, &self.labels.clone().unwrap_or_default(), &path.key("labels"), errors);
            check_templates(&name, &annotations, &path.key("annotations"), errors);
        } else {
            self.check_recording(&name, path, &mut wrong);
        }
        check_label_names(&self.labels.clone().unwrap_or_default(), &path.key("labels"), errors);
        if errors.len() > before {
            return None;
        }
        let expr = expr?;
        let kind = if is_alert {
            RuleKind::Alerting {
                hold: self.hold.unwrap_or_default().0,
                keep_firing_for: self.keep_firing_for.unwrap_or_default().0,
                annotations,
            }
        } else {
            RuleKind::Recording
        };
        Some(RuleConfig { name, query: expr.to_string(), expr, labels, kind })
    }

    fn check_recording(&self, name: &str, path: &ConfigPath, wrong: &mut impl FnMut(&ConfigPath, String)) {
        let forbidden = [
            ("annotations", self.annotations.as_ref().is_some_and(|annotations| !annotations.is_empty())),
            ("for", self.hold.is_some_and(|hold| !hold.0.is_zero())),
            ("keep_firing_for", self.keep_firing_for.is_some_and(|keep| !keep.0.is_zero())),
        ];
        for (field, given) in forbidden {
            if given {
                wrong(&path.key(field), format!("invalid field '{field}' in recording rule"));
            }
        }
        if name.contains(['{', '}']) {
            wrong(
                &path.key("record"),
                format!("braces present in the recording rule name; should it be in expr?: {name}"),
            );
        }
    }
}

fn check_label_names(labels: &BTreeMap<String, String>, path: &ConfigPath, errors: &mut Vec<ConfigError>) {
    for name in labels.keys() {
        if name.is_empty() || name == METRIC_NAME {
            errors.push(ConfigError::new(path, format!("invalid label name: {name}")));
        }
    }
}

fn check_templates(
    alert: &str,
    texts: &BTreeMap<String, String>,
    path: &ConfigPath,
    errors: &mut Vec<ConfigError>,
) {
    for (name, text) in texts {
        if name.is_empty() {
            errors.push(ConfigError::new(path, "invalid annotation name: "));
        }
        if let Err(error) = AlertTemplate::new(alert, text) {
            errors.push(ConfigError::new(&path.key(name), error.to_string()));
        }
    }
}

impl GroupConfig {
    /// What tells the group from all others, in metrics and answers.
    pub fn key(&self) -> String {
        format!("{};{}", self.file, self.name)
    }
}

impl RuleConfig {
    /// Name and labels: what must be equal for a rule to keep its state over a reload.
    pub(crate) fn identity(&self) -> (&str, &BTreeMap<String, String>, bool) {
        (&self.name, &self.labels, matches!(self.kind, RuleKind::Recording))
    }

    /// The labels as a set, templates not expanded.
    pub fn label_set(&self) -> Labels {
        Labels::from_pairs(self.labels.iter().map(|(name, value)| (name.clone(), value.clone())))
    }
}
