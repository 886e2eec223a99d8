//! What a metric is: type, unit, help.

use std::fmt;

/// The type of a metric family, in OpenMetrics' words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Only goes up, but for resets.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative histogram, classic or native.
    Histogram,
    /// Histogram of present state.
    GaugeHistogram,
    /// Quantiles computed by the client.
    Summary,
    /// Constant 1 with facts in labels.
    Info,
    /// One of several states.
    StateSet,
    /// Not said (`untyped` in classic text).
    #[default]
    Unknown,
}

impl MetricKind {
    /// The name in API answers and OpenMetrics text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Type, unit and help of a metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Its type.
    pub kind: MetricKind,
    /// Its unit (`seconds`), or empty.
    pub unit: String,
    /// Its description, or empty.
    pub help: String,
}
