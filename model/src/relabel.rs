//! Relabelling: rules that rewrite label sets, keep or drop them.
//!
//! [`RawRelabelConfig`] is a rule as written in YAML, [`RelabelConfig`] one that was checked and compiled. [`process`]
//! runs rules in order over a [`LabelsBuilder`]; the first one that drops ends it. Semantics and messages are
//! Prometheus' (`model/relabel`).

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

use md5::{Digest, Md5};
use serde::Deserialize;

use crate::config::{ConfigError, ConfigPath};
use crate::labels::{Labels, LabelsBuilder, Quoted, is_legacy_label_name};
use crate::regex::RegexMatcher;

const DEFAULT_SEPARATOR: &str = ";";
const DEFAULT_REGEX: &str = "(.*)";
const DEFAULT_REPLACEMENT: &str = "$1";

static ANYTHING: LazyLock<Arc<RegexMatcher>> = LazyLock::new(|| {
    Arc::new(RegexMatcher::new_wrapped(DEFAULT_REGEX).expect("the default regex is well-formed"))
});

/// What names labels may have (`metric_name_validation_scheme`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameValidation {
    /// Any text that is not empty.
    #[default]
    Utf8,
    /// `[a-zA-Z_][a-zA-Z0-9_]*`
    Legacy,
}

