//! A disk that fails at any operation, forgets, tears and flips bits: nothing that was acknowledged is lost, nothing that was
//! refused appears, and work goes on when the disk does.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Content, content, open, open_with, options, segment, series, write};
use model::storage::{Append, AppendOptions, AppendSample, Row, StorageAdmin, StorageError};
use tsdb::DbOptions;
use tsdb::fs::{Fault, FaultKind, FaultyFs};

/// A life with everything in it. Answers what was acknowledged; panics are the caller's to see.
fn live(fs: &FaultyFs, options: &DbOptions) -> Content {
    let mut acknowledged = Content::new();
    // The store may fail to open: then it is opened once more, as a supervisor would.
    let open = || open_with(fs, options.clone());
    let Ok(db) = open().or_else(|_| open()) else { return acknowledged };
    let mut layout = None;
    for round in 0..12i64 {
        let t = round * 1000;
        let mut appender = db.appender(AppendOptions::default());
        let (layout, slots) = *layout.get_or_insert_with(|| {
            let layout = appender.open_layout();
            let slots = [0, 1].map(|i| appender.extend_layout(layout, &series(&format!("row{i}"))).unwrap());
            (layout, slots)
        });
        let late = slots.len() == 2 && round == 6;
        if late {
            appender.extend_layout(layout, &series("row2")).unwrap();
        }
        let width = if round >= 6 { 3 } else { 2 };
        let values: Vec<f64> = (0..width).map(|i| (round / (i + 1)) as f64).collect();
        let outcome = appender.append_row(&Row { layout, t, values: &values });
        assert_eq!(outcome.refused, []);
        let name = format!("new{}", round / 3);
        appender.append(None, &series(&name), AppendSample::float(t, 0.5)).unwrap();
        if appender.commit().is_ok() {
            let mut see = |name: &str, v: f64| {
                acknowledged.entry(name.to_owned()).or_default().insert(t, v.to_bits());
            };
            for (i, v) in values.iter().enumerate() {
                see(&format!("row{i}"), *v);
            }
            see(&name, 0.5);
        }
        // An error says that a checkpoint failed, which loses nothing.
        let _ = db.maintain(t);
        if round == 4 || round == 8 {
            let _ = db.checkpoint();
        }
        assert_eq!(content(&db), acknowledged, "in round {round}");
    }
    // The disk comes back before the end: what was refused while it was away is cut off.
    fs.fail_at(None);
    db.maintain(100_000).unwrap();
    // An error says that a sync failed once and no checkpoint has made up for it.
    let _ = db.close();
    acknowledged
}

fn small(sync: bool) -> DbOptions {
    let mut options = options();
    options.wal_segment_bytes = 400;
    options.wal_fsync_interval = if sync { Duration::ZERO } else { Duration::from_secs(2) };
    options
}

/// Opens what is left and checks it, then writes on and checks again.
fn survives(fs: &FaultyFs, options: &DbOptions, want: &Content, context: &str) {
    let db = open_with(fs, options.clone()).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(&content(&db), want, "{context}");
    write(&db, &[("after", 20_000, 1.0), ("row0", 20_000, 2.0)]).unwrap();
    drop(db);
    let db = open_with(&fs.after_kill(), options.clone()).unwrap();
    let mut want = want.clone();
    want.entry("after".to_owned()).or_default().insert(20_000, 1f64.to_bits());
    want.entry("row0".to_owned()).or_default().insert(20_000, 2f64.to_bits());
    assert_eq!(content(&db), want, "{context}, written on");
    assert!(db.replay_progress().done);
}

#[test]
fn any_operation_may_fail() {
    for sync in [false, true] {
        let options = small(sync);
        let fs = FaultyFs::new();
        let want = live(&fs, &options);
        assert_eq!(want.len(), 7);
        let operations = fs.operations();
        assert!(operations > 40, "{operations}");
        for at in 0..operations {
            // Two in a row: what fails, and what was to undo it.
            let faults =
                [(FaultKind::Io, 1), (FaultKind::NoSpace, 1), (FaultKind::Io, 2), (FaultKind::NoSpace, 7)];
            for (kind, times) in faults {
                let context = format!("{kind:?} × {times} at operation {at} of {operations}, sync {sync}");
                let fs = FaultyFs::new();
                fs.fail_at(Some(Fault { at, times, kind }));
                let want = live(&fs, &options);
                fs.fail_at(None);
                survives(&fs.after_kill(), &options, &want, &context);
                if sync && times <= 2 {
                    for keep in [0, 100, 255] {
                        survives(
                            &fs.lose_power(keep),
                            &options,
                            &want,
                            &format!("{context}, power lost, {keep}"),
                        );
                    }
                }
            }
        }
    }
}

