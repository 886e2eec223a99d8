//! `histogram_quantile(s)` and `histogram_fraction`, over classic buckets and native histograms alike.
//!
//! Which series belong together is known from labels alone: series that differ only in `le` are one classic histogram,
//! a native histogram of the same labels belongs to it. So a histogram's series are read when its result is, and never
//! all at once.

use std::sync::atomic::{AtomicU32, Ordering};

use model::histogram::GoFloat;
use model::labels::BUCKET_LABEL;
use model::{FloatHistogram, Labels, Timestamp};

use super::column::Column;
use super::error::QueryError;
use super::eval::{ScalarColumn, check_every, drop_names, scalar, vector};
use super::labels::{ENTRY_BYTES, LabelMap, label_bytes};
use super::notes::ForcedMonotonicity;
use super::quantile::{
    Bucket, Forced, NanDoubt, bucket_fraction, bucket_quantile, histogram_fraction, histogram_quantile,
};
use super::state::{Scratch, State};
use super::steps::Steps;
use super::stream::{Head, Source, Stream};
use crate::ast::Span;
use crate::plan::{FractionPlan, QuantilesPlan};

/// Evaluates quantiles.
pub(crate) fn quantiles<'q>(
    state: &'q State<'q>,
    plan: &'q QuantilesPlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let mut wanted = Vec::new();
    for (quantile, span) in &plan.quantiles {
        let values = scalar(state, quantile, steps)?;
        for q in values.values() {
            if q.is_nan() || !(0.0..=1.0).contains(q) {
                state.notes.invalid_quantile(*q, *span);
            }
        }
        match &plan.label {
            None => wanted.push(Wanted { what: What::Quantile(values), only: None, label: None }),
            Some(label) => {
                // A series per value: where the quantile changes over time, each holds the steps of one.
                let mut distinct: Vec<f64> = Vec::new();
                for q in values.values() {
                    if !distinct.iter().any(|other| other.to_bits() == q.to_bits()) {
                        distinct.push(*q);
                    }
                }
                for q in distinct {
                    let only = matches!(values, ScalarColumn::Each(_)).then_some(q);
                    let label = Some((label.clone(), open_metrics(q)));
                    wanted.push(Wanted { what: What::Quantile(values.clone()), only, label });
                }
            }
        }
    }
    let places = Places { argument: plan.arg_span, native: plan.native_span, classic: plan.classic_span };
    let inner = vector(state, &plan.arg, steps)?;
    build(state, inner, wanted, places)
}

/// Evaluates a fraction.
pub(crate) fn fraction<'q>(
    state: &'q State<'q>,
    plan: &'q FractionPlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let (lower, upper) = (scalar(state, &plan.lower, steps)?, scalar(state, &plan.upper, steps)?);
    let wanted = vec![Wanted { what: What::Fraction(lower, upper), only: None, label: None }];
    let places = Places { argument: plan.arg_span, native: plan.first_span, classic: plan.arg_span };
    let inner = vector(state, &plan.arg, steps)?;
    build(state, inner, wanted, places)
}

