//! Classic text, 0.0.4 and 1.0.0. Follows Prometheus' `promlex.l` and `PromParser`.

use model::MetricKind;

use super::got::{Lexer, quoted};
use super::number::parse_float;
use super::scan::{QuotedRules, line_end, name_end, quoted_end, skip_blanks};
use super::{Entry, LineSample, ParseError, Parser, Series};

/// What label values may hold.
const VALUE_RULES: QuotedRules = QuotedRules { newline: true, nul: true };
/// What quoted names may hold.
const NAME_RULES: QuotedRules = QuotedRules { newline: true, nul: false };
const LABELS: Lexer = Lexer::Labels(NAME_RULES);

impl<'a> Parser<'a> {
    pub(super) fn next_text(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        loop {
            let start = self.pos;
            self.pos = skip_blanks(self.page, self.pos);
            match self.peek() {
                // A NUL where a line begins ends the page there too.
                None | Some(0) => return Ok(None),
                Some(b'\n') => self.pos += 1,
                Some(b'#') => return self.text_comment(),
                Some(b'{') => {
                    self.pos += 1;
                    self.text_labels(start, false)?;
                    return self.text_series(start).map(Some);
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
                    // Blanks may stand before the brace; without one the text ends with the name.
                    let brace = skip_blanks(self.page, end);
                    if self.page.get(brace) == Some(&b'{') {
                        self.pos = brace + 1;
                        self.text_labels(start, true)?;
                    }
                    return self.text_series(start).map(Some);
                }
            }
        }
    }

