//! Chunks of every kind: round trips, damage, the examples of the document, and what earlier versions wrote.
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use std::sync::Arc;

use super::xor::{BitWriter, ValueEncoder};
use super::*;
use crate::coding::put_varint;
use model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use model::sample::STALE_NAN_BITS;
use proptest::prelude::*;

const DOCUMENT: &str = include_str!("../../../docs/formats/chunk.md");

fn floats(bytes: &[u8], times: Option<&[Timestamp]>) -> Vec<(Timestamp, u64)> {
    let columns = read(bytes, times, None).unwrap();
    columns.times.iter().copied().zip(bits(&columns.values)).collect()
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (-5i64..5).prop_map(|v| (v as f64).to_bits()),
        Just(STALE_NAN_BITS),
        Just((-0.0f64).to_bits()),
        Just(f64::INFINITY.to_bits()),
    ]
}

fn effort() -> impl Strategy<Value = Effort> {
    prop_oneof![Just(Effort::Quick), Just(Effort::Small)]
}

fn hint(code: u8) -> CounterResetHint {
    match code {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::CounterReset,
        2 => CounterResetHint::NotCounterReset,
        _ => CounterResetHint::Gauge,
    }
}

/// A histogram of one of a few shapes, with any fields.
fn histogram() -> impl Strategy<Value = HistogramValue> {
    let fields = (any::<u64>(), prop_oneof![0u64..9, any::<u64>()], value(), 0u8..4);
    let buckets = prop::collection::vec(prop_oneof![-9i64..9, any::<i64>()], 4);
    let shape = (prop_oneof![4 => Just(0u8), 1 => 1u8..6], prop_oneof![3 => Just(false), 1 => Just(true)]);
    (fields, buckets, shape).prop_map(|((count, zero_count, sum, code), buckets, (shape, float))| {
        let length = u32::from(shape % 4);
        let positive_spans = vec![Span { offset: -3, length: 4 - length }, Span { offset: 7, length: 0 }];
        let negative_spans = if length == 0 { Vec::new() } else { vec![Span { offset: 1, length }] };
        let (positive, negative) = buckets.split_at(buckets.len() - length as usize);
        let schema = if shape == 5 { -53 } else { 3 };
        let custom_values: Arc<[f64]> = if shape == 5 { [0.5, -0.0, 1.0].into() } else { [].into() };
        let zero_threshold = f64::from_bits(if shape == 4 { STALE_NAN_BITS } else { 7 });
        let absolute = |buckets: &[i64]| buckets.iter().map(|b| f64::from_bits(b.cast_unsigned())).collect();
        if float {
            HistogramValue::Float(Arc::new(FloatHistogram {
                counter_reset_hint: hint(code),
                schema,
                zero_threshold,
                zero_count: f64::from_bits(zero_count),
                count: f64::from_bits(count),
                sum: f64::from_bits(sum),
                positive_spans,
                negative_spans,
                positive_buckets: absolute(positive),
                negative_buckets: absolute(negative),
                custom_values,
            }))
        } else {
            HistogramValue::Integer(Arc::new(Histogram {
                counter_reset_hint: hint(code),
                schema,
                zero_threshold,
                zero_count,
                count,
                sum: f64::from_bits(sum),
                positive_spans,
                negative_spans,
                positive_buckets: positive.to_vec(),
                negative_buckets: negative.to_vec(),
                custom_values,
            }))
        }
    })
}

