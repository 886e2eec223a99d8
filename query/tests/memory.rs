//! What a query counts as its memory against what the allocator gives it: neither much less, so that limits hold, nor much
//! more, so that they do not refuse what would fit.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use model::histogram::Span;
use model::{FloatHistogram, Labels};
use query::exec::{Engine, EngineOptions, EvalFeatures, QueryOptions, QueryValue};
use query::parse::ParseOptions;
use query::script::{MemorySample, MemoryStorage};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Samples lie in so many seconds.
const SECONDS: i64 = 1000;

fn histogram(scale: f64) -> FloatHistogram {
    FloatHistogram {
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: scale,
        count: scale * 41.0,
        sum: scale * 100.0,
        positive_spans: vec![Span { offset: 0, length: 40 }],
        positive_buckets: vec![scale; 40],
        ..FloatHistogram::default()
    }
}

/// So many series of `x` and `y` with a label of their own each, of `b` with buckets, of `target_info`; a tenth as many of `n`,
/// native histograms; and `p` and `q`, of which the series of an `i` take turns. A sample every so many seconds.
fn storage(series: usize, every: usize) -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    for index in 0..series {
        let labels = |name: &str, more: &[(&str, &str)]| {
            let (i, j) = (index.to_string(), (index % 10).to_string());
            let mut pairs = vec![("__name__", name), ("i", &i), ("j", &j), ("instance", &i), ("job", "a")];
            pairs.extend(more);
            Labels::from_pairs(pairs)
        };
        let (x, y, info) = (labels("x", &[]), labels("y", &[]), labels("target_info", &[("data", "d")]));
        let b = labels("b", &[("le", ["0.1", "1", "+Inf"][index % 3])]);
        let times = || (0..SECONDS).skip(every - 1).step_by(every);
        for second in times() {
            storage.add_float(&x, second * 1000, second as f64);
            storage.add_float(&y, second * 1000, (second % 100) as f64);
            storage.add_float(&b, second * 1000, (second * (index as i64 % 3 + 1)) as f64);
            storage.add_float(&info, second * 1000, 1.0);
        }
        if index % 10 > 0 {
            continue;
        }
        let n = labels("n", &[]);
        for second in times().step_by(if every < 50 { 5 } else { 1 }) {
            let histogram = std::sync::Arc::new(histogram(second as f64 + 1.0));
            storage.add(&n, second * 1000, MemorySample::Histogram { histogram, start: 0 });
        }
        for turn in 0..4i64 {
            let text = turn.to_string();
            for labels in [labels("p", &[("turn", &text)]), labels("q", &[("turn", "x"), ("k", &text)])] {
                let turns = (0..SECONDS).step_by(every.min(10));
                turns.filter(|second| second / 50 % 4 == turn).for_each(|second| {
                    storage.add_float(&labels, second * 1000, second as f64);
                });
            }
        }
    }
    storage
}

const QUERIES: [&str; 48] = [
    "x",
    "x * 2",
    "-x",
    "abs(x)",
    "timestamp(x)",
    "rate(x[5m])",
    "sum_over_time(x[100s])",
    "quantile_over_time(0.5, x[100s])",
    "sum(x)",
    "sum by (i) (x)",
    "avg by (i) (x)",
    "stddev by (i) (x)",
    "quantile by (j) (0.5, x)",
    "topk by (j) (3, x)",
    "bottomk(100, x)",
    "limitk(100, x)",
    "limit_ratio(0.5, x)",
    "count_values by (j) (\"v\", y)",
    "sort_by_label(x, \"i\")",
    "absent(x)",
    "absent_over_time(x[5m])",
    "x + on(i) y",
    "x + on(i) group_left() y",
    "x + on(j) group_left() sum by (j) (y)",
    "x > bool on(i) y",
    "x + on(i) fill(0) y",
    "p or on(i) p",
    "last_over_time(p[10s]) * on(i) group_left() last_over_time(q[10s])",
    "last_over_time(p[10s]) + on(i) last_over_time(q[10s])",
    "x and on(i) y",
    "x or on(i) y",
    "x unless on(i) (y < 90)",
    "label_replace(x, \"z\", \"a$1\", \"i\", \"(.*)\")",
    "label_join(x, \"z\", \"-\", \"i\", \"j\")",
    "info(x)",
    "histogram_quantile(0.9, sum by (le) (b))",
    "histogram_quantile(0.9, b)",
    "max_over_time(rate(x[5m])[5m:10s])",
    "max_over_time((x or on(i) x)[5m:10s])",
    "sum_over_time(x[5m:1s])",
    "n",
    "rate(n[5m])",
    "sum(n)",
    "sum by (i) (n)",
    "avg by (i) (n)",
    "histogram_quantile(0.9, n)",
    "n + on(i) n",
    "sum_over_time(n[5m])",
];

/// What is small change: plans, threads' own memory, automata of regular expressions.
const SMALL: usize = 128 << 10;

#[test]
fn what_is_counted_is_what_is_taken() {
    // Many steps of few series, few steps of many.
    let (long, wide) = (storage(200, 10), storage(2000, 100));
    let features = EvalFeatures::default();
    let engine =
        Engine::new(EngineOptions { parse: ParseOptions::all(), features, ..EngineOptions::default() });
    let mut wrong = Vec::new();
    for text in QUERIES {
        let query = engine.parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        for (storage, steps) in [(&long, SECONDS), (&wide, 2)] {
            let run = || {
                let end = SECONDS * 1000 - 1000;
                let start = end - (steps - 1) * 1000;
                let result = engine.range(storage, &query, start, end, 1000, &QueryOptions::default());
                result.unwrap_or_else(|error| panic!("{text}: {error}"))
            };
            if text == QUERIES[0] {
                // What is made once (threads, tables of the runtime) is made before.
                drop(run());
            }
            let before = LIVE.load(Ordering::Relaxed);
            PEAK.store(before, Ordering::Relaxed);
            let result = run();
            let taken = PEAK.load(Ordering::Relaxed) - before;
            let counted = usize::try_from(result.stats.peak_memory_bytes).unwrap();
            let shown = format!(
                "{:.2}: {text} over {steps} steps counts {counted} and takes {taken}",
                taken as f64 / counted as f64
            );
            println!("{shown}");
            if taken > counted + counted / 2 + SMALL || counted > 2 * taken + SMALL {
                wrong.push(shown);
            }
            let QueryValue::Matrix(series) = &result.value else { panic!("a matrix") };
            assert!(!series.is_empty() || text.starts_with("absent"), "{text}: nothing");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
