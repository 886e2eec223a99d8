//! From plans to streams: one function per kind of expression. Operators that need everything (aggregations, joins) do
//! their work here and hold the outcome; the others only note what to do, and work when a series is read.

use std::sync::Arc;

use super::arith::{self, go_max, go_min};
use super::column::{Bits, Cell, Column};
use super::date::date;
use super::elementwise::{map_floats, mapped, math, with_scalar};
use super::error::QueryError;
use super::labels::{is_metadata_label, label_bytes, without_metadata};
use super::selector::{self, RangeStream, Resampled};
use super::state::{Kept, STEPS_PER_CHECK, Scratch, State};
use super::steps::Steps;
use super::stream::{Head, Source, Stream, Table};
use super::{aggregate, binary, histogram_fn, info, label_fn, range, sort};
use crate::plan::{HistogramStat, RangePlan, ScalarPlan, SubqueryPlan, VectorPlan};
use model::Labels;

/// What one expression of several equal ones may take to be kept for the others: floats of 1000 series at 1000 steps.
const KEPT_BYTES_MAX: u64 = 8 << 20;
/// And of the memory of the query one part in so many.
const KEPT_SHARE: u64 = 16;

/// A number at each step.
#[derive(Clone, Debug)]
pub(crate) enum ScalarColumn {
    /// The same at each.
    Constant(f64),
    Each(Vec<f64>),
}

impl ScalarColumn {
    pub(crate) fn at(&self, step: usize) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Each(values) => values[step],
        }
    }

    /// All values (one for constants).
    pub(crate) fn values(&self) -> &[f64] {
        match self {
            Self::Constant(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(f(value)),
            Self::Each(values) => Self::Each(values.into_iter().map(f).collect()),
        }
    }

    fn zip(self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        match (self, other) {
            (Self::Constant(a), Self::Constant(b)) => Self::Constant(f(a, *b)),
            (Self::Constant(a), Self::Each(b)) => Self::Each(b.iter().map(|b| f(a, *b)).collect()),
            (Self::Each(a), b) => {
                Self::Each(a.into_iter().enumerate().map(|(step, a)| f(a, b.at(step))).collect())
            }
        }
    }
}

/// Evaluates a scalar.
pub(crate) fn scalar<'q>(
    state: &'q State<'q>,
    plan: &'q ScalarPlan,
    steps: Steps,
) -> Result<ScalarColumn, QueryError> {
    state.limits.check()?;
    match &state.profile {
        None => build_scalar(state, plan, steps),
        Some(profile) => profile.scalar(state, plan, || build_scalar(state, plan, steps)),
    }
}

fn build_scalar<'q>(
    state: &'q State<'q>,
    plan: &'q ScalarPlan,
    steps: Steps,
) -> Result<ScalarColumn, QueryError> {
    Ok(match plan {
        ScalarPlan::Number(value) => ScalarColumn::Constant(*value),
        ScalarPlan::Time => {
            ScalarColumn::Each((0..steps.count).map(|i| steps.at(i) as f64 / 1000.0).collect())
        }
        ScalarPlan::OfVector(plan) => only_value(state, &vector(state, plan, steps)?)?,
        ScalarPlan::Binary(op, a, b) => {
            let (a, b) = (scalar(state, a, steps)?, scalar(state, b, steps)?);
            a.zip(&b, |a, b| arith::scalar(*op, a, b))
        }
        ScalarPlan::Negate(inner) => scalar(state, inner, steps)?.map(|value| -value),
        ScalarPlan::Extreme { max, a, b } => {
            let (a, b) = (scalar(state, a, steps)?, scalar(state, b, steps)?);
            a.zip(&b, if *max { go_max } else { go_min })
        }
    })
}

/// The value of the only float at each step, NaN when there is none or more.
fn only_value<'q>(state: &'q State<'q>, stream: &Stream<'q>) -> Result<ScalarColumn, QueryError> {
    let mut values = vec![f64::NAN; stream.steps.count];
    let mut seen = Bits::new(stream.steps.count);
    stream.for_each(state, |_, column| {
        column.for_each_float(|step, value| {
            values[step] = if seen.get(step) { f64::NAN } else { value };
            seen.set(step);
        });
        Ok(())
    })?;
    Ok(ScalarColumn::Each(values))
}

/// Evaluates a vector.
pub(crate) fn vector<'q>(
    state: &'q State<'q>,
    plan: &'q VectorPlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    state.limits.check()?;
    if steps.count == 0 {
        return Ok(Stream::empty(steps));
    }
    match &state.profile {
        None => build_vector(state, plan, steps),
        Some(profile) => profile.vector(state, plan, || build_vector(state, plan, steps)),
    }
}

