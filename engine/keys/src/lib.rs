//! API keys: who may send, who may read, who may do everything, and how much of it.
//!
//! ```text
//!  key of a request ─▶ cache of verified keys ─▶ its record          every request: no lock that
//!                          │ not there                               others wait for, no allocation
//!                          ▼
//!                 known id? ─▶ wrong before? ─▶ Argon2id on a thread  once in five minutes a key
//!                                                   of its own
//!  keys.json ◀─ create, rotate, revoke (this process or another); the server follows the file
//! ```
//!
//! A key is the text `rl_<id>_<secret>`. The id is public and begins with the scope's letter; it
//! finds the record. The secret has 160 random bits, is shown once and is stored as Argon2id.
//!
//! **Guarantees.** A key that was rotated or revoked is refused by every check that begins after
//! [`Keys::reload`] has returned. Whoever sends wrong keys cannot make the process hash
//! more than [`check::FAILURES_PER_MINUTE`] of them a minute and address, none at all for ids whose
//! secret has been seen, and never more at a time than there are hashing threads. No secret appears
//! in a log line, an error or a `Debug` text.
//!
//! **Architecture invariant.** This crate knows no HTTP: text comes in, a record goes out.

#![forbid(unsafe_code)]

mod cache;
pub mod check;
mod failures;
mod file;
mod key;
pub mod limits;
mod record;
mod set;
mod verifier;

pub use check::{Keys, Refused};
pub use failures::network;
pub use file::{Error, KEYS_MAX, KeyFile};
pub use key::{Key, public_part};
pub use limits::Limits;
pub use record::{ALIAS_MAX_BYTES, LIST_MAX, Record, Scope, Wanted};
pub use set::is_origin;
