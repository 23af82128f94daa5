//! What one query sees: a Delta version with its files, and the hot tables beside it.
//!
//! **Guarantees.** A [`Snapshot`] is immutable and holds every event it covers exactly once. A
//! roll replaces the current snapshot in one pointer swap, after its Delta commit; queries that
//! run keep the one they began with. A hot table is dropped when the last snapshot that names it
//! is gone ([`HotTable`]'s `Drop` tells the flusher, which owns the tables). A Parquet file that
//! was replaced may go when the last snapshot of a version that consists of it is gone
//! ([`Snapshots::oldest`]).
//!
//! **Not guaranteed.** The open hot table grows while a snapshot names it; DuckDB's own
//! transaction fixes what a query sees of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;

pub use crate::lake::DataFile;
use crate::promoted::TableColumns;

/// One consistent view of all events.
#[derive(Debug)]
pub struct Snapshot {
    /// The Delta version that `files` belongs to.
    pub version: u64,
    /// Live Parquet files of that version.
    pub files: Arc<[DataFile]>,
    /// Hot tables, oldest first; the last one is being appended to.
    pub hot: Vec<Arc<HotTable>>,
    /// The columns of all of them; files may lack promoted ones.
    pub columns: Arc<TableColumns>,
}

/// A table in DuckDB's memory that holds events not yet in the lake.
#[derive(Debug)]
pub struct HotTable {
    /// Its name, `hot_<n>`.
    pub name: String,
    /// Where to report that nobody reads it any more.
    unused: Sender<String>,
}

impl HotTable {
    /// A handle on table `name`; `unused` receives the name once the last handle is gone.
    #[must_use]
    pub fn new(name: String, unused: Sender<String>) -> Self {
        Self { name, unused }
    }
}

impl Drop for HotTable {
    fn drop(&mut self) {
        // The flusher is gone only when the process ends, and the table with it.
        let _ = self.unused.send(std::mem::take(&mut self.name));
    }
}

/// The current snapshot, shared by everyone who reads.
#[derive(Debug)]
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
    /// Snapshots that were replaced, as long as somebody holds them.
    held: Mutex<Vec<Weak<Snapshot>>>,
}

impl Snapshots {
    /// Starts with `first`.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(first), held: Mutex::default() }
    }

    /// The current snapshot; holding it keeps its hot tables.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Holds the files of `snapshot` without its hot tables, for a reader that takes its time.
    #[must_use]
    pub fn files_of(&self, snapshot: &Snapshot) -> Arc<Snapshot> {
        let (version, files) = (snapshot.version, Arc::clone(&snapshot.files));
        let columns = Arc::clone(&snapshot.columns);
        let held = Arc::new(Snapshot { version, files, hot: Vec::new(), columns });
        self.lock().push(Arc::downgrade(&held));
        held
    }

    /// Replaces the current snapshot by what `next` makes of it, in one pointer swap.
    pub fn update(&self, next: impl Fn(&Snapshot) -> Snapshot) {
        // Under the lock, so that `oldest` never looks between the swap and the note of it.
        let mut held = self.lock();
        let replaced = self.current.rcu(|old| Arc::new(next(old)));
        held.retain(|snapshot| snapshot.strong_count() > 0);
        held.push(Arc::downgrade(&replaced));
    }

    /// The oldest version that anybody may read now or later.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        let held = self.lock();
        let versions = held.iter().filter_map(Weak::upgrade).map(|snapshot| snapshot.version);
        versions.fold(self.load().version, u64::min)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Snapshot>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: u64) -> Snapshot {
        Snapshot { version, files: Arc::default(), hot: Vec::new(), columns: Arc::default() }
    }

    #[test]
    fn the_oldest_version_is_that_of_the_oldest_reader() {
        let snapshots = Snapshots::new(version(3));
        let reader = snapshots.load();
        snapshots.update(|_| version(4));
        let other = snapshots.load();
        snapshots.update(|_| version(5));
        snapshots.update(|_| version(6));
        assert_eq!(snapshots.oldest(), 3);
        drop(reader);
        assert_eq!(snapshots.oldest(), 4);
        let files = snapshots.files_of(&other);
        drop(other);
        assert_eq!(snapshots.oldest(), 4, "the files of the reader are held");
        drop(files);
        assert_eq!(snapshots.oldest(), 6);
        assert!(snapshots.lock().iter().all(|snapshot| snapshot.strong_count() == 0));
    }
}
