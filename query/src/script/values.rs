//! Sequences of values in scripts: `1 2 _ 3+2x5 stale {{schema:0 sum:1 count:1 buckets:[1]}}x3`.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use model::{FloatHistogram, stale_nan};

use super::ScriptValue;

/// Most values that one item may expand to.
const REPEAT_MAX: usize = 10_000_000;

/// Expands a sequence; `None` stands for a gap.
pub(super) fn sequence(text: &str) -> Result<Vec<Option<ScriptValue>>, String> {
    let mut values = Vec::new();
    for item in items(text)? {
        expand(item, &mut values)?;
    }
    Ok(values)
}

/// Splits at blanks, but not within `{{ }}`.
fn items(text: &str) -> Result<Vec<&str>, String> {
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut end = 0;
        loop {
            let tail = &rest[end..];
            if tail.starts_with("{{") {
                end += tail.find("}}").ok_or("unterminated histogram")? + 2;
            } else if tail.is_empty() || tail.starts_with([' ', '\t']) {
                break;
            } else {
                end += tail.chars().next().map_or(1, char::len_utf8);
            }
        }
        items.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    Ok(items)
}

fn expand(item: &str, values: &mut Vec<Option<ScriptValue>>) -> Result<(), String> {
    if item.starts_with("{{") {
        return expand_histograms(item, values);
    }
    if let Some(count) = item.strip_prefix('_') {
        let count = if count.is_empty() { 1 } else { repeat(count)? };
        values.extend(std::iter::repeat_n(None, count));
        return Ok(());
    }
    if let Some(count) = item.strip_prefix("stale") {
        let count = if count.is_empty() { 1 } else { repeat(count)? + 1 };
        values.extend(std::iter::repeat_n(Some(ScriptValue::Float(stale_nan())), count));
        return Ok(());
    }
    let (body, count) = split_repeat(item)?;
    let (first, step) = split_step(body);
    let mut value = number(first).ok_or_else(|| format!("bad value {item:?}"))?;
    let step = match step {
        Some(step) => Some(number(step).ok_or_else(|| format!("bad step in {item:?}"))?),
        None => None,
    };
    if step.is_some() && count.is_none() {
        return Err(format!("bad value {item:?}"));
    }
    for _ in 0..=count.unwrap_or(0) {
        values.push(Some(ScriptValue::Float(value)));
        value += step.unwrap_or(0.0);
    }
    Ok(())
}

/// `x5` → 5
fn repeat(text: &str) -> Result<usize, String> {
    let count = text.strip_prefix('x').and_then(|count| count.parse().ok());
    count.filter(|count| *count <= REPEAT_MAX).ok_or_else(|| format!("bad repetition {text:?}"))
}

/// `0+10x5` → (`0+10`, 5)
pub(super) fn split_repeat(item: &str) -> Result<(&str, Option<usize>), String> {
    match item.rfind('x') {
        Some(at) if at > 0 => Ok((&item[..at], Some(repeat(&item[at..])?))),
        _ => Ok((item, None)),
    }
}

/// `0-1e-3` → (`0`, `-1e-3`)
fn split_step(body: &str) -> (&str, Option<&str>) {
    let bytes = body.as_bytes();
    let sign =
        (1..bytes.len()).find(|&i| matches!(bytes[i], b'+' | b'-') && !matches!(bytes[i - 1], b'e' | b'E'));
    match sign {
        Some(at) => (&body[..at], Some(&body[at..])),
        None => (body, None),
    }
}

/// A number as scripts write it.
pub(super) fn number(text: &str) -> Option<f64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|value| value as f64);
    }
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    let known = ["inf", "nan"].iter().any(|word| plain.eq_ignore_ascii_case(word))
        || plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if known { text.parse().ok() } else { None }
}

fn expand_histograms(item: &str, values: &mut Vec<Option<ScriptValue>>) -> Result<(), String> {
    let end = item.find("}}").ok_or("unterminated histogram")?;
    let (first, first_hint) = histogram(&item[2..end])?;
    let rest = &item[end + 2..];
    let mut push = |histogram: &Arc<FloatHistogram>, hint_given| {
        values.push(Some(ScriptValue::Histogram { histogram: Arc::clone(histogram), hint_given }));
    };
    let first = Arc::new(first);
    if rest.is_empty() || rest.starts_with('x') {
        let count = if rest.is_empty() { 0 } else { repeat(rest)? };
        (0..=count).for_each(|_| push(&first, first_hint));
        return Ok(());
    }
    let subtract = rest.starts_with('-');
    let (body, tail) = rest[1..]
        .strip_prefix("{{")
        .and_then(|rest| rest.split_once("}}"))
        .ok_or_else(|| format!("bad histogram item {item:?}"))?;
    let (increment, hint_given) = histogram(body)?;
    let mut current = first;
    let count = repeat(tail)?;
    for index in 0..=count {
        push(&current, hint_given);
        if index < count {
            let sum = if subtract { current.minus(&increment) } else { current.plus(&increment) };
            let (mut next, _) = sum.map_err(|error| error.to_string())?;
            next.compact();
            current = Arc::new(next);
        }
    }
    Ok(())
}

