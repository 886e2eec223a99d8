//! Checkpoints of what is not in head chunk files.

use std::path::Path;
use std::sync::Arc;

use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::TimeRange;
use model::storage::{
    Append, AppendOptions, AppendSample, LayoutSlot, Queryable, Row, SelectHints, SeriesColumns,
};

use super::{KIND_CHUNKS, KIND_END, KIND_ROWS, KIND_WINDOW, checkpoint_name};
use crate::coding::{Reader, put_uvarint};
use crate::fs::{FaultyFs, FileSystem as _};
use crate::wal::frame::{CHECKPOINT_MAGIC, Frame, FrameReader, HEADER_LEN, put_record};
use crate::{Db, DbOptions};

const SLOTS: usize = 20_010;

fn open(fs: &FaultyFs) -> (Arc<Db>, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let mut options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
    options.retention = std::time::Duration::ZERO;
    (Db::open(options, &registry, Arc::new(fs.clone())).unwrap(), registry)
}

/// Values that no compression makes smaller.
fn value(row: usize, slot: usize) -> f64 {
    let mixed = (row * SLOTS + slot + 1) as u64;
    let bits = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    f64::from_bits(bits >> 2)
}

/// A store with sealed windows, two or more, and ten open rows (both some MB with [`SLOTS`] slots) of a layout of which the last slots never had a value;
/// and how many samples it has.
fn filled(slots: usize) -> (Arc<Db>, usize) {
    let (db, _) = open(&FaultyFs::new());
    let mut appender = db.appender(AppendOptions::default());
    let layout = appender.open_layout();
    for slot in 0..slots + 100 {
        appender.extend_layout(layout, &labels(slot)).unwrap();
    }
    let (mut rows, mut open, mut sealed) = (0, 0, 0);
    while open < 10 || sealed < 2 {
        assert!(rows < 1000, "rows are sealed");
        let row = rows;
        let values: Vec<f64> = (0..slots).map(|slot| value(row, slot)).collect();
        let row = Row { layout, t: row as i64 * 1000, values: &values };
        assert_eq!(appender.append_row_part(LayoutSlot(0), &row).error, None);
        appender.commit().unwrap();
        appender = db.appender(AppendOptions::default());
        rows += 1;
        let before = std::mem::replace(&mut sealed, db.shared.head.unflushed_windows.lock().len());
        open = if sealed > before { 1 } else { open + 1 };
    }
    appender.append(None, &labels(SLOTS + 500), AppendSample::float(5, 5.0)).unwrap();
    appender.commit().unwrap();
    (db, rows * slots + 1)
}

fn labels(slot: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("slot", &format!("{slot:05}"))])
}

/// How many samples there are, all of which must be as they were written.
fn samples(db: &Db) -> usize {
    let querier = db.querier(TimeRange::ALL).unwrap();
    let set = querier.select(&[Matcher::equal("__name__", "m")], &SelectHints::default()).unwrap();
    let (mut columns, mut samples) = (SeriesColumns::default(), 0);
    for index in 0..set.len() {
        let slot: usize = set.labels(index).value("slot").parse().unwrap();
        set.read(index, &mut columns).unwrap();
        samples += columns.float_times.len();
        for (t, v) in columns.float_times.iter().zip(&columns.float_values).filter(|_| slot < SLOTS) {
            assert_eq!(v.to_bits(), value(*t as usize / 1000, slot).to_bits(), "{slot} at {t}");
        }
    }
    samples
}

/// A checkpoint of the store as it is, without head chunk files.
fn saved(db: &Db) -> Vec<u8> {
    let fs = FaultyFs::new();
    let dir = Path::new("/data");
    fs.create_dir_all(dir).unwrap();
    let head = &db.shared.head;
    super::write(&fs, dir, 7, head.views.published(), head, || Ok(())).unwrap();
    fs.read(&dir.join(checkpoint_name(7))).unwrap()
}

/// Opens a store of a checkpoint alone; the number of damages that it found, too.
fn opened(checkpoint: Vec<u8>) -> (Arc<Db>, u64) {
    let fs = FaultyFs::new();
    fs.write(&Path::new("/data").join(checkpoint_name(7)), checkpoint);
    let (db, _) = open(&fs);
    let damages = db.metrics.wal_corruptions.get();
    (db, damages)
}

type Records = Vec<(u8, Vec<u8>)>;

