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
//! cancellation flag.
//!
//! Semantics, texts of errors and annotations are those of Prometheus 3.14.

mod aggregate;
pub(crate) mod arith;
mod binary;
mod column;
pub(crate) mod date;
mod engine;
pub(crate) mod error;
mod eval;
mod extended;
mod histogram_fn;
mod info;
mod label_fn;
mod labels;
mod notes;
mod quantile;
mod range;
pub(crate) mod selector;
mod sort;
mod state;
pub(crate) mod steps;
mod stream;
mod value;

pub use engine::{Engine, EngineOptions, ParsedQuery, QueryOptions, SubqueryStep};
pub use error::{QueryError, QueryErrorKind};
pub use state::EvalFeatures;
pub use value::{MatrixSeries, PointValue, QueryResult, QueryStats, QueryValue, VectorSample};
