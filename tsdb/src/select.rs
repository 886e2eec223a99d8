//! Selections over the head and blocks: which series there are, and the reading of one of them from all that have it.
//!
//! Selections of recent samples touch the head only and stay there: ids, and labels when they are asked for. Else the
//! sources' series, each list in order of labels, are joined by merging: neighbours in time mostly have the same series, and
//! then a step compares one string for each source. Labels are made in batches, on several threads when there are many; a
//! block whose labels cannot be read fails the selection, not somebody who asks for labels later and has no way to hear it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashSet;
use model::annotations::Annotations;
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::TimeRange;
use model::storage::{
    Interrupt, LabelHints, LabelList, Querier, SelectHints, SeriesColumns, SeriesSet, StorageError,
};
use rayon::prelude::*;

use crate::block::Block;
use crate::columns::Columns;
use crate::compact::rules::Floors;
use crate::compact::set::BlockList;
use crate::index::pace::Pace;
use crate::querier::{HeadQuerier, HeadSelection};

/// Labels made at a time for a source.
const BATCH: usize = 1024;
/// Series from which on several threads make labels.
const PARALLEL_MIN: usize = 2 * BATCH;
/// Blocks from which on several threads look for series.
const PARALLEL_BLOCKS_MIN: usize = 4;

/// A block, and the series of it that are wanted.
type Found = (Arc<Block>, Vec<u32>);

/// A view of a span of time over head and blocks.
#[derive(Debug)]
pub(crate) struct StoreQuerier {
    head: HeadQuerier,
    /// Those that overlap the range, in the order in which their samples count.
    blocks: Vec<Arc<Block>>,
    floors: Option<Arc<Floors>>,
    range: TimeRange,
}

impl StoreQuerier {
    /// `head` was opened before `list` was taken: what moves from one to the other meanwhile is in both rather than in
    /// neither.
    pub(crate) fn new(
        head: HeadQuerier,
        list: &BlockList,
        floors: Option<Arc<Floors>>,
        range: TimeRange,
    ) -> Self {
        Self { head, blocks: list.within(range), floors, range }
    }

    /// The blocks that may have samples in `range`, each with the series that it has of those wanted.
    fn select_blocks(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        interrupt: Option<&Interrupt>,
    ) -> Result<Vec<Found>, StorageError> {
        let within = |block: &&Arc<Block>| crate::compact::set::overlaps(block.meta(), range);
        let select = |block: &Arc<Block>| {
            let pace = Pace::new(interrupt);
            pace.look()?;
            Ok((Arc::clone(block), block.index().select_at(&pace, matchers)?))
        };
        let found: Result<Vec<_>, StorageError> = if self.blocks.len() < PARALLEL_BLOCKS_MIN {
            self.blocks.iter().filter(within).map(select).collect()
        } else {
            self.blocks.par_iter().filter(within).map(select).collect()
        };
        Ok(found?.into_iter().filter(|(_, series)| !series.is_empty()).collect())
    }

    /// Sorted lists as one.
    fn union(
        &self,
        of_head: LabelList,
        limit: usize,
        of_block: impl Fn(&Block) -> Result<Vec<String>, StorageError> + Sync,
    ) -> Result<LabelList, StorageError> {
        let mut lists = vec![of_head.items];
        let found: Result<Vec<_>, StorageError> = if self.blocks.len() < PARALLEL_BLOCKS_MIN {
            self.blocks.iter().map(|block| of_block(block)).collect()
        } else {
            self.blocks.par_iter().map(|block| of_block(block)).collect()
        };
        lists.extend(found?);
        lists.retain(|list| !list.is_empty());
        let mut items = match lists.len() {
            0 | 1 => lists.pop().unwrap_or_default(),
            _ => {
                let mut items: Vec<String> = lists.into_iter().flatten().collect();
                // Made of sorted runs, which is what this sort is good at.
                items.sort();
                items.dedup();
                items
            }
        };
        let truncated = of_head.truncated || limit > 0 && items.len() > limit;
        if limit > 0 {
            items.truncate(limit);
        }
        Ok(LabelList { items, truncated, annotations: Annotations::new() })
    }
}

