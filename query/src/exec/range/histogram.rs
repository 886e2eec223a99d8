//! Windows of native histograms: growth over a window, sums and averages.

use std::sync::Arc;

use model::FloatHistogram;
use model::histogram::{CounterResetHint, HistogramSum, IncompatibleSchemas};

/// How much histograms grew over a window.
pub(super) struct Growth {
    /// Marked as gauge, compact.
    pub(super) histogram: FloatHistogram,
    /// Whether custom bounds had to be reconciled in the subtraction, and in additions.
    pub(super) reconciled: (bool, bool),
}

/// Why there is no growth: exponential and custom buckets are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// At the window's ends, as is seen first.
    Ends,
    /// Between them.
    Inside,
}

impl From<IncompatibleSchemas> for Misfit {
    fn from(_: IncompatibleSchemas) -> Self {
        Self::Inside
    }
}

/// The last histogram less the first, resets made good; a single one is all that grew. `is_reset` says that start
/// timestamps tell of a reset before sample `i`. Schemas are reduced to the coarsest that occurs.
pub(super) fn growth(
    histograms: &[Arc<FloatHistogram>],
    counter: bool,
    is_reset: impl Fn(usize) -> bool,
) -> Result<Growth, Misfit> {
    let first = &*histograms[0];
    let last = &*histograms[histograms.len() - 1];
    let mut reconciled = (false, false);
    let mut total = if histograms.len() < 2 {
        first.clone()
    } else {
        // Before a reset right after it, the first sample need not fit the others: nothing stands for it, with the
        // bounds of the second.
        let nothing;
        let mut base = first;
        let first_reset = counter && (is_reset(1) || histograms[1].is_reset_after(first));
        if first_reset {
            nothing = FloatHistogram {
                schema: histograms[1].schema,
                custom_values: Arc::clone(&histograms[1].custom_values),
                ..FloatHistogram::default()
            };
            base = &nothing;
        }
        let (custom, mut schema) = (base.uses_custom_buckets(), base.schema.min(last.schema));
        if last.uses_custom_buckets() != custom {
            return Err(Misfit::Ends);
        }
        if counter {
            for histogram in &histograms[1..histograms.len() - 1] {
                schema = schema.min(histogram.schema);
                if histogram.uses_custom_buckets() != custom {
                    return Err(Misfit::Inside);
                }
            }
        }
        let mut total = last.to_schema(schema);
        if !first_reset || base.custom_values != last.custom_values {
            let (difference, how) = total.minus(base)?;
            (total, reconciled.0) = (difference, how.custom_bounds);
        }
        let mut previous = base;
        for (i, histogram) in histograms.iter().enumerate().skip(1).filter(|_| counter) {
            if is_reset(i) || histogram.is_reset_after(previous) {
                let (sum, how) = total.plus(previous)?;
                total = sum;
                reconciled.1 |= how.custom_bounds;
            }
            previous = histogram;
        }
        total
    };
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
