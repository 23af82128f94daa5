//! The walk over a body: white space, values, nesting.
//!
//! **Roles.** [`Scanner::value`] validates one value of any kind; the reader of an event calls it
//! for what has no column and uses the smaller steps for the rest.
//!
//! **Failure.** An `Err` means that the walk cannot go on: a syntax error, or any fault at all in
//! [`Mode::Whole`]. In [`Mode::Partial`] a fault that leaves the syntax intact is kept in `noted`
//! and the walk goes on to the end of the event.

use crate::error::{ErrorKind, Fault, Scan, quote};
use crate::json::keys::{Frame, Keys};
use crate::json::number::number;
use crate::json::text::{self, Text};
use crate::model::{Limits, MAX_DEPTH, Mode};

/// What a scanner leaves for the next one: keeping it is cheaper than clearing it, and it would
/// be moved around with the scanner.
#[derive(Debug)]
pub(crate) struct Scratch {
    keys: Keys,
    /// The lowest [`MAX_DEPTH`] objects and arrays that are open.
    levels: [Level; MAX_DEPTH],
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { keys: Keys::default(), levels: [Level::Array; MAX_DEPTH] }
    }
}

/// A place in a body, and what is open there.
pub(crate) struct Scanner<'a> {
    pub(crate) body: &'a [u8],
    /// The next byte to read. Never beyond the body's end.
    pub(crate) at: usize,
    mode: Mode,
    /// The first fault of the current event that did not stop the walk.
    pub(crate) noted: Option<Box<Fault>>,
    scratch: &'a mut Scratch,
    /// How many objects and arrays of the current event are open.
    depth: usize,
    /// The kind of those above [`MAX_DEPTH`]; only ever used in [`Mode::Partial`].
    deep_levels: Vec<Kind>,
    event_max_bytes: usize,
    /// Where the current event began.
    event_start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Object,
}

#[derive(Debug, Clone, Copy)]
enum Level {
    Array,
    Object(Frame),
    /// An object whose keys count as keys of the event's own object.
    Merged,
}

