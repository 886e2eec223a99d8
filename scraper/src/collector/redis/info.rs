//! `INFO` and `CLUSTER INFO`: what a node tells about itself.

use std::collections::BTreeMap;

use crate::collector::ScrapedSample;
use crate::collector::schema::{
    CLUSTER_NODES, Family, NODE_ALARM, NODE_CONNECTIONS, NODE_CONNECTIONS_LIMIT, NODE_EVICTED, NODE_INFO,
    NODE_MEMORY_LIMIT, NODE_MEMORY_USED, NODE_START_TIME, push_sample,
};

use super::SYSTEM;

/// Most lines read of an `INFO` answer.
const LINES_MAX: usize = 4096;
/// The alarm for evictions ends so long after the last one.
const EVICTION_ALARM_MS: i64 = 15 * 60 * 1000;
/// A start time that differs by less is the same start: `uptime_in_seconds` is whole seconds.
const START_TOLERANCE_SECONDS: i64 = 2;

/// A parsed `INFO` answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Info {
    fields: BTreeMap<String, String>,
}

/// What must be remembered between collections.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeMemory {
    /// The process that answered last, and the start time it was given.
    start: Option<(String, i64)>,
    /// Evicted keys when last looked, and when they last grew.
    evicted: Option<(u64, i64)>,
}

impl Info {
    /// Reads `name:value` lines; others (section titles, blank ones) are skipped.
    pub(crate) fn parse(text: &str) -> Self {
        let fields = text
            .lines()
            .take(LINES_MAX)
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()))
            .collect();
        Self { fields }
    }

    /// A field's text, or empty.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// A field's number. Negative and malformed ones are none.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// Whether it is the answer of a Redis at all.
    pub(crate) fn is_plausible(&self) -> bool {
        self.fields.contains_key("redis_version")
    }

    /// Whether the node copies another one, so that its queues are that one's.
    pub(crate) fn is_replica(&self) -> bool {
        self.text("role") == "slave"
    }

    /// Whether the node has keys at all.
    pub(crate) fn is_sentinel(&self) -> bool {
        self.text("redis_mode") == "sentinel"
    }

    /// Whether the data are still being read from disk.
    pub(crate) fn is_loading(&self) -> bool {
        self.number("loading") == Some(1)
    }

    /// Whether the node is one of a cluster.
    pub(crate) fn is_clustered(&self) -> bool {
        self.number("cluster_enabled") == Some(1)
    }

    /// Milliseconds since the epoch by the server's clock, where `INFO` has it.
    pub(crate) fn server_time_ms(&self) -> Option<i64> {
        i64::try_from(self.number("server_time_usec")? / 1000).ok()
    }

    /// The databases that have keys, ascending, and how many keys that are.
    pub(crate) fn databases(&self) -> Vec<(u32, u64)> {
        let mut databases: Vec<(u32, u64)> = self
            .fields
            .iter()
            .filter_map(|(name, value)| {
                let number = name.strip_prefix("db")?.parse().ok()?;
                let keys = value.strip_prefix("keys=")?.split(',').next()?.parse().ok()?;
                Some((number, keys))
            })
            .collect();
        databases.sort_unstable();
        databases
    }

    /// Appends the samples of the node. `broker_now_ms` is the server's clock.
    pub(crate) fn push(
        &self,
        out: &mut Vec<ScrapedSample>,
        node: &str,
        memory: &mut NodeMemory,
        broker_now_ms: i64,
    ) {
        let labels = [("node", node), ("system", SYSTEM)];
        let info = [
            labels[0],
            labels[1],
            ("version", self.text("redis_version")),
            ("role", self.text("role")),
            ("mode", self.text("redis_mode")),
        ];
        push_sample(out, &NODE_INFO, &info, 1.0);
        let mut push = |family: &Family, value: Option<f64>| {
            if let Some(value) = value {
                push_sample(out, family, &labels, value);
            }
        };
        let number = |name: &str| self.number(name).map(|number| number as f64);
        push(&NODE_START_TIME, self.start_time(memory, broker_now_ms).map(|seconds| seconds as f64));
        push(&NODE_MEMORY_USED, number("used_memory"));
        push(&NODE_MEMORY_LIMIT, number("maxmemory").filter(|limit| *limit > 0.0));
        push(&NODE_CONNECTIONS, number("connected_clients"));
        push(&NODE_CONNECTIONS_LIMIT, number("maxclients"));
        push(&NODE_EVICTED, number("evicted_keys"));
        for (alarm, active) in self.alarms(memory, broker_now_ms) {
            let labels = [("alarm", alarm), labels[0], labels[1]];
            push_sample(out, &NODE_ALARM, &labels, f64::from(u8::from(active)));
        }
    }

    /// Since when the process runs, in seconds since the epoch: steady as long as the process is the same.
    fn start_time(&self, memory: &mut NodeMemory, broker_now_ms: i64) -> Option<i64> {
        let uptime = i64::try_from(self.number("uptime_in_seconds")?).ok()?;
        // Both sides of the difference come from the server's cached clock, which makes it exact.
        let now = self.server_time_ms().unwrap_or(broker_now_ms) / 1000;
        let start = now.checked_sub(uptime)?;
        let run_id = self.text("run_id");
        match &memory.start {
            Some((id, known)) if id == run_id && known.abs_diff(start) <= START_TOLERANCE_SECONDS as u64 => {
                Some(*known)
            }
            _ => {
                memory.start = Some((run_id.to_owned(), start));
                Some(start)
            }
        }
    }

    fn alarms(&self, memory: &mut NodeMemory, now_ms: i64) -> Vec<(&'static str, bool)> {
        let mut alarms = Vec::new();
        let keeps_all = self.text("maxmemory_policy") == "noeviction";
        if let Some(evicted) = self.number("evicted_keys") {
            let since = match memory.evicted {
                Some((before, since)) if evicted == before => since,
                None if evicted == 0 => i64::MIN,
                // First sight counts: nobody has told of it yet.
                _ if evicted > 0 => now_ms,
                _ => i64::MIN,
            };
            memory.evicted = Some((evicted, since));
            let recent = now_ms.saturating_sub(since) < EVICTION_ALARM_MS;
            alarms.push(("eviction", !keeps_all && evicted > 0 && recent));
        }
        if let (Some(used), Some(limit)) = (self.number("used_memory"), self.number("maxmemory")) {
            // With noeviction a full Redis refuses writes: producers fail.
            alarms.push(("memory", keeps_all && limit > 0 && used >= limit));
        }
        let failed = |field: &str| !matches!(self.text(field), "ok" | "");
        alarms.push(("rdb_save", failed("rdb_last_bgsave_status")));
        alarms.push(("aof_write", self.number("aof_enabled") == Some(1) && failed("aof_last_write_status")));
        alarms.push(("loading", self.is_loading()));
        if self.is_replica() {
            alarms.push(("replica_link", self.text("master_link_status") != "up"));
        }
        alarms
    }
}

