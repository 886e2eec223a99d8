//! Go's `time.Time` and `time.Duration` as templates see them, with Go's layouts (`2006-01-02 15:04:05`).

use std::any::Any;
use std::fmt::{self, Write as _};

use jiff::civil::{self, Weekday};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Zoned};

use super::value::{Object, Value, as_object, as_text, object, text, type_name};
use crate::labels::Quoted;
use crate::sample::Timestamp;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// What `time.Time.String` prints.
const DEFAULT_LAYOUT: &str = "2006-01-02 15:04:05.999999999 -0700 MST";
/// What JSON has.
const RFC3339_NANO: &str = "2006-01-02T15:04:05.999999999Z07:00";

/// A time with its zone: `time.Time`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoTime(Zoned);

impl GoTime {
    /// Milliseconds since the epoch, in UTC. What no calendar holds becomes its end.
    pub fn from_ms(t: Timestamp) -> Self {
        let instant = jiff::Timestamp::from_millisecond(t).unwrap_or(if t < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        Self(instant.to_zoned(TimeZone::UTC))
    }

    /// Go's zero time: the year 1.
    pub fn zero() -> Self {
        let start = civil::date(1, 1, 1).at(0, 0, 0, 0);
        Self(start.to_zoned(TimeZone::UTC).expect("the year 1 exists"))
    }

    /// Nanoseconds from `earlier` to this, as far as 64 bits reach.
    pub fn nanos_since(&self, earlier: &Self) -> i64 {
        let nanos = self.0.timestamp().as_nanosecond() - earlier.0.timestamp().as_nanosecond();
        i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// The same instant in zone `name` (IANA name, `UTC`, `Local`).
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn in_zone(&self, name: &str) -> Result<Self, String> {
        let zone = match name {
            "" | "UTC" => TimeZone::UTC,
            "Local" => TimeZone::system(),
            name => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}"))?,
        };
        Ok(Self(self.0.with_time_zone(zone)))
    }

    /// By a layout of Go.
    pub fn format(&self, layout: &str) -> String {
        let mut out = String::with_capacity(layout.len() + 8);
        let mut rest = layout;
        while !rest.is_empty() {
            let (prefix, token, tail) = next_token(rest);
            out.push_str(prefix);
            if let Some(token) = token {
                self.write(&mut out, token);
            }
            rest = tail;
        }
        out
    }

    fn write(&self, out: &mut String, token: Token) {
        let t = &self.0;
        let month = MONTHS[usize::from(t.month().unsigned_abs()) - 1];
        let day = DAYS[usize::from(t.weekday().to_sunday_zero_offset().unsigned_abs())];
        let hour_12 = if t.hour() % 12 == 0 { 12 } else { t.hour() % 12 };
        let done = match token {
            Token::Month => write!(out, "{month}"),
            Token::Mon => write!(out, "{}", &month[..3]),
            Token::MonthNumber => write!(out, "{}", t.month()),
            Token::MonthZero => write!(out, "{:02}", t.month()),
            Token::Weekday => write!(out, "{day}"),
            Token::WeekdayShort => write!(out, "{}", &day[..3]),
            Token::Day => write!(out, "{}", t.day()),
            Token::DayUnder => write!(out, "{:2}", t.day()),
            Token::DayZero => write!(out, "{:02}", t.day()),
            Token::YearDay => write!(out, "{:03}", t.day_of_year()),
            Token::YearDayUnder => write!(out, "{:3}", t.day_of_year()),
            Token::Hour => write!(out, "{:02}", t.hour()),
            Token::Hour12 => write!(out, "{hour_12}"),
            Token::Hour12Zero => write!(out, "{hour_12:02}"),
            Token::Minute => write!(out, "{}", t.minute()),
            Token::MinuteZero => write!(out, "{:02}", t.minute()),
            Token::Second => write!(out, "{}", t.second()),
            Token::SecondZero => write!(out, "{:02}", t.second()),
            Token::Year => write!(out, "{:04}", t.year()),
            Token::YearShort => write!(out, "{:02}", t.year().rem_euclid(100)),
            Token::Pm { upper } => {
                let text = if t.hour() >= 12 { "PM" } else { "AM" };
                write!(out, "{}", if upper { text.to_owned() } else { text.to_lowercase() })
            }
            Token::Zone => write!(out, "{}", self.abbreviation()),
            Token::Offset { iso, minutes, colon, seconds } => {
                self.write_offset(out, iso, minutes, colon, seconds)
            }
            Token::Fraction { digits, trim, mark } => {
                let nanos = format!("{:09}", t.subsec_nanosecond());
                let mut shown = &nanos[..digits.min(9)];
                if trim {
                    shown = shown.trim_end_matches('0');
                }
                if shown.is_empty() { Ok(()) } else { write!(out, "{mark}{shown}") }
            }
        };
        done.expect("writing to a string cannot fail");
    }

    fn write_offset(
        &self,
        out: &mut String,
        iso: bool,
        minutes: bool,
        colon: bool,
        seconds: bool,
    ) -> fmt::Result {
        let offset = self.0.offset().seconds();
        if iso && offset == 0 {
            return out.write_str("Z");
        }
        let sign = if offset < 0 { '-' } else { '+' };
        let offset = offset.unsigned_abs();
        let colon = if colon { ":" } else { "" };
        write!(out, "{sign}{:02}", offset / 3600)?;
        if minutes {
            write!(out, "{colon}{:02}", offset / 60 % 60)?;
        }
        if seconds {
            write!(out, "{colon}{:02}", offset % 60)?;
        }
        Ok(())
    }

    /// `UTC`, `CET`; Go writes the offset where a zone has no letters.
    fn abbreviation(&self) -> String {
        if self.0.time_zone() == &TimeZone::UTC {
            return "UTC".to_owned();
        }
        let info = self.0.time_zone().to_offset_info(self.0.timestamp());
        let name = info.abbreviation();
        if name.chars().any(char::is_alphabetic) {
            return name.to_owned();
        }
        let mut out = String::new();
        let offset = self.0.offset().seconds();
        self.write_offset(&mut out, false, offset % 3600 != 0, false, false)
            .expect("writing to a string cannot fail");
        out
    }
}

impl fmt::Display for GoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format(DEFAULT_LAYOUT))
    }
}

