//! What to compact next: a pure function of what blocks there are.
//!
//! Blocks that overlap come first. Then levels: spans of time aligned to 2 h × 3ⁿ whose blocks are to become one, smallest
//! first; the newest block is left alone, so that there is time to copy it before it moves. Last, large blocks of which
//! more than a twentieth of the series have deletions. As Prometheus' leveled compactor does (`tsdb/compact.go`, `plan`, 3.5),
//! but for overlaps: what is merged is all that hangs together, not what happens to be next in the list.

use model::sample::Timestamp;
use ulid::Ulid;

/// Steps of a level to the next.
const LEVEL_FACTOR: i64 = 3;
/// Most levels.
const LEVELS_MAX: usize = 10;
/// Deletions per series from which a block is rewritten.
const TOMBSTONES_SHARE: f64 = 0.05;

/// What planning needs to know of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanBlock {
    pub(crate) id: Ulid,
    pub(crate) min: Timestamp,
    /// Exclusive.
    pub(crate) max: Timestamp,
    pub(crate) series: u64,
    pub(crate) tombstones: u64,
    /// A compaction of it has failed, and it is not time yet to try again.
    pub(crate) failed: bool,
}

/// Why blocks are to be compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// They overlap.
    Overlap,
    /// They fill a span.
    Level,
    /// Of a single one: it has many deletions.
    Tombstones,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Level => "level",
            Self::Tombstones => "tombstones",
        }
    }
}

/// Blocks to become one, in order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) reason: Reason,
    pub(crate) blocks: Vec<Ulid>,
}

/// Lengths of the levels' spans: `min`, then three times the one before, up to `max`. At least one.
pub(crate) fn level_ranges(min_ms: i64, max_ms: i64) -> Vec<i64> {
    let first = min_ms.max(1);
    let lengths = std::iter::successors(Some(first), |length| length.checked_mul(LEVEL_FACTOR));
    lengths
        .take(LEVELS_MAX)
        .enumerate()
        .take_while(|(i, ms)| *i == 0 || *ms <= max_ms)
        .map(|(_, ms)| ms)
        .collect()
}

/// What to do next with `blocks` (in any order); `None`: nothing.
pub(crate) fn plan(blocks: &[PlanBlock], ranges: &[i64]) -> Option<Plan> {
    let mut blocks = blocks.to_vec();
    blocks.sort_unstable_by_key(|block| (block.min, block.max, block.id));
    let made =
        |reason, blocks: &[PlanBlock]| Plan { reason, blocks: blocks.iter().map(|block| block.id).collect() };
    if let Some(overlapping) = overlapping(&blocks) {
        return Some(made(Reason::Overlap, &overlapping));
    }
    let (_newest, older) = blocks.split_last()?;
    if let Some(filled) = level(older, ranges) {
        return Some(made(Reason::Level, filled));
    }
    deleted_from(older, ranges).map(|block| made(Reason::Tombstones, &[block]))
}

/// The first blocks that hang together by overlaps, without those that have failed.
fn overlapping(blocks: &[PlanBlock]) -> Option<Vec<PlanBlock>> {
    let mut together: Vec<PlanBlock> = Vec::new();
    let mut end = Timestamp::MIN;
    for block in blocks.iter().filter(|block| !block.failed) {
        if block.min >= end {
            if together.len() > 1 {
                break;
            }
            together.clear();
        }
        together.push(*block);
        end = end.max(block.max);
    }
    (together.len() > 1).then_some(together)
}

/// The first blocks that fill a level's span or that will never be joined by another.
fn level<'a>(blocks: &'a [PlanBlock], ranges: &[i64]) -> Option<&'a [PlanBlock]> {
    let newest_min = blocks.last()?.min;
    ranges.iter().skip(1).find_map(|length| {
        spans(blocks, *length).into_iter().find(|span| {
            let (Some(first), Some(last)) = (span.first(), span.last()) else { return false };
            let filled = last.max - first.min == *length;
            span.len() > 1 && !span.iter().any(|block| block.failed) && (filled || last.max <= newest_min)
        })
    })
}

/// Neighbours that lie in one aligned span of `length`, span by span; blocks that cross a border are in none.
fn spans(blocks: &[PlanBlock], length: i64) -> Vec<&[PlanBlock]> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(first) = blocks.get(at) {
        let end = first.min.div_euclid(length).saturating_add(1).saturating_mul(length);
        let inside = blocks[at..].iter().take_while(|block| block.max <= end).count();
        if inside > 0 {
            spans.push(&blocks[at..at + inside]);
        }
        at += inside.max(1);
    }
    spans
}

