//! What the tests of the store share: opening on any file system, writing, reading everything.
#![allow(dead_code, clippy::unwrap_used, reason = "tests; each program uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::TimeRange;
use model::storage::{
    Append, AppendOptions, AppendSample, Querier, Queryable, SelectHints, SeriesColumns, StorageError,
};
use model::{ManualClock, Timestamp};
use tsdb::fs::{FaultyFs, FileSystem};
use tsdb::{Db, DbOptions};

/// The bits of every sample of every series.
pub(crate) type Content = BTreeMap<String, BTreeMap<Timestamp, u64>>;

pub(crate) fn options() -> DbOptions {
    let mut options = DbOptions::new("/data", Arc::new(ManualClock::new(0)));
    options.retention = Duration::ZERO;
    options
}

pub(crate) fn open_with(fs: &FaultyFs, options: DbOptions) -> Result<Arc<Db>, StorageError> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Db::open(options, &prometheus::Registry::new(), fs)
}

pub(crate) fn open(fs: &FaultyFs) -> Arc<Db> {
    open_with(fs, options()).unwrap()
}

pub(crate) fn series(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", "test")])
}

/// Commits float samples; panics when one is refused.
pub(crate) fn write(db: &Db, samples: &[(&str, Timestamp, f64)]) -> Result<(), StorageError> {
    let mut appender = db.appender(AppendOptions::default());
    for (name, t, v) in samples {
        appender.append(None, &series(name), AppendSample::float(*t, *v)).unwrap();
    }
    appender.commit().map(|_| ())
}

pub(crate) fn content(db: &Db) -> Content {
    let querier = db.querier(TimeRange::ALL).unwrap();
    content_of(&*querier, TimeRange::ALL)
}

pub(crate) fn content_of(querier: &dyn Querier, range: TimeRange) -> Content {
    let all = Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap();
    let hints = SelectHints { range: Some(range), sorted: true, ..SelectHints::default() };
    let set = querier.select(&[all], &hints).unwrap();
    let mut columns = SeriesColumns::default();
    let mut content = Content::new();
    for index in 0..set.len() {
        set.read(index, &mut columns).unwrap();
        let bits = columns.float_values.iter().map(|v| v.to_bits());
        let samples: BTreeMap<_, _> = columns.float_times.iter().copied().zip(bits).collect();
        assert_eq!(samples.len(), columns.float_times.len(), "times are unique");
        assert!(columns.float_times.is_sorted());
        if !samples.is_empty() {
            let name = set.labels(index).metric_name().to_owned();
            assert!(content.insert(name, samples).is_none(), "labels are unique");
        }
    }
    content
}

/// Number of cases of a property test: `PROPTEST_CASES` for the long form.
pub(crate) fn cases(short: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(short)
}

/// Path of a log segment.
pub(crate) fn segment(number: u64) -> std::path::PathBuf {
    format!("/data/wal/{number:08}").into()
}
