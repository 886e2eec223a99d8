//! `sort`, `sort_by_label` and their like: orders of instant query results.

use std::cmp::Ordering;

use model::Labels;

use super::arith;
use super::error::QueryError;
use super::state::State;
use super::stream::{Head, Stream, Table};
use crate::plan::SortOrder;

pub(crate) fn sort<'q>(
    state: &'q State<'q>,
    stream: Stream<'q>,
    order: &SortOrder,
) -> Result<Stream<'q>, QueryError> {
    let by_value = matches!(order, SortOrder::Value { .. });
    if stream.steps.count != 1 {
        // Series of range queries come in order of labels whatever was asked for.
        if !by_value {
            return Ok(stream);
        }
        return Ok(super::elementwise::mapped(stream, |column| column.drop_histograms()));
    }
    let mut table = stream.materialize(state)?;
    let mut rows: Vec<(Head, super::column::Column)> =
        std::mem::take(&mut table.heads).into_iter().zip(std::mem::take(&mut table.columns)).collect();
    match order {
        SortOrder::Value { descending } => {
            rows.retain_mut(|(_, column)| {
                column.drop_histograms();
                column.has_float(0)
            });
            rows.sort_by(|(_, a), (_, b)| {
                let (a, b) = (a.float(0).unwrap_or(f64::NAN), b.float(0).unwrap_or(f64::NAN));
                compare_values(a, b, *descending)
            });
        }
        SortOrder::Labels { names, descending } => {
            rows.retain(|(_, column)| !column.is_empty());
            rows.sort_by(|(a, _), (b, _)| {
                let order = compare_labels(&a.labels, &b.labels, names);
                if *descending { order.reverse() } else { order }
            });
        }
    }
    let mut sorted = Table::new(state, table.steps);
    for (head, column) in rows {
        sorted.push_series(head, column)?;
    }
    Ok(sorted.into_stream())
}

/// Ascending or descending, NaN last either way.
pub(crate) fn compare_values(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let less = arith::compare(crate::ast::BinaryOp::Less, a, b);
            let order = if less {
                Ordering::Less
            } else if a == b {
                Ordering::Equal
            } else {
                Ordering::Greater
            };
            if descending { order.reverse() } else { order }
        }
    }
}

fn compare_labels(a: &Labels, b: &Labels, names: &[String]) -> Ordering {
    names
        .iter()
        .map(|name| natural(a.value(name), b.value(name)))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.cmp(b))
}

/// Natural order: runs of digits compare as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    while !a_rest.is_empty() && !b_rest.is_empty() {
        let (x, y);
        (x, a_rest) = chunk(a_rest);
        (y, b_rest) = chunk(b_rest);
        let digits = |chunk: &str| chunk.as_bytes()[0].is_ascii_digit();
        let order = match (digits(x), digits(y)) {
            (true, true) => {
                let (p, q) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
                p.len().cmp(&q.len()).then_with(|| p.cmp(q)).then_with(|| x.len().cmp(&y.len()))
            }
            _ => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
    a_rest.len().cmp(&b_rest.len())
}

/// The leading run of digits, or of everything else.
fn chunk(text: &str) -> (&str, &str) {
    let digits = text.as_bytes()[0].is_ascii_digit();
    let end = text.bytes().position(|byte| byte.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_compare_as_numbers() {
        let mut names = ["cpu10", "cpu2", "cpu1", "cpu02", "", "cpu", "mem1", "5", "44"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "5", "44", "cpu", "cpu1", "cpu2", "cpu02", "cpu10", "mem1"]);
    }

    #[test]
    fn nan_comes_last() {
        for descending in [false, true] {
            assert_eq!(compare_values(f64::NAN, 1.0, descending), Ordering::Greater);
        }
        assert_eq!(compare_values(2.0, 1.0, true), Ordering::Less);
    }
}