/// A checkpoint that fails at any point, and whose undoing fails too, leaves no segment behind that takes commits back.
#[test]
fn a_failed_checkpoint_takes_no_later_commit_back() {
    for sync in [false, true] {
        let mut options = options();
        options.wal_fsync_interval = if sync { Duration::ZERO } else { Duration::from_secs(1) };
        for (at, times) in (0..14).flat_map(|at| [1, 2, 3, 4].map(|times| (at, times))) {
            let context = format!("{times} from operation {at} of the checkpoint on, sync {sync}");
            let fs = FaultyFs::new();
            let db = open_with(&fs, options.clone()).unwrap();
            write(&db, &[("before", 1000, 1.0)]).unwrap();
            fs.fail_at(Some(Fault { at: fs.operations() + at, times, kind: FaultKind::Io }));
            let _ = db.checkpoint();
            let mut refused = Vec::new();
            for t in 1001..1004 {
                match write(&db, &[("after", t, 1.0)]) {
                    Ok(()) => refused.clear(),
                    Err(_) => refused.push(t),
                }
                let want = content(&db);
                let check = |fs: FaultyFs, how: &str| {
                    let mut left = content(&open_with(&fs, options.clone()).unwrap());
                    // See the document: a death before the next good commit may show refused ones.
                    if let Some(after) = left.get_mut("after") {
                        after.retain(|t, _| !refused.contains(t));
                    }
                    left.retain(|_, samples| !samples.is_empty());
                    assert_eq!(left, want, "{context}, {how} at {t}");
                };
                check(fs.after_kill(), "killed");
                if sync {
                    check(fs.lose_power(0), "power lost");
                }
            }
            fs.fail_at(None);
            write(&db, &[("after", 1004, 1.0)]).unwrap_or_else(|error| panic!("{context}: {error}"));
            let want = content(&db);
            db.maintain(5000).unwrap();
            db.checkpoint().unwrap();
            assert_eq!(content(&open_with(&fs.after_kill(), options.clone()).unwrap()), want, "{context}");
        }
    }
}

/// Without syncs in commits, a loss of power leaves the first so many commits, and all that a sync was over for.
#[test]
fn what_power_takes_is_the_end_only() {
    let options = small(false);
    let fs = FaultyFs::new();
    let mut db = open_with(&fs, options.clone()).unwrap();
    let mut synced = 0;
    for t in 0..60i64 {
        write(&db, &[("all", t, 1.0), (&format!("new{t}"), t, 1.0)]).unwrap();
        match t {
            20 | 40 => {
                db.checkpoint().unwrap();
                synced = t;
            }
            30 => {
                // Killed, and another process goes on.
                drop(db);
                db = open_with(&fs, options.clone()).unwrap();
                synced = t;
            }
            _ if t % 9 == 0 => {
                db.maintain(t * 10_000).unwrap();
                synced = t;
            }
            _ => {}
        }
        for seed in 0..12 {
            let left = fs.lose_power_unevenly(seed + t.cast_unsigned() * 100);
            let left = content(&open_with(&left, options.clone()).unwrap());
            let times: Vec<i64> = left.get("all").map_or(Vec::new(), |all| all.keys().copied().collect());
            let context = format!("power lost at {t}, synced at {synced}, seed {seed}: {times:?}");
            assert!(times.iter().copied().eq(0..times.len() as i64), "{context}");
            assert!(times.len() as i64 > synced, "{context}");
            assert_eq!(left.len(), times.len() + 1, "{context}");
        }
    }
}

