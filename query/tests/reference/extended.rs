//! Extended ranges: windows whose ends are anchored at samples before them, or smoothed between samples around them.

use model::histogram::CounterResetHint;
use query::ast::{Expr, ExtendedRange, VectorSelector};

use super::histogram::Mixed;
use super::{Failure, Hist, LOOKBACK_MS, Reference, Sample, Value, Vector, Window};

/// The value at `t` on the straight line between two points; of a counter that began anew, from zero.
fn between(a: (i64, f64), b: (i64, f64), t: i64, counter: bool) -> f64 {
    let from = if counter && b.1 < a.1 { 0.0 } else { a.1 };
    from + (b.1 - from) * ((t - a.0) as f64) / ((b.0 - a.0) as f64)
}

/// The samples that decide: from the last one at or before the start, up to the end or (smoothed) the first one at or
/// after it. `None`: the window holds nothing.
fn deciding(times: &[i64], window: &Window) -> Option<(usize, usize)> {
    let newest = times.len() - 1;
    let first = times.iter().filter(|t| **t <= window.start).count().saturating_sub(1);
    let smoothed = window.extended == Some(ExtendedRange::Smoothed);
    let last = match times.iter().position(|t| *t >= window.end) {
        Some(at) if smoothed => at,
        _ => newest,
    };
    (times[last] > window.start && !(smoothed && times[first] > window.end)).then_some((first, last))
}

impl Reference {
    /// A smoothed instant selector.
    pub(super) fn smoothed(&self, expr: &Expr, selector: &VectorSelector, t: i64) -> Result<Vector, Failure> {
        let at = self.look_at(&selector.time, t)?;
        let place = expr.span.start;
        let mut out = Vector::new();
        for (labels, samples) in self.selected(&selector.matchers) {
            let around: Vec<&Sample> = samples
                .iter()
                .filter(|s| s.t > at - LOOKBACK_MS && s.t <= at + LOOKBACK_MS && !s.value.is_stale())
                .collect();
            let histograms = around.iter().filter(|s| s.value.histogram().is_some()).count();
            if histograms != 0 && histograms != around.len() {
                self.mixed_kinds(place, labels.metric_name());
                continue;
            }
            let before = around.iter().rev().find(|s| s.t <= at);
            let after = around.iter().find(|s| s.t >= at);
            let value = match (before, after) {
                (None, _) => None,
                (Some(_), Some(exact)) if exact.t == at => Some(exact.value.clone()),
                (Some(before), None) => {
                    let mut value = before.value.clone();
                    if let Value::Histogram(h) = &mut value {
                        h.hint = CounterResetHint::Unknown;
                    }
                    Some(value)
                }
                (Some(before), Some(after)) => match (&before.value, &after.value) {
                    (Value::Float(a), Value::Float(b)) => {
                        Some(Value::Float(between((before.t, *a), (after.t, *b), at, false)))
                    }
                    (Value::Histogram(a), Value::Histogram(b)) => {
                        let gauge = |h: &Hist| h.hint == CounterResetHint::Gauge;
                        let counter = !(gauge(a) && gauge(b));
                        if self.thin && counter && (gauge(a) || gauge(b)) {
                            return Err(Failure::Unclear);
                        }
                        match self.interpolated((before.t, a), (after.t, b), at, counter, place) {
                            Ok(h) => Some(Value::Histogram(h)),
                            Err(Mixed) => {
                                self.mixed_schemas(place, labels.metric_name());
                                None
                            }
                        }
                    }
                    _ => unreachable!("all are of one kind"),
                },
            };
            out.extend(value.map(|value| (labels.clone(), value)));
        }
        Ok(out)
    }

    /// The histogram at `t` between two.
    fn interpolated(
        &self,
        a: (i64, &Hist),
        b: (i64, &Hist),
        t: i64,
        counter: bool,
        place: u32,
    ) -> Result<Hist, Mixed> {
        if t == a.0 || t == b.0 {
            return Ok(if t == a.0 { a.1.clone() } else { b.1.clone() });
        }
        if a.1.is_custom() != b.1.is_custom() {
            return Err(Mixed);
        }
        let fraction = (t - a.0) as f64 / (b.0 - a.0) as f64;
        let mut out = b.1.clone();
        if counter && b.1.is_reset_after(a.1) {
            out.scale(fraction);
            return Ok(out);
        }
        if out.add(a.1, -1.0)?.reconciled {
            self.reconciled(place, "subtraction");
        }
        out.scale(fraction);
        if out.add(a.1, 1.0)?.reconciled {
            self.reconciled(place, "addition");
        }
        Ok(out)
    }

