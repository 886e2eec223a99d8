//! Checkpoints: what the head is, but for the samples that head chunk files have, so that older log segments can go.
//!
//! The format is `docs/formats/checkpoint.md`. A checkpoint is written under a temporary name, synced and renamed, then the
//! directory is synced; only then segments before it are removed. Head chunk files that it names are synced before.
//!
//! It is written while commits go on, each history and each series as it is at that moment. So it may have a part of what the
//! segments behind it say, which replay must take for stored already: rows are told by their times, other samples are looked up.
//! The log is synced before the checkpoint appears, so that it has all of what the checkpoint has a part of.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod load;
mod load_rows;
mod save;
mod save_rows;
#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests;

pub(crate) use load::{Loaded, is_sound, load};
pub(crate) use save::write;

const KIND_HEAD: u8 = 16;
const KIND_SERIES: u8 = 18;
const KIND_HISTORY: u8 = 19;
const KIND_WINDOW: u8 = 20;
const KIND_CHUNKS: u8 = 21;
const KIND_ROWS: u8 = 22;
const KIND_END: u8 = 31;

const PREFIX: &str = "checkpoint.";
const TEMPORARY: &str = ".tmp";

/// The file name of the checkpoint that covers all segments before `number`.
pub(crate) fn checkpoint_name(number: u64) -> String {
    format!("{PREFIX}{number:08}")
}

/// The number in the name of a finished checkpoint.
pub(crate) fn checkpoint_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?;
    number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())?
}

/// Whether this is a checkpoint that was not finished.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(TEMPORARY)
}

/// What the newest in-order sample is.
const LAST_NONE: u8 = 0;
const LAST_FLOAT: u8 = 1;
const LAST_HISTOGRAM: u8 = 2;

/// How much of each there is, as the end says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    series: u64,
    histories: u64,
    windows: u64,
    rows: u64,
}

/// Where a chunk, or the chunks of a window, are.
const IN_LINE: u8 = 0;
const IN_FILE: u8 = 1;
