//! Every decoder of bytes from disk, as a function that takes any bytes: it answers or refuses, and never panics, loops for
//! ever or takes memory that the bytes do not account for. For the fuzzer (`fuzz/`, feature `fuzzing`) and for the
//! mutations in this folder's tests; no part of the store.
//!
//! Checksums would stop nearly all inputs at the door, so where a format has them the target takes what is behind them and
//! seals it.

#[cfg(test)]
mod mutate;
mod seeds;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::ManualClock;
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::{TimeRange, Timestamp};
use model::storage::{Append, AppendOptions, AppendSample, Queryable, SelectHints, SeriesColumns};

use crate::block::{Block, BlockMeta, Tombstones};
use crate::cache::BlockCache;
use crate::coding::{DecodeError, Reader};
use crate::columns::Columns;
use crate::fs::{FaultyFs, FileSystem};
use crate::wal::frame::{CHECKPOINT_MAGIC, Frame, FrameReader, Header, SEGMENT_MAGIC, put_record};
use crate::{Db, DbOptions, chunk, frame};

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its fuzz target.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs that are sound, to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Rough cost of a run in units of the cheapest.
    pub cost: u32,
}

/// All decoders.
pub const TARGETS: &[Target] = &[
    Target { name: "wal_record", run: wal_record, seeds: seeds::wal_record, cost: 1 },
    Target { name: "wal_segment", run: wal_segment, seeds: seeds::wal_segment, cost: 20 },
    Target { name: "wal_commits", run: wal_commits, seeds: seeds::wal_commits, cost: 20 },
    Target { name: "checkpoint", run: checkpoint, seeds: seeds::checkpoint, cost: 20 },
    Target { name: "chunk", run: chunk, seeds: seeds::chunk, cost: 1 },
    Target { name: "columns", run: columns, seeds: seeds::columns, cost: 1 },
    Target { name: "frame", run: frame, seeds: seeds::frame, cost: 2 },
    Target { name: "meta", run: meta, seeds: seeds::meta, cost: 2 },
    Target { name: "tombstones", run: tombstones, seeds: seeds::tombstones, cost: 1 },
    Target { name: "block_index", run: block_index, seeds: seeds::block_index, cost: 10 },
    Target { name: "block_chunks", run: block_chunks, seeds: seeds::block_chunks, cost: 50 },
];

/// The target of a name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

/// The payload of a commit's record.
fn wal_record(bytes: &[u8]) {
    let _ = crate::wal::record::decode::<DecodeError>(bytes, |_| Ok(()));
}

/// A log segment as it lies on the disk.
fn wal_segment(bytes: &[u8]) {
    let fs = FaultyFs::new();
    fs.write(Path::new("/data/wal/00000001"), bytes.to_vec());
    open_and_read(&fs);
}

/// A log segment of sealed records: see [`seal`].
fn wal_commits(bytes: &[u8]) {
    wal_segment(&seal(SEGMENT_MAGIC, 1, bytes));
}

/// A checkpoint of sealed records: see [`seal`].
fn checkpoint(bytes: &[u8]) {
    let fs = FaultyFs::new();
    fs.write(Path::new("/data/checkpoint.00000001"), seal(CHECKPOINT_MAGIC, 1, bytes));
    open_and_read(&fs);
}

/// A file of records as they are on disk, made of a list of kind, length (two bytes) and payload.
fn seal(magic: [u8; 4], number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut file = Header { magic, number, previous_len: 0 }.encode();
    let mut reader = Reader::new(bytes);
    while let (Ok(kind), Ok(len)) = (reader.u8(), reader.u16_le()) {
        let len = usize::from(len).min(reader.remaining());
        put_record(&mut file, kind, reader.bytes(len).unwrap_or_default(), false);
    }
    file
}

/// The inverse of [`seal`].
fn unseal(magic: [u8; 4], file: Vec<u8>) -> Vec<u8> {
    let len = file.len() as u64;
    let mut frames = FrameReader::new(Box::new(std::io::Cursor::new(file)), len);
    let mut out = Vec::new();
    if !matches!(frames.header(magic), Ok(Ok(_))) {
        return out;
    }
    while let Ok(Frame::Record { kind, payload, .. }) = frames.next() {
        let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        out.push(kind);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(payload.get(..usize::from(len)).unwrap_or_default());
    }
    out
}

fn options() -> DbOptions {
    let mut options = DbOptions::new("/data", Arc::new(ManualClock::new(0)));
    options.retention = Duration::ZERO;
    options
}

