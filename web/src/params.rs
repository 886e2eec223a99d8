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

/// The parameters of one request, in order: those of a form body, those of the URL, those of a multipart body.
///
/// As in Go, a pair that cannot be read (a broken escape, a semicolon) is left out and the others count; only handlers
/// that ask for [`Params::malformed`] refuse such a request.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
    malformed: Option<String>,
}

impl Params {
    /// Reads the form body (if any) and the URL's query.
    pub fn new(query: Option<&str>, body: Option<&[u8]>) -> Self {
        let mut params = Self::default();
        params.read(body.unwrap_or_default());
        params.read(query.unwrap_or_default().as_bytes());
        params
    }

    /// Adds the fields of a multipart body behind what is there.
    pub fn extend(&mut self, fields: impl IntoIterator<Item = (String, String)>) {
        self.pairs.extend(fields);
    }

    /// The first thing that could not be read, in Go's words.
    pub fn malformed(&self) -> Option<&str> {
        self.malformed.as_deref()
    }

    fn read(&mut self, text: &[u8]) {
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            match read_pair(pair) {
                Ok(pair) => self.pairs.push(pair),
                Err(error) => {
                    self.malformed.get_or_insert(error);
                }
            }
        }
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
        let Some(text) = self.get(name) else { return Ok(default) };
        parse_time(text)
            .map_err(|error| ApiError::parameter(name, format!("invalid time value for '{name}': {error}")))
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

    /// A switch, off when absent.
    ///
    /// # Errors
    /// When the parameter is none of the words that Go's `strconv.ParseBool` reads.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some(text) => {
                let text = crate::json::string(text);
                let reason =
                    format!("unable to parse boolean: strconv.ParseBool: parsing {text}: invalid syntax");
                Err(ApiError::parameter(name, reason))
            }
        }
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
        let number = parse_go_int("Atoi", text).map_err(|error| ApiError::parameter(name, error))?;
        usize::try_from(number).map_err(|_| ApiError::parameter(name, "limit must be non-negative"))
    }

    /// `start` and `end` of metadata requests: all of time by default.
    ///
    /// Observed: Prometheus answers reversed ends with 200 and what lives through all of the time between; here they are
    /// read the right way round.
    ///
    /// # Errors
    /// When either is no time.
    pub fn time_range(&self) -> Result<TimeRange, ApiError> {
        let start = self.time("start", TIME_MIN)?;
        let end = self.time("end", TIME_MAX)?;
        Ok(TimeRange::new(start.min(end), start.max(end)))
    }
}

fn read_pair(pair: &[u8]) -> Result<(String, String), String> {
    if pair.contains(&b';') {
        return Err("invalid semicolon separator in query".to_owned());
    }
    let mut halves = pair.splitn(2, |byte| *byte == b'=');
    let mut half = || unescape(halves.next().unwrap_or_default());
    Ok((half()?, half()?))
}

/// Go's `url.QueryUnescape`; bytes that are no UTF-8 become replacement characters.
fn unescape(text: &[u8]) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            (b'%', _) => {
                let broken = String::from_utf8_lossy(&after[..after.len().min(2)]);
                return Err(format!("invalid URL escape {}", crate::json::string(&format!("%{broken}"))));
            }
            _ => out.push(*byte),
        }
    }
    Ok(String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The value of a hexadecimal digit; 0 for anything else.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

/// An integer, or the error of Go's `strconv.FUNCTION`.
///
/// # Errors
/// Go's text when it is none.
pub fn parse_go_int(function: &str, text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse().map_err(|error: std::num::ParseIntError| {
        let reason = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.{function}: parsing {}: {reason}", crate::json::string(text))
    })
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
    if seconds <= (TIME_MIN / 1000) as f64 {
        return TIME_MIN;
    }
    if seconds >= (TIME_MAX / 1000) as f64 {
        return TIME_MAX;
    }
    // As Prometheus does: the fraction is rounded by itself, so that 1.0005, which is a little less, becomes 1.000.
    let fraction = (seconds.fract() * 1000.0).round() / 1000.0;
    // In range by the checks above.
    let nanos = (fraction * 1e9) as i64;
    seconds.trunc() as i64 * 1000 + nanos.div_euclid(1_000_000)
}

/// The shape of RFC 3339, and Go's bounds where jiff knows more: no leap seconds, no offsets beyond a day.
fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = |index: usize, byte: u8| bytes.get(index) == Some(&byte);
    let zone = match bytes {
        [.., b'Z'] => true,
        [.., b'+' | b'-', tens, ones, b':', _, _] => (*tens, *ones) <= (b'2', b'4'),
        _ => false,
    };
    bytes.len() >= 20
        && !shape(17, b'6')
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
        // NaN becomes 0, which no parameter accepts where it matters; Go makes it negative.
        if nanos.abs() >= NANOS_MAX {
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
            ("1.0005", 1_000),
            ("-0.25", -250),
            ("-1.5", -1_500),
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
        let bad = [
            "",
            "0x5",
            "now",
            "2026-11-22",
            "2026-11-22 20:35:56Z",
            "2026-11-22t20:35:56z",
            "2026-11-22T20:35:60Z",
            "2026-11-22T20:35:56+25:00",
            "2026-13-01T00:00:00Z",
            "12:00",
        ];
        for text in bad {
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
        assert_eq!(parse_duration_ms("NaN"), Ok(0));
    }

    #[test]
    fn switches_are_read_as_go_does() {
        let flag = |query: &str| Params::new(Some(query), None).flag("skip_head").map_err(|error| error.text);
        for (query, value) in
            [("", false), ("skip_head=", false), ("skip_head=0", false), ("skip_head=T", true)]
        {
            assert_eq!(flag(query), Ok(value), "{query}");
        }
        let text = "invalid parameter \"skip_head\": unable to parse boolean: strconv.ParseBool: parsing \"yes\": invalid syntax";
        assert_eq!(flag("skip_head=yes"), Err(text.to_owned()));
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

    #[test]
    fn broken_pairs_are_left_out_and_remembered() {
        let params = Params::new(Some("a=%zz&b=1;c=2&d=%C3%A9+x&e=%4&=f&g"), None);
        assert_eq!(params.malformed(), Some("invalid URL escape \"%zz\""));
        assert_eq!(
            (params.get("a"), params.get("b"), params.get("d"), params.get("e")),
            (None, None, Some("é x"), None)
        );
        assert_eq!(params.all("g").collect::<Vec<_>>(), [""]);
        let semicolon = Params::new(None, Some(b"a;b"));
        assert_eq!(semicolon.malformed(), Some("invalid semicolon separator in query"));
        assert_eq!(Params::new(Some("a=%FF"), None).get("a"), Some("\u{fffd}"));
    }

    #[test]
    fn limits_and_ranges() {
        let error = |query: &str| Params::new(Some(query), None).limit("limit").unwrap_err().text;
        assert_eq!(
            error("limit=99999999999999999999"),
            "invalid parameter \"limit\": strconv.Atoi: parsing \"99999999999999999999\": value out of range"
        );
        assert_eq!(error("limit=-1"), "invalid parameter \"limit\": limit must be non-negative");
        let range = Params::new(Some("start=5&end=2"), None).time_range();
        assert_eq!(range, Ok(TimeRange::new(2_000, 5_000)));
        let error = Params::new(Some("start=x"), None).time_range().unwrap_err();
        assert_eq!(
            error.text,
            "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp"
        );
    }
}
