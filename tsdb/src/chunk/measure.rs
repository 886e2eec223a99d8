//! Bytes and nanoseconds a sample of the float codec beside XOR, on recorded scrapes. A tool, not a check:
//!
//! `NILOMETER_RECORDING=FILE cargo test --release -p tsdb --lib -- --ignored --nocapture chunk::measure`
//!
//! `FILE` is a zstd stream of `TBREC1\n`, then, little-endian: u32 number of targets, each u16 length and name, u32 number of
//! scrapes, i64 times, u32 number of series, each u32 length and identity, u8 type, u32 number of runs of u32 first scrape
//! and u32 length; then the u64 bits of all values. `NILOMETER_FAMILIES=N` lists the N families that take the most bytes.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool that prints times")]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a tool")]

use std::collections::HashMap;
use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

use super::nm::{Effort, decode_values, encode_against, encode_values};
use super::xor::{BitReader, BitWriter, ValueDecoder, ValueEncoder};
use super::{decode_times, encode_times, histogram, histogram_columns};
use crate::coding::Reader;

/// Values of consecutive scrapes.
struct Run {
    series: usize,
    values: Vec<f64>,
}

struct Target {
    times: Vec<i64>,
    identities: Vec<String>,
    runs: Vec<Run>,
}

fn read(path: &str) -> Vec<Target> {
    let file = std::fs::File::open(path).unwrap();
    let mut decoder = zstd::stream::read::Decoder::new(file).unwrap();
    decoder.window_log_max(31).unwrap();
    let mut bytes = Vec::new();
    decoder.read_to_end(&mut bytes).unwrap();
    let mut reader = Reader::new(&bytes);
    assert_eq!(reader.bytes(7).unwrap(), b"TBREC1\n");
    let number = |reader: &mut Reader<'_>| reader.u32_le().unwrap() as usize;
    (0..number(&mut reader))
        .map(|_| {
            let name = reader.u16_le().unwrap();
            reader.bytes(name.into()).unwrap();
            let times = (0..number(&mut reader)).map(|_| reader.u64_le().unwrap().cast_signed()).collect();
            let (mut identities, mut runs) = (Vec::new(), Vec::new());
            for series in 0..number(&mut reader) {
                let len = number(&mut reader);
                identities.push(String::from_utf8_lossy(reader.bytes(len).unwrap()).into_owned());
                reader.u8().unwrap();
                let heads: Vec<_> =
                    (0..number(&mut reader)).map(|_| (number(&mut reader), number(&mut reader))).collect();
                for (_, len) in heads {
                    let values = (0..len).map(|_| reader.f64_le().unwrap()).collect();
                    runs.push(Run { series, values });
                }
            }
            Target { times, identities, runs }
        })
        .collect()
}

/// The shortest of three times.
fn fastest(mut work: impl FnMut()) -> Duration {
    (0..3)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .unwrap()
}

fn xor_encode(values: &[f64], out: &mut Vec<u8>) {
    let mut bits = BitWriter::default();
    let mut encoder = ValueEncoder::new();
    for value in values {
        encoder.push(&mut bits, value.to_bits());
    }
    out.extend_from_slice(bits.as_bytes());
}

fn xor_decode(bytes: &[u8], count: usize, out: &mut Vec<f64>) {
    let mut bits = BitReader::new(bytes);
    let mut decoder = ValueDecoder::new();
    for _ in 0..count {
        out.push(f64::from_bits(decoder.next(&mut bits).unwrap()));
    }
}

/// Encodes and decodes all chunks; prints bytes, encoding and decoding for each sample.
fn compare(
    name: &str,
    chunks: &[&[f64]],
    encode: impl Fn(&[f64], &mut Vec<u8>),
    decode: impl Fn(&[u8], usize, &mut Vec<f64>),
) {
    let samples: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    let encoding = fastest(|| {
        bytes.clear();
        ends.clear();
        for chunk in chunks {
            encode(chunk, &mut bytes);
            ends.push(bytes.len());
        }
    });
    let mut out = Vec::new();
    let decoding = fastest(|| {
        let mut from = 0;
        for (chunk, end) in chunks.iter().zip(&ends) {
            out.clear();
            decode(&bytes[from..*end], chunk.len(), &mut out);
            black_box(&out);
            from = *end;
        }
    });
    let mut from = 0;
    for (chunk, end) in chunks.iter().zip(&ends) {
        out.clear();
        decode(&bytes[from..*end], chunk.len(), &mut out);
        assert!(chunk.iter().map(|v| v.to_bits()).eq(out.iter().map(|v| v.to_bits())));
        from = *end;
    }
    let each = |time: Duration| time.as_nanos() as f64 / samples as f64;
    print!(
        "  {name} {:.4} B {:5.2} ns {:5.2} ns",
        bytes.len() as f64 / samples as f64,
        each(encoding),
        each(decoding)
    );
}

