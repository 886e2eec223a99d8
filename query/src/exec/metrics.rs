//! The engine's own metrics, under Prometheus' names where it has them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, PullingGauge, Registry,
};
use tokio::time::Instant;

use super::error::{QueryError, QueryErrorKind};
use super::memory::MemoryBudget;
use super::register::RegisterMetrics;
use super::value::QueryStats;

/// Durations a quantile is computed of: the newest so many, none older than [`WINDOW`] (as Prometheus' summary).
const WINDOW_DURATIONS_MAX: usize = 1024;
const WINDOW: Duration = Duration::from_secs(600);
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// The parts of a query that are timed, in order of names.
const SLICES: [&str; 4] = ["inner_eval", "prepare_time", "queue_time", "result_sort"];

#[derive(Debug)]
pub(crate) struct Metrics {
    queries: IntGauge,
    samples: IntCounter,
    histogram: HistogramVec,
    summary: Summaries,
    failed: IntCounterVec,
    slow: IntCounter,
    stopped: IntCounter,
    pub(crate) log_enabled: IntGauge,
    pub(crate) log_failures: IntCounter,
    concurrency: IntGauge,
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("the metric's name is valid")
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("the metric's name is valid")
}

impl Metrics {
    pub(crate) fn new(registry: Option<&Registry>, concurrency: usize, memory: &MemoryBudget) -> Self {
        let histogram = HistogramVec::new(
            HistogramOpts::new(
                "prometheus_engine_query_duration_histogram_seconds",
                "The duration of various parts of PromQL query execution.",
            )
            .buckets(vec![0.01, 0.1, 1.0, 10.0]),
            &["slice"],
        );
        let failed = IntCounterVec::new(
            Opts::new(
                "nilometer_queries_failed_total",
                "Queries that failed, by the type of error the API shows.",
            ),
            &["type"],
        );
        let metrics = Self {
            queries: gauge(
                "prometheus_engine_queries",
                "The current number of queries being executed or waiting.",
            ),
            samples: counter(
                "prometheus_engine_query_samples_total",
                "The total number of samples loaded by all queries.",
            ),
            histogram: histogram.expect("the metric's name is valid"),
            summary: Summaries::new(),
            failed: failed.expect("the metric's name is valid"),
            slow: counter("nilometer_queries_slow_total", "Queries slower than --query.slow-log-threshold."),
            stopped: counter("nilometer_queries_stopped_total", "Queries that an operator stopped."),
            log_enabled: gauge("prometheus_engine_query_log_enabled", "State of the query log."),
            log_failures: counter(
                "prometheus_engine_query_log_failures_total",
                "The number of query log failures.",
            ),
            concurrency: gauge(
                "prometheus_engine_queries_concurrent_max",
                "The max number of concurrent queries.",
            ),
        };
        metrics.concurrency.set(i64::try_from(concurrency).unwrap_or(i64::MAX));
        for kind in QueryErrorKind::ALL {
            metrics.failed.with_label_values(&[kind.as_str()]);
        }
        if let Some(registry) = registry {
            metrics.register(registry, memory);
        }
        metrics
    }

    fn register(&self, registry: &Registry, memory: &MemoryBudget) {
        let used = memory.clone();
        let used = PullingGauge::new(
            "nilometer_query_memory_bytes",
            "Memory held by queries and by answers on their way.",
            Box::new(move || used.used_bytes() as f64),
        );
        let max = gauge("nilometer_query_memory_max_bytes", "Memory that all queries may hold together.");
        max.set(i64::try_from(memory.max_bytes()).unwrap_or(i64::MAX));
        let all: [Box<dyn Collector>; 12] = [
            Box::new(self.queries.clone()),
            Box::new(self.samples.clone()),
            Box::new(self.histogram.clone()),
            Box::new(self.summary.clone()),
            Box::new(self.failed.clone()),
            Box::new(self.slow.clone()),
            Box::new(self.stopped.clone()),
            Box::new(self.log_enabled.clone()),
            Box::new(self.log_failures.clone()),
            Box::new(self.concurrency.clone()),
            Box::new(used.expect("the metric's name is valid")),
            Box::new(max),
        ];
        for collector in all {
            if let Err(error) = registry.register(collector) {
                tracing::warn!(%error, "engine metric not registered");
            }
        }
    }

