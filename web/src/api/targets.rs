//! `/targets`, `/targets/metadata`, `/scrape_pools`.

use std::sync::Arc;

use model::{Labels, Matcher};
use scraper::TargetStatus;

use super::metadata::{signed_limit, target_matchers};
use super::status::rfc3339;
use crate::app::{App, Parts};
use crate::envelope::{ApiResult, Success};
use crate::json::{self, Object};
use crate::params::Params;

/// `/targets`
pub(crate) async fn targets(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    // Thousands of targets take longer to write than the reactor may wait.
    let shared = Arc::clone(&app);
    app.pool.run(move || Ok(targets_page(&shared, &parts, &params))).await?
}

fn targets_page(app: &App, parts: &Parts, params: &Params) -> Success {
    let state = params.get("state").unwrap_or_default().to_lowercase();
    // An unknown state shows nothing, as in Prometheus.
    let shows = |wanted: &str| state == wanted || matches!(state.as_str(), "" | "any");
    let pool_wanted = params.get("scrapePool");
    let all = parts.scrape.status();
    let pools: Vec<_> = all.iter().filter(|pool| pool_wanted.is_none_or(|name| name == pool.name)).collect();
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    let active = pools.iter().flat_map(|pool| &pool.active).filter(|_| shows("active"));
    json::write_list(object.key("activeTargets"), active, |out, target| write_target(out, target, app));
    let dropped = pools.iter().flat_map(|pool| pool.dropped.iter().map(|labels| (&pool.name, labels)));
    json::write_list(
        object.key("droppedTargets"),
        dropped.filter(|_| shows("dropped")),
        |out, (pool, labels)| {
            let mut target = Object::begin(out);
            target.labels("discoveredLabels", labels).text("scrapePool", pool);
            target.end();
        },
    );
    if shows("dropped") {
        let mut counts = Object::begin(object.key("droppedTargetCounts"));
        // Of all pools, whichever was asked for.
        for pool in &all {
            counts.raw(&pool.name, pool.dropped_count);
        }
        counts.end();
    } else {
        object.raw("droppedTargetCounts", "null");
    }
    object.end();
    Success::new(data)
}

fn write_target(out: &mut String, target: &TargetStatus, app: &App) {
    let last = &target.last;
    let mut object = Object::begin(out);
    object
        .labels("discoveredLabels", &target.discovered_labels)
        .labels("labels", &target.labels)
        .text("scrapePool", &target.scrape_pool)
        .text("scrapeUrl", &target.scrape_url)
        .text("globalUrl", &global_url(&target.scrape_url, &app.options.hostname))
        .text("lastError", &last_error(last))
        .text("lastScrape", &last.t.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc3339))
        .number("lastScrapeDuration", last.duration.as_secs_f64())
        .text("health", last.health.as_str())
        .text("scrapeInterval", &model::duration::format(target.scrape_interval))
        .text("scrapeTimeout", &model::duration::format(target.scrape_timeout));
    object.end();
}

/// The URL as others reach it: loopback addresses mean nothing elsewhere.
fn global_url(url: &str, hostname: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return url.to_owned() };
    if matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
        && parsed.set_host(Some(hostname)).is_ok()
    {
        return parsed.to_string();
    }
    url.to_owned()
}

/// `/api/ext/v1/brokers`: brokers that are looked for on loopback.
pub(crate) async fn brokers(_: Arc<App>, parts: Parts, _: Params) -> ApiResult {
    let brokers = parts.loopback.map(|loopback| loopback.brokers()).unwrap_or_default();
    let mut data = String::new();
    json::write_list(&mut data, &brokers, |out, broker| {
        let mut object = Object::begin(out);
        object
            .text("kind", broker.kind.as_str())
            .text("address", &broker.address.to_string())
            .text("state", broker.state.as_str())
            .raw("supported", broker.supported);
        object.end();
    });
    Ok(Success::new(data))
}

/// `/scrape_pools`
pub(crate) async fn scrape_pools(_: Arc<App>, parts: Parts, _: Params) -> ApiResult {
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    let pools = parts.scrape.scrape_pools();
    json::write_strings(object.key("scrapePools"), pools.iter().map(String::as_str));
    object.end();
    Ok(Success::new(data))
}

/// `/targets/metadata`
pub(crate) async fn metadata(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    app.pool.run(move || metadata_page(&parts, &params)).await?
}

fn metadata_page(parts: &Parts, params: &Params) -> ApiResult {
    let limit = signed_limit(params, "limit")?.unwrap_or(usize::MAX);
    let matchers = target_matchers(params)?;
    let metric = params.get("metric");
    let targets = parts.scrape.metadata();
    let matching = targets.iter().filter(|target| Matcher::all_match(&matchers, &target.labels));
    let entries = matching.flat_map(|target| {
        let wanted = target.families.iter().filter(|(name, _)| metric.is_none_or(|metric| metric == name));
        wanted.map(|(name, metadata)| (&target.labels, name, metadata))
    });
    let mut data = String::new();
    json::write_list(&mut data, entries.take(limit), |out, (labels, name, metadata): (&Labels, _, _)| {
        let mut object = Object::begin(out);
        object.labels("target", labels);
        if metric.is_none() {
            object.text("metric", name);
        }
        object.text("type", metadata.kind.as_str()).text("help", &metadata.help).text("unit", &metadata.unit);
        object.end();
    });
    Ok(Success::new(data))
}

/// Why the last scrape failed, or is incomplete: a collector may have reached its broker and still miss a right.
fn last_error(last: &scraper::LastScrape) -> String {
    if last.error.is_empty() { last.warnings.join("; ") } else { last.error.clone() }
}
