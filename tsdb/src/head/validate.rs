//! Which samples are taken: Prometheus' rules of time order, duplicates and bounds.
//!
//! A timestamp of a series has one value. The same value again is taken silently and not stored twice, wherever it is
//! stored (a sender that repeats a batch hears success); another one is a duplicate. Histograms must not contradict
//! themselves.

use hashbrown::HashMap;
use model::sample::Timestamp;
use model::storage::AppendError;

use super::series::{Series, Stored};
use crate::chunk::HistogramValue;
use crate::head_chunks::FilePosition;

/// The bounds of one transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Samples later than this are refused.
    pub(crate) max_time: Timestamp,
    /// In-order samples earlier than this are refused, unless the out-of-order window reaches them.
    pub(crate) min_valid: Timestamp,
    /// Samples earlier than this are out of order whatever their series has: the time before is in blocks, or about to be.
    pub(crate) in_order_from: Timestamp,
    /// Where the out-of-order window begins, if there is one.
    pub(crate) out_of_order_from: Option<Timestamp>,
    /// Whether the transaction wants no out-of-order samples.
    pub(crate) reject_out_of_order: bool,
    /// Samples that files have before this place are known not to be at the times in question.
    pub(crate) files_from: FilePosition,
}

impl Limits {
    /// Judges a float by the newest sample of its series alone, where that suffices: most are newer and within bounds.
    pub(crate) fn plain(&self, last: Option<(Timestamp, u64)>, t: Timestamp, bits: u64) -> Option<Verdict> {
        if t > self.max_time || t < self.in_order_from {
            return None;
        }
        match last {
            Some((last, stored)) if t <= last => (t == last && bits == stored).then_some(Verdict::Known),
            None | Some(_) => {
                let in_window = self.out_of_order_from.is_some_and(|from| t >= from);
                (t >= self.min_valid || in_window).then_some(Verdict::Store { in_order: true })
            }
        }
    }
}

/// What to do with a sample that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Store it; `in_order`: it is newer than all others.
    Store { in_order: bool },
    /// It is stored already.
    Known,
}

/// What a transaction is about to write.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    series: HashMap<u32, PendingSeries>,
}

#[derive(Debug)]
struct PendingSeries {
    latest: (Timestamp, Stored),
    /// All others, sorted by time.
    others: Vec<(Timestamp, Stored)>,
}

impl Pending {
    /// Whether nothing was noted.
    pub(crate) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The newest pending sample of a series.
    pub(crate) fn latest(&self, id: u32) -> Option<&(Timestamp, Stored)> {
        self.series.get(&id).map(|pending| &pending.latest)
    }

    fn value_at(&self, id: u32, t: Timestamp) -> Option<&Stored> {
        let pending = self.series.get(&id)?;
        if pending.latest.0 == t {
            return Some(&pending.latest.1);
        }
        let index = pending.others.binary_search_by_key(&t, |other| other.0).ok()?;
        Some(&pending.others[index].1)
    }

    pub(crate) fn note(&mut self, id: u32, t: Timestamp, value: Stored) {
        let Some(pending) = self.series.get_mut(&id) else {
            self.series.insert(id, PendingSeries { latest: (t, value), others: Vec::new() });
            return;
        };
        if t > pending.latest.0 {
            let before = std::mem::replace(&mut pending.latest, (t, value));
            pending.others.push(before);
        } else if let Err(index) = pending.others.binary_search_by_key(&t, |other| other.0) {
            pending.others.insert(index, (t, value));
        }
    }

    /// Judges one sample of a series, and takes note of it when it is to be stored.
    pub(crate) fn admit(
        &mut self,
        id: u32,
        series: &Series,
        t: Timestamp,
        value: &Stored,
        limits: &Limits,
    ) -> Result<Verdict, AppendError> {
        let verdict = self.judge(id, series, t, value, limits)?;
        if matches!(verdict, Verdict::Store { .. }) {
            self.note(id, t, value.clone());
        }
        Ok(verdict)
    }

    fn judge(
        &self,
        id: u32,
        series: &Series,
        t: Timestamp,
        value: &Stored,
        limits: &Limits,
    ) -> Result<Verdict, AppendError> {
        if series.is_unlinked() {
            // Whoever looks it up by its labels gets another one.
            return Err(AppendError::UnknownSeries);
        }
        if t > limits.max_time {
            return Err(AppendError::OutOfBounds);
        }
        let stored = series.latest();
        let pending = self.latest(id);
        // What is deleted may come again, as out of order.
        let is_deleted = pending.is_none_or(|pending| pending.0 < t) && series.hides(t);
        let latest = match (&stored, pending) {
            (Some(stored), Some(pending)) if pending.0 < stored.0 => Some(stored),
            (_, Some(pending)) => Some(pending),
            (stored, None) => stored.as_ref(),
        };
        let in_window = limits.out_of_order_from.is_some_and(|from| t >= from);
        match latest {
            Some(latest) if latest.0 == t && !is_deleted => {
                return if latest.1.same_bits(value) {
                    Ok(Verdict::Known)
                } else {
                    Err(AppendError::Duplicate)
                };
            }
            Some(latest) if latest.0 >= t => {}
            None | Some(_) if t < limits.in_order_from => {}
            None | Some(_) if t >= limits.min_valid || in_window => {
                return Ok(Verdict::Store { in_order: true });
            }
            None | Some(_) if limits.out_of_order_from.is_some() => return Err(AppendError::TooOld),
            None | Some(_) => return Err(AppendError::OutOfBounds),
        }
        // Older than the newest: perhaps a repetition. Damage in memory would show when the series is read.
        let known = match self.value_at(id, t) {
            Some(known) => Some(known.clone()),
            None => series.value_behind(limits.files_from, limits.in_order_from, t).unwrap_or_default(),
        };
        match known {
            Some(known) if known.same_bits(value) => Ok(Verdict::Known),
            _ if limits.reject_out_of_order => Err(AppendError::OutOfOrder),
            Some(_) if in_window => Err(AppendError::Duplicate),
            None if in_window => Ok(Verdict::Store { in_order: false }),
            _ if limits.out_of_order_from.is_some() => Err(AppendError::TooOld),
            _ if t < limits.min_valid => Err(AppendError::OutOfBounds),
            _ => Err(AppendError::OutOfOrder),
        }
    }
}

