//! `nilometer tsdb …` on the built program: whole outputs, exit codes, and what servers see of it.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use support::http::encoded;
use support::nilometer::Nilometer;
use support::remote_write::{Series, write};
use support::wait_for;

/// A small page with all that is odd: exemplars, escapes, NaN, infinities, two windows of two hours.
const PAGE: &str = r#"# HELP http_requests The number.
# TYPE http_requests counter
http_requests_total{code="200",service="user"} 123 1609954636
http_requests_total{code="500",service="user"} 1 1609954637.25
# TYPE lat histogram
lat_bucket{le="0.1"} 4 1609954636
lat_bucket{le="+Inf"} 5 1609954636 # {trace_id="x"} 0.5 1609954636
lat_count 5 1609954636
lat_sum 5.5 1609954636
# TYPE g gauge
g NaN 1609964636
g{a="b\"c\nd\\"} -Inf 1609964636
g 1e-9 1609964637
# EOF
"#;

#[expect(clippy::disallowed_methods, reason = "samples lie around the real present")]
fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: i32,
    out: String,
    err: String,
}

/// Runs `nilometer tsdb ARGS` in `dir`, with `input` on standard input.
fn tsdb_with(dir: &Path, args: &[&str], input: &str) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nilometer"))
        .current_dir(dir)
        .arg("tsdb")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever refuses the arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn tsdb(dir: &Path, args: &[&str]) -> Outcome {
    tsdb_with(dir, args, "")
}

/// A directory with [`PAGE`] imported into `data`.
fn imported() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("page.om"), PAGE).unwrap();
    let done = tsdb(dir.path(), &["import", "--from-openmetrics=page.om", "--quiet"]);
    let err = "imported 9 samples into 2 blocks\nnote: blocks have no place for 1 exemplar: left out\n";
    assert_eq!(done, Outcome { code: 0, out: String::new(), err: err.to_owned() });
    dir
}

/// `text` with the names of blocks and the column of sizes, which is none of ours, blotted out.
fn blotted(text: &str) -> String {
    let blot = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if words.len() == 9 && line.starts_with("01") {
            words[0] = "ULID";
            words[7] = "SIZE";
        }
        words.join(" ") + "\n"
    };
    text.lines().map(blot).collect()
}

/// All files below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn imported_blocks_are_listed_as_promtool_lists_them() {
    let dir = imported();
    let listed = tsdb(dir.path(), &["list"]);
    let head = "BLOCK ULID MIN TIME MAX TIME DURATION NUM SAMPLES NUM CHUNKS NUM SERIES SIZE LEVEL\n";
    let rows = "ULID 1609954636000 1609954637251 1.251s 6 6 6 SIZE 1\nULID 1609964636000 1609964637001 1.001s 3 2 2 SIZE 1\n";
    assert_eq!((listed.code, blotted(&listed.out), listed.err.as_str()), (0, format!("{head}{rows}"), ""));
    assert!(
        listed.out.starts_with(
            "BLOCK ULID                  MIN TIME       MAX TIME       DURATION     NUM SAMPLES  "
        )
    );
    let for_people = tsdb(dir.path(), &["list", "-r", "data"]).out;
    assert!(
        for_people.contains("  2021-01-06 17:37:16 +0000 UTC  2021-01-06 17:37:17 +0000 UTC  1.251s  "),
        "{for_people}"
    );
    assert_eq!(files(&dir.path().join("data")).len(), 8, "nothing but the files of two blocks");
}

