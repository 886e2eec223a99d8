//! Sound inputs of every target, made by what writes them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use model::exemplar::Exemplar;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Histogram, Span};
use model::labels::Labels;
use model::metadata::{Metadata, MetricKind};
use model::sample::{SampleValue, TimeRange, Timestamp, stale_nan};
use model::storage::{ABSENT_BITS, Append, AppendOptions, AppendSample, Row};

use super::{options, unseal};
use crate::Db;
use crate::block::{BlockMeta, BlockOptions, BlockWriter, Made, Tombstones};
use crate::chunk;
use crate::chunk::{Effort, HistogramValue};
use crate::columns::Columns;
use crate::frame::{Compression, encode_frame};
use crate::fs::{FaultyFs, FileSystem};
use crate::wal::frame::{CHECKPOINT_MAGIC, SEGMENT_MAGIC};

/// Values of the kinds that encodings tell apart.
fn values(kind: usize, rows: usize) -> Vec<f64> {
    (0..rows)
        .map(|row| match kind {
            0 => 42.0,
            1 => (row * row) as f64,
            2 => (row * 7919 % 1000) as f64 / 10.0,
            3 if row % 9 == 0 => stale_nan(),
            3 => 0.1 * row as f64,
            // A counter of many small steps: classes.
            6 => (row * 100 + row * row / 50 + row.wrapping_mul(7919) % 37) as f64,
            4 => f64::from_bits((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            _ => [0.0, -0.0, f64::INFINITY, f64::NAN, f64::MAX, 5e-324][row % 6],
        })
        .collect()
}

fn times(rows: usize) -> Vec<Timestamp> {
    (0..rows as i64).map(|row| row * 15_000 + row % 7).collect()
}

fn histogram(n: usize) -> Histogram {
    if n.is_multiple_of(5) {
        return Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: n as u64,
            sum: n as f64,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![n as i64],
            custom_values: [0.5, 1.0].into(),
            ..Histogram::default()
        };
    }
    Histogram {
        schema: 3,
        zero_threshold: 1e-9,
        zero_count: 1,
        count: 2 * n as u64 + 3,
        sum: 1.5,
        positive_spans: vec![Span { offset: -2, length: 1 }, Span { offset: 3, length: 1 }],
        positive_buckets: vec![n as i64, 0],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        negative_buckets: vec![2],
        ..Histogram::default()
    }
}

/// A store with everything in it.
fn store() -> FaultyFs {
    let fs = FaultyFs::new();
    let db = Db::open(options(), &prometheus::Registry::new(), Arc::new(fs.clone())).expect("an empty disk");
    let labels = |name: &str| Labels::from_pairs([("__name__", name), ("job", "fuzz")]);
    let mut appender = db.appender(AppendOptions::default());
    let layout = appender.open_layout();
    for name in ["row0", "row1", "row2"] {
        appender.extend_layout(layout, &labels(name)).expect("fits");
    }
    let mut reference = None;
    for t in (0..40i64).map(|i| i * 1000) {
        let absent = f64::from_bits(ABSENT_BITS);
        let row = [t as f64, 1.0, if t % 3000 == 0 { absent } else { -0.0 }];
        appender.append_row(&Row { layout, t, values: &row });
        for (name, start) in [("single", None), ("counter", Some(500))] {
            let value = SampleValue::Float(t as f64 / 3.0);
            let series = appender.append(None, &labels(name), AppendSample { t, value, start });
            reference = reference.or(series.ok());
        }
        let value = histogram((t / 1000) as usize);
        let value = if t % 2000 == 0 {
            SampleValue::FloatHistogram(Arc::new(value.to_float()))
        } else {
            SampleValue::Histogram(Arc::new(value))
        };
        appender.append(None, &labels("histogram"), AppendSample { t, value, start: None }).expect("valid");
        if t % 10_000 == 0 {
            let series = reference.expect("it was appended");
            let exemplar = Exemplar { labels: labels("trace"), value: 1.0, t: Some(t) };
            appender.append_exemplar(series, &exemplar).expect("in order");
            let metadata =
                Metadata { kind: MetricKind::Counter, unit: "seconds".into(), help: format!("Help {t}") };
            appender.update_metadata(series, &metadata).expect("known");
            appender.commit().expect("a sound disk");
            appender = db.appender(AppendOptions::default());
        }
    }
    appender.commit().expect("a sound disk");
    db.checkpoint().expect("a sound disk");
    let log = Path::new("/data/wal/00000002");
    let mut appender = db.appender(AppendOptions::default());
    appender.append(None, &labels("late"), AppendSample::float(50_000, 1.0)).expect("in order");
    appender.append_row(&Row { layout, t: 60_000, values: &[1.0, 2.0, 3.0] });
    appender.commit().expect("a sound disk");
    assert!(fs.read(log).is_some(), "the log goes on behind the checkpoint");
    fs
}

/// The log of the same store before its checkpoint.
fn log() -> Vec<u8> {
    let fs = FaultyFs::new();
    let db = Db::open(options(), &prometheus::Registry::new(), Arc::new(fs.clone())).expect("an empty disk");
    let labels = |name: &str| Labels::from_pairs([("__name__", name), ("job", "fuzz")]);
    let mut appender = db.appender(AppendOptions::default());
    let layout = appender.open_layout();
    for name in ["row0", "row1", "row2"] {
        appender.extend_layout(layout, &labels(name)).expect("fits");
    }
    for t in (0..5i64).map(|i| i * 1000) {
        appender.append_row(&Row { layout, t, values: &[t as f64, 1.0, stale_nan()] });
        let value = SampleValue::Float(t as f64 / 3.0);
        let series = appender
            .append(None, &labels("one"), AppendSample { t, value, start: Some(-5) })
            .expect("in order");
        let value = SampleValue::Histogram(Arc::new(histogram(7)));
        appender.append(None, &labels("histogram"), AppendSample { t, value, start: None }).expect("valid");
        let exemplar = Exemplar { labels: labels("trace"), value: 1.0, t: Some(t) };
        appender.append_exemplar(series, &exemplar).expect("in order");
        let metadata = Metadata { kind: MetricKind::Gauge, unit: String::new(), help: format!("Help {t}") };
        appender.update_metadata(series, &metadata).expect("known");
        appender.commit().expect("a sound disk");
        appender = db.appender(AppendOptions::default());
    }
    drop(appender);
    fs.read(Path::new("/data/wal/00000001")).expect("it was written")
}

pub(super) fn wal_segment() -> Vec<Vec<u8>> {
    vec![log()]
}

pub(super) fn wal_commits() -> Vec<Vec<u8>> {
    vec![unseal(SEGMENT_MAGIC, log())]
}

pub(super) fn wal_record() -> Vec<Vec<u8>> {
    // Without kinds and lengths: the payloads one by one.
    let list = unseal(SEGMENT_MAGIC, log());
    let mut reader = crate::coding::Reader::new(&list);
    let mut payloads = Vec::new();
    while let (Ok(_), Ok(len)) = (reader.u8(), reader.u16_le()) {
        payloads.push(reader.bytes(usize::from(len)).expect("it was unsealed").to_vec());
    }
    payloads
}

pub(super) fn checkpoint() -> Vec<Vec<u8>> {
    let fs = store();
    let is_checkpoint = |path: &&std::path::PathBuf| path.to_string_lossy().contains("checkpoint.");
    let paths = fs.paths();
    let files = paths.iter().filter(is_checkpoint).filter_map(|path| fs.read(path));
    files.map(|file| unseal(CHECKPOINT_MAGIC, file)).collect()
}

pub(super) fn chunk() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for rows in [1u8, 7, 64, 200] {
        let all = usize::from(rows);
        let presence: Vec<bool> = (0..all).map(|row| row % 3 != 1).collect();
        let present = presence.iter().filter(|present| **present).count();
        for kind in 0..7 {
            let mut add = |shared, presence: Option<&[bool]>, count, starts: &[Timestamp]| {
                let out = vec![rows];
                let (times, values) = (times(all), values(kind, count));
                for effort in [Effort::Quick, Effort::Small] {
                    let mut out = out.clone();
                    chunk::encode_floats(&times, shared, presence, &values, starts, effort, &mut out);
                    seeds.push(out);
                }
            };
            add(false, None, all, &[]);
            add(true, None, all, &vec![3; all]);
            add(true, Some(&presence), present, &[]);
        }
        let integers = (0..all).map(|n| HistogramValue::Integer(Arc::new(histogram(n))));
        let floats = (0..all).map(|n| HistogramValue::Float(Arc::new(histogram(n).to_float())));
        let mixed = integers.clone().zip(floats.clone()).enumerate();
        let mixed = mixed.map(|(n, (a, b))| if n % 4 == 0 { a } else { b });
        for histograms in [integers.collect::<Vec<_>>(), floats.collect(), mixed.collect()] {
            let mut out = vec![rows];
            chunk::encode_histograms(&times(all), &histograms, &vec![5; all], &mut out);
            seeds.push(out);
        }
    }
    seeds
}

