//! The directory of a batch: which chunks of which frames hold the samples of its series, and which columns their times.
//!
//! It is a frame itself: its first chunk names the frames that the batch uses, the others are the lists of its series, in
//! order of labels. Neighbours have nearly the same lists, so compression makes a chunk's entry a fraction of a byte; and
//! reading one series decodes no list but its own. The layout is in `docs/formats/block.md`.
//!
//! The index knows of a series only its place in the batch, and of the first of a batch where the directory is
//! ([`Place`]).
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::sample::TimeRange;

use crate::coding::{DecodeError, Reader, put_uvarint, put_varint};
use crate::frame::{FrameBuilder, chunk_of, chunks_of};

/// A frame in the block's chunk files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FrameRef {
    /// Number of the file, from 1.
    pub(super) file: u32,
    /// Where it begins.
    pub(super) offset: u64,
    /// Its length.
    pub(super) len: u32,
}

impl FrameRef {
    fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// What the index keeps for a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The first of a batch, whose directory is here.
    First(FrameRef),
    /// So many behind the first one.
    Behind(u32),
}

impl Place {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::First(at) => {
                out.push(0);
                put_uvarint(out, u64::from(at.file));
                put_uvarint(out, at.offset);
                put_uvarint(out, u64::from(at.len));
            }
            Self::Behind(places) => put_uvarint(out, u64::from(*places)),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let place = match reader.uvarint32()? {
            0 => Self::First(FrameRef {
                file: reader.uvarint32()?,
                offset: reader.uvarint()?,
                len: reader.uvarint32()?,
            }),
            places => Self::Behind(places),
        };
        if reader.is_empty() { Ok(place) } else { Err(DecodeError::Inconsistent("place of a series")) }
    }
}

/// A frame of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SampleFrame {
    pub(super) at: FrameRef,
    /// From the first to the last of its samples.
    pub(super) range: TimeRange,
}

/// A chunk within a frame of the directory's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InFrame {
    /// The frame, as a place in the list.
    pub(super) frame: usize,
    /// The chunk's place in it.
    pub(super) place: usize,
}

/// A chunk of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkEntry {
    /// Where it is, in a frame of samples.
    pub(super) at: InFrame,
    /// Where its times are, in a frame of columns; `None`: in itself.
    pub(super) column: Option<InFrame>,
}

/// A directory being made.
#[derive(Debug, Default)]
pub(super) struct DirectoryBuilder {
    /// Number of the batch's first series.
    pub(super) first: u32,
    pub(super) samples: Vec<SampleFrame>,
    pub(super) columns: Vec<FrameRef>,
    /// By series; frames of a series never descend.
    pub(super) series: Vec<Vec<ChunkEntry>>,
}

/// The chunk is not where it was expected.
const PLACE_GIVEN: u64 = 1;
/// Its times are in itself.
const OWN_TIMES: u64 = 2;
/// Its column is not behind the one before.
const COLUMN_GIVEN: u64 = 4;
const TAG_BITS: u32 = 3;

/// What the next entry of a series is expected to be. Shared by both directions.
struct Expected {
    at: InFrame,
    column: InFrame,
    /// Whether there was an entry before.
    begun: bool,
}

impl Expected {
    fn new(place: usize) -> Self {
        Self { at: InFrame { frame: 0, place }, column: InFrame::default(), begun: false }
    }

    /// In a later frame, the same place; in the same frame, the next one.
    fn place(&self, step: usize) -> usize {
        if self.begun && step == 0 { self.at.place.saturating_add(1) } else { self.at.place }
    }

    fn took(&mut self, entry: &ChunkEntry) {
        self.begun = true;
        self.at = entry.at;
        if let Some(column) = entry.column {
            self.column = InFrame { place: column.place.saturating_add(1), ..column };
        }
    }
}

impl DirectoryBuilder {
    /// Adds the directory's chunks to an empty frame.
    pub(super) fn encode(&self, frame: &mut FrameBuilder) {
        frame.push_with(|out| {
            put_uvarint(out, u64::from(self.first));
            let mut before = FrameRef { file: 1, offset: 0, len: 0 };
            let mut at = 0i64;
            put_uvarint(out, self.samples.len() as u64);
            for frame in &self.samples {
                put_frame_ref(out, &mut before, frame.at);
                put_varint(out, frame.range.min.wrapping_sub(at));
                put_uvarint(out, frame.range.max.wrapping_sub(frame.range.min).cast_unsigned());
                at = frame.range.max;
            }
            put_uvarint(out, self.columns.len() as u64);
            for frame in &self.columns {
                put_frame_ref(out, &mut before, *frame);
            }
        });
        for (place, entries) in self.series.iter().enumerate() {
            frame.push_with(|out| put_entries(out, place, entries));
        }
    }
}

fn put_frame_ref(out: &mut Vec<u8>, before: &mut FrameRef, at: FrameRef) {
    let expected = if at.file == before.file { before.end() } else { 0 };
    put_varint(out, i64::from(at.file) - i64::from(before.file));
    put_varint(out, at.offset.wrapping_sub(expected).cast_signed());
    put_uvarint(out, u64::from(at.len));
    *before = at;
}