impl NameValidation {
    /// Whether `name` may name a label.
    pub fn is_valid_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether `template`, which may hold `$1` and the like, may become a label name.
    fn is_valid_template(self, template: &str) -> bool {
        /// As Prometheus has it.
        static LEGACY: LazyLock<::regex::Regex> = LazyLock::new(|| {
            ::regex::Regex::new(r"^(?:(?:[a-zA-Z_]|\$(?:\{[0-9A-Za-z_]+\}|[0-9A-Za-z_]+))+[0-9A-Za-z_]*)+$")
                .expect("a constant expression")
        });
        match self {
            Self::Utf8 => !template.is_empty(),
            Self::Legacy => LEGACY.is_match(template),
        }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the configuration's own")]
pub enum RelabelAction {
    #[default]
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

impl RelabelAction {
    /// All actions.
    pub const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// The name in configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    /// Reads a name, letter case ignored.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for RelabelAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule as written. Numbers and booleans are taken as texts where texts are due.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the configuration's own")]
pub struct RawRelabelConfig {
    pub source_labels: Option<Vec<String>>,
    pub separator: Option<String>,
    pub target_label: Option<String>,
    pub regex: Option<String>,
    pub modulus: Option<u64>,
    pub replacement: Option<String>,
    pub action: Option<String>,
}

impl RawRelabelConfig {
    /// Checks and compiles the rule at `path`.
    ///
    /// # Errors
    /// What Prometheus refuses, in its words.
    pub fn build(&self, path: &ConfigPath, names: NameValidation) -> Result<RelabelConfig, ConfigError> {
        use RelabelAction as A;
        let action = match self.action.as_deref() {
            None => A::default(),
            Some("") => return Err(ConfigError::new(&path.key("action"), "relabel action cannot be empty")),
            Some(name) => A::from_name(name).ok_or_else(|| {
                ConfigError::new(&path.key("action"), format!("unknown relabel action {}", Quoted(name)))
            })?,
        };
        for (index, name) in self.source_labels.iter().flatten().enumerate() {
            if !names.is_valid_label_name(name) {
                let path = path.key("source_labels").index(index);
                return Err(ConfigError::new(&path, format!("{} is not a valid label name", Quoted(name))));
            }
        }
        let regex = match &self.regex {
            None => Arc::clone(&ANYTHING),
            Some(pattern) => Arc::new(
                RegexMatcher::new_wrapped(pattern)
                    .map_err(|error| ConfigError::new(&path.key("regex"), error.to_string()))?,
            ),
        };
        let config = RelabelConfig {
            source_labels: self.source_labels.clone().unwrap_or_default(),
            separator: self.separator.clone().unwrap_or_else(|| DEFAULT_SEPARATOR.to_owned()),
            target_label: self.target_label.clone().unwrap_or_default(),
            regex,
            modulus: self.modulus.unwrap_or_default(),
            replacement: self.replacement.clone().unwrap_or_else(|| DEFAULT_REPLACEMENT.to_owned()),
            action,
            names,
        };
        self.check(&config).map_err(|(key, message)| {
            let path = if key.is_empty() { path.clone() } else { path.key(key) };
            ConfigError::new(&path, message)
        })?;
        Ok(config)
    }

    /// What of the fields belongs together; the key to blame (empty: the rule) and the message.
    fn check(&self, config: &RelabelConfig) -> Result<(), (&'static str, String)> {
        use RelabelAction as A;
        let (action, names, target) = (config.action, config.names, config.target_label.as_str());
        if action == A::HashMod && config.modulus == 0 {
            return Err(("", "relabel configuration for hashmod requires non-zero modulus".to_owned()));
        }
        let has_target = matches!(
            action,
            A::Replace | A::HashMod | A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual
        );
        if has_target && target.is_empty() {
            return Err((
                "",
                format!("relabel configuration for {action} action requires 'target_label' value"),
            ));
        }
        let target_valid = if action == A::Replace && target.contains('$') {
            names.is_valid_template(target)
        } else {
            names.is_valid_label_name(target)
        };
        if has_target && !target_valid {
            return Err((
                "target_label",
                format!("{} is invalid 'target_label' for {action} action", Quoted(target)),
            ));
        }
        let replacement_is_default = config.replacement == DEFAULT_REPLACEMENT;
        if matches!(action, A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual)
            && !replacement_is_default
        {
            return Err(("replacement", format!("'replacement' can not be set for {action} action")));
        }
        if action == A::LabelMap && !names.is_valid_template(&config.replacement) {
            let replacement = Quoted(&config.replacement);
            return Err((
                "replacement",
                format!("{replacement} is invalid 'replacement' for {action} action"),
            ));
        }
        let others_default =
            config.modulus == 0 && config.separator == DEFAULT_SEPARATOR && replacement_is_default;
        if matches!(action, A::DropEqual | A::KeepEqual) && (self.regex.is_some() || !others_default) {
            let message = format!(
                "{action} action requires only 'source_labels' and `target_label`, and no other fields"
            );
            return Err(("", message));
        }
        let only_regex = self.source_labels.is_none() && target.is_empty() && others_default;
        if matches!(action, A::LabelDrop | A::LabelKeep) && !only_regex {
            return Err(("", format!("{action} action requires only 'regex', and no other fields")));
        }
        Ok(())
    }
}

/// A rule, checked and compiled. Cheap to clone as far as the expression goes.
#[derive(Clone)]
pub struct RelabelConfig {
    /// Labels whose values are joined by `separator`.
    pub source_labels: Vec<String>,
    /// Between the values.
    pub separator: String,
    /// The label that is written or compared; a template for `replace`.
    pub target_label: String,
    /// What the joined values (or the label names) must match.
    pub regex: Arc<RegexMatcher>,
    /// Divisor of `hashmod`.
    pub modulus: u64,
    /// The new value (or name), a template.
    pub replacement: String,
    /// What is done.
    pub action: RelabelAction,
    /// Which label names may result.
    pub names: NameValidation,
}

impl PartialEq for RelabelConfig {
    fn eq(&self, other: &Self) -> bool {
        self.source_labels == other.source_labels
            && self.separator == other.separator
            && self.target_label == other.target_label
            && self.regex.pattern() == other.regex.pattern()
            && self.modulus == other.modulus
            && self.replacement == other.replacement
            && self.action == other.action
            && self.names == other.names
    }
}

impl Eq for RelabelConfig {}

impl fmt::Debug for RelabelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelabelConfig")
            .field("action", &self.action)
            .field("source_labels", &self.source_labels)
            .field("regex", &self.regex.pattern())
            .field("target_label", &self.target_label)
            .field("replacement", &self.replacement)
            .finish_non_exhaustive()
    }
}

impl RelabelConfig {
    /// Applies the rule; false when it drops the label set.
    pub fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        match self.action {
            RelabelAction::Drop => return !self.regex.is_match(&self.source(labels)),
            RelabelAction::Keep => return self.regex.is_match(&self.source(labels)),
            RelabelAction::DropEqual => return labels.value(&self.target_label) != self.source(labels),
            RelabelAction::KeepEqual => return labels.value(&self.target_label) == self.source(labels),
            RelabelAction::Replace => self.replace(labels),
            RelabelAction::Lowercase => {
                let value = self.source(labels).to_lowercase();
                labels.set(&*self.target_label, value);
            }
            RelabelAction::Uppercase => {
                let value = self.source(labels).to_uppercase();
                labels.set(&*self.target_label, value);
            }
            RelabelAction::HashMod => {
                let value = hash(&self.source(labels)) % self.modulus;
                labels.set(&*self.target_label, value.to_string());
            }
            RelabelAction::LabelMap => {
                let renamed: Vec<(String, String)> = labels
                    .iter()
                    .filter_map(|(name, value)| {
                        Some((self.regex.replace(name, &self.replacement)?, value.to_owned()))
                    })
                    .collect();
                for (name, value) in renamed {
                    labels.set(name, value);
                }
            }
            RelabelAction::LabelDrop => {
                labels.retain(|name, _| !self.regex.is_match(name));
            }
            RelabelAction::LabelKeep => {
                labels.retain(|name, _| self.regex.is_match(name));
            }
        }
        true
    }

    fn source<'l>(&self, labels: &'l LabelsBuilder) -> Cow<'l, str> {
        match self.source_labels.as_slice() {
            [] => Cow::Borrowed(""),
            [only] => Cow::Borrowed(labels.value(only)),
            [first, rest @ ..] => {
                let mut joined = labels.value(first).to_owned();
                for name in rest {
                    joined.push_str(&self.separator);
                    joined.push_str(labels.value(name));
                }
                Cow::Owned(joined)
            }
        }
    }

    fn replace(&self, labels: &mut LabelsBuilder) {
        let source = self.source(labels);
        let Some(value) = self.regex.replace(&source, &self.replacement) else { return };
        if self.target_label.contains('$') {
            let Some(target) = self.regex.replace(&source, &self.target_label) else { return };
            if self.names.is_valid_label_name(&target) {
                labels.set(target, value);
            }
        } else {
            // An empty value removes the label.
            labels.set(&*self.target_label, value);
        }
    }
}

