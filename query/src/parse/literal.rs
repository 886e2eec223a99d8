//! Values of literals: numbers, durations, strings. Accepts and refuses what Go's `strconv` and Prometheus'
//! `model.ParseDuration` do, with their error texts.

use model::duration::{self, DurationError};
use model::labels::Quoted;

/// Value of a number token, or the text of `error parsing number: …`.
pub(super) fn number(text: &str) -> Result<f64, String> {
    if let Some(integer) = integer(text) {
        #[expect(clippy::cast_precision_loss, reason = "Go's float64(int64) rounds the same way")]
        return Ok(integer as f64);
    }
    let syntax = || format!("strconv.ParseFloat: parsing {}: invalid syntax", Quoted(text));
    let digits = match text.contains('_') {
        true if underscores_fit(text) => text.replace('_', ""),
        true => return Err(syntax()),
        false => text.to_owned(),
    };
    if has_prefix(&digits, b'x') {
        // A hexadecimal float needs `p`, which the lexer does not let through.
        return Err(syntax());
    }
    let value: f64 = digits.parse().map_err(|_| syntax())?;
    if value.is_infinite() && digits.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(format!("strconv.ParseFloat: parsing {}: value out of range", Quoted(text)));
    }
    Ok(value)
}

/// Go's `strconv.ParseInt(text, 0, 64)` for text without sign: `0x` is hexadecimal, a leading zero octal, underscores
/// may separate digits.
fn integer(text: &str) -> Option<i64> {
    if text.contains('_') && !underscores_fit(text) {
        return None;
    }
    let digits = text.replace('_', "");
    if has_prefix(&digits, b'x') {
        return i64::from_str_radix(&digits[2..], 16).ok();
    }
    match digits.strip_prefix('0') {
        Some("") => Some(0),
        Some(octal) => i64::from_str_radix(octal, 8).ok(),
        None => digits.parse().ok(),
    }
}

fn has_prefix(text: &str, letter: u8) -> bool {
    matches!(text.as_bytes(), [b'0', second, ..] if second.to_ascii_lowercase() == letter)
}

/// Whether underscores stand only between digits, or between a base prefix and a digit.
fn underscores_fit(text: &str) -> bool {
    let hexadecimal = has_prefix(text, b'x');
    let body = if hexadecimal { &text[2..] } else { text };
    // What stood before: '0' for a digit (a prefix counts as one), '_', or '!' for all else.
    let mut before = if hexadecimal { '0' } else { '^' };
    for c in body.chars() {
        let is_digit = c.is_ascii_digit() || (hexadecimal && c.is_ascii_hexdigit());
        before = match (c, before) {
            _ if is_digit => '0',
            ('_', '0') => '_',
            ('_', _) | (_, '_') => return false,
            _ => '!',
        };
    }
    before != '_'
}

/// Seconds of a duration token, or what is wrong with it.
pub(super) fn duration_seconds(text: &str) -> Result<f64, String> {
    duration::parse_ms(text).map(ms_to_seconds).map_err(|error| match (unknown_unit(text), error) {
        (Some(unit), _) if text.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("unknown unit {} in duration {}", Quoted(unit), Quoted(text))
        }
        (_, error @ DurationError::OutOfRange) if first_number_fits(text) => error.to_string(),
        _ => format!("not a valid duration string: {}", Quoted(text)),
    })
}

/// Milliseconds as Go's `Duration.Seconds` gives them: whole seconds plus the fraction.
#[expect(clippy::cast_precision_loss, reason = "durations stay below 2^53 milliseconds")]
pub(super) fn ms_to_seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}

/// The first unit nobody knows.
fn unknown_unit(text: &str) -> Option<&str> {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut rest = text.trim_start_matches(is_digit);
    while !rest.is_empty() {
        let end = rest.find(is_digit).unwrap_or(rest.len());
        let (unit, tail) = rest.split_at(end);
        if !matches!(unit, "y" | "w" | "d" | "h" | "m" | "s" | "ms") {
            return Some(unit);
        }
        rest = tail.trim_start_matches(is_digit);
    }
    None
}

