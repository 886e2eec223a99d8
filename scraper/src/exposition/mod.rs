//! Exposition formats: pages of metrics as text, and as protobuf (module [`protobuf`]).
//!
//! [`Parser`] walks over a page and yields [`Entry`]s that borrow from it: series text, value, time, exemplar; type, help,
//! unit. Nothing is allocated per line, nothing recurses, every byte is looked at a bounded number of times. What is
//! accepted and refused is what Prometheus accepts and refuses (its lexers `promlex.l` and `openmetricslex.l`, checked
//! against the real one), odd corners included: white space before a name in classic text becomes part of the name, a
//! NUL at the start of a line ends a classic page, help texts may hold NULs.
//!
//! A caller that knows a series text from the last page can skip it by [`Parser::skip_known`]: one comparison of
//! bytes, then only the number is parsed. [`decode_series`] turns a series text into labels; callers do that once per
//! series, not once per line.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod content_type;
mod got;
mod labels;
mod number;
mod openmetrics;
pub mod protobuf;
mod scan;
mod text;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use model::{MetricKind, Timestamp};

pub use content_type::{ContentTypeError, media_type};
pub use labels::{DecodeError, SeriesLabels, decode_exemplar, decode_series};
pub use number::{NumberError, format_bound, parse_float};

/// Longest excerpt of a page in an error.
const EXCERPT_MAX: usize = 120;

/// The formats that [`Parser`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Classic text, 0.0.4 and 1.0.0 (which adds quoted UTF-8 names; both are read in either case).
    Text,
    /// OpenMetrics 0.0.1 and 1.0.0.
    OpenMetrics,
}

/// What a page is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageFormat {
    /// Text, for [`Parser`].
    Text(Format),
    /// Delimited protobuf, for [`protobuf::Families`].
    Protobuf,
}

/// Why a page is refused, with the place. Texts follow Prometheus'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", Excerpt(.excerpt))]
pub struct ParseError {
    /// What is wrong.
    pub what: Cow<'static, str>,
    /// The text around, shortened, in quotes; empty where the place says nothing.
    pub excerpt: String,
    /// Position in the page.
    pub offset: usize,
}

struct Excerpt<'a>(&'a str);

impl std::fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " while parsing: {}", self.0)
    }
}

/// One thing on a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A sample.
    Series(Series<'a>),
    /// The type of a family.
    Type {
        /// Name of the family, unescaped bytes.
        family: &'a [u8],
        /// Its type.
        kind: MetricKind,
    },
    /// The help text of a family.
    Help {
        /// Name of the family, unescaped bytes.
        family: &'a [u8],
        /// The text, escapes not yet replaced: see [`unescape_help`].
        text: &'a str,
    },
    /// The unit of a family (OpenMetrics).
    Unit {
        /// Name of the family, unescaped bytes.
        family: &'a [u8],
        /// The unit.
        unit: &'a [u8],
    },
    /// A comment.
    Comment,
}

/// A sample line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<'a> {
    /// Name and labels as written, e.g. `name{label="value"}`.
    pub text: &'a [u8],
    /// What is said about it.
    pub sample: LineSample<'a>,
}

/// What follows the series text.
#[derive(Clone, Debug, PartialEq)]
pub struct LineSample<'a> {
    /// The value; NaNs are [`model::sample::NORMAL_NAN_BITS`].
    pub value: f64,
    /// Its own time.
    pub t: Option<Timestamp>,
    /// An exemplar (OpenMetrics).
    pub exemplar: Option<RawExemplar<'a>>,
}

/// An exemplar as written.
#[derive(Clone, Debug, PartialEq)]
pub struct RawExemplar<'a> {
    /// The labels, braces included.
    pub labels: &'a [u8],
    /// The value.
    pub value: f64,
    /// Its own time.
    pub t: Option<Timestamp>,
}

/// Walks over a page.
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    page: &'a [u8],
    pos: usize,
    format: Format,
    /// Type of the last TYPE line: decides whether `le` and `quantile` of following new series are normalised.
    kind: MetricKind,
    /// NULs need care in the lexers; nearly no page has one.
    has_nul: bool,
    /// Set when a line was good up to a point after which nothing can be: the sample counts, then this follows.
    pending: Option<ParseError>,
    done: bool,
}

