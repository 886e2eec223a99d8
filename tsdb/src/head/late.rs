//! Which times compressed out-of-order samples of a series may have.
//!
//! A flood of out-of-order samples makes many chunks that overlap in time. Without this each new sample would decode all
//! of them to see that none has its time. A Bloom filter of sixteen bits a sample says so with three looks; in a few
//! cases of a thousand it does not know, and the chunks are decoded.

use model::sample::Timestamp;

/// Bits of the filter for each sample it has room for: with three probes one answer in 200 is wrong when it is full.
const BITS_EACH: usize = 16;
/// Room at first.
const SAMPLES_MIN: usize = 256;

/// A set of times that may say yes too often. Covers a number of chunks, or is of no use.
#[derive(Debug, Default)]
pub(crate) struct LateTimes {
    words: Box<[u64]>,
    added: usize,
    /// How many chunks there were when it knew them all.
    covered: usize,
}

impl LateTimes {
    /// Whether some sample of the series' `chunks` chunks may be at `t`.
    pub(crate) fn may_hold(&self, chunks: usize, t: Timestamp) -> bool {
        chunks > self.covered || self.probes(t).is_some_and(|probes| probes.iter().all(|bit| self.bit(*bit)))
    }

    /// Takes the times of new chunks, if there is room and all other chunks are known. `before` and `after`: the number of
    /// chunks. `false`: it must be made anew.
    pub(crate) fn add(&mut self, times: &[Timestamp], before: usize, after: usize) -> bool {
        // Times of chunks that are gone take room.
        let room = self.words.len() * 64 / BITS_EACH;
        if before > self.covered || self.added + times.len() > room {
            return false;
        }
        for t in times {
            for bit in self.probes(*t).into_iter().flatten() {
                self.words[bit / 64] |= 1 << (bit % 64);
            }
        }
        self.added += times.len();
        self.covered = after;
        true
    }

    /// Begins anew with all `times` of `chunks` chunks, and room for as many more.
    pub(crate) fn of(times: &[Timestamp], chunks: usize) -> Self {
        let room = (2 * times.len()).next_power_of_two().max(SAMPLES_MIN);
        let words = vec![0; room * BITS_EACH / 64].into_boxed_slice();
        let mut made = Self { words, added: 0, covered: 0 };
        made.add(times, 0, chunks);
        made
    }

    fn bit(&self, bit: usize) -> bool {
        self.words[bit / 64] >> (bit % 64) & 1 == 1
    }

    /// The bits of a time; `None` while there are none at all.
    fn probes(&self, t: Timestamp) -> Option<[usize; 3]> {
        // The length is a power of two.
        let mask = (self.words.len() * 64).checked_sub(1)?;
        // The finalizer of splitmix64.
        let mut hash = t.cast_unsigned();
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        Some([hash, hash.rotate_left(21), hash.rotate_left(42)].map(|hash| hash as usize & mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_forgets_and_seldom_errs() {
        let mut times = LateTimes::default();
        assert!(!times.may_hold(0, 5) && times.may_hold(1, 5), "chunks that it was not told of");
        assert!(!times.add(&[1], 0, 1), "no room");
        let mut all: Vec<i64> = Vec::new();
        for chunk in 0..100 {
            let new: Vec<i64> = (0..128).map(|n| (n * 100 + chunk) * 15_000).collect();
            all.extend(&new);
            if !times.add(&new, chunk as usize, chunk as usize + 1) {
                times = LateTimes::of(&all, chunk as usize + 1);
            }
        }
        assert!(all.iter().all(|t| times.may_hold(100, *t)));
        let wrong = (0..10_000).filter(|n| times.may_hold(100, n * 15_000 + 1)).count();
        assert!(wrong < 200, "{wrong} of 10 000");
        assert!(times.may_hold(101, 1));
    }
}
