//! The allocator: mimalloc, for DuckDB's C++ too.
//!
//! The server allocates small buffers on one thread and frees them on another, which is what
//! mimalloc is good at; it also gives memory back after a burst.
//!
//! **Queries.** DuckDB counts a part of what queries take. All that it allocates goes by here on
//! Linux, where the linker is told so (`build.rs`); what is large is counted, and refused when
//! queries have taken too much ([`room`](ringlake_engine::query::room)): DuckDB knows what to do when
//! there is no memory. Rust allocates by itself and is never refused.

#![allow(unsafe_code, reason = "mimalloc's options and `malloc` are C functions")]

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

/// Gives free memory back now: all of the calling thread, and all that no thread has.
pub fn give_back() {
    // SAFETY: works on the calling thread's heap, and on what is shared as an allocation does.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// What the linker puts in the place of C's functions, for C and C++.
#[cfg(target_os = "linux")]
mod for_duckdb {
    use std::ffi::c_void;
    use std::ptr::null_mut;

    use ringlake_engine::query::room::{allocated, freed, may_allocate};

    unsafe extern "C" {
        fn __real_malloc(bytes: usize) -> *mut c_void;
        fn __real_calloc(count: usize, bytes: usize) -> *mut c_void;
        fn __real_realloc(pointer: *mut c_void, bytes: usize) -> *mut c_void;
        fn __real_free(pointer: *mut c_void);
        fn malloc_usable_size(pointer: *mut c_void) -> usize;
    }

    #[unsafe(no_mangle)]
    extern "C" fn __wrap_malloc(bytes: usize) -> *mut c_void {
        if !may_allocate(bytes) {
            return null_mut();
        }
        // SAFETY: any number of bytes may be asked for, on any thread.
        let pointer = unsafe { __real_malloc(bytes) };
        // SAFETY: `malloc` has just given it.
        allocated(unsafe { malloc_usable_size(pointer) });
        pointer
    }

    #[unsafe(no_mangle)]
    extern "C" fn __wrap_calloc(count: usize, bytes: usize) -> *mut c_void {
        if !may_allocate(count.saturating_mul(bytes)) {
            return null_mut();
        }
        // SAFETY: as for `malloc`.
        let pointer = unsafe { __real_calloc(count, bytes) };
        // SAFETY: `calloc` has just given it.
        allocated(unsafe { malloc_usable_size(pointer) });
        pointer
    }

    /// # Safety
    /// As for `realloc`: `pointer` is null or came from one of these functions and was not freed.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_realloc(pointer: *mut c_void, bytes: usize) -> *mut c_void {
        if !may_allocate(bytes) {
            return null_mut();
        }
        // SAFETY: the caller keeps the rules of `realloc`, which are the same.
        let before = unsafe { malloc_usable_size(pointer) };
        // SAFETY: as above.
        let moved = unsafe { __real_realloc(pointer, bytes) };
        // When there is no memory the old allocation stays.
        if !moved.is_null() {
            freed(before);
            // SAFETY: `realloc` has just given it.
            allocated(unsafe { malloc_usable_size(moved) });
        }
        moved
    }

    /// # Safety
    /// As for `free`: `pointer` is null or came from one of these functions and was not freed.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_free(pointer: *mut c_void) {
        // SAFETY: the caller keeps the rules of `free`, which are the same; null has size 0.
        freed(unsafe { malloc_usable_size(pointer) });
        // SAFETY: as above.
        unsafe { __real_free(pointer) }
    }
}
