//! Queries on columns in memory: what evaluation alone costs, without decoding.
//!
//! Data set `fleet`: 1000 counters, one sample each 15 s for 6 h, with a reset now and then; `buckets`: 100 classic
//! histograms of 12 buckets over the same time. Reported are samples a second, each sample counted once.

use std::sync::OnceLock;

use divan::Bencher;
use divan::counter::ItemsCount;
use model::storage::{
    LabelHints, LabelList, Querier, Queryable, SelectHints, SeriesColumns, SeriesSet, StorageError,
};
use model::{Labels, Matcher, TimeRange};
use query::exec::{Engine, EngineOptions, QueryOptions};

const INTERVAL_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;
const SAMPLES: i64 = 6 * HOUR_MS / INTERVAL_MS;

fn main() {
    divan::main();
}

/// Series as columns.
#[derive(Clone)]
struct Columns(&'static [(Labels, SeriesColumns)]);

fn data() -> Columns {
    static DATA: OnceLock<Vec<(Labels, SeriesColumns)>> = OnceLock::new();
    Columns(DATA.get_or_init(|| {
        let mut series = Vec::new();
        let column = |seed: u64, scale: f64| {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut total = 0.0;
            let mut columns = SeriesColumns::default();
            for i in 0..SAMPLES {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                total = if state.is_multiple_of(997) { 0.0 } else { total + scale * (state % 100) as f64 };
                columns.float_times.push(i * INTERVAL_MS);
                columns.float_values.push(total);
            }
            columns
        };
        for i in 0..1000u64 {
            let labels = [
                ("__name__", "requests_total".to_owned()),
                ("job", format!("job-{}", i % 10)),
                ("instance", format!("10.0.0.{}:9100", i / 4)),
                ("path", format!("/path/{}", i % 4)),
                ("id", i.to_string()),
            ];
            series.push((Labels::from_pairs(labels), column(i, 1.0)));
        }
        for i in 0..100u64 {
            for bucket in 0..12u32 {
                let le = if bucket == 11 {
                    "+Inf".to_owned()
                } else {
                    (0.005 * f64::from(1 << bucket)).to_string()
                };
                let labels = [
                    ("__name__", "latency_seconds_bucket".to_owned()),
                    ("instance", i.to_string()),
                    ("le", le),
                ];
                series.push((Labels::from_pairs(labels), column(i + 5000, f64::from(bucket + 1))));
            }
        }
        series.sort_by(|a, b| a.0.cmp(&b.0));
        series
    }))
}

impl Queryable for Columns {
    fn querier(&self, _: TimeRange) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Querier for Columns {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let found = self.0.iter().filter(|(labels, _)| Matcher::all_match(matchers, labels)).collect();
        Ok(Box::new(Selected { found, range: hints.range.unwrap_or(TimeRange::ALL) }))
    }

    fn label_names(&self, _: &[Matcher], _: &LabelHints) -> Result<LabelList, StorageError> {
        Ok(LabelList::default())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: &LabelHints) -> Result<LabelList, StorageError> {
        Ok(LabelList::default())
    }
}

struct Selected {
    found: Vec<&'static (Labels, SeriesColumns)>,
    range: TimeRange,
}

impl SeriesSet for Selected {
    fn len(&self) -> usize {
        self.found.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.found[index].0.clone()
    }

    fn read(&self, index: usize, into: &mut SeriesColumns) -> Result<(), StorageError> {
        let columns = &self.found[index].1;
        into.clear();
        let from = columns.float_times.partition_point(|t| *t < self.range.min);
        let to = columns.float_times.partition_point(|t| *t <= self.range.max);
        into.float_times.extend_from_slice(&columns.float_times[from..to]);
        into.float_values.extend_from_slice(&columns.float_values[from..to]);
        Ok(())
    }
}

/// A query over the last `hours` of data, at the scrape interval.
fn range(bencher: Bencher<'_, '_>, text: &str, hours: i64, step_ms: i64, series: i64) {
    let engine = Engine::new(EngineOptions::default());
    let query = engine.parse(text).expect("the query is valid");
    let storage = data();
    let end = 6 * HOUR_MS;
    let start = end - hours * HOUR_MS;
    let samples = (series * hours * HOUR_MS / INTERVAL_MS).unsigned_abs();
    bencher.counter(ItemsCount::new(samples)).bench_local(|| {
        engine.range(&storage, &query, start, end, step_ms, &QueryOptions::default()).expect("the query runs")
    });
}

#[divan::bench(args = [1, 2, 4])]
fn rate(bencher: Bencher<'_, '_>, hours: i64) {
    range(bencher, "rate(requests_total[5m])", hours, INTERVAL_MS, 1000);
}

#[divan::bench(args = [1, 2, 4])]
fn sum_by_rate(bencher: Bencher<'_, '_>, hours: i64) {
    range(bencher, "sum by (job) (rate(requests_total[5m]))", hours, INTERVAL_MS, 1000);
}

#[divan::bench]
fn histogram_quantile(bencher: Bencher<'_, '_>) {
    range(bencher, "histogram_quantile(0.99, rate(latency_seconds_bucket[5m]))", 1, INTERVAL_MS, 1200);
}

#[divan::bench(args = ["sum", "avg", "max", "stddev"])]
fn long_windows(bencher: Bencher<'_, '_>, function: &str) {
    range(bencher, &format!("{function}_over_time(requests_total[1h])"), 4, 60_000, 1000);
}

#[divan::bench]
fn quantile_over_time(bencher: Bencher<'_, '_>) {
    range(bencher, "quantile_over_time(0.9, requests_total[30m])", 1, INTERVAL_MS, 1000);
}

#[divan::bench]
fn topk(bencher: Bencher<'_, '_>) {
    range(bencher, "topk(5, rate(requests_total[5m]))", 1, INTERVAL_MS, 1000);
}

#[divan::bench]
fn ratio(bencher: Bencher<'_, '_>) {
    range(bencher, "rate(requests_total[5m]) / rate(requests_total[1m])", 1, INTERVAL_MS, 2000);
}

#[divan::bench]
fn subquery(bencher: Bencher<'_, '_>) {
    range(bencher, "max_over_time(sum by (job) (rate(requests_total[5m]))[30m:1m])", 1, 60_000, 1000);
}

#[divan::bench(args = ["requests_total", "sum(requests_total)", "rate(requests_total[5m])"])]
fn instant(bencher: Bencher<'_, '_>, text: &str) {
    let engine = Engine::new(EngineOptions::default());
    let query = engine.parse(text).expect("the query is valid");
    let storage = data();
    bencher.counter(ItemsCount::new(1000u64)).bench_local(|| {
        engine.instant(&storage, &query, 5 * HOUR_MS, &QueryOptions::default()).expect("the query runs")
    });
}
