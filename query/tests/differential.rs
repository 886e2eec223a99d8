//! The engine against a slow, plain evaluator, on generated queries over generated data.

mod reference;

use std::collections::BTreeMap;

use model::{Labels, Timestamp, stale_nan};
use proptest::prelude::*;
use query::exec::{Engine, EngineOptions, QueryOptions, QueryValue};
use query::parse::ParseOptions;
use query::script::MemoryStorage;
use reference::{Data, Reference};

const HOUR_MS: i64 = 3_600_000;

/// Samples of one series: gaps, resets, staleness markers, now and then a number that is none.
fn samples(specials: bool) -> impl Strategy<Value = Vec<(i64, f64)>> {
    let special = if specials { 3u32 } else { 0 };
    let value = prop_oneof![
        20 => (0u32..50).prop_map(f64::from),
        4 => -1e3f64..1e3,
        1 => Just(stale_nan()),
        special => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ];
    let gap = prop_oneof![10 => Just(15_000i64), 3 => 1i64..40_000, 1 => 100_000i64..700_000];
    prop::collection::vec((gap, value), 0..120).prop_map(|steps| {
        let mut t = 0;
        // Half of the values add up to a counter with resets at the small ones.
        let mut total = 0.0;
        steps
            .into_iter()
            .map(|(gap, value)| {
                t += gap;
                if value.is_finite() && value >= 3.0 && value.fract() == 0.0 {
                    total += value;
                    (t, total)
                } else {
                    if value.is_finite() {
                        total = 0.0;
                    }
                    (t, value)
                }
            })
            .collect()
    })
}

fn data(specials: bool) -> impl Strategy<Value = Data> {
    let names = ["x_total", "y"];
    let labels: Vec<Labels> = names
        .iter()
        .flat_map(|name| {
            [("a", "1"), ("a", "2"), ("b", "1"), ("b", "")].map(|(job, instance)| {
                Labels::from_pairs([("__name__", *name), ("job", job), ("instance", instance)])
            })
        })
        .collect();
    let count = labels.len();
    prop::collection::vec(prop::option::weighted(0.8, samples(specials)), count)
        .prop_map(move |all| labels.iter().cloned().zip(all).filter_map(|(l, s)| Some((l, s?))).collect())
}

fn selector() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("x_total"), Just("y"), Just("{job=~\"a|b\"}"), Just("x_total{job=\"a\"}")];
    (name, modifiers()).prop_map(|(name, modifiers)| format!("{name}{modifiers}"))
}

fn modifiers() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just(String::new()),
        1 => Just(" offset 3m".to_owned()),
        1 => Just(" offset -90s".to_owned()),
        1 => Just(" @ 1000".to_owned()),
        1 => Just(" @ end() offset 1m".to_owned()),
    ]
}

fn range_call(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let plain = prop::sample::select(vec![
        "rate",
        "increase",
        "delta",
        "irate",
        "idelta",
        "sum_over_time",
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "count_over_time",
        "present_over_time",
        "last_over_time",
        "first_over_time",
        "stddev_over_time",
        "stdvar_over_time",
        "mad_over_time",
        "changes",
        "resets",
        "deriv",
    ]);
    let range = prop::sample::select(vec!["20s", "1m", "5m", "13m", "40m"]);
    let name = prop::sample::select(vec!["x_total", "y"]);
    let window = prop_oneof![
        4 => (name, range.clone(), modifiers()).prop_map(|(name, range, modifiers)| format!("{name}[{range}]{modifiers}")),
        1 => (inner, prop::sample::select(vec!["5m:1m", "10m:45s", "7m:"])).prop_map(|(inner, range)| format!("({inner})[{range}]")),
    ];
    (plain, 0u8..12, window).prop_map(|(function, variant, window)| match variant {
        0 => format!("quantile_over_time(0.3, {window})"),
        // Far from the window the formula itself loses digits.
        1 if !window.contains('@') => format!("predict_linear({window}, 600)"),
        _ => format!("{function}({window})"),
    })
}

