//! Numbers as Go's `strconv` reads and writes them.

use model::sample::normal_nan;

/// Why a text is no number. Texts are Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Not a number at all.
    #[error("strconv.ParseFloat: parsing {}: invalid syntax", model::labels::Quoted(.0))]
    Syntax(String),
    /// Too large for a double.
    #[error("strconv.ParseFloat: parsing {}: value out of range", model::labels::Quoted(.0))]
    Range(String),
    /// Hexadecimal and underscores, which exposition formats do not have.
    #[error("unsupported character in float")]
    Unsupported,
}

/// Powers of ten that doubles hold exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Parses a value: decimal notation, `Inf` and `NaN` in any case; NaN without sign only, and always with the one
/// payload of [`model::sample::NORMAL_NAN_BITS`].
///
/// # Errors
/// See [`NumberError`].
pub fn parse_float(text: &[u8]) -> Result<f64, NumberError> {
    if let Some(value) = parse_short(text) {
        return Ok(value);
    }
    parse_any(text)
}

/// Plain decimals of at most 15 digits: mantissa and power of ten are exact, so one division rounds right (Clinger's
/// fast path).
fn parse_short(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut mantissa = 0u64;
    let mut count = 0;
    let mut point = None;
    for (index, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa * 10 + u64::from(byte - b'0');
                count += 1;
            }
            b'.' if point.is_none() => point = Some(index),
            _ => return None,
        }
    }
    if count == 0 || count > 15 {
        return None;
    }
    let decimals = point.map_or(0, |index| digits.len() - index - 1);
    let value = mantissa as f64 / TENS.get(decimals)?;
    Some(if negative { -value } else { value })
}

fn parse_any(text: &[u8]) -> Result<f64, NumberError> {
    let shown = || String::from_utf8_lossy(text.get(..text.len().min(64)).unwrap_or_default()).into_owned();
    if text.iter().any(|byte| matches!(byte, b'p' | b'P' | b'_')) {
        return Err(NumberError::Unsupported);
    }
    let Ok(string) = std::str::from_utf8(text) else {
        return Err(NumberError::Syntax(shown()));
    };
    let value: f64 = string.parse().map_err(|_| NumberError::Syntax(shown()))?;
    let unsigned = string.trim_start_matches(['+', '-']);
    if value.is_nan() {
        // Go knows no signed NaN.
        return if unsigned.len() == string.len() {
            Ok(normal_nan())
        } else {
            Err(NumberError::Syntax(shown()))
        };
    }
    if value.is_infinite() && !unsigned.starts_with(['i', 'I']) {
        return Err(NumberError::Range(shown()));
    }
    Ok(value)
}

/// Bucket bounds and quantiles as Prometheus normalises them: `1` becomes `1.0`, `1000000` becomes `1e+06`.
/// (`formatOpenMetricsFloat`: Go's `%g` with the fewest digits, and a decimal point or exponent always.)
pub fn format_bound(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if v == 0.0 {
        // Prometheus takes a shortcut for zeros of either sign.
        return "0.0".to_owned();
    }
    // Shortest digits in exponent form, `d.ddde±x`: the exponent alone decides, as in Go with shortest digits.
    let scientific = format!("{v:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("exponent form has an e");
    let exponent: i32 = exponent.parse().expect("the exponent is a small integer");
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let fixed = format!("{v}");
    if fixed.contains('.') { fixed } else { format!("{fixed}.0") }
}
