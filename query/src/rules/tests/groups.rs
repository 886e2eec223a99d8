//! Groups: recording rules, order, staleness, offsets, and storage that refuses or fails.

use std::sync::Arc;

use model::storage::AppendError;
use model::{FloatHistogram, SampleValue};
use tokio_util::sync::CancellationToken;

use super::fakes::{World, alerts, at, health, labels};
use crate::rules::{Health, RuleSample};

#[test]
fn recorded_series_have_the_rules_name_and_labels() {
    let world = World::new();
    let group = world.group(
        "
groups:
- name: g
  labels: {team: queue, env: prod}
  rules:
  - {record: out, expr: in, labels: {env: test, gone: ''}}
",
    );
    world.script.give("in", 0, &[("__name__=in,job=a,env=x,gone=y", 1.0), ("__name__=in,job=b", 2.0)]);
    world.evaluate(&group, 0);
    assert_eq!(
        world.store.lines("out"),
        [r#"{env="test", job="a", team="queue"} 0:1"#, r#"{env="test", job="b", team="queue"} 0:2"#]
    );
    assert_eq!(world.metric("prometheus_rule_group_last_evaluation_samples"), 2.0);
}

#[test]
fn later_rules_see_what_earlier_ones_recorded() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: one, expr: in}, {record: two, expr: one}, {alert: A, expr: two}]}]");
    world.script.give("in", 0, &[("job=a", 3.0)]);
    assert_eq!(world.evaluate(&group, 0), [r#"{alertname="A", job="a"} 0..240"#]);
    assert_eq!(world.store.lines("two"), [r#"{job="a"} 0:3"#]);
}

#[test]
fn series_that_vanish_end_but_not_because_of_a_failure() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: out, expr: in}]}]");
    world.script.give("in", 0, &[("job=a", 1.0), ("job=b", 1.0)]);
    world.script.set("in", 15, Err("broken".to_owned()));
    world.script.give("in", 30, &[("job=b", 2.0)]);
    world.script.give("in", 60, &[]);
    for step in 0..6 {
        world.evaluate(&group, step * 15);
    }
    assert_eq!(
        world.store.lines("out"),
        [r#"{job="a"} 0:1 30:stale"#, r#"{job="b"} 0:1 30:2 45:2 60:stale"#],
        "one marker each"
    );
}