/// Checks that a histogram does not contradict itself.
pub(crate) fn check_histogram(value: &HistogramValue) -> Result<(), AppendError> {
    let checked = match value {
        HistogramValue::Integer(h) => h.validate(),
        HistogramValue::Float(h) => h.validate(),
    };
    checked.map_err(AppendError::InvalidHistogram)
}

#[cfg(test)]
mod tests {
    use super::super::series::CommitMark;
    use super::*;

    const AT: CommitMark = CommitMark { commit: 1, watermark: 1, in_order_from: i64::MIN };
    const STRICT: Limits = Limits {
        max_time: 1000,
        min_valid: 50,
        in_order_from: i64::MIN,
        out_of_order_from: None,
        reject_out_of_order: false,
        files_from: FilePosition::START,
    };

    const STORE: Verdict = Verdict::Store { in_order: true };
    const LATE: Verdict = Verdict::Store { in_order: false };

    fn series(times: &[i64]) -> Series {
        let mut series = Series::default();
        for t in times {
            series.add(*t, Stored::Float(t.cast_unsigned()), 0, AT);
        }
        series
    }

    #[test]
    fn the_rules_of_time() {
        use AppendError::{Duplicate, OutOfBounds, OutOfOrder, TooOld};
        let window = Limits { out_of_order_from: Some(80), ..STRICT };
        let reject = Limits { reject_out_of_order: true, ..window };
        let cases = [
            (STRICT, 101, 0, Ok(STORE)),
            (STRICT, 1001, 0, Err(OutOfBounds)),
            (STRICT, 100, 100, Ok(Verdict::Known)),
            (STRICT, 100, 7, Err(Duplicate)),
            (STRICT, 90, 90, Ok(Verdict::Known)),
            (STRICT, 90, 7, Err(OutOfOrder)),
            (STRICT, 49, 7, Err(OutOfBounds)),
            (window, 95, 7, Ok(LATE)),
            (window, 90, 7, Err(Duplicate)),
            (window, 79, 7, Err(TooOld)),
            (window, 60, 60, Ok(Verdict::Known)),
            (reject, 95, 7, Err(OutOfOrder)),
            (reject, 90, 90, Ok(Verdict::Known)),
        ];
        let series = series(&[60, 90, 100]);
        for (limits, t, bits, want) in cases {
            let got = Pending::default().admit(1, &series, t, &Stored::Float(bits), &limits);
            assert_eq!(got, want, "{t} {limits:?}");
            let plain = limits.plain(series.plain_last().unwrap(), t, bits);
            assert!(plain.is_none_or(|plain| Ok(plain) == want), "{t} {limits:?}: {plain:?}");
        }
        assert_eq!(STRICT.plain(series.plain_last().unwrap(), 101, 0), Some(STORE));
        assert_eq!(STRICT.plain(series.plain_last().unwrap(), 100, 100), Some(Verdict::Known));
        let empty = Series::default();
        assert_eq!(Pending::default().admit(1, &empty, 49, &Stored::Float(0), &STRICT), Err(OutOfBounds));
        assert_eq!(Pending::default().admit(1, &empty, 79, &Stored::Float(0), &window), Ok(STORE));
        let frozen = Limits { in_order_from: 120, ..window };
        for (t, bits, want) in [(110, 7, Ok(LATE)), (120, 7, Ok(STORE)), (100, 7, Err(Duplicate))] {
            let got = Pending::default().admit(1, &series, t, &Stored::Float(bits), &frozen);
            assert_eq!(got, want, "{t} before what is in blocks");
        }
        assert_eq!(Pending::default().admit(1, &empty, 119, &Stored::Float(0), &frozen), Ok(LATE));
        let far = Limits { min_valid: 200, ..window };
        assert_eq!(Pending::default().admit(1, &empty, 79, &Stored::Float(0), &far), Err(TooOld));
    }

    #[test]
    fn what_is_pending_counts() {
        let series = series(&[]);
        let mut pending = Pending::default();
        let mut admit = |t, bits| pending.admit(1, &series, t, &Stored::Float(bits), &STRICT);
        assert_eq!(admit(100, 1), Ok(STORE));
        assert_eq!(admit(110, 2), Ok(STORE));
        assert_eq!(admit(110, 2), Ok(Verdict::Known));
        assert_eq!(admit(100, 1), Ok(Verdict::Known));
        assert_eq!(admit(100, 3), Err(AppendError::OutOfOrder));
        assert_eq!(admit(105, 3), Err(AppendError::OutOfOrder));
    }
}
