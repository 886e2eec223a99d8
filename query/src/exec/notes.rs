//! Annotations while a query runs: texts without position, each kept once, with the place they speak of. Positions are
//! written into the texts at the end, as `(line:column)`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::histogram::GoFloat;
use model::labels::Quoted;
use model::{Annotations, Timestamp};

use crate::ast::Span;

/// A span in the text of the query; of equal annotations the last place wins, as in Prometheus.
type Place = Span;

/// How much a text weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Warning,
    Info,
}

/// Numbers about forced monotonicity, over all samples of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ForcedMonotonicity {
    /// Bounds between which counts decreased.
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    /// The largest decrease.
    pub(crate) max_diff: f64,
    /// First and last time.
    pub(crate) min_t: Timestamp,
    pub(crate) max_t: Timestamp,
    /// How many samples.
    pub(crate) samples: u64,
}

#[derive(Debug)]
struct Note {
    place: Place,
    monotonicity: Option<ForcedMonotonicity>,
}

/// The annotations of one query. Threads add in any order; the outcome does not depend on it.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    notes: Mutex<BTreeMap<(Level, String), Note>>,
    /// What storage said: texts that have no place.
    foreign: Mutex<Annotations>,
    /// How often something was noted, maybe again.
    additions: AtomicU64,
}

/// An operation on histograms, as named in annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistogramOperation {
    Addition,
    Subtraction,
    Aggregation,
}

impl fmt::Display for HistogramOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// ` for metric name "x"`, or nothing without a name.
fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", Quoted(name)) }
}

impl Notes {
    /// How often something was noted, maybe again, of what has a place.
    pub(crate) fn additions(&self) -> u64 {
        self.additions.load(Ordering::Relaxed)
    }

    fn add(&self, level: Level, place: Place, text: String) {
        self.additions.fetch_add(1, Ordering::Relaxed);
        lock(&self.notes)
            .entry((level, text))
            .and_modify(|note| note.place = later(note.place, place))
            .or_insert(Note { place, monotonicity: None });
    }

    fn warn(&self, place: Place, text: impl fmt::Display) {
        self.add(Level::Warning, place, format!("PromQL warning: {text}"));
    }

    fn info(&self, place: Place, text: impl fmt::Display) {
        self.add(Level::Info, place, format!("PromQL info: {text}"));
    }

    pub(crate) fn merge_foreign(&self, annotations: &Annotations) {
        if !annotations.is_empty() {
            lock(&self.foreign).merge(annotations);
        }
    }

    pub(crate) fn invalid_quantile(&self, q: f64, place: Place) {
        self.warn(place, format_args!("quantile value should be between 0 and 1, got {}", GoFloat(q)));
    }

    pub(crate) fn invalid_ratio(&self, ratio: f64, capped: f64, place: Place) {
        self.warn(
            place,
            format_args!(
                "ratio value should be between -1 and 1, got {}, capping to {}",
                GoFloat(ratio),
                GoFloat(capped)
            ),
        );
    }

    pub(crate) fn bad_bucket_label(&self, name: &str, le: &str, place: Place) {
        self.warn(
            place,
            format_args!(
                "bucket label \"le\" is missing or has a malformed value of {}{}",
                Quoted(le),
                for_metric(name)
            ),
        );
    }

    pub(crate) fn mixed_floats_histograms(&self, name: &str, place: Place) {
        self.warn(
            place,
            format_args!("encountered a mix of histograms and floats for metric name {}", Quoted(name)),
        );
    }

    pub(crate) fn mixed_floats_histograms_aggregation(&self, place: Place) {
        self.warn(place, "encountered a mix of histograms and floats for aggregation");
    }

    pub(crate) fn mixed_classic_native(&self, name: &str, place: Place) {
        self.warn(
            place,
            format_args!("vector contains a mix of classic and native histograms{}", for_metric(name)),
        );
    }

    pub(crate) fn histogram_not_counter(&self, name: &str, place: Place) {
        self.warn(place, format_args!("this native histogram metric is not a counter: {}", Quoted(name)));
    }

    pub(crate) fn histogram_not_gauge(&self, name: &str, place: Place) {
        self.warn(place, format_args!("this native histogram metric is not a gauge: {}", Quoted(name)));
    }

