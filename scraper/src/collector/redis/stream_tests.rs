//! Tests of streams: recorded answers, counting, counters, refusals, wrong types.

use super::*;
use crate::collector::redis::testing::{Played, bulk, error, int, list, play, recorded};
use crate::collector::resp::payload_hash;

/// A little after the entries of the recorded stream.
const NOW: i64 = 1_795_372_240_112;

fn probe(keys: &[&str]) -> StreamProbe {
    StreamProbe::new(0, keys.iter().map(|key| key.as_bytes().to_vec()))
}

fn stream_info(length: i64, last_id: &str, added: i64) -> Reply {
    list([
        bulk("length"),
        int(length),
        bulk("last-generated-id"),
        bulk(last_id),
        bulk("entries-added"),
        int(added),
    ])
}

fn group_info(name: &str, pending: i64, last: &str, read: Reply, lag: Reply) -> Reply {
    list([
        bulk("name"),
        bulk(name),
        bulk("consumers"),
        int(1),
        bulk("pending"),
        int(pending),
        bulk("last-delivered-id"),
        bulk(last),
        bulk("entries-read"),
        read,
        bulk("lag"),
        lag,
    ])
}

fn entries(ids: impl IntoIterator<Item = String>) -> Reply {
    list(ids.into_iter().map(|id| list([bulk(id), Reply::Dropped])))
}

/// One stream `s` with one group `g`, and answers to the rest.
fn one_group(
    memory: &mut Memory,
    now: i64,
    stream: &Reply,
    group: &Reply,
    mut rest: impl FnMut(&str) -> Option<Reply>,
) -> Played {
    play(probe(&["s"]), memory, now, |command| match command {
        "XINFO STREAM s" => Some(stream.clone()),
        "XINFO GROUPS s" => Some(list([group.clone()])),
        other => rest(other),
    })
}

#[test]
fn the_recorded_stream_becomes_readings_of_both_groups() {
    let mut answers = recorded();
    // The first entry behind billing's last-delivered-id 1795372236113-0.
    answers.insert("XRANGE orders 1795372236113-1 + COUNT 1".into(), entries(["1795372236113-1".to_owned()]));
    let played = play(probe(&["orders"]), &mut Memory::default(), NOW, |command| {
        Some(answers.get(command).unwrap_or_else(|| panic!("not recorded: {command}")).clone())
    });
    assert!(played.doubts.clone().into_warnings().is_empty());
    // audit has read everything: nothing more is asked about it.
    assert_eq!(played.commands.len(), 4, "{:?}", played.commands);

    let log = played.reading("orders", "");
    assert_eq!(log.get(QueueMetric::Retained), Some(10.0));
    assert_eq!(log.get(QueueMetric::Enqueued), None, "repeated with each group instead");
    assert_eq!(log.get(QueueMetric::Ready), None, "who reads it?");
    assert_eq!(log.info.as_ref().map(|info| (info.kind, info.lag_method)), Some(("stream", "head_time")));

    let billing = |metric| played.get("orders", "billing", metric);
    assert_eq!(billing(QueueMetric::Ready), Some(6.0));
    assert_eq!(billing(QueueMetric::InFlight), Some(3.0));
    assert_eq!(billing(QueueMetric::LagMessages), Some(9.0));
    assert_eq!(billing(QueueMetric::Consumers), Some(1.0));
    assert_eq!(billing(QueueMetric::Enqueued), Some(10.0));
    assert_eq!(billing(QueueMetric::Delivered), Some(4.0));
    assert_eq!(billing(QueueMetric::Dequeued), Some(1.0));
    assert_eq!(billing(QueueMetric::OldestPendingDeliveries), Some(1.0));
    assert_eq!(billing(QueueMetric::LagSeconds), Some(4.0), "the oldest pending entry: …236112-1");
    assert_eq!(billing(QueueMetric::OldestAge), Some(3.999), "the oldest ready one: …236113-1");

    let audit = |metric| played.get("orders", "audit", metric);
    assert_eq!(audit(QueueMetric::Ready), Some(0.0));
    assert_eq!(audit(QueueMetric::LagSeconds), Some(0.0));
    assert_eq!(audit(QueueMetric::OldestAge), Some(0.0));
    assert_eq!(audit(QueueMetric::Consumers), Some(0.0));
    assert_eq!(audit(QueueMetric::Delivered), Some(10.0), "its place in the stream: entries-read is nil");
}

#[test]
fn a_lag_the_server_does_not_know_is_counted_page_by_page() {
    let total = 600u64;
    let first = 1_795_372_000_000u64;
    let stream = stream_info(1000, &format!("{}-0", first + total), 1000);
    for lag in [Reply::Nil, int(-3)] {
        let group = group_info("g", 0, &format!("{first}-0"), Reply::Nil, lag);
        let played = one_group(&mut Memory::default(), NOW, &stream, &group, |command| {
            let words: Vec<&str> = command.split(' ').collect();
            assert_eq!((words[0], words[5]), ("XRANGE", "250"));
            let from: u64 = words[2].split_once('-').unwrap().0.parse().unwrap();
            let end = (from + 250).min(first + total);
            Some(entries((from + 1..=end).map(|ms| format!("{ms}-0"))))
        });
        assert_eq!(played.get("s", "g", QueueMetric::Ready), Some(600.0));
        assert_eq!(played.get("s", "g", QueueMetric::Delivered), Some(400.0));
        assert_eq!(
            played.get("s", "g", QueueMetric::OldestAge),
            Some((NOW as u64 - first - 1) as f64 / 1000.0)
        );
        assert!(!played.doubts.is_partial(PartialReason::Limit));
    }
}

