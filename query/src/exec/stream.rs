//! Streams of series: labels first, then one column per series, on demand and in any order, from any thread.

use std::sync::atomic::{AtomicUsize, Ordering};

use model::Labels;
use model::labels::METRIC_NAME;
use rayon::prelude::*;

use super::column::Column;
use super::error::QueryError;
use super::labels::{ENTRY_BYTES, LabelMap};
use super::state::{Scratch, State};
use super::steps::Steps;

/// Cells (series × steps) below which threads cost more than they bring.
const PARALLEL_CELLS_MIN: usize = 1 << 14;
/// Cells read ahead by one round of parallel reading: bounds the memory of the round. There are two at a time.
const ROUND_CELLS: usize = 1 << 17;
/// What a round may take of the memory of a query: one part in so many.
const ROUND_SHARE: u64 = 8;
/// Series of the first round; later ones grow while there are few histograms.
const ROUND_FIRST: usize = 64;
/// Bytes of histograms in a round from which on the next is shorter.
const ROUND_HISTOGRAM_BYTES: usize = 16 << 20;

/// A series of a stream, before any of its samples.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) labels: Labels,
    /// Whether the metric name is to be dropped at the end (delayed name removal only).
    pub(crate) drop_name: bool,
}

impl Head {
    pub(crate) fn new(labels: Labels) -> Self {
        Self { labels, drop_name: false }
    }
}

/// Gives the columns of a stream. Implementers must give the same column for the same index each time.
pub(crate) trait Source: Send + Sync {
    /// Replaces the content of `into` by series `index`, all steps of the stream.
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError>;
}

/// Series at common steps.
pub(crate) struct Stream<'q> {
    pub(crate) steps: Steps,
    pub(crate) heads: Vec<Head>,
    pub(crate) source: Box<dyn Source + 'q>,
}

impl<'q> Stream<'q> {
    pub(crate) fn new(steps: Steps, heads: Vec<Head>, source: impl Source + 'q) -> Self {
        Self { steps, heads, source: Box::new(source) }
    }

    pub(crate) fn empty(steps: Steps) -> Self {
        Self::new(steps, Vec::new(), Nothing)
    }

    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Reads all series and hands them to `fold` in order, whatever threads read them: results do not depend on their
    /// number.
    pub(crate) fn for_each(
        &self,
        state: &State<'_>,
        mut fold: impl FnMut(usize, &mut Column) -> Result<(), QueryError> + Send,
    ) -> Result<(), QueryError> {
        let cells = self.len().saturating_mul(self.steps.count.max(16));
        if self.len() < 2 || state.threads < 2 || cells < PARALLEL_CELLS_MIN {
            return state.with_scratch(|scratch| {
                let mut column = scratch.take_column(&state.limits, self.steps.count)?;
                for index in 0..self.len() {
                    state.limits.check()?;
                    self.source.read(index, &mut column, scratch)?;
                    // Histograms weigh for as long as the column has them; all else stays with the scratch.
                    let histograms = column.histogram_bytes();
                    state.limits.hold_bytes(histograms)?;
                    scratch.settle(&state.limits);
                    fold(index, &mut column)?;
                    state.limits.release_bytes(histograms);
                }
                scratch.give_column(column);
                Ok(())
            });
        }
        self.for_each_in_rounds(state, fold)
    }

    /// [`Stream::for_each`] with threads: columns are read in rounds, by all of them; one folds a round while the others read
    /// the next.
    fn for_each_in_rounds(
        &self,
        state: &State<'_>,
        mut fold: impl FnMut(usize, &mut Column) -> Result<(), QueryError> + Send,
    ) -> Result<(), QueryError> {
        let each = size_of::<Column>() + Column::bytes_of(self.steps.count);
        // A small part of what the query may hold: small limits are not for reading ahead.
        let affordable = usize::try_from(state.limits.bytes_max() / ROUND_SHARE).unwrap_or(usize::MAX) / each;
        let round_max = (ROUND_CELLS / self.steps.count.max(1)).min(affordable);
        let round_max = round_max.clamp(2 * state.threads, 1024).min(self.len());
        let mut reading = Round::new(state, round_max, each)?;
        let mut folding = Round::new(state, round_max, each)?;
        let mut size = round_max.min(ROUND_FIRST.max(2 * state.threads));
        reading.read(self, 0, size)?;
        while reading.len > 0 {
            state.limits.check()?;
            std::mem::swap(&mut reading, &mut folding);
            // How much histograms take is only known once they were read.
            size = match folding.histograms {
                0..ROUND_HISTOGRAM_BYTES => size.saturating_mul(4).min(round_max),
                _ => (size / 4).max(2 * state.threads).min(round_max),
            };
            let next = folding.first + folding.len;
            let (folded, read) = rayon::join(|| folding.fold(&mut fold), || reading.read(self, next, size));
            folded?;
            read?;
        }
        Ok(())
    }

