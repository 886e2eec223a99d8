//! Native histograms as maps from bucket index to count, and what can be done with them. Buckets that are there but empty
//! stay in the maps: they count where layouts are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::FloatHistogram;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, GoFloat, Span};

/// Counts by index. Of a custom histogram, 0 is the bucket below the first bound.
pub(crate) type Buckets = BTreeMap<i32, f64>;

/// A histogram.
#[derive(Clone)]
pub(crate) struct Hist {
    pub(crate) hint: CounterResetHint,
    pub(crate) schema: i32,
    pub(crate) bounds: Vec<f64>,
    pub(crate) threshold: f64,
    pub(crate) zero: f64,
    pub(crate) count: f64,
    pub(crate) sum: f64,
    pub(crate) positive: Buckets,
    pub(crate) negative: Buckets,
}

/// In one line, so that failing cases can be read.
impl fmt::Debug for Hist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = if model::is_stale_nan(self.sum) { "stale".to_owned() } else { self.sum.to_string() };
        write!(f, "{{{:?} schema {}, {} of {sum}", self.hint, self.schema, self.count)?;
        if self.is_custom() {
            write!(f, ", bounds {:?}", self.bounds)?;
        } else {
            write!(f, ", {} within {}", self.zero, self.threshold)?;
        }
        write!(f, ", {:?}", self.positive)?;
        if !self.negative.is_empty() {
            write!(f, ", negative {:?}", self.negative)?;
        }
        f.write_str("}")
    }
}

/// Exponential buckets do not go with custom ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixed;

/// What an addition found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Combined {
    /// Bounds of custom buckets differed.
    pub(crate) reconciled: bool,
    /// One said that there was a reset, the other that there was none.
    pub(crate) collision: bool,
}

/// A bucket as it lies on the number line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

fn spread(spans: &[Span], counts: &[f64]) -> Buckets {
    let mut out = Buckets::new();
    let (mut index, mut counts) = (0, counts.iter());
    for span in spans {
        index += span.offset;
        for _ in 0..span.length {
            out.insert(index, *counts.next().expect("as many counts as spans have buckets"));
            index += 1;
        }
    }
    out
}

fn gathered(buckets: &Buckets) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0;
    for index in buckets.keys().copied() {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span { offset: index - next, length: 1 }),
        }
        next = index + 1;
    }
    (spans, buckets.values().copied().collect())
}

/// Two become one from schema to schema.
fn coarser(buckets: &Buckets, from: i32, to: i32) -> Buckets {
    let mut out = Buckets::new();
    for (index, count) in buckets {
        *out.entry(((index - 1) >> (from - to)) + 1).or_default() += count;
    }
    out
}

fn plus(into: &mut Buckets, other: &Buckets, sign: f64) {
    for (index, count) in other {
        *into.entry(*index).or_default() += sign * count;
    }
}

impl Hist {
    pub(crate) fn empty(schema: i32, bounds: &[f64]) -> Self {
        Self {
            hint: CounterResetHint::Unknown,
            schema,
            bounds: bounds.to_vec(),
            threshold: 0.0,
            zero: 0.0,
            count: 0.0,
            sum: 0.0,
            positive: Buckets::new(),
            negative: Buckets::new(),
        }
    }

    pub(crate) fn read(h: &FloatHistogram) -> Self {
        Self {
            hint: h.counter_reset_hint,
            schema: h.schema,
            bounds: h.custom_values.to_vec(),
            threshold: h.zero_threshold,
            zero: h.zero_count,
            count: h.count,
            sum: h.sum,
            positive: spread(&h.positive_spans, &h.positive_buckets),
            negative: spread(&h.negative_spans, &h.negative_buckets),
        }
    }

