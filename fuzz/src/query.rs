//! Targets of the query language: any text is parsed, printed, parsed again and evaluated on a small store.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span as BucketSpan};
use model::{FloatHistogram, Labels, stale_nan};
use query::ast::{DurationExpr, DurationKind, Expr, ExprKind, Span, TimeModifiers, VectorSelector};
use query::exec::{Engine, EngineOptions, EvalFeatures, QueryOptions};
use query::parse::{ParseOptions, parse, pretty};
use query::script::{MemorySample, MemoryStorage};

/// Longer texts say nothing new.
const TEXT_BYTES_MAX: usize = 4096;

/// A text for the parser: it answers or refuses, and what it answers prints as a text that means the same, on one line and on
/// many. Says whether it was a query.
///
/// # Panics
/// When it does not.
pub fn parser(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]);
    // The switches only decide what is refused.
    let some = parse(&text, &ParseOptions::default()).is_ok();
    let Ok(expr) = parse(&text, &ParseOptions::all()) else {
        assert!(!some, "more features refuse more: {text:?}");
        return false;
    };
    means_the_same(&expr);
    true
}

/// Whether printed forms of a tree parse as the tree.
///
/// # Panics
/// When they do not.
pub fn means_the_same(expr: &Expr) {
    let want = normalized(expr);
    for printed in [expr.to_string(), pretty(expr)] {
        let again = match parse(&printed, &ParseOptions::all()) {
            Ok(again) => normalized(&again),
            Err(error) => panic!("{printed:?} was printed: {error}"),
        };
        assert!(again == want, "{printed:?} was printed from {want:?}, but is {again:?}");
    }
}

/// A query of any text: it answers or refuses, within limits and without panics, at an instant and over a range. The first
/// byte picks the times. Says whether it was a query.
pub fn evaluator(bytes: &[u8]) -> bool {
    static ENGINE: OnceLock<(Engine, MemoryStorage)> = OnceLock::new();
    let (engine, storage) = ENGINE.get_or_init(|| (engine(), storage()));
    let Some((times, text)) = bytes.split_first() else { return false };
    let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]);
    let Ok(query) = engine.parse(&text) else { return false };
    let start = i64::from(times & 15) * 60_000 - 120_000;
    let step = [1, 1000, 15_000, 60_000, 1_000_000, 7, 300_000, i64::MAX / 4][usize::from(times >> 4 & 7)];
    let options = QueryOptions::default();
    let _ = engine.instant(storage, &query, start, &options);
    let end = start.saturating_add(step.saturating_mul(20));
    let _ = engine.range(storage, &query, start, end, step, &options);
    true
}

fn engine() -> Engine {
    Engine::new(EngineOptions {
        max_samples: 20_000,
        timeout: Duration::from_secs(5),
        parse: ParseOptions::all(),
        features: EvalFeatures {
            delayed_name_removal: true,
            type_and_unit_labels: true,
            use_start_timestamps: true,
        },
        ..EngineOptions::default()
    })
}

/// A few series of each kind, with all that is odd.
fn storage() -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
    let odd = [1.0, f64::NAN, 3.0, f64::INFINITY, -0.0, f64::NEG_INFINITY, 1e308, -1e308, 5e-324, 0.1];
    for (job, from) in [("a", 0), ("b", 3)] {
        let counter = labels(&[("__name__", "x_total"), ("job", job), ("instance", "1")]);
        let gauge = labels(&[("__name__", "y"), ("job", job), ("__type__", "gauge")]);
        let bucket = |le| labels(&[("__name__", "h_bucket"), ("job", job), ("le", le)]);
        let native = labels(&[("__name__", "n"), ("job", job)]);
        for i in from..40i64 {
            let t = i * 15_000;
            let count = (i % 13) as f64;
            let start = if i % 13 == 0 { t - 1 } else { t - i % 13 * 15_000 };
            storage.add(&counter, t, MemorySample::Float { value: count * 1.5, start });
            let value = if i == 17 { stale_nan() } else { odd[(i % 10) as usize] };
            storage.add_float(&gauge, t, value);
            for (le, share) in [("0.1", 0.25), ("1", 0.5), ("+Inf", 1.0)] {
                storage.add_float(&bucket(le), t, count * share);
            }
            let custom = i % 20 == 19;
            let histogram = FloatHistogram {
                schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { (i % 3) as i32 },
                count: count * 3.0,
                sum: odd[(i % 10) as usize],
                positive_spans: vec![BucketSpan { offset: (i % 2) as i32 * i32::from(!custom), length: 2 }],
                positive_buckets: vec![count, count * 2.0],
                custom_values: if custom { [0.5, 2.5].into() } else { [].into() },
                ..FloatHistogram::default()
            };
            let sample = if i % 11 == 10 {
                MemorySample::Float { value: count, start: 0 }
            } else {
                MemorySample::Histogram { histogram: Arc::new(histogram), start: 0 }
            };
            storage.add(&native, t, sample);
        }
    }
    let info = labels(&[("__name__", "target_info"), ("job", "a"), ("instance", "1"), ("version", "2")]);
    storage.add_float(&info, 0, 1.0);
    storage.add_float(&labels(&[("__name__", "utf8 näme"), ("läbel", "ü\"\n")]), 60_000, 2.0);
    storage
}

/// The tree without places, with matchers in an order that does not depend on how they were written, and without the `+` of
/// durations, which means nothing and is not printed.
#[must_use]
pub fn normalized(expr: &Expr) -> Expr {
    let mut expr = expr.clone();
    normalize(&mut expr);
    expr
}

fn normalize(expr: &mut Expr) {
    expr.span = Span::default();
    match &mut expr.kind {
        ExprKind::Aggregate(aggregate) => {
            aggregate.param.iter_mut().for_each(|param| normalize(param));
            normalize(&mut aggregate.expr);
        }
        ExprKind::Binary(binary) => {
            normalize(&mut binary.lhs);
            normalize(&mut binary.rhs);
        }
        ExprKind::Call(call) => call.args.iter_mut().for_each(normalize),
        ExprKind::Matrix(matrix) => {
            matrix.vector_span = Span::default();
            normalize_selector(&mut matrix.vector);
            normalize_duration(&mut matrix.range);
        }
        ExprKind::Vector(vector) => normalize_selector(vector),
        ExprKind::Subquery(subquery) => {
            normalize(&mut subquery.expr);
            normalize_duration(&mut subquery.range);
            subquery.step.iter_mut().for_each(normalize_duration);
            normalize_time(&mut subquery.time);
        }
        ExprKind::Paren(inner) => normalize(inner),
        ExprKind::Unary(unary) => normalize(&mut unary.expr),
        _ => {}
    }
}

fn normalize_selector(selector: &mut VectorSelector) {
    selector.matchers.sort_by_key(ToString::to_string);
    normalize_time(&mut selector.time);
}

fn normalize_time(time: &mut TimeModifiers) {
    time.offset.iter_mut().for_each(normalize_duration);
}

fn normalize_duration(duration: &mut DurationExpr) {
    duration.span = Span::default();
    match &mut duration.kind {
        DurationKind::MinOf(a, b) | DurationKind::MaxOf(a, b) | DurationKind::Binary(_, a, b) => {
            normalize_duration(a);
            normalize_duration(b);
        }
        DurationKind::Negate(inner) | DurationKind::Paren(inner) => normalize_duration(inner),
        DurationKind::Plus(inner) => {
            normalize_duration(inner);
            *duration = (**inner).clone();
        }
        DurationKind::Literal { .. } | DurationKind::Step | DurationKind::Range => {}
    }
}
