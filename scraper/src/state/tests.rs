//! Pages in, samples out, against a store that keeps them in a map.

use proptest::prelude::*;

use super::*;
use crate::collector::Scrape;
use crate::config::{NameValidation, ScrapeLimits, StartTimes};
use crate::exposition::{Format, PageFormat};
use crate::fake_store::FakeStore;
use model::relabel::{RawRelabelConfig, RelabelConfig};
use model::{ConfigPath, Labels};

pub(super) const TEXT: PageFormat = PageFormat::Text(Format::Text);
pub(super) const OPENMETRICS: PageFormat = PageFormat::Text(Format::OpenMetrics);

pub(crate) struct Bench {
    pub(crate) store: FakeStore,
    pub(crate) state: ScrapeState,
    pub(crate) config: PassConfig,
    pub(crate) t: Timestamp,
}

fn relabel(yaml: &str) -> Arc<[RelabelConfig]> {
    let raw: Vec<RawRelabelConfig> = serde_yaml::from_str(yaml).unwrap();
    raw.iter().map(|raw| raw.build(&ConfigPath::root(), NameValidation::Utf8).unwrap()).collect()
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            store: FakeStore::default(),
            state: ScrapeState::new(),
            config: PassConfig {
                target_labels: Labels::from_pairs([("job", "j"), ("instance", "i")]),
                honor_labels: false,
                honor_timestamps: true,
                track_timestamps_staleness: false,
                name_validation: NameValidation::Utf8,
                relabel: Arc::new([]),
                limits: ScrapeLimits::default(),
                histograms: HistogramSettings::default(),
                start_times: StartTimes::Ignored,
            },
            t: 1_000_000,
        }
    }

    pub(crate) fn store(&mut self, input: &Input<'_>, failure: Option<ScrapeError>) -> Stored {
        self.t += 1000;
        let times = ScrapeTimes { t: self.t, now_ms: self.t };
        self.state.store(&self.store, &self.config, input, failure, &times, |counts, error| ReportValues {
            up: error.is_none(),
            duration_seconds: 0.0,
            scraped: counts.total,
            post_relabeling: counts.added,
            series_added: counts.series_added,
            extra: None,
        })
    }

    /// Scrapes a page and returns `up scraped post added`.
    pub(crate) fn scrape(&mut self, page: &str) -> String {
        self.scrape_as(page, TEXT)
    }

    pub(crate) fn scrape_as(&mut self, page: &str, format: PageFormat) -> String {
        let stored = self.store(&Input::Page(page.as_bytes(), format), None);
        self.verdict(&stored)
    }

    pub(crate) fn fail(&mut self) -> String {
        let stored = self.store(&Input::Nothing, Some(ScrapeError::Status("500".to_owned())));
        self.verdict(&stored)
    }

    pub(crate) fn verdict(&self, stored: &Stored) -> String {
        let last = |name: &str| self.store.last(name).unwrap();
        let error = stored.error.as_ref().map(|error| format!(" {error}")).unwrap_or_default();
        format!(
            "{} {} {} {}{error}",
            last("up"),
            last("scrape_samples_scraped"),
            last("scrape_samples_post_metric_relabeling"),
            last("scrape_series_added")
        )
    }
}

