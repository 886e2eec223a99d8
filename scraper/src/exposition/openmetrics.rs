//! OpenMetrics text, 0.0.1 and 1.0.0. Follows Prometheus' `openmetricslex.l` and `OpenMetricsParser`: single spaces, no
//! blank lines, no comments, `# EOF` at the end, though families may be interleaved and counters need no `_total`.

use std::borrow::Cow;

use model::MetricKind;

use super::got::{Lexer, quoted};
use super::number::parse_float;
use super::scan::{QuotedRules, line_end, name_end, quoted_end};
use super::{Entry, LineSample, ParseError, Parser, RawExemplar, Series};

/// What label values may hold.
const VALUE_RULES: QuotedRules = QuotedRules { newline: false, nul: true };
/// What quoted names in braces may hold.
const NAME_RULES: QuotedRules = QuotedRules { newline: true, nul: false };
/// What quoted names and values of exemplars may hold.
const EXEMPLAR_RULES: QuotedRules = QuotedRules { newline: false, nul: false };

const NO_EOF: &str = "data does not end with # EOF";

impl<'a> Parser<'a> {
    pub(super) fn next_openmetrics(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        let start = self.pos;
        match self.peek() {
            None => Err(self.plain_error(NO_EOF)),
            Some(b'#') => self.openmetrics_meta(),
            Some(b'{') => {
                self.pos += 1;
                self.openmetrics_labels(start, Some(false))?;
                self.openmetrics_series(start).map(Some)
            }
            Some(_) => {
                let Some(end) = name_end(self.page, self.pos, true) else {
                    return Err(self.unexpected(
                        "expected a valid start token",
                        start,
                        self.pos,
                        Lexer::Start,
                    ));
                };
                self.pos = end;
                if self.peek() == Some(b'{') {
                    self.pos += 1;
                    self.openmetrics_labels(start, Some(true))?;
                }
                self.openmetrics_series(start).map(Some)
            }
        }
    }

    /// An error for which no place is shown.
    pub(super) fn plain_error(&self, what: impl Into<Cow<'static, str>>) -> ParseError {
        ParseError { what: what.into(), excerpt: String::new(), offset: self.pos }
    }

