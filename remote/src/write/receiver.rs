//! From a request's body to a committed transaction.

use std::sync::Arc;

use model::labels::METRIC_NAME;
use model::storage::{Append, AppendError, AppendOptions, AppendSample, Appender, SeriesRef, StorageError};
use model::{Clock, Labels, Metadata, SampleValue};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};

use super::cache::SeriesCache;
use super::series::WrittenSeries;
use super::v1::{self, Entry};
use super::v2;
use crate::protobuf::DecodeError;

/// How far in the future samples may lie (as Prometheus' receiver).
const FUTURE_MAX_MS: i64 = 10 * 60 * 1000;

/// Bounds of a receiver.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverOptions {
    /// Most bytes of a request after decompression.
    pub decoded_bytes_max: usize,
    /// Most series that are recognised by their raw bytes.
    pub cache_entries_max: usize,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self { decoded_bytes_max: 64 << 20, cache_entries_max: 4 << 20 }
    }
}

/// Why a request was refused. Nothing of it is stored then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The body is no snappy block, or declares more bytes than allowed.
    #[error("snappy: {0}")]
    Compression(String),
    /// The body is no `WriteRequest`.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A sample cannot be taken; sending it again will not help.
    #[error("{error} (series {labels}, timestamp {t})")]
    Refused {
        /// Why.
        error: AppendError,
        /// The series.
        labels: Labels,
        /// The sample's time.
        t: i64,
    },
    /// Storage failed; sending again may help.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl WriteError {
    /// Whether the sender should try again (5xx) or drop the request (4xx).
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Storage(_))
    }
}

/// What a request brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteSummary {
    /// Float samples taken.
    pub samples: u64,
    /// Histogram samples taken.
    pub histograms: u64,
    /// Exemplars taken.
    pub exemplars: u64,
    /// Samples of series whose labels are invalid: left out.
    pub invalid_labels_samples: u64,
}

/// What became of a request of which a part may have been left out.
#[derive(Debug)]
pub struct PartialWrite {
    /// What was taken.
    pub summary: WriteSummary,
    /// Why the first of the samples left out was refused, if any was.
    pub first_refusal: Option<WriteError>,
}

/// Takes remote-write requests for one store. Shared by all connections.
pub struct Receiver {
    append: Arc<dyn Append>,
    clock: Arc<dyn Clock>,
    options: ReceiverOptions,
    /// Held for the look-ups of one request. Lock order: nothing is locked within.
    cache: Mutex<SeriesCache>,
    metrics: Metrics,
}

struct Metrics {
    invalid_labels: IntCounter,
    cache_entries: IntGauge,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Receiver {
    /// A receiver that writes to `append`; `seed` is a random number of this process.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub fn new(
        append: Arc<dyn Append>,
        clock: Arc<dyn Clock>,
        seed: u64,
        options: ReceiverOptions,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let metrics = Metrics {
            invalid_labels: IntCounter::new(
                "prometheus_api_remote_write_invalid_labels_samples_total",
                "Samples of remote-write series left out because their labels are invalid.",
            )?,
            cache_entries: IntGauge::new(
                "nilometer_remote_write_cache_entries",
                "Series that the remote-write receiver recognises by their raw bytes.",
            )?,
        };
        registry.register(Box::new(metrics.invalid_labels.clone()))?;
        registry.register(Box::new(metrics.cache_entries.clone()))?;
        let cache = Mutex::new(SeriesCache::new(seed, options.cache_entries_max));
        Ok(Self { append, clock, options, cache, metrics })
    }

    /// Stores a remote-write 1.0 request: `body` is a snappy block of a `prometheus.WriteRequest`. All of it or nothing,
    /// but series with invalid labels are left out and counted.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing is stored then.
    pub fn write_v1(&self, body: &[u8]) -> Result<WriteSummary, WriteError> {
        let message = self.decompress(body)?;
        let mut request = self.request(false);
        let read = v1::read_request(&message, |entry| match entry {
            Entry::Series(series) => request.series(&series),
            Entry::Metadata(..) => Ok(()),
        });
        match read {
            Ok(()) => self.commit(request),
            Err(error) => {
                request.appender.rollback();
                Err(error)
            }
        }
    }

    /// Stores a remote-write 2.0 request: `body` is a snappy block of an `io.prometheus.write.v2.Request`. Samples that
    /// cannot be taken are left out, the others stay.
    ///
    /// # Errors
    /// When the request cannot be read or storage fails: nothing is stored then.
    pub fn write_v2(&self, body: &[u8]) -> Result<PartialWrite, WriteError> {
        let message = self.decompress(body)?;
        let decoded = v2::Request::read(&message)?;
        let mut request = self.request(true);
        for series in decoded.series() {
            if let Err(error) = request.series(&series) {
                request.appender.rollback();
                return Err(error);
            }
        }
        let first_refusal = request.first_refusal.take();
        let summary = self.commit(request)?;
        Ok(PartialWrite { summary, first_refusal })
    }

