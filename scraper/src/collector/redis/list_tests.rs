//! Tests of lists: recorded answers, head watching, payload times.

use proptest::prelude::*;

use super::*;
use crate::collector::account::PartialReason;
use crate::collector::redis::testing::{Played, bulk, error, int, play, recorded};

const NOW: i64 = 1_795_372_240_112;

fn options(yaml: &str) -> Arc<RedisOptions> {
    let raw: crate::collector::redis::RawRedisOptions = serde_yaml::from_str(yaml).unwrap();
    Arc::new(raw.build(&model::ConfigPath::root(), std::path::Path::new("/")).unwrap())
}

fn probe(yaml: &str, keys: &[&str], is_configured: bool) -> ListProbe {
    let keys = keys.iter().map(|key| (key.as_bytes().to_vec(), is_configured)).collect();
    ListProbe::new(0, options(yaml), keys)
}

/// One list `q` with these elements, left to right.
fn seen(memory: &mut Memory, yaml: &str, now: i64, elements: &[&str]) -> Played {
    play(probe(yaml, &["q"], false), memory, now, |command| match command {
        "LLEN q" => Some(int(elements.len() as i64)),
        "LINDEX q 0" => Some(elements.first().map_or(Reply::Nil, bulk)),
        "LINDEX q -1" => Some(elements.last().map_or(Reply::Nil, bulk)),
        other => panic!("{other}"),
    })
}

fn lag(memory: &mut Memory, yaml: &str, now: i64, elements: &[&str]) -> f64 {
    seen(memory, yaml, now, elements).get("q", "", QueueMetric::LagSeconds).unwrap()
}

#[test]
fn the_recorded_list_becomes_a_reading() {
    let answers = recorded();
    let probe = probe("lists: [{name: mail, head: right}]", &["mail"], true);
    let played = play(probe, &mut Memory::default(), NOW, |command| Some(answers[command].clone()));
    assert_eq!(played.get("mail", "", QueueMetric::Ready), Some(4.0));
    assert_eq!(played.get("mail", "", QueueMetric::LagMessages), Some(4.0));
    assert_eq!(played.get("mail", "", QueueMetric::LagSeconds), Some(0.0));
    assert_eq!(played.get("mail", "", QueueMetric::OldestAge), None);
    assert_eq!(played.get("mail", "", QueueMetric::Consumers), None);
    let info = played.reading("mail", "").info.clone().unwrap();
    assert_eq!((info.kind, info.lag_method), ("list", "head_watch"));
}

#[test]
fn an_unmoved_head_ages_a_second_per_second_whatever_producers_do() {
    for (yaml, states) in [
        ("lists: [{name: q, head: right}]", [&["b", "a"][..], &["c", "b", "a"], &["d", "c", "b", "a"]]),
        ("lists: [{name: q, head: left}]", [&["a", "b"], &["a", "b", "c"], &["a", "b", "c", "d"]]),
    ] {
        let mut memory = Memory::default();
        for (n, elements) in states.iter().enumerate() {
            assert_eq!(lag(&mut memory, yaml, NOW + 10_000 * n as i64, elements), 10.0 * n as f64);
        }
        // One taken: the next head has been waiting for at least nothing.
        let rest: &[&str] = if yaml.contains("right") { &["d", "c", "b"] } else { &["b", "c", "d"] };
        assert_eq!(lag(&mut memory, yaml, NOW + 30_000, rest), 0.0);
        assert_eq!(lag(&mut memory, yaml, NOW + 35_000, rest), 5.0);
    }
}