impl Querier for StoreQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let wanted = hints.range.unwrap_or(self.range);
        let range = TimeRange::new(self.range.min.max(wanted.min), self.range.max.min(wanted.max));
        let interrupt = hints.interrupt.as_ref();
        let pace = Pace::new(interrupt);
        let blocks =
            if range.min <= range.max { self.select_blocks(matchers, range, interrupt)? } else { Vec::new() };
        // Joining needs the head's series in order of labels; then it is no use to cut them before.
        let head = if blocks.is_empty() {
            self.head.selection(matchers, range, hints.sorted, hints.limit, &pace)?
        } else {
            self.head.selection(matchers, range, true, 0, &pace)?
        };
        // What is kept how long is told by all labels.
        let only = hints.only_labels.clone().filter(|_| self.floors.is_none());
        let mut sources: Vec<Source> =
            blocks.into_iter().map(|(block, series)| Source::Block { block, series }).collect();
        if head.len() > 0 || sources.is_empty() {
            sources.push(Source::Head(head));
        }
        let rows = match &sources[..] {
            [Source::Head(_)] => None,
            _ => Some(join(&sources, hints.limit, only.as_deref(), &pace)?),
        };
        Ok(Box::new(Selection { sources, rows, only, range, floors: self.floors.clone() }))
    }

    fn label_names(&self, matchers: &[Matcher], hints: &LabelHints) -> Result<LabelList, StorageError> {
        let of_head = self.head.label_names(matchers, hints);
        self.union(of_head, hints.limit, |block| {
            if matchers.is_empty() {
                return Ok(block.index().label_names());
            }
            block.index().label_names_of(&block.index().select(matchers)?)
        })
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelHints,
    ) -> Result<LabelList, StorageError> {
        let of_head = self.head.label_values(name, matchers, hints);
        self.union(of_head, hints.limit, |block| {
            if matchers.is_empty() {
                return block.index().label_values(name);
            }
            block.index().label_values_of(name, &block.index().select(matchers)?)
        })
    }
}

/// Some series of one source, in order of labels unless it is the head alone.
#[derive(Debug)]
enum Source {
    Head(HeadSelection),
    Block { block: Arc<Block>, series: Vec<u32> },
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Self::Head(head) => head.len(),
            Self::Block { series, .. } => series.len(),
        }
    }

    fn labels(&self, places: Range<usize>) -> Result<Vec<Labels>, StorageError> {
        match self {
            Self::Head(head) => Ok(head.labels_of(places)),
            Self::Block { block, series } => block.index().labels_of(&series[places]),
        }
    }
}

/// Joined series: labels, and where each is.
#[derive(Debug, Default)]
struct Rows {
    labels: Vec<Labels>,
    /// Row `i` has the parts from `starts[i]` to the next row's.
    starts: Vec<u32>,
    parts: Vec<Part>,
}

/// A series in one of the sources.
#[derive(Clone, Copy, Debug)]
struct Part {
    source: u32,
    at: u32,
}

/// A source's labels on their way through the join.
struct Cursor<'a> {
    source: &'a Source,
    /// Place of the first of `ready`.
    at: usize,
    ready: VecDeque<Labels>,
}

impl Cursor<'_> {
    fn refill(&mut self) -> Result<(), StorageError> {
        let from = self.at + self.ready.len();
        let to = self.source.len().min(from + BATCH);
        self.ready.extend(self.source.labels(from..to)?);
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.at + self.ready.len() >= self.source.len()
    }
}

/// Label sets of rows, reduced to some labels; equal ones are mostly the same.
struct Reduced<'a> {
    only: &'a [String],
    known: HashSet<Labels>,
    last: Labels,
}

impl<'a> Reduced<'a> {
    /// Label sets that are remembered.
    const KNOWN_MAX: usize = 4096;

    fn new(only: &'a [String]) -> Self {
        Self { only, known: HashSet::new(), last: Labels::empty() }
    }

    fn of(&mut self, labels: &Labels) -> Labels {
        let wanted = |name: &str| self.only.iter().any(|own| own == name);
        if !labels.iter().filter(|(name, _)| wanted(name)).eq(self.last.iter()) {
            let labels = labels.filtered(wanted);
            if self.known.len() >= Self::KNOWN_MAX {
                self.known.clear();
            }
            self.last = self.known.get_or_insert(labels).clone();
        }
        self.last.clone()
    }
}

