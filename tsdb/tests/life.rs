//! A scripted life of a store with blocks on a failing disk: open, append in and out of order, flush, checkpoint, compact,
//! retention, delete, clean, snapshot, close. Every operation fails once, in every way; power goes at every operation; every
//! read fails once; the disk is full at any size; the clock jumps; bits flip in every file.
//!
//! The short form tries every seventh operation, in the ways by turns; `NILOMETER_FAULTS=all` every one in every way.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Content, content, open_with, options, series};
use model::matcher::{MatchOp, Matcher};
use model::sample::TimeRange;
use model::storage::{
    Append, AppendOptions, AppendSample, LayoutRef, Queryable, Row, SelectHints, SeriesColumns, StorageAdmin,
    StorageError,
};
use model::{Clock, ManualClock, Timestamp};
use tsdb::fs::{Fault, FaultKind, FaultyFs};
use tsdb::{Db, DbOptions, inspect};

const STEP: i64 = 3000;
const ROUNDS: i64 = 32;
const BLOCK: i64 = 10_000;
const RETENTION: i64 = 60_000;

fn life_options(clock: &Arc<ManualClock>) -> DbOptions {
    let mut options = options();
    options.clock = Arc::clone(clock) as Arc<dyn Clock>;
    options.wal_segment_bytes = 700;
    options.checkpoint_bytes = 3000;
    options.wal_fsync_interval = Duration::ZERO;
    options.out_of_order_window_ms = 5000;
    options.block_duration_min = Duration::from_millis(BLOCK as u64);
    options.block_duration_max = Some(Duration::from_millis(3 * BLOCK as u64));
    options.retention = Duration::from_millis(RETENTION as u64);
    options
}

/// What a life has to show for.
#[derive(Clone, Debug, Default)]
struct Known {
    /// What was acknowledged and not deleted.
    acknowledged: Content,
    /// What was deleted, and what was refused: neither may be there.
    gone: Content,
    /// Samples of commits that were refused by a disk that never came back: they could not be cut off the log.
    refused: BTreeSet<(String, Timestamp)>,
    /// Samples of deletions that failed: there or not.
    vague: BTreeSet<(String, Timestamp)>,
    /// Older ones may be gone by age.
    kept_from: Timestamp,
}

impl Known {
    fn see(&mut self, name: &str, t: Timestamp, v: f64) {
        self.acknowledged.entry(name.to_owned()).or_default().insert(t, v.to_bits());
        let newest_end = (t.div_euclid(BLOCK) + 1) * BLOCK;
        self.kept_from = self.kept_from.max(newest_end - RETENTION);
    }

    fn delete(&mut self, name: &str, range: TimeRange, done: bool) {
        let samples = self.acknowledged.entry(name.to_owned()).or_default();
        if done {
            let gone = samples.extract_if(range.min..=range.max, |_, _| true);
            self.gone.entry(name.to_owned()).or_default().extend(gone);
        } else {
            let within = samples.keys().filter(|t| range.contains(**t));
            self.vague.extend(within.map(|t| (name.to_owned(), *t)));
        }
    }

    /// # Panics
    /// When something is missing, or there that may not be.
    fn check(&self, found: &Content, context: &str) {
        for (name, samples) in &self.acknowledged {
            for (t, bits) in samples.range(self.kept_from..) {
                let got = found.get(name).and_then(|samples| samples.get(t));
                let vague = got.is_none() && self.vague.contains(&(name.clone(), *t));
                assert!(got == Some(bits) || vague, "{context}: {name} at {t}: {got:?} instead of {bits}");
            }
        }
        self.check_true(found, context);
    }

    /// # Panics
    /// When something is there that was never acknowledged, or was deleted, or has another value.
    fn check_true(&self, found: &Content, context: &str) {
        for (name, samples) in found {
            for (t, bits) in samples {
                let want = self.acknowledged.get(name).and_then(|samples| samples.get(t));
                let why = match self.gone.get(name).and_then(|samples| samples.get(t)) {
                    Some(_) => "deleted",
                    None => "refused, or has another value",
                };
                let refused = want.is_none() && self.refused.contains(&(name.clone(), *t));
                assert!(want == Some(bits) || refused, "{context}: {name} at {t} is there and was {why}");
            }
        }
    }
}

