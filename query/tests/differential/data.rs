//! Generated series: native histograms as they grow, begin anew and change their shape; floats among them.

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint};
use model::{Labels, stale_nan};
use proptest::prelude::*;

use crate::reference::{Data, Hist, Sample, Value};

/// What happens to a series between two samples.
#[derive(Clone, Debug)]
enum Event {
    /// Values are seen, so many times.
    Observe(Vec<(f64, u8)>),
    /// Everything begins anew.
    Reset,
    /// A value that is none.
    Nan,
    /// A value beyond all buckets.
    Infinite,
    /// Another resolution; a finer one begins anew.
    Schema(i32),
    /// Another zero bucket; a smaller one begins anew.
    Threshold(f64),
    /// Other custom bounds.
    Bounds(usize),
    /// Exponential buckets become custom ones, or the other way round.
    Kind,
    /// Empty buckets beside those there are.
    Padding,
    /// A float instead.
    Float(u32),
    /// The series ends, by a float or a histogram.
    Stale(bool),
    /// Nothing, but the writer says that the counter began anew.
    SaysReset,
}

const BOUNDS: [&[f64]; 6] =
    [&[1.0, 2.5, 5.0], &[1.0, 5.0], &[0.0, 1.0, 2.5, 5.0, 10.0], &[-2.0, 0.0, 3.0], &[2.0, 4.0], &[]];

fn value() -> impl Strategy<Value = f64> {
    let values = vec![0.0, 0.25, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.5, 12.0, 100.0];
    (prop::sample::select(values), prop::bool::weighted(0.25))
        .prop_map(|(v, negative)| if negative { -v } else { v })
}

fn event(rare: u32) -> impl Strategy<Value = Event> {
    prop_oneof![
        30 => prop::collection::vec((value(), 1u8..6), 0..4).prop_map(Event::Observe),
        3 => Just(Event::Reset),
        rare => (-4i32..=8).prop_map(Event::Schema),
        rare => (-1i32..=2).prop_map(Event::Schema),
        rare => prop::sample::select(vec![0.0, 0.5, 1.0, 2.0, 0.3]).prop_map(Event::Threshold),
        2 * rare => (0..BOUNDS.len()).prop_map(Event::Bounds),
        1 => Just(Event::Padding),
        1 => any::<bool>().prop_map(Event::Stale),
        rare => Just(Event::SaysReset),
        rare => prop_oneof![
            4 => (0u32..50).prop_map(Event::Float),
            1 => Just(Event::Kind),
            1 => Just(Event::Nan),
            1 => Just(Event::Infinite),
        ],
    ]
}

/// What a series is like from its beginning.
#[derive(Clone, Copy, Debug)]
struct Nature {
    schema: i32,
    bounds: usize,
    threshold: f64,
    gauge: bool,
}

fn nature(gauge: f64) -> impl Strategy<Value = Nature> {
    let schema = prop_oneof![6 => -1i32..=2, 1 => -4i32..=8];
    let threshold = prop::sample::select(vec![0.0, 0.0, 0.5, 0.001]);
    (schema, 0usize..4, threshold, prop::bool::weighted(gauge))
        .prop_map(|(schema, bounds, threshold, gauge)| Nature { schema, bounds, threshold, gauge })
}

fn observe(h: &mut Hist, value: f64, times: f64) {
    h.count += times;
    h.sum += value * times;
    if h.is_custom() || value > h.threshold {
        *h.positive.entry(h.index_of(value)).or_default() += times;
    } else if value < -h.threshold {
        *h.negative.entry(h.index_of(-value)).or_default() += times;
    } else {
        h.zero += times;
    }
}

fn grow(nature: Nature, custom: bool, events: Vec<(i64, Event, Option<i64>)>) -> Vec<Sample> {
    let hint = if nature.gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
    let fresh = |schema: i32, bounds: &[f64], threshold: f64| {
        let mut h = Hist::empty(schema, bounds);
        if schema != CUSTOM_BUCKETS_SCHEMA {
            h.threshold = threshold;
        }
        h.hint = hint;
        h
    };
    let of_kind = |custom: bool| match custom {
        true => fresh(CUSTOM_BUCKETS_SCHEMA, BOUNDS[nature.bounds], 0.0),
        false => fresh(nature.schema, &[], nature.threshold),
    };
    let mut h = of_kind(custom);
    let mut t = 0;
    let mut out = Vec::new();
    for (gap, event, start) in events {
        t += gap;
        let mut written = None;
        h.hint = hint;
        match event {
            Event::Observe(values) => values.iter().for_each(|(v, n)| observe(&mut h, *v, f64::from(*n))),
            Event::Reset => {
                h = fresh(h.schema, &h.bounds.clone(), h.threshold);
                observe(&mut h, 1.5, 2.0);
            }
            Event::Nan => {
                h.count += 1.0;
                h.sum = f64::NAN;
            }
            Event::Infinite if h.is_custom() => observe(&mut h, f64::INFINITY, 1.0),
            Event::Infinite => observe(&mut h, 1e300, 1.0),
            Event::Schema(_) if h.is_custom() => {}
            Event::Schema(schema) if schema <= h.schema => {
                let hint = h.hint;
                h = h.at_schema(schema);
                h.hint = hint;
            }
            Event::Schema(schema) => h = fresh(schema, &[], h.threshold),
            Event::Threshold(_) if h.is_custom() => {}
            Event::Threshold(threshold) if threshold > h.threshold => h.widen_zero(threshold),
            Event::Threshold(threshold) => h = fresh(h.schema, &[], threshold),
            Event::Bounds(_) if !h.is_custom() => {}
            Event::Bounds(at) => {
                let (count, sum) = (h.count, h.sum);
                h = fresh(CUSTOM_BUCKETS_SCHEMA, BOUNDS[at], 0.0);
                // As many as before, elsewhere.
                observe(&mut h, 1.0, count + 1.0);
                h.sum = sum + 1.0;
            }
            Event::Kind => h = of_kind(!h.is_custom()),
            Event::Padding => {
                let ends: Vec<i32> = h.positive.keys().flat_map(|at| [at - 1, at + 1]).collect();
                let fits = |at: &i32| !h.is_custom() || (0..=h.bounds.len() as i32).contains(at);
                let ends: Vec<i32> = ends.into_iter().filter(fits).collect();
                for at in ends {
                    h.positive.entry(at).or_default();
                }
            }
            Event::Float(v) => written = Some(Value::Float(f64::from(v))),
            Event::Stale(true) => written = Some(Value::Float(stale_nan())),
            Event::Stale(false) => {
                let mut gone = Hist::empty(h.schema, &h.bounds);
                gone.sum = stale_nan();
                written = Some(Value::Histogram(gone));
            }
            Event::SaysReset if nature.gauge => {}
            Event::SaysReset => h.hint = CounterResetHint::CounterReset,
        }
        let value = written.unwrap_or_else(|| Value::Histogram(h.clone()));
        let start = start.map_or(0, |ago| (t - ago).max(1));
        out.push(Sample { t, start, value });
    }
    out
}

