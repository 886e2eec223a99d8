//! What messages are read as, which are refused and how, and that no bytes break the reader.

use model::SampleValue;
use proptest::prelude::*;

use super::*;
use crate::proto_pages::{
    COUNTER, GAUGE, GAUGE_HISTOGRAM, HISTOGRAM, SUMMARY, UNTYPED, bucket, bytes, delimited, double, exemplar,
    family, int, label, message, packed, packed_doubles, sint, span,
};

/// A page as lines, up to the error that ends it.
fn read(page: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    if let Err(error) = try_read(page, &mut lines) {
        lines.push(format!("error: {error}"));
    }
    lines
}

fn try_read(page: &[u8], lines: &mut Vec<String>) -> Result<(), ParseError> {
    let mut families = Families::new(page);
    while let Some(family) = families.next() {
        let family = family?;
        lines.push(format!(
            "{} {} {:?} {:?}",
            family.name,
            family.family_type.kind(),
            family.help,
            family.unit
        ));
        let mut metrics = family.metrics();
        while let Some(metric) = metrics.next(&[]) {
            let metric = metric?;
            let mut labels = SeriesLabels::default();
            let shown = match metric.decode_labels((family.name, ""), None, &mut labels) {
                Ok(()) => labels.to_labels().to_string(),
                Err(error) => format!("error: {error}"),
            };
            let t = metric.t.map(|t| format!(" at {t}")).unwrap_or_default();
            lines.push(format!("{shown}{t} = {}", values(&family, &metric)?));
        }
    }
    Ok(())
}

fn values(family: &Family<'_>, metric: &Metric<'_>) -> Result<String, ParseError> {
    let shown = |raw: &RawExemplar<'_>| {
        let exemplar = decode_exemplar(raw);
        format!(" # {} {} {:?}", exemplar.labels, exemplar.value, exemplar.t)
    };
    let since = |start: Option<i64>| start.map(|start| format!(" since {start}")).unwrap_or_default();
    Ok(match family.family_type {
        FamilyType::Counter | FamilyType::Gauge | FamilyType::Untyped => {
            let value = metric.value(family)?;
            let exemplar = value.exemplar.as_ref().map(shown).unwrap_or_default();
            format!("{}{}{exemplar}", value.value, since(value.start))
        }
        FamilyType::Summary => {
            let summary = metric.summary(family)?;
            let quantiles: Vec<(f64, f64)> = summary.quantiles().collect();
            format!("{} {}{} {quantiles:?}", summary.count, summary.sum, since(summary.start))
        }
        FamilyType::Histogram | FamilyType::GaugeHistogram => {
            let histogram = metric.histogram(family)?;
            let buckets: Vec<String> = histogram
                .buckets()
                .map(|b| {
                    format!(
                        " {}:{}{}",
                        b.upper_bound,
                        b.count,
                        b.exemplar.as_ref().map(shown).unwrap_or_default()
                    )
                })
                .collect();
            let native = match histogram.native(family.family_type).filter(|_| histogram.is_native()) {
                None => String::new(),
                Some(SampleValue::Float(_)) => unreachable!("no histogram is a float"),
                Some(SampleValue::Histogram(h)) => {
                    format!(" native {} {} {:?}", h.schema, h.to_float(), h.counter_reset_hint)
                }
                Some(SampleValue::FloatHistogram(h)) => {
                    format!(" float {} {h} {:?}", h.schema, h.counter_reset_hint)
                }
            };
            let exemplars: String = histogram.exemplars().map(|raw| shown(&raw)).collect();
            format!(
                "{} {}{}{}{native}{exemplars}",
                histogram.count(),
                histogram.sum,
                since(histogram.start),
                buckets.concat()
            )
        }
    })
}

#[test]
fn simple_metrics() {
    let page = [
        family(
            "c_total",
            COUNTER,
            &[
                &[
                    label("b", "1"),
                    label("a", "é"),
                    message(
                        3,
                        &[
                            double(1, 2.5),
                            exemplar(2, "x", 0.5, 7),
                            message(3, &[int(1, 12), int(2, 345_678_901)]),
                        ],
                    ),
                ],
                // Labels and values in another order, unknown fields between, a value of another type.
                &[message(3, &[double(1, 1.0)]), label("a", "1"), int(99, 1), label("b", "2"), int(6, 1_000)],
                &[message(2, &[double(1, 1.0)])],
                // Two messages are one.
                &[message(3, &[double(1, 1.0), exemplar(2, "y", 1.0, -1)]), message(3, &[double(1, 3.0)])],
            ],
        ),
        family("nothing", 77, &[]),
        family("g", GAUGE, &[&[message(2, &[double(1, -1.0)]), int(6, 0)]]),
        family("ü x", UNTYPED, &[&[message(5, &[double(1, f64::INFINITY)])]]),
        family(
            "s",
            SUMMARY,
            &[
                &[message(
                    4,
                    &[
                        int(1, 4),
                        double(2, 10.0),
                        message(3, &[double(1, 0.5), double(2, 1.5)]),
                        message(3, &[double(1, 0.99)]),
                        message(4, &[int(1, 3)]),
                    ],
                )],
                &[],
            ],
        ),
    ]
    .concat();
    assert_eq!(
        read(&page),
        [
            r#"c_total counter "Help." """#,
            r#"{__name__="c_total", a="é", b="1"} = 2.5 since 12345 # {trace_id="x"} 0.5 Some(7000)"#,
            r#"{__name__="c_total", a="1", b="2"} at 1000 = 1"#,
            r#"{__name__="c_total"} = 0"#,
            r#"{__name__="c_total"} = 3 # {trace_id="y"} 1 None"#,
            r#"g gauge "Help." """#,
            r#"{__name__="g"} = -1"#,
            r#"ü x unknown "Help." """#,
            r#"{__name__="ü x"} = inf"#,
            r#"s summary "Help." """#,
            r#"{__name__="s"} = 4 10 since 3000 [(0.5, 1.5), (0.99, 0.0)]"#,
            r#"{__name__="s"} = 0 0 []"#,
        ]
    );
}

