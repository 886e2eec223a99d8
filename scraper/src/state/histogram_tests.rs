//! Protobuf pages and converted histograms: what is stored, what is known again, what limits do.

use proptest::prelude::*;

use super::tests::{Bench, OPENMETRICS, TEXT};
use super::*;
use crate::config::StartTimes;
use crate::exposition::PageFormat;
use crate::proto_pages::{
    COUNTER, GAUGE, HISTOGRAM, SUMMARY, bucket, bytes, double, exemplar, family, int, label, message, packed,
    sint, span,
};

impl Bench {
    fn with(histograms: HistogramSettings) -> Self {
        let mut bench = Self::new();
        bench.config.histograms = histograms;
        bench
    }

    fn scrape_proto(&mut self, page: &[u8]) -> (String, PassCounts) {
        let stored = self.store(&Input::Page(page, PageFormat::Protobuf), None);
        (self.verdict(&stored), stored.counts)
    }
}

const NATIVE: HistogramSettings =
    HistogramSettings { native: true, keep_classic: false, convert: false, buckets_max: 0, schema_max: 8 };
const CONVERT: HistogramSettings = HistogramSettings { convert: true, ..NATIVE };

fn counter(name: &str, labels: &[(&str, &str)], value: f64) -> Vec<u8> {
    let labels: Vec<u8> = labels.iter().flat_map(|(name, value)| label(name, value)).collect();
    family(name, COUNTER, &[&[labels, message(3, &[double(1, value)])]])
}

/// A histogram with one observation per unit of `n` in each of two native buckets, and two classic ones.
fn histogram(n: u64) -> Vec<u8> {
    message(
        7,
        &[
            int(1, 2 * n),
            double(2, 2.0),
            sint(5, 1),
            span(12, 1, 2),
            packed(13, &[n as i64, 0]),
            bucket(1.0, n, &[]),
            bucket(2.0, 2 * n, &[]),
        ],
    )
}

#[test]
fn an_unchanged_protobuf_page_is_known_by_its_bytes() {
    let mut bench = Bench::with(NATIVE);
    let page = |n: u64| {
        let value = message(3, &[double(1, n as f64)]);
        let summary = message(4, &[int(1, n), double(2, 1.0), message(3, &[double(1, 0.5), double(2, 7.0)])]);
        [
            family(
                "c",
                COUNTER,
                &[&[label("a", "1"), value.clone()], &[label("a", "2"), label("b", "x"), value]],
            ),
            family("s", SUMMARY, &[&[summary]]),
            family("h", HISTOGRAM, &[&[label("a", "1"), histogram(n)]]),
            family("g", GAUGE, &[&[message(2, &[double(1, -1.0)])]]),
        ]
        .concat()
    };
    let (verdict, counts) = bench.scrape_proto(&page(1));
    assert_eq!((verdict.as_str(), counts.known_lines), ("1 7 7 7", 0));
    let (verdict, counts) = bench.scrape_proto(&page(2));
    assert_eq!((verdict.as_str(), counts.known_lines, counts.parsed_lines), ("1 7 7 0", 7, 0));
    assert_eq!(
        bench.store.series(),
        [
            r#"{__name__="c", a="1", instance="i", job="j"}"#,
            r#"{__name__="c", a="2", b="x", instance="i", job="j"}"#,
            r#"{__name__="g", instance="i", job="j"}"#,
            r#"{__name__="h", a="1", instance="i", job="j"}"#,
            r#"{__name__="s", instance="i", job="j", quantile="0.5"}"#,
            r#"{__name__="s_count", instance="i", job="j"}"#,
            r#"{__name__="s_sum", instance="i", job="j"}"#,
        ]
    );
    assert_eq!(
        bench.store.values("h"),
        [
            "1 {count:2, sum:2, (1,1.414213562373095]:1, (1.414213562373095,2]:1}",
            "1 {count:4, sum:2, (1,1.414213562373095]:2, (1.414213562373095,2]:2}"
        ]
        .map(|s| s.replace("1.414213562373095", "1.4142135623730951"))
    );
    let families = page(3);
    let stored = bench.store(&Input::Page(&families, PageFormat::Protobuf), None);
    assert!(stored.metadata.is_none(), "nothing new about families");
    // It goes: the marker of a histogram is a histogram.
    assert_eq!(bench.scrape_proto(&counter("c", &[("a", "1")], 1.0)).0, "1 1 1 0");
    assert_eq!(bench.store.last("h").as_deref(), Some("HS"));
    assert_eq!(bench.store.last("g").as_deref(), Some("S"));
}

