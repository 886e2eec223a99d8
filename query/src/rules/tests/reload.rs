//! What a group takes over from its predecessor.

use super::fakes::{World, alerts, at, labels};
use crate::rules::AlertState;

#[test]
fn equal_names_and_labels_keep_their_state() {
    let world = World::new();
    let old = world.group(
        "
groups:
- name: g
  rules:
  - {alert: A, expr: a, for: 1m}
  - {alert: A, expr: a, for: 1m, labels: {severity: page}}
  - {record: out, expr: a}
",
    );
    world.script.give("a", 0, &[("job=a", 1.0)]);
    for seconds in [0, 15, 30, 45, 60] {
        world.evaluate(&old, seconds);
    }
    // Other order, other expression, other `for`; the second alert has other labels.
    let new = world.group(
        "
groups:
- name: g
  rules:
  - {record: out, expr: a > 0}
  - {alert: A, expr: a, for: 1m, labels: {severity: info}}
  - {alert: A, expr: a > 0, for: 5m}
",
    );
    new.take_state(&old);
    assert_eq!(new.status().last_evaluation, Some(at(60)));
    assert_eq!(alerts(&new, 2)[0].state, AlertState::Firing, "also before the first evaluation");
    assert!(alerts(&new, 1).is_empty());

    world.script.give("a > 0", 75, &[("job=a", 2.0)]);
    assert!(world.evaluate(&new, 75).is_empty(), "sent 15 s ago, so not again");
    assert_eq!((alerts(&new, 2)[0].state, alerts(&new, 2)[0].active_at), (AlertState::Firing, at(0)));
    assert_eq!(alerts(&new, 1)[0].active_at, at(75));
    assert_eq!(world.store.lines("out"), [r#"{job="a"} 0:1 15:1 30:1 45:1 60:1 75:2"#], "without a gap");
    let lines = world.store.lines("ALERTS_FOR_STATE");
    assert!(lines[0].contains("info") && lines[0].ends_with("} 75:1000000075"), "new: {}", lines[0]);
    assert!(
        lines[1].contains("page") && lines[1].ends_with(" 60:1000000000 75:stale"),
        "removed: {}",
        lines[1]
    );
    assert!(lines[2].ends_with(" 60:1000000000 75:1000000000"), "kept: {}", lines[2]);
}

#[test]
fn series_of_removed_rules_end_with_the_next_evaluation_unless_another_rule_yields_them() {
    let world = World::new();
    let old = world.group(
        "groups: [{name: g, rules: [{record: one, expr: a}, {record: two, expr: b, labels: {x: y}}]}]",
    );
    world.script.give("a", 0, &[("job=a", 1.0)]);
    world.script.give("b", 0, &[("job=b", 1.0)]);
    world.evaluate(&old, 0);
    let new = world.group("groups: [{name: g, rules: [{record: two, expr: c}]}]");
    new.take_state(&old);
    world.script.give("c", 0, &[("job=b,x=y", 2.0)]);
    world.evaluate(&new, 15);
    world.evaluate(&new, 30);
    assert_eq!(world.store.lines("one"), [r#"{job="a"} 0:1 15:stale"#], "once");
    assert_eq!(world.store.lines("two"), [r#"{job="b", x="y"} 0:1 15:2 30:2"#]);
    assert_eq!(world.metric("nilometer_rule_samples_refused_total"), 0.0);
}

#[test]
fn series_of_removed_rules_end_in_the_time_of_samples() {
    let world = World::new();
    let old = world.group("groups: [{name: g, query_offset: 1m, rules: [{record: one, expr: a}]}]");
    world.script.give("a", -60, &[("job=a", 1.0)]);
    world.evaluate(&old, 0);
    let new = world.group("groups: [{name: g, query_offset: 1m, rules: []}]");
    new.take_state(&old);
    world.evaluate(&new, 15);
    assert_eq!(world.store.lines("one"), [r#"{job="a"} -60:1 -45:stale"#]);
}

#[test]
fn ends_that_could_not_be_written_are_tried_again_and_survive_another_reload() {
    let world = World::new();
    let first = world.group("groups: [{name: g, rules: [{record: one, expr: a}]}]");
    world.script.give("a", 0, &[("job=a", 1.0)]);
    world.evaluate(&first, 0);
    let second = world.group("groups: [{name: g, rules: []}]");
    second.take_state(&first);
    world.store.fail_commits(true);
    world.evaluate(&second, 15);
    world.store.fail_commits(false);
    let third = world.group("groups: [{name: g, rules: [{record: two, expr: b}]}]");
    third.take_state(&second);
    world.evaluate(&third, 30);
    assert_eq!(world.store.lines("one"), [r#"{job="a"} 0:1 30:stale"#]);
}

#[test]
fn rules_that_say_the_same_twice_are_matched_in_order() {
    let world = World::new();
    let yaml = "groups: [{name: g, rules: [{alert: A, expr: a, for: 1m}, {alert: A, expr: b, for: 1m}]}]";
    let old = world.group(yaml);
    world.script.give("a", 0, &[("job=a", 1.0)]);
    world.script.give("b", 0, &[("job=b", 1.0)]);
    world.evaluate(&old, 0);
    let new = world.group(&yaml.replace("}]}]", "}, {alert: A, expr: c}]}]"));
    new.take_state(&old);
    let found = |index| alerts(&new, index).into_iter().map(|alert| alert.labels).collect::<Vec<_>>();
    assert_eq!(found(0), [labels("alertname=A,job=a")]);
    assert_eq!(found(1), [labels("alertname=A,job=b")]);
    assert!(found(2).is_empty());
}

#[test]
fn a_recording_rule_takes_nothing_from_an_alert_of_its_name() {
    let world = World::new();
    let old = world.group("groups: [{name: g, rules: [{alert: same, expr: a}]}]");
    world.script.give("a", 0, &[("job=a", 1.0)]);
    world.evaluate(&old, 0);
    let new = world.group("groups: [{name: g, rules: [{record: same, expr: a}]}]");
    new.take_state(&old);
    world.evaluate(&new, 15);
    assert_eq!(
        world.store.lines("ALERTS"),
        [r#"{alertname="same", alertstate="firing", job="a"} 0:1 15:stale"#]
    );
    assert_eq!(world.store.lines("same"), [r#"{job="a"} 15:1"#]);
}
