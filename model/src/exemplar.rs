//! Exemplars: a labelled example (mostly a trace id) beside a sample.

use crate::labels::Labels;
use crate::sample::Timestamp;

/// Most bytes that names and values of an exemplar's labels may have together (OpenMetrics 1.0, "Exemplars").
pub const EXEMPLAR_LABELS_MAX_CHARS: usize = 128;

/// One example of what a sample counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its own labels, e.g. `trace_id`.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// When it was observed; `None` when the page gave no time (the sample's time then counts).
    pub t: Option<Timestamp>,
}
