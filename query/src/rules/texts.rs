//! The texts of alerts: labels and annotations of an alerting rule, expanded for each sample of its expression.
//!
//! Without state, so that templates that query do not hold up whoever looks at the rule's alerts meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use model::labels::{ALERT_NAME, METRIC_NAME};
use model::template::Env;
use model::template::alerting::{AlertData, AlertTemplate};
use model::{Labels, LabelsBuilder, Timestamp};

use super::config::{RuleConfig, RuleKind};
use super::{Evaluate, RuleSample};
use crate::exec::RuleOrigin;

/// What alerting rules share.
#[derive(Clone)]
pub struct AlertContext {
    /// Labels for everything that leaves; templates may show them.
    pub external_labels: Labels,
    /// How the server is reached from outside.
    pub external_url: Arc<str>,
    /// Answers `query` in templates.
    pub evaluate: Arc<dyn Evaluate>,
    /// Least time between two sendings of one alert.
    pub resend_delay: Duration,
}

impl std::fmt::Debug for AlertContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlertContext").field("external_url", &self.external_url).finish_non_exhaustive()
    }
}

/// Templates of an alerting rule.
#[derive(Debug)]
pub struct AlertTexts {
    name: String,
    labels: Vec<(String, AlertTemplate)>,
    annotations: Vec<(String, AlertTemplate)>,
}

/// An alert as one evaluation sees it: annotations and value, found by its labels.
pub type SeenAlerts = HashMap<Labels, (Labels, f64)>;

/// What expanding gives.
#[derive(Debug)]
pub struct Expansion {
    /// The alerts, or why there are none: two have equal labels. The text is Prometheus'.
    pub alerts: Result<SeenAlerts, String>,
    /// Number of texts that were expanded.
    pub expanded: u64,
    /// Texts of templates that failed; the alerts carry them in the templates' places.
    pub failures: Vec<String>,
}

impl AlertTexts {
    /// The templates of `config`; `None` for recording rules.
    ///
    /// # Panics
    /// When `config` was not checked.
    pub fn new(config: &RuleConfig) -> Option<Self> {
        let RuleKind::Alerting { annotations, .. } = &config.kind else { return None };
        let compile = |texts: &BTreeMap<String, String>| {
            texts
                .iter()
                .map(|(name, text)| {
                    let template = AlertTemplate::new(&config.name, text)
                        .expect("templates are checked when the file is read");
                    (name.clone(), template)
                })
                .collect()
        };
        Some(Self {
            name: config.name.clone(),
            labels: compile(&config.labels),
            annotations: compile(annotations),
        })
    }

    /// Labels, annotations and value of the alert of each sample of `result`, which holds at `t`.
    /// Queries within are `rule`'s.
    pub fn expand(
        &self,
        t: Timestamp,
        result: &[RuleSample],
        context: &AlertContext,
        rule: &RuleOrigin,
    ) -> Expansion {
        let (evaluate, rule) = (Arc::clone(&context.evaluate), rule.clone());
        let env = Env {
            now: t,
            query: Some(Arc::new(move |text: &str, at| evaluate.instant_text(text, at, rule.clone()))),
            external_url: Arc::clone(&context.external_url),
        };
        let mut expansion = Expansion { alerts: Ok(HashMap::new()), expanded: 0, failures: Vec::new() };
        let mut seen = HashMap::with_capacity(result.len());
        for sample in result {
            let (labels, annotations) = self.expand_one(sample, context, &env, &mut expansion);
            if seen.insert(labels, (annotations, sample.float_value())).is_some() {
                expansion.alerts =
                    Err("vector contains metrics with the same labelset after applying alert labels"
                        .to_owned());
                return expansion;
            }
        }
        expansion.alerts = Ok(seen);
        expansion
    }

    fn expand_one(
        &self,
        sample: &RuleSample,
        context: &AlertContext,
        env: &Env,
        expansion: &mut Expansion,
    ) -> (Labels, Labels) {
        let value = sample.float_value();
        let data = AlertData::new(&sample.labels, &context.external_labels, &context.external_url, value);
        let mut expand = |template: &AlertTemplate| {
            expansion.expanded += 1;
            template.expand(&data, env).unwrap_or_else(|error| {
                expansion.failures.push(error.clone());
                error
            })
        };
        let mut labels = LabelsBuilder::from(&sample.labels);
        labels.remove(METRIC_NAME);
        for (name, template) in &self.labels {
            labels.set(name, expand(template));
        }
        labels.set(ALERT_NAME, &self.name);
        let annotations =
            self.annotations.iter().map(|(name, template)| (name.clone(), expand(template))).collect();
        (labels.build(), annotations)
    }
}
