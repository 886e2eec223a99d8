//! A live server and thousands of queries that make no sense: grammatical ones put together at random, sound ones with
//! holes and splices, and bytes. Each gets an answer with one of the API's status codes, within its time; the server is
//! healthy afterwards and holds nothing.
//!
//! `NILOMETER_NONSENSE_QUERIES` says how many (300 by default), `NILOMETER_NONSENSE_SEED` repeats a run.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::http::{encoded, send};
use support::nilometer::Nilometer;
use support::remote_write::{Series, write};
use support::{now, wait_for};

const QUERIES: usize = 300;
/// Most time a query gets, and what it may take longer: the machine does other things as well.
const TIMEOUT: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(4);

/// What queries may hold, and what all else in the process may take: text, threads, what the allocator has not given back.
const QUERY_MEMORY: u64 = 256 << 20;
const OTHER_MEMORY_MAX: u64 = 256 << 20;
/// Most answers, of all, that time or memory refuses.
const UNAVAILABLE_SHARE_MAX: f64 = 0.2;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

struct Nonsense {
    rng: StdRng,
}

impl Nonsense {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.random_range(0..of.len())]
    }

    fn number(&mut self) -> String {
        self.pick(&[
            "0",
            "1",
            "-1",
            "0.5",
            "NaN",
            "Inf",
            "-Inf",
            "1e308",
            "-1e-308",
            "9223372036854775807",
            "0x7f",
            "1e5",
            "11000",
            "5m",
            "3.7",
            "1_000",
        ])
        .to_owned()
    }

    fn duration(&mut self) -> String {
        let plain = ["1s", "5m", "1h", "1d", "290y", "1ms", "0s", "1y2w3d", "-5m", "300"];
        match self.rng.random_range(0..6) {
            0 => format!(
                "{} {} {}",
                self.pick(&plain),
                self.pick(&["+", "-", "*", "/", "%", "^"]),
                self.pick(&plain)
            ),
            1 => {
                self.pick(&["step()", "range()", "min_of(step(), 1h)", "max_of(1s, range() * 2)"]).to_owned()
            }
            _ => self.pick(&plain).to_owned(),
        }
    }

    fn matcher(&mut self) -> String {
        let name = self.pick(&["i", "job", "le", "__name__", "\"a b\"", "nothing"]);
        let op = self.pick(&["=", "!=", "=~", "!~"]);
        let value = self.pick(&[
            "",
            "a",
            ".*",
            ".+",
            "(a|b)+",
            "[0-9]{1,5}",
            "(?i)A",
            "\\\\d",
            "(((((a*)*)*)*)*)",
            "[",
        ]);
        format!("{name}{op}\"{value}\"")
    }

    fn selector(&mut self) -> String {
        let name = self.pick(&["x", "h", "x_total", "", "nothing", "{\"x\"}"]).to_owned();
        if name.starts_with('{') || self.rng.random_bool(0.5) && !name.is_empty() {
            return name;
        }
        let count = self.rng.random_range(1..4);
        let matchers: Vec<String> = (0..count).map(|_| self.matcher()).collect();
        format!("{name}{{{}}}", matchers.join(","))
    }

    fn modifiers(&mut self) -> String {
        let mut out = String::new();
        if self.rng.random_bool(0.15) {
            out.push_str(&format!(" offset {}", self.duration()));
        }
        if self.rng.random_bool(0.1) {
            out.push_str(self.pick(&[" @ start()", " @ end()", " @ 0", " @ 1e300", " @ -9223372036"]));
        }
        out
    }

    fn range(&mut self, depth: u32) -> String {
        let modifiers = self.modifiers();
        if depth > 0 && self.rng.random_bool(0.4) {
            let step = if self.rng.random_bool(0.5) { self.duration() } else { String::new() };
            return format!("({})[{}:{step}]{modifiers}", self.expr(depth - 1), self.duration());
        }
        let kind = self.pick(&["", "", "", " anchored", " smoothed"]);
        format!("{}[{}]{kind}{modifiers}", self.selector(), self.duration())
    }

    fn expr(&mut self, depth: u32) -> String {
        if depth == 0 {
            return match self.rng.random_range(0..4) {
                0 if self.rng.random_bool(0.3) => self.number(),
                0 => format!("vector({})", self.number()),
                1 if self.rng.random_bool(0.3) => self.pick(&["time()", "\"text\"", "pi()"]).to_owned(),
                1 => self.pick(&["vector(1)", "vector(time())", "minute()"]).to_owned(),
                _ => format!("{}{}", self.selector(), self.modifiers()),
            };
        }
        let below = depth - 1;
        match self.rng.random_range(0..9) {
            0 => format!("-({})", self.expr(below)),
            1 | 2 => {
                let op = self.pick(&[
                    "+", "-", "*", "/", "%", "^", "atan2", "==", "!= bool", "< bool", ">=", "and", "or",
                    "unless", "</",
                ]);
                let matching = self.pick(&[
                    "",
                    "",
                    "",
                    " on()",
                    " on(i)",
                    " ignoring(i)",
                    " on() group_left()",
                    " on(i) group_right(job)",
                    " ignoring(job) group_left(nothing) fill(0)",
                ]);
                format!("({}) {op}{matching} ({})", self.expr(below), self.expr(below))
            }
            3 | 4 => {
                let op = self.pick(&[
                    "sum",
                    "avg",
                    "min",
                    "count",
                    "stddev",
                    "group",
                    "quantile",
                    "topk",
                    "bottomk",
                    "limitk",
                    "limit_ratio",
                    "count_values",
                ]);
                let grouping = self.pick(&["", " by (i)", " without (i, le)", " by ()"]);
                let param = match op {
                    "count_values" => "\"v\", ".to_owned(),
                    "quantile" | "topk" | "bottomk" | "limitk" | "limit_ratio" => {
                        format!("{}, ", self.number())
                    }
                    _ => String::new(),
                };
                format!("{op}{grouping} ({param}{})", self.expr(below))
            }
            5 | 6 => {
                let function = self.pick(&[
                    "rate",
                    "increase",
                    "irate",
                    "delta",
                    "deriv",
                    "changes",
                    "resets",
                    "sum_over_time",
                    "avg_over_time",
                    "quantile_over_time",
                    "mad_over_time",
                    "stddev_over_time",
                    "max_over_time",
                    "last_over_time",
                    "predict_linear",
                    "double_exponential_smoothing",
                    "absent_over_time",
                    "ts_of_max_over_time",
                ]);
                let range = self.range(below);
                match function {
                    "quantile_over_time" => format!("{function}({}, {range})", self.number()),
                    "predict_linear" => format!("{function}({range}, {})", self.number()),
                    "double_exponential_smoothing" => format!("{function}({range}, 0.5, {})", self.number()),
                    _ => format!("{function}({range})"),
                }
            }
            7 => match self.rng.random_range(0..7) {
                0 => format!("histogram_quantile({}, {})", self.number(), self.expr(below)),
                1 => format!("label_replace({}, \"i\", \"$1$1\", \"i\", \"(.*)\")", self.expr(below)),
                2 => format!("label_join({}, \"le\", \",\", \"i\", \"job\")", self.expr(below)),
                3 => format!("sort_by_label_desc({}, \"i\")", self.expr(below)),
                4 => format!("info({})", self.expr(below)),
                5 => format!("clamp({}, {}, {})", self.expr(below), self.number(), self.number()),
                _ => format!("vector(scalar({}))", self.expr(below)),
            },
            _ => {
                let function = self.pick(&[
                    "abs",
                    "absent",
                    "exp",
                    "ln",
                    "sgn",
                    "hour",
                    "timestamp",
                    "sort",
                    "round",
                    "histogram_sum",
                ]);
                format!("{function}({})", self.expr(below))
            }
        }
    }

    fn query(&mut self) -> String {
        let depth = self.rng.random_range(0..6);
        let mut text = self.expr(depth);
        match self.rng.random_range(0..10) {
            // A hole, a splice, a doubling, bytes.
            0 => {
                let at = self.cut(&text);
                text.truncate(at);
            }
            1 => {
                let (at, from) = (self.cut(&text), self.expr(2));
                let other = self.cut(&from);
                text = format!("{}{}", &text[..at], &from[other..]);
            }
            2 => {
                let at = self.cut(&text);
                let twice = text[at..].repeat(3);
                text.push_str(&twice);
            }
            3 => {
                let bytes: Vec<u8> = (0..self.rng.random_range(0..60)).map(|_| self.rng.random()).collect();
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
            4 => {
                let levels = self.rng.random_range(1..3000);
                let open = self.pick(&["(", "-", "sum(", "1+", "x[1m:", "{", "abs(", "x or ", "\"", "#"]);
                text = format!("{}{text}", open.repeat(levels));
            }
            _ => {}
        }
        text
    }

    fn cut(&mut self, text: &str) -> usize {
        text.floor_char_boundary(self.rng.random_range(0..=text.len()))
    }
}

