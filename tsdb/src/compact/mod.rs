//! Compaction: from the head to blocks, from blocks to larger ones, and what is too old to nowhere.
//!
//! [`Db::compact`] does what is due, on a thread that the owner of the store gives for it; [`crate::maintain`] goes on beside
//! it on another one, and so do appends and queries. One compaction runs at a time. In this order:
//!
//! 1. blocks that somebody dropped into the directory are found (once a minute);
//! 2. blocks that retention has passed go, by time, then by size;
//! 3. the oldest span of the head becomes a block as long as the head spans more than one and a half
//!    ([`head_blocks`]), out-of-order samples of spans that are blocks already become blocks that overlap them;
//! 4. one merge of blocks ([`plan`], [`merge`]), or one block is rewritten because retention rules cut much of it; then back
//!    to 3, so that the head never waits for more than one merge.
//!
//! # What a crash leaves
//! A block appears by the renaming of its directory; only then is the head truncated, or are its parents taken out of the
//! list and removed. Between the two, samples are stored twice and read once: queries join by time. A start finds the
//! parents named in the block and removes them; a span of the head that is a block already becomes one a second time and is
//! merged with the first.
//!
//! # When something fails
//! Nothing has changed then: an unfinished block is removed, and finished ones of the same round with it; sources stay. A panic
//! is a failure like others, and counted. A block that cannot be read is left out of merges
//! for a time that doubles; other failures (a full disk) put off all merges, or blocks from the head, likewise. Appends
//! do not notice.

pub(crate) mod admin;
mod head_blocks;
pub(crate) mod merge;
pub(crate) mod plan;
mod progress;
mod retention;
pub(crate) mod rules;
pub(crate) mod set;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use model::labels::Labels;
use model::sample::Timestamp;
use model::storage::StorageError;
use parking_lot::{Mutex, MutexGuard};
use ulid::Ulid;

use crate::block::{Block, BlockMeta, BlockOptions, BlockParent, BlockScan, BlockWriter, Made};
use crate::columns::Columns;
use crate::db::{Db, millis};
use crate::maintain::is_due;
use merge::{Source, merge};
use plan::{PlanBlock, Reason, level_ranges, plan};
use progress::Progress;
use rules::Floors;
use set::in_order_of_age_where_they_overlap;

/// How often the directory is looked at for blocks of others.
const RESCAN_INTERVAL_MS: i64 = 60_000;
/// First wait after a failure; it doubles.
const RETRY_MS: i64 = 10_000;
/// Longest wait after failures.
const RETRY_MAX_MS: i64 = 15 * 60_000;
/// Longest span of a block, as in Prometheus.
const BLOCK_MS_MAX: i64 = 31 * 24 * 3_600_000;
/// How often merges give way to an operator in a row; then the operator waits, so that merges come to an end.
const INTERRUPTIONS_MAX: u32 = 3;

/// Whether to go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cancel<'a> {
    closing: Option<&'a AtomicBool>,
    waiting: Option<&'a AtomicU32>,
}

impl<'a> Cancel<'a> {
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self { closing: None, waiting: None }
    }

    #[cfg(test)]
    pub(crate) fn on(closing: &'a AtomicBool) -> Self {
        Self { closing: Some(closing), waiting: None }
    }

    /// # Errors
    /// [`StorageError::Cancelled`].
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let closing = self.closing.is_some_and(|closing| closing.load(Ordering::Relaxed));
        let waiting = self.waiting.is_some_and(|waiting| waiting.load(Ordering::Relaxed) > 0);
        if closing || waiting { Err(StorageError::Cancelled) } else { Ok(()) }
    }
}

/// What makes compactions one at a time.
#[derive(Debug)]
pub(crate) struct Compaction {
    state: Mutex<State>,
    closing: AtomicBool,
    /// Operators that wait for the lock: merges give way.
    waiting: AtomicU32,
}

/// What compactions remember from one to the next.
#[derive(Debug)]
pub(crate) struct State {
    ids: Ids,
    head: Backoff,
    merges: Backoff,
    /// Blocks that could not be read.
    failed: HashMap<Ulid, Backoff>,
    /// When blocks were rewritten for rules.
    rewritten: HashMap<Ulid, Timestamp>,
    last_rescan: Option<Timestamp>,
    last_rules: Option<Timestamp>,
    /// When out-of-order samples became blocks, and how many had been appended by then.
    last_out_of_order: Option<(Timestamp, u64)>,
    interruptions: u32,
}

