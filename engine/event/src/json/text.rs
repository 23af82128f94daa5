//! JSON strings: finding their end, checking their escapes, taking the escapes away.
//!
//! **Algorithm.** A string is searched eight bytes at a time for the three things that interrupt
//! it (the quote, the backslash, a control character) with arithmetic on a u64: a byte below n
//! borrows into its top bit when n is subtracted. A borrow can reach a byte above, never one
//! below, so the lowest marked byte is always a true one.

use crate::error::{Fault, Scan};
use crate::json::{narrow, wide};

/// Where a string lies in a body, without its quotes: start in the lower half, twice the length in
/// the upper one, plus one if it holds escapes.
///
/// One word on purpose: as three fields it was written in parts and read back whole, and waiting
/// for the parts to reach memory was a quarter of the decoder's time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Text(u64);

impl Text {
    /// The bytes from `start` to `end`.
    #[inline]
    pub(crate) fn new(start: usize, end: usize, escaped: bool) -> Text {
        let length = u64::from(narrow(end - start)) << 1 | u64::from(escaped);
        Text(u64::from(narrow(start)) | length << 32)
    }

    /// The first byte.
    #[inline]
    pub(crate) fn start(self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        wide(self.0 as u32)
    }

    /// How many bytes lie between the quotes; the value is never longer.
    #[inline]
    pub(crate) fn len(self) -> usize {
        wide((self.0 >> 33) as u32)
    }

    /// Where the closing quote is.
    #[inline]
    pub(crate) fn end(self) -> usize {
        self.start() + self.len()
    }

    /// Whether it holds escapes: if not, its bytes are its value.
    #[inline]
    pub(crate) fn escaped(self) -> bool {
        self.0 >> 32 & 1 != 0
    }

    /// The bytes between the quotes, escapes and all.
    #[inline]
    pub(crate) fn raw(self, body: &[u8]) -> &[u8] {
        &body[self.start()..self.end()]
    }
}

/// Reads the string whose opening quote is at `open`; its closing quote is at the text's end.
#[inline]
pub(crate) fn string(body: &[u8], open: usize) -> Scan<Text> {
    let start = open + 1;
    let at = interruption(body, start);
    if body.get(at) == Some(&b'"') {
        return Ok(Text::new(start, at, false));
    }
    interrupted_string(body, start, at)
}

/// Reads on in a string that began at `start` and is interrupted at `at`, not by its end.
#[inline(never)]
fn interrupted_string(body: &[u8], start: usize, mut at: usize) -> Scan<Text> {
    loop {
        match body.get(at) {
            Some(b'"') => {
                return Ok(Text::new(start, at, true));
            }
            Some(b'\\') => at = interruption(body, escape(body, at)?),
            Some(byte) => return Err(control_character(at, *byte)),
            None => return Err(Fault::syntax(body.len(), "the text ends inside a string")),
        }
    }
}

#[cold]
fn control_character(at: usize, byte: u8) -> Box<Fault> {
    let message = format!("the control character {byte:#04x} in a string has to be escaped");
    Fault::syntax(at, message)
}

/// The first quote, backslash or control character at or after `from`, or the body's end.
///
/// Not inlined: the loop wants registers for its constants, more than its callers have left.
#[inline(never)]
fn interruption(body: &[u8], from: usize) -> usize {
    let (words, tail) = body.get(from..).unwrap_or_default().as_chunks();
    for (place, word) in words.iter().enumerate() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return from + place * 8 + lane(marks);
        }
    }
    let interrupts = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    body.len() - tail.len() + tail.iter().position(interrupts).unwrap_or(tail.len())
}

/// Sets the top bit of the bytes that interrupt a string; the lowest one set is a true one.
#[inline]
fn marks(word: u64) -> u64 {
    const LANES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = LANES << 7;
    let quotes = (word ^ (LANES * u64::from(b'"'))).wrapping_sub(LANES);
    let backslashes = (word ^ (LANES * u64::from(b'\\'))).wrapping_sub(LANES);
    let controls = word.wrapping_sub(LANES * 0x20);
    // Bytes of 0x80 and above stand for themselves; they are all masked out at once.
    (quotes | backslashes | controls) & !word & TOPS
}

/// Which of eight bytes the lowest mark belongs to.
#[inline]
fn lane(marks: u64) -> usize {
    wide(marks.trailing_zeros() / 8)
}

/// Checks the escape whose backslash is at `at` and returns where it ends.
fn escape(body: &[u8], at: usize) -> Scan<usize> {
    match body.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let Some(unit) = hex(body, at + 2) else {
                return Err(Fault::syntax(at, "\\u needs four hexadecimal digits"));
            };
            match unit {
                0xD800..0xDC00 => {
                    let low = (body.get(at + 6) == Some(&b'\\') && body.get(at + 7) == Some(&b'u'))
                        .then(|| hex(body, at + 8))
                        .flatten();
                    match low {
                        Some(0xDC00..0xE000) => Ok(at + 12),
                        _ => Err(lone_surrogate(at, unit)),
                    }
                }
                0xDC00..0xE000 => Err(lone_surrogate(at, unit)),
                _ => Ok(at + 6),
            }
        }
        Some(_) => Err(Fault::syntax(at, "a backslash begins no known escape here")),
        None => Err(Fault::syntax(body.len(), "the text ends inside a string")),
    }
}

