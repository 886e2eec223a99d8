//! `info`: labels of info series, joined by `instance` and `job`.

use std::collections::{BTreeMap, BTreeSet};

use model::{Labels, MatchOp, Matcher};
use query::ast::{At, Call, Expr, ExprKind};

use super::{Failure, Reference, Sample, Vector, unique};

const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The fixed time of the first selector.
fn fixed(expr: &Expr) -> Option<At> {
    match &expr.kind {
        ExprKind::Vector(selector) => selector.time.at,
        ExprKind::Matrix(matrix) => matrix.vector.time.at,
        _ => expr.children().into_iter().find_map(fixed),
    }
}

impl Reference {
    pub(super) fn info_call(&self, call: &Call, t: i64) -> Result<Vector, Failure> {
        let base = self.vector(&call.args[0], t)?;
        let given: &[Matcher] = match call.args.get(1).map(|arg| &arg.kind) {
            Some(ExprKind::Vector(selector)) => &selector.matchers,
            _ => &[],
        };
        let (of_name, of_data): (Vec<&Matcher>, Vec<&Matcher>) =
            given.iter().partition(|m| m.name == "__name__");
        let target = Matcher::new(MatchOp::Equal, "__name__", "target_info").expect("no expression");
        let of_name = if of_name.is_empty() { vec![&target] } else { of_name };
        // With a selector that says nothing of names, nothing counts as an info series itself.
        let says_names = given.is_empty() || given.iter().any(|m| m.name == "__name__");
        let positive = |m: &&&Matcher| matches!(m.op, MatchOp::Equal | MatchOp::Regex);
        let positive: Vec<&&Matcher> = of_name.iter().filter(positive).collect();
        let is_info = |labels: &Labels| {
            says_names && !positive.is_empty() && positive.iter().all(|m| m.matches(labels.metric_name()))
        };
        // Series are looked for by what all steps have.
        let mut wanted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for at in (0..).map(|i| self.start + i * self.step.max(1)).take_while(|at| *at <= self.end) {
            for labels in self.vector(&call.args[0], at)?.into_keys().filter(|labels| !is_info(labels)) {
                for name in IDENTIFYING {
                    let value = labels.value(name);
                    if !value.is_empty() {
                        wanted.entry(name).or_default().insert(value.to_owned());
                    }
                }
            }
        }
        let at = match fixed(&call.args[0]) {
            Some(At::Time(at)) => at,
            Some(At::Start) => self.start,
            Some(At::End) => self.end,
            None => t,
        };
        let identity = |labels: &Labels| labels.only(&IDENTIFYING.map(str::to_owned));
        let mut found: BTreeMap<(String, Labels), (Labels, &Sample)> = BTreeMap::new();
        for (labels, samples) in self.selected(&[]) {
            let named = of_name.iter().chain(&of_data).all(|m| m.matches(labels.value(&m.name)));
            let Some(sample) = named.then(|| Self::newest_at(samples, at)).flatten() else { continue };
            let matches =
                !wanted.is_empty() && wanted.iter().all(|(name, values)| values.contains(labels.value(name)));
            if sample.value.float().is_none() {
                // Where there is nothing to join, this may be seen or not.
                return Err(if base.is_empty() || !matches { Failure::Unclear } else { Failure::Fails });
            }
            if !matches {
                continue;
            }
            let key = (labels.metric_name().to_owned(), identity(labels));
            match found.get(&key) {
                Some((_, other)) if other.t == sample.t => {
                    let meets = base.keys().any(|labels| !is_info(labels) && identity(labels) == key.1);
                    return Err(if meets { Failure::Fails } else { Failure::Unclear });
                }
                Some((_, other)) if other.t > sample.t => {}
                _ => drop(found.insert(key, (labels.clone(), sample))),
            }
        }
        let mut out = Vec::new();
        for (labels, value) in base {
            if is_info(&labels) {
                out.push((labels, value));
                continue;
            }
            let mut new: BTreeMap<String, String> = BTreeMap::new();
            let mut any = false;
            for ((_, id), (info, _)) in &found {
                if *id != identity(&labels) {
                    continue;
                }
                any = true;
                for (name, v) in info.iter().filter(|(name, _)| *name != "__name__") {
                    if !of_data.is_empty() && !of_data.iter().any(|m| m.name == name) {
                        continue;
                    }
                    if new.get(name).is_some_and(|other| other != v) {
                        return Err(Failure::Fails);
                    }
                    if !labels.has(name) {
                        new.insert(name.to_owned(), v.to_owned());
                    }
                }
            }
            if !any && of_data.iter().any(|m| !m.matches("")) {
                continue;
            }
            let enriched = new.iter().fold(labels, |labels, (name, v)| labels.with(name, v));
            out.push((enriched, value));
        }
        unique(out)
    }
}
