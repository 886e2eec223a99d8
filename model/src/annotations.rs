//! Doubts about a result: warnings and infos that travel beside it.
//!
//! A warning says that the result may be wrong or incomplete, an info that the query looks like a mistake.
//! Texts are Prometheus' own, since users and tests match on them.

use std::collections::BTreeSet;

/// A set of warnings and infos; equal texts count once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    warnings: BTreeSet<String>,
    infos: BTreeSet<String>,
}

impl Annotations {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a warning (its whole text, prefix included).
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.insert(text.into());
    }

    /// Adds an info (its whole text, prefix included).
    pub fn info(&mut self, text: impl Into<String>) {
        self.infos.insert(text.into());
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.warnings.extend(other.warnings.iter().cloned());
        self.infos.extend(other.infos.iter().cloned());
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }

    /// The warnings in order of text.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(String::as_str)
    }

    /// The infos in order of text.
    pub fn infos(&self) -> impl Iterator<Item = &str> {
        self.infos.iter().map(String::as_str)
    }
}