#[test]
fn histograms_are_recorded_and_end() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: out, expr: in}]}]");
    let histogram =
        SampleValue::FloatHistogram(Arc::new(FloatHistogram { count: 5.0, ..FloatHistogram::default() }));
    world.script.set("in", 0, Ok(vec![RuleSample { labels: labels("job=a"), value: histogram }]));
    world.script.give("in", 15, &[]);
    world.evaluate(&group, 0);
    world.evaluate(&group, 15);
    assert_eq!(world.store.lines("out"), [r#"{job="a"} 0:histogram 15:stale"#]);
}

#[test]
fn equal_labels_and_too_many_series_are_errors() {
    let world = World::new();
    let group = world.group(
        "groups: [{name: g, limit: 2, rules: [{record: one, expr: a, labels: {job: x}}, {record: two, expr: b}, {record: three, expr: c}]}]",
    );
    world.script.give("a", 0, &[("job=a", 1.0), ("job=b", 2.0)]);
    world.script.give("b", 0, &[("job=a", 1.0), ("job=b", 2.0), ("job=c", 3.0)]);
    world.script.give("c", 0, &[("job=a", 1.0), ("job=b", 2.0)]);
    world.evaluate(&group, 0);
    let same = "vector contains metrics with the same labelset after applying rule labels";
    assert_eq!(health(&group, 0), (Health::Bad, Some(same.to_owned())));
    assert_eq!(health(&group, 1), (Health::Bad, Some("exceeded limit of 2 with 3 series".to_owned())));
    assert_eq!(health(&group, 2), (Health::Good, None), "as many as the limit");
    assert!(world.store.lines("one").is_empty() && world.store.lines("two").is_empty());
    assert_eq!(world.store.lines("three").len(), 2);
    assert_eq!(world.metric("prometheus_rule_evaluation_failures_total"), 2.0);
}

#[test]
fn query_offset_shifts_what_is_asked_and_what_is_written() {
    let world = World::new();
    let group = world.group(
        r#"
groups:
- name: g
  query_offset: 1m
  rules:
  - {record: out, expr: in}
  - {alert: A, expr: in, annotations: {text: '{{ query "other" | first | value }}'}}
"#,
    );
    world.script.give("in", -60, &[("job=a", 1.0)]);
    world.script.give("in", -30, &[]);
    world.script.give("other", -60, &[("", 1.0)]);
    world.script.give("other", 0, &[("", 2.0)]);
    let sent = world.evaluate(&group, 0);
    assert_eq!(world.script.asked("in"), ["-60", "-60"]);
    assert_eq!(sent, [r#"{alertname="A", job="a"} 0..240"#], "alerts live in the time of the evaluation");
    let alert = alerts(&group, 1).remove(0);
    assert_eq!((alert.active_at, alert.annotations.value("text")), (at(0), "2"));
    world.evaluate(&group, 30);
    assert_eq!(world.store.lines("out"), [r#"{job="a"} -60:1 -30:stale"#]);
    assert_eq!(
        world.store.lines("ALERTS"),
        [r#"{alertname="A", alertstate="firing", job="a"} -60:1 -30:stale"#]
    );
    assert_eq!(
        world.store.lines("ALERTS_FOR_STATE"),
        [r#"{alertname="A", job="a"} -60:1000000000 -30:stale"#]
    );
}

#[test]
fn refused_samples_show_and_the_others_are_written() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: out, expr: in}]}]");
    world.script.give("in", 0, &[("job=a", 1.0), ("job=b", 1.0)]);
    world.evaluate(&group, 0);
    world.store.put(&labels("__name__=out,job=a"), 100, 9.0);
    world.evaluate(&group, 15);
    assert_eq!(health(&group, 0), (Health::Bad, Some("out of order sample".to_owned())));
    assert_eq!(world.metric("nilometer_rule_samples_refused_total"), 1.0);
    assert_eq!(world.metric("prometheus_rule_evaluation_failures_total"), 0.0, "as in Prometheus");
    // The series goes on in storage: it ends when the rule stops to yield it.
    world.script.give("in", 120, &[("job=b", 1.0)]);
    world.evaluate(&group, 120);
    assert_eq!(health(&group, 0), (Health::Good, None));
    assert_eq!(world.store.lines("out"), [r#"{job="a"} 0:1 100:9 120:stale"#, r#"{job="b"} 0:1 15:1 120:1"#]);
}

#[test]
fn a_series_whose_new_sample_is_no_good_ends() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: out, expr: in}]}]");
    world.script.give("in", 0, &[("job=a", 1.0)]);
    world.evaluate(&group, 0);
    world.store.refuse(&labels("__name__=out,job=a"), AppendError::InvalidLabels);
    world.evaluate(&group, 15);
    assert_eq!(health(&group, 0), (Health::Bad, Some("invalid labels".to_owned())));
    // The sample and the attempt to end the series.
    assert_eq!(world.metric("nilometer_rule_samples_refused_total"), 2.0);
}

