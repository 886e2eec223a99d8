//! One sender: writes series of its own, one request after the other, and keeps a ledger of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::http::{encoded, send};
use crate::support::nilometer::Nilometer;
use crate::support::pause;
use crate::support::remote_write::{Series, write};

/// Series that come in every request.
const ROW: usize = 30;

/// Out-of-order samples are up to this much behind; the server's window is an hour.
const LATE_MS: i64 = 40 * 60_000;

/// How far time goes on while a request is under way: with the above, less than the server's window.
const AHEAD_MS: i64 = 15 * 60_000;

/// What is recent enough to be checked after every kill: more than any request under way may have touched.
const RECENT_MS: i64 = 3 * 3_600_000;

/// Deletions stay clear of what may still come late.
const SETTLED_MS: i64 = 2 * 3_600_000;

/// Metric name and `series` label.
type Key = (&'static str, String);

/// Bits of values by time, by series.
type Ledger = BTreeMap<Key, BTreeMap<i64, u64>>;

/// What is under way.
#[derive(Clone, Debug)]
enum Request {
    Write(Vec<(Key, Vec<(i64, f64)>)>),
    /// Series of this name and number, samples from and to (both included).
    Delete(Key, i64, i64),
}

impl Request {
    fn apply(&self, ledger: &mut Ledger) {
        match self {
            Self::Write(series) => {
                for (key, samples) in series {
                    let bits = samples.iter().map(|(t, v)| (*t, v.to_bits()));
                    ledger.entry(key.clone()).or_default().extend(bits);
                }
            }
            Self::Delete(key, from, to) => {
                if let Some(samples) = ledger.get_mut(key) {
                    samples.retain(|t, _| !(*from..=*to).contains(t));
                }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Writer {
    id: u64,
    random: StdRng,
    /// Simulated time, shared by all.
    time: Arc<AtomicI64>,
    /// For each writer, since when its request is under way; the others do not run away from it.
    pending: Arc<[AtomicI64]>,
    begin: i64,
    step_ms: i64,
    ledger: Ledger,
    under_way: Option<Request>,
    requests: u64,
    deletions: u64,
    can_delete: bool,
}

impl Writer {
    pub(crate) fn new(
        id: u64,
        seed: u64,
        time: Arc<AtomicI64>,
        pending: Arc<[AtomicI64]>,
        step_ms: i64,
    ) -> Self {
        let begin = time.load(Ordering::SeqCst);
        Self {
            id,
            random: StdRng::seed_from_u64(seed),
            time,
            pending,
            begin,
            step_ms,
            ledger: Ledger::new(),
            under_way: None,
            requests: 0,
            deletions: 0,
            can_delete: true,
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    pub(crate) fn deletions(&self) -> u64 {
        self.deletions
    }

    pub(crate) fn samples(&self) -> usize {
        self.ledger.values().map(BTreeMap::len).sum()
    }

    /// Sends until nobody answers any more, which is a surprise before `stop`.
    pub(crate) fn work(&mut self, port: u16, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            let Some(request) = self.next(stop) else { return };
            self.under_way = Some(request.clone());
            if !self.send(port, &request) {
                assert!(stop.load(Ordering::SeqCst), "no answer from a server that was not killed");
                return;
            }
        }
    }

    /// Whether it was acknowledged; then it is in the ledger.
    ///
    /// # Panics
    /// When it was refused.
    fn send(&mut self, port: u16, request: &Request) -> bool {
        let answer = match request {
            Request::Write(series) => {
                let writer = self.id.to_string();
                let series: Vec<Series> = series
                    .iter()
                    .map(|((name, number), samples)| {
                        let labels = [("__name__", *name), ("series", number), ("writer", &writer)];
                        Series::new(&labels, samples.iter().copied())
                    })
                    .collect();
                write(port, &series)
            }
            Request::Delete((name, number), from, to) => {
                let selector = format!("{name}{{writer=\"{}\",series=\"{number}\"}}", self.id);
                let seconds = |t: i64| format!("{}.{:03}", t / 1000, t % 1000);
                let path = format!(
                    "/api/v1/admin/tsdb/delete_series?match[]={}&start={}&end={}",
                    encoded(&selector),
                    seconds(*from),
                    seconds(*to)
                );
                send(port, "POST", &path, &[], b"")
            }
        };
        let Some(answer) = answer else { return false };
        if matches!(request, Request::Delete(..)) && answer.status == 404 {
            self.can_delete = false;
        } else {
            assert!(
                answer.status / 100 == 2,
                "writer {}: {} {}: {request:?}",
                self.id,
                answer.status,
                answer.body
            );
            request.apply(&mut self.ledger);
            self.deletions += u64::from(matches!(request, Request::Delete(..)));
        }
        self.requests += 1;
        self.under_way = None;
        self.mine().store(i64::MAX, Ordering::SeqCst);
        true
    }

    fn mine(&self) -> &AtomicI64 {
        &self.pending[usize::try_from(self.id).unwrap()]
    }

    /// `None`: it is time to stop.
    fn next(&mut self, stop: &AtomicBool) -> Option<Request> {
        self.mine().store(self.time.load(Ordering::SeqCst), Ordering::SeqCst);
        let oldest = || self.pending.iter().map(|pending| pending.load(Ordering::SeqCst)).min();
        while oldest().is_some_and(|oldest| self.time.load(Ordering::SeqCst) - oldest > AHEAD_MS) {
            if stop.load(Ordering::SeqCst) {
                return None;
            }
            pause(Duration::from_millis(1));
        }
        // On a machine that is faster than was reckoned with, time stands nearly still at the present.
        let is_past = self.time.load(Ordering::SeqCst) < self.begin + crate::PAST_MS;
        let now = self.time.fetch_add(if is_past { self.step_ms } else { 1 }, Ordering::SeqCst);
        if self.can_delete && now - self.begin > 2 * SETTLED_MS && self.random.random_ratio(1, 40) {
            let from = self.random.random_range(self.begin..now - SETTLED_MS);
            let to = (from + self.random.random_range(0..SETTLED_MS)).min(now - SETTLED_MS);
            return Some(Request::Delete(
                ("crash_row", self.random.random_range(0..ROW).to_string()),
                from,
                to,
            ));
        }
        let mut series = Vec::new();
        // The same series again and again, in the same order; now and then in another, and not all.
        let shuffled = self.random.random_ratio(1, 10);
        for number in 0..ROW {
            let number = if shuffled { number * 7 % ROW } else { number };
            if !(shuffled && self.random.random_bool(0.3)) {
                let value = self.value(number);
                series.push((("crash_row", number.to_string()), vec![(now, value)]));
            }
        }
        // Late ones, at times of their own: no series has two values at one time.
        if self.random.random_bool(0.5) {
            for number in 0..4 {
                let key = ("crash_late", number.to_string());
                let t = now - self.random.random_range(0..LATE_MS);
                let is_new = self.ledger.get(&key).is_none_or(|samples| !samples.contains_key(&t));
                if is_new && t >= self.begin {
                    series.push((key, vec![(t, self.value(number))]));
                }
            }
        }
        // Series that nobody knows yet, and never hears of again.
        for _ in 0..self.random.random_range(0..3) {
            let key = ("crash_new", format!("{}-{}", self.requests, self.random.random::<u32>()));
            let samples = (0..self.random.random_range(1..4)).map(|i| (now + i, self.value(2))).collect();
            series.push((key, samples));
        }
        Some(Request::Write(series))
    }

    /// Counters, gauges, constants, and everything that is hard to write.
    fn value(&mut self, kind: usize) -> f64 {
        match kind % 6 {
            0 => self.requests as f64,
            1 => (self.random.random_range(0..1000) as f64) / 10.0,
            2 => 42.0,
            3 => f64::from(self.random.random_bool(0.1)),
            _ => match self.random.random_range(0..12) {
                0 => f64::INFINITY,
                1 => f64::NEG_INFINITY,
                2 => f64::NAN,
                3 => -0.0,
                4 => f64::MIN_POSITIVE / 8.0,
                5 => f64::MAX,
                6 => 0.1 + 0.2,
                _ => {
                    let any = f64::from_bits(self.random.random());
                    if any.is_nan() { 1e-7 } else { any }
                }
            },
        }
    }

    /// After a start: finds out what became of the request under way, proves that all else is as it should be, and sends
    /// the request again, as a sender would.
    pub(crate) fn settle(&mut self, server: &Nilometer, all: bool) {
        let now = self.time.load(Ordering::SeqCst);
        self.settle_deletion(server);
        let recent = (now - RECENT_MS, now + self.step_ms.max(1000));
        let found = self.read(server, recent);
        let without = self.expected(recent);
        let mut ledger = self.ledger.clone();
        let under_way = self.under_way.take();
        if let Some(request) = &under_way {
            request.apply(&mut ledger);
        }
        std::mem::swap(&mut self.ledger, &mut ledger);
        let with = self.expected(recent);
        if found == without {
            self.ledger = ledger;
        } else if found != with {
            let what = under_way.as_ref().map_or("nothing was under way", |_| "a request was under way");
            panic!("writer {}, {what}: {}", self.id, differences(&found, &without));
        }
        self.mine().store(i64::MAX, Ordering::SeqCst);
        if let Some(request) = under_way {
            assert!(self.send(server.port, &request), "no answer to a request that is sent again");
            assert_eq!(differences(&self.read(server, recent), &with), "", "sent again");
        }
        let (from, to) = if all {
            (self.begin, now)
        } else {
            let from = self.random.random_range(self.begin..=now);
            (from, from + RECENT_MS)
        };
        // A piece at a time, so that answers stay of a size.
        let mut from = from;
        while from <= to {
            let piece = (from, (from + 24 * 3_600_000).min(to + 1000));
            let (found, want) = (self.read(server, piece), self.expected(piece));
            assert!(found == want, "writer {}, {piece:?}: {}", self.id, differences(&found, &want));
            from = piece.1 + 1;
        }
    }

    /// A deletion that was under way may have come to some samples: it is sent again.
    fn settle_deletion(&mut self, server: &Nilometer) {
        let under_way = self.under_way.clone();
        if let Some(request @ Request::Delete(key, from, to)) = &under_way {
            let range = (*from, *to);
            let only = |ledger: Ledger| ledger.get(key).cloned().unwrap_or_default();
            let (found, want) = (only(self.read(server, range)), only(self.expected(range)));
            let is_part = found.iter().all(|(t, bits)| want.get(t) == Some(bits));
            assert!(is_part, "writer {}: a deletion made samples: {found:?} of {want:?}", self.id);
            assert!(self.send(server.port, request), "no answer to a deletion that is sent again");
        }
    }

    /// The part of the ledger within a range, both ends included, without series that have nothing in it.
    fn expected(&self, range: (i64, i64)) -> Ledger {
        let within = |samples: &BTreeMap<i64, u64>| -> BTreeMap<i64, u64> {
            samples.range(range.0..=range.1).map(|(t, bits)| (*t, *bits)).collect()
        };
        let all = self.ledger.iter().map(|(key, samples)| (key.clone(), within(samples)));
        all.filter(|(_, samples)| !samples.is_empty()).collect()
    }

    /// What the server has in a range, both ends included.
    fn read(&self, server: &Nilometer, range: (i64, i64)) -> Ledger {
        // Range selectors leave out their left end.
        let expr = format!("{{writer=\"{}\"}}[{}ms]", self.id, range.1 - range.0 + 1);
        let path =
            format!("query?query={}&time={}.{:03}", encoded(&expr), range.1 / 1000, range.1.rem_euclid(1000));
        let data = server.api(&path);
        let mut found = Ledger::new();
        for series in data["result"].as_array().unwrap() {
            let name = match series["metric"]["__name__"].as_str().unwrap() {
                "crash_row" => "crash_row",
                "crash_late" => "crash_late",
                "crash_new" => "crash_new",
                other => panic!("nobody wrote {other}"),
            };
            let key = (name, series["metric"]["series"].as_str().unwrap().to_owned());
            let samples = series["values"].as_array().unwrap().iter().map(|point| {
                let t = (point[0].as_f64().unwrap() * 1000.0).round() as i64;
                let value: f64 = point[1].as_str().unwrap().parse().unwrap();
                // There are many NaNs, and one text; the sender's is the ordinary one.
                (t, if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() })
            });
            let samples: BTreeMap<i64, u64> = samples.collect();
            assert!(found.insert(key.clone(), samples).is_none(), "{key:?} is there twice");
        }
        found
    }
}

/// What the first has and the second has not, and the other way round; empty where they agree.
fn differences(found: &Ledger, want: &Ledger) -> String {
    let flat = |ledger: &Ledger| -> BTreeMap<(Key, i64), u64> {
        let all = ledger
            .iter()
            .flat_map(|(key, samples)| samples.iter().map(move |(t, bits)| ((key.clone(), *t), *bits)));
        all.collect()
    };
    let (found, want) = (flat(found), flat(want));
    let missing: Vec<_> = want.iter().filter(|(at, bits)| found.get(at) != Some(bits)).collect();
    let surplus: Vec<_> = found.iter().filter(|(at, bits)| want.get(at) != Some(bits)).collect();
    if missing.is_empty() && surplus.is_empty() {
        return String::new();
    }
    let some = |list: &[(&(Key, i64), &u64)]| {
        let text = |((key, t), bits): &(&(Key, i64), &u64)| {
            format!("{}/{} at {t}: {}", key.0, key.1, f64::from_bits(**bits))
        };
        let shown: Vec<_> = list.iter().take(8).map(text).collect();
        format!("{} ({})", list.len(), shown.join(", "))
    };
    format!(
        "of {} samples, not there as acknowledged: {}; there and not acknowledged: {}",
        want.len(),
        some(&missing),
        some(&surplus)
    )
}
