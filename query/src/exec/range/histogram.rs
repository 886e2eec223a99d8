//! Windows of native histograms: growth over a window, sums and averages.

use std::sync::Arc;

use model::FloatHistogram;
use model::histogram::{CounterResetHint, HistogramSum, IncompatibleSchemas};

use crate::exec::notes::HistogramOperation;

/// How much histograms grew over a window.
pub(super) struct Growth {
    /// Marked as gauge, compact.
    pub(super) histogram: FloatHistogram,
    /// The operation in which custom bounds had to be reconciled, if any.
    pub(super) reconciled: Option<HistogramOperation>,
}

/// The last histogram less the first, resets made good; with `from_zero`, all of the first counts too. `is_reset` says
/// that start timestamps tell of a reset before sample `i`. Schemas are reduced to the coarsest that occurs.
pub(super) fn growth(
    histograms: &[Arc<FloatHistogram>],
    counter: bool,
    from_zero: bool,
    is_reset: impl Fn(usize) -> bool,
) -> Result<Growth, IncompatibleSchemas> {
    let first = &*histograms[0];
    let last = &*histograms[histograms.len() - 1];
    let reset_at = |i: usize| is_reset(i) || histograms[i].is_reset_after(&histograms[i - 1]);
    let first_reset = counter && histograms.len() > 1 && reset_at(1);
    // Before a reset right after it, the first sample need not fit the others.
    let (mut custom, mut schema) = (first.uses_custom_buckets(), first.schema);
    if first_reset && !from_zero {
        (custom, schema) = (histograms[1].uses_custom_buckets(), histograms[1].schema);
    }
    if last.uses_custom_buckets() != custom {
        return Err(IncompatibleSchemas);
    }
    schema = schema.min(last.schema);
    if counter && histograms.len() > 2 {
        for histogram in &histograms[1..histograms.len() - 1] {
            schema = schema.min(histogram.schema);
            if histogram.uses_custom_buckets() != custom {
                return Err(IncompatibleSchemas);
            }
        }
    }
    let mut total = last.to_schema(schema);
    let mut reconciled = None;
    if histograms.len() > 1 && !first_reset && !from_zero {
        let (difference, how) = total.minus(first)?;
        total = difference;
        if how.custom_bounds {
            reconciled = Some(HistogramOperation::Subtraction);
        }
    }
    if counter {
        for i in 1..histograms.len() {
            if i == 1 && first_reset && !from_zero {
                continue;
            }
            if reset_at(i) {
                let (sum, how) = total.plus(&histograms[i - 1])?;
                total = sum;
                if how.custom_bounds {
                    reconciled = Some(HistogramOperation::Addition);
                }
            }
        }
    }
    total.counter_reset_hint = CounterResetHint::Gauge;
    total.compact();
    Ok(Growth { histogram: total, reconciled })
}

/// What a sum of histograms met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SumNotes {
    reset_seen: bool,
    no_reset_seen: bool,
    pub(crate) reconciled: bool,
}

impl SumNotes {
    /// Takes note of a summand's hint.
    pub(crate) fn see(&mut self, histogram: &FloatHistogram) {
        match histogram.counter_reset_hint {
            CounterResetHint::CounterReset => self.reset_seen = true,
            CounterResetHint::NotCounterReset => self.no_reset_seen = true,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
    }

    /// Whether summands contradict each other about resets.
    pub(crate) fn collision(&self) -> bool {
        self.reset_seen && self.no_reset_seen
    }
}

/// A compensated sum that turns into a running mean where the plain sum would overflow.
#[derive(Clone, Debug)]
pub(crate) struct Mean {
    sum: HistogramSum,
    count: f64,
    /// Whether `sum` is a mean already.
    incremental: bool,
}

impl Mean {
    pub(crate) fn new(first: &FloatHistogram) -> Self {
        Self { sum: HistogramSum::from(first), count: 1.0, incremental: false }
    }

    pub(crate) fn add(
        &mut self,
        histogram: &FloatHistogram,
        notes: &mut SumNotes,
    ) -> Result<(), IncompatibleSchemas> {
        self.count += 1.0;
        if !self.incremental {
            let mut sum = self.sum.clone();
            notes.reconciled |= sum.add(histogram)?.custom_bounds;
            if !sum.has_overflow() {
                self.sum = sum;
                return Ok(());
            }
            self.incremental = true;
            self.sum.divide(self.count - 1.0);
        }
        self.sum.scale((self.count - 1.0) / self.count);
        let mut part = histogram.clone();
        part.divide(self.count);
        notes.reconciled |= self.sum.add(&part)?.custom_bounds;
        Ok(())
    }

    pub(crate) fn mean(mut self) -> FloatHistogram {
        if !self.incremental {
            self.sum.divide(self.count);
        }
        self.sum.total()
    }
}

/// The sum or the mean of histograms (at least one).
pub(crate) fn add_all(
    histograms: &[Arc<FloatHistogram>],
    mean: bool,
    notes: &mut SumNotes,
) -> Result<FloatHistogram, IncompatibleSchemas> {
    for histogram in histograms {
        notes.see(histogram);
    }
    let (first, rest) = (&histograms[0], &histograms[1..]);
    if mean {
        let mut total = Mean::new(first);
        for histogram in rest {
            total.add(histogram, notes)?;
        }
        return Ok(total.mean());
    }
    let mut total = HistogramSum::from(&**first);
    for histogram in rest {
        notes.reconciled |= total.add(histogram)?.custom_bounds;
    }
    Ok(total.total())
}