/// All that can be read; `None` when something cannot.
fn try_content(db: &Db) -> Option<Content> {
    let all = Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap();
    let querier = db.querier(TimeRange::ALL).ok()?;
    let set = querier.select(&[all], &SelectHints::default()).ok()?;
    let mut columns = SeriesColumns::default();
    let mut content = Content::new();
    for index in 0..set.len() {
        set.read(index, &mut columns).ok()?;
        let samples = columns.float_times.iter().zip(&columns.float_values).map(|(t, v)| (*t, v.to_bits()));
        let name = set.labels(index).metric_name().to_owned();
        content.entry(name).or_default().extend(samples);
    }
    Some(content)
}

/// How a life goes.
#[derive(Clone, Copy, Debug)]
struct Script {
    /// What is stored is read and compared in every round.
    reads: bool,
    /// The clock that upkeep is told jumps back and forth by a day.
    jumps: bool,
    /// The disk is as good as new at the end, and a store that failed to open is opened again.
    heals: bool,
}

const PLAIN: Script = Script { reads: true, jumps: false, heals: true };

fn live(fs: &FaultyFs, script: Script) -> Known {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let options = life_options(&clock);
    let mut known = Known { kept_from: Timestamp::MIN, ..Known::default() };
    let open = || open_with(fs, options.clone());
    let Ok(db) = open().or_else(|_| open()) else { return known };
    let mut layout = None;
    for round in 0..ROUNDS {
        let t = round * STEP;
        let now = match round % 5 {
            1 if script.jumps => t + 86_400_000,
            3 if script.jumps => t - 86_400_000,
            _ => t,
        };
        clock.advance(STEP);
        append(&db, &mut known, &mut layout, round, script.heals);
        // Errors say that something is tried again.
        let _ = db.maintain(now);
        if round % 3 == 2 {
            let _ = db.compact(now);
        }
        if round == 5 || round == 21 {
            let _ = db.checkpoint();
        }
        if round == 12 || round == 24 {
            let range = TimeRange::new(t - 25_000, t - 16_000);
            let only = Matcher::equal("__name__", "row1");
            let done = db.delete_series(range, &[vec![only]]).is_ok();
            known.delete("row1", range, done);
        }
        if round == 15 {
            let _ = db.clean_tombstones();
        }
        if round == 18 {
            snapshot(fs, &db, &known, script);
        }
        if script.reads {
            let found = if script.heals { Some(content(&db)) } else { try_content(&db) };
            if let Some(found) = found {
                known.check(&found, &format!("in round {round}"));
            }
        }
    }
    if script.heals {
        fs.fail_at(None);
        fs.fail_reads_at(None);
        fs.set_capacity(None);
        db.maintain(ROUNDS * STEP).unwrap();
        // What failed is put off: by minutes at most.
        clock.advance(3_600_000);
        db.compact(ROUNDS * STEP + 3_600_000).unwrap();
        known.check(&content(&db), "at the end");
        append(&db, &mut known, &mut layout, ROUNDS, true);
        let last = known.acknowledged.get("row0").and_then(|samples| samples.keys().next_back().copied());
        assert_eq!(last, Some(ROUNDS * STEP), "appends go on when the disk does");
    }
    // An error says that a sync failed once and no checkpoint has made up for it.
    let _ = db.close();
    known
}

