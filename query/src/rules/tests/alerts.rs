//! Alerting rules: states, times, what is sent, what is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::{FloatHistogram, SampleValue};

use super::fakes::{URL, World, alerts, assert_status_is_ready, at, health, labels, rule};
use crate::rules::{AlertState, Health, RuleSample, RuleStatusKind};

fn state(world: &crate::rules::RuleGroup) -> AlertState {
    match rule(world, 0).kind {
        RuleStatusKind::Alerting { state, .. } => state,
        RuleStatusKind::Recording => panic!("a recording rule"),
    }
}

const DOWN: &str = "
groups:
- name: g
  rules:
  - alert: Down
    expr: down
    for: 30s
    labels: {severity: page}
    annotations: {summary: '{{ $labels.job }} is {{ $value }}'}
";

#[test]
fn pending_firing_resolved_at_their_times() {
    let world = World::new();
    let group = world.group(DOWN);
    assert_eq!(state(&group), AlertState::Unknown, "never evaluated");
    world.script.give("down", 15, &[("__name__=down,job=a", 1.0)]);
    world.script.give("down", 75, &[]);

    assert!(world.evaluate(&group, 0).is_empty());
    assert_eq!(state(&group), AlertState::Inactive);
    for seconds in [15, 30] {
        assert!(world.evaluate(&group, seconds).is_empty(), "pending alerts are not sent");
        assert_eq!(state(&group), AlertState::Pending);
    }
    // 30 s after the first sight; valid for four times the greater of interval (15 s) and resend delay (1 m).
    let firing = r#"{alertname="Down", job="a", severity="page"}"#;
    assert_eq!(world.evaluate(&group, 45), [format!("{firing} 45..285")]);
    assert_eq!(state(&group), AlertState::Firing);
    assert_eq!(alerts(&group, 0)[0].active_at, at(15));
    assert!(world.evaluate(&group, 60).is_empty());
    assert_eq!(world.evaluate(&group, 75), [format!("{firing} 45..75")], "resolved");
    assert_eq!(state(&group), AlertState::Inactive);
    assert!(alerts(&group, 0).is_empty());
    world.evaluate(&group, 90);

    assert_eq!(
        world.store.lines("ALERTS"),
        [
            r#"{alertname="Down", alertstate="firing", job="a", severity="page"} 45:1 60:1 75:stale"#,
            r#"{alertname="Down", alertstate="pending", job="a", severity="page"} 15:1 30:1 45:stale"#,
        ]
    );
    assert_eq!(
        world.store.lines("ALERTS_FOR_STATE"),
        [
            r#"{alertname="Down", job="a", severity="page"} 15:1000000015 30:1000000015 45:1000000015 60:1000000015 75:stale"#
        ]
    );
}

#[test]
fn messages_carry_annotations_and_a_link() {
    let world = World::new();
    let group = world.group(
        "groups: [{name: g, rules: [{alert: A, expr: 'a > 0', annotations: {text: 'v={{ $value }}'}}]}]",
    );
    world.script.give("a > 0", 0, &[("", 2.5)]);
    group.evaluate(at(0));
    let sent = world.sink.take();
    assert_eq!(sent.len(), 1, "without `for` it fires at once");
    assert_eq!(sent[0].labels, labels("alertname=A"));
    assert_eq!(sent[0].annotations, labels("text=v=2.5"));
    assert_eq!(sent[0].generator_url, format!("{URL}/graph?g0.expr=a+%3E+0&g0.tab=1"));
}

#[test]
fn pending_alerts_that_end_leave_no_trace() {
    let world = World::new();
    let group = world.group(DOWN);
    world.script.give("down", 0, &[("job=a", 1.0)]);
    world.script.give("down", 15, &[]);
    world.script.give("down", 30, &[("job=a", 1.0)]);
    for seconds in [0, 15, 30, 45] {
        assert!(world.evaluate(&group, seconds).is_empty(), "at {seconds}");
    }
    assert_eq!(alerts(&group, 0)[0].active_at, at(30), "`for` starts anew");
    assert_eq!(world.evaluate(&group, 60).len(), 1);
}

