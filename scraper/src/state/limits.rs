//! What the job says about histograms: which of their forms are kept, and how fine native ones may be.

use std::sync::Arc;

use model::SampleValue;
use model::histogram::{EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN};

/// How histograms of a target are treated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HistogramSettings {
    /// Whether native histograms are read; otherwise only the classic form that a page has beside them.
    pub(crate) native: bool,
    /// Whether the classic form is kept where a native one is read, or made.
    pub(crate) keep_classic: bool,
    /// Whether classic histograms become native ones with custom buckets.
    pub(crate) convert: bool,
    /// Most buckets of a native histogram; 0 is no bound.
    pub(crate) buckets_max: u64,
    /// Finest schema.
    pub(crate) schema_max: i32,
}

impl Default for HistogramSettings {
    fn default() -> Self {
        Self {
            native: false,
            keep_classic: false,
            convert: false,
            buckets_max: 0,
            schema_max: EXPONENTIAL_SCHEMA_MAX,
        }
    }
}

/// Finest schema that the formula of bounds has a meaning for: one step of it is one of a double's mantissa.
const SCHEMA_RESERVED_MAX: i32 = 52;

/// Whether a histogram is within the bound of its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BucketLimit {
    /// It is.
    Kept,
    /// It is not, and cannot be made so.
    Exceeded,
}

/// The finest schema of which neighbouring bounds differ by at least `factor`. (Prometheus' `pickSchema`.)
pub(crate) fn schema_for_factor(factor: f64) -> i32 {
    // Below this even the finest schema will do.
    let factor = if factor <= 1.0 { 1.00271 } else { factor };
    let schema = (-factor.log2().log2()).floor();
    schema.clamp(f64::from(EXPONENTIAL_SCHEMA_MIN), f64::from(EXPONENTIAL_SCHEMA_MAX)) as i32
}

impl HistogramSettings {
    /// Makes a histogram coarser until it keeps to the bounds. What a page says is not trusted: no schema makes this take more steps
    /// than there are schemas.
    pub(super) fn fit(&self, value: &mut SampleValue) -> BucketLimit {
        let (custom, mut schema, count) = match &*value {
            SampleValue::Float(_) => return BucketLimit::Kept,
            SampleValue::Histogram(h) => (h.uses_custom_buckets(), h.schema, h.bucket_count()),
            SampleValue::FloatHistogram(h) => (h.uses_custom_buckets(), h.schema, h.bucket_count()),
        };
        let max = usize::try_from(self.buckets_max).ok().filter(|max| *max > 0).unwrap_or(usize::MAX);
        if custom {
            return if count > max { BucketLimit::Exceeded } else { BucketLimit::Kept };
        }
        // What is finer still is no schema; the store says so.
        if schema > self.schema_max && schema <= SCHEMA_RESERVED_MAX {
            schema = self.schema_max;
            reduce(value, schema);
        }
        while bucket_count(value) > max {
            // Neither what is coarsest nor what is no schema can be made coarser.
            if schema <= EXPONENTIAL_SCHEMA_MIN || schema > EXPONENTIAL_SCHEMA_MAX {
                return BucketLimit::Exceeded;
            }
            schema -= 1;
            reduce(value, schema);
            // Spans that do not fit their buckets stay as they are, at every schema.
            if schema_of(value) != Some(schema) {
                return BucketLimit::Exceeded;
            }
        }
        BucketLimit::Kept
    }
}

fn bucket_count(value: &SampleValue) -> usize {
    match value {
        SampleValue::Float(_) => 0,
        SampleValue::Histogram(h) => h.bucket_count(),
        SampleValue::FloatHistogram(h) => h.bucket_count(),
    }
}

fn schema_of(value: &SampleValue) -> Option<i32> {
    match value {
        SampleValue::Float(_) => None,
        SampleValue::Histogram(h) => Some(h.schema),
        SampleValue::FloatHistogram(h) => Some(h.schema),
    }
}

