//! Native histograms and what the language has beyond floats.

use model::Labels;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use query::exec::{QueryOptions, QueryValue};

use crate::compare::{Seen, Setting, cases, compare, engine, run, stored};
use crate::data::histograms;
use crate::queries::{info_expr, one_of, quantity_expr, range_call, starts_expr, vector_expr, whole_expr};
use crate::reference::{Data, Sample, Value};

fn setting(count: i64) -> impl Strategy<Value = Setting> {
    let step = prop::sample::select(vec![5_000i64, 15_000, 30_000, 60_000, 7_000]);
    (60_000i64..1_500_000, step).prop_map(move |(start, step)| Setting { start, step, count, starts: false })
}

fn case(text: impl Strategy<Value = String>, count: i64) -> impl Strategy<Value = (String, Data, Setting)> {
    (text, histograms(), setting(count))
}

#[test]
fn calls_of_windows_agree() {
    let words = [
        "rate",
        "increase",
        "delta",
        "irate",
        "avg_over_time",
        "count_over_time",
        "ts_of_last_over_time",
        "anchored",
        "smoothed",
        "offset",
        "step",
        "range",
        "h",
        "c",
        "m",
        "g",
        "x_total",
    ];
    run(40, file!(), &words, case(range_call(one_of(&["h", "c", "m", "g", "x_total"])), 20));
}

#[test]
fn whole_histograms_agree() {
    let words = [
        "sum",
        "min",
        "max",
        "count",
        "group",
        "limitk",
        "limit_ratio",
        "topk",
        "bottomk",
        "count_values",
        "==",
        "!=",
        "</",
        "fill",
        "fill_left",
        "fill_right",
        "and",
        "or",
        "unless",
        "sum_over_time",
        "changes",
        "resets",
        "last_over_time",
        "idelta",
        "anchored",
        "smoothed",
        "histogram_count",
        "label_replace",
        "absent",
        "on",
        "group_left",
        "group_right",
    ];
    run(45, file!(), &words, case(whole_expr(), 10));
}

#[test]
fn expressions_agree() {
    let words = [
        "sum",
        "avg",
        "rate",
        "histogram_quantile",
        "histogram_quantiles",
        "histogram_fraction",
        "histogram_count",
        "histogram_sum",
        "histogram_avg",
        "histogram_stddev",
        "histogram_stdvar",
        "</",
        ">/",
    ];
    run(45, file!(), &words, case(vector_expr(), 10));
}

#[test]
fn quantities_agree() {
    let words = [
        "histogram_quantile",
        "histogram_quantiles",
        "histogram_fraction",
        "histogram_stdvar",
        "le",
        "</",
        ">/",
    ];
    run(40, file!(), &words, case(quantity_expr(), 10));
}

#[test]
fn start_timestamps_agree() {
    let words = ["rate", "increase", "irate", "resets", "delta", "start_timestamp", "h", "c", "x_total"];
    let starts = setting(20).prop_map(|setting| Setting { starts: true, ..setting });
    run(35, file!(), &words, (starts_expr(), histograms(), starts));
}

#[test]
fn instants_agree() {
    let instant = setting(1).prop_map(|setting| Setting { step: 0, ..setting });
    let words = ["sum", "rate", "histogram_quantile", "smoothed", "offset"];
    run(40, file!(), &words, (vector_expr(), histograms(), instant));
}

/// Of every ratio, the two parts are the whole, histograms and floats alike.
#[test]
fn ratios_cut_in_two() {
    let data = histograms();
    let strategy =
        (one_of(&["h", "m", "{__name__=~\"c|x_total\"}", "rate(h[5m])"]), data, 1u32..100, setting(5));
    TestRunner::new(cases(15))
        .run(&strategy, |(inner, data, ratio, setting)| {
            let ratio = f64::from(ratio) / 100.0;
            let (head, tail) =
                (format!("limit_ratio({ratio}, {inner})"), format!("limit_ratio({}, {inner})", ratio - 1.0));
            let count = |text: &str| counted(text, &data, setting);
            prop_assert_eq!(count(&head)? + count(&tail)?, count(&inner)?, "{} of {}", ratio, inner);
            prop_assert_eq!(
                count(&format!("({head}) and on (__name__, job, instance) ({tail})"))?,
                0,
                "{} of {}",
                ratio,
                inner
            );
            Ok(())
        })
        .unwrap();
}

/// Points of an answer.
fn counted(text: &str, data: &Data, setting: Setting) -> Result<usize, TestCaseError> {
    let Setting { start, step, count, .. } = setting;
    let engine = engine(false);
    let query = engine.parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let result = engine.range(
        &stored(data),
        &query,
        start,
        start + (count - 1) * step,
        step,
        &QueryOptions::default(),
    );
    // Two names with the same labels cannot become one.
    let Ok(result) = result else { return Err(TestCaseError::reject("no answer")) };
    match result.value {
        QueryValue::Matrix(series) => Ok(series.iter().map(|s| s.floats.len() + s.histograms.len()).sum()),
        other => Err(TestCaseError::fail(format!("{text}: {other:?}"))),
    }
}

/// Durations without a value are errors, not panics or empty answers.
#[test]
fn impossible_durations_fail_in_both() {
    let labels = Labels::from_pairs([("__name__", "x_total")]);
    let data: Data =
        [(labels, (1..20).map(|i| Sample::new(i * 15_000, Value::Float(i as f64))).collect())].into();
    let setting = Setting { start: 100_000, step: 15_000, count: 5, starts: false };
    for range in
        ["step() - 15", "1m / (step() - 15)", "-step()", "range() % (step() - 15)", "min_of(step(), 0)"]
    {
        let text = format!("rate(x_total[{range}])");
        assert_eq!(compare(&text, &data, setting).unwrap(), Seen::Error, "{text}");
    }
    for range in ["step() + 15", "max_of(step(), 2m)", "2 ^ 6", "range() * 2 % 100", "step() ^ 1.3"] {
        let text = format!("rate(x_total[{range}] offset (-step() / 2))");
        assert!(matches!(compare(&text, &data, setting).unwrap(), Seen::Points(1.., _)), "{text}");
    }
}

#[test]
fn info_agrees() {
    run(35, file!(), &["info", "version", "zone", "target_info", "build_info"], case(info_expr(), 10));
}
