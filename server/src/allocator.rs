//! The allocator: jemalloc, for DuckDB's C++ too.
//!
//! The server allocates on one thread and frees on another, and under a load that goes on no thread is
//! ever at rest. jemalloc gives memory back that has been free for a while from threads of its own,
//! whatever the others are doing.
//!
//! **Queries.** DuckDB counts a part of what queries take. All that it allocates goes by here on
//! Linux, where the linker is told so (`build.rs`); what is large is counted, and refused when
//! queries have taken too much ([`room`](ringlake_engine::query::room)): DuckDB knows what to do when
//! there is no memory. Rust has functions of its own ([`Jemalloc`]) and is never refused.

#![allow(unsafe_code, reason = "an allocator's functions are C's, and unsafe by their nature")]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_int;

use tikv_jemalloc_sys::{MALLOCX_ALIGN, MALLOCX_ZERO, mallocx, rallocx, sdallocx};

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc reads it before anything else runs; `MALLOC_CONF` in the environment goes first.
///
/// What was free for a second goes back to the system. Every roll frees what it sorted and compressed,
/// and under load the next one wants it again within a second: given back in between, it would come
/// again page by page.
#[cfg_attr(target_os = "linux", unsafe(export_name = "malloc_conf"))]
#[cfg_attr(not(target_os = "linux"), unsafe(export_name = "_rjem_malloc_conf"))]
static OPTIONS: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// Rust's way into jemalloc: by functions that C does not know.
#[derive(Debug)]
struct Jemalloc;

// SAFETY: jemalloc gives memory of the size and alignment that were asked for, or null, to any thread,
// and does not unwind.
unsafe impl GlobalAlloc for Jemalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises a size other than 0.
        unsafe { mallocx(layout.size(), flags(layout.align(), layout.size())) }.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let flags = flags(layout.align(), layout.size()) | MALLOCX_ZERO;
        // SAFETY: as above.
        unsafe { mallocx(layout.size(), flags) }.cast()
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let flags = flags(layout.align(), layout.size());
        // SAFETY: the caller promises that `pointer` came from here with this layout.
        unsafe { sdallocx(pointer.cast(), layout.size(), flags) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above, and a new size other than 0.
        unsafe { rallocx(pointer.cast(), size, flags(layout.align(), size)) }.cast()
    }
}

/// How jemalloc is told of an alignment: the usual one need not be mentioned, as long as it is not more
/// than the size.
fn flags(align: usize, size: usize) -> c_int {
    const USUAL: usize = 16;
    if align <= USUAL && align <= size { 0 } else { MALLOCX_ALIGN(align) }
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
