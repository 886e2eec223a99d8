//! The Alertmanager as a whole: start, reload, stop, and what the API asks.
//!
//! Alerts, silences and the notification log outlive reloads. Everything that a configuration says lives in a
//! [`Generation`]; a reload builds a new one completely, drains the old one, swaps, and hands all known alerts to it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{AlertSink, Clock, Labels, Matcher};
use parking_lot::RwLock;
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::alert::{IncomingAlert, StoredAlert, label_set_order, notification_order};
use crate::api::{
    AlertFilter, AlertGroup, AlertStatus, ApiError, ApiTime, ClusterStatus, ConfigText, GettableAlert,
    GettableSilence, ReceiverName, ReceiverView, SilenceFilter, Status, VersionInfo,
};
use crate::config::{AlertmanagerConfig, ReceiverConfig};
use crate::dispatch::{Dispatcher, GroupView};
use crate::inhibit::Inhibitor;
use crate::metrics::Metrics;
use crate::nflog::{IntegrationKey, NotificationLog};
use crate::notify::{IntegrationFactory, StandardIntegrations};
use crate::pipeline::{ATTEMPTS_MAX, Alone, Cluster, IntegrationSlot, Pipeline};
use crate::provider::{AlertLimits, Provider};
use crate::random::Random;
use crate::silence::{SilenceError, SilenceLimits, SilenceRequest, Silences};
use crate::state::{StateError, StateStore};
use crate::template::Templates;

/// Settings that are flags, not keys of the configuration file.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long expired silences and notifications are remembered (`--data.retention`).
    pub retention: Duration,
    /// How often the state is cleaned up (`--data.maintenance-interval`).
    pub maintenance_interval: Duration,
    /// How often resolved alerts are forgotten (`--alerts.gc-interval`).
    pub alert_gc_interval: Duration,
    /// Limits on alerts.
    pub alert_limits: AlertLimits,
    /// Limits on silences.
    pub silence_limits: SilenceLimits,
    /// Most aggregation groups at the same time; alerts that would open more are counted and not notified. 0: no limit.
    pub aggregation_groups_max: usize,
    /// How long attempts under way may go on when the configuration changes or the server stops.
    pub drain_grace: Duration,
    /// What `/status` says of the server.
    pub version: VersionInfo,
}

impl Default for Options {
    /// Alertmanager's defaults.
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(120 * 3600),
            maintenance_interval: Duration::from_secs(15 * 60),
            alert_gc_interval: Duration::from_secs(30 * 60),
            alert_limits: AlertLimits::default(),
            silence_limits: SilenceLimits::default(),
            // Each is a task and some kilobytes: hundreds of MiB, and more than any receiver wants to hear of.
            aggregation_groups_max: 100_000,
            drain_grace: Duration::from_secs(5),
            version: VersionInfo::default(),
        }
    }
}

/// What the Alertmanager is given.
#[derive(Debug)]
pub struct Deps {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Where its metrics go.
    pub registry: Registry,
    /// Where silences and the notification log are kept; `None`: in memory only.
    pub state_dir: Option<PathBuf>,
    /// Where links lead.
    pub external_url: String,
    /// Other replicas; `None`: there are none.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// Who makes integrations; `None`: the real ones.
    pub integrations: Option<Arc<dyn IntegrationFactory>>,
    /// Flags.
    pub options: Options,
}

/// Why the Alertmanager does not start or take a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state on disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// An integration cannot be made.
    #[error("receiver {receiver}: {kind}: {reason}")]
    Integration {
        /// Whose.
        receiver: String,
        /// Which kind.
        kind: &'static str,
        /// Why.
        reason: String,
    },
    /// A template file is malformed.
    #[error("templates: {0}")]
    Templates(String),
    /// A metric is registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What became of a batch of alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutReport {
    /// How many were taken.
    pub taken: usize,
    /// How many were dropped because of a limit.
    pub dropped: usize,
    /// Why others were refused.
    pub errors: Vec<String>,
}

type AlertWithStatus = (Arc<StoredAlert>, AlertStatus);

/// All that a configuration brings about.
struct Generation {
    config: AlertmanagerConfig,
    inhibitor: Arc<Inhibitor>,
    dispatcher: Arc<Dispatcher>,
}

