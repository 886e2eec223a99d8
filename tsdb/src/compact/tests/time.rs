//! Time passes: levels, gaps, ids, snapshots.

use super::*;

#[test]
fn weeks_pass_and_queries_see_everything_all_the_time() {
    let mut store = Store::new(|_| {});
    for day in 0..24 {
        store.live(DAY);
        if day % 3 == 0 {
            store.check();
        }
        if day % 7 == 3 {
            store.kill();
            store.check();
        }
        let held = store.db.shared.head.range().unwrap();
        assert!(held.max - held.min <= 13 * HOUR, "the head is let go: {held:?}");
    }
    store.check();
    let blocks = store.blocks();
    assert!(blocks.windows(2).all(|pair| pair[0].max_time <= pair[1].min_time), "{:?}", spans(&blocks));
    assert!(blocks.iter().any(|block| block.max_time - block.min_time == 486 * HOUR), "{:?}", spans(&blocks));
    assert!(blocks.len() < 24, "{:?}", spans(&blocks));
    // A part of time is that part.
    let range = TimeRange::new(START + 5 * DAY + 1, START + 9 * DAY);
    let got = content_of(&*store.db.querier(range).unwrap(), range);
    for (name, want) in &store.want {
        let want: BTreeMap<_, _> = want.range(range.min..=range.max).map(|(t, bits)| (*t, *bits)).collect();
        assert_eq!(got.get(name).cloned().unwrap_or_default(), want, "{name}");
    }
    assert!(store.metric("prometheus_tsdb_compactions_total") > 100.0);
    assert!(store.metric("prometheus_tsdb_vertical_compactions_total") > 0.0);
    assert_eq!(store.metric("prometheus_tsdb_compactions_failed_total"), 0.0);
    assert_eq!(store.metric("prometheus_tsdb_blocks_loaded"), blocks.len() as f64);
    let dirs: Vec<String> = blocks.iter().map(|block| block.id.clone()).collect();
    let mut names = store.names();
    names.sort();
    let mut dirs_sorted = dirs.clone();
    dirs_sorted.sort();
    assert_eq!(names, dirs_sorted, "replaced blocks are removed");
}

#[test]
fn levels_fill_as_time_goes() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(10 * HOUR);
    // The head keeps the last three hours at most, and the newest block is left alone.
    assert_eq!(spans(&store.blocks()), [(0, 6, 2), (6, 8, 1)]);
    store.live(12 * HOUR);
    assert_eq!(spans(&store.blocks()), [(0, 18, 3), (18, 20, 1)]);
    let blocks = store.blocks();
    assert_eq!(blocks[0].sources.len(), 9);
    assert_eq!(blocks[0].parents.len(), 3);
    store.check();
}

#[test]
fn series_limits_labels_and_values_are_those_of_all_sources() {
    let mut store = Store::new(|_| {});
    store.append(&[("old", START, 1.0), ("both", START, 1.0)]);
    store.live(8 * HOUR);
    store.append(&[("new", store.now(), 1.0), ("both", store.now(), 2.0)]);
    let querier = store.db.querier(TimeRange::ALL).unwrap();
    let values = querier.label_values("__name__", &[], &LabelHints::default()).unwrap();
    assert_eq!(values.items, store.want.keys().cloned().collect::<Vec<_>>());
    assert!(!values.truncated);
    let values = querier.label_values("__name__", &[], &LabelHints { limit: 2 }).unwrap();
    assert_eq!((values.items.len(), values.truncated), (2, true));
    let only = [Matcher::new(MatchOp::Regex, "__name__", "old|new").unwrap()];
    let values = querier.label_values("__name__", &only, &LabelHints::default()).unwrap();
    assert_eq!(values.items, ["new", "old"]);
    assert_eq!(querier.label_names(&only, &LabelHints::default()).unwrap().items, ["__name__", "job"]);
    assert_eq!(querier.label_names(&[], &LabelHints::default()).unwrap().items, ["__name__", "job"]);
    let all = Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap();
    let hints = SelectHints { limit: 3, ..SelectHints::default() };
    let set = querier.select(&[all], &hints).unwrap();
    let names: Vec<_> = (0..set.len()).map(|i| set.labels(i).metric_name().to_owned()).collect();
    assert_eq!(names, store.want.keys().take(3).cloned().collect::<Vec<_>>());
    let range = store.db.time_range().unwrap();
    let first = store.want.values().filter_map(|samples| samples.keys().next()).min().unwrap();
    assert!(range.min <= *first && range.max == store.now());
}

