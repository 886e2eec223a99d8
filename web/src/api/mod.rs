//! The handlers, grouped as Prometheus' documentation groups them. Each takes the app, the parts and the parameters,
//! and gives `data` as JSON text.

pub mod admin;
pub mod alertmanager;
pub mod explain;
pub mod metadata;
pub mod queries;
pub mod query;
mod query_answer;
pub mod rules;
pub mod status;
pub mod targets;
pub mod write;

use ::query::parse::parse_selector;
use model::Matcher;

use crate::params::Params;

/// The selectors of all `match[]` parameters.
pub(crate) fn selectors(params: &Params) -> Result<Vec<Vec<Matcher>>, String> {
    params.all("match[]").map(|text| parse_selector(text).map_err(|error| error.to_string())).collect()
}

/// Whether a selector names something: one matcher at least must refuse the empty value.
pub(crate) fn selects_something(matchers: &[Matcher]) -> bool {
    matchers.iter().any(|matcher| !matcher.matches_empty())
}
