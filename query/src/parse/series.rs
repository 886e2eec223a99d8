//! The series notation of test scripts and of rule unit tests: `metric{a="b"} 1 2+3x4 _x2 stale {{schema:0 sum:1}}x3`.
//!
//! - `_` is a missing sample, `_x3` three of them.
//! - `1x3` is 1 four times, `1+2x3` is 1 3 5 7: the value, then three more.
//! - `{{…}}` is a native histogram, `{{…}}+{{…}}x3` one that grows.
//! - `metric{a="b"}@st -30s-1mx2 _` gives start timestamps instead, relative to the samples of the line after it.
//!
//! Runs stay runs here: [`SeriesDesc::expand`] writes them out.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Span as BucketSpan};
use model::labels::Quoted;
use model::{FloatHistogram, Labels, stale_nan};
use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take_while, take_while1};
use nom::character::complete::{char, digit1, one_of};
use nom::combinator::{opt, recognize, value};
use nom::{IResult, Parser};

use super::error::ParseError;
use super::lexer::is_space;
use super::token::quoted_char;
use crate::ast::Span;

/// Most values one line may give: a typing mistake in a count must not fill the memory.
const SERIES_VALUES_MAX: usize = 10_000_000;

/// A line of the series notation.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesDesc {
    /// The series.
    pub labels: Labels,
    /// Whether the values are start timestamps (`@st`) instead of samples.
    pub start_times: bool,
    /// Its values.
    pub runs: Vec<SeriesRun>,
}

/// Equal or evenly growing values.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesRun {
    /// The first value.
    pub first: SeriesValue,
    /// What each further value adds to its predecessor. Of the kind of `first`.
    pub increment: Option<Increment>,
    /// How many values.
    pub count: usize,
}

/// What is added, or taken away.
#[derive(Clone, Debug, PartialEq)]
pub struct Increment {
    /// Whether it is taken away. Set for histograms only; numbers carry their sign.
    pub negative: bool,
    /// How much.
    pub by: SeriesValue,
}

/// One value of a series.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SeriesValue {
    /// `_`
    Omitted,
    /// A number, or the staleness marker.
    Float(f64),
    /// `{{…}}`
    Histogram {
        /// The histogram.
        histogram: Arc<FloatHistogram>,
        /// Whether the text said anything about counter resets: if not, tests do not look at the hint.
        hint_given: bool,
    },
    /// Milliseconds from the sample to the start timestamp.
    StartTime(i64),
}

impl SeriesDesc {
    /// All values in order. `combine` adds two histograms, or subtracts when told so.
    ///
    /// # Errors
    /// What `combine` says; also when a histogram shall grow by one of a coarser schema.
    pub fn expand(
        &self,
        mut combine: impl FnMut(&FloatHistogram, &FloatHistogram, bool) -> Result<FloatHistogram, String>,
    ) -> Result<Vec<SeriesValue>, String> {
        let mut values = Vec::with_capacity(self.runs.iter().map(|run| run.count).sum());
        for run in &self.runs {
            let mut current = run.first.clone();
            for index in 0..run.count {
                if index > 0
                    && let Some(increment) = &run.increment
                {
                    current = current.plus(increment, &mut combine)?;
                }
                values.push(current.clone());
            }
        }
        Ok(values)
    }
}

impl SeriesValue {
    fn plus(
        &self,
        increment: &Increment,
        combine: &mut impl FnMut(&FloatHistogram, &FloatHistogram, bool) -> Result<FloatHistogram, String>,
    ) -> Result<Self, String> {
        Ok(match (self, &increment.by) {
            (Self::Float(value), Self::Float(by)) => Self::Float(value + by),
            (Self::StartTime(ms), Self::StartTime(by)) => Self::StartTime(ms.saturating_add(*by)),
            (Self::Histogram { histogram, .. }, Self::Histogram { histogram: by, hint_given }) => {
                if histogram.schema > by.schema {
                    let (from, to) = (by.schema, histogram.schema);
                    return Err(format!(
                        "error combining histograms: cannot merge from schema {from} to {to}"
                    ));
                }
                let histogram = Arc::new(combine(histogram, by, increment.negative)?);
                Self::Histogram { histogram, hint_given: *hint_given }
            }
            (other, _) => other.clone(),
        })
    }
}

