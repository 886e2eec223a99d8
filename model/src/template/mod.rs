//! Go templates for rule labels, annotations and notifications: `gotmpl` behind a facade.
//!
//! # For users of the facade
//! 1. [`Functions`] is the table of functions and methods: [`functions::prometheus`] and [`functions::alertmanager`]
//!    are ready; add or replace entries with [`Functions::with`] and [`Functions::with_method`].
//! 2. [`TemplateSet`] holds named templates in one [`Mode`] (text or HTML). [`TemplateSet::add`] takes the source of a
//!    file; a later definition of a name replaces an earlier one, so user files override defaults.
//! 3. [`TemplateSet::expand`] runs one text with a [`Value`] as dot, [`TemplateSet::compile`] keeps it for many runs.
//! 4. Data are [`Value`]s: [`text`], [`list`], [`map`], [`labels`], [`Struct`] (fields by Go's names), [`GoTime`]. Lists and
//!    maps get methods from the function table (`.Alerts.Firing` is method `Firing` on a list, `.Labels.SortedPairs`
//!    method `SortedPairs` on a map); objects bring their own ([`Object::call`]).
//! 5. What a single run needs besides data (the time, how to query) is its [`Env`].
//!
//! ```
//! use model::template::{Env, Functions, Mode, Struct, TemplateSet, functions, list, text, Value};
//!
//! let functions = functions::alertmanager().with_method("Firing", |receiver, _args| match receiver {
//!     Value::List(alerts) => Some(Ok(Value::List(alerts.clone()))),
//!     _ => None,
//! });
//! let mut set = TemplateSet::new(Mode::Text, &functions);
//! set.add("default.tmpl", r#"{{ define "subject" }}[{{ .Alerts.Firing | len }}] {{ .Receiver }}{{ end }}"#).unwrap();
//! let data = Struct::new("template.Data")
//!     .field("Receiver", "receiver", text("team"))
//!     .field("Alerts", "alerts", list([text("one")]));
//! let out = set.expand(r#"{{ template "subject" . | toUpper }}"#, &data.clone().into_value(), &Env::at(0));
//! assert_eq!(out.unwrap_err().kind(), model::template::ErrorKind::Execute); // a struct is no string
//! let out = set.expand(r#"{{ template "subject" . }}"#, &data.into_value(), &Env::at(0));
//! assert_eq!(out.unwrap(), "[1] team");
//! ```
//!
//! # How it works
//! `gotmpl`'s values have no methods, its functions learn nothing about where they are called, and it notices unknown
//! functions and variables only while running. So each parse tree is checked and rewritten (`rewrite`): field and
//! method access becomes a function call that knows its place, every printed value goes through a printer with Go's
//! formats (`format`). Go's builtin functions are replaced by ones that know objects and Go's float format (`builtins`).
//!
//! # Bounds
//! A run ends with an error after [`Limits::steps`] function calls, [`Limits::iterations`] rounds of `range`, or
//! [`Limits::output_bytes`] of output, which also bounds each intermediate text.

use std::sync::Arc;

use crate::labels::Labels;
use crate::sample::Timestamp;

pub mod alerting;
mod builtins;
mod format;
pub mod functions;
mod rewrite;
mod run;
mod scan;
mod set;
mod time;
mod value;

pub use functions::Functions;
pub use set::{Template, TemplateSet};
pub use time::{GoDuration, GoTime};
pub use value::{
    Object, SafeKind, Struct, Value, as_object, as_text, labels, list, map, object, safe_html, shared_object,
    text, type_name,
};

/// How output is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Not at all (Go's `text/template`).
    Text,
    /// By context (Go's `html/template`).
    Html,
}

/// Bounds of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of output, and of each text that a function makes.
    pub output_bytes: usize,
    /// Most rounds of all `range` loops together.
    pub iterations: u64,
    /// Most calls of functions, methods and fields.
    pub steps: u64,
}

impl Default for Limits {
    /// 4 MiB of output (mail bodies with thousands of alerts stay below 1 MiB), a million rounds and ten million steps
    /// (a few seconds at the most).
    fn default() -> Self {
        Self { output_bytes: 4 << 20, iterations: 1_000_000, steps: 10_000_000 }
    }
}

/// Answers an instant query for templates: expression and time to samples.
pub type QueryFn = dyn Fn(&str, Timestamp) -> Result<Vec<(Labels, f64)>, String> + Send + Sync;

/// What a run needs besides its data.
#[derive(Clone)]
pub struct Env {
    /// The time, for `now`, `since` and `query`.
    pub now: Timestamp,
    /// How to query; `None`: `query` is an error.
    pub query: Option<Arc<QueryFn>>,
    /// What `externalURL` gives; the path of it is what `pathPrefix` gives.
    pub external_url: Arc<str>,
}

impl Env {
    /// Only a time.
    pub fn at(now: Timestamp) -> Self {
        Self { now, query: None, external_url: Arc::from("") }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("now", &self.now)
            .field("external_url", &self.external_url)
            .finish_non_exhaustive()
    }
}

/// Whether a template is malformed or failed when run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Malformed, found before running: the author's mistake.
    Parse,
    /// Failed while running, also through a limit.
    Execute,
}

/// Why a template is refused or failed; the text is Go's (`template: NAME:LINE: unexpected EOF`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    kind: ErrorKind,
    message: String,
}

impl TemplateError {
    fn parse(name: &str, line: usize, message: impl std::fmt::Display) -> Self {
        Self { kind: ErrorKind::Parse, message: format!("template: {name}:{line}: {message}") }
    }

    fn execute(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Execute, message: message.into() }
    }

    /// Malformed, or failed when run.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

#[cfg(test)]
mod tests;
