//! The targets over mutations of sound pages, with the same choices in every run; `NILOMETER_MUTATIONS` says how many.

#[path = "../../../tsdb/src/fuzz/mutate.rs"]
mod mutate;

use std::io::Read;

use mutate::{Random, mutate};

use crate::proto_pages::{
    COUNTER, GAUGE, GAUGE_HISTOGRAM, HISTOGRAM, SUMMARY, UNTYPED, bucket, double, exemplar, family, int,
    label, message, packed, packed_doubles, sint, span,
};

const CLASSIC: &str = "# HELP a A \\\\ help.\n# TYPE a counter\na{x=\"y\",z=\"q\\\"\"} 1 1000\na 2e3\n# c\n\n\
    {\"ü.x\",l=\"v\"} NaN\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n";
const OPENMETRICS: &str = "# TYPE c_seconds counter\n# UNIT c_seconds seconds\n# HELP c_seconds H.\n\
    c_seconds_total{a=\"b\"} 1 1.5 # {t=\"x\"} 0.5 1.25\nc_seconds_created{a=\"b\"} 1.0\n# TYPE h histogram\n\
    h_bucket{le=\"1.0\"} 1 # {t=\"y\"} 0.5\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 3\nh_created 5\n# EOF\n";

/// A recorded page.
pub(crate) fn recorded(bytes: &[u8]) -> Vec<u8> {
    let mut page = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut page).unwrap();
    page
}

pub(crate) const PROMETHEUS_TEXT: &[u8] = include_bytes!("../../testdata/pages/prometheus.txt.gz");
pub(crate) const PROMETHEUS_PROTOBUF: &[u8] = include_bytes!("../../testdata/pages/prometheus.pb.gz");