/// Parses a line of the series notation.
///
/// # Errors
/// The first fault.
pub fn parse_series_desc(text: &str) -> Result<SeriesDesc, ParseError> {
    let (head, rest) = text.split_at(head_len(text));
    let labels =
        super::parse_metric(head).map_err(|error| ParseError::new(text, error.span, error.message))?;
    let (rest, start_times) = match rest.strip_prefix("@st") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let mut reader = Reader { text, start_times };
    let runs = reader.runs(rest)?;
    Ok(SeriesDesc { labels, start_times, runs })
}

/// Bytes of the metric that `text` begins with: a name and braces, either may be absent.
fn head_len(text: &str) -> usize {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let name = text.find(|c| !is_name(c)).unwrap_or(text.len());
    if !text[name..].starts_with('{') {
        return name;
    }
    let mut quote = None;
    let mut escaped = false;
    for (index, c) in text[name..].char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(open) if c == '\\' && open != '`' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if c == '}' => return name + index + 1,
            None => {}
        }
    }
    text.len()
}

struct Reader<'a> {
    text: &'a str,
    start_times: bool,
}

impl<'a> Reader<'a> {
    /// A fault where `rest` begins.
    fn error(&self, rest: &str, message: impl Into<String>) -> ParseError {
        let start = self.text.len() - rest.len();
        ParseError::new(self.text, Span::new(start, self.text.len()), message)
    }

    fn unexpected(&self, rest: &str) -> ParseError {
        match rest.chars().next() {
            None => self.error(rest, "unexpected end of input in series values"),
            Some(c) => {
                self.error(rest, format!("unexpected character in series sequence: {}", quoted_char(Some(c))))
            }
        }
    }

    fn runs(&mut self, mut rest: &'a str) -> Result<Vec<SeriesRun>, ParseError> {
        let mut runs = Vec::new();
        let mut total = 0usize;
        while !rest.is_empty() {
            let trimmed = rest.trim_start_matches(is_space);
            if trimmed.len() == rest.len() {
                return Err(self.unexpected(rest));
            }
            if trimmed.is_empty() {
                break;
            }
            let (tail, run) = self.run(trimmed)?;
            total = total.saturating_add(run.count);
            if total > SERIES_VALUES_MAX {
                return Err(self.error(trimmed, format!("more than {SERIES_VALUES_MAX} values in a series")));
            }
            runs.push(run);
            rest = tail;
        }
        Ok(runs)
    }

    fn run(&self, text: &'a str) -> Result<(&'a str, SeriesRun), ParseError> {
        let (rest, first) = self.value(text)?;
        let (rest, increment) = match (&first, rest.chars().next()) {
            (SeriesValue::Omitted, _) | (_, None) => (rest, None),
            (SeriesValue::Histogram { .. }, Some(sign @ ('+' | '-'))) => {
                let (rest, by) = self.histogram(&rest[1..])?;
                (rest, Some(Increment { negative: sign == '-', by }))
            }
            (_, Some('+' | '-')) => {
                let (rest, by) = self.value(rest)?;
                (rest, Some(Increment { negative: false, by }))
            }
            _ => (rest, None),
        };
        let Some(times) = rest.strip_prefix('x') else {
            if increment.is_some() {
                return Err(self.unexpected(rest));
            }
            return Ok((rest, SeriesRun { first, increment, count: 1 }));
        };
        let counted: IResult<&str, &str> = digit1(times);
        let (rest, digits) = counted.map_err(|_| self.unexpected(times))?;
        let count: usize = digits.parse().map_err(|_| {
            let message = format!(
                "invalid repetition in series values: strconv.ParseUint: parsing {}: value out of range",
                Quoted(digits)
            );
            self.error(times, message)
        })?;
        // Of missing samples there are as many as said; a value comes first and then so many more.
        let count = if first == SeriesValue::Omitted { count } else { count.saturating_add(1) };
        Ok((rest, SeriesRun { first, increment, count }))
    }