/// Joins sources by labels, in order of them; at most `limit` rows unless that is 0, and unless `pace` says to end. Rows have the
/// labels named in `only`, or all.
fn join(
    sources: &[Source],
    limit: usize,
    only: Option<&[String]>,
    pace: &Pace<'_>,
) -> Result<Rows, StorageError> {
    let mut reduced = only.map(Reduced::new);
    let mut cursors: Vec<Cursor<'_>> =
        sources.iter().map(|source| Cursor { source, at: 0, ready: VecDeque::new() }).collect();
    let many = sources.iter().map(Source::len).sum::<usize>() >= PARALLEL_MIN;
    let most = if limit == 0 { usize::MAX } else { limit };
    let mut rows = Rows::default();
    while rows.labels.len() < most {
        if cursors.iter().any(|cursor| cursor.ready.is_empty() && !cursor.is_whole()) {
            pace.look()?;
            // All that are running low together: they run at about the same speed.
            let low: Vec<&mut Cursor<'_>> = cursors
                .iter_mut()
                .filter(|cursor| cursor.ready.len() < BATCH / 2 && !cursor.is_whole())
                .collect();
            if many {
                low.into_par_iter().try_for_each(Cursor::refill)?;
            } else {
                low.into_iter().try_for_each(Cursor::refill)?;
            }
        }
        let mut least: Option<&Labels> = None;
        for labels in cursors.iter().filter_map(|cursor| cursor.ready.front()) {
            // Equality is one comparison of bytes, order a walk over pairs.
            if least.is_none_or(|least| labels != least && labels < least) {
                least = Some(labels);
            }
        }
        let Some(least) = least.cloned() else { break };
        rows.starts.push(place(rows.parts.len()));
        for (source, cursor) in cursors.iter_mut().enumerate() {
            if cursor.ready.front() == Some(&least) {
                cursor.ready.pop_front();
                rows.parts.push(Part { source: place(source), at: place(cursor.at) });
                cursor.at += 1;
            }
        }
        rows.labels.push(match &mut reduced {
            Some(reduced) => reduced.of(&least),
            None => least,
        });
    }
    Ok(rows)
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("invariant: sources number their series with 32 bits, and rows have few of them")
}

/// What was selected.
#[derive(Debug)]
struct Selection {
    sources: Vec<Source>,
    /// `None`: all series of the head, and no block has any.
    rows: Option<Rows>,
    /// The labels that anybody will look at.
    only: Option<Vec<String>>,
    range: TimeRange,
    floors: Option<Arc<Floors>>,
}

impl Selection {
    fn read_parts(
        &self,
        parts: &[Part],
        range: TimeRange,
        into: &mut SeriesColumns,
    ) -> Result<(), StorageError> {
        thread_local! {
            /// Memory for joining; what is in it is of no concern to the next reader.
            static SCRATCH: RefCell<Columns> = RefCell::default();
        }
        SCRATCH.with_borrow_mut(|columns| {
            columns.clear();
            for part in parts {
                let (at, seam) = (part.at as usize, columns.seam());
                match &self.sources[part.source as usize] {
                    Source::Block { block, series } => block.read(series[at], range, columns)?,
                    Source::Head(head) => head.read(at, range, columns)?,
                }
                columns.close_seam(seam);
            }
            columns.normalize();
            columns.hand_over(into);
            Ok(())
        })
    }
}

impl SeriesSet for Selection {
    fn len(&self) -> usize {
        match &self.rows {
            Some(rows) => rows.labels.len(),
            None => self.sources.iter().map(Source::len).sum(),
        }
    }

    fn labels(&self, index: usize) -> Labels {
        match &self.rows {
            Some(rows) => rows.labels[index].clone(),
            None => match &self.sources[0] {
                Source::Head(head) => head.labels(index),
                Source::Block { .. } => unreachable!("series of blocks are joined"),
            },
        }
    }

    fn labels_of(&self, range: Range<usize>) -> Vec<Labels> {
        match (&self.rows, &self.sources[0], &self.only) {
            (Some(rows), _, _) => rows.labels[range].to_vec(),
            (None, Source::Head(head), Some(only)) => head.some_labels_of(range, only),
            (None, source, _) => source.labels(range).expect("invariant: labels of the head are in memory"),
        }
    }

    fn read(&self, index: usize, into: &mut SeriesColumns) -> Result<(), StorageError> {
        let mut range = self.range;
        if let Some(floors) = &self.floors {
            range.min = range.min.max(floors.of(&self.labels(index)));
        }
        if range.min > range.max {
            into.clear();
            return Ok(());
        }
        match &self.rows {
            None => self.read_parts(&[Part { source: 0, at: place(index) }], range, into),
            Some(rows) => {
                let end = rows.starts.get(index + 1).map_or(rows.parts.len(), |end| *end as usize);
                self.read_parts(&rows.parts[rows.starts[index] as usize..end], range, into)
            }
        }
    }
}
