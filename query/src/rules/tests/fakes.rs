//! The parts that rules work with, under the control of a test. Times are told in seconds since [`T0`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use model::storage::{
    Append, AppendError, AppendOptions, AppendSample, Appender, CommitSummary, LabelHints, LabelList,
    LayoutRef, LayoutSlot, Querier, Queryable, Row, RowOutcome, SelectHints, SeriesColumns, SeriesRef,
    SeriesSet, StorageError,
};
use model::{
    Alert, AlertSink, Clock, ConfigPath, Exemplar, Labels, ManualClock, Matcher, Metadata, SampleValue,
    TimeRange, Timestamp,
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ast::Expr;
use crate::exec::RuleOrigin;
use crate::parse::ParseOptions;
use crate::rules::metrics::RuleMetrics;
use crate::rules::restore::RestoreOptions;
use crate::rules::texts::AlertContext;
use crate::rules::{
    AlertStatus, Evaluate, GroupConfig, GroupDeps, Health, ManagerOptions, RawRuleFile, RuleFileContext,
    RuleGroup, RuleManager, RuleSample, RuleStatus, RuleStatusKind,
};

/// When tests begin, in milliseconds.
pub(super) const T0: Timestamp = 1_000_000_000_000;
/// How the server is reached in tests.
pub(super) const URL: &str = "http://nilometer.example";

/// `seconds` after [`T0`].
pub(super) fn at(seconds: i64) -> Timestamp {
    T0 + seconds * 1000
}

/// A label set from `name=value` separated by commas.
pub(super) fn labels(text: &str) -> Labels {
    text.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap()).collect()
}

/// A float sample with labels as in [`labels`].
pub(super) fn sample(text: &str, value: f64) -> RuleSample {
    RuleSample::float(labels(text), value)
}

/// A store in memory.
#[derive(Clone, Default)]
pub(super) struct Store(Arc<Mutex<StoreState>>);