#[test]
fn an_unchanged_page_is_one_row_of_known_lines() {
    let mut bench = Bench::new();
    let page = |v: u32| format!("# HELP a Help.\n# TYPE a counter\na {v}\na{{x=\"y\"}} {v}\n# c\nb {v}\n");
    assert_eq!(bench.scrape(&page(1)), "1 3 3 3");
    let rows = bench.store.rows();
    let again = page(2);
    let stored = bench.store(&Input::Page(again.as_bytes(), TEXT), None);
    assert_eq!((stored.counts.known_lines, stored.counts.parsed_lines), (6, 0));
    assert_eq!(bench.verdict(&stored), "1 3 3 0");
    assert_eq!(bench.store.rows() - rows, 2, "one row of samples, one of the report");
    assert!(stored.metadata.is_none(), "nothing new about families");
    assert_eq!(bench.store.values("b"), ["1", "2"]);
    assert_eq!(bench.store.series()[1], r#"{__name__="a", instance="i", job="j", x="y"}"#);
}

#[test]
fn series_that_go_end_once_and_come_back_as_new() {
    let mut bench = Bench::new();
    assert_eq!(bench.scrape("a 1\nb 2\n"), "1 2 2 2");
    assert_eq!(bench.scrape("a 1\n"), "1 1 1 0");
    assert_eq!(bench.scrape("a 1\n"), "1 1 1 0");
    assert_eq!(bench.store.values("b"), ["2", "S"]);
    assert_eq!(bench.scrape("a 1\nb 3\n"), "1 2 2 1");
    assert_eq!(bench.store.values("b"), ["2", "S", "3"]);
    assert_eq!(bench.fail(), "0 0 0 0 server returned HTTP status 500");
    assert_eq!(bench.store.values("a"), ["1", "1", "1", "1", "S"]);
    assert_eq!(bench.fail(), "0 0 0 0 server returned HTTP status 500");
    assert_eq!(bench.store.values("b"), ["2", "S", "3", "S"], "ended once");
    // A failed scrape forgets no lines: they are not new when the target is back.
    assert_eq!(bench.scrape("a 2\nb 4\n"), "1 2 2 0");
}

/// Prometheus gives no marker to a series that the broken page still had before it broke.
#[test]
fn a_page_that_breaks_half_way_stores_nothing_of_itself() {
    let mut bench = Bench::new();
    bench.scrape("a 1\nb 2\n");
    assert!(bench.scrape("a 5\nb{ 2\n").starts_with("0 1 1 0 expected label name"));
    assert_eq!(bench.store.values("a"), ["1"]);
    assert_eq!(bench.store.values("b"), ["2", "S"]);
    assert_eq!(bench.scrape("a 3\n"), "1 1 1 0");
    assert_eq!(bench.store.values("a"), ["1", "3"]);
}

#[test]
fn the_first_of_equal_series_wins() {
    let mut bench = Bench::new();
    bench.config.limits.samples = 2;
    assert_eq!(bench.scrape("a 1\na 2\na 3\n"), "1 3 3 1");
    assert_eq!(bench.store.values("a"), ["1"]);
    let stored = bench.store(&Input::Page(b"a 4\na 5\na 6\n", TEXT), None);
    assert_eq!(stored.counts.duplicates, 2);
    assert_eq!(bench.store.values("a"), ["1", "4"]);
    // The same series in another spelling, with the same labels after relabelling, or with an empty label.
    let mut bench = Bench::new();
    bench.scrape("a{b=\"1\",c=\"2\"} 1\na{c=\"2\",b=\"1\"} 2\na{c=\"2\",b=\"1\",d=\"\"} 3\n");
    assert_eq!(bench.store.values("a"), ["1"]);
    bench.scrape("a{c=\"2\",b=\"1\"} 7\n");
    assert_eq!(bench.store.values("a"), ["1", "7"], "another spelling is the same series");
}

#[test]
fn a_layout_of_mostly_retired_slots_is_opened_anew() {
    let mut bench = Bench::new();
    let page = |from: u32| -> String {
        "stays 1\n".to_owned() + &(from..from + 10).map(|i| format!("a{{i=\"{i}\"}} 1\n")).collect::<String>()
    };
    for round in 0..40 {
        bench.scrape(&page(round * 10));
    }
    // One for the report, and another one for each 76 series that went: 64 and as many as are alive.
    assert_eq!(bench.store.layouts().0, 2);
    let opened = bench.store.layouts_opened();
    assert!((5..=8).contains(&opened), "{opened}");
    assert_eq!(bench.store.values("stays"), ["1"; 40]);
}

#[test]
fn late_exemplars_are_counted_on_each_page() {
    let mut bench = Bench::new();
    let page = |t: &str| format!("a_total 1 # {{id=\"x\"}} 0.5 {t}\n# EOF\n");
    bench.scrape_as(&page("9"), OPENMETRICS);
    for _ in 0..2 {
        let stored = bench.store(&Input::Page(page("8").as_bytes(), OPENMETRICS), None);
        assert_eq!((stored.counts.exemplars_out_of_order, stored.error.is_none()), (1, true));
    }
    let stored = bench.store(&Input::Page(page("9").as_bytes(), OPENMETRICS), None);
    assert_eq!(stored.counts.exemplars_out_of_order, 0, "the one that is stored");
}

#[test]
fn target_labels_push_labels_of_the_page_aside() {
    let mut bench = Bench::new();
    let page = "a{job=\"mine\",exported_job=\"other\",instance=\"\"} 1\n";
    bench.scrape(page);
    assert_eq!(
        bench.store.series(),
        [r#"{__name__="a", exported_exported_job="mine", exported_job="other", instance="i", job="j"}"#]
    );
    let mut bench = Bench::new();
    bench.config.honor_labels = true;
    bench.scrape(page);
    // The empty `instance` of the page wins as well.
    assert_eq!(bench.store.series(), [r#"{__name__="a", exported_job="other", job="mine"}"#]);
}

#[test]
fn relabelling_drops_renames_and_is_checked() {
    let mut bench = Bench::new();
    bench.config.relabel = relabel(
        "[{source_labels: [__name__], regex: 'drop.*', action: drop}, {regex: x, action: labeldrop}, \
          {source_labels: [__name__], regex: 'old', target_label: __name__, replacement: new}]",
    );
    assert_eq!(bench.scrape("drop_me 1\nold{x=\"1\"} 2\n"), "1 2 1 1");
    assert_eq!(bench.scrape("drop_me 1\nold{x=\"1\"} 3\n"), "1 2 1 0");
    assert_eq!(bench.store.series(), [r#"{__name__="new", instance="i", job="j"}"#]);
    assert_eq!(bench.store.values("new"), ["2", "3"]);
    bench.config.relabel = relabel("[{target_label: __name__, replacement: ''}]");
    bench.state.forget_lines();
    assert_eq!(bench.scrape("a 1\n"), "0 1 0 0 missing metric name (__name__ label)");
    bench.config.relabel = relabel("[{target_label: __name__, replacement: 'new.name'}]");
    bench.state.forget_lines();
    assert_eq!(bench.scrape("a 1\n"), "1 1 1 1");
    bench.config.name_validation = NameValidation::Legacy;
    bench.state.forget_lines();
    assert!(bench.scrape("a 1\n").starts_with("0 1 0 0 invalid metric name or label names: "));
    assert_eq!(
        bench.scrape("a{b=\"1\",b=\"2\"} 1\n"),
        r#"0 1 0 0 label name "b" is not unique: invalid sample"#
    );
}

#[test]
fn limits_fail_the_scrape_with_their_names() {
    let mut bench = Bench::new();
    bench.config.limits.samples = 3;
    assert_eq!(bench.scrape("a 1\n"), "1 1 1 1");
    let five: String = (0..5).map(|i| format!("a{{i=\"{i}\"}} {i}\n")).collect();
    assert_eq!(bench.scrape(&five), "0 5 5 3 sample limit exceeded");
    assert_eq!(bench.scrape(&five), "0 5 5 0 sample limit exceeded");
    assert_eq!(bench.store.values("a"), ["1", "S"]);
    // The new series of the failed scrapes were never stored; the old one is new again.
    assert_eq!(bench.scrape("a 2\n"), "1 1 1 0");

    let mut bench = Bench::new();
    bench.config.limits.labels = 5;
    assert_eq!(bench.scrape("a{b=\"1\",c=\"2\"} 1\n"), "1 1 1 1");
    assert_eq!(
        bench.scrape("a{b=\"1\",c=\"2\",d=\"3\"} 1\n"),
        "0 1 0 0 label_limit exceeded (metric: a, number of labels: 6, limit: 5)"
    );
    let mut bench = Bench::new();
    bench.config.limits.label_name_length = 10;
    assert_eq!(
        bench.scrape("a{much_too_long=\"1\"} 1\n"),
        "0 1 0 0 label_name_length_limit exceeded (metric: a, label name: much_too_long, length: 13, limit: 10)"
    );
    let mut bench = Bench::new();
    bench.config.limits.label_value_length = 5;
    assert_eq!(
        bench.scrape("a{b=\"123456\"} 1\n"),
        "0 1 0 0 label_value_length_limit exceeded (metric: a, label name: b, value: \"123456\", length: 6, limit: 5)"
    );
}

#[test]
fn own_timestamps_are_kept_and_end_silently() {
    let mut bench = Bench::new();
    let t = bench.t - 5000;
    assert_eq!(bench.scrape(&format!("a 1 {t}\nb 1\n")), "1 2 2 2");
    assert_eq!(bench.store.samples("a"), [(t, "1".to_owned())]);
    assert_eq!(bench.scrape("b 1\n"), "1 1 1 0");
    assert_eq!(bench.store.values("a"), ["1"], "no marker");

    let mut bench = Bench::new();
    bench.config.track_timestamps_staleness = true;
    bench.scrape(&format!("a 1 {t}\nb 1\n"));
    bench.scrape("b 1\n");
    assert_eq!(bench.store.values("a"), ["1", "S"]);

    let mut bench = Bench::new();
    bench.config.honor_timestamps = false;
    bench.scrape(&format!("a 1 {t}\n"));
    assert_eq!(bench.store.samples("a"), [(bench.t, "1".to_owned())]);
}

#[test]
fn samples_out_of_bounds_and_order_leave_the_scrape_good() {
    let mut bench = Bench::new();
    // Too old, far in the future, fine. Series that were never stored are not added.
    let future = bench.t + 90_000_000;
    assert_eq!(bench.scrape(&format!("a 1 5\nb 1 {future}\nc 1\n")), "1 3 3 1");
    assert_eq!(bench.store.series(), [r#"{__name__="c", instance="i", job="j"}"#]);
    let (new, old) = (bench.t - 1, bench.t - 2000);
    bench.scrape(&format!("d 1 {new}\n"));
    let stored = bench.store(&Input::Page(format!("d 2 {old}\n").as_bytes(), TEXT), None);
    assert_eq!((stored.counts.out_of_order, stored.error.is_none()), (1, true));
    // A clock that went back: everything is refused, nothing breaks, nothing ends.
    bench.scrape("c 7\n");
    bench.t -= 10_000;
    let stored = bench.store(&Input::Page(b"c 8\n", TEXT), None);
    assert_eq!((stored.counts.out_of_order, stored.error.is_none()), (1, true));
    bench.t += 20_000;
    bench.scrape("c 9\n");
    assert_eq!(bench.store.values("c"), ["1", "S", "7", "9"]);
}

#[test]
fn exemplars_are_stored_with_the_time_of_the_sample() {
    let mut bench = Bench::new();
    let page = "# TYPE a counter\na_total 1 # {id=\"x\"} 0.5\nb 1\n# EOF\n";
    assert_eq!(bench.scrape_as(page, OPENMETRICS), "1 2 2 2");
    assert_eq!(bench.scrape_as(page, OPENMETRICS), "1 2 2 0");
    let exemplars = bench.store.exemplars();
    assert_eq!(exemplars.len(), 1, "the same exemplar without time is stored once");
    assert_eq!(exemplars[0].1.t, Some(bench.t - 1000));
    assert_eq!(exemplars[0].1.labels.to_string(), r#"{id="x"}"#);
    assert_eq!(bench.store.values("a_total"), ["1", "1"]);
    let page = "# TYPE a counter\na_total 1 # {id=\"x\"} 0.5 5000.25\nb 1\n# EOF\n";
    assert_eq!(bench.scrape_as(page, OPENMETRICS), "1 2 2 0");
    assert_eq!(bench.store.exemplars()[1].1.t, Some(5_000_250));
    assert_eq!(bench.scrape_as("# EOF\n", OPENMETRICS), "1 0 0 0");
    assert_eq!(bench.store.values("a_total"), ["1", "1", "1", "S"]);
}

#[test]
fn an_older_sample_of_a_series_that_came_without_time_is_out_of_order() {
    let mut bench = Bench::new();
    let page = format!("a 1\na 2 {}\n", bench.t - 5);
    let stored = bench.store(&Input::Page(page.as_bytes(), TEXT), None);
    assert_eq!((stored.counts.total, stored.counts.added, stored.counts.out_of_order), (2, 2, 1));
    assert_eq!(bench.store.values("a"), ["1"]);
}

#[test]
fn types_decide_how_bounds_of_new_series_are_spelled() {
    let mut bench = Bench::new();
    let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n# TYPE g gauge\ng{le=\"1\"} 1\n";
    bench.scrape(page);
    // The type comes from a known line now, the series is new.
    bench.scrape(
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"5\"} 1\n# TYPE g gauge\ng{le=\"1\"} 1\n",
    );
    let series = bench.store.series();
    assert!(series.iter().any(|s| s.contains("h_bucket") && s.contains("le=\"5.0\"")), "{series:?}");
    assert!(series.iter().any(|s| s.contains("\"g\"") && s.contains("le=\"1\"")), "{series:?}");
}

#[test]
fn metadata_follows_the_page() {
    let mut bench = Bench::new();
    let list = |stored: Stored| stored.metadata.map(|list| list.to_vec());
    let page = b"# HELP a One \\n two.\n# TYPE a counter\na 1\n# TYPE b gauge\nb 1\n";
    let found = list(bench.store(&Input::Page(page, TEXT), None)).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].0.as_str(), found[0].1.help.as_str()), ("a", "One \n two."));
    assert_eq!(found[1].1.kind, model::MetricKind::Gauge);
    assert_eq!(list(bench.store(&Input::Page(page, TEXT), None)), None);
    let found = list(bench.store(&Input::Page(b"# TYPE a gauge\na 1\n", TEXT), None)).unwrap();
    assert_eq!(found[0].1.kind, model::MetricKind::Gauge);
    assert_eq!(found.len(), 2, "remembered for a while");
    for _ in 0..10 {
        bench.scrape("# TYPE a gauge\na 1\n");
    }
    // Of several lines the last one counts, also when all are known.
    for page in ["# HELP a x\n# HELP a y\na 1\n", "# HELP a x\na 1\n", "# HELP a x\na 1\n"] {
        bench.store(&Input::Page(page.as_bytes(), TEXT), None);
    }
    let found = list(bench.store(&Input::Page(b"# TYPE a counter\na 1\n", TEXT), None)).unwrap();
    assert_eq!(found[0].1.help, "x");
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn collected_samples_take_the_same_road() {
    use crate::collector::ScrapedSample;
    let sample =
        |name: &str, v: f64| ScrapedSample::new(Labels::from_pairs([("__name__", name), ("job", "own")]), v);
    let mut bench = Bench::new();
    let scrape =
        Scrape { samples: vec![sample("a", 1.0), sample("b", 2.0), sample("a", 3.0)], ..Scrape::default() };
    let stored = bench.store(&Input::Samples(&scrape), None);
    assert_eq!(bench.verdict(&stored), "1 3 3 2");
    assert_eq!(bench.store.series()[0], r#"{__name__="a", exported_job="own", instance="i", job="j"}"#);
    let stored = bench.store(&Input::Samples(&scrape), None);
    assert_eq!((stored.counts.known_lines, stored.counts.duplicates), (3, 1));
    // A failure may bring samples; the others end.
    let down = Scrape { samples: vec![sample("b", 0.0)], ..Scrape::default() };
    let stored = bench.store(&Input::Samples(&down), Some(ScrapeError::CollectTimeout));
    assert!(bench.verdict(&stored).starts_with("0 1 1 0 context deadline"), "{}", bench.verdict(&stored));
    assert_eq!(bench.store.values("a"), ["1", "1", "S"]);
    assert_eq!(bench.store.values("b"), ["2", "2", "0"]);
}

#[test]
fn a_store_that_forgets_or_refuses_is_told_again() {
    let mut bench = Bench::new();
    bench.scrape("a 1\nb 1\n");
    bench.store.forget_layouts();
    assert_eq!(bench.scrape("a 2\nb 2\n"), "1 2 2 0");
    assert_eq!(bench.store.values("b"), ["1", "2"]);
    bench.store.refuse_commits(true);
    let stored = bench.store(&Input::Page(b"a 3\nb 3\n", TEXT), None);
    assert!(matches!(stored.error, Some(ScrapeError::Storage(_))));
    bench.store.refuse_commits(false);
    bench.scrape("a 4\n");
    assert_eq!(bench.store.values("a"), ["1", "2", "4"]);
    assert_eq!(bench.store.values("b"), ["1", "2", "S"], "what vanished while storing failed still ends");
}

#[test]
fn layouts_and_caches_stay_small_under_churn() {
    let mut bench = Bench::new();
    for round in 0..40 {
        let page: String = (0..100).map(|i| format!("a{{r=\"{round}\",i=\"{i}\"}} 1\n")).collect();
        assert_eq!(bench.scrape(&page), "1 100 100 100");
    }
    let (layouts, slots) = bench.store.layouts();
    assert_eq!(layouts, 2);
    assert!(slots <= 205 + 5, "{slots}");
    assert_eq!(bench.state.lines.len(), 100);
    // Pages that never get through must not fill the memory either.
    for round in 0..40 {
        let page: String =
            (0..100).map(|i| format!("b{{r=\"{round}\",i=\"{i}\"}} 1\n")).chain(["{".to_owned()]).collect();
        assert!(bench.scrape(&page).starts_with("0 100"));
    }
    assert!(bench.state.lines.len() <= 100 * 2 + GROWTH_MAX + 100, "{}", bench.state.lines.len());
}

#[test]
fn the_end_of_a_target_ends_all_its_series_and_layouts() {
    let mut bench = Bench::new();
    bench.scrape("a 1\nb 2\n");
    assert_eq!(bench.state.live_series().len(), 2);
    bench.state.store_end(&bench.store, &bench.config, bench.t + 1000).unwrap();
    assert_eq!(bench.store.values("a"), ["1", "S"]);
    assert_eq!(bench.store.values("up"), ["1", "S"]);
    assert_eq!(bench.store.layouts(), (0, 0));
}

/// One scrape of the model: names of series on the page, and whether the scrape fails.
fn life() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
    prop::collection::vec((prop::collection::vec(0u8..6, 0..8), prop::bool::weighted(0.15)), 1..12)
}

proptest! {
    /// Whatever comes and goes: after each scrape exactly the series on the last good page are alive, each with the
    /// first value the page gave it, and every other series that ever had a value ends in a marker.
    #[test]
    fn exactly_the_series_on_the_page_are_alive(life in life()) {
        let mut bench = Bench::new();
        let mut ever = std::collections::BTreeSet::new();
        for (scrape, (names, fails)) in life.into_iter().enumerate() {
            let mut expected = std::collections::BTreeMap::new();
            if fails {
                bench.fail();
            } else {
                let mut page = String::new();
                for (position, name) in names.iter().enumerate() {
                    let value = scrape * 100 + position;
                    expected.entry(*name).or_insert(value);
                    page.push_str(&format!("n{name} {value}\n"));
                }
                let verdict = bench.scrape(&page);
                prop_assert!(verdict.starts_with("1 "), "{}", verdict);
            }
            ever.extend(expected.keys().copied());
            for name in &ever {
                let last = bench.store.samples(&format!("n{name}")).pop().unwrap();
                match expected.get(name) {
                    Some(value) => prop_assert_eq!(last, (bench.t, value.to_string())),
                    None => prop_assert_eq!(last.1, "S"),
                }
            }
        }
    }
}
