//! The log's narrow view of a disk, so that tests can put a faulty one under it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use super::direct::Direct;

/// Creates, renames and removes segment files.
pub trait Disk: Send + std::fmt::Debug {
    /// Creates the file `path`, which must not exist, for writing.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens the existing file `path` for writing over what it holds.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn reopen(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives the file `from` the name `to`, in the same directory.
    ///
    /// # Errors
    /// Whatever the file system says; the file has one of the two names then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the entries of directory `path` durable.
    ///
    /// # Errors
    /// Whatever the file system says; the entries may or may not be durable then.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Removes the file `path`.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// An open segment file.
pub trait DiskFile: Send + std::fmt::Debug {
    /// Writes all of `bytes` from `offset` on.
    ///
    /// # Errors
    /// Whatever the file system says; any part may have been written then.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable (`fdatasync`).
    ///
    /// # Errors
    /// Whatever the file system says; nothing is known about the unsynced bytes then.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` bytes and makes that durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Direct::open(OpenOptions::new().create_new(true), path)?))
    }

    fn reopen(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Direct::open(&mut OpenOptions::new(), path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

impl DiskFile for Direct {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        // Every write has been synced.
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.truncate(length)
    }
}
