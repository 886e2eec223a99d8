//! Scripts as lists of commands.

use model::{Labels, Timestamp};

use super::store::{MemorySample, MemoryStorage};
use super::values::{number, sequence, split_repeat};
use super::{ScriptError, ScriptValue, nhcb};
use crate::ast::ExprKind;
use crate::parse::{ParseOptions, parse, parse_metric};

/// A command.
pub(super) enum Command {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
}

/// Samples to store.
pub(super) struct Load {
    series: Vec<(Labels, Vec<Point>)>,
}

/// A sample of a script.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) t: Timestamp,
    pub(super) start: Option<Timestamp>,
    pub(super) value: ScriptValue,
}

impl Load {
    pub(super) fn into_storage(self, storage: &mut MemoryStorage) {
        for (labels, points) in self.series {
            for Point { t, start, value } in points {
                let start = start.unwrap_or(0);
                let sample = match value {
                    ScriptValue::Float(value) => MemorySample::Float { value, start },
                    ScriptValue::Histogram { histogram, .. } => MemorySample::Histogram { histogram, start },
                };
                storage.add(&labels, t, sample);
            }
        }
    }
}

/// How a text is compared.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Any text will do.
    Any,
    Text(String),
    Regex(regex::Regex),
}

impl Pattern {
    pub(super) fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Text(expected) => expected == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// What is to be evaluated when.
#[derive(Clone, Copy, Debug)]
pub(super) enum EvalTime {
    Instant(Timestamp),
    Range { start: Timestamp, end: Timestamp, step: i64 },
}

/// An evaluation and what is expected of it.
#[derive(Debug)]
pub(super) struct Eval {
    pub(super) line: usize,
    pub(super) expr: String,
    pub(super) time: EvalTime,
    /// The points of an expected range vector lie at these times.
    pub(super) range_vector: Option<(Timestamp, Timestamp, i64)>,
    pub(super) ordered: bool,
    pub(super) fail: Vec<Pattern>,
    pub(super) warn: Vec<Pattern>,
    pub(super) info: Vec<Pattern>,
    pub(super) no_warn: bool,
    pub(super) no_info: bool,
    pub(super) scalar: Option<f64>,
    pub(super) string: Option<String>,
    pub(super) series: Vec<(Labels, Vec<Option<ScriptValue>>)>,
}

struct Lines<'a> {
    lines: Vec<&'a str>,
    next: usize,
}

impl<'a> Lines<'a> {
    /// The next line of a block: blocks end at empty lines.
    fn in_block(&mut self) -> Option<&'a str> {
        let line = *self.lines.get(self.next)?;
        if line.is_empty() {
            return None;
        }
        self.next += 1;
        Some(line)
    }

    fn error(&self, message: impl Into<String>) -> ScriptError {
        ScriptError { line: self.next, message: message.into() }
    }
}

/// Reads a script.
pub(super) fn read(text: &str) -> Result<Vec<Command>, ScriptError> {
    let lines = text
        .lines()
        .map(str::trim)
        // A comment does not end a block in the reference runner's reading of lines, but an empty line does.
        .map(|line| if line.starts_with('#') { "" } else { line })
        .collect();
    let mut lines = Lines { lines, next: 0 };
    let mut commands = Vec::new();
    while lines.next < lines.lines.len() {
        let line = lines.lines[lines.next];
        lines.next += 1;
        let word = line.split([' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
        match word.as_str() {
            "" => {}
            "clear" => commands.push(Command::Clear),
            "load" | "load_with_nhcb" => {
                commands.push(Command::Load(load(&mut lines, line, word == "load_with_nhcb")?));
            }
            _ if word.starts_with("eval") => {
                commands.push(Command::Eval(Box::new(eval(&mut lines, line, &word)?)));
            }
            _ => return Err(lines.error(format!("invalid command {line:?}"))),
        }
    }
    Ok(commands)
}

fn milliseconds(text: &str) -> Result<i64, String> {
    let (sign, plain) = match text.strip_prefix('-') {
        Some(plain) => (-1, plain),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Ok(seconds) = plain.parse::<f64>() {
        return Ok(sign * (seconds * 1000.0).round() as i64);
    }
    model::duration::parse_ms(plain).map(|ms| sign * ms).map_err(|error| error.to_string())
}

/// Splits a line into its metric and the rest.
fn split_metric(line: &str) -> Result<(Labels, &str), String> {
    let mut end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
    if line[end..].starts_with('{') && !line[end..].starts_with("{{") {
        let mut quote: Option<char> = None;
        let mut escaped = false;
        let close = line[end..].char_indices().find(|&(_, c)| {
            match quote {
                Some(_) if escaped => escaped = false,
                Some('"' | '\'') if c == '\\' => escaped = true,
                Some(open) if c == open => quote = None,
                Some(_) => {}
                None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
                None => return c == '}',
            }
            false
        });
        end += close.ok_or("unterminated labels")?.0 + 1;
    }
    let labels = parse_metric(&line[..end]).map_err(|error| error.to_string())?;
    Ok((labels, &line[end..]))
}

fn load(lines: &mut Lines<'_>, line: &str, with_nhcb: bool) -> Result<Load, ScriptError> {
    let step = line.split_whitespace().nth(1).ok_or_else(|| lines.error("load without a step"))?;
    let step = milliseconds(step).map_err(|message| lines.error(message))?;
    let mut series = Vec::new();
    let mut starts: Option<Vec<Option<i64>>> = None;
    while let Some(line) = lines.in_block() {
        let head = line.split([' ', '\t']).next().unwrap_or_default();
        if head.ends_with("@st") {
            let rest = line.strip_prefix(head).unwrap_or_default();
            starts = Some(start_times(rest).map_err(|message| lines.error(message))?);
            continue;
        }
        let (labels, rest) = split_metric(line).map_err(|message| lines.error(message))?;
        let values = sequence(rest).map_err(|message| lines.error(message))?;
        let starts = starts.take();
        let mut points = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            let Some(value) = value else { continue };
            let t = step * i64::try_from(index).unwrap_or(i64::MAX);
            let start = starts.as_ref().and_then(|starts| starts.get(index).copied().flatten());
            points.push(Point { t, start: start.map(|start| t + start), value });
        }
        series.push((labels, points));
    }
    if with_nhcb {
        let native = nhcb::convert(&series);
        series.extend(native);
    }
    Ok(Load { series })
}

/// `-30s-1mx2 _`: start timestamps relative to each sample.
fn start_times(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        if item.starts_with('_') {
            let (_, count) = split_repeat(item)?;
            out.extend(std::iter::repeat_n(None, count.unwrap_or(1)));
            continue;
        }
        let (body, count) = split_repeat(item)?;
        let sign = body[1..].find(['+', '-']).map(|at| at + 1);
        let (first, step) = match sign {
            Some(at) => (&body[..at], milliseconds(&body[at..])?),
            None => (body, 0),
        };
        let mut value = milliseconds(first)?;
        for _ in 0..=count.unwrap_or(0) {
            out.push(Some(value));
            value += step;
        }
    }
    Ok(out)
}

/// Takes the first word off.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (first, rest) = text.split_at(text.find([' ', '\t']).unwrap_or(text.len()));
    (first, rest.trim_start())
}

