//! `count_values`: a series per value and group.
//!
//! How many there will be is only known once all samples were seen, and each may have one sample of many steps: counts stay
//! sparse until they are read, and all that grows is counted before it does.

use std::collections::HashMap;

use model::float::format_fixed;
use model::{Labels, LabelsBuilder};

use crate::exec::column::{Cell, Column};
use crate::exec::error::QueryError;
use crate::exec::labels::{ENTRY_BYTES, LabelMap, Pick, label_bytes};
use crate::exec::state::{Scratch, State};
use crate::exec::stream::{Head, Source, Stream};
use crate::plan::AggregatePlan;

/// Bytes of a series beside its labels and counts: its head, its place in the map of labels, and its map of counts.
const SERIES_BYTES: usize = size_of::<Head>() + ENTRY_BYTES + size_of::<Counts>();
/// Bytes of a count in a map that is not full.
const COUNT_BYTES: usize = 2 * size_of::<(usize, u32)>();
/// Least room of a map that holds anything.
const COUNTS_MIN: usize = 4;

/// Counts by step.
type Counts = HashMap<usize, u32>;

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
    let mut counted = Counted { state, steps: steps.count, counts: Vec::new(), held: 0, bytes: 0 };
    let mut builder = LabelsBuilder::new();
    inner.for_each(state, |index, column| {
        let base = &inner.heads[index].labels;
        // Mostly a series keeps its value: the label set is built anew only when it changes.
        let mut last: Option<(String, usize)> = None;
        let mut count = |step: usize, cell: Cell<'_>| {
            state.limits.check_at(step)?;
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
                        counted.begin(&labels)?;
                        heads.push(Head::new(labels));
                    }
                    last = Some((value, number));
                    number
                }
            };
            counted.add(number, step)
        };
        let mut outcome = Ok(());
        column.for_each(|step, cell| {
            if outcome.is_ok() {
                outcome = count(step, cell);
            }
        });
        outcome
    })?;
    drop(inner);
    Ok(Stream::new(steps, heads, counted))
}

/// The counts of all series.
struct Counted<'q> {
    state: &'q State<'q>,
    steps: usize,
    counts: Vec<Counts>,
    held: usize,
    bytes: usize,
}

impl Counted<'_> {
    fn hold_bytes(&mut self, bytes: usize) -> Result<(), QueryError> {
        self.bytes += bytes;
        self.state.limits.hold_bytes(bytes)
    }

    /// One more series.
    fn begin(&mut self, labels: &Labels) -> Result<(), QueryError> {
        self.hold_bytes(SERIES_BYTES + label_bytes(labels))?;
        self.counts.push(Counts::new());
        Ok(())
    }

    /// One more of series `number` at `step`.
    fn add(&mut self, number: usize, step: usize) -> Result<(), QueryError> {
        if let Some(count) = self.counts[number].get_mut(&step) {
            *count += 1;
            return Ok(());
        }
        let counts = &self.counts[number];
        if counts.len() == counts.capacity() {
            // The map doubles.
            let more = counts.capacity().max(COUNTS_MIN);
            self.hold_bytes(more * COUNT_BYTES)?;
        }
        self.held += 1;
        self.state.limits.hold(1)?;
        self.counts[number].insert(step, 1);
        Ok(())
    }
}

impl Source for Counted<'_> {
    fn read(&self, index: usize, into: &mut Column, _: &mut Scratch) -> Result<(), QueryError> {
        into.reset(self.steps);
        for (step, count) in &self.counts[index] {
            into.set(*step, f64::from(*count));
        }
        Ok(())
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.state.limits.release(self.held);
        self.state.limits.release_bytes(self.bytes);
    }
}
