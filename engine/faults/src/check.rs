//! What tests over many trees need.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tempfile::TempDir;

use crate::image::Image;

/// A scratch directory, in memory where the machine has such a place: what is tested in it is not
/// the real disk.
///
/// # Panics
/// When it cannot be created.
#[must_use]
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let created = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    created.expect("there is room for a scratch directory")
}

/// The trees that were seen. Many trees become one when a start has removed what does not belong
/// there; what depends on the tree alone need be checked once.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashSet<u64>>);

impl Seen {
    /// Whether what is in `root` has not been seen before.
    ///
    /// # Panics
    /// When the directory cannot be read.
    pub fn is_new(&self, root: &Path) -> bool {
        let image =
            Image::read(root, &|_| false).expect("a tree that a start has read is readable");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(image.fingerprint())
    }
}

/// Calls `check` with each of `items`, on all cores and about in their order; gives the sum of what
/// it returns.
///
/// # Panics
/// With the first problem that `check` finds.
pub fn check_all<T: Sync>(
    items: &[T],
    check: impl Fn(&T) -> Result<usize, String> + Sync,
) -> usize {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || -> Result<usize, String> {
        let mut sum = 0;
        // Relaxed: the counter only deals out the items, which were there before the threads.
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            sum += check(item)?;
        }
        Ok(sum)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let sums = workers.into_iter().map(|worker| match worker.join() {
            Ok(Ok(sum)) => sum,
            Ok(Err(problem)) => panic!("{problem}"),
            Err(panic) => std::panic::resume_unwind(panic),
        });
        sums.sum()
    })
}