/// The newest large block with many deletions, or any block of which all is deleted.
fn deleted_from(blocks: &[PlanBlock], ranges: &[i64]) -> Option<PlanBlock> {
    let large = *ranges.get(ranges.len() / 2)?;
    let share = |block: &PlanBlock| block.tombstones as f64 / (block.series + 1) as f64;
    blocks
        .iter()
        .rev()
        .find(|block| {
            let all_deleted = block.tombstones > 0 && block.tombstones >= block.series;
            let is_large = block.max - block.min >= large;
            !block.failed && (all_deleted || is_large && share(block) > TOMBSTONES_SHARE)
        })
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const H: i64 = 3_600_000;
    const RANGES: [i64; 4] = [2 * H, 6 * H, 18 * H, 54 * H];

    fn block(id: u64, min_h: i64, max_h: i64) -> PlanBlock {
        let id = Ulid::from_parts(id, 0);
        PlanBlock { id, min: min_h * H, max: max_h * H, series: 100, tombstones: 0, failed: false }
    }

    /// Blocks by (from, to) in hours, numbered from 0; what is planned, by number.
    fn planned(spans: &[(i64, i64)]) -> Option<(Reason, Vec<u64>)> {
        let blocks: Vec<_> = (0u64..).zip(spans).map(|(id, (min, max))| block(id, *min, *max)).collect();
        planned_of(&blocks)
    }

    fn planned_of(blocks: &[PlanBlock]) -> Option<(Reason, Vec<u64>)> {
        let plan = plan(blocks, &RANGES)?;
        Some((plan.reason, plan.blocks.iter().map(Ulid::timestamp_ms).collect()))
    }

    #[test]
    fn levels_grow_by_three() {
        assert_eq!(level_ranges(2 * H, 31 * 24 * H), [2 * H, 6 * H, 18 * H, 54 * H, 162 * H, 486 * H]);
        assert_eq!(level_ranges(2 * H, 36 * H), [2 * H, 6 * H, 18 * H]);
        assert_eq!(level_ranges(2 * H, H), [2 * H]);
        assert_eq!(level_ranges(0, i64::MAX).len(), LEVELS_MAX);
    }

    #[test]
    fn spans_are_filled_before_blocks_are_joined() {
        assert_eq!(planned(&[]), None);
        assert_eq!(planned(&[(0, 2)]), None);
        // The newest is left alone, and so 4–6 may still be joined by nobody knows what.
        assert_eq!(planned(&[(0, 2), (2, 4), (4, 6)]), None);
        assert_eq!(planned(&[(0, 2), (2, 4), (4, 6), (6, 8)]), Some((Reason::Level, vec![0, 1, 2])));
        // A gap is never filled once there are blocks behind the span.
        assert_eq!(planned(&[(0, 2), (4, 6), (6, 8), (8, 10)]), Some((Reason::Level, vec![0, 1])));
        assert_eq!(planned(&[(0, 2), (2, 4), (6, 8), (8, 10)]), Some((Reason::Level, vec![0, 1])));
        assert_eq!(
            planned(&[(2, 4), (4, 6), (8, 10), (10, 12), (12, 14)]),
            Some((Reason::Level, vec![0, 1]))
        );
        // One block alone is not compacted with itself.
        assert_eq!(planned(&[(4, 6), (6, 8), (8, 10)]), None);
    }

    #[test]
    fn small_levels_come_first_and_large_ones_follow() {
        let spans = [(0, 6), (6, 12), (12, 18), (18, 20), (20, 22), (22, 24), (24, 26)];
        assert_eq!(planned(&spans), Some((Reason::Level, vec![3, 4, 5])));
        let spans = [(0, 6), (6, 12), (12, 18), (18, 24), (24, 26)];
        assert_eq!(planned(&spans), Some((Reason::Level, vec![0, 1, 2])));
        let spans = [(0, 18), (18, 36), (36, 54), (54, 56)];
        assert_eq!(planned(&spans), Some((Reason::Level, vec![0, 1, 2])));
        assert_eq!(planned(&[(0, 54), (54, 108), (108, 110)]), None);
    }

    #[test]
    fn times_before_the_epoch_are_aligned_too() {
        assert_eq!(planned(&[(-6, -4), (-4, -2), (-2, 0), (0, 2)]), Some((Reason::Level, vec![0, 1, 2])));
        assert_eq!(planned(&[(-2, 0), (0, 2), (2, 4)]), None, "0 is a border");
    }

    #[test]
    fn blocks_that_cross_borders_are_left_alone() {
        assert_eq!(
            planned(&[(0, 2), (4, 8), (8, 10), (10, 12), (12, 14), (14, 16)]),
            Some((Reason::Level, vec![2, 3]))
        );
        assert_eq!(planned(&[(1, 7), (7, 13), (13, 15)]), None);
    }

    #[test]
    fn overlapping_blocks_come_first() {
        assert_eq!(planned(&[(0, 2), (2, 4), (4, 6), (6, 8), (6, 8)]), Some((Reason::Overlap, vec![3, 4])));
        // The third touches only the first.
        assert_eq!(planned(&[(0, 10), (1, 2), (8, 12), (12, 14)]), Some((Reason::Overlap, vec![0, 1, 2])));
        assert_eq!(planned(&[(0, 2), (1, 3), (3, 5), (4, 6)]), Some((Reason::Overlap, vec![0, 1])));
        assert_eq!(planned(&[(0, 2), (2, 4)]), None, "ends are exclusive");
    }

    #[test]
    fn deletions_are_carried_out_in_large_blocks() {
        let with = |spans: &[(i64, i64)], tombstones: &[u64]| {
            let blocks = (0u64..).zip(spans).zip(tombstones);
            let blocks: Vec<_> = blocks
                .map(|((id, (min, max)), tombstones)| PlanBlock {
                    tombstones: *tombstones,
                    ..block(id, *min, *max)
                })
                .collect();
            planned_of(&blocks)
        };
        assert_eq!(with(&[(0, 18), (18, 20)], &[6, 0]), Some((Reason::Tombstones, vec![0])));
        assert_eq!(with(&[(0, 18), (18, 20)], &[5, 0]), None);
        assert_eq!(with(&[(0, 6), (6, 8)], &[50, 0]), None, "it is merged soon anyway");
        assert_eq!(with(&[(0, 6), (6, 8)], &[100, 0]), Some((Reason::Tombstones, vec![0])));
        assert_eq!(with(&[(0, 6), (6, 8)], &[0, 100]), None, "the newest is left alone");
    }

    #[test]
    fn what_failed_is_left_out() {
        let mut blocks: Vec<_> = (0i64..).zip(0u64..4).map(|(i, id)| block(id, 2 * i, 2 * i + 2)).collect();
        blocks[1].failed = true;
        assert_eq!(planned_of(&blocks), None);
        let mut blocks = vec![block(0, 0, 2), block(1, 0, 2), block(2, 0, 2)];
        blocks[0].failed = true;
        assert_eq!(planned_of(&blocks), Some((Reason::Overlap, vec![1, 2])));
        blocks[1].failed = true;
        assert_eq!(planned_of(&blocks), None);
    }

    proptest! {
        /// Whatever there is: carrying plans out comes to an end, and no overlaps are left then.
        #[test]
        fn planning_ends(spans in prop::collection::vec((0i64..400, 1i64..40, 0u64..120), 0..40)) {
            let mut blocks: Vec<_> = (0u64..)
                .zip(&spans)
                .map(|(id, (min, hours, tombstones))| PlanBlock { tombstones: *tombstones, ..block(id, *min, min + hours) })
                .collect();
            let first = blocks.len() as u64;
            for next in first.. {
                prop_assert!(next - first <= 3 * spans.len() as u64, "no end");
                let Some(plan) = plan(&blocks, &RANGES) else { break };
                let (gone, kept): (Vec<PlanBlock>, Vec<PlanBlock>) = blocks.iter().partition(|block| plan.blocks.contains(&block.id));
                prop_assert_eq!(gone.len(), plan.blocks.len());
                let (min, max) = (gone.iter().map(|b| b.min).min().unwrap(), gone.iter().map(|b| b.max).max().unwrap());
                let merged = PlanBlock { id: Ulid::from_parts(next, 0), min, max, series: 100, tombstones: 0, failed: false };
                blocks = kept;
                blocks.push(merged);
            }
            blocks.sort_unstable_by_key(|block| block.min);
            prop_assert!(blocks.windows(2).all(|pair| pair[0].max <= pair[1].min));
        }
    }
}
