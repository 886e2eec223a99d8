//! Scenarios on a clock that stands still: what is sent to whom and when. Expected behaviour is that of the real
//! Alertmanager (each scenario was derived from an observation of it), except where a test says otherwise.

mod common;

use std::time::Duration;

use alertmanager::api::{AlertFilter, SilenceFilter};
use alertmanager::{AlertLimits, Options, SilenceError, SilenceLimits};
use common::{Answer, World};

/// Receivers `r`, `s`, `t` with the sinks `a`, `b`, `c`; flushes at 1, 3, 5, … seconds.
fn yaml(route: &str, more: &str) -> String {
    format!(
        "route: {{receiver: r, group_by: [alertname], group_wait: 1s, group_interval: 2s, repeat_interval: 1h{route}}}\n\
         receivers:\n\
         - {{name: r, webhook_configs: [{{url: 'http://sink.example/a'}}]}}\n\
         - {{name: s, webhook_configs: [{{url: 'http://sink.example/b'}}]}}\n\
         - {{name: t, webhook_configs: [{{url: 'http://sink.example/c'}}]}}\n\
         {more}"
    )
}

// ---- grouping and timers ----

#[tokio::test(start_paused = true)]
async fn group_wait_collects_and_is_not_prolonged() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A{i=1}"]);
    world.at(0.6).await;
    world.post(&["A{i=2}", "B{i=1}"]);
    world.at(10.0).await;
    let sent = world.sent();
    assert_eq!(
        sent,
        ["1.0 a firing A{i=1} A{i=2} (first notification)", "1.6 a firing B{i=1} (first notification)",]
    );
}

#[tokio::test(start_paused = true)]
async fn new_alerts_wait_for_the_group_interval() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A{i=1}"]);
    world.at(1.5).await;
    world.post(&["A{i=2}"]);
    world.at(10.0).await;
    assert_eq!(
        world.sent(),
        ["1.0 a firing A{i=1} (first notification)", "3.0 a firing A{i=1} A{i=2} (new alerts added)",]
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_opened_by_an_old_alert_flushes_at_once() {
    let world = World::new(&yaml("", "").replace("group_wait: 1s", "group_wait: 4s")).await;
    world.post(&["A{i=1} starts=-60", "B starts=-2", "C"]);
    world.at(0.5).await;
    assert_eq!(world.sent(), ["0.0 a firing A{i=1} (first notification)"]);
    // An old alert that joins a group does not hurry it.
    world.post(&["C{i=2} starts=-60"]);
    world.at(4.5).await;
    assert_eq!(
        world.sent(),
        ["4.0 a firing B (first notification)", "4.0 a firing C C{i=2} (first notification)",]
            .map(str::to_owned)
    );
}

#[tokio::test(start_paused = true)]
async fn of_one_batch_the_oldest_alert_opens_the_group() {
    let world = World::new(&yaml("", "").replace("group_wait: 1s", "group_wait: 4s")).await;
    world.post(&["A{i=1}", "A{i=2} starts=-60"]);
    world.at(0.1).await;
    assert_eq!(world.sent(), ["0.0 a firing A{i=1} A{i=2} (first notification)"]);
}

#[tokio::test(start_paused = true)]
async fn no_group_by_is_one_group_and_dots_are_one_for_each_label_set() {
    let world = World::new(&yaml("", "").replace("group_by: [alertname], ", "")).await;
    world.post(&["A{i=1}", "B{i=2}"]);
    world.at(1.5).await;
    assert_eq!(world.sent(), ["1.0 a firing A{i=1} B{i=2} (first notification)"]);
    let world = World::new(&yaml("", "").replace("[alertname]", "['...']")).await;
    world.post(&["A{i=1}", "A{i=2}"]);
    world.at(1.5).await;
    let mut sent: Vec<String> = world.sent().iter().map(|line| line[4..].to_owned()).collect();
    sent.sort();
    assert_eq!(sent, ["a firing A{i=1} (first notification)", "a firing A{i=2} (first notification)"]);
}

#[tokio::test(start_paused = true)]
async fn unchanged_groups_repeat_at_the_first_flush_after_the_interval() {
    let world = World::new(&yaml("", "").replace("repeat_interval: 1h", "repeat_interval: 5s")).await;
    world.post(&["A"]);
    world.at(16.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A (first notification)",
            // 5 s after the first would be 6 s: the flush after that is the one at 7 s.
            "7.0 a firing A (repeat interval elapsed)",
            "13.0 a firing A (repeat interval elapsed)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_repeat_interval_below_the_group_interval_repeats_at_each_flush() {
    let yaml = yaml("", "").replace("repeat_interval: 1h", "repeat_interval: 1s");
    let world = World::new(&yaml).await;
    world.post(&["A"]);
    world.at(6.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A (first notification)",
            "3.0 a firing A (repeat interval elapsed)",
            "5.0 a firing A (repeat interval elapsed)",
        ]
    );
}

// ---- resolved ----

#[tokio::test(start_paused = true)]
async fn resolved_alerts_are_sent_once_and_end_the_group() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A"]);
    world.at(1.5).await;
    world.resolve(&["A"]);
    world.at(3.5).await;
    assert_eq!(
        world.sent(),
        ["1.0 a firing A (first notification)", "3.0 a resolved -A (all alerts resolved)"]
    );
    assert_eq!(world.metric("alertmanager_dispatcher_aggregation_groups", &[]), 0.0);
    // A new firing opens a new group that waits again.
    world.at(4.0).await;
    world.post(&["A"]);
    world.at(9.0).await;
    assert_eq!(world.sent(), ["5.0 a firing A (first notification)"]);
}

