//! Timestamps as the API and the webhook write them, and as clients send them.
//!
//! Go's zero time (`0001-01-01T00:00:00Z`) stands for "none" in both directions.

use model::Timestamp;

/// Go's zero time.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// `RFC3339Nano` in UTC: the fraction without trailing zeros, none when it is zero.
pub fn nano(at: Timestamp) -> String {
    let (seconds, ms) = split(at);
    if ms == 0 {
        return format!("{}Z", to_seconds(seconds));
    }
    let fraction = format!("{ms:03}");
    format!("{}.{}Z", to_seconds(seconds), fraction.trim_end_matches('0'))
}

/// `RFC3339Nano` in UTC, the zero time for `None`.
pub fn nano_or_zero(at: Option<Timestamp>) -> String {
    at.map_or_else(|| ZERO.to_owned(), nano)
}

/// Three digits of fraction always: the form of API v2.
pub fn millis(at: Timestamp) -> String {
    let (seconds, ms) = split(at);
    format!("{}.{ms:03}Z", to_seconds(seconds))
}

fn split(at: Timestamp) -> (i64, i64) {
    (at.div_euclid(1000), at.rem_euclid(1000))
}

fn to_seconds(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        // Outside of years -9999..9999: no RFC 3339 text exists; the nearest end says enough.
        Err(_) if seconds < 0 => "0000-01-01T00:00:00".to_owned(),
        Err(_) => "9999-12-31T23:59:59".to_owned(),
    }
}

/// Reads an RFC 3339 timestamp with any offset; the zero time and the empty text are `None`.
///
/// # Errors
/// With Go's wording when `text` is no timestamp.
pub fn parse(text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() || text.starts_with("0001-01-01T00:00:00") {
        return Ok(None);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Some(at.as_millisecond()));
    }
    let date = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 10);
    if let Some(midnight) = date.and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
        return Ok(Some(midnight.timestamp().as_millisecond()));
    }
    let text = text.chars().take(100).collect::<String>();
    Err(format!("parsing time {text:?} as \"2006-01-02\": cannot parse {text:?} as \"2006\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_back() {
        assert_eq!(nano(0), "1970-01-01T00:00:00Z");
        assert_eq!(nano(1_700_000_000_120), "2023-11-14T22:13:20.12Z");
        assert_eq!(millis(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
        assert_eq!(nano_or_zero(None), ZERO);
        for at in [0, 1, -1, 1_700_000_000_120, -62_135_596_799_000] {
            assert_eq!(parse(&nano(at)), Ok(Some(at)), "{at}");
            assert_eq!(parse(&millis(at)), Ok(Some(at)), "{at}");
        }
        assert_eq!(parse("2023-11-15T00:13:20.1234567+02:00"), Ok(Some(1_700_000_000_123)));
        assert_eq!(parse("2023-11-15"), Ok(Some(1_700_006_400_000)));
        assert_eq!(parse(ZERO), Ok(None));
        assert_eq!(parse("0001-01-01T00:00:00.000Z"), Ok(None));
        assert!(parse("nope").is_err());
        assert_eq!(nano(i64::MAX), "9999-12-31T23:59:59.807Z");
    }
}