/// Opens what is there; where that works all can be read, written on and opened again.
fn open_and_read(fs: &FaultyFs) {
    let open = |fs: &FaultyFs| Db::open(options(), &prometheus::Registry::new(), Arc::new(fs.clone()));
    let Ok(db) = open(fs) else { return };
    let before = read_all(&db);
    // The bounds of time may refuse it.
    let mut appender = db.appender(AppendOptions::default());
    let labels = Labels::from_pairs([("__name__", "fuzz_after")]);
    let _ = appender.append(None, &labels, AppendSample::float(0, 1.0));
    let committed = appender.commit();
    assert!(committed.is_ok(), "a sound disk takes commits: {committed:?}");
    drop(db);
    let db = open(&fs.after_kill()).expect("what was opened once can be opened again");
    assert!(read_all(&db) >= before, "what was read once is read again");
}

/// The number of samples that can be read.
fn read_all(db: &Db) -> usize {
    let Ok(querier) = db.querier(TimeRange::ALL) else { return 0 };
    let all = Matcher::new(MatchOp::Regex, "__name__", ".*").expect("invariant: it compiles");
    let Ok(set) = querier.select(&[all], &SelectHints::default()) else { return 0 };
    let mut columns = SeriesColumns::default();
    let read = |index| set.read(index, &mut columns).map_or(0, |()| columns.len());
    (0..set.len()).map(read).sum()
}

/// A number of rows, and a chunk with shared times or its own.
fn chunk(bytes: &[u8]) {
    let Some((rows, bytes)) = bytes.split_first() else { return };
    let times: Vec<Timestamp> = (0..i64::from(*rows)).map(|row| row * 15_000).collect();
    for times in [None, Some(times.as_slice())] {
        let mut columns = Columns::default();
        columns.push_float(1, 1.0, 0);
        match chunk::decode_into(bytes, times, &mut columns) {
            Ok(()) => {
                let info = chunk::info(bytes).expect("what can be read can be looked at");
                let read =
                    if info.histogram { columns.histogram_times.len() } else { columns.times.len() - 1 };
                assert_eq!(info.count, read, "as many as it says");
                assert_eq!(columns.times.len(), columns.values.len());
                assert_eq!(columns.histogram_times.len(), columns.histograms.len());
            }
            Err(_) => {
                assert_eq!((columns.len(), columns.values.len()), (1, 1), "an error leaves nothing behind")
            }
        }
    }
    let _ = chunk::info(bytes);
}

/// A number of rows, and columns of times and of values of so many.
fn columns(bytes: &[u8]) {
    let Some((rows, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let rows = usize::from(u16::from_le_bytes(*rows));
    let mut times = Vec::new();
    if chunk::decode_times(&mut Reader::new(bytes), rows, &mut times).is_ok() {
        assert_eq!(times.len(), rows);
        let mut again = Vec::new();
        chunk::encode_times(&times, &mut again);
        let mut read = Vec::new();
        chunk::decode_times(&mut Reader::new(&again), rows, &mut read).expect("what was written");
        assert_eq!(read, times);
    }
    let mut values = Vec::new();
    if chunk::decode_values(&mut Reader::new(bytes), rows, &mut values).is_ok() {
        assert_eq!(values.len(), rows);
        for effort in [chunk::Effort::Quick, chunk::Effort::Small] {
            let mut again = Vec::new();
            chunk::encode_values(&values, effort, &mut again);
            let mut read = Vec::new();
            chunk::decode_values(&mut Reader::new(&again), rows, &mut read).expect("what was written");
            assert!(read.iter().map(|v| v.to_bits()).eq(values.iter().map(|v| v.to_bits())));
        }
    }
}

/// A frame as it is, one that is sealed, and one that is unpacked.
fn frame(bytes: &[u8]) {
    let look = |plain: &[u8]| {
        let chunks = frame::chunks_of(plain).unwrap_or(3);
        let _: Vec<_> = (0..chunks + 2).map(|index| frame::chunk_of(plain, index)).collect();
    };
    look(bytes);
    let mut sealed = bytes.to_vec();
    let head = frame::FRAME_HEAD_LEN;
    if let Some((front, stored)) = bytes.split_at_checked(head) {
        let crc = crc32c::crc32c_append(crc32c::crc32c(front.get(..head - 4).unwrap_or_default()), stored);
        if let Some(place) = sealed.get_mut(head - 4..head) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }
    for bytes in [bytes, sealed.as_slice()] {
        let _ = frame::frame_len(bytes);
        if let Ok(plain) = frame::decode_frame(bytes) {
            look(&plain);
        }
    }
}

/// A `meta.json` as it is, and one with its checksum mended.
fn meta(bytes: &[u8]) {
    if let Ok(meta) = BlockMeta::decode(bytes) {
        let again = BlockMeta::decode(&meta.encode()).expect("what was written can be read");
        assert_eq!(again, meta);
    }
    if let Ok(meta) = serde_json::from_slice::<BlockMeta>(bytes) {
        // It may be of no span of time; but no panic.
        let _ = BlockMeta::decode(&meta.encode());
    }
}

/// A file of tombstones as it is, and one that is sealed.
fn tombstones(bytes: &[u8]) {
    let _ = Tombstones::decode(bytes);
    let mut sealed = bytes.to_vec();
    sealed.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    if let Ok(tombstones) = Tombstones::decode(&sealed) {
        let again = Tombstones::decode(&tombstones.encode()).expect("what was written can be read");
        assert_eq!(again, tombstones);
    }
}

/// A block's index, as it is and with the checksums of its end and of its table mended.
fn block_index(bytes: &[u8]) {
    const END: usize = 24;
    let block = seeds::block();
    let path = block.dir.join("index");
    read_block(&block.fs, &block.dir, &path, bytes);
    let mut sealed = bytes.to_vec();
    let Some(end) = sealed.len().checked_sub(END).filter(|end| *end >= 12) else { return };
    let table = sealed.get(end..).and_then(|bytes| Reader::new(bytes).u64_le().ok()).unwrap_or(0);
    let table = usize::try_from(table).unwrap_or(usize::MAX).clamp(8, end - 4);
    let crc = crc32c::crc32c(&sealed[table..end - 4]).to_le_bytes();
    sealed[end - 4..end].copy_from_slice(&crc);
    let (at, len) = ((table as u64).to_le_bytes(), ((end - table) as u64).to_le_bytes());
    sealed[end..end + 8].copy_from_slice(&at);
    sealed[end + 8..end + 16].copy_from_slice(&len);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&sealed[..8]), &sealed[end..end + 16]).to_le_bytes();
    sealed[end + 16..end + 20].copy_from_slice(&crc);
    read_block(&block.fs, &block.dir, &path, &sealed);
}