    pub(crate) fn of_register(&self) -> RegisterMetrics {
        RegisterMetrics {
            queries: self.queries.clone(),
            slow: self.slow.clone(),
            stopped: self.stopped.clone(),
        }
    }

    /// Counts a query that was evaluated, or failed in it.
    pub(crate) fn observe(&self, stats: &QueryStats, error: Option<&QueryError>) {
        self.samples.inc_by(stats.total_samples);
        if let Some(error) = error {
            self.failed.with_label_values(&[error.kind.as_str()]).inc();
        }
        let parts = [stats.inner_eval, stats.prepare, stats.queued, stats.result_sort];
        for (slice, part) in parts.into_iter().enumerate() {
            // What failed before a part has no time of it.
            if error.is_some() && part.is_zero() {
                continue;
            }
            self.histogram.with_label_values(&[SLICES[slice]]).observe(part.as_secs_f64());
            self.summary.observe(slice, part);
        }
    }
}

/// `prometheus_engine_query_duration_seconds`: a summary, which the metrics library does not have.
#[derive(Clone, Debug)]
struct Summaries {
    desc: Desc,
    slices: Arc<[Mutex<Durations>; SLICES.len()]>,
}

#[derive(Debug, Default)]
struct Durations {
    count: u64,
    sum: f64,
    newest: VecDeque<(Instant, f64)>,
}

impl Summaries {
    fn new() -> Self {
        let desc = Desc::new(
            "prometheus_engine_query_duration_seconds".to_owned(),
            "Query timings".to_owned(),
            vec!["slice".to_owned()],
            std::collections::HashMap::new(),
        );
        Self { desc: desc.expect("the metric's name is valid"), slices: Arc::default() }
    }

    fn observe(&self, slice: usize, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let mut durations = self.slices[slice].lock();
        durations.count += 1;
        durations.sum += seconds;
        if durations.newest.len() == WINDOW_DURATIONS_MAX {
            durations.newest.pop_front();
        }
        durations.newest.push_back((Instant::now(), seconds));
    }
}

impl Durations {
    fn summary(&mut self) -> Summary {
        let now = Instant::now();
        while self.newest.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.newest.pop_front();
        }
        let mut seconds: Vec<f64> = self.newest.iter().map(|(_, seconds)| *seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let quantiles = QUANTILES.map(|q| {
            // Nearest rank; NaN when nothing was observed lately, as in Prometheus.
            let rank = (q * seconds.len() as f64).ceil() as usize;
            let mut quantile = Quantile::default();
            quantile.set_quantile(q);
            quantile.set_value(seconds.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN));
            quantile
        });
        let mut summary = Summary::default();
        summary.set_sample_count(self.count);
        summary.set_sample_sum(self.sum);
        summary.set_quantile(quantiles.into());
        summary
    }
}

impl Collector for Summaries {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics = SLICES.iter().zip(self.slices.iter()).map(|(slice, durations)| {
            let mut label = LabelPair::default();
            label.set_name("slice".to_owned());
            label.set_value((*slice).to_owned());
            let mut metric = Metric::from_label(vec![label]);
            metric.set_summary(durations.lock().summary());
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_shown_as_prometheus_shows_them() {
        let registry = Registry::new();
        let metrics = Metrics::new(Some(&registry), 20, &MemoryBudget::new(1 << 30));
        for milliseconds in 1..=100 {
            let stats = QueryStats { queued: Duration::from_millis(milliseconds), ..QueryStats::default() };
            metrics.observe(&stats, None);
        }
        let failed = QueryStats { queued: Duration::from_millis(1), ..QueryStats::default() };
        metrics.observe(&failed, Some(&QueryError::timeout()));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "# TYPE prometheus_engine_query_duration_seconds summary",
            "prometheus_engine_query_duration_seconds{slice=\"queue_time\",quantile=\"0.9\"} 0.09",
            "prometheus_engine_query_duration_seconds_count{slice=\"queue_time\"} 101",
            "prometheus_engine_query_duration_seconds_count{slice=\"inner_eval\"} 100",
            "prometheus_engine_queries_concurrent_max 20",
            "nilometer_queries_failed_total{type=\"timeout\"} 1",
            "nilometer_query_memory_max_bytes 1073741824",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
        }
    }
}
