//! Floats, and classic histograms made of them.

use model::{Labels, Timestamp, is_stale_nan, stale_nan};
use proptest::prelude::*;
use query::exec::{Engine, EngineOptions, QueryOptions, QueryValue};
use query::parse::ParseOptions;
use query::script::MemoryStorage;

use crate::compare::{Setting, cases, stored};
use crate::queries::{WHOLE_RANGE, grouping, joined, matching, modifiers, one_of};
use crate::reference::{self, Sample, Value};

/// Floats by time, in order.
type Floats = std::collections::BTreeMap<Labels, Vec<(i64, f64)>>;

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

fn data(specials: bool) -> impl Strategy<Value = Floats> {
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

/// Integers only, so that sums have one right answer, whatever their order; and the buckets of two classic histograms.
fn whole_data() -> impl Strategy<Value = Floats> {
    let whole = data(false).prop_map(|data| {
        let cut = |samples: Vec<(i64, f64)>| {
            samples.into_iter().map(|(t, v)| (t, if is_stale_nan(v) { v } else { v.trunc() })).collect()
        };
        data.into_iter().map(|(labels, samples)| (labels, cut(samples))).collect::<Floats>()
    });
    let observed =
        prop::collection::vec((1i64..30_000, [0u32..4, 0u32..4, 0u32..4, 0u32..2], 0u8..20), 0..60);
    (whole, observed.clone(), observed).prop_map(|(mut data, a, b)| {
        for (job, observed) in [("a", a), ("b", b)] {
            let mut counts = [0.0; 4];
            let mut t = 0;
            for (gap, new, reset) in observed {
                t += gap;
                if reset == 0 {
                    counts = [0.0; 4];
                }
                let mut below = 0.0;
                for ((count, new), le) in counts.iter_mut().zip(new).zip(["0.1", "1", "2.5", "+Inf"]) {
                    below += f64::from(new);
                    *count += below;
                    let labels = Labels::from_pairs([("__name__", "h_bucket"), ("job", job), ("le", le)]);
                    data.entry(labels).or_default().push((t, *count));
                }
            }
        }
        data
    })
}

fn selector() -> impl Strategy<Value = String> {
    let name = one_of(&[
        "x_total",
        "y",
        "{job=~\"a|b\", __name__!=\"h_bucket\"}",
        "x_total{job=\"a\"}",
        "y{instance!=\"1\"}",
    ]);
    (name, modifiers()).prop_map(|(name, modifiers)| format!("{name}{modifiers}"))
}

/// Those whose results are not as whole as the samples.
const RANGE: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "avg_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "mad_over_time",
    "deriv",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
];

/// Windows of a selector, and of `inner` step by step.
fn window(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let range = one_of(&["20s", "1m", "5m", "13m", "40m"]);
    let steps = one_of(&["5m:1m", "10m:45s", "7m:"]);
    prop_oneof![
        4 => (one_of(&["x_total", "y"]), range, modifiers()).prop_map(|(name, range, modifiers)| format!("{name}[{range}]{modifiers}")),
        1 => (inner, steps, modifiers()).prop_map(|(inner, range, modifiers)| format!("({inner})[{range}]{modifiers}")),
    ]
}

fn whole_call(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (one_of(WHOLE_RANGE), window(inner)).prop_map(|(function, window)| format!("{function}({window})"))
}

fn range_call(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let function = prop_oneof![one_of(RANGE), one_of(WHOLE_RANGE)];
    (function, 0u8..14, window(inner)).prop_map(|(function, variant, window)| match variant {
        0 => format!("quantile_over_time(0.3, {window})"),
        // Far from the window the formula itself loses digits.
        1 if !window.contains('@') => format!("predict_linear({window}, 600)"),
        2 => format!("double_exponential_smoothing({window}, 0.3, 0.6)"),
        _ => format!("{function}({window})"),
    })
}

