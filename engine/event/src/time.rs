//! Points in time as clients write them: RFC 3339 text and epoch numbers, to microseconds since
//! 1970 UTC.
//!
//! **Guarantees.** Whatever is accepted lies in the years 1 to 9999 UTC
//! ([`MIN_MICROS`]..=[`MAX_MICROS`]). Fractions are read digit by digit, never through floating
//! point; digits finer than a microsecond are dropped.
//!
//! **Accepted.** RFC 3339 with any offset, `T`, `t` or a space between date and time, `Z` or `z`,
//! any number of fraction digits; second 60 (a leap second) is the first second of the next minute.
//! Numbers are told apart by size: below 1e11 seconds, below 1e14 milliseconds, below 1e17
//! microseconds, all with fraction and exponent.
//!
//! **Not accepted.** Text without an offset, and numbers written as text: a client that mixes these
//! up would get a wrong time without noticing.

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// 0001-01-01T00:00:00Z in microseconds since 1970.
pub const MIN_MICROS: i64 = -62_135_596_800 * MICROS_PER_SECOND;

/// 9999-12-31T23:59:59.999999Z in microseconds since 1970.
pub const MAX_MICROS: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// What an answer says about the accepted forms.
pub(crate) const FORMS: &str = "an RFC 3339 time such as 2026-01-31T12:00:00.5Z, or an epoch \
    number in seconds (below 1e11), milliseconds (below 1e14) or microseconds (below 1e17), in the \
    years 1 to 9999";

/// Microseconds since 1970 UTC of an RFC 3339 time, or none when it is malformed or out of range.
#[must_use]
pub fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    // 2026-01-31T12:00:00 is 19 bytes; then a fraction, then the offset.
    let (fixed, rest) = text.split_first_chunk::<19>()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, separator, rest_of_clock @ ..] = fixed else {
        return None;
    };
    let [h1, h2, b':', n1, n2, b':', s1, s2] = rest_of_clock else {
        return None;
    };
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let year = two(*y1, *y2)? * 100 + two(*y3, *y4)?;
    let (month, day) = (two(*m1, *m2)?, two(*d1, *d2)?);
    let (hour, minute, second) = (two(*h1, *h2)?, two(*n1, *n2)?, two(*s1, *s2)?);
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, rest) = fraction(rest)?;
    let offset = offset_seconds(rest)?;
    // Every part is below 1e12 seconds, far from the range of i64 in microseconds.
    let seconds =
        days_since_1970(year, month, day) * SECONDS_PER_DAY + (hour * 60 + minute) * 60 + second
            - offset;
    in_range(seconds * MICROS_PER_SECOND + micros)
}

/// Microseconds since 1970 UTC of an epoch number in JSON's grammar, or none when its size fits no
/// unit or it is out of range.
///
/// The caller has checked the grammar; text that is no number gives none or some number, never a
/// panic.
#[must_use]
pub fn parse_epoch(number: &[u8]) -> Option<i64> {
    let (negative, digits) = match number.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, number),
    };
    let decimal = Decimal::read(digits)?;
    let whole = decimal.digits_before_point()?;
    let micros = if whole < 100_000_000_000 {
        whole * 1_000_000 + decimal.digits_after_point(6)
    } else if whole < 100_000_000_000_000 {
        whole * 1_000 + decimal.digits_after_point(3)
    } else {
        whole
    };
    let micros = i64::try_from(micros).ok()?;
    in_range(if negative { -micros } else { micros })
}

/// `micros` if it lies in the years 1 to 9999.
fn in_range(micros: i64) -> Option<i64> {
    (MIN_MICROS..=MAX_MICROS).contains(&micros).then_some(micros)
}

/// `micros`, or the nearer end of the years 1 to 9999.
pub(crate) fn clamped(micros: i64) -> i64 {
    micros.clamp(MIN_MICROS, MAX_MICROS)
}

/// The value of two digits.
fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

