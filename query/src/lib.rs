//! PromQL: text → AST ([`parse`]) → plan → vectorised execution ([`exec`]); and rules ([`rules`]): a rule is a query on
//! a clock.
//!
//! The crate sees storage only as [`model::storage::Queryable`], so it runs on the head, on remote read, or on a test
//! fixture alike.
#![forbid(unsafe_code)]

pub mod ast;
pub mod exec;
pub mod parse;
mod plan;
pub mod rules;
pub mod script;