#[derive(Default)]
struct StoreState {
    series: Vec<(Labels, Vec<(Timestamp, SampleValue)>)>,
    by_labels: HashMap<Labels, usize>,
    /// References of earlier generations are unknown.
    generation: u64,
    fails_commits: bool,
    fails_reads: bool,
    refusals: HashMap<Labels, AppendError>,
    during_commit: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Store {
    /// Whether the log cannot be written from now on.
    pub(super) fn fail_commits(&self, fails: bool) {
        self.0.lock().fails_commits = fails;
    }

    /// Whether nothing can be read from now on.
    pub(super) fn fail_reads(&self, fails: bool) {
        self.0.lock().fails_reads = fails;
    }

    /// Samples of this series are refused from now on.
    pub(super) fn refuse(&self, series: &Labels, error: AppendError) {
        self.0.lock().refusals.insert(series.clone(), error);
    }

    /// All references are unknown from now on.
    pub(super) fn forget_references(&self) {
        self.0.lock().generation += 1;
    }

    /// Runs within each commit, under no lock of the store.
    pub(super) fn during_commit(&self, run: impl Fn() + Send + Sync + 'static) {
        self.0.lock().during_commit = Some(Arc::new(run));
    }

    /// Stores a float, past all faults.
    pub(super) fn put(&self, series: &Labels, seconds: i64, value: f64) {
        let mut state = self.0.lock();
        let index = state.index(series);
        state.series[index].1.push((at(seconds), SampleValue::Float(value)));
    }

    /// The series of a metric that have samples, as `{labels without name} SECONDS:VALUE …`, sorted.
    pub(super) fn lines(&self, metric: &str) -> Vec<String> {
        let state = self.0.lock();
        let mut lines: Vec<String> = state
            .series
            .iter()
            .filter(|(labels, samples)| labels.metric_name() == metric && !samples.is_empty())
            .map(|(labels, samples)| {
                let samples = samples.iter().map(|(t, value)| match value {
                    value if value.is_stale() => format!(" {}:stale", seconds(*t)),
                    SampleValue::Float(v) => format!(" {}:{v}", seconds(*t)),
                    SampleValue::Histogram(_) | SampleValue::FloatHistogram(_) => {
                        format!(" {}:histogram", seconds(*t))
                    }
                });
                format!("{}{}", labels.without_name(), samples.collect::<String>())
            })
            .collect();
        lines.sort();
        lines
    }

    /// The last values at or before `t` of the series of a metric, without those that ended.
    fn instant(&self, metric: &str, t: Timestamp) -> Vec<RuleSample> {
        let state = self.0.lock();
        let last = |samples: &[(Timestamp, SampleValue)]| {
            samples.iter().rfind(|(at, _)| *at <= t).map(|(_, value)| value.clone())
        };
        state
            .series
            .iter()
            .filter(|(labels, _)| labels.metric_name() == metric)
            .filter_map(|(labels, samples)| {
                Some(RuleSample { labels: labels.clone(), value: last(samples)? })
            })
            .filter(|sample| !sample.value.is_stale())
            .collect()
    }
}

impl StoreState {
    fn index(&mut self, labels: &Labels) -> usize {
        if let Some(index) = self.by_labels.get(labels) {
            return *index;
        }
        self.series.push((labels.clone(), Vec::new()));
        self.by_labels.insert(labels.clone(), self.series.len() - 1);
        self.series.len() - 1
    }
}

fn seconds(t: Timestamp) -> String {
    let ms = t - T0;
    if ms % 1000 == 0 { (ms / 1000).to_string() } else { format!("{}", ms as f64 / 1000.0) }
}

fn same_value(a: &SampleValue, b: &SampleValue) -> bool {
    match (a, b) {
        (SampleValue::Float(a), SampleValue::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

struct FakeAppender {
    store: Store,
    pending: Vec<(usize, AppendSample)>,
}

impl Append for Store {
    fn appender(&self, options: AppendOptions) -> Box<dyn Appender> {
        assert!(options.reject_out_of_order, "rules never write into the past");
        Box::new(FakeAppender { store: self.clone(), pending: Vec::new() })
    }
}

impl Appender for FakeAppender {
    fn append(
        &mut self,
        series: Option<SeriesRef>,
        labels: &Labels,
        sample: AppendSample,
    ) -> Result<SeriesRef, AppendError> {
        let mut state = self.store.0.lock();
        if let Some(error) = state.refusals.get(labels) {
            return Err(*error);
        }
        let index = match series {
            Some(SeriesRef(reference)) if reference >> 32 != state.generation => {
                return Err(AppendError::UnknownSeries);
            }
            Some(SeriesRef(reference)) => (reference & 0xffff_ffff) as usize,
            None => state.index(labels),
        };
        assert_eq!(state.series[index].0, *labels, "a reference belongs to its series");
        let pending = self.pending.iter().rev().find(|(other, _)| *other == index);
        let last = pending
            .map(|(_, sample)| (sample.t, sample.value.clone()))
            .or_else(|| state.series[index].1.last().cloned());
        match last {
            Some((t, _)) if sample.t < t => return Err(AppendError::OutOfOrder),
            Some((t, value)) if sample.t == t => {
                if !same_value(&value, &sample.value) {
                    return Err(AppendError::Duplicate);
                }
            }
            _ => self.pending.push((index, sample)),
        }
        Ok(SeriesRef(state.generation << 32 | index as u64))
    }

    fn commit(self: Box<Self>) -> Result<CommitSummary, StorageError> {
        let during = self.store.0.lock().during_commit.clone();
        if let Some(run) = during {
            run();
        }
        let mut state = self.store.0.lock();
        if state.fails_commits {
            let source = std::io::Error::other("no space left");
            return Err(StorageError::Io { what: "write the log", path: "wal".into(), source });
        }
        let samples = self.pending.len() as u64;
        for (index, sample) in self.pending {
            state.series[index].1.push((sample.t, sample.value));
        }
        Ok(CommitSummary { samples, series_created: 0 })
    }

    fn rollback(self: Box<Self>) {}

    fn open_layout(&mut self) -> LayoutRef {
        unreachable!("rules append sample by sample")
    }

    fn extend_layout(&mut self, _: LayoutRef, _: &Labels) -> Result<LayoutSlot, AppendError> {
        unreachable!("rules append sample by sample")
    }

    fn retire_slot(&mut self, _: LayoutRef, _: LayoutSlot) {
        unreachable!("rules append sample by sample")
    }

    fn close_layout(&mut self, _: LayoutRef) {
        unreachable!("rules append sample by sample")
    }

    fn append_row_part(&mut self, _: LayoutSlot, _: &Row<'_>) -> RowOutcome {
        unreachable!("nobody here writes parts of rows")
    }

    fn append_row(&mut self, _: &Row<'_>) -> RowOutcome {
        unreachable!("rules append sample by sample")
    }

    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        unreachable!("rules have no exemplars")
    }

    fn update_metadata(&mut self, _: SeriesRef, _: &Metadata) -> Result<(), AppendError> {
        unreachable!("rules have no metadata")
    }
}

impl Queryable for Store {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(FakeQuerier { store: self.clone(), range }))
    }
}

struct FakeQuerier {
    store: Store,
    range: TimeRange,
}

impl Querier for FakeQuerier {
    fn select(&self, matchers: &[Matcher], _: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let state = self.store.0.lock();
        if state.fails_reads {
            return Err(StorageError::NotReady("replaying"));
        }
        let found = state.series.iter().filter(|(labels, _)| Matcher::all_match(matchers, labels));
        let within = |(labels, samples): &(Labels, Vec<(Timestamp, SampleValue)>)| {
            let samples = samples.iter().filter(|(t, _)| self.range.contains(*t)).cloned().collect();
            (labels.clone(), samples)
        };
        Ok(Box::new(FakeSet(found.map(within).collect())))
    }