fn build_vector<'q>(
    state: &'q State<'q>,
    plan: &'q VectorPlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    match plan {
        VectorPlan::Selector(selector) => selector::instant(state, selector, steps),
        VectorPlan::Invariant(inner) => invariant(state, inner, steps),
        VectorPlan::Shared { id, inner } => shared(state, *id, inner, steps),
        VectorPlan::OfScalar(plan) => {
            let values = scalar(state, plan, steps)?;
            one_series(state, steps, &values)
        }
        VectorPlan::Range(plan) => {
            let arg = range_stream(state, &plan.arg, steps)?;
            let params =
                plan.params.iter().map(|param| scalar(state, param, steps)).collect::<Result<_, _>>()?;
            range::call(state, plan, arg, params, steps)
        }
        VectorPlan::AbsentOverTime { arg, labels } => {
            let samples = range_stream(state, arg, steps)?;
            let stream = range::presence(state, samples, arg.window_ms(), arg.time(), steps);
            absent(state, &stream, labels)
        }
        VectorPlan::Absent { arg, labels } => absent(state, &vector(state, arg, steps)?, labels),
        VectorPlan::Math { arg, function, params } => {
            let inner = vector(state, arg, steps)?;
            let params =
                params.iter().map(|param| scalar(state, param, steps)).collect::<Result<Vec<_>, _>>()?;
            math(state, inner, *function, params)
        }
        VectorPlan::Date { arg: Some(arg), function } => {
            let function = *function;
            let inner = vector(state, arg, steps)?;
            map_floats(state, inner, move |value| date(function, value))
        }
        VectorPlan::Date { arg: None, function } => {
            let values = (0..steps.count)
                .map(|step| date(*function, steps.at(step).div_euclid(1000) as f64))
                .collect();
            one_series(state, steps, &ScalarColumn::Each(values))
        }
        VectorPlan::StepTime { arg } => {
            let inner = vector(state, arg, steps)?;
            let mapped = mapped(inner, move |column| {
                let mut present = Bits::new(steps.count);
                column.mark_presence(&mut present);
                column.drop_histograms();
                for step in 0..steps.count {
                    if present.get(step) {
                        column.set(step, steps.at(step) as f64 / 1000.0);
                    }
                }
            });
            drop_names(state, mapped, false)
        }
        VectorPlan::HistogramStat { arg, stat } => {
            let stat = *stat;
            let inner = vector(state, arg, steps)?;
            let mapped = mapped(inner, move |column| {
                column.histograms_to_floats(|h| match stat {
                    HistogramStat::Count => h.count,
                    HistogramStat::Sum => h.sum,
                    HistogramStat::Avg => h.sum / h.count,
                    HistogramStat::Stdvar => super::quantile::histogram_variance(h),
                    HistogramStat::Stddev => super::quantile::histogram_variance(h).sqrt(),
                });
            });
            drop_names(state, mapped, false)
        }
        VectorPlan::Quantiles(plan) => histogram_fn::quantiles(state, plan, steps),
        VectorPlan::Fraction(plan) => histogram_fn::fraction(state, plan, steps),
        VectorPlan::LabelReplace(plan) => label_fn::replace(state, plan, steps),
        VectorPlan::LabelJoin { arg, destination, separator, sources } => {
            label_fn::join(state, vector(state, arg, steps)?, destination, separator, sources)
        }
        VectorPlan::Sort { arg, order } => sort::sort(state, vector(state, arg, steps)?, order),
        VectorPlan::Info(plan) => info::info(state, plan, steps),
        VectorPlan::Negate(inner) => {
            let inner = vector(state, inner, steps)?;
            let mapped = mapped(inner, |column| {
                column.map_floats(|value| -value);
                column.filter_map_histograms(|_, h| {
                    let mut negated = model::FloatHistogram::clone(h);
                    negated.scale(-1.0);
                    Some(Arc::new(negated))
                });
            });
            drop_names(state, mapped, false)
        }
        VectorPlan::Aggregate(plan) => aggregate::aggregate(state, plan, steps),
        VectorPlan::Binary(plan) => binary::binary(state, plan, steps),
        VectorPlan::WithScalar(plan) => with_scalar(state, plan, steps),
    }
}

