//! Queries over the real store: how cost grows with the length of the range and with the number of series, beside what
//! merely reading the same samples costs.
//!
//! `cargo bench --bench queries` prints two curves of `sum by (job) (rate(m_total[5m]))` at 15 s, over samples every 15 s, of which
//! all but the last hours are in blocks: 1000 series over 1 to 72 hours, and 100 to 100 000 series over an hour. A line
//! has milliseconds, nanoseconds for each sample that was read, the ratio to reading alone, and the memory that the query
//! counted. The median of several runs.
//!
//! `NILOMETER_BENCH_SERIES=1000000 cargo bench --bench queries` measures that one number of series over an hour and adds the
//! most memory that the process has had. Without `--bench`, as in tests, a small store shows that all of it runs.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a bench measures time and prints it")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::TimeRange;
use model::storage::{Append, AppendOptions, Queryable, Row, SelectHints, SeriesColumns};
use model::{Clock, ManualClock};
use query::exec::{Engine, EngineOptions, QueryOptions};
use tsdb::fs::{FileSystem, RealFs};
use tsdb::{Db, DbOptions};

const INTERVAL_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;
const PER_TARGET: usize = 1000;
const QUERY: &str = "sum by (job) (rate(m_total[5m]))";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if !args.iter().any(|arg| arg == "--bench") {
        curve(&[(20, 1), (20, 3)], 1);
        return;
    }
    if let Some(series) = std::env::var("NILOMETER_BENCH_SERIES").ok().and_then(|n| n.parse().ok()) {
        curve(&[(series, 1)], 3);
        println!("most memory of the process, with a store of as many series in it: {}", peak_rss());
        return;
    }
    curve(&[(1000, 1), (1000, 6), (1000, 24), (1000, 72)], 5);
    for series in [100, 1000, 10_000, 100_000] {
        curve(&[(series, 1)], 5);
    }
}

/// Measures over one store that has the most series and hours of all `points`.
fn curve(points: &[(usize, i64)], runs: usize) {
    let most_series = points.iter().map(|(series, _)| *series).max().unwrap_or(0);
    let most_hours = points.iter().map(|(_, hours)| *hours).max().unwrap_or(0);
    let dir = tempfile::tempdir().expect("a directory");
    let db = store(dir.path(), most_series, most_hours + 1);
    println!(
        "{:>8} {:>6} {:>10} {:>10} {:>9} {:>9} {:>12}",
        "series", "hours", "ms", "reading", "ns/sample", "×", "peak KiB"
    );
    for &(_, hours) in points {
        let end = (most_hours + 1) * HOUR_MS;
        let range = TimeRange::new(end - hours * HOUR_MS, end);
        let engine = Engine::new(EngineOptions::default());
        let query = engine.parse(QUERY).expect("the query is valid");
        let mut peak = 0;
        let mut samples = 0;
        let took = median(runs, || {
            let result = engine
                .range(&*db, &query, range.min, range.max, INTERVAL_MS, &QueryOptions::default())
                .expect("the query runs");
            (peak, samples) = (result.stats.peak_memory_bytes, result.stats.samples_read);
            assert!(samples > 0);
        });
        let reading = median(runs, || read(&db, range));
        println!(
            "{most_series:>8} {hours:>6} {:>10.2} {:>10.2} {:>9.2} {:>9.2} {:>12}",
            took.as_secs_f64() * 1e3,
            reading.as_secs_f64() * 1e3,
            took.as_secs_f64() * 1e9 / samples as f64,
            took.as_secs_f64() / reading.as_secs_f64(),
            peak >> 10,
        );
    }
    db.close().expect("closes");
}

fn store(dir: &Path, series: usize, hours: i64) -> Arc<Db> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(0));
    let mut options = DbOptions::new(dir, clock);
    options.retention = Duration::ZERO;
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let db = Db::open(options, &prometheus::Registry::new(), fs).expect("opens");
    let mut layouts = Vec::new();
    for target in 0..series.div_ceil(PER_TARGET) {
        let mut appender = db.appender(AppendOptions::default());
        let layout = appender.open_layout();
        let slots = PER_TARGET.min(series - target * PER_TARGET);
        for index in 0..slots {
            let labels = Labels::from_pairs([
                ("__name__", "m_total".to_owned()),
                ("id", index.to_string()),
                ("instance", format!("10.0.{}.{}:9100", target / 250, target % 250)),
                ("job", format!("job-{}", target % 10)),
            ]);
            appender.extend_layout(layout, &labels).expect("fits");
        }
        layouts.push((layout, slots));
        appender.commit().expect("commits");
    }
    for round in 0..=hours * HOUR_MS / INTERVAL_MS {
        // What people count: nothing, little that jitters, bytes.
        let values: Vec<f64> = (0..PER_TARGET)
            .map(|index| match index % 4 {
                0 => 5.0,
                1 => (round * 3) as f64 + (round * 7919 % 13) as f64,
                _ => round as f64 * 1e4 + (round * (index as i64 + 104_729) % 9973) as f64,
            })
            .collect();
        for (layout, slots) in &layouts {
            let mut appender = db.appender(AppendOptions::default());
            let row = Row { layout: *layout, t: round * INTERVAL_MS, values: &values[..*slots] };
            assert_eq!(appender.append_row(&row).appended, *slots);
            appender.commit().expect("commits");
        }
        if round % 960 == 959 {
            db.compact(round * INTERVAL_MS).expect("compacts");
        }
    }
    db
}

/// Reads all samples of the range that the query looks at, on one thread.
fn read(db: &Db, range: TimeRange) {
    let range = TimeRange::new(range.min - 300_000 + 1, range.max);
    let matchers = [Matcher::new(MatchOp::Equal, "__name__", "m_total").expect("valid")];
    let set = db
        .querier(range)
        .and_then(|querier| querier.select(&matchers, &SelectHints::default()))
        .expect("selects");
    let (mut columns, mut samples) = (SeriesColumns::default(), 0);
    for index in 0..set.len() {
        set.read(index, &mut columns).expect("reads");
        samples += columns.float_times.len();
    }
    assert!(std::hint::black_box(samples) > 0);
}

fn median(runs: usize, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[runs / 2]
}

fn peak_rss() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "not known here".to_owned(), |value| value.trim().to_owned())
}