#[test]
fn a_snapshot_is_a_store() {
    let mut store = Store::new(|_| {});
    store.live(20 * HOUR);
    store.run(HOUR);
    let name = store.db.snapshot(false).unwrap();
    let blocks_only = store.db.snapshot(true).unwrap();
    assert_ne!(name, blocks_only);
    assert!(
        name.starts_with(&format!("{}T", &name[..8]))
            && name.len() == "20060102T150405Z-0123456789abcdef".len()
    );
    let mut copy = store.options.clone();
    copy.dir = format!("/data/snapshots/{name}").into();
    let (db, _) = Store::open(&store.fs.lose_power(0), &copy).unwrap();
    let copied = content_of(&*db.querier(TimeRange::ALL).unwrap(), TimeRange::ALL);
    assert_eq!(copied, store.want);
    copy.dir = format!("/data/snapshots/{blocks_only}").into();
    let (db, _) = Store::open(&store.fs.lose_power(0), &copy).unwrap();
    assert_eq!(db.blocks().len(), store.blocks().len());
    // What is removed here stays there.
    store.live(3 * DAY);
    store.check();
    assert_eq!(content_of(&*db.querier(TimeRange::ALL).unwrap(), TimeRange::ALL).len(), store.want.len());
    // A crash leaves nothing that looks like one.
    store.fs.write(std::path::Path::new("/data/snapshots/x.tmp/y/z"), vec![1]);
    store.kill();
    let snapshots = store.fs.list_dirs(std::path::Path::new("/data/snapshots")).unwrap();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
}

#[test]
fn references_are_counted_also_after_a_restart() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.append(&[("gone", START, 1.0)]);
    store.live(20 * HOUR);
    let metrics = |store: &Store| {
        ["prometheus_tsdb_head_series", "nilometer_tsdb_series_references_given"]
            .map(|name| store.metric(name))
    };
    let before = metrics(&store);
    store.kill();
    for [series, given] in [before, metrics(&store)] {
        assert!(series == 4.0 && given > series, "{given} of {series}");
    }
}

#[test]
fn blocks_may_be_dropped_in_and_taken_away() {
    let mut other = Store::new(|options| options.out_of_order_window_ms = 0);
    other.live(10 * HOUR);
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.clock.advance(30 * DAY);
    store.live(2 * HOUR);
    for path in other.fs.paths() {
        let name = path.strip_prefix("/data").unwrap().to_str().unwrap().to_owned();
        if other.blocks().iter().any(|block| name.starts_with(&block.id)) {
            store.fs.write(&path, other.fs.read(&path).unwrap());
        }
    }
    store.live(HOUR);
    let end = other.blocks().last().unwrap().max_time;
    for (name, samples) in &other.want {
        let samples = samples.iter().filter(|(t, _)| **t < end).map(|(t, bits)| (*t, *bits));
        store.want.entry(name.clone()).or_default().extend(samples);
    }
    store.check();
    let gone = store.blocks()[0].clone();
    store.fs.remove_dir_all(std::path::Path::new(&format!("/data/{}", gone.id))).unwrap();
    store.live(HOUR);
    assert!(store.blocks().iter().all(|block| block.id != gone.id));
}

#[test]
fn closing_ends_compaction() {
    let mut store = Store::new(|_| {});
    store.run(10 * HOUR);
    store.db.compaction.close();
    store.db.compact(store.now()).unwrap();
    assert!(store.blocks().is_empty());
    assert!(matches!(store.db.snapshot(true), Err(StorageError::NotReady(_))));
}

#[test]
fn a_gap_of_years_is_passed_at_once() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(4 * HOUR);
    store.clock.advance(3 * 365 * DAY);
    store.run(HOUR);
    // While an old view is open, the head keeps what it sees.
    let view = store.db.querier(TimeRange::ALL).unwrap();
    let before = store.metric("prometheus_tsdb_head_truncations_total");
    store.compact();
    assert!(store.metric("prometheus_tsdb_head_truncations_total") - before < 10.0);
    store.check();
    drop(view);
    store.live(6 * HOUR);
    store.check();
}

/// A clock that stands still or goes back gives ids that are used already.
#[test]
fn ids_differ_from_all_names_there_are() {
    let mut store = Store::new(|_| {});
    store.live(12 * HOUR);
    let far = "/data/7ZZZZZZZZZ0000000000000000";
    store.fs.write(std::path::Path::new(&format!("{far}/no-block")), vec![1]);
    store.fs.write(std::path::Path::new(&format!("{far}.x/no-block")), vec![1]);
    store.kill();
    store.live(6 * HOUR);
    store.check();
    assert!(store.blocks().iter().any(|block| block.id.starts_with("7ZZZZZZZZZ")), "{:?}", store.blocks());
    assert_eq!(store.metric("prometheus_tsdb_compactions_failed_total"), 0.0);
}

/// A late sample at a time that a block has is taken and not seen; when it goes it is counted, unless it was the same.
#[test]
fn hidden_samples_are_counted_when_they_go() {
    const DROPPED: &str = "nilometer_tsdb_compaction_duplicate_samples_dropped_total";
    let mut store = Store::new(|_| {});
    store.live(6 * HOUR);
    let (t, bits) = store.want["b"].first_key_value().map(|(t, bits)| (*t, *bits)).unwrap();
    let before = store.metric(DROPPED);
    store.append(&[("b", t, f64::from_bits(bits)), ("d", t, 0.5), ("b", t + 1, 0.5)]);
    store.check();
    store.live(6 * HOUR);
    store.check();
    assert_eq!(store.metric(DROPPED) - before, 1.0);
}
