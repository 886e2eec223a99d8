//! Expressions that occur more than once in a query are evaluated once, and nobody can tell but by what was read.

use std::sync::Arc;

use model::{FloatHistogram, Labels};
use query::exec::{Engine, EngineOptions, QueryOptions, QueryResult, QueryValue};
use query::parse::ParseOptions;
use query::script::{MemorySample, MemoryStorage};

/// Each `A` of a text is an equal selector in the one query, and in the other the same series selected differently.
const QUERIES: [&str; 14] = [
    "rate(A[5m]) / (rate(A[5m]) + rate(b_total[5m]))",
    "sum by (job) (rate(A[5m])) / sum by (job) (rate(A[5m])) + 1",
    "A > 10 and A < 300 or A == 20",
    "max_over_time(A[3m]) - min_over_time(A[3m])",
    "topk(2, A) - topk(2, A)",
    "max_over_time(sum(rate(A[2m]))[10m:1m]) - sum(rate(A[2m]))",
    "timestamp(A) - A + A",
    "sum(A @ start()) + A * sum(A @ start())",
    "scalar(sum(A)) + sum(A)",
    "(A offset 1m) - on (job, x) (A offset 1m) unless absent(A)",
    "histogram_count(h{C}) + on (job) group_right histogram_quantile(0.5, h{C}) + h{C}",
    "deriv(A[5m]) + on () group_right deriv(A[5m])",
    "histogram_quantile(0.5, c_bucket{C}) + histogram_quantile(0.5, c_bucket{C})",
    "h{C} + h{C}",
];

fn storage() -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    for t in 0..60 {
        for (series, name) in ["a_total", "b_total", "a_total"].into_iter().enumerate() {
            let job = if series == 0 { "x" } else { "y" };
            let labels = Labels::from_pairs([("__name__", name), ("job", job), ("x", "1")]);
            storage.add_float(&labels, t * 15_000, (t * (series as i64 + 1) % 37 + t) as f64);
        }
        // Not monotonic: every quantile has something to say about it.
        for (le, count) in [("1", 5), ("2", 3), ("+Inf", 9)] {
            let labels = Labels::from_pairs([("__name__", "c_bucket"), ("le", le)]);
            storage.add_float(&labels, t * 15_000, f64::from(count) * t as f64);
        }
        let histogram = FloatHistogram { count: t as f64, sum: 2.0 * t as f64, ..FloatHistogram::default() };
        let sample = MemorySample::Histogram { histogram: Arc::new(histogram), start: 0 };
        storage.add(&Labels::from_pairs([("__name__", "h"), ("job", "x")]), t * 15_000, sample);
    }
    storage
}

fn run(engine: &Engine, text: &str, options: &QueryOptions) -> Result<QueryResult, String> {
    let query = engine.parse(text).map_err(|error| error.to_string())?;
    engine.range(&storage(), &query, 300_000, 900_000, 30_000, options).map_err(|error| error.to_string())
}

#[test]
fn repetitions_change_nothing_but_the_work() {
    let engine = Engine::new(EngineOptions { parse: ParseOptions::all(), ..EngineOptions::default() });
    let options = QueryOptions { per_step_stats: true, ..QueryOptions::default() };
    let mut fewer = 0;
    for text in QUERIES {
        let equal = text.replace('A', "a_total").replace('C', "");
        let mut different = String::new();
        // Matchers that all series pass, another one each time.
        for (at, part) in text.split_inclusive(['A', 'C']).enumerate() {
            different += &part.replace('A', &format!("a_total{{no!=\"{at}\"}}"));
            if part.ends_with('C') {
                different.pop();
                different += &format!("no!=\"{at}\"");
            }
        }
        let outcomes = [equal, different].map(|text| run(&engine, &text, &options));
        let [Ok(once), Ok(each)] = outcomes else {
            let [once, each] = outcomes.map(|outcome| outcome.err());
            assert_eq!(once, each, "{text}");
            continue;
        };
        let values = [&once, &each].map(|result| match &result.value {
            QueryValue::Matrix(series) => format!("{series:?}"),
            other => panic!("{other:?}"),
        });
        assert_eq!(values[0], values[1], "{text}");
        // Joins do not read what finds no partner; what is kept was read whole, as Prometheus counts it.
        assert!(once.stats.total_samples >= each.stats.total_samples, "{text}");
        let steps = once.stats.samples_per_step.iter().flatten().map(|(_, samples)| samples).sum::<u64>();
        assert_eq!(steps, once.stats.total_samples, "{text}");
        let notes = [&once, &each].map(|result| {
            let all = result.annotations.warnings().chain(result.annotations.infos());
            // Places differ, and what is shared tells of one.
            all.map(|text| text.rsplit_once(" (1:").map_or(text, |(text, _)| text).to_owned())
                .collect::<Vec<_>>()
        });
        assert_eq!(notes[0], notes[1], "{text}");
        fewer += usize::from(once.stats.samples_read < each.stats.samples_read);
    }
    assert!(fewer >= 6, "{fewer}");
}

/// Annotations point to the last place of what they speak of.
#[test]
fn notes_are_made_for_each_place() {
    let engine = Engine::new(EngineOptions::default());
    let text = "quantile(2, a_total) - quantile(2, a_total)";
    let result = run(&engine, text, &QueryOptions::default()).unwrap();
    let texts: Vec<&str> = result.annotations.warnings().collect();
    assert_eq!(texts.len(), 1);
    assert!(texts[0].ends_with("(1:33)"), "{texts:?}");
}

/// What would take much of the memory of a query is evaluated as often as it occurs.
#[test]
fn small_limits_share_nothing() {
    let [once, each] = [1 << 20, 100 << 10].map(|max_query_bytes| {
        let engine = Engine::new(EngineOptions { max_query_bytes, ..EngineOptions::default() });
        let query = engine.parse("a_total + a_total").unwrap();
        let result = engine.range(&storage(), &query, 300_000, 900_000, 1000, &QueryOptions::default());
        result.unwrap().stats.samples_read
    });
    assert_eq!(2 * once, each);
}