    fn label_names(&self, _: &[Matcher], _: &LabelHints) -> Result<LabelList, StorageError> {
        unreachable!("rules do not ask for names")
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: &LabelHints) -> Result<LabelList, StorageError> {
        unreachable!("rules do not ask for values")
    }
}

struct FakeSet(Vec<(Labels, Vec<(Timestamp, SampleValue)>)>);

impl SeriesSet for FakeSet {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.0[index].0.clone()
    }

    fn read(&self, index: usize, into: &mut SeriesColumns) -> Result<(), StorageError> {
        into.clear();
        for (t, value) in &self.0[index].1 {
            if let SampleValue::Float(v) = value {
                into.float_times.push(*t);
                into.float_values.push(*v);
            }
        }
        Ok(())
    }
}

/// Answers expressions as told; one that nothing was told of is a metric of the store.
pub(super) struct Script {
    store: Store,
    answers: Mutex<HashMap<String, BTreeMap<Timestamp, Answer>>>,
    asked: Mutex<Vec<(String, Timestamp)>>,
    gate: Mutex<Option<(String, Arc<Gate>)>>,
    during_text: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    /// Rules whose templates asked.
    asked_by: Mutex<Vec<RuleOrigin>>,
}

/// What an expression gives.
pub(super) type Answer = Result<Vec<RuleSample>, String>;

/// Where an evaluation waits until the test lets it go on.
#[derive(Default)]
pub(super) struct Gate {
    entered: Notify,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Until an evaluation stands at the gate.
    pub(super) async fn entered(&self) {
        self.entered.notified().await;
    }

    /// Lets it go on.
    pub(super) fn open(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }
}

impl Script {
    /// From `seconds` on, `expr` (in normal form) gives `answer`.
    pub(super) fn set(&self, expr: &str, seconds: i64, answer: Answer) {
        self.answers.lock().entry(expr.to_owned()).or_default().insert(at(seconds), answer);
    }

    /// From `seconds` on, `expr` gives `samples`: labels as in [`labels`], and values.
    pub(super) fn give(&self, expr: &str, seconds: i64, samples: &[(&str, f64)]) {
        self.set(expr, seconds, Ok(samples.iter().map(|(labels, value)| sample(labels, *value)).collect()));
    }

    /// When `expr` was asked for so far, in seconds.
    pub(super) fn asked(&self, expr: &str) -> Vec<String> {
        self.asked.lock().iter().filter(|(asked, _)| asked == expr).map(|(_, t)| seconds(*t)).collect()
    }