/// The text is what promtool 3.5.3 prints of the same page.
#[test]
fn all_samples_are_printed_as_promtool_prints_them() {
    let dir = imported();
    let dumped = tsdb(dir.path(), &["dump"]);
    let expected = r#"{__name__="g"} NaN 1609964636000
{__name__="g"} 1e-09 1609964637000
{__name__="g", a="b\"c\nd\\"} -Inf 1609964636000
{__name__="http_requests_total", code="200", service="user"} 123 1609954636000
{__name__="http_requests_total", code="500", service="user"} 1 1609954637250
{__name__="lat_bucket", le="+Inf"} 5 1609954636000
{__name__="lat_bucket", le="0.1"} 4 1609954636000
{__name__="lat_count"} 5 1609954636000
{__name__="lat_sum"} 5.5 1609954636000
"#;
    assert_eq!(dumped, Outcome { code: 0, out: expected.to_owned(), err: String::new() });
    let part = [
        "dump",
        "--match=lat_sum",
        "--match={code!=\"\"}",
        "--min-time=1609954637000",
        "--max-time=1609954637250",
    ];
    let part = tsdb(dir.path(), &part).out;
    assert_eq!(part, "{__name__=\"http_requests_total\", code=\"500\", service=\"user\"} 1 1609954637250\n");
    let openmetrics = tsdb(dir.path(), &["dump-openmetrics", "--match=g"]);
    let expected =
        "g NaN 1609964636.000\ng 1e-09 1609964637.000\ng{a=\"b\\\"c\\nd\\\\\"} -Inf 1609964636.000\n# EOF\n";
    assert_eq!(openmetrics, Outcome { code: 0, out: expected.to_owned(), err: String::new() });
    // And back again.
    let text = tsdb(dir.path(), &["dump", "--format=openmetrics", "data"]).out;
    let done = tsdb_with(dir.path(), &["import", "--from-openmetrics=-", "-q", "again"], &text);
    assert_eq!((done.code, done.err.as_str()), (0, "imported 9 samples into 2 blocks\n"));
    assert_eq!(tsdb(dir.path(), &["dump", "again"]).out, dumped.out);
    assert_eq!(tsdb(dir.path(), &["dump", "--min-time=1", "--max-time=0"]).code, 1);
    assert_eq!(files(&dir.path().join("data")).len(), 8, "nothing was made");
}

/// What a running server has in memory and log, and blocks from a file, before it starts and while it runs.
#[test]
fn commands_and_a_server_share_a_directory() {
    let dir = imported();
    std::fs::write(dir.path().join("c.yml"), "# nothing to scrape\n").unwrap();
    let args =
        ["--config.file=c.yml", "--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
    let server = Nilometer::start(dir.path(), &args);
    let at = |expr: &str, t: i64| {
        let found = server.api(&format!("query?query={}&time={t}", encoded(expr)));
        found["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    assert_eq!(at("sum(http_requests_total)", 1_609_954_640).as_deref(), Some("124"));
    assert_eq!(server.api("status/tsdb/blocks")["blocks"].as_array().unwrap().len(), 2);
    let t = now_ms();
    write(server.port, &[Series::new(&[("__name__", "live")], [(t, 7.0)])]).unwrap();
    let live = tsdb(dir.path(), &["dump", "--match=live"]);
    assert_eq!(live, Outcome { code: 0, out: format!("{{__name__=\"live\"}} 7 {t}\n"), err: String::new() });
    let verified = tsdb(dir.path(), &["verify"]);
    assert!(verified.code == 0 && verified.out.ends_with(": no damage\n"), "{verified:?}");
    let all = tsdb(dir.path(), &["analyze", "data", "all"]).out;
    assert!(all.starts_with("All that is stored: 2 blocks and what is in none yet\nDuration: "), "{all}");
    assert!(all.contains("\nTotal Series: 9\n") && all.contains("\nSamples: 10\n"), "{all}");
    let page = format!("late 5 {}\n# EOF\n", t / 1000 - 86_400);
    assert_eq!(tsdb_with(dir.path(), &["import", "--from-openmetrics=-"], &page).code, 0);
    wait_for("the server to find the new block", || {
        at("late", t / 1000 - 86_400).filter(|value| value == "5")
    });
    assert!(server.stop());
    assert_eq!(tsdb(dir.path(), &["dump", "--match={__name__=~\"live|late\"}"]).out.lines().count(), 2);
}

#[test]
fn promtools_spelling_makes_the_same_blocks() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("page.om"), PAGE).unwrap();
    let args =
        ["create-blocks-from", "openmetrics", "page.om", "out", "--label=x=y", "--max-block-duration=3d"];
    let done = tsdb(dir.path(), &args);
    let head = "BLOCK ULID MIN TIME MAX TIME DURATION NUM SAMPLES NUM CHUNKS NUM SERIES SIZE LEVEL\n";
    let row = "ULID 1609954636000 1609964637001 2h46m41.001s 9 8 8 SIZE 1\n";
    assert_eq!((done.code, blotted(&done.out)), (0, format!("{head}{row}")), "{}", done.err);
    // From standard input, without an output directory: beside what the server has.
    let done = tsdb_with(dir.path(), &["import", "--from-openmetrics=-", "-q"], PAGE);
    assert_eq!((done.code, files(&dir.path().join("data")).len()), (0, 8), "{}", done.err);
}

#[test]
fn wrong_files_make_no_blocks_and_are_told_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("a 1 1\n", "error: f.om:2: data does not end with # EOF\n"),
        ("a 1 1\na 1\n# EOF\n", "error: f.om:2: expected a timestamp behind the value of a\n"),
        (
            "a 1 1\na{ 1 2\n# EOF\n",
            "error: f.om:2: expected label name, got \" \" (\"INVALID\") while parsing: \"a{ \"\n",
        ),
        (
            "a 1 1609954636000\n# EOF\n",
            "error: f.om:1: timestamp 1609954636000 of a is not within the years 1 to 9999: it must be in seconds\n",
        ),
    ];
    for (text, err) in cases {
        std::fs::write(dir.path().join("f.om"), text).unwrap();
        let done = tsdb(dir.path(), &["import", "--from-openmetrics=f.om", "out"]);
        assert_eq!(done, Outcome { code: 1, out: String::new(), err: err.to_owned() });
        assert_eq!(files(&dir.path().join("out")), Vec::<PathBuf>::new());
    }
    let done = tsdb_with(dir.path(), &["import", "--from-openmetrics=-", "out"], "a 1 1\n");
    assert_eq!(done.err, "error: standard input:2: data does not end with # EOF\n");
    let done = tsdb(dir.path(), &["import", "--from-openmetrics=absent.om", "other"]);
    assert_eq!(
        (done.code, done.err.as_str()),
        (1, "error: cannot open absent.om: No such file or directory (os error 2)\n")
    );
    assert!(!dir.path().join("other").exists());
    for args in [
        &["import"][..],
        &["import", "--from-openmetrics=f.om", "--label=1=x"],
        &["import", "--from-openmetrics=f.om", "--max-block-duration=1h"],
    ] {
        assert_eq!(tsdb(dir.path(), args).code, 2, "{args:?}");
    }
}

