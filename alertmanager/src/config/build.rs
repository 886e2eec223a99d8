//! From the configuration as written to the valid one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::config::PromDuration;
use model::{ConfigError, ConfigPath, MatchOp, Matcher, Secret};

use super::raw::{
    RawAlertmanagerConfig, RawGlobal, RawInhibitRule, RawInterval, RawRoute, RawTimeInterval, Text,
};
use super::receivers::ReceiverBuilder;
use super::{AlertmanagerConfig, BuildOptions, InhibitRuleConfig, SecretText, print};
use crate::interval::{self, TimeInterval, TimeIntervals};
use crate::matchers::{self, MatcherMode};
use crate::route::{GroupBy, Route};
use crate::template::{TemplateFile, Templates};

/// Deeper trees are a mistake, and walking them recursively has to end.
const ROUTE_DEPTH_MAX: usize = 64;
/// More files than anybody has; a glob that matches a whole disk is refused.
const TEMPLATE_FILES_MAX: usize = 1000;

/// What a step of building gives.
pub(super) type Built<T> = Result<T, ConfigError>;

impl RawAlertmanagerConfig {
    /// Checks the configuration; it stands at `path` in its file, relative files are looked for in `dir`.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn build(self, path: &ConfigPath, dir: &Path, options: BuildOptions) -> Built<AlertmanagerConfig> {
        let original = print::to_yaml(&self);
        let global = self.global.unwrap_or_default();
        let global_path = path.key("global");
        check_global(&global, &global_path)?;
        for (key, value) in [("tracing", &self.tracing), ("event_recorder", &self.event_recorder)] {
            if value.as_ref().is_some_and(|value| !value.0.is_null()) {
                return Err(ConfigError::new(&path.key(key), format!("{key} is not supported yet")));
            }
        }

        let templates = read_templates(&self.templates.unwrap_or_default(), &path.key("templates"), dir)?;
        let parsed = Templates::new(&templates).map_err(|e| ConfigError::new(&path.key("templates"), e))?;
        let builder = ReceiverBuilder { global: &global, global_path: &global_path, dir, templates: &parsed };
        let receivers = builder.build_all(self.receivers.unwrap_or_default(), &path.key("receivers"))?;

        let mut named = BTreeMap::new();
        let sections =
            [("time_intervals", self.time_intervals), ("mute_time_intervals", self.mute_time_intervals)];
        for (key, section) in sections {
            build_intervals(section.unwrap_or_default(), &path.key(key), &mut named)?;
        }
        let time_intervals = TimeIntervals::new(named);

        let route_path = path.key("route");
        let raw_route = self.route.ok_or_else(|| ConfigError::new(path, "no route provided"))?;
        check_root(&raw_route, &route_path)?;
        let mut tree = TreeBuilder {
            receivers: receivers.iter().map(|receiver| receiver.name.as_str()).collect(),
            intervals: &time_intervals,
            mode: options.matcher_mode,
            next_id: 0,
        };
        let route = tree.build(&raw_route, None, &route_path, 0)?;

        let mut inhibit_rules = Vec::new();
        for (index, rule) in self.inhibit_rules.unwrap_or_default().into_iter().enumerate() {
            let path = path.key("inhibit_rules").index(index);
            inhibit_rules.push(build_inhibit_rule(rule, &path, options.matcher_mode)?);
        }
        Ok(AlertmanagerConfig {
            resolve_timeout: global.resolve_timeout.map_or(Duration::from_secs(300), Duration::from),
            route,
            receivers,
            inhibit_rules,
            time_intervals,
            templates,
            matcher_mode: options.matcher_mode,
            original,
        })
    }
}

/// The text of a key; empty when it is not given.
pub(super) fn text(value: &Option<Text>) -> &str {
    value.as_ref().map_or("", |text| text.0.as_str())
}

/// Two keys of which one may be given; an empty value is none.
pub(super) fn either(
    path: &ConfigPath,
    (key, secret): (&str, Option<&Secret>),
    (file_key, file): (&str, Option<&PathBuf>),
    dir: &Path,
) -> Built<Option<SecretText>> {
    let secret = secret.filter(|secret| !secret.is_empty());
    let file = file.filter(|file| !file.as_os_str().is_empty());
    match (secret, file) {
        (Some(_), Some(_)) => Err(ConfigError::new(
            &path.key(file_key),
            format!("at most one of {key} & {file_key} must be configured"),
        )),
        (Some(secret), None) => Ok(Some(SecretText::Inline(secret.clone()))),
        (None, Some(file)) => Ok(Some(SecretText::File(dir.join(file)))),
        (None, None) => Ok(None),
    }
}

