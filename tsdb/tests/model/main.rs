//! The store against a plain map: appends by sample, by reference, by row and by part of a row, floats and histograms, in and
//! out of order; queries, views held open, deletions, compactions, retention, checkpoints, faults in the middle of upkeep,
//! kills and losses of power, in random order.
//!
//! Cases that failed are kept in `failed_cases.txt`; `PROPTEST_CASES` is the number of new ones.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod plain;
mod steps;
mod world;

use crate::steps::{FLOATS, SERIES, Setting, Step, Work, Write, setting, step};
use crate::world::World;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: common::cases(100),
        max_shrink_iters: 4000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model/failed_cases.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_a_plain_map(steps in prop::collection::vec(step(), 1..150), setting in setting()) {
        let mut world = World::new(&setting);
        for step in &steps {
            world.step(step);
        }
        world.check("at the end");
        for (view, plain) in std::mem::take(&mut world.views) {
            world.look(&*view, &plain, "a view that was held to the end");
        }
        world.reopen(world.fs.after_kill(), "killed at the end");
    }
}

/// Enough rows and samples to seal windows and chunks, with readers that hold old views across it.
#[test]
fn views_hold_across_sealed_windows_and_checkpoints() {
    let mut world = World::new(&Setting {
        window: 0,
        sync: false,
        segment_bytes: 1 << 14,
        retention_ms: 0,
        block_ms: 1000,
    });
    for round in 0..500u64 {
        if round % 100 == 50 {
            world.step(&Step::View);
        }
        let row = (0..FLOATS).map(|s| Some(((round / (s as u64 + 1)) as f64).to_bits())).collect();
        world.transaction(&[Write::Row(0, 5, row)], true);
        world.transaction(&[Write::Sample(0, 3, round, round % 2 == 0)], true);
        world.transaction(&[Write::Histogram(6, 2, (round % 256) as u8)], true);
        if round % 170 == 0 {
            world.step(&Step::Checkpoint);
        }
    }
    for (view, plain) in std::mem::take(&mut world.views) {
        world.look(&*view, &plain, "a view that was held");
    }
    world.reopen(world.fs.after_kill(), "killed");
}

/// A block is there, and the checkpoint behind it failed: rows that come then are in the log behind what it truncates. (They
/// were lost at the next start.)
#[test]
fn a_row_behind_a_failed_checkpoint_survives() {
    let setting = Setting { window: 0, sync: false, segment_bytes: 300, retention_ms: 0, block_ms: 30_000 };
    for at in 0..60 {
        let mut world = World::new(&setting);
        let steps = [
            Step::Commit(vec![
                Write::Part(0, 3, 3, vec![None, Some(0)]),
                Write::Row(1, 1, vec![None, None, Some(0), None, Some(0), None]),
                Write::Sample(0, 3_000_000, 0, false),
            ]),
            Step::FailIn(Work::Compact, at, false),
            Step::Commit(vec![Write::Row(0, 1, vec![None, None, None, None, Some(0), None])]),
        ];
        for step in &steps {
            world.step(step);
        }
        world.reopen(world.fs.after_kill(), &format!("operation {at} failed, killed"));
    }
}

/// What is in a block is not looked at when a late sample comes: it is taken, of whatever kind it is, and the first one stays, as it
/// does in memory, over merges and over restarts.
#[test]
fn of_two_kinds_the_first_stays() {
    let setting =
        Setting { window: i64::MAX, sync: false, segment_bytes: 300, retention_ms: 0, block_ms: 30_000 };
    let (float, histogram) = (10, 100);
    for (first, second) in
        [(float, histogram), (histogram, float), (histogram, histogram + 1), (float, float + 1)]
    {
        for in_order in [true, false] {
            let mut world = World::new(&setting);
            let series = SERIES - 1;
            if !in_order {
                world.step(&Step::Commit(vec![Write::Histogram(series, 20_000, histogram)]));
            }
            let to = if in_order { 5 } else { -10_000 };
            world.step(&Step::Commit(vec![Write::Histogram(series, to, first)]));
            let t = world.now() + if in_order { 0 } else { to };
            // Until it is in a block, and then until the next sample is.
            for number in [second, first, 70] {
                for _ in 0..2 {
                    let ahead = 100_000 + world.now() % 7;
                    world.step(&Step::Commit(vec![Write::Sample(0, ahead, 0, false)]));
                    world.step(&Step::Compact(0));
                }
                let late = t - world.now();
                world.step(&Step::Commit(vec![Write::Histogram(series, late, number)]));
                world.check("in memory beside a block");
                world.step(&Step::Snapshot(false));
                world.step(&Step::Kill);
            }
            world.step(&Step::Compact(86_400_000));
            world.check("merged");
            world.step(&Step::CloseAndOpen);
            assert_eq!(world.plain.content[&series].len(), if in_order { 1 } else { 2 });
        }
    }
}
