//! Reads every byte of a block and names all that is wrong with it.
//!
//! First the parts, each by its checksums; then what they say of each other: every series is decoded, in order, and must
//! lie within the block's span; frames must fill the chunk files without gaps; counts must be those of the meta. Whoever
//! is damaged is named once, and the rest is looked at all the same.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;

use model::labels::Labels;
use model::sample::Timestamp;
use model::storage::StorageError;

use super::directory::{Directory, FrameRef, Place};
use super::files::{ChunkFile, HEAD_LEN};
use super::findings::Findings;
use super::reader::Block;
use super::scan::Batch;
use super::{BlockMeta, BlockStats, Damage, INDEX_FILE, META_FILE, TOMBSTONES_FILE, Tombstones};
use crate::columns::Columns;
use crate::frame::{FRAME_HEAD_LEN, frame_len};

impl Block {
    /// See the module. Takes as long as reading and unpacking all of the block; keeps a few bytes for each frame.
    pub(crate) fn verify(&self) -> Vec<Damage> {
        let mut findings = Findings::new(self.dir());
        // They were sound when it was opened: the disk may have turned since.
        if let Err(error) = BlockMeta::read(&*self.fs_of(), self.dir()) {
            findings.error(error);
        }
        match Tombstones::read(&*self.fs_of(), self.dir()) {
            Ok(tombstones) => {
                if let Some(series) = tombstones.series().find(|series| *series >= self.index().series()) {
                    let what =
                        format!("tombstone of series {series}, of which there are {}", self.index().series());
                    findings.add(self.dir().join(TOMBSTONES_FILE), 0, what);
                }
            }
            Err(error) => findings.error(error),
        }
        let mut of_index = Vec::new();
        self.index().verify(&mut of_index);
        of_index.into_iter().for_each(|damage| findings.add(damage.file, damage.offset, damage.what));
        let frames = self.verify_series(&mut findings);
        self.verify_files(&frames, &mut findings);
        findings.finish()
    }

    /// Decodes all series. Answers the frames that belong to the block.
    fn verify_series(&self, findings: &mut Findings) -> BTreeSet<FrameRef> {
        let mut frames = BTreeSet::new();
        let mut stats = BlockStats::default();
        let mut columns = Columns::default();
        let mut batch = Batch::default();
        let mut blob = Vec::new();
        let mut cursor = super::index::SeriesCursor::new();
        let mut previous: Option<Labels> = None;
        let mut whole = true;
        for series in 0..self.index().series() {
            match cursor.labels(self.index(), series) {
                Ok(labels) => {
                    if previous.as_ref().is_some_and(|previous| *previous >= labels) {
                        let what = format!("series {series}, {labels}, is not in order");
                        findings.add(self.dir().join(INDEX_FILE), 0, what);
                    }
                    previous = Some(labels);
                }
                Err(error) => {
                    cursor = super::index::SeriesCursor::new();
                    findings.error(error);
                }
            }
            columns.clear();
            let read = self.place(series, &mut blob).and_then(|place| {
                if let Place::First(at) = place {
                    self.frames_of(at, &mut frames, &mut stats)?;
                }
                batch.read(self, series, place, &mut columns)
            });
            match read {
                Ok(()) => self.verify_columns(series, &columns, &mut stats, findings),
                Err(error) => {
                    whole = false;
                    findings.error(error);
                }
            }
        }
        stats.num_tombstones = self.meta().stats.num_tombstones;
        if whole && stats != self.meta().stats {
            let what = format!("says {:?}, but there are {stats:?}", self.meta().stats);
            findings.add(self.dir().join(META_FILE), 0, what);
        }
        frames
    }

