//! `info`: adds the data labels of info series to series of the same `instance` and `job`.
//!
//! Which info series is the current one changes over time, and with it the labels of the result: so the work is done
//! step by step, once.

use std::collections::BTreeMap;

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder, MatchOp, Matcher};

use super::column::Column;
use super::error::QueryError;
use super::eval::vector;
use super::labels::{ENTRY_BYTES, LabelMap, label_bytes};
use super::selector::{self, HistogramView};
use super::state::State;
use super::steps::Steps;
use super::stream::{Head, Stream, Table};
use crate::ast::Span;
use crate::plan::{Hints, InfoPlan, InstantValue, Selector};

/// The labels by which info series belong to others.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Evaluates `info`.
pub(crate) fn info<'q>(
    state: &'q State<'q>,
    plan: &'q InfoPlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let base = vector(state, &plan.arg, steps)?;
    let (name_matchers, data_matchers): (Vec<Matcher>, Vec<Matcher>) =
        plan.matchers.iter().cloned().partition(|matcher| matcher.name == METRIC_NAME);
    // Series that are info series themselves stay as they are.
    let is_info: Vec<bool> = base
        .heads
        .iter()
        .map(|head| {
            let positive = name_matchers.iter().any(|m| !m.op.is_negative());
            positive && name_matchers.iter().all(|matcher| matcher.matches(head.labels.metric_name()))
        })
        .collect();
    let table = info_series(state, plan, &base, &is_info, &name_matchers, &data_matchers, steps)?;
    let series = table.heads.iter().zip(&table.columns);
    let infos: Vec<_> = series.map(|(head, times)| InfoSeries { labels: &head.labels, times }).collect();
    enrich(state, base, &is_info, &infos, &data_matchers)
}

/// An info series with the times of its samples, in seconds, per step.
struct InfoSeries<'a> {
    labels: &'a Labels,
    times: &'a Column,
}

fn info_series<'q>(
    state: &'q State<'q>,
    plan: &InfoPlan,
    base: &Stream<'q>,
    is_info: &[bool],
    name_matchers: &[Matcher],
    data_matchers: &[Matcher],
    steps: Steps,
) -> Result<Table<'q>, QueryError> {
    let mut matchers = Vec::new();
    // Where some series lack an identifying label, one without samples must not ask for it on behalf of others.
    let mut counts: Vec<bool> = is_info.iter().map(|is_info| !is_info).collect();
    let has = |label: &str| base.heads.iter().filter(|head| head.labels.has(label)).count();
    if IDENTIFYING.iter().any(|label| (1..base.len()).contains(&has(label))) {
        base.for_each(state, |index, column| {
            counts[index] &= !column.is_empty();
            Ok(())
        })?;
    }
    for label in IDENTIFYING {
        let mut values: Vec<&str> = base
            .heads
            .iter()
            .zip(&counts)
            .filter(|(_, counts)| **counts)
            .filter_map(|(head, _)| head.labels.get(label))
            .collect();
        values.sort_unstable();
        values.dedup();
        if values.is_empty() {
            continue;
        }
        let pattern: Vec<String> = values.into_iter().map(regex::escape).collect();
        let matcher = Matcher::new(MatchOp::Regex, label, pattern.join("|"));
        matchers.push(matcher.map_err(|error| QueryError::execution(error.to_string()))?);
    }
    if matchers.is_empty() {
        return Ok(Table::new(state, steps));
    }
    if name_matchers.is_empty() {
        matchers.push(Matcher::equal(METRIC_NAME, "target_info"));
    }
    // Negated names alone still mean info metrics: those whose names say so.
    if !name_matchers.is_empty() && name_matchers.iter().all(|matcher| matcher.op.is_negative()) {
        let info = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info");
        matchers.push(info.map_err(|error| QueryError::execution(error.to_string()))?);
    }
    matchers.extend(name_matchers.iter().cloned());
    matchers.extend(data_matchers.iter().cloned());
    let select = |value| Selector {
        shared: None,
        only_labels: None,
        matchers: matchers.clone(),
        time: plan.time,
        window_ms: 0,
        extended: None,
        value,
        histograms: HistogramView::Whole,
        hints: Hints { func: "info".to_owned(), ..Hints::default() },
        span: Span::default(),
    };
    let samples = collect(state, &select(InstantValue::Sample), steps)?;
    if let Some(index) = samples.columns.iter().position(|column| !column.histograms().is_empty()) {
        return Err(QueryError::execution(format!(
            "this should be an info metric, with float samples: {}",
            samples.heads[index].labels
        )));
    }
    drop(samples);
    collect(state, &select(InstantValue::Time), steps)
}

fn collect<'q>(state: &'q State<'q>, selector: &Selector, steps: Steps) -> Result<Table<'q>, QueryError> {
    let stream = selector::instant(state, selector, steps)?;
    let mut table = Table::new(state, steps);
    stream.for_each(state, |index, column| {
        table.push_series(stream.heads[index].clone(), std::mem::take(column))
    })?;
    Ok(table)
}

/// Bytes of an info series in the maps of [`enrich`]: a leaf of the inner map has room for eleven.
const IDENTITY_BYTES: usize = 12 * size_of::<(&str, Vec<&()>)>() + 2 * size_of::<(Labels, [usize; 3])>();

