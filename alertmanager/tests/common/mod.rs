//! A world for scenarios: an Alertmanager whose time stands under the test's control, and a recorder in place of
//! receivers that answers as told and writes down what it is sent as one line each.

#![allow(dead_code, reason = "each test program uses its part")]
#![expect(clippy::unwrap_used, reason = "a test world that cannot be set up ends the test")]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alertmanager::alert::IncomingAlert;
use alertmanager::api::{AlertFilter, GettableAlert};
use alertmanager::config::{IntegrationConfig, SecretText};
use alertmanager::notify::{
    FailureReason, Integration, IntegrationFactory, Notification, NotifyError, webhook,
};
use alertmanager::random::SeededRandom;
use alertmanager::template::Templates;
use alertmanager::template::data::Data;
use alertmanager::{
    Alertmanager, AlertmanagerConfig, Deps, Options, SilenceError, SilenceRequest, matchers::MatcherMode,
};
use futures_util::future::BoxFuture;
use model::Clock;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::time::Instant;

/// When every scenario begins: 2023-11-14T22:13:20Z, a Tuesday.
pub(crate) const BASE_MS: i64 = 1_700_000_000_000;

/// A wall clock that follows tokio's paused time.
#[derive(Debug)]
pub(crate) struct PausedClock {
    start: Instant,
}

impl PausedClock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for PausedClock {
    fn now_ms(&self) -> i64 {
        BASE_MS + self.start.elapsed().as_millis() as i64
    }
}

/// How a sink answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    Ok,
    /// With this HTTP status.
    Status(u16),
    Refused,
    Hang,
    /// After so many seconds, well.
    Slow(f64),
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// `1.0 a firing A{i=1} (first notification)`
    pub(crate) lines: Mutex<Vec<String>>,
    pub(crate) bodies: Mutex<Vec<serde_json::Value>>,
    pub(crate) answers: Mutex<HashMap<String, Answer>>,
}

#[derive(Debug)]
struct RecordingFactory {
    recorder: Arc<Recorder>,
    start: Instant,
}

impl IntegrationFactory for RecordingFactory {
    fn build(
        &self,
        config: &IntegrationConfig,
        templates: &Arc<Templates>,
    ) -> Result<Box<dyn Integration>, String> {
        let IntegrationConfig::Webhook(webhook) = config else { return Err("only webhooks".to_owned()) };
        let SecretText::Inline(url) = &webhook.url else { return Err("no file".to_owned()) };
        let sink = url.expose().rsplit('/').next().unwrap().to_owned();
        let max_alerts = webhook.max_alerts as usize;
        let (recorder, templates, start) = (Arc::clone(&self.recorder), Arc::clone(templates), self.start);
        Ok(Box::new(Recording { sink, recorder, templates, start, max_alerts }))
    }
}

#[derive(Debug)]
struct Recording {
    sink: String,
    recorder: Arc<Recorder>,
    templates: Arc<Templates>,
    start: Instant,
    max_alerts: usize,
}

impl Integration for Recording {
    fn notify<'a>(&'a self, notification: &'a Notification) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move {
            let data = Data::of(notification, &notification.alerts, "http://am.example", &self.templates);
            let body = webhook::body(notification, &data, 0).unwrap();
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            let alerts: Vec<String> = body["alerts"].as_array().unwrap().iter().map(describe).collect();
            let answer = self.recorder.answers.lock().get(&self.sink).copied().unwrap_or(Answer::Ok);
            let failed = match answer {
                Answer::Ok | Answer::Slow(_) => String::new(),
                other => format!(" {other:?}"),
            };
            self.recorder.lines.lock().push(format!(
                "{:.1} {} {} {} ({}){failed}",
                self.start.elapsed().as_secs_f64(),
                self.sink,
                body["status"].as_str().unwrap(),
                alerts.join(" "),
                body["notification_reason"].as_str().unwrap(),
            ));
            self.recorder.bodies.lock().push(body);
            match answer {
                Answer::Ok => Ok(()),
                Answer::Slow(seconds) => {
                    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                    Ok(())
                }
                Answer::Hang => std::future::pending().await,
                Answer::Refused => Err(NotifyError::retryable("connection refused")),
                Answer::Status(status) => Err(NotifyError {
                    message: format!("unexpected status code {status}"),
                    retry: status >= 500,
                    reason: if status >= 500 {
                        FailureReason::ServerError
                    } else {
                        FailureReason::ClientError
                    },
                }),
            }
        })
    }
}