    fn request(&self, partial: bool) -> Request<'_> {
        let options = AppendOptions {
            max_time: Some(self.clock.now_ms().saturating_add(FUTURE_MAX_MS)),
            reject_out_of_order: false,
        };
        Request {
            appender: self.append.appender(options),
            cache: &self.cache,
            summary: WriteSummary::default(),
            key: Vec::new(),
            partial,
            first_refusal: None,
        }
    }

    fn commit(&self, request: Request<'_>) -> Result<WriteSummary, WriteError> {
        let summary = request.summary;
        request.appender.commit()?;
        self.metrics.invalid_labels.inc_by(summary.invalid_labels_samples);
        self.metrics.cache_entries.set(i64::try_from(self.cache.lock().len()).unwrap_or(i64::MAX));
        Ok(summary)
    }

    fn decompress(&self, body: &[u8]) -> Result<Vec<u8>, WriteError> {
        let length =
            snap::raw::decompress_len(body).map_err(|error| WriteError::Compression(error.to_string()))?;
        if length > self.options.decoded_bytes_max {
            let limit = self.options.decoded_bytes_max;
            return Err(WriteError::Compression(format!(
                "declares {length} bytes, more than the limit of {limit}"
            )));
        }
        snap::raw::Decoder::new()
            .decompress_vec(body)
            .map_err(|error| WriteError::Compression(error.to_string()))
    }
}

/// One request on its way into a transaction.
struct Request<'a> {
    appender: Box<dyn Appender>,
    cache: &'a Mutex<SeriesCache>,
    summary: WriteSummary,
    /// The series' key, reused.
    key: Vec<u8>,
    /// Whether samples that are refused are left out instead of failing the request.
    partial: bool,
    first_refusal: Option<WriteError>,
}

impl Request<'_> {
    fn series(&mut self, series: &impl WrittenSeries) -> Result<(), WriteError> {
        self.key.clear();
        let has_key = series.write_key(&mut self.key)?;
        let (key, known) = {
            let cache = self.cache.lock();
            let key = has_key.then(|| cache.key(&self.key));
            (key, key.and_then(|key| cache.get(key)))
        };
        let mut state = SeriesState { known, labels: None };
        if state.known.is_none() && !self.resolve(series, &mut state)? {
            return Ok(());
        }
        let mut first = None;
        series.samples(|t, start, value| match self.sample(series, &mut state, t, start, value) {
            Ok(reference) => {
                first.get_or_insert(reference);
                Ok(())
            }
            Err(error @ WriteError::Refused { .. }) if self.partial => {
                self.first_refusal.get_or_insert(error);
                Ok(())
            }
            Err(error) => Err(error),
        })?;
        let Some(reference) = first else { return Ok(()) };
        for exemplar in series.exemplars()? {
            // As in Prometheus: exemplars that cannot be taken never fail a request.
            if self.appender.append_exemplar(reference, &exemplar).is_ok() {
                self.summary.exemplars += 1;
            }
        }
        if let Some(metadata) = series.metadata()?.filter(|metadata| *metadata != Metadata::default())
            && let Err(error) = self.appender.update_metadata(reference, &metadata)
        {
            tracing::debug!(%error, "metadata of a series not kept");
        }
        if let Some(key) = key
            && known != Some(reference)
        {
            self.cache.lock().insert(key, reference);
        }
        Ok(())
    }

    fn sample(
        &mut self,
        series: &impl WrittenSeries,
        state: &mut SeriesState,
        t: i64,
        start: Option<i64>,
        value: SampleValue,
    ) -> Result<SeriesRef, WriteError> {
        let is_float = matches!(value, SampleValue::Float(_));
        let sample = AppendSample { t, value, start };
        let empty = Labels::empty();
        let labels = state.labels.as_ref().unwrap_or(&empty);
        let appended = match self.appender.append(state.known, labels, sample.clone()) {
            // The store has forgotten the series since: name it anew.
            Err(AppendError::UnknownSeries) if state.known.is_some() => {
                state.known = None;
                if !self.resolve(series, state)? {
                    return Err(refused(AppendError::InvalidLabels, state, t));
                }
                let labels = state.labels.as_ref().unwrap_or(&empty);
                self.appender.append(None, labels, sample)
            }
            other => other,
        };
        match appended {
            Ok(reference) => {
                state.known = Some(reference);
                if is_float {
                    self.summary.samples += 1;
                } else {
                    self.summary.histograms += 1;
                }
                Ok(reference)
            }
            Err(error) => {
                if state.labels.is_none() {
                    self.resolve(series, state)?;
                }
                Err(refused(error, state, t))
            }
        }
    }

    /// Decodes the labels of `series`. `false`: they are invalid; its samples are counted as left out.
    fn resolve(&mut self, series: &impl WrittenSeries, state: &mut SeriesState) -> Result<bool, WriteError> {
        let valid = match series.label_pairs() {
            Ok(pairs) => valid_labels(&pairs),
            Err(DecodeError::InvalidUtf8(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if valid.is_none() {
            let mut samples = 0;
            series.samples(|_, _, _| {
                samples += 1;
                Ok::<(), DecodeError>(())
            })?;
            self.summary.invalid_labels_samples += samples;
        }
        state.labels = valid;
        Ok(state.labels.is_some())
    }
}

/// What is known of the series at hand.
struct SeriesState {
    known: Option<SeriesRef>,
    labels: Option<Labels>,
}

fn refused(error: AppendError, state: &SeriesState, t: i64) -> WriteError {
    WriteError::Refused { error, labels: state.labels.clone().unwrap_or_default(), t }
}

/// The label set, unless it lacks a metric name, has an empty or repeated label name.
fn valid_labels(pairs: &[(&str, &str)]) -> Option<Labels> {
    let has_name = pairs.iter().any(|(name, value)| *name == METRIC_NAME && !value.is_empty());
    let names_filled = pairs.iter().all(|(name, _)| !name.is_empty());
    (has_name && names_filled && Labels::duplicate_name(pairs).is_none())
        .then(|| Labels::from_pairs(pairs.iter().copied()))
}

#[cfg(test)]
mod tests;
