//! The bound of memory that queries take and that DuckDB does not count.
//!
//! DuckDB's own limit counts the blocks of tables and the state of operators. It does not count
//! vectors, the columns of a chunk on which functions work: one call of `repeat` or `range` takes
//! gigabytes, and no interrupt reaches it.
//!
//! **Guarantees.** On a thread that runs queries a large allocation is refused when the process would
//! be larger with it than DuckDB's limit and [`BESIDE_BYTES`]. DuckDB then ends the query with an
//! error, as it does at its own limit. Other threads are never refused anything.
//!
//! **Not guaranteed.** The allocator of the program has to ask [`may_allocate`]; without that there
//! is no bound. DuckDB's own threads, which there are when `duckdb.threads` is more than 1, are not
//! bounded, and neither are C++ objects such as the text that `format` builds, of 4 GiB at most.
//!
//! **Roles.** The engine sets the bound when it opens DuckDB; each query worker calls
//! `bound_this_thread` when it starts; the allocator asks on any thread.
//!
//! **Memory.** Nothing here allocates after the bound has been set.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a process may have beside what DuckDB counts: rings, queues, ids, what a roll and a join of
/// files take, and the vectors of queries. All but the last take up to about 300 MB.
pub const BESIDE_BYTES: usize = 512 << 20;
/// Smaller allocations are not counted. Vectors that hold much are made of larger ones: DuckDB
/// doubles them up to 16 MiB.
const SMALL_BYTES: usize = 256 << 10;
/// What a thread takes between two looks at the size of the process.
const LOOK_BYTES: usize = 4 << 20;

/// Resident bytes of the process above which queries are refused memory; 0: no bound.
static BOUND: AtomicUsize = AtomicUsize::new(0);
/// Where Linux says how large the process is; a look takes some ten microseconds.
static SIZES: OnceLock<Option<File>> = OnceLock::new();

thread_local! {
    /// Whether the thread runs queries.
    static BOUNDED: Cell<bool> = const { Cell::new(false) };
    /// What it has asked for since its last look.
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// Sets the bound for a DuckDB whose own limit is `counted` bytes. The last call holds.
pub(crate) fn set_bound(counted: usize) {
    SIZES.get_or_init(|| File::open("/proc/self/status").ok());
    // Relaxed: a number that stands for itself.
    BOUND.store(counted.saturating_add(BESIDE_BYTES), Ordering::Relaxed);
}

/// Makes the bound hold for the calling thread.
pub(super) fn bound_this_thread() {
    BOUNDED.set(true);
}

/// Whether the calling thread may take `bytes` more. For allocators: allocates nothing.
#[must_use]
pub fn may_allocate(bytes: usize) -> bool {
    // A thread that ends has no such variable any more.
    if bytes < SMALL_BYTES || !BOUNDED.try_with(Cell::get).unwrap_or(false) {
        return true;
    }
    let taken = TAKEN.get().saturating_add(bytes);
    if taken < LOOK_BYTES {
        TAKEN.set(taken);
        return true;
    }
    TAKEN.set(0);
    // Relaxed: as above.
    let bound = BOUND.load(Ordering::Relaxed);
    bound == 0 || resident_bytes().is_none_or(|resident| resident.saturating_add(bytes) <= bound)
}

/// The size of the process in memory, where the system tells it.
fn resident_bytes() -> Option<usize> {
    const NAME: &[u8] = b"VmRSS:";
    let mut text = [0; 4_096];
    let read = SIZES.get()?.as_ref()?.read_at(&mut text, 0).ok()?;
    let mut lines = text[..read].split(|byte| *byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(NAME))?;
    let number = std::str::from_utf8(line).ok()?.trim().strip_suffix(" kB")?;
    Some(number.parse::<usize>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use super::*;

    #[test]
    fn a_thread_that_runs_queries_has_a_bound_and_others_have_none() {
        set_bound(64 << 20);
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(may_allocate(usize::MAX));
        std::thread::spawn(|| {
            bound_this_thread();
            assert!(!may_allocate(1 << 40));
            assert!(may_allocate(SMALL_BYTES - 1) && may_allocate(SMALL_BYTES));
        })
        .join()
        .unwrap();
    }
}
