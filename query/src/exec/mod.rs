//! Execution of PromQL: [`Engine`] runs queries on any [`model::storage::Queryable`].
//!
//! An expression is planned (`crate::plan`), then turned into *streams*: a stream tells its series (labels) before any
//! sample and then gives **one series at a time with all its steps**, a column of floats with a bitmap of presence and
//! a sparse column of histograms. Functions of single series change columns on their way; aggregations fold series as
//! they arrive, so that `sum by (job)` over a million series holds accumulators only; joins and set operators read the
//! series of a match group when its result is read.
//!
//! Series are read in parallel, in rounds, and folded in order: results do not depend on the number of threads. All
//! work is synchronous; whoever calls does so on a thread for calculations. Every loop looks at the deadline and at the
//! cancellation flags, and whatever grows with data is counted before it is kept (`limits`, `memory`).
//!
//! Queries are entered in a [`QueryRegister`] while they wait and run; [`Engine::explain`] and [`Engine::analyze`] show
//! plans.
//!
//! Semantics, texts of errors and annotations are those of Prometheus 3.14.

mod aggregate;
pub(crate) mod arith;
mod binary;
mod column;
pub(crate) mod date;
mod elementwise;
mod engine;
pub(crate) mod error;
mod eval;
mod explain;
mod extended;
mod histogram_fn;
mod info;
mod label_fn;
mod labels;
mod limits;
mod memory;
mod metrics;
mod notes;
mod options;
mod output;
mod quantile;
mod query_log;
mod range;
mod register;
pub(crate) mod selector;
mod sort;
mod state;
pub(crate) mod steps;
mod stream;
mod value;

pub use engine::Engine;
pub use error::{QueryError, QueryErrorKind};
pub use explain::{Analysis, Explanation, Measured, PlanNode};
pub use memory::{MemoryBudget, MemoryHold};
pub use options::{EngineOptions, ParsedQuery, QueryOptions, SubqueryStep, When};
pub use query_log::{QueryLog, stats_json};
pub use register::{
    Entry, HttpOrigin, QueryOrigin, QueryRegister, QueryState, QueryTicket, QueryTracker, RuleOrigin,
    RunningQuery, SlowQuery,
};
pub use state::EvalFeatures;
pub use value::{MatrixSeries, PointValue, QueryResult, QueryStats, QueryValue, VectorSample};
