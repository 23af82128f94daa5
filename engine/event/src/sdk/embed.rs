//! JSON inside JSON: an object as the text of a string, or that text in base64.
//!
//! **Guarantees.** What comes out is an object under the same rules as one that lies in the body
//! openly, its nesting counted from where it will lie in the event.
//!
//! **Memory.** At most as many bytes as the string has, in the event's side buffer.

use super::map::Coding;
use crate::json::{Scanner, Scratch, Text, unescape};
use crate::model::{Limits, Mode};

/// A string that should hold an object.
pub(super) struct Embed {
    /// The string in the body.
    pub(super) text: Text,
    pub(super) coding: Coding,
    /// How many objects will be around it in the event's `properties` or `context`.
    pub(super) depth: usize,
}

/// An object in the side buffer.
pub(super) struct Object {
    pub(super) text: Text,
    /// The names of its members.
    pub(super) names: Vec<Text>,
    /// The string at `data.schema`.
    pub(super) schema: Option<Text>,
}

impl Embed {
    /// Appends the object to `aside`. The error says what is wrong with it.
    pub(super) fn object(
        &self,
        body: &[u8],
        limits: &Limits,
        aside: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Object, String> {
        let start = aside.len();
        unescape(self.text.raw(body), |piece| aside.extend_from_slice(piece));
        if self.coding == Coding::Base64 {
            let end = decode_base64(aside, start).ok_or("it is not base64")?;
            aside.truncate(end);
            if simdutf8::basic::from_utf8(&aside[start..]).is_err() {
                return Err("it is not UTF-8".into());
            }
        }
        let mut scanner = Scanner::new(aside, limits, Mode::Whole, scratch);
        scanner.at = start;
        // The event's own object counts as well.
        scanner.begin_inside(self.depth + 1);
        let (mut names, mut schema) = (Vec::new(), None);
        scanner.skip_space();
        let start = scanner.at;
        if scanner.peek() != Some(b'{') {
            return Err(scanner.expected("an object").message);
        }
        let read = scanner.members(false, |scanner, name| {
            names.push(name);
            if name.raw(scanner.body) != b"data" || scanner.peek() != Some(b'{') {
                return scanner.value();
            }
            scanner.members(false, |scanner, name| {
                if name.raw(scanner.body) != b"schema" || scanner.peek() != Some(b'"') {
                    return scanner.value();
                }
                schema = Some(scanner.string()?);
                Ok(())
            })
        });
        read.map_err(|fault| fault.message)?;
        let text = Text::new(start, scanner.at, false);
        scanner.skip_space();
        match scanner.peek() {
            None => Ok(Object { text, names, schema }),
            Some(_) => Err(scanner.expected("nothing after the object").message),
        }
    }
}

/// The name in `iglu:vendor/name/format/version`, or all of a text of another form.
pub(super) fn schema_name(aside: &[u8], schema: Text) -> Text {
    let raw = schema.raw(aside);
    let mut slashes = raw.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    match (raw.strip_prefix(b"iglu:"), slashes.next(), slashes.next()) {
        (Some(_), Some((first, _)), Some((second, _))) if second > first + 1 => {
            let start = schema.start();
            Text::new(start + first + 1, start + second, schema.escaped())
        }
        _ => schema,
    }
}

/// Decodes base64 of either alphabet, padded or not, from `start` on, in place; gives the new end,
/// or nothing when it is none.
pub(super) fn decode_base64(bytes: &mut [u8], start: usize) -> Option<usize> {
    let mut to = start;
    let (mut bits, mut held) = (0_u32, 0_u32);
    let end = bytes.len() - bytes[start..].iter().rev().take_while(|byte| **byte == b'=').count();
    if (end - start) % 4 == 1 {
        return None;
    }
    for from in start..end {
        let value = match bytes[from] {
            byte @ b'A'..=b'Z' => byte - b'A',
            byte @ b'a'..=b'z' => byte - b'a' + 26,
            byte @ b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes[to] = (bits >> held & 0xFF) as u8;
            to += 1;
        }
    }
    Some(to)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn decoded(text: &str) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let end = decode_base64(&mut bytes, 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    #[test]
    fn base64_of_both_alphabets_is_read_with_and_without_padding() {
        for (text, expected) in [
            ("", ""),
            ("YQ", "a"),
            ("YQ==", "a"),
            ("YWI", "ab"),
            ("YWI=", "ab"),
            ("YWJj", "abc"),
            ("w7w_w78-", "ü?ÿ>"),
            ("w7w/w78+", "ü?ÿ>"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["Y", "YWJjZ", "YW Jj", "YQ=a", "YQ!"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    #[test]
    fn a_schema_names_its_event() {
        for (schema, name) in [
            ("iglu:com.acme/link_click/jsonschema/1-0-1", "link_click"),
            ("iglu:com.acme//jsonschema/1-0-1", "iglu:com.acme//jsonschema/1-0-1"),
            ("iglu:com.acme", "iglu:com.acme"),
            ("link_click", "link_click"),
        ] {
            let text = Text::new(0, schema.len(), false);
            assert_eq!(
                schema_name(schema.as_bytes(), text).raw(schema.as_bytes()),
                name.as_bytes()
            );
        }
    }
}