/// Vectors of integers: what may be compared, cut and ranked, since there is one right answer.
fn whole_expr() -> BoxedStrategy<String> {
    let leaf = prop_oneof![3 => selector(), 3 => whole_call(selector())];
    leaf.prop_recursive(3, 10, 2, |inner| {
        let aggregation = one_of(&["sum", "min", "max", "count", "group"]);
        let ranked = one_of(&["topk(1, ", "bottomk(2, ", "topk(3, ", "count_values(\"v\", "]);
        let op = one_of(&["+", "-", "==", "!=", "<", ">= bool", ">", "and", "or", "unless"]);
        let number = one_of(&[
            "7",
            "0",
            "-3",
            "scalar(sum(y))",
            "scalar(x_total)",
            "(2 > bool 1)",
            "scalar(count(y)) - 2 ^ 2",
        ]);
        let function = one_of(&[
            "abs",
            "ceil",
            "floor",
            "sgn",
            "round",
            "-",
            "+",
            "sort",
            "sort_desc",
            "minute",
            "hour",
            "day_of_week",
        ]);
        prop_oneof![
            (aggregation, grouping(), inner.clone())
                .prop_map(|(op, grouping, inner)| format!("{op}{grouping} ({inner})"))
                .boxed(),
            (ranked, grouping(), inner.clone())
                .prop_map(|(ranked, grouping, inner)| {
                    let (op, param) = ranked.split_once('(').expect("with a parameter");
                    format!("{op}{grouping} ({param}{inner})")
                })
                .boxed(),
            (grouping(), selector())
                .prop_map(|(grouping, inner)| format!("limitk{grouping} (2, {inner})"))
                .boxed(),
            (inner.clone(), op, matching(), inner.clone())
                .prop_map(|(a, op, matching, b)| joined(&a, &op, &matching, &b))
                .boxed(),
            (inner.clone(), one_of(&["+", "-", "> ", "<= bool", "== ", "!= "]), number.clone())
                .prop_map(|(a, op, b)| format!("({a}) {op} {b}"))
                .boxed(),
            (number.clone(), one_of(&["+", "-", "> bool", "<"]), inner.clone())
                .prop_map(|(a, op, b)| format!("{a} {op} ({b})"))
                .boxed(),
            (function, inner.clone()).prop_map(|(function, inner)| format!("{function}({inner})")).boxed(),
            inner.clone().prop_map(|inner| format!("absent({inner})")).boxed(),
            inner.clone().prop_map(|inner| format!("clamp({inner}, 2, 30)")).boxed(),
            inner.clone().prop_map(|inner| format!("clamp_max(clamp_min({inner}, 5), 300)")).boxed(),
            selector().prop_map(|inner| format!("timestamp({inner})")).boxed(),
            number.prop_map(|number| format!("vector({number})")).boxed(),
            inner
                .clone()
                .prop_map(|inner| format!("label_replace({inner}, \"job\", \"$1x\", \"job\", \"(a)\")"))
                .boxed(),
            inner
                .clone()
                .prop_map(|inner| format!("label_replace({inner}, \"instance\", \"\", \"instance\", \".*\")"))
                .boxed(),
            inner
                .clone()
                .prop_map(|inner| format!("label_join({inner}, \"both\", \"-\", \"job\", \"instance\")"))
                .boxed(),
            inner.clone().prop_map(|inner| format!("sort_by_label({inner}, \"job\")")).boxed(),
            whole_call(inner).boxed(),
        ]
    })
    .boxed()
}

/// Any vectors; of what is not whole, only what is continuous is asked.
fn vector_expr() -> BoxedStrategy<String> {
    let leaf = prop_oneof![2 => whole_expr(), 3 => range_call(selector()).boxed()];
    leaf.prop_recursive(2, 8, 2, |inner| {
        let aggregation = one_of(&["sum", "avg", "min", "max", "stddev", "stdvar", "count", "quantile"]);
        let op = one_of(&["+", "-", "*", "/", "and", "or", "unless", "atan2"]);
        let function = one_of(&["abs", "atan", "tanh", "deg", "rad", "-"]);
        let number = one_of(&["7", "0.5", "time()", "scalar(avg(y))", "pi()"]);
        prop_oneof![
            (aggregation, grouping(), inner.clone())
                .prop_map(|(op, grouping, inner)| match op.as_str() {
                    "quantile" => format!("quantile{grouping} (0.7, {inner})"),
                    _ => format!("{op}{grouping} ({inner})"),
                })
                .boxed(),
            (inner.clone(), op, matching(), inner.clone())
                .prop_map(|(a, op, matching, b)| joined(&a, &op, &matching, &b))
                .boxed(),
            (inner.clone(), one_of(&["+", "-", "*", "/"]), number.clone())
                .prop_map(|(a, op, b)| format!("({a}) {op} {b}"))
                .boxed(),
            (number, inner.clone()).prop_map(|(a, b)| format!("{a} - ({b})")).boxed(),
            (function, inner.clone()).prop_map(|(function, inner)| format!("{function}({inner})")).boxed(),
            range_call(whole_expr()).boxed(),
            (one_of(&["0.5", "0.9", "0", "1", "-1", "2"]), grouping(), one_of(&["1m", "5m"]))
                .prop_map(|(q, grouping, range)| {
                    let by = if grouping.contains("by") { " by (job, le)" } else { " by (le)" };
                    format!("histogram_quantile({q}, sum{by} (rate(h_bucket[{range}])))")
                })
                .boxed(),
            one_of(&[
                "histogram_quantile(0.9, h_bucket)",
                "histogram_quantile(0.3, {__name__=\"h_bucket\", le!=\"1\"})"
            ]),
        ]
    })
    .boxed()
}