#[test]
fn which_end_is_the_head_is_learnt_and_not_overstated_before() {
    let yaml = "lists: [q]";
    let mut memory = Memory::default();
    assert_eq!(lag(&mut memory, yaml, NOW, &["b", "a"]), 0.0);
    assert_eq!(lag(&mut memory, yaml, NOW + 10_000, &["b", "a"]), 10.0, "nothing moved at either end");
    // Grew at the left: producers push there, the head is right and has been there since the start.
    assert_eq!(lag(&mut memory, yaml, NOW + 20_000, &["c", "b", "a"]), 20.0);
    assert_eq!(lag(&mut memory, yaml, NOW + 30_000, &["d", "c", "b", "a"]), 30.0);
    // Taken from the right: confirmed.
    assert_eq!(lag(&mut memory, yaml, NOW + 40_000, &["d", "c", "b"]), 0.0);
    // A consumer that empties from the left teaches otherwise.
    assert_eq!(lag(&mut memory, yaml, NOW + 50_000, &["c", "b"]), 0.0);
    assert_eq!(lag(&mut memory, yaml, NOW + 60_000, &["c", "b"]), 10.0);
    assert_eq!(memory.lists.lists.values().next().unwrap().learnt, Some(Side::Left));
}

#[test]
fn equal_elements_do_not_age_while_they_are_taken() {
    for yaml in ["lists: [{name: q, head: right}]", "lists: [q]"] {
        let mut memory = Memory::default();
        lag(&mut memory, yaml, NOW, &["x", "x", "x"]);
        assert_eq!(lag(&mut memory, yaml, NOW + 10_000, &["x", "x", "x"]), 10.0);
        assert_eq!(lag(&mut memory, yaml, NOW + 20_000, &["x", "x"]), 0.0, "one was taken");
        assert_eq!(lag(&mut memory, yaml, NOW + 30_000, &["x", "x", "x", "x"]), 10.0);
    }
}

#[test]
fn empty_lists_are_zero_while_configured_or_remembered() {
    let mut memory = Memory::default();
    let empty = |memory: &mut Memory, now: i64, is_configured: bool| {
        play(probe("lists: [q]", &["q"], is_configured), memory, now, |_| Some(int(0)))
    };
    assert!(empty(&mut memory, NOW, false).readings.is_empty(), "never seen");
    assert_eq!(empty(&mut memory, NOW, true).get("q", "", QueueMetric::Ready), Some(0.0));
    seen(&mut memory, "lists: [q]", NOW, &["a"]);
    let zero = empty(&mut memory, NOW + 1000, false);
    assert_eq!(zero.get("q", "", QueueMetric::Ready), Some(0.0));
    assert_eq!(zero.get("q", "", QueueMetric::LagSeconds), Some(0.0));
    // What comes later has not waited since then.
    assert_eq!(lag(&mut memory, "lists: [q]", NOW + 9000, &["a"]), 0.0);
    memory.lists.forget(NOW + 9001);
    assert!(empty(&mut memory, NOW + 9002, false).readings.is_empty(), "forgotten");
    assert_eq!(memory.lists.names(0).count(), 0);
}

#[test]
fn a_key_of_another_type_is_forgotten() {
    let mut memory = Memory::default();
    seen(&mut memory, "lists: [q]", NOW, &["a"]);
    let played = play(probe("lists: [q]", &["q"], true), &mut memory, NOW, |_| {
        Some(error("WRONGTYPE Operation against a key holding the wrong kind of value"))
    });
    assert!(played.readings.is_empty());
    assert!(played.doubts.into_warnings()[0].starts_with("LLEN \"q\": WRONGTYPE"));
    assert_eq!(memory.lists.names(0).count(), 0);
}

