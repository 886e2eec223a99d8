//! The built program, killed (SIGKILL) at random moments under load, again and again: after each start every acknowledged
//! sample is there with its bits, and nothing else is. A request that was under way at the kill is there as a whole or not
//! at all.
//!
//! `NILOMETER_CRASH_ROUNDS=200 cargo test --release --test crash` is the long form; `NILOMETER_CRASH_SEED` repeats the choices
//! of a run (not its timing), and where it fails the directory is kept and named.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../support/mod.rs"]
mod support;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::nilometer::Nilometer;
use support::{free_port, pause};
use writer::Writer;

const WRITERS: u64 = 3;

/// Simulated time starts so long ago; nothing may be written in the future.
const PAST_MS: i64 = 60 * 24 * 3_600_000;

/// Small sizes, so that segments, checkpoints, head chunk files and blocks come and go all the time.
const ARGS: [&str; 9] = [
    "--config.file=nilometer.yml",
    "--web.enable-remote-write-receiver",
    "--web.enable-admin-api",
    "--storage.tsdb.retention.time=100d",
    "--storage.tsdb.min-block-duration=2h",
    "--storage.tsdb.max-block-duration=18h",
    "--storage.tsdb.wal-segment-size=64KB",
    "--storage.tsdb.checkpoint-size=256KB",
    "--storage.tsdb.compaction-interval=200ms",
];

const CONFIG: &str = "
global: {scrape_interval: 1h}
storage: {tsdb: {out_of_order_time_window: 1h}}
";

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// One start: maybe killed while it starts, first.
fn start(dir: &Path, random: &mut StdRng) -> Nilometer {
    let port = free_port();
    while random.random_ratio(1, 4) {
        let server = Nilometer::spawn_at(port, dir, &ARGS);
        pause(Duration::from_millis(random.random_range(0..400)));
        server.kill();
    }
    Nilometer::start_at(port, dir, &ARGS)
}

/// Lets all writers work on a server until it is killed.
fn work(server: Nilometer, writers: &mut [Writer], how_long: Duration) {
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let port = server.port;
        let threads: Vec<_> = writers
            .iter_mut()
            .map(|writer| {
                let stop = Arc::clone(&stop);
                scope.spawn(move || writer.work(port, &stop))
            })
            .collect();
        pause(how_long);
        // From here on no answer is no surprise; before, it is one.
        stop.store(true, Ordering::SeqCst);
        server.kill();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// How many blocks the API lists: whole ones, with samples of the span that they say.
fn blocks(server: &Nilometer) -> usize {
    let listed = server.api("status/tsdb/blocks");
    let listed = listed["blocks"].as_array().unwrap();
    for block in listed {
        let (min, max) = (block["minTime"].as_i64().unwrap(), block["maxTime"].as_i64().unwrap());
        assert!(min < max && block["stats"]["numSamples"].as_u64().unwrap() > 0, "{block}");
    }
    listed.len()
}

fn check_health(server: &Nilometer) {
    let metrics = server.get("/metrics").body;
    for name in ["prometheus_tsdb_wal_corruptions_total", "prometheus_tsdb_mmap_chunk_corruptions_total"] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        assert!(value.is_none_or(|value| value == "0"), "a kill damages nothing: {name} {value:?}");
    }
    let log = server.log();
    for word in ["panicked", "level=error", "ERROR"] {
        let line = log.lines().find(|line| line.contains(word));
        assert!(line.is_none(), "the log says {}", line.unwrap_or_default());
    }
}

#[test]
fn what_was_acknowledged_survives_any_kill_and_nothing_else_does() {
    let rounds = setting("NILOMETER_CRASH_ROUNDS").unwrap_or(8);
    let seed = setting("NILOMETER_CRASH_SEED").unwrap_or_else(|| rand::rng().random());
    let dir = tempfile::tempdir().unwrap().keep();
    println!("seed {seed}, {rounds} rounds, in {}", dir.display());
    std::fs::write(dir.join("nilometer.yml"), CONFIG).unwrap();
    let mut random = StdRng::seed_from_u64(seed);

    // As fast as the time that is there allows, at most a minute a request.
    let step_ms = (PAST_MS / (i64::try_from(rounds).unwrap() * 4000)).clamp(200, 60_000);
    let begin = now_ms() - PAST_MS;
    let time = Arc::new(AtomicI64::new(begin));
    let pending: Arc<[AtomicI64]> = (0..WRITERS).map(|_| AtomicI64::new(i64::MAX)).collect();
    let writer = |id, seed| Writer::new(id, seed, Arc::clone(&time), Arc::clone(&pending), step_ms);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|id| writer(id, random.random())).collect();
    let mut listed = Vec::new();
    for round in 0..rounds {
        let server = start(&dir, &mut random);
        check_health(&server);
        listed.push(blocks(&server));
        for writer in &mut writers {
            writer.settle(&server, round % 20 == 19);
        }
        let how_long = Duration::from_millis(random.random_range(100..2000));
        work(server, &mut writers, how_long);
        let requests: u64 = writers.iter().map(Writer::requests).sum();
        println!("round {round}: {requests} requests acknowledged after {how_long:?}");
    }
    // Once more, and a stop in good order, which forgets nothing either.
    let server = start(&dir, &mut random);
    listed.push(blocks(&server));
    writers.iter_mut().for_each(|writer| writer.settle(&server, true));
    assert!(server.stop(), "SIGTERM ends it in good order");
    let server = Nilometer::start(&dir, &ARGS);
    check_health(&server);
    writers.iter_mut().for_each(|writer| writer.settle(&server, true));
    let samples: usize = writers.iter().map(Writer::samples).sum();
    let deletions: u64 = writers.iter().map(Writer::deletions).sum();
    let metrics = server.get("/metrics").body;
    let metric = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or("?").to_owned()
    };
    println!(
        "{samples} samples proved, {deletions} deletions, {} blocks, {} series in the head",
        metric("prometheus_tsdb_blocks_loaded"),
        metric("prometheus_tsdb_head_series")
    );
    assert!(samples > 1000 && metric("prometheus_tsdb_blocks_loaded") != "0", "there was load");
    // Each number was asked for behind a kill: blocks came while the server ran and was killed, and were proved by queries.
    assert!(listed.first() == Some(&0) && listed.last() > Some(&0), "blocks appear under load: {listed:?}");
    drop(server);
    // Only now: a failure keeps it.
    std::fs::remove_dir_all(&dir).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the server refuses what is in its future")]
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
