//! Reading chunks that are written against others: the values of the chain that was read last are kept for its neighbours.
//!
//! The buckets of a histogram are mostly read one after the other. Each needs its bases; kept, a chain is decoded once for all
//! its chunks, in whatever order they are asked for.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::sample::Timestamp;

use super::{
    KIND_FLOATS, KIND_FLOATS_AGAINST, KIND_MASK, OWN_TIMES, STARTS, decode_against, info, nm, parts,
};
use crate::coding::{DecodeError, Reader};
use crate::columns::Columns;

/// Chunks that reading one of a frame may need besides it: what bounds the work that a chain of bases makes.
pub(crate) const CHAIN_MAX: usize = 16;
/// Values of a chunk up to which they are kept: more than writers put into one that is against another. 340 KiB with
/// [`CHAIN_MAX`].
const KEPT_SAMPLES_MAX: usize = 2560;

/// The chain that was read last. `K` names a frame.
#[derive(Debug)]
pub(crate) struct Chains<K> {
    frame: Option<K>,
    /// Place of the chunk without base.
    first: usize,
    /// Values of the chunks from there on: so many are known, behind them is memory for more.
    values: Vec<Vec<f64>>,
    known: usize,
}

impl<K> Default for Chains<K> {
    fn default() -> Self {
        Self { frame: None, first: 0, values: Vec::new(), known: 0 }
    }
}

impl<K: PartialEq> Chains<K> {
    /// Appends the samples of chunk `place` of a frame; `chunk` gives the frame's chunks by place. A chunk
    /// [against][super::ChunkInfo::against] another is against the one before it in the frame, which has the same times and
    /// rows.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes, or a chain of more than [`CHAIN_MAX`] bases; `out` is as before then.
    pub(crate) fn decode<'a>(
        &mut self,
        frame: K,
        chunk: impl Fn(usize) -> Result<&'a [u8], DecodeError>,
        place: usize,
        times: Option<&[Timestamp]>,
        out: &mut Columns,
    ) -> Result<(), DecodeError> {
        const CHAIN: DecodeError = DecodeError::Inconsistent("chain of chunks");
        let bytes = chunk(place)?;
        let last = info(bytes)?;
        let mut first = place;
        while first == place && last.against || first < place && info(chunk(first)?)?.against {
            first = first.checked_sub(1).filter(|first| place - first <= CHAIN_MAX).ok_or(CHAIN)?;
        }
        if first == place {
            return decode_against(bytes, times, None, out);
        }
        if info(chunk(first)?)?.count != last.count {
            return Err(DecodeError::Inconsistent("chunk without its base"));
        }
        let mut short_lived = Self::default();
        let kept = if last.count > KEPT_SAMPLES_MAX { &mut short_lived } else { self };
        if kept.frame.as_ref() != Some(&frame) || kept.first != first {
            (kept.frame, kept.first, kept.known) = (Some(frame), first, 0);
        }
        for at in first + kept.known..=place {
            kept.learn(chunk(at)?, times)?;
        }
        let index = place - first;
        let values = kept.values.get(index).map_or(&[][..], Vec::as_slice);
        if append_known(bytes, times, values, out)? {
            return Ok(());
        }
        let base = index.checked_sub(1).and_then(|before| kept.values.get(before));
        decode_against(bytes, times, base.map(Vec::as_slice), out)
    }

    /// Decodes the chunk behind those that are known.
    fn learn(&mut self, bytes: &[u8], times: Option<&[Timestamp]>) -> Result<(), DecodeError> {
        if self.values.len() == self.known {
            self.values.push(Vec::new());
        }
        let (before, rest) = self.values.split_at_mut(self.known);
        let Some(values) = rest.first_mut() else { return Ok(()) };
        values.clear();
        values_of(bytes, times, before.last().map(Vec::as_slice), values)?;
        self.known += 1;
        Ok(())
    }
}

/// Replaces `out` by the values of a chunk of floats.
fn values_of(
    bytes: &[u8],
    times: Option<&[Timestamp]>,
    base: Option<&[f64]>,
    out: &mut Vec<f64>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    if !matches!(tag, KIND_FLOATS | KIND_FLOATS_AGAINST) {
        let mut columns = Columns::default();
        decode_against(bytes, times, base, &mut columns)?;
        *out = columns.values;
        return Ok(());
    }
    let count = super::sample_count(&mut reader)?;
    match tag {
        KIND_FLOATS => nm::decode_values(&mut reader, count, out)?,
        _ => nm::decode_against(&mut reader, super::fitting_base(base, count)?, out)?,
    }
    if reader.is_empty() { Ok(()) } else { Err(DecodeError::Inconsistent("end of a chunk")) }
}

/// Appends the samples of a chunk of floats whose values are known; whether its head tells all the rest.
fn append_known(
    bytes: &[u8],
    times: Option<&[Timestamp]>,
    values: &[f64],
    out: &mut Columns,
) -> Result<bool, DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8()?;
    let Some(times) =
        times.filter(|_| tag & (OWN_TIMES | STARTS) == 0 && tag & KIND_MASK == KIND_FLOATS_AGAINST)
    else {
        return Ok(false);
    };
    let count = super::sample_count(&mut reader)?;
    let before = out.times.len();
    let done = parts::get_presence(tag, &mut reader, times, &mut out.times);
    if done.is_err() || out.times.len() != before + count || values.len() != count {
        out.times.truncate(before);
        return done.and(Err(DecodeError::Inconsistent("number of samples")));
    }
    out.values.extend_from_slice(values);
    if !out.starts.is_empty() {
        out.starts.resize(before + count, 0);
    }
    Ok(true)
}