/// The Alertmanager. Made by [`Alertmanager::start`], ended by [`Alertmanager::stop`].
pub struct Alertmanager {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Metrics,
    options: Options,
    cluster: Arc<dyn Cluster>,
    integrations: Arc<dyn IntegrationFactory>,
    runtime: Handle,
    store: StateStore,
    provider: Provider,
    silences: Arc<Silences>,
    log: Arc<NotificationLog>,
    generation: RwLock<Arc<Generation>>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    started_at: i64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Alertmanager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alertmanager").field("started_at", &self.started_at).finish_non_exhaustive()
    }
}

impl Alertmanager {
    /// Opens the state, builds the configuration's parts and starts. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the state cannot be opened or a part cannot be built.
    pub async fn start(config: AlertmanagerConfig, deps: Deps) -> Result<Arc<Self>, StartError> {
        let metrics = Metrics::new(&deps.registry)?;
        let clock = deps.clock;
        let store = match &deps.state_dir {
            Some(dir) => StateStore::open(dir, clock.now_ms(), metrics.state.clone()).await?,
            None => StateStore::in_memory(metrics.state.clone()),
        };
        let silences = Arc::new(Silences::load(
            store.clone(),
            Arc::clone(&clock),
            Arc::clone(&deps.random),
            metrics.clone(),
            millis(deps.options.retention),
            deps.options.silence_limits,
        ));
        let log = Arc::new(NotificationLog::load(store.clone(), metrics.clone()));
        let external_url: Arc<str> = Arc::from(deps.external_url.trim_end_matches('/'));
        let integrations = deps.integrations.unwrap_or_else(|| {
            Arc::new(StandardIntegrations {
                external_url: Arc::clone(&external_url),
                random: Arc::clone(&deps.random),
            })
        });
        let parts = Parts {
            clock: Arc::clone(&clock),
            random: Arc::clone(&deps.random),
            metrics: metrics.clone(),
            cluster: deps.cluster.unwrap_or_else(|| Arc::new(Alone)),
            integrations,
            runtime: Handle::current(),
            silences: Arc::clone(&silences),
            log: Arc::clone(&log),
            retention_ms: millis(deps.options.retention),
            groups_max: deps.options.aggregation_groups_max,
        };
        let generation = match parts.clone().build(config).await {
            Ok(generation) => generation,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let alertmanager = Arc::new(Self {
            random: parts.random,
            cluster: parts.cluster,
            integrations: parts.integrations,
            runtime: parts.runtime,
            started_at: clock.now_ms(),
            provider: Provider::new(deps.options.alert_limits),
            generation: RwLock::new(Arc::new(generation)),
            reloading: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            options: deps.options,
            clock,
            metrics,
            store,
            silences,
            log,
        });
        alertmanager.count_config();
        let limit = alertmanager.options.alert_limits.per_alertname_max;
        alertmanager.metrics.per_alert_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        alertmanager.metrics.cluster_enabled.set(0);
        let maintained = Arc::clone(&alertmanager);
        alertmanager.tasks.spawn(async move { maintained.maintain().await });
        info!("alertmanager started");
        Ok(alertmanager)
    }

    /// Takes over a new configuration, completely or not at all. Alerts, silences and the log stay.
    ///
    /// # Errors
    /// When a part cannot be built: the old configuration goes on.
    pub async fn reload(&self, config: AlertmanagerConfig) -> Result<(), StartError> {
        let _reloading = self.reloading.lock().await;
        let built = self.parts().build(config).await;
        let new = match built {
            Ok(new) => Arc::new(new),
            Err(error) => {
                self.metrics.reload_successful.set(0);
                return Err(error);
            }
        };
        // Drained before the new one begins: two generations would notify the same group, each without the other's
        // entry in the log. Alerts that come meanwhile wait in the provider.
        let old = Arc::clone(&self.generation.read());
        if !old.dispatcher.stop(self.options.drain_grace).await {
            warn!("notifications under way were cut off by the new configuration");
        }
        *self.generation.write() = Arc::clone(&new);
        let known = self.provider.all();
        for alert in &known {
            new.inhibitor.update(alert);
        }
        new.dispatcher.dispatch(&known);
        self.count_config();
        info!(alerts = known.len(), "alertmanager configuration loaded");
        Ok(())
    }

    /// Ends all groups, lets attempts under way finish within the grace, and closes the state. Says whether nothing was
    /// cut off.
    pub async fn stop(&self) -> bool {
        self.stop.cancel();
        let generation = Arc::clone(&self.generation.read());
        let drained = generation.dispatcher.stop(self.options.drain_grace).await;
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
        info!(drained, "alertmanager stopped");
        drained
    }

    /// Takes over alerts, valid ones although others are not. Never waits.
    pub fn put(&self, alerts: Vec<IncomingAlert>) -> PutReport {
        let generation = Arc::clone(&self.generation.read());
        let now = self.clock.now_ms();
        let resolve_timeout = millis(generation.config.resolve_timeout);
        let mut report = PutReport::default();
        let mut valid = Vec::with_capacity(alerts.len());
        for alert in alerts {
            let is_firing = alert.ends_at.is_none_or(|ends_at| ends_at > now);
            let status = if is_firing { "firing" } else { "resolved" };
            self.metrics.alerts_received.with_label_values(&[status, "v2"]).inc();
            match alert.into_stored(now, resolve_timeout) {
                Ok(alert) => valid.push(alert),
                Err(error) => {
                    self.metrics.alerts_invalid.with_label_values(&["v2"]).inc();
                    report.errors.push(error);
                }
            }
        }
        let count = valid.len();
        let (states, dropped) = self.provider.put(valid);
        report.dropped = dropped;
        report.taken = count - dropped;
        if dropped > 0 {
            self.metrics.alerts_dropped.inc_by(dropped as u64);
            warn!(dropped, "alerts were dropped because a limit is reached");
        }
        // The generation that is current now: a reload may have come between, and it refills only what it saw.
        let generation = Arc::clone(&self.generation.read());
        for alert in &states {
            generation.inhibitor.update(alert);
        }
        generation.dispatcher.dispatch(&states);
        report
    }

    /// `POST /alerts`
    ///
    /// # Errors
    /// 400 or 422 with the body; valid alerts of the batch are taken nevertheless.
    pub fn post_alerts(&self, body: &[u8]) -> Result<(), ApiError> {
        let report = self.put(crate::api::parse_alerts(body)?);
        if report.errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::message(400, &report.errors.join("\n")))
    }