    fn value(&self, text: &'a str) -> Result<(&'a str, SeriesValue), ParseError> {
        if let Some(rest) = text.strip_prefix('_') {
            return Ok((rest, SeriesValue::Omitted));
        }
        if self.start_times {
            return self.start_time(text);
        }
        if text.starts_with("{{") {
            return self.histogram(text);
        }
        if let Some(rest) = text.strip_prefix("stale") {
            return Ok((rest, SeriesValue::Float(stale_nan())));
        }
        let (rest, value) = signed_float(text).map_err(|_| self.unexpected(text))?;
        Ok((rest, SeriesValue::Float(value)))
    }

    fn start_time(&self, text: &'a str) -> Result<(&'a str, SeriesValue), ParseError> {
        let parsed: IResult<&str, (Option<char>, &str)> =
            (opt(one_of("+-")), recognize((digit1, take_while(|c| "smhdwy".contains(c))))).parse(text);
        let (rest, (sign, duration)) = parsed.map_err(|_| self.unexpected(text))?;
        let bare = duration.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = if bare { format!("{duration}s") } else { duration.to_owned() };
        let ms = model::duration::parse_ms(&seconds).map_err(|error| self.error(text, error.to_string()))?;
        Ok((rest, SeriesValue::StartTime(if sign == Some('-') { -ms } else { ms })))
    }

    /// `{{key:value key:value}}`
    fn histogram(&self, text: &'a str) -> Result<(&'a str, SeriesValue), ParseError> {
        let mut rest = text.strip_prefix("{{").ok_or_else(|| self.unexpected(text))?;
        let mut fields = Fields::default();
        let mut seen: Vec<&str> = Vec::new();
        loop {
            rest = rest.trim_start_matches(is_space);
            if let Some(rest) = rest.strip_prefix("}}") {
                let hint_given = seen.contains(&"counter_reset_hint");
                return Ok((
                    rest,
                    SeriesValue::Histogram { histogram: Arc::new(fields.build()), hint_given },
                ));
            }
            let (tail, key) = word(rest).map_err(|_| {
                let c = rest.chars().next();
                self.error(rest, format!("histogram description incomplete unexpected: {}", quoted_char(c)))
            })?;
            if !Fields::KEYS.contains(&key) {
                return Err(self.error(rest, format!("bad histogram descriptor found: {}", Quoted(key))));
            }
            let Some(body) = tail.strip_prefix(':') else {
                return Err(self.error(rest, "missing `:` for histogram descriptor"));
            };
            if seen.contains(&key) {
                return Err(self.error(rest, format!("duplicate key \"{key}\" in histogram")));
            }
            seen.push(key);
            rest = self.field(&mut fields, key, body)?;
        }
    }

