//! Durations in Prometheus' notation: `1h30m`, `5m`, `15s`, `100ms`, `1d`, `2w`, `1y`, `0`.
//!
//! Units appear once each, largest first. A day has 24 h, a week 7 d, a year 365 d.

use std::time::Duration;

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// The empty string.
    #[error("empty duration string")]
    Empty,
    /// No number with unit, a unit out of order, or an unknown one.
    #[error("not a valid duration string: {0:?}")]
    Invalid(String),
    /// More milliseconds than 2^63 nanoseconds hold (Prometheus' limit).
    #[error("duration out of range")]
    OutOfRange,
}

/// Parses `text` into milliseconds.
///
/// # Errors
/// When `text` is empty, malformed, or longer than about 292 years.
pub fn parse_ms(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    match text {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(0),
        _ => {}
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let number: u64 = if digits == 0 {
            return Err(invalid());
        } else {
            number.parse().map_err(|_| DurationError::OutOfRange)?
        };
        let unit_len = tail.bytes().take_while(|b| !b.is_ascii_digit()).count();
        let (unit, tail) = tail.split_at(unit_len);
        let index = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        if index < next_unit {
            return Err(invalid());
        }
        next_unit = index + 1;
        total = number
            .checked_mul(UNITS[index].1)
            .and_then(|ms| total.checked_add(ms))
            .ok_or(DurationError::OutOfRange)?;
        rest = tail;
    }
    // Prometheus holds durations as nanoseconds in an int64.
    if total > (i64::MAX as u64) / 1_000_000 {
        return Err(DurationError::OutOfRange);
    }
    i64::try_from(total).map_err(|_| DurationError::OutOfRange)
}

/// Parses `text` into a [`Duration`].
///
/// # Errors
/// As [`parse_ms`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    parse_ms(text).map(|ms| Duration::from_millis(ms.unsigned_abs()))
}

/// Milliseconds in Prometheus' notation: `90000` is `1m30s`. Weeks and years only when nothing is left over
/// (`365d` is `1y`, `8d` is `8d`).
pub fn format_ms(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut left = ms.unsigned_abs();
    for (unit, size) in UNITS {
        let exact = matches!(unit, "y" | "w");
        if exact && !left.is_multiple_of(size) {
            continue;
        }
        let count = left / size;
        if count > 0 {
            out.push_str(&count.to_string());
            out.push_str(unit);
            left -= count * size;
        }
    }
    out
}

/// A [`Duration`] in Prometheus' notation.
pub fn format(duration: Duration) -> String {
    format_ms(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_prometheus_reads() {
        let good = [
            ("0", 0),
            ("0s", 0),
            ("1ms", 1),
            ("1m30s", 90_000),
            ("1h30m", 5_400_000),
            ("1y", 31_536_000_000),
            ("2w1d", 15 * 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
        ];
        for (text, ms) in good {
            assert_eq!(parse_ms(text), Ok(ms), "{text}");
        }
        assert_eq!(parse_ms(""), Err(DurationError::Empty));
        for text in ["1", "5", "s", "1x", "-1s", "1.5h", "1s1m", "1m1m", "1 m", "1ns", "m5"] {
            assert_eq!(parse_ms(text), Err(DurationError::Invalid(text.to_owned())), "{text}");
        }
        for text in ["300y", "99999999999999999999s", "9223372036855ms1y"] {
            assert!(parse_ms(text).is_err(), "{text}");
        }
        assert_eq!(parse_ms("99999999999999999999s"), Err(DurationError::OutOfRange));
    }

    #[test]
    fn prints_the_shortest_exact_form() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (90_000, "1m30s"),
            (86_400_000, "1d"),
            (8 * 86_400_000, "8d"),
            (14 * 86_400_000, "2w"),
            (365 * 86_400_000, "1y"),
            (366 * 86_400_000, "366d"),
            (-60_000, "-1m"),
        ];
        for (ms, text) in cases {
            assert_eq!(format_ms(ms), text);
        }
    }
}