#[test]
fn a_series_may_turn_from_numbers_to_histograms_and_back() {
    let mut bench = Bench::with(NATIVE);
    let as_histogram = family("x", HISTOGRAM, &[&[histogram(1)]]);
    assert_eq!(bench.scrape("x 1\n"), "1 1 1 1");
    assert_eq!(bench.scrape_proto(&as_histogram).0, "1 1 1 1");
    assert_eq!(bench.scrape("x 2\n"), "1 1 1 1");
    assert_eq!(bench.scrape_proto(&as_histogram).0, "1 1 1 1");
    assert_eq!(bench.fail(), "0 0 0 0 server returned HTTP status 500");
    let kinds: Vec<String> = bench.store.values("x").iter().map(|v| v.chars().take(3).collect()).collect();
    assert_eq!(kinds, ["1", "1 {", "2", "1 {", "HS"]);
    // The same series twice on a page, as a number and as a histogram: the first one counts.
    let mut bench = Bench::with(NATIVE);
    let both = [family("x", GAUGE, &[&[]]), as_histogram].concat();
    assert_eq!(bench.scrape_proto(&both).0, "1 2 2 1");
    assert_eq!(bench.store.values("x"), ["0"]);
}

#[test]
fn forms_of_histograms_are_as_configured() {
    let page = family("h", HISTOGRAM, &[&[label("a", "1"), histogram(1)]]);
    let names = |settings: HistogramSettings| {
        let mut bench = Bench::with(settings);
        let (verdict, _) = bench.scrape_proto(&page);
        let (again, counts) = bench.scrape_proto(&page);
        assert_eq!(counts.parsed_lines, 0);
        let names: Vec<String> = bench
            .store
            .series()
            .iter()
            .map(|labels| labels.split('"').nth(1).unwrap_or_default().to_owned())
            .collect();
        (verdict, again, names.join(" "))
    };
    let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let classic = "h_bucket h_bucket h_bucket h_count h_sum";
    assert_eq!(names(HistogramSettings::default()), owned("1 5 5 5", "1 5 5 0", classic));
    assert_eq!(names(NATIVE), owned("1 1 1 1", "1 1 1 0", "h"));
    let both = HistogramSettings { keep_classic: true, ..NATIVE };
    assert_eq!(names(both), owned("1 6 6 6", "1 6 6 0", &format!("h {classic}")));
    let converted = HistogramSettings { native: false, ..CONVERT };
    assert_eq!(names(converted), owned("1 1 1 1", "1 1 1 0", "h"));
    let converted_too = HistogramSettings { keep_classic: true, ..converted };
    assert_eq!(names(converted_too), owned("1 6 6 6", "1 6 6 0", &format!("h {classic}")));
}

#[test]
fn limits_of_histograms() {
    let page = family("h", HISTOGRAM, &[&[histogram(1)]]);
    let mut bench = Bench::with(HistogramSettings { buckets_max: 1, ..NATIVE });
    assert_eq!(bench.scrape_proto(&page).0, "1 1 1 1");
    assert_eq!(bench.store.values("h"), ["0 {count:2, sum:2, (1,2]:2}"], "made coarser");
    let mut bench = Bench::with(HistogramSettings { schema_max: -1, ..NATIVE });
    bench.scrape_proto(&page);
    assert_eq!(bench.store.values("h"), ["-1 {count:2, sum:2, (1,4]:2}"]);
    let text = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_count 3\nh_sum 4\nb 1\n";
    let mut bench = Bench::with(HistogramSettings { buckets_max: 2, ..CONVERT });
    assert_eq!(
        bench.scrape(text),
        "0 2 2 0 histogram bucket limit exceeded",
        "custom buckets cannot be coarser"
    );
    assert_eq!(bench.store.values("b"), Vec::<String>::new());
    let mut bench = Bench::with(CONVERT);
    bench.config.limits.samples = 1;
    assert_eq!(bench.scrape(text), "0 2 2 1 sample limit exceeded");
}

