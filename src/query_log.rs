//! The file of the query log (`global.query_log_file`): a thread of its own writes it, so that no query waits for a disk.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use prometheus::IntCounter;
use query::exec::QueryLog;

/// Lines that may wait for the disk; further ones are lost, and counted.
const LINES_WAITING_MAX: usize = 4096;

/// An open query log. Dropped, it writes what waits and closes the file.
#[derive(Debug)]
pub(crate) struct QueryLogFile {
    /// `None` only while it is dropped.
    lines: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
}

impl QueryLogFile {
    /// Opens `path` for appending. Lines that cannot be written are counted in `failures`.
    ///
    /// # Errors
    /// When the file cannot be opened, or the system gives no thread.
    pub(crate) fn open(path: &Path, failures: IntCounter) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
        let path = path.to_owned();
        let writer = std::thread::Builder::new()
            .name("query-log".to_owned())
            .spawn(move || write_all(&path, BufWriter::new(file), &receiver, &failures))?;
        Ok(Self { lines: Some(sender), writer: Some(writer) })
    }
}

impl QueryLog for QueryLogFile {
    fn write(&self, line: String) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_ok())
    }
}

impl Drop for QueryLogFile {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(writer) = self.writer.take() {
            // A panic of the writer is in the log already.
            let _ = writer.join();
        }
    }
}

/// Writes until nobody is left who could send; flushes whenever nothing waits.
fn write_all(path: &Path, mut file: BufWriter<File>, lines: &Receiver<String>, failures: &IntCounter) {
    let mut failing = false;
    while let Ok(line) = lines.recv() {
        let mut next = Some(line);
        let mut taken = 0;
        let outcome = loop {
            let Some(line) = next.take() else { break file.flush() };
            taken += 1;
            if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n")) {
                break Err(error);
            }
            next = lines.try_recv().ok();
        };
        match outcome {
            Ok(()) => failing = false,
            Err(error) => {
                failures.inc_by(taken);
                if !failing {
                    tracing::warn!(path = %path.display(), %error, "cannot write the query log");
                }
                failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_written_when_the_log_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.log");
        let failures = IntCounter::new("f", "f").unwrap();
        for run in 0..2 {
            let log = QueryLogFile::open(&path, failures.clone()).unwrap();
            for line in 0..100 {
                assert!(log.write(format!("{run} {line}")));
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 200);
        assert!(text.starts_with("0 0\n0 1\n") && text.ends_with("\n1 99\n"));
        assert_eq!(failures.get(), 0);
        assert!(QueryLogFile::open(&dir.path().join("no/such/folder"), failures).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn lines_that_a_full_disk_refuses_are_counted() {
        let failures = IntCounter::new("f", "f").unwrap();
        let log = QueryLogFile::open(Path::new("/dev/full"), failures.clone()).unwrap();
        assert!(log.write("a".to_owned()));
        drop(log);
        assert_eq!(failures.get(), 1);
    }
}
