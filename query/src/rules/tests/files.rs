//! Rule files: every mistake at its place, defaults, and the built-in file.

use std::time::Duration;

use model::{ConfigError, ConfigPath, Labels};

use super::fakes::{configs, context};
use crate::rules::{RawRuleFile, RuleFileContext, RuleKind};

/// Place and text of each error of a file, with `rules` as the only rules if the text is no whole file.
fn errors(yaml: &str) -> Vec<String> {
    let yaml = if yaml.contains("groups:") {
        yaml.to_owned()
    } else {
        format!("groups: [{{name: g, rules: [{yaml}]}}]")
    };
    let raw: RawRuleFile = serde_yaml::from_str(&yaml).unwrap();
    let errors = raw.build(&ConfigPath::root(), &context()).unwrap_err();
    errors.iter().map(ConfigError::to_string).collect()
}

#[test]
fn mistakes_have_a_place_and_prometheus_words() {
    let cases: [(&str, &[&str]); 19] = [
        ("groups: [{name: ''}]", &["groups[0]: Groupname must not be empty"]),
        ("groups: [{rules: []}]", &["groups[0]: Groupname must not be empty"]),
        (
            r#"groups: [{name: a"b}, {name: c}, {name: a"b}]"#,
            &[r#"groups[2].name: groupname: "a"b" is repeated in the same file"#],
        ),
        (
            "groups: [{name: g, labels: {__name__: x}}]",
            &["groups[0].labels.__name__: invalid label name: __name__"],
        ),
        ("groups: [{name: g, labels: {'': x}}]", &["groups[0].labels: invalid label name: "]),
        (
            "groups: [{name: g, labels: {a: '{{ nope }}'}, rules: [{record: r, expr: a}, {alert: A, expr: a}, {alert: B, expr: a}]}]",
            &[r#"groups[0].labels.a: label "a": template: __alert_A:1: function "nope" not defined"#],
        ),
        (
            "{record: r, alert: a, expr: x}",
            &["groups[0].rules[0]: only one of 'record' and 'alert' must be set"],
        ),
        ("{expr: x}", &["groups[0].rules[0]: one of 'record' or 'alert' must be set"]),
        ("{alert: '', record: '', expr: x}", &["groups[0].rules[0]: one of 'record' or 'alert' must be set"]),
        ("{record: r}", &["groups[0].rules[0]: field 'expr' must be set in rule"]),
        ("{record: r, expr: ''}", &["groups[0].rules[0]: field 'expr' must be set in rule"]),
        (
            "{record: r, expr: 'a +'}",
            &[
                "groups[0].rules[0].expr: could not parse expression: 1:4: parse error: unexpected end of input",
            ],
        ),
        (
            "{record: r, expr: x, annotations: {a: b}, for: 1m, keep_firing_for: 1m}",
            &[
                "groups[0].rules[0].annotations: invalid field 'annotations' in recording rule",
                "groups[0].rules[0].for: invalid field 'for' in recording rule",
                "groups[0].rules[0].keep_firing_for: invalid field 'keep_firing_for' in recording rule",
            ],
        ),
        (
            "{record: 'r{a=\"b\"}', expr: x}",
            &[
                r#"groups[0].rules[0].record: braces present in the recording rule name; should it be in expr?: r{a="b"}"#,
            ],
        ),
        (
            "{record: r, expr: x, labels: {__name__: y}}",
            &["groups[0].rules[0].labels.__name__: invalid label name: __name__"],
        ),
        (
            "{alert: A, expr: x, annotations: {'': y}}",
            &["groups[0].rules[0].annotations: invalid annotation name: "],
        ),
        (
            "{alert: A, expr: x, labels: {l: '{{ $x }}'}}",
            &[r#"groups[0].rules[0].labels.l: label "l": template: __alert_A:1: undefined variable "$x""#],
        ),
        (
            "{alert: A, expr: x, annotations: {l: '{{ $x }}'}}",
            &[
                r#"groups[0].rules[0].annotations.l: annotation "l": template: __alert_A:1: undefined variable "$x""#,
            ],
        ),
        (
            "{alert: A, for: 1m}, {record: r, expr: x}, {record: r, expr: ')'}",
            &[
                "groups[0].rules[0]: field 'expr' must be set in rule",
                r#"groups[0].rules[2].expr: could not parse expression: 1:2: parse error: unexpected right parenthesis ')'"#,
            ],
        ),
    ];
    for (yaml, expected) in cases {
        assert_eq!(errors(yaml), expected, "{yaml}");
    }
}

#[test]
fn unknown_keys_and_wrong_types_are_refused_with_their_line() {
    let cases = [
        ("group: []", "unknown field `group`"),
        ("groups: [{name: g, rule: []}]", "unknown field `rule`"),
        ("groups: [{name: g, rules: [{alert: A, expr: x, fore: 1m}]}]", "unknown field `fore`"),
        ("groups: [{name: g, interval: 5 minutes}]", "not a valid duration"),
        ("groups: [{name: g, limit: many}]", "invalid type"),
    ];
    for (yaml, expected) in cases {
        let error = serde_yaml::from_str::<RawRuleFile>(yaml).unwrap_err();
        assert!(error.to_string().contains(expected), "{yaml}: {error}");
        assert!(error.location().is_some(), "{yaml}");
    }
}

#[test]
fn what_is_left_out_has_defaults() {
    let context = RuleFileContext { query_offset: Duration::from_secs(7), ..context() };
    let build = |yaml: &str| {
        let raw: RawRuleFile = serde_yaml::from_str(yaml).unwrap();
        raw.build(&ConfigPath::root(), &context).unwrap()
    };
    for empty in ["{}", "groups:", "groups: []"] {
        assert!(build(empty).is_empty());
    }
    let group = build("groups: [{name: g, rules: [{alert: A, expr: x}]}]").remove(0);
    assert_eq!(group.key(), "rules.yml;g");
    assert_eq!(
        (group.interval, group.query_offset, group.limit),
        (Duration::from_secs(15), Duration::from_secs(7), 0)
    );
    let RuleKind::Alerting { hold, keep_firing_for, annotations } = &group.rules[0].kind else { panic!() };
    assert_eq!((*hold, *keep_firing_for, annotations.len()), (Duration::ZERO, Duration::ZERO, 0));
    let group = build("groups: [{name: g, interval: 1m, query_offset: 0s, limit: -1, rules: }]").remove(0);
    assert_eq!(
        (group.interval, group.query_offset, group.limit),
        (Duration::from_secs(60), Duration::ZERO, 0)
    );
    assert_eq!(build("groups: [{name: g, interval: 0s}]")[0].interval, Duration::from_secs(15));
}

#[test]
fn numbers_may_stand_where_texts_are_meant() {
    let group =
        configs("groups: [{name: g, rules: [{record: one, expr: 1, labels: {a: 1, b: true}}]}]").remove(0);
    assert_eq!(group.rules[0].query, "1");
    assert_eq!(group.rules[0].label_set(), Labels::from_pairs([("a", "1"), ("b", "true")]));
}

#[test]
fn own_labels_win_over_those_of_the_group() {
    let group =
        configs("groups: [{name: g, labels: {a: g, b: g}, rules: [{record: r, expr: x, labels: {b: r}}]}]")
            .remove(0);
    assert_eq!(group.rules[0].label_set(), Labels::from_pairs([("a", "g"), ("b", "r")]));
}

/// What decides whether a reload leaves a group alone.
#[test]
fn groups_are_equal_when_they_do_the_same() {
    let group = |expr: &str| {
        configs(&format!("groups: [{{name: g, rules: [{{record: r, expr: '{expr}'}}]}}]")).remove(0)
    };
    assert_eq!(group("a+NaN"), group("a  + NaN # as before"));
    assert_ne!(group("a + 1"), group("a + 2"));
}

#[test]
fn built_in_rules_are_valid() {
    let groups = configs(include_str!("../../../../src/builtin/queue_rules.yml"));
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    assert!(names.contains(&"queue-recording") && names.contains(&"queue-alerts"), "{names:?}");
    for group in &groups {
        assert!(!group.rules.is_empty(), "{}", group.name);
    }
    let alert =
        groups.iter().flat_map(|group| &group.rules).find(|rule| rule.name == "QueueNoConsumers").unwrap();
    assert!(matches!(alert.kind, RuleKind::Alerting { hold, .. } if hold == Duration::from_secs(300)));
}
