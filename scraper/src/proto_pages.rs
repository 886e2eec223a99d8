//! Writes pages of delimited protobuf for tests, field by field.

/// A varint.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn field(number: u64, wire_type: u64, rest: &[u8]) -> Vec<u8> {
    [varint(number << 3 | wire_type), rest.to_vec()].concat()
}

/// An integer field.
pub(crate) fn int(number: u64, value: u64) -> Vec<u8> {
    field(number, 0, &varint(value))
}

/// A `sint` field.
pub(crate) fn sint(number: u64, value: i64) -> Vec<u8> {
    int(number, zigzag(value))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// A `double` field.
pub(crate) fn double(number: u64, value: f64) -> Vec<u8> {
    field(number, 1, &value.to_bits().to_le_bytes())
}

/// A message, string, or packed field.
pub(crate) fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
    field(number, 2, &[varint(content.len() as u64), content.to_vec()].concat())
}

/// A message field of several parts.
pub(crate) fn message(number: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    bytes(number, &parts.concat())
}

/// A packed field of `sint`s.
pub(crate) fn packed(number: u64, values: &[i64]) -> Vec<u8> {
    bytes(number, &values.iter().flat_map(|value| varint(zigzag(*value))).collect::<Vec<_>>())
}

/// A packed field of `double`s.
pub(crate) fn packed_doubles(number: u64, values: &[f64]) -> Vec<u8> {
    bytes(number, &values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect::<Vec<_>>())
}

/// A label, in a metric or an exemplar.
pub(crate) fn label(name: &str, value: &str) -> Vec<u8> {
    message(1, &[bytes(1, name.as_bytes()), bytes(2, value.as_bytes())])
}

/// A span of buckets: field 9 for negative, 12 for positive ones.
pub(crate) fn span(number: u64, offset: i64, length: u64) -> Vec<u8> {
    message(number, &[sint(1, offset), int(2, length)])
}

/// An exemplar as field `number`, with a time in seconds unless that is negative.
pub(crate) fn exemplar(number: u64, trace: &str, value: f64, seconds: i64) -> Vec<u8> {
    let time = if seconds < 0 { Vec::new() } else { message(3, &[int(1, seconds as u64)]) };
    message(number, &[label("trace_id", trace), double(2, value), time])
}

/// A classic bucket.
pub(crate) fn bucket(bound: f64, count: u64, exemplar: &[u8]) -> Vec<u8> {
    message(3, &[int(1, count), double(2, bound), exemplar.to_vec()])
}

/// A family with its length before it; `metrics` are parts of a metric each.
pub(crate) fn family(name: &str, number: u64, metrics: &[&[Vec<u8>]]) -> Vec<u8> {
    let metrics: Vec<Vec<u8>> = metrics.iter().map(|parts| message(4, parts)).collect();
    delimited(&[bytes(1, name.as_bytes()), bytes(2, b"Help."), int(3, number), metrics.concat()])
}

/// A message with its length before it.
pub(crate) fn delimited(parts: &[Vec<u8>]) -> Vec<u8> {
    let message = parts.concat();
    [varint(message.len() as u64), message].concat()
}

/// Numbers of the types.
pub(crate) const COUNTER: u64 = 0;
pub(crate) const GAUGE: u64 = 1;
pub(crate) const SUMMARY: u64 = 2;
pub(crate) const UNTYPED: u64 = 3;
pub(crate) const HISTOGRAM: u64 = 4;
pub(crate) const GAUGE_HISTOGRAM: u64 = 5;
