//! `/admin/tsdb/*`: what changes or copies stored data. Off unless `--web.enable-admin-api` is given.
//!
//! Texts and codes are Prometheus' (observed on 3.5.3) but for one: a deletion whose end lies before its start is refused,
//! where Prometheus answers 204 and deletes nothing.

use std::sync::Arc;

use model::TimeRange;
use model::storage::{StorageAdmin, StorageError};

use super::selectors;
use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, ErrorType, Success};
use crate::json::Object;
use crate::params::{Params, TIME_MAX, TIME_MIN};

/// `/admin/tsdb/delete_series`
pub(crate) async fn delete_series(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    check_enabled(&app)?;
    if let Some(error) = params.malformed() {
        return Err(ApiError::bad_data(format!("error parsing form values: {error}")));
    }
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start = params.time("start", TIME_MIN)?;
    let end = params.time("end", TIME_MAX)?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let selectors = selectors(&params).map_err(|error| ApiError::parameter("match[]", error))?;
    let written: Vec<&str> = params.all("match[]").collect();
    tracing::info!(selectors = ?written, start, end, "told to delete samples");
    run(&app, parts, move |admin| admin.delete_series(TimeRange::new(start, end), &selectors)).await?;
    Ok(Success::empty())
}

/// `/admin/tsdb/clean_tombstones`
pub(crate) async fn clean_tombstones(app: Arc<App>, parts: Parts, _: Params) -> ApiResult {
    check_enabled(&app)?;
    run(&app, parts, |admin| admin.clean_tombstones()).await?;
    Ok(Success::empty())
}

/// `/admin/tsdb/snapshot`
pub(crate) async fn snapshot(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    check_enabled(&app)?;
    let skip_head = params.flag("skip_head")?;
    let name = run(&app, parts, move |admin| admin.snapshot(skip_head)).await?;
    tracing::info!(name, skip_head, "snapshot made");
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    object.text("name", &name);
    object.end();
    Ok(Success::new(data))
}

fn check_enabled(app: &App) -> Result<(), ApiError> {
    if app.options.enable_admin_api {
        return Ok(());
    }
    Err(ApiError::new(ErrorType::Unavailable, "admin APIs disabled"))
}

/// Runs an operation that waits for the disk, maybe for minutes: on a thread of its own, so that it takes no place from
/// look-ups and writes, one at a time. It goes on when whoever asked has gone.
async fn run<T: Send + 'static>(
    app: &App,
    parts: Parts,
    operation: impl FnOnce(&dyn StorageAdmin) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, ApiError> {
    let turn = Arc::clone(&app.store_operation).lock_owned().await;
    let job = tokio::task::spawn_blocking(move || {
        let result = operation(&*parts.admin);
        drop(turn);
        result
    });
    match job.await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::new(ErrorType::Internal, error.to_string())),
    }
}
