//! One series with all its steps: a column of floats with a bitmap of presence, and a sparse column of histograms.

use std::sync::Arc;

use model::FloatHistogram;

/// The values of one series at all steps. A step holds a float, a histogram, or nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    steps: usize,
    values: Vec<f64>,
    present: Vec<u64>,
    histograms: Vec<(u32, Arc<FloatHistogram>)>,
}

/// The value of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

impl Column {
    /// Empties the column and gives it a number of steps.
    pub(crate) fn reset(&mut self, steps: usize) {
        self.steps = steps;
        // Values of absent steps are never read, so what was there may stay.
        self.values.resize(steps, 0.0);
        self.present.clear();
        self.present.resize(steps.div_ceil(64), 0);
        self.histograms.clear();
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Sets a float.
    pub(crate) fn set(&mut self, step: usize, value: f64) {
        self.values[step] = value;
        self.present[step / 64] |= 1 << (step % 64);
    }

    /// Sets a histogram; steps must come in order.
    pub(crate) fn push_histogram(&mut self, step: usize, histogram: Arc<FloatHistogram>) {
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        debug_assert!(self.histograms.last().is_none_or(|(last, _)| *last < step));
        self.histograms.push((step, histogram));
    }

    /// Gives every step the same float.
    pub(crate) fn fill(&mut self, value: f64) {
        self.values.fill(value);
        self.mark_all();
    }

    /// Copies whole columns of floats.
    pub(crate) fn copy_floats(&mut self, values: &[f64]) {
        self.values.copy_from_slice(values);
        self.mark_all();
    }

    /// Sets floats at the steps that `marks` has a bit for. `values` has one for each step, of which those of other steps do
    /// not matter.
    pub(crate) fn set_marked(&mut self, marks: &[u64], values: impl Iterator<Item = f64>) {
        debug_assert!(self.present.len() == marks.len());
        self.values.iter_mut().zip(values).for_each(|(own, value)| *own = value);
        self.present.iter_mut().zip(marks).for_each(|(own, mark)| *own |= mark);
    }

    fn mark_all(&mut self) {
        self.present.fill(u64::MAX);
        if !self.steps.is_multiple_of(64)
            && let Some(last) = self.present.last_mut()
        {
            *last = (1 << (self.steps % 64)) - 1;
        }
    }

    /// Whether step `step` has a float.
    pub(crate) fn has_float(&self, step: usize) -> bool {
        self.present[step / 64] & (1 << (step % 64)) != 0
    }

    /// The float of a step.
    pub(crate) fn float(&self, step: usize) -> Option<f64> {
        self.has_float(step).then(|| self.values[step])
    }

    /// The histogram of a step.
    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let step = u32::try_from(step).ok()?;
        let index = self.histograms.binary_search_by_key(&step, |(at, _)| *at).ok()?;
        Some(&self.histograms[index].1)
    }

