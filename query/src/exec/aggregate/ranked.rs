//! `topk`, `bottomk`, `limitk`, `limit_ratio`: some of the input series, chosen anew at each step.

use std::cmp::Ordering;
use std::sync::Arc;

use model::{FloatHistogram, Labels};

use super::Groups;
use crate::ast::AggregateOp;
use crate::exec::column::{Cell, Column};
use crate::exec::error::QueryError;
use crate::exec::eval::ScalarColumn;
use crate::exec::sort::compare_values;
use crate::exec::state::State;
use crate::exec::stream::{Head, Stream, Table};
use crate::plan::AggregatePlan;

/// Bounds of Go's int64 as floats.
const INT64_MAX: f64 = 9_223_372_036_854_774_784.0;
const INT64_MIN: f64 = -9_223_372_036_854_775_808.0;

pub(super) fn ranked<'q>(
    state: &'q State<'q>,
    plan: &'q AggregatePlan,
    inner: Stream<'q>,
    groups: &Groups,
    param: &ScalarColumn,
) -> Result<Stream<'q>, QueryError> {
    let steps = inner.steps;
    let span = plan.param.as_ref().map_or(plan.span, |(_, span)| *span);
    if !check_param(state, plan.op, param, span)? {
        return Ok(Stream::empty(steps));
    }
    if plan.op == AggregateOp::LimitRatio {
        return limit_ratio(state, inner, param);
    }
    let series = inner.len();
    let limits: Vec<usize> =
        (0..steps.count).map(|step| (param.at(step).max(0.0) as usize).min(series)).collect();
    let cells = groups.heads.len().saturating_mul(steps.count);
    state.limits.admit(cells)?;
    let mut bytes = cells.saturating_mul(size_of::<Vec<Chosen>>()).saturating_add(size_of::<Head>() * series);
    state.limits.hold_bytes(bytes)?;
    let heads = inner.heads.clone();
    let mut chosen: Vec<Vec<Chosen>> = (0..cells).map(|_| Vec::new()).collect();
    let mut ignored = false;
    inner.for_each(state, |index, column| {
        let base = groups.of_series[index] * steps.count;
        let mut held = 0;
        column.for_each(|step, cell| {
            let heap = &mut chosen[base + step];
            let limit = limits[step];
            match (plan.op, cell) {
                _ if limit == 0 => {}
                (AggregateOp::Limitk, cell) => {
                    if heap.len() < limit {
                        heap.push(Chosen::new(index, cell));
                        held += 1;
                    }
                }
                (_, Cell::Histogram(_)) => ignored = true,
                (op, Cell::Float(value)) => {
                    let better = |a: f64, b: f64| if op == AggregateOp::Topk { a > b } else { a < b };
                    let candidate = Chosen { series: index, value, histogram: None };
                    if heap.len() < limit {
                        push_heap(heap, candidate, op);
                        held += 1;
                    } else if better(value, heap[0].value) || (heap[0].value.is_nan() && !value.is_nan()) {
                        heap[0] = candidate;
                        sift_down(heap, op);
                    }
                }
            }
        });
        // Growing vectors hold up to twice what is in them.
        let more = held * 2 * size_of::<Chosen>();
        bytes += more;
        state.limits.hold_bytes(more)?;
        state.limits.hold(held)
    })?;
    drop(inner);
    if ignored {
        state.notes.histogram_ignored_in_aggregation(plan.op.as_str(), plan.span);
    }
    let held: usize = chosen.iter().map(Vec::len).sum();
    let stream = if steps.count == 1 {
        in_order(state, plan.op, &heads, chosen, steps)
    } else {
        by_series(state, &heads, chosen, steps)
    };
    state.limits.release(held);
    state.limits.release_bytes(bytes);
    stream
}

/// Whether there is anything to choose at all.
fn check_param(
    state: &State<'_>,
    op: AggregateOp,
    param: &ScalarColumn,
    span: crate::ast::Span,
) -> Result<bool, QueryError> {
    let values = param.values();
    let nan = values.iter().any(|value| value.is_nan());
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    if op == AggregateOp::LimitRatio {
        if nan {
            return Err(QueryError::execution("Ratio value is NaN"));
        }
        if max > 1.0 {
            state.notes.invalid_ratio(max, 1.0, span);
        }
        if min < -1.0 {
            state.notes.invalid_ratio(min, -1.0, span);
        }
        return Ok(max != 0.0 || min != 0.0);
    }
    if nan {
        return Err(QueryError::execution("Parameter value is NaN"));
    }
    if max < 1.0 {
        return Ok(false);
    }
    let text = |value: f64| model::histogram::GoFloat(value).to_string();
    if min <= INT64_MIN {
        return Err(QueryError::execution(format!("Scalar value {} underflows int64", text(min))));
    }
    if max >= INT64_MAX {
        return Err(QueryError::execution(format!("Scalar value {} overflows int64", text(max))));
    }
    Ok(true)
}

/// A series chosen at a step.
#[derive(Clone, Debug)]
struct Chosen {
    series: usize,
    value: f64,
    histogram: Option<Arc<FloatHistogram>>,
}

impl Chosen {
    fn new(series: usize, cell: Cell<'_>) -> Self {
        match cell {
            Cell::Float(value) => Self { series, value, histogram: None },
            Cell::Histogram(histogram) => Self { series, value: 0.0, histogram: Some(Arc::clone(histogram)) },
        }
    }

    fn store(self, step: usize, column: &mut Column) {
        match self.histogram {
            Some(histogram) => column.push_histogram(step, histogram),
            None => column.set(step, self.value),
        }
    }
}