/// OpenMetrics' canonical form: always with a point or an exponent.
fn open_metrics(value: f64) -> String {
    let mut text = GoFloat(value).to_string();
    if value.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

/// What is computed of each histogram.
struct Wanted {
    what: What,
    /// Steps other than those at which the quantile has this value are left out.
    only: Option<f64>,
    /// A label to add.
    label: Option<(String, String)>,
}

enum What {
    Quantile(ScalarColumn),
    Fraction(ScalarColumn, ScalarColumn),
}

/// Where annotations point.
#[derive(Clone, Copy)]
struct Places {
    argument: Span,
    native: Span,
    classic: Span,
}

/// The series of one histogram.
struct Member {
    /// Bounds and series of classic buckets, in order of bounds.
    buckets: Vec<(f64, usize)>,
    /// The series that may hold native histograms.
    native: Option<usize>,
    name: String,
    /// `le` of the native series, wrong as it is for floats.
    le: String,
}

fn build<'q>(
    state: &'q State<'q>,
    mut inner: Stream<'q>,
    wanted: Vec<Wanted>,
    places: Places,
) -> Result<Stream<'q>, QueryError> {
    let input = std::mem::take(&mut inner.heads);
    let each = ENTRY_BYTES + size_of::<Head>() + size_of::<(f64, usize)>();
    state.limits.hold_bytes(input.len().saturating_mul(each))?;
    let mut numbers = LabelMap::with_capacity(input.len());
    let mut members: Vec<Member> = Vec::new();
    let mut labels: Vec<Labels> = Vec::new();
    for (index, head) in input.iter().enumerate() {
        check_every(state, index)?;
        let le = head.labels.value(BUCKET_LABEL);
        let bound = parse_bound(le);
        let key = if bound.is_some() { head.labels.without(&[BUCKET_LABEL]) } else { head.labels.clone() };
        let (number, is_new) = numbers.insert(&key, members.len());
        if is_new {
            let name = key.metric_name().to_owned();
            state.limits.hold_bytes(size_of::<Member>() + name.len() + 2 * label_bytes(&key))?;
            members.push(Member { buckets: Vec::new(), native: None, name, le: String::new() });
            labels.push(key);
        }
        let member = &mut members[number];
        match bound {
            Some(bound) => member.buckets.push((bound, index)),
            None => {
                member.native = Some(index);
                le.clone_into(&mut member.le);
            }
        }
    }
    for member in &mut members {
        member.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let mut heads = Vec::with_capacity(members.len() * wanted.len());
    for wanted in &wanted {
        heads.extend(labels.iter().map(|labels| {
            Head::new(match &wanted.label {
                Some((name, value)) => labels.with(name, value),
                None => labels.clone(),
            })
        }));
    }
    let noted = members.iter().map(|_| AtomicU32::new(0)).collect();
    let steps = inner.steps;
    let labelled = wanted.iter().any(|wanted| wanted.label.is_some());
    let histograms = Histograms { state, inner, members, wanted, places, noted };
    let stream = drop_names(state, Stream::new(steps, heads, histograms), false)?;
    // The label of quantiles may take the place of one that told histograms apart.
    if labelled { stream.merge_equal(state, false) } else { Ok(stream) }
}

/// `le` as Go's `ParseFloat` takes it; NaN is no bound.
fn parse_bound(le: &str) -> Option<f64> {
    let bytes = le.as_bytes();
    if bytes.is_empty() || !bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)) {
        return None;
    }
    le.parse::<f64>().ok().filter(|bound| !bound.is_nan())
}

struct Histograms<'q> {
    state: &'q State<'q>,
    inner: Stream<'q>,
    members: Vec<Member>,
    wanted: Vec<Wanted>,
    places: Places,
    /// What has been noted about each member.
    noted: Vec<AtomicU32>,
}

const NOTED_BAD_LABEL: u32 = 1;
const NOTED_MIXED: u32 = 2;