#[test]
fn a_schema_from_nowhere_ends_at_the_bucket_limit() {
    let wild = [int(1, 10), sint(5, i64::from(i32::MAX)), span(12, 0, 1), packed(13, &[1; 10])];
    let page = family("h", HISTOGRAM, &[&[message(7, &wild)]]);
    let mut bench = Bench::with(HistogramSettings { buckets_max: 5, ..NATIVE });
    for _ in 0..2 {
        assert_eq!(bench.scrape_proto(&page).0, "0 1 1 0 histogram bucket limit exceeded");
    }
}

#[test]
fn broken_histograms_fail_the_scrape() {
    let mut bench = Bench::with(NATIVE);
    let broken = family("h", HISTOGRAM, &[&[message(7, &[int(1, 5), span(12, 0, 3), packed(13, &[1])])]]);
    let (verdict, _) = bench.scrape_proto(&broken);
    assert!(verdict.starts_with("0 1 0 0 positive side: spans need 3 buckets, have 1 buckets"), "{verdict}");
    let (verdict, _) = bench.scrape_proto(&family("x", COUNTER, &[&[label("", "v")]]));
    assert_eq!(verdict, "0 0 0 0 invalid label name: ");
}

#[test]
fn exemplars_are_offered_once() {
    let mut bench = Bench::with(NATIVE);
    let page = |trace: &str| {
        [
            family("c", COUNTER, &[&[message(3, &[double(1, 1.0), exemplar(2, trace, 0.5, 7)])]]),
            family(
                "h",
                HISTOGRAM,
                &[&[message(
                    7,
                    &[
                        int(1, 1),
                        span(12, 1, 1),
                        packed(13, &[1]),
                        exemplar(16, trace, 2.0, 9),
                        exemplar(16, "early", 1.0, 8),
                        exemplar(16, "timeless", 1.0, -1),
                    ],
                )]],
            ),
        ]
        .concat()
    };
    let rows = bench.store.rows();
    assert_eq!(bench.scrape_proto(&page("x")).0, "1 2 2 2");
    assert_eq!(bench.store.rows() - rows, 2, "a sample with an exemplar is in the row too");
    let shown = |bench: &Bench| -> Vec<String> {
        bench.store.exemplars().iter().map(|(_, e)| format!("{} {} {:?}", e.labels, e.value, e.t)).collect()
    };
    let first = [
        r#"{trace_id="x"} 0.5 Some(7000)"#,
        r#"{trace_id="early"} 1 Some(8000)"#,
        r#"{trace_id="x"} 2 Some(9000)"#,
    ];
    assert_eq!(shown(&bench), first);
    bench.scrape_proto(&page("x"));
    assert_eq!(shown(&bench), first);
    bench.store.refuse_commits(true);
    bench.scrape_proto(&page("y"));
    bench.store.refuse_commits(false);
    assert_eq!(shown(&bench), first);
    bench.scrape_proto(&page("y"));
    // But for the early one, which is older than what there is.
    assert_eq!(shown(&bench).len(), 5, "what was not stored is offered again");
}

