//! A JSON scanner that validates and remembers where things lie, and builds nothing.
//!
//! **Guarantees.** What it accepts is RFC 8259: no trailing commas, no leading zeros, no control
//! characters or lone surrogates in strings, no NaN; numbers lie within the range of an f64; no
//! object holds a key twice, however the two are escaped. It never recurses and reads every byte
//! once. Its memory is a stack of fixed size, the keys of the objects that are open, and in
//! [`Mode::Partial`](crate::Mode::Partial) one byte a level beyond the permitted depth.
//!
//! **Not guaranteed.** UTF-8: the caller has checked the whole body before.

mod keys;
mod number;
mod scanner;
mod text;

pub(crate) use scanner::{Scanner, Scratch};
pub(crate) use text::{Text, push_escaped, string, unescape, unescape_into};

/// A position in a body as the scratch tables hold it; bodies are below 4 GiB.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a body of 4 GiB or more is refused at the door"
)]
pub(crate) fn narrow(at: usize) -> u32 {
    debug_assert!(u32::try_from(at).is_ok());
    at as u32
}

/// A position in a body, from a scratch table.
#[inline]
pub(crate) fn wide(at: u32) -> usize {
    const _: () = assert!(usize::BITS >= u32::BITS);
    at as usize
}
