//! Samples and the time they are taken at.

use std::sync::Arc;

use crate::histogram::{FloatHistogram, Histogram};

/// Milliseconds since the Unix epoch, UTC. Negative values lie before 1970.
pub type Timestamp = i64;

/// Bits of the NaN that says "this series has ended" (Prometheus' `value.StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;
/// Bits of the NaN that stands for "not a number" in stored data (Prometheus' `value.NormalNaN`).
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The staleness marker as a value.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// The ordinary NaN, with the one payload that Prometheus writes.
pub fn normal_nan() -> f64 {
    f64::from_bits(NORMAL_NAN_BITS)
}

/// Whether `value` is the staleness marker. Compares bits: other NaNs are values.
pub fn is_stale_nan(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// A float sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When it was taken.
    pub t: Timestamp,
    /// Its value; any bit pattern, staleness marker included.
    pub v: f64,
}

/// The value of a sample of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    /// A float.
    Float(f64),
    /// A native histogram with integer counts.
    Histogram(Arc<Histogram>),
    /// A native histogram with float counts.
    FloatHistogram(Arc<FloatHistogram>),
}

impl SampleValue {
    /// Whether this is a staleness marker (for histograms: in the sum).
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Float(v) => is_stale_nan(*v),
            Self::Histogram(h) => is_stale_nan(h.sum),
            Self::FloatHistogram(h) => is_stale_nan(h.sum),
        }
    }
}

/// A span of time, both ends included. Empty when `max < min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First millisecond.
    pub min: Timestamp,
    /// Last millisecond.
    pub max: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { min: i64::MIN, max: i64::MAX };

    /// From `min` to `max`, both included.
    pub fn new(min: Timestamp, max: Timestamp) -> Self {
        Self { min, max }
    }

    /// Whether `t` lies within.
    pub fn contains(&self, t: Timestamp) -> bool {
        self.min <= t && t <= self.max
    }

    /// Whether the two spans share a millisecond.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}
