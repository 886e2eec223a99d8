//! Time intervals: when a route is muted or active, by the calendar of a time zone.
//!
//! A field of an interval is a list of ranges (any of them), an interval is all of its fields, a named interval is
//! any of its intervals. Ends of times are exclusive, ends of all other ranges inclusive. Semantics and messages
//! are those of Alertmanager 0.33's `timeinterval` package.

use std::collections::BTreeMap;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use model::Timestamp;

/// An inclusive range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First.
    pub begin: i32,
    /// Last.
    pub end: i32,
}

impl Range {
    fn holds(self, value: i32) -> bool {
        (self.begin..=self.end).contains(&value)
    }
}

/// One interval: `None` fields hold always.
#[derive(Clone, Debug, Default)]
pub struct TimeInterval {
    /// Minutes of the day, end exclusive.
    pub times: Option<Vec<Range>>,
    /// Sunday is 0.
    pub weekdays: Option<Vec<Range>>,
    /// 1 to 31, or −31 to −1 from the end of the month.
    pub days_of_month: Option<Vec<Range>>,
    /// January is 1.
    pub months: Option<Vec<Range>>,
    /// Calendar years.
    pub years: Option<Vec<Range>>,
    /// Where the calendar hangs; `None` is UTC.
    pub location: Option<TimeZone>,
}

impl TimeInterval {
    /// Whether the interval holds at `at`. A time outside of the calendar is in no interval.
    pub fn contains(&self, at: Timestamp) -> bool {
        let Ok(at) = jiff::Timestamp::from_millisecond(at) else { return false };
        let local = at.to_zoned(self.location.clone().unwrap_or(TimeZone::UTC));
        let in_any = |ranges: &Option<Vec<Range>>, value: i32| {
            ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.holds(value)))
        };
        let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
        let in_times = self
            .times
            .as_ref()
            .is_none_or(|times| times.iter().any(|range| (range.begin..range.end).contains(&minute)));
        in_times
            && self.in_days_of_month(i32::from(local.day()), i32::from(local.days_in_month()))
            && in_any(&self.months, i32::from(local.month()))
            && in_any(&self.weekdays, i32::from(local.weekday().to_sunday_zero_offset()))
            && in_any(&self.years, i32::from(local.year()))
    }

    fn in_days_of_month(&self, day: i32, days_in_month: i32) -> bool {
        let Some(ranges) = &self.days_of_month else { return true };
        ranges.iter().any(|range| {
            let from_start = |day: i32| if day < 0 { days_in_month + day + 1 } else { day };
            let (begin, end) = (from_start(range.begin), from_start(range.end));
            // A range that begins after the end of this month is not in it; one that ends there is cut.
            begin <= days_in_month && (begin..=end.min(days_in_month)).contains(&day)
        })
    }
}

/// All named intervals of a configuration.
#[derive(Clone, Debug, Default)]
pub struct TimeIntervals {
    named: BTreeMap<String, Vec<TimeInterval>>,
}

impl TimeIntervals {
    /// From names and their intervals.
    pub fn new(named: BTreeMap<String, Vec<TimeInterval>>) -> Self {
        Self { named }
    }

    /// Whether there is an interval called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// Those of `names` that hold at `at`, in the order of `names`.
    pub fn holding<'a>(&self, names: &'a [String], at: Timestamp) -> Vec<&'a str> {
        let holds = |name: &String| {
            self.named
                .get(name)
                .is_some_and(|intervals| intervals.iter().any(|interval| interval.contains(at)))
        };
        names.iter().filter(|name| holds(name)).map(String::as_str).collect()
    }
}

/// Reads `HH:MM`, `24:00` included, into minutes.
pub fn parse_time(text: &str) -> Result<i32, String> {
    let invalid = || "couldn't parse timestamp, invalid format".to_owned();
    let (hours, minutes) = text.split_once(':').ok_or_else(invalid)?;
    let digits = |part: &str| -> Result<i32, String> {
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        part.parse().map_err(|_| invalid())
    };
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    if hours * 60 + minutes > 24 * 60 || minutes > 59 {
        return Err(invalid());
    }
    Ok(hours * 60 + minutes)
}

/// Reads a time range.
pub fn parse_time_range(start: &str, end: &str) -> Result<Range, String> {
    if start.is_empty() || end.is_empty() {
        return Err("both start and end times must be provided".to_owned());
    }
    let (begin, end) = (parse_time(start)?, parse_time(end)?);
    if begin >= end {
        return Err("start time cannot be equal or greater than end time".to_owned());
    }
    Ok(Range { begin, end })
}

/// Reads a weekday or a range of them: `monday`, `monday:friday`.
pub fn parse_weekdays(text: &str) -> Result<Range, String> {
    let text = text.to_lowercase();
    parse_range(&text, |day| {
        const DAYS: [&str; 7] =
            ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
        let position = DAYS.iter().position(|name| *name == day);
        let weekday = position.and_then(|p| Weekday::from_sunday_zero_offset(p as i8).ok());
        weekday
            .map(|day| i32::from(day.to_sunday_zero_offset()))
            .ok_or_else(|| format!("{day} is not a valid weekday"))
    })
    .and_then(|range| ordered(range, "start day cannot be before end day"))
}

