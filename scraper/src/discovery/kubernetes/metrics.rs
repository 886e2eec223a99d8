//! Metrics of Kubernetes discovery, under Prometheus' names.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Counters of all Kubernetes discoverers.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesMetrics {
    /// What was seen to happen to objects (`role`, `event`).
    pub(super) events: IntCounterVec,
    /// Lists and watches that failed.
    pub(super) failures: IntCounter,
    /// Answers of the API server (`status_code`).
    pub(super) requests: IntCounterVec,
}

impl KubernetesMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            events: IntCounterVec::new(
                Opts::new(
                    "prometheus_sd_kubernetes_events_total",
                    "The number of Kubernetes events handled.",
                ),
                &["role", "event"],
            )?,
            failures: IntCounter::new(
                "prometheus_sd_kubernetes_failures_total",
                "The number of failed WATCH/LIST requests.",
            )?,
            requests: IntCounterVec::new(
                Opts::new(
                    "prometheus_sd_kubernetes_http_request_total",
                    "Total number of HTTP requests to the Kubernetes API by status code.",
                ),
                &["status_code"],
            )?,
        };
        for role in ["endpointslice", "endpoints", "node", "pod", "service", "ingress"] {
            for event in ["add", "delete", "update"] {
                metrics.events.with_label_values(&[role, event]);
            }
        }
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        Ok(metrics)
    }
}
