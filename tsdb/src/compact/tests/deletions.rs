//! What is deleted stays so, and what a view has seen stays in it.

use super::*;

#[test]
fn a_view_keeps_what_it_saw_while_blocks_come_and_go() {
    let mut store = Store::new(|options| options.retention = Duration::from_hours(24));
    store.live(20 * HOUR);
    let view = store.db.querier(TimeRange::ALL).unwrap();
    let seen = store.want.clone();
    store.live(3 * DAY);
    assert_eq!(content_of(&*view, TimeRange::ALL), seen);
    assert_eq!(store.names().len(), store.blocks().len(), "what it reads is removed all the same");
}

/// Blocks that a query holds are merged, and what they became is merged again: a start must not take the first for blocks
/// that nobody replaced.
#[test]
fn what_is_deleted_stays_so_whatever_a_query_holds_at_the_end() {
    let mut store = Store::new(|options| {
        options.out_of_order_window_ms = 0;
        options.wal_fsync_interval = Duration::ZERO;
    });
    store.live(5 * HOUR);
    let first = store.blocks()[0].clone();
    assert_eq!((first.level, store.blocks().len()), (1, 1), "{:?}", spans(&store.blocks()));
    let prefix = format!("/data/{}/", first.id);
    let paths = store.fs.paths();
    let files: Vec<_> = paths.iter().filter(|path| path.to_str().unwrap().starts_with(&prefix)).collect();
    let files: Vec<_> = files.into_iter().map(|path| (path.clone(), store.fs.read(path).unwrap())).collect();
    let held = store.db.querier(TimeRange::ALL).unwrap();
    store.live(17 * HOUR);
    assert_eq!(spans(&store.blocks())[0], (0, 18, 3));
    let range = TimeRange::new(START, START + HOUR);
    store.db.delete_series(range, &[vec![Matcher::equal("__name__", "a")]]).unwrap();
    store.want.get_mut("a").unwrap().retain(|t, _| !range.contains(*t));
    store.check();
    let mut dead = twin_of(&store, &store.fs);
    dead.check();
    // The same when it is there since it could not be removed.
    for (path, bytes) in files {
        dead.fs.write(&path, bytes);
    }
    dead.kill();
    dead.check();
    assert_eq!(dead.names().len(), dead.blocks().len());
    assert!(content_of(&*held, range)["a"].len() > 10, "the query goes on");
}

/// Every reading of an hour's compactions fails once, that of the new block's files too.
#[test]
fn what_is_deleted_stays_so_when_reading_has_failed() {
    let mut store = Store::new(|options| {
        options.out_of_order_window_ms = 0;
        options.wal_fsync_interval = Duration::ZERO;
    });
    store.live(7 * HOUR);
    store.run(3 * HOUR);
    let before = store.fs.after_kill();
    let twin = twin_of(&store, &before);
    let from = twin.fs.reads();
    twin.db.compact(twin.now()).unwrap();
    let count = twin.fs.reads() - from;
    assert_eq!(spans(&twin.blocks()), [(0, 6, 2), (6, 8, 1)], "there is a merge in it");
    assert!(count > 5);
    for at in 0..count {
        let mut twin = twin_of(&store, &before);
        twin.fs.fail_reads_at(Some(Fault { at: twin.fs.reads() + at, times: 1, kind: FaultKind::Io }));
        let _ = twin.db.compact(twin.now());
        twin.fs.fail_reads_at(None);
        let range = TimeRange::new(START, START + 6 * HOUR);
        twin.db.delete_series(range, &[vec![Matcher::equal("__name__", "a")]]).unwrap();
        twin.want.get_mut("a").unwrap().retain(|t, _| !range.contains(*t));
        twin.check();
        twin.clock.advance(2 * MINUTE);
        twin.compact();
        twin.check();
        twin.kill();
        twin.check();
        assert_eq!(twin.names().len(), twin.blocks().len());
    }
}

#[test]
fn a_deletion_names_the_blocks_that_it_does_not_reach() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(10 * HOUR);
    let victim = store.blocks()[0].id.clone();
    let meta = std::path::PathBuf::from(format!("/data/{victim}/meta.json"));
    let bytes = store.fs.read(&meta).unwrap();
    store.fs.write(&meta, b"{}".to_vec());
    store.kill();
    let selectors = [vec![Matcher::equal("__name__", "a")]];
    let error = store.db.delete_series(TimeRange::ALL, &selectors).unwrap_err().to_string();
    assert!(error.contains(&victim), "{error}");
    assert!(!store.content().contains_key("a"), "what is in reach is deleted");
    // Mended, it is found at once.
    store.fs.write(&meta, bytes);
    store.db.delete_series(TimeRange::ALL, &selectors).unwrap();
    store.want.remove("a");
    store.check();
}

#[test]
fn deleted_samples_are_gone_and_their_space_comes_back() {
    let mut store = Store::new(|options| options.wal_fsync_interval = Duration::ZERO);
    store.live(12 * HOUR);
    store.run(HOUR / 2);
    let delete = |store: &mut Store, name: &str, range: TimeRange| {
        store.db.delete_series(range, &[vec![Matcher::equal("__name__", name)]]).unwrap();
        store.want.get_mut(name).unwrap().retain(|t, _| !range.contains(*t));
    };
    // In blocks, in the head, and over their border.
    delete(&mut store, "a", TimeRange::new(START + HOUR, START + 3 * HOUR));
    delete(&mut store, "b", TimeRange::new(START + 12 * HOUR, i64::MAX));
    delete(&mut store, "c", TimeRange::new(START + 5 * HOUR, START + 12 * HOUR));
    store.check();
    assert!(store.blocks().iter().any(|block| block.tombstones > 0));
    store.reopen_on(store.fs.lose_power(0));
    store.check();
    let (late, t) = ("a", START + 2 * HOUR + 1);
    store.append(&[(late, t, 7.0)]);
    store.check();
    assert!(store.want[late].contains_key(&t), "what comes later is not hidden");
    store.live(12 * HOUR);
    store.check();
    // Of the oldest block, everything.
    let oldest = store.blocks()[0].clone();
    let range = TimeRange::new(oldest.min_time, oldest.max_time - 1);
    for name in store.want.keys().cloned().collect::<Vec<_>>() {
        delete(&mut store, &name, range);
    }
    store.check();
    let before: u64 = store.blocks().iter().map(|block| block.samples).sum();
    store.db.clean_tombstones().unwrap();
    store.check();
    let blocks = store.blocks();
    assert!(blocks.iter().all(|block| block.tombstones == 0 && block.id != oldest.id), "{blocks:?}");
    let after: u64 = blocks.iter().map(|block| block.samples).sum();
    assert_eq!(before - after, oldest.samples, "{:?}", spans(&blocks));
    store.kill();
    store.check();
}
