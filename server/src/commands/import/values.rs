//! Cutting JSON values, laid out anyhow, into pieces of one event a line.
//!
//! **Algorithm.** One pass over the bytes that follows brackets and strings and nothing else: what is
//! inside an event is the decoder's to judge. Line breaks between the parts of an event become
//! spaces.

use std::io::{self, Read};

use super::pieces::{Next, Piece};

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// Where a scan of JSON stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between whole values of the file.
    Top,
    /// After `[`.
    ArrayStart,
    /// After an event of an array.
    AfterEvent,
    /// After a comma of an array.
    AfterComma,
    /// Inside an event.
    Event { in_array: bool },
}

/// Cuts input that holds arrays of events, or events one after the other.
pub struct Values<R> {
    input: R,
    piece_bytes: usize,
    /// Read, and scanned up to `at`.
    buffer: Vec<u8>,
    at: usize,
    place: Place,
    /// Brackets open inside the event.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The number of the event that is or will be read next.
    number: u64,
    /// The events of the piece, one a line, and the number of the first.
    text: Vec<u8>,
    first: u64,
    /// Where in `text` the event that is being read begins.
    event_start: usize,
    /// The event that is being read is longer than a piece: it is not kept.
    too_long: bool,
    /// An event that was too long and is not reported yet.
    skipped: Option<u64>,
}

impl<R: Read> Values<R> {
    /// Cuts `input` into pieces of about `piece_bytes`.
    pub fn new(input: R, piece_bytes: usize) -> Self {
        Self {
            input,
            piece_bytes,
            buffer: Vec::new(),
            at: 0,
            place: Place::Top,
            depth: 0,
            in_string: false,
            escaped: false,
            number: 1,
            text: Vec::new(),
            first: 1,
            event_start: 0,
            too_long: false,
            skipped: None,
        }
    }