    /// Notes the frames of a batch, and counts its chunks.
    fn frames_of(
        &self,
        at: FrameRef,
        frames: &mut BTreeSet<FrameRef>,
        stats: &mut BlockStats,
    ) -> Result<(), StorageError> {
        let file = self.file(at)?;
        let plain = file.read(at)?;
        let wrong = |error| super::reader::directory_error(file, at, error);
        let directory = Directory::decode(&plain).map_err(wrong)?;
        frames.insert(at);
        frames.extend(directory.samples().iter().map(|frame| frame.at));
        frames.extend(directory.columns());
        for place in 0..directory.len() {
            directory
                .series(place, |_, _| {
                    stats.num_chunks += 1;
                    Ok(())
                })
                .map_err(wrong)?;
        }
        Ok(())
    }

    fn verify_columns(
        &self,
        series: u32,
        columns: &Columns,
        stats: &mut BlockStats,
        findings: &mut Findings,
    ) {
        stats.num_series += 1;
        stats.num_samples += columns.len() as u64;
        stats.num_float_samples += columns.times.len() as u64;
        stats.num_histogram_samples += columns.histogram_times.len() as u64;
        let mut wrong = |what: &str| {
            let at = self.locate(series).map(|(at, _)| at);
            match at.and_then(|at| Ok((self.file(at)?.path.clone(), at.offset))) {
                Ok((file, offset)) => findings.add(file, offset, format!("series {series}: {what}")),
                Err(error) => findings.error(error),
            }
        };
        let ascend = |times: &[Timestamp]| times.is_sorted_by(|a, b| a < b);
        if columns.is_empty() {
            wrong("no samples");
        }
        if !ascend(&columns.times) || !ascend(&columns.histogram_times) {
            wrong("times do not ascend");
        }
        let span = self.meta().range();
        if columns.range().is_some_and(|range| range.min < span.min || range.max > span.max) {
            wrong("samples outside of the block's span");
        }
        let fit = |starts: usize, times: usize| starts == 0 || starts == times;
        if !fit(columns.starts.len(), columns.times.len())
            || !fit(columns.histogram_starts.len(), columns.histogram_times.len())
        {
            wrong("start timestamps do not fit the samples");
        }
    }

    /// Looks at all bytes between the frames that are known.
    fn verify_files(&self, frames: &BTreeSet<FrameRef>, findings: &mut Findings) {
        for (number, file) in (1u32..).zip(&self.files) {
            if let Err(error) = file.file() {
                findings.error(error);
                continue;
            }
            let mut at = HEAD_LEN as u64;
            for frame in frames.iter().filter(|frame| frame.file == number) {
                if frame.offset < at {
                    findings.add(file.path.clone(), frame.offset, "frames overlap".to_owned());
                }
                verify_gap(file, at, frame.offset, findings);
                at = at.max(frame.offset.saturating_add(u64::from(frame.len)));
                // Those of columns and directories that all series passed by are read here; others again, which is
                // cheaper than to remember them.
                if let Err(error) = file.read(*frame) {
                    findings.error(error);
                }
            }
            verify_gap(file, at, file.len(), findings);
        }
    }
}

/// Bytes that belong to no frame that is known: their directory is damaged, or they should not be there.
fn verify_gap(file: &ChunkFile, from: u64, to: u64, findings: &mut Findings) {
    let mut at = from;
    while at < to {
        let mut head = [0; FRAME_HEAD_LEN];
        let frame = file.file().and_then(|bytes| {
            let head = head.get_mut(..usize::try_from(to - at).unwrap_or(FRAME_HEAD_LEN).min(FRAME_HEAD_LEN));
            let head = head.unwrap_or_default();
            crate::frame::read_exact(bytes, &file.path, head, at)?;
            let len = frame_len(head).map_err(|error| file.corrupted(at, error))?;
            let len = u32::try_from(len).map_err(|_| file.corrupted(at, "length of a frame"))?;
            let frame = FrameRef { file: 0, offset: at, len };
            file.read(frame)?;
            Ok(frame)
        });
        match frame {
            Ok(frame) => {
                findings.add(file.path.clone(), at, "no directory knows this frame".to_owned());
                at += u64::from(frame.len);
            }
            Err(error) => {
                findings.error(error);
                return;
            }
        }
    }
}