fn check_global(global: &RawGlobal, path: &ConfigPath) -> Built<()> {
    let pairs = [
        ("slack_api_url", &global.slack_api_url, "slack_api_url_file", &global.slack_api_url_file),
        ("slack_app_token", &global.slack_app_token, "slack_app_token_file", &global.slack_app_token_file),
        (
            "opsgenie_api_key",
            &global.opsgenie_api_key,
            "opsgenie_api_key_file",
            &global.opsgenie_api_key_file,
        ),
        (
            "victorops_api_key",
            &global.victorops_api_key,
            "victorops_api_key_file",
            &global.victorops_api_key_file,
        ),
        (
            "wechat_api_secret",
            &global.wechat_api_secret,
            "wechat_api_secret_file",
            &global.wechat_api_secret_file,
        ),
        (
            "telegram_bot_token",
            &global.telegram_bot_token,
            "telegram_bot_token_file",
            &global.telegram_bot_token_file,
        ),
        (
            "rocketchat_token",
            &global.rocketchat_token,
            "rocketchat_token_file",
            &global.rocketchat_token_file,
        ),
        (
            "rocketchat_token_id",
            &global.rocketchat_token_id,
            "rocketchat_token_id_file",
            &global.rocketchat_token_id_file,
        ),
        (
            "mattermost_webhook_url",
            &global.mattermost_webhook_url,
            "mattermost_webhook_url_file",
            &global.mattermost_webhook_url_file,
        ),
        (
            "smtp_auth_password",
            &global.smtp_auth_password,
            "smtp_auth_password_file",
            &global.smtp_auth_password_file,
        ),
        (
            "smtp_auth_secret",
            &global.smtp_auth_secret,
            "smtp_auth_secret_file",
            &global.smtp_auth_secret_file,
        ),
    ];
    for (key, secret, file_key, file) in pairs {
        either(path, (key, secret.as_ref()), (file_key, file.as_ref()), Path::new(""))?;
    }
    let urls = [
        ("slack_app_url", &global.slack_app_url),
        ("pagerduty_url", &global.pagerduty_url),
        ("opsgenie_api_url", &global.opsgenie_api_url),
        ("victorops_api_url", &global.victorops_api_url),
        ("wechat_api_url", &global.wechat_api_url),
        ("telegram_api_url", &global.telegram_api_url),
        ("webex_api_url", &global.webex_api_url),
        ("rocketchat_api_url", &global.rocketchat_api_url),
        ("jira_api_url", &global.jira_api_url),
    ];
    for (key, url) in urls {
        if let Some(url) = url {
            check_url(&url.0).map_err(|error| ConfigError::new(&path.key(key), error))?;
        }
    }
    Ok(())
}

/// Whether a text is an absolute http or https URL.
pub(super) fn check_url(text: &str) -> Result<(), String> {
    let url = url::Url::parse(text).map_err(|error| format!("invalid URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("unsupported scheme {:?} for URL", url.scheme()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("missing host for URL".to_owned());
    }
    Ok(())
}

fn read_templates(patterns: &[Text], path: &ConfigPath, dir: &Path) -> Built<Vec<TemplateFile>> {
    let mut files = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let error = |message: String| ConfigError::new(&path.index(index), message);
        let full = dir.join(&pattern.0);
        let found =
            glob::glob(&full.to_string_lossy()).map_err(|e| error(format!("invalid pattern: {e}")))?;
        for file in found {
            let file = file.map_err(|e| error(e.to_string()))?;
            if files.len() >= TEMPLATE_FILES_MAX {
                return Err(error(format!("more than {TEMPLATE_FILES_MAX} template files")));
            }
            let text = std::fs::read_to_string(&file)
                .map_err(|e| error(format!("could not read {}: {e}", file.display())))?;
            files.push(TemplateFile { name: file.display().to_string(), text });
        }
    }
    Ok(files)
}

// ---- routes ----

fn check_root(route: &RawRoute, path: &ConfigPath) -> Built<()> {
    let given = |list: &Option<Vec<Text>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let map_given = |map: &Option<BTreeMap<String, Text>>| map.as_ref().is_some_and(|map| !map.is_empty());
    if text(&route.receiver).is_empty() {
        return Err(ConfigError::new(path, "root route must specify a default receiver"));
    }
    let matching = [
        ("match", map_given(&route.match_)),
        ("match_re", map_given(&route.match_re)),
        ("matchers", given(&route.matchers)),
    ];
    for (key, given) in matching {
        if given {
            return Err(ConfigError::new(&path.key(key), "root route must not have any matchers"));
        }
    }
    if given(&route.mute_time_intervals) {
        let path = path.key("mute_time_intervals");
        return Err(ConfigError::new(&path, "root route must not have any mute time intervals"));
    }
    if given(&route.active_time_intervals) {
        let path = path.key("active_time_intervals");
        return Err(ConfigError::new(&path, "root route must not have any active time intervals"));
    }
    if route.continue_ == Some(true) {
        return Err(ConfigError::new(&path.key("continue"), "cannot have continue in root route"));
    }
    Ok(())
}

