//! What indexes cost, measured. Run with `cargo test --release -p tsdb --lib measure -- --ignored --nocapture --test-threads 1`;
//! `NILOMETER_RECORDING` names a recording of scrapes, `NILOMETER_BENCH_SERIES` another size than a million series.
//!
//! Times are the shortest of several runs, or for long work those of the processor, so that they mean something on a busy
//! machine.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};

use super::Catalogue;
use crate::block::index::{IndexReader, IndexWriter, SeriesCursor};
use crate::cache::BlockCache;
use crate::fs::{FileSystem, RealFs};

const PER_TARGET: usize = 1000;

fn series_count() -> usize {
    std::env::var("NILOMETER_BENCH_SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000)
}

/// The labels of a series of a target, as exporters have them: eight to ten labels.
fn labels(target: usize, index: usize) -> Labels {
    let family = index / 8;
    let member = index % 8;
    let mut pairs = vec![
        ("__name__", format!("exporter_subsystem_{family}_requests_total")),
        ("datacenter", format!("dc{}", target % 3)),
        ("instance", format!("10.0.{}.{}:9100", target / 250, target % 250)),
        ("job", format!("job-{}", target % 10)),
        ("namespace", format!("team-{}", target % 7)),
        ("pod", format!("exporter-{target}-{:05x}", target * 7919 % 0xf_ffff)),
        ("mode", ["user", "system", "idle", "wait"][member % 4].to_owned()),
        ("device", format!("sd{}", ["a", "b"][member / 4])),
    ];
    if family.is_multiple_of(2) {
        pairs.push(("le", format!("0.{family}")));
    }
    if family.is_multiple_of(4) {
        pairs.push(("code", (200 + family % 5).to_string()));
    }
    Labels::from_pairs(pairs)
}

fn each_series(mut each: impl FnMut(Labels)) {
    for target in 0..series_count().div_ceil(PER_TARGET) {
        (0..PER_TARGET).for_each(|index| each(labels(target, index)));
    }
}

/// A moment, in nanoseconds that this thread was running.
fn now() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

fn rss() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The most there ever was.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// The shortest of `times` runs; of one, the time of the processor.
fn timed<T>(what: &str, times: u32, mut run: impl FnMut() -> T) -> T {
    let (start, clock) = (now(), Instant::now());
    let mut last = run();
    let mut micros = if times == 1 { (now() - start) / 1e3 } else { clock.elapsed().as_secs_f64() * 1e6 };
    for _ in 1..times {
        let clock = Instant::now();
        last = run();
        micros = micros.min(clock.elapsed().as_secs_f64() * 1e6);
    }
    println!("{what}: {micros:.2} µs");
    last
}

fn regex(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).unwrap()
}

fn selections() -> Vec<(&'static str, Vec<Matcher>)> {
    let one = |name: &str, instance: &str| {
        vec![
            Matcher::equal("__name__", format!("exporter_subsystem_{name}_requests_total")),
            Matcher::equal("instance", instance),
            Matcher::equal("mode", "idle"),
            Matcher::equal("device", "sda"),
        ]
    };
    vec![
        ("one series", one("7", "10.0.0.7:9100")),
        ("one series, more labels", one("8", "10.0.1.77:9100")),
        ("eight series by name and instance", one("9", "10.0.0.70:9100")[..2].to_vec()),
        ("a metric", one("20", "")[..1].to_vec()),
        ("a job", vec![Matcher::equal("job", "job-3")]),
        ("job and name", vec![Matcher::equal("job", "job-3"), one("5", "").remove(0)]),
        (
            "name by prefix, mode by regex",
            vec![
                regex(MatchOp::Regex, "__name__", "exporter_subsystem_1.*"),
                regex(MatchOp::NotRegex, "mode", "i.*e"),
            ],
        ),
        ("pod by suffix", vec![regex(MatchOp::Regex, "pod", ".*-01eef")]),
        (
            "pod by automaton",
            vec![regex(MatchOp::Regex, "pod", "exporter-[0-9]+-0[1-3].*"), one("5", "").remove(0)],
        ),
    ]
}