fn records(file: &[u8]) -> Records {
    let mut frames = FrameReader::new(Box::new(std::io::Cursor::new(file.to_vec())), file.len() as u64);
    frames.header(CHECKPOINT_MAGIC).unwrap().unwrap();
    let mut records = Vec::new();
    while let Frame::Record { kind, payload, .. } = frames.next().unwrap() {
        records.push((kind, payload));
    }
    records
}

/// The file of these records; those whose places are in `broken` have a wrong checksum.
fn file(header: &[u8], records: &Records, broken: &[usize]) -> Vec<u8> {
    let mut file = header[..HEADER_LEN].to_vec();
    for (place, (kind, payload)) in records.iter().enumerate() {
        put_record(&mut file, *kind, payload, true);
        if broken.contains(&place) {
            *file.last_mut().unwrap() ^= 1;
        }
    }
    file
}

/// Windows and rows that are in memory come in records of bounded size, and come back; a record that is damaged costs what is
/// in it.
#[test]
fn what_is_in_memory_comes_in_parts() {
    let (db, want) = filled(SLOTS);
    let checkpoint = saved(&db);
    let all = records(&checkpoint);
    assert!(all.iter().all(|(_, payload)| payload.len() < 3 << 20), "bounded");
    let places = |wanted: u8| -> Vec<usize> {
        all.iter().enumerate().filter(|(_, (kind, _))| *kind == wanted).map(|(place, _)| place).collect()
    };
    let (windows, chunks, rows) = (places(KIND_WINDOW), places(KIND_CHUNKS), places(KIND_ROWS));
    assert!(windows.len() >= 2);
    assert!(chunks.len() >= 4 && rows.len() >= 2, "{chunks:?} {rows:?}");
    let (loaded, damages) = opened(checkpoint.clone());
    assert_eq!((samples(&loaded), damages), (want, 0));
    // It is a store like any other: it goes into files, and comes back from there.
    loaded.checkpoint().unwrap();
    assert!(loaded.shared.head.unflushed_windows.lock().is_empty());
    assert_eq!(samples(&loaded), want);

    for broken in [windows[0], chunks[1], rows[0]] {
        let (loaded, damages) = opened(file(&checkpoint, &all, &[broken]));
        let left = samples(&loaded);
        assert!(damages > 0 && left < want, "{broken}: {left}");
        // A window is less than half of all; other records are parts.
        assert!(left > want / 2 && (broken == windows[0] || left > want * 3 / 4), "{broken}: {left}");
    }
}

/// The end says how much there is: a file that lacks whole records, or has them twice, is damaged.
#[test]
fn counts_of_the_end_are_compared() {
    let (db, want) = filled(70);
    let checkpoint = saved(&db);
    let all = records(&checkpoint);
    let (_, damages) = opened(file(&checkpoint, &all, &[]));
    assert_eq!(damages, 0);
    let (end, rest) = all.split_last().unwrap();
    assert_eq!(end.0, KIND_END);
    let mut reader = Reader::new(&end.1);
    let counts: Vec<u64> = (0..5).map(|_| reader.uvarint().unwrap()).collect();
    assert!(counts[..2] == [171, 1] && counts[2] >= 2 && counts[3] == 10, "{counts:?}");
    for place in 0..4 {
        for wrong in [counts[place] + 1, counts[place] - 1] {
            let mut payload = Vec::new();
            for (at, count) in counts.iter().enumerate() {
                put_uvarint(&mut payload, if at == place { wrong } else { *count });
            }
            let mut records = rest.to_vec();
            records.push((KIND_END, payload));
            let (loaded, damages) = opened(file(&checkpoint, &records, &[]));
            assert_eq!(damages, 1, "count {place} is {wrong}");
            assert_eq!(samples(&loaded), want, "what is there is used");
        }
    }
    let (_, damages) = opened(file(&checkpoint, &rest.to_vec(), &[]));
    assert_eq!(damages, 1, "no end");
}

/// A version that is not read any more is named, and nothing is touched.
#[test]
fn an_older_version_fails_the_start() {
    let mut bytes = saved(&filled(3).0);
    bytes[4] = 2;
    let crc = crc32c::crc32c(&bytes[..HEADER_LEN - 4]);
    bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    let fs = FaultyFs::new();
    let path = Path::new("/data").join(checkpoint_name(7));
    fs.write(&path, bytes.clone());
    let options = DbOptions::new("/data", Arc::new(model::ManualClock::new(0)));
    let error =
        Db::open(options, &prometheus::Registry::new(), Arc::new(fs.clone())).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("checkpoint.00000007"), "{error}");
    assert_eq!(fs.read(&path), Some(bytes));
}
