//! The refusals of ingestion: of a request, of one event in it, of a damaged record.
//!
//! **Guarantees.** A message names the limit and the value where there is one, and the field where
//! there is one. What it quotes from the client is cut to [`QUOTE_MAX_CHARS`] characters with
//! control characters escaped, so that the memory of a report is bounded by the number of events
//! and a log line stays one line.

use std::fmt;

use thiserror::Error;

/// Longest piece of the client's text in a message, in characters.
pub const QUOTE_MAX_CHARS: usize = 64;

/// Why something was refused. Stable for programs: see [`ErrorKind::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes are not UTF-8 or not JSON (RFC 8259).
    NotJson,
    /// The bytes are not an Arrow IPC stream, or contradict themselves.
    NotArrow,
    /// The body holds nothing, or white space only.
    Empty,
    /// JSON, but not an event: not an object, or without `type` and `event`.
    Shape,
    /// A field has a value of a type it cannot have.
    Type,
    /// Objects and arrays are nested too deeply.
    Depth,
    /// A key appears twice in one object.
    Duplicate,
    /// A time is in no accepted form, or out of range.
    Timestamp,
    /// An event (or the body) is larger than its limit.
    TooLarge,
    /// The request holds more events than a request may.
    TooMany,
    /// An event names a tenant that its key does not own.
    Forbidden,
}

impl ErrorKind {
    /// The `code` of the error object in an answer, and the label of counters.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            ErrorKind::NotJson => "not_json",
            ErrorKind::NotArrow => "not_arrow",
            ErrorKind::Empty => "empty_body",
            ErrorKind::Shape => "wrong_shape",
            ErrorKind::Type => "wrong_type",
            ErrorKind::Depth => "too_deep",
            ErrorKind::Duplicate => "duplicate_key",
            ErrorKind::Timestamp => "bad_timestamp",
            ErrorKind::TooLarge => "too_large",
            ErrorKind::TooMany => "too_many_events",
            ErrorKind::Forbidden => "forbidden_tenant",
        }
    }
}

/// Why a request, or one event of it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{message}", Position(*index))]
pub struct DecodeError {
    /// What sort of refusal it is.
    pub kind: ErrorKind,
    /// Which event of the request is at fault, counted from 0; none when it is the request as a
    /// whole.
    pub index: Option<usize>,
    /// The field or key at fault, as the message quotes it.
    pub field: Option<String>,
    /// One sentence for the client, without the index.
    pub message: String,
    /// How many events had been seen when the decision fell, the one at fault included; at least 1,
    /// so that a refused request is always counted.
    pub events_seen: usize,
}

/// "event 3: " in front of a message.
struct Position(Option<usize>);

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(index) => write!(formatter, "event {index}: "),
            None => Ok(()),
        }
    }
}

/// One event that was left out of a request whose other events were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its place in the request, counted from 0.
    pub index: usize,
    /// Why.
    pub error: DecodeError,
}

/// A record that cannot have been written by [`Decoder`](crate::Decoder): the memory it lay in was
/// damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A length points outside the record.
    #[error("a record of {len} bytes is shorter than its contents")]
    Truncated {
        /// Length of the record in bytes.
        len: usize,
    },
    /// The record is longer than its contents.
    #[error("a record of {len} bytes holds {excess} bytes that belong to no event")]
    Excess {
        /// Length of the record in bytes.
        len: usize,
        /// How many bytes are left over.
        excess: usize,
    },
    /// The text is not UTF-8, or a length splits a character.
    #[error("the text of a record is not UTF-8")]
    NotUtf8,
    /// A byte or bit has a value without a meaning.
    #[error("a record has the unknown {what} {value}")]
    Unknown {
        /// What it should have been.
        what: &'static str,
        /// The value found.
        value: u16,
    },
}

/// A refusal on its way from the scanner to the caller: position in the body instead of index.
///
/// Boxed wherever it is returned, so that results of the good path stay small.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    /// Byte offset in the body.
    pub(crate) at: usize,
    pub(crate) field: Option<String>,
    pub(crate) message: String,
}

/// The result of everything that reads the body.
pub(crate) type Scan<T> = Result<T, Box<Fault>>;

impl Fault {
    /// A fault without a field.
    #[cold]
    pub(crate) fn new(kind: ErrorKind, at: usize, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { kind, at, field: None, message: message.into() })
    }

    /// A syntax error: the message gets its position in front.
    #[cold]
    pub(crate) fn syntax(at: usize, message: impl fmt::Display) -> Box<Fault> {
        Fault::new(ErrorKind::NotJson, at, format!("not JSON at byte {at}: {message}"))
    }

    /// A fault of one field or key.
    #[cold]
    pub(crate) fn field(
        kind: ErrorKind,
        at: usize,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Box<Fault> {
        Box::new(Fault { kind, at, field: Some(field.into()), message: message.into() })
    }

    /// The fault as the caller sees it.
    #[cold]
    pub(crate) fn into_error(self, index: Option<usize>, events_seen: usize) -> DecodeError {
        DecodeError {
            kind: self.kind,
            index,
            field: self.field,
            message: self.message,
            events_seen: events_seen.max(1),
        }
    }
}

/// The client's text, cut and escaped for a message.
#[cold]
pub(crate) fn quote(text: &[u8]) -> String {
    // Four bytes a character at most: what lies behind them need not be looked at.
    let head = &text[..text.len().min(4 * (QUOTE_MAX_CHARS + 1))];
    let lossy = String::from_utf8_lossy(head);
    let mut quoted = String::new();
    for (count, character) in lossy.chars().enumerate() {
        if count == QUOTE_MAX_CHARS {
            quoted.push('…');
            break;
        }
        if character.is_control() {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_cut_and_escaped() {
        assert_eq!(quote(b"plain"), "plain");
        assert_eq!(quote("a\nb\u{7f}\u{0}".as_bytes()), "a\\nb\\u{7f}\\u{0}");
        let long = quote("é".repeat(1_000).as_bytes());
        assert_eq!(long.chars().count(), QUOTE_MAX_CHARS + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn an_error_says_which_event() {
        let fault = Fault::new(ErrorKind::Shape, 7, "an event needs `type` or `event`");
        let error = fault.into_error(Some(3), 4);
        assert_eq!(error.to_string(), "event 3: an event needs `type` or `event`");
        let fault = Fault::new(ErrorKind::Empty, 0, "the body is empty");
        let error = fault.into_error(None, 0);
        assert_eq!(error.to_string(), "the body is empty");
        assert_eq!(error.events_seen, 1);
    }
}