impl Compaction {
    pub(crate) fn new() -> Self {
        let state = State {
            ids: Ids::new(),
            head: Backoff::default(),
            merges: Backoff::default(),
            failed: HashMap::new(),
            rewritten: HashMap::new(),
            last_rescan: None,
            last_rules: None,
            last_out_of_order: None,
            interruptions: 0,
        };
        Self { state: Mutex::new(state), closing: AtomicBool::new(false), waiting: AtomicU32::new(0) }
    }

    /// Ends what is going on, soon, and lets nothing begin.
    pub(crate) fn stop(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// As [`Compaction::stop`]; waits for the end.
    pub(crate) fn close(&self) {
        self.stop();
        drop(self.state.lock());
    }

    /// Waits for what is going on; merges give way.
    pub(crate) fn take(&self) -> Result<MutexGuard<'_, State>, StorageError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.closing.load(Ordering::Relaxed) {
            return Err(StorageError::NotReady("it is closed"));
        }
        Ok(state)
    }

    /// For what must come to an end unless the store is closed.
    pub(crate) fn patient(&self) -> Cancel<'_> {
        Cancel { closing: Some(&self.closing), waiting: None }
    }

    fn giving_way(&self, state: &State) -> Cancel<'_> {
        let waiting = (state.interruptions < INTERRUPTIONS_MAX).then_some(&self.waiting);
        Cancel { closing: Some(&self.closing), waiting }
    }
}

/// Gives ids to blocks: each greater than all before, also when the clock jumps back.
#[derive(Debug)]
struct Ids {
    last: Ulid,
    random: RandomState,
}

impl Ids {
    fn new() -> Self {
        Self { last: Ulid::nil(), random: RandomState::new() }
    }

    /// An id greater than `above` and than those given so far.
    fn next(&mut self, now: Timestamp, above: Option<Ulid>) -> Ulid {
        let last = self.last.max(above.unwrap_or(Ulid::nil()));
        let random = |salt: u8| u128::from(self.random.hash_one((salt, now, last.0)));
        let fresh = Ulid::from_parts(u64::try_from(now).unwrap_or(0), random(0) << 64 | random(1));
        // Of the same or an earlier millisecond: the next number.
        self.last = if fresh > last { fresh } else { last.increment().unwrap_or_else(|past| past) };
        self.last
    }
}

/// Puts off what has failed.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    at: Timestamp,
    cause: String,
}

impl Backoff {
    fn is_due(&self, now: Timestamp) -> bool {
        let wait = RETRY_MS.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(RETRY_MAX_MS);
        // A clock that jumped back makes it due as well.
        self.failures == 0 || now < self.at || now.saturating_sub(self.at) >= wait
    }

    /// Notes a failure; whether it is another than the last.
    fn failed(&mut self, now: Timestamp, error: &StorageError) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.at = now;
        let cause = error.to_string();
        let is_new = self.cause != cause;
        self.cause = cause;
        is_new
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }
}

impl Source for BlockScan<'_> {
    fn next(&mut self, labels: &mut Labels, columns: &mut Columns) -> Result<bool, StorageError> {
        Self::next(self, labels, columns)
    }

    fn left(&self) -> u64 {
        Self::left(self)
    }
}

/// A block to be written.
pub(crate) struct Target<'a> {
    /// In which directory.
    pub(crate) dir: &'a Path,
    pub(crate) id: Ulid,
    pub(crate) made: Made,
}

impl Db {
    /// Does what is due at `now` (milliseconds since the epoch) about blocks; see the crate's document. Call it every few
    /// seconds from a thread of its own: it may take minutes. [`Db::close`] ends it soon.
    ///
    /// # Errors
    /// When something failed, the first failure: nothing is lost, it is tried again later. It has been logged, once for each
    /// cause.
    pub fn compact(&self, now: Timestamp) -> Result<(), StorageError> {
        let mut state = self.compaction.state.lock();
        if self.compaction.patient().check().is_err() {
            return Ok(());
        }
        let result = self.caught(|| {
            let result = self.compact_all(&mut state, now);
            self.blocks.remove_retired();
            self.blocks.show_cache();
            result
        });
        match result {
            Err(StorageError::Cancelled) => Ok(()),
            result => result,
        }
    }