#[test]
#[ignore = "measures"]
fn memory_and_speed_of_the_catalogue() {
    let before = rss();
    let mut catalogue = Catalogue::default();
    let start = now();
    let mut peak = 0;
    each_series(|labels| {
        assert!(catalogue.find(&labels).is_none());
        catalogue.add(&labels).unwrap();
        if catalogue.next_id().is_multiple_of(4096) {
            peak = rss().max(peak);
        }
    });
    println!(
        "adding, making the labels included: {:.0} ns a series",
        (now() - start) / series_count() as f64
    );
    let used = rss();
    let per = |bytes: usize| (bytes - before) as f64 / series_count() as f64;
    println!("catalogue: {:.1} B/series, peak {:.1}", per(used), per(peak));
    for (what, matchers) in selections() {
        let found = timed(what, 20, || catalogue.select(&matchers));
        println!("    {} series", found.len());
    }
    let all: Vec<u32> = (0..series_count() as u32).step_by(10).collect();
    timed("labels of a tenth of the series", 1, || {
        all.iter().map(|id| catalogue.labels(*id).unwrap().len()).sum::<usize>()
    });
    let known: Vec<Labels> = all.iter().map(|id| catalogue.labels(*id).unwrap()).collect();
    timed("finding them", 1, || {
        known.iter().zip(&all).for_each(|(labels, id)| assert_eq!(catalogue.find(labels), Some(*id)))
    });
    assert!(per(used) < 400.0);
}

fn measure_block(series: &[Labels], dir: &Path) -> IndexReader {
    let path: PathBuf = dir.join("index");
    let mut file = RealFs.create(&path).unwrap();
    let before = rss();
    let start = now();
    let mut writer = IndexWriter::new();
    for labels in series {
        writer.add(labels, &[]).unwrap();
    }
    println!("writer: {:.1} B/series", rss().saturating_sub(before) as f64 / series.len() as f64);
    let bytes = writer.finish(&mut *file).unwrap();
    println!("peak: {:.1} B/series", rss().saturating_sub(before) as f64 / series.len() as f64);
    println!(
        "{} series: {bytes} bytes, {:.2} B/series, {:.0} ns/series",
        series.len(),
        bytes as f64 / series.len() as f64,
        (now() - start) / series.len() as f64
    );
    let reader =
        timed("open", 20, || IndexReader::open(&RealFs, path.clone(), BlockCache::new(64 << 20)).unwrap());
    println!("{}; memory {} bytes", reader.parts(), reader.memory());
    reader
}

#[test]
#[ignore = "measures"]
fn size_and_speed_of_a_block_of_many_series() {
    let dir = tempfile::tempdir().unwrap();
    let mut series = Vec::new();
    each_series(|labels| series.push(labels));
    series.sort();
    let reader = measure_block(&series, dir.path());
    for (what, matchers) in selections() {
        // The first time: nothing is in the cache of blocks, all in that of the system.
        let cold = (0..20).map(|_| {
            let fresh =
                IndexReader::open(&RealFs, reader.path().to_owned(), BlockCache::new(64 << 20)).unwrap();
            let clock = Instant::now();
            fresh.select(&matchers).unwrap();
            clock.elapsed().as_secs_f64() * 1e6
        });
        println!("cold: {:.1} µs", cold.fold(f64::MAX, f64::min));
        let found = timed(what, 20, || reader.select(&matchers).unwrap());
        println!("    {} series", found.len());
    }
    let all: Vec<u32> = (0..series.len() as u32).step_by(10).collect();
    timed("labels of a tenth of the series", 1, || reader.labels_of(&all).unwrap().len());
    timed("again", 1, || reader.labels_of(&all).unwrap().len());
    timed("one by one", 1, || all.iter().map(|id| reader.labels(*id).unwrap().len()).sum::<usize>());
    let mut cursor = SeriesCursor::new();
    timed("all labels in order", 1, || {
        for (number, labels) in (0u32..).zip(&series) {
            assert_eq!(cursor.labels(&reader, number).unwrap(), *labels);
        }
    });
    let mut damage = Vec::new();
    timed("verify", 1, || reader.verify(&mut damage));
    assert_eq!(damage, []);
    assert!(reader.size_bytes() < 30 * series.len() as u64);
}

