//! The blocks there are: found at start, published and taken out while running, removed when nobody reads them any more.
//!
//! Readers take the list as it is ([`BlockSet::current`]) and keep its blocks open; changes make a new list, one at a time.
//!
//! # Directories
//! `<ULID>` is a block; `<ULID>.tmp` was being written, `<ULID>.deleting` removed, when something ended the process. A
//! block names the blocks that it replaces (its parents): where both are found, a crash came between the appearance of one
//! and the removal of the others, and the parents go. So do blocks all of whose sources another one has: they are what
//! parents were made of. A block that cannot be opened stays where it is, is named in the log, counted, and tried again from
//! time to time: the rest of the store works without it, its parents stay too.
//!
//! A block that is taken out is removed at once, whoever reads it: open files stay readable. Waiting for readers would let
//! it outlive the block that names it as its parent, and a start would take it for one that counts, with all that has been
//! deleted from its successors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;
use parking_lot::Mutex;
use ulid::Ulid;

use crate::block::{Block, BlockMeta, TEMPORARY_SUFFIX, parse_id};
use crate::cache::BlockCache;
use crate::fs::FileSystem;
use crate::metrics::Metrics;
use crate::wal::io_error;

/// Ending of directories being removed.
const DELETING: &str = ".deleting";

/// Whose samples were first: where several blocks have one for the same time, that of the lowest stays.
pub(crate) fn age(meta: &BlockMeta) -> Ulid {
    meta.compaction.sources.iter().copied().min().unwrap_or(meta.ulid)
}

/// Whether a block may have samples within `range`.
pub(crate) fn overlaps(meta: &BlockMeta, range: TimeRange) -> bool {
    meta.min_time <= range.max && range.min < meta.max_time
}

/// Whether all that `old` holds went into `new`, over however many merges.
fn holds_all_of(new: &BlockMeta, old: &BlockMeta) -> bool {
    let (all, some) = (&new.compaction.sources, &old.compaction.sources);
    // Rewritten blocks have the sources of the block that they were; ids ascend.
    let later = all.len() > some.len() || all.len() == some.len() && new.ulid > old.ulid;
    later
        && new.min_time <= old.min_time
        && old.max_time <= new.max_time
        && !some.is_empty()
        && some.iter().all(|source| all.contains(source))
}

/// Blocks in order of time.
#[derive(Debug, Default)]
pub(crate) struct BlockList {
    blocks: Vec<Arc<Block>>,
}

impl BlockList {
    fn new(mut blocks: Vec<Arc<Block>>) -> Self {
        let key = |block: &Arc<Block>| (block.meta().min_time, block.meta().max_time, block.meta().ulid);
        blocks.sort_unstable_by_key(key);
        Self { blocks }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Block>> {
        self.blocks.iter()
    }

    /// Those that may have samples within `range`, the samples of which are to be taken in this order.
    pub(crate) fn within(&self, range: TimeRange) -> Vec<Arc<Block>> {
        let found = self.blocks.iter().filter(|block| overlaps(block.meta(), range));
        in_order_of_age_where_they_overlap(found.cloned().collect())
    }

    pub(crate) fn get(&self, id: Ulid) -> Option<&Arc<Block>> {
        self.blocks.iter().find(|block| block.meta().ulid == id)
    }

    /// From the first to the last sample that may be there.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        let min = self.blocks.iter().map(|block| block.meta().min_time).min()?;
        let max = self.blocks.iter().map(|block| block.meta().max_time).max()?;
        Some(TimeRange::new(min, max.saturating_sub(1)))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.size_bytes()).sum()
    }
}