    /// Whether two series could become equal by losing their names: not while all names are equal.
    pub(crate) fn has_one_name(&self) -> bool {
        let Some((first, rest)) = self.heads.split_first() else { return true };
        let name = first.labels.metric_name();
        rest.iter().all(|head| head.labels.get(METRIC_NAME).unwrap_or_default() == name)
    }

    /// Reads everything into memory.
    pub(crate) fn materialize(self, state: &'q State<'q>) -> Result<Table<'q>, QueryError> {
        let mut table = Table::new(state, self.steps);
        table.columns.reserve(self.len());
        self.for_each(state, |_, column| table.push(std::mem::take(column)))?;
        table.heads = self.heads;
        Ok(table)
    }

    /// Reads everything into memory if it takes at most so many bytes; else gives the stream back.
    pub(crate) fn materialize_within(
        self,
        state: &'q State<'q>,
        bytes_max: usize,
    ) -> Result<Result<Table<'q>, Self>, QueryError> {
        let mut table = Table::new(state, self.steps);
        let mut too_many = false;
        let outcome = self.for_each(state, |_, column| {
            table.push(std::mem::take(column))?;
            too_many = table.bytes > bytes_max;
            // Any error ends the reading.
            if too_many { Err(QueryError::canceled()) } else { Ok(()) }
        });
        if too_many {
            return Ok(Err(self));
        }
        outcome?;
        table.heads = self.heads;
        Ok(Ok(table))
    }

    /// Merges series with equal labels. Their steps must not meet; with `whole`, only one of them may have samples at
    /// all. Needed wherever labels were taken away.
    pub(crate) fn merge_equal(self, state: &'q State<'q>, whole: bool) -> Result<Self, QueryError> {
        // A name that is to be dropped does not make a series equal to one that keeps it.
        let mut first_of = [LabelMap::with_capacity(self.len()), LabelMap::with_capacity(0)];
        let mut groups: Vec<Vec<usize>> = Vec::with_capacity(self.len());
        let bytes = self.len().saturating_mul(ENTRY_BYTES + size_of::<Vec<usize>>() + 4 * size_of::<usize>());
        state.limits.hold_bytes(bytes)?;
        for (index, head) in self.heads.iter().enumerate() {
            super::eval::check_every(state, index)?;
            let first_of = &mut first_of[usize::from(head.drop_name)];
            let (group, is_new) = first_of.insert(&head.labels, groups.len());
            if is_new {
                groups.push(vec![index]);
            } else {
                groups[group].push(index);
            }
        }
        if groups.len() == self.len() {
            state.limits.release_bytes(bytes);
            return Ok(self);
        }
        state.limits.hold_bytes(groups.len() * (size_of::<Head>() + size_of::<Option<Column>>()))?;
        let heads = groups.iter().map(|group| self.heads[group[0]].clone()).collect();
        // A clash is an error whoever reads what afterwards, so it is looked for now.
        let mut ready: Vec<Option<Column>> = Vec::with_capacity(groups.len());
        for group in &groups {
            ready.push(if group.len() == 1 { None } else { Some(self.merged(state, group, whole)?) });
        }
        let steps = self.steps;
        let source = Merged { inner: self, groups, ready };
        Ok(Self::new(steps, heads, source))
    }

    fn merged(&self, state: &State<'_>, group: &[usize], whole: bool) -> Result<Column, QueryError> {
        state.with_scratch(|scratch| {
            // What is merged stays: it is counted for good.
            state.limits.hold_bytes(Column::bytes_of(self.steps.count))?;
            let mut merged = Column::default();
            merged.reset(self.steps.count);
            let mut column = scratch.take_column(&state.limits, self.steps.count)?;
            for &index in group {
                state.limits.check()?;
                self.source.read(index, &mut column, scratch)?;
                let both = whole && !merged.is_empty() && !column.is_empty();
                let clash = merged.merge(&column) || both;
                if clash {
                    return Err(QueryError::same_labels());
                }
            }
            scratch.give_column(column);
            state.limits.hold(merged.sample_size())?;
            state.limits.hold_bytes(merged.histogram_bytes())?;
            Ok(merged)
        })
    }
}

