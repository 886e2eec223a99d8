//! Closed chunks of the head in files: restarts, damage, deletions, parts of rows, jumping clocks.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Content, content, open_with, options, series};
use model::sample::{SampleValue, TimeRange};
use model::storage::{
    ABSENT_BITS, Append, AppendOptions, AppendSample, LayoutRef, LayoutSlot, Queryable, Row, SelectHints,
    SeriesColumns, StorageError,
};
use model::{Exemplar, Histogram, Labels, Metadata};
use proptest::prelude::*;
use tsdb::Db;
use tsdb::fs::{Fault, FaultKind, FaultyFs};

const STEP: i64 = 15_000;

fn files(fs: &FaultyFs) -> Vec<PathBuf> {
    let names = (1..20).map(|number| PathBuf::from(format!("/data/head_chunks/{number:06}")));
    names.filter(|path| fs.read(path).is_some()).collect()
}

/// A target of `slots` series by rows and two series sample by sample, one of them of histograms, over `rounds`.
struct Life {
    db: Arc<Db>,
    layout: Option<LayoutRef>,
    slots: usize,
    want: Content,
}

impl Life {
    fn new(fs: &FaultyFs, slots: usize) -> Self {
        Self { db: open_with(fs, options()).unwrap(), layout: None, slots, want: Content::new() }
    }

    fn round(&mut self, round: usize) {
        let t = round as i64 * STEP;
        let mut appender = self.db.appender(AppendOptions::default());
        let layout = *self.layout.get_or_insert_with(|| {
            let layout = appender.open_layout();
            for slot in 0..self.slots {
                appender.extend_layout(layout, &series(&format!("row{slot}"))).unwrap();
            }
            layout
        });
        let row: Vec<f64> = (0..self.slots)
            .map(|slot| {
                if (round + slot).is_multiple_of(11) {
                    f64::from_bits(ABSENT_BITS)
                } else {
                    (round * slot / 3) as f64
                }
            })
            .collect();
        appender.append_row(&Row { layout, t, values: &row });
        for (slot, value) in row.iter().enumerate().filter(|(_, value)| value.to_bits() != ABSENT_BITS) {
            self.want.entry(format!("row{slot}")).or_default().insert(t, value.to_bits());
        }
        let value = (round as f64).sin();
        appender.append(None, &series("single"), AppendSample::float(t, value)).unwrap();
        self.want.entry("single".to_owned()).or_default().insert(t, value.to_bits());
        let histogram = Histogram { count: round as u64, zero_count: round as u64, ..Histogram::default() };
        let value = SampleValue::Histogram(Arc::new(histogram));
        let start = Some(t / 100_000 * 1000 + 7);
        appender.append(None, &series("histogram"), AppendSample { t, value, start }).unwrap();
        appender.commit().unwrap();
    }

    fn reopen(&mut self, fs: &FaultyFs) {
        self.layout = None;
        self.db = open_with(fs, options()).unwrap();
    }

    fn check(&self, what: &str) {
        let mut got = content(&self.db);
        got.remove("histogram");
        assert_eq!(got, self.want, "{what}");
    }

    fn histograms(&self) -> (Vec<i64>, Vec<f64>, Vec<i64>) {
        let columns = read(&self.db, "histogram").unwrap();
        let counts = columns.histograms.iter().map(|histogram| histogram.count).collect();
        (columns.histogram_times, counts, columns.histogram_starts)
    }
}

fn read(db: &Db, name: &str) -> Result<SeriesColumns, StorageError> {
    let querier = db.querier(TimeRange::ALL)?;
    let set = querier.select(&[model::Matcher::equal("__name__", name)], &SelectHints::default())?;
    let mut columns = SeriesColumns::default();
    if !set.is_empty() {
        set.read(0, &mut columns)?;
    }
    Ok(columns)
}

