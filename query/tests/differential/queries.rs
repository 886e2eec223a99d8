//! Generated queries on histograms, of floats among them, and of what is extended in the language.
//!
//! As with floats, two kinds: of *whole* vectors (sums of whole numbers have one right answer, so they may be compared and
//! ranked), and of others, of which only what is continuous is asked.

use proptest::prelude::*;

pub(crate) fn one_of(texts: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(texts).prop_map(str::to_owned).boxed()
}

pub(crate) fn modifiers() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just(String::new()),
        1 => Just(" offset 3m".to_owned()),
        1 => Just(" offset -90s".to_owned()),
        1 => Just(" @ 1000".to_owned()),
        1 => Just(" @ start()".to_owned()),
        1 => Just(" @ end() offset 1m".to_owned()),
    ]
}

/// Modifiers with durations that are computed.
fn computed() -> BoxedStrategy<String> {
    prop_oneof![
        6 => modifiers(),
        1 => one_of(&[
            " offset (1m + step())",
            " offset -(step() * 2)",
            " offset (max_of(step(), 20s))",
            " offset (90 - 2 ^ 5)",
            " @ 900 offset (range() / 4)",
        ]),
    ]
    .boxed()
}

pub(crate) fn grouping() -> BoxedStrategy<String> {
    one_of(&[
        "",
        " by (job)",
        " without (instance)",
        " by (job, instance)",
        " by (nothing)",
        " without (job, nothing)",
    ])
}

pub(crate) fn matching() -> BoxedStrategy<String> {
    one_of(&[
        "",
        " on (job, instance)",
        " ignoring (instance)",
        " on (job)",
        " on (job) group_left ()",
        " on (instance) group_right ()",
        " on (job) group_left (instance)",
        " ignoring (instance) group_right (instance)",
        " on (job, instance) fill (3)",
        " fill_left (2)",
        " on (job) group_left () fill_left (2) fill_right (5)",
        " on (job) group_right () fill_right (5)",
        " on (job) group_right () fill_left (4)",
    ])
}

/// Matching that seldom fails on the series there are.
fn fitting() -> BoxedStrategy<String> {
    prop_oneof![
        5 => one_of(&["", " on (job, instance)"]),
        3 => one_of(&[
            " on (job, instance) fill (3)",
            " fill_left (2)",
            " fill_right (0.5)",
            " fill (NaN)",
            " on (job, instance) group_left () fill_left (2) fill_right (5)",
            " on (job, instance) group_right () fill_right (5)",
            " ignoring (zone) group_right () fill_left (4)",
        ]),
        1 => matching(),
    ]
    .boxed()
}

/// `a op matching b`; sets know no groups.
pub(crate) fn joined(a: &str, op: &str, matching: &str, b: &str) -> String {
    let set = matches!(op, "and" | "or" | "unless");
    let matching =
        if set && (matching.contains("group") || matching.contains("fill")) { "" } else { matching };
    format!("({a}) {op}{matching} ({b})")
}

fn name() -> BoxedStrategy<String> {
    prop_oneof![4 => one_of(&["h"]), 3 => one_of(&["c", "m"]), 2 => one_of(&["g", "x_total"])].boxed()
}

fn selector() -> BoxedStrategy<String> {
    let several = one_of(&[
        "{__name__=~\"h|x_total\", instance!=\"2\"}",
        "{__name__=~\"h|g\", job=\"a\"}",
        "m{job=\"b\"}",
        "{__name__=~\"c|m\"}",
        "h{job=~\"a|b\", instance=\"1\"}",
        "y",
    ]);
    let smoothed = (name(), computed()).prop_map(|(name, modifiers)| format!("{name} smoothed{modifiers}"));
    let plain = (prop_oneof![4 => name(), 1 => several], computed());
    prop_oneof![
        7 => plain.prop_map(|(name, modifiers)| format!("{name}{modifiers}")),
        1 => smoothed,
    ]
    .boxed()
}