    /// `GET /alerts`: what fires and is asked for, by fingerprint.
    pub fn alerts(&self, filter: &AlertFilter) -> Vec<GettableAlert> {
        let generation = Arc::clone(&self.generation.read());
        let now = self.clock.now_ms();
        let mut found = Vec::new();
        for alert in self.provider.all() {
            if alert.is_resolved_at(now) || !Matcher::all_match(&filter.matchers, &alert.labels) {
                continue;
            }
            let receivers: Vec<String> = generation
                .config
                .route
                .matching(&alert.labels)
                .iter()
                .map(|route| route.receiver.clone())
                .collect();
            if !receivers.iter().any(|name| generation.accepts_receiver(filter, name)) {
                continue;
            }
            let status = self.status_of(&generation, &alert.labels);
            if accepts_status(filter, &status) {
                found.push(gettable(&alert, &receivers, status));
            }
        }
        found.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
        found
    }

    /// `GET /alerts/groups`: by labels, then receiver.
    pub fn groups(&self, filter: &AlertFilter) -> Vec<AlertGroup> {
        let generation = Arc::clone(&self.generation.read());
        let now = self.clock.now_ms();
        let mut groups: Vec<(GroupView, Vec<AlertWithStatus>)> = Vec::new();
        let mut receivers: HashMap<model::alert::Fingerprint, Vec<String>> = HashMap::new();
        for group in generation.dispatcher.groups() {
            let muted = !group.muted_by.is_empty();
            if !generation.accepts_receiver(filter, &group.route.receiver) || muted && !filter.muted {
                continue;
            }
            let mut alerts = Vec::new();
            for alert in &group.alerts {
                if alert.is_resolved_at(now) || !Matcher::all_match(&filter.matchers, &alert.labels) {
                    continue;
                }
                let mut status = self.status_of(&generation, &alert.labels);
                if !accepts_status(filter, &status) {
                    continue;
                }
                if muted {
                    status.state = "suppressed";
                    status.muted_by.clone_from(&group.muted_by);
                }
                receivers.entry(alert.fingerprint).or_default().push(group.route.receiver.clone());
                alerts.push((Arc::clone(alert), status));
            }
            if !alerts.is_empty() {
                groups.push((group, alerts));
            }
        }
        for names in receivers.values_mut() {
            names.sort_unstable();
        }
        groups.sort_by(|(a, _), (b, _)| {
            let by_receiver = || (&a.route.receiver, a.route.id).cmp(&(&b.route.receiver, b.route.id));
            label_set_order(&a.labels, &b.labels).then_with(by_receiver)
        });
        let to_api = |(group, mut alerts): (GroupView, Vec<AlertWithStatus>)| {
            alerts.sort_by(|(a, _), (b, _)| notification_order(&a.labels, &b.labels));
            let shown = alerts
                .into_iter()
                .map(|(alert, status)| gettable(&alert, &receivers[&alert.fingerprint], status));
            AlertGroup {
                alerts: shown.collect(),
                labels: to_map(&group.labels),
                receiver: ReceiverName { name: group.route.receiver.clone() },
                route_labels: group.route.labels.clone(),
            }
        };
        groups.into_iter().map(to_api).collect()
    }

