//! Just enough of remote write 1.0 to give a server a past.

use std::collections::BTreeMap;

use super::http::{Answer, send};

/// A series and its samples, as (milliseconds, value).
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub samples: Vec<(i64, f64)>,
}

impl Series {
    pub fn new(labels: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) -> Self {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { labels, samples: samples.into_iter().collect() }
    }
}

/// Sends all of `series` in one request.
pub fn write(port: u16, series: &[Series]) -> Option<Answer> {
    let message: Vec<u8> = series.iter().flat_map(|series| field(1, &encode(series))).collect();
    let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    let headers = [("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf")];
    send(port, "POST", "/api/v1/write", &headers, &body)
}

fn encode(series: &Series) -> Vec<u8> {
    let labels = series.labels.iter().flat_map(|(name, value)| {
        field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
    });
    let samples = series.samples.iter().flat_map(|(t, v)| {
        let mut body = vec![1 << 3 | 1];
        body.extend_from_slice(&v.to_le_bytes());
        body.push(2 << 3);
        varint(&mut body, t.cast_unsigned());
        field(2, &body)
    });
    labels.chain(samples).collect()
}

fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