impl Source for Histograms<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        let (number, wanted) = (index % self.members.len(), &self.wanted[index / self.members.len()]);
        let member = &self.members[number];
        let steps = self.inner.steps;
        into.reset(steps.count);
        let mut native = scratch.take_column(&self.state.limits, steps.count)?;
        native.reset(steps.count);
        if let Some(series) = member.native {
            self.inner.source.read(series, &mut native, scratch)?;
            if native.float_count() > 0 {
                self.note_once(number, NOTED_BAD_LABEL, || {
                    self.state.notes.bad_bucket_label(&member.name, &member.le, self.places.argument);
                });
            }
        }
        let mut columns = Vec::with_capacity(member.buckets.len());
        for (_, series) in &member.buckets {
            let mut column = scratch.take_column(&self.state.limits, steps.count)?;
            self.inner.source.read(*series, &mut column, scratch)?;
            if !column.histograms().is_empty() {
                return Err(QueryError::execution(
                    "native histograms in series with a bucket label are not supported here",
                ));
            }
            columns.push(column);
        }
        let mut buckets = Vec::with_capacity(columns.len());
        let mut monotonicity: Option<ForcedMonotonicity> = None;
        for step in 0..steps.count {
            self.state.limits.check_at(step)?;
            if let (Some(only), What::Quantile(values)) = (wanted.only, &wanted.what)
                && values.at(step).to_bits() != only.to_bits()
            {
                continue;
            }
            buckets.clear();
            for ((upper, _), column) in member.buckets.iter().zip(&columns) {
                if let Some(count) = column.float(step) {
                    buckets.push(Bucket { upper: *upper, count });
                }
            }
            match native.histogram(step) {
                Some(_) if !buckets.is_empty() => self.note_once(number, NOTED_MIXED, || {
                    self.state.notes.mixed_classic_native(&member.name, self.places.argument);
                }),
                Some(histogram) => into.set(step, self.native(wanted, step, histogram, &member.name)),
                None if buckets.is_empty() => {}
                None => {
                    let (value, forced) = classic(wanted, step, &mut buckets);
                    into.set(step, value);
                    if let Some(forced) = forced {
                        widen(&mut monotonicity, forced, steps.at(step));
                    }
                }
            }
        }
        if let Some(monotonicity) = monotonicity {
            self.state.notes.forced_monotonicity(
                self.seen_name(&member.name),
                self.places.classic,
                monotonicity,
            );
        }
        columns.into_iter().for_each(|column| scratch.give_column(column));
        scratch.give_column(native);
        Ok(())
    }
}

impl Histograms<'_> {
    /// The name in annotations: it is gone already unless names are dropped late.
    fn seen_name<'a>(&self, name: &'a str) -> &'a str {
        if self.state.features.delayed_name_removal { name } else { "" }
    }

    fn note_once(&self, number: usize, bit: u32, note: impl FnOnce()) {
        if self.noted[number].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            note();
        }
    }

    fn native(&self, wanted: &Wanted, step: usize, histogram: &FloatHistogram, name: &str) -> f64 {
        let (notes, name) = (&self.state.notes, self.seen_name(name));
        match &wanted.what {
            What::Quantile(values) => {
                let (value, doubt) = histogram_quantile(values.at(step), histogram);
                match doubt {
                    Some(NanDoubt::Result) => notes.quantile_nan_result(name, self.places.native),
                    Some(NanDoubt::Skew) => notes.quantile_nan_skew(name, self.places.native),
                    None => {}
                }
                value
            }
            What::Fraction(lower, upper) => {
                let (value, has_nan) = histogram_fraction(lower.at(step), upper.at(step), histogram);
                if has_nan {
                    notes.fraction_nan(name, self.places.native);
                }
                value
            }
        }
    }
}

fn classic(wanted: &Wanted, step: usize, buckets: &mut Vec<Bucket>) -> (f64, Option<Forced>) {
    match &wanted.what {
        What::Quantile(values) => bucket_quantile(values.at(step), buckets),
        What::Fraction(lower, upper) => (bucket_fraction(lower.at(step), upper.at(step), buckets), None),
    }
}

fn widen(all: &mut Option<ForcedMonotonicity>, forced: Forced, t: Timestamp) {
    let all = all.get_or_insert(ForcedMonotonicity {
        min_bucket: forced.min_bucket,
        max_bucket: forced.max_bucket,
        max_diff: forced.max_diff,
        min_t: t,
        max_t: t,
        samples: 0,
    });
    all.min_bucket = all.min_bucket.min(forced.min_bucket);
    all.max_bucket = all.max_bucket.max(forced.max_bucket);
    all.max_diff = all.max_diff.max(forced.max_diff);
    all.max_t = t;
    all.samples += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_go_floats() {
        assert_eq!(parse_bound("+Inf"), Some(f64::INFINITY));
        assert_eq!(parse_bound(".2"), Some(0.2));
        assert_eq!(parse_bound("2.0e-1"), Some(0.2));
        for le in ["", "Hello World", "NaN", "0.1 "] {
            assert_eq!(parse_bound(le), None, "{le:?}");
        }
        assert_eq!([0.0, 1.0, 0.5, f64::NAN].map(open_metrics), ["0.0", "1.0", "0.5", "NaN"]);
    }
}