/// Bytes a sample when 64 chunks at a time, series by series, are compressed by zstd 1.
fn framed(targets: &[Target], len: usize) -> f64 {
    let (mut total, mut samples) = (0, 0);
    for target in targets {
        let mut runs: Vec<&Run> = target.runs.iter().collect();
        runs.sort_by_key(|run| &target.identities[run.series]);
        let chunks: Vec<&[f64]> = runs.iter().flat_map(|run| run.values.chunks(len)).collect();
        for frame in chunks.chunks(64) {
            let mut bytes = Vec::new();
            for chunk in frame {
                encode_values(chunk, Effort::Quick, &mut bytes);
                samples += chunk.len();
            }
            total += bytes.len().min(zstd::bulk::compress(&bytes, 1).unwrap().len());
        }
    }
    total as f64 / samples as f64
}

/// What each mode takes, and the dearest families.
fn account(targets: &[Target], len: usize, families: usize) {
    let mut modes = [(0usize, 0usize); 8];
    let mut by_family: HashMap<&str, (usize, usize, [usize; 8])> = HashMap::new();
    for target in targets {
        for run in &target.runs {
            let identity = &target.identities[run.series];
            let family = by_family.entry(identity.split('{').next().unwrap_or("")).or_default();
            for chunk in run.values.chunks(len) {
                let mut bytes = Vec::new();
                encode_values(chunk, Effort::Quick, &mut bytes);
                let mode = usize::from(bytes[0] & 7);
                modes[mode].0 += bytes.len();
                modes[mode].1 += chunk.len();
                family.0 += bytes.len();
                family.1 += chunk.len();
                family.2[mode] += 1;
            }
        }
    }
    let total: (usize, usize) = modes.iter().fold((0, 0), |sum, mode| (sum.0 + mode.0, sum.1 + mode.1));
    for (mode, (bytes, samples)) in modes.iter().enumerate().filter(|(_, mode)| mode.1 > 0) {
        println!(
            "  mode {mode}: {:5.2} % of samples, {:5.2} % of bytes, {:.3} B/sample",
            *samples as f64 / total.1 as f64 * 100.0,
            *bytes as f64 / total.0 as f64 * 100.0,
            *bytes as f64 / *samples as f64
        );
    }
    let mut list: Vec<_> = by_family.into_iter().collect();
    list.sort_by_key(|(_, (bytes, ..))| std::cmp::Reverse(*bytes));
    for (name, (bytes, samples, modes)) in list.into_iter().take(families) {
        println!(
            "  {:5.2} % of bytes, {:5.2} % of samples, {:.3} B/sample {modes:?} {name}",
            bytes as f64 / total.0 as f64 * 100.0,
            samples as f64 / total.1 as f64 * 100.0,
            bytes as f64 / samples as f64
        );
    }
}

/// The labels of a bucket without its bound, and the bound as text.
fn bucket_of(identity: &str) -> Option<(String, String)> {
    let (name, labels) = identity.split_once('{')?;
    let (before, after) = labels.split_once("le=\"").filter(|_| name.ends_with("_bucket"))?;
    let (bound, after) = after.split_once('"')?;
    Some((format!("{name}{{{before}{after}"), bound.to_owned()))
}

