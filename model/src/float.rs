//! Floats as Prometheus writes and reads them in text.

use std::fmt::Write as _;

/// Writes `v` as the HTTP API does for sample values: the shortest digits that read back the same, fixed
/// notation, but an exponent when `|v| < 1e-6` or `|v| >= 1e21`; `NaN`, `+Inf`, `-Inf`.
/// (Go: `strconv.AppendFloat` with `'f'`/`'e'`, as in Prometheus' `util/jsonutil`.)
pub fn write_api(out: &mut String, v: f64) {
    let abs = v.abs();
    if v.is_finite() && abs != 0.0 && !(1e-6..1e21).contains(&abs) {
        write_exponent(out, v);
    } else {
        write_fixed(out, v);
    }
}

/// [`write_api`] into a new string.
pub fn format_api(v: f64) -> String {
    let mut out = String::with_capacity(24);
    write_api(&mut out, v);
    out
}

/// Up to here floats and integers are the same numbers, and the digits of the integer are the shortest.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Go's `strconv.FormatFloat(v, 'f', -1, 64)`: shortest digits, never an exponent. How PromQL prints numbers
/// in `count_values` and similar places.
pub fn write_fixed(out: &mut String, v: f64) {
    if v.is_nan() {
        out.push_str("NaN");
    } else if v.is_infinite() {
        out.push_str(if v > 0.0 { "+Inf" } else { "-Inf" });
    } else if v == v.trunc() && v.abs() <= WHOLE_MAX && (v != 0.0 || v.is_sign_positive()) {
        out.push_str(itoa::Buffer::new().format(v as i64));
    } else {
        // Answers are mostly numbers: this writes them three times as fast as the standard library, up to its exponents.
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(v);
        if text.contains('e') {
            // Rust's `Display` of floats is the shortest round-trip form in fixed notation, `-0` included.
            write!(out, "{v}").expect("writing to a string cannot fail");
        } else {
            out.push_str(text.strip_suffix(".0").unwrap_or(text));
        }
    }
}

/// [`write_fixed`] into a new string.
pub fn format_fixed(v: f64) -> String {
    let mut out = String::with_capacity(24);
    write_fixed(&mut out, v);
    out
}

/// Go's `strconv.FormatFloat(v, 'e', -1, 64)`: always with an exponent of at least two digits (`1e+00`).
pub fn format_exponent(v: f64) -> String {
    let mut out = String::with_capacity(24);
    if v.is_finite() {
        write_exponent(&mut out, v);
    } else {
        write_fixed(&mut out, v);
    }
    out
}

/// Go's `strconv.FormatFloat(v, 'g', -1, 64)`, and `%v` of a float64: an exponent when it is below -4 or at least 6 (with
/// shortest digits Go decides by precision 6).
pub fn format_general(v: f64) -> String {
    let mut out = String::with_capacity(24);
    let abs = v.abs();
    if v.is_finite() && abs != 0.0 && !(1e-4..1e6).contains(&abs) {
        write_exponent(&mut out, v);
    } else {
        write_fixed(&mut out, v);
    }
    out
}

fn write_exponent(out: &mut String, v: f64) {
    let start = out.len();
    write!(out, "{v:e}").expect("writing to a string cannot fail");
    // Rust writes `1e21` and `1e-7`; Go writes a sign always, and at least two digits.
    let e = start + out[start..].find('e').expect("exponent form has an e");
    let (sign, digits) = match out[e + 1..].strip_prefix('-') {
        Some(digits) => ('-', digits.to_owned()),
        None => ('+', out[e + 1..].to_owned()),
    };
    out.truncate(e + 1);
    out.push(sign);
    for _ in digits.len()..2 {
        out.push('0');
    }
    out.push_str(&digits);
}

/// One step of a compensated sum (Neumaier's variant of Kahan summation, as PromQL sums): the new sum and the new
/// compensation, which is added to the sum at the end.
#[inline]
pub fn kahan_add(value: f64, sum: f64, compensation: f64) -> (f64, f64) {
    // Choices instead of branches: loops over columns of sums run on several at a time.
    let total = sum + value;
    let (large, small) = if sum.abs() >= value.abs() { (sum, value) } else { (value, sum) };
    let lost = (large - total) + small;
    (total, if total.is_infinite() { 0.0 } else { compensation + lost })
}

/// Writes a timestamp as the API does: seconds with no decimals, or exactly three.
pub fn write_timestamp(out: &mut String, t: i64) {
    let seconds = t / 1000;
    let millis = (t % 1000).unsigned_abs();
    if t < 0 && seconds == 0 {
        out.push('-');
    }
    let mut buffer = itoa::Buffer::new();
    out.push_str(buffer.format(seconds));
    if millis != 0 {
        out.push('.');
        // Four digits, so that zeros in front are written.
        out.push_str(&buffer.format(1000 + millis)[1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// As short as the standard library's, and the same number; where two are equally near (and Rust takes the upper) the
        /// even digit, as Go does.
        #[test]
        fn fixed_form_is_shortest(bits: u64, whole in -1_000_000_000i64..1_000_000_000, decimals in 0i32..8) {
            for v in [f64::from_bits(bits), whole as f64, whole as f64 / 10f64.powi(decimals)] {
                if v.is_finite() {
                    let (ours, std) = (format_fixed(v), format!("{v}"));
                    prop_assert_eq!(ours.len(), std.len());
                    prop_assert_eq!(ours.parse::<f64>(), Ok(v));
                    prop_assert!(!ours.contains('e'));
                }
            }
        }
    }

    #[test]
    fn ties_go_to_the_even_digit() {
        assert_eq!(format_fixed(6_736_299_637_341_441.0 / 4.0), "1684074909335360.2");
        assert_eq!(format_fixed(6_736_299_637_341_443.0 / 4.0), "1684074909335360.8");
        assert_eq!(format_fixed(-0.0), "-0");
    }

    #[test]
    fn api_form_matches_prometheus() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (1.5e-9, "1.5e-09"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-2.5e22, "-2.5e+22"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(format_api(value), text);
        }
    }

    #[test]
    fn alert_values_have_two_exponent_digits() {
        assert_eq!(format_exponent(0.0), "0e+00");
        assert_eq!(format_exponent(1.0), "1e+00");
        assert_eq!(format_exponent(123.5), "1.235e+02");
        assert_eq!(format_exponent(1e-7), "1e-07");
        assert_eq!(format_exponent(f64::INFINITY), "+Inf");
        assert_eq!(format_general(1e-5), "1e-05");
        assert_eq!(format_general(123_456.5), "123456.5");
        assert_eq!(format_general(1e6), "1e+06");
        assert_eq!(format_general(123_456_789.0), "1.23456789e+08");
        assert_eq!(format_general(1e21), "1e+21");
    }

    #[test]
    fn timestamps_have_none_or_three_decimals() {
        for (t, text) in [(1_050, "1.050"), (1_000, "1"), (-500, "-0.500"), (-1_500, "-1.500"), (0, "0")] {
            let mut out = String::new();
            write_timestamp(&mut out, t);
            assert_eq!(out, text);
        }
    }
}