    /// The next evaluation of `expr` waits at the gate.
    pub(super) fn gate(&self, expr: &str) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.gate.lock() = Some((expr.to_owned(), Arc::clone(&gate)));
        gate
    }

    /// Rules whose templates asked so far.
    pub(super) fn asked_by(&self) -> Vec<RuleOrigin> {
        self.asked_by.lock().clone()
    }

    /// Runs within each query of a template.
    pub(super) fn during_text(&self, run: impl Fn() + Send + Sync + 'static) {
        *self.during_text.lock() = Some(Arc::new(run));
    }

    fn answer(&self, text: &str, t: Timestamp) -> Answer {
        let answers = self.answers.lock();
        match answers.get(text) {
            Some(answers) => {
                answers.range(..=t).next_back().map_or_else(|| Ok(Vec::new()), |(_, a)| a.clone())
            }
            None => Ok(self.store.instant(text, t)),
        }
    }
}

impl Evaluate for Script {
    fn instant(&self, expr: &Expr, t: Timestamp, rule: RuleOrigin) -> Answer {
        assert!(!rule.group.is_empty() && !rule.rule.is_empty(), "{rule:?}");
        let text = expr.to_string();
        self.asked.lock().push((text.clone(), t));
        let gate = self.gate.lock().take_if(|(expr, _)| *expr == text);
        if let Some((_, gate)) = gate {
            gate.entered.notify_one();
            let mut is_open = gate.is_open.lock();
            while !*is_open {
                gate.opened.wait(&mut is_open);
            }
        }
        self.answer(&text, t)
    }

    fn instant_text(&self, text: &str, t: Timestamp, rule: RuleOrigin) -> Result<Vec<(Labels, f64)>, String> {
        self.asked_by.lock().push(rule);
        let during = self.during_text.lock().clone();
        if let Some(run) = during {
            run();
        }
        let samples = self.answer(text, t)?;
        Ok(samples.into_iter().map(|sample| (sample.labels.clone(), sample.float_value())).collect())
    }
}

/// Remembers what it was sent.
#[derive(Default)]
pub(super) struct Sink(Mutex<Vec<Alert>>);

impl AlertSink for Sink {
    fn send(&self, alerts: &[Alert]) {
        assert!(!alerts.is_empty(), "nothing to send is not sent");
        self.0.lock().extend_from_slice(alerts);
    }
}

impl Sink {
    /// What came since the last call.
    pub(super) fn take(&self) -> Vec<Alert> {
        std::mem::take(&mut self.0.lock())
    }

    /// The same as `{labels} START..END`, times in seconds.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |alert: Alert| {
            let end = alert.ends_at.map_or_else(String::new, seconds);
            format!("{} {}..{end}", alert.labels, seconds(alert.starts_at))
        };
        self.take().into_iter().map(line).collect()
    }
}

/// Wall clock that follows tokio's, which tests pause.
#[derive(Debug)]
pub(super) struct FollowingClock {
    started: Instant,
}

impl Clock for FollowingClock {
    fn now_ms(&self) -> Timestamp {
        T0 + i64::try_from(self.started.elapsed().as_millis()).unwrap()
    }
}

/// All parts.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) script: Arc<Script>,
    pub(super) sink: Arc<Sink>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) registry: prometheus::Registry,
    pub(super) external_labels: Labels,
    metrics: RuleMetrics,
}

impl World {
    pub(super) fn new() -> Self {
        Self::on(Store::default())
    }

    /// All parts anew but the store: what a restart leaves.
    pub(super) fn on(store: Store) -> Self {
        let script = Script {
            store: store.clone(),
            answers: Mutex::default(),
            asked: Mutex::default(),
            gate: Mutex::default(),
            during_text: Mutex::default(),
            asked_by: Mutex::default(),
        };
        let registry = prometheus::Registry::new();
        // Those of groups made here; a manager registers its own.
        let metrics = RuleMetrics::new(&registry).unwrap();
        Self {
            store,
            script: Arc::new(script),
            sink: Arc::default(),
            clock: Arc::new(ManualClock::new(T0)),
            registry,
            external_labels: Labels::empty(),
            metrics,
        }
    }

    fn deps(&self, clock: Arc<dyn Clock>) -> GroupDeps {
        GroupDeps {
            evaluate: Arc::clone(&self.script) as _,
            append: Arc::new(self.store.clone()),
            storage: Arc::new(self.store.clone()),
            sink: Arc::clone(&self.sink) as _,
            clock,
        }
    }