    /// The groups with their timers, for pages that show when the next notification is due.
    pub fn group_views(&self) -> Vec<GroupView> {
        let generation = Arc::clone(&self.generation.read());
        let mut groups = generation.dispatcher.groups();
        groups.sort_by(|a, b| label_set_order(&a.labels, &b.labels).then_with(|| a.key.cmp(&b.key)));
        groups
    }

    /// `GET /receivers`, in the order of the configuration.
    pub fn receivers(&self, receiver_matchers: &[Matcher]) -> Vec<ReceiverView> {
        let generation = Arc::clone(&self.generation.read());
        let views = generation.config.receivers.iter().map(receiver_view);
        views.filter(|view| Matcher::all_match(receiver_matchers, &from_map(&view.labels))).collect()
    }

    /// `GET /status`
    pub fn status(&self) -> Status {
        let original = self.generation.read().config.original.clone();
        Status {
            cluster: ClusterStatus { name: String::new(), peers: Vec::new(), status: "disabled" },
            config: ConfigText { original },
            uptime: ApiTime(self.started_at),
            version_info: self.options.version.clone(),
        }
    }

    /// The grammar of matchers in force, for [`AlertFilter::from_query`] and [`SilenceFilter::from_query`].
    pub fn matcher_mode(&self) -> crate::matchers::MatcherMode {
        self.generation.read().config.matcher_mode
    }

    /// `GET /silences`
    pub fn silences(&self, filter: &SilenceFilter) -> Vec<GettableSilence> {
        let now = self.clock.now_ms();
        let all = self.silences.list();
        let wanted = all.iter().filter(|silence| filter.accepts(silence, now));
        wanted.map(|silence| GettableSilence::of(silence, now)).collect()
    }

    /// `GET /silence/{id}`
    pub fn silence(&self, id: &str) -> Option<GettableSilence> {
        self.silences.get(id).map(|silence| GettableSilence::of(&silence, self.clock.now_ms()))
    }

    /// Makes or changes a silence; it is durable when this returns its id.
    ///
    /// # Errors
    /// When the request makes no sense, the id is unknown, a limit is reached, or the disk refuses.
    pub async fn set_silence(&self, request: SilenceRequest) -> Result<String, SilenceError> {
        self.silences.set(request).await
    }

    /// Ends a silence now.
    ///
    /// # Errors
    /// When there is no such silence or the disk refuses.
    pub async fn expire_silence(&self, id: &str) -> Result<(), SilenceError> {
        self.silences.expire(id).await
    }

    /// `POST /silences`: the id.
    ///
    /// # Errors
    /// 400, 404, 422, or 500 when the disk refuses.
    pub async fn post_silence(&self, body: &[u8]) -> Result<String, ApiError> {
        let request = crate::api::parse_silence(body, self.clock.now_ms())?;
        self.set_silence(request).await.map_err(|error| match &error {
            SilenceError::NotFound => ApiError::message(404, &error.to_string()),
            SilenceError::Invalid(message) => ApiError::message(400, message),
            SilenceError::State(_) => ApiError::message(500, &error.to_string()),
        })
    }

    /// `DELETE /silence/{id}`
    ///
    /// # Errors
    /// 404, 422, or 500 when the disk refuses.
    pub async fn delete_silence(&self, id: &str) -> Result<(), ApiError> {
        crate::api::check_silence_id(id)?;
        self.expire_silence(id).await.map_err(|error| match &error {
            SilenceError::NotFound => ApiError::empty(404),
            SilenceError::Invalid(_) | SilenceError::State(_) => ApiError::message(500, &error.to_string()),
        })
    }

