//! What the system knows about our process, under the names of Prometheus' client libraries.

use model::{Clock as _, Timestamp};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, Opts};

use crate::clock::SystemClock;

/// Size of a clock tick in `/proc/self/stat` (`USER_HZ`: 100 on every Linux we run on).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self` when asked.
#[derive(Debug)]
pub(crate) struct ProcessMetrics {
    cpu_seconds: Counter,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    threads: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    start_time: Gauge,
    descs: Vec<Desc>,
    /// The counter is set anew for each reader: two at once would see it between reset and value.
    refreshing: Mutex<()>,
}

impl ProcessMetrics {
    /// # Errors
    /// Never with these names; the signature is the library's.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| Gauge::with_opts(Opts::new(name, help));
        let start_time =
            gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")?;
        let started: Timestamp = SystemClock.now_ms();
        start_time.set(started as f64 / 1000.0);
        let mut metrics = Self {
            cpu_seconds: Counter::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            )?,
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            threads: IntGauge::new("process_threads", "Number of OS threads in the process.")?,
            open_fds: IntGauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_fds: IntGauge::new("process_max_fds", "Maximum number of open file descriptors.")?,
            start_time,
            descs: Vec::new(),
            refreshing: Mutex::new(()),
        };
        metrics.descs = metrics.parts().iter().flat_map(|part| part.desc()).cloned().collect();
        Ok(metrics)
    }

    fn parts(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.resident_bytes,
            &self.virtual_bytes,
            &self.threads,
            &self.open_fds,
            &self.max_fds,
            &self.start_time,
        ]
    }

    fn refresh(&self) {
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
            // The command's name may hold spaces; fields are counted from behind its parenthesis.
            let fields: Vec<f64> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .map(|field| field.parse().unwrap_or(0.0))
                .collect();
            let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
            // The system counts; we only show its count.
            self.cpu_seconds.reset();
            self.cpu_seconds.inc_by((field(14) + field(15)) / TICKS_PER_SECOND);
            self.threads.set(field(20) as i64);
            self.virtual_bytes.set(field(23));
        }
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let resident = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
            self.resident_bytes.set(resident.map_or(0.0, |kib: f64| kib * 1024.0));
        }
        if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(fds.count()).unwrap_or(i64::MAX));
        }
        if let Ok(limits) = std::fs::read_to_string("/proc/self/limits") {
            let max = limits.lines().find_map(|line| {
                line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok()
            });
            self.max_fds.set(max.unwrap_or(-1));
        }
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one_at_a_time = self.refreshing.lock();
        self.refresh();
        self.parts().iter().flat_map(|part| part.collect()).collect()
    }
}
