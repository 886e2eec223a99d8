//! What goes by age, by size and by rules.

use super::*;

#[test]
fn old_blocks_go() {
    let mut store = Store::new(|options| {
        options.retention = Duration::from_hours(48);
        options.out_of_order_window_ms = 0;
    });
    store.live(6 * DAY);
    let oldest = store.blocks()[0].clone();
    let newest = store.db.time_range().unwrap().max;
    // Levels go up to a tenth of retention: 2 h here, so that whole blocks are small.
    assert!(
        oldest.max_time > newest - 2 * DAY && oldest.min_time <= newest - 2 * DAY,
        "{:?}",
        spans(&store.blocks())
    );
    assert!(store.metric("prometheus_tsdb_time_retentions_total") >= 40.0);
    for samples in store.want.values_mut() {
        samples.retain(|t, _| *t >= oldest.min_time);
    }
    store.check();
    assert_eq!(store.db.retention_text(), "2d");
    // A clock that jumps ahead drops nothing while samples do not follow; back, neither.
    let before = spans(&store.blocks());
    store.db.compact(store.now() + 10 * DAY).unwrap();
    store.db.compact(store.now() - 10 * DAY).unwrap();
    assert_eq!(spans(&store.blocks()), before);
    store.db.set_retention(Duration::ZERO);
    store.live(DAY);
    assert_eq!(store.blocks()[0].min_time, oldest.min_time);
}

#[test]
fn the_oldest_blocks_go_when_there_are_too_many_bytes() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(3 * DAY);
    let before = store.blocks();
    let blocks_bytes: u64 = before.iter().map(|block| block.size_bytes).sum();
    let all = store.fs.used() as u64;
    store.db.set_retention(Retention { size_bytes: all - blocks_bytes / 2, ..Retention::default() });
    store.compact();
    let after = store.blocks();
    assert!(after.len() < before.len() && !after.is_empty(), "{:?}", spans(&after));
    assert_eq!(after.last(), before.last());
    assert_eq!(
        store.metric("prometheus_tsdb_size_retentions_total"),
        (before.len() - after.len()) as f64,
        "{:?}",
        spans(&after)
    );
    store.db.set_retention(Retention {
        size_bytes: 10 << 30,
        time: Duration::from_hours(360),
        rules: Vec::new(),
    });
    assert_eq!(store.db.retention_text(), "15d or 10GiB");
    assert_eq!(store.metric("prometheus_tsdb_retention_limit_bytes"), (10u64 << 30) as f64);
}

#[test]
fn rules_keep_some_series_longer_and_some_shorter() {
    let rule = |name: &str, hours: u64| RetentionRule {
        matchers: vec![Matcher::equal("__name__", name)],
        duration: Duration::from_hours(hours),
    };
    let mut store = Store::new(|options| {
        options.out_of_order_window_ms = 0;
        options.retention = Duration::from_hours(72);
        options.retention_rules = vec![rule("a", 0), rule("b", 24)];
    });
    store.live(8 * DAY);
    store.want.remove("late");
    let newest = store.db.time_range().unwrap().max;
    for (name, samples) in &mut store.want {
        let floor = match name.as_str() {
            "a" => i64::MIN,
            "b" => newest - DAY,
            _ => newest - 3 * DAY,
        };
        samples.retain(|t, _| *t >= floor);
    }
    let mut got = store.content();
    got.remove("late");
    assert_eq!(got, store.want);
    // Not only hidden: the space is free, but for a day's leeway and what is not worth a rewrite.
    let old: Vec<_> = store.blocks().into_iter().filter(|block| block.max_time < newest - 5 * DAY).collect();
    assert!(!old.is_empty());
    assert!(old.iter().all(|block| block.series == 1), "{old:?}");
    store.kill();
    store.compact();
    let mut got = store.content();
    got.remove("late");
    assert_eq!(got, store.want);
}
