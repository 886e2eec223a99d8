//! Pending times over a restart.

use std::sync::Arc;

use super::fakes::{RESTORE, World, alerts, at};
use crate::rules::RuleGroup;
use crate::rules::restore::restore;

/// An alert that must hold for 20 minutes, evaluated every minute.
const SLOW: &str = "
groups:
- name: g
  interval: 1m
  rules:
  - alert: Slow
    expr: slow
    for: 20m
    labels: {queue: '{{ $labels.job }}'}
";

const MINUTE: i64 = 60;

/// Evaluates every minute from `from` to `to`, both included; when an alert was first sent, in minutes.
fn run(world: &World, group: &RuleGroup, from: i64, to: i64) -> Option<i64> {
    let mut sent_at = None;
    for minute in from..=to {
        if !world.evaluate(group, minute * MINUTE).is_empty() {
            sent_at = sent_at.or(Some(minute));
        }
    }
    sent_at
}

/// Evaluates `yaml` with an alert since minute 0 up to minute `down`, when the process is killed; starts again at minute
/// `up`, restores after the second evaluation, and goes on for an hour.
fn over_restart(yaml: &str, down: i64, up: i64) -> (World, Arc<RuleGroup>, Option<i64>) {
    let before = World::new();
    before.script.give("slow", -600, &[("job=a", 1.0)]);
    run(&before, &before.group(yaml), 0, down);
    let (world, group) = restarted(&before, yaml);
    let sent_at = run(&world, &group, up, up + 1);
    restore(&group, RESTORE, at((up + 1) * MINUTE));
    let sent_at = sent_at.or_else(|| run(&world, &group, up + 2, up + 61));
    (world, group, sent_at)
}

fn restarted(before: &World, yaml: &str) -> (World, Arc<RuleGroup>) {
    let world = World::on(before.store.clone());
    world.script.give("slow", -600, &[("job=a", 1.0)]);
    let group = world.unrestored(yaml);
    (world, group)
}

#[test]
fn time_down_does_not_count() {
    // Pending for 5 minutes; restored at minute 41: 15 minutes more.
    assert_eq!(over_restart(SLOW, 5, 40).2, Some(41 + 15));
}

#[test]
fn the_grace_period_remains() {
    // Pending for 17 minutes; restored at minute 19: not three but ten minutes more.
    assert_eq!(over_restart(SLOW, 17, 18).2, Some(19 + 10));
}

#[test]
fn what_was_firing_fires_again_at_the_next_evaluation() {
    let (world, group, sent_at) = over_restart(SLOW, 25, 40);
    assert_eq!(sent_at, Some(42));
    assert_eq!(alerts(&group, 0)[0].active_at, at(0), "since when it is wrong");
    let lines = world.store.lines("ALERTS");
    let firing = lines.iter().find(|line| line.contains(r#"alertstate="firing""#)).unwrap();
    assert!(
        firing.contains(" 1500:1 2520:1 "),
        "nothing was written between the kill and the restoration: {firing}"
    );
}

#[test]
fn longer_outages_than_tolerated_start_anew() {
    // Active again at 80, restored at 81.
    assert_eq!(over_restart(SLOW, 5, 80).2, Some(80 + 20));
    // The last sample, at 25, is just within the hour before 85.
    assert_eq!(over_restart(SLOW, 25, 84).2, Some(86));
    assert_eq!(over_restart(SLOW, 25, 85).2, Some(85 + 20));
}

#[test]
fn short_holds_are_not_restored() {
    let yaml = SLOW.replace("20m", "9m");
    assert_eq!(over_restart(&yaml, 8, 12).2, Some(12 + 9));
    let yaml = SLOW.replace("20m", "10m");
    assert_eq!(over_restart(&yaml, 15, 20).2, Some(22), "as long as the grace period is long enough");
}

#[test]
fn what_ended_before_the_restart_is_not_restored() {
    let before = World::new();
    before.script.give("slow", 0, &[("job=a", 1.0)]);
    before.script.give("slow", 5 * MINUTE, &[]);
    run(&before, &before.group(SLOW), 0, 6);
    let (world, group) = restarted(&before, SLOW);
    run(&world, &group, 10, 11);
    restore(&group, RESTORE, at(11 * MINUTE));
    assert_eq!(run(&world, &group, 12, 60), Some(10 + 20));
}

#[test]
fn nothing_is_written_before_restoration() {
    let before = World::new();
    before.script.give("slow", 0, &[("job=a", 1.0)]);
    run(&before, &before.group(SLOW), 0, 2);
    let lines = before.store.lines("ALERTS_FOR_STATE");
    let (world, group) = restarted(&before, SLOW);
    run(&world, &group, 10, 11);
    assert_eq!(world.store.lines("ALERTS_FOR_STATE"), lines);
    restore(&group, RESTORE, at(11 * MINUTE));
    run(&world, &group, 12, 12);
    // Two minutes before the kill, one since: active since 9 minutes after the first time.
    assert_eq!(
        world.store.lines("ALERTS_FOR_STATE"),
        [
            r#"{alertname="Slow", job="a", queue="a"} 0:1000000000 60:1000000000 120:1000000000 720:1000000540"#
        ]
    );
}

#[test]
fn offsets_do_not_shorten_the_pending_time() {
    // Samples lie five minutes before the evaluations they are of.
    let yaml = SLOW.replace("interval: 1m", "interval: 1m\n  query_offset: 5m");
    assert_eq!(over_restart(&yaml, 5, 40).2, Some(41 + 15));
    assert_eq!(over_restart(&yaml, 22, 40).2, Some(42), "it was firing");
}

#[test]
fn unreadable_storage_starts_anew_and_goes_on() {
    let before = World::new();
    before.script.give("slow", 0, &[("job=a", 1.0)]);
    run(&before, &before.group(SLOW), 0, 25);
    let (world, group) = restarted(&before, SLOW);
    run(&world, &group, 30, 31);
    world.store.fail_reads(true);
    restore(&group, RESTORE, at(31 * MINUTE));
    world.store.fail_reads(false);
    assert_eq!(run(&world, &group, 32, 60), Some(30 + 20));
    assert!(
        world.store.lines("ALERTS_FOR_STATE")[0].contains(" 1920:1000001800 "),
        "written from the next evaluation on"
    );
}

#[test]
fn alerts_are_told_apart_by_all_their_labels() {
    let before = World::new();
    before.script.give("slow", 0, &[("job=a", 1.0)]);
    run(&before, &before.group(SLOW), 0, 25);
    let (world, group) = restarted(&before, SLOW);
    world.script.give("slow", 0, &[("job=a", 1.0), ("job=b", 1.0)]);
    run(&world, &group, 30, 31);
    restore(&group, RESTORE, at(31 * MINUTE));
    assert_eq!(run(&world, &group, 32, 33), Some(32));
    let since: Vec<_> = alerts(&group, 0)
        .into_iter()
        .map(|alert| (alert.labels.value("job").to_owned(), alert.active_at))
        .collect();
    assert_eq!(since, [("a".to_owned(), at(0)), ("b".to_owned(), at(30 * MINUTE))]);
}

/// Groups that a reload changed go through restoration too; it must not touch alerts of this very process.
#[test]
fn what_was_restored_once_stays_as_it_is() {
    let world = World::new();
    world.script.give("slow", 0, &[("job=a", 1.0)]);
    let group = world.group(SLOW);
    assert_eq!(run(&world, &group, 0, 17), None);
    restore(&group, RESTORE, at(17 * MINUTE));
    assert_eq!(run(&world, &group, 18, 40), Some(20), "no grace period");
}