#[cold]
fn lone_surrogate(at: usize, unit: u32) -> Box<Fault> {
    Fault::syntax(at, format!("\\u{unit:04x} is half of a surrogate pair without the other half"))
}

/// The value of the four hexadecimal digits at `at`.
fn hex(body: &[u8], at: usize) -> Option<u32> {
    let digits = body.get(at..)?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Writes the value of a checked string to the front of `out` and returns its length.
///
/// `out` is at least as long as `raw`: an escape is never shorter than what it stands for.
pub(crate) fn unescape_into(raw: &[u8], out: &mut [u8]) -> usize {
    let mut written = 0;
    unescape(raw, |piece| {
        out[written..written + piece.len()].copy_from_slice(piece);
        written += piece.len();
    });
    written
}

/// Hands the value of a checked string to `sink`, piece by piece.
pub(crate) fn unescape(raw: &[u8], mut sink: impl FnMut(&[u8])) {
    let mut rest = raw;
    while let Some(plain) = rest.iter().position(|byte| *byte == b'\\') {
        sink(&rest[..plain]);
        let (character, length) = escaped_character(&rest[plain..]);
        sink(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = rest.get(plain + length..).unwrap_or_default();
    }
    sink(rest);
}

/// The character that the checked escape at the start of `text` stands for, and its length.
fn escaped_character(text: &[u8]) -> (char, usize) {
    let simple = match text.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(text),
        Some(byte) => char::from(*byte),
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2)
}

fn unicode_escape(text: &[u8]) -> (char, usize) {
    let unit = hex(text, 2).unwrap_or_default();
    if let 0xD800..0xDC00 = unit {
        let low = hex(text, 8).unwrap_or_default();
        let code = 0x1_0000 + ((unit & 0x3FF) << 10 | low & 0x3FF);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

/// Appends `text` as a JSON string, quotes included; at most `6 * text.len() + 2` bytes.
pub(crate) fn push_escaped(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..0x20 => {
                let digit = |value: u8| HEX[usize::from(value)];
                out.extend_from_slice(b"\\u00");
                out.extend([digit(byte >> 4), digit(byte & 0xF)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;

    fn value_of(json: &str) -> Option<String> {
        let text = string(json.as_bytes(), 0).ok()?;
        assert_eq!(text.end() + 1, json.len());
        let mut value = Vec::new();
        unescape(text.raw(json.as_bytes()), |piece| value.extend_from_slice(piece));
        assert_eq!(text.escaped(), value != text.raw(json.as_bytes()));
        let mut copy = vec![0; text.len()];
        let length = unescape_into(text.raw(json.as_bytes()), &mut copy);
        assert_eq!(copy[..length], value);
        Some(String::from_utf8(value).unwrap())
    }

    #[test]
    fn the_interruption_is_found_at_every_place_and_length() {
        for length in 0..40 {
            for place in 0..=length {
                for byte in [b'"', b'\\', 0, 0x1F, b'\n'] {
                    // Neighbours on either side of each sought byte must not be taken for it.
                    for filler in [b' ', b'!', b'#', b'[', b']', 0x7F, 0x80, 0xA2, 0xDC, 0xFF] {
                        let mut body = vec![filler; length];
                        body.insert(place, byte);
                        body.push(b'"');
                        assert_eq!(interruption(&body, 0), place);
                    }
                }
            }
        }
        assert_eq!(interruption(b"abc", 0), 3);
        assert_eq!(interruption(b"abcdefgh", 0), 8);
        assert_eq!(interruption(b"", 0), 0);
    }

    #[test]
    fn escapes_are_taken_away() {
        let escapes = value_of(r#""\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC""#).unwrap();
        assert_eq!(escapes, "\"\\/\u{8}\u{c}\n\r\tAé€");
        assert_eq!(value_of(r#""a\u0000b""#).unwrap(), "a\0b");
    }

    #[test]
    fn surrogate_pairs_are_one_character() {
        assert_eq!(value_of(r#""\ud83d\ude00!""#).unwrap(), "😀!");
        assert_eq!(value_of(r#""\uDBFF\uDFFF""#).unwrap(), "\u{10FFFF}");
        assert_eq!(value_of(r#""\uD800\uDC00""#).unwrap(), "\u{10000}");
    }

    #[test]
    fn lone_surrogates_and_bad_escapes_are_refused() {
        for json in [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83dx""#,
            r#""\ud83d\n""#,
            r#""\ud83d\u0041""#,
            r#""\ud83d\ud83d""#,
            r#""\u12g4""#,
            r#""\u12""#,
            r#""\x41""#,
            r#""\"#,
            r#"""#,
            "\"a\nb\"",
            "\"\u{0}\"",
        ] {
            assert!(string(json.as_bytes(), 0).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_escaping(text in any::<String>()) {
            let mut json = Vec::new();
            push_escaped(&text, &mut json);
            prop_assert!(json.len() <= 6 * text.len() + 2);
            let json = String::from_utf8(json).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text.clone());
            prop_assert_eq!(value_of(&json).unwrap(), text);
        }
    }
}
