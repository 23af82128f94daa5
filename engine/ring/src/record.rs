//! The format of a record in the buffer: one header word, then the payload, padded to whole words.
//!
//! **Layout.** The header holds the payload's length, or [`SKIP`], which says that the rest of the
//! buffer up to its end is empty and that the next header stands at its start.
//!
//! **Limits.** Lengths are at most [`longest`], so that no sum here comes near an overflow.

/// Bytes of a word. Headers lie on word boundaries; everything in the buffer is whole words.
pub(crate) const WORD: usize = size_of::<u64>();

/// The header of a skip. No length reaches it.
const SKIP: u64 = u64::MAX;

const _: () = assert!((longest(crate::MAX_CAPACITY) as u64) < SKIP);

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// A payload of `len` bytes follows.
    Record { len: usize },
    /// Nothing follows up to the end of the buffer.
    Skip,
}

impl Header {
    pub(crate) const fn to_word(self) -> u64 {
        match self {
            Self::Record { len } => len as u64,
            Self::Skip => SKIP,
        }
    }

    pub(crate) fn from_word(word: u64) -> Self {
        if word == SKIP {
            return Self::Skip;
        }
        let len = usize::try_from(word).expect("a header holds what to_word made from a usize");
        Self::Record { len }
    }
}

/// Bytes that a record with a payload of `len` bytes takes up in the buffer.
pub(crate) const fn footprint(len: usize) -> usize {
    WORD + len.next_multiple_of(WORD)
}

/// The longest payload that fits into an empty ring of `capacity` bytes wherever its tail stands;
/// the crate's Layout section tells why it is half of it.
pub(crate) const fn longest(capacity: usize) -> usize {
    capacity / 2 - WORD
}