#[expect(clippy::disallowed_methods, reason = "samples lie around the real present")]
fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Most memory the process ever had.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn nonsense_does_no_harm() {
    let queries = from_env("NILOMETER_NONSENSE_QUERIES", QUERIES as u64);
    let seed = from_env("NILOMETER_NONSENSE_SEED", rand::random());
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.yml"), "# nothing to scrape\n").unwrap();
    let server = Nilometer::start(
        dir.path(),
        &[
            "--config.file=c.yml",
            "--web.enable-remote-write-receiver",
            "--enable-feature=all",
            &format!("--query.max-memory={QUERY_MEMORY}B"),
            "--query.max-samples=2000000",
        ],
    );
    let t = now_s();
    let values = [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, 5e-324];
    let series: Vec<Series> = (0..60)
        .map(|n| {
            let (i, le) = ((n % 20).to_string(), ["0.1", "1", "+Inf", "x"][n % 4]);
            let name = ["x", "x_total", "h"][n / 20];
            let labels = [("__name__", name), ("i", &i), ("job", "a"), ("le", le)];
            let value = |k: i64| if n % 7 == 0 { values[k as usize % values.len()] } else { k as f64 };
            Series::new(&labels, (0..120).map(|k| ((t - (119 - k) * 15) * 1000, value(k))))
        })
        .collect();
    assert_eq!(write(server.port, &series).unwrap().status, 204);

    let mut nonsense = Nonsense { rng: StdRng::seed_from_u64(seed) };
    let mut answers = std::collections::BTreeMap::new();
    let mut slowest = (Duration::ZERO, String::new());
    for _ in 0..queries {
        let query = nonsense.query();
        let body = match nonsense.rng.random_range(0..3) {
            0 => format!("time={t}"),
            1 => format!("start={}&end={t}&step=15", t - 1800),
            _ => format!("start={}&end={t}&step=7", t - 70_000),
        };
        let path = if body.starts_with("time") { "/api/v1/query" } else { "/api/v1/query_range" };
        let body = format!("{body}&timeout={}ms&query={}", TIMEOUT.as_millis(), encoded(&query));
        let began = now();
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = send(server.port, "POST", path, &form, body.as_bytes())
            .unwrap_or_else(|| panic!("no answer to {query:?} (seed {seed}):\n{}", server.log()));
        let took = began.elapsed();
        assert!(took < TIMEOUT + GRACE, "{took:?} for {query:?} (seed {seed})");
        assert!(
            matches!(answer.status, 200 | 400 | 422 | 503),
            "{} for {query:?} (seed {seed}): {}",
            answer.status,
            answer.body
        );
        *answers.entry(answer.status).or_insert(0) += 1;
        if took > slowest.0 {
            slowest = (took, query);
        }
    }
    println!("{answers:?}; the slowest took {:?}: {}", slowest.0, &slowest.1[..slowest.1.len().min(300)]);
    // Enough of it was about something, and hardly any was more than the server can do.
    let share = |status: u16| answers.get(&status).copied().unwrap_or(0) as f64 / queries as f64;
    assert!(share(200) > 0.1 && share(503) < UNAVAILABLE_SHARE_MAX, "{answers:?}");
    let peak = peak_memory(server.pid());
    println!("at most {} MiB", peak >> 20);
    assert!(peak < QUERY_MEMORY + OTHER_MEMORY_MAX, "{peak} bytes");
    assert_eq!(server.get("/-/healthy").status, 200);
    assert!(server.api("status/queries")["running"].as_array().unwrap().is_empty());
    wait_for("memory to be free", || {
        server.get("/metrics").body.contains("nilometer_query_memory_bytes 0\n").then_some(())
    });
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert!(server.stop());
}