pub(super) fn columns() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for rows in [1u16, 63, 64, 65, 500] {
        let mut out = rows.to_le_bytes().to_vec();
        chunk::encode_times(&times(usize::from(rows)), &mut out);
        seeds.push(out);
        for kind in 0..7 {
            let mut out = rows.to_le_bytes().to_vec();
            chunk::encode_values(&values(kind, usize::from(rows)), Effort::Quick, &mut out);
            seeds.push(out);
            let mut out = rows.to_le_bytes().to_vec();
            chunk::encode_values(&values(kind, usize::from(rows)), Effort::Small, &mut out);
            seeds.push(out);
        }
    }
    seeds
}

pub(super) fn frame() -> Vec<Vec<u8>> {
    let chunks = chunk();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let mut seeds = Vec::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(3)] {
        for count in [0, 1, 5, chunks.len()] {
            let mut out = Vec::new();
            encode_frame(chunks.get(..count).unwrap_or_default(), compression, &mut out);
            // The unpacked form begins behind the head.
            if compression == Compression::None {
                seeds.push(out.get(crate::frame::FRAME_HEAD_LEN..).unwrap_or_default().to_vec());
            }
            seeds.push(out);
        }
    }
    seeds
}

pub(super) fn meta() -> Vec<Vec<u8>> {
    let text = r#"{
        "ulid": "01JD0000000000000000000000", "minTime": 0, "maxTime": 7200000,
        "stats": {"numSamples": 10, "numSeries": 2, "numChunks": 3},
        "compaction": {"level": 2, "sources": ["01JD0000000000000000000001", "01JD0000000000000000000002"],
            "parents": [{"ulid": "01JD0000000000000000000001", "minTime": 0, "maxTime": 3600000}]},
        "version": 1, "format": "nilometer-block/1", "unknown": {"kept": [1, "x"]}
    }"#;
    let parsed = serde_json::from_str::<BlockMeta>(text).map(|meta| meta.encode());
    vec![text.as_bytes().to_vec(), parsed.expect("the example can be read")]
}

