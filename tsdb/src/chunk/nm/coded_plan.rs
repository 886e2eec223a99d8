//! The writing half of [`super::coded`]: which classes, how often.
#![expect(clippy::indexing_slicing, reason = "writes: sizes are its own, and no byte comes from outside")]
#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "estimates")]

use super::coded::{
    CLASSES_MAX, PATCHES_FLAG, SCALE, SCALE_BITS, STATE_MIN, WEIGHTS, WORD_BITS, frequencies,
};
use super::pack::{BLOCK, pack, packed_len};
use super::plan::{bit_len, pivot, varint_bits};
use crate::coding::{put_uvarint, put_varint, zigzag};

/// Shorter streams do not pay for the head.
const NUMBERS_MIN: usize = 48;
/// Of so many numbers, one may lie outside of all classes.
const OUTSIDE_SHARE: usize = 32;

/// Most classes that a writer takes.
const CLASSES_TRIED: i64 = 48;

/// How a stream is to be written.
pub(super) struct CodedPlan {
    low_bits: u32,
    /// In steps of 2^`low_bits`.
    base: i64,
    codes: Vec<u8>,
    frequencies: [u32; CLASSES_MAX],
    outside: bool,
    /// Bits, by estimate.
    pub(super) cost: usize,
}

impl CodedPlan {
    /// The cheapest plan, if it costs less than `bound`.
    pub(super) fn of(stream: &[i64], bound: usize) -> Option<Self> {
        if stream.len() < NUMBERS_MIN {
            return None;
        }
        let (min, max) = inner_range(stream)?;
        // Some 24 to 48 classes, and in a second try half as many.
        let range = max.wrapping_sub(min).cast_unsigned();
        let mut fine = bit_len(range).saturating_sub(6);
        while (max >> fine) - (min >> fine) >= CLASSES_TRIED {
            fine += 1;
        }
        let mut counts = [0u32; CLASSES_MAX];
        let base = min >> fine;
        let last = (max >> fine) - base;
        let mut outside_bits = 0;
        for (at, &number) in stream.iter().enumerate() {
            let class = (number >> fine).wrapping_sub(base);
            let inside = if (0..=last).contains(&class) {
                class
            } else {
                let nearest = if number >> fine < base { 0 } else { last };
                outside_bits += 8 + varint_bits(class.wrapping_sub(nearest)) + usize::from(at > 127) * 4;
                nearest
            };
            counts[inside as usize] += 1;
        }
        if outside_bits > 0 {
            outside_bits += 8;
        }
        let classes = last as usize + 1;
        let outside = outside_bits > 0;
        let of = |low_bits: u32, base: i64, counts: &[u32]| {
            Self::with_counts(stream.len(), low_bits, base, counts, outside).map(|mut plan| {
                plan.cost += outside_bits;
                plan
            })
        };
        let mut best = of(fine, base, &counts[..classes])?;
        if range >= 8 {
            let mut coarse = [0u32; CLASSES_MAX];
            for (class, count) in counts[..classes].iter().enumerate() {
                coarse[((class as i64 + base) >> 1).wrapping_sub(base >> 1) as usize] += count;
            }
            let classes = (((last + base) >> 1) - (base >> 1)) as usize + 1;
            if let Some(plan) = of(fine + 1, base >> 1, &coarse[..classes])
                && plan.cost < best.cost
            {
                best = plan;
            }
        }
        (best.cost < bound).then_some(best)
    }

    fn with_counts(numbers: usize, low_bits: u32, base: i64, counts: &[u32], outside: bool) -> Option<Self> {
        let codes = choose_codes(counts);
        let frequencies = frequencies(&codes)?;
        let mut bits = 0f32;
        for (count, frequency) in counts.iter().zip(&frequencies) {
            if *count > 0 {
                bits += *count as f32 * ((SCALE as f32).log2() - (*frequency as f32).log2());
            }
        }
        let head = 8 + 8 + varint_bits(base) + code_bits(&codes).div_ceil(8) * 8;
        let low = numbers / BLOCK * packed_len(BLOCK, low_bits) + packed_len(numbers % BLOCK, low_bits);
        // The states: ten bits of their own, and what their varints leave empty.
        let cost = head + low * 8 + bits as usize + 2 * 17;
        Some(Self { low_bits, base, codes, frequencies, outside, cost })
    }

