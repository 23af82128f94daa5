//! The text of a key: `rl_<id>_<secret>`.

use std::fmt;

use crate::record::Scope;

/// How every key begins, so that secret scanners find one that was published.
const PREFIX: &str = "rl_";
/// Length of an id: the scope's letter and 50 random bits.
const ID_LENGTH: usize = 11;
/// Length of a secret: 160 random bits.
const SECRET_LENGTH: usize = 32;
/// Letters and digits that are not mistaken for one another; a letter carries five bits.
const ALPHABET: [u8; 32] = *b"abcdefghijkmnpqrstuvwxyz23456789";

/// A key as its holder has it. Its `Debug` text hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// A new key with a new id.
    pub(crate) fn random(scope: Scope) -> Result<Self, getrandom::Error> {
        let id = letters::<{ ID_LENGTH - 1 }>()?;
        Self::with_new_secret(&format!("{}{id}", scope.letter()))
    }

    /// A new key for an id that exists.
    pub(crate) fn with_new_secret(id: &str) -> Result<Self, getrandom::Error> {
        Ok(Self(format!("{PREFIX}{id}_{}", letters::<SECRET_LENGTH>()?)))
    }

    /// The whole text, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Its public part.
    #[must_use]
    pub fn id(&self) -> &str {
        split(&self.0).map_or("", |(id, _)| id)
    }

    pub(crate) fn secret(&self) -> &str {
        split(&self.0).map_or("", |(_, secret)| secret)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}_…", self.id())
    }
}

/// Takes a key apart into id and secret; `None` for what cannot be one.
pub(crate) fn split(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    (id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH).then_some((id, secret))
}

/// What may be shown of a text that should be an id: not the secret of a whole key.
#[must_use]
pub fn public_part(id: &str) -> String {
    let id = id.strip_prefix(PREFIX).unwrap_or(id);
    let id = id.split('_').next().unwrap_or_default();
    id.chars().take(ID_LENGTH).collect()
}

/// `N` random letters of the alphabet.
fn letters<const N: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn a_key_is_taken_apart_into_what_it_was_made_of() {
        let key = Key::random(Scope::Read).unwrap();
        let (id, secret) = split(key.reveal()).unwrap();
        assert_eq!((id, secret), (key.id(), key.secret()));
        assert!(id.starts_with('r'));
        let next = Key::with_new_secret(id).unwrap();
        assert_eq!(next.id(), id);
        assert_ne!(next.secret(), secret);
    }

    #[test]
    fn a_key_that_is_taken_for_an_id_does_not_show_its_secret() {
        let key = Key::random(Scope::Write).unwrap();
        assert_eq!(public_part(key.id()), key.id());
        assert_eq!(public_part(key.reveal()), key.id());
        assert_eq!(public_part(key.secret()).len(), ID_LENGTH);
        assert_eq!(public_part("größe_x"), "größe");
    }

    #[test]
    fn what_is_no_key_is_seen_without_looking_anything_up() {
        for text in ["", "rl_", "rl_w_x", "Bearer", "rl_abcdefghijk_short", "sk_abcdefghijk_"] {
            assert!(split(text).is_none(), "{text}");
        }
        let key = Key::random(Scope::Write).unwrap();
        assert!(split(&format!("{}x", key.reveal())).is_none());
    }

    #[test]
    fn a_debug_text_holds_no_secret() {
        let key = Key::random(Scope::Admin).unwrap();
        assert!(!format!("{key:?}").contains(key.secret()));
    }
}