    pub(crate) fn mixed_exponential_custom(&self, name: &str, place: Place) {
        self.warn(
            place,
            format_args!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                Quoted(name)
            ),
        );
    }

    pub(crate) fn incompatible_bucket_layout(&self, operator: &str, place: Place) {
        self.warn(
            place,
            format_args!("incompatible bucket layout encountered for binary operator {operator}"),
        );
    }

    pub(crate) fn counter_reset_collision(&self, operation: HistogramOperation, place: Place) {
        self.warn(place, format_args!("conflicting counter resets during histogram {operation}"));
    }

    pub(crate) fn overlapping_start(&self, name: &str, place: Place) {
        self.warn(
            place,
            format_args!(
                "sample has start time that overlaps with previous sample timestamp for metric {}",
                Quoted(name)
            ),
        );
    }

    /// Has no place, in Prometheus too.
    pub(crate) fn sort_in_range_query(&self) {
        lock(&self.foreign).warn(
            "PromQL warning: sort is ineffective for range queries since results are always ordered by labels",
        );
    }

    pub(crate) fn possible_non_counter(&self, name: &str, place: Place) {
        self.info(
            place,
            format_args!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                Quoted(name)
            ),
        );
    }

    pub(crate) fn possible_non_counter_type(&self, name: &str, kind: &str, place: Place) {
        self.info(
            place,
            format_args!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
                Quoted(kind),
                Quoted(name)
            ),
        );
    }

    pub(crate) fn forced_monotonicity(&self, name: &str, place: Place, what: ForcedMonotonicity) {
        let text = format!(
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}",
            for_metric(name)
        );
        self.additions.fetch_add(1, Ordering::Relaxed);
        lock(&self.notes)
            .entry((Level::Info, text))
            .and_modify(|note| {
                note.place = later(note.place, place);
                if let Some(all) = &mut note.monotonicity {
                    all.min_bucket = all.min_bucket.min(what.min_bucket);
                    all.max_bucket = all.max_bucket.max(what.max_bucket);
                    all.max_diff = all.max_diff.max(what.max_diff);
                    all.min_t = all.min_t.min(what.min_t);
                    all.max_t = all.max_t.max(what.max_t);
                    all.samples += what.samples;
                }
            })
            .or_insert(Note { place, monotonicity: Some(what) });
    }

    pub(crate) fn incompatible_types(&self, left: &str, operator: &str, right: &str, place: Place) {
        self.info(
            place,
            format_args!(
                "incompatible sample types encountered for binary operator \"{operator}\": {left} {operator} {right}"
            ),
        );
    }

    pub(crate) fn histogram_ignored_in_aggregation(&self, aggregation: &str, place: Place) {
        self.info(place, format_args!("ignored histogram in {aggregation} aggregation"));
    }

    pub(crate) fn histogram_ignored_in_mixed_range(&self, name: &str, place: Place) {
        self.info(
            place,
            format_args!(
                "ignored histograms in a range containing both floats and histograms for metric name {}",
                Quoted(name)
            ),
        );
    }

    pub(crate) fn quantile_nan_result(&self, name: &str, place: Place) {
        self.info(
            place,
            format_args!(
                "input to histogram_quantile has NaN observations, result is NaN{}",
                for_metric(name)
            ),
        );
    }

    pub(crate) fn quantile_nan_skew(&self, name: &str, place: Place) {
        self.info(
            place,
            format_args!(
                "input to histogram_quantile has NaN observations, result is skewed higher{}",
                for_metric(name)
            ),
        );
    }

    pub(crate) fn fraction_nan(&self, name: &str, place: Place) {
        self.info(
            place,
            format_args!(
                "input to histogram_fraction has NaN observations, which are excluded from all fractions{}",
                for_metric(name)
            ),
        );
    }

    pub(crate) fn custom_buckets_reconciled(&self, operation: HistogramOperation, place: Place) {
        self.info(place, format_args!("mismatched custom buckets were reconciled during {operation}"));
    }

    /// All annotations, positions counted in `text`.
    pub(crate) fn finish(self, text: &str) -> Annotations {
        let mut out = self.foreign.into_inner().unwrap_or_else(PoisonError::into_inner);
        for ((level, mut line), note) in self.notes.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Some(what) = note.monotonicity {
                let time = |t: Timestamp| crate::exec::date::rfc3339_seconds(t / 1000);
                let _ = write!(
                    line,
                    ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                    GoFloat(what.min_bucket),
                    GoFloat(what.max_bucket),
                    two_digits(what.max_diff),
                    what.samples,
                    time(what.min_t),
                    time(what.max_t),
                );
            }
            let (row, column) = line_column(text, note.place.start as usize);
            let _ = write!(line, " ({row}:{column})");
            match level {
                Level::Warning => out.warn(line),
                Level::Info => out.info(line),
            }
        }
        out
    }
}

fn later(a: Place, b: Place) -> Place {
    if (b.start, b.end) > (a.start, a.end) { b } else { a }
}

/// Line and column, both from 1, columns in bytes.
fn line_column(text: &str, position: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..position.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    (line, column)
}

/// Go's `%.2g`.
fn two_digits(v: f64) -> String {
    let rounded: f64 = format!("{v:.1e}").parse().unwrap_or(v);
    if rounded.abs() >= 100.0 && rounded.is_finite() {
        let text = format!("{rounded:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{digits}e+{exponent:0>2}");
    }
    GoFloat(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_lines_and_columns() {
        let notes = Notes::default();
        notes.possible_non_counter("x", Span::new(10, 11));
        notes.possible_non_counter("x", Span::new(4, 5));
        notes.invalid_quantile(f64::NAN, Span::new(0, 1));
        let out = notes.finish("rate(\nfoo[1m])");
        assert_eq!(
            out.infos().collect::<Vec<_>>(),
            [
                "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"x\" (2:5)"
            ]
        );
        assert_eq!(
            out.warnings().collect::<Vec<_>>(),
            ["PromQL warning: quantile value should be between 0 and 1, got NaN (1:1)"]
        );
    }

    #[test]
    fn two_significant_digits_as_go_prints_them() {
        for (value, text) in [(10.0, "10"), (0.123, "0.12"), (123.0, "1.2e+02"), (0.00001234, "1.2e-05")] {
            assert_eq!(two_digits(value), text);
        }
    }
}
