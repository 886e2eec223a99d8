//! Columns of signed integers as bytes: the writing half of [`super::integers`], which chooses.
//!
//! Three orders are planned block by block with their exact costs, the likeliest first, the others until they cost
//! more; only the cheapest is written. With [`Effort::Small`] classes ([`super::coded`]) are tried too.
#![expect(clippy::indexing_slicing, reason = "writes: sizes are its own, and no byte comes from outside")]

use super::Effort;
use super::coded_plan::CodedPlan;
use super::integers::{
    CODE_BASE, CODE_PATCHED, CODE_SPARSE, CODED_FLAG, Kind, Order, SCALED_FLAG, Trend, UNIFORM_FLAG,
    ZERO_FLAG, base_step,
};
use super::pack::{BLOCK, pack};
use crate::coding::{put_uvarint, put_varint, zigzag};

/// Appends `values`, which are used up on the way. Nothing for an empty column.
pub(crate) fn encode(values: &mut [i64], effort: Effort, out: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    let scale = normalize(values);
    let mut deltas = differences(values);
    let mut best = StreamPlan::of(&deltas, usize::MAX).unwrap_or_default();
    let mut order = Order::Delta;
    if best.cost > 0 {
        if let Some(plan) = StreamPlan::of(&values[1..], best.cost) {
            (best, order) = (plan, Order::Plain);
        }
        if let Some((&slope, rest)) = deltas.split_first() {
            let bends = differences(&deltas);
            let head = varint_bits(slope);
            let plan = StreamPlan::of(&bends, best.cost.saturating_sub(head));
            if let Some(plan) = plan.filter(|_| !rest.is_empty()) {
                (best, order) = (plan, Order::DeltaOfDelta);
                deltas = bends;
                deltas.push(slope);
            }
        }
    }
    if effort == Effort::Small
        && best.cost >= CODED_COST_MIN
        && let Some(coded) = Coding::of(values, order, best.cost)
    {
        return coded.put(first, scale, out);
    }
    let flag = match (best.cost, best.uniform) {
        (0, _) => ZERO_FLAG,
        (_, Some(_)) => UNIFORM_FLAG,
        (_, None) => 0,
    };
    out.push(order as u8 | flag | if scale == 1 { 0 } else { SCALED_FLAG });
    if scale != 1 {
        put_uvarint(out, scale);
    }
    put_varint(out, first);
    let stream = match order {
        Order::Plain => &values[1..],
        Order::Delta => &deltas[..],
        Order::DeltaOfDelta => {
            let (slope, bends) = deltas.split_last().unwrap_or((&0, &[]));
            put_varint(out, *slope);
            bends
        }
        Order::Trend => unreachable!("only classes have it"),
    };
    if best.cost > 0 {
        best.put(stream, out);
    }
}

/// A column whose stream is in classes.
struct Coding {
    order: Order,
    slope: i64,
    stream: Vec<i64>,
    plan: CodedPlan,
}

impl Coding {
    /// The cheapest one for `values`, whose first is zero, if it costs enough less than `bound`, which whole bits cost in
    /// `order`.
    fn of(values: &[i64], order: Order, bound: usize) -> Option<Self> {
        let gain = (bound / CODED_GAIN_SHARE).min(values.len() / CODED_GAIN_NUMBERS);
        let deltas = differences(values);
        let first = deltas.len().min(SLOPE_OF);
        let sum = deltas[..first].iter().fold(0i64, |sum, delta| sum.wrapping_add(*delta));
        let slope = sum / i64::try_from(first).ok().filter(|first| *first > 0)?;
        let mut trend = Trend::new(slope);
        let beside: Vec<i64> = deltas.iter().map(|delta| trend.beside(*delta)).collect();
        let mut best: Option<Self> = None;
        let mut bound = bound - gain;
        // What is best in whole bits without a sum has no trend, and what is best with one is not better without.
        let tried = match order {
            Order::Plain => [(Order::Plain, &values[1..], 0), (Order::Delta, &deltas[..], 0)],
            _ => [(Order::Trend, &beside[..], varint_bits(slope)), (Order::Delta, &deltas[..], 0)],
        };
        for (order, stream, head) in tried {
            if let Some(plan) = CodedPlan::of(stream, bound.saturating_sub(head)) {
                bound = plan.cost + head;
                let stream = Vec::new();
                best = Some(Self { order, slope, stream, plan });
            }
        }
        let mut best = best?;
        best.stream = match best.order {
            Order::Trend => beside,
            Order::Plain => values[1..].to_vec(),
            _ => deltas,
        };
        Some(best)
    }