#[test]
fn keep_firing_for_holds_on_and_starts_anew_with_every_gap() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{alert: A, expr: a, keep_firing_for: 45s}]}]");
    world.script.give("a", 0, &[("job=a", 7.0)]);
    world.script.give("a", 15, &[]);
    world.script.give("a", 45, &[("job=a", 8.0)]);
    world.script.give("a", 60, &[]);
    world.evaluate(&group, 0);
    let since = |seconds| {
        world.evaluate(&group, seconds);
        alerts(&group, 0).first().map(|alert| (alert.state, alert.keep_firing_since, alert.value))
    };
    let firing = AlertState::Firing;
    assert_eq!(since(15), Some((firing, Some(at(15)), 7.0)), "with its last value");
    assert_eq!(since(30), Some((firing, Some(at(15)), 7.0)));
    assert_eq!(since(45), Some((firing, None, 8.0)), "it is back");
    assert_eq!(since(60), Some((firing, Some(at(60)), 8.0)));
    assert_eq!(since(90), Some((firing, Some(at(60)), 8.0)));
    world.sink.take();
    world.clock.set(at(105));
    assert_eq!(
        world.evaluate(&group, 105),
        [r#"{alertname="A", job="a"} 0..105"#],
        "45 s after the second gap began"
    );
    assert_eq!(
        world.store.lines("ALERTS"),
        [r#"{alertname="A", alertstate="firing", job="a"} 0:1 15:1 30:1 45:1 60:1 90:1 105:stale"#]
    );
}

#[test]
fn keep_firing_for_does_not_keep_pending() {
    let world = World::new();
    let group =
        world.group("groups: [{name: g, rules: [{alert: A, expr: a, for: 1m, keep_firing_for: 1h}]}]");
    world.script.give("a", 0, &[("", 1.0)]);
    world.script.give("a", 15, &[]);
    world.evaluate(&group, 0);
    world.evaluate(&group, 15);
    assert!(alerts(&group, 0).is_empty());
}

#[test]
fn values_and_annotations_change_in_place_but_labels_make_another_alert() {
    let world = World::new();
    let group = world.group(
        r#"
groups:
- name: g
  rules:
  - alert: A
    expr: a
    labels: {level: '{{ if gt $value 10.0 }}high{{ else }}low{{ end }}', empty: '{{ $labels.absent }}'}
    annotations: {text: 'now {{ $value }}'}
"#,
    );
    world.script.give("a", 0, &[("job=a", 1.0)]);
    world.script.give("a", 15, &[("job=a", 2.0)]);
    world.script.give("a", 30, &[("job=a", 11.0)]);
    let mut seen = Vec::new();
    let mut sent = Vec::new();
    for seconds in [0, 15, 30] {
        sent.extend(world.evaluate(&group, seconds));
        for alert in alerts(&group, 0) {
            seen.push(format!(
                "{seconds} {} {} {} {}",
                alert.labels,
                alert.annotations,
                alert.value,
                alert.active_at - at(0)
            ));
        }
    }
    assert_eq!(
        seen,
        [
            r#"0 {alertname="A", job="a", level="low"} {text="now 1"} 1 0"#,
            r#"15 {alertname="A", job="a", level="low"} {text="now 2"} 2 0"#,
            r#"30 {alertname="A", job="a", level="high"} {text="now 11"} 11 30000"#,
        ]
    );
    assert_eq!(
        sent,
        [
            r#"{alertname="A", job="a", level="low"} 0..240"#,
            r#"{alertname="A", job="a", level="high"} 30..270"#,
            r#"{alertname="A", job="a", level="low"} 0..30"#,
        ]
    );
}

#[test]
fn resent_after_more_than_a_minute_and_resolved_kept_for_a_quarter_of_an_hour() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{alert: A, expr: a}]}]");
    world.script.give("a", 0, &[("", 1.0)]);
    world.script.give("a", 180, &[]);
    let mut times = Vec::new();
    for seconds in (0..=1300).step_by(15) {
        for line in world.evaluate(&group, seconds) {
            times.push(format!("{seconds} {}", line.rsplit_once(' ').unwrap().1));
        }
    }
    // A minute to the second is not yet time, as in Prometheus.
    assert_eq!(times[..4], ["0 0..240", "75 0..315", "150 0..390", "180 0..180"]);
    let resolved = &times[4..];
    assert_eq!(resolved.first().unwrap(), "255 0..180");
    // Resolved at 180, kept for 900 s; sent every 75 s.
    assert_eq!(resolved.last().unwrap(), "1080 0..180");
    assert_eq!(resolved.len(), 12);
}