    pub(crate) fn written(&self) -> FloatHistogram {
        let (positive_spans, positive_buckets) = gathered(&self.positive);
        let (negative_spans, negative_buckets) = gathered(&self.negative);
        FloatHistogram {
            counter_reset_hint: self.hint,
            schema: self.schema,
            zero_threshold: self.threshold,
            zero_count: self.zero,
            count: self.count,
            sum: self.sum,
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: self.bounds.as_slice().into(),
        }
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    fn upper_at(schema: i32, index: i32) -> f64 {
        (f64::from(index) * (-f64::from(schema)).exp2()).exp2()
    }

    /// Upper bound of a bucket; of a negative one, its distance from zero.
    pub(crate) fn upper(&self, index: i32) -> f64 {
        if self.is_custom() {
            return self.bounds.get(index as usize).copied().unwrap_or(f64::INFINITY);
        }
        Self::upper_at(self.schema, index)
    }

    pub(crate) fn lower(&self, index: i32) -> f64 {
        match (self.is_custom(), index) {
            (true, 0) => f64::NEG_INFINITY,
            _ => self.upper(index - 1),
        }
    }

    /// The bucket of a positive value.
    pub(crate) fn index_of(&self, value: f64) -> i32 {
        if self.is_custom() {
            return self.bounds.iter().filter(|bound| **bound < value).count() as i32;
        }
        let exact = value.log2() * f64::from(self.schema).exp2();
        let index = exact.ceil() as i32;
        // A value at a bound belongs below it, whatever the logarithm's last bit says.
        if Self::upper_at(self.schema, index - 1) >= value { index - 1 } else { index }
    }

    pub(crate) fn scale(&mut self, factor: f64) {
        if factor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
        self.each(|v| v * factor);
    }

    pub(crate) fn divide(&mut self, divisor: f64) {
        if divisor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
        if divisor == 0.0 {
            self.positive.clear();
            self.negative.clear();
        }
        self.each(|v| v / divisor);
    }

    fn each(&mut self, f: impl Fn(f64) -> f64) {
        let fields = [&mut self.zero, &mut self.count, &mut self.sum].into_iter();
        fields.chain(self.positive.values_mut()).chain(self.negative.values_mut()).for_each(|v| *v = f(*v));
    }

    pub(crate) fn compact(mut self) -> Self {
        self.positive.retain(|_, count| *count != 0.0);
        self.negative.retain(|_, count| *count != 0.0);
        self
    }

    pub(crate) fn at_schema(&self, schema: i32) -> Self {
        let mut out = self.clone();
        if schema < self.schema && !self.is_custom() {
            out.positive = coarser(&self.positive, self.schema, schema);
            out.negative = coarser(&self.negative, self.schema, schema);
            out.schema = schema;
        }
        out
    }

    /// The zero bucket with a larger threshold; where that is within a bucket with observations, larger still.
    pub(crate) fn zero_up_to(&self, mut threshold: f64) -> (f64, f64) {
        if threshold == self.threshold {
            return (self.zero, threshold);
        }
        loop {
            let mut count = self.zero;
            for (index, n) in &self.positive {
                if self.lower(*index) >= threshold {
                    break;
                }
                count += n;
                if self.upper(*index) > threshold {
                    if *n != 0.0 {
                        threshold = self.upper(*index);
                    }
                    break;
                }
            }
            let mut grown = false;
            for (index, n) in &self.negative {
                if self.lower(*index) >= threshold {
                    break;
                }
                count += n;
                if self.upper(*index) > threshold {
                    if *n != 0.0 {
                        threshold = self.upper(*index);
                        grown = true;
                    }
                    break;
                }
            }
            if !grown {
                return (count, threshold);
            }
        }
    }

    /// Raises the threshold.
    pub(crate) fn widen_zero(&mut self, threshold: f64) {
        let (zero, threshold) = self.zero_up_to(threshold);
        (self.zero, self.threshold) = (zero, threshold);
        let (lower, schema) = (|schema, index: i32| Self::upper_at(schema, index - 1), self.schema);
        self.positive.retain(|index, n| lower(schema, *index) >= threshold && *n != 0.0);
        self.negative.retain(|index, n| lower(schema, *index) >= threshold && *n != 0.0);
    }

    /// Adds (or with a sign of -1, subtracts).
    pub(crate) fn add(&mut self, other: &Self, sign: f64) -> Result<Combined, Mixed> {
        use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
        if self.is_custom() != other.is_custom() {
            return Err(Mixed);
        }
        let mut combined = Combined::default();
        self.hint = match (self.hint, other.hint) {
            (a, b) if a == b => a,
            (Gauge, _) | (_, Gauge) => Gauge,
            (CounterReset, NotCounterReset) | (NotCounterReset, CounterReset) => {
                combined.collision = true;
                Unknown
            }
            _ => Unknown,
        };
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        if self.is_custom() {
            combined.reconciled = self.bounds != other.bounds;
            if combined.reconciled {
                let common = self.common_bounds(other);
                let mut mapped = self.onto(&common);
                plus(&mut mapped, &other.onto(&common), sign);
                mapped.retain(|_, count| *count != 0.0);
                (self.positive, self.bounds) = (mapped, common);
            } else {
                plus(&mut self.positive, &other.positive, sign);
            }
            return Ok(combined);
        }
        let (mut other_zero, mut other_threshold) = (other.zero, other.threshold);
        while other_threshold != self.threshold {
            if self.threshold > other_threshold {
                (other_zero, other_threshold) = other.zero_up_to(self.threshold);
            }
            if other_threshold > self.threshold {
                self.widen_zero(other_threshold);
            }
        }
        self.zero += sign * other_zero;
        let schema = self.schema.min(other.schema);
        let hint = self.hint;
        *self = self.at_schema(schema);
        self.hint = hint;
        let mut other = other.at_schema(schema);
        // What is within the zero bucket was counted there.
        let threshold = self.threshold;
        other.positive.retain(|index, _| Self::upper_at(schema, *index) > threshold);
        other.negative.retain(|index, _| Self::upper_at(schema, *index) > threshold);
        plus(&mut self.positive, &other.positive, sign);
        plus(&mut self.negative, &other.negative, sign);
        Ok(combined)
    }

    fn common_bounds(&self, other: &Self) -> Vec<f64> {
        self.bounds.iter().copied().filter(|bound| other.bounds.contains(bound)).collect()
    }

    /// Custom buckets under fewer bounds.
    fn onto(&self, bounds: &[f64]) -> Buckets {
        let mut out = Buckets::new();
        for (index, count) in &self.positive {
            let upper = self.upper(*index);
            let target = bounds.iter().filter(|bound| **bound < upper).count() as i32;
            *out.entry(target).or_default() += count;
        }
        out
    }

    /// Whether a counter began anew between `previous` and this.
    pub(crate) fn is_reset_after(&self, previous: &Self) -> bool {
        match self.hint {
            CounterResetHint::CounterReset => return true,
            CounterResetHint::NotCounterReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        let shrunk = |now: &Buckets, before: &Buckets| {
            before.iter().any(|(index, n)| now.get(index).map_or(*n != 0.0, |now| now < n))
        };
        if self.count < previous.count || self.is_custom() != previous.is_custom() {
            return true;
        }
        if self.is_custom() {
            if self.bounds == previous.bounds {
                return shrunk(&self.positive, &previous.positive);
            }
            let common = self.common_bounds(previous);
            let (now, before) = (self.onto(&common), previous.onto(&common));
            return before.iter().any(|(index, n)| now.get(index).copied().unwrap_or(0.0) < *n);
        }
        if self.schema > previous.schema || self.threshold < previous.threshold {
            return true;
        }
        let (zero, threshold) = previous.zero_up_to(self.threshold);
        if threshold != self.threshold || self.zero < zero {
            return true;
        }
        let outside = |h: &Self, buckets: &Buckets| {
            let mut out = coarser(buckets, h.schema, self.schema);
            out.retain(|index, _| Self::upper_at(self.schema, *index) > self.threshold);
            out
        };
        shrunk(&outside(self, &self.positive), &outside(previous, &previous.positive))
            || shrunk(&outside(self, &self.negative), &outside(previous, &previous.negative))
    }

    /// Bit by bit, layout included; the hint does not count.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let bits = |h: &Self| {
            let fields = [h.count, h.sum, h.threshold, h.zero].map(f64::to_bits);
            let buckets =
                |buckets: &Buckets| buckets.iter().map(|(i, n)| (*i, n.to_bits())).collect::<Vec<_>>();
            (h.schema, h.bounds.clone(), fields, buckets(&h.positive), buckets(&h.negative))
        };
        bits(self) == bits(other)
    }