/// Whether `a` is to leave the heap before `b`: the worst is on top, NaN worse than any number.
fn worse(a: &Chosen, b: &Chosen, op: AggregateOp) -> bool {
    let (a, b) = (a.value, b.value);
    if a.is_nan() {
        return true;
    }
    if op == AggregateOp::Topk { a < b } else { a > b }
}

// The heap is that of Go's container/heap, step by step: which of equal values stay depends on its moves.

fn push_heap(heap: &mut Vec<Chosen>, item: Chosen, op: AggregateOp) {
    heap.push(item);
    let mut child = heap.len() - 1;
    while child > 0 {
        let parent = (child - 1) / 2;
        if !worse(&heap[child], &heap[parent], op) {
            break;
        }
        heap.swap(child, parent);
        child = parent;
    }
}

fn sift_down(heap: &mut [Chosen], op: AggregateOp) {
    let mut parent = 0;
    loop {
        let left = 2 * parent + 1;
        if left >= heap.len() {
            break;
        }
        let right = left + 1;
        let child = if right < heap.len() && worse(&heap[right], &heap[left], op) { right } else { left };
        if !worse(&heap[child], &heap[parent], op) {
            break;
        }
        heap.swap(parent, child);
        parent = child;
    }
}

/// The result of an instant query: group by group, best first.
fn in_order<'q>(
    state: &'q State<'q>,
    op: AggregateOp,
    heads: &[Head],
    chosen: Vec<Vec<Chosen>>,
    steps: crate::exec::steps::Steps,
) -> Result<Stream<'q>, QueryError> {
    let mut table = Table::new(state, steps);
    for mut group in chosen {
        if op != AggregateOp::Limitk {
            group.sort_by(|a, b| -> Ordering { compare_values(a.value, b.value, op == AggregateOp::Topk) });
        }
        for item in group {
            let mut column = Column::default();
            column.reset(steps.count);
            let head = heads[item.series].clone();
            item.store(0, &mut column);
            table.push_series(head, column)?;
        }
    }
    Ok(table.into_stream())
}

/// The result of a range query: a column per series that was ever chosen.
fn by_series<'q>(
    state: &'q State<'q>,
    heads: &[Head],
    chosen: Vec<Vec<Chosen>>,
    steps: crate::exec::steps::Steps,
) -> Result<Stream<'q>, QueryError> {
    let (each, slots) = (Column::bytes_of(steps.count), heads.len() * size_of::<Option<Column>>());
    state.limits.hold_bytes(slots)?;
    let mut columns: Vec<Option<Column>> = vec![None; heads.len()];
    for (cell, items) in chosen.into_iter().enumerate() {
        let step = cell % steps.count;
        for item in items {
            let slot = &mut columns[item.series];
            if slot.is_none() {
                state.limits.hold_bytes(each)?;
            }
            let column = slot.get_or_insert_with(|| {
                let mut column = Column::default();
                column.reset(steps.count);
                column
            });
            item.store(step, column);
        }
    }
    let mut table = Table::new(state, steps);
    for (head, column) in heads.iter().zip(columns) {
        if let Some(column) = column {
            // Counted anew, by the table.
            state.limits.release_bytes(each);
            table.push_series(head.clone(), column)?;
        }
    }
    state.limits.release_bytes(slots);
    Ok(table.into_stream())
}

/// `limit_ratio` looks at labels only: each series has a place between 0 and 1.
fn limit_ratio<'q>(
    state: &'q State<'q>,
    inner: Stream<'q>,
    param: &ScalarColumn,
) -> Result<Stream<'q>, QueryError> {
    let mut table = Table::new(state, inner.steps);
    inner.for_each(state, |index, column| {
        let head = &inner.heads[index];
        let place = ratio_place(&head.labels);
        let takes = |step: usize| {
            let ratio = param.at(step).clamp(-1.0, 1.0);
            if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio }
        };
        column.filter_map_floats(|step, value| takes(step).then_some(value));
        column.retain_histograms(takes);
        if column.is_empty() {
            return Ok(());
        }
        table.push_series(head.clone(), std::mem::take(column))
    })?;
    drop(inner);
    Ok(table.into_stream())
}

/// Prometheus' place of a label set: its hash (XXH64 over lengths and texts, in order of names) over the largest one.
fn ratio_place(labels: &Labels) -> f64 {
    let mut bytes = Vec::with_capacity(labels.size_bytes() + 8);
    for (name, value) in labels {
        for text in [name, value] {
            match u8::try_from(text.len()) {
                Ok(short) if short < 255 => bytes.push(short),
                _ => {
                    bytes.push(255);
                    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes()[..3]);
                }
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    xxhash_rust::xxh64::xxh64(&bytes, 0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_keeps_the_best() {
        let values = [3.0, f64::NAN, 7.0, 1.0, 7.0, 5.0, f64::NEG_INFINITY];
        for (op, expected) in
            [(AggregateOp::Topk, [5.0, 7.0, 7.0]), (AggregateOp::Bottomk, [3.0, 1.0, f64::NEG_INFINITY])]
        {
            let mut heap: Vec<Chosen> = Vec::new();
            for (series, value) in values.into_iter().enumerate() {
                let item = Chosen { series, value, histogram: None };
                if heap.len() < 3 {
                    push_heap(&mut heap, item, op);
                } else if worse(&heap[0], &item, op) && !value.is_nan() {
                    heap[0] = item;
                    sift_down(&mut heap, op);
                }
            }
            heap.sort_by(|a, b| compare_values(a.value, b.value, op == AggregateOp::Bottomk));
            assert_eq!(heap.iter().map(|item| item.value).collect::<Vec<_>>(), expected);
        }
    }
}
