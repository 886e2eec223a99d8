//! Rules evaluate through the same engine and on the same store as everybody else.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use model::storage::Queryable;
use model::{Labels, SampleValue, Timestamp};
use query::ast::Expr;
use query::exec::{Engine, ParsedQuery, PointValue, QueryOptions, QueryOrigin, QueryValue, RuleOrigin, When};
use query::rules::{Evaluate, RuleSample};

/// The engine on the store.
pub(crate) struct RuleEngine {
    /// Evaluates.
    pub engine: Arc<Engine>,
    /// On what.
    pub storage: Arc<dyn Queryable>,
    /// Set when the server stops: evaluations under way end.
    pub cancel: Arc<AtomicBool>,
}

impl RuleEngine {
    fn run(&self, query: &ParsedQuery, t: Timestamp, origin: QueryOrigin) -> Result<Vec<RuleSample>, String> {
        let ticket = self.engine.enter(query.text(), When::At(t), origin, None);
        let options = QueryOptions {
            cancel: Some(Arc::clone(&self.cancel)),
            ticket: Some(ticket),
            ..QueryOptions::default()
        };
        let result =
            self.engine.instant(&*self.storage, query, t, &options).map_err(|error| error.to_string())?;
        match result.value {
            QueryValue::Vector(samples) => Ok(samples
                .into_iter()
                .map(|sample| RuleSample {
                    labels: sample.labels,
                    value: match sample.value {
                        PointValue::Float(v) => SampleValue::Float(v),
                        PointValue::Histogram(h) => SampleValue::FloatHistogram(h),
                    },
                })
                .collect()),
            QueryValue::Scalar(sample) => Ok(vec![RuleSample::float(Labels::empty(), sample.v)]),
            _ => Err("rule result is not a vector or scalar".to_owned()),
        }
    }
}

impl Evaluate for RuleEngine {
    fn instant(&self, expr: &Expr, t: Timestamp, rule: RuleOrigin) -> Result<Vec<RuleSample>, String> {
        self.run(&ParsedQuery::from(expr.clone()), t, QueryOrigin::Rule(rule))
    }

    fn instant_text(&self, text: &str, t: Timestamp, rule: RuleOrigin) -> Result<Vec<(Labels, f64)>, String> {
        let query = self.engine.parse(text).map_err(|error| error.to_string())?;
        let samples = self.run(&query, t, QueryOrigin::Rule(rule))?;
        Ok(samples.into_iter().map(|sample| (sample.labels.clone(), sample.float_value())).collect())
    }
}