    /// What a step has.
    pub(crate) fn cell(&self, step: usize) -> Option<Cell<'_>> {
        match self.float(step) {
            Some(value) => Some(Cell::Float(value)),
            None => self.histogram(step).map(Cell::Histogram),
        }
    }

    /// Whether a step has anything.
    pub(crate) fn has(&self, step: usize) -> bool {
        self.has_float(step) || self.histogram(step).is_some()
    }

    /// Histograms with their steps, in order.
    pub(crate) fn histograms(&self) -> &[(u32, Arc<FloatHistogram>)] {
        &self.histograms
    }

    /// Calls `f` for each float in order of steps.
    pub(crate) fn for_each_float(&self, mut f: impl FnMut(usize, f64)) {
        for (word_index, &word) in self.present.iter().enumerate() {
            let base = word_index * 64;
            if word == u64::MAX {
                for (offset, &value) in self.values[base..base + 64].iter().enumerate() {
                    f(base + offset, value);
                }
                continue;
            }
            let mut rest = word;
            while rest != 0 {
                let step = base + rest.trailing_zeros() as usize;
                f(step, self.values[step]);
                rest &= rest - 1;
            }
        }
    }

    /// Calls `f` for the floats of neighbouring steps, with the first of those, in order.
    pub(crate) fn for_each_run(&self, mut f: impl FnMut(usize, &[f64])) {
        for (word_index, &word) in self.present.iter().enumerate() {
            let base = word_index * 64;
            let mut rest = word;
            while rest != 0 {
                let from = rest.trailing_zeros();
                let len = (rest >> from).trailing_ones();
                f(base + from as usize, &self.values[base + from as usize..][..len as usize]);
                rest = if from + len == 64 { 0 } else { rest & (u64::MAX << (from + len)) };
            }
        }
    }

    /// Calls `f` for each cell in order of steps.
    pub(crate) fn for_each(&self, mut f: impl FnMut(usize, Cell<'_>)) {
        if self.histograms.is_empty() {
            self.for_each_float(|step, value| f(step, Cell::Float(value)));
            return;
        }
        let mut histograms = self.histograms.iter().peekable();
        self.for_each_float(|step, value| {
            while let Some((at, histogram)) = histograms.next_if(|(at, _)| (*at as usize) < step) {
                f(*at as usize, Cell::Histogram(histogram));
            }
            f(step, Cell::Float(value));
        });
        for (at, histogram) in histograms {
            f(*at as usize, Cell::Histogram(histogram));
        }
    }

    /// Replaces each float by `f` of it.
    pub(crate) fn map_floats(&mut self, f: impl Fn(f64) -> f64) {
        // Absent steps are computed along: branches would cost more than the arithmetic.
        for value in &mut self.values {
            *value = f(*value);
        }
    }

    /// Replaces each float by `f` of its step and itself, `None` removing it.
    pub(crate) fn filter_map_floats(&mut self, mut f: impl FnMut(usize, f64) -> Option<f64>) {
        for word_index in 0..self.present.len() {
            let mut rest = self.present[word_index];
            while rest != 0 {
                let bit = rest.trailing_zeros();
                let step = word_index * 64 + bit as usize;
                match f(step, self.values[step]) {
                    Some(value) => self.values[step] = value,
                    None => self.present[word_index] &= !(1 << bit),
                }
                rest &= rest - 1;
            }
        }
    }

    /// Keeps the histograms that `f` accepts.
    pub(crate) fn retain_histograms(&mut self, mut f: impl FnMut(usize) -> bool) {
        self.histograms.retain(|(step, _)| f(*step as usize));
    }

    /// Replaces each histogram by `f` of its step and itself, `None` removing it.
    pub(crate) fn filter_map_histograms(
        &mut self,
        mut f: impl FnMut(usize, &Arc<FloatHistogram>) -> Option<Arc<FloatHistogram>>,
    ) {
        self.histograms.retain_mut(|(step, histogram)| match f(*step as usize, histogram) {
            Some(new) => {
                *histogram = new;
                true
            }
            None => false,
        });
    }

    /// Turns each histogram into a float.
    pub(crate) fn histograms_to_floats(&mut self, mut f: impl FnMut(&FloatHistogram) -> f64) {
        self.present.fill(0);
        for (step, histogram) in std::mem::take(&mut self.histograms) {
            self.set(step as usize, f(&histogram));
        }
    }

    /// Removes all histograms.
    pub(crate) fn drop_histograms(&mut self) {
        self.histograms.clear();
    }

    /// Keeps only steps that `other` marks (`keep`) or does not mark.
    pub(crate) fn mask(&mut self, other: &Bits, keep: bool) {
        for (word, mask) in self.present.iter_mut().zip(&other.words) {
            *word &= if keep { *mask } else { !*mask };
        }
        self.histograms.retain(|(step, _)| other.get(*step as usize) == keep);
    }

    /// Number of floats.
    pub(crate) fn float_count(&self) -> usize {
        self.present.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.present.iter().all(|word| *word == 0)
    }

    /// Bytes of memory, those of histograms included.
    pub(crate) fn bytes(&self) -> usize {
        self.float_bytes() + self.histogram_bytes()
    }

    /// Bytes of memory without histograms.
    pub(crate) fn float_bytes(&self) -> usize {
        8 * (self.values.capacity() + self.present.capacity())
    }

    /// Bytes of histograms.
    pub(crate) fn histogram_bytes(&self) -> usize {
        16 * self.histograms.len() + shared_bytes(self.histograms.iter().map(|(_, histogram)| histogram))
    }

    /// Bytes that a column of so many steps takes before it has histograms.
    pub(crate) fn bytes_of(steps: usize) -> usize {
        steps.saturating_add(steps.div_ceil(64)).saturating_mul(8)
    }

    /// Samples held, a histogram counting as its size.
    pub(crate) fn sample_size(&self) -> usize {
        self.float_count() + self.histograms.iter().map(|(_, h)| histogram_size(h)).sum::<usize>()
    }

    /// The part of [`Column::sample_size`] that one step has.
    pub(crate) fn size_at(&self, step: usize) -> usize {
        match self.cell(step) {
            None => 0,
            Some(Cell::Float(_)) => 1,
            Some(Cell::Histogram(histogram)) => histogram_size(histogram),
        }
    }

    /// Takes over the cells of `other`; answers whether a step had something already.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let mut clash = false;
        if !other.histograms.is_empty() {
            clash |= other.histograms.iter().any(|(step, _)| self.has(*step as usize));
            clash |= self.histograms.iter().any(|(step, _)| other.has_float(*step as usize));
            self.histograms.extend(other.histograms.iter().cloned());
            self.histograms.sort_by_key(|(step, _)| *step);
            self.histograms.dedup_by_key(|(step, _)| *step);
        } else if !self.histograms.is_empty() {
            clash |= self.histograms.iter().any(|(step, _)| other.has_float(*step as usize));
        }
        for (own, theirs) in self.present.iter().zip(&other.present) {
            clash |= own & theirs != 0;
        }
        other.for_each_float(|step, value| self.set(step, value));
        clash
    }

    /// Marks all steps that have something.
    pub(crate) fn mark_presence(&self, into: &mut Bits) {
        for (own, mark) in self.present.iter().zip(&mut into.words) {
            *mark |= own;
        }
        for (step, _) in &self.histograms {
            into.set(*step as usize);
        }
    }
}