    /// Brings gauges that are computed up to date; called before the metrics are read.
    pub fn update_metrics(&self) {
        self.silences.count();
        let generation = Arc::clone(&self.generation.read());
        let now = self.clock.now_ms();
        let (mut active, mut suppressed) = (0i64, 0i64);
        for alert in self.provider.all() {
            if alert.is_resolved_at(now) {
                continue;
            }
            let status = self.status_of(&generation, &alert.labels);
            if status.state == "active" { active += 1 } else { suppressed += 1 }
        }
        for (state, count) in [("active", active), ("suppressed", suppressed), ("unprocessed", 0)] {
            self.metrics.alerts.with_label_values(&[state]).set(count);
        }
    }

    /// Tells the metrics that a configuration was refused before it came here.
    pub fn reload_failed(&self) {
        self.metrics.reload_successful.set(0);
    }

    fn parts(&self) -> Parts {
        Parts {
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            metrics: self.metrics.clone(),
            cluster: Arc::clone(&self.cluster),
            integrations: Arc::clone(&self.integrations),
            runtime: self.runtime.clone(),
            silences: Arc::clone(&self.silences),
            log: Arc::clone(&self.log),
            retention_ms: millis(self.options.retention),
            groups_max: self.options.aggregation_groups_max,
        }
    }

    fn status_of(&self, generation: &Generation, labels: &Labels) -> AlertStatus {
        let now = self.clock.now_ms();
        let silenced_by = self.silences.silencing(labels, now);
        let inhibited_by: Vec<String> = generation
            .inhibitor
            .inhibiting(labels, now)
            .map(|fingerprint| fingerprint.to_string())
            .into_iter()
            .collect();
        let suppressed = !silenced_by.is_empty() || !inhibited_by.is_empty();
        AlertStatus {
            inhibited_by,
            muted_by: Vec::new(),
            silenced_by,
            state: if suppressed { "suppressed" } else { "active" },
        }
    }

    fn count_config(&self) {
        let generation = Arc::clone(&self.generation.read());
        let config = &generation.config;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.receivers.set(count(config.receivers.len()));
        self.metrics.integrations.set(count(config.receivers.iter().map(|r| r.integrations.len()).sum()));
        self.metrics.inhibition_rules.set(count(config.inhibit_rules.len()));
        // 48 bits, which a float holds exactly: what the original does too.
        let hash = xxhash_rust::xxh3::xxh3_64(config.original.as_bytes()) >> 16;
        self.metrics.config_hash.set(hash as f64);
        self.metrics.reload_successful.set(1);
        self.metrics.reload_timestamp.set(self.clock.now_ms() as f64 / 1000.0);
    }

    async fn maintain(&self) {
        let mut state =
            tokio::time::interval(self.options.maintenance_interval.max(Duration::from_millis(100)));
        let mut alerts =
            tokio::time::interval(self.options.alert_gc_interval.max(Duration::from_millis(100)));
        // The first tick comes at once, when there is nothing to do yet.
        state.tick().await;
        alerts.tick().await;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.store.adopted() => {
                    self.log.adopt();
                    self.silences.adopt().await;
                }
                _ = state.tick() => {
                    let log = self.log.maintain(self.clock.now_ms()).await;
                    let silences = self.silences.maintain().await;
                    let metrics = &self.metrics;
                    let parts = [
                        (log, &metrics.nflog_maintenance, &metrics.nflog_maintenance_errors),
                        (silences, &metrics.silences_maintenance, &metrics.silences_maintenance_errors),
                    ];
                    for (result, runs, errors) in parts {
                        runs.inc();
                        if let Err(error) = result {
                            errors.inc();
                            error!(%error, "clean-up of the alertmanager state failed");
                        }
                    }
                }
                _ = alerts.tick() => {
                    let now = self.clock.now_ms();
                    self.provider.maintain(now);
                    let generation = Arc::clone(&self.generation.read());
                    generation.inhibitor.maintain(now);
                }
            }
        }
    }
}

/// For rules of the same process. Nothing waits in a queue: an alert is in its groups when this returns.
impl AlertSink for Alertmanager {
    fn send(&self, alerts: &[model::Alert]) {
        let report = self.put(alerts.iter().map(IncomingAlert::from).collect());
        if let Some(error) = report.errors.first() {
            // Rules make valid alerts; one that is not is a mistake on our side.
            error!(count = report.errors.len(), %error, "alerts of rules were refused");
        }
    }
}