#[test]
fn counting_ends_at_its_bound_with_a_mark() {
    let stream = stream_info(1_000_000, "1795372239999-0", 1_000_000);
    let group = group_info("g", 0, "1795372000000-0", Reply::Nil, Reply::Nil);
    let mut pages = 0;
    let played = one_group(&mut Memory::default(), NOW, &stream, &group, |_| {
        pages += 1;
        Some(entries((0..250).map(|n| format!("{}-{n}", 1_795_372_000_000u64 + pages))))
    });
    assert_eq!(pages, COUNT_MAX / COUNT_PAGE);
    assert_eq!(played.get("s", "g", QueueMetric::Ready), Some(10_000.0));
    assert!(played.doubts.is_partial(PartialReason::Limit));
}

#[test]
fn a_lag_beyond_the_stream_is_cut_and_one_without_entries_is_none() {
    let stream = stream_info(5, "1795372239999-0", 50);
    let group = group_info("g", 0, "1795372000000-0", int(10), int(40));
    let range = |reply: Reply| move |_: &str| Some(reply.clone());
    let there = entries(["1795372239000-0".to_owned()]);
    let played = one_group(&mut Memory::default(), NOW, &stream, &group, range(there));
    assert_eq!(played.get("s", "g", QueueMetric::Ready), Some(5.0));
    let played = one_group(&mut Memory::default(), NOW, &stream, &group, range(entries([])));
    assert_eq!(played.get("s", "g", QueueMetric::Ready), Some(0.0));
    assert_eq!(played.get("s", "g", QueueMetric::LagSeconds), Some(0.0));
}

#[test]
fn the_finished_counter_never_falls_but_with_the_stream() {
    let mut memory = Memory::default();
    let mut dequeued = |added: i64, read: i64, pending: i64| {
        let stream = stream_info(added, "1795372239999-0", added);
        let group = group_info("g", pending, "1795372239999-0", int(read), int(0));
        let played = one_group(&mut memory, NOW, &stream, &group, |_| Some(entries([])));
        played.get("s", "g", QueueMetric::Dequeued).unwrap()
    };
    assert_eq!(dequeued(100, 50, 10), 40.0);
    assert_eq!(dequeued(100, 60, 25), 40.0, "claimed entries are pending again");
    assert_eq!(dequeued(100, 60, 0), 65.0, "35 - 40 was ignored, 60 - 35 counts");
    assert_eq!(dequeued(100, 10, 0), 65.0, "XGROUP SETID backwards");
    assert_eq!(dequeued(100, 30, 0), 85.0, "delivered again is finished again");
    assert_eq!(dequeued(100, 10, 20), 85.0, "more pending than read");
    assert_eq!(dequeued(7, 3, 0), 3.0, "the stream was made anew: the counter restarts with it");
}

#[test]
fn ids_that_are_no_times_are_watched_instead() {
    let mut memory = Memory::default();
    let mut lag = |now: i64, first: &str| {
        let stream = stream_info(9, "9-0", 9);
        let group = group_info("g", 0, "1-0", int(1), int(8));
        let played = one_group(&mut memory, now, &stream, &group, |_| Some(entries([first.to_owned()])));
        assert_eq!(played.reading("s", "").info.as_ref().map(|info| info.lag_method), Some("head_watch"));
        assert_eq!(played.get("s", "g", QueueMetric::OldestAge), None, "nobody tells");
        played.get("s", "g", QueueMetric::LagSeconds).unwrap()
    };
    assert_eq!(lag(NOW, "2-0"), 0.0);
    assert_eq!(lag(NOW + 30_000, "2-0"), 30.0);
    assert_eq!(lag(NOW + 45_000, "3-0"), 0.0);
    // A time far ahead is as little of a time.
    let facts = |ms: u64| StreamFacts { length: 1, last_id: StreamId { ms, seq: 0 }, entries_added: None };
    assert!(facts(NOW as u64 + 1000).has_time_ids(NOW), "clocks differ a little");
    assert!(!facts(NOW as u64 + 2 * AHEAD_MS_MAX).has_time_ids(NOW));
    assert!(!facts(u64::MAX).has_time_ids(NOW));
}

