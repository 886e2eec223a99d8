//! `/explain`: the plan of a query, as JSON and as a tree of lines; with `analyze`, after running it.

use std::sync::Arc;

use query::exec::{Explanation, QueryOrigin, When};

use super::query::{Common, evaluated, over, parsed};
use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, Success};
use crate::json;
use crate::params::Params;

/// `/explain`: with `start`, `end` and `step` of a range query, otherwise of an instant query at `time`.
pub(crate) async fn explain(app: Arc<App>, parts: Parts, params: Params, origin: QueryOrigin) -> ApiResult {
    let when = if params.get("start").is_some() || params.get("step").is_some() {
        over(&params)?
    } else {
        When::At(params.time("time", app.clock.now_ms())?)
    };
    let analyze = params.flag("analyze")?;
    let common = Common::new(&app, &params)?;
    let query = parsed(&app, &parts, &params).await?;
    if analyze {
        return evaluated(&app, &parts, origin, query, when, &common, move |parts, query, options| {
            Ok(answer(&parts.engine.analyze(&*parts.storage, query, when, options)?))
        })
        .await;
    }
    let lookback_ms = common.lookback_ms;
    let explained =
        app.pool.run(move || parts.engine.explain(&query, when, lookback_ms).map(|it| answer(&it))).await?;
    explained.map_err(|error| ApiError::parameter("query", error))
}

fn answer(explanation: &Explanation) -> Success {
    let mut data = explanation.to_json();
    // The lines beside the tree.
    data.pop();
    data.push_str(",\"text\":");
    json::write_string(&mut data, &explanation.to_text());
    data.push('}');
    Success::new(data)
}
