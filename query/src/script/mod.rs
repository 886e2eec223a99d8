//! PromQL test scripts, in the format of Prometheus' `promqltest`: `load` samples, `eval` expressions, `expect` results,
//! errors and annotations, `clear`. `nilometer test promql` plays them from files.
//!
//! [`run`] plays a script on an engine and an in-memory store ([`MemoryStorage`]) and tells each case that came out
//! differently. Instant evaluations are repeated as the middle step of a range query, as the reference runner does.
//!
//! ```text
//! load 5m
//!   http_requests_total{job="api"} 0+10x10
//!
//! eval instant at 50m sum by (job) (http_requests_total)
//!   expect no_warn
//!   {job="api"} 100
//! ```

mod check;
mod nhcb;
mod read;
mod show;
mod store;
mod values;

pub use show::{DiffLine, DiffSide};
pub use store::{MemorySample, MemoryStorage};

use std::fmt;
use std::sync::Arc;

use crate::exec::{Engine, EngineOptions, EvalFeatures};
use crate::parse::ParseOptions;
use check::Mismatch;
use read::Command;

/// A script that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
#[non_exhaustive]
pub struct ScriptError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// A case that came out differently.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptFailure {
    /// Line of the `eval`, from 1.
    pub line: usize,
    /// The expression.
    pub expr: String,
    /// What differs first.
    pub message: String,
    /// Expectation and outcome side by side, in the syntax of scripts: what both have, what only one has. Bounded.
    pub diff: Vec<DiffLine>,
}

impl fmt::Display for ScriptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.expr, self.message)
    }
}

/// What became of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptReport {
    /// Cases that came out as expected.
    pub passed: usize,
    /// The others, in order of lines.
    pub failures: Vec<ScriptFailure>,
}

/// The engine options that scripts are written for: everything on but type and unit labels.
pub fn engine_options() -> EngineOptions {
    EngineOptions {
        parse: ParseOptions::all(),
        features: EvalFeatures {
            delayed_name_removal: true,
            type_and_unit_labels: false,
            use_start_timestamps: true,
        },
        ..EngineOptions::default()
    }
}

/// Plays a script.
///
/// # Errors
/// When the script is malformed. Cases that fail are no error: the report tells them.
pub fn run(text: &str, engine: &Engine) -> Result<ScriptReport, ScriptError> {
    let mut report = ScriptReport::default();
    let mut storage = MemoryStorage::new();
    for command in read::read(text)? {
        match command {
            Command::Clear => storage = MemoryStorage::new(),
            Command::Load(load) => load.into_storage(&mut storage),
            Command::Eval(eval) => match check::check(&eval, engine, &storage) {
                Ok(()) => report.passed += 1,
                Err(Mismatch { message, diff }) => {
                    let (line, expr) = (eval.line, eval.expr.clone());
                    report.failures.push(ScriptFailure { line, expr, message, diff });
                }
            },
        }
    }
    Ok(report)
}

/// A value in a script.
#[derive(Clone, Debug)]
enum ScriptValue {
    Float(f64),
    Histogram { histogram: Arc<model::FloatHistogram>, hint_given: bool },
}