#[test]
fn servers_before_7_have_fewer_fields() {
    let stream = list([bulk("length"), int(3), bulk("last-generated-id"), bulk("1795372239999-0")]);
    let group = list([
        bulk("name"),
        bulk("g"),
        bulk("consumers"),
        int(2),
        bulk("pending"),
        int(0),
        bulk("last-delivered-id"),
        bulk("0-0"),
    ]);
    let played = one_group(&mut Memory::default(), NOW, &stream, &group, |_| {
        Some(entries((0..3).map(|n| format!("179537223000{n}-0"))))
    });
    assert_eq!(played.get("s", "g", QueueMetric::Ready), Some(3.0));
    assert_eq!(played.get("s", "g", QueueMetric::Consumers), Some(2.0));
    for metric in [QueueMetric::Enqueued, QueueMetric::Delivered, QueueMetric::Dequeued] {
        assert_eq!(played.get("s", "g", metric), None, "{metric:?} cannot be had");
    }
}

#[test]
fn a_stream_without_groups_is_only_retained_and_counted() {
    let played = play(probe(&["s"]), &mut Memory::default(), NOW, |command| match command {
        "XINFO STREAM s" => Some(stream_info(4, "1795372239999-0", 9)),
        _ => Some(list([])),
    });
    assert_eq!(played.readings.len(), 1);
    assert_eq!(played.get("s", "", QueueMetric::Retained), Some(4.0));
    assert_eq!(played.get("s", "", QueueMetric::Enqueued), Some(9.0));
    assert_eq!(played.get("s", "", QueueMetric::Ready), None);
}

#[test]
fn what_is_gone_or_elsewhere_is_silent_and_the_rest_is_told() {
    let refusals = [
        ("gone", "ERR no such key", false, false),
        ("moved", "MOVED 3999 127.0.0.1:6381", false, false),
        ("list", "WRONGTYPE Operation against a key holding the wrong kind of value", false, false),
        (
            "hidden",
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            true,
            false,
        ),
        ("odd", "ERR something else", false, true),
    ];
    for (key, text, permission, answer) in refusals {
        let played = play(probe(&[key]), &mut Memory::default(), NOW, |_| Some(error(text)));
        assert!(played.readings.is_empty());
        assert_eq!(played.doubts.is_partial(PartialReason::Permission), permission, "{key}");
        assert_eq!(played.doubts.is_partial(PartialReason::Answer), answer, "{key}");
        let warnings = played.doubts.into_warnings();
        assert_eq!(warnings.is_empty(), matches!(key, "gone" | "moved"), "{warnings:?}");
        if permission {
            assert!(warnings[0].starts_with("XINFO STREAM \"hidden\": NOPERM"), "{warnings:?}");
        }
    }
}

#[test]
fn wrong_types_are_marked_and_never_numbers() {
    let wrong = [
        int(3),
        Reply::Nil,
        bulk("text"),
        list([]),
        list([bulk("length")]),
        list([bulk("length"), bulk("x"), bulk("last-generated-id"), bulk("y")]),
        list([bulk("length"), int(-1), bulk("last-generated-id"), bulk("1-1")]),
        Reply::Oversized { len: 1 << 20, hash: payload_hash(b"") },
        Reply::Dropped,
    ];
    for reply in wrong {
        let played = play(probe(&["s"]), &mut Memory::default(), NOW, |_| Some(reply.clone()));
        assert!(played.readings.is_empty(), "{reply:?}");
        assert!(played.doubts.is_partial(PartialReason::Answer), "{reply:?}");
        assert!(played.account.errors("queues") > 0);
    }
    // Details that are wrong leave out what depends on them.
    let stream = stream_info(9, "1795372239999-0", 9);
    let group = group_info("g", 2, "1795372000000-0", int(1), int(8));
    let played = one_group(&mut Memory::default(), NOW, &stream, &group, |_| Some(list([int(1)])));
    assert_eq!(played.get("s", "g", QueueMetric::Ready), Some(8.0));
    assert_eq!(played.get("s", "g", QueueMetric::LagSeconds), None);
    assert!(played.doubts.is_partial(PartialReason::Answer));
}

#[test]
fn a_cut_leaves_out_what_was_not_answered() {
    let stream = stream_info(9, "1795372239999-0", 9);
    let known = group_info("g", 2, "1795372000000-0", int(1), int(8));
    let played = one_group(&mut Memory::default(), NOW, &stream, &known, |_| None);
    assert_eq!(played.get("s", "g", QueueMetric::Ready), Some(8.0));
    assert_eq!(played.get("s", "g", QueueMetric::LagSeconds), None);
    let unknown = group_info("g", 2, "1795372000000-0", int(1), Reply::Nil);
    let played = one_group(&mut Memory::default(), NOW, &stream, &unknown, |_| None);
    assert_eq!(played.get("s", "g", QueueMetric::Ready), None, "not counted is not zero");
    assert_eq!(played.get("s", "g", QueueMetric::LagMessages), None);
}

#[test]
fn the_next_id_carries_into_the_milliseconds() {
    assert_eq!(StreamId { ms: 5, seq: 7 }.next().to_string(), "5-8");
    assert_eq!(StreamId { ms: 5, seq: u64::MAX }.next().to_string(), "6-0");
    for text in ["", "5", "-", "5-", "-5", "5-5-5", "99999999999999999999-0", "a-b"] {
        assert_eq!(StreamId::of(&bulk(text)), None, "{text:?}");
    }
}
