//! From a request's body to a committed transaction: decompressed, scanned, recognised, planned, written; then the index
//! learns from it (see [`super::upkeep`]).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use hashbrown::HashSet;
use model::labels::METRIC_NAME;
use model::storage::{
    Append, AppendError, AppendOptions, AppendSample, Appender, CommitSummary, LayoutRef, LayoutSlot, Row,
    SeriesRef, SeriesSample, StorageError,
};
use model::{Clock, Labels, Metadata, SampleValue};
use parking_lot::RwLock;
use prometheus::Registry;

use super::index::{Index, NONE};
use super::plan::{Part, Plan, Step};
use super::scan::{Item, Key, present, scan_v1, scan_v2};
use super::series::WrittenSeries;
use super::upkeep::Metrics;
use super::{v1, v2};
use crate::protobuf::{DecodeError, WireError};

/// Most bytes of memory that a thread keeps for its next request.
const SCRATCH_BYTES_MAX: usize = 8 << 20;
/// New series that come together become a layout at once if there are at least so many,
const NEW_LAYOUT_MIN: usize = 64;
/// and at most so many.
const NEW_LAYOUT_MAX: usize = 4096;
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
    pub(super) append: Arc<dyn Append>,
    pub(super) clock: Arc<dyn Clock>,
    options: ReceiverOptions,
    /// Of the hashes that series are recognised by.
    seed: u64,
    /// Read by requests while they are recognised, changed by what they found. Lock order: before anything of the storage.
    pub(super) index: RwLock<Index>,
    /// When upkeep is due.
    pub(super) upkeep_ms: AtomicI64,
    pub(super) metrics: Metrics,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Memory that a thread uses again.
#[derive(Debug, Default)]
struct Scratch {
    message: Vec<u8>,
    items: Vec<Item>,
    found: Vec<u32>,
    plan: Plan,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    fn take() -> Box<Self> {
        SCRATCH.take().unwrap_or_default()
    }

    /// Keeps the memory for the next request, unless a huge one has made it huge.
    fn put_back(self: Box<Self>) {
        let bytes = self.message.capacity() + 72 * self.items.capacity() + self.plan.capacity();
        if bytes <= SCRATCH_BYTES_MAX {
            SCRATCH.set(Some(self));
        }
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
        let metrics = Metrics::register(registry)?;
        let index = RwLock::new(Index::new(options.cache_entries_max));
        let upkeep_ms = AtomicI64::new(clock.now_ms());
        Ok(Self { append, clock, options, seed, index, upkeep_ms, metrics })
    }

    /// Stores a remote-write 1.0 request: `body` is a snappy block of a `prometheus.WriteRequest`. All of it or nothing,
    /// but series with invalid labels are left out and counted.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing is stored then.
    pub fn write_v1(&self, body: &[u8]) -> Result<WriteSummary, WriteError> {
        let mut scratch = Scratch::take();
        let Scratch { message, items, found, plan } = &mut *scratch;
        items.clear();
        let written = self.decompress(body, message).and_then(|message| {
            scan_v1(message, self.seed, items)?;
            self.store(Scanned { message, items }, found, plan, false, v1::TimeSeries::new)
        });
        scratch.put_back();
        let written = written?;
        match written.first_refusal {
            Some(refusal) => Err(refusal),
            None => Ok(written.summary),
        }
    }

    /// Stores a remote-write 2.0 request: `body` is a snappy block of an `io.prometheus.write.v2.Request`. Samples that
    /// cannot be taken are left out, the others stay.
    ///
    /// # Errors
    /// When the request cannot be read or storage fails: nothing is stored then.
    pub fn write_v2(&self, body: &[u8]) -> Result<PartialWrite, WriteError> {
        let mut scratch = Scratch::take();
        let Scratch { message, items, found, plan } = &mut *scratch;
        items.clear();
        let written =
            self.decompress(body, message).and_then(|message| {
                let decoded = v2::Request::read(message)?;
                scan_v2(&decoded, self.seed, items)?;
                self.store(Scanned { message, items }, found, plan, true, |message| {
                    Ok(decoded.series_of(message))
                })
            });
        scratch.put_back();
        written
    }