#[test]
fn histograms_of_all_forms() {
    let integer = [
        int(1, 10),
        double(2, 9.5),
        sint(5, 3),
        double(6, 0.001),
        int(7, 1),
        span(12, -2, 2),
        span(12, 1, 2),
        packed(13, &[2, 0, -2, 3]),
        span(9, 0, 1),
        sint(10, 2),
        message(15, &[int(1, 5)]),
        exemplar(16, "n", 0.5, 9),
    ];
    let float = [
        double(4, 2.5),
        double(2, 1.0),
        sint(5, -1),
        double(8, 0.5),
        span(12, 0, 2),
        double(14, 1.5),
        double(14, 0.5),
        span(9, 0, 0),
        packed_doubles(11, &[]),
    ];
    let page = [
        family(
            "h",
            HISTOGRAM,
            &[
                &[message(7, &integer)],
                &[message(7, &float)],
                &[message(
                    7,
                    &[
                        int(1, 6),
                        double(2, 12.5),
                        bucket(0.1, 1, &[]),
                        bucket(1.0, 3, &exemplar(3, "b", 0.7, -1)),
                    ],
                )],
                &[message(7, &[int(1, 6), bucket(f64::INFINITY, 5, &[]), bucket(1.0, 3, &[])])],
                &[message(7, &[int(1, 6), message(3, &[int(1, 1), double(4, 1.5), double(2, 2.0)])])],
            ],
        ),
        family("gh", GAUGE_HISTOGRAM, &[&[message(7, &[int(1, 1), span(12, 0, 1), packed(13, &[1])])]]),
    ]
    .concat();
    assert_eq!(
        read(&page),
        [
            r#"h histogram "Help." """#,
            concat!(
                r#"{__name__="h"} = 10 9.5 since 5000 inf:10 native 3 {count:10, sum:9.5, "#,
                r#"[-1,-0.9170040432046712):2, [-0.001,0.001]:1, "#,
                r#"(0.7711054127039704,0.8408964152537145]:2, (0.8408964152537145,0.9170040432046712]:2, (1.0905077326652577,1.189207115002721]:3} Unknown # {trace_id="n"} 0.5 Some(9000)"#,
            ),
            r#"{__name__="h"} = 2.5 1 inf:2.5 float -1 {count:2.5, sum:1, [-0,0]:0.5, (0.25,1]:1.5, (1,4]:0.5} Unknown"#,
            r#"{__name__="h"} = 6 12.5 0.1:1 1:3 # {trace_id="b"} 0.7 None inf:6 # {trace_id="b"} 0.7 None"#,
            r#"{__name__="h"} = 6 0 inf:5"#,
            r#"{__name__="h"} = 6 0 2:1.5 inf:6"#,
            r#"gh gaugehistogram "Help." """#,
            r#"{__name__="gh"} = 1 0 inf:1 native 0 {count:1, sum:0, (0.5,1]:1} Gauge"#,
        ]
    );
}

