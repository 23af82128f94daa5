//! The bound of memory that queries take and cannot give back.
//!
//! DuckDB's own limit counts the blocks of tables and the state of operators. Blocks that it can
//! write to disk it takes from one query for another; what else queries have, such as the list that
//! an aggregate builds, it cannot take, and a query that has all of it leaves none for the events
//! that want to be appended. Vectors, the columns of a chunk on which functions work, it does not
//! count at all: one call of `repeat` or `range` takes gigabytes, and no interrupt reaches it.
//!
//! **Guarantees.** The allocations of DuckDB that are larger than a block are counted. On a thread
//! that runs queries one is refused when all of them would be more than three quarters of DuckDB's
//! limit with it; DuckDB then ends the query with an error, as it does at its own limit. Other threads
//! are never refused anything, so a quarter is there for hot tables, and for blocks, which one query
//! can lose to another.
//!
//! **Not guaranteed.** The allocator of the program has to ask [`may_allocate`] and to tell what was
//! [`allocated`] and [`freed`]; without that there is no bound. DuckDB's own threads, which there are
//! when `duckdb.threads` is more than 1, are not bounded, and neither are C++ objects such as the
//! text that `format` builds, of 4 GiB at most.
//!
//! **Roles.** The engine sets the bound when it opens DuckDB; each query worker calls
//! `bound_this_thread` when it starts; the allocator calls on any thread.
//!
//! **Memory.** Nothing here allocates.

use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// A block of DuckDB's with its header. Vectors that hold much are larger: DuckDB doubles them up to
/// 16 MiB.
const BLOCK_BYTES: usize = 264 << 10;

/// Large allocations above which queries are refused more; 0: no bound.
static BOUND: AtomicIsize = AtomicIsize::new(0);
/// What the large allocations are now. Written by the thread that allocates or frees.
static TAKEN: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// Whether the thread runs queries.
    static BOUNDED: Cell<bool> = const { Cell::new(false) };
}

/// Sets the bound for a DuckDB whose own limit is `limit` bytes. The last call holds.
pub(crate) fn set_bound(limit: usize) {
    // Relaxed, here and below: numbers that stand for themselves.
    BOUND.store(signed(limit - limit / 4), Ordering::Relaxed);
}

/// Makes the bound hold for the calling thread.
pub(super) fn bound_this_thread() {
    BOUNDED.set(true);
}

/// Whether the calling thread may take `bytes` more. For allocators: allocates nothing.
#[must_use]
pub fn may_allocate(bytes: usize) -> bool {
    // A thread that ends has no such variable any more.
    if bytes <= BLOCK_BYTES || !BOUNDED.try_with(Cell::get).unwrap_or(false) {
        return true;
    }
    let bound = BOUND.load(Ordering::Relaxed);
    bound == 0 || TAKEN.load(Ordering::Relaxed).saturating_add(signed(bytes)) <= bound
}

/// Counts an allocation whose size is really `bytes`.
pub fn allocated(bytes: usize) {
    if bytes > BLOCK_BYTES {
        TAKEN.fetch_add(signed(bytes), Ordering::Relaxed);
    }
}

/// Counts the end of an allocation, with the size with which it was counted.
pub fn freed(bytes: usize) {
    if bytes > BLOCK_BYTES {
        TAKEN.fetch_sub(signed(bytes), Ordering::Relaxed);
    }
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use super::*;

    #[test]
    fn a_thread_that_runs_queries_has_a_bound_and_others_have_none() {
        // Far above what other tests set, which open databases meanwhile.
        const HUGE: usize = 1 << 50;
        assert!(may_allocate(usize::MAX));
        std::thread::spawn(|| {
            bound_this_thread();
            set_bound(64 << 20);
            assert!(may_allocate(BLOCK_BYTES) && !may_allocate(HUGE));
            allocated(HUGE);
            assert!(may_allocate(BLOCK_BYTES) && !may_allocate(BLOCK_BYTES + 1));
            freed(HUGE);
            allocated(BLOCK_BYTES);
            assert!(may_allocate(BLOCK_BYTES + 1));
        })
        .join()
        .unwrap();
    }
}
