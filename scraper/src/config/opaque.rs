//! YAML whose meaning others know.

use std::fmt;

use serde::Deserialize;

/// A value as written that is read elsewhere (`collector_options`) or not at all (discovery kinds that are not built
/// yet). It may hold passwords, and nobody here knows where: it can be compared, but not shown.
#[derive(Clone, Deserialize, PartialEq)]
#[serde(transparent)]
pub struct Opaque(serde_yaml::Value);

impl Opaque {
    /// What was written, passwords included.
    pub fn value(&self) -> &serde_yaml::Value {
        &self.0
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<yaml>")
    }
}
