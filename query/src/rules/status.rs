//! What is shown of rules and alerts.

use std::time::Duration;

use model::{Labels, Timestamp};

/// State of an alert, and of a rule: that of its most severe alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertState {
    /// The rule was not evaluated yet.
    Unknown,
    /// Nothing is wrong.
    Inactive,
    /// Wrong, but not for long enough.
    Pending,
    /// Wrong for long enough.
    Firing,
}

impl AlertState {
    /// The word in answers and in the label `alertstate`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// How the last evaluation of a rule went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// There was none yet.
    #[default]
    Unknown,
    /// Well.
    Good,
    /// It failed.
    Bad,
}

impl Health {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "ok",
            Self::Bad => "err",
        }
    }
}

/// A group as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleGroupStatus {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Time between evaluations.
    pub interval: Duration,
    /// Most alerts or series of one rule; 0 is none.
    pub limit: usize,
    /// How long the last evaluation took.
    pub evaluation_time: Duration,
    /// When it was, if there was one.
    pub last_evaluation: Option<Timestamp>,
    /// Its rules in order.
    pub rules: Vec<RuleStatus>,
}

/// A rule as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleStatus {
    /// Name of the alert or recorded series.
    pub name: String,
    /// The expression in normal form.
    pub query: String,
    /// Labels it adds (templates for alerts).
    pub labels: Labels,
    /// How the last evaluation went.
    pub health: Health,
    /// Why it failed.
    pub last_error: Option<String>,
    /// How long it took.
    pub evaluation_time: Duration,
    /// When it was, if there was one.
    pub last_evaluation: Option<Timestamp>,
    /// What only one kind has.
    pub kind: RuleStatusKind,
}

/// What only one kind of rule has.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleStatusKind {
    /// Recording rules have nothing more.
    Recording,
    /// Alerting rules.
    Alerting {
        /// The most severe state.
        state: AlertState,
        /// `for`
        hold: Duration,
        /// `keep_firing_for`
        keep_firing_for: Duration,
        /// Templates of texts for people.
        annotations: Labels,
        /// Pending and firing alerts.
        alerts: Vec<AlertStatus>,
    },
}

/// An alert as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertStatus {
    /// Its identity.
    pub labels: Labels,
    /// Texts for people.
    pub annotations: Labels,
    /// Pending or firing.
    pub state: AlertState,
    /// Since when the expression yields it.
    pub active_at: Timestamp,
    /// Since when it fires only because of `keep_firing_for`.
    pub keep_firing_since: Option<Timestamp>,
    /// The expression's last value.
    pub value: f64,
}
