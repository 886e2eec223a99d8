//! Labels of a series text that a parser has accepted.

use std::borrow::Cow;

use model::labels::{BUCKET_LABEL, METRIC_NAME, QUANTILE_LABEL};
use model::{Labels, MetricKind};

use super::number::{format_bound, parse_float};
use super::scan::{QuotedRules, name_end, quoted_end, skip_blanks};

/// Why the labels of a well-formed line cannot be a series. Texts are Prometheus'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No metric name.
    #[error("missing metric name (__name__ label)")]
    NoName,
    /// A name that is empty or not UTF-8.
    #[error("invalid metric name or label names: {0}")]
    InvalidName(String),
    /// The same name twice.
    #[error("label name {} is not unique: invalid sample", model::labels::Quoted(.0))]
    Duplicate(String),
}

/// Scratch space for [`decode_series`], to be reused.
#[derive(Clone, Debug, Default)]
pub struct SeriesLabels {
    /// Name and value of each label in order of names, the metric name as `__name__`. Values may be empty: such a label
    /// is no label of the series, but with `honor_labels` it keeps a target label away.
    pub pairs: Vec<(String, String)>,
}

impl SeriesLabels {
    /// As a label set.
    pub fn to_labels(&self) -> Labels {
        let present = self.pairs.iter().filter(|(_, value)| !value.is_empty());
        Labels::from_sorted(present.map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Sorts and finds doubles.
    pub(super) fn finish(&mut self) -> Result<(), DecodeError> {
        self.pairs.sort_unstable();
        for pair in self.pairs.windows(2) {
            if let [(a, _), (b, _)] = pair
                && a == b
            {
                return Err(DecodeError::Duplicate(a.clone()));
            }
        }
        if self.pairs.iter().any(|(name, _)| name == METRIC_NAME) { Ok(()) } else { Err(DecodeError::NoName) }
    }
}

/// Reads name and labels out of `text`, a [`super::Series::text`]. `kind` is the type said before the line: bounds of
/// histograms (`le`) and quantiles of summaries get one spelling each (`1` is `1.0`).
///
/// # Errors
/// When names are missing, empty, doubled, or not UTF-8.
pub fn decode_series(text: &[u8], kind: MetricKind, into: &mut SeriesLabels) -> Result<(), DecodeError> {
    into.pairs.clear();
    let brace = opening_brace(text);
    let (name, braces) = text.split_at(brace);
    // In classic text blanks may stand between name and brace; those before the name belong to it.
    let name = if braces.is_empty() { name } else { trim_blanks_end(name) };
    if !trim_blanks_end(name).is_empty() {
        into.pairs.push((METRIC_NAME.to_owned(), utf8(name)?.into_owned()));
    }
    decode_braces(braces, kind, true, into)?;
    into.finish()
}

/// Reads the labels of an exemplar, a [`super::RawExemplar::labels`]; of equal names the last one counts. Escapes stay as
/// they are written, as in Prometheus (which replaces them in OpenMetrics 2 only).
pub fn decode_exemplar(text: &[u8]) -> Labels {
    let mut labels = SeriesLabels::default();
    if decode_braces(text, MetricKind::Unknown, false, &mut labels).is_err() {
        return Labels::empty();
    }
    Labels::from_pairs(labels.pairs)
}

/// Position of the brace that opens the labels, or the length of `text`.
fn opening_brace(text: &[u8]) -> usize {
    memchr::memchr(b'{', text).unwrap_or(text.len())
}

fn trim_blanks_end(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    text.get(..text.len() - blanks).unwrap_or_default()
}

fn decode_braces(
    braces: &[u8],
    kind: MetricKind,
    escapes: bool,
    into: &mut SeriesLabels,
) -> Result<(), DecodeError> {
    // Anything the parser accepted may stand in quotes here: it drew the borders.
    let rules = QuotedRules { newline: true, nul: true };
    let mut pos = 1;
    loop {
        pos = skip_blanks(braces, pos);
        let Some(byte) = braces.get(pos) else { return Ok(()) };
        let name_range = match byte {
            b'}' => return Ok(()),
            b',' => {
                pos += 1;
                continue;
            }
            b'"' => {
                let Some(end) = quoted_end(braces, pos, rules) else { return Ok(()) };
                let inner = (pos + 1, end - 1);
                pos = skip_blanks(braces, end);
                if braces.get(pos) != Some(&b'=') {
                    let name = unquoted(braces, inner, escapes)?;
                    if !name.is_empty() {
                        into.pairs.push((METRIC_NAME.to_owned(), name));
                    }
                    continue;
                }
                inner
            }
            _ => {
                let Some(end) = name_end(braces, pos, false) else { return Ok(()) };
                let range = (pos, end);
                pos = skip_blanks(braces, end);
                range
            }
        };
        let name = unquoted(braces, name_range, escapes)?;
        if name.is_empty() {
            return Err(DecodeError::InvalidName(String::from_utf8_lossy(braces).into_owned()));
        }
        let open = skip_blanks(braces, pos + 1);
        let Some(end) = quoted_end(braces, open, rules) else { return Ok(()) };
        let value = unquoted(braces, (open + 1, end - 1), escapes)?;
        pos = end;
        let value = normalise(kind, &name, value);
        into.pairs.push((name, value));
    }
}

fn unquoted(text: &[u8], (from, to): (usize, usize), escapes: bool) -> Result<String, DecodeError> {
    let raw = utf8(text.get(from..to).unwrap_or_default())?;
    Ok(if escapes { unescape(&raw, true).into_owned() } else { raw.into_owned() })
}

fn utf8(bytes: &[u8]) -> Result<Cow<'_, str>, DecodeError> {
    std::str::from_utf8(bytes)
        .map(Cow::Borrowed)
        .map_err(|_| DecodeError::InvalidName(String::from_utf8_lossy(bytes).into_owned()))
}

fn normalise(kind: MetricKind, name: &str, value: String) -> String {
    let is_number = (kind == MetricKind::Summary && name == QUANTILE_LABEL)
        || (kind == MetricKind::Histogram && name == BUCKET_LABEL);
    if !is_number {
        return value;
    }
    match parse_float(value.as_bytes()) {
        Ok(number) => format_bound(number),
        Err(_) => value,
    }
}

/// Replaces `\\`, `\n` and, where `quotes`, `\"`; other escapes stay as they are.
pub(super) fn unescape(text: &str, quotes: bool) -> Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let mut ahead = chars.clone();
        match ahead.next() {
            Some('\\') => out.push('\\'),
            Some('n') => out.push('\n'),
            Some('"') if quotes => out.push('"'),
            _ => {
                out.push('\\');
                continue;
            }
        }
        chars = ahead;
    }
    Cow::Owned(out)
}