/// The microseconds of a fraction at the start of `text`, if there is one, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = text.split_first() else {
        return Some((0, text));
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(count);
    let micros = (0..6).fold(0, |micros, place| {
        micros * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0'))
    });
    Some((micros, rest))
}

/// The seconds east of UTC that `text` stands for.
fn offset_seconds(text: &[u8]) -> Option<i64> {
    match text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = (hours * 60 + minutes) * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, year 1 or later.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Days before each month in a year without a leap day.
    const BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    // Days from 0001-01-01 to 1970-01-01.
    const BEFORE_1970: i64 = 719_162;
    let years = year - 1;
    let before_year = years * 365 + years / 4 - years / 100 + years / 400;
    let before_month = usize::try_from(month - 1).map_or(0, |month| BEFORE_MONTH[month]);
    let leap_day = i64::from(month > 2 && is_leap(year));
    before_year + before_month + leap_day + day - 1 - BEFORE_1970
}

/// A JSON number without its sign, taken apart into digits and the place of the point.
struct Decimal<'a> {
    before: &'a [u8],
    after: &'a [u8],
    /// Power of ten, saturated: whatever saturates is out of every range anyway.
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn read(text: &'a [u8]) -> Option<Decimal<'a>> {
        let is_exponent = |byte: &u8| matches!(byte, b'e' | b'E');
        let (mantissa, exponent) = match text.iter().position(is_exponent) {
            Some(at) => (&text[..at], exponent_value(&text[at + 1..])?),
            None => (text, 0),
        };
        let (before, after) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        (digits(before) && digits(after)).then_some(Decimal { before, after, exponent })
    }

    /// The digit with the value 10^`power`.
    fn digit(&self, power: i64) -> u64 {
        // The digit of 10^0 before the exponent applies is the last one of `before`.
        let power = power.saturating_sub(self.exponent);
        let found = if power >= 0 {
            let from_end = usize::try_from(power).ok();
            from_end.and_then(|place| self.before.iter().rev().nth(place))
        } else {
            let place = usize::try_from(-(power + 1)).ok();
            place.and_then(|place| self.after.get(place))
        };
        found.map_or(0, |digit| u64::from(digit - b'0'))
    }

    /// The whole part, or none when it has more than 17 digits.
    fn digits_before_point(&self) -> Option<u64> {
        // The first digit that is not 0 decides the size.
        let leading = self.before.iter().chain(self.after).position(|digit| *digit != b'0');
        let Some(leading) = leading else {
            return Some(0);
        };
        let length = i64::try_from(self.before.len()).ok()? - i64::try_from(leading).ok()?;
        let whole_digits = length.saturating_add(self.exponent);
        if whole_digits > 17 {
            return None;
        }
        Some((0..whole_digits.max(0)).rev().fold(0, |whole, power| whole * 10 + self.digit(power)))
    }

    /// The first `count` digits after the point, as a number.
    fn digits_after_point(&self, count: i64) -> u64 {
        (1..=count).fold(0, |part, place| part * 10 + self.digit(-place))
    }
}

