//! `io.prometheus.write.v2.Request` (remote write 2.0), read in place.
//!
//! Strings stand once in a table of symbols; labels are pairs of references into it. Field numbers are those of
//! Prometheus' `prompb/io/prometheus/write/v2/types.proto`. A reference out of the table's range is an error of the
//! request, never a panic (RELIABILITY: the reference drops the connection there).
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use model::{Exemplar, Labels, Metadata, SampleValue, Timestamp};

use super::v1::{metric_kind, read_histogram};
use crate::protobuf::{DecodeError, Reader};

/// A request: its table of symbols and its series.
#[derive(Debug)]
pub struct Request<'a> {
    symbols: Vec<&'a str>,
    /// Where each begins, and its message.
    series: Vec<(usize, &'a [u8])>,
}

/// One `TimeSeries`, its parts not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct TimeSeries<'a> {
    symbols: &'a [&'a str],
    message: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads the table of symbols and where the series stand.
    ///
    /// # Errors
    /// When the bytes are no such request, or a symbol is no UTF-8.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut request = Self { symbols: Vec::new(), series: Vec::new() };
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.next_field()? {
            match field.number {
                4 => request.symbols.push(field.string()?),
                5 => {
                    let message = field.bytes()?;
                    request.series.push((reader.position() - message.len(), message));
                }
                _ => {}
            }
        }
        Ok(request)
    }

    /// The series in the order of the request.
    pub fn series(&self) -> impl Iterator<Item = TimeSeries<'_>> {
        self.series.iter().map(|(_, message)| TimeSeries { symbols: &self.symbols, message })
    }

    /// The table of symbols.
    pub(super) fn symbols(&self) -> &[&'a str] {
        &self.symbols
    }

    /// Where each series' message begins in the request, and the message.
    pub(super) fn messages(&self) -> impl Iterator<Item = (usize, &'a [u8])> {
        self.series.iter().copied()
    }

    /// The series that has this message.
    pub(super) fn series_of<'b>(&'b self, message: &'b [u8]) -> TimeSeries<'b> {
        TimeSeries { symbols: &self.symbols, message }
    }
}

impl<'a> TimeSeries<'a> {
    /// The pairs as sent.
    ///
    /// # Errors
    /// When the message is malformed or a reference leads nowhere.
    pub fn label_pairs(&self) -> Result<Vec<(&'a str, &'a str)>, DecodeError> {
        let mut references = Vec::with_capacity(32);
        let mut reader = Reader::new(self.message);
        while let Some(field) = reader.next_field()? {
            if field.number == 1 {
                read_references(field.bytes()?, &mut references)?;
            }
        }
        self.resolve(&references)
    }

    fn resolve(&self, references: &[u64]) -> Result<Vec<(&'a str, &'a str)>, DecodeError> {
        let symbol = |reference: &u64| {
            let index = usize::try_from(*reference).unwrap_or(usize::MAX);
            self.symbols.get(index).copied().ok_or(DecodeError::SymbolOutOfRange(*reference))
        };
        let mut pairs = Vec::with_capacity(references.len() / 2);
        for pair in references.chunks(2) {
            match pair {
                [name, value] => pairs.push((symbol(name)?, symbol(value)?)),
                _ => return Err(DecodeError::OddLabelReferences),
            }
        }
        Ok(pairs)
    }

    /// Calls `each` for every sample with its start timestamp, floats first.
    ///
    /// # Errors
    /// When the message is malformed, or `each` fails.
    pub fn samples<E: From<DecodeError>>(
        &self,
        mut each: impl FnMut(Timestamp, Option<Timestamp>, SampleValue) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = Reader::new(self.message);
        while let Some(field) = reader.next_field().map_err(DecodeError::from)? {
            match field.number {
                2 => {
                    let (t, start, v) = read_sample(field.bytes().map_err(DecodeError::from)?)?;
                    each(t, start, SampleValue::Float(v))?;
                }
                3 => {
                    let (t, start, value) = read_histogram(field.bytes().map_err(DecodeError::from)?)?;
                    each(t, start, value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The exemplars.
    ///
    /// # Errors
    /// When the message is malformed or a reference leads nowhere.
    pub fn exemplars(&self) -> Result<Vec<Exemplar>, DecodeError> {
        let mut exemplars = Vec::new();
        let mut reader = Reader::new(self.message);
        while let Some(field) = reader.next_field()? {
            if field.number != 4 {
                continue;
            }
            let mut references = Vec::new();
            let mut exemplar = Exemplar { labels: Labels::empty(), value: 0.0, t: None };
            let mut inner = Reader::new(field.bytes()?);
            while let Some(field) = inner.next_field()? {
                match field.number {
                    1 => read_references(field.bytes()?, &mut references)?,
                    2 => exemplar.value = field.double()?,
                    3 => exemplar.t = Some(field.int64()?),
                    _ => {}
                }
            }
            exemplar.labels = Labels::from_pairs(self.resolve(&references)?);
            exemplars.push(exemplar);
        }
        Ok(exemplars)
    }

    /// What the series' metric is, when the request says.
    ///
    /// # Errors
    /// When the message is malformed or a reference leads nowhere.
    pub fn metadata(&self) -> Result<Option<Metadata>, DecodeError> {
        let mut reader = Reader::new(self.message);
        while let Some(field) = reader.next_field()? {
            if field.number == 5 {
                return self.read_metadata(field.bytes()?).map(Some);
            }
        }
        Ok(None)
    }

    fn read_metadata(&self, bytes: &[u8]) -> Result<Metadata, DecodeError> {
        let symbol = |reference: u64| {
            let index = usize::try_from(reference).unwrap_or(usize::MAX);
            self.symbols
                .get(index)
                .map(|text| (*text).to_owned())
                .ok_or(DecodeError::SymbolOutOfRange(reference))
        };
        let mut metadata = Metadata::default();
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => metadata.kind = metric_kind(field.varint()?),
                3 => metadata.help = symbol(field.varint()?)?,
                4 => metadata.unit = symbol(field.varint()?)?,
                _ => {}
            }
        }
        Ok(metadata)
    }
}

fn read_references(bytes: &[u8], into: &mut Vec<u64>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while let Some(reference) = reader.next_packed_varint()? {
        into.push(reference);
    }
    Ok(())
}

pub(super) fn read_sample(bytes: &[u8]) -> Result<(Timestamp, Option<Timestamp>, f64), DecodeError> {
    let (mut t, mut start, mut v) = (0, None, 0.0);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field.number {
            1 => v = field.double()?,
            2 => t = field.int64()?,
            3 => start = Some(field.int64()?).filter(|start| *start != 0),
            _ => {}
        }
    }
    Ok((t, start, v))
}