impl Generation {
    fn accepts_receiver(&self, filter: &AlertFilter, name: &str) -> bool {
        if filter.receiver.as_ref().is_some_and(|receiver| !receiver.matches(name)) {
            return false;
        }
        if filter.receiver_matchers.is_empty() {
            return true;
        }
        let found = self.config.receivers.iter().find(|receiver| receiver.name == name);
        found.is_some_and(|receiver| {
            Matcher::all_match(&filter.receiver_matchers, &from_map(&receiver_view(receiver).labels))
        })
    }
}

/// What a generation is built from.
#[derive(Clone)]
struct Parts {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Metrics,
    cluster: Arc<dyn Cluster>,
    integrations: Arc<dyn IntegrationFactory>,
    runtime: Handle,
    silences: Arc<Silences>,
    log: Arc<NotificationLog>,
    retention_ms: i64,
    groups_max: usize,
}

impl Parts {
    /// Away from the reactor: templates and certificates are read from files.
    async fn build(self, config: AlertmanagerConfig) -> Result<Generation, StartError> {
        let built = tokio::task::spawn_blocking(move || self.build_blocking(config)).await;
        built.unwrap_or_else(|error| Err(StartError::Templates(format!("building panicked: {error}"))))
    }

    fn build_blocking(&self, config: AlertmanagerConfig) -> Result<Generation, StartError> {
        let templates = Arc::new(Templates::new(&config.templates).map_err(StartError::Templates)?);
        let mut receivers = HashMap::new();
        for receiver in &config.receivers {
            receivers.insert(receiver.name.clone(), self.slots(receiver, &templates)?);
        }
        let inhibitor = Arc::new(Inhibitor::new(&config.inhibit_rules));
        let pipeline = Arc::new(Pipeline {
            inhibitor: Arc::clone(&inhibitor),
            silences: Arc::clone(&self.silences),
            intervals: config.time_intervals.clone(),
            receivers,
            log: Arc::clone(&self.log),
            cluster: Arc::clone(&self.cluster),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            metrics: self.metrics.clone(),
            retention_ms: self.retention_ms,
        });
        let dispatcher = Dispatcher::new(
            Arc::clone(&config.route),
            pipeline,
            Arc::clone(&self.clock),
            self.runtime.clone(),
            self.metrics.clone(),
            self.groups_max,
        );
        Ok(Generation { config, inhibitor, dispatcher })
    }

    fn slots(
        &self,
        receiver: &ReceiverConfig,
        templates: &Arc<Templates>,
    ) -> Result<Vec<Arc<IntegrationSlot>>, StartError> {
        let mut slots = Vec::new();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for config in &receiver.integrations {
            let kind = config.kind();
            let next = counts.entry(kind).or_default();
            let index = *next;
            *next += 1;
            let integration = self.integrations.build(config, templates).map_err(|reason| {
                StartError::Integration { receiver: receiver.name.clone(), kind, reason }
            })?;
            let key = IntegrationKey { receiver: receiver.name.clone(), kind: kind.to_owned(), index };
            let permits = Semaphore::new(ATTEMPTS_MAX);
            let send_resolved = config.send_resolved();
            slots.push(Arc::new(IntegrationSlot { key, send_resolved, integration, permits }));
        }
        Ok(slots)
    }
}

fn accepts_status(filter: &AlertFilter, status: &AlertStatus) -> bool {
    (filter.active || status.state != "active")
        && (filter.silenced || status.silenced_by.is_empty())
        && (filter.inhibited || status.inhibited_by.is_empty())
        && (filter.unprocessed || status.state != "unprocessed")
}

fn gettable(alert: &StoredAlert, receivers: &[String], status: AlertStatus) -> GettableAlert {
    GettableAlert {
        annotations: alert.annotations.clone(),
        ends_at: ApiTime(alert.ends_at),
        fingerprint: alert.fingerprint.to_string(),
        receivers: receivers.iter().map(|name| ReceiverName { name: name.clone() }).collect(),
        starts_at: ApiTime(alert.starts_at),
        status,
        updated_at: ApiTime(alert.updated_at),
        generator_url: alert.generator_url.clone(),
        labels: to_map(&alert.labels),
    }
}

fn receiver_view(receiver: &ReceiverConfig) -> ReceiverView {
    let mut labels = receiver.labels.clone();
    labels.insert("name".to_owned(), receiver.name.clone());
    ReceiverView { labels, name: receiver.name.clone() }
}

fn to_map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn from_map(map: &BTreeMap<String, String>) -> Labels {
    Labels::from_pairs(map.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