    fn put(&self, first: i64, scale: u64, out: &mut Vec<u8>) {
        out.push(self.order as u8 | CODED_FLAG | if scale == 1 { 0 } else { SCALED_FLAG });
        if scale != 1 {
            put_uvarint(out, scale);
        }
        put_varint(out, first);
        if self.order == Order::Trend {
            put_varint(out, self.slope);
        }
        self.plan.put(&self.stream, out);
    }
}

/// Streams that cost fewer bits are not tried with classes.
const CODED_COST_MIN: usize = 256;
/// What classes must save, as reading them takes several times as long: a part of the cost …
const CODED_GAIN_SHARE: usize = 24;
/// … or a bit for so many numbers.
const CODED_GAIN_NUMBERS: usize = 5;
/// Differences whose mean is the first that a trend expects.
const SLOPE_OF: usize = 8;

/// Each number minus its predecessor.
fn differences(values: &[i64]) -> Vec<i64> {
    values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

/// Replaces each number by its difference to the first, divided by what all have in common, which is the answer.
fn normalize(values: &mut [i64]) -> u64 {
    let first = values[0];
    let mut bits = 0u64;
    let (mut wide, mut divisor) = (false, 0u64);
    for value in values.iter_mut() {
        let (difference, wrapped) = value.overflowing_sub(first);
        *value = difference;
        bits |= difference.cast_unsigned();
        wide |= wrapped || difference == i64::MIN;
    }
    // Only powers of two divide numbers modulo 2^64 whole; wrapped ones stay as they are.
    if bits == 0 || wide {
        return 1;
    }
    let shift = bits.trailing_zeros();
    let mut previous = 0i64;
    for value in values.iter_mut() {
        *value >>= shift;
        // What divides numbers does not divide their difference modulo 2^64.
        let (delta, wrapped) = value.overflowing_sub(previous);
        let delta = if wrapped { 1 } else { delta.unsigned_abs() };
        previous = *value;
        if divisor != 1 && delta != 0 && delta != divisor {
            divisor = greatest_common_divisor(delta, divisor);
        }
    }
    if divisor > 1 {
        let divisor = divisor.cast_signed();
        values.iter_mut().for_each(|value| *value /= divisor);
    }
    divisor.max(1) << shift
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

pub(super) fn bit_len(number: u64) -> u32 {
    64 - number.leading_zeros()
}

fn uvarint_bits(number: u64) -> usize {
    (bit_len(number).max(1).div_ceil(7) * 8) as usize
}

pub(super) fn varint_bits(number: i64) -> usize {
    uvarint_bits(zigzag(number))
}

/// How a block is to be written.
#[derive(Clone, Copy)]
struct Plan {
    kind: Kind,
    width: u32,
    base: i64,
    /// What is written of the base.
    written: i64,
    min: i64,
    max: i64,
    /// Bits, the head included.
    cost: usize,
}

impl Plan {
    fn code(&self) -> u8 {
        let start = match self.kind {
            Kind::FromZero => 0,
            Kind::FromBase => CODE_BASE,
            Kind::Patched => CODE_PATCHED,
            Kind::Sparse => CODE_SPARSE,
        };
        start + self.width.to_le_bytes()[0]
    }

    /// All numbers packed, from zero or from a base near `last`, the one of the block before.
    fn packed(min: i64, max: i64, count: usize, last: i64) -> Self {
        let width = bit_len(max.wrapping_sub(min).cast_unsigned());
        let cost = 8 + width as usize * count;
        if min >= 0 && bit_len(max.cast_unsigned()) == width {
            return Self { kind: Kind::FromZero, width, base: 0, written: 0, min, max, cost };
        }
        // Of the bases that serve, the one that is nearest to the last in steps of a sixteenth of the width.
        let step = base_step(width);
        let lowest = i128::from(max) - ((1i128 << width) - 1);
        let up = (lowest - i128::from(last) + (1i128 << step) - 1) >> step;
        let down = (i128::from(min) - i128::from(last)) >> step;
        let steps = if up > 0 { up } else { down.min(0) };
        let base = i128::from(last) + (steps << step);
        if up <= down
            && let (Ok(written), Ok(base)) = (i64::try_from(steps), i64::try_from(base))
        {
            let cost = cost + varint_bits(written);
            return Self { kind: Kind::FromBase, width, base, written, min, max, cost };
        }
        // None on a step: the exact one, as if there were patches.
        let cost = cost + 8 + varint_bits(min);
        Self {
            kind: Kind::Patched,
            width: width.min(PATCHED_WIDTH_MAX),
            base: min,
            written: min,
            min,
            max,
            cost,
        }
    }

    /// The cheapest of all kinds.
    fn of(block: &[i64], last: i64) -> Self {
        let (mut min, mut max, mut zeros) = (i64::MAX, i64::MIN, 0usize);
        for &number in block {
            min = min.min(number);
            max = max.max(number);
            zeros += usize::from(number == 0);
        }
        let mut best = Self::packed(min, max, block.len(), last);
        if best.width >= 2 {
            let pivot = if zeros * 2 > block.len() { 0 } else { pivot(block) };
            best.improve(block, pivot);
            if zeros * 8 > block.len() {
                best.try_sparse(block, zeros);
            }
        }
        best
    }

    /// Looks whether most numbers lie so near to `pivot` that patching the others pays.
    fn improve(&mut self, block: &[i64], pivot: i64) {
        let mut lengths = [0u8; 65];
        for &number in block {
            lengths[bit_len(zigzag(number.wrapping_sub(pivot))) as usize] += 1;
        }
        let (mut outside, mut found) = (0usize, None);
        let mut cheapest = self.cost;
        for width in (1..=64u32).rev() {
            outside += usize::from(lengths[width as usize]);
            let inside = width - 1;
            if inside >= self.width {
                continue;
            }
            // Eight bits of place and eight or more of what is above the width.
            let above = (self.width + 1 - inside).div_ceil(7) as usize * 8;
            let cost = 16 + varint_bits(pivot) + inside as usize * block.len() + outside * (8 + above);
            if cost < cheapest {
                cheapest = cost;
                found = Some(inside);
            }
        }
        let Some(inside) = found else { return };
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for &number in block {
            if bit_len(zigzag(number.wrapping_sub(pivot))) <= inside {
                min = min.min(number);
                max = max.max(number);
            }
        }
        if max < min {
            return;
        }
        let width = bit_len(max.wrapping_sub(min).cast_unsigned());
        if width > PATCHED_WIDTH_MAX {
            return;
        }
        let base = if min >= 0 && bit_len(max.cast_unsigned()) == width { 0 } else { min };
        let mut cost = 16 + varint_bits(base) + width as usize * block.len();
        for &number in block {
            let high = number.wrapping_sub(base) >> width;
            if high != 0 {
                cost += 8 + varint_bits(high);
            }
        }
        if cost < self.cost {
            *self = Self { kind: Kind::Patched, width, base, written: base, cost, ..*self };
        }
    }

    fn try_sparse(&mut self, block: &[i64], zeros: usize) {
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for number in block.iter().filter(|number| **number != 0).map(|number| without_zero(*number)) {
            min = min.min(number);
            max = max.max(number);
        }
        let width = bit_len(max.wrapping_sub(min).cast_unsigned());
        let cost =
            8 + varint_bits(min) + block.len().div_ceil(8) * 8 + width as usize * (block.len() - zeros);
        if cost < self.cost && width <= u32::from(u8::MAX - CODE_SPARSE) {
            *self = Self { kind: Kind::Sparse, width, base: min, written: min, cost, ..*self };
        }
    }
}

/// Closes the gap that zero leaves.
fn without_zero(number: i64) -> i64 {
    number - i64::from(number > 0)
}

/// Widest block with patches.
const PATCHED_WIDTH_MAX: u32 = (CODE_SPARSE - CODE_PATCHED - 1) as u32;

/// A number that is likely near to most: the middle one of three.
pub(super) fn pivot(block: &[i64]) -> i64 {
    let [a, b, c] = [block[block.len() / 4], block[block.len() / 2], block[block.len() * 3 / 4]];
    a.max(b).min(c).max(a.min(b))
}

/// How a stream is to be written.
#[derive(Default)]
struct StreamPlan {
    blocks: Vec<Plan>,
    /// One head for all blocks.
    uniform: Option<Plan>,
    /// Bits; none for nothing but zeros.
    cost: usize,
}

impl StreamPlan {
    /// The cheapest plan, if it costs less than `bound`.
    fn of(stream: &[i64], bound: usize) -> Option<Self> {
        let (mut cost, mut last) = (0, 0);
        let mut blocks: Vec<Plan> = Vec::with_capacity(stream.len().div_ceil(BLOCK));
        // A uniform plan may cost less than its blocks: a head for each, and what they are better by.
        let bound_of_blocks = bound.saturating_add(bound / 8 + 64);
        for block in stream.chunks(BLOCK) {
            let plan = Plan::of(block, last);
            cost += plan.cost;
            if cost >= bound_of_blocks {
                return None;
            }
            if plan.kind == Kind::FromBase {
                last = plan.base;
            }
            blocks.push(plan);
        }
        let (Some(min), Some(max)) = (blocks.iter().map(|b| b.min).min(), blocks.iter().map(|b| b.max).max())
        else {
            return Some(Self::default());
        };
        if (min, max) == (0, 0) {
            return Some(Self::default());
        }
        let mut plan = Self { blocks, uniform: None, cost };
        if stream.len() > BLOCK {
            plan.try_uniform(stream, min, max);
        }
        Some(plan).filter(|plan| plan.cost < bound)
    }

    fn try_uniform(&mut self, stream: &[i64], min: i64, max: i64) {
        let packed = Plan::packed(min, max, stream.len(), 0);
        let mut scattered = 8 + 8 + 8;
        let mut last = 0;
        for (at, &number) in stream.iter().enumerate().filter(|(_, number)| **number != 0) {
            scattered += uvarint_bits((at - last) as u64) + varint_bits(number);
            last = at;
            if scattered >= self.cost {
                scattered = usize::MAX;
                break;
            }
        }
        let scattered =
            Plan { kind: Kind::Patched, width: 0, base: 0, written: 0, cost: scattered, ..packed };
        for plan in [packed, scattered] {
            // It is also quicker to read.
            let known = plan.kind != Kind::Patched || plan.width == 0;
            if plan.cost <= self.cost && known {
                self.cost = plan.cost;
                self.uniform = Some(plan);
            }
        }
    }

    fn put(&self, stream: &[i64], out: &mut Vec<u8>) {
        if let Some(uniform) = &self.uniform {
            return put_uniform(stream, uniform, out);
        }
        for (block, plan) in stream.chunks(BLOCK).zip(&self.blocks) {
            put_block(block, plan, out);
        }
    }
}

fn put_uniform(stream: &[i64], plan: &Plan, out: &mut Vec<u8>) {
    out.push(plan.code());
    if plan.kind != Kind::FromZero {
        put_varint(out, plan.written);
    }
    if plan.kind == Kind::Patched {
        put_uvarint(out, stream.iter().filter(|number| **number != 0).count() as u64);
        let mut last = 0;
        for (at, &number) in stream.iter().enumerate().filter(|(_, number)| **number != 0) {
            put_uvarint(out, (at - last) as u64);
            put_varint(out, number);
            last = at;
        }
        return;
    }
    let mut packed = [0u64; BLOCK];
    for block in stream.chunks(BLOCK) {
        for (packed, number) in packed.iter_mut().zip(block) {
            *packed = number.wrapping_sub(plan.base).cast_unsigned();
        }
        pack(&packed[..block.len()], plan.width, out);
    }
}

fn put_block(block: &[i64], plan: &Plan, out: &mut Vec<u8>) {
    let mut packed = [0u64; BLOCK];
    let mut count = block.len();
    out.push(plan.code());
    match plan.kind {
        Kind::FromZero | Kind::FromBase => {
            if plan.kind == Kind::FromBase {
                put_varint(out, plan.written);
            }
            for (packed, number) in packed.iter_mut().zip(block) {
                *packed = number.wrapping_sub(plan.base).cast_unsigned();
            }
        }
        Kind::Patched => {
            put_varint(out, plan.base);
            let mask = (1u64 << plan.width) - 1;
            let highs = block.iter().map(|number| number.wrapping_sub(plan.base) >> plan.width);
            put_uvarint(out, highs.clone().filter(|high| *high != 0).count() as u64);
            for (at, high) in (0u8..).zip(highs).filter(|(_, high)| *high != 0) {
                out.push(at);
                put_varint(out, high);
            }
            for (packed, number) in packed.iter_mut().zip(block) {
                *packed = number.wrapping_sub(plan.base).cast_unsigned() & mask;
            }
        }
        Kind::Sparse => {
            let mut bitmap = 0u64;
            count = 0;
            for (at, number) in block.iter().enumerate().filter(|(_, number)| **number != 0) {
                bitmap |= 1 << at;
                packed[count] = without_zero(*number).wrapping_sub(plan.base).cast_unsigned();
                count += 1;
            }
            out.extend_from_slice(&bitmap.to_le_bytes()[..block.len().div_ceil(8)]);
            put_varint(out, plan.base);
        }
    }
    pack(&packed[..count], plan.width, out);
}

#[cfg(test)]
mod tests {
    use super::super::integers::decode;
    use super::*;
    use crate::coding::Reader;
    use proptest::prelude::*;

    fn round_trip(values: &[i64]) -> usize {
        round_trip_with(values, Effort::Small);
        round_trip_with(values, Effort::Quick)
    }

    fn round_trip_with(values: &[i64], effort: Effort) -> usize {
        let mut bytes = Vec::new();
        encode(&mut values.to_vec(), effort, &mut bytes);
        let len = bytes.len();
        bytes.extend_from_slice(&[0xaa; 3]);
        let mut reader = Reader::new(&bytes);
        let mut out = Vec::new();
        decode(&mut reader, values.len(), |part| out.extend_from_slice(part)).unwrap();
        assert_eq!(out, values);
        assert_eq!(reader.remaining(), 3);
        len
    }

    /// Streams of each shape that has a mode of its own.
    fn column() -> impl Strategy<Value = Vec<i64>> {
        let noise = prop_oneof![
            Just(0i64..1),
            Just(0..2),
            Just(-3..4),
            Just(90..110),
            Just(-1_000_000..1_000_000),
            Just(i64::MIN..i64::MAX)
        ];
        let rare = prop_oneof![Just(0u32), Just(1), Just(10), Just(50)];
        (
            noise,
            rare,
            any::<i64>(),
            0u8..3,
            prop_oneof![Just(1i64), Just(4096), Just(3000), any::<i64>()],
            0usize..300,
        )
            .prop_flat_map(|(noise, rare, outlier, order, scale, len)| {
                let number = (noise, 0u32..100).prop_map(move |(number, chance)| {
                    if chance < rare { outlier.wrapping_mul(i64::from(chance)) } else { number }
                });
                prop::collection::vec(number, len).prop_map(move |mut stream| {
                    for _ in 0..order {
                        let mut sum = 0i64;
                        for number in &mut stream {
                            sum = sum.wrapping_add(*number);
                            *number = sum;
                        }
                    }
                    stream.iter().map(|number| number.wrapping_mul(scale)).collect()
                })
            })
    }

    proptest! {
        #[test]
        fn columns_survive(values in column()) {
            round_trip(&values);
        }

        #[test]
        fn any_numbers_survive(values in prop::collection::vec(any::<i64>(), 0..200)) {
            round_trip(&values);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0usize..1000) {
            let mut taken = 0;
            let done = decode(&mut Reader::new(&bytes), count, |part| taken += part.len());
            prop_assert!(taken <= count);
            prop_assert!(done.is_err() || taken == count);
        }
    }

    /// Differences that wrap have no divisor.
    #[test]
    fn wide_differences_are_not_divided() {
        round_trip(&[0, 3 << 61, -3 << 61, 0]);
        round_trip(&[0, i64::MAX - 1, -(i64::MAX - 1), 3]);
        round_trip(&[i64::MIN, i64::MAX, 0, -1]);
    }

    #[test]
    fn each_shape_takes_its_mode() {
        // A line: head, first, slope, one block head.
        assert!(round_trip(&(0..960).map(|i| 1_700_000_000_000 + i * 15_000).collect::<Vec<_>>()) <= 14);
        // One step in 960 rows.
        assert!(round_trip(&(0..960).map(|i| 5 + i64::from(i > 700)).collect::<Vec<_>>()) <= 10);
        // Pages: 0..64 of them at 4096 bytes.
        assert!(round_trip(&(0..128).map(|i| (i * 37 % 64) * 4096).collect::<Vec<_>>()) <= 128 * 6 / 8 + 8);
        // Steps that spread around a slow wave: classes know what to expect, and how far off it mostly is.
        let mut sum = 0i64;
        let noisy: Vec<i64> = (0..960u32)
            .map(|i| {
                let noise = i64::from(i.wrapping_mul(0x9e37_79b9) >> 24)
                    + i64::from(i.wrapping_mul(0x85eb_ca6b) >> 24);
                sum += 2000 + noise + (i64::from(i) % 240 - 120).abs() * 6;
                sum
            })
            .collect();
        let (quick, small) = (round_trip_with(&noisy, Effort::Quick), round_trip_with(&noisy, Effort::Small));
        assert!(small * 14 < quick * 13, "{small} of {quick}");
        // Seven bits and one that needs forty.
        let mut noisy: Vec<i64> = (0..65).map(|i| 1000 + i * 41 % 97).collect();
        noisy[40] = 1 << 40;
        assert!(round_trip(&noisy) <= 64 * 7 / 8 + 16);
    }
}