/// Appends what `CLUSTER INFO` tells.
pub(crate) fn push_cluster(out: &mut Vec<ScrapedSample>, node: &str, cluster: &Info) {
    if let Some(nodes) = cluster.number("cluster_known_nodes") {
        push_sample(out, &CLUSTER_NODES, &[("system", SYSTEM)], nodes as f64);
    }
    let broken = !matches!(cluster.text("cluster_state"), "ok" | "");
    let labels = [("alarm", "cluster_state"), ("node", node), ("system", SYSTEM)];
    push_sample(out, &NODE_ALARM, &labels, f64::from(u8::from(broken)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../../../testdata/redis/info.txt");
    const NOW: i64 = 1_795_372_300_000;

    fn info(changes: &[(&str, &str)]) -> Info {
        let mut info = Info::parse(RECORDED);
        for (name, value) in changes {
            info.fields.insert((*name).to_owned(), (*value).to_owned());
        }
        info
    }

    fn samples(info: &Info, memory: &mut NodeMemory, now: i64) -> BTreeMap<String, f64> {
        let mut out = Vec::new();
        info.push(&mut out, "h:1", memory, now);
        out.into_iter()
            .map(|sample| {
                let alarm = sample.labels.value("alarm").to_owned();
                (
                    format!(
                        "{}{}{alarm}",
                        sample.labels.metric_name(),
                        if alarm.is_empty() { "" } else { " " }
                    ),
                    sample.value,
                )
            })
            .collect()
    }

    #[test]
    fn a_recorded_answer_becomes_node_metrics() {
        let mut out = Vec::new();
        info(&[]).push(&mut out, "h:1", &mut NodeMemory::default(), NOW);
        assert_eq!(
            out[0].labels.to_string(),
            r#"{__name__="queue_node_info", mode="standalone", node="h:1", role="master", system="redis", version="7.0.15"}"#
        );
        let samples = samples(&info(&[]), &mut NodeMemory::default(), NOW);
        assert_eq!(samples["queue_node_memory_used_bytes"], 2_514_912.0);
        assert!(!samples.contains_key("queue_node_memory_limit_bytes"), "maxmemory 0 is no limit");
        assert_eq!(samples["queue_node_connections"], 2.0);
        assert_eq!(samples["queue_node_connections_limit"], 10_000.0);
        assert_eq!(samples["queue_node_start_time_seconds"], (NOW / 1000 - 574) as f64);
        for alarm in ["eviction", "memory", "rdb_save", "aof_write", "loading"] {
            assert_eq!(samples[&format!("queue_node_alarm {alarm}")], 0.0, "{alarm}");
        }
        assert!(!samples.contains_key("queue_node_alarm replica_link"));
        let databases = info(&[]).databases();
        assert_eq!(databases, [(0, 2), (1, 7), (2, 6), (3, 15), (4, 8)]);
    }

    #[test]
    fn the_start_time_is_steady_until_the_process_changes() {
        let mut memory = NodeMemory::default();
        let mut start = |uptime: &str, run: &str, now: i64| {
            let info = info(&[("uptime_in_seconds", uptime), ("run_id", run)]);
            samples(&info, &mut memory, now)["queue_node_start_time_seconds"]
        };
        let first = start("574", "a", NOW);
        assert_eq!(start("588", "a", NOW + 15_000), first, "a second of rounding is no restart");
        assert_eq!(start("0", "b", NOW + 20_000), (NOW / 1000 + 20) as f64);
    }

    #[test]
    fn evictions_alarm_while_they_happen() {
        let mut memory = NodeMemory::default();
        let mut alarm = |evicted: &str, policy: &str, now: i64| {
            let info = info(&[("evicted_keys", evicted), ("maxmemory_policy", policy)]);
            samples(&info, &mut memory, now)["queue_node_alarm eviction"]
        };
        assert_eq!(alarm("0", "allkeys-lru", NOW), 0.0);
        assert_eq!(alarm("3", "allkeys-lru", NOW + 1), 1.0);
        assert_eq!(alarm("3", "allkeys-lru", NOW + 2), 1.0);
        assert_eq!(alarm("3", "noeviction", NOW + 3), 0.0);
        assert_eq!(alarm("3", "allkeys-lru", NOW + 1 + EVICTION_ALARM_MS), 0.0, "no news for long");
        assert_eq!(alarm("4", "allkeys-lru", NOW + 2 + EVICTION_ALARM_MS), 1.0);
        assert_eq!(alarm("0", "allkeys-lru", NOW + 3 + EVICTION_ALARM_MS), 0.0, "restarted");
    }

    #[test]
    fn other_alarms() {
        let alarm = |changes: &[(&str, &str)], name: &str| {
            samples(&info(changes), &mut NodeMemory::default(), NOW)[&format!("queue_node_alarm {name}")]
        };
        assert_eq!(alarm(&[("rdb_last_bgsave_status", "err")], "rdb_save"), 1.0);
        assert_eq!(alarm(&[("aof_enabled", "1"), ("aof_last_write_status", "err")], "aof_write"), 1.0);
        assert_eq!(alarm(&[("aof_last_write_status", "err")], "aof_write"), 0.0, "not in use");
        assert_eq!(alarm(&[("maxmemory", "100"), ("used_memory", "101")], "memory"), 1.0);
        assert_eq!(alarm(&[("role", "slave"), ("master_link_status", "down")], "replica_link"), 1.0);
        assert_eq!(alarm(&[("role", "slave"), ("master_link_status", "up")], "replica_link"), 0.0);
    }

    #[test]
    fn nonsense_gives_no_numbers() {
        let info = info(&[
            ("used_memory", "-5"),
            ("connected_clients", "18446744073709551616"),
            ("uptime_in_seconds", "18446744073709551615"),
            ("db9", "keys=x"),
        ]);
        let samples = samples(&info, &mut NodeMemory::default(), NOW);
        for name in ["memory_used_bytes", "connections", "start_time_seconds"] {
            assert!(!samples.contains_key(&format!("queue_node_{name}")), "{name}");
        }
        assert!(!Info::parse("HTTP/1.1 200 OK\r\n\r\n:::\n").is_plausible());
    }
}