    /// `rate`, `increase` or `delta` of an extended window; all samples are of one kind.
    pub(super) fn extended_rate(&self, name: &str, window: &Window, place: u32) -> Option<Value> {
        let counter = name != "delta";
        let seconds = (window.end - window.start) as f64 / 1000.0;
        if matches!(window.samples[0].value, Value::Float(_)) {
            let increase = extended_increase(window, counter)?;
            return Some(Value::Float(if name == "rate" { increase / seconds } else { increase }));
        }
        let mut out = self.extended_histogram(window, counter, place)?;
        if name == "rate" {
            out.divide(seconds);
        }
        out.hint = CounterResetHint::Gauge;
        Some(Value::Histogram(out.compact()))
    }

    fn extended_histogram(&self, window: &Window, counter: bool, place: u32) -> Option<Hist> {
        let name = window.labels.metric_name();
        let all: Vec<(i64, &Hist)> =
            window.samples.iter().filter_map(|s| Some((s.t, s.value.histogram()?))).collect();
        let times: Vec<i64> = all.iter().map(|(t, _)| *t).collect();
        let (first, last) = deciding(&times, window)?;
        let smoothed = window.extended == Some(ExtendedRange::Smoothed);
        // All that was said before kinds were seen to differ stays said.
        for (_, h) in &all[first..=last] {
            if h.is_custom() != all[first].1.is_custom() {
                self.mixed_schemas(place, name);
                return None;
            }
            if counter && h.hint == CounterResetHint::Gauge {
                self.not_a_counter(place, name);
            }
        }
        let spans_start = smoothed && all[first].0 < window.start;
        let left = if spans_start {
            self.interpolated(all[first], all[first + 1], window.start, counter, place).ok()?
        } else {
            all[first].1.clone()
        };
        let right = if smoothed && last > 0 && all[last].0 > window.end {
            self.interpolated(all[last - 1], all[last], window.end, counter, place).ok()?
        } else {
            all[last].1.clone()
        };
        if !counter && (left.hint != CounterResetHint::Gauge || right.hint != CounterResetHint::Gauge) {
            self.not_a_gauge(place, name);
        }
        let mut out = right.clone();
        if out.add(&left, -1.0).ok()?.reconciled {
            self.reconciled(place, "subtraction");
        }
        if !counter {
            return Some(out);
        }
        // What was counted before each reset. One that the left end was smoothed over is in it already.
        let mut chain: Vec<&Hist> = vec![&left];
        let mut next = first + 1;
        if spans_start && all[first + 1].1.is_reset_after(all[first].1) {
            chain = vec![all[first + 1].1];
            next = first + 2;
            if next > last {
                return Some(out);
            }
        }
        if next > last {
            return Some(out);
        }
        chain.extend(all[next..last].iter().map(|(_, h)| *h));
        chain.push(&right);
        let mut lost: Option<Hist> = None;
        for pair in chain.windows(2).filter(|pair| pair[1].is_reset_after(pair[0])) {
            match &mut lost {
                None => lost = Some(pair[0].clone()),
                Some(lost) => {
                    if lost.add(pair[0], 1.0).ok()?.reconciled {
                        self.reconciled(place, "addition");
                    }
                }
            }
        }
        if let Some(lost) = lost
            && out.add(&lost, 1.0).ok()?.reconciled
        {
            self.reconciled(place, "addition");
        }
        Some(out)
    }
}

fn extended_increase(window: &Window, counter: bool) -> Option<f64> {
    let all: Vec<(i64, f64)> = window.samples.iter().filter_map(|s| Some((s.t, s.value.float()?))).collect();
    let times: Vec<i64> = all.iter().map(|(t, _)| *t).collect();
    let (first, last) = deciding(&times, window)?;
    let smoothed = window.extended == Some(ExtendedRange::Smoothed);
    let left = if smoothed && all[first].0 < window.start {
        between(all[first], all[first + 1], window.start, counter)
    } else {
        all[first].1
    };
    let right = if smoothed && last > 0 && all[last].0 > window.end {
        between(all[last - 1], all[last], window.end, counter)
    } else {
        all[last].1
    };
    let mut increase = right - left;
    if counter {
        let inner = all[first..=last].iter().filter(|(t, _)| *t > window.start && *t < window.end);
        let chain: Vec<f64> = [left].into_iter().chain(inner.map(|(_, v)| *v)).chain([right]).collect();
        increase += chain.windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[0]).sum::<f64>();
    }
    Some(increase)
}