    /// Appends the stream.
    pub(super) fn put(&self, stream: &[i64], out: &mut Vec<u8>) {
        let last = self.codes.len() as i64 - 1;
        let class = |number: i64| (number >> self.low_bits).wrapping_sub(self.base);
        let inside = |number: i64| match class(number) {
            class if (0..=last).contains(&class) => class,
            _ if number >> self.low_bits < self.base => 0,
            _ => last,
        };
        let classes: Vec<u8> = stream.iter().map(|number| inside(*number) as u8).collect();
        let patched = || {
            let pairs = stream.iter().zip(&classes).enumerate();
            pairs.filter_map(|(at, (number, taken))| {
                let high = class(*number).wrapping_sub(i64::from(*taken));
                (high != 0).then_some((at, high))
            })
        };
        let patches = if self.outside { patched().count() } else { 0 };
        out.push(self.low_bits as u8 | if patches > 0 { PATCHES_FLAG } else { 0 });
        put_varint(out, self.base);
        if patches > 0 {
            put_uvarint(out, patches as u64);
            let mut before = 0;
            for (at, high) in patched() {
                put_uvarint(out, (at - before) as u64);
                put_varint(out, high);
                before = at;
            }
        }
        put_codes(&self.codes, out);
        let mut starts = [0u32; CLASSES_MAX];
        let mut sum = 0;
        for (start, frequency) in starts.iter_mut().zip(&self.frequencies) {
            *start = sum;
            sum += frequency;
        }
        // From the last number to the first: readers go the other way.
        let mut states = [STATE_MIN; 2];
        let mut words: Vec<u16> = Vec::with_capacity(stream.len() / 2);
        for (at, class) in classes.iter().enumerate().rev() {
            let state = &mut states[at % 2];
            let (frequency, start) = (self.frequencies[usize::from(*class)], starts[usize::from(*class)]);
            if *state >= frequency << (WORD_BITS + STATE_MIN.ilog2() - SCALE_BITS) {
                words.push(*state as u16);
                *state >>= WORD_BITS;
            }
            *state = ((*state / frequency) << SCALE_BITS) + start + *state % frequency;
        }
        states.iter().for_each(|state| put_uvarint(out, u64::from(*state)));
        let mask = (1u64 << self.low_bits) - 1;
        let mut low = [0u64; BLOCK];
        for block in stream.chunks(BLOCK) {
            low.iter_mut().zip(block).for_each(|(low, number)| *low = number.cast_unsigned() & mask);
            pack(&low[..block.len()], self.low_bits, out);
        }
        words.iter().rev().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }
}

/// The range of most numbers: all, or all but a few that lie far away.
fn inner_range(stream: &[i64]) -> Option<(i64, i64)> {
    let pivot = pivot(stream);
    let mut lengths = [0u32; 65];
    let (mut min, mut max) = (i64::MAX, i64::MIN);
    for &number in stream {
        lengths[bit_len(zigzag(number.wrapping_sub(pivot))) as usize] += 1;
        min = min.min(number);
        max = max.max(number);
    }
    let budget = (stream.len() / OUTSIDE_SHARE) as u32;
    let (mut outside, mut inside) = (0, 64);
    while inside > 0 && outside + lengths[inside] <= budget {
        outside += lengths[inside];
        inside -= 1;
    }
    // Two bits more for all are dearer than patches for a thirtieth; one is not.
    let full = max.checked_sub(min)?.cast_unsigned();
    if outside > 0 && bit_len(full) as usize > inside + 1 {
        (min, max) = (i64::MAX, i64::MIN);
        for &number in stream {
            if bit_len(zigzag(number.wrapping_sub(pivot))) as usize <= inside {
                min = min.min(number);
                max = max.max(number);
            }
        }
        max.checked_sub(min)?;
    }
    Some((min, max))
}

/// Codes whose weights are near the counts, and near to each other.
fn choose_codes(counts: &[u32]) -> Vec<u8> {
    const BITS_PER_NAT: f32 = std::f32::consts::LOG2_E;
    let largest = counts.iter().copied().max().unwrap_or(0).max(1) as f32;
    let mut codes = Vec::with_capacity(counts.len());
    let mut before: Option<usize> = None;
    for &count in counts {
        let mut best = (f32::MAX, 0);
        for (code, weight) in WEIGHTS.iter().enumerate().skip(usize::from(count > 0)) {
            // What the class costs at this weight, and what the weight takes away from the others.
            let held = largest * *weight as f32 / 256.0;
            let bits = held * BITS_PER_NAT - count as f32 * (code as f32 / 2.0);
            let cost = bits + before.map_or(0, |before| token_bits(before.abs_diff(code))) as f32;
            if cost < best.0 {
                best = (cost, code);
            }
        }
        codes.push(best.1 as u8);
        before = Some(best.1);
    }
    codes
}

/// Bits of a difference of codes.
fn token_bits(amount: usize) -> usize {
    if amount == 0 { 1 } else { amount + 2 }
}

fn code_bits(codes: &[u8]) -> usize {
    4 + codes.windows(2).map(|pair| token_bits(pair[0].abs_diff(pair[1]).into())).sum::<usize>()
}