/// A disk that takes its time over syncs does not hold up commits while segments change and checkpoints are written.
#[test]
fn commits_do_not_wait_for_the_syncs_of_others() {
    let fs = FaultyFs::new();
    let db = open_with(&fs, small(false)).unwrap();
    write(&db, &[("a", 1000, 1.0)]).unwrap();
    let before = fs.paths().len();
    std::thread::scope(|scope| {
        let held = fs.hold_syncs();
        let checkpoint = scope.spawn(|| db.checkpoint());
        while fs.paths().len() == before {
            std::thread::yield_now();
        }
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let db = &db;
        scope.spawn(move || {
            for t in 2000..2010 {
                write(db, &[("a", t, 1.0)]).unwrap();
            }
            done.send(()).unwrap();
        });
        let waited = wait.recv_timeout(Duration::from_secs(10));
        drop(held);
        waited.expect("commits wait for a sync");
        checkpoint.join().unwrap().unwrap();
    });
    assert!(fs.paths().len() > before);
    let want = content(&db);
    assert_eq!(want["a"].len(), 11);
    assert_eq!(content(&open_with(&fs.after_kill(), small(false)).unwrap()), want);
}

#[test]
fn opening_may_fail_anywhere_and_works_the_next_time() {
    let options = small(false);
    let fs = FaultyFs::new();
    let want = live(&fs, &options);
    // A torn record and an unfinished checkpoint, so that opening has something to mend.
    let last = fs.paths().into_iter().rfind(|path| path.starts_with("/data/wal")).unwrap();
    let mut bytes = fs.read(&last).unwrap();
    bytes.extend_from_slice(&[40, 0, 0, 0, 1, 9]);
    fs.write(&last, bytes);
    fs.write(Path::new("/data/checkpoint.00000099.tmp"), vec![1, 2, 3]);
    for at in 0..20 {
        let fs = fs.after_kill();
        fs.fail_at(Some(Fault { at, times: 1, kind: FaultKind::Io }));
        let _ = open_with(&fs, options.clone());
        fs.fail_at(None);
        survives(&fs.after_kill(), &options, &want, &format!("operation {at} of opening"));
    }
}

#[test]
fn a_full_disk_refuses_and_leaves_nothing_behind() {
    let fs = FaultyFs::new();
    let db = open(&fs);
    write(&db, &[("a", 1000, 1.0)]).unwrap();
    fs.fail_at(Some(Fault { at: fs.operations(), times: 1_000_000, kind: FaultKind::NoSpace }));
    for _ in 0..3 {
        let refused = write(&db, &[("a", 2000, 2.0), ("b", 2000, 2.0)]).unwrap_err();
        assert!(matches!(refused, StorageError::Io { .. }), "{refused}");
        assert_eq!(content(&db).len(), 1);
    }
    fs.fail_at(None);
    // The series that was refused is introduced to the log again, at the same time with another value.
    write(&db, &[("b", 2000, 3.0)]).unwrap();
    let want = content(&db);
    assert_eq!(want["b"][&2000], 3f64.to_bits());
    assert_eq!(want["a"].len(), 1);
    assert_eq!(content(&open(&fs.after_kill())), want);
}