/// A row, a sample on its own, and now and then one out of order.
fn append(db: &Db, known: &mut Known, layout: &mut Option<LayoutRef>, round: i64, heals: bool) {
    let t = round * STEP;
    let mut appender = db.appender(AppendOptions::default());
    let layout = *layout.get_or_insert_with(|| {
        let layout = appender.open_layout();
        for slot in 0..3 {
            appender.extend_layout(layout, &series(&format!("row{slot}"))).unwrap();
        }
        layout
    });
    let values = [round as f64, 7.0, if round % 4 == 0 { -0.0 } else { 0.1 * round as f64 }];
    assert_eq!(appender.append_row(&Row { layout, t, values: &values }).refused, []);
    let name = format!("new{}", round / 6);
    appender.append(None, &series(&name), AppendSample::float(t, 0.5)).unwrap();
    let late = (round % 3 == 1).then_some(t - 2500);
    appender.append(None, &series("late"), AppendSample::float(t, 2.0)).unwrap();
    if let Some(late) = late {
        appender.append(None, &series("late"), AppendSample::float(late, 1.0)).unwrap();
    }
    let mut all = vec![(name, t, 0.5), ("late".to_owned(), t, 2.0)];
    all.extend((0..3).map(|slot| (format!("row{slot}"), t, values[slot])));
    all.extend(late.map(|late| ("late".to_owned(), late, 1.0)));
    if appender.commit().is_ok() {
        all.iter().for_each(|(name, t, v)| known.see(name, *t, *v));
    } else if !heals {
        known.refused.extend(all.into_iter().map(|(name, t, _)| (name, t)));
    }
}

/// A copy that was acknowledged is a store with all of it.
fn snapshot(fs: &FaultyFs, db: &Db, known: &Known, script: Script) {
    let Ok(name) = db.snapshot(false) else { return };
    if !script.reads || !script.heals {
        return;
    }
    let clock = Arc::new(ManualClock::new(1_000_000));
    let mut options = life_options(&clock);
    options.dir = options.dir.join("snapshots").join(name);
    let copy = open_with(&fs.lose_power(0), options).unwrap();
    known.check(&content(&copy), "in the snapshot");
}

/// Opens what is left and checks it, then works on, and checks again.
fn survives(fs: &FaultyFs, known: &Known, context: &str) {
    let clock = Arc::new(ManualClock::new(100_000_000));
    let db = open_with(fs, life_options(&clock)).unwrap_or_else(|error| panic!("{context}: {error}"));
    known.check(&content(&db), context);
    let mut known = known.clone();
    let mut layout = None;
    for round in ROUNDS + 1..ROUNDS + 4 {
        append(&db, &mut known, &mut layout, round, true);
        db.maintain(round * STEP).unwrap();
        db.compact(round * STEP + 3_600_000).unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    let newest = known.acknowledged["row0"].keys().next_back().copied();
    assert_eq!(newest, Some((ROUNDS + 3) * STEP), "{context}: appends go on");
    known.check(&content(&db), &format!("{context}, worked on"));
    drop(db);
    let db = open_with(&fs.after_kill(), life_options(&clock)).unwrap();
    known.check(&content(&db), &format!("{context}, worked on and opened again"));
}

fn all() -> bool {
    std::env::var("NILOMETER_FAULTS").is_ok_and(|value| value == "all")
}

/// Every operation, or every so manieth.
fn steps(end: u64, short: usize) -> impl Iterator<Item = u64> {
    (0..end).step_by(if all() { 1 } else { short })
}

/// Runs cases and tells of all that failed, not of the first only.
#[derive(Default)]
struct Cases(Vec<String>);

impl Cases {
    fn run(&mut self, context: &str, case: impl FnOnce()) {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case)) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            self.0.push(format!("{context}: {}", text.unwrap_or_default()));
        }
    }

    fn finish(self) {
        let shown = self.0.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.0.is_empty(), "{} cases failed:\n{shown}", self.0.len());
    }
}

/// The cases of `of` to try at `at`.
fn some<T>(of: &[T], at: u64) -> &[T] {
    if all() { of } else { of.get(at as usize % of.len()..).map_or(of, |rest| &rest[..1]) }
}

fn sound() -> (FaultyFs, Known, u64, u64) {
    let fs = FaultyFs::new();
    let known = live(&fs, PLAIN);
    (fs.clone(), known, fs.operations(), fs.reads())
}

