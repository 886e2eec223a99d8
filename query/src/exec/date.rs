//! The civil calendar, for the functions of dates. All in UTC, proleptic Gregorian.

use crate::plan::DateFn;

const DAY_SECONDS: i64 = 86_400;

/// Year, month from 1 and day from 1 of a day counted from 1970-01-01 (Hinnant, `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The function of a time in seconds since 1970; NaN for what is no time.
pub(crate) fn date(function: DateFn, seconds: f64) -> f64 {
    // Beyond, years no longer fit the arithmetic below; nobody's clock is there.
    if !(-1e17..1e17).contains(&seconds) {
        return f64::NAN;
    }
    let seconds = seconds as i64;
    let (days, within) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    let (year, month, day) = civil(days);
    let value = match function {
        DateFn::DaysInMonth => days_in_month(year, month),
        DateFn::DayOfMonth => day,
        // 1970-01-01 was a Thursday.
        DateFn::DayOfWeek => (days + 4).rem_euclid(7),
        DateFn::DayOfYear => (1..month).map(|m| days_in_month(year, m)).sum::<i64>() + day,
        DateFn::Hour => within / 3_600,
        DateFn::Minute => within % 3_600 / 60,
        DateFn::Month => month,
        DateFn::Year => year,
    };
    value as f64
}

/// `2006-01-02T15:04:05Z`
pub(crate) fn rfc3339_seconds(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(DAY_SECONDS));
    let within = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (within / 3_600, within % 3_600 / 60, within % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A time with its milliseconds, as Go's layout `2006-01-02T15:04:05.000Z`.
pub(crate) fn rfc3339_millis(t: i64) -> String {
    let mut text = rfc3339_seconds(t.div_euclid(1000));
    text.pop();
    format!("{text}.{:03}Z", t.rem_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(rfc3339_seconds(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_seconds(-1), "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339_seconds(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339_millis(-1), "1969-12-31T23:59:59.999Z");
        // 2024-12-31T13:05:00Z, a Tuesday.
        let t = 1_735_650_300.0;
        let all = [
            (DateFn::Year, 2024.0),
            (DateFn::Month, 12.0),
            (DateFn::DayOfMonth, 31.0),
            (DateFn::DayOfYear, 366.0),
            (DateFn::DayOfWeek, 2.0),
            (DateFn::DaysInMonth, 31.0),
            (DateFn::Hour, 13.0),
            (DateFn::Minute, 5.0),
        ];
        for (function, value) in all {
            assert_eq!(date(function, t), value, "{function:?}");
        }
        assert!(date(DateFn::Year, f64::NAN).is_nan());
        assert!(date(DateFn::Year, 1e300).is_nan());
    }
}
