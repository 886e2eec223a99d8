//! `/status/*` and `/version`.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use model::storage::BlockInfo;

use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, Success, plain_response};
use crate::json::{self, Object};
use crate::params::Params;

/// Entries of each top list without `limit`.
const TSDB_LIMIT_DEFAULT: usize = 10;
/// Most entries of each top list.
const TSDB_LIMIT_MAX: usize = 10_000;

/// `/status/config`
pub(crate) async fn config(app: Arc<App>, _: Parts, _: Params) -> ApiResult {
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    object.text("yaml", &app.control.config_yaml());
    object.end();
    Ok(Success::new(data))
}

/// `/status/flags`
pub(crate) async fn flags(app: Arc<App>, _: Parts, _: Params) -> ApiResult {
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    for (name, value) in &app.options.flags {
        object.text(name, value);
    }
    object.end();
    Ok(Success::new(data))
}

/// `/status/buildinfo`. There is no `features` field: with one, Grafana would take us for Mimir.
pub(crate) async fn buildinfo(app: Arc<App>, _: Parts, _: Params) -> ApiResult {
    Ok(Success::new(build_json(&app)))
}

/// `/version`: JSON that calls itself text, as Prometheus' does.
pub(crate) fn version(app: &App) -> Response<Body> {
    plain_response(StatusCode::OK, build_json(app) + "\n")
}

fn build_json(app: &App) -> String {
    let build = &app.options.build;
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    object
        .text("version", &build.compatible_version)
        .text("revision", &build.revision)
        .text("branch", &format!("nilometer-{}", build.version))
        .text("buildUser", "")
        .text("buildDate", "")
        .text("goVersion", &build.rustc);
    object.end();
    data
}

/// `/status/runtimeinfo`
pub(crate) async fn runtimeinfo(app: Arc<App>, parts: Parts, _: Params) -> ApiResult {
    let reload = app.control.reload_status();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    object
        .text("startTime", &rfc3339(app.started))
        .text("CWD", &app.options.working_directory)
        .text("hostname", &app.options.hostname)
        .text("serverTime", &rfc3339(app.clock.now_ms()))
        .raw("reloadConfigSuccess", reload.success)
        .text("lastConfigTime", &rfc3339(reload.last_success))
        .raw("corruptionCount", 0)
        // Go's numbers have no counterpart; tools that read them get true values of the nearest kind.
        .raw("goroutineCount", tokio::runtime::Handle::current().metrics().num_alive_tasks())
        .raw("GOMAXPROCS", threads)
        .raw("GOMEMLIMIT", i64::MAX)
        .text("GOGC", "")
        .text("GODEBUG", "")
        .text("storageRetention", &parts.admin.retention_text());
    object.end();
    Ok(Success::new(data))
}

/// `/status/tsdb`
pub(crate) async fn tsdb(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let limit = match params.get("limit") {
        None => TSDB_LIMIT_DEFAULT,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=TSDB_LIMIT_MAX) => limit,
            Ok(limit) if limit > TSDB_LIMIT_MAX => {
                return Err(ApiError::bad_data(format!("limit must not exceed {TSDB_LIMIT_MAX}")));
            }
            _ => return Err(ApiError::bad_data("limit must be a positive number")),
        },
    };
    let stats = app.pool.run(move || parts.admin.head_stats(limit)).await?;
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    let mut head = Object::begin(object.key("headStats"));
    // An empty head shows the ends of time, as Prometheus does.
    let (min, max) = stats.range.map_or((i64::MAX, i64::MIN), |range| (range.min, range.max));
    head.raw("numSeries", stats.series)
        .raw("numLabelPairs", stats.label_pairs)
        .raw("chunkCount", stats.chunks)
        .raw("minTime", min)
        .raw("maxTime", max);
    head.end();
    let lists = [
        ("seriesCountByMetricName", &stats.series_by_metric),
        ("labelValueCountByLabelName", &stats.values_by_label),
        ("memoryInBytesByLabelName", &stats.memory_by_label),
        ("seriesCountByLabelValuePair", &stats.series_by_pair),
    ];
    for (key, entries) in lists {
        json::write_list(object.key(key), entries, |out, (name, value)| {
            let mut entry = Object::begin(out);
            entry.text("name", name).raw("value", value);
            entry.end();
        });
    }
    object.end();
    Ok(Success::new(data))
}

/// `/status/tsdb/blocks`: what `meta.json` of each block says, oldest first.
pub(crate) async fn blocks(app: Arc<App>, parts: Parts, _: Params) -> ApiResult {
    let blocks = app.pool.run(move || parts.admin.blocks()).await?;
    let mut data = String::with_capacity(64 + blocks.len() * 512);
    let mut object = Object::begin(&mut data);
    json::write_list(object.key("blocks"), &blocks, write_block);
    object.end();
    Ok(Success::new(data))
}

/// Numbers that are zero are left out, as Prometheus leaves them out.
fn write_block(out: &mut String, block: &BlockInfo) {
    let mut object = Object::begin(out);
    object.text("ulid", &block.id).raw("minTime", block.min_time).raw("maxTime", block.max_time);
    let mut stats = Object::begin(object.key("stats"));
    let numbers = [
        ("numSamples", block.samples),
        ("numFloatSamples", block.float_samples),
        ("numHistogramSamples", block.histogram_samples),
        ("numSeries", block.series),
        ("numChunks", block.chunks),
        ("numTombstones", block.tombstones),
    ];
    for (key, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
        stats.raw(key, number);
    }
    stats.end();
    let mut compaction = Object::begin(object.key("compaction"));
    compaction.raw("level", block.level);
    if !block.sources.is_empty() {
        json::write_strings(compaction.key("sources"), block.sources.iter().map(String::as_str));
    }
    if !block.parents.is_empty() {
        json::write_list(compaction.key("parents"), &block.parents, |out, parent| {
            let mut object = Object::begin(out);
            object.text("ulid", &parent.id).raw("minTime", parent.min_time).raw("maxTime", parent.max_time);
            object.end();
        });
    }
    compaction.end();
    object.raw("version", 1);
    object.end();
}

/// `/status/walreplay`: served while not ready, too.
pub(crate) fn walreplay(app: &App) -> ApiResult {
    let progress = app.replay_progress();
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    object.raw("min", progress.min).raw("max", progress.max).raw("current", progress.current);
    object.end();
    Ok(Success::new(data))
}

/// A time in RFC 3339, UTC, as Go prints it.
pub(crate) fn rfc3339(t: model::Timestamp) -> String {
    Timestamp::from_millisecond(t).map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use model::storage::BlockParent;

    use super::*;

    #[test]
    fn a_block_looks_as_in_its_meta_file() {
        let parent = BlockParent { id: "01A".to_owned(), min_time: 0, max_time: 5 };
        let block = BlockInfo {
            id: "01B".to_owned(),
            max_time: 9,
            samples: 3,
            float_samples: 3,
            series: 1,
            level: 2,
            sources: vec!["01A".to_owned()],
            parents: vec![parent],
            ..BlockInfo::default()
        };
        let mut out = String::new();
        write_block(&mut out, &block);
        let expected = r#"{"ulid":"01B","minTime":0,"maxTime":9,"stats":{"numSamples":3,"numFloatSamples":3,"numSeries":1},"compaction":{"level":2,"sources":["01A"],"parents":[{"ulid":"01A","minTime":0,"maxTime":5}]},"version":1}"#;
        assert_eq!(out, expected);
    }
}