impl<'a> Scanner<'a> {
    /// A scanner at the body's first byte.
    pub(crate) fn new(
        body: &'a [u8],
        limits: &Limits,
        mode: Mode,
        scratch: &'a mut Scratch,
    ) -> Scanner<'a> {
        Scanner {
            body,
            at: 0,
            mode,
            noted: None,
            scratch,
            depth: 0,
            deep_levels: Vec::new(),
            event_max_bytes: limits.event_max_bytes,
            event_start: 0,
        }
    }

    /// The next byte.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    /// Moves to the next byte that is no white space.
    #[inline]
    pub(crate) fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes the next byte if it is `byte`.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// A syntax error here.
    #[cold]
    pub(crate) fn expected(&self, what: &str) -> Box<Fault> {
        let found = match self.body.get(self.at..).and_then(|rest| rest.utf8_chunks().next()) {
            Some(chunk) if !chunk.valid().is_empty() => {
                let first: String = chunk.valid().chars().take(1).collect();
                format!("found `{}`", quote(first.as_bytes()))
            }
            _ => String::from("the text ends"),
        };
        Fault::syntax(self.at, format!("expected {what}, {found}"))
    }

    /// Keeps a fault that leaves the syntax intact, or stops at it.
    ///
    /// Only the first one of an event is built, so that many cost little.
    #[cold]
    pub(crate) fn note(&mut self, fault: impl FnOnce(&mut Self) -> Box<Fault>) -> Scan<()> {
        if self.noted.is_some() {
            return Ok(());
        }
        let fault = fault(self);
        match self.mode {
            Mode::Whole => Err(fault),
            Mode::Partial => {
                self.noted = Some(fault);
                Ok(())
            }
        }
    }

    /// An event begins here, with an object or with something else in its place.
    #[inline]
    pub(crate) fn begin_event(&mut self) {
        self.scratch.keys.clear();
        self.deep_levels.clear();
        self.noted = None;
        self.depth = 0;
        self.event_start = self.at;
    }

    /// The length of the current event up to here, if that is more than an event may have.
    #[inline]
    pub(crate) fn oversize(&self) -> Option<usize> {
        let length = self.at - self.event_start;
        (length > self.event_max_bytes).then_some(length)
    }

    /// Where the current event began.
    pub(crate) fn event_start(&self) -> usize {
        self.event_start
    }

    /// Opens the event's own object, whose `{` is the next byte.
    #[inline]
    pub(crate) fn open_event(&mut self) {
        self.at += 1;
        self.depth = 1;
        self.scratch.levels[0] = Level::Object(self.scratch.keys.open());
    }

    /// Goes on in an object around events: its members from here on count as an event's own.
    pub(crate) fn reopen(&mut self) {
        self.begin_event();
        self.depth = 1;
        self.scratch.levels[0] = Level::Object(self.scratch.keys.open());
    }

    /// A value begins here that will lie `depth` levels deep in an event.
    pub(crate) fn begin_inside(&mut self, depth: usize) {
        self.begin_event();
        self.depth = depth;
    }

    /// Closes the event's own object, whose `}` has been read.
    #[inline]
    pub(crate) fn close_event(&mut self) -> Scan<()> {
        self.close()
    }

    /// Reads a name and its colon, up to the value.
    #[inline]
    pub(crate) fn name(&mut self) -> Scan<Text> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a name in quotes"));
        }
        let name = self.string()?;
        self.skip_space();
        if !self.take(b':') {
            return Err(self.expected("`:` after a name"));
        }
        self.skip_space();
        Ok(name)
    }

    /// Adds a name to the innermost open object.
    #[inline]
    pub(crate) fn remember(&mut self, name: Text) -> Scan<()> {
        if self.depth > MAX_DEPTH {
            return Ok(());
        }
        if let Some(length) = self.oversize() {
            // The event is lost already; its keys must not fill the memory as well.
            return match self.mode {
                Mode::Whole => Err(self.too_large(length, "at least ")),
                Mode::Partial => Ok(()),
            };
        }
        let mut place = self.depth - 1;
        if matches!(self.scratch.levels[place], Level::Merged) {
            place = 0;
        }
        let Level::Object(frame) = &mut self.scratch.levels[place] else {
            return Ok(());
        };
        if self.scratch.keys.insert(frame, self.body, name) {
            return Ok(());
        }
        self.note(|scanner| {
            let key = quote(scanner.scratch.keys.value(scanner.body, name));
            twice(name.start(), key)
        })
    }

    /// The value of a name or string, its escapes taken away. Costs memory until the event ends.
    pub(crate) fn plain(&mut self, text: Text) -> &[u8] {
        self.scratch.keys.value(self.body, text)
    }

    /// Reads a string, whose opening quote is the next byte.
    #[inline]
    pub(crate) fn string(&mut self) -> Scan<Text> {
        let text = text::string(self.body, self.at)?;
        self.at = text.end() + 1;
        Ok(text)
    }

    /// Reads a number, whose first byte is the next one, and returns its text.
    #[inline]
    pub(crate) fn number(&mut self) -> Scan<&'a [u8]> {
        let start = self.at;
        self.at = number(self.body, start)?;
        Ok(&self.body[start..self.at])
    }

    /// Reads `true`, `false` or `null`.
    #[inline]
    pub(crate) fn literal(&mut self, word: &'static str) -> Scan<()> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads any value. The next byte is its first.
    #[inline]
    pub(crate) fn value(&mut self) -> Scan<()> {
        match self.peek() {
            Some(b'{') => self.nested(false),
            Some(b'[') => self.nested(false),
            _ => self.scalar(),
        }
    }

    /// Reads an object, whose `{` is the next byte, member by member: `each` gets the name and
    /// reads the value, whose first byte is the next one then. With `merged` its keys count as keys
    /// of the event's own object.
    pub(crate) fn members(
        &mut self,
        merged: bool,
        mut each: impl FnMut(&mut Self, Text) -> Scan<()>,
    ) -> Scan<()> {
        self.open(Kind::Object, merged)?;
        if self.take(b'}') {
            return self.close();
        }
        loop {
            let name = self.name()?;
            self.remember(name)?;
            each(self, name)?;
            self.skip_space();
            if self.take(b',') {
                self.skip_space();
            } else if self.take(b'}') {
                return self.close();
            } else {
                return Err(self.expected("`,` or `}` in an object"));
            }
        }
    }

    /// Reads an object whose keys count as keys of the event's own object.
    #[inline]
    pub(crate) fn merged_object(&mut self) -> Scan<()> {
        self.nested(true)
    }

    #[inline]
    fn scalar(&mut self) -> Scan<()> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.expected("a value")),
        }
    }

    /// Reads an object or array and all that is in it.
    fn nested(&mut self, merged: bool) -> Scan<()> {
        let outside = self.depth;
        loop {
            // A value begins here.
            match self.peek() {
                Some(b'{') => {
                    self.open(Kind::Object, merged && self.depth == outside)?;
                    if !self.take(b'}') {
                        self.member()?;
                        continue;
                    }
                    self.close()?;
                }
                Some(b'[') => {
                    self.open(Kind::Array, false)?;
                    if !self.take(b']') {
                        continue;
                    }
                    self.close()?;
                }
                _ => self.scalar()?,
            }
            // It has ended; so may those around it.
            loop {
                if self.depth == outside {
                    return Ok(());
                }
                self.skip_space();
                let kind = self.innermost();
                match (self.peek(), kind) {
                    (Some(b','), Kind::Object) => {
                        self.at += 1;
                        self.skip_space();
                        self.member()?;
                        break;
                    }
                    (Some(b','), Kind::Array) => {
                        self.at += 1;
                        self.skip_space();
                        break;
                    }
                    (Some(b'}'), Kind::Object) | (Some(b']'), Kind::Array) => {
                        self.at += 1;
                        self.close()?;
                    }
                    (_, Kind::Object) => return Err(self.expected("`,` or `}` in an object")),
                    (_, Kind::Array) => return Err(self.expected("`,` or `]` in an array")),
                }
            }
        }
    }

    #[inline]
    fn member(&mut self) -> Scan<()> {
        let name = self.name()?;
        self.remember(name)
    }

    /// Enters an object or array, up to its first content.
    #[inline]
    fn open(&mut self, kind: Kind, merged: bool) -> Scan<()> {
        if let Some(level) = self.scratch.levels.get_mut(self.depth) {
            *level = match kind {
                Kind::Array => Level::Array,
                Kind::Object if merged => Level::Merged,
                Kind::Object => Level::Object(self.scratch.keys.open()),
            };
        } else {
            self.note(|scanner| {
                let message = format!("objects and arrays are nested deeper than {MAX_DEPTH}");
                Fault::new(ErrorKind::Depth, scanner.at, message)
            })?;
            self.deep_levels.push(kind);
        }
        self.depth += 1;
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    /// Leaves the innermost object or array.
    #[inline]
    fn close(&mut self) -> Scan<()> {
        self.depth -= 1;
        if self.depth >= MAX_DEPTH {
            self.deep_levels.pop();
            return Ok(());
        }
        let Level::Object(frame) = self.scratch.levels[self.depth] else {
            return Ok(());
        };
        match self.scratch.keys.close(frame, self.body) {
            None => Ok(()),
            Some(key) => {
                let key = quote(key);
                self.note(|scanner| twice(scanner.at, key))
            }
        }
    }

    #[inline]
    fn innermost(&self) -> Kind {
        match self.scratch.levels.get(self.depth - 1) {
            Some(Level::Array) => Kind::Array,
            Some(Level::Object(_) | Level::Merged) => Kind::Object,
            None => self.deep_levels.last().copied().unwrap_or(Kind::Array),
        }
    }

    /// The current event is over its size limit; `qualifier` says whether `length` is all of it.
    #[cold]
    pub(crate) fn too_large(&self, length: usize, qualifier: &str) -> Box<Fault> {
        let limit = self.event_max_bytes;
        let message = format!(
            "an event of {qualifier}{length} bytes is larger than the limit of {limit} bytes"
        );
        Fault::new(ErrorKind::TooLarge, self.event_start, message)
    }
}