    fn compact_all(&self, state: &mut State, now: Timestamp) -> Result<(), StorageError> {
        let mut first = Ok(());
        let mut keep = |result: Result<bool, StorageError>| match result {
            Ok(more) => Ok(more),
            Err(StorageError::Cancelled) => Err(StorageError::Cancelled),
            Err(error) => {
                if first.is_ok() {
                    first = Err(error);
                }
                Ok(false)
            }
        };
        if is_due(state.last_rescan, now, RESCAN_INTERVAL_MS) {
            state.last_rescan = Some(now);
            keep(self.blocks.rescan().map(|()| false))?;
        }
        self.apply_retention(now);
        loop {
            keep(self.compact_head(state, now))?;
            if !keep(self.compact_blocks(state, now))? {
                break;
            }
        }
        self.apply_retention(now);
        first
    }

    /// What `step` says, or that it panicked: the thread must live on, and other steps with it. No lock is left poisoned, and
    /// unfinished blocks are removed on the way.
    fn caught<T>(&self, step: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
        // What it had at hand is used no more, but for the state of compactions, which is true at any time.
        std::panic::catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(panic = text, "compaction panicked, which is a bug: the blocks stay as they are");
            self.metrics.compactions_panicked.inc();
            let source = std::io::Error::other(text);
            Err(StorageError::Io { what: "compaction panicked", path: self.blocks.dir().to_owned(), source })
        })
    }

    /// One merge, if any is due; whether there may be more.
    fn compact_blocks(&self, state: &mut State, now: Timestamp) -> Result<bool, StorageError> {
        if !state.merges.is_due(now) {
            return Ok(false);
        }
        let Some((reason, blocks)) = self.next_merge(state, now) else { return Ok(false) };
        self.metrics.compactions_triggered.inc();
        let cancel = self.compaction.giving_way(state);
        let result = self.caught(|| self.rewrite(state, &blocks, reason, &cancel));
        match result {
            Ok(written) => {
                state.interruptions = 0;
                state.merges.succeeded();
                blocks.iter().for_each(|block| {
                    state.failed.remove(&block.meta().ulid);
                    state.rewritten.remove(&block.meta().ulid);
                });
                if let Some(written) = written {
                    state.rewritten.insert(written, now);
                }
                Ok(true)
            }
            Err(StorageError::Cancelled) => {
                state.interruptions += 1;
                Err(StorageError::Cancelled)
            }
            Err(error) => {
                self.metrics.compactions_failed.inc();
                let culprit = blocks
                    .iter()
                    .find(|block| concerns(&error, &self.blocks.dir().join(block.meta().ulid.to_string())));
                let backoff = match culprit {
                    Some(block) => state.failed.entry(block.meta().ulid).or_default(),
                    None => &mut state.merges,
                };
                if backoff.failed(now, &error) {
                    let ids: Vec<String> = blocks.iter().map(|block| block.meta().ulid.to_string()).collect();
                    tracing::error!(%error, blocks = ?ids, reason, "compaction failed: the blocks stay as they are, it is tried again");
                }
                Err(error)
            }
        }
    }

    fn next_merge(&self, state: &mut State, now: Timestamp) -> Option<(&'static str, Vec<Arc<Block>>)> {
        let list = self.blocks.current();
        let planned: Vec<PlanBlock> = list
            .iter()
            .map(|block| {
                let meta = block.meta();
                PlanBlock {
                    id: meta.ulid,
                    min: meta.min_time,
                    max: meta.max_time,
                    series: meta.stats.num_series,
                    tombstones: block.tombstones().len() as u64,
                    failed: state.failed.get(&meta.ulid).is_some_and(|failed| !failed.is_due(now)),
                }
            })
            .collect();
        if let Some(plan) = plan(&planned, &self.level_ranges()) {
            let blocks: Vec<_> = plan.blocks.iter().filter_map(|id| list.get(*id).cloned()).collect();
            if plan.reason == Reason::Overlap {
                self.metrics.vertical_compactions.inc();
            }
            return Some((plan.reason.as_str(), blocks));
        }
        self.next_cut(state, &list, now).map(|block| ("retention rules", vec![block]))
    }

    pub(crate) fn level_ranges(&self) -> Vec<i64> {
        let retention_ms = millis(self.retention().time);
        let tenth = if retention_ms > 0 { retention_ms / 10 } else { i64::MAX };
        let max = self.options.block_duration_max.map_or_else(|| tenth.min(BLOCK_MS_MAX), millis);
        level_ranges(self.block_ms(), max)
    }

    /// Span of the blocks that come from the head.
    pub(crate) fn block_ms(&self) -> i64 {
        millis(self.options.block_duration_min).max(1)
    }

    /// Makes one block of several, or of one without what is deleted or too old, and lets it take their place. `None` when
    /// nothing is left.
    pub(crate) fn rewrite(
        &self,
        state: &mut State,
        blocks: &[Arc<Block>],
        reason: &'static str,
        cancel: &Cancel<'_>,
    ) -> Result<Option<Ulid>, StorageError> {
        let metas = || blocks.iter().map(|block| block.meta());
        let level =
            metas().map(|meta| meta.compaction.level).max().unwrap_or(1) + u32::from(blocks.len() > 1);
        let sources: BTreeSet<Ulid> =
            metas().flat_map(|meta| meta.compaction.sources.iter().copied()).collect();
        let parents = metas().map(|meta| BlockParent {
            ulid: meta.ulid,
            min_time: meta.min_time,
            max_time: meta.max_time,
        });
        let made = Made {
            min_time: metas().map(|meta| meta.min_time).min().unwrap_or(0),
            max_time: metas().map(|meta| meta.max_time).max().unwrap_or(0),
            level,
            sources: sources.into_iter().collect(),
            parents: parents.collect(),
            hints: Vec::new(),
        };
        let ordered = in_order_of_age_where_they_overlap(blocks.to_vec());
        let scans: Vec<BlockScan<'_>> = ordered.iter().map(|block| block.scan()).collect();
        let id = self.next_id(state);
        let target = Target { dir: self.blocks.dir(), id, made };
        let written = self.write_block(target, scans, reason, cancel);
        // It may have its name already when the last step fails.
        let written = written.inspect_err(|_| self.blocks.give_up(id))?;
        let gone: Vec<Ulid> = metas().map(|meta| meta.ulid).collect();
        self.blocks.replace(written.as_ref(), &gone)?;
        Ok(written.map(|meta| meta.ulid))
    }

    pub(crate) fn next_id(&self, state: &mut State) -> Ulid {
        state.ids.next(self.clock.now_ms(), self.blocks.newest_id())
    }

    /// Writes what `sources` hold, above its floors, as one block. `None`: there was nothing.
    pub(crate) fn write_block<S: Source>(
        &self,
        target: Target<'_>,
        sources: Vec<S>,
        reason: &'static str,
        cancel: &Cancel<'_>,
    ) -> Result<Option<BlockMeta>, StorageError> {
        let start = self.clock.now_ms();
        let Target { dir, id, made } = target;
        let (level, span) = (made.level, made.max_time.saturating_sub(made.min_time));
        let floors = self.floors.load_full();
        let none = Floors::none();
        let mut writer = BlockWriter::create(&self.fs, dir, id, BlockOptions::for_level(level))?;
        let series = sources.iter().map(Source::left).sum();
        let mut progress = Progress::begin(&*self.clock, &self.metrics.compaction_progress, reason, series);
        let left = |left| _ = progress.left(left);
        let dropped = merge(sources, floors.as_deref().unwrap_or(&none), cancel, left, |labels, columns| {
            writer.add(labels, columns)
        })?;
        cancel.check()?;
        let written = writer.finish(made)?;
        let took = self.clock.now_ms().saturating_sub(start).max(0);
        self.metrics.compactions.inc();
        self.metrics.duplicates_dropped.inc_by(dropped);
        self.metrics.compaction_duration.observe(took as f64 / 1000.0);
        let Some(meta) = &written else {
            tracing::info!(reason, level, "compaction left nothing to be stored");
            return Ok(written);
        };
        let chunks = meta.stats.num_chunks.max(1) as f64;
        self.metrics.compaction_chunk_samples.observe(meta.stats.num_samples as f64 / chunks);
        self.metrics
            .compaction_chunk_range
            .observe(span as f64 / 1000.0 * meta.stats.num_series as f64 / chunks);
        tracing::info!(
            block = %meta.ulid, reason, level, min_time = meta.min_time, max_time = meta.max_time,
            series = meta.stats.num_series, samples = meta.stats.num_samples, took_ms = took, "block written"
        );
        Ok(written)
    }
}

/// Whether an error is about a file in `dir`.
fn concerns(error: &StorageError, dir: &Path) -> bool {
    match error {
        StorageError::Corrupted { file, .. } => file.starts_with(dir),
        StorageError::Io { path, .. } => path.starts_with(dir),
        _ => false,
    }
}
