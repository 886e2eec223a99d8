//! From streams to results: values as callers get them.

use std::sync::Arc;

use model::storage::SeriesColumns;
use model::{Labels, Sample, Timestamp};

use super::column::{Cell, Column, histogram_size, shared_bytes};
use super::error::{QueryError, QueryErrorKind};
use super::eval::{ScalarColumn, range_result, remove_metadata, scalar, vector};
use super::state::State;
use super::steps::Steps;
use super::stream::Stream;
use super::value::{MatrixSeries, PointValue, QueryValue, VectorSample, series_bytes};
use crate::ast::{Expr, ExtendedRange};
use crate::plan::{Plan, RangePlan};

/// Sorting the outermost result of a range query does nothing.
pub(super) fn note_ineffective_sort(state: &State<'_>, expr: &Expr) {
    use crate::ast::ExprKind;
    match &expr.kind {
        ExprKind::Paren(inner) => note_ineffective_sort(state, inner),
        ExprKind::Call(call) if call.func.name.starts_with("sort") => state.notes.sort_in_range_query(),
        _ => {}
    }
}

/// Evaluates a whole plan. Also says how many bytes the value holds.
pub(super) fn evaluate<'q>(
    state: &'q State<'q>,
    plan: &'q Plan,
    steps: Steps,
    instant: bool,
) -> Result<(QueryValue, u64), QueryError> {
    let mut held = Held { state, bytes: 0 };
    let value = match plan {
        Plan::Text(text) => QueryValue::String { t: steps.start, value: text.clone() },
        Plan::Scalar(plan) => {
            let values = scalar(state, plan, steps)?;
            let count = if instant { 1 } else { steps.count };
            held.series(&Labels::empty(), count, count.saturating_mul(size_of::<Sample>()))?;
            scalar_value(&values, steps, instant)
        }
        Plan::Vector(plan) => {
            let stream = vector(state, plan, steps)?;
            let stream = remove_metadata(state, stream, false, |head| head.drop_name)?;
            if instant { vector_value(&mut held, &stream)? } else { matrix_value(&mut held, &stream)? }
        }
        Plan::Range(plan) => range_value(&mut held, plan, steps)?,
    };
    Ok((value, held.bytes))
}

/// Counts what the value holds.
struct Held<'q> {
    state: &'q State<'q>,
    bytes: u64,
}

impl Held<'_> {
    /// A series of so many samples (histograms by their size), and the bytes of its points.
    fn series(&mut self, labels: &Labels, samples: usize, points: usize) -> Result<(), QueryError> {
        let limits = &self.state.limits;
        limits.hold(samples)?;
        let bytes = series_bytes(labels) + points;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        limits.hold_bytes(bytes)
    }

    /// A series with the samples of a column.
    fn column(&mut self, labels: &Labels, column: &Column) -> Result<(), QueryError> {
        let points = column.float_count() * size_of::<Sample>() + column.histogram_bytes();
        self.series(labels, column.sample_size(), points)
    }
}

fn scalar_value(values: &ScalarColumn, steps: Steps, instant: bool) -> QueryValue {
    if instant {
        return QueryValue::Scalar(Sample { t: steps.start, v: values.at(0) });
    }
    let floats = (0..steps.count).map(|step| Sample { t: steps.at(step), v: values.at(step) }).collect();
    QueryValue::Matrix(vec![MatrixSeries { labels: Labels::empty(), floats, histograms: Vec::new() }])
}

fn vector_value(held: &mut Held<'_>, stream: &Stream<'_>) -> Result<QueryValue, QueryError> {
    let t = stream.steps.start;
    let mut samples = Vec::with_capacity(stream.len());
    stream.for_each(held.state, |index, column| {
        let value = match column.cell(0) {
            None => return Ok(()),
            Some(Cell::Float(value)) => PointValue::Float(value),
            Some(Cell::Histogram(histogram)) => PointValue::Histogram(Arc::clone(histogram)),
        };
        let labels = stream.heads[index].labels.clone();
        held.column(&labels, column)?;
        samples.push(VectorSample { labels, t, value });
        Ok(())
    })?;
    Ok(QueryValue::Vector(samples))
}

