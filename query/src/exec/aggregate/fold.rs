//! `sum`, `avg`, `min`, `max`, `count`, `group`, `stddev`, `stdvar`, `quantile`.

use std::sync::Arc;

use model::float::kahan_add;
use model::histogram::HistogramSum;
use model::{FloatHistogram, Labels};

use super::Groups;
use crate::ast::AggregateOp;
use crate::exec::column::{Column, histogram_size};
use crate::exec::error::QueryError;
use crate::exec::eval::ScalarColumn;
use crate::exec::notes::HistogramOperation;
use crate::exec::quantile::quantile_of_sorted;
use crate::exec::range::{HistogramMean, SumNotes, quantile_order};
use crate::exec::state::State;
use crate::exec::stream::{Stream, Table};
use crate::plan::AggregatePlan;

/// Folds all series.
pub(super) fn fold<'q>(
    state: &'q State<'q>,
    plan: &'q AggregatePlan,
    inner: Stream<'q>,
    groups: Groups,
    param: &ScalarColumn,
) -> Result<Stream<'q>, QueryError> {
    if plan.op == AggregateOp::Quantile {
        let span = plan.param.as_ref().map_or(plan.span, |(_, span)| *span);
        note_quantiles(state, param, span);
    }
    let steps = inner.steps;
    let cells = groups.heads.len().saturating_mul(steps.count);
    state.limits.admit(cells)?;
    let mut bytes = cells.saturating_mul(Accumulator::cell_bytes(plan.op));
    state.limits.hold_bytes(bytes)?;
    let mut accumulators: Vec<Accumulator> =
        groups.heads.iter().map(|_| Accumulator::new(plan.op, steps.count)).collect();
    let mut held = 0;
    let context = Context { state, plan };
    let outcome = inner.for_each(state, |index, column| {
        let has_histograms = !column.histograms().is_empty();
        let added = accumulators[groups.of_series[index]].add(&context, column, &inner.heads[index].labels);
        held += added;
        if plan.op == AggregateOp::Quantile || has_histograms {
            // Growing vectors of floats hold up to twice what is in them; histograms weigh as many floats.
            bytes += 16 * added;
            state.limits.hold_bytes(16 * added)?;
        }
        state.limits.hold(added)
    });
    drop(inner);
    state.limits.release(held);
    outcome?;
    let mut table = Table::new(state, steps);
    for (head, accumulator) in groups.heads.into_iter().zip(accumulators) {
        state.limits.check()?;
        let mut column = Column::default();
        column.reset(steps.count);
        accumulator.finish(&context, param, &mut column);
        if !column.is_empty() {
            table.push_series(head, column)?;
        }
    }
    state.limits.release_bytes(bytes);
    Ok(table.into_stream())
}

/// Prometheus notes NaN, the largest value above 1 and the smallest below 0.
fn note_quantiles(state: &State<'_>, param: &ScalarColumn, span: crate::ast::Span) {
    let values = param.values();
    if values.iter().any(|q| q.is_nan()) {
        state.notes.invalid_quantile(f64::NAN, span);
    }
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    if max > 1.0 {
        state.notes.invalid_quantile(max, span);
    }
    if min < 0.0 {
        state.notes.invalid_quantile(min, span);
    }
}

struct Context<'a, 'q> {
    state: &'a State<'q>,
    plan: &'a AggregatePlan,
}

impl Context<'_, '_> {
    fn note_ignored(&self) {
        let name = self.plan.op.as_str();
        self.state.notes.histogram_ignored_in_aggregation(name, self.plan.arg_span);
    }
}

/// The accumulators of one group at all steps. Columns that an operation does not need stay empty.
struct Accumulator {
    op: AggregateOp,
    /// Float samples seen.
    counts: Vec<u32>,
    /// Sum, extreme, or sum of squared deviations.
    values: Vec<f64>,
    /// Compensation of sums.
    errors: Vec<f64>,
    /// Running means; NaN bits of [`NO_MEAN`] where `avg` still sums.
    means: Vec<f64>,
    /// All values, for quantiles.
    samples: Vec<Vec<f64>>,
    /// Histograms, by step; most series have none.
    histograms: std::collections::BTreeMap<u32, HistogramCell>,
}

/// A NaN that no calculation gives.
const NO_MEAN: u64 = 0x7ff8_dead_0000_0001;