fn get_frame_ref(reader: &mut Reader<'_>, before: &mut FrameRef) -> Result<FrameRef, DecodeError> {
    let file = i64::from(before.file).checked_add(reader.varint()?).and_then(|file| u32::try_from(file).ok());
    let file = file.ok_or(DecodeError::NumberRange)?;
    let expected = if file == before.file { before.end() } else { 0 };
    let offset = expected.wrapping_add(reader.varint()?.cast_unsigned());
    *before = FrameRef { file, offset, len: reader.uvarint32()? };
    Ok(*before)
}

fn put_entries(out: &mut Vec<u8>, place: usize, entries: &[ChunkEntry]) {
    put_uvarint(out, entries.len() as u64);
    let mut expected = Expected::new(place);
    for entry in entries {
        let step = entry.at.frame - expected.at.frame;
        let place_given = entry.at.place != expected.place(step);
        let column_given = entry.column.is_some_and(|column| column != expected.column);
        let tag = (step as u64) << TAG_BITS
            | if place_given { PLACE_GIVEN } else { 0 }
            | if entry.column.is_none() { OWN_TIMES } else { 0 }
            | if column_given { COLUMN_GIVEN } else { 0 };
        put_uvarint(out, tag);
        if place_given {
            put_uvarint(out, entry.at.place as u64);
        }
        if let Some(column) = entry.column.filter(|_| column_given) {
            let step = |to: usize, from: usize| (to as u64).wrapping_sub(from as u64).cast_signed();
            put_varint(out, step(column.frame, expected.column.frame));
            put_varint(out, step(column.place, expected.column.place));
        }
        expected.took(entry);
    }
}

/// A directory, for reading.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    plain: &'a [u8],
    first: u32,
    len: usize,
    samples: Vec<SampleFrame>,
    columns: Vec<FrameRef>,
}

impl<'a> Directory<'a> {
    /// Of an unpacked frame.
    pub(super) fn decode(plain: &'a [u8]) -> Result<Self, DecodeError> {
        let len = chunks_of(plain)?.checked_sub(1).ok_or(DecodeError::UnexpectedEnd)?;
        let mut reader = Reader::new(chunk_of(plain, 0)?);
        let first = reader.uvarint32()?;
        let mut before = FrameRef { file: 1, offset: 0, len: 0 };
        let mut at = 0i64;
        let count = reader.count(5)?;
        let mut samples = Vec::with_capacity(count);
        for _ in 0..count {
            let frame = get_frame_ref(&mut reader, &mut before)?;
            let min = at.wrapping_add(reader.varint()?);
            let max = min.wrapping_add(reader.uvarint()?.cast_signed());
            if max < min {
                return Err(DecodeError::Inconsistent("times of a frame"));
            }
            samples.push(SampleFrame { at: frame, range: TimeRange::new(min, max) });
            at = max;
        }
        let count = reader.count(3)?;
        let columns =
            (0..count).map(|_| get_frame_ref(&mut reader, &mut before)).collect::<Result<_, _>>()?;
        if !reader.is_empty() {
            return Err(DecodeError::Inconsistent("length of a directory"));
        }
        Ok(Self { plain, first, len, samples, columns })
    }

    /// Number of its first series.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// How many series it has.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Its frames of samples.
    pub(super) fn samples(&self) -> &[SampleFrame] {
        &self.samples
    }

    /// Its frames of columns.
    pub(super) fn columns(&self) -> &[FrameRef] {
        &self.columns
    }

    /// Hands the chunks of the series at `place` to `take`, in order of frames; all of them name frames that there are.
    pub(super) fn series<E: From<DecodeError>>(
        &self,
        place: usize,
        mut take: impl FnMut(&ChunkEntry, &SampleFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = Reader::new(chunk_of(self.plain, place.saturating_add(1))?);
        let mut expected = Expected::new(place);
        for _ in 0..reader.count(1)? {
            let entry = get_entry(&mut reader, &expected)?;
            if entry.column.is_some_and(|column| column.frame >= self.columns.len()) {
                return Err(DecodeError::Inconsistent("frame of a column").into());
            }
            let frame =
                self.samples.get(entry.at.frame).ok_or(DecodeError::Inconsistent("frame of a chunk"))?;
            take(&entry, frame)?;
            expected.took(&entry);
        }
        if reader.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Inconsistent("length of a list of chunks").into())
        }
    }
}

