//! The common schema of all collectors: one set of metric names and labels, whatever the broker.
//!
//! A [`QueueReading`] is what is known of one *reader*: a plain queue has one (no `group`), a log or a topic one per
//! group. What a broker does not tell stays absent, it is never guessed. How readings become samples (caps, dead-letter
//! queues, objectives) is [`super::queues`]'s matter.

use model::{Labels, Metadata, MetricKind};

use super::ScrapedSample;

/// Name, type and help of a metric family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The metric name.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Its unit, or empty.
    pub unit: &'static str,
    /// What it says.
    pub help: &'static str,
}

impl Family {
    const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Gauge, unit, help }
    }

    const fn counter(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Counter, unit, help }
    }

    /// As stored with the series.
    pub fn metadata(&self) -> (String, Metadata) {
        let metadata = Metadata { kind: self.kind, unit: self.unit.to_owned(), help: self.help.to_owned() };
        (self.name.to_owned(), metadata)
    }
}

/// How a value joins others in `queue="__other__"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Added up.
    Sum,
    /// The largest.
    Max,
    /// Left out: the sum of counters over a changing set of queues is no counter, and flags do not add.
    Omit,
}

macro_rules! queue_metrics {
    ($($variant:ident, $fold:ident, $kind:ident($name:literal, $unit:literal, $help:literal);)*) => {
        /// A metric of a reader.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum QueueMetric {
            $(#[doc = $help] $variant,)*
        }

        /// All metrics of a reader, in order of [`QueueMetric`].
        pub const QUEUE_METRICS: &[(QueueMetric, Fold, Family)] = &[
            $((QueueMetric::$variant, Fold::$fold, Family::$kind($name, $unit, $help)),)*
        ];

        const QUEUE_METRICS_COUNT: usize = [$(QueueMetric::$variant),*].len();
    };
}

queue_metrics! {
    Ready, Sum, gauge("queue_messages_ready", "", "Messages that may be delivered to this reader now.");
    InFlight, Sum, gauge("queue_messages_in_flight", "", "Messages delivered and not yet acknowledged.");
    Delayed, Sum, gauge("queue_messages_delayed", "", "Messages that are not yet due.");
    Dead, Sum, gauge("queue_messages_dead", "", "Messages parked for good.");
    Retained, Sum, gauge("queue_messages_retained", "", "Messages stored in a log whether read or not.");
    SizeBytes, Sum, gauge("queue_size_bytes", "bytes", "Payload bytes stored.");
    MessagesLimit, Omit, gauge("queue_messages_limit", "", "Most messages the queue takes.");
    SizeLimitBytes, Omit, gauge("queue_size_limit_bytes", "bytes", "Most payload bytes the queue takes.");
    Enqueued, Omit, counter("queue_messages_enqueued_total", "", "Messages put in.");
    Dequeued, Omit, counter("queue_messages_dequeued_total", "", "Messages finished: acknowledged, deleted or committed.");
    Delivered, Omit, counter("queue_messages_delivered_total", "", "Messages handed to a consumer, redeliveries included.");
    Redelivered, Omit, counter("queue_messages_redelivered_total", "", "Messages delivered again.");
    DeadTotal, Omit, counter("queue_messages_dead_total", "", "Messages that went to dead letter.");
    Expired, Omit, counter("queue_messages_expired_total", "", "Messages that expired.");
    Consumers, Sum, gauge("queue_consumers", "", "Readers attached.");
    LagMessages, Sum, gauge("queue_lag_messages", "", "Messages ready or in flight for this reader.");
    LagSeconds, Max, gauge("queue_lag_seconds", "seconds", "Age of the oldest message this reader has not finished.");
    OldestAge, Max, gauge("queue_oldest_message_age_seconds", "seconds", "Age of the oldest ready message.");
    OldestPendingDeliveries, Max, gauge("queue_oldest_pending_deliveries", "", "How often the oldest message in flight was delivered.");
    Paused, Omit, gauge("queue_paused", "", "1 if delivery is paused.");
    ReplicasOutOfSync, Sum, gauge("queue_replicas_out_of_sync", "", "Replicas of the queue that are behind.");
    PartitionsLeaderless, Sum, gauge("queue_partitions_leaderless", "", "Partitions of the queue without a leader.");
}