pub(super) fn tombstones() -> Vec<Vec<u8>> {
    let mut tombstones = Tombstones::default();
    for series in [0u32, 1, 7, 70_000, u32::MAX] {
        tombstones.add(series, TimeRange::new(-5, i64::from(series)));
        tombstones.add(series, TimeRange::new(i64::MAX - 5, i64::MAX));
    }
    // Without the checksum, which the target adds.
    let without = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len().saturating_sub(4));
        bytes
    };
    vec![without(tombstones.encode()), without(Tombstones::default().encode())]
}

/// A sound block.
pub(super) struct TemplateBlock {
    pub(super) fs: FaultyFs,
    pub(super) dir: PathBuf,
}

/// A block with series of all kinds, packed little, so that changes reach what is packed.
pub(super) fn block() -> &'static TemplateBlock {
    static BLOCK: OnceLock<TemplateBlock> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let fs = FaultyFs::new();
        let disk: Arc<dyn FileSystem> = Arc::new(fs.clone());
        let id = ulid::Ulid(0x018b_cfe5_6800_0123_4567_89ab_cdef_0123);
        let options =
            BlockOptions { compression: Compression::None, batch_series: 8, ..BlockOptions::for_level(1) };
        let mut writer = BlockWriter::create(&disk, Path::new("/data"), id, options).expect("a sound disk");
        for number in 0..30usize {
            let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
            let name = format!("metric_{:02}", number / 3);
            let labels = Labels::from_pairs([
                ("__name__", name.as_str()),
                ("n", &format!("{number:02}")),
                ("parity", parity),
            ]);
            let mut columns = Columns::default();
            let rows = 20 + number;
            for (row, t) in times(rows).into_iter().enumerate() {
                if number % 10 == 9 {
                    columns.push_histogram(t, HistogramValue::Integer(Arc::new(histogram(row))), 0);
                } else {
                    columns.push_float(t, values(number % 6, rows)[row], if number == 4 { 7 } else { 0 });
                }
            }
            writer.add(&labels, &columns).expect("a sound disk");
        }
        let made = Made {
            min_time: 0,
            max_time: 7_200_000,
            level: 1,
            sources: vec![],
            parents: vec![],
            hints: vec![],
        };
        writer.finish(made).expect("a sound disk").expect("it has samples");
        TemplateBlock { fs, dir: Path::new("/data").join(id.to_string()) }
    })
}

pub(super) fn block_index() -> Vec<Vec<u8>> {
    vec![block().fs.read(&block().dir.join("index")).expect("it was written")]
}

pub(super) fn block_chunks() -> Vec<Vec<u8>> {
    vec![block().fs.read(&block().dir.join("chunks/000001")).expect("it was written")]
}
