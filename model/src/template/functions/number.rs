//! Numbers for people: `humanize` and its family (as in Prometheus' `common/helpers/templates`).

use super::{Functions, count};
use crate::duration;
use crate::template::time::{GoDuration, GoTime};
use crate::template::value::{Value, as_object, as_text, object, text, type_name};
use crate::template::{format, run};

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const LARGE_1024: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

pub(super) fn add_prometheus(functions: Functions) -> Functions {
    add_alertmanager(functions)
        .with("humanize", |args| number("humanize", args).map(|v| text(humanize(v))))
        .with("humanize1024", |args| number("humanize1024", args).map(|v| text(humanize_1024(v))))
        .with("humanizePercentage", |args| {
            number("humanizePercentage", args).map(|v| text(four(v * 100.0) + "%"))
        })
        .with("humanizeTimestamp", |args| {
            let v = number("humanizeTimestamp", args)?;
            Ok(text(if v.is_finite() { unix_time(v)?.to_string() } else { four(v) }))
        })
        .with("toTime", |args| {
            let v = number("toTime", args)?;
            if !v.is_finite() {
                return Err("value is NaN or Inf".to_owned());
            }
            Ok(object(unix_time(v)?))
        })
        .with("toDuration", |args| {
            let v = number("toDuration", args)?;
            if !v.is_finite() {
                return Err("value is NaN or Inf".to_owned());
            }
            // Saturates, which the check of infinities does not cover.
            Ok(object(GoDuration((v * 1e9) as i64)))
        })
        .with("parseDuration", |args| {
            count("parseDuration", args, 1)?;
            let ms = duration::parse_ms(super::text_arg(args, 0)?).map_err(|error| error.to_string())?;
            Ok(Value::Float(ms as f64 / 1000.0))
        })
        .with("now", |args| {
            count("now", args, 0)?;
            Ok(Value::Float(run::env().now as f64 / 1000.0))
        })
}

pub(super) fn add_alertmanager(functions: Functions) -> Functions {
    functions
        .with("humanizeDuration", |args| number("humanizeDuration", args).map(|v| text(humanize_duration(v))))
}

/// The only argument as a number.
fn number(name: &str, args: &[Value]) -> Result<f64, String> {
    count(name, args, 1)?;
    match &args[0] {
        Value::Float(v) => Ok(*v),
        Value::Int(n) => Ok(*n as f64),
        Value::Uint(n) => Ok(*n as f64),
        other => match (as_text(other), as_object(other)) {
            (Some(digits), _) => digits.parse().map_err(|_| {
                format!("strconv.ParseFloat: parsing {}: invalid syntax", crate::labels::Quoted(digits))
            }),
            (None, Some(object)) => match object.as_any().downcast_ref::<GoDuration>() {
                Some(duration) => Ok(duration.seconds()),
                None => Err(format!("can't convert {} to float", object.type_name())),
            },
            (None, None) => Err(format!("can't convert {} to float", type_name(other))),
        },
    }
}

fn unix_time(seconds: f64) -> Result<GoTime, String> {
    let nanos = seconds * 1e9;
    if nanos.abs() >= i64::MAX as f64 {
        let v = format::general(seconds, None);
        return Err(format!("{v} cannot be represented as a nanoseconds timestamp since it overflows int64"));
    }
    Ok(GoTime::from_ms((nanos as i64).div_euclid(1_000_000)))
}

/// `%.4g`
fn four(v: f64) -> String {
    format::general(v, Some(4))
}

fn scale(
    mut v: f64,
    prefixes: &[&'static str; 8],
    factor: f64,
    enough: fn(f64) -> bool,
) -> (f64, &'static str) {
    let mut prefix = "";
    for next in prefixes {
        if enough(v.abs()) {
            break;
        }
        prefix = next;
        v *= factor;
    }
    (v, prefix)
}

fn humanize(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return four(v);
    }
    let (v, prefix) = if v.abs() >= 1.0 {
        scale(v, &LARGE, 1e-3, |v| v < 1000.0)
    } else {
        scale(v, &SMALL, 1e3, |v| v >= 1.0)
    };
    four(v) + prefix
}

fn humanize_1024(v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return four(v);
    }
    let (v, prefix) = scale(v, &LARGE_1024, 1.0 / 1024.0, |v| v < 1024.0);
    four(v) + prefix
}

fn humanize_duration(v: f64) -> String {
    if !v.is_finite() {
        return four(v);
    }
    if v == 0.0 {
        return four(v) + "s";
    }
    if v.abs() < 1.0 {
        let (v, prefix) = scale(v, &SMALL, 1e3, |v| v >= 1.0);
        return four(v) + prefix + "s";
    }
    let sign = if v < 0.0 { "-" } else { "" };
    let v = v.abs();
    let whole = v as i64;
    let (seconds, minutes, hours, days) = (whole % 60, whole / 60 % 60, whole / 3600 % 24, whole / 86_400);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", four(v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn humanizes_as_prometheus_does() {
        let cases = [
            (0.0, "0", "0", "0s"),
            (1.0, "1", "1", "1s"),
            (1_234_567.0, "1.235M", "1.177Mi", "14d 6h 56m 7s"),
            (0.12, "120m", "0.12", "120ms"),
            (0.0001, "100u", "0.0001", "100us"),
            (-61.5, "-61.5", "-61.5", "-1m 1s"),
            (3600.0, "3.6k", "3.516ki", "1h 0m 0s"),
            (59.999, "60", "60", "60s"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf"),
            (f64::NAN, "NaN", "NaN", "NaN"),
            (999.95, "1000", "1000", "16m 39s"),
        ];
        for (v, plain, binary, duration) in cases {
            assert_eq!(humanize(v), plain, "{v}");
            assert_eq!(humanize_1024(v), binary, "{v}");
            assert_eq!(humanize_duration(v), duration, "{v}");
        }
    }
}