/// Constant facts of a queue.
pub const QUEUE_INFO: Family = Family::gauge("queue_info", "", "Facts about the queue in labels.");
/// Objective for [`QueueMetric::LagSeconds`].
pub const SLO_LAG: Family = Family::gauge(
    "queue_slo_lag_seconds",
    "seconds",
    "Objective: lag of this reader, from the configuration.",
);
/// Objective for the time to drain.
pub const SLO_DRAIN: Family = Family::gauge(
    "queue_slo_drain_seconds",
    "seconds",
    "Objective: time to drain of this reader, from the configuration.",
);
/// Objective for [`QueueMetric::Ready`].
pub const SLO_READY: Family = Family::gauge(
    "queue_slo_ready_messages",
    "",
    "Objective: ready messages of this reader, from the configuration.",
);

macro_rules! families {
    ($($constant:ident = $kind:ident($name:literal, $unit:literal, $help:literal);)*) => {
        $(#[doc = $help] pub const $constant: Family = Family::$kind($name, $unit, $help);)*
        /// Families of nodes, clusters and collectors.
        pub const OTHER_FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    QUEUE_UP = gauge("queue_up", "", "1 if the broker was reached, authenticated, and every mandatory answer parsed.");
    NODE_UP = gauge("queue_node_up", "", "1 for each member of the cluster that is up, as seen from the target.");
    NODE_INFO = gauge("queue_node_info", "", "Facts about the node in labels.");
    NODE_START_TIME = gauge("queue_node_start_time_seconds", "seconds", "When the node started, since the epoch.");
    NODE_MEMORY_USED = gauge("queue_node_memory_used_bytes", "bytes", "Memory in use.");
    NODE_MEMORY_LIMIT = gauge("queue_node_memory_limit_bytes", "bytes", "Memory at which the broker blocks or evicts.");
    NODE_CONNECTIONS = gauge("queue_node_connections", "", "Open client connections.");
    NODE_CONNECTIONS_LIMIT = gauge("queue_node_connections_limit", "", "Most client connections.");
    NODE_ALARM = gauge("queue_node_alarm", "", "1 while the broker is in trouble of the kind in label alarm.");
    NODE_EVICTED = counter("queue_node_evicted_keys_total", "", "Keys the broker threw away for lack of memory.");
    CLUSTER_NODES = gauge("queue_cluster_nodes", "", "Members of the cluster, as seen from the target.");
    COLLECTOR_DURATION = gauge("queue_collector_duration_seconds", "seconds", "How long the collection took.");
    COLLECTOR_INTERVAL = gauge("queue_collector_interval_seconds", "seconds", "How often the target is collected.");
    COLLECTOR_PARTIAL = gauge("queue_collector_partial", "", "1 if the collection is incomplete for the reason in label reason.");
    COLLECTOR_ERRORS = counter("queue_collector_errors_total", "", "Errors of the collector by stage.");
    COLLECTOR_DROPPED = gauge("queue_collector_queues_dropped", "", "Queues and groups past the limits, summed into __other__.");
    COLLECTOR_COMMANDS = counter("queue_collector_commands_total", "", "Requests sent to the broker.");
    COLLECTOR_SENT = counter("queue_collector_sent_bytes_total", "bytes", "Bytes sent to the broker.");
    COLLECTOR_RECEIVED = counter("queue_collector_received_bytes_total", "bytes", "Bytes received from the broker.");
}

/// Metadata of every family of the schema.
pub fn metadata() -> Vec<(String, Metadata)> {
    QUEUE_METRICS
        .iter()
        .map(|(_, _, family)| family)
        .chain([&QUEUE_INFO, &SLO_LAG, &SLO_DRAIN, &SLO_READY])
        .chain(OTHER_FAMILIES)
        .map(Family::metadata)
        .collect()
}

/// Constant facts of a queue, for [`QUEUE_INFO`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueInfo {
    /// `list`, `stream`, `quorum`, …
    pub kind: &'static str,
    /// Whether it survives a restart of the broker, where that is told.
    pub durable: Option<bool>,
    /// Where dead letters go, or empty.
    pub dead_letter_to: String,
    /// How [`QueueMetric::LagSeconds`] is found (`head_time`, `head_watch`, `shadow_timeline`), or empty.
    pub lag_method: &'static str,
}

/// What is known of one reader.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueReading {
    /// Label `system`.
    pub system: &'static str,
    /// Label `vhost`, or empty.
    pub vhost: String,
    /// Label `queue`.
    pub queue: String,
    /// Label `group`, or empty.
    pub group: String,
    /// Facts; for a log on the reading without group only.
    pub info: Option<QueueInfo>,
    /// Whether the broker itself says that it is a dead-letter queue.
    pub is_dead_letter: bool,
    values: [Option<f64>; QUEUE_METRICS_COUNT],
}

