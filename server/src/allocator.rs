//! The allocator: mimalloc, for DuckDB's C++ too.
//!
//! The server allocates small buffers on one thread and frees them on another, which is what
//! mimalloc is good at; it also gives memory back after a burst.

#![allow(unsafe_code, reason = "mimalloc's options are C functions")]

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2, which the bindings do not name.
const PURGE_DELAY: c_int = 15;
/// Every roll frees what it sorted and compressed, and the next one, within a second under load,
/// wants it again. mimalloc's own 10 ms gives it back in between, and a bulk load spends a sixth of
/// its time on page faults.
const PURGE_DELAY_MS: c_long = 1_000;

/// Makes freed memory wait a second before it goes back to the system. `MIMALLOC_PURGE_DELAY` in
/// the environment goes first.
pub fn keep_memory_for_the_next_roll() {
    // SAFETY: sets one number in a table of mimalloc's, atomically; any thread may, at any time.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}
