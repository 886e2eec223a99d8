//! Files that are a header and frames, one behind the other: walks over all of them, over damage too.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::Path;

use model::storage::StorageError;

use crate::frame::{FRAME_HEAD_LEN, decode_frame, frame_len, read_frame};
use crate::fs::ReadAt;

/// Most bytes of a file that are looked through for a sound frame behind a bad one.
const SCAN_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of which checksums are computed meanwhile.
const WORK_BYTES_MAX: usize = 1 << 30;

/// What is wrong with the frames of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Frames that are damaged, and what was found there.
    pub(super) damage: Vec<(u64, String)>,
    /// Where a frame begins that goes beyond the end of the file, if the file ends so.
    pub(super) unfinished: Option<u64>,
}

/// Reads all frames from `from` on.
pub(super) fn walk(file: &dyn ReadAt, path: &Path, from: u64) -> Walk {
    let mut walk = Walk::default();
    let mut at = from;
    while at < file.len() {
        let error = match whole_frame(file, path, at) {
            Ok(len) => {
                at += len;
                continue;
            }
            Err(error) => error,
        };
        match next_sound(file, at) {
            Ok(Some(next)) => {
                walk.damage.push((at, what(error)));
                at = next;
            }
            // It is the last one, and was being written.
            Ok(None) if goes_beyond(file, at) => {
                walk.unfinished = Some(at);
                break;
            }
            Ok(None) => {
                walk.damage.push((at, what(error)));
                break;
            }
            Err(error) => {
                walk.damage.push((at, format!("cannot be read: {error}")));
                break;
            }
        }
    }
    walk
}

fn what(error: StorageError) -> String {
    match error {
        StorageError::Corrupted { what, .. } => what,
        StorageError::Io { source, .. } => format!("cannot be read: {source}"),
        other => other.to_string(),
    }
}

/// The length of the frame at `at`, when it is sound.
fn whole_frame(file: &dyn ReadAt, path: &Path, at: u64) -> Result<u64, StorageError> {
    let len = head_len(file, at).map_err(|source| StorageError::Io {
        what: "read frame",
        path: path.to_owned(),
        source,
    })?;
    // Without a length there is no frame; one that is none would never end the walk.
    read_frame(file, path, at, len).map(|_| len.unwrap_or(1) as u64)
}

/// What the head of a frame says of its length; `None` when it makes no sense.
fn head_len(file: &dyn ReadAt, at: u64) -> std::io::Result<Option<usize>> {
    let mut head = [0; FRAME_HEAD_LEN];
    if file.len() - at < head.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, at)?;
    Ok(frame_len(&head).ok())
}

/// Whether what begins at `at` would end behind the end of the file.
fn goes_beyond(file: &dyn ReadAt, at: u64) -> bool {
    let left = file.len() - at;
    left < FRAME_HEAD_LEN as u64
        || head_len(file, at).is_ok_and(|len| len.is_some_and(|len| len as u64 > left))
}

/// Where the first sound frame behind `at` begins.
fn next_sound(file: &dyn ReadAt, at: u64) -> std::io::Result<Option<u64>> {
    let left = (file.len() - at).min(SCAN_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(0)];
    file.read_exact_at(&mut bytes, at)?;
    let mut work = WORK_BYTES_MAX;
    for skip in 1..bytes.len() {
        let rest = bytes.get(skip..).unwrap_or_default();
        let Some(frame) = frame_len(rest).ok().and_then(|len| rest.get(..len)) else { continue };
        if decode_frame(frame).is_ok() {
            return Ok(Some(at + skip as u64));
        }
        let Some(left) = work.checked_sub(frame.len()) else { break };
        work = left;
    }
    Ok(None)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;
    use crate::frame::{Compression, encode_frame};
    use crate::fs::{FaultyFs, FileSystem};

    const HEADER: usize = 16;

    /// A header, and frames of these lengths; where they begin.
    fn file(lens: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = vec![7; HEADER];
        let mut starts = Vec::new();
        for len in lens {
            starts.push(bytes.len());
            let chunk: Vec<u8> = (0..*len).map(|n| (n * n) as u8).collect();
            encode_frame(&[&chunk, b"x"], Compression::Lz4, &mut bytes);
        }
        (bytes, starts)
    }

    fn walked(bytes: &[u8]) -> Walk {
        let fs = FaultyFs::new();
        let path = Path::new("/f");
        fs.write(path, bytes.to_vec());
        walk(&*fs.open_at(path).unwrap(), path, HEADER as u64)
    }

    #[test]
    fn every_flipped_bit_is_named_by_its_frame_and_the_others_are_read() {
        let (bytes, starts) = file(&[10, 300, 0, 50]);
        assert_eq!(walked(&bytes), Walk::default());
        for at in HEADER..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let start = *starts.iter().rev().find(|start| **start <= at).unwrap() as u64;
                let found = walked(&bytes);
                // A length that is damaged may make the last frame look unfinished.
                let named = match found.damage.as_slice() {
                    [] => found.unfinished == Some(start) && Some(&(start as usize)) == starts.last(),
                    [(offset, _)] => *offset == start && found.unfinished.is_none(),
                    _ => false,
                };
                assert!(named, "byte {at}, bit {bit}: {found:?}");
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_is_unfinished() {
        let (bytes, starts) = file(&[100, 100]);
        for len in starts[1] + 1..bytes.len() {
            let found = walked(&bytes[..len]);
            assert_eq!(found, Walk { damage: Vec::new(), unfinished: Some(starts[1] as u64) }, "{len}");
        }
    }
}
