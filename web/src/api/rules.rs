//! `/rules`, `/alerts`, `/alertmanagers`.

use std::sync::Arc;

use model::Matcher;
use query::rules::{AlertStatus, RuleGroupStatus, RuleStatus, RuleStatusKind};
use sha2::{Digest as _, Sha256};

use super::status::rfc3339;
use super::{selectors, selects_something};
use crate::app::{App, Parts};
use crate::envelope::{ApiError, ApiResult, Success};
use crate::json::{self, Object};
use crate::params::{Params, parse_go_int};

/// Time of what never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Which rules are asked for.
struct Filter<'a> {
    alerting: bool,
    recording: bool,
    names: Vec<&'a str>,
    groups: Vec<&'a str>,
    files: Vec<&'a str>,
    selectors: Vec<Vec<Matcher>>,
    with_alerts: bool,
}

impl<'a> Filter<'a> {
    fn new(params: &'a Params) -> Result<Self, ApiError> {
        let kind = params.get("type").unwrap_or_default().to_lowercase();
        if !matches!(kind.as_str(), "" | "alert" | "record") {
            return Err(ApiError::parameter("type", format!("not supported value \"{kind}\"")));
        }
        let with_alerts = match params.get("exclude_alerts").map(str::to_lowercase).as_deref() {
            None | Some("false" | "0" | "f") => true,
            Some("true" | "1" | "t") => false,
            Some(other) => {
                let text = format!(
                    "error converting exclude_alerts: strconv.ParseBool: parsing {}: invalid syntax",
                    json::string(other)
                );
                return Err(ApiError::parameter("exclude_alerts", text));
            }
        };
        Ok(Self {
            alerting: kind != "record",
            recording: kind != "alert",
            names: params.all("rule_name[]").collect(),
            groups: params.all("rule_group[]").collect(),
            files: params.all("file[]").collect(),
            selectors: rule_selectors(params)?,
            with_alerts,
        })
    }

    fn accepts_group(&self, group: &RuleGroupStatus) -> bool {
        let is_named = |wanted: &[&str], name: &str| wanted.is_empty() || wanted.contains(&name);
        is_named(&self.groups, &group.name) && is_named(&self.files, &group.file)
    }

    fn accepts_rule(&self, rule: &RuleStatus) -> bool {
        let is_kind = match rule.kind {
            RuleStatusKind::Alerting { .. } => self.alerting,
            RuleStatusKind::Recording => self.recording,
        };
        let is_named = self.names.is_empty() || self.names.contains(&rule.name.as_str());
        let is_selected = self.selectors.is_empty()
            || self.selectors.iter().any(|matchers| Matcher::all_match(matchers, &rule.labels));
        is_kind && is_named && is_selected
    }
}

fn rule_selectors(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let selectors = selectors(params).map_err(ApiError::bad_data)?;
    if selectors.iter().all(|matchers| selects_something(matchers)) {
        return Ok(selectors);
    }
    Err(ApiError::bad_data("match[] must contain at least one non-empty matcher".to_owned()))
}

/// Which page of groups is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Page<'a> {
    /// Most groups; 0 means all.
    limit: usize,
    /// Token of the first group.
    from: Option<&'a str>,
}

impl<'a> Page<'a> {
    fn new(params: &'a Params) -> Result<Self, ApiError> {
        let limit = match params.get("group_limit") {
            None => 0,
            Some(text) => {
                let number = parse_go_int("ParseInt", text).map_err(|error| {
                    let text = format!("group_limit needs to be a valid number: {error}");
                    ApiError::parameter("group_limit", text)
                })?;
                usize::try_from(number).ok().filter(|limit| *limit > 0).ok_or_else(|| {
                    ApiError::parameter("group_limit", "group_limit needs to be greater than 0")
                })?
            }
        };
        let from = params.get("group_next_token");
        if limit == 0 && from.is_some() {
            return Err(ApiError::parameter(
                "group_next_token",
                "group_limit needs to be present in order to paginate over the groups",
            ));
        }
        Ok(Self { limit, from })
    }

    /// Where the page begins among all groups, whether the filter accepts them or not.
    fn start(&self, groups: &[RuleGroupStatus]) -> Result<usize, ApiError> {
        let Some(token) = self.from else { return Ok(0) };
        groups.iter().position(|group| group_token(group) == token).ok_or_else(|| {
            let text = format!("invalid group_next_token '{token}'. were rule groups changed?");
            ApiError::parameter("group_next_token", text)
        })
    }
}

/// The name of a group within paging, as Prometheus has it since 3.13.
fn group_token(group: &RuleGroupStatus) -> String {
    use std::fmt::Write as _;
    let mut token = String::with_capacity(64);
    for byte in Sha256::digest(format!("{};{}", group.file, group.name)) {
        write!(token, "{byte:02x}").expect("writing to a string cannot fail");
    }
    token
}