/// A latency histogram that `rows` scrapes see growing; the last one is a staleness marker.
pub(super) fn latencies(rows: usize, buckets: usize) -> Vec<HistogramValue> {
    let mut counts = vec![0i64; buckets];
    let (mut seed, mut sum) = (7u64, 0.0);
    let mut out: Vec<_> = (1..rows)
        .map(|_| {
            let mut total = 0;
            for (index, count) in counts.iter_mut().enumerate() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let middle = (index as f64 - buckets as f64 / 2.0) / 4.0;
                *count += ((seed >> 40) as f64 / 2f64.powi(24) * 20.0 * (-middle * middle).exp()) as i64;
                total += count.cast_unsigned();
                sum += *count as f64 * 1e-3;
            }
            let deltas = counts.iter().scan(0, |before, count| {
                let delta = count - *before;
                *before = *count;
                Some(delta)
            });
            HistogramValue::Integer(Arc::new(Histogram {
                schema: 3,
                zero_threshold: 1e-128,
                count: total + 2,
                zero_count: 2,
                sum,
                positive_spans: vec![Span { offset: -8, length: buckets as u32 }],
                positive_buckets: deltas.collect(),
                ..Histogram::default()
            }))
        })
        .collect();
    let marker = Histogram { sum: f64::from_bits(STALE_NAN_BITS), ..Histogram::default() };
    out.push(HistogramValue::Integer(Arc::new(marker)));
    out
}

fn read(bytes: &[u8], times: Option<&[Timestamp]>, base: Option<&[f64]>) -> Result<Columns, DecodeError> {
    let mut out = Columns::default();
    decode_against(bytes, times, base, &mut out).map(|()| out)
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check_histograms(times: &[Timestamp], values: &[HistogramValue], starts: &[Timestamp]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_histograms(times, values, starts, &mut bytes);
    assert_eq!(info(&bytes), Ok(ChunkInfo { histogram: true, count: times.len(), against: false }));
    let columns = read(&bytes, None, None).unwrap();
    assert_eq!(columns.histogram_times, times);
    assert_eq!(columns.histograms.len(), values.len());
    assert!(columns.histograms.iter().zip(values).all(|(a, b)| a.same_bits(b)));
    assert_eq!(columns.histogram_starts, if has_starts(starts) { starts } else { &[] });
    bytes
}

#[test]
fn a_constant_takes_a_handful_of_bytes() {
    let times: Vec<Timestamp> = (0..120).map(|i| i * 1000).collect();
    let mut bytes = Vec::new();
    encode_floats(&times, true, None, &[7.0; 120], &[], Effort::Quick, &mut bytes);
    assert_eq!(bytes.len(), 4);
    assert_eq!(floats(&bytes, Some(&times)).len(), 120);
}

#[test]
fn truncated_and_foreign_bytes_are_errors() {
    let times: Vec<Timestamp> = (0..50).collect();
    let values: Vec<f64> = (0..50).map(|i| f64::from(i * i)).collect();
    let mut bytes = Vec::new();
    encode_floats(&times, true, None, &values, &[], Effort::Quick, &mut bytes);
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len], Some(&times), None).is_err(), "{len}");
    }
    let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
    assert!(read(&longer, Some(&times), None).is_err());
    assert_eq!(read(&[9, 0], None, None).err(), Some(DecodeError::Unknown("chunk codec")));
    assert_eq!(info(&[0x57, 0]), Err(DecodeError::Unknown("chunk codec")));
    // A count that nobody would write, though a constant needs no more bytes for it.
    let huge = [KIND_FLOATS | OWN_TIMES, 0xff, 0xff, 0xff, 0xff, 0x0f, 16, 0, 0, 4];
    assert_eq!(info(&huge), Err(DecodeError::Inconsistent("number of samples")));
    assert!(read(&huge, None, None).is_err());
}

#[test]
fn buckets_are_smaller_against_the_one_before() {
    let (mut lower, mut upper, mut a, mut b) = (0u32, 0u32, Vec::new(), Vec::new());
    for row in 0..480u32 {
        lower += row.wrapping_mul(2_654_435_761) >> 24;
        upper += u32::from(row % 50 == 0);
        a.push(f64::from(lower));
        b.push(f64::from(lower + upper));
    }
    b[479] = f64::from_bits(STALE_NAN_BITS);
    let times: Vec<Timestamp> = (0..480).collect();
    let (mut alone, mut against) = (Vec::new(), Vec::new());
    encode_floats(&times, true, None, &b, &[], Effort::Quick, &mut alone);
    assert!(encode_floats_against(&a, &times, true, None, &b, &[], Effort::Quick, &mut against));
    assert!(against.len() * 10 < alone.len(), "{} of {}", against.len(), alone.len());
    assert!(info(&against).unwrap().against);
    assert_eq!(bits(&read(&against, Some(&times), Some(&a)).unwrap().values), bits(&b));
    assert_eq!(
        read(&against, Some(&times), None).err(),
        Some(DecodeError::Inconsistent("chunk without its base"))
    );
    assert!(read(&against, Some(&times), Some(&a[1..])).is_err());
}

