//! Tests of the parser as a whole.

use super::*;

fn error(text: &str) -> String {
    parse(text, &ParseOptions::all()).unwrap_err().to_string()
}

#[test]
fn accepts_the_whole_language() {
    let good = [
        "sum by (job, \"a.b\") (rate(x{a=~\"b.*\"}[5m] offset -1m)) / on(job) group_left(team) fill(0) y",
        "{\"http.requests\", \"service.name\"!=\"x\"} @ start() offset (5m + step())",
        "max_over_time(x[1h:step()*2] @ 1.5 offset 1w) and foo unless bar or y * -1 ^ 2 ^ 3 atan2 4",
        "sum(x) without (y) </ 5 >/ bool_metric # comment\n + by + on_metric + start + step{end=\"1\"}",
        "foo[max_of(range(), 5m) + 1] smoothed",
        "fill + fill_left + fill_right",
        "topk(5, x) == bool on() y",
        "x offset min_of(step(), 1s) + 8000",
        "info(x, {})",
    ];
    for text in good {
        if let Err(error) = parse(text, &ParseOptions::all()) {
            panic!("{text}: {error}");
        }
    }
}

#[test]
fn says_what_is_wrong_and_where() {
    let bad = [
        ("", "unknown position: parse error: no expression found in input"),
        (" ", "1:1: parse error: no expression found in input"),
        ("sum(1 +)", "1:8: parse error: unexpected \")\" in aggregation"),
        ("foo[5m", "1:7: parse error: unclosed left bracket"),
        ("(1))", "1:5: parse error: unexpected right parenthesis ')'"),
        ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("nope(1)\n", "1:1: parse error: unknown function with name \"nope\""),
        (
            "\n foo offset",
            "2:12: parse error: unexpected end of input in offset, expected number, duration, step(), or range()",
        ),
    ];
    for (text, message) in bad {
        assert_eq!(error(text), message, "{text}");
    }
}
