//! A closed chunk of a series' own: in memory, or in a frame of a head chunk file.

use std::sync::Arc;

use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;

use crate::chunk::{Chunk, decode_into};
use crate::coding::DecodeError;
use crate::columns::Columns;
use crate::frame::chunk_of;
use crate::head_chunks::{FilePosition, HeadFile};

/// A chunk of a series' own.
#[derive(Clone, Debug)]
pub(crate) struct OwnChunk {
    pub(crate) min_t: Timestamp,
    pub(crate) max_t: Timestamp,
    pub(crate) bytes: ChunkBytes,
}

/// Where a chunk is.
#[derive(Clone, Debug)]
pub(crate) enum ChunkBytes {
    Memory(Box<[u8]>),
    File(FilePlace),
}

/// A chunk in a frame of a file.
#[derive(Clone, Debug)]
pub(crate) struct FilePlace {
    pub(crate) file: Arc<HeadFile>,
    /// Files have at most 2^28 bytes.
    pub(crate) offset: u32,
    /// Length of the frame, above the index of the chunk in it, which has six bits.
    pub(crate) len_and_index: u32,
}

impl FilePlace {
    fn read<R>(&self, take: impl FnOnce(&[u8]) -> Result<R, DecodeError>) -> Result<R, StorageError> {
        let (offset, index) = (u64::from(self.offset), self.len_and_index & 63);
        let plain = self.file.frame(offset, self.len_and_index >> 6)?;
        let chunk = chunk_of(&plain, index as usize).and_then(take);
        chunk.map_err(|error| self.file.damaged(offset, error))
    }
}

impl OwnChunk {
    pub(super) fn range(&self) -> TimeRange {
        TimeRange::new(self.min_t, self.max_t)
    }

    /// Whether it is in a file, before this place.
    pub(super) fn is_before(&self, place: FilePosition) -> bool {
        let at = |chunk: &FilePlace| FilePosition::new(chunk.file.number, u64::from(chunk.offset));
        matches!(&self.bytes, ChunkBytes::File(chunk) if at(chunk) < place)
    }

    /// The file that it is in.
    pub(crate) fn file(&self) -> Option<&Arc<HeadFile>> {
        match &self.bytes {
            ChunkBytes::Memory(_) => None,
            ChunkBytes::File(place) => Some(&place.file),
        }
    }

    /// Appends its samples.
    pub(crate) fn read(&self, into: &mut Columns) -> Result<(), StorageError> {
        match &self.bytes {
            ChunkBytes::Memory(bytes) => decode_into(bytes, None, into).map_err(in_memory),
            ChunkBytes::File(place) => place.read(|bytes| decode_into(bytes, None, into)),
        }
    }
}

impl From<Chunk> for OwnChunk {
    fn from(chunk: Chunk) -> Self {
        Self { min_t: chunk.min_t, max_t: chunk.max_t, bytes: ChunkBytes::Memory(chunk.bytes) }
    }
}

pub(super) fn in_memory(what: DecodeError) -> StorageError {
    StorageError::Corrupted { file: "(head in memory)".into(), offset: 0, what: what.to_string() }
}
