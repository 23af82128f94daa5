//! Values of known paths, out of the text of `properties` or `context`.
//!
//! **Guarantees.** An object is read once and at most up to the last value that is looked for; what
//! lies beside the paths is stepped over. Nothing is allocated but for names with escapes. Text that
//! is no JSON object gives fewer values or none, never a panic.
//!
//! **Not guaranteed.** That the rest of the text is JSON: it was checked when the event came.
//!
//! **Roles.** Whoever fills promoted columns: a [`Wanted`] is built once from [`Path`]s, [`Wanted::find`]
//! runs for each event, and [`text`], [`whole`], [`float`], [`boolean`] and [`moment`] read what it
//! found.
//!
//! **Limits.** A path has [`PATH_NAMES_MAX`] names below its root, which bounds the recursion, and
//! [`PATH_MAX_BYTES`] bytes. Paths lead through objects, not through arrays.

use std::borrow::Cow;

use crate::json::{self, Text};
use crate::time::{parse_epoch, parse_rfc3339};

/// Names below the root of a path: deeper than any property that is asked for often.
pub const PATH_NAMES_MAX: usize = 8;
/// Length of a path as it is written.
pub const PATH_MAX_BYTES: usize = 512;
/// Whole numbers up to this are exact as a 64-bit float.
const FLOAT_EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// In `properties`.
    Properties,
    /// In `context`.
    Context,
}

/// The way to a value: a root, and the name of a member in each object below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Where it begins.
    pub root: Root,
    /// The names, at least one.
    pub names: Vec<String>,
}

impl Path {
    /// Reads a path: `properties.cart.total`, or the JSON pointer `/properties/cart/total` where a
    /// name has a dot (`~1` is a slash in a name, `~0` a tilde).
    ///
    /// # Errors
    ///
    /// What a path has to be, as a phrase.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > PATH_MAX_BYTES {
            return Err(format!("at most {PATH_MAX_BYTES} bytes long"));
        }
        let mut names: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescaped_name).collect::<Result<_, _>>()?,
            None => text.split('.').map(str::to_owned).collect(),
        };
        let root = match names.remove(0).as_str() {
            "properties" => Root::Properties,
            "context" => Root::Context,
            _ => return Err("a path that begins with properties or context".into()),
        };
        if !(1..=PATH_NAMES_MAX).contains(&names.len()) || names.iter().any(String::is_empty) {
            return Err(format!(
                "a path with 1 to {PATH_NAMES_MAX} names below properties or context, such as \
                 properties.cart.total"
            ));
        }
        Ok(Self { root, names })
    }
}

/// A name of a JSON pointer.
fn unescaped_name(text: &str) -> Result<String, String> {
    let mut name = String::with_capacity(text.len());
    let mut pieces = text.split('~');
    name.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (escaped, rest) = match piece.split_at_checked(1) {
            Some(("0", rest)) => ('~', rest),
            Some(("1", rest)) => ('/', rest),
            _ => return Err("a JSON pointer with ~0 for a tilde and ~1 for a slash".into()),
        };
        name.push(escaped);
        name.push_str(rest);
    }
    Ok(name)
}

/// The paths that are looked for below one root, as a tree of names.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Sorted by name.
    members: Vec<Member>,
}

/// A name in an object, and what is wanted of its value.
#[derive(Debug, Clone)]
struct Member {
    name: String,
    /// The numbers under which the value itself is wanted.
    numbers: Vec<usize>,
    /// What is wanted inside it, if it is an object.
    inside: Wanted,
}

impl Wanted {
    /// Looks for the paths `names`, each under its number.
    pub fn new<'p>(paths: impl IntoIterator<Item = (usize, &'p [String])>) -> Self {
        let mut wanted = Self::default();
        for (number, names) in paths {
            wanted.add(number, names);
        }
        wanted
    }

    fn add(&mut self, number: usize, names: &[String]) {
        let Some((name, rest)) = names.split_first() else { return };
        let at = match self.members.binary_search_by(|member| member.name.cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                let (numbers, inside) = (Vec::new(), Self::default());
                self.members.insert(at, Member { name: name.clone(), numbers, inside });
                at
            }
        };
        match rest {
            [] => self.members[at].numbers.push(number),
            rest => self.members[at].inside.add(number, rest),
        }
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Hands the text of each value in `object` that is looked for to `found`, with its number.
    pub fn find<'t>(&self, object: &'t str, mut found: impl FnMut(usize, &'t str)) {
        if self.is_empty() {
            return;
        }
        let mut walk = Walk { text: object, at: 0 };
        walk.skip_space();
        // What cannot be read has no values.
        let _ = walk.object(self, 0, &mut found);
    }

    fn member(&self, name: &[u8]) -> Option<&Member> {
        let at = self.members.binary_search_by(|member| member.name.as_bytes().cmp(name));
        Some(&self.members[at.ok()?])
    }
}

