//! The manager: schedules, reloads and shutdown, in paused time.

use std::sync::Arc;
use std::time::Duration;

use model::Labels;
use tokio::time::{advance, sleep, timeout};

use super::fakes::{World, configs, labels, metric};
use crate::rules::schedule::slot;
use crate::rules::{AlertState, RuleManager, RuleStatusKind};

const TEN: &str = "groups: [{name: g, interval: 10s, rules: [{record: out, expr: in}]}]";

/// Milliseconds after [`super::fakes::T0`] of the first slot of the group with this key.
fn first_slot(key: &str, interval_ms: i64) -> i64 {
    slot(key, interval_ms, super::fakes::T0) + interval_ms - super::fakes::T0
}

/// `first`, and so on every `step` milliseconds, as [`super::fakes::Script::asked`] tells it.
fn times(first: i64, step: i64, count: i64) -> Vec<String> {
    (0..count).map(|n| (first + n * step) as f64 / 1000.0).map(|seconds| seconds.to_string()).collect()
}

async fn apply(manager: &RuleManager, yaml: &str) {
    manager.apply(configs(yaml), Labels::empty()).await;
}

fn names(manager: &RuleManager) -> Vec<String> {
    manager.groups().into_iter().map(|group| group.name).collect()
}

/// State and start of the only alert of the first rule.
fn alert(manager: &RuleManager) -> Option<(AlertState, i64)> {
    match manager.groups().remove(0).rules.remove(0).kind {
        RuleStatusKind::Alerting { alerts, .. } => alerts.first().map(|alert| (alert.state, alert.active_at)),
        RuleStatusKind::Recording => panic!("a recording rule"),
    }
}