/// `A{i=1}`, a resolved one with a minus before it.
fn describe(alert: &serde_json::Value) -> String {
    let labels = alert["labels"].as_object().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let others: Vec<String> = labels
        .iter()
        .filter(|(name, _)| *name != "alertname")
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    let sign = if alert["status"] == "resolved" { "-" } else { "" };
    let name = labels.get("alertname").map(text).unwrap_or_default();
    if others.is_empty() { format!("{sign}{name}") } else { format!("{sign}{name}{{{}}}", others.join(",")) }
}

/// A running Alertmanager.
pub(crate) struct World {
    pub(crate) am: Arc<Alertmanager>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) clock: Arc<PausedClock>,
    pub(crate) registry: Registry,
    pub(crate) options: Options,
    state_dir: Option<PathBuf>,
    start: Instant,
}

pub(crate) fn config(yaml: &str) -> AlertmanagerConfig {
    AlertmanagerConfig::parse(yaml, Path::new(".")).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

impl World {
    pub(crate) async fn new(yaml: &str) -> Self {
        Self::with(yaml, None, Options::default()).await
    }

    pub(crate) async fn with(yaml: &str, state_dir: Option<&Path>, options: Options) -> Self {
        let start = Instant::now();
        let clock = Arc::new(PausedClock::new());
        let recorder = Arc::new(Recorder::default());
        let registry = Registry::new();
        let state_dir = state_dir.map(Path::to_owned);
        let deps = deps(&clock, &recorder, &registry, state_dir.clone(), options.clone(), start);
        let am = Alertmanager::start(config(yaml), deps).await.unwrap();
        Self { am, recorder, clock, registry, options, state_dir, start }
    }

    /// Starts again on the same state; alerts are forgotten, as in a restart. `kill`: on a copy of what is on disk at
    /// this moment, without a word to the old one.
    pub(crate) async fn restart(&mut self, yaml: &str, kill: Option<&Path>) {
        match (kill, &self.state_dir) {
            (Some(copy), Some(dir)) => {
                copy_dir(dir, copy);
                // The old one goes on in the background of the test: its lines would be in the way.
                self.recorder = Arc::new(Recorder::default());
                self.state_dir = Some(copy.to_owned());
            }
            _ => {
                self.am.stop().await;
            }
        }
        self.registry = Registry::new();
        let deps = deps(
            &self.clock,
            &self.recorder,
            &self.registry,
            self.state_dir.clone(),
            self.options.clone(),
            self.start,
        );
        self.am = Alertmanager::start(config(yaml), deps).await.unwrap();
    }

    pub(crate) async fn reload(&self, yaml: &str) {
        self.am.reload(config(yaml)).await.unwrap();
    }

    /// Lets time pass until `seconds` after the start.
    pub(crate) async fn at(&self, seconds: f64) {
        tokio::time::sleep_until(self.start + Duration::from_secs_f64(seconds)).await;
    }

    /// Posts alerts: `A{i=1,job=x} starts=-60 ends=4`; times are seconds from now.
    pub(crate) fn post(&self, specs: &[&str]) {
        let report = self.am.put(specs.iter().map(|spec| incoming(spec, self.clock.now_ms())).collect());
        assert_eq!(report.errors, Vec::<String>::new());
    }

    /// Posts alerts that end now.
    pub(crate) fn resolve(&self, specs: &[&str]) {
        let specs: Vec<String> = specs.iter().map(|spec| format!("{spec} starts=none ends=0")).collect();
        self.post(&specs.iter().map(String::as_str).collect::<Vec<_>>());
    }

    pub(crate) fn answer(&self, sink: &str, answer: Answer) {
        self.recorder.answers.lock().insert(sink.to_owned(), answer);
    }

    /// What was sent since the last call.
    pub(crate) fn sent(&self) -> Vec<String> {
        std::mem::take(&mut *self.recorder.lines.lock())
    }

    pub(crate) async fn silence(&self, matchers: &str, seconds: f64) -> String {
        self.try_silence("", matchers, 0.0, seconds, "c").await.unwrap()
    }

    pub(crate) async fn try_silence(
        &self,
        id: &str,
        matchers: &str,
        from: f64,
        until: f64,
        comment: &str,
    ) -> Result<String, SilenceError> {
        let ms = |seconds: f64| BASE_MS + (seconds * 1000.0) as i64;
        let request = SilenceRequest {
            id: id.to_owned(),
            matchers: MatcherMode::Fallback.parse_list(matchers).unwrap(),
            starts_at: Some(ms(from)),
            ends_at: ms(until),
            created_by: "test".to_owned(),
            comment: comment.to_owned(),
            annotations: BTreeMap::new(),
        };
        self.am.set_silence(request).await
    }

    pub(crate) fn alerts(&self) -> Vec<GettableAlert> {
        self.am.alerts(&AlertFilter::default())
    }

    /// `A active`, `B suppressed inhibited by …`
    pub(crate) fn states(&self) -> Vec<String> {
        let state = |alert: &GettableAlert| {
            let labels: Vec<String> = alert.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let status = &alert.status;
            let by = [("silenced", status.silenced_by.len()), ("inhibited", status.inhibited_by.len())];
            let by: String = by.iter().filter(|(_, n)| *n > 0).map(|(by, n)| format!(" {by}:{n}")).collect();
            format!("{} {}{by}", labels.join(","), status.state)
        };
        let mut states: Vec<String> = self.alerts().iter().map(state).collect();
        states.sort();
        states
    }

    /// The value of a metric with these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family =
            families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        let has = |metric: &&prometheus::proto::Metric| {
            labels
                .iter()
                .all(|(n, v)| metric.get_label().iter().any(|pair| pair.name() == *n && pair.value() == *v))
        };
        let metric =
            family.get_metric().iter().find(has).unwrap_or_else(|| panic!("no {name} with {labels:?}"));
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }
}