fn matrix_value(held: &mut Held<'_>, stream: &Stream<'_>) -> Result<QueryValue, QueryError> {
    let mut series = Vec::new();
    stream.for_each(held.state, |index, column| {
        if column.is_empty() {
            return Ok(());
        }
        let labels = stream.heads[index].labels.clone();
        held.column(&labels, column)?;
        series.push(points(labels, column, stream.steps));
        Ok(())
    })?;
    Ok(QueryValue::Matrix(series))
}

fn points(labels: Labels, column: &Column, steps: Steps) -> MatrixSeries {
    let mut floats = Vec::with_capacity(column.float_count());
    column.for_each_float(|step, v| floats.push(Sample { t: steps.at(step), v }));
    let histograms = column
        .histograms()
        .iter()
        .map(|(step, histogram)| (steps.at(*step as usize), Arc::clone(histogram)))
        .collect();
    MatrixSeries { labels, floats, histograms }
}

/// The samples of a range vector as they are stored.
fn range_value<'q>(held: &mut Held<'q>, plan: &'q RangePlan, steps: Steps) -> Result<QueryValue, QueryError> {
    let state = held.state;
    let end = plan.time().resolve(steps.start);
    let start = end.saturating_sub(plan.window_ms());
    let stream = range_result(state, plan, steps)?;
    // The samples of a subquery were counted when it was evaluated.
    let counts = matches!(plan, RangePlan::Selector(_));
    let mut series = Vec::new();
    state.with_scratch(|scratch| -> Result<(), QueryError> {
        let mut samples = scratch.take_samples();
        for (index, head) in stream.heads.iter().enumerate() {
            state.limits.check()?;
            stream.source.read(index, &mut samples, scratch)?;
            let decoded = shared_bytes(samples.histograms.iter());
            state.limits.hold_bytes(decoded)?;
            let labels = if head.drop_name {
                super::labels::without_metadata(&head.labels)
            } else {
                head.labels.clone()
            };
            let one = match plan.extended() {
                None => raw_points(labels, &samples, start, end),
                Some(modifier) => extended_points(labels, &samples, start, end, modifier)?,
            };
            let histograms: usize = one.histograms.iter().map(|(_, h)| histogram_size(h)).sum();
            let size = one.floats.len() + histograms;
            if size > 0 {
                let points = size_of::<Sample>() * (one.floats.len() + one.histograms.len());
                held.series(&one.labels, size, points + shared_bytes(one.histograms.iter().map(|(_, h)| h)))?;
                if counts {
                    state.samples.add(steps, size as u64, |_| size as u64);
                }
                series.push(one);
            }
            state.limits.release_bytes(decoded);
            scratch.settle(&state.limits);
        }
        scratch.give_samples(samples);
        Ok(())
    })?;
    Ok(QueryValue::Matrix(series))
}

fn raw_points(labels: Labels, samples: &SeriesColumns, start: Timestamp, end: Timestamp) -> MatrixSeries {
    let within = |t: Timestamp| t > start && t <= end;
    let floats = samples.float_times.iter().zip(&samples.float_values);
    let histograms = samples.histogram_times.iter().zip(&samples.histograms);
    MatrixSeries {
        labels,
        floats: floats.filter(|(t, _)| within(**t)).map(|(t, v)| Sample { t: *t, v: *v }).collect(),
        histograms: histograms.filter(|(t, _)| within(**t)).map(|(t, h)| (*t, Arc::clone(h))).collect(),
    }
}

fn extended_points(
    labels: Labels,
    samples: &SeriesColumns,
    start: Timestamp,
    end: Timestamp,
    modifier: ExtendedRange,
) -> Result<MatrixSeries, QueryError> {
    if !samples.histograms.is_empty() {
        return Err(QueryError::new(
            QueryErrorKind::Execution,
            "anchored modifier is not supported with histograms",
        ));
    }
    let smoothed = modifier == ExtendedRange::Smoothed;
    let floats =
        super::extended::extend_floats(&samples.float_times, &samples.float_values, start, end, smoothed);
    Ok(MatrixSeries { labels, floats, histograms: Vec::new() })
}