impl Object for GoTime {
    fn type_name(&self) -> &str {
        "time.Time"
    }

    fn field(&self, _name: &str) -> Option<Value> {
        None
    }

    fn call(&self, name: &str, args: &[Value]) -> Option<Result<Value, String>> {
        let t = &self.0;
        let instant = t.timestamp();
        let value = match (name, args) {
            ("Unix", []) => Value::Int(instant.as_second()),
            ("UnixMilli", []) => Value::Int(instant.as_millisecond()),
            ("UnixMicro", []) => Value::Int(instant.as_microsecond()),
            ("UnixNano", []) => Value::Int(self.nanos_since(&Self::from_ms(0))),
            ("Year", []) => Value::Int(t.year().into()),
            ("Month", []) => object(GoName {
                name: MONTHS[usize::from(t.month().unsigned_abs()) - 1],
                of: "time.Month",
                number: t.month().into(),
            }),
            ("Day", []) => Value::Int(t.day().into()),
            ("YearDay", []) => Value::Int(t.day_of_year().into()),
            ("Weekday", []) => {
                let number = t.weekday().to_sunday_zero_offset();
                object(GoName {
                    name: DAYS[usize::from(number.unsigned_abs())],
                    of: "time.Weekday",
                    number: number.into(),
                })
            }
            ("Hour", []) => Value::Int(t.hour().into()),
            ("Minute", []) => Value::Int(t.minute().into()),
            ("Second", []) => Value::Int(t.second().into()),
            ("Nanosecond", []) => Value::Int(t.subsec_nanosecond().into()),
            ("IsZero", []) => Value::Bool(*self == Self::zero()),
            ("String", []) => text(self.to_string()),
            ("Location", []) => text(t.time_zone().iana_name().unwrap_or("UTC")),
            ("UTC", []) => object(Self(t.with_time_zone(TimeZone::UTC))),
            ("Local", []) => object(Self(t.with_time_zone(TimeZone::system()))),
            ("Format", [layout]) => match as_text(layout) {
                Some(layout) => text(self.format(layout)),
                None => return Some(Err(expected("string", layout))),
            },
            ("Before" | "After" | "Equal" | "Sub" | "Compare", [other]) => {
                let other_object = as_object(other);
                let Some(earlier) = other_object.as_ref().and_then(|o| o.as_any().downcast_ref::<Self>())
                else {
                    return Some(Err(expected("time.Time", other)));
                };
                let order = instant.cmp(&earlier.0.timestamp());
                match name {
                    "Before" => Value::Bool(order.is_lt()),
                    "After" => Value::Bool(order.is_gt()),
                    "Equal" => Value::Bool(order.is_eq()),
                    "Compare" => Value::Int(order as i64),
                    _ => object(GoDuration(self.nanos_since(earlier))),
                }
            }
            ("Add" | "Truncate" | "Round", [step]) => {
                let Some(step) = nanos(step) else { return Some(Err(expected("time.Duration", step))) };
                let moved = match name {
                    "Add" => instant.checked_add(SignedDuration::from_nanos(step)),
                    _ if step <= 0 => Ok(instant),
                    _ => {
                        // Go rounds since the year 1, not since 1970.
                        let since = instant.as_nanosecond() - Self::zero().0.timestamp().as_nanosecond();
                        let past = i64::try_from(since.rem_euclid(step.into())).expect("less than the step");
                        let up = name == "Round" && past >= step - past;
                        instant.checked_add(SignedDuration::from_nanos(if up { step - past } else { -past }))
                    }
                };
                match moved {
                    Ok(moved) => object(Self(moved.to_zoned(t.time_zone().clone()))),
                    Err(_) => return Some(Err("time out of range".to_owned())),
                }
            }
            ("AddDate", [years, months, days]) => {
                let part = |value: &Value| match value {
                    Value::Int(n) => i32::try_from(*n).ok(),
                    _ => None,
                };
                let (Some(years), Some(months), Some(days)) = (part(years), part(months), part(days)) else {
                    return Some(Err("wrong type for value; expected int".to_owned()));
                };
                return Some(self.add_date(years, months, days).map(object));
            }
            _ => return None,
        };
        Some(Ok(value))
    }