/// Functions of windows whose results are as whole as the samples.
pub(crate) const WHOLE_RANGE: &[&str] = &[
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "present_over_time",
    "last_over_time",
    "first_over_time",
    "changes",
    "resets",
    "idelta",
    "absent_over_time",
];

/// The others.
const RANGE: &[&str] = &[
    "rate",
    "rate",
    "increase",
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

fn range() -> BoxedStrategy<String> {
    prop_oneof![
        5 => one_of(&["20s", "1m", "5m", "13m", "40m"]),
        1 => one_of(&["step() * 4", "min_of(range(), 7m)", "2m + 30s", "range() / 3 + 1", "max_of(1m, step()) % 7m"]),
    ]
    .boxed()
}

fn window(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let steps = one_of(&["5m:1m", "10m:45s", "7m:", "6m:step() * 2", "3m:15s"]);
    prop_oneof![
        4 => (name(), range(), computed()).prop_map(|(name, range, modifiers)| format!("{name}[{range}]{modifiers}")),
        1 => (inner, steps, modifiers()).prop_map(|(inner, range, modifiers)| format!("({inner})[{range}]{modifiers}")),
    ]
    .boxed()
}

fn whole_call(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let plain = (one_of(WHOLE_RANGE), window(inner)).prop_map(|(f, window)| format!("{f}({window})"));
    let anchored = (one_of(&["changes", "resets"]), name(), range(), computed())
        .prop_map(|(f, name, range, modifiers)| format!("{f}({name}[{range}] anchored{modifiers})"));
    prop_oneof![5 => plain, 1 => anchored].boxed()
}

/// Calls that measure windows.
pub(crate) fn range_call(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let function = prop_oneof![3 => one_of(RANGE), 1 => one_of(WHOLE_RANGE)];
    let plain = (function, 0u8..24, window(inner)).prop_map(|(function, variant, window)| match variant {
        0 => format!("quantile_over_time(0.3, {window})"),
        1 => format!("quantile_over_time(1.5, {window})"),
        // Far from the window the formula itself loses digits.
        2 if !window.contains('@') => format!("predict_linear({window}, 600)"),
        3 => format!("double_exponential_smoothing({window}, 0.3, 0.6)"),
        _ => format!("{function}({window})"),
    });
    let modifier = one_of(&["anchored", "smoothed"]);
    let extended = (one_of(&["rate", "increase", "delta"]), name(), range(), modifier, computed())
        .prop_map(|(f, name, range, modifier, times)| format!("{f}({name}[{range}] {modifier}{times})"));
    prop_oneof![3 => plain, 1 => extended].boxed()
}

fn quantity() -> BoxedStrategy<String> {
    prop_oneof![
        3 => one_of(&["histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"])
            .prop_map(|f| format!("{f}(")),
        // No rank of so odd a quantile is at a bucket's end by chance.
        3 => one_of(&["0.3719", "0.8353", "0.0137", "-1", "2", "NaN"]).prop_map(|q| format!("histogram_quantile({q}, ")),
        3 => one_of(&["0, 2.2", "-Inf, 1.7", "-0.7, 0.1", "1.1, Inf", "-3, 5", "2, NaN", "-Inf, +Inf"])
            .prop_map(|bounds| format!("histogram_fraction({bounds}, ")),
    ]
    .boxed()
}

const CUTS: &[&str] = &["0", "1.3", "-0.4", "2", "7", "-Inf", "+Inf", "0.2", "-2"];

/// Vectors of whole numbers and whole histograms.
pub(crate) fn whole_expr() -> BoxedStrategy<String> {
    let leaf = prop_oneof![4 => selector(), 2 => whole_call(selector())];
    leaf.prop_recursive(3, 10, 2, |inner| {
        let aggregation = one_of(&["sum", "sum", "min", "max", "count", "group"]);
        let ranked = one_of(&["topk(1, ", "bottomk(2, ", "topk(3, ", "count_values(\"v\", ", "limitk(2, ", "topk(0, "]);
        let ratio = one_of(&["1", "-1", "1.1", "-1.5", "0"]);
        let op = one_of(&["+", "+", "-", "-", "==", "!=", "<", ">= bool", "== bool", "and", "or", "unless", "*", "</"]);
        let number = one_of(&["7", "2", "-3", "scalar(sum(y))", "scalar(x_total)", "max_of(2, step() / 15)"]);
        let function = one_of(&["abs", "ceil", "sgn", "-", "+", "sort", "minute", "timestamp"]);
        prop_oneof![
            4 => (aggregation, grouping(), inner.clone())
                .prop_map(|(op, grouping, inner)| format!("{op}{grouping} ({inner})")),
            2 => (ranked, grouping(), inner.clone()).prop_map(|(ranked, grouping, inner)| {
                let (op, param) = ranked.split_once('(').expect("with a parameter");
                format!("{op}{grouping} ({param}{inner})")
            }),
            1 => (ratio, grouping(), inner.clone())
                .prop_map(|(ratio, grouping, inner)| format!("limit_ratio{grouping} ({ratio}, {inner})")),
            5 => (inner.clone(), op, fitting(), inner.clone())
                .prop_map(|(a, op, matching, b)| joined(&a, &op, &matching, &b)),
            2 => (inner.clone(), one_of(&["+", "*", "/", "> ", "<= bool", "== ", "!= ", ">/"]), number.clone())
                .prop_map(|(a, op, b)| format!("({a}) {op} {b}")),
            2 => (number.clone(), one_of(&["*", "-", "> bool", "/", "=="]), inner.clone())
                .prop_map(|(a, op, b)| format!("{a} {op} ({b})")),
            1 => (inner.clone(), one_of(&["* 0", "/ 2", "/ 0.5", "* -1"])).prop_map(|(a, op)| format!("({a}) {op}")),
            1 => (function, inner.clone()).prop_map(|(function, inner)| format!("{function}({inner})")),
            1 => inner.clone().prop_map(|inner| format!("absent({inner})")),
            1 => inner.clone().prop_map(|inner| format!("clamp({inner}, 2, 30)")),
            1 => inner
                .clone()
                .prop_map(|inner| format!("label_replace({inner}, \"job\", \"$1x\", \"job\", \"(a)\")")),
            1 => inner
                .clone()
                .prop_map(|inner| format!("label_join({inner}, \"both\", \"-\", \"job\", \"instance\")")),
            1 => inner.clone().prop_map(|inner| format!("sort_by_label({inner}, \"job\")")),
            2 => one_of(&["histogram_count", "histogram_sum"])
                .prop_flat_map(move |f| inner.clone().prop_map(move |inner| format!("{f}({inner})"))),
            2 => whole_call(selector()),
        ]
    })
    .boxed()
}

/// Any vectors; of what is not whole, only what is continuous is asked.
pub(crate) fn vector_expr() -> BoxedStrategy<String> {
    let leaf = prop_oneof![2 => whole_expr(), 3 => range_call(selector())];
    leaf.prop_recursive(2, 8, 2, |inner| {
        let aggregation = one_of(&["sum", "sum", "avg", "avg", "count", "stddev", "quantile", "max"]);
        let op = one_of(&["+", "-", "*", "/", "and", "or", "unless"]);
        prop_oneof![
            4 => (aggregation, grouping(), inner.clone()).prop_map(|(op, grouping, inner)| match op.as_str() {
                "quantile" => format!("quantile{grouping} (0.7, {inner})"),
                _ => format!("{op}{grouping} ({inner})"),
            }),
            3 => (inner.clone(), op, fitting(), inner.clone())
                .prop_map(|(a, op, matching, b)| joined(&a, &op, &matching, &b)),
            2 => (inner.clone(), one_of(&["*", "/", "+"]), one_of(&["7", "0.5", "time()", "scalar(avg(y))", "-2"]))
                .prop_map(|(a, op, b)| format!("({a}) {op} {b}")),
            2 => (inner.clone(), one_of(&["</", ">/"]), one_of(CUTS))
                .prop_map(|(a, op, b)| format!("({a}) {op} {b}")),
            5 => (quantity(), inner.clone()).prop_map(|(quantity, inner)| format!("{quantity}{inner})")),
            1 => inner.clone().prop_map(|inner| format!("histogram_quantiles({inner}, \"q\", 0.3719, 0.8353)")),
            1 => inner.prop_map(|inner| format!("-({inner})")),
            2 => range_call(whole_expr()),
        ]
    })
    .boxed()
}

/// Quantities of histograms as they are, bucket ends met: classic ones too.
pub(crate) fn quantity_expr() -> BoxedStrategy<String> {
    let quantile = one_of(&["0", "0.5", "1", "0.25", "0.9", "-0.1", "1.001", "NaN", "scalar(y)"]);
    let bounds =
        one_of(&["0, 1", "-1, 1", "1, 4", "-Inf, 2.5", "0.5, +Inf", "5, 1", "-Inf, 0", "NaN, 1", "0, 2.5"]);
    let input = prop_oneof![
        5 => selector(),
        2 => one_of(&["le", "le{le!=\"bad\"}", "{__name__=~\"le|h\"}", "{__name__=\"le\", le=~\"1|5|[+]Inf\"}"]),
        1 => (one_of(&["sum", "avg"]), grouping(), selector()).prop_map(|(op, grouping, inner)| format!("{op}{grouping} ({inner})")),
        1 => (selector(), one_of(&["</", ">/"]), one_of(CUTS)).prop_map(|(a, op, b)| format!("({a}) {op} {b}")),
    ];
    (input, quantile, bounds, 0u8..5)
        .prop_flat_map(|(input, q, bounds, variant)| match variant {
            0 | 1 => Just(format!("histogram_quantile({q}, {input})")).boxed(),
            2 => Just(format!("histogram_fraction({bounds}, {input})")).boxed(),
            3 => Just(format!("histogram_quantiles({input}, \"q\", 0.5, 0.9, 1)")).boxed(),
            _ => quantity().prop_map(move |quantity| format!("{quantity}{input})")).boxed(),
        })
        .boxed()
}

/// Calls that look at start timestamps, and at histograms and floats together.
pub(crate) fn starts_expr() -> BoxedStrategy<String> {
    let function = one_of(&["rate", "increase", "irate", "resets", "delta", "rate", "increase"]);
    let call = (function, name(), range(), computed())
        .prop_map(|(f, name, range, modifiers)| format!("{f}({name}[{range}]{modifiers})"));
    prop_oneof![
        6 => call.clone(),
        1 => call.prop_map(|call| format!("sum by (job) ({call})")),
        1 => (name(), computed()).prop_map(|(name, modifiers)| format!("start_timestamp({name}{modifiers})")),
        1 => (one_of(&["increase", "resets"]), name())
            .prop_map(|(f, name)| format!("{f}({name}[5m:30s])")),
    ]
    .boxed()
}

/// `info` in its forms.
pub(crate) fn info_expr() -> BoxedStrategy<String> {
    let at = one_of(&["", "", "", " @ 700", " @ end()"]);
    let base = prop_oneof![
        4 => (one_of(&["h", "x_total", "c", "m", "{__name__=~\"h|target_info\"}", "y"]), at)
            .prop_map(|(name, at)| format!("{name}{at}")),
        2 => one_of(&["rate(x_total[5m])", "rate(h[5m])", "sum by (job, instance) (h)", "target_info", "x_total > 3"]),
    ];
    let selector = one_of(&[
        "",
        "",
        ", {version=~\".+\"}",
        ", {zone=~\".*\"}",
        ", {__name__=\"target_info\"}",
        ", {__name__=\"build_info\"}",
        ", {__name__=~\".+_info\"}",
        ", {__name__=~\".+_info\", zone!=\"2\"}",
        ", {version=\"a\"}",
        ", {__name__=\"build_info\", branch=~\".+\"}",
        ", {__name__=\"c\"}",
    ]);
    (base, selector, prop::bool::weighted(0.3))
        .prop_map(|(base, selector, count)| {
            let call = format!("info({base}{selector})");
            if count { format!("count without (instance) ({call})") } else { call }
        })
        .boxed()
}
