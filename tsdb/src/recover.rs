//! Start-up: the newest checkpoint, then the log behind it, into an empty head.

use std::path::Path;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use model::sample::Timestamp;
use model::storage::{ABSENT_BITS, ReplayProgress, StorageError};

use crate::checkpoint::{self, checkpoint_name, checkpoint_number, is_temporary};
use crate::coding::DecodeError;
use crate::commit::Applied;
use crate::db::Progress;
use crate::fs::FileSystem;
use crate::head::Head;
use crate::head::layout::Layout;
use crate::head::series::{CommitMark, Series, Stored};
use crate::head::window::RowPart;
use crate::metrics::Metrics;
use crate::wal::io_error;
use crate::wal::record::{Entry, KIND_COMMIT, decode};
use crate::wal::replay::{Replay, ReplayEnd, ReplayTarget, free_corrupt_path};
use crate::wal::{segment_name, segment_number};

/// What start-up found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) end: ReplayEnd,
    /// Size of the checkpoint that was loaded.
    pub(crate) checkpoint_bytes: u64,
    /// Damaged checkpoints that are still under their names: a new one is due, and they must be kept aside then.
    pub(crate) damaged: Vec<u64>,
    /// What the checkpoint says the head was truncated to.
    pub(crate) truncated_to: Timestamp,
}

/// From where to start.
#[derive(Debug)]
struct Start {
    /// `None`: from the log's beginning.
    checkpoint: Option<u64>,
    /// Newer ones, which are damaged.
    damaged: Vec<u64>,
}

/// Fills `head` from the files in `dir`.
pub(crate) fn recover(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    wal_dir: &Path,
    head: &Head,
    progress: &Progress,
) -> Result<Recovered, StorageError> {
    let names = fs.list(dir).map_err(io_error("list data directory", dir))?;
    for name in names.iter().filter(|name| is_temporary(name)) {
        let path = dir.join(name);
        if let Err(error) = fs.remove(&path) {
            // The next start tries again.
            tracing::warn!(path = %path.display(), %error, "unfinished checkpoint could not be removed");
        }
    }
    let Start { checkpoint, mut damaged } = choose(&**fs, dir, wal_dir, &names)?;
    head.metrics.wal_corruptions.inc_by(damaged.len() as u64);
    damaged.retain(|number| !keep_aside(&**fs, dir, *number));
    head.files.start()?;
    let loaded = match checkpoint {
        Some(number) => checkpoint::load(&**fs, &dir.join(checkpoint_name(number)), head)?,
        None => checkpoint::Loaded::default(),
    };
    if loaded.damaged > 0 {
        head.metrics.wal_corruptions.inc_by(loaded.damaged);
    }
    match checkpoint {
        Some(number) if loaded.damaged > 0 => damaged.push(number),
        Some(number) => remove_covered(fs, dir, wal_dir, &names, number),
        None => {}
    }
    let truncated_to = head.views.truncated_to();
    let mut target = Target {
        through: loaded.through,
        head,
        metrics: &head.metrics,
        progress,
        aliases: HashMap::new(),
        rows: HashMap::new(),
        lost: 0,
    };
    let replay = Replay { fs, dir: wal_dir, metrics: &head.metrics };
    let mut end = replay.run(checkpoint, &mut target)?;
    if end.last.0 == 0
        && let Some(number) = checkpoint
    {
        end.last.0 = number.saturating_sub(1);
    }
    if target.lost > 0 {
        head.metrics.wal_replay_lost.inc_by(target.lost);
        tracing::error!(entries = target.lost, "log entries named series or layouts that damage has taken");
    }
    close_layouts(head);
    let series = head.catalogue.read().len();
    head.metrics.series_references.set(i64::from(head.catalogue.read().next_id()));
    head.metrics.exemplars_stored.set(head.exemplars.lock().len() as i64);
    progress.set(ReplayProgress { done: true, ..progress.get() });
    tracing::info!(series, checkpoint, log_bytes = end.bytes, "store is in memory");
    Ok(Recovered { end, checkpoint_bytes: loaded.bytes, damaged, truncated_to })
}