    fn print(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> String {
        format!("\"{}\"", self.format(RFC3339_NANO))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl GoTime {
    /// Go normalises (31 January plus a month is 3 March); the calendar library would clamp.
    fn add_date(&self, years: i32, months: i32, days: i32) -> Result<Self, String> {
        let range = || "time out of range".to_owned();
        let month0 = i64::from(self.0.year()) * 12 + i64::from(self.0.month()) - 1;
        let month0 = month0 + i64::from(years) * 12 + i64::from(months);
        let year = i16::try_from(month0.div_euclid(12)).map_err(|_| range())?;
        let month = i8::try_from(month0.rem_euclid(12) + 1).expect("a month is small");
        let start = civil::Date::new(year, month, 1).map_err(|_| range())?;
        let days = i64::from(days) + i64::from(self.0.day()) - 1;
        let span = jiff::Span::new().try_days(days).map_err(|_| range())?;
        let date = start.checked_add(span).map_err(|_| range())?;
        let moved =
            date.to_datetime(self.0.time()).to_zoned(self.0.time_zone().clone()).map_err(|_| range())?;
        Ok(Self(moved))
    }
}

fn expected(what: &str, got: &Value) -> String {
    format!("wrong type for value; expected {what}; got {}", type_name(got))
}

fn nanos(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        other => as_object(other)?.as_any().downcast_ref::<GoDuration>().map(|duration| duration.0),
    }
}

/// A named number: `time.Month`, `time.Weekday`.
struct GoName {
    name: &'static str,
    of: &'static str,
    number: i64,
}

impl Object for GoName {
    fn type_name(&self) -> &str {
        self.of
    }

    fn field(&self, _name: &str) -> Option<Value> {
        None
    }

    fn call(&self, name: &str, args: &[Value]) -> Option<Result<Value, String>> {
        (name == "String" && args.is_empty()).then(|| Ok(text(self.name)))
    }

    fn print(&self) -> String {
        self.name.to_owned()
    }

    fn json(&self) -> String {
        self.number.to_string()
    }

    fn integer(&self) -> Option<i64> {
        Some(self.number)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A duration in nanoseconds: `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub i64);

impl GoDuration {
    /// Milliseconds, as far as 64 bits of nanoseconds reach.
    pub fn from_ms(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// In seconds.
    pub fn seconds(self) -> f64 {
        // As Go: whole and fractional part apart, for precision.
        (self.0 / 1_000_000_000) as f64 + (self.0 % 1_000_000_000) as f64 / 1e9
    }

    fn round(self, step: i64, half_up: bool) -> Self {
        if step <= 0 {
            return self;
        }
        let rest = self.0 % step;
        let toward_zero = self.0 - rest;
        if half_up && rest.unsigned_abs() >= step.unsigned_abs() - rest.unsigned_abs() {
            return Self(toward_zero.saturating_add(step * rest.signum()));
        }
        Self(toward_zero)
    }
}

/// `1h2m3.5s`, `1.5ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let decimal = |f: &mut fmt::Formatter<'_>, value: u64, unit: u64, name: &str| {
            let digits = unit.ilog10() as usize;
            write!(f, "{}", value / unit)?;
            if !value.is_multiple_of(unit) {
                write!(f, ".{}", format!("{:0digits$}", value % unit).trim_end_matches('0'))?;
            }
            f.write_str(name)
        };
        match total {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{total}ns"),
            1_000..1_000_000 => decimal(f, total, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(f, total, 1_000_000, "ms"),
            _ => {
                let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                decimal(f, total % 60_000_000_000, 1_000_000_000, "s")
            }
        }
    }
}

impl Object for GoDuration {
    fn type_name(&self) -> &str {
        "time.Duration"
    }

    fn field(&self, _name: &str) -> Option<Value> {
        None
    }

    fn call(&self, name: &str, args: &[Value]) -> Option<Result<Value, String>> {
        let value = match (name, args) {
            ("Seconds", []) => Value::Float(self.seconds()),
            ("Minutes", []) => Value::Float(self.0 as f64 / 60e9),
            ("Hours", []) => Value::Float(self.0 as f64 / 3600e9),
            ("Milliseconds", []) => Value::Int(self.0 / 1_000_000),
            ("Microseconds", []) => Value::Int(self.0 / 1_000),
            ("Nanoseconds", []) => Value::Int(self.0),
            ("Abs", []) => object(Self(self.0.saturating_abs())),
            ("String", []) => text(self.to_string()),
            ("Round" | "Truncate", [step]) => match nanos(step) {
                Some(step) => object(self.round(step, name == "Round")),
                None => return Some(Err(expected("time.Duration", step))),
            },
            _ => return None,
        };
        Some(Ok(value))
    }

    fn print(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> String {
        self.0.to_string()
    }

    fn integer(&self) -> Option<i64> {
        Some(self.0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// One element of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Month,
    Mon,
    MonthNumber,
    MonthZero,
    Weekday,
    WeekdayShort,
    Day,
    DayUnder,
    DayZero,
    YearDay,
    YearDayUnder,
    Hour,
    Hour12,
    Hour12Zero,
    Minute,
    MinuteZero,
    Second,
    SecondZero,
    Year,
    YearShort,
    Pm { upper: bool },
    Zone,
    Offset { iso: bool, minutes: bool, colon: bool, seconds: bool },
    Fraction { digits: usize, trim: bool, mark: char },
}

/// Elements by their text; a longer text goes before its beginnings.
const TOKENS: [(&str, Token); 36] = {
    const fn offset(iso: bool, minutes: bool, colon: bool, seconds: bool) -> Token {
        Token::Offset { iso, minutes, colon, seconds }
    }
    [
        ("January", Token::Month),
        ("Jan", Token::Mon),
        ("Monday", Token::Weekday),
        ("Mon", Token::WeekdayShort),
        ("MST", Token::Zone),
        ("2006", Token::Year),
        ("_2006", Token::Year),
        ("__2", Token::YearDayUnder),
        ("_2", Token::DayUnder),
        ("002", Token::YearDay),
        ("01", Token::MonthZero),
        ("02", Token::DayZero),
        ("03", Token::Hour12Zero),
        ("04", Token::MinuteZero),
        ("05", Token::SecondZero),
        ("06", Token::YearShort),
        ("15", Token::Hour),
        ("1", Token::MonthNumber),
        ("2", Token::Day),
        ("3", Token::Hour12),
        ("4", Token::Minute),
        ("5", Token::Second),
        ("PM", Token::Pm { upper: true }),
        ("pm", Token::Pm { upper: false }),
        ("Z07:00:00", offset(true, true, true, true)),
        ("Z070000", offset(true, true, false, true)),
        ("Z07:00", offset(true, true, true, false)),
        ("Z0700", offset(true, true, false, false)),
        ("Z07", offset(true, false, false, false)),
        ("-07:00:00", offset(false, true, true, true)),
        ("-070000", offset(false, true, false, true)),
        ("-07:00", offset(false, true, true, false)),
        ("-0700", offset(false, true, false, false)),
        ("-07", offset(false, false, false, false)),
        ("+07:00", offset(false, true, true, false)),
        ("+0700", offset(false, true, false, false)),
    ]
};

/// Splits a layout at its first element: text before it, the element, the rest.
fn next_token(layout: &str) -> (&str, Option<Token>, &str) {
    for (at, c) in layout.char_indices() {
        let rest = &layout[at..];
        if let Some(found) = fraction(rest) {
            let (token, len) = found;
            return (&layout[..at], Some(token), &rest[len..]);
        }
        if !matches!(c, 'J' | 'M' | '0'..='9' | '_' | 'P' | 'p' | 'Z' | '-') {
            continue;
        }
        for (text, token) in TOKENS {
            let Some(tail) = rest.strip_prefix(text) else { continue };
            // `Jan` and `Mon` only when no lower-case letter follows, as in Go (`January` is above).
            if matches!(text, "Jan" | "Mon") && tail.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            if text == "_2006" {
                return (&layout[..=at], Some(token), tail);
            }
            return (&layout[..at], Some(token), tail);
        }
    }
    (layout, None, "")
}

/// `.000` or `.999` (also with a comma), not followed by a digit.
fn fraction(rest: &str) -> Option<(Token, usize)> {
    let mark = rest.chars().next().filter(|c| matches!(c, '.' | ','))?;
    let digit = rest[1..].chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let digits = rest[1..].chars().take_while(|c| *c == digit).count();
    if rest[1 + digits..].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((Token::Fraction { digits, trim: digit == '9', mark }, 1 + digits))
}

/// Go's `time.Parse`: what the layout does not name is zero, the zone UTC unless it says otherwise.
pub(super) fn parse(layout: &str, value: &str) -> Result<GoTime, String> {
    Reader { value, ..Reader::default() }
        .read(layout)
        .ok_or_else(|| format!("parsing time {}: cannot parse as {}", Quoted(value), Quoted(layout)))
}

#[derive(Default)]
struct Reader<'a> {
    value: &'a str,
    year: i16,
    month: Option<i8>,
    day: Option<i8>,
    year_day: Option<i16>,
    hour: i8,
    minute: i8,
    second: i8,
    nanos: i32,
    pm: Option<bool>,
    offset: Option<i32>,
}

impl Reader<'_> {
    fn read(mut self, layout: &str) -> Option<GoTime> {
        let mut rest = layout;
        while !rest.is_empty() {
            let (prefix, token, tail) = next_token(rest);
            self.value = self.value.strip_prefix(prefix)?;
            if let Some(token) = token {
                self.token(token, tail)?;
            }
            rest = tail;
        }
        if !self.value.is_empty() {
            return None;
        }
        match self.pm {
            Some(true) if self.hour < 12 => self.hour += 12,
            Some(false) if self.hour == 12 => self.hour = 0,
            _ => {}
        }
        let mut date = civil::Date::new(self.year, self.month.unwrap_or(1), self.day.unwrap_or(1)).ok()?;
        if let Some(day) = self.year_day {
            date = date.with().day_of_year(day).build().ok()?;
        }
        let time = civil::Time::new(self.hour, self.minute, self.second, self.nanos).ok()?;
        let zone = match self.offset {
            None | Some(0) => TimeZone::UTC,
            Some(seconds) => Offset::from_seconds(seconds).ok()?.to_time_zone(),
        };
        Some(GoTime(date.to_datetime(time).to_zoned(zone).ok()?))
    }

    fn token(&mut self, token: Token, tail: &str) -> Option<()> {
        match token {
            Token::Month => self.month = Some(self.name(&MONTHS, None)?),
            Token::Mon => self.month = Some(self.name(&MONTHS, Some(3))?),
            Token::Weekday => drop(self.name(&DAYS, None)?),
            Token::WeekdayShort => drop(self.name(&DAYS, Some(3))?),
            Token::MonthNumber => self.month = Some(self.number(1, 2)?),
            Token::MonthZero => self.month = Some(self.number(2, 2)?),
            Token::Day => self.day = Some(self.number(1, 2)?),
            Token::DayUnder => {
                self.value = self.value.strip_prefix(' ').unwrap_or(self.value);
                self.day = Some(self.number(1, 2)?);
            }
            Token::DayZero => self.day = Some(self.number(2, 2)?),
            Token::YearDay => self.year_day = Some(self.number(3, 3)?),
            Token::YearDayUnder => {
                self.value = self.value.trim_start_matches(' ');
                self.year_day = Some(self.number(1, 3)?);
            }
            Token::Hour => self.hour = self.number(2, 2)?,
            Token::Hour12 => self.hour = self.number(1, 2)?,
            Token::Hour12Zero => self.hour = self.number(2, 2)?,
            Token::Minute => self.minute = self.number(1, 2)?,
            Token::MinuteZero => self.minute = self.number(2, 2)?,
            Token::Second | Token::SecondZero => {
                self.second = self.number(if token == Token::Second { 1 } else { 2 }, 2)?;
                // Go takes a fraction after the seconds that the layout does not mention.
                if self.value.starts_with(['.', ',']) && fraction(tail).is_none() {
                    self.fraction(None)?;
                }
            }
            Token::Year => self.year = self.number(4, 4)?,
            Token::YearShort => {
                let year: i16 = self.number(2, 2)?;
                self.year = if year >= 69 { 1900 + year } else { 2000 + year };
            }
            Token::Pm { upper } => {
                let (text, rest) = self.value.split_at_checked(2)?;
                self.pm = Some(match (text, upper) {
                    ("PM", true) | ("pm", false) => true,
                    ("AM", true) | ("am", false) => false,
                    _ => return None,
                });
                self.value = rest;
            }
            Token::Zone => {
                let letters = self.value.bytes().take_while(u8::is_ascii_uppercase).count();
                if !(3..=5).contains(&letters) {
                    return None;
                }
                // Abbreviations are ambiguous; Go, too, gives unknown ones the offset 0.
                self.value = &self.value[letters..];
            }
            Token::Offset { iso, minutes, colon, seconds } => self.offset(iso, minutes, colon, seconds)?,
            Token::Fraction { digits, trim, .. } => {
                if trim && !self.value.starts_with(['.', ',']) {
                    return Some(());
                }
                self.fraction((!trim).then_some(digits))?;
            }
        }
        Some(())
    }

    fn number<N: std::str::FromStr>(&mut self, least: usize, most: usize) -> Option<N> {
        let digits = self.value.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if digits < least {
            return None;
        }
        let (number, rest) = self.value.split_at(digits);
        self.value = rest;
        number.parse().ok()
    }

    fn name(&mut self, names: &[&'static str], cut: Option<usize>) -> Option<i8> {
        for (index, name) in names.iter().enumerate() {
            let name = &name[..cut.unwrap_or(name.len())];
            if let Some((head, rest)) = self.value.split_at_checked(name.len())
                && head.eq_ignore_ascii_case(name)
            {
                self.value = rest;
                return i8::try_from(index + 1).ok();
            }
        }
        None
    }

    fn fraction(&mut self, digits: Option<usize>) -> Option<()> {
        let rest = self.value.strip_prefix(['.', ','])?;
        let count = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count = digits.unwrap_or(count);
        let (digits, rest) = rest.split_at_checked(count)?;
        if digits.is_empty() || count > 9 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        self.nanos = format!("{digits:0<9}").parse().ok()?;
        self.value = rest;
        Some(())
    }

    fn offset(&mut self, iso: bool, minutes: bool, colon: bool, seconds: bool) -> Option<()> {
        if iso && let Some(rest) = self.value.strip_prefix('Z') {
            self.value = rest;
            self.offset = Some(0);
            return Some(());
        }
        let sign = match self.value.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        self.value = &self.value[1..];
        let mut total: i32 = self.number::<i32>(2, 2)? * 3600;
        for (wanted, unit) in [(minutes, 60), (seconds, 1)] {
            if wanted {
                if colon {
                    self.value = self.value.strip_prefix(':')?;
                }
                total += self.number::<i32>(2, 2)? * unit;
            }
        }
        self.offset = Some(sign * total);
        Some(())
    }
}

/// Keeps [`Weekday`]'s numbering in sight: Go counts from Sunday.
const _: () = assert!(Weekday::Sunday.to_sunday_zero_offset() == 0);

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> GoTime {
        GoTime::from_ms(1_700_000_000_123)
    }

    #[test]
    fn formats_by_layouts() {
        let cases = [
            ("2006-01-02T15:04:05Z07:00", "2023-11-14T22:13:20Z"),
            ("Mon, 02 Jan 2006 15:04:05 MST", "Tue, 14 Nov 2023 22:13:20 UTC"),
            ("Monday January _2 3:04PM .000 ,999", "Tuesday November 14 10:13PM .123 ,123"),
            ("06/1/2 03 pm -0700 002", "23/11/14 10 pm +0000 318"),
            ("15h04 Month Janus", "22h13 Month Janus"),
            ("2006.000000", "2023.123000"),
        ];
        for (layout, text) in cases {
            assert_eq!(time().format(layout), text);
        }
        assert_eq!(time().to_string(), "2023-11-14 22:13:20.123 +0000 UTC");
        assert_eq!(time().in_zone("Europe/Berlin").unwrap().to_string(), "2023-11-14 23:13:20.123 +0100 CET");
        assert_eq!(time().in_zone("Mars/Olympus").unwrap_err(), "unknown time zone Mars/Olympus");
        assert_eq!(GoTime::zero().to_string(), "0001-01-01 00:00:00 +0000 UTC");
        assert_eq!(time().json(), "\"2023-11-14T22:13:20.123Z\"");
    }

    #[test]
    fn parses_by_layouts() {
        let cases = [
            ("2006-01-02", "2023-11-14", "2023-11-14 00:00:00 +0000 UTC"),
            ("2006-01-02T15:04:05Z07:00", "2023-11-14T22:13:20.5+01:00", "2023-11-14 22:13:20.5 +0100 +01"),
            ("Jan _2, 2006 at 3:04pm (MST)", "Feb  3, 2013 at 7:54pm (PST)", "2013-02-03 19:54:00 +0000 UTC"),
            ("06-002", "23-060", "2023-03-01 00:00:00 +0000 UTC"),
        ];
        for (layout, value, text) in cases {
            assert_eq!(parse(layout, value).unwrap().to_string(), text, "{layout} {value}");
        }
        for (layout, value) in
            [("2006-01-02", "2023-02-30"), ("2006", "23"), ("15:04", "25:00"), ("2006", "2023x")]
        {
            assert!(parse(layout, value).is_err(), "{layout} {value}");
        }
    }

    #[test]
    fn durations_print_like_go() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (1_010_000, "1.01ms"),
            (1_000_000_000, "1s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (-90_061_000_000_000, "-25h1m1s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(GoDuration(nanos).to_string(), text);
        }
        assert_eq!(GoDuration(1_500_000_000).round(1_000_000_000, true), GoDuration(2_000_000_000));
        assert_eq!(GoDuration(-1_500_000_000).round(1_000_000_000, false), GoDuration(-1_000_000_000));
    }

    #[test]
    fn months_overflow_as_in_go() {
        let start = parse("2006-01-02", "2023-01-31").unwrap();
        assert_eq!(start.add_date(0, 1, 0).unwrap().format("2006-01-02"), "2023-03-03");
        assert_eq!(start.add_date(1, -1, 1).unwrap().format("2006-01-02"), "2024-01-01");
        assert!(start.add_date(i32::MAX, 0, 0).is_err());
    }
}