/// Whether all numbers of a duration fit 64 bits; if not, Prometheus calls it malformed rather than too long.
fn first_number_fits(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.is_empty() || digits.parse::<u64>().is_ok())
}

/// The content of a string token the lexer has accepted. Bytes that are no UTF-8 become U+FFFD.
pub(super) fn unquote(token: &str) -> String {
    let quote = token.chars().next().unwrap_or('"');
    let inner = token.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).unwrap_or_default();
    if quote == '`' {
        // Go drops carriage returns from raw strings.
        return inner.replace('\r', "");
    }
    if !inner.contains('\\') {
        return inner.to_owned();
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            push_char(&mut bytes, c);
            continue;
        }
        match chars.next() {
            Some('a') => bytes.push(7),
            Some('b') => bytes.push(8),
            Some('f') => bytes.push(12),
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('v') => bytes.push(11),
            Some('x') => bytes.push(take_byte(&mut chars, 0, 2, 16)),
            Some('u') => push_code(&mut bytes, take_code(&mut chars, 0, 4, 16)),
            Some('U') => push_code(&mut bytes, take_code(&mut chars, 0, 8, 16)),
            Some(octal @ '0'..='7') => {
                let first = octal.to_digit(8).unwrap_or_default();
                bytes.push(take_byte(&mut chars, first, 2, 8));
            }
            Some(other) => push_char(&mut bytes, other),
            None => {}
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn push_char(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn push_code(bytes: &mut Vec<u8>, code: u32) {
    push_char(bytes, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
}

fn take_code(chars: &mut std::str::Chars<'_>, start: u32, digits: usize, base: u32) -> u32 {
    chars
        .take(digits)
        .filter_map(|c| c.to_digit(base))
        .fold(start, |code, digit| code.wrapping_mul(base) + digit)
}

fn take_byte(chars: &mut std::str::Chars<'_>, start: u32, digits: usize, base: u32) -> u8 {
    u8::try_from(take_code(chars, start, digits, base)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gos() {
        let good = [
            ("1", 1.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("0x1F", 31.0),
            ("0755", 493.0),
            ("08", 8.0),
            ("1_000", 1000.0),
            ("1_000.5", 1000.5),
            ("0x_1", 1.0),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
            ("1e3", 1000.0),
            ("iNf", f64::INFINITY),
            ("1e-400", 0.0),
        ];
        for (text, value) in good {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        assert!(number("NaN").unwrap().is_nan());
        let range = |text| Err(format!("strconv.ParseFloat: parsing \"{text}\": value out of range"));
        let syntax = |text| Err(format!("strconv.ParseFloat: parsing \"{text}\": invalid syntax"));
        assert_eq!(number("1e400"), range("1e400"));
        assert_eq!(number("0x1e-5"), syntax("0x1e-5"));
        assert_eq!(number("0xFFFFFFFFFFFFFFFFFF"), syntax("0xFFFFFFFFFFFFFFFFFF"));
    }

    #[test]
    fn durations_are_prometheus() {
        assert_eq!(duration_seconds("1h30m"), Ok(5400.0));
        assert_eq!(duration_seconds("1m1ms"), Ok(60.001));
        let bad = [
            ("1.5h", r#"unknown unit "." in duration "1.5h""#),
            ("5hs", r#"unknown unit "hs" in duration "5hs""#),
            ("1m1h", r#"not a valid duration string: "1m1h""#),
            ("300y", "duration out of range"),
            (".50s", r#"not a valid duration string: ".50s""#),
            ("99999999999999999999s", r#"not a valid duration string: "99999999999999999999s""#),
        ];
        for (text, message) in bad {
            assert_eq!(duration_seconds(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn strings_lose_their_quotes() {
        let cases = [
            (r#""a\"b\n""#, "a\"b\n"),
            (r"'a\'\\'", "a'\\"),
            (r#"`a\n"`"#, r#"a\n""#),
            (r#""\x41\u00e9\U0001F600\101""#, "Aé😀A"),
            (r#""\xc3\xa9""#, "é"),
            (r#""\xff""#, "\u{fffd}"),
        ];
        for (token, value) in cases {
            assert_eq!(unquote(token), value, "{token}");
        }
    }
}