#[test]
fn the_life_has_everything_in_it() {
    let (fs, known, operations, reads) = sound();
    assert!(operations > 300 && reads > 300, "{operations} operations, {reads} reads");
    let paths: Vec<String> = fs.paths().iter().map(|path| path.to_string_lossy().into_owned()).collect();
    for part in ["/wal/", "/checkpoint.", "/chunks/", "/index", "/meta.json", "/tombstones", "/snapshots/"] {
        assert!(paths.iter().any(|path| path.contains(part)), "no {part} in {paths:?}");
    }
    let clock = Arc::new(ManualClock::new(100_000_000));
    let db = open_with(&fs, life_options(&clock)).unwrap();
    let blocks = db.blocks();
    assert!(blocks.iter().any(|block| block.level > 1), "{blocks:?}");
    assert!(blocks[0].min_time > 0, "retention took the oldest: {blocks:?}");
    assert!(!known.acknowledged["row1"].contains_key(&(12 * STEP - 18_000)), "deleted");
    survives(&fs.after_kill(), &known, "nothing failed");
}

#[test]
fn any_operation_may_fail() {
    let (_, _, operations, _) = sound();
    let faults = [
        (FaultKind::Io, 1),
        (FaultKind::NoSpace, 1),
        (FaultKind::Torn(250), 2),
        (FaultKind::NoSpace, 9),
        (FaultKind::Torn(3), 1),
    ];
    let mut cases = Cases::default();
    for at in steps(operations, 7) {
        for (kind, times) in some(&faults, at) {
            cases.run(&format!("{kind:?} × {times} at operation {at} of {operations}"), || {
                let fs = FaultyFs::new();
                fs.fail_at(Some(Fault { at, times: *times, kind: *kind }));
                let known = live(&fs, PLAIN);
                survives(&fs.after_kill(), &known, "afterwards");
            });
        }
    }
    cases.finish();
}

#[test]
fn power_may_go_at_any_operation() {
    let (_, _, operations, _) = sound();
    let mut cases = Cases::default();
    for at in steps(operations, 7) {
        for keep in some(&[Some(0), None, Some(100), Some(255)], at) {
            cases.run(&format!("power lost at operation {at} of {operations}, kept {keep:?}"), || {
                let fs = FaultyFs::new();
                let kind = FaultKind::Torn(keep.unwrap_or(128));
                fs.fail_at(Some(Fault { at, times: u64::MAX, kind }));
                let known = live(&fs, Script { reads: false, jumps: false, heals: false });
                let left = match keep {
                    Some(keep) => fs.lose_power(*keep),
                    None => fs.lose_power_unevenly(at),
                };
                survives(&left, &known, "afterwards");
            });
        }
    }
    cases.finish();
}

#[test]
fn any_read_may_fail() {
    let (_, _, _, reads) = sound();
    let mut cases = Cases::default();
    for at in steps(reads, 7) {
        cases.run(&format!("read {at} of {reads} failed"), || {
            let fs = FaultyFs::new();
            fs.fail_reads_at(Some(Fault { at, times: 1 + at % 2, kind: FaultKind::Io }));
            // What cannot be read for once may be missing from the answer for once.
            let known = live(&fs, Script { reads: false, jumps: false, heals: true });
            survives(&fs.after_kill(), &known, "afterwards");
        });
    }
    cases.finish();
}

#[test]
fn any_read_of_a_start_may_fail() {
    let (fs, known, ..) = sound();
    let clock = Arc::new(ManualClock::new(100_000_000));
    let before = fs.after_kill();
    drop(open_with(&before, life_options(&clock)).unwrap());
    let mut cases = Cases::default();
    for at in 0..before.reads() {
        cases.run(&format!("read {at} of a start failed"), || {
            let fs = fs.after_kill();
            fs.fail_reads_at(Some(Fault { at, times: 1, kind: FaultKind::Io }));
            if let Ok(db) = open_with(&fs, life_options(&clock)) {
                fs.fail_reads_at(None);
                if let Some(found) = try_content(&db) {
                    known.check_true(&found, "at once");
                }
                db.maintain(ROUNDS * STEP).unwrap();
                let _ = db.compact(ROUNDS * STEP);
            }
            fs.fail_reads_at(None);
            survives(&fs.after_kill(), &known, "afterwards");
        });
    }
    cases.finish();
}

