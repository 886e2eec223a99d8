//! Our own metrics page, and what is counted about requests.

use std::time::Duration;

use http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Counters of the server.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    sizes: HistogramVec,
    /// 1 once the parts are ready.
    pub ready: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    /// How often the bound on connections made new ones wait.
    pub connections_full: IntCounter,
    /// Connections closed since the client did not read its answer.
    pub connections_stalled: IntCounter,
}

impl HttpMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("prometheus_http_requests_total", "Counter of HTTP requests."),
                &["code", "handler"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "prometheus_http_request_duration_seconds",
                    "Histogram of latencies for HTTP requests.",
                )
                .buckets(vec![0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0]),
                &["handler"],
            )?,
            sizes: HistogramVec::new(
                HistogramOpts::new(
                    "prometheus_http_response_size_bytes",
                    "Histogram of response size for HTTP requests.",
                )
                .buckets(prometheus::exponential_buckets(100.0, 10.0, 8)?),
                &["handler"],
            )?,
            ready: IntGauge::new(
                "prometheus_ready",
                "Whether Prometheus startup was fully completed and the server is ready for normal operation.",
            )?,
            connections: IntGauge::new("nilometer_http_connections", "Open connections.")?,
            connections_full: IntCounter::new(
                "nilometer_http_connections_full_total",
                "How often all allowed connections were in use, so that new ones had to wait.",
            )?,
            connections_stalled: IntCounter::new(
                "nilometer_http_connections_stalled_total",
                "Connections closed because the client did not read its answer.",
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.sizes.clone()))?;
        registry.register(Box::new(metrics.ready.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.connections_full.clone()))?;
        registry.register(Box::new(metrics.connections_stalled.clone()))?;
        Ok(metrics)
    }

    /// Counts one answer. `handler` is the route's pattern, so the number of series is bounded.
    pub fn observe(&self, handler: &str, code: StatusCode, took: Duration, size_bytes: Option<u64>) {
        self.requests.with_label_values(&[code.as_str(), handler]).inc();
        self.durations.with_label_values(&[handler]).observe(took.as_secs_f64());
        if let Some(size) = size_bytes {
            self.size_of(handler).observe(size as f64);
        }
    }

    /// Where the size of an answer is told, when it is known only later.
    pub(crate) fn size_of(&self, handler: &str) -> Histogram {
        self.sizes.with_label_values(&[handler])
    }
}

/// The page in text format 0.0.4.
///
/// # Errors
/// When a collector gives families that cannot be written.
pub fn page(registry: &Registry) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&registry.gather())
}