/// The inside of `{{ }}`, and whether it says something about resets.
fn histogram(body: &str) -> Result<(FloatHistogram, bool), String> {
    let mut histogram = FloatHistogram::default();
    let (mut offset, mut negative_offset, mut hint_given) = (0, 0, false);
    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    let mut rest = body.trim();
    while !rest.is_empty() {
        let (key, tail) = rest.split_once(':').ok_or_else(|| format!("bad histogram {body:?}"))?;
        let tail = tail.trim_start();
        let (value, tail) = if let Some(list) = tail.strip_prefix('[') {
            list.split_once(']').ok_or_else(|| format!("unterminated list in {body:?}"))?
        } else {
            tail.split_at(tail.find([' ', '\t']).unwrap_or(tail.len()))
        };
        let bad = || format!("bad value {value:?} of {key} in a histogram");
        let float = || number(value).ok_or_else(bad);
        let integer = || value.parse::<i32>().map_err(|_| bad());
        let list = || {
            value.split_whitespace().map(|text| number(text).ok_or_else(bad)).collect::<Result<Vec<f64>, _>>()
        };
        match key.trim() {
            "schema" => histogram.schema = integer()?,
            "sum" => histogram.sum = float()?,
            "count" => histogram.count = float()?,
            "z_bucket" => histogram.zero_count = float()?,
            "z_bucket_w" => histogram.zero_threshold = float()?,
            "offset" => offset = integer()?,
            "n_offset" => negative_offset = integer()?,
            "buckets" => positive = list()?,
            "n_buckets" => negative = list()?,
            "custom_values" => histogram.custom_values = list()?.into(),
            "counter_reset_hint" => {
                hint_given = true;
                histogram.counter_reset_hint = match value {
                    "unknown" => CounterResetHint::Unknown,
                    "reset" => CounterResetHint::CounterReset,
                    "not_reset" => CounterResetHint::NotCounterReset,
                    "gauge" => CounterResetHint::Gauge,
                    _ => return Err(bad()),
                };
            }
            other => return Err(format!("unknown histogram field {other:?}")),
        }
        rest = tail.trim_start();
    }
    let spans = |offset: i32, counts: &[f64]| match u32::try_from(counts.len()) {
        Ok(length) if length > 0 => vec![Span { offset, length }],
        _ => Vec::new(),
    };
    histogram.positive_spans = spans(offset, &positive);
    histogram.negative_spans = spans(negative_offset, &negative);
    histogram.positive_buckets = positive;
    histogram.negative_buckets = negative;
    debug_assert!(histogram.custom_values.is_empty() || histogram.schema == CUSTOM_BUCKETS_SCHEMA);
    Ok((histogram, hint_given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(text: &str) -> Vec<Option<f64>> {
        let value = |value: Option<ScriptValue>| match value? {
            ScriptValue::Float(value) => Some(value),
            ScriptValue::Histogram { .. } => None,
        };
        sequence(text).unwrap().into_iter().map(value).collect()
    }

    #[test]
    fn items_expand() {
        assert_eq!(floats("1 _ 2"), [Some(1.0), None, Some(2.0)]);
        assert_eq!(floats("_x2 5x1"), [None, None, Some(5.0), Some(5.0)]);
        assert_eq!(floats("0+10x2"), [Some(0.0), Some(10.0), Some(20.0)]);
        assert_eq!(floats("-1e+2-1e-1x1"), [Some(-100.0), Some(-100.1)]);
        assert_eq!(floats("Inf -inf"), [Some(f64::INFINITY), Some(f64::NEG_INFINITY)]);
        assert!(sequence("1+2").is_err());
        assert!(sequence("foo").is_err());
        assert!(sequence("{{schema:0").is_err());
    }

    #[test]
    fn histograms_add_up() {
        let values =
            sequence("{{schema:0 sum:1 count:3 buckets:[1 2] offset:1}}+{{sum:1 count:1 buckets:[1]}}x2 1")
                .unwrap();
        assert_eq!(values.len(), 4);
        let Some(ScriptValue::Histogram { histogram, hint_given: false }) = &values[2] else { panic!() };
        assert_eq!((histogram.sum, histogram.count), (3.0, 5.0));
        assert_eq!(histogram.positive_buckets, [2.0, 1.0, 2.0]);
    }
}
