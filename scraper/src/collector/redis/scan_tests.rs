//! Tests of scanning against servers that are functions.

use super::*;
use crate::collector::account::{Account, Doubts};
use crate::collector::redis::testing::{bulk, error, list, words};

fn options(yaml: &str) -> RedisOptions {
    let raw: crate::collector::redis::RawRedisOptions = serde_yaml::from_str(yaml).unwrap();
    raw.build(&model::ConfigPath::root(), std::path::Path::new("/")).unwrap()
}

struct Run {
    commands: Vec<String>,
    doubts: Doubts,
}

/// One collection against `answer`, which is given database, cursor, count and type.
fn collection(
    scan: &mut Scan,
    databases: &[u32],
    budget: u64,
    yaml: &str,
    mut answer: impl FnMut(u32, u64, u64, &str) -> Reply,
) -> Run {
    let mut doubts = Doubts::default();
    let mut account = Account::new(&[]);
    let mut intake = Intake { doubts: &mut doubts, account: &mut account, now_ms: 0 };
    let mut commands = Vec::new();
    scan.begin(databases, &[KeyType::List, KeyType::Stream], budget);
    while let Some((db, command)) = scan.next() {
        let words = words(&command);
        let number = |index: usize| words[index].parse().unwrap();
        assert_eq!((words[0].as_str(), words[2].as_str(), words[4].as_str()), ("SCAN", "COUNT", "TYPE"));
        let reply = answer(db, number(1), number(3), &words[5]);
        commands.push(format!("{db} {} {}", words[5], words[1]));
        scan.absorb(&reply, &options(yaml), &mut intake);
    }
    Run { commands, doubts }
}

fn page(cursor: u64, keys: &[&str]) -> Reply {
    list([bulk(cursor.to_string()), list(keys.iter().map(bulk))])
}

fn names(scan: &Scan, db: u32, kind: KeyType) -> Vec<String> {
    scan.keys(db, kind).into_iter().map(|key| String::from_utf8(key).unwrap()).collect()
}

const ALL: &str = "scan: {enabled: true}";

#[test]
fn a_small_keyspace_is_walked_once_per_collection() {
    let mut scan = Scan::default();
    let run = collection(&mut scan, &[0, 2], 10_000, ALL, |db, cursor, _, kind| match (db, kind, cursor) {
        (0, "stream", 0) => page(7, &["orders"]),
        (0, "stream", 7) => page(0, &["mail", "orders"]),
        (2, "list", 0) => page(0, &["jobs"]),
        _ => page(0, &[]),
    });
    assert_eq!(run.commands, ["0 list 0", "0 stream 0", "0 stream 7", "2 list 0", "2 stream 0"]);
    assert_eq!(names(&scan, 0, KeyType::Stream), ["mail", "orders"]);
    assert_eq!(names(&scan, 2, KeyType::List), ["jobs"]);
    assert!(scan.is_complete());
    // What the next cycle does not find is gone.
    collection(&mut scan, &[0, 2], 10_000, ALL, |_, _, _, _| page(0, &[]));
    assert!(names(&scan, 0, KeyType::Stream).is_empty());
}

#[test]
fn a_large_keyspace_is_spread_and_nothing_found_is_lost_meanwhile() {
    let mut scan = Scan::default();
    // 5 pages of each type, one key each; 3 pages per collection.
    let answer = |_: u32, cursor: u64, count: u64, kind: &str| {
        assert_eq!(count, 1000);
        page((cursor + 1) % 5, &[&format!("{kind}{cursor}")])
    };
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(collection(&mut scan, &[0], 3000, ALL, answer).commands);
    }
    assert_eq!(runs[0], ["0 list 0", "0 list 1", "0 list 2"]);
    assert_eq!(runs[1], ["0 list 3", "0 list 4", "0 stream 0"]);
    assert_eq!(runs[3], ["0 stream 4", "0 list 0", "0 list 1"]);
    assert!(scan.is_complete());
    assert_eq!(names(&scan, 0, KeyType::List).len(), 5, "the last whole cycle still counts");
    assert_eq!(names(&scan, 0, KeyType::Stream).len(), 5);
}

#[test]
fn the_budget_bounds_a_server_whose_cursor_never_ends() {
    let mut scan = Scan::default();
    let mut asked = 0;
    let run = collection(&mut scan, &[0], 2500, ALL, |_, cursor, count, _| {
        asked += count;
        page(cursor + 1, &[])
    });
    assert_eq!((run.commands.len(), asked), (3, 2500));
    assert!(!scan.is_complete());
}

#[test]
fn only_wanted_names_are_kept() {
    let mut scan = Scan::default();
    let yaml = "streams: ['orders:*']\nlists: ['q:*']\nexclude: ['*:tmp']";
    collection(&mut scan, &[0], 10_000, yaml, |_, _, _, kind| match kind {
        "list" => page(0, &["q:1", "orders:1", "q:tmp"]),
        _ => page(0, &["q:1", "orders:1", "orders:tmp"]),
    });
    assert_eq!(names(&scan, 0, KeyType::List), ["q:1"]);
    assert_eq!(names(&scan, 0, KeyType::Stream), ["orders:1"]);
}

#[test]
fn refusals_and_wrong_answers_end_the_cycle_with_a_mark() {
    let nonsense =
        [list([]), bulk("x"), list([bulk("0"), bulk("x")]), list([bulk("9".repeat(65)), list([])])];
    for reply in nonsense {
        let mut scan = Scan::default();
        let run = collection(&mut scan, &[0], 10_000, ALL, |_, _, _, _| reply.clone());
        assert_eq!(run.commands.len(), 2, "once per type");
        assert!(run.doubts.is_partial(PartialReason::Answer));
    }
    let mut scan = Scan::default();
    let text = "NOPERM this user has no permissions to run the 'scan' command";
    let run = collection(&mut scan, &[0], 10_000, ALL, |_, _, _, _| error(text));
    assert!(
        run.doubts.is_partial(PartialReason::Permission) && !run.doubts.is_partial(PartialReason::Answer)
    );
    assert_eq!(run.doubts.into_warnings(), [format!("SCAN: {text}")]);
}

#[test]
fn overlong_names_are_marked() {
    let mut scan = Scan::default();
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let run = collection(&mut scan, &[0], 10_000, ALL, |_, _, _, _| page(0, &[&long, "ok"]));
    assert!(run.doubts.is_partial(PartialReason::Limit));
    assert_eq!(names(&scan, 0, KeyType::List), ["ok"]);
}
