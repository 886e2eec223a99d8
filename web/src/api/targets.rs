//! `/targets`, `/targets/metadata`, `/targets/relabel_steps`, `/targets/body`, `/scrape_pools`, `/scrape_pools/config`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use model::relabel::{self, RelabelConfig};
use model::{Labels, Matcher};
use scraper::{NoBody, ScrapeConfig, TargetStatus};
use tokio::time::Instant;

use super::metadata::{signed_limit, target_matchers};
use super::status::rfc3339;
use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, ErrorType, Success};
use crate::json::{self, Object};
use crate::params::Params;

/// How long a request waits for the next scrape of a target.
const BODY_WAIT: Duration = Duration::from_secs(30);

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

/// `/scrape_pools/config`
pub(crate) async fn scrape_pool_config(_: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let config = pool_config(&parts, &params)?;
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    object.text("yaml", &config.yaml);
    object.end();
    Ok(Success::new(data))
}

fn pool_config(parts: &Parts, params: &Params) -> Result<Arc<ScrapeConfig>, ApiError> {
    let pool = wanted(params, "scrapePool")?;
    parts.scrape.job(pool).ok_or_else(|| {
        ApiError::bad_data(format!("error retrieving scrape config: scrape pool {pool:?} not found"))
    })
}

/// A parameter that must be there.
fn wanted<'a>(params: &'a Params, name: &str) -> Result<&'a str, ApiError> {
    params
        .get(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| ApiError::bad_data(format!("no {name} parameter provided")))
}

/// `/targets/relabel_steps`: what each rule of a job does to a set of labels. (Prometheus 3.14; not in 3.5.)
pub(crate) async fn relabel_steps(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    app.pool.run(move || relabel_steps_page(&parts, &params)).await?
}

fn relabel_steps_page(parts: &Parts, params: &Params) -> ApiResult {
    wanted(params, "scrapePool")?;
    let labels = wanted(params, "labels")?;
    let labels: BTreeMap<String, String> = serde_json::from_str(labels)
        .map_err(|error| ApiError::bad_data(format!("error parsing labels: {error}")))?;
    let config = pool_config(parts, params)?;
    let labels = Labels::from_pairs(labels);
    let rules = &config.relabel_configs;
    let steps = relabel::process_steps(&labels, rules);
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    // Rules behind one that drops are listed too, with nothing to work on.
    let steps = rules.iter().enumerate().map(|(index, rule)| (rule, steps.get(index)));
    json::write_list(object.key("steps"), steps, |out, (rule, step)| {
        let mut object = Object::begin(out);
        write_rule(object.key("rule"), rule);
        let empty = Labels::empty();
        object
            .labels("output", step.map_or(&empty, |step| &step.output))
            .raw("keep", step.is_some_and(|step| step.keep));
        object.end();
    });
    object.end();
    Ok(Success::new(data))
}

/// A rule in the names of Prometheus' JSON; what is empty is left out.
fn write_rule(out: &mut String, rule: &RelabelConfig) {
    let mut object = Object::begin(out);
    if !rule.source_labels.is_empty() {
        json::write_strings(object.key("sourceLabels"), rule.source_labels.iter().map(String::as_str));
    }
    if !rule.separator.is_empty() {
        object.text("separator", &rule.separator);
    }
    object.text("regex", rule.regex.pattern());
    if rule.modulus != 0 {
        object.raw("modulus", rule.modulus);
    }
    for (name, text) in [("targetLabel", &rule.target_label), ("replacement", &rule.replacement)] {
        if !text.is_empty() {
            object.text(name, text);
        }
    }
    object.text("action", rule.action.as_str());
    object.end();
}

/// `/targets/body`: the last page of a target, as it came (ours). Nothing is kept before somebody asks, so the first request
/// waits for the next scrape.
pub(crate) async fn body(_: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    let (pool, url) = (wanted(&params, "scrapePool")?, wanted(&params, "scrapeUrl")?);
    let kept = parts.scrape.body(pool, url, Instant::now() + BODY_WAIT).await.map_err(|error| {
        let kind = match &error {
            NoBody::Pool(_) | NoBody::Target(..) | NoBody::Collector(_) => ErrorType::BadData,
            NoBody::TooMany => ErrorType::Busy,
            NoBody::NotYet => ErrorType::Timeout,
            _ => ErrorType::NotFound,
        };
        ApiError::new(kind, error.to_string())
    })?;
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    object
        .text("scrapePool", pool)
        .text("scrapeUrl", url)
        .text("lastScrape", &rfc3339(kept.t))
        .text("contentType", &kept.content_type)
        .raw("size", kept.size)
        .raw("truncated", kept.size > kept.bytes.len());
    // A text that was cut within a character is still text.
    match std::str::from_utf8(&kept.bytes) {
        Ok(text) => object.text("encoding", "utf-8").text("body", text),
        Err(error) if error.error_len().is_none() => {
            let text = String::from_utf8_lossy(&kept.bytes[..error.valid_up_to()]);
            object.text("encoding", "utf-8").text("body", &text)
        }
        Err(_) => {
            let text = base64::engine::general_purpose::STANDARD.encode(&kept.bytes);
            object.text("encoding", "base64").text("body", &text)
        }
    };
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