impl QueueReading {
    /// A reading without values.
    pub fn new(
        system: &'static str,
        vhost: impl Into<String>,
        queue: impl Into<String>,
        group: impl Into<String>,
    ) -> Self {
        Self {
            system,
            vhost: vhost.into(),
            queue: queue.into(),
            group: group.into(),
            info: None,
            is_dead_letter: false,
            values: [None; QUEUE_METRICS_COUNT],
        }
    }

    /// Sets a value.
    pub fn set(&mut self, metric: QueueMetric, value: f64) -> &mut Self {
        self.values[metric as usize] = Some(value);
        self
    }

    /// Sets or removes a value.
    pub fn set_optional(&mut self, metric: QueueMetric, value: Option<f64>) -> &mut Self {
        self.values[metric as usize] = value;
        self
    }

    /// A value, if known.
    pub fn get(&self, metric: QueueMetric) -> Option<f64> {
        self.values[metric as usize]
    }

    /// Forgets all values.
    pub fn clear_values(&mut self) {
        self.values = [None; QUEUE_METRICS_COUNT];
    }

    /// Joins `other` by the metrics' [`Fold`].
    pub fn fold(&mut self, other: &Self) {
        for (metric, fold, _) in QUEUE_METRICS {
            let index = *metric as usize;
            self.values[index] = match (fold, self.values[index], other.values[index]) {
                (Fold::Omit, _, _) => None,
                (_, mine, None) => mine,
                (_, None, theirs) => theirs,
                (Fold::Sum, Some(mine), Some(theirs)) => Some(mine + theirs),
                (Fold::Max, Some(mine), Some(theirs)) => Some(mine.max(theirs)),
            };
        }
    }

    /// Appends a sample of `family` with this reader's labels.
    pub fn push(&self, out: &mut Vec<ScrapedSample>, family: &Family, value: f64) {
        let pairs = [
            ("__name__", family.name),
            ("group", &self.group),
            ("queue", &self.queue),
            ("system", self.system),
            ("vhost", &self.vhost),
        ];
        out.push(ScrapedSample::new(sorted_labels(&pairs), value));
    }

    /// Appends all values and the info.
    pub fn push_all(&self, out: &mut Vec<ScrapedSample>) {
        for (metric, _, family) in QUEUE_METRICS {
            if let Some(value) = self.get(*metric) {
                self.push(out, family, value);
            }
        }
        if let Some(info) = &self.info {
            let durable = info.durable.map_or("", |durable| if durable { "true" } else { "false" });
            let pairs = [
                ("__name__", QUEUE_INFO.name),
                ("dead_letter_to", &info.dead_letter_to),
                ("durable", durable),
                ("group", &self.group),
                ("lag_method", info.lag_method),
                ("queue", &self.queue),
                ("system", self.system),
                ("type", info.kind),
                ("vhost", &self.vhost),
            ];
            out.push(ScrapedSample::new(sorted_labels(&pairs), 1.0));
        }
    }
}

/// Appends a sample of `family` with `pairs` (in any order, empty values left out) as labels.
pub fn push_sample(out: &mut Vec<ScrapedSample>, family: &Family, pairs: &[(&str, &str)], value: f64) {
    let mut all = Vec::with_capacity(pairs.len() + 1);
    all.push(("__name__", family.name));
    all.extend_from_slice(pairs);
    all.sort_unstable();
    out.push(ScrapedSample::new(sorted_labels(&all), value));
}

fn sorted_labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_sorted(pairs.iter().copied().filter(|(_, value)| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_are_unique() {
        for (index, (metric, _, _)) in QUEUE_METRICS.iter().enumerate() {
            assert_eq!(*metric as usize, index);
        }
        let mut names: Vec<String> = metadata().into_iter().map(|(name, _)| name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn folding_adds_gauges_takes_the_oldest_and_leaves_counters_out() {
        let mut other = QueueReading::new("redis", "0", "__other__", "");
        for (ready, lag) in [(3.0, 5.0), (4.0, 2.0)] {
            let mut reading = QueueReading::new("redis", "0", "a", "");
            reading.set(QueueMetric::Ready, ready).set(QueueMetric::LagSeconds, lag);
            reading.set(QueueMetric::Enqueued, 7.0);
            other.fold(&reading);
        }
        assert_eq!(other.get(QueueMetric::Ready), Some(7.0));
        assert_eq!(other.get(QueueMetric::LagSeconds), Some(5.0));
        assert_eq!(other.get(QueueMetric::Enqueued), None);
    }
}