#[test]
fn known_labels_are_found_by_comparison() {
    let metric = |parts: &[Vec<u8>]| message(4, parts);
    let likely = [label("a", "1"), label("b", "2")].concat();
    let cases: [(&[Vec<u8>], &str); 5] = [
        (&[label("a", "1"), label("b", "2"), message(2, &[])], r#"{__name__="g", a="1", b="2"}"#),
        (&[label("a", "1"), label("b", "2"), label("c", "3")], r#"{__name__="g", a="1", b="2", c="3"}"#),
        (&[label("a", "1")], r#"{__name__="g", a="1"}"#),
        (
            &[label("a", "1"), label("b", "2"), int(6, 5), label("c", "3")],
            r#"{__name__="g", a="1", b="2", c="3"}"#,
        ),
        (&[message(2, &[]), label("a", "1"), label("b", "2")], r#"{__name__="g", a="1", b="2"}"#),
    ];
    for (parts, expected) in cases {
        let page = delimited(&[bytes(1, b"g"), int(3, GAUGE), metric(parts)]);
        let family = Families::new(&page).next().unwrap().unwrap();
        for likely in [likely.as_slice(), &[], label("a", "1").as_slice()] {
            let found = family.metrics().next(likely).unwrap().unwrap();
            let mut labels = SeriesLabels::default();
            found.decode_labels(("g", ""), None, &mut labels).unwrap();
            assert_eq!(labels.to_labels().to_string(), expected);
        }
    }
}

#[test]
fn refusals_name_family_and_place() {
    let good = family("good", GAUGE, &[&[]]);
    let start = good.len();
    let refusal = |bad: &[u8]| read(&[&good[..], bad].concat()).pop().unwrap();
    let one = |name: &str, number: u64, unit: &str| {
        delimited(&[bytes(1, name.as_bytes()), int(3, number), message(4, &[]), bytes(5, unit.as_bytes())])
    };
    assert_eq!(
        refusal(&[0x80]),
        format!("error: invalid protobuf at byte {start}: unexpected end of message at byte {}", start + 1)
    );
    assert_eq!(
        refusal(b"a 1\n"),
        format!("error: invalid protobuf at byte {start}: unexpected end of message at byte {}", start + 1)
    );
    assert_eq!(
        refusal(&delimited(&[bytes(1, b"bad"), message(4, &[vec![0x0b]])])),
        format!(
            r#"error: invalid protobuf in metric family "bad" at byte {}: invalid field tag at byte 0"#,
            start + 8
        )
    );
    assert_eq!(
        refusal(&delimited(&[bytes(1, b"bad"), message(4, &[message(3, &[int(1, 1)])])])),
        format!(
            r#"error: invalid protobuf in metric family "bad" at byte {}: field 1 has wire type 0"#,
            start + 8
        )
    );
    assert_eq!(
        refusal(&delimited(&[bytes(1, b"bad"), int(4, 1)])),
        format!(
            r#"error: invalid protobuf in metric family "bad" at byte {}: field 4 has wire type 0"#,
            start + 6
        )
    );
    assert_eq!(refusal(&one("", GAUGE, "")), "error: invalid metric name: ");
    assert_eq!(refusal(&one("x", 6, "")), r#"error: unknown metric type for metric "x": 6"#);
    assert_eq!(
        refusal(&one("x_total", COUNTER, "bytes")),
        r#"error: unit "bytes" not a suffix of counter "x_total""#
    );
    assert_eq!(
        refusal(&one("bytes", GAUGE, "bytes")),
        r#"error: unit "bytes" not a suffix of metric "bytes""#
    );
    for fine in [
        one("x_bytes_total", COUNTER, "bytes"),
        one("x_bytes", GAUGE, "bytes"),
        one("x_bytes", COUNTER, "bytes"),
    ] {
        assert!(!refusal(&fine).starts_with("error"));
    }
    let labels = |parts: &[Vec<u8>]| refusal(&family("x", GAUGE, &[parts]));
    assert_eq!(labels(&[label("", "v")]), "error: invalid label name:  = 0");
    assert_eq!(
        labels(&[label("a", "1"), label("a", "2")]),
        r#"error: label name "a" is not unique: invalid sample = 0"#
    );
    assert_eq!(
        labels(&[message(1, &[bytes(1, b"a"), bytes(2, b"\xff")])]),
        "error: invalid label value: \u{fffd} = 0"
    );
    assert_eq!(labels(&[label("é", "")]), r#"{__name__="x"} = 0"#, "an empty label is none");
}

#[test]
fn buckets_are_bounded() {
    let many = vec![0i64; (1 << 20) + 1];
    let page = family("h", HISTOGRAM, &[&[message(7, &[int(1, 1), span(12, 0, 1), packed(13, &many)])]]);
    let family = Families::new(&page).next().unwrap().unwrap();
    let metric = family.metrics().next(&[]).unwrap().unwrap();
    let histogram = metric.histogram(&family).unwrap();
    assert!(histogram.is_native() && histogram.native(FamilyType::Histogram).is_none());
}

proptest! {
    /// Whatever is cut off, changed or put in, the reader ends without a panic.
    #[test]
    fn never_panics(
        cut in 0usize..400,
        at in 0usize..400,
        with in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut page = [
            family("h", HISTOGRAM, &[&[label("a", "1"), message(7, &[
                int(1, 3), span(12, 1, 2), packed(13, &[1, 1]), bucket(1.0, 3, &exemplar(3, "b", 0.7, 4)), exemplar(16, "b", 0.7, 4),
            ])]]),
            family("s", SUMMARY, &[&[message(4, &[int(1, 4), message(3, &[double(1, 0.5), double(2, 1.5)])])]]),
            family("c", COUNTER, &[&[label("x", "y"), message(3, &[double(1, 2.0), exemplar(2, "x", 0.5, 7)])]]),
        ]
        .concat();
        page.truncate(cut.max(10));
        let at = at.min(page.len());
        page.splice(at..(at + with.len()).min(page.len()), with);
        let mut lines = Vec::new();
        let _ = try_read(&page, &mut lines);
    }
}