/// Histograms of one group and step.
struct HistogramCell {
    /// `None` once schemas clashed.
    total: Option<Total>,
    count: u32,
    notes: SumNotes,
}

enum Total {
    Sum(Box<HistogramSum>),
    Mean(Box<HistogramMean>),
    /// Only counted.
    Count,
}

impl Accumulator {
    /// Bytes for each group and step, without samples and histograms.
    fn cell_bytes(op: AggregateOp) -> usize {
        use AggregateOp::{Avg, Count, Group, Quantile, Stddev, Stdvar, Sum};
        match op {
            Count | Group => 4,
            Sum => 20,
            Avg => 28,
            Stddev | Stdvar => 20,
            Quantile => 4 + size_of::<Vec<f64>>(),
            _ => 12,
        }
    }

    fn new(op: AggregateOp, steps: usize) -> Self {
        let column = |wanted: bool| vec![0.0; if wanted { steps } else { 0 }];
        use AggregateOp::{Avg, Count, Group, Quantile, Stddev, Stdvar, Sum};
        Self {
            op,
            counts: vec![0; steps],
            // What leaves even a negative zero as it is when it is added to it.
            values: vec![-0.0; if matches!(op, Count | Group | Quantile) { 0 } else { steps }],
            errors: column(matches!(op, Sum | Avg)),
            means: match op {
                Avg => vec![f64::from_bits(NO_MEAN); steps],
                Stddev | Stdvar => vec![0.0; steps],
                _ => Vec::new(),
            },
            samples: if op == Quantile { vec![Vec::new(); steps] } else { Vec::new() },
            histograms: std::collections::BTreeMap::new(),
        }
    }

    /// Takes in a series; says how many samples are held longer than the series itself.
    fn add(&mut self, context: &Context<'_, '_>, column: &Column, labels: &Labels) -> usize {
        let mut held = 0;
        if !column.histograms().is_empty() {
            held += self.add_histograms(context, column, labels);
        }
        let Self { counts, values, errors, means, samples, .. } = self;
        match self.op {
            AggregateOp::Sum => column.for_each_run(|from, run| {
                let sums = values[from..].iter_mut().zip(&mut errors[from..]).zip(&mut counts[from..]);
                for (value, ((sum, error), count)) in run.iter().zip(sums) {
                    (*sum, *error) = kahan_add(*value, *sum, *error);
                    *count += 1;
                }
            }),
            AggregateOp::Avg => column.for_each_float(|step, value| {
                counts[step] += 1;
                let cell = (&mut values[step], &mut errors[step], &mut means[step]);
                add_to_mean(cell, f64::from(counts[step]), value);
            }),
            AggregateOp::Min => column.for_each_float(|step, value| {
                if counts[step] == 0 || value < values[step] || values[step].is_nan() {
                    values[step] = value;
                }
                counts[step] += 1;
            }),
            AggregateOp::Max => column.for_each_float(|step, value| {
                if counts[step] == 0 || value > values[step] || values[step].is_nan() {
                    values[step] = value;
                }
                counts[step] += 1;
            }),
            AggregateOp::Stddev | AggregateOp::Stdvar => column.for_each_float(|step, value| {
                counts[step] += 1;
                if counts[step] == 1 {
                    means[step] = value;
                    values[step] = if value.is_finite() { 0.0 } else { f64::NAN };
                } else {
                    let delta = value - means[step];
                    means[step] += delta / f64::from(counts[step]);
                    values[step] += delta * (value - means[step]);
                }
            }),
            AggregateOp::Quantile => column.for_each_float(|step, value| {
                samples[step].push(value);
                held += 1;
            }),
            _ => column.for_each_run(|from, run| {
                counts[from..from + run.len()].iter_mut().for_each(|count| *count += 1);
            }),
        }
        held
    }

