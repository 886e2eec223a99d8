//! What every part of Nilometer says: labels, samples, histograms, matchers, durations, relabelling,
//! templates, and the traits by which the parts meet (storage, alerts, time).
//!
//! This crate is the ground of the house: it does no I/O, starts no thread and knows no async runtime.
//! Time is `i64` milliseconds since the Unix epoch everywhere ([`Timestamp`]), both ends of a
//! [`TimeRange`] included. What crosses a process border (API JSON, protobuf, disk) has types of its own
//! beside its codec; only the leaves of configuration files ([`config`]) know `serde` here.
#![forbid(unsafe_code)]

pub mod alert;
pub mod annotations;
pub mod clock;
pub mod config;
pub mod duration;
pub mod exemplar;
pub mod float;
pub mod histogram;
pub mod labels;
pub mod matcher;
pub mod metadata;
pub mod protobuf;
pub mod regex;
pub mod relabel;
pub mod sample;
pub mod storage;
pub mod template;

pub use alert::{Alert, AlertSink};
pub use annotations::Annotations;
pub use clock::{Clock, ManualClock};
pub use config::{ConfigError, ConfigPath, Secret};
pub use exemplar::Exemplar;
pub use histogram::{FloatHistogram, Histogram};
pub use labels::{Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};
pub use metadata::{Metadata, MetricKind};
pub use sample::{Sample, SampleValue, TimeRange, Timestamp, is_stale_nan, stale_nan};
