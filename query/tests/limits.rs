//! Limits, cancellation, statistics and bad input.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::Labels;
use query::exec::{Engine, EngineOptions, QueryErrorKind, QueryOptions, QueryValue};
use query::parse::ParseOptions;
use query::script::MemoryStorage;

fn engine(options: EngineOptions) -> Engine {
    Engine::new(EngineOptions { parse: ParseOptions::all(), ..options })
}

fn storage(series: usize, samples: i64) -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    for index in 0..series {
        let labels = Labels::from_pairs([("__name__", "x".to_owned()), ("i", index.to_string())]);
        (0..samples).for_each(|i| storage.add_float(&labels, i * 1000, i as f64));
    }
    storage
}

#[test]
fn too_many_samples_are_refused() {
    let engine = engine(EngineOptions { max_samples: 1000, ..EngineOptions::default() });
    let storage = storage(20, 100);
    let query = engine.parse("x").unwrap();
    let error = engine.range(&storage, &query, 0, 99_000, 1000, &QueryOptions::default()).unwrap_err();
    assert_eq!(error.kind, QueryErrorKind::Execution);
    assert_eq!(error.message, "query processing would load too many samples into memory in query execution");
    // Folding series needs room for the sums only.
    let query = engine.parse("sum(x)").unwrap();
    engine.range(&storage, &query, 0, 99_000, 1000, &QueryOptions::default()).unwrap();
}

/// A subquery of billions of steps must not even try.
#[test]
fn endless_subqueries_are_refused() {
    let engine = engine(EngineOptions::default());
    let storage = storage(1, 10);
    for text in ["sum_over_time(x[200y:1ms])", "sum_over_time(vector(1)[290y:1ms] offset 1y)"] {
        let query = engine.parse(text).unwrap();
        let error = engine.instant(&storage, &query, 1_000_000, &QueryOptions::default()).unwrap_err();
        assert!(error.message.contains("too many samples"), "{text}: {error}");
    }
}

#[test]
fn cancellation_and_time_out_end_a_query() {
    let engine = engine(EngineOptions::default());
    let storage = storage(1, 10);
    let query = engine.parse("sum(x)").unwrap();
    let cancel = Some(Arc::new(AtomicBool::new(true)));
    let error = engine
        .instant(&storage, &query, 1000, &QueryOptions { cancel, ..QueryOptions::default() })
        .unwrap_err();
    assert_eq!(
        (error.kind, &*error.message),
        (QueryErrorKind::Canceled, "query was canceled in expression evaluation")
    );
    let timeout = Some(Duration::ZERO);
    let error = engine
        .instant(&storage, &query, 1000, &QueryOptions { timeout, ..QueryOptions::default() })
        .unwrap_err();
    assert_eq!(
        (error.kind, &*error.message),
        (QueryErrorKind::Timeout, "query timed out in expression evaluation")
    );
}

/// Heavy queries end within a second of their time-out.
#[test]
fn a_time_out_holds() {
    let engine = engine(EngineOptions::default());
    let storage = storage(3, 20_000);
    let timeout = Duration::from_millis(100);
    for text in [
        "double_exponential_smoothing(x[5h], 0.5, 0.5)",
        "sum_over_time(double_exponential_smoothing(x[5h], 0.5, 0.5)[5h:1s])",
        "quantile_over_time(0.5, x[5h])",
    ] {
        let query = engine.parse(text).unwrap();
        let options = QueryOptions { timeout: Some(timeout), ..QueryOptions::default() };
        let began = tokio::time::Instant::now();
        let outcome = engine.range(&storage, &query, 0, 20_000_000, 2000, &options);
        assert!(began.elapsed() < timeout + Duration::from_secs(1), "{text}: {:?}", began.elapsed());
        if let Err(error) = outcome {
            assert_eq!(error.kind, QueryErrorKind::Timeout, "{text}: {error}");
        }
    }
}