/// Everything that a start may have to mend is there: it is put off until there is space, and queries answer meanwhile.
#[test]
fn a_full_disk_can_be_opened_and_read() {
    let options = small(false);
    let sound = FaultyFs::new();
    live(&sound, &options);
    let db = open_with(&sound, options.clone()).unwrap();
    for t in 15_000..15_020 {
        write(&db, &[("more", t, 1.0)]).unwrap();
    }
    let want = content(&db);
    drop(db);
    let last = |fs: &FaultyFs| fs.paths().into_iter().rfind(|path| path.starts_with("/data/wal")).unwrap();
    let torn = sound.after_kill();
    let mut bytes = torn.read(&last(&torn)).unwrap();
    bytes.extend_from_slice(&[40, 0, 0, 0, 1, 9]);
    torn.write(&last(&torn), bytes);
    torn.write(Path::new("/data/checkpoint.00000099.tmp"), vec![1, 2, 3]);
    let damaged = sound.after_kill();
    let first = damaged.paths().into_iter().find(|path| path.starts_with("/data/wal")).unwrap();
    let mut bytes = damaged.read(&first).unwrap();
    assert_ne!(first, last(&damaged), "segments follow the damaged one");
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    damaged.write(&first, bytes.clone());
    let less = content(&open_with(&damaged.after_kill(), options.clone()).unwrap());
    assert!(!less.is_empty() && less != want);
    for (fs, want) in [(sound, want.clone()), (torn, want), (damaged.clone(), less)] {
        let before = fs.after_kill();
        fs.fail_at(Some(Fault { at: fs.operations(), times: u64::MAX, kind: FaultKind::NoSpace }));
        let db = open_with(&fs, options.clone()).unwrap();
        for round in 0..3 {
            assert_eq!(content(&db), want);
            let refused = write(&db, &[("b", 20_000 + round, 2.0)]).unwrap_err();
            assert!(matches!(refused, StorageError::Io { .. }), "{refused}");
            // An error says that a checkpoint failed.
            let _ = db.maintain(20_000 + round);
        }
        for path in before.paths() {
            assert_eq!(before.read(&path), fs.read(&path), "{}: nothing was touched", path.display());
        }
        survives(&fs.after_kill(), &options, &want, "killed while there was no space");
        fs.fail_at(None);
        write(&db, &[("b", 20_000, 3.0)]).unwrap();
        let want = content(&db);
        assert_eq!(want["b"].len(), 1);
        drop(db);
        survives(&fs.after_kill(), &options, &want, "after there was space again");
        for path in fs.paths() {
            assert!(!path.to_string_lossy().contains("corrupt.1"), "{}: kept twice", path.display());
        }
    }
    let aside = first.with_file_name(format!("{}.corrupt", first.file_name().unwrap().to_str().unwrap()));
    assert_eq!(damaged.read(&aside).unwrap(), bytes, "the damaged bytes are kept as soon as there is space");
}

/// Segments 1 with three commits, closed.
fn three_commits() -> (FaultyFs, Vec<usize>) {
    let fs = FaultyFs::new();
    let db = open(&fs);
    let mut ends = Vec::new();
    for (index, name) in ["a", "b", "c"].iter().enumerate() {
        write(&db, &[(name, 1000 + index as i64, 1.5), ("all", 1000 + index as i64, 1.0)]).unwrap();
        ends.push(fs.read(&segment(1)).unwrap().len());
    }
    db.close().unwrap();
    (fs, ends)
}

fn counter(registry: &prometheus::Registry, name: &str) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    family.get_metric()[0].get_counter().get_value() as u64
}

fn open_counted(fs: &FaultyFs) -> (std::sync::Arc<tsdb::Db>, u64, u64) {
    let registry = prometheus::Registry::new();
    let db = tsdb::Db::open(options(), &registry, std::sync::Arc::new(fs.clone())).unwrap();
    let torn = counter(&registry, "nilometer_tsdb_wal_torn_tails_total");
    (db, torn, counter(&registry, "prometheus_tsdb_wal_corruptions_total"))
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let (fs, ends) = three_commits();
    let bytes = fs.read(&segment(1)).unwrap();
    assert_eq!(bytes.len(), ends[2]);
    for len in ends[1]..ends[2] {
        let fs = fs.after_kill();
        fs.write(&segment(1), bytes[..len].to_vec());
        let (db, torn, corrupt) = open_counted(&fs);
        let content = content(&db);
        assert_eq!(content.keys().collect::<Vec<_>>(), ["a", "all", "b"], "{len}");
        assert_eq!(content["all"].len(), 2);
        assert_eq!((torn, corrupt), (u64::from(len > ends[1]), 0), "{len}");
        assert_eq!(fs.read(&segment(1)).unwrap().len(), ends[1]);
        write(&db, &[("d", 2000, 1.0)]).unwrap();
        assert_eq!(common::content(&open(&fs.after_kill())).len(), 4, "{len}");
    }
}