#[test]
fn chains_of_buckets_are_read_and_bounded() {
    let times: Vec<Timestamp> = (0..200).collect();
    let mut values = vec![0.0; 200];
    let (mut frame, mut all) = (Vec::new(), Vec::new());
    for bucket in 0..=CHAIN_MAX + 1 {
        let base: Vec<f64> = values.clone();
        let mut chunk = Vec::new();
        for (row, value) in values.iter_mut().enumerate() {
            *value += ((row * (bucket + 3)) / 7) as f64;
        }
        if bucket == 0 {
            values.iter_mut().enumerate().for_each(|(row, value)| *value += (row * row * 7919 % 1000) as f64);
            encode_floats(&times, true, None, &values, &[], Effort::Quick, &mut chunk);
        } else {
            assert!(
                encode_floats_against(&base, &times, true, None, &values, &[], Effort::Quick, &mut chunk),
                "{bucket}"
            );
        }
        frame.push(chunk);
        all.push(values.clone());
    }
    let read = |chains: &mut Chains<u8>, name, place| {
        let mut out = Columns::default();
        chains.decode(name, |at| Ok(&frame[at]), place, Some(&times), &mut out).map(|()| out)
    };
    // Alone, upwards, downwards, and in between; frames of another name have nothing in common.
    let upwards = 0..=CHAIN_MAX;
    let mut chains = Chains::default();
    for place in upwards.clone().chain(upwards.clone().rev()).chain([7, 3, CHAIN_MAX, 0, 5]) {
        for mut out in
            [read(&mut Chains::default(), 0, place), read(&mut chains, 0, place)].map(Result::unwrap)
        {
            assert_eq!((&out.times, &out.values), (&times, &all[place]));
            out.clear();
        }
    }
    assert_eq!(read(&mut chains, 0, CHAIN_MAX + 1).err(), Some(DecodeError::Inconsistent("chain of chunks")));
    frame.truncate(1);
    frame.push(Vec::new());
    encode_floats_against(&all[0], &times, true, None, &all[2], &[], Effort::Quick, &mut frame[1]);
    let read = |chains: &mut Chains<u8>, name| {
        let mut out = Columns::default();
        chains.decode(name, |at| Ok(&frame[at]), 1, Some(&times), &mut out).map(|()| out.values)
    };
    assert_eq!(read(&mut chains, 1).unwrap(), all[2]);
}

#[test]
fn histograms_by_columns_are_smaller() {
    let values = latencies(60, 40);
    let times: Vec<Timestamp> = (0..60).map(|i| 1_764_000_000_000 + i * 15_000).collect();
    let bytes = check_histograms(&times, &values, &[]);
    assert_eq!(bytes[0] & KIND_MASK, KIND_HISTOGRAM_COLUMNS);
    let (mut rows, mut previous) = (Vec::new(), None);
    for value in &values {
        histogram::put_one(&mut rows, value, previous);
        previous = Some(value);
    }
    assert!(bytes.len() * 2 < rows.len(), "{} of {}", bytes.len(), rows.len());
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len], None, None).is_err(), "{len}");
    }
}