/// The newest sound checkpoint with all segments behind it. A crash between the appearance of a checkpoint and the removal
/// of what it covers leaves both, and then the new one need not be trusted blindly. Usually there is one, and no choice:
/// what is sound of it is used.
fn choose(fs: &dyn FileSystem, dir: &Path, wal_dir: &Path, names: &[String]) -> Result<Start, StorageError> {
    let mut checkpoints: Vec<u64> = names.iter().filter_map(|name| checkpoint_number(name)).collect();
    checkpoints.sort_unstable_by(|a, b| b.cmp(a));
    let Some(&newest) = checkpoints.first() else {
        return Ok(Start { checkpoint: None, damaged: Vec::new() });
    };
    let segments = fs.list(wal_dir).map_err(io_error("list the log", wal_dir))?;
    let segments: HashSet<u64> = segments.iter().filter_map(|name| segment_number(name)).collect();
    let starts = checkpoints.iter().copied().map(Some).chain([None]);
    // Ends at the first gap: file names cannot make this long.
    let whole = |first: u64| (first..newest).all(|number| segments.contains(&number));
    let starts: Vec<_> = starts.filter(|start| whole(start.unwrap_or(1))).collect();
    if starts.len() > 1 {
        for start in starts {
            let sound = match start {
                Some(number) => checkpoint::is_sound(fs, &dir.join(checkpoint_name(number)))?,
                None => true,
            };
            if sound {
                checkpoints.retain(|number| start.is_none_or(|start| *number > start));
                return Ok(Start { checkpoint: start, damaged: checkpoints });
            }
        }
    }
    Ok(Start { checkpoint: Some(newest), damaged: Vec::new() })
}

/// Keeps a damaged checkpoint aside; whether that worked.
fn keep_aside(fs: &dyn FileSystem, dir: &Path, number: u64) -> bool {
    let path = dir.join(checkpoint_name(number));
    let aside = free_corrupt_path(fs, &path);
    tracing::error!(
        checkpoint = %path.display(), kept_as = %aside.display(),
        "checkpoint is damaged: starting from what it covers, which is still there"
    );
    let kept = fs.rename(&path, &aside).and_then(|()| fs.sync_dir(dir));
    if let Err(error) = &kept {
        tracing::warn!(checkpoint = %path.display(), %error, "damaged checkpoint could not be kept aside yet");
    }
    kept.is_ok()
}

/// Removes what the newest checkpoint covers: a crash may have come between its appearance and their removal.
fn remove_covered(fs: &Arc<dyn FileSystem>, dir: &Path, wal_dir: &Path, names: &[String], number: u64) {
    let older = names.iter().filter(|name| checkpoint_number(name).is_some_and(|other| other < number));
    let older: Vec<_> = older.map(|name| dir.join(name)).collect();
    let segments = fs.list(wal_dir).unwrap_or_default();
    let segments = segments.iter().filter_map(|name| segment_number(name)).filter(|other| *other < number);
    for path in older.into_iter().chain(segments.map(|other| wal_dir.join(segment_name(other)))) {
        if let Err(error) = fs.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "file that a checkpoint covers could not be removed");
        }
    }
}

/// Layouts live as long as a process: those of the log are forgotten, their rows are not.
fn close_layouts(head: &Head) {
    let layouts: Vec<Arc<Layout>> = head.layouts.write().drain().map(|(_, layout)| layout).collect();
    for layout in layouts {
        // Upkeep seals what is left open: nobody waits for that.
        let mut state = layout.state.lock();
        state.close();
        for series in &state.slots {
            head.table.with_mut(*series, Series::unpin);
        }
    }
}

struct Target<'a> {
    /// What commits up to this one wrote may be stored already.
    through: u64,
    head: &'a Head,
    metrics: &'a Metrics,
    progress: &'a Progress,
    /// Series that left and came back under another reference while the log still has both.
    aliases: HashMap<u32, u32>,
    /// The values of each layout's slots in the log so far.
    rows: HashMap<u64, Vec<u64>>,
    lost: u64,
}

impl ReplayTarget for Target<'_> {
    fn segment(&mut self, number: u64, last: u64) {
        let before = self.progress.get();
        let min = if before.max == 0 { number } else { before.min };
        self.progress.set(ReplayProgress { min, max: last, current: number, done: false });
        self.metrics.wal_segment_current.set(number.cast_signed());
    }

    fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), DecodeError> {
        if kind != KIND_COMMIT {
            return Err(DecodeError::Unknown("record of the log"));
        }
        let commit = self.head.views.published() + 1;
        // Nobody reads yet: everything is visible at once.
        let at = CommitMark { commit, watermark: commit, in_order_from: self.head.in_order_from() };
        let head = self.head;
        let mut applied = Applied::new(head, at);
        applied.may_know = commit <= self.through;
        let result = decode(payload, |entry| self.entry(entry, &mut applied, at));
        applied.finish();
        head.views.publish(commit);
        result
    }
}