/// Reads a day of the month or a range: `1`, `1:5`, `-3:-1`.
pub fn parse_days_of_month(text: &str) -> Result<Range, String> {
    let range =
        parse_range(text, |day| day.parse().map_err(|_| format!("{day} is not a valid day of the month")))?;
    for day in [range.begin, range.end] {
        if day == 0 || !(-31..=31).contains(&day) {
            return Err(format!("{day} is not a valid day of the month: out of range"));
        }
    }
    if range.begin < 0 && range.end > 0 {
        return Err("end day must be negative if start day is negative".to_owned());
    }
    // Compared within the longest month: `1:-1` is the whole of every month.
    let within = |day: i32| if day < 0 { 31 + day + 1 } else { day };
    if within(range.begin) > within(range.end) {
        return Err(format!("end day {} is always before start day {}", range.end, range.begin));
    }
    Ok(range)
}

/// Reads a month by name or number, or a range.
pub fn parse_months(text: &str) -> Result<Range, String> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let text = text.to_lowercase();
    parse_range(&text, |month| {
        let by_name = MONTHS.iter().position(|name| *name == month).map(|index| index as i32 + 1);
        // Numbers beyond 12 are accepted there, and hold in no month.
        by_name.or_else(|| month.parse().ok()).ok_or_else(|| format!("{month} is not a valid month"))
    })
    .and_then(|range| ordered(range, "end month cannot be before start month"))
}

/// Reads a year or a range.
pub fn parse_years(text: &str) -> Result<Range, String> {
    parse_range(text, |year| year.parse().map_err(|_| format!("{year} is not a valid year")))
        .and_then(|range| ordered(range, "end year cannot be before start year"))
}

/// Reads an IANA name, `UTC` or `Local`.
pub fn parse_location(text: &str) -> Result<TimeZone, String> {
    match text {
        "" | "UTC" => Ok(TimeZone::UTC),
        "Local" => Ok(TimeZone::system()),
        name => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

fn parse_range(text: &str, one: impl Fn(&str) -> Result<i32, String>) -> Result<Range, String> {
    match text.split_once(':') {
        None => one(text).map(|value| Range { begin: value, end: value }),
        Some((begin, end)) if !end.contains(':') => Ok(Range { begin: one(begin)?, end: one(end)? }),
        Some(_) => Err(format!("could not parse range {text:?}: expected one value or begin:end")),
    }
}

fn ordered(range: Range, message: &str) -> Result<Range, String> {
    if range.begin > range.end { Err(message.to_owned()) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        crate::rfc3339::parse(text).unwrap().unwrap()
    }

    #[test]
    fn fields_are_anded_and_lists_ored() {
        let interval = TimeInterval {
            times: Some(vec![parse_time_range("09:00", "17:00").unwrap()]),
            weekdays: Some(vec![parse_weekdays("Monday:friday").unwrap(), parse_weekdays("sunday").unwrap()]),
            ..TimeInterval::default()
        };
        assert!(interval.contains(at("2026-11-20T09:00:00Z"))); // a Friday
        assert!(!interval.contains(at("2026-11-20T08:59:59Z")));
        assert!(!interval.contains(at("2026-11-20T17:00:00Z")), "ends are exclusive");
        assert!(!interval.contains(at("2026-11-21T12:00:00Z")), "saturday");
        assert!(interval.contains(at("2026-11-22T12:00:00Z")), "sunday");
        assert!(TimeInterval::default().contains(at("2026-11-22T12:00:00Z")));
    }

    #[test]
    fn days_count_from_both_ends_and_are_cut_to_the_month() {
        let days = |text: &str| TimeInterval {
            days_of_month: Some(vec![parse_days_of_month(text).unwrap()]),
            ..TimeInterval::default()
        };
        assert!(days("-1").contains(at("2024-02-29T12:00:00Z")));
        assert!(!days("-1").contains(at("2024-02-28T12:00:00Z")));
        assert!(days("1:-1").contains(at("2023-02-01T00:00:00Z")));
        assert!(days("25:31").contains(at("2023-02-28T00:00:00Z")));
        assert!(!days("30:31").contains(at("2023-02-28T00:00:00Z")));
        for text in ["0", "32", "-32", "5:1", "-1:-3", "-3:2", "x", "1:2:3"] {
            assert!(parse_days_of_month(text).is_err(), "{text}");
        }
    }

    #[test]
    fn locations_follow_daylight_saving() {
        let interval = TimeInterval {
            times: Some(vec![parse_time_range("08:00", "09:00").unwrap()]),
            location: Some(parse_location("Europe/Berlin").unwrap()),
            ..TimeInterval::default()
        };
        assert!(interval.contains(at("2026-01-15T07:30:00Z")));
        assert!(!interval.contains(at("2026-07-15T07:30:00Z")));
        assert!(interval.contains(at("2026-07-15T06:30:00Z")));
        assert!(parse_location("Nowhere/Land").is_err());
    }

    #[test]
    fn refuses_what_alertmanager_refuses() {
        for (start, end) in
            [("", "10:00"), ("10:00", "10:00"), ("25:00", "26:00"), ("9:00", "10:00"), ("10:60", "11:00")]
        {
            assert!(parse_time_range(start, end).is_err(), "{start} {end}");
        }
        assert_eq!(parse_time_range("00:00", "24:00"), Ok(Range { begin: 0, end: 1440 }));
        assert!(parse_weekdays("friday:monday").is_err());
        assert!(parse_weekdays("1").is_err());
        assert_eq!(parse_months("may:august"), Ok(Range { begin: 5, end: 8 }));
        assert_eq!(parse_months("13"), Ok(Range { begin: 13, end: 13 }), "accepted there too");
        assert!(parse_years("2030:2020").is_err());
    }
}