    fn text_series(&mut self, start: usize) -> Result<Entry<'a>, ParseError> {
        let text = self.since(start);
        let sample = self.text_sample(start)?;
        Ok(Entry::Series(Series { text, sample }))
    }

    /// What follows the opening brace, up to and with the closing one.
    fn text_labels(&mut self, start: usize, mut has_name: bool) -> Result<(), ParseError> {
        loop {
            self.pos = skip_blanks(self.page, self.pos);
            let quoted = match self.peek() {
                Some(b'}') => {
                    self.pos += 1;
                    return if has_name { Ok(()) } else { Err(self.text_nameless(start)) };
                }
                Some(b'"') => {
                    let end = quoted_end(self.page, self.pos, NAME_RULES)
                        .ok_or_else(|| self.unexpected("expected label name", start, self.pos, LABELS))?;
                    self.pos = end;
                    true
                }
                _ => {
                    let end = name_end(self.page, self.pos, false)
                        .ok_or_else(|| self.unexpected("expected label name", start, self.pos, LABELS))?;
                    self.pos = end;
                    false
                }
            };
            self.pos = skip_blanks(self.page, self.pos);
            match self.peek() {
                Some(b',' | b'}') if quoted => {
                    if has_name {
                        return Err(self.error("metric name already set", start));
                    }
                    has_name = true;
                    if self.peek() == Some(b',') {
                        self.pos += 1;
                    }
                    continue;
                }
                Some(b'=') => self.pos += 1,
                // Prometheus takes a bare name for the metric's as well.
                Some(b',' | b'}') if has_name => {
                    return Err(self.error("metric name already set", start));
                }
                _ => return Err(self.unexpected("expected equal", start, self.pos, LABELS)),
            }
            self.pos = skip_blanks(self.page, self.pos);
            let open = self.pos;
            let end = (self.peek() == Some(b'"'))
                .then(|| quoted_end(self.page, open, VALUE_RULES))
                .flatten()
                .ok_or_else(|| {
                    self.unexpected("expected label value", start, open, Lexer::Value(VALUE_RULES))
                })?;
            self.pos = end;
            if std::str::from_utf8(self.slice(open, end)).is_err() {
                return Err(self.error("invalid UTF-8 label value", start));
            }
            // A comma is not asked for; one at the end is allowed.
            self.pos = skip_blanks(self.page, self.pos);
            if self.peek() == Some(b',') {
                self.pos += 1;
            }
        }
    }

    /// Braces that hold no metric name are noticed when the value has been read.
    fn text_nameless(&self, start: usize) -> ParseError {
        let from = skip_blanks(self.page, self.pos);
        let value = self.slice(from, self.page.len());
        let length = value.iter().take_while(|byte| !matches!(byte, b'{' | b' ' | b'\t' | b'\n' | 0)).count();
        self.error_up_to((from + length).max(self.pos + 1), "metric name not set", start)
    }

    /// What follows the series text: value, time, line break.
    pub(super) fn text_sample(&mut self, start: usize) -> Result<LineSample<'a>, ParseError> {
        self.pos = skip_blanks(self.page, self.pos);
        let from = self.pos;
        let length =
            self.rest().iter().take_while(|byte| !matches!(byte, b'{' | b' ' | b'\t' | b'\n' | 0)).count();
        if length == 0 {
            return Err(self.unexpected("expected value after metric", start, from, Lexer::Number));
        }
        self.pos += length;
        let value =
            parse_float(self.slice(from, self.pos)).map_err(|error| self.number_error(&error, start))?;
        self.pos = skip_blanks(self.page, self.pos);
        let t = match self.peek() {
            Some(b'0'..=b'9') => Some(self.text_timestamp(start)?),
            _ => None,
        };
        // The page ends as if a line break stood there.
        match self.peek() {
            Some(b'\n') => self.pos += 1,
            None => {}
            Some(_) => {
                let what = match t {
                    Some(_) => "expected next entry after timestamp",
                    None => "expected timestamp or new record",
                };
                return Err(self.unexpected(what, start, self.pos, Lexer::Time));
            }
        }
        Ok(LineSample { value, t, exemplar: None })
    }

    fn text_timestamp(&mut self, start: usize) -> Result<i64, ParseError> {
        let from = self.pos;
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.pos += digits;
        let text = self.slice(from, self.pos);
        let digit = |t: i64, digit: &u8| t.checked_mul(10)?.checked_add(i64::from(digit - b'0'));
        let Some(t) = text.iter().try_fold(0, digit) else {
            let text = quoted(text);
            let what = format!("strconv.ParseInt: parsing {text}: value out of range");
            return Err(self.error_up_to(self.pos, what, start));
        };
        self.pos = skip_blanks(self.page, self.pos);
        Ok(t)
    }

    /// A line that begins with `#`, blanks before it passed.
    fn text_comment(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        let start = self.pos;
        let body = skip_blanks(self.page, start + 1);
        if body == start + 1 {
            return Ok(self.skip_comment(true));
        }
        let rest = self.page.get(body..).unwrap_or_default();
        let is_help = rest.starts_with(b"HELP");
        if !is_help && !rest.starts_with(b"TYPE") {
            return Ok(self.skip_comment(false));
        }
        let mut name = skip_blanks(self.page, body + 4);
        if name == body + 4 {
            return Ok(self.skip_comment(false));
        }
        while self.has_nul && self.page.get(name) == Some(&0) {
            name = skip_blanks(self.page, name + 1);
        }
        self.pos = name;
        let word = if is_help { "HELP" } else { "TYPE" };
        let family = self.text_family(name).ok_or_else(|| {
            let what = format_args!("expected metric name after {word}");
            self.unexpected(what, start, name, Lexer::Family(NAME_RULES))
        })?;
        let from = self.pos;
        if self.page.get(from) == Some(&0) {
            return Err(self.error("linebreak expected after metadata", start));
        }
        let end = line_end(self.page, from);
        // The byte after the name is a separator, whatever it is; if only blanks are left there is no text.
        let text = if skip_blanks(self.page, from) == end { &[][..] } else { self.slice(from + 1, end) };
        self.pos = (end + 1).min(self.page.len());
        if is_help {
            let text = std::str::from_utf8(text)
                .map_err(|_| self.error("help text is not a valid utf8 string", start))?;
            return Ok(Some(Entry::Help { family, text }));
        }
        let kind = match text {
            b"counter" => MetricKind::Counter,
            b"gauge" => MetricKind::Gauge,
            b"histogram" => MetricKind::Histogram,
            b"summary" => MetricKind::Summary,
            b"untyped" => MetricKind::Unknown,
            _ => return Err(self.plain_error(format!("invalid metric type {}", quoted(text)))),
        };
        Ok(Some(Entry::Type { family, kind }))
    }

    /// The family name at `from`, quotes taken off.
    fn text_family(&mut self, from: usize) -> Option<&'a [u8]> {
        if self.page.get(from) == Some(&b'"') {
            let end = quoted_end(self.page, from, NAME_RULES)?;
            self.pos = end;
            return Some(self.slice(from + 1, end - 1));
        }
        let end = name_end(self.page, from, true)?;
        self.pos = end;
        Some(self.slice(from, end))
    }

    /// Steps over a comment. One that begins without a blank ends the page at a NUL, as in Prometheus.
    fn skip_comment(&mut self, nul_ends: bool) -> Option<Entry<'a>> {
        let end = line_end(self.page, self.pos);
        if nul_ends && self.has_nul && memchr::memchr(0, self.slice(self.pos, end)).is_some() {
            self.pos = self.page.len();
            return None;
        }
        self.pos = (end + 1).min(self.page.len());
        Some(Entry::Comment)
    }
}