/// `/rules`
pub(crate) async fn rules(app: Arc<App>, parts: Parts, params: Params) -> ApiResult {
    // Thousands of alerts take longer to write than the reactor may wait.
    app.pool.run(move || rules_page(&parts, &params)).await?
}

fn rules_page(parts: &Parts, params: &Params) -> ApiResult {
    let filter = Filter::new(params)?;
    let page = Page::new(params)?;
    let mut groups = parts.rules.groups();
    groups.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
    let (groups, next) = select(groups, &filter, &page)?;
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    json::write_list(object.key("groups"), &groups, |out, group| write_group(out, group, filter.with_alerts));
    if let Some(token) = next {
        object.text("groupNextToken", &token);
    }
    object.end();
    Ok(Success::new(data))
}

/// The page's groups with what the filter leaves of them, and the token of the next page. Groups of which nothing is left
/// do not count.
fn select(
    mut groups: Vec<RuleGroupStatus>,
    filter: &Filter<'_>,
    page: &Page<'_>,
) -> Result<(Vec<RuleGroupStatus>, Option<String>), ApiError> {
    groups.drain(..page.start(&groups)?);
    groups.retain(|group| filter.accepts_group(group));
    for group in &mut groups {
        group.rules.retain(|rule| filter.accepts_rule(rule));
    }
    groups.retain(|group| !group.rules.is_empty());
    let next = groups.get(page.limit).filter(|_| page.limit > 0).map(group_token);
    if next.is_some() {
        groups.truncate(page.limit);
    }
    Ok((groups, next))
}

fn write_group(out: &mut String, group: &RuleGroupStatus, with_alerts: bool) {
    let mut object = Object::begin(out);
    object.text("name", &group.name).text("file", &group.file);
    json::write_list(object.key("rules"), &group.rules, |out, rule| write_rule(out, rule, with_alerts));
    object
        .number("interval", group.interval.as_secs_f64())
        .raw("limit", group.limit)
        .number("evaluationTime", group.evaluation_time.as_secs_f64())
        .text("lastEvaluation", &group.last_evaluation.map_or_else(|| NEVER.to_owned(), rfc3339));
    object.end();
}

fn write_rule(out: &mut String, rule: &RuleStatus, with_alerts: bool) {
    let mut object = Object::begin(out);
    match &rule.kind {
        RuleStatusKind::Alerting { state, hold, keep_firing_for, annotations, alerts } => {
            object
                .text("state", state.as_str())
                .text("name", &rule.name)
                .text("query", &rule.query)
                .number("duration", hold.as_secs_f64())
                .number("keepFiringFor", keep_firing_for.as_secs_f64())
                .labels("labels", &rule.labels)
                .labels("annotations", annotations);
            if with_alerts {
                json::write_list(object.key("alerts"), alerts, write_alert);
            } else {
                object.raw("alerts", "null");
            }
        }
        RuleStatusKind::Recording => {
            object.text("name", &rule.name).text("query", &rule.query);
            if !rule.labels.is_empty() {
                object.labels("labels", &rule.labels);
            }
        }
    }
    object.text("health", rule.health.as_str());
    if let Some(error) = &rule.last_error {
        object.text("lastError", error);
    }
    let kind = if matches!(rule.kind, RuleStatusKind::Recording) { "recording" } else { "alerting" };
    object
        .number("evaluationTime", rule.evaluation_time.as_secs_f64())
        .text("lastEvaluation", &rule.last_evaluation.map_or_else(|| NEVER.to_owned(), rfc3339))
        .text("type", kind);
    object.end();
}

fn write_alert(out: &mut String, alert: &AlertStatus) {
    let mut object = Object::begin(out);
    object
        .labels("labels", &alert.labels)
        .labels("annotations", &alert.annotations)
        .text("state", alert.state.as_str())
        .text("activeAt", &rfc3339(alert.active_at));
    if let Some(since) = alert.keep_firing_since {
        object.text("keepFiringSince", &rfc3339(since));
    }
    object.text("value", &model::float::format_exponent(alert.value));
    object.end();
}

/// `/alerts`
pub(crate) async fn alerts(app: Arc<App>, parts: Parts, _: Params) -> ApiResult {
    app.pool.run(move || Ok(alerts_page(&parts))).await?
}

fn alerts_page(parts: &Parts) -> Success {
    let groups = parts.rules.groups();
    let alerts = groups.iter().flat_map(|group| &group.rules).flat_map(|rule| match &rule.kind {
        RuleStatusKind::Alerting { alerts, .. } => alerts.as_slice(),
        RuleStatusKind::Recording => &[],
    });
    let mut data = String::new();
    let mut object = Object::begin(&mut data);
    json::write_list(object.key("alerts"), alerts, write_alert);
    object.end();
    Success::new(data)
}

