//! Classic histograms once more as native ones with custom buckets: what `load_with_nhcb` adds.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use model::labels::{BUCKET_LABEL, METRIC_NAME};
use model::{FloatHistogram, Labels, LabelsBuilder, Timestamp};

use super::ScriptValue;
use super::read::Point;
use super::values::number;

/// What the series of a classic histogram say at one time.
#[derive(Default)]
struct Slot {
    /// Cumulative counts by bound.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// The native series of all classic histograms in `series`.
pub(super) fn convert(series: &[(Labels, Vec<Point>)]) -> Vec<(Labels, Vec<Point>)> {
    let mut found: BTreeMap<Labels, BTreeMap<Timestamp, Slot>> = BTreeMap::new();
    for (labels, points) in series {
        let name = labels.metric_name();
        let Some((base, suffix)) = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| Some((name.strip_suffix(suffix)?, *suffix)))
        else {
            continue;
        };
        let bound = number(labels.value(BUCKET_LABEL)).filter(|bound| !bound.is_nan());
        if suffix == "_bucket" && bound.is_none() {
            continue;
        }
        let mut builder = LabelsBuilder::from(labels);
        builder.set(METRIC_NAME, base).remove(BUCKET_LABEL);
        let slots = found.entry(builder.build()).or_default();
        for point in points {
            let ScriptValue::Float(value) = point.value else { continue };
            let slot = slots.entry(point.t).or_default();
            match (suffix, bound) {
                ("_sum", _) => slot.sum = value,
                ("_count", _) => slot.count = Some(value),
                (_, Some(bound)) => slot.buckets.push((bound, value)),
                _ => {}
            }
        }
    }
    let convert = |(labels, slots): (Labels, BTreeMap<Timestamp, Slot>)| {
        let points = slots.into_iter().map(|(t, slot)| Point { t, start: None, value: slot.value() });
        (labels, points.collect())
    };
    found.into_iter().map(convert).collect()
}

impl Slot {
    fn value(mut self) -> ScriptValue {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|next, kept| next.0 == kept.0);
        let last = self.buckets.last().copied();
        let count = self.count.or(last.map(|(_, count)| count)).unwrap_or(0.0);
        if last.is_none_or(|(bound, _)| bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let mut previous = 0.0;
        let mut counts = Vec::with_capacity(self.buckets.len());
        for (_, cumulative) in &self.buckets {
            counts.push(cumulative - previous);
            previous = *cumulative;
        }
        let bounds: Vec<f64> =
            self.buckets[..self.buckets.len() - 1].iter().map(|(bound, _)| *bound).collect();
        let mut histogram = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length: u32::try_from(counts.len()).unwrap_or(u32::MAX) }],
            positive_buckets: counts,
            custom_values: bounds.into(),
            ..FloatHistogram::default()
        };
        histogram.compact();
        ScriptValue::Histogram { histogram: Arc::new(histogram), hint_given: false }
    }
}
