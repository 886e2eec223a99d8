//! Letting go: by age, by size, and by the rules of selectors.

use std::sync::Arc;

use model::sample::Timestamp;
use roaring::RoaringBitmap;
use ulid::Ulid;

use super::rules::Floors;
use super::set::BlockList;
use super::{State, is_due};
use crate::block::Block;
use crate::db::Db;

/// How often blocks are looked at for what rules cut of them.
const RULES_INTERVAL_MS: i64 = 3_600_000;
/// A block is rewritten for rules at most this often.
const REWRITE_INTERVAL_MS: i64 = 24 * 3_600_000;
/// The part of a block that rules must cut for it to be rewritten.
const CUT_SHARE_MIN: f64 = 0.1;

impl Db {
    /// The newest sample that counts for retention: neither a clock that jumped ahead nor samples from the future let
    /// anything go.
    fn newest(&self, now: Timestamp) -> Option<Timestamp> {
        let head = self.shared.head.range().map(|range| range.max);
        // Spans of blocks end behind their samples: they count when there is nothing else.
        let newest = head.or_else(|| self.blocks.current().range().map(|range| range.max));
        newest.map(|newest| newest.min(now))
    }

    /// Lets whole blocks go, and hides what rules do not want any more.
    pub(crate) fn apply_retention(&self, now: Timestamp) {
        let retention = self.retention();
        let floors = self.newest(now).map_or_else(Floors::none, |newest| retention.floors(newest));
        let list = self.blocks.current();
        let ids =
            |blocks: &[&Arc<Block>]| blocks.iter().map(|block| block.meta().ulid).collect::<Vec<Ulid>>();
        let (expired, mut kept): (Vec<_>, Vec<_>) =
            list.iter().partition(|block| block.meta().max_time <= floors.lowest());
        self.floors.store(floors.has_rules().then(|| Arc::new(floors)));
        if !expired.is_empty() {
            tracing::info!(blocks = ?names(&expired), "blocks are older than retention");
            self.metrics.time_retentions.inc_by(expired.len() as u64);
            self.take_out(&ids(&expired));
        }
        if retention.size_bytes == 0 {
            return;
        }
        kept.sort_by_key(|block| block.meta().max_time);
        let mut bytes = self.bytes_beside_blocks() + kept.iter().map(|block| block.size_bytes()).sum::<u64>();
        let excess = kept.iter().take_while(|block| {
            let over = bytes > retention.size_bytes;
            bytes = bytes.saturating_sub(block.size_bytes());
            over
        });
        let excess = excess.count();
        if excess > 0 {
            tracing::info!(
                blocks = ?names(&kept[..excess]), limit = retention.size_bytes, "the oldest blocks exceed the size limit"
            );
            self.metrics.size_retentions.inc_by(excess as u64);
            self.take_out(&ids(&kept[..excess]));
        }
    }

    fn take_out(&self, blocks: &[Ulid]) {
        self.blocks.replace(None, blocks).expect("taking blocks out opens none");
    }

    /// Log, checkpoints and head chunks.
    fn bytes_beside_blocks(&self) -> u64 {
        let dirs = [self.wal_dir.clone(), self.options.dir.clone(), self.options.dir.join("head_chunks")];
        let files = dirs.iter().flat_map(|dir| {
            let names = self.fs.list(dir).unwrap_or_default();
            names.into_iter().map(|name| dir.join(name)).collect::<Vec<_>>()
        });
        files.map(|file| self.fs.len(&file).unwrap_or(0)).sum()
    }

    /// A block of which rules cut enough for it to be rewritten.
    pub(super) fn next_cut(&self, state: &mut State, list: &BlockList, now: Timestamp) -> Option<Arc<Block>> {
        let floors = self.floors.load_full()?;
        if !is_due(state.last_rules, now, RULES_INTERVAL_MS) {
            return None;
        }
        let is_candidate = |block: &&Arc<Block>| {
            let meta = block.meta();
            let rests = state
                .rewritten
                .get(&meta.ulid)
                .is_some_and(|at| !is_due(Some(*at), now, REWRITE_INTERVAL_MS));
            let failed = state.failed.get(&meta.ulid).is_some_and(|failed| !failed.is_due(now));
            floors.highest() > meta.min_time
                && !rests
                && !failed
                && cut_share(block, &floors) >= CUT_SHARE_MIN
        };
        let found = list.iter().find(is_candidate).cloned();
        if found.is_none() {
            state.last_rules = Some(now);
        }
        found
    }
}

fn names(blocks: &[&Arc<Block>]) -> Vec<String> {
    blocks.iter().map(|block| block.meta().ulid.to_string()).collect()
}

/// About what part of a block's samples lies below the floors, as if samples were spread evenly over series and time.
/// Nothing when the index cannot be read: merging finds out and says so.
fn cut_share(block: &Block, floors: &Floors) -> f64 {
    let meta = block.meta();
    let span = meta.max_time.saturating_sub(meta.min_time).max(1);
    let part = |floor: Timestamp| (floor.saturating_sub(meta.min_time) as f64 / span as f64).clamp(0.0, 1.0);
    let series = u64::from(block.index().series());
    let mut decided = RoaringBitmap::new();
    let mut cut = 0.0;
    for (matchers, floor) in floors.rules() {
        let Ok(found) = block.index().select(matchers) else { return 0.0 };
        let before = decided.len();
        decided.extend(found);
        cut += (decided.len() - before) as f64 * part(*floor);
    }
    cut += series.saturating_sub(decided.len()) as f64 * part(floors.others());
    cut / series.max(1) as f64
}
