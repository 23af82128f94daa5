//! Pieces of whole events, one a line, and the cutting of lines into them.
//!
//! **Guarantees.** Every piece holds whole events, in the order of the input, and says the number of
//! its first line (or, for arrays, of its first event) in it. An event that is too long to be
//! accepted is skipped without being held, and reported.
//!
//! **Memory.** One piece and what was read beyond it.

use std::io::{self, Read};

/// Some whole events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// One event a line; blank lines may stand between them.
    pub text: Vec<u8>,
    /// The number of the first line, counted from 1.
    pub first: u64,
}

impl Piece {
    /// The number of the line that holds the event at `index`.
    pub fn number_of(&self, index: usize) -> u64 {
        let lines = self.text.split(|byte| *byte == b'\n').zip(self.first..);
        let mut events = lines.filter(|(line, _)| !line.iter().all(u8::is_ascii_whitespace));
        events.nth(index).map_or(self.first, |(_, number)| number)
    }

    /// Two pieces of about half the size; none when there is only one line.
    pub fn split(&self) -> Option<(Self, Self)> {
        let body = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        let newline = |part: &[u8]| part.iter().position(|byte| *byte == b'\n');
        let middle = body.len() / 2;
        let cut = match newline(&body[middle..]) {
            Some(at) => middle + at,
            None => body[..middle].iter().rposition(|byte| *byte == b'\n')?,
        };
        let (left, right) = self.text.split_at(cut + 1);
        let right = Self { text: right.to_vec(), first: self.first + lines_in(left) };
        Some((Self { text: left.to_vec(), first: self.first }, right))
    }
}

fn lines_in(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// What comes next out of an input.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Some events.
    Piece(Piece),
    /// An event longer than a piece, at this number.
    TooLong(u64),
    /// Nothing more.
    End,
}

/// Cuts input that holds one event a line.
pub struct Lines<R> {
    input: R,
    piece_bytes: usize,
    /// Read, and not given out yet.
    buffer: Vec<u8>,
    at_end: bool,
    /// The number of the line at the start of `buffer`.
    number: u64,
}

impl<R: Read> Lines<R> {
    /// Cuts `input` into pieces of at most `piece_bytes`.
    pub fn new(input: R, piece_bytes: usize) -> Self {
        Self { input, piece_bytes, buffer: Vec::new(), at_end: false, number: 1 }
    }

    /// The next piece.
    ///
    /// # Errors
    /// What reading says.
    pub fn next(&mut self) -> io::Result<Next> {
        self.fill()?;
        if self.buffer.is_empty() {
            return Ok(Next::End);
        }
        let cut = match self.buffer.iter().rposition(|byte| *byte == b'\n') {
            _ if self.at_end => self.buffer.len(),
            Some(last) => last + 1,
            None => return self.skip_line(),
        };
        let rest = self.buffer.split_off(cut);
        let text = std::mem::replace(&mut self.buffer, rest);
        let first = self.number;
        self.number += lines_in(&text);
        Ok(Next::Piece(Piece { text, first }))
    }

    fn fill(&mut self) -> io::Result<()> {
        let missing = self.piece_bytes.saturating_sub(self.buffer.len()) as u64;
        if missing > 0 && !self.at_end {
            let read = self.input.by_ref().take(missing).read_to_end(&mut self.buffer)?;
            self.at_end = (read as u64) < missing;
        }
        Ok(())
    }

    /// Reads past a line that is longer than a piece.
    fn skip_line(&mut self) -> io::Result<Next> {
        let skipped = self.number;
        loop {
            self.buffer.clear();
            self.fill()?;
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                self.buffer.drain(..=end);
                self.number += 1;
                break;
            }
            if self.at_end {
                self.buffer.clear();
                break;
            }
        }
        Ok(Next::TooLong(skipped))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn cut(text: &str, piece_bytes: usize) -> Vec<Next> {
        let mut lines = Lines::new(text.as_bytes(), piece_bytes);
        let mut all = Vec::new();
        loop {
            match lines.next().unwrap() {
                Next::End => return all,
                next => all.push(next),
            }
        }
    }

    fn piece(text: &str, first: u64) -> Next {
        Next::Piece(Piece { text: text.into(), first })
    }

    #[test]
    fn pieces_end_with_a_line_and_lose_nothing() {
        let text = "{1}\n{22}\n{333}\n{4}";
        assert_eq!(cut(text, 9), [piece("{1}\n{22}\n", 1), piece("{333}\n", 3), piece("{4}", 4)]);
        assert_eq!(cut(text, 1_000), [piece(text, 1)]);
        assert_eq!(cut("", 10), []);
    }

    #[test]
    fn a_line_longer_than_a_piece_is_skipped_and_told() {
        let long = "x".repeat(35);
        let text = format!("{{1}}\n{long}\n{{3}}\n");
        assert_eq!(cut(&text, 10), [piece("{1}\n", 1), Next::TooLong(2), piece("{3}\n", 3)]);
        assert_eq!(cut(&long, 10), [Next::TooLong(1)]);
    }

    #[test]
    fn an_index_becomes_the_number_of_its_line() {
        let piece = Piece { text: b"\n{0}\n  \n{1}\r\n{2}".to_vec(), first: 10 };
        assert_eq!([0, 1, 2].map(|index| piece.number_of(index)), [11, 13, 14]);
    }

    #[test]
    fn halves_keep_whole_lines_and_their_numbers() {
        let whole = Piece { text: b"{0}\n{1}\n{2}\n".to_vec(), first: 5 };
        let (left, right) = whole.split().unwrap();
        assert_eq!([left.text.clone(), right.text.clone()].concat(), whole.text);
        assert_eq!((left.first, right.first), (5, 5 + lines_in(&left.text)));
        assert!(Piece { text: b"{0}\n".to_vec(), first: 1 }.split().is_none());
        let late = Piece { text: b"{0}\n{1 that is longer}\n".to_vec(), first: 1 };
        assert_eq!(late.split().unwrap().0.text, b"{0}\n");
    }
}
