//! What operators ask for: deletions, their carrying out, snapshots.
//!
//! All of it excludes compactions, which give way: else a merge could bring back what was deleted from its sources
//! while it ran.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

use model::matcher::Matcher;
use model::sample::TimeRange;
use model::storage::{BlockInfo, StorageError};

use super::State;
use crate::block::Block;
use crate::db::Db;
use crate::inspect::block_info;
use crate::wal::io_error;

/// Directory of snapshots, in the data directory.
const SNAPSHOTS: &str = "snapshots";
/// Ending of snapshots in the making.
const TMP: &str = ".tmp";

impl Db {
    /// Hides samples in blocks and in the head. Blocks come first: should a crash come between, what is still there is the
    /// newest, and the deletion was not acknowledged.
    pub(crate) fn delete(&self, range: TimeRange, selectors: &[Vec<Matcher>]) -> Result<(), StorageError> {
        let _state = self.compaction.take()?;
        let mut first = Ok(());
        // A damaged block must not keep samples from being deleted elsewhere.
        let mut keep = |result: Result<(), StorageError>| {
            if first.is_ok() {
                first = result;
            }
        };
        // What can be read or removed by now is not out of reach.
        keep(self.blocks.rescan());
        self.blocks.remove_retired();
        for block in self.blocks.current().within(range) {
            keep(delete_from(&block, range, selectors));
        }
        keep(self.shared.delete(range, selectors));
        keep(self.check_reach());
        first
    }

    /// Whether deletions get at all that there is on disk. Nobody knows of what time a block is that cannot be opened.
    fn check_reach(&self) -> Result<(), StorageError> {
        let out_of_reach = self.blocks.out_of_reach();
        if out_of_reach.is_empty() {
            return Ok(());
        }
        Err(StorageError::Io {
            what: "deleted, but not from blocks that cannot be opened",
            path: self.blocks.dir().to_owned(),
            source: std::io::Error::other(out_of_reach.join(", ")),
        })
    }

    /// Rewrites all blocks that have deletions.
    pub(crate) fn clean(&self) -> Result<(), StorageError> {
        let mut state = self.compaction.take()?;
        let start = self.clock.now_ms();
        let list = self.blocks.current();
        let cancel = self.compaction.patient();
        for block in list.iter().filter(|block| block.has_tombstones()) {
            let rewritten =
                self.rewrite(&mut state, std::slice::from_ref(block), "clean tombstones", &cancel);
            rewritten.inspect_err(|_| self.metrics.tombstone_cleanups_failed.inc())?;
        }
        let took = self.clock.now_ms().saturating_sub(start).max(0);
        self.metrics.tombstone_cleanup.observe(took as f64 / 1000.0);
        Ok(())
    }

    /// Copies all blocks by links, and the head as a block. The name of the copy's directory.
    pub(crate) fn copy(&self, skip_head: bool) -> Result<String, StorageError> {
        let mut state = self.compaction.take()?;
        let snapshots = self.options.dir.join(SNAPSHOTS);
        let now = self.clock.now_ms();
        // Fresh for each: names must differ also within a second and after a restart.
        let random = RandomState::new().hash_one(now) >> 1;
        let name = format!("{}-{random:016x}", compact_time(now));
        let (unfinished, finished) = (snapshots.join(format!("{name}{TMP}")), snapshots.join(&name));
        let made = self.fill(&mut state, &unfinished, skip_head).and_then(|()| {
            self.fs.rename(&unfinished, &finished).map_err(io_error("finish snapshot", &finished))?;
            self.fs.sync_dir(&snapshots).map_err(io_error("finish snapshot", &snapshots))
        });
        if let Err(error) = made {
            for dir in [&unfinished, &finished] {
                // Mostly there is only one of them.
                let _ = self.fs.remove_dir_all(dir);
            }
            return Err(error);
        }
        tracing::info!(snapshot = name, "snapshot made");
        Ok(name)
    }

    fn fill(&self, state: &mut State, dir: &Path, skip_head: bool) -> Result<(), StorageError> {
        self.fs.create_dir_all(dir).map_err(io_error("make snapshot directory", dir))?;
        // The head before the list of blocks: what moves meanwhile is in both. (Nothing moves: compactions wait.)
        if !skip_head {
            self.copy_head(state, dir)?;
        }
        for block in self.blocks.current().iter() {
            self.compaction.patient().check()?;
            let name = block.meta().ulid.to_string();
            self.link_all(&self.blocks.dir().join(&name), &dir.join(&name))?;
        }
        self.fs.sync_dir(dir).map_err(io_error("sync snapshot", dir))
    }

    /// Links all files of a directory, and of those in it, to a new one.
    fn link_all(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        self.fs.create_dir_all(to).map_err(io_error("make snapshot directory", to))?;
        for name in self.fs.list(from).map_err(io_error("list block", from))? {
            let (from, to) = (from.join(&name), to.join(&name));
            self.fs.hard_link(&from, &to).map_err(io_error("link for the snapshot", &to))?;
        }
        for name in self.fs.list_dirs(from).map_err(io_error("list block", from))? {
            self.link_all(&from.join(&name), &to.join(&name))?;
        }
        self.fs.sync_dir(to).map_err(io_error("sync snapshot", to))
    }

    /// Removes snapshots that a crash left unfinished.
    pub(crate) fn remove_unfinished_snapshots(&self) {
        let snapshots = self.options.dir.join(SNAPSHOTS);
        let names = self.fs.list_dirs(&snapshots).unwrap_or_default();
        for name in names.iter().filter(|name| name.ends_with(TMP)) {
            if let Err(error) = self.fs.remove_dir_all(&snapshots.join(name)) {
                tracing::warn!(snapshot = name, %error, "unfinished snapshot could not be removed");
            }
        }
    }

    /// The blocks, for people.
    pub(crate) fn block_infos(&self) -> Vec<BlockInfo> {
        self.blocks.current().iter().map(|block| info(block)).collect()
    }
}

fn delete_from(block: &Block, range: TimeRange, selectors: &[Vec<Matcher>]) -> Result<(), StorageError> {
    let meta = block.meta();
    let range = TimeRange::new(range.min.max(meta.min_time), range.max.min(meta.max_time.saturating_sub(1)));
    let mut series = Vec::new();
    for matchers in selectors {
        series.extend(block.index().select(matchers)?);
    }
    series.sort_unstable();
    series.dedup();
    if series.is_empty() { Ok(()) } else { block.delete(series.into_iter().map(|series| (series, range))) }
}

/// What is deleted by now counts, too: the meta file is as it was written.
fn info(block: &Block) -> BlockInfo {
    let tombstones = block.tombstones().len() as u64;
    BlockInfo { tombstones, ..block_info(block.meta(), block.size_bytes()) }
}

/// `20060102T150405Z`, as Prometheus names snapshots.
fn compact_time(ms: i64) -> String {
    let (days, seconds) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1000);
    // Days to a date of the Gregorian calendar: Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_dates() {
        for (ms, text) in [
            (0, "19700101T000000Z"),
            (951_782_400_000, "20000229T000000Z"),
            (1_512_940_344_567, "20171210T211224Z"),
            (4_102_444_799_999, "20991231T235959Z"),
            (-1, "19691231T235959Z"),
        ] {
            assert_eq!(compact_time(ms), text);
        }
    }
}