struct TreeBuilder<'a> {
    receivers: BTreeSet<&'a str>,
    intervals: &'a TimeIntervals,
    mode: MatcherMode,
    next_id: usize,
}

impl TreeBuilder<'_> {
    fn build(
        &mut self,
        raw: &RawRoute,
        parent: Option<&Route>,
        path: &ConfigPath,
        depth: usize,
    ) -> Built<Arc<Route>> {
        if depth > ROUTE_DEPTH_MAX {
            return Err(ConfigError::new(path, format!("routes are nested deeper than {ROUTE_DEPTH_MAX}")));
        }
        let receiver = match text(&raw.receiver) {
            "" => parent.map_or("", |parent| parent.receiver.as_str()),
            name => name,
        };
        if !self.receivers.contains(receiver) {
            let message = format!("undefined receiver {receiver:?} used in route");
            return Err(ConfigError::new(&path.key("receiver"), message));
        }
        let mut matchers = build_matchers(path, "", [&raw.match_, &raw.match_re], &raw.matchers, self.mode)?;
        matchers::sort(&mut matchers);
        let own_key = matchers::format_list(&matchers);
        let inherited = |own: Option<PromDuration>, of: fn(&Route) -> Duration, default: u64| {
            own.map(Duration::from).unwrap_or_else(|| parent.map_or(Duration::from_secs(default), of))
        };
        let mut labels = parent.map(|parent| parent.labels.clone()).unwrap_or_default();
        for (name, value) in raw.labels.iter().flatten() {
            labels.insert(name.clone(), value.0.clone());
        }
        for (key, interval) in
            [("group_interval", raw.group_interval), ("repeat_interval", raw.repeat_interval)]
        {
            if interval.is_some_and(|interval| interval.0.is_zero()) {
                return Err(ConfigError::new(&path.key(key), format!("{key} cannot be zero")));
            }
        }
        let mut route = Route {
            id: 0,
            key: parent.map_or(own_key.clone(), |parent| format!("{}/{own_key}", parent.key)),
            receiver: receiver.to_owned(),
            group_by: build_group_by(raw, parent, &path.key("group_by"))?,
            matchers,
            continue_: raw.continue_.unwrap_or(false),
            group_wait: inherited(raw.group_wait, |parent| parent.group_wait, 30),
            group_interval: inherited(raw.group_interval, |parent| parent.group_interval, 300),
            repeat_interval: inherited(raw.repeat_interval, |parent| parent.repeat_interval, 4 * 3600),
            mute_time_intervals: self
                .interval_names(&raw.mute_time_intervals, &path.key("mute_time_intervals"))?,
            active_time_intervals: self
                .interval_names(&raw.active_time_intervals, &path.key("active_time_intervals"))?,
            labels,
            routes: Vec::new(),
        };
        let mut children = Vec::new();
        for (index, child) in raw.routes.iter().flatten().enumerate() {
            children.push(self.build(child, Some(&route), &path.key("routes").index(index), depth + 1)?);
        }
        route.routes = children;
        route.id = self.next_id;
        self.next_id += 1;
        Ok(Arc::new(route))
    }

    fn interval_names(&self, names: &Option<Vec<Text>>, path: &ConfigPath) -> Built<Vec<String>> {
        let mut out = Vec::new();
        for (index, name) in names.iter().flatten().enumerate() {
            if !self.intervals.has(&name.0) {
                let message = format!("undefined time interval {:?} used in route", name.0);
                return Err(ConfigError::new(&path.index(index), message));
            }
            out.push(name.0.clone());
        }
        Ok(out)
    }
}

fn build_group_by(raw: &RawRoute, parent: Option<&Route>, path: &ConfigPath) -> Built<GroupBy> {
    let mut names = BTreeSet::new();
    let mut all = false;
    for (index, name) in raw.group_by.iter().flatten().enumerate() {
        let path = path.index(index);
        match name.0.as_str() {
            "..." => all = true,
            "" => return Err(ConfigError::new(&path, "invalid label name \"\" in group_by list")),
            label if !names.insert(label.to_owned()) => {
                return Err(ConfigError::new(&path, format!("duplicated label {label:?} in group_by")));
            }
            _ => {}
        }
    }
    if all && !names.is_empty() {
        let message = "cannot have wildcard group_by (`...`) and other labels at the same time";
        return Err(ConfigError::new(path, message));
    }
    Ok(match parent {
        _ if all => GroupBy::All,
        // An empty list is a list: one group. Only a route without the key takes its parent's.
        Some(parent) if raw.group_by.is_none() => parent.group_by.clone(),
        _ => GroupBy::Labels(names),
    })
}