/// A place in a text.
struct Walk<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Walk<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn string(&mut self) -> Option<Text> {
        (self.peek()? == b'"').then_some(())?;
        let text = json::string(self.text.as_bytes(), self.at).ok()?;
        self.at = text.end() + 1;
        Some(text)
    }

    /// Reads an object, whose `{` is the next byte; at depth 0 only as far as needed.
    fn object(
        &mut self,
        wanted: &Wanted,
        depth: usize,
        found: &mut impl FnMut(usize, &'t str),
    ) -> Option<()> {
        self.take(b'{')?;
        self.skip_space();
        // No name comes twice.
        let mut left = wanted.members.len();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.skip_space();
            self.take(b':')?;
            self.skip_space();
            match self.named(wanted, name) {
                None => self.skip_value()?,
                Some(member) => {
                    left -= 1;
                    self.value(member, depth, found)?;
                }
            }
            if left == 0 {
                return if depth == 0 { Some(()) } else { self.skip_to_close() };
            }
            self.skip_space();
            if self.take(b',').is_some() {
                self.skip_space();
            } else {
                return self.take(b'}');
            }
        }
    }

    fn named<'w>(&self, wanted: &'w Wanted, name: Text) -> Option<&'w Member> {
        let raw = name.raw(self.text.as_bytes());
        if !name.escaped() {
            return wanted.member(raw);
        }
        let mut plain = Vec::with_capacity(raw.len());
        json::unescape(raw, |piece| plain.extend_from_slice(piece));
        wanted.member(&plain)
    }

    /// Reads the value of `member`.
    fn value(
        &mut self,
        member: &Member,
        depth: usize,
        found: &mut impl FnMut(usize, &'t str),
    ) -> Option<()> {
        let start = self.at;
        if self.peek()? == b'{' && !member.inside.is_empty() {
            self.object(&member.inside, depth + 1, found)?;
        } else {
            self.skip_value()?;
        }
        let text = self.text.get(start..self.at)?;
        member.numbers.iter().for_each(|number| found(*number, text));
        Some(())
    }

    fn skip_value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' | b'[' => {
                self.at += 1;
                self.skip_to_close()
            }
            _ => {
                let rest = &self.text.as_bytes()[self.at..];
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | 0..=b' ');
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
                Some(())
            }
        }
    }

    /// Steps behind the end of the object or array that the place is in, outside of any string.
    fn skip_to_close(&mut self) -> Option<()> {
        let mut open = 1_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return Some(());
            }
        }
    }
}

/// The value of a JSON string; nothing when `raw` is another value.
#[must_use]
pub fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let mut plain = Vec::with_capacity(inner.len());
    json::unescape(inner.as_bytes(), |piece| plain.extend_from_slice(piece));
    String::from_utf8(plain).ok().map(Cow::Owned)
}

/// The value of a JSON number without a fraction that fits 64 bits; nothing when `raw` is another
/// value. With a point or an exponent (`5.0`, `1e3`) it has to be below 2^53, where no number was
/// rounded to become whole.
#[must_use]
pub fn whole(raw: &str) -> Option<i64> {
    if !raw.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return is_number(raw).then(|| raw.parse().ok()).flatten();
    }
    let value = float(raw)?;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53 fits")]
    (value.fract() == 0.0 && value.abs() < FLOAT_EXACT_MAX).then_some(value as i64)
}

/// The value of a JSON number; nothing when `raw` is another value.
#[must_use]
pub fn float(raw: &str) -> Option<f64> {
    let value: f64 = is_number(raw).then(|| raw.parse().ok()).flatten()?;
    value.is_finite().then_some(value)
}

/// Nothing else in JSON begins like a number, but Rust reads more than JSON has.
fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// `true` or `false`; nothing when `raw` is another value.
#[must_use]
pub fn boolean(raw: &str) -> Option<bool> {
    raw.parse().ok()
}

/// A point in time as [`time`](crate::time) accepts it, in microseconds since 1970 UTC; nothing when
/// `raw` is another value.
#[must_use]
pub fn moment(raw: &str) -> Option<i64> {
    match text(raw) {
        Some(text) => parse_rfc3339(text.as_bytes()),
        None => is_number(raw).then(|| parse_epoch(raw.as_bytes())).flatten(),
    }
}

#[cfg(test)]
mod tests;