fn eval(lines: &mut Lines<'_>, line: &str, command: &str) -> Result<Eval, ScriptError> {
    let number_of_line = lines.next;
    let (_, rest) = word(line);
    let (kind, rest) = word(rest);
    let (time, expr) = match kind {
        "instant" => {
            let (at, after) = word(rest);
            if at == "at" {
                let (t, expr) = word(after);
                (EvalTime::Instant(milliseconds(t).map_err(|message| lines.error(message))?), expr)
            } else {
                (EvalTime::Instant(0), rest)
            }
        }
        "range" => {
            let mut rest = rest;
            let mut times = [0; 3];
            for (time, keyword) in times.iter_mut().zip(["from", "to", "step"]) {
                let (found, after) = word(rest);
                if found != keyword {
                    return Err(lines.error(format!("expected {keyword:?} in {line:?}")));
                }
                let (value, after) = word(after);
                *time = milliseconds(value).map_err(|message| lines.error(message))?;
                rest = after;
            }
            (EvalTime::Range { start: times[0], end: times[1], step: times[2] }, rest)
        }
        _ => return Err(lines.error(format!("invalid eval {line:?}"))),
    };
    let mut eval = Eval {
        line: number_of_line,
        expr: expr.to_owned(),
        time,
        range_vector: None,
        ordered: command == "eval_ordered",
        fail: Vec::new(),
        warn: Vec::new(),
        info: Vec::new(),
        no_warn: false,
        no_info: false,
        scalar: None,
        string: None,
        series: Vec::new(),
    };
    match command {
        "eval_fail" => eval.fail.push(Pattern::Any),
        "eval_warn" => eval.warn.push(Pattern::Any),
        "eval_info" => eval.info.push(Pattern::Any),
        _ => {}
    }
    while let Some(line) = lines.in_block() {
        expectation(&mut eval, line).map_err(|message| lines.error(message))?;
    }
    Ok(eval)
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let text = text.trim();
    if text.is_empty() {
        Ok(Pattern::Any)
    } else if let Some(message) = text.strip_prefix("msg:") {
        Ok(Pattern::Text(message.trim().to_owned()))
    } else if let Some(expression) = text.strip_prefix("regex:") {
        regex::Regex::new(expression.trim()).map(Pattern::Regex).map_err(|error| error.to_string())
    } else {
        Err(format!("invalid expectation {text:?}"))
    }
}

fn expectation(eval: &mut Eval, line: &str) -> Result<(), String> {
    if let Some(message) = line.strip_prefix("expected_fail_message") {
        eval.fail = vec![Pattern::Text(message.trim().to_owned())];
        return Ok(());
    }
    if let Some(expression) = line.strip_prefix("expected_fail_regexp") {
        eval.fail = vec![pattern(&format!("regex:{expression}"))?];
        return Ok(());
    }
    let (first, rest) = word(line);
    if first == "expect" {
        let (what, rest) = word(rest);
        match what {
            "ordered" => eval.ordered = true,
            "fail" => eval.fail.push(pattern(rest)?),
            "warn" => eval.warn.push(pattern(rest)?),
            "info" => eval.info.push(pattern(rest)?),
            "no_warn" => eval.no_warn = true,
            "no_info" => eval.no_info = true,
            "string" => {
                let literal = parse(rest, &ParseOptions::default()).map_err(|error| error.to_string())?;
                let ExprKind::String(text) = literal.kind else { return Err("expected a string".to_owned()) };
                eval.string = Some(text);
            }
            "range" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let ["vector", "from", start, "to", end, "step", step] = words[..] else {
                    return Err(format!("invalid range vector {line:?}"));
                };
                let end = milliseconds(end)?;
                eval.range_vector = Some((milliseconds(start)?, end, milliseconds(step)?));
                eval.time = EvalTime::Instant(end);
            }
            _ => return Err(format!("invalid expectation {line:?}")),
        }
        return Ok(());
    }
    if let Some(value) = number(line) {
        eval.scalar = Some(value);
        return Ok(());
    }
    let (labels, rest) = split_metric(line)?;
    eval.series.push((labels, sequence(rest)?));
    Ok(())
}
