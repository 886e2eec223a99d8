//! What pages are accepted, what becomes of them, and that no input breaks the parser. The table of verdicts was
//! recorded from Prometheus 3.5.3 (one page a target, `up` and `scrape_samples_scraped` read back).

#![expect(clippy::indexing_slicing, reason = "a test that fails here has failed")]

use super::*;
use model::sample::NORMAL_NAN_BITS;
use proptest::prelude::*;

/// Series text, value, time.
type Row = (String, f64, Option<i64>);

/// Samples of a page, and the error that ended it.
fn read(page: &[u8], format: Format) -> (Vec<Row>, Option<ParseError>) {
    let mut parser = Parser::new(page, format);
    let mut samples = Vec::new();
    while let Some(entry) = parser.next() {
        match entry {
            Ok(Entry::Series(series)) => samples.push((
                String::from_utf8_lossy(series.text).into_owned(),
                series.sample.value,
                series.sample.t,
            )),
            Ok(_) => {}
            Err(error) => return (samples, Some(error)),
        }
    }
    (samples, None)
}

fn labels(text: &str, kind: MetricKind) -> Result<String, DecodeError> {
    let mut out = SeriesLabels::default();
    decode_series(text.as_bytes(), kind, &mut out)?;
    Ok(out.to_labels().to_string())
}