impl<'a> Parser<'a> {
    /// A parser at the start of `page`.
    pub fn new(page: &'a [u8], format: Format) -> Self {
        Self {
            page,
            pos: 0,
            format,
            kind: MetricKind::Unknown,
            has_nul: memchr::memchr(0, page).is_some(),
            pending: None,
            done: false,
        }
    }

    /// The next entry; `None` at the proper end of the page.
    ///
    /// # Errors
    /// When the page breaks the format; call no further then.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results would hide that an error ends the page"
    )]
    pub fn next(&mut self) -> Option<Result<Entry<'a>, ParseError>> {
        if self.done {
            return None;
        }
        if let Some(error) = self.pending.take() {
            self.done = true;
            return Some(Err(error));
        }
        let entry = match self.format {
            Format::Text => self.next_text(),
            Format::OpenMetrics => self.next_openmetrics(),
        };
        match entry {
            Ok(Some(entry)) => {
                if let Entry::Type { kind, .. } = entry {
                    self.kind = kind;
                }
                Some(Ok(entry))
            }
            Ok(None) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }

    /// Whether the next thing on the page is a sample of exactly the series `text`, which must be the
    /// [`Series::text`] of an entry of an earlier page in the same format. If so, reads the rest of the line.
    ///
    /// # Errors
    /// When the rest of the line breaks the format; call no further then.
    pub fn skip_known(&mut self, text: &[u8]) -> Option<Result<LineSample<'a>, ParseError>> {
        if self.pending.is_some() || self.done {
            return None;
        }
        let after = self.rest().strip_prefix(text)?;
        if text.last() != Some(&b'}') && !self.ends_bare_name(after) {
            return None;
        }
        let start = self.pos;
        self.pos += text.len();
        let result = match self.format {
            Format::Text => self.text_sample(start),
            Format::OpenMetrics => self.openmetrics_sample(start),
        };
        self.done |= result.is_err();
        Some(result)
    }

    /// Whether the next thing on the page is exactly `line` (whole, with its line break), a comment or metadata line of
    /// an earlier page in the same format that set the type to `kind`. If so, steps over it.
    pub fn skip_known_line(&mut self, line: &[u8], kind: Option<MetricKind>) -> bool {
        if self.pending.is_some() || self.done || !self.rest().starts_with(line) {
            return false;
        }
        self.pos += line.len();
        if let Some(kind) = kind {
            self.kind = kind;
        }
        true
    }

    /// Where the parser stands. After an entry other than a sample of classic text: the start of a line.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// The page from `start` to where the parser stands.
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.page.get(start..self.pos).unwrap_or_default()
    }

    /// Type that the last TYPE line named.
    pub fn kind(&self) -> MetricKind {
        self.kind
    }

    /// Whether a series text that is a bare name ends where `after` begins: no further name byte and, in classic text,
    /// no brace behind white space.
    fn ends_bare_name(&self, after: &[u8]) -> bool {
        match (self.format, after.first()) {
            (Format::OpenMetrics, Some(b' ')) => true,
            (Format::Text, Some(b' ' | b'\t')) => {
                after.iter().find(|byte| !matches!(byte, b' ' | b'\t')) != Some(&b'{')
            }
            _ => false,
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.page.get(self.pos..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.page.get(self.pos).copied()
    }

    fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        self.page.get(from..to).unwrap_or_default()
    }

    /// An error about the line that began at `start`, at the byte where the parser stands.
    fn error(&self, what: impl Into<Cow<'static, str>>, start: usize) -> ParseError {
        self.error_up_to(self.pos + 1, what, start)
    }

    /// An error about a number, which ends where the parser stands.
    fn number_error(&self, error: &NumberError, start: usize) -> ParseError {
        self.error_up_to(self.pos, error.to_string(), start)
    }

    fn error_up_to(&self, end: usize, what: impl Into<Cow<'static, str>>, start: usize) -> ParseError {
        ParseError { what: what.into(), excerpt: got::quoted(&self.shown(start, end)), offset: self.pos }
    }
}

/// Replaces the escapes of a help text: `\\` and `\n`, in OpenMetrics also `\"`.
pub fn unescape_help(text: &str, format: Format) -> Cow<'_, str> {
    labels::unescape(text, format == Format::OpenMetrics)
}
