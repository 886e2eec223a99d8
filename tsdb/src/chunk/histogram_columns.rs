//! Native histograms by columns: a column for each field and each bucket, as long as the shape (schema, thresholds, spans,
//! kind of counts) stays; another shape begins another run.
//!
//! Integer buckets are stored as absolute counts, which only grow in most histograms, while the values hold differences to
//! the neighbour; the number of observations is stored as difference to the sum of its buckets, which is zero in most.
//! All arithmetic is modulo 2^64, so every bit of every field survives. Layout: `docs/formats/chunk.md`.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::sync::Arc;

use model::histogram::{CounterResetHint, FloatHistogram, Histogram};

use super::histogram::{HistogramValue, OwnedShape, get_shape, hint_code, hint_of, put_shape};
use super::nm::{Effort, decode_values, encode_values, integers, plan};
use crate::coding::{DecodeError, Reader, put_uvarint};

/// The buckets of one side of a histogram.
type Buckets = fn(&Histogram) -> &[i64];
/// The same, to be filled.
type BucketsMut = fn(&mut Histogram) -> &mut Vec<i64>;

/// Buckets and spans of all rows: what a damaged number can make a reader allocate, 32 MiB. More are written by rows.
const CELLS_MAX: usize = 1 << 22;

/// Appends a column of histograms, whose number the reader must know; `false`, and nothing, if they are too many for it.
pub(super) fn put(values: &[HistogramValue], out: &mut Vec<u8>) -> bool {
    let before = out.len();
    let mut cells = 0usize;
    for run in values.chunk_by(|a, b| a.shape().same(&b.shape())) {
        let Some(first) = run.first() else { continue };
        let shape = first.shape();
        let spans = shape.positive_spans.len() + shape.negative_spans.len();
        cells = cells.saturating_add((shape.positive + shape.negative + spans).saturating_mul(run.len()));
        if cells > CELLS_MAX {
            out.truncate(before);
            return false;
        }
        put_uvarint(out, (run.len() as u64) << 1 | u64::from(shape.float));
        put_shape(out, &shape);
        for hints in run.chunk_by(|a, b| a.hint() == b.hint()) {
            let hint = hints.first().map_or(0, |first| hint_code(first.hint()));
            put_uvarint(out, (hints.len() as u64 - 1) << 2 | u64::from(hint));
        }
        if shape.float {
            put_floats(run, out);
        } else {
            put_integers(run, out);
        }
    }
    true
}

fn put_integers(run: &[HistogramValue], out: &mut Vec<u8>) {
    let histograms: Vec<&Histogram> = run
        .iter()
        .filter_map(|value| match value {
            HistogramValue::Integer(histogram) => Some(&**histogram),
            HistogramValue::Float(_) => None,
        })
        .collect();
    let Some(first) = histograms.first() else { return };
    let mut column: Vec<i64> = histograms.iter().map(|h| h.zero_count.cast_signed()).collect();
    let mut rest: Vec<i64> =
        histograms.iter().map(|h| h.count.wrapping_sub(h.zero_count).cast_signed()).collect();
    plan::encode(&mut column, Effort::Quick, out);
    let sides: [(usize, Buckets); 2] = [
        (first.positive_buckets.len(), |h| &h.positive_buckets),
        (first.negative_buckets.len(), |h| &h.negative_buckets),
    ];
    for (buckets, side) in sides {
        let mut counts = vec![0i64; histograms.len()];
        for bucket in 0..buckets {
            for ((count, rest), histogram) in counts.iter_mut().zip(&mut rest).zip(&histograms) {
                *count = count.wrapping_add(side(histogram).get(bucket).copied().unwrap_or(0));
                *rest = rest.wrapping_sub(*count);
            }
            column.clone_from(&counts);
            plan::encode(&mut column, Effort::Quick, out);
        }
    }
    plan::encode(&mut rest, Effort::Quick, out);
    encode_values(&histograms.iter().map(|h| h.sum).collect::<Vec<_>>(), Effort::Quick, out);
}

fn put_floats(run: &[HistogramValue], out: &mut Vec<u8>) {
    let histograms: Vec<&FloatHistogram> = run
        .iter()
        .filter_map(|value| match value {
            HistogramValue::Float(histogram) => Some(&**histogram),
            HistogramValue::Integer(_) => None,
        })
        .collect();
    let Some(first) = histograms.first() else { return };
    let mut column = Vec::with_capacity(histograms.len());
    let mut put = |value: &dyn Fn(&FloatHistogram) -> f64| {
        column.clear();
        column.extend(histograms.iter().map(|histogram| value(histogram)));
        encode_values(&column, Effort::Quick, out);
    };
    put(&|h| h.zero_count);
    for bucket in 0..first.positive_buckets.len() {
        put(&|h| h.positive_buckets.get(bucket).copied().unwrap_or(0.0));
    }
    for bucket in 0..first.negative_buckets.len() {
        put(&|h| h.negative_buckets.get(bucket).copied().unwrap_or(0.0));
    }
    put(&|h| h.count);
    put(&|h| h.sum);
}