/// Chunks move to files, a checkpoint names them, restarts find them; files go when nobody needs them.
#[test]
fn chunks_come_back_from_files_after_every_restart() {
    let mut fs = FaultyFs::new();
    let mut life = Life::new(&fs, 130);
    for round in 0..700 {
        life.round(round);
        if round % 50 == 49 {
            life.db.maintain(round as i64 * STEP).unwrap();
        }
        match round {
            150 | 420 => life.db.checkpoint().unwrap(),
            200 => fs = fs.after_kill(),
            450 => {
                life.db.maintain(round as i64 * STEP).unwrap();
                fs = fs.lose_power(0);
            }
            600 => {
                life.db.close().unwrap();
                fs = fs.after_kill();
            }
            _ => {}
        }
        if [200, 450, 600].contains(&round) {
            life.reopen(&fs);
            life.check(&format!("after the restart at {round}"));
        }
    }
    life.check("at the end");
    assert!(files(&fs).len() >= 2);
    let (times, counts, starts) = life.histograms();
    assert_eq!(times, (0..700).map(|round| round * STEP).collect::<Vec<_>>());
    assert_eq!(counts, (0..700).map(f64::from).collect::<Vec<_>>());
    assert_eq!(starts, times.iter().map(|t| t / 100_000 * 1000 + 7).collect::<Vec<_>>());
    life.db.checkpoint().unwrap();
    let newest = fs
        .read(Path::new("/data/checkpoint.00000006"))
        .or_else(|| (1..40).rev().find_map(|n| fs.read(Path::new(&format!("/data/checkpoint.{n:08}")))));
    // 130 series with 700 samples each; open rows are a part of them.
    assert!(newest.unwrap().len() < 200_000);
    life.reopen(&fs.after_kill());
    life.check("after the last restart");
}