/// Columns that were read together.
struct Round<'s, 'q> {
    state: &'s State<'q>,
    /// The first series.
    first: usize,
    len: usize,
    columns: Vec<Column>,
    /// Bytes that the query's limits know of: of columns, and of the histograms in them.
    bytes: usize,
    histograms: usize,
}

impl<'s, 'q> Round<'s, 'q> {
    fn new(state: &'s State<'q>, len_max: usize, each: usize) -> Result<Self, QueryError> {
        let bytes = len_max.saturating_mul(each);
        state.limits.hold_bytes(bytes)?;
        let columns = std::iter::repeat_with(Column::default).take(len_max).collect();
        Ok(Self { state, first: 0, len: 0, columns, bytes, histograms: 0 })
    }

    /// Reads the series from `first` on, at most so many.
    fn read(&mut self, stream: &Stream<'_>, first: usize, len: usize) -> Result<(), QueryError> {
        let state = self.state;
        (self.first, self.len) = (first, len.min(stream.len() - first));
        let histograms = AtomicUsize::new(0);
        let part = self.columns[..self.len].par_iter_mut().enumerate();
        let read = part.with_min_len((len / (4 * state.threads)).max(1)).try_for_each(|(offset, column)| {
            state.limits.check()?;
            state.with_scratch(|scratch| stream.source.read(first + offset, column, scratch))?;
            let more = column.histogram_bytes();
            if more > 0 {
                histograms.fetch_add(more, Ordering::Relaxed);
                state.limits.hold_bytes(more)?;
            }
            Ok::<(), QueryError>(())
        });
        self.histograms = histograms.into_inner();
        read
    }

    fn fold(
        &mut self,
        mut fold: impl FnMut(usize, &mut Column) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let mut part = self.columns[..self.len].iter_mut().enumerate();
        let outcome = part.try_for_each(|(offset, column)| fold(self.first + offset, column));
        self.state.limits.release_bytes(std::mem::take(&mut self.histograms));
        outcome
    }
}

impl Drop for Round<'_, '_> {
    fn drop(&mut self) {
        self.state.limits.release_bytes(self.bytes + self.histograms);
    }
}

struct Nothing;

impl Source for Nothing {
    fn read(&self, _: usize, _: &mut Column, _: &mut Scratch) -> Result<(), QueryError> {
        unreachable!("an empty stream has no series to read")
    }
}

struct Merged<'q> {
    inner: Stream<'q>,
    groups: Vec<Vec<usize>>,
    ready: Vec<Option<Column>>,
}

impl Source for Merged<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        match &self.ready[index] {
            Some(column) => into.clone_from(column),
            None => self.inner.source.read(self.groups[index][0], into, scratch)?,
        }
        Ok(())
    }
}

/// Series held in memory.
pub(crate) struct Table<'q> {
    state: &'q State<'q>,
    pub(crate) steps: Steps,
    pub(crate) heads: Vec<Head>,
    pub(crate) columns: Vec<Column>,
    held: usize,
    bytes: usize,
}

impl<'q> Table<'q> {
    pub(crate) fn new(state: &'q State<'q>, steps: Steps) -> Self {
        Self { state, steps, heads: Vec::new(), columns: Vec::new(), held: 0, bytes: 0 }
    }

    /// Adds a column (its head is to be added as well).
    pub(crate) fn push(&mut self, column: Column) -> Result<(), QueryError> {
        let (size, bytes) = (column.sample_size(), size_of::<Column>() + column.bytes());
        self.held += size;
        self.bytes += bytes;
        self.columns.push(column);
        self.state.limits.hold(size)?;
        self.state.limits.hold_bytes(bytes)
    }

    /// Adds a series.
    pub(crate) fn push_series(&mut self, head: Head, column: Column) -> Result<(), QueryError> {
        self.heads.push(head);
        self.push(column)
    }

    /// What is in it, which counts for as long as the query runs.
    pub(crate) fn into_parts(mut self) -> (Vec<Head>, Vec<Column>) {
        (self.held, self.bytes) = (0, 0);
        (std::mem::take(&mut self.heads), std::mem::take(&mut self.columns))
    }

    pub(crate) fn into_stream(mut self) -> Stream<'q> {
        let heads = std::mem::take(&mut self.heads);
        Stream::new(self.steps, heads, self)
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        self.state.limits.release(self.held);
        self.state.limits.release_bytes(self.bytes);
    }
}

impl Source for Table<'_> {
    fn read(&self, index: usize, into: &mut Column, _: &mut Scratch) -> Result<(), QueryError> {
        into.clone_from(&self.columns[index]);
        Ok(())
    }
}
