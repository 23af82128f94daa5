//! A disk whose syncs tests can stop and fail.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ringlake_disk::{Access, Disk, DiskFile, RealDisk};

/// Longer than anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A disk under a test's control; clones share it. Segment headers are always written.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestDisk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// Frames are not synced while this is set.
    stopped: bool,
    /// Frames are not synced, and not cut off again either.
    failing: bool,
    /// A sync is waiting.
    waiting: bool,
}

#[derive(Debug)]
struct TestFile {
    inner: Box<dyn DiskFile>,
    disk: TestDisk,
    has_header: bool,
}

impl TestDisk {
    /// Stops every sync from now on.
    pub fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    /// Lets the syncs go on, to succeed or to fail.
    pub fn go_on(&self, failing: bool) {
        self.change(|state| *state = State { stopped: false, failing, waiting: false });
    }

    /// Waits until a sync has been stopped.
    pub fn wait_until_stopped(&self) {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = changed.wait_timeout_while(state, PATIENCE, |state| !state.waiting);
        assert!(outcome.is_ok_and(|(_, timeout)| !timeout.timed_out()), "nothing is synced");
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    /// Waits while stopped; then whether the sync may succeed.
    fn pass(&self) -> bool {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            state.waiting = true;
            changed.notify_all();
        }
        while state.stopped {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.failing
    }
}

impl Disk for TestDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let inner = RealDisk.create(path, access)?;
        Ok(Box::new(TestFile { inner, disk: self.clone(), has_header: false }))
    }

    fn reopen(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let inner = RealDisk.reopen(path, access)?;
        Ok(Box::new(TestFile { inner, disk: self.clone(), has_header: false }))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_directory(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_directory(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_file(path)
    }
}

impl DiskFile for TestFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_header, true) || self.disk.pass() {
            return self.inner.sync();
        }
        Err(io::Error::other("the medium says no"))
    }

    fn truncate(&mut self, _length: u64) -> io::Result<()> {
        Err(io::Error::other("the medium says no"))
    }
}
