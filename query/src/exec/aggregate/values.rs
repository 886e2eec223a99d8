//! `count_values`: a series per value and group.

use std::collections::HashMap;

use model::LabelsBuilder;
use model::float::format_fixed;

use crate::exec::column::{Cell, Column};
use crate::exec::error::QueryError;
use crate::exec::labels::{LabelMap, Pick};
use crate::exec::state::State;
use crate::exec::stream::{Head, Stream, Table};
use crate::plan::AggregatePlan;

pub(super) fn count_values<'q>(
    state: &'q State<'q>,
    plan: &'q AggregatePlan,
    inner: Stream<'q>,
) -> Result<Stream<'q>, QueryError> {
    let label = plan.label.as_deref().unwrap_or_default();
    let mut grouping = plan.grouping.clone();
    if !plan.without {
        grouping.push(label.to_owned());
    }
    let pick = Pick::new(&grouping, !plan.without);
    let steps = inner.steps;
    let mut numbers = LabelMap::with_capacity(16);
    let mut heads: Vec<Head> = Vec::new();
    let mut counts: Vec<HashMap<usize, u32>> = Vec::new();
    let mut builder = LabelsBuilder::new();
    inner.for_each(state, |index, column| {
        let base = &inner.heads[index].labels;
        let mut failure = Ok(());
        // Mostly a series keeps its value: the label set is built anew only when it changes.
        let mut last: Option<(String, usize)> = None;
        column.for_each(|step, cell| {
            let value = match cell {
                Cell::Float(value) => format_fixed(value),
                Cell::Histogram(histogram) => histogram.to_string(),
            };
            let number = match &last {
                Some((text, number)) if *text == value => *number,
                _ => {
                    builder.reset(base);
                    builder.set(label, &*value);
                    let labels = pick.of(&builder.build());
                    let (number, is_new) = numbers.insert(&labels, heads.len());
                    if is_new {
                        heads.push(Head::new(labels));
                        counts.push(HashMap::new());
                    }
                    last = Some((value, number));
                    number
                }
            };
            let count = counts[number].entry(step).or_insert(0);
            if *count == 0 && failure.is_ok() {
                failure = state.limits.hold(1);
            }
            *count += 1;
        });
        failure
    })?;
    drop(inner);
    state.limits.release(counts.iter().map(HashMap::len).sum());
    let mut table = Table::new(state, steps);
    for (head, counts) in heads.into_iter().zip(counts) {
        let mut column = Column::default();
        column.reset(steps.count);
        for (step, count) in counts {
            column.set(step, f64::from(count));
        }
        table.push_series(head, column)?;
    }
    Ok(table.into_stream())
}
