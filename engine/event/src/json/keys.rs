//! The keys of the objects that are open, to find the one that comes twice.
//!
//! **Guarantees.** Keys are compared by value, escapes taken away. n keys in an object cost
//! O(n log n) whatever they are: the hash is only a first look, keys with equal hashes are ordered
//! by their bytes, so keys made to collide gain nothing.
//!
//! **Algorithm.** All open objects share one stack of keys; an object's keys are the top ones by
//! the time it closes, because inner objects have closed before. While an object has few keys, a
//! 64-bit set of hash tops says for most new keys that they are new, and the rest are compared
//! with the keys before them. An object with many keys is sorted once, when it closes.
//!
//! **Memory.** 12 bytes a key and the bytes of escaped keys, for the keys of one event, kept for
//! the next one. The scanner stops adding when the event is over its size limit.

use crate::json::{Text, narrow, unescape, wide};

/// Up to this many keys are compared with those before them, more are sorted.
const FEW: usize = 16;

/// Scratch for one scanner; empty between events.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    entries: Vec<Entry>,
    /// Values of keys that were written with escapes.
    unescaped: Vec<u8>,
}

/// The keys of one open object.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Frame {
    /// Its first key's place on the stack.
    first: u32,
    /// Which tops of hashes have occurred.
    tops: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    /// In the body, or in `unescaped` if the length says so.
    start: u32,
    /// Length in bytes times two, plus one if the key lies in `unescaped`.
    length: u32,
}

impl Entry {
    fn key<'a>(&self, body: &'a [u8], unescaped: &'a [u8]) -> &'a [u8] {
        let source = if self.length & 1 == 0 { body } else { unescaped };
        let start = wide(self.start);
        &source[start..start + wide(self.length >> 1)]
    }
}

impl Keys {
    /// Forgets everything: an event begins.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.unescaped.clear();
    }

    /// An object opens.
    #[inline]
    pub(crate) fn open(&self) -> Frame {
        Frame { first: narrow(self.entries.len()), tops: 0 }
    }

    /// Adds a key to the innermost object; false when it is seen to be there already.
    ///
    /// What this overlooks, [`Keys::close`] finds.
    #[inline]
    pub(crate) fn insert(&mut self, frame: &mut Frame, body: &[u8], key: Text) -> bool {
        let entry = if key.escaped() { self.unescape(body, key) } else { plain(body, key) };
        let top = 1_u64 << (entry.hash >> 26);
        let new = frame.tops & top == 0 || self.is_new(*frame, body, entry);
        frame.tops |= top;
        self.entries.push(entry);
        new
    }

    /// The innermost object closes. Returns a key that it holds twice, if there is one.
    #[inline]
    pub(crate) fn close<'a>(&'a mut self, frame: Frame, body: &'a [u8]) -> Option<&'a [u8]> {
        let first = wide(frame.first);
        let many = self.entries.len() - first > FEW;
        let twice = if many { self.find_twice(first, body) } else { None };
        self.entries.truncate(first);
        twice.map(|entry| entry.key(body, &self.unescaped))
    }

    /// The value of a key, its escapes taken away. Valid until the event ends.
    pub(crate) fn value<'a>(&'a mut self, body: &'a [u8], key: Text) -> &'a [u8] {
        if key.escaped() {
            let entry = self.unescape(body, key);
            entry.key(body, &self.unescaped)
        } else {
            key.raw(body)
        }
    }

    fn is_new(&self, frame: Frame, body: &[u8], entry: Entry) -> bool {
        let before = &self.entries[wide(frame.first)..];
        // The object will be sorted anyway once it has this many.
        if before.len() >= FEW {
            return true;
        }
        let key = entry.key(body, &self.unescaped);
        before
            .iter()
            .all(|other| other.hash != entry.hash || other.key(body, &self.unescaped) != key)
    }

    #[cold]
    fn find_twice(&mut self, first: usize, body: &[u8]) -> Option<Entry> {
        let Keys { entries, unescaped } = self;
        let object = &mut entries[first..];
        object.sort_unstable_by(|left, right| {
            let by_hash = left.hash.cmp(&right.hash);
            by_hash.then_with(|| left.key(body, unescaped).cmp(right.key(body, unescaped)))
        });
        let equal = |pair: &[Entry]| {
            pair[0].hash == pair[1].hash
                && pair[0].key(body, unescaped) == pair[1].key(body, unescaped)
        };
        object.windows(2).find(|pair| equal(pair)).map(|pair| pair[0])
    }

    #[cold]
    fn unescape(&mut self, body: &[u8], key: Text) -> Entry {
        let start = self.unescaped.len();
        unescape(key.raw(body), |piece| self.unescaped.extend_from_slice(piece));
        let value = &self.unescaped[start..];
        Entry { hash: hash(value), start: narrow(start), length: narrow(value.len() * 2 + 1) }
    }
}

