//! Operations and readings fail, power goes, blocks are damaged: nothing is lost, nothing comes back.

use super::*;

/// Every operation of an hour's compactions fails once: nothing is lost, nothing appears, and it is made good later.
#[test]
fn compaction_fails_anywhere_and_goes_on() {
    let mut store = Store::new(|options| options.wal_fsync_interval = Duration::ZERO);
    store.live(7 * HOUR);
    store.run(2 * HOUR);
    let before = store.fs.after_kill();
    let count = {
        let mut twin = twin_of(&store, &before);
        let from = twin.fs.operations();
        twin.compact();
        twin.check();
        let levels: Vec<_> = twin.blocks().iter().map(|block| block.level).collect();
        assert!(levels.iter().any(|level| *level > 1), "there is a merge in it: {:?}", spans(&twin.blocks()));
        twin.want.clear();
        twin.fs.operations() - from
    };
    assert!(count > 20);
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
        for at in 0..count {
            let mut twin = twin_of(&store, &before);
            twin.fs.fail_at(Some(Fault { at: twin.fs.operations() + at, times: 1, kind }));
            let now = twin.now();
            // Whether it says so depends on what failed: a left-over directory is no error.
            let _ = twin.db.maintain(now);
            let _ = twin.db.compact(now);
            twin.fs.fail_at(None);
            twin.check();
            twin.append(&[("a", now, 1.0)]);
            twin.clock.advance(HOUR);
            twin.compact();
            twin.check();
            twin.clock.advance(HOUR);
            twin.compact();
            twin.reopen_on(twin.fs.lose_power(0));
            twin.check();
            let blocks = twin.blocks();
            assert!(
                blocks.windows(2).all(|pair| pair[0].max_time <= pair[1].min_time),
                "{:?}",
                spans(&blocks)
            );
            assert_eq!(twin.names().len(), blocks.len(), "{kind:?} at {at} left {:?}", twin.names());
        }
    }
}

/// Power is lost after every operation of an hour's compactions.
#[test]
fn compaction_may_end_anywhere() {
    let mut store = Store::new(|options| options.wal_fsync_interval = Duration::ZERO);
    store.live(7 * HOUR);
    store.run(2 * HOUR);
    let before = store.fs.after_kill();
    for at in 0.. {
        let twin = twin_of(&store, &before);
        // From one operation on nothing is done any more.
        let last = twin.fs.operations() + at;
        twin.fs.fail_at(Some(Fault { at: last, times: u64::MAX, kind: FaultKind::Io }));
        let now = twin.now();
        let _ = twin.db.maintain(now);
        let _ = twin.db.compact(now);
        let done = twin.fs.operations() <= last;
        for (how, after) in
            [twin.fs.after_kill(), twin.fs.lose_power(0), twin.fs.lose_power_unevenly(at)].iter().enumerate()
        {
            after.fail_at(None);
            let twin = twin_of(&store, after);
            twin.check();
            twin.clock.advance(HOUR);
            twin.compact();
            twin.check();
            let blocks = twin.blocks();
            assert!(
                blocks.windows(2).all(|pair| pair[0].max_time <= pair[1].min_time),
                "{:?}",
                spans(&blocks)
            );
            assert_eq!(
                twin.names().len(),
                blocks.len(),
                "{at} {how}: {:?} {:?}",
                twin.names(),
                twin.blocks()
            );
        }
        if done {
            assert!(at > 20);
            break;
        }
    }
}

/// Out-of-order samples of several blocks' spans become several blocks, and every operation of that fails once: all of them
/// come or none, so that tries do not pile up.
#[test]
fn late_samples_become_blocks_all_or_none() {
    let mut store = Store::new(|options| options.wal_fsync_interval = Duration::ZERO);
    store.live(10 * HOUR);
    store.db.maintain(store.now()).unwrap();
    let late = [1, 3, 5].map(|hour| ("a", START + hour * HOUR + 1, -1.0));
    store.append(&late);
    let samples = |store: &Store| store.blocks().iter().map(|block| block.samples).sum::<u64>();
    let before = (store.fs.after_kill(), samples(&store));
    let twin_of_now = |store: &Store| {
        let twin = twin_of(store, &before.0);
        // The first look at the clock, then the time for blocks of late samples.
        twin.db.compact(twin.now()).unwrap();
        twin.clock.advance(2 * HOUR);
        twin
    };
    let twin = twin_of_now(&store);
    assert_eq!(samples(&twin), before.1);
    let from = twin.fs.operations();
    twin.db.compact(twin.now()).unwrap();
    let count = twin.fs.operations() - from;
    let added = samples(&twin) - before.1;
    assert!(added >= 3);
    for at in 0..count {
        let twin = twin_of_now(&store);
        let fault = Fault { at: twin.fs.operations() + at, times: 1, kind: FaultKind::NoSpace };
        twin.fs.fail_at(Some(fault));
        let _ = twin.db.compact(twin.now());
        twin.fs.fail_at(None);
        let got = samples(&twin) - before.1;
        assert!(got == 0 || got == added, "at {at}: {got} of {added}");
        twin.check();
        twin.clock.advance(HOUR);
        twin.db.compact(twin.now()).unwrap();
        assert_eq!(samples(&twin), before.1 + added);
        twin.check();
        assert_eq!(twin.names().len(), twin.blocks().len());
    }
}

#[test]
fn a_panic_is_an_error_and_is_counted() {
    let store = Store::new(|_| {});
    let result = store.db.caught(|| -> Result<(), StorageError> { panic!("at {}", 7) });
    assert!(result.unwrap_err().to_string().ends_with("at 7"));
    assert_eq!(store.metric("nilometer_tsdb_compactions_panicked_total"), 1.0);
    assert!(store.db.caught(|| Ok(1)).is_ok());
    store.db.compact(store.now()).unwrap();
}

#[test]
fn a_block_that_cannot_be_opened_is_left_alone() {
    let mut store = Store::new(|options| options.out_of_order_window_ms = 0);
    store.live(10 * HOUR);
    let victim = store.blocks()[1].clone();
    let meta = std::path::PathBuf::from(format!("/data/{}/meta.json", victim.id));
    let bytes = store.fs.read(&meta).unwrap();
    store.fs.write(&meta, b"{}".to_vec());
    store.kill();
    assert_eq!(store.blocks().len(), 1);
    assert_eq!(store.metric("nilometer_tsdb_blocks_unreadable"), 1.0);
    assert!(store.metric("prometheus_tsdb_reloads_failures_total") >= 1.0);
    let whole = store.want.clone();
    for samples in store.want.values_mut() {
        samples.retain(|t, _| *t < victim.min_time || *t >= victim.max_time);
    }
    store.check();
    store.live(2 * HOUR);
    assert!(store.names().contains(&victim.id), "it stays");
    // Mended, it is found while running.
    store.fs.write(&meta, bytes);
    store.live(HOUR);
    assert_eq!(store.metric("nilometer_tsdb_blocks_unreadable"), 0.0);
    for (name, samples) in whole {
        store.want.entry(name).or_default().extend(samples);
    }
    store.check();
}
