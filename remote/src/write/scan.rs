//! What a request holds, series by series: keys to recognise them by, and the samples of those with just one float.
//!
//! Nearly all series of nearly all requests are a list of labels and one float. These are read in one pass, without
//! allocation; all else is only looked at so far as to know that it is there, and read when its turn comes.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::Timestamp;
use model::sample::NORMAL_NAN_BITS;
use model::storage::ABSENT_BITS;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::v1::{read_metadata, read_sample};
use super::v2;
use crate::protobuf::{DecodeError, Reader, WireError};

/// What a series is recognised by: a seeded hash of its labels as sent. The seed is random for each process, so nobody can
/// prepare two label sets that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) [u64; 2]);

impl Key {
    fn of(bytes: &[u8], seed: u64) -> Self {
        let hash = xxh3_128_with_seed(bytes, seed);
        let low = u64::try_from(hash & u128::from(u64::MAX)).unwrap_or_default();
        Self([low, (hash >> 64) as u64])
    }
}

/// One series of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// `None`: its labels do not stand together.
    pub(super) key: Option<Key>,
    /// The only sample, if `simple`.
    pub(super) t: Timestamp,
    /// Its value.
    pub(super) v: f64,
    /// Where the message begins in the request.
    start: u32,
    len: u32,
    /// Whether there is one float without a start timestamp, no other sample, and a key.
    pub(super) simple: bool,
    /// Whether there are exemplars or metadata.
    pub(super) extras: bool,
}

impl Item {
    /// The series' message.
    pub(super) fn message<'a>(&self, request: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        request.get(start..start + self.len as usize).unwrap_or_default()
    }

    fn at(start: usize, len: usize, key: Option<Key>) -> Result<Self, DecodeError> {
        let narrow = |n: usize| u32::try_from(n).map_err(|_| WireError::Truncated(n));
        let (start, len) = (narrow(start)?, narrow(len)?);
        Ok(Self { key, t: 0, v: 0.0, start, len, simple: false, extras: false })
    }

    /// Takes note of one sample of all.
    fn sampled(&mut self, t: Timestamp, v: f64) {
        (self.t, self.v, self.simple) = (t, present(v), self.key.is_some());
    }
}

/// The NaN that stands for an absent sample in rows is a NaN like any other here.
pub(super) fn present(v: f64) -> f64 {
    if v.to_bits() == ABSENT_BITS { f64::from_bits(NORMAL_NAN_BITS) } else { v }
}

