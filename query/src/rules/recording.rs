//! Recording rules: a result under another name.

use std::collections::BTreeMap;

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder};

use super::RuleSample;

/// Gives every sample of `result` the recorded name and the rule's labels.
///
/// # Errors
/// When two samples end up with equal labels, or there are more than `limit` (0: no bound). Texts are Prometheus'.
pub fn record(
    name: &str,
    labels: &BTreeMap<String, String>,
    limit: usize,
    result: Vec<RuleSample>,
) -> Result<Vec<RuleSample>, String> {
    let mut builder = LabelsBuilder::new();
    let mut samples = result;
    for sample in &mut samples {
        builder.reset(&sample.labels);
        builder.set(METRIC_NAME, name);
        for (label, value) in labels {
            builder.set(label, value);
        }
        sample.labels = builder.build();
    }
    if has_repeated_labels(samples.iter().map(|sample| &sample.labels)) {
        return Err("vector contains metrics with the same labelset after applying rule labels".to_owned());
    }
    if limit > 0 && samples.len() > limit {
        return Err(format!("exceeded limit of {limit} with {} series", samples.len()));
    }
    Ok(samples)
}

/// Whether two of the sets are equal.
pub(super) fn has_repeated_labels<'a>(sets: impl Iterator<Item = &'a Labels>) -> bool {
    let mut seen = std::collections::HashSet::new();
    for labels in sets {
        if !seen.insert(labels) {
            return true;
        }
    }
    false
}