#[test]
fn only_the_longest_and_the_included_are_asked_for_their_head() {
    let keys: Vec<String> = (0..10).map(|n| format!("q{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let probe = probe("lists: ['*']\nmax_queues: 2\ninclude: [q3]", &keys, false);
    let played = play(probe, &mut Memory::default(), NOW, |command| match command.split_once(' ') {
        Some(("LLEN", key)) => Some(int(key[1..].parse::<i64>().unwrap())),
        _ => Some(bulk("x")),
    });
    let heads: BTreeSet<&str> = played
        .commands
        .iter()
        .filter_map(|command| command.strip_prefix("LINDEX ")?.split(' ').next())
        .collect();
    assert_eq!(heads.into_iter().collect::<Vec<_>>(), ["q3", "q8", "q9"]);
    assert_eq!(played.readings.len(), 9, "q0 is empty and unknown");
    assert_eq!(played.get("q5", "", QueueMetric::LagSeconds), None);
}

#[test]
fn the_payload_may_tell_the_time() {
    let yaml = "lists: [{name: q, head: right, head_time: 'json:enqueued_at'}]";
    let mut memory = Memory::default();
    let played = seen(&mut memory, yaml, NOW, &["{}", r#"{"enqueued_at":1795372200.112}"#]);
    assert_eq!(played.get("q", "", QueueMetric::LagSeconds), Some(40.0));
    assert_eq!(played.get("q", "", QueueMetric::OldestAge), Some(40.0));
    assert_eq!(played.reading("q", "").info.as_ref().unwrap().lag_method, "head_time");
    let played = seen(&mut memory, yaml, NOW, &["{}", "secret payload"]);
    assert_eq!(played.get("q", "", QueueMetric::LagSeconds), None);
    assert_eq!(played.account.errors("head"), 1);
    let warnings = played.doubts.into_warnings();
    assert_eq!(warnings, [r#"list "q": no time in field "enqueued_at" of the head"#]);
}

#[test]
fn times_come_in_many_notations() {
    let time = |json: &str| payload_time_ms(format!(r#"{{"at":{json}}}"#).as_bytes(), "at");
    let expected = Some(1_795_372_283_788);
    for json in [
        "1795372283.788",
        "1795372283788",
        "1795372283788407",
        r#""1795372283788""#,
        r#""2026-11-22T18:31:23.788Z""#,
        r#""2026-11-22T19:31:23.788407+01:00""#,
    ] {
        assert_eq!(time(json), expected, "{json}");
    }
    for json in ["null", "-1", "0", "true", "[]", r#""soon""#, "1e400", "{}"] {
        assert_eq!(time(json), None, "{json}");
    }
    assert_eq!(payload_time_ms(b"\xff\xfe", "at"), None);
    assert_eq!(payload_time_ms(b"[1]", "at"), None);
}

#[test]
fn wrong_answers_are_marked() {
    for reply in [bulk("many"), Reply::Nil, int(-1), Reply::Array(Vec::new())] {
        let played =
            play(probe("lists: [q]", &["q"], true), &mut Memory::default(), NOW, |_| Some(reply.clone()));
        assert!(played.readings.is_empty(), "{reply:?}");
        assert!(played.doubts.is_partial(PartialReason::Answer), "{reply:?}");
    }
}

proptest! {
    /// A FIFO list with distinct elements, looked at now and then: the reported lag never exceeds the true age of its
    /// oldest element, and with the head configured it is that element's time at the head as far as it was seen.
    #[test]
    fn lag_is_never_overstated(steps in prop::collection::vec((any::<bool>(), 0usize..3, any::<bool>()), 1..60)) {
        let mut memory = Memory::default();
        let mut elements: Vec<(String, i64)> = Vec::new();
        let mut number = 0;
        for (n, (push, count, look)) in steps.into_iter().enumerate() {
            let now = NOW + 1000 * n as i64;
            for _ in 0..count {
                if push {
                    number += 1;
                    elements.push((number.to_string(), now));
                } else if !elements.is_empty() {
                    elements.remove(0);
                }
            }
            if !look || elements.is_empty() {
                continue;
            }
            let names: Vec<&str> = elements.iter().map(|(name, _)| name.as_str()).collect();
            let lag = lag(&mut memory, "lists: [q]", now, &names);
            let age = (now - elements[0].1) as f64 / 1000.0;
            prop_assert!(lag <= age, "lag {lag} of an element {age} old");
        }
    }
}