#[test]
fn an_alert_that_comes_back_is_a_new_one() {
    let world = World::new();
    let group = world.group(DOWN);
    world.script.give("down", 0, &[("job=a", 1.0)]);
    world.script.give("down", 45, &[]);
    world.script.give("down", 60, &[("job=a", 1.0)]);
    let sent: Vec<String> = (0..8)
        .flat_map(|step| world.evaluate(&group, step * 15))
        .map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
        .collect();
    assert_eq!(sent, ["30..270", "30..45", "90..330"]);
}

#[test]
fn a_failed_evaluation_changes_nothing() {
    let world = World::new();
    let group = world.group(DOWN);
    world.script.give("down", 0, &[("job=a", 1.0)]);
    world.script.set("down", 15, Err("query timed out".to_owned()));
    world.script.give("down", 30, &[("job=a", 1.0)]);
    world.evaluate(&group, 0);
    assert_eq!(health(&group, 0), (Health::Good, None));
    world.evaluate(&group, 15);
    assert_eq!(health(&group, 0), (Health::Bad, Some("query timed out".to_owned())));
    assert_eq!(alerts(&group, 0).len(), 1);
    assert_eq!(world.metric("prometheus_rule_evaluation_failures_total"), 1.0);
    assert_eq!(world.metric("prometheus_rule_evaluations_total"), 2.0);
    assert_eq!(world.evaluate(&group, 30).len(), 1, "the time counted on");
    assert_eq!(health(&group, 0), (Health::Good, None));
    assert_eq!(
        world.store.lines("ALERTS_FOR_STATE"),
        [r#"{alertname="Down", job="a", severity="page"} 0:1000000000 30:1000000000"#],
        "no staleness marker at 15"
    );
}

#[test]
fn failing_templates_show_their_error_and_the_alert_fires() {
    let world = World::new();
    let group = world.group(
        r#"
groups:
- name: g
  rules:
  - alert: A
    expr: a
    labels: {bad: '{{ query "wrong" }}'}
    annotations: {bad: '{{ query "wrong" | first | value }}', good: '{{ query "other" | first | value }}'}
"#,
    );
    world.script.give("a", 0, &[("", 1.0)]);
    world.script.give("other", 0, &[("", 42.0)]);
    world.script.set("wrong", 0, Err("no such thing".to_owned()));
    group.evaluate(at(0));
    let sent = world.sink.take();
    assert_eq!(sent.len(), 1);
    for text in [sent[0].labels.value("bad"), sent[0].annotations.value("bad")] {
        assert!(
            text.starts_with(
                "<error expanding template: error executing template __alert_A: template: __alert_A:1:"
            ),
            "{text}"
        );
        assert!(text.contains("no such thing"), "{text}");
    }
    assert_eq!(sent[0].annotations.value("good"), "42");
    assert_eq!(health(&group, 0), (Health::Good, None));
    assert_eq!(world.metric("prometheus_template_text_expansions_total"), 3.0);
    assert_eq!(world.metric("prometheus_template_text_expansion_failures_total"), 2.0);
}

#[test]
fn equal_labels_are_an_error() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{alert: A, expr: a, labels: {job: x}}]}]");
    world.script.give("a", 0, &[("job=a", 1.0), ("job=b", 2.0)]);
    assert!(world.evaluate(&group, 0).is_empty());
    let text = "vector contains metrics with the same labelset after applying alert labels";
    assert_eq!(health(&group, 0), (Health::Bad, Some(text.to_owned())));
    assert!(world.store.lines("ALERTS").is_empty());
}