    /// Writes a request that was scanned, and learns from it. Where it is not `partial`, a refusal means that nothing is
    /// stored.
    fn store<'a, S: WrittenSeries>(
        &self,
        scanned: Scanned<'a>,
        found: &mut Vec<u32>,
        plan: &mut Plan,
        partial: bool,
        series_of: impl Fn(&'a [u8]) -> Result<S, DecodeError>,
    ) -> Result<PartialWrite, WriteError> {
        {
            let index = self.index.read();
            index.recognise(scanned.items, found);
            plan.make(&index, scanned.items, found);
        }
        let options = AppendOptions {
            max_time: Some(self.clock.now_ms().saturating_add(FUTURE_MAX_MS)),
            reject_out_of_order: false,
        };
        let appender = self.append.appender(options);
        let mut request = Request::new(appender, scanned, partial, &series_of);
        let written = request.write(plan);
        let Request { appender, summary, first_refusal, learned, dead, opened, rows, references, .. } =
            request;
        let first_refusal = first_refusal.map(|(_, refusal)| refusal);
        let stored = match written {
            Ok(()) if partial || first_refusal.is_none() => appender.commit().map_err(WriteError::from),
            other => {
                appender.rollback();
                other.map(|()| CommitSummary::default())
            }
        };
        if let (Ok(_), None) = (&stored, &first_refusal) {
            self.metrics.wrote(rows, references, summary.samples);
        }
        let learned = Learned { series: &learned, dead: &dead, opened: &opened, stored: stored.is_ok() };
        self.learn(scanned, plan, &learned, &series_of);
        stored?;
        self.metrics.invalid_labels.inc_by(summary.invalid_labels_samples);
        Ok(PartialWrite { summary, first_refusal })
    }

    /// The bytes that a snappy block stands for, in memory that is used again.
    fn decompress<'a>(&self, body: &[u8], memory: &'a mut Vec<u8>) -> Result<&'a [u8], WriteError> {
        let length =
            snap::raw::decompress_len(body).map_err(|error| WriteError::Compression(error.to_string()))?;
        if length > self.options.decoded_bytes_max {
            let limit = self.options.decoded_bytes_max;
            return Err(WriteError::Compression(format!(
                "declares {length} bytes, more than the limit of {limit}"
            )));
        }
        if memory.len() < length {
            // Never shorter again: what is there need not be cleared.
            memory.resize(length, 0);
        }
        let memory = &mut memory[..length];
        let read = snap::raw::Decoder::new()
            .decompress(body, memory)
            .map_err(|error| WriteError::Compression(error.to_string()))?;
        Ok(&memory[..read])
    }
}

/// A request's bytes and what they hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanned<'a> {
    pub(super) message: &'a [u8],
    pub(super) items: &'a [Item],
}

/// A layout opened for series that were never seen before.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) layout: LayoutRef,
    /// Item and reference by slot.
    pub(super) members: Vec<(u32, Option<SeriesRef>)>,
}

/// What a request says of series and layouts.
#[derive(Debug)]
pub(super) struct Learned<'a> {
    /// Series that were named by their labels, by item.
    pub(super) series: &'a [(u32, SeriesRef)],
    /// Layouts that the storage does not know any more.
    pub(super) dead: &'a [(u32, LayoutRef)],
    /// Layouts that it has opened.
    pub(super) opened: &'a [Opened],
    /// Whether the request was committed.
    pub(super) stored: bool,
}

/// One request on its way into a transaction.
struct Request<'a, F> {
    appender: Box<dyn Appender>,
    scanned: Scanned<'a>,
    series_of: F,
    summary: WriteSummary,
    /// Whether samples that are refused are left out instead of failing the request.
    partial: bool,
    /// The refused sample that comes first in the request, as far as it was looked at.
    first_refusal: Option<(u32, WriteError)>,
    /// Items refused on a road without their exemplars.
    refused: Vec<u32>,
    /// Series that were named by their labels.
    learned: Vec<(u32, SeriesRef)>,
    /// Layouts that the storage does not know any more.
    dead: Vec<(u32, LayoutRef)>,
    /// Layouts of new series, and what these are recognised by.
    opened: Vec<Opened>,
    taken: HashSet<Key>,
    /// Samples by road.
    rows: u64,
    references: u64,
}

