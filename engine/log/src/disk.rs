//! The log's narrow view of a disk, so that tests can put a faulty one under it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Creates and removes segment files.
pub trait Disk: Send + std::fmt::Debug {
    /// Creates the file `path`, which must not exist, for appending.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

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
    /// Writes all of `bytes` at the end.
    ///
    /// # Errors
    /// Whatever the file system says; any prefix may have been written then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was appended durable (`fdatasync`).
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
        Ok(Box::new(OpenOptions::new().append(true).create_new(true).open(path)?))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.sync_all()
    }
}
