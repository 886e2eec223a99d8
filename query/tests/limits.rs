//! Limits, cancellation, statistics and bad input.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use model::Labels;
use parking_lot::Mutex;
use query::exec::{Engine, EngineOptions, MemoryBudget, QueryErrorKind, QueryOptions, QueryValue, When};
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

/// Forms that keep Prometheus busy for minutes at 100 000 levels, whatever the time-out: refused, or answered, at once.
#[test]
fn nesting_without_end_is_no_work() {
    let engine = engine(EngineOptions::default());
    let storage = storage(2, 10);
    let levels = 100_000;
    let nested = |open: &str, core: &str, close: &str| {
        format!("{}{core}{}", open.repeat(levels), close.repeat(levels))
    };
    let texts = [
        nested("(", "1", ")"),
        nested("-", "x", ""),
        nested("- -", "1", ""),
        nested("sum(", "x", ")"),
        nested("abs(", "x", ")"),
        nested("max_over_time(", "x", "[1m:1m])"),
        nested("", "x", "[1m:1m]"),
        nested("1 + ", "1", ""),
        nested("", "1", " + 1"),
        nested("2 ^ ", "2", ""),
        nested("", "x", " or x"),
        nested("x and (", "x", ")"),
        nested("x * on() group_left() ", "x", ""),
        nested("label_replace(", "x", ", \"a\", \"\", \"b\", \"\")"),
        nested("", "x", " offset 1m"),
        nested("(", "", ""),
        nested("sum(", "", ""),
        nested("{", "", ""),
        nested("", "x[1m", " + 1m]"),
        nested("", "x{", "a=\"b\","),
    ];
    for text in texts {
        let shown = &text[..40];
        let began = tokio::time::Instant::now();
        let options = QueryOptions { timeout: Some(Duration::from_secs(1)), ..QueryOptions::default() };
        if let Ok(query) = engine.parse(&text) {
            // Any outcome will do, as long as there is one.
            let _ = engine.range(&storage, &query, 0, 5000, 1000, &options);
            let _ = engine.explain(&query, When::At(0), None);
        }
        assert!(began.elapsed() < Duration::from_secs(3), "{shown}: {:?}", began.elapsed());
    }
}