/// Appends `count` histograms that [`put`] wrote.
///
/// # Errors
/// Whatever is wrong with the bytes; `out` may have more than before then.
pub(super) fn get(
    reader: &mut Reader<'_>,
    count: usize,
    out: &mut Vec<HistogramValue>,
) -> Result<(), DecodeError> {
    let (mut left, mut cells) = (count, 0usize);
    while left > 0 {
        let code = reader.uvarint()?;
        let rows = usize::try_from(code >> 1).map_err(|_| DecodeError::NumberRange)?;
        if rows == 0 || rows > left {
            return Err(DecodeError::Inconsistent("run of histograms"));
        }
        left -= rows;
        let shape = get_shape(reader)?;
        let spans = shape.positive_spans.len() + shape.negative_spans.len();
        cells = cells.saturating_add((shape.positive + shape.negative + spans).saturating_mul(rows));
        if cells > CELLS_MAX {
            return Err(DecodeError::Inconsistent("number of buckets"));
        }
        let hints = get_hints(reader, rows)?;
        if code & 1 == 1 {
            get_floats(reader, &shape, &hints, out)?;
        } else {
            get_integers(reader, &shape, &hints, out)?;
        }
    }
    Ok(())
}

fn get_hints(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<CounterResetHint>, DecodeError> {
    let mut hints = Vec::with_capacity(rows);
    while hints.len() < rows {
        let code = reader.uvarint()?;
        let len = usize::try_from(code >> 2).map_err(|_| DecodeError::NumberRange)?;
        if len >= rows - hints.len() {
            return Err(DecodeError::Inconsistent("run of reset hints"));
        }
        hints.resize(hints.len() + len + 1, hint_of((code & 3).to_le_bytes()[0]));
    }
    Ok(hints)
}

/// The next column of integers.
fn integers(reader: &mut Reader<'_>, rows: usize, column: &mut Vec<i64>) -> Result<(), DecodeError> {
    column.clear();
    integers::decode(reader, rows, |part| column.extend_from_slice(part))
}

fn get_integers(
    reader: &mut Reader<'_>,
    shape: &OwnedShape,
    hints: &[CounterResetHint],
    out: &mut Vec<HistogramValue>,
) -> Result<(), DecodeError> {
    let rows = hints.len();
    let mut column = Vec::with_capacity(rows);
    integers(reader, rows, &mut column)?;
    let mut totals = column.clone();
    let mut histograms: Vec<Histogram> = hints
        .iter()
        .zip(&column)
        .map(|(hint, zero_count)| Histogram {
            counter_reset_hint: *hint,
            schema: shape.schema,
            zero_threshold: shape.zero_threshold,
            zero_count: zero_count.cast_unsigned(),
            count: 0,
            sum: 0.0,
            positive_spans: shape.positive_spans.clone(),
            negative_spans: shape.negative_spans.clone(),
            positive_buckets: Vec::with_capacity(shape.positive),
            negative_buckets: Vec::with_capacity(shape.negative),
            custom_values: Arc::clone(&shape.custom_values),
        })
        .collect();
    let sides: [(usize, BucketsMut); 2] =
        [(shape.positive, |h| &mut h.positive_buckets), (shape.negative, |h| &mut h.negative_buckets)];
    for (buckets, side) in sides {
        let mut before = vec![0i64; rows];
        for _ in 0..buckets {
            integers(reader, rows, &mut column)?;
            for (((histogram, total), before), count) in
                histograms.iter_mut().zip(&mut totals).zip(&mut before).zip(&column)
            {
                side(histogram).push(count.wrapping_sub(*before));
                *total = total.wrapping_add(*count);
                *before = *count;
            }
        }
    }
    integers(reader, rows, &mut column)?;
    let mut sums = Vec::with_capacity(rows);
    decode_values(reader, rows, &mut sums)?;
    for (((mut histogram, total), rest), sum) in histograms.into_iter().zip(totals).zip(&column).zip(sums) {
        histogram.count = total.wrapping_add(*rest).cast_unsigned();
        histogram.sum = sum;
        out.push(HistogramValue::Integer(Arc::new(histogram)));
    }
    Ok(())
}

fn get_floats(
    reader: &mut Reader<'_>,
    shape: &OwnedShape,
    hints: &[CounterResetHint],
    out: &mut Vec<HistogramValue>,
) -> Result<(), DecodeError> {
    let rows = hints.len();
    let mut histograms: Vec<FloatHistogram> = hints
        .iter()
        .map(|hint| FloatHistogram {
            counter_reset_hint: *hint,
            schema: shape.schema,
            zero_threshold: shape.zero_threshold,
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive_spans: shape.positive_spans.clone(),
            negative_spans: shape.negative_spans.clone(),
            positive_buckets: Vec::with_capacity(shape.positive),
            negative_buckets: Vec::with_capacity(shape.negative),
            custom_values: Arc::clone(&shape.custom_values),
        })
        .collect();
    let mut column = Vec::with_capacity(rows);
    let mut get = |set: &dyn Fn(&mut FloatHistogram, f64)| {
        column.clear();
        decode_values(reader, rows, &mut column)?;
        histograms.iter_mut().zip(&column).for_each(|(histogram, value)| set(histogram, *value));
        Ok::<(), DecodeError>(())
    };
    get(&|h, value| h.zero_count = value)?;
    for _ in 0..shape.positive {
        get(&|h, value| h.positive_buckets.push(value))?;
    }
    for _ in 0..shape.negative {
        get(&|h, value| h.negative_buckets.push(value))?;
    }
    get(&|h, value| h.count = value)?;
    get(&|h, value| h.sum = value)?;
    out.extend(histograms.into_iter().map(|histogram| HistogramValue::Float(Arc::new(histogram))));
    Ok(())
}
