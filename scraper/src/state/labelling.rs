//! From the labels on a page to those of a stored series: target labels, relabelling, checks, limits.

use model::Labels;
use model::labels::{METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};
use model::relabel;

use super::pass::Pass;
use crate::config::{NameValidation, ScrapeLimits};
use crate::error::ScrapeError;

/// Prefix of labels on the page that target labels push aside.
const EXPORTED_PREFIX: &str = "exported_";
/// Names and values in error texts are cut to so many characters.
const SHOWN_MAX: usize = 50;

impl Pass<'_> {
    /// The labels in `scratch` with target labels, relabelled and checked; `None` when relabelling drops them.
    pub(super) fn final_labels(&mut self) -> Result<Option<Labels>, ScrapeError> {
        self.add_target_labels();
        if !relabel::process(&mut self.builder, &self.config.relabel) || self.builder.is_empty() {
            if let Some(names) = &mut self.state.dropped {
                let name = self.scratch.pairs.iter().find(|(name, _)| name == METRIC_NAME);
                *names.entry(name.map(|(_, value)| value.clone()).unwrap_or_default()).or_default() += 1;
            }
            return Ok(None);
        }
        let labels = self.builder.build();
        if !labels.has(METRIC_NAME) {
            return Err(crate::exposition::DecodeError::NoName.into());
        }
        if !names_are_valid(&labels, self.config.name_validation) {
            return Err(ScrapeError::InvalidNames(labels.to_string()));
        }
        if let Some(error) = over_label_limits(&labels, &self.config.limits) {
            self.counts.label_limit_hit = true;
            return Err(ScrapeError::LabelLimit(error));
        }
        Ok(Some(labels))
    }

    fn add_target_labels(&mut self) {
        let builder = &mut self.builder;
        builder.retain(|_, _| false);
        for (name, value) in &self.scratch.pairs {
            builder.set(name.as_str(), value.as_str());
        }
        let mut pushed_aside: Vec<(&str, String)> = Vec::new();
        for (name, value) in &self.config.target_labels {
            // With `honor_labels` even an empty label on the page wins.
            if self.config.honor_labels && self.scratch.pairs.iter().any(|(own, _)| own == name) {
                continue;
            }
            let own = builder.value(name);
            if !own.is_empty() {
                pushed_aside.push((name, own.to_owned()));
            }
            builder.set(name, value);
        }
        pushed_aside.sort_by_key(|(name, _)| name.len());
        for (name, value) in pushed_aside {
            let mut name = format!("{EXPORTED_PREFIX}{name}");
            while !builder.value(&name).is_empty() {
                name.insert_str(0, EXPORTED_PREFIX);
            }
            builder.set(name, value);
        }
    }
}

fn names_are_valid(labels: &Labels, validation: NameValidation) -> bool {
    labels.iter().all(|(name, value)| match (validation, name) {
        (NameValidation::Utf8, _) => !name.is_empty(),
        (NameValidation::Legacy, METRIC_NAME) => is_legacy_metric_name(value),
        (NameValidation::Legacy, _) => is_legacy_label_name(name),
    })
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(SHOWN_MAX).map_or(text, |(end, _)| &text[..end])
}

/// Which label limit a series breaks, in Prometheus' words.
fn over_label_limits(labels: &Labels, limits: &ScrapeLimits) -> Option<String> {
    let metric = || shown(labels.metric_name());
    let count = labels.len() as u64;
    if limits.labels > 0 && count > limits.labels {
        return Some(format!(
            "label_limit exceeded (metric: {}, number of labels: {count}, limit: {})",
            metric(),
            limits.labels
        ));
    }
    if limits.label_name_length == 0 && limits.label_value_length == 0 {
        return None;
    }
    labels.iter().find_map(|(name, value)| {
        if limits.label_name_length > 0 && name.len() as u64 > limits.label_name_length {
            return Some(format!(
                "label_name_length_limit exceeded (metric: {}, label name: {}, length: {}, limit: {})",
                metric(),
                shown(name),
                name.len(),
                limits.label_name_length
            ));
        }
        if limits.label_value_length > 0 && value.len() as u64 > limits.label_value_length {
            return Some(format!(
                "label_value_length_limit exceeded (metric: {}, label name: {}, value: {}, length: {}, limit: {})",
                metric(),
                shown(name),
                model::labels::Quoted(shown(value)),
                value.len(),
                limits.label_value_length
            ));
        }
        None
    })
}
