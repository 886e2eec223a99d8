//! `/series`, `/labels`, `/label/<name>/values`, `/metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::storage::{LabelHints, Queryable, SelectHints, StorageError};
use model::{Annotations, Labels, Matcher, Metadata, TimeRange};

use super::{selectors, selects_something};
use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, Success};
use crate::json::{self, Object};
use crate::params::Params;

/// Warning when a limit cut the answer.
const TRUNCATED: &str = "results truncated due to limit";

/// `/series`: label sets of series that any of the selectors accepts.
pub(crate) async fn series(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    if let Some(error) = params.malformed() {
        return Err(ApiError::bad_data(format!("error parsing form values: {error}")));
    }
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = params.limit("limit")?;
    let range = params.time_range()?;
    let selectors = selectors(&params).map_err(|error| ApiError::parameter("match[]", error))?;
    if !selectors.iter().all(|matchers| selects_something(matchers)) {
        return Err(ApiError::parameter("match[]", "match[] must contain at least one non-empty matcher"));
    }
    app.pool
        .run(move || {
            let (found, truncated) = select_labels(&*parts.storage, range, &selectors, limit)?;
            let mut data = String::with_capacity(found.len() * 128);
            json::write_list(&mut data, &found, json::write_labels);
            let mut answer = Success::new(data);
            if truncated {
                answer.annotations.warn(TRUNCATED);
            }
            Ok(answer)
        })
        .await?
}

/// Distinct label sets in order, at most `limit` (0: all), and whether a warning is due. Prometheus cuts a single
/// selector's series within storage, silently; only what several selectors give together is cut with a warning.
fn select_labels(
    storage: &dyn Queryable,
    range: TimeRange,
    selectors: &[Vec<Matcher>],
    limit: usize,
) -> Result<(BTreeSet<Labels>, bool), StorageError> {
    let querier = storage.querier(range)?;
    let hints = SelectHints { func: "series".to_owned(), limit, sorted: true, ..SelectHints::default() };
    let mut found = BTreeSet::new();
    for matchers in selectors {
        let set = querier.select(matchers, &hints)?;
        let wanted = if limit == 0 { set.len() } else { set.len().min(limit) };
        found.extend((0..wanted).map(|index| set.labels(index)));
    }
    let truncated = limit > 0 && found.len() > limit;
    while limit > 0 && found.len() > limit {
        found.pop_last();
    }
    Ok((found, truncated))
}

/// `/labels`: names of labels.
pub(crate) async fn labels(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    list(app, parts, params, None).await
}

/// `/label/<name>/values`. `name` is decoded from the path, so any bytes.
pub(crate) async fn label_values(app: Arc<App>, parts: Parts, name: Vec<u8>, params: Params) -> ApiResult {
    let name = match String::from_utf8(name) {
        Ok(name) => unescape(&name),
        Err(error) => {
            return Err(ApiError::bad_data(format!("invalid label name: {}", go_quoted(error.as_bytes()))));
        }
    };
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    list(app, parts, params, Some(name)).await
}

async fn list(app: Arc<App>, parts: Parts, params: Params, name: Option<String>) -> ApiResult {
    let limit = params.limit("limit")?;
    let range = params.time_range()?;
    let selectors = selectors(&params).map_err(ApiError::bad_data)?;
    if !selectors.iter().all(|matchers| selects_something(matchers)) {
        return Err(ApiError::bad_data("match[] must contain at least one non-empty matcher"));
    }
    app.pool
        .run(move || {
            let querier = parts.storage.querier(range)?;
            // One more than wanted tells whether there are more, over all selectors together.
            let hints = LabelHints { limit: if limit == 0 { 0 } else { limit + 1 } };
            let mut items = BTreeSet::new();
            let mut annotations = Annotations::new();
            let no_selector = [Vec::new()];
            for matchers in if selectors.is_empty() { &no_selector[..] } else { &selectors[..] } {
                let found = match &name {
                    Some(name) => querier.label_values(name, matchers, &hints)?,
                    None => querier.label_names(matchers, &hints)?,
                };
                annotations.merge(&found.annotations);
                items.extend(found.items);
            }
            if limit > 0 && items.len() > limit {
                annotations.warn(TRUNCATED);
                while items.len() > limit {
                    items.pop_last();
                }
            }
            let mut data = String::new();
            json::write_strings(&mut data, items.iter().map(String::as_str));
            Ok(Success { data, annotations, ..Success::default() })
        })
        .await?
}