/// The value of an exponent, saturated at a size that is out of every range.
fn exponent_value(text: &[u8]) -> Option<i64> {
    const SATURATED: i64 = 1 << 40;
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let mut value = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = (value * 10 + i64::from(digit - b'0')).min(SATURATED);
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;

    const NEW_YEAR: i64 = 1_767_225_600 * MICROS_PER_SECOND; // 2026-01-01T00:00:00Z

    #[test]
    fn rfc3339_is_read_in_all_its_forms() {
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", NEW_YEAR),
            ("2026-01-01t00:00:00z", NEW_YEAR),
            ("2026-01-01 00:00:00Z", NEW_YEAR),
            ("2026-01-01T00:00:00.5Z", NEW_YEAR + 500_000),
            ("2026-01-01T00:00:00.123456Z", NEW_YEAR + 123_456),
            ("2026-01-01T00:00:00.123456999Z", NEW_YEAR + 123_456),
            ("2026-01-01T01:30:00+01:30", NEW_YEAR),
            ("2025-12-31T18:00:00-06:00", NEW_YEAR),
            ("2025-12-31T23:59:60Z", NEW_YEAR),
            ("2025-12-31T23:59:60.25Z", NEW_YEAR + 250_000),
            ("1970-01-01T00:00:00-00:00", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("0001-01-01T00:00:00Z", MIN_MICROS),
            ("9999-12-31T23:59:59.999999Z", MAX_MICROS),
            ("2024-02-29T00:00:00Z", 1_709_164_800 * MICROS_PER_SECOND),
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00Z",
            "2026-01-01_00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+01:60",
            "2026-01-01T00:00:00ZZ",
            " 2026-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "0000-12-31T23:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:60Z",
            "1767225600",
            "２026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_told_apart_by_size() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("1767225600", Some(NEW_YEAR)),
            ("1767225600.25", Some(NEW_YEAR + 250_000)),
            ("1767225600.0000019", Some(NEW_YEAR + 1)),
            ("1767225600000", Some(NEW_YEAR)),
            ("1767225600000.5", Some(NEW_YEAR + 500)),
            ("1767225600000000", Some(NEW_YEAR)),
            ("1767225600000000.9", Some(NEW_YEAR)),
            ("1.7672256e9", Some(NEW_YEAR)),
            ("1.7672256e12", Some(NEW_YEAR)),
            ("17672256000E-1", Some(NEW_YEAR)),
            ("0.00017672256e+13", Some(NEW_YEAR)),
            ("-1", Some(-MICROS_PER_SECOND)),
            ("-0.5", Some(-500_000)),
            ("1e-400", Some(0)),
            ("0e99999999999999999999", Some(0)),
            ("99999999999", Some(99_999_999_999 * MICROS_PER_SECOND)),
            ("100000000000", Some(100_000_000 * MICROS_PER_SECOND)),
            ("99999999999999999", Some(99_999_999_999_999_999)),
            ("100000000000000000", None),
            ("1e17", None),
            ("1e99999999999999999999", None),
            ("-62135596800", Some(MIN_MICROS)),
            ("-62135596801", None),
        ] {
            assert_eq!(parse_epoch(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn days_agree_with_a_count_day_by_day() {
        let (mut year, mut month, mut day) = (1, 1, 1);
        for days in -719_162..2_932_897 {
            assert_eq!(days_since_1970(year, month, day), days);
            day += 1;
            if day > days_in_month(year, month) {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_rfc3339(&bytes);
            let _ = parse_epoch(&bytes);
        }

        #[test]
        fn clock_fraction_and_offset_add_up(
            clock in (0..24_i64, 0..60_i64, 0..61_i64),
            micros in 0..1_000_000_i64,
            east in any::<bool>(),
            offset in (0..24_i64, 0..60_i64),
        ) {
            let (hour, minute, second) = clock;
            let sign = if east { '+' } else { '-' };
            let offset_text = format!("{sign}{:02}:{:02}", offset.0, offset.1);
            let text =
                format!("2026-01-01T{hour:02}:{minute:02}:{second:02}.{micros:06}{offset_text}");
            let east_seconds = (offset.0 * 60 + offset.1) * if east { 60 } else { -60 };
            let seconds = (hour * 60 + minute) * 60 + second - east_seconds;
            let expected = NEW_YEAR + seconds * MICROS_PER_SECOND + micros;
            prop_assert_eq!(parse_rfc3339(text.as_bytes()), Some(expected));
        }

        #[test]
        fn an_epoch_number_is_read_digit_by_digit(
            second in 0..100_000_000_000_i64,
            micros in 0..1_000_000_i64,
        ) {
            let expected = second * MICROS_PER_SECOND + micros;
            let text = format!("{second}.{micros:06}");
            prop_assert_eq!(parse_epoch(text.as_bytes()), Some(expected));
            let shifted = format!("{expected}e-6");
            prop_assert_eq!(parse_epoch(shifted.as_bytes()), Some(expected));
        }
    }
}