/// A damaged frame fails the reads that need it, named by file and offset; a missing or short file costs its own chunks only.
#[test]
fn damage_is_named_and_contained() {
    let fs = FaultyFs::new();
    let mut life = Life::new(&fs, 70);
    for round in 0..400 {
        life.round(round);
    }
    life.db.checkpoint().unwrap();
    life.reopen(&fs.after_kill());
    let sound = fs.after_kill();
    let path = files(&sound).remove(0);
    let bytes = sound.read(&path).unwrap();
    let whole = content(&open_with(&sound, options()).unwrap());

    for at in (16..bytes.len()).step_by(97) {
        let fs = sound.after_kill();
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs.write(&path, damaged);
        let db = open_with(&fs, options()).unwrap();
        let mut failed = 0;
        for (name, samples) in &whole {
            match read(&db, name) {
                Ok(columns) => {
                    let got: BTreeMap<i64, u64> = columns
                        .float_times
                        .iter()
                        .copied()
                        .zip(columns.float_values.iter().map(|v| v.to_bits()))
                        .collect();
                    if name != "histogram" {
                        assert_eq!(&got, samples, "{name} with byte {at} changed");
                    }
                }
                Err(StorageError::Corrupted { file, offset, .. }) => {
                    failed += 1;
                    assert!(file == path && offset <= at as u64, "{} {offset} {at}", file.display());
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!((1..=64).contains(&failed), "{failed} series fail with byte {at} changed");
    }

    for len in [0, 5, 16, 40, bytes.len() / 2] {
        let fs = sound.after_kill();
        fs.write(&path, bytes[..len].to_vec());
        let db = open_with(&fs, options()).unwrap();
        let got = content(&db);
        for (name, samples) in &got {
            assert!(
                samples.iter().all(|sample| whole[name].get(sample.0) == Some(sample.1)),
                "{name} of {len} bytes"
            );
        }
        assert!(got["row1"].contains_key(&(399 * STEP)), "open rows are not in the file");
        let aside = PathBuf::from(format!("{}.corrupt", path.display()));
        assert!(fs.read(&aside).is_some(), "{len}");
    }
    let fs = sound.after_kill();
    let mut newer = bytes.clone();
    newer[4] = 2;
    let crc = crc32c::crc32c(&newer[..12]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    fs.write(&path, newer);
    let error = open_with(&fs, options()).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("000001"), "{error}");
}

/// A disk that refuses chunks for a while keeps them in memory and in the log.
#[test]
fn chunks_wait_for_the_disk() {
    let fs = FaultyFs::new();
    let mut life = Life::new(&fs, 10);
    for round in 0..300 {
        life.round(round);
    }
    fs.fail_at(Some(Fault { at: fs.operations(), times: 1000, kind: FaultKind::NoSpace }));
    let _ = life.db.maintain(300 * STEP);
    life.check("with a full disk");
    fs.fail_at(None);
    let fs = fs.after_kill();
    life.reopen(&fs);
    life.check("after a restart from the log");
    life.db.maintain(300 * STEP).unwrap();
    life.db.checkpoint().unwrap();
    assert!(!files(&fs).is_empty());
    life.check("in files");
}

/// The clock of upkeep jumps a day back and forth: nothing is dropped, and nothing is stuck.
#[test]
fn a_clock_that_jumps_loses_nothing() {
    const DAY: i64 = 86_400_000;
    let fs = FaultyFs::new();
    let mut life = Life::new(&fs, 5);
    for round in 0..500 {
        life.round(round);
        let now = round as i64 * STEP + [0, DAY, -DAY, 0][round % 4];
        life.db.maintain(now).unwrap();
    }
    life.check("while the clock jumps");
    life.db.checkpoint().unwrap();
    life.reopen(&fs.after_kill());
    life.check("afterwards");
}

/// Exemplars and metadata are in checkpoints.
#[test]
fn what_is_not_samples_survives_too() {
    let fs = FaultyFs::new();
    let db = open_with(&fs, options()).unwrap();
    let mut appender = db.appender(AppendOptions::default());
    let id = appender.append(None, &series("m"), AppendSample::float(1, 1.0)).unwrap();
    let exemplar = Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), value: 2.0, t: Some(1) };
    appender.append_exemplar(id, &exemplar).unwrap();
    let metadata = Metadata { help: "helps".into(), ..Metadata::default() };
    appender.update_metadata(id, &metadata).unwrap();
    appender.commit().unwrap();
    db.checkpoint().unwrap();
    let db = open_with(&fs.after_kill(), options()).unwrap();
    assert_eq!(db.metadata("m"), Some(metadata));
    let found = model::storage::ExemplarQueryable::exemplars(
        &*db,
        TimeRange::ALL,
        &[vec![model::Matcher::equal("__name__", "m")]],
    );
    assert_eq!(found.unwrap()[0].1, [exemplar]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::cases(40), ..ProptestConfig::default() })]

    /// Rows in parts, cut anywhere, whose parts lag behind each other, with a restart in between.
    #[test]
    fn parts_of_rows_are_rows(
        cuts in prop::collection::vec((0usize..90, 1usize..90), 10..200),
        restart in 0usize..200,
    ) {
        const SLOTS: usize = 90;
        let mut fs = FaultyFs::new();
        let mut db = open_with(&fs, options()).unwrap();
        let mut layout: Option<LayoutRef> = None;
        // The next time of each slot: parts of one target may come from several senders.
        let mut next = [0i64; SLOTS];
        let mut want = Content::new();
        for (index, (from, len)) in cuts.iter().enumerate() {
            let to = (from + len).min(SLOTS);
            let t = next[*from..to].iter().copied().max().unwrap() * STEP;
            next[*from..to].fill(t / STEP + 1);
            let values: Vec<f64> = (*from..to).map(|slot| if slot % 3 == 0 { 1.0 } else { (index * slot) as f64 }).collect();
            let mut appender = db.appender(AppendOptions::default());
            let layout = *layout.get_or_insert_with(|| {
                let layout = appender.open_layout();
                for slot in 0..SLOTS {
                    appender.extend_layout(layout, &series(&format!("s{slot}"))).unwrap();
                }
                layout
            });
            let first = LayoutSlot(u32::try_from(*from).unwrap());
            let outcome = appender.append_row_part(first, &Row { layout, t, values: &values });
            prop_assert_eq!((outcome.appended, outcome.refused), (values.len(), vec![]));
            appender.commit().unwrap();
            for (slot, value) in (*from..to).zip(&values) {
                want.entry(format!("s{slot}")).or_default().insert(t, value.to_bits());
            }
            if index % 37 == 36 {
                db.maintain(t).unwrap();
            }
            if index == restart {
                if index % 2 == 0 {
                    db.checkpoint().unwrap();
                }
                fs = fs.after_kill();
                db = open_with(&fs, options()).unwrap();
                break;
            }
        }
        prop_assert_eq!(&content(&db), &want);
        db.checkpoint().unwrap();
        let db = open_with(&fs.after_kill(), options()).unwrap();
        prop_assert_eq!(&content(&db), &want);
    }
}