#[tokio::test(start_paused = true)]
async fn partly_resolved_groups_stay_firing() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A{i=1}", "A{i=2}", "A{i=3}"]);
    world.at(2.0).await;
    world.resolve(&["A{i=2}"]);
    world.at(6.0).await;
    world.resolve(&["A{i=1}"]);
    world.at(8.0).await;
    world.resolve(&["A{i=3}"]);
    world.at(16.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A{i=1} A{i=2} A{i=3} (first notification)",
            "3.0 a firing A{i=1} -A{i=2} A{i=3} (some alerts resolved)",
            "7.0 a firing -A{i=1} A{i=3} (some alerts resolved)",
            "9.0 a resolved -A{i=3} (all alerts resolved)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn without_send_resolved_the_log_still_advances() {
    let world = World::new(&yaml("", "").replace("/a'", "/a', send_resolved: false")).await;
    world.post(&["A{i=1}", "A{i=2}"]);
    world.at(2.0).await;
    world.resolve(&["A{i=1}"]);
    world.at(6.0).await;
    world.resolve(&["A{i=2}"]);
    world.at(10.0).await;
    world.post(&["A{i=1}"]);
    world.at(15.0).await;
    assert_eq!(
        world.sent(),
        ["1.0 a firing A{i=1} A{i=2} (first notification)", "11.0 a firing A{i=1} (first notification)",]
    );
}

#[tokio::test(start_paused = true)]
async fn without_send_resolved_new_alerts_come_without_the_resolved_ones() {
    let world = World::new(&yaml("", "").replace("/a'", "/a', send_resolved: false")).await;
    world.post(&["A{i=1}", "A{i=2}"]);
    world.at(2.0).await;
    world.resolve(&["A{i=1}"]);
    world.post(&["A{i=3}"]);
    world.at(5.0).await;
    assert_eq!(world.sent()[1..], ["3.0 a firing A{i=2} A{i=3} (new alerts added)"]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_without_an_end_resolves_after_the_timeout() {
    let world = World::new(&yaml("", "global: {resolve_timeout: 4s}\n")).await;
    world.post(&["A{i=1}", "B ends=120"]);
    world.at(2.0).await;
    world.post(&["A{i=1}"]);
    world.at(9.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A{i=1} (first notification)",
            "1.0 a firing B (first notification)",
            // Heard of at 2 s for the last time; the flush after 6 s is the one at 7 s.
            "7.0 a resolved -A{i=1} (all alerts resolved)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_future_resolves_by_itself() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A{i=1} ends=4", "A{i=2} ends=60"]);
    world.at(8.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A{i=1} A{i=2} (first notification)",
            "5.0 a firing -A{i=1} A{i=2} (some alerts resolved)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_fires_and_resolves_within_group_wait_is_never_mentioned() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A"]);
    world.at(0.5).await;
    world.resolve(&["A"]);
    world.at(5.0).await;
    assert_eq!(world.sent(), Vec::<String>::new());
    assert_eq!(world.metric("alertmanager_dispatcher_aggregation_groups", &[]), 0.0);
}