fn deps(
    clock: &Arc<PausedClock>,
    recorder: &Arc<Recorder>,
    registry: &Registry,
    state_dir: Option<PathBuf>,
    options: Options,
    start: Instant,
) -> Deps {
    Deps {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        random: Arc::new(SeededRandom::new(1)),
        registry: registry.clone(),
        state_dir,
        external_url: "http://am.example/".to_owned(),
        cluster: None,
        integrations: Some(Arc::new(RecordingFactory { recorder: Arc::clone(recorder), start })),
        options,
    }
}

pub(crate) fn incoming(spec: &str, now: i64) -> IncomingAlert {
    let (identity, rest) = spec.split_once(' ').unwrap_or((spec, ""));
    let (name, labels) = identity.split_once('{').unwrap_or((identity, "}"));
    let mut alert = IncomingAlert { starts_at: Some(now), ..IncomingAlert::default() };
    if !name.is_empty() {
        alert.labels.insert("alertname".to_owned(), name.to_owned());
    }
    for pair in labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        alert.labels.insert(name.to_owned(), value.to_owned());
    }
    let time = |text: &str| (text != "none").then(|| now + (text.parse::<f64>().unwrap() * 1000.0) as i64);
    for word in rest.split_whitespace() {
        match word.split_once('=').unwrap() {
            ("starts", text) => alert.starts_at = time(text),
            ("ends", text) => alert.ends_at = time(text),
            (key, text) => {
                let name = key.strip_prefix("a.").unwrap_or_else(|| panic!("{word}"));
                alert.annotations.insert(name.to_owned(), text.to_owned());
            }
        }
    }
    alert
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
