//! Functions that compare neighbours in a window: `rate` and its kin, `resets`, `changes`.

use model::histogram::CounterResetHint;
use query::ast::ExtendedRange;

use super::{Failure, Hist, Reference, Sample, Value, Window};

/// Whether start timestamps say that a counter began anew between two samples.
fn restarted(before: &Sample, now: &Sample) -> bool {
    if now.start == 0 || now.start >= now.t || now.start < before.t {
        return false;
    }
    if now.start > before.t {
        return true;
    }
    // It began at the sample before: one of a series of differences, unless that one's own start is not known.
    before.start != 0 && before.start < before.t
}

fn overlaps(before: &Sample, now: &Sample) -> bool {
    now.start != 0 && now.start < before.t && now.start != before.start
}

impl Reference {
    fn began_anew(&self, before: &Sample, now: &Sample) -> bool {
        self.starts && restarted(before, now)
    }

    /// `rate`, `increase` and `delta`.
    pub(super) fn rate(&self, name: &str, window: &Window, place: u32) -> Option<Value> {
        let metric = window.labels.metric_name();
        let samples = &window.samples[..];
        let first = samples.first()?;
        let histograms = samples.iter().filter(|s| s.value.histogram().is_some()).count();
        if histograms != 0 && histograms != samples.len() {
            self.mixed_kinds(place, metric);
            return None;
        }
        let value = if window.extended.is_some() {
            self.extended_rate(name, window, place)
        } else {
            self.extrapolated_rate(name, window, place, first)
        };
        let suffixes = ["_total", "_sum", "_count", "_bucket"];
        if let Some(Value::Float(_)) = value
            && name != "delta"
            && !metric.is_empty()
            && !suffixes.iter().any(|suffix| metric.ends_with(suffix))
        {
            self.info(
                place,
                format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {metric:?}"
                ),
            );
        }
        value
    }

    fn extrapolated_rate(&self, name: &str, window: &Window, place: u32, first: &Sample) -> Option<Value> {
        let samples = &window.samples[..];
        let last = samples.last()?;
        let counter = name != "delta";
        let metric = window.labels.metric_name();
        let mut increase = None;
        if let Some(before) = first.value.float() {
            let mut sum = last.value.float()? - before;
            for pair in samples.windows(2) {
                let (a, b) = (pair[0].value.float()?, pair[1].value.float()?);
                if counter && self.starts && overlaps(&pair[0], &pair[1]) {
                    self.overlapping(place, metric);
                }
                if counter && (b < a || self.began_anew(&pair[0], &pair[1])) {
                    sum += a;
                }
            }
            increase = Some(Value::Float(sum));
        } else if samples.len() > 1 {
            increase = Some(Value::Histogram(self.histogram_increase(counter, window, place)?));
        }
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let gap = match samples.len() {
            1 => 0.0,
            n => seconds(last.t - first.t) / (n - 1) as f64,
        };
        let (mut before, mut after) = (seconds(first.t - window.start), seconds(window.end - last.t));
        let mut sampled = seconds(last.t - first.t);
        let start = first.start;
        if self.starts && counter && start != 0 && start > window.start && start < first.t {
            // The counter was zero then.
            before = 0.0;
            sampled = seconds(last.t - start);
            increase = Some(match (increase, &first.value) {
                (Some(Value::Float(sum)), Value::Float(v)) => Value::Float(sum + v),
                (Some(Value::Histogram(mut h)), Value::Histogram(first)) => {
                    match h.add(first, 1.0) {
                        Ok(found) if found.reconciled => self.reconciled(place, "addition"),
                        Ok(_) => {}
                        Err(_) => {
                            self.mixed_schemas(place, metric);
                            return None;
                        }
                    }
                    Value::Histogram(h)
                }
                (_, first) => first.clone(),
            });
        } else if samples.len() == 1 {
            return None;
        } else {
            if before >= gap * 1.1 {
                before = gap / 2.0;
            }
            let size = |value: &Value| match value {
                Value::Float(v) => *v,
                Value::Histogram(h) => h.count,
            };
            let (total, first) = (size(increase.as_ref()?), size(&first.value));
            if counter && total > 0.0 && first >= 0.0 {
                before = before.min(sampled * (first / total));
            }
        }
        if after >= gap * 1.1 {
            after = gap / 2.0;
        }
        let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + before + after) / sampled };
        if name == "rate" {
            factor /= seconds(window.end - window.start);
        }
        Some(match increase? {
            Value::Float(sum) => Value::Float(sum * factor),
            Value::Histogram(mut h) => {
                // A rate is a gauge, also that of a single sample.
                h.hint = CounterResetHint::Gauge;
                h.scale(factor);
                Value::Histogram(h)
            }
        })
    }

    fn overlapping(&self, place: u32, metric: &str) {
        self.warn(
            place,
            format!(
                "sample has start time that overlaps with previous sample timestamp for metric {metric:?}"
            ),
        );
    }

    /// By how much at least two histograms increased. `None`: they do not go together.
    fn histogram_increase(&self, counter: bool, window: &Window, place: u32) -> Option<Hist> {
        let metric = window.labels.metric_name();
        let samples = &window.samples[..];
        let all: Vec<&Hist> = samples.iter().filter_map(|s| s.value.histogram()).collect();
        let last = all[all.len() - 1];
        let is_gauge = |h: &Hist| h.hint == CounterResetHint::Gauge;
        let mut base = all[0].clone();
        // The first one does not matter when the counter began anew right after it.
        if counter && (self.began_anew(&samples[0], &samples[1]) || all[1].is_reset_after(all[0])) {
            base = Hist::empty(all[1].schema, &all[1].bounds);
        }
        let ends_are_gauges = is_gauge(all[0]) || is_gauge(last);
        if last.is_custom() != base.is_custom() {
            if counter && ends_are_gauges {
                self.not_a_counter(place, metric);
            }
            self.mixed_schemas(place, metric);
            return None;
        }
        let inner = &all[1..all.len() - 1];
        if counter && inner.iter().any(|h| h.is_custom() != base.is_custom()) {
            self.mixed_schemas(place, metric);
            return None;
        }
        if counter && (ends_are_gauges || inner.iter().any(|h| is_gauge(h))) {
            self.not_a_counter(place, metric);
        }
        let least = base.schema.min(last.schema);
        let least = inner.iter().filter(|_| counter).map(|h| h.schema).fold(least, i32::min);
        let mut out = last.at_schema(least);
        if out.add(&base, -1.0).ok()?.reconciled {
            self.reconciled(place, "subtraction");
        }
        if counter {
            let mut before = &base;
            for (pair, now) in samples.windows(2).zip(&all[1..]) {
                if self.starts && overlaps(&pair[0], &pair[1]) {
                    self.overlapping(place, metric);
                }
                let anew = self.began_anew(&pair[0], &pair[1]) || now.is_reset_after(before);
                if anew && out.add(before, 1.0).ok()?.reconciled {
                    self.reconciled(place, "addition");
                }
                before = now;
            }
        } else if !is_gauge(all[0]) || !is_gauge(last) {
            self.not_a_gauge(place, metric);
        }
        out.hint = CounterResetHint::Gauge;
        Some(out.compact())
    }

    /// `irate` and `idelta`.
    pub(super) fn of_last_two(&self, name: &str, window: &Window, place: u32) -> Option<Value> {
        let [.., before, last] = &window.samples[..] else { return None };
        let metric = window.labels.metric_name();
        let seconds = (last.t - before.t) as f64 / 1000.0;
        let counter = name == "irate";
        let anew = counter && self.began_anew(before, last);
        Some(match (&before.value, &last.value) {
            (Value::Float(a), Value::Float(b)) => {
                let increase = if anew || (counter && b < a) { *b } else { b - a };
                Value::Float(if counter { increase / seconds } else { increase })
            }
            (Value::Histogram(a), Value::Histogram(b)) => {
                let gauges = [a, b].iter().filter(|h| h.hint == CounterResetHint::Gauge).count();
                if counter && gauges > 0 {
                    self.not_a_counter(place, metric);
                }
                if !counter && gauges < 2 {
                    self.not_a_gauge(place, metric);
                }
                let mut out = b.clone();
                let anew = anew || (counter && b.is_reset_after(a));
                if !anew {
                    match out.add(a, -1.0) {
                        Ok(found) if found.reconciled => self.reconciled(place, "subtraction"),
                        Ok(_) => {}
                        Err(_) => {
                            self.mixed_schemas(place, metric);
                            return None;
                        }
                    }
                }
                out.hint = CounterResetHint::Gauge;
                let mut out = out.compact();
                if counter {
                    out.divide(seconds);
                }
                Value::Histogram(out)
            }
            _ => {
                self.mixed_kinds(place, metric);
                return None;
            }
        })
    }

    /// `resets` and `changes`.
    pub(super) fn jumps(&self, name: &str, window: &Window) -> Result<Option<f64>, Failure> {
        let mut samples = &window.samples[..];
        if window.extended == Some(ExtendedRange::Anchored) {
            let before = samples.iter().filter(|s| s.t <= window.start).count();
            if before == samples.len() {
                return Ok(None);
            }
            samples = &samples[before.saturating_sub(1)..];
        }
        if samples.is_empty() {
            return Ok(None);
        }
        let mut count = 0.0;
        for pair in samples.windows(2) {
            let jumped = match (&pair[0].value, &pair[1].value) {
                (Value::Float(a), Value::Float(b)) if name == "changes" => {
                    a != b && !(a.is_nan() && b.is_nan())
                }
                (Value::Float(a), Value::Float(b)) => b < a || self.began_anew(&pair[0], &pair[1]),
                (Value::Histogram(a), Value::Histogram(b)) if name == "changes" => !equal(a, b)?,
                (Value::Histogram(a), Value::Histogram(b)) => {
                    self.began_anew(&pair[0], &pair[1]) || b.is_reset_after(a)
                }
                _ => true,
            };
            count += f64::from(u8::from(jumped));
        }
        Ok(Some(count))
    }
}

/// Whether two are the same. Which NaN it is, and which empty buckets are kept, is left to the evaluator.
pub(super) fn equal(a: &Hist, b: &Hist) -> Result<bool, Failure> {
    let has_nan = |h: &Hist| {
        [h.count, h.sum, h.zero]
            .iter()
            .chain(h.positive.values())
            .chain(h.negative.values())
            .any(|v| v.is_nan())
    };
    if has_nan(a) && has_nan(b) {
        return Err(Failure::Unclear);
    }
    let exactly = a.same_as(b);
    let loosely = a.clone().compact().same_as(&b.clone().compact());
    if exactly == loosely { Ok(exactly) } else { Err(Failure::Unclear) }
}