#[tokio::test(start_paused = true)]
async fn groups_run_at_their_slots() {
    let world = World::new();
    world.script.give("in", 0, &[("", 1.0)]);
    let (manager, registry) = world.manager();
    apply(&manager, TEN).await;
    sleep(Duration::from_secs(50)).await;
    let first = first_slot("rules.yml;g", 10_000);
    assert_eq!(world.script.asked("in"), times(first, 10_000, 5));
    assert_eq!(metric(&registry, "prometheus_rule_group_iterations_total"), 5.0);
    assert_eq!(metric(&registry, "prometheus_rule_group_iterations_missed_total"), 0.0);
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn slow_groups_miss_slots_and_do_not_catch_up() {
    let world = World::new();
    let (manager, registry) = world.manager();
    let gate = world.script.gate("in");
    apply(&manager, TEN).await;
    gate.entered().await;
    advance(Duration::from_secs(35)).await;
    gate.open();
    sleep(Duration::from_secs(10)).await;
    let first = first_slot("rules.yml;g", 10_000);
    // Slots 10 and 20 s later are missed, that of 30 s is late, that of 40 s is in time.
    assert_eq!(world.script.asked("in"), [times(first, 0, 1), times(first + 30_000, 10_000, 2)].concat());
    assert_eq!(metric(&registry, "prometheus_rule_group_iterations_missed_total"), 2.0);
    assert_eq!(metric(&registry, "prometheus_rule_group_iterations_total"), 5.0);
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn unchanged_groups_run_on_and_others_are_exchanged() {
    let world = World::new();
    world.script.give("in", 0, &[("", 1.0)]);
    let two = |expr: &str| {
        format!(
            "
groups:
- {{name: same, interval: 10s, rules: [{{alert: A, expr: in, for: 1h}}]}}
- {{name: other, interval: 10s, rules: [{{alert: B, expr: {expr}, for: 1h}}]}}
"
        )
    };
    let (manager, registry) = world.manager();
    apply(&manager, &two("in > 0")).await;
    sleep(Duration::from_secs(30)).await;
    let before = manager.groups();
    apply(&manager, &two("in > 1")).await;
    let after = manager.groups();
    assert_eq!(names(&manager), ["same", "other"]);
    assert_eq!(after[0], before[0], "nothing of it changed");
    assert_eq!(after[1].rules[0].query, "in > 1");
    assert_eq!(after[1].rules[0].last_evaluation, None);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.script.asked("in"), times(first_slot("rules.yml;same", 10_000), 10_000, 6));
    let first = first_slot("rules.yml;other", 10_000);
    assert_eq!(world.script.asked("in > 0"), times(first, 10_000, 3));
    assert_eq!(world.script.asked("in > 1"), times(first + 30_000, 10_000, 3), "in the same slots");
    assert_eq!(metric(&registry, "prometheus_rule_group_rules"), 2.0);
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn series_of_removed_groups_end_later_at_the_time_of_the_reload() {
    let world = World::new();
    world.script.give("in", 0, &[("", 1.0)]);
    let (manager, registry) = world.manager();
    apply(&manager, TEN).await;
    sleep(Duration::from_millis(19_500)).await;
    apply(&manager, "groups: []").await;
    assert!(manager.groups().is_empty());
    assert_eq!(metric(&registry, "prometheus_rule_group_interval_seconds"), 0.0, "its series are gone");
    sleep(Duration::from_millis(19_900)).await;
    assert!(!world.store.lines("out")[0].ends_with("stale"), "not before two intervals");
    sleep(Duration::from_millis(200)).await;
    assert!(world.store.lines("out")[0].ends_with(" 19.5:stale"), "{:?}", world.store.lines("out"));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.script.asked("in").len(), 1 + usize::from(first_slot("rules.yml;g", 10_000) <= 9_500));
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn series_of_a_renamed_group_go_on() {
    let world = World::new();
    world.script.give("in", 0, &[("", 1.0)]);
    let (manager, _) = world.manager();
    apply(&manager, TEN).await;
    sleep(Duration::from_secs(15)).await;
    apply(&manager, &TEN.replace("name: g", "name: renamed")).await;
    sleep(Duration::from_secs(60)).await;
    let lines = world.store.lines("out");
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].contains("stale"), "{}", lines[0]);
    assert!(world.script.asked("in").len() > 6, "it ran");
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_no_series() {
    let world = World::new();
    world.script.give("in", 0, &[("", 1.0)]);
    let (manager, _) = world.manager();
    apply(&manager, TEN).await;
    sleep(Duration::from_secs(15)).await;
    // One group is waiting to end its series, the other runs.
    apply(&manager, &TEN.replace("out", "other").replace("name: g", "name: h")).await;
    sleep(Duration::from_secs(11)).await;
    manager.stop().await;
    sleep(Duration::from_secs(100)).await;
    for metric in ["out", "other"] {
        let lines = world.store.lines(metric);
        assert!(lines.len() == 1 && !lines[0].contains("stale"), "{lines:?}");
    }
    apply(&manager, TEN).await;
    let asked = world.script.asked("in").len();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(world.script.asked("in").len(), asked, "a stopped manager starts nothing");
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_rule_at_work_and_no_longer() {
    let world = World::new();
    world.script.give("in", 0, &[("", 1.0)]);
    let (manager, _) = world.manager();
    let gate = world.script.gate("in");
    apply(&manager, &TEN.replace("}]}]", "}, {record: next, expr: after}]}]")).await;
    gate.entered().await;
    let manager = Arc::new(manager);
    let mut stopping = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.stop().await }
    });
    // Let it get to where it waits. (Time does not pass by itself while an evaluation is under way.)
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished());
    assert_eq!(manager.groups().len(), 1, "still shown");
    gate.open();
    timeout(Duration::from_secs(5), &mut stopping).await.unwrap().unwrap();
    assert_eq!(world.store.lines("out").len(), 1, "the rule at work was finished");
    assert!(world.script.asked("after").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reload_shows_the_old_groups_until_it_is_done_and_is_done_even_if_nobody_waits() {
    let world = World::new();
    world.script.give("in", 0, &[("", 1.0)]);
    let (manager, _) = world.manager();
    let gate = world.script.gate("in");
    apply(&manager, TEN).await;
    gate.entered().await;
    let changed = "
groups:
- {name: g, interval: 10s, rules: [{record: out, expr: in + 1}]}
- {name: new, interval: 10s, rules: [{record: out, expr: other}]}
";
    {
        let reload = apply(&manager, changed);
        tokio::pin!(reload);
        for _ in 0..10 {
            tokio::select! {
                biased;
                () = &mut reload => panic!("the old group is still at work"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(names(&manager), ["g"]);
        // Whoever asked goes away.
    }
    gate.open();
    for _ in 0..100 {
        if names(&manager).len() == 2 {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(names(&manager), ["g", "new"]);
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn new_external_labels_reach_groups_which_keep_their_state() {
    let world = World::new();
    world.script.give("in", 0, &[("", 1.0)]);
    let yaml = "groups: [{name: g, interval: 10s, rules: [{alert: A, expr: in, annotations: {text: '{{ $externalLabels.region }}'}}]}]";
    let (manager, _) = world.manager();
    manager.apply(configs(yaml), labels("region=eu")).await;
    sleep(Duration::from_secs(10)).await;
    let before = alert(&manager).unwrap();
    manager.apply(configs(yaml), labels("region=us")).await;
    sleep(Duration::from_secs(70)).await;
    assert_eq!(alert(&manager), Some(before));
    let regions: Vec<_> = world
        .sink
        .take()
        .iter()
        .map(|alert| alert.annotations.value("region").len().to_string() + alert.annotations.value("text"))
        .collect();
    assert_eq!(regions, ["0eu", "0us"], "sent once and once more after a minute");
    manager.stop().await;
}

const HELD: &str = "groups: [{name: g, interval: 10s, rules: [{alert: A, expr: in, for: 20m}]}]";

/// Runs an alert for five minutes and kills the process half an hour ago; then the restart.
async fn restart() -> (World, RuleManager) {
    let world = World::new();
    let series = labels("__name__=ALERTS_FOR_STATE,alertname=A");
    let begun = -35 * 60;
    world.store.put(&series, begun, (super::fakes::T0 / 1000 + begun) as f64);
    world.store.put(&series, begun + 300, (super::fakes::T0 / 1000 + begun) as f64);
    world.script.give("in", -3600, &[("", 1.0)]);
    let (manager, _) = world.manager();
    apply(&manager, HELD).await;
    (world, manager)
}

/// Milliseconds for which the only alert has been pending.
fn pending_for(manager: &RuleManager, now: i64) -> i64 {
    let (state, since) = alert(manager).unwrap();
    assert_eq!(state, AlertState::Pending);
    super::fakes::T0 + now - since
}

#[tokio::test(start_paused = true)]
async fn pending_times_are_restored_after_the_second_evaluation() {
    let (_world, manager) = restart().await;
    let first = first_slot("rules.yml;g", 10_000);
    sleep(Duration::from_millis(first.unsigned_abs() + 5_000)).await;
    assert_eq!(pending_for(&manager, first), 0, "one evaluation");
    sleep(Duration::from_secs(10)).await;
    let restored = pending_for(&manager, first + 10_000);
    assert!((300_000 - 5..=300_000).contains(&restored), "five minutes before the kill: {restored}");
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_before_restoration_does_not_prevent_it() {
    let (world, manager) = restart().await;
    let first = first_slot("rules.yml;g", 10_000);
    sleep(Duration::from_millis(first.unsigned_abs() + 5_000)).await;
    apply(&manager, &HELD.replace("}]}]", "}, {alert: B, expr: in}]}]")).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.store.lines("ALERTS_FOR_STATE").len(), 2, "the new rule has nothing to wait for");
    sleep(Duration::from_secs(20)).await;
    let restored = pending_for(&manager, first + 30_000);
    assert!((310_000 - 5..=310_000).contains(&restored), "{restored}");
    let lines = world.store.lines("ALERTS_FOR_STATE");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(r#"{alertname="A"} -2100:"#) && line.split(' ').count() == 4),
        "{lines:?}"
    );
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn groups_of_later_configurations_have_nothing_to_restore() {
    let world = World::new();
    world.script.give("in", -3600, &[("", 1.0)]);
    let (manager, _) = world.manager();
    apply(&manager, "groups: []").await;
    world.store.put(&labels("__name__=ALERTS_FOR_STATE,alertname=A"), -60, 999_990_000.0);
    apply(&manager, HELD).await;
    sleep(Duration::from_secs(25)).await;
    let (_, since) = alert(&manager).unwrap();
    assert_eq!(since, super::fakes::T0 + first_slot("rules.yml;g", 10_000));
    let line = world.store.lines("ALERTS_FOR_STATE").remove(0);
    assert_eq!(line.split(' ').count(), 1 + 1 + 2, "written from the first evaluation on: {line}");
    manager.stop().await;
}