/// The matchers of `match`, `match_re` and `matchers` (with a prefix: `source_match`, …) in this order.
fn build_matchers(
    path: &ConfigPath,
    prefix: &str,
    [equal, regex]: [&Option<BTreeMap<String, Text>>; 2],
    lines: &Option<Vec<Text>>,
    mode: MatcherMode,
) -> Built<Vec<Matcher>> {
    let mut matchers = Vec::new();
    for (key, map, op) in [("match", equal, MatchOp::Equal), ("match_re", regex, MatchOp::Regex)] {
        let path = path.key(format!("{prefix}{key}"));
        for (name, value) in map.iter().flatten() {
            if name.is_empty() {
                return Err(ConfigError::new(&path, "invalid label name \"\""));
            }
            // The deprecated form anchors the text itself, and that shows in route keys.
            let value = if op == MatchOp::Regex { format!("^(?:{})$", value.0) } else { value.0.clone() };
            let matcher = matchers::compile(op, name, &value)
                .map_err(|error| ConfigError::new(&path.key(name), error))?;
            matchers.push(matcher);
        }
    }
    let path = path.key(format!("{prefix}matchers"));
    for (index, line) in lines.iter().flatten().enumerate() {
        let parsed = mode.parse_list(&line.0).map_err(|e| ConfigError::new(&path.index(index), e))?;
        matchers.extend(parsed);
    }
    Ok(matchers)
}

fn build_inhibit_rule(raw: RawInhibitRule, path: &ConfigPath, mode: MatcherMode) -> Built<InhibitRuleConfig> {
    let mut equal = Vec::new();
    for (index, name) in raw.equal.unwrap_or_default().into_iter().enumerate() {
        if name.0.is_empty() {
            let path = path.key("equal").index(index);
            return Err(ConfigError::new(&path, "invalid label name \"\" in equal list"));
        }
        equal.push(name.0);
    }
    equal.sort();
    equal.dedup();
    let source = [&raw.source_match, &raw.source_match_re];
    let target = [&raw.target_match, &raw.target_match_re];
    Ok(InhibitRuleConfig {
        name: text(&raw.name).to_owned(),
        source: build_matchers(path, "source_", source, &raw.source_matchers, mode)?,
        target: build_matchers(path, "target_", target, &raw.target_matchers, mode)?,
        equal,
    })
}

// ---- time intervals ----

fn build_intervals(
    section: Vec<RawTimeInterval>,
    path: &ConfigPath,
    named: &mut BTreeMap<String, Vec<TimeInterval>>,
) -> Built<()> {
    for (index, raw) in section.into_iter().enumerate() {
        let path = path.index(index);
        let name = text(&raw.name).to_owned();
        if name.is_empty() {
            return Err(ConfigError::new(&path, "missing name in time interval"));
        }
        let mut intervals = Vec::new();
        for (index, interval) in raw.time_intervals.unwrap_or_default().iter().enumerate() {
            intervals.push(build_interval(interval, &path.key("time_intervals").index(index))?);
        }
        if named.insert(name.clone(), intervals).is_some() {
            return Err(ConfigError::new(&path.key("name"), format!("time interval {name:?} is not unique")));
        }
    }
    Ok(())
}

fn build_interval(raw: &RawInterval, path: &ConfigPath) -> Built<TimeInterval> {
    type Parse = fn(&str) -> Result<interval::Range, String>;
    let ranges = |key: &str, list: &Option<Vec<Text>>, parse: Parse| -> Built<Option<Vec<interval::Range>>> {
        let Some(list) = list.as_ref().filter(|list| !list.is_empty()) else { return Ok(None) };
        let mut ranges = Vec::new();
        for (index, text) in list.iter().enumerate() {
            let range = parse(&text.0);
            ranges.push(range.map_err(|error| ConfigError::new(&path.key(key).index(index), error))?);
        }
        Ok(Some(ranges))
    };
    let mut times = None;
    for (index, range) in raw.times.iter().flatten().enumerate() {
        let parsed = interval::parse_time_range(text(&range.start_time), text(&range.end_time))
            .map_err(|error| ConfigError::new(&path.key("times").index(index), error))?;
        times.get_or_insert_with(Vec::new).push(parsed);
    }
    let location = match text(&raw.location) {
        "" => None,
        name => Some(
            interval::parse_location(name).map_err(|error| ConfigError::new(&path.key("location"), error))?,
        ),
    };
    Ok(TimeInterval {
        times,
        weekdays: ranges("weekdays", &raw.weekdays, interval::parse_weekdays)?,
        days_of_month: ranges("days_of_month", &raw.days_of_month, interval::parse_days_of_month)?,
        months: ranges("months", &raw.months, interval::parse_months)?,
        years: ranges("years", &raw.years, interval::parse_years)?,
        location,
    })
}