#[cold]
fn twice(at: usize, key: String) -> Box<Fault> {
    let message = format!("the key `{key}` appears twice in one object");
    Fault::field(ErrorKind::Duplicate, at, key, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, mode: Mode) -> (bool, Option<ErrorKind>) {
        let mut scratch = Scratch::default();
        let mut scanner = Scanner::new(json.as_bytes(), &Limits::default(), mode, &mut scratch);
        scanner.begin_event();
        let fine = scanner.value().is_ok() && scanner.at == json.len();
        (fine, scanner.noted.map(|fault| fault.kind))
    }

    #[test]
    fn values_of_every_kind_are_read() {
        for json in [
            "null",
            "true",
            "false",
            "0",
            "\"\"",
            "[]",
            "{}",
            "[ ]",
            "{ }",
            "[1,[2,[]],{}]",
            "{\"a\":{\"b\":[{}]},\"c\":null}",
            "[ 1 , 2 ]",
            "{ \"a\" : 1 , \"b\" : 2 }",
        ] {
            assert_eq!(check(json, Mode::Whole), (true, None), "{json}");
        }
    }

    #[test]
    fn broken_values_are_refused() {
        for json in [
            "",
            "nul",
            "True",
            "NaN",
            "Infinity",
            "-Infinity",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{'a':1}",
            "[1 2]",
            "[1}",
            "{\"a\":1]",
            "[",
            "{",
            "[[]",
            "{\"a\":1 \"b\":2}",
            "nulll",
        ] {
            assert!(!check(json, Mode::Whole).0, "{json}");
            assert!(!check(json, Mode::Partial).0, "{json}");
        }
    }

    #[test]
    fn equal_keys_are_found_in_their_own_object_only() {
        let twice = (true, Some(ErrorKind::Duplicate));
        assert_eq!(
            check(r#"{"a":1,"b":{"a":2,"c":[{"a":3},{"a":4}]}}"#, Mode::Partial),
            (true, None)
        );
        assert_eq!(check(r#"{"a":1,"b":{"c":2},"a":3}"#, Mode::Partial), twice);
        assert_eq!(check(r#"{"b":{"c":2,"d":{},"c":2}}"#, Mode::Partial), twice);
        assert_eq!(check(r#"[{"a":1,"\u0061":1}]"#, Mode::Partial), twice);
        assert!(!check(r#"{"a":1,"a":1}"#, Mode::Whole).0);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for json in [nested(MAX_DEPTH), objects(MAX_DEPTH)] {
            assert_eq!(check(&json, Mode::Partial), (true, None));
            assert_eq!(check(&json, Mode::Whole), (true, None));
        }
        for json in [nested(MAX_DEPTH + 1), objects(MAX_DEPTH + 1), nested(10_000), objects(10_000)]
        {
            assert_eq!(check(&json, Mode::Partial), (true, Some(ErrorKind::Depth)));
            assert!(!check(&json, Mode::Whole).0);
        }
        let crossed = format!("{}{{]{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(!check(&crossed, Mode::Partial).0);
    }
}