/// One of several equal expressions: the first one is kept for the others where that takes little memory.
///
/// What has something to say about its place in the text is not kept: the others have other places.
fn shared<'q>(
    state: &'q State<'q>,
    id: usize,
    inner: &'q VectorPlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    if let Some(kept) = state.kept.get(id, steps) {
        state.samples.count_again(&kept.samples);
        return Ok(Stream::new(steps, kept.heads.clone(), KeptColumns(kept)));
    }
    let (samples, notes) = (state.samples.mark(), state.notes.additions());
    let stream = vector(state, inner, steps)?;
    let bytes = stream.len().saturating_mul(size_of::<Column>() + Column::bytes_of(steps.count));
    let bytes_max = KEPT_BYTES_MAX.min(state.limits.bytes_max() / KEPT_SHARE);
    if bytes as u64 > bytes_max {
        return Ok(stream);
    }
    // What histograms take is known when they were read.
    let table = match stream.materialize_within(state, usize::try_from(bytes_max).unwrap_or(usize::MAX))? {
        Ok(table) => table,
        Err(stream) => return Ok(stream),
    };
    if state.notes.additions() != notes {
        return Ok(table.into_stream());
    }
    let samples = state.samples.since(samples);
    let (heads, columns) = table.into_parts();
    let kept = state.kept.put(id, Kept { steps, heads, columns, samples });
    Ok(Stream::new(steps, kept.heads.clone(), KeptColumns(kept)))
}

struct KeptColumns(Arc<Kept>);

impl Source for KeptColumns {
    fn read(&self, index: usize, into: &mut Column, _: &mut Scratch) -> Result<(), QueryError> {
        into.clone_from(&self.0.columns[index]);
        Ok(())
    }
}

/// Samples for range functions.
pub(crate) fn range_stream<'q>(
    state: &'q State<'q>,
    plan: &'q RangePlan,
    steps: Steps,
) -> Result<RangeStream<'q>, QueryError> {
    match &state.profile {
        None => build_range(state, plan, steps),
        Some(profile) => profile.range(state, plan, || build_range(state, plan, steps)),
    }
}

fn build_range<'q>(
    state: &'q State<'q>,
    plan: &'q RangePlan,
    steps: Steps,
) -> Result<RangeStream<'q>, QueryError> {
    match plan {
        RangePlan::Selector(selector) => selector::range(state, selector, steps),
        // Its samples count where its windows are evaluated.
        RangePlan::Subquery(plan) => subquery(state, plan, steps, 0),
    }
}

/// The range vector that is the result of a query.
pub(crate) fn range_result<'q>(
    state: &'q State<'q>,
    plan: &'q RangePlan,
    steps: Steps,
) -> Result<RangeStream<'q>, QueryError> {
    let build = || match plan {
        RangePlan::Selector(selector) => selector::range(state, selector, steps),
        RangePlan::Subquery(plan) => subquery(state, plan, steps, 1),
    };
    match &state.profile {
        None => build(),
        Some(profile) => profile.range(state, plan, build),
    }
}

fn subquery<'q>(
    state: &'q State<'q>,
    subquery: &'q SubqueryPlan,
    steps: Steps,
    weight: u64,
) -> Result<RangeStream<'q>, QueryError> {
    let (first, last) = subquery.time.span(steps);
    let interval = subquery.step_ms;
    let open = first.saturating_sub(subquery.window_ms);
    // The first multiple of the interval after the open end of the first window.
    let mut start = interval.saturating_mul(open / interval);
    if start <= open {
        start = start.saturating_add(interval);
    }
    let inner_steps = if steps.count == 0 {
        Steps { start, interval, count: 0, weight }
    } else {
        Steps { weight, ..Steps::range(start, last, interval) }
    };
    state.limits.admit(inner_steps.count)?;
    let mut inner = vector(state, &subquery.inner, inner_steps)?;
    let heads = std::mem::take(&mut inner.heads);
    Ok(RangeStream { heads, source: Box::new(Resampled { state, inner }) })
}

/// Takes the labels away that only speak of the metric as it was: at once, or at the end where that is delayed. `whole`:
/// series that become equal are an error even when they share no step.
pub(crate) fn drop_names<'q>(
    state: &'q State<'q>,
    mut stream: Stream<'q>,
    whole: bool,
) -> Result<Stream<'q>, QueryError> {
    if state.features.delayed_name_removal {
        for head in &mut stream.heads {
            head.drop_name = true;
        }
        return Ok(stream);
    }
    remove_metadata(state, stream, whole, |_| true)
}