/// The last eight bytes of MD5, as Prometheus always had it, so that shards stay where they are.
fn hash(text: &str) -> u64 {
    let digest = Md5::digest(text.as_bytes());
    u64::from_be_bytes(digest[8..].try_into().expect("MD5 has sixteen bytes"))
}

/// Applies `configs` in order; false when one of them drops the label set (which is then of no use).
#[must_use]
pub fn process(labels: &mut LabelsBuilder, configs: &[RelabelConfig]) -> bool {
    configs.iter().all(|config| config.apply(labels))
}

/// What became of a label set after one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelabelStep {
    /// The labels after the rule; empty when dropped.
    pub output: Labels,
    /// Whether the label set is kept.
    pub keep: bool,
}

/// Applies `configs` in order and says what each did, for people who look for a mistake. Ends after a rule that drops.
pub fn process_steps(labels: &Labels, configs: &[RelabelConfig]) -> Vec<RelabelStep> {
    let mut builder = LabelsBuilder::from(labels);
    let mut steps = Vec::with_capacity(configs.len());
    for config in configs {
        let keep = config.apply(&mut builder);
        steps.push(RelabelStep { output: if keep { builder.build() } else { Labels::empty() }, keep });
        if !keep {
            break;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(yaml: &str) -> Result<Vec<RelabelConfig>, String> {
        let raw: Vec<RawRelabelConfig> = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
        let path = ConfigPath::root().key("relabel_configs");
        raw.iter()
            .enumerate()
            .map(|(index, raw)| raw.build(&path.index(index), NameValidation::Utf8))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }

    /// The labels after the rules, or `None` when dropped.
    fn relabel(yaml: &str, labels: &[(&str, &str)]) -> Option<Labels> {
        let mut builder = LabelsBuilder::from(&Labels::from_pairs(labels.iter().copied()));
        process(&mut builder, &rules(yaml).unwrap()).then(|| builder.build())
    }

    /// Cases of Prometheus' own behaviour, one action after the other.
    #[test]
    fn every_action() {
        let labels = &[("a", "foo"), ("b", "bar"), ("c", "baz")];
        let cases: &[(&str, Option<&str>)] = &[
            (
                "{source_labels: [a], regex: 'f(.*)', target_label: d, replacement: 'ch${1}-ch${1}'}",
                Some(r#"{a="foo", b="bar", c="baz", d="choo-choo"}"#),
            ),
            (
                "{source_labels: [a, b], regex: 'f(.*);(.*)r', target_label: a, replacement: 'b${1}${2}m'}",
                Some(r#"{a="boobam", b="bar", c="baz"}"#),
            ),
            ("{source_labels: [a], regex: '.*o.*', action: drop}", None),
            ("{source_labels: [a], regex: 'o', action: drop}", Some(r#"{a="foo", b="bar", c="baz"}"#)),
            ("{source_labels: [a], regex: 'no', action: keep}", None),
            ("{source_labels: [a], regex: 'f|foo', action: KEEP}", Some(r#"{a="foo", b="bar", c="baz"}"#)),
            (
                "{source_labels: [a], regex: 'f', target_label: b, replacement: bar2}",
                Some(r#"{a="foo", b="bar", c="baz"}"#),
            ),
            ("{target_label: d, replacement: static}", Some(r#"{a="foo", b="bar", c="baz", d="static"}"#)),
            ("{source_labels: [none], target_label: b}", Some(r#"{a="foo", c="baz"}"#)),
            (
                "{source_labels: [a, b], separator: '', target_label: d}",
                Some(r#"{a="foo", b="bar", c="baz", d="foobar"}"#),
            ),
            (
                "{source_labels: [a], regex: '(f)(.*)', target_label: '${1}x$2', replacement: v}",
                Some(r#"{a="foo", b="bar", c="baz", fxoo="v"}"#),
            ),
            (
                "{source_labels: [a], regex: '(x?).*', target_label: '$1', replacement: v}",
                Some(r#"{a="foo", b="bar", c="baz"}"#),
            ),
            (
                "{source_labels: [c], target_label: d, action: hashmod, modulus: 1000}",
                Some(r#"{a="foo", b="bar", c="baz", d="976"}"#),
            ),
            (
                "{regex: '(b|c)', action: labelmap, replacement: 'new_${1}'}",
                Some(r#"{a="foo", b="bar", c="baz", new_b="bar", new_c="baz"}"#),
            ),
            ("{regex: '(b|c)', action: labeldrop}", Some(r#"{a="foo"}"#)),
            ("{regex: 'b.*', action: labelkeep}", Some(r#"{b="bar"}"#)),
            (
                "{source_labels: [a, b], target_label: d, action: uppercase}",
                Some(r#"{a="foo", b="bar", c="baz", d="FOO;BAR"}"#),
            ),
            (
                "{source_labels: [a], target_label: a, action: lowercase}",
                Some(r#"{a="foo", b="bar", c="baz"}"#),
            ),
            ("{source_labels: [a], target_label: b, action: keepequal}", None),
            (
                "{source_labels: [a], target_label: b, action: dropequal}",
                Some(r#"{a="foo", b="bar", c="baz"}"#),
            ),
            ("{source_labels: [none], target_label: absent, action: dropequal}", None),
            (
                "{target_label: 'µ name', replacement: v}",
                Some("{a=\"foo\", b=\"bar\", c=\"baz\", \"µ name\"=\"v\"}"),
            ),
        ];
        for (rule, expected) in cases {
            let found = relabel(&format!("[{rule}]"), labels).map(|labels| labels.to_string());
            assert_eq!(found.as_deref(), *expected, "{rule}");
        }
    }

    #[test]
    fn scalars_of_any_type_are_texts() {
        let yaml = "- source_labels: [1, true]\n  separator: 0\n  target_label: yes\n  regex: 10\n  replacement: 5.50\n- target_label: x\n  replacement: null\n";
        let rules = rules(yaml).unwrap();
        assert_eq!(rules[0].source_labels, ["1", "true"]);
        assert_eq!((rules[0].separator.as_str(), rules[0].target_label.as_str()), ("0", "yes"));
        assert_eq!((rules[0].regex.pattern(), rules[0].replacement.as_str()), ("10", "5.50"));
        assert_eq!(rules[1].replacement, "$1");
    }

    #[test]
    fn refusals_are_those_of_prometheus() {
        let cases = [
            ("{action: nope}", "relabel_configs[0].action: unknown relabel action \"nope\""),
            ("{action: ''}", "relabel_configs[0].action: relabel action cannot be empty"),
            (
                "{source_labels: [a]}",
                "relabel_configs[0]: relabel configuration for replace action requires 'target_label' value",
            ),
            (
                "{target_label: x, action: hashmod}",
                "relabel_configs[0]: relabel configuration for hashmod requires non-zero modulus",
            ),
            (
                "{source_labels: [''], target_label: x}",
                "relabel_configs[0].source_labels[0]: \"\" is not a valid label name",
            ),
            (
                "{regex: '(a', target_label: x}",
                "relabel_configs[0].regex: error parsing regexp: missing closing ): `^(?s:(a)$`",
            ),
            (
                "{target_label: x, action: lowercase, replacement: y}",
                "relabel_configs[0].replacement: 'replacement' can not be set for lowercase action",
            ),
            (
                "{action: labelmap, replacement: ''}",
                "relabel_configs[0].replacement: \"\" is invalid 'replacement' for labelmap action",
            ),
            (
                "{action: keepequal, target_label: x, regex: '(.*)'}",
                "relabel_configs[0]: keepequal action requires only 'source_labels' and `target_label`, and no other fields",
            ),
            (
                "{action: labeldrop, regex: a, target_label: x}",
                "relabel_configs[0]: labeldrop action requires only 'regex', and no other fields",
            ),
        ];
        for (rule, expected) in cases {
            assert_eq!(rules(&format!("[{rule}]")).unwrap_err(), expected, "{rule}");
        }
        assert!(rules("[{target_lable: x}]").unwrap_err().contains("unknown field `target_lable`"));
        let raw = RawRelabelConfig { target_label: Some("a-b".into()), ..RawRelabelConfig::default() };
        let error = raw.build(&ConfigPath::root(), NameValidation::Legacy).unwrap_err();
        assert_eq!(error.to_string(), "target_label: \"a-b\" is invalid 'target_label' for replace action");
        for (template, valid) in
            [("${1}_x", true), ("a$1b", true), ("$", false), ("a-$1", false), ("1$1", false)]
        {
            assert_eq!(NameValidation::Legacy.is_valid_template(template), valid, "{template}");
        }
    }

    #[test]
    fn steps_end_where_the_set_is_dropped() {
        let rules = rules("[{target_label: x, replacement: y}, {source_labels: [x], regex: y, action: drop}, {regex: x, action: labeldrop}]").unwrap();
        let steps = process_steps(&Labels::from_pairs([("a", "1")]), &rules);
        assert_eq!(steps.len(), 2);
        assert_eq!(
            steps[0],
            RelabelStep { output: Labels::from_pairs([("a", "1"), ("x", "y")]), keep: true }
        );
        assert_eq!(steps[1], RelabelStep { output: Labels::empty(), keep: false });
    }

    proptest! {
        #[test]
        fn shards_cover_all_and_overlap_nowhere(value in "\\PC{0,20}", modulus in 1u64..8) {
            let labels = [("a", value.as_str())];
            let kept = (0..modulus).filter(|shard| {
                let yaml = format!("[{{source_labels: [a], target_label: s, action: hashmod, modulus: {modulus}}}, {{source_labels: [s], regex: {shard}, action: keep}}]");
                relabel(&yaml, &labels).is_some()
            });
            prop_assert_eq!(kept.count(), 1);
        }
    }
}