#[test]
fn past_the_limit_all_alerts_of_the_rule_are_dropped() {
    let world = World::new();
    let group = world
        .group("groups: [{name: g, limit: 1, rules: [{alert: A, expr: a, for: 15s}, {alert: B, expr: b}]}]");
    world.script.give("a", 0, &[("job=a", 1.0)]);
    world.script.give("a", 30, &[("job=a", 1.0), ("job=b", 2.0)]);
    world.script.give("a", 45, &[("job=a", 1.0)]);
    world.script.give("b", 0, &[("", 1.0)]);
    world.evaluate(&group, 0);
    assert_eq!(world.evaluate(&group, 15).len(), 1);
    assert!(world.evaluate(&group, 30).is_empty(), "not even as resolved, as in Prometheus");
    assert_eq!(health(&group, 0), (Health::Bad, Some("exceeded limit of 1 with 2 alerts".to_owned())));
    assert!(alerts(&group, 0).is_empty());
    assert_eq!(alerts(&group, 1).len(), 1, "the limit is that of a rule");
    world.evaluate(&group, 45);
    assert_eq!((health(&group, 0).0, alerts(&group, 0)[0].active_at), (Health::Good, at(45)));
    assert_eq!(
        world.store.lines("ALERTS_FOR_STATE")[0],
        r#"{alertname="A", job="a"} 0:1000000000 15:1000000000 45:1000000045"#
    );
}

#[test]
fn external_labels_are_for_templates_only() {
    let mut world = World::new();
    world.external_labels = labels("region=eu");
    let group = world.group("groups: [{name: g, rules: [{alert: A, expr: a, annotations: {text: '{{ $externalLabels.region }} {{ $externalURL }}'}}]}]");
    world.script.give("a", 0, &[("", 1.0)]);
    group.evaluate(at(0));
    let sent = world.sink.take();
    assert_eq!(sent[0].labels, labels("alertname=A"), "whoever sends them out adds external labels");
    assert_eq!(sent[0].annotations.value("text"), format!("eu {URL}"));
}

#[test]
fn histograms_alert_with_value_zero() {
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{alert: A, expr: a}]}]");
    let histogram =
        SampleValue::FloatHistogram(Arc::new(FloatHistogram { count: 5.0, ..FloatHistogram::default() }));
    world.script.set("a", 0, Ok(vec![RuleSample { labels: labels("job=a"), value: histogram }]));
    assert_eq!(world.evaluate(&group, 0).len(), 1);
    assert_eq!(alerts(&group, 0)[0].value, 0.0);
}

#[test]
fn whoever_looks_at_alerts_waits_neither_for_templates_nor_for_storage() {
    let world = World::new();
    let group = world.group(
        r#"groups: [{name: g, rules: [{alert: A, expr: a, annotations: {text: '{{ query "slow" }}'}}]}]"#,
    );
    world.script.give("a", 0, &[("", 1.0)]);
    let looks = Arc::new(AtomicUsize::new(0));
    let look = {
        let (group, looks) = (Arc::downgrade(&group), Arc::clone(&looks));
        move || {
            assert_status_is_ready(&group.upgrade().unwrap());
            looks.fetch_add(1, Ordering::SeqCst);
        }
    };
    world.script.during_text(look.clone());
    world.store.during_commit(look);
    world.evaluate(&group, 0);
    assert_eq!(looks.load(Ordering::SeqCst), 2);
    // The template's query is its rule's.
    let asked = world.script.asked_by();
    assert_eq!((asked.len(), &*asked[0].group, &*asked[0].rule), (1, "g", "A"));
}
