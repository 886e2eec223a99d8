//! The file `queries.active` in the data directory: what queries are being evaluated, so that the next start can say which
//! ones a crash ended. Form and name are those of Prometheus: `[`, then a place of a thousand bytes for each query that may run
//! at once, holding `{"query":"…","timestamp_sec":N},` or zeros.
//!
//! Written in place and never synced: it has to outlive the process, not the machine. A full disk costs entries, no queries.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::Clock;
use query::exec::QueryTracker;

const FILE: &str = "queries.active";
/// Bytes of an entry with the comma behind it.
const ENTRY_BYTES: usize = 1000;
/// What is there before the first entry.
const BEGIN: &[u8] = b"[";
/// Most bytes of an old file that are looked at.
const OLD_BYTES_MAX: u64 = 1 << 20;

/// The file with its free places.
#[derive(Debug)]
pub(crate) struct ActiveQueries {
    file: File,
    clock: Arc<dyn Clock>,
    free: Mutex<Vec<usize>>,
    /// Whether the last write failed: told once.
    is_failing: AtomicBool,
}

impl ActiveQueries {
    /// Opens the file in `dir` for so many queries at once, and tells the log of those that the last run left in it.
    pub(crate) fn open(dir: &Path, places: usize, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let path = dir.join(FILE);
        if let Some(queries) = left_over(&path)? {
            // Prometheus' own words: people search for them.
            tracing::warn!(queries, "These queries didn't run to completion in prometheus' last run:");
        }
        let file = File::options().create(true).write(true).truncate(true).open(&path)?;
        file.write_all_at(BEGIN, 0)?;
        file.set_len((BEGIN.len() + places * ENTRY_BYTES) as u64)?;
        Ok(Self {
            file,
            clock,
            // The first place is taken first.
            free: Mutex::new((0..places).rev().collect()),
            is_failing: AtomicBool::new(false),
        })
    }

    fn write(&self, place: usize, entry: &[u8; ENTRY_BYTES]) {
        let written = self.file.write_all_at(entry, (BEGIN.len() + place * ENTRY_BYTES) as u64);
        let was_failing = self.is_failing.swap(written.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (written, was_failing) {
            tracing::warn!(%error, "cannot write {FILE}");
        }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueryTracker for ActiveQueries {
    fn begin(&self, text: &str) -> Option<usize> {
        let place = self.free().pop()?;
        self.write(place, &entry(text, self.clock.now_ms() / 1000));
        Some(place)
    }

    fn end(&self, place: usize) {
        self.write(place, &[0; ENTRY_BYTES]);
        self.free().push(place);
    }
}

/// An entry, with as much of the text as has room.
fn entry(text: &str, seconds: i64) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    let mut most = ENTRY_BYTES;
    loop {
        let text = &text[..text.floor_char_boundary(most)];
        let entry = format!("{{\"query\":{},\"timestamp_sec\":{seconds}}},", web::json::string(text));
        if entry.len() <= ENTRY_BYTES {
            bytes[..entry.len()].copy_from_slice(entry.as_bytes());
            return bytes;
        }
        // Escapes take up to six times their text.
        most = most * 7 / 8;
    }
}

/// The entries of an earlier run as a JSON list; `None` when there are none.
fn left_over(path: &Path) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(OLD_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    bytes.retain(|byte| *byte != 0);
    let text = String::from_utf8_lossy(&bytes);
    let entries = text.trim_start_matches('[').trim_end_matches(',');
    Ok((!entries.is_empty()).then(|| format!("[{entries}]")))
}

#[cfg(test)]
mod tests {
    use model::ManualClock;

    use super::*;

    fn open(dir: &Path) -> ActiveQueries {
        ActiveQueries::open(dir, 2, Arc::new(ManualClock::new(1_700_000_000_999))).unwrap()
    }

    #[test]
    fn what_runs_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(left_over(&path).unwrap(), None);
        let active = open(dir.path());
        assert_eq!(left_over(&path).unwrap(), None);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2001);
        let first = active.begin("up{a=\"b\"}").unwrap();
        let second = active.begin(&"ü\n".repeat(1000)).unwrap();
        // There is no room for a third; it runs all the same.
        assert_eq!(active.begin("x"), None);
        let read =
            || -> serde_json::Value { serde_json::from_str(&left_over(&path).unwrap().unwrap()).unwrap() };
        let queries = read();
        assert_eq!(queries[0], serde_json::json!({"query": "up{a=\"b\"}", "timestamp_sec": 1_700_000_000}));
        assert!(queries[1]["query"].as_str().unwrap().starts_with("ü\nü\n") && queries[2].is_null());
        active.end(first);
        assert_eq!(read().as_array().unwrap().len(), 1);
        assert_eq!(active.begin("y"), Some(first));
        assert_eq!(read()[0]["query"], "y");
        active.end(first);
        active.end(second);
        assert_eq!(left_over(&path).unwrap(), None);
        // What Prometheus left there, or anybody.
        std::fs::write(
            &path,
            b"[{\"query\":\"a\",\"timestamp_sec\":1},\0\0{\"query\":\"b\",\"timestamp_sec\":2},\0",
        )
        .unwrap();
        assert_eq!(read().as_array().unwrap().len(), 2);
        drop(open(dir.path()));
        assert_eq!(left_over(&path).unwrap(), None);
    }

    #[test]
    fn long_texts_are_cut_to_what_has_room() {
        for text in ["x".repeat(5000), "\u{1}".repeat(5000), "\"".repeat(5000), "🦀".repeat(5000)] {
            let entry = entry(&text, i64::MAX);
            let length = entry.iter().position(|byte| *byte == 0).unwrap_or(ENTRY_BYTES);
            assert!(length > 800, "{length}");
            let parsed: serde_json::Value = serde_json::from_slice(&entry[..length - 1]).unwrap();
            assert!(text.starts_with(parsed["query"].as_str().unwrap()));
        }
    }
}