fn enrich<'q>(
    state: &'q State<'q>,
    base: Stream<'q>,
    is_info: &[bool],
    infos: &[InfoSeries<'_>],
    data_matchers: &[Matcher],
) -> Result<Stream<'q>, QueryError> {
    let steps = base.steps;
    // Info series by what identifies them, then by metric name.
    let mut by_identity: BTreeMap<Labels, BTreeMap<&str, Vec<&InfoSeries<'_>>>> = BTreeMap::new();
    for info in infos {
        // A leaf of a map each, in the worst case.
        state.limits.hold_bytes(label_bytes(info.labels) + IDENTITY_BYTES)?;
        let identity = info.labels.only(&IDENTIFYING);
        by_identity.entry(identity).or_default().entry(info.labels.metric_name()).or_default().push(info);
    }
    let needs_match = data_matchers.iter().any(|matcher| !matcher.matches_empty());
    let mut numbers = LabelMap::with_capacity(base.len());
    let mut out: Vec<(Head, Column)> = Vec::new();
    base.for_each(state, |index, column| {
        let head = &base.heads[index];
        let mut builder = LabelsBuilder::new();
        let identity = head.labels.only(&IDENTIFYING);
        let metrics = by_identity.get(&identity);
        let mut last: Option<(Vec<&Labels>, Option<usize>)> = None;
        for step in 0..steps.count {
            state.limits.check_at(step)?;
            if !column.has(step) {
                continue;
            }
            let current = match metrics {
                Some(metrics) if !is_info[index] => current(metrics, step)?,
                _ => Vec::new(),
            };
            let number = match &last {
                Some((labels, number)) if *labels == current => *number,
                _ => {
                    let number = if is_info[index] {
                        Some(slot(state, &mut numbers, &mut out, head.clone(), steps)?)
                    } else if current.is_empty() && needs_match {
                        None
                    } else {
                        let labels = enriched(&head.labels, &current, data_matchers, &mut builder)?;
                        let head = Head { labels, drop_name: head.drop_name };
                        Some(slot(state, &mut numbers, &mut out, head, steps)?)
                    };
                    last = Some((current, number));
                    number
                }
            };
            let Some(number) = number else { continue };
            let into = &mut out[number].1;
            if into.has(step) {
                return Err(QueryError::same_labels());
            }
            match column.cell(step) {
                Some(super::column::Cell::Float(value)) => into.set(step, value),
                Some(super::column::Cell::Histogram(histogram)) => {
                    into.push_histogram(step, std::sync::Arc::clone(histogram));
                }
                None => {}
            }
        }
        Ok(())
    })?;
    drop(base);
    let mut table = Table::new(state, steps);
    for (head, column) in out {
        // Counted anew, by the table.
        state.limits.release_bytes(Column::bytes_of(steps.count));
        table.push_series(head, column)?;
    }
    Ok(table.into_stream())
}

/// The result series with these labels; a new one's column is counted before it is made.
fn slot(
    state: &State<'_>,
    numbers: &mut LabelMap,
    out: &mut Vec<(Head, Column)>,
    head: Head,
    steps: Steps,
) -> Result<usize, QueryError> {
    let (number, is_new) = numbers.insert(&head.labels, out.len());
    if is_new {
        let of_head = size_of::<(Head, Column)>() + ENTRY_BYTES + label_bytes(&head.labels);
        state.limits.hold_bytes(of_head)?;
        state.limits.hold_bytes(Column::bytes_of(steps.count))?;
        let mut column = Column::default();
        column.reset(steps.count);
        out.push((head, column));
    }
    Ok(number)
}

/// The newest info series of each metric at a step.
fn current<'a>(
    metrics: &BTreeMap<&str, Vec<&'a InfoSeries<'_>>>,
    step: usize,
) -> Result<Vec<&'a Labels>, QueryError> {
    let mut found = Vec::new();
    for series in metrics.values() {
        let mut newest: Option<(f64, &'a InfoSeries<'_>)> = None;
        for info in series {
            let Some(t) = info.times.float(step) else { continue };
            match newest {
                Some((other, existing)) if other == t => {
                    let ms = (t * 1000.0).round() as i64;
                    return Err(QueryError::execution(format!(
                        "found duplicate series for info metric: existing {} @ {ms}, new {} @ {ms}",
                        existing.labels, info.labels
                    )));
                }
                Some((other, _)) if other > t => {}
                _ => newest = Some((t, info)),
            }
        }
        found.extend(newest.map(|(_, info)| info.labels));
    }
    Ok(found)
}

/// `base` with the data labels of `infos` that it does not have itself.
fn enriched(
    base: &Labels,
    infos: &[&Labels],
    data_matchers: &[Matcher],
    builder: &mut LabelsBuilder,
) -> Result<Labels, QueryError> {
    builder.reset(&Labels::empty());
    for info in infos {
        for (name, value) in info.iter().filter(|(name, _)| *name != METRIC_NAME) {
            let wanted = data_matchers.is_empty() || data_matchers.iter().any(|m| m.name == name);
            if !wanted {
                continue;
            }
            let present = builder.value(name);
            if !present.is_empty() && present != value {
                return Err(QueryError::execution(format!("conflicting label: {name}")));
            }
            if !base.has(name) {
                builder.set(name, value);
            }
        }
    }
    let added = builder.build();
    builder.reset(base);
    for (name, value) in &added {
        builder.set(name, value);
    }
    Ok(builder.build())
}
