//! What a query gives.

use std::sync::Arc;
use std::time::Duration;

use model::{Annotations, FloatHistogram, Labels, Sample, Timestamp};

use super::column::shared_bytes;
use super::labels::label_bytes;
use super::memory::MemoryHold;
use crate::ast::ValueType;

/// The value of an expression.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum QueryValue {
    /// A number at the time of evaluation.
    Scalar(Sample),
    /// A sample per series. Order matters: it is that of `sort` and `topk`.
    Vector(Vec<VectorSample>),
    /// Points per series, series in order of labels.
    Matrix(Vec<MatrixSeries>),
    /// A text at the time of evaluation.
    String {
        /// When.
        t: Timestamp,
        /// The text.
        value: String,
    },
}

impl QueryValue {
    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Scalar(_) => ValueType::Scalar,
            Self::Vector(_) => ValueType::Vector,
            Self::Matrix(_) => ValueType::Matrix,
            Self::String { .. } => ValueType::String,
        }
    }
}

/// A float or a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum PointValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One series of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Its labels.
    pub labels: Labels,
    /// The time of evaluation.
    pub t: Timestamp,
    /// Its value.
    pub value: PointValue,
}

/// One series of a matrix. No time occurs in both columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixSeries {
    /// Its labels.
    pub labels: Labels,
    /// Float points in order of time.
    pub floats: Vec<Sample>,
    /// Histogram points in order of time.
    pub histograms: Vec<(Timestamp, Arc<FloatHistogram>)>,
}

/// Bytes of a series of a result beside its samples.
pub(crate) fn series_bytes(labels: &Labels) -> usize {
    size_of::<MatrixSeries>() + label_bytes(labels)
}

impl VectorSample {
    /// What it counts for in the memory of queries.
    pub fn size_bytes(&self) -> u64 {
        let histogram = match &self.value {
            PointValue::Float(_) => None,
            PointValue::Histogram(histogram) => Some(histogram),
        };
        (series_bytes(&self.labels) + shared_bytes(histogram.into_iter())) as u64
    }
}

impl MatrixSeries {
    /// What it counts for in the memory of queries.
    pub fn size_bytes(&self) -> u64 {
        let points = size_of::<Sample>() * (self.floats.len() + self.histograms.len());
        let histograms = shared_bytes(self.histograms.iter().map(|(_, histogram)| histogram));
        (series_bytes(&self.labels) + points + histograms) as u64
    }
}

/// A value and what there is to say about it.
#[derive(Clone, Debug)]
pub struct QueryResult {
    /// The value.
    pub value: QueryValue,
    /// Doubts about it, texts with positions.
    pub annotations: Annotations,
    /// What it took.
    pub stats: QueryStats,
    /// What the value holds of the memory that queries share, until it is dropped; `None`: too little to count.
    pub memory: Option<Arc<MemoryHold>>,
}

/// What a query took.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QueryStats {
    /// Samples looked at, counted anew for each step (`totalQueryableSamples`).
    pub total_samples: u64,
    /// The same per step, when asked for.
    pub samples_per_step: Option<Vec<(Timestamp, u64)>>,
    /// Most samples held at once (`peakSamples`).
    pub peak_samples: u64,
    /// Samples read from storage, each once (`samplesRead`).
    pub samples_read: u64,
    /// Most bytes of memory held at once.
    pub peak_memory_bytes: u64,
    /// Series selected.
    pub series: u64,
    /// Waiting for a place (`execQueueTime`).
    pub queued: Duration,
    /// Parsing and planning (`queryPreparationTime`).
    pub prepare: Duration,
    /// Evaluation (`innerEvalTime`).
    pub inner_eval: Duration,
    /// Sorting of the result (`resultSortTime`).
    pub result_sort: Duration,
}