/// `/alertmanagers`: external ones; the embedded one needs no address.
pub(crate) async fn alertmanagers(_: Arc<App>, _: Parts, _: Params) -> ApiResult {
    Ok(Success::new(r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::Labels;
    use query::rules::Health;

    use super::*;

    fn rule(name: &str, kind: RuleStatusKind) -> RuleStatus {
        RuleStatus {
            name: name.to_owned(),
            query: "up".to_owned(),
            labels: Labels::from_pairs([("team", name)]),
            health: Health::Good,
            last_error: None,
            evaluation_time: Duration::ZERO,
            last_evaluation: None,
            kind,
        }
    }

    fn group(file: &str, name: &str, rules: Vec<RuleStatus>) -> RuleGroupStatus {
        RuleGroupStatus {
            name: name.to_owned(),
            file: file.to_owned(),
            interval: Duration::from_secs(15),
            limit: 0,
            evaluation_time: Duration::ZERO,
            last_evaluation: None,
            rules,
        }
    }

    /// Four groups; the second has nothing.
    fn groups() -> Vec<RuleGroupStatus> {
        let recording = |name| rule(name, RuleStatusKind::Recording);
        vec![
            group("a.yml", "one", vec![recording("x"), recording("y")]),
            group("a.yml", "two", Vec::new()),
            group("b.yml", "one", vec![recording("x")]),
            group("b.yml", "three", vec![recording("z")]),
        ]
    }

    /// Groups with their number of rules, and the next page's token.
    type Answer = (Vec<(String, usize)>, Option<String>);

    fn ask(query: &str) -> Result<Answer, String> {
        let params = Params::new(Some(query), None);
        let answer = || {
            let filter = Filter::new(&params)?;
            select(groups(), &filter, &Page::new(&params)?)
        };
        let (groups, next) = answer().map_err(|error| error.text)?;
        let names = groups.iter().map(|group| (format!("{}/{}", group.file, group.name), group.rules.len()));
        Ok((names.collect(), next))
    }

    fn names(query: &str) -> Vec<String> {
        ask(query).unwrap().0.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn filters_leave_out_rules_and_groups_without_any() {
        assert_eq!(names(""), ["a.yml/one", "b.yml/one", "b.yml/three"]);
        assert_eq!(
            ask("rule_name[]=x").unwrap().0,
            [("a.yml/one".to_owned(), 1), ("b.yml/one".to_owned(), 1)]
        );
        assert_eq!(names("rule_name[]=x&file[]=b.yml"), ["b.yml/one"]);
        assert_eq!(names("rule_group[]=three"), ["b.yml/three"]);
        assert_eq!(names("match[]={team=%22z%22}&match[]={team=%22y%22}"), ["a.yml/one", "b.yml/three"]);
        assert_eq!(names("type=record").len(), 3);
        assert_eq!(names("type=alert").len(), 0);
    }

    #[test]
    fn pages_follow_each_other() {
        let mut query = "group_limit=1".to_owned();
        let mut seen = Vec::new();
        loop {
            let (page, next) = ask(&query).unwrap();
            assert_eq!(page.len(), 1);
            seen.extend(page.into_iter().map(|(name, _)| name));
            match next {
                Some(token) => query = format!("group_limit=1&group_next_token={token}"),
                None => break,
            }
        }
        assert_eq!(seen, ["a.yml/one", "b.yml/one", "b.yml/three"]);
        // SHA-256 of `b.yml;one`.
        let token = "d0c8de1b71abeb92ba49bdfdbd475757bba62bd10fb29260952160daaa92c226";
        assert_eq!(ask("group_limit=1").unwrap().1.as_deref(), Some(token));
        assert_eq!(ask("group_limit=3").unwrap().1, None);
    }

    #[test]
    fn wrong_pages_and_filters_are_refused() {
        let cases = [
            ("group_limit=0", "invalid parameter \"group_limit\": group_limit needs to be greater than 0"),
            (
                "group_limit=x",
                "invalid parameter \"group_limit\": group_limit needs to be a valid number: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "group_next_token=x",
                "invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups",
            ),
            (
                "group_limit=1&group_next_token=x",
                "invalid parameter \"group_next_token\": invalid group_next_token 'x'. were rule groups changed?",
            ),
            (
                "exclude_alerts=yes",
                "invalid parameter \"exclude_alerts\": error converting exclude_alerts: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            ("match[]={}", "match[] must contain at least one non-empty matcher"),
            ("type=x", "invalid parameter \"type\": not supported value \"x\""),
        ];
        for (query, text) in cases {
            assert_eq!(ask(query), Err(text.to_owned()), "{query}");
        }
    }
}
