//! Columns of times: ascending as a rule, any `i64` in truth, through the integers of the float codec.
//!
//! A perfectly regular column takes a dozen bytes in all; one with a jitter of a few milliseconds about two bits a row.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::sample::Timestamp;

use super::nm::{Effort, integers, plan};
use crate::coding::{DecodeError, Reader};

/// Appends a column of times, whose number the reader must know. Nothing for an empty column.
pub(crate) fn encode_times(times: &[Timestamp], out: &mut Vec<u8>) {
    plan::encode(&mut times.to_vec(), Effort::Quick, out);
}

/// Appends `count` times that [`encode_times`] wrote; reads exactly those bytes and takes memory for `count` times at most.
///
/// # Errors
/// Whatever is wrong with the bytes; `out` is as long as before then.
pub(crate) fn decode_times(
    reader: &mut Reader<'_>,
    count: usize,
    out: &mut Vec<Timestamp>,
) -> Result<(), DecodeError> {
    let before = out.len();
    out.reserve(count);
    let done = integers::decode(reader, count, |part| out.extend_from_slice(part));
    if done.is_err() {
        out.truncate(before);
    }
    done
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn len_of(times: &[Timestamp]) -> usize {
        let mut bytes = Vec::new();
        encode_times(times, &mut bytes);
        let mut read = vec![7];
        decode_times(&mut Reader::new(&bytes), times.len(), &mut read).unwrap();
        assert_eq!(&read[1..], times);
        bytes.len()
    }

    #[test]
    fn regular_times_take_next_to_nothing() {
        let start = 1_764_000_000_123i64;
        assert!(len_of(&(0..480).map(|i| start + i * 15_000).collect::<Vec<_>>()) <= 13);
        // A scrape left out twice.
        let gaps = (0..480).filter(|i| *i != 100 && *i != 101).map(|i| start + i * 15_000);
        assert!(len_of(&gaps.collect::<Vec<_>>()) <= 24);
        // 0 to 3 ms of jitter: two bits of it, and a bit for the sum of two.
        let jitter = (0..480).map(|i| start + i * 15_000 + (i * 7919 % 31) % 4);
        assert!(len_of(&jitter.collect::<Vec<_>>()) <= 480 * 3 / 8 + 24);
        assert_eq!(len_of(&[]), 0);
        len_of(&[i64::MIN, -1, 0, i64::MAX]);
    }
}