/// The deepest trees that the parser lets through do not exhaust a thread of 2 MiB, neither in planning nor in
/// evaluation nor when dropped.
#[test]
fn deep_expressions_do_not_exhaust_the_stack() {
    let nested = |open: &str, core: &str, close: &str| {
        let text = |depth: usize| format!("{}{core}{}", open.repeat(depth), close.repeat(depth));
        let (mut good, mut bad) = (1, 2000);
        while bad - good > 1 {
            let depth = usize::midpoint(good, bad);
            let parsed = query::parse::parse(&text(depth), &ParseOptions::all());
            if parsed.is_ok() { good = depth } else { bad = depth }
        }
        text(good)
    };
    let texts = [
        nested("-(", "x", ")"),
        nested("abs(", "x", ")"),
        nested("sum(", "x", ")"),
        nested("1 + (", "x", ")"),
        nested("x + (", "x", ")"),
        nested("x or (", "x", ")"),
        nested("sum_over_time((", "x", ")[1m:1m])"),
        nested("1 + (", "1", ")"),
        nested("scalar(vector(", "1", "))"),
        nested("label_replace(", "x", ", \"a\", \"\", \"b\", \"\")"),
    ];
    let run = move || {
        let engine = engine(EngineOptions::default());
        let storage = storage(2, 10);
        for text in texts {
            let query = engine.parse(&text).unwrap();
            // Any outcome will do, as long as there is one.
            let _ = engine.instant(&storage, &query, 5000, &QueryOptions::default());
            let _ = engine.range(&storage, &query, 0, 5000, 1000, &QueryOptions::default());
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn statistics_count_samples_per_step() {
    let engine = engine(EngineOptions::default());
    let storage = storage(2, 100);
    let options = QueryOptions { per_step_stats: true, ..QueryOptions::default() };
    let query = engine.parse("sum_over_time(x[3s])").unwrap();
    let result = engine.range(&storage, &query, 10_000, 12_000, 1000, &options).unwrap();
    assert_eq!(result.stats.total_samples, 18);
    assert_eq!(result.stats.samples_per_step.unwrap(), [(10_000, 6), (11_000, 6), (12_000, 6)]);
    assert_eq!(result.stats.series, 2);
    let query = engine.parse("x").unwrap();
    let result = engine.instant(&storage, &query, 5000, &options).unwrap();
    assert_eq!(result.stats.total_samples, 2);
    let QueryValue::Vector(samples) = result.value else { panic!("a vector") };
    assert_eq!(samples.len(), 2);
}

#[test]
fn range_queries_take_vectors_and_scalars_only() {
    let engine = engine(EngineOptions::default());
    let storage = storage(1, 1);
    for (text, kind) in [("x[5m]", "range vector"), ("\"a\"", "string")] {
        let query = engine.parse(text).unwrap();
        let error = engine.range(&storage, &query, 0, 1, 1, &QueryOptions::default()).unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::BadData);
        assert_eq!(
            error.message,
            format!("invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector")
        );
    }
    let query = engine.parse("x").unwrap();
    assert!(engine.range(&storage, &query, 0, 1, 0, &QueryOptions::default()).is_err());
    let scalar = engine.parse("1 + 1").unwrap();
    let result = engine.range(&storage, &scalar, 0, 2, 1, &QueryOptions::default()).unwrap();
    let QueryValue::Matrix(series) = result.value else { panic!("a matrix") };
    assert_eq!(series[0].floats.len(), 3);
}

/// Times at the ends of what fits must not overflow.
#[test]
fn extreme_times_are_no_panic() {
    let engine = engine(EngineOptions::default());
    let storage = storage(2, 10);
    for text in [
        "x",
        "x offset 100y",
        "x offset -100y",
        "rate(x[100y])",
        "x @ 9223372036",
        "sum_over_time(x[1y:1y])",
        "timestamp(x)",
        "minute()",
        "year(vector(1e300))",
        "predict_linear(x[1h], 1e300)",
        "absent(x)",
    ] {
        let query = engine.parse(text).unwrap();
        for t in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
            let _ = engine.instant(&storage, &query, t, &QueryOptions::default());
            let _ = engine.range(&storage, &query, t, t.saturating_add(10), 1, &QueryOptions::default());
        }
    }
}