/// In order of time samples need no sorting when they are joined, and where nothing overlaps no age counts.
pub(crate) fn in_order_of_age_where_they_overlap(mut blocks: Vec<Arc<Block>>) -> Vec<Arc<Block>> {
    blocks.sort_by_key(|block| (block.meta().min_time, block.meta().ulid));
    let mut end = Timestamp::MIN;
    let apart = blocks.iter().all(|block| {
        let apart = block.meta().min_time >= end;
        end = block.meta().max_time;
        apart
    });
    if !apart {
        blocks.sort_by_key(|block| (age(block.meta()), block.meta().ulid));
    }
    blocks
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BlockSet {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    cache: Arc<BlockCache>,
    metrics: Arc<Metrics>,
    list: ArcSwap<BlockList>,
    /// Held while the list is changed.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What could not be opened, and why.
    unreadable: BTreeMap<Ulid, String>,
    /// Not to be listed, and still on disk under the names of blocks: their removal failed and is tried again.
    doomed: BTreeSet<Ulid>,
    /// The greatest id seen so far, in the list or as a name on disk, be it that of an unfinished block.
    newest: Option<Ulid>,
    /// Directories set aside that could not be removed, or not yet; some may be gone.
    left_over: BTreeSet<String>,
}

impl BlockSet {
    /// Finds the blocks in `dir`, after removing what crashes left behind.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        cache: Arc<BlockCache>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StorageError> {
        let set = Self { fs, dir, cache, metrics, list: ArcSwap::default(), state: Mutex::default() };
        let names = set.fs.list_dirs(&set.dir).map_err(io_error("list data directory", &set.dir))?;
        // Also of what is removed now: the removal may not last.
        set.state.lock().newest = names.iter().filter_map(|name| any_id(name)).max();
        let unfinished = names
            .iter()
            .filter(|name| is_unfinished(name, TEMPORARY_SUFFIX) || is_unfinished(name, DELETING));
        set.remove_aside(&mut set.state.lock(), unfinished.cloned().collect());
        // Losses of power may leave the shell of a block. While running, it may be a copy that has just begun.
        for name in names.iter().filter(|name| parse_id(name).is_some() && set.is_shell(&set.dir.join(name)))
        {
            set.remove_dir(name);
        }
        set.rescan()?;
        Ok(set)
    }

    /// Whether there is no file in a directory, nor in those in it.
    fn is_shell(&self, dir: &Path) -> bool {
        let no_files = self.fs.list(dir).is_ok_and(|files| files.is_empty());
        no_files
            && self.fs.list_dirs(dir).is_ok_and(|dirs| dirs.iter().all(|name| self.is_shell(&dir.join(name))))
    }

    /// The blocks as of now.
    pub(crate) fn current(&self) -> Arc<BlockList> {
        self.list.load_full()
    }

    /// The greatest id that was ever seen: others must be greater.
    pub(crate) fn newest_id(&self) -> Option<Ulid> {
        self.state.lock().newest
    }

    /// Brings the metrics of the cache up to date.
    pub(crate) fn show_cache(&self) {
        self.metrics.block_cache.show(self.cache.stats());
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Looks for blocks that somebody dropped into the directory, or took from it.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(crate) fn rescan(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        self.metrics.reloads.inc();
        let names = self.fs.list_dirs(&self.dir).map_err(io_error("list data directory", &self.dir));
        let names = names.inspect_err(|_| self.metrics.reloads_failed.inc())?;
        let left_over = std::mem::take(&mut state.left_over).into_iter().filter(|name| names.contains(name));
        self.remove_aside(&mut state, left_over.collect());
        state.newest = names.iter().filter_map(|name| any_id(name)).max().max(state.newest);
        let found: BTreeSet<Ulid> = names.iter().filter_map(|name| parse_id(name)).collect();
        let list = self.list.load_full();
        let mut blocks = Vec::new();
        for block in list.iter() {
            if found.contains(&block.meta().ulid) {
                blocks.push(Arc::clone(block));
            } else {
                tracing::warn!(block = %block.meta().ulid, "block has gone from the data directory");
            }
        }
        let before = blocks.len();
        state.unreadable.retain(|id, _| found.contains(id));
        state.doomed.retain(|id| found.contains(id));
        for id in found.iter().filter(|id| list.get(**id).is_none()) {
            if !state.doomed.contains(id) {
                blocks.extend(self.open_block(&mut state, *id));
            }
        }
        let changed = blocks.len() != before || before != list.blocks.len();
        if !state.unreadable.is_empty() {
            self.metrics.reloads_failed.inc();
        }
        self.metrics.blocks_unreadable.set(state.unreadable.len() as i64);
        if changed {
            self.remove_replaced(&mut state, &mut blocks);
            self.publish(blocks);
        }
        Ok(())
    }

    fn open_block(&self, state: &mut State, id: Ulid) -> Option<Arc<Block>> {
        match Block::open(&self.fs, &self.dir.join(id.to_string()), &self.cache) {
            Ok(block) => {
                if state.unreadable.remove(&id).is_some() {
                    tracing::info!(block = %id, "block can be read again");
                }
                Some(Arc::new(block))
            }
            Err(error) => {
                let text = error.to_string();
                if state.unreadable.get(&id) != Some(&text) {
                    tracing::error!(block = %id, %error, "block cannot be opened: going on without it, it stays in place");
                }
                state.unreadable.insert(id, text);
                None
            }
        }
    }

    /// Takes out blocks that others replace.
    fn remove_replaced(&self, state: &mut State, blocks: &mut Vec<Arc<Block>>) {
        let parents = |block: &Arc<Block>| {
            block.meta().compaction.parents.iter().map(|parent| parent.ulid).collect::<Vec<_>>()
        };
        let mut replaced: BTreeSet<Ulid> = blocks.iter().flat_map(parents).collect();
        let has_successor = |old: &&Arc<Block>| blocks.iter().any(|new| holds_all_of(new.meta(), old.meta()));
        replaced.extend(blocks.iter().filter(has_successor).map(|block| block.meta().ulid));
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(blocks)
            .into_iter()
            .partition(|block: &Arc<Block>| replaced.contains(&block.meta().ulid));
        *blocks = kept;
        for block in gone {
            self.discard(state, block.meta().ulid);
        }
        // Replaced ones that cannot be opened are of no use to anybody either.
        let unreadable: Vec<Ulid> =
            state.unreadable.keys().filter(|id| replaced.contains(id)).copied().collect();
        for id in unreadable {
            state.unreadable.remove(&id);
            self.discard(state, id);
        }
        self.metrics.blocks_unreadable.set(state.unreadable.len() as i64);
    }

    fn publish(&self, blocks: Vec<Arc<Block>>) {
        let list = BlockList::new(blocks);
        self.metrics.blocks_loaded.set(list.blocks.len() as i64);
        self.metrics.blocks_bytes.set(list.bytes().cast_signed());
        self.metrics.lowest_timestamp.set_of_blocks(list.range().map(|range| range.min));
        self.list.store(Arc::new(list));
    }

    /// Opens a block that was just written (or takes none), and lets it take the place of `gone`, which are removed.
    ///
    /// # Errors
    /// When it cannot be opened: it is removed then, and nothing has changed. Left where it is, it would be found later,
    /// without what has been deleted from `gone` meanwhile.
    pub(crate) fn replace(&self, written: Option<&BlockMeta>, gone: &[Ulid]) -> Result<(), StorageError> {
        let added = written.map(|meta| {
            Block::open(&self.fs, &self.dir.join(meta.ulid.to_string()), &self.cache).map(Arc::new)
        });
        let added = added.transpose().inspect_err(|_| {
            written.iter().for_each(|meta| self.give_up(meta.ulid));
        })?;
        if let Some(block) = &added {
            let chunks = block.meta().stats.num_chunks.max(1);
            self.metrics.compaction_chunk_bytes.observe(block.size_bytes() as f64 / chunks as f64);
        }
        let mut state = self.state.lock();
        let list = self.list.load_full();
        let (retired, mut kept): (Vec<_>, Vec<_>) =
            list.blocks.iter().cloned().partition(|block| gone.contains(&block.meta().ulid));
        kept.extend(added);
        self.publish(kept);
        for block in retired {
            self.discard(&mut state, block.meta().ulid);
        }
        Ok(())
    }

    /// Removes what may be on disk of a block that could not be finished, or not be opened.
    pub(crate) fn give_up(&self, id: Ulid) {
        self.discard(&mut self.state.lock(), id);
    }

    /// Tries again to remove blocks that are out of the list.
    pub(crate) fn remove_retired(&self) {
        let mut state = self.state.lock();
        for id in std::mem::take(&mut state.doomed) {
            self.discard(&mut state, id);
        }
    }

    /// What deletions do not reach, with the reasons: blocks that cannot be opened, and what could not be removed.
    pub(crate) fn out_of_reach(&self) -> Vec<String> {
        let state = self.state.lock();
        let unreadable = state.unreadable.iter().map(|(id, why)| format!("{id} ({why})"));
        unreadable.chain(state.doomed.iter().map(|id| format!("{id} (cannot be removed)"))).collect()
    }

    /// Removes a block's directory; what cannot be removed now is tried again later.
    fn discard(&self, state: &mut State, id: Ulid) {
        let (name, aside) = (id.to_string(), format!("{id}{DELETING}"));
        // Under another name first: half a directory must not look like a block.
        match self.fs.rename(&self.dir.join(&name), &self.dir.join(&aside)) {
            Ok(()) => self.remove_aside(state, vec![aside]),
            // One that could not be finished may have been left under its first name.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                state.left_over.insert(format!("{id}{TEMPORARY_SUFFIX}"));
            }
            Err(error) => {
                tracing::warn!(block = %id, %error, "block could not be removed; it is tried again");
                state.doomed.insert(id);
            }
        }
    }

    /// Removes directories that have names of no block. What such a directory has goes when its name is durable: should power be lost
    /// before, it has the name of a block again, and must be whole.
    fn remove_aside(&self, state: &mut State, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        if let Err(error) = self.fs.sync_dir(&self.dir) {
            tracing::warn!(%error, "left-over directories stay until their names are durable; it is tried again");
            state.left_over.extend(names);
            return;
        }
        for name in names {
            if !self.remove_dir(&name) {
                state.left_over.insert(name);
            }
        }
    }

    fn remove_dir(&self, name: &str) -> bool {
        let removed = self.fs.remove_dir_all(&self.dir.join(name));
        if let Err(error) = &removed {
            tracing::warn!(directory = name, %error, "left-over directory could not be removed; it is tried again");
        }
        removed.is_ok()
    }
}

/// The id of a block, whole or not.
fn any_id(name: &str) -> Option<Ulid> {
    parse_id(name.split('.').next().unwrap_or_default())
}

fn is_unfinished(name: &str, ending: &str) -> bool {
    name.strip_suffix(ending).is_some_and(|id| parse_id(id).is_some())
}
