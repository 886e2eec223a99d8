//! What float and histogram chunks have in common besides values: which rows have a sample, and start timestamps.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::sample::Timestamp;

use crate::coding::{DecodeError, Reader, put_uvarint, put_varint};

/// Which rows of shared times have a sample, as flags of the first byte.
pub(super) const PRESENCE_BITMAP: u8 = 2;
pub(super) const PRESENCE_RUNS: u8 = 4;

/// Appends which of the rows are present, as a bitmap or as runs, whichever is smaller; answers the flag. Nothing, and 0,
/// if all are.
pub(super) fn put_presence(present: &[bool], out: &mut Vec<u8>) -> u8 {
    if present.iter().all(|present| *present) {
        return 0;
    }
    let at = out.len();
    let bitmap = present.len().div_ceil(8);
    let runs = || present.chunk_by(|a, b| a == b);
    // Runs alternate, absent ones first; the last one needs no length.
    let leading = usize::from(present.first() == Some(&true));
    let lengths = leading + runs().count() - 1;
    if lengths < bitmap {
        put_uvarint(out, lengths as u64);
        if leading == 1 {
            put_uvarint(out, 0);
        }
        for run in runs().take(lengths - leading) {
            put_uvarint(out, run.len() as u64);
        }
        if out.len() - at <= bitmap {
            return PRESENCE_RUNS;
        }
        out.truncate(at);
    }
    for rows in present.chunks(8) {
        out.push(rows.iter().rev().fold(0, |byte, present| byte << 1 | u8::from(*present)));
    }
    PRESENCE_BITMAP
}

/// Appends the times of the present rows.
pub(super) fn get_presence(
    flags: u8,
    reader: &mut Reader<'_>,
    times: &[Timestamp],
    out: &mut Vec<Timestamp>,
) -> Result<(), DecodeError> {
    match flags & (PRESENCE_BITMAP | PRESENCE_RUNS) {
        0 => out.extend_from_slice(times),
        PRESENCE_BITMAP => {
            let bits = reader.bytes(times.len().div_ceil(8))?;
            for (times, byte) in times.chunks(8).zip(bits) {
                out.extend(times.iter().enumerate().filter(|(row, _)| byte >> row & 1 == 1).map(|(_, t)| *t));
            }
        }
        PRESENCE_RUNS => {
            let (mut rest, mut present) = (times, false);
            for _ in 0..reader.count(1)? {
                let len = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
                let (run, tail) =
                    rest.split_at_checked(len).ok_or(DecodeError::Inconsistent("run of present rows"))?;
                if present {
                    out.extend_from_slice(run);
                }
                (rest, present) = (tail, !present);
            }
            if present {
                out.extend_from_slice(rest);
            }
        }
        _ => return Err(DecodeError::Unknown("kind of presence")),
    }
    Ok(())
}

/// Appends start timestamps as runs of equal ones: lengths with a flag for known ones, then the start as difference to
/// the known one before, at first to `base`.
pub(super) fn put_starts(starts: &[Timestamp], base: Timestamp, out: &mut Vec<u8>) {
    let mut before = base;
    for run in starts.chunk_by(|a, b| a == b) {
        let start = run.first().copied().unwrap_or(0);
        put_uvarint(out, (run.len() as u64) << 1 | u64::from(start != 0));
        if start != 0 {
            put_varint(out, start.wrapping_sub(before));
            before = start;
        }
    }
}

/// Reads the starts of `count` samples and brings `starts` to the length of `before` + `count`.
pub(super) fn get_starts(
    reader: &mut Reader<'_>,
    base: Timestamp,
    before: usize,
    count: usize,
    starts: &mut Vec<Timestamp>,
) -> Result<(), DecodeError> {
    starts.resize(before, 0);
    let (mut left, mut last) = (count, base);
    while left > 0 {
        let code = reader.uvarint()?;
        let len = usize::try_from(code >> 1).map_err(|_| DecodeError::NumberRange)?;
        if len == 0 || len > left {
            return Err(DecodeError::Inconsistent("run of start timestamps"));
        }
        let mut start = 0;
        if code & 1 == 1 {
            last = last.wrapping_add(reader.varint()?);
            start = last;
        }
        left -= len;
        starts.resize(before + count - left, start);
    }
    Ok(())
}