    fn add_histograms(&mut self, context: &Context<'_, '_>, column: &Column, labels: &Labels) -> usize {
        let mut held = 0;
        for (step, histogram) in column.histograms() {
            match self.op {
                AggregateOp::Sum | AggregateOp::Avg | AggregateOp::Count | AggregateOp::Group => {}
                _ => {
                    context.note_ignored();
                    return held;
                }
            }
            match self.histograms.entry(*step) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let total = match self.op {
                        AggregateOp::Sum => Total::Sum(Box::new(HistogramSum::from(&**histogram))),
                        AggregateOp::Avg => Total::Mean(Box::new(HistogramMean::new(histogram))),
                        _ => Total::Count,
                    };
                    held += histogram_size(histogram);
                    let mut notes = SumNotes::default();
                    notes.see(histogram);
                    entry.insert(HistogramCell { total: Some(total), count: 1, notes });
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().add(context, histogram, labels);
                }
            }
        }
        held
    }

    fn finish(self, context: &Context<'_, '_>, param: &ScalarColumn, into: &mut Column) {
        let op = self.op;
        let span = context.plan.arg_span;
        let mut samples = self.samples;
        let (mut collision, mut reconciled) = (false, false);
        for (step, &count) in self.counts.iter().enumerate() {
            if let Some(cell) = u32::try_from(step).ok().and_then(|step| self.histograms.get(&step)) {
                collision |= cell.notes.collision();
                reconciled |= cell.notes.reconciled;
                match op {
                    AggregateOp::Count => {
                        into.set(step, f64::from(count + cell.count));
                        continue;
                    }
                    AggregateOp::Group => {}
                    _ => {
                        if count > 0 {
                            context.state.notes.mixed_floats_histograms_aggregation(span);
                        } else if let Some(total) = &cell.total {
                            into.push_histogram(step, Arc::new(total.histogram()));
                        }
                        continue;
                    }
                }
                into.set(step, 1.0);
                continue;
            }
            if let Some(values) = samples.get_mut(step) {
                if !values.is_empty() {
                    values.sort_by(quantile_order);
                    into.set(step, quantile_of_sorted(param.at(step), values));
                }
                continue;
            }
            if count == 0 {
                continue;
            }
            let n = f64::from(count);
            into.set(
                step,
                match op {
                    AggregateOp::Sum => self.values[step] + self.errors[step],
                    AggregateOp::Avg if self.means[step].to_bits() == NO_MEAN => {
                        self.values[step] / n + self.errors[step] / n
                    }
                    AggregateOp::Avg => self.means[step] + self.errors[step],
                    AggregateOp::Count => n,
                    AggregateOp::Stdvar => self.values[step] / n,
                    AggregateOp::Stddev => (self.values[step] / n).sqrt(),
                    AggregateOp::Group => 1.0,
                    _ => self.values[step],
                },
            );
        }
        if collision && matches!(op, AggregateOp::Sum | AggregateOp::Avg) {
            context.state.notes.counter_reset_collision(HistogramOperation::Aggregation, span);
        }
        if reconciled {
            context.state.notes.custom_buckets_reconciled(HistogramOperation::Aggregation, span);
        }
    }
}

/// Prometheus' mean: a compensated sum, or a running mean from where the sum would overflow. `count` includes `value`.
fn add_to_mean((sum, error, mean): (&mut f64, &mut f64, &mut f64), count: f64, value: f64) {
    if count == 1.0 {
        *sum = value;
        return;
    }
    if mean.to_bits() == NO_MEAN {
        let (next, next_error) = kahan_add(value, *sum, *error);
        if !next.is_infinite() {
            (*sum, *error) = (next, next_error);
            return;
        }
        *mean = *sum / (count - 1.0);
        *error /= count - 1.0;
    }
    let weight = (count - 1.0) / count;
    (*mean, *error) = kahan_add(value / count, weight * *mean, weight * *error);
}

impl HistogramCell {
    fn add(&mut self, context: &Context<'_, '_>, histogram: &FloatHistogram, labels: &Labels) {
        self.count += 1;
        let outcome = match &mut self.total {
            None | Some(Total::Count) => return,
            Some(Total::Sum(sum)) => {
                self.notes.see(histogram);
                sum.add(histogram).map(|how| self.notes.reconciled |= how.custom_bounds)
            }
            Some(Total::Mean(mean)) => {
                self.notes.see(histogram);
                mean.add(histogram, &mut self.notes)
            }
        };
        if outcome.is_err() {
            let notes = &context.state.notes;
            notes.mixed_exponential_custom(labels.metric_name(), context.plan.arg_span);
            self.total = None;
        }
    }
}

impl Total {
    fn histogram(&self) -> FloatHistogram {
        let mut total = match self {
            Self::Sum(sum) => sum.total(),
            Self::Mean(mean) => mean.clone().mean(),
            Self::Count => FloatHistogram::default(),
        };
        total.compact();
        total
    }
}
