//! Aggregates over sliding windows in constant time per sample, whatever the window's length: two stacks, one of
//! aggregates from each sample to the window's middle, one running. Works for whatever can be joined, without taking
//! anything back, so that large values leave no rounding errors behind.

/// Summaries that can be joined in order.
pub(super) trait Join: Copy {
    /// The summary of `self` followed by `next`.
    fn join(self, next: Self) -> Self;
}

/// A window that moves forward over items known by index.
pub(super) struct Sliding<T> {
    /// Aggregates from item `front_lo + i` (reversed: the last entry is the oldest item) to the end of the front.
    front: Vec<T>,
    /// Items behind the front, and their aggregate.
    back: Vec<T>,
    back_total: Option<T>,
    lo: usize,
    hi: usize,
}

impl<T: Join> Sliding<T> {
    pub(super) fn new() -> Self {
        Self { front: Vec::new(), back: Vec::new(), back_total: None, lo: 0, hi: 0 }
    }

    /// Moves to `[lo, hi)`, neither bound ever going back, and gives the aggregate, `None` when empty.
    pub(super) fn advance(&mut self, lo: usize, hi: usize, item: impl Fn(usize) -> T) -> Option<T> {
        if lo >= self.hi {
            self.front.clear();
            self.back.clear();
            self.back_total = None;
            self.lo = lo;
            self.hi = lo;
        }
        while self.hi < hi {
            let next = item(self.hi);
            self.back.push(next);
            self.back_total = Some(self.back_total.map_or(next, |total| total.join(next)));
            self.hi += 1;
        }
        while self.lo < lo {
            if self.front.is_empty() {
                let mut total: Option<T> = None;
                while let Some(next) = self.back.pop() {
                    let joined = total.map_or(next, |total| next.join(total));
                    self.front.push(joined);
                    total = Some(joined);
                }
                self.back_total = None;
            }
            self.front.pop();
            self.lo += 1;
        }
        match (self.front.last(), self.back_total) {
            (Some(front), Some(back)) => Some(front.join(back)),
            (Some(front), None) => Some(*front),
            (None, back) => back,
        }
    }
}

/// An unevaluated sum of two floats, about 106 bits: the order of additions leaves no trace in the rounded result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Double {
    pub(super) hi: f64,
    pub(super) lo: f64,
}

impl Double {
    pub(super) fn new(value: f64) -> Self {
        Self { hi: value, lo: 0.0 }
    }

    /// `a * b` without rounding.
    pub(super) fn product(a: f64, b: f64) -> Self {
        let hi = a * b;
        Self { hi, lo: a.mul_add(b, -hi) }
    }

    /// Product with a plain float.
    pub(super) fn times(self, factor: f64) -> Self {
        let product = Self::product(self.hi, factor);
        Self { hi: product.hi, lo: self.lo.mul_add(factor, product.lo) }.renormalized()
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.join(Self { hi: -other.hi, lo: -other.lo })
    }

    pub(super) fn value(self) -> f64 {
        self.hi + self.lo
    }

    fn renormalized(self) -> Self {
        let hi = self.hi + self.lo;
        Self { hi, lo: self.lo - (hi - self.hi) }
    }
}

impl Join for Double {
    fn join(self, next: Self) -> Self {
        let hi = self.hi + next.hi;
        // Knuth's two-sum: the exact error of the addition.
        let from_next = hi - self.hi;
        let error = (self.hi - (hi - from_next)) + (next.hi - from_next);
        Self { hi, lo: error + self.lo + next.lo }.renormalized()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_keep_what_floats_lose() {
        let sum = [1e17, 1.0, -1e17, 1.0].map(Double::new).into_iter().reduce(Join::join).unwrap();
        assert_eq!(sum.value(), 2.0);
        assert_eq!(Double::product(1e8 + 1.0, 1e8 + 1.0).minus(Double::new(1e16)).value(), 2e8 + 1.0);
    }

    proptest! {
        #[test]
        fn sliding_sums_are_those_of_each_window(
            values in prop::collection::vec(-1000i32..1000, 1..60),
            moves in prop::collection::vec((0usize..5, 0usize..5), 1..60),
        ) {
            let item = |i: usize| Double::new(f64::from(values[i]));
            let mut sliding = Sliding::new();
            let (mut lo, mut hi) = (0, 0);
            for (a, b) in moves {
                hi = (hi + a).min(values.len());
                lo = (lo + b).min(values.len());
                let (from, to) = (lo, hi.max(lo));
                hi = to;
                let expected = values[from..to].iter().map(|v| f64::from(*v)).sum::<f64>();
                let got = sliding.advance(from, to, item);
                prop_assert_eq!(got.is_none(), from == to);
                prop_assert_eq!(got.unwrap_or_default().value(), expected);
            }
        }
    }
}