fn put_codes(codes: &[u8], out: &mut Vec<u8>) {
    out.push((codes.len() - 1) as u8);
    let (mut word, mut filled) = (u64::from(codes[0]), 4);
    for pair in codes.windows(2) {
        let amount = pair[0].abs_diff(pair[1]);
        word |= ((1u64 << amount) - 1) << filled;
        filled += u32::from(amount) + 1;
        if amount > 0 {
            word |= u64::from(pair[1] < pair[0]) << filled;
            filled += 1;
        }
        while filled >= 8 {
            out.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(word as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::super::coded::Coded;
    use super::*;
    use crate::coding::Reader;
    use proptest::prelude::*;

    /// Plans, writes and reads back; answers the bytes and the plan's estimate of them.
    fn round_trip(stream: &[i64]) -> Option<(usize, usize)> {
        let plan = CodedPlan::of(stream, usize::MAX)?;
        let mut bytes = Vec::new();
        plan.put(stream, &mut bytes);
        let len = bytes.len();
        bytes.extend_from_slice(&[0xaa; 5]);
        let mut reader = Reader::new(&bytes);
        let mut coded = Coded::read(&mut reader, stream.len()).unwrap();
        let mut read = Vec::new();
        for block in stream.chunks(BLOCK) {
            let mut out = [0; BLOCK];
            let base = coded.next(block.len(), &mut out).unwrap();
            read.extend(out[..block.len()].iter().map(|number| base.wrapping_add(number.cast_signed())));
        }
        coded.finish(&mut reader).unwrap();
        assert_eq!(read, stream);
        assert_eq!(reader.remaining(), 5);
        Some((len, plan.cost / 8))
    }

    /// The same, and no end of the bytes but the last one is taken for it.
    fn cut_short(stream: &[i64]) {
        let mut bytes = Vec::new();
        CodedPlan::of(stream, usize::MAX).unwrap().put(stream, &mut bytes);
        for len in 0..bytes.len() {
            let mut reader = Reader::new(&bytes[..len]);
            let done = Coded::read(&mut reader, stream.len()).and_then(|mut coded| {
                for block in stream.chunks(BLOCK) {
                    coded.next(block.len(), &mut [0; BLOCK])?;
                }
                coded.finish(&mut reader)
            });
            assert!(done.is_err(), "{len} of {}", bytes.len());
        }
    }

    fn noise(len: u32, of: impl Fn(i64) -> i64) -> Vec<i64> {
        let unit = |n: u32| i64::from(n.wrapping_mul(0x9e37_79b9) >> 8 & 0xffff);
        (0..len).map(|n| of(unit(n) - 32768)).collect()
    }

    #[test]
    fn noise_takes_what_is_in_it() {
        // Eleven numbers, equally often: 3.46 bits each.
        let (bytes, estimate) = round_trip(&noise(1920, |n| n.rem_euclid(11))).unwrap();
        assert!((820..870).contains(&bytes) && bytes.abs_diff(estimate) < 8, "{bytes} {estimate}");
        // Three quarters of a range of 12 bits.
        let (bytes, estimate) = round_trip(&noise(1920, |n| n.rem_euclid(3000) - 700)).unwrap();
        assert!((2770..2850).contains(&bytes) && bytes.abs_diff(estimate) < 8, "{bytes} {estimate}");
        // Peaked: 2^16 numbers near zero, by their cubes.
        let cubes = noise(1920, |n| n * n * n / (1 << 31));
        assert!(round_trip(&cubes).unwrap().0 < 1920 * 29 / 16);
        // One number only, and a few that are far from all others.
        assert!(round_trip(&noise(500, |_| -7)).unwrap().0 < 20);
        let far = noise(500, |n| if n % 101 == 0 { i64::MAX - n.abs() } else { n / 1000 });
        assert!(round_trip(&far).unwrap().0 < 500);
    }

    #[test]
    fn ends_are_noticed() {
        cut_short(&noise(200, |n| n.rem_euclid(11)));
        cut_short(&noise(129, |n| n / 7));
        cut_short(&noise(64, |n| if n % 30 == 0 { n << 30 } else { n % 5 }));
    }

    proptest! {
        #[test]
        fn any_stream_survives(
            stream in prop::collection::vec(
                prop_oneof![8 => -3i64..4, 4 => -1000i64..100_000, 1 => any::<i64>()], 48..300),
            scale in prop_oneof![Just(1i64), Just(1 << 20), any::<i64>()],
        ) {
            let stream: Vec<i64> = stream.iter().map(|number| number.wrapping_mul(scale)).collect();
            round_trip(&stream);
        }

        /// Codes of any weights become frequencies that fill the scale, or are refused.
        #[test]
        fn frequencies_fill_the_scale(codes in prop::collection::vec(0u8..16, 0..CLASSES_MAX)) {
            if let Some(frequencies) = frequencies(&codes) {
                prop_assert_eq!(frequencies.iter().sum::<u32>(), SCALE);
                prop_assert!(codes.iter().zip(&frequencies).all(|(code, f)| (*code == 0) == (*f == 0)));
            } else {
                prop_assert!(codes.iter().all(|code| *code == 0));
            }
        }
    }
}
