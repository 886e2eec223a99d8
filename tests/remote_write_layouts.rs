//! Remote write into a real store, whatever the sender does to its requests: cuts that drift, orders that change, series that
//! come and go, repeated requests, restarts, many connections. What was acknowledged is there, bit for bit.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::matcher::{MatchOp, Matcher};
use model::sample::TimeRange;
use model::storage::{Append, Queryable, SelectHints, SeriesColumns};
use model::{Clock, ManualClock};
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use remote::write::{Receiver, ReceiverOptions};
use tsdb::fs::{FaultyFs, FileSystem};
use tsdb::{Db, DbOptions};

const NOW: i64 = 1_700_000_000_000;

type Content = BTreeMap<String, BTreeMap<i64, u64>>;

struct Server {
    fs: FaultyFs,
    clock: Arc<ManualClock>,
    registry: Registry,
    db: Arc<Db>,
    receiver: Receiver,
}

impl Server {
    fn start(fs: FaultyFs) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let mut options = DbOptions::new("/data", Arc::clone(&clock) as Arc<dyn Clock>);
        options.retention = Duration::ZERO;
        options.lock = false;
        let registry = Registry::new();
        let files: Arc<dyn FileSystem> = Arc::new(fs.clone());
        let db = Db::open(options, &registry, files).unwrap();
        let append = Arc::clone(&db) as Arc<dyn Append>;
        let receiver =
            Receiver::new(append, Arc::clone(&clock) as _, 7, ReceiverOptions::default(), &registry).unwrap();
        Self { fs, clock, registry, db, receiver }
    }

    fn restart(self) -> Self {
        let Self { fs, db, receiver, .. } = self;
        drop(receiver);
        drop(db);
        Self::start(fs)
    }

    fn content(&self) -> Content {
        let querier = self.db.querier(TimeRange::ALL).unwrap();
        let all = Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap();
        let set = querier.select(&[all], &SelectHints::default()).unwrap();
        let mut columns = SeriesColumns::default();
        let mut content = Content::new();
        for index in 0..set.len() {
            set.read(index, &mut columns).unwrap();
            let bits = columns.float_values.iter().map(|v| v.to_bits());
            let samples: BTreeMap<i64, u64> = columns.float_times.iter().copied().zip(bits).collect();
            if !samples.is_empty() {
                content.insert(set.labels(index).metric_name().to_owned(), samples);
            }
        }
        content
    }

    /// The value of a metric, all its series together.
    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        family.get_metric().iter().map(value).sum()
    }

    fn road(&self, road: &str) -> f64 {
        let families = self.registry.gather();
        let family =
            families.iter().find(|family| family.name() == "nilometer_remote_write_samples_total").unwrap();
        let of_road = family.get_metric().iter().find(|metric| metric.get_label()[0].value() == road);
        of_road.map_or(0.0, |metric| metric.get_counter().get_value())
    }
}

/// A sample on its way: series, time, value.
type Sample = (String, i64, f64);

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn message(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    out
}

