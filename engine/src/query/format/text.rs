//! The text of dates, times and intervals.
//!
//! **Guarantees.** Timestamps are RFC 3339 in UTC. Years outside 0000 to 9999, which RFC 3339 does
//! not have, carry a sign. DuckDB's infinities are `infinity` and `-infinity`.

use std::io::Write;

use arrow::datatypes::TimeUnit;

const SECONDS_PER_DAY: i64 = 86_400;
const NANOSECONDS: i64 = 1_000_000_000;

/// Units per second and the digits after the point that show one unit.
fn resolution(unit: TimeUnit) -> (i64, usize) {
    match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (NANOSECONDS, 9),
    }
}

/// Writes `2026-11-21T12:44:32.123456Z` for a count of `unit`s since 1970.
pub(super) fn timestamp(out: &mut Vec<u8>, value: i64, unit: TimeUnit) {
    if value == i64::MAX || value == -i64::MAX {
        return infinity(out, value > 0);
    }
    let (per_second, _) = resolution(unit);
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    day(out, seconds.div_euclid(SECONDS_PER_DAY));
    out.push(b'T');
    let in_day = seconds.rem_euclid(SECONDS_PER_DAY);
    time(out, in_day * per_second + fraction, unit);
    out.push(b'Z');
}

/// Writes `2026-11-21` for a count of days since 1970.
pub(super) fn date(out: &mut Vec<u8>, days: i32) {
    if days == i32::MAX || days == -i32::MAX {
        return infinity(out, days > 0);
    }
    day(out, i64::from(days));
}

/// Writes `12:44:32.123456` for a count of `unit`s since midnight.
pub(super) fn time(out: &mut Vec<u8>, value: i64, unit: TimeUnit) {
    let (per_second, digits) = resolution(unit);
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    digits_of(out, seconds / 3_600, 2);
    out.push(b':');
    digits_of(out, seconds / 60 % 60, 2);
    out.push(b':');
    digits_of(out, seconds % 60, 2);
    if digits > 0 {
        out.push(b'.');
        digits_of(out, fraction, digits);
    }
}

/// Writes `1 year 2 months 3 days 04:05:06.5`; parts that are zero are left out.
pub(super) fn interval(out: &mut Vec<u8>, months: i32, days: i32, nanoseconds: i64) {
    let start = out.len();
    for (count, name) in [(months / 12, "year"), (months % 12, "month"), (days, "day")] {
        if count == 0 {
            continue;
        }
        if out.len() > start {
            out.push(b' ');
        }
        let plural = if count.unsigned_abs() == 1 { "" } else { "s" };
        // Writing to a vector cannot fail.
        let _ = write!(out, "{count} {name}{plural}");
    }
    if nanoseconds == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(b' ');
    }
    if nanoseconds < 0 {
        out.push(b'-');
    }
    // The most negative count has no positive twin; a nanosecond less is near enough to it.
    let nanoseconds = nanoseconds.checked_abs().unwrap_or(i64::MAX);
    time(out, nanoseconds / NANOSECONDS, TimeUnit::Second);
    let fraction = nanoseconds % NANOSECONDS;
    if fraction != 0 {
        out.push(b'.');
        digits_of(out, fraction, 9);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

fn infinity(out: &mut Vec<u8>, positive: bool) {
    out.extend_from_slice(if positive { b"infinity" } else { b"-infinity" });
}

/// Writes the civil date of a day in the proleptic Gregorian calendar.
///
/// The calendar repeats every 400 years (an era). Counting years from March puts the leap day last,
/// so that the month follows from the day of the year by one linear formula.
fn day(out: &mut Vec<u8>, days_since_1970: i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    const DAYS_FROM_MARCH_0000_TO_1970: i64 = 719_468;

    let days = days_since_1970 + DAYS_FROM_MARCH_0000_TO_1970;
    let (era, in_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * in_year + 2) / 153;
    let day_of_month = in_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);

    if (0..=9_999).contains(&year) {
        digits_of(out, year, 4);
    } else {
        let _ = write!(out, "{year:+05}");
    }
    out.push(b'-');
    digits_of(out, month, 2);
    out.push(b'-');
    digits_of(out, day_of_month, 2);
}

/// Writes a number that is not negative with leading zeros; one with more digits keeps them all.
fn digits_of(out: &mut Vec<u8>, number: i64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        start -= 1;
        digits[start] = b"0123456789"[usize::try_from(rest % 10).unwrap_or(0)];
        rest /= 10;
    }
    out.extend_from_slice(&digits[start.min(digits.len() - width)..]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{TimeUnit, date, interval, time, timestamp};

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn timestamps_are_rfc_3339_with_the_digits_of_their_unit() {
        let us = TimeUnit::Microsecond;
        assert_eq!(text(|out| timestamp(out, 0, us)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(|out| timestamp(out, -1, us)), "1969-12-31T23:59:59.999999Z");
        assert_eq!(
            text(|out| timestamp(out, 1_763_729_072_123_456, us)),
            "2025-11-21T12:44:32.123456Z"
        );
        assert_eq!(text(|out| timestamp(out, 5, TimeUnit::Second)), "1970-01-01T00:00:05Z");
        assert_eq!(
            text(|out| timestamp(out, 5, TimeUnit::Millisecond)),
            "1970-01-01T00:00:00.005Z"
        );
        assert_eq!(
            text(|out| timestamp(out, 5, TimeUnit::Nanosecond)),
            "1970-01-01T00:00:00.000000005Z"
        );
        assert_eq!(text(|out| timestamp(out, i64::MAX, us)), "infinity");
        assert_eq!(text(|out| timestamp(out, -i64::MAX, us)), "-infinity");
    }

    #[test]
    fn dates_follow_the_gregorian_calendar_through_leap_days_and_eras() {
        assert_eq!(text(|out| date(out, 0)), "1970-01-01");
        assert_eq!(text(|out| date(out, 11_016)), "2000-02-29");
        assert_eq!(text(|out| date(out, 11_017)), "2000-03-01");
        assert_eq!(text(|out| date(out, -25_509)), "1900-02-28");
        assert_eq!(text(|out| date(out, -25_508)), "1900-03-01");
        assert_eq!(text(|out| date(out, -719_528)), "0000-01-01");
        assert_eq!(text(|out| date(out, -719_529)), "-0001-12-31");
        assert_eq!(text(|out| date(out, 2_932_896)), "9999-12-31");
        assert_eq!(text(|out| date(out, 2_932_897)), "+10000-01-01");
        assert_eq!(text(|out| date(out, i32::MAX)), "infinity");
    }

    #[test]
    fn times_and_intervals_read_like_duckdbs() {
        assert_eq!(text(|out| time(out, 36_000_000_001, TimeUnit::Microsecond)), "10:00:00.000001");
        assert_eq!(text(|out| interval(out, 0, 0, 0)), "00:00:00");
        assert_eq!(
            text(|out| interval(out, 14, 3, 14_706_500_000_000)),
            "1 year 2 months 3 days 04:05:06.5"
        );
        assert_eq!(text(|out| interval(out, -1, 0, -1_500_000_000)), "-1 month -00:00:01.5");
        assert_eq!(text(|out| interval(out, 0, 0, 360_000_000_000_000)), "100:00:00");
    }
}
