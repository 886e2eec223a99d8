//! Native histograms: sparse exponential buckets (or custom ones), with integer or float counts.
//!
//! Definitions and names follow Prometheus' `model/histogram`. Schemas -4 to 8 are exponential with base
//! `2^(2^-schema)`; [`CUSTOM_BUCKETS_SCHEMA`] marks explicit upper bounds in `custom_values`.

mod arithmetic;
mod bounds;
mod buckets;
mod reduce;
mod reset;
mod trim;
mod validate;

use std::sync::Arc;

pub use arithmetic::{HistogramSum, IncompatibleSchemas, Reconciled};
pub use buckets::{Bucket, GoFloat};
pub use trim::Keep;
pub use validate::{Count, HistogramFault, Side};

use crate::sample::is_stale_nan;

/// Coarsest exponential schema.
pub const EXPONENTIAL_SCHEMA_MIN: i32 = -4;
/// Finest exponential schema.
pub const EXPONENTIAL_SCHEMA_MAX: i32 = 8;
/// Schema number of histograms with custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known about a counter reset between the previous histogram of the series and this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterResetHint {
    /// Nothing: compare.
    #[default]
    Unknown,
    /// There was one.
    CounterReset,
    /// There was none.
    NotCounterReset,
    /// A gauge histogram: resets have no meaning.
    Gauge,
}

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the previous span in buckets; for the first one, the index of its first bucket. Never negative but for
    /// the first.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// A native histogram with integer counts, as exposed and scraped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// What is known about resets.
    pub counter_reset_hint: CounterResetHint,
    /// Bucket schema.
    pub schema: i32,
    /// Width of the zero bucket: it holds values in `[-zero_threshold, zero_threshold]`.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations.
    pub count: u64,
    /// Sum of all observations; carries the staleness marker.
    pub sum: f64,
    /// Spans of positive buckets.
    pub positive_spans: Vec<Span>,
    /// Spans of negative buckets.
    pub negative_spans: Vec<Span>,
    /// Counts of positive buckets, each as difference to its predecessor.
    pub positive_buckets: Vec<i64>,
    /// Counts of negative buckets, each as difference to its predecessor.
    pub negative_buckets: Vec<i64>,
    /// Upper bounds of custom buckets, ascending, without `+Inf`; empty for exponential schemas.
    pub custom_values: Arc<[f64]>,
}

/// A native histogram with float counts: what queries compute with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatHistogram {
    /// What is known about resets.
    pub counter_reset_hint: CounterResetHint,
    /// Bucket schema.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations; carries the staleness marker.
    pub sum: f64,
    /// Spans of positive buckets.
    pub positive_spans: Vec<Span>,
    /// Spans of negative buckets.
    pub negative_spans: Vec<Span>,
    /// Counts of positive buckets, absolute.
    pub positive_buckets: Vec<f64>,
    /// Counts of negative buckets, absolute.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, ascending, without `+Inf`; empty for exponential schemas.
    pub custom_values: Arc<[f64]>,
}

impl Histogram {
    /// Whether this is a staleness marker.
    pub fn is_stale(&self) -> bool {
        is_stale_nan(self.sum)
    }

    /// Whether bucket bounds are custom.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// The same histogram with float counts.
    pub fn to_float(&self) -> FloatHistogram {
        let absolute = |deltas: &[i64]| {
            let mut count = 0i64;
            deltas
                .iter()
                .map(|delta| {
                    count = count.wrapping_add(*delta);
                    count as f64
                })
                .collect()
        };
        FloatHistogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: absolute(&self.positive_buckets),
            negative_buckets: absolute(&self.negative_buckets),
            custom_values: Arc::clone(&self.custom_values),
        }
    }
}

impl FloatHistogram {
    /// Whether this is a staleness marker.
    pub fn is_stale(&self) -> bool {
        is_stale_nan(self.sum)
    }

    /// Whether bucket bounds are custom.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }
}
