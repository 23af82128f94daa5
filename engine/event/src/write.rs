//! Writing JSON, for bodies that arrive in another form.

use std::fmt::{Debug, Display};
use std::io::Write;

use crate::json::push_escaped;

/// An object being written.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Opens an object at the end of `out`.
    pub fn open(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, empty: true }
    }

    /// Writes a name; its value has to follow.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        text(name, self.out);
        self.out.push(b':');
        self.out
    }

    /// The object is complete.
    pub fn close(self) {
        self.out.push(b'}');
    }
}

/// Appends a string; at most `6 * text.len() + 2` bytes.
pub fn text(text: &str, out: &mut Vec<u8>) {
    push_escaped(text, out);
}

/// Appends a whole number or a truth, which JSON writes as they write themselves.
pub fn number(number: impl Display, out: &mut Vec<u8>) {
    // Memory takes whatever is written.
    let _ = write!(out, "{number}");
}

/// Appends a number with a fraction; as a string when it is none or has no end.
pub fn float(number: impl Into<f64> + Debug + Copy, out: &mut Vec<u8>) {
    let quote = if number.into().is_finite() { "" } else { "\"" };
    // Memory takes whatever is written.
    let _ = write!(out, "{quote}{number:?}{quote}");
}

/// Appends bytes as a string of hexadecimal digits.
pub fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xF)]]);
    }
    out.push(b'"');
}