/// What is before the examples of the document, in order.
fn examples() -> Vec<Vec<u8>> {
    let times = [1000, 2000, 3000, 4000, 5000];
    let mut out = Vec::new();
    let mut float = |shared: bool, presence: Option<&[bool]>, values: &[f64], starts: &[Timestamp]| {
        let mut bytes = Vec::new();
        let own: Vec<Timestamp> = times.iter().copied().take(values.len()).collect();
        encode_floats(
            if shared { &times } else { &own },
            shared,
            presence,
            values,
            starts,
            Effort::Quick,
            &mut bytes,
        );
        out.push(bytes);
    };
    float(true, None, &[0.25; 5], &[]);
    float(false, None, &[1.5, 2.5, 4.5, 8.5, f64::from_bits(STALE_NAN_BITS)], &[]);
    float(true, Some(&[false, true, true, true, false]), &[-0.0, 7.0, 7.0], &[0, 900, 900]);
    float(true, Some(&[true, false, true, false, true]), &[3.0, 1.0, 2.0], &[]);
    float(true, None, &[1.1, 2.2, 1.1 + 2.2, 4.4, 1.1 * 5.0], &[]);
    float(true, None, &[1.0 / 3.0; 5], &[]);
    let mut bytes = Vec::new();
    let base = [10.0, 20.0, 40.0, 70.0, f64::from_bits(STALE_NAN_BITS)];
    let values = [11.0, 22.0, 43.0, 73.0, f64::from_bits(STALE_NAN_BITS)];
    assert!(encode_floats_against(&base, &times, true, None, &values, &[], Effort::Quick, &mut bytes));
    out.push(bytes);
    // Zero once, then 100, 30, 101, 30 in turn.
    let turns: Vec<f64> =
        (0..65).map(|row| [30.0, 100.0, 30.0, 101.0][row % 4] * f64::from(u8::from(row > 0))).collect();
    let own: Vec<Timestamp> = (1..=65).map(|row| row * 1000).collect();
    let mut bytes = Vec::new();
    encode_floats(&own, false, None, &turns, &[], Effort::Small, &mut bytes);
    out.push(bytes);
    let growing = |count: u64| {
        let buckets = vec![count.cast_signed(), 1];
        HistogramValue::Integer(Arc::new(Histogram {
            schema: 2,
            zero_threshold: 0.5,
            zero_count: 1,
            count: 2 * count + 2,
            sum: count as f64,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_buckets: buckets,
            ..Histogram::default()
        }))
    };
    for rows in [&[2u64, 4, 6, 9, 12][..], &[2]] {
        let mut bytes = Vec::new();
        let values: Vec<_> = rows.iter().map(|count| growing(*count)).collect();
        encode_histograms(&times[..rows.len()], &values, &[], &mut bytes);
        out.push(bytes);
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>().trim_end().to_owned()
}

/// The document's own examples are what is written.
#[test]
fn the_examples_of_the_document_are_true() {
    let blocks: Vec<String> = DOCUMENT
        .split("```hex\n")
        .skip(1)
        .map(|rest| {
            let block = rest.split("```").next().unwrap_or("");
            let digits = block.lines().filter_map(|line| line.split(';').next());
            digits.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let written: Vec<String> = examples().iter().map(|bytes| hex(bytes)).collect();
    assert_eq!(blocks.join("\n"), written.join("\n"));
}

/// Chunks of the first version, as it wrote them.
#[test]
fn chunks_of_the_first_version_are_read() {
    let times: Vec<Timestamp> = vec![1000, 2000, 3000];
    let constant = [0x81, 2, 0b101, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
    let columns = read(&constant, Some(&times), None).unwrap();
    assert_eq!((columns.times, columns.values), (vec![1000, 3000], vec![1.0, 1.0]));

    let (mut bits, mut encoder) = (BitWriter::default(), ValueEncoder::new());
    for value in [1.0f64, 1.0, -2.5] {
        encoder.push(&mut bits, value.to_bits());
    }
    let mut xor = vec![2, 3];
    xor.extend_from_slice(bits.as_bytes());
    assert_eq!(hex(&xor), "02 03 3f f0 00 00 00 00 00 00 60 3b ff d0");
    assert_eq!(read(&xor, Some(&times), None).unwrap().values, [1.0, 1.0, -2.5]);

    let own = [3, 1, 0, 0, 0, 0, 0, 0, 3, 0xe8, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
    let columns = read(&own, None, None).unwrap();
    assert_eq!((columns.times, columns.values), (vec![1000], vec![1.0]));

    let values = latencies(4, 3);
    let mut rows = vec![4, 4];
    for (index, value) in values.iter().enumerate() {
        put_varint(&mut rows, if index == 0 { 1000 } else { 15 });
        histogram::put_one(&mut rows, value, index.checked_sub(1).map(|before| &values[before]));
    }
    assert_eq!(info(&rows), Ok(ChunkInfo { histogram: true, count: 4, against: false }));
    let columns = read(&rows, None, None).unwrap();
    assert_eq!(columns.histogram_times, [1000, 1015, 1030, 1045]);
    assert!(columns.histograms.iter().zip(&values).all(|(a, b)| a.same_bits(b)));
}

proptest! {
    /// Presence in few runs and in many, starts, own and shared times, behind other samples, against a base or not.
    #[test]
    fn all_parts_of_float_chunks_survive(
        runs in prop::collection::vec((any::<bool>(), 1usize..40), 1..8),
        rows in prop::collection::vec((value(), prop_oneof![Just(0i64), -5i64..5, any::<i64>()]), 320),
        shared in any::<bool>(),
        with_starts in any::<bool>(),
        base in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
        effort in effort(),
        (damaged, byte) in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let present: Vec<bool> = runs.iter().flat_map(|(present, len)| std::iter::repeat_n(*present, *len)).collect();
        let times: Vec<Timestamp> = (0..).map(|i| 1000 + i * 15).take(present.len()).collect();
        let own: Vec<Timestamp> = times.iter().zip(&present).filter(|(_, p)| **p).map(|(t, _)| *t).collect();
        let values: Vec<f64> = rows.iter().take(own.len()).map(|row| f64::from_bits(row.0)).collect();
        let starts: Vec<Timestamp> = rows.iter().take(if with_starts { own.len() } else { 0 }).map(|r| r.1).collect();
        let base: Option<Vec<f64>> = base.map(|base| values.iter().map(|v| v + f64::from_bits(base)).collect());
        let (column, presence) = if shared { (&times, Some(&present[..])) } else { (&own, None) };
        let mut bytes = Vec::new();
        let against = match &base {
            Some(base) => encode_floats_against(base, column, shared, presence, &values, &starts, effort, &mut bytes),
            None => { encode_floats(column, shared, presence, &values, &starts, effort, &mut bytes); false }
        };
        prop_assert_eq!(info(&bytes), Ok(ChunkInfo { histogram: false, count: own.len(), against }));
        let mut out = Columns::default();
        out.push_float(-7, 0.5, 0);
        let column = Some(&times[..]).filter(|_| shared);
        decode_against(&bytes, column, base.as_deref(), &mut out).unwrap();
        prop_assert_eq!(&out.times[1..], &own[..]);
        prop_assert_eq!(bits(&out.values[1..]), bits(&values));
        if has_starts(&starts) {
            prop_assert_eq!(&out.starts[1..], &starts[..]);
        } else {
            prop_assert!(out.starts.is_empty());
        }
        // A chunk that breaks off leaves nothing behind.
        for len in 0..bytes.len() {
            prop_assert!(decode_against(&bytes[..len], column, base.as_deref(), &mut out).is_err());
            prop_assert_eq!((out.times.len(), out.values.len()), (1 + own.len(), 1 + own.len()));
        }
        // One byte of it changed.
        let damaged = damaged.index(bytes.len());
        bytes[damaged] = byte;
        let mut out = Columns::default();
        if decode_against(&bytes, column, base.as_deref(), &mut out).is_err() {
            prop_assert!(out.is_empty() && out.values.is_empty());
        }
        prop_assert!(out.times.len() == out.values.len() && out.histogram_times.len() == out.histograms.len());
    }

    /// Whole numbers with a trend, as of counters: what compacted blocks have in classes.
    #[test]
    fn counters_survive_with_effort(
        steps in prop::collection::vec(0u32..2000, 70..600),
        offsets in prop::collection::vec(0u32..30, 600),
        with_base in any::<bool>(),
        (damaged, byte) in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let sum = |n: &mut u64, step: &u32| { *n += u64::from(*step); Some(*n as f64) };
        let base: Vec<f64> = steps.iter().scan(1 << 30, sum).collect();
        let values: Vec<f64> = base.iter().zip(offsets.iter().scan(0, sum)).map(|(b, more)| b + more).collect();
        let times: Vec<Timestamp> = (0..).map(|i| 1000 + i * 15).take(values.len()).collect();
        let base = base.as_slice();
        let base = Some(base).filter(|_| with_base);
        let mut bytes = Vec::new();
        match base {
            Some(base) => _ = encode_floats_against(base, &times, true, None, &values, &[], Effort::Small, &mut bytes),
            None => encode_floats(&times, true, None, &values, &[], Effort::Small, &mut bytes),
        }
        let mut out = Columns::default();
        decode_against(&bytes, Some(&times), base, &mut out).unwrap();
        prop_assert_eq!(bits(&out.values), bits(&values));
        for len in 0..bytes.len() {
            out.clear();
            prop_assert!(decode_against(&bytes[..len], Some(&times), base, &mut out).is_err());
            prop_assert!(out.is_empty());
        }
        let damaged = damaged.index(bytes.len());
        bytes[damaged] = byte;
        let _ = decode_against(&bytes, Some(&times), base, &mut out);
        prop_assert_eq!(out.times.len(), out.values.len());
    }

    #[test]
    fn own_times_survive_extremes(samples in prop::collection::btree_map(any::<i64>(), value(), 1..200)) {
        let samples: Vec<_> = samples.into_iter().collect();
        let chunk = Chunk::of_samples(&samples).unwrap();
        prop_assert_eq!(floats(&chunk.bytes, None), samples);
    }

    #[test]
    fn histograms_survive_bit_for_bit(
        rows in prop::collection::vec((histogram(), prop_oneof![Just(0i64), -3i64..3]), 1..40),
        by_columns in any::<bool>(),
    ) {
        let times: Vec<Timestamp> = (0..).map(|i| i * 10).take(rows.len()).collect();
        let values: Vec<HistogramValue> = rows.iter().map(|row| row.0.clone()).collect();
        let starts: Vec<Timestamp> = rows.iter().map(|row| row.1).collect();
        check_histograms(&times, &values, &starts);
        // Whichever is smaller, both must do.
        let mut bytes = Vec::new();
        if by_columns {
            prop_assert!(histogram_columns::put(&values, &mut bytes));
            let mut out = Vec::new();
            histogram_columns::get(&mut Reader::new(&bytes), values.len(), &mut out).unwrap();
            prop_assert!(out.len() == values.len() && out.iter().zip(&values).all(|(a, b)| a.same_bits(b)));
        }
    }

    #[test]
    fn any_bytes_are_survived(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in prop_oneof![Just(None), (0x10u8..0x50).prop_map(Some)],
        count in 0u8..130,
        rows in 0u8..130,
    ) {
        if let (Some(kind), [first, second, ..]) = (kind, &mut bytes[..]) {
            (*first, *second) = (kind, count);
        }
        let times: Vec<Timestamp> = (0..i64::from(rows)).collect();
        let base: Vec<f64> = (0..rows).map(f64::from).collect();
        let mut constant = Vec::new();
        encode_floats(&times, true, None, &base, &[], Effort::Quick, &mut constant);
        let _ = info(&bytes);
        let mut out = Columns::default();
        if decode_against(&bytes, Some(&times), Some(&base), &mut out).is_err() {
            prop_assert!(out.is_empty() && out.values.is_empty() && out.histograms.is_empty());
        }
        prop_assert!(out.times.len() == out.values.len() && out.histogram_times.len() == out.histograms.len());
        let _ = read(&bytes, None, None);
        let mut chains = Chains::default();
        for place in [9, 8, 9] {
            let _ = chains.decode((), |at| Ok(if at == 3 { &constant } else { &bytes }), place, Some(&times), &mut out);
        }
    }

    /// One byte of a good chunk changed.
    #[test]
    fn damage_is_survived(
        rows in prop::collection::vec(histogram(), 1..30),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let times: Vec<Timestamp> = (0..).take(rows.len()).collect();
        let mut bytes = Vec::new();
        encode_histograms(&times, &rows, &[], &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read(&bytes, None, None);
    }
}