#[tokio::test(start_paused = true)]
async fn flapping_across_flushes_is_told_each_time() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A{i=1}", "A{i=2}"]);
    world.at(2.0).await;
    world.resolve(&["A{i=1}"]);
    world.at(4.0).await;
    world.post(&["A{i=1}"]);
    world.at(6.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A{i=1} A{i=2} (first notification)",
            "3.0 a firing -A{i=1} A{i=2} (some alerts resolved)",
            "5.0 a firing A{i=1} A{i=2} (new alerts added)",
        ]
    );
}

// ---- routes ----

#[tokio::test(start_paused = true)]
async fn the_deepest_match_wins_and_continue_goes_on() {
    let routes = ", routes: [\
        {matchers: ['team=\"db\"'], receiver: s, routes: [{matchers: ['severity=\"crit\"'], receiver: t}]}, \
        {matchers: ['team=\"x\"'], receiver: s, continue: true}, \
        {matchers: ['team=~\"x|y\"'], receiver: t}]";
    let world = World::new(&yaml(routes, "")).await;
    world.post(&["A{team=db,severity=crit}"]);
    world.post(&["B{team=db}"]);
    world.post(&["C{team=x}"]);
    world.post(&["D{team=other}"]);
    world.at(2.0).await;
    let mut sent: Vec<String> = world.sent().iter().map(|line| line[4..].to_owned()).collect();
    sent.sort();
    assert_eq!(
        sent,
        [
            "a firing D{team=other} (first notification)",
            "b firing B{team=db} (first notification)",
            "b firing C{team=x} (first notification)",
            "c firing A{severity=crit,team=db} (first notification)",
            "c firing C{team=x} (first notification)",
        ]
    );
    let keys: Vec<String> = world.am.group_views().into_iter().map(|group| group.key).collect();
    assert!(keys.contains(&r#"{}/{team="db"}/{severity="crit"}:{alertname="A"}"#.to_owned()), "{keys:?}");
    assert!(keys.contains(&r#"{}/{team=~"x|y"}:{alertname="C"}"#.to_owned()), "{keys:?}");
}

#[tokio::test(start_paused = true)]
async fn children_inherit_what_they_do_not_set() {
    let routes = ", routes: [{matchers: ['x=\"1\"'], group_wait: 3s, routes: [{matchers: ['y=\"1\"'], receiver: s}]}, \
        {matchers: ['x=\"2\"'], group_wait: 0s, group_by: ['...']}]";
    let world = World::new(&yaml(routes, "")).await;
    world.post(&["A{x=1}", "A{x=1,y=1}", "A{x=2,z=1}", "A{x=2,z=2}"]);
    world.at(4.0).await;
    let mut sent = world.sent();
    sent.sort();
    assert_eq!(
        sent,
        [
            "0.0 a firing A{x=2,z=1} (first notification)",
            "0.0 a firing A{x=2,z=2} (first notification)",
            "3.0 a firing A{x=1} (first notification)",
            "3.0 b firing A{x=1,y=1} (first notification)",
        ]
    );
}

// ---- failing receivers ----

#[tokio::test(start_paused = true)]
async fn server_errors_are_retried_within_the_flush() {
    let world = World::new(&yaml("", "").replace("group_interval: 2s", "group_interval: 30s")).await;
    world.answer("a", Answer::Status(500));
    world.post(&["A"]);
    world.at(6.0).await;
    let failed = world.sent();
    assert!((3..=9).contains(&failed.len()), "{failed:?}");
    assert!(failed.iter().all(|line| line.ends_with("(first notification) Status(500)")), "{failed:?}");
    world.answer("a", Answer::Ok);
    world.at(20.0).await;
    assert_eq!(world.sent().len(), 1, "delivered once");
    assert_eq!(world.metric("alertmanager_notifications_total", &[("integration", "webhook")]), 1.0);
    let reason = [("integration", "webhook"), ("reason", "serverError")];
    assert_eq!(world.metric("alertmanager_notifications_failed_total", &reason), 0.0);
}

#[tokio::test(start_paused = true)]
async fn client_errors_wait_for_the_next_flush() {
    let world = World::new(&yaml("", "")).await;
    world.answer("a", Answer::Status(429));
    world.post(&["A{i=1}"]);
    world.at(4.0).await;
    world.answer("a", Answer::Ok);
    world.post(&["A{i=2}"]);
    world.at(9.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A{i=1} (first notification) Status(429)",
            "3.0 a firing A{i=1} (first notification) Status(429)",
            "5.0 a firing A{i=1} A{i=2} (first notification)",
        ]
    );
    let reason = [("integration", "webhook"), ("reason", "clientError")];
    assert_eq!(world.metric("alertmanager_notifications_failed_total", &reason), 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_is_given_up_after_ten_seconds_and_the_next_flush_follows_at_once() {
    let world = World::new(&yaml("", "")).await;
    world.answer("a", Answer::Hang);
    world.post(&["A"]);
    world.at(10.5).await;
    assert_eq!(world.sent(), ["1.0 a firing A (first notification) Hang"]);
    world.answer("a", Answer::Ok);
    world.at(20.0).await;
    // The flush lasted from 1 s to 11 s; the one due at 3 s comes right after, then the rhythm goes on from there.
    assert_eq!(world.sent(), ["11.0 a firing A (first notification)"]);
    let reason = [("integration", "webhook"), ("reason", "contextDeadlineExceeded")];
    assert_eq!(world.metric("alertmanager_notifications_failed_total", &reason), 1.0);
}

#[tokio::test(start_paused = true)]
async fn one_failing_integration_does_not_hold_up_or_repeat_the_others() {
    let yaml = yaml("", "").replace(
        "{url: 'http://sink.example/a'}",
        "{url: 'http://sink.example/a'}, {url: 'http://sink.example/x'}",
    );
    let world = World::new(&yaml).await;
    world.answer("x", Answer::Status(400));
    world.post(&["A"]);
    world.at(4.0).await;
    world.answer("x", Answer::Ok);
    world.at(8.0).await;
    let mut sent = world.sent();
    sent.sort();
    assert_eq!(
        sent,
        [
            "1.0 a firing A (first notification)",
            "1.0 x firing A (first notification) Status(400)",
            "3.0 x firing A (first notification) Status(400)",
            "5.0 x firing A (first notification)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_resolved_notification_is_tried_again() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A"]);
    world.at(1.5).await;
    world.resolve(&["A"]);
    world.answer("a", Answer::Status(400));
    world.at(4.0).await;
    world.answer("a", Answer::Ok);
    world.at(9.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A (first notification)",
            "3.0 a resolved -A (all alerts resolved) Status(400)",
            "5.0 a resolved -A (all alerts resolved)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_fires_again_during_the_flush_is_not_lost() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A"]);
    world.at(1.5).await;
    world.resolve(&["A"]);
    world.answer("a", Answer::Slow(1.0));
    world.at(3.5).await;
    world.post(&["A"]);
    world.at(8.0).await;
    assert_eq!(
        world.sent(),
        [
            "1.0 a firing A (first notification)",
            "3.0 a resolved -A (all alerts resolved)",
            "5.0 a firing A (first notification)",
        ]
    );
}

// ---- restart and reload ----

#[tokio::test(start_paused = true)]
async fn the_log_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = yaml("", "").replace("repeat_interval: 1h", "repeat_interval: 11s");
    let mut world = World::with(&yaml, Some(dir.path()), Options::default()).await;
    world.post(&["A{i=1}", "B{i=1}"]);
    world.at(3.2).await;
    assert_eq!(world.sent().len(), 2);
    world.restart(&yaml, None).await;
    world.at(5.0).await;
    world.post(&["A{i=1} starts=-5", "B{i=1} starts=-5"]);
    world.at(6.0).await;
    assert_eq!(world.sent(), Vec::<String>::new(), "both flush at once, the log knows them");
    world.post(&["B{i=2} starts=-5"]);
    world.at(14.0).await;
    assert_eq!(
        world.sent(),
        ["7.0 a firing B{i=1} B{i=2} (new alerts added)", "13.0 a firing A{i=1} (repeat interval elapsed)",]
    );
    world.am.stop().await;
}

#[tokio::test(start_paused = true)]
async fn kill_loses_neither_log_nor_silences() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let yaml = yaml("", "");
    let mut world = World::with(&yaml, Some(dir.path()), Options::default()).await;
    world.post(&["A"]);
    world.at(1.5).await;
    assert_eq!(world.sent().len(), 1);
    let id = world.silence("alertname=B", 60.0).await;
    world.restart(&yaml, Some(copy.path())).await;
    world.post(&["A starts=-3", "B", "C"]);
    world.at(8.0).await;
    let sent = world.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].ends_with("a firing C (first notification)"), "{sent:?}");
    assert!(world.am.silence(&id).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_resolved_while_down_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::with(&yaml("", ""), Some(dir.path()), Options::default()).await;
    world.post(&["A"]);
    world.at(1.5).await;
    world.sent();
    world.restart(&yaml("", ""), None).await;
    world.at(3.0).await;
    world.post(&["A starts=-3 ends=-1"]);
    world.at(3.1).await;
    assert_eq!(world.sent(), ["3.0 a resolved -A (all alerts resolved)"]);
    world.am.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_alerts_and_does_not_repeat() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A{i=1}"]);
    world.at(2.5).await;
    assert_eq!(world.sent().len(), 1);
    world.reload(&yaml("", "")).await;
    assert_eq!(world.alerts().len(), 1);
    world.at(3.0).await;
    world.resolve(&["A{i=1}"]);
    world.at(8.0).await;
    assert_eq!(world.sent(), ["4.5 a resolved -A{i=1} (all alerts resolved)"]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_to_another_receiver_tells_it_at_once() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A"]);
    world.at(2.5).await;
    world.sent();
    world.reload(&yaml("", "").replace("receiver: r", "receiver: s")).await;
    world.at(2.6).await;
    assert_eq!(world.sent(), ["2.5 b firing A (first notification)"]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_lets_an_attempt_under_way_finish_and_logs_it() {
    let world = World::new(&yaml("", "")).await;
    world.answer("a", Answer::Slow(2.0));
    world.post(&["A"]);
    world.at(1.5).await;
    world.reload(&yaml("", "")).await;
    world.at(9.0).await;
    assert_eq!(world.sent(), ["1.0 a firing A (first notification)"], "sent once, logged, not repeated");
}

// ---- silences ----

#[tokio::test(start_paused = true)]
async fn a_silence_made_before_keeps_quiet_and_running_out_tells() {
    let world = World::new(&yaml("", "")).await;
    world.silence("alertname=A", 4.0).await;
    world.post(&["A", "B"]);
    world.at(2.0).await;
    assert_eq!(world.states(), ["alertname=A suppressed silenced:1", "alertname=B active"]);
    world.at(9.0).await;
    assert_eq!(world.sent(), ["1.0 a firing B (first notification)", "5.0 a firing A (first notification)"]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_resolves_under_a_silence_leaves_quietly_and_counts_as_told_when_it_fires_again() {
    let world = World::new(&yaml("", "")).await;
    world.post(&["A"]);
    world.at(1.5).await;
    let id = world.silence("alertname=A", 60.0).await;
    world.resolve(&["A"]);
    world.at(4.0).await;
    world.post(&["A"]);
    world.at(4.5).await;
    world.am.expire_silence(&id).await.unwrap();
    world.at(9.0).await;
    assert_eq!(world.sent(), ["1.0 a firing A (first notification)"]);
}

#[tokio::test(start_paused = true)]
async fn silences_change_in_place_or_are_replaced() {
    let world = World::new(&yaml("", "")).await;
    let id = world.silence("alertname=A", 60.0).await;
    world.at(1.0).await;
    let same = world.try_silence(&id, "alertname=A", 0.0, 90.0, "other").await.unwrap();
    assert_eq!(same, id, "end and comment change in place");
    let moved = world.try_silence(&id, "alertname=A", 30.0, 90.0, "moved").await.unwrap();
    assert_ne!(moved, id, "a moved start makes a new one");
    let states: Vec<(String, &str)> = world
        .am
        .silences(&SilenceFilter::default())
        .into_iter()
        .map(|s| {
            (
                s.id,
                match s.status.state {
                    alertmanager::SilenceState::Active => "active",
                    alertmanager::SilenceState::Pending => "pending",
                    alertmanager::SilenceState::Expired => "expired",
                },
            )
        })
        .collect();
    assert_eq!(states, [(moved.clone(), "pending"), (id, "expired")]);
    let other = world.try_silence(&moved, "alertname=B", 30.0, 90.0, "other matchers").await.unwrap();
    assert_ne!(other, moved);
    let unknown = world.try_silence("nope", "alertname=A", 0.0, 90.0, "c").await;
    assert!(matches!(unknown, Err(SilenceError::NotFound)), "{unknown:?}");
    assert!(matches!(world.am.expire_silence("nope").await, Err(SilenceError::NotFound)));
    let empty = world.try_silence("", "a=~\".*\"", 0.0, 90.0, "c").await.unwrap_err().to_string();
    assert_eq!(empty, "invalid silence: matcher set 0: at least one matcher must not match the empty string");
}

#[tokio::test(start_paused = true)]
async fn silences_are_limited_and_forgotten_after_retention() {
    let options = Options {
        retention: Duration::from_secs(30),
        maintenance_interval: Duration::from_secs(1),
        silence_limits: SilenceLimits { silences_max: 2, size_bytes_max: 300 },
        ..Options::default()
    };
    let world = World::with(&yaml("", ""), None, options).await;
    world.silence("a=1", 5.0).await;
    world.silence("a=2", 5.0).await;
    let error = world.try_silence("", "a=3", 0.0, 9.0, "c").await.unwrap_err().to_string();
    assert_eq!(error, "exceeded maximum number of silences: 2 (limit: 2)");
    world.at(10.0).await;
    assert_eq!(world.am.silences(&SilenceFilter::default()).len(), 2, "expired ones count");
    world.at(40.0).await;
    assert_eq!(world.am.silences(&SilenceFilter::default()).len(), 0);
    let long = world.try_silence("", "a=3", 40.0, 90.0, &"c".repeat(300)).await.unwrap_err().to_string();
    assert!(long.starts_with("silence exceeded maximum size: "), "{long}");
}

#[tokio::test(start_paused = true)]
async fn a_silence_that_is_not_durable_does_not_hold() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::with(&yaml("", ""), Some(dir.path()), Options::default()).await;
    let kept = world.silence("alertname=A", 60.0).await;
    world.am.stop().await;
    let body = br#"{"matchers":[{"name":"a","value":"b","isRegex":false}],"startsAt":"2023-11-01T00:00:00Z",
        "endsAt":"2030-01-01T00:00:00Z","comment":"c","createdBy":"m"}"#;
    assert_eq!(world.am.post_silence(body).await.unwrap_err().status, 500);
    assert_eq!(world.am.delete_silence(&kept).await.unwrap_err().status, 500);
    let silences = world.am.silences(&SilenceFilter::default());
    assert_eq!(silences.len(), 1);
    assert_eq!(silences[0].status.state, alertmanager::SilenceState::Active, "a refused end is no end");
}

// ---- inhibition ----

#[tokio::test(start_paused = true)]
async fn a_source_inhibits_targets_with_equal_labels_until_it_resolves() {
    let rules =
        "inhibit_rules: [{source_matchers: [alertname=Src], target_matchers: [alertname=Tgt], equal: [c]}]\n";
    let world = World::new(&yaml("", rules)).await;
    world.post(&["Src{c=1}", "Tgt{c=1,i=1}", "Tgt{c=2,i=2}"]);
    world.at(2.0).await;
    assert_eq!(
        world.states(),
        [
            "alertname=Src,c=1 active",
            "alertname=Tgt,c=1,i=1 suppressed inhibited:1",
            "alertname=Tgt,c=2,i=2 active",
        ]
    );
    world.at(3.5).await;
    world.resolve(&["Src{c=1}"]);
    world.at(8.0).await;
    let mut sent = world.sent();
    sent.sort();
    assert_eq!(
        sent,
        [
            "1.0 a firing Src{c=1} (first notification)",
            "1.0 a firing Tgt{c=2,i=2} (first notification)",
            "5.0 a firing Tgt{c=1,i=1} Tgt{c=2,i=2} (new alerts added)",
            "5.0 a resolved -Src{c=1} (all alerts resolved)",
        ]
    );
}

// ---- time intervals ----

#[tokio::test(start_paused = true)]
async fn routes_are_quiet_within_mute_and_outside_of_active_intervals() {
    // Scenarios begin at 22:13:20; the interval ends at 22:14, that is 40 s later.
    let intervals = "time_intervals:\n- {name: now, time_intervals: [{times: [{start_time: '22:00', end_time: '22:14'}]}]}\n\
        - {name: past, time_intervals: [{years: ['2020']}]}\n";
    let routes = ", routes: [{matchers: [m=mute], mute_time_intervals: [now]}, \
        {matchers: [m=active], receiver: s, active_time_intervals: [past, now]}, \
        {matchers: [m=inactive], receiver: t, active_time_intervals: [past]}]";
    let world = World::new(&yaml(routes, intervals)).await;
    world.post(&["A{m=mute} ends=600", "A{m=active} ends=600", "A{m=inactive} ends=600"]);
    world.at(2.0).await;
    assert_eq!(world.sent(), ["1.0 b firing A{m=active} (first notification)"]);
    let groups = world.am.groups(&AlertFilter::default());
    let mut muted: Vec<String> = groups
        .iter()
        .map(|g| {
            format!("{} {:?} {}", g.receiver.name, g.alerts[0].status.muted_by, g.alerts[0].status.state)
        })
        .collect();
    muted.sort();
    assert_eq!(muted, [r#"r ["now"] suppressed"#, "s [] active", r#"t ["past"] suppressed"#]);
    assert!(world.states().iter().all(|state| state.ends_with("active")), "only groups know");
    let unmuted = AlertFilter { muted: false, ..AlertFilter::default() };
    assert_eq!(world.am.groups(&unmuted).len(), 1);
    world.at(45.0).await;
    assert_eq!(world.sent(), ["41.0 a firing A{m=mute} (first notification)"]);
}

// ---- limits, bodies, the sink for rules ----

#[tokio::test(start_paused = true)]
async fn alerts_over_a_limit_are_dropped_and_counted() {
    let limits = AlertLimits { per_alertname_max: 2, alerts_max: 4 };
    let options = Options { alert_limits: limits, ..Options::default() };
    let world = World::with(&yaml("", ""), None, options).await;
    world.post(&["A{i=1}", "A{i=2}", "A{i=3}", "B{i=1}", "A{i=1}"]);
    assert_eq!(world.alerts().len(), 3);
    assert_eq!(world.metric("alertmanager_alerts_dropped_total", &[]), 1.0);
    world.resolve(&["A{i=1}"]);
    world.post(&["A{i=3}", "C"]);
    assert_eq!(world.alerts().len(), 3, "A has room again, C has not: {:?}", world.states());
    assert_eq!(world.metric("alertmanager_alerts_dropped_total", &[]), 2.0);
}

#[tokio::test(start_paused = true)]
async fn common_labels_cover_what_is_sent() {
    let world = World::new(&yaml("", "")).await;
    world.post(&[
        "A{instance=1,job=j,z=1} a.summary=s a.runbook=x",
        "A{instance=2,job=j} a.summary=s a.runbook=y",
    ]);
    world.at(2.0).await;
    let bodies = world.recorder.bodies.lock();
    assert_eq!(bodies[0]["commonLabels"], serde_json::json!({"alertname": "A", "job": "j"}));
    assert_eq!(bodies[0]["commonAnnotations"], serde_json::json!({"summary": "s"}));
    assert_eq!(bodies[0]["groupLabels"], serde_json::json!({"alertname": "A"}));
    assert_eq!(bodies[0]["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(bodies[0]["alerts"][0]["startsAt"], "2023-11-14T22:13:20Z");
    assert_eq!(bodies[0]["externalURL"], "http://am.example");
}

#[tokio::test(start_paused = true)]
async fn rules_deliver_through_the_sink() {
    use model::AlertSink as _;
    let world = World::new(&yaml("", "")).await;
    let alert = |ends_at| model::Alert {
        labels: model::Labels::from_pairs([("alertname", "A")]),
        annotations: model::Labels::from_pairs([("summary", "s")]),
        starts_at: common::BASE_MS,
        ends_at,
        generator_url: "http://prom/graph?g0.expr=up".to_owned(),
    };
    world.am.send(&[alert(Some(common::BASE_MS + 240_000))]);
    world.at(1.5).await;
    // Rules send resolved alerts again for a while: that is told once.
    for second in [2.0, 3.0, 4.0, 5.0, 6.0] {
        world.am.send(&[alert(Some(common::BASE_MS + 1_700))]);
        world.at(second).await;
    }
    world.at(12.0).await;
    assert_eq!(
        world.sent(),
        ["1.0 a firing A (first notification)", "3.0 a resolved -A (all alerts resolved)"]
    );
}

#[tokio::test(start_paused = true)]
async fn posts_take_the_valid_alerts_of_a_batch() {
    let world = World::new(&yaml("", "")).await;
    let body = br#"[{"labels":{"alertname":"A"}},{"labels":{}},{"labels":{"a":"b"},"startsAt":"2023-11-15T00:00:00Z","endsAt":"2023-11-14T00:00:00Z"}]"#;
    let error = world.am.post_alerts(body).unwrap_err();
    assert_eq!(
        (error.status, error.body.as_str()),
        (400, "\"at least one label pair required\\nstart time must be before end time\"\n")
    );
    assert_eq!(world.states(), ["alertname=A active"]);
    assert_eq!(world.metric("alertmanager_alerts_invalid_total", &[("version", "v2")]), 2.0);
    assert_eq!(world.am.post_alerts(b"").unwrap_err().status, 422);
    assert_eq!(world.am.post_alerts(b"null"), Ok(()));
    assert_eq!(world.am.post_alerts(b"{}").unwrap_err().status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_groups_are_flushed_in_time() {
    let world = World::new(&yaml("", "")).await;
    let specs: Vec<String> = (0..1000).flat_map(|g| (0..10).map(move |i| format!("G{g}{{i={i}}}"))).collect();
    world.post(&specs.iter().map(String::as_str).collect::<Vec<_>>());
    world.at(1.1).await;
    assert_eq!(world.sent().len(), 1000);
    assert_eq!(world.metric("alertmanager_dispatcher_aggregation_groups", &[]), 1000.0);
    assert_eq!(world.alerts().len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn attempts_of_one_integration_are_bounded_and_the_others_wait() {
    let world = World::new(&yaml("", "")).await;
    world.answer("a", Answer::Slow(1.0));
    let specs: Vec<String> = (0..600).map(|g| format!("G{g}")).collect();
    world.post(&specs.iter().map(String::as_str).collect::<Vec<_>>());
    let mut counts = Vec::new();
    for second in [1.5, 2.5, 3.5, 4.5] {
        world.at(second).await;
        counts.push(world.sent().len());
    }
    assert_eq!(counts, [256, 256, 88, 0]);
}

/// A state that cannot be opened does not keep the server from starting and notifying. A silence that would not be
/// durable is refused with the reason and does not hold; once the state can be opened it is taken.
#[tokio::test(start_paused = true)]
async fn starts_without_a_usable_disk_and_refuses_silences_until_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&link, &link).unwrap();
    let yaml =
        "route: {receiver: a, group_wait: 1s}\nreceivers: [{name: a, webhook_configs: [{url: 'http://a/'}]}]";
    let world = World::with(yaml, Some(&link.join("state")), Options::default()).await;
    assert_eq!(world.metric("alertmanager_state_durable", &[]), 0.0);
    let body =
        br#"{"matchers":[{"name":"alertname","value":"A","isRegex":false}],"startsAt":"2023-11-14T22:00:00Z",
        "endsAt":"2033-11-14T22:00:00Z","createdBy":"t","comment":"c"}"#;
    let refused = world.am.post_silence(body).await.unwrap_err();
    assert_eq!(refused.status, 500);
    assert!(format!("{refused:?}").contains("not durable"), "{refused:?}");
    world.post(&["A"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.states(), ["alertname=A active"]);
    std::fs::remove_file(&link).unwrap();
    world.am.post_silence(body).await.unwrap();
    assert_eq!(world.metric("alertmanager_state_durable", &[]), 1.0);
    assert_eq!(world.states(), ["alertname=A suppressed silenced:1"]);
    world.am.stop().await;
}

/// One group more than the limit is counted and not notified; with room again the alert finds its place.
#[tokio::test(start_paused = true)]
async fn aggregation_groups_have_a_limit() {
    let yaml = "route: {receiver: a, group_by: [...], group_wait: 1s, group_interval: 5s}\n\
                receivers: [{name: a, webhook_configs: [{url: 'http://h/a'}]}]";
    let options = Options { aggregation_groups_max: 2, ..Options::default() };
    let world = World::with(yaml, None, options).await;
    world.post(&["A{i=1}", "A{i=2}", "A{i=3}", "A{i=2}"]);
    world.at(3.0).await;
    assert_eq!(world.sent().len(), 2);
    assert_eq!(world.am.group_views().len(), 2);
    let reached = || world.metric("alertmanager_dispatcher_aggregation_group_limit_reached_total", &[]);
    assert_eq!(reached(), 1.0);
    // An end without a group has nobody to tell.
    world.resolve(&["A{i=3}"]);
    assert_eq!(reached(), 1.0);
    world.resolve(&["A{i=1}"]);
    world.at(8.0).await;
    world.post(&["A{i=3}"]);
    world.at(10.0).await;
    assert_eq!(
        world.sent(),
        ["6.0 a resolved -A{i=1} (all alerts resolved)", "9.0 a firing A{i=3} (first notification)"]
    );
    assert_eq!(reached(), 1.0);
    world.am.stop().await;
}
