//! The engine against a slow, plain evaluator, on generated queries over generated data: values, hints and annotations.

mod compare;
mod data;
mod floats;
mod histograms;
mod queries;
#[path = "../reference/mod.rs"]
mod reference;