/// Reads may come in pieces.
#[test]
fn short_reads_are_no_end() {
    let (fs, known, ..) = sound();
    for most in [1, 7, 100] {
        let fs = fs.after_kill();
        fs.set_read_max(Some(most));
        survives(&fs, &known, &format!("{most} bytes at a time"));
    }
}

#[test]
fn a_disk_of_any_size_refuses_and_goes_on() {
    let (fs, ..) = sound();
    let used = fs.used();
    let parts = if all() { 200 } else { 25 };
    let mut cases = Cases::default();
    for part in 0..=parts {
        let capacity = used * part / parts;
        cases.run(&format!("a disk of {capacity} bytes"), || {
            let fs = FaultyFs::new();
            fs.set_capacity(Some(capacity));
            let known = live(&fs, PLAIN);
            survives(&fs.after_kill(), &known, "afterwards");
        });
    }
    cases.finish();
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    let fs = FaultyFs::new();
    let known = live(&fs, Script { jumps: true, ..PLAIN });
    survives(&fs.after_kill(), &known, "jumps of a day");
    assert_eq!(known.acknowledged["row0"].len() as i64, ROUNDS + 1, "everything was taken");
}

/// Every flipped bit is named by a verification, and costs no more than what it lies in: what is still read is true.
#[test]
fn flipped_bits_are_named_and_contained() {
    let (fs, known, ..) = sound();
    let clock = Arc::new(ManualClock::new(100_000_000));
    let db = open_with(&fs, life_options(&clock)).unwrap();
    // Or there are files of head chunks that no checkpoint names yet: the log has their samples, and they are rewritten.
    db.checkpoint().unwrap();
    db.close().unwrap();
    let files: Vec<PathBuf> =
        fs.paths().into_iter().filter(|path| !path.starts_with("/data/snapshots")).collect();
    assert!(verify(&fs).unwrap().damage.is_empty(), "nothing is wrong before");
    let mut cases = Cases::default();
    for file in files {
        let bytes = fs.read(&file).unwrap();
        let stride = if all() { 1 } else { (bytes.len() / 40).max(1) };
        for at in (0..bytes.len()).step_by(stride) {
            let context = format!("byte {at} of {} in {}", bytes.len(), file.display());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            cases.run(&context, || flip(&fs, &known, &file, flipped));
        }
    }
    cases.finish();
}

fn verify(fs: &FaultyFs) -> Result<inspect::Report, StorageError> {
    let disk: Arc<dyn tsdb::fs::FileSystem> = Arc::new(fs.clone());
    inspect::verify(&disk, Path::new("/data"), &mut |_, _| {})
}

fn flip(fs: &FaultyFs, known: &Known, file: &Path, flipped: Vec<u8>) {
    let clock = Arc::new(ManualClock::new(100_000_000));
    let fs = fs.after_kill();
    fs.write(file, flipped);
    // An unknown version is an error of its own.
    if let Ok(report) = verify(&fs) {
        // The head of a log segment that nothing follows may be unfinished: that is a remark.
        let named = report.damage.iter().any(|damage| damage.file == file)
            || report.notes.iter().any(|note| note.0 == file);
        assert!(named, "it is not named: {:?}", report.damage);
    }
    match open_with(&fs, life_options(&clock)) {
        Ok(db) => {
            if let Some(found) = try_content(&db) {
                // A deletion that is lost lets its samples show again; they are true.
                let mut known = known.clone();
                let row1 = known.acknowledged.entry("row1".to_owned()).or_default();
                row1.extend(found.get("row1").into_iter().flatten().map(|(t, _)| (*t, 7f64.to_bits())));
                known.check_true(&found, "what is read");
            }
            let mut known = Known { kept_from: Timestamp::MAX, ..known.clone() };
            append(&db, &mut known, &mut None, ROUNDS + 1, true);
            assert!(known.acknowledged["row0"].contains_key(&((ROUNDS + 1) * STEP)), "appends go on");
        }
        Err(StorageError::Corrupted { file: named, .. }) => assert_eq!(named, file),
        Err(error) => assert!(error.to_string().contains("version"), "{error}"),
    }
}
