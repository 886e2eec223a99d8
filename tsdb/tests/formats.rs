//! The documents of the formats, checked: their examples are what the store writes, and it reads them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{content, open, segment, series};
use model::sample::stale_nan;
use model::storage::{Append, AppendOptions, AppendSample, Row};
use tsdb::Db;
use tsdb::fs::FaultyFs;

const WAL: &str = include_str!("../../docs/formats/wal.md");
const CHECKPOINT: &str = include_str!("../../docs/formats/checkpoint.md");

/// The bytes of the first block marked `hex`; what follows `;` on a line is comment.
fn example(document: &str) -> Vec<u8> {
    let block = document.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let digits: String = block.lines().filter_map(|line| line.split(';').next()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(16).map(|line| line.iter().map(|b| format!("{b:02x} ")).collect::<String>() + "\n").collect()
}

/// What both examples tell of: a row of two series, then one sample of the second.
fn write(db: &Db) {
    let mut appender = db.appender(AppendOptions::default());
    let layout = appender.open_layout();
    appender.extend_layout(layout, &series("a")).unwrap();
    appender.extend_layout(layout, &series("b")).unwrap();
    appender.append_row(&Row { layout, t: 1000, values: &[1.0, stale_nan()] });
    appender.append(None, &series("b"), AppendSample::float(2000, -0.0)).unwrap();
    appender.commit().unwrap();
}

#[test]
fn the_example_of_the_log_is_true() {
    let fs = FaultyFs::new();
    let db = open(&fs);
    write(&db);
    let written = fs.read(&segment(1)).unwrap();
    assert_eq!(hex(&example(WAL)), hex(&written));
    let other = FaultyFs::new();
    other.write(&segment(1), example(WAL));
    assert_eq!(content(&open(&other)), content(&db));
}

#[test]
fn the_example_of_the_checkpoint_is_true() {
    let fs = FaultyFs::new();
    let db = open(&fs);
    write(&db);
    db.checkpoint().unwrap();
    let path = std::path::Path::new("/data/checkpoint.00000002");
    let written = fs.read(path).unwrap();
    assert_eq!(hex(&example(CHECKPOINT)), hex(&written));
    let other = FaultyFs::new();
    other.write(path, example(CHECKPOINT));
    assert_eq!(content(&open(&other)), content(&db));
}