fn get_entry(reader: &mut Reader<'_>, expected: &Expected) -> Result<ChunkEntry, DecodeError> {
    let usize_of = |value: u64| usize::try_from(value).map_err(|_| DecodeError::NumberRange);
    let tag = reader.uvarint()?;
    let step = usize_of(tag >> TAG_BITS)?;
    let frame = expected.at.frame.checked_add(step).ok_or(DecodeError::NumberRange)?;
    let place = if tag & PLACE_GIVEN != 0 { usize_of(reader.uvarint()?)? } else { expected.place(step) };
    let column = if tag & OWN_TIMES != 0 {
        None
    } else if tag & COLUMN_GIVEN != 0 {
        let mut moved = |from: usize| usize_of((from as u64).wrapping_add(reader.varint()?.cast_unsigned()));
        Some(InFrame { frame: moved(expected.column.frame)?, place: moved(expected.column.place)? })
    } else {
        Some(expected.column)
    };
    Ok(ChunkEntry { at: InFrame { frame, place }, column })
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::frame::{Compression, decode_frame};
    use proptest::prelude::*;

    fn plain(builder: &DirectoryBuilder) -> Vec<u8> {
        let (mut frame, mut out) = (FrameBuilder::new(), Vec::new());
        builder.encode(&mut frame);
        frame.finish(Compression::None, &mut out);
        decode_frame(&out).unwrap()
    }

    fn entries(directory: &Directory<'_>, place: usize) -> Result<Vec<ChunkEntry>, DecodeError> {
        let mut all = Vec::new();
        directory.series(place, |entry, _| {
            all.push(*entry);
            Ok::<(), DecodeError>(())
        })?;
        Ok(all)
    }

    #[test]
    fn regular_batches_take_a_byte_for_a_chunk() {
        let frame = |n: u32| FrameRef { file: 1, offset: u64::from(n) * 5000, len: 5000 };
        let samples = (0..100).map(|n| SampleFrame { at: frame(n), range: TimeRange::new(0, 1) }).collect();
        let entry = |series, n| ChunkEntry {
            at: InFrame { frame: n, place: series },
            column: Some(InFrame { frame: series, place: n }),
        };
        let series = (0..64).map(|series| (0..100).map(|n| entry(series, n)).collect()).collect();
        let builder =
            DirectoryBuilder { first: 64, samples, columns: (100..164).map(frame).collect(), series };
        let plain = plain(&builder);
        assert!(plain.len() < 64 * 106 + 1600, "{}", plain.len());
        let directory = Directory::decode(&plain).unwrap();
        assert_eq!((directory.first(), directory.len()), (64, 64));
        assert_eq!(entries(&directory, 63).unwrap(), builder.series[63]);
    }

    proptest! {
        #[test]
        fn directories_come_back(
            first in any::<u32>(),
            frames in prop::collection::vec((1u32..5, any::<u64>(), any::<u32>(), any::<i64>(), 0i64..1000), 1..20),
            columns in prop::collection::vec((1u32..5, any::<u64>(), any::<u32>()), 1..20),
            lists in prop::collection::vec(prop::collection::vec((0usize..20, 0usize..100, prop::option::of((0usize..20, 0usize..300))), 0..30), 0..64),
        ) {
            let samples: Vec<_> = frames.iter().map(|(file, offset, len, min, span)| SampleFrame {
                at: FrameRef { file: *file, offset: *offset, len: *len },
                range: TimeRange::new(*min, min.saturating_add(*span)),
            }).collect();
            let columns: Vec<_> =
                columns.iter().map(|(file, offset, len)| FrameRef { file: *file, offset: *offset, len: *len }).collect();
            let mut series: Vec<Vec<ChunkEntry>> = lists.iter().map(|list| list.iter().map(|(frame, place, column)| ChunkEntry {
                at: InFrame { frame: frame % samples.len(), place: *place },
                column: column.map(|(frame, place)| InFrame { frame: frame % columns.len(), place }),
            }).collect()).collect();
            series.iter_mut().for_each(|list| list.sort_by_key(|entry| entry.at.frame));
            let builder = DirectoryBuilder { first, samples, columns, series };
            let plain = plain(&builder);
            let directory = Directory::decode(&plain).unwrap();
            prop_assert_eq!(directory.first(), first);
            prop_assert_eq!(directory.samples(), &builder.samples[..]);
            prop_assert_eq!(directory.columns(), &builder.columns[..]);
            prop_assert_eq!(directory.len(), builder.series.len());
            for (place, list) in builder.series.iter().enumerate() {
                prop_assert_eq!(&entries(&directory, place).unwrap(), list);
            }
            prop_assert!(entries(&directory, builder.series.len()).is_err());
        }

        #[test]
        fn any_bytes_are_survived(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
            let (mut frame, mut out) = (FrameBuilder::new(), Vec::new());
            chunks.iter().for_each(|chunk| frame.push(chunk));
            frame.finish(Compression::None, &mut out);
            let plain = decode_frame(&out).unwrap();
            if let Ok(directory) = Directory::decode(&plain) {
                (0..4).for_each(|place| drop(entries(&directory, place)));
            }
            for chunk in &chunks {
                let _ = Place::decode(chunk);
            }
        }

        #[test]
        fn places_come_back(file in 1u32.., offset in any::<u64>(), len in any::<u32>(), behind in 1u32..) {
            for place in [Place::First(FrameRef { file, offset, len }), Place::Behind(behind)] {
                let mut out = Vec::new();
                place.encode(&mut out);
                prop_assert_eq!(Place::decode(&out), Ok(place));
            }
        }
    }
}