fn texts() -> Vec<Vec<u8>> {
    let page = recorded(PROMETHEUS_TEXT);
    let families: Vec<Vec<u8>> = page[..20_000].chunks(700).map(<[u8]>::to_vec).collect();
    let verdicts =
        include_str!("../../testdata/exposition/verdicts.txt").lines().filter(|line| !line.starts_with('#'));
    let verdicts = verdicts.filter_map(|line| line.split(' ').nth(3)).map(unhex);
    [CLASSIC, OPENMETRICS]
        .map(|page| page.as_bytes().to_vec())
        .into_iter()
        .chain(families)
        .chain(verdicts)
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn protobufs() -> Vec<Vec<u8>> {
    let native = message(
        7,
        &[
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
        ],
    );
    let float =
        message(7, &[double(4, 2.5), double(8, 0.5), span(12, 0, 2), packed_doubles(14, &[1.5, 0.5])]);
    let classic = message(
        7,
        &[int(1, 6), double(2, 1.0), bucket(1.0, 3, &exemplar(3, "b", 0.7, -1)), bucket(2.0, 4, &[])],
    );
    let summary = message(4, &[int(1, 4), double(2, 1.0), message(3, &[double(1, 0.5), double(2, 1.5)])]);
    let counter = message(3, &[double(1, 2.0), exemplar(2, "x", 0.5, 7), message(3, &[int(1, 12)])]);
    let pages = vec![
        family("h", HISTOGRAM, &[&[label("a", "1"), native.clone()], &[label("a", "2"), classic.clone()]]),
        family("f", HISTOGRAM, &[std::slice::from_ref(&float)]),
        family("gh", GAUGE_HISTOGRAM, &[&[float, int(6, 7)], &[native]]),
        family("k", HISTOGRAM, &[std::slice::from_ref(&classic), &[label("a", "b"), classic.clone()]]),
        family("s", SUMMARY, &[&[label("x", "y"), summary]]),
        family("c", COUNTER, &[&[label("x", "y"), counter.clone(), label("late", "z")], &[counter]]),
        family("g", GAUGE, &[&[message(2, &[double(1, 2.0)])]]),
        family("u", UNTYPED, &[&[message(5, &[double(1, 2.0)]), int(6, 5)]]),
    ];
    let all = pages.concat();
    let recorded = recorded(PROMETHEUS_PROTOBUF);
    pages.into_iter().chain([all, recorded[..3000].to_vec()]).collect()
}

/// Two pages with two bytes before them, see [`super::scrapes`].
fn scrapes() -> Vec<Vec<u8>> {
    let settings = |format: u8| (0..64).map(move |more: u8| more << 2 | format);
    let with = |pages: Vec<Vec<u8>>, format: u8| -> Vec<Vec<u8>> {
        let twice = pages.iter().map(|page| [&page[..], page].concat());
        twice
            .zip(settings(format).cycle())
            .map(|(pages, settings)| [vec![settings, 128], pages].concat())
            .collect()
    };
    [with(texts(), 0), with(texts(), 1), with(protobufs(), 2)].concat()
}

fn mutations() -> usize {
    std::env::var("NILOMETER_MUTATIONS").map_or(10_000, |count| count.parse().unwrap())
}

/// How much sound pages say, and mutated ones.
fn play(seeds: &[Vec<u8>], count: usize, run: fn(&[u8]) -> usize) -> (usize, usize) {
    let sound = seeds.iter().map(|seed| run(seed)).sum();
    let mut said = 0;
    for index in 0..count {
        let mut random = Random::new(index as u64);
        let mut page = seeds[random.below(seeds.len())].clone();
        mutate(&mut page, seeds, &mut random);
        let done = std::panic::catch_unwind(|| run(&page));
        said += done.unwrap_or_else(|_| panic!("mutation {index}: {}", page.escape_ascii()));
    }
    (sound, said)
}

#[test]
fn texts_are_read_or_refused() {
    let count = mutations();
    let (sound, said) = play(&texts(), count, super::text);
    assert!(sound > 300 && said > count / 5, "{sound} {said}: the inputs are worth something");
}

#[test]
fn protobufs_are_read_or_refused() {
    let count = mutations();
    let (sound, said) = play(&protobufs(), count, super::protobuf);
    assert!(sound > 30 && said > count / 2, "{sound} {said}: the inputs are worth something");
}

#[test]
fn scrapes_do_not_depend_on_earlier_ones() {
    let count = mutations() / 5;
    let (sound, said) = play(&scrapes(), count, super::scrapes);
    assert!(sound > 1000 && said > count / 2, "{sound} {said}: the inputs are worth something");
}

/// Writes the sound inputs to `NILOMETER_SEEDS/<target>/`, where one is given: a fuzzer starts from them.
#[test]
fn seeds_for_the_fuzzer() {
    let Some(dir) = std::env::var_os("NILOMETER_SEEDS") else { return };
    let targets =
        [("exposition_text", texts()), ("exposition_protobuf", protobufs()), ("scrapes", scrapes())];
    for (target, seeds) in targets {
        let dir = std::path::Path::new(&dir).join(target);
        std::fs::create_dir_all(&dir).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}

/// A real server says the same in both formats.
#[test]
fn recorded_pages_have_the_same_series_in_every_format() {
    let names = |bytes: &[u8], format: u8, native: bool| -> Vec<String> {
        let page = recorded(bytes);
        let mut bench = crate::state::Bench::new();
        bench.config.histograms.native = native;
        let format = match format {
            0 => crate::exposition::PageFormat::Text(crate::exposition::Format::Text),
            _ => crate::exposition::PageFormat::Protobuf,
        };
        let stored = bench.store(&crate::state::Input::Page(&page, format), None);
        assert!(stored.error.is_none() && stored.metadata.is_some_and(|families| families.len() > 150));
        let stored = bench.store(&crate::state::Input::Page(&page, format), None);
        assert_eq!(stored.counts.parsed_lines, 0, "all is known");
        bench.store.series()
    };
    let text = names(PROMETHEUS_TEXT, 0, false);
    let protobuf = names(PROMETHEUS_PROTOBUF, 1, false);
    let only_text: Vec<&String> = text.iter().filter(|series| !protobuf.contains(series)).collect();
    let only_protobuf: Vec<&String> = protobuf.iter().filter(|series| !text.contains(series)).collect();
    assert!(text.len() > 500);
    // The server's own handler counts the formats it was asked for in between.
    assert!(only_text.len() + only_protobuf.len() < 12, "{only_text:?} {only_protobuf:?}");
    let native = names(PROMETHEUS_PROTOBUF, 1, true);
    assert!(native.len() + 20 < protobuf.len(), "{} {}", native.len(), protobuf.len());
}
