//! The buffer of a ring: one allocation of words, addressed by position.
//!
//! **Guarantees.** Every byte is initialised from the start, so that reading one is never
//! undefined, only useless. References are made for exactly the bytes asked for, never for the
//! whole buffer, from one raw pointer that lives as long as the allocation: the producer's `&mut`
//! and the consumer's `&` cannot overlap as long as their ranges do not.
//!
//! **Not guaranteed.** Who owns which range is not known here. The callers keep the contract of
//! the unsafe functions: [`crate::producer`] owns what is not between head and tail,
//! [`crate::consumer`] owns what is.
//!
//! **Layout.** `capacity` is a power of two, so that a mask turns a position into an offset; a
//! range never goes over the end of the buffer.

use std::ptr::{self, NonNull};

use crate::record::{Header, WORD};
use crate::sync::Shadow;

/// The words of the buffer.
pub(crate) struct Storage {
    /// First word of an allocation of `capacity / WORD` words. Never changes.
    words: NonNull<u64>,
    /// Bytes; a power of two, at least `crate::MIN_CAPACITY`. Never changes.
    capacity: usize,
    /// Shows loom each access to a word. Empty in every other build.
    shadow: Shadow,
}

// SAFETY: the allocation belongs to this value alone and u64 words have no ties to a thread.
unsafe impl Send for Storage {}

// SAFETY: shared access reaches the words only through the unsafe functions below, whose callers
// promise that no range is written by one thread while another touches it.
unsafe impl Sync for Storage {}

impl Storage {
    /// Allocates zeroed words. The allocator asks the operating system for zero pages, which take
    /// no memory until they are written.
    pub(crate) fn new(capacity: usize) -> Self {
        debug_assert!(capacity.is_power_of_two());
        debug_assert!(capacity.is_multiple_of(WORD));
        let words = vec![0_u64; capacity / WORD].into_boxed_slice();
        Self {
            words: NonNull::from(Box::leak(words)).cast(),
            capacity,
            shadow: Shadow::new(capacity / WORD),
        }
    }

    /// Bytes of the buffer.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes from `position` to the end of the buffer; at least one word for a word's position.
    pub(crate) fn to_end(&self, position: usize) -> usize {
        self.capacity - self.offset(position)
    }

    fn offset(&self, position: usize) -> usize {
        position & (self.capacity - 1)
    }

    /// Checks a range and shows it to loom; the pointer to its first byte.
    fn range(&self, position: usize, len: usize, write: bool) -> *mut u8 {
        let offset = self.offset(position);
        debug_assert!(offset.is_multiple_of(WORD));
        debug_assert!(len <= self.capacity - offset);
        self.shadow.touch(offset / WORD, len.div_ceil(WORD), write);
        // SAFETY: offset < capacity, the size of the allocation, because of the mask.
        unsafe { self.words.as_ptr().cast::<u8>().add(offset) }
    }

    /// The header at `position`.
    ///
    /// # Safety
    ///
    /// No thread may write this word while the call runs.
    pub(crate) unsafe fn header(&self, position: usize) -> Header {
        let word = self.range(position, WORD, false).cast::<u64>();
        debug_assert!(word.is_aligned());
        // SAFETY: in bounds and initialised; aligned because positions of headers are multiples of
        // a word and so is the allocation's start; not written meanwhile: guaranteed by caller.
        Header::from_word(unsafe { ptr::read(word) })
    }

    /// Writes the header at `position`.
    ///
    /// # Safety
    ///
    /// No other thread may read or write this word while the call runs, and no reference to it may
    /// be alive.
    pub(crate) unsafe fn set_header(&self, position: usize, header: Header) {
        let word = self.range(position, WORD, true).cast::<u64>();
        debug_assert!(word.is_aligned());
        // SAFETY: in bounds and aligned, as in `header`; nobody else touches it: guaranteed by
        // caller.
        unsafe { ptr::write(word, header.to_word()) }
    }

    /// The `len` bytes from `position`.
    ///
    /// # Safety
    ///
    /// `position` is a multiple of a word, `len <= self.to_end(position)`, and nobody writes these
    /// bytes while the slice lives.
    pub(crate) unsafe fn bytes(&self, position: usize, len: usize) -> &[u8] {
        let first = self.range(position, len, false).cast_const();
        // SAFETY: in bounds, initialised by `new`, and unwritten meanwhile: guaranteed by caller.
        unsafe { std::slice::from_raw_parts(first, len) }
    }

    /// The `len` bytes from `position`, for writing.
    ///
    /// # Safety
    ///
    /// `position` is a multiple of a word, `len <= self.to_end(position)`, and nobody else reads,
    /// writes or refers to these bytes while the slice lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "the words lie behind a raw pointer; callers own ranges"
    )]
    pub(crate) unsafe fn bytes_mut(&self, position: usize, len: usize) -> &mut [u8] {
        let first = self.range(position, len, true);
        // SAFETY: in bounds, initialised by `new`, and exclusive: guaranteed by caller.
        unsafe { std::slice::from_raw_parts_mut(first, len) }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let words = ptr::slice_from_raw_parts_mut(self.words.as_ptr(), self.capacity / WORD);
        // SAFETY: `new` leaked a box of exactly this many words, and `&mut self` means that no
        // slice into it is alive.
        drop(unsafe { Box::from_raw(words) });
    }
}