    fn field(&self, fields: &mut Fields, key: &str, text: &'a str) -> Result<&'a str, ParseError> {
        let parsed: IResult<&str, ()> = match key {
            "schema" => integer(text).map(|(rest, v)| (rest, fields.schema = v)),
            "offset" => integer(text).map(|(rest, v)| (rest, fields.offset = v)),
            "n_offset" => integer(text).map(|(rest, v)| (rest, fields.negative_offset = v)),
            "sum" => signed_float(text).map(|(rest, v)| (rest, fields.sum = v)),
            "count" => signed_float(text).map(|(rest, v)| (rest, fields.count = v)),
            "z_bucket" => signed_float(text).map(|(rest, v)| (rest, fields.zero_count = v)),
            "z_bucket_w" => signed_float(text).map(|(rest, v)| (rest, fields.zero_threshold = v)),
            "buckets" => floats(text).map(|(rest, v)| (rest, fields.buckets = v)),
            "n_buckets" => floats(text).map(|(rest, v)| (rest, fields.negative_buckets = v)),
            "custom_values" => floats(text).map(|(rest, v)| (rest, fields.custom_values = v)),
            _ => hint(text).map(|(rest, v)| (rest, fields.hint = v)),
        };
        match parsed {
            Ok((rest, ())) if rest.starts_with(is_space) || rest.starts_with("}}") => Ok(rest),
            Ok((rest, ())) => Err(self.unexpected(rest)),
            Err(_) if key == "counter_reset_hint" => {
                let found = word(text).map_or("", |(_, found)| found);
                Err(self.error(text, format!("bad histogram descriptor found: {}", Quoted(found))))
            }
            Err(_) => Err(self.unexpected(text)),
        }
    }
}

/// The parts of a histogram as written.
#[derive(Default)]
struct Fields {
    schema: i32,
    offset: i32,
    negative_offset: i32,
    sum: f64,
    count: f64,
    zero_count: f64,
    zero_threshold: f64,
    buckets: Vec<f64>,
    negative_buckets: Vec<f64>,
    custom_values: Vec<f64>,
    hint: CounterResetHint,
}

impl Fields {
    const KEYS: [&str; 11] = [
        "sum",
        "count",
        "schema",
        "offset",
        "n_offset",
        "buckets",
        "n_buckets",
        "z_bucket",
        "z_bucket_w",
        "custom_values",
        "counter_reset_hint",
    ];