#[inline]
fn plain(body: &[u8], key: Text) -> Entry {
    Entry { hash: hash(key.raw(body)), start: narrow(key.start()), length: narrow(key.len() * 2) }
}

/// A hash of a key's length and its first and last bytes. Cheap, not strong: see the header.
#[inline]
fn hash(key: &[u8]) -> u32 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 divided by the golden ratio
    let (head, tail) = if let (Some(head), Some(tail)) = (key.first_chunk(), key.last_chunk()) {
        (u64::from_le_bytes(*head), u64::from_le_bytes(*tail))
    } else if let (Some(head), Some(tail)) = (key.first_chunk(), key.last_chunk()) {
        (u64::from(u32::from_le_bytes(*head)), u64::from(u32::from_le_bytes(*tail)))
    } else {
        let byte = |place: usize| key.get(place).map_or(0, |byte| u64::from(*byte));
        (byte(0) | byte(1) << 8, byte(2))
    };
    let mixed = head ^ tail.rotate_left(32) ^ (key.len() as u64);
    let spread = mixed.wrapping_mul(ODD) ^ mixed.rotate_left(23).wrapping_mul(ODD);
    (spread >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inserts the words of `keys`; true when one was found to come twice.
    fn has_twice(keys: &[&str]) -> bool {
        let body: String = keys.concat();
        let mut scratch = Keys::default();
        let mut frame = scratch.open();
        let (mut start, mut twice) = (0, false);
        for key in keys {
            let end = start + key.len();
            let text = Text::new(start, end, key.contains('\\'));
            twice |= !scratch.insert(&mut frame, body.as_bytes(), text);
            start = end;
        }
        twice | scratch.close(frame, body.as_bytes()).is_some()
    }

    #[test]
    fn a_repeated_key_is_found_among_few_and_among_many() {
        let names: Vec<String> = (0..40).map(|number| format!("key{number}")).collect();
        for count in 1..=names.len() {
            let mut keys: Vec<&str> = names[..count].iter().map(String::as_str).collect();
            assert!(!has_twice(&keys), "{count}");
            keys.push(&names[count / 2]);
            assert!(has_twice(&keys), "{count}");
        }
    }

    #[test]
    fn escapes_do_not_hide_a_repeated_key() {
        assert!(has_twice(&["abc", "a\\u0062c"]));
        assert!(has_twice(&["\\u0061", "\\u0061"]));
        assert!(!has_twice(&["abc", "a\\u0063c"]));
    }

    #[test]
    fn keys_with_equal_hashes_are_told_apart() {
        let twins = ["12345678a12345678", "12345678b12345678"];
        assert_eq!(hash(twins[0].as_bytes()), hash(twins[1].as_bytes()));
        assert!(!has_twice(&twins));
        assert!(has_twice(&[twins[0], twins[1], twins[0]]));
    }

    #[test]
    fn a_closed_object_leaves_the_outer_one_as_it_was() {
        let body = b"abab";
        let text = |at: usize| Text::new(at, at + 1, false);
        let mut keys = Keys::default();
        let mut outer = keys.open();
        assert!(keys.insert(&mut outer, body, text(0)));
        let mut inner = keys.open();
        assert!(keys.insert(&mut inner, body, text(0)));
        assert!(keys.insert(&mut inner, body, text(1)));
        assert!(keys.close(inner, body).is_none());
        assert!(keys.insert(&mut outer, body, text(1)));
        assert!(!keys.insert(&mut outer, body, text(2)));
    }
}