/// What a writer takes when each series has a value of its own, as under churn.
#[test]
#[ignore = "measures"]
fn memory_of_a_writer_of_values_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = RealFs.create(&dir.path().join("index")).unwrap();
    let before = rss();
    let per = |what: &str, bytes: usize| {
        println!("{what}: {:.1} B/series", bytes.saturating_sub(before) as f64 / series_count() as f64);
    };
    let mut writer = IndexWriter::new();
    for n in 0..series_count() {
        let id = format!("{:016x}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let metric = format!("metric_{:03}", n * 100 / series_count());
        let pairs =
            [("__name__", metric), ("a_number", format!("{n:09}")), ("id", id), ("job", "x".to_owned())];
        writer.add(&Labels::from_pairs(pairs), &[]).unwrap();
    }
    per("before the end", rss());
    writer.finish(&mut *file).unwrap();
    per("at most", peak());
}

/// Series of a recording: `TBREC1`, targets with scrapes and series, see where it was made.
fn recorded(path: &Path) -> Vec<Labels> {
    let mut decoder = zstd::stream::read::Decoder::new(std::fs::File::open(path).unwrap()).unwrap();
    decoder.window_log_max(31).unwrap();
    let mut skip = |bytes: usize, keep: bool| {
        let mut buffer = vec![0; bytes];
        decoder.read_exact(&mut buffer).unwrap();
        if keep { buffer } else { Vec::new() }
    };
    let mut number = |bytes: usize| {
        let read = skip(bytes, true);
        read.iter().rev().fold(0usize, |number, byte| number << 8 | *byte as usize)
    };
    let _magic = number(7);
    let targets = number(4);
    let mut series = Vec::new();
    for _ in 0..targets {
        let name_len = number(2);
        let name: Vec<u8> = (0..name_len).map(|_| number(1) as u8).collect();
        let name = String::from_utf8(name).unwrap();
        let scrapes = number(4);
        (0..scrapes).for_each(|_| drop(number(8).to_le_bytes().to_vec()));
        for _ in 0..number(4) {
            let len = number(4);
            let text: Vec<u8> = (0..len).map(|_| number(1) as u8).collect();
            let _kind = number(1);
            let runs: Vec<(usize, usize)> = (0..number(4)).map(|_| (number(4), number(4))).collect();
            for _ in 0..runs.iter().map(|run| run.1).sum::<usize>() {
                number(8);
            }
            let labels = parse(std::str::from_utf8(&text).unwrap());
            series.push(labels.with("instance", &format!("{name}:9100")).with("job", &name));
        }
    }
    series.sort();
    series.dedup();
    series
}

/// `name{label="value",…}`
fn parse(text: &str) -> Labels {
    let (name, mut rest) = text.split_once('{').unwrap_or((text, "}"));
    let mut pairs = vec![("__name__".to_owned(), name.to_owned())];
    while let Some((label, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                '"' => {
                    rest = &after[at + 1..];
                    break;
                }
                c => value.push(c),
            }
        }
        pairs.push((label.trim_start_matches(',').trim().to_owned(), value));
    }
    Labels::from_pairs(pairs)
}

#[test]
#[ignore = "measures a recording"]
fn size_of_a_recording() {
    let path = std::env::var_os("NILOMETER_RECORDING").expect("the recording");
    let series = recorded(Path::new(&path));
    assert!(series.len() > 4000);
    let dir = tempfile::tempdir().unwrap();
    let reader = measure_block(&series, dir.path());
    let mut damage = Vec::new();
    reader.verify(&mut damage);
    assert_eq!(damage, []);
    assert!(reader.size_bytes() < 100_000);
}