#[test]
fn of_samples_at_one_time_the_first_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let page = "a 3 30\na 1 10\na 2 10\na 1 10\na NaN 20\n# EOF\n";
    let done = tsdb_with(dir.path(), &["import", "--from-openmetrics=-", "-q"], page);
    let err = "imported 3 samples into 1 block\nnote: 2 samples at a time that their series had already: the first one in the file is kept\n";
    assert_eq!(done, Outcome { code: 0, out: String::new(), err: err.to_owned() });
}

#[test]
fn a_block_is_analyzed_as_promtool_does_it() {
    let dir = imported();
    let id = tsdb(dir.path(), &["list"]).out.lines().nth(1).unwrap()[..26].to_owned();
    let analyzed = tsdb(dir.path(), &["analyze", "data", &id, "--limit=2"]);
    let before_size = analyzed.out.split("Bytes for each sample:").next().unwrap();
    let expected = format!(
        "Block ID: {id}\nDuration: 1.251s\nTotal Series: 6\nLabel names: 4\nPostings (unique label pairs): 9\nPostings entries (total label pairs): 12\n\n\
        Label pairs most involved in churning:\n2 __name__=http_requests_total\n2 __name__=lat_bucket\n\n\
        Label names most involved in churning:\n6 __name__\n2 code\n\n\
        Most common label pairs:\n2 __name__=http_requests_total\n2 __name__=lat_bucket\n\n\
        Label names with highest cumulative label value length:\n45 __name__\n7 le\n\n\
        Highest cardinality labels:\n4 __name__\n2 code\n\n\
        Highest cardinality metric names:\n2 http_requests_total\n2 lat_bucket\n\n\
        Samples: 6\nSeries that never change: 6 (100.0 %), with 100.0 % of samples\n"
    );
    assert_eq!((analyzed.code, before_size), (0, expected.as_str()), "{}", analyzed.err);
    // The last block, and a part of it.
    let part = tsdb(dir.path(), &["analyze", "--match={a!=\"\"}", "--extended"]).out;
    let ids: Vec<&str> = part.lines().take(4).collect();
    assert_eq!(ids[1..], ["Duration: 1.001s", "Total Series: 2", "Matcher: {a!=\"\"}"], "{part}");
    assert!(part.contains("Matched series: 1\n"), "{part}");
    assert!(part.contains("samples per float chunk (min/avg/max): 1/1/1\n[ 1, 10]: 1 ####"), "{part}");
    let wrong = tsdb(dir.path(), &["analyze", "data", "X"]);
    assert_eq!(
        wrong,
        Outcome { code: 1, out: String::new(), err: "error: data: no block \"X\"\n".to_owned() }
    );
    let wrong = tsdb(dir.path(), &["analyze", "--match=sum("]);
    assert_eq!(wrong.err, "error: --match=sum(: 1:4: parse error: unexpected \"(\"\n");
}