    fn openmetrics_series(&mut self, start: usize) -> Result<Entry<'a>, ParseError> {
        let text = self.since(start);
        let sample = self.openmetrics_sample(start)?;
        Ok(Entry::Series(Series { text, sample }))
    }

    /// What follows an opening brace, up to and with the closing one. `has_name` says whether the metric name is known
    /// already; `None` in exemplars, which have none.
    fn openmetrics_labels(&mut self, start: usize, mut has_name: Option<bool>) -> Result<(), ParseError> {
        let (names, values) = match has_name {
            Some(_) => (NAME_RULES, VALUE_RULES),
            None => (EXEMPLAR_RULES, EXEMPLAR_RULES),
        };
        let labels = Lexer::Labels(names);
        loop {
            let quoted = match self.peek() {
                Some(b'}') => {
                    self.pos += 1;
                    return if has_name == Some(false) {
                        let mut value = self.clone();
                        let end = value.spaced_word().map_or(self.pos + 1, |_| value.pos);
                        Err(self.error_up_to(end, "metric name not set", start))
                    } else {
                        Ok(())
                    };
                }
                Some(b'"') => {
                    let end = quoted_end(self.page, self.pos, names)
                        .ok_or_else(|| self.unexpected("expected label name", start, self.pos, labels))?;
                    self.pos = end;
                    true
                }
                _ => {
                    let end = name_end(self.page, self.pos, false)
                        .ok_or_else(|| self.unexpected("expected label name", start, self.pos, labels))?;
                    self.pos = end;
                    false
                }
            };
            match (self.peek(), has_name) {
                (Some(b',' | b'}'), Some(known)) if quoted => {
                    if known {
                        return Err(self.error("metric name already set", start));
                    }
                    has_name = Some(true);
                    if self.peek() == Some(b',') {
                        self.pos += 1;
                    }
                    continue;
                }
                (Some(b'='), _) => self.pos += 1,
                (Some(b',' | b'}'), None) => {
                    return Err(self.unexpected("expected label name", start, self.pos, labels));
                }
                // Prometheus takes a bare name for the metric's as well.
                (Some(b',' | b'}'), Some(true)) => return Err(self.error("metric name already set", start)),
                _ => return Err(self.unexpected("expected equal", start, self.pos, labels)),
            }
            let open = self.pos;
            let end = (self.peek() == Some(b'"'))
                .then(|| quoted_end(self.page, open, values))
                .flatten()
                .ok_or_else(|| self.unexpected("expected label value", start, open, Lexer::Value(values)))?;
            self.pos = end;
            if std::str::from_utf8(self.slice(open, end)).is_err() {
                return Err(self.error("invalid UTF-8 label value", start));
            }
            match self.peek() {
                Some(b',') => self.pos += 1,
                Some(b'}') => {}
                _ => return Err(self.unexpected("expected comma or brace close", start, self.pos, labels)),
            }
        }
    }

    /// What follows the series text: value, time, exemplar, line break.
    pub(super) fn openmetrics_sample(&mut self, start: usize) -> Result<LineSample<'a>, ParseError> {
        let text = self
            .spaced_word()
            .ok_or_else(|| self.unexpected("expected value after metric", start, self.pos, Lexer::Word))?;
        let value = parse_float(text).map_err(|error| self.number_error(&error, start))?;
        let mut sample = LineSample { value, t: None, exemplar: None };
        if self.peek().is_none() {
            return Err(self.plain_error(NO_EOF));
        }
        if self.at_exemplar() {
            sample.exemplar = Some(self.exemplar(start)?);
            return Ok(sample);
        }
        // ` #  ` is neither a timestamp nor the start of an exemplar.
        if let Some(text) = self.spaced_word().filter(|_| !self.broken_exemplar()) {
            sample.t = Some(self.seconds(text, "timestamp", start)?);
            if self.at_exemplar() {
                sample.exemplar = Some(self.exemplar(start)?);
                return Ok(sample);
            }
            if self.peek() != Some(b'\n') {
                let what = "expected next entry after timestamp";
                return Err(self.unexpected(what, start, self.pos, Lexer::Word));
            }
            self.pos += 1;
            return Ok(sample);
        }
        if self.peek() == Some(b'\n') {
            self.pos += 1;
        } else {
            // Prometheus counts such a sample before it refuses the page.
            // What it has taken of the line by then is not shown.
            let from = self.pos + if self.rest().starts_with(b" # ") { 3 } else { 1 };
            self.pending =
                Some(self.unexpected("expected a valid start token", from, from, Lexer::WordOrEnd));
        }
        Ok(sample)
    }

    /// Whether the word just read was a lone `#` with a space after it.
    fn broken_exemplar(&self) -> bool {
        self.page.get(..self.pos).is_some_and(|before| before.ends_with(b" #")) && self.peek() == Some(b' ')
    }

    /// A space and what follows it up to the next space or line break; nothing is read when there is none.
    fn spaced_word(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest().strip_prefix(b" ")?;
        let length = rest.iter().take_while(|byte| !matches!(byte, b' ' | b'\n' | 0)).count();
        if length == 0 {
            return None;
        }
        self.pos += 1 + length;
        rest.get(..length)
    }

    fn at_exemplar(&self) -> bool {
        self.rest().starts_with(b" # {")
    }

    fn exemplar(&mut self, start: usize) -> Result<RawExemplar<'a>, ParseError> {
        let from = self.pos + 3;
        self.pos += 4;
        self.openmetrics_labels(start, None)?;
        let labels = self.since(from);
        let text = self.spaced_word().ok_or_else(|| {
            self.unexpected("expected value after exemplar labels", start, self.pos, Lexer::Word)
        })?;
        let value = parse_float(text).map_err(|error| self.number_error(&error, start))?;
        let t = match self.spaced_word() {
            Some(text) => Some(self.seconds(text, "exemplar timestamp", start)?),
            None => None,
        };
        match self.peek() {
            Some(b'\n') => self.pos += 1,
            None => return Err(self.plain_error(NO_EOF)),
            Some(_) if t.is_some() => {
                let what = "expected next entry after exemplar timestamp";
                return Err(self.unexpected(what, start, self.pos, Lexer::Word));
            }
            Some(_) => {
                return Err(self.unexpected("expected timestamp or comment", start, self.pos, Lexer::Word));
            }
        }
        Ok(RawExemplar { labels, value, t })
    }

    /// Seconds as written, in milliseconds.
    fn seconds(&self, text: &[u8], what: &str, start: usize) -> Result<i64, ParseError> {
        let seconds = parse_float(text).map_err(|error| self.number_error(&error, start))?;
        if !seconds.is_finite() {
            let shown = model::float::format_fixed(seconds);
            return Err(ParseError {
                what: format!("invalid {what} {shown}").into(),
                excerpt: String::new(),
                offset: self.pos,
            });
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "cut to whole milliseconds as Prometheus does; saturates"
        )]
        Ok((seconds * 1000.0) as i64)
    }

    /// A line that begins with `#`.
    fn openmetrics_meta(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        let start = self.pos;
        let rest = self.rest();
        if let Some(after) = rest.strip_prefix(b"# EOF") {
            if after.is_empty() || after == b"\n" {
                self.pos = self.page.len();
                return Ok(None);
            }
            return Err(self.plain_error("unexpected data after # EOF"));
        }
        let word = match rest.get(..7) {
            Some(b"# HELP ") => "HELP",
            Some(b"# TYPE ") => "TYPE",
            Some(b"# UNIT ") => "UNIT",
            _ => return Err(self.unexpected("expected a valid start token", start, start, Lexer::Start)),
        };
        self.pos += 7;
        let family = self.openmetrics_family().ok_or_else(|| {
            let what = format_args!("expected metric name after {word}");
            self.unexpected(what, start, self.pos, Lexer::Family(NAME_RULES))
        })?;
        let from = self.pos;
        let end = line_end(self.page, from);
        if self.peek() != Some(b' ') || end == self.page.len() {
            return Err(self.plain_error(format!("expected text in {word}")));
        }
        let text = self.slice(from + 1, end);
        self.pos = end + 1;
        match word {
            "HELP" => {
                let text = std::str::from_utf8(text)
                    .map_err(|_| self.error("help text is not a valid utf8 string", start))?;
                Ok(Some(Entry::Help { family, text }))
            }
            "UNIT" => {
                if !text.is_empty() && !family.strip_suffix(text).is_some_and(|stem| stem.ends_with(b"_")) {
                    let (unit, family) = (quoted(text), quoted(family));
                    return Err(self.plain_error(format!("unit {unit} not a suffix of metric {family}")));
                }
                Ok(Some(Entry::Unit { family, unit: text }))
            }
            _ => match kind_of(text) {
                Some(kind) => Ok(Some(Entry::Type { family, kind })),
                None => Err(self.plain_error(format!("invalid metric type {}", quoted(text)))),
            },
        }
    }

    fn openmetrics_family(&mut self) -> Option<&'a [u8]> {
        let from = self.pos;
        if self.peek() == Some(b'"') {
            let end = quoted_end(self.page, from, NAME_RULES)?;
            self.pos = end;
            return Some(self.slice(from + 1, end - 1));
        }
        let end = name_end(self.page, from, true)?;
        self.pos = end;
        Some(self.slice(from, end))
    }
}

fn kind_of(text: &[u8]) -> Option<MetricKind> {
    Some(match text {
        b"counter" => MetricKind::Counter,
        b"gauge" => MetricKind::Gauge,
        b"histogram" => MetricKind::Histogram,
        b"gaugehistogram" => MetricKind::GaugeHistogram,
        b"summary" => MetricKind::Summary,
        b"info" => MetricKind::Info,
        b"stateset" => MetricKind::StateSet,
        b"unknown" => MetricKind::Unknown,
        _ => return None,
    })
}
