//! Logs of failed scrapes (`scrape_failure_log_file`): one JSON object a line, keys as in Prometheus' file.
//!
//! Whoever embeds the scraper opens the files and writes them ([`FailureLogs::open`]); here is said what a line holds and
//! which log a job's failures go to. Files are opened anew at every reload, so that they may have been moved away.
//! Prometheus leaves out pages that came and could not be read, and limits; here each scrape with `up` 0 has its line.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Timestamp;
use parking_lot::Mutex;
use prometheus::{IntCounter, Registry};

/// Takes lines, without waiting.
pub trait FailureLog: Send + Sync {
    /// Takes a line; false: it is lost.
    fn write(&self, line: String) -> bool;
}

/// Opens a log; what cannot be written is counted in the counter.
type Open = dyn Fn(&Path, IntCounter) -> io::Result<Arc<dyn FailureLog>> + Send + Sync;

/// Opens logs of failed scrapes.
#[derive(Clone)]
pub struct FailureLogs {
    open: Arc<Open>,
}

impl FailureLogs {
    /// With what opens a file for appending. The counter is for lines that cannot be written later on.
    pub fn new(
        open: impl Fn(&Path, IntCounter) -> io::Result<Arc<dyn FailureLog>> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Arc::new(open) }
    }

    /// Opens nothing: jobs that name a file are refused.
    pub fn none() -> Self {
        Self::new(|_, _| Err(io::Error::new(io::ErrorKind::Unsupported, "there are no failure logs here")))
    }
}

impl fmt::Debug for FailureLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailureLogs")
    }
}

/// The opened logs of one configuration, by path: jobs that name the same file share it.
#[derive(Default)]
pub(crate) struct OpenedLogs {
    logs: BTreeMap<PathBuf, Arc<dyn FailureLog>>,
}

impl fmt::Debug for OpenedLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.logs.keys()).finish()
    }
}

impl OpenedLogs {
    /// The log at `path`, opened if that has not been done yet.
    pub(crate) fn open(
        &mut self,
        path: &Path,
        logs: &FailureLogs,
        lost: &IntCounter,
    ) -> io::Result<Arc<dyn FailureLog>> {
        if let Some(log) = self.logs.get(path) {
            return Ok(Arc::clone(log));
        }
        let log = (logs.open)(path, lost.clone())?;
        self.logs.insert(path.to_owned(), Arc::clone(&log));
        Ok(log)
    }
}

/// Where the failures of one job go at the moment; shared by its loops, which outlive reloads.
#[derive(Clone)]
pub(crate) struct FailureLogSlot {
    log: Arc<Mutex<Option<Arc<dyn FailureLog>>>>,
    lost: IntCounter,
}

impl FailureLogSlot {
    /// A slot that is empty; lines that find no room are counted in `lost`.
    pub(crate) fn new(lost: IntCounter) -> Self {
        Self { log: Arc::default(), lost }
    }

    /// Puts another log in and gives back the one before. Dropping that may wait for a disk.
    #[must_use]
    pub(crate) fn set(&self, log: Option<Arc<dyn FailureLog>>) -> Option<Arc<dyn FailureLog>> {
        std::mem::replace(&mut *self.log.lock(), log)
    }

    /// Notes that a scrape failed.
    pub(crate) fn note(&self, now_ms: Timestamp, error: &str, job: &str, target: &str) {
        // Written under the lock: no loop keeps a log that has been replaced.
        let log = self.log.lock();
        if let Some(log) = log.as_ref()
            && !log.write(line(now_ms, error, job, target))
        {
            self.lost.inc();
        }
    }
}

/// Lines that were lost.
pub(crate) fn lost_counter(registry: &Registry) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(
        "nilometer_scrape_failure_log_lines_lost_total",
        "Lines of scrape failure logs that could not be written.",
    )?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn line(now_ms: Timestamp, error: &str, job: &str, target: &str) -> String {
    let time = jiff::Timestamp::from_millisecond(now_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    // In this order, as Prometheus writes them: people read the lines as they are.
    let text = |value: &str| serde_json::Value::from(value).to_string();
    format!(
        r#"{{"time":"{time:.3}","level":"ERROR","source":"scrape_loop.rs","msg":{},"job_name":{},"target":{}}}"#,
        text(error),
        text(job),
        text(target)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl FailureLog for Lines {
        fn write(&self, line: String) -> bool {
            let mut lines = self.0.lock();
            lines.push(line);
            lines.len() < 3
        }
    }

    #[test]
    fn lines_have_the_keys_of_prometheus_and_lost_ones_are_counted() {
        let lines = Arc::new(Lines::default());
        let lost = lost_counter(&Registry::new()).unwrap();
        let slot = FailureLogSlot::new(lost.clone());
        slot.note(0, "nobody listens", "j", "t");
        assert!(slot.set(Some(Arc::clone(&lines) as _)).is_none());
        for _ in 0..3 {
            slot.note(1_700_000_000_123, "Get \"http://h/m\": no\nway", "j", "http://h/m");
        }
        assert!(slot.set(None).is_some());
        assert_eq!(
            lines.0.lock()[0],
            r#"{"time":"2023-11-14T22:13:20.123Z","level":"ERROR","source":"scrape_loop.rs","msg":"Get \"http://h/m\": no\nway","job_name":"j","target":"http://h/m"}"#
        );
        assert_eq!((lines.0.lock().len(), lost.get()), (3, 1));
    }

    #[test]
    fn jobs_share_a_file() {
        let opened = Arc::new(Mutex::new(0));
        let count = Arc::clone(&opened);
        let logs = FailureLogs::new(move |path, _| {
            if path.ends_with("bad") {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            *count.lock() += 1;
            Ok(Arc::new(Lines::default()))
        });
        let lost = lost_counter(&Registry::new()).unwrap();
        let mut open = OpenedLogs::default();
        for path in ["a", "b", "a"] {
            open.open(Path::new(path), &logs, &lost).unwrap();
        }
        assert_eq!(*opened.lock(), 2);
        assert!(open.open(Path::new("bad"), &logs, &lost).is_err());
        assert!(open.open(Path::new("a"), &FailureLogs::none(), &lost).is_ok(), "it is there already");
    }
}