/// Bytes of histograms in order of time: of neighbours that are one and the same, once. (A sample that is the newest at many
/// steps is not copied.)
pub(crate) fn shared_bytes<'a>(histograms: impl Iterator<Item = &'a Arc<FloatHistogram>>) -> usize {
    let mut last: Option<&Arc<FloatHistogram>> = None;
    let mut bytes = 0;
    for histogram in histograms {
        if last.is_none_or(|last| !Arc::ptr_eq(last, histogram)) {
            bytes += 16 * histogram_size(histogram);
        }
        last = Some(histogram);
    }
    bytes
}

/// How many float samples a histogram counts for: its memory in units of a float point (16 bytes).
pub(crate) fn histogram_size(h: &FloatHistogram) -> usize {
    let spans = 8 * (h.positive_spans.len() + h.negative_spans.len());
    let counts = 8 * (h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len());
    (spans + counts + 168).div_ceil(16)
}

/// A set of steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(crate) fn new(steps: usize) -> Self {
        Self { words: vec![0; steps.div_ceil(64)] }
    }

    /// Bytes of a set over so many steps.
    pub(crate) fn bytes(steps: usize) -> usize {
        size_of::<Self>() + 8 * steps.div_ceil(64)
    }

    pub(crate) fn set(&mut self, step: usize) {
        self.words[step / 64] |= 1 << (step % 64);
    }

    pub(crate) fn get(&self, step: usize) -> bool {
        self.words[step / 64] & (1 << (step % 64)) != 0
    }

    /// Whether a step is in both.
    pub(crate) fn overlaps(&self, column: &Column) -> bool {
        self.words.iter().zip(&column.present).any(|(a, b)| a & b != 0)
            || column.histograms.iter().any(|(step, _)| self.get(*step as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> Arc<FloatHistogram> {
        Arc::new(FloatHistogram::default())
    }

    #[test]
    fn cells_come_in_order_of_steps() {
        let mut column = Column::default();
        column.reset(130);
        for step in [0, 63, 64, 129] {
            column.set(step, step as f64);
        }
        for step in [1, 65, 128] {
            column.push_histogram(step, histogram());
        }
        let mut seen = Vec::new();
        column.for_each(|step, cell| seen.push((step, matches!(cell, Cell::Float(_)))));
        assert_eq!(
            seen,
            [(0, true), (1, false), (63, true), (64, true), (65, false), (128, false), (129, true)]
        );
        assert_eq!(column.float_count(), 4);
        column.fill(1.0);
        assert_eq!(column.float_count(), 130);
    }

    #[test]
    fn runs_are_what_is_there() {
        let mut column = Column::default();
        column.reset(200);
        let there = (0..200).filter(|step| step % 7 != 3 && !(64..130).contains(step) || *step == 127);
        there.clone().for_each(|step| column.set(step, step as f64));
        let mut seen = Vec::new();
        column.for_each_run(|from, run| {
            seen.extend(run.iter().enumerate().map(|(offset, value)| (from + offset, *value)));
        });
        assert_eq!(seen, there.map(|step| (step, step as f64)).collect::<Vec<_>>());
    }

    #[test]
    fn merging_reports_steps_taken_twice() {
        let (mut a, mut b) = (Column::default(), Column::default());
        a.reset(3);
        b.reset(3);
        a.set(0, 1.0);
        b.set(1, 2.0);
        b.push_histogram(2, histogram());
        assert!(!a.merge(&b));
        assert_eq!((a.float(1), a.histogram(2).is_some()), (Some(2.0), true));
        assert!(a.merge(&b));
        let mut c = Column::default();
        c.reset(3);
        c.set(2, 1.0);
        assert!(a.merge(&c));
    }
}
