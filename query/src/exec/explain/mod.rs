//! `explain`: the plan of a query, and what each operator took when it is run for that ([`profile`]).
//!
//! The tree shows the plan as it is evaluated, so that rewrites can be seen: constants are folded, what is the same at
//! every step stands below `evaluate_once`, selectors tell what storage is told (`pushed_down`) and what they do not read
//! (`histograms: count and sum only`).

mod profile;
mod tree;
mod write;

use model::TimeRange;
use serde_json::Value;

pub(crate) use profile::Profile;
pub(crate) use tree::tree;

use super::value::QueryStats;
use crate::ast::{Span, ValueType};
use crate::parse::QueryTimes;

/// A query explained.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The query as it was written.
    pub text: String,
    /// When it is evaluated.
    pub times: QueryTimes,
    /// How many steps that is.
    pub steps: usize,
    /// How old the newest sample of a series may be, in milliseconds.
    pub lookback_ms: i64,
    /// Stored time that is looked at; `None` without selectors.
    pub extent: Option<TimeRange>,
    /// Type of the result.
    pub value_type: ValueType,
    /// The outermost operator.
    pub root: PlanNode,
    /// What running it took, and how much came out; `None` when it was not run.
    pub analysis: Option<Analysis>,
}

/// A whole query, run to see what it takes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Analysis {
    /// What it took.
    pub stats: QueryStats,
    /// Series of the result.
    pub result_series: u64,
    /// Points of the result.
    pub result_points: u64,
}

/// An operator of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PlanNode {
    /// What it is: `select`, `aggregate`, `join` and so on.
    pub operator: &'static str,
    /// What it does in particular, by names that are the keys of the JSON form.
    pub properties: Vec<(&'static str, Value)>,
    /// The part of the text it comes from, where the plan knows.
    pub span: Option<Span>,
    /// What it took, when the query was run.
    pub measured: Option<Measured>,
    /// Its operands.
    pub children: Vec<PlanNode>,
}

/// What an operator took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measured {
    /// Series it gave.
    pub series: u64,
    /// Times that a series was read from it.
    pub reads: u64,
    /// Values (of range vectors: samples) it gave.
    pub samples: u64,
    /// Time in it and below it: building it, and reading from it, the latter summed over threads.
    pub nanos: u64,
    /// The same without its operands; 0 where threads that worked at once hide it.
    pub own_nanos: u64,
    /// Bytes that were held when it was built and not before.
    pub memory_bytes: u64,
}

impl Explanation {
    /// As a tree of lines.
    pub fn to_text(&self) -> String {
        write::text(self)
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        write::json(self)
    }
}