/// Go's `%q` of bytes that are no UTF-8.
fn go_quoted(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = json::string(chunk.valid());
        out.push_str(&quoted[1..quoted.len() - 1]);
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    out.push('"');
    out
}

/// `U__` escaping of label names in paths: `_xHHHH_` for anything not allowed, `__` for `_` (Prometheus' `ValueEncoding`).
fn unescape(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let code = tail.find('_').map(|end| (&tail[..end], &tail[end + 1..]));
        let decoded = code.and_then(|(digits, after)| {
            // Prometheus' decoder takes five digits at most: the sixth place is the underscore's.
            let is_code = digits.len() <= 5 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let point = u32::from_str_radix(digits, 16).ok().filter(|_| is_code)?;
            Some((char::from_u32(point)?, after))
        });
        // What is not an escape is taken as it is, all of it.
        let Some((character, after)) = decoded else { return name.to_owned() };
        out.push(character);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// `/metadata`: type, unit and help of metric families of active targets.
pub(crate) async fn metadata(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    app.pool.run(move || metadata_page(&parts, &params)).await?
}

fn metadata_page(parts: &Parts, params: &Params) -> ApiResult {
    let limit = signed_limit(params, "limit")?;
    // 0 means none here, unlike for `limit`: so it is in Prometheus.
    let limit_per_metric = signed_limit(params, "limit_per_metric")?.filter(|max| *max > 0);
    let metric = params.get("metric");
    let mut families: BTreeMap<String, Vec<Metadata>> = BTreeMap::new();
    for target in parts.scrape.metadata() {
        for (name, metadata) in
            target.families.iter().filter(|(name, _)| metric.is_none_or(|wanted| wanted == name))
        {
            let known = families.entry(name.clone()).or_default();
            if !known.contains(metadata) && limit_per_metric.is_none_or(|max| known.len() < max) {
                known.push(metadata.clone());
            }
        }
    }
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    for (name, known) in families.iter().take(limit.unwrap_or(usize::MAX)) {
        json::write_list(object.key(name), known, write_metadata);
    }
    object.end();
    Ok(Success::new(data))
}

fn write_metadata(out: &mut String, metadata: &Metadata) {
    let mut object = Object::begin(out);
    object.text("type", metadata.kind.as_str()).text("help", &metadata.help).text("unit", &metadata.unit);
    object.end();
}

/// Limits of metadata requests: negative or absent means none, 0 means nothing is wanted.
pub(crate) fn signed_limit(params: &Params, name: &str) -> Result<Option<usize>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let number: i64 = text.parse().map_err(|_| ApiError::bad_data(format!("{name} must be a number")))?;
    Ok(usize::try_from(number).ok())
}

/// The matchers that `/targets/metadata?match_target=` means: a selector on target labels.
pub(crate) fn target_matchers(params: &Params) -> Result<Vec<Matcher>, ApiError> {
    match params.get("match_target") {
        None => Ok(Vec::new()),
        Some(text) => {
            query::parse::parse_selector(text).map_err(|error| ApiError::parameter("match_target", error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_read_back() {
        let cases = [
            ("job", "job"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___1f600_x", "😀x"),
            ("U__bad_zz_x", "U__bad_zz_x"),
            ("U__end_", "U__end_"),
            ("U___+41_", "U___+41_"),
            ("U___10ffff_", "U___10ffff_"),
            ("U___d800_", "U___d800_"),
            ("é", "é"),
        ];
        for (escaped, name) in cases {
            assert_eq!(unescape(escaped), name);
        }
    }

    #[test]
    fn names_of_no_text_are_quoted_as_go_does() {
        assert_eq!(go_quoted(b"a\"\xff\xc3\xa9"), r#""a\"\xff\u{e9}""#.replace("\\u{e9}", "é"));
    }
}
