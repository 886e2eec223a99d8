//! Rules: queries on a clock.
//!
//! - [`config`]: rule files, as written and as valid.
//! - [`recording`], [`alerting`]: what one rule makes of one result. Plain state machines that are told the time.
//! - [`texts`]: labels and annotations of alerts.
//! - [`group`]: rules of a group in order at one timestamp; what leaves (samples, staleness markers, alerts).
//! - [`restore`]: gives pending alerts their time back after a restart.
//! - [`manager`]: the async shell: one task a group, on a stable schedule; reload.
//!
//! Names, texts and semantics follow Prometheus' `rules` package (3.14). An expression is evaluated through [`Evaluate`], samples
//! leave through [`model::storage::Append`], alerts through [`model::AlertSink`].

pub mod alerting;
pub mod config;
pub mod group;
pub mod manager;
mod metrics;
pub mod recording;
pub mod restore;
mod schedule;
pub mod status;
pub mod texts;

#[cfg(test)]
mod tests;

use model::{Labels, SampleValue, Timestamp};

use crate::ast::Expr;
use crate::exec::RuleOrigin;

pub use config::{GroupConfig, RawRuleFile, RuleConfig, RuleFileContext, RuleKind};
pub use group::{GroupDeps, RuleGroup};
pub use manager::{ManagerOptions, RuleManager};
pub use status::{AlertState, AlertStatus, Health, RuleGroupStatus, RuleStatus, RuleStatusKind};

/// Evaluates expressions for rules. Called on blocking threads.
pub trait Evaluate: Send + Sync {
    /// The instant vector of `expr` at `t`, for a rule; a scalar is one sample without labels.
    ///
    /// # Errors
    /// The text that is shown as the rule's last error.
    fn instant(&self, expr: &Expr, t: Timestamp, rule: RuleOrigin) -> Result<Vec<RuleSample>, String>;

    /// The same for a text within a template of `rule` (`query "…"`).
    ///
    /// # Errors
    /// The text that takes the template's place.
    fn instant_text(&self, text: &str, t: Timestamp, rule: RuleOrigin) -> Result<Vec<(Labels, f64)>, String>;
}

/// One sample of a rule's result.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSample {
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: SampleValue,
}

impl RuleSample {
    /// A float sample.
    pub fn float(labels: Labels, value: f64) -> Self {
        Self { labels, value: SampleValue::Float(value) }
    }

    /// The value as a float; native histograms count as 0, as in Prometheus' alerts.
    pub fn float_value(&self) -> f64 {
        match &self.value {
            SampleValue::Float(v) => *v,
            SampleValue::Histogram(_) | SampleValue::FloatHistogram(_) => 0.0,
        }
    }
}