#[test]
fn verdicts_are_those_of_prometheus() {
    // Lines `T up samples page` and `O up samples page`, the page with Rust's escapes.
    let table = include_str!("../../testdata/exposition/verdicts.txt");
    let mut checked = 0;
    for line in table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut parts = line.splitn(4, ' ');
        let format = match parts.next() {
            Some("T") => Format::Text,
            Some("O") => Format::OpenMetrics,
            other => panic!("{other:?}"),
        };
        let up = parts.next() == Some("1");
        let count: usize = parts.next().unwrap().parse().unwrap();
        let page: Vec<u8> = unhex(parts.next().unwrap_or(""));
        if page.is_empty() {
            continue; // An empty body is good in any format: the scrape loop's business.
        }
        let shown = String::from_utf8_lossy(&page);
        let (samples, error) = read(&page, format);
        let undecodable = samples.iter().find_map(|(text, ..)| {
            decode_series(text.as_bytes(), MetricKind::Unknown, &mut SeriesLabels::default()).err()
        });
        let invalid_utf8_name = samples.iter().any(|(text, ..)| text.contains('\u{fffd}'));
        assert_eq!(
            error.is_none() && undecodable.is_none() && !invalid_utf8_name,
            up,
            "{shown:?}: {error:?} {undecodable:?}"
        );
        assert_eq!(samples.len(), count, "samples of {shown:?}: {error:?}");
        checked += 1;
    }
    assert!(checked > 250, "{checked}");
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn labels_are_unescaped_sorted_and_normalised() {
    let none = MetricKind::Unknown;
    let cases = [
        (r#"a"#, none, r#"{__name__="a"}"#),
        (r#"a { z = "1" , b="2" }"#, none, r#"{__name__="a", b="2", z="1"}"#),
        (r#"{"my.metric","é"="x"}"#, none, r#"{__name__="my.metric", "é"="x"}"#),
        (r#"{b="c","a"}"#, none, r#"{__name__="a", b="c"}"#),
        (
            r#"a{q="say \"hi\"",b="back\\slash",n="new\nline",u="\q\"}"}"#,
            none,
            r#"{__name__="a", b="back\\slash", n="new\nline", q="say \"hi\"", u="\\q\"}"}"#,
        ),
        (r#"a{b="",c="}{,=# "}"#, none, r#"{__name__="a", c="}{,=# "}"#),
        (r#" a"#, none, r#"{__name__=" a"}"#),
        (r#"h_bucket{le="1000000"}"#, MetricKind::Histogram, r#"{__name__="h_bucket", le="1e+06"}"#),
        (r#"h_bucket{le="one"}"#, MetricKind::Histogram, r#"{__name__="h_bucket", le="one"}"#),
        (r#"h_bucket{le="1"}"#, MetricKind::GaugeHistogram, r#"{__name__="h_bucket", le="1"}"#),
        (r#"s{quantile="0.90",le="1"}"#, MetricKind::Summary, r#"{__name__="s", le="1", quantile="0.9"}"#),
    ];
    for (text, kind, expected) in cases {
        assert_eq!(labels(text, kind).as_deref(), Ok(expected), "{text}");
    }
    assert_eq!(labels(r#"{""}"#, none), Err(DecodeError::NoName));
    assert_eq!(labels(r#"a{b="1",b="2"}"#, none), Err(DecodeError::Duplicate("b".to_owned())));
    assert_eq!(labels(r#"a{__name__="b"}"#, none), Err(DecodeError::Duplicate("__name__".to_owned())));
    assert!(matches!(labels(r#"a{""="b"}"#, none), Err(DecodeError::InvalidName(_))));
}

#[test]
fn bounds_are_spelled_like_prometheus() {
    // Recorded from the real one.
    let cases = [
        ("1", "1.0"),
        ("1e6", "1e+06"),
        ("123456789", "1.23456789e+08"),
        ("-0", "0.0"),
        ("0.00001", "1e-05"),
        ("1e-7", "1e-07"),
        ("+inf", "+Inf"),
        ("nan", "NaN"),
        ("100000000000000000000000", "1e+23"),
        ("-1", "-1.0"),
        ("0.25", "0.25"),
        ("100000", "100000.0"),
        ("0.0001", "0.0001"),
    ];
    for (text, expected) in cases {
        assert_eq!(format_bound(parse_float(text.as_bytes()).unwrap()), expected, "{text}");
    }
}

#[test]
fn metadata_and_exemplars() {
    let page = b"# HELP a_s A \\n \\\"b\\\".\n# TYPE a_s counter\n# UNIT a_s s\na_s_total{x=\"y\"} 2 1.5 # {id=\"1\",z=\"\\\"\"} 0.5 1.25\n# EOF\n";
    let mut parser = Parser::new(page, Format::OpenMetrics);
    let mut entries = Vec::new();
    while let Some(entry) = parser.next() {
        entries.push(entry.unwrap());
    }
    let Entry::Help { family: b"a_s", text } = entries[0] else { panic!("{:?}", entries[0]) };
    assert_eq!(unescape_help(text, Format::OpenMetrics), "A \n \"b\".");
    assert_eq!(unescape_help(text, Format::Text), "A \n \\\"b\\\".");
    assert_eq!(entries[1], Entry::Type { family: b"a_s", kind: MetricKind::Counter });
    assert_eq!(entries[2], Entry::Unit { family: b"a_s", unit: b"s" });
    let Entry::Series(series) = &entries[3] else { panic!("{:?}", entries[3]) };
    assert_eq!(
        (series.text, series.sample.value, series.sample.t),
        (&b"a_s_total{x=\"y\"}"[..], 2.0, Some(1500))
    );
    let exemplar = series.sample.exemplar.as_ref().unwrap();
    assert_eq!((exemplar.value, exemplar.t), (0.5, Some(1250)));
    assert_eq!(decode_exemplar(exemplar.labels).to_string(), r#"{id="1", z="\\\""}"#);
}

#[test]
fn nan_has_one_payload() {
    for text in ["NaN", "nan", "NAN"] {
        let (samples, error) = read(format!("a {text}\n").as_bytes(), Format::Text);
        assert_eq!(error, None);
        assert_eq!(samples[0].1.to_bits(), NORMAL_NAN_BITS);
    }
}

#[test]
fn known_series_are_skipped_only_where_they_stand() {
    let page = b"a{b=\"c\"} 1\nab 2\na {b=\"c\"} 3\na 4\n";
    let mut parser = Parser::new(page, Format::Text);
    assert_eq!(parser.skip_known(b"a{b=\"d\"}"), None);
    assert_eq!(parser.skip_known(b"a"), None, "a brace follows");
    assert_eq!(parser.skip_known(b"a{b=\"c\"}").unwrap().unwrap().value, 1.0);
    assert_eq!(parser.skip_known(b"a"), None, "the name goes on");
    assert_eq!(parser.skip_known(b"ab").unwrap().unwrap().value, 2.0);
    assert_eq!(parser.skip_known(b"a"), None, "a brace follows behind a blank");
    assert!(matches!(parser.next(), Some(Ok(Entry::Series(Series { text: b"a {b=\"c\"}", .. })))));
    assert_eq!(parser.skip_known(b"a").unwrap().unwrap().value, 4.0);
    assert_eq!(parser.next(), None);
}

#[test]
fn hostile_pages_end_soon() {
    let deep = "a{".repeat(200_000);
    let quotes = format!("a{{b=\"{}", "\\".repeat(1_000_001));
    let commas = format!("a{{{}", ",".repeat(1_000_000));
    let names = format!("{} 1\n", "n".repeat(2_000_000));
    let labels: String = (0..100_000).map(|i| format!("l{i}=\"v\",")).collect();
    for page in [deep, quotes, commas, "\n".repeat(1_000_000), format!("a{{{labels}}} 1\n"), names] {
        for format in [Format::Text, Format::OpenMetrics] {
            let _ = read(page.as_bytes(), format);
        }
    }
}

/// Pages of series whose label values are drawn from `value`.
fn page_of(value: &'static str) -> impl Strategy<Value = String> {
    let label = ("[a-z_][a-z0-9_]{0,5}", value);
    let series = (
        "[a-z][a-z0-9_]{0,8}",
        prop::collection::btree_map(label.0, label.1, 0..4),
        prop_oneof![
            any::<i32>().prop_map(|v| v.to_string()),
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| format!("{v:e}")),
            any::<f64>()
                .prop_filter("finite", |v| v.is_finite() && v.abs() < 1e9)
                .prop_map(|v| v.to_string()),
            Just("+Inf".to_owned()),
        ],
        prop::option::of(0i64..4_000_000_000_000),
    );
    prop::collection::vec(series, 0..12).prop_map(|series| {
        let mut page = String::new();
        for (name, labels, value, t) in series {
            page.push_str(&name);
            if !labels.is_empty() {
                let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
                page.push_str(&format!("{{{}}}", labels.join(",")));
            }
            page.push_str(&format!(" {value}"));
            if let Some(t) = t {
                page.push_str(&format!(" {t}"));
            }
            page.push('\n');
        }
        page
    })
}

proptest! {
    /// Another implementation finds the same samples, as far as it goes: it cannot read `=`, `,`, braces and escapes in
    /// label values.
    #[test]
    fn agrees_with_prometheus_parse(page in page_of("[a-zA-Z0-9 ./:é-]{0,8}")) {
        let lines = page.lines().map(|line| Ok(line.to_owned()));
        let oracle = prometheus_parse::Scrape::parse(lines).unwrap();
        let (samples, error) = read(page.as_bytes(), Format::Text);
        prop_assert_eq!(error, None);
        prop_assert_eq!(samples.len(), oracle.samples.len());
        for ((text, value, t), other) in samples.iter().zip(&oracle.samples) {
            let mut found = SeriesLabels::default();
            decode_series(text.as_bytes(), MetricKind::Unknown, &mut found).unwrap();
            let name = found.to_labels().metric_name().to_owned();
            prop_assert_eq!(&name, &other.metric);
            let mut expected: Vec<(String, String)> = other.labels.iter()
                .filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.clone(), v.clone())).collect();
            expected.sort();
            found.pairs.retain(|(name, value)| name != "__name__" && !value.is_empty());
            prop_assert_eq!(&found.pairs, &expected);
            let prometheus_parse::Value::Untyped(other_value) = other.value else { panic!("{:?}", other.value) };
            prop_assert_eq!(value.to_bits(), other_value.to_bits());
            if let Some(t) = t {
                prop_assert_eq!(*t, other.timestamp.timestamp_millis());
            }
        }
    }

    /// Skipping by known texts gives what parsing gives, at every line.
    #[test]
    fn skipping_equals_parsing(page in page_of("[ -!#-\\[\\]-~é]{0,8}")) {
        let (samples, _) = read(page.as_bytes(), Format::Text);
        let mut parser = Parser::new(page.as_bytes(), Format::Text);
        for (text, value, t) in &samples {
            let skipped = parser.skip_known(text.as_bytes()).unwrap().unwrap();
            prop_assert_eq!((skipped.value.to_bits(), skipped.t), (value.to_bits(), *t));
        }
        prop_assert!(parser.next().is_none());
    }

    #[test]
    fn short_numbers_are_exact(text in "-?[0-9]{1,12}(\\.[0-9]{0,6})?") {
        prop_assert_eq!(parse_float(text.as_bytes()).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
    }

    /// Arbitrary bytes, and bytes that look like pages, never panic and always end; every series that is accepted can be
    /// decoded or refused.
    #[test]
    fn any_bytes_end(page in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "([a-b{}=\",#\\\\ \n\t0-9]|# EOF|# TYPE |# HELP |\u{0}){0,60}".prop_map(String::into_bytes),
    ]) {
        for format in [Format::Text, Format::OpenMetrics] {
            let mut parser = Parser::new(&page, format);
            let mut steps = 0;
            while let Some(entry) = parser.next() {
                steps += 1;
                prop_assert!(steps <= page.len() + 2);
                match entry {
                    Ok(Entry::Series(series)) => {
                        let _ = decode_series(series.text, parser.kind(), &mut SeriesLabels::default());
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            prop_assert!(parser.next().is_none());
        }
    }
}