impl<'a, S: WrittenSeries, F: Fn(&'a [u8]) -> Result<S, DecodeError>> Request<'a, F> {
    fn new(appender: Box<dyn Appender>, scanned: Scanned<'a>, partial: bool, series_of: F) -> Self {
        Self {
            appender,
            scanned,
            series_of,
            summary: WriteSummary::default(),
            partial,
            first_refusal: None,
            refused: Vec::new(),
            learned: Vec::new(),
            dead: Vec::new(),
            opened: Vec::new(),
            taken: HashSet::new(),
            rows: 0,
            references: 0,
        }
    }

    /// Whether there is no use in going on.
    fn has_failed(&self) -> bool {
        !self.partial && self.first_refusal.is_some()
    }

    fn write(&mut self, plan: &Plan) -> Result<(), WriteError> {
        for step in &plan.steps {
            match step {
                Step::Part(part) => self.part(plan, part)?,
                Step::Bound(range) => {
                    self.floats(&plan.bound[range.clone()], &plan.bound_items[range.clone()])?;
                }
            }
            if self.has_failed() {
                return Ok(());
            }
        }
        self.floats(&plan.loose, &plan.loose_items)?;
        let mut slow = plan.slow.as_slice();
        while let [(item, known), rest @ ..] = slow {
            if self.has_failed() {
                return Ok(());
            }
            let new = self.new_run(slow);
            if new >= NEW_LAYOUT_MIN {
                let run = slow[..new].iter().map(|(item, _)| *item);
                self.new_layout(run)?;
                slow = &slow[new..];
            } else {
                self.series(*item, *known)?;
                slow = rest;
            }
        }
        for (item, series) in &plan.extras {
            if !self.refused.contains(item) {
                let written = self.written(*item)?;
                self.extras(&written, *series)?;
            }
        }
        Ok(())
    }

    fn written(&self, item: u32) -> Result<S, DecodeError> {
        (self.series_of)(self.scanned.items[item as usize].message(self.scanned.message))
    }

    /// Appends a part of a row.
    fn part(&mut self, plan: &Plan, part: &Part) -> Result<(), WriteError> {
        let values = &plan.values[part.values.clone()];
        let items = &plan.items[part.values.clone()];
        let row = Row { layout: part.layout, t: part.t, values };
        let outcome = if part.whole {
            self.appender.append_row(&row)
        } else {
            self.appender.append_row_part(LayoutSlot(part.first), &row)
        };
        if outcome.error.is_some() {
            // The storage has let go of the layout: name the series anew.
            self.dead.push((part.index, part.layout));
            return items.iter().filter(|item| **item != NONE).try_for_each(|item| self.series(*item, None));
        }
        self.rows += outcome.appended as u64;
        self.summary.samples += outcome.appended as u64;
        for (slot, why) in outcome.refused {
            let item = slot.0.checked_sub(part.first).and_then(|at| items.get(at as usize));
            match (item, why) {
                (Some(item), AppendError::UnknownSeries) => self.series(*item, None)?,
                (Some(item), why) => self.refuse(*item, why)?,
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Appends floats of known series.
    fn floats(&mut self, samples: &[SeriesSample], items: &[u32]) -> Result<(), WriteError> {
        let refused = self.appender.append_floats(samples, !self.partial);
        let taken = (samples.len() - refused.len()) as u64;
        self.references += taken;
        self.summary.samples += taken;
        for (index, why) in refused {
            match why {
                // The storage has forgotten the series since: name it anew.
                AppendError::UnknownSeries => self.series(items[index], None)?,
                why => self.refuse(items[index], why)?,
            }
        }
        Ok(())
    }

    /// How many simple series that nobody knows begin `slow`, next to each other and at one time.
    fn new_run(&self, slow: &[(u32, Option<SeriesRef>)]) -> usize {
        let Some(&(first, _)) = slow.first() else { return 0 };
        let t = self.scanned.items[first as usize].t;
        let fits = |(at, (item, known)): (u32, &(u32, Option<SeriesRef>))| {
            let mine = &self.scanned.items[*item as usize];
            known.is_none() && *item == first + at && mine.simple && !mine.extras && mine.t == t
        };
        let run = (0u32..).zip(slow).take(NEW_LAYOUT_MAX).take_while(|pair| fits(*pair)).count();
        if run < NEW_LAYOUT_MIN {
            return 0;
        }
        // The same series twice, in this run or in one before: one sample after the other.
        let mut seen = HashSet::new();
        let items = &self.scanned.items[first as usize..][..run];
        let mut new = |key: Key| !self.taken.contains(&key) && seen.insert(key);
        items.iter().map(|item| item.key).take_while(|key| key.is_some_and(&mut new)).count()
    }

    /// Writes series that nobody knows as the first row of a layout: a sender that brings so many of one time together will
    /// most likely bring them so again. Where it does not, the layout is given up like any other.
    fn new_layout(&mut self, run: impl Iterator<Item = u32> + Clone) -> Result<(), WriteError> {
        let Some(t) = run.clone().next().map(|item| self.scanned.items[item as usize].t) else {
            return Ok(());
        };
        let layout = self.appender.open_layout();
        let at = self.opened.len();
        self.opened.push(Opened { layout, members: Vec::new() });
        let mut values = Vec::new();
        for item in run {
            self.taken.extend(self.scanned.items[item as usize].key);
            let series = self.written(item)?;
            let mut state = SeriesState { known: None, labels: None };
            if !self.resolve(&series, &mut state)? {
                continue;
            }
            let labels = state.labels.unwrap_or_default();
            match self.appender.extend_layout(layout, &labels) {
                Ok(slot) => {
                    let reference = self.appender.slot_series(layout, slot);
                    self.opened[at].members.push((item, reference));
                    values.push(self.scanned.items[item as usize].v);
                }
                Err(why) => self.refuse(item, why)?,
            }
        }
        let outcome = self.appender.append_row(&Row { layout, t, values: &values });
        self.rows += outcome.appended as u64;
        self.summary.samples += outcome.appended as u64;
        for (slot, why) in outcome.refused {
            let item = self.opened[at].members.get(slot.0 as usize).map(|member| member.0);
            if let Some(item) = item {
                self.refuse(item, why)?;
            }
        }
        Ok(())
    }

    /// Takes note of a refused sample of a simple series.
    fn refuse(&mut self, item: u32, error: AppendError) -> Result<(), WriteError> {
        self.refused.push(item);
        if self.first_refusal.as_ref().is_none_or(|(first, _)| item < *first) {
            let labels = valid_labels(&self.written(item)?.label_pairs()?);
            let t = self.scanned.items[item as usize].t;
            let refused = WriteError::Refused { error, labels: labels.unwrap_or_default(), t };
            self.first_refusal = Some((item, refused));
        }
        Ok(())
    }

    /// Appends a series of any kind.
    fn series(&mut self, item: u32, known: Option<SeriesRef>) -> Result<(), WriteError> {
        let series = self.written(item)?;
        let mut state = SeriesState { known, labels: None };
        if state.known.is_none() && !self.resolve(&series, &mut state)? {
            return Ok(());
        }
        let mut first = None;
        series.samples(|t, start, value| match self.sample(&series, &mut state, t, start, value) {
            Ok(reference) => {
                first.get_or_insert(reference);
                Ok(())
            }
            Err(error @ WriteError::Refused { .. }) => {
                if self.first_refusal.as_ref().is_none_or(|(first, _)| item < *first) {
                    self.first_refusal = Some((item, error));
                }
                Ok(())
            }
            Err(error) => Err(error),
        })?;
        let Some(reference) = first else {
            self.refused.push(item);
            return Ok(());
        };
        if known != Some(reference) {
            self.learned.push((item, reference));
        }
        if self.scanned.items[item as usize].simple && known.is_none() {
            // Named anew: its turn for exemplars may come with another reference, which is gone.
            self.refused.push(item);
        }
        self.extras(&series, reference)
    }

    /// Appends the exemplars of a series, and what its metric is.
    fn extras(&mut self, series: &S, reference: SeriesRef) -> Result<(), WriteError> {
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
        Ok(())
    }

    fn sample(
        &mut self,
        series: &S,
        state: &mut SeriesState,
        t: i64,
        start: Option<i64>,
        value: SampleValue,
    ) -> Result<SeriesRef, WriteError> {
        let is_float = matches!(value, SampleValue::Float(_));
        let value = match value {
            SampleValue::Float(v) => SampleValue::Float(present(v)),
            histogram => histogram,
        };
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
    fn resolve(&mut self, series: &S, state: &mut SeriesState) -> Result<bool, WriteError> {
        let valid = match series.label_pairs() {
            Ok(pairs) => valid_labels(&pairs),
            Err(DecodeError::Wire(WireError::InvalidUtf8(_))) => None,
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
pub(super) fn valid_labels(pairs: &[(&str, &str)]) -> Option<Labels> {
    let has_name = pairs.iter().any(|(name, value)| *name == METRIC_NAME && !value.is_empty());
    let names_filled = pairs.iter().all(|(name, _)| !name.is_empty());
    (has_name && names_filled && Labels::duplicate_name(pairs).is_none())
        .then(|| Labels::from_pairs(pairs.iter().copied()))
}

#[cfg(test)]
mod tests;