fn vector_expr() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![2 => selector(), 5 => range_call(selector())];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let aggregation = prop::sample::select(vec![
            "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile",
        ]);
        let grouping =
            prop::sample::select(vec!["", " by (job)", " without (instance)", " by (job, instance)"]);
        let op =
            prop::sample::select(vec!["+", "-", "*", "/", "==", "!=", "<", ">= bool", "and", "or", "unless"]);
        let matching = prop::sample::select(vec![
            "",
            " on (job, instance)",
            " ignoring (instance)",
            " on (job) group_left ()",
        ]);
        let scalar_op = prop::sample::select(vec!["+", "*", "> ", "<= bool", "/"]);
        prop_oneof![
            (aggregation, grouping, inner.clone()).prop_map(|(op, grouping, inner)| match op {
                "quantile" => format!("quantile{grouping} (0.7, {inner})"),
                _ => format!("{op}{grouping} ({inner})"),
            }),
            (inner.clone(), op, matching, inner.clone()).prop_map(|(a, op, matching, b)| {
                let set = matches!(op, "and" | "or" | "unless");
                let matching = if set && matching.contains("group") { "" } else { matching };
                format!("({a}) {op}{matching} ({b})")
            }),
            (inner.clone(), scalar_op).prop_map(|(a, op)| format!("({a}) {op} 7")),
            inner.clone().prop_map(|a| format!("7 - ({a})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            inner.clone().prop_map(|a| format!("abs({a})")),
            range_call(inner),
        ]
    })
}

fn close(a: f64, b: f64, scale: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(scale)
}

type Points = BTreeMap<Labels, BTreeMap<Timestamp, f64>>;

fn compare(text: &str, data: &Data, start: i64, step: i64, count: i64) -> Result<(), TestCaseError> {
    let engine = Engine::new(EngineOptions { parse: ParseOptions::all(), ..EngineOptions::default() });
    let mut storage = MemoryStorage::new();
    for (labels, samples) in data {
        samples.iter().for_each(|(t, v)| storage.add_float(labels, *t, *v));
    }
    let query = engine.parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let end = start + step * (count - 1);
    let reference = Reference { data, start, end };
    let mut expected = Some(Points::new());
    for t in (0..count).map(|i| start + i * step) {
        match (reference.vector(query.expr(), t), &mut expected) {
            (Ok(vector), Some(points)) => {
                vector.into_iter().for_each(|(labels, v)| {
                    points.entry(labels).or_default().insert(t, v);
                });
            }
            _ => expected = None,
        }
    }
    let got = engine.range(&storage, &query, start, end, step, &QueryOptions::default());
    let got = match (got, &expected) {
        (Err(_), None) => return Ok(()),
        (Ok(result), Some(_)) => result,
        // Range functions refuse series that become equal even when they share no step.
        (Err(error), Some(_)) => {
            prop_assert!(error.to_string().contains("same labelset"), "{}: {}", text, error);
            return Ok(());
        }
        (Ok(_), None) => {
            return Err(TestCaseError::fail(format!("{text}: the reference fails, the engine does not")));
        }
    };
    let QueryValue::Matrix(series) = got.value else { return Err(TestCaseError::fail("no matrix")) };
    let points = |series: query::exec::MatrixSeries| {
        (series.labels, series.floats.into_iter().map(|s| (s.t, s.v)).collect::<BTreeMap<_, _>>())
    };
    let got: Points = series.into_iter().map(points).collect();
    let expected = expected.unwrap_or_default();
    prop_assert_eq!(
        got.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "series of {}",
        text
    );
    for (labels, points) in &expected {
        let other = &got[labels];
        prop_assert_eq!(
            other.keys().collect::<Vec<_>>(),
            points.keys().collect::<Vec<_>>(),
            "steps of {} {}",
            text,
            labels
        );
        for (t, value) in points {
            prop_assert!(
                close(*value, other[t], 1.0),
                "{text} {labels} at {t}: expected {value}, got {}",
                other[t]
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn single_calls_agree(text in range_call(selector()), data in data(true), start in 0i64..HOUR_MS, step in prop::sample::select(vec![1_000i64, 7_000, 15_000, 60_000, 400_000])) {
        compare(&text, &data, start, step, 40)?;
    }

    #[test]
    fn expressions_agree(text in vector_expr(), data in data(false), start in 0i64..HOUR_MS, step in prop::sample::select(vec![5_000i64, 30_000, 60_000])) {
        compare(&text, &data, start, step, 15)?;
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Results do not depend on the number of threads.
    #[test]
    fn threads_do_not_matter(text in vector_expr(), data in data(true)) {
        let engine = Engine::new(EngineOptions { parse: ParseOptions::all(), ..EngineOptions::default() });
        let mut storage = MemoryStorage::new();
        for copy in 0..40 {
            for (labels, samples) in &data {
                let labels = labels.with("copy", &copy.to_string());
                samples.iter().for_each(|(t, v)| storage.add_float(&labels, *t, *v + f64::from(copy)));
            }
        }
        let query = engine.parse(&text).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let result = pool.install(|| {
                engine.range(&storage, &query, 600_000, 2_400_000, 15_000, &QueryOptions::default())
            });
            // Bits, so that NaN equals itself.
            result.map(|result| format!("{:?} {:?}", result.value, result.annotations)).map_err(|error| error.to_string())
        };
        prop_assert_eq!(run(1), run(4));
    }
}
