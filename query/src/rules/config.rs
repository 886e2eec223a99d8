//! Rule files: `groups[]{name, interval, query_offset, limit, labels, rules[]}`.
//!
//! Checks and texts follow Prometheus' `model/rulefmt`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use model::config::PromDuration;
use model::labels::{METRIC_NAME, Quoted};
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
#[derive(Clone, Debug)]
pub struct RuleConfig {
    /// Name of the recorded series or of the alert.
    pub name: String,
    /// The expression.
    pub expr: Arc<Expr>,
    /// The expression in normal form, as the API shows it.
    pub query: String,
    /// Labels to add, templates in alerting rules; those of the group are among them.
    pub labels: BTreeMap<String, String>,
    /// Which kind.
    pub kind: RuleKind,
}

/// Rules with the same expression in normal form are equal: neither a comment in the file nor a NaN in the expression
/// (which is not equal to itself) makes another rule of one.
impl PartialEq for RuleConfig {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.query == other.query
            && self.labels == other.labels
            && self.kind == other.kind
    }
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
                let text = format!("groupname: \"{}\" is repeated in the same file", raw.name);
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
        let mut alerts = self.rules.iter().flatten().filter_map(|rule| filled(rule.alert.as_deref()));
        if let Some(alert) = alerts.next() {
            // To alerting rules they are templates like the rule's own.
            check_templates("label", alert, &group_labels, &path.key("labels"), errors);
        }
        let mut rules = Vec::new();
        for (index, raw) in self.rules.iter().flatten().enumerate() {
            rules.extend(raw.build(&path.key("rules").index(index), &group_labels, context, errors));
        }
        let interval = self.interval.map(|interval| interval.0).filter(|interval| !interval.is_zero());
        GroupConfig {
            name: self.name.clone(),
            file: context.file.clone(),
            interval: interval.unwrap_or(context.evaluation_interval),
            query_offset: self.query_offset.map_or(context.query_offset, |offset| offset.0),
            // Prometheus loads negative limits and takes them for none.
            limit: usize::try_from(self.limit.unwrap_or(0)).unwrap_or(0),
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
        let (record, alert) = (filled(self.record.as_deref()), filled(self.alert.as_deref()));
        let own_labels = self.labels.clone().unwrap_or_default();
        let annotations = self.annotations.clone().unwrap_or_default();
        match (record, alert) {
            (Some(_), Some(_)) => {
                errors.push(ConfigError::new(path, "only one of 'record' and 'alert' must be set"));
            }
            (None, None) => errors.push(ConfigError::new(path, "one of 'record' or 'alert' must be set")),
            _ => {}
        }
        let expr = self.parse_expr(path, context, errors);
        if let Some(record) = record {
            self.check_recording(record, path, errors);
        }
        check_label_names(&own_labels, &path.key("labels"), errors);
        if annotations.contains_key("") {
            errors.push(ConfigError::new(&path.key("annotations"), "invalid annotation name: "));
        }
        if let Some(alert) = alert {
            check_templates("label", alert, &own_labels, &path.key("labels"), errors);
            check_templates("annotation", alert, &annotations, &path.key("annotations"), errors);
        }
        if errors.len() > before {
            return None;
        }
        let expr = expr?;
        let kind = match alert {
            Some(_) => RuleKind::Alerting {
                hold: self.hold.unwrap_or_default().0,
                keep_firing_for: self.keep_firing_for.unwrap_or_default().0,
                annotations,
            },
            None => RuleKind::Recording,
        };
        let mut labels = group_labels.clone();
        labels.extend(own_labels);
        let name = record.or(alert)?.to_owned();
        Some(RuleConfig { name, query: expr.to_string(), expr: Arc::new(expr), labels, kind })
    }

    fn parse_expr(
        &self,
        path: &ConfigPath,
        context: &RuleFileContext,
        errors: &mut Vec<ConfigError>,
    ) -> Option<Expr> {
        let Some(text) = filled(self.expr.as_deref()) else {
            errors.push(ConfigError::new(path, "field 'expr' must be set in rule"));
            return None;
        };
        match parse(text, &context.parse_options) {
            Ok(expr) => Some(expr),
            Err(error) => {
                let text = format!("could not parse expression: {error}");
                errors.push(ConfigError::new(&path.key("expr"), text));
                None
            }
        }
    }

    fn check_recording(&self, name: &str, path: &ConfigPath, errors: &mut Vec<ConfigError>) {
        let forbidden = [
            ("annotations", self.annotations.as_ref().is_some_and(|annotations| !annotations.is_empty())),
            ("for", self.hold.is_some_and(|hold| !hold.0.is_zero())),
            ("keep_firing_for", self.keep_firing_for.is_some_and(|keep| !keep.0.is_zero())),
        ];
        for (field, given) in forbidden {
            if given {
                let text = format!("invalid field '{field}' in recording rule");
                errors.push(ConfigError::new(&path.key(field), text));
            }
        }
        if name.contains(['{', '}']) {
            let text = format!("braces present in the recording rule name; should it be in expr?: {name}");
            errors.push(ConfigError::new(&path.key("record"), text));
        }
    }
}

/// A text that is there and not empty: an empty field counts as none.
fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn check_label_names(labels: &BTreeMap<String, String>, path: &ConfigPath, errors: &mut Vec<ConfigError>) {
    for name in labels.keys() {
        let at = match name.as_str() {
            "" => path.clone(),
            METRIC_NAME => path.key(name),
            _ => continue,
        };
        errors.push(ConfigError::new(&at, format!("invalid label name: {name}")));
    }
}

/// Checks `texts` of alert `alert`; `what` they are: `label` or `annotation`.
fn check_templates(
    what: &str,
    alert: &str,
    texts: &BTreeMap<String, String>,
    path: &ConfigPath,
    errors: &mut Vec<ConfigError>,
) {
    for (name, text) in texts {
        if let Err(error) = AlertTemplate::new(alert, text) {
            let text = format!("{what} {}: {error}", Quoted(name));
            errors.push(ConfigError::new(&path.key(name), text));
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
    pub(super) fn identity(&self) -> (&str, &BTreeMap<String, String>, bool) {
        (&self.name, &self.labels, matches!(self.kind, RuleKind::Recording))
    }

    /// The labels as a set, templates not expanded.
    pub fn label_set(&self) -> Labels {
        Labels::from_pairs(self.labels.iter().map(|(name, value)| (name.clone(), value.clone())))
    }
}