fn data_of(floats: &Floats) -> reference::Data {
    let sample = |(t, v): &(i64, f64)| Sample::new(*t, Value::Float(*v));
    floats.iter().map(|(labels, samples)| (labels.clone(), samples.iter().map(sample).collect())).collect()
}

fn compare(text: &str, data: &Floats, start: i64, step: i64, count: i64) -> Result<(), TestCaseError> {
    let setting = Setting { start, step, count, starts: false };
    crate::compare::compare(text, &data_of(data), setting).map(drop)
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn single_calls_agree(text in range_call(selector()), data in data(true), start in 0i64..HOUR_MS, step in prop::sample::select(vec![1_000i64, 7_000, 15_000, 60_000, 400_000])) {
        compare(&text, &data, start, step, 40)?;
    }

    #[test]
    fn whole_numbers_agree(text in whole_expr(), data in whole_data(), start in 0i64..HOUR_MS, step in prop::sample::select(vec![5_000i64, 30_000, 60_000])) {
        compare(&text, &data, start, step, 15)?;
    }

    #[test]
    fn expressions_agree(text in vector_expr(), data in whole_data(), start in 0i64..HOUR_MS, step in prop::sample::select(vec![5_000i64, 30_000, 60_000])) {
        compare(&text, &data, start, step, 15)?;
    }

    /// Of every ratio, the two parts have as many series as the whole.
    #[test]
    fn ratios_cut_in_two(inner in prop_oneof![one_of(&["x_total", "y"]), whole_expr()], data in whole_data(), ratio in 1u32..100, start in 0i64..HOUR_MS) {
        let ratio = f64::from(ratio) / 100.0;
        let (head, tail) = (format!("limit_ratio({ratio}, {inner})"), format!("limit_ratio({}, {inner})", ratio - 1.0));
        let count = |text: &str| counted(text, &data, start);
        if let Some(whole) = count(&inner) {
            prop_assert_eq!(count(&head).unwrap_or(0) + count(&tail).unwrap_or(0), whole, "{} of {}", ratio, inner);
        }
    }
}

/// Ends of windows that are as far as is still near: 1.1 gaps. Which of them are is a matter of the last bit, in seconds.
#[test]
fn ends_at_the_edge_of_extrapolation_agree() {
    let labels = Labels::from_pairs([("__name__", "x_total"), ("job", "a")]);
    for gap in (1..=60).map(|seconds| seconds * 1000) {
        let reach = gap * 11 / 10;
        for first in [1_000_000, 1_000_007] {
            let samples: Vec<(i64, f64)> = (0..8).map(|i| (first + i * gap, 50.0 + i as f64)).collect();
            let data: Floats = [(labels.clone(), samples)].into_iter().collect();
            // As far behind the last sample, then as far before the first.
            let (after, before) = (first + 7 * gap + reach, first - reach + 5 * gap);
            for (start, window) in [(after, 5 * gap), (before, 5 * gap)] {
                for function in ["rate", "increase", "delta"] {
                    let text = format!("{function}(x_total[{window}ms])");
                    compare(&text, &data, start, 1, 10).unwrap();
                }
            }
        }
    }
}

/// The number of series at an instant; `None`: no answer.
fn counted(text: &str, data: &Floats, t: Timestamp) -> Option<usize> {
    let engine = Engine::new(EngineOptions { parse: ParseOptions::all(), ..EngineOptions::default() });
    let query = engine.parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let result = engine.instant(&stored(&data_of(data)), &query, t, &QueryOptions::default()).ok()?;
    match result.value {
        QueryValue::Vector(samples) => Some(samples.len()),
        other => panic!("{text}: {other:?}"),
    }
}

proptest! {
    #![proptest_config(cases(12))]

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
