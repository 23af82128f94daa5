//! Numbers and times as text, written without a formatter: the generator must outrun what it
//! feeds.

const HEX: &[u8; 16] = b"0123456789abcdef";
const MS_PER_DAY: i64 = 86_400_000;

/// Appends a fixed part and a word from a table.
#[inline]
pub(super) fn push(out: &mut Vec<u8>, fixed: &[u8], word: &[u8]) {
    out.extend_from_slice(fixed);
    out.extend_from_slice(word);
}

/// Decimal digits of `value`.
pub(super) fn decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = digit(rest % 10);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A number of cents as units with two decimals.
pub(super) fn cents(out: &mut Vec<u8>, value: u64) {
    decimal(out, value / 100);
    out.extend_from_slice(&[b'.', digit(value / 10 % 10), digit(value % 10)]);
}

/// Sixteen hexadecimal digits.
pub(super) fn hex(out: &mut Vec<u8>, value: u64) {
    let mut text = [0; 16];
    for (pair, byte) in text.chunks_exact_mut(2).zip(value.to_be_bytes()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    out.extend_from_slice(&text);
}

/// A UUID of version 4 from 60 bits of `high` and the 62 low bits of `low`.
pub(super) fn uuid(out: &mut Vec<u8>, high: u64, low: u64) {
    let high = (high & !0xf000) | 0x4000;
    let low = low | 1 << 63;
    let start = out.len();
    hex(out, high);
    hex(out, low);
    let mut text = [b'-'; 36];
    let digits = &out[start..];
    text[..8].copy_from_slice(&digits[..8]);
    text[9..13].copy_from_slice(&digits[8..12]);
    text[14..18].copy_from_slice(&digits[12..16]);
    text[19..23].copy_from_slice(&digits[16..20]);
    text[24..].copy_from_slice(&digits[20..]);
    out.truncate(start);
    out.extend_from_slice(&text);
}

/// RFC 3339 in UTC with milliseconds, from milliseconds since the epoch (year 0 to 9999).
pub(super) fn timestamp(out: &mut Vec<u8>, epoch_ms: i64) {
    let (year, month, day) = civil(epoch_ms.div_euclid(MS_PER_DAY));
    let ms = epoch_ms.rem_euclid(MS_PER_DAY).unsigned_abs();
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], ms / 3_600_000);
    put(&mut text[14..16], ms / 60_000 % 60);
    put(&mut text[17..19], ms / 1_000 % 60);
    put(&mut text[20..23], ms % 1_000);
    out.extend_from_slice(&text);
}

/// Year, month and day of a day number, by Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>), for days after year 0.
fn civil(days_since_epoch: i64) -> (u64, u64, u64) {
    let days = (days_since_epoch + 719_468).unsigned_abs();
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

fn put(text: &mut [u8], value: u64) {
    let mut rest = value;
    for place in text.iter_mut().rev() {
        *place = digit(rest % 10);
        rest /= 10;
    }
}

fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value).expect("a remainder by ten is one digit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(epoch_ms: i64) -> String {
        let mut out = Vec::new();
        timestamp(&mut out, epoch_ms);
        String::from_utf8(out).expect("digits are text")
    }

    #[test]
    fn timestamps_are_right_at_the_edges_of_months_and_years() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(text(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(1_790_834_400_000), "2026-10-01T06:00:00.000Z");
        assert_eq!(text(4_102_444_799_001), "2099-12-31T23:59:59.001Z");
    }

    #[test]
    fn numbers_are_written_as_json_numbers() {
        let mut out = Vec::new();
        decimal(&mut out, 0);
        out.push(b' ');
        decimal(&mut out, u64::MAX);
        out.push(b' ');
        cents(&mut out, 5);
        assert_eq!(out, b"0 18446744073709551615 0.05");
    }
}
