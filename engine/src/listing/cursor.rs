//! Cursors: where the next page begins, as text that only this instance can make.
//!
//! **Guarantees.** A cursor is taken only with the same tenant, filters, range and order as the page
//! that gave it, and only unchanged. It holds a place in the order of rows and nothing about files,
//! so it stays valid across rolls, compactions and restarts.
//!
//! **Not guaranteed.** Secrecy: it shows the `received_at`, node, shard and sequence of the last row
//! to whoever has seen that row.
//!
//! **Layout.** Base64 without padding, as fits a URL, of: version (1 byte), hash of the question (16), `received_at` (8),
//! and behind a row its shard (4), sequence (8) and node (its bytes); then 16 bytes of SipHash-2-4
//! over all of it with the key of the data directory. Integers are little-endian.

use std::hash::Hasher;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::order::{Key, Position};
use crate::lake::location::NODE_MAX_BYTES;
use crate::secret;

/// Changes when the layout does; cursors of another version are refused.
const VERSION: u8 = 1;
const HASH_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + HASH_BYTES + 8;
const ROW_BYTES: usize = 4 + 8;
/// Longest cursor: a node id has at most 100 bytes.
const MAX_CHARS: usize = (HEAD_BYTES + ROW_BYTES + NODE_MAX_BYTES + HASH_BYTES) * 4 / 3 + 1;

/// What signs cursors.
#[derive(Clone)]
pub(crate) struct Signer(secret::Key);

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Signer")
    }
}

impl Signer {
    /// Signs with `key`.
    pub(crate) fn new(key: secret::Key) -> Self {
        Self(key)
    }

    /// The cursor for `position` in the answers to `question`, a text that is the same for the
    /// same question only.
    pub(super) fn write(&self, question: &[u8], position: &Position) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.hash(b'q', question));
        bytes.extend_from_slice(&position.received_at().to_le_bytes());
        if let Position::After(key) = position {
            bytes.extend_from_slice(&key.shard.to_le_bytes());
            bytes.extend_from_slice(&key.sequence.to_le_bytes());
            bytes.extend_from_slice(key.node.as_bytes());
        }
        let mac = self.hash(b'c', &bytes);
        bytes.extend_from_slice(&mac);
        BASE64_URL_SAFE_NO_PAD.encode(&bytes)
    }

    /// The position in `cursor`, when it was made for the same question.
    pub(super) fn read(&self, question: &[u8], cursor: &str) -> Option<Position> {
        if cursor.len() > MAX_CHARS {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (signed, mac) = bytes.split_last_chunk::<HASH_BYTES>()?;
        if !same(&self.hash(b'c', signed), mac) {
            return None;
        }
        let (head, row) = signed.split_first_chunk::<HEAD_BYTES>()?;
        let (version, hash) = (head[0], head[1..].first_chunk::<HASH_BYTES>()?);
        if version != VERSION || !same(&self.hash(b'q', question), hash) {
            return None;
        }
        let received_at = i64::from_le_bytes(*head.last_chunk()?);
        if row.is_empty() {
            return Some(Position::At(received_at));
        }
        let (shard, row) = row.split_first_chunk()?;
        let (sequence, node) = row.split_first_chunk()?;
        Some(Position::After(Key {
            received_at,
            node: std::str::from_utf8(node).ok()?.into(),
            shard: i32::from_le_bytes(*shard),
            sequence: i64::from_le_bytes(*sequence),
        }))
    }

    /// `purpose` keeps the hash of a question from ever being a signature.
    fn hash(&self, purpose: u8, bytes: &[u8]) -> [u8; HASH_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&[purpose]);
        hasher.write(bytes);
        hasher.finish128().as_bytes()
    }
}

/// Compares in a time that does not tell where the difference is.
fn same(one: &[u8; HASH_BYTES], other: &[u8; HASH_BYTES]) -> bool {
    (u128::from_le_bytes(*one) ^ u128::from_le_bytes(*other)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use super::*;

    fn positions() -> [Position; 3] {
        let key = |node: &str, sequence| Key {
            received_at: 1_795_000_000_000_123,
            node: node.into(),
            shard: 3,
            sequence,
        };
        [
            Position::At(-1),
            Position::After(key("0123456789ab", i64::MAX)),
            Position::After(key(&"n".repeat(100), 1)),
        ]
    }

    #[test]
    fn a_cursor_gives_its_position_back() {
        let signer = Signer::new([7; 16]);
        for position in positions() {
            let cursor = signer.write(b"q", &position);
            assert_eq!(signer.read(b"q", &cursor).as_ref(), Some(&position));
        }
    }

    #[test]
    fn every_changed_character_is_noticed_and_so_is_every_cut() {
        let signer = Signer::new([7; 16]);
        for position in positions() {
            let cursor = signer.write(b"q", &position);
            for at in 0..cursor.len() {
                assert_eq!(signer.read(b"q", &cursor[..at]), None);
                let mut changed = cursor.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(signer.read(b"q", &changed), None, "character {at}");
            }
            assert_eq!(signer.read(b"q", &format!("{cursor}AA")), None);
        }
    }

    #[test]
    fn a_cursor_of_another_question_or_instance_is_none() {
        let signer = Signer::new([7; 16]);
        let cursor = signer.write(b"tenant a", &Position::At(5));
        assert_eq!(signer.read(b"tenant b", &cursor), None);
        assert_eq!(Signer::new([8; 16]).read(b"tenant a", &cursor), None);
    }

    #[test]
    fn what_is_no_cursor_is_none() {
        let signer = Signer::new([7; 16]);
        for text in ["", "A", "zz", "AA==", "+/+/", &"A".repeat(10_000), "é"] {
            assert_eq!(signer.read(b"q", text), None, "{text}");
        }
    }
}