#[test]
fn what_belongs_to_a_histogram_does_not_divide_it() {
    let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh 5\nh_bucket{le=\"2\"} 2\nh_count 2\nh_created 7\n# TYPE c counter\nc_created 7\n# EOF\n";
    let mut bench = Bench::with(CONVERT);
    for added in [3, 0] {
        assert_eq!(
            bench.scrape_as(page, OPENMETRICS),
            format!("1 3 3 {added}"),
            "h, the histogram, c_created"
        );
    }
    assert_eq!(bench.store.values("h"), ["5", "5"], "the first at its time");
    assert_eq!(bench.store.series().len(), 2);
}

/// A counter, a summary and a histogram that began at second 500, as OpenMetrics and as protobuf.
fn pages_with_starts(start: u64) -> (String, Vec<u8>) {
    let text = format!(
        "# TYPE c counter\nc_total{{a=\"1\"}} 5\nc_created{{a=\"1\"}} {start}.0\nc_total{{a=\"2\"}} 6\n\
         # TYPE s summary\ns{{quantile=\"0.5\"}} 1\ns_count 3\ns_sum 4\ns_created {start}\n\
         # TYPE h histogram\nh_bucket{{le=\"+Inf\"}} 2\nh_count 2\nh_sum 4\nh_created {start}\n\
         # TYPE g gauge\ng_created 9\n# EOF\n"
    );
    let since = |number: u64| message(number, &[int(1, start)]);
    let proto = [
        family(
            "c_total",
            COUNTER,
            &[
                &[label("a", "1"), message(3, &[double(1, 5.0), since(3)])],
                &[label("a", "2"), message(3, &[double(1, 6.0)])],
            ],
        ),
        family(
            "s",
            SUMMARY,
            &[&[message(
                4,
                &[int(1, 3), double(2, 4.0), message(3, &[double(1, 0.5), double(2, 1.0)]), since(4)],
            )]],
        ),
        family("h", HISTOGRAM, &[&[message(7, &[int(1, 2), double(2, 4.0), since(15)])]]),
        family("g_created", GAUGE, &[&[message(2, &[double(1, 9.0)])]]),
    ]
    .concat();
    (text, proto)
}

#[test]
fn zeros_are_stored_where_counters_began() {
    for (format, convert) in [
        (OPENMETRICS, false),
        (OPENMETRICS, true),
        (PageFormat::Protobuf, false),
        (PageFormat::Protobuf, true),
    ] {
        let mut bench = Bench::with(HistogramSettings { convert, ..NATIVE });
        bench.config.start_times = StartTimes::ZeroSamples;
        let mut scrape = |start: u64| {
            let (text, proto) = pages_with_starts(start);
            let page = if format == OPENMETRICS { text.as_bytes() } else { &proto };
            let stored = bench.store(&Input::Page(page, format), None);
            bench.verdict(&stored)
        };
        let series = if convert { 7 } else { 9 };
        assert_eq!(scrape(500), format!("1 {series} {series} {series}"), "{format:?} {convert}");
        assert_eq!(scrape(500), format!("1 {series} {series} 0"), "the same start is nothing new");
        // Reset between the last scrape (at 1002 s) and this one, and a start that lies within what is stored.
        bench.t += 10_000;
        let (text, proto) = pages_with_starts(1005);
        let page = if format == OPENMETRICS { text.as_bytes() } else { &proto };
        bench.store(&Input::Page(page, format), None);
        let (text, proto) = pages_with_starts(1003);
        let page = if format == OPENMETRICS { text.as_bytes() } else { &proto };
        bench.store(&Input::Page(page, format), None);
        let times: Vec<i64> = bench.store.samples("s_count").into_iter().map(|(t, _)| t).collect();
        assert_eq!(times, [500_000, 1_001_000, 1_002_000, 1_005_000, 1_013_000, 1_014_000]);
        assert_eq!(bench.store.values("s_sum"), ["0", "4", "4", "0", "4", "4"]);
        assert_eq!(bench.store.values("g_created"), ["9"; 4], "a gauge has no start");
        if convert {
            assert_eq!(bench.store.samples("h")[0], (500_000, "-53 {count:0, sum:0}".to_owned()));
        } else {
            assert_eq!(bench.store.values("h_sum"), ["0", "4", "4", "0", "4", "4"]);
        }
        let names = bench.store.series().join(" ");
        assert!(!names.contains("c_created") && !names.contains("h_created"), "{names}");
    }
}

#[test]
fn starts_are_stored_with_samples() {
    for format in [OPENMETRICS, PageFormat::Protobuf] {
        let mut bench = Bench::with(NATIVE);
        bench.config.start_times = StartTimes::Stored;
        let (text, proto) = pages_with_starts(500);
        let page = if format == OPENMETRICS { text.as_bytes() } else { &proto };
        for added in [9, 0] {
            let stored = bench.store(&Input::Page(page, format), None);
            assert_eq!(bench.verdict(&stored), format!("1 9 9 {added}"));
        }
        assert_eq!(bench.store.values("s_sum"), ["4", "4"]);
        let starts = bench.store.starts();
        assert_eq!(starts.len(), 2 * 7, "all but the counter without one, and the gauge: {starts:?}");
        assert!(starts.iter().all(|start| *start == 500_000));
        assert_eq!(bench.scrape_as("# EOF\n", OPENMETRICS), "1 0 0 0");
        assert_eq!(bench.store.last("s_sum").as_deref(), Some("S"));
    }
}

#[test]
fn without_the_feature_created_lines_are_series() {
    let mut bench = Bench::with(NATIVE);
    assert_eq!(bench.scrape_as(&pages_with_starts(500).0, OPENMETRICS), "1 12 12 12");
}

/// A text page of classic histograms, one per label set.
fn classic(sets: &[(&str, &[(&str, f64)])]) -> String {
    let mut page = "# HELP h Help.\n# TYPE h histogram\n".to_owned();
    for (set, buckets) in sets {
        for (bound, count) in *buckets {
            page.push_str(&format!("h_bucket{{a=\"{set}\",le=\"{bound}\"}} {count}\n"));
        }
        let count = buckets.last().map_or(0.0, |bucket| bucket.1);
        page.push_str(&format!("h_sum{{a=\"{set}\"}} 1.5\nh_count{{a=\"{set}\"}} {count}\n"));
    }
    page
}

#[test]
fn converted_pages_are_known_by_their_lines() {
    let mut bench = Bench::with(CONVERT);
    let page = |n: f64| {
        let buckets = [("1", n), ("2", 2.0 * n), ("+Inf", 3.0 * n)];
        classic(&[("x", &buckets), ("y", &buckets)]) + "# TYPE other gauge\nother 1\nh_count{b=\"z\"} 4\n"
    };
    assert_eq!(bench.scrape(&page(1.0)), "1 4 4 4");
    let again = page(2.0);
    let stored = bench.store(&Input::Page(again.as_bytes(), TEXT), None);
    assert_eq!((stored.counts.known_lines, stored.counts.parsed_lines), (15, 0));
    assert_eq!(bench.verdict(&stored), "1 4 4 0");
    assert_eq!(
        bench.store.series(),
        [
            r#"{__name__="h", a="x", instance="i", job="j"}"#,
            r#"{__name__="h", a="y", instance="i", job="j"}"#,
            r#"{__name__="h_count", b="z", instance="i", job="j"}"#,
            r#"{__name__="other", instance="i", job="j"}"#,
        ]
    );
    // A histogram goes, and what is known of it with it.
    let one = classic(&[("x", &[("1", 5.0), ("2", 4.0)])]);
    assert_eq!(bench.scrape(&one), "1 0 0 0", "these numbers make no histogram");
    assert_eq!(bench.scrape(&page(3.0)), "1 4 4 4");
    // Untyped, they are series as any other; lines that were parts get their labels then.
    let untyped = page(4.0).replace("# TYPE h histogram\n", "");
    assert_eq!(bench.scrape(&untyped), "1 12 12 10");
    assert_eq!(bench.scrape(&page(5.0)), "1 4 4 2");
    assert_eq!(bench.scrape(&untyped), "1 12 12 0", "staleness markers have been set, but lines are known");
}

#[test]
fn odd_buckets_stay_series_and_do_not_divide_histograms() {
    let mut bench = Bench::with(CONVERT);
    let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"one\"} 7\nh_bucket{le=\"NaN\"} 8\nh_bucket{le=\"2\"} 2\nh_count 2\n";
    for added in [3, 0] {
        assert_eq!(bench.scrape(page), format!("1 3 3 {added}"));
    }
    assert_eq!(bench.store.last("h").as_deref(), Some("-53 {count:2, sum:0, [-Inf,1]:1, (1,2]:1}"));
    assert_eq!(bench.store.series().len(), 3);
}

#[test]
fn exemplars_go_to_the_converted_histogram() {
    let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 1 # {t=\"a\"} 0.5 7\nh_bucket{le=\"2\"} 2 # {t=\"b\"} 1.5\nh_count 2\n# EOF\n";
    for keep_classic in [false, true] {
        let mut bench = Bench::with(HistogramSettings { keep_classic, ..CONVERT });
        bench.scrape_as(page, OPENMETRICS);
        let found = bench.store.exemplars();
        assert_eq!(found.len(), 1, "one has no time");
        assert!(found[0].0.contains(r#"__name__="h""#), "{found:?}");
    }
}

#[test]
fn keys_of_series_are_not_confused() {
    let mut bench = Bench::new();
    // Labels, bounds and names that look like parts of each other on the wire.
    let tricky = f64::from_le_bytes([0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b']);
    let page = [
        family("n", HISTOGRAM, &[&[message(7, &[int(1, 1), bucket(tricky, 1, &[])])]]),
        family("n2", HISTOGRAM, &[&[label("a", "b"), message(7, &[int(1, 1), bucket(tricky, 1, &[])])]]),
        counter("n_count2", &[], 1.0),
        counter("n_count2", &[("a", "b")], 1.0),
    ]
    .concat();
    assert_eq!(bench.scrape_proto(&page).0, "1 10 10 10");
    let (verdict, counts) = bench.scrape_proto(&page);
    assert_eq!((verdict.as_str(), counts.known_lines), ("1 10 10 0", 10));
    assert_eq!(bench.store.series().len(), 10);
}

#[test]
fn units_and_names_beyond_ascii_in_protobuf() {
    let mut bench = Bench::new();
    let page = crate::proto_pages::delimited(&[
        bytes(1, "höhe_meters".as_bytes()),
        bytes(2, b"Line\nbreak"),
        int(3, GAUGE),
        message(4, &[label("größe.x", "ü")]),
        bytes(5, b"meters"),
    ]);
    let stored = bench.store(&Input::Page(&page, PageFormat::Protobuf), None);
    let metadata = stored.metadata.unwrap();
    assert_eq!((metadata[0].0.as_str(), metadata[0].1.unit.as_str()), ("höhe_meters", "meters"));
    assert_eq!(metadata[0].1.help, "Line\nbreak");
    assert_eq!(bench.store.series(), [r#"{__name__="höhe_meters", "größe.x"="ü", instance="i", job="j"}"#]);
}

proptest! {
    /// Pages that change in every way give the same samples whether a line is known or not.
    #[test]
    fn what_is_known_never_changes_what_is_stored(
        pages in prop::collection::vec(prop::collection::vec((0usize..4, 0usize..3, 0u64..5), 0..8), 1..6),
        keep_classic in any::<bool>(),
        native in any::<bool>(),
        convert in any::<bool>(),
    ) {
        let settings = HistogramSettings { native, keep_classic, convert, ..HistogramSettings::default() };
        let mut warm = Bench::with(settings);
        for (number, metrics) in pages.iter().enumerate() {
            let page: Vec<u8> = metrics.iter().flat_map(|(name, set, n)| {
                let labels: Vec<u8> = (0..*set).flat_map(|i| label(&format!("l{i}"), "v")).collect();
                if *name < 2 {
                    family(&format!("c{name}"), COUNTER, &[&[labels, message(3, &[double(1, *n as f64)])]])
                } else {
                    family(&format!("h{name}"), HISTOGRAM, &[&[labels, histogram(*n)]])
                }
            }).collect();
            let (verdict, _) = warm.scrape_proto(&page);
            let mut cold = Bench::with(settings);
            cold.t = warm.t - 1000;
            let (cold_verdict, _) = cold.scrape_proto(&page);
            prop_assert_eq!(verdict.rsplit_once(' ').map(|v| v.0), cold_verdict.rsplit_once(' ').map(|v| v.0), "page {}", number);
            prop_assert_eq!(warm.store.at(warm.t), cold.store.at(cold.t), "page {}", number);
        }
    }
}
