//! Prints the configuration back as YAML, defaults filled in and secrets masked: what `/api/v2/status` shows and what
//! `amtool config routes` reads again.
//!
//! Built from the configuration as written, because routes inherit: what the file does not say is not printed for
//! routes. Values of keys that may hold a secret are never looked at here.

use std::collections::BTreeMap;

use model::config::{PromDuration, SECRET_MASK};
use serde_yaml::{Mapping, Value};

use super::print_http::print_http;
use super::raw::{
    RawAlertmanagerConfig, RawEmail, RawGlobal, RawInhibitRule, RawInterval, RawReceiver, RawRoute,
    RawTimeInterval, RawWebhook, Text,
};
use super::receivers::{DEFAULT_HTML, DEFAULT_SUBJECT, canonical_header};
use crate::matchers::{self, MatcherMode};

/// The configuration as YAML.
pub(super) fn to_yaml(raw: &RawAlertmanagerConfig) -> String {
    let default = RawGlobal::default();
    let global = raw.global.as_ref().unwrap_or(&default);
    let mut out = Printer::default();
    out.put("global", print_global(global));
    if let Some(route) = &raw.route {
        out.put("route", print_route(route));
    }
    out.list("inhibit_rules", &raw.inhibit_rules, print_inhibit_rule);
    out.list("receivers", &raw.receivers, |receiver| print_receiver(receiver, global));
    let templates = raw.templates.iter().flatten().map(|text| Value::from(text.0.as_str())).collect();
    out.put("templates", Value::Sequence(templates));
    out.list("mute_time_intervals", &raw.mute_time_intervals, print_time_interval);
    out.list("time_intervals", &raw.time_intervals, print_time_interval);
    // Maps of strings and lists always have a YAML form.
    serde_yaml::to_string(&out.done()).unwrap_or_default()
}

#[derive(Default)]
pub(super) struct Printer(Mapping);

impl Printer {
    pub(super) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(Value::from(key), value.into());
    }

    fn text(&mut self, key: &str, text: &Option<Text>) {
        if let Some(text) = text.as_ref().filter(|text| !text.0.is_empty()) {
            self.put(key, text.0.as_str());
        }
    }

    fn texts(&mut self, key: &str, texts: &Option<Vec<Text>>) {
        if let Some(texts) = texts.as_ref().filter(|texts| !texts.is_empty()) {
            let texts = texts.iter().map(|text| Value::from(text.0.as_str())).collect();
            self.put(key, Value::Sequence(texts));
        }
    }

    fn map(&mut self, key: &str, map: &Option<BTreeMap<String, Text>>) {
        if let Some(map) = map.as_ref().filter(|map| !map.is_empty()) {
            let mut inner = Self::default();
            for (name, value) in map {
                inner.put(name, value.0.as_str());
            }
            self.put(key, inner.done());
        }
    }

    fn matchers(&mut self, key: &str, lines: &Option<Vec<Text>>) {
        let parsed = lines.iter().flatten().flat_map(|line| {
            let matchers = MatcherMode::Fallback.parse_list(&line.0).unwrap_or_default();
            matchers.iter().map(|matcher| Value::from(matchers::format_one(matcher))).collect::<Vec<_>>()
        });
        let parsed: Vec<Value> = parsed.collect();
        if !parsed.is_empty() {
            self.put(key, Value::Sequence(parsed));
        }
    }

    fn duration(&mut self, key: &str, duration: Option<PromDuration>) {
        if let Some(duration) = duration {
            self.put(key, duration.to_string());
        }
    }

    pub(super) fn secret(&mut self, key: &str, given: bool) {
        if given {
            self.put(key, SECRET_MASK);
        }
    }

    pub(super) fn path(&mut self, key: &str, path: &Option<std::path::PathBuf>) {
        if let Some(path) = path {
            self.put(key, path.display().to_string());
        }
    }

    fn list<T>(&mut self, key: &str, items: &Option<Vec<T>>, print: impl Fn(&T) -> Value) {
        if let Some(items) = items.as_ref().filter(|items| !items.is_empty()) {
            self.put(key, Value::Sequence(items.iter().map(print).collect()));
        }
    }

    pub(super) fn done(self) -> Value {
        Value::Mapping(self.0)
    }
}

fn print_global(global: &RawGlobal) -> Value {
    let mut out = Printer::default();
    out.duration("resolve_timeout", Some(global.resolve_timeout.unwrap_or(PromDuration::from_secs(300))));
    out.put("http_config", print_http(&global.http_config.clone().unwrap_or_default()));
    out.text("smtp_from", &global.smtp_from);
    out.put("smtp_hello", global.smtp_hello.as_ref().map_or("localhost", |hello| hello.0.as_str()));
    out.text("smtp_smarthost", &global.smtp_smarthost);
    out.text("smtp_auth_username", &global.smtp_auth_username);
    out.secret("smtp_auth_password", global.smtp_auth_password.is_some());
    out.path("smtp_auth_password_file", &global.smtp_auth_password_file);
    out.secret("smtp_auth_secret", global.smtp_auth_secret.is_some());
    out.path("smtp_auth_secret_file", &global.smtp_auth_secret_file);
    out.text("smtp_auth_identity", &global.smtp_auth_identity);
    out.put("smtp_require_tls", global.smtp_require_tls.unwrap_or(true));
    out.done()
}