impl Target<'_> {
    fn alias(&self, series: u32) -> u32 {
        self.aliases.get(&series).copied().unwrap_or(series)
    }

    fn entry(&mut self, entry: Entry, applied: &mut Applied<'_>, at: CommitMark) -> Result<(), DecodeError> {
        match entry {
            Entry::Series { id, labels } => self.series(id, &labels)?,
            Entry::Layout { layout, from, slots } => self.layout(layout, from, &slots)?,
            Entry::Row { layout, t, part, full, words, values } => {
                let row = LoggedRow { layout, t, part, full, words: &words, values: &values };
                self.row(&row, applied, at)?;
            }
            Entry::Floats(mut samples) => {
                if !self.aliases.is_empty() {
                    for sample in &mut samples {
                        sample.series = self.alias(sample.series);
                    }
                }
                self.lost += applied.floats(&samples);
            }
            Entry::Histogram { series, t, start, value } => {
                let there = applied.add(self.alias(series), t, Stored::Histogram(value), start);
                self.lost += u64::from(!there);
            }
            Entry::Exemplar { series, exemplar } => applied.exemplar(self.alias(series), exemplar),
            Entry::Metadata { metric, metadata } => self.head.set_metadata(&metric, &metadata),
            Entry::Bounds(bounds) => self.head.set_bounds(bounds),
            Entry::Deleted { series, range } => {
                let dropped =
                    self.head.table.with_mut(self.alias(series), |series| series.delete(range, &[]));
                self.head.add_chunks(0, dropped.unwrap_or_default().chunks);
            }
        }
        Ok(())
    }

    fn series(&mut self, id: u32, labels: &model::Labels) -> Result<(), DecodeError> {
        let mut catalogue = self.head.catalogue.write();
        catalogue.reserve_ids(id.checked_add(1).ok_or(DecodeError::NumberRange)?);
        match catalogue.find(labels) {
            Some(known) if known == id => {}
            Some(known) => {
                self.aliases.insert(id, known);
            }
            None if catalogue.labels(id).is_some() => {
                return Err(DecodeError::Inconsistent("series: a reference names two label sets"));
            }
            None => {
                self.head.table.insert(id, Series::logged());
                catalogue.insert(id, labels);
                self.head.count_series(&catalogue);
            }
        }
        Ok(())
    }

    fn layout(&mut self, id: u64, from: usize, slots: &[u32]) -> Result<(), DecodeError> {
        self.head.next_layout.fetch_max(id.saturating_add(1), std::sync::atomic::Ordering::Relaxed);
        let layout = self.head.layout(id).unwrap_or_else(|| self.head.open_layout(id));
        let mut state = layout.state.lock();
        if from > state.slots.len() {
            return Err(DecodeError::Inconsistent("slots of a layout"));
        }
        // A layout is defined again in each segment.
        for (index, slot) in (from..).zip(slots) {
            let series = self.alias(*slot);
            match state.slots.get(index) {
                None => {
                    // As a layout does, so that the series keeps its place in the rows when these are truncated.
                    self.head.table.with_mut(series, Series::pin);
                    state.push_slot(series);
                }
                Some(known) if *known == series => {}
                Some(_) => return Err(DecodeError::Inconsistent("slots of a layout")),
            }
        }
        self.rows.entry(id).or_default().resize(state.slots.len(), ABSENT_BITS);
        Ok(())
    }

    fn row(
        &mut self,
        row: &LoggedRow<'_>,
        applied: &mut Applied<'_>,
        at: CommitMark,
    ) -> Result<(), DecodeError> {
        let (Some(layout), Some(current)) = (self.head.layout(row.layout), self.rows.get_mut(&row.layout))
        else {
            self.lost += row.values.len() as u64;
            return Ok(());
        };
        let mut state = layout.state.lock();
        let (from, to) = row.part.unwrap_or((0, u32::try_from(current.len()).unwrap_or(u32::MAX)));
        let Some(slots) = current.get_mut(from as usize..to as usize) else {
            return Err(DecodeError::Inconsistent("slots of a row"));
        };
        if row.full {
            slots.fill(ABSENT_BITS);
        }
        let part = RowPart { t: row.t, commit: at.commit, from, to, words: row.words, values: row.values };
        for (slot, value) in part.changes() {
            let place = slot.checked_sub(from).and_then(|index| slots.get_mut(index as usize));
            *place.ok_or(DecodeError::Inconsistent("slots of a row"))? = value;
        }
        if row.t <= state.newest(from, to) {
            // The checkpoint was written while commits went on: it has the row.
            return Ok(());
        }
        let values: Arc<[u64]> = Arc::from(&*slots);
        if state.must_seal(row.t, self.head.changes_per_slot()) {
            self.head.seal(&mut state, at.watermark);
        }
        let plan = state.plan(&layout, row.t, Some(from), values, false);
        drop(state);
        applied.row(&plan);
        Ok(())
    }
}

/// A row as the log has it.
struct LoggedRow<'a> {
    layout: u64,
    t: i64,
    part: Option<(u32, u32)>,
    full: bool,
    words: &'a [u64],
    values: &'a [u64],
}