    fn build(self) -> FloatHistogram {
        let spans = |offset, buckets: &[f64]| match u32::try_from(buckets.len()) {
            Ok(length) if length > 0 => vec![BucketSpan { offset, length }],
            _ => Vec::new(),
        };
        FloatHistogram {
            counter_reset_hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans: spans(self.offset, &self.buckets),
            negative_spans: spans(self.negative_offset, &self.negative_buckets),
            positive_buckets: self.buckets,
            negative_buckets: self.negative_buckets,
            custom_values: self.custom_values.into(),
        }
    }
}

fn word(text: &str) -> IResult<&str, &str> {
    take_while1(|c: char| c == '_' || c.is_ascii_alphabetic()).parse(text)
}

fn hint(text: &str) -> IResult<&str, CounterResetHint> {
    alt((
        value(CounterResetHint::Unknown, tag("unknown")),
        value(CounterResetHint::CounterReset, tag("reset")),
        value(CounterResetHint::NotCounterReset, tag("not_reset")),
        value(CounterResetHint::Gauge, tag("gauge")),
    ))
    .parse(text)
}

fn integer(text: &str) -> IResult<&str, i32> {
    recognize((opt(char('-')), digit1)).map_res(str::parse).parse(text)
}

fn signed_float(text: &str) -> IResult<&str, f64> {
    let (rest, sign) = opt(one_of("+-")).parse(text)?;
    let (rest, number) = unsigned_float(rest)?;
    Ok((rest, if sign == Some('-') { -number } else { number }))
}

/// Decimal only: `0x2` is zero, twice more.
fn unsigned_float(text: &str) -> IResult<&str, f64> {
    let is_digit = |c: char| c.is_ascii_digit();
    let exponent = || opt((one_of("eE"), opt(one_of("+-")), digit1));
    alt((
        value(f64::INFINITY, tag_no_case("inf")),
        value(f64::NAN, tag_no_case("nan")),
        recognize((digit1, opt((char('.'), take_while(is_digit))), exponent())).map_res(str::parse),
        recognize((char('.'), digit1, exponent())).map_res(str::parse),
    ))
    .parse(text)
}

/// `[1 -2.5 3]`
fn floats(text: &str) -> IResult<&str, Vec<f64>> {
    let (mut rest, _) = char('[').parse(text)?;
    let mut numbers = Vec::new();
    loop {
        (rest, _) = take_while(is_space).parse(rest)?;
        if let Some(rest) = rest.strip_prefix(']') {
            return Ok((rest, numbers));
        }
        let (tail, number) = signed_float(rest)?;
        numbers.push(number);
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats_of(text: &str) -> Vec<SeriesValue> {
        parse_series_desc(text).unwrap().expand(|_, _, _| Err("no histograms here".to_owned())).unwrap()
    }

    #[test]
    fn runs_expand() {
        let float = SeriesValue::Float;
        assert_eq!(
            floats_of("my_metric{a=\"b } c\"} 1 -1 -3-10x2 7x1 0x2 _ _x2 +5  "),
            [1.0, -1.0, -3.0, -13.0, -23.0, 7.0, 7.0, 0.0, 0.0, 0.0]
                .map(float)
                .into_iter()
                .chain([SeriesValue::Omitted, SeriesValue::Omitted, SeriesValue::Omitted, float(5.0)])
                .collect::<Vec<_>>()
        );
        assert_eq!(floats_of("{} 1+1x0"), [float(1.0)]);
        assert!(matches!(floats_of("x stale")[..], [SeriesValue::Float(v)] if model::is_stale_nan(v)));
        assert!(
            matches!(floats_of("x NaN -Inf")[..], [SeriesValue::Float(a), SeriesValue::Float(b)] if a.is_nan() && b == f64::NEG_INFINITY)
        );
        assert_eq!(floats_of("x"), []);
        let start = |ms: &[i64]| ms.iter().copied().map(SeriesValue::StartTime).collect::<Vec<_>>();
        assert_eq!(floats_of("x{a=\"b\"}@st -30s-1mx2 0 1ms"), start(&[-30_000, -90_000, -150_000, 0, 1]));
        assert!(parse_series_desc("x{a=\"b\"}@st 0").unwrap().start_times);
    }

    #[test]
    fn histograms_have_all_their_parts() {
        let desc = parse_series_desc(
            "{} {{schema:1  sum:-0.3 count:3.1 z_bucket:7.1 z_bucket_w:0.05 buckets:[5.1 10  7 ] offset:-3 n_buckets:[4.1 5] n_offset:5 counter_reset_hint:gauge }}+{{sum:1}}x2",
        )
        .unwrap();
        let SeriesValue::Histogram { histogram, hint_given: true } = &desc.runs[0].first else {
            panic!("{desc:?}");
        };
        assert_eq!(
            **histogram,
            FloatHistogram {
                counter_reset_hint: CounterResetHint::Gauge,
                schema: 1,
                zero_threshold: 0.05,
                zero_count: 7.1,
                count: 3.1,
                sum: -0.3,
                positive_spans: vec![BucketSpan { offset: -3, length: 3 }],
                negative_spans: vec![BucketSpan { offset: 5, length: 2 }],
                positive_buckets: vec![5.1, 10.0, 7.0],
                negative_buckets: vec![4.1, 5.0],
                custom_values: [].into(),
            }
        );
        assert_eq!(desc.runs[0].count, 3);
        assert_eq!(
            desc.expand(|_, _, _| unreachable!("schemas differ")),
            Err("error combining histograms: cannot merge from schema 0 to 1".to_owned())
        );
    }

    #[test]
    fn faults_are_placed() {
        let bad = [
            ("{} 1+1", "1:7: parse error: unexpected end of input in series values"),
            ("x 1 3 _ 5 _a4", "1:12: parse error: unexpected character in series sequence: 'a'"),
            ("x -3 3+3x4-4", "1:11: parse error: unexpected character in series sequence: '-'"),
            ("{} {{schema:1 schema:1}}", "1:15: parse error: duplicate key \"schema\" in histogram"),
            ("{} {{foo:1}}", "1:6: parse error: bad histogram descriptor found: \"foo\""),
            ("{} {{schema :1}}", "1:6: parse error: missing `:` for histogram descriptor"),
            ("{} {{counter_reset_hint:foo}}", "1:25: parse error: bad histogram descriptor found: \"foo\""),
            (
                "{\"http.requests\"xx} 0+50x2",
                "1:17: parse error: unexpected identifier \"xx\" in label set, expected \",\" or \"}\"",
            ),
            ("x 1x99999999999", "1:3: parse error: more than 10000000 values in a series"),
        ];
        for (text, message) in bad {
            assert_eq!(parse_series_desc(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
