//! Parameters of requests: URL query and form body alike, with Prometheus' notations for times and durations.

use std::time::Duration;

use model::{TimeRange, Timestamp, duration};

use crate::envelope::ApiError;

/// Earliest time Prometheus' API knows, in milliseconds (`minTime` of its `web/api/v1`).
pub const TIME_MIN: Timestamp = (i64::MIN / 1000 + 62_135_596_801) * 1000;
/// Latest time Prometheus' API knows, in milliseconds.
pub const TIME_MAX: Timestamp = (i64::MAX / 1000 - 62_135_596_801) * 1000 + 999;
const TIME_MIN_TEXT: &str = "-292273086-05-16T16:47:06Z";
const TIME_MAX_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// The parameters of one request, in order: those of the body before those of the URL.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Reads the form body (if any) and the URL's query.
    pub fn new(query: Option<&str>, body: Option<&[u8]>) -> Self {
        let form = body.into_iter().flat_map(url::form_urlencoded::parse);
        let query = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let pairs = form.chain(query).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Self { pairs }
    }

    /// The first value of `name`; an empty one counts as not given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A time, or `default`.
    ///
    /// # Errors
    /// When the parameter is no time.
    pub fn time(&self, name: &str, default: Timestamp) -> Result<Timestamp, ApiError> {
        self.get(name)
            .map_or(Ok(default), |text| parse_time(text).map_err(|error| ApiError::parameter(name, error)))
    }

    /// A time that must be given.
    ///
    /// # Errors
    /// When the parameter is absent or no time.
    pub fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        parse_time(self.get(name).unwrap_or_default()).map_err(|error| ApiError::parameter(name, error))
    }

    /// A duration, if given.
    ///
    /// # Errors
    /// When the parameter is no duration.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name)
            .map(|text| parse_duration_ms(text).map_err(|error| ApiError::parameter(name, error)))
            .transpose()
    }

    /// `timeout`, at most `limit`.
    ///
    /// # Errors
    /// When the parameter is no duration.
    pub fn timeout(&self, limit: Duration) -> Result<Duration, ApiError> {
        let given = self.duration_ms("timeout")?;
        Ok(given.map_or(limit, |ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(limit)))
    }

    /// A count that is not negative; 0 (or absent) means no limit.
    ///
    /// # Errors
    /// When the parameter is no such count.
    pub fn limit(&self, name: &str) -> Result<usize, ApiError> {
        let Some(text) = self.get(name) else { return Ok(0) };
        let number: i64 = text.parse().map_err(|_| {
            ApiError::parameter(
                name,
                format!("strconv.Atoi: parsing {}: invalid syntax", crate::json::string(text)),
            )
        })?;
        usize::try_from(number).map_err(|_| ApiError::parameter(name, "limit must be non-negative"))
    }

    /// `start` and `end` of metadata requests: all of time by default.
    ///
    /// # Errors
    /// When either is no time, or they are reversed.
    pub fn time_range(&self) -> Result<TimeRange, ApiError> {
        let start = self.time("start", TIME_MIN)?;
        let end = self.time("end", TIME_MAX)?;
        if end < start {
            return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
        }
        Ok(TimeRange::new(start, end))
    }
}

/// A time: seconds as a float, RFC 3339, or one of the two texts that stand for the ends of time.
///
/// # Errors
/// Prometheus' text when it is none of these.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    match text {
        TIME_MIN_TEXT => return Ok(TIME_MIN),
        TIME_MAX_TEXT => return Ok(TIME_MAX),
        _ => {}
    }
    if let Some(seconds) = parse_go_float(text) {
        return Ok(millis(seconds));
    }
    text.parse::<jiff::Timestamp>()
        .ok()
        // jiff reads more than RFC 3339 does (a space for the T, no seconds, offsets without colon).
        .filter(|_| is_rfc3339(text))
        .map(|time| time.as_millisecond())
        .ok_or_else(|| format!("cannot parse {} to a valid timestamp", crate::json::string(text)))
}

