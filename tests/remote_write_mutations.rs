//! The fuzz target of remote write over mutations of sound requests, with the same choices in every run: what a machine
//! without a fuzzer can do. `NILOMETER_MUTATIONS` says how many (ten thousand is the short form of the cheapest target; a
//! request costs thirty of those).

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library, included")]
mod target;

#[path = "../tsdb/src/fuzz/mutate.rs"]
mod mutate;

use mutate::{Random, mutate};

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Length-delimited.
fn field(number: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, number << 3 | 2);
    varint(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    out
}

fn number(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, number << 3);
    varint(&mut out, value);
    out
}

fn double(number: u64, value: f64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
    out
}

fn packed(number: u64, values: &[u64]) -> Vec<u8> {
    let mut body = Vec::new();
    values.iter().for_each(|value| varint(&mut body, *value));
    field(number, &body)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn sample(t: i64, v: f64) -> Vec<u8> {
    [double(1, v), number(2, t.cast_unsigned())].concat()
}

/// The same in both versions.
fn histogram(t: i64) -> Vec<u8> {
    let span = |offset, length| [number(1, zigzag(offset)), number(2, length)].concat();
    [
        number(1, 8),
        double(3, 2.5),
        number(4, zigzag(1)),
        double(5, 1e-9),
        number(6, 1),
        field(8, &span(0, 1)),
        packed(9, &[zigzag(2)]),
        field(11, &span(-1, 2)),
        packed(12, &[zigzag(2), zigzag(1)]),
        number(15, t.cast_unsigned()),
    ]
    .concat()
}

/// A request of version 1.0 with everything in it.
fn version_1() -> Vec<u8> {
    let label =
        |name: &str, value: &str| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
    let series = |name: &str, parts: &[Vec<u8>]| {
        let labels = [label("__name__", name), label("job", "fuzz")].concat();
        field(1, &[labels, parts.concat()].concat())
    };
    let exemplar = [label("trace", "1"), double(2, 1.0), number(3, 1000)].concat();
    let metadata = [number(1, 1), field(2, b"floats"), field(4, b"Help."), field(5, b"s")].concat();
    let floats = [field(2, &sample(1000, 1.5)), field(2, &sample(2000, f64::NAN)), field(3, &exemplar)];
    [
        series("floats", &floats),
        series("histograms", &[field(4, &histogram(1000)), field(4, &histogram(2000))]),
        field(3, &metadata),
    ]
    .concat()
}

/// A request of version 2.0 with everything in it.
fn version_2() -> Vec<u8> {
    let symbols = ["", "__name__", "floats", "histograms", "job", "fuzz", "Help.", "s", "trace"];
    let symbols: Vec<u8> = symbols.iter().flat_map(|symbol| field(4, symbol.as_bytes())).collect();
    let exemplar = [packed(1, &[8, 5]), double(2, 1.0), number(3, 1000)].concat();
    let metadata = [number(1, 1), number(3, 6), number(4, 7)].concat();
    let start = |t: i64, v: f64| [sample(t, v), number(3, 500)].concat();
    let floats = [
        packed(1, &[1, 2, 4, 5]),
        field(2, &start(1000, 1.5)),
        field(2, &start(2000, -0.0)),
        field(4, &exemplar),
        field(5, &metadata),
    ];
    let histograms = [packed(1, &[1, 3, 4, 5]), field(3, &histogram(1000)), number(6, 500)];
    [symbols, field(5, &floats.concat()), field(5, &histograms.concat())].concat()
}

#[test]
fn any_request_is_taken_or_refused_as_a_whole() {
    let mutations =
        std::env::var("NILOMETER_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000u32);
    let plain = [version_1(), version_2()];
    let block = |message: &Vec<u8>| snap::raw::Encoder::new().compress_vec(message).unwrap_or_default();
    let seeds: Vec<Vec<u8>> = plain.iter().cloned().chain(plain.iter().map(block)).collect();
    for seed in &seeds {
        assert!(target::remote_write(seed) >= 3, "a sound request");
    }
    let mut random = Random::new(1);
    for _ in 0..mutations / 30 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &seeds, &mut random);
        let input = bytes.clone();
        if std::panic::catch_unwind(move || target::remote_write(&bytes)).is_err() {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("it panicked on {hex}");
        }
    }
}