fn reduce(value: &mut SampleValue, schema: i32) {
    match value {
        SampleValue::Float(_) => {}
        SampleValue::Histogram(h) => *h = Arc::new(h.to_schema(schema)),
        SampleValue::FloatHistogram(h) => *h = Arc::new(h.to_schema(schema)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Histogram;
    use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

    fn histogram(schema: i32, buckets: u32) -> SampleValue {
        SampleValue::Histogram(Arc::new(Histogram {
            schema,
            count: u64::from(buckets),
            positive_spans: vec![Span { offset: 1, length: buckets }],
            positive_buckets: std::iter::once(1)
                .chain(std::iter::repeat_n(0, buckets as usize - 1))
                .collect(),
            ..Histogram::default()
        }))
    }

    fn fit(settings: HistogramSettings, mut value: SampleValue) -> (BucketLimit, i32, usize) {
        let verdict = settings.fit(&mut value);
        let SampleValue::Histogram(h) = &value else { panic!("{value:?}") };
        (verdict, h.schema, h.bucket_count())
    }

    #[test]
    fn resolution_is_reduced_to_the_bounds() {
        let factors = [
            (0.0, 8),
            (1.0, 8),
            (1.00271, 8),
            (1.1, 2),
            (1.19, 1),
            (1.2, 1),
            (2.0, 0),
            (4.0, -1),
            (65536.0, -4),
            (1e9, -4),
        ];
        for (factor, schema) in factors {
            assert_eq!(schema_for_factor(factor), schema, "{factor}");
        }
        let settings = HistogramSettings { schema_max: 0, ..HistogramSettings::default() };
        assert_eq!(fit(settings, histogram(3, 16)), (BucketLimit::Kept, 0, 2));
        assert_eq!(fit(settings, histogram(-1, 16)), (BucketLimit::Kept, -1, 16), "coarse enough");
        let settings = HistogramSettings { buckets_max: 5, ..HistogramSettings::default() };
        assert_eq!(fit(settings, histogram(3, 16)), (BucketLimit::Kept, 1, 4));
        assert_eq!(fit(settings, histogram(3, 5)), (BucketLimit::Kept, 3, 5));
        assert_eq!(fit(settings, histogram(-4, 6)).0, BucketLimit::Exceeded);
        assert_eq!(fit(settings, histogram(CUSTOM_BUCKETS_SCHEMA, 6)).0, BucketLimit::Exceeded);
        assert_eq!(fit(settings, histogram(CUSTOM_BUCKETS_SCHEMA, 5)).0, BucketLimit::Kept);
        let settings = HistogramSettings::default();
        assert_eq!(fit(settings, histogram(10, 16)), (BucketLimit::Kept, 8, 4), "finer than is stored");
        assert_eq!(fit(settings, histogram(53, 16)), (BucketLimit::Kept, 53, 16), "the store refuses it");
    }

    #[test]
    fn no_schema_makes_it_run_long() {
        let settings = HistogramSettings { buckets_max: 5, ..HistogramSettings::default() };
        let misfit = |schema| {
            let spans = vec![Span { offset: 0, length: 1 }];
            let (positive_spans, positive_buckets) = (spans, vec![1; 10]);
            Histogram { schema, positive_spans, positive_buckets, ..Histogram::default() }
        };
        for schema in [i32::MAX, 53, 52, 8, 0, -4, -5, i32::MIN] {
            let value = misfit(schema);
            let floats = SampleValue::FloatHistogram(Arc::new(value.to_float()));
            let (verdict, after, buckets) = fit(settings, SampleValue::Histogram(Arc::new(value)));
            assert_eq!((verdict, after, buckets), (BucketLimit::Exceeded, schema, 10), "as it was");
            let mut fitted = floats.clone();
            // Spans and counts of floats are cut to what fits when they are made coarser; what is no schema is not.
            settings.fit(&mut fitted);
            if !(EXPONENTIAL_SCHEMA_MIN..=SCHEMA_RESERVED_MAX).contains(&schema) {
                assert_eq!(fitted, floats, "{schema}");
            }
        }
        assert_eq!(
            fit(settings, histogram(i32::MAX, 16)),
            (BucketLimit::Exceeded, i32::MAX, 16),
            "spans fit"
        );
        assert_eq!(
            fit(settings, histogram(i32::MAX, 5)),
            (BucketLimit::Kept, i32::MAX, 5),
            "the store refuses it"
        );
        // Both signs: two buckets a side is as coarse as they get.
        let mut both = Histogram { schema: 8, ..Histogram::default() };
        for (spans, buckets) in [
            (&mut both.positive_spans, &mut both.positive_buckets),
            (&mut both.negative_spans, &mut both.negative_buckets),
        ] {
            *spans = vec![Span { offset: -3, length: 8 }];
            *buckets = vec![1, 0, 0, 0, 0, 0, 0, 0];
        }
        let settings = HistogramSettings { buckets_max: 3, ..HistogramSettings::default() };
        let (verdict, schema, buckets) = fit(settings, SampleValue::Histogram(Arc::new(both)));
        assert_eq!((verdict, schema, buckets), (BucketLimit::Exceeded, -4, 4));
    }
}