#[test]
fn flipped_bits_are_found_counted_and_kept() {
    let (fs, ends) = three_commits();
    let bytes = fs.read(&segment(1)).unwrap();
    for at in 0..bytes.len() {
        for bit in [0, 6] {
            let fs = fs.after_kill();
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            fs.write(&segment(1), flipped.clone());
            // Behind the damage: a segment that rests on it.
            fs.write(&segment(2), fs.read(&segment(1)).unwrap());
            let (db, torn, corrupt) = open_counted(&fs);
            let sound = ends.iter().filter(|end| **end <= at).count();
            let names = if at < 28 { 0 } else { sound };
            let content = content(&db);
            assert_eq!(content.len(), if names == 0 { 0 } else { names + 1 }, "byte {at}, bit {bit}");
            assert!(torn + corrupt >= 1);
            assert!(corrupt >= 1, "byte {at}: not the last segment, so it is no torn tail");
            let aside = fs.read(Path::new("/data/wal/00000001.corrupt")).unwrap();
            assert_eq!(aside, flipped, "the damaged bytes are kept");
            assert!(fs.read(Path::new("/data/wal/00000002.corrupt")).is_some());
            write(&db, &[("d", 2000, 1.0)]).unwrap();
            let again = common::content(&open(&fs.after_kill()));
            assert_eq!(again, common::content(&db));
        }
    }
}

#[test]
fn an_unknown_version_is_named_and_nothing_touched() {
    let (fs, _) = three_commits();
    let mut bytes = fs.read(&segment(1)).unwrap();
    bytes[4] = 2;
    let crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    fs.write(&segment(1), bytes.clone());
    let error = open_with(&fs, options()).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("00000001"), "{error}");
    assert_eq!(fs.read(&segment(1)).unwrap(), bytes);
}