/// A block's file of chunks, as it is and with the checksums of its frames mended.
fn block_chunks(bytes: &[u8]) {
    let block = seeds::block();
    let path = block.dir.join("chunks/000001");
    read_block(&block.fs, &block.dir, &path, bytes);
    let mut sealed = bytes.to_vec();
    // Behind the head of the file.
    let mut at = 16;
    while let Some(rest) = sealed.get_mut(at..).filter(|rest| rest.len() > frame::FRAME_HEAD_LEN) {
        let (head, stored) = rest.split_at_mut(frame::FRAME_HEAD_LEN);
        let len = Reader::new(&head[1..]).u32_le().unwrap_or(0) as usize;
        let stored = &stored[..len.min(stored.len())];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..frame::FRAME_HEAD_LEN - 4]), stored);
        head[frame::FRAME_HEAD_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        at += frame::FRAME_HEAD_LEN + stored.len();
    }
    read_block(&block.fs, &block.dir, &path, &sealed);
}

/// Reads all of a block of which one file has other bytes, in every way there is.
fn read_block(fs: &FaultyFs, dir: &Path, file: &Path, bytes: &[u8]) {
    let fs = fs.after_kill();
    fs.write(file, bytes.to_vec());
    let fs: Arc<dyn FileSystem> = Arc::new(fs);
    let Ok(block) = Block::open(&fs, dir, &BlockCache::new(1 << 20)) else { return };
    let index = block.index();
    let all = Matcher::new(MatchOp::Regex, "__name__", ".+").expect("invariant: it compiles");
    let odd = Matcher::equal("parity", "odd");
    let mut columns = Columns::default();
    for matchers in [vec![all.clone()], vec![odd.clone()], vec![all, odd]] {
        let Ok(found) = index.select(&matchers) else { continue };
        let _ = index.label_names_of(&found);
        for series in found.into_iter().take(100) {
            let _ = index.labels_of(&[series]);
            columns.clear();
            let _ = block.read(series, TimeRange::ALL, &mut columns);
            let _ = block.read(series, TimeRange::new(100_000, 200_000), &mut columns);
        }
    }
    for name in index.label_names().into_iter().take(20) {
        let _ = index.label_values(&name);
    }
    let mut scan = block.scan();
    let mut labels = Labels::empty();
    for _ in 0..1000 {
        if !matches!(scan.next(&mut labels, &mut columns), Ok(true)) {
            break;
        }
    }
    block.verify();
}
