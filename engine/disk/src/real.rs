//! The operating system's files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::direct::Direct;
use crate::{Access, Disk, DiskFile};

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        open(OpenOptions::new().create_new(true), path, access)
    }

    fn reopen(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        open(&mut OpenOptions::new(), path, access)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

fn open(options: &mut OpenOptions, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
    Ok(match access {
        Access::Cached => Box::new(options.write(true).open(path)?),
        Access::Direct => Box::new(Direct::open(options, path)?),
    })
}

impl DiskFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.sync_all()
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
