//! Files of lines for people: the query log (`global.query_log_file`) and logs of failed scrapes (`scrape_failure_log_file`). A
//! thread of its own writes each, so that neither queries nor scrapes wait for a disk.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use query::exec::QueryLog;
use scraper::FailureLog;

/// Lines that may wait for the disk, and their bytes; further ones are lost, and counted.
const LINES_WAITING_MAX: usize = 4096;
const BYTES_WAITING_MAX: usize = 8 << 20;
/// Bytes that are written at once, if so many wait.
const BATCH_BYTES: usize = 64 << 10;
/// How long closing waits for what is to be written; a disk that hangs longer keeps the thread, not us.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// An open log. Dropped, it writes what waits and closes the file.
#[derive(Debug)]
pub(crate) struct LogFile {
    /// What it is, for our own log.
    what: &'static str,
    /// `None` only while it is dropped.
    lines: Option<SyncSender<String>>,
    waiting: Arc<AtomicUsize>,
    /// Ends when the writer does. (Locked by nobody: a receiver alone could not be shared.)
    writer: Mutex<Receiver<()>>,
}

impl LogFile {
    /// Opens `path` for appending; `what` is the log's name. Lines that cannot be written are counted in `failures`.
    ///
    /// # Errors
    /// When the file cannot be opened, or the system gives no thread.
    pub(crate) fn open(path: &Path, what: &'static str, failures: IntCounter) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
        let (running, writer) = sync_channel(1);
        let waiting = Arc::<AtomicUsize>::default();
        let (path, taken) = (path.to_owned(), Arc::clone(&waiting));
        std::thread::Builder::new().name(what.replace(' ', "-")).spawn(move || {
            // Dropped at the end, also after a panic.
            let _running = running;
            write_all(what, &path, file, &receiver, &taken, &failures);
        })?;
        Ok(Self { what, lines: Some(sender), waiting, writer: Mutex::new(writer) })
    }

    /// Hands a line to the writer; false: there is no room for it.
    fn hand_over(&self, line: String) -> bool {
        let bytes = line.len();
        let Some(lines) = &self.lines else { return false };
        let room = |waiting: usize| waiting.checked_add(bytes).filter(|sum| *sum <= BYTES_WAITING_MAX);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            return false;
        }
        let sent = lines.try_send(line).is_ok();
        if !sent {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }
}

impl QueryLog for LogFile {
    fn write(&self, line: String) -> bool {
        self.hand_over(line)
    }
}

impl FailureLog for LogFile {
    fn write(&self, line: String) -> bool {
        self.hand_over(line)
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        drop(self.lines.take());
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if writer.recv_timeout(CLOSE_WAIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the {} is left behind: its disk has not taken what waits for it", self.what);
        }
    }
}

/// Writes until nobody is left who could send, line by line or as many at once as wait.
fn write_all(
    what: &str,
    path: &Path,
    file: impl Write,
    lines: &Receiver<String>,
    waiting: &AtomicUsize,
    failures: &IntCounter,
) {
    let mut writer = LineWriter { file, torn: false };
    let mut batch = Vec::new();
    let mut failing = false;
    while let Ok(line) = lines.recv() {
        batch.clear();
        let mut taken = 0;
        let mut next = Some(line);
        while let Some(line) = next {
            taken += line.len();
            batch.extend_from_slice(line.as_bytes());
            batch.push(b'\n');
            next = if batch.len() < BATCH_BYTES { lines.try_recv().ok() } else { None };
        }
        let outcome = writer.write(&batch);
        waiting.fetch_sub(taken, Ordering::Relaxed);
        match outcome {
            Ok(()) => failing = false,
            Err((lost, error)) => {
                failures.inc_by(lost);
                if !failing {
                    tracing::warn!(path = %path.display(), %error, "cannot write the {what}");
                }
                failing = true;
            }
        }
    }
}

/// Writes whole lines, and after an error begins on a line of its own.
struct LineWriter<W> {
    file: W,
    /// Whether the file ends within a line.
    torn: bool,
}

impl<W: Write> LineWriter<W> {
    /// Writes `lines`, each with its end. On failure, says how many were lost.
    fn write(&mut self, lines: &[u8]) -> Result<(), (u64, std::io::Error)> {
        let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let mut rest = lines;
        loop {
            let next: &[u8] = if self.torn { b"\n" } else { rest };
            if next.is_empty() {
                return Ok(());
            }
            match self.file.write(next) {
                Ok(0) => return Err((ends(rest), std::io::ErrorKind::WriteZero.into())),
                Ok(_) if self.torn => self.torn = false,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let written = &lines[..lines.len() - rest.len()];
                    self.torn |= written.last().is_some_and(|last| *last != b'\n');
                    return Err((ends(rest), error));
                }
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
            let log = LogFile::open(&path, "query log", failures.clone()).unwrap();
            for line in 0..100 {
                assert!(log.hand_over(format!("{run} {line}")));
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 200);
        assert!(text.starts_with("0 0\n0 1\n") && text.ends_with("\n1 99\n"));
        assert_eq!(failures.get(), 0);
        assert!(LogFile::open(&dir.path().join("no/such/folder"), "query log", failures).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn lines_that_a_full_disk_refuses_are_counted() {
        let failures = IntCounter::new("f", "f").unwrap();
        let log = LogFile::open(Path::new("/dev/full"), "query log", failures.clone()).unwrap();
        assert!(log.hand_over("a".to_owned()));
        drop(log);
        assert_eq!(failures.get(), 1);
    }

    /// A disk that takes some bytes, then none, then all.
    struct Moody {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let count = bytes.len().min(self.room).min(7);
            if count == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn torn_lines_end_and_are_counted() {
        let mut writer = LineWriter { file: Moody { room: 10, taken: Vec::new() }, torn: false };
        // The first is whole, the second torn, the third not begun.
        assert_eq!(writer.write(b"first\nsecond\nthird\n").unwrap_err().0, 2);
        assert_eq!(writer.write(b"fourth\n").unwrap_err().0, 1);
        writer.file.room = 100;
        writer.write(b"fifth\n").unwrap();
        assert_eq!(String::from_utf8(writer.file.taken).unwrap(), "first\nseco\nfifth\n");
    }

    /// Nobody reads the pipe: its writer hangs, and holds no more than it may.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let (reader, writer) = std::io::pipe().unwrap();
        let path =
            std::path::PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer)));
        let log = LogFile::open(&path, "query log", IntCounter::new("f", "f").unwrap()).unwrap();
        let line = "x".repeat(1 << 20);
        let taken = (0..64).filter(|_| log.hand_over(line.clone())).count();
        assert!((7..=8).contains(&taken), "{taken}");
        // Broken, the pipe refuses what waits.
        drop((reader, writer));
    }
}