fn print_route(route: &RawRoute) -> Value {
    let mut out = Printer::default();
    out.text("receiver", &route.receiver);
    out.texts("group_by", &route.group_by);
    out.map("match", &route.match_);
    out.map("match_re", &route.match_re);
    out.matchers("matchers", &route.matchers);
    out.texts("mute_time_intervals", &route.mute_time_intervals);
    out.texts("active_time_intervals", &route.active_time_intervals);
    out.put("continue", route.continue_.unwrap_or(false));
    out.list("routes", &route.routes, print_route);
    out.duration("group_wait", route.group_wait);
    out.duration("group_interval", route.group_interval);
    out.duration("repeat_interval", route.repeat_interval);
    out.map("labels", &route.labels);
    out.done()
}

fn print_inhibit_rule(rule: &RawInhibitRule) -> Value {
    let mut out = Printer::default();
    out.text("name", &rule.name);
    out.map("source_match", &rule.source_match);
    out.map("source_match_re", &rule.source_match_re);
    out.matchers("source_matchers", &rule.source_matchers);
    out.map("target_match", &rule.target_match);
    out.map("target_match_re", &rule.target_match_re);
    out.matchers("target_matchers", &rule.target_matchers);
    out.texts("equal", &rule.equal);
    out.done()
}

fn print_time_interval(interval: &RawTimeInterval) -> Value {
    let mut out = Printer::default();
    out.text("name", &interval.name);
    out.list("time_intervals", &interval.time_intervals, print_interval);
    out.done()
}

fn print_interval(interval: &RawInterval) -> Value {
    let mut out = Printer::default();
    out.list("times", &interval.times, |times| {
        let mut inner = Printer::default();
        inner.text("start_time", &times.start_time);
        inner.text("end_time", &times.end_time);
        inner.done()
    });
    out.texts("weekdays", &interval.weekdays);
    out.texts("days_of_month", &interval.days_of_month);
    out.texts("months", &interval.months);
    out.texts("years", &interval.years);
    out.text("location", &interval.location);
    out.done()
}

fn print_receiver(receiver: &RawReceiver, global: &RawGlobal) -> Value {
    let mut out = Printer::default();
    out.text("name", &receiver.name);
    out.map("labels", &receiver.labels);
    out.list("webhook_configs", &receiver.webhook_configs, |webhook| print_webhook(webhook, global));
    out.list("email_configs", &receiver.email_configs, |email| print_email(email, global));
    out.done()
}

fn print_webhook(webhook: &RawWebhook, global: &RawGlobal) -> Value {
    let mut out = Printer::default();
    out.put("send_resolved", webhook.send_resolved.unwrap_or(true));
    let http = webhook.http_config.as_ref().or(global.http_config.as_ref());
    out.put("http_config", print_http(&http.cloned().unwrap_or_default()));
    out.secret("url", webhook.url.is_some());
    out.path("url_file", &webhook.url_file);
    out.put("max_alerts", webhook.max_alerts.unwrap_or(0));
    out.duration("timeout", Some(webhook.timeout.unwrap_or_default()));
    // A payload may hold keys of other services: that it exists is all that is shown.
    out.secret("payload", webhook.payload.is_some());
    out.done()
}

fn print_email(email: &RawEmail, global: &RawGlobal) -> Value {
    let mut out = Printer::default();
    let or = |own: &Option<Text>, global: &Option<Text>| own.clone().or_else(|| global.clone());
    out.put("send_resolved", email.send_resolved.unwrap_or(false));
    out.text("to", &email.to);
    let from = or(&email.from, &global.smtp_from);
    out.text("from", &from);
    out.text("hello", &or(&email.hello, &global.smtp_hello).or_else(|| Some(Text("localhost".to_owned()))));
    out.text("smarthost", &or(&email.smarthost, &global.smtp_smarthost));
    out.text("auth_username", &or(&email.auth_username, &global.smtp_auth_username));
    out.secret("auth_password", email.auth_password.is_some() || global.smtp_auth_password.is_some());
    out.path("auth_password_file", &email.auth_password_file);
    out.secret("auth_secret", email.auth_secret.is_some() || global.smtp_auth_secret.is_some());
    out.path("auth_secret_file", &email.auth_secret_file);
    out.text("auth_identity", &or(&email.auth_identity, &global.smtp_auth_identity));
    let mut headers = BTreeMap::from([("Subject".to_owned(), Text(DEFAULT_SUBJECT.to_owned()))]);
    headers.insert("To".to_owned(), email.to.clone().unwrap_or_default());
    headers.insert("From".to_owned(), from.unwrap_or_default());
    for (name, value) in email.headers.iter().flatten() {
        headers.insert(canonical_header(name), value.clone());
    }
    out.map("headers", &Some(headers));
    out.text("html", &email.html.clone().or_else(|| Some(Text(DEFAULT_HTML.to_owned()))));
    out.text("text", &email.text);
    out.put("require_tls", email.require_tls.or(global.smtp_require_tls).unwrap_or(true));
    out.done()
}