#[test]
fn markers_are_refused_quietly_when_another_rule_yields_the_series() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: out, expr: a}, {record: out, expr: b}]}]");
    world.script.give("a", 0, &[]);
    world.script.give("a", 15, &[("job=a", 1.0)]);
    world.script.give("b", 0, &[("job=a", 1.0)]);
    world.script.give("b", 15, &[]);
    world.evaluate(&group, 0);
    world.evaluate(&group, 15);
    assert_eq!(world.store.lines("out"), [r#"{job="a"} 0:1 15:1"#]);
    assert_eq!(health(&group, 1), (Health::Good, None));
    assert_eq!(world.metric("nilometer_rule_samples_refused_total"), 0.0);
}

#[test]
fn a_failed_commit_is_a_failed_evaluation_and_nothing_counts_as_written() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: out, expr: in}, {alert: A, expr: in}]}]");
    world.script.give("in", 0, &[("job=a", 1.0)]);
    world.script.give("in", 30, &[("job=b", 1.0)]);
    world.script.give("in", 45, &[]);
    world.evaluate(&group, 0);
    world.store.fail_commits(true);
    world.evaluate(&group, 15);
    let text = "write the log: wal: no space left".to_owned();
    assert_eq!(health(&group, 0), (Health::Bad, Some(text.clone())));
    assert_eq!(health(&group, 1), (Health::Bad, Some(text)));
    assert_eq!(world.metric("prometheus_rule_evaluation_failures_total"), 2.0);
    // `job=b` comes while the disk is full: it is no known series, but its alert leaves.
    assert!(world.evaluate(&group, 30).contains(&r#"{alertname="A", job="b"} 30..270"#.to_owned()));
    world.store.fail_commits(false);
    world.evaluate(&group, 45);
    assert_eq!(health(&group, 0), (Health::Good, None));
    assert_eq!(world.store.lines("out"), [r#"{job="a"} 0:1 45:stale"#], "a ends late; b was never there");
}

#[test]
fn forgotten_references_are_looked_up_again() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: out, expr: in}]}]");
    world.script.give("in", 0, &[("job=a", 1.0)]);
    world.script.give("in", 30, &[]);
    world.evaluate(&group, 0);
    world.store.forget_references();
    world.evaluate(&group, 15);
    world.store.forget_references();
    world.evaluate(&group, 30);
    assert_eq!(health(&group, 0), (Health::Good, None));
    assert_eq!(world.store.lines("out"), [r#"{job="a"} 0:1 15:1 30:stale"#]);
}

#[test]
fn a_stopped_evaluation_ends_after_the_rule_at_work() {
    let world = World::new();
    let stop = CancellationToken::new();
    let yaml = "groups: [{name: g, rules: [{record: one, expr: a}, {record: two, expr: b}]}]";
    let group = world.group_stopped_by(yaml, true, stop.clone());
    world.script.give("a", 0, &[("", 1.0)]);
    world.script.give("b", 0, &[("", 1.0)]);
    world.store.during_commit(move || stop.cancel());
    world.evaluate(&group, 0);
    assert_eq!(world.store.lines("one"), ["{} 0:1"]);
    assert!(world.script.asked("b").is_empty());
    assert_eq!(health(&group, 1), (Health::Unknown, None));
}

#[test]
fn status_and_metrics_tell_of_the_evaluation() {
    let world = World::new();
    let group = world.group("groups: [{name: g, interval: 20s, limit: 7, rules: [{record: one, expr: ' a  +b', labels: {x: y}}]}]");
    assert_eq!(world.metric("prometheus_rule_group_interval_seconds"), 20.0);
    assert_eq!(world.metric("prometheus_rule_group_rules"), 1.0);
    assert_eq!(group.status().last_evaluation, None);
    world.clock.set(at(3));
    // Three seconds late: shown is when it was done, not which slot it was for.
    group.evaluate(at(0));
    let status = group.status();
    assert_eq!((status.name.as_str(), status.file.as_str(), status.limit), ("g", "rules.yml", 7));
    assert_eq!(status.last_evaluation, Some(at(3)));
    assert_eq!(status.rules[0].last_evaluation, Some(at(3)));
    assert_eq!(status.rules[0].query, "a + b");
    assert_eq!(status.rules[0].labels, labels("x=y"));
    assert_eq!(world.metric("prometheus_rule_group_last_evaluation_timestamp_seconds"), 1_000_000_003.0);
}