fn body(samples: &[Sample]) -> Vec<u8> {
    let label = |name: &str, value: &str| {
        message(1, &[message(1, name.as_bytes()), message(2, value.as_bytes())].concat())
    };
    let mut request = Vec::new();
    for (name, t, v) in samples {
        let mut sample = Vec::new();
        if v.to_bits() != 0 {
            sample.push(1 << 3 | 1);
            sample.extend_from_slice(&v.to_le_bytes());
        }
        sample.push(2 << 3);
        varint(&mut sample, t.cast_unsigned());
        let series = [label("__name__", name), label("job", "j"), message(2, &sample)].concat();
        request.extend(message(1, &series));
    }
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

/// A sender of a few targets with changing series and habits.
struct Sender {
    rng: StdRng,
    prefix: String,
    targets: Vec<Vec<String>>,
    made: usize,
    sent: Vec<Vec<Sample>>,
    want: Content,
}

impl Sender {
    fn new(seed: u64, prefix: &str) -> Self {
        let mut sender = Self {
            rng: StdRng::seed_from_u64(seed),
            prefix: prefix.to_owned(),
            targets: vec![Vec::new(); 4],
            made: 0,
            sent: Vec::new(),
            want: Content::new(),
        };
        for target in 0..4 {
            for _ in 0..sender.rng.random_range(1..60) {
                sender.add(target, usize::MAX);
            }
        }
        sender
    }

    fn add(&mut self, target: usize, at: usize) {
        let name = format!("{}{target}_{}", self.prefix, self.made);
        self.made += 1;
        let at = at.min(self.targets[target].len());
        self.targets[target].insert(at, name);
    }

    /// One scrape of each target, changed a little now and then.
    fn step(&mut self, step: i64) -> Vec<Sample> {
        let mut samples = Vec::new();
        for target in 0..self.targets.len() {
            match self.rng.random_range(0..20) {
                0 => {
                    let at = self.rng.random_range(0..=self.targets[target].len());
                    self.add(target, at);
                }
                1 if self.targets[target].len() > 1 => {
                    let at = self.rng.random_range(0..self.targets[target].len());
                    self.targets[target].remove(at);
                }
                2 => self.targets[target].shuffle(&mut self.rng),
                _ => {}
            }
            // Now and then two targets are scraped in the same millisecond.
            let t = NOW + step * 1000 + target as i64 * self.rng.random_range(0..3);
            for name in &self.targets[target] {
                let v = match self.rng.random_range(0..6) {
                    0 => f64::from_bits(model::sample::STALE_NAN_BITS),
                    1 => -0.0,
                    n => f64::from(n) * step as f64,
                };
                samples.push((name.clone(), t, v));
            }
        }
        if self.rng.random_range(0..30) == 0 {
            samples.shuffle(&mut self.rng);
        }
        samples
    }

    /// Sends steps `from..to` in requests that cut them anywhere; some are sent again.
    fn send(&mut self, receiver: &Receiver, steps: std::ops::Range<i64>) {
        let mut queue: Vec<Sample> = Vec::new();
        for step in steps {
            let samples = self.step(step);
            queue.extend(samples);
            if self.rng.random_range(0..3) == 0 {
                continue;
            }
            while !queue.is_empty() {
                let size = self.rng.random_range(1..150).min(queue.len());
                let request: Vec<Sample> = queue.drain(..size).collect();
                self.request(receiver, request);
            }
        }
        if !queue.is_empty() {
            self.request(receiver, queue);
        }
    }

    fn request(&mut self, receiver: &Receiver, request: Vec<Sample>) {
        let written = receiver.write_v1(&body(&request)).unwrap();
        assert_eq!(written.samples, request.len() as u64);
        for (name, t, v) in &request {
            self.want.entry(name.clone()).or_default().insert(*t, v.to_bits());
        }
        if self.rng.random_range(0..8) == 0 {
            let index = self.rng.random_range(0..=self.sent.len());
            // An answer was lost: the same again, at once or late, is taken and changes nothing.
            let again = self.sent.get(index).unwrap_or(&request);
            assert_eq!(receiver.write_v1(&body(again)).unwrap().samples, again.len() as u64);
        }
        self.sent.push(request);
        if self.sent.len() > 5 {
            self.sent.remove(0);
        }
    }
}

#[test]
fn whatever_the_sender_does_what_it_sent_is_there() {
    let (mut rows, mut references) = (0.0, 0.0);
    for seed in 0..8 {
        let mut server = Server::start(FaultyFs::new());
        let mut sender = Sender::new(seed, "m");
        for part in 0..4 {
            sender.send(&server.receiver, part * 60..part * 60 + 60);
            assert_eq!(server.content(), sender.want, "seed {seed}, part {part}");
            rows += server.road("row");
            references += server.road("reference");
            // Time goes by, so that what does not come any more is let go of.
            server.clock.set(NOW + (part + 1) * 60_000);
            if part % 2 == 1 {
                server = server.restart();
                server.clock.set(NOW + (part + 1) * 60_000);
                assert_eq!(server.content(), sender.want, "seed {seed}, part {part}, restarted");
            }
        }
    }
    // Both roads are taken, although the sender changes its mind all the time.
    assert!(rows > references / 2.0 && references > rows / 20.0, "{rows} and {references}");
}

#[test]
fn many_connections_at_a_time() {
    let server = Server::start(FaultyFs::new());
    let mut senders: Vec<Sender> =
        (0..4).map(|n| Sender::new(100 + n, ["a", "b", "c", "d"][n as usize])).collect();
    std::thread::scope(|scope| {
        for sender in &mut senders {
            let receiver = &server.receiver;
            scope.spawn(move || sender.send(receiver, 0..120));
        }
    });
    let mut want = Content::new();
    senders.into_iter().for_each(|sender| want.extend(sender.want));
    assert_eq!(server.content(), want);
    let server = server.restart();
    assert_eq!(server.content(), want);
}

/// One target, sent as a whole, each time in two requests that are cut elsewhere.
#[test]
fn runs_become_rows_and_disorder_ends_them() {
    let server = Server::start(FaultyFs::new());
    let mut rng = StdRng::seed_from_u64(1);
    let mut names: Vec<String> = (0..500).map(|n| format!("m_{n}")).collect();
    let mut want = Content::new();
    let mut send = |names: &[String], step: i64, cut: usize| {
        let t = NOW + step * 1000;
        let samples: Vec<Sample> = names.iter().map(|name| (name.clone(), t, step as f64)).collect();
        for part in [&samples[..cut], &samples[cut..]] {
            server.receiver.write_v1(&body(part)).unwrap();
            for (name, t, v) in part {
                want.entry(name.clone()).or_default().insert(*t, v.to_bits());
            }
        }
    };
    for step in 0..50 {
        send(&names, step, 100 + 7 * step as usize % 300);
    }
    assert!(server.road("row") >= 500.0 * 45.0, "{} samples in rows", server.road("row"));
    assert_eq!(server.road("labels"), 0.0, "new series of one target are a layout at once");
    let before = server.road("row");
    // From now on each of many requests holds a few samples of the target, at times of their own.
    for step in 50..90 {
        names.shuffle(&mut rng);
        let t = NOW + step * 1000;
        let samples: Vec<Sample> =
            names.iter().zip(0i64..).map(|(name, n)| (name.clone(), t + n % 50, step as f64)).collect();
        server.receiver.write_v1(&body(&samples)).unwrap();
        for (name, t, v) in samples {
            want.entry(name).or_default().insert(t, v.to_bits());
        }
    }
    assert_eq!(server.metric("nilometer_remote_write_layouts"), 0.0, "given up");
    assert!(server.road("row") < before + 200.0, "but for what touches a request's edge");
    assert_eq!(server.content(), want);
}

/// New series in one request, some of them twice: at the same time with the same value, and at a later time.
#[test]
fn new_series_that_come_twice_have_all_their_samples() {
    let server = Server::start(FaultyFs::new());
    let sample = |n: i64, step: i64| (format!("m_{n}"), NOW + step * 1000, (n + step) as f64);
    let first = (0..100).map(|n| sample(n, 0));
    let again = (30..100).map(|n| sample(n, 0));
    let later = (0..100).map(|n| sample(n, 1));
    let samples: Vec<Sample> = first.chain(again).chain(later).collect();
    server.receiver.write_v1(&body(&samples)).unwrap();
    let mut want = Content::new();
    for (name, t, v) in samples {
        want.entry(name).or_default().insert(t, v.to_bits());
    }
    assert_eq!(server.content(), want);
    let server = server.restart();
    assert_eq!(server.content(), want);
}

#[test]
fn what_does_not_come_any_more_is_let_go_of() {
    let server = Server::start(FaultyFs::new());
    let target = |target: usize, step: i64| -> Vec<Sample> {
        let t = NOW + step * 1000;
        (0..100).map(|n| (format!("m_{target}_{n}"), t, n as f64)).collect()
    };
    for step in 0..5 {
        for n in 0..20 {
            server.receiver.write_v1(&body(&target(n, step))).unwrap();
        }
    }
    assert_eq!(server.metric("nilometer_remote_write_layouts"), 20.0);
    assert_eq!(server.metric("nilometer_remote_write_cache_entries"), 2000.0);
    for minute in 1..30 {
        server.clock.set(NOW + minute * 61_000);
        // Of target 1 a tenth goes.
        let mut left = target(1, minute * 61);
        left.truncate(90);
        for request in [target(0, minute * 61), left] {
            server.receiver.write_v1(&body(&request)).unwrap();
        }
    }
    assert_eq!(server.metric("nilometer_remote_write_layouts"), 2.0);
    assert_eq!(server.metric("nilometer_remote_write_cache_entries"), 190.0);
    // Nobody sends any more: the server looks every few seconds, most of the time in vain.
    for second in (1830..2600).step_by(5) {
        server.clock.set(NOW + second * 1000);
        server.receiver.maintain();
        if second < 29 * 61 + 10 * 60 {
            assert_eq!(server.metric("nilometer_remote_write_layouts"), 2.0, "{second}");
        }
    }
    assert_eq!(server.metric("nilometer_remote_write_layouts"), 0.0);
    assert_eq!(server.metric("nilometer_remote_write_layouts_closed_total"), 20.0);
}