/// Buckets of classic histograms alone and as differences to the one before, in order of labels and of bounds.
fn classic_buckets(targets: &[Target], len: usize) {
    for by_label in [true, false] {
        let (mut alone, mut with, mut used, mut chunks, mut samples) = (0, 0, 0, 0usize, 0);
        for target in targets {
            let buckets = target.runs.iter().filter_map(|run| {
                let (family, bound) = bucket_of(&target.identities[run.series])?;
                let order = bound.parse::<f64>().unwrap_or(f64::INFINITY);
                Some((family, if by_label { 0.0 } else { order }, bound, &run.values))
            });
            let mut buckets: Vec<_> = buckets.collect();
            buckets.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
            for (index, (family, _, _, values)) in buckets.iter().enumerate() {
                let base = index.checked_sub(1).map(|i| &buckets[i]).filter(|base| base.0 == *family);
                let base = base.filter(|base| base.3.len() == values.len());
                for (at, chunk) in values.chunks(len).enumerate() {
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    encode_values(chunk, Effort::Quick, &mut a);
                    let base = base.and_then(|base| base.3.chunks(len).nth(at));
                    let done = base.is_some_and(|base| encode_against(base, chunk, Effort::Quick, &mut b));
                    alone += a.len();
                    with += if done { a.len().min(b.len()) } else { a.len() };
                    used += usize::from(done && b.len() < a.len());
                    chunks += 1;
                    samples += chunk.len();
                }
            }
        }
        let each = |bytes: usize| bytes as f64 / samples.max(1) as f64;
        println!(
            "  buckets by {}: {samples} samples, alone {:.4} B, against {:.4} B in {used} of {chunks} chunks",
            if by_label { "label" } else { "bound" },
            each(alone),
            each(with)
        );
    }
}

/// Latency histograms that grow, by rows and by columns.
#[test]
#[ignore = "a measurement"]
fn native_histograms() {
    for (rows, buckets) in [(60, 10), (60, 40), (60, 160), (240, 40), (240, 160)] {
        let values = super::tests::latencies(rows, buckets);
        let (mut by_rows, mut by_columns) = (Vec::new(), Vec::new());
        let rows_time = fastest(|| {
            by_rows.clear();
            let mut previous = None;
            for value in &values {
                histogram::put_one(&mut by_rows, value, previous);
                previous = Some(value);
            }
        });
        let columns_time = fastest(|| {
            by_columns.clear();
            assert!(histogram_columns::put(&values, &mut by_columns));
        });
        let mut out = Vec::new();
        let rows_read = fastest(|| {
            out.clear();
            let mut reader = Reader::new(&by_rows);
            for _ in 0..rows {
                let value = histogram::get_one(&mut reader, out.last()).unwrap();
                out.push(value);
            }
        });
        let columns_read = fastest(|| {
            out.clear();
            histogram_columns::get(&mut Reader::new(&by_columns), rows, &mut out).unwrap();
        });
        let each = |time: Duration| time.as_nanos() as f64 / rows as f64;
        println!(
            "{rows} rows of {buckets} buckets: rows {:.1} B {:.0} ns {:.0} ns, columns {:.1} B {:.0} ns {:.0} ns",
            by_rows.len() as f64 / rows as f64,
            each(rows_time),
            each(rows_read),
            by_columns.len() as f64 / rows as f64,
            each(columns_time),
            each(columns_read),
        );
    }
}

#[test]
#[ignore = "needs a recording"]
fn recorded_scrapes() {
    let Ok(path) = std::env::var("NILOMETER_RECORDING") else {
        println!("NILOMETER_RECORDING names no file");
        return;
    };
    let targets = read(&path);
    for len in [120, 240, 480, 960] {
        let chunks: Vec<&[f64]> =
            targets.iter().flat_map(|target| &target.runs).flat_map(|run| run.values.chunks(len)).collect();
        print!("{len:4}");
        for (name, effort) in [("values", Effort::Quick), ("small", Effort::Small)] {
            let encode = |values: &[f64], out: &mut Vec<u8>| encode_values(values, effort, out);
            compare(name, &chunks, encode, |bytes, count, out| {
                decode_values(&mut Reader::new(bytes), count, out).unwrap();
            });
        }
        compare("xor", &chunks, xor_encode, xor_decode);
        print!("  in frames {:.4} B", framed(&targets, len));
        let (mut bytes, mut rows) = (Vec::new(), 0);
        for chunk in targets.iter().flat_map(|target| target.times.chunks(len)) {
            encode_times(chunk, &mut bytes);
            rows += chunk.len();
        }
        print!("  times {:.4} B", bytes.len() as f64 / rows as f64);
        let mut reader = Reader::new(&bytes);
        let mut out = Vec::new();
        for target in &targets {
            for chunk in target.times.chunks(len) {
                out.clear();
                decode_times(&mut reader, chunk.len(), &mut out).unwrap();
                assert_eq!(out, chunk);
            }
        }
        println!();
    }
    let families = std::env::var("NILOMETER_FAMILIES").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    account(&targets, 480, families);
    classic_buckets(&targets, 480);
}
