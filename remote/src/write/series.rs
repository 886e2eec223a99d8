//! What both versions of a series have in common, for the one road that stores them.

use model::{Exemplar, Metadata, SampleValue, Timestamp};

use super::{v1, v2};
use crate::protobuf::DecodeError;

/// A series of a request.
pub(super) trait WrittenSeries {
    /// The labels as sent.
    fn label_pairs(&self) -> Result<Vec<(&str, &str)>, DecodeError>;

    /// Calls `each` with time, start time and value of every sample.
    fn samples<E: From<DecodeError>>(
        &self,
        each: impl FnMut(Timestamp, Option<Timestamp>, SampleValue) -> Result<(), E>,
    ) -> Result<(), E>;

    /// The exemplars.
    fn exemplars(&self) -> Result<Vec<Exemplar>, DecodeError>;

    /// What the metric is, when said.
    fn metadata(&self) -> Result<Option<Metadata>, DecodeError>;
}

impl WrittenSeries for v1::TimeSeries<'_> {
    fn label_pairs(&self) -> Result<Vec<(&str, &str)>, DecodeError> {
        Self::label_pairs(self)
    }

    fn samples<E: From<DecodeError>>(
        &self,
        mut each: impl FnMut(Timestamp, Option<Timestamp>, SampleValue) -> Result<(), E>,
    ) -> Result<(), E> {
        Self::samples(self, |t, value| each(t, None, value))
    }

    fn exemplars(&self) -> Result<Vec<Exemplar>, DecodeError> {
        Self::exemplars(self)
    }

    fn metadata(&self) -> Result<Option<Metadata>, DecodeError> {
        // Metadata of 1.0 requests are per metric family, not per series; targets' metadata serve the API.
        Ok(None)
    }
}

impl WrittenSeries for v2::TimeSeries<'_> {
    fn label_pairs(&self) -> Result<Vec<(&str, &str)>, DecodeError> {
        Self::label_pairs(self)
    }

    fn samples<E: From<DecodeError>>(
        &self,
        each: impl FnMut(Timestamp, Option<Timestamp>, SampleValue) -> Result<(), E>,
    ) -> Result<(), E> {
        Self::samples(self, each)
    }

    fn exemplars(&self) -> Result<Vec<Exemplar>, DecodeError> {
        Self::exemplars(self)
    }

    fn metadata(&self) -> Result<Option<Metadata>, DecodeError> {
        Self::metadata(self)
    }
}