/// A megabyte of a query that is sound: work that is linear in its length, or a clear refusal.
#[test]
fn megabyte_queries_are_linear() {
    let engine = engine(EngineOptions::default());
    let storage = storage(2, 10);
    let long = "y".repeat(1 << 20);
    let texts = [
        format!("x{{a=\"{long}\"}}"),
        format!("{{\"{long}\"}}"),
        format!("x{{a=~\"{}\"}}", "a|".repeat(1 << 19)),
        format!("sum by ({}) (x)", "a,".repeat(1 << 19)),
        format!("label_join(x, \"a\", \"\"{})", ", \"b\"".repeat(1 << 18)),
        format!("# {long}\nx"),
        format!("{}x", " ".repeat(1 << 20)),
        format!("x{{{}}}", "a=\"b\",".repeat(1 << 17)),
    ];
    for text in texts {
        let began = tokio::time::Instant::now();
        let outcome = engine
            .parse(&text)
            .and_then(|query| engine.instant(&storage, &query, 5000, &QueryOptions::default()));
        match outcome {
            Ok(_) => assert!(!text.contains("=~"), "{}", &text[..20]),
            Err(error) => {
                assert!(text.contains("=~"), "{}: {error}", &text[..20]);
                assert!(error.message.ends_with("expression too large"), "{error}");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(8), "{}: {:?}", &text[..20], began.elapsed());
    }
}

/// Regular expressions that would explode are refused when they are read, not when they are used.
#[test]
fn huge_regular_expressions_are_refused() {
    let engine = engine(EngineOptions::default());
    let storage = storage(2, 10);
    for pattern in [
        "(((a{1000}){1000}){1000}){1000}".to_owned(),
        format!("{}a{}", "(".repeat(10_000), ")*".repeat(10_000)),
        "(a*)*b".to_owned(),
        "\\\\pL{1000}".repeat(100),
        "(?i)".to_owned() + &"[a-z]{500}".repeat(1000),
    ] {
        for text in [
            format!("x{{a=~\"{pattern}\"}}"),
            format!("label_replace(x, \"a\", \"$1\", \"b\", \"{pattern}\")"),
        ] {
            let began = tokio::time::Instant::now();
            let outcome = engine
                .parse(&text)
                .and_then(|query| engine.instant(&storage, &query, 5000, &QueryOptions::default()));
            // Nested repetitions alone are no harm: matching is linear.
            assert_eq!(outcome.is_ok(), pattern == "(a*)*b", "{}: {outcome:?}", &text[..30]);
            assert!(began.elapsed() < Duration::from_secs(5), "{}: {:?}", &text[..30], began.elapsed());
        }
    }
}

/// Thousands of patterns are no harm when they are small, and are refused by their sum when they are not.
#[test]
fn patterns_are_bounded_in_sum() {
    let engine = engine(EngineOptions::default());
    let storage = storage(2, 10);
    let many = |pattern: &str, count: usize| {
        let matchers: Vec<String> = (0..count).map(|i| format!("a{i}=~\"{pattern}{i}\"")).collect();
        format!("x{{{}}}", matchers.join(","))
    };
    engine.parse(&many("(foo|bar).*", 1000)).unwrap();
    let began = tokio::time::Instant::now();
    let text = many("[a-z]{900}.{100}", 5000);
    let error = engine.parse(&text).unwrap_err();
    assert_eq!(error.kind, QueryErrorKind::BadData);
    let position = error.message.split(": ").next().unwrap_or_default();
    assert!(position.starts_with("1:") && position.len() > 3, "{position}");
    assert!(error.message.ends_with("expression too large: all in a query may take 32 MiB"), "{error}");
    let nested = |count: usize| {
        (0..count).fold("x".to_owned(), |inner, i| {
            format!("label_replace({inner}, \"a\", \"$1\", \"b\", \"([a-z]{{900}}.{{100}}|{i})\")")
        })
    };
    let query = engine.parse(&nested(300)).unwrap();
    let error = engine.instant(&storage, &query, 5000, &QueryOptions::default()).unwrap_err();
    assert!(error.message.ends_with("all in a query may take 32 MiB"), "{error}");
    let query = engine.parse(&nested(2)).unwrap();
    engine.instant(&storage, &query, 5000, &QueryOptions::default()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// Joins of everything with everything end with an error, at once or when time is up, and within their memory.
#[test]
fn pathological_joins_stay_within_limits() {
    let budget = MemoryBudget::new(64 << 20);
    let engine = engine(EngineOptions {
        memory: budget.clone(),
        max_query_bytes: 32 << 20,
        ..EngineOptions::default()
    });
    let storage = storage(3000, 3);
    let timeout = Duration::from_millis(300);
    for text in [
        "x + on() x",
        "x + on() group_left() x",
        "x + on() group_left() topk(1, x)",
        "x and on() x",
        "x or on() x",
        "x unless on(i) x",
        "label_replace(x, \"i\", \"\", \"\", \"\")",
        "count_values(\"v\", x + on(i) x * scalar(topk(1, x)))",
        "topk(3000, x) * on() group_left() topk(1, x)",
        "sort(x) + ignoring(i) group_right() sort(x)",
        "quantile(0.5, x) or sum by (i) (x) or x",
        "limitk(3000, x) + on(i) limit_ratio(1, x)",
        "x * on() group_left() ((x and on() (vector(time() % 2) == 0)) or (x unless on() (vector(time() % 2) == 0)))",
    ] {
        let query = engine.parse(text).unwrap();
        let options = QueryOptions { timeout: Some(timeout), ..QueryOptions::default() };
        let began = tokio::time::Instant::now();
        let outcome = engine.range(&storage, &query, 0, 3_000_000, 1000, &options);
        assert!(began.elapsed() < timeout + Duration::from_secs(1), "{text}: {:?}", began.elapsed());
        if let Ok(result) = &outcome {
            assert!(result.stats.peak_memory_bytes <= 32 << 20, "{text}: {:?}", result.stats);
        }
        drop(outcome);
        assert_eq!(budget.used_bytes(), 0, "{text}");
    }
}

/// Whatever a query keeps is counted before it is kept, and given back.
#[test]
fn memory_is_bounded_everywhere() {
    let storage = storage(500, 2);
    for text in [
        "x",
        "x or on(i) x",
        "avg by (i) (x)",
        "quantile by (i) (0.5, x)",
        "topk(500, x)",
        "sort_by_label(x, \"i\")",
        "count_values by (i) (\"v\", x)",
        "x + on(i) group_left() x",
        "label_replace(x, \"i\", \"a$1\", \"i\", \"(.*)\") or x",
        "max_over_time((x or on(i) x)[10m:1s])",
        "info(x)",
    ] {
        let budget = MemoryBudget::new(1 << 20);
        let small = engine(EngineOptions { memory: budget.clone(), ..EngineOptions::default() });
        let query = small.parse(text).unwrap();
        let options = QueryOptions::default();
        let error = small.range(&storage, &query, 0, 4_000_000, 1000, &options).unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::Execution, "{text}: {error}");
        assert!(error.message.contains("1 MiB of memory that all queries may use"), "{text}: {error}");
        assert_eq!(budget.used_bytes(), 0, "{text}");
        let large = engine(EngineOptions { max_query_bytes: 1 << 20, ..EngineOptions::default() });
        let error = large.range(&storage, &query, 0, 4_000_000, 1000, &options).unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::Execution, "{text}: {error}");
        assert!(error.message.contains("1 MiB of memory"), "{text}: {error}");
    }
    // Folding into few groups needs little, however much is folded.
    // What threads read ahead counts as well, and is less where there is less: eight columns here, of 16 MB in all.
    let small = engine(EngineOptions { memory: MemoryBudget::new(1 << 20), ..EngineOptions::default() });
    let query = small.parse("sum(x)").unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let run = || small.range(&storage, &query, 0, 4_000_000, 1000, &QueryOptions::default()).unwrap();
    let stats = pool.install(run).stats;
    assert!(stats.peak_memory_bytes > 8 * 8 * 4000, "{stats:?}");
}

/// A column of millions of steps is refused before it is there, and what is only found out at the end counts as well.
#[test]
fn columns_of_subqueries_are_counted() {
    let storage = storage(1, 1000);
    for (text, bytes_max) in [
        ("sum_over_time(x[58d:1s])", 16 << 20),
        ("max_over_time(x[58d:1s])", 100 << 20),
        ("rate(x[58d:1s])", 16 << 20),
        ("x[58d:1s]", 16 << 20),
        ("sum_over_time((x * 2)[58d:1s])", 16 << 20),
    ] {
        let options = EngineOptions { max_query_bytes: bytes_max, ..EngineOptions::default() };
        let engine = engine(options);
        let query = engine.parse(text).unwrap();
        let outcome = engine.instant(&storage, &query, 1_000_000, &QueryOptions::default());
        if bytes_max > 64 << 20 {
            // A column of 40 MB, and what it is folded into.
            assert!(outcome.unwrap().stats.peak_memory_bytes > 40_000_000, "{text}");
        } else {
            let error = outcome.unwrap_err();
            assert!(error.message.contains("16 MiB of memory"), "{text}: {error}");
        }
    }
}

/// A value of its own at each of millions of steps: a series each, refused when they outgrow the query, not when all are there.
#[test]
fn counted_values_are_bounded_while_they_are_found() {
    let storage = storage(1, 1);
    let text = "count_over_time(count_values(\"v\", vector(time()))[58d:1s])";
    let engine = engine(EngineOptions { max_query_bytes: 256 << 20, ..EngineOptions::default() });
    let query = engine.parse(text).unwrap();
    let run = |t: i64, options: &QueryOptions| engine.instant(&storage, &query, t, options);
    let began = tokio::time::Instant::now();
    let error = run(50_000_000_000, &QueryOptions::default()).unwrap_err();
    assert!(error.message.contains("256 MiB of memory"), "{error}");
    // All five million of them take a gigabyte and more.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let timeout = Some(Duration::from_millis(200));
    let began = tokio::time::Instant::now();
    let options = QueryOptions { timeout, ..QueryOptions::default() };
    let error = run(50_000_000_000, &options).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(matches!(error.kind, QueryErrorKind::Timeout | QueryErrorKind::Execution), "{error}");
}

/// Values that all differ make many series of one sample: an answer as sparse as the samples.
#[test]
fn sparse_counts_are_small() {
    let storage = storage(1, 4000);
    let engine = engine(EngineOptions { max_query_bytes: 16 << 20, ..EngineOptions::default() });
    let query = engine.parse("count_values(\"v\", x)").unwrap();
    let result = engine.range(&storage, &query, 0, 3_999_000, 1000, &QueryOptions::default()).unwrap();
    let QueryValue::Matrix(series) = result.value else { panic!("a matrix") };
    assert_eq!(series.len(), 4000);
}

/// Collects lines; closing it says so and waits until it may.
#[derive(Debug)]
struct SlowLog {
    lines: Arc<Mutex<Vec<String>>>,
    closing: SyncSender<()>,
    may_close: Mutex<Receiver<()>>,
}

impl query::exec::QueryLog for SlowLog {
    fn write(&self, line: String) -> bool {
        self.lines.lock().push(line);
        true
    }
}

impl Drop for SlowLog {
    fn drop(&mut self) {
        // Whoever listened may have gone.
        let _ = self.closing.send(());
        let _ = self.may_close.get_mut().recv();
    }
}

#[test]
fn queries_that_never_end_are_told_and_a_log_that_hangs_holds_nobody_up() {
    let engine = Arc::new(engine(EngineOptions::default()));
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let (close, may_close) = sync_channel(1);
    let (closing, closes) = sync_channel(1);
    let log = SlowLog { lines: Arc::clone(&lines), closing, may_close: Mutex::new(may_close) };
    engine.set_query_log(Some(Arc::new(log)));
    // The client leaves the queue.
    let origin = query::exec::QueryOrigin::Internal;
    drop(engine.enter("up", When::At(0), origin.clone(), None));
    let told = lines.lock().pop().unwrap();
    assert!(
        told.contains("\"query\":\"up\"") && told.contains("query was canceled in query queue"),
        "{told}"
    );
    // What ends, well or not, is told once.
    let query = engine.parse("x[5m]").unwrap();
    let run = |start, end, step| {
        let when = When::Over { start, end, step };
        let ticket = Some(engine.enter(query.text(), when, origin.clone(), None));
        engine.run(&storage(1, 1), &query, when, &QueryOptions { ticket, ..QueryOptions::default() })
    };
    assert_eq!(run(0, 1, 1).unwrap_err().kind, QueryErrorKind::BadData);
    let told = std::mem::take(&mut *lines.lock());
    assert!(told.len() == 1 && told[0].contains("invalid expression type"), "{told:?}");
    let swapping = std::thread::spawn({
        let engine = Arc::clone(&engine);
        move || engine.set_query_log(None)
    });
    let (done, finished) = sync_channel(1);
    let others = std::thread::spawn({
        let engine = Arc::clone(&engine);
        move || {
            closes.recv().unwrap();
            drop(engine.enter("up", When::At(0), query::exec::QueryOrigin::Internal, None));
            done.send(()).unwrap();
        }
    });
    let in_time = finished.recv_timeout(Duration::from_secs(5));
    close.send(()).unwrap();
    swapping.join().unwrap();
    others.join().unwrap();
    in_time.unwrap();
}

/// Dashboards hold all that they may: rules still have their part.
#[test]
fn rules_have_memory_of_their_own() {
    use query::exec::{HttpOrigin, QueryOrigin, RuleOrigin};
    let budget = MemoryBudget::new(16 << 20);
    let engine = engine(EngineOptions { memory: budget.clone(), ..EngineOptions::default() });
    let _dashboards = budget.without_reserve().hold(14 << 20).unwrap();
    let (query, storage) = (engine.parse("x").unwrap(), storage(200, 2));
    let run = |origin: QueryOrigin| {
        let when = When::Over { start: 0, end: 300_000, step: 1000 };
        let ticket = Some(engine.enter("x", when, origin, None));
        engine.run(&storage, &query, when, &QueryOptions { ticket, ..QueryOptions::default() })
    };
    let error = run(QueryOrigin::Api(HttpOrigin::default())).unwrap_err();
    assert_eq!(error.kind, QueryErrorKind::Unavailable);
    run(QueryOrigin::Rule(RuleOrigin::default())).unwrap();
}

#[test]
fn series_are_bounded() {
    let engine = engine(EngineOptions { max_series: 10, ..EngineOptions::default() });
    let storage = storage(6, 2);
    let run = |text: &str| {
        let query = engine.parse(text).unwrap();
        engine.instant(&storage, &query, 1000, &QueryOptions::default())
    };
    assert_eq!(run("x").unwrap().stats.series, 6);
    // Equal expressions are selected once.
    assert_eq!(run("x + x").unwrap().stats.series, 6);
    let error = run("x + x{i!=\"none\"}").unwrap_err();
    assert_eq!(error.message, "query selects more than 10 series (--query.max-series)");
}

#[test]
fn queries_are_registered_while_they_run_and_can_be_stopped() {
    let engine =
        Arc::new(engine(EngineOptions { slow_threshold: Duration::ZERO, ..EngineOptions::default() }));
    let text = "max_over_time(quantile_over_time(0.5, vector(time() % 7919)[1h:1s])[10d:1s])";
    let running = std::thread::spawn({
        let engine = Arc::clone(&engine);
        move || {
            let query = engine.parse(text).unwrap();
            engine.instant(&storage(1, 1), &query, 1_000_000_000, &QueryOptions::default())
        }
    });
    let id = loop {
        match engine.register().running().first() {
            Some(query) if query.samples > 0 || query.memory_bytes > 0 => break query.id,
            _ => std::thread::yield_now(),
        }
    };
    let began = tokio::time::Instant::now();
    assert!(engine.register().stop(id, &query::exec::HttpOrigin::default()));
    let error = running.join().unwrap().unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(error.kind, QueryErrorKind::Canceled);
    assert!(engine.register().running().is_empty());
    let slow = engine.register().slow();
    assert_eq!((&*slow[0].text, slow[0].id), (text, id));
}

/// What Prometheus 3.5.3 says of the same queries on the same data.
#[test]
fn samples_count_as_in_prometheus() {
    let engine = engine(EngineOptions::default());
    let storage = storage(2, 100);
    for (text, per_step) in [
        ("x", 2),
        ("x[5s]", 10),
        ("sum_over_time(x[5s])", 10),
        // Samples of subqueries count where their windows are evaluated, and once.
        ("sum_over_time(x[10s:2s])", 10),
        ("sum_over_time(rate(x[4s])[10s:2s])", 10),
        ("max_over_time(sum_over_time(x[4s:2s])[10s:2s])", 10),
        // What is the same at each step counts at each.
        ("x @ 50", 2),
        ("sum(rate(x[4s] @ 50)) + on() group_right() x", 10),
    ] {
        let query = engine.parse(text).unwrap();
        let options = QueryOptions { per_step_stats: true, ..QueryOptions::default() };
        let stats = engine.instant(&storage, &query, 60_000, &options).unwrap().stats;
        assert_eq!(stats.total_samples, per_step, "{text}");
        assert_eq!(stats.samples_per_step, Some(vec![(60_000, per_step)]), "{text}");
        if text.starts_with("x[") {
            continue;
        }
        let stats = engine.range(&storage, &query, 60_000, 80_000, 10_000, &options).unwrap().stats;
        assert_eq!(stats.total_samples, 3 * per_step, "{text}");
        let steps = [60_000, 70_000, 80_000].map(|t| (t, per_step));
        assert_eq!(stats.samples_per_step, Some(steps.to_vec()), "{text}");
    }
    // Unlike there, what a join or `and` drops for its labels is not read, and does not count (3 there).
    for text in ["x and on(i) x{i=\"0\"}", "x * on(i) x{i=\"0\"}", "x{i=\"0\"} * on(i) group_left() x"] {
        let query = engine.parse(text).unwrap();
        let stats = engine.instant(&storage, &query, 60_000, &QueryOptions::default()).unwrap().stats;
        assert_eq!(stats.total_samples, 2, "{text}");
    }
    // As the result of a query a subquery counts what it looked at.
    for (text, total) in [("x[10s:2s]", 10), ("rate(x[4s])[10s:2s]", 40)] {
        let query = engine.parse(text).unwrap();
        let stats = engine.instant(&storage, &query, 60_000, &QueryOptions::default()).unwrap().stats;
        assert_eq!(stats.total_samples, total, "{text}");
    }
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
        "x[100y] offset 100y",
        "x @ -9223372036 offset -290y",
        "rate(x[290y] smoothed)",
        "max_over_time(x[290y:290y] offset -290y)",
        "max_over_time(max_over_time(x[1y:1y] @ end())[290y:1y])",
        "x offset (step() + range() * 1e9)",
        "x[(range() + 1) * 1e6]",
        "predict_linear(x[1h] @ 1e10, -1e300)",
        "topk(9e18, x)",
        "limitk(-1e300, x)",
        "quantile(NaN, x) + Inf",
        "round(x, 1e-320)",
        "x % 0 ^ 1e308",
        "histogram_quantile(NaN, x)",
        "label_replace(vector(Inf), \"a\", \"$99999999999999999999\", \"\", \"\")",
    ] {
        let Ok(query) = engine.parse(text) else { continue };
        for t in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
            let _ = engine.instant(&storage, &query, t, &QueryOptions::default());
            let _ = engine.range(&storage, &query, t, t.saturating_add(10), 1, &QueryOptions::default());
            let _ = engine.range(&storage, &query, t, i64::MAX, i64::MAX / 3, &QueryOptions::default());
        }
    }
}