#[test]
fn every_damaged_file_is_named() {
    let dir = imported();
    let data = dir.path().join("data");
    let whole = tsdb(dir.path(), &["verify"]);
    assert!(
        whole.code == 0 && whole.out.starts_with("8 files, ") && whole.out.ends_with(": no damage\n"),
        "{whole:?}"
    );
    for path in files(&data) {
        let bytes = std::fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let found = tsdb(dir.path(), &["verify", "data"]);
        let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
        let line = format!("{name}: damaged at byte ");
        assert!(
            found.code == 1 && found.out.lines().any(|text| text.starts_with(&line)),
            "{name}: {found:?}"
        );
        std::fs::write(&path, &bytes).unwrap();
    }
    std::fs::create_dir(data.join("01M82XGXZEYEFHVYJJ90S3KQEJ.tmp")).unwrap();
    let noted = tsdb(dir.path(), &["verify"]);
    assert!(
        noted.code == 0
            && noted.out.starts_with("data/01M82XGXZEYEFHVYJJ90S3KQEJ.tmp: note: an unfinished block"),
        "{noted:?}"
    );
    // A block that cannot be opened does not hide the others.
    let meta = files(&data).into_iter().find(|path| path.ends_with("meta.json")).unwrap();
    std::fs::write(&meta, "{}").unwrap();
    let listed = tsdb(dir.path(), &["list"]);
    assert_eq!((listed.code, listed.out.lines().count()), (1, 2), "{listed:?}");
    assert!(listed.err.contains("meta.json: damaged at byte 0: "), "{listed:?}");
}

#[test]
fn of_a_damaged_log_the_rest_is_shown_and_nothing_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.yml"), "# nothing to scrape\n").unwrap();
    let server = Nilometer::start(dir.path(), &["--config.file=c.yml", "--web.enable-remote-write-receiver"]);
    let t = now_ms();
    for n in 0..20 {
        write(server.port, &[Series::new(&[("__name__", "m")], [(t + n, n as f64)])]).unwrap();
    }
    server.kill();
    let segment = dir.path().join("data/wal/00000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let before = files(&dir.path().join("data"));

    let verified = tsdb(dir.path(), &["verify"]);
    assert_eq!(verified.code, 1, "{verified:?}");
    let line = verified.out.lines().next().unwrap();
    let offset =
        line.strip_prefix("data/wal/00000001: damaged at byte ").and_then(|rest| rest.split(':').next());
    assert!(offset.unwrap().parse::<usize>().unwrap() <= at, "{line}");

    let dumped = tsdb(dir.path(), &["dump"]);
    let lines: Vec<&str> = dumped.out.lines().collect();
    assert!(dumped.code == 0 && !lines.is_empty() && lines.len() < 20, "{dumped:?}");
    for (n, line) in (0..).zip(&lines) {
        assert_eq!(*line, format!("{{__name__=\"m\"}} {n} {}", t + n));
    }
    assert!(
        dumped.err.starts_with("warning: data/: 1 damaged place: ")
            && dumped.err.contains("nilometer tsdb verify"),
        "{dumped:?}"
    );
    assert_eq!((files(&dir.path().join("data")), std::fs::read(&segment).unwrap()), (before, bytes));
}

#[test]
fn directories_that_are_not_there_are_no_empty_ones() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for command in ["list", "analyze", "dump", "dump-openmetrics", "verify"] {
        let done = tsdb(dir.path(), &[command, "absent"]);
        let err = "error: absent: No such file or directory (os error 2)\n";
        assert_eq!(done, Outcome { code: 1, out: String::new(), err: err.to_owned() }, "{command}");
        assert_eq!(tsdb(dir.path(), &[command, "file"]).err, "error: file: not a directory\n");
    }
    assert_eq!(files(dir.path()).len(), 1, "nothing was made");
}
