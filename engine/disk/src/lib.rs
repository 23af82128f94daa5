//! The narrow way to the file system: whatever the log or the lake creates, changes, renames,
//! removes or makes durable goes through a [`Disk`], so that tests can put a faulty or recording
//! one underneath.
//!
//! **Guarantees.** A call does one thing to the file system and makes nothing durable that it does
//! not name: contents are synced by [`DiskFile::sync`] and [`Disk::sync_file`], names by
//! [`Disk::sync_directory`] of the directory they stand in. [`write_file`] and
//! [`create_directories_durably`] put such steps together.
//!
//! **Not guaranteed.** Anything about what was not synced: after a power cut each name and each
//! page of it may be there or not. Some things stay outside, because nothing durable rests on them:
//! the lock file of the data directory, the visitor salt, the key of cursors, exports, which are
//! copies, and DuckDB's spill files. The lake writes the bytes of Parquet files by itself; to the
//! engine they exist from [`Disk::sync_file`] on. Reading needs no trait: what a test has to change
//! about it can be changed in the files.
//!
//! **Roles.** Any thread; every call blocks.

#![forbid(unsafe_code)]

mod direct;
mod real;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

pub use real::RealDisk;

/// How the bytes of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Through the page cache, anywhere in the file.
    Cached,
    /// Past the page cache where the file system can, in whole blocks, each write synced: for a log.
    /// A write starts at 0 or inside what the one before covered; zeros may follow its last byte, up
    /// to the end of a block.
    Direct,
}

/// Changes names in a file system, and makes them durable.
pub trait Disk: Debug + Send + Sync {
    /// Creates the file `path`, which must not exist, for writing.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// Opens the existing file `path` for writing over what it holds.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn reopen(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// Creates the directory `path`, which must not exist, in one that does.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Gives the file `from` the second name `to`, which must not exist, in the same directory.
    ///
    /// # Errors
    /// Whatever the file system says; of several calls with the same `to` at most one succeeds.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `from` the name `to`, in the same directory, in place of any file there.
    ///
    /// # Errors
    /// Whatever the file system says; the file has one of the two names then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the file `path`.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes what is in the file `path` durable, whoever has written it.
    ///
    /// # Errors
    /// Whatever the file system says; nothing is known about the unsynced bytes then.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of directory `path` durable.
    ///
    /// # Errors
    /// Whatever the file system says; the entries may or may not be durable then.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Debug + Send {
    /// Writes all of `bytes` from `offset` on.
    ///
    /// # Errors
    /// Whatever the file system says; any part may have been written then.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable (`fdatasync`).
    ///
    /// # Errors
    /// Whatever the file system says; nothing is known about the unsynced bytes then, and a later
    /// sync that succeeds says nothing about them either.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` bytes and makes that durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// Makes `path` a file that holds `bytes`, whole and synced, in place of any file there. Only the
/// name is left to sync: until [`Disk::sync_directory`] the old file may come back, never a mixture.
///
/// # Errors
/// Whatever the file system says; `path` holds what it held before, or `bytes`.
pub fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    // A crash may have left one behind.
    if let Err(error) = disk.remove(&draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = disk.create(&draft, Access::Cached)?;
    file.write_at(bytes, 0)
        .and_then(|()| file.sync())
        .and_then(|()| disk.rename(&draft, path))
        .inspect_err(|_| drop(disk.remove(&draft)))
}

/// Creates `directory` and what is missing above it. The names are left to sync.
///
/// # Errors
/// Whatever the file system says, also when a file is in the way.
pub fn create_directories(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.is_dir()).collect();
    for path in missing.into_iter().rev() {
        match disk.create_directory(path) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            created => created?,
        }
    }
    Ok(())
}

/// As [`create_directories`], and syncs every directory that leads to it, so that its name is
/// durable whoever created it: a process that was killed after creating a directory and before
/// syncing it has left one that only the page cache knows.
///
/// # Errors
/// Whatever the file system says.
pub fn create_directories_durably(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    create_directories(disk, directory)?;
    for parent in directory.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
        match disk.sync_directory(parent) {
            // Whoever may not read a directory has not created anything in it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced?,
        }
    }
    Ok(())
}

/// Where the content of `path` is written before it gets its name.
fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    draft.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_also_when_a_draft_was_left_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("node");
        fs::write(draft_of(&path), "half an").unwrap();
        write_file(&RealDisk, &path, b"first").unwrap();
        write_file(&RealDisk, &path, b"2nd").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2nd");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn directories_are_created_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b/c");
        create_directories_durably(&RealDisk, &path).unwrap();
        create_directories_durably(&RealDisk, &path).unwrap();
        assert!(path.is_dir());
        fs::write(path.join("file"), "").unwrap();
        let error = create_directories(&RealDisk, &path.join("file/below")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_name_is_given_out_once() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        RealDisk.create(&from, Access::Cached).unwrap().write_at(b"content", 0).unwrap();
        RealDisk.link(&from, &to).unwrap();
        let error = RealDisk.link(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            RealDisk.create(&to, Access::Cached).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&to).unwrap(), b"content");
    }
}