fn series(custom: bool, rare: u32, gauge: f64) -> impl Strategy<Value = Vec<Sample>> {
    let gap = prop_oneof![10 => Just(15_000i64), 3 => 1i64..40_000, 1 => 100_000i64..700_000];
    let start = prop_oneof![
        3 => Just(None),
        3 => prop::sample::select(vec![15_000i64, 7_000, 0, 1, 30_000, -5_000]).prop_map(Some),
    ];
    let events = prop::collection::vec((gap, event(rare), start), 1..45);
    let late = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3);
    (nature(gauge), events, late).prop_map(move |(nature, events, late)| {
        let mut samples = grow(nature, custom, events);
        // Some are written again, at the time of others; some late.
        for (from, to) in late {
            let (from, to) = (from.index(samples.len()), to.index(samples.len()));
            if from < to {
                let again = Sample { t: samples[to].t, ..samples[from].clone() };
                samples.push(again);
            } else {
                samples.swap(from, to);
            }
        }
        samples
    })
}

fn floats() -> impl Strategy<Value = Vec<Sample>> {
    let step = (prop_oneof![8 => Just(15_000i64), 2 => 1i64..90_000], 0u32..30, prop::bool::weighted(0.05));
    prop::collection::vec((step, prop::option::weighted(0.5, 1i64..40_000)), 1..45).prop_map(|steps| {
        let (mut t, mut total) = (0, 0.0);
        let sample = |((gap, v, stale), start): ((i64, u32, bool), Option<i64>)| {
            t += gap;
            total = if v == 0 { 0.0 } else { total + f64::from(v) };
            let value = Value::Float(if stale { stale_nan() } else { total });
            Sample { t, start: start.map_or(0, |ago| (t - ago).max(1)), value }
        };
        steps.into_iter().map(sample).collect()
    })
}

fn labels(name: &str, job: &str, instance: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", job), ("instance", instance)])
}

/// Series of every nature: `h` exponential, `c` custom, `m` of all kinds, `g` gauges, `x_total` and `y` floats, `le` both
/// classic and native.
pub(crate) fn histograms() -> impl Strategy<Value = Data> {
    let places = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "")];
    let named = |name: &'static str, places: Vec<(&'static str, &'static str)>| {
        places.into_iter().map(move |(job, instance)| labels(name, job, instance)).collect::<Vec<_>>()
    };
    let some = |series: BoxedStrategy<Vec<Sample>>, names: Vec<Labels>, share: f64| {
        let count = names.len();
        prop::collection::vec(prop::option::weighted(share, series), count).prop_map(move |all| {
            names.iter().cloned().zip(all).filter_map(|(l, s)| Some((l, s?))).collect::<Vec<_>>()
        })
    };
    let classic: Vec<Labels> =
        ["1", "5", "+Inf", "bad"].iter().map(|le| labels("le", "a", "1").with("le", le)).collect();
    let infos: Vec<Labels> = places
        .iter()
        .map(|(job, instance)| {
            labels("target_info", job, instance).with("version", job).with("zone", instance)
        })
        .chain([
            labels("target_info", "a", "1").with("version", "other"),
            labels("build_info", "b", "1").with("branch", "main"),
        ])
        .collect();
    (
        some(series(false, 1, 0.05).boxed(), named("h", places.to_vec()), 0.8),
        some(series(true, 1, 0.05).boxed(), named("c", places.to_vec()), 0.8),
        (
            some(series(false, 4, 0.2).boxed(), named("m", places[..2].to_vec()), 0.8),
            some(series(true, 4, 0.2).boxed(), named("m", places[2..].to_vec()), 0.8),
        ),
        some(series(false, 1, 1.0).boxed(), named("g", places[..3].to_vec()), 0.8),
        some(
            floats().boxed(),
            [named("x_total", places.to_vec()), named("y", places[1..].to_vec())].concat(),
            0.8,
        ),
        (
            some(floats().boxed(), classic, 0.8),
            some(series(false, 1, 0.0).boxed(), named("le", places[..2].to_vec()), 0.5),
        ),
        some(floats().boxed(), infos, 0.5),
    )
        .prop_map(|(h, c, (m, n), g, floats, (classic, native), infos)| {
            [h, c, m, n, g, floats, classic, native, infos].concat().into_iter().collect()
        })
}