    /// The first group of a file, with nothing to restore.
    pub(super) fn group(&self, yaml: &str) -> Arc<RuleGroup> {
        self.group_stopped_by(yaml, true, CancellationToken::new())
    }

    /// The first group of a file after a restart.
    pub(super) fn unrestored(&self, yaml: &str) -> Arc<RuleGroup> {
        self.group_stopped_by(yaml, false, CancellationToken::new())
    }

    pub(super) fn group_stopped_by(
        &self,
        yaml: &str,
        restored: bool,
        stop: CancellationToken,
    ) -> Arc<RuleGroup> {
        let context = AlertContext {
            external_labels: self.external_labels.clone(),
            external_url: URL.into(),
            evaluate: Arc::clone(&self.script) as _,
            resend_delay: Duration::from_secs(60),
        };
        let config = configs(yaml).remove(0);
        let deps = self.deps(Arc::clone(&self.clock) as _);
        Arc::new(RuleGroup::new(config, deps, self.metrics.clone(), context, stop, restored))
    }

    /// Evaluates `group` at `seconds` and gives what was sent.
    pub(super) fn evaluate(&self, group: &RuleGroup, seconds: i64) -> Vec<String> {
        self.clock.set(at(seconds));
        group.evaluate(at(seconds));
        self.sink.lines()
    }

    /// A manager on a clock that follows tokio's, and the registry with its metrics.
    pub(super) fn manager(&self) -> (RuleManager, prometheus::Registry) {
        let registry = prometheus::Registry::new();
        let options = ManagerOptions {
            resend_delay: Duration::from_secs(60),
            restore: RESTORE,
            evaluations_max: 4,
            external_url: URL.to_owned(),
        };
        let clock = FollowingClock { started: Instant::now() };
        (RuleManager::new(self.deps(Arc::new(clock)), options, &registry).unwrap(), registry)
    }

    /// The sum of a counter's or gauge's series.
    pub(super) fn metric(&self, name: &str) -> f64 {
        metric(&self.registry, name)
    }
}

/// Prometheus' defaults.
pub(super) const RESTORE: RestoreOptions =
    RestoreOptions { outage_tolerance: Duration::from_secs(3600), grace_period: Duration::from_secs(600) };

/// The sum of a counter's or gauge's series in `registry`.
pub(super) fn metric(registry: &prometheus::Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let series = family.map(|family| family.get_metric()).unwrap_or_default();
    series.iter().map(|series| series.get_counter().get_value() + series.get_gauge().get_value()).sum()
}

pub(super) fn context() -> RuleFileContext {
    RuleFileContext {
        file: "rules.yml".to_owned(),
        evaluation_interval: Duration::from_secs(15),
        query_offset: Duration::ZERO,
        parse_options: ParseOptions::default(),
    }
}

/// The valid groups of a file.
pub(super) fn configs(yaml: &str) -> Vec<GroupConfig> {
    let raw: RawRuleFile = serde_yaml::from_str(yaml).unwrap();
    raw.build(&ConfigPath::root(), &context()).unwrap()
}

/// Rule `index` of a group.
pub(super) fn rule(group: &RuleGroup, index: usize) -> RuleStatus {
    group.status().rules.swap_remove(index)
}

/// Health and error of rule `index`.
pub(super) fn health(group: &RuleGroup, index: usize) -> (Health, Option<String>) {
    let rule = rule(group, index);
    (rule.health, rule.last_error)
}

/// Alerts of rule `index`.
pub(super) fn alerts(group: &RuleGroup, index: usize) -> Vec<AlertStatus> {
    match rule(group, index).kind {
        RuleStatusKind::Alerting { alerts, .. } => alerts,
        RuleStatusKind::Recording => panic!("rule {index} is a recording rule"),
    }
}

/// Calls `status` on another thread; fails when it has to wait.
pub(super) fn assert_status_is_ready(group: &Arc<RuleGroup>) {
    let group = Arc::clone(group);
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        group.status();
        done.send(()).ok();
    });
    is_done.recv_timeout(Duration::from_secs(5)).expect("status waits for an evaluation");
}