    /// All buckets in order, the zero bucket between; bounds do not reach into it.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        let outside = |bound: f64| if bound > 0.0 { bound.max(self.threshold) } else { bound };
        let mut out: Vec<Bucket> = Vec::new();
        for (index, count) in self.negative.iter().rev() {
            let (lower, upper) = (-self.upper(*index), -outside(self.lower(*index)));
            out.push(Bucket { lower, upper, count: *count });
        }
        if self.zero > 0.0 {
            out.push(Bucket { lower: -self.threshold, upper: self.threshold, count: self.zero });
        }
        for (index, count) in &self.positive {
            out.push(Bucket { lower: outside(self.lower(*index)), upper: self.upper(*index), count: *count });
        }
        out
    }

    /// As `count_values` writes it.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{{count:{}, sum:{}", GoFloat(self.count), GoFloat(self.sum));
        let mut push = |open: char, lower: f64, upper: f64, close: char, count: f64| {
            if count != 0.0 {
                out += &format!(", {open}{},{}{close}:{}", GoFloat(lower), GoFloat(upper), GoFloat(count));
            }
        };
        for (index, count) in self.negative.iter().rev() {
            push('[', -self.upper(*index), -self.lower(*index), ')', *count);
        }
        push('[', -self.threshold, self.threshold, ']', self.zero);
        for (index, count) in &self.positive {
            let open = if self.is_custom() && *index == 0 { '[' } else { '(' };
            push(open, self.lower(*index), self.upper(*index), ']', *count);
        }
        out + "}"
    }

    /// The indices of all buckets of either side.
    pub(crate) fn indices(&self, other: &Self) -> BTreeSet<i32> {
        let of = |h: &Self| h.positive.keys().chain(h.negative.keys()).copied().collect::<Vec<_>>();
        of(self).into_iter().chain(of(other)).collect()
    }
}