/// Reads a request of remote write 1.0.
///
/// # Errors
/// When the bytes are no `WriteRequest`.
pub(super) fn scan_v1(request: &[u8], seed: u64, items: &mut Vec<Item>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(request);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => {
                let message = field.bytes()?;
                let start = reader.position() - message.len();
                items.push(series_v1(message, start, seed)?);
            }
            3 => {
                // Metadata of 1.0 requests are per metric family, not per series; targets' metadata serve the API.
                read_metadata(field.bytes()?)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn series_v1(message: &[u8], start: usize, seed: u64) -> Result<Item, DecodeError> {
    if let Some((labels, t, v)) = plain_v1(message) {
        let mut item = Item::at(start, message.len(), Some(Key::of(labels, seed)))?;
        item.sampled(t, v);
        return Ok(item);
    }
    // Senders write all labels first: then they are one run of bytes at the start of the message. It is scanned to its
    // end all the same, or labels further on would be missed and two series taken for one.
    let (mut labels_end, mut contiguous, mut others) = (0, true, false);
    let (mut samples, mut histograms, mut extras) = (0, false, false);
    let (mut t, mut v) = (0, 0.0);
    let mut reader = Reader::new(message);
    while let Some(field) = reader.next_field()? {
        if field.number == 1 {
            contiguous &= !others;
            labels_end = reader.position();
            continue;
        }
        others = true;
        match field.number {
            2 => {
                samples += 1;
                (t, v) = read_sample(field.bytes()?)?;
            }
            3 => extras = true,
            4 => histograms = true,
            _ => {}
        }
    }
    let labels = message.get(..labels_end).filter(|_| contiguous);
    let mut item = Item::at(start, message.len(), labels.map(|labels| Key::of(labels, seed)))?;
    item.extras = extras;
    if samples == 1 && !histograms {
        item.sampled(t, v);
    }
    Ok(item)
}

/// The labels and the sample of a series as senders write nearly all: labels, then one sample, with short lengths and
/// fields in order. `None`: not so, or malformed.
fn plain_v1(message: &[u8]) -> Option<(&[u8], Timestamp, f64)> {
    const LABEL: u8 = 1 << 3 | 2;
    const SAMPLE: u8 = 2 << 3 | 2;
    const VALUE: u8 = 1 << 3 | 1;
    const TIME: u8 = 2 << 3;
    let mut at = 0;
    while *message.get(at)? == LABEL {
        let low = usize::from(*message.get(at + 1)?);
        at += if low < 0x80 {
            2 + low
        } else {
            let high = usize::from(*message.get(at + 2)?);
            if high >= 0x80 {
                return None;
            }
            3 + (low & 0x7f | high << 7)
        };
    }
    let (labels, sample) = message.split_at_checked(at)?;
    let [SAMPLE, len, sample @ ..] = sample else { return None };
    if usize::from(*len) != sample.len() || *len >= 0x80 {
        return None;
    }
    // A value of zero may be left out.
    let (v, time) = match sample {
        [VALUE, rest @ ..] => {
            let (bits, rest) = rest.split_first_chunk::<8>()?;
            (f64::from_bits(u64::from_le_bytes(*bits)), rest)
        }
        _ => (0.0, sample),
    };
    let [TIME, time @ ..] = time else { return None };
    let (last, before) = time.split_last()?;
    // Nine bytes hold 63 bits: enough for times after 1970.
    if *last >= 0x80 || time.len() > 9 || before.iter().any(|byte| *byte < 0x80) {
        return None;
    }
    let t = time.iter().rev().fold(0u64, |t, byte| t << 7 | u64::from(byte & 0x7f));
    Some((labels, t.cast_signed(), v))
}

/// Reads the series of a request of remote write 2.0. Texts are hashed once each, and series by the hashes of theirs, since
/// references differ from request to request.
///
/// # Errors
/// When a series is malformed, or a reference leads nowhere.
pub(super) fn scan_v2(
    decoded: &v2::Request<'_>,
    seed: u64,
    items: &mut Vec<Item>,
) -> Result<(), DecodeError> {
    // Another seed keeps these keys apart from those of 1.0.
    let seed = seed ^ 0x9e37_79b9_7f4a_7c15;
    let hashes: Vec<[u8; 16]> = decoded
        .symbols()
        .iter()
        .map(|text| xxh3_128_with_seed(text.as_bytes(), seed).to_le_bytes())
        .collect();
    let mut key = Vec::new();
    for (start, message) in decoded.messages() {
        key.clear();
        let (mut samples, mut others, mut extras) = (0, false, false);
        let mut sample = (0, None, 0.0);
        let mut references = 0usize;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => {
                    let mut packed = Reader::new(field.bytes()?);
                    while let Some(reference) = packed.next_packed_varint()? {
                        let hash = usize::try_from(reference).ok().and_then(|index| hashes.get(index));
                        key.extend_from_slice(hash.ok_or(DecodeError::SymbolOutOfRange(reference))?);
                        references += 1;
                    }
                }
                2 => {
                    samples += 1;
                    sample = v2::read_sample(field.bytes()?)?;
                }
                3 => others = true,
                4 => extras = true,
                5 => extras |= !field.bytes()?.is_empty(),
                _ => {}
            }
        }
        if !references.is_multiple_of(2) {
            return Err(DecodeError::OddLabelReferences);
        }
        let mut item = Item::at(start, message.len(), Some(Key::of(&key, seed)))?;
        item.extras = extras;
        if let (1, false, (t, None, v)) = (samples, others, sample) {
            item.sampled(t, v);
        }
        items.push(item);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(number: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut len = body.len();
        while len >= 0x80 {
            out.push((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        out.push((len & 0x7f) as u8);
        out.extend_from_slice(body);
        out
    }

    fn sample(t: u64, v: Option<f64>) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(v) = v {
            body.push(1 << 3 | 1);
            body.extend_from_slice(&v.to_le_bytes());
        }
        body.push(2 << 3);
        let mut t = t;
        while t >= 0x80 {
            body.push((t & 0x7f) as u8 | 0x80);
            t >>= 7;
        }
        body.push((t & 0x7f) as u8);
        message(2, &body)
    }

    #[test]
    fn what_cannot_be_absent_is_a_nan() {
        let absent = f64::from_bits(ABSENT_BITS);
        let request = message(1, &[message(1, b"\x0a\x01a"), sample(5, Some(absent))].concat());
        let mut items = Vec::new();
        scan_v1(&request, 1, &mut items).unwrap();
        assert_eq!(items[0].v.to_bits(), NORMAL_NAN_BITS);
    }

    proptest! {
        /// The short cut agrees with the whole way, and neither takes what is malformed.
        #[test]
        fn plain_series_are_read_alike(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4),
            t in any::<u64>(),
            v in prop::option::of(any::<f64>()),
            flip in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut body: Vec<u8> = labels.iter().flat_map(|label| message(1, label)).collect();
            let end = body.len();
            body.extend(sample(t, v));
            if let Some((at, byte)) = flip {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let whole = super::super::v1::TimeSeries::new(&body);
            if let Some((raw, t, v)) = plain_v1(&body) {
                let whole = whole.unwrap();
                prop_assert_eq!(whole.raw_labels, Some(raw));
                let mut samples = Vec::new();
                whole.samples::<DecodeError>(|t, v| { samples.push((t, v)); Ok(()) }).unwrap();
                prop_assert_eq!(samples.len(), 1);
                prop_assert_eq!(samples[0].0, t);
                prop_assert!(matches!(samples[0].1, model::SampleValue::Float(got) if got.to_bits() == v.to_bits()));
            } else if flip.is_none() {
                prop_assert!(t >> 63 != 0, "the usual form is taken, {end}");
            }
        }
    }
}