/// Takes metadata labels away from the series that `which` accepts, and merges what becomes equal.
pub(crate) fn remove_metadata<'q>(
    state: &'q State<'q>,
    mut stream: Stream<'q>,
    whole: bool,
    which: impl Fn(&Head) -> bool,
) -> Result<Stream<'q>, QueryError> {
    let typed = |head: &Head| {
        head.labels.iter().any(|(name, _)| is_metadata_label(name) && name != model::labels::METRIC_NAME)
    };
    let may_meet = !stream.has_one_name() || stream.heads.iter().any(typed);
    let (mut changed, mut bytes) = (false, 0);
    // Where few labels matter, neighbours mostly have the same.
    let mut last = (Labels::empty(), Labels::empty());
    for (index, head) in stream.heads.iter_mut().enumerate() {
        check_every(state, index)?;
        if which(head) {
            if head.labels.is_same(&last.0) {
                head.labels = last.1.clone();
            } else if head.labels.iter().any(|(name, _)| is_metadata_label(name)) {
                let without = without_metadata(&head.labels);
                // The old ones are mostly still held by the series they came from.
                bytes += label_bytes(&without);
                last = (std::mem::replace(&mut head.labels, without.clone()), without);
            }
            head.drop_name = false;
            changed = true;
        }
        if index % STEPS_PER_CHECK == STEPS_PER_CHECK - 1 {
            state.limits.hold_bytes(std::mem::take(&mut bytes))?;
        }
    }
    state.limits.hold_bytes(bytes)?;
    if changed && may_meet { stream.merge_equal(state, whole) } else { Ok(stream) }
}

/// Evaluates at the first step and repeats the outcome.
fn invariant<'q>(state: &'q State<'q>, plan: &'q VectorPlan, steps: Steps) -> Result<Stream<'q>, QueryError> {
    if steps.count == 1 {
        return vector(state, plan, steps);
    }
    let mut inner = vector(state, plan, steps.first_only())?;
    let heads = std::mem::take(&mut inner.heads);
    Ok(Stream::new(steps, heads, Repeated { state, inner, count: steps.count }))
}

struct Repeated<'q> {
    state: &'q State<'q>,
    inner: Stream<'q>,
    count: usize,
}

impl Source for Repeated<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        let mut once = scratch.take_column(&self.state.limits, 1)?;
        self.inner.source.read(index, &mut once, scratch)?;
        into.reset(self.count);
        match once.cell(0) {
            Some(Cell::Float(value)) => into.fill(value),
            Some(Cell::Histogram(histogram)) => {
                (0..self.count).for_each(|step| into.push_histogram(step, Arc::clone(histogram)));
            }
            None => {}
        }
        scratch.give_column(once);
        Ok(())
    }
}

/// A single series without labels.
fn one_series<'q>(
    state: &'q State<'q>,
    steps: Steps,
    values: &ScalarColumn,
) -> Result<Stream<'q>, QueryError> {
    // The table counts the column itself, once it is there.
    state.limits.hold_bytes(Column::bytes_of(steps.count))?;
    let mut column = Column::default();
    column.reset(steps.count);
    state.limits.release_bytes(Column::bytes_of(steps.count));
    match values {
        ScalarColumn::Constant(value) => column.fill(*value),
        ScalarColumn::Each(values) => column.copy_floats(values),
    }
    let mut table = Table::new(state, steps);
    table.push_series(Head::new(Labels::empty()), column)?;
    Ok(table.into_stream())
}

/// 1 at each step at which no series has anything.
fn absent<'q>(state: &'q State<'q>, stream: &Stream<'q>, labels: &Labels) -> Result<Stream<'q>, QueryError> {
    let steps = stream.steps;
    let mut present = Bits::new(steps.count);
    stream.for_each(state, |_, column| {
        column.mark_presence(&mut present);
        Ok(())
    })?;
    let mut column = Column::default();
    column.reset(steps.count);
    for step in (0..steps.count).filter(|step| !present.get(*step)) {
        column.set(step, 1.0);
    }
    if column.is_empty() {
        return Ok(Stream::empty(steps));
    }
    let mut table = Table::new(state, steps);
    table.push_series(Head::new(labels.clone()), column)?;
    Ok(table.into_stream())
}

/// Looks at the clock now and then within long loops.
pub(crate) fn check_every(state: &State<'_>, index: usize) -> Result<(), QueryError> {
    if index % STEPS_PER_CHECK == STEPS_PER_CHECK - 1 { state.limits.check() } else { Ok(()) }
}
