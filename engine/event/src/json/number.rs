//! JSON numbers: RFC 8259's grammar, and nothing beyond the range of an f64.

use crate::error::{Fault, Scan};

/// A whole part of this many digits is below 1e308 and so always in range.
const SAFE_DIGITS: usize = 308;

/// Reads the number at `start`, whose first byte is a digit or a minus, and returns its end.
#[inline]
pub(crate) fn number(body: &[u8], start: usize) -> Scan<usize> {
    let first = if body.get(start) == Some(&b'-') { start + 1 } else { start };
    let mut end = digits(body, first);
    let whole = end - first;
    if whole == 0 {
        return Err(Fault::syntax(first, "a minus is not followed by a digit"));
    }
    if whole > 1 && body[first] == b'0' {
        return Err(Fault::syntax(first, "a number begins with a 0 that does not belong there"));
    }
    let mut in_range = whole <= SAFE_DIGITS;
    if body.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits(body, fraction);
        if end == fraction {
            return Err(Fault::syntax(end, "a decimal point is not followed by a digit"));
        }
    }
    if let Some(b'e' | b'E') = body.get(end) {
        let signed = matches!(body.get(end + 1), Some(b'+' | b'-'));
        let exponent = end + 1 + usize::from(signed);
        end = digits(body, exponent);
        if end == exponent {
            return Err(Fault::syntax(end, "an exponent has no digits"));
        }
        in_range = false;
    }
    if !in_range {
        check_range(body, start, end)?;
    }
    Ok(end)
}

/// The end of the digits at `start`.
#[inline]
fn digits(body: &[u8], start: usize) -> usize {
    let mut end = start;
    while body.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    end
}

/// Refuses a number that an f64 would hold as infinity.
fn check_range(body: &[u8], start: usize, end: usize) -> Scan<()> {
    let text = body.get(start..end).and_then(|number| str::from_utf8(number).ok());
    match text.map(str::parse::<f64>) {
        Some(Ok(value)) if value.is_finite() => Ok(()),
        _ => Err(Fault::syntax(start, "a number is out of range (a 64-bit float has to hold it)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_rfc_8259() {
        for text in [
            "0",
            "-0",
            "7",
            "10",
            "-12.50",
            "0.5",
            "1e5",
            "1E+5",
            "1e-5",
            "0e0",
            "1.5e300",
            "0e999999",
            "1e-400",
            "123456789012345678901234567890",
        ] {
            assert_eq!(number(text.as_bytes(), 0).ok(), Some(text.len()), "{text}");
        }
        for text in [
            "-", "-a", "01", "-01", "00", "1.", "1.e5", "1e", "1e+", "-.5", "1e400", "-1e309",
            "2e308",
        ] {
            assert!(number(text.as_bytes(), 0).is_err(), "{text}");
        }
    }

    #[test]
    fn long_whole_numbers_are_held_to_the_range_too() {
        assert!(number("9".repeat(308).as_bytes(), 0).is_ok());
        assert!(number(format!("1{}", "0".repeat(308)).as_bytes(), 0).is_ok());
        assert!(number("9".repeat(309).as_bytes(), 0).is_err());
    }
}
