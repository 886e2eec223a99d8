//! Tests of the parser as a whole: golden files, texts that print and parse to the same, depth.

use std::fmt::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ast::{DurationExpr, DurationKind, Span, TimeModifiers, VectorSelector};

fn error(text: &str) -> String {
    parse(text, &ParseOptions::all())
        .map(|expr| format!("accepted: {expr}"))
        .unwrap_or_else(|error| error.to_string())
}

/// Lines of two fields; the first is a JSON string.
fn golden(file: &str) -> impl Iterator<Item = (String, &str)> {
    file.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (query, rest) = line.split_once('\t').expect("two fields");
        (unjson(query), rest)
    })
}

fn unjson(text: &str) -> String {
    serde_json::from_str(text).expect("a JSON string")
}

#[test]
fn errors_are_those_of_prometheus() {
    let mut wrong = String::new();
    for (query, message) in golden(include_str!("../../testdata/parse_errors.txt")) {
        let found = error(&query);
        if found != message {
            writeln!(wrong, "{query:?}\n  wanted {message}\n  found  {found}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn prints_like_prometheus() {
    for (query, printed) in golden(include_str!("../../testdata/print.txt")) {
        let printed = unjson(printed);
        let expr = parse(&query, &ParseOptions::all()).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(expr.to_string(), printed, "{query}");
        assert_eq!(pretty(&expr), printed, "{query}");
        assert_same(&expr, &printed);
    }
}

#[test]
fn lays_out_like_prometheus() {
    for (query, laid_out) in golden(include_str!("../../testdata/pretty.txt")) {
        let laid_out = unjson(laid_out);
        let expr = parse(&query, &ParseOptions::all()).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(pretty(&expr), laid_out, "{query}");
        assert_same(&expr, &laid_out);
    }
}

#[test]
fn features_are_refused_when_off() {
    let cases = [
        ("start()", "1:1: parse error: function \"start\" is not enabled"),
        (
            "1 + limitk(1, x)",
            "1:5: parse error: limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
        ),
        ("a + fill(0) b", "1:1: parse error: binop fill modifiers are experimental and not enabled"),
        ("a[5m] anchored", "1:1: parse error: anchored modifier is experimental and not enabled"),
        ("a smoothed", "1:1: parse error: smoothed modifier is experimental and not enabled"),
        ("a[1m+1m]", "1:3: parse error: experimental duration expression is not enabled"),
        ("a offset step()", "1:10: parse error: experimental duration expression is not enabled"),
    ];
    let off = ParseOptions { duration_expressions: false, ..ParseOptions::default() };
    for (query, message) in cases {
        assert_eq!(parse(query, &off).unwrap_err().to_string(), message, "{query}");
        assert_ne!(
            parse(query, &ParseOptions::all()).map_err(|error| error.to_string()),
            Err(message.to_owned())
        );
    }
}

#[test]
fn selectors_and_metrics_stand_alone() {
    let selector = |text| parse_selector(text).map(|m| format!("{m:?}")).map_err(|error| error.to_string());
    assert_eq!(selector("up{job=~\"a|b\"}"), Ok("[job=~\"a|b\", __name__=\"up\"]".to_owned()));
    assert_eq!(selector("{\"a.b\", c!=\"d\",}"), Ok("[__name__=\"a.b\", c!=\"d\"]".to_owned()));
    assert_eq!(selector("up[5m]"), Err("1:3: parse error: unexpected \"[\"".to_owned()));
    assert_eq!(selector("up offset 5m"), Err("1:4: parse error: unexpected <offset>".to_owned()));
    assert_eq!(selector(""), Err("unknown position: parse error: unexpected end of input".to_owned()));
    assert_eq!(selector("1"), Err("1:1: parse error: unexpected number \"1\"".to_owned()));
    assert_eq!(selector("sum(x)"), Err("1:4: parse error: unexpected \"(\"".to_owned()));
    let metric = |text| parse_metric(text).map(|m| m.to_string()).map_err(|error| error.to_string());
    assert_eq!(
        metric("up{job=\"a\", \"b.c\"='d'}"),
        Ok("{__name__=\"up\", \"b.c\"=\"d\", job=\"a\"}".to_owned())
    );
    assert_eq!(metric(""), Ok("{}".to_owned()));
    assert_eq!(
        metric("up{job=~\"a\"}"),
        Err("1:7: parse error: unexpected <op:=~> in label set, expected \"=\"".to_owned())
    );
}

#[test]
fn spans_cover_what_they_stand_for() {
    let text = "sum by (a) (rate(x{b=\"c\"}[5m] offset 1m)) +\n -y @ 5";
    let expr = parse(text, &ParseOptions::all()).unwrap();
    let part = |span: Span| &text[span.start as usize..span.end as usize];
    let ExprKind::Binary(sum) = &expr.kind else { panic!("{expr:?}") };
    assert_eq!(part(expr.span), text);
    assert_eq!(part(sum.lhs.span), "sum by (a) (rate(x{b=\"c\"}[5m] offset 1m))");
    assert_eq!(part(sum.rhs.span), "-y @ 5");
    let ExprKind::Aggregate(aggregate) = &sum.lhs.kind else { panic!("{sum:?}") };
    let ExprKind::Call(call) = &aggregate.expr.kind else { panic!("{aggregate:?}") };
    assert_eq!(part(call.args[0].span), "x{b=\"c\"}[5m] offset 1m");
    let ExprKind::Matrix(matrix) = &call.args[0].kind else { panic!("{call:?}") };
    assert_eq!(part(matrix.vector_span), "x{b=\"c\"}");
    assert_eq!(part(matrix.range.span), "5m");
}

#[test]
fn shows_the_tree_as_json() {
    let expr = parse("foo{a=\"b\"}[5m] offset -1m @ 3", &ParseOptions::all()).unwrap();
    let wanted = serde_json::json!({
        "type": "matrixSelector",
        "name": "foo",
        "range": 300_000,
        "rangeExpr": null,
        "offset": -60_000,
        "offsetExpr": null,
        "matchers": [
            {"name": "a", "value": "b", "type": "="},
            {"name": "__name__", "value": "foo", "type": "="},
        ],
        "timestamp": 3000,
        "startOrEnd": null,
        "anchored": false,
        "smoothed": false,
    });
    assert_eq!(to_json(&expr), wanted);
    let expr = parse("x / on(a) group_left y[1h:step()] > bool 1", &ParseOptions::all());
    assert!(expr.is_err());
    let expr = parse("-(x / on(a) group_left y)", &ParseOptions::all()).unwrap();
    let json = to_json(&expr);
    assert_eq!(json["op"], "-");
    let matching = &json["expr"]["expr"]["matching"];
    assert_eq!(matching["card"], "many-to-one");
    assert_eq!(matching["include"], serde_json::json!([]));
    assert_eq!(matching["fillValues"], serde_json::json!({"lhs": null, "rhs": null}));
    let expr = parse("avg_over_time(x[(step() + 1):1m * 2] offset -1h)", &ParseOptions::all()).unwrap();
    let subquery = &to_json(&expr)["args"][0];
    let operation = |op: &str, lhs: serde_json::Value, rhs: serde_json::Value, wrapped: bool| serde_json::json!({"type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": wrapped});
    let number = |value: &str, duration: bool| serde_json::json!({"type": "numberLiteral", "val": value, "duration": duration});
    let null = serde_json::Value::Null;
    let step = operation("step", null.clone(), null.clone(), false);
    assert_eq!(subquery["rangeExpr"], operation("+", step, number("1", false), true));
    assert_eq!(subquery["stepExpr"], operation("*", number("60", true), number("2", false), false));
    assert_eq!((&subquery["range"], &subquery["step"]), (&serde_json::json!(0), &serde_json::json!(0)));
    assert_eq!((&subquery["offset"], &subquery["offsetExpr"]), (&serde_json::json!(-3_600_000), &null));
}

#[test]
fn durations_have_values() {
    let times = QueryTimes { start: 10_000, end: 70_000, step: 5_000 };
    let range = |text: &str| {
        let query = format!("x[{text}]");
        let expr = parse(&query, &ParseOptions::all()).unwrap_or_else(|error| panic!("{query}: {error}"));
        let ExprKind::Matrix(matrix) = expr.kind else { panic!("{query}") };
        eval_positive_duration(&matrix.range, &times)
    };
    let cases = [
        ("5m", Ok(300_000)),
        ("90", Ok(90_000)),
        ("1.5", Ok(1500)),
        ("step()", Ok(5000)),
        ("range()", Ok(60_000)),
        ("max_of(step(), 1m) + min_of(range(), 2)", Ok(62_000)),
        ("-2^2 + 5", Ok(1000)),
        ("(1 + 2) * 3 % 4", Ok(1000)),
        ("2 ^ 3 ^ 0.5", Ok(3321)),
        ("step() * 0.0001", Ok(0)),
        ("1s - step()", Err(DurationEvalError::NotPositive)),
        ("1 / (step() - 5)", Err(DurationEvalError::DivisionByZero)),
        ("1 % (step() - 5)", Err(DurationEvalError::ModuloByZero)),
        ("200y * 200", Err(DurationEvalError::OutOfRange)),
        ("(0 - 1) ^ 0.5", Err(DurationEvalError::OutOfRange)),
    ];
    for (text, value) in cases {
        assert_eq!(range(text), value, "{text}");
    }
}

/// A thread of its own, so that a parser gone quadratic fails the test instead of holding it.
#[test]
fn deep_texts_are_refused_fast() {
    let (done, finished) = mpsc::sync_channel(1);
    let worker = std::thread::spawn(move || {
        refuse_deep_texts();
        done.send(()).ok();
    });
    let outcome = finished.recv_timeout(Duration::from_secs(20));
    assert_ne!(outcome, Err(mpsc::RecvTimeoutError::Timeout), "too slow");
    worker.join().unwrap();
}

fn refuse_deep_texts() {
    const LEVELS: usize = 100_000;
    let forms: [(&str, &str, &str); 10] = [
        ("(", "1", ")"),
        ("abs(", "x", ")"),
        ("sum(", "x", ")"),
        ("-", "x", ""),
        ("1 + ", "1", ""),
        ("1 ^ ", "1", ""),
        ("", "x", "[1m:]"),
        ("", "x", " or x"),
        ("x[", "1m", "]"),
        ("x + on(a) (", "x", ")"),
    ];
    for (before, middle, after) in forms {
        let text = [&before.repeat(LEVELS), middle, &after.repeat(LEVELS)].concat();
        let found = error(&text);
        let refused =
            found.ends_with("expression too deeply nested") || found.contains("unexpected left bracket");
        assert!(refused || found.contains("in duration expression"), "{before}{middle}{after}: {found}");
    }
    for nested in ["(", "-(", "1+", "2^", "min_of(1, "] {
        let text = format!("x[{}1", nested.repeat(LEVELS));
        assert!(error(&text).ends_with("expression too deeply nested"), "{nested}");
    }
    // Signs fold into numbers, so these are not deep; beyond the limit they are refused all the same.
    assert_eq!(error(&format!("{}1", "-".repeat(499))), "accepted: -1");
}

#[test]
fn the_deepest_tree_fits_a_small_stack() {
    let run = || {
        let levels = grammar::NESTING_MAX as usize - 10;
        let forms: [(&str, &str, &str); 8] = [
            ("(", "x", ")"),
            ("abs(", "x", ")"),
            ("sum by (a) (", "x", ")"),
            ("-", "x", ""),
            ("x ^ on (a) ", "x", ""),
            ("", "x", " or x"),
            ("topk(1, ", "x", ")"),
            ("max_over_time(", "x", "[1h:5m])"),
        ];
        for (before, middle, after) in forms {
            // A subquery is a level of its own.
            let levels = if after.contains('[') { levels / 2 } else { levels };
            let text = [&before.repeat(levels), middle, &after.repeat(levels)].concat();
            let expr = parse(&text, &ParseOptions::all()).unwrap_or_else(|error| panic!("{before}: {error}"));
            let printed = expr.to_string();
            assert_eq!(parse(&printed, &ParseOptions::all()).unwrap().to_string(), printed);
            assert!(parse(&pretty(&expr), &ParseOptions::all()).is_ok());
            assert_ne!(value_type(&expr), ValueType::None);
            assert_eq!(expr.clone(), expr);
            drop(to_json(&expr));
            drop(format!("{expr:?}"));
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

/// Parses `text` again and compares all but spans and the order of matchers.
fn assert_same(expr: &Expr, text: &str) {
    let mut again = parse(text, &ParseOptions::all()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut expr = expr.clone();
    bare(&mut expr);
    bare(&mut again);
    assert_eq!(expr, again, "{text}");
}

fn bare(expr: &mut Expr) {
    // `Inf ^ x` prints as `+Inf ^ x`, as in Prometheus, and gains a plus sign, which means nothing.
    while let ExprKind::Unary(unary) = &mut expr.kind
        && !unary.negative
    {
        let inner = std::mem::replace(&mut unary.expr.kind, ExprKind::String(String::new()));
        expr.kind = inner;
    }
    expr.span = Span::default();
    match &mut expr.kind {
        ExprKind::Aggregate(aggregate) => {
            bare(&mut aggregate.expr);
            aggregate.param.iter_mut().for_each(|param| bare(param));
        }
        ExprKind::Binary(binary) => {
            bare(&mut binary.lhs);
            bare(&mut binary.rhs);
        }
        ExprKind::Call(call) => call.args.iter_mut().for_each(bare),
        ExprKind::Matrix(matrix) => {
            matrix.vector_span = Span::default();
            bare_vector(&mut matrix.vector);
            bare_duration(&mut matrix.range);
        }
        ExprKind::Vector(vector) => bare_vector(vector),
        ExprKind::Subquery(subquery) => {
            bare(&mut subquery.expr);
            bare_duration(&mut subquery.range);
            subquery.step.iter_mut().for_each(bare_duration);
            bare_time(&mut subquery.time);
        }
        ExprKind::Paren(inner) => bare(inner),
        ExprKind::Unary(unary) => bare(&mut unary.expr),
        ExprKind::Number(_) | ExprKind::String(_) => {}
    }
}

fn bare_vector(vector: &mut VectorSelector) {
    bare_time(&mut vector.time);
    vector.matchers.sort_by_key(|matcher| matcher.to_string());
}

fn bare_time(time: &mut TimeModifiers) {
    time.offset.iter_mut().for_each(bare_duration);
}

fn bare_duration(duration: &mut DurationExpr) {
    duration.span = Span::default();
    match &mut duration.kind {
        DurationKind::Literal { .. } | DurationKind::Step | DurationKind::Range => {}
        DurationKind::MinOf(a, b) | DurationKind::MaxOf(a, b) | DurationKind::Binary(_, a, b) => {
            bare_duration(a);
            bare_duration(b);
        }
        DurationKind::Negate(inner) | DurationKind::Plus(inner) | DurationKind::Paren(inner) => {
            bare_duration(inner)
        }
    }
}

/// Texts of durations, for brackets.
fn duration_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[1-9][0-9]{0,3}(ms|s|m|h|d)",
        "[1-9][0-9]{0,2}",
        "[0-9]\\.[0-9]{1,4}5",
        Just("1h30m".to_owned()),
        Just("step()".to_owned()),
        Just("range()".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), "[-+*^]", inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), "[/%]").prop_map(|(a, op)| format!("{a}{op}7")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("-{a}+1w")),
            ("m(in|ax)_of", inner.clone(), inner).prop_map(|(f, a, b)| format!("{f}({a}, {b})")),
        ]
    })
}

fn time_text() -> impl Strategy<Value = String> {
    let offset = prop_oneof![
        Just(String::new()),
        "[1-9][0-9]?(s|m|h)".prop_map(|d| format!(" offset {d}")),
        "[1-9][0-9]?(s|m|h)".prop_map(|d| format!(" offset -{d}")),
        duration_text().prop_map(|d| format!(" offset ({d})")),
        duration_text().prop_map(|d| format!(" offset -({d})")),
        Just(" offset 0".to_owned()),
    ];
    let at = prop_oneof![
        Just(""),
        Just(" @ start()"),
        Just(" @ end()"),
        Just(" @ 1.0625"),
        Just(" @ -1e9"),
        Just(" @ 5m")
    ];
    (offset, at, any::<bool>())
        .prop_map(|(offset, at, first)| if first { format!("{at}{offset}") } else { format!("{offset}{at}") })
}

fn selector_text() -> impl Strategy<Value = String> {
    let value = "\\PC{0,6}".prop_map(|value| model::labels::Quoted(&value).to_string());
    let name = prop_oneof![Just("job".to_owned()), Just("sum".to_owned()), Just("\"a.b c\"".to_owned())];
    let matcher = (name, "=|!=", value).prop_map(|(name, op, value)| format!("{name}{op}{value}"));
    let braces =
        prop::collection::vec(matcher, 0..3).prop_map(|matchers| format!("{{{}}}", matchers.join(",")));
    let name = prop_oneof![
        Just("up"),
        Just("a:b"),
        Just("sum"),
        Just("by"),
        Just("offset"),
        Just("start"),
        Just("fill"),
        Just("anchored"),
        Just("or")
    ];
    prop_oneof![
        name.clone().prop_map(str::to_owned),
        (name, braces).prop_map(|(name, braces)| format!("{name}{braces}")),
        Just("{\"µ.metric\", job=~\"a|b.*\", x!~\"\"}".to_owned()),
    ]
}

/// Texts of instant vectors.
fn vector_text() -> impl Strategy<Value = String> {
    let extended = prop_oneof![4 => Just(""), 1 => Just(" anchored"), 1 => Just(" smoothed")];
    let range = (selector_text(), duration_text(), extended.clone(), time_text()).prop_map(
        |(selector, duration, extended, time)| format!("rate({selector}[1w+{duration}]{extended}{time})"),
    );
    let instant = (selector_text(), time_text(), extended)
        .prop_map(|(a, time, extended)| format!("{a}{time}{extended}"));
    let leaf = prop_oneof![3 => selector_text(), 2 => instant, 2 => range, 1 => Just("vector(1)".to_owned())];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let matching = prop_oneof![
            4 => Just(""),
            1 => Just("on (job) "),
            1 => Just("on () "),
            1 => Just("ignoring (job, \"a.b\") "),
            1 => Just("ignoring () "),
            1 => Just("on (a) group_left (b, c) "),
            1 => Just("ignoring (a) group_right fill_right(-2) "),
            1 => Just("fill (NaN) "),
            1 => Just("fill_right (1) fill_left(0x10) "),
        ];
        let arithmetic = prop_oneof![
            Just("+"),
            Just("-"),
            Just("*"),
            Just("/"),
            Just("%"),
            Just("^"),
            Just("atan2"),
            Just("</"),
            Just(">/"),
            Just("=="),
            Just("> bool"),
            Just("<= bool")
        ];
        let set = prop_oneof![Just("and"), Just("OR"), Just("unless on (job)")];
        let scalar = prop_oneof![
            Just("1"),
            Just("-2.5e10"),
            Just("5m"),
            Just("NaN"),
            Just("+Inf"),
            Just("time()"),
            Just("(1 - -1 ^ 2)"),
            Just("0x1F"),
            Just("scalar(up)"),
            Just("-3s")
        ];
        let clause = prop_oneof![Just(""), Just("by (job, by)"), Just("without (\"a b\")"), Just("by ()")];
        prop_oneof![
            (inner.clone(), arithmetic.clone(), matching, inner.clone())
                .prop_map(|(a, op, matching, b)| format!("{a} {op} {matching}{b}")),
            (inner.clone(), set, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (scalar.clone(), arithmetic.clone(), inner.clone())
                .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), arithmetic, scalar).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("+{a}")),
            (inner.clone(), clause.clone()).prop_map(|(a, clause)| format!("sum {clause} ({a})")),
            (inner.clone(), clause.clone()).prop_map(|(a, clause)| format!("quantile(0.5, {a}) {clause}")),
            (inner.clone(), clause).prop_map(|(a, clause)| format!("count_values {clause} (\"x\", {a})")),
            inner.clone().prop_map(|a| format!("label_replace({a}, \"a\", '$1\\n', `b`, \"\")")),
            (inner.clone(), duration_text(), time_text())
                .prop_map(|(a, d, time)| format!("max_over_time(({a})[1w+{d}:]{time})")),
            (inner, duration_text()).prop_map(|(a, d)| format!("avg_over_time(({a})[1h:1w + {d}])")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn printed_trees_parse_to_themselves(text in vector_text()) {
        let expr = match parse(&text, &ParseOptions::all()) {
            Ok(expr) => expr,
            // A comparison of numbers or a second offset can come about by chance; syntax must be right.
            Err(error) => return Err(TestCaseError::reject(error.to_string())),
        };
        assert_same(&expr, &expr.to_string());
        assert_same(&expr, &pretty(&expr));
    }

    #[test]
    fn nonsense_never_panics(text in "\\PC{0,60}", words in prop::collection::vec(
        prop_oneof![
            Just("("), Just(")"), Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just(":"), Just("sum"),
            Just("by"), Just("rate"), Just("x"), Just("5m"), Just("1"), Just("offset"), Just("@"), Just("start"),
            Just("-"), Just("^"), Just("=="), Just("bool"), Just("on"), Just("group_left"), Just("fill"), Just("\"a\""),
            Just("="), Just("=~"), Just("#"), Just("\n"), Just("anchored"), Just("step"), Just("min_of"), Just("é")
        ], 0..20)) {
        for text in [text, words.join(" "), words.concat()] {
            if let Ok(expr) = parse(&text, &ParseOptions::all()) {
                assert_same(&expr, &expr.to_string());
            }
            // Whatever it says, it says a place within the text.
            if let Err(error) = parse(&text, &ParseOptions::all()) {
                prop_assert!(error.span.start as usize <= text.len());
                prop_assert!(text.is_empty() || error.line >= 1);
            }
            let _ = parse_selector(&text);
            let _ = parse_metric(&text);
            let _ = parse_series_desc(&text);
        }
    }
}
