//! The check of a text that is to be `properties` or `context` and was not read with its event.

use crate::error::{DecodeError, ErrorKind, Fault, Scan};
use crate::json::{Scanner, Scratch};
use crate::model::{Limits, Mode};

/// Checks texts; holds the scratch memory that one leaves for the next.
#[derive(Debug, Default)]
pub struct ObjectCheck {
    scratch: Scratch,
}

impl ObjectCheck {
    /// Checks that `text` is a JSON object as it may stand in an event: well formed, no key twice,
    /// nested at most [`MAX_DEPTH`](crate::MAX_DEPTH) levels with the event's own. It is UTF-8
    /// already.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&mut self, text: &[u8], limits: &Limits) -> Result<(), DecodeError> {
        let mut scanner = Scanner::new(text, limits, Mode::Whole, &mut self.scratch);
        object(&mut scanner).map_err(|fault| fault.into_error(None, 1))
    }
}

fn object(scanner: &mut Scanner<'_>) -> Scan<()> {
    scanner.begin_inside(1);
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return Err(Fault::new(ErrorKind::Type, scanner.at, "the text has to be a JSON object"));
    }
    scanner.value()?;
    scanner.skip_space();
    match scanner.peek() {
        None => Ok(()),
        Some(_) => Err(scanner.expected("nothing after the object")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn only_objects_pass() {
        let mut check = ObjectCheck::default();
        let deep = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let limits = Limits::default();
        for text in ["{}", " {\"a\":[{}]} ", &deep(crate::MAX_DEPTH - 1)] {
            assert_eq!(check.check(text.as_bytes(), &limits), Ok(()), "{text}");
        }
        for (text, kind) in [
            ("", ErrorKind::Type),
            ("[]", ErrorKind::Type),
            ("{", ErrorKind::NotJson),
            ("{}}", ErrorKind::NotJson),
            ("{\"a\":1,\"a\":2}", ErrorKind::Duplicate),
            (&deep(crate::MAX_DEPTH), ErrorKind::Depth),
        ] {
            assert_eq!(check.check(text.as_bytes(), &limits).unwrap_err().kind, kind, "{text}");
        }
    }
}