/// Seconds to milliseconds, rounded, kept within the API's ends of time.
fn millis(seconds: f64) -> Timestamp {
    if seconds.is_nan() {
        return TIME_MIN;
    }
    let ms = (seconds * 1000.0).round();
    if ms <= TIME_MIN as f64 {
        TIME_MIN
    } else if ms >= TIME_MAX as f64 {
        TIME_MAX
    } else {
        // In range by the checks above.
        ms as i64
    }
}

fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = |index: usize, byte: u8| bytes.get(index) == Some(&byte);
    let zone = text.ends_with('Z')
        || (text.len() >= 6
            && text.is_char_boundary(text.len() - 3)
            && text[text.len() - 3..].starts_with(':'));
    bytes.len() >= 20
        && shape(4, b'-')
        && shape(7, b'-')
        && shape(10, b'T')
        && shape(13, b':')
        && shape(16, b':')
        && zone
}

/// 2^63: Go holds durations as nanoseconds in an int64.
const NANOS_MAX: f64 = 9_223_372_036_854_775_808.0;

/// A duration in milliseconds: seconds as a float, or Prometheus' notation.
///
/// # Errors
/// Prometheus' text when it is neither.
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    let invalid = || format!("cannot parse {} to a valid duration", crate::json::string(text));
    if let Some(seconds) = parse_go_float(text) {
        let nanos = seconds * 1e9;
        // NaN overflows, too.
        if nanos.is_nan() || nanos.abs() >= NANOS_MAX {
            return Err(format!("{}. It overflows int64", invalid()));
        }
        return Ok((nanos / 1e6) as i64);
    }
    duration::parse_ms(text).map_err(|_| invalid())
}

/// What Go's `strconv.ParseFloat` reads, but for hexadecimal floats, which nobody sends.
fn parse_go_float(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_all_notations() {
        let good = [
            ("1500000000.5", 1_500_000_000_500),
            ("1.0005", 1_001),
            ("-1", -1_000),
            ("2026-11-22T20:35:56.25Z", 1_795_379_756_250),
            ("2026-11-22T21:35:56+01:00", 1_795_379_756_000),
            (TIME_MIN_TEXT, TIME_MIN),
            (TIME_MAX_TEXT, TIME_MAX),
            ("1e300", TIME_MAX),
            ("NaN", TIME_MIN),
        ];
        for (text, t) in good {
            assert_eq!(parse_time(text), Ok(t), "{text}");
        }
        for text in ["", "0x5", "now", "2026-11-22", "2026-11-22 20:35:56Z", "12:00"] {
            assert_eq!(parse_time(text), Err(format!("cannot parse \"{text}\" to a valid timestamp")));
        }
    }

    #[test]
    fn durations_in_both_notations() {
        assert_eq!(parse_duration_ms("15"), Ok(15_000));
        assert_eq!(parse_duration_ms("0.0001"), Ok(0));
        assert_eq!(parse_duration_ms("1m30s"), Ok(90_000));
        assert_eq!(parse_duration_ms("1ns"), Err("cannot parse \"1ns\" to a valid duration".to_owned()));
        assert!(parse_duration_ms("1e300").unwrap_err().ends_with("It overflows int64"));
        assert!(parse_duration_ms("NaN").is_err());
    }

    #[test]
    fn the_body_comes_before_the_url() {
        let params = Params::new(Some("query=b&match[]=x&empty="), Some(b"query=a+1&match%5B%5D=y"));
        assert_eq!(params.get("query"), Some("a 1"));
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["y", "x"]);
        assert_eq!(params.get("empty"), None);
        assert_eq!(params.limit("limit"), Ok(0));
        let bad = Params::new(Some("limit=x"), None).limit("limit").unwrap_err();
        assert_eq!(bad.text, "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax");
    }
}