    /// The next piece.
    ///
    /// # Errors
    /// What reading says, and `InvalidData` when the input is not made of JSON values: where the
    /// next event begins is not known then.
    pub fn next(&mut self) -> io::Result<Next> {
        if let Some(number) = self.skipped.take() {
            return Ok(Next::TooLong(number));
        }
        loop {
            if self.at == self.buffer.len() && self.fill()? == 0 {
                return self.end();
            }
            // Taken out while the rest of self works on its bytes.
            let buffer = std::mem::take(&mut self.buffer);
            let scanned = self.scan(&buffer);
            self.buffer = buffer;
            if let Some(next) = scanned? {
                return Ok(next);
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.clear();
        self.at = 0;
        self.input.by_ref().take(READ_BYTES as u64).read_to_end(&mut self.buffer)
    }

    fn scan(&mut self, buffer: &[u8]) -> io::Result<Option<Next>> {
        while let Some(byte) = buffer.get(self.at) {
            self.at += 1;
            if self.step(*byte)?
                && let Some(next) = self.event_ended()
            {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    /// Takes one byte; true when it ended an event.
    fn step(&mut self, byte: u8) -> io::Result<bool> {
        match self.place {
            Place::Event { in_array } => return Ok(self.step_in_event(byte, in_array)),
            _ if byte.is_ascii_whitespace() => {}
            Place::Top if byte == b'[' => self.place = Place::ArrayStart,
            Place::ArrayStart | Place::AfterEvent if byte == b']' => self.place = Place::Top,
            Place::AfterEvent if byte == b',' => self.place = Place::AfterComma,
            Place::AfterEvent => return Err(self.broken("a comma or ] is missing after")),
            Place::AfterComma if matches!(byte, b']' | b',') => {
                return Err(self.broken("a value is missing at"));
            }
            Place::ArrayStart if byte == b',' => return Err(self.broken("a value is missing at")),
            Place::Top | Place::ArrayStart | Place::AfterComma => {
                let in_array = self.place != Place::Top;
                self.place = Place::Event { in_array };
                self.event_start = self.text.len();
                return Ok(self.step_in_event(byte, in_array));
            }
        }
        Ok(false)
    }

    fn step_in_event(&mut self, byte: u8, in_array: bool) -> bool {
        let mut ended = false;
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    ended = self.depth == 0;
                }
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    ended = self.depth == 0;
                }
                // A bare word or number ends where something else begins; no event is one, and
                // the engine will say so.
                b',' | b']' if self.depth == 0 => {
                    let after = if byte == b',' { Place::AfterComma } else { Place::Top };
                    self.place = if in_array { after } else { Place::Top };
                    return true;
                }
                _ if byte.is_ascii_whitespace() && self.depth == 0 => ended = true,
                _ => {}
            }
        }
        self.keep(byte);
        if ended {
            self.place = if in_array { Place::AfterEvent } else { Place::Top };
        }
        ended
    }

    /// Adds a byte of an event to the piece; line breaks between its parts become spaces.
    fn keep(&mut self, byte: u8) {
        if self.text.len() - self.event_start >= self.piece_bytes {
            self.too_long = true;
            self.text.truncate(self.event_start);
        }
        if !self.too_long {
            let layout = !self.in_string && matches!(byte, b'\n' | b'\r');
            self.text.push(if layout { b' ' } else { byte });
        }
    }

    fn event_ended(&mut self) -> Option<Next> {
        let number = self.number;
        self.number += 1;
        if self.too_long {
            self.too_long = false;
            if self.text.is_empty() {
                self.first = self.number;
                return Some(Next::TooLong(number));
            }
            // What came before goes out first.
            self.skipped = Some(number);
            return Some(self.flush());
        }
        self.text.push(b'\n');
        (self.text.len() >= self.piece_bytes).then(|| self.flush())
    }

    fn flush(&mut self) -> Next {
        let piece = Piece { text: std::mem::take(&mut self.text), first: self.first };
        self.first = self.number;
        self.event_start = 0;
        Next::Piece(piece)
    }

    fn end(&mut self) -> io::Result<Next> {
        if let Place::Event { in_array: false } = self.place
            && self.depth == 0
            && !self.in_string
        {
            // A bare word at the very end.
            self.place = Place::Top;
            if let Some(next) = self.event_ended() {
                return Ok(next);
            }
        }
        if self.place != Place::Top {
            return Err(self.broken("the file ends in the middle of"));
        }
        Ok(if self.text.is_empty() { Next::End } else { self.flush() })
    }

    fn broken(&self, what: &str) -> io::Error {
        let message = format!("{what} event {}", self.number);
        io::Error::new(io::ErrorKind::InvalidData, message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn cut(text: &str, piece_bytes: usize) -> io::Result<Vec<(String, u64)>> {
        let mut values = Values::new(text.as_bytes(), piece_bytes);
        let mut all = Vec::new();
        loop {
            match values.next()? {
                Next::End => return Ok(all),
                Next::TooLong(number) => all.push(("too long".into(), number)),
                Next::Piece(piece) => {
                    all.push((String::from_utf8(piece.text).unwrap(), piece.first));
                }
            }
        }
    }

    fn one(text: &str) -> String {
        cut(text, 1_000).unwrap().into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn arrays_and_values_in_any_layout_become_lines() {
        assert_eq!(one(r#"[{"a":1},{"b":[2]}]"#), "{\"a\":1}\n{\"b\":[2]}\n");
        assert_eq!(one("[\n {\n\"a\": 1\n}\n ,\n{}\n]\n"), "{ \"a\": 1 }\n{}\n");
        assert_eq!(one("{\"a\":1} {\"b\":2}[{}]"), "{\"a\":1}\n{\"b\":2}\n{}\n");
        assert_eq!(one(" [ ] "), "");
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = r#"[{"a":"}],[\"{"},{"b":"\\"}]"#;
        assert_eq!(one(text), "{\"a\":\"}],[\\\"{\"}\n{\"b\":\"\\\\\"}\n");
    }

    #[test]
    fn pieces_know_the_number_of_their_first_event() {
        let pieces = cut(r#"[{"a":1},{"b":2},{"c":3}]"#, 8).unwrap();
        let firsts: Vec<u64> = pieces.iter().map(|(_, first)| *first).collect();
        assert_eq!(firsts, [1, 2, 3]);
    }

    #[test]
    fn an_event_longer_than_a_piece_is_skipped_and_told_in_its_place() {
        let text = format!(r#"[{{"a":1}},{{"long":"{}"}},{{"c":3}}]"#, "x".repeat(60));
        let expected = [("{\"a\":1}\n", 1), ("too long", 2), ("{\"c\":3}\n", 3)];
        assert_eq!(cut(&text, 40).unwrap(), expected.map(|(text, first)| (text.into(), first)));
    }

    #[test]
    fn values_that_are_no_events_are_passed_on_for_the_decoder_to_refuse() {
        assert_eq!(one("[1,\"two\" , null]"), "1\n\"two\"\nnull\n");
        assert_eq!(one("17"), "17\n");
    }

    #[test]
    fn broken_arrays_are_errors_that_say_where() {
        for text in ["[{}", "[{} {}]", "[{},]", "[,{}]", "{\"a\":", "[{\"a\":\"x]"] {
            let error = cut(text, 1_000).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
            assert!(error.to_string().contains("event "), "{error}");
        }
    }
}