#[test]
fn a_damaged_checkpoint_costs_what_was_damaged_and_is_kept() {
    let fs = FaultyFs::new();
    let db = open(&fs);
    // Incompressible names, so that the series need several records.
    for index in 0..400u64 {
        let noise = |i: u64| {
            index.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        let name: String = (0..120).map(|i| format!("{:016x}", noise(i))).collect();
        write(&db, &[(&name, 1000, 1.0)]).unwrap();
    }
    db.checkpoint().unwrap();
    write(&db, &[("tail", 2000, 1.0)]).unwrap();
    let path = Path::new("/data/checkpoint.00000002");
    let mut bytes = fs.read(path).unwrap();
    assert!(fs.read(&segment(1)).is_none(), "covered segments are removed");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs.write(path, bytes.clone());
    let (db, _, corrupt) = open_counted(&fs.after_kill());
    let left = content(&db).len();
    assert!(corrupt >= 1 && left > 100 && left < 401, "{left}");
    assert!(content(&db).contains_key("tail"));
    drop(db);
    let fs = fs.after_kill();
    let db = open(&fs);
    let want = content(&db);
    db.maintain(3000).unwrap();
    assert_eq!(fs.read(Path::new("/data/checkpoint.00000002.corrupt")).unwrap(), bytes);
    assert_eq!(content(&open(&fs.after_kill())), want, "the new checkpoint has the rest");
}

/// A crash between the appearance of a checkpoint and the removal of what it covers leaves both; the new one may be bad.
#[test]
fn a_damaged_checkpoint_gives_way_to_what_it_covers() {
    // Whether there is a checkpoint before, or just the log from its beginning.
    for older in [true, false] {
        let fs = FaultyFs::new();
        let db = open(&fs);
        write(&db, &[("a", 1000, 1.0), ("gone", 1000, 1.0)]).unwrap();
        if older {
            db.checkpoint().unwrap();
        }
        write(&db, &[("a", 2000, 2.0), ("b", 2000, 2.0)]).unwrap();
        let crashed = fs.after_kill();
        db.checkpoint().unwrap();
        write(&db, &[("a", 3000, 3.0), ("c", 3000, 3.0)]).unwrap();
        let want = content(&db);
        let number = if older { 3 } else { 2 };
        let newest = format!("/data/checkpoint.{number:08}");
        let newest = Path::new(&newest);
        let bytes = fs.read(newest).unwrap();
        crashed.write(newest, bytes.clone());
        crashed.write(&segment(number), fs.read(&segment(number)).unwrap());
        assert!(fs.read(&segment(number - 1)).is_none() && crashed.read(&segment(number - 1)).is_some());
        let aside = newest.with_extension(format!("{number:08}.corrupt"));

        // A sound one counts, and what it covers goes.
        let sound = crashed.after_kill();
        let (db, _, corrupt) = open_counted(&sound);
        assert_eq!((content(&db), corrupt), (want.clone(), 0));
        assert!(sound.read(&segment(number - 1)).is_none() && sound.read(newest).is_some());
        assert!(sound.read(Path::new("/data/checkpoint.00000002")).is_some() != older);

        for damage in [10, 40, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
            let mut damaged = bytes.clone();
            // The last one is cut off.
            match damaged.get_mut(damage) {
                Some(byte) => *byte ^= 4,
                None => damaged.truncate(bytes.len() - 5),
            }
            for refuses in [false, true] {
                let fs = crashed.after_kill();
                fs.write(newest, damaged.clone());
                let times = if refuses { u64::MAX } else { 0 };
                fs.fail_at(Some(Fault { at: 0, times, kind: FaultKind::NoSpace }));
                let (db, _, corrupt) = open_counted(&fs);
                fs.fail_at(None);
                assert_eq!(content(&db), want, "byte {damage}");
                assert_eq!(corrupt, 1);
                assert_eq!(fs.read(if refuses { newest } else { &aside }).unwrap(), damaged, "it is kept");
                assert!(fs.read(&segment(number - 1)).is_some());
                // Once more from what is left, and from what the next checkpoint leaves.
                assert_eq!(content(&open(&fs.after_kill())), want);
                write(&db, &[("a", 4000, 4.0)]).unwrap();
                db.checkpoint().unwrap();
                let want = content(&db);
                assert_eq!(content(&open(&fs.after_kill())), want);
                assert_eq!(fs.read(&aside).unwrap(), damaged, "it is kept");
            }
        }
        // Without all segments behind the older one, the damaged one is all there is, and nothing is removed.
        let fs = crashed.after_kill();
        let mut damaged = bytes.clone();
        damaged[bytes.len() - 1] ^= 4;
        fs.write(newest, damaged.clone());
        tsdb::fs::FileSystem::remove(&fs, &segment(number - 1)).unwrap();
        let (db, _, corrupt) = open_counted(&fs);
        assert!(corrupt >= 1);
        assert_eq!(content(&db), want, "only the end mark is damaged");
        assert_eq!(fs.read(newest).unwrap(), damaged);
        assert!(fs.read(Path::new("/data/checkpoint.00000002")).is_some());
    }
}

#[test]
fn a_directory_has_one_master_and_knows_how_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let real = || -> std::sync::Arc<dyn tsdb::fs::FileSystem> { std::sync::Arc::new(tsdb::fs::RealFs) };
    let mut options = options();
    options.dir = dir.path().to_owned();
    let clean = |registry: &prometheus::Registry| {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "prometheus_tsdb_clean_start").unwrap();
        family.get_metric()[0].get_gauge().get_value()
    };
    let registry = prometheus::Registry::new();
    let db = tsdb::Db::open(options.clone(), &registry, real()).unwrap();
    assert_eq!(clean(&registry), 1.0);
    write(&db, &[("a", 1000, -0.0)]).unwrap();
    let refused =
        tsdb::Db::open(options.clone(), &prometheus::Registry::new(), real()).unwrap_err().to_string();
    let pid = std::process::id().to_string();
    assert!(refused.contains(&pid) && refused.contains(dir.path().to_str().unwrap()), "{refused}");
    drop(db);
    let registry = prometheus::Registry::new();
    let db = tsdb::Db::open(options.clone(), &registry, real()).unwrap();
    assert_eq!(clean(&registry), 0.0);
    assert_eq!(content(&db)["a"][&1000], (-0.0f64).to_bits());
    db.checkpoint().unwrap();
    db.close().unwrap();
    assert!(write(&db, &[("a", 2000, 1.0)]).is_err(), "closed");
    let registry = prometheus::Registry::new();
    let db = tsdb::Db::open(options, &registry, real()).unwrap();
    assert_eq!(clean(&registry), 1.0);
    assert_eq!(content(&db)["a"].len(), 1);
}
